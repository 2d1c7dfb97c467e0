"""The blocking node: the methods of the other one, from any thread, and an end to every wait."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import typing
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import facade
import pytest

import ldkjit
from fake import FakeNative
from ldkjit import (
    Accept,
    AmountError,
    ChainError,
    ConfigError,
    ForkError,
    LspConfig,
    NodeConfig,
    NodeStoppedError,
    OrderRequest,
    PaymentError,
    Policy,
    TimeoutError_,
    WrongLoopError,
    _loop,
    sat,
    sync,
)
from questions import MENU, ORDER, TIER
from test_node import CONFIG, INVOICE, PAYMENT, STATUS

# At once, on a busy machine.
SOON_S = 5.0


def _node(
    config: NodeConfig = CONFIG, policy: object | None = None, **answers: Any
) -> tuple[sync.Node, list[FakeNative]]:
    """A node, and the native modules of its starts; ``...`` never answers."""
    natives: list[FakeNative] = []

    def answer(method: str, params: dict[str, Any]) -> Any:
        told = {"start": STATUS, "status": STATUS, "stop": {}, **answers}[method]
        return told(params) if callable(told) else told

    def make() -> FakeNative:
        natives.append(FakeNative(answer))
        return natives[-1]

    return sync.Node(config, policy=policy, _make_native=make), natives


def _comes(look: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def _loops() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "ldkjit-loop"]


def _thread_of(node: sync.Node) -> _loop.LoopThread:
    assert node._thread is not None
    return node._thread


def _in_a_call() -> bool:
    """Whether the main thread waits for a loop."""
    here = sys._current_frames()[threading.main_thread().ident or 0]
    return here.f_code is _loop.LoopThread.call.__code__


def _descriptors() -> int:
    """Of loops; a native module of the tests leaves an end of a pipe."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += "pipe" not in os.readlink(f"/proc/self/fd/{each}")
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Generator[None, None, None]:
    before = _descriptors()
    yield
    gc.collect()
    _comes(lambda: not _loops(), "threads are left")
    assert _descriptors() <= before


# The same methods


def _public(of: type) -> dict[str, Any]:
    return {
        name: each
        for name, each in vars(of).items()
        if name == "__init__" or not name.startswith(("_", "model_"))
    }


def _blocking(annotation: Any) -> Any:
    text = str(annotation)
    if text.startswith("AsyncGenerator["):
        return text.replace("AsyncGenerator[", "Generator[").replace(", None]", ", None, None]")
    return annotation


def test_the_facade_is_that_of_the_sources() -> None:
    committed = ast.parse(facade.FACADE.read_text("utf-8"))
    assert ast.dump(committed) == ast.dump(ast.parse(facade.written())), (
        "python tests/facade.py writes it anew"
    )


@pytest.mark.parametrize(
    ("theirs", "ours"), [(ldkjit.Node, sync.Node), (ldkjit.Invoice, sync.Invoice)]
)
def test_every_method_is_there_with_its_signature_and_words(theirs: type, ours: type) -> None:
    assert list(_public(theirs)) == list(_public(ours))
    for name, method in _public(theirs).items():
        own = vars(ours)[name]
        assert inspect.getdoc(own) == inspect.getdoc(method), name
        if isinstance(method, property):
            assert isinstance(own, property)
            method, own = method.fget, own.fget
        elif not inspect.isfunction(method):
            continue
        wanted = inspect.signature(method)
        wanted = wanted.replace(return_annotation=_blocking(wanted.return_annotation))
        assert inspect.signature(own) == wanted, name
        typing.get_type_hints(own)  # every name in it is imported
        assert not inspect.iscoroutinefunction(own)


