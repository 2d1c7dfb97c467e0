//! What LDK's events mean for the accounts of channels, as ledger rows; and channels as the check sees them.

use ldkjit_core::amount::Msat;
use ldkjit_core::audit::{ChannelView, HtlcState, HtlcView};
use ldkjit_core::ids::{ChannelId, OpenId, PaymentHash};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::lsps0::clean_text;
use lightning::events::Event;
use lightning::ln::channel_state::{
    ChannelDetails, InboundHTLCStateDetails, OutboundHTLCStateDetails,
};

use crate::convert;
use crate::ldk::{ChainMonitor, ChannelManager};
use crate::wallet::Wallet;

/// Both anchors of a commitment transaction, which the funder pays for, sat.
const ANCHORS_SAT: u64 = 660;

/// Where the meaning of an event is looked up.
pub struct Accounts<'a> {
    /// LDK's channels.
    pub cm: &'a ChannelManager,
    /// Their monitors.
    pub monitors: &'a ChainMonitor,
    /// Knows the channels that were funded.
    pub wallet: &'a Wallet,
    /// Whether a claim is in the books: LDK tells of some twice.
    pub claimed: &'a dyn Fn(&PaymentHash) -> bool,
}

/// What names one claim of a payment: the same hash may be paid twice.
#[must_use]
pub fn claim_id(event: &Event) -> Option<PaymentHash> {
    match event {
        Event::PaymentClaimed {
            payment_hash,
            payment_id,
            ..
        } => Some(PaymentHash(payment_id.map_or(payment_hash.0, |id| id.0))),
        _ => None,
    }
}

impl Accounts<'_> {
    /// The rows that an event brings, and funding outputs that are to be tracked from now on.
    #[must_use]
    pub fn rows(&self, event: &Event) -> Vec<LedgerEntry> {
        match event {
            Event::ChannelPending {
                channel_id,
                user_channel_id,
                counterparty_node_id,
                funding_txo,
                ..
            } => {
                let channels = self
                    .cm
                    .list_channels_with_counterparty(counterparty_node_id);
                let found = channels.iter().find(|c| c.channel_id == *channel_id);
                let Some(details) = found else {
                    // Gone already: its end has all that is known of it.
                    return Vec::new();
                };
                let bounds = view(details).settled();
                let exact = (bounds.low == bounds.high).then_some(bounds.low);
                vec![LedgerEntry::ChannelFunded {
                    channel: convert::channel(channel_id),
                    peer: convert::node_id(counterparty_node_id),
                    open: OpenId(*user_channel_id),
                    funding: ldkjit_core::ids::Outpoint {
                        txid: funding_txo.txid.to_string(),
                        vout: funding_txo.vout,
                    },
                    value_sat: details.channel_value_satoshis,
                    balance: exact.and_then(|b| u64::try_from(b).ok()).map(Msat),
                    by_us: details.is_outbound,
                }]
            }
            Event::ChannelClosed {
                channel_id,
                user_channel_id,
                reason,
                counterparty_node_id,
                channel_capacity_sats,
                channel_funding_txo,
                last_local_balance_msat,
                ..
            } => {
                let channel = convert::channel(channel_id);
                let balance = last_local_balance_msat.map(Msat);
                let mut rows = Vec::new();
                if !self.wallet.tracks(&channel) {
                    // Without a monitor it was never signed, and nothing of it can reach the chain.
                    let signed = self.monitors.list_monitors().contains(channel_id);
                    let (true, Some(peer), Some(value_sat), Some(funding)) = (
                        signed,
                        counterparty_node_id,
                        channel_capacity_sats,
                        channel_funding_txo,
                    ) else {
                        return rows;
                    };
                    rows.push(LedgerEntry::ChannelFunded {
                        channel,
                        peer: convert::node_id(peer),
                        open: OpenId(*user_channel_id),
                        funding: convert::outpoint(funding),
                        value_sat: *value_sat,
                        balance,
                        by_us: self.wallet.funding(*user_channel_id).is_some(),
                    });
                }
                rows.push(LedgerEntry::ChannelEnded {
                    channel,
                    balance,
                    reason: clean_text(&reason.to_string()),
                });
                rows
            }
            Event::PaymentPathSuccessful {
                payment_id,
                payment_hash,
                path,
                ..
            } => {
                let channels = self.cm.list_channels();
                let by = path.hops.first().and_then(|hop| {
                    let scid = Some(hop.short_channel_id);
                    channels
                        .iter()
                        .find(|c| c.short_channel_id == scid || c.outbound_scid_alias == scid)
                });
                let fee = path.fee_msat();
                vec![LedgerEntry::PathPaid {
                    payment_hash: PaymentHash(payment_hash.map_or(payment_id.0, |h| h.0)),
                    channel: by.map(|c| convert::channel(&c.channel_id)),
                    amount: Msat(path.final_value_msat().saturating_add(fee)),
                    fee: Msat(fee),
                }]
            }
            Event::PaymentClaimed {
                payment_hash,
                htlcs,
                ..
            } => {
                if claim_id(event).is_some_and(|id| (self.claimed)(&id)) {
                    return Vec::new();
                }
                htlcs
                    .iter()
                    .map(|htlc| LedgerEntry::HtlcClaimed {
                        payment_hash: PaymentHash(payment_hash.0),
                        channel: convert::channel(&htlc.channel_id),
                        amount: Msat(htlc.value_msat),
                        skimmed: Msat(htlc.counterparty_skimmed_fee_msat),
                    })
                    .collect()
            }
            Event::PaymentForwarded {
                prev_channel_id,
                next_channel_id,
                next_user_channel_id,
                total_fee_earned_msat,
                skimmed_fee_msat,
                claim_from_onchain_tx,
                outbound_amount_forwarded_msat,
                ..
            } => {
                // A forward out of a closed channel is told again at every start, and then without the channel's
                // own number: the amount that left is booked the first time.
                let again = total_fee_earned_msat.is_none() && next_user_channel_id.is_none();
                let sent = outbound_amount_forwarded_msat.filter(|_| !again);
                let received = total_fee_earned_msat
                    .and_then(|fee| (*outbound_amount_forwarded_msat)?.checked_add(fee));
                vec![LedgerEntry::Forwarded {
                    from: prev_channel_id.map(|c| convert::channel(&c)),
                    to: next_channel_id.map(|c| convert::channel(&c)),
                    received: received.map(Msat),
                    sent: sent.map(Msat),
                    skim: Msat(skimmed_fee_msat.unwrap_or(0)),
                    late: *claim_from_onchain_tx || next_user_channel_id.is_none(),
                }]
            }
            _ => Vec::new(),
        }
    }

    /// Every open channel, as the check needs it.
    #[must_use]
    pub fn views(&self) -> Vec<ChannelView> {
        let channels = self.cm.list_channels();
        let signed = self.monitors.list_monitors();
        channels
            .iter()
            .filter(|c| signed.contains(&c.channel_id))
            .map(view)
            .collect()
    }
}

