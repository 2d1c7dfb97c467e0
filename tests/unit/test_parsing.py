"""What a person pastes or scans; the reading itself is tested in rust/node/src/parse.rs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

import ldkjit
from ldkjit import (
    Bip21,
    Bolt11,
    LightningAddress,
    LnUrl,
    Msat,
    OnchainAddress,
    Parsed,
    ParseError,
    parse,
)

# BOLT 11's examples: any amount; 2,500 µBTC within a minute for coffee.
DONATION = (
    "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq"
    "5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qr"
    "sgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspye"
    "tp5h2tztugp9lfyql"
)


def test_an_invoice() -> None:
    told = parse(f"lightning:{DONATION.upper()}")
    assert isinstance(told, Bolt11)
    assert told.bolt11 == DONATION
    assert told.network == "bitcoin"
    assert told.amount is None
    assert told.description == "Please consider supporting this project"
    made = datetime(2017, 6, 1, 10, 57, 38, tzinfo=timezone.utc)
    assert told.created_at == made
    assert told.expires_at == made + timedelta(hours=1)
    assert not told.is_expired(now=told.expires_at - timedelta(seconds=1))
    assert told.is_expired(now=told.expires_at)
    assert told.is_expired()


def test_each_kind_is_its_own_class() -> None:
    address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
    kinds = {
        address: OnchainAddress,
        f"bitcoin:{address}?amount=0.5": Bip21,
        "lnurlp://example.com/pay": LnUrl,
        "satoshi@example.com": LightningAddress,
    }
    for text, kind in kinds.items():
        assert type(parse(text)) is kind, text
    link: Parsed = parse(f"bitcoin:{address}?amount=0.00000001&label=me")
    assert isinstance(link, Bip21)
    assert link.amount == Msat(1_000)
    assert link.label == "me"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("x" * 10_000, "too_long"),
        ("hello", "unknown"),
        (DONATION[:-1] + "q", "malformed"),
        ("lno1pqps7sjqpgt", "unsupported"),
        ("bitcoin:1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2?req-x=1", "required"),
        (
            f"bitcoin:bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080?lightning={DONATION}",
            "wrong_network",
        ),
    ],
)
def test_what_cannot_be_paid_says_why(text: str, why: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert caught.value.why == why
    assert not caught.value.retryable
    assert isinstance(caught.value, ValueError)


def test_what_it_gives_is_public() -> None:
    assert {"Bolt11", "Bip21", "LnUrl", "LightningAddress", "OnchainAddress"} <= set(ldkjit.__all__)
