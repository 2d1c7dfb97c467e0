"""The two LSPs that are compared, each a process of its own, asked for the same things."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

from interop.ldk_node import LdkNode, LdkService, LdkStore
from soak.process import Process

from ldkjit.sandbox import Regtest, free_ports

from .settings import OUR_DOOR, our_service, their_service

# A start with ten thousand channels takes its time.
START_S = 1_200.0


class Seller(Protocol):
    """An LSP process.

    Attributes:
        kind: What it is.
        folder: All that it keeps.
    """

    kind: str
    folder: Path

    @property
    def address(self) -> str:
        """``node_id@host:port``, valid once started."""
        ...

    @property
    def pid(self) -> int:
        """Of the process."""
        ...

    async def start(self) -> None:
        """Start, or start again in its folder."""
        ...

    async def stop(self) -> None:
        """Stop it in order."""
        ...

    async def kill(self) -> None:
        """As kill -9 does."""
        ...

    async def new_address(self) -> str:
        """Where it can be sent coins."""
        ...

    async def sync(self) -> None:
        """Wait until it is at the chain's tip."""
        ...

    async def coins_sat(self) -> int:
        """Confirmed coins."""
        ...

    async def channels(self) -> dict[str, bool]:
        """Its channels by id, and whether each is usable."""
        ...


class Ours:
    """ldkjit, in Python; ``hooks`` are those of ``host.py``, none for rules alone."""

    kind = "ldkjit"

    def __init__(self, chain: Regtest, folder: Path, extra_ppm: int, *hooks: str) -> None:
        (port,) = free_ports(1)
        self.folder = folder
        self._chain = chain
        self._at = f"127.0.0.1:{port}"
        rpc = chain.rpc
        config: dict[str, Any] = {
            "network": "regtest",
            "listen": [self._at],
            "chain": {
                "kind": "bitcoind",
                "url": rpc.url,
                "user": rpc.user,
                "password": rpc.password,
            },
            "fee_fallback_sat_per_kw": 500,
            "accept_channels": True,
            "peer_limits": OUR_DOOR,
            "log_level": "error",
            "lsp": our_service(extra_ppm),
        }
        folder.mkdir(parents=True, exist_ok=True)
        arguments = ("-m", "compare.host", *hooks)
        self._process = Process(Path(sys.executable), folder, "lsp", config, None, arguments)

    @property
    def address(self) -> str:
        """``node_id@host:port``."""
        return f"{self._process.status['node_id']}@{self._at}"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def start(self) -> None:
        """Start, or start again in its folder."""
        await self._process.start(START_S)

    async def stop(self) -> None:
        """Stop it in order."""
        await self._process.stop(START_S)

    async def kill(self) -> None:
        """As kill -9 does."""
        self._process.kill()
        await self._process.dead.wait()

    async def new_address(self) -> str:
        """Where it can be sent coins."""
        return str((await self._process.call("new_address"))["address"])

    async def sync(self) -> None:
        """Wait until it is at the chain's tip."""
        height = await self._chain.rpc.height()
        await self._process.call("wait_height", START_S, height=height, timeout_ms=600_000)

    async def coins_sat(self) -> int:
        """Confirmed coins."""
        return int((await self._process.call("balances"))["onchain"]["confirmed_sat"])

    async def channels(self) -> dict[str, bool]:
        """Its channels by id, and whether each is usable."""
        told = await self._process.call("channels", START_S)
        return {each["channel_id"]: each["usable"] for each in told}

    async def commits(self) -> tuple[int, float]:
        """How many commits its store has made, and the seconds that they took."""
        metrics = await self._process.call("metrics")
        (times,) = (each for each in metrics if each["name"] == "ldkjit_commit_seconds")
        (sample,) = times["samples"]
        return sample["value"], sample["sum"]

    async def timeline(self, payment_hash: str) -> list[dict[str, Any]]:
        """The stages of a payment on this node."""
        told: list[dict[str, Any]] = await self._process.call("timeline", payment_hash=payment_hash)
        return told


class Theirs:
    """ldk-node 0.7.1."""

    kind = "ldk-node"

    def __init__(
        self, chain: Regtest, folder: Path, extra_ppm: int, program: Path, store: LdkStore
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._node = LdkNode(
            *(program, chain, "lsp"),
            service=LdkService(**their_service(extra_ppm)),
            # Its log is written by the threads that serve.
            log_level="error",
            store=store,
            folder=folder,
        )

    @property
    def address(self) -> str:
        """``node_id@host:port``."""
        return self._node.address

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._node.pid

    async def start(self) -> None:
        """Start, or start again in its folder."""
        await self._node.start(START_S)

    async def stop(self) -> None:
        """Stop it in order."""
        await self._node.stop()

    async def kill(self) -> None:
        """As kill -9 does."""
        await self._node.kill()

    async def new_address(self) -> str:
        """Where it can be sent coins."""
        return await self._node.new_address()

    async def sync(self) -> None:
        """Wait until it is at the chain's tip."""
        await self._node.sync()

    async def coins_sat(self) -> int:
        """Confirmed coins."""
        return (await self._node.balances()).onchain_sat

    async def channels(self) -> dict[str, bool]:
        """Its channels by id, and whether each is usable."""
        return {each.channel_id: each.usable for each in await self._node.channels()}
