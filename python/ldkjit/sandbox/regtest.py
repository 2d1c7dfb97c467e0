"""One bitcoind process on its own regtest chain, which never outlives its Python."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from .bitcoind import find_bitcoind
from .rpc import Rpc, RpcError

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 10.0
START_ATTEMPTS = 5
# Coinbase outputs can be spent after this many blocks.
COINBASE_MATURITY = 100

# The shell holds the read end of a pipe whose other end only this Python has: however Python
# ends, kill -9 included, the pipe breaks and the shell stops bitcoind. No preexec_fn, no thread.
WATCHED = """
exec 3<&0
"$@" 3<&- </dev/null &
child=$!
{ read -r _ <&3; kill "$child"; } &
watch=$!
exec 3<&-
wait "$child"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""


class BitcoindStartError(Exception):
    """bitcoind did not start; the message holds the end of what it said."""


class Regtest:
    """A bitcoind on regtest with a funded wallet of its own, in a temporary folder.

    Use it as ``async with Regtest() as chain:``. The folder is deleted at the end, unless the
    body failed: then it is kept and logged.

    Args:
        program: The bitcoind to run; by default the one ``find_bitcoind`` finds.
        extra: More command-line flags.

    Attributes:
        kind: ``bitcoind``.
        rpc: The client to call it with; valid once started.
        folder: Its data folder.
        zmq_block: ZMQ address on which raw blocks are published.
        zmq_tx: ZMQ address on which raw transactions are published.
    """

    kind = "bitcoind"
    rpc: Rpc
    folder: Path
    zmq_block: str
    zmq_tx: str

    def __init__(self, program: Path | None = None, extra: tuple[str, ...] = ()) -> None:
        self._program = program
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._miner: str | None = None

    async def __aenter__(self) -> Regtest:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop(keep=kind is not None)

    async def start(self) -> None:
        """Start on a fresh chain, with a wallet and 101 blocks, so that coins can be spent.

        Raises:
            BitcoindNotFoundError: There is no bitcoind to run.
            BitcoindStartError: It ended or did not answer within a minute.
        """
        program, policy = await asyncio.to_thread(choose, self._program)
        self.folder = Path(tempfile.mkdtemp(prefix="ldkjit-regtest-"))
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                await self._launch(program, policy)
                break
            except BitcoindStartError as error:
                await self._kill()
                # Another program took a port between our look and bitcoind's bind: try others.
                if attempt == START_ATTEMPTS or "bind" not in str(error).lower():
                    raise
            except BaseException:
                await self._kill()
                raise
        await self._make_coins()

    async def _make_coins(self) -> None:
        await self.rpc.call("createwallet", "miner")
        self._miner = str(await self.rpc.call("getnewaddress"))
        await self.mine(COINBASE_MATURITY + 1)

    async def _launch(self, program: Path, policy: tuple[str, ...]) -> None:
        rpc_port, block_port, tx_port = free_ports(3)
        self.rpc = Rpc(rpc_port, "ldkjit", secrets.token_hex(16))
        self.zmq_block = f"tcp://127.0.0.1:{block_port}"
        self.zmq_tx = f"tcp://127.0.0.1:{tx_port}"
        await self._run(program, policy)

    async def _run(self, program: Path, policy: tuple[str, ...]) -> None:
        flags = [
            "-regtest",
            f"-datadir={self.folder}",
            "-server=1",
            "-txindex=1",
            "-listen=0",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            "-natpmp=0",
            "-listenonion=0",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            f"-rpcport={self.rpc.port}",
            f"-rpcuser={self.rpc.user}",
            f"-rpcpassword={self.rpc.password}",
            f"-zmqpubrawblock={self.zmq_block}",
            f"-zmqpubrawtx={self.zmq_tx}",
            "-fallbackfee=0.0002",
            "-printtoconsole=0",
            *policy,
            *self._extra,
        ]
        with (self.folder / "stderr.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (a fork and exec: milliseconds)
                ["/bin/sh", "-c", WATCHED, "sh", str(program), *flags],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for Python, which then stops it in order
            )
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                raise BitcoindStartError(f"bitcoind ended at once:\n{self._last_words()}")
            try:
                await self.rpc.call("getblockchaininfo", timeout_s=5)
                return
            except (OSError, RpcError) as error:
                if time.monotonic() > end:
                    raise BitcoindStartError(
                        f"no answer in {START_TIMEOUT_S:.0f} s: {error}\n{self._last_words()}"
                    ) from error
            await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        said = (self.folder / "stderr.log").read_text(errors="replace").strip()
        return said[-2000:] or f"nothing on stderr; see {self.folder}/regtest/debug.log"

    async def mine(self, blocks: int = 1, address: str | None = None) -> int:
        """Mine blocks, to the miner's wallet unless an address is given; return the height."""
        await self.rpc.mine(blocks, address or str(self._miner))
        return await self.rpc.height()

    async def fund(self, address: str, amount_sat: int) -> str:
        """Send coins to an address from the miner's wallet and mine one block; return the txid."""
        txid = await self.rpc.fund(address, amount_sat)
        await self.mine(1)
        return txid

    async def stop(self, *, keep: bool = False) -> None:
        """Stop it and delete its folder, or keep the folder (logs included) for inspection."""
        if self._process is None:
            return
        with contextlib.suppress(OSError, RpcError):
            await self.rpc.call("stop", timeout_s=5)
        await ended(self._process, STOP_TIMEOUT_S)
        await self._kill()
        self._leave_folder(keep)

    def _leave_folder(self, keep: bool) -> None:
        if keep:
            _log.warning("kept for inspection: %s", self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _kill(self) -> None:
        """End what is left: break the pipe, which is a request; then kill our process group."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        if not await ended(process, KILL_TIMEOUT_S):
            # The group is the session started for it, and its leader is not yet reaped.
            os.killpg(process.pid, signal.SIGKILL)
            await ended(process, KILL_TIMEOUT_S)


def choose(program: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The program, and the flags that only some bitcoinds know."""
    program = program or find_bitcoind()
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    # Knots' own relay policy differs from Core's, and Core rejects the flag.
    return program, ("-corepolicy=1",) if "Knots" in version else ()


async def ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end by asking, which needs neither a thread nor a child watcher."""
    end = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def free_ports(count: int) -> list[int]:
    """Ports on loopback nobody listens on now; bind them soon, and expect to lose the race.

    They lie below those that systems lend to outgoing connections, or a program that is started
    again could find its port lent.
    """
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(range(15_000, 32_000))
        with contextlib.suppress(OSError), socket.socket() as held:
            held.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
