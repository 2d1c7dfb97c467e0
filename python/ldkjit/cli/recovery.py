"""Backups from outside a node, what comes out of them, and bringing home what a node held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import _ldkjit
from ..config import NodeConfig
from ..errors import from_native
from ..models import Backup, Recovery
from ..node import Node

_LOOK_S = 1.0


def _told(answer: tuple[bool, str]) -> Backup:
    ok, text = answer
    if not ok:
        raise from_native(text)
    return Backup.model_validate_json(text)


def backup(data_dir: Path, file: Path) -> Backup:
    """Write the node in a data directory, running or not, into one new file.

    Raises:
        LdkJitError: There is no node, the file exists, or it cannot be written.
    """
    return _told(_ldkjit.backup(str(data_dir), str(file)))


def restore(file: Path, data_dir: Path) -> Backup:
    """Make a node of a backup, in a new or empty folder.

    Raises:
        LdkJitError: The folder is in use, the node runs here, or the file is no backup.
    """
    return _told(_ldkjit.restore(str(file), str(data_dir)))


def show_backup(what: Backup, console: Console) -> None:
    """Print what a backup holds."""
    console.print(
        f"node {what.node_id} on {what.network}, {what.channels} channels, commit {what.commit}, "
        f"taken {what.taken_at:%Y-%m-%d %H:%M:%S} UTC, {what.bytes:,} bytes",
        highlight=False,
    )


async def recover(
    config: NodeConfig, timeout: float | None, look: Callable[[Recovery], None]
) -> tuple[Recovery, int]:
    """Run a node that recovers until it is settled, or the time is over.

    Args:
        config: With ``recover`` set.
        timeout: Seconds; None waits for ever. From words alone it is never known to be all.
        look: Told of every change.

    Returns:
        How far it came, and the coins that can be sent, satoshi.
    """
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    last: Recovery | None = None
    async with Node(config) as node:
        while True:
            now = await node.recovery()
            if now != last:
                look(now)
                last = now
            is_all = now.settled and now.origin != "words"
            if is_all or (until is not None and loop.time() >= until):
                return now, (await node.balances()).onchain.spendable_sat
            await asyncio.sleep(_LOOK_S)


def show_recovery(now: Recovery, console: Console) -> None:
    """Print how far each channel is and what it needs."""
    console.print(
        f"recovering from {now.origin.replace('_', ' ')}, as of {now.since:%Y-%m-%d %H:%M} UTC: "
        f"{now.coming_sat:,} sat are on their way",
        highlight=False,
    )
    if not now.channels:
        return
    table = Table()
    for name in ("channel", "peer", "state", "sat", "needs"):
        table.add_column(name, justify="right" if name == "sat" else "left")
    for each in now.channels:
        ours = "?" if each.ours_sat is None else f"{each.ours_sat:,}"
        table.add_row(each.channel_id[:16], (each.peer or "?")[:16], each.state, ours, each.need)
    console.print(table)


def as_json(now: Recovery, spendable_sat: int) -> str:
    """One JSON object: how far it came, and the coins."""
    told = json.loads(now.model_dump_json())
    return json.dumps({**told, "spendable_sat": spendable_sat}, indent=2)
