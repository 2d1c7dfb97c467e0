"""Moving a node between stores."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from .. import _ldkjit, _store
from ..errors import ConfigError, from_native
from ..storage import PostgresStore, Store

_FILE = "node.sqlite"


def find_store(place: str, schema: str, *, new: bool) -> Store | Path:
    """What a place on the command line means.

    Args:
        place: A data folder, ``postgresql://…``, or ``module:name`` of a store or what makes one.
        schema: Of PostgreSQL.
        new: Whether a data folder may be without a store.

    Raises:
        ConfigError: It means nothing.
    """
    if place.startswith(("postgresql://", "postgres://")):
        return PostgresStore(place, schema=schema)
    module, colon, name = place.partition(":")
    if colon and not Path(place).exists():
        try:
            found: Any = getattr(importlib.import_module(module), name)
            made: Any = found
            # A class has the methods too.
            if isinstance(found, type) or not isinstance(found, Store):
                made = found()
        except Exception as error:
            raise ConfigError(f"{place}: {error!r}") from error
        if not isinstance(made, Store) or isinstance(made, type):
            raise ConfigError(f"{place}: has not the methods of ldkjit.storage.Store")
        return made
    folder = Path(place)
    if not new and not (folder / _FILE).is_file():
        raise ConfigError(f"{place}: there is no node in it")
    if new and not folder.is_dir():
        raise ConfigError(f"{place}: is no folder")
    return folder / _FILE


def copy_store(source: Store | Path, target: Store | Path) -> dict[str, Any]:
    """Move a node, which must not run, from one store to another.

    Afterwards the first starts only to recover. Ended at any moment, at most one of them starts;
    where neither does, the same call finishes.

    Args:
        source: A store, or the file of one of SQLite.
        target: A new one.

    Returns:
        ``node_id``, ``network``, ``values`` and ``rows``.

    Raises:
        LdkJitError: One is in use, the first is no node's, the second is not new, or one fails.
    """
    ends: list[Any] = []
    for each in (source, target):
        if isinstance(each, Path):
            ends.append(str(each))
        else:
            door = _ldkjit.StoreDoor()
            _store.serve(each, door)
            ends.append(door)
    done, text = _ldkjit.copy_store(*ends)
    if not done:
        raise from_native(text)
    return cast("dict[str, Any]", json.loads(text))


def show_moved(what: dict[str, Any], console: Console) -> None:
    """Print what was moved."""
    console.print(
        f"node {what['node_id']} on {what['network']}: {what['values']:,} values, "
        f"{what['rows']:,} rows. The first store starts no more, but to recover",
        highlight=False,
    )
