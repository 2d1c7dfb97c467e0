"""What must be true after a soak: payments, ledger and chain tell the same story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ldkjit.sandbox import Regtest
from ldkjit.sandbox.rpc import SAT_PER_BTC

from .report import Finding, Paid, Report

ANCHOR_SAT = 330
# What costs more to sweep than it is worth, at the fee rate of a regtest, waits for company.
TOO_SMALL_SAT = 3_000


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


async def brought_home(
    chain: Regtest, coins: Sequence[dict[str, Any]], gifts: Collection[str]
) -> int:
    """What of a node's coins came out of channels, sat, before the fees that it paid for that."""
    txs: dict[str, dict[str, Any]] = {}
    sum_sat = 0
    looked: set[str] = set()
    todo = [(coin["txid"], int(coin["vout"])) for coin in coins]
    while todo:
        txid, vout = todo.pop()
        if txid in gifts:
            continue
        if txid not in txs:
            txs[txid] = await chain.rpc.call("getrawtransaction", txid, 1)
        tx = txs[txid]
        if spends_funding(tx):
            value = to_sat(tx["vout"][vout])
            # The other side paid for the anchors.
            sum_sat += 0 if is_commitment(tx) and value == ANCHOR_SAT else value
        elif txid not in looked:
            looked.add(txid)
            todo += [(txin["txid"], txin["vout"]) for txin in tx["vin"]]
    return sum_sat


def to_sat(output: dict[str, Any]) -> int:
    """The value of an output."""
    return int(output["value"] * SAT_PER_BTC)


def spends_funding(tx: dict[str, Any]) -> bool:
    """Its input is the two-of-two of a channel."""
    witness: list[str] = tx["vin"][0].get("txinwitness", [])
    return len(witness) == 4 and witness[3].startswith("52") and witness[3].endswith("52ae")


def is_commitment(tx: dict[str, Any]) -> bool:
    """BOLT 3: the upper byte of a commitment transaction's locktime is 0x20."""
    return spends_funding(tx) and tx["locktime"] >> 24 == 0x20


async def all_transactions(chain: Regtest) -> list[dict[str, Any]]:
    """Every transaction of the best chain but the miners' own."""
    found: list[dict[str, Any]] = []
    for height in range(1, await chain.rpc.height() + 1):
        block_hash = await chain.rpc.call("getblockhash", height)
        block = await chain.rpc.call("getblock", block_hash, 2)
        found += block["tx"][1:]
    return found


async def unclaimed(chain: Regtest, agreed: Collection[str]) -> dict[str, int]:
    """Outputs of commitment transactions that nobody has taken yet, sat, without their anchors.

    Not of channels that their wallet closed by agreement before it left: if the LSP has not heard
    of it and the funding is reorganised, nobody is there any more to take the wallet's side.
    """
    left: dict[str, int] = {}
    for tx in await all_transactions(chain):
        if is_commitment(tx) and tx["vin"][0]["txid"] not in agreed:
            for output in tx["vout"]:
                if to_sat(output) != ANCHOR_SAT and await chain.rpc.txout(tx["txid"], output["n"]):
                    which = f"{tx['txid']}:{output['n']}, funding {tx['vin'][0]['txid']}"
                    left[which] = to_sat(output)
    return left


async def check_chain(
    chain: Regtest,
    ledger: Sequence[dict[str, Any]],
    excused: Mapping[str, str],
    report: Report,
) -> None:
    """One funding transaction an order, spent by a commitment transaction only for a reason."""
    txs = await all_transactions(chain)
    published = {tx["txid"] for tx in txs}
    findings = report.findings
    opens: Counter[str] = Counter()
    paid: set[str] = set()
    orders: dict[str, str] = {}
    unpaid: set[str] = set()
    for row in ledger:
        entry = row["entry"]
        if entry["kind"] == "order_paid":
            paid.add(entry["channel"])
        if entry["kind"] == "channel_closed" and entry["reason"] == "fee_unpaid":
            unpaid.add(entry["channel"])
    why = dict(excused)
    for row in ledger:
        entry = row["entry"]
        if entry["kind"] != "channel_opened":
            continue
        txid = entry["funding"].partition(":")[0]
        orders[txid] = entry["channel"]
        if entry["channel"] in unpaid:
            why.setdefault(txid, "never paid for")
        if txid in published:
            # A scid may be sold again; the last 24 bits of an open's id count attempts.
            opens[entry["open"][:-6]] += 1
        else:
            report.forgotten += 1
    for tx in txs:
        if is_commitment(tx):
            txid = tx["vin"][0]["txid"]
            report.closed_by_force[why.get(txid, "nobody knows")] += 1
            if txid not in why:
                text = f"channel {orders.get(txid, 'of no order')}, funding {txid}"
                findings.append(Finding("commitment transaction on chain", text))
    for sale, count in opens.items():
        if count > 1:
            findings.append(Finding("opened more than once", f"sale {sale}: {count} times"))
    for txid, channel in orders.items():
        if channel in paid and txid not in published:
            findings.append(Finding("paid for and not published", f"channel {channel}: {txid}"))
