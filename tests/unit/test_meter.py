"""What a process costs is read right: of a process whose cost is known."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from compare import meter

# Works for 0.3 s of CPU time, then makes a file durable for each line it hears, in another thread.
PROGRAM = """
import os, sys, threading, time
while time.process_time() < 0.3:
    pass
print("worked", flush=True)
def serve():
    for line in sys.stdin:
        descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
        os.close(descriptor)
        print("durable", flush=True)
thread = threading.Thread(target=serve)
thread.start()
thread.join()
"""


@contextlib.asynccontextmanager
async def worker(tmp_path: Path) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(tmp_path / "file")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"worked\n"
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # pipes, before the loop ends


async def make_durable(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"line\n")
    assert await process.stdout.readline() == b"durable\n"


async def test_cpu_time_and_memory(tmp_path: Path) -> None:
    async with worker(tmp_path) as process:
        reading = meter.read(process.pid)
    assert 0.28 <= reading.cpu_s < 5
    assert 1_000 < reading.rss_kb < 1_000_000


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_fsyncs_of_every_thread_are_counted(tmp_path: Path) -> None:
    async with worker(tmp_path) as process:
        await make_durable(process)
        try:
            async with meter.fsyncs(process.pid) as counted:
                for _ in range(3):
                    await make_durable(process)
        except RuntimeError as error:
            pytest.skip(str(error))  # not everywhere may a process be traced
        await make_durable(process)
    assert counted.count == 3
