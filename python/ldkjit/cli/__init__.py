"""The command ``ldkjit``."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
except ImportError:
    raise SystemExit("The command needs two more packages: pip install 'ldkjit[cli]'") from None

from .. import __version__
from ..errors import LdkJitError
from ..sandbox import BitcoindNotFoundError, BitcoindStartError

__all__ = ["app"]

app = typer.Typer(
    help="A Lightning node and JIT-channel service provider.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show the values of local variables
)


@app.callback()
def main() -> None:
    """A Lightning node and JIT-channel service provider."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Run five JIT payments on a regtest and check every balance to the millisatoshi."""
    from .demo import Demo
    from .show import Show

    console = Console(stderr=as_json, quiet=as_json)
    show = Show(console)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        report = asyncio.run(Demo(show).run())
    except (BitcoindNotFoundError, BitcoindStartError, LdkJitError, TimeoutError) as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: ", end="")
        Console(stderr=True).print(str(error), markup=False)
        raise typer.Exit(1) from error
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        show.table(report)
    raise typer.Exit(0 if report.ok else 1)


ledger_app = typer.Typer(help="The books of a node.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("check")
def ledger_check(
    data_dir: Annotated[
        Path, typer.Argument(help="The node's data directory; the node may run meanwhile.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Prove that the ledger adds up to the wallet's coins and the channels, to the millisatoshi.

    Exits with 0 if they do, 1 if they do not, 2 if they cannot be read.
    """
    from .ledger import check, show

    try:
        verdict = check(data_dir)
    except LdkJitError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        print(verdict.model_dump_json(indent=2))
    else:
        show(verdict, Console())
    raise typer.Exit(0 if verdict.ok else 1)
