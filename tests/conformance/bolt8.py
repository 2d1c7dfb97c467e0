"""BOLT 8: the encrypted transport of Lightning, on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .curve import public_key, shared_secret

MAX_MESSAGE = 65_535
# A key encrypts this often, then it is replaced; a message takes two: its length and itself.
USES_OF_A_KEY = 1_000

_TAG = 16
_POINT = 33
# Acts one and two are a version, a point and a tag; act three seals its point, hence another tag.
_ACT = 1 + _POINT + _TAG
_ACT_THREE = _ACT + _TAG
_SEALED_LENGTH = 2 + _TAG


class Bolt8Error(Exception):
    """The other side does not speak BOLT 8, or is not the node it should be."""


def new_key() -> bytes:
    """A fresh private key."""
    return secrets.token_bytes(32)


def _ecdh(key: bytes, point: bytes) -> bytes:
    try:
        return shared_secret(key, point)
    except ValueError as error:
        raise Bolt8Error("not a point of the curve") from error


def _hkdf(salt: bytes, material: bytes) -> tuple[bytes, bytes]:
    derived = HKDF(SHA256(), 64, salt, b"").derive(material)
    return derived[:32], derived[32:]


def _encrypt(key: bytes, count: int, data: bytes, text: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_nonce(count), text, data)


def _decrypt(key: bytes, count: int, data: bytes, sealed: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(count), sealed, data)
    except InvalidTag as error:
        raise Bolt8Error("bad tag") from error


def _nonce(count: int) -> bytes:
    return bytes(4) + count.to_bytes(8, "little")


class Cipher:
    """One direction of a connection."""

    def __init__(self, chaining_key: bytes, key: bytes) -> None:
        self._chaining_key = chaining_key
        self.key = key
        self._uses = 0

    def _use(self) -> int:
        if self._uses == USES_OF_A_KEY:
            self._chaining_key, self.key = _hkdf(self._chaining_key, self.key)
            self._uses = 0
        self._uses += 1
        return self._uses - 1

    def encrypt(self, text: bytes) -> bytes:
        """Seal what is sent next."""
        count = self._use()
        return _encrypt(self.key, count, b"", text)

    def decrypt(self, sealed: bytes) -> bytes:
        """Open what was received next."""
        count = self._use()
        return _decrypt(self.key, count, b"", sealed)

    def frame(self, message: bytes) -> bytes:
        """A message as it goes over the wire."""
        if len(message) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes, above {MAX_MESSAGE}")
        return self.encrypt(len(message).to_bytes(2, "big")) + self.encrypt(message)


class _Handshake:
    """Noise_XK without IO, as far as both sides do the same."""

    def __init__(self, responder: bytes, key: bytes, ephemeral: bytes) -> None:
        self._key = key
        self._ephemeral = ephemeral
        self._chain = sha256(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").digest()
        self._digest = self._chain
        self._temporary = b""
        self._mix(b"lightning")
        self._mix(responder)

    def _mix(self, data: bytes) -> None:
        self._digest = sha256(self._digest + data).digest()

    def _derive(self, key: bytes, point: bytes) -> None:
        self._chain, self._temporary = _hkdf(self._chain, _ecdh(key, point))

    def _seal(self, count: int, text: bytes) -> bytes:
        sealed = _encrypt(self._temporary, count, self._digest, text)
        self._mix(sealed)
        return sealed

    def _open(self, count: int, sealed: bytes) -> bytes:
        text = _decrypt(self._temporary, count, self._digest, sealed)
        self._mix(sealed)
        return text

    def _give(self, point: bytes) -> bytes:
        """Act one or two: our ephemeral point, and proof that we know the other side's point."""
        ours = public_key(self._ephemeral)
        self._mix(ours)
        self._derive(self._ephemeral, point)
        return b"\0" + ours + self._seal(0, b"")

    def _take(self, key: bytes, act: bytes, name: str) -> bytes:
        """Act one or two of the other side: its ephemeral point, once it proved to know our key."""
        _check(act, _ACT, name)
        point = act[1:-_TAG]
        self._mix(point)
        self._derive(key, point)
        self._open(0, act[-_TAG:])
        return point

    def _split(self) -> tuple[Cipher, Cipher]:
        """What the initiator seals with, and what the responder seals with."""
        to_responder, to_initiator = _hkdf(self._chain, b"")
        return Cipher(self._chain, to_responder), Cipher(self._chain, to_initiator)


