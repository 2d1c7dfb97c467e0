"""History, report and metrics of an LSP that sold a channel, while it runs and after."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support import address_of, comes_to, earned, id_of, online, pay_both, wallet_of
from typer.testing import CliRunner

from ldkjit import History, LedgerCheck, Lsp, LspRefusedError, Node, Report, StoreError, sat
from ldkjit.cli import app
from ldkjit.history import views
from ldkjit.metrics import exposition
from ldkjit.sandbox import Sandbox
from ldkjit.telemetry import observe

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

SUMS = ("opening_fees", "routing_fees", "opening_paid", "routing_paid", "chain_fees_sat")
VIEWS = ("ledger", "orders", "channels", "payments", "fees", "costs")


async def sold(box: Sandbox) -> tuple[Node, Node, Node, str]:
    """An LSP, a payer, and a wallet paid through a channel that it bought; the payment hash."""
    lsp = await box.lsp("lsp")
    payer = await box.node("payer", funds=sat(20_000_000), channels=[(lsp, 10_000_000)])
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(sat(1_000_000))
    await pay_both(payer, wallet, invoice.bolt11)
    await comes_to(
        lambda: earned(lsp, invoice.payment_hash), sat(4_000), "msat earned by the ledger"
    )
    return lsp, payer, wallet, invoice.payment_hash


def same(report: Report, check: LedgerCheck) -> None:
    assert report.ok
    assert check.ok
    assert report.rows == check.rows
    for name in SUMS:
        assert getattr(report.total, name) == getattr(check, name), name
    assert report.total.closing_cost_msat == check.closing_cost_msat


async def test_what_an_lsp_did(box: Sandbox) -> None:
    lsp, payer, wallet, payment_hash = await sold(box)
    client = await id_of(wallet)
    history = lsp.history

    # Rows, in both kinds of loop.
    (order,) = [row async for row in history.orders()]
    assert [order] == list(history.orders(client=client.upper()))
    assert (order.client, order.state, order.size_msat) == (client, "paid", 1_000_000_000)
    assert (order.fee_msat, order.earned_msat, order.min_fee_msat) == (
        4_000_000,
        4_000_000,
        2_000_000,
    )
    assert order.paid_at is not None
    assert datetime.now(timezone.utc) - order.at < timedelta(minutes=2)
    channels = list(history.channels("open"))
    (own,) = [row for row in channels if row.by_us]
    assert (own.peer, own.scid, len(channels)) == (client, order.scid, 2)
    (fee,) = history.fees("opening", client=client)
    assert (fee.amount_msat, fee.payment_hash, fee.channel) == (
        4_000_000,
        payment_hash,
        own.channel,
    )
    (funding,) = history.costs("funding")
    assert (funding.client, funding.scid) == (client, order.scid)
    assert own.funding == f"{funding.txid}:0" or own.funding.startswith(f"{funding.txid}:")
    kinds = Counter(row.kind for row in history.ledger())
    assert kinds == Counter([row.kind async for row in lsp.ledger()])
    assert [row.kind for row in history.ledger("order_paid")] == ["order_paid"]
    (paid,) = payer.history.payments("out")
    assert (paid.payment_hash, paid.status, paid.amount_msat) == (
        payment_hash,
        "succeeded",
        1_000_000_000,
    )
    assert list(payer.history.payments("in")) == []

    # Filters of time.
    assert list(history.orders(since=order.at)) == [order]
    assert list(history.orders(until=order.at)) == []
    after = order.at + timedelta(milliseconds=1)
    assert list(history.orders(since=order.at, until=after)) == [order]

    # The report, from inside and outside, is the check's.
    inside = await lsp.report("client")
    check = await lsp.ledger_check()
    same(inside, check)
    assert inside.total.opening_fees == sum(row.amount_msat for row in history.fees("opening"))
    assert inside.total.chain_fees_sat * 1_000 == sum(row.amount_msat for row in history.costs())
    lines = {line.client: line for line in inside.lines}
    assert lines[client].opening_fees == 4_000_000
    assert lines[client].chain_fees_sat * 1_000 == funding.amount_msat
    assert lines[client].net_msat == 4_000_000 - funding.amount_msat
    same(history.report(), check)
    (tier,) = [line.tier for line in history.report("tier").lines if line.tier]
    assert (tier.min_fee, tier.proportional_ppm) == (2_000_000, 4_000)
    await reports_of(history, check)

    # And after a stop, from the same folder.
    await lsp.stop()
    assert list(history.orders()) == [order]
    same(history.report("day"), check)
    await reports_of(history, check)
    views_of(history)
    await lsp.start()
    await online(wallet)


async def reports_of(history: History, check: LedgerCheck) -> None:
    """``ldkjit report`` in its three shapes."""
    folder = str(history.source)
    run = CliRunner().invoke
    told = run(app, ["report", folder, "--format", "json"])
    assert told.exit_code == 0, told.output
    same(Report.model_validate(json.loads(told.stdout)), check)
    shown = run(app, ["report", folder, "--by", "tier"])
    assert shown.exit_code == 0, shown.output
    assert "2,000 sat, 4,000 ppm" in shown.stdout
    rows = run(app, ["report", folder, "--by", "client", "--format", "csv"])
    table = list(csv.DictReader(io.StringIO(rows.stdout)))
    assert sum(int(row["opening_fees_msat"]) for row in table) == check.opening_fees
    assert sum(int(row["chain_fees_sat"]) for row in table) == check.chain_fees_sat
    none = run(app, ["report", folder, "--since", "2001-01-01", "--until", "2002-01-01"])
    assert none.exit_code == 0, none.output
    assert run(app, ["report", folder, "--since", "2099-01-01"]).exit_code == 2


def views_of(history: History) -> None:
    """The views give what the rows are, to any SQLite; the store is opened read-only."""
    db = sqlite3.connect(f"file:{history.source}/node.sqlite?mode=ro", uri=True)
    db.executescript(views())
    for name in VIEWS:
        cursor = db.execute(f"SELECT * FROM {name} ORDER BY seq")  # one of ours
        columns = [str(each[0]).removesuffix("_ms") for each in cursor.description]
        rows = list(getattr(history, name)())
        found = cursor.fetchall()
        assert len(found) == len(rows)
        for row, values in zip(rows, found, strict=True):
            assert list(row._fields) == columns, name
            assert [in_ms(value) for value in row] == list(values), name
    (fees,) = db.execute("SELECT sum(amount_msat) FROM fees WHERE kind = 'opening'").fetchone()
    assert fees == 4_000_000
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM history")
    db.close()


def in_ms(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
    return value


async def test_what_is_counted(box: Sandbox) -> None:
    lsp, _, _, _ = await sold(box)
    stranger = await box.node("stranger", lsps=[Lsp(await address_of(lsp), token="stale")])
    await online(stranger)
    with pytest.raises(LspRefusedError):
        await stranger.receive(sat(100_000))

    metrics = {each.name: each for each in await lsp.metrics()}
    stages = {one.labels["stage"]: one.value for one in metrics["ldkjit_jit_total"].samples}
    assert stages == {
        "get_info": 2,
        "buy": 1,
        "sold": 1,
        "htlc": 1,
        "set": 1,
        "open": 1,
        "channel": 1,
        "claim": 1,
        "paid": 1,
        "owed": 0,
    }
    (refused,) = metrics["ldkjit_refused_total"].samples
    assert refused.labels == {"what": "request", "reason": "unknown_token"}
    assert refused.value == 1
    (fees,) = metrics["ldkjit_opening_fees_msat_total"].samples
    assert fees.value == 4_000_000
    (commit,) = metrics["ldkjit_commit_seconds"].samples
    assert commit.buckets is not None
    assert commit.sum is not None
    assert commit.sum > 0
    assert 10 < commit.buckets[-1][1] <= commit.value
    for name in ("ldkjit_htlcs_held", "ldkjit_htlc_held_oldest_seconds"):
        assert [one.value for one in metrics[name].samples] == [0]

    text = exposition(list(metrics.values()))
    assert 'ldkjit_jit_total{stage="paid"} 1\n' in text
    line = re.compile(r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e+-]+')
    for each in text.splitlines():
        assert each.startswith("# ") or line.fullmatch(each), each

    reader = InMemoryMetricReader()
    await observe(lsp, MeterProvider([reader], shutdown_on_exit=False).get_meter("ldkjit"))
    observed = await asyncio.to_thread(reader.get_metrics_data)
    assert observed is not None
    names = {each.name for each in observed.resource_metrics[0].scope_metrics[0].metrics}
    assert names >= {"ldkjit_jit_total", "ldkjit_commit_seconds_bucket", "ldkjit_block_height"}


async def test_what_is_held_is_counted_as_long_as_it_is(box: Sandbox) -> None:
    lsp = await box.lsp("lsp")
    payer = await box.node("payer", funds=sat(20_000_000), channels=[(lsp, 10_000_000)])
    wallet = await wallet_of(box, lsp, store="sqlite")
    invoice = await wallet.receive(sat(1_000_000))
    await wallet.stop()

    async def held() -> list[bool]:
        metrics = {each.name: each for each in await lsp.metrics()}
        names = ("ldkjit_htlcs_held", "ldkjit_htlc_held_oldest_seconds")
        (count,), (age,) = (metrics[name].samples for name in names)
        return [count.value == 1, age.value > 0]

    paying = asyncio.create_task(payer.pay(invoice.bolt11, timeout=60))
    await comes_to(held, [True, True], "an HTLC held for whoever is away")
    await wallet.start()
    await paying
    await comes_to(held, [False, False], "no HTLC held")


async def test_what_cannot_be_read(tmp_path: Path) -> None:
    nothing = History(tmp_path)
    with pytest.raises(StoreError):
        list(nothing.orders())
    with pytest.raises(StoreError):
        nothing.report()
    with pytest.raises(StoreError):
        [row async for row in nothing.fees()]
