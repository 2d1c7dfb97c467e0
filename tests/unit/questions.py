"""Questions as the node puts them."""

from __future__ import annotations

from typing import Any

from ldkjit import FeeTier, sat

TIER = FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)
CLIENT: dict[str, Any] = {
    "node_id": "02" + "ab" * 32,
    "token": None,
    "orders": 1,
    "paid_channels": 2,
    "unpaid_channels": 0,
    "left_unpaid": 0,
    "exposure_msat": 5_000,
}
STATE: dict[str, Any] = {
    "at_ms": 1_000,
    "height": 7,
    "fee_rate_sat_per_kw": 500,
    "open_cost_sat": 900,
    "coins_sat": 1_000_000,
    "promised_sat": 0,
    "inbound_msat": 1,
    "orders": 1,
    "exposure_msat": 5_000,
}
MENU: dict[str, Any] = {"client": CLIENT, "menu": [TIER.model_dump(mode="json")], "state": STATE}
ORDER: dict[str, Any] = {
    "client": CLIENT,
    "size_msat": 100_000,
    "fee_msat": None,
    "min_fee_msat": 2_000,
    "proportional_ppm": 4_000,
    "min_payment_msat": 1_000,
    "max_payment_msat": 1_000_000,
    "min_lifetime_blocks": 144,
    "valid_until_ms": 2_000,
    "trust": "lsp_trusts_client",
    "reserved_sat": 20_000,
    "state": STATE,
}
CHANNEL: dict[str, Any] = {
    "client": CLIENT,
    "scid": "1x2x3",
    "size_msat": None,
    "held_msat": 100_000,
    "needed_sat": 20_000,
    "failures": 0,
    "trust": "client_trusts_lsp",
    "state": STATE,
}
