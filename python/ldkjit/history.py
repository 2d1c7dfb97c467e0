"""What a node did: ledger, orders, channels, payments, fees and costs as rows, and the report."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, get_args

from .errors import ConfigError, from_native
from .models import Report

if TYPE_CHECKING:
    from ._ldkjit import History as _Native

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MS = timedelta(milliseconds=1)
_NODE_ID_DIGITS = 66

FeeKind = Literal["opening", "routing"]
"""For a channel that was sold, or for a payment that was forwarded."""

CostKind = Literal["funding", "close", "claim", "bump", "sent", "split", "opening", "routing"]
"""A transaction's fee, by what it was for; or what others earned of this node's own payments."""

OrderState = Literal["open", "owed", "paid", "ended"]
"""Not decided yet; a channel that is not paid for yet; paid for; over without being paid for."""

By = Literal["day", "client", "tier"]
"""What a report's lines are."""


class LedgerEntry(NamedTuple):
    """A row of the ledger: ``docs/ledger.md`` says what each kind means."""

    seq: int
    at: datetime
    kind: str
    entry: str
    """The whole of it, JSON."""


class SoldOrder(NamedTuple):
    """A channel sold."""

    seq: int
    """Of the ledger's row that says so."""
    at: datetime
    scid: str
    """The jit scid, ``BLOCKxTXxOUTPUT``."""
    client: str
    """The buyer's node id."""
    trust: str
    """A ``TrustModel``."""
    size_msat: int | None
    """The payment agreed; None for a variable amount."""
    fee_msat: int | None
    """The opening fee, once it is known."""
    min_fee_msat: int | None
    """Of its tier, as are the next two; None for one sold before tiers were written down."""
    proportional_ppm: int | None
    min_lifetime: int | None
    """Blocks."""
    state: OrderState
    earned_msat: int
    """So much of the fee."""
    paid_at: datetime | None
    ended_at: datetime | None
    """When it ended unpaid."""
    reason: str | None
    """Why it did."""


class PastChannel(NamedTuple):
    """A channel there is or was."""

    seq: int
    at: datetime
    """When it was funded."""
    channel: str
    peer: str
    """The other side's node id."""
    scid: str | None
    """The order it was opened for."""
    by_us: bool
    """Whether this node funded it."""
    value_sat: int
    funding: str
    """``txid:vout``."""
    ended_at: datetime | None
    reason: str | None
    """Why it was closed."""
    closing_txid: str | None


class PastPayment(NamedTuple):
    """A payment of this node's own that is over."""

    seq: int
    at: datetime
    """When it was over."""
    created_at: datetime
    payment_hash: str
    direction: Literal["in", "out"]
    kind: Literal["bolt11", "keysend"]
    status: Literal["succeeded", "failed"]
    amount_msat: int
    fee_msat: int | None
    """The routing fee paid."""
    opening_fee_msat: int
    """What an LSP kept of it."""
    failure: str | None
    description: str | None


class Fee(NamedTuple):
    """Something earned."""

    seq: int
    at: datetime
    kind: FeeKind
    amount_msat: int
    client: str | None
    """Who paid it for a channel; None for routing."""
    scid: str | None
    """The order, likewise."""
    channel: str | None
    payment_hash: str | None


class Cost(NamedTuple):
    """Something paid. A transaction's fee comes again, below zero, if the transaction is undone."""

    seq: int
    at: datetime
    kind: CostKind
    amount_msat: int
    client: str | None
    """For whom a channel was funded."""
    scid: str | None
    """The order it was funded for."""
    channel: str | None
    txid: str | None


Row = TypeVar("Row")


class Rows(Generic[Row]):
    """Rows in the order of their numbers, for ``for`` or ``async for``.

    Each loop reads anew, as of its begin, while the node goes on. Rows are read ahead by a thread,
    a thousand at a time; until a loop is over the store keeps what was written meanwhile in its
    log, so do not leave one half-way for long.
    """

    def __init__(self, begin: Callable[[], _Native], make: Callable[[list[Any]], Row]) -> None:
        self._begin = begin
        self._make = make

    def __iter__(self) -> Iterator[Row]:
        native = self._begin()
        while page := _page(native):
            yield from map(self._make, page)

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        native = self._begin()
        while page := await asyncio.to_thread(_page, native):
            for row in page:
                yield self._make(row)


