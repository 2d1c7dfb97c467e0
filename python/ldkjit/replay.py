"""What hooks were asked and answered, kept in a file, and what another policy would make of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import os
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

from ._hooks import is_coroutine
from .amounts import Msat
from .config import FeeTier
from .errors import ConfigError
from .policy import (
    Accept,
    ChannelRequest,
    ChannelTerms,
    MenuRequest,
    OrderRequest,
    Question,
    Refuse,
    read_question,
    write_answer,
)

_PRIVATE = 0o600
# Of a plot, pixels: its panels are one below the other, each with numbers at its left.
_WIDTH, _PANEL, _EDGE, _LEFT = 760, 250, 48, 130

Verdict = Literal["sold", "opened", "refused", "no offer", "failed", "not asked"]
"""``"failed"``: no answer that can be used, which refuses too; ``"not asked"``: about a channel, as
the new policy does not make its sale."""

_NO: tuple[Verdict, ...] = ("refused", "no offer", "failed")


class Recorder:
    """Appends questions and answers to a file, as lines of JSON; a full one becomes ``….1``.

    Args:
        path: The file; only its owner can read it, as it names clients and tokens.
        max_bytes: How large it gets.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        # Hooks run on the loop and on a thread: two that find it full must not both move it.
        self._lock = threading.Lock()

    def add(self, question: str, answer: str | None, ms: int) -> None:
        """Keep a question, its answer (None: none in time) and how long it took, ms."""
        told = "null" if answer is None else answer
        line = f'{{"question": {question}, "answer": {told}, "ms": {ms}}}\n'.encode()
        with self._lock:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE)
            try:
                os.write(file, line)
                full = os.fstat(file).st_size >= self._max_bytes
            finally:
                os.close(file)
            if full:
                self._path.replace(self._path.with_name(self._path.name + ".1"))


def stand_ins(tokens: Collection[str]) -> dict[str, Callable[[Any], Any]]:
    """Hooks that leave everything to the configuration, so that its LSP's questions are recorded.

    Functions, as their thread answers while the program's event loop is blocked: what is recorded
    should cost no sale.

    Args:
        tokens: Those that the configuration knows.
    """

    def menu(ask: MenuRequest) -> list[FeeTier] | Refuse:
        token = ask.client.token
        if token is not None and token not in tokens:
            return Refuse(reason="unknown_token")
        return list(ask.menu)

    def sell(order: OrderRequest) -> Accept:
        return Accept()

    def channel(opening: ChannelRequest) -> ChannelTerms:
        return ChannelTerms()

    return {"menu": menu, "sell": sell, "channel": channel}


@dataclass(frozen=True)
class Decision:
    """One sale or open, as it was decided and as the new policy decides it.

    Attributes:
        at: When it was asked.
        hook: ``"sell"`` or ``"channel"``.
        client: The client's node id.
        size: The payment; None for a variable amount.
        before: What was decided.
        after: What the new policy decides.
        earned_before: The opening fee that was agreed, of a variable amount the least; 0 if it was
            not sold, if its channel was refused at last, and of a channel itself.
        earned_after: The same by the new policy.
        why: Why the new policy sells or opens nothing; empty if it does.
    """

    at: datetime
    hook: str
    client: str
    size: Msat | None
    before: Verdict
    after: Verdict
    earned_before: Msat
    earned_after: Msat
    why: str = ""


