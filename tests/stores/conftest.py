"""Fixtures of the store tests: a schema for each test, a proxy before the server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from postgres import Proxy, Server

_numbers = itertools.count(1)


@pytest.fixture
def schema() -> str:
    """One that no other test has."""
    return f"test_{next(_numbers)}"


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    made = Proxy(postgres.port)
    yield made
    made.close()
