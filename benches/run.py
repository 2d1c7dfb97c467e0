"""Measure on a regtest of real processes; write one JSON file into benches/results."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ldkjit import Invoice, Node, sat
from ldkjit.sandbox import Sandbox

RESULTS = Path(__file__).parent / "results"
AMOUNT = sat(50_000)


def summary(samples: list[float]) -> dict[str, Any]:
    """Median, spread and every sample, in milliseconds."""
    ordered = sorted(samples)
    return {
        "unit": "ms",
        "n": len(ordered),
        "p50": statistics.median(ordered),
        "p90": ordered[int(len(ordered) * 0.9)],
        "min": ordered[0],
        "max": ordered[-1],
        "samples": samples,
    }


async def paid(payer: Node, make: Callable[[], Awaitable[Invoice]]) -> float:
    """Milliseconds from the payer's call until the receiver has claimed."""
    invoice = await make()
    began = time.perf_counter()
    took = 0.0

    async def settle() -> None:
        nonlocal took
        await invoice.settled(timeout=60)
        took = (time.perf_counter() - began) * 1_000

    await asyncio.gather(settle(), payer.pay(invoice.bolt11))
    return took


async def measure(rounds: int) -> dict[str, Any]:
    """Every figure, one payment at a time, all nodes in this process."""
    async with Sandbox() as box:
        lsp = await box.lsp()
        payer = await box.node("payer", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
        opens: list[float] = []
        bought: list[float] = []
        forwards: list[float] = []
        for n in range(rounds):
            wallet = await box.wallet(lsp, f"wallet-{n}")

            async def jit(wallet: Node = wallet) -> Invoice:
                began = time.perf_counter()
                invoice = await wallet.receive(AMOUNT)
                bought.append((time.perf_counter() - began) * 1_000)
                assert invoice.path == "jit"
                return invoice

            async def again(wallet: Node = wallet) -> Invoice:
                invoice = await wallet.receive(sat(1))
                assert invoice.path == "channel"
                return invoice

            opens.append(await paid(payer, jit))
            forwards.append(await paid(payer, again))
            await box.mine(1)  # coins of the next open: change, confirmed
            await wallet.stop()
            del box.nodes[f"wallet-{n}"]
    return {
        "jit_get_info_and_buy": summary(bought),
        "jit_pay_to_received": summary(opens),
        "forward_one_in_flight": summary(forwards),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "method": "all nodes in one process, one payment at a time, durable (SQLite, FULL)",
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="wallets, one JIT open each")
    told = {**machine(), "figures": asyncio.run(measure(parser.parse_args().rounds))}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{told['at'].replace(':', '')}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
    for name, figure in told["figures"].items():
        print(f"{name:24} p50 {figure['p50']:8.1f} ms   p90 {figure['p90']:8.1f} ms")
    print(path)


if __name__ == "__main__":
    main()
