"""What an application's tests need around them: who sells channels, who pays, who receives."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType
from typing import Any

from ..amounts import Msat, sat
from ..models import Payment
from ..node import Invoice, Node
from ..sandbox import Regtest, Sandbox

# Of the payer's one channel.
PAYER_CHANNEL_SAT = 10_000_000
PAYER_COINS = sat(20_000_000)


class Scenario:
    """An LSP, a payer and any number of wallets on a chain that others may share.

    Use it as ``async with Scenario(chain) as scenario:``; the fixture ``scenario`` is one.

    Args:
        chain: A started regtest; it goes on after the scenario.
    """

    _count = itertools.count()

    def __init__(self, chain: Regtest) -> None:
        self.chain = chain
        self._box = Sandbox.on(chain)
        # Others of the session have nodes in the same folder.
        self._prefix = f"scenario-{next(self._count)}-"
        self._lsp: Node | None = None
        self._payer: Node | None = None
        self._wallets = itertools.count()
        # Whoever asks first has them made; the others wait.
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Scenario:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._box.stop_nodes()

    async def lsp(self, **settings: Any) -> Node:
        """The LSP, started at the first call.

        Args:
            settings: What ``Sandbox.lsp`` takes (``menu``, ``trust``, ``policy``, ``funds``); at
                the first call only.

        Raises:
            ValueError: It is there already, and settings were given.
        """
        async with self._turn:
            if self._lsp is not None and settings:
                raise ValueError("the LSP is there already: its settings come with the first call")
            return await self._the_lsp(**settings)

    async def _the_lsp(self, **settings: Any) -> Node:
        if self._lsp is None:
            self._lsp = await self._box.lsp(self._prefix + "lsp", **settings)
        return self._lsp

    async def payer(self) -> Node:
        """A node with a channel to the LSP of 10,000,000 sat, all of it its own."""
        async with self._turn:
            if self._payer is None:
                channels = [(await self._the_lsp(), PAYER_CHANNEL_SAT)]
                self._payer = await self._box.node(
                    self._prefix + "payer", funds=PAYER_COINS, channels=channels
                )
            return self._payer

    async def wallet(self, **settings: Any) -> Node:
        """Another wallet without coins and channels, which buys from the LSP.

        Args:
            settings: More fields of ``NodeConfig``.
        """
        # An LSP sells what it can receive: without a payer, nothing.
        await self.payer()
        name = f"{self._prefix}wallet-{next(self._wallets)}"
        return await self._box.wallet(await self.lsp(), name, **settings)

    async def node(self, name: str, **settings: Any) -> Node:
        """Any other node, as ``Sandbox.node`` makes it."""
        return await self._box.node(self._prefix + name, **settings)

    async def mine(self, blocks: int = 1) -> int:
        """Mine, and wait until every node of the scenario has seen it; the height."""
        return await self._box.mine(blocks)

    async def pay(self, invoice: Invoice | str, amount: Msat | None = None) -> Payment:
        """The payer pays; wait for the end, at its side.

        Args:
            invoice: A node's, or a text.
            amount: For one without an amount.

        Raises:
            PaymentError: It failed.
        """
        bolt11 = invoice if isinstance(invoice, str) else invoice.bolt11
        return await (await self.payer()).pay(bolt11, amount=amount)

    async def first_payment(self, wallet: Node, amount: Msat) -> Payment:
        """A wallet receives a payment through a channel that is opened for it; its side of it.

        Args:
            wallet: One of ``wallet``.
            amount: What the payer sends; the wallet gets the opening fee less.
        """
        invoice = await wallet.receive(amount, jit="always")
        await self.pay(invoice)
        return await invoice.settled()
