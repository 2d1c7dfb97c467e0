"""An LND process on a regtest, and what tests ask of it, over REST."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import signal
import ssl
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ldkjit.sandbox import Regtest, until
from ldkjit.sandbox.regtest import WATCHED, ended, free_ports

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
START_ATTEMPTS = 3
CALL_TIMEOUT_S = 30.0
# The record of a spontaneous payment's preimage.
KEYSEND_RECORD = 5_482_373_484
# No answer of LND's is larger here; a stream's line must fit.
_LINE_BYTES = 2**24

PaymentStatus = Literal["SUCCEEDED", "FAILED", "IN_FLIGHT", "INITIATED"]
InvoiceState = Literal["OPEN", "ACCEPTED", "SETTLED", "CANCELED"]


class LndStartError(Exception):
    """LND did not start; the message holds the end of what it said."""


class LndError(Exception):
    """LND refused a call.

    Attributes:
        code: The gRPC status code.
        message: LND's words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


# What it answers


@dataclasses.dataclass(frozen=True)
class LndChannel:
    """A channel as LND sees it. Its sides leave out the commitment fee."""

    funding: str
    """``txid:vout``."""
    scid: int
    peer: str
    capacity_sat: int
    local_sat: int
    remote_sat: int
    active: bool
    pending_htlcs: int


@dataclasses.dataclass(frozen=True)
class LndInvoice:
    """An invoice of LND's."""

    bolt11: str
    payment_hash: str


@dataclasses.dataclass(frozen=True)
class LndPart:
    """One HTLC of a payment, and how it ended."""

    amount: int
    """What was sent to the recipient, msat."""
    status: str
    failure: str | None
    """The code it failed with."""
    failed_at: int | None
    """How many hops away that was; 0 is LND itself."""


@dataclasses.dataclass(frozen=True)
class LndPayment:
    """A payment LND made. Amounts in msat."""

    payment_hash: str
    preimage: str
    status: PaymentStatus
    amount: int
    fee: int
    failure: str
    parts: tuple[LndPart, ...]

    @property
    def delivered(self) -> list[int]:
        """The amounts of the parts that arrived, msat, in order of size."""
        return sorted(each.amount for each in self.parts if each.status == "SUCCEEDED")


@dataclasses.dataclass(frozen=True)
class Hop:
    """A hop to a node that is not in the public graph."""

    node_id: str
    """Of the hop's first end."""
    scid: int
    base_msat: int
    ppm: int
    cltv_delta: int

    def told(self) -> dict[str, Any]:
        """As LND wants it."""
        return {
            "node_id": self.node_id,
            "chan_id": str(self.scid),
            "fee_base_msat": self.base_msat,
            "fee_proportional_millionths": self.ppm,
            "cltv_expiry_delta": self.cltv_delta,
        }


