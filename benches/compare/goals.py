"""What the project set out to reach, beside what was measured."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from .figures import Cases, Figure, added_percent, cell, failures, latency, per, ratio, values
from .settings import HOOKED, Case

METHOD = """\
The floor is LDK alone: payer, LSP and clients in one process with TCP on loopback between them, and
no storage, wallet, chain or route finding (`benches/rust/floor`), measured before each round. A
time is held against the floor's; a rate by payments for each CPU second of the LSP, since payer,
clients and bitcoind share the machine with it. JIT opens have a floor with 16 clients at once.
"""


class Goal(NamedTuple):
    """One row.

    Attributes:
        name: What is measured.
        case: Where.
        figure: Of each round.
        unit: Of the figure.
        more: Whether more is better.
        times: How often better than ldk-node it is to be, if that is a goal.
        floor: The part of the floor that it is held against, if any.
        share: How much of the floor's rate it is to reach (or, where less is better, how many
            times the floor's time it may take).
    """

    name: str
    case: Case
    figure: Figure
    unit: str
    more: bool
    times: float | None = None
    floor: str | None = None
    share: float = 0.0


P50 = latency(0.5)
RATE = per("wall_s")


def _forwards(in_flight: int, idle: int = 0) -> Case:
    return Case("forwards", 16, in_flight, 480, idle)


GOALS = (
    Goal(
        "JIT payment, one at a time, p50",
        *(Case("jit_one_at_a_time", count=30), P50, "ms", False, 20.0, "jit", 2.0),
    ),
    *(
        Goal(
            f"JIT opens, {clients} clients at once",
            *(Case("jit_at_once", clients=clients, count=count), RATE, "/s", True, 10.0),
            *("jit_at_once", 0.6),
        )
        for clients, count in ((16, 96), (32, 128))
    ),
    Goal(
        "forward, one in flight, p50",
        *(Case("forwards", clients=1, count=60), P50, "ms", False, 12.0),
    ),
    Goal("forwards, 16 × 3 in flight", _forwards(3), RATE, "/s", True, 3.5, "forwards_3", 0.7),
    Goal("forwards, 16 × 8 in flight", _forwards(8), RATE, "/s", True, None, "forwards_8", 0.75),
    Goal(
        "forwards, 16 × 3, 500 idle channels",
        *(_forwards(3, 500), RATE, "/s", True, None, "forwards_3_idle_500", 0.6),
    ),
    Goal("forwards, 16 × 3, 1,000 idle channels", _forwards(3, 1_000), RATE, "/s", True),
    Goal(
        "`get_info` and `buy`, 16 clients",
        *(Case("buy", clients=16, count=160), RATE, "/s", True, 20.0),
    ),
)
# What of them is held against LDK's own work.
FLOORS = {goal.case: goal.floor for goal in GOALS if goal.floor is not None}
# Native rules and a hook in Python on every sale: the share that the latter may add to p50.
HOOK_ADDS_PERCENT = 5.0


def _form(found: list[float]) -> str:
    return "{:,.0f}" if statistics.median(found) >= 100 else "{:,.1f}"


def told(found: list[float]) -> str:
    """Median, least and most, in digits enough."""
    return cell(found, _form(found)) if found else "–"


def failed(cases: list[dict[str, Any]]) -> int:
    """How many payments failed in all rounds."""
    return int(sum(map(failures, cases)))


def floors_of(runs: list[dict[str, Any]]) -> dict[Case, dict[str, float]]:
    """What LDK alone took when a case was measured."""
    found: dict[Case, dict[str, float]] = {}
    all_of = [each for told in runs for each in told.get("floors", [])]
    for case in {Case(**each["case"]) for each in all_of}:
        floors = [each for each in all_of if Case(**each["case"]) == case]
        found[case] = {
            key: statistics.median(each[key] for each in floors) for key in ("p50_ms", "lsp_us")
        }
    return found


def row(goal: Goal, cases: Cases, floors: dict[Case, dict[str, float]]) -> list[str] | None:
    """A goal's cells, if it was measured."""
    by_lsp = cases.get(goal.case, {})
    rounds, opponents = by_lsp.get("ldkjit", []), by_lsp.get("ldk-node", [])
    if not rounds:
        return None
    ours, theirs = values(rounds, goal.figure), values(opponents, goal.figure)
    least = floors.get(goal.case)
    asked, got, met = [], [], [bool(ours)]
    if goal.times is not None:
        asked.append(f"{goal.times:g} ×")
    times = ratio(ours, theirs, more_is_better=goal.more)
    if times is not None:
        got.append(f"{times:.1f} ×")
        met.append(goal.times is None or times >= goal.times)
    elif goal.times is not None:
        got.append("not compared")
        met.append(False)
    if goal.floor is not None and goal.more:
        asked.append(f"{goal.share:.0%} of the floor")
    elif goal.floor is not None:
        asked.append(f"at most {goal.share:g} × the floor")
    if goal.floor is not None and (least is None or not ours):
        got.append("no floor")
        met.append(False)
    elif goal.more and least is not None:
        share = statistics.median(values(rounds, per("cpu_s"))) * least["lsp_us"] / 1e6
        got.append(f"{share:.0%} of the floor")
        met.append(share >= goal.share)
    elif least is not None:
        share = statistics.median(ours) / least["p50_ms"]
        got.append(f"{share:.1f} × the floor")
        met.append(share <= goal.share)
    if lost := failed(rounds):
        got.append(f"{lost} failed")
        met.append(False)
    lost = failed(opponents)
    return [
        f"{goal.name}, {goal.unit}",
        told(theirs) + (f"; {lost} failed" if lost else ""),
        told(ours),
        "; ".join(got),
        "; ".join(asked) or "published",
        "yes" if all(met) else "**no**",
    ]


