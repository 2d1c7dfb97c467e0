"""What one LSP carries, idle channels and connected clients: JSON, and docs/scaling.md's table.

PYTHONPATH=tests:benches python -m scale --out scale.json --page docs/scaling.md
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import resource
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from compare import meter
from compare.idle import IdleSets
from compare.machine import machine
from compare.marks import fill
from compare.scene import Outcome, Scene, checked, in_turn
from compare.sellers import Ours
from compare.settings import FORWARD_SAT, Case
from conformance.peer import Peer, Target
from conformance.rpc import GET_INFO, ask_once

from ldkjit import sat
from ldkjit.sandbox import Regtest

COINBASES = 50
STARTS = 3
JITS = 20
# Who is paid through it meanwhile: clients with a channel, and payments under way for each.
CLIENTS, IN_FLIGHT, FORWARDS = 16, 3, 480
CONNECTS_AT_ONCE = 32
ASKS_AT_ONCE = 64
ANSWER_S = 60.0


@dataclasses.dataclass(frozen=True)
class Size:
    """One point of the curve.

    Attributes:
        channels: Of the LSP with peers that are away.
        connected: Clients that are connected and do nothing but ask for a menu, once each.
    """

    channels: int = 0
    connected: int = 0


FULL = [
    Size(),
    Size(1_000),
    Size(3_000),
    Size(10_000),
    Size(0, 500),
    Size(0, 2_000),
    Size(10_000, 2_000),
]
SMOKE = [Size(), Size(8), Size(8, 20)]


async def point(sets: IdleSets, chain: Regtest, folder: Path, size: Size) -> dict[str, Any]:
    """Everything that is measured of one size."""
    case = Case("scale", CLIENTS, IN_FLIGHT, FORWARDS)
    channels = await sets.copy("ldkjit", size.channels, folder / "lsp")
    seller = Ours(chain, folder / "lsp", case.extra_ppm)
    scene = Scene(chain, seller, folder, case)
    peers: list[Peer] = []
    told: dict[str, Any] = {**dataclasses.asdict(size), "channels": channels, "start_s": []}
    try:
        for _ in range(STARTS):
            began = time.perf_counter()
            await seller.start()
            told["start_s"].append(time.perf_counter() - began)
            told["rss_kb"] = meter.read(seller.pid).rss_kb
            await seller.stop()
        await scene.open(opens=CLIENTS + JITS, at_once=CLIENTS * IN_FLIGHT)
        target = Target.parse(seller.address)
        before = meter.read(seller.pid)
        began = time.perf_counter()
        connects = itertools.repeat(partial(Peer.connect, target), size.connected)
        connected = await in_turn(connects, CONNECTS_AT_ONCE)
        peers += [each for each in connected if isinstance(each, Peer)]
        checked(connected)
        told["connect_s"] = time.perf_counter() - began
        told["connected_kb"] = meter.read(seller.pid).rss_kb - before.rss_kb
        told["ask"] = await _asked(scene, peers)
        told["jit"] = await _jits(scene)
        told["forward"] = await _forwards(scene, seller)
        told["rss_loaded_kb"] = meter.read(seller.pid).rss_kb
    finally:
        await in_turn([peer.close for peer in peers], CONNECTS_AT_ONCE)
        await scene.close()
    return told


def _figures(outcome: Outcome) -> dict[str, Any]:
    assert not outcome.failures, outcome.failures
    count = len(outcome.latencies_ms)
    return {
        "count": count,
        "p50_ms": statistics.median(outcome.latencies_ms),
        "per_s": count / outcome.wall_s,
        # What takes less is not seen.
        "per_cpu_s": count / max(outcome.cpu_s, 1 / meter.TICKS_PER_S),
        "wrote_bytes_each": outcome.wrote / count,
    }


async def _asked(scene: Scene, peers: list[Peer]) -> dict[str, Any] | None:
    """Each client that is connected asks for the menu."""
    if not peers:
        return None

    async def ask(peer: Peer) -> None:
        began = time.perf_counter()
        answer = await ask_once(peer, GET_INFO, {}, ANSWER_S)
        assert answer.result is not None, answer
        outcome.latencies_ms.append((time.perf_counter() - began) * 1_000)

    async with scene.measured() as outcome:
        checked(await in_turn([partial(ask, peer) for peer in peers], ASKS_AT_ONCE))
    return _figures(outcome)


async def _jits(scene: Scene) -> dict[str, Any]:
    """First payments, one new client after the other."""
    wallets = await scene.clients(JITS, "new")
    invoices = [await scene.jit_invoice(wallet) for wallet in wallets]
    async with scene.measured() as outcome:
        for invoice in invoices:
            await scene.pay(invoice, outcome)
    return _figures(outcome)


async def _forwards(scene: Scene, seller: Ours) -> dict[str, Any]:
    """Payments through it, and the commits that they cost."""
    wallets = await scene.clients_with_channels(CLIENTS)
    invoices = [
        [await wallet.receive(sat(FORWARD_SAT), jit="never") for _ in range(FORWARDS // CLIENTS)]
        for wallet in wallets
    ]
    count, seconds = await seller.commits()
    async with scene.measured() as outcome:
        pays = [
            partial(scene.pay, invoice, outcome)
            for invoice in itertools.chain.from_iterable(zip(*invoices, strict=True))
        ]
        checked(await in_turn(pays, CLIENTS * IN_FLIGHT))
    count_after, seconds_after = await seller.commits()
    commits = count_after - count
    return {
        **_figures(outcome),
        "commits": commits,
        "commit_ms": 1_000 * (seconds_after - seconds) / commits,
    }


async def measure(out: Path, sizes: list[Size]) -> None:
    """All sizes, on one bitcoind; the file is written after each."""
    folder = Path(tempfile.mkdtemp(prefix="ldkjit-scale-"))
    try:
        async with Regtest() as chain:
            await chain.mine(COINBASES)
            told: dict[str, Any] = {**await machine(chain, "none"), "points": []}
            sets = IdleSets(
                chain, folder / "sets", lambda _, at, case: Ours(chain, at, case.extra_ppm)
            )
            for size in sizes:
                at = folder / "round"
                try:
                    told["points"].append(await point(sets, chain, at, size))
                finally:
                    shutil.rmtree(at, ignore_errors=True)
                _keep(out, told)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(told: dict[str, Any]) -> list[str]:
    """The points, and what the curve leads to."""
    lines = [
        f"{told['at'][:10]}, commit {told['commit']}, {told['machine']['cpus']} × "
        f"{told['machine']['cpu']}, load before {told['machine']['load_before']:.2f}; "
        "[all figures](../benches/results/scale.json).",
        "",
        "| idle channels | connected | start, s | memory, MB | first payment, p50, ms | forwards/s "
        "| forwards per CPU s | a commit, ms | kB written a forward | `get_info`/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for at in told["points"]:
        asked = at["ask"]["per_s"] if at["ask"] else None
        cells = [
            f"{at['channels']:,}",
            f"{at['connected']:,}",
            f"{statistics.median(at['start_s']):.1f}",
            f"{at['rss_loaded_kb'] / 1024:,.0f}",
            f"{at['jit']['p50_ms']:.0f}",
            f"{at['forward']['per_s']:.0f}",
            f"{at['forward']['per_cpu_s']:.0f}",
            f"{at['forward']['commit_ms']:.1f}",
            f"{at['forward']['wrote_bytes_each'] / 1024:.0f}",
            f"{asked:,.0f}" if asked else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_extrapolated(told["points"])]


def _extrapolated(points: list[dict[str, Any]]) -> list[str]:
    idle = [at for at in points if not at["connected"]]
    few, many = idle[0], idle[-1]
    channels = many["channels"] - few["channels"]
    cpu = [1_000 / at["forward"]["per_cpu_s"] for at in (few, many)]
    start = [statistics.median(at["start_s"]) for at in (few, many)]
    memory = (many["rss_loaded_kb"] - few["rss_loaded_kb"]) / channels
    lines = [
        f"Between {few['channels']:,} and {many['channels']:,} channels each thousand adds "
        f"{memory:,.1f} MB, {1_000 * (start[1] - start[0]) / channels:.2f} s to a start and "
        f"{1_000 * (cpu[1] - cpu[0]) / channels:.2f} ms of CPU time to a forward.",
        "",
        "Extrapolated from that, and not measured:",
        "",
        "| idle channels | start, s | memory, GB | forwards per CPU s |",
        "|---|---|---|---|",
    ]
    for wanted in (3 * many["channels"], 10 * many["channels"]):
        more = (wanted - many["channels"]) / channels
        gigabytes = (many["rss_loaded_kb"] + memory * (wanted - many["channels"])) / 1024 / 1024
        lines.append(
            f"| {wanted:,} | {start[1] + more * (start[1] - start[0]):.0f} | {gigabytes:.1f} "
            f"| {1_000 / (cpu[1] + more * (cpu[1] - cpu[0])):.0f} |"
        )
    return lines


def _keep(out: Path, told: dict[str, Any]) -> None:
    out.write_text(json.dumps(told, indent=1) + "\n")
    print(told["points"][-1], flush=True)


def main() -> None:
    """Measure; write; say where."""
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("--size", choices=("smoke", "full"), default="full")
    parser.add_argument("--most", type=int, help="no size with more channels than that")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="has the table between its two marks")
    asked = parser.parse_args()
    # Each connection is one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sizes = {"smoke": SMOKE, "full": FULL}[asked.size]
    if asked.most is not None:
        sizes = [size for size in sizes if size.channels <= asked.most]
    asyncio.run(measure(asked.out, sizes))
    if asked.page:
        fill(asked.page, table(json.loads(asked.out.read_text())))
    print(asked.out)


if __name__ == "__main__":
    main()
