"""What a node did: ledger, orders, channels, payments, fees and costs as rows, and the report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, overload

from . import _store
from .errors import ConfigError, StoreError, from_native
from .models import Report
from .storage import Store

_PAGE = 1_000  # rows read at a time
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
    """Its number; each row has a higher one than those before."""
    at: datetime
    """When it was written."""
    kind: str
    """What it records, e.g. ``chain_cost``."""
    entry: str
    """The whole of it, JSON."""


class SoldOrder(NamedTuple):
    """A channel sold."""

    seq: int
    """Of the ledger's row that says so."""
    at: datetime
    """When it was sold."""
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
    """The opening fee as a share of the payment, parts per million."""
    min_lifetime: int | None
    """Blocks."""
    state: OrderState
    """How far it is."""
    earned_msat: int
    """So much of the fee."""
    paid_at: datetime | None
    """When the whole fee was earned."""
    ended_at: datetime | None
    """When it ended unpaid."""
    reason: str | None
    """Why it did."""


class PastChannel(NamedTuple):
    """A channel there is or was."""

    seq: int
    """Of the ledger's row that says that it was funded."""
    at: datetime
    """When it was funded."""
    channel: str
    """Its id, hex."""
    peer: str
    """The other side's node id."""
    scid: str | None
    """The order it was opened for."""
    by_us: bool
    """Whether this node funded it."""
    value_sat: int
    """Of its funding output, satoshi."""
    funding: str
    """``txid:vout``."""
    ended_at: datetime | None
    """When it was closed; None while it is open."""
    reason: str | None
    """Why it was closed."""
    closing_txid: str | None
    """The transaction that spends its funding output, hex, once there is one."""


class PastPayment(NamedTuple):
    """A payment of this node's own that is over."""

    seq: int
    """Its number among all that the node wrote down."""
    at: datetime
    """When it was over."""
    created_at: datetime
    """When it began."""
    payment_hash: str
    """Hex, 64 digits."""
    direction: Literal["in", "out"]
    """``in``: received; ``out``: sent."""
    kind: Literal["bolt11", "keysend"]
    """``bolt11``: by an invoice; ``keysend``: without one."""
    status: Literal["succeeded", "failed"]
    """How it ended."""
    amount_msat: int
    """Received: after the opening fee. Sent: without the routing fee."""
    fee_msat: int | None
    """The routing fee paid."""
    opening_fee_msat: int
    """What an LSP kept of it."""
    failure: str | None
    """Why it failed; None if it did not."""
    description: str | None
    """Of the invoice."""


class Fee(NamedTuple):
    """Something earned."""

    seq: int
    """Of the ledger's row that says so."""
    at: datetime
    """When it was earned."""
    kind: FeeKind
    """What for."""
    amount_msat: int
    """What was earned."""
    client: str | None
    """Who paid it for a channel; None for routing."""
    scid: str | None
    """The order, likewise."""
    channel: str | None
    """The id of the channel that was sold, or that the payment left by, hex."""
    payment_hash: str | None
    """Of the payment that paid for a channel, hex; None for routing."""


class Cost(NamedTuple):
    """Something paid. A transaction's fee comes again, below zero, if the transaction is undone."""

    seq: int
    """Of the ledger's row that says so."""
    at: datetime
    """When it was written down."""
    kind: CostKind
    """What for."""
    amount_msat: int
    """What was paid; below zero for what was undone."""
    client: str | None
    """For whom a channel was funded."""
    scid: str | None
    """The order it was funded for."""
    channel: str | None
    """The id of the channel that it concerns, hex."""
    txid: str | None
    """The transaction, hex; None for what payments cost."""


Row = TypeVar("Row")


class Rows(Sequence[Row]):
    """Rows in the order of their numbers: for ``for`` or ``async for``, or as a sequence.

    Each loop reads anew, as of its begin, while the node goes on. Rows are read ahead by a thread,
    a thousand at a time; until a loop is over the node's SQLite keeps what was written meanwhile in
    its log, so do not leave one half-way for long.

    ``len``, an index, and with them ``list`` and what makes tables, read all rows once and keep
    them, for the loops after that too: ask the history again for later ones.
    """

    def __init__(
        self, pages: Callable[[], Iterator[list[list[Any]]]], make: Callable[[list[Any]], Row]
    ) -> None:
        self._pages = pages
        self._make = make
        self._kept: list[Row] | None = None

    def __iter__(self) -> Iterator[Row]:
        if self._kept is not None:
            yield from self._kept
            return
        for page in self._pages():
            yield from map(self._make, page)

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        if self._kept is not None:
            for row in self._kept:
                yield row
            return
        pages = self._pages()
        while page := await asyncio.to_thread(next, pages, None):
            for row in page:
                yield self._make(row)

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._all()[index]

    def _all(self) -> list[Row]:
        if self._kept is None:
            self._kept = [*iter(self)]  # a list of the rows themselves would ask for their number
        return self._kept


