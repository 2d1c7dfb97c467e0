"""What a node is told at start: checked when it is written, not when it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from .amounts import Msat, sat
from .errors import ConfigError
from .storage import PostgresStore, Store


def _between(low: int, high: int, unit: str) -> AfterValidator:
    """A whole number in a range; the error names both ends, which pydantic's own does not."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"accepts {low:_} to {high:_} {unit}, not {value:_}")
        return value

    return AfterValidator(check)


def _msat_alias(name: str) -> Any:
    """Python says ``min_fee``, as the type holds the unit; JSON and TOML say ``min_fee_msat``."""
    return {
        "validation_alias": AliasChoices(name, f"{name}_msat"),
        "serialization_alias": f"{name}_msat",
    }


def _node_id(value: str) -> str:
    if not re.fullmatch(r"0[23][0-9a-fA-F]{64}", value):
        raise ValueError("accepts a node id: 66 hex digits that begin with 02 or 03")
    return value.lower()


def _host_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError('accepts "host:port", the port from 0 to 65535')
    return value


def _store(value: Any) -> Any:
    if isinstance(value, str):
        if value in ("sqlite", "memory"):
            return value
        if re.match("postgres(ql)?://", value):
            return PostgresStore(value)
    elif isinstance(value, Store) and not isinstance(value, type):
        return value
    raise ValueError(
        'accepts "sqlite", "memory", "postgresql://user@host/database" or an object that has'
        " the methods of ldkjit.storage.Store"
    )


NodeId = Annotated[str, AfterValidator(_node_id)]
HostPort = Annotated[str, AfterValidator(_host_port)]
Ppm = Annotated[int, _between(0, 1_000_000, "parts per million")]


class Config(BaseModel):
    """The root of what is written by hand: frozen, and checked when it is made."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        loc_by_alias=False,
        serialize_by_alias=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    if not TYPE_CHECKING:  # type checkers shall see the fields as parameters

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                # Without its cause, which could show a password.
                raise _config_error(type(self).__name__, error) from None


def _config_error(owner: str, error: ValidationError) -> ConfigError:
    problems: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in each["loc"]) or owner
        message = each["msg"].removeprefix("Value error, ")
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # of a nested setting, which has checked itself
            inner: dict[str, str] = cause.details.get("fields", {})
            if not inner:
                problems[field] = cause.message
            problems.update({f"{field}.{name}": text for name, text in inner.items()})
            continue
        if each["type"] == "missing":
            message = "is required"
        elif each["type"] == "extra_forbidden":
            message = "is not a setting"
        problems[field] = message
    text = "; ".join(f"{field}: {message}" for field, message in problems.items())
    return ConfigError(text, details={"fields": problems})


class Bitcoind(Config):
    """The bitcoind a node follows the chain with.

    Attributes:
        url: Its JSON-RPC, e.g. ``"http://127.0.0.1:18443"``; http only: use a tunnel elsewhere.
        user: The RPC user.
        password: The RPC password; not shown in ``repr``.
        poll_ms: How often it is asked for a new block, 10 to 60,000 ms.
    """

    kind: Literal["bitcoind"] = "bitcoind"
    url: str
    user: str
    password: str = Field(repr=False)
    poll_ms: Annotated[int, _between(10, 60_000, "ms")] = 1_000

    if TYPE_CHECKING:

        def __init__(self, url: str, *, user: str, password: str, poll_ms: int = ...) -> None: ...

    else:

        def __init__(self, url: str = "", **values: Any) -> None:
            super().__init__(url=url, **values)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not re.fullmatch(r"http://[^/@\s:]+:\d{1,5}/?", value):
            raise ValueError('accepts "http://host:port", without user and password')
        return value.rstrip("/")


class Lsp(Config):
    """An LSP a wallet may buy channels from.

    ``Lsp("node_id@host:port")``, or ``node_id`` and ``address`` by name.

    Attributes:
        node_id: The LSP's node id, 66 hex digits.
        address: Where it listens, ``host:port``.
        token: Sent with every request for a menu; at most 256 characters.
        trusted: Whether channels are accepted whose funding transaction is withheld until the
            payment was claimed. The LSP can then take the payment and never fund the channel.
        confirmations: How many confirmations of the funding transaction to wait for before a
            payment is claimed, 0 to 6; with 0 it must be in the mempool.
        verify_timeout_ms: How long to look for the funding transaction before the payment is
            failed back, 100 to 600,000 ms.
    """

    node_id: NodeId
    address: HostPort
    token: str | None = Field(default=None, max_length=256, repr=False)
    trusted: bool = False
    confirmations: Annotated[int, _between(0, 6, "confirmations")] = 0
    verify_timeout_ms: Annotated[int, _between(100, 600_000, "ms")] = 20_000

    if TYPE_CHECKING:

        def __init__(
            self,
            at: str | None = None,
            *,
            node_id: str = ...,
            address: str = ...,
            token: str | None = None,
            trusted: bool = False,
            confirmations: int = ...,
            verify_timeout_ms: int = ...,
        ) -> None: ...

    else:

        def __init__(self, at: str | None = None, **values: Any) -> None:
            super().__init__(**(values if at is None else {"at": at, **values}))

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Take ``at`` apart; in TOML and the environment an LSP may be that one string."""
        values = {"at": value} if isinstance(value, str) else dict(value)
        if "at" in values:
            node_id, separator, address = str(values.pop("at")).partition("@")
            if not separator:
                raise ValueError('accepts "node_id@host:port"')
            values |= {"node_id": node_id, "address": address}
        return values


