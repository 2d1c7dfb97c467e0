"""Answers that no other test names, made of what a node tells."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from ldkjit import (
    BadRow,
    ChannelAccount,
    DecodedInvoice,
    FeeRates,
    InternalError,
    LdkJitError,
    LedgerRow,
    LightningBalance,
    LostChannel,
    OnchainBalance,
    StoreError,
    StoreStaleError,
    WebhookRegistration,
)
from ldkjit.errors import from_native
from ldkjit.models import Model

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
