"""Samples of the LSP's process under load, as perf prints them: what a flame graph is made of.

PYTHONPATH=tests:benches python -m flame jit | inferno-collapse-perf | inferno-flamegraph
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from compare.loads import LOADS
from compare.scene import Outcome, Scene
from compare.sellers import Ours
from compare.settings import Case

from ldkjit.sandbox import Regtest

CASES = {
    "jit": Case("jit_at_once", clients=8, count=64),
    "forward": Case("forwards", clients=16, in_flight=3, count=480),
}
SAMPLES_PER_S = 499
# Of each thread's stack, to be unwound afterwards: nothing is built with frame pointers.
STACK_BYTES = 16_384


class SampledScene(Scene):
    """A scene whose load is sampled into a file in its folder."""

    samples: Path

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncGenerator[Outcome, None]:
        """The load is what happens inside."""
        perf = await asyncio.create_subprocess_exec(
            *("perf", "record", "-e", "cpu-clock", "-F", str(SAMPLES_PER_S)),
            *("--call-graph", f"dwarf,{STACK_BYTES}", "-o", str(self.samples)),
            *("-p", str(self.seller.pid)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with super().measured() as outcome:
                yield outcome
        finally:
            perf.send_signal(signal.SIGINT)
            await perf.wait()


async def sample(case: Case, folder: Path) -> Path:
    """Run a load once; return perf's file."""
    async with Regtest() as chain:
        scene = SampledScene(
            *(chain, Ours(chain, folder / "lsp", case.extra_ppm), folder, case), count_fsyncs=False
        )
        scene.samples = folder / "perf.data"
        try:
            await LOADS[case.part](scene)
        finally:
            await scene.close()
        return scene.samples


def main() -> None:
    """Sample; print the stacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", choices=CASES)
    folder = Path(tempfile.mkdtemp(prefix="ldkjit-flame-"))
    try:
        samples = asyncio.run(sample(CASES[parser.parse_args().load], folder))
        # Inlined calls are not resolved: that takes minutes.
        subprocess.run(["perf", "script", "--no-inline", "-i", str(samples)], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