class FeeTier(Config):
    """One entry of an LSP's menu.

    The opening fee of a payment is the larger of ``min_fee`` and
    ``payment * proportional_ppm / 1_000_000``, rounded up to the millisatoshi.

    Attributes:
        min_fee: The least opening fee.
        proportional_ppm: The opening fee as a share of the payment, parts per million.
        min_payment: The smallest payment, at least 1 msat.
        max_payment: The largest payment.
        min_lifetime_blocks: How long the channel stays open at least, blocks after confirmation.
        max_client_to_self_delay: The longest delay the client may ask for, 144 to 2,016 blocks.
        valid_for_s: How long an offer can be bought and paid, 600 to 604,800 s.
    """

    min_fee: Msat = Field(**_msat_alias("min_fee"))
    proportional_ppm: Ppm
    min_payment: Msat = Field(default=sat(1), **_msat_alias("min_payment"))
    max_payment: Msat = Field(default=sat(10_000_000), **_msat_alias("max_payment"))
    min_lifetime_blocks: Annotated[int, _between(0, 1_000_000, "blocks")] = 2_016
    max_client_to_self_delay: Annotated[int, _between(144, 2_016, "blocks")] = 2_016
    valid_for_s: Annotated[int, _between(600, 604_800, "s")] = 3_600

    @model_validator(mode="after")
    def _check_order(self) -> FeeTier:
        if not 1 <= self.min_payment <= self.max_payment:
            raise ValueError("min_payment accepts 1 msat to max_payment")
        return self


