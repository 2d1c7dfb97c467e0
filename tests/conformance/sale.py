"""A channel that a client bought, and payments for it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator
from hashlib import sha256
from typing import Any, NamedTuple

import pytest

from .bolt11 import Hop
from .offers import opening_fee
from .opening import offered
from .payer import Outcome, Payer, invoice_over
from .rpc import Client, Offer

# For what must not happen; what it would take is a few milliseconds.
QUIET_S = 0.3


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
