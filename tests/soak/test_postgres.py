"""Half a minute of the soak with every node on PostgreSQL, whose server is killed too."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from postgres import Server

from soak.process import Process
from soak.soak import Soak

SECONDS = 30.0
SEED = 20_261
HOST = Path(__file__).with_name("store_host.py")
# Between two kills of the server.
PAUSE_S = 6.0


class OnPostgres(Soak):
    """A soak whose nodes keep everything in one server, each in a schema of its own."""

    conninfo: str

    def _process(self, name: str, config: dict[str, Any]) -> Process:
        process = super()._process(name, {**config, "store": "external"})
        schema = name.replace("-", "_")
        process.store = [sys.executable, str(HOST), self.conninfo, schema]
        return process


@contextlib.asynccontextmanager
async def killed_again_and_again(server: Server) -> AsyncIterator[list[float]]:
    """A server that dies every few seconds and comes back; when it did."""
    loop = asyncio.get_running_loop()
    kills: list[float] = []

    async def kill() -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            server.kill()
            kills.append(loop.time())
            await loop.run_in_executor(None, server.start)

    task = asyncio.create_task(kill())
    try:
        yield kills
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await loop.run_in_executor(None, server.start)


@pytest.mark.bitcoind
@pytest.mark.timeout(900)
async def test_kills_of_nodes_and_of_their_database_cost_nothing(
    node: Path, own_postgres: Server
) -> None:
    soak = OnPostgres(node, SECONDS, SEED, wallets=3)
    soak.conninfo = own_postgres.conninfo()
    async with killed_again_and_again(own_postgres) as kills:
        report = await soak.run()
    assert report.findings == []
    assert report.jit_paid > 0
    assert sum(report.kills.values()) > 0
    assert len(kills) >= 3
