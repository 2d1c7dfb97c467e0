"""The table of goals says what was reached, and what was not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compare.figures import Cases
from compare.goals import GOALS, floors_of, short, table
from compare.settings import FULL, Case

JIT = Case("jit_one_at_a_time", count=30)
OPENS = Case("jit_at_once", clients=16, count=96)
HOOKS = Case("hooks", count=60)
KILL = Case("kill", clients=8, in_flight=3, count=1)
FLOORS = {JIT: {"p50_ms": 6.0}, OPENS: {"lsp_us": 5_000.0}}


def measured(ms: float = 10.0, **more: Any) -> dict[str, Any]:
    return {
        "round": 1,
        "counts_fsyncs": False,
        "latencies_ms": [ms, ms],
        "failures": {},
        "wall_s": 1.0,
        "cpu_s": 0.01,
        "more": {},
        **more,
    }


def rows(cases: Cases) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table(cases, FLOORS)[2:]]


def test_a_time_is_held_against_ldk_node_and_the_floor() -> None:
    ours = [measured(ms) for ms in (9.0, 10.0, 30.0)]
    slow = measured(500.0, counts_fsyncs=True)
    (row,) = rows({JIT: {"ldkjit": [*ours, slow], "ldk-node": [measured(200.0)]}})
    assert row[1:] == [
        "200",
        "10.0 (9.0–30.0)",
        "20.0 ×; 1.7 × the floor",
        "20 ×; at most 2 × the floor",
        "yes",
    ]
    (row,) = rows({JIT: {"ldkjit": ours, "ldk-node": [measured(199.0)]}})
    assert row[-1] == "**no**"
    (row,) = rows({JIT: {"ldkjit": [measured(12.1)], "ldk-node": [measured(500.0)]}})
    assert row[-1] == "**no**"


def test_a_rate_is_held_against_the_lsps_own_work() -> None:
    theirs = measured(latencies_ms=[1.0], wall_s=10.0, failures={"timeout": 2})
    (row,) = rows({OPENS: {"ldkjit": [measured(cpu_s=0.016)], "ldk-node": [theirs]}})
    assert row[1:] == [
        "0.1; 2 failed",
        "2.0",
        "20.0 ×; 62% of the floor",
        "10 ×; 60% of the floor",
        "yes",
    ]
    for worse in ({"cpu_s": 0.017}, {"wall_s": 2.1}, {"failures": {"timeout": 1}}):
        (row,) = rows({OPENS: {"ldkjit": [measured(**worse)], "ldk-node": [measured(wall_s=10)]}})
        assert row[-1] == "**no**", worse


@pytest.mark.parametrize(("added", "met"), [(10.4, "yes"), (10.6, "**no**")])
def test_a_hook_is_held_against_the_rules_of_its_round(added: float, met: str) -> None:
    kinds = {
        "ldkjit": [measured()],
        "ldkjit-def": [measured(added)],
        "ldkjit-async": [measured(9.0)],
    }
    (row,) = rows({HOOKS: kinds})
    assert row[-1] == met
    assert row[3].endswith("; -10.0 %")
    traced = measured(100.0, counts_fsyncs=True, round=2)
    assert rows({HOOKS: {kind: [*some, traced] for kind, some in kinds.items()}}) == [row]
    kinds["ldkjit-async"] = [measured(9.0, failures={"timeout": 1})]
    assert rows({HOOKS: kinds})[0][-1] == "**no**"


@pytest.mark.parametrize(("closed", "met"), [(0, "yes"), (1, "**no**")])
def test_one_channel_closed_by_force_is_one_too_many(closed: int, met: str) -> None:
    def killed(force_closed: int) -> dict[str, Any]:
        return measured(more={"force_closed": force_closed, "channels": 9})

    rounds = {"ldkjit": [killed(0), killed(closed)], "ldk-node": [killed(8)]}
    (row,) = rows({KILL: rounds})
    assert row[1:3] == ["8 of 9", f"{closed} of 18"]
    assert row[-1] == met


def test_the_floor_is_that_of_its_case() -> None:
    def run(case: Case, *times: float) -> dict[str, Any]:
        told = {"case": dataclasses.asdict(case)}
        return {"floors": [{**told, "p50_ms": ms, "lsp_us": ms / 2} for ms in times]}

    runs = [run(JIT, 6.0, 2.0, 4.0), run(OPENS, 9.0), {}]
    assert floors_of(runs) == {
        JIT: {"p50_ms": 4.0, "lsp_us": 2.0},
        OPENS: {"p50_ms": 9.0, "lsp_us": 4.5},
    }


def test_what_was_not_compared_is_not_met() -> None:
    def last(cases: Cases, floors: Any) -> list[str]:
        (line,) = table(cases, floors)[2:]
        return line.strip("| ").split(" | ")[-3:]

    asked = "10 ×; 60% of the floor"
    good, theirs = measured(cpu_s=0.01), measured(wall_s=100)
    alone: Cases = {OPENS: {"ldkjit": [good]}}
    assert last(alone, {}) == ["not compared; no floor", asked, "**no**"]
    assert last(alone, FLOORS) == ["not compared; 100% of the floor", asked, "**no**"]
    both: Cases = {OPENS: {"ldkjit": [good], "ldk-node": [theirs]}}
    assert last(both, {}) == ["100.0 ×; no floor", asked, "**no**"]
    assert last(both, FLOORS)[-1] == "yes"
    # None arrived: of theirs, or of ours.
    none = measured(latencies_ms=[], failures={"timeout": 2})
    assert last({OPENS: {"ldkjit": [good], "ldk-node": [none]}}, FLOORS)[-1] == "**no**"
    lost = last({JIT: {"ldkjit": [none], "ldk-node": [good]}}, FLOORS)
    assert lost[0] == "not compared; no floor; 2 failed"
    assert lost[-1] == "**no**"


def test_the_short_table_has_figures_and_no_goals() -> None:
    cases: Cases = {JIT: {"ldkjit": [measured(10.0)], "ldk-node": [measured(200.0)]}}
    assert short(cases, FLOORS)[2:] == [
        "| JIT payment, one at a time, p50, ms | 200 | 10.0 | 20.0 × |"
    ]


def test_every_goal_is_of_a_case_that_is_measured() -> None:
    cases = {dataclasses.astuple(each) for each in FULL}
    assert {dataclasses.astuple(goal.case) for goal in GOALS} <= cases
    assert {HOOKS, KILL} <= set(FULL)