def _b64(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def _url64(text: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(text)).decode()


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()


def _part(told: dict[str, Any]) -> LndPart:
    failure: dict[str, Any] = told.get("failure") or {}
    return LndPart(
        amount=int(told["route"]["hops"][-1]["amt_to_forward_msat"]),
        status=told["status"],
        failure=failure.get("code"),
        failed_at=failure.get("failure_source_index"),
    )


def _payment(told: dict[str, Any]) -> LndPayment:
    return LndPayment(
        payment_hash=told["payment_hash"],
        preimage=told["payment_preimage"],
        status=told["status"],
        amount=int(told["value_msat"]),
        fee=int(told["fee_msat"]),
        failure=told["failure_reason"],
        parts=tuple(_part(each) for each in told["htlcs"]),
    )


class Lnd:
    """An LND on a regtest, in a temporary folder. It never outlives its Python.

    Args:
        programs: The folder ``find_lnd`` gives.
        chain: The started regtest it follows.
        alias: Its name.

    Attributes:
        folder: Its data and logs.
        node_id: Its node id; valid once started.
    """

    node_id: str

    def __init__(self, programs: Path, chain: Regtest, alias: str) -> None:
        self.alias = alias
        self.folder = Path(tempfile.mkdtemp(prefix=f"ldkjit-{alias}-"))
        self._program = programs / "lnd"
        self._chain = chain
        self._ports: list[int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        """``node_id@host:port``."""
        assert self._ports is not None
        return f"{self.node_id}@127.0.0.1:{self._ports[0]}"

    # The process

    async def start(self) -> None:
        """Start, or start again with the same data and ports.

        Raises:
            LndStartError: It ended, or was not ready within a minute.
        """
        for attempt in range(1, START_ATTEMPTS + 1):
            first = self._ports is None
            self._ports = self._ports or free_ports(3)
            try:
                await self._launch()
                break
            except BaseException as error:
                await self.kill()
                # Another program took a port between our look and LND's bind: try others. After
                # a first start they are known to its peers and must stay.
                if not first or attempt == START_ATTEMPTS or "in use" not in str(error):
                    raise
                self._ports = None
        self.node_id = (await self._info())["identity_pubkey"]

    async def _launch(self) -> None:
        assert self._ports is not None
        peer_port, grpc_port, rest_port = self._ports
        rpc = self._chain.rpc
        flags = [
            f"--lnddir={self.folder}",
            "--noseedbackup",
            f"--alias={self.alias}",
            "--debuglevel=info,PEER=debug,HSWC=debug,CRTR=debug",
            "--nobootstrap",
            f"--listen=127.0.0.1:{peer_port}",
            f"--rpclisten=127.0.0.1:{grpc_port}",
            f"--restlisten=127.0.0.1:{rest_port}",
            "--bitcoin.regtest",
            "--bitcoin.node=bitcoind",
            "--bitcoin.defaultchanconfs=1",
            f"--bitcoind.rpchost=127.0.0.1:{rpc.port}",
            f"--bitcoind.rpcuser={rpc.user}",
            f"--bitcoind.rpcpass={rpc.password}",
            f"--bitcoind.zmqpubrawblock={self._chain.zmq_block}",
            f"--bitcoind.zmqpubrawtx={self._chain.zmq_tx}",
            "--bitcoind.estimatemode=ECONOMICAL",
            # The intervals below are for people's patience and the network's, not for a test's.
            "--trickledelay=50",
            "--minbackoff=200ms",
            "--maxbackoff=1s",
            "--maxpendingchannels=10",
            "--protocol.wumbo-channels",
            "--accept-keysend",
        ]
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (a fork and exec: milliseconds)
                ["/bin/sh", "-c", WATCHED, "sh", str(self._program), *flags],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self.folder)},
                start_new_session=True,
            )
        await until(self._is_up, f"{self.alias} to be up", START_TIMEOUT_S)

    async def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self.folder / "output.log").read_text(errors="replace")
            raise LndStartError(f"{self.alias} ended at once:\n{said[-2_000:]}")
        with contextlib.suppress(OSError, LndError):
            self._tls = None  # the certificate may just have been made
            state = await self.call("GET", "/v1/state", timeout_s=5.0)
            return state["state"] == "SERVER_ACTIVE"
        return False

    async def stop(self) -> None:
        """Stop it in order: breaking the pipe makes its shell end it with SIGTERM."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await ended(self._process, STOP_TIMEOUT_S)
        await self.kill()

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        if process.poll() is None:
            # The group is the session started for it, and its leader is not yet reaped.
            os.killpg(process.pid, signal.SIGKILL)
            await ended(process, STOP_TIMEOUT_S)

    # REST

    async def call(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """Call and return the one answer.

        Raises:
            LndError: LND refused.
            OSError: There was no connection, or it broke.
            TimeoutError: No answer came in time.
        """

        async def answer() -> bytes:
            reader, writer = await self._send(method, path, body)
            try:
                return await reader.read()
            finally:
                writer.transport.abort()

        try:
            text = await asyncio.wait_for(answer(), timeout_s)
        except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
            raise TimeoutError(f"{path}: no answer from {self.alias} in {timeout_s} s") from None
        return _checked(json.loads(text))

    async def stream(self, method: str, path: str, body: Any = None) -> AsyncGenerator[Any, None]:
        """Call and yield answers as they come; close it with ``contextlib.aclosing``.

        Raises:
            LndError: LND refused.
            OSError: There was no connection, or it broke.
        """
        reader, writer = await self._send(method, path, body)
        try:
            while line := await reader.readline():
                yield _checked(json.loads(line))["result"]
        finally:
            writer.transport.abort()

    async def first(
        self,
        wanted: Callable[[Any], bool],
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = 60.0,
    ) -> Any:
        """The first answer of a stream that is wanted.

        Raises:
            ConnectionError: The stream ended before.
            TimeoutError: It did not come in time.
        """

        async def look() -> Any:
            async with contextlib.aclosing(self.stream(method, path, body)) as answers:
                async for answer in answers:
                    if wanted(answer):
                        return answer
            raise ConnectionError(f"{path}: {self.alias} ended the stream")

        try:
            return await asyncio.wait_for(look(), timeout_s)
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"{path}: {self.alias} has not come to it in {timeout_s} s"
            ) from None

    async def _send(
        self, method: str, path: str, body: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request; return what follows the head of the answer."""
        assert self._ports is not None
        if self._tls is None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_verify_locations(self.folder / "tls.cert")
            self._tls = tls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._ports[2], ssl=self._tls, limit=_LINE_BYTES
        )
        try:
            text = b"" if body is None else json.dumps(body).encode()
            # HTTP 1.0: no chunks, and the connection ends with the answer.
            head = [f"{method} {path} HTTP/1.0", "Host: 127.0.0.1", f"Content-Length: {len(text)}"]
            macaroon = self.folder / "data/chain/bitcoin/regtest/admin.macaroon"
            with contextlib.suppress(FileNotFoundError):  # before its first start is through
                head.append(f"Grpc-Metadata-macaroon: {macaroon.read_bytes().hex()}")
            writer.write("\r\n".join([*head, "", ""]).encode() + text)
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            writer.transport.abort()
            raise ConnectionError(f"{self.alias} closed without an answer") from error
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    # The chain and coins

    async def _info(self) -> dict[str, Any]:
        return await self.call("GET", "/v1/getinfo")

    async def wait_height(self, height: int) -> None:
        """Wait until it has seen the block at ``height`` and calls itself synced."""

        async def synced() -> bool:
            info = await self._info()
            return int(info["block_height"]) >= height and bool(info["synced_to_chain"])

        await until(synced, f"{self.alias} at height {height}")

    async def new_address(self) -> str:
        """A fresh address of its wallet."""
        return str((await self.call("GET", "/v1/newaddress"))["address"])

    async def coins(self) -> int:
        """Confirmed and unconfirmed coins, satoshi."""
        return int((await self.call("GET", "/v1/balance/blockchain"))["total_balance"])

    async def limbo(self) -> int:
        """What closed channels still owe its wallet, satoshi."""
        told = await self.call("GET", "/v1/channels/pending")
        return int(told["total_limbo_balance"])

    # Channels

    async def connect(self, address: str) -> None:
        """Connect to ``node_id@host:port`` and stay connected."""
        node_id, _, host = address.partition("@")
        peer = {"pubkey": node_id, "host": host}
        with contextlib.suppress(LndError):  # it is connected already
            await self.call("POST", "/v1/peers", {"addr": peer, "perm": True})

        async def connected() -> bool:
            peers = (await self.call("GET", "/v1/peers"))["peers"]
            return any(each["pub_key"] == node_id for each in peers)

        await until(connected, f"{self.alias} to connect")

    async def open_channel(
        self, peer: str, capacity_sat: int, *, push_sat: int = 0, private: bool = False
    ) -> str:
        """Open a channel to a connected node; return its funding, ``txid:vout``, broadcast."""
        told = await self.call(
            "POST",
            "/v1/channels",
            {
                "node_pubkey": _b64(peer),
                "local_funding_amount": str(capacity_sat),
                "push_sat": str(push_sat),
                "private": private,
            },
        )
        txid = base64.b64decode(told["funding_txid_bytes"])[::-1].hex()
        return f"{txid}:{told.get('output_index', 0)}"

    async def close_channel(self, funding: str, *, force: bool = False) -> str:
        """Close a channel; return the txid of the closing transaction once it is broadcast."""
        txid, _, vout = funding.partition(":")
        told = await self.first(
            lambda update: "close_pending" in update,
            "DELETE",
            f"/v1/channels/{txid}/{vout}?force={str(force).lower()}",
        )
        return base64.b64decode(told["close_pending"]["txid"])[::-1].hex()

    async def channels(self) -> list[LndChannel]:
        """All channels that are open and confirmed."""
        told = await self.call("GET", "/v1/channels")
        return [
            LndChannel(
                funding=each["channel_point"],
                scid=int(each["chan_id"]),
                peer=each["remote_pubkey"],
                capacity_sat=int(each["capacity"]),
                local_sat=int(each["local_balance"]),
                remote_sat=int(each["remote_balance"]),
                active=bool(each["active"]),
                pending_htlcs=len(each["pending_htlcs"]),
            )
            for each in told["channels"]
        ]

    async def channel_balance(self) -> tuple[int, int]:
        """What is on its side and on the other of all open channels, msat."""
        told = await self.call("GET", "/v1/balance/channels")
        return int(told["local_balance"]["msat"]), int(told["remote_balance"]["msat"])

    async def wait_route(self, channel: LndChannel) -> None:
        """Wait until it would send over a channel, which is called active sooner than that."""

        async def routed() -> bool:
            try:
                return bool(await self._routes(channel.peer, 1_000, over=channel.scid))
            except LndError:
                return False

        await until(routed, f"a route of {self.alias}'s")

    async def _routes(
        self, to: str, amount: int, *, over: int, hops: Sequence[Hop] = (), final_delta: int = 80
    ) -> list[dict[str, Any]]:
        told = await self.call(
            "POST",
            f"/v1/graph/routes/{to}/0",
            {
                "amt_msat": str(int(amount)),
                "route_hints": [{"hop_hints": [each.told()]} for each in hops],
                "outgoing_chan_ids": [str(over)],
                "final_cltv_delta": final_delta,
            },
        )
        return list(told["routes"])

    # Receiving

    async def add_invoice(self, amount: int) -> LndInvoice:
        """Make an invoice of ``amount`` msat that also names private channels."""
        told = await self.call(
            "POST", "/v1/invoices", {"value_msat": str(int(amount)), "private": True}
        )
        return LndInvoice(told["payment_request"], _hex(told["r_hash"]))

    async def add_hold_invoice(self, amount: int, payment_hash: str) -> LndInvoice:
        """Make an invoice whose payment is held until ``settle`` or ``cancel``."""
        told = await self.call(
            "POST",
            "/v2/invoices/hodl",
            {"hash": _b64(payment_hash), "value_msat": str(int(amount)), "private": True},
        )
        return LndInvoice(told["payment_request"], payment_hash)

    async def settle(self, preimage: str) -> None:
        """Take the payment that is held."""
        await self.call("POST", "/v2/invoices/settle", {"preimage": _b64(preimage)})

    async def cancel(self, payment_hash: str) -> None:
        """Give back the payment that is held."""
        await self.call("POST", "/v2/invoices/cancel", {"payment_hash": _b64(payment_hash)})

    async def wait_invoice(
        self, payment_hash: str, state: InvoiceState, *, timeout_s: float = 60.0
    ) -> int:
        """Wait for a state of an invoice; return what was paid, msat."""
        told = await self.first(
            lambda invoice: invoice["state"] == state,
            "GET",
            f"/v2/invoices/subscribe/{_url64(payment_hash)}",
            timeout_s=timeout_s,
        )
        return int(told["amt_paid_msat"])

    # Sending

    async def pay(
        self,
        bolt11: str,
        *,
        amount: int | None = None,
        max_fee: int = 0,
        parts: int = 16,
        largest: int | None = None,
        timeout_s: float = 60.0,
    ) -> LndPayment:
        """Pay an invoice and wait for the outcome, whatever it is.

        Args:
            bolt11: The invoice.
            amount: Only for an invoice without one, msat.
            max_fee: The most routing may cost, msat.
            parts: The most parts it may be split into.
            largest: The largest a part may be, msat; None lets it be as large as a channel allows.
            timeout_s: How long LND may try; what is on its way then still ends.
        """
        request: dict[str, Any] = {"payment_request": bolt11, "max_parts": parts}
        if amount is not None:
            request["amt_msat"] = str(int(amount))
        if largest is not None:
            request["max_shard_size_msat"] = str(int(largest))
        return await self._pay(request, max_fee, timeout_s)

    async def keysend(
        self, node_id: str, amount: int, hops: Sequence[Hop] = (), *, max_fee: int = 0
    ) -> LndPayment:
        """Pay a node without an invoice and wait for the outcome, whatever it is."""
        preimage = secrets.token_bytes(32)
        request = {
            "dest": _b64(node_id),
            "amt_msat": str(int(amount)),
            "payment_hash": base64.b64encode(hashlib.sha256(preimage).digest()).decode(),
            "dest_custom_records": {str(KEYSEND_RECORD): base64.b64encode(preimage).decode()},
            "route_hints": [{"hop_hints": [each.told()]} for each in hops],
            "final_cltv_delta": 80,
        }
        return await self._pay(request, max_fee, 60.0)

    async def _pay(self, request: dict[str, Any], max_fee: int, timeout_s: float) -> LndPayment:
        told = await self.first(
            _is_over,
            "POST",
            "/v2/router/send",
            {
                **request,
                "fee_limit_msat": str(int(max_fee)),
                "timeout_seconds": int(timeout_s),
                "no_inflight_updates": True,
            },
            timeout_s=timeout_s + 60.0,
        )
        return _payment(told)

    async def wait_payment(self, payment_hash: str, *, timeout_s: float = 60.0) -> LndPayment:
        """Wait for the outcome of a payment made before, also before a restart."""
        told = await self.first(
            _is_over,
            "GET",
            f"/v2/router/track/{_url64(payment_hash)}?no_inflight_updates=true",
            timeout_s=timeout_s,
        )
        return _payment(told)

    async def send_part(
        self,
        to: str,
        payment_hash: str,
        secret: str,
        amount: int,
        total: int,
        *,
        over: int,
        hop: Hop,
        final_delta: int,
        timeout_s: float = 60.0,
    ) -> LndPart:
        """Send one part of a payment and wait for its outcome, whatever it is.

        Args:
            to: The recipient's node id.
            payment_hash: Of the invoice.
            secret: The invoice's payment secret.
            amount: Of this part, msat.
            total: Of all parts, msat.
            over: The scid of LND's own channel it leaves by.
            hop: The hop of the invoice.
            final_delta: The invoice's final CLTV delta.
            timeout_s: How long the outcome may take.
        """
        (route,) = await self._routes(to, amount, over=over, hops=[hop], final_delta=final_delta)
        route["hops"][-1]["mpp_record"] = {
            "payment_addr": _b64(secret),
            "total_amt_msat": str(int(total)),
        }
        told = await self.call(
            "POST",
            "/v2/router/route/send",
            {"payment_hash": _b64(payment_hash), "route": route},
            timeout_s=timeout_s,
        )
        return _part(told)

    async def payment_secret(self, bolt11: str) -> str:
        """The payment secret of anybody's invoice."""
        return _hex((await self.call("GET", f"/v1/payreq/{bolt11}"))["payment_addr"])

    async def forwarded(self) -> list[tuple[int, int]]:
        """What it routed: (received, sent) of each payment, msat."""
        told = await self.call("POST", "/v1/switch", {"start_time": "0"})
        return [
            (int(each["amt_in_msat"]), int(each["amt_out_msat"]))
            for each in told["forwarding_events"]
        ]


def _is_over(payment: Any) -> bool:
    return payment["status"] in ("SUCCEEDED", "FAILED")


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """An answer that is no error; a stream wraps its error."""
    error: dict[str, Any] = told.get("error", told)
    if "code" in error and "message" in error:
        raise LndError(error["code"], error["message"])
    return told
