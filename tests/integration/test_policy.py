"""An LSP whose operator decides in Python: prices, refusals, channels, and hooks that misbehave."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sales
from conformance.peer import PeerGoneError, Target
from conformance.rpc import BUY, CLIENT_REJECTED, Client, Offer, buy_params, request
from support import address_of, fee_of, id_of, online, only_channel, pay_both, wallet_of

from ldkjit import (
    Accept,
    ChannelRequest,
    ChannelTerms,
    FeeTier,
    HookCounts,
    Limits,
    LspConfig,
    LspRefusedError,
    MenuRequest,
    Node,
    NodeStoppedError,
    OrderRequest,
    PaymentError,
    Policy,
    PolicyConfig,
    Quota,
    Refuse,
    TrustModel,
    WrongLoopError,
    sat,
)
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

AMOUNT = sat(100_000)
MENU = [FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)]
QUICK = {"menu_ms": 400, "sell_ms": 400, "channel_ms": 400, "breaker_after": 1_000}


def dearer(ask: MenuRequest) -> list[FeeTier]:
    """The configuration's price, and what a channel costs at present."""
    (tier,) = ask.menu
    fee = tier.min_fee + sat(ask.state.open_cost_sat)
    return [tier.model_copy(update={"min_fee": fee})]


class Functions(Policy):
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def menu(self, ask: MenuRequest) -> list[FeeTier] | Refuse:
        self.asked.append(ask)
        return dearer(ask)

    def sell(self, order: OrderRequest) -> Accept | Refuse:
        self.asked.append(order)
        return Accept()

    def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse:
        self.asked.append(opening)
        return ChannelTerms(capacity_sat=2 * opening.needed_sat)


class Coroutines(Policy):
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def menu(self, ask: MenuRequest) -> list[FeeTier] | Refuse:
        self.asked.append(ask)
        await asyncio.sleep(0)
        return dearer(ask)

    async def sell(self, order: OrderRequest) -> Accept | Refuse:
        self.asked.append(order)
        return Accept()

    async def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse:
        self.asked.append(opening)
        await asyncio.sleep(0.05)
        return ChannelTerms(capacity_sat=2 * opening.needed_sat)


async def stocked(box: Sandbox, **settings: Any) -> tuple[Node, Node]:
    """An LSP with these settings, and a payer whose channel lets it receive."""
    lsp = await box.lsp("lsp", **settings)
    payer = await box.node("payer", funds=sat(5_000_000), channels=[(lsp, 1_000_000)])
    return lsp, payer


async def counts_of(lsp: Node, hook: str) -> HookCounts:
    return (await lsp.status()).policy[hook]


@pytest.mark.parametrize("policy", [Functions(), Coroutines()], ids=["def", "async def"])
async def test_a_policy_prices_sells_and_opens(box: Sandbox, policy: Any) -> None:
    lsp, payer = await stocked(box, menu=MENU, policy=policy)
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(AMOUNT)
    sent, received = await pay_both(payer, wallet, invoice.bolt11)

    menu, order, opening = policy.asked
    assert isinstance(menu, MenuRequest)
    assert isinstance(order, OrderRequest)
    assert isinstance(opening, ChannelRequest)
    assert menu.menu == tuple(MENU)
    fee = sat(2_000) + sat(menu.state.open_cost_sat)
    assert (invoice.opening_fee, order.fee, received.opening_fee) == (fee, fee, fee)
    assert received.amount == sent.amount - fee
    client = await id_of(wallet)
    assert {each.client.node_id for each in policy.asked} == {client}
    assert [each.client.orders for each in policy.asked] == [0, 0, 1]
    assert (order.size, opening.held, opening.scid) == (AMOUNT, AMOUNT, invoice.jit_scid)
    assert menu.state.fee_rate_sat_per_kw == 500
    assert menu.state.coins_sat > 90_000_000
    assert (await only_channel(wallet)).capacity_sat == 2 * opening.needed_sat
    for hook in ("menu", "sell", "channel"):
        assert await counts_of(lsp, hook) == HookCounts(asked=1, answered=1)
    (asked,) = [each for each in await lsp.metrics() if each.name == "ldkjit_hook_total"]
    outcomes = [(one.labels["hook"], one.labels["outcome"], one.value) for one in asked.samples]
    assert ("channel", "answered", 1) in outcomes
    assert {value for _, outcome, value in outcomes if outcome in ("asked", "answered")} == {1}

    # The channel is paid for now, and that is what the next question says.
    await wallet.receive(AMOUNT, jit="always")
    assert (policy.asked[-1].client.paid_channels, policy.asked[-1].client.orders) == (1, 0)


