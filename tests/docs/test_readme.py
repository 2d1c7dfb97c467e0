"""The README's programs are the examples, and they run: an LSP, a wallet, and a payment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ldkjit import Node, sat
from ldkjit.sandbox import Sandbox, until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["wallet", "sync_wallet", "lsp"])
def test_the_readme_shows_the_example(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (ROOT / "examples" / f"{name}.py").read_text() in blocks


def test_every_block_of_the_readme_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "README.md", "exec")


@contextlib.asynccontextmanager
async def example(
    box: Sandbox, name: str, folder: Path, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example with its settings in the environment, as its comment says."""
    given = {
        "NETWORK": "regtest",
        "DATA_DIR": str(folder / name),
        "CHAIN__URL": box.chain.rpc.url,
        "CHAIN__USER": box.chain.rpc.user,
        "CHAIN__PASSWORD": box.chain.rpc.password,
        "CHAIN__POLL_MS": "50",
        "FEE_FALLBACK_SAT_PER_KW": "500",
        **settings,
    }
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LDKJIT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        str(ROOT / "examples" / f"{name}.py"),
        env={**clean, **{f"LDKJIT_{key}": value for key, value in given.items()}},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def words(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line, "the example ended"
    return line.decode().split()


async def customer(box: Sandbox, lsp: asyncio.subprocess.Process) -> tuple[str, Node]:
    """Where an example's LSP is, which gets coins, and a payer with a channel to it."""
    at, *_, address = await words(lsp)
    await box.chain.fund(address, 5_000_000)
    payer = await box.node("payer", funds=sat(5_000_000))
    opened = await payer.open_channel(at, 1_000_000)

    async def broadcast() -> bool:
        return opened.funding_txid in await box.chain.rpc.mempool()

    await until(broadcast, "the funding transaction")
    await box.mine(6)
    return at, payer


SELLS = {"LISTEN": '["127.0.0.1:0"]', "ACCEPT_CHANNELS": "true"}


@pytest.mark.native
@pytest.mark.bitcoind
@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["wallet", "sync_wallet"])
async def test_the_wallet_is_paid_through_the_lsp(tmp_path: Path, name: str) -> None:
    async with Sandbox() as box, example(box, "lsp", tmp_path, **SELLS) as lsp:
        at, payer = await customer(box, lsp)
        async with example(box, name, tmp_path, LSPS=json.dumps([at])) as wallet:
            bolt11, path, *fee = await words(wallet)
            assert (path, fee) == ("jit", ["2,000", "sat"])
            sent = await payer.pay(bolt11, timeout=60)
            assert sent.amount == sat(50_000)
            assert await words(wallet) == ["received", "48,000", "sat"]
            assert await asyncio.wait_for(wallet.wait(), 10) == 0
        told = ""
        while "opening_fee" not in told or "payment_forwarded" not in told:
            told += " ".join(await words(lsp)) + "\n"
        assert "order_sold" in told


@pytest.mark.native
@pytest.mark.bitcoind
@pytest.mark.timeout(90)
async def test_the_policy_example_sells(tmp_path: Path) -> None:
    async with Sandbox() as box, example(box, "policy", tmp_path, **SELLS) as lsp:
        at, payer = await customer(box, lsp)
        async with example(box, "wallet", tmp_path, LSPS=json.dumps([at])) as wallet:
            bolt11, path, *fee = await words(wallet)
            assert (path, fee) == ("jit", ["2,000", "sat"])
            assert await words(lsp) == ["sold", "1"]
            await payer.pay(bolt11, timeout=60)
            assert await words(wallet) == ["received", "48,000", "sat"]
