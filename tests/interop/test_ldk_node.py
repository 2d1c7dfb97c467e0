"""ldk-node beside our nodes: its wallets at our LSP, our wallets at its LSP; exact to the msat.

``D_…`` are the defects of its service that ``docs/reliability.md`` lists, ``complaint_…`` what
users of LSPS2 complain about: here they show that whoever meets them loses nothing by it. Not met
here, since nothing from outside brings them about: D-3 and D-4 (a crash between two of its
writes), D-5 (it answers before a client can hang up), D-7 (its offers are good for a day), D-9 (its
cost), D-12 (its fees leave every part above the smallest).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from support import (
    comes_to,
    earned,
    entries,
    fee_of,
    id_of,
    in_mempool,
    mined_fees,
    new_held,
    only_channel,
    outbound,
    pay_both,
    spent_is,
)

from ldkjit import (
    FeeTier,
    FundingUnconfirmed,
    Limits,
    LspConfig,
    LspRefusedError,
    LspTrustError,
    Msat,
    Node,
    Payment,
    PaymentError,
    TrustModel,
    sat,
)
from ldkjit.sandbox import DEFAULT_MENU, Sandbox, until

from .building import BuildError
from .ldk_node import LdkLsp, LdkNode, LdkNodeError, LdkService
from .ldk_node_program import find_ldk_node
from .ldk_stage import LdkStage

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

LTC, CTL = TrustModel.LSP_TRUSTS_CLIENT, TrustModel.CLIENT_TRUSTS_LSP
TRUST = pytest.mark.parametrize("trust", [LTC, CTL], ids=["lsp-trusts", "client-trusts"])
# Capacities of the payer's channels to the LSP, satoshi, and a payment that needs all of them.
ONE, TWO = (3_000_000,), (1_000_000, 1_000_000)
PARTS = pytest.mark.parametrize(
    ("capacities", "amount"),
    [(ONE, Msat(500_000_123)), (TWO, Msat(1_500_000_001))],
    ids=["one-part", "two-parts"],
)
# What our LSP takes for passing a payment on over a channel that is paid for, msat.
FORWARD = 1_000
# More than any payment here may be held for, and how many of them are mined at once, blocks.
# LDK adds up to 432 to what its nodes ask for, to hide who is paid.
BUDGET, STEP = 640, 8
# Fees of a channel's life, and an anchor, satoshi.
MOST_FEES_SAT, ANCHOR_SAT = 30_000, 330


@pytest.fixture(scope="session")
def ldk_node_program() -> Path:
    """The ldk-node peer. These tests are asked for by name: without it they fail."""
    try:
        return find_ldk_node()
    except BuildError as error:
        pytest.fail(str(error))


@pytest_asyncio.fixture(loop_scope="module")
async def stage(
    ldk_node_program: Path, chain: Sandbox, request: pytest.FixtureRequest
) -> AsyncGenerator[LdkStage, None]:
    """Nodes that end with the test; ldk-node's logs stay if it fails."""
    made = LdkStage(chain, ldk_node_program)
    failed = request.session.testsfailed
    in_order = False
    try:
        yield made
        await made.close_books()
        in_order = request.session.testsfailed == failed
    finally:
        for folder in await made.end(keep=not in_order):
            print(f"kept for inspection: {folder}")
        # What a test did not mine is not the next one's.
        await chain.chain.mine(1)


# Its wallet, our LSP


async def paid_by(payer: Node, bolt11: str, amount: Msat | None = None) -> Payment:
    return await payer.pay(bolt11, amount=amount, timeout=60, retry=10)


async def state_of(lsp: Node, client: str) -> list[str]:
    """The states of a client's orders, the oldest first."""
    return [each.state for each in await lsp.orders() if each.client == client]


async def is_received(wallet: LdkNode, payment_hash: str, amount: int, fee: int) -> None:
    """Check what its wallet has, after a first payment."""
    got = await wallet.event("payment_received", payment_hash=payment_hash)
    assert got["amount_msat"] == amount - fee
    payment = await wallet.payment(payment_hash)
    assert payment is not None
    assert (payment.status, payment.kind) == ("succeeded", "bolt11_jit")
    assert (payment.amount_msat, payment.skimmed_msat) == (amount - fee, fee)
    (channel,) = await wallet.channels()
    assert channel.reserve_sat is not None
    assert not channel.announced

    async def can_send() -> int:
        return (await wallet.channels())[0].outbound_msat

    await comes_to(can_send, amount - fee - channel.reserve_sat * 1_000, "what it can send back")


