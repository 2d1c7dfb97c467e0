"""Invoices and addresses of another network are refused by its name, and nothing is changed."""

from __future__ import annotations

import hashlib

import pytest
from handmade import base58_address, invoice, payee, segwit_address
from support import Pair

from ldkjit import AddressError, InvoiceError, PaymentError, sat

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60),
]

HASH = hashlib.sha256(b"a preimage that nobody gives").digest()
KEY_HASH, SCRIPT_HASH = bytes(range(20)), bytes(range(32))
# Prefixes of BOLT 11.
NETWORKS = [("bc", "bitcoin"), ("tb", "testnet"), ("tbs", "signet")]


async def test_an_invoice_made_here_is_good_but_for_its_network(shared_pair: Pair) -> None:
    """So that the other tests' invoices are refused for their network alone."""
    ours = invoice("bcrt", HASH)
    told = await shared_pair.ann.decode(ours)
    assert (told.payment_hash, told.amount) == (HASH.hex(), sat(10_000))
    assert told.model_dump()["payee"] == payee()
    with pytest.raises(PaymentError, match="no route"):
        await shared_pair.ann.pay(ours, retry=0, timeout=10)


@pytest.mark.parametrize("form", [str, str.upper, "lightning:{}".format], ids=["", "upper", "uri"])
@pytest.mark.parametrize(("prefix", "network"), NETWORKS)
async def test_invoices(shared_pair: Pair, prefix: str, network: str, form: type[str]) -> None:
    ann = shared_pair.ann
    bolt11 = form(invoice(prefix, HASH))
    for call in (ann.pay(bolt11), ann.pay(bolt11, amount=sat(1)), ann.decode(bolt11)):
        with pytest.raises(InvoiceError) as caught:
            await call
        assert str(caught.value) == f"the invoice is of {network}, this node runs on regtest"
        assert caught.value.why == "wrong_network"
        assert not caught.value.retryable


# Testnet and signet share their prefix; of old addresses, regtest has those of testnet too.
TEST_NETWORKS = "testnet or testnet4 or signet"


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        (segwit_address("bc", 0, KEY_HASH), "bitcoin"),
        (segwit_address("bc", 0, SCRIPT_HASH), "bitcoin"),
        (segwit_address("bc", 1, SCRIPT_HASH), "bitcoin"),
        (segwit_address("bc", 1, SCRIPT_HASH).upper(), "bitcoin"),
        (base58_address(0, KEY_HASH), "bitcoin"),
        (base58_address(5, KEY_HASH), "bitcoin"),
        (segwit_address("tb", 0, KEY_HASH), TEST_NETWORKS),
        (segwit_address("tb", 0, SCRIPT_HASH), TEST_NETWORKS),
        (segwit_address("tb", 1, SCRIPT_HASH), TEST_NETWORKS),
    ],
)
async def test_addresses(shared_pair: Pair, address: str, networks: str) -> None:
    for amount in (10_000, None):
        with pytest.raises(AddressError) as caught:
            await shared_pair.ann.send_onchain(address, amount)
        assert str(caught.value) == f"the address is of {networks}, this node runs on regtest"
        assert not caught.value.retryable
    assert await shared_pair.box.chain.rpc.mempool() == []


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (segwit_address("bcrt", 0, KEY_HASH), "witness_v0_keyhash"),
        (segwit_address("bcrt", 0, SCRIPT_HASH), "witness_v0_scripthash"),
        (segwit_address("bcrt", 1, SCRIPT_HASH), "witness_v1_taproot"),
        (base58_address(111, KEY_HASH), "pubkeyhash"),
        (base58_address(196, KEY_HASH), "scripthash"),
    ],
)
async def test_addresses_made_here_are_good_but_for_their_network(
    shared_pair: Pair, address: str, kind: str
) -> None:
    rpc = shared_pair.box.chain.rpc
    assert (await rpc.call("validateaddress", address))["isvalid"]
    script = (await rpc.call("validateaddress", address))["scriptPubKey"]
    assert (await rpc.call("decodescript", script))["type"] == kind