class History:
    """The history in a node's folder, while the node runs, in this process or another, or not.

    Rows are tuples with the columns of the SQL views in ``docs/ledger.md``, so that
    ``pandas.DataFrame(history.fees())`` and ``polars.DataFrame(list(history.fees()))`` are tables.
    Times are UTC. Every filter is optional; ``since`` is the first instant wanted and ``until`` the
    first that is not. Every method raises a ``ConfigError`` for what cannot be asked; what cannot
    be read is a ``StoreError`` in the loop.

    Args:
        data_dir: The node's data directory.
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self.data_dir = Path(data_dir)

    def ledger(
        self,
        kind: str | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[LedgerEntry]:
        """Every row of the ledger.

        Args:
            kind: Such as ``chain_cost``.
            client: Rows that name this client's node id.
            since: From this instant on.
            until: Before this instant.
        """
        return self._rows("ledger", LedgerEntry, kind, client, since, until)

    def orders(
        self,
        state: OrderState | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[SoldOrder]:
        """The channels sold, by when they were.

        Args:
            state: Only those.
            client: The buyer's node id.
            since: Sold from this instant on.
            until: Sold before this instant.
        """
        _known("state", state, OrderState)
        return self._rows("orders", SoldOrder, state, client, since, until)

    def channels(
        self,
        state: Literal["open", "closed"] | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[PastChannel]:
        """The channels there are or were, by when they were funded.

        Args:
            state: Only those.
            client: The other side's node id.
            since: Funded from this instant on.
            until: Funded before this instant.
        """
        _known("state", state, Literal["open", "closed"])
        return self._rows("channels", PastChannel, state, client, since, until)

    def payments(
        self,
        direction: Literal["in", "out"] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[PastPayment]:
        """The node's own payments, by when they were over.

        Args:
            direction: Only those.
            since: Over from this instant on.
            until: Over before this instant.
        """
        _known("direction", direction, Literal["in", "out"])
        return self._rows("payments", PastPayment, direction, None, since, until)

    def fees(
        self,
        kind: FeeKind | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[Fee]:
        """What was earned.

        Args:
            kind: Only those.
            client: The node id of who bought the channel.
            since: From this instant on.
            until: Before this instant.
        """
        _known("kind", kind, FeeKind)
        return self._rows("fees", Fee, kind, client, since, until)

    def costs(
        self,
        kind: CostKind | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Rows[Cost]:
        """What was paid, but for what closed channels did not bring back: that is in the report.

        Args:
            kind: Only those.
            client: The node id of whom a channel was funded for.
            since: From this instant on.
            until: Before this instant.
        """
        _known("kind", kind, CostKind)
        return self._rows("costs", Cost, kind, client, since, until)

    def report(
        self,
        by: By | None = None,
        *,
        client: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Report:
        """What the ledger adds up to, and whether it does; takes about as long as the check.

        Args:
            by: What its lines are; None gives only the total.
            client: Only what concerns this client's node id.
            since: From this instant on.
            until: Before this instant; not after the present.

        Raises:
            StoreError: The store cannot be read.
        """
        ask = question(by, client=client, since=since, until=until)
        from . import _ldkjit

        told, text = _ldkjit.report(str(self.data_dir), json.dumps(ask))
        if not told:
            raise from_native(text)
        return Report.model_validate_json(text)

    def _rows(
        self,
        view: str,
        row: Callable[..., Row],
        kind: str | None,
        client: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Rows[Row]:
        ask = json.dumps({"view": view, "kind": kind, **_filters(client, since, until)})
        columns = list(row.__annotations__)
        times = [at for at, name in enumerate(columns) if name == "at" or name.endswith("_at")]
        flags = [at for at, name in enumerate(columns) if name == "by_us"]

        def begin() -> _Native:
            from ._ldkjit import History as Native

            return Native(str(self.data_dir), ask)

        def make(values: list[Any]) -> Row:
            for at in times:
                if values[at] is not None:
                    values[at] = _EPOCH + values[at] * _MS
            for at in flags:
                values[at] = bool(values[at])
            return row(*values)

        return Rows(begin, make)


def question(
    by: By | None,
    *,
    client: str | None,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, Any]:
    """The native module's words for a report; ``History.report`` and ``Node.report`` say them."""
    _known("by", by, By)
    return {"by": by, **_filters(client, since, until)}


def views() -> str:
    """The SQL that makes the views of ``docs/ledger.md`` in any connection to ``node.sqlite``.

    In the process of a running node use ``History``, which shares the node's SQLite: a second
    copy of the library would let go of the first one's locks when it closes the file.
    """
    from . import _ldkjit

    return _ldkjit.views()


def _page(native: _Native) -> list[list[Any]]:
    told, text = native.page()
    if not told:
        raise from_native(text)
    return json.loads(text)


def _filters(
    client: str | None, since: datetime | None, until: datetime | None
) -> dict[str, int | str | None]:
    begin, end = _instant("since", since), _instant("until", until)
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"until: must be after since, not {until}")
    if client is not None and not _is_node_id(client):
        raise ConfigError(f"client: accepts a node id, 66 hex digits, not {client!r}")
    return {"client": client and client.lower(), "since_ms": begin, "until_ms": end}


def _is_node_id(text: Any) -> bool:
    digits = set("0123456789abcdefABCDEF")
    return isinstance(text, str) and len(text) == _NODE_ID_DIGITS and set(text) <= digits


def _instant(name: str, at: Any) -> int | None:
    if at is None:
        return None
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise ConfigError(f"{name}: accepts a datetime with a time zone, not {at!r}")
    ms = (at - _EPOCH) // _MS
    if ms < 0:
        raise ConfigError(f"{name}: accepts 1970 and later, not {at}")
    return ms


def _known(name: str, value: Any, of: Any) -> None:
    accepts = get_args(of)
    if value is not None and value not in accepts:
        raise ConfigError(f"{name}: accepts {', '.join(accepts)}, not {value!r}")
