"""Ctrl-C in the middle of a payment: the program ends, and its node's next start makes it good."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from programs import moved
from support import (
    address_of,
    coins_of,
    comes_to,
    mined_fees,
    online,
    transaction,
    usable,
)

from ldkjit import Limits, Lsp, LspConfig, Msat, Node, Payment, PaymentError, sat
from ldkjit.sandbox import DEFAULT_MENU, Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(150),
]

FUNDS = sat(10_000_000)
# Two channels of this size to the LSP: a payment above it must go in two parts.
PART_SAT = 1_000_000
ONE_PART, TWO_PARTS = sat(400_000), sat(1_500_000)
FEES = {ONE_PART: sat(2_000), TWO_PARTS: sat(6_000)}

# An LSP's program: it says how its order stands.
SERVE = """
async for event in here.events():
    if isinstance(event, OrderChanged):
        say(event.state)
"""


@pytest_asyncio.fixture(loop_scope="module")
async def world(box: Sandbox) -> Sandbox:
    """Nodes named lsp, payer (with two channels to the LSP) and wallet."""
    lsp = await box.lsp(funds=FUNDS)
    at = await address_of(lsp)
    channels = [(lsp, PART_SAT), (lsp, PART_SAT)]
    await box.node("payer", funds=FUNDS, channels=channels, peers=[at])
    await online(await box.wallet(lsp))
    return box


def changed(box: Sandbox, name: str, **changes: object) -> Node:
    """Give a stopped node other settings."""
    box.nodes[name] = Node(box.nodes[name].config.model_copy(update=changes))
    return box.nodes[name]


@contextlib.asynccontextmanager
async def paying(payer: Node, bolt11: str) -> AsyncGenerator[asyncio.Task[Payment], None]:
    """A payment under way, tried once: what fails is seen to fail."""
    task = asyncio.create_task(payer.pay(bolt11, retry=0, timeout=90))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def closed(box: Sandbox, one: Node, other: Node) -> int:
    """Close every channel of ``one``, all with ``other``; what that cost on chain, satoshi."""
    height = await box.chain.rpc.height()
    ours = {each.channel_id for each in await one.channels()}
    for channel_id in ours:
        await one.close_channel(channel_id)

    async def gone() -> bool:
        left = {each.channel_id for node in (one, other) for each in await node.channels()}
        return not ours & left

    async def broadcast() -> int:
        return len(await box.chain.rpc.mempool())

    await until(gone, "the channels' end on both sides")
    await comes_to(broadcast, len(ours), "closing transactions in the mempool")
    await box.mine(6)
    return await mined_fees(box, height)


async def is_accounted_for(box: Sandbox, paid: Msat, fee: Msat, *, jit_channels: int = 1) -> None:
    """Turn all channels into coins, and check what each of the three has, to the satoshi."""
    payer, lsp, wallet = (box.nodes[name] for name in ("payer", "lsp", "wallet"))
    for node in (payer, lsp, wallet):
        assert await node.pending_payments() == []
    await box.mine(6)  # so that no other transaction is taken for a close
    costs: dict[Node, int] = {}
    # Whoever opened a channel pays for its funding and its close: the LSP for the wallet's.
    for opener, closer, count in ((payer, payer, 2), (lsp, wallet, jit_channels)):
        if count:
            await usable(closer)
        fundings = [str(each.funding_txid) for each in await closer.channels()]
        assert len(fundings) == count
        opened = [(await transaction(box, txid))["fee_sat"] for txid in fundings]
        costs[opener] = sum(opened) + await closed(box, closer, lsp)
    for node, expected in (
        (payer, FUNDS.sat - paid.sat - costs[payer]),
        (wallet, paid.sat - fee.sat),
        (lsp, FUNDS.sat + fee.sat - costs[lsp]),
    ):
        what = f"coins of {node.config.alias}"
        await comes_to(lambda node=node: coins_of(node), expected, what)


def state_of(pid: int) -> str:
    """What the kernel says a process does: ``T`` is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def is_settled(box: Sandbox, payment_hash: str, amount: Msat) -> None:
    """Wait until both ends have the payment, and check all money there is."""
    fee = FEES[amount]
    # Together, so that a payment that has failed is told at once.
    sent, received = await asyncio.gather(
        *(box.nodes[name].wait_payment(payment_hash, timeout=60) for name in ("payer", "wallet"))
    )
    assert (sent.amount, sent.fee) == (amount, 0)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await is_accounted_for(box, amount, fee)


async def has_failed(box: Sandbox, task: asyncio.Task[Payment]) -> None:
    """The payer is told that it failed, and nobody received anything."""
    with pytest.raises(PaymentError):
        await asyncio.wait_for(task, 60)
    assert [each async for each in box.nodes["wallet"].payments()] == []


