"""Payments to a channel that an LSP opens for them: what is forwarded, and what it takes for it."""

from __future__ import annotations

import pytest

from .channel import Channel
from .offers import sellable
from .payer import Payer
from .rpc import Client
from .sale import Preimage, buy, first_offer, paying

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


async def test_J_68_J_70_J_71_S_15_one_part(our_client: Client, payer: Payer) -> None:
    offer = await first_offer(our_client)
    size = sellable(offer)
    sale, preimage = await buy(our_client, offer, size), Preimage.new()
    async with paying(payer, sale.invoice(size, preimage)) as payment:
        channel = await Channel.offered(our_client.peer)
        await channel.open(sale.delay)
        (htlc,) = await channel.htlcs(1)
        assert htlc.payment_hash == preimage.hash
        assert htlc.extra_fee == sale.fee(size)
        assert htlc.amount_msat == size - sale.fee(size)
        await channel.fulfil(preimage.data, htlc)
        assert await payment == "paid"
