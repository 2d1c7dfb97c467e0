"""Nodes come and go with their program: threads, tasks, exits, forks and loops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from programs import program, runs

from ldkjit import Bitcoind, Node, NodeConfig, NodeStoppedError, WrongLoopError, sat
from ldkjit.sandbox import Sandbox

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
]


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
"""


@pytest.mark.parametrize(
    ("body", "said"), [("pass", ["clean"]), ("1 / 0", ["raised", "clean"])], ids=["end", "raise"]
)
async def test_three_nodes_leave_nothing(
    box: Sandbox, tmp_path: Path, body: str, said: list[str]
) -> None:
    await runs(box, tmp_path, THREE.replace("WAIT", body), *said)


async def test_twenty_starts_leave_nothing(box: Sandbox, tmp_path: Path) -> None:
    text = """
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
"""
    await runs(box, tmp_path, text, "clean")


async def test_a_node_that_is_never_stopped_does_not_hold_the_exit(
    box: Sandbox, tmp_path: Path
) -> None:
    text = """
global kept
kept = node("a")
say((await kept.start()).node_id)
"""
    async with program(box, tmp_path, text, after='say("exits")') as running:
        node_id = await running.line()
        await running.says("exits")
        await running.ends()
    async with _node(box, tmp_path / "a") as again:
        assert (await again.status()).node_id == node_id


async def test_a_node_that_is_forgotten_goes(box: Sandbox, tmp_path: Path) -> None:
    text = """
import gc

before = threads()
a = node("a")
await a.start()
assert threads() > before
del a
gc.collect()
await as_before(before)
async with node("a"):  # its store is free
    say("clean")
"""
    await runs(box, tmp_path, text, "clean")


async def test_an_exit_in_the_middle_of_everything(box: Sandbox, tmp_path: Path) -> None:
    """sys.exit inside the body, with waits under way."""
    text = """
async with node("a") as a:
    waits = asyncio.gather(
        a.wait_height(10**6, timeout=60), a.wait_payment("00" * 32), anext(a.events()),
        return_exceptions=True)
    await asyncio.sleep(0)
    say("waits")
    sys.exit(4)
"""
    await runs(box, tmp_path, text, "waits", code=4)


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
"""
    await runs(box, tmp_path, text, "goes on")


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
