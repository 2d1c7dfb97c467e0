"""What all tests share: hypothesis profiles, and what is done when a real component is missing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from ldkjit.sandbox.bitcoind import BitcoindNotFoundError, find_bitcoind

# importlib mode adds no folder to sys.path; programs.py and handmade.py are for all folders.
sys.path.insert(0, str(Path(__file__).parent))
# What the benchmarks make of their figures is tested too.
sys.path.insert(1, str(Path(__file__).parent.parent / "benches"))

if TYPE_CHECKING:
    from postgres import Server

settings.register_profile("fast", max_examples=100, deadline=None)
settings.register_profile("slow", max_examples=5_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_CI = os.environ.get("CI", "") not in ("", "0", "false")


def _missing(reason: str) -> None:
    """A skip that says why; in CI, where everything must run, a failure."""
    if _CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def bitcoind() -> Path:
    """The bitcoind to test with."""
    try:
        return find_bitcoind()
    except BitcoindNotFoundError as error:
        _missing(str(error))
        raise


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server that all tests share; each takes a schema of its own."""
    from postgres import NoPostgresError, server

    try:
        with server() as running:
            yield running
    except NoPostgresError as error:
        _missing(str(error))


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """A PostgreSQL server that the test may kill."""
    from postgres import NoPostgresError, server

    try:
        with server() as running:
            yield running
    except NoPostgresError as error:
        _missing(str(error))


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("bitcoind"):
        request.getfixturevalue("bitcoind")
    if request.node.get_closest_marker("native") and not importlib.util.find_spec("ldkjit._ldkjit"):
        _missing("the extension is not built: make build")
