"""A pytest plugin: a chain for the session, and an LSP, a payer and a wallet for a test.

It loads wherever ldkjit and pytest are installed; whoever has fixtures of these names keeps their
own. All but ``chain`` are coroutines, and there with pytest-asyncio: ``ldkjit[testing]``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from ..sandbox import Regtest, make_chain


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ldkjit-chain``: which chain the fixtures are on."""
    parser.getgroup("ldkjit").addoption(
        "--ldkjit-chain",
        choices=("bitcoind", "boxed"),
        help="the chain of ldkjit's fixtures; by default bitcoind if this machine has one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures that are coroutines, if there is what runs them."""
    if config.pluginmanager.hasplugin("asyncio"):
        from . import fixtures

        config.pluginmanager.register(fixtures, "ldkjit-fixtures")


@pytest.fixture(scope="session")
def chain(request: pytest.FixtureRequest) -> Generator[Regtest, None, None]:
    """A regtest that all tests of the session share: mine with ``await chain.mine()``."""
    made = make_chain(request.config.getoption("--ldkjit-chain"))
    _elsewhere(made.start())
    yield made
    _elsewhere(made.stop())


def _elsewhere(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end in a thread, so that no event loop of the tests' is touched."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # raised again below
            failed.append(error)

    thread = threading.Thread(target=run, name="ldkjit-chain")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