@TRUST
@PARTS
async def test_their_wallet_buys_from_us(
    stage: LdkStage, trust: TrustModel, capacities: tuple[int, ...], amount: Msat
) -> None:
    lsp = await stage.box.lsp(trust=trust)
    payer = await stage.box.node(
        "payer", funds=sat(10_000_000), channels=[(lsp, each) for each in capacities]
    )
    wallet = await stage.their_wallet(lsp)
    fee = fee_of(amount)
    held = new_held()
    bolt11 = await wallet.receive_jit(amount, max_fee=fee, payment_hash=held.payment_hash)
    assert await state_of(lsp, wallet.node_id) == ["sold"]
    assert await wallet.channels() == []

    before = await outbound(payer)
    paying = asyncio.create_task(paid_by(payer, bolt11))
    claimable = await wallet.event("payment_claimable", payment_hash=held.payment_hash)
    assert claimable["claimable_msat"] == amount - fee
    (channel,) = await wallet.channels()
    txid = str(channel.funding).partition(":")[0]
    # Withheld until the preimage is given, if the client trusts.
    assert (txid in await stage.box.chain.rpc.mempool()) == (trust is LTC)
    assert not paying.done()

    await wallet.claim(held.payment_hash, held.preimage, amount - fee)
    sent = await paying
    assert (sent.amount, sent.fee) == (amount, 0)
    await spent_is(payer, before, amount)
    await is_received(wallet, held.payment_hash, amount, fee)
    await in_mempool(stage.box, txid)
    await comes_to(lambda: earned(lsp, held.payment_hash), fee, "msat earned by the ledger")
    await comes_to(lambda: state_of(lsp, wallet.node_id), ["paid"], "the order")
    rows = await entries(lsp, kind="set_complete", payment_hash=held.payment_hash)
    assert [row["parts"] for row in rows] == [len(capacities)]
    await stage.mine(6)
    assert [each.confirmations for each in await wallet.channels()] == [6]


