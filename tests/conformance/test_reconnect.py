"""Clients that hang up, or are away, while a channel is opened for a payment, and come back."""

from __future__ import annotations

import asyncio

import pytest

from .channel import Channel
from .payer import Chain, Payer
from .peer import Target
from .rpc import Client
from .sale import (
    QUIET_S,
    Preimage,
    buy_fixed,
    is_published,
    paying,
    published,
    take,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


async def test_J_54_J_83_S_35_a_client_that_is_away(
    our_client: Client, our_lsp: Target, payer: Payer
) -> None:
    """Its payment is held until it comes."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    await our_client.peer.close()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        await asyncio.wait({payment}, timeout=QUIET_S)
        assert not payment.done()
        async with await our_client.again(our_lsp) as again:
            sale = sale._replace(client=again)
            await take(await sale.open(), payment, preimage, size, sale.fee(size))


async def test_S_36_a_client_that_hangs_up_when_it_has_signed(
    our_client: Client, our_lsp: Target, payer: Payer
) -> None:
    """The channel is there, and the payment goes on when the client comes back."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.half_open()
        async with await our_client.again(our_lsp) as again:
            await channel.resume(again.peer)
            await take(channel, payment, preimage, size, sale.fee(size))


async def test_J_62_S_36_a_client_that_hangs_up_at_the_funding_is_offered_another(
    our_client: Client, our_lsp: Target, payer: Payer, chain: Chain
) -> None:
    """The payment fails for now; the next one gets a channel, and the first is never funded."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size)) as payment:
        first = await Channel.offered(our_client.peer)
        await first.accept(sale.delay)
        await our_client.peer.close()
        assert await payment == "temporary"
    async with await our_client.again(our_lsp) as again:
        sale = sale._replace(client=again)
        async with paying(payer, sale.invoice(size, preimage)) as payment:
            channel = await sale.open()
            await take(channel, payment, preimage, size, sale.fee(size))
    await published(chain, channel)
    assert not await is_published(chain, first)


async def test_J_68_nothing_is_forwarded_to_a_client_that_is_not_ready(
    our_client: Client, payer: Payer
) -> None:
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.half_open()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.arrive(), QUIET_S)
        await channel.say_ready()
        await take(channel, payment, preimage, size, sale.fee(size))


async def test_S_61_a_client_that_hangs_up_with_the_payment_in_its_hands(
    our_client: Client, our_lsp: Target, payer: Payer
) -> None:
    """It may claim it when it comes back."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        htlcs = await channel.arrive()
        async with await our_client.again(our_lsp) as again:
            await channel.resume(again.peer)
            assert not payment.done()
            await channel.fulfil(preimage.data, *htlcs)
            assert await payment == "paid"
            assert channel.ours_msat == size - sale.fee(size)
