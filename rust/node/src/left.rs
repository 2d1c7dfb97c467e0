//! HTLCs that are left on the chain, as to claim them costs more than they are: told of, and claimed when rates allow it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use ldkjit_core::amount::Msat;
use ldkjit_core::claims::rate_to_claim_at;
use ldkjit_core::ids::PaymentHash;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::channelmonitor::Balance;
use lightning::events::bump_transaction::BumpTransactionEvent;

use crate::node::Node;
use crate::sync::lock;

/// Those that LDK last offered to claim, and that were not worth it. LDK offers them again, after a start too.
#[derive(Default)]
pub struct Left(Mutex<BTreeSet<PaymentHash>>);

impl Left {
    /// Of these balances, what was left: sat by payment hash.
    pub(crate) fn of(&self, balances: &[Balance]) -> BTreeMap<PaymentHash, u64> {
        let left = lock(&self.0);
        let mut sums = BTreeMap::new();
        for balance in balances {
            let (Balance::ContentiousClaimable {
                amount_satoshis,
                payment_hash,
                ..
            }
            | Balance::MaybeTimeoutClaimableHTLC {
                amount_satoshis,
                payment_hash,
                ..
            }) = balance
            else {
                continue;
            };
            let hash = PaymentHash(payment_hash.0);
            if left.contains(&hash) {
                let sum: &mut u64 = sums.entry(hash).or_default();
                *sum = sum.saturating_add(*amount_satoshis);
            }
        }
        sums
    }
}

/// Whether a claim that LDK asks for is left, as it is not worth it; else it is given the rate at which it is.
pub(crate) fn leaves(node: &Node, bump: &mut BumpTransactionEvent) -> bool {
    let BumpTransactionEvent::HTLCResolution {
        target_feerate_sat_per_1000_weight: rate,
        htlc_descriptors: htlcs,
        ..
    } = bump
    else {
        return false;
    };
    let values: Vec<u64> = htlcs
        .iter()
        .map(|htlc| Msat(htlc.htlc.amount_msat).sat_floor())
        .collect();
    let now = node
        .parts
        .fees
        .get_est_sat_per_1000_weight(ConfirmationTarget::UrgentOnChainSweep);
    let hashes = htlcs
        .iter()
        .map(|htlc| PaymentHash(htlc.htlc.payment_hash.0));
    let mut left = lock(&node.left.0);
    if let Some(worth_it) = rate_to_claim_at(&values, *rate, now) {
        *rate = worth_it;
        hashes.for_each(|hash| {
            left.remove(&hash);
        });
        return false;
    }
    left.extend(hashes);
    node.parts.log.debug(
        "chain",
        format_args!(
            "{} HTLCs are not claimed: at {now} sat per 1000 weight it costs more than they are",
            htlcs.len()
        ),
    );
    true
}