def test_every_argument_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Recorded:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, _: Any, *given: Any, **named: Any) -> Any:
            seen[self.name] = (given, named)

            async def none() -> None: ...

            async def some() -> Any:
                yield 1

            return some() if self.name in ("events", "ledger", "payments") else none()

    methods = {
        name: each
        for name, each in _public(ldkjit.Node).items()
        if inspect.isfunction(each) and name not in ("__init__", "start", "stop")
    }
    node, _ = _node()
    monkeypatch.setattr(node, "_invoice", lambda told: told)
    with node:
        for name, method in methods.items():
            recorded = Recorded(name)
            monkeypatch.setattr(
                ldkjit.Node, name, lambda *given, to=recorded, **named: to(*given, **named)
            )
            each = list(inspect.signature(method).parameters.values())[1:]
            given = {one.name: object() for one in each}
            told = getattr(node, name)(**given)
            if inspect.isgenerator(told):
                assert list(told) == [1]
            placed = [given[one.name] for one in each if one.kind is one.POSITIONAL_OR_KEYWORD]
            named = {one.name: given[one.name] for one in each if one.kind is one.KEYWORD_ONLY}
            assert seen[name] == (tuple(placed), named), name


# As a program uses it


def test_start_and_stop_and_start() -> None:
    node, natives = _node()
    with pytest.raises(NodeStoppedError, match="not started"):
        node.status()
    for count in (1, 2):
        with node as same:
            assert same is node
            assert node.status().address == "02ab@127.0.0.1:9"
            assert node.start() == node.status()
            assert len(_loops()) == 1
        assert not _loops()
        native = natives[-1]
        assert (len(natives), native.closed, native.calls[-1]) == (count, 1, ("stop", {}))
        node.stop()
        with pytest.raises(NodeStoppedError):
            node.status()


def test_a_failed_start_leaves_nothing_behind() -> None:
    told = {"code": "chain", "message": "m", "retryable": True, "details": {}}
    node, natives = _node(start=Exception(told))
    with pytest.raises(ChainError, match="m"):
        node.start()
    assert natives[0].closed == 1
    assert not _loops()


def test_a_start_takes_the_configuration_of_then() -> None:
    node, natives = _node()
    node.config = CONFIG.model_copy(update={"data_dir": Path("elsewhere")})
    with node:
        assert natives[0].calls == [("start", node.config.model_dump(mode="json"))]


@pytest.mark.parametrize("error", [RuntimeError("no more threads"), KeyboardInterrupt()])
def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def start(thread: threading.Thread) -> None:
        if isinstance(error, KeyboardInterrupt):
            threading.Thread.start(thread)
        raise error

    node, natives = _node()
    with monkeypatch.context() as patch:
        patch.setattr(_loop.LoopThread, "start", start)
        with pytest.raises(type(error)):
            node.start()
    _comes(lambda: not _loop._running, "the thread is waited for at the exit")
    assert natives == []
    with node:
        assert node.status().height == 7


def test_receive_and_settle() -> None:
    received = {**PAYMENT, "direction": "in", "opening_fee_msat": 2_000}
    node, natives = _node(receive=INVOICE, invoice=INVOICE, wait_payment=received)
    with node:
        invoice = node.receive(sat(5), description="coffee", max_opening_fee=sat(3))
        assert isinstance(invoice, sync.Invoice)
        assert (invoice.path, invoice.opening_fee, invoice.amount) == ("jit", sat(2), sat(5))
        assert invoice.expires_at.year == 1970
        assert invoice == node.invoice("aa")
        assert invoice.settled(timeout=0.5).opening_fee == sat(2)
    assert natives[0].calls[-2] == ("wait_payment", {"id": "aa", "timeout_ms": 500})
    with pytest.raises(NodeStoppedError):
        sync.Invoice.model_validate(INVOICE).settled()


def test_errors_are_those_of_the_other_node() -> None:
    for status, raised in (("failed", PaymentError), ("pending", TimeoutError_)):
        node, natives = _node(pay=PAYMENT, wait_payment={**PAYMENT, "status": status})
        with node:
            with pytest.raises(raised):
                node.pay("lnbcrt1", timeout=2)
            assert natives[0].calls[-1] == ("wait_payment", {"id": "aa", "timeout_ms": 2_000})
            with pytest.raises(AmountError, match="amount"):
                node.receive(1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="policy"):
        _node(policy=Policy())