async def test_a_recorded_sale_is_replayed(box: Sandbox, tmp_path: Path) -> None:
    class Dearer(Policy):
        def menu(self, ask: MenuRequest) -> list[FeeTier]:
            return dearer(ask)

    record = tmp_path / "policy.jsonl"
    own = PolicyConfig(record=record, menu=lambda ask: ask.menu, sell=lambda order: Accept())
    lsp, _ = await stocked(box, lsp=LspConfig(menu=MENU, policy=own))
    wallet = await wallet_of(box, lsp)
    assert (await wallet.receive(AMOUNT)).opening_fee == sat(2_000)
    told = await Dearer().replay(record)
    (sale,) = told.decisions
    assert (sale.before, sale.after, sale.client) == ("sold", "sold", await id_of(wallet))
    assert told.earned_before == sat(2_000) < told.earned_after < sat(5_000)


async def test_a_record_without_hooks_tries_a_first_policy(box: Sandbox, tmp_path: Path) -> None:
    class Closed(Policy):
        def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse:
            return Refuse(message="closed")

    record = tmp_path / "policy.jsonl"
    own = PolicyConfig(record=record)
    lsp, payer = await stocked(box, lsp=LspConfig(menu=MENU, policy=own))
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(AMOUNT)
    assert invoice.opening_fee == fee_of(AMOUNT)
    await pay_both(payer, wallet, invoice.bolt11)
    async with await Client.connect(Target.parse(await address_of(lsp))) as client:
        unknown = await client.ask("lsps2.get_info", {"token": "unknown"})
        assert unknown.code == 200  # as without a record
    told = await Closed().replay(record)
    assert [(each.hook, each.before, each.after) for each in told.decisions] == [
        ("sell", "sold", "sold"),
        ("channel", "opened", "refused"),
    ]
    assert (told.menus, told.menus_before) == (2, 1)
    assert (told.earned_before, told.earned_after) == (fee_of(AMOUNT), 0)


async def test_the_price_follows_the_chain_without_code(box: Sandbox) -> None:
    costs: list[int] = []

    def watch(order: OrderRequest) -> Accept:
        costs.append(order.state.open_cost_sat)
        return Accept()

    service = LspConfig(menu=MENU, chain_cost_ppm=2_000_000, policy=PolicyConfig(sell=watch))
    lsp, _ = await stocked(box, lsp=service)
    wallet = await wallet_of(box, lsp)
    fee = (await wallet.receive(AMOUNT)).opening_fee
    (cost,) = costs
    assert cost > 0
    assert fee == sat(2_000 + 2 * cost)


async def test_a_quota_is_used_up_also_after_a_restart(box: Sandbox) -> None:
    service = LspConfig(menu=MENU, quota=Quota(sales=2))
    lsp, _ = await stocked(box, lsp=service)
    wallet = await wallet_of(box, lsp)
    for _ in range(2):
        await wallet.receive(AMOUNT)
    for _ in range(2):
        with pytest.raises(LspRefusedError) as caught:
            await wallet.receive(AMOUNT)
        assert caught.value.lsp_message == "quota used up, try later"
        await lsp.stop()
        await lsp.start()
        await online(wallet)


async def test_what_a_policy_refuses_is_told(box: Sandbox) -> None:
    class Closed(Policy):
        def sell(self, order: OrderRequest) -> Accept | Refuse:
            return Refuse(message="come back on Monday")

    lsp, _ = await stocked(box, policy=Closed())
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError) as caught:
        await wallet.receive(AMOUNT)
    assert (caught.value.lsp_code, caught.value.lsp_message) == (1, "come back on Monday")
    assert await lsp.orders() == []
    assert await counts_of(lsp, "sell") == HookCounts(asked=1, refused=1)
    (refused,) = [each for each in await lsp.metrics() if each.name == "ldkjit_refused_total"]
    assert [one.labels["reason"] for one in refused.samples] == ["policy_refused"]


async def test_single_functions_of_the_configuration(box: Sandbox) -> None:
    strict = Accept(trust=TrustModel.CLIENT_TRUSTS_LSP)
    service = LspConfig(menu=MENU, policy=PolicyConfig(sell=lambda order: strict))
    lsp, _ = await stocked(box, lsp=service)
    wallet = await wallet_of(box, lsp, trusted=True)
    invoice = await wallet.receive(AMOUNT)
    assert invoice.trust is TrustModel.CLIENT_TRUSTS_LSP
    assert (await lsp.orders())[0].trust is TrustModel.CLIENT_TRUSTS_LSP
    assert invoice.opening_fee == fee_of(AMOUNT)


