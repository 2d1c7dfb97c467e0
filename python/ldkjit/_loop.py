"""The thread on which a node's event loop runs for a program that blocks."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, TypeVar

from .errors import ForkError, NodeStoppedError, WrongLoopError
from .node import Node

T = TypeVar("T")

_Outcome = tuple[list[T], BaseException | None]

# For hooks that swallow their cancellation.
_WIND_UP_S = 3.0
# For those that block the loop; above what both this and ``Native.close``, five seconds, may take.
_END_S = 10.0


class LoopNode(Node):
    """A node that can also be left as it is."""

    def abandon(self) -> None:
        """Let go of everything at once, which equals a crash and is safe."""
        if self._bridge is not None:
            self._bridge.close()


class LoopThread(threading.Thread):
    """An event loop, a thread that runs it, and the node that lives there.

    A daemon, so that no exit waits for it.

    Args:
        node: Not started yet.
        owner: When it is forgotten, the thread ends.

    Attributes:
        node: As given; answers only on the loop.
        shut: It takes no more calls.
    """

    def __init__(self, node: LoopNode, owner: object) -> None:
        super().__init__(name="ldkjit-loop", daemon=True)
        self.node = node
        self.shut = False
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        # No lock: a signal's handler or a finaliser may call in the midst of a call.
        self._waiting: set[SimpleQueue[Any]] = set()
        self._leaving = False
        self._forgotten = weakref.finalize(owner, self._ask_to_end)
        self._forgotten.atexit = False  # end_all waits as well
        try:
            self.start()
        except RuntimeError:  # no thread can be had
            self._forgotten.detach()
            self._loop.close()
            raise
        except BaseException:  # Ctrl-C, and it may have begun
            self._ask_to_end()
            raise

    def check(self) -> None:
        """Refuse whoever may not wait for this thread.

        Raises:
            ForkError: This is a forked child, which does not have it.
            WrongLoopError: This is the thread of a node.
        """
        if os.getpid() != self._pid:
            raise ForkError("the node belongs to the process this one was forked from")
        refuse_loops()

    def call(self, begin: Callable[[LoopNode], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop and wait for its answer; an exception here cancels it.

        Raises:
            ForkError: This is a forked child.
            WrongLoopError: This is the thread of a node.
            NodeStoppedError: The thread ends or has ended.
        """
        self.check()
        # Ctrl-C may come anywhere here, so nothing in Python holds a lock that the loop needs:
        # ``concurrent.futures`` does, and its coroutine could be left without anybody to run it.
        begun: list[asyncio.Task[T]] = []
        done: SimpleQueue[_Outcome[T]] = SimpleQueue()
        try:
            self._waiting.add(done)  # first: the thread's end answers it, or the loop is closed
            if not self._soon(self._begin, begin, begun, done):
                done.put(_stopped())
            result, error = done.get()
        except BaseException:
            self._soon(_cancel, begun)
            raise
        finally:
            self._waiting.discard(done)
        if error is None:
            return result[0]
        daemon = threading.current_thread().daemon
        if self._leaving and daemon and isinstance(error, NodeStoppedError):
            error = SystemExit()  # ends a thread without a word: stderr may be going already
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def _begin(
        self,
        begin: Callable[[LoopNode], Coroutine[Any, Any, T]],
        begun: list[asyncio.Task[T]],
        done: SimpleQueue[_Outcome[T]],
    ) -> None:
        if self.shut:
            return

        def ended(task: asyncio.Task[T]) -> None:
            # A task that the caller let go of would take Ctrl-C into its weak references.
            begun.clear()
            if task.cancelled():
                done.put(_stopped())
            elif error := task.exception():
                done.put(([], error))
            else:
                done.put(([task.result()], None))

        task = self._loop.create_task(begin(self.node))
        begun.append(task)
        task.add_done_callback(ended)

    def _soon(self, callback: Callable[..., object], *given: object) -> bool:
        """Whether the loop may still come to it: it is not closed."""
        try:
            self._loop.call_soon_threadsafe(callback, *given)
        except RuntimeError:
            return False
        return True

    def end(self) -> None:
        """Abandon what is left, and wait until the thread is gone, but not for ever."""
        if os.getpid() == self._pid:
            self._ask_to_end()
            self.join(_END_S)

    @staticmethod
    def end_all() -> None:
        """At the interpreter's exit, which must not find one of them inside Rust."""
        threads = [each for each in list(_running) if each._pid == os.getpid()]
        for thread in threads:
            thread._leaving = True
            thread._ask_to_end()
        due = time.monotonic() + _END_S
        for thread in threads:
            thread.join(max(0.0, due - time.monotonic()))

    def _ask_to_end(self) -> None:
        # Also called by the garbage collector, which may be anywhere: takes no lock, never waits.
        if os.getpid() == self._pid:
            self._soon(self._stop)

    def _stop(self) -> None:
        if not self.shut:  # or it would stop the winding up
            self._loop.stop()

    def run(self) -> None:
        """What the thread does."""
        _running.add(self)
        try:
            self._loop.run_forever()
        finally:  # by the KeyboardInterrupt of a hook too
            self.shut = True
            try:
                self.node.abandon()
                self._loop.run_until_complete(self._wind_up())
            finally:
                self._loop.close()
                with contextlib.suppress(KeyError):  # they come and go meanwhile
                    while True:
                        self._waiting.pop().put(_stopped())
                self._forgotten.detach()
                _running.discard(self)

    async def _wind_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_WIND_UP_S)
        await self._loop.shutdown_asyncgens()


def refuse_loops() -> None:
    """Refuse to block a node's own thread.

    Raises:
        WrongLoopError: This is one.
    """
    if isinstance(threading.current_thread(), LoopThread):
        raise WrongLoopError(
            "a policy's coroutine would wait for its own loop: use asyncio.to_thread"
        )


def _stopped() -> _Outcome[Any]:
    return [], NodeStoppedError("the node was stopped")


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


_running: set[LoopThread] = set()


# What is registered last runs first. The first finalizer registers weakref's function, which would
# close the native modules while their threads run.
weakref.finalize(LoopThread, LoopThread.end_all).detach()
atexit.register(LoopThread.end_all)
