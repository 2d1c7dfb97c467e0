"""The page and its plots, made of the JSON of one run or of several with different parts.

PYTHONPATH=tests:benches python -m compare.page results.json --out docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from . import goals
from .figures import (
    Cases,
    Round,
    added_percent,
    cell,
    failures,
    for_each,
    latency,
    per,
    ratio,
    values,
)
from .marks import fill
from .settings import HOOKED, JIT_SAT, PLOTS, Case

OURS = "ldkjit"
TITLES = {
    "jit_one_at_a_time": "JIT payment, one at a time",
    "hooks": "JIT payment, with hooks in Python",
    "jit_at_once": "JIT opens, many clients at once",
    "forwards": "Forwards",
    "buy": "`get_info` and `buy`",
    "start": "Start",
    "mixed": "A mixed day",
    "kill": "kill -9 under load",
}
METHOD = f"""\
Each LSP is a process of its own: ldkjit in Python, as its users have it; ldk-node as a small Rust
program around the crate. The payer and the clients are ldkjit nodes in one other process, the same
beside both, and keep their state in memory; bitcoind (regtest) is shared. Every round has a new
LSP, a new payer and new clients; the rounds of the two LSPs take turns. Both LSPs have one price
list, a durable store of their own, a log of errors only, and coins enough that no open waits for
change. A JIT payment is {JIT_SAT:,} sat in one part, and the LSP publishes the funding transaction
at once (it trusts the client).

CPU time and resident memory are those of the LSP's process alone (`/proc/PID/stat`,
`smaps_rollup`; ldkjit's with its Python); fsyncs are counted by strace in a round whose times are
not used. Ratios are of medians over the rounds, above 1 where ldkjit does better; in brackets are
the least and the largest round. The rate for each CPU second of the LSP's process decides where
payer, clients and bitcoind saturate the machine.

