"""Runs an operator's hooks: coroutines on the event loop, functions on a thread of their own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import ConfigError
from .policy import HOOKS, Answer, read_question, write_answer

_log = logging.getLogger("ldkjit.policy")
# Questions given up that are remembered.
_MEMORY = 1_000
# Threads that hang in a hook cannot be ended. With so many of them no further one is begun; the
# node then gives safe answers until one comes back.
_MAX_STUCK = 32

Hook = Callable[[Any], Any]


class Answering(Protocol):
    """What the hooks need of ``ldkjit._ldkjit.Native``."""

    def question_fileno(self) -> int:
        """A descriptor that is readable when ``question`` has something, and at the end."""
        ...

    def question(self) -> tuple[int, str] | None:
        """The next question for the thread."""
        ...

    def answer(self, id: int, body: str, /) -> None:
        """Answer a question."""
        ...


def is_coroutine(hook: Hook) -> bool:
    """Whether a hook runs on the event loop."""
    call = getattr(hook, "__call__", None)  # noqa: B004 - of an object that has one of its own
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call)


def collect(policy: object | None, functions: Mapping[str, Hook | None]) -> dict[str, Hook]:
    """The hooks of a policy and of a configuration, by name.

    Raises:
        ConfigError: One is given twice, or does not take one argument, or there is none in
            ``policy``.
    """
    found = {name: hook for name, hook in functions.items() if hook is not None}
    own = {name: getattr(policy, name) for name in HOOKS if hasattr(policy, name)}
    if policy is not None and not own:
        raise ConfigError(f"policy: {type(policy).__name__} has none of {', '.join(HOOKS)}")
    for name, hook in own.items():
        if name in found:
            raise ConfigError(f"policy: {name} is in the configuration too")
        found[name] = hook
    for name, hook in found.items():
        if not callable(hook):
            raise ConfigError(f"policy: {name} is no function")
        try:
            inspect.signature(hook).bind(object())
        except (TypeError, ValueError):
            raise ConfigError(f"policy: {name} must take one argument, the question") from None
    return found


def _fault(kind: str, text: str) -> str:
    return json.dumps({"fault": {"kind": kind, "text": text[:1_000]}})


def _raised(error: BaseException) -> str:
    return _fault("raised", f"{type(error).__name__}: {error}")


@dataclass
class _Worker:
    """A thread, and the question it is at."""

    thread: threading.Thread | None = None
    busy: int | None = None
    replaced: bool = False


class HookRunner:
    """The hooks of one started node.

    Args:
        hooks: By name.
        loop: The node's event loop.
        record: Given, keeps every question and its answer.
    """

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        loop: asyncio.AbstractEventLoop,
        record: Callable[[str, str | None, int], None] | None = None,
    ) -> None:
        self._hooks = dict(hooks)
        self._record = record
        self._loop = loop
        self._context = contextvars.copy_context()
        self._pid = os.getpid()
        # Those whose answer is waited for, and all that run: the loop itself keeps none alive.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[Any] | None = None
        self._native: Answering | None = None
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._stuck: list[_Worker] = []
        self._last: _Worker | None = None  # it hangs too, and may have no successor
        self._given_up: deque[int] = deque(maxlen=_MEMORY)

    def places(self) -> dict[str, str]:
        """Where each hook runs, as the node is told."""
        return {
            name: "loop" if is_coroutine(hook) else "thread" for name, hook in self._hooks.items()
        }

    def start(self, native: Answering) -> None:
        """Begin to answer the questions of this node."""
        self._native = native
        if "thread" in self.places().values():
            self._begin_thread(native)

    def spare(self) -> None:
        """Let the task that calls this go on without anybody waiting for it: it stops the node."""
        self._stopping = _current_task()

    def stop(self) -> None:
        """End what still runs, except the task that calls this: a hook may stop its node."""
        self._tasks.clear()
        for task in list(self._running):
            if task is not _current_task():
                task.cancel()
        # The thread ends with its pipe.

    # On the event loop

    def ask(self, id: int, text: str) -> None:
        """Begin to answer a question on the event loop."""
        # A task takes the context that it is made in.
        task = self._context.copy().run(self._loop.create_task, self._answer(id, text))
        self._tasks[id] = task
        self._running.add(task)
        task.add_done_callback(lambda done: self._ended(id, done))

    def _ended(self, id: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(id, None)
        self._running.discard(task)

    def forget(self, id: int) -> None:
        """Nobody waits for this answer any more."""
        task = self._tasks.pop(id, None)
        if task is not None and task is not self._stopping:
            task.cancel()
        worker, native = self._worker, self._native
        if task is not None or worker is None or native is None:
            return
        with self._lock:
            if worker.busy != id:
                self._given_up.append(id)  # the thread may just have taken it
                return
            self._stuck = [each for each in self._stuck if each.busy is not None]
            if len(self._stuck) >= _MAX_STUCK:
                self._last = worker
                return
            worker.replaced = True
            self._stuck.append(worker)
        self._begin_thread(native)

    async def _answer(self, id: int, text: str) -> None:
        name, began = "?", time.monotonic()
        try:
            name, question = read_question(text)
            told = self._hooks[name](question)
            if not inspect.isawaitable(told):
                body = _fault("nonsense", "a coroutine function that returned no coroutine")
            else:
                body = self._checked(name, await told)
        except asyncio.CancelledError:
            if id not in self._tasks:  # the node has given it up, and said so
                self._keep(text, None, began)
                return
            body = _fault("closed", "cancelled")
        except KeyboardInterrupt:
            self._reply(id, text, _fault("raised", "KeyboardInterrupt"), began)
            raise
        except BaseException as error:  # SystemExit too: a hook ends no program
            self._complain(name, error)
            body = _raised(error)
        self._reply(id, text, body, began)

    # On the thread

    def _begin_thread(self, native: Answering) -> None:
        worker = _Worker()
        # A daemon, as it may hang in a hook when the program ends.
        worker.thread = threading.Thread(
            target=self._context.copy().run,
            args=(self._serve, worker, native),
            name="ldkjit-policy",
            daemon=True,
        )
        self._worker = worker
        worker.thread.start()

    def _serve(self, worker: _Worker, native: Answering) -> None:
        descriptor = native.question_fileno()
        readable = select.poll()
        readable.register(descriptor, select.POLLIN)
        open_ = True
        while open_:
            while (waiting := native.question()) is not None:
                id, text = waiting
                began = time.monotonic()
                with self._lock:
                    if id in self._given_up:
                        continue
                    worker.busy = id
                self._reply(id, text, self._answer_here(text), began)
                with self._lock:
                    worker.busy = None
                    last, self._last = self._last, None
                    if last is not None and last is not worker:
                        # The first that comes back takes the place of the last.
                        last.replaced, worker.replaced = True, False
                        self._stuck = [last if each is worker else each for each in self._stuck]
                        self._worker = worker
                    if worker.replaced:
                        return
            readable.poll()
            try:
                open_ = os.read(descriptor, 64) != b""
            except BlockingIOError:
                continue

    def _answer_here(self, text: str) -> str:
        name = "?"
        try:
            name, question = read_question(text)
            told = self._hooks[name](question)
            if inspect.isawaitable(told):
                _close(told)
                return _fault("nonsense", "a function that returned a coroutine: write async def")
            return self._checked(name, told)
        except BaseException as error:  # SystemExit too: a hook ends no program
            self._complain(name, error)
            return _raised(error)

    # Both

    def _checked(self, name: str, told: Answer) -> str:
        try:
            return write_answer(name, told)
        except Exception as error:
            return _fault("nonsense", str(error))

    def _complain(self, name: str, error: BaseException) -> None:
        """Say where a hook raised: the node says only what."""
        _log.debug("hook %s raised", name, exc_info=error)

    def _reply(self, id: int, text: str, body: str, began: float) -> None:
        if os.getpid() != self._pid:
            # A child that was forked while a hook ran: loop and node are its parent's.
            os._exit(0)
        if self._native is not None:
            self._native.answer(id, body)
            self._keep(text, body, began)

    def _keep(self, text: str, body: str | None, began: float) -> None:
        if self._record is None:
            return
        try:
            self._record(text, body, round((time.monotonic() - began) * 1_000))
        except OSError as error:
            _log.warning("what hooks are asked cannot be kept: %s", error)


def _close(told: Awaitable[Any]) -> None:
    close = getattr(told, "close", None)
    if close is not None:
        close()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
