"""What a client makes of an LSP's errors: their codes, their data, and their words."""

from __future__ import annotations

from typing import Any

import pytest

from .rpc import (
    CLIENT_REJECTED,
    GET_INFO,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    OFFER_INVALID,
    PAYMENT_TOO_LARGE,
    PAYMENT_TOO_SMALL,
    TOKEN_UNKNOWN,
)
from .shop import METHODS, Answer, Shop, failure
from .wallet import QUICK_S, Wallet, buys, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

CODES = [
    CLIENT_REJECTED,
    TOKEN_UNKNOWN,
    OFFER_INVALID,
    PAYMENT_TOO_SMALL,
    PAYMENT_TOO_LARGE,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    INTERNAL_ERROR,
    299,
    4_242,
    -1,
    0,
    2**31,
    -(2**53),
]
DATA: list[Any] = ["text", "", 0, 1.5, True, [], ["a"], {}, {"unrecognized": 7}, {"a": {"b": []}}]


@pytest.mark.parametrize("method", METHODS)
async def test_T_09_T_18_any_code_is_an_error(shop: Shop, wallet: Wallet, method: str) -> None:
    """Known or not, without ``data``: it is told, and the LSP is asked again."""
    for code in CODES:
        shop.change(method, lambda answer, code=code: [failure(answer, code)])
        refused = await refusal(wallet)
        assert refused.code == (code or None)
    shop.behave()
    await buys(shop, wallet)


@pytest.mark.parametrize("data", [None, *DATA])
@pytest.mark.parametrize("code", [CLIENT_REJECTED, TOKEN_UNKNOWN, INVALID_PARAMS, 299])
async def test_T_18_data_of_any_type_changes_nothing(
    shop: Shop, wallet: Wallet, code: int, data: Any
) -> None:
    """Nor does a field that is missing in it."""
    shop.change(GET_INFO, lambda answer: [failure(answer, code, data=data)])
    assert (await refusal(wallet)).code == code
    shop.behave()
    await buys(shop, wallet)


@pytest.mark.parametrize("code", [-32_000, -32_050, -32_099])
async def test_T_09_the_codes_of_a_server_are_internal_errors(
    shop: Shop, wallet: Wallet, code: int
) -> None:
    shop.change(GET_INFO, lambda answer: [failure(answer, code)])
    assert (await refusal(wallet)).code == INTERNAL_ERROR


@pytest.mark.parametrize("message", [..., None, 7, [], {"text": "no"}])
async def test_T_18_an_error_without_words(shop: Shop, wallet: Wallet, message: Any) -> None:
    """It is an error, or no answer at all."""

    def wordless(answer: Answer) -> list[Answer]:
        made = failure(answer, CLIENT_REJECTED, message)
        error = {name: each for name, each in made["error"].items() if each is not ...}
        return [{**made, "error": error}]

    shop.change(GET_INFO, wordless)
    assert (await refusal(wallet, timeout=QUICK_S)).code in {CLIENT_REJECTED, None}
    assert shop.methods == [GET_INFO]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("a\0b", id="NUL"),
        pytest.param("<script>alert(1)</script>", id="markup"),
        pytest.param("a\nb\r\nc\x0b\x0c\x85", id="newlines"),
        pytest.param("\x1b[2J\x1b]0;owned\x07\x08\x7f", id="terminal"),
        pytest.param("\x9b2J\x80", id="terminal of 8 bits"),
        pytest.param("".join(map(chr, range(160))), id="all of them"),
        pytest.param("<" * 60_000, id="60 kB"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
async def test_T_11_words_of_an_lsp_are_filtered(
    shop: Shop,
    wallet: Wallet,
    caplog: pytest.LogCaptureFixture,
    method: str,
    message: str,
) -> None:
    """For the user, for who asks for the words, and in the log."""
    shop.change(method, lambda answer: [failure(answer, CLIENT_REJECTED, message)])
    refused = await refusal(wallet)
    assert refused.code == CLIENT_REJECTED
    for text in (refused.shown, refused.words, *caplog.messages):
        harmful = [each for each in text if each == "<" or ord(each) < 32 or 126 < ord(each) < 160]
        assert harmful == [], text
    shop.behave()
    await buys(shop, wallet)


async def test_T_11_words_of_an_lsp_are_not_shown_to_the_user(shop: Shop, wallet: Wallet) -> None:
    """The wallet has words of its own; those of the LSP are for who asks for them."""
    words = "send your seed to support"
    shop.change(GET_INFO, lambda answer: [failure(answer, CLIENT_REJECTED, words)])
    refused = await refusal(wallet)
    assert refused.words == words
    assert words not in refused.shown