@dataclass(frozen=True)
class Replay:
    """What a policy would have made of a history.

    Attributes:
        decisions: Every sale and open, in order.
        menus: Menus asked for.
        menus_before: Of them, with something on them, as they were answered.
        menus_after: The same by the new policy.
    """

    decisions: tuple[Decision, ...]
    menus: int
    menus_before: int
    menus_after: int

    def count(self, when: Literal["before", "after"], verdict: Verdict) -> int:
        """How many decisions came to this."""
        return sum(getattr(each, when) == verdict for each in self.decisions)

    @property
    def earned_before(self) -> Msat:
        """The opening fees that were agreed, less those of orders whose channel was refused.

        A sale that was never paid counts too: what came of it is not in the record.
        """
        return Msat(sum(each.earned_before for each in self.decisions))

    @property
    def earned_after(self) -> Msat:
        """The same by the new policy, if every client still bought and paid as it did."""
        return Msat(sum(each.earned_after for each in self.decisions))

    def table(self) -> str:
        """Both policies side by side, and why the new one refuses, as text."""
        rows = [
            ("menus with offers", self.menus_before, self.menus_after),
            *(
                (each, self.count("before", each), self.count("after", each))
                for each in get_args(Verdict)
            ),
            ("opening fees, msat", int(self.earned_before), int(self.earned_after)),
        ]
        lines = [f"{'':<24}{'recorded':>20}{'replayed':>20}"]
        lines += [f"{name:<24}{before:>20,}{after:>20,}" for name, before, after in rows]
        reasons: dict[str, int] = {}
        for each in self.decisions:
            if each.why:
                reasons[each.why] = reasons.get(each.why, 0) + 1
        lines += [f"  {count:,} times: {why}" for why, count in sorted(reasons.items())]
        return "\n".join(lines)

    def plot(self) -> str:
        """What both earned and what both refused over time, each summed up, as an SVG image."""
        times = [each.at for each in self.decisions]
        fees = [(int(each.earned_before), int(each.earned_after)) for each in self.decisions]
        refusals = [(int(each.before in _NO), int(each.after in _NO)) for each in self.decisions]
        height = 2 * _PANEL + _EDGE
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
            *_panel(0, "Opening fees", times, fees, lambda msat: f"{Msat(msat).sat:,} sat"),
            *_panel(_PANEL, "Refused, not offered or failed", times, refusals, "{:,}".format),
        ]
        if times:
            begin, end = f"{min(times):%Y-%m-%d %H:%M}", f"{max(times):%Y-%m-%d %H:%M} UTC"
            lines += [
                _text(_LEFT, height - 20, begin),
                _text(_WIDTH / 2, height - 20, f"{len(times):,} sales and opens", anchor="middle"),
                _text(_WIDTH - _EDGE, height - 20, end, anchor="end"),
            ]
        return "\n".join([*lines, "</svg>"])


def _panel(
    top: int,
    title: str,
    times: Sequence[datetime],
    steps: Sequence[tuple[int, int]],
    unit: Callable[[int], str],
) -> Iterator[str]:
    """Two sums over time, recorded and replayed; ``top`` is where the panel begins, pixels."""
    high, low = top + _EDGE, top + _PANEL
    right = _WIDTH - _EDGE
    totals = [sum(step[which] for step in steps) for which in (0, 1)]
    most = max(1, *totals)
    begin = min(times, default=None)
    span = (max(times) - begin).total_seconds() if begin else 0

    def line(which: int, colour: str, width: int) -> str:
        total, points = 0, [f"{_LEFT},{low}"]
        for at, step in zip(times, steps, strict=True):
            passed = (at - begin).total_seconds() / span if begin and span else 1
            total += step[which]
            x, y = _LEFT + passed * (right - _LEFT), low - total / most * (low - high)
            points.append(f"{x:.1f},{y:.1f}")
        path = f'fill="none" stroke="{colour}" stroke-width="{width}"'
        return f'<polyline {path} points="{" ".join(points)}"/>'

    yield f'<path d="M{_LEFT},{high} H{right}" stroke="#ddd"/>'
    yield f'<path d="M{_LEFT},{high} V{low} H{right}" fill="none" stroke="#999"/>'
    # The first is the wider one: it is seen also where both are the same.
    yield line(0, "#aaa", 5)
    yield line(1, "#c60", 2)
    yield _text(_LEFT, high - 12, title, weight="bold")
    yield _text(right - 190, high - 12, f"recorded: {unit(totals[0])}", "#777", "end")
    yield _text(right, high - 12, f"replayed: {unit(totals[1])}", "#c60", "end")
    yield _text(_LEFT - 8, high + 4, unit(most), anchor="end")
    yield _text(_LEFT - 8, low + 4, "0", anchor="end")


def _text(
    x: float,
    y: float,
    words: str,
    colour: str = "#333",
    anchor: Literal["start", "middle", "end"] = "start",
    weight: Literal["normal", "bold"] = "normal",
) -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}">{escape(words)}</text>'


