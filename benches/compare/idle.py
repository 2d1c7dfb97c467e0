"""Channels of an LSP with peers that are away: made once in a run, and copied for each round."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ldkjit.sandbox import Regtest

from .scene import RESERVE_SAT, STARTS_AT_ONCE, UNCONFIRMED_PER_PEER, Scene, checked, in_turn
from .sellers import Seller
from .settings import Case

PEERS_AT_ONCE = 25
CAPACITY_SAT = 100_000
# No LSP is given longer for its channels; the page states how many it has by then.
BUILD_S = 1_200.0


class IdleSets:
    """Stopped LSPs with so many idle channels, in folders to copy.

    Args:
        chain: The bitcoind of the run, which has the channels' fundings.
        folder: Where the sets are kept.
        make: Makes an LSP of a kind on a folder.
    """

    def __init__(
        self, chain: Regtest, folder: Path, make: Callable[[str, Path, Case], Seller]
    ) -> None:
        self._chain = chain
        self._folder = folder
        self._make = make
        # By kind: how many channels each set has, the sizes that were asked for in growing order.
        self._sets: dict[str, dict[int, int]] = {}
        self._spent_s: dict[str, float] = {}
        # Never the same peer again: it remembers nothing, and would have its channels closed.
        self._numbers = itertools.count()

    async def copy(self, kind: str, count: int, to: Path) -> int:
        """Lay a copy into a folder; return how many channels it has, fewer if time ran out."""
        if not count:
            return 0
        has = self._sets.setdefault(kind, {})
        if count not in has:
            smaller = max((each for each in has if each < count), default=0)
            has[count] = await self._grow(kind, smaller, count)
        shutil.copytree(self._folder / kind / str(count), to)
        return has[count]

    async def _grow(self, kind: str, smaller: int, count: int) -> int:
        folder = self._folder / kind / str(count)
        if smaller:
            shutil.copytree(self._folder / kind / str(smaller), folder)
        have = self._sets[kind].get(smaller, 0)
        began = time.monotonic()
        case = Case("idle")
        scene = Scene(self._chain, self._make(kind, folder, case), folder.parent, case)
        await scene.seller.start()
        try:
            await scene.fund(scene.seller, 1, (count - have) * RESERVE_SAT)
            while have < count and time.monotonic() - began + self._spent_s.get(kind, 0) < BUILD_S:
                have += await self._some(scene, count - have)
        finally:
            await scene.seller.stop()
        self._spent_s[kind] = self._spent_s.get(kind, 0) + time.monotonic() - began
        return have

    async def _some(self, scene: Scene, missing: int) -> int:
        """Channels of new peers, which are gone afterwards; return how many."""
        peers = min(PEERS_AT_ONCE, -(-missing // UNCONFIRMED_PER_PEER))
        each = UNCONFIRMED_PER_PEER if missing >= peers * UNCONFIRMED_PER_PEER else 1
        peers = min(peers, missing // each)
        names = [f"idle-{next(self._numbers)}" for _ in range(peers)]
        nodes = checked(
            await in_turn([partial(scene.node, name) for name in names], STARTS_AT_ONCE)
        )
        await scene.fund_all(nodes, each + 1, CAPACITY_SAT + RESERVE_SAT)
        await scene.channels_to_seller(nodes, each, CAPACITY_SAT)
        for node in nodes:
            await node.stop()
        scene.nodes.clear()
        return peers * each
