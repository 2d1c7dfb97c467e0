//! What the rows must say of a channel, from what LDK shows of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChannelId, PaymentHash};

/// An open channel as LDK shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// The channel.
    pub channel: ChannelId,
    /// Its value, msat.
    pub value_msat: u64,
    /// LDK's `outbound_capacity_msat`.
    pub outbound_msat: u64,
    /// LDK's `inbound_capacity_msat`.
    pub inbound_msat: u64,
    /// What our side may never spend, msat: the reserve and, as the funder, two anchors.
    pub kept_msat: u64,
    /// What their side may never spend, msat.
    pub their_kept_msat: u64,
    /// HTLCs in flight.
    pub htlcs: Vec<HtlcView>,
}

/// An HTLC in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcView {
    /// To us.
    pub inbound: bool,
    /// Its amount, msat.
    pub amount_msat: u64,
    /// Its payment.
    pub hash: PaymentHash,
    /// Where it stands.
    pub state: HtlcState,
}

/// Where an HTLC stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HtlcState {
    /// Nothing is decided, or LDK has forgotten that it is.
    Open,
    /// It is being removed, paid.
    Fulfilled,
    /// It is being removed, unpaid.
    Failed,
}

/// What the rows may say, msat; one figure if the two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub low: i128,
    /// At most.
    pub high: i128,
}

/// What the rows must say of each channel, once everything that LDK has to tell is written.
///
/// LDK moves an HTLC into a balance when it is wholly removed. The rows have it earlier: a part of ours when it is
/// claimed, both sides of a forward when its preimage is safe. A payment of our own is written when it is wholly removed.
#[must_use]
pub fn bounds(
    channels: &[ChannelView],
    own_payments: &BTreeSet<PaymentHash>,
    contested: &[PaymentHash],
    closing: bool,
) -> BTreeMap<ChannelId, Bounds> {
    let mut unsettled_in: BTreeMap<PaymentHash, u32> = BTreeMap::new();
    let mut unsettled_out = unsettled_in.clone();
    let mut paid_in = BTreeSet::new();
    let add = |to: &mut BTreeMap<PaymentHash, u32>, hash: PaymentHash| {
        let count = to.entry(hash).or_default();
        *count = count.saturating_add(1);
    };
    for htlc in channels.iter().flat_map(|channel| &channel.htlcs) {
        match (htlc.inbound, htlc.state) {
            (true, HtlcState::Open) => add(&mut unsettled_in, htlc.hash),
            (true, HtlcState::Fulfilled) => drop(paid_in.insert(htlc.hash)),
            (false, HtlcState::Open) => add(&mut unsettled_out, htlc.hash),
            _ => {}
        }
    }
    contested.iter().for_each(|h| add(&mut unsettled_in, *h));

    // A forward's outgoing HTLC that LDK shows as open is so if its incoming one is. LDK forgets a preimage that the
    // peer has not yet sealed with a signature; by then it was used upstream.
    let written = |htlc: &HtlcView| -> Option<bool> {
        match (htlc.inbound, htlc.state) {
            (_, HtlcState::Failed) => Some(false),
            (true, state) => Some(state == HtlcState::Fulfilled),
            (false, _) if own_payments.contains(&htlc.hash) => Some(false),
            (false, HtlcState::Fulfilled) => Some(true),
            (false, HtlcState::Open) => {
                let incoming = unsettled_in.get(&htlc.hash).copied().unwrap_or(0);
                let outgoing = unsettled_out.get(&htlc.hash).copied().unwrap_or(0);
                match incoming {
                    // It may have come by a channel that is closed, too small to be seen there.
                    0 if closing => None,
                    0 => Some(true),
                    n if n == outgoing && !paid_in.contains(&htlc.hash) => Some(false),
                    _ => None,
                }
            }
        }
    };
    channels
        .iter()
        .map(|channel| {
            let Bounds { mut low, mut high } = channel.settled();
            for htlc in &channel.htlcs {
                let amount = i128::from(htlc.amount_msat);
                let amount = if htlc.inbound {
                    amount
                } else {
                    amount.saturating_neg()
                };
                let written = written(htlc);
                if written != Some(false) {
                    low = low.saturating_add(if written.is_none() {
                        amount.min(0)
                    } else {
                        amount
                    });
                    high = high.saturating_add(if written.is_none() {
                        amount.max(0)
                    } else {
                        amount
                    });
                }
            }
            (channel.channel, Bounds { low, high })
        })
        .collect()
}

impl ChannelView {
    /// LDK's own figure for our side. It shows capacities, each less what that side must keep and what it has in
    /// flight, and never below zero: above it, the figure follows.
    #[must_use]
    pub fn settled(&self) -> Bounds {
        let in_flight = |inbound| {
            self.htlcs
                .iter()
                .filter(|htlc| htlc.inbound == inbound)
                .fold(0_i128, |sum, htlc| {
                    sum.saturating_add(htlc.amount_msat.into())
                })
        };
        let value = i128::from(self.value_msat);
        let ours = i128::from(self.outbound_msat)
            .saturating_add(self.kept_msat.into())
            .saturating_add(in_flight(false));
        let theirs = i128::from(self.inbound_msat)
            .saturating_add(self.their_kept_msat.into())
            .saturating_add(in_flight(true));
        let rest = value.saturating_sub(theirs);
        match (self.outbound_msat, self.inbound_msat) {
            (0, 0) => Bounds {
                low: rest.max(0),
                high: ours.min(value),
            },
            (0, _) => Bounds {
                low: rest,
                high: rest,
            },
            _ => Bounds {
                low: ours,
                high: ours,
            },
        }
    }
}
