"""The one way between asyncio and the native node: calls by id, answers by a watched descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from . import _store
from ._hooks import HookRunner
from .errors import ForkError, NodeStoppedError, WrongLoopError, from_native
from .storage.protocol import Store

_RESULT, _ERROR, _LOG, _QUESTION, _FORGET = range(5)
_LEVELS = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": 5,
    "GOSSIP": 3,
}


class NativeLike(Protocol):
    """What the bridge needs of ``ldkjit._ldkjit.Native``."""

    def fileno(self) -> int:
        """A descriptor that is readable when ``drain`` has something."""
        ...

    def call(self, id: int, method: str, params: str, /) -> None:
        """Start a method."""
        ...

    def use_store(self, door: Any, /) -> None:
        """Keep everything in a store of Python's, from the start on."""
        ...

    def cancel(self, id: int, /) -> None:
        """Forget an answer."""
        ...

    def drain(self) -> list[tuple[int, int, str]]:
        """All answers that are there, and a batch of log records."""
        ...

    def question_fileno(self) -> int:
        """A descriptor that is readable when ``question`` has something, and at the end."""
        ...

    def question(self) -> tuple[int, str] | None:
        """The next question for the thread of the hooks."""
        ...

    def answer(self, id: int, body: str, /) -> None:
        """Answer a question."""
        ...

    def close(self) -> None:
        """End every thread."""
        ...


class Caller(Protocol):
    """What a node calls its native module through: a ``Bridge``, or a socket (``control.py``)."""

    def check(self) -> None:
        """Refuse whoever does not own the node."""
        ...

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call a method and wait for its answer."""
        ...

    async def stop(self) -> None:
        """Have the node store everything and stop."""
        ...

    def close(self) -> None:
        """End it; whoever still waits gets ``NodeStoppedError``."""
        ...


def _release(
    loop: asyncio.AbstractEventLoop, descriptor: int, native: NativeLike, pid: int
) -> None:
    """Close the native module, unless this is a forked child, which has none of its threads."""
    if os.getpid() != pid:
        return
    if not loop.is_closed():
        loop.remove_reader(descriptor)  # before its number can be given to another file
    native.close()


class Bridge:
    """One started native module, bound to the running event loop.

    Args:
        make: Makes the native module.
        hooks: The operator's hooks, if there are any.
    """

    def __init__(self, make: Callable[[], NativeLike], hooks: HookRunner | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._native = make()
        self._hooks = hooks
        descriptor = self._native.fileno()
        # Runs at the interpreter's exit too, so that nobody has to close anything.
        self._close_native = weakref.finalize(
            self, _release, self._loop, descriptor, self._native, self._pid
        )
        reference: weakref.ref[Bridge] = weakref.ref(self)
        # The loop must not keep the bridge alive, or forgetting a node would never close it.
        self._loop.add_reader(descriptor, _drain, reference)
        if hooks is not None:
            hooks.start(self._native)

    def use_store(self, store: Store) -> None:
        """Keep everything in a store of Python's, from the start on."""
        from ._ldkjit import StoreDoor

        door = StoreDoor()
        _store.serve(store, door)
        self._native.use_store(door)

    def check(self) -> None:
        """Refuse whoever does not own the node.

        Raises:
            ForkError: This is a forked child.
            WrongLoopError: Another event loop is running than at the start.
        """
        if os.getpid() != self._pid:
            raise ForkError("the node belongs to the process this one was forked from")
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError("the node was started in another event loop")

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call a method and wait for its answer.

        Cancelling forgets the answer; what was begun goes on.

        Raises:
            ForkError: This is a forked child.
            WrongLoopError: Another event loop is running than at the start.
            NodeStoppedError: The bridge is closed.
            LdkJitError: What the node answered.
        """
        self.check()
        if not self._close_native.alive:
            raise NodeStoppedError("the node is stopped")
        id = next(self._ids)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[id] = future
        try:
            self._native.call(id, method, json.dumps(params))
            return await future
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the cancellation is what the caller must see
                self._native.cancel(id)
            raise
        finally:
            del self._waiting[id]
            if future.done() and not future.cancelled():
                future.exception()  # seen, even if a cancellation overtook it
            del future  # its exception holds this frame

    async def stop(self) -> None:
        """Have the node store everything and stop."""
        if self._hooks is not None:
            self._hooks.spare()
        await self.call("stop")

    def drain(self) -> bool:
        """Hand every answer to its caller and a batch of records to ``logging``.

        Returns:
            Whether there was anything; if more is left, the descriptor stays readable.
        """
        items = self._native.drain()
        for kind, id, text in items:
            if kind == _LOG:
                _log(json.loads(text))
                continue
            if kind in (_QUESTION, _FORGET):
                if self._hooks is None:
                    continue
                if kind == _QUESTION:
                    self._hooks.ask(id, text)
                else:
                    self._hooks.forget(id)
                continue
            future = self._waiting.get(id)
            if future is None or future.done():
                continue
            if kind == _RESULT:
                future.set_result(json.loads(text))
            else:
                future.set_exception(from_native(text))
        return bool(items)

    def close(self) -> None:
        """End the native module; whoever still waits gets ``NodeStoppedError``."""
        if not self._close_native.alive:
            return
        self._close_native()
        if self._hooks is not None and os.getpid() == self._pid:
            self._hooks.stop()
        if os.getpid() == self._pid:
            while self.drain():  # what was said on the way out, e.g. why a store failed
                pass
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NodeStoppedError("the node was stopped"))


def _drain(reference: weakref.ref[Bridge]) -> None:
    bridge = reference()
    if bridge is not None:
        bridge.drain()


def _log(record: dict[str, Any]) -> None:
    target = str(record["target"]).replace("::", ".")
    name = "ldkjit." + target.removeprefix("ldkjit_").removeprefix("ldkjit.")
    logging.getLogger(name).log(
        _LEVELS.get(str(record["level"]).upper(), logging.INFO), "%s", record["message"]
    )
