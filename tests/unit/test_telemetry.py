"""Metrics as OpenTelemetry reads them, and when it reads nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fake import FakeNative
from ldkjit import Node, NodeStoppedError
from ldkjit.telemetry import observe
from test_node import CONFIG, STATUS

METRICS: list[dict[str, Any]] = [
    {
        "name": "a_total",
        "kind": "counter",
        "help": "h",
        "samples": [{"labels": {"why": "x"}, "value": 3}, {"labels": {"why": "y"}, "value": 4}],
    },
    {
        "name": "b_seconds",
        "kind": "histogram",
        "help": "h",
        "samples": [{"labels": {}, "value": 5, "sum": 2.5, "buckets": [[0.001, 2], [1.0, 4]]}],
    },
    {"name": "c", "kind": "gauge", "help": "h", "samples": [{"labels": {}, "value": 7}]},
]
ALL = {
    ("a_total", "x", None): 3,
    ("a_total", "y", None): 4,
    ("b_seconds_count", None, None): 5,
    ("b_seconds_sum", None, None): 2.5,
    ("b_seconds_bucket", None, "0.001"): 2,
    ("b_seconds_bucket", None, "1.0"): 4,
    ("b_seconds_bucket", None, "+Inf"): 5,
    ("c", None, None): 7,
}


class Observed:
    """A node, and a meter that observes it."""

    def __init__(self) -> None:
        self.asked = 0
        answers = {"start": STATUS, "stop": {}}

        def answer(method: str, params: dict[str, Any]) -> Any:
            if method == "metrics":
                self.asked += 1
                return METRICS
            return answers[method]

        self.node = Node(CONFIG, _make_native=lambda: FakeNative(answer))
        self.reader = InMemoryMetricReader()
        self.meter = MeterProvider([self.reader], shutdown_on_exit=False).get_meter("t")

    def read(self) -> dict[tuple[str, Any, Any], Any]:
        data = self.reader.get_metrics_data()
        values: dict[tuple[str, Any, Any], Any] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        labels = dict(point.attributes or {})
                        key = (metric.name, labels.get("why"), labels.get("le"))
                        values[key] = getattr(point, "value", None)
        return values


async def test_all_is_observed_from_one_answer() -> None:
    seen = Observed()
    with pytest.raises(NodeStoppedError):
        await observe(seen.node, seen.meter)
    async with seen.node:
        await observe(seen.node, seen.meter)
        assert await asyncio.to_thread(seen.read) == ALL
        assert seen.asked == 2


async def test_nothing_is_observed_of_a_node_that_is_stopped() -> None:
    seen = Observed()
    async with seen.node:
        await observe(seen.node, seen.meter)
    assert await asyncio.to_thread(seen.read) == {}


async def test_a_loop_does_not_wait_for_itself() -> None:
    seen = Observed()
    async with seen.node:
        await observe(seen.node, seen.meter)
        assert seen.read() == {}
        assert await asyncio.to_thread(seen.read) == ALL


async def test_a_loop_that_is_blocked_is_given_up() -> None:
    seen = Observed()
    async with seen.node:
        await observe(seen.node, seen.meter, timeout=0.05)
        told: list[Any] = []
        thread = threading.Thread(target=lambda: told.append(seen.read()))
        thread.start()
        thread.join(10)  # the loop does nothing meanwhile
        assert told == [{}]
    assert seen.asked == 1


def test_a_meter_keeps_no_node_and_outlives_its_loop() -> None:
    seen = Observed()
    meter, read = seen.meter, seen.read

    async def main() -> None:
        async with seen.node:
            await observe(seen.node, meter)

    asyncio.run(main())
    thread_read: list[Any] = []

    def other() -> None:
        thread_read.append(read())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert thread_read == [{}]
    kept = weakref.ref(seen.node)
    del seen.node
    gc.collect()
    assert kept() is None
