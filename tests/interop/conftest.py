"""Fixtures of the interop tests: LND is built once; each test has nodes of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from ldkjit.sandbox import Sandbox

from .building import BuildError
from .lnd_program import find_lnd
from .stage import Stage

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def lnd_programs() -> Path:
    """The folder of LND. These tests are asked for by name: without it they fail."""
    try:
        return find_lnd()
    except BuildError as error:
        pytest.fail(str(error))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(bitcoind: Path) -> AsyncGenerator[Sandbox, None]:
    """A regtest that a module's tests share."""
    async with Sandbox() as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def stage(
    lnd_programs: Path, chain: Sandbox, request: pytest.FixtureRequest
) -> AsyncGenerator[Stage, None]:
    """The module's regtest, with nodes that end with the test; LND's logs stay if it fails."""
    made = Stage(chain, lnd_programs)
    in_order = False
    try:
        yield made
        await made.close_books()
        in_order = not request.node.stash.get(_FAILED, False)
    finally:
        for folder in await made.end(keep=not in_order):
            print(f"kept for inspection: {folder}")
