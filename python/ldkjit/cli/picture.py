"""A report as a picture: what each day, client or tier earned and cost, and what it bound."""

# matplotlib leaves the types of keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..models import Report, ReportLine
from .books import name_of

try:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter
except ImportError:
    raise SystemExit("A plot needs one more package: pip install 'ldkjit[report]'") from None

# Of a palette made for readers who see colours differently.
_EARNED, _ROUTED, _COST, _NET, _CAPITAL = "#0072B2", "#56B4E9", "#D55E00", "#222222", "#009E73"
# So many lines with names can be read in one picture; the rest is left out, and that is said.
_MOST = 20


def draw(report: Report, file: Path) -> None:
    """Draw a report into a file, whose ending says how.

    Raises:
        SystemExit: The file cannot be written.
    """
    figure = _days(report) if report.by == "day" else _named(report)
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: {error}") from error


def _days(report: Report) -> Figure:
    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(4, sharex=True, height_ratios=[3, 2, 2, 2])
    money, total, work, capital = panels
    days: list[Any] = [line.day for line in report.lines]
    earned, routed, cost, net = _columns(report.lines)
    money.bar(days, earned, color=_EARNED, label="opening fees")
    money.bar(days, routed, bottom=earned, color=_ROUTED, label="routing fees")
    money.bar(days, [-each for each in cost], color=_COST, label="chain and other cost")
    money.axhline(0, color="#888888", linewidth=0.8)
    money.set_ylabel("sat a day")
    money.set_title(_title(report), loc="left")
    sums = [sum(net[: place + 1]) for place in range(len(net))]
    total.plot(days, sums, color=_NET, marker=".", label="net, added up")
    total.set_ylabel("sat")
    work.bar(days, [line.sold for line in report.lines], color=_ROUTED, label="channels sold")
    work.set_ylabel("channels")
    bound = [line.capital_sat_days for line in report.lines]
    capital.plot(days, bound, color=_CAPITAL, marker=".", label="capital bound")
    capital.set_ylabel("sat·days a day")
    capital.set_ylim(bottom=0)
    locator = AutoDateLocator()
    capital.xaxis.set_major_locator(locator)
    capital.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in panels:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def _named(report: Report) -> Figure:
    lines = sorted(report.lines, key=lambda line: line.net_msat)[-_MOST:]
    names = [_short(name_of(line, report.by)) for line in lines]
    places = range(len(lines))
    figure = Figure(figsize=(10, 2 + 0.35 * len(lines)), layout="constrained")
    axes = figure.subplots()
    earned, routed, cost, net = _columns(lines)
    axes.barh(places, earned, color=_EARNED, label="opening fees")
    axes.barh(places, routed, left=earned, color=_ROUTED, label="routing fees")
    axes.barh(places, [-each for each in cost], color=_COST, label="chain and other cost")
    axes.plot(net, places, "D", color=_NET, markeredgecolor="white", label="net")
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(places, names)
    axes.set_xlabel("sat")
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    left_out = len(report.lines) - len(lines)
    more = f"; {left_out:,} with less net left out" if left_out else ""
    axes.set_title(_title(report) + more, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _columns(
    lines: tuple[ReportLine, ...] | list[ReportLine],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Opening fees, routing fees, cost and net, satoshi: for the eye, no account."""
    earned = [int(line.opening_fees) / 1_000 for line in lines]
    routed = [int(line.routing_fees) / 1_000 for line in lines]
    net = [line.net_msat / 1_000 for line in lines]
    cost = [e + r - n for e, r, n in zip(earned, routed, net, strict=True)]
    return earned, routed, cost, net


def _title(report: Report) -> str:
    total = report.total
    return f"{total.sold:,} channels sold, net {total.net_msat // 1_000:,} sat"


def _short(name: str) -> str:
    is_node_id = len(name) > 40 and " " not in name
    return f"{name[:8]}…{name[-4:]}" if is_node_id else name


def _thousands(value: float, _: int | None) -> str:
    return f"{value:,.0f}"


_THOUSANDS = FuncFormatter(_thousands)
