"""What the suite asks of a payer and of the chain, and an invoice to be paid."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal, Protocol

from .bolt11 import Hop, Invoice, write_invoice
from .rpc import Client

# Failed: for now, or for good.
Outcome = Literal["paid", "temporary", "permanent"]
_EXPIRY_S, _FINAL_DELTA = 300, 144
_VAR_ONION, _PAYMENT_SECRET = 8, 14


class Payer(Protocol):
    """A node with a channel to the LSP that is tested."""

    async def pay(self, invoice: str) -> Outcome:
        """Pay, on one way only; what became of it."""
        ...


class Chain(Protocol):
    """A bitcoind that gets the LSP's transactions."""

    async def txout(self, txid: str, vout: int) -> dict[str, Any] | None:
        """An unspent output, in a block or not, as ``gettxout`` tells it."""
        ...


def invoice_over(client: Client, hop: Hop, amount: int, payment_hash: str | None = None) -> str:
    """An invoice of a client.

    Args:
        client: Who is to be paid.
        hop: The last one on the way.
        amount: What is to be paid, msat. A part of a payment is asked for by an invoice of its own:
            what else the onion tells the client is nothing that the LSP can read.
        payment_hash: In hex; without it one whose preimage nobody knows.
    """
    now = int(time.time())
    return write_invoice(
        Invoice(
            network="bcrt",
            amount_msat=amount,
            timestamp=now,
            expires=now + _EXPIRY_S,
            payee=client.peer.node_id,
            payment_hash=payment_hash or secrets.token_hex(32),
            secret=secrets.token_hex(32),
            description="conformance",
            final_delta=_FINAL_DELTA,
            features=frozenset({_VAR_ONION, _PAYMENT_SECRET}),
            routes=[[hop]],
        ),
        client.peer.key,
    )
