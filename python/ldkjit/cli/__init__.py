"""The command ``ldkjit``."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import datetime, timezone
from enum import Enum
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
from ..sandbox.boxed import ChainKind
from . import running, setup
from .place import AsJson, Place, failed

__all__ = ["app"]

app = typer.Typer(
    help="A Lightning node and JIT-channel service provider.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show the values of local variables
)


setup.add_to(app)
running.add_to(app)


@app.callback()
def main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="LDKJIT_CONFIG", help="The node's TOML file."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "-d", envvar="LDKJIT_DATA_DIR", help="The node's folder."),
    ] = None,
) -> None:
    """A Lightning node and JIT-channel service provider."""
    context.obj = Place(config, data_dir)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def demo(
    chain: Annotated[
        ChainKind | None,
        typer.Option(
            help="bitcoind, fetched if need be, or boxed: in this process. "
            "By default bitcoind if this machine has one."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run five JIT payments on a regtest and check every balance to the millisatoshi."""
    from .demo import Demo
    from .show import Show

    console = Console(stderr=as_json, quiet=as_json)
    show = Show(console)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        report = asyncio.run(Demo(show, chain).run())
    except (BitcoindNotFoundError, BitcoindStartError, LdkJitError, TimeoutError) as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: ", end="")
        Console(stderr=True).print(str(error), markup=False)
        raise typer.Exit(1) from error
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        show.table(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def backup(
    data_dir: Annotated[
        Path, typer.Argument(help="The node's data directory; the node may run meanwhile.")
    ],
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Write a node, its words and all, into one file, as it is in one commit.

    Whoever can read the file can take the coins. Exits with 0, or with 2 if it cannot be written.
    """
    from .recovery import backup, show_backup

    try:
        what = backup(data_dir, file)
    except LdkJitError as error:
        raise failed(error) from error
    if as_json:
        print(what.model_dump_json(indent=2))
    else:
        show_backup(what, Console())


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `ldkjit backup` wrote.")],
    data_dir: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    as_json: AsJson = False,
) -> None:
    """Make a node of a backup. It only recovers: its channels have gone on since.

    Exits with 0, or with 2 if the folder is in use, the node runs here or the file is no backup.
    """
    from .recovery import restore, show_backup

    try:
        what = restore(file, data_dir)
    except LdkJitError as error:
        raise failed(error) from error
    if as_json:
        print(what.model_dump_json(indent=2))
        return
    console = Console()
    show_backup(what, console)
    console.print("Now bring home what it held: ldkjit recover", highlight=False)


@app.command()
def recover(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; LDKJIT_ variables are read either way.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="A file with the words, or - for the standard input: an empty folder."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds; by default until all is home, or Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring home what a restored node held, or what its words alone can find.

    Peers are told to close the channels, and what they pay is swept. From words alone nobody knows
    when it is all: end it with Ctrl-C or --timeout, and run it again at any time.

    Exits with 0 if all is home that a backup knows of and every peer in it was met, 1 if the time
    is over before that, 2 if it cannot be done.
    """
    from ..config import NodeConfig
    from .recovery import as_json as told
    from .recovery import read_words, recover, show_recovery

    console = Console(stderr=as_json)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    more: dict[str, object] = {"recover": True}
    try:
        if words is not None:
            more["mnemonic"] = read_words(words)
    except (OSError, UnicodeError) as error:
        Console(stderr=True).print(f"{words}: {error}", markup=False)
        raise typer.Exit(2) from error
    try:
        settings = NodeConfig.load(config).model_copy(update=more)
        now, is_all, spendable = asyncio.run(
            recover(settings, timeout, lambda now: show_recovery(now, console))
        )
    except LdkJitError as error:
        raise failed(error) from error
    if as_json:
        print(told(now, is_all, spendable))
    else:
        console.print(f"{spendable:,} sat can be sent", highlight=False)
    raise typer.Exit(0 if is_all else 1)


class Lines(str, Enum):
    """What a report's lines are."""

    DAY = "day"
    CLIENT = "client"
    TIER = "tier"


class Shape(str, Enum):
    """How a report is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


_DAY_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@app.command()
def report(
    data_dir: Annotated[
        Path, typer.Argument(help="The node's data directory; the node may run meanwhile.")
    ],
    by: Annotated[Lines, typer.Option(help="What the lines are.")] = Lines.DAY,
    since: Annotated[
        datetime | None, typer.Option(formats=_DAY_FORMATS, help="The first moment wanted, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_DAY_FORMATS, help="The first that is not, UTC.")
    ] = None,
    client: Annotated[str | None, typer.Option(help="Only this client's node id.")] = None,
    shape: Annotated[
        Shape, typer.Option("--format", help="CSV has the lines alone.")
    ] = Shape.TABLE,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw it into this file, .png, .svg or .pdf (ldkjit[report])."),
    ] = None,
) -> None:
    """Revenue, chain cost and capital-days, from the rows that `ldkjit ledger check` proves.

    Exits with 0 if the ledger adds up, 1 if it does not (the figures are shown all the same),
    2 if there are none.
    """
    from ..history import History
    from .books import as_csv, show

    def utc(at: datetime | None) -> datetime | None:
        return at and at.replace(tzinfo=timezone.utc)

    try:
        told = History(data_dir).report(by.value, client=client, since=utc(since), until=utc(until))
    except LdkJitError as error:
        raise failed(error) from error
    if shape is Shape.JSON:
        print(told.model_dump_json(indent=2))
    elif shape is Shape.CSV:
        print(as_csv(told), end="")
    else:
        show(told, Console())
    if plot is not None:
        from .picture import draw

        draw(told, plot)
    if told.bad is not None:
        why = f"the ledger does not add up, see `ldkjit ledger check`: {told.bad.why}"
        Console(stderr=True).print(why, markup=False, highlight=False)
    raise typer.Exit(0 if told.ok else 1)


ledger_app = typer.Typer(help="The books of a node.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("views")
def ledger_views() -> None:
    """Print the SQL that makes the views: `ldkjit ledger views > views.sql`.

    Then, for a node that no program of yours runs in this process:
    `sqlite3 -readonly -init views.sql DATA_DIR/node.sqlite`.
    """
    from ..history import views

    print(views(), end="")


@ledger_app.command("check")
def ledger_check(
    data_dir: Annotated[
        Path, typer.Argument(help="The node's data directory; the node may run meanwhile.")
    ],
    as_json: AsJson = False,
) -> None:
    """Prove that the ledger adds up to the wallet's coins and the channels, to the millisatoshi.

    Exits with 0 if they do, 1 if they do not, 2 if they cannot be read.
    """
    from .ledger import check, show

    try:
        verdict = check(data_dir)
    except LdkJitError as error:
        raise failed(error) from error
    if as_json:
        print(verdict.model_dump_json(indent=2))
    else:
        show(verdict, Console())
    raise typer.Exit(0 if verdict.ok else 1)


store_app = typer.Typer(help="Where a node keeps everything.", no_args_is_help=True)
app.add_typer(store_app, name="store")
_PLACE = "a data directory (SQLite), postgresql://…, or module:name of a store of yours"


@store_app.command("copy")
def store_copy(
    source: Annotated[str, typer.Argument(help=f"Where the stopped node is: {_PLACE}.")],
    target: Annotated[str, typer.Argument(help="Where it shall be, likewise; a new store.")],
    source_schema: Annotated[str, typer.Option(help="PostgreSQL's schema.")] = "ldkjit",
    target_schema: Annotated[str, typer.Option(help="PostgreSQL's schema.")] = "ldkjit",
    as_json: AsJson = False,
) -> None:
    """Move a node, which must not run, from one store to another. The words stay where they are.

    Afterwards the first store starts no more, but to recover. If it is interrupted, run it again.

    Exits with 0, or with 2 if a store is in use, is not what it should be, or fails.
    """
    from .stores import copy_store, find_store, show_moved

    try:
        what = copy_store(
            find_store(source, source_schema, new=False),
            find_store(target, target_schema, new=True),
        )
    except LdkJitError as error:
        raise failed(error) from error
    if as_json:
        print(json.dumps(what, indent=2))
    else:
        show_moved(what, Console())
