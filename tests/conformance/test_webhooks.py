"""Webhooks at an LSP: requests about them, and the notifications that come to the first of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from web import OK, Call, Web

from . import ours
from .offers import sellable
from .peer import Target
from .rpc import (
    CLIENT_REJECTED,
    INVALID_PARAMS,
    LIST_PROTOCOLS,
    LIST_WEBHOOKS,
    METHOD_NOT_FOUND,
    NO_SUCH_WEBHOOK,
    NOT_HTTPS,
    REMOVE_WEBHOOK,
    SET_WEBHOOK,
    TOO_LONG,
    TOO_MANY_WEBHOOKS,
    URL_INVALID,
    Answer,
    Client,
    new_id,
    request,
)
from .signature import signer_of

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(60)]

PROTOCOL = 5
# Nobody is there: what is sent to it is lost.
NOWHERE = "https://example.invalid/push?token=1"
REGISTERED = "lsps5.webhook_registered"
DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
QUIET_S = 0.5


async def set_(client: Client, app_name: str, webhook: str = NOWHERE) -> Answer:
    return await client.ask(SET_WEBHOOK, {"app_name": app_name, "webhook": webhook})


async def names(client: Client) -> list[str]:
    answer = await client.ask(LIST_WEBHOOKS, {})
    assert answer.result is not None, answer
    assert answer.result.keys() >= {"app_names", "max_webhooks"}
    return sorted(answer.result["app_names"])


@pytest_asyncio.fixture(loop_scope="package")
async def customer(client: Client, token: str | None) -> Client:
    """A client that has bought: an LSP may keep no webhooks of others."""
    protocols = (await client.ask(LIST_PROTOCOLS, {})).result
    if protocols is None or PROTOCOL not in protocols["protocols"]:
        pytest.skip("this LSP does not offer LSPS5")
    offer, *_ = await client.get_info(token)
    assert (await client.buy(offer, sellable(offer))).code is None
    return client


@pytest_asyncio.fixture(loop_scope="package")
async def limit(customer: Client) -> int:
    """How many webhooks a client may have."""
    answer = await customer.ask(LIST_WEBHOOKS, {})
    assert answer.result is not None
    return int(answer.result["max_webhooks"])


@pytest.mark.parametrize(
    ("code", "app_name"),
    [
        pytest.param(None, "a" * 64, id="64 bytes"),
        pytest.param(TOO_LONG, "a" * 65, id="65 bytes"),
        pytest.param(None, "é" * 32, id="64 bytes of UTF-8"),
        pytest.param(TOO_LONG, "é" * 33, id="66 bytes of UTF-8"),
    ],
)
async def test_W_02_the_length_of_a_name(customer: Client, code: int | None, app_name: str) -> None:
    assert (await set_(customer, app_name)).code == code


@pytest.mark.parametrize("length", [1_024, 1_025])
async def test_W_02_the_length_of_a_url(customer: Client, length: int) -> None:
    url = NOWHERE + "a" * (length - len(NOWHERE))
    assert (await set_(customer, "long", url)).code == (None if length == 1_024 else TOO_LONG)


@pytest.mark.parametrize(("code", "count"), [(None, 10), (TOO_LONG, 11)])
async def test_W_02_escapes_count_as_they_are_written(
    customer: Client, code: int | None, count: int
) -> None:
    """Ten needless escapes are sixty bytes, eleven are too many."""
    id_ = new_id()
    payload = request(SET_WEBHOOK, {"app_name": "NAME", "webhook": NOWHERE}, id_)
    answer = await customer.say(payload.replace(b"NAME", rb"\u0061" * count))
    assert (answer.id, answer.code) == (id_, code)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "https",
        "https:",
        "https://",
        "https:///path",
        "https://:443/",
        "https://exa mple.org/",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://example.org:x/",
        "https://example.org:65536/",
        "https://例子.测试/",
        "1https://example.org/",
    ],
)
async def test_W_03_what_is_no_url(customer: Client, url: str) -> None:
    assert (await set_(customer, "bad", url)).code == URL_INVALID
    assert "bad" not in await names(customer)


@pytest.mark.parametrize("scheme", ["http", "ftp", "httpss", "ws", "mqtt"])
async def test_W_04_other_protocols(customer: Client, scheme: str) -> None:
    assert (await set_(customer, "bad", f"{scheme}://example.org/")).code == NOT_HTTPS
    assert "bad" not in await names(customer)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.invalid",
        "HTTPS://EXAMPLE.INVALID/",
        "https://example.invalid:8443/a/b;c?d=e&f=%20+g-_.!*'()",
        "https://192.0.2.1/",
    ],
)
async def test_W_04_https_is_supported(customer: Client, url: str) -> None:
    assert (await set_(customer, "good", url)).code is None


async def test_W_05_W_06_W_08_W_12_insert_or_replace(customer: Client, limit: int) -> None:
    """Names up to the limit, of which any may be replaced, or confirmed, there too."""
    assert await names(customer) == []
    for number in range(limit):
        answer = await set_(customer, f"app {number}")
        expected = {"num_webhooks": number + 1, "max_webhooks": limit, "no_change": False}
        assert answer.result is not None
        assert {name: answer.result.get(name) for name in expected} == expected
    refused = await set_(customer, "one more")
    assert refused.code == TOO_MANY_WEBHOOKS
    assert refused.data["max_webhooks"] == limit
    for url, no_change in [(NOWHERE, True), (NOWHERE + "2", False), (NOWHERE + "2", True)]:
        answer = await set_(customer, "app 0", url)
        assert answer.result is not None
        assert answer.result["num_webhooks"] == limit
        assert answer.result["no_change"] is no_change
    assert await names(customer) == sorted(f"app {number}" for number in range(limit))


async def test_W_08_a_name_is_its_letters(customer: Client) -> None:
    """Neither case nor blanks nor the way to write it make two names one, or one name two."""
    for each in ("app", "App", "app ", "äpp", "a\u0308pp", "<b>", "\u0000", ""):
        answer = await set_(customer, each)
        assert answer.result is not None
        assert answer.result["no_change"] is False
    assert len(await names(customer)) == 8
    id_ = new_id()
    payload = request(SET_WEBHOOK, {"app_name": "NAME", "webhook": NOWHERE}, id_)
    answer = await customer.say(payload.replace(b"NAME", rb"\u0061pp"))
    assert answer.result is not None
    assert answer.result["no_change"] is True


async def test_W_07_J_36_webhooks_are_kept_for_the_node_id(customer: Client, lsp: Target) -> None:
    """Over a reconnect, and for nobody else."""
    assert (await set_(customer, "mine")).code is None
    async with await customer.again(lsp) as again, await Client.connect(lsp) as other:
        assert await names(again) == ["mine"]
        assert await names(other) == []
        removed = await other.ask(REMOVE_WEBHOOK, {"app_name": "mine"})
        assert removed.code == NO_SUCH_WEBHOOK
        assert await names(again) == ["mine"]


async def test_W_13_B_14_remove(customer: Client) -> None:
    for each in ("a", "b"):
        assert (await set_(customer, each)).code is None
    assert (await customer.ask(REMOVE_WEBHOOK, {"app_name": "c"})).code == NO_SUCH_WEBHOOK
    assert (await customer.ask(REMOVE_WEBHOOK, {"app_name": "a"})).code is None
    assert (await customer.ask(REMOVE_WEBHOOK, {"app_name": "a"})).code == NO_SUCH_WEBHOOK
    assert await names(customer) == ["b"]


async def test_B_14_the_result_of_remove(our_client: Client) -> None:
    assert (await set_(our_client, "a")).code is None
    assert (await our_client.ask(REMOVE_WEBHOOK, {"app_name": "a"})).result == {}


@pytest.mark.parametrize("method", [SET_WEBHOOK, LIST_WEBHOOKS, REMOVE_WEBHOOK])
async def test_T_08_W_12_unknown_parameters(customer: Client, method: str) -> None:
    known = {
        SET_WEBHOOK: {"app_name": "a", "webhook": NOWHERE},
        LIST_WEBHOOKS: {},
        REMOVE_WEBHOOK: {"app_name": "a"},
    }[method]
    answer = await customer.ask(method, {**known, "future": 1})
    assert answer.code == INVALID_PARAMS
    assert answer.data["unrecognized"] == ["future"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"app_name": "a"},
        {"webhook": NOWHERE},
        {"app_name": None, "webhook": NOWHERE},
        {"app_name": 1, "webhook": NOWHERE},
        {"app_name": "a", "webhook": [NOWHERE]},
    ],
)
async def test_T_08_parameters_that_are_missing_or_malformed(
    customer: Client, params: dict[str, Any]
) -> None:
    assert (await customer.ask(SET_WEBHOOK, params)).code == INVALID_PARAMS


@pytest.mark.parametrize(
    "method",
    [
        REGISTERED,
        "lsps5.payment_incoming",
        "lsps5.expiry_soon",
        "lsps5.liquidity_management_request",
        "lsps5.onion_message_incoming",
    ],
)
async def test_W_21_notifications_are_no_methods(customer: Client, method: str) -> None:
    assert (await customer.ask(method, {})).code == METHOD_NOT_FOUND


async def test_S_04_an_lsp_without_webhooks(strict_lsp: Target) -> None:
    async with await Client.connect(strict_lsp) as client:
        listed = (await client.ask(LIST_PROTOCOLS, {})).result
        assert listed == {"protocols": [2]}
        assert (await set_(client, "a")).code == METHOD_NOT_FOUND
        assert (await client.ask(LIST_WEBHOOKS, {})).code == METHOD_NOT_FOUND


async def test_J_34_a_client_that_is_denied(our_lsp: Target) -> None:
    async with await Client.connect(our_lsp, ours.DENIED_KEY) as client:
        assert (await set_(client, "a")).code == CLIENT_REJECTED


# What comes


def check(call: Call, lsp: Target) -> None:
    """A notification as it must be (T-25, W-16, W-17, W-18)."""
    assert call.line.startswith("POST /")
    assert call.line.endswith(" HTTP/1.1")
    assert call.told.keys() == {"jsonrpc", "method", "params"}
    assert call.told["jsonrpc"] == "2.0"
    timestamp = call.headers["x-lsps5-timestamp"]
    assert DATETIME.fullmatch(timestamp), timestamp
    signed = "LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY: LSP: At "
    signed += f"{timestamp} I notify {call.body.decode()}"
    assert signer_of(signed, call.headers["x-lsps5-signature"]) == lsp.node_id.hex()


@pytest.fixture
def path() -> str:
    """A path of this test's own."""
    return f"/push/{new_id()}?device=1&x=%20"


