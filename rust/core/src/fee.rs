//! The opening fee, and how it is taken from the parts of a payment.

use crate::amount::Msat;

/// The opening fee in msat for a payment of `size`, `ppm` parts per million of it and at least `min_fee`;
/// `None` if any step overflows 64 bits (J-19, J-20, J-21, J-80).
#[must_use]
pub fn opening_fee(size: Msat, min_fee: Msat, ppm: u32) -> Option<Msat> {
    let proportional = size
        .0
        .checked_mul(u64::from(ppm))?
        .checked_add(999_999)?
        .checked_div(1_000_000)?;
    Some(Msat(proportional.max(min_fee.0)))
}

/// What each part gives to the fee, in the order given: as much as leaves it `htlc_minimum` msat, until the fee is had.
///
/// `None` if a part is below the minimum or the parts cannot bear the fee (J-69, J-70, B-7). A minimum of
/// zero counts as one msat, because an HTLC of nothing cannot be sent.
#[must_use]
pub fn split_fee(parts: &[Msat], fee: Msat, htlc_minimum: Msat) -> Option<Vec<Msat>> {
    let keep = htlc_minimum.max(Msat(1));
    let mut due = fee;
    let mut skims = Vec::with_capacity(parts.len());
    for part in parts {
        let skim = part.checked_sub(keep)?.min(due);
        due = due.checked_sub(skim)?;
        skims.push(skim);
    }
    (due == Msat::ZERO).then_some(skims)
}
