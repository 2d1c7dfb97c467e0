"""Adds up reports of the soak, and says what of the bar is met: ``python -m soak.total *.json``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .moments import POINTS, WANTED, missing
from .report import Report, total

MINUTES = 60
KILLS = 500
IN_FLIGHT = 0.8
ORDERS = 2_000
PAYMENTS = 10_000


def lines(summed: Report) -> list[tuple[bool, str]]:
    """Each line of the bar, and whether it is met."""
    kills = sum(summed.kills.values())
    share = summed.kills_in_flight / kills if kills else 0.0
    unmet = missing(summed.points)
    moments = sum(len(points) for points in POINTS.values())
    return [
        (summed.seconds >= MINUTES * 60, f"{summed.seconds / 60:.1f} of {MINUTES} minutes"),
        (kills >= KILLS, f"{kills} of {KILLS} kills"),
        (share >= IN_FLIGHT, f"{share:.0%} of {IN_FLIGHT:.0%} with a payment under way"),
        (not unmet, f"{moments - len(unmet)} of {moments} moments hit {WANTED} times"),
        (summed.jit_orders >= ORDERS, f"{summed.jit_orders} of {ORDERS} JIT orders"),
        (summed.payments >= PAYMENTS, f"{summed.payments} of {PAYMENTS} payments"),
        (not summed.findings, f"{len(summed.findings)} findings"),
    ]


def main() -> int:
    """Print the sum and the bar; 1 if a line is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true", help="print the sum itself, too")
    arguments = parser.parse_args()
    summed = total(arguments.reports)
    if arguments.json:
        print(summed.json())
    bar = lines(summed)
    for met, text in bar:
        print(f"{'met ' if met else 'OPEN'}  {text}")
    for name, count in missing(summed.points).items():
        print(f"      {name}: {count}")
    return 0 if all(met for met, _ in bar) else 1


if __name__ == "__main__":
    sys.exit(main())
