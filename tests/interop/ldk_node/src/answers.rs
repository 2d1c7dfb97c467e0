//! ldk-node's answers and events as JSON. Amounts are whole numbers with their unit in the name.

use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::bitcoin::OutPoint;
use ldk_node::payment::{PaymentDetails, PaymentDirection, PaymentKind, PaymentStatus};
use ldk_node::{BalanceDetails, ChannelDetails, Event, NodeStatus, PeerDetails};
use serde_json::{json, Value};

pub fn status(status: &NodeStatus, node_id: &PublicKey) -> Value {
    json!({
        "node_id": node_id.to_string(),
        "height": status.current_best_block.height,
    })
}

pub fn balances(balances: &BalanceDetails) -> Value {
    let swept = &balances.pending_balances_from_channel_closures;
    json!({
        "onchain_sat": balances.total_onchain_balance_sats,
        "spendable_onchain_sat": balances.spendable_onchain_balance_sats,
        "lightning_sat": balances.total_lightning_balance_sats,
        // For a person to read.
        "lightning": balances.lightning_balances.iter().map(|each| format!("{each:?}")).collect::<Vec<_>>(),
        "being_swept": swept.iter().map(|each| format!("{each:?}")).collect::<Vec<_>>(),
    })
}

pub fn peer(peer: &PeerDetails) -> Value {
    json!({
        "node_id": peer.node_id.to_string(),
        "connected": peer.is_connected,
    })
}

pub fn channel(channel: &ChannelDetails) -> Value {
    json!({
        "channel_id": channel.channel_id.to_string(),
        "user_channel_id": channel.user_channel_id.0.to_string(),
        "peer": channel.counterparty_node_id.to_string(),
        "funding": channel.funding_txo.as_ref().map(OutPoint::to_string),
        "capacity_sat": channel.channel_value_sats,
        "outbound_msat": channel.outbound_capacity_msat,
        "inbound_msat": channel.inbound_capacity_msat,
        "reserve_sat": channel.unspendable_punishment_reserve,
        "ready": channel.is_channel_ready,
        "usable": channel.is_usable,
        "outgoing": channel.is_outbound,
        "announced": channel.is_announced,
        "confirmations": channel.confirmations,
    })
}

pub fn payment(payment: &PaymentDetails) -> Value {
    let (kind, skimmed) = match &payment.kind {
        PaymentKind::Bolt11 { .. } => ("bolt11", None),
        PaymentKind::Bolt11Jit {
            counterparty_skimmed_fee_msat,
            ..
        } => ("bolt11_jit", *counterparty_skimmed_fee_msat),
        PaymentKind::Spontaneous { .. } => ("spontaneous", None),
        PaymentKind::Onchain { .. } => ("onchain", None),
        PaymentKind::Bolt12Offer { .. } | PaymentKind::Bolt12Refund { .. } => ("bolt12", None),
    };
    json!({
        "payment_id": payment.id.to_string(),
        "kind": kind,
        "outgoing": payment.direction == PaymentDirection::Outbound,
        "status": match payment.status {
            PaymentStatus::Pending => "pending",
            PaymentStatus::Succeeded => "succeeded",
            PaymentStatus::Failed => "failed",
        },
        "amount_msat": payment.amount_msat,
        "fee_msat": payment.fee_paid_msat,
        "skimmed_msat": skimmed,
    })
}

pub fn event(event: &Event) -> Value {
    match event {
        Event::PaymentSuccessful {
            payment_hash,
            payment_preimage,
            fee_paid_msat,
            ..
        } => json!({
            "kind": "payment_sent",
            "payment_hash": payment_hash.to_string(),
            "preimage": payment_preimage.map(|preimage| preimage.to_string()),
            "fee_msat": fee_paid_msat,
        }),
        Event::PaymentFailed {
            payment_hash,
            reason,
            ..
        } => json!({
            "kind": "payment_failed",
            "payment_hash": payment_hash.map(|hash| hash.to_string()),
            "reason": reason.map(|reason| format!("{reason:?}")),
        }),
        Event::PaymentReceived {
            payment_hash,
            amount_msat,
            ..
        } => json!({
            "kind": "payment_received",
            "payment_hash": payment_hash.to_string(),
            "amount_msat": amount_msat,
        }),
        Event::PaymentClaimable {
            payment_hash,
            claimable_amount_msat,
            claim_deadline,
            ..
        } => json!({
            "kind": "payment_claimable",
            "payment_hash": payment_hash.to_string(),
            "claimable_msat": claimable_amount_msat,
            "deadline": claim_deadline,
        }),
        Event::PaymentForwarded {
            next_channel_id,
            total_fee_earned_msat,
            skimmed_fee_msat,
            outbound_amount_forwarded_msat,
            ..
        } => json!({
            "kind": "payment_forwarded",
            "channel_id": next_channel_id.to_string(),
            "fee_msat": total_fee_earned_msat,
            "skimmed_msat": skimmed_fee_msat,
            "amount_msat": outbound_amount_forwarded_msat,
        }),
        Event::ChannelPending {
            channel_id,
            counterparty_node_id,
            funding_txo,
            ..
        } => json!({
            "kind": "channel_pending",
            "channel_id": channel_id.to_string(),
            "peer": counterparty_node_id.to_string(),
            "funding": funding_txo.to_string(),
        }),
        Event::ChannelReady {
            channel_id,
            counterparty_node_id,
            ..
        } => json!({
            "kind": "channel_ready",
            "channel_id": channel_id.to_string(),
            "peer": counterparty_node_id.map(|peer| peer.to_string()),
        }),
        Event::ChannelClosed {
            channel_id,
            counterparty_node_id,
            reason,
            ..
        } => json!({
            "kind": "channel_closed",
            "channel_id": channel_id.to_string(),
            "peer": counterparty_node_id.map(|peer| peer.to_string()),
            "reason": reason.as_ref().map(|reason| format!("{reason:?}")),
        }),
        Event::SplicePending { channel_id, .. } => json!({
            "kind": "splice_pending",
            "channel_id": channel_id.to_string(),
        }),
        Event::SpliceFailed { channel_id, .. } => json!({
            "kind": "splice_failed",
            "channel_id": channel_id.to_string(),
        }),
    }
}
