"""A report as a table or as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from rich.console import Console
from rich.table import Table

from ..models import Report, ReportLine, SoldTier

_TIER = ("min_fee_msat", "proportional_ppm", "min_payment_msat", "max_payment_msat", "min_lifetime")
_FIGURES = (
    "sold",
    "paid",
    "opening_fees",
    "routing_fees",
    "opening_paid",
    "routing_paid",
    "chain_fees_sat",
    "closing_cost_msat",
    "net_msat",
    "capital_sat_days",
)
_WIDEST = 1_000
# Left out of the table where nothing is in them.
_RARE = ("opening_paid", "routing_paid")


def name_of(line: ReportLine, by: str | None) -> str:
    """What a line is called; ``other`` has what belongs to no sale."""
    if by == "day":
        return str(line.day)
    if by == "tier":
        return tier_name(line.tier) if line.tier else "other"
    return line.client or "other"


def tier_name(tier: SoldTier) -> str:
    """A tier in short: its least fee, its share, and the largest payment."""
    return (
        f"{in_sat(tier.min_fee)} sat, {tier.proportional_ppm:,} ppm,"
        f" to {in_sat(tier.max_payment)} sat"
    )


def in_sat(msat: int) -> str:
    """Millisatoshi as satoshi, exactly."""
    whole, rest = divmod(abs(int(msat)), 1_000)
    sign = "-" if msat < 0 else ""
    return f"{sign}{whole:,}.{rest:03}" if rest else f"{sign}{whole:,}"


def show(report: Report, console: Console) -> None:
    """Print the lines and the total. Fees and costs are in satoshi."""
    figures = [each for each in _FIGURES if each not in _RARE or getattr(report.total, each)]
    table = Table(title=f"{report.rows:,} rows, amounts in sat", title_justify="left")
    table.add_column(report.by or "", no_wrap=True)
    for figure in figures:
        name = figure.removesuffix("_msat").removesuffix("_sat")
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for line in report.lines:
        table.add_row(name_of(line, report.by), *(_cell(line, each) for each in figures))
    table.add_section()
    table.add_row("total", *(_cell(report.total, each) for each in figures))
    # Wider than the terminal rather than cut off: it wraps, and pipes and files have room.
    wanted = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, wanted)
    console.print(table)


def _cell(line: ReportLine, figure: str) -> str:
    value = getattr(line, figure)
    in_msat = figure.endswith("_msat") or figure.startswith(("opening", "routing"))
    return in_sat(value) if in_msat else f"{value:,}"


def as_csv(report: Report) -> str:
    """The lines with a header, or the total where there are no lines; amounts in msat or sat."""
    text = io.StringIO()
    names: dict[str | None, list[str]] = {"tier": list(_TIER), None: []}
    name = names.get(report.by, [str(report.by)])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*name, *(_column(each) for each in _FIGURES)])
    for line in report.lines if report.by else (report.total,):
        writer.writerow(
            [*_named(line, report.by), *(int(getattr(line, each)) for each in _FIGURES)]
        )
    return text.getvalue()


def _column(figure: str) -> str:
    alias = ReportLine.model_fields[figure].validation_alias
    return alias if isinstance(alias, str) else figure


def _named(line: ReportLine, by: str | None) -> list[Any]:
    if by is None:
        return []
    if by != "tier":
        return [getattr(line, by)]
    tier = line.tier
    if tier is None:
        return [None for _ in _TIER]
    return [int(getattr(tier, each.removesuffix("_msat"))) for each in _TIER]
