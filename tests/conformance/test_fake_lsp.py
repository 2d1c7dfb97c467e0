"""The suite's own LSP: that clients can buy from it, and that it misbehaves as it is told."""

from __future__ import annotations

from typing import Any

import pytest

from .bolt8 import new_key
from .fake_lsp import HANG_UP, FakeLsp
from .peer import Peer, PeerGoneError, Target
from .rpc import BUY, GET_INFO, TOKEN_UNKNOWN, Client, buy_params, new_id, read_request, request
from .shop import SIZE, Shop, dump, failure

SUPPORTS_LSPS = 729


async def client_of(lsp: FakeLsp) -> Client:
    return await Client.connect(Target.parse(lsp.address))


async def test_a_client_buys_from_it() -> None:
    shop = Shop()
    async with FakeLsp(shop) as lsp, await client_of(lsp) as client:
        sold: list[Any] = []
        for size in (SIZE, None):
            await client.peer.send(request(GET_INFO, {}))
            menu = (await client.receive()).result
            assert menu == {"opening_fee_params_menu": shop.menu}
            await client.peer.send(request(BUY, buy_params(shop.menu[0], size)))
            sold.append((await client.receive()).result)
        assert [each["jit_channel_scid"] for each in sold] == list(shop.sales)
        assert list(shop.sales.values()) == [str(SIZE), None]
        assert shop.methods == [GET_INFO, BUY] * 2
        assert [each.connection for each in lsp.heard] == [0] * 4


async def test_both_sides_know_each_other() -> None:
    async with FakeLsp(Shop(), {SUPPORTS_LSPS}) as lsp, await client_of(lsp) as client:
        theirs = await lsp.arrival()
        assert theirs.other == client.peer.node_id
        assert client.peer.other == lsp.node_id
        assert SUPPORTS_LSPS in client.peer.features
        assert SUPPORTS_LSPS not in theirs.features
        await client.peer.ping()
        await theirs.ping()


async def test_it_gives_any_answers() -> None:
    shop, id_ = Shop(), new_id()
    shop.change(GET_INFO, lambda answer: [b"[]", failure(answer, TOKEN_UNKNOWN), answer])
    async with FakeLsp(shop) as lsp, await client_of(lsp) as client:
        await client.peer.send(request(GET_INFO, {}, id_))
        assert await client.peer.receive() == b"[]"
        assert (await client.receive()).code == TOKEN_UNKNOWN
        assert (await client.receive()).id == id_


async def test_it_waits_until_it_is_told() -> None:
    shop = Shop()
    held = shop.hold(GET_INFO)
    async with FakeLsp(shop) as lsp, await client_of(lsp) as client:
        await client.peer.send(request(GET_INFO, {}))
        await client.peer.send(request(BUY, {}))
        assert "jit_channel_scid" in ((await client.receive()).result or {})
        held.set()
        assert "opening_fee_params_menu" in ((await client.receive()).result or {})


async def test_it_hangs_up() -> None:
    shop = Shop()
    shop.change(GET_INFO, lambda _: [HANG_UP])
    async with FakeLsp(shop) as lsp, await client_of(lsp) as client:
        await client.peer.send(request(GET_INFO, {}))
        with pytest.raises(PeerGoneError):
            await client.peer.receive()


async def test_a_stranger_to_its_node_id_is_not_served() -> None:
    async with FakeLsp(Shop()) as lsp, FakeLsp(Shop()) as other:
        target = Target.parse(lsp.address)._replace(node_id=bytes.fromhex(other.node_id))
        with pytest.raises(EOFError):
            await Peer._connect(target, new_key())  # pyright: ignore[reportPrivateUsage]
        assert lsp.peers == []


async def test_a_wrong_request_is_noticed() -> None:
    lsp = await FakeLsp(Shop()).__aenter__()
    async with await client_of(lsp) as client:
        await client.peer.send(b"[]")
        # Answered later than the first would be.
        await client.peer.send(request(GET_INFO, {}))
        await client.receive()
    with pytest.raises(AssertionError):
        await lsp.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": ...},
        {"id": ...},
        {"id": 1},
        {"id": None},
        {"method": ...},
        {"method": 1},
        {"params": ...},
        {"params": []},
        {"result": {}},
    ],
)
def test_what_is_no_request(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {"jsonrpc": "2.0", "id": "1", "method": "a", "params": {}}
    assert read_request(dump(right)) == ("1", "a", {})
    fields = {name: each for name, each in {**right, **wrong}.items() if each is not ...}
    with pytest.raises(AssertionError):
        read_request(dump(fields))
