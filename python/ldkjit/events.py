"""What happens to a node: one class per event, told apart by ``type`` or by ``match``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter

from .amounts import Msat
from .models import Model, Time


class EventBase(Model):
    """What every event has. What the node tells beyond a class's fields is kept as attributes."""

    model_config = ConfigDict(extra="allow")

    at: Time = Field(validation_alias="at_ms")
    """When it happened."""


class PaymentReceived(EventBase):
    """A payment was claimed: the money is here."""

    type: Literal["payment_received"] = "payment_received"
    payment_hash: str
    """Hex, 64 digits."""
    amount: Msat = Field(validation_alias="amount_msat")
    """After the opening fee."""
    opening_fee: Msat | None = Field(default=None, validation_alias="opening_fee_msat")
    """What the LSP kept of the payment for opening the channel; 0 if nothing."""


class PaymentSent(EventBase):
    """A payment arrived: its preimage proves it."""

    type: Literal["payment_sent"] = "payment_sent"
    payment_hash: str
    """Hex, 64 digits."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """What the receiver got: the routing fee is not included."""
    fee: Msat | None = Field(default=None, validation_alias="fee_msat")
    """The routing fee."""
    preimage: str | None = None
    """The proof, hex."""


class PaymentFailed(EventBase):
    """A payment failed for good: nothing was paid."""

    type: Literal["payment_failed"] = "payment_failed"
    payment_hash: str
    """Hex, 64 digits."""
    failure: str | None = Field(default=None, validation_alias="reason")
    """Why, in words."""


class PaymentForwarded(EventBase):
    """Somebody's payment went through this node."""

    type: Literal["payment_forwarded"] = "payment_forwarded"
    fee: Msat | None = Field(default=None, validation_alias="fee_msat")
    """The routing fee earned, an opening fee not included."""


class ChannelPending(EventBase):
    """A channel has a funding transaction."""

    type: Literal["channel_pending"] = "channel_pending"
    channel_id: str
    """Hex, 64 digits."""
    peer: str | None = None
    """The other side's node id."""


class ChannelReady(EventBase):
    """A channel can be used."""

    type: Literal["channel_ready"] = "channel_ready"
    channel_id: str
    """Hex, 64 digits."""
    peer: str | None = None
    """The other side's node id."""


class ChannelClosed(EventBase):
    """A channel was closed."""

    type: Literal["channel_closed"] = "channel_closed"
    channel_id: str
    """Hex, 64 digits."""
    peer: str | None = None
    """The other side's node id."""
    reason: str | None = None
    """Why, in words."""


class JitRefused(EventBase):
    """This wallet failed a payment back rather than claim it."""

    type: Literal["jit_refused"] = "jit_refused"
    payment_hash: str | None = None
    """Hex, 64 digits."""
    reason: str
    """Why, e.g. ``skim_too_high`` or ``funding_unverified``."""


class OrderSold(EventBase):
    """This LSP sold a channel."""

    type: Literal["order_sold"] = "order_sold"
    scid: str | None = None
    """The jit scid, ``BLOCKxTXxOUTPUT``."""
    client: str | None = None
    """The buyer's node id."""


class OrderChanged(EventBase):
    """An order of this LSP went on to another state."""

    type: Literal["order_changed"] = "order_changed"
    scid: str | None = None
    """The jit scid, ``BLOCKxTXxOUTPUT``."""
    state: str | dict[str, Any] | None = None
    """Where it is now, as in ``Order.state``; ``failed:`` is followed by why."""


class FundingConflict(EventBase):
    """Another transaction spends the inputs of a funding transaction: that channel may be void."""

    type: Literal["funding_conflict"] = "funding_conflict"
    channel_id: str | None = None
    """Of the channel that may be void, hex."""


class LspBrokePromise(EventBase):
    """An LSP closed a channel before the lifetime that it sold was over."""

    type: Literal["lsp_broke_promise"] = "lsp_broke_promise"
    lsp: str
    """The LSP's node id."""
    channel_id: str
    """Hex, 64 digits."""
    age_blocks: int
    """Confirmations the channel had."""
    min_lifetime_blocks: int
    """Confirmations bought."""


