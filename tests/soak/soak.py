"""Payer, LSP and wallets under kill -9, and every millisatoshi found again: ``make soak``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldkjit.sandbox import Regtest, free_ports

from . import powerloss
from .check import Finding, Paid, check_chain, check_ledger, check_payments
from .process import CallError, DiedError, Process

# Larger payments than one of them carries need parts.
PAYER_CHANNELS = 6
PAYER_CHANNEL_SAT = 4_000_000
MENU = {
    "min_fee_msat": 2_000_000,
    "proportional_ppm": 10_000,
    "min_payment_msat": 1_000,
    "max_payment_msat": 4_000_000_000,
    "min_lifetime_blocks": 144,
    "max_client_to_self_delay": 2016,
    "valid_for_s": 3_600,
}
# A payment is retried by its payer this long; its end is waited for much longer.
RETRY_S = 20
PATIENCE_S = 180.0
# Restarts and reconnects are seconds; more means that something waited for a timeout or an expiry.
SLOW_S = 60.0
# The moments of each role: `make sweep` takes each in turn, `make soak` those hit least.
EVERYWHERE = (
    "commit:before",
    "commit:inside",
    "commit:after",
    "commit:told",
)
POINTS = {
    "lsp": (
        *EVERYWHERE,
        "get_info:before",
        "buy:before",
        "intercepted:before",
        "intercepted:after",
        "open:before",
        "open:after",
        "funding_needed:before",
        "funding_needed:after",
        "channel_pending:before",
        "channel_pending:after",
        "channel_ready:before",
        "channel_ready:after",
        "forward:before",
        "forward:after",
        "forwarded:before",
        "forwarded:after",
        "enable:before",
        "enable:after",
        "release:before",
        "release:after",
        "broadcast:before",
        "broadcast:after",
        "channel_closed:before",
        "channel_closed:after",
        "spendable:before",
        "spendable:after",
    ),
    "wallet": (
        *EVERYWHERE,
        "open_request:before",
        "open_request:after",
        "channel_pending:before",
        "channel_ready:before",
        "claimable:before",
        "claimable:after",
        "claim:before",
        "claim:after",
        "claimed:before",
        "claimed:after",
        "channel_closed:before",
        "channel_closed:after",
        "spendable:before",
        "spendable:after",
    ),
    "payer": (*EVERYWHERE, "sent:before", "sent:after"),
}


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    seconds: float = 0.0
    jit_orders: int = 0
    jit_paid: int = 0
    payments: int = 0
    payments_failed: int = 0
    closes: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    kills_in_flight: int = 0
    slowest_s: float = 0.0
    power_cuts: int = 0
    writes_lost: int = 0
    points: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class Soak:
    """One run, all of it decided by one seed but for the times at which processes really die."""

    def __init__(
        self,
        binary: Path,
        seconds: float,
        seed: int,
        *,
        wallets: int = 4,
        kills: bool = True,
        power: bool = False,
        lies: bool = False,
        patience: float = PATIENCE_S,
    ) -> None:
        self.binary = binary
        self.seconds = seconds
        self.random = random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)
        self.wallets = wallets
        self.kill = kills
        self.lies = lies
        self.patience = patience
        self.report = Report(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="ldkjit-soak-"))
        self.library = powerloss.build(self.folder) if power else None
        self.chain = Regtest()
        self.paid: list[Paid] = []
        self.flying = 0
        self.living: dict[str, Process] = {}
        self.ending = asyncio.Event()
        self.trusts: tuple[str, ...] = ("lsp_trusts_client", "client_trusts_lsp")
        self.lsp: Process
        self.payer: Process

    # ---- the parts ----

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
            "limits": {"max_exposure_msat": 10**13, "max_orders": 100_000},
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
        await self.chain.mine(6)
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
        self.payer_start = await self._payer_balance()
        if self.lies:
            for node in (self.lsp, self.payer):
                powerloss.lie(self._unsynced(node.name))

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
        height = int(await self.chain.rpc.call("getblockcount"))
        await self._retry(node, "wait_height", height=height, timeout_ms=30_000)

    async def _until(
        self, look: Callable[[], Awaitable[Any]], what: str, patience: float | None = None
    ) -> Any:
        """Look until the answer is true; a process that dies meanwhile is only a delay."""
        patience = self.patience if patience is None else patience
        end = time.monotonic() + patience
        pause = 0.02
        while True:
            with contextlib.suppress(DiedError):
                seen = await look()
                if seen:
                    return seen
            if time.monotonic() > end:
                raise TimeoutError(f"waited {patience:.0f} s in vain for {what}")
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

    # ---- what wallets do ----

    async def _live(self, slot: int) -> None:
        generation = 0
        while not self.ending.is_set():
            generation += 1
            await self._one_wallet(f"wallet-{slot}-{generation}")

    async def _lives(self) -> None:
        """All that wallets do until the time is over."""
        lives = [asyncio.create_task(self._live(slot)) for slot in range(self.wallets)]
        await asyncio.wait(lives, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
        self.ending.set()
        await asyncio.gather(*lives)

    async def _one_wallet(self, name: str, arm: tuple[str, str, int] | None = None) -> None:
        """A wallet's whole life; `arm` names the role, the moment and how often it comes first."""
        rng = self.random
        seller = {
            "node_id": self.lsp_id,
            "address": self.address,
            "trusted": True,
        }
        wallet = self._process(name, self._config(lsps=[seller]))
        await wallet.start()
        self.living[name] = wallet
        if arm is not None:
            role, point, nth = arm
            node = wallet if role == "wallet" else self.living[role]
            await self._retry(node, "arm", point=point, nth=nth)
        if await self._jit(wallet):
            for _ in range(rng.randint(2, 7) if arm is None else 1):
                if rng.random() < 0.7:
                    await self._pay_over(self.payer, wallet, rng.randint(1_000, 2_000_000))
                else:
                    await self._pay_over(wallet, self.payer, rng.randint(1_000, 1_000_000))
            # Most of it goes back, so that the payer does not run dry.
            channels = await self._retry(wallet, "channels")
            rest = sum(c["outbound_limit_msat"] for c in channels) * 97 // 100
            if rest > 1_000_000:
                await self._pay_over(wallet, self.payer, rest)
            await self._close(wallet)
        await self._leave(wallet)

    async def _jit(self, wallet: Process) -> bool:
        """Buy a channel with a payment, fixed or variable, that may need several parts."""
        rng = self.random
        small, large = rng.randint(3_000_000, 60_000_000), rng.randint(60_000_000, 3_900_000_000)
        amount = large if rng.random() < 0.4 else small
        variable = rng.random() < 0.25
        self.flying += 1
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
            self.flying -= 1

    async def _receive(self, payee: Process, asked: dict[str, Any]) -> dict[str, Any] | None:
        """An invoice; None if the wallet cannot have one after several tries."""
        for _ in range(20):
            try:
                invoice: dict[str, Any] = await payee.call("receive", **asked)
                return invoice
            except DiedError:
                await asyncio.sleep(0.2)
            except CallError as error:
                # The LSP is down, or the channel is not usable again yet.
                if error.code not in ("lsp_unreachable", "inbound_capacity"):
                    raise
                await asyncio.sleep(0.5)
        return None

    async def _pay_over(self, payer: Process, payee: Process, amount: int) -> None:
        """A payment over a channel that is there."""
        self.flying += 1
        try:
            invoice = await self._receive(payee, {"amount_msat": amount, "jit": "never"})
            if invoice is not None:
                await self._pay(payer, payee, invoice, amount, 0, False)
        finally:
            self.flying -= 1

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
        begun = False
        give_up = time.monotonic() + RETRY_S

        async def finished() -> dict[str, Any] | None:
            nonlocal begun
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
                    # It was begun before the process died, or it expired.
                begun = True
            try:
                payment: dict[str, Any] = await payer.call("payment", id=payment_hash)
            except CallError as error:
                if error.code != "not_found":
                    raise
                # The call was never durable.
                begun = False
                return None
            return payment if payment["status"] != "pending" else None

        what = f"the end of payment {payment_hash} from {payer.name} to {payee.name}"
        begun_at = time.monotonic()
        payment = await self._until(finished, what)
        taken = round(time.monotonic() - begun_at, 1)
        self.report.slowest_s = max(self.report.slowest_s, taken)
        if taken > SLOW_S:
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
        self.report.payments_failed += not succeeded
        if succeeded:

            async def received() -> dict[str, Any] | None:
                try:
                    got: dict[str, Any] = await payee.call("payment", id=payment_hash)
                except CallError:
                    return None
                return got if got["status"] == "succeeded" else None

            got = await self._until(received, f"{payee.name} to know of {payment_hash}")
            paid.received_msat = got["amount_msat"]
        return succeeded

    async def _close(self, wallet: Process) -> None:
        """The wallet closes its channel with the LSP's consent, and has its money on chain."""
        asked: set[str] = set()

        async def gone() -> bool:
            channels = await wallet.call("channels")
            for channel in channels:
                if channel["usable"] and channel["pending_htlcs"] == 0:
                    try:
                        await wallet.call("close_channel", channel_id=channel["channel_id"])
                        asked.add(channel["channel_id"])
                    except CallError as error:
                        if error.code not in ("not_found", "peer"):
                            raise
            return not channels

        await self._until(gone, f"{wallet.name}'s channels to close")
        self.report.closes += len(asked)

    async def _leave(self, wallet: Process) -> None:
        """The wallet's part is over: it stops in order, and is not started again."""
        del self.living[wallet.name]
        with contextlib.suppress(DiedError):
            await wallet.stop()

    # ---- what happens to them ----

    async def _mine(self) -> None:
        while True:
            await asyncio.sleep(1.5)
            await self.chain.mine(1)

    async def _reap(self) -> None:
        """Whoever died is started again where it was."""
        while True:
            for node in list(self.living.values()):
                if node.dead.is_set():
                    if node.died_at:
                        self.report.points[f"{self._role(node)} {node.died_at}"] += 1
                    await asyncio.sleep(self.random.random() * 0.7)
                    if self.library is not None and self.random.random() < 0.7:
                        data = self.folder / node.name
                        lost = powerloss.cut(data, self._unsynced(node.name), self.random)
                        self.report.power_cuts += 1
                        self.report.writes_lost += lost
                    if node is self.lsp:
                        # Terms change between restarts; what was sold keeps its own.
                        node.config["lsp"]["trust"] = self.random.choice(self.trusts)
                    # Its wallet may have left meanwhile.
                    if node.name in self.living:
                        # Killed again while it starts: once more.
                        with contextlib.suppress(DiedError):
                            await node.start()
            await asyncio.sleep(0.05)

    @staticmethod
    def _role(node: Process) -> str:
        return node.name.partition("-")[0]

    async def _kill(self) -> None:
        rng = self.random
        while not self.ending.is_set():
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            role = rng.choices(("lsp", "wallet", "payer"), (5, 3, 2))[0]
            nodes = [
                node
                for node in self.living.values()
                if self._role(node) == role and not node.dead.is_set()
            ]
            if not nodes:
                continue
            node = rng.choice(nodes)
            if rng.random() < 0.6:
                await self._kill_at_point(node, role)
            else:
                with contextlib.suppress(TimeoutError):
                    await self._until(self._in_flight, "something in flight", 2.0)
                await asyncio.sleep(rng.random() * 0.05)
                self._count_kill(role)
                node.kill()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(node.dead.wait(), 5.0)

    async def _kill_at_point(self, node: Process, role: str) -> None:
        """Arm one of the moments hit least so far, and kill plainly if it does not come."""
        points = POINTS[role]
        least = min(self.report.points[f"{role} {p}"] for p in points)
        rare = [p for p in points if self.report.points[f"{role} {p}"] <= least + 1]
        with contextlib.suppress(DiedError, CallError):
            await node.call("arm", point=self.random.choice(rare), nth=self.random.randint(1, 2))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(node.dead.wait(), 4.0)
            self._count_kill(role)
            return
        self._count_kill(role)
        node.kill()

    async def _in_flight(self) -> bool:
        return self.flying > 0

    def _count_kill(self, role: str) -> None:
        self.report.kills[role] += 1
        self.report.kills_in_flight += self.flying > 0

    # ---- the run ----

    async def run(self) -> Report:
        """Set up, live and die for the time given, settle, and look for every satoshi."""
        begun = time.monotonic()
        background: list[asyncio.Task[None]] = []
        try:
            await self._set_up()
            background = [asyncio.create_task(self._reap()), asyncio.create_task(self._mine())]
            if self.kill:
                background.append(asyncio.create_task(self._kill()))
            background.append(asyncio.create_task(self._progress(begun)))
            lives = asyncio.create_task(self._lives())
            waiting: set[asyncio.Task[None]] = {*background, lives}
            while not lives.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            for task in background:
                task.cancel()
            await self._settle()
        except (TimeoutError, CallError) as error:
            self.report.findings.append(Finding("stuck", str(error)))
        except BaseException as error:
            self.report.findings.append(Finding("the soak itself", repr(error)))
            raise
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            self.report.seconds = round(time.monotonic() - begun, 1)
            for node in [*self.living.values()]:
                node.kill()
            self._look_for_panics()
            await self.chain.stop(keep=False)
            if self.report.findings:
                print(f"logs and stores are in {self.folder}", file=sys.stderr)
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
        return self.report

    def _look_for_panics(self) -> None:
        for log in self.folder.glob("*.log"):
            for line in log.read_text(errors="replace").splitlines():
                # An armed moment aborts without one.
                if "panicked at" in line:
                    self.report.findings.append(Finding("panic", f"{log.name}: {line}"))

    async def _progress(self, begun: float) -> None:
        while True:
            await asyncio.sleep(10)
            r = self.report
            print(
                f"{time.monotonic() - begun:6.0f} s  {r.jit_orders} orders, {r.payments} payments,"
                f" {r.payments_failed} failed, {r.closes} closes, {sum(r.kills.values())} kills",
                file=sys.stderr,
                flush=True,
            )

    async def _settle(self) -> None:
        """Everybody up, nothing in flight, all that closed confirmed; then the books are read."""
        await self._until(self._calm, "HTLCs to settle")
        await self.chain.mine(6)
        await self._in_step(self.lsp)
        await self._until(self._unlocked, "the LSP's coins to be given back", 60.0)
        ledger = await self._pages(self.lsp, "ledger")
        findings = self.report.findings
        findings += check_payments(self.paid)
        findings += check_ledger(ledger, self.paid)
        findings += await check_chain(self.chain, ledger)
        sent = sum(
            p.amount_msat + p.routing_fee_msat
            for p in self.paid
            if p.payer == "payer" and p.status == "succeeded"
        )
        got = sum(
            p.received_msat or 0
            for p in self.paid
            if p.payee == "payer" and p.status == "succeeded"
        )
        have = await self._payer_balance()
        if have != self.payer_start - sent + got:
            text = f"has {have}, had {self.payer_start}, sent {sent}, got {got} msat"
            findings.append(Finding("payer's balance", text))

    async def _calm(self) -> bool:
        for node in (self.payer, self.lsp):
            if any(c["pending_htlcs"] for c in await node.call("channels")):
                return False
        return await self._payer_ready()

    async def _unlocked(self) -> bool:
        # A withheld funding whose payment failed keeps its coins while the order may be paid.
        orders = await self.lsp.call("orders")
        live = {order["open"]["id"] for order in orders if order["open"]}
        return all(open_id in live for open_id in await self.lsp.call("locked"))

    async def _pages(self, node: Process, method: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await self._retry(node, method, after=after, limit=1_000)
            items += page["items"]
            if page["next"] is None or not page["items"]:
                return items
            after = page["next"]


def conclude(soak: Soak) -> int:
    """Run it and print its report as JSON; 1 if it found anything."""
    report = asyncio.run(soak.run())
    print(json.dumps(vars(report), default=vars, indent=1, sort_keys=True))
    return 1 if report.findings else 0


def binary_option(parser: argparse.ArgumentParser) -> None:
    """The node to kill, from the command line or from ``SOAK_NODE``."""
    named = os.environ.get("SOAK_NODE")
    parser.add_argument(
        "--binary", type=Path, default=named, required=named is None, help="built by make soak"
    )


def main() -> int:
    """Run one soak and print its report as JSON; 1 if it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--wallets", type=int, default=4)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--power", action="store_true", help="kills lose what was not synced")
    binary_option(parser)
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        parser.error("--binary: the soak-node that make soak builds")
    soak = Soak(
        arguments.binary,
        arguments.seconds,
        arguments.seed,
        wallets=arguments.wallets,
        kills=not arguments.no_kills,
        power=arguments.power,
    )
    return conclude(soak)


if __name__ == "__main__":
    sys.exit(main())
