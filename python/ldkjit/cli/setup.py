"""`ldkjit init` and `ldkjit run`: a node's configuration, and the node itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ..config import NodeConfig
from ..control import serve
from ..errors import ConfigError, LdkJitError
from ..node import Node
from .place import CONFIG_NAME, Place, failed

Network = Literal["bitcoin", "testnet", "testnet4", "signet", "regtest"]
_FOREVER_S = 10 * 365 * 24 * 3_600.0
_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
# Where bitcoind answers by default.
_PORTS = {"bitcoin": 8332, "testnet": 18332, "testnet4": 48332, "signet": 38332, "regtest": 18443}

_TEMPLATE = """\
# A node of ldkjit. Every setting, its range and its default: `NodeConfig` in the API reference.
# LDKJIT_… variables win over this file, e.g. LDKJIT_CHAIN__PASSWORD: keep secrets there.

network = "{network}"
{mainnet}# The store and the words that all coins hang on, readable by their owner alone.
data_dir = "{data_dir}"
alias = "ldkjit"

# Where others reach this node; a wallet need not be reached.
listen = []
# announce = ["203.0.113.7:9735"]

# Peers to stay connected with.
# peers = ["node_id@host:port"]

[chain]
# A bitcoind of your own, on this machine or through a tunnel.
url = "http://127.0.0.1:{port}"
user = "ldkjit"
# password = "…"

# An LSP to buy channels from when a payment finds no room; several are asked for their prices.
# [[lsps]]
# node_id = "02…"
# address = "host:port"

# Say this and the node sells channels.
# [lsp]
# trust = "lsp_trusts_client"
# [[lsp.menu]]
# min_fee_msat = 2_000_000
# proportional_ppm = 4_000
"""


def add_to(app: typer.Typer) -> None:
    """Register every command of this module."""
    app.command()(init)
    app.command()(run)


def init(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")] = Path(
        CONFIG_NAME
    ),
    network: Annotated[
        Network, typer.Option(help="bitcoin moves real money.", show_default=True)
    ] = "signet",
    data_dir: Annotated[
        Path | None, typer.Option(help="The node's folder; by default beside the file.")
    ] = None,
) -> None:
    """Write a configuration with comments; readable by its owner alone, as it may get a password.

    Exits with 0, or with 2 if the file is there already or cannot be written.
    """
    folder = data_dir or file.absolute().parent / "ldkjit-data"
    mainnet = "# Real money: take this line out if it is not meant.\nmainnet = true\n"
    text = _TEMPLATE.format(
        network=network,
        mainnet=mainnet if network == "bitcoin" else "",
        data_dir=str(folder).replace("\\", "\\\\").replace('"', '\\"'),
        port=_PORTS[network],
    )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise failed(ConfigError(f"{file}: {error.strerror}")) from error
    with os.fdopen(descriptor, "w") as made:
        made.write(text)
    console = Console()
    console.print(f"{file} is written. Say where your bitcoind is, then: ldkjit run", markup=False)


def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(help=f"A TOML file, by default {CONFIG_NAME}; LDKJIT_ variables win."),
    ] = None,
    log_level: Annotated[
        Literal["error", "warn", "info", "debug"], typer.Option(help="What is said on stderr.")
    ] = "info",
) -> None:
    """Run the node until Ctrl-C, SIGTERM or `ldkjit stop`; the other commands ask it.

    Exits with 0 when it was asked to stop, 1 if it had to stop by itself, 2 if it cannot start.
    """
    place: Place = context.obj
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=_LEVELS[log_level], format=form, stream=sys.stderr)
    try:
        settings = NodeConfig.load(config or place.file())
        if place.data_dir is not None:
            settings = settings.model_copy(update={"data_dir": place.data_dir})
        why = asyncio.run(_run(settings))
    except LdkJitError as error:
        raise failed(error) from error
    except OSError as error:
        raise failed(ConfigError(str(error))) from error
    if why is not None:
        failed(why)
        raise typer.Exit(1)


async def _run(settings: NodeConfig) -> LdkJitError | None:
    """Run it; why it stopped, if nobody asked it to."""
    console = Console(stderr=True)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    node = Node(settings)
    progress = console.status("starting: following the chain")
    starting, asking = asyncio.create_task(node.start()), asyncio.create_task(asked.wait())
    with progress if console.is_terminal else contextlib.nullcontext():
        await asyncio.wait((starting, asking), return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
        return None
    status = starting.result()
    try:
        async with serve(node, asked.set) as path:
            at = [f"{status.node_id}@{each}" for each in status.listening] or [status.node_id]
            console.print(f"{at[0]} on {status.network}", markup=False, highlight=False)
            console.print(f"answers at {path}", markup=False, highlight=False)
            try:
                return await _over(node, asked)
            finally:
                # While the socket is there: who asked for it hears when it is done.
                await node.stop()
    finally:
        await node.stop()


async def _over(node: Node, asked: asyncio.Event) -> LdkJitError | None:
    """Wait until it is asked to stop, or stops by itself: then why."""
    asking = asyncio.create_task(asked.wait())
    # A height that is never reached: this call ends with the node.
    living = asyncio.create_task(node.wait_height(2**32 - 1, timeout=_FOREVER_S))
    await asyncio.wait((asking, living), return_when=asyncio.FIRST_COMPLETED)
    try:
        if asking.done():
            return None
        error = living.exception()
        return error if isinstance(error, LdkJitError) else None
    finally:
        asking.cancel()
        living.cancel()
        await asyncio.wait((asking, living))
