"""The regtest bitcoind: it starts, answers, and never outlives its Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ldkjit.sandbox.regtest import BitcoindStartError, Regtest
from ldkjit.sandbox.rpc import Rpc, RpcError

pytestmark = pytest.mark.bitcoind


async def test_coins_blocks_and_errors(bitcoind: Path) -> None:
    async with Regtest(bitcoind) as chain:
        assert await chain.rpc.height() == 101
        address = await chain.rpc.call("getnewaddress")
        txid = await chain.rpc.fund(address, 123_456_789)
        assert txid in await chain.rpc.mempool()
        outputs = [await chain.rpc.txout(txid, n) for n in (0, 1)]
        assert "1.23456789" in [str(each["value"]) for each in outputs if each]
        assert await chain.rpc.txout(txid, 0, mempool=False) is None
        assert await chain.mine() == 102
        assert await chain.rpc.mempool() == []
        with pytest.raises(RpcError) as caught:
            await chain.rpc.call("nonsense")
        assert caught.value.code == -32601
        with pytest.raises(RpcError) as caught:
            await Rpc(chain.rpc.port, "u", "wrong").call("getblockcount")
        assert caught.value.code == 401
    assert not chain.folder.exists()
    with pytest.raises(ConnectionError):
        await chain.rpc.height()


async def test_a_program_that_ends_at_once_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # its logs are kept
    program = tmp_path / "bitcoind"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(BitcoindStartError, match="out of luck"):
        await Regtest(program).start()


def test_it_dies_with_a_python_that_was_killed(bitcoind: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, time
from ldkjit.sandbox.regtest import Regtest
async def main():
    chain = Regtest(pathlib.Path({str(bitcoind)!r}))
    await chain.start()
    print(chain.rpc.port, flush=True)
    time.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as python:
        assert python.stdout is not None
        port = int(python.stdout.readline())
        os.kill(python.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while _listens(port):
        assert time.monotonic() < end, "bitcoind outlived its Python"
        time.sleep(0.05)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
