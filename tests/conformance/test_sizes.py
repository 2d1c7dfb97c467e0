"""Sizes and fees: which payment can be sold, and which error tells why another cannot."""

from __future__ import annotations

import pytest

from . import ours
from .offers import opening_fee
from .rpc import (
    CLIENT_REJECTED,
    INVALID_PARAMS,
    PAYMENT_TOO_LARGE,
    PAYMENT_TOO_SMALL,
    Client,
    Offer,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

SOLD = None
# The text says that such a size is refused, and not how.
ANY_REFUSAL = {CLIENT_REJECTED, PAYMENT_TOO_SMALL, PAYMENT_TOO_LARGE, INVALID_PARAMS}
# The largest size whose product with 1,000,000 ppm, and 999,999 more, fits 64 bits.
NO_OVERFLOW = 18_446_744_073_708


async def codes(client: Client, token: str, sizes: list[int]) -> list[int | None]:
    """What buying each size of the one offer for a token comes to."""
    (offer,) = await client.get_info(token)
    return [(await client.buy(offer, size)).code for size in sizes]


async def test_J_29_a_size_outside_the_offer_is_refused(client: Client, offer: Offer) -> None:
    low, high = int(offer["min_payment_size_msat"]), int(offer["max_payment_size_msat"])
    for size in (0, low - 1, high + 1, 2**64 - 1):
        assert (await client.buy(offer, size)).code in ANY_REFUSAL, size


async def test_B_02_J_29_S_08_the_ends_of_an_offer(our_client: Client) -> None:
    low, high = 50_000_000, 100_000_000
    sizes = [0, low - 1, low, low + 1, high - 1, high, high + 1, 2**64 - 1]
    small, large = PAYMENT_TOO_SMALL, PAYMENT_TOO_LARGE
    assert await codes(our_client, "narrow", sizes) == [
        *(small, small, SOLD, SOLD),
        *(SOLD, SOLD, large, large),
    ]


async def test_J_31_fee_equal_to_payment_is_rejected(client: Client, offer: Offer) -> None:
    size = max(int(offer["min_fee_msat"]), int(offer["min_payment_size_msat"]))
    if opening_fee(offer, size) != size:
        pytest.skip("the cheapest offer has no such payment")
    assert (await client.buy(offer, size)).code == PAYMENT_TOO_SMALL


async def test_J_31_S_08_the_payment_exceeds_its_fee(our_client: Client) -> None:
    fee = 10_000_000
    expected = [PAYMENT_TOO_SMALL, PAYMENT_TOO_SMALL, SOLD]
    assert await codes(our_client, "flat", [fee - 1, fee, fee + 1]) == expected


async def test_J_19_B_01_the_fee_is_rounded_up(our_client: Client) -> None:
    """At 999,999 ppm the fee of less than 1,000 sat is all of it, unless it is rounded down."""
    expected = [PAYMENT_TOO_SMALL, PAYMENT_TOO_SMALL, SOLD, PAYMENT_TOO_SMALL, SOLD]
    sizes = [1, 999_999, 1_000_000, 1, 1_000_001]
    assert await codes(our_client, "rounding", sizes) == expected


@pytest.mark.parametrize(
    ("size", "code"),
    [
        pytest.param(NO_OVERFLOW, PAYMENT_TOO_SMALL, id="none"),
        pytest.param(NO_OVERFLOW + 1, PAYMENT_TOO_LARGE, id="addition"),
        pytest.param(NO_OVERFLOW + 2, PAYMENT_TOO_LARGE, id="multiplication"),
        # Their products are small again where they wrap.
        pytest.param(2**58, PAYMENT_TOO_LARGE, id="product 0 modulo 2^64"),
        pytest.param(2**58 + 1, PAYMENT_TOO_LARGE, id="product 1,000,000 modulo 2^64"),
    ],
)
async def test_J_20_J_21_J_30_J_80_S_09_an_overflow_is_an_error(
    our_client: Client, size: int, code: int
) -> None:
    """The fee would be the size, so that nothing is sold either way: the code tells which it is."""
    assert await codes(our_client, "overflow", [size]) == [code]


async def test_J_22_after_an_overflow_others_are_sold(our_client: Client) -> None:
    assert await codes(our_client, "overflow", [NO_OVERFLOW + 1]) == [PAYMENT_TOO_LARGE]
    assert await codes(our_client, "flat", [20_000_000]) == [SOLD]


async def test_J_32_more_than_can_be_received(our_client: Client) -> None:
    offer, *_ = await our_client.get_info()
    assert ours.INBOUND_SAT * 1_000 < ours.LARGEST
    for size in (ours.INBOUND_SAT * 1_000 + 1, ours.LARGEST):
        assert (await our_client.buy(offer, size)).code == PAYMENT_TOO_LARGE
    assert (await our_client.buy(offer, ours.INBOUND_SAT * 1_000 // 2)).code == SOLD
