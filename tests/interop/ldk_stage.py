"""A regtest with nodes of ours and ldk-nodes: made, connected and held to account."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

from support import in_mempool, retire_all

from ldkjit import Lsp, Node
from ldkjit.sandbox import Sandbox, until

from .ldk_node import LdkChannel, LdkLsp, LdkNode, LdkService

CONFIRMATIONS = 6
# Several coins, so that channels can be opened at the same time.
COINS = 5


class LdkStage:
    """What one test has.

    Args:
        box: The regtest, and the nodes of ours.
        program: The ldk-node peer.
    """

    def __init__(self, box: Sandbox, program: Path) -> None:
        self.box = box
        self.ldk_nodes: list[LdkNode] = []
        self._program = program

    # Who is there

    async def ldk_node(self, name: str, *, coins_sat: int = 0, **settings: Any) -> LdkNode:
        """A started ldk-node with confirmed coins; ``settings`` are those of ``LdkNode``."""
        node = LdkNode(self._program, self.box.chain, name, **settings)
        self.ldk_nodes.append(node)
        await node.start()
        if coins_sat:
            address = await node.new_address()
            for _ in range(COINS):
                await self.box.chain.rpc.fund(address, coins_sat // COINS)
            await self.mine(CONFIRMATIONS)
            assert (await node.balances()).onchain_sat == coins_sat // COINS * COINS
        return node

    async def their_wallet(self, lsp: Node, name: str = "wallet", **settings: Any) -> LdkNode:
        """An ldk-node that buys from our LSP, with neither coins nor channels."""
        at = (await lsp.status()).address
        return await self.ldk_node(name, lsp=LdkLsp(at, settings.pop("token", None)), **settings)

    async def their_lsp(self, name: str = "lsp", **service: Any) -> LdkNode:
        """An ldk-node with coins that sells channels; ``service`` is what ``LdkService`` has."""
        return await self.ldk_node(name, coins_sat=100_000_000, service=LdkService(**service))

    async def our_wallet(self, lsp: LdkNode, name: str = "wallet", **how: Any) -> Node:
        """A node of ours that buys from an ldk-node; ``how`` is what ``Lsp`` has."""
        wallet = await self.box.node(name, lsps=[Lsp(lsp.address, **how)])
        await self.connected(wallet, lsp)
        return wallet

    async def connected(self, node: Node, peer: LdkNode) -> None:
        """Wait until a node of ours and an ldk-node are connected, as both see it."""

        async def both() -> bool:
            ours = {each.node_id for each in await node.peers() if each.connected}
            theirs = await peer.connected()
            return peer.node_id in ours and (await node.status()).node_id in theirs

        await until(both, f"{peer.name} and a node of ours to be connected")

    # What they do

    async def mine(self, blocks: int = 1) -> int:
        """Mine, and wait until everybody who runs has seen it."""
        height = await self.box.mine(blocks)
        await asyncio.gather(*(node.sync() for node in self.ldk_nodes if node.runs))
        return height

    async def open_to(self, node: Node, peer: LdkNode, *capacities_sat: int) -> None:
        """A node of ours opens channels to an ldk-node; confirmed, and both can use them."""
        fundings: list[str] = []
        for capacity in capacities_sat:
            opened = await node.open_channel(peer.address, capacity)
            assert opened.funding_txid is not None
            await in_mempool(self.box, opened.funding_txid)
            fundings.append(str(opened.funding))
        await self.mine(CONFIRMATIONS)
        for funding in fundings:
            await self.usable(node, peer, funding)

    async def open_from(self, peer: LdkNode, node: Node, capacity_sat: int) -> None:
        """An ldk-node opens a channel to a node of ours; confirmed, and both can use it."""
        funding = await peer.open_channel((await node.status()).address, capacity_sat)
        await in_mempool(self.box, funding.partition(":")[0])
        await self.mine(CONFIRMATIONS)
        await self.usable(node, peer, funding)

    async def usable(self, node: Node, peer: LdkNode, funding: str) -> LdkChannel:
        """Wait until both can use a channel; return it as the ldk-node sees it."""

        async def both() -> LdkChannel | None:
            theirs = next((c for c in await peer.channels() if c.funding == funding), None)
            ours = next((c for c in await node.channels() if c.funding == funding), None)
            return theirs if theirs and theirs.usable and ours and ours.usable else None

        return await until(both, f"the channel {funding} to be usable")

    # The end

    async def close_books(self) -> None:
        """Stop every node of ours; the books of each are right."""
        await retire_all(self.box)

    async def end(self, *, keep: bool) -> list[Path]:
        """End every ldk-node; delete their folders, or keep and return them."""
        async with contextlib.AsyncExitStack() as stack:
            for node in self.ldk_nodes:
                stack.push_async_callback(node.kill if keep else node.stop)
        folders = [node.folder for node in self.ldk_nodes]
        if keep:
            return folders
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return []
