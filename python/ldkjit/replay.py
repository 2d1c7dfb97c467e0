"""What hooks were asked and answered, kept in a file, and what another policy would make of it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

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
Verdict = Literal["sold", "opened", "refused", "no offer", "failed"]


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
        earned_before: The opening fee that was agreed, 0 if it was not sold; of a variable amount
            the least.
        earned_after: The same by the new policy.
        why: Why the new policy sells nothing; empty if it does.
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
        """The opening fees that were agreed."""
        return Msat(sum(each.earned_before for each in self.decisions))

    @property
    def earned_after(self) -> Msat:
        """The opening fees that the new policy would have agreed, if every client still bought."""
        return Msat(sum(each.earned_after for each in self.decisions))

    def table(self) -> str:
        """Both policies side by side, and why the new one refuses, as text."""
        verdicts: tuple[Verdict, ...] = ("sold", "opened", "refused", "no offer", "failed")
        rows = [
            ("menus with offers", self.menus_before, self.menus_after),
            *((each, self.count("before", each), self.count("after", each)) for each in verdicts),
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
        """The opening fees of both over time, as an SVG image."""
        width, height, edge = 640, 320, 48
        sales = [each for each in self.decisions if each.hook == "sell"]
        sums = [(0, 0)]
        for each in sales:
            before, after = sums[-1]
            sums.append((before + int(each.earned_before), after + int(each.earned_after)))
        top = max(1, *(max(pair) for pair in sums))

        def line(which: int, colour: str) -> str:
            step = (width - 2 * edge) / max(1, len(sums) - 1)
            points = " ".join(
                f"{edge + index * step:.1f},"
                f"{height - edge - pair[which] / top * (height - 2 * edge):.1f}"
                for index, pair in enumerate(sums)
            )
            return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'

        def text(x: int, y: int, words: str, colour: str = "#333", anchor: str = "start") -> str:
            place = f'x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}"'
            return f"<text {place}>{escape(words)}</text>"

        first, last = (sales[0].at, sales[-1].at) if sales else (None, None)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                'font-family="sans-serif" font-size="12">',
                f'<rect width="{width}" height="{height}" fill="white"/>',
                f'<path d="M{edge},{edge} V{height - edge} H{width - edge}" fill="none" '
                'stroke="#999"/>',
                line(0, "#888"),
                line(1, "#c60"),
                text(edge, 24, f"recorded: {self.earned_before.sat:,} sat", "#888"),
                text(width // 2, 24, f"replayed: {self.earned_after.sat:,} sat", "#c60"),
                text(edge, edge - 6, f"{Msat(top).sat:,} sat"),
                text(edge, height - edge + 20, f"{first:%Y-%m-%d %H:%M}" if first else ""),
                text(
                    width - edge,
                    height - edge + 20,
                    f"{last:%Y-%m-%d %H:%M}, {len(sales):,} sales" if last else "",
                    anchor="end",
                ),
                "</svg>",
            ]
        )


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
    history: str | os.PathLike[str], hooks: Mapping[str, Callable[[Any], Any]]
) -> Replay:
    """Ask a policy's hooks what was asked before.

    A sale is replayed at the price that the new menu has for it: the cheapest tier that takes the
    payment. That clients would still buy at another price is assumed.

    Args:
        history: The file that ``PolicyConfig.record`` named.
        hooks: By name.

    Raises:
        ConfigError: The file cannot be read.
    """
    decisions: list[Decision] = []
    menus = menus_before = menus_after = 0
    configured: dict[tuple[str, str | None], tuple[FeeTier, ...]] = {}
    for _, question, told in read(history):
        client = question.client
        if isinstance(question, MenuRequest):
            configured[client.node_id, client.token] = question.menu
            menus += 1
            menus_before += bool(told and told.get("yes", {}).get("tiers"))
            menus_after += bool(await _tiers(hooks, question))
            continue
        if isinstance(question, ChannelRequest):
            after, why, _ = await _ask(hooks, "channel", question, ChannelTerms())
            opened = _verdict(told, "opened")
            after = "opened" if after == "sold" else after
            decisions.append(
                Decision(
                    question.state.at,
                    "channel",
                    client.node_id,
                    question.size,
                    opened,
                    after,
                    Msat(0),
                    Msat(0),
                    why,
                )
            )
            continue
        before = _verdict(told, "sold")
        agreed = question.min_fee if question.fee is None else question.fee
        known = configured.get((client.node_id, client.token))
        offered = await _offer(hooks, question, known)
        after, why, fee = "no offer", "no tier takes this payment", Msat(0)
        if offered is not None:
            after, why, _ = await _ask(hooks, "sell", offered, Accept())
            if after == "sold":
                fee = offered.min_fee if offered.fee is None else offered.fee
        decisions.append(
            Decision(
                question.state.at,
                "sell",
                client.node_id,
                question.size,
                before,
                after,
                agreed if before == "sold" else Msat(0),
                fee,
                why,
            )
        )
    return Replay(tuple(decisions), menus, menus_before, menus_after)


def _verdict(told: Any, good: Verdict) -> Verdict:
    if not told or "fault" in told:
        return "failed"
    return good if "yes" in told else "refused"


async def _ask(
    hooks: Mapping[str, Callable[[Any], Any]], name: str, question: Question, without: Any
) -> tuple[Verdict, str, Any]:
    """The verdict, why it is a no, and the answer; what the hook would do without one."""
    hook = hooks.get(name)
    if hook is None:
        return "sold", "", without
    try:
        answer = hook(question)
        if inspect.isawaitable(answer):
            answer = await answer
        write_answer(name, answer)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        return "failed", f"{name} failed: {type(error).__name__}", None
    if isinstance(answer, Refuse):
        return "refused", answer.message or f"{name}: {answer.reason}", answer
    return "sold", "", answer


async def _tiers(
    hooks: Mapping[str, Callable[[Any], Any]], question: MenuRequest
) -> tuple[FeeTier, ...]:
    verdict, _, answer = await _ask(hooks, "menu", question, question.menu)
    return tuple(answer) if verdict == "sold" else ()


async def _offer(
    hooks: Mapping[str, Callable[[Any], Any]],
    order: OrderRequest,
    configured: tuple[FeeTier, ...] | None,
) -> OrderRequest | None:
    """The order at the new menu's price; None if there is none for it."""
    if "menu" not in hooks:
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
    for tier in await _tiers(hooks, menu):
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