class Limits(Config):
    """What an LSP risks at most.

    Exposure is what clients could make the LSP lose or lock: channels whose fee is not yet earned,
    and what is reserved for orders sold and not yet opened.

    Attributes:
        max_orders_per_client: Open orders of one client.
        max_orders: Open orders in all.
        max_exposure_per_client: Exposure to one client.
        max_exposure: Exposure in all.
        max_unclaimed_per_client: Channels of one client that are open and unpaid.
        max_unconfirmed_per_client: Value of one client's channels whose funding transaction is not
            in the chain yet.
        max_unconfirmed: Value of all such channels.
        max_held_per_client: HTLCs held for one client; more are failed.
        max_held: HTLCs held in all.
        max_pending_requests: Requests of one client that wait for an answer.
        htlc_minimum: The smallest part that is forwarded.
        min_channel_sat: No channel is smaller, 20,000 to 1,000,000,000 sat.
        max_channel_sat: No channel is larger, 20,000 to 1,000,000,000 sat.
        extra_capacity_ppm: Room beyond the first payment, as a share of it, parts per million.
        extra_capacity_sat: Room beyond the first payment, sat.
        max_opens: Attempts to open a channel for one order.
        collect_ms: How long parts are held for the missing ones, 90,000 to 600,000 ms.
        wake_ms: How long a complete payment is held for a client that is offline, ms.
        open_ms: How long an open may take, ms.
        grace_ms: How long after its offer ran out an unpaid channel is kept, ms.
        claim_ms: How long a client may hold a payment before that counts as an unpaid channel, ms.
        charge_on_reuse: Charge the opening fee too when a channel that is paid carries the payment.
        forwarding_base_msat: The routing fee of a paid channel, base.
        forwarding_ppm: The routing fee of a paid channel, parts per million.
    """

    max_orders_per_client: Annotated[int, _between(0, 1_000_000, "orders")] = 10
    max_orders: Annotated[int, _between(0, 10_000_000, "orders")] = 1_000
    max_exposure_per_client: Msat = Field(
        default=sat(10_000_000), **_msat_alias("max_exposure_per_client")
    )
    max_exposure: Msat = Field(default=sat(100_000_000), **_msat_alias("max_exposure"))
    max_unclaimed_per_client: Annotated[int, _between(1, 1_000_000, "channels")] = 3
    max_unconfirmed_per_client: Msat = Field(
        default=sat(10_000_000), **_msat_alias("max_unconfirmed_per_client")
    )
    max_unconfirmed: Msat = Field(default=sat(100_000_000), **_msat_alias("max_unconfirmed"))
    max_held_per_client: Annotated[int, _between(1, 100_000, "HTLCs")] = 100
    max_held: Annotated[int, _between(1, 1_000_000, "HTLCs")] = 1_000
    max_pending_requests: Annotated[int, _between(1, 1_000, "requests")] = 10
    htlc_minimum: Msat = Field(default=sat(1), **_msat_alias("htlc_minimum"))
    min_channel_sat: Annotated[int, _between(20_000, 1_000_000_000, "sat")] = 20_000
    max_channel_sat: Annotated[int, _between(20_000, 1_000_000_000, "sat")] = 100_000_000
    extra_capacity_ppm: Annotated[int, _between(0, 100_000_000, "parts per million")] = 100_000
    extra_capacity_sat: Annotated[int, _between(0, 1_000_000_000, "sat")] = 10_000
    max_opens: Annotated[int, _between(1, 100, "attempts")] = 3
    collect_ms: Annotated[int, _between(90_000, 600_000, "ms")] = 90_000
    wake_ms: Annotated[int, _between(0, 86_400_000, "ms")] = 120_000
    open_ms: Annotated[int, _between(1_000, 3_600_000, "ms")] = 60_000
    grace_ms: Annotated[int, _between(0, 86_400_000, "ms")] = 600_000
    claim_ms: Annotated[int, _between(1_000, 86_400_000, "ms")] = 1_800_000
    charge_on_reuse: bool = False
    forwarding_base_msat: Annotated[int, _between(0, 1_000_000_000, "msat")] = 1_000
    forwarding_ppm: Ppm = 0


class Lending(Config):
    """How far an LSP promises its coins.

    Each sale reserves the coins of its channel until the channel is opened or the offer runs out; a
    variable amount counts as the smallest payment of its tier.

    Attributes:
        overcommit_ppm: So much of the coins may be promised, parts per million; above 1,000,000
            some promises cannot be kept if all are called in at once.
        strangers_ppm: The share of coins and of limits that all clients without a token may have
            together, parts per million: node ids cost nothing.
        coin_confirmations: So deep, 1 to 144 blocks, must be the coins that others sent or that
            came from closed channels before they fund a channel. A client relies on its channel
            before it is confirmed; a reorganisation that takes the coin takes the channel.
    """

    overcommit_ppm: Annotated[int, _between(0, 100_000_000, "parts per million")] = 1_000_000
    strangers_ppm: Annotated[int, _between(0, 1_000_000, "parts per million")] = 500_000
    coin_confirmations: Annotated[int, _between(1, 144, "blocks")] = 6