class History:
    """The history of a node, while the node runs or not; in a folder, in another process too.

    Rows are tuples with the columns of the SQL views in ``docs/history.md``, so that
    ``pandas.DataFrame(history.fees())`` and ``polars.DataFrame(history.fees())`` are tables.
    Times are UTC. Every filter is optional; ``since`` is the first instant wanted and ``until`` the
    first that is not. Every method raises a ``ConfigError`` for what cannot be asked; what cannot
    be read is a ``StoreError`` in the loop.

    Of a store that is no folder each loop first copies all rows that it may need into a temporary
    file. The store is called on its own thread, between two calls of its node; without a node in
    this process it is loaded for that and closed: a node of another process would have to give way,
    so ask that one.

    Args:
        source: The node's data directory, or the store it is started with if that is another.

    Attributes:
        source: As given, a folder as a ``Path``.
    """

    def __init__(self, source: str | os.PathLike[str] | Store) -> None:
        self.source = Path(source) if isinstance(source, str | os.PathLike) else source

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
            ConfigError: This is no folder: only ``Node.report`` adds up another store.
            StoreError: The store cannot be read.
        """
        ask = question(by, client=client, since=since, until=until)
        if not isinstance(self.source, Path):
            raise ConfigError("report: of this store its running node tells, by Node.report")
        from . import _ldkjit

        told, text = _ldkjit.report(str(self.source), json.dumps(ask))
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
        ask = {"view": view, "kind": kind, **_filters(client, since, until)}
        columns = list(row.__annotations__)
        times = [at for at, name in enumerate(columns) if name == "at" or name.endswith("_at")]
        flags = [at for at, name in enumerate(columns) if name == "by_us"]
        source = self.source

        def pages() -> Iterator[list[list[Any]]]:
            return _of_folder(source, ask) if isinstance(source, Path) else _of_store(source, ask)

        def make(values: list[Any]) -> Row:
            for at in times:
                if values[at] is not None:
                    values[at] = _EPOCH + values[at] * _MS
            for at in flags:
                values[at] = bool(values[at])
            return row(*values)

        return Rows(pages, make)


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
    """The SQL that makes the views of ``docs/history.md`` in any connection to ``node.sqlite``.

    In the process of a running node use ``History``, which shares the node's SQLite: a second
    copy of the library would let go of the first one's locks when it closes the file.
    """
    from . import _ldkjit

    return _ldkjit.views()


def _of_folder(folder: Path, ask: dict[str, Any]) -> Iterator[list[list[Any]]]:
    from ._ldkjit import History as Native

    native = Native(str(folder), json.dumps(ask))
    while True:
        told, text = native.page()
        if not told:
            raise from_native(text)
        page = json.loads(text)
        if not page:
            return
        yield page


# Where the native module looks for a client and for a kind, too: rust/node/src/history.rs.
_CLIENT = {"ledger": "json_extract(entry, '$.client')", "channels": "peer", "payments": "NULL"}
_KIND = {
    "orders": "state",
    "channels": "CASE WHEN ended_at_ms IS NULL THEN 'open' ELSE 'closed' END",
    "payments": "direction",
}


def _of_store(store: Store, ask: dict[str, Any]) -> Iterator[list[list[Any]]]:
    import sqlite3  # not every Python has it

    view = ask["view"]
    query = (
        f"SELECT * FROM {view} WHERE (:since_ms IS NULL OR at_ms >= :since_ms)"  # noqa: S608 (our words)
        " AND (:until_ms IS NULL OR at_ms < :until_ms)"
        f" AND (:client IS NULL OR {_CLIENT.get(view, 'client')} = :client)"
        f" AND (:kind IS NULL OR {_KIND.get(view, 'kind')} = :kind) ORDER BY seq"
    )
    # A file of SQLite's own, which grows where memory would; one thread after another reads it.
    with contextlib.closing(sqlite3.connect("", check_same_thread=False)) as db:
        db.execute("CREATE TABLE history(kind TEXT, seq INTEGER, value BLOB)")
        for rows in _stored(store, "payment" if view == "payments" else "ledger"):
            db.executemany("INSERT INTO history VALUES (?, ?, ?)", rows)
        db.commit()
        db.executescript(views())
        try:
            cursor = db.execute(query, ask)
            while page := cursor.fetchmany(_PAGE):
                yield [list(row) for row in page]
        except sqlite3.Error as error:
            raise StoreError(f"{type(store).__name__}: {error}") from error


def _stored(store: Store, kind: str) -> Iterator[list[tuple[str, int, bytes]]]:
    after = 0
    with _store.guest(store) as read:
        while page := read(kind, after, _PAGE):
            places = range(after + 1, after + 1 + len(page))
            if [(each.kind, each.seq) for each in page] != [(kind, place) for place in places]:
                raise StoreError(f"{type(store).__name__}: rows after {after} of {kind} are others")
            yield [(each.kind, each.seq, each.value) for each in page]
            after = places[-1]


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
