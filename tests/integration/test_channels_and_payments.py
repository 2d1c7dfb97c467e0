"""Ordinary channels, payments and coins between real nodes, exact to the millisatoshi."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support import (
    CAPACITY,
    SAT_PER_BTC,
    Pair,
    address_of,
    coins_of,
    comes_to,
    id_of,
    in_mempool,
    mined_fees,
    only_channel,
    outbound,
    pay_and_settle,
    pay_both,
    spent_is,
    transaction,
    usable,
)

from ldkjit import (
    ChannelClosed,
    InvoiceError,
    LdkJitError,
    Msat,
    Node,
    Payment,
    PaymentError,
    sat,
)
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60),
]

ANCHOR_SAT = 330


async def test_an_invoice_is_paid_there_and_back(pair: Pair) -> None:
    _, ann, bob = pair
    invoice = await bob.receive(sat(200_000), description="a goat")
    assert (invoice.path, invoice.opening_fee) == ("channel", 0)
    before = await outbound(ann)
    sent, received = await pay_both(ann, bob, invoice.bolt11)
    assert (sent.status, sent.direction, sent.amount, sent.fee) == (
        "succeeded",
        "out",
        sat(200_000),
        0,
    )
    assert (received.status, received.direction, received.amount, received.opening_fee) == (
        "succeeded",
        "in",
        sat(200_000),
        0,
    )
    assert sent.preimage == received.preimage
    assert sent.description == "a goat"
    await spent_is(ann, before, 200_000_000)

    async def can_come_back() -> tuple[int, int]:
        return int((await only_channel(ann)).inbound), int((await only_channel(bob)).outbound)

    await comes_to(can_come_back, (190_000_000,) * 2, "what Bob can send, less 1 % reserve")
    back = await ann.receive(Msat(1_234_567))
    before = await outbound(bob)
    sent, received = await pay_both(bob, ann, back.bolt11)
    assert (sent.amount, received.amount) == (1_234_567, 1_234_567)
    await spent_is(bob, before, 1_234_567)


async def test_the_payer_chooses_the_amount(pair: Pair) -> None:
    _, ann, bob = pair
    invoice = await bob.receive(None)
    assert invoice.amount is None
    before = await outbound(ann)
    sent, received = await pay_both(ann, bob, invoice.bolt11, amount=Msat(77_777_777))
    assert (sent.amount, received.amount) == (77_777_777, 77_777_777)
    await spent_is(ann, before, 77_777_777)


async def test_keysend_needs_no_invoice(pair: Pair) -> None:
    _, ann, bob = pair
    before = await outbound(ann)
    sent = await ann.keysend(await id_of(bob), Msat(9_876_543))
    assert (sent.kind, sent.amount, sent.fee) == ("keysend", 9_876_543, 0)
    received = await bob.wait_payment(sent.payment_hash, timeout=10)
    assert (received.kind, received.direction, received.amount) == ("keysend", "in", 9_876_543)
    assert received.preimage == sent.preimage
    await spent_is(ann, before, 9_876_543)


async def test_histories_list_every_payment_once(pair: Pair) -> None:
    _, ann, bob = pair
    hashes: list[str] = []
    for count in (1, 2, 3):
        invoice = await bob.receive(sat(count))
        await pay_both(ann, bob, invoice.bolt11)
        hashes.append(invoice.payment_hash)
    for node, direction in ((ann, "out"), (bob, "in")):
        history: list[Payment] = [each async for each in node.payments()]
        assert [each.payment_hash for each in history] == hashes
        assert {each.direction for each in history} == {direction}
        assert [each.amount for each in history] == [sat(1), sat(2), sat(3)]
        assert await node.pending_payments() == []


async def test_a_payment_without_a_route_fails_for_good(pair: Pair) -> None:
    box, ann, bob = pair
    stranger = await box.node("stranger")
    before = await outbound(ann)
    with pytest.raises(PaymentError, match="no route") as caught:
        await ann.keysend(await id_of(stranger), sat(1_000), retry=0, timeout=10)
    assert caught.value.retryable
    assert [each async for each in ann.payments()] == await ann.pending_payments() == []
    assert await outbound(ann) == before
    await pay_both(ann, bob, (await bob.receive(sat(1_000))).bolt11)


async def test_paying_twice_pays_once(pair: Pair) -> None:
    _, ann, bob = pair
    invoice = await bob.receive(sat(5_000))
    before = await outbound(ann)
    await pay_both(ann, bob, invoice.bolt11)
    with pytest.raises(InvoiceError) as caught:
        await ann.pay(invoice.bolt11)
    assert caught.value.why == "already_paid"
    await spent_is(ann, before, 5_000_000)


async def test_a_cooperative_close_gives_everybody_the_rest(pair: Pair) -> None:
    box, ann, bob = pair
    await pay_and_settle(pair, sat(300_000))
    channel = await only_channel(ann)
    height = await box.chain.rpc.height()
    ann_before, bob_before = await coins_of(ann), await coins_of(bob)

    await ann.close_channel(channel.channel_id)

    async def gone() -> bool:
        return not await ann.channels() and not await bob.channels()

    await until(gone, "the channel's end on both sides")
    await box.mine(6)
    fees = await mined_fees(box, height)
    assert 0 < fees < 5_000
    await comes_to(lambda: coins_of(bob), bob_before + 300_000, "Bob's coins")
    await comes_to(lambda: coins_of(ann), ann_before + 700_000 - fees, "Ann's coins")
    for node in (ann, bob):
        closed = [each async for each in _events_so_far(node) if isinstance(each, ChannelClosed)]
        assert [each.channel_id for each in closed] == [channel.channel_id]


@pytest.mark.parametrize("closer", ["ann", "bob"])
async def test_a_forced_close_is_swept(pair: Pair, closer: str) -> None:
    """Whoever closes waits out a delay; the other is paid at once. Nothing but fees is lost."""
    box, ann, bob = pair
    await pay_and_settle(pair, sat(300_000))
    channel = await only_channel(ann)
    height = await box.chain.rpc.height()
    before = await coins_of(ann) + await coins_of(bob)
    own = {"ann": await coins_of(ann), "bob": await coins_of(bob)}

    node = ann if closer == "ann" else bob
    await node.close_channel(channel.channel_id, force=True)

    async def commitment() -> str | None:
        for txid in await box.chain.rpc.mempool():
            found = await transaction(box, txid)
            if any(each["txid"] == channel.funding_txid for each in found["vin"]):
                return txid
        return None

    txid = await until(commitment, "the commitment transaction in the mempool")
    for _ in range(30):
        await box.mine(6)
        balances = [await each.balances() for each in (ann, bob)]
        if not any(each.pending_sweep_sat or each.lightning.claimable for each in balances):
            break
    else:
        pytest.fail("never swept")
    await box.mine(1)
    assert await ann.channels() == [] == await bob.channels()
    outputs = (await transaction(box, txid))["vout"]
    anchors = [each["n"] for each in outputs if each["value"] * SAT_PER_BTC == ANCHOR_SAT]
    assert len(anchors) == 2
    left = 0
    for vout in anchors:
        left += ANCHOR_SAT if await box.chain.rpc.txout(txid, vout) else 0

    async def total() -> int:
        return await coins_of(ann) + await coins_of(bob)

    fees = await mined_fees(box, height)
    assert 0 < fees < 20_000
    await comes_to(total, before + CAPACITY - fees - left, "everybody's coins")
    assert own["bob"] + 300_000 - 5_000 < await coins_of(bob) <= own["bob"] + 300_000
    assert own["ann"] + 700_000 - 20_000 < await coins_of(ann) < own["ann"] + 700_000


async def test_coins_are_sent_exactly(box: Sandbox) -> None:
    ann = await box.node("ann", funds=sat(5_000_000))
    target = str(await box.chain.rpc.call("getnewaddress"))
    before = await coins_of(ann)
    txid = await ann.send_onchain(target, 1_234_567)
    await in_mempool(box, txid)
    sent = await transaction(box, txid)
    paid = {each["scriptPubKey"]["address"]: each["value"] for each in sent["vout"]}
    assert paid[target] == Decimal(1_234_567) / SAT_PER_BTC
    assert await coins_of(ann) == before - 1_234_567 - sent["fee_sat"]
    await box.mine(1)
    await comes_to(lambda: coins_of(ann), before - 1_234_567 - sent["fee_sat"], "Ann's coins")
    assert (await ann.balances()).onchain.unconfirmed_sat == 0


@pytest.mark.parametrize("rate", [253, 2_500])
async def test_the_fee_rate_asked_for_is_paid(box: Sandbox, rate: int) -> None:
    ann = await box.node("ann", funds=sat(5_000_000))
    target = str(await box.chain.rpc.call("getnewaddress"))
    txid = await ann.send_onchain(target, 100_000, fee_rate_sat_per_kw=rate)
    await in_mempool(box, txid)
    sent = await transaction(box, txid)
    least = -(-rate * sent["weight"] // 1_000)
    assert least <= sent["fee_sat"] <= least * 102 // 100 + 2


async def test_everything_is_sent(box: Sandbox) -> None:
    ann = await box.node("ann", funds=sat(5_000_000))
    assert await coins_of(ann) == 5_000_000
    target = str(await box.chain.rpc.call("getnewaddress"))
    txid = await ann.send_onchain(target, None)
    await in_mempool(box, txid)
    sent = await transaction(box, txid)
    assert [each["scriptPubKey"]["address"] for each in sent["vout"]] == [target]
    assert sent["vout"][0]["value"] * SAT_PER_BTC == 5_000_000 - sent["fee_sat"]
    assert await coins_of(ann) == 0


async def test_everything_but_the_reserve_is_sent(pair: Pair) -> None:
    """With a channel open, what a forced close may cost stays."""
    box, ann, _ = pair
    before = (await ann.balances()).onchain
    assert before.anchor_reserve_sat > 0
    assert before.spendable_sat == before.confirmed_sat - before.anchor_reserve_sat
    target = str(await box.chain.rpc.call("getnewaddress"))
    txid = await ann.send_onchain(target, None)
    await in_mempool(box, txid)
    sent = await transaction(box, txid)
    paid = next(v for v in sent["vout"] if v["scriptPubKey"]["address"] == target)["value"]
    left = await coins_of(ann)
    assert left >= before.anchor_reserve_sat
    assert left == before.confirmed_sat - int(paid * SAT_PER_BTC) - sent["fee_sat"]
    assert left <= before.anchor_reserve_sat + 1_000


async def test_fee_rates_are_ordered(box: Sandbox) -> None:
    ann = await box.node("ann")
    rates = await ann.fee_rates()
    assert 253 <= rates.minimum <= rates.background <= rates.normal <= rates.high


async def test_peers_come_and_go(box: Sandbox) -> None:
    ann, bob = await box.node("ann"), await box.node("bob")
    assert await ann.peers() == []
    await ann.connect(await address_of(bob))
    (peer,) = await ann.peers()
    assert (peer.node_id, peer.connected, peer.inbound) == (await id_of(bob), True, False)

    async def inbound() -> list[tuple[str, bool, bool]]:
        return [(each.node_id, each.connected, each.inbound) for each in await bob.peers()]

    await comes_to(inbound, [(await id_of(ann), True, True)], "Bob's peers")
    await ann.disconnect(await id_of(bob))
    assert await ann.peers() == []
    await comes_to(inbound, [], "Bob's peers")


async def test_a_kept_peer_is_found_again(box: Sandbox) -> None:
    ann, bob = await box.node("ann"), await box.node("bob")
    await ann.connect(await address_of(bob), keep=True)

    async def connected() -> list[bool]:
        return [each.connected for each in await ann.peers()]

    await bob.stop()
    await comes_to(connected, [False], "Ann's peers")
    await bob.start()
    await comes_to(connected, [True], "Ann's peers")
    await ann.stop()
    await ann.start()
    await comes_to(connected, [True], "Ann's peers after her own restart")


async def test_a_restart_changes_nothing(pair: Pair) -> None:
    _box, ann, bob = pair
    await pay_and_settle(pair, sat(40_000))
    open_invoice = await bob.receive(sat(50_000), description="still open")

    async def all_of(node: Node) -> dict[str, object]:
        status = await node.status()
        return {
            "node": (status.node_id, status.listening),
            "coins": await coins_of(node),
            "payments": [each.model_dump() async for each in node.payments()],
            "lightning": (await node.balances()).lightning.model_dump(),
            "channels": [
                (c.channel_id, c.funding, c.outbound, c.inbound) for c in await node.channels()
            ],
        }

    before = [await all_of(node) for node in (ann, bob)]
    for node in (ann, bob):
        await node.stop()
    for node in (ann, bob):
        await node.start()
    await usable(ann, bob)
    for node, was in zip((ann, bob), before, strict=True):
        now = await all_of(node)
        for what, value in was.items():
            assert now[what] == value, what
    again = await bob.invoice(open_invoice.payment_hash)
    assert (again.bolt11, again.description) == (open_invoice.bolt11, "still open")
    sent, received = await pay_both(ann, bob, again.bolt11)
    assert (sent.amount, received.amount) == (sat(50_000), sat(50_000))


async def test_blocks_mined_while_a_node_was_away(pair: Pair) -> None:
    """A node that was off while its channel was closed by force notices, and gets its money."""
    box, ann, bob = pair
    await pay_both(ann, bob, (await bob.receive(sat(300_000))).bolt11)
    channel = await only_channel(ann)
    await box.nodes.pop("bob").stop()
    await ann.close_channel(channel.channel_id, force=True)

    async def broadcast() -> bool:
        return bool(await box.chain.rpc.mempool())

    await until(broadcast, "the commitment transaction")
    await box.mine(6)
    await bob.start()
    box.nodes["bob"] = bob
    assert await bob.channels() == []
    for _ in range(10):
        await box.mine(6)
        if await coins_of(bob):
            break
    assert 295_000 < await coins_of(bob) <= 300_000


async def test_a_route_over_two_hops_is_found_by_gossip(box: Sandbox) -> None:
    cyd = await box.node("cyd", accept_channels=True)
    bob = await box.node("bob", accept_channels=True, funds=sat(5_000_000))
    ann = await box.node("ann", funds=sat(5_000_000))
    first = await ann.open_channel(await address_of(bob), CAPACITY, announce=True)
    await in_mempool(box, str(first.funding_txid))
    await box.mine(1)
    second = await bob.open_channel(await address_of(cyd), CAPACITY, announce=True)
    await in_mempool(box, str(second.funding_txid))
    await box.mine(6)
    # LDK drops the signatures of a peer that saw the sixth block earlier; a new connection brings
    # them again.
    for node in (ann, bob, cyd):
        await node.stop()
    for node in (cyd, bob, ann):
        await node.start()
    await usable(ann, bob, cyd)

    async def announced() -> bool:
        channels = [each for node in (ann, bob, cyd) for each in await node.channels()]
        return all(each.announced for each in channels)

    await until(announced, "the announcements")
    invoice = await cyd.receive(sat(123_456))
    assert (await cyd.decode(invoice.bolt11)).model_extra["hints"] == []
    before = {name: await outbound(node) for name, node in (("ann", ann), ("bob", bob))}

    async def paid() -> Payment | None:
        try:
            return await ann.pay(invoice.bolt11, retry=1, timeout=20)
        except LdkJitError as error:  # the gossip has not come yet
            assert "route" in str(error)  # noqa: PT017 (only one is waited out)
            return None

    sent = await until(paid, "a route learned by gossip", timeout=40)
    received = await cyd.wait_payment(invoice.payment_hash, timeout=10)
    assert (sent.amount, sent.fee, received.amount) == (sat(123_456), 1_000, sat(123_456))
    await spent_is(ann, before["ann"], 123_457_000)
    opened = {first.channel_id, second.channel_id}
    assert {c.channel_id for c in await bob.channels()} == opened

    async def bob_balance() -> int:
        after = await outbound(bob)
        return before["bob"][second.channel_id] - after[second.channel_id]

    await comes_to(bob_balance, 123_456_000, "what Bob passed on")


async def _events_so_far(node: Node, consumer: str = "reader"):
    """The events there are; ends when there is none for a moment."""
    import asyncio

    events = node.events(consumer)
    while True:
        try:
            yield await asyncio.wait_for(anext(events), 0.5)
        except (asyncio.TimeoutError, StopAsyncIteration):
            return
