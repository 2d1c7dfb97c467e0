"""JSON-RPC as LSPS speaks it, and what every request and every answer must look like."""

from __future__ import annotations

import asyncio
import json
import secrets
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, cast

from .peer import Peer, Target

JSONRPC = "2.0"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
CLIENT_REJECTED = 1
TOKEN_UNKNOWN, OFFER_INVALID, PAYMENT_TOO_SMALL, PAYMENT_TOO_LARGE = 200, 201, 202, 203
TOO_LONG, URL_INVALID, NOT_HTTPS, TOO_MANY_WEBHOOKS = 500, 501, 502, 503
# B-14: outside of LSPS5's own range.
NO_SUCH_WEBHOOK = 1_010

SET_WEBHOOK, LIST_WEBHOOKS = "lsps5.set_webhook", "lsps5.list_webhooks"
REMOVE_WEBHOOK = "lsps5.remove_webhook"
LIST_PROTOCOLS, GET_INFO, BUY = "lsps0.list_protocols", "lsps2.get_info", "lsps2.buy"

# JSON-RPC's own codes, those it leaves to servers, the ranges of LSPS0, 2 and 5 (T-15, T-16).
_CODES = [
    range(PARSE_ERROR, PARSE_ERROR + 1),
    range(INTERNAL_ERROR, INVALID_REQUEST + 1),
    range(-32_099, -31_999),
    range(100),
    range(200, 300),
    range(500, 600),
    range(NO_SUCH_WEBHOOK, NO_SUCH_WEBHOOK + 1),
]
Offer = dict[str, Any]


class Answer(NamedTuple):
    """A response: a result, or an error's code, text and data."""

    id: str | int | None
    result: dict[str, Any] | None = None
    code: int | None = None
    message: str = ""
    data: Any = None


class Request(NamedTuple):
    """What a client asks."""

    id: str
    method: str
    params: dict[str, Any]


def new_id() -> str:
    """An id of 128 random bits (T-10)."""
    return secrets.token_hex(16)


def request(method: str, params: Any = None, id_: Any = None) -> bytes:
    """The payload of a request; without params it has none."""
    fields: dict[str, Any] = {"jsonrpc": JSONRPC, "id": id_ or new_id(), "method": method}
    if params is not None:
        fields["params"] = params
    return json.dumps(fields, ensure_ascii=False).encode()


def buy_params(offer: Offer, size: Any = None) -> dict[str, Any]:
    """The parameters of ``lsps2.buy``; an integer becomes the decimal string of the wire."""
    if size is None:
        return {"opening_fee_params": offer}
    size = str(size) if type(size) is int else size
    return {"opening_fee_params": offer, "payment_size_msat": size}


def read_answer(payload: bytes) -> Answer:
    """Read a response, strictly (T-02, T-06, T-15, T-16)."""
    assert 0 not in payload
    fields = _object(json.loads(payload.decode(), parse_constant=_no_json), payload)
    assert fields.get("jsonrpc") == JSONRPC, payload
    assert "id" in fields, payload
    assert "method" not in fields, payload
    assert ("result" in fields) != ("error" in fields), payload
    if "result" in fields:
        return Answer(fields["id"], result=_object(fields["result"], payload))
    error = _object(fields["error"], payload)
    code, message, data = error["code"], error["message"], error.get("data")
    assert type(code) is int, payload
    assert any(code in codes for codes in _CODES), payload
    assert isinstance(message, str), payload
    if code == INVALID_PARAMS:
        names: Any = _object(data, payload)["unrecognized"]
        assert isinstance(names, list), payload
        assert all(isinstance(name, str) for name in cast(list[Any], names)), payload
    elif data is not None:
        _object(data, payload)
    return Answer(fields["id"], None, code, message, data)


def read_request(payload: bytes) -> Request:
    """Read a request, strictly (T-02, T-03, T-10, T-16)."""
    assert 0 not in payload
    fields = _object(json.loads(payload.decode(), parse_constant=_no_json), payload)
    assert fields.keys() == {"jsonrpc", "id", "method", "params"}, payload
    assert fields["jsonrpc"] == JSONRPC, payload
    assert isinstance(fields["id"], str), payload
    assert isinstance(fields["method"], str), payload
    return Request(fields["id"], fields["method"], _object(fields["params"], payload))


def _object(value: Any, payload: bytes) -> dict[str, Any]:
    assert isinstance(value, dict), payload
    return cast(dict[str, Any], value)


def _no_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


async def ask_once(peer: Peer, method: str, params: Any, timeout: float) -> Answer:
    """Send a request; its answer, and nothing else is asked: for whoever measures.

    Raises:
        TimeoutError: There was none in time, seconds.
    """
    id_ = new_id()
    await peer.send(request(method, params, id_))
    answer = read_answer(await asyncio.wait_for(peer.wait(), timeout))
    assert answer.id == id_, answer
    return answer


class Client:
    """A client with one connection: ``async with await Client.connect(target) as client:``."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    @classmethod
    async def connect(cls, target: Target, key: bytes | None = None) -> Client:
        """Connect, as a stranger unless a key is given."""
        return cls(await Peer.connect(target, key))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.peer.close()

    async def again(self, target: Target) -> Client:
        """Hang up and connect with the same key."""
        return Client(await self.peer.again(target))

    async def receive(self) -> Answer:
        """The next answer, whatever it answers."""
        return read_answer(await self.peer.receive())

    async def others(self) -> list[Answer]:
        """Ask something harmless; what came before its answer, which must come."""
        id_, others = new_id(), list[Answer]()
        await self.peer.send(request(LIST_PROTOCOLS, {}, id_))
        while (answer := await self.receive()).id != id_:
            others.append(answer)
        assert answer.code is None, answer
        return others

    async def say(self, payload: bytes) -> Answer:
        """Send any payload; its one answer, after which we are still served."""
        await self.peer.send(payload)
        answer = await self.receive()
        assert await self.others() == []
        return answer

    async def ask(self, method: str, params: Any = None) -> Answer:
        """Send a request; its answer."""
        id_ = new_id()
        answer = await self.say(request(method, params, id_))
        assert answer.id == id_, answer
        return answer

    async def get_info(self, token: str | None = None) -> list[Offer]:
        """The menu for a token, or for none."""
        answer = await self.ask(GET_INFO, {} if token is None else {"token": token})
        assert answer.result is not None, answer
        menu: Any = answer.result["opening_fee_params_menu"]
        assert isinstance(menu, list)
        return cast(list[Offer], menu)

    async def buy(self, offer: Offer, size: Any = None) -> Answer:
        """Buy a channel, for a payment of this size in msat."""
        return await self.ask(BUY, buy_params(offer, size))
