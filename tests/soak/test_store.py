"""A node that cannot save stops, says why, and has lost nothing that it had answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ldkjit.sandbox import Regtest
from soak.process import DiedError, Process


def _process(chain: Regtest, node: Path, folder: Path) -> Process:
    config: dict[str, Any] = {
        "network": "regtest",
        "store": "sqlite",
        "chain": {
            "kind": "bitcoind",
            "url": f"http://127.0.0.1:{chain.rpc.port}",
            "user": chain.rpc.user,
            "password": chain.rpc.password,
            "poll_ms": 50,
        },
    }
    return Process(node, folder, "node", config)


@pytest.mark.bitcoind
@pytest.mark.parametrize("fault", ["fails", "loses_answer"])
async def test_a_store_that_fails_stops_the_node(node: Path, tmp_path: Path, fault: str) -> None:
    """Every address that was answered is known after the restart: none is given out again."""
    async with Regtest() as chain:
        process = _process(chain, node, tmp_path)
        process.trouble["store"] = {"fault": fault, "nth": 6}
        await process.start()
        answered: list[str] = []

        async def ask() -> None:
            while True:
                answered.append((await process.call("new_address"))["address"])

        with pytest.raises(DiedError):
            await ask()
        await asyncio.wait_for(process.dead.wait(), 30)
        assert process.stopped == "store"
        log = (tmp_path / "node.log").read_text()
        assert "stopping, nothing can be saved: the store failed: as the test asked" in log
        assert answered
        identity = process.status["node_id"]

        await process.start()
        assert process.status["node_id"] == identity
        for _ in range(3):
            answered.append((await process.call("new_address"))["address"])
        assert len(set(answered)) == len(answered)
        await process.stop()


@pytest.mark.bitcoind
async def test_a_store_that_takes_seconds(node: Path, tmp_path: Path) -> None:
    """Answers come late, and only once what they say is kept."""
    async with Regtest() as chain:
        process = _process(chain, node, tmp_path)
        process.trouble["store"] = {"fault": "slow", "nth": 1, "ms": 2_000}
        await process.start()
        address = (await process.call("new_address"))["address"]
        process.kill()
        await process.dead.wait()
        await process.start()
        assert (await process.call("new_address"))["address"] != address
        await process.stop()
