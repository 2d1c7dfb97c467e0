"""What a node answers: frozen, typed values. Amounts are ``Msat``, times are UTC datetimes."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .amounts import Msat
from .config import TrustModel

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _from_ms(value: Any) -> Any:
    # Not left to pydantic, which guesses whether a number is seconds or milliseconds.
    if isinstance(value, int):
        return _EPOCH + timedelta(milliseconds=value)
    return value


Time = Annotated[datetime, BeforeValidator(_from_ms)]


class Model(BaseModel):
    """The root of all answers. Fields a later native module adds are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True
    )


class HookCounts(Model):
    """What became of the questions to one hook since the start."""

    asked: int = 0
    answered: int = 0
    """With a yes."""
    refused: int = 0
    deadline: int = 0
    """No answer in time."""
    late: int = 0
    """Of those, answered after all."""
    raised: int = 0
    nonsense: int = 0
    """An answer that cannot be used."""
    queue_full: int = 0
    """Not asked: too many questions waited."""
    broken: int = 0
    """Not asked: it had not answered for a while."""
    closed: int = 0
    """The program was leaving."""


class Status(Model):
    """How a node stands."""

    node_id: str
    network: str
    height: int
    """Of the best block known."""
    block_hash: str
    listening: tuple[str, ...] = ()
    """``host:port`` of each listener, with the port really taken."""
    alias: str = ""
    started_at: Time = Field(validation_alias="started_at_ms")
    alarms: dict[str, str] = Field(default_factory=dict)
    """What needs looking at now, by the name of the alarm."""
    turned_away: dict[str, int] = Field(default_factory=dict)
    """Connections refused or ended since the start, by reason: ``rate``, ``address``,
    ``handshakes``, ``slow``, ``strangers``, ``messages``."""
    webhooks: dict[str, int] = Field(default_factory=dict)
    """Of an LSP that calls webhooks: how many are ``registered``, and what came of notifications
    since the start: ``delivered``, ``idle`` (the client came by itself), ``status`` (an answer
    other than 200), ``name``, ``private_address``, ``connect``, ``tls``, ``http``, ``timeout``."""

    policy: dict[str, HookCounts] = Field(default_factory=dict)
    """What became of the questions to each hook of an LSP, by its name."""

    @property
    def address(self) -> str:
        """``node_id@host:port`` of the first listener.

        Raises:
            ValueError: The node does not listen.
        """
        if not self.listening:
            raise ValueError("the node does not listen: set NodeConfig.listen")
        return f"{self.node_id}@{self.listening[0]}"


class WebhookRegistration(Model):
    """What an LSP answers to a webhook (LSPS5)."""

    num_webhooks: int
    """This client's webhooks at the LSP."""
    max_webhooks: int
    """How many it may have."""
    no_change: bool
    """The LSP had this URL under this name already."""


class Webhooks(Model):
    """This client's webhooks at an LSP (LSPS5)."""

    app_names: tuple[str, ...]
    max_webhooks: int
    """How many it may have."""


class WebhookNotification(Model):
    """What an LSP told a webhook, once it is known to be the LSP's."""

    method: str
    """Such as ``lsps5.payment_incoming``; one that is not known is to be ignored."""
    params: dict[str, Any]
    """Such as ``timeout`` of ``lsps5.expiry_soon``; those not known are to be ignored."""
    at: Time = Field(validation_alias="at_ms")
    """When the LSP made it."""


class OnchainBalance(Model):
    """Coins, in satoshi."""

    confirmed_sat: int
    unconfirmed_sat: int
    locked_sat: int
    """Promised to channels that are being opened, and to fee bumps on their way."""
    anchor_reserve_sat: int
    """Kept to pay for force-closes."""
    spendable_sat: int


