"""Whatever is put in wrongly gives an error that says what and why, and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import handmade
import pytest
from programs import program
from support import (
    Pair,
    address_of,
    comes_to,
    id_of,
    locked_of,
    only_channel,
    outbound,
    pay_both,
    spent_is,
    wallet_of,
)

from ldkjit import (
    AddressError,
    AmountError,
    Bitcoind,
    ChainError,
    ConfigError,
    InboundCapacityError,
    InsufficientFundsError,
    InvoiceError,
    LdkJitError,
    Msat,
    Node,
    NodeConfig,
    NotFoundError,
    PeerError,
    StoreCorruptError,
    StoreLockedError,
    StoreNetworkError,
    StoreVersionError,
    TimeoutError_,
    sat,
)
from ldkjit.sandbox import Sandbox, until

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60),
]

# A key on the curve that nobody has.
NOBODY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
NO_AMOUNTS: list[Any] = [1.5, True, "5", -1, 2**64, 21_000_000 * 10**11 + 1]


# Addresses and invoices


def _mistyped(text: str) -> str:
    """The text with another last letter."""
    return text[:-1] + ("p" if text[-1] == "q" else "q")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081", "malformed"),
        ("", "malformed"),
        ("nonsense", "malformed"),
    ],
)
async def test_addresses(shared_pair: Pair, address: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        await shared_pair.ann.send_onchain(address, 10_000)
    assert await shared_pair.box.chain.rpc.mempool() == []


@pytest.mark.parametrize(
    ("bolt11", "why", "said"),
    [
        pytest.param(
            _mistyped(handmade.invoice("bcrt", bytes(32))), "malformed", "checksum", id="mistyped"
        ),
        ("", "malformed", "not a BOLT 11 invoice"),
        ("lnbcrt1", "malformed", "not a BOLT 11 invoice"),
    ],
)
async def test_invoices(shared_pair: Pair, bolt11: str, why: str, said: str) -> None:
    for call in (shared_pair.ann.pay(bolt11), shared_pair.ann.decode(bolt11)):
        with pytest.raises(InvoiceError, match=said) as caught:
            await call
        assert caught.value.why == why
        assert not caught.value.retryable


async def test_an_expired_invoice(shared_pair: Pair) -> None:
    invoice = await shared_pair.bob.receive(sat(1_000), expiry=1)

    async def refused() -> str | None:
        try:
            # Checked before anything else that could be wrong: an amount is not wanted here.
            await shared_pair.ann.pay(invoice.bolt11, amount=sat(1))
        except InvoiceError as error:
            return error.why
        except AmountError:
            return None
        return None

    assert await until(refused, "the expiry", timeout=5) == "expired"


async def test_the_own_invoice(shared_pair: Pair) -> None:
    invoice = await shared_pair.bob.receive(sat(1_000))
    with pytest.raises(InvoiceError, match="our own"):
        await shared_pair.bob.pay(invoice.bolt11)


async def test_amounts_that_do_not_fit_the_invoice(shared_pair: Pair) -> None:
    fixed, free = await shared_pair.bob.receive(sat(1_000)), await shared_pair.bob.receive(None)
    with pytest.raises(AmountError, match="already says its amount"):
        await shared_pair.ann.pay(fixed.bolt11, amount=sat(1_000))
    with pytest.raises(AmountError, match="no amount"):
        await shared_pair.ann.pay(free.bolt11)
    with pytest.raises(AmountError, match="above 0"):
        await shared_pair.ann.pay(free.bolt11, amount=Msat(0))


async def test_a_paid_invoice(box: Sandbox) -> None:
    bob = await box.node("bob", accept_channels=True)
    ann = await box.node("ann", funds=sat(1_000_000), channels=[(bob, 200_000)])
    invoice = await bob.receive(sat(5_000))
    before = await outbound(ann)
    await pay_both(ann, bob, invoice.bolt11)
    for _ in range(2):
        with pytest.raises(InvoiceError, match="paid already") as caught:
            await ann.pay(invoice.bolt11)
        assert caught.value.why == "already_paid"
        await ann.stop()
        await ann.start()
    await spent_is(ann, before, 5_000_000)


# Amounts


@pytest.mark.parametrize("amount", NO_AMOUNTS)
async def test_amounts_in_msat(shared_pair: Pair, amount: Any) -> None:
    _, ann, bob = shared_pair
    free = (await bob.receive(None)).bolt11
    node_id, at = await id_of(bob), await address_of(bob)
    for name, call in (
        ("amount", lambda: bob.receive(amount)),
        ("max_opening_fee", lambda: bob.receive(sat(1), max_opening_fee=amount)),
        ("amount", lambda: ann.pay(free, amount=amount)),
        ("max_fee", lambda: ann.pay(free, amount=sat(1), max_fee=amount)),
        ("amount", lambda: ann.keysend(node_id, amount)),
        ("push", lambda: ann.open_channel(at, 100_000, push=amount)),
    ):
        with pytest.raises(AmountError) as caught:
            await call()
        assert str(caught.value).startswith(f"{name}: ")
        assert caught.value.details == {"field": name}
        assert "21000000" in str(caught.value) or "whole numbers" in str(caught.value)


@pytest.mark.parametrize("amount", [1.5, True, "5", -1, 0, 2**64, 21_000_000 * 10**8 + 1, sat(5)])
async def test_amounts_in_satoshi(shared_pair: Pair, amount: Any) -> None:
    _, ann, bob = shared_pair
    address, at = await bob.new_address(), await address_of(bob)
    for name, call in (
        ("amount_sat", lambda: ann.send_onchain(address, amount)),
        ("capacity_sat", lambda: ann.open_channel(at, amount)),
    ):
        with pytest.raises(AmountError, match=f"^{name}: accepts .*sat"):
            await call()


async def test_amounts_below_what_bitcoin_allows(shared_pair: Pair) -> None:
    _, ann, bob = shared_pair
    with pytest.raises(AmountError, match="too small"):
        await ann.send_onchain(await bob.new_address(), 293)
    with pytest.raises(AmountError, match="at least 20000"):
        await ann.open_channel(await address_of(bob), 19_999)
    with pytest.raises(AmountError, match="below the capacity"):
        await ann.open_channel(await address_of(bob), 100_000, push=sat(100_000))
    with pytest.raises(AmountError, match="1 to 2100000000000000000"):
        await bob.receive(Msat(0))


@pytest.mark.parametrize("rate", [0, 252, 1_000_001, 2**33, 1.5, True])
async def test_fee_rates(shared_pair: Pair, rate: Any) -> None:
    with pytest.raises(AmountError, match="fee_rate_sat_per_kw: accepts"):
        await shared_pair.ann.send_onchain(
            await shared_pair.bob.new_address(), 10_000, fee_rate_sat_per_kw=rate
        )


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", True, None])
async def test_times(shared_pair: Pair, seconds: Any) -> None:
    _, ann, bob = shared_pair
    for name, call in (
        ("expiry", lambda: bob.receive(sat(1), expiry=seconds)),
        ("timeout", lambda: bob.receive(sat(1), timeout=seconds)),
        ("timeout", lambda: ann.wait_payment("00" * 32, timeout=seconds)),
    ):
        with pytest.raises(ConfigError, match=f"^{name}: accepts seconds"):
            await call()


async def test_invoices_that_cannot_be_made(shared_pair: Pair) -> None:
    with pytest.raises(ConfigError, match="at most 639 bytes"):
        await shared_pair.bob.receive(sat(1), description="ä" * 320)
    for expiry in (0, 31_536_001):
        with pytest.raises(ConfigError, match="expiry_s: 1 to 31536000"):
            await shared_pair.bob.receive(sat(1), expiry=expiry)


# Too little of something


async def test_too_few_coins(shared_pair: Pair) -> None:
    _, ann, bob = shared_pair
    spendable = (await ann.balances()).onchain.spendable_sat
    for call in (
        ann.send_onchain(await bob.new_address(), spendable + 1),
        ann.open_channel(await address_of(bob), spendable + 1),
    ):
        with pytest.raises(InsufficientFundsError) as caught:
            await call
        assert caught.value.needed_msat > spendable * 1_000 >= caught.value.available_msat > 0
        for number in (caught.value.needed_msat, caught.value.available_msat):
            assert f"{number} msat" in str(caught.value)


async def test_too_little_in_channels(shared_pair: Pair) -> None:
    _, ann, bob = shared_pair
    there = sum((await outbound(ann)).values())
    invoice = await bob.receive(None)
    for call in (
        ann.pay(invoice.bolt11, amount=Msat(there + 1)),
        ann.keysend(await id_of(bob), Msat(there + 1)),
    ):
        with pytest.raises(InsufficientFundsError) as caught:
            await call
        assert (caught.value.needed_msat, caught.value.available_msat) == (there + 1, there)


async def test_more_than_the_channels_can_receive(shared_pair: Pair) -> None:
    room = int((await only_channel(shared_pair.bob)).inbound)
    with pytest.raises(InboundCapacityError) as caught:
        await shared_pair.bob.receive(Msat(room + 1))
    assert (caught.value.needed_msat, caught.value.available_msat) == (room + 1, room)
    assert (await shared_pair.bob.receive(Msat(room))).path == "channel"


# Peers, channels and names


async def test_peers_that_cannot_be_had(shared_pair: Pair) -> None:
    _, ann, bob = shared_pair
    listening = (await bob.status()).listening[0]
    for peer in (f"{NOBODY}@127.0.0.1:1", f"{NOBODY}@{listening}"):
        with pytest.raises(PeerError) as caught:
            await ann.connect(peer)
        assert peer in str(caught.value)
        assert caught.value.retryable
        with pytest.raises(PeerError):
            await ann.open_channel(peer, 100_000, timeout=5)
    assert [each.node_id for each in await ann.peers()] == [await id_of(bob)]
    with pytest.raises(PeerError, match="own node id"):
        await ann.connect(await address_of(ann))
    for peer in (
        "nonsense",
        "02ab@127.0.0.1:1",
        f"{NOBODY}@",
        f"{NOBODY}@host",
        f"{NOBODY}@h:99999",
    ):
        with pytest.raises(ConfigError, match=r"node_id|node id|host:port"):
            await ann.connect(peer)


async def test_a_peer_that_refuses_channels(shared_pair: Pair) -> None:
    box, ann, _ = shared_pair
    shy = await box.node("shy", accept_channels=False)
    with pytest.raises(PeerError):
        await ann.open_channel(await address_of(shy), 100_000, timeout=10)
    assert await shy.channels() == []
    await comes_to(lambda: locked_of(ann), 0, "locked coins")
    await ann.disconnect(await id_of(shy))


async def test_what_does_not_exist(shared_pair: Pair) -> None:
    _, ann, _ = shared_pair
    for call in (ann.close_channel, ann.payment, ann.invoice):
        with pytest.raises(NotFoundError, match="00000000"):
            await call("00" * 32)
        with pytest.raises(ConfigError):
            await call("no hash")
    with pytest.raises(TimeoutError_, match="has not ended within 50 ms"):
        await ann.wait_payment("00" * 32, timeout=0.05)
    with pytest.raises(TimeoutError_, match="height 999999 not reached"):
        await ann.wait_height(999_999, timeout=0.05)
    with pytest.raises(ConfigError, match="1 to 64 characters"):
        await anext(ann.events(""))


# The chain source


def _config(box: Sandbox, folder: Path, **changes: Any) -> NodeConfig:
    rpc = box.chain.rpc
    values: dict[str, Any] = {
        "network": "regtest",
        "data_dir": folder,
        "chain": Bitcoind(rpc.url, user=rpc.user, password=rpc.password, poll_ms=50),
        "fee_fallback_sat_per_kw": 500,
        **changes,
    }
    return NodeConfig(**values)


async def _refused(config: NodeConfig, kind: type[LdkJitError]) -> Any:
    """The error of a start, after which nothing runs."""
    node = Node(config)
    with pytest.raises(kind) as caught:
        await node.start()
    return caught.value


async def test_a_wrong_password(box: Sandbox, tmp_path: Path) -> None:
    chain = Bitcoind(box.chain.rpc.url, user=box.chain.rpc.user, password="wrong-secret")
    error = await _refused(_config(box, tmp_path, chain=chain), ChainError)
    assert error.why == "auth"
    assert "wrong-secret" not in str(error)
    async with Node(_config(box, tmp_path)) as node:  # the folder is neither harmed nor held
        assert (await node.status()).height > 0


async def test_no_chain_source(box: Sandbox, tmp_path: Path) -> None:
    chain = Bitcoind("http://127.0.0.1:1", user="u", password="p")
    error = await _refused(_config(box, tmp_path, chain=chain), ChainError)
    assert error.why == "unreachable"
    assert error.retryable


async def test_a_chain_source_of_another_network(box: Sandbox, tmp_path: Path) -> None:
    config = _config(box, tmp_path, network="signet", fee_fallback_sat_per_kw=None)
    error = await _refused(config, ChainError)
    assert error.why == "wrong_network"
    assert "regtest" in str(error)
    assert "signet" in str(error)


@contextlib.asynccontextmanager
async def _fake(answer: bytes) -> AsyncIterator[Bitcoind]:
    """A chain source that gives everybody the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Bitcoind(f"http://127.0.0.1:{port}", user="u", password="p")


