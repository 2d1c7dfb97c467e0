"""The thread of a store of Python's: every question is answered, and nothing is left behind."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ldkjit import (
    ForkError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    StoreVersionError,
    _store,
)
from ldkjit.storage import Change, Delete, Loaded, MemoryStore, Put, Row


class FakeDoor:
    """Asks as the extension does, and waits for the answer."""

    def __init__(self) -> None:
        self.readable, self.writable = os.pipe()
        self.asked: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()

    def ask(self, *request: Any) -> Any:
        self.asked.put(request)
        os.write(self.writable, b"x")
        return self.answers.get(timeout=10)

    def end(self) -> None:
        self.asked.put(None)
        os.write(self.writable, b"x")

    def release(self) -> None:
        os.close(self.readable)
        os.close(self.writable)

    def fileno(self) -> int:
        return self.readable

    def take(self) -> tuple[Any, ...] | None:
        return self.asked.get_nowait()

    def loaded(self, seq: int, live: Any, last_row: dict[str, int], /) -> None:
        self.answers.put((seq, live, last_row))

    def value(self, value: bytes | None, /) -> None:
        if not isinstance(value, bytes | None):
            raise TypeError("bytes are wanted")
        self.answers.put(value)

    def rows(self, rows: Any, /) -> None:
        self.answers.put(rows)

    def done(self) -> None:
        self.answers.put("done")

    def failed(self, code: str, why: str, found: int | None, known: int | None, /) -> None:
        self.answers.put((code, why, found, known))

    def close(self) -> None:
        self.answers.put("closed")


@pytest.fixture
def door() -> Iterator[FakeDoor]:
    made = FakeDoor()
    yield made
    made.end()
    while made.answers.get(timeout=10) != "closed":
        pass
    for thread in threading.enumerate():
        if thread.name == "ldkjit-store":
            thread.join(10)
    made.release()


def test_everything_is_answered(door: FakeDoor) -> None:
    _store.serve(MemoryStore(), door)
    assert door.ask("load", False) == (0, [], {})
    changes = [("put", "k", "a", b"1"), ("delete", "k", "b"), ("row", "event", 1, "x", b"e")]
    assert door.ask("commit", 1, changes) == "done"
    assert door.ask("read", "k", "a") == b"1"
    assert door.ask("read", "k", "b") is None
    assert door.ask("rows", "event", 0, 10) == [(1, "x", b"e")]
    assert door.ask("load", True) == (1, [("k", "a", b"1")], {"event": 1})
    code, why, *_ = door.ask("commit", 5, [])
    assert (code, why) == ("store", "MemoryStore: commit 5 where 2 was due")
    assert door.ask("close") == "done"


class Odd(MemoryStore):
    error: BaseException | None = None

    def read(self, kind: str, key: str) -> Any:
        if self.error is not None:
            raise self.error
        return "text"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, ("store", "Odd: TypeError('bytes are wanted')", None, None)),
        (OSError("gone"), ("store", "Odd: OSError('gone')", None, None)),
        (SystemExit(3), ("store", "Odd: SystemExit(3)", None, None)),
        (StoreFencedError("taken"), ("store_fenced", "Odd: taken", None, None)),
        (
            StoreVersionError("late", details={"found": 9, "known": 1}),
            ("store_version", "Odd: late", 9, 1),
        ),
        (
            StoreVersionError("late", details={"found": "nine"}),
            ("store_version", "Odd: late", None, None),
        ),
    ],
)
def test_whatever_is_raised_is_an_answer(
    door: FakeDoor, error: BaseException | None, told: tuple[Any, ...]
) -> None:
    store = Odd()
    store.error = error
    _store.serve(store, door)
    assert door.ask("read", "k", "a") == told
    # And the thread goes on.
    assert door.ask("load", False) == (0, [], {})


class Held(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.in_it = threading.Event()
        self.closes = 0

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        self.in_it.set()
        assert self.go.wait(10)
        super().commit(seq, batch)

    def close(self) -> None:
        self.closes += 1
        super().close()


def test_one_node_after_the_other(door: FakeDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store, "_LET_GO_S", 0.1)
    store, first = Held(), FakeDoor()
    _store.serve(store, first)
    first.ask("load", False)
    first.asked.put(("commit", 1, [("put", "k", "a", b"")]))
    os.write(first.writable, b"x")
    assert store.in_it.wait(10)
    # The node of the first door is gone, its commit is not.
    first.end()
    _store.serve(store, door)
    code, why, *_ = door.ask("load", False)
    assert (code, why) == ("store_locked", "Held: another node or history of this process has it")
    assert store.closes == 0
    store.go.set()
    assert first.answers.get(timeout=10) == "done"
    assert first.answers.get(timeout=10) == "closed"
    while door.ask("load", False)[0] == "store_locked":
        pass
    assert store.closes == 1
    assert door.ask("read", "k", "a") == b""
    first.release()


class Watched(MemoryStore):
    """Says on which thread it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def load(self, *, archived: bool = False) -> Loaded:
        self.calls.append(("load", threading.get_ident()))
        return super().load(archived=archived)

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        self.calls.append(("rows", threading.get_ident()))
        if kind == "none":
            raise OSError("gone")
        return super().rows(kind, after, limit)

    def close(self) -> None:
        self.calls.append(("close", threading.get_ident()))
        super().close()