/// A channel as the check sees it.
#[must_use]
pub fn view(c: &ChannelDetails) -> ChannelView {
    let anchors = c
        .channel_type
        .as_ref()
        .is_some_and(|t| t.supports_anchors_zero_fee_htlc_tx());
    let msat = |sat: u64| sat.saturating_mul(1_000);
    let paid = |by: bool| if anchors && by { ANCHORS_SAT } else { 0 };
    let inbound = c.pending_inbound_htlcs.iter().map(|htlc| HtlcView {
        inbound: true,
        amount_msat: htlc.amount_msat,
        hash: PaymentHash(htlc.payment_hash.0),
        state: match htlc.state {
            Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFulfill) => {
                HtlcState::Fulfilled
            }
            Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFail) => HtlcState::Failed,
            _ => HtlcState::Open,
        },
    });
    let outbound = c.pending_outbound_htlcs.iter().map(|htlc| HtlcView {
        inbound: false,
        amount_msat: htlc.amount_msat,
        hash: PaymentHash(htlc.payment_hash.0),
        state: match htlc.state {
            Some(OutboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveSuccess) => {
                HtlcState::Fulfilled
            }
            Some(OutboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFailure) => {
                HtlcState::Failed
            }
            _ => HtlcState::Open,
        },
    });
    ChannelView {
        channel: ChannelId(c.channel_id.0),
        value_msat: msat(c.channel_value_satoshis),
        outbound_msat: c.outbound_capacity_msat,
        inbound_msat: c.inbound_capacity_msat,
        kept_msat: msat(
            c.unspendable_punishment_reserve
                .unwrap_or(0)
                .saturating_add(paid(c.is_outbound)),
        ),
        their_kept_msat: msat(
            c.counterparty
                .unspendable_punishment_reserve
                .saturating_add(paid(!c.is_outbound)),
        ),
        htlcs: inbound.chain(outbound).collect(),
    }
}
