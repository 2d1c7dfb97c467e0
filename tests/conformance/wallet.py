"""What the suite asks of a client, however that is driven: an invoice over a channel it buys."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import pytest

from .bolt11 import Invoice, read_invoice
from .shop import SIZE, Shop

# For an LSP that answers, and for one that does not.
PATIENT_S, QUICK_S = 10.0, 0.3


class Seller(NamedTuple):
    """An LSP as a wallet is told of it.

    Attributes:
        address: ``node_id@host:port``.
        token: What its menu is asked for with.
        trusted: Whether it may withhold the funding transaction.
        confirmations: How many to wait for before the preimage is given.
    """

    address: str
    token: str | None = None
    trusted: bool = False
    confirmations: int = 0


class RefusedError(Exception):
    """The wallet made no invoice.

    Attributes:
        shown: What its user reads.
        words: What the LSP said, for who wants to know; empty if nothing.
        code: The LSP's error code as the wallet understands it.
        temporary: Whether trying again may help.
    """

    def __init__(self, shown: str, words: str, code: int | None, temporary: bool) -> None:
        super().__init__(shown)
        self.shown = shown
        self.words = words
        self.code = code
        self.temporary = temporary


class Wallet(Protocol):
    """A client without channels that knows one or more LSPs."""

    @property
    def normal_final_delta(self) -> int:
        """The ``min_final_cltv_expiry_delta`` of its invoices over channels it has."""
        ...

    async def receive(self, size: int | None, timeout: float = PATIENT_S) -> str:
        """Buy a channel for a payment of this size in msat, ``None`` for any; the invoice.

        Args:
            size: The payment.
            timeout: How long an LSP may take to answer, in seconds.

        Raises:
            RefusedError: No LSP sold one.
        """
        ...

    async def set_webhook(self, app_name: str, url: str) -> tuple[int, int, bool]:
        """Have the first LSP keep a webhook.

        Returns:
            ``num_webhooks``, ``max_webhooks`` and ``no_change`` of its answer.

        Raises:
            RefusedError: It does not, or was not asked.
        """
        ...

    async def webhooks(self) -> list[str]:
        """The names of the webhooks that the first LSP keeps."""
        ...

    async def remove_webhook(self, app_name: str) -> None:
        """Have the first LSP forget a webhook.

        Raises:
            RefusedError: It does not.
        """
        ...


async def invoice(wallet: Wallet, size: int | None = SIZE) -> Invoice:
    """Buy a channel; the invoice."""
    return read_invoice(await wallet.receive(size))


async def refusal(
    wallet: Wallet, size: int | None = SIZE, timeout: float = PATIENT_S
) -> RefusedError:
    """Fail to buy a channel; why."""
    with pytest.raises(RefusedError) as caught:
        await wallet.receive(size, timeout)
    return caught.value


async def buys(shop: Shop, wallet: Wallet) -> None:
    """Buy a channel: of the shop's first offer, with the scid that it sold last."""
    made = await invoice(wallet)
    assert shop.bought[-1].params["opening_fee_params"] == shop.menu[0]
    assert made.routes[0][0].scid == list(shop.sales)[-1]