class Patience(Config):
    """How an LSP treats clients that leave channels unpaid.

    A channel counts that is unpaid when its offer runs out, or closed before it paid; a failed
    payment alone never does. Whoever has used up the trust is sold channels in which the client
    trusts the LSP, then nothing.

    Attributes:
        unpaid_before_distrust: Unpaid channels of a client from which on it must trust the LSP.
        unpaid_before_refusal: Unpaid channels of a client from which on it is sold nothing.
        forgive_ms: One of them is forgiven after this time, ms; 0 forgives none.
        strangers_before_distrust: Unpaid channels of all clients without a token, those unpaid at
            the moment included, from which on all of them must trust the LSP.
        strangers_forgive_ms: One of these is forgiven after this time, ms; 0 forgives none.
    """

    unpaid_before_distrust: Annotated[int, _between(0, 1_000_000, "channels")] = 2
    unpaid_before_refusal: Annotated[int, _between(1, 1_000_000, "channels")] = 4
    forgive_ms: Annotated[int, _between(0, 31_536_000_000, "ms")] = 604_800_000
    strangers_before_distrust: Annotated[int, _between(0, 1_000_000, "channels")] = 20
    strangers_forgive_ms: Annotated[int, _between(0, 31_536_000_000, "ms")] = 3_600_000


class Pool(Config):
    """Coins that an LSP keeps ready, so that many channels can be opened at once.

    After each block, when fewer than half of the coins are there, larger ones are split.

    Attributes:
        coins: How many; 0 keeps none.
        coin_sat: The size of each, 10,000 to 1,000,000,000 sat.
        max_sat_per_kw: No split while the fee rate is above this, sat per 1000 weight.
        max_fee_sat_per_day: What splits may cost in 24 hours, sat.
    """

    coins: Annotated[int, _between(0, 10_000, "coins")] = 0
    coin_sat: Annotated[int, _between(10_000, 1_000_000_000, "sat")] = 200_000
    max_sat_per_kw: Annotated[int, _between(253, 1_000_000, "sat per 1000 weight")] = 2_500
    max_fee_sat_per_day: Annotated[int, _between(0, 100_000_000, "sat")] = 20_000


# What a fault of a young program, or of its operator, may cost at most while nobody has said
# otherwise.
_MAINNET_LIMITS: dict[str, Any] = {
    "max_orders_per_client": 3,
    "max_orders": 100,
    "max_exposure_per_client": sat(500_000),
    "max_exposure": sat(5_000_000),
    "max_unconfirmed_per_client": sat(500_000),
    "max_unconfirmed": sat(5_000_000),
    "max_unclaimed_per_client": 1,
    "max_channel_sat": 2_000_000,
}


class TrustModel(str, Enum):
    """Who carries the risk until the funding transaction of a sold channel is confirmed."""

    LSP_TRUSTS_CLIENT = "lsp_trusts_client"
    """The funding transaction is broadcast at once; the client may let the payment fail."""
    CLIENT_TRUSTS_LSP = "client_trusts_lsp"
    """The funding transaction is withheld until the client has given up the preimage."""


class WebhookConfig(Config):
    """How an LSP calls the webhooks of clients that are away (LSPS5, bLIP-55).

    A webhook is an address that a stranger chose. It is called over https alone, at the very
    address that was looked at, without following redirects, and nothing of the answer is read but
    its status.

    Attributes:
        max_webhooks: Webhooks of one client, 1 to 100 (W-06).
        max_clients: Clients with webhooks, 1 to 1,000,000.
        max_strangers: Of them, clients that have no channel, as far as they have no order either.
        cooldown_ms: How long a client that stays away is not told the same again, 1,000 to
            3,600,000 ms (W-24).
        retention_ms: How long webhooks are kept of clients without channels, at least
            604,800,000 ms: seven days (W-10).
        timeout_ms: How long one call may take in all, 100 to 60,000 ms.
        max_concurrent: Calls at once, 1 to 256.
        allow_private: Whether addresses of this machine and of private networks are called too;
            for tests, and for servers of your own.
        root_ca: A file of PEM certificates of authorities to trust besides the web's.
    """

    max_webhooks: Annotated[int, _between(1, 100, "webhooks")] = 10
    max_clients: Annotated[int, _between(1, 1_000_000, "clients")] = 10_000
    max_strangers: Annotated[int, _between(0, 1_000_000, "clients")] = 1_000
    cooldown_ms: Annotated[int, _between(1_000, 3_600_000, "ms")] = 60_000
    retention_ms: Annotated[int, _between(604_800_000, 315_360_000_000, "ms")] = 2_592_000_000
    timeout_ms: Annotated[int, _between(100, 60_000, "ms")] = 10_000
    max_concurrent: Annotated[int, _between(1, 256, "calls")] = 16
    allow_private: bool = False
    root_ca: Path | None = None


