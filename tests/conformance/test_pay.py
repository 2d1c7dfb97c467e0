"""Payments to a channel that an LSP opens for them: what is forwarded, and what it takes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from .opening import ERROR, accept, offered
from .payer import Payer
from .rpc import Client
from .sale import QUIET_S, Preimage, buy, buy_fixed, check_fee, first_offer, no_more, paying, take

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


# Fixed amounts


async def test_J_70_J_71_S_15_a_payment_in_one_part(either_client: Client, payer: Payer) -> None:
    sale, size = await buy_fixed(either_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        (htlc,) = await channel.arrive()
        fee = sale.fee(size)
        assert (htlc.payment_hash, htlc.extra_fee) == (preimage.hash, fee)
        assert htlc.amount_msat == size - fee
        await channel.fulfil(preimage.data, htlc)
        assert await payment == "paid"
        assert channel.ours_msat == size - fee


async def test_J_46_J_47_J_70_J_72_S_17_a_payment_in_two_parts(
    either_client: Client, payers: Sequence[Payer]
) -> None:
    """The first is held for the second; of the fee, which either part could bear, one does."""
    sale, size = await buy_fixed(either_client)
    fee, preimage = sale.fee(size), Preimage.new()
    parts = [size // 3, size - size // 3]
    assert fee < min(parts)
    first, second = (sale.invoice(each, preimage) for each in parts)
    async with paying(payers[0], first) as paying_one:
        await no_more(either_client)
        async with paying(payers[1], second) as paying_other:
            channel = await sale.open()
            htlcs = await channel.arrive(2)
            check_fee(htlcs, size, fee)
            assert [each.extra_fee for each in htlcs].count(None) == 1
            assert {each.amount_msat + (each.extra_fee or 0) for each in htlcs} == {*parts}
            assert {each.payment_hash for each in htlcs} == {preimage.hash}
            await channel.fulfil(preimage.data, *htlcs)
            assert [await paying_one, await paying_other] == ["paid", "paid"]


async def test_J_69_J_71_S_17_a_fee_that_no_part_bears_alone(
    either_client: Client, payers: Sequence[Payer]
) -> None:
    """Each part is reduced, and none below the smallest HTLC that the client takes."""
    offer = await first_offer(either_client, "flat")
    minimum = 900_000
    fee = int(offer["min_fee_msat"])
    size = fee + 2 * minimum
    sale, preimage = await buy(either_client, offer, size), Preimage.new()
    invoices = [sale.invoice(size // 2, preimage) for _ in payers]
    one, other = [asyncio.create_task(p.pay(i)) for p, i in zip(payers, invoices, strict=True)]
    channel = await sale.open(minimum)
    htlcs = await channel.arrive(2)
    check_fee(htlcs, size, fee)
    assert [each.amount_msat for each in htlcs] == [minimum, minimum]
    await channel.fulfil(preimage.data, *htlcs)
    assert [await one, await other] == ["paid", "paid"]


@pytest.mark.parametrize("parts", [1, 2])
async def test_J_69_J_53_B_08_a_client_that_takes_no_htlc_so_small(
    our_client: Client, payers: Sequence[Payer], parts: int
) -> None:
    """What is left of the payment is less than its parts have to be: it fails for good."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    share = size // parts
    payments = [asyncio.create_task(p.pay(sale.invoice(share, preimage))) for p in payers[:parts]]
    channel = await sale.open((size - sale.fee(size)) // parts + 1)
    assert [await each for each in payments] == ["permanent"] * parts
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(channel.arrive(), QUIET_S)


async def test_J_47_S_21_parts_of_two_payments_do_not_add_up(
    our_client: Client, payers: Sequence[Payer]
) -> None:
    """Each waits for its own other part, and the first that is whole gets the channel."""
    sale, size = await buy_fixed(our_client)
    one, other = Preimage.new(), Preimage.new()
    part = size * 2 // 3
    first, second = sale.invoice(part, one), sale.invoice(part, other)
    async with paying(payers[0], first) as payment, paying(payers[1], second):
        await no_more(our_client)
        async with paying(payers[1], sale.invoice(size - part, one)) as rest:
            channel = await sale.open()
            htlcs = await channel.arrive(2)
            check_fee(htlcs, size, sale.fee(size))
            assert {each.payment_hash for each in htlcs} == {one.hash}
            await channel.fulfil(one.data, *htlcs)
            assert [await payment, await rest] == ["paid", "paid"]


async def test_J_70_S_24_more_than_the_size_is_paid(
    either_client: Client, payers: Sequence[Payer]
) -> None:
    """The fee is that of the size, and the client gets the rest."""
    offer = await first_offer(either_client, "share")
    size = 8_000_001
    sale, preimage = await buy(either_client, offer, size), Preimage.new()
    async with paying(payers[0], sale.invoice(size - 1, preimage)) as first:
        await no_more(either_client)
        async with paying(payers[1], sale.invoice(size, preimage)) as second:
            channel = await sale.open()
            htlcs = await channel.arrive(2)
            check_fee(htlcs, 2 * size - 1, sale.fee(size))
            await channel.fulfil(preimage.data, *htlcs)
            assert [await first, await second] == ["paid", "paid"]


@pytest.mark.timeout(150)
async def test_J_48_J_49_J_50_S_16_a_payment_that_lacks_a_part(
    our_client: Client, payers: Sequence[Payer]
) -> None:
    """Held for 90 s, it fails for now; then it is forgotten, and the next payment is served."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await payers[0].pay(sale.invoice(size - 1_000, preimage)) == "temporary"
    assert loop.time() - began >= 90
    await no_more(our_client)
    again = Preimage.new()
    async with paying(payers[0], sale.invoice(1_000, again)):
        await no_more(our_client)
        async with paying(payers[1], sale.invoice(size - 1_000, again)) as payment:
            channel = await sale.open()
            await take(channel, payment, again, size, sale.fee(size), 2)


async def test_J_64_S_44_the_channel_after_one_that_the_lsp_gave_up(
    our_client: Client, payer: Payer
) -> None:
    """The payment waits for it."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        refused = await offered(our_client.peer)
        await accept(our_client.peer, refused, sale.delay + 1)
        _, error = await our_client.peer.message(ERROR)
        assert error[:32] == refused.id
        channel = await sale.open()
        await take(channel, payment, preimage, size, sale.fee(size))


# Variable amounts


@pytest.mark.parametrize("amount", [4_000_000, 4_000_001, 4_000_004])
async def test_J_55_the_fee_of_any_payment_is_that_of_its_amount(
    either_client: Client, payer: Payer, amount: int
) -> None:
    offer = await first_offer(either_client, "share")
    sale, preimage = await buy(either_client, offer, None), Preimage.new()
    async with paying(payer, sale.invoice(amount, preimage)) as payment:
        channel = await sale.open()
        htlcs = await channel.arrive()
        assert sale.fee(amount) == -(-amount // 4)
        check_fee(htlcs, amount, sale.fee(amount))
        await channel.fulfil(preimage.data, *htlcs)
        assert await payment == "paid"


async def test_J_56_S_30_S_31_a_payment_that_can_just_bear_the_fee(
    either_client: Client, payer: Payer
) -> None:
    """One msat less fails for good, and the channel is then opened for one that is enough."""
    offer = await first_offer(either_client, "flat")
    fee, minimum = int(offer["min_fee_msat"]), 1_000
    sale, preimage = await buy(either_client, offer, None), Preimage.new()
    assert await payer.pay(sale.invoice(fee + minimum - 1)) == "permanent"
    await no_more(either_client)
    async with paying(payer, sale.invoice(fee + minimum, preimage)) as payment:
        channel = await sale.open(minimum)
        (htlc,) = await channel.arrive()
        assert (htlc.amount_msat, htlc.extra_fee) == (minimum, fee)
        await channel.fulfil(preimage.data, htlc)
        assert await payment == "paid"


async def test_J_55_S_34_a_second_payment_before_the_first_is_claimed(
    either_client: Client, payers: Sequence[Payer]
) -> None:
    """One channel carries both, and one of them pays for it."""
    offer = await first_offer(either_client, "share")
    sale, one, other = await buy(either_client, offer, None), Preimage.new(), Preimage.new()
    first, second = 8_000_000, 400_000
    async with paying(payers[0], sale.invoice(first, one)) as paying_one:
        channel = await sale.open()
        (htlc,) = await channel.arrive()
        check_fee([htlc], first, sale.fee(first))
        async with paying(payers[1], sale.invoice(second, other)) as paying_other:
            await channel.fulfil(one.data, htlc)
            assert await paying_one == "paid"
            (htlc,) = await channel.arrive()
            check_fee([htlc], second, 0)
            await channel.fulfil(other.data, htlc)
            assert await paying_other == "paid"
