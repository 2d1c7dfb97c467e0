"""What is tested: an LSP, named by ``--target`` or started here, and a wallet of our own.

The only file of the suite that knows ldkjit.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio
from web import Web

from . import ours, peer
from .bolt11 import read_invoice
from .fake_lsp import FakeLsp
from .payer import Chain, Outcome, Payer
from .peer import Target
from .rpc import Client, Offer
from .shop import Shop
from .wallet import PATIENT_S, RefusedError, Seller, Wallet

# Another LSP can be tested without it.
if TYPE_CHECKING:
    from ldkjit import Node
    from ldkjit.sandbox import Sandbox


class World(NamedTuple):
    """The LSP to test, and what only the suite's own regtest has."""

    lsp: Target
    token: str | None
    strict: Target | None = None
    plain: Target | None = None
    careful: Target | None = None
    payers: Sequence[Payer] = ()
    chain: Chain | None = None


class OurPayer:
    """A node of our own, driven as a payer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def pay(self, invoice: str) -> Outcome:
        """Pay, on one way only; what became of it."""
        from ldkjit import PaymentError

        try:
            await self._node.pay(invoice, retry=0)
        except PaymentError:
            stages = await self._node.timeline(read_invoice(invoice).payment_hash)
            (failed,) = [each.stage for each in stages if each.stage.startswith("path_failed")]
            return "temporary" if failed == "path_failed_temporarily" else "permanent"
        return "paid"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--target", help="the LSP to test: node_id@host:port")
    group.addoption("--target-token", help="the token to ask it for its menu with")
    group.addoption("--target-patience", type=float, help="how long to wait for an answer, seconds")


def pytest_configure(config: pytest.Config) -> None:
    """One that stops answering is soon tested, with less patience."""
    patience: float | None = config.getoption("target_patience", None)
    peer.ANSWER_TIMEOUT_S = patience or peer.ANSWER_TIMEOUT_S


def _option(config: pytest.Config, name: str) -> str | None:
    # Where all tests are run, this file is read after the options, which then lack these.
    return config.getoption(name, None)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Only what starts nodes of our own needs a bitcoind and the extension."""
    if "box" in getattr(item, "fixturenames", ()) and not _option(item.config, "target"):
        item.add_marker(pytest.mark.native)
        item.add_marker(pytest.mark.bitcoind)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def box(pytestconfig: pytest.Config) -> AsyncGenerator[Sandbox | None, None]:
    """A regtest for nodes of our own, unless another LSP is tested."""
    if _option(pytestconfig, "target"):
        yield None
    else:
        from ldkjit.sandbox import Sandbox

        async with Sandbox() as sandbox:
            yield sandbox


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def world_web(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Web, None]:
    """What webhooks point to, trusted by LSPs of our own."""
    async with Web(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def world(pytestconfig: pytest.Config, box: Sandbox | None, world_web: Web) -> World:
    """What this run talks to."""
    target = _option(pytestconfig, "target")
    if target:
        return World(Target.parse(target), _option(pytestconfig, "target_token"))
    assert box is not None
    return await _own_world(box, world_web.ca)


async def _own_world(box: Sandbox, root_ca: Path) -> World:
    from ldkjit import (
        FeeTier,
        Lending,
        Limits,
        LspConfig,
        PeerLimits,
        TrustModel,
        WebhookConfig,
        sat,
    )

    def menu(tiers: list[ours.Tier]) -> list[FeeTier]:
        return [FeeTier(**each) for each in tiers]

    async def target(node: Node) -> Target:
        return Target.parse((await node.status()).address)

    tokens = {token: menu(tiers) for token, tiers in ours.TOKENS.items()}
    service = LspConfig(
        menu=menu(ours.MENU),
        token_menus=tokens,
        limits=Limits(max_orders_per_client=ours.ORDERS_PER_CLIENT),
        # Every client of the suite is a stranger.
        lending=Lending(strangers_ppm=1_000_000),
        deny=[ours.DENIED],
        webhooks=WebhookConfig(allow_private=True, root_ca=root_ca),
    )
    careful = LspConfig(menu=menu(ours.MENU), webhooks=WebhookConfig(root_ca=root_ca))
    strict = LspConfig(
        menu=menu(ours.MENU),
        token_menus=tokens,
        trust=TrustModel.CLIENT_TRUSTS_LSP,
        limits=Limits(max_orders_per_client=ours.STRICT_ORDERS_PER_CLIENT),
    )
    # Each test is a new peer or more of them.
    guests = PeerLimits(max_connects_per_second=1_000)
    lsps = [
        await box.lsp("lsp", lsp=service, peer_limits=guests),
        await box.lsp("strict", lsp=strict, peer_limits=guests),
        await box.lsp("careful", lsp=careful),
    ]
    channels = [(each, ours.INBOUND_SAT // len(ours.PAYERS)) for each in lsps[:2]]
    payers = [
        OurPayer(await box.node(name, funds=sat(10_000_000), channels=channels))
        for name in ours.PAYERS
    ]
    plain = await box.node("plain")
    targets = [await target(each) for each in (*lsps, plain)]
    first, strict_lsp, careful_lsp, plain_node = targets
    return World(first, None, strict_lsp, plain_node, careful_lsp, payers, box.chain.rpc)


@pytest.fixture
def lsp(world: World) -> Target:
    """The LSP to test."""
    return world.lsp


@pytest.fixture
def our_lsp(world: World) -> Target:
    """The LSP to test, with the settings of ``ours``."""
    return _ours(world, world.lsp)


@pytest.fixture
def strict_lsp(world: World) -> Target:
    """An LSP that its clients must trust, and that sells them one channel at a time."""
    return _ours(world, world.strict)


@pytest.fixture
def careful_lsp(world: World) -> Target:
    """An LSP that calls no webhooks on this machine."""
    return _ours(world, world.careful)


@pytest.fixture
def payers(world: World) -> Sequence[Payer]:
    """Two that can pay over the LSPs with the settings of ``ours``, each a part of a payment."""
    if not world.payers:
        pytest.skip("needs payers with channels to the LSP")
    return world.payers


@pytest.fixture
def payer(payers: Sequence[Payer]) -> Payer:
    """One of them."""
    return payers[0]


@pytest.fixture
def chain(world: World) -> Chain:
    """What LSPs send their transactions to."""
    if world.chain is None:
        pytest.skip("needs to see the LSP's bitcoind")
    return world.chain


@pytest.fixture
def plain_node(world: World) -> Target:
    """A node that is no LSP."""
    return _ours(world, world.plain)


def _ours(world: World, target: Target | None) -> Target:
    if world.strict is None or target is None:
        pytest.skip("needs an LSP with the suite's own settings")
    return target


@pytest_asyncio.fixture(loop_scope="package")
async def client(lsp: Target) -> AsyncGenerator[Client, None]:
    """A new client of the LSP to test."""
    async with await Client.connect(lsp) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="package")
async def our_client(our_lsp: Target) -> AsyncGenerator[Client, None]:
    """A new client of the LSP with the settings of ``ours``."""
    async with await Client.connect(our_lsp) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="package")
async def strict_client(strict_lsp: Target) -> AsyncGenerator[Client, None]:
    """A new client of the LSP that its clients must trust."""
    async with await Client.connect(strict_lsp) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="package", params=["our_lsp", "strict_lsp"])
