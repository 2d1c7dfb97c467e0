"""A wallet that sleeps is called at its webhook by its LSP, and paid (LSPS5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import pytest_asyncio
from support import comes_to, entries, id_of, online, wallet_of
from web import Call, Web

from ldkjit import (
    ConfigError,
    FeeTier,
    LspConfig,
    LspRefusedError,
    Node,
    NoLspError,
    PaymentError,
    SeenWebhooks,
    WebhookCalled,
    WebhookConfig,
    WebhookError,
    WebhookNotification,
    sat,
    verify_webhook,
)
from ldkjit.sandbox import Sandbox, until
from ldkjit.webhooks import SIGNATURE_HEADER, TIMESTAMP_HEADER

pytestmark = [
    pytest.mark.native,
    pytest.mark.bitcoind,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

TIER = FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)


@pytest_asyncio.fixture(loop_scope="module")
async def web(tmp_path: Path) -> AsyncGenerator[Web, None]:
    """The app's server."""
    async with Web(tmp_path) as server:
        yield server


async def calling(box: Sandbox, web: Web, **settings: int) -> Node:
    webhooks = WebhookConfig(allow_private=True, root_ca=web.ca, **settings)
    return await box.lsp(lsp=LspConfig(menu=[TIER], webhooks=webhooks))


def read(call: Call, lsp: str, **how: object) -> WebhookNotification:
    """As the app's server does."""
    timestamp, signature = call.headers[TIMESTAMP_HEADER], call.headers[SIGNATURE_HEADER]
    return verify_webhook(call.body, timestamp, signature, lsp, **how)  # type: ignore[arg-type]


async def gone(lsp: Node, wallet_id: str) -> None:
    async def away() -> bool:
        return all(not p.connected for p in await lsp.peers() if p.node_id == wallet_id)

    await until(away, "the LSP to see the wallet go")


async def test_W_14_W_15_W_18_W_27_S_35_S_75_a_sleeping_wallet_is_woken_and_paid(
    box: Sandbox, web: Web
) -> None:
    """The wallet is stopped, the server hears of the payment, starts the wallet, it is paid."""
    lsp = await calling(box, web)
    payer = await box.node("payer", funds=sat(10_000_000), channels=[(lsp, 5_000_000)])
    wallet = await wallet_of(box, lsp)
    lsp_id, wallet_id = await id_of(lsp), await id_of(wallet)
    told = await wallet.set_webhook(lsp_id, "phone", web.url("/wake?token=7"))
    assert (told.num_webhooks, told.max_webhooks, told.no_change) == (1, 10, False)
    registered = read(await web.call("/wake?token=7"), lsp_id)
    assert (registered.method, registered.params) == ("lsps5.webhook_registered", {})
    invoice = await wallet.receive(sat(100_000))
    await wallet.stop()
    await gone(lsp, wallet_id)

    paying = asyncio.create_task(payer.pay(invoice.bolt11, timeout=60))
    try:
        call = await web.call("/wake?token=7", 2)
        incoming = read(call, lsp_id)
        assert (incoming.method, incoming.params) == ("lsps5.payment_incoming", {})
        assert abs(datetime.now(timezone.utc) - incoming.at) < timedelta(seconds=30)
        assert not paying.done()
        await wallet.start()
        received = await wallet.wait_payment(invoice.payment_hash, timeout=30)
        assert (received.amount, received.opening_fee) == (sat(98_000), sat(2_000))
        assert (await paying).amount == sat(100_000)
    finally:
        paying.cancel()
    assert len(await entries(lsp, kind="channel_opened")) == 1

    status = await lsp.status()
    assert {**status.webhooks, "idle": 0} == {"registered": 1, "delivered": 2, "idle": 0}
    async for event in lsp.events():
        if isinstance(event, WebhookCalled):
            assert (event.client, event.app_name) == (wallet_id, "phone")
            assert (event.method, event.delivered) == ("lsps5.payment_incoming", True)
            break

    # Over the channel it has now: the first attempt is missed, the wallet is woken for the next.
    later = await wallet.receive(sat(10_000))
    assert later.path == "channel"
    await wallet.stop()
    await gone(lsp, wallet_id)
    with pytest.raises(PaymentError):
        await payer.pay(later.bolt11, retry=0, timeout=60)
    assert read(await web.call("/wake?token=7", 3), lsp_id).method == "lsps5.payment_incoming"
    await wallet.start()
    await online(wallet)


