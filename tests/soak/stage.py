"""Payer, LSP and wallets as processes on one bitcoind, and patience with those that die."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ldkjit.sandbox import free_ports

from . import powerloss
from .moments import Moments
from .process import DiedError, Process
from .report import Paid, Report
from .world import DEEPEST, Chain

# Larger payments than one of them carries need parts.
PAYER_CHANNELS = 6
PAYER_CHANNEL_SAT = 4_000_000
MENU = {
    "min_fee_msat": 2_000_000,
    "proportional_ppm": 10_000,
    "min_payment_msat": 1_000,
    "max_payment_msat": 4_000_000_000,
    "min_lifetime_blocks": 6,
    "max_client_to_self_delay": 2016,
    "valid_for_s": 3_600,
}
# Blocks after which the LSP may close a channel that it sold.
LIFETIME = MENU["min_lifetime_blocks"]
LIMITS = {
    "max_exposure_msat": 10**13,
    "max_orders": 100_000,
    # Short enough to be met: by a client that is away, one that is silent, one that does not pay.
    "wake_ms": 15_000,
    "open_ms": 6_000,
    "grace_ms": 3_000,
}
# The end of a payment is waited for much longer than its payer tries.
PATIENCE_S = 180.0


class Stage:
    """The nodes of one run, decided by its seed but for when processes really die."""

    lsp: Process
    payer: Process

    def __init__(
        self,
        binary: Path,
        seconds: float,
        seed: int,
        *,
        power: bool = False,
        patience: float = PATIENCE_S,
        earlier: Counter[str] | None = None,
    ) -> None:
        self.binary = binary
        self.seconds = seconds
        self.random = random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)
        self.patience = patience
        self.report = Report([seed])
        self.moments = Moments(earlier)
        self.folder = Path(tempfile.mkdtemp(prefix="ldkjit-soak-"))
        self.library = powerloss.build(self.folder) if power else None
        self.chain = Chain()
        self.paid: list[Paid] = []
        self.living: dict[str, Process] = {}
        self.ending = asyncio.Event()

    def _config(self, **more: Any) -> dict[str, Any]:
        rpc = self.chain.rpc
        return {
            "network": "regtest",
            "store": "sqlite",
            "listen": [],
            "chain": {
                "kind": "bitcoind",
                "url": f"http://127.0.0.1:{rpc.port}",
                "user": rpc.user,
                "password": rpc.password,
                "poll_ms": 200,
            },
            "channel_confirmations": 1,
            # What bitcoind's own wallet pays here: nodes with and without an estimate agree.
            "fee_fallback_sat_per_kw": 5_000,
            **more,
        }

    def _process(self, name: str, config: dict[str, Any]) -> Process:
        env = None
        if self.library is not None:
            log = self._unsynced(name)
            env = powerloss.environment(self.library, self.folder / name, log)
        return Process(self.binary, self.folder, name, config, env)

    def _unsynced(self, name: str) -> Path:
        return self.folder / "unsynced" / name

    async def _set_up(self) -> None:
        await self.chain.start()
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        service = {
            "menu": [MENU],
            "trust": "lsp_trusts_client",
            "limits": LIMITS,
            # No reorganisation here takes away what a client relies on.
            "lending": {"coin_confirmations": DEEPEST + 1},
        }
        config = self._config(listen=[self.address], accept_channels=True, lsp=service)
        self.lsp = self._process("lsp", config)
        self.payer = self._process("payer", self._config(accept_channels=True))
        for node, coins in ((self.lsp, 40), (self.payer, PAYER_CHANNELS + 1)):
            await node.start()
            self.living[node.name] = node
            address = (await node.call("new_address"))["address"]
            for _ in range(coins):
                await self.chain.fund(address, 20_000_000)
        await self.chain.mine(DEEPEST + 1)
        for node in (self.lsp, self.payer):
            await self._in_step(node)
        self.lsp_id = self.lsp.status["node_id"]
        peer = f"{self.lsp_id}@{self.address}"
        for _ in range(PAYER_CHANNELS):
            await self.payer.call(
                "open_channel",
                peer=peer,
                capacity_sat=PAYER_CHANNEL_SAT,
                push_msat=PAYER_CHANNEL_SAT * 1_000 // 8,
                timeout_ms=30_000,
            )
            # LDK takes only four unconfirmed ones of one peer.
            await self.chain.mine(1)
            await self._in_step(self.lsp)
        await self._until(self._payer_ready_soon, "the payer's channels")
        # No reorganisation reaches them.
        await self.chain.mine(6)
        await self._in_step(self.payer)
        self.payer_start = await self._payer_balance()

    async def _payer_ready_soon(self) -> bool:
        # The funding may still be on its way to the mempool: another block, and another look.
        await self.chain.mine(1)
        await self._in_step(self.payer)
        return await self._payer_ready()

    async def _payer_ready(self) -> bool:
        channels = await self.payer.call("channels")
        return sum(c["usable"] for c in channels) == PAYER_CHANNELS

    async def _payer_balance(self) -> int:
        return sum(c["outbound_msat"] for c in await self.payer.call("channels"))

    async def _in_step(self, node: Process) -> None:
        await self._retry(node, "wait_height", height=await self.chain.height(), timeout_ms=30_000)

    async def _until(
        self,
        look: Callable[[], Awaitable[Any]],
        what: str,
        patience: float | None = None,
        more: Callable[[], float] = lambda: 0.0,
    ) -> Any:
        """Look until the answer is true; a process that dies meanwhile is only a delay.

        ``more`` says how much longer than ``patience`` is right by now.
        """
        patience = self.patience if patience is None else patience
        begun = time.monotonic()
        pause = 0.02
        while True:
            with contextlib.suppress(DiedError):
                seen = await look()
                if seen:
                    return seen
            waited = time.monotonic() - begun
            if waited > patience + more():
                raise TimeoutError(f"waited {waited:.0f} s in vain for {what}")
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 1.5)

    async def _retry(self, node: Process, method: str, **params: Any) -> Any:
        """Ask until the process lives long enough to answer: only for calls that change nothing."""
        answer: list[Any] = []

        async def ask() -> bool:
            answer.append(await node.call(method, **params))
            return True

        await self._until(ask, f"{node.name}'s {method}")
        return answer[-1]

    async def _pages(self, node: Process, method: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await self._retry(node, method, after=after, limit=1_000)
            items += page["items"]
            if page["next"] is None or not page["items"]:
                return items
            after = page["next"]