def _http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


_LIES = {
    "not http": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "not json": _http(b"<html>hello</html>"),
    "another rpc": _http(b'{"jsonrpc":"2.0","id":0,"result":{"version":"geth"}}'),
    "no result": _http(b'{"id":0,"error":null}'),
    "endless": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
    "nothing": b"",
    "impossible height": _http(
        json.dumps(
            {
                "id": 0,
                "error": None,
                "result": {
                    "chain": "regtest",
                    "blocks": -5,
                    "headers": -5,
                    "bestblockhash": "00" * 32,
                    "initialblockdownload": False,
                },
            }
        ).encode()
    ),
}


@pytest.mark.parametrize("lie", _LIES)
async def test_a_chain_source_that_is_none(box: Sandbox, tmp_path: Path, lie: str) -> None:
    async with _fake(_LIES[lie]) as chain:
        error = await asyncio.wait_for(
            _refused(_config(box, tmp_path, chain=chain), ChainError), timeout=30
        )
    assert error.why in ("lying", "unreachable", "wrong_network")


# The store


async def test_a_folder_that_another_process_uses(box: Sandbox, tmp_path: Path) -> None:
    config = _config(box, tmp_path / "node")
    text = """
async with Node(NodeConfig.model_validate_json(await told())):
    say("up")
    await told()
"""
    async with program(box, tmp_path, text) as holder:
        holder.tell(config.model_dump_json())
        await holder.says("up")
        error = await _refused(config, StoreLockedError)
        assert error.pid == holder.pid
        assert str(holder.pid) in str(error)
        assert error.retryable
        holder.tell("enough")
        await holder.ends()
    async with Node(config) as node:
        assert (await node.status()).height > 0


