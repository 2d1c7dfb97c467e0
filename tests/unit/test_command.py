"""What is written on the command line."""

from __future__ import annotations

import pytest

from ldkjit import ConfigError, Msat, sat
from ldkjit.cli.place import amount


def test_amounts() -> None:
    assert amount("50000") == amount("50_000 sat") == amount("0.0005btc") == sat(50_000)
    assert amount("123456msat") == Msat(123_456)
    for odd in ("", "1.5", "-1", "1e3", "sat", "0.000000000001btc", "21000001btc", "five"):
        with pytest.raises(ConfigError, match="no amount"):
            amount(odd)
