"""What a client makes of the channel that it is offered: taken, or refused by an error."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from .fake_lsp import FakeLsp
from .opening import ANCHORS, JIT, SCID_ALIAS, STATIC_REMOTEKEY, answer, offer, refuse
from .shop import SIZE, Shop, an_offer
from .wallet import Wallet, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

# Enough for the payment.
CAPACITY_SAT = 2 * SIZE // 1_000


@pytest.mark.parametrize("size", [SIZE, None])
async def test_J_58_J_59_a_channel_that_was_bought_is_taken(
    shop: Shop, fake: FakeLsp, wallet: Wallet, size: int | None
) -> None:
    """Without waiting for a confirmation, and with no more delay than the offer allows."""
    lsp = await fake.arrival()
    await wallet.receive(size)
    opening = await offer(lsp, CAPACITY_SAT)
    taken = await answer(lsp, opening)
    assert taken
    assert (taken.kind, taken.minimum_depth) == (JIT, 0)
    assert taken.to_self_delay <= shop.menu[0]["max_client_to_self_delay"]


async def test_J_59_the_delay_of_the_client_is_the_most_that_is_allowed(
    shop: Shop, fake: FakeLsp, wallet: Wallet
) -> None:
    """With an offer that allows one block less nothing is bought."""
    lsp = await fake.arrival()
    await wallet.receive(SIZE)
    first = await answer(lsp, await offer(lsp, CAPACITY_SAT))
    assert first
    shop.menu = [an_offer(max_client_to_self_delay=first.to_self_delay)]
    await wallet.receive(SIZE)
    second = await answer(lsp, await offer(lsp, CAPACITY_SAT))
    assert second
    assert second.to_self_delay == first.to_self_delay
    shop.menu = [an_offer(max_client_to_self_delay=first.to_self_delay - 1)]
    assert (await refusal(wallet)).shown


@pytest.mark.parametrize(
    ("public", "kind", "capacity_sat"),
    [
        pytest.param(True, JIT - {SCID_ALIAS}, CAPACITY_SAT, id="public"),
        pytest.param(True, JIT, CAPACITY_SAT, id="public with an alias"),
        pytest.param(False, JIT, SIZE // 1_000 - 3_000, id="too small for the payment"),
    ],
)
async def test_J_58_J_60_a_channel_that_was_not_bought_is_refused(
    fake: FakeLsp, wallet: Wallet, public: bool, kind: Iterable[int], capacity_sat: int
) -> None:
    """By ``error``, on which the connection and the sale stay as they are."""
    lsp = await fake.arrival()
    await wallet.receive(SIZE)
    bad = await offer(lsp, capacity_sat, public=public, kind=kind)
    assert await answer(lsp, bad) is None
    assert await answer(lsp, await offer(lsp, CAPACITY_SAT))


async def test_J_58_a_channel_without_an_alias_is_taken(fake: FakeLsp, wallet: Wallet) -> None:
    """The LSP's fault: ldk-node's never asks for one, and whoever refuses it refuses them all."""
    lsp = await fake.arrival()
    await wallet.receive(SIZE)
    taken = await answer(lsp, await offer(lsp, CAPACITY_SAT, kind={STATIC_REMOTEKEY, ANCHORS}))
    assert taken
    assert (taken.kind, taken.minimum_depth) == ({STATIC_REMOTEKEY, ANCHORS}, 0)


async def test_J_60_S_43_without_a_sale_no_channel_is_taken(fake: FakeLsp, wallet: Wallet) -> None:
    """Not even of an LSP that the wallet knows: only what was bought needs no confirmation."""
    lsp = await fake.arrival()
    assert await answer(lsp, await offer(lsp, CAPACITY_SAT)) is None
    await wallet.receive(SIZE)
    assert await answer(lsp, await offer(lsp, CAPACITY_SAT))
    assert await answer(lsp, await offer(lsp, CAPACITY_SAT)) is None


@pytest.mark.parametrize("times", [1, 5])
async def test_J_65_an_lsp_that_gives_up_an_open_may_begin_another(
    fake: FakeLsp, wallet: Wallet, times: int
) -> None:
    lsp = await fake.arrival()
    await wallet.receive(SIZE)
    for _ in range(times):
        opening = await offer(lsp, CAPACITY_SAT)
        assert await answer(lsp, opening)
        await refuse(lsp, opening.id, "no coins after all")
    assert await answer(lsp, await offer(lsp, CAPACITY_SAT))
