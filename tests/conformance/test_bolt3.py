"""Keys and transactions of channels by the examples of BOLT 3.

``bolt3_vectors.json`` are its commitments with anchors.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from . import bolt3, curve
from .bolt3 import Basepoints, Channel, Commitment, Htlc

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("bolt3_vectors.json").read_text("utf-8")
)
POINT = bytes.fromhex("025f7117a78150fe2ef97db7cfc83bd57b2e2c0d0dd25eaf467a4a1c2a45ce1486")
# Of the side that did not fund the channel; its HTLC key is that of its payments.
THEIRS = Basepoints(
    funding=bytes.fromhex("1552dfba4f6cf29a62a0af13c8d6981d36d0ef8d61ba10fb0fe90da7634d7e13"),
    revocation=bytes([0x22] * 32),
    payment=bytes([0x44] * 32),
    delayed=bytes([0x66] * 32),
    htlc=bytes([0x44] * 32),
)
OURS = Basepoints(
    funding=bytes.fromhex("30ff4956bbdd3222d44cc5e8a1261dab1e07957bdac5ae88fe3261ef321f3749"),
    revocation=bytes([0x77] * 32),
    payment=bytes([0x11] * 32),
    delayed=bytes([0x33] * 32),
    htlc=bytes([0x11] * 32),
)
TXID = bytes.fromhex("8984484a580b825b9972d7adb15050b3ab624ccd731946b3eeddb92f4e7ef6be")[::-1]
# Offered by the funder, amount, expiry, and the byte that the preimage repeats.
HTLCS = [
    (False, 1_000_000, 500, 0),
    (False, 2_000_000, 501, 1),
    (True, 2_000_000, 502, 2),
    (True, 3_000_000, 503, 3),
    (False, 4_000_000, 504, 4),
    (True, 5_000_000, 506, 5),
    (True, 5_000_001, 505, 5),
]
FIVE, SAME_PREIMAGE = HTLCS[:5], [HTLCS[1], HTLCS[5], HTLCS[6]]
CAPACITY_SAT, NUMBER = 10_000_000, 42


def example(vector: dict[str, Any]) -> tuple[Channel, Commitment]:
    """What we make of an example."""
    # Each example has all of its HTLCs or none, of which it says nothing but the balances.
    left = CAPACITY_SAT * 1_000 - vector["LocalBalance"] - vector["RemoteBalance"]
    used = next(each for each in ([], FIVE, SAME_PREIMAGE) if sum(h[1] for h in each) == left)
    htlcs = [
        Htlc(offered, amount, sha256(bytes([byte] * 32)).digest(), expiry)
        for offered, amount, expiry, byte in used
    ]
    channel = Channel(
        txid=TXID,
        output=0,
        capacity_sat=CAPACITY_SAT,
        funder=OURS.points(),
        other=THEIRS.points(),
        delay=144,
        dust_sat=vector["DustLimitSatoshis"],
    )
    rate, ours, theirs = vector["FeePerKw"], vector["LocalBalance"], vector["RemoteBalance"]
    return channel, bolt3.commitment(channel, NUMBER, POINT, rate, ours, theirs, htlcs)


def without_witness(transaction: str) -> bytes:
    """One input's transaction as it was before it was signed, by where its outputs end."""
    data = bytes.fromhex(transaction)
    # Version, mark and flag of witnesses, number of inputs, outpoint, empty script, sequence.
    end = 4 + 2 + 1 + 36 + 1 + 4
    outputs, at = data[end], end + 1
    for _ in range(outputs):
        at += 8 + 1 + data[at + 8]
    return data[:4] + data[6:at] + data[-4:]


def signers(digest: bytes, der: str) -> set[bytes]:
    """Whose signature this may be."""
    data = bytes.fromhex(der)
    size = data[3]
    r, s = data[4 : 4 + size], data[6 + size :]
    compact = b"".join(int.from_bytes(each, "big").to_bytes(32, "big") for each in (r, s))
    return {curve.signer(digest, compact, recovery) for recovery in (0, 1)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["Name"])
def test_commitments_by_the_examples(vector: dict[str, Any]) -> None:
    channel, made = example(vector)
    assert bytes(made.transaction) == without_witness(vector["ExpectedCommitmentTxHex"])
    whole, of_htlcs = bolt3.digests(channel, made)
    assert channel.other.funding in signers(whole, vector["RemoteSigHex"])
    htlc_key = bolt3.key_of(channel.other.htlc, POINT)
    for index, digest, each in zip(made.htlcs, of_htlcs, vector["HtlcDescs"], strict=True):
        stage = bolt3.htlc_transaction(channel, made, index)
        assert bytes(stage) == without_witness(each["ResolutionTxHex"])
        assert htlc_key in signers(digest, each["RemoteSigHex"])


def test_our_signatures_are_those_of_our_keys() -> None:
    channel, made = example(VECTORS[2])
    signature, of_htlcs = bolt3.sign(channel, made, THEIRS)
    whole, digests = bolt3.digests(channel, made)

    def signed(digest: bytes, compact: bytes, key: bytes) -> bool:
        return key in {curve.signer(digest, compact, recovery) for recovery in (0, 1)}

    assert signed(whole, signature, channel.other.funding)
    htlc_key = bolt3.key_of(channel.other.htlc, POINT)
    assert len(of_htlcs) == len(FIVE)
    for digest, compact in zip(digests, of_htlcs, strict=True):
        assert signed(digest, compact, htlc_key)


@pytest.mark.parametrize(
    ("seed", "index", "secret"),
    [
        ("00", 2**48 - 1, "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148"),
        ("ff", 2**48 - 1, "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc"),
        ("ff", 0xAAAAAAAAAAA, "56f4008fb007ca9acf0e15b054d5c9fd12ee06cea347914ddbaed70d1c13a528"),
        ("ff", 0x555555555555, "9015daaeb06dba4ccc05b91b2f73bd54405f2be9f217fbacd3c5ac2e62327d31"),
        ("01", 1, "915c75942a26bb3a433a8ce2cb0427c29ec6c1775cfc78328b57f6ba7bfeaa9c"),
    ],
)
def test_secrets_by_the_examples(seed: str, index: int, secret: str) -> None:
    assert bolt3.secret_of_index(bytes.fromhex(seed * 32), index).hex() == secret
    assert bolt3.secret(bytes.fromhex(seed * 32), 2**48 - 1 - index).hex() == secret


def test_keys_by_the_examples() -> None:
    base = bytes(range(32))
    basepoint = curve.public_key(base)
    assert curve.public_key(bytes(reversed(range(32)))) == POINT
    own = "0235f2dbfaa89b57ec7b055afe29849ef7ddfeb1cefdb9ebdc43f5494984db29e5"
    assert bolt3.key_of(basepoint, POINT).hex() == own
    own_key = "cbced912d3b21bf196a766651e436aff192362621ce317704ea2f75d87e7be0f"
    assert bolt3.private_key_of(base, POINT).hex() == own_key
    revocation = "02916e326636d19c33f13e8c0c3a03dd157f332f3e99c317c141dd865eb01f8ff0"
    assert bolt3.revocation_key(basepoint, POINT).hex() == revocation
