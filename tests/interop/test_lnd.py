"""LND beside our nodes: as a payer, as a router, as a peer; exact to the millisatoshi."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
from support import (
    SAT_PER_BTC,
    coins_of,
    comes_to,
    earned,
    entries,
    fee_of,
    id_of,
    in_mempool,
    mined_fees,
    new_held,
    only_channel,
    transaction,
    wallet_of,
)

from ldkjit import Channel, LdkJitError, Msat, Node, Payment, PaymentError, TrustModel, sat
from ldkjit.sandbox import until

from .lnd import Lnd, LndChannel, LndPayment
from .stage import Stage, hop_of

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

# Of a channel between LND and a node of ours, satoshi.
CAPACITY = 1_000_000
# More than one such channel takes.
LARGE = sat(1_500_000)
# What our LSP takes for passing a payment on over a channel that is paid for, msat.
FORWARD = 1_000
COINS_SAT = 30_000_000
ANCHOR_SAT = 330

SIDES = pytest.mark.parametrize("closer", ["lnd", "ours"])
OPENERS = pytest.mark.parametrize("opener", ["lnd", "ours"])


class Shop(NamedTuple):
    """LND, who pays our wallet through our LSP."""

    stage: Stage
    lnd: Lnd
    lsp: Node
    wallet: Node


async def shop_of(
    stage: Stage,
    trust: TrustModel = TrustModel.LSP_TRUSTS_CLIENT,
    capacities: tuple[int, ...] = (3_000_000,),
) -> Shop:
    """An LSP, a wallet that trusts it if need be, and LND with these channels to the LSP."""
    lsp = await stage.box.lsp(trust=trust)
    lnd = await stage.lnd(coins_sat=COINS_SAT)
    for capacity in capacities:
        await stage.open_from(lnd, lsp, capacity)
    trusted = trust is TrustModel.CLIENT_TRUSTS_LSP
    wallet = await wallet_of(stage.box, lsp, trusted=trusted)
    return Shop(stage, lnd, lsp, wallet)


async def paid_by(lnd: Lnd, wallet: Node, bolt11: str, **how: Any) -> tuple[LndPayment, Payment]:
    """LND pays an invoice: (what was sent, what was received)."""
    payment_hash = (await wallet.decode(bolt11)).payment_hash
    sent = await lnd.pay(bolt11, **how)
    assert sent.status == "SUCCEEDED", sent
    received = await wallet.wait_payment(payment_hash, timeout=10)
    assert sent.payment_hash == received.payment_hash
    assert sent.preimage == received.preimage
    return sent, received


async def lnd_lost(lnd: Lnd, before: int, expected: int) -> None:
    """Check what LND's side of its channels lost, once the last commitment is signed."""

    async def lost() -> int:
        return before - (await lnd.channel_balance())[0]

    await comes_to(lost, expected, "msat that LND's channels lost")


async def our_side(node: Node, channel: Channel) -> int:
    """What a channel can send, msat."""
    return next(int(c.outbound) for c in await node.channels() if c.funding == channel.funding)


