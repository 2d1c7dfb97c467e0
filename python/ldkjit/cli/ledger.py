"""The ledger check from outside a node."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import _ldkjit
from ..amounts import Msat
from ..errors import from_native
from ..models import LedgerCheck


def check(data_dir: Path) -> LedgerCheck:
    """Check the ledger in a data directory; its node may run or not.

    Raises:
        LdkJitError: The store or the seed cannot be read.
    """
    told, text = _ldkjit.ledger_check(str(data_dir))
    if not told:
        raise from_native(text)
    return LedgerCheck.model_validate_json(text)


def show(verdict: LedgerCheck, console: Console) -> None:
    """Print what was found: the accounts, and the first row that does not fit."""
    table = Table(title=f"{verdict.rows} rows", title_justify="left")
    for name in ("account", "by the ledger", "found"):
        table.add_column(name, justify="left" if name == "account" else "right")
    low, high = (sum(getattr(c, side) for c in verdict.channels) for side in ("low", "high"))
    found = f"{low:,} msat" if low == high else f"{low:,} to {high:,} msat"
    table.add_row("wallet", f"{verdict.chain_sat:,} sat", f"{verdict.wallet_sat:,} sat")
    table.add_row("open channels", f"{verdict.channels_msat:,} msat", found)
    if verdict.withheld_msat:
        table.add_row("  of which not funded yet", f"{verdict.withheld_msat:,} msat", "")
    table.add_row("closed channels", f"{verdict.closing_msat:,} msat", "")
    table.add_section()
    for name, amount in (
        ("opening fees earned", verdict.opening_fees),
        ("routing fees earned", verdict.routing_fees),
        ("opening fees paid", verdict.opening_paid),
        ("routing fees paid", verdict.routing_paid),
        ("chain fees paid", Msat(verdict.chain_fees_sat * 1_000)),
        ("cost of closed channels", verdict.closing_cost_msat),
    ):
        table.add_row(name, f"{int(amount):,} msat", "")
    console.print(table)
    compared = f"{verdict.exact} channels to the millisatoshi"
    if verdict.bounded:
        compared += f", {verdict.bounded} within the bound of HTLCs in flight"
    console.print(compared, highlight=False)
    if verdict.bad is None:
        console.print("[green]it adds up[/]")
    else:
        row = "a row is missing" if verdict.bad.seq is None else f"row {verdict.bad.seq}"
        console.print(f"[red]it does not add up: {row}[/]", highlight=False)
        console.print(verdict.bad.why, markup=False, highlight=False)
