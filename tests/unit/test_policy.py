"""Hooks: how they are registered, asked and answered for, whatever they do."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fake import FakeNative
from ldkjit import (
    Accept,
    Bitcoind,
    ChannelRequest,
    ChannelTerms,
    ConfigError,
    FeeTier,
    LspConfig,
    MenuRequest,
    Msat,
    Node,
    NodeConfig,
    OrderRequest,
    Policy,
    PolicyConfig,
    Refuse,
    ServiceState,
    TrustModel,
)
from ldkjit._bridge import Bridge
from ldkjit._hooks import HookRunner, collect
from ldkjit.policy import read_question, write_answer
from ldkjit.sandbox import until
from questions import CHANNEL, MENU, ORDER, TIER

YES = {"yes": {"trust": None}}


def _question(hook: str, ask: Any) -> Any:
    import json

    name, question = read_question(json.dumps({"hook": hook, "deadline_ms": 1, "ask": ask}))
    assert name == hook
    return question


def test_questions_are_typed() -> None:
    menu = _question("menu", MENU)
    assert isinstance(menu, MenuRequest)
    assert menu.menu == (TIER,)
    assert (menu.client.exposure, menu.state.height) == (Msat(5_000), 7)
    assert isinstance(menu.state, ServiceState)
    order = _question("sell", ORDER)
    assert isinstance(order, OrderRequest)
    assert (order.size, order.fee, order.min_fee) == (Msat(100_000), None, Msat(2_000))
    assert order.valid_until.year == 1970
    channel = _question("channel", CHANNEL)
    assert isinstance(channel, ChannelRequest)
    assert channel.trust is TrustModel.CLIENT_TRUSTS_LSP
    with pytest.raises(Exception, match="frozen"):
        channel.needed_sat = 1


def test_answers_are_written_as_the_node_reads_them() -> None:
    import json

    def written(hook: str, answer: Any) -> Any:
        return json.loads(write_answer(hook, answer))

    tiers = {"yes": {"tiers": [TIER.model_dump(mode="json")]}}
    assert written("menu", [TIER]) == tiers == written("menu", (TIER,))
    assert written("menu", []) == {"yes": {"tiers": []}}
    assert written("sell", Accept()) == YES
    strict = Accept(trust=TrustModel.CLIENT_TRUSTS_LSP)
    assert written("sell", strict) == {"yes": {"trust": "client_trusts_lsp"}}
    assert written("channel", ChannelTerms()) == {"yes": {"value_sat": None}}
    assert written("channel", ChannelTerms(capacity_sat=50_000)) == {"yes": {"value_sat": 50_000}}
    for hook in ("menu", "sell", "channel"):
        refused = {"refuse": {"message": "no", "reason": "refused"}}
        assert written(hook, Refuse(message="no")) == refused


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("menu", None),
        ("menu", TIER),
        ("menu", "tiers"),
        ("menu", [Accept()]),
        ("menu", [FeeTier.model_construct(min_fee=Msat(1), proportional_ppm=-5)]),
        ("sell", None),
        ("sell", True),
        ("sell", ChannelTerms()),
        ("sell", Accept),
        ("sell", Accept.model_construct(trust="nobody")),
        ("channel", Accept()),
        ("channel", 50_000),
        ("channel", ChannelTerms.model_construct(capacity_sat=-1)),
        ("channel", ChannelTerms.model_construct(capacity_sat="many")),
        ("sell", Refuse.model_construct(message="x" * 1_000, reason="refused")),
    ],
)
def test_nonsense_is_no_answer(hook: str, answer: Any) -> None:
    with pytest.raises((TypeError, ConfigError)):
        write_answer(hook, answer)


def test_answers_are_checked_when_they_are_made() -> None:
    with pytest.raises(ConfigError, match="capacity_sat"):
        ChannelTerms(capacity_sat=-1)
    with pytest.raises(ConfigError, match="reason"):
        Refuse(reason="whim")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="message"):
        Refuse(message="x" * 257)


def _nothing(ask: Any) -> Any: ...


def test_hooks_are_checked_when_they_are_given() -> None:
    class Sells(Policy):
        def sell(self, order: OrderRequest) -> Accept:
            return Accept()

    class Wrong(Policy):
        def menu(self) -> list[FeeTier]:
            return []

    class NoFunction(Policy):
        channel = 5

    assert set(collect(Sells(), {"menu": _nothing, "channel": None})) == {"sell", "menu"}
    assert collect(None, {"sell": None}) == {}
    for policy, functions, words in (
        (Policy(), {}, "has none of menu, sell, channel"),
        (Wrong(), {}, "menu must take one argument"),
        (NoFunction(), {}, "channel is no function"),
        (Sells(), {"sell": _nothing}, "sell is in the configuration too"),
    ):
        with pytest.raises(ConfigError, match=words):
            collect(policy, functions)


def _config(**lsp: Any) -> NodeConfig:
    service = LspConfig(menu=[TIER], **lsp) if lsp else None
    return NodeConfig(
        network="regtest",
        data_dir=Path("x"),
        chain=Bitcoind("http://127.0.0.1:1", user="u", password="p"),
        lsp=service,
    )


async def test_the_node_is_told_which_hooks_there_are_and_never_their_code() -> None:
    async def sell(order: OrderRequest) -> Accept:
        return Accept()

    config = _config(policy=PolicyConfig(menu=_nothing, sell=sell, sell_ms=77))
    status = {
        "node_id": "02ab",
        "network": "regtest",
        "height": 7,
        "block_hash": "00",
        "started_at_ms": 1,
        "policy": {"sell": {"asked": 3, "deadline": 1, "something new": 2}},
    }
    native = FakeNative(lambda method, params: status if method == "start" else {})
    node = Node(config, _make_native=lambda: native)
    counts = (await node.start()).policy["sell"]
    assert (counts.asked, counts.deadline, counts.late) == (3, 1, 0)
    told = native.calls[0][1]["lsp"]["policy"]
    assert told["hooks"] == {"menu": "thread", "sell": "loop"}
    assert told["sell_ms"] == 77
    assert not {"menu", "sell", "channel"} & told.keys()
    await node.stop()
    with pytest.raises(ConfigError, match="only for a node that sells channels"):
        Node(_config(), policy=config)


Hook = Callable[[Any], Any]


class Stage:
    """A bridge with one hook, ``sell``, and the answers that came of it."""

    def __init__(self, hook: Hook) -> None:
        self.native = FakeNative(lambda method, params: ...)
        self.runner = HookRunner({"sell": hook}, asyncio.get_running_loop())
        self.bridge = Bridge(lambda: self.native, self.runner)
        self.thread = self.runner.places()["sell"] == "thread"
        self.ids = 0

    def ask(self) -> int:
        self.ids += 1
        self.native.put(self.ids, "sell", ORDER, thread=self.thread)
        return self.ids

    async def answer(self, id: int) -> Any:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for each, body in self.native.answered:
                if each == id:
                    return body
            await asyncio.sleep(0.005)
        raise AssertionError("no answer")

    async def asked(self) -> Any:
        return await self.answer(self.ask())

    def close(self) -> None:
        self.bridge.close()


def _as_coroutine(hook: Hook) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    async def sell(order: OrderRequest) -> Any:
        return hook(order)

    return sell


def _raises(order: OrderRequest) -> Any:
    raise ValueError("a bad day")


def _exits(order: OrderRequest) -> Any:
    raise SystemExit(3)


@pytest.mark.parametrize("wrap", [lambda hook: hook, _as_coroutine], ids=["def", "async def"])
async def test_whatever_a_hook_does_is_answered(wrap: Callable[[Hook], Hook]) -> None:
    async def told(hook: Hook) -> Any:
        stage = Stage(wrap(hook))
        try:
            return await stage.asked()
        finally:
            stage.close()

    assert await told(lambda order: Accept()) == YES
    raised = {"fault": {"kind": "raised", "text": "ValueError: a bad day"}}
    assert await told(_raises) == raised
    assert await told(_exits) == {"fault": {"kind": "raised", "text": "SystemExit: 3"}}
    nonsense = (await told(lambda order: 5))["fault"]
    assert nonsense == {"kind": "nonsense", "text": "accepts Accept or Refuse, not int"}


async def test_a_function_that_returns_a_coroutine_is_told_so() -> None:
    async def coroutine() -> Accept:
        return Accept()

    stage = Stage(lambda order: coroutine())
    fault = (await stage.asked())["fault"]
    assert (fault["kind"], "write async def" in fault["text"]) == ("nonsense", True)
    stage.close()


async def test_a_hung_coroutine_is_cancelled_and_others_go_on() -> None:
    ended = asyncio.Event()

    async def sell(order: OrderRequest) -> Accept:
        if stage.ids == 1:
            try:
                await asyncio.sleep(3_600)
            finally:
                ended.set()
        return Accept()

    stage = Stage(sell)
    hung = stage.ask()
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert await stage.asked() == YES
    stage.native.push(4, hung, None)
    await asyncio.wait_for(ended.wait(), 5)
    assert [id for id, _ in stage.native.answered] == [2]
    stage.close()


async def test_a_hung_thread_has_a_successor() -> None:
    go = threading.Event()
    seen: list[int] = []

    def sell(order: OrderRequest) -> Accept:
        seen.append(threading.get_ident())
        if len(seen) == 1:
            go.wait(10)
        return Accept()

    stage = Stage(sell)
    hung = stage.ask()

    async def begun() -> bool:
        return bool(seen)

    async def ended() -> bool:
        return not any(each.name == "ldkjit-policy" for each in threading.enumerate())

    await until(begun, "the first question to be asked")
    waiting = stage.ask()
    stage.native.push(4, hung, None)
    assert await stage.answer(waiting) == YES
    assert len(set(seen)) == 2
    go.set()
    assert await stage.answer(hung) == YES  # too late: the node counts it
    stage.close()
    await until(ended, "the threads to end")


async def test_a_coroutine_that_is_cancelled_by_others_is_answered() -> None:
    async def sell(order: OrderRequest) -> Accept:
        raise asyncio.CancelledError

    stage = Stage(sell)
    assert await stage.asked() == {"fault": {"kind": "closed", "text": "cancelled"}}
    stage.close()


async def test_hooks_see_the_context_of_the_start() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("start")
    seen: list[str] = []

    async def sell(order: OrderRequest) -> Accept:
        seen.append(variable.get())
        variable.set("changed by a hook")
        return Accept()

    stage = Stage(sell)
    variable.set("later")
    await stage.asked()
    await stage.asked()
    assert seen == ["start", "start"]
    stage.close()


async def test_a_hook_may_close_its_own_bridge() -> None:
    async def sell(order: OrderRequest) -> Accept:
        stage.close()
        await asyncio.sleep(0)
        return Accept()

    stage = Stage(sell)
    assert await stage.asked() == YES
    assert stage.native.closed == 1


async def test_closing_ends_hooks_that_wait() -> None:
    ended = asyncio.Event()

    async def sell(order: OrderRequest) -> Accept:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()
        return Accept()

    stage = Stage(sell)
    stage.ask()
    await asyncio.sleep(0.01)
    stage.close()
    await asyncio.wait_for(ended.wait(), 5)


async def test_where_a_hook_raised_is_logged_for_whoever_looks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(_raises)
    with caplog.at_level(logging.DEBUG, "ldkjit.policy"):
        await stage.asked()
    (record,) = [each for each in caplog.records if each.name == "ldkjit.policy"]
    assert record.exc_info is not None
    assert "hook sell raised" in record.getMessage()
    stage.close()
