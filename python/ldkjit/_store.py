"""The thread on which a store of Python's is called: by its node through a door, and by guests."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimeoutError_
from functools import partial
from typing import Any, Protocol, TypeVar

from .errors import ForkError, LdkJitError, StoreError, StoreLockedError
from .storage.protocol import Change, Delete, Loaded, Put, Row, Store

_log = logging.getLogger("ldkjit.store")
# A node that has stopped lets go of its store at once; one whose store hangs may never.
_LET_GO_S = 10.0
# A guest that waits for longer would keep a program from ending.
_ANSWER_S = 60.0
_T = TypeVar("_T")


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
_threads: dict[int, _Thread] = {}
_turn = threading.Lock()


def serve(store: Store, door: Door) -> None:
    """Answer what comes through a door, on a thread of its own, until the door is closed.

    The thread is a daemon: the interpreter ends without it, which equals a crash and is safe.
    """
    with _turn:
        _start(store, door)


@contextlib.contextmanager
def guest(store: Store) -> Generator[Callable[[str, int, int], Sequence[Row]]]:
    """Call ``Store.rows`` on a store's thread: between two calls of its node, if one has it.

    A store that no node of this process has is loaded for it, and closed at the end.

    Yields:
        What calls it, and waits for its answer.

    Raises:
        ForkError: The store is in use by the process that this one was forked from.
        StoreError: It cannot be loaded; or, where it is called, it fails or was closed.
    """
    with _turn:
        thread = _threads.get(id(store))
        if thread is not None and thread.process != os.getpid():
            raise ForkError("the store belongs to the parent process")
        alone = thread is None or thread.over
        if thread is None or alone:
            thread = _start(store, None)
    try:
        if alone:
            thread.ask(store.load)
        yield lambda kind, after, limit: thread.ask(lambda: store.rows(kind, after, limit))
    finally:
        if alone:
            thread.end()


class _Thread(threading.Thread):
    """Where one store is called.

    Attributes:
        process: Its id.
        over: Whether no more guests come here: it has no node, or its node lets go of the store.
    """

    def __init__(self, store: Store, door: Door | None, before: _Thread | None) -> None:
        super().__init__(name="ldkjit-store", daemon=True)
        self.process = os.getpid()
        self.over = door is None
        self._store = store
        self._door = door
        self._before = before
        self._guests: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._ended = False
        # A byte for each guest, and the end of what is sent for the end.
        self._ear, self._bell = socket.socketpair()

    def ask(self, work: Callable[[], _T]) -> _T:
        """Call a function on this thread, from any other.

        Raises:
            StoreError: It fails, or the store is closed.
        """
        answer: Future[_T] = Future()
        with _turn:
            if self._ended:
                raise _closed()
            self._guests.append((work, answer))
            self._bell.send(b"x")
        try:
            return answer.result(_ANSWER_S)
        except TimeoutError_:
            raise StoreError("the store does not answer") from None

    def end(self) -> None:
        """End a thread without a node."""
        with _turn:
            self._bell.close()

    def run(self) -> None:
        """Answer, until the door is closed or nobody will ask any more."""
        name = type(self._store).__name__
        try:
            # Not inside Rust: the interpreter knows how to end with a thread that waits here.
            with selectors.DefaultSelector() as ready:
                ready.register(self._ear, selectors.EVENT_READ, self._host)
                if (door := self._door) is not None:
                    ready.register(door.fileno(), selectors.EVENT_READ, partial(self._serve, door))
                while all(key.data(name) for key, _ in ready.select()):
                    pass
        finally:
            self._end()

    def _serve(self, door: Door, name: str) -> bool:
        """Answer the node; whether there will be more."""
        os.read(door.fileno(), 1)
        asked = door.take()
        if asked is None:
            return False
        if asked[0] == "close":
            self.over = True
        if self._free():
            _answer(self._store, name, door, asked)
        else:
            busy = _busy()
            door.failed(busy.code, _told(name, busy), None, None)
        return True

    def _host(self, name: str) -> bool:
        """Answer a guest; whether there will be more."""
        if not self._ear.recv(1):
            return False
        work, answer = self._guests.popleft()
        try:
            if not self._free():
                raise _busy()
            answer.set_result(work())
        except LdkJitError as error:
            answer.set_exception(error)
        except BaseException as error:  # whatever it is: nobody must wait for ever
            _log.error("%s failed for a reader", name, exc_info=error)
            told = StoreError(_told(name, error))
            told.__cause__ = error
            answer.set_exception(told)
        return True

    def _free(self) -> bool:
        """Whether who had the store before has let go of it."""
        while self._before is not None:
            self._before.join(_LET_GO_S)
            if self._before.is_alive():
                return False
            self._before = self._before._before  # one that was refused ends before who has it
        return True

    def _end(self) -> None:
        self.over = True
        if self._door is not None:
            self._door.close()
        if self._before is None:
            # After an orderly stop it is closed already; after anything else it is closed here.
            with contextlib.suppress(BaseException):
                self._store.close()
        with _turn:
            self._ended = True
            for _, answer in self._guests:
                answer.set_exception(_closed())
            self._ear.close()
            self._bell.close()
            if _threads.get(id(self._store)) is self:
                if self._before is None or self._before._ended:
                    del _threads[id(self._store)]
                else:
                    _threads[id(self._store)] = self._before  # it has the store still


def _start(store: Store, door: Door | None) -> _Thread:
    thread = _Thread(store, door, _threads.get(id(store)))
    thread.start()
    _threads[id(store)] = thread
    return thread


def _busy() -> StoreLockedError:
    return StoreLockedError("another node or history of this process has it")


def _closed() -> StoreError:
    return StoreError("the store was closed meanwhile", retryable=True)


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
