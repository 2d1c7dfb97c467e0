"""Node: parameters reach the native module, answers become typed values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from fake import FakeNative
from ldkjit import (
    Bitcoind,
    Msat,
    Node,
    NodeConfig,
    NodeStoppedError,
    PaymentError,
    PaymentReceived,
    TimeoutError_,
    UnknownEvent,
    sat,
)
from ldkjit.models import Order

CONFIG = NodeConfig(
    network="regtest",
    data_dir=Path("x"),
    chain=Bitcoind("http://127.0.0.1:1", user="u", password="p"),
)
STATUS = {
    "node_id": "02ab",
    "network": "regtest",
    "height": 7,
    "block_hash": "00",
    "listening": ["127.0.0.1:9"],
    "alias": "a",
    "started_at_ms": 1_000,
}
PAYMENT = {
    "id": "aa",
    "payment_hash": "aa",
    "direction": "out",
    "kind": "bolt11",
    "status": "succeeded",
    "amount_msat": 5,
    "fee_msat": 1,
    "opening_fee_msat": None,
    "preimage": "bb",
    "failure": None,
    "created_at_ms": 1_500,
    "finished_at_ms": 2_000,
    "description": None,
}
INVOICE = {
    "bolt11": "lnbcrt1",
    "payment_hash": "aa",
    "amount_msat": 5_000,
    "description": "coffee",
    "expires_at_ms": 3_000,
    "path": "jit",
    "opening_fee_msat": 2_000,
    "lsp": "02ab",
    "jit_scid": "1x2x3",
    "trust": "lsp_trusts_client",
}

Answer = Callable[[str, dict[str, Any]], Any]


def _node(**answers: Any) -> tuple[Node, FakeNative]:
    def answer(method: str, params: dict[str, Any]) -> Any:
        told = {"start": STATUS, "status": STATUS, "stop": {}, **answers}[method]
        return told(params) if callable(told) else told

    native = FakeNative(answer)
    return Node(CONFIG, _make_native=lambda: native), native


async def test_start_and_stop() -> None:
    node, native = _node()
    with pytest.raises(NodeStoppedError):
        await node.status()
    async with node:
        status = await node.status()
        assert status.address == "02ab@127.0.0.1:9"
        assert status.started_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    assert native.calls[0] == ("start", CONFIG.model_dump(mode="json"))
    assert native.calls[-1] == ("stop", {})
    assert native.closed == 1
    await node.stop()
    with pytest.raises(NodeStoppedError):
        await node.status()


async def test_a_failed_start_leaves_nothing_behind() -> None:
    told = {"code": "chain", "message": "m", "retryable": True, "details": {}}
    node, native = _node(start=Exception(told))
    with pytest.raises(Exception, match="m"):
        await node.start()
    assert native.closed == 1


async def test_receive_and_settle() -> None:
    node, native = _node(
        receive=INVOICE, wait_payment={**PAYMENT, "direction": "in", "opening_fee_msat": 2_000}
    )
    async with node:
        invoice = await node.receive(sat(5), description="coffee", max_opening_fee=sat(3))
        assert (invoice.path, invoice.opening_fee) == ("jit", sat(2))
        payment = await invoice.settled(timeout=0.5)
        assert payment.opening_fee == sat(2)
    assert native.calls[1] == (
        "receive",
        {
            "amount_msat": 5_000,
            "description": "coffee",
            "expiry_s": 3_600,
            "max_opening_fee_msat": 3_000,
            "jit": "auto",
            "lsp": None,
            "timeout_ms": 30_000,
        },
    )
    assert native.calls[2] == ("wait_payment", {"id": "aa", "timeout_ms": 500})


async def test_an_outcome_has_three_values() -> None:
    for status, raised in (("failed", PaymentError), ("pending", TimeoutError_)):
        node, _ = _node(pay=PAYMENT, wait_payment={**PAYMENT, "status": status, "failure": "f"})
        async with node:
            with pytest.raises(raised):
                await node.pay("lnbcrt1")
    node, _ = _node(pay={**PAYMENT, "status": "pending"}, wait_payment=PAYMENT)
    async with node:
        payment = await node.pay("lnbcrt1")
        assert (payment.amount, payment.fee) == (Msat(5), Msat(1))


async def test_pages_are_followed_to_the_end() -> None:
    pages = {0: [1, 2], 2: [3], 3: []}

    def ledger(params: dict[str, Any]) -> Any:
        rows = pages[params["after"]]
        items = [{"seq": n, "at_ms": n, "entry": {"kind": "fee_earned"}} for n in rows]
        return {"items": items, "next": rows[-1] if rows else params["after"]}

    node, _ = _node(ledger=ledger)
    async with node:
        rows = [row async for row in node.ledger()]
    assert [(row.seq, row.kind) for row in rows] == [
        (1, "fee_earned"),
        (2, "fee_earned"),
        (3, "fee_earned"),
    ]


async def test_asking_for_the_next_event_acknowledges_the_last() -> None:
    told = iter(
        [
            {"type": "payment_received", "at_ms": 1, "payment_hash": "aa", "amount_msat": 5},
            {"type": "of_the_future", "at_ms": 2, "x": 1},
        ]
    )
    seq = iter([4, 9])
    node, native = _node(next_event=lambda _: {"seq": next(seq), "event": next(told)}, ack_event={})
    async with node:
        events = node.events("books")
        match await events.__anext__():
            case PaymentReceived(amount=amount):
                assert amount == Msat(5)
            case other:
                pytest.fail(f"{other}")
        assert native.calls[-1] == ("next_event", {"consumer": "books"})
        second = await events.__anext__()
        assert isinstance(second, UnknownEvent)
        assert second.type == "of_the_future"
        assert ("ack_event", {"consumer": "books", "seq": 4}) in native.calls
        await events.aclose()
    assert ("ack_event", {"consumer": "books", "seq": 9}) not in native.calls


async def test_a_waiting_event_consumer_can_be_cancelled() -> None:
    node, native = _node(next_event=lambda _: ...)
    async with node:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(node.events().__anext__(), 0.01)
    assert native.cancelled


async def test_webhooks_are_asked_for_and_typed() -> None:
    registered = {"num_webhooks": 1, "max_webhooks": 4, "no_change": False, "future": 1}
    node, native = _node(
        set_webhook=registered,
        list_webhooks={"app_names": ["a"], "max_webhooks": 4},
        remove_webhook={},
        notify_client={"told": True},
    )
    async with node:
        told = await node.set_webhook("02ab", "a", "https://a.b/", timeout=2)
        assert (told.num_webhooks, told.max_webhooks, told.no_change) == (1, 4, False)
        assert (await node.list_webhooks("02ab")).app_names == ("a",)
        await node.remove_webhook("02ab", "a")
        assert await node.notify_client("03cd", "liquidity_management_request") is True
    webhook = {"lsp": "02ab", "app_name": "a", "webhook": "https://a.b/", "timeout_ms": 2_000}
    assert native.calls[1:5] == [
        ("set_webhook", webhook),
        ("list_webhooks", {"lsp": "02ab", "timeout_ms": 30_000}),
        ("remove_webhook", {"lsp": "02ab", "app_name": "a", "timeout_ms": 30_000}),
        ("notify_client", {"node_id": "03cd", "notice": "liquidity_management_request"}),
    ]


def test_a_native_order_is_flattened() -> None:
    order = Order.model_validate(
        {
            "terms": {"scid": "1x2x3", "client": "02", "size": None, "trust": "client_trusts_lsp"},
            "state": {"failed": "no_coins"},
            "fee": 5,
            "earned": 0,
        }
    )
    assert (order.scid, order.state, order.reason, order.fee) == (
        "1x2x3",
        "failed",
        "no_coins",
        Msat(5),
    )
