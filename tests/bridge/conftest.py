"""Fixtures of the bridge tests: a regtest, and a settings file for nodes in other processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest_asyncio

from ldkjit.sandbox import Sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(bitcoind: Path) -> AsyncGenerator[Sandbox, None]:
    """A regtest that a module's tests share."""
    async with Sandbox() as sandbox:
        yield sandbox
