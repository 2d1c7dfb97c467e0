"""Where the time of a payment goes, stage by stage, beside the work that LDK alone has with it.

PYTHONPATH=tests:benches python -m budget floor.json --out docs/performance.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from compare.machine import machine
from compare.marks import fill
from compare.scene import Outcome, Scene
from compare.sellers import Ours
from compare.settings import FORWARD_SAT, Case

from ldkjit import Invoice, Node, sat
from ldkjit.sandbox import Regtest

# A payment's stages: (who, what) and the microseconds since the payer's call.
Stages = list[tuple[str, str, float]]


async def stages_of(scene: Scene, seller: Ours, wallet: Node, invoice: Invoice) -> Stages:
    """Pay; every stamp of the three nodes, in the order of time."""
    outcome = Outcome()
    await scene.pay(invoice, outcome)
    assert not outcome.failures, outcome.failures
    stamps: list[tuple[str, str, int]] = []
    for who, node in (("payer", scene.payer), ("wallet", wallet)):
        stamps += [(who, s.stage, s.at_us) for s in await node.timeline(invoice.payment_hash)]
    for each in await seller.timeline(invoice.payment_hash):
        stamps.append(("LSP", each["stage"], each["at_us"]))
    stamps.sort(key=lambda stamp: stamp[2])
    began = next(at for who, stage, at in stamps if (who, stage) == ("payer", "send"))
    return [(who, stage, float(at - began)) for who, stage, at in stamps]


async def measure(rounds: int) -> tuple[dict[str, Any], list[Stages], list[Stages]]:
    """So many JIT payments, and a forward after each: machine, and the stages of both."""
    folder = Path(tempfile.mkdtemp(prefix="ldkjit-budget-"))
    jit: list[Stages] = []
    forwards: list[Stages] = []
    try:
        async with Regtest() as chain:
            told = await machine(chain, "none")
            case = Case("budget", count=rounds)
            seller = Ours(chain, folder / "lsp", case.extra_ppm)
            scene = Scene(chain, seller, folder, case, count_fsyncs=False)
            try:
                await scene.open(opens=rounds, at_once=1)
                for wallet in await scene.clients(rounds):
                    invoice = await scene.jit_invoice(wallet)
                    jit.append(await stages_of(scene, seller, wallet, invoice))
                    invoice = await wallet.receive(sat(FORWARD_SAT), jit="never")
                    forwards.append(await stages_of(scene, seller, wallet, invoice))
            finally:
                await scene.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return told, jit, forwards


def table(payments: list[Stages]) -> list[str]:
    """The median of each stage, since the payer's call and since the stage before it."""
    found: dict[tuple[str, str], list[float]] = {}
    for stages in payments:
        for who, stage, at in stages:
            found.setdefault((who, stage), []).append(at)
    # What only some payments meet is no stage of the way.
    common = {key: at for key, at in found.items() if len(at) * 2 > len(payments)}
    medians = sorted((statistics.median(at), key) for key, at in common.items())
    lines = ["| node | stage | since the call, µs | of it, µs |", "|---|---|---|---|"]
    before = 0.0
    for at, (who, stage) in medians:
        lines.append(f"| {who} | {stage} | {at:,.0f} | {at - before:,.0f} |")
        before = at
    return lines


def total(payments: list[Stages]) -> float:
    """From the payer's call to the wallet's claim, median, microseconds."""
    return statistics.median(
        max(at for who, stage, at in stages if (who, stage) in END) for stages in payments
    )


# The receiver has it.
END = {("wallet", "claimed")}


def floor_table(floor: dict[str, Any]) -> list[str]:
    """What LDK alone needs, by node, and for the LSP by call."""
    lines = ["| LDK alone | µs |", "|---|---|"]
    for name in ("total", "payer", "lsp", "client"):
        lines.append(f"| {name} | {floor[f'{name}_us']:,.0f} |")
    calls = sorted(floor["lsp_calls_us"].items(), key=lambda call: -call[1])
    lines += [f"| LSP: `{name}` | {us:,.0f} |" for name, us in calls if us >= 1]
    return lines


def render(
    told: dict[str, Any], floor: dict[str, Any], jit: list[Stages], forwards: list[Stages]
) -> list[str]:
    """The tables of both kinds of payment."""
    lines = [
        "",
        f"{told['at']}, commit {told['commit']}, {told['machine']['cpus']} × "
        f"{told['machine']['cpu']}, load before: {told['machine']['load_before']:.2f}.",
    ]
    for title, name, payments in (
        ("A JIT payment", "jit", jit),
        ("A forward", "forward", forwards),
    ):
        ours, least = total(payments), floor[name]["total_us"]
        lines += [
            "",
            f"### {title}",
            "",
            f"{ours:,.0f} µs from the payer's call to the wallet's claim. LDK alone needs "
            f"{least:,.0f} µs in one thread until the payer has the preimage, and "
            f"{floor['tcp'][name]['p50_ms'] * 1_000:,.0f} µs over TCP.",
            "",
            *table(payments),
            "",
            *floor_table(floor[name]),
        ]
    return [*lines, ""]


def main() -> None:
    """Measure; fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floor", type=Path, help="what benches/rust/floor printed")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True, help="has its tables between two marks")
    asked = parser.parse_args()
    told, jit, forwards = asyncio.run(measure(asked.rounds))
    floor = json.loads(asked.floor.read_text())
    fill(asked.out, render(told, floor, jit, forwards))
    print(asked.out)


if __name__ == "__main__":
    main()
