"""A match over every event and every error code: the type checker says if one is missing."""

from __future__ import annotations

from typing_extensions import assert_never

from ldkjit import (
    Alarm,
    ChannelClosed,
    ChannelPending,
    ChannelReady,
    Event,
    FundingConflict,
    FundingUnconfirmed,
    JitRefused,
    LdkJitError,
    LspBrokePromise,
    OnchainReceived,
    OrderChanged,
    OrderSold,
    PaymentFailed,
    PaymentForwarded,
    PaymentReceived,
    PaymentSent,
    UnknownEvent,
    WebhookCalled,
)


def of_event(event: Event) -> str:
    """What it is called."""
    match event:
        case PaymentReceived():
            return event.type
        case PaymentSent():
            return event.type
        case PaymentFailed():
            return event.type
        case PaymentForwarded():
            return event.type
        case ChannelPending():
            return event.type
        case ChannelReady():
            return event.type
        case ChannelClosed():
            return event.type
        case JitRefused():
            return event.type
        case OrderSold():
            return event.type
        case OrderChanged():
            return event.type
        case FundingConflict():
            return event.type
        case LspBrokePromise():
            return event.type
        case Alarm():
            return event.type
        case FundingUnconfirmed():
            return event.type
        case OnchainReceived():
            return event.type
        case WebhookCalled():
            return event.type
        case UnknownEvent():
            return "unknown"
        case _:
            assert_never(event)


def of_error(error: LdkJitError) -> str:
    """Whether to try again."""
    match error.known_code:
        case (
            "address"
            | "amount"
            | "chain"
            | "config"
            | "fork"
            | "inbound_capacity"
            | "insufficient_funds"
            | "internal"
            | "invoice"
            | "lsp"
            | "lsp_fee"
            | "lsp_refused"
            | "lsp_trust"
            | "lsp_unreachable"
            | "no_lsp"
            | "not_found"
            | "payment"
            | "peer"
            | "recovering"
            | "recovery_needed"
            | "stopped"
            | "store"
            | "store_copy"
            | "store_corrupt"
            | "store_fenced"
            | "store_locked"
            | "store_network"
            | "store_other_node"
            | "store_stale"
            | "store_version"
            | "timeout"
            | "webhook"
            | "parse"
            | "wrong_loop"
        ):
            return "known"
        case None:
            return "of a later release"
        case _:
            assert_never(error.known_code)
