"""A store in PostgreSQL: every commit compares and sets (epoch, seq) in its own transaction."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import (
    ConfigError,
    StoreCorruptError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    StoreVersionError,
)
from .protocol import ARCHIVE, Change, Loaded, Put, Row, check_follows

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import LiteralString

    Connection = psycopg.Connection[tuple[Any, ...]]

_log = logging.getLogger("ldkjit.store")
_T = TypeVar("_T")

# What a dead network may cost: without these a lost connection is noticed after hours.
_CONNECTION: dict[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "ldkjit",
    # Several hosts may be named: the one that takes writes is meant.
    "target_session_attrs": "read-write",
}
# A role or a database may have other defaults; the comparison below needs the first one.
_SESSION: dict[str, str] = {
    "default_transaction_isolation": "read committed",
    "client_min_messages": "warning",
    "lock_timeout": "10s",
    # A large load or commit takes what it takes; that the server is there, the keepalives tell.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_LAST_PAUSE_S = 2.0

# Values are large and change as a whole: compressing them would cost every commit.
_SCHEMA: tuple[LiteralString, ...] = (
    "CREATE TABLE head(one boolean PRIMARY KEY DEFAULT true CHECK (one),"
    " version integer NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL)",
    'CREATE TABLE kv(kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,'
    " value bytea NOT NULL, PRIMARY KEY (kind, key))",
    "ALTER TABLE kv ALTER COLUMN value SET STORAGE EXTERNAL",
    'CREATE TABLE history(kind text COLLATE "C" NOT NULL, seq bigint NOT NULL,'
    ' key text COLLATE "C" NOT NULL, value bytea NOT NULL, PRIMARY KEY (kind, seq))',
    "CREATE INDEX history_by_key ON history(kind, key, seq)",
)


class PostgresStore:
    """Keeps a node in a schema of its own in a PostgreSQL database (11 or newer).

    Needs the extra ``ldkjit[postgres]``. Commits wait for the server's disk, and for its
    synchronous standbys if it has any. A connection that is lost is made anew, and a commit whose
    answer was lost is looked for and never applied twice. A node that starts on the same schema
    while the first is connected is refused; once the first has lost its connection, the second
    takes over, and the first stops at its next commit.

    Args:
        conninfo: As libpq takes it: ``postgresql://user@host/database`` or ``host=… dbname=…``.
        schema: One for each node; letters, digits and underscores, made at the first start.
        patience: How long a commit waits for a server that is away before the node stops, seconds.

    Raises:
        ConfigError: One of them cannot be used, or psycopg is not installed.
    """

    # Of the tables. A step leads from its number to the next.
    _version: ClassVar[int] = 1
    _steps: ClassVar[dict[int, tuple[LiteralString, ...]]] = {}

    def __init__(self, conninfo: str, *, schema: str = "ldkjit", patience: float = 60.0) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
        except ImportError as error:
            text = "PostgresStore needs one more package: pip install 'ldkjit[postgres]'"
            raise ConfigError(text) from error
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ConfigError("schema: accepts lower-case letters, digits and underscores")
        if isinstance(patience, bool) or not (patience >= 0 and math.isfinite(patience)):
            raise ConfigError(f"patience: accepts seconds from 0 on, not {patience!r}")
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
            self._conninfo = make_conninfo(**{**_CONNECTION, **given, "client_encoding": "utf8"})
        except psycopg.Error:
            # Without its text, which may show a password.
            raise ConfigError("conninfo: libpq cannot read it") from None
        at = given.get("host", given.get("hostaddr", "localhost"))
        at += f":{given['port']}" if "port" in given else ""
        database = given.get("dbname", given.get("user", ""))
        self._name = f"PostgresStore({at}/{database}, schema {schema})"
        self._schema = schema
        self._patience = float(patience)
        self._connection: Connection | None = None
        self._epoch: int | None = None
        self._seq = 0
        self._last_row: dict[str, int] = {}

    def __repr__(self) -> str:
        return self._name

    def load(self, *, archived: bool = False) -> Loaded:
        """See ``Store.load``.

        Raises:
            StoreLockedError: Another process is connected with this schema.
            StoreFencedError: Another process took it over since the last load.
            StoreVersionError: The tables are of a later release.
            StoreCorruptError: The schema holds something else.
            StoreError: The server cannot be reached or used.
        """
        if self._epoch is None:
            self._open()

        def read(connection: Connection, again: bool) -> Loaded:
            with connection.transaction():
                found = self._head(connection)
                if found != self._seq:
                    raise self._went_back(found, self._seq)
                cursor = connection.execute(
                    "SELECT kind, key, value FROM kv WHERE %s OR NOT starts_with(kind, %s)",
                    (archived, ARCHIVE),
                    binary=True,
                )
                live = [Put(*row) for row in cursor]
            return Loaded(self._seq, live, dict(self._last_row))

        return self._patiently(read)

    def commit(self, seq: int, batch: Sequence[Change]) -> None:
        """See ``Store.commit``.

        Raises:
            StoreFencedError: Another process took the schema over.
            StoreError: A number does not follow, or the server was away for longer than
                ``patience``, or has lost commits.
        """
        if self._epoch is None:
            raise StoreError(f"{self._name} is closed")
        ends = check_follows(self._seq, self._last_row, seq, batch)
        values: dict[tuple[str, str], bytes | None] = {}
        rows: list[Row] = []
        for change in batch:
            if isinstance(change, Row):
                rows.append(change)
            else:
                value = change.value if isinstance(change, Put) else None
                values[change.kind, change.key] = value  # the last one wins

        def write(connection: Connection, again: bool) -> None:
            with connection.pipeline(), connection.transaction():
                # Whoever else would commit, an earlier try of ours included, waits here or is
                # waited for: its end is seen, and not its middle.
                found = self._head(connection)
                if again and found == seq:
                    return  # the answer was lost, not the commit
                if found != seq - 1:
                    raise self._went_back(found, seq - 1)
                _write(connection, values, rows)
                connection.execute("UPDATE head SET seq = %s", (seq,))

        self._patiently(write)
        self._seq = seq
        self._last_row.update(ends)

    def read(self, kind: str, key: str) -> bytes | None:
        """See ``Store.read``."""

        def read(connection: Connection, again: bool) -> bytes | None:
            for query in (
                "SELECT value FROM kv WHERE kind = %s AND key = %s",
                "SELECT value FROM history WHERE kind = %s AND key = %s ORDER BY seq DESC LIMIT 1",
            ):
                found = connection.execute(query, (kind, key), binary=True).fetchone()
                if found is not None:
                    return bytes(found[0])
            return None

        return self._patiently(read)

    def rows(self, kind: str, after: int, limit: int) -> Sequence[Row]:
        """See ``Store.rows``."""
        largest = 2**63 - 1

        def read(connection: Connection, again: bool) -> list[Row]:
            cursor = connection.execute(
                "SELECT kind, seq, key, value FROM history WHERE kind = %s AND seq > %s"
                " ORDER BY seq LIMIT %s",
                (kind, min(after, largest), min(limit, largest)),
                binary=True,
            )
            return [Row(*row) for row in cursor]

        return self._patiently(read)

    def close(self) -> None:
        """See ``Store.close``."""
        self._epoch = None
        self._drop()

    # Connections

    def _connect(self) -> Connection:
        import psycopg

        connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            found = connection.execute(
                "SELECT current_setting('server_encoding'), current_setting('fsync'),"
                " current_setting('synchronous_commit')"
            ).fetchone()
            encoding, fsync, synchronous = found or ("", "", "")
            if encoding != "UTF8":
                raise StoreError(f"{self._name}: the database's encoding must be UTF8")
            if fsync != "on":
                raise StoreError(f"{self._name}: the server has fsync off and forgets commits")
            session = {**_SESSION, "search_path": self._schema}
            if synchronous == "off":
                session["synchronous_commit"] = "on"
            for setting, value in session.items():
                connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> None:
        """Connect, make or migrate the tables, and take the store over."""
        import psycopg

        try:
            self._connection = connection = self._connect()
            self._lock(connection, wait=True)
            with connection.transaction():
                self._prepare(connection)
                found = connection.execute(
                    "UPDATE head SET epoch = epoch + 1 RETURNING epoch, seq"
                ).fetchone()
                if found is None:
                    raise StoreCorruptError(f"{self._name}: its head is missing")
                epoch, self._seq = found
                ends = connection.execute("SELECT kind, max(seq) FROM history GROUP BY kind")
                self._last_row = {str(kind): int(last) for kind, last in ends}
            self._epoch = epoch
        except psycopg.errors.LockNotAvailable as error:
            self._drop()
            raise StoreLockedError(
                f"{self._name} is in use by another process", retryable=True
            ) from error
        except psycopg.Error as error:
            self._drop()
            away = isinstance(error, psycopg.OperationalError)
            raise StoreError(f"{self._name}: {_line(error)}", retryable=away) from error
        except BaseException:
            self._drop()
            raise

    def _lock(self, connection: Connection, *, wait: bool) -> None:
        """Keep other starters out while this connection lives. What protects is the epoch."""
        key = ("ldkjit " + self._schema,)
        if wait:
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", key)
        else:
            connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key)

    def _prepare(self, connection: Connection) -> None:
        import psycopg
        from psycopg import sql

        def one(query: LiteralString, *parameters: str) -> Any:
            found = connection.execute(query, parameters).fetchone()
            return found[0] if found else None

        if not one("SELECT 1 FROM pg_namespace WHERE nspname = %s", self._schema):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema)))
        tables = one("SELECT count(*) FROM pg_tables WHERE schemaname = %s", self._schema)
        if tables == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO head(version, epoch, seq) VALUES (%s, 0, 0)", (self._version,)
            )
            return
        if one("SELECT to_regclass('head')") is None:
            raise StoreCorruptError(f"{self._name}: the schema holds tables of something else")
        try:
            version = int(one("SELECT version FROM head") or 0)
        except psycopg.errors.UndefinedColumn as error:
            text = f"{self._name}: the schema holds tables of something else"
            raise StoreCorruptError(text) from error
        if version > self._version:
            raise StoreVersionError(
                f"{self._name} has version {version}, this release knows versions up to"
                f" {self._version}",
                details={"found": version, "known": self._version},
            )
        for number in range(version, self._version):
            if number not in self._steps:
                raise StoreCorruptError(f"{self._name}: no release wrote version {number}")
            for statement in self._steps[number]:
                connection.execute(statement)
            connection.execute("UPDATE head SET version = %s", (number + 1,))

    def _head(self, connection: Connection) -> int:
        """The number of the last commit, held until the transaction ends."""
        found = connection.execute("SELECT epoch, seq FROM head FOR UPDATE").fetchone()
        if found is None:
            raise StoreCorruptError(f"{self._name}: its head is missing")
        epoch, seq = found
        if epoch != self._epoch:
            raise StoreFencedError(f"{self._name}: epoch {epoch}, this node's is {self._epoch}")
        return int(seq)

    def _went_back(self, found: int, expected: int) -> StoreError:
        return StoreError(
            f"{self._name} has commit {found} where {expected} was durable: the server was set"
            " back, or another one has taken its place"
        )

    def _patiently(self, work: Callable[[Connection, bool], _T]) -> _T:
        """Do it; on a connection that is lost, again on a new one. The flag says that it is."""
        import psycopg

        until = time.monotonic() + self._patience
        pause = 0.05
        again = False
        while True:
            try:
                if self._epoch is None:
                    raise StoreError(f"{self._name} is closed")
                if self._connection is None:
                    self._connection = self._connect()
                    self._lock(self._connection, wait=False)
                done = work(self._connection, again)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._drop()
                if time.monotonic() + pause > until:
                    text = f"{self._name} was away for {self._patience:g} s: {_line(error)}"
                    raise StoreError(text, retryable=True) from error
                if not again:
                    _log.warning("%s is away, trying again: %s", self._name, _line(error))
                again = True
                time.sleep(pause)  # nobody tells when a server is back
                pause = min(_LAST_PAUSE_S, pause * 2)
            except psycopg.Error as error:
                self._drop()
                raise StoreError(f"{self._name}: {_line(error)}") from error
            except BaseException:
                self._drop()
                raise
            else:
                if again:
                    _log.warning("%s is back", self._name)
                return done

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _write(
    connection: Connection, values: dict[tuple[str, str], bytes | None], rows: Sequence[Row]
) -> None:
    """One statement for each sort of change, however many there are."""
    puts = [(kind, key, value) for (kind, key), value in values.items() if value is not None]
    gone = [at for at, value in values.items() if value is None]
    if puts:
        connection.execute(
            "INSERT INTO kv(kind, key, value)"
            " SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[])"
            " ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            [list(column) for column in zip(*puts, strict=True)],
        )
    if gone:
        connection.execute(
            "DELETE FROM kv USING unnest(%b::text[], %b::text[]) AS gone(kind, key)"
            " WHERE kv.kind = gone.kind AND kv.key = gone.key",
            [list(column) for column in zip(*gone, strict=True)],
        )
    if rows:
        connection.execute(
            "INSERT INTO history(kind, seq, key, value)"
            " SELECT * FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[])",
            [
                [row.kind for row in rows],
                [row.seq for row in rows],
                [row.key for row in rows],
                [row.value for row in rows],
            ],
        )


def _line(error: Exception) -> str:
    """What a driver says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
