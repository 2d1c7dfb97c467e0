"""How long `ldkjit report` takes over a month of sales, and that its totals are the ledger's.

python benches/month.py PROGRAM --orders 50000 --plots FOLDER
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LINES = ("day", "client", "tier")
# What the ledger check and a report's total both have.
SAME = (
    *("opening_fees", "routing_fees", "opening_paid", "routing_paid"),
    *("chain_fees_sat", "closing_cost_msat"),
)


def ldkjit(*arguments: str | Path) -> tuple[dict[str, Any], float]:
    """What a command says, and how long it takes with all that a process takes, seconds.

    There is no wallet and no channel behind the month, which is why the ledger check says no.
    """
    command = [Path(sys.executable).with_name("ldkjit"), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    return told, took


def measure(program: Path, orders: int, plots: Path) -> dict[str, Any]:
    """Write the month, report it by each kind of line, check the totals."""
    with tempfile.TemporaryDirectory(prefix="ldkjit-month-") as folder:
        month = Path(folder) / "month"
        subprocess.run([program, month, str(orders)], check=True, stdout=subprocess.DEVNULL)
        check, check_s = ldkjit("ledger", "check", month, "--json")
        told: dict[str, Any] = {"orders": orders, "rows": check["rows"], "check_s": check_s}
        for by in LINES:
            report, took = ldkjit("report", month, "--by", by, "--format", "json")
            plot = plots / f"{by}.png"
            _, drawn = ldkjit("report", month, "--by", by, "--format", "json", "--plot", plot)
            told[by] = {"lines": len(report["lines"]), "s": took, "with_plot_s": drawn}
            compare(check, report)
    return told


def compare(check: dict[str, Any], report: dict[str, Any]) -> None:
    """The total is what the ledger check adds up to, and the sum of the lines.

    Raises:
        AssertionError: It is not.
    """
    total = report["total"]
    for name in SAME:
        assert check[name] == total[name], name
        assert sum(line[name] for line in report["lines"]) == total[name], name


def main() -> None:
    """Measure; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path, help="the built benches/generated_month.rs")
    parser.add_argument("--orders", type=int, default=50_000)
    parser.add_argument("--plots", type=Path, required=True, help="a folder for the plots")
    asked = parser.parse_args()
    asked.plots.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure(asked.program, asked.orders, asked.plots), indent=1))


if __name__ == "__main__":
    main()
