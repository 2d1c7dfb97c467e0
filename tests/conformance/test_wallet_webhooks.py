"""What a client asks an LSP about webhooks, and what it makes of the answers."""

from __future__ import annotations

import pytest

from .rpc import LIST_WEBHOOKS, NO_SUCH_WEBHOOK, REMOVE_WEBHOOK, SET_WEBHOOK, TOO_MANY_WEBHOOKS
from .shop import Shop, failure
from .wallet import RefusedError, Wallet

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

URL = "https://push.example.org/wake?lsp=02ab&device=7&auth=%7Bx%7D"


async def test_W_01_W_02_W_26_a_webhook_is_sent_as_it_is(shop: Shop, wallet: Wallet) -> None:
    """With all that its owner has put into it."""
    name = 'Zoë\'s "phone" 😀'
    assert await wallet.set_webhook(name, URL) == (1, 4, False)
    assert await wallet.set_webhook("a" * 64, "https://a.b/" + "c" * 1_012) == (2, 4, False)
    (request, _) = shop.requests
    assert (request.method, request.params) == (SET_WEBHOOK, {"app_name": name, "webhook": URL})


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("a", "http://example.org/"),
        ("a", "ftp://example.org/"),
        ("a", "example.org"),
        ("a", ""),
        ("a", "https://bücher.example/"),
        ("a", "https://example.org/a b"),
        ("a", "https://example.org/" + "a" * 1_005),
        ("a" * 65, URL),
        ("é" * 33, URL),
    ],
)
async def test_W_01_W_02_what_no_lsp_could_take_is_not_sent(
    shop: Shop, wallet: Wallet, name: str, url: str
) -> None:
    with pytest.raises(RefusedError):
        await wallet.set_webhook(name, url)
    assert shop.requests == []


async def test_W_12_W_13_list_and_remove(shop: Shop, wallet: Wallet) -> None:
    await wallet.set_webhook("a", URL)
    await wallet.set_webhook("b", URL)
    assert await wallet.webhooks() == ["a", "b"]
    await wallet.remove_webhook("a")
    assert await wallet.webhooks() == ["b"]
    asked = [(each.method, each.params) for each in shop.requests[2:4]]
    assert asked == [(LIST_WEBHOOKS, {}), (REMOVE_WEBHOOK, {"app_name": "a"})]


async def test_W_06_W_13_B_14_refusals(shop: Shop, wallet: Wallet) -> None:
    """Their code is told, whatever comes with it."""
    for data in (None, {"max_webhooks": 0}, "text"):
        more = {} if data is None else {"data": data}
        shop.change(
            SET_WEBHOOK, lambda answer, more=more: [failure(answer, TOO_MANY_WEBHOOKS, **more)]
        )
        with pytest.raises(RefusedError) as caught:
            await wallet.set_webhook("a", URL)
        assert caught.value.code == TOO_MANY_WEBHOOKS
    shop.change(REMOVE_WEBHOOK, lambda answer: [failure(answer, NO_SUCH_WEBHOOK)])
    with pytest.raises(RefusedError) as caught:
        await wallet.remove_webhook("a")
    assert caught.value.code == NO_SUCH_WEBHOOK


@pytest.mark.parametrize("result", [{}, {"new": 1}, {"removed": ["a", None]}])
async def test_B_14_whatever_remove_gives_is_success(
    shop: Shop, wallet: Wallet, result: dict[str, object]
) -> None:
    shop.change(REMOVE_WEBHOOK, lambda answer: [{**answer, "result": result}])
    await wallet.remove_webhook("a")


@pytest.mark.parametrize(
    "result",
    [
        {"num_webhooks": 1, "max_webhooks": 4},
        {"num_webhooks": "1", "max_webhooks": 4, "no_change": False},
        {"num_webhooks": -1, "max_webhooks": 4, "no_change": False},
        {"num_webhooks": 1, "max_webhooks": 4, "no_change": "false"},
        {},
    ],
)
async def test_W_08_an_answer_that_is_none(
    shop: Shop, wallet: Wallet, result: dict[str, object]
) -> None:
    shop.change(SET_WEBHOOK, lambda answer: [{**answer, "result": result}])
    with pytest.raises(RefusedError):
        await wallet.set_webhook("a", URL)


async def test_T_09_W_08_what_is_new_in_an_answer_is_ignored(shop: Shop, wallet: Wallet) -> None:
    told = {"num_webhooks": 1, "max_webhooks": 2, "no_change": True, "future": {"a": [1]}}
    shop.change(SET_WEBHOOK, lambda answer: [{**answer, "result": told}])
    assert await wallet.set_webhook("a", URL) == (1, 2, True)
