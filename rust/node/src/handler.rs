//! LDK's events: each is turned into rows and calls that belong to the same commit. Never waits for a commit.

use std::sync::Arc;

use ldkjit_core::ids::PaymentHash;
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::lsps0::clean_text;
use lightning::events::{
    Event, FundingInfo, HTLCHandlingFailureReason, HTLCHandlingFailureType, PaymentPurpose,
};

use crate::accounts::{claim_id, Accounts};
use crate::convert;
use crate::crash;
use crate::events::NodeEvent;
use crate::node::Node;
use crate::payments::PaymentKind;

/// Handles one event of the channel manager. The driver holds the gate.
pub fn handle(node: &Arc<Node>, event: Event) {
    let [before, after] = crash::around_event(&event);
    crash::point(before);
    dispatch(node, event);
    crash::point(after);
}

/// Books what an event moves, in the same commit.
fn keep_accounts(node: &Node, event: &Event) {
    let accounts = Accounts {
        cm: &node.cm,
        monitors: &node.monitors,
        wallet: &node.parts.wallet,
        claimed: &|claim| node.payments.was_received(claim),
    };
    for row in accounts.rows(event) {
        if let LedgerEntry::ChannelFunded {
            channel,
            funding,
            value_sat,
            ..
        } = &row
        {
            if let Some(at) = convert::bitcoin_outpoint(funding) {
                node.parts.wallet.track(at, *channel, *value_sat);
            }
        }
        node.record(&row);
    }
}

