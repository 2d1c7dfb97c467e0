"""Sales through hooks of which some misbehave, in ``tests``: ``python -m sales 10000 [mode …]``.

The modes are those of ``MODES``, all of them if none is given.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.peer import Peer, PeerGoneError, Target
from conformance.rpc import BUY, GET_INFO, ask_once, buy_params
from programs import Program, program

from ldkjit import (
    Accept,
    ChannelRequest,
    ChannelTerms,
    FeeTier,
    HookCounts,
    Lending,
    Limits,
    LspConfig,
    MenuRequest,
    Msat,
    Node,
    OrderRequest,
    PaymentError,
    PeerLimits,
    PolicyConfig,
    Refuse,
    sat,
)
from ldkjit.sandbox import Sandbox, until

SIZE = sat(50_000)
MENU = [FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)]
# One question in so many misbehaves in each way.
RARELY = 100
DEADLINE_MS = 2_000
# Longer than a deadline: nobody waits for it.
HANG_S = 3.0
BLOCK_S = 0.02
ANSWER_S = 30.0
WAYS = ("raise", "hang", "block", "nonsense", "call", "refuse")
CLIENTS = 16
# Of the questions to a hook for channels one in so many gets a channel, the others a no.
OPENS_EVERY = 10
PAYER_SAT = 16_000_000
# A channel has no room for a second one.
OPEN_SIZE = sat(14_000)
# Blocks, and some more.
MONTH = 4_400
# Promised a hundred times over: no channel is opened.
COINS = sat(100_000_000)
# What a client is told.
NO_ANSWER = "refused: no answer from the operator's rules"
NOT_THIS = "not this one"
NOTHING = "nothing on the menu"


class HookError(Exception):
    """What a hook raises."""


@dataclass
class Report:
    """What came of it.

    Attributes:
        sold: Sales.
        refused: Refusals, by what the client was told.
        gone: How often a client was hung up on and asked again.
        seconds: All of it.
        slowest_s: The longest that a sale took.
        orders: In the LSP's books at the end.
        menu: What became of the questions to this hook.
        sell: The same.
        misbehaved: What hooks did, by way.
        ends: How the LSP's program ended each time, by exit code.
    """

    sold: int = 0
    refused: dict[str, int] = field(default_factory=collections.Counter)
    gone: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    orders: int = 0
    menu: HookCounts = field(default_factory=HookCounts)
    sell: HookCounts = field(default_factory=HookCounts)
    misbehaved: dict[str, int] = field(default_factory=collections.Counter)
    ends: dict[int | None, int] = field(default_factory=collections.Counter)

    def count(self, why: str | None, took: float) -> None:
        """One sale, or why it was none."""
        self.slowest_s = max(self.slowest_s, took)
        if why is None:
            self.sold += 1
        else:
            self.refused[why] += 1


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
            return Refuse(message=NOT_THIS)
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


def _now_and_then() -> Callable[[ChannelRequest], ChannelTerms | Refuse]:
    seen = itertools.count()

    def channel(_: ChannelRequest) -> ChannelTerms | Refuse:
        if next(seen) % OPENS_EVERY:
            return Refuse(message=NOT_THIS)
        return ChannelTerms()

    return channel


async def _buy(peer: Peer) -> tuple[str | None, float]:
    """A menu, then a purchase: why it was not sold, and the time it took; there is an answer."""
    began = time.monotonic()
    why: str | None = NOTHING
    answer = await ask_once(peer, GET_INFO, {}, ANSWER_S)
    if answer.result is None:
        why = answer.message
    elif offers := answer.result["opening_fee_params_menu"]:
        answer = await ask_once(peer, BUY, buy_params(offers[0], int(SIZE)), ANSWER_S)
        assert answer.code in (None, 1), answer
        why = answer.message if answer.code else None
    return why, time.monotonic() - began


async def _shop(box: Sandbox, name: str, policy: PolicyConfig, coins: Msat = COINS) -> Node:
    """An LSP without limits that would be met here, and its payer."""
    many = 1_000_000
    limits = Limits(
        max_orders=many,
        max_orders_per_client=many,
        max_exposure=sat(10**12),
        max_exposure_per_client=sat(10**12),
        max_unconfirmed=sat(10**12),
        max_unconfirmed_per_client=sat(10**12),
        extra_capacity_ppm=0,
        extra_capacity_sat=0,
    )
    lending = Lending(overcommit_ppm=100_000_000, strangers_ppm=1_000_000)
    service = LspConfig(menu=MENU, limits=limits, lending=lending, policy=policy)
    doors = PeerLimits(max_connects_per_second=1_000)
    lsp = await box.lsp(name, funds=coins, lsp=service, peer_limits=doors)
    # Its channel lets the LSP receive.
    payer = await box.node(f"{name}-payer", funds=sat(20_000_000))
    await box.open(payer, lsp, PAYER_SAT)
    return lsp


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
    lsp = await _shop(box, name, policy)
    hooks.lsp = lsp
    report = Report(misbehaved=hooks.misbehaved)
    target = Target.parse((await lsp.status()).address)
    left = iter(range(sales))

    async def client() -> None:
        async with await Peer.connect(target) as peer:
            for _ in left:
                report.count(*await _buy(peer))

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
    assert report.sold + sum(report.refused.values()) == sales, report
    assert report.orders == report.sold == report.sell.answered, report
    for counts in (report.menu, report.sell):
        _check_counts(counts)
    failed = [c.deadline + c.raised + c.nonsense for c in (report.menu, report.sell)]
    expected = {
        NOTHING: failed[0],
        NO_ANSWER: failed[1],
        NOT_THIS: report.menu.refused + report.sell.refused,
    }
    assert report.refused == {why: count for why, count in expected.items() if count}, report


def _check_counts(counts: HookCounts) -> None:
    outcomes = counts.model_dump()
    asked, late = outcomes.pop("asked"), outcomes.pop("late")
    assert sum(outcomes.values()) == asked, counts
    assert late <= counts.deadline, counts


# Hooks that end their node or program now and then, or double it, beside what else they do; in a
# program of their own, which says each time what it does.
ENDING = """
import random, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork beside threads
kind, seed = (await told()).split(",")
say("asks")
config = NodeConfig.model_validate_json(await told())
draw = random.Random(seed)
loop = asyncio.get_running_loop()
over = asyncio.Event()