class Alarm(EventBase):
    """Something needs looking at, or does no more: see ``docs/operations.md``."""

    type: Literal["alarm"] = "alarm"
    alarm: Literal["clock", "chain", "fees", "coins"] | str
    """Its name, as in ``Status.alarms``."""
    on: bool
    """False when it is over."""
    message: str
    """What is the matter, in words."""


class FundingUnconfirmed(EventBase):
    """The funding transaction of a channel is in no block, about a day after it was published.

    A wallet that was paid over a channel is told after three blocks if no mempool has it either.
    """

    type: Literal["funding_unconfirmed"] = "funding_unconfirmed"
    channel_id: str | None = None
    """Hex, 64 digits."""
    peer: str | None = None
    """The other side's node id."""
    funding: str | None = None
    """``txid:index``."""
    blocks: int | None = None
    """So many came without it."""


class OnchainReceived(EventBase):
    """A payment to an address of this wallet is in a block."""

    type: Literal["onchain_received"] = "onchain_received"
    outpoint: str | None = None
    """``txid:index``."""
    amount_sat: int | None = None
    """Satoshi."""
    height: int | None = None
    """Of the block."""


class WebhookCalled(EventBase):
    """This LSP called a webhook of a client that was away (LSPS5)."""

    type: Literal["webhook_called"] = "webhook_called"
    client: str
    """The client's node id."""
    app_name: str
    """The client's name for it, a stranger's words: escape it before showing it."""
    method: str
    """What the client was told, e.g. ``lsps5.payment_incoming``."""
    delivered: bool
    """The webhook answered 200."""
    detail: str = ""
    """What it did instead."""


class UnknownEvent(EventBase):
    """An event of a later native module."""

    type: str
    """What the node calls it."""


_KNOWN = (
    PaymentReceived,
    PaymentSent,
    PaymentFailed,
    PaymentForwarded,
    ChannelPending,
    ChannelReady,
    ChannelClosed,
    JitRefused,
    OrderSold,
    OrderChanged,
    FundingConflict,
    LspBrokePromise,
    Alarm,
    FundingUnconfirmed,
    OnchainReceived,
    WebhookCalled,
)
_TYPES = {str(each.model_fields["type"].default) for each in _KNOWN}


def _tag(value: Any) -> str:
    if isinstance(value, dict):
        told = cast("dict[str, Any]", value).get("type")
    else:
        told = getattr(value, "type", None)
    return str(told) if told in _TYPES else "unknown"


Event = Annotated[
    Annotated[PaymentReceived, Tag("payment_received")]
    | Annotated[PaymentSent, Tag("payment_sent")]
    | Annotated[PaymentFailed, Tag("payment_failed")]
    | Annotated[PaymentForwarded, Tag("payment_forwarded")]
    | Annotated[ChannelPending, Tag("channel_pending")]
    | Annotated[ChannelReady, Tag("channel_ready")]
    | Annotated[ChannelClosed, Tag("channel_closed")]
    | Annotated[JitRefused, Tag("jit_refused")]
    | Annotated[OrderSold, Tag("order_sold")]
    | Annotated[OrderChanged, Tag("order_changed")]
    | Annotated[FundingConflict, Tag("funding_conflict")]
    | Annotated[LspBrokePromise, Tag("lsp_broke_promise")]
    | Annotated[Alarm, Tag("alarm")]
    | Annotated[FundingUnconfirmed, Tag("funding_unconfirmed")]
    | Annotated[OnchainReceived, Tag("onchain_received")]
    | Annotated[WebhookCalled, Tag("webhook_called")]
    | Annotated[UnknownEvent, Tag("unknown")],
    Discriminator(_tag),
]
"""Any event, for ``match``."""

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(value: dict[str, Any]) -> Event:
    """Make the event that the native module describes."""
    return _EVENT.validate_python(value)
