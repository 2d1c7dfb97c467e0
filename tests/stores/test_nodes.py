"""Nodes on stores of Python's: sales, restarts, a database that dies, stores that fail or lie."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from postgres import Proxy, Server
from programs import program, runs
from stores.test_suite import example
from support import comes_to, earned, fee_of, outbound, pay_both, wallet_of, what_it_has

from ldkjit import (
    ConfigError,
    History,
    LspConfig,
    Node,
    NodeConfig,
    StoreCorruptError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    StoreOtherNodeError,
    StoreVersionError,
    sat,
)
from ldkjit.cli.stores import copy_store
from ldkjit.sandbox import DEFAULT_MENU, Sandbox, until
from ldkjit.storage import Change, Loaded, MemoryStore, PostgresStore, Put, Row, Store

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

AMOUNT = sat(50_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(bitcoind: Path) -> AsyncGenerator[Sandbox, None]:
    async with Sandbox() as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def box(chain: Sandbox) -> AsyncGenerator[Sandbox, None]:
    yield chain
    for name in list(chain.nodes):
        await chain.nodes.pop(name).stop()


async def sound(node: Node) -> None:
    verdict = await node.ledger_check()
    assert verdict.ok, verdict.model_dump_json(indent=2)


async def buys(box: Sandbox, lsp: Node, payer: Node, name: str) -> Node:
    """A wallet that buys a channel with its first payment, every millisatoshi in its place."""
    wallet = await wallet_of(box, lsp, name)
    invoice = await wallet.receive(AMOUNT, jit="always")
    sent, received = await pay_both(payer, wallet, invoice.bolt11)
    assert received.amount == AMOUNT - fee_of(AMOUNT)
    assert await earned(lsp, sent.payment_hash) == fee_of(AMOUNT)
    return wallet


async def test_a_sale_on_postgresql_over_restarts_of_node_and_server(
    own_postgres: Server, box: Sandbox
) -> None:
    """The server is killed while payments run, and again while the node is stopped."""
    loop = asyncio.get_running_loop()
    lsp = await box.lsp("lsp", store=PostgresStore(own_postgres.conninfo()))
    payer = await box.node("payer", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
    wallet = await buys(box, lsp, payer, "first")
    await lsp.stop()
    own_postgres.kill()
    await loop.run_in_executor(None, own_postgres.start)
    await lsp.start()
    await until(_connected(wallet), "the wallet to come back")
    await until(_usable(payer), "the payer's channel")

    # Under load: the database dies twice while payments go over the LSP.
    before = sum((await outbound(wallet)).values())
    paid = 0
    done = asyncio.Event()

    async def load() -> None:
        nonlocal paid
        while not done.is_set():
            invoice = await wallet.receive(sat(100), jit="never")
            await pay_both(payer, wallet, invoice.bolt11)
            paid += 1

    running = asyncio.create_task(load())
    for _ in range(2):
        await asyncio.sleep(0.5)
        own_postgres.kill()
        await asyncio.sleep(0.5)
        await loop.run_in_executor(None, own_postgres.start)
        seen = paid
        await until(_more_than(lambda: paid, seen + 1), "payments after the server is back", 60)
    second = await buys(box, lsp, payer, "second")
    done.set()
    await running

    async def gained() -> int:
        return sum((await outbound(wallet)).values()) - before

    await comes_to(gained, paid * 100_000, "what the payments under load brought")
    assert paid >= 4
    for node in (lsp, payer, wallet, second):
        await sound(node)


def _connected(node: Node) -> Any:
    async def look() -> bool:
        return any(each.connected for each in await node.peers())

    return look


def _usable(node: Node) -> Any:
    async def look() -> bool:
        return all(each.usable for each in await node.channels())

    return look


def _more_than(value: Callable[[], int], least: int) -> Any:
    async def look() -> bool:
        return value() >= least

    return look


@pytest.mark.parametrize("kind", ["memory", "user"])
async def test_a_node_comes_back_on_its_store(box: Sandbox, tmp_path: Path, kind: str) -> None:
    store = MemoryStore() if kind == "memory" else example().FileStore(tmp_path / "a.db")
    lsp = await box.lsp(f"{kind}-lsp", store=store)
    payer = await box.node(f"{kind}-payer", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
    await buys(box, lsp, payer, f"{kind}-first")
    before = await what_it_has(lsp)
    await lsp.stop()

    async def thread_gone() -> bool:
        return not any(each.name == "ldkjit-store" for each in threading.enumerate())

    await until(thread_gone, "the store's thread to end")
    await lsp.start()
    assert await what_it_has(lsp) == before
    await until(_usable(payer), "the payer's channel")
    await buys(box, lsp, payer, f"{kind}-second")
    await sound(lsp)


VIEWS = ("ledger", "orders", "channels", "payments", "fees", "costs")


@pytest.mark.parametrize("kind", ["postgres", "user"])
async def test_the_history_of_any_store_is_what_sqlite_would_tell(
    box: Sandbox, tmp_path: Path, postgres: Server, schema: str, kind: str
) -> None:
    """Of a node that sells, runs and has stopped; then all of it is moved to SQLite."""
    if kind == "postgres":
        store: Store = PostgresStore(postgres.conninfo(), schema=schema)
    else:
        store = example().FileStore(tmp_path / "a.db")
    lsp = await box.lsp(f"{kind}-told", store=store)
    payer = await box.node(f"{kind}-pays", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
    wallet = await buys(box, lsp, payer, f"{kind}-buys")
    client = (await wallet.status()).node_id

    # While it runs, in every kind of loop, on the thread of the node's event loop and others.
    history = lsp.history
    (order,) = [row async for row in history.orders("paid", client=client)]
    assert [order] == list(history.orders()) == await asyncio.to_thread(list, history.orders())
    assert (order.client, order.earned_msat) == (client, fee_of(AMOUNT))
    (fee,) = history.fees("opening")
    assert (fee.client, fee.scid) == (client, order.scid)
    report, check = await lsp.report("client"), await lsp.ledger_check()
    assert report.ok
    assert check.ok
    assert report.rows == check.rows == len(history.ledger())
    assert report.total.opening_fees == fee.amount_msat
    assert {line.client for line in report.lines} >= {client}
    with pytest.raises(ConfigError, match=r"Node\.report"):
        history.report()

    # After it has stopped: the store is loaded for it, and closed.
    await box.nodes.pop(f"{kind}-told").stop()
    told = {view: list(getattr(history, view)()) for view in VIEWS}
    assert told["orders"] == [order]
    folder = tmp_path / "moved"
    folder.mkdir()
    await asyncio.to_thread(copy_store, store, folder / "node.sqlite")
    moved = History(folder)
    for view in VIEWS:
        assert list(getattr(moved, view)()) == told[view], view
    (own,) = [row for row in told["channels"] if row.by_us]
    later = order.at + timedelta(milliseconds=1)
    for either in (history, moved):
        assert list(either.channels("open", client=client)) == [own]
        assert list(either.ledger("order_sold", since=order.at, until=later, client=client))
        assert list(either.orders(until=order.at)) == []
        assert {row.client for row in either.costs("funding")} == {client}


async def test_a_history_is_read_while_the_node_commits(box: Sandbox) -> None:
    node = await box.node("read", store=MemoryStore())
    over = asyncio.Event()

    async def load() -> None:
        while not over.is_set():
            await node.new_address()

    running = asyncio.create_task(load())
    for _ in range(20):
        rows = [row.seq async for row in node.history.ledger()]
        assert rows == list(range(1, len(rows) + 1))
    over.set()
    await running
    await sound(node)
    with pytest.raises(ConfigError, match="MemoryStore"):
        _ = Node(node.config.model_copy(update={"store": "memory"})).history


async def test_a_store_is_of_one_node(box: Sandbox, tmp_path: Path) -> None:
    store = MemoryStore()
    node = await box.node("one", store=store)
    config = node.config.model_copy(update={"data_dir": tmp_path / "other"})
    # While the first has it, and afterwards.
    other = Node(config)
    with pytest.raises(StoreLockedError, match="in use"):
        await other.start()
    await node.stop()
    with pytest.raises(StoreOtherNodeError, match="not"):
        await other.start()
    await node.start()


async def ended(node: Node) -> None:
    """Stop a node whose store has failed; it may say so once more."""
    with contextlib.suppress(StoreError):
        await node.stop()


class Fails(MemoryStore):
    """Fails at one commit."""

    def __init__(self, error: BaseException, after: bool) -> None:
        super().__init__()
        self.error = error
        self.after = after
        self.armed = False

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        if self.armed:
            if self.after:
                super().commit(seq, batch)
            raise self.error
        super().commit(seq, batch)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [OSError("no space"), StoreError("told"), SystemExit(3)])
async def test_a_store_that_fails_stops_its_node(
    box: Sandbox, caplog: pytest.LogCaptureFixture, error: BaseException, after: bool
) -> None:
    store = Fails(error, after)
    name = f"fails-{type(error).__name__}-{after}"
    node = await box.node(name, store=store)
    first = await node.new_address()
    store.armed = True
    with pytest.raises(StoreError, match="Fails: ") as raised:
        await node.new_address()
    assert type(raised.value) is StoreError
    with pytest.raises(StoreError):
        await node.new_address()

    async def said() -> bool:
        told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        return any("nothing can be saved" in text and "Fails: " in text for text in told)

    await until(said, "the node to say why it stops")
    store.armed = False
    await ended(box.nodes.pop(name))
    await node.start()
    assert await node.new_address() != first
    await node.stop()


class Lies(MemoryStore):
    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.answers = answers
        if isinstance(answers.get("load"), Loaded) and answers["load"].seq == 1:
            self.commit(1, [])

    def load(self, *, archived: bool = False) -> Loaded:
        return self.answers.get("load", super().load(archived=archived))

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        return self.answers.get("rows", super().rows(kind, after, limit))


@pytest.mark.parametrize(
    "loaded",
    [
        None,
        Loaded(-1),
        Loaded("five"),  # type: ignore[arg-type]
        Loaded(1, [Put("order", "1", "text")]),  # type: ignore[arg-type]
        Loaded(1, [("order", "1", b"")]),  # type: ignore[list-item]
        Loaded(1, [], {"event": 2**70}),
    ],
)
async def test_a_store_that_answers_nonsense_starts_no_node(
    box: Sandbox, tmp_path: Path, loaded: Any
) -> None:
    node = Node(_config(box, tmp_path, Lies(load=loaded)))
    with pytest.raises(StoreError, match="Lies"):
        await node.start()


@pytest.mark.parametrize(
    ("loaded", "error"),
    [
        (Loaded(1, [Put("meta", "identity", b"{")]), StoreCorruptError),
        (Loaded(1, [Put("meta", "identity", b'{"version": 99}')]), StoreVersionError),
        (Loaded(1, [Put("order", "1", b"rubbish")]), StoreCorruptError),
    ],
)
async def test_a_store_of_something_else_is_told(
    box: Sandbox, tmp_path: Path, loaded: Loaded, error: type[StoreError]
) -> None:
    node = Node(_config(box, tmp_path, Lies(load=loaded), lsp=True))
    with pytest.raises(error):
        await node.start()


async def test_rows_that_are_others_are_an_error_to_who_asks(box: Sandbox) -> None:
    store = Lies()
    node = await box.node("rows", store=store)
    store.answers["rows"] = [Row("ledger", 7, "", b"")]
    with pytest.raises(StoreError, match="rows"):
        [row async for row in node.ledger()]
    await node.new_address()  # it goes on


async def test_the_one_that_was_cut_off_stops_when_another_takes_over(
    postgres: Server, proxy: Proxy, schema: str, box: Sandbox
) -> None:
    store = PostgresStore(postgres.conninfo(proxy.port), schema=schema)
    node = await box.node("fenced", store=store)
    await node.new_address()
    proxy.refuse()
    other = PostgresStore(postgres.conninfo(), schema=schema)
    other.load()
    proxy.refuse(False)
    with pytest.raises(StoreFencedError, match="PostgresStore"):
        await node.new_address()
    other.close()
    await ended(node)
    await node.start()
    await node.new_address()


async def test_a_database_that_is_away_starts_no_node_and_stays_away_stops_it(
    box: Sandbox, tmp_path: Path, postgres: Server, proxy: Proxy, schema: str
) -> None:
    store = PostgresStore(postgres.conninfo(proxy.port), schema=schema, patience=0.5)
    node = Node(_config(box, tmp_path, store))
    proxy.refuse()
    with pytest.raises(StoreError, match="PostgresStore") as raised:
        await node.start()
    assert type(raised.value) is StoreError
    proxy.refuse(False)
    await node.start()
    proxy.refuse()
    with pytest.raises(StoreError, match=r"away for 0\.5 s"):
        await node.new_address()
    proxy.refuse(False)
    await ended(node)
    await node.start()
    await node.stop()


def _config(box: Sandbox, folder: Path, store: Any, lsp: bool = False) -> NodeConfig:
    rpc = box.chain.rpc
    return NodeConfig(
        network="regtest",
        data_dir=folder / "node",
        chain={"url": rpc.url, "user": rpc.user, "password": rpc.password, "poll_ms": 50},  # type: ignore[arg-type]
        store=store,
        fee_fallback_sat_per_kw=500,
        lsp=LspConfig(menu=list(DEFAULT_MENU)) if lsp else None,
    )


# In processes of their own


HANGS = """
import threading
from ldkjit.storage import MemoryStore

