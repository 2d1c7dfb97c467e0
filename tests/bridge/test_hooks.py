"""Hooks that fork, exit and are interrupted, in programs of their own."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from conformance.peer import PeerGoneError, Target
from conformance.rpc import CLIENT_REJECTED, Client
from programs import Program, program, runs

from ldkjit import Msat
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
]

SIZE = Msat(100_000_000)

# An LSP whose hook for sales is HOOK, and a payer whose channel lets it receive.
SHOP = """
asked = []
HOOK
menu = [FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)]
policy = PolicyConfig(sell=sell, sell_ms=10_000)
lsp = node("lsp", lsp=LspConfig(menu=menu, policy=policy))
payer = node("payer")
at = (await lsp.start()).address
await payer.start()
say(at, await lsp.new_address(), await payer.new_address())
await told()
async def funded():
    return all([(await each.balances()).onchain.confirmed_sat for each in (lsp, payer)])
await until(funded, "the coins")
await payer.open_channel(at, 1_000_000)
say("opens")
await told()
async def usable():
    return any([each.usable for each in await lsp.channels()])
await until(usable, "the channel")
say("open")
"""
STOP = """
await told()
say(len(await lsp.orders()))
await payer.stop()
await lsp.stop()
"""


def _shop(hook: str, rest: str) -> str:
    return SHOP.replace("HOOK", hook) + rest


async def _fund(box: Sandbox, running: Program) -> Client:
    """Give the nodes of a program coins and confirmations, and connect to its LSP."""
    at, *addresses = (await running.line()).split()
    for address in addresses:
        await box.chain.rpc.fund(address, 10_000_000)
    await box.chain.mine(6)
    running.tell("funded")
    await running.says("opens")
    await until(box.chain.rpc.mempool, "the channel's funding transaction")
    await box.chain.mine(6)
    running.tell("mined")
    await running.says("open")
    return await Client.connect(Target.parse(at))


KINDS = ["def", "async def"]


@pytest.mark.parametrize("child", ["os._exit(0)", "return Accept()"], ids=["exits", "returns"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_hook_that_forks(box: Sandbox, tmp_path: Path, kind: str, child: str) -> None:
    """The child ends with the hook, and its answer is nobody's; the parent sells."""
    hook = f"""
{kind} sell(order):
    child = os.fork()
    if child == 0:
        {child}
    assert os.waitpid(child, 0)[1] == 0
    return Accept()
"""
    async with program(box, tmp_path, _shop(hook, STOP)) as running:
        async with await _fund(box, running) as client:
            (offer,) = await client.get_info()
            assert (await client.buy(offer, int(SIZE))).code is None
        running.tell("done")
        await running.says("1")
        code, errors, _ = await running._end()
        # Python itself warns of a fork beside threads, from 3.12 on.
        assert code == 0
        assert not [each for each in errors.splitlines() if "DeprecationWarning" not in each], (
            errors
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_hook_that_exits_the_process_sells_nothing(
    box: Sandbox, tmp_path: Path, kind: str
) -> None:
    hook = f"""
{kind} sell(order):
    os._exit(7)
"""
    async with program(box, tmp_path, _shop(hook, "await asyncio.sleep(60)\n")) as running:
        async with await _fund(box, running) as client:
            (offer,) = await client.get_info()
            with pytest.raises(PeerGoneError):
                await client.buy(offer, int(SIZE))
        await running.ends(7)
    again = (
        'a = node("lsp", lsp=LspConfig(menu=[]))\nasync with a:\n    say(len(await a.orders()))\n'
    )
    await runs(box, tmp_path, again, "0")


@pytest.mark.parametrize("kind", KINDS)
async def test_sys_exit_in_a_hook_ends_no_program(box: Sandbox, tmp_path: Path, kind: str) -> None:
    hook = f"""
{kind} sell(order):
    asked.append(1)
    if len(asked) == 1:
        sys.exit(5)
    return Accept()
"""
    async with program(box, tmp_path, _shop(hook, STOP)) as running:
        async with await _fund(box, running) as client:
            (offer,) = await client.get_info()
            assert (await client.buy(offer, int(SIZE))).code == 1
            assert (await client.buy(offer, int(SIZE))).code is None
        running.tell("done")
        await running.says("1")
        await running.ends()


HANGS = {
    "def": """
def sell(order):
    say("asked")
    time.sleep(3_600)
""",
    "async def": """
async def sell(order):
    say("asked")
    await asyncio.sleep(3_600)
""",
}
_KEPT = "global kept\nkept = lsp, payer\n"
ENDS = {
    "stop": ("await lsp.stop()\nawait payer.stop()\nsay('stopped')\n", "stopped", 0),
    "no stop": (_KEPT + "say('leaves')\n", "leaves", 0),
    "exit": (_KEPT + "say('exits')\nsys.exit(4)\n", "exits", 4),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_program_ends_with_a_question_open(
    box: Sandbox, tmp_path: Path, kind: str, end: str
) -> None:
    rest, said, code = ENDS[end]
    async with (
        program(box, tmp_path, _shop(HANGS[kind], "await told()\n" + rest)) as running,
        await _fund(box, running) as client,
    ):
        (offer,) = await client.get_info()
        buying = asyncio.ensure_future(client.buy(offer, int(SIZE)))
        await running.says("asked")
        running.tell("enough")
        await running.says(said)
        await running.ends(code)
        # A coroutine may be cancelled while the node still answers.
        with contextlib.suppress(PeerGoneError):
            assert (await buying).code == CLIENT_REJECTED
