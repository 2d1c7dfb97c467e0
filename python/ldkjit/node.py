"""The node: what an application starts, calls and stops."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

from pydantic import PrivateAttr

from ._bridge import Bridge, Caller, NativeLike
from ._hooks import HookRunner, collect
from .amounts import MAX_MSAT, MSAT_PER_SAT, Msat
from .config import NodeConfig
from .errors import AmountError, ConfigError, NodeStoppedError, PaymentError, TimeoutError_
from .events import Event, parse_event
from .history import By, History, question
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
from .replay import Recorder, stand_ins

_PAGE = 100
_MAX_SAT = MAX_MSAT // MSAT_PER_SAT
_MIN_FEE_RATE = 253  # sat per 1000 weight: 1 sat per vbyte, below which nobody relays
_MAX_FEE_RATE = 1_000_000
_LONGEST_S = 86_400.0 * 366


def _native() -> NativeLike:
    # Here, not above: what needs no node (config, amounts, sandbox) works before it is built.
    from ._ldkjit import Native

    return Native()


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{name}: accepts seconds from 0 on, not {value!r}")
    return min(float(value), _LONGEST_S)


def _ms(seconds: float) -> int:
    return max(1, round(_seconds("timeout", seconds) * 1_000))


def _whole_seconds(name: str, value: float) -> int:
    return math.ceil(_seconds(name, value))


# Checked here, as JSON would let the node speak of "u64" and of no parameter's name.
def _amount(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    try:
        return int(Msat(value))
    except AmountError as error:
        raise AmountError(f"{name}: {error.message}", details={"field": name}) from None


def _whole(name: str, value: Any, low: int, high: int, unit: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        text = f"{name}: accepts a whole number of {unit}, not {type(value).__name__} {value!r}"
    elif isinstance(value, Msat):
        text = f"{name}: accepts {unit}, not an amount in msat: write {name}=amount.sat"
    elif not low <= value <= high:
        text = f"{name}: accepts {low:_} to {high:_} {unit}, not {value:_}"
    else:
        return int(value)
    raise AmountError(text, details={"field": name})


def _hooks_of(config: NodeConfig, policy: object | None) -> dict[str, Callable[[Any], Any]]:
    if config.lsp is None:
        if policy is not None:
            raise ConfigError("policy: only for a node that sells channels, set NodeConfig.lsp")
        return {}
    own = config.lsp.policy
    return collect(policy, {"menu": own.menu, "sell": own.sell, "channel": own.channel})


class Invoice(InvoiceData):
    """An invoice of this node, and how to wait for its payment."""

    _node: Node | None = PrivateAttr(default=None)

    def bound_to(self, node: Node) -> Invoice:
        """Say which node made it; ``Node`` does so itself."""
        self._node = node
        return self

    async def settled(self, timeout: float = 3_600.0) -> Payment:
        """Wait until it is paid and the payment claimed.

        Args:
            timeout: Seconds.

        Raises:
            PaymentError: A payment came and was failed back.
            TimeoutError_: Nothing came in time; the invoice may still be paid.
        """
        if self._node is None:
            raise NodeStoppedError("this invoice was not made by a node of this program")
        return await self._node.wait_payment(self.payment_hash, timeout=timeout)


class Node:
    """A Lightning node that lives in this program.

    Use it as ``async with Node(config) as node:``, or call ``start`` and ``stop``. Leaving
    without ``stop`` equals a crash, which is safe. It answers in the event loop and the process it
    was started in. Every method raises a ``LdkJitError``; cancelling one forgets its answer
    and undoes nothing.

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
        _make_native: Callable[[], NativeLike] = _native,
    ) -> None:
        self.config = config
        self._hooks = _hooks_of(config, policy)
        self._make_native = _make_native
        self._bridge: Caller | None = None
        self._turn = asyncio.Lock()  # one start or stop at a time

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> Status:
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
        async with self._turn:
            if self._bridge is not None:
                return await self.status()
            config = self.config.model_dump(mode="json")
            hooks, (asked, record) = None, self._recorded()
            if asked:
                hooks = HookRunner(asked, asyncio.get_running_loop(), record)
                config["lsp"]["policy"]["hooks"] = hooks.places()
            bridge = Bridge(self._make_native, hooks)
            try:
                if not isinstance(self.config.store, str):
                    bridge.use_store(self.config.store)
                told = await bridge.call("start", **config)
            except BaseException:
                bridge.close()
                raise
            self._bridge = bridge
            return Status.model_validate(told)

    def _recorded(
        self,
    ) -> tuple[dict[str, Callable[[Any], Any]], Callable[[str, str | None, int], None] | None]:
        """The hooks to ask, and what keeps their answers: a record has every question."""
        lsp = self.config.lsp
        if lsp is None or lsp.policy.record is None:
            return self._hooks, None
        recorder = Recorder(lsp.policy.record, lsp.policy.record_max_bytes)
        return {**stand_ins(lsp.token_menus), **self._hooks}, recorder.add

    async def stop(self) -> None:
        """Disconnect, make everything durable, close the store. Does nothing when stopped."""
        async with self._turn:
            if self._bridge is None:
                return
            self._bridge.check()  # a child or another loop must not stop what it does not own
            bridge, self._bridge = self._bridge, None
            try:
                with contextlib.suppress(NodeStoppedError):
                    await bridge.stop()
            finally:
                bridge.close()

    async def _call(self, method: str, /, **params: Any) -> Any:
        if self._bridge is None:
            raise NodeStoppedError("the node is not started")
        return await self._bridge.call(method, **params)

    # What it is and has

    async def status(self) -> Status:
        """Node id, network, height and listeners."""
        return Status.model_validate(await self._call("status"))

    async def wait_height(self, height: int, *, timeout: float = 30.0) -> Status:
        """Wait until the node has seen the block at ``height``; ``timeout`` in seconds.

        Raises:
            TimeoutError_: It has not in time.
        """
        return Status.model_validate(
            await self._call(
                "wait_height",
                height=_whole("height", height, 0, 2**32 - 1, "blocks"),
                timeout_ms=_ms(timeout),
            )
        )

    async def balances(self) -> Balances:
        """Coins and channel balances."""
        return Balances.model_validate(await self._call("balances"))

    async def fee_rates(self) -> FeeRates:
        """The fee rates in use."""
        return FeeRates.model_validate(await self._call("fee_rates"))

    # Coins

    async def new_address(self) -> str:
        """A fresh address of the node's wallet."""
        return str((await self._call("new_address"))["address"])

    async def send_onchain(
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
        told = await self._call(
            "send_onchain",
            address=address,
            amount_sat=_whole("amount_sat", amount_sat, 1, _MAX_SAT, "sat"),
            fee_rate_sat_per_kw=_whole(
                "fee_rate_sat_per_kw",
                fee_rate_sat_per_kw,
                _MIN_FEE_RATE,
                _MAX_FEE_RATE,
                "sat per 1000 weight",
            ),
        )
        return str(told["txid"])

    # Peers and channels

    async def connect(self, peer: str, *, keep: bool = True) -> None:
        """Connect to ``node_id@host:port``; ``keep`` reconnects whenever it is lost.

        Raises:
            PeerError: It cannot be reached.
        """
        await self._call("connect", peer=peer, keep=keep)

    async def disconnect(self, node_id: str) -> None:
        """Disconnect, and stop reconnecting."""
        await self._call("disconnect", node_id=node_id)

    async def peers(self) -> list[Peer]:
        """All peers, connected or kept."""
        return [Peer.model_validate(each) for each in await self._call("peers")]

    async def open_channel(
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
        told = await self._call(
            "open_channel",
            peer=peer,
            capacity_sat=_whole("capacity_sat", capacity_sat, 1, _MAX_SAT, "sat"),
            push_msat=_amount("push", push) or 0,
            announce=announce,
            timeout_ms=_ms(timeout),
        )
        return Channel.model_validate(told)

    async def close_channel(
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
        await self._call(
            "close_channel", channel_id=channel_id, force=force, break_promise=break_promise
        )

    async def channels(self) -> list[Channel]:
        """All channels that are not closed."""
        return [Channel.model_validate(each) for each in await self._call("channels")]

    # Payments

    async def receive(
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
        told = await self._call(
            "receive",
            amount_msat=_amount("amount", amount),
            description=description,
            expiry_s=_whole_seconds("expiry", expiry),
            max_opening_fee_msat=_amount("max_opening_fee", max_opening_fee),
            jit=jit,
            lsp=lsp,
            timeout_ms=_ms(timeout),
        )
        return self._invoice(told)

    async def invoice(self, payment_hash: str) -> Invoice:
        """An invoice made before, also before a restart.

        Raises:
            NotFoundError: There is none with this hash.
        """
        return self._invoice(await self._call("invoice", payment_hash=payment_hash))

    def _invoice(self, told: Any) -> Invoice:
        return Invoice.model_validate(told).bound_to(self)

    async def decode(self, bolt11: str) -> DecodedInvoice:
        """Read anybody's invoice.

        Raises:
            InvoiceError: It is malformed or of another network.
        """
        return DecodedInvoice.model_validate(await self._call("decode", bolt11=bolt11))

    async def pay(
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
        told = await self._call(
            "pay",
            bolt11=bolt11,
            amount_msat=_amount("amount", amount),
            max_fee_msat=_amount("max_fee", max_fee),
            retry_s=_whole_seconds("retry", retry),
        )
        return await self.wait_payment(told["id"], timeout=timeout)

    async def keysend(
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
        told = await self._call(
            "keysend",
            node_id=node_id,
            amount_msat=_amount("amount", amount),
            max_fee_msat=_amount("max_fee", max_fee),
            retry_s=_whole_seconds("retry", retry),
        )
        return await self.wait_payment(told["id"], timeout=timeout)

    async def payment(self, payment_hash: str) -> Payment:
        """How a payment stands now.

        Raises:
            NotFoundError: There is none with this hash.
        """
        return Payment.model_validate(await self._call("payment", id=payment_hash))

    async def wait_payment(self, payment_hash: str, *, timeout: float = 120.0) -> Payment:
        """Wait until a payment, in or out, has succeeded; ``timeout`` in seconds.

        Raises:
            PaymentError: It failed for good.
            TimeoutError_: It is still pending.
        """
        told = await self._call("wait_payment", id=payment_hash, timeout_ms=_ms(timeout))
        payment = Payment.model_validate(told)
        if payment.status == "failed":
            raise PaymentError(
                f"the payment failed: {payment.failure or 'no reason is known'}",
                details={"payment_hash": payment_hash, "failure": payment.failure},
            )
        if payment.status == "pending":
            raise TimeoutError_(
                "the payment is still pending",
                retryable=True,
                details={"payment_hash": payment_hash},
            )
        return payment

    async def payments(self, *, after: int = 0) -> AsyncGenerator[Payment, None]:
        """All finished payments, oldest first. ``after`` skips that many places of the history."""
        async for item in self._pages("payments", after):
            yield Payment.model_validate(item)

    async def pending_payments(self) -> list[Payment]:
        """All payments whose outcome is not known yet."""
        told = await self._call("payments", pending=True)
        return [Payment.model_validate(each) for each in told["items"]]

    async def timeline(self, payment_hash: str) -> list[Stage]:
        """Where the time of a payment went on this node, in order."""
        told = await self._call("timeline", payment_hash=payment_hash)
        return [Stage.model_validate(each) for each in told]

    # Webhooks

    async def set_webhook(
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
        told = await self._call(
            "set_webhook", lsp=lsp, app_name=app_name, webhook=url, timeout_ms=_ms(timeout)
        )
        return WebhookRegistration.model_validate(told)

    async def list_webhooks(self, lsp: str, *, timeout: float = 30.0) -> Webhooks:
        """The names of this wallet's webhooks at an LSP (LSPS5).

        Args:
            lsp: The node id of a configured LSP.
            timeout: Seconds the LSP has to answer.

        Raises:
            NoLspError: This LSP is not configured.
            LspUnreachableError: The LSP does not answer.
            LspRefusedError: It refuses.
        """
        told = await self._call("list_webhooks", lsp=lsp, timeout_ms=_ms(timeout))
        return Webhooks.model_validate(told)

    async def remove_webhook(self, lsp: str, app_name: str, *, timeout: float = 30.0) -> None:
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
        await self._call("remove_webhook", lsp=lsp, app_name=app_name, timeout_ms=_ms(timeout))

    async def notify_client(
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
        told = await self._call("notify_client", node_id=client, notice=notice)
        return bool(told["told"])

    # What happens

    async def events(self, consumer: str = "default") -> AsyncGenerator[Event, None]:
        """Every event, at least once: asking for the next one acknowledges the last.

        That is on the disk within a tenth of a second: what came just before a crash is told again.

        Args:
            consumer: Each name has its own place in the history, kept across restarts. Use one
                name in one place at a time.
        """
        while True:
            told = await self._call("next_event", consumer=consumer)
            yield parse_event(told["event"])
            await self._call("ack_event", consumer=consumer, seq=told["seq"])

    # The service, and its books

    async def orders(self) -> list[Order]:
        """The channels this LSP has sold and not yet archived."""
        return [Order.model_validate(each) for each in await self._call("orders")]

    async def client_orders(self) -> list[Order]:
        """The channels this wallet has bought and not yet archived."""
        return [Order.model_validate(each) for each in await self._call("client_orders")]

    async def ledger(self, *, after: int = 0) -> AsyncGenerator[LedgerRow, None]:
        """Every row of the ledger after the one numbered ``after``, oldest first."""
        async for item in self._pages("ledger", after):
            yield LedgerRow.model_validate(item)

    async def ledger_check(self) -> LedgerCheck:
        """Hold every row of the ledger against the others, and all against wallet and channels.

        Looks at the latest commit; ``ldkjit ledger check`` does the same from outside. Then asks
        bitcoind for every coin and every funding. The time it takes grows with the history.

        Raises:
            StoreError: The store cannot be read.
        """
        return LedgerCheck.model_validate(await self._call("ledger_check"))

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

    async def report(
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
        ask = question(by, client=client, since=since, until=until)
        return Report.model_validate(await self._call("report", **ask))

    async def metrics(self) -> list[Metric]:
        """What is counted since the start; ``ldkjit.metrics.exposition`` makes text of it."""
        return [Metric.model_validate(each) for each in await self._call("metrics")]

    # Backup and recovery

    async def backup(self, path: str | os.PathLike[str]) -> Backup:
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
        return Backup.model_validate(await self._call("backup", path=os.fspath(path)))

    async def recovery(self) -> Recovery:
        """How far this node is with bringing home what it held.

        Raises:
            NotFoundError: It was not started with ``NodeConfig.recover``.
        """
        return Recovery.model_validate(await self._call("recovery"))

    async def _pages(self, method: str, after: int) -> AsyncGenerator[Any, None]:
        place: int | None = after
        while place is not None:
            told = await self._call(method, after=place, limit=_PAGE)
            for item in told["items"]:
                yield item
            place = told["next"] if told["items"] else None
