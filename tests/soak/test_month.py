"""A month of generated sales is reported line by line as the ledger adds it up, and drawn."""

from __future__ import annotations

from pathlib import Path

import month
import pytest

pytestmark = pytest.mark.native


def test_a_month_of_sales_is_reported_as_the_ledger_adds_it_up(node: Path, tmp_path: Path) -> None:
    # Built with the node.
    program = node.parent / "examples" / "generated-month"
    told = month.measure(program, 2_000, tmp_path)
    assert told["rows"] > 20_000
    # A line for each day until today.
    assert told["day"]["lines"] >= 58
    assert told["tier"]["lines"] == 3
    assert told["client"]["lines"] > 500
    for by in month.LINES:
        assert (tmp_path / f"{by}.png").read_bytes().startswith(b"\x89PNG")