def test_events_are_acknowledged_by_moving_on() -> None:
    seq = iter([4, 9])
    event = {"type": "payment_received", "at_ms": 1, "payment_hash": "aa", "amount_msat": 5}
    node, natives = _node(next_event=lambda _: {"seq": next(seq), "event": event}, ack_event={})
    with node:
        for count, told in enumerate(node.events("books")):
            assert told.type == "payment_received"
            if count:
                break
            assert ("ack_event", {"consumer": "books", "seq": 4}) not in natives[0].calls
        calls = natives[0].calls
    assert ("ack_event", {"consumer": "books", "seq": 4}) in calls
    assert ("ack_event", {"consumer": "books", "seq": 9}) not in calls


def test_an_iterator_ends_with_its_items_or_with_its_node() -> None:
    def ledger(params: dict[str, Any]) -> Any:
        rows = {0: [1, 2], 2: [3], 3: []}[params["after"]]
        items = [{"seq": n, "at_ms": n, "entry": {"kind": "fee_earned"}} for n in rows]
        return {"items": items, "next": rows[-1] if rows else params["after"]}

    node, _ = _node(ledger=ledger)
    with node:
        assert [row.seq for row in node.ledger()] == [1, 2, 3]
        left = node.ledger()
        assert next(left).seq == 1
    with node, pytest.raises(NodeStoppedError):
        next(left)


# From several threads, and where it may not be used


def test_threads_wait_side_by_side() -> None:
    node, natives = _node(wait_height=...)
    with node, ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(node.wait_height, height) for height in range(8)]
        _comes(lambda: len(natives[0].calls) == 9, "not all calls are under way")
        assert node.status().height == 7
        for id, (_, params) in reversed(list(enumerate(natives[0].calls[1:9], 2))):
            natives[0].push(0, id, {**STATUS, "height": params["height"]})
        assert [each.result(SOON_S).height for each in waits] == list(range(8))


def test_a_stop_ends_every_wait() -> None:
    node, natives = _node(wait_height=..., next_event=...)
    with ThreadPoolExecutor(4) as pool:
        node.start()
        waits = [
            pool.submit(node.wait_height, 9),
            pool.submit(next, node.events()),
        ]
        _comes(lambda: len(natives[0].calls) == 3, "not all calls are under way")
        stops = [pool.submit(node.stop) for _ in range(2)]
        for each in stops:
            each.result(SOON_S)
        for each in waits:
            with pytest.raises(NodeStoppedError):
                each.result(SOON_S)
    assert [method for method, _ in natives[0].calls].count("stop") == 1


def test_starts_and_stops_of_many_threads_leave_no_one_waiting() -> None:
    node, natives = _node()

    def some(seed: int) -> None:
        for count in range(20):
            if (seed + count) % 3 == 0:
                node.start()
            elif (seed + count) % 3 == 1:
                node.stop()
            else:
                with suppress(NodeStoppedError):
                    node.status()

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(some, seed) for seed in range(6)]:
            each.result(60)
    node.stop()
    assert {native.closed for native in natives} == {1}