async def either_client(request: pytest.FixtureRequest) -> AsyncGenerator[Client, None]:
    """A new client of an LSP that trusts it, and one of an LSP that it has to trust."""
    async with await Client.connect(request.getfixturevalue(request.param)) as connected:
        yield connected


@pytest.fixture
def token(world: World) -> str | None:
    """What the LSP to test gives its menu for, if anything."""
    return world.token


@pytest_asyncio.fixture(loop_scope="package")
async def menu(client: Client, token: str | None) -> list[Offer]:
    """What the client may buy."""
    offers = await client.get_info(token)
    assert offers, "the LSP sells nothing, so that nothing can be tested"
    return offers


@pytest.fixture
def offer(menu: list[Offer]) -> Offer:
    """The cheapest offer to the client."""
    return menu[0]


# The wallet


class OurWallet:
    """Our own node, driven as a client."""

    # What LDK asks of a payment over a channel, and three blocks for those mined meanwhile.
    normal_final_delta = 42 + 3

    def __init__(self, node: Node) -> None:
        self._node = node

    async def receive(self, size: int | None, timeout: float = PATIENT_S) -> str:
        """Buy a channel; the invoice."""
        from ldkjit import Msat

        with _refusals():
            amount = None if size is None else Msat(size)
            return (await self._node.receive(amount, timeout=timeout)).bolt11

    @property
    def _lsp(self) -> str:
        return self._node.config.lsps[0].node_id

    async def set_webhook(self, app_name: str, url: str) -> tuple[int, int, bool]:
        """Have the first LSP keep a webhook."""
        with _refusals():
            told = await self._node.set_webhook(self._lsp, app_name, url)
            return told.num_webhooks, told.max_webhooks, told.no_change

    async def webhooks(self) -> list[str]:
        """The names of the webhooks that the first LSP keeps."""
        with _refusals():
            return list((await self._node.list_webhooks(self._lsp)).app_names)

    async def remove_webhook(self, app_name: str) -> None:
        """Have the first LSP forget a webhook."""
        with _refusals():
            await self._node.remove_webhook(self._lsp, app_name)