@TRUST
async def test_their_wallet_lets_the_payer_choose(stage: LdkStage, trust: TrustModel) -> None:
    """Within what it takes for the fee of a variable amount: a share of what is left of it."""
    menu = [FeeTier(min_fee=Msat(1), proportional_ppm=10, max_payment=sat(5_000_000))]
    lsp = await stage.box.lsp(menu=menu, trust=trust)
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    amount = Msat(777_777_777)
    fee = fee_of(amount, 1, 10)
    assert fee == -(-(amount - fee) * 10 // 1_000_000)
    bolt11 = await wallet.receive_jit(None, max_fee=10)
    payment_hash = (await payer.decode(bolt11)).payment_hash
    before = await outbound(payer)
    sent = await paid_by(payer, bolt11, amount)
    assert (sent.amount, sent.fee) == (amount, 0)
    await spent_is(payer, before, amount)
    await is_received(wallet, payment_hash, amount, fee)
    await comes_to(lambda: earned(lsp, payment_hash), fee, "msat earned by the ledger")
    (channel,) = await wallet.channels()
    await in_mempool(stage.box, str(channel.funding).partition(":")[0])


async def test_complaint_6_their_wallet_refuses_a_variable_amount_when_the_channel_is_there(
    stage: LdkStage,
) -> None:
    """It computes the largest fee from what is left after it, so that it refuses what it bought.

    The payer has its money back. The channel waits for the payment that pays for it; what the
    wallet buys next has a channel of its own.
    """
    lsp = await stage.box.lsp()
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    bolt11 = await wallet.receive_jit(None)
    before = await outbound(payer)
    with pytest.raises(PaymentError):
        await paid_by(payer, bolt11, sat(800_000))
    await spent_is(payer, before, 0)
    await comes_to(lambda: state_of(lsp, wallet.node_id), ["owed"], "the order")
    (channel,) = await wallet.channels()
    assert (channel.outbound_msat, channel.ready) == (0, True)

    amount = Msat(700_000_001)
    fee = fee_of(amount)
    bolt11 = await wallet.receive_jit(amount, max_fee=fee)
    payment_hash = (await payer.decode(bolt11)).payment_hash
    sent = await paid_by(payer, bolt11)
    assert (sent.amount, sent.fee) == (amount, 0)
    got = await wallet.event("payment_received", payment_hash=payment_hash)
    assert got["amount_msat"] == amount - fee
    await comes_to(lambda: earned(lsp, payment_hash), fee, "msat earned by the ledger")

    async def states() -> set[str]:
        return set(await state_of(lsp, wallet.node_id))

    await comes_to(states, {"owed", "paid"}, "the orders")
    now = {each.channel_id: each.outbound_msat > 0 for each in await wallet.channels()}
    assert len(now) == 2
    assert not now[channel.channel_id]


async def test_later_payments_of_their_wallet(stage: LdkStage) -> None:
    lsp = await stage.box.lsp()
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    first = await wallet.receive_jit(sat(500_000))
    await paid_by(payer, first)
    await is_received(wallet, (await payer.decode(first)).payment_hash, sat(500_000), sat(2_000))
    await comes_to(lambda: state_of(lsp, wallet.node_id), ["paid"], "the order")

    amount = Msat(7_654_321)
    before = await outbound(payer)
    bolt11 = await wallet.receive(amount)
    sent = await paid_by(payer, bolt11)
    assert (sent.amount, sent.fee) == (amount, FORWARD)
    await spent_is(payer, before, amount + FORWARD)
    got = await wallet.event("payment_received", payment_hash=sent.payment_hash)
    assert got["amount_msat"] == amount
    assert await earned(lsp, str(sent.payment_hash)) == 0

    back = Msat(3_333_333)
    invoice = await payer.receive(back)
    paid = await wallet.pay(invoice.bolt11)
    assert (paid.status, paid.amount_msat, paid.fee_msat) == ("succeeded", back, FORWARD)
    await payer.wait_payment(invoice.payment_hash, timeout=30)
    await spent_is(payer, before, amount + FORWARD - back)


async def test_D_10_a_refusal_of_ours_leaves_their_wallet_able_to_hear(stage: LdkStage) -> None:
    """An error with an object in it, or an unknown word, would close its ears until it reconnects.

    Ours has neither.
    """
    service = LspConfig(menu=list(DEFAULT_MENU), limits=Limits(max_orders_per_client=1))
    lsp = await stage.box.lsp(lsp=service)
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    first = await wallet.receive_jit(sat(500_000))
    for _ in range(3):
        with pytest.raises(LdkNodeError) as caught:
            await wallet.receive_jit(sat(400_000))
        assert caught.value.kind == "LiquidityRequestFailed"
    # Over the same connection.
    await paid_by(payer, first)
    await comes_to(lambda: state_of(lsp, wallet.node_id), ["paid"], "the order")
    second = await wallet.receive_jit(sat(400_000))
    assert (await payer.decode(second)).amount == sat(400_000)


async def test_a_fee_above_their_limit_is_not_bought(stage: LdkStage) -> None:
    lsp = await stage.box.lsp()
    await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    amount = sat(1_000_000)
    with pytest.raises(LdkNodeError) as caught:
        await wallet.receive_jit(amount, max_fee=fee_of(amount) - 1)
    assert caught.value.kind == "LiquidityFeeTooHigh"
    assert await state_of(lsp, wallet.node_id) == []
    await wallet.receive_jit(amount, max_fee=fee_of(amount))
    assert await state_of(lsp, wallet.node_id) == ["sold"]


async def test_a_token_of_their_wallet(stage: LdkStage) -> None:
    cheap = FeeTier(min_fee=sat(100), proportional_ppm=100, max_payment=sat(5_000_000))
    service = LspConfig(menu=list(DEFAULT_MENU), token_menus={"friend": [cheap]})
    lsp = await stage.box.lsp(lsp=service)
    await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    friend = await stage.their_wallet(lsp, "friend", token="friend")
    stranger = await stage.their_wallet(lsp, "stranger", token="nobody")
    await friend.receive_jit(sat(500_000), max_fee=sat(100))
    with pytest.raises(LdkNodeError, match="LiquidityRequestFailed"):
        await stranger.receive_jit(sat(500_000))
    assert await state_of(lsp, stranger.node_id) == []


async def test_their_wallet_sleeps_when_it_is_paid(stage: LdkStage) -> None:
    lsp = await stage.box.lsp()
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    amount = Msat(123_456_789)
    bolt11 = await wallet.receive_jit(amount)
    payment_hash = (await payer.decode(bolt11)).payment_hash
    await wallet.stop()
    paying = asyncio.create_task(paid_by(payer, bolt11))
    await comes_to(lambda: state_of(lsp, wallet.node_id), ["waking"], "the order")
    assert not paying.done()

    # And the LSP restarts while it holds the payment.
    await lsp.stop()
    await lsp.start()
    await wallet.start()
    assert (await paying).amount == amount
    await is_received(wallet, payment_hash, amount, fee_of(amount))
    await comes_to(lambda: earned(lsp, payment_hash), fee_of(amount), "msat earned")


# Not killed: ldk-node then often finds its own state stale, and closes the channel by force.
RESTARTS = pytest.mark.parametrize("restarts", ["ours", "theirs"])


async def restarted(restarts: str, ours: Node, theirs: LdkNode) -> None:
    node: Node | LdkNode = ours if restarts == "ours" else theirs
    await node.stop()
    await node.start()


@TRUST
@RESTARTS
async def test_a_restart_while_their_wallet_holds_the_payment(
    stage: LdkStage, trust: TrustModel, restarts: str
) -> None:
    lsp = await stage.box.lsp(trust=trust)
    payer = await stage.box.node("payer", funds=sat(10_000_000), channels=[(lsp, 3_000_000)])
    wallet = await stage.their_wallet(lsp)
    amount, fee = Msat(400_000_007), sat(2_000)
    held = new_held()
    bolt11 = await wallet.receive_jit(amount, max_fee=fee, payment_hash=held.payment_hash)
    before = await outbound(payer)
    paying = asyncio.create_task(paid_by(payer, bolt11))
    await wallet.event("payment_claimable", payment_hash=held.payment_hash)
    # Nothing is under way any more when both have signed the commitment with the payment.
    await comes_to(lambda: htlcs(lsp, wallet.node_id), [1], "HTLCs of the wallet's channel")

    await restarted(restarts, lsp, wallet)
    await wallet.connect((await lsp.status()).address)
    await stage.connected(lsp, wallet)
    await wallet.claim(held.payment_hash, held.preimage, amount - fee)
    assert (await paying).amount == amount
    await spent_is(payer, before, amount)
    await is_received(wallet, held.payment_hash, amount, fee)
    await comes_to(lambda: earned(lsp, held.payment_hash), fee, "msat earned by the ledger")
    (channel,) = await wallet.channels()
    await in_mempool(stage.box, str(channel.funding).partition(":")[0])
    await stage.mine(6)
    assert [each.confirmations for each in await wallet.channels()] == [6]


async def htlcs(node: Node, peer: str) -> list[int]:
    return [each.pending_htlcs for each in await node.channels() if each.peer == peer]


# Our wallet, its LSP


class Market(NamedTuple):
    """Its LSP, our payer with channels to it, our wallet."""

    stage: LdkStage
    lsp: LdkNode
    payer: Node
    wallet: Node

    def fee(self, amount: int) -> int:
        assert self.lsp.service is not None
        return self.lsp.service.fee(amount)


async def market_of(
    stage: LdkStage,
    trust: TrustModel = LTC,
    capacities: tuple[int, ...] = ONE,
    *,
    confirmations: int = 0,
    **service: Any,
) -> Market:
    ctl = trust is CTL
    lsp = await stage.their_lsp(client_trusts_lsp=ctl, **service)
    payer = await stage.box.node("payer", funds=sat(20_000_000))
    await stage.open_to(payer, lsp, *capacities)
    # Blocks are mined when the test says so, however long that takes.
    patience: dict[str, Any] = {"confirmations": confirmations, "verify_timeout_ms": 120_000}
    wallet = await stage.our_wallet(lsp, trusted=ctl, **patience)
    return Market(stage, lsp, payer, wallet)


async def is_ours(market: Market, payment: Payment, amount: int) -> None:
    """Check what our wallet has, after a first payment."""
    fee = market.fee(amount)
    assert (payment.amount, payment.opening_fee) == (amount - fee, fee)
    channel = await only_channel(market.wallet)
    reserve = max(1_000, channel.capacity_sat // 100) * 1_000

    async def can_send() -> int:
        return int((await only_channel(market.wallet)).outbound)

    await comes_to(can_send, amount - fee - reserve, "msat our wallet can send back")


async def funding_txid(wallet: Node) -> str:
    return str((await only_channel(wallet)).funding_txid)


@TRUST
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "variable"])
async def test_our_wallet_buys_from_them(stage: LdkStage, trust: TrustModel, fixed: bool) -> None:
    market = await market_of(stage, trust)
    amount = Msat(654_321_987)
    invoice = await market.wallet.receive(
        amount if fixed else None, max_opening_fee=Msat(market.fee(amount))
    )
    assert (invoice.path, invoice.lsp, invoice.trust) == ("jit", market.lsp.node_id, trust)
    assert invoice.opening_fee == (market.fee(amount) if fixed else None)
    before = await outbound(market.payer)
    sent, received = await pay_both(
        market.payer, market.wallet, invoice.bolt11, amount=None if fixed else amount
    )
    assert (sent.amount, sent.fee) == (amount, 0)
    await spent_is(market.payer, before, amount)
    await is_ours(market, received, amount)
    await in_mempool(stage.box, await funding_txid(market.wallet))
    forwarded = await market.lsp.event("payment_forwarded")
    assert forwarded["skimmed_msat"] == market.fee(amount)

    await stage.mine(6)
    assert (await only_channel(market.wallet)).confirmations == 6
    assert (await market.wallet.balances()).lightning.depends_on_lsp == 0
    again = await market.wallet.receive(sat(1_000))
    assert again.path == "channel"
    _, received = await pay_both(market.payer, market.wallet, again.bolt11)
    assert (received.amount, received.opening_fee) == (sat(1_000), 0)


