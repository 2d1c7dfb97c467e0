"""BOLT 8 messages: their type and size, who speaks first, feature bits, reconnections."""

from __future__ import annotations

import pytest

from .peer import MAX_PAYLOAD, MESSAGE_TYPE, Peer, Target
from .rpc import GET_INFO, INVALID_PARAMS, LIST_PROTOCOLS, Client, Offer, new_id, request

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

# option_supports_lsps (bLIP-50); the even bit beside it is nobody's.
SUPPORTS_LSPS = 729


async def test_T_01_the_largest_message_is_read(client: Client) -> None:
    id_ = new_id()
    answer = await client.say(request(LIST_PROTOCOLS, {}, id_).ljust(MAX_PAYLOAD))
    assert (answer.id, answer.code) == (id_, None)


async def test_T_01_an_answer_to_a_huge_request_fits_one_message(client: Client) -> None:
    """An answer that repeats what was sent must still leave the LSP."""
    id_, name = new_id(), "x" * (MAX_PAYLOAD - 200)
    payload = request(LIST_PROTOCOLS, {name: 1}, id_)
    assert MAX_PAYLOAD - 200 < len(payload) <= MAX_PAYLOAD
    answer = await client.say(payload)
    assert (answer.id, answer.code) == (id_, INVALID_PARAMS)


async def test_T_01_messages_of_other_types_are_not_for_lsps(client: Client) -> None:
    for kind in (MESSAGE_TYPE - 2, MESSAGE_TYPE + 2):
        await client.peer.send_message(kind, request(LIST_PROTOCOLS, {}))
    assert await client.others() == []


async def test_T_07_the_client_speaks_first(client: Client) -> None:
    await client.peer.ping()
    assert await client.others() == []


async def test_T_12_the_feature_bit_is_the_optional_one(client: Client) -> None:
    assert SUPPORTS_LSPS - 1 not in client.peer.features
    if SUPPORTS_LSPS in client.peer.features:
        assert (await client.ask(LIST_PROTOCOLS, {})).code is None


async def test_T_12_only_a_service_has_the_feature_bit(our_lsp: Target, plain_node: Target) -> None:
    async with await Peer.connect(our_lsp) as lsp, await Peer.connect(plain_node) as plain:
        assert SUPPORTS_LSPS in lsp.features
        assert SUPPORTS_LSPS not in plain.features


async def test_T_17_an_answer_that_was_not_taken_is_not_sent_again(
    client: Client, lsp: Target
) -> None:
    for _ in range(5):
        await client.peer.send(request(GET_INFO, {}))
        # So that it is certain to have been read.
        await client.peer.ping()
        client = await client.again(lsp)
        assert await client.others() == []
    await client.peer.close()


async def test_S_12_an_id_may_come_again_on_another_connection(client: Client, lsp: Target) -> None:
    payload = request(LIST_PROTOCOLS, {}, new_id())
    first = await client.say(payload)
    async with await client.again(lsp) as again:
        assert await again.say(payload) == first


async def test_J_36_a_client_is_its_node_id_not_its_connection(
    client: Client, lsp: Target, offer: Offer
) -> None:
    async with await client.again(lsp) as again:
        assert again.peer.node_id == client.peer.node_id
        assert (await again.buy(offer)).code is None
