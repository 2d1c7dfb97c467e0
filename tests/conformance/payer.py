"""What the suite asks of a payer, and an invoice for it to pay."""

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


def jit_invoice(client: Client, sold: dict[str, Any], size: int) -> str:
    """An invoice of a client over the channel that it was sold; nobody knows its preimage."""
    now = int(time.time())
    return write_invoice(
        Invoice(
            network="bcrt",
            amount_msat=size,
            timestamp=now,
            expires=now + _EXPIRY_S,
            payee=client.peer.node_id,
            payment_hash=secrets.token_hex(32),
            secret=secrets.token_hex(32),
            description="conformance",
            final_delta=_FINAL_DELTA,
            features=frozenset({_VAR_ONION, _PAYMENT_SECRET}),
            routes=[
                [
                    Hop(
                        node_id=client.peer.other,
                        scid=sold["jit_channel_scid"],
                        base_fee_msat=0,
                        ppm=0,
                        delta=sold["lsp_cltv_expiry_delta"],
                    )
                ]
            ],
        ),
        client.peer.key,
    )
