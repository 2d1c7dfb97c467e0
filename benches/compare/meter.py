"""What a process costs: CPU time, memory, bytes written; and its fsyncs, which strace counts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Reading:
    """A process at one moment.

    Attributes:
        cpu_s: CPU seconds it has had, in user and kernel, of all its threads.
        wrote: Bytes it has had written to storage.
        rss_kb: Resident memory, with what it shares: the load's process has ldkjit's library too,
            and would bear half of it.
    """

    cpu_s: float
    wrote: int
    rss_kb: int


def read(pid: int) -> Reading:
    """Read it from /proc."""
    folder = Path("/proc") / str(pid)
    return Reading(
        cpu_s=cpu_s(pid),
        wrote=_number(folder / "io", "write_bytes"),
        rss_kb=_number(folder / "smaps_rollup", "Rss"),
    )


def cpu_s(pid: int) -> float:
    """Its CPU time alone, which costs less to read than the rest."""
    # After the name, which may have spaces: state is field 3, utime 14, stime 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _number(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+)", file.read_text(), re.MULTILINE)
    assert found is not None, f"{file} has no {name}"
    return int(found[1])


class Fsyncs:
    """How often a process made files durable. ``count`` is valid at the end.

    Attributes:
        count: Calls of fsync and fdatasync.
    """

    count = 0


@contextlib.asynccontextmanager
async def fsyncs(pid: int) -> AsyncGenerator[Fsyncs, None]:
    """Count a process's fsyncs. It is slower meanwhile: never in a round whose times count."""
    told = Fsyncs()
    with tempfile.NamedTemporaryFile(prefix="ldkjit-strace-") as out:
        trace = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", out.name, "-p", str(pid)),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert trace.stderr is not None
        said = await trace.stderr.readline()
        if b"attached" not in said:
            raise RuntimeError(f"strace: {said.decode().strip()}")
        try:
            yield told
        finally:
            trace.send_signal(signal.SIGINT)
            await trace.stderr.read()
            await trace.wait()
        out.seek(0)
        table = out.read().decode()
    # "% time  seconds  usecs/call  calls  [errors]  syscall"
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*(?:fsync|fdatasync)$", table, re.M)
    told.count = sum(map(int, rows))
