"""What must be true after a soak: payments, ledger and chain tell the same story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ldkjit.sandbox import Regtest


@dataclass
class Paid:
    """A payment that the soak ordered, and what came of it."""

    payment_hash: str
    payer: str
    payee: str
    amount_msat: int
    opening_fee_msat: int
    status: str
    routing_fee_msat: int = 0
    received_msat: int | None = None


@dataclass
class Finding:
    """Something that must not be."""

    what: str
    detail: str


def check_payments(paid: Sequence[Paid]) -> list[Finding]:
    """Whoever was paid has the amount less the opening fee, to the millisatoshi."""
    findings: list[Finding] = []
    for p in paid:
        if p.status == "succeeded":
            due = p.amount_msat - p.opening_fee_msat
            if p.received_msat != due:
                text = f"{p.payment_hash}: {p.payee} got {p.received_msat}, due {due} msat"
                findings.append(Finding("amount received", text))
        elif p.received_msat is not None:
            findings.append(Finding("received and failed", p.payment_hash))
    return findings


def check_ledger(ledger: Sequence[dict[str, Any]], paid: Sequence[Paid]) -> list[Finding]:
    """The LSP earned each opening fee once, and nothing else."""
    earned: Counter[str] = Counter()
    for row in ledger:
        entry = row["entry"]
        if entry["kind"] == "fee_earned":
            earned[entry["payment_hash"]] += int(entry["amount"])
    findings: list[Finding] = []
    for p in paid:
        due = p.opening_fee_msat if p.status == "succeeded" else 0
        got = earned.pop(p.payment_hash, 0)
        if got != due:
            text = f"{p.payment_hash} ({p.status}): {got} msat earned, {due} due"
            findings.append(Finding("opening fee", text))
    for payment_hash, amount in earned.items():
        findings.append(Finding("fee of an unknown payment", f"{payment_hash}: {amount} msat"))
    return findings


async def check_chain(chain: Regtest, ledger: Sequence[dict[str, Any]]) -> list[Finding]:
    """One funding transaction an order, and none of them spent by a commitment transaction."""
    published: dict[str, dict[str, Any]] = {}
    spent: dict[tuple[str, int], dict[str, Any]] = {}
    for height in range(1, int(await chain.rpc.call("getblockcount")) + 1):
        block_hash = await chain.rpc.call("getblockhash", height)
        block = await chain.rpc.call("getblock", block_hash, 2)
        for tx in block["tx"]:
            published[tx["txid"]] = tx
            for txin in tx["vin"]:
                if "txid" in txin:
                    spent[(txin["txid"], txin["vout"])] = tx
    findings: list[Finding] = []
    opens: Counter[str] = Counter()
    for row in ledger:
        entry = row["entry"]
        if entry["kind"] != "channel_opened":
            continue
        txid, _, vout = entry["funding"].partition(":")
        if txid not in published:
            continue
        # A scid may be sold again; the last 24 bits of an open's id count attempts.
        opens[entry["open"][:-6]] += 1
        spender = spent.get((txid, int(vout)))
        # BOLT 3: the upper byte of a commitment transaction's locktime is 0x20.
        if spender is not None and spender["locktime"] >> 24 == 0x20:
            text = f"order {entry['scid']}: channel {entry['channel']}"
            findings.append(Finding("commitment transaction on chain", text))
    for sale, count in opens.items():
        if count > 1:
            findings.append(Finding("opened more than once", f"sale {sale}: {count} times"))
    return findings