async def test_it_answers_where_an_event_loop_runs() -> None:
    event = {"type": "payment_received", "at_ms": 1, "payment_hash": "aa", "amount_msat": 5}
    node, natives = _node(next_event={"seq": 4, "event": event})
    with node:  # in a cell of a notebook
        assert node.status().height == 7
        assert next(node.events()).type == "payment_received"
    assert natives[0].closed == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on() -> None:
    node, natives = _node()
    with node:
        events = node.events()
        child = os.fork()
        if child == 0:
            refused = 0
            try:
                for call in (node.status, node.start, node.stop, lambda: next(events)):
                    try:
                        call()
                    except ForkError:
                        refused += 1
                _loop.LoopThread.end_all()
            finally:
                os._exit(0 if refused == 4 and natives[0].closed == 0 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert node.status().height == 7


# Hooks


def _lsp() -> NodeConfig:
    return CONFIG.model_copy(update={"lsp": LspConfig(menu=[TIER])})


def test_hooks_run_on_the_loop_and_on_their_thread() -> None:
    ran: dict[str, str] = {}

    class Rules(Policy):
        async def menu(self, ask: Any) -> Any:
            ran["menu"] = threading.current_thread().name
            for call in (node.status, node.start, node.stop, other.start):
                with pytest.raises(WrongLoopError, match="to_thread"):
                    call()
            assert (await asyncio.to_thread(node.status)).height == 7
            return [TIER]

        def sell(self, order: OrderRequest) -> Accept:
            ran["sell"] = threading.current_thread().name
            assert node.status().height == 7  # from a function it may be asked
            return Accept()

    other, _ = _node()
    node, natives = _node(_lsp(), Rules())
    with node:
        (native,) = natives
        config = native.calls[0][1]
        assert config["lsp"]["policy"]["hooks"] == {"menu": "loop", "sell": "thread"}
        native.put(1, "menu", MENU, thread=False)
        native.put(2, "sell", ORDER, thread=True)
        _comes(lambda: len(native.answered) == 2, "hooks have not answered")
    assert sorted(native.answered, key=lambda each: each[0]) == [
        (1, {"yes": {"tiers": [TIER.model_dump(mode="json")]}}),
        (2, {"yes": {"trust": None}}),
    ]
    assert ran == {"menu": "ldkjit-loop", "sell": "ldkjit-policy"}


def test_a_hook_may_stop_its_node() -> None:
    class Function(Policy):
        def sell(self, order: OrderRequest) -> Accept:
            node.stop()
            return Accept()

    class Coroutine(Policy):
        async def sell(self, order: OrderRequest) -> Accept:
            await asyncio.to_thread(node.stop)
            return Accept()

    for policy, thread in ((Function(), True), (Coroutine(), False)):
        node, natives = _node(_lsp(), policy)
        node.start()
        natives[0].put(1, "sell", ORDER, thread=thread)
        _comes(lambda: not _loops(), "the node does not stop")
        with pytest.raises(NodeStoppedError):
            node.status()
        node.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_hook_that_ends_the_loop_ends_every_wait() -> None:
    class Interrupts(Policy):
        async def sell(self, order: OrderRequest) -> Accept:
            raise KeyboardInterrupt

    node, natives = _node(_lsp(), Interrupts(), wait_height=...)
    with ThreadPoolExecutor(1) as pool:
        node.start()
        wait = pool.submit(node.wait_height, 9)
        _comes(lambda: len(natives[0].calls) == 2, "the call is not under way")
        natives[0].put(1, "sell", ORDER, thread=False)
        with pytest.raises(NodeStoppedError):
            wait.result(SOON_S)
        with pytest.raises(NodeStoppedError):
            node.status()
        with node:  # at once
            assert node.status().height == 7


def test_the_winding_up_is_not_cut_short_and_begins_nothing() -> None:
    asked = threading.Event()
    did: list[str] = []

    async def late() -> None:
        did.append("began")

    class Lingers(Policy):
        async def sell(self, order: OrderRequest) -> Accept:
            asked.set()
            try:
                await asyncio.sleep(3_600)
            finally:
                thread._ask_to_end()
                thread._soon(thread._begin, lambda _: late(), [], SimpleQueue())
                for _ in range(3):
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
                did.append("wound up")
            return Accept()

    node, natives = _node(_lsp(), Lingers())
    node.start()
    thread = _thread_of(node)
    natives[0].put(1, "sell", ORDER, thread=False)
    assert asked.wait(SOON_S)
    thread.end()
    assert did == ["wound up"]
    node.stop()


# Ctrl-C, and other ends


@contextmanager
def _signal(
    number: int, handler: Callable[..., Any], when: Callable[[], Any]
) -> Generator[None, None, None]:
    """A signal as soon as this is so."""

    def press() -> None:
        _comes(when, "nothing to interrupt")
        os.kill(os.getpid(), number)

    before = signal.signal(number, handler)
    presses = threading.Thread(target=press)
    presses.start()
    try:
        yield
    finally:
        presses.join()
        signal.signal(number, before)


@contextmanager
def _ctrl_c(when: Callable[[], Any]) -> Generator[None, None, None]:
    with _signal(signal.SIGINT, signal.default_int_handler, when):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            yield
        assert time.monotonic() - began < SOON_S


def test_ctrl_c_interrupts_a_call_and_cancels_it() -> None:
    node, natives = _node(wait_height=..., next_event=...)
    with node:
        (native,) = natives
        with _ctrl_c(lambda: len(native.calls) == 2):
            node.wait_height(9, timeout=3_600)
        _comes(lambda: native.cancelled == [2], "the call is not cancelled")
        events = node.events()
        with _ctrl_c(lambda: len(native.calls) == 3):
            next(events)
        _comes(lambda: native.cancelled == [2, 3], "the call is not cancelled")
        assert node.status().height == 7


def test_ctrl_c_in_a_start_or_a_stop_leaves_nothing_behind() -> None:
    node, natives = _node(start=...)
    with _ctrl_c(lambda: natives and natives[0].calls):
        node.start()
    assert natives[0].closed == 1
    assert not _loops()
    node, natives = _node(stop=...)
    node.start()
    with _ctrl_c(lambda: len(natives[0].calls) == 2):
        node.stop()
    assert natives[0].closed == 1
    assert not _loops()
    with pytest.raises(NodeStoppedError):
        node.status()


def test_a_signals_handler_may_stop_the_node() -> None:
    node, natives = _node(wait_height=...)
    node.start()
    with _signal(signal.SIGUSR1, lambda *_: node.stop(), lambda: len(natives[0].calls) == 2):
        with pytest.raises(NodeStoppedError):
            node.wait_height(9)
        assert natives[0].closed == 1


@contextmanager
def _signal_in(
    monkeypatch: pytest.MonkeyPatch, of: object, name: str, handler: Callable[[], Any]
) -> Generator[None, None, None]:
    """A signal in the midst of the next call of a method, which its handler may call too."""
    method = getattr(of, name)

    def pressed(*given: Any) -> Any:
        monkeypatch.setattr(of, name, method)
        signal.raise_signal(signal.SIGUSR1)
        return method(*given)

    came: list[Any] = []
    monkeypatch.setattr(of, name, pressed)
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(handler()))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(came) == 1


