"""What is told of a round: a number, or none; and of several."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from .settings import Case

Round = dict[str, Any]
# What was measured, by case and LSP.
Cases = dict[Case, dict[str, list[Round]]]
Figure = Callable[[Round], "float | None"]


def percentile(values: list[float], share: float) -> float:
    """The value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def latency(share: float) -> Figure:
    """The time, in ms, that so many payments did not exceed."""

    def figure(each: Round) -> float | None:
        times = each["latencies_ms"]
        return percentile(times, share) if times else None

    return figure


def per(what: str) -> Figure:
    """Payments for each second of ``wall_s`` or ``cpu_s``."""

    def figure(each: Round) -> float | None:
        return len(each["latencies_ms"]) / each[what] if each[what] else None

    return figure


def for_each(what: str, unit: float) -> Figure:
    """So much for each payment."""

    def figure(each: Round) -> float | None:
        return each[what] / unit / len(each["latencies_ms"]) if each["latencies_ms"] else None

    return figure


def failures(each: Round) -> float:
    """Payments that failed."""
    return float(sum(each["failures"].values()))


def values(rounds: Iterable[Round], figure: Figure) -> list[float]:
    """A figure of each round whose times count."""
    found = (figure(each) for each in rounds if not each["counts_fsyncs"])
    return [each for each in found if each is not None]


def ratio(ours: list[float], theirs: list[float], *, more_is_better: bool) -> float | None:
    """How many times better the median of ours is, if there are both and it is by something."""
    if not ours or not theirs:
        return None
    left, right = statistics.median(ours), statistics.median(theirs)
    if not more_is_better:
        left, right = right, left
    return left / right if right else None


def added_percent(alone: list[Round], more: list[Round], figure: Figure) -> list[float]:
    """What each timed round has more of a figure than its neighbour without that, percent."""
    timed = {each["round"]: figure(each) for each in alone if not each["counts_fsyncs"]}
    pairs = [(figure(each), timed.get(each["round"])) for each in more if not each["counts_fsyncs"]]
    return [(with_it / without - 1) * 100 for with_it, without in pairs if with_it and without]


def cell(found: list[float], form: str) -> str:
    """Median, least and most."""
    if not found:
        return "–"
    middle = form.format(statistics.median(found))
    low, high = form.format(min(found)), form.format(max(found))
    return middle if low == high else f"{middle} ({low}–{high})"
