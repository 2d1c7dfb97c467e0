"""One suite for every store: ours, one that a user wrote, and some that lie."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from postgres import Server

from ldkjit import StoreError
from ldkjit.storage import Change, Loaded, MemoryStore, PostgresStore, Put, Row, Store
from ldkjit.testing import StoreCheckError, check_store

EXAMPLE = Path(__file__).parents[2] / "examples" / "store.py"


def example() -> Any:
    """The store that docs/stores.md shows."""
    spec = importlib.util.spec_from_file_location("example_store", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_in_memory() -> None:
    store = MemoryStore()
    check_store(lambda: store)


def test_on_postgresql(postgres: Server, schema: str) -> None:
    made: list[PostgresStore] = []

    def make() -> PostgresStore:
        # What was not closed has lost its process: the server notices.
        for store in made:
            store._drop()
        made.append(PostgresStore(postgres.conninfo(), schema=schema))
        return made[-1]

    check_store(make)


def test_of_a_user(tmp_path: Path) -> None:
    made: list[Any] = []

    def make() -> Store:
        if made:
            made[-1].close()
        made.append(example().FileStore(tmp_path / "a.db"))
        return made[-1]

    check_store(make)
    made[-1].close()


class Base(MemoryStore):
    pass


class Forgets(Base):
    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        super().commit(seq, [each for each in batch if not isinstance(each, Row)])


class Repeats(Base):
    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        if seq > self.load().seq:
            super().commit(seq, batch)


class Halves(Base):
    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        for each in batch:
            if isinstance(each, Put):
                self._live[each.kind, each.key] = each.value
        super().commit(seq, batch)


class Crashes(Base):
    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        try:
            super().commit(seq, batch)
        except StoreError as error:
            raise KeyError("oops") from error


class Views(Base):
    def load(self, *, archived: bool = False) -> Loaded:
        found = super().load(archived=archived)
        live = [Put(each.kind, each.key, bytearray(each.value)) for each in found.live]
        return Loaded(found.seq, live, found.last_row)


class Archives(Base):
    def load(self, *, archived: bool = False) -> Loaded:
        return super().load(archived=True)


class Unordered(Base):
    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        return list(reversed(list(super().rows(kind, after, limit))))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Forgets, "a first row with number 2"),
        (Repeats, "commit 0 after 3"),
        (Halves, "changes nothing"),
        (Crashes, "not a StoreError"),
        (Views, "bytes"),
        (Archives, "archived=False"),
        (Unordered, "rows"),
    ],
)
def test_a_store_that_does_something_else_is_told_what(kind: type[MemoryStore], said: str) -> None:
    store = kind()
    with pytest.raises(StoreCheckError, match=said):
        check_store(lambda: store)


def test_a_store_that_is_empty_at_each_call_is_found_out() -> None:
    make: Callable[[], Store] = MemoryStore
    with pytest.raises(StoreCheckError, match="after a crash"):
        check_store(make)
