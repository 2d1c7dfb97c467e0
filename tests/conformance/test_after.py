"""A channel that has been paid for: further payments over it, and preimages given up again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from .channel import Channel
from .opening import ERROR
from .payer import Payer, invoice_over
from .rpc import Client
from .sale import Preimage, Sale, buy_fixed, check_fee, no_more, paying, take

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

SMALL = 500_000


async def _paid(client: Client, payer: Payer) -> tuple[Sale, Channel, Preimage]:
    """A channel that was paid for, and with which preimage."""
    sale, size = await buy_fixed(client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        await channel.fulfil(preimage.data, *await channel.arrive())
        assert await payment == "paid"
    return sale, channel, preimage


async def test_J_78_S_68_the_jit_scid_is_an_alias_of_the_channel(
    our_client: Client, payers: Sequence[Payer]
) -> None:
    """Without another fee, whoever pays, and as often as anybody does."""
    sale, channel, _ = await _paid(our_client, payers[0])
    for payer in (*payers, *payers):
        preimage = Preimage.new()
        async with paying(payer, sale.invoice(SMALL, preimage)) as payment:
            await take(channel, payment, preimage, SMALL, 0)
    await no_more(our_client)


async def test_J_77_S_69_the_alias_with_the_fees_of_the_channel(
    our_client: Client, payer: Payer
) -> None:
    """As the LSP last told them the client, which gets the whole amount."""
    sale, channel, _ = await _paid(our_client, payer)
    assert channel.alias is not None
    delta, base, ppm = await channel.affordable(SMALL)
    hop = sale.hop._replace(scid=channel.alias, base_fee_msat=base, ppm=ppm, delta=delta)
    preimage = Preimage.new()
    async with paying(payer, invoice_over(our_client, hop, SMALL, preimage.hash)) as payment:
        await take(channel, payment, preimage, SMALL, 0)


async def test_S_28_S_59_a_part_that_comes_when_the_payment_was_claimed(
    our_client: Client, payers: Sequence[Payer]
) -> None:
    """It is forwarded without another fee, or failed, and not held."""
    sale, channel, preimage = await _paid(our_client, payers[0])
    async with paying(payers[1], sale.invoice(SMALL, preimage)) as payment:
        arriving = asyncio.create_task(channel.arrive())
        await asyncio.wait({payment, arriving}, return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            htlcs = await arriving
            check_fee(htlcs, SMALL, 0)
            await channel.fulfil(preimage.data, *htlcs)
            assert await payment == "paid"
        else:
            arriving.cancel()
            assert await payment != "paid"


async def test_S_59_a_preimage_that_is_told_twice_is_worth_one_payment(
    our_client: Client, payer: Payer
) -> None:
    """Once the HTLC is gone there is nothing to claim: the LSP gives the channel up."""
    sale, size = await buy_fixed(our_client)
    preimage = Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await sale.open()
        htlcs = await channel.arrive()
        await channel.fulfil(preimage.data, *htlcs)
        assert await payment == "paid"
    await channel.tell_preimage(preimage.data, *htlcs)
    _, error = await our_client.peer.message(ERROR)
    assert error[:32] == channel.id