async def test_a_channel_refused_fails_the_payment(box: Sandbox) -> None:
    answers: list[Any] = [Refuse(), ChannelTerms()]
    service = LspConfig(menu=MENU, policy=PolicyConfig(channel=lambda opening: answers.pop(0)))
    lsp, payer = await stocked(box, lsp=service)
    wallet = await wallet_of(box, lsp)
    invoice = await wallet.receive(AMOUNT)
    with pytest.raises(PaymentError):
        await payer.pay(invoice.bolt11, retry=0)
    assert await wallet.channels() == []
    await pay_both(payer, wallet, invoice.bolt11)
    assert answers == []


# Hooks that misbehave


class Shop:
    """An LSP whose ``sell`` is what a test gives it, and a client that buys there."""

    def __init__(self, lsp: Node, client: Client, offer: Offer) -> None:
        self.lsp, self.client, self.offer = lsp, client, offer

    async def buy(self) -> str:
        """What the client is told: ``sold`` or why not."""
        answer = await self.client.buy(self.offer, int(AMOUNT))
        assert answer.code in (None, CLIENT_REJECTED), answer
        return "sold" if answer.code is None else answer.message


Opener = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module")
async def shop(box: Sandbox) -> AsyncGenerator[Opener, None]:
    """Opens an LSP with this hook for sales."""
    clients: list[Client] = []

    async def opened(sell: Callable[[Any], Any], **settings: Any) -> Shop:
        policy = PolicyConfig(sell=sell, **{**QUICK, **settings})
        limits = Limits(max_orders_per_client=1_000)
        service = LspConfig(menu=MENU, policy=policy, limits=limits)
        lsp, _ = await stocked(box, lsp=service)
        client = await Client.connect(Target.parse(await address_of(lsp)))
        clients.append(client)
        (offer,) = await client.get_info()
        return Shop(lsp, client, offer)

    yield opened
    for client in clients:
        await client.peer.close()


