"""A regtest in this very process, for machines without a bitcoind."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import Literal

from .. import _ldkjit
from .bitcoind import BitcoindNotFoundError, find_bitcoind
from .regtest import Regtest
from .rpc import Rpc

_log = logging.getLogger(__name__)

ChainKind = Literal["bitcoind", "boxed"]
# Names the kind for whoever does not choose one.
VARIABLE = "LDKJIT_REGTEST"


class BoxedRegtest(Regtest):
    """A regtest in this process: blocks, scripts, a mempool and a miner, nothing to install.

    It answers the calls of bitcoind that nodes and their tests make, verifies scripts with Bitcoin
    Core's library, replaces, takes packages and reorganises. It has no peers, no ZMQ, and forgets
    everything at its end. For demos and tests: whatever is not on bitcoind is not proven.

    Attributes:
        kind: ``boxed``.
        rpc: The client to call it with; valid once started.
        folder: A temporary folder for the nodes on it.
    """

    kind = "boxed"

    def __init__(self) -> None:
        super().__init__()
        self._running: _ldkjit.Regtest | None = None

    async def start(self) -> None:
        """Start on a fresh chain, with a wallet and 101 blocks, so that coins can be spent.

        Raises:
            OSError: There is no port, or no thread.
        """
        user, password = "ldkjit", secrets.token_hex(16)
        self._running = await asyncio.to_thread(_ldkjit.Regtest, user, password)
        self.rpc = Rpc(self._running.port, user, password)
        self.folder = Path(tempfile.mkdtemp(prefix="ldkjit-regtest-"))
        await self._make_coins()

    async def stop(self, *, keep: bool = False) -> None:
        """Stop it and delete its folder, or keep the folder (logs included) for inspection."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(running.stop)
            self._leave_folder(keep)

    async def set_estimate(self, sat_per_kvb: int | None) -> None:
        """What ``estimatesmartfee`` says from now on.

        Args:
            sat_per_kvb: Satoshi for 1,000 virtual bytes; None: it cannot say, as at first.
        """
        rate = None if sat_per_kvb is None else f"{sat_per_kvb / 100_000_000:.8f}"
        await self.rpc.call("setfeerates", rate)

    async def set_mempool_minimum(self, sat_per_kvb: int) -> None:
        """The least that the mempool takes from now on, satoshi for 1,000 virtual bytes."""
        await self.rpc.call("setmempoolfee", f"{sat_per_kvb / 100_000_000:.8f}")


def make_chain(kind: ChainKind | None = None) -> Regtest:
    """A regtest that is not yet started.

    Args:
        kind: ``bitcoind``, which is fetched if there is none; ``boxed``, which is in this process;
            None: what ``$LDKJIT_REGTEST`` says, else bitcoind if this machine has one.

    Raises:
        ValueError: ``$LDKJIT_REGTEST`` names another kind.
        BitcoindNotFoundError: ``$BITCOIND_EXE`` names one that does not run.
    """
    asked = kind or os.environ.get(VARIABLE) or None
    if asked == "boxed":
        return BoxedRegtest()
    if asked == "bitcoind":
        return Regtest()
    if asked is not None:
        raise ValueError(f"{VARIABLE}={asked}: bitcoind or boxed is wanted")
    try:
        return Regtest(find_bitcoind(fetch=False))
    except BitcoindNotFoundError:
        if os.environ.get("BITCOIND_EXE"):
            raise
        _log.info("no bitcoind on this machine: the chain is in this process")
        return BoxedRegtest()
