"""What wallets do: buy a channel, pay and be paid, close it, and have it all in the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .check import TOO_SMALL_SAT, brought_home
from .process import CallError, DiedError, Process
from .report import Finding, Paid
from .stage import LIFETIME, MENU, Stage
from .world import DEEPEST

# A payment is retried by its payer this long.
RETRY_S = 20
# Restarts and reconnects are seconds; more means that something waited for a timeout or an expiry.
SLOW_S = 60.0
SET_S = 100.0
# What a wallet is given when it must pay for the end of a forced close.
GIFT_SAT = 100_000
# To claim an HTLC of an own commitment transaction: 1,102 weight, at 5,000 sat per 1,000, and more.
CLAIM_SAT = 6_000
# What may be on its way at a forced close is worth that.
FORCED_MSAT = (6_500_000, 9_000_000)
# Why a channel is closed that nobody closed.
REORGANISED = "its funding was reorganised"
# Less than this is in no commitment transaction, and goes to the miner.
DUST_SAT = 354


class Lives(Stage):
    """The wallets of a run.

    Attributes:
        aside: Set for a wallet whose channel ends on the chain, which takes many blocks.
        excused: Funding transactions that a commitment transaction may spend, and why.
        resting: Wallets that wait for that.
        waits_for: What each wallet last waited for.
        agreed: Funding transactions of channels that their wallet closed by agreement.
    """

    def __init__(self, *args: Any, wallets: int = 4, **more: Any) -> None:
        super().__init__(*args, **more)
        self.wallets = wallets
        self.flying: Counter[str] = Counter()
        self.aside: dict[str, asyncio.Event] = {}
        self.excused: dict[str, str] = {}
        self.resting: list[asyncio.Task[None]] = []
        self.gifts: set[str] = set()
        self.given: set[str] = set()
        self.agreed: set[str] = set()
        self.waits_for: dict[str, str] = {}

    async def _live(self, slot: int) -> None:
        generation = 0
        while not self.ending.is_set():
            generation += 1
            name = f"wallet-{slot}-{generation}"
            aside = self.aside[name] = asyncio.Event()
            life = asyncio.create_task(self._one_wallet(name))
            left = asyncio.create_task(aside.wait())
            await asyncio.wait((life, left), return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            if life.done():
                life.result()
            else:
                self.resting += [life, asyncio.create_task(self._give(self.living[name]))]

    async def _lives(self) -> None:
        """All that wallets do until the time is over."""
        lives = [asyncio.create_task(self._live(slot)) for slot in range(self.wallets)]
        await asyncio.wait(lives, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
        self.ending.set()
        await asyncio.gather(*lives)

    async def _one_wallet(self, name: str, arm: tuple[str, str, int] | None = None) -> None:
        """A wallet's whole life; `arm` names the role, the moment and how often it comes first."""
        rng = self.random
        aside = self.aside.setdefault(name, asyncio.Event())
        seller = {"node_id": self.lsp_id, "address": self.address, "trusted": True}
        wallet = self._process(name, self._config(lsps=[seller]))
        kind = "plain"
        if arm is None:
            kind = rng.choices(("plain", "forced", "refuses", "ignores_offer"), (80, 8, 6, 6))[0]
            if kind in ("refuses", "ignores_offer"):
                wallet.trouble["wallet"] = kind
            elif rng.random() < 0.5:
                point = self.moments.choose("wallet", rng)
                if point.startswith("spendable"):
                    kind = "forced"  # A close by agreement leaves nothing to sweep.
                # Its start has commits of its own, and is nobody's loss.
                nth = rng.randint(10, 60) if point.startswith("commit") else rng.randint(1, 2)
                wallet.trouble |= {"arm": point, "nth": nth}
        await self._begin(wallet)
        if arm is not None:
            role, point, nth = arm
            node = wallet if role == "wallet" else self.living[role]
            await self._retry(node, "arm", point=point, nth=nth)
        if await self._jit(wallet):
            for _ in range(rng.randint(2, 7) if arm is None else 1):
                if aside.is_set():
                    break
                if rng.random() < 0.7:
                    await self._pay_over(self.payer, wallet, rng.randint(1_000, 2_000_000))
                else:
                    await self._pay_over(wallet, self.payer, rng.randint(1_000, 1_000_000))
            if kind == "forced" and not aside.is_set():
                await self._force(wallet)
            if not aside.is_set():
                await self._give_back(wallet)
                await self._close(wallet)
        elif kind == "refuses":
            await self._unpaid(wallet)
        if aside.is_set():
            await self._rest(wallet)
        await self._leave(wallet)

    async def _begin(self, wallet: Process) -> None:
        async def started() -> bool:
            try:
                await wallet.start()
            except CallError as error:
                # bitcoind or a database is away, and says so.
                if error.code not in ("chain", "store"):
                    raise
                return False
            return True

        await self._until(started, f"{wallet.name} to start")
        self.living[wallet.name] = wallet

    async def _give_back(self, wallet: Process) -> None:
        """Most of it, so that the payer does not run dry."""
        channels = await self._retry(wallet, "channels")
        rest = sum(c["outbound_limit_msat"] for c in channels) * 97 // 100
        if rest > 1_000_000:
            await self._pay_over(wallet, self.payer, rest)

    async def _jit(self, wallet: Process) -> bool:
        """Buy a channel with a payment, fixed or variable, that may need several parts."""
        rng = self.random
        small, large = rng.randint(3_000_000, 60_000_000), rng.randint(60_000_000, 3_900_000_000)
        amount = large if rng.random() < 0.4 else small
        variable = rng.random() < 0.25
        self.flying[wallet.name] += 1
        try:
            asked: dict[str, Any] = {"jit": "always", "timeout_ms": 20_000}
            if not variable:
                asked["amount_msat"] = amount
            else:
                # One part only, so that it must fit one channel of the payer.
                amount = min(amount, 500_000_000)
            invoice = await self._receive(wallet, asked)
            if invoice is None:
                return False
            self.report.jit_orders += 1
            fee = max(MENU["min_fee_msat"], -(-amount * MENU["proportional_ppm"] // 1_000_000))
            paid = await self._pay(self.payer, wallet, invoice, amount, fee, variable)
            self.report.jit_paid += paid
            return paid
        finally:
            self.flying[wallet.name] -= 1

    async def _receive(self, payee: Process, asked: dict[str, Any]) -> dict[str, Any] | None:
        """An invoice; None if the wallet cannot have one after several tries."""
        for _ in range(20):
            try:
                invoice: dict[str, Any] = await payee.call("receive", **asked)
                return invoice
            except DiedError:
                await asyncio.sleep(0.2)
            except CallError as error:
                # The LSP is down, or the channel is not usable again yet; or the payer's channels
                # have run dry until other wallets give back what they were paid (203).
                dry = error.code == "lsp_refused" and "(203)" in str(error)
                if not dry and error.code not in ("lsp_unreachable", "inbound_capacity"):
                    raise
                await asyncio.sleep(0.5)
        return None

    async def _pay_over(self, payer: Process, payee: Process, amount: int) -> None:
        """A payment over a channel that is there."""
        name = (payer if payee is self.payer else payee).name
        self.flying[name] += 1
        try:
            invoice = await self._receive(payee, {"amount_msat": amount, "jit": "never"})
            if invoice is not None:
                await self._pay(payer, payee, invoice, amount, 0, False)
        finally:
            self.flying[name] -= 1

    async def _pay(
        self,
        payer: Process,
        payee: Process,
        invoice: dict[str, Any],
        amount: int,
        opening_fee: int,
        variable: bool,
    ) -> bool:
        payment_hash = invoice["payment_hash"]
        order: dict[str, Any] = {"bolt11": invoice["bolt11"], "retry_s": RETRY_S}
        order["max_fee_msat"] = 100_000
        if variable:
            order["amount_msat"] = amount
        begun = expired = False
        what = f"the end of payment {payment_hash} from {payer.name} to {payee.name}"
        wallet = payer if payee is self.payer else payee
        self.waits_for[wallet.name] = what
        aside = self.aside[wallet.name]
        begun_at = time.monotonic()
        give_up = begun_at + RETRY_S

        def on_chain() -> float:
            # It ends with the blocks that are mined when everything else is over.
            return self.seconds + 600.0 if aside.is_set() else 0.0

        async def finished() -> dict[str, Any] | None:
            nonlocal begun, expired
            if not begun:
                try:
                    await payer.call("pay", **order)
                except CallError as error:
                    if error.code in ("insufficient_funds", "payment"):
                        # Its peer is away, perhaps only for a moment.
                        refused = {"status": "refused", "why": str(error)}
                        return refused if time.monotonic() > give_up else None
                    if error.code != "invoice":
                        raise
                    # Or it was begun before the process died.
                    expired = "expired" in str(error)
                begun = True
            try:
                payment: dict[str, Any] = await payer.call("payment", id=payment_hash)
            except CallError as error:
                if error.code != "not_found":
                    raise
                # The call was never durable.
                begun = False
                return {"status": "refused"} if expired else None
            if payment["status"] == "pending" and self.ending.is_set():
                # No more fees fall here, and so it has no end.
                left = (await payer.call("balances"))["lightning"]["left_on_chain_sat"]
                if payment_hash in left:
                    return {"status": "left"}
            return payment if payment["status"] != "pending" else None

        payment = await self._until(finished, what, more=on_chain)
        if not aside.is_set():
            taken = round(time.monotonic() - begun_at, 1)
            self.report.slowest_s = max(self.report.slowest_s, taken)
            # A set whose other part found no way is held for the 90 s that it may take.
            if taken > (SLOW_S if payment["status"] == "succeeded" else SET_S):
                self.report.findings.append(Finding("slow", f"{taken} s until {what}"))
        if payment["status"] == "refused":
            return False
        succeeded = payment["status"] == "succeeded"
        paid = Paid(
            payment_hash,
            payer.name,
            payee.name,
            amount,
            opening_fee,
            payment["status"],
            payment.get("fee_msat") or 0,
        )
        self.paid.append(paid)
        self.report.payments += succeeded
        self.report.world["a payment's end is not worth its claim"] += payment["status"] == "left"
        self.report.payments_failed += not succeeded
        if not succeeded and payee is self.payer and amount <= CLAIM_SAT * 1_000:
            paid.borne_msat = await self._borne(payment_hash)
        if succeeded:

            async def received() -> dict[str, Any] | None:
                try:
                    got: dict[str, Any] = await payee.call("payment", id=payment_hash)
                except CallError:
                    return None
                return got if got["status"] == "succeeded" else None

            what = f"{payee.name} to know of {payment_hash}"
            got = await self._until(received, what, more=on_chain)
            paid.received_msat = got["amount_msat"]
        return succeeded

    async def _borne(self, payment_hash: str) -> int:
        """What the payee has of a failed payment, msat.

        It was in a channel that ended on the chain: the LSP passed it on, and its claim costs more
        than it is worth, if it is no dust.
        """

        async def look() -> tuple[int] | None:
            try:
                got = await self.payer.call("payment", id=payment_hash)
            except CallError as error:
                if error.code != "not_found":
                    raise
                return (0,)
            return (got["amount_msat"] if got["status"] == "succeeded" else 0,)

        (borne,) = await self._until(look, f"the payee's word on {payment_hash}")
        self.report.world["the LSP bears what is not worth its claim"] += borne > 0
        return borne

    async def _close(self, wallet: Process) -> None:
        """The wallet closes its channel with the LSP's consent, and has its money on chain."""
        asked: set[str] = set()

        async def gone() -> bool:
            channels = await wallet.call("channels")
            asked.update(await self._ask_to_close(wallet, channels))
            return not channels

        await self._until(gone, f"{wallet.name}'s channels to close")
        self.report.closes += len(asked)

    async def _ask_to_close(self, wallet: Process, channels: Sequence[dict[str, Any]]) -> set[str]:
        asked: set[str] = set()
        for channel in channels:
            if channel["usable"] and channel["pending_htlcs"] == 0:
                try:
                    await wallet.call("close_channel", channel_id=channel["channel_id"])
                    asked.add(channel["channel_id"])
                    self.agreed.add(self._funding(channel))
                except CallError as error:
                    if error.code not in ("not_found", "peer"):
                        raise
        return asked

    async def _force(self, wallet: Process) -> None:
        """One of the two closes by force, with a payment on its way."""
        channels = await self._retry(wallet, "channels")
        if len(channels) != 1:
            return
        channel = channels[0]
        funding = self._funding(channel)
        ends = [self.payer, wallet]
        self.random.shuffle(ends)
        amount = self.random.randint(*FORCED_MSAT)
        paying = asyncio.create_task(self._pay_over(ends[0], ends[1], amount))
        await asyncio.sleep(self.random.random() * 0.3)
        closer = self.random.choice((self.lsp, wallet))
        order = {"channel_id": channel["channel_id"], "force": True}

        async def age() -> int:
            """In blocks, as far as who closes has seen them."""
            known = await closer.call("channels")
            ages = [c["confirmations"] for c in known if c["channel_id"] == channel["channel_id"]]
            return ages[0] or 0 if ages else 0

        async def ordered() -> bool:
            nonlocal closer
            before = await age()
            try:
                # Before it is done: the answer may be lost.
                self.excused[funding] = f"asked of the {self._role(closer)}"
                await closer.call("close_channel", **order)
            except CallError as error:
                if error.code == "config" and closer is self.lsp:
                    # What it sold for some blocks it may not close. Blocks come and go meanwhile.
                    self.report.world["close refused, a lifetime was sold"] += 1
                    least = min(before, await age())
                    if least >= LIFETIME:
                        text = f"{channel['channel_id']} after {least} blocks"
                        self.report.findings.append(Finding("close refused", text))
                    closer = wallet
                    return False
                if error.code != "not_found":
                    raise
            return True

        self.aside[wallet.name].set()
        await self._until(ordered, f"{wallet.name}'s forced close")
        await paying

    async def _unpaid(self, wallet: Process) -> None:
        """It took no payment: the LSP closes the channel once the time for one is over."""
        orders = await self._retry(wallet, "client_orders")
        channels = await self._retry(wallet, "channels")
        valid = max((order["expires_at_ms"] / 1_000 for order in orders), default=0) - time.time()
        if not channels or valid > 30:
            return

        async def closed() -> bool:
            return not await wallet.call("channels")

        await self._until(closed, f"{wallet.name}'s unpaid channel to be closed")

    async def _give(self, wallet: Process) -> None:
        """Coins that pay for the claim of an HTLC of its own commitment transaction."""
        if wallet.name not in self.given:
            self.given.add(wallet.name)
            address = (await self._retry(wallet, "new_address"))["address"]
            self.gifts.add(await self.chain.send(address, GIFT_SAT))

    async def _rest(self, wallet: Process) -> None:
        """What was in a channel that ended on the chain comes to the wallet, to the satoshi."""
        await self._give(wallet)
        self.waits_for[wallet.name] = "its money"

        small = 0
        since: int | None = None

        async def at_home() -> bool:
            nonlocal small, since
            channels = await wallet.call("channels")
            seen = await wallet.call("balances")
            chain = seen["onchain"]
            small = seen["pending_sweep_sat"]
            pending = seen["lightning"]["claimable_msat"]
            pending += chain["unconfirmed_sat"] + chain["untrusted_sat"]
            self.waits_for[wallet.name] = f"{len(channels)} channels, {seen}"
            if self.ending.is_set():
                # Neither side had seen the block that left the chain: nobody closes these.
                lost = [c for c in channels if self._why(c) == REORGANISED]
                await self._ask_to_close(wallet, lost)
            home = not channels and not pending and bool(chain["confirmed_sat"])
            # And stays there: nobody sends a sweep again that is reorganised after it has left.
            if not home or small > TOO_SMALL_SAT:
                since = None
                return False
            height = await self.chain.height()
            if since is None:
                since = height
            return height >= since + DEEPEST + 2

        what = f"{wallet.name}'s money to come to its wallet"
        await self._until(at_home, what, more=lambda: self.seconds + 600.0)
        coins = await self._retry(wallet, "coins")
        due = sum((p.received_msat or 0) for p in self.paid if p.payee == wallet.name)
        due -= sum(
            p.amount_msat + p.routing_fee_msat
            for p in self.paid
            if p.payer == wallet.name and p.status == "succeeded"
        )
        got = await brought_home(self.chain, coins, self.gifts)
        # One payment may have been on its way: rounded, or dust where nobody asked for the close,
        # or one that the channel took along and that costs more to claim than it is worth.
        missing = due // 1_000 - got
        small += DUST_SAT + 1
        left = [
            (p.received_msat or 0) // 1_000
            for p in self.paid
            if p.payee == wallet.name and (p.received_msat or 0) <= CLAIM_SAT * 1_000
        ]
        left += [
            p.amount_msat // 1_000
            for p in self.paid
            if p.payer == wallet.name and p.status == "left"
        ]
        if missing > small and any(0 <= missing - sat <= small for sat in left):
            self.report.world["an HTLC is not worth its claim"] += 1
        elif not 0 <= missing <= small:
            text = f"{wallet.name}: {got} sat of {due} msat came home"
            self.report.findings.append(Finding("forced close", text))

    async def _leave(self, wallet: Process) -> None:
        """The wallet's part is over: it stops in order, and is not started again."""
        del self.living[wallet.name]
        self.waits_for.pop(wallet.name, None)
        with contextlib.suppress(DiedError):
            await wallet.stop()

    def _why(self, channel: dict[str, Any]) -> str | None:
        return self.excused.get(self._funding(channel))

    @staticmethod
    def _funding(channel: dict[str, Any]) -> str:
        return str(channel["funding"] or "").partition(":")[0]

    @staticmethod
    def _role(node: Process) -> str:
        return node.name.partition("-")[0]