Of ldk-node's settings two bear on speed, its store and its log: `--lsps ldk-node,ldk-node-files`
compares the stores (SQLite, files), and the log is at its quietest. What bears on its rate more is
how many coins it has: it does not set aside what an open spends, and until it has seen the
transaction in the mempool it may spend the same coin for another channel (its log then has
bitcoind's "insufficient fee, rejecting replacement"). Such a channel's funding never exists; a
client of ours looks for it before it gives up the preimage, and refuses the payment after five
seconds: of 96 payments, 16 at a time, 26 failed with little more than a coin for each open, 8 with
four times as many, 4 with ten times. Both LSPs have ten for each here. Payments are measured until
the last that arrived, so that nobody's rate counts the time after which such a payment is given up.

What does not compare: ldk-node's LSP loses a two-part payment to a client that trusts it, so
neither that trust model nor payments in parts are measured.
"""


# Name, figure, whether more is better, how it is written.
P50 = ("p50, ms", latency(0.5), False, "{:.1f}")
P95 = ("p95, ms", latency(0.95), False, "{:.1f}")
RATE = ("per second", per("wall_s"), True, "{:.1f}")
BY_CPU = ("per CPU second", per("cpu_s"), True, "{:.1f}")
CPU_MS = ("CPU each, ms", for_each("cpu_s", 0.001), False, "{:.1f}")
WROTE = ("kB written each", for_each("wrote", 1_024), False, "{:.0f}")
MEMORY = ("memory, MB", lambda each: each["rss_kb"] / 1_024, False, "{:.0f}")
FAILED = ("failed", failures, None, "{:.0f}")
FIGURES = {
    "jit_one_at_a_time": (P50, P95, BY_CPU, WROTE, MEMORY, FAILED),
    "hooks": (P50, P95, BY_CPU, FAILED),
    "jit_at_once": (RATE, BY_CPU, P50, P95, MEMORY, FAILED),
    "forwards": (RATE, BY_CPU, P50, P95, WROTE, MEMORY, FAILED),
    "buy": (RATE, BY_CPU, P50, P95, FAILED),
    "start": (("start, ms", latency(0.5), False, "{:.0f}"), CPU_MS, MEMORY),
    "mixed": (RATE, BY_CPU, P50, P95, MEMORY, FAILED),
    "kill": (
        ("channels force-closed", lambda each: float(each["more"]["force_closed"]), None, "{:.0f}"),
        ("of", lambda each: float(each["more"]["channels"]), None, "{:.0f}"),
        (
            "payments without an end",
            lambda each: float(each["more"]["payments_without_end"]),
            None,
            "{:.0f}",
        ),
        ("restart, ms", lambda each: each["more"]["restart_s"] * 1_000, False, "{:.0f}"),
    ),
}


def rounds_of(runs: list[dict[str, Any]]) -> list[Round]:
    """The rounds of all runs."""
    return [each for told in runs for each in told["rounds"]]


def by_case(runs: list[dict[str, Any]]) -> Cases:
    """The rounds that were measured, by case and LSP."""
    cases: Cases = defaultdict(lambda: defaultdict(list))
    for each in rounds_of(runs):
        if "error" not in each:
            cases[Case(**each["case"])][each["lsp"]].append(each)
    return cases


def _ratio(ours: list[float], theirs: list[float], more_is_better: bool | None) -> str:
    if more_is_better is None or not ours or not theirs:
        return ""
    times = ratio(ours, theirs, more_is_better=more_is_better)
    return "–" if times is None else f"{times:.1f} ×"


def _size(case: Case, rounds: dict[str, list[Round]]) -> str:
    parts = []
    if case.part not in ("jit_one_at_a_time", "start"):
        parts.append(f"{case.clients} client{'s' * (case.clients > 1)}")
    if case.in_flight > 1 or case.part == "forwards":
        parts.append(f"{case.in_flight} in flight each")
    if case.idle:
        have = {each["idle"] for some in rounds.values() for each in some}
        parts.append(f"{case.idle:,} idle channels")
        if have != {case.idle}:
            short = {kind: some[0]["idle"] for kind, some in rounds.items() if some}
            less = [f"{kind}: {n:,}" for kind, n in short.items() if n < case.idle]
            parts.append(f"as far as twenty minutes carry it ({', '.join(less)})")
    return ", ".join(parts)


def opponent_of(runs: list[dict[str, Any]]) -> str:
    """Who was compared with."""
    return next((each for told in runs for each in told["lsps"] if each != OURS), "nobody")


def _table(cases: Cases, part: str, opponent: str) -> list[str]:
    lines = [f"| | | {OURS} | {opponent} | ratio |", "|---|---|---|---|---|"]
    for case, rounds in cases.items():
        if case.part != part:
            continue
        head = _size(case, rounds)
        for name, figure, more_is_better, form in FIGURES[part]:
            ours, theirs = (values(rounds[kind], figure) for kind in (OURS, opponent))
            cells = [head, name, cell(ours, form), cell(theirs, form)]
            lines.append(f"| {' | '.join(cells)} | {_ratio(ours, theirs, more_is_better)} |")
            head = ""
        counted = [
            [
                each["fsyncs"] / len(each["latencies_ms"])
                for each in rounds[kind]
                if each["fsyncs"] is not None and each["latencies_ms"]
            ]
            for kind in (OURS, opponent)
        ]
        if any(counted):
            cells = [cell(each, "{:.1f}") for each in counted]
            ratio = _ratio(counted[0], counted[1], more_is_better=False)
            lines.append(f"| | fsyncs each | {' | '.join(cells)} | {ratio} |")
    return lines


def _per_channel(cases: Cases, opponent: str) -> list[str]:
    """Memory for each idle channel: the slope between the smallest and the largest set."""
    lines = []
    for kind in (OURS, opponent):
        points = sorted(
            (some[0]["idle"], statistics.median(values(some, MEMORY[1])))
            for case, rounds in cases.items()
            if case.part == "start" and (some := rounds.get(kind))
        )
        if len(points) > 1:
            (few, low), (many, high) = points[0], points[-1]
            each = (high - low) * 1_024 / max(1, many - few)
            lines.append(f"- {kind}: {each:.1f} kB of memory for each idle channel.")
    return ["", *lines] if lines else []


def _hooks(cases: Cases) -> list[str]:
    """Rules alone, and hooks; what these add, of each round's own neighbours."""
    names = ("rules alone", "`def`", "`async def`")
    lines = [f"| | {' | '.join(names)} |", "|---|---|---|---|"]
    for case, rounds in cases.items():
        if case.part != "hooks":
            continue
        for name, figure, _, form in FIGURES["hooks"]:
            cells = [cell(values(rounds[kind], figure), form) for kind in HOOKED]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        rules, *others = (rounds[kind] for kind in HOOKED)
        added = [cell(added_percent(rules, some, P50[1]), "{:+.1f}") for some in others]
        lines.append(f"| p50 beside rules, % | | {' | '.join(added)} |")
    return lines


def _day(cases: Cases, opponent: str) -> list[str]:
    lines = ["", f"| of it | | {OURS} | {opponent} |", "|---|---|---|---|"]
    for case, rounds in cases.items():
        if case.part != "mixed":
            continue
        for name in ("open", "forward", "asleep"):
            inner = {
                kind: [
                    {**each["more"][name], "counts_fsyncs": each["counts_fsyncs"]} for each in some
                ]
                for kind, some in rounds.items()
            }
            for label, figure, _, form in (P50, P95, FAILED):
                cells = [cell(values(inner.get(k, []), figure), form) for k in (OURS, opponent)]
                lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
    return lines if len(lines) > 3 else []


def _run(told: dict[str, Any]) -> str:
    """What a run was made of and on, in a line."""
    machine, versions = told["machine"], told["versions"]
    parts = {Case(**each["case"]).part for each in told["rounds"]}
    timed = [each["round"] for each in told["rounds"] if not each["counts_fsyncs"]]
    return (
        f"- {told['at']}, commit {told['commit']}, sizes: {told['size']}, "
        f"{max(timed, default=0)} rounds at most of {', '.join(p for p in TITLES if p in parts)}. "
        f"{machine['cpus']} × {machine['cpu']}, {machine['memory_mb'] // 1_024} GB, "
        f"Linux {machine['kernel']} ({machine['architecture']}), load before: "
        f"{machine['load_before']:.2f}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def render(runs: list[dict[str, Any]], images: str) -> str:
    """The page; ``images`` is where its plots are."""
    cases, opponent = by_case(runs), opponent_of(runs)
    lines = [
        f"# Benchmarks: {OURS} beside {opponent}",
        "",
        "Made by `make bench-compare`; not written by hand.",
        "",
        *map(_run, runs),
        "",
        "## Method",
        "",
        METHOD,
    ]
    lines += ["## What was to be reached", "", goals.METHOD]
    lines += [*goals.table(cases, goals.floors_of(runs)), ""]
    for part, title in TITLES.items():
        if not any(case.part == part for case in cases):
            continue
        table = _hooks(cases) if part == "hooks" else _table(cases, part, opponent)
        lines += [f"## {title}", "", *table]
        if part == "start":
            lines += _per_channel(cases, opponent)
        if part == "mixed":
            lines += _day(cases, opponent)
        lines += [
            text for name in PLOTS.get(part, ()) for text in ("", f"![{name}]({images}/{name}.svg)")
        ]
        lines.append("")
    lines += [
        "## Settings",
        "",
        "Those that are not a default; room in a channel beyond its first payment is set by case:",
        "",
        "```json",
    ]
    lines += [json.dumps(runs[-1]["settings"], indent=1), "```", ""]
    broken = [each for each in rounds_of(runs) if "error" in each]
    if broken:
        lines += ["## Rounds that could not be measured", ""]
        lines += [f"- {Case(**e['case']).name}, {e['lsp']}: {e['error'][:200]}" for e in broken]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="each part in one of them only")
    parser.add_argument("--out", type=Path, required=True, help="the page; plots beside it")
    parser.add_argument("--readme", type=Path, help="has the short table between two marks")
    asked = parser.parse_args()
    runs = [json.loads(each.read_text()) for each in asked.results]
    folder = asked.out.parent / asked.out.stem
    folder.mkdir(parents=True, exist_ok=True)
    from . import plots  # a page can be rendered, and tested, without matplotlib

    plots.draw(by_case(runs), (OURS, opponent_of(runs)), folder)
    asked.out.write_text(render(runs, folder.name))
    if asked.readme:
        fill(asked.readme, goals.short(by_case(runs), goals.floors_of(runs)))
    print(asked.out)


if __name__ == "__main__":
    main()
