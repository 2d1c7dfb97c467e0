"""Every code of the interface becomes its class, with its fields."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest

import ldkjit
from ldkjit import errors
from ldkjit.errors import LdkJitError, from_native

INTERFACES = Path(__file__).parents[2] / "docs/design/0002-interfaces.md"


def _made(code: str, **details: object) -> LdkJitError:
    return from_native(
        json.dumps({"code": code, "message": "m", "retryable": True, "details": details})
    )


def test_every_code_of_the_interface_has_a_class() -> None:
    text = INTERFACES.read_text(encoding="utf-8")
    line = next(each for each in text.splitlines() if each.startswith("Error codes"))
    codes = [
        code
        for code in re.findall(r"`([a-z_]+)`", line)
        if code not in ("expired", "already_paid", "wrong_network", "malformed")
    ]
    assert len(codes) > 20
    for code in codes:
        error = _made(code)
        assert type(error) is not LdkJitError, code
        assert (error.code, error.retryable, str(error)) == (code, True, "m")


def test_the_fields() -> None:
    short = _made("insufficient_funds", needed_msat=5, available_msat=3)
    assert isinstance(short, ldkjit.InsufficientFundsError)
    assert (short.needed_msat, short.available_msat) == (5, 3)
    locked = _made("store_locked", pid=7)
    assert isinstance(locked, ldkjit.StoreLockedError)
    assert isinstance(locked, ldkjit.StoreError)
    assert locked.pid == 7
    refused = _made("lsp_refused", lsp_code=202, lsp_message="too small")
    assert isinstance(refused, ldkjit.LspRefusedError)
    assert (refused.lsp_code, refused.lsp_message) == (202, "too small")
    fee = _made("lsp_fee", quoted_msat=2, max_msat=1)
    assert isinstance(fee, ldkjit.OpeningFeeError)
    assert (fee.quoted_msat, fee.max_msat) == (2, 1)
    chain = _made("chain", why="auth")
    assert isinstance(chain, ldkjit.ChainError)
    assert chain.why == "auth"
    webhook = _made("webhook", why="replay")
    assert isinstance(webhook, ldkjit.WebhookError)
    assert webhook.why == "replay"


def test_builtin_handlers_catch_them_too() -> None:
    assert isinstance(_made("timeout"), TimeoutError)
    assert isinstance(_made("not_found"), LookupError)
    assert isinstance(_made("config"), ValueError)


def test_a_later_code_is_kept() -> None:
    error = _made("of_the_future", x=1)
    assert type(error) is LdkJitError
    assert (error.code, error.details) == ("of_the_future", {"x": 1})


@pytest.mark.parametrize("code", ["timeout", "chain", "of_the_future"])
def test_they_can_be_pickled(code: str) -> None:
    error = _made(code, why="auth")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is type(error)
    assert (copy.code, copy.details, copy.retryable, str(copy)) == (
        code,
        {"why": "auth"},
        True,
        "m",
    )


def test_every_class_is_exported() -> None:
    classes = {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, LdkJitError) and not name.startswith("_")
    }
    assert classes <= set(ldkjit.__all__)
    assert sorted(ldkjit.__all__, key=str.lower) == sorted(set(ldkjit.__all__), key=str.lower)
    for name in ldkjit.__all__:
        assert hasattr(ldkjit, name)


def test_the_codes_for_match_are_those_of_the_classes() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {
        each.code
        for each in classes
        if issubclass(each, LdkJitError) and not each.__name__.startswith("_")
    }
    assert set(get_args(errors.ErrorCode)) == codes
    assert _made("invoice").known_code == "invoice"
    assert _made("of_tomorrow").known_code is None
