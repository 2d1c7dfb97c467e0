"""The SQL views over handmade rows: what each says, in any SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VIEWS = Path(__file__).parents[2] / "rust/node/src/views.sql"
FUNDING = "t1:0"
TIER = {"min_fee": 1, "proportional_ppm": 3, "min_payment": 1, "max_payment": 4, "min_lifetime": 9}
SOLD = {"kind": "order_sold", "scid": "1x2x3", "client": "aa", "trust": "t", "reserved_sat": 1}
OPEN = {"scid": "1x2x3", "client": "aa", "open": "00ff", "value_sat": 3}
CHAIN = {"kind": "chain", "delta_sat": -5, "paid_sat": 3, "open": None, "parts": []}
ROWS: list[dict[str, Any]] = [
    {**SOLD, "size": 50, "fee": 2, "tier": TIER},
    {"kind": "set_complete", "scid": "1x2x3", "payment_hash": "h", "parts": 1, "sum": 50, "fee": 2},
    {**OPEN, "kind": "open_requested"},
    {**CHAIN, "txid": "t1", "fee_sat": 2, "purpose": "funding", "open": "00ff"},
    {
        "kind": "channel_funded",
        "channel": "c1",
        "peer": "aa",
        "open": "00ff",
        "funding": FUNDING,
        "value_sat": 3,
        "balance": 3_000,
        "by_us": True,
    },
    {**OPEN, "kind": "channel_opened", "channel": "c1", "funding": FUNDING},
    {"kind": "forwarded", "from": "c0", "to": "c1", "received": 10, "sent": 7, "skim": 2},
    {"kind": "forwarded", "from": "c0", "to": "c1", "received": None, "sent": 7, "skim": 0},
    {
        "kind": "fee_earned",
        "scid": "1x2x3",
        "client": "aa",
        "channel": "c1",
        "payment_hash": "h",
        "amount": 2,
        "reuse": False,
    },
    {"kind": "order_paid", "scid": "1x2x3", "client": "aa", "channel": "c1", "fee": 2},
    {"kind": "chain_undone", "txid": "t1", "delta_sat": -5},
    # The same scid, sold to another, as one may be on a regtest; and not paid.
    {**SOLD, "client": "bb", "size": None, "fee": None, "tier": None},
    {"kind": "order_ended", "scid": "1x2x3", "client": "bb", "earned": 0, "reason": "expired"},
    {**CHAIN, "txid": "t2", "fee_sat": 7, "purpose": "claim", "parts": [{"channel": "c9"}]},
    {**CHAIN, "txid": "t3", "fee_sat": None, "purpose": "received"},
    {"kind": "path_paid", "payment_hash": "p", "channel": "c1", "amount": 9, "fee": 1},
    {"kind": "htlc_claimed", "payment_hash": "q", "channel": "c1", "amount": 9, "skimmed": 4},
    {"kind": "channel_ended", "channel": "c1", "balance": 3, "reason": "both"},
    {"kind": "channel_spent", "channel": "c1", "txid": "t4", "fee_sat": 1},
]
PAYMENT = {
    "id": "p",
    "payment_hash": "p",
    "direction": "out",
    "kind": "bolt11",
    "status": "succeeded",
    "amount_msat": 8,
    "fee_msat": 1,
    "opening_fee_msat": 0,
    "created_at_ms": 5,
    "finished_at_ms": 6,
}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE history(kind TEXT, seq INTEGER, key TEXT, value BLOB)")
    for seq, entry in enumerate(ROWS, 1):
        row = json.dumps({"at_ms": 1_000 + seq, "entry": entry, "link": "00"})
        db.execute("INSERT INTO history VALUES('ledger', ?, '', ?)", (seq, row.encode()))
    db.execute("INSERT INTO history VALUES('payment', 1, 'p', ?)", (json.dumps(PAYMENT).encode(),))
    db.executescript(VIEWS.read_text())
    yield db
    db.close()


def rows(db: sqlite3.Connection, what: str) -> list[Any]:
    return db.execute(f"SELECT {what} ORDER BY seq").fetchall()


def test_ledger(db: sqlite3.Connection) -> None:
    found = rows(db, "seq, at_ms, kind, entry FROM ledger")
    assert [(seq, at, kind) for seq, at, kind, _ in found] == [
        (seq, 1_000 + seq, entry["kind"]) for seq, entry in enumerate(ROWS, 1)
    ]
    assert [json.loads(entry) for *_, entry in found] == ROWS


def test_orders_are_sales_and_a_scid_may_be_sold_again(db: sqlite3.Connection) -> None:
    assert rows(db, "* FROM orders") == [
        (1, 1_001, "1x2x3", "aa", "t", 50, 2, 1, 3, 9, "paid", 2, 1_010, None, None),
        (12, 1_012, "1x2x3", "bb", "t", *[None] * 5, "ended", 0, None, 1_013, "expired"),
    ]


def test_channels(db: sqlite3.Connection) -> None:
    assert rows(db, "* FROM channels") == [
        (5, 1_005, "c1", "aa", "1x2x3", 1, 3, "t1:0", 1_018, "both", "t4")
    ]


def test_payments(db: sqlite3.Connection) -> None:
    assert rows(db, "* FROM payments") == [
        (1, 6, 5, "p", "out", "bolt11", "succeeded", 8, 1, 0, None, None)
    ]


def test_fees(db: sqlite3.Connection) -> None:
    assert rows(db, "* FROM fees") == [
        (7, 1_007, "routing", 1, None, None, "c1", None),
        (9, 1_009, "opening", 2, "aa", "1x2x3", "c1", "h"),
    ]


def test_costs_and_what_was_undone(db: sqlite3.Connection) -> None:
    assert rows(db, "* FROM costs") == [
        (4, 1_004, "funding", 2_000, "aa", "1x2x3", None, "t1"),
        (11, 1_011, "funding", -2_000, "aa", "1x2x3", None, "t1"),
        (14, 1_014, "claim", 7_000, None, None, "c9", "t2"),
        (16, 1_016, "routing", 1, None, None, "c1", None),
        (17, 1_017, "opening", 4, None, None, "c1", None),
    ]
