"""The fixtures of ``plugin.py`` that are coroutines of pytest-asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from ..node import Node
from ..sandbox import Regtest
from .scenario import Scenario


@pytest_asyncio.fixture
async def scenario(chain: Regtest) -> AsyncGenerator[Scenario, None]:
    """An LSP, a payer and wallets, made when they are asked for and gone with the test."""
    async with Scenario(chain) as made:
        yield made


@pytest_asyncio.fixture
async def lsp(scenario: Scenario) -> Node:
    """A funded LSP that sells channels."""
    return await scenario.lsp()


@pytest_asyncio.fixture
async def payer(scenario: Scenario) -> Node:
    """A node with a channel to the LSP, from which it can pay."""
    return await scenario.payer()


@pytest_asyncio.fixture
async def wallet(scenario: Scenario) -> Node:
    """A wallet without coins and channels that buys from the LSP."""
    return await scenario.wallet()
