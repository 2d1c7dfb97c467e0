"""What the LSP is told that the suite starts for itself, as plain data that tests can rely on.

Tiers by the names of ``FeeTier``, amounts in msat. Each token opens a menu made for some tests.
"""

from __future__ import annotations

from typing import Any

from .curve import public_key

PAYERS = ["payer", "other payer"]
# What it can receive, from all payers; sizes between this and LARGEST are for sale and cannot be
# received.
INBOUND_SAT = 2_000_000
LARGEST = 5_000_000_000

# Of the one client that is not served.
DENIED_KEY = bytes([0xD1]) * 32
DENIED = public_key(DENIED_KEY).hex()

ORDERS_PER_CLIENT = 10
# Of the second LSP, which is trusted by its clients.
STRICT_ORDERS_PER_CLIENT = 1

Tier = dict[str, Any]


def tier(min_fee: int, ppm: int, low: int = 1, high: int = LARGEST, **more: Any) -> Tier:
    """A tier by its fee and its payments, msat."""
    return {
        "min_fee": min_fee,
        "proportional_ppm": ppm,
        "min_payment": low,
        "max_payment": high,
        **more,
    }


MENU = [
    tier(2_000_000, 4_000, 1_000, min_lifetime_blocks=2_016, valid_for_s=3_600),
    tier(3_000_000, 4_000, 1_000, min_lifetime_blocks=4_032, valid_for_s=86_400),
    tier(3_000_000, 6_000, 1_000, max_client_to_self_delay=144, valid_for_s=600),
]

# Written neither in order nor in the reverse.
MANY = [
    tier(1_000_000 + 1_000 * (n // 2), 1_000 + (n + 1) // 2)
    for n in (*range(1, 64, 2), *range(0, 64, 2))
]

TOKENS: dict[str, list[Tier]] = {
    "friend": [tier(100_000, 0, 1_000)],
    "nothing": [],
    "many": MANY,
    # Of every payment, even of one, a quarter, rounded up.
    "share": [tier(0, 250_000, 1_000)],
    "narrow": [tier(1_000, 0, 50_000_000, 100_000_000)],
    # The fee is the minimum, whatever the size.
    "flat": [tier(10_000_000, 0)],
    # Rounded up the fee eats every payment below 1,000,000 msat, rounded down none.
    "rounding": [tier(0, 999_999)],
    # The fee is the size, so that nothing is sold but the overflow shows.
    "overflow": [tier(0, 1_000_000, high=2**63 // 10)],
}
