"""What a call from Python costs: alone, many at once, and with large answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ldkjit import Channel, Node, sat
from ldkjit.sandbox import Sandbox

AT_ONCE = 64
CHANNELS = 1_000


class Stage(NamedTuple):
    """A node, one with whom it has a channel, and the loop that both belong to."""

    loop: asyncio.AbstractEventLoop
    node: Node
    payee: Node


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Two nodes on a regtest for all benchmarks of this file."""
    loop = asyncio.new_event_loop()
    box = Sandbox()
    loop.run_until_complete(box.__aenter__())
    try:
        payee = loop.run_until_complete(box.node("payee", accept_channels=True))
        opened = box.node("node", funds=sat(50_000_000), channels=[(payee, 10_000_000)])
        yield Stage(loop, loop.run_until_complete(opened), payee)
    finally:
        loop.run_until_complete(box.__aexit__(None, None, None))
        loop.close()


def runs(stage: Stage, what: Callable[[], Awaitable[Any]]) -> Callable[[], Any]:
    """A plain function of a coroutine."""
    return lambda: stage.loop.run_until_complete(what())


def test_call(stage: Stage, benchmark: BenchmarkFixture) -> None:
    benchmark(runs(stage, stage.node.status))


def test_calls_at_once(stage: Stage, benchmark: BenchmarkFixture) -> None:
    async def many() -> None:
        await asyncio.gather(*(stage.node.status() for _ in range(AT_ONCE)))

    benchmark(runs(stage, many))


def test_invoice(stage: Stage, benchmark: BenchmarkFixture) -> None:
    benchmark(runs(stage, lambda: stage.payee.receive(sat(1), jit="never")))


def test_pay_to_claimed(stage: Stage, benchmark: BenchmarkFixture) -> None:
    def invoice() -> tuple[tuple[str], dict[str, Any]]:
        made = stage.loop.run_until_complete(stage.payee.receive(sat(1), jit="never"))
        return (made.bolt11,), {}

    def pay(bolt11: str) -> None:
        stage.loop.run_until_complete(stage.node.pay(bolt11))

    benchmark.pedantic(pay, setup=invoice, rounds=50)


def test_model_of_a_thousand_channels(stage: Stage, benchmark: BenchmarkFixture) -> None:
    (channel,) = stage.loop.run_until_complete(stage.node.channels())
    told = channel.model_dump(mode="json", by_alias=True)
    benchmark(lambda: [Channel.model_validate(told) for _ in range(CHANNELS)])
