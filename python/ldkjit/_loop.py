"""The thread on which a node's event loop runs for a program that blocks."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, TypeVar

from .errors import ForkError, NodeStoppedError, WrongLoopError
from .node import Node

T = TypeVar("T")

_Outcome = tuple[list[T], BaseException | None]

# For what may not want to end: a hook that swallows its cancellation, or that blocks the loop.
_END_S = 5.0


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
    """

    def __init__(self, node: LoopNode, owner: object) -> None:
        super().__init__(name="ldkjit-loop", daemon=True)
        self.node = node
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._gate = threading.Lock()
        self._shut = False
        self._leaving = False
        self._forgotten = weakref.finalize(owner, self._ask_to_end)
        self._forgotten.atexit = False  # _end_all waits as well
        _running.add(self)
        self.start()

    def check(self) -> None:
        """Refuse whoever may not wait for this thread.

        Raises:
            ForkError: This is a forked child, which does not have it.
            WrongLoopError: An event loop runs here, which would wait too.
        """
        if os.getpid() != self._pid:
            raise ForkError("the node belongs to the process this one was forked from")
        refuse_loops()

    def call(self, begin: Callable[[LoopNode], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop and wait for its answer; an exception here cancels it.

        Raises:
            ForkError: This is a forked child.
            WrongLoopError: An event loop runs here.
            NodeStoppedError: The thread ends or has ended.
        """
        self.check()
        # Ctrl-C may come anywhere here, so nothing in Python holds a lock that the loop needs:
        # ``concurrent.futures`` does, and its coroutine could be left without anybody to run it.
        begun: list[asyncio.Task[T]] = []
        done: SimpleQueue[_Outcome[T]] = SimpleQueue()
        try:
            with self._gate:
                if self._shut:
                    raise NodeStoppedError("the node is stopped")
                self._loop.call_soon_threadsafe(self._begin, begin, begun, done)
            result, error = done.get()
        except BaseException:
            self._soon(_cancel, begun)
            raise
        if error is not None:
            raise error
        return result[0]

    def _begin(
        self,
        begin: Callable[[LoopNode], Coroutine[Any, Any, T]],
        begun: list[asyncio.Task[T]],
        done: SimpleQueue[_Outcome[T]],
    ) -> None:
        def ended(task: asyncio.Task[T]) -> None:
            # A task that the caller let go of would take Ctrl-C into its weak references.
            begun.clear()
            if task.cancelled():
                done.put(([], NodeStoppedError("the node was stopped")))
            elif error := task.exception():
                done.put(([], error))
            else:
                done.put(([task.result()], None))

        task = self._loop.create_task(begin(self.node))
        begun.append(task)
        task.add_done_callback(ended)

    def _soon(self, callback: Callable[..., object], *given: object) -> None:
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(callback, *given)

    def end(self, *, leaving: bool = False) -> None:
        """Abandon what is left, and wait until the thread is gone, but not for ever.

        Args:
            leaving: The program ends.
        """
        if os.getpid() == self._pid:
            self._leaving = leaving
            self._ask_to_end()
            self.join(_END_S)

    def _ask_to_end(self) -> None:
        # Also called by the garbage collector, which may be anywhere: takes no lock, never waits.
        if os.getpid() == self._pid:
            self._soon(self._loop.stop)

    def run(self) -> None:
        """What the thread does."""
        try:
            self._loop.run_forever()
        finally:  # by the KeyboardInterrupt of a hook too
            with self._gate:
                self._shut = True
            try:
                # Whatever came through the gate becomes a task, and begins.
                self._loop.run_until_complete(asyncio.sleep(0))
                self.node.abandon()
                # At the exit nobody is told: only daemons still wait, and they go with the program.
                if not self._leaving:
                    self._loop.run_until_complete(self._wind_up())
            finally:
                self._loop.close()
                self._forgotten.detach()
                _running.discard(self)

    async def _wind_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_S)
        await self._loop.shutdown_asyncgens()


def refuse_loops() -> None:
    """Refuse to block a thread in which an event loop runs.

    Raises:
        WrongLoopError: One does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoopError("this call blocks, and an event loop runs here: await ldkjit.Node")


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


_running: set[LoopThread] = set()


def _end_all() -> None:
    """At the interpreter's exit, which must not find one of them inside Rust."""
    for thread in list(_running):
        thread.end(leaving=True)


atexit.register(_end_all)
