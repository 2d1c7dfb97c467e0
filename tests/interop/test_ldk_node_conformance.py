"""The conformance suite against ldk-node: it fails where it is known to, and nowhere else.

What is known is in ``ldk_node_conformance.toml``: the tests that it passes, and those that it
fails, and why.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from conformance.page import from_junit, theirs

from ldkjit.sandbox import Regtest

from .ldk_node import LdkNode, LdkService
from .ldk_node_program import find_ldk_node

SUITE = Path(__file__).parents[1] / "conformance"
# They test the suite itself.
OF_TOOLS = ["bolt3", "bolt8", "bolt11", "fake_lsp", "tools"]
TOKEN = "conformance"
# Most of what it fails, it fails by falling silent; and what it does answer, it answers at once.
PATIENCE_S = 2
TIMEOUT_S = 1_200

pytestmark = [pytest.mark.bitcoind, pytest.mark.timeout(TIMEOUT_S + 60)]


async def test_their_lsp_fails_where_it_is_known_to(bitcoind: Path, tmp_path: Path) -> None:
    junit = tmp_path / "tests.xml"
    await run_suite(junit)
    outcomes = from_junit(await asyncio.to_thread(junit.read_text, "utf-8"))
    failed = {name for name, seen in outcomes.items() if "failed" in seen}
    passed = {name for name, seen in outcomes.items() if "passed" in seen} - failed
    them = theirs()
    assert failed | them.luck == them.failing
    # It was asked all of this, and nothing that the list does not know.
    assert passed - them.luck == them.passes


async def run_suite(junit: Path) -> None:
    """Run the suite against an LSP of theirs that its requests do not exhaust."""
    async with Regtest() as chain:
        lsp = LdkNode(find_ldk_node(), chain, "lsp", service=LdkService(require_token=TOKEN))
        await lsp.start()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pytest", str(SUITE), "-q", "--target", lsp.address),
                *("--target-token", TOKEN, "--target-patience", str(PATIENCE_S)),
                *("--junitxml", str(junit), "-p", "no:cacheprovider"),
                *(f"--ignore={SUITE / f'test_{name}.py'}" for name in OF_TOOLS),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=SUITE.parents[1],
            )
            try:
                said, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
            except BaseException:
                process.kill()
                await process.wait()
                raise
            print(said.decode()[-20_000:])
            # It went through all tests: some failed, or none.
            assert process.returncode in (0, 1)
            assert lsp.runs
        finally:
            await lsp.kill()