async def test_a_folder_that_this_process_uses(box: Sandbox, tmp_path: Path) -> None:
    async with Node(_config(box, tmp_path)) as node:
        await _refused(_config(box, tmp_path), StoreLockedError)
        assert (await node.status()).height > 0


async def _made(box: Sandbox, folder: Path) -> tuple[Path, str]:
    """A store that a node has used, and the node's id."""
    async with Node(_config(box, folder)) as node:
        return folder / "node.sqlite", await id_of(node)


def _alter(store: Path, name: str, value: str) -> None:
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


async def test_a_folder_of_another_network(box: Sandbox, tmp_path: Path) -> None:
    store, node_id = await _made(box, tmp_path)
    _alter(store, "network", "signet")
    error = await _refused(_config(box, tmp_path), StoreNetworkError)
    assert "signet" in str(error)
    assert "regtest" in str(error)
    _alter(store, "network", "regtest")
    assert (await _made(box, tmp_path))[1] == node_id


async def test_a_store_of_a_later_release(box: Sandbox, tmp_path: Path) -> None:
    store, node_id = await _made(box, tmp_path)
    with contextlib.closing(sqlite3.connect(store)) as db:
        (known,) = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    _alter(store, "version", "99")
    error = await _refused(_config(box, tmp_path), StoreVersionError)
    assert error.details == {"found": 99, "known": int(known)}
    _alter(store, "version", known)
    assert (await _made(box, tmp_path))[1] == node_id


