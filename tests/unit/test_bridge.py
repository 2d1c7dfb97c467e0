"""The bridge: answers find their callers, cancellation reaches the node, nothing outlives it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from fake import FakeNative
from ldkjit import ForkError, InvoiceError, NodeStoppedError, WrongLoopError
from ldkjit._bridge import Bridge


def _never(method: str, params: dict[str, Any]) -> Any:
    return ...


def _echo(method: str, params: dict[str, Any]) -> Any:
    return {"method": method, **params}


async def test_answers_find_their_callers_in_any_order() -> None:
    native = FakeNative(_never)
    bridge = Bridge(lambda: native)
    calls = [asyncio.ensure_future(bridge.call("m", n=n)) for n in range(100)]
    await asyncio.sleep(0)
    for id in range(100, 0, -1):
        native.push(0, id, id)
    assert await asyncio.gather(*calls) == list(range(1, 101))
    bridge.close()


async def test_an_error_becomes_its_class() -> None:
    told = {"code": "invoice", "message": "m", "retryable": False, "details": {"why": "expired"}}
    bridge = Bridge(lambda: FakeNative(lambda method, params: Exception(told)))
    with pytest.raises(InvoiceError) as caught:
        await bridge.call("pay")
    assert caught.value.why == "expired"
    bridge.close()


async def test_cancelling_is_told_to_the_node_and_a_late_answer_is_dropped() -> None:
    native = FakeNative(_never)
    bridge = Bridge(lambda: native)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(bridge.call("m"), 0.01)
    assert native.cancelled == [1]
    native.push(0, 1, "late")
    native.push(1, 1, {"code": "internal", "message": "late"})
    await asyncio.sleep(0.01)
    bridge.close()


async def test_records_go_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    native = FakeNative(_echo)
    bridge = Bridge(lambda: native)
    with caplog.at_level(logging.DEBUG, "ldkjit"):
        for level, target in (
            ("WARN", "ldkjit_node::lsp"),
            ("INFO", "lightning::ln::peer_handler"),
        ):
            native.push(2, 0, {"level": level, "target": target, "message": "100 %s", "at_ms": 1})
        await bridge.call("m")
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ldkjit.node.lsp", "WARNING", "100 %s"),
        ("ldkjit.lightning.ln.peer_handler", "INFO", "100 %s"),
    ]
    bridge.close()


class InBatches(FakeNative):
    """Hands over two items at a time, as the native module does with records."""

    def drain(self) -> list[tuple[int, int, str]]:
        taken, self.queue = self.queue[:2], self.queue[2:]
        return taken


async def test_records_come_in_batches_and_all_of_them_before_the_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ldkjit")
    native = InBatches(_never)
    bridge = Bridge(lambda: native)
    for n in range(7):
        native.push(2, 0, {"level": "INFO", "target": "t", "message": str(n), "at_ms": 1})
    assert bridge.drain()
    assert [record.message for record in caplog.records] == ["0", "1"]
    bridge.close()
    assert [record.message for record in caplog.records] == [str(n) for n in range(7)]


async def test_closing_ends_every_wait_and_is_idempotent() -> None:
    native = FakeNative(_never)
    bridge = Bridge(lambda: native)
    waiting = asyncio.ensure_future(bridge.call("m"))
    await asyncio.sleep(0)
    bridge.close()
    bridge.close()
    with pytest.raises(NodeStoppedError):
        await waiting
    with pytest.raises(NodeStoppedError):
        await bridge.call("m")
    assert native.closed == 1


async def test_forgetting_it_closes_the_node_and_frees_the_descriptor() -> None:
    native = FakeNative(_echo)
    bridge = Bridge(lambda: native)
    descriptor = native.fileno()
    await bridge.call("m")
    del bridge
    gc.collect()
    assert native.closed == 1
    assert not asyncio.get_running_loop().remove_reader(descriptor)


def test_another_loop_is_refused() -> None:
    native = FakeNative(_echo)

    async def make() -> Bridge:
        return Bridge(lambda: native)

    async def use(bridge: Bridge) -> None:
        await bridge.call("m")

    bridge = asyncio.run(make())
    with pytest.raises(WrongLoopError):
        asyncio.run(use(bridge))
    bridge.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_is_refused_and_closes_nothing() -> None:
    native = FakeNative(_echo)
    bridge = Bridge(lambda: native)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bridge.call("m").send(None)
        except ForkError:
            bridge.close()
            code = 0 if native.closed == 0 else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await bridge.call("m") == {"method": "m"}
    bridge.close()


@pytest.mark.parametrize("leave", ["", "raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_the_interpreter_can_exit_at_any_time(leave: str) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from fake import FakeNative
from ldkjit._bridge import Bridge
class Native(FakeNative):
    def close(self):
        super().close()
        print("closed", flush=True)
async def main():
    global bridge
    bridge = Bridge(lambda: Native(lambda method, params: ...))
    global call
    call = asyncio.ensure_future(bridge.call("m"))
    await asyncio.sleep(0)
    {leave}
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "closed\n", done.stderr