class PolicyConfig(Config):
    """An LSP's hooks, as single functions, and how long hooks are waited for.

    A class with hooks is given to ``Node`` instead. ``ldkjit.policy.Policy`` says what each is
    asked and may answer.

    Attributes:
        menu: Decides which tiers a client is offered.
        sell: Decides whether an offer is sold.
        channel: Decides whether a channel is opened, and how large.
        menu_ms: How long a menu is waited for, 1 to 60,000 ms; then the menu is empty.
        sell_ms: How long a sale is waited for, 1 to 60,000 ms; then it is refused.
        channel_ms: How long an open is waited for, 1 to 60,000 ms, less than ``Limits.open_ms``;
            then the payment is failed back.
        max_waiting: Questions that may wait at once for each hook, 1 to 100,000.
        breaker_after: A hook that leaves so many questions in a row unanswered is left in peace, 1
            to 1,000,000.
        breaker_ms: For so long, 1 to 60,000 ms; then one question tries it.
        record: Given, questions and answers are kept in this file, for ``Policy.replay``. It names
            clients and tokens. A hook that is missing is then asked all the same, and leaves the
            decision to the configuration: every menu, sale and open waits for Python's thread, a
            line is written for each, and where there is no answer in time it costs the safe one.
        record_max_bytes: How large it gets before it becomes ``….1``, 1,000 to 10,000,000,000
            bytes; the one of before is deleted.
    """

    menu: Callable[[Any], Any] | None = Field(default=None, exclude=True)
    sell: Callable[[Any], Any] | None = Field(default=None, exclude=True)
    channel: Callable[[Any], Any] | None = Field(default=None, exclude=True)
    menu_ms: Annotated[int, _between(1, 60_000, "ms")] = 2_000
    sell_ms: Annotated[int, _between(1, 60_000, "ms")] = 2_000
    channel_ms: Annotated[int, _between(1, 60_000, "ms")] = 5_000
    max_waiting: Annotated[int, _between(1, 100_000, "questions")] = 1_000
    breaker_after: Annotated[int, _between(1, 1_000_000, "questions")] = 10
    breaker_ms: Annotated[int, _between(1, 60_000, "ms")] = 5_000
    record: Path | None = Field(default=None, exclude=True)
    record_max_bytes: Annotated[int, _between(1_000, 10_000_000_000, "bytes")] = Field(
        default=64_000_000, exclude=True
    )


class Hours(Config):
    """A menu for some hours of each day.

    Attributes:
        from_hour: The first hour, UTC, 0 to 23.
        until_hour: The hour at which it ends, UTC, 0 to 23; one before ``from_hour`` is on the next
            day.
        menu: The tiers on sale then, cheapest first, to clients without a token.
    """

    from_hour: Annotated[int, _between(0, 23, "o'clock")] = Field(
        validation_alias=AliasChoices("from_hour", "from"), serialization_alias="from"
    )
    until_hour: Annotated[int, _between(0, 23, "o'clock")] = Field(
        validation_alias=AliasChoices("until_hour", "until"), serialization_alias="until"
    )
    menu: list[FeeTier] = Field(max_length=64)

    @model_validator(mode="after")
    def _some_time(self) -> Hours:
        if self.from_hour == self.until_hour:
            raise ValueError("from_hour and until_hour are the same: for the whole day use menu")
        return self


class Quota(Config):
    """How many channels may be bought: so many at once, and as many again over each such time.

    Attributes:
        sales: How many, 0 to 1,000,000.
        per_ms: In what time, 1,000 to 31,536,000,000 ms.
    """

    sales: Annotated[int, _between(0, 1_000_000, "channels")]
    per_ms: Annotated[int, _between(1_000, 31_536_000_000, "ms")] = 86_400_000


