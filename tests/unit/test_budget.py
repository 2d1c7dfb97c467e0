"""The page of the budget: medians of stages in the order of time."""

from __future__ import annotations

import budget


def test_stages_are_in_the_order_of_their_medians_and_add_up() -> None:
    payments = [
        [("payer", "send", 0.0), ("LSP", "intercepted", 100.0 + n), ("wallet", "claimed", 900.0)]
        for n in (0, 50, 400)
    ]
    assert budget.table(payments)[2:] == [
        "| payer | send | 0 | 0 |",
        "| LSP | intercepted | 150 | 150 |",
        "| wallet | claimed | 900 | 750 |",
    ]
    assert budget.total(payments) == 900.0


def test_a_stage_that_few_payments_meet_is_left_out() -> None:
    payments = [[("payer", "send", 0.0), ("wallet", "claimed", 9.0)] for _ in range(3)]
    payments[0].insert(1, ("payer", "path_failed", 4.0))
    assert "path_failed" not in "".join(budget.table(payments))