@pytest.mark.parametrize("damage", ["garbage", "half", "no meta", "empty manager"])
async def test_a_damaged_store(box: Sandbox, tmp_path: Path, damage: str) -> None:
    store, _ = await _made(box, tmp_path)
    if damage == "garbage":
        store.write_bytes(b"this is no database, " * 1_000)
    elif damage == "half":
        store.write_bytes(store.read_bytes()[: store.stat().st_size // 2])
    else:
        with contextlib.closing(sqlite3.connect(store)) as db, db:
            if damage == "no meta":
                db.execute("DELETE FROM meta WHERE name = 'seq'")
            else:
                found = db.execute("UPDATE kv SET value = x'00' WHERE key = 'manager'").rowcount
                assert found == 1
    before = store.read_bytes()
    await _refused(_config(box, tmp_path), StoreCorruptError)
    assert store.read_bytes() == before


async def test_words_that_are_not_the_folders(box: Sandbox, tmp_path: Path) -> None:
    await _made(box, tmp_path)
    words = " ".join(["abandon"] * 11 + ["about"])
    error = await _refused(_config(box, tmp_path, mnemonic=words), ConfigError)
    assert "abandon" not in str(error)
    wrong = " ".join(["abandon"] * 12)
    error = await _refused(_config(box, tmp_path / "new", mnemonic=wrong), ConfigError)
    assert "abandon" not in str(error)


# Cancelled calls


async def _cancel(call: Any, after: float = 0.0) -> None:
    """Start a call, let it begin, cancel it."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_waits_that_are_cancelled(shared_pair: Pair) -> None:
    _, ann, bob = shared_pair
    invoice = await bob.receive(sat(1_000))
    for call in (
        invoice.settled(),
        ann.wait_payment("00" * 32),
        ann.wait_height(999_999),
        anext(ann.events("nobody-tells-me")) if not await _has_events(ann) else asyncio.sleep(9),
    ):
        await _cancel(call, after=0.02)
    assert (await ann.status()).height > 0


async def _has_events(node: Node) -> bool:
    try:
        await asyncio.wait_for(anext(node.events("probe")), 0.2)
    except asyncio.TimeoutError:
        return False
    return True


async def test_a_payment_whose_call_is_cancelled_is_made_once(box: Sandbox) -> None:
    bob = await box.node("bob", accept_channels=True)
    ann = await box.node("ann", funds=sat(1_000_000), channels=[(bob, 200_000)])
    invoice = await bob.receive(sat(5_000))
    before = await outbound(ann)
    await _cancel(ann.pay(invoice.bolt11))
    sent = await ann.wait_payment(invoice.payment_hash, timeout=20)
    assert (sent.status, sent.amount) == ("succeeded", sat(5_000))
    with pytest.raises(InvoiceError):
        await ann.pay(invoice.bolt11)
    await spent_is(ann, before, 5_000_000)
    assert len([each async for each in ann.payments()]) == 1


async def test_an_open_whose_call_is_cancelled_is_whole(box: Sandbox) -> None:
    """Either there is a channel and its coins are spent, or neither; no coin stays locked."""
    bob = await box.node("bob", accept_channels=True)
    ann = await box.node("ann", funds=sat(1_000_000))
    await ann.connect(await address_of(bob))
    await _cancel(ann.open_channel(await address_of(bob), 200_000))

    async def funded() -> bool:
        return bool(await box.chain.rpc.mempool())

    await until(funded, "the funding transaction")
    await box.mine(6)

    async def ready() -> bool:
        return [each.usable for each in await ann.channels()] == [True]

    await until(ready, "the channel")
    await comes_to(lambda: locked_of(ann), 0, "locked coins")
    await pay_both(ann, bob, (await bob.receive(sat(1_000))).bolt11)


async def test_a_sale_whose_call_is_cancelled_leaves_the_wallet_usable(box: Sandbox) -> None:
    lsp = await box.lsp()
    payer = await box.node("payer", funds=sat(2_000_000), channels=[(lsp, 1_000_000)])
    wallet = await wallet_of(box, lsp)
    for after in (0.0, 0.001, 0.002, 0.004):
        task = asyncio.ensure_future(wallet.receive(sat(100_000)))
        await asyncio.sleep(after)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # the last may be done already
            await task
    invoice = await wallet.receive(sat(100_000))
    _, received = await pay_both(payer, wallet, invoice.bolt11)
    assert (received.amount, received.opening_fee) == (sat(98_000), sat(2_000))
    assert len(await wallet.channels()) == 1


async def test_a_start_that_is_cancelled(box: Sandbox, tmp_path: Path) -> None:
    node = Node(_config(box, tmp_path))
    for after in (0.0, 0.002, 0.005, 0.01, 0.02):
        task = asyncio.ensure_future(node.start())
        await asyncio.sleep(after)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # the last may be done already
            await task
        await node.stop()
    async with node:
        assert (await node.status()).height > 0
