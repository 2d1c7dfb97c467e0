//! How large a channel must be so that every part of its first payment fits.

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::reason::Reason;

/// Weight of a commitment transaction with anchors and no HTLC (BOLT 3).
const COMMITMENT_WEIGHT: u64 = 1_124;
/// Weight of one HTLC output (BOLT 3).
const HTLC_WEIGHT: u64 = 172;
/// Both anchor outputs, sat (BOLT 3); the funder pays for both.
const ANCHORS_SAT: u64 = 660;
/// The smallest reserve a peer asks for, sat (S-47).
const MIN_RESERVE_SAT: u64 = 1_000;

/// The operator's settings and the present fee rate, from which a channel's value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizing {
    /// Fee rate of the commitment transaction, sat per 1000 weight; doubled here as a margin for its rise.
    pub sat_per_kw: u32,
    /// Provision beyond the first payment, ppm of what is forwarded.
    pub provision_ppm: u32,
    /// Provision beyond the first payment, sat.
    pub provision_sat: u64,
    /// No channel is smaller, sat.
    pub min_sat: u64,
    /// No channel is larger, sat.
    pub max_sat: u64,
}

impl Sizing {
    /// The channel's value in sat for forwarding `forward` in `parts` HTLCs (J-57, S-47).
    ///
    /// The provision gives way to the maximum, the payment does not.
    pub fn channel_value(&self, forward: Msat, parts: usize) -> Result<u64, Reason> {
        let needed = self
            .value_for(forward.sat_ceil(), parts)
            .ok_or(Reason::AmountOverflow)?;
        if needed > self.max_sat {
            return Err(Reason::ChannelTooLarge);
        }
        let wanted = self
            .provision(forward)
            .and_then(|provision| forward.sat_ceil().checked_add(provision))
            .and_then(|sat| self.value_for(sat, parts))
            .unwrap_or(u64::MAX);
        Ok(wanted.max(self.min_sat).min(self.max_sat))
    }

    /// Provision in sat, rounded up.
    fn provision(&self, forward: Msat) -> Option<u64> {
        let ppm = u128::from(forward.0)
            .checked_mul(u128::from(self.provision_ppm))?
            .div_ceil(1_000_000_000);
        u64::try_from(ppm).ok()?.checked_add(self.provision_sat)
    }

    /// The least value in sat whose funder can send `sat` in `parts` HTLCs.
    fn value_for(&self, sat: u64, parts: usize) -> Option<u64> {
        // One HTLC more than is forwarded: LDK keeps room for it when it reckons what may be sent.
        let htlcs = u64::try_from(parts).ok()?.checked_add(1)?;
        let commitment = HTLC_WEIGHT
            .checked_mul(htlcs)?
            .checked_add(COMMITMENT_WEIGHT)?
            .checked_mul(u64::from(self.sat_per_kw).checked_mul(2)?)?
            .div_ceil(1_000);
        let used = sat.checked_add(commitment)?.checked_add(ANCHORS_SAT)?;
        // The reserve is a hundredth of the value sought: v − v/100 ≥ used ⇔ v ≥ used × 100/99.
        let with_percent = used.checked_mul(100)?.div_ceil(99);
        Some(with_percent.max(used.checked_add(MIN_RESERVE_SAT)?))
    }
}
