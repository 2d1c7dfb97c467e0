"""The ledger check: from the node, from outside while it runs and after, and on altered books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import Pair, only_channel, pay_and_settle
from typer.testing import CliRunner, Result

from ldkjit import Bitcoind, Node, sat
from ldkjit.cli import app
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60),
]


def run(folder: Path, *more: str) -> Result:
    """``ldkjit ledger check``."""
    return CliRunner().invoke(app, ["ledger", "check", str(folder), *more])


def folder_of(node: Node) -> Path:
    return Path(node.config.data_dir)


async def test_node_and_command_agree(pair: Pair) -> None:
    _, ann, bob = pair
    await pay_and_settle(pair, sat(300_000))
    for node in (ann, bob):
        inside = await node.ledger_check()
        assert inside.ok
        assert (inside.exact, inside.bounded) == (1, 0)
        outside = run(folder_of(node), "--json")
        assert outside.exit_code == 0, outside.output
        told = json.loads(outside.stdout)
        assert (told["channels_msat"], told["wallet_sat"]) == (
            inside.channels_msat,
            inside.wallet_sat,
        )
    balances = [(await node.ledger_check()).channels_msat for node in (ann, bob)]
    channel = await only_channel(ann)
    assert sum(balances) == channel.capacity_sat * 1_000
    assert balances[1] == 300_000_000
    await ann.stop()
    shown = run(folder_of(ann))
    assert shown.exit_code == 0
    assert "it adds up" in shown.output


async def test_a_row_that_was_altered_is_named(pair: Pair, tmp_path: Path) -> None:
    await pay_and_settle(pair, sat(300_000))

    async def written() -> bool:
        return any([row.kind == "path_paid" async for row in pair.ann.ledger()])

    await until(written, "the row of a payment")
    await pair.ann.stop()
    rows = [(row["kind"], seq) for seq, row in entries(folder_of(pair.ann))]
    assert {kind for kind, _ in rows} == {"chain", "channel_funded", "path_paid"}
    for number, (kind, seq) in enumerate(rows):
        for change in (alter, drop, double):
            copy = tmp_path / f"{number}-{change.__name__}"
            shutil.copytree(folder_of(pair.ann), copy)
            change(copy, seq)
            found = run(copy, "--json")
            assert found.exit_code == 1, (kind, change.__name__, found.output)
            bad = json.loads(found.stdout)["bad"]
            if change is double or (change is drop and number + 1 < len(rows)):
                assert bad["seq"] == seq + 1, (kind, change.__name__, bad)
            elif change is alter:
                assert bad["seq"] == seq, (kind, bad)
            assert f"row {bad['seq']}" in run(copy).output or bad["seq"] is None


async def test_what_cannot_be_read(pair: Pair, tmp_path: Path) -> None:
    missing = run(tmp_path)
    assert missing.exit_code == 2
    await pair.bob.stop()
    copy = tmp_path / "bob"
    shutil.copytree(folder_of(pair.bob), copy)
    (copy / "seed").unlink()
    assert run(copy).exit_code == 2


def entries(folder: Path) -> list[tuple[int, dict[str, object]]]:
    with sqlite3.connect(folder / "node.sqlite") as db:
        rows = db.execute("SELECT seq, value FROM history WHERE kind = 'ledger' ORDER BY seq")
        return [(seq, json.loads(value)["entry"]) for seq, value in rows]


def edit(folder: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    db = sqlite3.connect(folder / "node.sqlite")
    with db:
        for statement, values in statements:
            db.execute(statement, values)
    db.close()


def alter(folder: Path, seq: int) -> None:
    """One more of the first amount in it."""
    ((_, value),) = [row for row in raw(folder) if row[0] == seq]
    text = value.decode()
    entry = json.loads(text)["entry"]
    name = next(n for n in ("delta_sat", "balance", "amount") if isinstance(entry.get(n), int))
    other = text.replace(f'"{name}":{entry[name]}', f'"{name}":{entry[name] + 1}')
    assert other != text
    edit(
        folder,
        ("UPDATE history SET value = ? WHERE kind = 'ledger' AND seq = ?", (other.encode(), seq)),
    )


def drop(folder: Path, seq: int) -> None:
    edit(folder, ("DELETE FROM history WHERE kind = 'ledger' AND seq = ?", (seq,)))


def double(folder: Path, seq: int) -> None:
    """Again under the next number, and all after it one further."""
    edit(
        folder,
        ("UPDATE history SET seq = -seq - 1 WHERE kind = 'ledger' AND seq > ?", (seq,)),
        ("UPDATE history SET seq = -seq WHERE kind = 'ledger' AND seq < 0", ()),
        (
            "INSERT INTO history(kind, seq, key, value)"
            " SELECT kind, seq + 1, key, value FROM history WHERE kind = 'ledger' AND seq = ?",
            (seq,),
        ),
    )


def raw(folder: Path) -> list[tuple[int, bytes]]:
    with sqlite3.connect(folder / "node.sqlite") as db:
        rows = db.execute("SELECT seq, value FROM history WHERE kind = 'ledger' ORDER BY seq")
        return [(seq, bytes(value)) for seq, value in rows]


@contextlib.asynccontextmanager
async def lying(url: str, lies: set[str]) -> AsyncGenerator[str, None]:
    """A bitcoind that says of the outputs of some transactions that they are not there."""
    where = urlsplit(url)

    async def message(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        assert found is not None
        return head + await reader.readexactly(int(found[1]))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(where.hostname, where.port)
        try:
            while True:
                asked = await message(reader)
                ours.write(asked)
                told = await message(theirs)
                call = json.loads(asked.partition(b"\r\n\r\n")[2])
                if call["method"] == "gettxout" and call["params"][0] in lies:
                    body = json.dumps({"result": None, "error": None, "id": call["id"]}).encode()
                    told = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                writer.write(told)
        except (EOFError, OSError):
            pass
        finally:
            for each in (writer, ours):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_coin_that_the_chain_does_not_have_is_named(box: Sandbox) -> None:
    rpc, lies = box.chain.rpc, set[str]()
    async with lying(rpc.url, lies) as url:
        chain = Bitcoind(url, user=rpc.user, password=rpc.password, poll_ms=50)
        ann = await box.node("ann", funds=sat(1_000_000), chain=chain)
        bob = await box.node("bob", accept_channels=True)
        await box.open(ann, bob, 500_000)
        honest = await ann.ledger_check()
        assert (honest.ok, honest.absent) == (True, ())
        channel = await only_channel(ann)
        assert channel.funding is not None
        lies.add(channel.funding.partition(":")[0])
        told = await ann.ledger_check()
        assert (told.ok, told.bad) == (False, None)
        # Its change is of the same transaction.
        assert channel.funding in (told.absent or ())
        # The command does not ask.
        assert run(folder_of(ann)).exit_code == 0
        await ann.stop()
