"""The demo's own arithmetic and its report."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ldkjit.cli import app
from ldkjit.cli.demo import LARGE, ODD, SMALL, TIER, expected_fee
from ldkjit.cli.report import Check, Report, Scene


@given(st.integers(1, 10**13))
def test_the_fee_is_the_share_rounded_up_and_at_least_the_minimum(payment: int) -> None:
    fee = expected_fee(payment)
    assert fee >= TIER.min_fee
    if fee > TIER.min_fee:
        assert (fee - 1) * 1_000_000 < payment * TIER.proportional_ppm <= fee * 1_000_000


def test_the_scenes_meet_both_branches_of_the_fee() -> None:
    assert expected_fee(SMALL) == TIER.min_fee
    assert expected_fee(LARGE) == 6_000_000
    assert expected_fee(ODD) == 3_111_112


def test_one_difference_spoils_the_report() -> None:
    good = Scene("a", checks=[Check("x", 1, 1)])
    bad = Scene("b", checks=[Check("x", 1, 1), Check("y", 1, 2)])
    assert Report([good]).ok
    assert not Report([good, bad]).ok
    assert not Report([]).ok
    told = json.loads(json.dumps(Report([good, bad]).as_json()))
    assert [scene["ok"] for scene in told["scenes"]] == [True, False]
    assert told["scenes"][1]["checks"][1] == {"what": "y", "expected": 1, "actual": 2, "ok": False}


def test_the_command_exists() -> None:
    done = CliRunner().invoke(app, ["demo", "--help"])
    assert done.exit_code == 0
    assert CliRunner().invoke(app, ["version"]).exit_code == 0
