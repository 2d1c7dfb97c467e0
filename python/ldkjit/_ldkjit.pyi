"""The native module. Private: nothing here is stable; see docs/design/0002-interfaces.md."""

from typing import final

__all__ = [
    "History",
    "Native",
    "Seen",
    "backup",
    "ledger_check",
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

    def cancel(self, id: int) -> None:
        """Forget the answer. What moves money is not undone."""

    def drain(self) -> list[tuple[int, int, str]]:
        """All answers, and a batch of log records: (0 result, 1 error, 2 record; id; JSON)."""

    def close(self) -> None:
        """End every thread, in bounded time; may be called again."""

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

def version() -> str:
    """The version of the Rust side."""

def backup(data_dir: str, file: str) -> tuple[bool, str]:
    """Write a node into one file: whether it was done; what is in it or the error, as JSON."""

def restore(file: str, data_dir: str) -> tuple[bool, str]:
    """Make a node of a backup: whether it was done; what is in it or the error, as JSON."""

def ledger_check(data_dir: str) -> tuple[bool, str]:
    """Check the ledger in a data directory: whether there is a verdict; it or the error."""