fn dispatch(node: &Arc<Node>, event: Event) {
    let log = &node.parts.log;
    if node.forwards.is_told_again(&event) {
        log.debug("event", format_args!("told again: {event:?}"));
        return;
    }
    keep_accounts(node, &event);
    #[cfg(feature = "faults")]
    let Some(event) = (match &node.config.foreign {
        Some(foreign) => foreign.ldk(event),
        None => Some(event),
    }) else {
        return;
    };
    let claim = claim_id(&event);
    match event {
        Event::HTLCIntercepted {
            intercept_id,
            requested_next_hop_scid,
            payment_hash,
            inbound_amount_msat,
            expected_outbound_amount_msat,
        } => match &node.lsp {
            Some(lsp) => lsp.on_intercepted(
                node,
                intercept_id,
                requested_next_hop_scid,
                PaymentHash(payment_hash.0),
                inbound_amount_msat,
                expected_outbound_amount_msat,
            ),
            None => {
                let _ = node.cm.fail_intercepted_htlc(intercept_id);
            }
        },
        Event::FundingGenerationReady {
            temporary_channel_id,
            counterparty_node_id,
            channel_value_satoshis,
            output_script,
            user_channel_id,
        } => {
            let an_order = node.lsp.as_ref().is_some_and(|lsp| {
                lsp.on_funding_needed(
                    node,
                    temporary_channel_id,
                    counterparty_node_id,
                    channel_value_satoshis,
                    output_script.clone(),
                    user_channel_id,
                )
            });
            if !an_order {
                node.fund_channel(
                    temporary_channel_id,
                    counterparty_node_id,
                    channel_value_satoshis,
                    output_script,
                    user_channel_id,
                );
            }
        }
        Event::OpenChannelRequest {
            temporary_channel_id,
            counterparty_node_id,
            funding_satoshis,
            channel_type,
            is_announced,
            params,
            ..
        } => node.client.on_open_request(
            node,
            temporary_channel_id,
            counterparty_node_id,
            funding_satoshis,
            is_announced,
            &channel_type,
            &params,
        ),
        Event::ChannelPending {
            channel_id,
            user_channel_id,
            counterparty_node_id,
            funding_txo,
            ..
        } => {
            let channel = convert::channel(&channel_id);
            let funding = ldkjit_core::ids::Outpoint {
                txid: funding_txo.txid.to_string(),
                vout: funding_txo.vout,
            };
            node.events.emit(&NodeEvent::ChannelPending {
                channel_id: channel,
                peer: convert::node_id(&counterparty_node_id),
                funding: funding.to_string(),
            });
            node.client
                .on_channel_pending(node, user_channel_id, channel);
            if let Some(lsp) = &node.lsp {
                lsp.on_channel_pending(node, user_channel_id, channel, funding);
            }
            node.opened(user_channel_id, Ok(channel));
        }
        Event::ChannelReady {
            channel_id,
            user_channel_id,
            counterparty_node_id,
            ..
        } => {
            let channel = convert::channel(&channel_id);
            node.events.emit(&NodeEvent::ChannelReady {
                channel_id: channel,
                peer: convert::node_id(&counterparty_node_id),
            });
            if let Some(lsp) = &node.lsp {
                lsp.on_channel_ready(node, user_channel_id, channel);
            }
        }
        Event::ChannelClosed {
            channel_id,
            user_channel_id,
            reason,
            counterparty_node_id,
            channel_funding_txo,
            ..
        } => {
            let channel = convert::channel(&channel_id);
            // May carry words of the peer.
            let why = clean_text(&reason.to_string());
            log.info("channel", format_args!("{channel} closed: {why}"));
            node.forwards.on_closed(&channel);
            node.events.emit(&NodeEvent::ChannelClosed {
                channel_id: channel,
                peer: counterparty_node_id.map(|p| convert::node_id(&p)),
                reason: why.clone(),
            });
            node.client
                .promises
                .on_channel_closed(node, channel, &reason);
            let an_order = node
                .lsp
                .as_ref()
                .is_some_and(|lsp| lsp.on_channel_closed(node, user_channel_id, channel, &reason));
            if !an_order && channel_funding_txo.is_none() {
                node.parts.wallet.unlock(user_channel_id);
            }
            // One that never was had no payment.
            if let Some(lsp) = node.lsp.as_ref().filter(|_| channel_funding_txo.is_some()) {
                lsp.on_any_channel_closed(node);
            }
            node.opened(user_channel_id, Err(why));
            node.look_at_monitors.notify_one();
        }
        Event::DiscardFunding {
            channel_id,
            funding_info,
        } => {
            log.info(
                "channel",
                format_args!(
                    "{}: its funding will not be used",
                    convert::channel(&channel_id)
                ),
            );
            match funding_info {
                FundingInfo::Tx { transaction } => node.discard_funding(transaction.compute_txid()),
                FundingInfo::OutPoint { outpoint } => node.discard_funding(outpoint.txid),
            }
        }
        Event::PaymentClaimable {
            payment_hash,
            amount_msat,
            counterparty_skimmed_fee_msat,
            purpose,
            receiving_channel_ids,
            claim_deadline,
            ..
        } => node.client.on_claimable(
            node,
            PaymentHash(payment_hash.0),
            amount_msat,
            counterparty_skimmed_fee_msat,
            receiving_channel_ids
                .iter()
                .map(|(id, _)| convert::channel(id))
                .collect(),
            claim_deadline,
            purpose.preimage().map(|p| p.0),
        ),
        Event::PaymentClaimed {
            payment_hash,
            amount_msat,
            purpose,
            htlcs,
            ..
        } => {
            let skimmed = htlcs.iter().fold(0_u64, |sum, h| {
                sum.saturating_add(h.counterparty_skimmed_fee_msat)
            });
            let kind = match purpose {
                PaymentPurpose::SpontaneousPayment(_) => PaymentKind::Keysend,
                _ => PaymentKind::Bolt11,
            };
            let hash = PaymentHash(payment_hash.0);
            node.on_payment_claimed(
                claim.unwrap_or(hash),
                hash,
                kind,
                amount_msat,
                skimmed,
                purpose.preimage().map(|p| p.0),
                None,
            );
        }
        Event::PaymentSent {
            payment_hash,
            payment_preimage,
            fee_paid_msat,
            ..
        } => node.on_payment_sent(
            PaymentHash(payment_hash.0),
            payment_preimage.0,
            fee_paid_msat,
        ),
        Event::PaymentFailed {
            payment_id, reason, ..
        } => node.on_payment_failed(PaymentHash(payment_id.0), reason),
        Event::PaymentPathSuccessful { path, .. } => node.score(|scorer, now| {
            use lightning::routing::scoring::ScoreUpdate;
            scorer.payment_path_successful(&path, now);
        }),
        Event::PaymentPathFailed {
            path,
            short_channel_id,
            payment_hash,
            failure,
            ..
        } => {
            log.info(
                "payment",
                format_args!("{payment_hash}: a path failed: {failure:?}"),
            );
            node.note_path_failure(PaymentHash(payment_hash.0), &failure);
            if let Some(scid) = short_channel_id {
                node.score(|scorer, now| {
                    use lightning::routing::scoring::ScoreUpdate;
                    scorer.payment_path_failed(&path, scid, now);
                });
            }
        }
        Event::PaymentForwarded {
            prev_channel_id,
            next_channel_id,
            next_node_id,
            total_fee_earned_msat,
            skimmed_fee_msat,
            outbound_amount_forwarded_msat,
            claim_from_onchain_tx,
            ..
        } => {
            let (from, to) = (
                prev_channel_id.map(|c| convert::channel(&c)),
                next_channel_id.map(|c| convert::channel(&c)),
            );
            let skim = skimmed_fee_msat.unwrap_or(0);
            let fee = total_fee_earned_msat.unwrap_or(0).saturating_sub(skim);
            if let (Some(lsp), Some(client), Some(channel)) = (&node.lsp, next_node_id, to) {
                lsp.on_forwarded(
                    node,
                    &client,
                    channel,
                    outbound_amount_forwarded_msat,
                    skimmed_fee_msat,
                    claim_from_onchain_tx,
                );
            }
            node.events.emit(&NodeEvent::PaymentForwarded {
                from_channel: from,
                to_channel: to,
                amount_msat: outbound_amount_forwarded_msat,
                fee_msat: fee,
                opening_fee_msat: skim,
            });
        }
        Event::HTLCHandlingFailed {
            failure_type,
            failure_reason,
            ..
        } => match (failure_type, &node.lsp) {
            (
                HTLCHandlingFailureType::Forward {
                    node_id: Some(client),
                    channel_id,
                },
                Some(lsp),
            ) => {
                lsp.on_forward_failed(node, &client, convert::channel(&channel_id));
                if matches!(
                    failure_reason,
                    Some(HTLCHandlingFailureReason::Local { .. })
                ) {
                    lsp.on_missed(node, &client);
                }
            }
            (
                HTLCHandlingFailureType::InvalidForward {
                    requested_forward_scid,
                },
                Some(lsp),
            ) => lsp.on_invalid_forward(node, requested_forward_scid),
            _ => {}
        },
        // Spendable outputs and bumps come from the monitors; BOLT 12 and probes are not used.
        other => log.debug("event", format_args!("not used: {other:?}")),
    }
}
