"""The suite's own tools: that an answer is read strictly, and a wrong one noticed."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from . import tlv
from .offers import FIELDS, PROMISED, forgeries, opening_fee
from .peer import Peer, Target
from .rpc import Client, new_id, read_answer, request

NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
# An answer that says nothing.
EMPTY: dict[str, Any] = {"result": {}}


class Lsp:
    """What a client takes for its peer: an LSP that gives each request the same answers."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = answers
        self._sent: list[bytes] = []

    async def send(self, payload: bytes) -> None:
        asked = json.loads(payload)
        for each in self._answers if asked["method"] == "asked" else (EMPTY,):
            answer = {"jsonrpc": "2.0", "id": asked["id"], **each}
            self._sent.append(json.dumps(answer).encode())

    async def receive(self) -> bytes:
        return self._sent.pop(0)

    def client(self) -> Client:
        return Client(cast(Peer, self))


async def test_one_answer_is_taken() -> None:
    answer = await Lsp({"result": {"a": 1}}).client().ask("asked")
    assert (answer.result, answer.code) == ({"a": 1}, None)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([EMPTY, EMPTY], id="two answers"),
        pytest.param([{**EMPTY, "id": "another"}], id="to another request"),
        pytest.param([{**EMPTY, "id": None}], id="to no request"),
    ],
)
async def test_another_number_of_answers_is_noticed(answers: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError):
        await Lsp(*answers).client().ask("asked")


@pytest.mark.parametrize(
    "wrong",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": ...},
        {"id": ...},
        {"method": "lsps2.buy"},
        {"result": ...},
        {"result": []},
        {"result": None},
        {"error": {"code": 1, "message": ""}},
        {"result": ..., "error": {"code": "1", "message": ""}},
        {"result": ..., "error": {"code": True, "message": ""}},
        {"result": ..., "error": {"code": 300, "message": ""}},
        {"result": ..., "error": {"code": -32_602, "message": ""}},
        {"result": ..., "error": {"code": -32_602, "message": "", "data": {"unrecognized": [1]}}},
        {"result": ..., "error": {"code": 1, "message": None}},
        {"result": ..., "error": {"code": 1, "message": "", "data": "text"}},
    ],
)
def test_a_wrong_answer_is_noticed(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"jsonrpc": "2.0", "id": "1", **EMPTY}
    assert read_answer(json.dumps(right).encode()).result == {}
    fields = {name: each for name, each in {**right, **wrong}.items() if each is not ...}
    with pytest.raises(AssertionError):
        read_answer(json.dumps(fields).encode())


def test_request_ids_are_strings_of_high_entropy() -> None:
    asked = [json.loads(request("lsps0.list_protocols")) for _ in range(100)]
    ids = {each["id"] for each in asked}
    assert len(ids) == 100
    assert all(isinstance(each, str) and len(each) >= 20 for each in ids)
    assert all(each.keys() == {"jsonrpc", "id", "method"} for each in asked)


@pytest.mark.parametrize(
    ("ppm", "size", "fee"),
    [
        (1, 2**64 - 999_999, None),
        (1, 2**64 - 1_000_000, 18_446_744_073_709),
        (2, 2**64 - 1_000_000, None),
        (1, 1, 7),
        (1_000_000, 8, 8),
        (500_000, 15, 8),
    ],
)
def test_the_fee_by_the_vectors_of_j_20(ppm: int, size: int, fee: int | None) -> None:
    assert opening_fee({"min_fee_msat": "7", "proportional": ppm}, size) == fee


def test_forgeries_change_each_field_once() -> None:
    offer = {
        "min_fee_msat": "1",
        "proportional": 1,
        "valid_until": "2030-12-31T23:59:59.999Z",
        "min_lifetime": 1,
        "max_client_to_self_delay": 1,
        "min_payment_size_msat": "1",
        "max_payment_size_msat": "1",
        "promise": new_id(),
    }
    assert offer.keys() == FIELDS
    forged = dict(forgeries(offer))
    assert tuple(forged) == PROMISED
    assert forged["valid_until"]["valid_until"] == "2031-01-01T00:00:00.000Z"
    for name, each in forged.items():
        assert [field for field in offer if each[field] != offer[field]] == [name]


@pytest.mark.parametrize(
    ("address", "host"),
    [("10.0.0.1:9735", "10.0.0.1"), ("[::1]:9735", "::1"), ("::1:9735", "::1")],
)
def test_T_22_a_target_is_read(address: str, host: str) -> None:
    assert Target.parse(f"{NODE_ID}@{address}") == (bytes.fromhex(NODE_ID), host, 9735)


def test_optional_fields_are_read() -> None:
    fee = bytes.fromhex("fe00010001080000000000000005")
    assert tlv.read(tlv.write(1, b"a") + fee) == {1: b"a", 65_537: bytes([*bytes(7), 5])}
    assert tlv.read(b"") == {}
    long = bytes.fromhex("fd00fdfd00ff") + bytes(255)
    assert tlv.read(long) == {253: bytes(255)}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("01000100", id="twice"),
        pytest.param("03000100", id="not in order"),
        pytest.param("01", id="without a size"),
        pytest.param("010200", id="behind the end"),
        pytest.param("fd00fc00", id="a type longer than need be"),
        pytest.param("01fe0000ffff", id="a size longer than need be"),
        pytest.param("fd01", id="half a type"),
    ],
)
def test_wrong_optional_fields_are_noticed(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        tlv.read(bytes.fromhex(wrong))