def read(path: str | os.PathLike[str]) -> Iterator[tuple[str, Question, Any]]:
    """Every question of a file, with its hook and its answer; a file of before comes first.

    Raises:
        ConfigError: It cannot be read, or a line of it is no question.
    """
    path = Path(path)
    before = path.with_name(path.name + ".1")
    try:
        for each in (before, path) if before.exists() else (path,):
            with each.open() as lines:
                for number, text in enumerate(lines, 1):
                    try:
                        told = json.loads(text)
                        name, question = read_question(json.dumps(told["question"]))
                    except (ValueError, KeyError, TypeError) as error:
                        raise ConfigError(f"{each}, line {number}: {error}") from None
                    yield name, question, told["answer"]
    except OSError as error:
        raise ConfigError(f"{path}: {error}") from error


async def replay(
    history: str | os.PathLike[str],
    hooks: Mapping[str, Callable[[Any], Any]],
    *,
    timeout: float = 5.0,
) -> Replay:
    """Ask a policy's hooks what was asked before.

    A sale is replayed at the price that the new menu has for it: the cheapest tier that takes the
    payment. That clients would still buy at another price is assumed. A channel belongs to the
    latest sale before it of its client and size, as sales are decided before they have a scid.

    Args:
        history: The file that ``PolicyConfig.record`` named.
        hooks: By name.
        timeout: How long each answer is waited for, seconds; then the hook has failed. A coroutine
            that blocks the event loop cannot be left.

    Raises:
        ConfigError: The file cannot be read.
    """
    with contextlib.closing(_Asker(hooks, timeout)) as asker:
        return await _replay(history, asker)


async def _replay(history: str | os.PathLike[str], asker: _Asker) -> Replay:
    decisions: list[Decision] = []
    menus = menus_before = menus_after = 0
    configured: dict[tuple[str, str | None], tuple[FeeTier, ...]] = {}
    # Where in the decisions: sales without a channel, by client and size; each order's sale.
    sold: dict[tuple[str, Msat | None], list[int]] = {}
    orders: dict[str, int | None] = {}
    # By their sale, those that were asked about; a refusal may be followed by another attempt.
    channels: dict[int, Decision] = {}
    after: Verdict
    for _, question, told in read(history):
        client = question.client
        if isinstance(question, MenuRequest):
            configured[client.node_id, client.token] = question.menu
            menus += 1
            menus_before += bool(told and told.get("yes", {}).get("tiers"))
            menus_after += bool(await _tiers(asker, question))
            continue
        if isinstance(question, ChannelRequest):
            if question.scid not in orders:
                open_sales = sold.get((client.node_id, question.size))
                orders[question.scid] = open_sales.pop() if open_sales else None
            sale = orders[question.scid]
            if sale is not None and decisions[sale].after != "sold":
                after, why = "not asked", ""
            else:
                after, why, _ = await asker.ask("channel", question, ChannelTerms())
            decision = Decision(
                at=question.state.at,
                hook="channel",
                client=client.node_id,
                size=question.size,
                before=_verdict(told, "opened"),
                after="opened" if after == "sold" else after,
                earned_before=Msat(0),
                earned_after=Msat(0),
                why=why,
            )
            if sale is not None:
                channels[sale] = decision
            decisions.append(decision)
            continue
        before = _verdict(told, "sold")
        if before == "sold":
            sold.setdefault((client.node_id, question.size), []).append(len(decisions))
        offered = await _offer(asker, question, configured.get((client.node_id, client.token)))
        after, why = "no offer", "no tier takes this payment"
        if offered is not None:
            after, why, _ = await asker.ask("sell", offered, Accept())
        decisions.append(
            Decision(
                at=question.state.at,
                hook="sell",
                client=client.node_id,
                size=question.size,
                before=before,
                after=after,
                earned_before=_agreed(question) if before == "sold" else Msat(0),
                earned_after=_agreed(offered) if offered and after == "sold" else Msat(0),
                why=why,
            )
        )
    for sale, channel in channels.items():
        if channel.before != "opened":
            decisions[sale] = replace(decisions[sale], earned_before=Msat(0))
        if channel.after != "opened":
            decisions[sale] = replace(decisions[sale], earned_after=Msat(0))
    return Replay(tuple(decisions), menus, menus_before, menus_after)


def _verdict(told: Any, good: Verdict) -> Verdict:
    if not told or "fault" in told:
        return "failed"
    return good if "yes" in told else "refused"


def _agreed(order: OrderRequest) -> Msat:
    return order.min_fee if order.fee is None else order.fee


