"""What both LSPs are told, and which sizes a run has."""

from __future__ import annotations

import dataclasses
from typing import Any

# The payment that opens a channel, and one that is forwarded over it, satoshi.
JIT_SAT = 50_000
FORWARD_SAT = 700
PAYER_CHANNEL_SAT = 16_000_000  # ldk-node takes none above 16,777,215
# Half of what LDK lets a peer have under way in one channel: a slow LSP takes its time to clear
# those that are settled.
HTLCS_PER_CHANNEL = 25
# A payment that has no end by then is counted as pending; routes are tried again for less long.
PATIENCE_S = 60.0
RETRY_S = 10.0

# What the part about hooks compares: rules alone, and a hook in Python for each question.
HOOKED = ("ldkjit", "ldkjit-def", "ldkjit-async")

# By part, in the order of the page: the files that plots.py draws.
PLOTS = {
    "jit_at_once": ("opens-by-clients", "opens-latency-by-rate"),
    "forwards": ("forwards-by-load", "forwards-latency-by-rate", "forwards-by-idle"),
    "start": ("start-by-channels", "memory-by-channels"),
}

# One price list, in the words of each.
MIN_FEE_MSAT = 1_000_000
FEE_PPM = 10_000
MIN_LIFETIME_BLOCKS = 1_008
MAX_TO_SELF_DELAY = 2_016
MIN_PAYMENT_MSAT = 1_000
MAX_PAYMENT_MSAT = 5_000_000_000


def our_service(extra_ppm: int) -> dict[str, Any]:
    """The ``lsp`` setting of ldkjit: its defaults, but for limits that a single machine would meet.

    Args:
        extra_ppm: Room in a channel beyond its first payment.
    """
    tier = {
        "min_fee_msat": MIN_FEE_MSAT,
        "proportional_ppm": FEE_PPM,
        "min_payment_msat": MIN_PAYMENT_MSAT,
        "max_payment_msat": MAX_PAYMENT_MSAT,
        "min_lifetime_blocks": MIN_LIFETIME_BLOCKS,
        "max_client_to_self_delay": MAX_TO_SELF_DELAY,
        "valid_for_s": 3_600,
    }
    limits = {
        "extra_capacity_ppm": extra_ppm,
        "extra_capacity_sat": 0,
        "max_orders": 1_000_000,
        "max_orders_per_client": 100_000,
        "max_exposure_msat": 10**15,
        "max_exposure_per_client_msat": 10**15,
        "max_unconfirmed_msat": 10**15,
        "max_unconfirmed_per_client_msat": 10**15,
    }
    # Every client is a stranger here, and each order must find coins, as ldk-node does not look.
    lending = {"overcommit_ppm": 100_000_000, "strangers_ppm": 1_000_000}
    return {"menu": [tier], "trust": "lsp_trusts_client", "limits": limits, "lending": lending}


# All clients dial from one address.
OUR_DOOR = {
    "max_strangers": 10_000,
    "max_strangers_per_address": 10_000,
    "max_connects_per_second": 10_000,
    "max_handshakes": 10_000,
}


def their_service(extra_ppm: int) -> dict[str, Any]:
    """The same of ldk-node, as ``LdkService`` has it."""
    return {
        "channel_opening_fee_ppm": FEE_PPM,
        "channel_over_provisioning_ppm": extra_ppm,
        "min_channel_opening_fee_msat": MIN_FEE_MSAT,
        "min_channel_lifetime": MIN_LIFETIME_BLOCKS,
        "max_client_to_self_delay": MAX_TO_SELF_DELAY,
        "min_payment_size_msat": MIN_PAYMENT_MSAT,
        "max_payment_size_msat": MAX_PAYMENT_MSAT,
        "client_trusts_lsp": False,
    }


@dataclasses.dataclass(frozen=True)
class Case:
    """One load of one size.

    Attributes:
        part: The load, by the name that ``loads.LOADS`` has for it.
        clients: How many there are, or pay at once.
        in_flight: Payments each client waits for at any time.
        count: Payments (or requests, starts, kills) of one round, in all.
        idle: Channels of the LSP with peers that are away.
    """

    part: str
    clients: int = 1
    in_flight: int = 1
    count: int = 1
    idle: int = 0

    @property
    def name(self) -> str:
        """Unique in a run."""
        fields = dataclasses.asdict(self)
        return ",".join(f"{key}={value}" for key, value in fields.items())

    @property
    def extra_ppm(self) -> int:
        """Room in each channel for what is forwarded after its first payment, and half as much."""
        forwards = self.count // self.clients + self.in_flight + 1
        return 1_000_000 + 1_500_000 * forwards * FORWARD_SAT // JIT_SAT


def _forwards(
    counts: dict[int, int], flights: tuple[int, ...], idles: tuple[int, ...]
) -> list[Case]:
    return [
        Case("forwards", clients, in_flight, count, idle)
        for idle in idles
        for clients, count in counts.items()
        for in_flight in flights
    ]


FULL = [
    Case("jit_one_at_a_time", count=30),
    Case("hooks", count=60),
    Case("jit_at_once", clients=8, count=64),
    Case("jit_at_once", clients=16, count=96),
    Case("jit_at_once", clients=32, count=128),
    # LDK, and so ldk-node, lets in 250 peers without a channel.
    Case("jit_at_once", clients=128, count=240),
    Case("forwards", clients=1, count=60),
    *_forwards({16: 480, 64: 960}, (1, 3, 8), (0,)),
    *_forwards({16: 480}, (1, 3, 8), (500, 1_000)),
    # ldk-node keeps ten orders that are not paid of each client.
    Case("buy", clients=1, count=10),
    Case("buy", clients=16, count=160),
    Case("start", count=3, idle=100),
    Case("start", count=3, idle=1_000),
    Case("start", count=3, idle=10_000),
    Case("mixed", clients=32, in_flight=1, count=600),
    Case("kill", clients=8, in_flight=3, count=1),
]

# Each part once, so small that the whole takes minutes.
SMOKE = [
    Case("jit_one_at_a_time", count=3),
    Case("hooks", count=3),
    Case("jit_at_once", clients=4, count=8),
    Case("forwards", clients=1, count=5),
    *_forwards({4: 24}, (1, 3), (0,)),
    *_forwards({4: 24}, (3,), (8,)),
    Case("buy", clients=2, count=8),
    Case("start", count=1, idle=8),
    Case("start", count=1, idle=16),
    Case("mixed", clients=4, in_flight=1, count=50),
    Case("kill", clients=4, in_flight=3, count=1),
]
