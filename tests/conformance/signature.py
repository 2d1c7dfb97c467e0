"""Signatures as Lightning nodes make them of text, in zbase32; they name their key (T-25)."""

from __future__ import annotations

import hashlib

from .curve import signer

_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
_PREFIX = b"Lightning Signed Message:"
_SIZE = 65


def _zbase32(text: str) -> bytes:
    bits = "".join(f"{_ALPHABET.index(letter):05b}" for letter in text)
    whole = len(bits) // 8 * 8
    assert set(bits[whole:]) <= {"0"}, "bits that belong to nothing"
    return int(bits[:whole], 2).to_bytes(whole // 8, "big")


def signer_of(text: str, signature: str) -> str:
    """The node id of whoever signed a text.

    Raises:
        ValueError: It is nobody's.
    """
    data = _zbase32(signature)
    if len(data) != _SIZE:
        raise ValueError(f"a signature has {_SIZE} bytes, not {len(data)}")
    digest = hashlib.sha256(hashlib.sha256(_PREFIX + text.encode()).digest()).digest()
    # 31 and the number of the point, of those with compressed keys.
    return signer(digest, data[1:], data[0] - 31).hex()
