"""A Lightning peer without a node: it sends LSPS payloads as they are, and waits for others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple

from .bolt8 import Bolt8Error, Connection, new_key
from .curve import public_key

MESSAGE_TYPE = 37_913
# What is left of a message after its type (T-01).
MAX_PAYLOAD = 65_533
ANSWER_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0

_PAUSE_S = 0.05
_INIT, _ERROR, _PING, _PONG, _WARNING = 16, 17, 18, 19, 1
# A ping that asks for this much or more wants no answer (BOLT 1).
_NO_PONG = 65_532
# BOLT 9, each in its optional bit: what an LSPS2 client needs of a channel, and nothing of gossip.
_FEATURES = {
    "data_loss_protect": 1,
    "var_onion": 9,
    "static_remotekey": 13,
    "payment_secret": 15,
    "basic_mpp": 17,
    "anchors": 23,
    "channel_type": 45,
    "scid_alias": 47,
    "zeroconf": 51,
}


class PeerGoneError(Exception):
    """The other side hung up; the message holds what it complained of."""


class Target(NamedTuple):
    """Where a node is."""

    node_id: bytes
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``node_id@host:port``; the first @ and the last colon count (T-22)."""
        node_id, _, address = text.partition("@")
        host, _, port = address.rpartition(":")
        return cls(bytes.fromhex(node_id), host.strip("[]"), int(port))


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _init(more: Iterable[int], less: Iterable[str] = ()) -> bytes:
    features = {*_FEATURES.values(), *more} - {_FEATURES[name] for name in less}
    bits = sum(1 << bit for bit in features)
    return _sized(b"") + _sized(bits.to_bytes(max(features) // 8 + 1, "big"))


def _unsized(data: bytes) -> tuple[bytes, bytes]:
    """A field that begins with its length, and the rest."""
    end = 2 + int.from_bytes(data[:2], "big")
    return data[2:end], data[end:]


def _features(init: bytes) -> frozenset[int]:
    """The feature bits of an ``init`` message, of both its fields."""
    old, rest = _unsized(init)
    new, _ = _unsized(rest)
    bits = int.from_bytes(old, "big") | int.from_bytes(new, "big")
    return frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)


class Peer:
    """One connection to a node; ``await Peer.connect(...)``, then ``async with``.

    Attributes:
        key: The private key of our side.
        other: The node id of the other side.
        features: The feature bits of the other side.
    """

    def __init__(self, connection: Connection, key: bytes, features: frozenset[int]) -> None:
        self.key = key
        self.other = connection.other.hex()
        self.features = features
        self._connection = connection
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pongs: asyncio.Queue[None] = asyncio.Queue()
        self._others: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._complaints: list[str] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, target: Target, key: bytes | None = None, less: Iterable[str] = ()
    ) -> Peer:
        """Connect, as a stranger unless a key is given, and maybe with features less.

        Tried again for some time: a node may take no more strangers in one second, and no second
        connection of a peer until it has seen the end of the first.
        """
        loop, key = asyncio.get_running_loop(), key or new_key()
        end = loop.time() + CONNECT_TIMEOUT_S
        while True:
            try:
                return await asyncio.wait_for(cls._connect(target, key, less), CONNECT_TIMEOUT_S)
            except (EOFError, OSError):
                if loop.time() > end:
                    raise
                await asyncio.sleep(_PAUSE_S)

    @classmethod
    async def _connect(cls, target: Target, key: bytes, less: Iterable[str] = ()) -> Peer:
        connection = await Connection.open(target.node_id, target.host, target.port, key)
        return await cls._greet(connection, key, less=less)

    @classmethod
    async def accept(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        key: bytes,
        features: Iterable[int] = (),
    ) -> Peer:
        """Answer who connected, as the node of this private key, with more feature bits."""
        connection = await Connection.accept(reader, writer, key)
        return await cls._greet(connection, key, features)

    @classmethod
    async def _greet(
        cls,
        connection: Connection,
        key: bytes,
        features: Iterable[int] = (),
        less: Iterable[str] = (),
    ) -> Peer:
        try:
            await connection.send(_INIT.to_bytes(2, "big") + _init(features, less))
            first = await connection.receive()
            if int.from_bytes(first[:2], "big") != _INIT:
                raise PeerGoneError(f"the first message is no init: {first[:64]!r}")
        except BaseException:
            await connection.close()
            raise
        return cls(connection, key, _features(first[2:]))

    async def again(self, target: Target) -> Peer:
        """Hang up and connect with the same key."""
        await self.close()
        return await Peer.connect(target, self.key)

    @property
    def node_id(self) -> str:
        """Who we are to the other side."""
        return public_key(self.key).hex()

    async def send(self, payload: bytes) -> None:
        """Send an LSPS payload, whatever it is."""
        await self.send_message(MESSAGE_TYPE, payload)

    async def send_message(self, kind: int, payload: bytes) -> None:
        """Send a message of any type."""
        await self._connection.send(kind.to_bytes(2, "big") + payload)

    async def receive(self) -> bytes:
        """The next LSPS payload.

        Raises:
            PeerGoneError: The other side hung up.
            TimeoutError: There was none in time.
        """
        try:
            return await asyncio.wait_for(self.wait(), ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise TimeoutError(f"no LSPS message within {ANSWER_TIMEOUT_S:.0f} s") from None

    async def wait(self) -> bytes:
        """The next LSPS payload, however long it takes.

        Raises:
            PeerGoneError: One of both sides hung up.
        """
        payload = await self._inbox.get()
        if payload is None:
            self._inbox.put_nowait(None)
            raise PeerGoneError("; ".join(self._complaints) or "hung up without a word")
        return payload

    async def message(self, *kinds: int) -> tuple[int, bytes]:
        """The type and payload of the next message of these types; those of others are passed over.

        Raises:
            PeerGoneError: One of both sides hung up.
            TimeoutError: There was none in time.
        """

        async def of_these() -> tuple[int, bytes]:
            while (message := await self._others.get()) is not None:
                if message[0] in kinds:
                    return message
            self._others.put_nowait(None)
            raise PeerGoneError("; ".join(self._complaints) or "hung up without a word")

        try:
            return await asyncio.wait_for(of_these(), ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            text = f"no message of {kinds} within {ANSWER_TIMEOUT_S:.0f} s"
            raise TimeoutError(text) from None

    async def ping(self) -> None:
        """Wait until the other side has read all that was sent to it so far."""
        await self.send_message(_PING, (1).to_bytes(2, "big") + _sized(b""))
        await asyncio.wait_for(self._pongs.get(), ANSWER_TIMEOUT_S)

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await self._connection.close()

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._connection.receive()
                await self._take(int.from_bytes(message[:2], "big"), message[2:])
        except (EOFError, OSError, Bolt8Error) as error:
            self._complaints.append(str(error))
        finally:
            self._inbox.put_nowait(None)
            self._others.put_nowait(None)

    async def _take(self, kind: int, payload: bytes) -> None:
        if kind == MESSAGE_TYPE:
            self._inbox.put_nowait(payload)
        elif kind == _PING:
            wanted = int.from_bytes(payload[:2], "big")
            if wanted < _NO_PONG:
                await self.send_message(_PONG, _sized(bytes(wanted)))
        elif kind == _PONG:
            self._pongs.put_nowait(None)
        else:
            self._others.put_nowait((kind, payload))
            if kind in (_ERROR, _WARNING):
                # 32 bytes of channel id, then the text with its length.
                self._complaints.append(payload[34:].decode(errors="replace"))
