"""Every named moment in turn, in both trust models, and how long a wallet's life takes with it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .moments import POINTS
from .report import Finding
from .soak import Soak, binary_option, conclude

# A restart and a reconnect are seconds; more means that something waited for its timeout.
SLOW_S = 20.0


class Sweep(Soak):
    """A soak whose kills are planned."""

    def __init__(self, binary: Path, seed: int, *, times: int, power: bool, only: str) -> None:
        super().__init__(binary, 0.0, seed, kills=False, world=False, power=power)
        self.times = times
        self.only = only
        self.count = 0

    async def _lives(self) -> None:
        for trust in ("lsp_trusts_client", "client_trusts_lsp"):
            self.trusts = (trust,)
            self.lsp.kill()
            for role, points in POINTS.items():
                for point in points:
                    if self.only in f"{role} {point}":
                        for nth in range(1, self.times + 1):
                            await self._one(trust, role, point, nth)

    async def _one(self, trust: str, role: str, point: str, nth: int) -> None:
        begun = time.monotonic()
        self.count += 1
        await self._one_wallet(f"wallet-{self.count}", (role, point, nth))
        taken = time.monotonic() - begun
        print(f"{taken:6.1f} s  {trust} {role} {point} {nth}", file=sys.stderr, flush=True)
        if taken > SLOW_S:
            text = f"{taken:.0f} s for {trust}, {role} killed at {point}, time {nth}"
            self.report.findings.append(Finding("slow", text))


def main() -> int:
    """Run the sweep and print its report as JSON; 1 if it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=2, help="kill at the first, second … pass")
    parser.add_argument("--power", action="store_true", help="kills lose what was not synced")
    parser.add_argument("--only", default="", help='part of "role moment"')
    binary_option(parser)
    arguments = parser.parse_args()
    sweep = Sweep(
        arguments.binary,
        arguments.seed,
        times=arguments.times,
        power=arguments.power,
        only=arguments.only,
    )
    return conclude(sweep)


if __name__ == "__main__":
    sys.exit(main())
