"""What a client makes of a sale: the invoice, or nothing where the answer cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .fake_lsp import FakeLsp
from .offers import instant
from .rpc import BUY, GET_INFO
from .shop import DELTA, SIZE, Shop, an_offer, in_
from .wallet import RefusedError, Seller, Wallet, invoice, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

# BOLT 9, each in its compulsory bit; the optional one is the next.
VAR_ONION, PAYMENT_SECRET, BASIC_MPP = 8, 14, 16
BLOCKS_FOR_HOLDING = 2

NewWallet = Callable[..., Awaitable[Wallet]]


async def sold_in_vain(shop: Shop, wallet: Wallet, size: int | None = SIZE) -> None:
    """A channel is bought, but no invoice made for it, and the user is told."""
    shop.requests.clear()
    assert (await refusal(wallet, size)).shown
    assert shop.methods == [GET_INFO, BUY]


# The invoice


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_39_the_only_way_is_by_the_lsp(
    shop: Shop, fake: FakeLsp, wallet: Wallet, size: int | None
) -> None:
    shop.sold |= {"jit_channel_scid": "29451x4815x1", "lsp_cltv_expiry_delta": 137}
    made = await invoice(wallet, size)
    assert made.routes == [[(fake.node_id, "29451x4815x1", 0, 0, 137)]]


@pytest.mark.parametrize("scid", ["1x0x0", "1x2x3", "16777215x16777215x65535"])
async def test_J_39_any_scid(shop: Shop, wallet: Wallet, scid: str) -> None:
    shop.sold["jit_channel_scid"] = scid
    assert (await invoice(wallet)).routes[0][0].scid == scid


@pytest.mark.parametrize("delta", [1, 18, 34, 40, 144, 432])
async def test_J_39_any_delta(shop: Shop, wallet: Wallet, delta: int) -> None:
    shop.sold["lsp_cltv_expiry_delta"] = delta
    assert (await invoice(wallet)).routes[0][0].delta == delta


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_38_the_payee_is_the_client(
    fake: FakeLsp, wallet: Wallet, size: int | None
) -> None:
    """Another key of the client would do as well, but could not be known for its own."""
    lsp = await fake.arrival()
    assert (await invoice(wallet, size)).payee == lsp.other


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_40_the_payer_leaves_blocks_for_holding(wallet: Wallet, size: int | None) -> None:
    made = await invoice(wallet, size)
    assert made.final_delta >= wallet.normal_final_delta + BLOCKS_FOR_HOLDING


@pytest.mark.parametrize("confirmations", [1, 6])
async def test_J_42_the_payer_leaves_blocks_for_confirmations(
    fake: FakeLsp, new_wallet: NewWallet, confirmations: int
) -> None:
    wallet = await new_wallet(Seller(fake.address, confirmations=confirmations))
    made = await invoice(wallet)
    least = wallet.normal_final_delta + BLOCKS_FOR_HOLDING + confirmations
    assert made.final_delta >= least


async def test_J_43_a_fixed_amount_may_come_in_parts(shop: Shop, wallet: Wallet) -> None:
    made = await invoice(wallet, SIZE)
    assert str(made.amount_msat) == shop.bought[0].params["payment_size_msat"]
    assert not made.features.isdisjoint({BASIC_MPP, BASIC_MPP + 1})


async def test_J_26_J_44_any_amount_may_not_come_in_parts(shop: Shop, wallet: Wallet) -> None:
    made = await invoice(wallet, None)
    assert "payment_size_msat" not in shop.bought[0].params
    assert made.amount_msat is None
    assert made.features.isdisjoint({BASIC_MPP, BASIC_MPP + 1})


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_43_J_44_an_invoice_as_every_payer_needs_it(
    wallet: Wallet, size: int | None
) -> None:
    made = await invoice(wallet, size)
    assert not made.features.isdisjoint({VAR_ONION, VAR_ONION + 1})
    assert not made.features.isdisjoint({PAYMENT_SECRET, PAYMENT_SECRET + 1})
    assert made.secret
    assert made.network == "bcrt"
    assert abs(made.timestamp - time.time()) < 60


# Its expiry


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("seconds", [60, 600, 86_400])
async def test_J_37_an_invoice_ends_before_its_offer(
    shop: Shop, wallet: Wallet, seconds: int, size: int | None
) -> None:
    shop.menu = [an_offer(valid_until=in_(seconds))]
    made = await invoice(wallet, size)
    assert made.timestamp < made.expires
    assert made.expires <= instant(shop.menu[0]["valid_until"]).timestamp()


async def test_J_37_an_offer_that_ends_while_it_is_bought(shop: Shop, wallet: Wallet) -> None:
    """Its invoice would have to end before it begins."""
    shop.menu = [an_offer(valid_until=in_(1))]
    until = instant(shop.menu[0]["valid_until"]).timestamp()
    held = shop.hold(BUY)
    receiving = asyncio.create_task(invoice(wallet))
    # The clock is what is waited for.
    await asyncio.sleep(until - time.time() + 0.01)
    held.set()
    with contextlib.suppress(RefusedError):
        assert (await receiving).expires <= until


# Trust


async def test_J_03_J_85_who_trusts_whom(shop: Shop, wallet: Wallet) -> None:
    """Three cases: told nothing or ``false`` the client goes on, told ``true`` it does not."""
    for told in (..., False):
        shop.sold["client_trusts_lsp"] = told
        assert (await invoice(wallet)).amount_msat == SIZE
    shop.sold["client_trusts_lsp"] = True
    for size in (SIZE, None):
        await sold_in_vain(shop, wallet, size)


async def test_J_03_an_lsp_that_is_trusted_may_say_so(
    shop: Shop, fake: FakeLsp, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(Seller(fake.address, trusted=True))
    for told in (..., False, True):
        shop.sold["client_trusts_lsp"] = told
        assert (await invoice(wallet)).amount_msat == SIZE


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("told", [None, 0, 1, "", "true", "false", [], {}, [False], 0.0])
async def test_J_85_trust_that_is_no_boolean(
    shop: Shop, fake: FakeLsp, new_wallet: NewWallet, told: Any, trusted: bool
) -> None:
    wallet = await new_wallet(Seller(fake.address, trusted=trusted))
    shop.sold["client_trusts_lsp"] = told
    await sold_in_vain(shop, wallet)


# Sales that are none


@pytest.mark.parametrize(
    "scid",
    [
        ...,
        None,
        1,
        "",
        "1",
        "1x2",
        "1x2x",
        "x2x3",
        "1x2x3x4",
        "1:2:3",
        "1x2x65536",
        "1x16777216x1",
        "16777216x1x1",
        "-1x2x3",
        "+1x2x3",
        " 1x2x3",
        "1x2x3 ",
        "1x2x3\n",
        "0x1x2x3",
        "1x2x0x3",
        "axbxc",
        "\N{FULLWIDTH DIGIT ONE}x2x3",
        ["1x2x3"],
    ],
)
async def test_J_35_T_14_a_malformed_scid(shop: Shop, wallet: Wallet, scid: Any) -> None:
    shop.sold["jit_channel_scid"] = scid
    await sold_in_vain(shop, wallet)


@pytest.mark.parametrize("delta", [..., None, -1, 1.5, "144", True, 2**16, 2**32, 2**64, [144]])
async def test_J_35_a_malformed_delta(shop: Shop, wallet: Wallet, delta: Any) -> None:
    shop.sold["lsp_cltv_expiry_delta"] = delta
    await sold_in_vain(shop, wallet)


@pytest.mark.parametrize("delta", [2_017, 2**16 - 1])
async def test_J_35_a_delta_that_no_payer_would_accept(
    shop: Shop, wallet: Wallet, delta: int
) -> None:
    """Payers lock coins for two weeks at most."""
    shop.sold["lsp_cltv_expiry_delta"] = delta
    await sold_in_vain(shop, wallet)


async def test_J_35_after_a_sale_that_was_none_others_are_bought(
    shop: Shop, wallet: Wallet
) -> None:
    shop.sold["lsp_cltv_expiry_delta"] = None
    await sold_in_vain(shop, wallet)
    shop.sold["lsp_cltv_expiry_delta"] = DELTA
    assert (await invoice(wallet)).routes[0][0].delta == DELTA
