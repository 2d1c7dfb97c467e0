"""What a client does with several LSPs: the cheapest sells, and one that cannot does not matter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from .bolt8 import new_key
from .curve import public_key
from .fake_lsp import HANG_UP, FakeLsp
from .rpc import BUY, CLIENT_REJECTED, GET_INFO, OFFER_INVALID
from .shop import SIZE, Shop, an_offer, failure, in_
from .wallet import RefusedError, Seller, Wallet, invoice, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

NewWallet = Callable[..., Awaitable[Wallet]]
CHEAP, DEAR = "1000000", "3000000"
# So that one that does not answer is not waited for long, and one that does has the time.
TIMEOUT_S = 1.0


class Market(NamedTuple):
    """Two LSPs: one sells cheaply or should, the other dearly."""

    cheap: Shop
    dear: Shop
    cheap_lsp: FakeLsp
    dear_lsp: FakeLsp

    def sellers(self, first: str) -> list[Seller]:
        """Both, in the order in which a wallet is told of them."""
        both = [Seller(self.cheap_lsp.address), Seller(self.dear_lsp.address)]
        return both if first == "cheap" else both[::-1]


@pytest_asyncio.fixture(loop_scope="package")
async def market() -> AsyncGenerator[Market, None]:
    cheap, dear = Shop(an_offer(min_fee_msat=CHEAP)), Shop(an_offer(min_fee_msat=DEAR))
    async with FakeLsp(cheap) as cheap_lsp, FakeLsp(dear) as dear_lsp:
        yield Market(cheap, dear, cheap_lsp, dear_lsp)


order = pytest.mark.parametrize("first", ["cheap", "dear"])


@order
@pytest.mark.parametrize("size", [SIZE, None])
async def test_S_76_the_cheapest_lsp_sells(
    market: Market, new_wallet: NewWallet, first: str, size: int | None
) -> None:
    """Whichever was named first; the other is asked for its menu and no more."""
    wallet = await new_wallet(*market.sellers(first))
    made = await invoice(wallet, size)
    assert made.routes[0][0].node_id == market.cheap_lsp.node_id
    assert (market.cheap.methods, market.dear.methods) == ([GET_INFO, BUY], [GET_INFO])


@order
async def test_S_76_the_cheapest_depends_on_the_size(
    market: Market, new_wallet: NewWallet, first: str
) -> None:
    market.cheap.menu = [an_offer(min_fee_msat=CHEAP, proportional=20_000)]
    market.dear.menu = [an_offer(min_fee_msat=DEAR, proportional=0)]
    wallet = await new_wallet(*market.sellers(first))
    small, large = await invoice(wallet, SIZE), await invoice(wallet, 10 * SIZE)
    assert small.routes[0][0].node_id == market.cheap_lsp.node_id
    assert large.routes[0][0].node_id == market.dear_lsp.node_id


@order
@pytest.mark.parametrize(
    "offer",
    [
        pytest.param({"max_payment_size_msat": str(SIZE - 1)}, id="too small"),
        pytest.param({"min_payment_size_msat": str(SIZE + 1)}, id="too large"),
        pytest.param({"valid_until": in_(-1)}, id="over"),
        pytest.param({"promise": "a" * 513}, id="too long a promise"),
        pytest.param({"extra": 1}, id="an unknown field"),
        pytest.param({"min_fee_msat": "1.5"}, id="malformed"),
    ],
)
async def test_S_76_J_16_J_18_J_28_an_lsp_whose_offer_is_none_is_skipped(
    market: Market, new_wallet: NewWallet, first: str, offer: dict[str, Any]
) -> None:
    market.cheap.menu = [an_offer(**{"min_fee_msat": CHEAP, **offer})]
    wallet = await new_wallet(*market.sellers(first))
    assert (await invoice(wallet)).routes[0][0].node_id == market.dear_lsp.node_id
    assert market.cheap.methods == [GET_INFO]


@order
@pytest.mark.parametrize("code", [CLIENT_REJECTED, OFFER_INVALID])
@pytest.mark.parametrize("method", [GET_INFO, BUY])
async def test_S_76_an_lsp_that_refuses_is_skipped(
    market: Market, new_wallet: NewWallet, first: str, method: str, code: int
) -> None:
    market.cheap.change(method, lambda answer: [failure(answer, code)])
    wallet = await new_wallet(*market.sellers(first))
    assert (await invoice(wallet)).routes[0][0].node_id == market.dear_lsp.node_id


@order
async def test_S_76_J_03_an_lsp_that_must_be_trusted_is_skipped(
    market: Market, new_wallet: NewWallet, first: str
) -> None:
    market.cheap.sold["client_trusts_lsp"] = True
    wallet = await new_wallet(*market.sellers(first))
    assert (await invoice(wallet)).routes[0][0].node_id == market.dear_lsp.node_id


@pytest.mark.parametrize("method", [GET_INFO, BUY])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param([], id="nothing"),
        pytest.param([HANG_UP], id="hangs up"),
        pytest.param([b"[]"], id="no answer"),
    ],
)
async def test_S_76_an_lsp_that_does_not_answer_is_skipped(
    market: Market, new_wallet: NewWallet, method: str, said: list[bytes | None]
) -> None:
    market.cheap.change(method, lambda _: said)
    wallet = await new_wallet(*market.sellers("cheap"))
    assert await wallet.receive(SIZE, TIMEOUT_S)
    assert market.dear.methods == [GET_INFO, BUY]


@contextlib.asynccontextmanager
async def _nobody() -> AsyncGenerator[str, None]:
    """Where somebody listened once."""
    async with FakeLsp(Shop()) as lsp:
        address = lsp.address
    yield address


@contextlib.asynccontextmanager
async def _mute() -> AsyncGenerator[str, None]:
    """Where somebody listens and says nothing."""

    def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{public_key(new_key()).hex()}@127.0.0.1:{port}"
        finally:
            for each in writers:
                each.close()


@pytest.mark.parametrize("dead", [_nobody, _mute], ids=["nobody", "mute"])
@pytest.mark.parametrize("first", ["dead", "alive"])
async def test_S_76_a_dead_lsp_is_skipped(
    shop: Shop,
    fake: FakeLsp,
    new_wallet: NewWallet,
    dead: Callable[[], contextlib.AbstractAsyncContextManager[str]],
    first: str,
) -> None:
    async with dead() as address:
        sellers = [Seller(address), Seller(fake.address)]
        wallet = await new_wallet(*(sellers if first == "dead" else sellers[::-1]))
        assert await wallet.receive(SIZE, TIMEOUT_S)
        assert shop.methods == [GET_INFO, BUY]


async def test_S_76_where_nobody_sells_the_user_is_told(
    market: Market, new_wallet: NewWallet
) -> None:
    market.cheap.menu = []
    market.dear.change(BUY, lambda answer: [failure(answer, CLIENT_REJECTED)])
    wallet = await new_wallet(*market.sellers("cheap"))
    assert (await refusal(wallet)).shown


@pytest.mark.parametrize("written", ["[::1]", "::1"])
async def test_T_22_an_address_of_ip_version_6(new_wallet: NewWallet, written: str) -> None:
    """The last colon is the port's."""
    shop = Shop()
    try:
        async with FakeLsp(shop, host="::1") as lsp:
            wallet = await new_wallet(Seller(lsp.address.replace("::1", written)))
            assert (await invoice(wallet)).routes[0][0].node_id == lsp.node_id
    except OSError as error:
        pytest.skip(f"no address of IP version 6: {error}")
    assert shop.methods == [GET_INFO, BUY]


async def test_T_20_a_node_id_in_capitals(fake: FakeLsp, new_wallet: NewWallet) -> None:
    node_id, _, address = fake.address.partition("@")
    wallet = await new_wallet(Seller(f"{node_id.upper()}@{address}"))
    assert (await invoice(wallet)).routes[0][0].node_id == fake.node_id


@pytest.mark.parametrize(
    "node_id",
    [
        pytest.param("02" + "00" * 31 + "05", id="no point"),
        pytest.param("04" + "11" * 32, id="no compressed point"),
        pytest.param("02" + "11" * 31, id="too short"),
    ],
)
async def test_T_20_a_node_id_that_is_no_point(
    fake: FakeLsp, new_wallet: NewWallet, node_id: str
) -> None:
    """Refused when it is told, or when it is needed."""
    _, _, address = fake.address.partition("@")
    with pytest.raises(RefusedError):  # noqa: PT012
        wallet = await new_wallet(Seller(f"{node_id}@{address}"))
        await wallet.receive(SIZE, TIMEOUT_S)
    assert fake.peers == []
