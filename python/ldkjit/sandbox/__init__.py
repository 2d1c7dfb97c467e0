"""A regtest in three lines: a chain, LSPs, payers and wallets, all connected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from ..amounts import Msat, sat
from ..config import Bitcoind, FeeTier, Lsp, LspConfig, NodeConfig, TrustModel
from ..errors import NodeStoppedError
from ..models import Channel
from ..node import Node
from .bitcoind import BitcoindNotFoundError, find_bitcoind
from .boxed import BoxedRegtest, ChainKind, make_chain
from .regtest import BitcoindStartError, Regtest, free_ports
from .rpc import Rpc, RpcError

__all__ = [
    "BitcoindNotFoundError",
    "BitcoindStartError",
    "BoxedRegtest",
    "Regtest",
    "Rpc",
    "RpcError",
    "Sandbox",
    "find_bitcoind",
    "make_chain",
    "until",
]

Value = TypeVar("Value")

CONFIRMATIONS = 6
# Several coins, so that channels can be opened at the same time.
COINS = 5
DEFAULT_FUNDS = sat(100_000_000)
DEFAULT_MENU = (FeeTier(min_fee=sat(2_000), proportional_ppm=4_000, max_payment=sat(5_000_000)),)


async def until(
    look: Callable[[], Awaitable[Value | None]], what: str, timeout: float = 30.0
) -> Value:
    """Look again and again until the answer is true, and return it.

    Args:
        look: Asked every 20 ms.
        what: Named if it does not come true.
        timeout: Seconds.

    Raises:
        TimeoutError: It has not come true in time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        seen = await look()
        if seen:
            return seen
        if loop.time() > end:
            raise TimeoutError(f"waited {timeout:.0f} s in vain for {what}")
        await asyncio.sleep(0.02)


class Sandbox:
    """A regtest chain and nodes on it, gone at the end: ``async with Sandbox() as box:``.

    Each node has its own store in the chain's temporary folder, which is kept if the body fails.

    Args:
        kind: Of the chain, as ``make_chain`` has it.

    Attributes:
        chain: The chain; valid once entered.
        nodes: Every node made so far, by name.
    """

    chain: Regtest

    def __init__(self, kind: ChainKind | None = None) -> None:
        self._kind: ChainKind | None = kind
        self.nodes: dict[str, Node] = {}

    @classmethod
    def on(cls, chain: Regtest) -> Sandbox:
        """Nodes on a chain that runs, and goes on after them: end with ``stop_nodes``."""
        box = cls()
        box.chain = chain
        return box

    async def __aenter__(self) -> Sandbox:
        self.chain = await asyncio.to_thread(make_chain, self._kind)
        await self.chain.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop_nodes()
        finally:
            await self.chain.stop(keep=kind is not None)

    async def node(
        self,
        name: str = "node",
        *,
        funds: Msat | None = None,
        channels: Sequence[tuple[Node, int]] = (),
        policy: object | None = None,
        **settings: Any,
    ) -> Node:
        """A started node.

        Args:
            name: Unique; names its folder.
            funds: Confirmed coins to start with.
            channels: Channels to open and confirm: (peer, capacity in satoshi).
            policy: The hooks of an LSP.
            settings: More fields of ``NodeConfig``.

        Raises:
            ValueError: The name is taken.
        """
        if name in self.nodes:
            raise ValueError(f"there is a node {name!r} already")
        (port,) = free_ports(1)
        values: dict[str, Any] = {
            "network": "regtest",
            "data_dir": self.chain.folder / "nodes" / name,
            "chain": Bitcoind(
                self.chain.rpc.url,
                user=self.chain.rpc.user,
                password=self.chain.rpc.password,
                poll_ms=50,
            ),
            # A fixed port: others must find it again after a restart.
            "listen": [f"127.0.0.1:{port}"],
            "alias": name,
            "fee_fallback_sat_per_kw": 500,
            **settings,
        }
        node = Node(NodeConfig(**values), policy=policy)
        await node.start()
        self.nodes[name] = node
        if funds:
            await self.fund(node, funds)
        for peer, capacity_sat in channels:
            await self.open(node, peer, capacity_sat)
        return node

    async def lsp(
        self,
        name: str = "lsp",
        *,
        menu: Sequence[FeeTier] = DEFAULT_MENU,
        trust: TrustModel = TrustModel.LSP_TRUSTS_CLIENT,
        funds: Msat = DEFAULT_FUNDS,
        **settings: Any,
    ) -> Node:
        """A funded node that sells channels; ``settings`` are more of what ``node`` takes."""
        service = LspConfig(menu=list(menu), trust=trust)
        values: dict[str, Any] = {"lsp": service, "accept_channels": True, **settings}
        return await self.node(name, funds=funds, **values)

    async def wallet(
        self, lsp: Node, name: str = "wallet", *, trusted: bool = False, **settings: Any
    ) -> Node:
        """A node without coins or channels that buys from ``lsp``.

        Args:
            lsp: The LSP.
            name: Unique.
            trusted: Whether it may withhold the funding transaction.
            settings: More fields of ``NodeConfig``.
        """
        at = (await lsp.status()).address
        return await self.node(name, lsps=[Lsp(at, trusted=trusted)], **settings)

    async def fund(self, node: Node, amount: Msat) -> None:
        """Give a node confirmed coins."""
        address = await node.new_address()
        for _ in range(COINS):
            await self.chain.rpc.fund(address, amount.sat // COINS)
        before = (await node.balances()).onchain.confirmed_sat
        await self.mine(CONFIRMATIONS)

        async def arrived() -> bool:
            return (await node.balances()).onchain.confirmed_sat > before

        await until(arrived, "the coins of a node")

    async def open(self, node: Node, peer: Node, capacity_sat: int) -> Channel:
        """Open a channel, mine its confirmations and wait until both sides can use it."""
        opened = await node.open_channel((await peer.status()).address, capacity_sat)

        async def broadcast() -> bool:
            return opened.funding_txid in await self.chain.rpc.mempool()

        # Its way to bitcoind takes a moment, and blocks mined before it are no confirmations.
        await until(broadcast, "a channel's funding transaction in the mempool")
        await self.mine(CONFIRMATIONS)

        async def usable() -> Channel | None:
            theirs, ours = [
                next((c for c in await side.channels() if c.funding == opened.funding), None)
                for side in (peer, node)
            ]
            return ours if theirs and theirs.usable and ours and ours.usable else None

        return await until(usable, "a channel to become usable")

    async def mine(self, blocks: int = 1) -> int:
        """Mine blocks and wait until every node that runs has seen them; return the height."""
        height = await self.chain.mine(blocks)

        async def sees(node: Node) -> None:
            with contextlib.suppress(NodeStoppedError):
                await node.wait_height(height)

        await asyncio.gather(*(sees(node) for node in self.nodes.values()))
        return height

    async def stop_nodes(self) -> None:
        """Stop every node, the youngest first; one that fails does not keep the others running."""
        async with contextlib.AsyncExitStack() as stack:
            for node in self.nodes.values():
                stack.push_async_callback(node.stop)

    async def start_nodes(self) -> None:
        """Start every node that is stopped, in the order in which they were made."""
        for node in self.nodes.values():
            await node.start()
