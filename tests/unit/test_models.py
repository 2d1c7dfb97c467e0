"""Answers and events that no other test names, made of what a node tells."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from ldkjit import (
    Alarm,
    Backup,
    BadRow,
    Balances,
    ChannelAccount,
    Client,
    DecodedInvoice,
    FeeRates,
    FundingConflict,
    InternalError,
    JitRefused,
    LdkJitError,
    LedgerRow,
    LightningBalance,
    LostChannel,
    LspBrokePromise,
    OnchainBalance,
    OnchainReceived,
    PaymentFailed,
    Peer,
    Recovery,
    Stage,
    StoreError,
    StoreStaleError,
    WebhookRegistration,
    Webhooks,
)
from ldkjit.errors import from_native
from ldkjit.events import EventBase, parse_event
from ldkjit.models import Model
from questions import CLIENT

TOLD: list[tuple[type[Model], dict[str, Any]]] = [
    (BadRow, {"seq": None, "why": "w"}),
    (ChannelAccount, {"channel": "c", "rows_msat": 1, "low_msat": 1, "high_msat": 2}),
    (DecodedInvoice, {"payment_hash": "aa", "amount_msat": None, "payee": "02"}),
    (FeeRates, {"background": 253, "normal": 300, "high": 500, "minimum": 253}),
    (LedgerRow, {"seq": 1, "at_ms": 1_500, "entry": {"kind": "chain_cost"}}),
    (
        LightningBalance,
        {"outbound_msat": 1, "inbound_msat": 2, "claimable_msat": 3, "depends_on_lsp_msat": 0},
    ),
    (
        LostChannel,
        {
            "channel_id": "c",
            "peer": None,
            "connected": False,
            "funding": None,
            "state": "open",
            "ours_sat": None,
        },
    ),
    (
        OnchainBalance,
        {
            "confirmed_sat": 5,
            "unconfirmed_sat": 0,
            "locked_sat": 0,
            "anchor_reserve_sat": 1,
            "spendable_sat": 4,
        },
    ),
    (WebhookRegistration, {"num_webhooks": 1, "max_webhooks": 8, "no_change": False}),
    (Webhooks, {"app_names": ["a"], "max_webhooks": 8}),
    (
        Balances,
        {
            "onchain": {
                "confirmed_sat": 5,
                "unconfirmed_sat": 0,
                "locked_sat": 0,
                "anchor_reserve_sat": 1,
                "spendable_sat": 4,
            },
            "lightning": {
                "outbound_msat": 1,
                "inbound_msat": 2,
                "claimable_msat": 3,
                "depends_on_lsp_msat": 0,
            },
            "pending_sweep_sat": 0,
        },
    ),
    (Peer, {"node_id": "02", "address": None, "inbound": True, "connected": False}),
    (Recovery, {"from": "words", "since_ms": 1, "channels": [], "coming_sat": 0, "settled": True}),
    (
        Backup,
        {
            "node_id": "02",
            "network": "regtest",
            "taken_at_ms": 1,
            "commit": 2,
            "channels": 0,
            "bytes": 100,
        },
    ),
    (Stage, {"stage": "intercepted", "at_us": 1}),
    (Client, CLIENT),
]
EVENTS: list[tuple[type[EventBase], dict[str, Any], tuple[str, Any]]] = [
    (
        PaymentFailed,
        {"type": "payment_failed", "payment_hash": "aa", "reason": "no route"},
        ("failure", "no route"),
    ),
    (
        JitRefused,
        {"type": "jit_refused", "payment_hash": "aa", "reason": "skim_too_high"},
        ("reason", "skim_too_high"),
    ),
    (
        FundingConflict,
        {"type": "funding_conflict", "channel_id": "c", "funding": "t:0", "conflicting_txid": "u"},
        ("conflicting_txid", "u"),
    ),
    (
        LspBrokePromise,
        {
            "type": "lsp_broke_promise",
            "lsp": "02",
            "channel_id": "c",
            "age_blocks": 3,
            "min_lifetime_blocks": 144,
        },
        ("min_lifetime_blocks", 144),
    ),
    (Alarm, {"type": "alarm", "alarm": "fees", "on": True, "message": "m"}, ("on", True)),
    (
        OnchainReceived,
        {"type": "onchain_received", "outpoint": "t:0", "amount_sat": 9, "height": 7},
        ("amount_sat", 9),
    ),
]


@pytest.mark.parametrize(("model", "told"), TOLD)
def test_answers_are_frozen_and_take_what_a_later_release_adds(
    model: type[Model], told: dict[str, Any]
) -> None:
    answer = model.model_validate({**told, "of_a_later_release": 1})
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError):
        setattr(answer, name, None)
    with pytest.raises(ValidationError):
        model.model_validate({})


@pytest.mark.parametrize(("event", "told", "field"), EVENTS)
def test_events_are_what_the_node_tells(
    event: type[EventBase], told: dict[str, Any], field: tuple[str, Any]
) -> None:
    made = parse_event({**told, "at_ms": 1_000})
    assert type(made) is event
    assert made.at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    assert getattr(made, field[0]) == field[1]


def test_a_row_names_its_kind_and_time() -> None:
    row = LedgerRow.model_validate(TOLD[4][1])
    assert row.kind == "chain_cost"
    assert row.at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=timezone.utc)


def test_errors_that_no_other_test_names() -> None:
    stale = from_native('{"code": "store_stale", "message": "m", "details": {"peer": "02ab"}}')
    assert isinstance(stale, StoreStaleError)
    assert isinstance(stale, StoreError)
    assert stale.peer == "02ab"
    assert type(from_native('{"code": "internal", "message": "m"}')) is InternalError
    assert issubclass(InternalError, LdkJitError)
