"""Fixtures of the integration tests: one regtest a module, and nodes that go with their test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from support import Pair, belongings, pair_of, retire

from ldkjit.sandbox import Sandbox


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
        await retire(chain, name)


@pytest_asyncio.fixture(loop_scope="module")
async def pair(box: Sandbox) -> Pair:
    """Ann and Bob, made for this test."""
    return await pair_of(box)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _module_pair(chain: Sandbox) -> Pair:
    return await pair_of(chain, "shared-")


@pytest_asyncio.fixture(loop_scope="module")
async def shared_pair(_module_pair: Pair, box: Sandbox) -> AsyncGenerator[Pair, None]:
    """The module's Ann and Bob, whose money and records no test may change."""
    nodes = (_module_pair.ann, _module_pair.bob)
    before = [await belongings(node) for node in nodes]
    yield _module_pair
    assert [await belongings(node) for node in nodes] == before
