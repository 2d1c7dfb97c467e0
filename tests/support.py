"""What integration tests ask again and again: of channels, coins, payments and the chain."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from ldkjit import Channel, Msat, Node, Payment, sat
from ldkjit.cli.ledger import check
from ldkjit.sandbox import Sandbox, until

SAT_PER_BTC = 100_000_000
# Of the channel from Ann to Bob, satoshi.
CAPACITY = 1_000_000


class Pair(NamedTuple):
    """Ann, who has coins and a channel to Bob, and Bob, who has nothing."""

    box: Sandbox
    ann: Node
    bob: Node


async def pair_of(box: Sandbox, prefix: str = "") -> Pair:
    """Two new nodes, named ``ann`` and ``bob`` after the prefix."""
    bob = await box.node(f"{prefix}bob", accept_channels=True)
    ann = await box.node(f"{prefix}ann", funds=sat(5_000_000), channels=[(bob, CAPACITY)])
    return Pair(box, ann, bob)


async def retire(box: Sandbox, name: str) -> None:
    """Stop a node for good: whatever was done with it, its books are right."""
    node = box.nodes.pop(name)
    await node.stop()
    verdict = check(Path(node.config.data_dir))
    assert verdict.ok, f"{name}: {verdict.model_dump_json(indent=2)}"
    # The next node of this name is another one.
    shutil.rmtree(node.config.data_dir)


async def retire_all(box: Sandbox) -> None:
    """Stop every node for good; one whose books are wrong keeps no other running."""
    async with contextlib.AsyncExitStack() as stack:
        for name in box.nodes:
            stack.push_async_callback(retire, box, name)


class Held(NamedTuple):
    """A payment for which the receiver has yet to give its preimage; both in hex."""

    preimage: str
    payment_hash: str


def new_held() -> Held:
    """A payment that nobody else can take."""
    preimage = secrets.token_bytes(32)
    return Held(preimage.hex(), hashlib.sha256(preimage).hexdigest())


async def belongings(node: Node) -> list[Any]:
    """Money and records of a node, to compare with those of another moment."""
    return [
        await coins_of(node),
        await locked_of(node),
        await outbound(node),
        [each async for each in node.payments()],
        await node.pending_payments(),
        await node.client_orders(),
    ]


def fee_of(payment: int, min_fee: int = 2_000_000, ppm: int = 4_000) -> Msat:
    """The opening fee by the formula of the specification, not by the node."""
    return Msat(max(min_fee, -(-int(payment) * ppm // 1_000_000)))


async def id_of(node: Node) -> str:
    return (await node.status()).node_id


async def address_of(node: Node) -> str:
    return (await node.status()).address


async def online(wallet: Node, lsps: int = 1) -> None:
    """Wait until a wallet is connected with its LSPs."""

    async def connected() -> bool:
        return sum(each.connected for each in await wallet.peers()) >= lsps

    await until(connected, "a wallet's connection to its LSP")


async def wallet_of(box: Sandbox, lsp: Node, name: str = "wallet", **settings: Any) -> Node:
    """A wallet without coins or channels, connected with its LSP."""
    wallet = await box.wallet(lsp, name, **settings)
    await online(wallet)
    return wallet


async def outbound(node: Node) -> dict[str, int]:
    """What each channel can send, msat."""
    return {each.channel_id: int(each.outbound) for each in await node.channels()}


async def comes_to(look: Any, expected: Any, what: str, timeout: float = 10.0) -> None:
    """Wait until ``await look()`` equals ``expected``; the failure shows the last value seen."""
    seen: list[Any] = [None]

    async def equal() -> bool:
        seen[0] = await look()
        return bool(seen[0] == expected)

    try:
        await until(equal, what, timeout)
    except TimeoutError:
        raise AssertionError(f"{what}: {seen[0]!r}, expected {expected!r}") from None


async def spent_is(node: Node, before: dict[str, int], expected: int) -> None:
    """Check what a node's channels lost since ``before``, once the last commitment is signed."""

    async def lost() -> int:
        after = await outbound(node)
        return sum(before[each] - after.get(each, 0) for each in before)

    await comes_to(lost, expected, "msat that the payer's channels lost")


