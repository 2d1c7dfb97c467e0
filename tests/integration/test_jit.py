"""JIT channels between real nodes: who pays what, when the funding shows, what the books say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timezone
from typing import NamedTuple

import pytest
import pytest_asyncio
from conformance.bolt11 import read_invoice
from support import (
    address_of,
    comes_to,
    earned,
    entries,
    fee_of,
    id_of,
    in_mempool,
    online,
    only_channel,
    outbound,
    pay_both,
    spent_is,
    transaction,
    usable,
    wallet_of,
)

from ldkjit import (
    FeeTier,
    InboundCapacityError,
    InvoiceError,
    Limits,
    Lsp,
    LspConfig,
    LspRefusedError,
    LspTrustError,
    LspUnreachableError,
    Msat,
    Node,
    NoLspError,
    OpeningFeeError,
    TrustModel,
    sat,
)
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
]

# Two channels of this size to an LSP: a payment above it must go in two parts.
PART_SAT = 1_000_000
LARGE = sat(1_500_000)


class World(NamedTuple):
    box: Sandbox
    lsp: Node
    payer: Node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(chain: Sandbox) -> World:
    """An LSP and a payer with a large channel to it, for every test that harms neither."""
    lsp = await chain.lsp("shared-lsp")
    payer = await chain.node("shared-payer", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
    return World(chain, lsp, payer)


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared: World, box: Sandbox) -> AsyncGenerator[World, None]:
    yield shared


async def payer_in_parts(box: Sandbox, lsp: Node, name: str = "payer") -> Node:
    return await box.node(
        name,
        funds=sat(10_000_000),
        channels=[(lsp, PART_SAT), (lsp, PART_SAT)],
        peers=[await address_of(lsp)],
    )


async def is_paid(lsp: Node, wallet: Node, payment_hash: str, amount: int, fee: int) -> None:
    """Check fee, ledger and order on the LSP's side, and the wallet's channel."""
    await comes_to(lambda: earned(lsp, payment_hash), fee, "msat earned by the ledger")
    (channel,) = await wallet.channels()
    reserve = max(1_000, channel.capacity_sat // 100) * 1_000
    # What can be sent leaves out the reserve, which is whole satoshi.
    await comes_to(
        lambda: _outbound(wallet), amount - fee - reserve, "msat the wallet can send back"
    )


async def _outbound(wallet: Node) -> int:
    return int((await only_channel(wallet)).outbound)


async def test_one_part(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    amount, fee = sat(1_000_000), sat(4_000)
    assert fee_of(amount) == fee
    invoice = await wallet.receive(amount, description="one part", max_opening_fee=fee)
    assert (invoice.path, invoice.opening_fee, invoice.amount) == ("jit", fee, amount)
    assert (invoice.lsp, invoice.trust) == (await id_of(lsp), TrustModel.LSP_TRUSTS_CLIENT)
    assert await wallet.channels() == []

    before = await outbound(payer)
    sent, received = await pay_both(payer, wallet, invoice.bolt11)
    assert (sent.amount, sent.fee) == (amount, 0)
    assert (received.amount, received.opening_fee) == (amount - fee, fee)
    await spent_is(payer, before, amount)
    await is_paid(lsp, wallet, invoice.payment_hash, amount, fee)
    channel = await only_channel(wallet)
    assert channel.funding_txid is not None
    await in_mempool(box, channel.funding_txid, timeout=0)  # it was seen before the claim
    assert (await wallet.balances()).lightning.depends_on_lsp == channel.outbound

    await box.mine(6)
    assert (await only_channel(wallet)).confirmations == 6
    assert (await wallet.balances()).lightning.depends_on_lsp == 0


async def test_the_books_after_one_part(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    client = await id_of(wallet)
    amount = Msat(50_000_123)
    invoice = await wallet.receive(amount)
    (order,) = [each for each in await lsp.orders() if each.client == client]
    assert (order.state, order.size, order.scid) == ("sold", amount, invoice.jit_scid)
    assert order.trust is TrustModel.LSP_TRUSTS_CLIENT
    (bought,) = await wallet.client_orders()
    assert (bought.scid, bought.state) == (order.scid, "open")

    await pay_both(payer, wallet, invoice.bolt11)
    await is_paid(lsp, wallet, invoice.payment_hash, amount, sat(2_000))

    async def state() -> str:
        return next(each for each in await lsp.orders() if each.client == client).state

    await comes_to(state, "paid", "the order")
    assert await wallet.client_orders() == []  # over
    channel = await only_channel(wallet)
    mine = [row async for row in lsp.ledger() if row.entry.get("scid") == order.scid]
    kinds = [row.kind for row in mine]
    assert kinds == [
        "order_sold",
        "part_accepted",
        "set_complete",
        "open_requested",
        "chain_cost",
        "channel_opened",
        "fee_earned",
        "order_paid",
    ]
    rows = {row.kind: row.entry for row in mine}
    assert (rows["order_sold"]["size"], rows["order_sold"]["fee"]) == (amount, 2_000_000)
    assert (rows["part_accepted"]["declared"], rows["set_complete"]["parts"]) == (amount, 1)
    assert rows["channel_opened"]["value_sat"] == channel.capacity_sat
    assert rows["channel_opened"]["funding"] == channel.funding
    assert rows["fee_earned"]["amount"] == rows["order_paid"]["fee"] == 2_000_000
    funding = await transaction(box, str(channel.funding_txid))
    assert rows["chain_cost"]["txid"] == channel.funding_txid
    assert rows["chain_cost"]["fee_sat"] == funding["fee_sat"]
    assert [row.seq for row in mine] == sorted({row.seq for row in mine})


async def test_two_parts_when_the_lsp_trusts_the_client(box: Sandbox) -> None:
    lsp = await box.lsp()
    payer = await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(LARGE)
    before = await outbound(payer)
    sent, received = await pay_both(payer, wallet, invoice.bolt11)
    fee = sat(6_000)
    assert (sent.amount, received.amount, received.opening_fee) == (LARGE, LARGE - fee, fee)
    await spent_is(payer, before, LARGE)
    after = await outbound(payer)
    assert all(after[each] < before[each] for each in before)
    await is_paid(lsp, wallet, invoice.payment_hash, LARGE, fee)
    rows = await entries(lsp, kind="set_complete", payment_hash=invoice.payment_hash)
    assert [row["parts"] for row in rows] == [2]
    assert len(await entries(lsp, kind="channel_opened")) == 1
    await in_mempool(box, str((await only_channel(wallet)).funding_txid), timeout=0)


async def test_two_parts_when_the_client_trusts_the_lsp(box: Sandbox) -> None:
    """D-1: other implementations give up the preimage and never publish the funding."""
    lsp = await box.lsp(trust=TrustModel.CLIENT_TRUSTS_LSP)
    payer = await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp, trusted=True)
    invoice = await wallet.receive(LARGE)
    assert invoice.trust is TrustModel.CLIENT_TRUSTS_LSP
    assert await box.chain.rpc.mempool() == []

    before = await outbound(payer)
    sent, received = await pay_both(payer, wallet, invoice.bolt11)
    fee = sat(6_000)
    assert (sent.amount, received.amount, received.opening_fee) == (LARGE, LARGE - fee, fee)
    channel = await only_channel(wallet)
    txid = str(channel.funding_txid)
    await in_mempool(box, txid)
    assert await box.chain.rpc.mempool() == [txid]
    await spent_is(payer, before, LARGE)
    after = await outbound(payer)
    assert all(after[each] < before[each] for each in before)
    await is_paid(lsp, wallet, invoice.payment_hash, LARGE, fee)

    await box.mine(6)
    found = await box.chain.rpc.txout(txid, int(str(channel.funding).partition(":")[2]))
    assert found is not None
    assert (found["confirmations"], found["value"] * 10**8) == (6, channel.capacity_sat)
    for node in (lsp, wallet):
        seen = next(c for c in await node.channels() if c.funding == channel.funding)
        assert seen.confirmations == 6
    assert (await wallet.balances()).lightning.depends_on_lsp == 0


async def test_the_funding_is_withheld_until_the_preimage_is_given(box: Sandbox) -> None:
    lsp = await box.lsp(trust=TrustModel.CLIENT_TRUSTS_LSP)
    payer = await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp, trusted=True)
    invoice = await wallet.receive(sat(100_000))
    _, received = await pay_both(payer, wallet, invoice.bolt11)
    assert received.amount == sat(98_000)
    await in_mempool(box, str((await only_channel(wallet)).funding_txid))

    async def stages() -> list[str]:
        seen = [each.stage for each in await lsp.timeline(invoice.payment_hash)]
        return [each for each in seen if each in ("part_claimed", "funding_broadcast")]

    await comes_to(stages, ["part_claimed", "funding_broadcast"], "the LSP's timeline")


async def test_the_payer_chooses_the_amount(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(None)
    assert (invoice.path, invoice.amount, invoice.opening_fee) == ("jit", None, None)
    amount = Msat(777_777_777)
    fee = fee_of(amount)
    assert fee == 3_111_112
    before = await outbound(payer)
    sent, received = await pay_both(payer, wallet, invoice.bolt11, amount=amount)
    assert (sent.amount, received.amount, received.opening_fee) == (amount, amount - fee, fee)
    await spent_is(payer, before, amount)
    await comes_to(lambda: earned(lsp, invoice.payment_hash), fee, "msat earned")


async def test_J_63_J_77_later_payments_use_the_channel_and_cost_nothing(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    first = await wallet.receive(sat(500_000))
    await pay_both(payer, wallet, first.bolt11)
    channel = await only_channel(wallet)
    await usable(wallet)
    alias = str(channel.inbound_scid_alias)
    assert alias != first.jit_scid
    for count, amount in enumerate((sat(5_000), Msat(7_654_321)), 1):

        async def price() -> str:
            return (await wallet.receive(amount)).path  # noqa: B023 (called at once)

        await comes_to(price, "channel", "the path of a later invoice")
        invoice = await wallet.receive(amount)
        assert (invoice.opening_fee, invoice.lsp) == (0, None)
        ((hop,),) = read_invoice(invoice.bolt11).routes
        assert (hop.node_id, hop.scid, hop.base_fee_msat) == (await id_of(lsp), alias, 1_000)
        before = await outbound(payer)
        sent, received = await pay_both(payer, wallet, invoice.bolt11)
        assert (received.amount, received.opening_fee) == (amount, 0)
        assert sent.fee == 1_000  # the LSP's ordinary routing fee
        await spent_is(payer, before, amount + 1_000)
        assert await earned(lsp, invoice.payment_hash) == 0
        assert (await only_channel(wallet)).channel_id == channel.channel_id
        assert count == len([each async for each in wallet.payments()]) - 1
        await box.mine(6)  # the alias is that of a confirmed channel too
        assert (await only_channel(wallet)).confirmations == 6 * count


async def test_everybody_restarts_between_the_sale_and_the_payment(box: Sandbox) -> None:
    lsp = await box.lsp()
    payer = await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(sat(300_000))
    nodes = [lsp, payer, wallet]
    for node in nodes:
        await node.stop()
    for node in nodes:
        await node.start()
    await usable(payer)
    await online(wallet)
    again = await wallet.invoice(invoice.payment_hash)
    assert again.bolt11 == invoice.bolt11
    _, received = await pay_both(payer, wallet, again.bolt11)
    assert (received.amount, received.opening_fee) == (sat(298_000), sat(2_000))
    await is_paid(lsp, wallet, invoice.payment_hash, sat(300_000), sat(2_000))

    async def under_way() -> int:
        return sum([c.pending_htlcs for node in nodes for c in await node.channels()])

    async def held() -> list[list[tuple[str, int]]]:
        channels = [await node.channels() for node in nodes]
        return [sorted((c.channel_id, int(c.outbound)) for c in each) for each in channels]

    await comes_to(under_way, 0, "HTLCs under way")
    before, rows = await held(), [row async for row in lsp.ledger()]
    for node in nodes:
        await node.stop()
    for node in nodes:
        await node.start()
    await usable(*nodes)
    assert await held() == before
    assert [row async for row in lsp.ledger()] == rows
    later = await wallet.receive(sat(1_000))
    assert later.path == "channel"
    _, received = await pay_both(payer, wallet, later.bolt11)
    assert (received.amount, received.opening_fee) == (sat(1_000), 0)


async def test_J_83_S_35_a_sleeping_wallet_is_paid_when_it_wakes(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(sat(100_000))
    await wallet.stop()
    paying = asyncio.create_task(payer.pay(invoice.bolt11, timeout=60))
    try:

        async def waiting() -> bool:
            return bool(await entries(lsp, kind="set_complete", payment_hash=invoice.payment_hash))

        await until(waiting, "the payment to be held at the LSP")
        assert not paying.done()
        await wallet.start()
        received = await wallet.wait_payment(invoice.payment_hash, timeout=30)
        assert (received.amount, received.opening_fee) == (sat(98_000), sat(2_000))
        assert (await paying).amount == sat(100_000)
    finally:
        paying.cancel()


async def test_a_wallet_can_receive_as_soon_as_it_has_started(world: World) -> None:
    """The node dials its LSPs by itself at that moment; both ways must end in one connection."""
    box, lsp, _ = world
    for count in range(10):
        wallet = await box.wallet(lsp, f"wallet-{count}")
        assert (await wallet.receive(sat(50_000))).path == "jit"
        await box.nodes.pop(f"wallet-{count}").stop()


async def test_a_quote_above_the_limit_is_told_with_its_numbers(world: World) -> None:
    box, lsp, _ = world
    wallet = await wallet_of(box, lsp)
    with pytest.raises(OpeningFeeError) as caught:
        await wallet.receive(sat(1_000_000), max_opening_fee=Msat(3_999_999))
    assert (caught.value.quoted_msat, caught.value.max_msat) == (4_000_000, 3_999_999)
    assert "4000000 msat" in str(caught.value)
    assert await wallet.client_orders() == []
    assert (await wallet.receive(sat(1_000_000), max_opening_fee=sat(4_000))).path == "jit"


async def test_a_variable_payment_within_its_limit(world: World) -> None:
    """The fee follows from what the payer chose, so the limit is held at the claim."""
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(None, max_opening_fee=sat(2_000))
    before = await outbound(payer)
    _, received = await pay_both(payer, wallet, invoice.bolt11, amount=sat(500_000))
    assert received.opening_fee == sat(2_000)
    await spent_is(payer, before, sat(500_000))


async def test_an_lsp_that_is_not_there(box: Sandbox) -> None:
    lsp = await box.lsp()
    wallet = await wallet_of(box, lsp)
    await box.nodes.pop("lsp").stop()
    with pytest.raises(LspUnreachableError) as caught:
        await wallet.receive(sat(50_000), timeout=5)
    assert caught.value.retryable
    assert wallet.config.lsps[0].node_id in str(caught.value)
    assert await wallet.client_orders() == []


async def test_an_lsp_that_sells_nothing(box: Sandbox) -> None:
    """A node that is no LSP does not answer; the wallet does not wait for it forever."""
    plain = await box.node("plain")
    wallet = await wallet_of(box, plain)
    with pytest.raises((LspUnreachableError, LspRefusedError, NoLspError)):
        await wallet.receive(sat(50_000), timeout=1)


async def test_an_untrusted_lsp_that_wants_trust(box: Sandbox) -> None:
    lsp = await box.lsp(trust=TrustModel.CLIENT_TRUSTS_LSP)
    await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspTrustError, match="trusted"):
        await wallet.receive(sat(50_000))
    assert await wallet.client_orders() == []
    assert [each async for each in wallet.payments()] == []


async def test_a_wallet_without_an_lsp(box: Sandbox) -> None:
    wallet = await box.node("wallet")
    with pytest.raises(InboundCapacityError) as caught:
        await wallet.receive(sat(50_000))
    assert (caught.value.needed_msat, caught.value.available_msat) == (50_000_000, 0)
    with pytest.raises(NoLspError):
        await wallet.receive(sat(50_000), jit="always")


async def test_a_channel_is_not_bought_when_never_is_said(world: World) -> None:
    box, lsp, _ = world
    wallet = await wallet_of(box, lsp)
    with pytest.raises(InboundCapacityError) as caught:
        await wallet.receive(sat(50_000), jit="never")
    assert (caught.value.needed_msat, caught.value.available_msat) == (50_000_000, 0)
    assert await wallet.client_orders() == []


async def test_a_token_opens_another_menu(box: Sandbox) -> None:
    service = LspConfig(
        menu=[FeeTier(min_fee=sat(5_000), proportional_ppm=10_000)],
        token_menus={"friend": [FeeTier(min_fee=sat(100), proportional_ppm=0)]},
    )
    lsp = await box.lsp(lsp=service)
    payer = await box.node("payer", funds=sat(10_000_000), channels=[(lsp, PART_SAT)])
    at = await address_of(lsp)
    friend = await box.node("friend", lsps=[Lsp(at, token="friend")])
    stranger = await box.node("stranger", lsps=[Lsp(at)])
    liar = await box.node("liar", lsps=[Lsp(at, token="guessed")])
    for node in (friend, stranger, liar):
        await online(node)

    assert (await stranger.receive(sat(100_000))).opening_fee == sat(5_000)
    with pytest.raises(LspRefusedError) as caught:
        await liar.receive(sat(100_000))
    assert caught.value.lsp_code == 200
    assert "token" in caught.value.lsp_message
    invoice = await friend.receive(sat(100_000))
    assert invoice.opening_fee == sat(100)
    _, received = await pay_both(payer, friend, invoice.bolt11)
    assert (received.amount, received.opening_fee) == (sat(99_900), sat(100))
    await is_paid(lsp, friend, invoice.payment_hash, sat(100_000), sat(100))


async def test_S_76_the_cheapest_tier_and_the_cheapest_lsp_are_chosen(box: Sandbox) -> None:
    """Dear for small payments and cheap for large ones, and the other way round."""
    small = await box.lsp("small", menu=[FeeTier(min_fee=sat(500), proportional_ppm=20_000)])
    large = await box.lsp("large", menu=[FeeTier(min_fee=sat(3_000), proportional_ppm=1_000)])
    channels = [(small, 3_000_000), (large, 3_000_000)]
    await box.node("payer", funds=sat(10_000_000), channels=channels)
    lsps = [Lsp(await address_of(large)), Lsp(await address_of(small))]
    wallet = await box.node("wallet", lsps=lsps)
    await online(wallet, 2)
    cheap = await wallet.receive(sat(50_000))
    assert (cheap.lsp, cheap.opening_fee) == (await id_of(small), sat(1_000))
    dear = await wallet.receive(sat(2_000_000))
    assert (dear.lsp, dear.opening_fee) == (await id_of(large), sat(3_000))
    chosen = await wallet.receive(sat(50_000), lsp=await id_of(large))
    assert (chosen.lsp, chosen.opening_fee) == (await id_of(large), sat(3_000))
    with pytest.raises(NoLspError):
        await wallet.receive(sat(50_000), lsp="02" + "11" * 32)


async def test_S_76_a_dead_lsp_is_passed_over(world: World) -> None:
    box, lsp, payer = world
    dead = await box.lsp("dead", menu=[FeeTier(min_fee=sat(1), proportional_ppm=0)])
    at = await address_of(dead)
    await box.nodes.pop("dead").stop()
    wallet = await box.node("wallet", lsps=[Lsp(at), Lsp(await address_of(lsp))])
    await online(wallet)
    invoice = await wallet.receive(sat(50_000), timeout=10)
    assert (invoice.lsp, invoice.opening_fee) == (await id_of(lsp), sat(2_000))
    _, received = await pay_both(payer, wallet, invoice.bolt11)
    assert received.amount == sat(48_000)


async def test_sizes_outside_the_menu_are_refused(world: World) -> None:
    box, lsp, _ = world
    wallet = await wallet_of(box, lsp)
    for amount in (sat(5_000_001), Msat(999), sat(2_000)):  # too large, too small, all fee
        with pytest.raises(LspRefusedError) as caught:
            await wallet.receive(amount)
        assert "no offer for this amount" in str(caught.value)
        assert "1000 to 5000000000 msat" in caught.value.lsp_message
    assert await wallet.client_orders() == []


async def test_a_limit_of_the_operator_is_told(box: Sandbox) -> None:
    tier = FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)
    limits = Limits(max_orders_per_client=1)
    lsp = await box.lsp(lsp=LspConfig(menu=[tier], limits=limits))
    await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp)
    await wallet.receive(sat(50_000))
    with pytest.raises(LspRefusedError) as caught:
        await wallet.receive(sat(50_000))
    assert (caught.value.lsp_code, caught.value.lsp_message) == (
        1,
        "too many open orders for this client",
    )
    assert len(await wallet.client_orders()) == 1


async def test_a_denied_client_is_refused(box: Sandbox) -> None:
    wallet = await box.node("wallet")
    service = LspConfig(
        menu=[FeeTier(min_fee=sat(1), proportional_ppm=0)], deny=[await id_of(wallet)]
    )
    lsp = await box.lsp(lsp=service)
    lsps = [Lsp(await address_of(lsp))]
    await wallet.stop()
    again = Node(wallet.config.model_copy(update={"lsps": lsps}))
    await again.start()
    box.nodes["wallet"] = again
    await online(again)
    with pytest.raises(LspRefusedError) as caught:
        await again.receive(sat(50_000))
    assert caught.value.lsp_code == 1
    assert await lsp.orders() == []


async def test_an_lsp_without_coins_sells_nothing(box: Sandbox) -> None:
    lsp = await box.lsp(funds=sat(20_000))
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError, match="nothing for sale at present") as caught:
        await wallet.receive(sat(1_000_000))
    assert caught.value.lsp_code == 0
    assert await lsp.orders() == []


async def test_an_lsp_sells_no_more_than_its_coins_carry(box: Sandbox) -> None:
    lsp = await box.lsp(funds=sat(400_000))
    await payer_in_parts(box, lsp)
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError, match="has too little at present") as caught:
        await wallet.receive(sat(300_000))
    assert caught.value.lsp_code == 1
    assert "clients without a token" in caught.value.lsp_message
    assert await lsp.orders() == []


async def test_an_lsp_that_nobody_can_pay_sells_nothing(box: Sandbox) -> None:
    lsp = await box.lsp()
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError, match="for what it can receive") as caught:
        await wallet.receive(sat(50_000))
    assert caught.value.lsp_code == 203
    assert "inbound" in caught.value.lsp_message
    assert await lsp.orders() == []


async def test_an_expired_jit_invoice_is_not_paid(world: World) -> None:
    box, lsp, payer = world
    wallet = await wallet_of(box, lsp)
    # Long enough to buy on a busy machine.
    invoice = await wallet.receive(sat(50_000), expiry=4)
    before = await outbound(payer)

    async def refused() -> InvoiceError | None:
        try:
            if datetime.now(timezone.utc) > invoice.expires_at:
                await payer.pay(invoice.bolt11)
        except InvoiceError as error:
            return error
        return None

    error = await until(refused, "the invoice's expiry")
    assert error.why == "expired"
    assert await outbound(payer) == before
    assert await wallet.channels() == []


async def test_S_46_eight_wallets_are_paid_at_once(box: Sandbox) -> None:
    lsp = await box.lsp()
    await box.fund(lsp, sat(100_000_000))  # five coins more: ten in all
    payer = await box.node("payer", funds=sat(50_000_000), channels=[(lsp, 5_000_000)])
    wallets = [await wallet_of(box, lsp, f"wallet-{count}") for count in range(8)]
    amounts = [sat(100_000) + count for count in range(8)]
    invoices = await asyncio.gather(
        *(wallet.receive(amount) for wallet, amount in zip(wallets, amounts, strict=True))
    )
    assert len({each.jit_scid for each in invoices}) == 8
    before = await outbound(payer)
    paid = await asyncio.gather(
        *(
            pay_both(payer, wallet, invoice.bolt11)
            for wallet, invoice in zip(wallets, invoices, strict=True)
        )
    )
    fee = sat(2_000)
    for amount, (sent, received) in zip(amounts, paid, strict=True):
        assert (sent.amount, received.amount, received.opening_fee) == (amount, amount - fee, fee)
    await spent_is(payer, before, sum(amounts))
    for wallet, invoice, amount in zip(wallets, invoices, amounts, strict=True):
        await is_paid(lsp, wallet, invoice.payment_hash, amount, fee)
    fundings = {(await only_channel(wallet)).funding_txid for wallet in wallets}
    assert len(fundings) == 8
    inputs = [
        (each["txid"], each["vout"])
        for txid in fundings
        for each in (await transaction(box, str(txid)))["vin"]
    ]
    assert len(inputs) == len(set(inputs))
    await box.mine(6)
    for wallet in wallets:
        assert (await only_channel(wallet)).confirmations == 6
    assert len(await entries(lsp, kind="order_paid")) == 8
    assert sum(row["amount"] for row in await entries(lsp, kind="fee_earned")) == 8 * fee
