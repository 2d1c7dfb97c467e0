"""Amounts of money: an integer count of millisatoshi that never becomes a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, SupportsIndex

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from .errors import AmountError

MSAT_PER_SAT = 1_000
SAT_PER_BTC = 100_000_000
# All the bitcoin there can ever be; also far inside 64 bits.
MAX_MSAT = 21_000_000 * SAT_PER_BTC * MSAT_PER_SAT


class Msat(int):
    """An amount in millisatoshi (1/1000 satoshi), from 0 to 21 million bitcoin.

    It is an ``int``, so it compares, sorts and serialises as one. Sums and differences with other
    amounts or plain integers (taken as millisatoshi) are ``Msat`` again; what would leave the range
    or need a fraction raises. (``float * Msat`` cannot be helped: the float
    answers, with a float, of which no amount can be made.)
    """

    __slots__ = ()

    def __new__(cls, value: int) -> Msat:
        """``value`` counts millisatoshi; what is no whole number in range is an AmountError."""
        return super().__new__(cls, _checked(value))

    @property
    def sat(self) -> int:
        """The whole satoshi in it; the millisatoshi left over are dropped."""
        return int(self) // MSAT_PER_SAT

    def __add__(self, other: int) -> Msat:
        return Msat(int(self) + _integer(other))

    __radd__ = __add__

    def __sub__(self, other: int) -> Msat:
        return Msat(int(self) - _integer(other))

    def __rsub__(self, other: int) -> Msat:
        return Msat(_integer(other) - int(self))

    def __mul__(self, other: int) -> Msat:
        return Msat(int(self) * _integer(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> Msat:
        return Msat(int(self) // _integer(other))

    def __mod__(self, other: int) -> Msat:
        return Msat(int(self) % _integer(other))

    def __truediv__(self, other: object) -> NoReturn:
        raise AmountError("amounts are whole millisatoshi: divide with //")

    __rtruediv__ = __truediv__

    def __pow__(self, other: object, modulus: object = None) -> NoReturn:
        raise AmountError("an amount has no powers")

    def __round__(self, ndigits: SupportsIndex | None = None) -> Msat:
        return self

    def __repr__(self) -> str:
        return f"Msat({int(self)})"

    def __str__(self) -> str:
        whole, rest = divmod(int(self), MSAT_PER_SAT)
        return f"{whole:,}.{rest:03} sat" if rest else f"{whole:,} sat"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A string of digits is taken too, since environment variables are nothing else.
        return core_schema.no_info_plain_validator_function(
            _from_outside,
            serialization=core_schema.plain_serializer_function_ser_schema(int),
        )


def sat(value: int) -> Msat:
    """Whole satoshi as an amount.

    Raises:
        AmountError: ``value`` is not a whole number, or out of range.
    """
    return Msat(_integer(value) * MSAT_PER_SAT)


def btc(value: str | int | Decimal) -> Msat:
    """Bitcoin as an amount, exactly: ``btc("0.00000001") == sat(1)``.

    Raises:
        AmountError: ``value`` is a float, no number, finer than a millisatoshi, or out of range.
    """
    if not isinstance(value, str | Decimal):
        value = _integer(value)
    try:
        exact = Decimal(value) * SAT_PER_BTC * MSAT_PER_SAT
        whole = int(exact)
    except (InvalidOperation, ValueError, OverflowError):
        raise AmountError(f"{value!r} is no amount of bitcoin") from None
    if exact != whole:
        raise AmountError(f"{value} BTC is not a whole number of millisatoshi")
    return Msat(whole)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise AmountError(f"amounts are whole numbers, not {type(value).__name__} {value!r}")
    return int(value)


def _checked(value: object) -> int:
    number = _integer(value)
    if not 0 <= number <= MAX_MSAT:
        raise AmountError(f"{number} msat is outside 0…{MAX_MSAT} msat")
    return number


def _from_outside(value: object) -> Msat:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return Msat(int(value))
    return Msat(_checked(value))