async def lsp_with_one_coin(stage: LdkStage) -> tuple[LdkNode, Node]:
    """An LSP of theirs that could open many channels of its one coin, and a payer."""
    lsp = await stage.ldk_node("lsp", service=LdkService())
    await stage.box.chain.rpc.fund(await lsp.new_address(), 50_000_000)
    await stage.mine(6)
    payer = await stage.box.node("payer", funds=sat(20_000_000))
    await stage.open_to(payer, lsp, *ONE)
    return lsp, payer


async def test_two_sales_at_once_spend_one_coin(stage: LdkStage) -> None:
    """It does not set aside what an open spends; our wallet looks for its funding, and is safe."""
    lsp, payer = await lsp_with_one_coin(stage)
    wallets = [
        await stage.our_wallet(lsp, name, verify_timeout_ms=3_000) for name in ("ann", "bob")
    ]
    invoices = [await wallet.receive(sat(500_000)) for wallet in wallets]
    before = await outbound(payer)
    pays = (paid_by(payer, invoice.bolt11) for invoice in invoices)
    paid, failed = sorted(
        await asyncio.gather(*pays, return_exceptions=True), key=lambda it: isinstance(it, Payment)
    )[::-1]
    assert isinstance(paid, Payment)
    assert isinstance(failed, PaymentError)
    assert failed.details["failure"] == "recipient_rejected"
    await spent_is(payer, before, sat(500_000))
    fundings = [await funding_txid(wallet) for wallet in wallets]
    mempool = await stage.box.chain.rpc.mempool()
    assert sorted(txid in mempool for txid in fundings) == [False, True]


