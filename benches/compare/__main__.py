"""Compare the LSPs: rounds of each load against each in turn, on one bitcoind; JSON.

PYTHONPATH=tests:benches python -m compare --size smoke --out smoke.json
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from interop.ldk_node import LdkStore
from interop.ldk_node_program import find_ldk_node

from ldkjit.sandbox import Regtest

from .goals import FLOORS
from .idle import IdleSets
from .loads import LOADS
from .machine import machine
from .scene import Scene
from .sellers import Ours, Seller, Theirs
from .settings import FULL, HOOKED, OUR_DOOR, SMOKE, Case, our_service, their_service

# ldk-node with either of its stores: the faster one is the opponent.
KINDS = ("ldkjit", "ldk-node", "ldk-node-files")
ROUND_S = 1_800.0
# LDK's own work, which goals are held against.
FLOOR = ("cargo", "bench", "--locked", "--package", "ldkjit-node", "--bench", "floor", "--")
# Blocks whose coins pay for everything.
COINBASES = 50


class Run:
    """One run: its chain, its sets of idle channels, what it has measured so far."""

    def __init__(self, chain: Regtest, folder: Path, program: Path, out: Path) -> None:
        self._chain = chain
        self._folder = folder
        self._program = program
        self._out = out
        self._sets = IdleSets(chain, folder / "sets", self._make)
        self.told: dict[str, Any] = {}

    def _make(self, kind: str, folder: Path, case: Case) -> Seller:
        if kind in HOOKED:
            return Ours(self._chain, folder, case.extra_ppm, *kind.split("-")[1:])
        store: LdkStore = "filesystem" if kind == "ldk-node-files" else "sqlite"
        return Theirs(self._chain, folder, case.extra_ppm, self._program, store)

    async def round(self, case: Case, kind: str, number: int, *, count_fsyncs: bool) -> bool:
        """One round; returns whether it could be measured."""
        folder = self._folder / "round"
        result: dict[str, Any] = {
            "case": dataclasses.asdict(case),
            "lsp": kind,
            "round": number,
            "counts_fsyncs": count_fsyncs,
        }
        began = time.monotonic()
        try:
            idle = await self._sets.copy(kind, case.idle, folder / "lsp")
            seller = self._make(kind, folder / "lsp", case)
            scene = Scene(self._chain, seller, folder, case, count_fsyncs=count_fsyncs)
            try:
                outcome = await asyncio.wait_for(LOADS[case.part](scene), ROUND_S)
            finally:
                await scene.close()
            result |= {**vars(outcome), "idle": idle}
        except Exception as error:  # the other rounds are still worth having
            traceback.print_exc()
            result["error"] = f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        result["round_s"] = time.monotonic() - began
        self.told["rounds"].append(result)
        self._out.write_text(written(self.told))
        print(line(case, result), flush=True)
        return "error" not in result

    async def floor(self, case: Case) -> None:
        """Measure what LDK alone takes, when the LSPs are measured: machines have moods."""
        name = FLOORS[case]
        cargo = await asyncio.create_subprocess_exec(*FLOOR, name, stdout=asyncio.subprocess.PIPE)
        out, _ = await cargo.communicate()
        if cargo.returncode:
            raise RuntimeError(f"{' '.join(FLOOR)}: exit code {cargo.returncode}")
        took = {"case": dataclasses.asdict(case), **json.loads(out)["tcp"][name]}
        self.told["floors"].append(took)


def written(told: dict[str, Any]) -> str:
    """The file: a round on each line, its times to the hundredth of a millisecond."""
    head = json.dumps({**told, "rounds": []}, indent=1).removesuffix("[]\n}")
    rounds = json.loads(json.dumps(told["rounds"]), parse_float=lambda n: round(float(n), 4))
    return head + "[\n" + ",\n".join(map(json.dumps, rounds)) + "\n]\n}\n"


def line(case: Case, result: dict[str, Any]) -> str:
    """A round in a line, for whoever watches."""
    head = f"{case.name:68} {result['lsp']:15} {result['round']:2}"
    if "error" in result:
        return f"{head}  {result['error'][:80]}"
    times = sorted(result["latencies_ms"])
    middle = times[len(times) // 2] if times else float("nan")
    rate = len(times) / result["wall_s"] if result["wall_s"] else 0.0
    per_cpu = len(times) / result["cpu_s"] if result["cpu_s"] else float("nan")
    failed = sum(result["failures"].values())
    more = {key: value for key, value in result["more"].items() if not isinstance(value, dict)}
    return (
        f"{head}  p50 {middle:8.1f} ms  {rate:7.1f}/s  {per_cpu:7.1f}/CPU s"
        f"  {result['rss_kb'] // 1024} MB  fsyncs {result['fsyncs']}  failed {failed} {more or ''}"
    )


async def run(asked: argparse.Namespace, out: Path) -> bool:
    """Every case, so many rounds, every LSP in turn; whether all could be measured."""
    cases = [each for each in {"smoke": SMOKE, "full": FULL}[asked.size] if asked.wants(each)]
    # Built only if it is asked for.
    program = Path() if asked.lsps == ["ldkjit"] else find_ldk_node(asked.ldk_node)
    good = True
    folder = Path(tempfile.mkdtemp(prefix="ldkjit-compare-"))
    try:
        async with Regtest() as chain:
            await chain.mine(COINBASES)
            one = Run(chain, folder, program, out)
            one.told = {
                **await machine(chain, asked.ldk_node),
                "size": asked.size,
                "lsps": asked.lsps,
                "settings": {
                    "ldkjit": {"lsp": our_service(0), "peer_limits": OUR_DOOR},
                    "ldk-node": their_service(0),
                },
                "floors": [],
                "rounds": [],
            }
            for case in cases:
                for number in range(1, asked.rounds + 1 + asked.fsyncs):
                    counts = number > asked.rounds
                    if counts and case.part in ("start", "kill"):
                        continue
                    if asked.floor and case in FLOORS and not counts:
                        await one.floor(case)
                    kinds = list(HOOKED) if case.part == "hooks" else asked.lsps
                    # Who is first is another one each time.
                    first = number % len(kinds)
                    for kind in kinds[first:] + kinds[:first]:
                        good &= await one.round(case, kind, number, count_fsyncs=counts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return good


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("--size", choices=("smoke", "full"), default="full")
    parser.add_argument("--rounds", type=int, default=5, help="of each case against each LSP")
    parser.add_argument("--parts", default=",".join(LOADS), help="loads, by comma")
    parser.add_argument("--clients", help="only cases with so many clients, by comma")
    parser.add_argument("--in-flight", help="only cases with so many under way each, by comma")
    parser.add_argument("--idle", help="only cases with so many idle channels, by comma")
    parser.add_argument("--lsps", default="ldkjit,ldk-node", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--fsyncs", action="store_true", help="one more round, which counts them")
    parser.add_argument("--floor", action="store_true", help="what LDK alone takes, beside it")
    parser.add_argument("--ldk-node", choices=("release", "interop"), default="release")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    asked = parser.parse_args()
    asked.lsps = asked.lsps.split(",")
    if unknown := set(asked.lsps) - set(KINDS):
        parser.error(f"no LSP {', '.join(unknown)}")
    parts = set(asked.parts.split(","))
    if unknown := parts - set(LOADS):
        parser.error(f"no part {', '.join(unknown)}")
    only = {
        name: set(map(int, values.split(",")))
        for name in ("clients", "in_flight", "idle")
        if (values := getattr(asked, name))
    }
    asked.wants = lambda case: (
        case.part in parts and all(getattr(case, name) in only[name] for name in only)
    )
    return asked


def main() -> None:
    """Measure; write; say where."""
    asked = arguments()
    # Each node has a dozen files, and there are more than a hundred nodes.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    good = asyncio.run(run(asked, asked.out))
    print(asked.out)
    sys.exit(not good)


if __name__ == "__main__":
    main()
