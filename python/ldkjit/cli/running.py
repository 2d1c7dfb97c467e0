"""Commands to a node that runs: its coins, channels, peers and payments."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ..control import shut_down
from ..errors import ConfigError, LdkJitError, PaymentError, TimeoutError_
from ..models import Channel, Payment, Peer
from ..node import Invoice, Node
from ..parsing import Bip21, Bolt11, parse
from .place import AsJson, Place, amount, ask, failed, show

# Of a payment: paid; failed for good; refused before it began; no outcome yet.
FAILED, UNKNOWN = 1, 3

wallet_app = typer.Typer(help="Coins of the running node.", no_args_is_help=True)
channels_app = typer.Typer(help="Channels of the running node.", no_args_is_help=True)
peers_app = typer.Typer(help="Peers of the running node.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register every command of this module."""
    app.add_typer(wallet_app, name="wallet")
    app.add_typer(channels_app, name="channels")
    app.add_typer(peers_app, name="peers")
    for command in (status, stop, pay, receive):
        app.command()(command)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Node id, height, listeners, and what needs looking at.

    Exits with 0, 1 if there is an alarm, 2 if no node runs.
    """
    told = ask(context, lambda node: node.status())
    lines = [
        f"{told.alias} on {told.network}, block {told.height:,}",
        f"node id   {told.node_id}",
        *(f"listens   {told.node_id}@{each}" for each in told.listening),
        *(f"ALARM     {name}: {text}" for name, text in told.alarms.items()),
    ]
    show(told, as_json, "\n".join(lines))
    raise typer.Exit(1 if told.alarms else 0)


def stop(context: typer.Context) -> None:
    """Have the running node store everything and stop; returns when it has."""
    place: Place = context.obj
    try:
        asyncio.run(shut_down(place.folder()))
    except LdkJitError as error:
        raise failed(error) from error


# Coins


@wallet_app.command("balance")
def wallet_balance(context: typer.Context, as_json: AsJson = False) -> None:
    """Coins and channel balances."""
    told = ask(context, lambda node: node.balances())
    coins, lightning = told.onchain, told.lightning
    lines = [
        f"coins        {coins.spendable_sat:>16,} sat can be sent"
        f" ({coins.confirmed_sat:,} confirmed, {coins.unconfirmed_sat:,} not yet)",
        f"can send     {lightning.outbound.sat:>16,} sat over channels",
        f"can receive  {lightning.inbound.sat:>16,} sat over channels",
        f"coming home  {told.pending_sweep_sat:>16,} sat from closed channels",
    ]
    if lightning.depends_on_lsp:
        lines.append(f"of this {lightning.depends_on_lsp} depend on the LSP until confirmed")
    show(told, as_json, "\n".join(lines))


@wallet_app.command("address")
def wallet_address(context: typer.Context, as_json: AsJson = False) -> None:
    """A fresh address to send coins to."""
    address = ask(context, lambda node: node.new_address())
    show({"address": address}, as_json, address)


@wallet_app.command("send")
def wallet_send(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="Where to.")],
    how_much: Annotated[str, typer.Argument(metavar="AMOUNT", help="E.g. 50000, 0.001btc, all.")],
    fee_rate: Annotated[
        int | None, typer.Option(help="Satoshi per 1000 weight; by default estimated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send coins on the chain; `all` sends everything but the reserve for force-closes."""
    value = None if how_much == "all" else _whole_sat(how_much)

    async def send(node: Node) -> str:
        return await node.send_onchain(address, value, fee_rate_sat_per_kw=fee_rate)

    txid = ask(context, send)
    show({"txid": txid}, as_json, txid)


def _whole_sat(text: str) -> int:
    try:
        given = amount(text)
        if given % 1_000:
            raise ConfigError(f"{text}: coins are whole satoshi")
    except LdkJitError as error:
        raise failed(error) from error
    return given.sat


# Channels and peers


@channels_app.command("list")
def channels_list(context: typer.Context, as_json: AsJson = False) -> None:
    """All channels that are not closed."""
    told = ask(context, lambda node: node.channels())
    lines = [_channel_line(each) for each in told] or ["no channels"]
    show([*told], as_json, "\n".join(lines))


def _channel_line(channel: Channel) -> str:
    state = "usable" if channel.usable else "away" if channel.ready else "opening"
    return (
        f"{channel.channel_id}  {state:7}  {channel.capacity_sat:>13,} sat"
        f"  can send {channel.outbound.sat:>13,}  can receive {channel.inbound.sat:>13,}"
        f"  with {channel.peer}"
    )


