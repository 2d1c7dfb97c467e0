"""The menu: who gets which, its order, and the form of each offer."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from . import ours
from .offers import FIELDS, instant
from .peer import Target
from .rpc import (
    CLIENT_REJECTED,
    GET_INFO,
    INVALID_PARAMS,
    TOKEN_UNKNOWN,
    Client,
    Offer,
    new_id,
    request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

# A clock of another machine may differ so much.
SKEW = timedelta(seconds=1)


def amount(text: Any) -> int:
    """An amount in msat as it must be written (T-14)."""
    assert isinstance(text, str)
    assert re.fullmatch(r"0|[1-9][0-9]*", text, re.ASCII), text
    assert int(text) < 2**64
    return int(text)


def rates(offers: list[Offer]) -> list[tuple[int, int]]:
    return [(int(each["min_fee_msat"]), each["proportional"]) for each in offers]


def assert_ordered(offers: list[Offer]) -> None:
    """Each is dearer than the one before in one rate at least, and cheaper in none (J-12)."""
    for cheap, dear in pairwise(rates(offers)):
        assert dear != cheap
        assert dear[0] >= cheap[0]
        assert dear[1] >= cheap[1]


# Tokens


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(new_id(), id="random"),
        pytest.param("", id="empty"),
        pytest.param("é語😀", id="not ASCII"),
        pytest.param("\0\n\"\\'; DROP TABLE token; --<b>%s", id="hostile"),
        pytest.param("x" * 65_000, id="as long as a message"),
    ],
)
async def test_J_07_S_06_an_unknown_token(client: Client, token: str) -> None:
    assert (await client.ask(GET_INFO, {"token": token})).code == TOKEN_UNKNOWN


@pytest.mark.parametrize("token", [0, 42, True, ["friend"], {"token": "friend"}])
async def test_J_07_B_12_a_token_that_is_no_string(client: Client, token: Any) -> None:
    answer = await client.ask(GET_INFO, {"token": token})
    assert answer.code == INVALID_PARAMS
    assert answer.data["unrecognized"] == []


@pytest.mark.parametrize("token", ["Friend", "friend ", " friend", "frien", "friend\0"])
async def test_J_07_a_token_is_exact(our_client: Client, token: str) -> None:
    assert (await our_client.ask(GET_INFO, {"token": token})).code == TOKEN_UNKNOWN


async def test_J_07_a_token_opens_its_menu(our_client: Client) -> None:
    (friends,) = await our_client.get_info("friend")
    assert friends["min_fee_msat"] == "100000"
    assert rates(await our_client.get_info()) == [
        (each["min_fee"], each["proportional_ppm"]) for each in ours.MENU
    ]


async def test_J_07_params_may_be_missing(our_client: Client) -> None:
    answer = await our_client.ask(GET_INFO)
    assert answer.result is not None
    menu = await our_client.get_info()
    assert rates(answer.result["opening_fee_params_menu"]) == rates(menu)


async def test_J_08_S_06_an_empty_menu(our_client: Client) -> None:
    assert await our_client.get_info("nothing") == []


async def test_J_34_B_15_a_client_that_is_not_served_gets_no_menu(our_lsp: Target) -> None:
    async with await Client.connect(our_lsp, ours.DENIED_KEY) as denied:
        answer = await denied.ask(GET_INFO, {})
        assert answer.code == CLIENT_REJECTED
        # The text gives it data; some clients cannot read an object there.
        assert answer.data is None or isinstance(answer.data["message"], str)


# Offers


async def test_J_09_T_19_an_offer_has_its_eight_fields_and_no_others(menu: list[Offer]) -> None:
    assert all(each.keys() == FIELDS for each in menu)


async def test_J_09_T_14_the_type_of_each_field(menu: list[Offer]) -> None:
    for offer in menu:
        amount(offer["min_fee_msat"])
        assert 0 < amount(offer["min_payment_size_msat"]) <= amount(offer["max_payment_size_msat"])
        for name in ("proportional", "min_lifetime", "max_client_to_self_delay"):
            assert type(offer[name]) is int
            assert 0 <= offer[name] < 2**32
        assert isinstance(offer["promise"], str)


async def test_T_14_a_date_time_is_utc_with_milliseconds(menu: list[Offer]) -> None:
    shape = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
    for offer in menu:
        assert shape.fullmatch(offer["valid_until"]), offer
        instant(offer["valid_until"])


async def test_T_14_nothing_is_escaped_without_need(client: Client, token: str | None) -> None:
    """No string of a menu has a character that needs it."""
    await client.peer.send(request(GET_INFO, {} if token is None else {"token": token}))
    payload = await client.peer.receive()
    assert b"opening_fee_params_menu" in payload
    assert b"\\" not in payload


async def test_J_10_an_offer_is_valid_for_ten_minutes(client: Client, token: str | None) -> None:
    before = datetime.now(timezone.utc)
    menu = await client.get_info(token)
    assert menu
    for offer in menu:
        assert instant(offer["valid_until"]) >= before + timedelta(minutes=10) - SKEW


async def test_J_12_the_order_of_the_menu(menu: list[Offer]) -> None:
    assert_ordered(menu)


async def test_J_12_S_06_the_order_of_a_long_menu(our_client: Client) -> None:
    menu = await our_client.get_info("many")
    assert len(menu) == len(ours.MANY)
    assert_ordered(menu)


async def test_J_14_J_79_a_promise_has_at_most_512_bytes(menu: list[Offer]) -> None:
    for offer in menu:
        assert 0 < len(offer["promise"].encode()) <= 512


async def test_J_15_J_79_a_promise_is_printable_ascii_without_escapes(menu: list[Offer]) -> None:
    for offer in menu:
        assert re.fullmatch(r"[ !#-\[\]-~]+", offer["promise"], re.ASCII), offer


async def test_J_13_no_two_offers_share_a_promise(our_client: Client) -> None:
    menu = await our_client.get_info("many") + await our_client.get_info()
    assert len({each["promise"] for each in menu}) == len(menu)