def by_turns(*hooks: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that is each of these in turn."""
    rest = list(hooks)
    return lambda order: rest.pop(0)(order)


def accept(order: OrderRequest) -> Accept:
    return Accept()


def failing(order: OrderRequest) -> Accept:
    raise LookupError("no such customer")


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_errors_and_nonsense_cost_one_refusal_each(
    shop: Opener, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    sell = by_turns(failing, lambda order: None, lambda order: [order], accept)

    async def coroutine(order: OrderRequest) -> Any:
        return sell(order)

    open_shop = await shop(sell if kind == "def" else coroutine)
    with caplog.at_level(logging.WARNING, "ldkjit"):
        assert [await open_shop.buy() for _ in range(4)] == [*[sales.NO_ANSWER] * 3, "sold"]
    counts = await counts_of(open_shop.lsp, "sell")
    assert counts == HookCounts(asked=4, answered=1, raised=1, nonsense=2)
    said = [each.getMessage() for each in caplog.records if each.name == "ldkjit.policy"]
    assert "hook sell: it raised LookupError: no such customer" in said


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_hook_that_hangs_costs_its_own_refusal(shop: Opener, kind: str) -> None:
    asked = 0
    over = threading.Event()

    def function(order: OrderRequest) -> Accept:
        nonlocal asked
        asked += 1
        if asked == 1:
            over.wait(30)
        return Accept()

    async def coroutine(order: OrderRequest) -> Accept:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(30)
        return Accept()

    open_shop = await shop(function if kind == "def" else coroutine)
    began = time.monotonic()
    assert await open_shop.buy() == sales.NO_ANSWER
    assert 0.3 < time.monotonic() - began < 5
    assert await open_shop.buy() == "sold"
    over.set()

    async def late() -> bool:
        counts = await counts_of(open_shop.lsp, "sell")
        return (counts.deadline, counts.late, counts.answered) == (1, int(kind == "def"), 1)

    await until(late, "the late answer to be counted")


async def test_a_coroutine_that_blocks_the_loop(shop: Opener) -> None:
    asked = 0

    async def sell(order: OrderRequest) -> Accept:
        nonlocal asked
        asked += 1
        if asked == 1:
            time.sleep(1)  # noqa: ASYNC251 - what must not be done
        return Accept()

    open_shop = await shop(sell)
    assert await open_shop.buy() == sales.NO_ANSWER
    assert await open_shop.buy() == "sold"
    counts = await counts_of(open_shop.lsp, "sell")
    assert (counts.deadline, counts.answered) == (1, 1)


async def test_functions_are_asked_while_the_loop_is_blocked(shop: Opener) -> None:
    begun, go, both = threading.Event(), threading.Event(), threading.Event()

    def sell(order: OrderRequest) -> Accept:
        if begun.is_set():
            both.set()
        begun.set()
        go.wait(5)
        return Accept()

    open_shop = await shop(sell, sell_ms=10_000)
    client = open_shop.client
    for _ in range(2):
        await client.peer.send(request(BUY, buy_params(open_shop.offer, int(AMOUNT))))

    async def first() -> bool:
        return begun.is_set()

    await until(first, "the first question")
    await client.peer.ping()  # the node has read both
    await asyncio.sleep(0.1)
    go.set()
    assert both.wait(5)  # in this very thread: the loop does nothing meanwhile
    assert [(await client.receive()).code for _ in range(2)] == [None, None]


async def test_a_hook_may_call_its_node(shop: Opener) -> None:
    seen: list[Any] = []

    async def sell(order: OrderRequest) -> Accept:
        lsp: Node = open_shop.lsp
        seen.append((await lsp.status()).height == order.state.height)
        seen.append(len(await lsp.orders()))
        seen.append([row async for row in lsp.ledger()] != [])
        return Accept()

    open_shop = await shop(sell)
    assert await open_shop.buy() == "sold"
    assert seen == [True, 0, True]


async def test_a_function_that_calls_the_node_is_in_the_wrong_loop(shop: Opener) -> None:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def sell(order: OrderRequest) -> Accept:
        try:
            asyncio.run(open_shop.lsp.status())
        except WrongLoopError:
            seen.append("wrong loop")
        asked = asyncio.run_coroutine_threadsafe(open_shop.lsp.status(), loop)
        seen.append(asked.result(5).height == order.state.height)
        return Accept()

    open_shop = await shop(sell, sell_ms=5_000)
    assert await open_shop.buy() == "sold"
    assert seen == ["wrong loop", True]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_hook_may_stop_its_node(shop: Opener, kind: str) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    async def stop() -> None:
        await open_shop.lsp.stop()
        stopped.set()

    def function(order: OrderRequest) -> Accept:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        return Accept()

    async def coroutine(order: OrderRequest) -> Accept:
        await stop()
        return Accept()

    open_shop = await shop(function if kind == "def" else coroutine, sell_ms=10_000)
    buying = asyncio.ensure_future(open_shop.buy())
    await asyncio.wait_for(stopped.wait(), 15)
    with pytest.raises(PeerGoneError):
        await buying
    with pytest.raises(NodeStoppedError):
        await open_shop.lsp.status()
    # Nothing was sold, and nothing is half done.
    await open_shop.lsp.start()
    assert await open_shop.lsp.orders() == []


async def test_a_hook_that_never_answers_is_left_in_peace(shop: Opener) -> None:
    async def sell(order: OrderRequest) -> Accept:
        await asyncio.sleep(60)
        return Accept()

    open_shop = await shop(sell, sell_ms=50, breaker_after=3, breaker_ms=60_000)
    assert [await open_shop.buy() for _ in range(6)] == [sales.NO_ANSWER] * 6
    counts = await counts_of(open_shop.lsp, "sell")
    assert (counts.deadline, counts.broken) == (3, 3)


async def test_a_menu_that_fails_is_empty(box: Sandbox) -> None:
    def menu(ask: MenuRequest) -> Any:
        raise RuntimeError("no prices today")

    service = LspConfig(menu=MENU, policy=PolicyConfig(menu=menu))
    lsp = await box.lsp("lsp", lsp=service)
    async with await Client.connect(Target.parse(await address_of(lsp))) as client:
        assert await client.get_info() == []
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError, match="nothing for sale at present"):
        await wallet.receive(AMOUNT)


# Many sales


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_many_sales_through_hooks_of_which_some_misbehave(box: Sandbox, kind: str) -> None:
    report = await sales.run(box, "lsp", 400, kind)
    sales.check(report, 400)
    assert min(report.misbehaved[way] for way in sales.WAYS) >= 5
    # A function that hangs holds up those that ask behind it, and there is one to each client.
    held_up = sales.CLIENTS * report.misbehaved["hang"] if kind == "def" else 0
    assert report.sold >= 340 - held_up


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_sales_by_hooks_that_also_end_their_node(
    box: Sandbox, tmp_path: Path, kind: str
) -> None:
    report = await sales.run_ending(box, "lsp", 200, kind, tmp_path, rarely=40)
    sales.check_ending(report, 200)
    assert set(report.misbehaved) == set(sales.ENDING_WAYS), report


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_channels_by_hooks_of_which_some_misbehave(box: Sandbox, kind: str) -> None:
    report = await sales.run_opens(box, "lsp", 128, kind)
    sales.check_opens(report, 128)
    assert set(report.misbehaved) == set(sales.WAYS), report


async def test_sales_beside_a_thread_that_takes_all_it_can(box: Sandbox) -> None:
    """No deadline runs out on an application that is busy and healthy."""
    with sales.busy():
        for kind in ("def", "async def"):
            report = await sales.run(box, f"lsp-{kind.split()[0]}", 100, kind, ways=())
            sales.check(report, 100)
            assert (report.sold, report.menu.deadline, report.sell.deadline) == (100, 0, 0)
