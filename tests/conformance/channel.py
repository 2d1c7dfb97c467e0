"""A channel that an LSP funds (BOLT 2), on the client's side, as far as the LSP can see it.

It signs whatever the LSP asks for and checks no signature: it is a peer for tests, and holds no
coins of its own. Only the LSP offers HTLCs. Messages are taken when something is waited for.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from . import bolt3, opening, tlv
from .bolt3 import Basepoints
from .bolt8 import new_key
from .curve import public_key, sign
from .opening import ERROR, FUNDING_CREATED, OPEN, Opening
from .peer import Peer

FUNDING_SIGNED, CHANNEL_READY, SHUTDOWN = 35, 36, 38
ADD, FULFIL, FAIL, FAIL_MALFORMED = 128, 130, 131, 135
COMMITMENT_SIGNED, REVOKE, FEE = 132, 133, 134
REESTABLISH, CHANNEL_UPDATE = 136, 258
# bLIP-25: what was deducted from an HTLC, msat.
EXTRA_FEE = 65_537
_EXTRA_FEE_MARK = bytes.fromhex("fe0001000108")

_ONION = 1_366
_ADD = struct.Struct(f">32sQQ32sI{_ONION}s")
_CREATED = struct.Struct(">32s32sH64s")
_REESTABLISH = struct.Struct(">32sQQ32s33s")
# From a channel's scid on: it, the time, both flags, delta, minimum, base fee, ppm.
_UPDATE = struct.Struct(">QIBBHQII")
_ALIAS = 1
# BADONION, PERM and 5, which is invalid_onion_hmac.
_MALFORMED = 0x8000 | 0x4000 | 5
_REASON_SIZE = 292


class Htlc(NamedTuple):
    """An HTLC that the LSP offers.

    Attributes:
        id: Unique in its channel.
        amount_msat: What it pays.
        payment_hash: In hex.
        expiry: The height at which it is over.
        extra_fee: What was deducted from it (bLIP-25), msat; ``None`` without such a field.
    """

    id: int
    amount_msat: int
    payment_hash: str
    expiry: int
    extra_fee: int | None


class Policy(NamedTuple):
    """What the LSP takes for forwarding over a channel."""

    delta: int
    base_fee_msat: int
    ppm: int

    def fee(self, amount_msat: int) -> int:
        """What forwarding an amount costs, msat (BOLT 7)."""
        return self.base_fee_msat + amount_msat * self.ppm // 1_000_000


class Funding(NamedTuple):
    """The output that a channel is to have: where, its script in hex, and its amount."""

    txid: str
    vout: int
    script: str
    amount_sat: int


class Channel:
    """One channel, from ``accept`` on.

    Attributes:
        id: Its id, which its funding changes.
        peer: The connection on which it is.
        opening: The offer.
        funding: What funds it, once that is known.
        alias: What the LSP calls it in invoices, e.g. ``1x2x3``, once it is ready.
        policy: What the LSP last said that forwarding costs.
        ours_msat: What the client has in it.
    """

    def __init__(self, peer: Peer, opening: Opening) -> None:
        self.id = opening.id
        self.peer = peer
        self.opening = opening
        self.funding: Funding | None = None
        self.alias: str | None = None
        self.policy: Policy | None = None
        self.ours_msat = 0
        self._keys = Basepoints.new_keys()
        self._seed = new_key()
        self._terms: bolt3.Channel | None = None
        # Of the LSP's next commitment.
        self._point = opening.points[-1]
        self._rate = opening.sat_per_kw
        # What the LSP revealed last.
        self._revealed = bytes(32)
        # How many commitments of the LSP we signed, how many of them it revoked, and how many of
        # ours we revoked.
        self._signed, self._their_revoked, self._revoked = 0, 0, 0
        # Told of, but in no commitment; in ours; those of them that we resolved; and those that are
        # irrevocably committed and that nobody has waited for.
        self._new: list[Htlc] = []
        self._new_rate: int | None = None
        self._htlcs: dict[int, Htlc] = {}
        self._resolved: set[int] = set()
        self._arrived: list[Htlc] = []
        # Out of the LSP's commitment; all that ever were in it for good; and, until it has revoked
        # the one before, what is in the one that we signed, and what we resolved and is not.
        self._gone: set[int] = set()
        self._committed: frozenset[int] = frozenset()
        self._pending: tuple[frozenset[int], frozenset[int]] | None = None
        self._own_alias = secrets.token_bytes(8)
        self._to_sign = False
        self._reestablished = False
        self._take: dict[int, Callable[[bytes], Awaitable[None]]] = {
            CHANNEL_READY: self._on_ready,
            ADD: self._on_add,
            FEE: self._on_fee,
            COMMITMENT_SIGNED: self._on_commitment_signed,
            REVOKE: self._on_revoke,
            REESTABLISH: self._on_reestablish,
            CHANNEL_UPDATE: self._on_update,
        }

    # The opening

    @classmethod
    async def offered(cls, peer: Peer) -> Channel:
        """The next channel that the LSP offers."""
        return cls(peer, await opening.offered(peer))

    async def accept(
        self, to_self_delay: int, htlc_minimum_msat: int = opening.HTLC_MINIMUM_MSAT
    ) -> None:
        """Take the offer, until the LSP says which transaction will fund it."""
        points = self._keys.points()
        first = self._own_point(0)
        await opening.accept(
            self.peer, self.opening, to_self_delay, (*points, first), htlc_minimum_msat
        )
        _, payload = await self._next(FUNDING_CREATED)
        id_, txid, index, _ = _CREATED.unpack_from(payload)
        assert id_ == self.opening.id
        *theirs, _ = self.opening.points
        self._terms = bolt3.Channel(
            txid=txid,
            output=index,
            capacity_sat=self.opening.capacity_sat,
            funder=Basepoints(*theirs),
            other=points,
            delay=to_self_delay,
            dust_sat=self.opening.dust_sat,
        )
        script = bolt3.hashed(bolt3.funding_script(self._terms)).hex()
        self.funding = Funding(txid[::-1].hex(), index, script, self.opening.capacity_sat)
        low = int.from_bytes(txid[-2:], "big") ^ index
        self.id = txid[:-2] + low.to_bytes(2, "big")

    async def sign_funding(self, *, wrongly: bool = False) -> None:
        """Give the LSP its first commitment, or a signature that is none of it."""
        signature, _ = self._sign()
        if wrongly:
            signature, _ = sign(bytes(32), self._keys.funding)
        await self._send(FUNDING_SIGNED, signature)

    async def say_ready(self) -> None:
        """Say that it can be used, and what we call it."""
        alias = tlv.write(_ALIAS, self._own_alias)
        await self._send(CHANNEL_READY, self._own_point(1) + alias)

    async def until_ready(self) -> None:
        """Wait until the LSP says that it can be used."""
        await self._until(lambda: self.alias is not None)

    async def open(
        self, to_self_delay: int, htlc_minimum_msat: int = opening.HTLC_MINIMUM_MSAT
    ) -> None:
        """All of this, without delay."""
        await self.accept(to_self_delay, htlc_minimum_msat)
        await self.sign_funding()
        await self.say_ready()
        await self.until_ready()

    async def resume(self, peer: Peer) -> None:
        """Go on, on another connection; nothing may be half done, save the opening."""
        assert self._pending is None
        self.peer = peer
        self._new.clear()
        self._reestablished = False
        await self._reestablish()
        await self._until(lambda: self._reestablished)
        if self._signed == 1:
            await self.say_ready()
            await self.until_ready()

    # HTLCs

    async def arrive(self, count: int = 1) -> list[Htlc]:
        """Wait for the next HTLCs, until they are irrevocably committed."""
        await self._until(lambda: len(self._arrived) >= count)
        next_, self._arrived = self._arrived[:count], self._arrived[count:]
        return next_

    async def affordable(self, amount_msat: int) -> Policy:
        """Wait until forwarding so much costs less than that; what it costs."""
        while (policy := self.policy) is None or policy.fee(amount_msat) >= amount_msat:
            await self._step()
        return policy

    async def fulfil(self, preimage: bytes, *htlcs: Htlc) -> None:
        """Claim HTLCs, until no commitment has them any more."""
        await self.tell_preimage(preimage, *htlcs)
        self.ours_msat += sum(each.amount_msat for each in htlcs)
        await self._resolve(*htlcs)

    async def tell_preimage(self, preimage: bytes, *htlcs: Htlc) -> None:
        """Give up the preimage of HTLCs, and commit to nothing."""
        for each in htlcs:
            await self._send(FULFIL, each.id.to_bytes(8, "big") + preimage)

    async def fail(self, *htlcs: Htlc) -> None:
        """Fail HTLCs for a reason that nobody can read, until no commitment has them any more."""
        reason = secrets.token_bytes(_REASON_SIZE)
        for each in htlcs:
            size = len(reason).to_bytes(2, "big")
            await self._send(FAIL, each.id.to_bytes(8, "big") + size + reason)
        await self._resolve(*htlcs)

    async def fail_malformed(self, *htlcs: Htlc) -> None:
        """Fail HTLCs as ones that we cannot read, until no commitment has them any more."""
        for each in htlcs:
            fields = struct.pack(">Q32sH", each.id, secrets.token_bytes(32), _MALFORMED)
            await self._send(FAIL_MALFORMED, fields)
        await self._resolve(*htlcs)

    async def _resolve(self, *htlcs: Htlc) -> None:
        self._resolved |= {each.id for each in htlcs}
        self._to_sign = True
        await self._commit()
        await self._until(lambda: not any(each.id in self._htlcs for each in htlcs))

    # Commitments

    def _own_point(self, number: int) -> bytes:
        return public_key(bolt3.secret(self._seed, number))

    @property
    def _under_way(self) -> frozenset[int]:
        return frozenset(self._htlcs.keys() - self._resolved)

    def _sign(self) -> tuple[bytes, list[bytes]]:
        """The LSP's next commitment, with what it has to have."""
        assert self._terms is not None
        under_way = [self._htlcs[id_] for id_ in self._under_way]
        total = 1_000 * self.opening.capacity_sat
        made = bolt3.commitment(
            self._terms,
            self._signed,
            self._point,
            self._rate,
            total - self.ours_msat - sum(each.amount_msat for each in under_way),
            self.ours_msat,
            [
                bolt3.Htlc(True, each.amount_msat, bytes.fromhex(each.payment_hash), each.expiry)
                for each in under_way
            ],
        )
        self._signed += 1
        return bolt3.sign(self._terms, made, self._keys)

    async def _commit(self) -> None:
        """Sign the LSP's next commitment, unless it has not yet revoked the one before."""
        if not self._to_sign or self._pending is not None:
            return
        self._to_sign = False
        self._pending = self._under_way, frozenset(self._resolved)
        signature, of_htlcs = self._sign()
        number = len(of_htlcs).to_bytes(2, "big")
        await self._send(COMMITMENT_SIGNED, signature + number + b"".join(of_htlcs))

    async def _reestablish(self) -> None:
        fields = _REESTABLISH.pack(
            self.id,
            self._revoked + 1,
            self._their_revoked,
            self._revealed,
            self._own_point(self._revoked),
        )
        await self.peer.send_message(REESTABLISH, fields)

    # Messages

    async def _send(self, kind: int, fields: bytes) -> None:
        await self.peer.send_message(kind, self.id + fields)

    async def _next(self, *kinds: int) -> tuple[int, bytes]:
        """The next message of these types; an error, or the offer of another channel, fails."""
        kind, payload = await self.peer.message(*kinds, OPEN, SHUTDOWN, ERROR)
        assert kind != ERROR, f"the LSP gave the channel up: {payload[34:]!r}"
        assert kind in kinds, f"a message of type {kind} instead of {kinds}"
        return kind, payload

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            await self._step()

    async def _step(self) -> None:
        kind, payload = await self._next(*self._take)
        await self._take[kind](payload)

    async def _on_ready(self, payload: bytes) -> None:
        assert payload[:32] == self.id
        if self._signed == 1:
            self._point = payload[32:65]
        alias = int.from_bytes(tlv.read(payload[65:])[_ALIAS], "big")
        self.alias = f"{alias >> 40}x{alias >> 16 & 0xFFFFFF}x{alias & 0xFFFF}"

    async def _on_add(self, payload: bytes) -> None:
        id_, number, amount, payment_hash, expiry, _ = _ADD.unpack_from(payload)
        assert id_ == self.id
        stream = payload[_ADD.size :]
        extra = tlv.read(stream).get(EXTRA_FEE)
        if extra is not None:
            assert _EXTRA_FEE_MARK + extra in stream
        fee = None if extra is None else int.from_bytes(extra, "big")
        self._new.append(Htlc(number, amount, payment_hash.hex(), expiry, fee))

    async def _on_fee(self, payload: bytes) -> None:
        self._new_rate = int.from_bytes(payload[32:36], "big")

    async def _on_commitment_signed(self, payload: bytes) -> None:
        assert payload[:32] == self.id
        for id_ in self._gone:
            del self._htlcs[id_]
        self._resolved -= self._gone
        self._gone.clear()
        self._to_sign |= bool(self._new) or self._new_rate is not None
        self._htlcs |= {each.id: each for each in self._new}
        self._new.clear()
        self._rate, self._new_rate = self._new_rate or self._rate, None
        secret = bolt3.secret(self._seed, self._revoked)
        self._revoked += 1
        await self._send(REVOKE, secret + self._own_point(self._revoked + 1))
        await self._commit()

    async def _on_revoke(self, payload: bytes) -> None:
        id_, self._revealed, self._point = payload[:32], payload[32:64], payload[64:97]
        assert id_ == self.id
        assert self._pending is not None
        self._their_revoked += 1
        under_way, resolved = self._pending
        self._arrived += [self._htlcs[id_] for id_ in sorted(under_way - self._committed)]
        self._committed |= under_way
        self._gone |= resolved & self._resolved
        self._pending = None
        await self._commit()

    async def _on_reestablish(self, payload: bytes) -> None:
        id_, next_commitment, next_revocation, _, _ = _REESTABLISH.unpack_from(payload)
        assert id_ == self.id
        assert (next_commitment, next_revocation) == (self._signed, self._revoked)
        self._reestablished = True

    async def _on_update(self, payload: bytes) -> None:
        # Behind a signature and the hash of the chain.
        scid, _, _, _, delta, _, base, ppm = _UPDATE.unpack_from(payload, 64 + 32)
        if scid == int.from_bytes(self._own_alias, "big"):
            self.policy = Policy(delta, base, ppm)
