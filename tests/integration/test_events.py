"""Events between real nodes: at least once, in order, and each consumer at its own pace."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support import Pair, id_of, only_channel, pay_both, wallet_of

from ldkjit import (
    ChannelPending,
    ChannelReady,
    Event,
    Node,
    OrderChanged,
    OrderSold,
    PaymentFailed,
    PaymentForwarded,
    PaymentReceived,
    PaymentSent,
    sat,
)
from ldkjit.sandbox import Sandbox

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60),
]


async def take(
    node: Node, consumer: str, count: int, *, acknowledge_last: bool = False
) -> list[Event]:
    """The next events of a consumer; the last one taken stays unacknowledged unless asked."""
    taken: list[Event] = []
    async with contextlib.aclosing(node.events(consumer)) as events:
        while len(taken) < count:
            taken.append(await asyncio.wait_for(anext(events), 10))
        if acknowledge_last:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(anext(events), 0.2)
    return taken


async def quiet(node: Node, consumer: str) -> bool:
    """Whether there is nothing new for a consumer."""
    async with contextlib.aclosing(node.events(consumer)) as events:
        try:
            await asyncio.wait_for(anext(events), 0.2)
        except asyncio.TimeoutError:
            return True
    return False


async def paid(pair: Pair, amount: int) -> str:
    invoice = await pair.bob.receive(sat(amount))
    await pay_both(pair.ann, pair.bob, invoice.bolt11)
    return invoice.payment_hash


async def test_what_is_told_and_in_which_order(pair: Pair) -> None:
    _, ann, bob = pair
    payment_hash = await paid(pair, 1_000)
    channel = await only_channel(bob)
    pending, ready, received = await take(bob, "reader", 3)
    assert isinstance(pending, ChannelPending)
    assert isinstance(ready, ChannelReady)
    assert isinstance(received, PaymentReceived)
    assert pending.channel_id == ready.channel_id == channel.channel_id
    assert pending.peer == ready.peer == await id_of(ann)
    assert (received.payment_hash, received.amount) == (payment_hash, sat(1_000))
    assert received.opening_fee == 0
    assert pending.at <= ready.at <= received.at

    sent = next(e for e in await take(ann, "reader", 8) if isinstance(e, PaymentSent))
    assert (sent.payment_hash, sent.amount, sent.fee) == (payment_hash, sat(1_000), 0)
    assert sent.preimage == (await bob.payment(payment_hash)).preimage


async def test_consumers_do_not_disturb_each_other(pair: Pair) -> None:
    _, _, bob = pair
    hashes = [await paid(pair, count) for count in (1, 2, 3)]
    fast = await take(bob, "fast", 5, acknowledge_last=True)
    assert [e.payment_hash for e in fast if isinstance(e, PaymentReceived)] == hashes
    assert await quiet(bob, "fast")
    slow = await take(bob, "slow", 2)
    assert slow == fast[:2]
    assert await take(bob, "slow", 1) == fast[1:2]  # not acknowledged: told again
    assert await take(bob, "late", 5) == fast


async def test_what_was_not_acknowledged_comes_again_after_a_restart(pair: Pair) -> None:
    _, _, bob = pair
    await paid(pair, 7)
    first = await take(bob, "books", 3)
    done = await take(bob, "done", 3, acknowledge_last=True)
    assert done == first
    await bob.stop()
    await bob.start()
    assert await take(bob, "books", 1) == first[2:]
    assert await quiet(bob, "done")
    assert await take(bob, "new", 3) == first


async def test_an_event_is_awaited_not_asked_for(pair: Pair) -> None:
    _, _, bob = pair
    await take(bob, "waiter", 2, acknowledge_last=True)
    waiting = asyncio.ensure_future(take(bob, "waiter", 1))
    await asyncio.sleep(0)
    payment_hash = await paid(pair, 9)
    (event,) = await waiting
    assert isinstance(event, PaymentReceived)
    assert event.payment_hash == payment_hash


async def test_a_consumer_that_fails_sees_the_event_again(pair: Pair) -> None:
    _, _, bob = pair
    seen: list[Event] = []

    async def consume() -> None:
        async with contextlib.aclosing(bob.events("shaky")) as events:
            async for event in events:
                seen.append(event)
                raise RuntimeError("the database is away")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await consume()
    assert seen[0] == seen[1]


async def test_an_lsp_tells_of_sale_and_payment(box: Sandbox) -> None:
    lsp = await box.lsp()
    payer = await box.node("payer", funds=sat(2_000_000), channels=[(lsp, 1_000_000)])
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(sat(100_000))
    await pay_both(payer, wallet, invoice.bolt11)
    told: list[Event] = []
    async with contextlib.aclosing(lsp.events()) as events:
        while not (told and isinstance(told[-1], OrderChanged) and told[-1].state == "paid"):
            told.append(await asyncio.wait_for(anext(events), 10))
    (sold,) = [each for each in told if isinstance(each, OrderSold)]
    assert (sold.scid, sold.client) == (invoice.jit_scid, await id_of(wallet))
    states = [each.state for each in told if isinstance(each, OrderChanged)]
    assert states == ["opening", "forwarding", "paid"]  # one part needs no collecting
    forwards = [each for each in told if isinstance(each, PaymentForwarded)]
    if not forwards:
        forwards = [
            each for each in await take(lsp, "default", 2) if isinstance(each, PaymentForwarded)
        ]
    assert [each.fee for each in forwards] == [0]
    received = next(
        each for each in await take(wallet, "default", 3) if isinstance(each, PaymentReceived)
    )
    assert (received.amount, received.opening_fee) == (sat(98_000), sat(2_000))
    assert not [each for each in told if isinstance(each, PaymentFailed)]