@channels_app.command("open")
def channels_open(
    context: typer.Context,
    peer: Annotated[str, typer.Argument(help="node_id@host:port")],
    how_much: Annotated[str, typer.Argument(metavar="CAPACITY", help="E.g. 1000000.")],
    announce: Annotated[bool, typer.Option(help="Let the network know of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open a channel; returns when its funding transaction is signed and stored."""
    capacity = _whole_sat(how_much)
    told = ask(context, lambda node: node.open_channel(peer, capacity, announce=announce))
    show(told, as_json, f"{told.channel_id} opens with {told.funding}")


@channels_app.command("close")
def channels_close(
    context: typer.Context,
    channel_id: Annotated[str, typer.Argument(help="As `ldkjit channels list` has it.")],
    force: Annotated[bool, typer.Option(help="Without the peer; coins come home later.")] = False,
    break_promise: Annotated[
        str | None, typer.Option(help="Why a channel is closed that was sold for longer.")
    ] = None,
) -> None:
    """Close a channel, together with the peer or by force."""

    async def close(node: Node) -> None:
        await node.close_channel(channel_id, force=force, break_promise=break_promise)

    ask(context, close)


@peers_app.command("list")
def peers_list(context: typer.Context, as_json: AsJson = False) -> None:
    """All peers, connected or kept."""
    told = ask(context, lambda node: node.peers())
    lines = [_peer_line(each) for each in told] or ["no peers"]
    show([*told], as_json, "\n".join(lines))


def _peer_line(peer: Peer) -> str:
    state = "connected" if peer.connected else "away"
    return f"{state:9}  {peer.node_id}@{peer.address or '?'}"


@peers_app.command("connect")
def peers_connect(
    context: typer.Context, peer: Annotated[str, typer.Argument(help="node_id@host:port")]
) -> None:
    """Connect, and reconnect whenever the connection is lost."""
    ask(context, lambda node: node.connect(peer))


@peers_app.command("disconnect")
def peers_disconnect(
    context: typer.Context, node_id: Annotated[str, typer.Argument(help="66 hex digits.")]
) -> None:
    """Disconnect, and stop reconnecting."""
    ask(context, lambda node: node.disconnect(node_id))


# Payments


def receive(
    context: typer.Context,
    how_much: Annotated[
        str | None, typer.Argument(metavar="AMOUNT", help="E.g. 50000; without, the payer chooses.")
    ] = None,
    description: Annotated[str, typer.Option(help="Shown to the payer.")] = "",
    max_opening_fee: Annotated[
        str | None, typer.Option(help="The most an LSP may keep, if a channel must be bought.")
    ] = None,
    jit: Annotated[
        Literal["auto", "never", "always"], typer.Option(help="Whether a channel may be bought.")
    ] = "auto",
    expiry: Annotated[float, typer.Option(help="Seconds until it cannot be paid any more.")] = 3600,
    qr: Annotated[bool, typer.Option(help="Also show it as a QR code.")] = True,
    png: Annotated[Path | None, typer.Option(help="Write the QR code into this file.")] = None,
    wait: Annotated[bool, typer.Option(help="Stay until it is paid.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an invoice, buying a channel from an LSP if there is no room for the payment.

    Exits with 0; with --wait with 1 if a payment came and failed, with 3 if none came in time.
    """
    try:
        value = amount(how_much) if how_much is not None else None
        limit = amount(max_opening_fee) if max_opening_fee is not None else None
    except LdkJitError as error:
        raise failed(error) from error

    async def make(node: Node) -> Invoice:
        return await node.receive(
            value, description=description, expiry=expiry, max_opening_fee=limit, jit=jit
        )

    invoice = ask(context, make)
    if png is not None:
        from ..qr import png as drawn

        png.write_bytes(drawn(invoice.bolt11))
    lines = [invoice.bolt11]
    if qr and not as_json:
        from ..qr import terminal

        lines.insert(0, terminal(invoice.bolt11))
    if invoice.path == "jit":
        fee = invoice.opening_fee
        lines.append(
            f"a channel is opened when it is paid; the LSP keeps {fee}"
            if fee is not None
            else "a channel is opened when it is paid; the LSP keeps its fee from what comes"
        )
    show(invoice, as_json, "\n".join(lines))
    if wait:
        console = Console(stderr=True)
        with console.status("waiting for the payment") if console.is_terminal else _nothing():
            _end(context, invoice.payment_hash, expiry, as_json)


_nothing = contextlib.nullcontext


def pay(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="An invoice, or a bitcoin: link with one.")],
    how_much: Annotated[
        str | None, typer.Argument(metavar="AMOUNT", help="Only for an invoice without one.")
    ] = None,
    max_fee: Annotated[str | None, typer.Option(help="The most that routing may cost.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the outcome.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Pay an invoice and wait for the outcome. Paying one twice does not pay twice.

    Exits with 0 if it is paid, 1 if it has failed, 2 if it cannot be paid, and 3 if there is no
    outcome yet: it may still be paid, so ask with the same command again.
    """
    try:
        bolt11 = _invoice_in(what)
        value = amount(how_much) if how_much is not None else None
        limit = amount(max_fee) if max_fee is not None else None
    except LdkJitError as error:
        raise failed(error) from error

    async def paid(node: Node) -> Payment | PaymentError | TimeoutError_:
        try:
            return await node.pay(bolt11, amount=value, max_fee=limit, timeout=timeout)
        except (PaymentError, TimeoutError_) as error:
            return error

    _tell(ask(context, paid), as_json)


def _invoice_in(text: str) -> str:
    parsed = parse(text)
    if isinstance(parsed, Bip21) and parsed.lightning is not None:
        parsed = parsed.lightning
    if isinstance(parsed, Bolt11):
        return parsed.bolt11
    others = {
        "address": "an address: send coins with `ldkjit wallet send`",
        "bip21": "a link without an invoice: send coins with `ldkjit wallet send`",
    }
    known = others.get(parsed.kind, "no invoice: ask its server for one")
    raise ConfigError(f"this is {known}")


def _end(context: typer.Context, payment_hash: str, timeout: float, as_json: bool) -> None:
    async def settled(node: Node) -> Payment | PaymentError | TimeoutError_:
        try:
            return await node.wait_payment(payment_hash, timeout=timeout)
        except (PaymentError, TimeoutError_) as error:
            return error

    _tell(ask(context, settled), as_json)


def _tell(outcome: Payment | PaymentError | TimeoutError_, as_json: bool) -> None:
    if isinstance(outcome, Payment):
        costs = outcome.fee if outcome.direction == "out" else outcome.opening_fee
        word = "paid" if outcome.direction == "out" else "received"
        show(outcome, as_json, f"{word} {outcome.amount} (fee {costs})")
        return
    Console(stderr=True).print(str(outcome), markup=False, soft_wrap=True)
    raise typer.Exit(UNKNOWN if isinstance(outcome, TimeoutError_) else FAILED)