async def test_webhooks_are_listed_and_removed(box: Sandbox, web: Web) -> None:
    lsp = await calling(box, web, max_webhooks=2)
    wallet = await wallet_of(box, lsp)
    lsp_id = await id_of(lsp)
    assert (await wallet.list_webhooks(lsp_id)).app_names == ()
    for name in ("b", "a"):
        await wallet.set_webhook(lsp_id, name, web.url("/"))
    assert (await wallet.set_webhook(lsp_id, "a", web.url("/"))).no_change
    listed = await wallet.list_webhooks(lsp_id)
    assert (listed.app_names, listed.max_webhooks) == (("a", "b"), 2)
    with pytest.raises(LspRefusedError, match="keeps no more webhooks") as caught:
        await wallet.set_webhook(lsp_id, "c", web.url("/"))
    assert caught.value.lsp_code == 503
    await wallet.remove_webhook(lsp_id, "a")
    with pytest.raises(LspRefusedError, match="knows no webhook") as caught:
        await wallet.remove_webhook(lsp_id, "a")
    assert caught.value.lsp_code == 1010
    assert (await wallet.list_webhooks(lsp_id)).app_names == ("b",)
    for url in ("http://example.org/", "example.org", "https://exämple.org/"):
        with pytest.raises(ConfigError, match="webhook"):
            await wallet.set_webhook(lsp_id, "d", url)
    with pytest.raises(NoLspError):
        await wallet.set_webhook("02" + "11" * 32, "d", web.url("/"))


async def test_an_lsp_without_webhooks_says_so(box: Sandbox) -> None:
    lsp = await box.lsp()
    wallet = await wallet_of(box, lsp)
    with pytest.raises(LspRefusedError) as caught:
        await wallet.set_webhook(await id_of(lsp), "a", "https://example.org/")
    assert caught.value.lsp_code == -32601
    assert (await lsp.status()).webhooks == {}


async def test_an_operator_tells_a_client_that_is_away(box: Sandbox, web: Web) -> None:
    lsp = await calling(box, web)
    wallet = await wallet_of(box, lsp)
    wallet_id = await id_of(wallet)
    await wallet.set_webhook(await id_of(lsp), "a", web.url("/"))
    await web.call("/")
    assert not await lsp.notify_client(wallet_id, "liquidity_management_request"), "it is here"
    await wallet.stop()
    await gone(lsp, wallet_id)
    assert await lsp.notify_client(wallet_id, "liquidity_management_request")
    assert not await lsp.notify_client(wallet_id, "liquidity_management_request"), "just told"
    call = await web.call("/", 2)
    assert call.method == "lsps5.liquidity_management_request"


async def test_certificates_that_cannot_be_read_are_told_at_the_start(
    box: Sandbox, tmp_path: Path
) -> None:
    webhooks = WebhookConfig(root_ca=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"root_ca.*none\.pem"):
        await box.lsp(lsp=LspConfig(menu=[TIER], webhooks=webhooks))


async def test_the_verifier_believes_the_lsp_alone(box: Sandbox, web: Web) -> None:
    lsp = await calling(box, web)
    wallet = await wallet_of(box, lsp)
    lsp_id, other_id = await id_of(lsp), await id_of(wallet)
    await wallet.set_webhook(lsp_id, "a", web.url("/"))
    call = await web.call("/")
    assert read(call, lsp_id.upper()).method == "lsps5.webhook_registered"

    def why(call: Call = call, lsp: str = lsp_id, **how: object) -> str | None:
        with pytest.raises(WebhookError) as caught:
            read(call, lsp, **how)
        return caught.value.why

    assert why(lsp=other_id) == "signature"
    assert why(call._replace(body=call.body + b" ")) == "signature"
    assert why(call._replace(body=b"{}")) == "body"
    assert why(call._replace(body=b"\xff")) == "body"
    for name, expected in [(TIMESTAMP_HEADER, "timestamp"), (SIGNATURE_HEADER, "signature")]:
        for value in ("", "x", "é", "\0", "y" * 100_000):
            headers = {**call.headers, name: value}
            assert why(call._replace(headers=headers)) == expected
    later = datetime.now(timezone.utc) + timedelta(minutes=11)
    assert why(now=later) == "stale"
    assert read(call, lsp_id, now=later, window=900).method == "lsps5.webhook_registered"
    seen = SeenWebhooks()
    read(call, lsp_id, seen=seen, recipient="phone")
    read(call, lsp_id, seen=seen, recipient="tablet")
    assert why(seen=seen, recipient="phone") == "replay"
    with pytest.raises(ConfigError, match="lsp_node_id"):
        read(call, "02ab")
    with pytest.raises(ConfigError, match="window"):
        read(call, lsp_id, window=-1)


async def test_webhooks_survive_a_restart_of_the_lsp(box: Sandbox, web: Web) -> None:
    lsp = await calling(box, web)
    wallet = await wallet_of(box, lsp)
    lsp_id, wallet_id = await id_of(lsp), await id_of(wallet)
    await wallet.set_webhook(lsp_id, "a", web.url("/"))
    await web.call("/")
    await wallet.stop()
    await lsp.stop()
    await lsp.start()

    async def registered() -> int:
        return (await lsp.status()).webhooks["registered"]

    await comes_to(registered, 1, "webhooks after the restart")
    assert await lsp.notify_client(wallet_id, "payment_incoming")
    assert read(await web.call("/", 2), lsp_id).method == "lsps5.payment_incoming"
