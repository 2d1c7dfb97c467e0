"""What a run did and found, as JSON that can be added up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass
class Paid:
    """A payment that the soak ordered, and what came of it."""

    payment_hash: str
    payer: str
    payee: str
    amount_msat: int
    opening_fee_msat: int
    status: str
    routing_fee_msat: int = 0
    received_msat: int | None = None
    # Of a failed one: what its payee has all the same.
    borne_msat: int = 0


@dataclass
class Finding:
    """Something that must not be."""

    what: str
    detail: str


@dataclass
class Report:
    """One run, or the sum of several.

    Attributes:
        seeds: Of the runs.
        kills: By role; moments with a name are among them.
        kills_in_flight: While a payment, and so an order or an HTLC, was under way.
        points: Kills at moments with a name, by ``role moment``.
        store: Stores that failed or were slow, by how.
        world: What befell bitcoind and the chain, by kind.
        closes: Channels closed by agreement.
        closed_by_force: On chain by a commitment transaction, by why that is right.
        forgotten: Channels of orders whose funding was never published.
    """

    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    jit_orders: int = 0
    jit_paid: int = 0
    payments: int = 0
    payments_failed: int = 0
    closes: int = 0
    closed_by_force: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    kills_in_flight: int = 0
    points: Counter[str] = field(default_factory=Counter)
    store: Counter[str] = field(default_factory=Counter)
    world: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    power_cuts: int = 0
    writes_lost: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Add another run."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            total = max(mine, theirs) if each.name == "slowest_s" else mine + theirs
            setattr(self, each.name, total)

    def json(self) -> str:
        """As text."""
        return json.dumps(vars(self), default=vars, indent=1, sort_keys=True)

    @classmethod
    def read(cls, path: Path) -> Report:
        """From a file that ``json`` filled."""
        raw = json.loads(path.read_text())
        for each in fields(cls):
            if each.default_factory is Counter:
                raw[each.name] = Counter(raw[each.name])
        raw["findings"] = [Finding(**finding) for finding in raw["findings"]]
        return cls(**raw)


def total(paths: Iterable[Path]) -> Report:
    """The sum of these reports."""
    summed = Report()
    for path in paths:
        summed.add(Report.read(path))
    return summed
