"""BOLT 11: what an invoice says, which node signed it, and invoices of our own."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple

from .curve import sign, signer

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


def write_invoice(invoice: Invoice, key: bytes) -> str:
    """An invoice that says this, signed with the private key of its payee."""
    amount = "" if invoice.amount_msat is None else f"{invoice.amount_msat * 10}p"
    prefix = f"ln{invoice.network}{amount}"
    bits = sum(1 << bit for bit in invoice.features)
    fields = {
        "p": _groups(bytes.fromhex(invoice.payment_hash)),
        "s": _groups(bytes.fromhex(invoice.secret or "")),
        "d": _groups((invoice.description or "").encode()),
        "x": _written(invoice.expires - invoice.timestamp),
        "c": _written(invoice.final_delta),
        "9": _written(bits),
    }
    signed = _written(invoice.timestamp, _TIMESTAMP)
    for tag, data in [*fields.items(), *(("r", _way(each)) for each in invoice.routes)]:
        signed += [_CHARACTERS.index(tag), *_written(len(data), 2), *data]
    compact, recovery = sign(_digest(prefix, signed), key)
    groups = signed + _groups(compact + bytes([recovery]))
    check = _polymod(_expand(prefix) + groups + [0] * _CHECKSUM) ^ 1
    return f"{prefix}1" + "".join(_CHARACTERS[n] for n in groups + _written(check, _CHECKSUM))


def _written(number: int, size: int = 0) -> list[int]:
    """A number in groups: so many, or as few as hold it."""
    size = size or (number.bit_length() + 4) // 5
    return [number >> 5 * n & 31 for n in reversed(range(size))]


def _groups(data: bytes) -> list[int]:
    """Bytes in groups, the last filled up."""
    bits = 8 * len(data)
    return _written(int.from_bytes(data, "big") << -bits % 5, (bits + 4) // 5)


def _way(hops: list[Hop]) -> list[int]:
    data = b""
    for hop in hops:
        scid = zip(map(int, hop.scid.split("x")), (3, 3, 2), strict=True)
        rest = (hop.base_fee_msat, 4), (hop.ppm, 4), (hop.delta, 2)
        data += bytes.fromhex(hop.node_id)
        data += b"".join(number.to_bytes(size, "big") for number, size in (*scid, *rest))
    return _groups(data)


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


def _digest(prefix: str, signed: list[int]) -> bytes:
    bits = 5 * len(signed)
    filled = _number(signed) << -bits % 8
    return sha256(prefix.encode() + filled.to_bytes((bits + 7) // 8, "big")).digest()


def _signer(prefix: str, signed: list[int], signature: list[int]) -> str:
    *compact, recovery = _bytes(signature)
    return signer(_digest(prefix, signed), bytes(compact), recovery).hex()
