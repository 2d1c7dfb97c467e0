"""Backups from outside a node, what comes out of them, and bringing home what a node held."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
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
# A peer that has a channel with us says so at once when it is connected.
_SAYS_WITHIN_S = 5.0


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
) -> tuple[Recovery, bool, int]:
    """Run a node that recovers until all is home, or the time is over.

    Args:
        config: With ``recover`` set.
        timeout: Seconds; None waits for ever.
        look: Told of every change.

    Returns:
        How far it came, whether that is all, and the coins that can be sent, satoshi. It is all
        when what is known is settled and every peer that the backup names was met, as any may
        have a channel that was opened later. From words alone it is never known to be all.
    """
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    last: Recovery | None = None
    async with Node(config) as node:
        met: dict[str, float] = {}
        while True:
            now = await node.recovery()
            if now != last:
                look(now)
                last = now
            peers = await node.peers()
            for each in peers:
                if each.connected:
                    met.setdefault(each.node_id, loop.time())
            heard = {name for name, at in met.items() if loop.time() - at >= _SAYS_WITHIN_S}
            all_heard = all(each.inbound or each.node_id in heard for each in peers)
            is_all = now.origin != "words" and now.settled and all_heard
            if is_all or (until is not None and loop.time() >= until):
                return now, is_all, (await node.balances()).onchain.spendable_sat
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


def as_json(now: Recovery, is_all: bool, spendable_sat: int) -> str:
    """One JSON object: how far it came, whether that is all, and the coins."""
    told = json.loads(now.model_dump_json())
    return json.dumps({**told, "all": is_all, "spendable_sat": spendable_sat}, indent=2)


def read_words(file: Path) -> str:
    """The words in a file; ``-`` is the standard input, where they are not shown when typed.

    Raises:
        OSError: The file cannot be read.
        UnicodeError: It holds no text.
    """
    if str(file) != "-":
        return file.read_text(encoding="utf-8").strip()
    if sys.stdin.isatty():
        return getpass.getpass("The words: ", stream=sys.stderr).strip()
    return sys.stdin.read().strip()
