"""Policy: what an operator's hooks are asked, and what they may answer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .amounts import Msat
from .config import Config, FeeTier, TrustModel
from .models import Model, Time

if TYPE_CHECKING:
    from .replay import Replay

HOOKS = ("menu", "sell", "channel")


class Client(Model):
    """Who asks, and what was had with it before."""

    node_id: str
    """66 hex digits. They cost nothing: a new one is no proof of a new client."""
    token: str | None = Field(default=None, repr=False)
    """What it brought, or what its offer stands on."""
    orders: int
    """Its orders whose fee is not earned."""
    paid_channels: int
    """Its channels that are open and paid for."""
    unpaid_channels: int
    """Its channels that are open and whose payment did not pay for them."""
    left_unpaid: int
    """Channels that it left unpaid for good, those that are forgiven taken off."""
    exposure: Msat = Field(validation_alias="exposure_msat")
    """What it could make this LSP lose or lock."""


class ServiceState(Model):
    """This LSP and the chain at the moment of a question."""

    at: Time = Field(validation_alias="at_ms")
    """When it was asked."""
    height: int
    """Of the best block."""
    fee_rate_sat_per_kw: int
    """What a funding transaction pays, sat per 1000 weight; 0 while there is no estimate."""
    open_cost_sat: int
    """What the funding transaction of one channel costs, sat."""
    coins_sat: int
    """Coins that could fund channels, sat."""
    promised_sat: int
    """Of them, promised to orders, sat."""
    inbound: Msat = Field(validation_alias="inbound_msat")
    """What all channels together could receive."""
    orders: int
    """Orders whose fee is not earned."""
    exposure: Msat = Field(validation_alias="exposure_msat")
    """What all of them could make this LSP lose or lock."""


class MenuRequest(Model):
    """Which tiers are offered to this client?"""

    client: Client
    """Who asks."""
    menu: tuple[FeeTier, ...]
    """What the configuration would offer; empty if it does not know the token."""
    state: ServiceState
    """This LSP and the chain at the moment."""


class OrderRequest(Model):
    """Is this offer sold? The configuration has no objection."""

    client: Client
    """Who asks."""
    size: Msat | None = Field(validation_alias="size_msat")
    """The payment agreed; None for a variable amount."""
    fee: Msat | None = Field(validation_alias="fee_msat")
    """The opening fee agreed; None for a variable amount."""
    min_fee: Msat = Field(validation_alias="min_fee_msat")
    """The least opening fee."""
    proportional_ppm: int
    """The opening fee as a share of the payment, parts per million."""
    min_payment: Msat = Field(validation_alias="min_payment_msat")
    """The smallest payment of the offer."""
    max_payment: Msat = Field(validation_alias="max_payment_msat")
    """The largest payment of the offer."""
    min_lifetime_blocks: int
    """How long the channel stays open at least, blocks after confirmation."""
    valid_until: Time = Field(validation_alias="valid_until_ms")
    """When the offer ends."""
    trust: TrustModel
    """Who would trust whom."""
    reserved_sat: int
    """Coins that the sale would promise, sat."""
    state: ServiceState
    """This LSP and the chain at the moment."""


class ChannelRequest(Model):
    """Is the channel opened, now that the payment is here?"""

    client: Client
    """Whose channel it is."""
    scid: str
    """The order."""
    size: Msat | None = Field(validation_alias="size_msat")
    """The payment agreed; None for a variable amount."""
    held: Msat = Field(validation_alias="held_msat")
    """What the payment in hand brings."""
    needed_sat: int
    """The capacity that it needs, sat."""
    failures: int
    """Attempts to open before this one."""
    trust: TrustModel
    """Who trusts whom."""
    state: ServiceState
    """This LSP and the chain at the moment."""


Question = MenuRequest | OrderRequest | ChannelRequest


class Refuse(Config):
    """No.

    Attributes:
        message: What the client is told, at most 256 characters; empty for the usual words. A
            payer is told nothing.
        reason: ``"refused"``: for good; ``"maintenance"``: for the moment, and a payment that waits
            may be tried again; ``"unknown_token"``: only for a menu (code 200).
    """

    message: str = Field(default="", max_length=256)
    reason: Literal["refused", "maintenance", "unknown_token"] = "refused"


class Accept(Config):
    """Yes, this offer is sold.

    Attributes:
        trust: Who trusts whom, if that is to be stricter than the configuration; it cannot be less
            strict.
    """

    trust: TrustModel | None = None


class ChannelTerms(Config):
    """Yes, the channel is opened.

    Attributes:
        capacity_sat: The capacity wanted, 0 to 2,100,000,000,000,000 sat, at most
            ``Limits.max_channel_sat``. It is never less than the payment needs, and beyond that no
            more than the limits on exposure leave. None for what the payment needs.
    """

    capacity_sat: int | None = Field(default=None, ge=0, le=2_100_000_000_000_000, strict=True)


Answer = Sequence[FeeTier] | Accept | ChannelTerms | Refuse


class Policy:
    """The base of a policy: give it any of ``menu``, ``sell`` and ``channel``.

    Each takes the one request and returns an answer, as ``def`` or as ``async def``::

        def menu(self, ask: MenuRequest) -> list[FeeTier] | Refuse
        async def sell(self, order: OrderRequest) -> Accept | Refuse
        async def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse

    ``async def`` runs on the event loop that the node was started in, ``def`` on a thread of its
    own, one question at a time. A hook that raises, answers nonsense or takes longer than its
    deadline costs whoever asked a safe answer: an empty menu, a refusal, a payment failed back.
    """

    async def replay(self, history: str | os.PathLike[str], *, timeout: float = 5.0) -> Replay:
        """Ask this policy what another one was asked, and compare what they make of it.

        Args:
            history: The file that ``PolicyConfig.record`` named.
            timeout: How long each answer is waited for, seconds; then the hook has failed.

        Raises:
            ConfigError: The file cannot be read, or this policy has no hooks.
        """
        from ._hooks import collect
        from .replay import replay

        return await replay(history, collect(self, {}), timeout=timeout)


_REQUESTS: dict[str, type[MenuRequest | OrderRequest | ChannelRequest]] = {
    "menu": MenuRequest,
    "sell": OrderRequest,
    "channel": ChannelRequest,
}


def read_question(text: str) -> tuple[str, Question]:
    """A hook's name, and what it is asked, as the node says it."""
    told = json.loads(text)
    name: str = told["hook"]
    return name, _REQUESTS[name].model_validate(told["ask"])