async def end():
    await here.stop()
    over.set()

def way():
    # Two questions to a sale.
    n = draw.randrange(2 * RARELY)
    chosen = WAYS[n] if n < len(WAYS) else ""
    if chosen:
        say(chosen)
    return chosen

def common(chosen, good):
    if chosen == "raise":
        raise LookupError("now and then")
    if chosen == "sys.exit":
        sys.exit(3)
    if chosen == "exit":
        os._exit(7)
    if chosen == "fork":
        child = os.fork()
        if child:
            os.waitpid(child, 0)
    if chosen == "block":
        time.sleep(BLOCK_S)
    if chosen == "refuse":
        return Refuse(message=NOT_THIS)
    return {"a": 1} if chosen == "nonsense" else good

def function(ask, good):
    chosen = way()
    if chosen == "hang":
        time.sleep(HANG_S)
    if chosen in ("call", "stop"):
        wanted = here.status() if chosen == "call" else end()
        asyncio.run_coroutine_threadsafe(wanted, loop).result(10)
    return common(chosen, good)

async def coroutine(ask, good):
    chosen = way()
    if chosen == "hang":
        await asyncio.sleep(HANG_S)
    if chosen == "call":
        await here.status()
    if chosen == "stop":
        await end()
    return common(chosen, good)

class Functions(Policy):
    def menu(self, ask):
        return function(ask, list(ask.menu))
    def sell(self, ask):
        return function(ask, Accept())

class Coroutines(Policy):
    async def menu(self, ask):
        return await coroutine(ask, list(ask.menu))
    async def sell(self, ask):
        return await coroutine(ask, Accept())

here = Node(config, policy=Functions() if kind == "def" else Coroutines())
await here.start()
async def can_receive():
    return any([each.usable for each in await here.channels()])
