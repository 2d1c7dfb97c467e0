"""The thread on which a store of Python's is called: the node asks through a door, it answers."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from .errors import LdkJitError, StoreError, StoreLockedError
from .storage.protocol import Change, Delete, Loaded, Put, Row, Store

_log = logging.getLogger("ldkjit.store")
# A node that has stopped lets go of its store at once; one whose store hangs may never.
_LET_GO_S = 10.0


class Door(Protocol):
    """What the thread needs of ``ldkjit._ldkjit.StoreDoor``."""

    def fileno(self) -> int:
        """One byte can be read there for each ``take``."""
        ...

    def take(self) -> tuple[Any, ...] | None:
        """What is asked; None when nobody will ask any more."""
        ...

    def loaded(
        self, seq: int, live: Sequence[tuple[str, str, bytes]], last_row: dict[str, int], /
    ) -> None:
        """Answer ``load``."""
        ...

    def value(self, value: bytes | None, /) -> None:
        """Answer ``read``."""
        ...

    def rows(self, rows: Sequence[tuple[int, str, bytes]], /) -> None:
        """Answer ``rows``."""
        ...

    def done(self) -> None:
        """Answer ``commit`` and ``close``."""
        ...

    def close(self) -> None:
        """Nobody asks any more, and whoever waits for an answer has an error."""
        ...

    def failed(self, code: str, why: str, found: int | None, known: int | None, /) -> None:
        """Answer anything with an error."""
        ...


# The thread of each store in use, by the store's id: alive, it keeps the store, and so the id.
_threads: dict[int, threading.Thread] = {}
_turn = threading.Lock()


def serve(store: Store, door: Door) -> None:
    """Answer what comes through a door, on a thread of its own, until the door is closed.

    The thread is a daemon: the interpreter ends without it, which equals a crash and is safe.
    """
    with _turn:
        before = _threads.get(id(store))
        thread = threading.Thread(
            target=_run, args=(store, door, before), name="ldkjit-store", daemon=True
        )
        _threads[id(store)] = thread
        thread.start()


def _run(store: Store, door: Door, before: threading.Thread | None) -> None:
    name = type(store).__name__
    descriptor = door.fileno()
    free = before is None
    try:
        while True:
            # Not inside Rust: the interpreter knows how to end with a thread that reads.
            os.read(descriptor, 1)
            asked = door.take()
            if asked is None:
                return
            if before is not None and not free:
                before.join(_LET_GO_S)
                free = not before.is_alive()
            if free:
                _answer(store, name, door, asked)
            else:
                busy = StoreLockedError("another node of this process has it")
                door.failed(busy.code, _told(name, busy), None, None)
    finally:
        door.close()
        if free:
            # After an orderly stop it is closed already; after anything else it is closed here.
            with contextlib.suppress(BaseException):
                store.close()
        with _turn:
            if _threads.get(id(store)) is threading.current_thread():
                del _threads[id(store)]


def _answer(store: Store, name: str, door: Door, asked: tuple[Any, ...]) -> None:
    what, *arguments = asked
    try:
        if what == "load":
            loaded: Loaded = store.load(archived=arguments[0])
            live = [(each.kind, each.key, each.value) for each in loaded.live]
            door.loaded(loaded.seq, live, dict(loaded.last_row))
        elif what == "commit":
            store.commit(arguments[0], [_change(each) for each in arguments[1]])
            door.done()
        elif what == "read":
            door.value(store.read(*arguments))
        elif what == "rows":
            found = store.rows(*arguments)
            door.rows([(each.seq, each.key, each.value) for each in found])
        else:
            store.close()
            door.done()
    except BaseException as error:  # whatever it is: the node must not wait for ever
        if not isinstance(error, StoreError):
            _log.error("%s failed at %s", name, what, exc_info=error)
        code = error.code if isinstance(error, LdkJitError) else StoreError.code
        details = error.details if isinstance(error, LdkJitError) else {}
        numbers = [details.get("found"), details.get("known")]
        if not all(isinstance(number, int) for number in numbers):
            numbers = [None, None]
        door.failed(code, _told(name, error), *numbers)


def _told(name: str, error: BaseException) -> str:
    text = error.message if isinstance(error, LdkJitError) else repr(error)
    return text if text.startswith(name) else f"{name}: {text}"


def _change(change: tuple[Any, ...]) -> Change:
    what, *fields = change
    if what == "put":
        return Put(*fields)
    if what == "delete":
        return Delete(*fields)
    return Row(*fields)
