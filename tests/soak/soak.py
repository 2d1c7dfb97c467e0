"""Payer, LSP and wallets under kill -9, and every millisatoshi found again: ``make soak``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import powerloss
from .check import TOO_SMALL_SAT, check_chain, check_ledger, check_payments, unclaimed
from .lives import REORGANISED, Lives
from .moments import WANTED, missing
from .process import CallError, DiedError, Process
from .report import Finding, Report, total
from .world import BLOCK_S, befall

# Seconds between two kills of one role.
PAUSES = {"lsp": (0.5, 2.5), "wallet": (1.0, 5.0), "payer": (2.0, 8.0)}
# Every HTLC has timed out and every delay is over after so many.
REST_BLOCKS = 900
# A node that cannot save has ended after this.
STOP_S = 20.0


class Soak(Lives):
    """One run: its wallets live, whatever can go wrong does, and in the end the books are read."""

    def __init__(
        self,
        *args: Any,
        kills: bool = True,
        world: bool = True,
        lies: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.kill = kills
        self.world = world
        self.lies = lies
        # Whose last start was refused.
        self.refused: set[str] = set()
        self.trusts: tuple[str, ...] = ("lsp_trusts_client", "client_trusts_lsp")

    # ---- what happens to them ----

    async def _mine(self) -> None:
        while True:
            await asyncio.sleep(BLOCK_S)
            await self.chain.mine(1)

    async def _befall(self) -> None:
        if self.world:
            await befall(self.chain, self.random, self.report.world, self._losing, self.ending)

    async def _losing(self, gone: set[str]) -> None:
        """LDK closes a channel whose funding leaves the chain: its wallet is set aside."""
        wallets = {w.status["node_id"]: w.name for w in self.living.values() if w.status}
        for channel in await self._retry(self.lsp, "channels"):
            name = wallets.get(channel["peer"], "")
            if self._funding(channel) in gone and name in self.aside:
                self.aside[name].set()
        for txid in gone:
            self.excused.setdefault(txid, REORGANISED)

    async def _reap(self) -> None:
        """Whoever ended is started again where it was."""
        while True:
            for node in list(self.living.values()):
                # Meanwhile one may have left.
                if node.dead.is_set() and node.name in self.living:
                    self._note_end(node)
                    await asyncio.sleep(self.random.random() * 0.7)
                    if self.library is not None and self.random.random() < 0.7:
                        data = self.folder / node.name
                        lost = powerloss.cut(data, self._unsynced(node.name), self.random)
                        self.report.power_cuts += 1
                        self.report.writes_lost += lost
                    self._prepare(node)
                    # Its wallet may have left meanwhile.
                    if node.name in self.living:
                        await self._start_again(node)
            await asyncio.sleep(0.05)

    def _note_end(self, node: Process) -> None:
        role = self._role(node)
        if node.name in self.refused:
            self.refused.remove(node.name)
            return
        if node.stopped == "store":
            self.report.store["a commit failed"] += 1
            return
        if node.died_at is None and not node.killed:
            text = f"{node.name} ended by itself: {node.stopped}"
            self.report.findings.append(Finding("ended", text))
            return
        if node.died_at is not None:
            self.moments.hit(role, node.died_at)
        self.report.kills[role] += 1
        flying = (name for name, count in self.flying.items() if count > 0)
        self.report.kills_in_flight += any(not self.aside[name].is_set() for name in flying)

    def _prepare(self, node: Process) -> None:
        """What its next run is like."""
        rng = self.random
        if node is self.lsp:
            # Terms change between restarts; what was sold keeps its own.
            service = node.config["lsp"]
            service["trust"] = rng.choice(self.trusts)
            if self.kill:
                service["menu"][0]["valid_for_s"] = rng.choice((3_600, 3_600, 15))
        if self.kill and rng.random() < 0.12:
            fault = rng.choice(("fails", "loses_answer", "slow"))
            slow = rng.randint(50, 2_000)
            node.trouble["store"] = {"fault": fault, "nth": rng.randint(1, 80), "ms": slow}
            self.report.store[f"set up: {fault}"] += 1

    async def _start_again(self, node: Process) -> None:
        try:
            await node.start()
        except DiedError:
            pass  # Killed again while it started: once more.
        except CallError as error:
            # bitcoind is away, or its store fails at once; both are said.
            if error.code == "store":
                self.report.store["a commit failed at the start"] += 1
            elif error.code != "chain":
                raise
            self.refused.add(node.name)

    async def _kill(self, role: str) -> None:
        rng = self.random
        while not self.ending.is_set():
            await asyncio.sleep(rng.uniform(*PAUSES[role]))
            nodes = [
                node
                for node in self.living.values()
                if self._role(node) == role and not node.dead.is_set()
            ]
            if not nodes:
                continue
            node = rng.choice(nodes)
            # A wallet's moments are set at its birth: it passes each only once or twice.
            if role != "wallet" and rng.random() < 0.9:
                await self._kill_at_point(node, role)
            else:
                with contextlib.suppress(TimeoutError):
                    await self._until(self._in_flight, "something in flight", 2.0)
                await asyncio.sleep(rng.random() * 0.05)
                node.kill()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(node.dead.wait(), STOP_S)

    async def _kill_at_point(self, node: Process, role: str) -> None:
        """Arm one of the moments hit least so far, and kill plainly if it does not come."""
        point = self.moments.choose(role, self.random)
        with contextlib.suppress(DiedError, CallError):
            await node.call("arm", point=point, nth=self.random.randint(1, 2))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(node.dead.wait(), self.moments.patience(role, point))
            return
        node.kill()

    async def _in_flight(self) -> bool:
        return any(count > 0 for count in self.flying.values())

    # ---- the run ----

    async def run(self) -> Report:
        """Set up, live and die for the time given, settle, and look for every satoshi."""
        begun = time.monotonic()
        background: list[asyncio.Task[None]] = []
        try:
            await self._set_up()
            if self.lies:
                for node in (self.lsp, self.payer):
                    powerloss.lie(self._unsynced(node.name))
            reaping = asyncio.create_task(self._reap())
            background = [reaping, asyncio.create_task(self._mine())]
            if self.kill:
                background += [asyncio.create_task(self._kill(role)) for role in PAUSES]
            background.append(asyncio.create_task(self._progress(begun)))
            world = asyncio.create_task(self._befall())
            background.append(world)
            await self._first_of(background, self._lives())
            await world
            for task in background:
                if task is not reaping:
                    task.cancel()
            await self._first_of([reaping], self._come_to_rest())
            reaping.cancel()
            await self._settle()
        except (TimeoutError, CallError) as error:
            traceback.print_exc()
            self.report.findings.append(Finding("stuck", str(error)))
        except BaseException as error:
            self.report.findings.append(Finding("the soak itself", repr(error)))
            raise
        finally:
            tasks = [*background, *self.resting]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.report.seconds = round(time.monotonic() - begun, 1)
            self.report.points = self.moments.hits
            for node in [*self.living.values()]:
                node.kill()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(node.dead.wait(), STOP_S)
            self._look_for_panics()
            await self.chain.stop(keep=False)
            if self.report.findings:
                print(f"logs and stores are in {self.folder}", file=sys.stderr)
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
        return self.report

    @staticmethod
    async def _first_of(background: Sequence[asyncio.Task[None]], main: Any) -> None:
        """Until the main thing is over; what fails in the background ends it."""
        task = asyncio.create_task(main)
        waiting: set[asyncio.Task[None]] = {*background, task}
        try:
            while not task.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    if not each.cancelled():
                        each.result()
        finally:
            task.cancel()

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
                f" {r.payments_failed} failed, {r.closes} closes, {sum(r.kills.values())} kills,"
                f" {len(self.resting)} on chain",
                file=sys.stderr,
                flush=True,
            )

    async def _come_to_rest(self) -> None:
        """What ends on the chain does, now that blocks cost nothing."""
        blocks = 0
        while living := [task for task in self.resting if not task.done()]:
            await self._blocks(3)
            await asyncio.wait(living, timeout=0.2)
            blocks += 3
            if blocks > REST_BLOCKS:
                raise TimeoutError(f"after {blocks} blocks wait: {self.waits_for}")
        for task in self.resting:
            task.result()

        while True:
            await self._blocks(24)
            blocks += 24
            balances = await self._retry(self.lsp, "balances")
            left = await unclaimed(self.chain, self.agreed)
            # Small ones are swept together as soon as they pay for it.
            small = all(value <= TOO_SMALL_SAT for value in left.values())
            if small and balances["pending_sweep_sat"] <= sum(left.values(), TOO_SMALL_SAT):
                return
            if blocks > 2 * REST_BLOCKS:
                raise TimeoutError(f"never taken: {left}, of the LSP {balances}")

    async def _blocks(self, count: int) -> None:
        """More blocks than a running payment would bear."""
        height = await self.chain.mine(count)
        for node in list(self.living.values()):

            async def there(node: Process = node) -> bool:
                if node.name in self.living:
                    await node.call("wait_height", height=height, timeout_ms=30_000)
                return True

            await self._until(there, f"{node.name} to follow")

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
        await check_chain(self.chain, ledger, self.excused, self.report)
        sent = sum(
            p.amount_msat + p.routing_fee_msat
            for p in self.paid
            if p.payer == "payer" and p.status == "succeeded"
        )
        got = sum(
            p.received_msat or 0
            for p in self.paid
            if p.payee == "payer" and p.status == "succeeded"
        ) + sum(p.borne_msat for p in self.paid)
        have = await self._payer_balance()
        if have != self.payer_start - sent + got:
            text = f"has {have}, had {self.payer_start}, sent {sent}, got {got} msat"
            findings.append(Finding("payer's balance", text))
        await self._books()

    async def _books(self) -> None:
        """Every ledger adds up to what its node holds."""
        for node in list(self.living.values()):
            verdict = await self._retry(node, "ledger_check")
            if not verdict["ok"]:
                why = str(verdict["bad"] or f"not on the chain: {verdict['absent']}")
                self.report.findings.append(Finding(f"{node.name}'s ledger", why))

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


def conclude(soak: Soak, into: Path | None = None) -> int:
    """Run it and print its report as JSON, or write it; 1 if it found anything."""
    report = asyncio.run(soak.run())
    if into is None:
        print(report.json())
    else:
        into.write_text(report.json() + "\n")
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
    parser.add_argument("--no-world", action="store_true", help="bitcoind and chain stay well")
    parser.add_argument("--power", action="store_true", help="kills lose what was not synced")
    parser.add_argument(
        "--reports",
        type=Path,
        help="where the report goes; those there say what is rare",
    )
    binary_option(parser)
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        parser.error("--binary: the soak-node that make soak builds")
    into, earlier = None, Report()
    if arguments.reports is not None:
        arguments.reports.mkdir(exist_ok=True)
        into = arguments.reports / f"seed-{arguments.seed}.json"
        others = arguments.reports.glob("*.json")
        earlier = total(path for path in others if path != into)
    soak = Soak(
        arguments.binary,
        arguments.seconds,
        arguments.seed,
        wallets=arguments.wallets,
        kills=not arguments.no_kills,
        world=not arguments.no_world,
        power=arguments.power,
        earlier=earlier.points,
    )
    code = conclude(soak, into)
    earlier.add(soak.report)
    for name, count in missing(earlier.points).items():
        print(f"hit {count} of {WANTED} times: {name}", file=sys.stderr)
    for finding in soak.report.findings:
        print(f"{finding.what}: {finding.detail}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
