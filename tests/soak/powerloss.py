"""Plays a power cut: after a kill, what was written and not synced is lost, all of it or some."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

LIES = "lies"
# As powerloss.c writes it: kind, offset, size before, bytes before, bytes after.
_RECORD = struct.Struct("<cQQII")


def build(folder: Path) -> Path:
    """Compile the library that is preloaded into the nodes."""
    library = folder / "powerloss.so"
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("cc, a C compiler, is needed to play power cuts")
    source = Path(__file__).with_name("powerloss.c")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        check=True,
    )
    return library


def environment(library: Path, data: Path, log: Path) -> dict[str, str]:
    """What the process of a node is started with, so that its unsynced writes are known."""
    log.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "POWERLOSS_DIR": str(data),
        "POWERLOSS_LOG": str(log),
    }


def lie(log: Path) -> None:
    """From now on nothing is synced, whatever the node is told: SQLite's `synchronous` is off."""
    (log / LIES).touch()


def cut(data: Path, log: Path, rng: random.Random) -> int:
    """Take back what was not synced; return how many writes.

    A disk may have kept any of them, in any order: half of the cuts lose all, the others a part.
    """
    files = {path.stat().st_ino: path for path in data.rglob("*") if path.is_file()}
    lost = 0
    keep = 0.0 if rng.random() < 0.5 else rng.random()
    for journal in log.glob("[0-9]*"):
        raw = journal.read_bytes()
        journal.unlink()
        path = files.get(int(journal.name))
        if path is None or not raw:
            continue
        records: list[tuple[bytes, int, int, bytes, bytes]] = []
        at = 0
        while at + _RECORD.size <= len(raw):
            kind, offset, size, before, after = _RECORD.unpack_from(raw, at)
            start = at + _RECORD.size
            at = start + before + after
            if at > len(raw):
                break  # Killed while it was written: the write itself had not begun.
            middle = start + before
            records.append((kind, offset, size, raw[start:middle], raw[middle:at]))
        with path.open("r+b") as file:
            for _, offset, size, before_bytes, _ in reversed(records):
                file.seek(offset)
                file.write(before_bytes)
                file.truncate(size)
            for kind, offset, _, _, after_bytes in records:
                if rng.random() >= keep:
                    lost += 1
                elif kind == b"t":
                    file.truncate(offset)
                else:
                    file.seek(offset)
                    file.write(after_bytes)
    return lost
