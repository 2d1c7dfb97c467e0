"""The JSON-RPC envelope: what is a request, what is none, and that each has one answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .rpc import (
    BUY,
    GET_INFO,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIST_PROTOCOLS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    Answer,
    Client,
    new_id,
    request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

GOOD = b'{"jsonrpc":"2.0","id":"0123456789abcdef0123","method":"lsps0.list_protocols","params":{}}'
GOOD_ID = "0123456789abcdef0123"

NO_OBJECT = {
    "nothing": b"",
    "blanks": b" \n",
    "half an object": b"{",
    "half a request": GOOD[:-1],
    "an array": b" [ ] ",
    "a batch": b"[" + GOOD + b"," + GOOD + b"]",
    "a string": b'"' + GOOD.replace(b'"', b'\\"') + b'"',
    "a number": b"37913",
    "null": b"null",
    "two requests": GOOD + GOOD,
    "two objects": b" { } { } ",
    "one object and a half": b" { } { ",
    "text behind": GOOD + b"x",
    "a closing brace too many": GOOD + b"}",
    "a 0 byte in front": b"\0" + GOOD,
    "a 0 byte behind": GOOD + b"\0",
    "a 0 byte among the blanks": GOOD[:1] + b" \0 " + GOOD[1:],
    "a 0 byte in a string": GOOD.replace(b"abcdef", b"abc\0def"),
    "a control character in a string": GOOD.replace(b"abcdef", b"abc\ndef"),
    "no UTF-8": GOOD.replace(b"abcdef", b"abc\xffdef"),
    "overlong UTF-8": GOOD.replace(b"abcdef", b"abc\xc0\xafdef"),
    "a surrogate in UTF-8": GOOD.replace(b"abcdef", b"abc\xed\xa0\x80def"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "a form feed around it": b"\x0c" + GOOD,
    "a comment": GOOD + b"// hello",
    "a comma behind": GOOD[:-1] + b",}",
    "single quotes": GOOD.replace(b'"', b"'"),
    "NaN": GOOD.replace(b"{}", b'{"a":NaN}'),
    "a number with a leading zero": GOOD.replace(b"{}", b'{"a":01}'),
}


def _with(**fields: Any) -> bytes:
    """The good request with other fields; those that are ``...`` are left out."""
    changed = {**json.loads(GOOD), **fields}
    return json.dumps({name: each for name, each in changed.items() if each is not ...}).encode()


def _is_no_request(answer: Answer) -> None:
    """A parse error for bLIP-50, an invalid request for JSON-RPC, which may name the id."""
    assert (answer.code, answer.id) in {
        (PARSE_ERROR, None),
        (INVALID_REQUEST, None),
        (INVALID_REQUEST, GOOD_ID),
    }, answer


@pytest.mark.parametrize("payload", NO_OBJECT.values(), ids=NO_OBJECT.keys())
async def test_T_02_T_04_S_01_what_is_not_one_json_object(client: Client, payload: bytes) -> None:
    answer = await client.say(payload)
    assert (answer.code, answer.id) == (PARSE_ERROR, None)


async def test_T_04_bad_messages_in_a_row_are_answered_one_by_one(client: Client) -> None:
    for payload in NO_OBJECT.values():
        await client.peer.send(payload)
    for _ in NO_OBJECT:
        answer = await client.receive()
        assert (answer.code, answer.id) == (PARSE_ERROR, None)
    assert await client.others() == []


@pytest.mark.parametrize("blanks", [b" ", b"\t", b"\r\n", b" \t\r\n" * 1_000])
async def test_T_02_blanks_around_the_object(client: Client, blanks: bytes) -> None:
    answer = await client.say(blanks + GOOD + blanks)
    assert (answer.id, answer.code) == (GOOD_ID, None)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(GOOD.replace(b",", b" ,\n\t").replace(b":", b"\r: "), id="blanks"),
        pytest.param(json.dumps(dict(reversed(json.loads(GOOD).items()))).encode(), id="order"),
        pytest.param(GOOD.replace(b"list_p", b"list\\u005fp"), id="an escape in the method"),
        pytest.param(GOOD.replace(b'"params"', b'"\\u0070arams"'), id="an escape in a name"),
        pytest.param(GOOD.replace(b'"0123', b'"\\u00301\\u00323'), id="escapes in the id"),
        pytest.param(_with(params=...), id="no params"),
    ],
)
async def test_T_02_ways_to_write_the_same_request(client: Client, payload: bytes) -> None:
    answer = await client.say(payload)
    assert (answer.id, answer.code) == (GOOD_ID, None)


async def test_T_04_S_02_a_notification_is_no_request(client: Client) -> None:
    answer = await client.say(_with(id=...))
    assert (answer.code, answer.id) == (PARSE_ERROR, None)


@pytest.mark.parametrize("method", [..., None, 37_913, True, ["lsps0.list_protocols"], {}])
async def test_T_04_a_request_names_its_method(client: Client, method: Any) -> None:
    _is_no_request(await client.say(_with(method=method)))


async def test_T_04_a_result_is_no_request(client: Client) -> None:
    _is_no_request(await client.say(_with(method=..., params=..., result={"protocols": [2]})))


@pytest.mark.parametrize("data", [..., None, "text", 7, True, ["a"], {"a": {}}])
async def test_T_04_an_error_is_no_request(client: Client, data: Any) -> None:
    """Silence is allowed too: two LSPs would answer each other's errors for ever."""
    error = {"code": PARSE_ERROR, "message": "Parse error"}
    if data is not ...:
        error["data"] = data
    await client.peer.send(_with(id=None, method=..., params=..., error=error))
    answers = await client.others()
    assert [(each.code, each.id) for each in answers] in ([], [(PARSE_ERROR, None)])


