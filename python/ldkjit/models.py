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
        defer_build=True, frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True
    )


class HookCounts(Model):
    """What became of the questions to one hook since the start."""

    asked: int = 0
    """Questions there were, those of ``queue_full`` and ``broken`` included."""
    answered: int = 0
    """With a yes."""
    refused: int = 0
    """Answered with a ``Refuse``."""
    deadline: int = 0
    """No answer in time."""
    late: int = 0
    """Of those, answered after all."""
    raised: int = 0
    """It raised an error."""
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
    """66 hex digits."""
    network: str
    """``bitcoin``, ``testnet``, ``testnet4``, ``signet`` or ``regtest``."""
    height: int
    """Of the best block known."""
    block_hash: str
    """Of the best block known, hex."""
    listening: tuple[str, ...] = ()
    """``host:port`` of each listener, with the port really taken."""
    alias: str = ""
    """The name that it announces."""
    started_at: Time = Field(validation_alias="started_at_ms")
    """When this run of the node began."""
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
    """The names that this client gave them."""
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
    """In blocks, and mature."""
    unconfirmed_sat: int
    """Change of this wallet's own transactions, not yet in a block."""
    locked_sat: int
    """Promised to channels that are being opened, and to fee bumps on their way."""
    anchor_reserve_sat: int
    """Kept to pay for force-closes."""
    spendable_sat: int
    """What can be sent or put into channels now."""


class LightningBalance(Model):
    """What is in channels."""

    outbound: Msat = Field(validation_alias="outbound_msat")
    """Can be sent."""
    inbound: Msat = Field(validation_alias="inbound_msat")
    """Can be received."""
    claimable: Msat = Field(validation_alias="claimable_msat")
    """Is this node's in all, if every channel closed now. A payment of its own on the way out does
    not count, not even on the chain, before it has failed for good: it may still succeed."""
    left_on_chain: dict[str, int] = Field(
        default_factory=dict, validation_alias="left_on_chain_sat"
    )
    """HTLCs of closed channels, satoshi by payment hash, that cost more to claim than they are: a
    payment among them has no end before fees fall, or its receiver's side claims it."""
    depends_on_lsp: Msat = Field(validation_alias="depends_on_lsp_msat")
    """The share of it in channels not yet confirmed: the LSP could still take it."""


class Balances(Model):
    """Everything a node owns."""

    onchain: OnchainBalance
    """Coins of the wallet."""
    lightning: LightningBalance
    """What is in channels."""
    pending_sweep_sat: int
    """On its way from closed channels to the wallet."""


class FeeRates(Model):
    """Fee rates in satoshi per 1000 weight."""

    background: int
    """To be in a block within a week."""
    normal: int
    """Within a few hours."""
    high: int
    """Within the next blocks."""
    minimum: int
    """What the mempool takes at all."""


class Peer(Model):
    """A node this one is, or stays, connected with."""

    node_id: str
    """66 hex digits."""
    address: str | None = None
    """Where it is, ``host:port``; None if that is not known."""
    inbound: bool
    """It called this node."""
    connected: bool
    """There is a connection now."""


class Channel(Model):
    """A channel of this node."""

    channel_id: str
    """Hex, 64 digits."""
    user_channel_id: str
    """This node's own number of it, 32 hex digits."""
    peer: str
    """The other side's node id."""
    funding: str | None = None
    """``txid:vout``, once there is a funding transaction."""
    capacity_sat: int
    """The value of its funding output: both sides together, satoshi."""
    outbound: Msat = Field(validation_alias="outbound_msat")
    """What this node could send over it in all, the reserve not included."""
    inbound: Msat = Field(validation_alias="inbound_msat")
    """What this node could receive over it in all, the other side's reserve not included."""
    outbound_limit: Msat = Field(validation_alias="outbound_limit_msat")
    """The largest single payment it takes now."""
    usable: bool
    """Ready, and its peer is connected."""
    ready: bool
    """Both sides have its confirmations, or need none."""
    announced: bool
    """It is public."""
    confirmations: int = 0
    """Of its funding transaction, blocks."""
    confirmations_required: int | None = None
    """Confirmations that it needs before it is ready; 0 if bought from an LSP."""
    short_channel_id: str | int | None = None
    """``BLOCKxTXxOUTPUT``, once it is confirmed."""
    inbound_scid_alias: str | int | None = None
    """What invoices of this node name instead, ``BLOCKxTXxOUTPUT``."""
    unpaid_order: str | None = None
    """The jit scid of the order whose opening fee this channel still owes."""
    is_outbound: bool
    """This node opened it."""
    pending_htlcs: int = 0
    """HTLCs in flight, both ways."""
    forwarding_fee_base: Msat = Field(default=Msat(0), validation_alias="forwarding_fee_base_msat")
    """What this node takes for each payment that it forwards to the peer."""

    @property
    def funding_txid(self) -> str | None:
        """The id of the funding transaction, once there is one."""
        return self.funding.partition(":")[0] if self.funding else None


