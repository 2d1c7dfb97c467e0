"""What is asked of an LSP: each load sets its scene, and then is measured."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from ldkjit import Invoice, LdkJitError, Node, sat

from . import meter
from .scene import Outcome, Scene, checked, in_turn
from .settings import FORWARD_SAT, PATIENCE_S, RETRY_S

# Of a mixed day.
OPENS_PERCENT = 10
ASLEEP_PERCENT = 2
# A client that is asleep is told of its payment by a push message, which takes so long.
WAKES_AFTER_S = 0.5
# Its payer then tries again so often.
TRIES_AGAIN_AFTER_S = 0.1
# The load goes on for so long before the LSP is killed.
KILLED_AFTER_S = 2.0


async def jit_one_at_a_time(scene: Scene) -> Outcome:
    """From the payer's call to the client's claim, one new client after the other."""
    invoices = await _sold(scene, scene.case.count, at_once=1)
    async with scene.measured() as outcome:
        for invoice in invoices:
            await scene.pay(invoice, outcome)
    return outcome


async def hooks(scene: Scene) -> Outcome:
    """The same, beside an LSP whose hooks are in Python."""
    return await jit_one_at_a_time(scene)


async def jit_at_once(scene: Scene) -> Outcome:
    """New clients are paid, so many at once until all are."""
    invoices = await _sold(scene, scene.case.count, at_once=scene.case.clients)
    async with scene.measured() as outcome:
        pays = [partial(scene.pay, each, outcome) for each in invoices]
        checked(await in_turn(pays, scene.case.clients))
    return outcome


async def _sold(scene: Scene, count: int, *, at_once: int) -> list[Invoice]:
    await scene.open(opens=count, at_once=at_once)
    wallets = await scene.clients(count)
    return [await scene.jit_invoice(wallet) for wallet in wallets]


async def forwards(scene: Scene) -> Outcome:
    """Small payments to clients with channels, so many under way for each."""
    case = scene.case
    await scene.open(opens=case.clients, at_once=case.clients * case.in_flight)
    wallets = await scene.clients_with_channels(case.clients)
    queues = [deque[Invoice]() for _ in wallets]
    for n in range(case.count):
        wallet = wallets[n % case.clients]
        queues[n % case.clients].append(await _forward_invoice(wallet))

    async def work(queue: deque[Invoice], outcome: Outcome) -> None:
        while queue:
            await scene.pay(queue.popleft(), outcome)

    async with scene.measured() as outcome:
        await asyncio.gather(
            *(work(queue, outcome) for queue in queues for _ in range(case.in_flight))
        )
    return outcome


async def _forward_invoice(wallet: Node) -> Invoice:
    return await wallet.receive(sat(FORWARD_SAT), jit="never")


async def buy(scene: Scene) -> Outcome:
    """``get_info`` and ``buy``, each client one after the other."""
    case = scene.case
    # With a channel to the LSP: one that could receive nothing has nothing to sell.
    await scene.open(opens=case.count, at_once=1)
    wallets = await scene.clients(case.clients)

    async def shop(wallet: Node, outcome: Outcome) -> None:
        for _ in range(case.count // case.clients):
            began = time.perf_counter()
            try:
                await scene.jit_invoice(wallet)
                outcome.done(began)
            except LdkJitError as error:
                outcome.failures[error.code] += 1

    async with scene.measured() as outcome:
        await asyncio.gather(*(shop(wallet, outcome) for wallet in wallets))
    return outcome


async def start(scene: Scene) -> Outcome:
    """From the start of the process to its word that it is in step with the chain."""
    outcome = Outcome()
    # Not counted: since its set of channels was built, other rounds have mined blocks, and not as
    # many for the one as for the other.
    await scene.seller.start()
    await scene.seller.stop()
    for _ in range(scene.case.count):
        began = time.perf_counter()
        await scene.seller.start()
        took = time.perf_counter() - began
        reading = meter.read(scene.seller.pid)
        outcome.latencies_ms.append(took * 1_000)
        outcome.wall_s += took
        outcome.cpu_s += reading.cpu_s
        outcome.rss_kb = reading.rss_kb
        await scene.seller.stop()
    return outcome


async def mixed(scene: Scene) -> Outcome:
    """Payments of a day: one in ten opens a channel, a few are for clients that are asleep."""
    case = scene.case
    opens = case.count * OPENS_PERCENT // 100
    asleep = max(1, case.clients * ASLEEP_PERCENT // 100)
    at_once = case.clients * case.in_flight
    await scene.open(opens=opens + case.clients + asleep, at_once=at_once)
    wallets = await scene.clients_with_channels(case.clients)
    # They must remember their channels.
    sleepers = await scene.clients_with_channels(asleep, name="sleeper", store="sqlite")
    new = [await scene.jit_invoice(each) for each in await scene.clients(opens, "new")]
    to_wake = [(each, await _forward_invoice(each)) for each in sleepers]
    for sleeper in sleepers:
        await sleeper.stop()
    rest = case.count - opens - asleep
    there = [await _forward_invoice(wallets[n % case.clients]) for n in range(rest)]
    kinds = {name: Outcome() for name in ("open", "forward", "asleep")}

    jobs: list[Callable[[], Awaitable[None]]] = []
    every = case.count // max(1, opens)
    opening, waking, forwarding = iter(new), iter(to_wake), iter(there)
    for n in range(case.count):
        # Spread evenly, so that each round has the same day.
        invoice = next(opening, None) if n % every == every // 2 else None
        if invoice is not None:
            jobs.append(partial(scene.pay, invoice, kinds["open"]))
            continue
        pair = next(waking, None) if n >= case.count // 3 else None
        if pair is not None:
            jobs.append(partial(_pay_sleeper, scene, *pair, kinds["asleep"]))
            continue
        invoice = next(forwarding, None) or next(opening)
        kind = "forward" if invoice.path == "channel" else "open"
        jobs.append(partial(scene.pay, invoice, kinds[kind]))

    async with scene.measured() as outcome:
        checked(await in_turn(jobs, at_once))
        for name, each in kinds.items():
            outcome.add(each)
            told = {"latencies_ms": each.latencies_ms, "failures": dict(each.failures)}
            outcome.more[name] = told
    return outcome


async def _pay_sleeper(scene: Scene, sleeper: Node, invoice: Invoice, outcome: Outcome) -> None:
    """What the LSP cannot pass on to a client that is away fails; the payer tries again."""

    async def wake() -> None:
        await asyncio.sleep(WAKES_AFTER_S)
        await sleeper.start()

    began = time.perf_counter()
    waking = asyncio.create_task(wake())
    pay = partial(scene.payer.pay, invoice.bolt11, retry=RETRY_S, timeout=PATIENCE_S)
    try:
        while True:
            try:
                await pay()
                outcome.done(began)
                return
            except LdkJitError as error:
                if time.perf_counter() - began > PATIENCE_S:
                    outcome.failed(error)
                    return
            await asyncio.sleep(TRIES_AGAIN_AFTER_S)
    finally:
        await waking


async def kill(scene: Scene) -> Outcome:
    """The LSP is killed (-9) under load; what is lost: channels, and payments without an end."""
    case = scene.case
    await scene.open(opens=case.clients, at_once=case.clients * case.in_flight)
    wallets = await scene.clients_with_channels(case.clients)
    before = await scene.seller.channels()
    outcome = Outcome()
    over = False

    async def work(wallet: Node) -> None:
        while not over:
            await scene.pay(await _forward_invoice(wallet), outcome)

    workers = [
        asyncio.create_task(work(wallet))
        for wallet, _ in itertools.product(wallets, range(case.in_flight))
    ]
    await asyncio.sleep(KILLED_AFTER_S)  # load, not an event that could be awaited
    over = True
    began = time.perf_counter()
    await scene.seller.kill()
    await scene.seller.start()
    outcome.wall_s = time.perf_counter() - began
    await asyncio.gather(*workers)
    after = await scene.seller.channels()
    pending = await scene.payer.pending_payments()
    outcome.more = {
        "channels": len(before),
        "force_closed": len(before.keys() - after.keys()),
        "payments_without_end": len(pending),
        "restart_s": outcome.wall_s,
    }
    return outcome


LOADS: dict[str, Callable[[Scene], Awaitable[Outcome]]] = {
    load.__name__: load
    for load in (jit_one_at_a_time, hooks, jit_at_once, forwards, buy, start, mixed, kill)
}
