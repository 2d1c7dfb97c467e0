"""What befalls the chain: bitcoind killed or hanging, blocks in bursts, reorganisations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from ldkjit.sandbox import Regtest
from ldkjit.sandbox.regtest import choose, ended
from ldkjit.sandbox.rpc import RpcError

# Seconds between blocks: an HTLC's budget is counted in blocks, a restart in seconds.
BLOCK_S = 3.0
# Seconds between events, on average.
EVENT_S = 8.0
DEEPEST = 6


class Chain(Regtest):
    """A bitcoind that is killed, hangs and changes its mind; its callers wait meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()
        self._sent: list[str] = []

    async def height(self) -> int:
        """The best block's height."""
        async with self._turn:
            return await self.rpc.height()

    async def mine(self, blocks: int = 1, address: str | None = None) -> int:
        """Mine blocks; return the height."""
        async with self._turn:
            return await super().mine(blocks, address)

    async def send(self, address: str, amount_sat: int) -> str:
        """Send coins of the miner's; return the transaction's id."""
        async with self._turn:
            self._sent.append(await self.rpc.fund(address, amount_sat))
            return self._sent[-1]

    async def die(self, seconds: float) -> None:
        """Killed -9, and back after a while: the blocks are there, what was unconfirmed is not."""
        async with self._turn:
            # bitcoind syncs its blocks about once an hour; a chain that falls back tests no node.
            await self.rpc.call("gettxoutsetinfo", "none")
            self._signal(signal.SIGKILL)
            process, self._process = self._process, None
            assert process is not None
            assert process.stdin is not None
            await ended(process, 10.0)
            process.stdin.close()
            await asyncio.sleep(seconds)
            await self._run(*choose(None))
            await self.rpc.call("loadwallet", "miner")
            await self._send_again()

    async def _send_again(self) -> None:
        """The miner's wallet does so by itself only after hours."""
        for txid in self._sent:
            sent = await self.rpc.call("gettransaction", txid)
            with contextlib.suppress(RpcError):
                await self.rpc.call("sendrawtransaction", sent["hex"])

    async def hang(self, seconds: float) -> None:
        """It answers nobody for a while."""
        async with self._turn:
            self._signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The process leads a session of its own, in which bitcoind runs.
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def reorganise(
        self,
        depth: int,
        rng: random.Random,
        losing: Callable[[set[str]], Awaitable[None]],
    ) -> str:
        """Other blocks take the place of the last; ``losing`` is told what was in those.

        Returns what the new blocks hold: ``all`` that is unconfirmed, ``none`` or ``some`` of it.
        """
        async with self._turn:
            tip = await self.rpc.height()
            gone: set[str] = set()
            block_hash = ""
            for height in range(tip, tip - depth, -1):
                block_hash = await self.rpc.call("getblockhash", height)
                block = await self.rpc.call("getblock", block_hash)
                gone |= set(block["tx"])
            await losing(gone)
            # A new address, lest the new block be the old one.
            address = await self.rpc.call("getnewaddress")
            how = rng.choice(("all", "none", "some"))
            await self.rpc.call("invalidateblock", block_hash)
            for left in range(depth, -1, -1):
                if how == "all":
                    await self.rpc.call("generatetoaddress", 1, address)
                    continue
                chosen: list[str] = []
                if how == "some" and left == depth:
                    pool = await self.rpc.call("getrawmempool", True)
                    first = [txid for txid, tx in pool.items() if not tx["depends"]]
                    chosen = rng.sample(first, len(first) // 2)
                await self.rpc.call("generateblock", address, chosen)
            # What spends a coinbase that was not mature for a moment has left the mempool.
            await self._send_again()
            return how


async def befall(
    chain: Chain,
    rng: random.Random,
    counts: Counter[str],
    losing: Callable[[set[str]], Awaitable[None]],
    over: asyncio.Event,
) -> None:
    """One event after another until it is over; none stops halfway."""
    while True:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), rng.uniform(0.5, 1.5) * EVENT_S)
            return
        what = rng.choice(("killed", "hangs", "hangs", "burst", "reorganised", "reorganised"))
        if what == "killed":
            await chain.die(rng.uniform(0.2, 4.0))
        elif what == "hangs":
            await chain.hang(rng.uniform(1.0, 6.0))
        elif what == "burst":
            await chain.mine(rng.randint(2, 4))
        else:
            depth = min(rng.choice((1, 1, 1, 2, 3, 4, 5, 6)), DEEPEST)
            how = await chain.reorganise(depth, rng, losing)
            counts[f"reorganised by {depth}, {how} taken"] += 1
            continue
        counts[f"bitcoind {what}" if what != "burst" else "burst of blocks"] += 1