@contextlib.contextmanager
def _refusals() -> Generator[None, None, None]:
    """In the words of the suite."""
    from ldkjit import ConfigError, LspError, LspRefusedError

    try:
        yield
    except LspRefusedError as error:
        # Code 0: it was the wallet that refused.
        code = error.lsp_code or None
        words = error.lsp_message if code else ""
        raise RefusedError(error.message, words, code, error.retryable) from error
    except (LspError, ConfigError) as error:
        raise RefusedError(error.message, "", None, error.retryable) from error


@pytest_asyncio.fixture(loop_scope="package")
async def new_wallet(
    box: Sandbox | None, tmp_path: Path
) -> AsyncGenerator[Callable[..., Awaitable[Wallet]], None]:
    """Makes a wallet that knows the given sellers, in this order of preference."""
    if box is None:
        pytest.skip("tests our wallet, not an LSP")
    from ldkjit import Bitcoind, Lsp, Node, NodeConfig

    rpc = box.chain.rpc
    async with contextlib.AsyncExitStack() as stack:

        async def make(*sellers: Seller) -> Wallet:
            with _refusals():
                config = NodeConfig(
                    network="regtest",
                    data_dir=tmp_path,
                    store="memory",
                    chain=Bitcoind(rpc.url, user=rpc.user, password=rpc.password),
                    lsps=[
                        Lsp(
                            each.address,
                            token=each.token,
                            trusted=each.trusted,
                            confirmations=each.confirmations,
                        )
                        for each in sellers
                    ],
                    fee_fallback_sat_per_kw=500,
                )
                return OurWallet(await stack.enter_async_context(Node(config)))

        yield make


@pytest.fixture
def shop() -> Shop:
    """What the fake LSP sells."""
    return Shop()


@pytest_asyncio.fixture(loop_scope="package")
async def fake(shop: Shop) -> AsyncGenerator[FakeLsp, None]:
    """An LSP that answers what ``shop`` says."""
    async with FakeLsp(shop) as lsp:
        yield lsp


@pytest_asyncio.fixture(loop_scope="package")
async def wallet(fake: FakeLsp, new_wallet: Callable[..., Awaitable[Wallet]]) -> Wallet:
    """A wallet that knows the fake LSP."""
    return await new_wallet(Seller(fake.address))
