"""BOLT 3: keys, scripts and transactions of a channel with anchors, on the side that funded it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from . import curve
from .bolt8 import new_key

ANCHOR_SAT = 330
# The number of a channel's first commitment counts down from here where secrets are made.
_LAST_SECRET = 2**48 - 1
_WEIGHT, _WEIGHT_OF_HTLC = 1_124, 172
_ALL, _SINGLE_ANYONE = 0x01, 0x83

_IF, _NOTIF, _ELSE, _ENDIF = b"\x63", b"\x64", b"\x67", b"\x68"
_DROP, _DUP, _IFDUP, _SWAP, _SIZE = b"\x75", b"\x76", b"\x73", b"\x7c", b"\x82"
_EQUAL, _EQUALVERIFY, _HASH160 = b"\x87", b"\x88", b"\xa9"
_CHECKSIG, _CHECKSIGVERIFY, _CHECKMULTISIG = b"\xac", b"\xad", b"\xae"
_CHECKLOCKTIME, _CHECKSEQUENCE = b"\xb1", b"\xb2"


class Basepoints(NamedTuple):
    """The points of one side, or their private keys, in the order of ``open_channel``."""

    funding: bytes
    revocation: bytes
    payment: bytes
    delayed: bytes
    htlc: bytes

    @classmethod
    def new_keys(cls) -> Basepoints:
        """Fresh private keys."""
        return cls(*(new_key() for _ in cls._fields))

    def points(self) -> Basepoints:
        """The points of these private keys."""
        return Basepoints(*map(curve.public_key, self))


class Output(NamedTuple):
    """An output of a transaction."""

    amount_sat: int
    script: bytes


class Transaction(NamedTuple):
    """A transaction with one input and no witness yet; the id of what it spends as a hash."""

    spent: bytes
    output: int
    sequence: int
    outputs: list[Output]
    locktime: int

    def __bytes__(self) -> bytes:
        outputs = b"".join(map(_output, self.outputs))
        return b"".join(
            [
                _little(2, 4),
                b"\1",
                self._outpoint,
                b"\0",
                _little(self.sequence, 4),
                bytes([len(self.outputs)]),
                outputs,
                _little(self.locktime, 4),
            ]
        )

    @property
    def id(self) -> bytes:
        """Its id as a hash, which is shown in reverse."""
        return _twice(bytes(self))

    @property
    def _outpoint(self) -> bytes:
        return self.spent + _little(self.output, 4)

    def digest(self, script: bytes, amount_sat: int, *, single: bool = False) -> bytes:
        """What is signed (BIP 143) to spend an output of this script and amount.

        Args:
            script: The script itself, not its hash.
            amount_sat: What is spent.
            single: Commit to the first output alone, and let others add inputs.
        """
        outputs = self.outputs[:1] if single else self.outputs
        nothing = bytes(32)
        return _twice(
            b"".join(
                [
                    _little(2, 4),
                    nothing if single else _twice(self._outpoint),
                    nothing if single else _twice(_little(self.sequence, 4)),
                    self._outpoint,
                    _sized(script),
                    _little(amount_sat, 8),
                    _little(self.sequence, 4),
                    _twice(b"".join(map(_output, outputs))),
                    _little(self.locktime, 4),
                    _little(_SINGLE_ANYONE if single else _ALL, 4),
                ]
            )
        )


class Htlc(NamedTuple):
    """An HTLC; whether the side that funded the channel offers it."""

    offered: bool
    amount_msat: int
    payment_hash: bytes
    expiry: int


class Channel(NamedTuple):
    """What all commitments of the funder have in common.

    Attributes:
        txid: The funding transaction's id as a hash.
        output: The index of the funding output.
        capacity_sat: What it holds.
        funder: The points of the side that paid for it.
        other: The points of the other side.
        delay: The blocks for which the funder's coins are locked.
        dust_sat: The funder makes no output below it.
    """

    txid: bytes
    output: int
    capacity_sat: int
    funder: Basepoints
    other: Basepoints
    delay: int
    dust_sat: int


class Commitment(NamedTuple):
    """One commitment: its transaction, and which HTLC each output is."""

    point: bytes
    transaction: Transaction
    htlcs: dict[int, Htlc]


def secret(seed: bytes, number: int) -> bytes:
    """The secret of the commitment of this number, of which the first is 0."""
    return secret_of_index(seed, _LAST_SECRET - number)


def secret_of_index(seed: bytes, index: int) -> bytes:
    """The secret by the index of BOLT 3, from which those of other indices follow."""
    made = bytearray(seed)
    for bit in reversed(range(48)):
        if index >> bit & 1:
            made[bit // 8] ^= 1 << bit % 8
            made = bytearray(hashlib.sha256(made).digest())
    return bytes(made)


def key_of(basepoint: bytes, point: bytes) -> bytes:
    """The point of one commitment that belongs to a basepoint."""
    return curve.total(basepoint, curve.public_key(_hash(point, basepoint)))


def private_key_of(key: bytes, point: bytes) -> bytes:
    """The private key of one commitment that belongs to that of a basepoint."""
    return curve.key_total(key, _hash(point, curve.public_key(key)))


def revocation_key(basepoint: bytes, point: bytes) -> bytes:
    """The point whose private key one side knows once the other has revoked the commitment."""
    theirs = curve.multiple(basepoint, _hash(basepoint, point))
    return curve.total(theirs, curve.multiple(point, _hash(point, basepoint)))


def funding_script(channel: Channel) -> bytes:
    """The script of the funding output."""
    one, two = sorted([channel.funder.funding, channel.other.funding])
    return _small(2) + _sized(one) + _sized(two) + _small(2) + _CHECKMULTISIG


def hashed(script: bytes) -> bytes:
    """The script of an output that pays to a script."""
    return b"\0" + _sized(hashlib.sha256(script).digest())


def commitment(
    channel: Channel,
    number: int,
    point: bytes,
    sat_per_kw: int,
    funder_msat: int,
    other_msat: int,
    htlcs: list[Htlc],
) -> Commitment:
    """A commitment of the funder.

    Args:
        channel: Which channel.
        number: The first has 0.
        point: The funder's point of this commitment.
        sat_per_kw: The fee rate.
        funder_msat: What the funder has, without fee and anchors taken off.
        other_msat: What the other side has.
        htlcs: What is under way.
    """
    large = [each for each in htlcs if each.amount_msat // 1_000 >= channel.dust_sat]
    weight = _WEIGHT + _WEIGHT_OF_HTLC * len(large)
    local_sat = funder_msat // 1_000 - weight * sat_per_kw // 1_000 - 2 * ANCHOR_SAT
    remote_sat = other_msat // 1_000
    # The last is what orders equal outputs.
    made: list[tuple[Output, int, Htlc | None]] = []

    def add(sat: int, script: bytes, htlc: Htlc | None = None) -> None:
        made.append((Output(sat, hashed(script)), htlc.expiry if htlc else 0, htlc))

    for each in large:
        add(each.amount_msat // 1_000, _htlc_script(channel, point, each), each)
    if has_local := local_sat >= channel.dust_sat:
        add(local_sat, _delayed_script(channel, point))
    if has_remote := remote_sat >= channel.dust_sat:
        add(remote_sat, _remote_script(channel.other.payment))
    if has_local or large:
        add(ANCHOR_SAT, _anchor_script(channel.funder.funding))
    if has_remote or large:
        add(ANCHOR_SAT, _anchor_script(channel.other.funding))
    made.sort(key=lambda each: each[:2])
    obscured = number ^ int.from_bytes(
        _hash(channel.funder.payment, channel.other.payment)[-6:], "big"
    )
    transaction = Transaction(
        spent=channel.txid,
        output=channel.output,
        sequence=0x80 << 24 | obscured >> 24,
        outputs=[output for output, _, _ in made],
        locktime=0x20 << 24 | obscured & 0xFFFFFF,
    )
    of_outputs = {at: htlc for at, (_, _, htlc) in enumerate(made) if htlc}
    return Commitment(point, transaction, of_outputs)


def htlc_transaction(channel: Channel, made: Commitment, index: int) -> Transaction:
    """What the funder takes back an HTLC with, or claims it: the second stage of an output."""
    htlc = made.htlcs[index]
    script = hashed(_delayed_script(channel, made.point))
    return Transaction(
        spent=made.transaction.id,
        output=index,
        sequence=1,
        outputs=[Output(htlc.amount_msat // 1_000, script)],
        locktime=htlc.expiry if htlc.offered else 0,
    )


def digests(channel: Channel, made: Commitment) -> tuple[bytes, list[bytes]]:
    """What the other side signs of a commitment: itself, and the second stage of each HTLC."""
    of_htlcs = [
        htlc_transaction(channel, made, index).digest(
            _htlc_script(channel, made.point, htlc), htlc.amount_msat // 1_000, single=True
        )
        for index, htlc in made.htlcs.items()
    ]
    whole = made.transaction.digest(funding_script(channel), channel.capacity_sat)
    return whole, of_htlcs


def sign(channel: Channel, made: Commitment, keys: Basepoints) -> tuple[bytes, list[bytes]]:
    """The other side's signatures of a commitment, with its private keys, as messages have them."""
    whole, of_htlcs = digests(channel, made)
    htlc_key = private_key_of(keys.htlc, made.point)
    signature, _ = curve.sign(whole, keys.funding)
    return signature, [curve.sign(each, htlc_key)[0] for each in of_htlcs]