class LightningBalance(Model):
    """What is in channels."""

    outbound: Msat = Field(validation_alias="outbound_msat")
    """Can be sent."""
    inbound: Msat = Field(validation_alias="inbound_msat")
    """Can be received."""
    claimable: Msat = Field(validation_alias="claimable_msat")
    """Is this node's in all, if every channel closed now. A payment of its own on the way out does
    not count, not even on the chain, before it has failed for good: it may still succeed."""
    depends_on_lsp: Msat = Field(validation_alias="depends_on_lsp_msat")
    """The share of it in channels not yet confirmed: the LSP could still take it."""


class Balances(Model):
    """Everything a node owns."""

    onchain: OnchainBalance
    lightning: LightningBalance
    pending_sweep_sat: int
    """On its way from closed channels to the wallet."""


class FeeRates(Model):
    """Fee rates in satoshi per 1000 weight."""

    background: int
    normal: int
    high: int
    minimum: int


class Peer(Model):
    """A node this one is, or stays, connected with."""

    node_id: str
    address: str | None = None
    inbound: bool
    connected: bool


class Channel(Model):
    """A channel of this node."""

    channel_id: str
    user_channel_id: str
    peer: str
    funding: str | None = None
    """``txid:vout``, once there is a funding transaction."""
    capacity_sat: int
    outbound: Msat = Field(validation_alias="outbound_msat")
    inbound: Msat = Field(validation_alias="inbound_msat")
    outbound_limit: Msat = Field(validation_alias="outbound_limit_msat")
    """The largest single payment it takes now."""
    usable: bool
    """Ready, and its peer is connected."""
    ready: bool
    announced: bool
    confirmations: int = 0
    confirmations_required: int | None = None
    short_channel_id: str | int | None = None
    inbound_scid_alias: str | int | None = None
    unpaid_order: str | None = None
    """The jit scid of the order whose opening fee this channel still owes."""
    is_outbound: bool
    pending_htlcs: int = 0
    """HTLCs in flight, both ways."""
    forwarding_fee_base: Msat = Field(default=Msat(0), validation_alias="forwarding_fee_base_msat")

    @property
    def funding_txid(self) -> str | None:
        """The id of the funding transaction, once there is one."""
        return self.funding.partition(":")[0] if self.funding else None


class Payment(Model):
    """A payment in or out. ``pending`` is an open end: never treat it as failed."""

    id: str
    """The payment hash, hex."""
    payment_hash: str
    direction: Literal["in", "out"]
    kind: Literal["bolt11", "keysend"]
    status: Literal["pending", "succeeded", "failed"]
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """Received: after the opening fee. Sent: without the routing fee."""
    fee: Msat | None = Field(default=None, validation_alias="fee_msat")
    """The routing fee paid; only payments sent have one."""
    opening_fee: Msat | None = Field(default=None, validation_alias="opening_fee_msat")
    """What the LSP kept for opening the channel; only payments received have one."""
    preimage: str | None = None
    failure: str | None = None
    created_at: Time = Field(validation_alias="created_at_ms")
    finished_at: Time | None = Field(default=None, validation_alias="finished_at_ms")
    description: str | None = None


class InvoiceData(Model):
    """What an invoice of this node says. ``Node.receive`` gives it as an ``Invoice``."""

    bolt11: str
    payment_hash: str
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """None: the payer chooses."""
    description: str = ""
    expires_at: Time = Field(validation_alias="expires_at_ms")
    path: Literal["channel", "jit"]
    """By an open channel, or by one that is opened while the payment waits."""
    opening_fee: Msat | None = Field(default=None, validation_alias="opening_fee_msat")
    """What the LSP will keep; None if nothing, or if it depends on the amount paid."""
    lsp: str | None = None
    """The LSP's node id, for a jit path."""
    jit_scid: str | int | None = None
    trust: TrustModel | None = None


class DecodedInvoice(Model):
    """What anybody's invoice says. All of it was written by a stranger."""

    model_config = ConfigDict(extra="allow")

    payment_hash: str
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    description: str | None = None


