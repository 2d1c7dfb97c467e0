"""BOLT 11: what an invoice says, and which node signed it."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple

from .curve import signer

_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECKSUM = 6
_SIGNATURE = 104
_TIMESTAMP = 7
_HOP = 51
_MSAT_PER_BTC = 100_000_000_000
_MULTIPLIERS = {"m": "1e-3", "u": "1e-6", "n": "1e-9", "p": "1e-12"}
# What a field means that is left out.
_EXPIRY_S, _FINAL_DELTA = 3_600, 18


class Hop(NamedTuple):
    """One hop of a route to the payee; its scid as LSPS writes it, e.g. ``1x2x3``."""

    node_id: str
    scid: str
    base_fee_msat: int
    ppm: int
    delta: int


class Invoice(NamedTuple):
    """An invoice; instants in seconds since 1970, points and hashes in hex."""

    network: str
    amount_msat: int | None
    timestamp: int
    expires: int
    payee: str
    payment_hash: str
    secret: str | None
    description: str | None
    final_delta: int
    features: frozenset[int]
    routes: list[list[Hop]]


def read_invoice(text: str) -> Invoice:
    """Read an invoice.

    Raises:
        ValueError: It is none.
    """
    prefix, _, data = text.lower().rpartition("1")
    groups = [_CHARACTERS.index(each) for each in data]
    if not prefix.startswith("ln") or _polymod(_expand(prefix) + groups) != 1:
        raise ValueError(f"no invoice: {text}")
    signed, signature = groups[: -_SIGNATURE - _CHECKSUM], groups[-_SIGNATURE - _CHECKSUM :]
    fields = _fields(signed[_TIMESTAMP:])

    def first(tag: str) -> list[int] | None:
        return fields.get(tag, [None])[0]

    def hexadecimal(tag: str) -> str | None:
        found = first(tag)
        return None if found is None else _bytes(found).hex()

    timestamp = _number(signed[:_TIMESTAMP])
    expiry, delta, description = first("x"), first("c"), first("d")
    payee = _signer(prefix, signed, signature[:_SIGNATURE])
    if hexadecimal("n") not in (None, payee):
        raise ValueError(f"not signed by its payee: {text}")
    if (payment_hash := hexadecimal("p")) is None:
        raise ValueError(f"without a payment hash: {text}")
    network, amount = _amount(prefix)
    return Invoice(
        network=network,
        amount_msat=amount,
        timestamp=timestamp,
        expires=timestamp + (_EXPIRY_S if expiry is None else _number(expiry)),
        payee=payee,
        payment_hash=payment_hash,
        secret=hexadecimal("s"),
        description=None if description is None else _bytes(description).decode(),
        final_delta=_FINAL_DELTA if delta is None else _number(delta),
        features=_bits(_number(first("9") or [])),
        routes=[_route(_bytes(each)) for each in fields.get("r", [])],
    )


def _polymod(groups: list[int]) -> int:
    """The checksum of BIP 173, which of a whole text is 1."""
    check = 1
    for group in groups:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ group
        for bit, word in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= word if top >> bit & 1 else 0
    return check


def _expand(prefix: str) -> list[int]:
    return [ord(each) >> 5 for each in prefix] + [0] + [ord(each) & 31 for each in prefix]


def _number(groups: list[int]) -> int:
    number = 0
    for group in groups:
        number = number << 5 | group
    return number


def _bytes(groups: list[int]) -> bytes:
    """Whole bytes; what is left over fills up the last group."""
    bits = 5 * len(groups)
    return (_number(groups) >> bits % 8).to_bytes(bits // 8, "big")


def _bits(number: int) -> frozenset[int]:
    return frozenset(bit for bit in range(number.bit_length()) if number >> bit & 1)


def _fields(groups: list[int]) -> dict[str, list[list[int]]]:
    """The data of each field by its tag, in the order of the invoice."""
    fields: dict[str, list[list[int]]] = {}
    while groups:
        end = 3 + _number(groups[1:3])
        if end > len(groups):
            raise ValueError("a field goes on behind the end")
        fields.setdefault(_CHARACTERS[groups[0]], []).append(groups[3:end])
        groups = groups[end:]
    return fields


def _route(data: bytes) -> list[Hop]:
    if len(data) % _HOP:
        raise ValueError(f"a route of {len(data)} bytes")
    return [_hop(data[at : at + _HOP]) for at in range(0, len(data), _HOP)]


def _hop(data: bytes) -> Hop:
    def number(start: int, end: int) -> int:
        return int.from_bytes(data[start:end], "big")

    return Hop(
        node_id=data[:33].hex(),
        scid=f"{number(33, 36)}x{number(36, 39)}x{number(39, 41)}",
        base_fee_msat=number(41, 45),
        ppm=number(45, 49),
        delta=number(49, 51),
    )


def _amount(prefix: str) -> tuple[str, int | None]:
    """The network's own prefix, and the amount in msat."""
    network = prefix[2:].rstrip("munp").rstrip("0123456789")
    written = prefix[2 + len(network) :]
    digits = written.rstrip("munp")
    if not digits:
        return prefix[2:], None
    factor = Decimal(_MULTIPLIERS[written[-1]] if written != digits else 1)
    amount = int(digits) * factor * _MSAT_PER_BTC
    if amount != int(amount):
        raise ValueError(f"less than a msat: {written}")
    return network, int(amount)


def _signer(prefix: str, signed: list[int], signature: list[int]) -> str:
    bits = 5 * len(signed)
    filled = _number(signed) << -bits % 8
    digest = sha256(prefix.encode() + filled.to_bytes((bits + 7) // 8, "big")).digest()
    *compact, recovery = _bytes(signature)
    return signer(digest, bytes(compact), recovery).hex()
