"""A running node answers other programs of its user: over a socket in its data folder.

``ldkjit run`` serves it, and every other command asks there. A program that embeds a node serves it
with ``async with serve(node):``; another one calls the node with ``async with attach(data_dir)``.

The socket is a file that only its owner can open, and whoever connects must run under the node's
own user: whoever can read the data folder has the words anyway. Calls are lines of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

from .config import Bitcoind, NodeConfig
from .errors import ConfigError, LdkJitError, NodeStoppedError, from_native
from .node import Node

_log = logging.getLogger(__name__)

SOCKET = "control.sock"
# Answers hold all channels of an LSP.
_LINE_BYTES = 2**26
# Of a request: no call takes more.
_REQUEST_BYTES = 2**20
# Calls of one program that run at once.
_AT_ONCE = 64
# What would change the node under the program it belongs to, or take its events.
_REFUSED = frozenset({"start", "stop", "shut_down"})
_OWN_CONSUMER = "default"
# struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


async def called(node: Node, method: str, /, **params: Any) -> Any:
    """Call a method of a node's native module by its name, as the node's own methods do.

    Names and parameters are those of this release.

    Raises:
        LdkJitError: What the node answered.
    """
    return await node._call(method, **params)  # pyright: ignore[reportPrivateUsage]


class _Gate:
    """What the socket of one node knows."""

    def __init__(self, node: Node, stop: Callable[[], None] | None) -> None:
        self._node = node
        self._stop = stop
        self._ended = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one program until it goes, or until the node does."""
        if not _is_own(writer):
            _log.warning("a program of another user was turned away")
            writer.close()
            return
        tasks: set[asyncio.Task[None]] = set()
        turns = asyncio.Semaphore(_AT_ONCE)
        ended = asyncio.create_task(self._ended.wait())
        try:
            while True:
                line = asyncio.create_task(_line(reader))
                await asyncio.wait((line, ended), return_when=asyncio.FIRST_COMPLETED)
                if not line.done() or not (asked := line.result()):
                    line.cancel()
                    return
                await turns.acquire()
                task = asyncio.create_task(self._answer(asked, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: turns.release())
        finally:
            # Whoever went does not hear the answer; what was begun goes on.
            for task in (*tasks, ended):
                task.cancel()
            await asyncio.wait((*tasks, ended))
            writer.close()

    def end(self) -> None:
        """Turn everybody away."""
        self._ended.set()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        id: Any = None
        try:
            asked = json.loads(line)
            id, method, params = asked["id"], str(asked["method"]), dict(asked["params"])
        except (ValueError, KeyError, TypeError):
            answer = _error(ConfigError("not a call: an object with id, method and params"))
        else:
            answer = await self._call(method, params)
        writer.write(json.dumps({"id": id, **answer}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            if method == "shut_down" and self._stop is not None:
                self._stop()
                return {"result": None}
            if method in _REFUSED or params.get("consumer") == _OWN_CONSUMER:
                raise ConfigError(f"{method}: is for the program that the node belongs to")
            return {"result": await called(self._node, method, **params)}
        except LdkJitError as error:
            return _error(error)


def _error(error: LdkJitError) -> dict[str, Any]:
    told = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "details": error.details,
    }
    return {"error": told}


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end, or if it is too long."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return b""


def _is_own(writer: asyncio.StreamWriter) -> bool:
    made = writer.get_extra_info("socket")
    told = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(told)
    return uid in (os.getuid(), 0)


@contextlib.contextmanager
def _short(folder: Path) -> Generator[str, None, None]:
    """A path of the socket that is short enough for the system, however long the folder's is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def serve(node: Node, stop: Callable[[], None] | None = None) -> AsyncGenerator[Path, None]:
    """Let other programs of this user call a started node, while the body runs.

    Args:
        node: The node.
        stop: Called when one of them asks that the node be stopped (``ldkjit stop``); None
            refuses that.

    Yields:
        The socket.

    Raises:
        OSError: The socket cannot be made.
    """
    folder = node.config.data_dir
    gate = _Gate(node, stop)
    path = folder / SOCKET
    # A node that was killed left its own; the store's lock says that no other node is here.
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        with _short(folder) as short:
            server = await asyncio.start_unix_server(gate.converse, short, limit=_REQUEST_BYTES)
    finally:
        os.umask(before)
    try:
        yield path
    finally:
        gate.end()
        server.close()
        path.unlink(missing_ok=True)


class _Remote:
    """Stands for the bridge of a node that runs in another process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    def check(self) -> None:
        """Anybody may ask."""

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method and wait for its answer.

        Raises:
            NodeStoppedError: The node has stopped.
            LdkJitError: What the node answered.
        """
        if self._reading.done():
            raise NodeStoppedError("the node has stopped")
        id = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        try:
            line = json.dumps({"id": id, "method": method, "params": params})
            self._writer.write(line.encode() + b"\n")
            return await future
        finally:
            del self._waiting[id]

    async def _read(self) -> None:
        while line := await _line(self._reader):
            told = json.loads(line)
            future = self._waiting.get(told["id"])
            if future is None or future.done():
                continue
            if "error" in told:
                future.set_exception(from_native(json.dumps(told["error"])))
            else:
                future.set_result(told["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NodeStoppedError("the node has stopped"))

    async def stop(self) -> None:
        """Nothing stops but the conversation."""

    def close(self) -> None:
        """End the conversation."""
        self._reading.cancel()
        self._writer.close()


@contextlib.asynccontextmanager
async def attach(data_dir: str | os.PathLike[str]) -> AsyncGenerator[Node, None]:
    """A node that runs in another process, for as long as the body runs.

    It has every method of ``Node`` but ``start``; ``stop`` ends the conversation alone, and
    ``events`` needs a consumer of its own.

    Args:
        data_dir: Its data folder.

    Raises:
        NodeStoppedError: No node runs there that serves others.
        ConfigError: The folder is of another user.
    """
    folder = Path(data_dir)
    try:
        with _short(folder) as short:
            reader, writer = await asyncio.open_unix_connection(short, limit=_LINE_BYTES)
    except PermissionError as error:
        raise ConfigError(f"{folder}: belongs to another user") from error
    except OSError as error:
        why = f"no node runs in {folder} that could be asked: start it with `ldkjit run`"
        raise NodeStoppedError(why) from error
    remote = _Remote(reader, writer)
    # What it follows is its own affair.
    nowhere = Bitcoind("http://127.0.0.1:1", user="", password="")
    config = NodeConfig(data_dir=folder, chain=nowhere, network="regtest")
    try:
        node = Node(config)
        node._bridge = remote  # pyright: ignore[reportPrivateUsage]
        yield node
    finally:
        remote.close()


async def shut_down(data_dir: str | os.PathLike[str]) -> None:
    """Ask the node that runs in a folder to stop in order; return when it has gone.

    Raises:
        NodeStoppedError: None runs there.
        ConfigError: The program it belongs to does not let others stop it.
    """
    async with attach(data_dir) as node:
        await called(node, "shut_down")
        with contextlib.suppress(NodeStoppedError):
            while True:  # the socket closes when it has stopped
                await node.wait_height(2**32 - 1, timeout=600)
