"""Many sales through hooks of which some misbehave: ``python -m sales 10000`` in ``tests``."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from conformance.peer import Peer, Target
from conformance.rpc import BUY, GET_INFO, buy_params, new_id, read_answer, request

from ldkjit import (
    Accept,
    FeeTier,
    HookCounts,
    Lending,
    Limits,
    LspConfig,
    MenuRequest,
    Node,
    OrderRequest,
    PeerLimits,
    PolicyConfig,
    Refuse,
    sat,
)
from ldkjit.sandbox import Sandbox

SIZE = sat(50_000)
MENU = [FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)]
# One question in so many misbehaves in each way.
RARELY = 100
DEADLINE_MS = 2_000
# Longer than a deadline: nobody waits for it.
HANG_S = 3.0
BLOCK_S = 0.02
WAYS = ("raise", "hang", "block", "nonsense", "call", "refuse")
CLIENTS = 16
# Blocks, and some more.
MONTH = 4_400
# Promised a hundred times over: no channel is opened.
COINS = sat(100_000_000)


class HookError(Exception):
    """What a hook raises."""


@dataclass
class Report:
    """What came of it."""

    sold: int = 0
    empty: int = 0
    """Menus with nothing on them."""
    refused: dict[str, int] = field(default_factory=collections.Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0
    orders: int = 0
    """In the LSP's books."""
    menu: HookCounts = field(default_factory=HookCounts)
    sell: HookCounts = field(default_factory=HookCounts)
    misbehaved: dict[str, int] = field(default_factory=collections.Counter)


class Hooks:
    """Hooks that sell, and misbehave in turn."""

    def __init__(self, ways: tuple[str, ...]) -> None:
        self._ways = ways
        self._asked = 0
        self.misbehaved: collections.Counter[str] = collections.Counter()
        self.lsp: Node | None = None
        self.over = threading.Event()
        self._loop = asyncio.get_running_loop()

    def _way(self) -> str | None:
        self._asked += 1
        place = self._asked % RARELY
        way = self._ways[place] if place < len(self._ways) else None
        if way:
            self.misbehaved[way] += 1
        return way

    def _common(self, way: str | None, good: Any) -> Any:
        if way == "raise":
            raise HookError("now and then")
        if way == "block":
            time.sleep(BLOCK_S)
        if way == "refuse":
            return Refuse(message="not this one")
        return {"a": 1} if way == "nonsense" else good

    def function(self, good: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def hook(ask: Any) -> Any:
            way = self._way()
            if way == "hang":
                self.over.wait(HANG_S)
            if way == "call" and self.lsp is not None:
                asyncio.run_coroutine_threadsafe(self.lsp.status(), self._loop).result(HANG_S)
            return self._common(way, good(ask))

        return hook

    def coroutine(self, good: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def hook(ask: Any) -> Any:
            way = self._way()
            if way == "hang":
                await asyncio.sleep(HANG_S)
            if way == "call" and self.lsp is not None:
                await self.lsp.status()
            return self._common(way, good(ask))

        return hook


def _menu(ask: MenuRequest) -> list[FeeTier]:
    return list(ask.menu)


def _sell(order: OrderRequest) -> Accept:
    return Accept()


async def _buy(peer: Peer, report: Report) -> None:
    """One sale: a menu, then a purchase; whatever happens there is an answer."""
    began = time.monotonic()

    async def ask(method: str, params: Any) -> Any:
        id_ = new_id()
        await peer.send(request(method, params, id_))
        answer = read_answer(await asyncio.wait_for(peer.wait(), 30))
        assert answer.id == id_
        return answer

    menu = await ask(GET_INFO, {})
    offers = menu.result["opening_fee_params_menu"] if menu.result else None
    if offers is None:
        report.refused[menu.message] += 1
    elif not offers:
        report.empty += 1
    else:
        bought = await ask(BUY, buy_params(offers[0], int(SIZE)))
        if bought.code is None:
            report.sold += 1
        else:
            assert bought.code == 1, bought
            report.refused[bought.message] += 1
    report.slowest_s = max(report.slowest_s, time.monotonic() - began)


async def run(
    box: Sandbox, name: str, sales: int, kind: str, *, ways: tuple[str, ...] = WAYS
) -> Report:
    """Sell so often through hooks of this kind, ``def`` or ``async def``, and stop the LSP.

    Raises:
        TimeoutError: A request was left without an answer.
    """
    hooks = Hooks(ways)
    make = hooks.function if kind == "def" else hooks.coroutine
    policy = PolicyConfig(
        menu=make(_menu),
        sell=make(_sell),
        menu_ms=DEADLINE_MS,
        sell_ms=DEADLINE_MS,
        breaker_after=1_000_000,
    )
    many = 1_000_000
    limits = Limits(
        max_orders=many,
        max_orders_per_client=many,
        max_exposure=sat(10**12),
        max_exposure_per_client=sat(10**12),
    )
    lending = Lending(overcommit_ppm=100_000_000, strangers_ppm=1_000_000)
    service = LspConfig(menu=MENU, limits=limits, lending=lending, policy=policy)
    lsp = await box.lsp(
        name, funds=COINS, lsp=service, peer_limits=PeerLimits(max_connects_per_second=1_000)
    )
    # Its channel lets the LSP receive.
    await box.node(f"{name}-payer", funds=sat(5_000_000), channels=[(lsp, 1_000_000)])
    hooks.lsp = lsp
    report = Report(misbehaved=hooks.misbehaved)
    target = Target.parse((await lsp.status()).address)
    left = iter(range(sales))

    async def client() -> None:
        async with await Peer.connect(target) as peer:
            for _ in left:
                await _buy(peer, report)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(min(CLIENTS, sales))))
    report.seconds = time.monotonic() - began
    hooks.over.set()
    status = await lsp.status()
    report.menu, report.sell = status.policy["menu"], status.policy["sell"]
    report.orders = len(await lsp.orders())
    await lsp.stop()
    return report


