"""Invoices and addresses of any network, encoded and signed without the node that is tested."""

from __future__ import annotations

import hashlib
import time

# BIP 173 and BIP 350.
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32, BECH32M = 1, 0x2BC830A3
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# secp256k1.
FIELD = 2**256 - 2**32 - 977
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BASE = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
# The payee of every invoice made here. It guards nothing.
KEY = 7

Point = tuple[int, int]


def _add(a: Point | None, b: Point | None) -> Point | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % FIELD == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, FIELD)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, FIELD)
    x = (slope * slope - a[0] - b[0]) % FIELD
    return x, (slope * (a[0] - x) - a[1]) % FIELD


def _times(scalar: int) -> Point:
    total: Point | None = None
    power: Point | None = BASE
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    assert total is not None
    return total


def _sign(digest: bytes) -> bytes:
    """A recoverable signature: r, s, and which of the possible keys it is."""
    nonce = int.from_bytes(hashlib.sha256(KEY.to_bytes(32, "big") + digest).digest(), "big") % ORDER
    x, y = _times(nonce)
    r, odd = x % ORDER, y & 1
    s = (int.from_bytes(digest, "big") + r * KEY) * pow(nonce, -1, ORDER) % ORDER
    if s > ORDER // 2:
        s, odd = ORDER - s, odd ^ 1
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([odd])


def payee() -> str:
    """The node id that signs the invoices."""
    x, y = _times(KEY)
    return f"{2 + (y & 1):02x}{x:064x}"


def _groups(data: bytes) -> list[int]:
    """Bytes as groups of five bits, filled up with zeros."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]


def _number(value: int, groups: int) -> list[int]:
    return [value >> 5 * place & 31 for place in reversed(range(groups))]


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, word in enumerate(GENERATOR):
            check ^= word if top >> bit & 1 else 0
    return check


def _bech32(prefix: str, groups: list[int], constant: int = BECH32) -> str:
    values = [ord(each) >> 5 for each in prefix] + [0] + [ord(each) & 31 for each in prefix]
    check = _polymod([*values, *groups, 0, 0, 0, 0, 0, 0]) ^ constant
    return prefix + "1" + "".join(CHARSET[each] for each in [*groups, *_number(check, 6)])


def segwit_address(prefix: str, version: int, program: bytes) -> str:
    """An address with the prefix of a network: ``bc``, ``tb`` or ``bcrt``."""
    return _bech32(prefix, [version, *_groups(program)], BECH32M if version else BECH32)


def base58_address(version: int, program: bytes) -> str:
    """An address of the old kind; its version byte says network and script."""
    data = bytes([version]) + program
    data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def invoice(prefix: str, payment_hash: bytes) -> str:
    """An invoice over 10,000 satoshi, made now; the prefix is that of BOLT 11, e.g. ``tbs``."""

    def field(tag: str, groups: list[int]) -> list[int]:
        return [CHARSET.index(tag), *_number(len(groups), 2), *groups]

    hrp = f"ln{prefix}100u"
    groups = [
        *_number(int(time.time()), 7),
        *field("p", _groups(payment_hash)),
        *field("s", _groups(bytes(range(32)))),
        *field("d", _groups(b"of another network")),
        *field("c", _number(18, 1)),
        # var_onion_optin and payment_secret, both compulsory.
        *field("9", _number(1 << 8 | 1 << 14, 3)),
    ]
    bits = "".join(f"{each:05b}" for each in groups)
    bits += "0" * (-len(bits) % 8)
    signed = hrp.encode() + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return _bech32(hrp, groups + _groups(_sign(hashlib.sha256(signed).digest())))
