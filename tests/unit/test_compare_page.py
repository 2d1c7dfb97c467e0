"""The page of the benchmarks says what was measured: medians, spread, ratios the right way up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compare.page import TITLES, by_case, render
from compare.settings import FULL, SMOKE, Case

JIT = Case("jit_one_at_a_time", count=2)
FORWARDS = Case("forwards", clients=4, in_flight=3, count=24)


def measured(case: Case, lsp: str, **more: Any) -> dict[str, Any]:
    return {
        "case": dataclasses.asdict(case),
        "lsp": lsp,
        "round": 1,
        "counts_fsyncs": False,
        "latencies_ms": [10.0, 10.0],
        "failures": {},
        "wall_s": 1.0,
        "cpu_s": 0.5,
        "wrote": 0,
        "rss_kb": 10_240,
        "fsyncs": None,
        "more": {},
        "idle": case.idle,
        **more,
    }


def page(*rounds: dict[str, Any]) -> str:
    told = {
        "at": "2026-11-26T00:00:00+00:00",
        "commit": "c0ffee",
        "size": "smoke",
        "lsps": ["ldkjit", "ldk-node"],
        "machine": {
            "cpu": "a CPU",
            "cpus": 2,
            "memory_mb": 2_048,
            "kernel": "6.0",
            "architecture": "x86_64",
            "load_before": 0.1,
        },
        "versions": {"ldkjit": "0.1.0"},
        "settings": {},
        "rounds": list(rounds),
    }
    return render([told], "plots")


def test_medians_spread_and_ratio_of_a_latency() -> None:
    ours = [measured(JIT, "ldkjit", latencies_ms=[ms, ms]) for ms in (10.0, 12.0, 20.0)]
    theirs = [measured(JIT, "ldk-node", latencies_ms=[ms, ms]) for ms in (240.0,)]
    told = page(*ours, *theirs)
    assert "|  | p50, ms | 12.0 (10.0–20.0) | 240.0 | 20.0 × |" in told


def test_ratio_of_a_rate_is_the_other_way_up() -> None:
    ours = measured(FORWARDS, "ldkjit", wall_s=0.01, cpu_s=0.02)
    theirs = measured(FORWARDS, "ldk-node", wall_s=0.1, cpu_s=0.08)
    told = page(ours, theirs)
    assert "| 4 clients, 3 in flight each | per second | 200.0 | 20.0 | 10.0 × |" in told
    assert "|  | per CPU second | 100.0 | 25.0 | 4.0 × |" in told


def test_a_round_that_counts_fsyncs_is_not_timed() -> None:
    slow = {"round": 2, "counts_fsyncs": True, "latencies_ms": [999.0, 999.0]}
    told = page(
        measured(JIT, "ldkjit"),
        measured(JIT, "ldkjit", fsyncs=4, **slow),
        measured(JIT, "ldk-node"),
        measured(JIT, "ldk-node", fsyncs=40, **slow),
    )
    assert "999" not in told
    assert "| | fsyncs each | 2.0 | 20.0 | 10.0 × |" in told
    assert "1 rounds at most" in told


def test_failures_are_counted_and_never_a_ratio() -> None:
    theirs = measured(FORWARDS, "ldk-node", failures={"pending": 2, "retries": 1}, latencies_ms=[])
    told = page(measured(FORWARDS, "ldkjit"), theirs)
    assert "|  | failed | 0 | 3 |  |" in told
    assert "|  | p50, ms | 10.0 | – |  |" in told


def test_what_hooks_add_is_of_rounds_of_one_number() -> None:
    hooks = Case("hooks", count=2)

    def some(lsp: str, *p50: float) -> list[dict[str, Any]]:
        return [
            measured(hooks, lsp, round=number, latencies_ms=[ms, ms])
            for number, ms in enumerate(p50, 1)
            if ms
        ]

    # The second round of `def` broke.
    told = page(
        *some("ldkjit", 10.0, 40.0, 20.0),
        *some("ldkjit-def", 10.5, 0, 21.0),
        *some("ldkjit-async", 9.0, 36.0, 18.0),
    )
    assert "| p50, ms | 20.0 (10.0–40.0) | 15.8 (10.5–21.0) | 18.0 (9.0–36.0) |" in told
    assert "| p50 beside rules, % | | +5.0 | -10.0 |" in told


def test_fewer_idle_channels_than_asked_for_are_stated() -> None:
    start = Case("start", idle=10_000)
    told = page(measured(start, "ldkjit"), measured(start, "ldk-node", idle=4_200))
    assert "10,000 idle channels, as far as twenty minutes carry it (ldk-node: 4,200)" in told


def test_a_round_that_broke_is_on_the_page() -> None:
    broken = {
        "case": dataclasses.asdict(JIT),
        "lsp": "ldk-node",
        "round": 1,
        "counts_fsyncs": False,
        "error": "TimeoutError: waited",
    }
    told = page(measured(JIT, "ldkjit"), broken)
    assert "Rounds that could not be measured" in told
    assert f"- {JIT.name}, ldk-node: TimeoutError: waited" in told
    assert list(by_case([{"rounds": [broken]}])) == []


@pytest.mark.parametrize("cases", [SMOKE, FULL], ids=["smoke", "full"])
def test_every_part_has_its_cases_and_none_twice(cases: list[Case]) -> None:
    assert {case.part for case in cases} == set(TITLES)
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize("case", FULL, ids=lambda case: case.name)
def test_a_channel_has_room_for_all_that_is_forwarded_over_it(case: Case) -> None:
    spare_sat = 50_000 * case.extra_ppm // 1_000_000
    # 1 % is the reserve.
    assert spare_sat * 99 // 100 > (case.count // case.clients) * 700
