"""What a person pastes or scans, told apart: invoices, addresses, links. Needs no node."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from .amounts import Msat
from .errors import from_native
from .models import Model, Time

NetworkName = Literal["bitcoin", "testnet", "signet", "regtest"]


class Bolt11(Model):
    """A BOLT 11 invoice. Its texts are a stranger's: escape them before showing them."""

    kind: Literal["bolt11"] = "bolt11"
    bolt11: str
    """Itself, in lower case and without a scheme: what ``Node.pay`` takes."""
    network: NetworkName
    """Whose coins it is about."""
    payment_hash: str
    """Hex, 64 digits."""
    payee: str
    """Node id, hex, 66 digits."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """None: the payer chooses."""
    description: str | None = None
    """What it is for; None if only a hash of it is there."""
    description_hash: str | None = None
    """SHA-256 of a longer description, hex."""
    created_at: Time = Field(validation_alias="created_at_ms")
    """When its payee made it, by the payee's clock."""
    expires_at: Time = Field(validation_alias="expires_at_ms")
    """Until when it can be paid."""
    min_final_cltv_delta: int
    """Blocks that the payee wants until it must have claimed."""

    def is_expired(self, now: datetime | None = None) -> bool:
        """Whether it is too late to pay it.

        Args:
            now: With a time zone; None asks this machine.
        """
        return (now or datetime.now(timezone.utc)) >= self.expires_at


class OnchainAddress(Model):
    """A Bitcoin address."""

    kind: Literal["address"] = "address"
    address: str
    """As it is usually written."""
    networks: tuple[NetworkName, ...]
    """All it may be of: ``tb1…`` is of testnet and signet alike."""


class Bip21(Model):
    """A ``bitcoin:`` link: an address, an invoice, or both for one payment."""

    kind: Literal["bip21"] = "bip21"
    address: str | None = None
    """None: there is an invoice alone."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """None: the payer chooses, or the invoice says."""
    label: str | None = None
    """Whom it is for. A stranger's text."""
    message: str | None = None
    """What it is for. A stranger's text."""
    lightning: Bolt11 | None = None
    """The invoice for the same payment."""


class LnUrl(Model):
    """An LNURL: where to ask for what to do."""

    kind: Literal["lnurl"] = "lnurl"
    url: str
    """https, or http of an onion service."""
    domain: str
    """Whose it is: show it before asking there."""
    tag: Literal["pay", "withdraw", "channel", "auth"] | None = None
    """What it is for, if it says so; else its server does."""


class LightningAddress(Model):
    """A name at a domain (LUD-16), which has an LNURL for payments."""

    kind: Literal["lightning_address"] = "lightning_address"
    address: str
    """``name@domain``, in lower case."""
    url: str
    """Where to ask for an invoice."""
    domain: str
    """Whose server that is."""


Parsed = Annotated[
    Bolt11 | OnchainAddress | Bip21 | LnUrl | LightningAddress, Field(discriminator="kind")
]

_ANY: TypeAdapter[Bolt11 | OnchainAddress | Bip21 | LnUrl | LightningAddress] = TypeAdapter(Parsed)


def parse(text: str) -> Bolt11 | OnchainAddress | Bip21 | LnUrl | LightningAddress:
    """Read what a person pasted or scanned.

    Nothing is asked of any server, and whether an invoice is expired or paid is not looked at.

    Args:
        text: BOLT 11, a Bitcoin address, BIP 21, LNURL (LUD-01, LUD-17) or a Lightning address
            (LUD-16), with or without ``lightning:`` before it.

    Returns:
        One of five kinds; tell them apart by ``match`` or by ``kind``.

    Raises:
        ParseError: It is none of them; its ``why`` says more.
    """
    good, told = _native(text)
    if not good:
        raise from_native(told)
    return _ANY.validate_python(json.loads(told))


def _native(text: str) -> tuple[bool, str]:
    from ._ldkjit import parse

    return parse(text)