def test_a_signals_handler_may_call_in_the_midst_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    node, _ = _node()
    node.start()
    loop = _thread_of(node)._loop
    with _signal_in(monkeypatch, loop, "call_soon_threadsafe", node.status):
        assert node.status().height == 7
    with (
        _signal_in(monkeypatch, loop, "call_soon_threadsafe", node.stop),
        pytest.raises(NodeStoppedError),
    ):
        node.status()


def test_a_signals_handler_may_start_anew_what_is_being_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def anew() -> None:
        node.stop()
        node.start()

    node, natives = _node()
    node.start()
    with _signal_in(monkeypatch, _thread_of(node), "end", anew):
        node.stop()
    assert node.status().height == 7
    node.stop()
    assert [native.closed for native in natives] == [1, 1]


def test_a_node_that_is_forgotten_goes() -> None:
    node, natives = _node(wait_height=Exception({"code": "chain", "message": "m"}))
    gc.disable()  # no error keeps it in a cycle
    try:
        node.start()
        with suppress(ChainError):
            node.wait_height(9)
            pytest.fail("it has not failed")
        gone = weakref.ref(node)
        del node
        _comes(lambda: gone() is None, "the node is kept")
        _comes(lambda: not _loops(), "the thread does not end")
    finally:
        gc.enable()
    assert natives[0].closed == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_end_that_fails_ends_every_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(node: _loop.LoopNode) -> None:
        abandon(node)
        raise OSError

    abandon = _loop.LoopNode.abandon
    monkeypatch.setattr(_loop.LoopNode, "abandon", fails)
    node, natives = _node(wait_height=...)
    with ThreadPoolExecutor(1) as pool:
        node.start()
        wait = pool.submit(node.wait_height, 9)
        _comes(lambda: len(natives[0].calls) == 2, "the call is not under way")
        _thread_of(node).end()
        with pytest.raises(NodeStoppedError):
            wait.result(SOON_S)
    node.stop()


