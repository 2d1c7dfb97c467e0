"""Which methods and parameters an LSP knows, and how it says that it does not know one."""

from __future__ import annotations

from typing import Any

import pytest

from .rpc import (
    BUY,
    GET_INFO,
    INVALID_PARAMS,
    LIST_PROTOCOLS,
    METHOD_NOT_FOUND,
    OFFER_INVALID,
    PARSE_ERROR,
    TOKEN_UNKNOWN,
    Client,
    Offer,
    buy_params,
    new_id,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


@pytest.mark.parametrize(
    "method",
    [
        "lsps2.no_such_method",
        "lsps2.get_versions",
        "lsps2.",
        "lsps2",
        "get_info",
        "lsps0.get_info",
        "lsps02.get_info",
        "LSPS2.GET_INFO",
        "lsps2.get_info ",
        "lsps2.get_info\0",
        "lsps32767.do_this",
        "rpc.discover",
        "",
        "x" * 10_000,
    ],
)
@pytest.mark.parametrize("params", [None, {}, {"unknown": 1}], ids=["none", "empty", "unknown"])
async def test_T_08_S_03_an_unknown_method(client: Client, method: str, params: Any) -> None:
    assert (await client.ask(method, params)).code == METHOD_NOT_FOUND


@pytest.mark.parametrize("method", [LIST_PROTOCOLS, GET_INFO, BUY])
async def test_T_08_S_03_an_unknown_parameter(client: Client, offer: Offer, method: str) -> None:
    """It is named, and those that are known are not."""
    known = {
        LIST_PROTOCOLS: {},
        GET_INFO: {"token": "token"},
        BUY: buy_params(offer, 100_000_000),
    }[method]
    answer = await client.ask(method, {**known, "future_feature1_param": "value1"})
    assert answer.code == INVALID_PARAMS
    assert answer.data["unrecognized"] == ["future_feature1_param"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({"a", "b", "Token", "token "}, id="several"),
        pytest.param({""}, id="empty"),
        pytest.param({"é語😀"}, id="not ASCII"),
        pytest.param({"<b>"}, id="markup"),
        pytest.param({f"future_feature{n}_param" for n in range(20)}, id="twenty"),
        pytest.param({"x" * 300}, id="long"),
    ],
)
async def test_T_08_every_unknown_parameter_is_named(client: Client, names: set[str]) -> None:
    answer = await client.ask(GET_INFO, dict.fromkeys(names, 1))
    assert answer.code == INVALID_PARAMS
    assert set(answer.data["unrecognized"]) == names
    assert len(answer.data["unrecognized"]) == len(names)


async def test_T_08_an_unknown_field_of_an_offer(client: Client, offer: Offer) -> None:
    """Such parameters were never offered, so 201 would be right too."""
    answer = await client.buy({**offer, "future_field": "1"})
    if answer.code == INVALID_PARAMS:
        (named,) = answer.data["unrecognized"]
        assert named.endswith("future_field")
    else:
        assert answer.code == OFFER_INVALID


async def test_T_15_T_16_the_owner_of_a_code(client: Client, offer: Offer) -> None:
    """JSON-RPC has its codes, LSPS2 has 200 to 299."""
    of_json_rpc = [
        (await client.say(b"{")).code,
        (await client.ask("lsps2.no_such_method", {})).code,
        (await client.ask(LIST_PROTOCOLS, {"unknown": 1})).code,
    ]
    assert of_json_rpc == [PARSE_ERROR, METHOD_NOT_FOUND, INVALID_PARAMS]
    of_lsps2 = [
        (await client.ask(GET_INFO, {"token": new_id()})).code,
        (await client.buy({**offer, "promise": "0"})).code,
    ]
    assert of_lsps2 == [TOKEN_UNKNOWN, OFFER_INVALID]


async def test_T_13_S_05_list_protocols(client: Client) -> None:
    answer = await client.ask(LIST_PROTOCOLS, {})
    assert answer.result is not None
    protocols = answer.result["protocols"]
    assert all(type(number) is int and 0 < number < 328 for number in protocols)
    assert len(set(protocols)) == len(protocols)
    assert 2 in protocols


async def test_S_05_protocols_are_ascending(our_client: Client) -> None:
    answer = await our_client.ask(LIST_PROTOCOLS, {})
    assert answer.result is not None
    assert answer.result["protocols"] == sorted(answer.result["protocols"]) != []


async def test_T_13_list_protocols_without_params(client: Client) -> None:
    assert await _without_id(client, None) == await _without_id(client, {})


async def _without_id(client: Client, params: Any) -> Any:
    answer = await client.ask(LIST_PROTOCOLS, params)
    assert answer.code is None
    return answer.result