with contextlib.suppress(NodeStoppedError):  # a hook was quicker
    await until(can_receive, "the payer's channel")
say("up")
await over.wait()
"""


ENDING_WAYS = (*WAYS, "sys.exit", "fork", "stop", "exit")
ENDS = {"stop": 0, "exit": 7}


async def run_ending(
    box: Sandbox, name: str, sales: int, kind: str, folder: Path, rarely: int = RARELY
) -> Report:
    """Sell so often by an LSP whose hooks end it too; a client that is hung up on asks again.

    Raises:
        TimeoutError: A request was left without an answer, or the LSP does not start again.
    """
    policy = PolicyConfig(menu_ms=1_000, sell_ms=1_000, breaker_after=1_000_000)
    lsp = await _shop(box, name, policy)
    target = Target.parse((await lsp.status()).address)
    await lsp.stop()
    report, up, lives = Report(), asyncio.Event(), itertools.count()
    constants = (
        f"RARELY, WAYS, HANG_S, BLOCK_S = {rarely}, {ENDING_WAYS}, 1.5, {BLOCK_S}\n"
        f"NOT_THIS = {NOT_THIS!r}\n"
    )

    async def live(running: Program) -> None:
        running.tell(f"{kind},{next(lives)}")
        await running.says("asks")
        running.tell(lsp.config.model_dump_json())
        process = running.process
        assert process.stdout is not None
        assert process.stderr is not None
        complaints = asyncio.create_task(process.stderr.read())
        async for line in process.stdout:
            said = line.decode().strip()
            if said == "up":
                up.set()
            else:
                report.misbehaved[said] += 1
        up.clear()
        report.ends[await process.wait()] += 1
        assert process.returncode in ENDS.values(), (await complaints).decode()

    async def live_on() -> None:
        while True:
            async with program(box, folder, constants + ENDING) as running:
                await live(running)

    left = iter(range(sales))

    async def answered(peer: Peer | None) -> Peer:
        while True:
            if peer is None:
                await asyncio.wait_for(up.wait(), 60)
                try:
                    peer = await Peer.connect(target)
                except (PeerGoneError, EOFError, OSError, asyncio.TimeoutError):
                    continue
            try:
                why, took = await _buy(peer)
            except (PeerGoneError, EOFError, ConnectionError):
                await peer.close()
                peer = None
                report.gone += 1
                continue
            if why == NOTHING and not up.is_set():
                continue  # its channel is not there again
            report.count(why, took)
            return peer

    async def client() -> None:
        peer: Peer | None = None
        for _ in left:
            peer = await answered(peer)
        if peer is not None:
            await peer.close()

    began = time.monotonic()
    living = asyncio.create_task(live_on())
    clients = asyncio.gather(*(client() for _ in range(min(CLIENTS, sales))))
    try:
        await asyncio.wait([living, clients], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            await living  # says why
        await clients
    finally:
        clients.cancel()
        living.cancel()  # which kills the program
        await asyncio.gather(living, clients, return_exceptions=True)
    report.seconds = time.monotonic() - began
    await lsp.start()
    report.orders = len(await lsp.orders())
    assert (await lsp.ledger_check()).ok
    await lsp.stop()
    return report


def check_ending(report: Report, sales: int) -> None:
    """Each sale has its answer, and what the LSP ended in the middle of is whole or is not."""
    assert report.sold + sum(report.refused.values()) == sales, report
    assert set(report.refused) <= {NOT_THIS, NO_ANSWER, NOTHING}, report
    # A sale whose answer went down with the program is in the books, or it was not made.
    assert report.sold <= report.orders <= report.sold + report.gone, report
    # Two hooks may end the same program.
    for way, code in ENDS.items():
        assert report.ends[code] <= report.misbehaved[way], report


# Through the hook for channels: what it agrees to is opened.


async def run_opens(box: Sandbox, name: str, payments: int, kind: str) -> Report:
    """Have so many payments ask for a channel each, and stop the LSP.

    ``sold`` counts channels, ``refused`` payments that went back.
    """
    hooks = Hooks(WAYS)
    make = hooks.function if kind == "def" else hooks.coroutine
    policy = PolicyConfig(
        channel=make(_now_and_then()), channel_ms=DEADLINE_MS, breaker_after=1_000_000
    )
    lsp = await _shop(box, name, policy, coins=sat(1_000_000))
    hooks.lsp = lsp
    await _coins(box, lsp, payments // OPENS_EVERY + 2 * CLIENTS)
    payer = box.nodes[f"{name}-payer"]
    wallets = [
        await box.wallet(lsp, f"{name}-{n}", store="memory") for n in range(min(CLIENTS, payments))
    ]
    report = Report(misbehaved=hooks.misbehaved)
    left = iter(range(payments))

    async def one(wallet: Node) -> None:
        for _ in left:
            invoice = await wallet.receive(OPEN_SIZE, jit="always")
            began = time.monotonic()
            try:
                await payer.pay(invoice.bolt11, retry=0)
            except PaymentError as error:
                why = error.details.get("failure") or error.code
                report.count(str(why), time.monotonic() - began)
                continue
            await invoice.settled(timeout=30)
            report.count(None, time.monotonic() - began)
            # LDK takes four unconfirmed channels of one peer.
            await box.mine(1)

    began = time.monotonic()
    await asyncio.gather(*map(one, wallets))
    report.seconds = time.monotonic() - began
    hooks.over.set()
    status = await lsp.status()
    report.sell = status.policy["channel"]

    async def free() -> bool:
        return (await lsp.balances()).onchain.locked_sat == 0

    await until(free, "coins locked for what was not opened")
    assert (await lsp.ledger_check()).ok
    for node in (*wallets, lsp):
        await node.stop()
    for n in range(len(wallets)):
        del box.nodes[f"{name}-{n}"]
    return report


async def _coins(box: Sandbox, lsp: Node, count: int) -> None:
    addresses = [await lsp.new_address() for _ in range(count)]
    before = (await lsp.balances()).onchain.confirmed_sat
    await box.chain.rpc.call("sendmany", "", dict.fromkeys(addresses, "0.00200000"))
    await box.mine(6)

    async def there() -> bool:
        return (await lsp.balances()).onchain.confirmed_sat == before + count * 200_000

    await until(there, "coins for channels", 60)


def check_opens(report: Report, payments: int) -> None:
    """As many channels as the hook agreed to, and each payment without one went back."""
    assert report.sold + sum(report.refused.values()) == payments, report
    counts = report.sell
    _check_counts(counts)
    assert (counts.asked, counts.answered) == (payments, report.sold), report
    assert counts.answered < counts.refused, report


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


MODES = ("hostile", "healthy", "busy", "ending", "channels")


async def _main(sales: int, modes: tuple[str, ...]) -> None:
    def told(what: str, report: Report) -> None:
        rate = report.sold / report.seconds
        print(f"{what}: {report.sold:,} sold, {rate:,.0f}/s, {report}", flush=True)

    async def one(box: Sandbox, kind: str, mode: str) -> None:
        name = f"{kind.replace(' ', '-')}-{mode}"
        if mode == "ending":
            with tempfile.TemporaryDirectory() as folder:
                report = await run_ending(box, name, sales, kind, Path(folder))
            check_ending(report, sales)
        elif mode == "channels":
            report = await run_opens(box, name, sales, kind)
            check_opens(report, sales)
        else:
            with busy() if mode == "busy" else contextlib.nullcontext():
                ways = WAYS if mode == "hostile" else ()
                report = await run(box, name, sales, kind, ways=ways)
            check(report, sales)
        told(f"{kind}, {mode}", report)

    async with Sandbox() as box:
        # LDK draws scids from a month of blocks: a young regtest has 2,500 of them in all.
        for _ in range(MONTH // 200):
            await box.chain.mine(200)
        for kind in ("def", "async def"):
            for mode in modes:
                await one(box, kind, mode)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), tuple(sys.argv[2:]) or MODES))
