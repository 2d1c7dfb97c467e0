"""Which node a command means, and how it is asked."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from ..amounts import Msat, btc, sat
from ..config import NodeConfig
from ..control import attach
from ..errors import AmountError, ConfigError, LdkJitError
from ..node import Node

Value = TypeVar("Value")

# What `ldkjit init` writes and the other commands look for.
CONFIG_NAME = "ldkjit.toml"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@dataclasses.dataclass(frozen=True)
class Place:
    """What was said of the node before the command.

    Attributes:
        config: The TOML file, or None.
        data_dir: The folder, or None.
    """

    config: Path | None = None
    data_dir: Path | None = None

    def file(self) -> Path | None:
        """The TOML file: as said, or the one in this folder."""
        here = Path(CONFIG_NAME)
        return self.config or (here if here.is_file() else None)

    def folder(self) -> Path:
        """The node's data folder.

        Raises:
            ConfigError: Nothing names one.
        """
        if self.data_dir is not None:
            return self.data_dir
        file = self.file()
        if file is None:
            raise ConfigError(
                f"which node? Say `ldkjit --data-dir FOLDER …`, or be where its {CONFIG_NAME} is"
                " (`ldkjit init` makes one)"
            )
        return NodeConfig.load(file).data_dir


def failed(error: LdkJitError) -> typer.Exit:
    """Say why a command failed, without anything that could be secret; the exit code is 2."""
    Console(stderr=True).print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
    return typer.Exit(2)


def ask(context: typer.Context, what: Callable[[Node], Awaitable[Value]]) -> Value:
    """Ask the running node; what it refuses ends the command with its reason."""
    place: Place = context.obj

    async def asked() -> Value:
        async with attach(place.folder()) as node:
            return await what(node)

    try:
        return asyncio.run(asked())
    except LdkJitError as error:
        raise failed(error) from error


def show(value: BaseModel | list[BaseModel] | dict[str, object], as_json: bool, text: str) -> None:
    """Print an answer: as JSON, or as text for people.

    Args:
        value: The answer.
        as_json: Which of the two.
        text: What people see; it holds no markup.
    """
    if not as_json:
        Console().print(text, markup=False, highlight=False, soft_wrap=True)
        return
    if isinstance(value, BaseModel):
        print(value.model_dump_json(indent=2))
    elif isinstance(value, list):
        print(json.dumps([each.model_dump(mode="json") for each in value], indent=2))
    else:
        print(json.dumps(value, indent=2))


def amount(text: str) -> Msat:
    """An amount on the command line: ``50000`` or ``50_000sat``, ``123456msat``, ``0.001btc``.

    Raises:
        ConfigError: It is none.
    """
    plain = text.strip().lower().replace("_", "").replace(",", "")
    number, unit = plain, "sat"
    for name in ("msat", "sat", "btc"):
        if plain.endswith(name):
            number, unit = plain.removesuffix(name).strip(), name
            break
    try:
        if unit == "btc":
            return btc(number)
        if not (number.isascii() and number.isdigit()):
            raise AmountError("no whole number")
        return Msat(int(number)) if unit == "msat" else sat(int(number))
    except AmountError as error:
        why = f"{text}: no amount ({error}); write 50000 or 50000sat, 123456msat, 0.001btc"
        raise ConfigError(why) from error
