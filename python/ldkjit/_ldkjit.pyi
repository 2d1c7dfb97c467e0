"""The native module. Private: nothing here is stable; see docs/design/0002-interfaces.md."""

from collections.abc import Mapping, Sequence
from typing import Any, final

__all__ = [
    "History",
    "Native",
    "Regtest",
    "Seen",
    "StoreDoor",
    "backup",
    "copy_store",
    "ledger_check",
    "opening_fee",
    "parse",
    "report",
    "restore",
    "verify_webhook",
    "version",
    "views",
]

@final
class Native:
    """One node's bridge: calls go in as JSON, answers are drained in batches."""

    def __new__(cls) -> Native: ...
    def fileno(self) -> int:
        """A descriptor that is readable when ``drain`` has something."""

    def call(self, id: int, method: str, params: str) -> None:
        """Start a method with JSON parameters; never blocks."""

    def use_store(self, door: StoreDoor) -> None:
        """Keep everything in a store of Python's; before the start."""

    def cancel(self, id: int) -> None:
        """Forget the answer. What moves money is not undone."""

    def drain(self) -> list[tuple[int, int, str]]:
        """All that is there, and a batch of log records: (kind, id, JSON).

        Kinds: 0 result, 1 error, 2 log record, 3 question to a hook, 4 question given up.
        """

    def question_fileno(self) -> int:
        """A descriptor that is readable when ``question`` has something, and at the end."""

    def question(self) -> tuple[int, str] | None:
        """The next question for the thread of the hooks: id and JSON."""

    def answer(self, id: int, body: str) -> None:
        """Answer a question, from any thread."""

    def close(self) -> None:
        """End every thread, in bounded time; may be called again."""

@final
class StoreDoor:
    """Where a node and a store of Python's meet: the store's thread takes and answers."""

    def __new__(cls) -> StoreDoor: ...
    def fileno(self) -> int:
        """One byte can be read there for each ``take``."""

    def take(self) -> tuple[Any, ...] | None:
        """What is asked: its name and arguments; None when nobody will ask any more."""

    def loaded(
        self, seq: int, live: Sequence[tuple[str, str, bytes]], last_row: Mapping[str, int]
    ) -> None:
        """Answer ``load``."""

    def value(self, value: bytes | None) -> None:
        """Answer ``read``."""

    def rows(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        """Answer ``rows``."""

    def done(self) -> None:
        """Answer ``commit`` and ``close``."""

    def failed(self, code: str, why: str, found: int | None, known: int | None) -> None:
        """Answer anything with an error."""

    def close(self) -> None:
        """Nobody asks any more, and whoever waits for an answer has an error."""

@final
class Regtest:
    """A regtest in this process that answers as a bitcoind does, until stopped or forgotten."""

    def __new__(cls, user: str, password: str) -> Regtest: ...
    @property
    def port(self) -> int:
        """On 127.0.0.1."""

    def stop(self) -> None:
        """End it; may be called again."""

@final
class Seen:
    """Notifications seen of late, so that none is believed twice."""

    def __new__(cls) -> Seen: ...

def verify_webhook(
    body: bytes,
    timestamp: str,
    signature: str,
    lsp: str,
    recipient: str,
    window_ms: int,
    now_ms: int,
    seen: Seen | None,
) -> tuple[bool, str]:
    """Check a notification: whether it is this LSP's; what it says or the error, as JSON."""

@final
class History:
    """The rows of a history, read ahead by a thread of their own."""

    def __new__(cls, data_dir: str, ask: str) -> History: ...
    def page(self) -> tuple[bool, str]:
        """Whether it went well; the next rows or the error, as JSON. No rows at the end."""

def report(data_dir: str, ask: str) -> tuple[bool, str]:
    """Add up the ledger in a data directory: whether there is a report; it or the error."""

def views() -> str:
    """The SQL that makes the views."""

def opening_fee(size_msat: int, min_fee_msat: int, proportional_ppm: int) -> int | None:
    """The opening fee of a payment, msat; None if it overflows."""

def parse(text: str) -> tuple[bool, str]:
    """Read what a person pastes or scans: whether it can be paid; what it is or the error."""

def version() -> str:
    """The version of the Rust side."""

def backup(data_dir: str, file: str) -> tuple[bool, str]:
    """Write a node into one file: whether it was done; what is in it or the error, as JSON."""

def restore(file: str, data_dir: str) -> tuple[bool, str]:
    """Make a node of a backup: whether it was done; what is in it or the error, as JSON."""

def ledger_check(data_dir: str) -> tuple[bool, str]:
    """Check the ledger in a data directory: whether there is a verdict; it or the error."""

def copy_store(source: StoreDoor | str, target: StoreDoor | str) -> tuple[bool, str]:
    """Move a node from one store to another: whether it was done; what was moved or the error."""
