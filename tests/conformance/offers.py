"""What a client makes of ``opening_fee_params``: the fee, a size that can be sold, forgeries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from .rpc import Offer

U64 = 2**64
# Each field that a promise commits to (J-13).
PROMISED = (
    "min_fee_msat",
    "proportional",
    "valid_until",
    "min_lifetime",
    "max_client_to_self_delay",
    "min_payment_size_msat",
    "max_payment_size_msat",
)
FIELDS = {*PROMISED, "promise"}


def opening_fee(offer: Offer, size: int) -> int | None:
    """The fee of a payment, msat; ``None`` where a step overflows 64 bits (J-19, J-20)."""
    product = size * offer["proportional"]
    if product >= U64 or product + 999_999 >= U64:
        return None
    return max(int(offer["min_fee_msat"]), (product + 999_999) // 1_000_000)


def sellable(offer: Offer) -> int:
    """A payment that carries its fee well, as small as the offer allows, msat."""
    low, high = int(offer["min_payment_size_msat"]), int(offer["max_payment_size_msat"])
    size = min(max(low, 10 * int(offer["min_fee_msat"])), high)
    fee = opening_fee(offer, size)
    assert fee is not None
    assert fee < size, f"nothing can be bought by {offer}"
    return size


def instant(text: str) -> datetime:
    """An instant, however exactly it is written: whether it may be is what T-14 is about."""
    whole, _, part = text.removesuffix("Z").partition(".")
    at = datetime.strptime(f"{whole}.{part[:6] or 0}", "%Y-%m-%dT%H:%M:%S.%f")
    return at.replace(tzinfo=timezone.utc)


def write(at: datetime) -> str:
    """An instant as offers write it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def later(offer: Offer, by: timedelta) -> Offer:
    """The offer, but valid longer, or shorter."""
    return {**offer, "valid_until": write(instant(offer["valid_until"]) + by)}


def forgeries(offer: Offer) -> Iterator[tuple[str, Offer]]:
    """The offer with each promised field changed by as little as possible, and the field's name."""
    for field in PROMISED:
        value = offer[field]
        if field == "valid_until":
            yield field, later(offer, timedelta(milliseconds=1))
        elif isinstance(value, str):
            yield field, {**offer, field: str(int(value) + 1)}
        else:
            yield field, {**offer, field: value + 1}
