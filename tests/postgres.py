"""A PostgreSQL server of the tests' own, and a proxy before it that cuts when it is asked."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from ldkjit.sandbox import free_ports

_START_S = 30.0


class NoPostgresError(Exception):
    """The server's programs are not installed."""


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``, the newest if there are several.

    Raises:
        NoPostgresError: There is none.
    """
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[-3])
    )
    if found and found[-1].with_name("postgres").exists():
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path and Path(on_path).resolve().with_name("postgres").exists():
        return Path(on_path).resolve().parent
    raise NoPostgresError("PostgreSQL's server is missing: apt-get install postgresql")


class Server:
    """One cluster in a temporary folder, with fsync on, as it is made.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self) -> None:
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="ldkjit-postgres-"))
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        # It refuses to run as root.
        self._user: str | None = None
        if os.getuid() == 0:
            names = {each.pw_name for each in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)

    def conninfo(self, port: int | None = None) -> str:
        """How to connect; by another port, through a proxy."""
        return f"postgresql://ldkjit@127.0.0.1:{port or self.port}/postgres"

    def create(self) -> None:
        """Make the cluster."""
        options = ("-A", "trust", "-U", "ldkjit", "-E", "UTF8", "--locale", "C", "--no-sync")
        subprocess.run(
            [self._programs / "initdb", "-D", self._folder / "data", *options],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        until = time.monotonic() + _START_S
        while True:
            if self._process is None or self._process.poll() is not None:
                # After a kill its last children may still hold its memory: then it ends at once.
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        [
                            *(self._programs / "postgres", "-D", self._folder / "data"),
                            *("-p", str(self.port), "-k", str(self._folder)),
                            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=50"),
                        ],
                        stdout=log,
                        stderr=log,
                        user=self._user,
                        cwd=self._folder,
                    )
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.conninfo(), connect_timeout=2).close()
                return
            if time.monotonic() > until:
                raise TimeoutError((self._folder / "log").read_text()[-2_000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(2)  # SIGINT: at once, and in order
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> str:
        """What a program of PostgreSQL's, such as ``psql`` or ``pg_dump``, prints."""
        done = subprocess.run(
            [self._programs / program, "-d", self.conninfo(), *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """The answer to a query."""
        with psycopg.connect(self.conninfo(), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that runs, until the end."""
    made = Server()
    try:
        made.create()
        made.start()
        yield made
    finally:
        made.stop()


class Proxy:
    """Passes connections on to a server, and cuts one at a COMMIT when it is told to.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        cuts: How often it has cut.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._arms: list[str] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._refusing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next(self, *when: str) -> None:
        """Cut the next connections that send a COMMIT, one for each word.

        ``before``: it does not reach the server. ``sent``: it does, and nobody waits for more.
        ``answered``: the server has answered, and the answer goes nowhere.
        """
        self._arms += when

    def refuse(self, refusing: bool = True) -> None:
        """Cut everything and let nobody in, or let everybody in again."""
        with self._lock:
            self._refusing = refusing
            connections = list(self._open) if refusing else []
        for each in connections:
            _hang_up(each)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            with self._lock:
                if self._refusing:
                    return
                upstream = socket.create_connection(("127.0.0.1", self._to))
                both = {client, upstream}
                self._open |= both
            try:
                with upstream:
                    self._pass(client, upstream)
            finally:
                with self._lock:
                    self._open -= both

    def _pass(self, client: socket.socket, upstream: socket.socket) -> None:
        waits = False
        while True:
            ready, _, _ = select.select([client, upstream], [], [])
            for source in ready:
                data = source.recv(1 << 16)
                if not data or (waits and source is upstream and b"COMMIT" in data):
                    return
                if source is upstream:
                    client.sendall(data)
                    continue
                when = self._arms.pop(0) if b"COMMIT" in data and self._arms else None
                self.cuts += when is not None
                if when == "before":
                    return
                upstream.sendall(data)
                if when == "sent":
                    return
                waits = waits or when == "answered"


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