async def is_sold(shop: Shop, payment_hash: str, amount: int, fee: int, parts: int) -> None:
    """Check order, fee and parts by the LSP's books, and the channel on the wallet's side."""
    _, _, lsp, wallet = shop
    await comes_to(lambda: earned(lsp, payment_hash), fee, "msat earned by the ledger")
    rows = await entries(lsp, kind="set_complete", payment_hash=payment_hash)
    assert [row["parts"] for row in rows] == [parts]
    channel = await only_channel(wallet)
    reserve = max(1_000, channel.capacity_sat // 100) * 1_000
    await comes_to(
        lambda: our_side(wallet, channel), amount - fee - reserve, "msat the wallet can send"
    )
    await in_mempool(shop.stage.box, str(channel.funding_txid))


async def is_held(lsp: Node, payment_hash: str, kind: str = "set_complete") -> None:
    """Wait until the LSP holds a payment."""

    async def waiting() -> bool:
        return bool(await entries(lsp, kind=kind, payment_hash=payment_hash))

    await until(waiting, "the payment to be held at the LSP")


# JIT channels


@pytest.mark.parametrize("trust", list(TrustModel))
async def test_lnd_pays_for_a_jit_channel_and_over_it(stage: Stage, trust: TrustModel) -> None:
    """One part; then an ordinary invoice over the new channel; then without any invoice."""
    shop = await shop_of(stage, trust)
    _, lnd, lsp, wallet = shop
    amount, fee = Msat(1_000_000_123), fee_of(1_000_000_123)
    invoice = await wallet.receive(amount, max_opening_fee=fee)
    assert (invoice.path, invoice.trust, invoice.opening_fee) == ("jit", trust, fee)
    before, _ = await lnd.channel_balance()
    sent, received = await paid_by(lnd, wallet, invoice.bolt11)
    assert (sent.amount, sent.fee, sent.delivered) == (amount, 0, [amount])
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await lnd_lost(lnd, before, amount)
    await is_sold(shop, invoice.payment_hash, amount, fee, 1)

    async def path() -> str:
        return (await wallet.receive(sat(20_000))).path

    await comes_to(path, "channel", "the path of a later invoice")
    invoice = await wallet.receive(Msat(20_000_001))
    before, _ = await lnd.channel_balance()
    sent, received = await paid_by(lnd, wallet, invoice.bolt11, max_fee=FORWARD)
    assert (sent.amount, sent.fee) == (20_000_001, FORWARD)
    assert (received.amount, received.opening_fee) == (20_000_001, 0)
    await lnd_lost(lnd, before, 20_000_001 + FORWARD)

    before, _ = await lnd.channel_balance()
    hop = await hop_of(wallet, invoice.bolt11)
    sent = await lnd.keysend(await id_of(wallet), 12_345_678, [hop], max_fee=FORWARD)
    assert (sent.status, sent.amount, sent.fee) == ("SUCCEEDED", 12_345_678, FORWARD)
    received = await wallet.wait_payment(sent.payment_hash, timeout=10)
    assert (received.kind, received.direction, received.amount) == ("keysend", "in", 12_345_678)
    assert (received.preimage, received.opening_fee) == (sent.preimage, 0)
    await lnd_lost(lnd, before, 12_345_678 + FORWARD)
    assert (await only_channel(wallet)).unpaid_order is None
    assert len(await entries(lsp, kind="channel_opened")) == 1


@pytest.mark.parametrize("trust", list(TrustModel))
async def test_lnd_pays_in_parts(stage: Stage, trust: TrustModel) -> None:
    """Neither of LND's channels takes the whole payment."""
    shop = await shop_of(stage, trust, (CAPACITY, CAPACITY))
    _, lnd, lsp, wallet = shop
    invoice = await wallet.receive(LARGE)
    sides = {each.scid: each.local_sat for each in await lnd.channels()}
    before, _ = await lnd.channel_balance()
    sent, received = await paid_by(lnd, wallet, invoice.bolt11)
    fee = fee_of(LARGE)
    assert (sent.amount, sent.fee, sum(sent.delivered)) == (LARGE, 0, LARGE)
    assert len(sent.delivered) >= 2
    assert (received.amount, received.opening_fee) == (LARGE - fee, fee)
    await lnd_lost(lnd, before, LARGE)
    assert all(each.local_sat < sides[each.scid] for each in await lnd.channels())
    await is_sold(shop, invoice.payment_hash, LARGE, fee, len(sent.delivered))
    assert len(await entries(lsp, kind="channel_opened")) == 1


async def test_lnd_pays_in_many_parts(stage: Stage) -> None:
    shop = await shop_of(stage)
    _, lnd, _, wallet = shop
    amount, fee = sat(1_000_000), fee_of(sat(1_000_000))
    invoice = await wallet.receive(amount)
    before, _ = await lnd.channel_balance()
    sent, received = await paid_by(lnd, wallet, invoice.bolt11, largest=sat(100_000))
    assert (sum(sent.delivered), sent.fee) == (amount, 0)
    assert len(sent.delivered) >= 10
    assert sent.delivered[-1] <= sat(100_000)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await lnd_lost(lnd, before, amount)
    await is_sold(shop, invoice.payment_hash, amount, fee, len(sent.delivered))


async def test_lnd_chooses_the_amount(stage: Stage) -> None:
    _, lnd, lsp, wallet = await shop_of(stage)
    invoice = await wallet.receive(None)
    assert (invoice.path, invoice.amount) == ("jit", None)
    before, _ = await lnd.channel_balance()
    sent, received = await paid_by(lnd, wallet, invoice.bolt11, amount=777_777_777)
    fee = fee_of(777_777_777)
    assert (sent.amount, sent.fee) == (777_777_777, 0)
    assert (received.amount, received.opening_fee) == (777_777_777 - fee, fee)
    await lnd_lost(lnd, before, 777_777_777)
    await comes_to(lambda: earned(lsp, invoice.payment_hash), fee, "msat earned by the ledger")


async def test_the_lsp_holds_a_part_until_the_other_comes(stage: Stage) -> None:
    shop = await shop_of(stage, capacities=(CAPACITY, CAPACITY))
    _, lnd, lsp, wallet = shop
    amount, fee = sat(1_200_000), fee_of(sat(1_200_000))
    invoice = await wallet.receive(amount)
    before, _ = await lnd.channel_balance()
    one, other = await lnd.channels()
    how = await part_of(lnd, wallet, invoice.bolt11, amount)
    first = asyncio.create_task(lnd.send_part(**how, amount=sat(700_000), over=one.scid))
    try:
        await is_held(lsp, invoice.payment_hash, "part_accepted")
        await stage.mine(3)
        assert not first.done()
        assert await entries(lsp, kind="set_complete") == []
        assert await wallet.channels() == []
        second = await lnd.send_part(**how, amount=sat(500_000), over=other.scid)
        assert (second.status, (await first).status) == ("SUCCEEDED", "SUCCEEDED")
    finally:
        first.cancel()
    received = await wallet.wait_payment(invoice.payment_hash, timeout=10)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await lnd_lost(lnd, before, amount)
    await is_sold(shop, invoice.payment_hash, amount, fee, 2)


@pytest.mark.timeout(300)
async def test_a_part_that_stays_alone_goes_back(stage: Stage) -> None:
    """After the 90 s of the specification, and LND may try again: the offer is as it was."""
    shop = await shop_of(stage)
    _, lnd, lsp, wallet = shop
    amount, fee = sat(1_200_000), fee_of(sat(1_200_000))
    invoice = await wallet.receive(amount)
    before, _ = await lnd.channel_balance()
    (channel,) = await lnd.channels()
    how = await part_of(lnd, wallet, invoice.bolt11, amount)
    began = asyncio.get_running_loop().time()
    part = await lnd.send_part(**how, amount=sat(700_000), over=channel.scid, timeout_s=150)
    assert asyncio.get_running_loop().time() - began >= 89
    # At the first hop, the LSP, and not for good.
    assert (part.status, part.failure, part.failed_at) == ("FAILED", "TEMPORARY_CHANNEL_FAILURE", 1)
    await lnd_lost(lnd, before, 0)
    assert await wallet.channels() == []
    assert await entries(lsp, kind="chain_cost") == []

    sent, received = await paid_by(lnd, wallet, invoice.bolt11)
    assert sum(sent.delivered) == amount
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await lnd_lost(lnd, before, amount)


async def part_of(lnd: Lnd, wallet: Node, bolt11: str, total: int) -> dict[str, Any]:
    """What all parts of a payment have in common, for ``Lnd.send_part``."""
    told = await wallet.decode(bolt11)
    return {
        "to": await id_of(wallet),
        "payment_hash": told.payment_hash,
        "secret": await lnd.payment_secret(bolt11),
        "total": total,
        "hop": await hop_of(wallet, bolt11),
        "final_delta": (told.model_extra or {})["min_final_cltv_expiry_delta"],
    }


# Restarts while the LSP holds what LND pays


@pytest.mark.parametrize("restarts", ["lsp", "lnd", "both"])
async def test_a_restart_while_the_lsp_holds_a_payment(stage: Stage, restarts: str) -> None:
    """The wallet sleeps, so the LSP holds; LND is killed, the LSP stopped; then it wakes."""
    shop = await shop_of(stage, capacities=(CAPACITY, CAPACITY))
    _, lnd, lsp, wallet = shop
    fee = fee_of(LARGE)
    invoice = await wallet.receive(LARGE)
    before, _ = await lnd.channel_balance()
    await wallet.stop()
    paying = asyncio.create_task(lnd.pay(invoice.bolt11))
    await is_held(lsp, invoice.payment_hash)
    assert not paying.done()
    if restarts != "lsp":
        await lnd.kill()
        with pytest.raises(OSError, match="lnd"):  # the stream ends, the payment does not
            await paying
    if restarts != "lnd":
        await lsp.stop()
        await lsp.start()
    if restarts != "lsp":
        await lnd.start()
    for each in await lnd.channels():
        await stage.usable(lnd, lsp, each.funding)
    await wallet.start()
    received = await wallet.wait_payment(invoice.payment_hash, timeout=60)
    assert (received.amount, received.opening_fee) == (LARGE - fee, fee)
    sent = await lnd.wait_payment(invoice.payment_hash)
    assert (sent.status, sent.amount, sent.fee) == ("SUCCEEDED", LARGE, 0)
    assert (sum(sent.delivered), sent.preimage) == (LARGE, received.preimage)
    if restarts == "lsp":
        assert (await paying).status == "SUCCEEDED"
    await lnd_lost(lnd, before, LARGE)
    await is_sold(shop, invoice.payment_hash, LARGE, fee, len(sent.delivered))
    assert len(await entries(lsp, kind="channel_opened")) == 1


# Routing


async def routed_shop(stage: Stage) -> tuple[Shop, Node]:
    """A payer of ours with a channel to LND only, and LND with one to the LSP; all public."""
    lsp = await stage.box.lsp()
    payer = await stage.box.node("payer", funds=sat(10_000_000))
    lnd = await stage.lnd(coins_sat=COINS_SAT)
    await stage.open_to(payer, lnd, 5_000_000, announce=True)
    await stage.open_from(lnd, lsp, 5_000_000, private=False)
    wallet = await wallet_of(stage.box, lsp)
    return Shop(stage, lnd, lsp, wallet), payer


async def pays_when_routed(payer: Node, bolt11: str) -> Payment:
    """Pay as soon as gossip has told of a route."""

    async def paid() -> Payment | None:
        try:
            return await payer.pay(bolt11, retry=0, timeout=60)
        except LdkJitError as error:
            assert "no route" in str(error), error  # noqa: PT017 (only this is waited out)
            return None

    return await until(paid, "a route learned by gossip", 60)


async def test_lnd_routes_from_our_payer_to_our_lsp(stage: Stage) -> None:
    shop, payer = await routed_shop(stage)
    _, lnd, _, wallet = shop
    amount, fee = sat(1_500_000), fee_of(sat(1_500_000))
    # LND's default: 1,000 msat and one millionth.
    routing = 1_000 + amount // 1_000_000
    invoice = await wallet.receive(amount)
    channel = await only_channel(payer)
    before, theirs = int(channel.outbound), await lnd.channel_balance()
    sent = await pays_when_routed(payer, invoice.bolt11)
    received = await wallet.wait_payment(invoice.payment_hash, timeout=10)
    assert (sent.amount, sent.fee, sent.preimage) == (amount, routing, received.preimage)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await comes_to(
        lambda: our_side(payer, channel), before - amount - routing, "msat left to the payer"
    )
    await comes_to(
        lnd.channel_balance,
        (theirs[0] + routing, theirs[1] - routing),
        "LND's side of its channels, and the other",
    )
    # LND writes its history every few seconds.
    await comes_to(lnd.forwarded, [(amount + routing, amount)], "what LND routed", 40)
    await is_sold(shop, invoice.payment_hash, amount, fee, 1)

    async def path() -> str:
        return (await wallet.receive(sat(20_000))).path

    await comes_to(path, "channel", "the path of a later invoice")
    invoice = await wallet.receive(sat(20_000))
    sent = await payer.pay(invoice.bolt11)
    # LND's share is of what it passes on, the LSP's fee included.
    routing = 1_000 + (20_000_000 + FORWARD) // 1_000_000
    assert (sent.amount, sent.fee) == (20_000_000, routing + FORWARD)
    received = await wallet.wait_payment(invoice.payment_hash, timeout=10)
    assert (received.amount, received.opening_fee) == (20_000_000, 0)


async def test_lnd_restarts_while_it_routes_a_payment(stage: Stage) -> None:
    """LND is killed while the LSP holds what it passed on."""
    shop, payer = await routed_shop(stage)
    _, lnd, lsp, wallet = shop
    amount, fee = sat(300_000), fee_of(sat(300_000))
    invoice = await wallet.receive(amount)
    await wallet.stop()
    channel = await only_channel(payer)
    before, theirs = int(channel.outbound), await lnd.channel_balance()
    paying = asyncio.create_task(pays_when_routed(payer, invoice.bolt11))
    try:
        await is_held(lsp, invoice.payment_hash)
        await lnd.kill()
        await lnd.start()
        await wallet.start()
        sent = await paying
    finally:
        paying.cancel()
    routing = 1_000 + amount // 1_000_000
    assert (sent.amount, sent.fee) == (amount, routing)
    received = await wallet.wait_payment(invoice.payment_hash, timeout=30)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await comes_to(
        lambda: our_side(payer, channel), before - amount - routing, "msat left to the payer"
    )
    await comes_to(
        lnd.channel_balance,
        (theirs[0] + routing, theirs[1] - routing),
        "LND's side of its channels, and the other",
        30,
    )


# Channels between LND and a node of ours


class Two(NamedTuple):
    """LND and a node of ours with one channel: LND has 600,000 sat of it, ours 400,000.

    The opener has less than that by what it keeps for fees and anchors.
    """

    stage: Stage
    lnd: Lnd
    node: Node
    theirs: LndChannel
    ours: Channel


async def two_of(stage: Stage, opener: str) -> Two:
    """The channel is opened by one of them, which gives the other its share."""
    node = await stage.box.node("node", funds=sat(5_000_000), accept_channels=True)
    lnd = await stage.lnd(coins_sat=COINS_SAT)
    if opener == "lnd":
        theirs = await stage.open_from(lnd, node, CAPACITY, push_sat=400_000)
        (ours,) = await node.channels()
    else:
        theirs, ours = await stage.open_to(node, lnd, CAPACITY, push=sat(600_000))
    return Two(stage, lnd, node, theirs, ours)


@SIDES
@OPENERS
async def test_invoices_each_way_and_a_close_by_consent(
    stage: Stage, opener: str, closer: str
) -> None:
    two = await two_of(stage, opener)
    _, lnd, node, theirs, ours = two

    before, (their_before, _) = int(ours.outbound), await lnd.channel_balance()
    invoice = await node.receive(Msat(123_456_789))
    assert invoice.path == "channel"
    sent, received = await paid_by(lnd, node, invoice.bolt11)
    assert (sent.amount, sent.fee, received.amount) == (123_456_789, 0, 123_456_789)
    await lnd_lost(lnd, their_before, 123_456_789)
    await comes_to(lambda: our_side(node, ours), before + 123_456_789, "msat our node can send")

    theirs_invoice = await lnd.add_invoice(23_456_789)
    paid = await node.pay(theirs_invoice.bolt11)
    assert (paid.amount, paid.fee) == (23_456_789, 0)
    assert await lnd.wait_invoice(theirs_invoice.payment_hash, "SETTLED") == 23_456_789
    await lnd_lost(lnd, their_before, 100_000_000)
    await comes_to(lambda: our_side(node, ours), before + 100_000_000, "msat our node can send")

    spontaneous = await node.keysend(lnd.node_id, Msat(1_000_000))
    assert (spontaneous.kind, spontaneous.amount, spontaneous.fee) == ("keysend", 1_000_000, 0)
    assert await lnd.wait_invoice(spontaneous.payment_hash, "SETTLED") == 1_000_000
    back = await lnd.keysend(await id_of(node), 1_000_000)
    assert (back.status, back.amount, back.fee) == ("SUCCEEDED", 1_000_000, 0)
    assert (await node.wait_payment(back.payment_hash, timeout=10)).kind == "keysend"
    await lnd_lost(lnd, their_before, 100_000_000)
    await comes_to(lambda: our_side(node, ours), before + 100_000_000, "msat our node can send")

    height = await stage.box.chain.rpc.height()
    coins = await lnd.coins(), await coins_of(node)
    if closer == "lnd":
        await lnd.close_channel(theirs.funding)
    else:
        await node.close_channel(ours.channel_id)

    async def closing() -> str | None:
        return await spender(stage, theirs.funding)

    txid = await until(closing, "the closing transaction")
    await stage.mine(6)
    fee = (await transaction(stage.box, txid))["fee_sat"]
    assert await mined_fees(stage.box, height) == fee
    assert 0 < fee < 20_000
    # 600,000 and 400,000, of which 100,000 went from LND to us; the opener pays the fee.
    shares = (500_000 - fee, 500_000) if opener == "lnd" else (500_000, 500_000 - fee)
    await comes_to(lnd.coins, coins[0] + shares[0], "LND's coins")
    await comes_to(lambda: coins_of(node), coins[1] + shares[1], "our node's coins")
    assert await node.channels() == [] == await lnd.channels()


async def spender(stage: Stage, outpoint: str) -> str | None:
    """The transaction in the mempool that spends an output."""
    txid, _, vout = outpoint.partition(":")
    (found,) = await stage.box.chain.rpc.call(
        "gettxspendingprevout", [{"txid": txid, "vout": int(vout)}]
    )
    return found.get("spendingtxid")


# Hold invoices


@pytest.mark.parametrize("end", ["settle", "cancel"])
@pytest.mark.parametrize("restarts", ["nobody", "lnd", "ours"])
async def test_lnd_holds_our_payment(stage: Stage, end: str, restarts: str) -> None:
    """The payment ends as LND says, also if one of both was restarted while it was held."""
    two = await two_of(stage, "ours")
    _, lnd, node, _, ours = two
    before, (their_before, _) = await our_side(node, ours), await lnd.channel_balance()
    preimage, payment_hash = new_held()
    invoice = await lnd.add_hold_invoice(76_543_210, payment_hash)
    paying = asyncio.create_task(node.pay(invoice.bolt11, timeout=60))
    assert await lnd.wait_invoice(payment_hash, "ACCEPTED") == 76_543_210
    assert not paying.done()
    assert await our_side(node, ours) == before - 76_543_210
    if restarts == "ours":
        await node.stop()
        with pytest.raises(LdkJitError):  # the call ends with the node, the payment does not
            await paying
        await node.start()
    elif restarts == "lnd":
        # It keeps that it has seen an onion before it keeps what came of it, and takes the HTLC for
        # a replay if it ends between. Its link works in turn: after another payment it has both.
        await node.pay((await lnd.add_invoice(1_000_000)).bolt11)
        before, their_before = before - 1_000_000, their_before + 1_000_000
        await lnd.kill()
        await lnd.start()
    if restarts != "nobody":
        await stage.usable(lnd, node, str(ours.funding))
        assert (await node.payment(payment_hash)).status == "pending"
    if end == "settle":
        await lnd.settle(preimage)
        paid = await node.wait_payment(payment_hash, timeout=30)
        assert (paid.amount, paid.fee, paid.preimage) == (76_543_210, 0, preimage)
        moved = 76_543_210
    else:
        await lnd.cancel(payment_hash)
        with pytest.raises(PaymentError):
            await node.wait_payment(payment_hash, timeout=30)
        moved = 0
    if restarts != "ours":
        (told,) = await asyncio.gather(paying, return_exceptions=True)
        assert isinstance(told, Payment if end == "settle" else PaymentError)
    await comes_to(lambda: our_side(node, ours), before - moved, "msat our node can send")
    await lnd_lost(lnd, their_before, -moved)


# Closes by force, last: they mine hundreds of blocks, which every LND that starts later reads


@SIDES
@OPENERS
async def test_a_close_by_force(stage: Stage, opener: str, closer: str) -> None:
    """Whoever closes waits out a delay; nothing but fees and anchors is lost to both."""
    two = await two_of(stage, opener)
    _, lnd, node, theirs, ours = two
    height = await stage.box.chain.rpc.height()
    coins = await lnd.coins(), await coins_of(node)
    commitment = await close_by_force(two, closer)
    await resolved(stage, lnd, node)
    assert await node.channels() == [] == await lnd.channels()
    await nothing_lost(two, commitment, height, sum(coins))
    # Each has its own share, less fees that it pays itself.
    for had, share, has in (
        (coins[0], 600_000, await lnd.coins()),
        (coins[1], 400_000, await coins_of(node)),
    ):
        assert had + share - 40_000 < has <= had + share
    assert theirs.funding == ours.funding


@contextlib.asynccontextmanager
async def closed_while_held(
    stage: Stage, closer: str
) -> AsyncGenerator[tuple[Two, str, asyncio.Task[Payment], tuple[int, int]], None]:
    """A channel closed by force while LND holds our HTLC; nothing of it is lost in the end.

    Yields the two sides, the preimage, the payment, and the coins of LND and of ours before.
    """
    two = await two_of(stage, "ours")
    _, lnd, node, _, _ = two
    preimage, payment_hash = new_held()
    invoice = await lnd.add_hold_invoice(50_000_000, payment_hash)
    paying = asyncio.create_task(node.pay(invoice.bolt11, timeout=150))
    try:
        assert await lnd.wait_invoice(payment_hash, "ACCEPTED") == 50_000_000
        height = await stage.box.chain.rpc.height()
        coins = await lnd.coins(), await coins_of(node)
        commitment = await close_by_force(two, closer)
        yield two, preimage, paying, coins
    finally:
        paying.cancel()
    await nothing_lost(two, commitment, height, sum(coins))


@SIDES
async def test_a_held_payment_is_taken_on_chain(stage: Stage, closer: str) -> None:
    """LND has our HTLC, the channel closes, then it takes it with the preimage, which we read."""
    async with closed_while_held(stage, closer) as (two, preimage, paying, coins):
        _, lnd, node, _, _ = two
        await stage.mine(1)
        await lnd.settle(preimage)
        await resolved(stage, lnd, node, paying=paying)
        paid = await paying
        assert (paid.status, paid.amount, paid.preimage) == ("succeeded", 50_000_000, preimage)
    assert coins[1] + 350_000 - 40_000 < await coins_of(node) <= coins[1] + 350_000
    assert coins[0] + 650_000 - 40_000 < await lnd.coins() <= coins[0] + 650_000


@SIDES
async def test_a_held_payment_comes_back_by_the_chain(stage: Stage, closer: str) -> None:
    """LND has our HTLC, the channel closes, and nobody ever tells the preimage."""
    async with closed_while_held(stage, closer) as (two, _, paying, coins):
        _, lnd, node, _, _ = two
        await resolved(stage, lnd, node, paying=paying)
        with pytest.raises(PaymentError):
            await paying
    assert coins[1] + 400_000 - 40_000 < await coins_of(node) <= coins[1] + 400_000
    assert coins[0] + 600_000 - 40_000 < await lnd.coins() <= coins[0] + 600_000


async def close_by_force(two: Two, closer: str) -> str:
    """Close; return the txid of the commitment transaction, which is in the mempool."""
    if closer == "lnd":
        await two.lnd.close_channel(two.theirs.funding, force=True)
    else:
        await two.node.close_channel(two.ours.channel_id, force=True)

    async def commitment() -> str | None:
        return await spender(two.stage, two.theirs.funding)

    return await until(commitment, "the commitment transaction in the mempool")


async def resolved(
    stage: Stage, lnd: Lnd, node: Node, *, paying: asyncio.Task[Any] | None = None
) -> None:
    """Mine until nothing of closed channels is left to be claimed by either.

    Args:
        stage: Where both are.
        lnd: One of both.
        node: The other. What it still has in open channels does not count.
        paying: A payment that ends with an HTLC on the chain. Balances do not tell of one that
            LND may still take, so its end is waited for too.
    """
    open_before = bool(await node.channels())
    for _ in range(200):
        await stage.mine(6)
        balances = await node.balances()
        ours = balances.pending_sweep_sat or (balances.lightning.claimable and not open_before)
        if not ours and not await lnd.limbo() and (paying is None or paying.done()):
            break
    else:
        pytest.fail("never resolved")
    await stage.mine(1)


async def anchors_left(stage: Stage, commitment: str) -> int:
    """What lies in the anchors of a commitment transaction that nobody took, satoshi."""
    outputs = (await transaction(stage.box, commitment))["vout"]
    anchors = [each["n"] for each in outputs if each["value"] * SAT_PER_BTC == ANCHOR_SAT]
    assert len(anchors) == 2
    unspent = [await stage.box.chain.rpc.txout(commitment, vout) for vout in anchors]
    return ANCHOR_SAT * sum(each is not None for each in unspent)


async def nothing_lost(two: Two, commitment: str, height: int, coins: int) -> None:
    """Check that both together have all the channel's coins, less fees and anchors left behind.

    Args:
        two: Both.
        commitment: The commitment transaction.
        height: Before the channel's end.
        coins: What both had then beside the channel, satoshi.
    """
    left = await anchors_left(two.stage, commitment)
    fees = await mined_fees(two.stage.box, height)
    assert 0 < fees < 60_000
    await comes_to(
        lambda: two.stage.coins(two.lnd, two.node),
        coins + CAPACITY - fees - left,
        "the coins of both",
    )


async def test_lnd_closes_by_force_while_the_lsp_holds_its_payment(stage: Stage) -> None:
    """It could be taken on the chain only: the LSP gives it up, and the wallet comes too late."""
    _, lnd, lsp, wallet = await shop_of(stage)
    invoice = await wallet.receive(sat(300_000))
    (channel,) = await lnd.channels()
    height = await stage.box.chain.rpc.height()
    coins = await lnd.coins(), await coins_of(lsp)
    await wallet.stop()
    paying = asyncio.create_task(lnd.pay(invoice.bolt11))
    try:
        await is_held(lsp, invoice.payment_hash)
        commitment = await lnd.close_channel(channel.funding, force=True)
        # LND does not say so: the LSP hears of it by the block.
        await stage.box.chain.mine(1)

        async def reasons() -> list[str]:
            return [row["reason"] for row in await entries(lsp, kind="part_refused")]

        await comes_to(reasons, ["payer_gone"], "why a part was refused")
        await wallet.start()
        await resolved(stage, lnd, lsp, paying=paying)
        assert (await paying).status == "FAILED"
    finally:
        paying.cancel()
    assert await wallet.channels() == []
    left = await anchors_left(stage, commitment)
    fees = await mined_fees(stage.box, height)
    before = sum(coins) + channel.capacity_sat
    await comes_to(lambda: stage.coins(lnd, lsp), before - fees - left, "the coins of both")
    assert await coins_of(lsp) == coins[1]
