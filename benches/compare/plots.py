"""Plots of a run: rate against clients, latency against load, each LSP a line."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .settings import PLOTS, Case

Round = dict[str, Any]
Cases = dict[Case, dict[str, list[Round]]]
# So that the same run gives the same files.
STYLE: dict[Any, Any] = {"svg.hashsalt": "ldkjit", "font.size": 9}


def _rate(each: Round) -> float:
    return len(each["latencies_ms"]) / each["wall_s"] if each["wall_s"] else 0.0


def _p50(each: Round) -> float:
    return statistics.median(each["latencies_ms"]) if each["latencies_ms"] else float("nan")


def _memory(each: Round) -> float:
    return float(each["rss_kb"]) / 1_024


def _points(
    cases: Cases,
    kind: str,
    wanted: Callable[[Case], bool],
    x: Callable[[Case, list[Round]], float],
    y: Callable[[Round], float],
) -> list[tuple[float, float, float, float]]:
    """(x, median, least, largest) of each case that is wanted."""
    points = []
    for case, rounds in cases.items():
        some = [each for each in rounds.get(kind, []) if not each["counts_fsyncs"]]
        if wanted(case) and some:
            found = [y(each) for each in some]
            points.append((x(case, some), statistics.median(found), min(found), max(found)))
    return sorted(points)


def _draw(
    path: Path,
    cases: Cases,
    kinds: tuple[str, str],
    wanted: Callable[[Case], bool],
    x: Callable[[Case, list[Round]], float],
    y: Callable[[Round], float],
    labels: tuple[str, str],
) -> None:
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for kind in kinds:
        points = _points(cases, kind, wanted, x, y)
        if points:
            xs, middles, lows, highs = zip(*points, strict=True)
            below = [middle - low for middle, low in zip(middles, lows, strict=True)]
            above = [high - middle for middle, high in zip(middles, highs, strict=True)]
            axes.errorbar(xs, middles, [below, above], marker="o", capsize=3, label=kind)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    figure.savefig(path, metadata={"Date": None})


def draw(cases: Cases, kinds: tuple[str, str], folder: Path) -> None:
    """Every plot whose part was measured."""

    def middle_rate(_: Case, rounds: list[Round]) -> float:
        return statistics.median(map(_rate, rounds))

    def load(case: Case, _: list[Round]) -> float:
        return case.clients * case.in_flight

    def idle(_: Case, rounds: list[Round]) -> float:
        return float(rounds[0]["idle"])

    def of(part: str) -> Callable[[Case], bool]:
        return lambda case: case.part == part

    def busy(case: Case) -> bool:
        return case.part == "forwards" and not case.idle

    most = max(
        (c.clients * c.in_flight for c in cases if c.part == "forwards" and c.idle), default=0
    )

    def beside_idle(case: Case) -> bool:
        return case.part == "forwards" and case.clients * case.in_flight == most

    rate, p50 = "per second", "p50, ms"
    plots = {
        "opens-by-clients": (of("jit_at_once"), load, _rate, ("clients at once", rate)),
        "opens-latency-by-rate": (of("jit_at_once"), middle_rate, _p50, (rate, p50)),
        "forwards-by-load": (busy, load, _rate, ("payments in flight", rate)),
        "forwards-latency-by-rate": (busy, middle_rate, _p50, (rate, p50)),
        "forwards-by-idle": (beside_idle, idle, _rate, ("idle channels", rate)),
        "start-by-channels": (of("start"), idle, _p50, ("channels", "start, ms")),
        "memory-by-channels": (of("start"), idle, _memory, ("channels", "memory, MB")),
    }
    parts = {case.part for case in cases}
    with mpl.rc_context(STYLE):
        for part, names in PLOTS.items():
            if part in parts:
                for name in names:
                    _draw(folder / f"{name}.svg", cases, kinds, *plots[name])