class Payment(Model):
    """A payment in or out. ``pending`` is an open end: never treat it as failed."""

    id: str
    """The payment hash, hex."""
    payment_hash: str
    """The same as ``id``."""
    direction: Literal["in", "out"]
    """``in``: received; ``out``: sent."""
    kind: Literal["bolt11", "keysend"]
    """``bolt11``: by an invoice; ``keysend``: without one."""
    status: Literal["pending", "succeeded", "failed"]
    """``succeeded`` and ``failed`` are final."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """Received: after the opening fee. Sent: without the routing fee."""
    fee: Msat | None = Field(default=None, validation_alias="fee_msat")
    """The routing fee paid; only payments sent have one."""
    opening_fee: Msat | None = Field(default=None, validation_alias="opening_fee_msat")
    """What the LSP kept for opening the channel; only payments received have one."""
    preimage: str | None = None
    """The proof that it was paid, hex; None while it is not known."""
    failure: str | None = None
    """Why it failed; None if it did not."""
    created_at: Time = Field(validation_alias="created_at_ms")
    """When it began."""
    finished_at: Time | None = Field(default=None, validation_alias="finished_at_ms")
    """When it succeeded or failed; None while it is pending."""
    description: str | None = None
    """Of the invoice."""


class InvoiceData(Model):
    """What an invoice of this node says. ``Node.receive`` gives it as an ``Invoice``."""

    bolt11: str
    """What the payer is given."""
    payment_hash: str
    """Hex, 64 digits."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """None: the payer chooses."""
    description: str = ""
    """What the payer is shown."""
    expires_at: Time = Field(validation_alias="expires_at_ms")
    """Until when it can be paid."""
    path: Literal["channel", "jit"]
    """By an open channel, or by one that is opened while the payment waits."""
    opening_fee: Msat | None = Field(default=None, validation_alias="opening_fee_msat")
    """What the LSP will keep; None if nothing, or if it depends on the amount paid."""
    lsp: str | None = None
    """The LSP's node id, for a jit path."""
    jit_scid: str | int | None = None
    """The order of a jit path, ``BLOCKxTXxOUTPUT``; None if a channel is there."""
    trust: TrustModel | None = None
    """Who trusts whom until the funding transaction is confirmed, for a jit path."""


class DecodedInvoice(Model):
    """What anybody's invoice says. All of it was written by a stranger."""

    model_config = ConfigDict(extra="allow")

    payment_hash: str
    """Hex, 64 digits."""
    amount: Msat | None = Field(default=None, validation_alias="amount_msat")
    """None: the payer chooses."""
    description: str | None = None
    """None if it has none, or only the hash of one."""


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
    """Who trusts whom until the funding transaction is confirmed."""
    fee: Msat | None = None
    """The opening fee; None as long as it depends on an amount that is not known."""
    earned: Msat = Msat(0)
    """So much of the fee was earned."""

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
    """Its number; each row has a higher one than those before."""
    at: Time = Field(validation_alias="at_ms")
    """When it was written."""
    entry: dict[str, Any]
    """What it says, with its ``kind``: see ``docs/ledger.md``."""

    @property
    def kind(self) -> str:
        """What it records, e.g. ``order_sold``, ``chain_cost``, ``fee_earned``."""
        return str(self.entry["kind"])


class BadRow(Model):
    """The first row of a ledger that does not fit."""

    seq: int | None
    """Its number; ``None`` if it is a row that is missing."""
    why: str
    """What does not fit, in words."""


class ChannelAccount(Model):
    """An open channel in a ledger check; the rows are right if they are within the bounds."""

    channel: str
    """Its id, hex."""
    rows: Msat = Field(validation_alias="rows_msat")
    """Our side by the ledger."""
    low: Msat = Field(validation_alias="low_msat")
    """Our side by LDK, at least."""
    high: Msat = Field(validation_alias="high_msat")
    """Our side by LDK, at most: more than at least only with HTLCs in flight."""


class LedgerCheck(Model):
    """Whether a ledger adds up, and to what. Fees and costs are sums over its whole history."""

    ok: bool
    """The rows fit each other, the wallet and the channels, and nothing is absent."""
    rows: int
    """How many rows there are."""
    bad: BadRow | None
    """The first row that does not fit."""
    absent: tuple[str, ...] | None = None
    """Coins and fundings of open channels, ``txid:index``, in blocks as this node sees it, that
    bitcoind does not have unspent there; None if it was not asked: by the command, which needs no
    node, or as it does not answer."""
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
    """Each open channel."""
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
    """The least opening fee."""
    proportional_ppm: int
    """The opening fee as a share of the payment, millionths."""
    min_payment: Msat
    """The smallest payment."""
    max_payment: Msat
    """The largest payment."""
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
    """The buyer's node id."""
    tier: SoldTier | None
    """The tier it was sold at."""
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
    """What the lines are; None if there is only the total."""
    since: Time = Field(validation_alias="since_ms")
    """The first instant that counts."""
    until: Time = Field(validation_alias="until_ms")
    """The first instant that counts no more."""
    client: str | None
    """The node id of the only client that counts; None for all."""
    lines: tuple[ReportLine, ...]
    """One for each day, client or tier."""
    total: ReportLine
    """All together."""


class LostChannel(Model):
    """A channel of a node that recovers."""

    channel_id: str
    """Hex, 64 digits."""
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
    """Every channel that is known."""
    coming_sat: int
    """Found on the chain, and not in a block as the wallet's yet, satoshi."""
    settled: bool
    """Every channel that is known is closed, and all that was found is among the coins. There may
    be channels that only their peers know."""


class Backup(Model):
    """What a backup holds."""

    node_id: str
    """Of the node that it was taken of."""
    network: str
    """The Bitcoin network of that node."""
    taken_at: Time = Field(validation_alias="taken_at_ms")
    """When it was taken."""
    commit: int
    """The number of the last commit in it."""
    channels: int
    """How many channels it holds."""
    bytes: int
    """The file's size."""


class Stage(Model):
    """A point in a payment's way through this node."""

    stage: str
    """What happened, e.g. ``intercepted``, ``funding_broadcast`` or ``claimed``."""
    at_us: int
    """Microseconds; only differences have a meaning."""
