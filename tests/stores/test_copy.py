"""Moving a node between stores: all of it, and never two that start."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from postgres import Server
from support import fee_of, pay_both, wallet_of, what_it_has
from typer.testing import CliRunner

from ldkjit import ConfigError, RecoveryNeededError, StoreError, sat
from ldkjit.cli import app
from ldkjit.cli.stores import copy_store, find_store
from ldkjit.sandbox import Sandbox, until
from ldkjit.storage import MemoryStore, PostgresStore, Put

pytestmark = [pytest.mark.native, pytest.mark.bitcoind, pytest.mark.timeout(180)]

AMOUNT = sat(50_000)
# Twice of this are received over a channel that was sold for the other.
SMALL = sat(5_000)


@pytest_asyncio.fixture
async def box(bitcoind: Path) -> AsyncGenerator[Sandbox, None]:
    async with Sandbox() as made:
        yield made


async def test_an_lsp_moves_to_postgresql_and_back(
    box: Sandbox, postgres: Server, schema: str, tmp_path: Path
) -> None:
    lsp = await box.lsp("lsp")
    payer = await box.node("payer", funds=sat(50_000_000), channels=[(lsp, 10_000_000)])
    wallet = await wallet_of(box, lsp, "wallet")
    await pay_both(payer, wallet, (await wallet.receive(AMOUNT, jit="always")).bolt11)
    folder = lsp.config.data_dir
    sqlite, database = str(folder), postgres.conninfo()
    run = CliRunner()

    def copy(*arguments: str) -> tuple[int, str]:
        done = run.invoke(app, ["store", "copy", *arguments, "--json"])
        return done.exit_code, done.output

    # Not of a node that runs.
    code, said = copy(sqlite, database, "--target-schema", schema)
    assert (code, "StoreLockedError" in said) == (2, True)

    before = await what_it_has(lsp)
    identity = (await lsp.status()).node_id
    await lsp.stop()
    code, said = copy(sqlite, database, "--target-schema", schema)
    assert code == 0, said
    moved = json.loads(said)
    assert moved["node_id"] == identity
    assert moved["rows"] >= len(before[-1])

    with pytest.raises(RecoveryNeededError, match="moved to another store"):
        await lsp.start()
    # Neither again, nor over another node's.
    assert copy(sqlite, database, "--target-schema", schema)[0] == 2
    assert copy(sqlite, database, "--target-schema", f"{schema}_b")[0] == 2

    store = PostgresStore(database, schema=schema)
    lsp.config = lsp.config.model_copy(update={"store": store})
    await lsp.start()
    assert await what_it_has(lsp) == before
    (order,) = await lsp.orders()
    assert (order.state, order.earned) == ("paid", fee_of(AMOUNT))
    assert (await lsp.ledger_check()).ok

    async def usable() -> bool:
        nodes = (payer, wallet)
        return all([all(c.usable for c in await node.channels()) for node in nodes])

    await until(usable, "the channels")
    await pay_both(payer, wallet, (await wallet.receive(SMALL, jit="never")).bolt11)
    await lsp.stop()

    # And back, into another folder with the same words.
    (tmp_path / "back").mkdir()
    code, said = copy(database, str(tmp_path / "back"), "--source-schema", schema)
    assert code == 0, said
    (tmp_path / "back" / "seed").write_bytes((folder / "seed").read_bytes())
    update = {"store": "sqlite", "data_dir": tmp_path / "back"}
    lsp.config = lsp.config.model_copy(update=update)
    await lsp.start()
    await until(usable, "the channels")
    _, received = await pay_both(payer, wallet, (await wallet.receive(SMALL, jit="never")).bolt11)
    assert received.amount == SMALL
    assert (await lsp.ledger_check()).ok


def test_what_is_no_node_or_not_new_is_left_alone(tmp_path: Path) -> None:
    empty, used = MemoryStore(), MemoryStore()
    used.commit(1, [Put("k", "a", b"")])
    with pytest.raises(ConfigError, match="no node"):
        copy_store(empty, MemoryStore())
    node = MemoryStore()
    identity = b'{"version": 1, "network": "regtest", "node_id": "02"}'
    node.commit(1, [Put("meta", "identity", identity), Put("archive/x", "y", b"old")])
    with pytest.raises(ConfigError, match="not new"):
        copy_store(node, used)
    assert used.load().seq == 1
    target = MemoryStore()
    assert copy_store(node, target)["values"] == 2
    assert target.read("archive/x", "y") == b"old"
    broken = MemoryStore()
    broken.commit(1, [Put("meta", "identity", b"{")])
    with pytest.raises(StoreError, match="cannot be read"):
        copy_store(broken, MemoryStore())


def test_places(tmp_path: Path) -> None:
    made = find_store("ldkjit.storage:MemoryStore", "x", new=True)
    assert isinstance(made, MemoryStore)
    for place in ("ldkjit:nothing", "ldkjit:sat", "nowhere:x", str(tmp_path), "nothing"):
        with pytest.raises(ConfigError):
            find_store(place, "x", new=False)
    assert find_store(str(tmp_path), "x", new=True) == tmp_path / "node.sqlite"