class LspConfig(Config):
    """What makes a node an LSP.

    Attributes:
        menu: The tiers on sale, cheapest first; 1 to 64.
        token_menus: Other menus, by the token that opens them.
        hours: Other menus for clients without a token, by the hour; the first that fits counts.
        chain_cost_ppm: So much of what a funding transaction costs at present is added to every
            tier's ``min_fee``, parts per million, 0 to 100,000,000; 1,000,000 adds all of it.
        token_quotas: How many channels may be bought with a token.
        quota: How many by all clients without a token together.
        trust: Who trusts whom.
        limits: What is risked at most.
        lending: How far coins are promised.
        patience: How many unpaid channels are borne.
        pool: Coins kept ready.
        webhooks: Given, clients that are away are called at webhooks of theirs (LSPS5).
        policy: Hooks, and how long they are waited for.
        allow: If given, only these clients are served.
        deny: These clients are never served.
        cltv_expiry_delta: What the LSP adds to a payment's expiry, 48 to 1,008 blocks.
    """

    menu: list[FeeTier] = Field(max_length=64)
    token_menus: dict[str, list[FeeTier]] = Field(default_factory=dict)
    hours: list[Hours] = Field(default_factory=list[Hours])
    chain_cost_ppm: Annotated[int, _between(0, 100_000_000, "parts per million")] = 0
    token_quotas: dict[str, Quota] = Field(default_factory=dict)
    quota: Quota | None = None
    trust: TrustModel = TrustModel.LSP_TRUSTS_CLIENT
    limits: Limits = Field(default_factory=Limits)
    lending: Lending = Field(default_factory=Lending)
    patience: Patience = Field(default_factory=Patience)
    pool: Pool = Field(default_factory=Pool)
    webhooks: WebhookConfig | None = None
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    allow: list[NodeId] | None = None
    deny: list[NodeId] = Field(default_factory=list)
    cltv_expiry_delta: Annotated[int, _between(48, 1_008, "blocks")] = 144


class PeerLimits(Config):
    """What peers may use up that connect by themselves and have neither channel nor order here.

    When there are too many of them the one that came first goes: whoever wants a channel has bought
    one within seconds. Peers with channels or orders are not counted.

    Attributes:
        max_strangers: Connected at once, 1 to 100,000. Each takes a file of the process, of which
            many systems allow 1,024.
        max_strangers_per_address: Of them, from one IPv4 address or IPv6 /64. Not counted from
            127.0.0.1 and ::1, where Tor and proxies connect from.
        max_connects_per_second: New connections a second, 1 to 100,000; one address has a quarter.
        max_handshakes: Connections that have not said yet who they are, 1 to 100,000.
        handshake_ms: How long they may take for it, 100 to 60,000 ms.
    """

    max_strangers: Annotated[int, _between(1, 100_000, "peers")] = 500
    max_strangers_per_address: Annotated[int, _between(1, 100_000, "peers")] = 100
    max_connects_per_second: Annotated[int, _between(1, 100_000, "connections")] = 100
    max_handshakes: Annotated[int, _between(1, 100_000, "connections")] = 100
    handshake_ms: Annotated[int, _between(100, 60_000, "ms")] = 5_000