class _Asker:
    """Asks hooks as a node does: coroutines on the loop, functions on a thread, each in time."""

    def __init__(self, hooks: Mapping[str, Callable[[Any], Any]], timeout: float) -> None:
        self.hooks, self._timeout = hooks, timeout
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None

    def close(self) -> None:
        """End the thread, once it comes back from its hook."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    async def ask(self, name: str, question: Question, without: Any) -> tuple[Verdict, str, Any]:
        """The verdict, why it is a no, and the answer; what the hook would do without one."""
        hook = self.hooks.get(name)
        if hook is None:
            return "sold", "", without
        try:
            answer = await self._answer(hook, question)
            write_answer(name, answer)
        except (Exception, SystemExit) as error:
            return "failed", f"{name} failed: {type(error).__name__}", None
        if isinstance(answer, Refuse):
            return "refused", answer.message or f"{name}: {answer.reason}", answer
        return "sold", "", answer

    async def _answer(self, hook: Callable[[Any], Any], question: Question) -> Any:
        if is_coroutine(hook):
            return await asyncio.wait_for(_guarded(hook, question), self._timeout)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def deliver(told: Any, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result((told, error))

        def call() -> None:
            told = error = None
            try:
                told = hook(question)
            except BaseException as raised:  # SystemExit too: a hook ends no program
                error = raised
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(deliver, told, error)

        if self._calls is None:
            self._calls = queue.SimpleQueue()
            run = contextvars.copy_context().run
            # A daemon, as it may hang in a hook when the program ends.
            threading.Thread(target=run, args=(_serve, self._calls), daemon=True).start()
        self._calls.put(call)
        try:
            told, error = await asyncio.wait_for(answer, self._timeout)
        except asyncio.TimeoutError:
            self.close()  # what hangs cannot be ended: another thread takes its place
            raise
        if error is not None:
            raise error
        if inspect.iscoroutine(told):  # a node refuses it too
            told.close()
        return told


async def _guarded(hook: Callable[[Any], Any], question: Question) -> Any:
    """Its answer; a hook ends no program, which it would as a task of its own."""
    try:
        return await hook(question)
    except SystemExit as error:
        raise RuntimeError("the hook exits") from error


def _serve(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()


async def _tiers(asker: _Asker, question: MenuRequest) -> tuple[FeeTier, ...]:
    verdict, _, answer = await asker.ask("menu", question, question.menu)
    return tuple(answer) if verdict == "sold" else ()


async def _offer(
    asker: _Asker, order: OrderRequest, configured: tuple[FeeTier, ...] | None
) -> OrderRequest | None:
    """The order at the new menu's price; None if there is none for it."""
    if "menu" not in asker.hooks:
        return order
    if configured is None:  # no menu of this client was recorded
        with contextlib.suppress(ConfigError):
            configured = (
                FeeTier(
                    min_fee=order.min_fee,
                    proportional_ppm=order.proportional_ppm,
                    min_payment=order.min_payment,
                    max_payment=order.max_payment,
                    min_lifetime_blocks=order.min_lifetime_blocks,
                ),
            )
    menu = MenuRequest(client=order.client, menu=configured or (), state=order.state)
    best: OrderRequest | None = None
    for tier in await _tiers(asker, menu):
        fee = None
        if order.size is not None:
            if not tier.min_payment <= order.size <= tier.max_payment:
                continue
            fee = _fee(order.size, tier)
            if fee is None or fee >= order.size:
                continue
        price = {
            "fee": fee,
            "min_fee": tier.min_fee,
            "proportional_ppm": tier.proportional_ppm,
            "min_payment": tier.min_payment,
            "max_payment": tier.max_payment,
            "min_lifetime_blocks": tier.min_lifetime_blocks,
        }
        offer = order.model_copy(update=price)
        if best is None or _cost(offer) < _cost(best):
            best = offer
    return best


def _cost(order: OrderRequest) -> tuple[int, int]:
    if order.fee is not None:
        return int(order.fee), 0
    return int(order.min_fee), order.proportional_ppm


def _fee(size: Msat, tier: FeeTier) -> Msat | None:
    from ._ldkjit import opening_fee

    fee = opening_fee(int(size), int(tier.min_fee), tier.proportional_ppm)
    return None if fee is None else Msat(fee)
