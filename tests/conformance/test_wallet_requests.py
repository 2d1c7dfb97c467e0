"""What a client sends: nothing unasked, requests of the one form, and offers as they came."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from math import log2
from typing import Any, NamedTuple

import pytest

from .fake_lsp import FakeLsp
from .peer import MAX_PAYLOAD
from .rpc import BUY, GET_INFO, new_id, read_request
from .shop import METHODS, SIZE, Answer, Shop, an_offer, dump, failure
from .wallet import QUICK_S, RefusedError, Seller, Wallet, invoice

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

SUPPORTS_LSPS = 729


class Number(NamedTuple):
    """A number of JSON as it is written, unlike a string of the same digits."""

    text: str


def literally(payload: bytes) -> Any:
    return json.loads(payload, parse_int=Number, parse_float=Number, parse_constant=Number)


async def test_J_06_the_menu_is_asked_for_first(shop: Shop, wallet: Wallet) -> None:
    for size in (SIZE, None):
        await wallet.receive(size)
    assert shop.methods == [GET_INFO, BUY] * 2
    assert shop.requests[0].params == shop.requests[2].params == {}


async def test_J_06_T_14_a_token_is_sent_as_it_is(
    shop: Shop, fake: FakeLsp, new_wallet: Callable[..., Awaitable[Wallet]]
) -> None:
    """As UTF-8, without needless escapes."""
    token = 'Zoë "語" 😀 / \\'
    wallet = await new_wallet(Seller(fake.address, token=token))
    await wallet.receive(SIZE)
    assert shop.requests[0].params == {"token": token}
    assert b"\\u" not in fake.heard[0].payload
    # There is none where the offer already says what it is for.
    assert shop.requests[1].params.keys() == {"opening_fee_params", "payment_size_msat"}


async def test_T_03_nothing_is_sent_before_a_channel_is_needed(
    shop: Shop, fake: FakeLsp, wallet: Wallet
) -> None:
    lsp = await fake.arrival()
    await lsp.ping()
    assert fake.heard == []
    await wallet.receive(SIZE)
    await lsp.ping()
    assert shop.methods == [GET_INFO, BUY]


async def test_T_03_T_09_what_an_lsp_says_unasked_is_not_answered(
    shop: Shop, fake: FakeLsp, wallet: Wallet
) -> None:
    lsp = await fake.arrival()
    said: list[dict[str, Any]] = [
        {"method": "lsps2.something_new", "params": {"a": 1}},
        {"method": "lsps0.hello", "params": {}},
        {"id": "0123456789abcdef0123", "result": {"protocols": [2]}},
        {"id": None, "error": {"code": -32_700, "message": "parse error"}},
    ]
    for each in said:
        await lsp.send(dump({"jsonrpc": "2.0", **each}))
    await lsp.ping()
    assert fake.heard == []
    await wallet.receive(SIZE)
    for each in said:
        await lsp.send(dump({"jsonrpc": "2.0", **each}))
    await wallet.receive(SIZE)
    await lsp.ping()
    assert shop.methods == [GET_INFO, BUY] * 2


async def test_T_01_T_02_T_03_each_request_has_the_one_form(
    shop: Shop, fake: FakeLsp, wallet: Wallet
) -> None:
    """One object with an id and parameters by name: no batch, no notification."""
    shop.menu = [an_offer(), an_offer(min_fee_msat="3000000")]
    for size in (SIZE, None):
        await wallet.receive(size)
    requests = [read_request(each.payload) for each in fake.heard]
    assert requests == shop.requests
    assert [each.method for each in requests] == [GET_INFO, BUY] * 2
    assert all(len(each.payload) < MAX_PAYLOAD for each in fake.heard)


async def test_T_10_ids_are_random(shop: Shop, wallet: Wallet) -> None:
    """Judged by how the characters differ at each place: a counter differs at its end alone."""
    for _ in range(20):
        await wallet.receive(SIZE)
    ids = [each.id for each in shop.requests]
    assert len(set(ids)) == len(ids) == 40
    places = [{id_[at : at + 1] for id_ in ids} for at in range(max(map(len, ids)))]
    assert sum(log2(len(each)) for each in places) >= 80


async def test_T_10_ids_need_no_escapes(fake: FakeLsp, wallet: Wallet) -> None:
    """Some LSPs refuse numbers and escapes there."""
    for size in (SIZE, None):
        await wallet.receive(size)
    for each in fake.heard:
        assert re.search(rb'"id"\s*:\s*"[0-9A-Za-z_-]+"', each.payload), each.payload


class Touchy:
    """A script that is deaf once it has been sent what it does not know, as LDK 0.2.7 is."""

    def __init__(self, shop: Shop) -> None:
        self.deaf = False
        self._shop = shop

    async def __call__(self, payload: bytes) -> list[bytes | None]:
        """Answer a request."""
        try:
            self.deaf = self.deaf or read_request(payload).method not in METHODS
        except (AssertionError, ValueError, KeyError):
            self.deaf = True
        return [] if self.deaf else await self._shop(payload)


async def test_T_03_T_09_nothing_makes_an_lsp_deaf(
    new_wallet: Callable[..., Awaitable[Wallet]],
) -> None:
    """Neither a sale nor a refusal, nor what it says unasked, twice or never."""
    shop = Shop()
    touchy = Touchy(shop)
    changes: dict[str, Callable[[Answer], list[Answer]]] = {
        "refused": lambda answer: [failure(answer, 1, data={"message": "no"})],
        "unknown code": lambda answer: [failure(answer, 4_242)],
        "twice": lambda answer: [answer, answer],
        "to nobody": lambda answer: [{**answer, "id": new_id()}, answer],
        "to null": lambda answer: [failure({**answer, "id": None}, -32_700), answer],
        "news": lambda answer: [{"jsonrpc": "2.0", "method": "lsps2.news", "params": {}}, answer],
        "never": lambda _: [],
    }
    async with FakeLsp(touchy) as fake:
        wallet = await new_wallet(Seller(fake.address))
        for method in METHODS:
            for change in changes.values():
                shop.change(method, change)
                with contextlib.suppress(RefusedError):
                    await wallet.receive(SIZE, QUICK_S)
                shop.behave()
                await wallet.receive(None)
        assert not touchy.deaf
        assert len(fake.peers) == 1


@pytest.mark.parametrize("features", [set[int](), {SUPPORTS_LSPS}], ids=["without", "with"])
async def test_T_12_a_client_never_has_the_feature_bit(
    features: set[int], new_wallet: Callable[..., Awaitable[Wallet]]
) -> None:
    """Whether the LSP has it or not, which changes nothing."""
    async with FakeLsp(Shop(), features) as fake:
        wallet = await new_wallet(Seller(fake.address))
        lsp = await fake.arrival()
        await wallet.receive(SIZE)
        assert lsp.features
        assert {SUPPORTS_LSPS - 1, SUPPORTS_LSPS}.isdisjoint(lsp.features)


# The offer, as it came


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="as usual"),
        pytest.param({"min_fee_msat": "0", "proportional": 0}, id="zeros"),
        pytest.param(
            {
                "proportional": 999_999,
                "min_lifetime": 2**32 - 1,
                "max_client_to_self_delay": 2**32 - 1,
                "max_payment_size_msat": str(2**64 - 1),
            },
            id="large numbers",
        ),
        pytest.param({"valid_until": "2030-01-01T00:00:00Z"}, id="no fraction"),
        pytest.param({"valid_until": "2030-01-01T00:00:00.000Z"}, id="fraction of zeros"),
        pytest.param({"valid_until": "2030-01-01T00:00:00.123456789Z"}, id="nanoseconds"),
        pytest.param({"valid_until": "2030-01-01T00:00:00.100+00:00"}, id="offset"),
    ],
)
async def test_J_23_an_offer_is_bought_verbatim(
    shop: Shop, fake: FakeLsp, wallet: Wallet, fields: dict[str, Any], size: int | None
) -> None:
    """Each field as it is written, byte for byte; their order has no meaning."""
    shop.menu = [an_offer(**fields)]
    await wallet.receive(size)
    bought = literally(fake.heard[1].payload)["params"]["opening_fee_params"]
    assert bought == literally(dump(shop.menu[0]))


async def test_J_23_the_fields_of_an_offer_come_in_any_order(shop: Shop, wallet: Wallet) -> None:
    for names in (sorted(shop.menu[0]), sorted(shop.menu[0], reverse=True)):
        shop.menu = [{name: shop.menu[0][name] for name in names}]
        await wallet.receive(SIZE)
        assert shop.bought[-1].params["opening_fee_params"] == shop.menu[0]


@pytest.mark.parametrize(
    "promise",
    [
        pytest.param("", id="empty"),
        pytest.param("a" * 512, id="512 bytes"),
        pytest.param(" a  b ", id="blanks"),
        pytest.param('{"min_fee_msat":"1"}', id="like an offer"),
        pytest.param("[1, 2]", id="like an array"),
        pytest.param("00", id="like a number"),
        pytest.param("null", id="like null"),
        pytest.param("%00&lt;\\u0041\\n", id="like escapes"),
        pytest.param('\\"/\t\n\x7f', id="escapes"),
        pytest.param("é" * 256, id="512 bytes that are not ASCII"),
        pytest.param("e\u0301 é", id="not normalised"),
    ],
)
async def test_J_17_a_promise_is_not_interpreted(shop: Shop, wallet: Wallet, promise: str) -> None:
    shop.menu = [an_offer(promise=promise)]
    await wallet.receive(SIZE)
    assert [each.params["opening_fee_params"]["promise"] for each in shop.bought] == [promise]


# The size


async def test_J_26_for_any_amount_no_size_is_sent(shop: Shop, wallet: Wallet) -> None:
    await wallet.receive(None)
    assert [each.params for each in shop.bought] == [{"opening_fee_params": shop.menu[0]}]


async def test_J_27_T_14_an_amount_is_sent_as_a_decimal_string(shop: Shop, wallet: Wallet) -> None:
    await wallet.receive(SIZE)
    assert [each.params["payment_size_msat"] for each in shop.bought] == ["100000000"]


async def test_J_27_each_sale_has_its_own_amount(shop: Shop, wallet: Wallet) -> None:
    sizes = [SIZE, SIZE + 1, None, SIZE]
    invoices = [await invoice(wallet, size) for size in sizes]
    assert [each.amount_msat for each in invoices] == sizes
    assert [each.routes[0][0].scid for each in invoices] == list(shop.sales)
    assert list(shop.sales.values()) == [None if size is None else str(size) for size in sizes]
    assert len({each.payment_hash for each in invoices}) == len(sizes)