class Hangs(MemoryStore):
    hang = False
    def commit(self, seq, batch):
        super().commit(seq, batch)
        if self.hang:
            threading.Event().wait()

store = Hangs()
here = node("a", store=store)
"""


async def test_a_program_ends_without_a_stop(box: Sandbox, tmp_path: Path) -> None:
    body = (
        HANGS
        + """
await here.start()
await here.new_address()
say("up")
"""
    )
    await runs(box, tmp_path, body, "up")


async def test_a_program_ends_while_its_store_hangs(box: Sandbox, tmp_path: Path) -> None:
    body = (
        HANGS
        + """
await here.start()
store.hang = True
asking = asyncio.ensure_future(here.new_address())
await asyncio.sleep(0.3)
asking.cancel()
say("up")
"""
    )
    await runs(box, tmp_path, body, "up")


async def test_ctrl_c_interrupts_no_commit(box: Sandbox, tmp_path: Path) -> None:
    body = """
import time
from ldkjit.storage import MemoryStore

class Slow(MemoryStore):
    def commit(self, seq, batch):
        time.sleep(0.2)
        super().commit(seq, batch)

store = Slow()
try:
    async with node("a", store=store) as here:
        say("up")
        while True:
            await here.new_address()
finally:
    say("seq", store.load().seq > 1)
"""
    async with program(box, tmp_path, body) as running:
        await running.says("up")
        await running.is_interrupted("seq True")


async def test_a_fork_leaves_the_store_to_its_parent(
    box: Sandbox, tmp_path: Path, postgres: Server, schema: str
) -> None:
    body = f"""
import warnings
from ldkjit.storage import PostgresStore
async with node("a", store=PostgresStore({postgres.conninfo()!r}, schema={schema!r})) as here:
    first = await here.new_address()
    warnings.simplefilter("ignore")
    child = os.fork()
    if child == 0:
        try:
            await here.new_address()
        except ForkError:
            os._exit(7)
        os._exit(8)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    say(first != await here.new_address())
"""
    await runs(box, tmp_path, body, "7", "True")
