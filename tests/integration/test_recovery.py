"""Backups of a running node, by Python and by the command, and what comes home from them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import wallet_of
from typer.testing import CliRunner, Result

from ldkjit import (
    ConfigError,
    Node,
    NotFoundError,
    RecoveringError,
    RecoveryNeededError,
    StoreCopyError,
    sat,
)
from ldkjit.cli import app
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


def run(*words: object, env: dict[str, str] | None = None, typed: str | None = None) -> Result:
    """``ldkjit`` with these words."""
    return CliRunner().invoke(app, [str(word) for word in words], input=typed, env=env)


async def recover(*words: object, env: dict[str, str], typed: str | None = None) -> Result:
    """``ldkjit recover``, which has an event loop of its own."""
    return await asyncio.to_thread(run, "recover", *words, env=env, typed=typed)


def settings_of(node: Node, data_dir: Path, **more: Any) -> Node:
    """The same node in another folder."""
    return Node(node.config.model_copy(update={"data_dir": data_dir, **more}))


def environment(node: Node, data_dir: Path) -> dict[str, str]:
    """The same node in another folder, for the command."""
    told = {
        "NETWORK": "regtest",
        "DATA_DIR": str(data_dir),
        "CHAIN__URL": node.config.chain.url,
        "CHAIN__USER": node.config.chain.user,
        "CHAIN__PASSWORD": node.config.chain.password,
        "CHAIN__POLL_MS": "50",
        "FEE_FALLBACK_SAT_PER_KW": "500",
        "LSPS": json.dumps([f"{each.node_id}@{each.address}" for each in node.config.lsps]),
    }
    return {f"LDKJIT_{name}": value for name, value in told.items()}


async def paid_wallet(box: Sandbox, name: str) -> tuple[Node, Node]:
    """An LSP, and a wallet with a channel of it that is in a block."""
    lsp = await box.lsp()
    payer = await box.node("payer", funds=sat(5_000_000), channels=[(lsp, 1_000_000)])
    wallet = await wallet_of(box, lsp, name)
    invoice = await wallet.receive(sat(100_000), max_opening_fee=sat(5_000))
    await payer.pay(invoice.bolt11)
    await invoice.settled(timeout=30)

    async def published() -> bool:
        return bool(await box.chain.rpc.mempool())

    await until(published, "the funding of a channel")
    await box.mine(6)
    return lsp, wallet


async def mined(box: Sandbox, task: asyncio.Task[Any]) -> None:
    """Mine until a task is done."""
    while not task.done():
        await box.mine(1)
        await asyncio.wait([task], timeout=0.2)


async def test_a_backup_comes_home_by_the_command(box: Sandbox, tmp_path: Path) -> None:
    lsp, wallet = await paid_wallet(box, "ann")
    file, new = tmp_path / "backup", tmp_path / "new"
    # Of a running node, by the command; not over another file.
    taken = run("backup", wallet.config.data_dir, file, "--json")
    assert taken.exit_code == 0, taken.output
    told = json.loads(taken.stdout)
    assert told["node_id"] == (await wallet.status()).node_id
    assert told["channels"] == 1
    assert file.stat().st_mode & 0o077 == 0
    again = run("backup", wallet.config.data_dir, file)
    assert again.exit_code == 2
    assert "is not overwritten" in again.output
    # Not where the node runs.
    beside = run("restore", file, new)
    assert beside.exit_code == 2
    assert f"process {os.getpid()}" in beside.output.replace("\n", " ")
    await box.nodes.pop("ann").stop()
    assert run("restore", file, wallet.config.data_dir).exit_code == 2
    restored = run("restore", file, new)
    assert restored.exit_code == 0, restored.output
    assert "1 channels" in restored.output.replace("\n", " ")

    with pytest.raises(RecoveryNeededError):
        await settings_of(wallet, new).start()
    env = environment(wallet, new)
    command = asyncio.create_task(recover("--json", "--timeout", 100, env=env))
    await mined(box, command)
    came = command.result()
    assert came.exit_code == 0, came.output
    end = json.loads(came.stdout)
    assert (end["origin"], end["all"], end["coming_sat"]) == ("backup", True, 0)
    assert [each["state"] for each in end["channels"]] == ["closed"]
    # What the channel held, less the sweep's fee.
    assert 97_000 < end["spendable_sat"] < 98_000
    assert not [each for each in await lsp.channels() if each.peer == told["node_id"]]
    assert run("ledger", "check", new).exit_code == 0


async def test_a_backup_comes_home_in_python(box: Sandbox, tmp_path: Path) -> None:
    _, wallet = await paid_wallet(box, "bob")
    file, new = tmp_path / "backup", tmp_path / "new"
    taken = await wallet.backup(file)
    assert (taken.network, taken.channels) == ("regtest", 1)
    with pytest.raises(ConfigError, match="not overwritten"):
        await wallet.backup(file)
    with pytest.raises(NotFoundError):
        await wallet.recovery()
    await box.nodes.pop("bob").stop()
    assert run("restore", file, new).exit_code == 0
    async with settings_of(wallet, new, recover=True) as node:
        with pytest.raises(RecoveringError, match="receive"):
            await node.receive(sat(1_000))
        with pytest.raises(StoreCopyError) as beside:
            await wallet.start()
        assert beside.value.pid == os.getpid()

        async def swept() -> bool:
            await box.mine(1)
            now = await node.recovery()
            assert all(each.need for each in now.channels)
            return now.settled

        await until(swept, "all to be swept", 60)
        balance = (await node.balances()).onchain
        assert 97_000 < balance.spendable_sat < 98_000
        assert (await node.ledger_check()).ok


async def test_words_find_coins_and_say_what_is_missing(box: Sandbox, tmp_path: Path) -> None:
    node = await box.node("coins", funds=sat(300_000))
    words = (Path(node.config.data_dir) / "seed").read_text()
    await node.stop()
    box.nodes.pop("coins")
    env = environment(node, tmp_path / "empty")
    given = await recover("--words", "-", "--timeout", 0, "--json", env=env, typed=words)
    # Nothing is on its way, and nobody knows whether that is all.
    assert given.exit_code == 1, given.output
    end = json.loads(given.stdout)
    assert (end["origin"], end["spendable_sat"], end["channels"]) == ("words", 300_000, [])
    other = environment(node, tmp_path / "other")
    nothing = await recover("--timeout", 0, env=other)
    assert nothing.exit_code == 2
    assert "give the words" in nothing.output.replace("\n", " ")
    # As it says: what was refused left nothing behind.
    again = await recover("--words", "-", "--timeout", 0, env=other, typed=words)
    assert again.exit_code == 1, again.output
    missing = await recover("--words", tmp_path / "no such file", env=env)
    assert missing.exit_code == 2


async def test_a_store_in_memory_has_no_backup(box: Sandbox, tmp_path: Path) -> None:
    node = await box.node("memory", store="memory")
    with pytest.raises(ConfigError, match="memory"):
        await node.backup(tmp_path / "backup")
    await node.stop()
    box.nodes.pop("memory")
    assert run("backup", node.config.data_dir, tmp_path / "backup").exit_code == 2
