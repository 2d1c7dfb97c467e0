"""Programs that block, with real nodes: a JIT payment, events, hooks, Ctrl-C and exits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import program
from support import address_of, earned, fee_of, online, pay_both, usable

from ldkjit import (
    Accept,
    Bitcoind,
    FeeTier,
    Lsp,
    LspUnreachableError,
    MenuRequest,
    Msat,
    Node,
    NodeConfig,
    NodeStoppedError,
    OrderRequest,
    Payment,
    PaymentReceived,
    Policy,
    StoreLockedError,
    TimeoutError_,
    sat,
    sync,
)
from ldkjit.sandbox import Sandbox

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
]

AMOUNT = sat(100_000)


def config_of(box: Sandbox, folder: Path, **settings: Any) -> NodeConfig:
    rpc = box.chain.rpc
    chain = Bitcoind(rpc.url, user=rpc.user, password=rpc.password, poll_ms=50)
    return NodeConfig(
        network="regtest",
        data_dir=folder,
        chain=chain,
        fee_fallback_sat_per_kw=500,
        **settings,
    )


async def stocked(box: Sandbox) -> tuple[Node, Node]:
    """An LSP, and a payer with a channel to it, which finds it again."""
    lsp = await box.lsp()
    payer = await box.node(
        "payer",
        funds=sat(5_000_000),
        channels=[(lsp, 1_000_000)],
        peers=[await address_of(lsp)],
    )
    return lsp, payer


def comes(look: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 30
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.02)


async def test_a_jit_payment(box: Sandbox, tmp_path: Path) -> None:
    lsp, payer = await stocked(box)
    config = config_of(box, tmp_path, lsps=[Lsp(await address_of(lsp))])
    await payer.stop()

    def shop() -> tuple[Payment, Payment]:
        with sync.Node(config) as wallet, sync.Node(payer.config) as customer:
            comes(lambda: any(each.connected for each in wallet.peers()), "the LSP")
            comes(lambda: any(each.usable for each in customer.channels()), "the channel")
            before = customer.channels()[0].outbound
            invoice = wallet.receive(AMOUNT, description="blocking", max_opening_fee=sat(2_000))
            assert (invoice.path, invoice.opening_fee) == ("jit", sat(2_000))
            with pytest.raises(TimeoutError_):
                invoice.settled(timeout=0.05)
            with ThreadPoolExecutor(1) as pool:
                paying = pool.submit(customer.pay, invoice.bolt11, timeout=60)
                received = invoice.settled(timeout=60)
                sent = paying.result()
            for event in wallet.events("shop"):
                if isinstance(event, PaymentReceived):
                    assert (event.amount, event.opening_fee) == (sat(98_000), sat(2_000))
                    break
            comes(lambda: before - customer.channels()[0].outbound == AMOUNT, "the last signature")
            comes(lambda: list(wallet.payments()), "the payment in the history")
            assert [each.amount for each in wallet.payments()] == [sat(98_000)]
            assert wallet.invoice(invoice.payment_hash) == invoice
            assert wallet.ledger_check().ok
            with pytest.raises(StoreLockedError):
                sync.Node(config).start()
        return sent, received

    sent, received = await asyncio.to_thread(shop)
    assert (sent.amount, sent.fee) == (AMOUNT, 0)
    assert (received.amount, received.opening_fee) == (sat(98_000), sat(2_000))
    assert await earned(lsp, sent.payment_hash) == fee_of(AMOUNT)
    told = sync.Node(config).history.payments("in")
    assert [each.amount_msat for each in told] == [sat(98_000)]


class Rules(Policy):
    seller: sync.Node

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []

    async def menu(self, ask: MenuRequest) -> list[FeeTier]:
        self.ran.append(("menu", threading.current_thread().name))
        await asyncio.sleep(0)
        return [each.model_copy(update={"min_fee": Msat(each.min_fee * 2)}) for each in ask.menu]

    def sell(self, order: OrderRequest) -> Accept:
        self.ran.append(("sell", threading.current_thread().name))
        assert self.seller.status().height == order.state.height
        assert self.seller.orders() == []
        return Accept()


async def test_hooks_price_and_sell(box: Sandbox) -> None:
    lsp, payer = await stocked(box)
    await lsp.stop()
    rules = Rules()
    seller = rules.seller = sync.Node(lsp.config, policy=rules)
    await asyncio.to_thread(seller.start)
    try:
        await usable(payer)
        at = (await asyncio.to_thread(seller.status)).address
        wallet = await box.node("wallet", lsps=[Lsp(at)])
        await online(wallet)
        invoice = await wallet.receive(AMOUNT)
        assert invoice.opening_fee == sat(4_000)
        sent, received = await pay_both(payer, wallet, invoice.bolt11)
        assert (sent.amount, received.amount) == (AMOUNT, AMOUNT - sat(4_000))
        assert rules.ran == [("menu", "ldkjit-loop"), ("sell", "ldkjit-policy")]
        status = await asyncio.to_thread(seller.status)
        assert status.policy["sell"].answered == 1
    finally:
        await asyncio.to_thread(seller.stop)


class Closes(Policy):
    seller: sync.Node

    def __init__(self) -> None:
        self.closed = threading.Event()

    def sell(self, order: OrderRequest) -> Accept:
        self.seller.stop()
        self.closed.set()
        return Accept()


async def test_a_hook_may_stop_its_node(box: Sandbox) -> None:
    lsp, payer = await stocked(box)
    await lsp.stop()
    rules = Closes()
    seller = rules.seller = sync.Node(lsp.config, policy=rules)
    at = (await asyncio.to_thread(seller.start)).address
    try:
        await usable(payer)
        wallet = await box.node("wallet", lsps=[Lsp(at)])
        await online(wallet)
        with pytest.raises(LspUnreachableError):
            await wallet.receive(AMOUNT)
        assert await asyncio.to_thread(rules.closed.wait, 30)
        with pytest.raises(NodeStoppedError):
            seller.status()
        await asyncio.to_thread(seller.start)
        assert await asyncio.to_thread(seller.orders) == []
    finally:
        await asyncio.to_thread(seller.stop)


WAITS = """
from ldkjit import sync
before = threads()
try:
    with sync.Node(node("a").config) as a:
        say("up")
        WAIT
