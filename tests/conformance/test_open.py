"""The channel that an LSP opens for a payment: what it offers, and what a bad answer comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from .offers import sellable
from .opening import ERROR, FUNDING_CREATED, SCID_ALIAS, Opening, accept, offered, refuse
from .payer import Outcome, Payer, invoice_over
from .peer import Peer, Target
from .rpc import Client
from .sale import Sale, buy, buy_fixed, first_offer, no_more, paying

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


def _paying(payer: Payer, sale: Sale) -> AbstractAsyncContextManager[asyncio.Task[Outcome]]:
    """The payment that a channel was bought for."""
    return paying(payer, sale.invoice(sellable(sale.offer)))


async def _refuse(client: Client, payment: asyncio.Task[Outcome]) -> list[Opening]:
    """Refuse what is offered until the payment is over; an LSP may try other types of channel."""
    openings: list[Opening] = []
    while opening := await _unless(payment, offered(client.peer)):
        openings.append(opening)
        await refuse(client.peer, opening.id, "no channels without confirmations")
    return openings


async def _unless(
    payment: asyncio.Task[Outcome], offer: Coroutine[Any, Any, Opening]
) -> Opening | None:
    """What is offered, or ``None`` if the payment is over before."""
    next_ = asyncio.create_task(offer)
    await asyncio.wait({next_, payment}, return_when=asyncio.FIRST_COMPLETED)
    if next_.done():
        return await next_
    next_.cancel()
    return None


async def test_J_57_J_58_the_channel_is_private_and_carries_the_payment(
    our_client: Client, payer: Payer
) -> None:
    """With an alias, and with room for what is forwarded above a reserve of 1 %."""
    sale, size = await buy_fixed(our_client)
    async with _paying(payer, sale) as payment:
        opening, *_ = await _refuse(our_client, payment)
        assert SCID_ALIAS in opening.kind
        assert not opening.public
        assert opening.capacity_sat * 990 >= size - sale.fee(size)


async def test_J_61_S_40_S_43_a_client_that_refuses_the_channel(
    our_client: Client, payer: Payer
) -> None:
    """As one does that takes no channel of this LSP unconfirmed: ``unknown_next_peer``."""
    sale, _ = await buy_fixed(our_client)
    async with _paying(payer, sale) as payment:
        openings = await _refuse(our_client, payment)
        assert await payment == "permanent"
        await no_more(our_client)
    assert not any(each.public for each in openings)


async def test_J_58_a_client_that_refuses_gets_no_channel_without_an_alias(
    our_client: Client, payer: Payer
) -> None:
    """What the client takes has an alias, or is not funded."""
    sale, _ = await buy_fixed(our_client)
    async with _paying(payer, sale) as payment:
        while opening := await _unless(payment, offered(our_client.peer)):
            if SCID_ALIAS in opening.kind:
                await refuse(our_client.peer, opening.id, "no such channel")
                continue
            await accept(our_client.peer, opening, sale.delay)
            kind, _ = await our_client.peer.message(FUNDING_CREATED, ERROR)
            assert kind == ERROR


async def test_J_62_S_36_a_client_that_hangs_up_at_the_offer(
    our_client: Client, our_lsp: Target, payer: Payer
) -> None:
    """``temporary_channel_failure``, and the next payment is served."""
    sale, _ = await buy_fixed(our_client)
    async with _paying(payer, sale) as payment:
        await offered(our_client.peer)
        await our_client.peer.close()
        assert await payment == "temporary"
    async with await our_client.again(our_lsp) as again:
        sale = sale._replace(client=again)
        async with _paying(payer, sale) as payment:
            assert await _refuse(again, payment)


@pytest.mark.parametrize("lacking", ["anchors", "scid_alias"])
async def test_J_58_S_48_a_client_that_cannot_have_such_a_channel(
    our_lsp: Target, payer: Payer, lacking: str
) -> None:
    """It is offered no other one, and its payment fails."""
    async with Client(await Peer.connect(our_lsp, less=[lacking])) as client:
        sale, _ = await buy_fixed(client)
        async with _paying(payer, sale) as payment:
            assert await payment == "permanent"
            await no_more(client)


async def test_J_59_J_64_S_44_a_client_that_delays_longer_than_was_sold(
    our_client: Client, payer: Payer
) -> None:
    """The LSP gives up each open by ``error``, and begins others; in the end the payment fails."""
    sale, _ = await buy_fixed(our_client)
    openings: list[Opening] = []
    async with _paying(payer, sale) as payment:
        while opening := await _unless(payment, offered(our_client.peer)):
            openings.append(opening)
            await accept(our_client.peer, opening, sale.delay + 1)
            _, error = await our_client.peer.message(ERROR)
            assert error[:32] == opening.id
        assert await payment == "permanent"
        await no_more(our_client)
    assert len({each.id for each in openings}) == len(openings) > 1


async def test_J_59_J_62_S_36_a_client_that_hangs_up_at_the_funding(
    our_client: Client, payer: Payer
) -> None:
    """It is offered, as its delay is the longest that was sold."""
    sale, _ = await buy_fixed(our_client)
    async with _paying(payer, sale) as payment:
        opening = await offered(our_client.peer)
        await accept(our_client.peer, opening, sale.delay)
        kind, created = await our_client.peer.message(FUNDING_CREATED, ERROR)
        assert (kind, created[:32]) == (FUNDING_CREATED, opening.id)
        await our_client.peer.close()
        assert await payment == "temporary"


async def test_J_33_S_30_S_31_a_variable_payment_outside_the_offer(
    our_client: Client, payer: Payer
) -> None:
    """It is failed for good, and no channel is offered; one within it gets its channel."""
    offer = await first_offer(our_client, "narrow")
    sale = await buy(our_client, offer, None)
    low, high = int(offer["min_payment_size_msat"]), int(offer["max_payment_size_msat"])
    for amount in (low - 1, high + 1):
        assert await payer.pay(sale.invoice(amount)) == "permanent"
        await no_more(our_client)
    async with paying(payer, sale.invoice(low)) as payment:
        assert await _refuse(our_client, payment)
        assert await payment == "permanent"


async def test_S_25_a_payment_to_a_scid_that_was_never_sold(
    our_client: Client, payer: Payer
) -> None:
    sale, _ = await buy_fixed(our_client)
    block, transaction, output = sale.hop.scid.split("x")
    stray = sale.hop._replace(scid=f"{block}x{transaction}x{int(output) ^ 1}")
    assert await payer.pay(invoice_over(our_client, stray, sellable(sale.offer))) == "permanent"
    await no_more(our_client)
