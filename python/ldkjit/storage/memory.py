"""A store that lives as long as its object: for tests, and to read how short a store can be."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..errors import StoreError
from .protocol import ARCHIVE, Change, Delete, Loaded, Put, Row, check_follows


class MemoryStore:
    """Keeps everything in this object, so that a node can be "killed" and started on it again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # two nodes by mistake find each other's commits, whole
        self._closed = False
        self._seq = 0
        self._live: dict[tuple[str, str], bytes] = {}
        self._rows: dict[str, list[Row]] = {}

    def load(self, *, archived: bool = False) -> Loaded:
        """See ``Store.load``."""
        with self._lock:
            self._closed = False
            live = [
                Put(kind, key, value)
                for (kind, key), value in self._live.items()
                if archived or not kind.startswith(ARCHIVE)
            ]
            return Loaded(self._seq, live, self._last_row())

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        """See ``Store.commit``."""
        with self._lock:
            if self._closed:
                raise StoreError("MemoryStore is closed")
            check_follows(self._seq, self._last_row(), seq, batch)
            for change in batch:
                if isinstance(change, Put):
                    self._live[change.kind, change.key] = change.value
                elif isinstance(change, Delete):
                    self._live.pop((change.kind, change.key), None)
                else:
                    self._rows.setdefault(change.kind, []).append(change)
            self._seq = seq

    def read(self, kind: str, key: str) -> bytes | None:
        """See ``Store.read``."""
        with self._lock:
            if (kind, key) in self._live:
                return self._live[kind, key]
            rows = reversed(self._rows.get(kind, []))
            return next((row.value for row in rows if row.key == key), None)

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        """See ``Store.rows``."""
        with self._lock:
            return self._rows.get(kind, [])[after : after + limit]

    def close(self) -> None:
        """See ``Store.close``; what was committed stays with the object."""
        self._closed = True

    def _last_row(self) -> dict[str, int]:
        return {kind: len(rows) for kind, rows in self._rows.items()}