class NodeConfig(Config):
    """A whole node.

    Attributes:
        data_dir: The folder of its store and seed; one process at a time.
        chain: The bitcoind it follows.
        network: The Bitcoin network.
        mainnet: Must be true on ``"bitcoin"``, where mistakes cost real money. Limits of an LSP
            that are not set are lower there: 3 open orders a client and 100 in all, 500,000 sat
            exposure to one client and 5,000,000 in all, 1 unclaimed channel, channels up to
            2,000,000 sat.
        store: ``"sqlite"``, in the data folder; ``"memory"`` for tests: then everything is lost at
            the end; ``"postgresql://user@host/database"``; or an object that does what
            ``ldkjit.storage.Store`` says. Wherever it is, the words stay in the data folder.
        mnemonic: 12 to 24 BIP 39 words; by default made at the first start. Either way they lie in
            the data folder, readable by its owner alone.
        recover: Bring home what a restored store held, or what these ``mnemonic`` words hold in an
            empty folder, and do nothing else: no channel is opened, bought, sold or paid over, and
            the channels there were are closed by their peers. Needed to start a restored store.
        listen: Addresses to listen on, ``host:port``; port 0 takes a free one.
        announce: Addresses to announce to the network.
        alias: A name to announce, at most 32 bytes.
        lsps: LSPs to buy channels from, in order of preference.
        lsp: Given, the node sells channels.
        accept_channels: Whether strangers may open channels to this node.
        channel_confirmations: Confirmations an ordinary channel needs, 1 to 144; a channel bought
            from an LSP needs none.
        peers: ``node_id@host:port`` to stay connected with.
        peer_limits: What peers without business here may use up.
        forward_delay_ms: Delay before HTLCs are forwarded, 0 to 10,000 ms: privacy for latency.
        fee_fallback_sat_per_kw: Fee rate to use where bitcoind has no estimate, 253 to 1,000,000
            sat per 1000 weight; regtest only.
        log_level: From which level on records reach the ``ldkjit`` loggers.
    """

    data_dir: Path
    chain: Bitcoind
    network: Literal["bitcoin", "testnet", "testnet4", "signet", "regtest"] = "bitcoin"
    mainnet: bool = False
    store: Annotated[
        Literal["sqlite", "memory"] | Store,
        PlainValidator(_store),
        PlainSerializer(lambda value: value if isinstance(value, str) else "external"),
    ] = "sqlite"
    mnemonic: str | None = Field(default=None, repr=False)
    recover: bool = False
    listen: list[HostPort] = Field(default_factory=list)
    announce: list[HostPort] = Field(default_factory=list)
    alias: str = "ldkjit"
    lsps: list[Lsp] = Field(default_factory=list[Lsp])
    lsp: LspConfig | None = None
    accept_channels: bool = False
    channel_confirmations: Annotated[int, _between(1, 144, "confirmations")] = 3
    peers: list[str] = Field(default_factory=list)
    peer_limits: PeerLimits = Field(default_factory=PeerLimits)
    forward_delay_ms: Annotated[int, _between(0, 10_000, "ms")] = 0
    fee_fallback_sat_per_kw: (
        Annotated[int, _between(253, 1_000_000, "sat per 1000 weight")] | None
    ) = None
    log_level: Literal["error", "warn", "info", "debug", "trace", "gossip"] = "info"

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, value: str) -> str:
        if len(value.encode()) > 32:
            raise ValueError("accepts at most 32 bytes of UTF-8")
        return value

    @field_validator("mnemonic")
    @classmethod
    def _check_mnemonic(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) not in (12, 15, 18, 21, 24):
            raise ValueError("accepts 12, 15, 18, 21 or 24 words")
        return value

    @field_validator("peers")
    @classmethod
    def _check_peers(cls, value: list[str]) -> list[str]:
        for each in value:
            node_id, _, address = each.partition("@")
            _node_id(node_id)
            _host_port(address)
        return value

    @model_validator(mode="after")
    def _check_mainnet(self) -> NodeConfig:
        if self.network == "bitcoin":
            if not self.mainnet:
                raise ValueError(
                    'network: "bitcoin" moves real money; say mainnet=True if that is meant, '
                    "or name another network"
                )
            if self.lsp is not None:
                chosen = self.lsp.limits
                unset = _MAINNET_LIMITS.keys() - chosen.model_fields_set
                limits = chosen.model_copy(update={name: _MAINNET_LIMITS[name] for name in unset})
                lsp = self.lsp.model_copy(update={"limits": limits})
                object.__setattr__(self, "lsp", lsp)
        return self

    @model_validator(mode="after")
    def _check_fallback(self) -> NodeConfig:
        if self.fee_fallback_sat_per_kw is not None and self.network != "regtest":
            raise ValueError("fee_fallback_sat_per_kw: accepts a value on regtest only")
        return self

    @classmethod
    def load(cls, file: str | os.PathLike[str] | None = None) -> NodeConfig:
        """Read the configuration from a TOML file and ``LDKJIT_…`` variables, which win.

        Nested settings are written with two underscores: ``LDKJIT_CHAIN__PASSWORD``.

        Args:
            file: The TOML file; None reads the environment alone.

        Raises:
            ConfigError: The file cannot be read, or a setting is missing or out of range.
        """
        from ._settings import Settings  # it takes as long to import as all else

        values: dict[str, Any] = {}
        if file is not None:
            try:
                values = Settings.of_file(Path(file))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{os.fspath(file)}: {error}") from error
        loaded = Settings(**values)
        return cls(**{name: getattr(loaded, name) for name in loaded.model_fields_set})
