"""Many requests and many orders, and which of several faults is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from . import ours
from .offers import sellable
from .peer import Target
from .rpc import (
    BUY,
    CLIENT_REJECTED,
    GET_INFO,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    OFFER_INVALID,
    PARSE_ERROR,
    PAYMENT_TOO_LARGE,
    PAYMENT_TOO_SMALL,
    TOKEN_UNKNOWN,
    Client,
    Offer,
    buy_params,
    new_id,
    request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


async def test_J_34_S_10_a_client_with_enough_orders(our_client: Client, our_lsp: Target) -> None:
    offer, *_ = await our_client.get_info()
    sold = [(await our_client.buy(offer)).code for _ in range(ours.ORDERS_PER_CLIENT)]
    assert sold == [None] * ours.ORDERS_PER_CLIENT
    for _ in range(3):
        assert (await our_client.buy(offer)).code == CLIENT_REJECTED
    async with await Client.connect(our_lsp) as other:
        offer, *_ = await other.get_info()
        assert (await other.buy(offer)).code is None


async def test_S_10_requests_at_once(client: Client) -> None:
    """Some may be refused, each is answered, and afterwards all is as before."""
    for _ in range(3):
        ids = {new_id() for _ in range(30)}
        for id_ in ids:
            await client.peer.send(request(GET_INFO, {"token": id_}, id_))
        answers = [await client.receive() for _ in ids]
        assert {each.id for each in answers} == ids
        assert {each.code for each in answers} <= {200, CLIENT_REJECTED}
        assert (await client.ask(GET_INFO, {"token": new_id()})).code == 200


async def test_S_11_two_thousand_refusals(strict_lsp: Target) -> None:
    """Keys are replaced on the way, on both sides."""
    async with _with_all_its_orders(strict_lsp) as (client, offer):
        for _ in range(250):
            for _ in range(8):
                await client.peer.send(request(BUY, buy_params(offer)))
            for _ in range(8):
                assert (await client.receive()).code == CLIENT_REJECTED
        assert await client.others() == []
    async with await Client.connect(strict_lsp) as other:
        offer, *_ = await other.get_info()
        assert (await other.buy(offer)).code is None


@contextlib.asynccontextmanager
async def _with_all_its_orders(strict_lsp: Target) -> AsyncGenerator[tuple[Client, Offer], None]:
    """A client that is sold no more, and an offer it could buy otherwise."""
    async with await Client.connect(strict_lsp) as client:
        offer, *_ = await client.get_info()
        for _ in range(ours.STRICT_ORDERS_PER_CLIENT):
            assert (await client.buy(offer)).code is None
        yield client, offer


async def test_J_34_no_refusal_makes_a_client_deaf(strict_lsp: Target) -> None:
    """LDK 0.2.7 reads a text in ``data`` or nothing; an object there, and it hears no more."""
    async with _with_all_its_orders(strict_lsp) as (client, offer):
        refused = [
            await client.buy(offer),
            await client.ask(GET_INFO, {"token": new_id()}),
            await client.buy({**offer, "promise": "0"}),
            await client.buy(offer, 999),
            await client.buy(offer, ours.LARGEST + 1),
            await client.ask("lsps2.no_such_method", {}),
            await client.say(b"{"),
        ]
    codes = [CLIENT_REJECTED, TOKEN_UNKNOWN, OFFER_INVALID, PAYMENT_TOO_SMALL, PAYMENT_TOO_LARGE]
    assert [each.code for each in refused] == [*codes, METHOD_NOT_FOUND, PARSE_ERROR]
    assert all(each.data is None or isinstance(each.data, str) for each in refused)


def _faulty(**faults: Any) -> Any:
    """A case of the next test, named after what is wrong in it."""
    return pytest.param(faults.pop("code"), faults, id=" and ".join(faults))


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        _faulty(unknown=True, promise=True, below=True, code=INVALID_PARAMS),
        _faulty(malformed=True, promise=True, code=INVALID_PARAMS),
        _faulty(promise=True, below=True, code=OFFER_INVALID),
        _faulty(promise=True, above=True, code=OFFER_INVALID),
        _faulty(promise=True, all_fee=True, code=OFFER_INVALID),
        _faulty(promise=True, code=OFFER_INVALID),
        _faulty(below=True, code=PAYMENT_TOO_SMALL),
        _faulty(above=True, code=PAYMENT_TOO_LARGE),
        _faulty(all_fee=True, code=PAYMENT_TOO_SMALL),
        _faulty(not_receivable=True, code=CLIENT_REJECTED),
        _faulty(nothing_else=True, code=CLIENT_REJECTED),
    ],
)
async def test_J_84_the_first_fault_is_told(
    strict_lsp: Target, code: int, faults: dict[str, bool]
) -> None:
    """By a client that is refused anyhow, which is the fault before the last."""
    sizes: dict[str, Any] = {"below": 999, "above": ours.LARGEST + 1, "all_fee": 2_000_000}
    sizes |= {"not_receivable": ours.LARGEST, "malformed": "1.5"}
    async with _with_all_its_orders(strict_lsp) as (client, offer):
        size = next((sizes[each] for each in faults if each in sizes), sellable(offer))
        promise = "0" if "promise" in faults else offer["promise"]
        params = buy_params({**offer, "promise": promise}, size)
        if "unknown" in faults:
            params["future_feature1_param"] = 1
        for _ in range(3):
            assert (await client.ask(BUY, params)).code == code