async def test_their_wallet_is_paid_over_a_channel_that_never_exists(stage: LdkStage) -> None:
    """Two of its wallets give their preimages; the chain has a channel for one of them."""
    lsp, payer = await lsp_with_one_coin(stage)
    wallets = [await stage.ldk_node(name, lsp=LdkLsp(lsp.address)) for name in ("ann", "bob")]
    fee = LdkService().fee(sat(500_000))
    bolt11s = [await wallet.receive_jit(sat(500_000), max_fee=fee) for wallet in wallets]
    sent = await asyncio.gather(*(paid_by(payer, bolt11) for bolt11 in bolt11s))
    assert [each.amount for each in sent] == [sat(500_000)] * 2
    for wallet in wallets:
        await wallet.event("payment_received")
    await stage.mine(6)
    depths = [(await wallet.channels())[0].confirmations for wallet in wallets]
    assert sorted(depth or 0 for depth in depths) == [0, 6]


async def test_an_lsp_of_theirs_that_wants_trust_is_not_bought_from(stage: LdkStage) -> None:
    lsp = await stage.their_lsp(client_trusts_lsp=True)
    wallet = await stage.our_wallet(lsp)
    with pytest.raises(LspTrustError):
        await wallet.receive(sat(500_000))
    assert await wallet.client_orders() == []


async def test_their_lsp_asks_for_a_token(stage: LdkStage) -> None:
    lsp = await stage.their_lsp(require_token="friend")
    friend = await stage.our_wallet(lsp, "friend", token="friend")
    stranger = await stage.our_wallet(lsp, "stranger", token="nobody")
    assert (await friend.receive(sat(500_000))).path == "jit"
    with pytest.raises(LspRefusedError) as caught:
        await stranger.receive(sat(500_000))
    assert caught.value.lsp_code == 200


