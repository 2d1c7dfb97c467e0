"""What is sold is what was promised: forged, changed, foreign and late offers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from .offers import PROMISED, forgeries, later, sellable
from .peer import Target
from .rpc import (
    BUY,
    INVALID_PARAMS,
    OFFER_INVALID,
    Client,
    Offer,
    buy_params,
    new_id,
    request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


def _another(character: str) -> str:
    return "a" if character != "a" else "b"


FORGED: dict[str, Callable[[str], str]] = {
    "none": lambda _: "",
    "one character less": lambda promise: promise[:-1],
    "one character more": lambda promise: promise + "0",
    "a blank more": lambda promise: promise + " ",
    "another first character": lambda promise: _another(promise[0]) + promise[1:],
    "another last character": lambda promise: promise[:-1] + _another(promise[-1]),
    "another case": str.swapcase,
    "twice": lambda promise: promise + promise,
    "too long": lambda _: "a" * 513,
    "as long as a message": lambda _: "a" * 60_000,
    "not ASCII": lambda promise: "é" * len(promise),
}

# Each is no value of its field.
MALFORMED = [
    ("min_fee_msat", 2_000_000),
    ("min_fee_msat", ""),
    ("min_fee_msat", "-1"),
    ("min_fee_msat", "1.0"),
    ("min_fee_msat", None),
    ("proportional", "4000"),
    ("proportional", 1.5),
    ("proportional", -1),
    ("proportional", 2**64),
    ("valid_until", "tomorrow"),
    ("valid_until", "2030-13-01T00:00:00.000Z"),
    ("valid_until", "2030-02-30T00:00:00.000Z"),
    ("valid_until", 1_900_000_000),
    ("min_lifetime", "2016"),
    ("min_lifetime", None),
    ("max_client_to_self_delay", True),
    ("min_payment_size_msat", 1),
    ("max_payment_size_msat", str(2**64)),
    ("promise", 1),
    ("promise", None),
    ("promise", ["a"]),
]


@pytest.mark.parametrize("field", PROMISED)
async def test_J_13_J_24_S_07_a_changed_field(client: Client, offer: Offer, field: str) -> None:
    forged = dict(forgeries(offer))[field]
    assert [name for name in offer if forged[name] != offer[name]] == [field]
    assert (await client.buy(forged)).code == OFFER_INVALID
    assert (await client.buy(offer)).code is None


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
async def test_J_13_J_24_S_07_a_forged_promise(
    client: Client, offer: Offer, forge: Callable[[str], str]
) -> None:
    forged = {**offer, "promise": forge(offer["promise"])}
    if forged == offer:
        pytest.skip("the promise has no letters")
    assert (await client.buy(forged)).code == OFFER_INVALID


async def test_J_24_the_promise_of_another_offer(our_client: Client) -> None:
    first, second, *_ = await our_client.get_info()
    exchanged = {**first, "promise": second["promise"]}
    assert (await our_client.buy(exchanged)).code == OFFER_INVALID


async def test_J_06_an_offer_that_nobody_made(client: Client) -> None:
    made_up = {
        "min_fee_msat": "1",
        "proportional": 0,
        "valid_until": "2100-01-01T00:00:00.000Z",
        "min_lifetime": 0,
        "max_client_to_self_delay": 2016,
        "min_payment_size_msat": "1",
        "max_payment_size_msat": "100000000",
        "promise": new_id(),
    }
    for size in (None, 1_000_000):
        assert (await client.buy(made_up, size)).code == OFFER_INVALID


@pytest.mark.parametrize("days", [-1, -365 * 50], ids=["yesterday", "long ago"])
async def test_J_25_an_offer_of_the_past(client: Client, offer: Offer, days: int) -> None:
    """Refused for its promise or for its date: a genuine one takes ten minutes to get old."""
    answer = await client.buy(later(offer, timedelta(days=days)))
    assert answer.code == OFFER_INVALID


async def test_J_24_a_refusal_leaves_the_offer_as_it_was(client: Client, offer: Offer) -> None:
    for _, forged in forgeries(offer):
        assert (await client.buy(forged)).code == OFFER_INVALID
    assert (await client.buy(offer, sellable(offer))).code is None


async def test_J_23_the_fields_of_an_offer_have_no_order(client: Client, offer: Offer) -> None:
    for names in (sorted(offer), sorted(offer, reverse=True)):
        assert (await client.buy({name: offer[name] for name in names})).code is None


async def test_J_23_blanks_in_an_offer_mean_nothing(client: Client, offer: Offer) -> None:
    fields = json.loads(request(BUY, buy_params(offer, sellable(offer)), new_id()))
    answer = await client.say(json.dumps(fields, indent=4).encode())
    assert (answer.id, answer.code) == (fields["id"], None)


@pytest.mark.parametrize(("field", "value"), MALFORMED)
async def test_J_24_T_08_a_field_that_is_malformed(
    client: Client, offer: Offer, field: str, value: Any
) -> None:
    answer = await client.buy({**offer, field: value})
    assert answer.code in {INVALID_PARAMS, OFFER_INVALID}
    assert answer.code == OFFER_INVALID or answer.data["unrecognized"] == []


@pytest.mark.parametrize("field", [*PROMISED, "promise"])
async def test_J_24_T_08_a_field_that_is_missing(client: Client, offer: Offer, field: str) -> None:
    answer = await client.buy({name: offer[name] for name in offer if name != field})
    assert answer.code in {INVALID_PARAMS, OFFER_INVALID}
    assert answer.code == OFFER_INVALID or answer.data["unrecognized"] == []


# How we read what the text leaves open


@pytest.mark.parametrize("end", ["000Z", "000000Z", "+00:00", "000+00:00", "000000+00:00"])
async def test_B_06_an_instant_written_another_way(our_client: Client, end: str) -> None:
    """Clients of today parse offers and write them anew."""
    offer, *_ = await our_client.get_info()
    again = {**offer, "valid_until": offer["valid_until"].removesuffix("Z") + end}
    assert (await our_client.buy(again)).code is None


async def test_B_05_S_07_an_offer_is_for_one_client(our_client: Client, our_lsp: Target) -> None:
    offer, *_ = await our_client.get_info()
    friends, *_ = await our_client.get_info("friend")
    async with await Client.connect(our_lsp) as other:
        assert (await other.buy(offer)).code == OFFER_INVALID
        assert (await other.buy(friends)).code == OFFER_INVALID
    assert (await our_client.buy(friends)).code is None


async def test_S_07_an_offer_of_another_lsp(
    our_lsp: Target, strict_lsp: Target, our_client: Client
) -> None:
    """The same fees for the same client, promised with another secret."""
    async with await Client.connect(strict_lsp, our_client.peer.key) as elsewhere:
        foreign, *_ = await elsewhere.get_info()
    assert (await our_client.buy(foreign)).code == OFFER_INVALID
