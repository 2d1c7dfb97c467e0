"""A sale: what the buyer is told, and which parameters make none."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .offers import sellable
from .peer import Target
from .rpc import (
    BUY,
    INVALID_PARAMS,
    PAYMENT_TOO_LARGE,
    Client,
    Offer,
    buy_params,
    request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


async def bought(client: Client, offer: Offer, size: int | None = None) -> dict[str, Any]:
    answer = await client.buy(offer, size)
    assert answer.result is not None, answer
    return answer.result


async def test_J_35_T_14_what_a_buyer_is_told(client: Client, offer: Offer) -> None:
    for size in (sellable(offer), None):
        sold = await bought(client, offer, size)
        scid = re.fullmatch(r"(\d+)x(\d+)x(\d+)", sold["jit_channel_scid"], re.ASCII)
        assert scid, sold
        block, transaction, output = map(int, scid.groups())
        assert block < 2**24
        assert transaction < 2**24
        assert output < 2**16
        assert f"{block}x{transaction}x{output}" == sold["jit_channel_scid"]
        assert type(sold["lsp_cltv_expiry_delta"]) is int
        assert 0 < sold["lsp_cltv_expiry_delta"] < 2**16


async def test_J_35_J_85_who_trusts_is_told_by_a_boolean(client: Client, offer: Offer) -> None:
    sold = await bought(client, offer)
    assert type(sold.get("client_trusts_lsp", False)) is bool


async def test_J_01_the_lsp_trusts_the_client_by_default(client: Client, offer: Offer) -> None:
    assert (await bought(client, offer)).get("client_trusts_lsp", False) is False


async def test_J_35_J_85_an_lsp_that_must_be_trusted_says_so(strict_lsp: Target) -> None:
    async with await Client.connect(strict_lsp) as client:
        offer, *_ = await client.get_info()
        assert (await bought(client, offer))["client_trusts_lsp"] is True


async def test_J_35_S_14_every_sale_has_its_own_scid(
    client: Client, lsp: Target, offer: Offer, token: str | None
) -> None:
    """Of one client and of two, with a size and without."""
    sold = [await bought(client, offer, size) for size in (sellable(offer), None, None)]
    async with await Client.connect(lsp) as other:
        menu = await other.get_info(token)
        sold += [await bought(other, menu[0], size) for size in (sellable(menu[0]), None)]
    assert len({each["jit_channel_scid"] for each in sold}) == len(sold)


async def test_S_14_sales_at_the_same_time_have_their_own_scids(
    client: Client, offer: Offer
) -> None:
    for _ in range(5):
        await client.peer.send(request(BUY, buy_params(offer)))
    answers = [await client.receive() for _ in range(5)]
    assert await client.others() == []
    scids = [each.result["jit_channel_scid"] for each in answers if each.result]
    assert len(set(scids)) == len(scids) == 5


@pytest.mark.parametrize(
    "size",
    [
        100_000_000,
        100_000_000.0,
        True,
        ["100000000"],
        {"msat": "100000000"},
        "",
        " ",
        "-1",
        "+100000000",
        " 100000000",
        "100000000 ",
        "100000000.0",
        "1e8",
        "100_000_000",
        "100,000,000",
        "0x5f5e100",
        "NaN",
        "\N{FULLWIDTH DIGIT ONE}00000000",
    ],
)
async def test_J_29_T_14_B_12_a_size_that_is_no_amount(
    client: Client, offer: Offer, size: Any
) -> None:
    params = {"opening_fee_params": offer, "payment_size_msat": size}
    answer = await client.ask(BUY, params)
    assert answer.code == INVALID_PARAMS
    assert answer.data["unrecognized"] == []


@pytest.mark.parametrize("size", [2**64, 2**64 + 100_000_000, 10**60])
async def test_J_29_T_14_a_size_above_64_bits(client: Client, offer: Offer, size: int) -> None:
    """No amount, or one that is too large."""
    assert (await client.buy(offer, size)).code in {INVALID_PARAMS, PAYMENT_TOO_LARGE}


@pytest.mark.parametrize("params", [..., None, "offer", 1, [], ["2000000", 4000], {}])
async def test_T_08_B_12_a_sale_needs_an_offer(client: Client, params: Any) -> None:
    given = {"payment_size_msat": "100000000"}
    if params is not ...:
        given["opening_fee_params"] = params
    answer = await client.ask(BUY, given)
    assert answer.code == INVALID_PARAMS
    assert answer.data["unrecognized"] == []


async def test_T_08_the_fields_of_an_offer_are_no_parameters(client: Client, offer: Offer) -> None:
    answer = await client.ask(BUY, {"opening_fee_params": offer, **offer})
    assert answer.code == INVALID_PARAMS
    assert set(answer.data["unrecognized"]) == offer.keys()
