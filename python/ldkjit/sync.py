"""The node for programs that block: every method of ``ldkjit.Node``, without ``await``.

``with sync.Node(config) as node:`` takes what ``ldkjit.Node`` takes, in scripts, notebooks and the
threads of a web server (one process per node). Calls may come from several threads at once, also
from a policy's functions; its coroutines would wait for their own loop, and ask by
``asyncio.to_thread``. A call holds up an event loop that runs in its thread: in async programs
await ``ldkjit.Node``. Ctrl-C interrupts a call at once, which forgets its answer and undoes
nothing. At the exit Python waits for threads that are no daemons before the node ends: one that
waits in a call is told only by ``stop``.

Each started node has a thread of its own with an event loop, until it is stopped or forgotten (a
policy that refers to the node keeps it until then). One for all nodes would save threads, but there
a policy's coroutine that blocks would hold up every node, and no moment would be the last.
``async def`` hooks run on that loop, ``def`` hooks on the policy's thread, as ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, TypeVar

from pydantic import PrivateAttr

from . import node as _asyncio
from ._bridge import NativeLike
from ._loop import LoopNode, LoopThread, refuse_loops
from .amounts import Msat
from .config import NodeConfig
from .errors import ConfigError, NodeStoppedError
from .events import Event
from .history import By, History
from .metrics import Metric
from .models import (
    Backup,
    Balances,
    Channel,
    DecodedInvoice,
    FeeRates,
    InvoiceData,
    LedgerCheck,
    LedgerRow,
    Order,
    Payment,
    Peer,
    Recovery,
    Report,
    Stage,
    Status,
    WebhookRegistration,
    Webhooks,
)

__all__ = ["Invoice", "Node"]

T = TypeVar("T")


async def _next(items: AsyncGenerator[T, None]) -> list[T]:
    """The next item; none at the end."""
    async for item in items:
        return [item]
    return []


class Invoice(InvoiceData):
    """An invoice of this node, and how to wait for its payment."""

    _node: Node | None = PrivateAttr(default=None)

    def bound_to(self, node: Node) -> Invoice:
        """Say which node made it; ``Node`` does so itself."""
        self._node = node
        return self

    def settled(self, timeout: float = 3_600.0) -> Payment:
        """Wait until it is paid and the payment claimed.

        Args:
            timeout: Seconds.

        Raises:
            PaymentError: A payment came and was failed back.
            TimeoutError_: Nothing came in time; the invoice may still be paid.
        """
        if self._node is None:
            raise NodeStoppedError("this invoice was not made by a node of this program")
        return self._node.wait_payment(self.payment_hash, timeout=timeout)


class Node:
    """A Lightning node that lives in this program, for threads that block.

    Use it as ``with Node(config) as node:``, or call ``start`` and ``stop``. Leaving without
    ``stop`` equals a crash, which is safe. It answers in every thread of the process it was started
    in, except in its policy's coroutines, and holds up an event loop that runs there. Every method
    raises a ``LdkJitError``; interrupting one forgets its answer and undoes nothing.

    Args:
        config: The whole configuration.
        policy: An LSP's hooks: an object with any of ``menu``, ``sell`` and ``channel``, such as a
            ``Policy``.

    Attributes:
        config: As given.

    Raises:
        ConfigError: The policy has no hook, or one that cannot be called, or the node is no LSP.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        policy: object | None = None,
        _make_native: Callable[[], NativeLike] = _asyncio._native,  # pyright: ignore[reportPrivateUsage]
    ) -> None:
        self.config = config
        self._policy = policy
        self._make_native = _make_native
        self._node()  # what is wrong with the policy is said here
        self._thread: LoopThread | None = None
        # One start or stop at a time; a signal's handler may stop what its own thread starts.
        self._turn = threading.RLock()

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Status:
        """Start, or start again after ``stop``.

        Raises:
            ConfigError: The configuration cannot be used.
            ChainError: bitcoind cannot be reached or is on another network.
            StoreLockedError: Another process has the store open.
            StoreCopyError: Another copy of this node runs.
            StoreOtherNodeError: The store belongs to another node.
            RecoveryNeededError: The store was restored: say ``NodeConfig.recover``.
            StoreError: The store cannot be read.
        """
        self._check()
        with self._turn:
            if self._thread is not None and self._thread.shut:  # a hook has ended its loop
                self._end(self._thread)
            thread = self._thread
            if thread is not None:
                return thread.call(lambda node: node.start())
            thread = self._thread = LoopThread(self._node(), self)
            try:
                return thread.call(lambda node: node.start())
            except BaseException:
                self._end(thread)
                raise

    def stop(self) -> None:
        """Disconnect, make everything durable, close the store. Does nothing when stopped."""
        self._check()
        with self._turn:
            thread = self._thread
            if thread is None:
                return
            try:
                with contextlib.suppress(NodeStoppedError):
                    thread.call(lambda node: node.stop())
            finally:
                self._end(thread)

    def _node(self) -> LoopNode:
        return LoopNode(self.config, policy=self._policy, _make_native=self._make_native)

    def _check(self) -> None:
        # Before the turn is waited for, which a forked child might never get.
        thread = self._thread
        if thread is None:
            refuse_loops()
        else:
            thread.check()

    def _end(self, thread: LoopThread) -> None:
        try:
            thread.end()
        finally:
            if self._thread is thread:  # a handler may have started anew
                self._thread = None

    def _running(self) -> LoopThread:
        thread = self._thread
        if thread is None:
            raise NodeStoppedError("the node is not started")
        return thread

    def _wait(self, begin: Callable[[LoopNode], Coroutine[Any, Any, T]]) -> T:
        return self._running().call(begin)

    def _each(
        self, begin: Callable[[LoopNode], AsyncGenerator[T, None]]
    ) -> Generator[T, None, None]:
        # Not asked for again at each step: a node started anew has another loop.
        thread = self._running()
        items = begin(thread.node)
        while told := thread.call(lambda _: _next(items)):
            yield told[0]

    def _invoice(self, told: _asyncio.Invoice) -> Invoice:
        return Invoice.model_validate(dict(told)).bound_to(self)

    # What follows is written by tests/facade.py, from node.py.

    # What it is and has

    def status(self) -> Status:
        """Node id, network, height and listeners."""
        return self._wait(lambda node: node.status())

    def wait_height(self, height: int, *, timeout: float = 30.0) -> Status:
        """Wait until the node has seen the block at ``height``; ``timeout`` in seconds.

        Raises:
            TimeoutError_: It has not in time.
        """
        return self._wait(lambda node: node.wait_height(height, timeout=timeout))

    def balances(self) -> Balances:
        """Coins and channel balances."""
        return self._wait(lambda node: node.balances())

    def fee_rates(self) -> FeeRates:
        """The fee rates in use."""
        return self._wait(lambda node: node.fee_rates())

    # Coins

    def new_address(self) -> str:
        """A fresh address of the node's wallet."""
        return self._wait(lambda node: node.new_address())

    def send_onchain(
        self,
        address: str,
        amount_sat: int | None,
        *,
        fee_rate_sat_per_kw: int | None = None,
    ) -> str:
        """Send coins.

        Args:
            address: Where to, on this network.
            amount_sat: Satoshi; None sends everything but the reserve for force-closes.
            fee_rate_sat_per_kw: Satoshi per 1000 weight, at least 253; None estimates.

        Returns:
            The txid.

        Raises:
            AddressError: Malformed, or of another network.
            AmountError: The amount or the fee rate is out of range.
            InsufficientFundsError: There are too few coins.
        """
        return self._wait(
            lambda node: node.send_onchain(
                address, amount_sat, fee_rate_sat_per_kw=fee_rate_sat_per_kw
            )
        )

    # Peers and channels

    def connect(self, peer: str, *, keep: bool = True) -> None:
        """Connect to ``node_id@host:port``; ``keep`` reconnects whenever it is lost.

        Raises:
            PeerError: It cannot be reached.
        """
        return self._wait(lambda node: node.connect(peer, keep=keep))

    def disconnect(self, node_id: str) -> None:
        """Disconnect, and stop reconnecting."""
        return self._wait(lambda node: node.disconnect(node_id))

    def peers(self) -> list[Peer]:
        """All peers, connected or kept."""
        return self._wait(lambda node: node.peers())

    def open_channel(
        self,
        peer: str,
        capacity_sat: int,
        *,
        push: Msat | None = None,
        announce: bool = False,
        timeout: float = 60.0,
    ) -> Channel:
        """Open a channel; returns when its funding transaction is signed and stored.

        It is broadcast at once, which may take a moment longer than this call.

        Args:
            peer: ``node_id@host:port``.
            capacity_sat: Its size in satoshi.
            push: Given to the peer at once.
            announce: Whether the network may know of it.
            timeout: Seconds.

        Raises:
            PeerError: The peer cannot be reached or refuses.
            InsufficientFundsError: There are too few coins.
        """
        return self._wait(
            lambda node: node.open_channel(
                peer, capacity_sat, push=push, announce=announce, timeout=timeout
            )
        )

    def close_channel(
        self, channel_id: str, *, force: bool = False, break_promise: str | None = None
    ) -> None:
        """Close a channel, together with the peer, or by ``force`` alone.

        Args:
            channel_id: The channel.
            force: Close without the peer, by publishing the last agreed state.
            break_promise: Why a channel that was sold is closed before its ``min_lifetime`` is over
                (LSPS2); the reason is logged and written into the ledger.

        Raises:
            NotFoundError: There is no such channel.
            ConfigError: It was sold for longer, and no reason is given.
        """
        return self._wait(
            lambda node: node.close_channel(channel_id, force=force, break_promise=break_promise)
        )

    def channels(self) -> list[Channel]:
        """All channels that are not closed."""
        return self._wait(lambda node: node.channels())

    # Payments

    def receive(
        self,
        amount: Msat | None,
        *,
        description: str = "",
        expiry: float = 3_600.0,
        max_opening_fee: Msat | None = None,
        jit: Literal["auto", "never", "always"] = "auto",
        lsp: str | None = None,
        timeout: float = 30.0,
    ) -> Invoice:
        """Make an invoice, buying a channel from an LSP if there is no room for the payment.

        Args:
            amount: What is to be paid; None lets the payer choose.
            description: Shown to the payer.
            expiry: Seconds until it cannot be paid any more; an LSP's offer may end sooner.
            max_opening_fee: The most the LSP may keep; None sets no limit.
            jit: ``auto`` buys a channel only if needed.
            lsp: The node id of a configured LSP; None chooses the cheapest.
            timeout: Seconds the LSP has for its answers.

        Raises:
            InboundCapacityError: No room, and ``jit`` is ``never``.
            NoLspError: No LSP is configured, or none sells such a channel.
            OpeningFeeError: The LSP asks for more than ``max_opening_fee``.
            LspError: The LSP is unreachable, refuses, or asks for trust it does not have.
        """
        return self._invoice(
            self._wait(
                lambda node: node.receive(
                    amount,
                    description=description,
                    expiry=expiry,
                    max_opening_fee=max_opening_fee,
                    jit=jit,
                    lsp=lsp,
                    timeout=timeout,
                )
            )
        )

    def invoice(self, payment_hash: str) -> Invoice:
        """An invoice made before, also before a restart.

        Raises:
            NotFoundError: There is none with this hash.
        """
        return self._invoice(self._wait(lambda node: node.invoice(payment_hash)))

    def decode(self, bolt11: str) -> DecodedInvoice:
        """Read anybody's invoice.

        Raises:
            InvoiceError: It is malformed or of another network.
        """
        return self._wait(lambda node: node.decode(bolt11))

    def pay(
        self,
        bolt11: str,
        *,
        amount: Msat | None = None,
        max_fee: Msat | None = None,
        retry: float = 60.0,
        timeout: float = 120.0,
    ) -> Payment:
        """Pay an invoice and wait for the outcome. Paying one twice does not pay twice.

        Args:
            bolt11: The invoice.
            amount: Only for an invoice without one.
            max_fee: The most routing may cost.
            retry: Seconds in which other routes are tried.
            timeout: Seconds to wait for the outcome.

        Raises:
            InvoiceError: It cannot be paid: expired, paid already, another network, malformed.
            PaymentError: It failed for good.
            TimeoutError_: No outcome in time: it is still on its way, see ``wait_payment``.
        """
        return self._wait(
            lambda node: node.pay(
                bolt11, amount=amount, max_fee=max_fee, retry=retry, timeout=timeout
            )
        )

    def keysend(
        self,
        node_id: str,
        amount: Msat,
        *,
        max_fee: Msat | None = None,
        retry: float = 60.0,
        timeout: float = 120.0,
    ) -> Payment:
        """Pay a node without an invoice, and wait for the outcome.

        Arguments and errors are those of ``pay``.
        """
        return self._wait(
            lambda node: node.keysend(
                node_id, amount, max_fee=max_fee, retry=retry, timeout=timeout
            )
        )

    def payment(self, payment_hash: str) -> Payment:
        """How a payment stands now.

        Raises:
            NotFoundError: There is none with this hash.
        """
        return self._wait(lambda node: node.payment(payment_hash))

    def wait_payment(self, payment_hash: str, *, timeout: float = 120.0) -> Payment:
        """Wait until a payment, in or out, has succeeded; ``timeout`` in seconds.

        Raises:
            PaymentError: It failed for good.
            TimeoutError_: It is still pending.
        """
        return self._wait(lambda node: node.wait_payment(payment_hash, timeout=timeout))

    def payments(self, *, after: int = 0) -> Generator[Payment, None, None]:
        """All finished payments, oldest first. ``after`` skips that many places of the history."""
        return self._each(lambda node: node.payments(after=after))

    def pending_payments(self) -> list[Payment]:
        """All payments whose outcome is not known yet."""
        return self._wait(lambda node: node.pending_payments())

    def timeline(self, payment_hash: str) -> list[Stage]:
        """Where the time of a payment went on this node, in order."""
        return self._wait(lambda node: node.timeline(payment_hash))

    # Webhooks

    def set_webhook(
        self, lsp: str, app_name: str, url: str, *, timeout: float = 30.0
    ) -> WebhookRegistration:
        """Have an LSP call a URL when there is something for this wallet while it is away (LSPS5).

        Put into the URL what tells whose server it is that wakes which device for which LSP, or a
        token for that (W-26): nothing else is sent but what happened. The LSP first tells the URL
        ``lsps5.webhook_registered``. ``verify_webhook`` checks what arrives.

        Args:
            lsp: The node id of a configured LSP.
            app_name: A name to replace or remove it by, at most 64 bytes of UTF-8 (W-02).
            url: An https URL in ASCII, at most 1,024 characters (W-01).
            timeout: Seconds the LSP has to answer.

        Raises:
            ConfigError: No LSP could take this name or URL.
            NoLspError: This LSP is not configured.
            LspUnreachableError: The LSP does not answer.
            LspRefusedError: It refuses, with code 503 for one webhook too many; -32601 says that
                it knows no webhooks.
        """
        return self._wait(lambda node: node.set_webhook(lsp, app_name, url, timeout=timeout))

    def list_webhooks(self, lsp: str, *, timeout: float = 30.0) -> Webhooks:
        """The names of this wallet's webhooks at an LSP (LSPS5).

        Args:
            lsp: The node id of a configured LSP.
            timeout: Seconds the LSP has to answer.

        Raises:
            NoLspError: This LSP is not configured.
            LspUnreachableError: The LSP does not answer.
            LspRefusedError: It refuses.
        """
        return self._wait(lambda node: node.list_webhooks(lsp, timeout=timeout))

    def remove_webhook(self, lsp: str, app_name: str, *, timeout: float = 30.0) -> None:
        """Have an LSP forget a webhook (LSPS5).

        Args:
            lsp: The node id of a configured LSP.
            app_name: Its name.
            timeout: Seconds the LSP has to answer.

        Raises:
            NoLspError: This LSP is not configured.
            LspUnreachableError: The LSP does not answer.
            LspRefusedError: It refuses, with code 1010 if there is none of this name (W-13).
        """
        return self._wait(lambda node: node.remove_webhook(lsp, app_name, timeout=timeout))

    def notify_client(
        self,
        client: str,
        notice: Literal[
            "payment_incoming", "liquidity_management_request", "onion_message_incoming"
        ],
    ) -> bool:
        """As an LSP, tell a client that is away something, over all of its webhooks (LSPS5).

        The node itself tells of payments that wait or are missed, of HTLCs about to run out, and of
        unpaid channels that it closes. Before you take back liquidity, tell so.

        Args:
            client: The client's node id.
            notice: What to tell.

        Returns:
            False if the client is connected, has no webhook, or was told so within the cooldown.
        """
        return self._wait(lambda node: node.notify_client(client, notice))

    # What happens

    def events(self, consumer: str = "default") -> Generator[Event, None, None]:
        """Every event, at least once: asking for the next one acknowledges the last.

        That is on the disk within a tenth of a second: what came just before a crash is told again.

        Args:
            consumer: Each name has its own place in the history, kept across restarts. Use one
                name in one place at a time.
        """
        return self._each(lambda node: node.events(consumer))

    # The service, and its books

    def orders(self) -> list[Order]:
        """The channels this LSP has sold and not yet archived."""
        return self._wait(lambda node: node.orders())

    def client_orders(self) -> list[Order]:
        """The channels this wallet has bought and not yet archived."""
        return self._wait(lambda node: node.client_orders())

    def ledger(self, *, after: int = 0) -> Generator[LedgerRow, None, None]:
        """Every row of the ledger after the one numbered ``after``, oldest first."""
        return self._each(lambda node: node.ledger(after=after))

    def ledger_check(self) -> LedgerCheck:
        """Hold every row of the ledger against the others, and all against wallet and channels.

        Looks at the latest commit; ``ldkjit ledger check`` does the same from outside. Then asks
        bitcoind for every coin and every funding. The time it takes grows with the history.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._wait(lambda node: node.ledger_check())

    @property
    def history(self) -> History:
        """Orders, channels, payments, fees and costs as rows, also while the node runs.

        Raises:
            ConfigError: This store is ``"memory"``; a ``MemoryStore`` can be read.
        """
        store = self.config.store
        if store == "memory":
            raise ConfigError('store: "memory" has no history to read, a MemoryStore() has one')
        return History(self.config.data_dir if isinstance(store, str) else store)

    def report(
        self,
        by: By | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Report:
        """What the ledger adds up to, and whether it does; takes about as long as the check.

        Args:
            by: What its lines are; None gives only the total.
            client: Only what concerns this client's node id.
            since: From this instant on.
            until: Before this instant; not after the present.

        Raises:
            ConfigError: This cannot be asked.
            StoreError: The store cannot be read.
        """
        return self._wait(lambda node: node.report(by, client=client, since=since, until=until))

    def metrics(self) -> list[Metric]:
        """What is counted since the start; ``ldkjit.metrics.exposition`` makes text of it."""
        return self._wait(lambda node: node.metrics())

    # Backup and recovery

    def backup(self, path: str | os.PathLike[str]) -> Backup:
        """Write this node, its words and all, into one new file, as it is in one commit.

        Only the owner can read the file, and whoever can read it can take the coins. What is
        restored from it brings home what the node held by then; channels do not go on from it.
        ``ldkjit backup`` does the same from outside.

        Args:
            path: The file; it must not exist.

        Raises:
            ConfigError: The file exists, or this store is in memory.
            StoreError: It cannot be written.
        """
        return self._wait(lambda node: node.backup(path))

    def recovery(self) -> Recovery:
        """How far this node is with bringing home what it held.

        Raises:
            NotFoundError: It was not started with ``NodeConfig.recover``.
        """
        return self._wait(lambda node: node.recovery())