async def test_D_1_two_parts_when_the_lsp_trusts_our_wallet(stage: LdkStage) -> None:
    """Its order is never over; our wallet is paid, and its channel is an ordinary one."""
    market = await market_of(stage, LTC, TWO)
    amount = Msat(1_500_000_001)
    invoice = await market.wallet.receive(amount)
    before = await outbound(market.payer)
    sent, received = await pay_both(market.payer, market.wallet, invoice.bolt11)
    assert (sent.amount, sent.fee) == (amount, 0)
    await spent_is(market.payer, before, amount)
    await is_ours(market, received, amount)
    await in_mempool(stage.box, await funding_txid(market.wallet))
    await comes_to(lambda: skimmed(market.lsp), [2, market.fee(amount)], "parts and their fee")

    later = await market.wallet.receive(sat(10_000))
    assert later.path == "channel"
    _, received = await pay_both(market.payer, market.wallet, later.bolt11)
    assert (received.amount, received.opening_fee) == (sat(10_000), 0)


async def skimmed(lsp: LdkNode) -> list[int]:
    """How many parts paid an opening fee, and how much together, msat."""
    fees = [each.get("skimmed_msat") for each in lsp.events if each["kind"] == "payment_forwarded"]
    return [len([fee for fee in fees if fee]), sum(fee or 0 for fee in fees)]


async def test_D_1_two_parts_when_our_wallet_trusts_the_lsp(stage: LdkStage) -> None:
    """The preimage is out and the funding never is: our wallet says so as long as it is true."""
    market = await market_of(stage, CTL, TWO)
    amount = Msat(1_500_000_001)
    invoice = await market.wallet.receive(amount)
    assert invoice.trust is CTL
    sent, received = await pay_both(market.payer, market.wallet, invoice.bolt11)
    assert sent.amount == amount
    await is_ours(market, received, amount)
    await comes_to(lambda: skimmed(market.lsp), [2, market.fee(amount)], "parts and their fee")
    channel = await only_channel(market.wallet)
    assert channel.funding is not None
    depends = (await market.wallet.balances()).lightning.depends_on_lsp
    assert depends == channel.outbound > 0

    # In three blocks, and in no mempool: that is when the wallet says so.
    await stage.mine(3)
    told = await told_of_funding(market.wallet)
    assert (told.channel_id, told.funding) == (channel.channel_id, channel.funding)
    assert (await market.wallet.balances()).lightning.depends_on_lsp == depends
    txid, _, vout = channel.funding.partition(":")
    assert await stage.box.chain.rpc.txout(txid, int(vout)) is None
    assert market.lsp.runs


async def told_of_funding(wallet: Node) -> FundingUnconfirmed:
    async with contextlib.aclosing(wallet.events()) as events:
        while True:
            event = await asyncio.wait_for(anext(events), 30)
            if isinstance(event, FundingUnconfirmed):
                return event


async def mined_until_it_fails(stage: LdkStage, paying: asyncio.Task[Payment]) -> int:
    """Mine until a payment comes back to its payer; return after how many blocks."""
    for blocks in range(0, BUDGET, STEP):
        done, _ = await asyncio.wait([paying], timeout=0.2)
        if done:
            with pytest.raises(PaymentError):
                paying.result()
            return blocks
        await stage.mine(STEP)
    raise AssertionError(f"{BUDGET} blocks did not bring the payment back")


async def buys_again(market: Market, amount: Msat) -> None:
    """Whatever became of the last sale, the next one is paid."""
    invoice = await market.wallet.receive(amount)
    assert (invoice.path, invoice.lsp) == ("jit", market.lsp.node_id)
    before = await outbound(market.payer)
    sent, received = await pay_both(market.payer, market.wallet, invoice.bolt11)
    assert (sent.amount, sent.fee) == (amount, 0)
    fee = market.fee(amount)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await spent_is(market.payer, before, amount)