@pytest_asyncio.fixture(loop_scope="package")
async def web(world_web: Web, our_lsp: Target) -> AsyncGenerator[Web, None]:
    """What our LSP's webhooks point to."""
    yield world_web


async def test_T_25_W_11_W_16_W_17_W_18_W_22_a_webhook_is_told_that_it_is_registered(
    our_client: Client, our_lsp: Target, web: Web, path: str
) -> None:
    answer = await set_(our_client, "a", web.url(path))
    assert answer.result is not None
    assert answer.result["no_change"] is False
    call = await web.call(path)
    check(call, our_lsp)
    assert call.told == {"jsonrpc": "2.0", "method": REGISTERED, "params": {}}
    # Nothing of it comes over Lightning (W-21), and all of the URL but its host is in the request.
    assert await our_client.others() == []
    assert call.path == path


async def test_W_11_only_a_new_or_changed_webhook_is_told(
    our_client: Client, web: Web, path: str
) -> None:
    first, second = path + "1", path + "2"
    assert (await set_(our_client, "a", web.url(first))).code is None
    await web.call(first)
    assert (await set_(our_client, "b", web.url(second))).code is None
    await web.call(second)
    # Confirmed: nobody; replaced: the new one alone.
    assert (await set_(our_client, "b", web.url(second))).code is None
    assert (await set_(our_client, "a", web.url(path))).code is None
    await web.call(path)
    await asyncio.sleep(QUIET_S)
    assert [len(web.of(each)) for each in (first, second, path)] == [1, 1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nlocation: ELSEWHERE\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 308 Permanent\r\nlocation: ELSEWHERE\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK.replace(b"0\r\n", b"5\r\n") + b"hello",
        OK.replace(b"content-length: 0", b"location: ELSEWHERE"),
    ],
)
async def test_W_19_W_20_the_answer_is_ignored(
    our_client: Client, web: Web, path: str, answer: bytes
) -> None:
    """No redirect is followed, nothing is sent again, and the webhook is kept."""
    elsewhere = path + "elsewhere"
    web.answers[path] = answer.replace(b"ELSEWHERE", web.url(elsewhere).encode())
    assert (await set_(our_client, "a", web.url(path))).code is None
    await web.call(path)
    await asyncio.sleep(QUIET_S)
    assert len(web.of(path)) == 1
    assert web.of(elsewhere) == []
    assert await names(our_client) == ["a"]


async def test_W_28_a_server_that_never_answers_holds_up_nobody(
    our_client: Client, web: Web, path: str
) -> None:
    web.answers[path] = None
    for number in range(3):
        assert (await set_(our_client, f"silent {number}", web.url(path))).code is None
    fine = path + "fine"
    assert (await set_(our_client, "fine", web.url(fine))).code is None
    assert (await web.call(fine)).method == REGISTERED


async def test_W_28_private_addresses_are_not_called(
    careful_lsp: Target, world_web: Web, path: str
) -> None:
    """By an LSP with the default settings: the server is on this very machine."""
    async with await Client.connect(careful_lsp) as client:
        assert (await set_(client, "a", world_web.url(path))).code is None
        await asyncio.sleep(2 * QUIET_S)
        assert world_web.of(path) == []


async def test_W_14_nobody_is_told_of_what_it_sees_itself(
    our_client: Client, web: Web, path: str
) -> None:
    """A client that is here and buys hears nothing at its webhook."""
    assert (await set_(our_client, "a", web.url(path))).code is None
    await web.call(path)
    offer, *_ = await our_client.get_info()
    assert (await our_client.buy(offer)).code is None
    await asyncio.sleep(QUIET_S)
    assert len(web.of(path)) == 1