async def only_channel(node: Node) -> Channel:
    (channel,) = await node.channels()
    return channel


async def pay_and_settle(pair: Pair, amount: Msat) -> None:
    """Ann pays Bob for the first time, and no commitment has the HTLC any more."""
    await pay_both(pair.ann, pair.bob, (await pair.bob.receive(amount)).bolt11)
    reserve = CAPACITY * 1_000 // 100

    async def can_come_back() -> tuple[int, int]:
        ann, bob = await only_channel(pair.ann), await only_channel(pair.bob)
        return int(ann.inbound), int(bob.outbound)

    await comes_to(can_come_back, (amount - reserve,) * 2, "what Bob can send back")


async def usable(*nodes: Node) -> None:
    """Wait until every channel of every node is usable."""

    async def all_usable() -> bool:
        lists = [await node.channels() for node in nodes]
        return all(channels and all(each.usable for each in channels) for channels in lists)

    await until(all_usable, "channels to become usable")


async def entries(node: Node, **wanted: Any) -> list[dict[str, Any]]:
    """The ledger's entries that have all of these fields."""
    return [
        row.entry
        async for row in node.ledger()
        if all(row.entry.get(name) == value for name, value in wanted.items())
    ]


async def earned(lsp: Node, payment_hash: str) -> int:
    """What a payment earned an LSP by its ledger, msat."""
    rows = await entries(lsp, kind="fee_earned", payment_hash=payment_hash)
    return sum(int(row["amount"]) for row in rows)


async def pay_both(payer: Node, wallet: Node, bolt11: str, **how: Any) -> tuple[Payment, Payment]:
    """Pay an invoice and wait for both ends: (what was sent, what was received)."""
    payment_hash = (await wallet.decode(bolt11)).payment_hash
    sent, received = await asyncio.gather(
        payer.pay(bolt11, timeout=60, **how), wallet.wait_payment(payment_hash, timeout=60)
    )
    return sent, received


async def coins_of(node: Node) -> int:
    """Confirmed and unconfirmed coins, satoshi."""
    onchain = (await node.balances()).onchain
    return onchain.confirmed_sat + onchain.unconfirmed_sat


async def locked_of(node: Node) -> int:
    """Coins promised to channels that are being opened, satoshi."""
    return (await node.balances()).onchain.locked_sat


async def mined_fees(box: Sandbox, after: int) -> int:
    """Fees of every transaction in the blocks above a height, satoshi."""
    total = Decimal(0)
    for height in range(after + 1, await box.chain.rpc.height() + 1):
        block = await box.chain.rpc.call(
            "getblock", await box.chain.rpc.call("getblockhash", height), 2
        )
        total += sum(each.get("fee", Decimal(0)) for each in block["tx"])
    return int(total * SAT_PER_BTC)


async def transaction(box: Sandbox, txid: str) -> dict[str, Any]:
    """A transaction with its fee (``fee_sat``), in the mempool or confirmed."""
    rpc = box.chain.rpc
    found = await rpc.call("getrawtransaction", txid, 1)
    paid = Decimal(0)
    for each in found["vin"]:
        source = await rpc.call("getrawtransaction", each["txid"], 1)
        paid += source["vout"][each["vout"]]["value"]
    fee = paid - sum(each["value"] for each in found["vout"])
    return {**found, "fee_sat": int(fee * SAT_PER_BTC)}


async def in_mempool(box: Sandbox, txid: str, timeout: float = 10.0) -> None:
    async def seen() -> bool:
        return txid in await box.chain.rpc.mempool()

    await until(seen, f"{txid} in the mempool", timeout)


async def what_it_has(node: Node) -> tuple[Any, ...]:
    """Who it is and what it has, but for the reserve, which follows the fee rate.

    Once no commitment has an HTLC any more: a payment is done before that.
    """

    async def in_flight() -> int:
        return sum(each.pending_htlcs for each in await node.channels())

    await comes_to(in_flight, 0, "HTLCs of the node's channels")
    balances, rows = await node.balances(), [row async for row in node.ledger()]
    coins = (balances.onchain.confirmed_sat, balances.onchain.unconfirmed_sat)
    return (await node.status()).node_id, coins, balances.lightning, rows