async def test_D_2_a_payment_that_comes_over_another_channel(stage: LdkStage) -> None:
    """Its fee is kept back on a channel that it is not for; our wallet takes it all the same."""
    # Twice what is to be forwarded: the first channel has room for the second payment.
    market = await market_of(stage, channel_over_provisioning_ppm=1_000_000)
    amount = Msat(200_000_000)
    invoice = await market.wallet.receive(amount)
    _, received = await pay_both(market.payer, market.wallet, invoice.bolt11)
    await is_ours(market, received, amount)
    first = await only_channel(market.wallet)

    amount = Msat(150_000_001)
    invoice = await market.wallet.receive(amount, jit="always")
    before = await outbound(market.wallet)
    _, received = await pay_both(market.payer, market.wallet, invoice.bolt11)
    fee = market.fee(amount)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    assert len(await market.wallet.channels()) == 2

    async def gained() -> int:
        return (await outbound(market.wallet))[first.channel_id] - before[first.channel_id]

    await comes_to(gained, amount - fee, "msat that came over the first channel")


async def test_D_6_a_wrong_amount_ends_a_sale_of_theirs(stage: LdkStage) -> None:
    market = await market_of(stage)
    invoice = await market.wallet.receive(None)
    before = await outbound(market.payer)
    with pytest.raises(PaymentError):
        await paid_by(market.payer, invoice.bolt11, Msat(999_999))
    # The same invoice again, and with the right amount: held, and never passed on.
    paying = asyncio.create_task(
        market.payer.pay(invoice.bolt11, amount=sat(300_000), timeout=120, retry=10)
    )
    await mined_until_it_fails(stage, paying)
    await spent_is(market.payer, before, 0)
    assert await market.wallet.channels() == []
    await buys_again(market, sat(300_000))


async def test_D_8_complaint_2_our_wallet_sleeps_when_a_sale_of_theirs_is_paid(
    stage: LdkStage,
) -> None:
    """Its LSP drops the sale without a word and holds the payment: it comes back by the clock."""
    market = await market_of(stage)
    invoice = await market.wallet.receive(sat(300_000))
    before = await outbound(market.payer)
    await market.wallet.stop()
    paying = asyncio.create_task(market.payer.pay(invoice.bolt11, timeout=120, retry=10))

    async def dropped() -> bool:
        return "due to peer not being not connected" in market.lsp.log()

    await until(dropped, "its LSP to drop the sale")
    await market.wallet.start()
    await stage.connected(market.wallet, market.lsp)
    await mined_until_it_fails(stage, paying)
    await spent_is(market.payer, before, 0)
    assert await market.wallet.channels() == []
    await buys_again(market, sat(310_000))


async def test_complaint_4_a_channel_of_theirs_that_is_too_small(stage: LdkStage) -> None:
    """Without overprovision nothing is left for the reserve: the payment does not fit."""
    market = await market_of(stage, channel_over_provisioning_ppm=0)
    invoice = await market.wallet.receive(sat(300_000))
    before = await outbound(market.payer)
    paying = asyncio.create_task(market.payer.pay(invoice.bolt11, timeout=120, retry=10))
    await mined_until_it_fails(stage, paying)
    await spent_is(market.payer, before, 0)
    assert int((await only_channel(market.wallet)).outbound) == 0
    assert (await market.wallet.balances()).lightning.depends_on_lsp == 0


async def test_D_11_the_eleventh_order_at_once(stage: LdkStage) -> None:
    lsp = await stage.their_lsp()
    wallet = await stage.our_wallet(lsp)
    for _ in range(10):
        await wallet.receive(sat(50_000))
    with pytest.raises(LspRefusedError) as caught:
        await wallet.receive(sat(50_000))
    assert caught.value.lsp_code == 1
    assert "pending requests" in caught.value.lsp_message
    assert len(await wallet.client_orders()) == 10


@RESTARTS
async def test_a_restart_while_our_wallet_waits_for_a_confirmation(
    stage: LdkStage, restarts: str
) -> None:
    market = await market_of(stage, confirmations=1)
    amount = Msat(456_000_001)
    invoice = await market.wallet.receive(amount)
    before = await outbound(market.payer)
    paying = asyncio.create_task(market.payer.pay(invoice.bolt11, timeout=120))
    await comes_to(
        lambda: htlcs(market.wallet, market.lsp.node_id), [1], "a payment that is there", 60
    )
    await in_mempool(stage.box, await funding_txid(market.wallet))

    await restarted(restarts, market.wallet, market.lsp)
    await stage.connected(market.wallet, market.lsp)
    assert not paying.done()
    await stage.mine(1)
    received = await market.wallet.wait_payment(invoice.payment_hash, timeout=60)
    assert (await paying).amount == amount
    await spent_is(market.payer, before, amount)
    await is_ours(market, received, amount)


# Ordinary channels


