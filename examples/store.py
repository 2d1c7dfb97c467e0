"""A store of one's own, in one file by Python's sqlite3. ``ldkjit.testing.check_store`` passes."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ldkjit import StoreError
from ldkjit.storage import Change, Delete, Loaded, Put, Row

TABLES = """
CREATE TABLE IF NOT EXISTS head(seq INTEGER NOT NULL);
INSERT INTO head SELECT 0 WHERE NOT EXISTS (SELECT * FROM head);
CREATE TABLE IF NOT EXISTS live(kind, key, value BLOB, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS history(kind, seq INTEGER, key, value BLOB, PRIMARY KEY (kind, seq));
"""


class FileStore:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.db: sqlite3.Connection | None = None

    def load(self, *, archived: bool = False) -> Loaded:
        if self.db is None:
            # Here, on the node's thread, and for one process only.
            self.db = sqlite3.connect(self.file, isolation_level=None)
            self.db.executescript(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL;" + TABLES
            )
        live = self.db.execute(
            "SELECT * FROM live WHERE ? OR kind NOT GLOB 'archive/*'", [archived]
        )
        ends = self.db.execute("SELECT kind, max(seq) FROM history GROUP BY kind")
        return Loaded(self._seq(), [Put(*each) for each in live], dict(ends.fetchall()))

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            if seq != self._seq() + 1:
                raise StoreError(f"commit {seq} does not follow")
            for each in batch:
                if isinstance(each, Put):
                    values = (each.kind, each.key, each.value)
                    db.execute("INSERT OR REPLACE INTO live VALUES (?, ?, ?)", values)
                elif isinstance(each, Delete):
                    db.execute("DELETE FROM live WHERE kind = ? AND key = ?", (each.kind, each.key))
                else:
                    last = db.execute("SELECT max(seq) FROM history WHERE kind = ?", [each.kind])
                    if each.seq != (last.fetchone()[0] or 0) + 1:
                        raise StoreError(f"row {each.seq} of {each.kind} does not follow")
                    row = (each.kind, each.seq, each.key, each.value)
                    db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row)
            db.execute("UPDATE head SET seq = ?", [seq])
            db.execute("COMMIT")  # returns when the disk has it
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def read(self, kind: str, key: str) -> bytes | None:
        for query in (
            "SELECT value FROM live WHERE kind = ? AND key = ?",
            "SELECT value FROM history WHERE kind = ? AND key = ? ORDER BY seq DESC LIMIT 1",
        ):
            found = self._db().execute(query, (kind, key)).fetchone()
            if found is not None:
                return bytes(found[0])
        return None

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        query = "SELECT * FROM history WHERE kind = ? AND seq > ? ORDER BY seq LIMIT ?"
        return [Row(*each) for each in self._db().execute(query, (kind, after, limit))]

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    def _db(self) -> sqlite3.Connection:
        if self.db is None:
            raise StoreError("the store is closed")
        return self.db

    def _seq(self) -> int:
        return int(self._db().execute("SELECT seq FROM head").fetchone()[0])
