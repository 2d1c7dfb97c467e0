"""The command against a node that runs: what it prints, its exit codes, what it keeps secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from ldkjit import ConfigError, NodeConfig, NodeStoppedError, sat
from ldkjit.cli import app
from ldkjit.control import SOCKET, attach, called, serve, shut_down
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

PASSWORD = "a-password-that-nobody-shall-see"


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """A folder with a configuration, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LDKJIT_")}
        self.environment = {**clean, "COLUMNS": "200"}

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "ldkjit", *words),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *words: str) -> Done:
        process = await self.begin(*words)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Done(process.returncode or 0, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def wallet_of(box: Sandbox, folder: Path, lsp_at: str) -> AsyncGenerator[Shell, None]:
    """`ldkjit init`, edited as its comments say, and `ldkjit run`."""
    shell = Shell(folder)
    done = await shell("init", "--network", "regtest")
    assert done.code == 0, done.err
    rpc = box.chain.rpc
    node_id, _, address = lsp_at.partition("@")
    text = (folder / "ldkjit.toml").read_text()
    text = text.replace("http://127.0.0.1:18443", rpc.url)
    text += f'\n[[lsps]]\nnode_id = "{node_id}"\naddress = "{address}"\n'
    (folder / "ldkjit.toml").write_text("fee_fallback_sat_per_kw = 500\n" + text)
    shell.environment["LDKJIT_CHAIN__PASSWORD"] = rpc.password
    shell.environment["LDKJIT_CHAIN__POLL_MS"] = "50"
    running = await shell.begin("run")
    try:
        socket = folder / "ldkjit-data" / SOCKET

        async def answers() -> bool:
            assert running.returncode is None, await running.communicate()
            return socket.exists()

        await until(answers, "the node's socket")
        yield shell
        if running.returncode is None:
            assert (await shell("stop")).code == 0
            out, err = await asyncio.wait_for(running.communicate(), 30)
            assert running.returncode == 0, err
            assert not socket.exists()
            assert rpc.password not in (out + err).decode()
    finally:
        if running.returncode is None:
            running.kill()
            await running.communicate()


async def test_a_wallet_by_command(box: Sandbox, tmp_path: Path) -> None:
    lsp = await box.lsp()
    payer = await box.node("payer", funds=sat(5_000_000), channels=[(lsp, 2_000_000)])
    async with wallet_of(box, tmp_path, (await lsp.status()).address) as shell:
        told = await shell("status")
        assert told.code == 0, told.err
        assert "on regtest, block" in told.out
        status = (await shell("status", "--json")).json
        assert len(status["node_id"]) == 66

        # Receive: a channel is bought.
        made = await shell("receive", "50_000", "--description", "coffee")
        assert made.code == 0, made.err
        assert "the LSP keeps 2,000 sat" in made.out
        assert "█" in made.out
        invoice = (await shell("receive", "60000sat", "--json", "--png", "code.png")).json
        assert invoice["opening_fee"] == 2_000_000
        assert (tmp_path / "code.png").read_bytes().startswith(b"\x89PNG")
        await payer.pay(invoice["bolt11"])

        async def arrived() -> bool:
            balance = (await shell("wallet", "balance", "--json")).json
            return int(balance["lightning"]["outbound"]) > 50_000_000

        await until(arrived, "the payment")
        (channel,) = (await shell("channels", "list", "--json")).json
        assert channel["usable"]
        assert channel["peer"] == (await lsp.status()).node_id
        assert channel["channel_id"] in (await shell("channels", "list")).out
        assert "connected" in (await shell("peers", "list")).out

        # Pay: once, however often it is asked.
        bill = await payer.receive(sat(10_000))
        paid = await shell("pay", f"lightning:{bill.bolt11.upper()}", "--json")
        assert paid.code == 0, paid.err
        assert paid.json["status"] == "succeeded"
        again = await shell("pay", bill.bolt11)
        assert again.code == 2
        assert "already" in again.err
        assert (await bill.settled(timeout=10)).amount == sat(10_000)

        # A payment that cannot arrive has failed, and says so by its code.
        lost = await payer.receive(sat(1_000))
        await payer.stop()
        assert (await shell("pay", lost.bolt11)).code == 1
        await payer.start()

        # Coins.
        address = (await shell("wallet", "address", "--json")).json["address"]
        await box.chain.fund(address, 1_000_000)
        await box.chain.mine(6)

        async def has_coins() -> bool:
            balance = (await shell("wallet", "balance", "--json")).json
            return int(balance["onchain"]["confirmed_sat"]) == 1_000_000

        await until(has_coins, "the coins")
        target = str(await box.chain.rpc.call("getnewaddress"))
        sent = await shell("wallet", "send", target, "200000", "--json")
        assert sent.json["txid"] in await box.chain.rpc.mempool()
        assert (await shell("wallet", "send", target, "0.5msat")).code == 2

        # It waits, and hears.
        waiting = await shell.begin("receive", "1000", "--wait", "--json", "--jit", "never")
        assert waiting.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += (await asyncio.wait_for(waiting.stdout.readline(), 30)).decode()
        await payer.pay(json.loads(text)["bolt11"])
        out, err = await asyncio.wait_for(waiting.communicate(), 30)
        assert waiting.returncode == 0, err
        assert json.loads(out)["amount"] == 1_000_000

        none = await shell("receive", "1000", "--wait", "--expiry", "1", "--jit", "never")
        assert none.code == 3, none.err


async def test_mistakes_name_the_right_command(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    lost = await shell("status")
    assert lost.code == 2
    assert "ldkjit init" in lost.err
    nobody = await shell("--data-dir", str(tmp_path), "wallet", "balance")
    assert nobody.code == 2
    assert "ldkjit run" in nobody.err
    there = ("-d", str(tmp_path))
    address = await shell(*there, "pay", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
    assert address.code == 2
    assert "ldkjit wallet send" in address.err
    assert (await shell("-d", str(tmp_path), "pay", "hello")).code == 2
    typo = await shell("chanels")
    assert typo.code == 2
    assert "channels" in typo.err
    wrong = await shell("-d", str(tmp_path), "receive", "1.5")
    assert wrong.code == 2
    assert "50000sat" in wrong.err


async def test_init_writes_what_run_can_read(tmp_path: Path) -> None:
    for network in ("bitcoin", "testnet", "testnet4", "signet", "regtest"):
        file = tmp_path / f"{network}.toml"
        done = CliRunner().invoke(app, ["init", str(file), "--network", network])
        assert done.exit_code == 0, done.output
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LDKJIT_CHAIN__PASSWORD", PASSWORD)
            config = NodeConfig.load(file)
        assert config.network == network
        assert config.data_dir == tmp_path / "ldkjit-data"
        again = CliRunner().invoke(app, ["init", str(file)])
        assert again.exit_code == 2
        assert "exists" in again.output


async def test_run_without_a_chain_says_so_and_keeps_the_password(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert (await shell("init", "--network", "regtest")).code == 0
    shell.environment["LDKJIT_CHAIN__PASSWORD"] = PASSWORD
    shell.environment["LDKJIT_CHAIN__URL"] = "http://127.0.0.1:9"
    done = await shell("run")
    assert done.code == 2
    assert "ChainError" in done.err
    assert PASSWORD not in done.out + done.err


async def test_the_socket_is_its_owners_alone(box: Sandbox) -> None:
    node = await box.node("served")
    async with serve(node) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with attach(node.config.data_dir) as other:
            assert await other.status() == await node.status()
            heights = await asyncio.gather(*(other.status() for _ in range(200)))
            assert {each.height for each in heights} == {(await node.status()).height}
            with pytest.raises(ConfigError, match="belongs to"):
                await called(other, "stop")
            with pytest.raises(ConfigError, match="belongs to"):
                await called(other, "next_event", consumer="default")
            with pytest.raises(ConfigError, match="belongs to"):
                await called(other, "shut_down")
        # What is no call is answered, and what is too long ends the conversation.
        reader, writer = await asyncio.open_unix_connection(path)
        for odd in (b"nonsense\n", b"[]\n", b'{"id": 1}\n', b'{"id":1,"method":"x","params":3}\n'):
            writer.write(odd)
            assert b'"code": "config"' in await asyncio.wait_for(reader.readline(), 10)
        writer.write(b"x" * 2**21)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        async with attach(node.config.data_dir) as other:
            waiting = asyncio.create_task(other.wait_height(10**6, timeout=600))
            await other.status()
            await node.stop()
            with pytest.raises(NodeStoppedError):
                await asyncio.wait_for(waiting, 10)
    with pytest.raises(NodeStoppedError, match="ldkjit run"):
        async with attach(node.config.data_dir):
            pass


async def test_a_program_may_let_others_stop_its_node(box: Sandbox) -> None:
    node = await box.node("stoppable")
    asked = asyncio.Event()

    async def program() -> None:
        async with serve(node, asked.set):
            await asked.wait()
            await node.stop()

    running = asyncio.create_task(program())

    async def is_served() -> bool:
        with contextlib.suppress(NodeStoppedError):
            async with attach(node.config.data_dir):
                return True
        return False

    await until(is_served, "the socket")
    await shut_down(node.config.data_dir)
    assert asked.is_set()
    await running


async def test_a_socket_that_was_left_is_replaced(box: Sandbox) -> None:
    node = await box.node("left")
    path = node.config.data_dir / SOCKET
    path.write_text("left by a node that was killed")
    async with serve(node), attach(node.config.data_dir) as other:
        assert (await other.status()).alias == "left"
