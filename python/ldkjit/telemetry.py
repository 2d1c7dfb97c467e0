"""What a node counts, as instruments of OpenTelemetry: ``pip install 'ldkjit[opentelemetry]'``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from .errors import NodeStoppedError
from .metrics import Metric, Sample

if TYPE_CHECKING:
    from .node import Node

# All instruments of one export are read from one answer of the node.
_FRESH_S = 0.5

_Observed = Callable[[Sample], list[Observation]]


async def observe(node: Node, meter: Meter, *, timeout: float = 2.0) -> None:
    """Have a meter observe what ``Node.metrics`` counts, each time it is read.

    Names and labels are those of ``Node.metrics``. OpenTelemetry observes no histograms: each
    becomes three counters as Prometheus has them, ``_count``, ``_sum`` and ``_bucket``, whose
    attribute ``le`` is the most that is in the bucket. A node that starts again counts from 0.

    Nothing is observed of a node that is stopped or forgotten, of one whose event loop takes
    longer than the timeout, and when that loop's own thread reads the meter.

    Args:
        node: A node that runs in this event loop.
        meter: Where the instruments are made. They live as long as it does: once for each node.
        timeout: How long a reader waits for the event loop, seconds.

    Raises:
        NodeStoppedError: The node is not started.
    """
    reading = _Reading(node, asyncio.get_running_loop(), timeout)
    for metric in await node.metrics():
        name, about = metric.name, metric.help
        if metric.kind == "gauge":
            meter.create_observable_gauge(name, [reading.of(name, _value)], description=about)
        elif metric.kind == "counter":
            meter.create_observable_counter(name, [reading.of(name, _value)], description=about)
        else:
            for suffix, part in (("count", _value), ("sum", _sum), ("bucket", _buckets)):
                told = reading.of(name, part)
                meter.create_observable_counter(f"{name}_{suffix}", [told], description=about)


def _value(sample: Sample) -> list[Observation]:
    return [Observation(sample.value, sample.labels)]


def _sum(sample: Sample) -> list[Observation]:
    return [Observation(sample.sum or 0, sample.labels)]


def _buckets(sample: Sample) -> list[Observation]:
    buckets = [*(sample.buckets or ()), ("+Inf", int(sample.value))]
    return [Observation(n, {**sample.labels, "le": str(most)}) for most, n in buckets]


class _Reading:
    """One node's metrics, asked for from a thread of whoever reads the meter."""

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        # The meter keeps its instruments for ever, but not the node.
        self._node = weakref.ref(node)
        self._loop = loop
        self._thread = threading.get_ident()
        self._timeout = timeout
        self._turn = threading.Lock()
        self._at = float("-inf")
        self._metrics: dict[str, Metric] = {}

    def of(
        self, name: str, observed: _Observed
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """The callback of an instrument."""

        def callback(options: CallbackOptions) -> Iterable[Observation]:
            metric = self._now().get(name)
            return [one for each in (metric.samples if metric else ()) for one in observed(each)]

        return callback

    def _now(self) -> dict[str, Metric]:
        if threading.get_ident() == self._thread:
            return {}  # it would wait for itself
        with self._turn:
            if time.monotonic() - self._at > _FRESH_S:
                self._metrics = {each.name: each for each in self._ask()}
                self._at = time.monotonic()
            return self._metrics

    def _ask(self) -> list[Metric]:
        node = self._node()
        if node is None:
            return []
        asked = node.metrics()
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop is closed
            asked.close()
            return []
        try:
            return answer.result(self._timeout)
        except (NodeStoppedError, concurrent.futures.TimeoutError):
            answer.cancel()
            return []
