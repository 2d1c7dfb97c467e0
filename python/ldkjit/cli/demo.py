"""Five JIT payments on a regtest; what everybody paid, got and earned is computed here again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..amounts import Msat, sat
from ..config import FeeTier, TrustModel
from ..models import Channel, Payment
from ..node import Invoice, Node
from ..sandbox import Sandbox, until
from ..sandbox.boxed import ChainKind
from .report import Check, Report, Scene
from .show import Show

TIER = FeeTier(min_fee=sat(2_000), proportional_ppm=4_000, max_payment=sat(5_000_000))
# Two channels to each LSP, each smaller than the large payment: it must go in two parts.
CHANNEL_SAT = 1_000_000
SMALL = sat(50_000)
LARGE = sat(1_500_000)
ODD = Msat(777_777_777)
AGAIN = sat(1_000)

# What the chain is, for who watches.
CHAINS = {
    "bitcoind": "bitcoind runs",
    "boxed": "no bitcoind: the chain is in this process, scripts by Bitcoin Core's library",
}

# Stages of a timeline whose order is the point of a scene.
WALLET_SEES_FUNDING = "funding_seen"
WALLET_CLAIMS = "claimed"
LSP_HAS_PREIMAGE = "part_claimed"
LSP_BROADCASTS = "funding_broadcast"


def expected_fee(payment: int) -> int:
    """The opening fee in msat, from the formula of the specification and not from the node."""
    return max(int(TIER.min_fee), (int(payment) * TIER.proportional_ppm + 999_999) // 1_000_000)


class Demo:
    """The five scenes.

    Args:
        show: Told of every step.
        chain: Its kind; None: bitcoind if this machine has one.
    """

    box: Sandbox
    lsp: Node
    withholding: Node
    payer: Node
    ann: Node
    bob: Node
    cyd: Node

    def __init__(self, show: Show, chain: ChainKind | None = None) -> None:
        self._show = show
        self._kind: ChainKind | None = chain
        self._report = Report()
        self._scene = Scene("")

    async def run(self) -> Report:
        """Run every scene on a chain of their own.

        Raises:
            BitcoindNotFoundError: There is no bitcoind, and none can be fetched.
            LdkJitError: A node failed.
            TimeoutError: Something did not happen.
        """
        async with Sandbox(self._kind) as self.box:
            await self._set_the_stage()
            await self._single_part()
            await self._two_parts()
            await self._same_channel()
            await self._variable_amount()
            await self._restart()
            await self._books()
        return self._report

    def _begin(self, title: str) -> None:
        self._scene = Scene(title)
        self._report.scenes.append(self._scene)
        self._show.scene(title)

    def _check(self, what: str, expected: Any, actual: Any) -> None:
        check = Check(what, expected, actual)
        self._scene.checks.append(check)
        self._show.check(check)

    async def _set_the_stage(self) -> None:
        self._show.scene("a regtest")
        self._show.step(CHAINS[self.box.chain.kind])
        self.lsp = await self.box.lsp("lsp", menu=[TIER])
        self.withholding = await self.box.lsp(
            "withholding-lsp", menu=[TIER], trust=TrustModel.CLIENT_TRUSTS_LSP
        )
        self._show.step("two LSPs: one trusts its clients, one is trusted by them")
        both = (self.lsp, self.withholding)
        self.payer = await self.box.node(
            "payer",
            funds=sat(10_000_000),
            channels=[(lsp, CHANNEL_SAT) for lsp in both for _ in range(2)],
            peers=[(await lsp.status()).address for lsp in both],
        )
        self._show.step(f"a payer with two channels of {CHANNEL_SAT:,} sat to each")
        self.ann = await self.box.wallet(self.lsp, "ann")
        self.bob = await self.box.wallet(self.withholding, "bob", trusted=True)
        self.cyd = await self.box.wallet(self.lsp, "cyd")
        self._show.step("three wallets without coins and channels")

    async def _single_part(self) -> None:
        self._begin("1 single part, the LSP trusts the client")
        invoice = await self._jit_invoice(self.ann, SMALL)
        before = await self._payer_outbound()
        payment = await self._pay(invoice)
        channel = await self._only_channel(self.ann)
        mempool = await self.box.chain.rpc.mempool()
        self._check("funding is in the mempool", True, channel.funding_txid in mempool)
        await self._check_order("the wallet", self.ann, invoice, WALLET_SEES_FUNDING, WALLET_CLAIMS)
        await self._check_jit_money(self.lsp, self.ann, invoice, SMALL, payment, before)
        await self._show_timelines(self.lsp, self.ann, invoice)
        await self.box.mine(6)

    async def _two_parts(self) -> None:
        self._begin("2 two parts, the client trusts the LSP")
        invoice = await self._jit_invoice(self.bob, LARGE)
        self._check("who trusts whom", "client_trusts_lsp", invoice.trust and invoice.trust.value)
        before = await self._payer_outbound()
        payment = await self._pay(invoice)
        after = await self._payer_outbound()
        self._check("parts", 2, sum(after[each] < before[each] for each in before))
        channel = await self._only_channel(self.bob)

        async def in_mempool() -> bool:
            return channel.funding_txid in await self.box.chain.rpc.mempool()

        appeared = True
        try:
            await until(in_mempool, "the funding transaction", timeout=10)
        except TimeoutError:
            appeared = False
        self._check("funding appears in the mempool", True, appeared)
        await self._check_order(
            "the LSP", self.withholding, invoice, LSP_HAS_PREIMAGE, LSP_BROADCASTS
        )
        await self._check_jit_money(self.withholding, self.bob, invoice, LARGE, payment, before)
        await self.box.mine(6)

    async def _same_channel(self) -> None:
        self._begin("3 second payment over the same channel")
        amount = await self._room(self.ann)
        invoice = await self.ann.receive(amount, description="again")
        self._check("path", "channel", invoice.path)
        before = await self._payer_outbound()
        channel = await self._only_channel(self.ann)
        payment = await self._pay(invoice)
        later = await self._only_channel(self.ann)
        self._check("same channel", channel.channel_id, later.channel_id)
        await self._check_payment(self.ann, invoice, amount, 0, payment, before)
        await self._check_gain(self.ann, channel, amount)

    async def _variable_amount(self) -> None:
        self._begin("4 variable amount")
        invoice = await self._jit_invoice(self.cyd, None)
        before = await self._payer_outbound()
        payment = await self._pay(invoice, amount=ODD)
        await self._check_jit_money(self.lsp, self.cyd, invoice, ODD, payment, before)
        await self.box.mine(6)

    async def _restart(self) -> None:
        self._begin("5 every node stops, starts, and is paid again")
        wallets = {"ann": self.ann, "bob": self.bob, "cyd": self.cyd}
        held = {name: await self._holdings(node) for name, node in wallets.items()}
        await self.box.stop_nodes()
        await self.box.start_nodes()
        self._show.step("all nodes stopped and started")
        for name, node in wallets.items():
            self._check(f"{name} has what it had", held[name], await self._holdings(node))
            await until(lambda node=node: self._usable(node), f"{name}'s channel")
        await until(lambda: self._usable(self.payer), "the payer's channels")
        for node in wallets.values():
            amount = min(AGAIN, await self._room(node))
            invoice = await node.receive(amount, description="after the restart")
            before = await self._payer_outbound()
            channel = await self._only_channel(node)
            payment = await self._pay(invoice)
            await self._check_payment(node, invoice, amount, 0, payment, before)
            await self._check_gain(node, channel, amount)

    # Steps

    async def _jit_invoice(self, wallet: Node, amount: Msat | None) -> Invoice:
        invoice = await wallet.receive(amount, description="demo", max_opening_fee=sat(20_000))
        self._check("path", "jit", invoice.path)
        quoted = None if amount is None else expected_fee(amount)
        self._check("opening fee quoted, msat", quoted, _plain(invoice.opening_fee))
        return invoice

    async def _pay(self, invoice: Invoice, amount: Msat | None = None) -> Payment:
        began = time.perf_counter()

        async def settle() -> None:
            await invoice.settled(timeout=60)
            self._scene.milliseconds += (time.perf_counter() - began) * 1_000

        settling = asyncio.create_task(settle())
        paying = asyncio.create_task(self.payer.pay(invoice.bolt11, amount=amount))
        try:
            await asyncio.gather(settling, paying)  # raises as soon as either fails
        finally:
            settling.cancel()
            paying.cancel()
        return paying.result()

    async def _check_jit_money(
        self,
        lsp: Node,
        wallet: Node,
        invoice: Invoice,
        amount: Msat,
        paid: Payment,
        before: dict[str, Msat],
    ) -> None:
        fee = expected_fee(amount)
        await self._check_payment(wallet, invoice, amount, fee, paid, before)
        earned = await until(lambda: self._earned(lsp, invoice.payment_hash), "the LSP's ledger")
        self._check("the LSP earned, msat", fee, earned)
        capacity_sat = (await self._only_channel(wallet)).capacity_sat
        limit = max(1_000, capacity_sat // 100) * 1_000

        async def holds() -> bool:
            # What is the wallet's and cannot be spent is its reserve: whole satoshi, at most 1 %.
            (channel,) = await wallet.channels()
            reserve = int(amount) - fee - int(channel.outbound)
            return 0 <= reserve <= limit and reserve % 1_000 == 0

        await self._check_soon("the wallet's channel holds it, less its reserve", True, holds)

    async def _check_payment(
        self,
        wallet: Node,
        invoice: Invoice,
        amount: Msat,
        fee: int,
        paid: Payment,
        before: dict[str, Msat],
    ) -> None:
        got = await wallet.payment(invoice.payment_hash)
        self._check("the payer paid, msat", int(amount), _plain(paid.amount))
        self._check("the wallet received, msat", int(amount) - fee, _plain(got.amount))
        self._check("opening fee, msat", fee, _plain(got.opening_fee) or 0)

        spent = int(amount) + int(paid.fee or 0)

        async def lost() -> int:
            after = await self._payer_outbound()
            return sum(int(before[each]) - int(after[each]) for each in before)

        await self._check_soon("the payer's channels lost, msat", spent, lost)
        self._scene.paid_msat += int(amount)
        self._scene.opening_fee_msat += fee
        self._scene.received_msat += _plain(got.amount) or 0

    async def _check_gain(self, wallet: Node, before: Channel, amount: Msat) -> None:
        async def gained() -> int:
            (channel,) = await wallet.channels()
            return int(channel.outbound) - int(before.outbound)

        await self._check_soon("the wallet's channel gained, msat", int(amount), gained)

    async def _check_soon(self, what: str, expected: Any, actual: Callable[[], Any]) -> None:
        """Check what is so a moment after the payment: the last commitments are still signed."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: _equal(actual(), expected), what, timeout=5)
        self._check(what, expected, await actual())

    async def _check_order(
        self, who: str, node: Node, invoice: Invoice, first: str, then: str
    ) -> None:
        """Check by a node's own clock that one stage of the payment came before another."""
        stages = [each.stage for each in await node.timeline(invoice.payment_hash)]
        seen = [each for each in stages if each in (first, then)]
        self._check(f"{who}: {first}, then {then}", [first, then], list(dict.fromkeys(seen)))

    async def _books(self) -> None:
        """Every node's ledger against its wallet and channels, in the last scene."""
        for name, node in self.box.nodes.items():
            verdict = await node.ledger_check()
            found = "adds up" if verdict.bad is None else f"{verdict.bad.seq}: {verdict.bad.why}"
            self._check(f"the ledger of {name}", "adds up", found)

    async def _show_timelines(self, lsp: Node, wallet: Node, invoice: Invoice) -> None:
        for who, node in (("payer", self.payer), ("LSP", lsp), ("wallet", wallet)):
            self._scene.timelines[who] = await node.timeline(invoice.payment_hash)
        self._show.timeline(self._scene)

    # What is so

    async def _payer_outbound(self) -> dict[str, Msat]:
        return {each.channel_id: each.outbound for each in await self.payer.channels()}

    async def _only_channel(self, wallet: Node) -> Channel:
        channels: Sequence[Channel] = await wallet.channels()
        self._check("channels of the wallet", 1, len(channels))
        return channels[0]

    async def _usable(self, node: Node) -> bool:
        channels = await node.channels()
        return bool(channels) and all(each.usable for each in channels)

    async def _room(self, wallet: Node) -> Msat:
        """An amount the wallet's channel can surely take."""
        (channel,) = await wallet.channels()
        return max(Msat(1_000), min(sat(5_000), channel.inbound // 2))

    async def _holdings(self, node: Node) -> dict[str, int]:
        return {each.channel_id: int(each.outbound) for each in await node.channels()}

    async def _earned(self, lsp: Node, payment_hash: str) -> int:
        return sum(
            [
                int(row.entry["amount"])
                async for row in lsp.ledger()
                if row.kind == "fee_earned" and row.entry["payment_hash"] == payment_hash
            ]
        )


def _plain(amount: Msat | None) -> int | None:
    return None if amount is None else int(amount)


async def _equal(actual: Any, expected: Any) -> bool:
    return bool(await actual == expected)
