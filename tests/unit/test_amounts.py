"""Amounts stay whole, stay in range, and say so."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ldkjit import AmountError, Msat, btc, sat
from ldkjit.amounts import MAX_MSAT

amounts = st.integers(0, MAX_MSAT)


@given(amounts, amounts)
def test_sums_and_differences_are_those_of_integers(a: int, b: int) -> None:
    if a + b <= MAX_MSAT:
        assert Msat(a) + Msat(b) == a + b
        assert type(Msat(a) + b) is type(a + Msat(b)) is Msat
    else:
        with pytest.raises(AmountError):
            Msat(a) + Msat(b)
    if a >= b:
        assert Msat(a) - Msat(b) == a - b
        assert type(Msat(a) - b) is type(a - Msat(b)) is Msat
    else:
        with pytest.raises(AmountError):
            Msat(a) - Msat(b)


@given(amounts, st.integers(1, 10**6))
def test_division_gives_the_quotient_and_the_rest(a: int, by: int) -> None:
    assert (Msat(a) // by) * by + Msat(a) % by == a
    assert type(Msat(a) // by) is type(Msat(a) % by) is Msat


@given(st.integers(0, MAX_MSAT // 1_000))
def test_satoshi_and_bitcoin_agree(n: int) -> None:
    assert sat(n) == n * 1_000
    assert sat(n).sat == n
    assert btc(Decimal(n) / 100_000_000) == sat(n)


@pytest.mark.parametrize(
    "value", [1.0, 1.5, True, False, -1, MAX_MSAT + 1, "1", None, Decimal(1), 1j]
)
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(AmountError):
        Msat(value)


@pytest.mark.parametrize("value", [1.0, True, "1", None, -1, 21_000_000 * 10**8 + 1])
def test_what_is_no_satoshi_is_refused(value: Any) -> None:
    with pytest.raises(AmountError):
        sat(value)


@pytest.mark.parametrize("value", [0.1, True, "x", "nan", "inf", "-1", "0.000000000001", None])
def test_what_is_no_bitcoin_is_refused(value: Any) -> None:
    with pytest.raises(AmountError):
        btc(value)


def test_no_arithmetic_makes_a_float() -> None:
    amount: Any = sat(3)
    for wrong in (
        lambda: amount / 2,
        lambda: 2 / amount,
        lambda: amount * 1.5,
        lambda: amount + 0.5,
        lambda: amount - 0.5,
        lambda: amount**2,
        lambda: amount * -1,
    ):
        with pytest.raises(AmountError):
            wrong()
    # A float on the left is asked first and answers with a float; no amount comes of that one.
    with pytest.raises(AmountError):
        Msat(1.5 * amount)


def test_it_is_an_integer_to_everybody_else() -> None:
    assert json.dumps({"amount": sat(1)}) == '{"amount": 1000}'
    assert sum([sat(1), sat(2)], Msat(0)) == sat(3)
    assert sorted([sat(2), sat(1)])[0] == sat(1)
    assert pickle.loads(pickle.dumps(sat(1))) == sat(1)  # noqa: S301
    assert type(pickle.loads(pickle.dumps(sat(1)))) is Msat  # noqa: S301
    assert btc("0.00000000001") == Msat(1)


def test_it_is_shown_in_satoshi() -> None:
    assert str(sat(50_000)) == "50,000 sat"
    assert f"{Msat(1_234_001)}" == "1,234.001 sat"
    assert repr(Msat(7)) == "Msat(7)"
    assert f"{Msat(1_000):,}" == "1,000"


def test_pydantic_takes_integers_and_digits_only() -> None:
    class Holder(BaseModel):
        amount: Msat

    assert type(Holder.model_validate({"amount": 5}).amount) is Msat
    assert Holder.model_validate({"amount": "5"}).amount == 5
    assert Holder(amount=sat(1)).model_dump_json() == '{"amount":1000}'
    for wrong in (5.0, True, "-5", "5.0", "\u0665", None):
        with pytest.raises(ValidationError):
            Holder.model_validate({"amount": wrong})
