"""Nodes come and go with their program: threads, tasks, exits, signals, forks and loops."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ldkjit import Bitcoind, Node, NodeConfig, NodeStoppedError, WrongLoopError, sat
from ldkjit.sandbox import Sandbox

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
]

# The beginning of every program that a test runs in a process of its own.
HEAD = """
import asyncio, os, signal, sys, time
from pathlib import Path
from ldkjit import *
from ldkjit.sandbox import until

URL, USER, PASSWORD, FOLDER = sys.argv[1:5]

def node(name, **settings):
    return Node(NodeConfig(
        network="regtest", data_dir=Path(FOLDER) / name, listen=["127.0.0.1:0"],
        chain=Bitcoind(URL, user=USER, password=PASSWORD, poll_ms=50),
        fee_fallback_sat_per_kw=500, accept_channels=True, **settings))

def threads():
    return {(Path("/proc/self/task") / each / "comm").read_text() + each
            for each in os.listdir("/proc/self/task")}

async def as_before(before):
    end = time.monotonic() + 5
    while threads() - before:
        assert time.monotonic() < end, f"threads left: {threads() - before}"
        await asyncio.sleep(0.02)

def say(*words):
    print(*words, flush=True)
"""


class Program:
    """A Python process that runs a test's text after ``HEAD``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, timeout: float = 30.0) -> str:
        assert self.process.stdout is not None
        read = await asyncio.wait_for(self.process.stdout.readline(), timeout)
        if not read:
            code, errors, _ = await self.end()
            raise AssertionError(f"the program ended with {code}:\n{errors}")
        return read.decode().strip()

    async def end(self, timeout: float = 15.0) -> tuple[int, str, float]:
        """Wait for the exit: (code, what it wrote to stderr, seconds waited)."""
        began = time.monotonic()
        assert self.process.stderr is not None
        errors = await asyncio.wait_for(self.process.stderr.read(), timeout)
        code = await asyncio.wait_for(self.process.wait(), timeout)
        return code, errors.decode(), time.monotonic() - began


