//! Quotas: how many channels those with one token may buy in a time, or all without one.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::time::Millis;

/// So many channels at once, and as many again spread evenly over each such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many.
    pub sales: u32,
    /// In what time, ms.
    pub per_ms: u64,
}

/// What was bought under a quota: until when it is used up, at its even pace. One number is the whole memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Used(pub Millis);

impl Quota {
    /// What is used up after one sale more.
    ///
    /// # Errors
    /// `QuotaUsed`.
    pub fn take(&self, used: Used, now: Millis) -> Result<Used, Reason> {
        let sales = u64::from(self.sales);
        if sales == 0 {
            return Err(Reason::QuotaUsed);
        }
        // The time that one sale takes of it; that of all together may be a little longer than `per_ms`.
        let step = self.per_ms.div_ceil(sales).max(1);
        let whole = step.saturating_mul(sales);
        // A clock that was ahead once costs no more than one whole time.
        let used = used.0.max(now).min(now.saturating_add(whole));
        let after = used.saturating_add(step);
        if after.since(now) <= whole {
            Ok(Used(after))
        } else {
            Err(Reason::QuotaUsed)
        }
    }
}
