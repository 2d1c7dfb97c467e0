"""What a history is asked and cannot be, its rows as a sequence, a report's CSV, table, picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
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
    StoreError,
)
from ldkjit.cli.books import as_csv, in_sat, show
from ldkjit.history import question
from ldkjit.storage import Change, MemoryStore, Row

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
    with pytest.raises(ConfigError, match="by: accepts day, client, tier"):
        question("hour", client=None, since=None, until=None)  # type: ignore[arg-type]


def test_rows_are_tuples_that_tables_are_made_of() -> None:
    for row in (LedgerEntry, SoldOrder, PastChannel, PastPayment, Fee, Cost):
        assert row._fields[:2] == ("seq", "at")


class Pages:
    """A page of two fees and one of one, and how often they were read."""

    def __init__(self) -> None:
        self.begun = 0

    def __call__(self) -> Iterator[list[list[Any]]]:
        self.begun += 1
        yield [fee(1), fee(2)]
        yield [fee(3)]


def fee(seq: int) -> list[Any]:
    return [seq, NOON, "routing", 5, None, None, "c1", None]


async def test_rows_are_a_sequence_that_is_read_once_and_loops_read_anew() -> None:
    pages = Pages()
    rows = Rows(pages, lambda values: Fee(*values))
    assert isinstance(rows, Sequence)
    # What pandas and polars look at: the length, the first element and the names of its fields.
    looped = [row for row in rows]  # noqa: C416 (a list of it asks for its length)
    assert looped == [row async for row in rows]
    assert pages.begun == 2
    assert (len(rows), rows[0], rows[-1].seq, rows[1:]) == (3, looped[0], 3, looped[1:])
    assert rows[0]._fields == Fee._fields
    assert list(rows) == [row async for row in rows] == looped
    assert list(reversed(rows)) == looped[::-1]
    assert looped[1] in rows
    assert pages.begun == 3

    nothing = Rows(lambda: iter(()), lambda values: Fee(*values))
    assert (len(nothing), list(nothing), bool(nothing)) == (0, [], False)
    assert [row async for row in nothing] == []
    with pytest.raises(IndexError):
        nothing[0]


CLIENT = "02" + "ab" * 32
ENTRIES: list[dict[str, Any]] = [
    {"kind": "order_sold", "scid": "1x2x3", "client": CLIENT, "trust": "t", "size": 9, "fee": 2},
    {"kind": "fee_earned", "scid": "1x2x3", "client": CLIENT, "channel": "c1", "amount": 2},
    {"kind": "forwarded", "from": "c0", "to": "c1", "received": 10, "sent": 7, "skim": 2},
    {"kind": "channel_funded", "channel": "c1", "peer": CLIENT, "by_us": True, "value_sat": 3},
    {"kind": "order_paid", "scid": "1x2x3", "client": CLIENT, "channel": "c1", "fee": 2},
]
PAID = {"finished_at_ms": 6, "created_at_ms": 5, "direction": "out", "payment_hash": "p"}


def store_of(entries: list[dict[str, Any]]) -> MemoryStore:
    lines = [{"at_ms": 1_000 * seq, "entry": each} for seq, each in enumerate(entries, 1)]
    batch: list[Change] = [
        Row("ledger", seq, "", json.dumps(line).encode()) for seq, line in enumerate(lines, 1)
    ]
    store = MemoryStore()
    store.commit(1, [*batch, Row("payment", 1, "p", json.dumps(PAID).encode())])
    store.close()
    return store


@pytest.mark.native
async def test_a_store_that_is_no_folder_is_read_through_the_same_views() -> None:
    history = History(store_of(ENTRIES))
    begin = datetime(1970, 1, 1, tzinfo=timezone.utc)
    (order,) = history.orders("paid", client=CLIENT.upper())
    assert (order.at, order.earned_msat) == (begin + timedelta(seconds=1), 2)
    assert order.paid_at == begin + timedelta(seconds=5)
    assert len(history.orders("open")) == 0
    assert [row.seq for row in history.ledger(client=CLIENT)] == [1, 2, 5]
    assert [row.seq async for row in history.ledger("forwarded")] == [3]
    times = {"since": begin + timedelta(seconds=2), "until": begin + timedelta(seconds=4)}
    assert [row.kind for row in history.ledger(**times)] == ["fee_earned", "forwarded"]
    assert [(row.kind, row.amount_msat) for row in history.fees()] == [
        ("opening", 2),
        ("routing", 1),
    ]
    (channel,) = history.channels("open", client=CLIENT)
    assert (channel.by_us, channel.ended_at) == (True, None)
    assert len(history.channels("closed")) == 0
    assert [row.payment_hash for row in history.payments("out")] == ["p"]
    assert len(history.payments("in")) == 0
    assert len(history.costs()) == 0
    with pytest.raises(ConfigError, match=r"Node\.report"):
        history.report()


@pytest.mark.native
async def test_many_rows_of_a_store_come_in_pages() -> None:
    history = History(store_of(ENTRIES * 500))
    assert [row.seq for row in history.ledger()] == list(range(1, 2_501))
    assert [row.seq async for row in history.ledger()] == list(range(1, 2_501))
    # One that is left half-way has let go of the store.
    for _ in history.ledger():
        break
    assert len(history.fees("routing")) == 500


class Lies(MemoryStore):
    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        return [Row(kind, 1, "", b"{}")]


@pytest.mark.native
def test_a_store_that_answers_nonsense_is_an_error_in_the_loop() -> None:
    with pytest.raises(StoreError, match="Lies: rows after 1 of ledger are others"):
        list(History(Lies()).ledger())
    rubbish = MemoryStore()
    rubbish.commit(1, [Row("ledger", 1, "", b"{")])
    with pytest.raises(StoreError, match="MemoryStore: malformed JSON"):
        list(History(rubbish).ledger())


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
