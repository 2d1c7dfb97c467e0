"""PostgreSQL with its connection cut, its server killed, its tables taken over or migrated."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from postgres import Proxy, Server

from ldkjit import (
    ConfigError,
    StoreCorruptError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    StoreVersionError,
)
from ldkjit.storage import Delete, Loaded, PostgresStore, Put, Row
from ldkjit.storage.postgres import _SESSION

DUMPS = Path(__file__).parent / "dumps"
ENDS = ("before", "sent", "answered")


def contents(store: PostgresStore) -> tuple[int, list[Put], list[Row]]:
    loaded = store.load(archived=True)
    live = sorted(loaded.live, key=lambda each: (each.kind, each.key))
    return loaded.seq, live, list(store.rows("event", 0, 10_000))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("when", ENDS)
def test_a_commit_whose_answer_is_lost_is_applied_once(
    postgres: Server, proxy: Proxy, schema: str, when: str, times: int
) -> None:
    store = PostgresStore(postgres.conninfo(proxy.port), schema=schema)
    store.load()
    for seq in range(1, 6):
        if seq == 3:
            proxy.cut_next(*[when] * times)
        store.commit(seq, [Put("k", str(seq), b"v"), Row("event", seq, "", b"e")])
    assert proxy.cuts == times if when == "before" else proxy.cuts >= 1
    seen = contents(store)
    assert seen[0] == 5
    assert [row.seq for row in seen[2]] == [1, 2, 3, 4, 5]
    store.close()
    # No backend of a cut connection changes anything any more.
    again = PostgresStore(postgres.conninfo(), schema=schema)
    assert contents(again) == seen
    again.close()


def test_random_cuts_leave_every_commit_once(postgres: Server, proxy: Proxy, schema: str) -> None:
    store = PostgresStore(postgres.conninfo(proxy.port), schema=schema)
    store.load()
    for seq in range(1, 61):
        if seq % 3 == 0:
            proxy.cut_next(ENDS[seq // 3 % 3])
        store.commit(
            seq, [Delete("k", "x"), Put("k", "n", b"%d" % seq), Row("event", seq, "", b"")]
        )
    assert proxy.cuts >= 20
    assert store.read("k", "n") == b"60"
    assert len(store.rows("event", 0, 100)) == 60
    store.close()


def test_a_server_that_is_killed_and_started_again_is_waited_for(
    own_postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    own = own_postgres
    store = PostgresStore(own.conninfo())
    store.load()
    seq = 0
    for _ in range(3):
        for _ in range(20):
            seq += 1
            store.commit(seq, [Row("event", seq, "", bytes(1_000))])
        own.kill()
        back = threading.Timer(0.5, own.start)
        back.start()
        seq += 1
        store.commit(seq, [Row("event", seq, "", b"")])
        back.join()
    assert contents(store)[0] == seq
    assert len(store.rows("event", 0, 1_000)) == seq
    store.close()
    told = [record for record in caplog.records if record.name == "ldkjit.store"]
    assert {record.levelno for record in told} == {logging.WARNING}
    assert all("PostgresStore(127.0.0.1" in record.getMessage() for record in told)


def test_a_server_that_stays_away_is_an_error_in_time(
    postgres: Server, proxy: Proxy, schema: str
) -> None:
    store = PostgresStore(postgres.conninfo(proxy.port), schema=schema, patience=0.3)
    store.load()
    proxy.refuse()
    with pytest.raises(StoreError, match=r"PostgresStore\(.*\) was away for 0.3 s") as raised:
        store.commit(1, [Put("k", "a", b"")])
    assert raised.value.retryable
    proxy.refuse(False)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.commit(1, [])
    assert store.load() == Loaded(0, [], {})
    store.close()


def test_two_are_refused_and_one_that_was_cut_off_is_fenced(
    postgres: Server, proxy: Proxy, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_SESSION, "lock_timeout", "200ms")
    first = PostgresStore(postgres.conninfo(proxy.port), schema=schema)
    first.load()
    first.commit(1, [Put("k", "a", b"1")])
    second = PostgresStore(postgres.conninfo(), schema=schema)
    with pytest.raises(StoreLockedError, match="in use"):
        second.load()
    proxy.refuse()
    assert second.load().seq == 1
    second.commit(2, [Put("k", "a", b"2")])
    proxy.refuse(False)
    # Whatever it tries: its epoch is over.
    for _ in range(2):
        with pytest.raises(StoreFencedError, match="epoch 2, this node's is 1"):
            first.commit(2, [Put("k", "a", b"1")])
    with pytest.raises(StoreFencedError):
        first.load()
    assert second.read("k", "a") == b"2"
    first.close()
    second.close()


def test_a_server_that_was_set_back_is_noticed(postgres: Server, schema: str) -> None:
    store = PostgresStore(postgres.conninfo(), schema=schema)
    store.load()
    for seq in (1, 2, 3):
        store.commit(seq, [])
    postgres.ask(f"UPDATE {schema}.head SET seq = 1")
    with pytest.raises(StoreError, match="commit 1 where 3 was durable"):
        store.commit(4, [])
    store.close()


def test_one_transaction_or_nothing(postgres: Server, schema: str) -> None:
    store = PostgresStore(postgres.conninfo(), schema=schema)
    store.load()
    store.commit(1, [Put("k", "a", b"1")])
    postgres.ask(f"ALTER TABLE {schema}.history ADD CHECK (key <> 'bad')")
    with pytest.raises(StoreError, match="history"):
        store.commit(2, [Put("k", "a", b"2"), Row("event", 1, "bad", b"")])
    assert store.read("k", "a") == b"1"
    store.commit(2, [Put("k", "a", b"2")])
    assert contents(store) == (2, [Put("k", "a", b"2")], [])
    store.close()


# Versions


class Later(PostgresStore):
    """The release after next."""

    _version = 3
    _steps: ClassVar = {
        1: ("ALTER TABLE kv ADD COLUMN note text", "UPDATE kv SET note = 'old'"),
        2: ("ALTER TABLE kv RENAME COLUMN note TO remark",),
    }


class Broken(PostgresStore):
    _version = 2
    _steps: ClassVar = {1: ("ALTER TABLE kv ADD COLUMN note text", "SELECT 1/0")}


def load_dump(postgres: Server, version: int, schema: str) -> None:
    text = (DUMPS / f"postgres-{version}.sql").read_text().replace("ldkjit_dump", schema)
    postgres.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", text)


def test_every_version_has_a_dump_and_this_release_opens_it(postgres: Server, schema: str) -> None:
    for version in range(1, PostgresStore._version + 1):
        own = f"{schema}_{version}"
        load_dump(postgres, version, own)
        store = PostgresStore(postgres.conninfo(), schema=own)
        assert contents(store) == (
            2,
            [Put("archive/k", "z", b"old"), Put("k", "a'\N{CRAB}", bytes(range(256)))],
            [Row("event", 1, "x", b"\x00e1"), Row("event", 2, "", b"")],
        )
        store.commit(3, [Row("event", 3, "", b"")])
        store.close()
        assert postgres.ask(f"SELECT version FROM {own}.head") == [(PostgresStore._version,)]


def test_an_older_version_is_migrated_and_a_later_one_refused(
    postgres: Server, schema: str
) -> None:
    load_dump(postgres, 1, schema)
    store = PostgresStore(postgres.conninfo(), schema=schema)
    before = contents(store)
    store.close()
    later = Later(postgres.conninfo(), schema=schema)
    assert contents(later) == before
    later.commit(3, [])
    later.close()
    assert postgres.ask(f"SELECT DISTINCT remark FROM {schema}.kv") == [("old",)]
    with pytest.raises(StoreVersionError, match="version 3, this release knows") as raised:
        store.load()
    assert raised.value.details == {"found": 3, "known": 1}


def test_a_migration_that_fails_changes_nothing(postgres: Server, schema: str) -> None:
    load_dump(postgres, 1, schema)
    with pytest.raises(StoreError, match=r"PostgresStore\(.*division by zero"):
        Broken(postgres.conninfo(), schema=schema).load()
    store = PostgresStore(postgres.conninfo(), schema=schema)
    assert store.load().seq == 2
    store.close()
    assert postgres.ask(
        f"SELECT count(*) FROM information_schema.columns WHERE table_schema = '{schema}'"
        " AND column_name = 'note'"
    ) == [(0,)]


# What cannot be used


def test_a_schema_of_something_else_is_left_alone(postgres: Server, schema: str) -> None:
    postgres.ask(f"CREATE SCHEMA {schema}")
    postgres.ask(f"CREATE TABLE {schema}.kv(x int)")
    store = PostgresStore(postgres.conninfo(), schema=schema)
    with pytest.raises(StoreCorruptError, match="something else"):
        store.load()
    postgres.ask(f"CREATE TABLE {schema}.head(x int)")
    with pytest.raises(StoreCorruptError, match="something else"):
        store.load()


def test_what_cannot_be_reached_or_used_is_told_without_the_password(postgres: Server) -> None:
    with pytest.raises(StoreError, match=r"PostgresStore\(127.0.0.1:1/db") as raised:
        PostgresStore("postgresql://me:hidden@127.0.0.1:1/db").load()
    assert raised.value.retryable
    assert "hidden" not in str(raised.value)
    assert "hidden" not in repr(PostgresStore("host=h password=hidden dbname=d"))
    postgres.ask("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreError, match="UTF8"):
        PostgresStore(f"{postgres.conninfo()[:-8]}latin").load()
    for bad in ({"schema": "No; DROP"}, {"patience": -1.0}, {"patience": float("nan")}):
        with pytest.raises(ConfigError):
            PostgresStore(postgres.conninfo(), **bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="libpq") as refused:
        PostgresStore("postgresql://me:hidden@[broken")
    assert "hidden" not in str(refused.value)


def test_a_server_that_forgets_is_refused(own_postgres: Server) -> None:
    own = own_postgres
    own.ask("ALTER SYSTEM SET fsync = off")
    own.ask("SELECT pg_reload_conf()")
    with pytest.raises(StoreError, match="fsync off"):
        PostgresStore(own.conninfo()).load()
    own.ask("ALTER SYSTEM RESET fsync")
    own.ask("ALTER SYSTEM SET synchronous_commit = off")
    own.ask("SELECT pg_reload_conf()")
    store = PostgresStore(own.conninfo())
    store.load()
    assert store._connection is not None
    found = store._connection.execute("SHOW synchronous_commit").fetchone()
    assert found == ("on",)
    store.close()


def test_importing_ldkjit_loads_no_driver() -> None:
    code = "import sys, ldkjit, ldkjit.storage; assert 'psycopg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