@pytest.mark.parametrize("version", [..., None, "", "1.0", "2", "2.1", " 2.0", 2, 2.0, ["2.0"]])
@pytest.mark.parametrize("id_", [GOOD_ID, ...], ids=["id", "no id"])
async def test_T_16_S_02_another_version_of_json_rpc(
    client: Client, version: Any, id_: Any
) -> None:
    answer = await client.say(_with(jsonrpc=version, id=id_))
    _is_no_request(answer)
    assert id_ is not ... or answer.id is None


async def test_T_16_an_empty_object_is_no_request(client: Client) -> None:
    _is_no_request(await client.say(b"{}"))


@pytest.mark.parametrize("params", [[], ["token"], [{}], "", "{}", 0, True])
async def test_T_16_params_are_given_by_name(client: Client, params: Any) -> None:
    answer = await client.say(_with(params=params))
    if answer.code == INVALID_PARAMS:
        assert (answer.id, answer.data["unrecognized"]) == (GOOD_ID, [])
    else:
        _is_no_request(answer)


@pytest.mark.parametrize("id_", [0, 42, -1, 2**53, None])
async def test_T_04_an_id_that_clients_must_not_use(client: Client, id_: Any) -> None:
    """JSON-RPC knows ids that are no strings, bLIP-50 forbids clients to send them."""
    answer = await client.say(_with(id=id_))
    if answer.code is None:
        assert (type(answer.id), answer.id) == (type(id_), id_)
    else:
        _is_no_request(answer)


@pytest.mark.parametrize("id_", [True, 1.5, ["a"], {"a": 1}])
async def test_T_04_an_id_that_json_rpc_does_not_know(client: Client, id_: Any) -> None:
    answer = await client.say(_with(id=id_))
    assert answer.id is None
    _is_no_request(answer)


@pytest.mark.parametrize(
    "id_",
    [
        pytest.param("x", id="short"),
        pytest.param("x" * 1_000, id="long"),
        pytest.param('"\\/<>&;%s{}', id="punctuation"),
        pytest.param("\0\n\t\x1f\x7f", id="control characters"),
        pytest.param("é ह 語 😀", id="not ASCII"),
        pytest.param("42", id="digits"),
        pytest.param("null", id="null in quotes"),
    ],
)
async def test_T_16_an_answer_repeats_the_id(client: Client, id_: str) -> None:
    answer = await client.say(_with(id=id_))
    assert (answer.id, answer.code) == (id_, None)


async def test_T_16_an_id_so_long_that_an_answer_hardly_fits(client: Client) -> None:
    id_ = "x" * 65_000
    answer = await client.say(_with(id=id_))
    assert (answer.code, answer.id) in {(None, id_), (PARSE_ERROR, None)}


async def test_T_16_two_requests_of_one_id_have_two_answers(client: Client) -> None:
    await client.peer.send(GOOD)
    await client.peer.send(GOOD)
    first, second = await client.receive(), await client.receive()
    assert first == second
    assert (first.id, first.code) == (GOOD_ID, None)
    assert await client.others() == []


async def test_T_06_requests_at_once_have_one_answer_each(client: Client) -> None:
    """The answers may come in any order."""
    expected = {new_id(): None, new_id(): METHOD_NOT_FOUND, new_id(): INVALID_PARAMS}
    listing, unknown, faulty = expected
    await client.peer.send(request(LIST_PROTOCOLS, {}, listing))
    await client.peer.send(request("lsps2.no_such_method", {}, unknown))
    await client.peer.send(request(BUY, {}, faulty))
    await client.peer.send(b"{")
    answers = [await client.receive() for _ in range(4)]
    assert {each.id: each.code for each in answers} == {**expected, None: PARSE_ERROR}
    assert await client.others() == []


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["arrays", "objects"])
async def test_T_02_a_message_as_deep_as_it_can_be(client: Client, opening: bytes) -> None:
    """JSON lets a reader bound the depth; it may not lose the message, nor itself."""
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    deep = opening * 10_000 + b"1" + closing * 10_000
    payload = request(GET_INFO, {"token": "DEEP"}).replace(b'"DEEP"', deep)
    answer = await client.say(payload)
    assert (answer.code, answer.id is None) in {(PARSE_ERROR, True), (INVALID_PARAMS, False)}
