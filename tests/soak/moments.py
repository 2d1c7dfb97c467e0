"""The moments with a name at which a node can be ended, and which of them come next."""

from __future__ import annotations

import random
from collections import Counter

# Each is hit this often, summed over reported runs.
WANTED = 5


def _around(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}:{side}" for name in names for side in ("before", "after"))


_EVERYWHERE = (
    "commit:before",
    "commit:inside",
    "commit:after",
    "commit:told",
    *_around("other_event", "channel_pending", "channel_ready", "channel_closed", "spendable"),
)
# As rust/node/src/crash.rs names them, by the role that passes them.
POINTS = {
    "lsp": (
        *_EVERYWHERE,
        "get_info:before",
        "buy:before",
        *_around("intercepted", "funding_needed", "forwarded"),
        *_around("lock", "open", "abandon", "unlock", "forward", "fail", "enable"),
        *_around("release", "close"),
        *_around("other_effect", "broadcast"),
    ),
    "wallet": (
        *_EVERYWHERE,
        *_around("open_request", "claimable", "claim", "claimed", "sent"),
    ),
    "payer": (
        "commit:before",
        "commit:inside",
        "commit:after",
        "commit:told",
        *_around("sent", "claimable", "claimed", "other_event"),
    ),
}


class Moments:
    """Counts which moments were hit, and chooses those hit least.

    Attributes:
        hits: In this run, by ``role moment``.
    """

    def __init__(self, earlier: Counter[str] | None = None) -> None:
        self.hits: Counter[str] = Counter()
        self._earlier = earlier or Counter()
        self._tries: Counter[str] = Counter()

    def choose(self, role: str, rng: random.Random) -> str:
        """One of the role's moments that were hit, then tried, least; in earlier runs too."""

        def rank(point: str) -> tuple[int, int]:
            name = f"{role} {point}"
            # Beyond what is wanted all are equal; one that does not come lets others go before it.
            hit = min(self._earlier[name] + self.hits[name], WANTED)
            return hit + self._tries[name] // 4, self._tries[name]

        least = min(rank(point) for point in POINTS[role])
        point = rng.choice([point for point in POINTS[role] if rank(point) == least])
        self._tries[f"{role} {point}"] += 1
        return point

    def patience(self, role: str, point: str) -> float:
        """How long to wait for it, seconds: longer each time that it did not come."""
        return min(3.0 * 2 ** self._tries[f"{role} {point}"], 30.0)

    def hit(self, role: str, point: str) -> None:
        """It was."""
        name = f"{role} {point}"
        self.hits[name] += 1
        self._tries[name] = 0


def missing(hits: Counter[str]) -> dict[str, int]:
    """The moments hit less than wanted, and how often they were."""
    names = (f"{role} {point}" for role, points in POINTS.items() for point in points)
    return {name: hits[name] for name in names if hits[name] < WANTED}