def write_answer(name: str, told: Any) -> str:
    """A hook's answer, as the node reads it.

    Raises:
        TypeError: It is no answer to this question.
        ConfigError: A value in it is out of range.
    """
    if isinstance(told, Refuse):
        return json.dumps({"refuse": _again(told)})
    if name == "menu" and isinstance(told, list | tuple):
        tiers: list[Any] = []
        for tier in told:  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(tier, FeeTier):
                raise TypeError(f"a menu has FeeTier, not {type(tier).__name__}")  # pyright: ignore[reportUnknownArgumentType]
            tiers.append(_again(tier))
        return json.dumps({"yes": {"tiers": tiers}})
    if name == "sell" and isinstance(told, Accept):
        return json.dumps({"yes": _again(told)})
    if name == "channel" and isinstance(told, ChannelTerms):
        return json.dumps({"yes": {"value_sat": _again(told)["capacity_sat"]}})
    wanted = {"menu": "a list of FeeTier", "sell": "Accept", "channel": "ChannelTerms"}[name]
    raise TypeError(f"accepts {wanted} or Refuse, not {type(told).__name__}")


def _again(answer: Config) -> dict[str, Any]:
    """The fields of an answer, checked once more: who made it may have gone round the checks."""
    values = answer.model_dump(mode="json", warnings=False)
    return type(answer)(**values).model_dump(mode="json")
