"""One node as a process of its own: killed at any moment, started again where it was."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from pathlib import Path
from typing import Any


class CallError(Exception):
    """The node refused a call."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class DiedError(Exception):
    """The process ended before it answered."""


class Process:
    """A ``soak-node``, or a program that speaks like one, on its own data folder.

    Attributes:
        name: Its folder and log.
        status: What it said of itself when it last started.
        trouble: What is to go wrong in its next run only, as node.rs reads it.
        store: The command that serves its store, if that is an external one.
        died_at: The named moment at which it last ended itself, if it did.
        stopped: The code of the error with which it last stopped by itself, if it did.
        killed: It was, in this run.
        dead: Set while there is no process.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        name: str,
        config: dict[str, Any],
        env: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.config = {**config, "data_dir": str(folder / name), "alias": name}
        self.status: dict[str, Any] = {}
        self.trouble: dict[str, Any] = {}
        self.store: list[str] | None = None
        self.died_at: str | None = None
        self.stopped: str | None = None
        self.killed = False
        self.dead = asyncio.Event()
        self.dead.set()
        self._binary = binary
        self._env = env
        self._arguments = arguments
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        # Held while a process is made: who stops it meanwhile means that one.
        self._making = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def start(self, timeout: float = 60.0) -> None:
        """Start, and wait until it is in step with the chain."""
        async with self._making:
            started = await self._make()
        self.status = await asyncio.wait_for(started, timeout)

    async def _make(self) -> asyncio.Future[dict[str, Any]]:
        # One that failed to start may still be on its way out: its end is not that of the next.
        if self._reader is not None:
            await self._reader
        self.died_at, self.stopped, self.killed = None, None, False
        trouble, self.trouble = self.trouble, {}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            # No core files: an armed moment ends in an abort.
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                'ulimit -c 0; exec "$0" "$@"',
                str(self._binary),
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._env,
                limit=64 * 1024 * 1024,
                start_new_session=True,
            )
        self.dead.clear()
        started = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process, started))
        self._write({"config": self.config, "trouble": trouble, "store": self.store})
        return started

    async def call(self, method: str, timeout: float = 40.0, **params: Any) -> Any:
        """Call a method.

        Raises:
            CallError: The node refused it.
            DiedError: The process ended first.
            TimeoutError: It did not answer: a node that hangs is a failure.
        """
        if self.dead.is_set():
            raise DiedError(self.name)
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._write({"id": number, "method": method, "params": params})
            return await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"{self.name}: {method} was not answered in {timeout} s") from None
        finally:
            self._calls.pop(number, None)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, timeout: float = 30.0) -> None:
        """Stop it in order; kill it if it does not."""
        async with self._making:
            process, reader = self._process, self._reader
        if process is None or reader is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(self.dead.wait(), timeout)
        finally:
            self.kill()
            await reader

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(
        self, process: asyncio.subprocess.Process, started: asyncio.Future[dict[str, Any]]
    ) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = json.loads(raw)
            if "id" in line:
                answer = self._calls.pop(line["id"], None)
                if answer is None or answer.done():
                    continue
                if "error" in line:
                    error = line["error"]
                    # It cannot save and is about to stop: as good as dead.
                    if error["code"] in ("store", "stopped"):
                        answer.set_exception(DiedError(self.name))
                        continue
                    answer.set_exception(CallError(error["code"], error["message"]))
                else:
                    answer.set_result(line["result"])
            elif "started" in line:
                started.set_result(line["started"])
            elif "failed" in line and not started.done():
                error = line["failed"]
                started.set_exception(CallError(error["code"], error["message"]))
            elif "died_at" in line:
                self.died_at = line["died_at"]
            elif line.get("stopped") is not None:
                self.stopped = line["stopped"]["code"]
        await process.wait()
        self.dead.set()
        if not started.done():
            started.set_exception(DiedError(self.name))
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(DiedError(self.name))
