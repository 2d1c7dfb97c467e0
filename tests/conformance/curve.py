"""The curve secp256k1 as BOLT 3, 8 and 11 need it, in plain integers: for tests, not for secrets.

Packages that have it crash the interpreter at its end, or lack wheels for the newest Python.
"""

from __future__ import annotations

import hashlib
import secrets

_P = 2**256 - 2**32 - 977
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_G = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)
# x/z², y/z³; z is 0 at infinity.
_Point = tuple[int, int, int]
_INFINITY: _Point = (1, 1, 0)


def _double(point: _Point) -> _Point:
    x, y, z = point
    square = y * y % _P
    s = 4 * x * square % _P
    slope = 3 * x * x % _P
    x_2 = (slope * slope - 2 * s) % _P
    return x_2, (slope * (s - x_2) - 8 * square * square) % _P, 2 * y * z % _P


def _add(point: _Point, other: _Point) -> _Point:
    (x_1, y_1, z_1), (x_2, y_2, z_2) = point, other
    if not z_1:
        return other
    if not z_2:
        return point
    square_1, square_2 = z_1 * z_1 % _P, z_2 * z_2 % _P
    u_1, u_2 = x_1 * square_2 % _P, x_2 * square_1 % _P
    s_1, s_2 = y_1 * square_2 * z_2 % _P, y_2 * square_1 * z_1 % _P
    if u_1 == u_2:
        return _double(point) if s_1 == s_2 else _INFINITY
    h, r = u_2 - u_1, s_2 - s_1
    cube = h * h * h % _P
    v = u_1 * h * h % _P
    x_3 = (r * r - cube - 2 * v) % _P
    return x_3, (r * (v - x_3) - s_1 * cube) % _P, h * z_1 * z_2 % _P


def _times(number: int, point: _Point) -> _Point:
    product = _INFINITY
    for bit in f"{number:b}":
        product = _double(product)
        if bit == "1":
            product = _add(product, point)
    return product


def _compressed(point: _Point) -> bytes:
    x, y, z = point
    if not z:
        raise ValueError("the point at infinity has no bytes")
    inverse = pow(z, -1, _P)
    x, y = x * inverse**2 % _P, y * inverse**3 % _P
    return bytes([2 + (y & 1)]) + x.to_bytes(32, "big")


def _lifted(x: int, odd: int) -> _Point:
    square = (pow(x, 3, _P) + 7) % _P
    y = pow(square, (_P + 1) // 4, _P)
    if x >= _P or y * y % _P != square:
        raise ValueError("no point of the curve has this x")
    return x, y if y & 1 == odd else _P - y, 1


def _point(data: bytes) -> _Point:
    if len(data) != 33 or data[0] not in (2, 3):
        raise ValueError("no compressed point")
    return _lifted(int.from_bytes(data[1:], "big"), data[0] & 1)


def public_key(key: bytes) -> bytes:
    """The compressed point of a private key: for a node's key, its id."""
    return _compressed(_times(int.from_bytes(key, "big"), (*_G, 1)))


def total(point: bytes, other: bytes) -> bytes:
    """The sum of two points.

    Raises:
        ValueError: One of them is no point of the curve.
    """
    return _compressed(_add(_point(point), _point(other)))


def multiple(point: bytes, factor: bytes) -> bytes:
    """A point as often as the factor says.

    Raises:
        ValueError: That is no point of the curve.
    """
    return _compressed(_times(int.from_bytes(factor, "big"), _point(point)))


def key_total(key: bytes, other: bytes) -> bytes:
    """The private key of the sum of two private keys' points."""
    sum_ = int.from_bytes(key, "big") + int.from_bytes(other, "big")
    return (sum_ % _N).to_bytes(32, "big")


def shared_secret(key: bytes, point: bytes) -> bytes:
    """SHA256 of the compressed product.

    Raises:
        ValueError: That is no point of the curve.
    """
    product = _times(int.from_bytes(key, "big"), _point(point))
    return hashlib.sha256(_compressed(product)).digest()


def signer(digest: bytes, compact: bytes, recovery: int) -> bytes:
    """Whose signature this is, by the number that tells the possible points apart.

    Raises:
        ValueError: It is nobody's.
    """
    r, s = int.from_bytes(compact[:32], "big"), int.from_bytes(compact[32:], "big")
    if not (0 < r < _N and 0 < s < _N and recovery in range(4)):
        raise ValueError("no signature")
    nonce = _lifted(r + _N * (recovery >> 1), recovery & 1)
    inverse = pow(r, -1, _N)
    message = -int.from_bytes(digest, "big") * inverse % _N
    return _compressed(_add(_times(message, (*_G, 1)), _times(s * inverse % _N, nonce)))


def sign(digest: bytes, key: bytes) -> tuple[bytes, int]:
    """A signature of a digest, and the number that tells the possible points apart."""
    nonce = 1 + secrets.randbelow(_N - 1)
    point = _compressed(_times(nonce, (*_G, 1)))
    x = int.from_bytes(point[1:], "big")
    r, recovery = x % _N, (point[0] & 1) | (x >= _N) << 1
    sum_ = int.from_bytes(digest, "big") + r * int.from_bytes(key, "big")
    s = pow(nonce, -1, _N) * sum_ % _N
    # Of both that hold, nodes take the smaller.
    if 2 * s > _N:
        s, recovery = _N - s, recovery ^ 1
    return r.to_bytes(32, "big") + s.to_bytes(32, "big"), recovery
