"""What cannot be asked of a history, and a report as CSV, table and picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ldkjit import (
    ConfigError,
    Cost,
    Fee,
    History,
    LedgerEntry,
    PastChannel,
    PastPayment,
    Report,
    ReportLine,
    Rows,
    SoldOrder,
    SoldTier,
)
from ldkjit.cli.books import as_csv, in_sat, show

NOON = datetime(2026, 10, 1, 12, tzinfo=timezone.utc)
ASKING: list[Callable[..., Any]] = [
    History("x").ledger,
    History("x").orders,
    History("x").channels,
    History("x").payments,
    History("x").fees,
    History("x").costs,
]
FIGURES = {
    "sold": 3,
    "paid": 2,
    "opening_fees_msat": 4_000_001,
    "routing_fees_msat": 10,
    "opening_paid_msat": 0,
    "routing_paid_msat": 0,
    "chain_fees_sat": 300,
    "closing_cost_msat": 11,
    "net_msat": 3_700_000,
    "capital_sat_days": 12_345_678,
}
NAMES: dict[str, dict[str, Any]] = {
    "day": {"day": "2026-10-01", "client": None, "tier": None},
    "client": {"day": None, "client": "02" + "ab" * 32, "tier": None},
    "tier": {
        "day": None,
        "client": None,
        "tier": {
            "min_fee": 2_000_000,
            "proportional_ppm": 4_000,
            "min_payment": 1_000,
            "max_payment": 5_000_000_000,
            "min_lifetime": 4_320,
        },
    },
}


def report(by: str) -> Report:
    nothing = {"day": None, "client": None, "tier": None}
    return Report.model_validate(
        {
            "ok": True,
            "rows": 7,
            "bad": None,
            "by": by,
            "since_ms": 0,
            "until_ms": 1_000,
            "client": None,
            "lines": [{**FIGURES, **NAMES[by]}],
            "total": {**FIGURES, **nothing},
        }
    )


@pytest.mark.parametrize("ask", ASKING)
def test_times_that_cannot_be_asked_for(ask: Callable[..., Any]) -> None:
    assert isinstance(ask(since=NOON, until=NOON + timedelta(hours=1)), Rows)
    for times in (
        {"since": NOON, "until": NOON},
        {"since": NOON.replace(tzinfo=None)},
        {"until": datetime(1969, 12, 31, tzinfo=timezone.utc)},
        {"since": 7},
    ):
        with pytest.raises(ConfigError, match=r"since|until"):
            ask(**times)


def test_other_things_that_cannot_be_asked_for() -> None:
    history = History("x")
    for client in ("", "02ab", "zz" * 33, 7):
        with pytest.raises(ConfigError, match="client"):
            history.fees(client=client)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="state: accepts open, owed, paid, ended"):
        history.orders("lost")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="kind: accepts opening, routing"):
        history.fees("forwarding")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by: accepts day, client, tier"):
        history.report("hour")  # type: ignore[arg-type]


def test_rows_are_tuples_that_tables_are_made_of() -> None:
    for row in (LedgerEntry, SoldOrder, PastChannel, PastPayment, Fee, Cost):
        assert row._fields[:2] == ("seq", "at")


@pytest.mark.parametrize("by", ["day", "client", "tier"])
def test_csv_has_every_figure(by: str) -> None:
    told = report(by)
    (row,) = csv.DictReader(io.StringIO(as_csv(told)))
    assert {name: int(row[name]) for name in FIGURES} == FIGURES
    if by == "tier":
        assert (row["min_fee_msat"], row["min_lifetime"]) == ("2000000", "4320")
    else:
        assert row[by] == NAMES[by][by]


def test_the_table_is_whole_where_the_terminal_is_narrow() -> None:
    console = Console(file=io.StringIO(), width=40)
    show(report("tier"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("2,000 sat, 4,000 ppm, to 5,000,000 sat", "4,000.001", "0.011", "12,345,678"):
        assert shown in text
    assert "paid for" not in text


def test_millisatoshi_are_shown_exactly() -> None:
    assert [in_sat(n) for n in (0, 1, 1_000, -1, -1_500, 12_345_678)] == [
        "0",
        "0.001",
        "1",
        "-0.001",
        "-1.500",
        "12,345.678",
    ]


@pytest.mark.parametrize("by", ["day", "client", "tier"])
def test_a_picture_is_drawn(by: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from ldkjit.cli.picture import draw

    file = tmp_path / "report.png"
    draw(report(by), file)
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="nowhere"):
        draw(report(by), tmp_path / "nowhere" / "report.png")


def test_a_line_is_typed() -> None:
    (line,) = report("tier").lines
    assert isinstance(line, ReportLine)
    assert isinstance(line.tier, SoldTier)