@pytest.mark.parametrize("opener", ["ours", "theirs"])
@pytest.mark.parametrize("force", [False, True], ids=["agreed", "forced"])
async def test_a_channel_and_its_end(stage: LdkStage, opener: str, force: bool) -> None:
    """Payments both ways, then the opener closes: every satoshi comes home, or is a miner's."""
    start = 3_000_000
    ours = await stage.box.node("ours", funds=sat(start), accept_channels=True)
    theirs = await stage.ldk_node("theirs", coins_sat=start)
    began = await stage.box.chain.rpc.height()
    # By its default a tenth of a channel may be under way to it at once.
    there, back = sat(90_000), sat(30_000)
    if opener == "ours":
        await stage.open_to(ours, theirs, 1_000_000)
        await ours_pays(ours, theirs, there)
        await theirs_pays(theirs, ours, back)
    else:
        await stage.open_from(theirs, ours, 1_000_000)
        await theirs_pays(theirs, ours, there)
        await ours_pays(ours, theirs, back)

    channel = await only_channel(ours)
    if opener == "ours":
        await ours.close_channel(channel.channel_id, force=force)
    else:
        (told,) = await theirs.channels()
        await theirs.close_channel(told, force=force)
    await theirs.event("channel_closed", channel_id=channel.channel_id)
    txid, _, vout = str(channel.funding).partition(":")

    async def closed() -> bool:
        return await stage.box.chain.rpc.txout(txid, int(vout)) is None

    await until(closed, "the closing transaction in the mempool")

    async def home() -> tuple[int, int] | None:
        await stage.mine(20)
        onchain, told = (await ours.balances()).onchain, await theirs.balances()
        both = onchain.confirmed_sat, told.onchain_sat
        quiet = await stage.box.chain.rpc.mempool() == []
        return both if quiet and sum(both) > 2 * start - MOST_FEES_SAT else None

    ours_sat, theirs_sat = await until(home, "all coins to come home", 120)
    missing = 2 * start - ours_sat - theirs_sat - await mined_fees(stage.box, began)
    # An anchor of a forced close may be left where it is.
    assert missing in ((0, ANCHOR_SAT, 2 * ANCHOR_SAT) if force else (0,))
    moved = (there - back).sat * (1 if opener == "theirs" else -1)
    assert abs(ours_sat - start - moved) < MOST_FEES_SAT
    assert (await ours.channels(), await theirs.channels()) == ([], [])


async def ours_pays(ours: Node, theirs: LdkNode, amount: Msat) -> None:
    bolt11 = await theirs.receive(amount)
    sent = await paid_by(ours, bolt11)
    assert (sent.amount, sent.fee) == (amount, 0)
    got = await theirs.event("payment_received", payment_hash=sent.payment_hash)
    assert got["amount_msat"] == amount
    await comes_to(lambda: htlcs(ours, theirs.node_id), [0], "HTLCs under way")


async def theirs_pays(theirs: LdkNode, ours: Node, amount: Msat) -> None:
    invoice = await ours.receive(amount)
    paid = await theirs.pay(invoice.bolt11)
    assert (paid.status, paid.amount_msat, paid.fee_msat) == ("succeeded", amount, 0)
    assert (await ours.wait_payment(invoice.payment_hash, timeout=30)).amount == amount
    await comes_to(lambda: htlcs(ours, theirs.node_id), [0], "HTLCs under way")


async def test_their_node_pays_a_wallet_of_ours_through_our_lsp(stage: LdkStage) -> None:
    """A channel of ours is opened by an ldk-node's payment, in two parts."""
    lsp = await stage.box.lsp()
    payer = await stage.ldk_node("payer", coins_sat=10_000_000)
    for _ in range(2):
        await stage.open_from(payer, lsp, 1_000_000)
    wallet = await stage.box.wallet(lsp)
    amount = Msat(1_500_000_003)
    fee = fee_of(amount)
    invoice = await wallet.receive(amount, max_opening_fee=fee)
    paid = await payer.pay(invoice.bolt11)
    assert (paid.status, paid.amount_msat, paid.fee_msat) == ("succeeded", amount, 0)
    received = await wallet.wait_payment(invoice.payment_hash, timeout=30)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await comes_to(lambda: earned(lsp, invoice.payment_hash), fee, "msat earned by the ledger")
    rows = await entries(lsp, kind="set_complete", payment_hash=invoice.payment_hash)
    assert [row["parts"] for row in rows] == [2]
    assert await id_of(lsp) == invoice.lsp
