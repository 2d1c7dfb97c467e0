"""A regtest with nodes of ours and LNDs: made, connected and held to account."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

from support import coins_of, id_of, in_mempool, retire_all

from ldkjit import Channel, Node
from ldkjit.sandbox import Sandbox, until

from .lnd import Hop, Lnd, LndChannel

CONFIRMATIONS = 6
# Several coins, so that channels can be opened at the same time.
COINS = 3


class Stage:
    """What one test has.

    Args:
        box: The regtest, and the nodes of ours.
        programs: The folder with LND.
    """

    def __init__(self, box: Sandbox, programs: Path) -> None:
        self.box = box
        self.lnds: dict[str, Lnd] = {}
        self._programs = programs

    async def lnd(self, name: str = "lnd", *, coins_sat: int = 0) -> Lnd:
        """A started LND with confirmed coins."""
        lnd = Lnd(self._programs, self.box.chain, name)
        self.lnds[name] = lnd
        await lnd.start()
        if coins_sat:
            address = await lnd.new_address()
            for _ in range(COINS):
                await self.box.chain.rpc.fund(address, coins_sat // COINS)
        await self.mine(1)

        async def arrived() -> bool:
            return await lnd.coins() == coins_sat // COINS * COINS

        await until(arrived, f"{name}'s coins")
        return lnd

    async def mine(self, blocks: int = 1) -> int:
        """Mine, and wait until everybody has seen it."""
        height = await self.box.mine(blocks)
        await asyncio.gather(*(lnd.wait_height(height) for lnd in self.lnds.values()))
        return height

    async def open_from(
        self, lnd: Lnd, node: Node, capacity_sat: int, *, push_sat: int = 0, private: bool = True
    ) -> LndChannel:
        """LND opens a channel to a node of ours; confirmed, and both can use it."""
        await lnd.connect((await node.status()).address)
        funding = await lnd.open_channel(
            await id_of(node), capacity_sat, push_sat=push_sat, private=private
        )
        return (await self.confirmed(lnd, node, funding))[0]

    async def open_to(
        self, node: Node, lnd: Lnd, capacity_sat: int, **how: Any
    ) -> tuple[LndChannel, Channel]:
        """A node of ours opens a channel to LND; confirmed, and both can use it."""
        opened = await node.open_channel(lnd.address, capacity_sat, **how)
        return await self.confirmed(lnd, node, str(opened.funding))

    async def confirmed(self, lnd: Lnd, node: Node, funding: str) -> tuple[LndChannel, Channel]:
        """Mine a channel's confirmations and wait until both sides can use it."""
        await in_mempool(self.box, funding.partition(":")[0])
        await self.mine(CONFIRMATIONS)
        return await self.usable(lnd, node, funding)

    async def usable(self, lnd: Lnd, node: Node, funding: str) -> tuple[LndChannel, Channel]:
        """Wait until both sides can use a channel; return it as both see it."""

        async def both() -> tuple[LndChannel, Channel] | None:
            theirs = next((c for c in await lnd.channels() if c.funding == funding), None)
            ours = next((c for c in await node.channels() if c.funding == funding), None)
            if theirs and theirs.active and ours and ours.usable:
                return theirs, ours
            return None

        theirs, ours = await until(both, f"the channel {funding} to be usable")
        if theirs.local_sat > theirs.capacity_sat // 10:  # more than its reserve
            await lnd.wait_route(theirs)
        return theirs, ours

    async def coins(self, *owners: Node | Lnd) -> int:
        """The coins of all of them, satoshi."""
        return sum(
            [await (each.coins() if isinstance(each, Lnd) else coins_of(each)) for each in owners]
        )

    async def close_books(self) -> None:
        """Stop every node of ours; the books of each are right."""
        await retire_all(self.box)

    async def end(self, *, keep: bool) -> list[Path]:
        """End every LND; delete their folders, or keep and return them."""
        async with contextlib.AsyncExitStack() as stack:
            for lnd in self.lnds.values():
                stack.push_async_callback(lnd.stop)
        folders = [lnd.folder for lnd in self.lnds.values()]
        if keep:
            return folders
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return []


async def hop_of(node: Node, bolt11: str) -> Hop:
    """The one hop that an invoice hints at."""
    told = await node.decode(bolt11)
    ((hop,),) = (told.model_extra or {})["hints"]
    block, index, output = (int(part) for part in str(hop["short_channel_id"]).split("x"))
    return Hop(
        node_id=hop["node_id"],
        scid=block << 40 | index << 16 | output,
        base_msat=hop["base_msat"],
        ppm=hop["proportional_ppm"],
        cltv_delta=hop["cltv_expiry_delta"],
    )
