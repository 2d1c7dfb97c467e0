"""What a client makes of answers that are oddly written, stray, late or missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from .fake_lsp import HANG_UP, FakeLsp
from .peer import MAX_PAYLOAD
from .rpc import BUY, CLIENT_REJECTED, GET_INFO, PARSE_ERROR, new_id
from .shop import METHODS, SIZE, Answer, Shop, an_offer, dump, failure, poisoned
from .wallet import QUICK_S, Wallet, buys, invoice, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

# Strange, and to be taken


def escaped(text: str) -> bytes:
    """The inside of a JSON string, each character by its number."""
    return "".join(f"\\u{ord(each):04x}" for each in text).encode()


WRITTEN: dict[str, Callable[[Answer], bytes]] = {
    "blanks around it": lambda a: b" \t\r\n" + dump(a) + b"\n\r\t ",
    "blanks within it": lambda a: json.dumps(a, indent=4).encode(),
    "another order": lambda a: dump(dict(reversed(a.items()))),
    "an escape": lambda a: dump(a).replace(b'"result"', b'"\\u0072esult"'),
    "an id of escapes": lambda a: dump({**a, "id": "ID"}).replace(b"ID", escaped(a["id"])),
    "as long as a message can be": lambda a: dump(a).ljust(MAX_PAYLOAD),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.parametrize("method", METHODS)
async def test_T_01_T_02_ways_to_write_the_same_answer(
    shop: Shop, wallet: Wallet, method: str, written: Callable[[Answer], bytes]
) -> None:
    shop.change(method, lambda answer: [written(answer)])
    await buys(shop, wallet)


async def test_T_01_a_menu_that_fills_a_message(shop: Shop, wallet: Wallet) -> None:
    """The cheapest is the last."""
    dear = [an_offer(min_fee_msat="3000000", promise="a" * 512) for _ in range(80)]
    shop.change(
        GET_INFO,
        lambda answer: [{**answer, "result": {"opening_fee_params_menu": [*dear, shop.menu[0]]}}],
    )
    await buys(shop, wallet)
    assert len(dump({"": dear})) > MAX_PAYLOAD * 0.9


@pytest.mark.parametrize("method", METHODS)
async def test_T_09_unknown_keys_of_a_result_mean_nothing(
    shop: Shop, wallet: Wallet, method: str
) -> None:
    more: dict[str, Any] = {
        "error": "none",
        "fee": None,
        "id": 7,
        "number": 1.5e300,
        "opening_fee_params": {"a": [{"b": {}}]},
        "": [[[[]]]],
        "é\0<": True,
    }
    shop.change(method, lambda answer: [{**answer, "result": {**more, **answer["result"]}}])
    await buys(shop, wallet)


@pytest.mark.parametrize("method", METHODS)
async def test_T_09_unknown_keys_beside_a_result_mean_nothing(
    shop: Shop, wallet: Wallet, method: str
) -> None:
    shop.change(method, lambda answer: [{"version": 1, **answer, "extra": {}}])
    await buys(shop, wallet)


# Not for this request, and to be ignored

STRAYS: dict[str, Callable[[Answer], Answer]] = {
    "to nobody": lambda a: {**poisoned(a), "id": new_id()},
    "to an empty id": lambda a: {**poisoned(a), "id": ""},
    "to an id in another case": lambda a: {**poisoned(a), "id": a["id"].swapcase() + "A"},
    "to an id with a blank": lambda a: {**poisoned(a), "id": a["id"] + " "},
    "to a part of the id": lambda a: {**poisoned(a), "id": a["id"][:-1]},
    "to a number": lambda a: {**poisoned(a), "id": 1},
    "to null": lambda a: {**poisoned(a), "id": None},
    "an error to nobody": lambda a: {**failure(a, CLIENT_REJECTED), "id": new_id()},
    "an error to null": lambda a: {**failure(a, PARSE_ERROR), "id": None},
    "a notification": lambda _: {"jsonrpc": "2.0", "method": "lsps2.news", "params": {"a": 1}},
    "a notification without params": lambda _: {"jsonrpc": "2.0", "method": "lsps9.news"},
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS.keys())
@pytest.mark.parametrize("method", METHODS)
async def test_T_09_what_answers_another_request_is_ignored(
    shop: Shop, wallet: Wallet, method: str, stray: Callable[[Answer], Answer]
) -> None:
    shop.change(method, lambda answer: [stray(answer), answer, stray(answer)])
    await buys(shop, wallet)
    await buys(shop, wallet)


@pytest.mark.parametrize("method", METHODS)
async def test_T_09_only_the_first_answer_counts(shop: Shop, wallet: Wallet, method: str) -> None:
    shop.change(method, lambda answer: [answer, poisoned(answer), failure(answer, CLIENT_REJECTED)])
    await buys(shop, wallet)
    await buys(shop, wallet)


async def test_T_06_T_09_answers_may_come_in_another_order(shop: Shop, wallet: Wallet) -> None:
    """Of two payments at once each gets what was sold for it."""
    waiting: list[Answer] = []

    def second_first(answer: Answer) -> list[Answer]:
        waiting.insert(0, answer)
        return waiting if len(waiting) == 2 else []

    shop.change(BUY, second_first)
    sizes = [SIZE, SIZE + 1]
    both = await asyncio.gather(*(invoice(wallet, size) for size in sizes))
    assert [each.amount_msat for each in both] == sizes
    for each in both:
        assert shop.sales[each.routes[0][0].scid] == str(each.amount_msat)


# Late, or never


@pytest.mark.parametrize("method", METHODS)
async def test_T_10_S_12_what_is_not_answered_may_be_tried_again(
    shop: Shop, wallet: Wallet, method: str
) -> None:
    shop.change(method, lambda _: [])
    refused = await refusal(wallet, timeout=QUICK_S)
    assert (refused.temporary, refused.code) == (True, None)
    shop.behave()
    await buys(shop, wallet)


@pytest.mark.parametrize("method", METHODS)
async def test_T_10_S_12_an_answer_that_is_late_is_ignored(
    shop: Shop, fake: FakeLsp, wallet: Wallet, method: str
) -> None:
    shop.change(method, lambda answer: [poisoned(answer)])
    held = shop.hold(method)
    assert (await refusal(wallet, timeout=QUICK_S)).temporary
    shop.behave()
    held.set()
    await buys(shop, wallet)
    assert len(fake.peers) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_T_10_S_12_an_lsp_that_hangs_up_may_be_tried_again(
    shop: Shop, fake: FakeLsp, wallet: Wallet, method: str
) -> None:
    """An answer to what was asked on another connection comes too late."""
    unanswered: list[Answer] = []

    def hang_up(answer: Answer) -> list[None]:
        unanswered.append(answer)
        return [HANG_UP]

    shop.change(method, hang_up)
    await fake.arrival()
    assert (await refusal(wallet)).temporary
    shop.behave()
    again = await fake.arrival()
    await again.send(dump(poisoned(unanswered[0])))
    await buys(shop, wallet)