class Order(Model):
    """A channel sold (``Node.orders``) or bought (``Node.client_orders``).

    What the node tells beyond these fields is kept as attributes too.
    """

    model_config = ConfigDict(extra="allow")

    scid: str
    """The jit scid, ``BLOCKxTXxOUTPUT``."""
    state: str
    """Sold: ``sold``, ``collecting``, ``waking``, ``opening``, ``forwarding``, ``paid``, ``owed``,
    ``expired``, ``failed`` or ``closed``. Bought: ``open``, ``claiming``, ``claimed`` or
    ``refused``."""
    reason: str | None = None
    """Why it failed or was refused."""
    client: str | None = None
    """The buyer's node id."""
    size: Msat | None = None
    """The payment size agreed; None for a variable amount."""
    trust: TrustModel | None = None
    fee: Msat | None = None
    earned: Msat = Msat(0)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """The native order keeps what was sold in ``terms``, and why it failed in its state."""
        if not isinstance(value, dict):
            return value
        told = dict(cast("dict[str, Any]", value))
        told = {**told.pop("terms", {}), **told}
        if isinstance(told.get("state"), dict):
            told["reason"] = told["state"].get("failed")
            told["state"] = "failed"
        elif str(told.get("state", "")).startswith("failed:"):
            told["state"], _, told["reason"] = told["state"].partition(":")
        if isinstance(told.get("status"), dict):  # of an order bought
            status = cast("dict[str, Any]", told.pop("status"))
            told.setdefault("state", status.get("is"))
            told.setdefault("reason", status.get("reason"))
        return told


