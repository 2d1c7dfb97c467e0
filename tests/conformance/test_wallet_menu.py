"""What a client buys of a menu: the cheapest offer that fits, or nothing where it must not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from .offers import PROMISED
from .rpc import GET_INFO, Offer
from .shop import SIZE, Shop, an_offer, in_
from .wallet import Wallet, invoice, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

U64_MAX = str(2**64 - 1)
# Each is no value of its field.
MALFORMED: list[tuple[str, Any]] = [
    ("min_fee_msat", 2_000_000),
    ("min_fee_msat", ""),
    ("min_fee_msat", "-1"),
    ("min_fee_msat", "1.0"),
    ("min_fee_msat", "1e3"),
    ("min_fee_msat", None),
    ("min_fee_msat", str(2**64)),
    ("proportional", "4000"),
    ("proportional", -1),
    ("proportional", 1.5),
    ("proportional", True),
    ("proportional", None),
    ("valid_until", "tomorrow"),
    ("valid_until", "2030-02-30T00:00:00.000Z"),
    ("valid_until", "2030-01-01T00:00:00.000"),
    ("valid_until", 1_900_000_000),
    ("valid_until", None),
    ("min_lifetime", "2016"),
    ("min_lifetime", -1),
    ("max_client_to_self_delay", "2016"),
    ("max_client_to_self_delay", -1),
    ("min_payment_size_msat", 1_000_000),
    ("max_payment_size_msat", 5_000_000_000),
    ("max_payment_size_msat", [U64_MAX]),
    ("promise", 1),
    ("promise", None),
    ("promise", {"mac": "00"}),
]


def menus(bad: Offer) -> list[list[Offer]]:
    """A menu of a bad offer alone, and with good ones that would be bought."""
    return [[bad], [an_offer(min_fee_msat="1000000"), bad], [bad, an_offer()]]


async def nothing_is_bought(shop: Shop, wallet: Wallet, size: int | None = SIZE) -> None:
    """The flow ends with the menu, and the user is told."""
    shop.requests.clear()
    assert (await refusal(wallet, size)).shown
    assert shop.methods == [GET_INFO]


async def bought(shop: Shop, wallet: Wallet, size: int | None = SIZE) -> Offer:
    """What is bought of the menu."""
    shop.requests.clear()
    await wallet.receive(size)
    (request,) = shop.bought
    return request.params["opening_fee_params"]


async def test_J_08_of_an_empty_menu_nothing_is_bought(shop: Shop, wallet: Wallet) -> None:
    shop.menu = []
    await nothing_is_bought(shop, wallet)
    await nothing_is_bought(shop, wallet, None)
    shop.menu = [an_offer()]
    await bought(shop, wallet)


# Menus that end the flow


async def test_J_16_a_promise_of_512_bytes_and_of_513(shop: Shop, wallet: Wallet) -> None:
    shop.menu = [an_offer(promise="a" * 512)]
    assert await bought(shop, wallet) == shop.menu[0]
    for each in menus(an_offer(promise="a" * 513)):
        shop.menu = each
        await nothing_is_bought(shop, wallet)
        await nothing_is_bought(shop, wallet, None)


async def test_J_16_the_bytes_of_a_promise_count_not_its_characters(
    shop: Shop, wallet: Wallet
) -> None:
    shop.menu = [an_offer(promise="語" * 171)]
    await nothing_is_bought(shop, wallet)


async def test_J_16_the_escapes_of_a_promise_count(shop: Shop, wallet: Wallet) -> None:
    """``promise`` is measured as the JSON string it is."""
    shop.menu = [an_offer(promise='"' * 257)]
    await nothing_is_bought(shop, wallet)


@pytest.mark.parametrize("value", [None, "", 0, False, "1", {}, []])
async def test_J_18_an_unknown_field_ends_the_flow(shop: Shop, wallet: Wallet, value: Any) -> None:
    """Whatever its value, also where another offer would have been bought."""
    for each in menus(an_offer(extra=value)):
        shop.menu = each
        await nothing_is_bought(shop, wallet)


@pytest.mark.parametrize("field", [*PROMISED, "promise"])
async def test_J_18_a_field_of_another_case_is_unknown(
    shop: Shop, wallet: Wallet, field: str
) -> None:
    for more in (field.upper(), field + " ", field.replace("_", "-") + "s"):
        shop.menu = [an_offer(**{more: an_offer()[field]})]
        await nothing_is_bought(shop, wallet)


@pytest.mark.parametrize("field", [*PROMISED, "promise"])
async def test_J_09_an_offer_without_one_of_its_fields(
    shop: Shop, wallet: Wallet, field: str
) -> None:
    shop.menu = [an_offer(**{field: ...})]
    await nothing_is_bought(shop, wallet)


@pytest.mark.parametrize(("field", "value"), MALFORMED)
async def test_J_09_T_14_an_offer_with_a_malformed_field(
    shop: Shop, wallet: Wallet, field: str, value: Any
) -> None:
    shop.menu = [an_offer(**{field: value})]
    await nothing_is_bought(shop, wallet)


NO_MENUS: list[dict[str, Any]] = [
    {},
    {"opening_fee_params_menu": None},
    {"opening_fee_params_menu": {}},
    {"opening_fee_params_menu": "[]"},
    {"opening_fee_params_menu": [None]},
    {"opening_fee_params_menu": [[]]},
    {"opening_fee_params_menu": [list(an_offer().values())]},
    {"opening_fee_params_menu": an_offer()},
    {"opening_fee_params_menu": [[an_offer()]]},
    {"menu": [an_offer()]},
]


@pytest.mark.parametrize("result", NO_MENUS)
async def test_J_09_what_is_no_menu(shop: Shop, wallet: Wallet, result: dict[str, Any]) -> None:
    shop.change(GET_INFO, lambda answer: [{**answer, "result": result}])
    await nothing_is_bought(shop, wallet)


# Sizes and fees


async def test_J_28_the_ends_of_an_offer_are_for_sale(shop: Shop, wallet: Wallet) -> None:
    low, high = 50_000_000, 60_000_000
    shop.menu = [an_offer(min_payment_size_msat=str(low), max_payment_size_msat=str(high))]
    for size in (low, low + 1, high - 1, high):
        await bought(shop, wallet, size)
    for size in (low - 1, high + 1):
        await nothing_is_bought(shop, wallet, size)


async def test_J_28_the_offer_that_fits_is_bought(shop: Shop, wallet: Wallet) -> None:
    """A dearer one, where the cheaper is for other sizes."""
    shop.menu = [
        an_offer(min_fee_msat="1000000", max_payment_size_msat=str(SIZE - 1)),
        an_offer(min_fee_msat="2000000", min_payment_size_msat=str(SIZE + 1)),
        an_offer(min_fee_msat="3000000"),
    ]
    assert await bought(shop, wallet) == shop.menu[2]
    assert await bought(shop, wallet, SIZE - 1) == shop.menu[0]
    assert await bought(shop, wallet, SIZE + 1) == shop.menu[1]


async def test_J_31_a_fee_that_is_all_of_the_payment_is_not_agreed_to(
    shop: Shop, wallet: Wallet
) -> None:
    shop.menu = [an_offer(min_fee_msat=str(SIZE))]
    await nothing_is_bought(shop, wallet, SIZE)
    await bought(shop, wallet, SIZE + 1)


async def test_J_12_S_76_a_menu_out_of_order(shop: Shop, wallet: Wallet) -> None:
    """The cheapest is bought wherever it is; some LSPs send incomparable offers."""
    fees = [(2_000_000, 0), (1_000_000, 16_000), (1_500_000, 1_000), (3_000_000, 4_000)]
    menu = [an_offer(min_fee_msat=str(fee), proportional=ppm) for fee, ppm in fees]
    for each in (menu, menu[::-1], menu[2:] + menu[:2]):
        shop.menu = each
        assert await bought(shop, wallet) == menu[2]


async def test_J_19_the_fee_is_rounded_up(shop: Shop, wallet: Wallet) -> None:
    """By one msat the second is the cheaper one, which no other rounding finds."""
    shop.menu = [
        an_offer(min_fee_msat="0", proportional=10_001),
        an_offer(min_fee_msat="1000100", proportional=0),
    ]
    assert await bought(shop, wallet, SIZE + 1) == shop.menu[1]


@pytest.mark.parametrize(
    ("ppm", "size"),
    [
        # Wrapped, clamped or computed with larger integers the fee would be below the size.
        pytest.param(64, 2**58, id="multiplication"),
        pytest.param(16, 1_152_921_504_606_784_477, id="addition"),
    ],
)
async def test_J_20_J_21_J_22_J_80_an_overflow_ends_the_flow(
    shop: Shop, wallet: Wallet, ppm: int, size: int
) -> None:
    shop.menu = [an_offer(proportional=ppm, max_payment_size_msat=U64_MAX)]
    await nothing_is_bought(shop, wallet, size)
    await bought(shop, wallet, SIZE)


async def test_J_20_J_80_the_largest_size_without_an_overflow(shop: Shop, wallet: Wallet) -> None:
    shop.menu = [an_offer(proportional=16, max_payment_size_msat=U64_MAX)]
    size = 1_152_921_504_606_784_476
    assert size * 16 + 999_999 == 2**64 - 1
    assert (await invoice(wallet, size)).amount_msat == size


# Instants


@pytest.mark.parametrize("fraction", ["", ".000", ".250", ".250999", ".250999999"])
@pytest.mark.parametrize("zone", ["Z", "+00:00"])
async def test_J_37_B_06_B_13_an_instant_in_any_form(
    shop: Shop, wallet: Wallet, fraction: str, zone: str
) -> None:
    at = (datetime.now(timezone.utc) + timedelta(minutes=10)).replace(microsecond=0)
    shop.menu = [an_offer(valid_until=f"{at:%Y-%m-%dT%H:%M:%S}{fraction}{zone}")]
    made = await invoice(wallet)
    # It might have been valid longer.
    assert at.timestamp() - 60 <= made.expires <= at.timestamp()


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_37_an_offer_of_the_past_is_not_bought(
    shop: Shop, wallet: Wallet, size: int | None
) -> None:
    for seconds in (-0.001, -1, -86_400 * 365 * 50):
        shop.menu = [an_offer(valid_until=in_(seconds))]
        await nothing_is_bought(shop, wallet, size)
    shop.menu = [an_offer(valid_until=in_(-1)), an_offer(min_fee_msat="3000000")]
    assert await bought(shop, wallet, size) == shop.menu[1]
