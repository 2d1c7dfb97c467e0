"""Recorded questions: kept, bounded, read again and replayed with another policy."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ldkjit import (
    Accept,
    ChannelTerms,
    ConfigError,
    Decision,
    FeeTier,
    MenuRequest,
    Msat,
    OrderRequest,
    Policy,
    Refuse,
    Replay,
    sat,
)
from ldkjit.replay import Recorder, read
from questions import CHANNEL, MENU, ORDER, TIER

YES = json.dumps({"yes": {"trust": None}})
NO = json.dumps({"refuse": {"message": "", "reason": "refused"}})
TIERS = json.dumps({"yes": {"tiers": [TIER.model_dump(mode="json")]}})


def _line(hook: str, ask: Any) -> str:
    return json.dumps({"hook": hook, "deadline_ms": 2_000, "ask": ask})


def _sale(size: int | None, fee: int | None = None, **client: Any) -> str:
    order = {**ORDER, "size_msat": size, "fee_msat": fee, "client": {**ORDER["client"], **client}}
    return _line("sell", order)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Four sales, one refused and one not answered; a channel and two menus."""
    file = tmp_path / "policy.jsonl"
    recorder = Recorder(file, 1_000_000)
    recorder.add(_line("menu", MENU), TIERS, 3)
    recorder.add(_line("menu", MENU), None, 2_000)
    recorder.add(_sale(100_000_000, 2_000_000), YES, 1)
    recorder.add(_sale(1_000_000_000, 4_000_000), YES, 1)
    recorder.add(_sale(None), NO, 1)
    recorder.add(_sale(100_000_000, 2_000_000, left_unpaid=1), None, 2_000)
    recorder.add(_line("channel", CHANNEL), json.dumps({"yes": {"value_sat": None}}), 5)
    return file


def test_a_file_is_its_owners_and_bounded(tmp_path: Path) -> None:
    file = tmp_path / "policy.jsonl"
    recorder = Recorder(file, 2_000)
    for _ in range(20):
        recorder.add(_line("menu", MENU), TIERS, 1)
    assert stat.S_IMODE((tmp_path / "policy.jsonl.1").stat().st_mode) == 0o600
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 6_000
    assert all(name == "menu" for name, _, _ in read(file))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        list(read(tmp_path / "missing"))
    (tmp_path / "bad").write_text(f'{{"question": {_line("menu", MENU)}, "answer": null}}\n5\n')
    with pytest.raises(ConfigError, match="line 2"):
        list(read(tmp_path / "bad"))


async def test_the_same_decisions_again(history: Path) -> None:
    class Same(Policy):
        def channel(self, opening: Any) -> ChannelTerms:
            return ChannelTerms()

    told = await Same().replay(history)
    assert isinstance(told, Replay)
    assert isinstance(told.decisions[0], Decision)
    assert [each.before for each in told.decisions] == [
        "sold", "sold", "refused", "failed", "opened",
    ]  # fmt: skip
    assert [each.after for each in told.decisions] == ["sold"] * 4 + ["opened"]
    assert (told.menus, told.menus_before, told.menus_after) == (2, 1, 2)
    assert told.earned_before == sat(6_000)
    # The variable amount at its least fee, and the one that was not answered.
    assert told.earned_after == sat(6_000) + Msat(2_000) + sat(2_000)


async def test_a_stricter_policy(history: Path) -> None:
    class Strict(Policy):
        async def sell(self, order: OrderRequest) -> Accept | Refuse:
            if order.client.left_unpaid:
                return Refuse(message="unpaid before")
            if order.size is None:
                raise LookupError
            return Accept()

        def channel(self, opening: Any) -> Refuse:
            return Refuse()

    told = await Strict().replay(history)
    assert told.count("after", "sold") == 2
    assert [each.why for each in told.decisions[2:]] == [
        "sell failed: LookupError", "unpaid before", "channel: refused",
    ]  # fmt: skip
    table = told.table()
    assert "1 times: unpaid before" in table
    assert f"{6_000_000:>20,}{6_000_000:>20,}" in table


@pytest.mark.native
async def test_another_price(history: Path) -> None:
    class Dearer(Policy):
        def menu(self, ask: MenuRequest) -> list[FeeTier]:
            (tier,) = ask.menu
            small = tier.model_copy(update={"max_payment": sat(500_000)})
            return [small.model_copy(update={"min_fee": sat(3_000)})]

    told = await Dearer().replay(history)
    assert [each.after for each in told.decisions[:4]] == ["sold", "no offer", "sold", "sold"]
    assert told.earned_after == 3 * sat(3_000)
    ElementTree.fromstring(told.plot())  # noqa: S314 - our own
    assert "recorded: 6,000 sat" in told.plot()
    assert "replayed: 9,000 sat" in told.plot()
