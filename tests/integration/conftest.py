"""Fixtures of the integration tests: one regtest a module, and nodes that go with their test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from ldkjit.sandbox import Sandbox

# importlib mode adds no folder to sys.path; the helpers are shared by path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(bitcoind: Path) -> AsyncGenerator[Sandbox, None]:
    """A regtest that a module's tests share."""
    async with Sandbox() as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def box(chain: Sandbox, request: pytest.FixtureRequest) -> AsyncGenerator[Sandbox, None]:
    """The module's regtest; nodes that the test adds are stopped at its end."""
    shared = set(chain.nodes)
    yield chain
    for name in [name for name in chain.nodes if name not in shared]:
        node = chain.nodes.pop(name)
        await node.stop()
        # The next test's node of this name is another one.
        shutil.rmtree(node.config.data_dir)