def test_a_loop_that_hangs_does_not_hold_whoever_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldkjit._loop._END_S", 0.1)
    asked, release = threading.Event(), threading.Event()

    class Hangs(Policy):
        async def sell(self, order: OrderRequest) -> Accept:
            asked.set()
            release.wait(60)
            return Accept()

    node, natives = _node(_lsp(), Hangs())
    node.start()
    natives[0].put(1, "sell", ORDER, thread=False)
    assert asked.wait(SOON_S)
    for call in (node.status, node.stop):
        with _ctrl_c(_in_a_call):
            call()
    node.stop()
    release.set()


def test_the_exit_ends_all_nodes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)
    close = FakeNative.close

    def closes(native: FakeNative) -> None:
        together.wait(SOON_S)
        close(native)

    monkeypatch.setattr(FakeNative, "close", closes)
    nodes = [_node()[0] for _ in range(together.parties)]
    for node in nodes:
        node.start()
    _loop.LoopThread.end_all()
    assert not together.broken
    assert not _loops()


PROGRAM = f"""
import asyncio, os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
from fake import FakeNative
from ldkjit import *
from ldkjit import _loop, sync
STATUS = {STATUS!r}
class Native(FakeNative):
    def close(self):
        before = self.closed
        super().close()
        if not before:
            print(threading.current_thread().name, flush=True)
def answer(method, params):
    return STATUS if method in ("start", "status") else {{}} if method == "stop" else ...
chain = Bitcoind("http://127.0.0.1:1", user="u", password="p")
config = NodeConfig(network="regtest", data_dir=Path("x"), chain=chain)
signal.signal(signal.SIGINT, signal.default_int_handler)
def aside(call, *given):
    thread = threading.Thread(target=call, args=given, daemon=True)
    thread.start()
    while len(natives[0].calls) < 2:
        time.sleep(0.01)
    return thread
def press(method):
    def presses():
        while natives[0].calls[-1][0] != method:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=presses, daemon=True).start()
natives = [Native(answer)]
node = sync.Node(config, _make_native=lambda: natives[0])
node.start()
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        ("", 0),
        ("del node", 0),
        ("node.stop()", 0),
        ("raise SystemExit(3)", 3),
        ("aside(node.wait_height, 9)", 0),
        ("kept = node.events(); aside(next, kept)", 0),
        ("def on():\n    while True: node.status()\naside(on)", 0),
        ("press('wait_height'); node.wait_height(9)", -signal.SIGINT),
        (
            "press('next_event')\nwith node:\n    for event in node.events(): pass",
            -signal.SIGINT,
        ),
    ],
)
def test_the_interpreter_can_exit_at_any_time(leave: str, code: int) -> None:
    done = _run(PROGRAM + leave)
    assert (done.returncode, done.stdout) == (code, "ldkjit-loop\n"), done.stderr
    if code >= 0:
        assert done.stderr == ""
    else:
        assert done.stderr.endswith("\nKeyboardInterrupt\n")
        assert done.stderr.count("Traceback") == 1


def test_whoever_waits_at_the_exit_is_answered() -> None:
    early = """
import atexit
def last():
    waits.join()
    try:
        node.status()
    except NodeStoppedError:
        print("stopped")
atexit.register(last)
"""
    done = _run(early + PROGRAM + "waits = aside(node.wait_height, 9)")
    assert (done.returncode, done.stdout) == (0, "ldkjit-loop\nstopped\n"), done.stderr
    assert done.stderr == ""


def test_a_hook_that_hangs_does_not_hold_the_exit() -> None:
    leave = """
_loop._END_S = 0.2
loop = node._thread._loop
loop.call_soon_threadsafe(time.sleep, 3600)
"""
    done = _run(PROGRAM + leave)
    assert (done.returncode, done.stdout) == (0, "MainThread\n"), done.stderr


def test_ctrl_c_at_any_moment_leaves_a_node_that_answers() -> None:
    body = """
def press(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, press)
for count in range(500):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + count % 40 * 0.00005)
        for _ in range(1000):  # Python itself may lose it, in a weak reference's callback
            node.status()
    except KeyboardInterrupt:
        pass
print(node.status().height)
node.stop()
"""
    done = _run(PROGRAM + body)
    assert (done.returncode, done.stdout) == (0, "7\nldkjit-loop\n"), done.stderr
    assert "never" not in done.stderr  # awaited, or retrieved
