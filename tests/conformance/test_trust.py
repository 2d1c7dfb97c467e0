"""Who trusts whom: when the funding transaction of a channel is published, and what is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from .channel import Channel, Htlc
from .opening import ERROR, refuse
from .payer import Chain, Payer
from .peer import Target
from .rpc import Client
from .sale import (
    Preimage,
    buy_fixed,
    check_fee,
    is_published,
    no_more,
    paying,
    published,
    take,
    unpublished,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

Failing = Callable[[Channel, Htlc], Awaitable[None]]


async def test_J_67_S_49_an_lsp_that_trusts_publishes_at_once(
    our_client: Client, payer: Payer, chain: Chain
) -> None:
    """Before the client says or claims anything."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await Channel.offered(our_client.peer)
        await channel.accept(sale.delay)
        await unpublished(chain, channel)
        await channel.sign_funding()
        await channel.until_ready()
        await published(chain, channel)
        await channel.say_ready()
        (htlc,) = await channel.arrive()
        await channel.fulfil(preimage.data, htlc)
        assert await payment == "paid"


async def test_J_66_S_50_an_lsp_that_is_trusted_publishes_when_it_is_paid(
    strict_client: Client, payer: Payer, chain: Chain
) -> None:
    """It is ready, and forwards, without; with the preimage it publishes."""
    sale, size = await buy_fixed(strict_client)
    assert sale.terms["client_trusts_lsp"] is True
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        htlcs = await channel.arrive()
        check_fee(htlcs, size, sale.fee(size))
        await unpublished(chain, channel)
        await channel.fulfil(preimage.data, *htlcs)
        assert await payment == "paid"
        await published(chain, channel)


async def test_J_66_S_51_an_lsp_that_is_trusted_publishes_for_one_part(
    strict_client: Client, payers: Sequence[Payer], chain: Chain
) -> None:
    """It has a preimage as soon as one part is claimed, whether or not the other ever is."""
    sale, size = await buy_fixed(strict_client)
    preimage = Preimage.new()
    invoices = [sale.invoice(size // 2, preimage) for _ in payers]
    async with paying(payers[0], invoices[0]) as one, paying(payers[1], invoices[1]) as other:
        channel = await sale.open()
        first, second = await channel.arrive(2)
        check_fee([first, second], size, sale.fee(size))
        await unpublished(chain, channel)
        await channel.fulfil(preimage.data, first)
        await published(chain, channel)
        await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result() for each in (one, other) if each.done()] == ["paid"]
        await channel.fulfil(preimage.data, second)
        assert [await one, await other] == ["paid", "paid"]


async def test_J_66_an_lsp_that_is_trusted_publishes_though_the_client_goes(
    strict_client: Client, payer: Payer, chain: Chain
) -> None:
    """A preimage is one, also if the client hangs up before it commits to anything."""
    sale, size = await buy_fixed(strict_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        htlcs = await channel.arrive()
        await channel.tell_preimage(preimage.data, *htlcs)
        await strict_client.peer.close()
        assert await payment == "paid"
        await published(chain, channel)


@pytest.mark.parametrize("fail", [Channel.fail, Channel.fail_malformed])
async def test_S_53_S_54_S_62_a_client_that_fails_the_payment_still_owes_the_fee(
    our_client: Client, payers: Sequence[Payer], fail: Failing
) -> None:
    """The next payment over the channel, which is there, pays for it."""
    sale, size = await buy_fixed(our_client)
    async with paying(payers[0], sale.invoice(size)) as payment:
        channel = await sale.open()
        (htlc,) = await channel.arrive()
        await fail(channel, htlc)
        assert await payment != "paid"
    preimage = Preimage.new()
    async with paying(payers[0], sale.invoice(size, preimage)) as payment:
        await take(channel, payment, preimage, size, sale.fee(size))
        assert channel.ours_msat == size - sale.fee(size)


async def test_J_66_S_53_S_54_a_client_that_trusts_and_fails_the_payment(
    strict_client: Client, payer: Payer, chain: Chain
) -> None:
    """Nothing is published, until the next payment is claimed."""
    sale, size = await buy_fixed(strict_client)
    async with paying(payer, sale.invoice(size)) as payment:
        channel = await sale.open()
        (htlc,) = await channel.arrive()
        await channel.fail(htlc)
        assert await payment != "paid"
        await unpublished(chain, channel)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        htlcs = await channel.arrive()
        check_fee(htlcs, size, sale.fee(size))
        await unpublished(chain, channel)
        await channel.fulfil(preimage.data, *htlcs)
        assert await payment == "paid"
        await published(chain, channel)


async def test_S_54_of_two_parts_one_is_failed(our_client: Client, payers: Sequence[Payer]) -> None:
    """Each payer hears of its own, and the fee that was lost with a part is owed."""
    sale, size = await buy_fixed(our_client)
    fee, preimage = sale.fee(size), Preimage.new()
    invoices = [sale.invoice(size // 2, preimage) for _ in payers]
    async with paying(payers[0], invoices[0]) as one, paying(payers[1], invoices[1]) as other:
        channel = await sale.open()
        htlcs = await channel.arrive(2)
        check_fee(htlcs, size, fee)
        reduced, whole = sorted(htlcs, key=lambda each: each.extra_fee is None)
        await channel.fail(reduced)
        await channel.fulfil(preimage.data, whole)
        assert sorted([await one == "paid", await other == "paid"]) == [False, True]
    again = Preimage.new()
    async with paying(payers[0], sale.invoice(size, again)) as payment:
        await take(channel, payment, again, size, fee)
    await no_more(our_client)


async def test_J_66_S_52_a_client_that_gives_up_a_channel_without_funding(
    strict_client: Client, payer: Payer, chain: Chain
) -> None:
    """Its funding is never published; the next payment gets a channel of its own, or fails."""
    sale, size = await buy_fixed(strict_client)
    async with paying(payer, sale.invoice(size)) as payment:
        channel = await sale.open()
        (htlc,) = await channel.arrive()
        await channel.fail(htlc)
        assert await payment != "paid"
        await refuse(strict_client.peer, channel.id, "not wanted any more")
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        opening = asyncio.create_task(sale.open())
        await asyncio.wait({payment, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            another = await opening
            await take(another, payment, preimage, size, sale.fee(size))
            await published(chain, another)
        else:
            opening.cancel()
            assert await payment != "paid"
    await unpublished(chain, channel)


async def test_S_46_two_channels_at_once(
    our_lsp: Target, payers: Sequence[Payer], chain: Chain
) -> None:
    """Both are funded: neither takes the other's coins."""

    async def one(payer: Payer) -> Channel:
        async with await Client.connect(our_lsp) as client:
            sale, size = await buy_fixed(client)
            preimage = Preimage.new()
            async with paying(payer, sale.invoice(size, preimage)) as payment:
                channel = await sale.open()
                await take(channel, payment, preimage, size, sale.fee(size))
                await published(chain, channel)
                return channel

    channels = await asyncio.gather(*map(one, payers))
    assert len({each.funding for each in channels}) == len(payers)
    assert all([await is_published(chain, each) for each in channels])


async def test_a_client_that_signs_wrongly_gets_no_funding(
    our_client: Client, payer: Payer, chain: Chain
) -> None:
    """Nothing is published that the LSP could not get back."""
    sale, size = await buy_fixed(our_client)
    async with paying(payer, sale.invoice(size)) as payment:
        channel = await Channel.offered(our_client.peer)
        await channel.accept(sale.delay)
        await channel.sign_funding(wrongly=True)
        await our_client.peer.message(ERROR)
        await unpublished(chain, channel)
        payment.cancel()