finally:
    end = time.monotonic() + 20
    while threads() - before:
        assert time.monotonic() < end, f"threads left: {threads() - before}"
        time.sleep(0.02)
    say("clean")
"""


@pytest.mark.parametrize(
    "wait", ["a.wait_height(10**6, timeout=3600)", "for event in a.events(): pass"]
)
async def test_ctrl_c(box: Sandbox, tmp_path: Path, wait: str) -> None:
    async with program(box, tmp_path, "pass", after=WAITS.replace("WAIT", wait)) as running:
        await running.says("up")
        await running.is_interrupted("clean")


WAITING = """waits = threading.Thread(target=a.wait_height, args=(10**6,), daemon=True)
waits.start()
while sys._current_frames()[waits.ident].f_code is not LoopThread.call.__code__:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("leave", "code"), [("pass", 0), ("sys.exit(3)", 3), (WAITING, 0)])
async def test_a_node_that_is_never_stopped_does_not_hold_the_exit(
    box: Sandbox, tmp_path: Path, leave: str, code: int
) -> None:
    after = f"""
import threading
from ldkjit import sync
from ldkjit._loop import LoopThread
a = sync.Node(node("a").config)
say(a.start().node_id)
{leave}
"""
    async with program(box, tmp_path, "pass", after=after) as running:
        node_id = await running.line()
        await running.ends(code)

    def again() -> str:
        with sync.Node(config_of(box, tmp_path / "a")) as node:
            return node.status().node_id

    assert await asyncio.to_thread(again) == node_id


async def test_a_node_that_is_forgotten_goes(box: Sandbox, tmp_path: Path) -> None:
    def forget() -> None:
        first = sync.Node(config_of(box, tmp_path))
        first.start()
        del first
        gc.collect()
        comes(lambda: "ldkjit-loop" not in map(_name, threading.enumerate()), "the thread's end")
        with sync.Node(config_of(box, tmp_path)) as second:  # the store is free
            assert second.status().height > 0

    await asyncio.to_thread(forget)


def _name(thread: threading.Thread) -> str:
    return thread.name
