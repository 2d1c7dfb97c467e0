"""Recorded questions: kept, bounded, read again and replayed with another policy."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ldkjit import (
    Accept,
    ChannelRequest,
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
from ldkjit.policy import read_question, write_answer
from ldkjit.replay import Recorder, read, replay, stand_ins
from questions import CHANNEL, MENU, ORDER, TIER

YES = json.dumps({"yes": {"trust": None}})
NO = json.dumps({"refuse": {"message": "", "reason": "refused"}})
TIERS = json.dumps({"yes": {"tiers": [TIER.model_dump(mode="json")]}})


def _line(hook: str, ask: Any) -> str:
    return json.dumps({"hook": hook, "deadline_ms": 2_000, "ask": ask})


def _sale(size: int | None, fee: int | None = None, **client: Any) -> str:
    order = {**ORDER, "size_msat": size, "fee_msat": fee, "client": {**ORDER["client"], **client}}
    return _line("sell", order)


def _open(scid: str, size: int | None, **more: Any) -> str:
    return _line("channel", {**CHANNEL, "scid": scid, "size_msat": size, **more})


OPENED = json.dumps({"yes": {"value_sat": None}})


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
    recorder.add(_line("channel", CHANNEL), OPENED, 5)
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
    assert "Refused, not offered or failed" in told.plot()
    assert "recorded: 2<" in told.plot()
    assert "replayed: 1<" in told.plot()
    ElementTree.fromstring(Replay((), 0, 0, 0).plot())  # noqa: S314 - our own


async def test_a_sale_whose_channel_is_refused_earns_nothing(tmp_path: Path) -> None:
    file = tmp_path / "policy.jsonl"
    recorder = Recorder(file, 1_000_000)
    for fee in (1_000_000, 2_000_000, 4_000_000):
        recorder.add(_sale(100_000_000, fee), YES, 1)
    recorder.add(_sale(None), YES, 1)
    recorder.add(_open("1x1x1", 100_000_000), OPENED, 1)  # of the latest, 4,000 sat
    recorder.add(_open("1x1x2", 100_000_000), NO, 1)  # of the one before, and paid later
    recorder.add(_open("1x1x2", 100_000_000), OPENED, 1)
    recorder.add(_open("1x1x3", None), NO, 1)  # of the variable amount, for good
    recorder.add(_open("9x9x9", 5_000), OPENED, 1)  # its sale is not in the record

    class Other(Policy):
        def sell(self, order: OrderRequest) -> Accept | Refuse:
            return Refuse() if order.fee == sat(2_000) else Accept()

        async def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse:
            return Refuse() if opening.scid == "1x1x1" else ChannelTerms()

    told = await Other().replay(file)
    assert (await replay(file, {"sell": Other().sell})).earned_after == sat(5_000) + Msat(2_000)
    assert [each.earned_before for each in told.decisions[:4]] == [
        sat(1_000), sat(2_000), sat(4_000), 0,
    ]  # fmt: skip
    assert [each.earned_after for each in told.decisions[:4]] == [sat(1_000), 0, 0, 2_000]
    assert [each.after for each in told.decisions[4:]] == [
        "refused", "not asked", "not asked", "opened", "opened",
    ]  # fmt: skip
    assert told.earned_before == sat(7_000)
    assert told.earned_after == sat(1_000) + Msat(2_000)


async def test_a_hook_that_hangs_fails(history: Path) -> None:
    over = threading.Event()
    threads: set[threading.Thread] = set()

    class Hangs(Policy):
        def sell(self, order: OrderRequest) -> Accept:
            threads.add(threading.current_thread())
            if order.size is None:
                over.wait(30)
            if order.client.left_unpaid:
                raise SystemExit
            return Accept()

        async def channel(self, opening: ChannelRequest) -> ChannelTerms:
            await asyncio.sleep(30)
            return ChannelTerms()

    told = await Hangs().replay(history, timeout=0.2)
    assert [each.after for each in told.decisions] == ["sold"] * 2 + ["failed"] * 3
    assert [each.why for each in told.decisions[2:]] == [
        "sell failed: TimeoutError", "sell failed: SystemExit", "channel failed: TimeoutError",
    ]  # fmt: skip
    # One thread until it hung, then another, and none of them keeps the program.
    assert len(threads) == 2
    assert all(each.daemon for each in threads)
    over.set()
    for each in threads:
        each.join(5)
        assert not each.is_alive()


def test_without_a_hook_the_configuration_decides() -> None:
    hooks = stand_ins(["partner"])

    def answer(hook: str, ask: Any) -> Any:
        name, question = read_question(_line(hook, ask))
        return json.loads(write_answer(name, hooks[name](question)))

    def menu(token: str | None, tiers: list[Any]) -> Any:
        return answer("menu", {**MENU, "menu": tiers, "client": {**MENU["client"], "token": token}})

    assert menu(None, MENU["menu"]) == json.loads(TIERS)
    assert menu("partner", []) == {"yes": {"tiers": []}}
    assert menu("nobody's", [])["refuse"]["reason"] == "unknown_token"
    assert answer("sell", ORDER) == json.loads(YES)
    assert answer("channel", CHANNEL) == json.loads(OPENED)
