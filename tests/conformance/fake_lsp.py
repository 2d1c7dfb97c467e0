"""An LSP without a node: clients connect to it, and a script answers each message of theirs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from .bolt8 import Bolt8Error, new_key
from .curve import public_key
from .peer import Peer, PeerGoneError

ARRIVAL_TIMEOUT_S = 10.0
# Among the answers: hang up.
HANG_UP = None
_HOST = "127.0.0.1"


class Heard(NamedTuple):
    """An LSPS payload, and on which connection it came, counted from 0."""

    connection: int
    payload: bytes


# Gives the payloads to send, of which there may be any number.
Script = Callable[[bytes], Awaitable[Sequence[bytes | None]]]


class FakeLsp:
    """``async with FakeLsp(script) as lsp:``; at the end it raises what the script raised.

    Attributes:
        heard: Every LSPS payload of a client.
        peers: Every connection so far, of which the last may be open.
    """

    def __init__(self, script: Script, features: Iterable[int] = (), host: str = _HOST) -> None:
        self.heard: list[Heard] = []
        self.peers: list[Peer] = []
        self._script = script
        self._features = frozenset(features)
        self._host = host
        self._key = new_key()
        self._arrivals: asyncio.Queue[Peer] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeLsp:
        self._server = await asyncio.start_server(self._accept, self._host, 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def node_id(self) -> str:
        """Its node id."""
        return public_key(self._key).hex()

    @property
    def address(self) -> str:
        """Where it is: ``node_id@host:port``."""
        assert self._server is not None
        return f"{self.node_id}@{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def arrival(self) -> Peer:
        """The next client that connects, or has connected."""
        return await asyncio.wait_for(self._arrivals.get(), ARRIVAL_TIMEOUT_S)

    async def close(self) -> None:
        """Hang up, and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for each in ended:
            if isinstance(each, Exception):
                raise each

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # Kept to the end, so that none fails unnoticed.
        self._tasks.add(asyncio.create_task(work))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = await Peer.accept(reader, writer, self._key, self._features)
        except (EOFError, OSError, Bolt8Error):
            return
        async with peer:
            connection = len(self.peers)
            self.peers.append(peer)
            self._arrivals.put_nowait(peer)
            with contextlib.suppress(PeerGoneError):
                while True:
                    payload = await peer.wait()
                    self.heard.append(Heard(connection, payload))
                    self._start(self._answer(peer, payload))

    async def _answer(self, peer: Peer, payload: bytes) -> None:
        for answer in await self._script(payload):
            if answer is None:
                await peer.close()
                return
            # Who has gone gets no answer.
            with contextlib.suppress(OSError):
                await peer.send(answer)