def _check(act: bytes, size: int, name: str) -> None:
    if len(act) != size:
        raise Bolt8Error(f"{name} of {len(act)} bytes")
    if act[0] != 0:
        raise Bolt8Error(f"{name} of version {act[0]}")


class Initiator(_Handshake):
    """The side that connects: act one out, act two in, act three out."""

    def __init__(self, node_id: bytes, key: bytes, ephemeral: bytes) -> None:
        super().__init__(node_id, key, ephemeral)
        self._node_id = node_id

    def act_one(self) -> bytes:
        """Prove that we know whom we call."""
        return self._give(self._node_id)

    def act_three(self, act_two: bytes) -> tuple[bytes, Cipher, Cipher]:
        """Check the answer and say who we are: act three, and both ciphers, ours first."""
        point = self._take(self._ephemeral, act_two, "act two")
        who = self._seal(1, public_key(self._key))
        self._derive(self._key, point)
        return b"\0" + who + self._seal(0, b""), *self._split()


class Responder(_Handshake):
    """The side that is called: act one in, act two out, act three in."""

    def __init__(self, key: bytes, ephemeral: bytes) -> None:
        super().__init__(public_key(key), key, ephemeral)

    def act_two(self, act_one: bytes) -> bytes:
        """Answer whoever knows our node id."""
        return self._give(self._take(self._key, act_one, "act one"))

    def finish(self, act_three: bytes) -> tuple[bytes, Cipher, Cipher]:
        """Learn who calls: its node id, and both ciphers, ours first."""
        _check(act_three, _ACT_THREE, "act three")
        node_id = self._open(1, act_three[1:-_TAG])
        self._derive(self._ephemeral, node_id)
        self._open(0, act_three[-_TAG:])
        theirs, ours = self._split()
        return node_id, ours, theirs


class Connection:
    """Whole messages over one TCP connection.

    Attributes:
        other: The node id of the other side.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: bytes,
        sending: Cipher,
        receiving: Cipher,
    ) -> None:
        self.other = other
        self._reader = reader
        self._writer = writer
        self._sending = sending
        self._receiving = receiving

    @classmethod
    async def open(cls, node_id: bytes, host: str, port: int, key: bytes) -> Connection:
        """Connect to a node, as the node of this private key."""
        reader, writer = await asyncio.open_connection(host, port)
        try:
            handshake = Initiator(node_id, key, new_key())
            writer.write(handshake.act_one())
            act, sending, receiving = handshake.act_three(await reader.readexactly(_ACT))
            writer.write(act)
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer, node_id, sending, receiving)

    @classmethod
    async def accept(
        cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes
    ) -> Connection:
        """Answer who connected, as the node of this private key."""
        try:
            handshake = Responder(key, new_key())
            writer.write(handshake.act_two(await reader.readexactly(_ACT)))
            node_id, sending, receiving = handshake.finish(await reader.readexactly(_ACT_THREE))
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer, node_id, sending, receiving)

    async def send(self, message: bytes) -> None:
        """Send one message."""
        self._writer.write(self._sending.frame(message))
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next message; ``EOFError`` or ``OSError`` if there will be none."""
        length = self._receiving.decrypt(await self._reader.readexactly(_SEALED_LENGTH))
        sealed = await self._reader.readexactly(int.from_bytes(length, "big") + _TAG)
        return self._receiving.decrypt(sealed)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