def hooks_row(cases: Cases) -> list[str] | None:
    """What a hook in Python adds to a sale: of each round's own neighbours."""
    by_lsp = cases.get(Case("hooks", count=60), {})
    alone, *hooked = (by_lsp.get(kind, []) for kind in HOOKED)
    if not alone:
        return None
    added, got = [], []
    met = [not any(map(failed, (alone, *hooked)))]
    for kind, rounds in zip(("def", "async def"), hooked, strict=True):
        shares = added_percent(alone, rounds, P50)
        got.append(f"`{kind}` {told(values(rounds, P50))}")
        added.append(f"{cell(shares, '{:+.1f}')} %")
        met.append(bool(shares) and statistics.median(shares) <= HOOK_ADDS_PERCENT)
    return [
        "JIT payment, a hook in Python for each question, p50, ms",
        "–",
        f"rules {told(values(alone, P50))}; {'; '.join(got)}",
        "; ".join(added),
        f"{HOOK_ADDS_PERCENT:g} % added at most",
        "yes" if all(met) else "**no**",
    ]


def kill_row(cases: Cases) -> list[str] | None:
    """What a kill under load costs."""
    by_lsp = cases.get(Case("kill", clients=8, in_flight=3, count=1), {})
    if not by_lsp.get("ldkjit"):
        return None

    def closed(kind: str) -> str:
        rounds = by_lsp.get(kind, [])
        lost = sum(each["more"]["force_closed"] for each in rounds)
        return f"{lost} of {sum(each['more']['channels'] for each in rounds)}"

    lost = sum(each["more"]["force_closed"] for each in by_lsp["ldkjit"])
    name = "channels force-closed by `kill -9` under load"
    return [name, closed("ldk-node"), closed("ldkjit"), "–", "0", "**no**" if lost else "yes"]


def _rows(cases: Cases, floors: dict[Case, dict[str, float]]) -> list[list[str]]:
    rows = [row(goal, cases, floors) for goal in GOALS] + [hooks_row(cases), kill_row(cases)]
    return [cells for cells in rows if cells]


def short(cases: Cases, floors: dict[Case, dict[str, float]]) -> list[str]:
    """What was measured, without the goals."""
    rows = [(*cells[:3], cells[3].partition(";")[0]) for cells in _rows(cases, floors)]
    return [
        "| | ldk-node 0.7.1 | ldkjit | ratio |",
        "|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]


def table(cases: Cases, floors: dict[Case, dict[str, float]]) -> list[str]:
    """Every goal that was measured."""
    return [
        "| | ldk-node 0.7.1 | ldkjit | ratio | goal | met |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in _rows(cases, floors)),
    ]