def check(report: Report, sales: int) -> None:
    """None lost, none hanging, every refusal explained and counted."""
    refused = sum(report.refused.values())
    assert report.sold + report.empty + refused == sales, report
    assert report.orders == report.sold == report.sell.answered, report
    for counts in (report.menu, report.sell):
        outcomes = counts.model_dump()
        asked, late = outcomes.pop("asked"), outcomes.pop("late")
        assert sum(outcomes.values()) == asked, report
        assert late <= counts.deadline, report
    failed = [c.deadline + c.raised + c.nonsense for c in (report.menu, report.sell)]
    assert report.empty == failed[0], report
    assert report.refused.get("not this one", 0) == report.menu.refused + report.sell.refused
    no_answer = "refused: no answer from the operator's rules"
    assert report.refused.get(no_answer, 0) == failed[1], report
    assert set(report.refused) <= {"not this one", no_answer}, report


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A thread that computes without end."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _main(sales: int) -> None:
    def told(what: str, report: Report) -> None:
        check(report, sales)
        rate = sales / report.seconds
        print(f"{what}: {report.sold:,} of {sales:,} sold, {rate:,.0f}/s, {report}", flush=True)

    async with Sandbox() as box:
        # LDK draws scids from a month of blocks: a young regtest has 2,500 of them in all.
        for _ in range(MONTH // 200):
            await box.chain.mine(200)
        for kind in ("def", "async def"):
            name = kind.replace(" ", "-")
            told(kind, await run(box, name, sales, kind))
            told(f"{kind}, healthy", await run(box, f"{name}-healthy", sales, kind, ways=()))
            with busy():
                report = await run(box, f"{name}-busy", sales, kind, ways=())
            told(f"{kind}, healthy beside a busy thread", report)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
