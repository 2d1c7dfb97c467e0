"""The transport by the test vectors of BOLT 8, appendix A."""

from __future__ import annotations

import pytest

from .bolt8 import MAX_MESSAGE, Bolt8Error, Cipher, Initiator, Responder
from .curve import public_key

RESPONDER = bytes.fromhex("028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7")
KEY, EPHEMERAL = bytes([0x11]) * 32, bytes([0x12]) * 32
RESPONDERS_KEY, RESPONDERS_EPHEMERAL = bytes([0x21]) * 32, bytes([0x22]) * 32
ACT_ONE = (
    "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f7"
    "0df6086551151f58b8afe6c195782c6a"
)
ACT_TWO = (
    "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f27"
    "6e2470b93aac583c9ef6eafca3f730ae"
)
ACT_THREE = (
    "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d"
    "71ad0c38228dc68b1c466263b47fdf31e560e139ba"
)
ACT_THREE_OF_NO_POINT = (
    "00bfe3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa2235536ad09a8ee351870c2bb7f78"
    "b754a26c6cef79a98d25139c856d7efd252c2ae73c"
)
CHAINING_KEY = "919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01"
SENDING = "969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9"
RECEIVING = "bb9020b8965f4df047e07f955f3c4b88418984aadc5cdb35096b9ea8fa5c3442"
# What the n-th "hello" of one connection looks like; keys change at 500 and at 1000.
HELLO = {
    0: "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
    1: "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
    500: "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
    501: "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
    1000: "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
    1001: "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
}


def test_node_id_of_a_key() -> None:
    assert public_key(RESPONDERS_KEY) == RESPONDER


def test_initiator_handshake() -> None:
    handshake = Initiator(RESPONDER, KEY, EPHEMERAL)
    assert handshake.act_one().hex() == ACT_ONE
    act_three, sending, receiving = handshake.act_three(bytes.fromhex(ACT_TWO))
    assert act_three.hex() == ACT_THREE
    assert (sending.key.hex(), receiving.key.hex()) == (SENDING, RECEIVING)


@pytest.mark.parametrize(
    ("act_two", "said"),
    [
        pytest.param(ACT_TWO[:-2], "49 bytes", id="short read"),
        pytest.param("01" + ACT_TWO[2:], "version 1", id="bad version"),
        pytest.param("0004" + ACT_TWO[4:], "not a point", id="bad key serialization"),
        pytest.param(ACT_TWO[:-2] + "af", "bad tag", id="bad MAC"),
    ],
)
def test_initiator_refuses_a_bad_act_two(act_two: str, said: str) -> None:
    handshake = Initiator(RESPONDER, KEY, EPHEMERAL)
    handshake.act_one()
    with pytest.raises(Bolt8Error, match=said):
        handshake.act_three(bytes.fromhex(act_two))


def test_responder_handshake() -> None:
    handshake = Responder(RESPONDERS_KEY, RESPONDERS_EPHEMERAL)
    assert handshake.act_two(bytes.fromhex(ACT_ONE)).hex() == ACT_TWO
    node_id, sending, receiving = handshake.finish(bytes.fromhex(ACT_THREE))
    assert node_id == public_key(KEY)
    assert (receiving.key.hex(), sending.key.hex()) == (SENDING, RECEIVING)


@pytest.mark.parametrize(
    ("act_one", "said"),
    [
        pytest.param(ACT_ONE[:-2], "49 bytes", id="short read"),
        pytest.param("01" + ACT_ONE[2:], "version 1", id="bad version"),
        pytest.param("0004" + ACT_ONE[4:], "not a point", id="bad key serialization"),
        pytest.param(ACT_ONE[:-2] + "6b", "bad tag", id="bad MAC"),
    ],
)
def test_responder_refuses_a_bad_act_one(act_one: str, said: str) -> None:
    with pytest.raises(Bolt8Error, match=said):
        Responder(RESPONDERS_KEY, RESPONDERS_EPHEMERAL).act_two(bytes.fromhex(act_one))


@pytest.mark.parametrize(
    ("act_three", "said"),
    [
        pytest.param("01" + ACT_THREE[2:], "version 1", id="bad version"),
        pytest.param(ACT_THREE[:-2], "65 bytes", id="short read"),
        pytest.param("00c9" + ACT_THREE[4:], "bad tag", id="bad MAC for ciphertext"),
        pytest.param(ACT_THREE_OF_NO_POINT, "not a point", id="bad rs"),
        pytest.param(ACT_THREE[:-2] + "bb", "bad tag", id="bad MAC"),
    ],
)
def test_responder_refuses_a_bad_act_three(act_three: str, said: str) -> None:
    handshake = Responder(RESPONDERS_KEY, RESPONDERS_EPHEMERAL)
    handshake.act_two(bytes.fromhex(ACT_ONE))
    with pytest.raises(Bolt8Error, match=said):
        handshake.finish(bytes.fromhex(act_three))


def test_messages_and_key_rotation() -> None:
    sending = Cipher(bytes.fromhex(CHAINING_KEY), bytes.fromhex(SENDING))
    receiving = Cipher(bytes.fromhex(CHAINING_KEY), bytes.fromhex(SENDING))
    frames = [sending.frame(b"hello") for _ in range(1_002)]
    assert {n: frames[n].hex() for n in HELLO} == HELLO
    for frame in frames:
        assert receiving.decrypt(frame[:18]) == (5).to_bytes(2, "big")
        assert receiving.decrypt(frame[18:]) == b"hello"


def test_a_message_is_at_most_65535_bytes() -> None:
    cipher = Cipher(bytes(32), bytes(32))
    assert len(cipher.frame(bytes(MAX_MESSAGE))) == 2 + 16 + MAX_MESSAGE + 16
    with pytest.raises(ValueError, match="65536 bytes"):
        cipher.frame(bytes(MAX_MESSAGE + 1))
