"""Reports add up, and what is missing is said."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from soak.moments import POINTS, WANTED, Moments, missing
from soak.report import Finding, Report, total
from soak.total import lines


def _met(report: Report) -> list[bool]:
    return [met for met, _ in lines(report)]


def test_two_halves_meet_the_bar_together(tmp_path: Path) -> None:
    """Each alone does not; one finding more and the sum does not either."""
    names = [f"{role} {point}" for role, points in POINTS.items() for point in points]
    half = Report([1], seconds=1_800.0, jit_orders=1_000, payments=5_000, slowest_s=3.0)
    half.kills = Counter(lsp=150, wallet=100)
    half.kills_in_flight = 200
    half.points = Counter(dict.fromkeys(names, WANTED - 2))
    paths = [tmp_path / "1.json", tmp_path / "2.json"]
    for path in paths:
        path.write_text(half.json())
    assert Report.read(paths[0]) == half
    assert _met(half) == [False, False, True, False, False, False, True]
    both = total(paths)
    assert both.seeds == [1, 1]
    assert both.slowest_s == half.slowest_s
    assert all(_met(both))
    both.findings.append(Finding("stuck", "somewhere"))
    both.kills_in_flight -= 1
    assert _met(both) == [True, True, False, True, True, True, False]


def test_what_was_hit_least_comes_next() -> None:
    """Earlier runs count; what does not come lets others go before it."""
    wanted = {f"payer {point}": WANTED for point in POINTS["payer"]}
    wanted["payer sent:after"] = 1
    moments = Moments(Counter(wanted))
    rng = random.Random(1)  # noqa: S311
    first = [moments.choose("payer", rng) for _ in range(16)]
    assert set(first) == {"sent:after"}
    assert moments.patience("payer", "sent:after") > moments.patience("payer", "sent:before")
    assert set(POINTS["payer"]) == {moments.choose("payer", rng) for _ in range(200)}
    for _ in range(WANTED - 1):
        moments.hit("payer", "sent:after")
    hits = Counter(wanted) + moments.hits
    assert not any(name.startswith("payer") for name in missing(hits))
    assert len(missing(hits)) == sum(len(POINTS[role]) for role in ("lsp", "wallet"))