def _delayed_script(channel: Channel, point: bytes) -> bytes:
    """Of what the funder gets when the delay is over."""
    return b"".join(
        [
            _IF + _sized(revocation_key(channel.other.revocation, point)),
            _ELSE + _pushed(channel.delay) + _CHECKSEQUENCE + _DROP,
            _sized(key_of(channel.funder.delayed, point)),
            _ENDIF + _CHECKSIG,
        ]
    )


def _remote_script(key: bytes) -> bytes:
    return _sized(key) + _CHECKSIGVERIFY + _small(1) + _CHECKSEQUENCE


def _anchor_script(key: bytes) -> bytes:
    return _sized(key) + _CHECKSIG + _IFDUP + _NOTIF + _small(16) + _CHECKSEQUENCE + _ENDIF


def _htlc_script(channel: Channel, point: bytes, htlc: Htlc) -> bytes:
    theirs, ours = (key_of(each.htlc, point) for each in (channel.other, channel.funder))
    revoked = _hash160(revocation_key(channel.other.revocation, point))
    preimage = _HASH160 + _sized(_ripemd160(htlc.payment_hash)) + _EQUALVERIFY
    both = _small(2) + _SWAP + _sized(ours) + _small(2) + _CHECKMULTISIG
    if htlc.offered:
        ways = _NOTIF + _DROP + both + _ELSE + preimage + _CHECKSIG
    else:
        late = _DROP + _pushed(htlc.expiry) + _CHECKLOCKTIME + _DROP + _CHECKSIG
        ways = _IF + preimage + both + _ELSE + late
    return b"".join(
        [
            _DUP + _HASH160 + _sized(revoked) + _EQUAL,
            _IF + _CHECKSIG + _ELSE,
            _sized(theirs) + _SWAP + _SIZE + _pushed(32) + _EQUAL,
            ways + _ENDIF,
            _small(1) + _CHECKSEQUENCE + _DROP + _ENDIF,
        ]
    )


def _small(number: int) -> bytes:
    """A number up to 16 as its own opcode."""
    return bytes([0x50 + number])


def _pushed(number: int) -> bytes:
    """A positive number, little-endian with a bit for its sign."""
    if number <= 16:
        return _small(number)
    return _sized(_little(number, number.bit_length() // 8 + 1))


def _sized(data: bytes) -> bytes:
    """Less than 253 bytes behind their number; a push, if they are less than 76."""
    return bytes([len(data)]) + data


def _output(output: Output) -> bytes:
    return _little(output.amount_sat, 8) + _sized(output.script)


def _little(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _twice(data: bytes) -> bytes:
    return _hash(_hash(data))


def _ripemd160(data: bytes) -> bytes:
    return hashlib.new("ripemd160", data).digest()


def _hash160(data: bytes) -> bytes:
    return _ripemd160(_hash(data))
