"""What a client makes of messages that are no response: nothing, and it asks no more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from .fake_lsp import FakeLsp
from .rpc import BUY, GET_INFO
from .shop import METHODS, SIZE, Answer, Shop, dump, poisoned
from .wallet import QUICK_S, RefusedError, Wallet, buys, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]


def _with(**fields: Any) -> Callable[[Answer], bytes]:
    """The poisoned answer with other fields; those that are ``...`` are left out."""

    def change(answer: Answer) -> bytes:
        changed = {**poisoned(answer), **fields}
        return dump({name: each for name, each in changed.items() if each is not ...})

    return change


def _around(before: bytes, after: bytes) -> Callable[[Answer], bytes]:
    return lambda answer: before + dump(poisoned(answer)) + after


NO_OBJECT: dict[str, Callable[[Answer], bytes]] = {
    "nothing": lambda _: b"",
    "blanks": lambda _: b" \n",
    "half an object": lambda _: b"{",
    "half an answer": lambda a: dump(poisoned(a))[:-1],
    "an array": lambda _: b" [ ] ",
    "a batch": _around(b"[", b"]"),
    "a string": lambda a: json.dumps(dump(poisoned(a)).decode()).encode(),
    "a number": lambda _: b"37913",
    "null": lambda _: b"null",
    "two objects": lambda _: b"{}{}",
    "two answers": lambda a: dump(poisoned(a)) * 2,
    "text behind": _around(b"", b"x"),
    "a 0 byte": lambda _: b"\0",
    "a 0 byte in front": _around(b"\0", b""),
    "a 0 byte behind": _around(b"", b"\0"),
    "a byte order mark": _around(b"\xef\xbb\xbf", b""),
    "no UTF-8": _around(b'{"\xff":0,', b""),
    "UTF-16": lambda a: dump(poisoned(a)).decode().encode("utf-16"),
    "NaN": lambda a: dump(poisoned(a)).replace(b'"2.0"', b'"2.0","a":NaN'),
    "a comma behind": lambda a: dump(poisoned(a))[:-1] + b",}",
}
NO_RESPONSE: dict[str, Callable[[Answer], bytes]] = {
    "an empty object": lambda _: b"{}",
    "no result": _with(result=...),
    "a result and an error": _with(error={"code": 1, "message": "no"}),
    "no id": _with(id=...),
    "an id that is an object": _with(id={}),
    "no version": _with(jsonrpc=...),
    "another version": _with(jsonrpc="1.0"),
    "a version that is a number": _with(jsonrpc=2.0),
    "an error that is a text": _with(result=..., error="no"),
    "an error that is null": _with(result=..., error=None),
    "an error without a code": _with(result=..., error={"message": "no"}),
    "a code that is a text": _with(result=..., error={"code": "1", "message": "no"}),
    "a code with a fraction": _with(result=..., error={"code": 1.5, "message": "no"}),
}
A_REQUEST = {"a request": _with(result=..., method=GET_INFO, params={})}
BAD = {**NO_OBJECT, **NO_RESPONSE, **A_REQUEST}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_T_02_T_05_what_is_no_answer_is_ignored(
    shop: Shop, wallet: Wallet, bad: Callable[[Answer], bytes]
) -> None:
    """The answer itself is still to come."""
    shop.change(BUY, lambda answer: [bad(answer), answer])
    await buys(shop, wallet)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(BAD[name], id=name)
        for name in ("a 0 byte", "half an answer", "a batch", "two objects", "no result")
    ],
)
async def test_T_05_an_lsp_that_sent_no_answer_is_asked_when_it_reconnects(
    shop: Shop, fake: FakeLsp, wallet: Wallet, bad: Callable[[Answer], bytes]
) -> None:
    """And not before."""
    shop.change(GET_INFO, lambda answer: [bad(answer)])
    lsp = await fake.arrival()
    assert (await refusal(wallet, timeout=QUICK_S)).temporary
    shop.behave()
    await refusal(wallet, timeout=QUICK_S)
    await lsp.ping()
    assert [each.connection for each in fake.heard] == [0]
    await lsp.close()
    await fake.arrival()
    await buys(shop, wallet)
    assert [each.connection for each in fake.heard] == [0, 1, 1]


async def test_T_05_an_lsp_that_begins_with_no_answer_is_not_asked(
    shop: Shop, fake: FakeLsp, wallet: Wallet
) -> None:
    """But when it reconnects."""
    lsp = await fake.arrival()
    await lsp.send(b"[]")
    await lsp.ping()
    assert (await refusal(wallet, timeout=QUICK_S)).temporary
    assert fake.heard == []
    await lsp.close()
    await fake.arrival()
    await buys(shop, wallet)


@pytest.mark.parametrize("method", METHODS)
async def test_T_05_a_message_as_deep_as_it_can_be(
    shop: Shop, fake: FakeLsp, wallet: Wallet, method: str
) -> None:
    """JSON lets a reader bound the depth; it may not lose itself."""
    deep = b"[" * 30_000 + b"]" * 30_000
    lsp = await fake.arrival()
    shop.change(method, lambda answer: [dump(answer)[:-1] + b',"deep":' + deep + b"}"])
    with contextlib.suppress(RefusedError):
        await wallet.receive(SIZE, QUICK_S)
    shop.behave()
    await lsp.close()
    await fake.arrival()
    await buys(shop, wallet)
