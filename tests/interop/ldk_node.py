"""An ldk-node process on a regtest, and what tests and benchmarks ask of it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from ldkjit.sandbox import Regtest, until
from ldkjit.sandbox.regtest import free_ports

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
# More than ldk-node waits for an LSP's answer (5 s), and for a wallet's turn on a busy machine.
CALL_TIMEOUT_S = 60.0
START_ATTEMPTS = 3
# No answer is larger here; a line must fit.
_LINE_BYTES = 2**24

# "sqlite" is ldk-node's default.
LdkStore = Literal["sqlite", "filesystem"]
PaymentStatus = Literal["pending", "succeeded", "failed"]
Event = dict[str, Any]


class LdkNodeError(Exception):
    """ldk-node refused a call.

    Attributes:
        kind: ldk-node's name for it, e.g. ``LiquidityFeeTooHigh``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class LdkNodeEndedError(Exception):
    """The process is not there any more; the message holds the end of what it said."""


@dataclasses.dataclass(frozen=True)
class LdkService:
    """An LSPS2 service: every setting that ldk-node has for it."""

    require_token: str | None = None
    advertise_service: bool = False
    channel_opening_fee_ppm: int = 10_000
    channel_over_provisioning_ppm: int = 100_000
    min_channel_opening_fee_msat: int = 1_000_000
    min_channel_lifetime: int = 1_008
    max_client_to_self_delay: int = 2_016
    min_payment_size_msat: int = 1_000_000
    max_payment_size_msat: int = 5_000_000_000
    client_trusts_lsp: bool = False

    def fee(self, size: int) -> int:
        """The opening fee by the formula of the specification, msat."""
        share = -(-size * self.channel_opening_fee_ppm // 1_000_000)
        return max(self.min_channel_opening_fee_msat, share)


@dataclasses.dataclass(frozen=True)
class LdkLsp:
    """The LSP that a wallet buys from."""

    at: str
    """``node_id@host:port``."""
    token: str | None = None

    @property
    def node_id(self) -> str:
        """Its node id."""
        return self.at.partition("@")[0]


@dataclasses.dataclass(frozen=True)
class LdkChannel:
    """A channel as ldk-node sees it. Amounts leave out the reserves."""

    channel_id: str
    user_channel_id: str
    peer: str
    funding: str | None
    """``txid:vout``."""
    capacity_sat: int
    outbound_msat: int
    inbound_msat: int
    reserve_sat: int | None
    ready: bool
    usable: bool
    outgoing: bool
    announced: bool
    confirmations: int | None


@dataclasses.dataclass(frozen=True)
class LdkPayment:
    """A payment as ldk-node keeps it."""

    payment_id: str
    """The payment hash, of one by invoice."""
    kind: Literal["bolt11", "bolt11_jit", "spontaneous", "onchain", "bolt12"]
    outgoing: bool
    status: PaymentStatus
    amount_msat: int | None
    fee_msat: int | None
    skimmed_msat: int | None
    """The opening fee that was kept back."""


@dataclasses.dataclass(frozen=True)
class LdkBalances:
    """What an ldk-node has, satoshi; ``lightning`` and ``being_swept`` are for people."""

    onchain_sat: int
    spendable_onchain_sat: int
    lightning_sat: int
    lightning: list[str]
    being_swept: list[str]


class LdkNode:
    """An ldk-node on a regtest: plain, a wallet, or an LSP. It never outlives its Python.

    Args:
        program: What ``find_ldk_node`` gives.
        chain: The started regtest it follows.
        name: Its alias, and part of its folder's name.
        lsp: Whom it buys channels from.
        service: What it sells.
        announces: Whether it may have channels that everybody knows.
        log_level: Of its log file.
        store: What it keeps its state in.
        folder: Its data folder, which is there; by default a new temporary one.

    Attributes:
        folder: Its seed, store and log.
        node_id: Valid once started.
        events: All it has told since it was made, the oldest first.
    """

    node_id: str

    def __init__(
        self,
        program: Path,
        chain: Regtest,
        name: str,
        *,
        lsp: LdkLsp | None = None,
        service: LdkService | None = None,
        announces: bool = False,
        log_level: str = "debug",
        store: LdkStore = "sqlite",
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"ldkjit-ldk-node-{name}-"))
        self.events: list[Event] = []
        self.lsp = lsp
        self.service = service
        self._program = program
        self._chain = chain
        self._announces = announces
        self._log_level = log_level
        self._store = store
        self._port: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._news: asyncio.Future[None] | None = None

    @property
    def address(self) -> str:
        """``node_id@host:port``."""
        return f"{self.node_id}@127.0.0.1:{self._port}"

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    # The process

    async def start(self, timeout: float = START_TIMEOUT_S) -> None:
        """Start, or start again with the same folder and port; ``timeout`` in seconds.

        Raises:
            LdkNodeError: It could not start.
            LdkNodeEndedError: It ended.
        """
        for attempt in range(1, START_ATTEMPTS + 1):
            first = self._port is None
            self._port = self._port or free_ports(1)[0]
            try:
                await self._launch(timeout)
                break
            except LdkNodeError as error:
                await self.kill()
                # Another program took the port between our look and its bind: try another one.
                # After a first start it is known to peers and must stay.
                taken = error.kind in ("InvalidSocketAddress", "ConnectionFailed")
                if not first or attempt == START_ATTEMPTS or not taken:
                    raise
                self._port = None
            except BaseException:
                await self.kill()
                raise

    async def _launch(self, timeout: float) -> None:
        with (self.folder / "stderr.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                # Ctrl-C is for Python, which then stops it in order. Whatever ends Python closes
                # stdin, at which it stops by itself.
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read(self._process))
        rpc = self._chain.rpc
        self.node_id = await self.call(
            "start",
            timeout=timeout,
            folder=str(self.folder),
            store=self._store,
            rpc_host="127.0.0.1",
            rpc_port=rpc.port,
            rpc_user=rpc.user,
            rpc_password=rpc.password,
            listen=[f"127.0.0.1:{self._port}"],
            alias=self.name if self._announces else None,
            lsp=self._lsp(),
            service=dataclasses.asdict(self.service) if self.service else None,
            # A new wallet has no coins to keep back for the LSP's channel.
            no_reserve=[self.lsp.node_id] if self.lsp else [],
            log_level=self._log_level,
        )

    def _lsp(self) -> dict[str, Any] | None:
        if self.lsp is None:
            return None
        node_id, _, address = self.lsp.at.partition("@")
        return {"node_id": node_id, "address": address, "token": self.lsp.token}

    async def stop(self) -> None:
        """Stop it in order, if it runs.

        Raises:
            LdkNodeEndedError: It had ended by itself.
        """
        if self._process is None:
            return
        try:
            await self.call("stop", timeout=STOP_TIMEOUT_S)
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill it, if it runs: it has no time to save anything."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()
        if self._reader is not None:
            await self._reader
        process._transport.close()  # type: ignore[attr-defined]  # pipes, before the loop ends

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out what it says, until it says no more."""
        assert process.stdout is not None
        async for line in process.stdout:
            told = json.loads(line)
            if "event" in told:
                self.events.append(told["event"])
                if self._news is not None and not self._news.done():
                    self._news.set_result(None)
                continue
            call = self._calls.pop(told["id"], None)
            if call is None or call.done():
                continue
            if error := told.get("error"):
                call.set_exception(LdkNodeError(error["kind"], error["message"]))
            else:
                call.set_result(told["result"])
        ended = LdkNodeEndedError(f"{self.name} ended: {self.last_words()}")
        for call in [*self._calls.values(), *filter(None, [self._news])]:
            if not call.done():
                call.set_exception(ended)
                call.exception()  # nobody need be waiting for it
        self._calls.clear()
        self._news = None

    def last_words(self) -> str:
        """The end of what it wrote to stderr, or where its log is."""
        said = (self.folder / "stderr.log").read_text(errors="replace").strip()
        return said[-2_000:] or f"nothing on stderr; see {self.folder}/ldk_node.log"

    def log(self) -> str:
        """What ldk-node logged so far."""
        return (self.folder / "ldk_node.log").read_text(errors="replace")

    async def call(self, method: str, *, timeout: float = CALL_TIMEOUT_S, **params: Any) -> Any:
        """Ask it for something: see ``ldk_node/src/calls.rs``.

        Raises:
            LdkNodeError: It refused.
            LdkNodeEndedError: It ended, or does not run.
            asyncio.TimeoutError: No answer came in time.
        """
        if self._process is None or self._process.stdin is None:
            raise LdkNodeEndedError(f"{self.name} does not run")
        if self._process.returncode is not None:
            raise LdkNodeEndedError(f"{self.name} ended: {self.last_words()}")
        number = next(self._ids)
        request: dict[str, Any] = {"id": number, "method": method}
        if params:
            request["params"] = params
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        try:
            return await asyncio.wait_for(answer, timeout)
        finally:
            self._calls.pop(number, None)

    async def event(
        self, *kinds: str, after: int = 0, timeout: float = 30.0, **fields: Any
    ) -> Event:
        """Wait for the first event of one of these kinds with these fields.

        Args:
            kinds: See ``ldk_node/src/answers.rs``.
            after: How many of ``events`` to leave out.
            timeout: Seconds.
            fields: What it must hold.

        Raises:
            TimeoutError: It has not come in time.
            LdkNodeEndedError: The process ended.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            for event in itertools.islice(self.events, after, None):
                if event["kind"] in kinds and event.items() >= fields.items():
                    return event
            if self._process is None:
                raise LdkNodeEndedError(f"{self.name} does not run")
            if self._news is None or self._news.done():
                self._news = loop.create_future()
            try:
                await asyncio.wait_for(asyncio.shield(self._news), end - loop.time())
            except asyncio.TimeoutError:
                raise TimeoutError(
                    f"{self.name}: no {' or '.join(kinds)} with {fields} in {timeout:.0f} s; "
                    f"it told {self.events[after:]}"
                ) from None

    # What it can do

    async def height(self) -> int:
        """The block it is at."""
        return int((await self.call("status"))["height"])

    async def sync(self) -> int:
        """Let it follow the chain to its tip; return the height there."""
        tip = await self._chain.rpc.height()

        async def there() -> int | None:
            # A round that began before the last block ends below it.
            await self.call("sync")
            height = await self.height()
            return height if height >= tip else None

        return await until(there, f"{self.name} to be at block {tip}")

    async def new_address(self) -> str:
        """Where it can be sent coins."""
        return str(await self.call("new_address"))

    async def balances(self) -> LdkBalances:
        """What it has."""
        return LdkBalances(**await self.call("balances"))

    async def connected(self) -> set[str]:
        """The node ids of the peers it is connected with."""
        return {each["node_id"] for each in await self.call("peers") if each["connected"]}

    async def connect(self, at: str) -> None:
        """Connect with ``node_id@host:port``, now and after each start."""
        node_id, _, address = at.partition("@")
        await self.call("connect", node_id=node_id, address=address)

    async def channels(self) -> list[LdkChannel]:
        """Its channels."""
        return [LdkChannel(**each) for each in await self.call("channels")]

    async def open_channel(
        self, at: str, capacity_sat: int, *, push_msat: int = 0, announced: bool = False
    ) -> str:
        """Open a channel to ``node_id@host:port``; return its funding, which is in no block."""
        node_id, _, address = at.partition("@")
        known = len(self.events)
        await self.call(
            "open_channel",
            node_id=node_id,
            address=address,
            capacity_sat=capacity_sat,
            push_msat=push_msat,
            announced=announced,
        )
        return str((await self.event("channel_pending", after=known, peer=node_id))["funding"])

    async def close_channel(self, channel: LdkChannel, *, force: bool = False) -> None:
        """Close a channel, by agreement or by force."""
        await self.call(
            "close_channel",
            node_id=channel.peer,
            user_channel_id=channel.user_channel_id,
            force=force,
        )

    async def receive(
        self,
        amount: int | None,
        *,
        payment_hash: str | None = None,
        expiry_s: int = 3_600,
    ) -> str:
        """An ordinary invoice; with a payment hash the caller must ``claim`` or ``refuse``."""
        return str(
            await self.call(
                "receive", amount_msat=amount, payment_hash=payment_hash, expiry_s=expiry_s
            )
        )

    async def receive_jit(
        self,
        amount: int | None,
        *,
        max_fee: int | None = None,
        payment_hash: str | None = None,
        expiry_s: int = 3_600,
    ) -> str:
        """An invoice that is paid over a channel its LSP then opens.

        Args:
            amount: In msat; None lets the payer choose.
            max_fee: The largest opening fee, msat; in millionths if the payer chooses.
            payment_hash: Given, the caller must ``claim`` or ``refuse``.
            expiry_s: Of the invoice.
        """
        return str(
            await self.call(
                "receive_jit",
                amount_msat=amount,
                max_fee=max_fee,
                payment_hash=payment_hash,
                expiry_s=expiry_s,
            )
        )

    async def claim(self, payment_hash: str, preimage: str, claimable: int) -> None:
        """Take a payment that is held, of so many msat."""
        await self.call(
            "claim", payment_hash=payment_hash, preimage=preimage, claimable_msat=claimable
        )

    async def refuse(self, payment_hash: str) -> None:
        """Fail a payment that is held."""
        await self.call("refuse", payment_hash=payment_hash)

    async def send(self, bolt11: str, amount: int | None = None) -> str:
        """Begin to pay an invoice; return its payment hash."""
        return str(await self.call("pay", bolt11=bolt11, amount_msat=amount))

    async def pay(
        self, bolt11: str, amount: int | None = None, *, timeout: float = 60.0
    ) -> LdkPayment:
        """Pay an invoice and wait for the end, good or bad."""
        known = len(self.events)
        payment_hash = await self.send(bolt11, amount)
        await self.event(
            *("payment_sent", "payment_failed"),
            after=known,
            timeout=timeout,
            payment_hash=payment_hash,
        )
        payment = await self.payment(payment_hash)
        assert payment is not None
        return payment

    async def payment(self, payment_hash: str) -> LdkPayment | None:
        """What it knows of a payment."""
        told = await self.call("payment", payment_hash=payment_hash)
        return LdkPayment(**told) if told else None