class LedgerRow(Model):
    """One row of the ledger: a fee earned, a cost paid, a promise made. Rows are only added."""

    seq: int
    at: Time = Field(validation_alias="at_ms")
    entry: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it records, e.g. ``order_sold``, ``chain_cost``, ``fee_earned``."""
        return str(self.entry["kind"])


class BadRow(Model):
    """The first row of a ledger that does not fit."""

    seq: int | None
    """Its number; ``None`` if it is a row that is missing."""
    why: str


class ChannelAccount(Model):
    """An open channel in a ledger check; the rows are right if they are within the bounds."""

    channel: str
    rows: Msat = Field(validation_alias="rows_msat")
    """Our side by the ledger."""
    low: Msat = Field(validation_alias="low_msat")
    """Our side by LDK, at least."""
    high: Msat = Field(validation_alias="high_msat")
    """Our side by LDK, at most: more than at least only with HTLCs in flight."""


class LedgerCheck(Model):
    """Whether a ledger adds up, and to what. Fees and costs are sums over its whole history."""

    ok: bool
    rows: int
    """How many rows there are."""
    bad: BadRow | None
    chain_sat: int
    """What the wallet holds by the ledger, satoshi."""
    wallet_sat: int
    """What it does hold, satoshi."""
    channels_msat: int
    """Our side of all open channels by the ledger, msat."""
    withheld_msat: int
    """Of that, in channels whose funding was not sent: the same coins are in the wallet still."""
    closing_msat: int
    """What closed channels still owe the wallet, chain fees included, msat."""
    exact: int
    """Open channels compared to the millisatoshi."""
    bounded: int
    """Open channels compared within a bound, because of HTLCs in flight."""
    channels: tuple[ChannelAccount, ...]
    opening_fees: Msat = Field(validation_alias="opening_fees_msat")
    """Earned by selling channels."""
    routing_fees: Msat = Field(validation_alias="routing_fees_msat")
    """Earned by forwarding."""
    opening_paid: Msat = Field(validation_alias="opening_paid_msat")
    """Paid for channels."""
    routing_paid: Msat = Field(validation_alias="routing_paid_msat")
    """Paid for routing."""
    chain_fees_sat: int
    """Paid for transactions, satoshi."""
    closing_cost_msat: int
    """What closed channels did not bring back: fees, rounding, outputs too small to be made."""


class SoldTier(Model):
    """What is the same in all offers of a tier."""

    min_fee: Msat
    proportional_ppm: int
    """The opening fee as a share of the payment, millionths."""
    min_payment: Msat
    max_payment: Msat
    min_lifetime: int
    """How long the channel stays open at least, blocks."""


class ReportLine(Model):
    """What a day, a client, a tier or all together earned and cost.

    Of ``day``, ``client`` and ``tier`` only what the lines are is there; the line with none of them
    has what belongs to no sale.
    """

    day: date | None
    """Of UTC."""
    client: str | None
    tier: SoldTier | None
    sold: int
    """Channels sold."""
    paid: int
    """Channels paid for, sold now or before."""
    opening_fees: Msat = Field(validation_alias="opening_fees_msat")
    """Earned by selling channels."""
    routing_fees: Msat = Field(validation_alias="routing_fees_msat")
    """Earned by forwarding."""
    opening_paid: Msat = Field(validation_alias="opening_paid_msat")
    """Paid for channels."""
    routing_paid: Msat = Field(validation_alias="routing_paid_msat")
    """Paid for routing."""
    chain_fees_sat: int
    """Paid for transactions, satoshi. Below zero where one was undone that was paid before."""
    closing_cost_msat: int
    """What closed channels did not bring back: fees, rounding, outputs too small to be made."""
    net_msat: int
    """What was earned less what was paid."""
    capital_sat_days: int
    """The value of the channels that this node funded, times the days they were open, rounded
    down."""


class Report(Model):
    """Revenue, cost and capital.

    Without ``since``, ``until`` and ``client`` the total is what the ledger check adds up to.
    """

    ok: bool
    """The ledger adds up."""
    rows: int
    """How many rows it has."""
    bad: BadRow | None
    """The first row that does not fit."""
    by: Literal["day", "client", "tier"] | None
    since: Time = Field(validation_alias="since_ms")
    until: Time = Field(validation_alias="until_ms")
    client: str | None
    lines: tuple[ReportLine, ...]
    total: ReportLine


class LostChannel(Model):
    """A channel of a node that recovers."""

    channel_id: str
    peer: str | None
    """The other side's node id."""
    connected: bool
    """Whether the peer is connected: it closes the channel once it is."""
    funding: str | None
    """``txid:vout``; None for a channel that only the peer knows."""
    state: Literal["open", "told", "closing", "closed"]
    """``open``: the peer was not told yet; ``told``: it was, and its transaction is in no block
    yet; ``closing``: something is still to come; ``closed``: all that can come has."""
    ours_sat: int | None
    """Our side as last known, or what is still to come of it; None for one only the peer knows."""

    @property
    def need(self) -> str:
        """What it needs now, as a sentence."""
        if self.state == "open" and not self.connected:
            return "Connect with the peer, or ask its operator to close the channel."
        return {
            "open": "Wait: the peer is being told.",
            "told": "Wait for the peer's closing transaction to be in a block.",
            "closing": "Wait for blocks: what is ours is swept as soon as it can be.",
            "closed": "Nothing.",
        }[self.state]


class Recovery(Model):
    """How far a node is that only brings home what it held."""

    origin: Literal["backup", "words", "stale_store", "moved"] = Field(validation_alias="from")
    """What it comes back from."""
    since: Time = Field(validation_alias="since_ms")
    """How old what it knows is."""
    channels: tuple[LostChannel, ...]
    coming_sat: int
    """Found on the chain, and not in a block as the wallet's yet, satoshi."""
    settled: bool
    """Every channel that is known is closed, and all that was found is among the coins. There may
    be channels that only their peers know."""


class Backup(Model):
    """What a backup holds."""

    node_id: str
    network: str
    taken_at: Time = Field(validation_alias="taken_at_ms")
    commit: int
    """The number of the last commit in it."""
    channels: int
    bytes: int
    """The file's size."""


class Stage(Model):
    """A point in a payment's way through this node."""

    stage: str
    at_us: int
    """Microseconds; only differences have a meaning."""
