"""One round's stage: an LSP process, and in this process payer and clients, all ldkjit nodes.

Payer and clients are the same beside both LSPs and keep their state in memory, so that what differs
between two rounds is the LSP alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ldkjit import Bitcoind, Invoice, LdkJitError, Lsp, Node, NodeConfig, TimeoutError_, sat
from ldkjit.sandbox import Regtest, until

from . import meter
from .sellers import Seller
from .settings import (
    HTLCS_PER_CHANNEL,
    JIT_SAT,
    PATIENCE_S,
    PAYER_CHANNEL_SAT,
    RETRY_S,
    Case,
)

Value = TypeVar("Value")

CONFIRMATIONS = 6
# LDK takes only four unconfirmed channels of one peer.
UNCONFIRMED_PER_PEER = 4
# Of an LSP's coins, satoshi: what an open takes, and as much again.
ROOM = 2
# ldk-node does not set aside what an open spends: until it has seen the transaction in the mempool
# it may spend the same coin again. The more coins, the rarer it does.
COINS_PER_OPEN = 10
# A client whose channel came to nothing, as its funding spent such a coin, makes way for another.
CLIENT_ATTEMPTS = 5
# What a client gives the funding transaction to appear, and then refuses the payment: each open's
# takes less than half as long to.
SEEN_WITHIN_MS = 5_000
# More than either keeps back for each channel, to be able to close it by force, satoshi.
RESERVE_SAT = 250_000
STARTS_AT_ONCE = 8
# Of one transaction: more would not be relayed.
OUTPUTS = 1_000
SETUP_S = 120.0


@dataclasses.dataclass
class Outcome:
    """What a round's load came to.

    Attributes:
        latencies_ms: Of each thing that was done.
        failures: How many were not, by reason.
        wall_s: From the first to the last.
        cpu_s: What the LSP's process took meanwhile.
        wrote: Bytes its process had written.
        rss_kb: Its memory at the end.
        fsyncs: Of its process, if this is a round that counts them.
        more: What else there is to say.
    """

    latencies_ms: list[float] = dataclasses.field(default_factory=list)
    failures: Counter[str] = dataclasses.field(default_factory=Counter)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    wrote: int = 0
    rss_kb: int = 0
    fsyncs: int | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)

    def done(self, began: float) -> None:
        """Something that began then is done now."""
        self.latencies_ms.append((time.perf_counter() - began) * 1_000)

    def add(self, other: Outcome) -> None:
        """What another one has counted."""
        self.latencies_ms += other.latencies_ms
        self.failures += other.failures

    def failed(self, error: LdkJitError) -> None:
        """Count a payment that failed, by the reason its payer was given."""
        self.failures[str(error.details.get("failure") or error.code)] += 1


async def in_turn(
    makers: Iterable[Callable[[], Awaitable[Value]]], at_once: int
) -> list[Value | BaseException]:
    """Await all, so many at a time; the results in order."""
    turns = asyncio.Semaphore(at_once)

    async def one(make: Callable[[], Awaitable[Value]]) -> Value:
        async with turns:
            return await make()

    return await asyncio.gather(*(one(make) for make in makers), return_exceptions=True)


def checked(results: list[Value | BaseException]) -> list[Value]:
    """The results, if none of them is an error."""
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return [each for each in results if not isinstance(each, BaseException)]


class Scene:
    """The nodes of one round.

    Args:
        chain: The bitcoind of the run.
        seller: The LSP, not yet started.
        folder: Where the nodes of this process keep what they keep.
        case: The load, which decides how many coins and channels are needed.
        count_fsyncs: Whether this round counts fsyncs, and its times do not count.
    """

    payer: Node

    def __init__(
        self,
        chain: Regtest,
        seller: Seller,
        folder: Path,
        case: Case,
        *,
        count_fsyncs: bool = False,
    ) -> None:
        self.chain = chain
        self.seller = seller
        self.case = case
        self.nodes: list[Node] = []
        self._last: tuple[float, float] | None = None
        self._folder = folder
        self._count_fsyncs = count_fsyncs

    # Who is there

    async def node(self, name: str, **settings: Any) -> Node:
        """A started node of this process."""
        rpc = self.chain.rpc
        values: dict[str, Any] = {
            "network": "regtest",
            "data_dir": self._folder / name,
            "store": "memory",
            # It is told of blocks when it must know them; asking costs the machine.
            "chain": Bitcoind(rpc.url, user=rpc.user, password=rpc.password, poll_ms=2_000),
            "fee_fallback_sat_per_kw": 500,
            "log_level": "error",
            **settings,
        }
        node = Node(NodeConfig(**values))
        await node.start()
        self.nodes.append(node)
        return node

    async def open(self, *, opens: int = 0, at_once: int = 0) -> None:
        """Start the LSP with coins for so many channels, and a payer with channels to it.

        Args:
            opens: Channels that the LSP will sell.
            at_once: Payments that the payer will have under way.
        """
        await self.seller.start()
        value = JIT_SAT * (1_000_000 + self.case.extra_ppm) // 1_000_000
        coins = (opens + 4) * COINS_PER_OPEN
        await self.fund(self.seller, coins, value * ROOM + RESERVE_SAT)
        if at_once:
            total = opens * JIT_SAT * 2
            needed = (at_once // HTLCS_PER_CHANNEL, total // PAYER_CHANNEL_SAT)
            await self._payer(max(needed) + 2)

    async def fund_all(self, nodes: list[Node], coins: int, each_sat: int) -> None:
        """Give each node so many confirmed coins."""
        addresses = [await node.new_address() for node in nodes for _ in range(coins)]
        await self._send(addresses, each_sat)
        await asyncio.gather(*map(self._sync, nodes))

    async def _send(self, addresses: list[str], each_sat: int) -> None:
        amount = f"{each_sat / 100_000_000:.8f}"
        for first in range(0, len(addresses), OUTPUTS):
            some = addresses[first : first + OUTPUTS]
            await self.chain.rpc.call("sendmany", "", dict.fromkeys(some, amount))
        await self.chain.mine(CONFIRMATIONS)

    async def fund(self, whom: Seller | Node, coins: int, each_sat: int) -> None:
        """Give a node so many confirmed coins of its own each."""
        addresses = [await whom.new_address() for _ in range(coins)]
        before = await self._coins(whom)
        await self._send(addresses, each_sat)
        await self._sync(whom)

        async def arrived() -> bool:
            return await self._coins(whom) >= before + coins * each_sat

        await until(arrived, "coins", SETUP_S)

    async def _coins(self, whom: Seller | Node) -> int:
        if isinstance(whom, Node):
            return (await whom.balances()).onchain.confirmed_sat
        return await whom.coins_sat()

    async def _sync(self, whom: Seller | Node) -> None:
        if isinstance(whom, Node):
            await whom.wait_height(await self.chain.rpc.height(), timeout=SETUP_S)
        else:
            await whom.sync()

    async def mine(self, blocks: int = 1) -> None:
        """Mine; wait until the LSP and every node here have seen it."""
        await self.chain.mine(blocks)
        await asyncio.gather(self._sync(self.seller), *(self._sync(node) for node in self.nodes))

    async def _payer(self, channels: int) -> None:
        self.payer = await self.node("payer")
        await self.fund(self.payer, channels + 1, PAYER_CHANNEL_SAT + 100_000)
        await self.channels_to_seller([self.payer], channels, PAYER_CHANNEL_SAT)

    async def channels_to_seller(self, peers: list[Node], each: int, capacity_sat: int) -> None:
        """Each of these nodes opens so many channels to the LSP, confirmed and usable."""

        async def some(node: Node) -> None:
            for _ in range(count):
                opened = await node.open_channel(self.seller.address, capacity_sat)
                txid = opened.funding_txid

                async def seen(txid: str | None = txid) -> bool:
                    return txid in await self.chain.rpc.mempool()

                await until(seen, "a funding transaction in the mempool", SETUP_S)

        done = count = 0
        while done < each:
            count = min(UNCONFIRMED_PER_PEER, each - done)
            checked(await in_turn([partial(some, node) for node in peers], STARTS_AT_ONCE))
            await self.chain.mine(CONFIRMATIONS)
            await asyncio.gather(self._sync(self.seller), *map(self._sync, peers))
            done += count

        async def usable() -> bool:
            for node in peers:
                if sum(channel.usable for channel in await node.channels()) < each:
                    return False
            return True

        await until(usable, "channels to the LSP", SETUP_S)

    async def clients(self, count: int, name: str = "client", **settings: Any) -> list[Node]:
        """So many wallets, connected with the LSP."""
        lsps = [Lsp(self.seller.address, verify_timeout_ms=SEEN_WITHIN_MS)]
        names = [f"{name}-{n}" for n in range(count)]
        starts = [partial(self.node, each, lsps=lsps, **settings) for each in names]
        wallets = checked(await in_turn(starts, STARTS_AT_ONCE))
        for wallet in wallets:
            await self.connected(wallet)
        return wallets

    async def connected(self, wallet: Node) -> None:
        """Wait until a wallet is connected with the LSP."""

        async def there() -> bool:
            return any(peer.connected for peer in await wallet.peers())

        await until(there, "a wallet's connection", SETUP_S)

    async def clients_with_channels(
        self, count: int, name: str = "client", **settings: Any
    ) -> list[Node]:
        """Wallets that have been paid once each, over channels that the LSP opened, confirmed."""
        wallets: list[Node] = []
        for attempt in range(CLIENT_ATTEMPTS):
            # The first have the plain names.
            named = f"{name}-{attempt}" if attempt else name
            new = await self.clients(count - len(wallets), named, **settings)
            paid = await in_turn([partial(self._is_paid, each) for each in new], STARTS_AT_ONCE)
            wallets += [each for each, good in zip(new, checked(paid), strict=True) if good]
            if len(wallets) == count:
                break
        assert len(wallets) == count, "not every client has its channel"
        await self.mine(CONFIRMATIONS)
        return wallets

    async def _is_paid(self, wallet: Node) -> bool:
        outcome = Outcome()
        await self.pay(await self.jit_invoice(wallet), outcome)
        return not outcome.failures

    # What they do

    async def jit_invoice(self, wallet: Node) -> Invoice:
        """``get_info`` and ``buy``: an invoice for the payment that opens a channel."""
        return await wallet.receive(sat(JIT_SAT), jit="always")

    async def pay(self, invoice: Invoice, outcome: Outcome) -> None:
        """Pay; the time is from the payer's call until the client has claimed."""
        began = time.perf_counter()
        sent = asyncio.create_task(
            self.payer.pay(invoice.bolt11, retry=RETRY_S, timeout=PATIENCE_S)
        )
        got = asyncio.create_task(invoice.settled(timeout=PATIENCE_S))

        def settled(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and task.exception() is None:
                outcome.done(began)
                self._last = time.perf_counter(), meter.cpu_s(self.seller.pid)

        got.add_done_callback(settled)
        try:
            await asyncio.gather(sent, got)
        except TimeoutError_:
            outcome.failures["pending"] += 1
        except LdkJitError as error:
            outcome.failed(error)
        finally:
            for task in (sent, got):
                task.cancel()
            await asyncio.gather(sent, got, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncGenerator[Outcome, None]:
        """The load is what happens inside: its time and what it costs the LSP's process.

        Payments are measured until the last that arrived: one that fails does so after a time
        which is its client's own.
        """
        outcome = Outcome()
        pid = self.seller.pid
        async with contextlib.AsyncExitStack() as stack:
            counted = None
            if self._count_fsyncs:
                counted = await stack.enter_async_context(meter.fsyncs(pid))
            self._last = None
            before, began = meter.read(pid), time.perf_counter()
            yield outcome
            after = meter.read(pid)
            ended, cpu_s = self._last or (time.perf_counter(), after.cpu_s)
        outcome.wall_s = ended - began
        outcome.cpu_s = cpu_s - before.cpu_s
        outcome.wrote = after.wrote - before.wrote
        outcome.rss_kb = after.rss_kb
        if counted is not None:
            outcome.fsyncs = counted.count

    # The end

    async def close(self) -> None:
        """End every node, the LSP's process too: nothing of it is needed any more."""
        try:
            await in_turn([node.stop for node in self.nodes], STARTS_AT_ONCE)
        finally:
            await self.seller.kill()
