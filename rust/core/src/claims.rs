//! What the chain owes and what it costs to take it.

/// The heaviest input that claims an HTLC of an anchor channel, with its output: BOLT 3's HTLC-success transaction.
const HTLC_WEIGHT: u64 = 706;
/// A P2WPKH coin that pays the fee, and P2WPKH change.
const COIN_WEIGHT: u64 = 272 + 124;

/// Whether HTLCs of these values are worth what it costs to claim them in one transaction: their own transactions pay no
/// fee (zero-fee anchors), a coin of the wallet does. At a lower rate they may be worth it later.
#[must_use]
pub fn are_worth_claiming(values_sat: &[u64], sat_per_kw: u32) -> bool {
    let sum = values_sat
        .iter()
        .fold(0_u64, |sum, sat| sum.saturating_add(*sat));
    let htlcs = u64::try_from(values_sat.len()).unwrap_or(u64::MAX);
    let weight = htlcs
        .saturating_mul(HTLC_WEIGHT)
        .saturating_add(COIN_WEIGHT);
    let cost = u128::from(weight)
        .saturating_mul(u128::from(sat_per_kw))
        .div_ceil(1_000);
    u128::from(sum) > cost
}

/// The rate at which to claim HTLCs of these values, if they are worth it: the one that LDK asks for, which never falls
/// below one that it has asked for before, or else the present one.
#[must_use]
pub fn rate_to_claim_at(
    values_sat: &[u64],
    asked_sat_per_kw: u32,
    now_sat_per_kw: u32,
) -> Option<u32> {
    let mut rates = [asked_sat_per_kw, now_sat_per_kw.min(asked_sat_per_kw)].into_iter();
    rates.find(|rate| are_worth_claiming(values_sat, *rate))
}