async def test_at_the_payer_while_it_waits(world: Sandbox) -> None:
    """The payment is held at the LSP, as the wallet sleeps."""
    payer, wallet = world.nodes["payer"], world.nodes["wallet"]
    invoice = await wallet.receive(ONE_PART)
    await wallet.stop()
    body = """
    async def usable():
        return [each for each in await here.channels() if each.usable]
    await until(usable, "a channel")
    paying = asyncio.ensure_future(here.pay(await told()))
    await until(here.pending_payments, "the payment")
    say("paying")
    await paying
    """
    async with moved(world, "payer", body) as running:
        running.tell(invoice.bolt11)
        await running.says("paying")
        await running.is_interrupted("clean")
    await wallet.start()
    await payer.start()
    await is_settled(world, invoice.payment_hash, ONE_PART)


@pytest.mark.parametrize("wakes", [True, False], ids=["settles", "fails back"])
async def test_at_the_lsp_while_it_holds_two_parts(world: Sandbox, wakes: bool) -> None:
    """The wallet sleeps; it wakes after the LSP's new start, or too late."""
    payer, wallet = world.nodes["payer"], world.nodes["wallet"]
    invoice = await wallet.receive(TWO_PARTS)
    await wallet.stop()
    async with moved(world, "lsp", SERVE) as running:
        await usable(payer)
        async with paying(payer, invoice.bolt11) as task:
            await running.says_at_last("waking")
            await running.is_interrupted("clean")
            assert not task.done()
            if wakes:
                await world.nodes["lsp"].start()
                await wallet.start()
                await is_settled(world, invoice.payment_hash, TWO_PARTS)
                return
            limits = Limits(wake_ms=0)
            await changed(
                world, "lsp", lsp=LspConfig(menu=list(DEFAULT_MENU), limits=limits)
            ).start()
            await asyncio.wait({task}, timeout=60)
            await wallet.start()
            await has_failed(world, task)
    await is_accounted_for(world, sat(0), sat(0), jit_channels=0)


async def test_at_the_lsp_while_it_opens(world: Sandbox) -> None:
    """The wallet is connected, but does not answer the LSP that wants to open."""
    lsp, payer, wallet = (world.nodes[name] for name in ("lsp", "payer", "wallet"))
    invoice = await wallet.receive(TWO_PARTS)
    body = """
    async def connected():
        return [each for each in await here.peers() if each.connected]
    await until(connected, "the LSP")
    say("connected")
    await here.wait_payment(await told(), timeout=60)
    say("received")
    """
    async with moved(world, "lsp", SERVE) as running, moved(world, "wallet", body) as client:
        await client.says("connected")
        await usable(payer)
        client.process.send_signal(signal.SIGSTOP)

        async def stands_still() -> bool:
            return state_of(client.pid) == "T"

        await until(stands_still, "the wallet's process to stand still")
        async with paying(payer, invoice.bolt11) as task:
            await running.says_at_last("opening")
            await running.is_interrupted("clean")
            assert not task.done()
            assert await world.chain.rpc.mempool() == []
            await lsp.start()
            client.process.send_signal(signal.SIGCONT)
            client.tell(invoice.payment_hash)
            await client.says("received", "clean")
            await client.ends()
            await wallet.start()
            await is_settled(world, invoice.payment_hash, TWO_PARTS)


@pytest.mark.parametrize("confirms", [True, False], ids=["settles", "fails back"])
async def test_at_the_wallet_while_its_payment_waits(world: Sandbox, confirms: bool) -> None:
    """It claims nothing before the channel's funding is confirmed, or fails the payment in time."""
    lsp, payer, wallet = (world.nodes[name] for name in ("lsp", "payer", "wallet"))
    await wallet.stop()
    wallet = changed(world, "wallet", lsps=[Lsp(await address_of(lsp), confirmations=1)])
    body = f"""
    invoice = await here.receive(Msat({int(ONE_PART)}))
    say(invoice.bolt11)
    waiting = asyncio.ensure_future(invoice.settled())
    async def claiming():
        return [each for each in await here.client_orders() if each.state == "claiming"]
    await until(claiming, "the payment")
    say("claiming")
    await waiting
    """
    async with moved(world, "wallet", body) as running:
        bolt11 = await running.line()
        async with paying(payer, bolt11) as task:
            await running.says("claiming")
            await running.is_interrupted("clean")
            assert not task.done()
            await wallet.start()
            (funding,) = await world.chain.rpc.mempool()
            if confirms:
                await world.mine(1)
                payment_hash = (await payer.decode(bolt11)).payment_hash
                await is_settled(world, payment_hash, ONE_PART)
                return
            await world.chain.rpc.call("prioritisetransaction", funding, 0, -(10**8))
            for _ in range(100):
                await world.mine(6)
                if task.done():
                    break
            await has_failed(world, task)
    assert await world.chain.rpc.mempool() == [funding]
    await world.chain.rpc.call("prioritisetransaction", funding, 0, 10**8)
    await is_accounted_for(world, sat(0), sat(0))