def test_a_guest_comes_between_the_calls_of_the_node(
    door: FakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_LET_GO_S", 0.1)
    store = Watched()
    _store.serve(store, door)
    door.ask("load", False)
    door.ask("commit", 1, [("row", "event", 1, "x", b"e")])
    with _store.guest(store) as read:
        assert read("event", 0, 10) == [Row("event", 1, "x", b"e")]
        with pytest.raises(StoreError, match=r"Watched: OSError\('gone'\)"):
            read("none", 0, 10)
        assert door.ask("commit", 2, [("row", "event", 2, "y", b"f")]) == "done"
        assert [each.seq for each in read("event", 1, 10)] == [2]
        assert door.ask("close") == "done"
        # Its node lets go of it: who comes now waits for that, and then loads it.
        with pytest.raises(StoreLockedError), _store.guest(store):
            pass
    assert len({thread for _, thread in store.calls}) == 1


def test_a_guest_of_a_store_without_a_node_loads_and_closes_it() -> None:
    store = Watched()
    store.commit(1, [Row("event", 1, "x", b"e")])
    store.close()
    store.calls.clear()
    with _store.guest(store) as read:
        assert len(read("event", 0, 10)) == 1
    with _store.guest(store) as read:
        assert len(read("event", 0, 10)) == 1
    for thread in threading.enumerate():
        if thread.name == "ldkjit-store":
            thread.join(10)
    assert [what for what, _ in store.calls] == ["load", "rows", "close"] * 2
    assert threading.get_ident() not in {thread for _, thread in store.calls}


def test_a_guest_is_told_when_the_node_ends_or_was_forked_away(
    door: FakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = MemoryStore(), FakeDoor()
    _store.serve(store, first)
    first.ask("load", False)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ForkError), _store.guest(store):
            pass
    with _store.guest(store) as read:
        first.end()
        assert first.answers.get(timeout=10) == "closed"
        with pytest.raises(StoreError, match="closed"):
            read("event", 0, 10)
    first.release()
    _store.serve(store, door)


def test_who_was_refused_leaves_the_store_to_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store, "_LET_GO_S", 0.1)
    store, first, second, third = Watched(), FakeDoor(), FakeDoor(), FakeDoor()
    _store.serve(store, first)
    first.ask("load", False)
    _store.serve(store, second)
    refused = _store._threads[id(store)]
    assert second.ask("load", False)[0] == "store_locked"
    _store.serve(store, third)
    second.end()
    refused.join(10)
    # Who waited for it waits for whom it waited for.
    assert third.ask("load", False)[0] == "store_locked"
    waiting = _store._threads[id(store)]
    third.end()
    waiting.join(10)
    with _store.guest(store) as read:
        assert list(read("kind", 0, 10)) == []
    assert [call for call, _ in store.calls] == ["load", "rows"]
    serving = _store._threads[id(store)]
    first.end()
    serving.join(10)
    for door in (first, second, third):
        door.release()


def test_changes_are_plain_objects() -> None:
    assert _store._change(("put", "k", "a", b"v")) == Put("k", "a", b"v")
    assert _store._change(("delete", "k", "a")) == Delete("k", "a")
    assert _store._change(("row", "k", 1, "a", b"v")) == Row("k", 1, "a", b"v")
    assert "secret" not in repr(Put("k", "a", b"secret"))
