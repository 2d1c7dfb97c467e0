"""The first messages of a channel (BOLT 2): offered and answered."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable
from typing import NamedTuple

from . import tlv
from .bolt3 import Basepoints
from .bolt8 import new_key
from .curve import public_key
from .peer import Peer

ERROR, OPEN, ACCEPT, FUNDING_CREATED = 17, 32, 33, 34
# BOLT 9, each in its compulsory bit.
STATIC_REMOTEKEY, ANCHORS, SCID_ALIAS = 12, 22, 46
JIT = frozenset({STATIC_REMOTEKEY, ANCHORS, SCID_ALIAS})
PUBLIC = 1
# Of our own; the other side may offer no smaller HTLC.
HTLC_MINIMUM_MSAT = 1
# As a hash and not as it is shown.
_REGTEST = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")
_DUST_SAT, _RESERVE_SAT, _SAT_PER_KW, _HTLCS = 354, 1_000, 500, 30
_CHANNEL_TYPE = 1
_POINTS = len(Basepoints._fields) + 1
_OPEN = struct.Struct(f">32s32sQQQQQQIHH{33 * _POINTS}sB")
_ACCEPT = struct.Struct(f">32sQQQQIHH{33 * _POINTS}s")


class Opening(NamedTuple):
    """An offer of a channel.

    Attributes:
        id: Its id until it is funded.
        capacity_sat: What it holds.
        to_self_delay: The blocks for which the other side's coins are to be locked.
        public: Whether it is to be announced.
        kind: The feature bits of its type.
        points: Of whom offers it: its basepoints, and the point of its first commitment.
        dust_sat: Its commitments have no output below it.
        sat_per_kw: The fee rate of the first commitments.
    """

    id: bytes
    capacity_sat: int
    to_self_delay: int = 144
    public: bool = False
    kind: frozenset[int] = JIT
    points: tuple[bytes, ...] = ()
    dust_sat: int = _DUST_SAT
    sat_per_kw: int = _SAT_PER_KW


class Accepted(NamedTuple):
    """The answer to one.

    Attributes:
        id: Which one.
        minimum_depth: The confirmations that it is not used before.
        to_self_delay: The blocks for which the other side's coins are to be locked.
        kind: The feature bits of its type.
    """

    id: bytes
    minimum_depth: int
    to_self_delay: int
    kind: frozenset[int]


async def offer(
    peer: Peer, capacity_sat: int, *, public: bool = False, kind: Iterable[int] = JIT
) -> Opening:
    """Offer a channel."""
    made = Opening(secrets.token_bytes(32), capacity_sat, public=public, kind=frozenset(kind))
    payload = _OPEN.pack(
        _REGTEST,
        made.id,
        capacity_sat,
        0,
        _DUST_SAT,
        1_000 * capacity_sat,
        _RESERVE_SAT,
        HTLC_MINIMUM_MSAT,
        _SAT_PER_KW,
        made.to_self_delay,
        _HTLCS,
        b"".join(_points()),
        PUBLIC * made.public,
    )
    await peer.send_message(OPEN, payload + _type(made.kind))
    return made


async def accept(
    peer: Peer,
    offered: Opening,
    to_self_delay: int,
    points: Iterable[bytes] | None = None,
    htlc_minimum_msat: int = HTLC_MINIMUM_MSAT,
) -> None:
    """Take an offer.

    Args:
        peer: Who made it.
        offered: The offer.
        to_self_delay: The blocks for which the other side's coins are to be locked.
        points: Our basepoints and the point of our first commitment; some, if it is not meant.
        htlc_minimum_msat: The other side may offer no smaller HTLC.
    """
    payload = _ACCEPT.pack(
        offered.id,
        _DUST_SAT,
        1_000 * offered.capacity_sat,
        _RESERVE_SAT,
        htlc_minimum_msat,
        0,
        to_self_delay,
        _HTLCS,
        b"".join(points or _points()),
    )
    await peer.send_message(ACCEPT, payload + _type(offered.kind))


async def refuse(peer: Peer, id_: bytes, text: str) -> None:
    """Say that an offer is not taken, or one of our own not meant any more."""
    await peer.send_message(ERROR, id_ + len(text).to_bytes(2, "big") + text.encode())


async def offered(peer: Peer) -> Opening:
    """The next channel that the other side offers."""
    _, payload = await peer.message(OPEN)
    chain, id_, capacity, _, dust, _, _, _, rate, delay, _, points, flags = _OPEN.unpack_from(
        payload
    )
    assert chain == _REGTEST
    kind = _read_type(payload[_OPEN.size :])
    each = tuple(points[33 * n : 33 * n + 33] for n in range(_POINTS))
    return Opening(id_, capacity, delay, bool(flags & PUBLIC), kind, each, dust, rate)


async def answer(peer: Peer, to: Opening) -> Accepted | None:
    """What the other side answers to an offer; ``None`` if it refuses it."""
    kind, payload = await peer.message(ACCEPT, ERROR)
    assert payload[:32] == to.id
    if kind == ERROR:
        return None
    id_, *_, depth, delay, _, _ = _ACCEPT.unpack_from(payload)
    return Accepted(id_, depth, delay, _read_type(payload[_ACCEPT.size :]))


def _points() -> list[bytes]:
    return [public_key(new_key()) for _ in range(_POINTS)]


def _type(kind: frozenset[int]) -> bytes:
    bits = sum(1 << bit for bit in kind)
    return tlv.write(_CHANNEL_TYPE, bits.to_bytes((bits.bit_length() + 7) // 8, "big"))


def _read_type(fields: bytes) -> frozenset[int]:
    """The type of a channel among its optional fields."""
    bits = int.from_bytes(tlv.read(fields).get(_CHANNEL_TYPE, b""), "big")
    return frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)
