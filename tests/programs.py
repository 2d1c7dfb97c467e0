"""Python programs that tests run in processes of their own and talk with, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path

from ldkjit.sandbox import Sandbox

# Nothing waits longer for a program that should end by itself: far above what it takes.
END_S = 20.0

# The beginning of every program; ``main`` and its run are added.
HEAD = """
import asyncio, contextlib, os, signal, sys, time
from pathlib import Path
from ldkjit import *
from ldkjit.sandbox import until

URL, USER, PASSWORD, FOLDER = sys.argv[1:5]
# A shell that runs the tests in the background leaves it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def node(name, **settings):
    return Node(NodeConfig(
        network="regtest", data_dir=Path(FOLDER) / name, listen=["127.0.0.1:0"],
        chain=Bitcoind(URL, user=USER, password=PASSWORD, poll_ms=50),
        fee_fallback_sat_per_kw=500, accept_channels=True, **settings))

def threads():
    seen = set()
    for each in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            seen.add((Path("/proc/self/task") / each / "comm").read_text() + each)
    return seen

async def as_before(before):
    end = time.monotonic() + 20
    while threads() - before:
        assert time.monotonic() < end, f"threads left: {threads() - before}"
        await asyncio.sleep(0.02)

def say(*words):
    # At once: threads may speak too.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def told():
    # What the test tells next. No thread waits for it, which would hold up the exit.
    loop = asyncio.get_running_loop()
    here = loop.create_future()
    loop.add_reader(0, lambda: here.done() or here.set_result(None))
    try:
        await here
    finally:
        loop.remove_reader(0)
    return os.read(0, 65536).decode().strip()
"""

# All that Python itself writes when Ctrl-C ends ``asyncio.run``.
_INTERRUPT = re.compile(
    r"\s.*|Traceback \(most recent call last\):|asyncio\.exceptions\.CancelledError|"
    r"During handling of the above exception, another exception occurred:|KeyboardInterrupt|"
)


class Program:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, timeout: float = 30.0) -> str:
        """The next line the program says."""
        assert self.process.stdout is not None
        read = await asyncio.wait_for(self.process.stdout.readline(), timeout)
        if not read:
            code, errors, _ = await self._end()
            raise AssertionError(f"the program ended with {code}:\n{errors}")
        return read.decode().strip()

    async def says(self, *lines: str) -> None:
        """Check what the program says next."""
        for expected in lines:
            said = await self.line()
            assert said == expected, f"said {said!r}, expected {expected!r}"

    async def says_at_last(self, wanted: str) -> None:
        """Wait for a line, past others."""
        while await self.line() != wanted:
            pass

    def tell(self, text: str) -> None:
        """Give ``told`` its answer; a second one only after the program has said something."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")

    async def ends(self, code: int = 0) -> None:
        """Check that the program ends by itself, with this code and without complaint."""
        ended, errors, seconds = await self._end()
        assert (ended, errors) == (code, ""), (ended, errors)
        assert seconds < END_S

    async def is_interrupted(self, *lines: str) -> None:
        """Press Ctrl-C; check that the program says these lines and ends as Python does."""
        self.process.send_signal(signal.SIGINT)
        for expected in lines:
            said = await self.line(10)
            assert said == expected, f"said {said!r}, expected {expected!r}"
        code, errors, seconds = await self._end()
        assert code == -signal.SIGINT, errors
        told = errors.splitlines()
        assert told[-1:] == ["KeyboardInterrupt"]
        assert [each for each in told if not _INTERRUPT.fullmatch(each)] == []
        assert seconds < END_S

    async def _end(self, timeout: float = 15.0) -> tuple[int, str, float]:
        """Wait for the exit: (code, what it wrote to stderr, seconds waited)."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert self.process.stderr is not None
        errors = await asyncio.wait_for(self.process.stderr.read(), timeout)
        code = await asyncio.wait_for(self.process.wait(), timeout)
        return code, errors.decode(), loop.time() - began


@contextlib.asynccontextmanager
async def program(
    box: Sandbox, folder: Path, body: str, *, after: str = ""
) -> AsyncGenerator[Program, None]:
    """Run a program, with every warning an error; it is killed if the test leaves it running.

    Args:
        box: The chain that its nodes follow.
        folder: Where ``node(name)`` keeps its data.
        body: What ``async def main()`` does; ``HEAD`` names what there is.
        after: What is run after ``main``.
    """
    # A tenth of a second, which is told on stderr, passes on a busy machine by nobody's fault.
    patient = "    asyncio.get_running_loop().slow_callback_duration = 2.0\n"
    main = "\nasync def main():\n" + patient + textwrap.indent(textwrap.dedent(body), "    ")
    text = HEAD + main + "\n\nasyncio.run(main())\n" + after
    rpc = box.chain.rpc
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", text),
        *(rpc.url, rpc.user, rpc.password, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # pipes, before the loop ends


async def runs(
    box: Sandbox, folder: Path, body: str, *lines: str, code: int = 0, after: str = ""
) -> None:
    """Run a program to its end; check what it says, and its exit code."""
    async with program(box, folder, body, after=after) as running:
        await running.says(*lines)
        await running.ends(code)


@contextlib.asynccontextmanager
async def moved(box: Sandbox, name: str, body: str) -> AsyncGenerator[Program, None]:
    """Stop a node of the sandbox and run it in a program, until the program ends.

    The program says ``up`` when ``here`` is started, then what ``body`` says, and ``clean`` when
    the node is stopped and no thread of it is left.
    """
    node = box.nodes[name]
    await node.stop()
    text = f"""
before = threads()
try:
    async with Node(NodeConfig.model_validate_json(await told())) as here:
        say("up")
{textwrap.indent(textwrap.dedent(body), "        ")}
finally:
    await as_before(before)
    say("clean")
"""
    async with program(box, node.config.data_dir, text) as running:
        running.tell(node.config.model_dump_json())
        await running.says("up")
        yield running