@contextlib.asynccontextmanager
async def program(box: Sandbox, folder: Path, text: str) -> Any:
    rpc = box.chain.rpc
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + text),
        *(rpc.url, rpc.user, rpc.password, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # pipes, before the loop ends


def _node(box: Sandbox, folder: Path, **settings: Any) -> Node:
    rpc = box.chain.rpc
    chain = Bitcoind(rpc.url, user=rpc.user, password=rpc.password, poll_ms=50)
    return Node(
        NodeConfig(
            network="regtest",
            data_dir=folder,
            chain=chain,
            fee_fallback_sat_per_kw=500,
            **settings,
        )
    )


THREE = """
async def main():
    before, tasks = threads(), asyncio.all_tasks()
    descriptors = len(os.listdir("/proc/self/fd"))
    try:
        async with node("a") as a, node("b") as b, node("c") as c:
            for other in (b, c):
                await a.connect((await other.status()).address)
            assert len(await a.peers()) == 2
            assert threads() > before
            WAIT
    except ZeroDivisionError:
        say("raised")
    await as_before(before)
    assert asyncio.all_tasks() == tasks, asyncio.all_tasks() - tasks
    assert len(os.listdir("/proc/self/fd")) == descriptors
    say("clean")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("body", "said"), [("pass", ["clean"]), ("1 / 0", ["raised", "clean"])], ids=["end", "raise"]
)
async def test_three_nodes_leave_nothing(
    box: Sandbox, tmp_path: Path, body: str, said: list[str]
) -> None:
    async with program(box, tmp_path, THREE.replace("WAIT", body)) as running:
        assert [await running.line() for _ in said] == said
        code, errors, seconds = await running.end()
    assert (code, errors) == (0, "")
    assert seconds < 5


async def test_twenty_starts_leave_nothing(box: Sandbox, tmp_path: Path) -> None:
    text = """
async def main():
    async with node("a"):
        pass
    before, descriptors = threads(), len(os.listdir("/proc/self/fd"))
    a = node("a")
    ids = set()
    for _ in range(20):
        await a.start()
        ids.add((await a.status()).node_id)
        await a.stop()
    await as_before(before)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(ids) == 1
    say("clean")

asyncio.run(main())
"""
    async with program(box, tmp_path, text) as running:
        assert await running.line() == "clean"
        code, errors, _ = await running.end()
    assert (code, errors) == (0, "")


async def test_ctrl_c_in_the_middle_of_a_payment(box: Sandbox, tmp_path: Path) -> None:
    """The payment waits at a wallet's LSP for a wallet that sleeps; SIGINT ends the payer."""
    lsp = await box.lsp()
    wallet = await box.wallet(lsp)
    at = (await lsp.status()).address
    text = f"""
async def main():
    before = threads()
    try:
        async with node("payer") as payer:
            say(await payer.new_address())
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            async def coins():
                return (await payer.balances()).onchain.confirmed_sat
            await until(coins, "coins")
            await payer.open_channel({at!r}, 1_000_000)
            say("opened")
            async def usable():
                return any(each.usable for each in await payer.channels())
            await until(usable, "the channel")
            say("ready")
            bolt11 = (await asyncio.get_running_loop().run_in_executor(
                None, sys.stdin.readline)).strip()
            paying = asyncio.ensure_future(payer.pay(bolt11))
            async def pending():
                return await payer.pending_payments()
            await until(pending, "the payment")
            say("paying")
            await paying
    finally:
        asyncio.get_running_loop()._default_executor.shutdown()
        await as_before(before)
        say("clean")

try:
    asyncio.run(main())
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(3)
"""
    async with program(box, tmp_path, text) as running:
        address = await running.line()
        await box.chain.fund(address, 2_000_000)
        await box.mine(1)
        running.process.stdin.write(b"\n")
        assert await running.line() == "opened"
        await box.mine(6)
        assert await running.line() == "ready"

        invoice = await wallet.receive(sat(50_000))
        await wallet.stop()
        running.process.stdin.write(invoice.bolt11.encode() + b"\n")
        assert await running.line() == "paying"
        running.process.send_signal(signal.SIGINT)
        assert await running.line(10) == "clean"
        assert await running.line() == "interrupted"
        code, errors, seconds = await running.end()
    assert (code, errors) == (3, "")
    assert seconds < 5
    await wallet.start()

    # Nothing half done: the payer starts again, and the payment goes on to an end.
    payer = _node(box, tmp_path / "payer")
    async with payer:
        sent = await payer.wait_payment(invoice.payment_hash, timeout=60)
        received = await wallet.wait_payment(invoice.payment_hash, timeout=10)
        assert (sent.amount, received.amount) == (sat(50_000), sat(48_000))
        assert await payer.pending_payments() == []
    for name in ("wallet", "lsp"):
        await box.nodes.pop(name).stop()


async def test_a_node_that_is_never_stopped_does_not_hold_the_exit(
    box: Sandbox, tmp_path: Path
) -> None:
    text = """
async def main():
    global kept
    kept = node("a")
    say((await kept.start()).node_id)

asyncio.run(main())
say("exits")
"""
    async with program(box, tmp_path, text) as running:
        node_id = await running.line()
        assert await running.line() == "exits"
        code, errors, seconds = await running.end()
    assert (code, errors) == (0, "")
    assert seconds < 5
    async with _node(box, tmp_path / "a") as again:
        assert (await again.status()).node_id == node_id


async def test_a_node_that_is_forgotten_goes(box: Sandbox, tmp_path: Path) -> None:
    text = """
import gc

async def main():
    before = threads()
    a = node("a")
    await a.start()
    assert threads() > before
    del a
    gc.collect()
    await as_before(before)
    async with node("a"):  # its store is free
        say("clean")

asyncio.run(main())
"""
    async with program(box, tmp_path, text) as running:
        assert await running.line() == "clean"
        code, errors, _ = await running.end()
    assert (code, errors) == (0, "")


async def test_an_exit_in_the_middle_of_everything(box: Sandbox, tmp_path: Path) -> None:
    """sys.exit inside the body, with waits under way."""
    text = """
async def main():
    async with node("a") as a:
        waits = asyncio.gather(
            a.wait_height(10**6, timeout=60), a.wait_payment("00" * 32), anext(a.events()),
            return_exceptions=True)
        await asyncio.sleep(0)
        say("waits")
        sys.exit(4)

asyncio.run(main())
"""
    async with program(box, tmp_path, text) as running:
        assert await running.line() == "waits"
        code, errors, seconds = await running.end()
    assert (code, errors) == (4, "")
    assert seconds < 5


async def test_a_forked_child_is_refused_and_the_parent_goes_on(
    box: Sandbox, tmp_path: Path
) -> None:
    text = """
async def in_child(a):
    wrong = []
    for call in (
        a.status, a.balances, a.fee_rates, a.new_address, a.peers, a.channels, a.orders,
        a.client_orders, a.pending_payments, a.start, a.stop, a.stop,
        lambda: a.receive(sat(1)), lambda: a.pay("x"), lambda: a.keysend("x", sat(1)),
        lambda: a.send_onchain("x", 1000), lambda: a.connect("x"), lambda: a.disconnect("x"),
        lambda: a.open_channel("x", 20_000), lambda: a.close_channel("x"),
        lambda: a.payment("x"), lambda: a.invoice("x"), lambda: a.wait_payment("x"),
        lambda: a.wait_height(1), lambda: a.decode("x"), lambda: a.timeline("x"),
        lambda: anext(a.events()), lambda: anext(a.ledger()), lambda: anext(a.payments()),
    ):
        try:
            await call()
            wrong.append("no error")
        except ForkError:
            pass
        except BaseException as error:
            wrong.append(repr(error))
    return wrong

async def main():
    async with node("a") as a:
        before = await a.status()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events._set_running_loop(None)
                wrong = asyncio.new_event_loop().run_until_complete(in_child(a))
                print(wrong, file=sys.stderr, flush=True) if wrong else None
                del a
                code = 1 if wrong else 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await a.status()).node_id == before.node_id
        await a.new_address()
        say("goes on")

asyncio.run(main())
"""
    async with program(box, tmp_path, text) as running:
        assert await running.line() == "goes on"
        code, errors, _ = await running.end()
    assert (code, errors) == (0, "")


async def test_another_event_loop_is_refused(box: Sandbox, tmp_path: Path) -> None:
    async with _node(box, tmp_path) as node:

        def elsewhere() -> list[str]:
            async def calls() -> list[str]:
                seen: list[str] = []
                for call in (node.status, node.balances, node.start, node.stop):
                    try:
                        await call()
                    except WrongLoopError:
                        seen.append("refused")
                return seen

            return asyncio.run(calls())

        assert await asyncio.to_thread(elsewhere) == ["refused"] * 4
        assert (await node.status()).height > 0


async def test_starting_twice_is_starting_once(box: Sandbox, tmp_path: Path) -> None:
    node = _node(box, tmp_path)
    first, second = await asyncio.gather(node.start(), node.start())
    third = await node.start()
    assert first == second == third
    await asyncio.gather(node.stop(), node.stop())
    await node.stop()
    assert (await node.start()).node_id == first.node_id
    await node.stop()


async def test_a_stopped_node_says_so(box: Sandbox, tmp_path: Path) -> None:
    node = _node(box, tmp_path)
    calls = (
        node.status,
        node.balances,
        lambda: node.receive(sat(1)),
        lambda: node.wait_payment("00" * 32),
        lambda: anext(node.events()),
    )
    for call in calls:
        with pytest.raises(NodeStoppedError, match="not started"):
            await call()
    await node.start()
    waiting = asyncio.ensure_future(node.wait_height(10**6, timeout=60))
    listening = asyncio.ensure_future(anext(node.events("listener")))
    await asyncio.sleep(0)
    await node.stop()
    for each in (waiting, listening):
        with pytest.raises(NodeStoppedError):
            await asyncio.wait_for(each, 5)
    for call in calls:
        with pytest.raises(NodeStoppedError):
            await call()
