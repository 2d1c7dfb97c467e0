"""A channel that a client bought, and payments for it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import pytest

from .bolt11 import Hop
from .channel import Channel, Htlc
from .offers import opening_fee, sellable
from .opening import HTLC_MINIMUM_MSAT, offered
from .payer import Chain, Outcome, Payer, invoice_over
from .rpc import Client, Offer

# For what must not happen; what it would take is a few milliseconds.
QUIET_S = 0.3
_PAUSE_S, _PATIENCE_S = 0.02, 10.0
_SAT_PER_BTC = 100_000_000


class Preimage(NamedTuple):
    """What an HTLC is claimed with, and its hash in hex."""

    data: bytes
    hash: str

    @classmethod
    def new(cls) -> Preimage:
        """A fresh one."""
        data = secrets.token_bytes(32)
        return cls(data, sha256(data).hexdigest())


class Sale(NamedTuple):
    """A channel that a client bought, for a payment of a size or of any.

    Attributes:
        client: Who bought it.
        offer: By which offer.
        terms: The LSP's answer.
    """

    client: Client
    offer: Offer
    terms: dict[str, Any]

    @property
    def delay(self) -> int:
        """The longest delay that the client may ask for, blocks."""
        return int(self.offer["max_client_to_self_delay"])

    def fee(self, amount: int) -> int:
        """The fee of a payment, msat."""
        fee = opening_fee(self.offer, amount)
        assert fee is not None
        return fee

    @property
    def hop(self) -> Hop:
        """The hop of the invoice."""
        return Hop(
            node_id=self.client.peer.other,
            scid=self.terms["jit_channel_scid"],
            base_fee_msat=0,
            ppm=0,
            delta=self.terms["lsp_cltv_expiry_delta"],
        )

    async def open(self, htlc_minimum_msat: int = HTLC_MINIMUM_MSAT) -> Channel:
        """Take the channel that is offered, until it is ready on both sides."""
        channel = await Channel.offered(self.client.peer)
        await channel.open(self.delay, htlc_minimum_msat)
        return channel

    async def half_open(self) -> Channel:
        """Take the channel that is offered, until the LSP is ready; the client does not say it."""
        channel = await Channel.offered(self.client.peer)
        await channel.accept(self.delay)
        await channel.sign_funding()
        await channel.until_ready()
        return channel

    def invoice(self, amount: int, preimage: Preimage | None = None) -> str:
        """An invoice of this amount or part, msat."""
        return invoice_over(self.client, self.hop, amount, preimage and preimage.hash)


async def first_offer(client: Client, token: str | None = None) -> Offer:
    """The cheapest offer to a client."""
    offer, *_ = await client.get_info(token)
    return offer


async def buy(client: Client, offer: Offer, size: int | None) -> Sale:
    """Buy a channel for a payment of this size, msat; for one of any size without."""
    answer = await client.buy(offer, size)
    assert answer.result is not None, answer
    return Sale(client, offer, answer.result)


async def buy_fixed(client: Client) -> tuple[Sale, int]:
    """Buy a channel for a payment of one size by the first offer; and that size, msat."""
    offer = await first_offer(client)
    size = sellable(offer)
    return await buy(client, offer, size), size


@contextlib.asynccontextmanager
async def paying(payer: Payer, invoice: str) -> AsyncGenerator[asyncio.Task[Outcome], None]:
    """A payment on its way."""
    payment = asyncio.create_task(payer.pay(invoice))
    try:
        yield payment
    finally:
        payment.cancel()


async def no_more(client: Client) -> None:
    """No channel is offered any more, and the client is served as before."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(offered(client.peer), QUIET_S)
    assert await client.others() == []


def check_fee(htlcs: Sequence[Htlc], paid: int, fee: int) -> None:
    """What a payment came to: everything but the fee, each part with what was taken from it."""
    assert sum(each.extra_fee or 0 for each in htlcs) == fee
    assert sum(each.amount_msat for each in htlcs) == paid - fee
    # Of a part that is whole nothing is said (J-72), and none is empty (J-69).
    assert all(each.extra_fee != 0 for each in htlcs)
    assert all(each.amount_msat >= HTLC_MINIMUM_MSAT for each in htlcs)


async def take(
    channel: Channel,
    payment: asyncio.Task[Outcome],
    preimage: Preimage,
    paid: int,
    fee: int,
    parts: int = 1,
) -> None:
    """Take a payment, which comes whole but for the fee, msat; it is paid."""
    htlcs = await channel.arrive(parts)
    check_fee(htlcs, paid, fee)
    await channel.fulfil(preimage.data, *htlcs)
    assert await payment == "paid"


async def is_published(chain: Chain, channel: Channel) -> bool:
    """Whether the funding transaction is there; if so, it has the output that it should have."""
    funding = channel.funding
    assert funding is not None
    output = await chain.txout(funding.txid, funding.vout)
    if output is None:
        return False
    assert output["scriptPubKey"]["hex"] == funding.script
    assert round(output["value"] * _SAT_PER_BTC) == funding.amount_sat
    return True


async def published(chain: Chain, channel: Channel) -> None:
    """Wait until the funding transaction is published, of which nobody tells us."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE_S
    while not await is_published(chain, channel):
        assert loop.time() < end, f"{channel.funding} was not published"
        await asyncio.sleep(_PAUSE_S)


async def unpublished(chain: Chain, channel: Channel) -> None:
    """The funding transaction is not published."""
    await asyncio.sleep(QUIET_S)
    assert not await is_published(chain, channel)
