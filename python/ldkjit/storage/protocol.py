"""What a store must do: five methods over ordered batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from ..errors import StoreError

# Kinds with this prefix are not needed to start a node.
ARCHIVE = "archive/"


@dataclass(frozen=True)
class Put:
    """Sets the value of ``(kind, key)``.

    Attributes:
        kind: What sort of thing it is; any text without NUL.
        key: Which one; any text without NUL, may be empty.
        value: Its whole value, from no bytes to some hundred megabytes.
    """

    kind: str
    key: str
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class Delete:
    """Removes ``(kind, key)``, if it is there.

    Attributes:
        kind: What sort of thing it is.
        key: Which one.
    """

    kind: str
    key: str


@dataclass(frozen=True)
class Row:
    """A row of a history. Rows are never changed or removed.

    Attributes:
        kind: Which history. Its name may also be the kind of things that are put.
        seq: Its place: one more than the last of this kind; the first is 1.
        key: By what it may be found.
        value: Its content.
    """

    kind: str
    seq: int
    key: str
    value: bytes = field(repr=False)


Change: TypeAlias = Put | Delete | Row


@dataclass(frozen=True)
class Loaded:
    """What a node needs to start.

    Attributes:
        seq: The number of the last commit; 0 for a new store.
        live: Everything that was put and not deleted, each once, in any order.
        last_row: The number of the last row of each history that has one.
    """

    seq: int = 0
    live: Sequence[Put] = ()
    last_row: Mapping[str, int] = field(default_factory=dict[str, int])


@runtime_checkable
class Store(Protocol):
    """A place where batches are kept.

    A node calls it on one thread of its own, never on your event loop, and one call at a time.
    ``load`` comes first and is where connections are opened. A call may take as long as it needs:
    until ``commit`` returns, nothing that depends on it leaves the node. Any exception stops the
    node: it never goes on unsaved. After ``close`` it may be loaded again.

    ``ldkjit.testing.check_store`` shows whether a class keeps all this.
    """

    def load(self, *, archived: bool = False) -> Loaded:
        """Everything live; a node calls it again while it runs, to see all of one commit.

        Args:
            archived: Whether kinds that begin with ``archive/`` are wanted too. A node that starts
                does not want them: they only grow.

        Raises:
            StoreError: It cannot be read, is in use, or was written by a later release.
        """
        ...

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        """Write a batch in its order, all or nothing, durable on return.

        Args:
            seq: The last commit's number plus one.
            batch: The changes; may be empty.

        Raises:
            StoreError: ``seq`` or the number of a row does not follow, another process has taken
                the store over, or it cannot be written. Nothing is changed by this call then,
                unless the answer of a database was lost: then nobody knows, and the node stops.
        """
        ...

    def read(self, kind: str, key: str) -> bytes | None:
        """The value put under ``(kind, key)``, or else that of the newest row of ``kind`` with it.

        Raises:
            StoreError: It cannot be read.
        """
        ...

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        """The rows of a history that follow number ``after``, in order, at most ``limit``.

        Raises:
            StoreError: They cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of everything; closing again is fine.

        Raises:
            StoreError: It cannot be closed in order. What was committed is safe all the same.
        """
        ...


def check_follows(
    last: int, last_row: Mapping[str, int], seq: int, batch: Sequence[Change]
) -> dict[str, int]:
    """Check the numbers of a commit; the last rows' numbers of the histories that it appends to.

    Raises:
        StoreError: One does not follow.
    """
    if seq != last + 1:
        raise StoreError(f"commit {seq} where {last + 1} was due")
    ends: dict[str, int] = {}
    for change in batch:
        if isinstance(change, Row):
            due = ends.get(change.kind, last_row.get(change.kind, 0)) + 1
            if change.seq != due:
                raise StoreError(f"row {change.seq} of {change.kind} where {due} was due")
            ends[change.kind] = due
    return ends
