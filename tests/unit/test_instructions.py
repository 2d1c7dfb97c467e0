"""The guard against slower decisions: what is more, what is gone, what is new."""

from __future__ import annotations

import instructions


def test_only_what_takes_more_than_the_tolerance_is_worse() -> None:
    then = {"fee": 1_000.0, "menu": 1_000.0, "sale": 1_000.0}
    lines, worse = instructions.beside({"fee": 1_101.0, "menu": 1_099.0, "sale": 10.0}, then)
    assert worse == ["fee"]
    assert [line.split()[-1] for line in lines] == ["MORE", "+9.9%", "-99.0%"]


def test_a_case_that_is_gone_is_worse_and_a_new_one_is_not() -> None:
    lines, worse = instructions.beside({"new": 5.0}, {"old": 1.0})
    assert worse == ["old"]
    assert [line.split() for line in lines] == [["old", "gone"], ["new", "5"]]


def test_what_is_compared_with_was_measured() -> None:
    then = instructions.json.loads(instructions.RELEASE.read_text())
    assert then["compiler"].startswith("rustc ")
    assert all(count > 0 for count in then["instructions"].values())
