//! Amounts in millisatoshi: checked arithmetic, and their two ways through JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in millisatoshi (msat); in JSON an integer, on the LSPS wire a decimal string (`wire_msat`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `sat` satoshi in msat; `None` if that does not fit 64 bits.
    #[must_use]
    pub fn from_sat(sat: u64) -> Option<Self> {
        sat.checked_mul(1_000).map(Self)
    }

    /// Whole satoshi, rounded down.
    #[must_use]
    pub fn sat_floor(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole satoshi, rounded up.
    #[must_use]
    pub fn sat_ceil(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// Sum, `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Product with a plain number, `None` on overflow.
    #[must_use]
    pub fn checked_mul(self, factor: u64) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }

    /// Difference, zero where it would be negative; for comparisons and displays, never for what is paid.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Sum of many, `None` on overflow.
    pub fn checked_sum<I: IntoIterator<Item = Self>>(amounts: I) -> Option<Self> {
        amounts
            .into_iter()
            .try_fold(Self::ZERO, |sum, amount| sum.checked_add(amount))
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// Serde helper for LSPS amounts: a decimal string, digits only, no needless leading zero (T-14).
pub mod wire_msat {
    use super::Msat;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads the decimal string; `None` if it is anything else or does not fit 64 bits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Msat> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        text.parse().ok().map(Msat)
    }

    /// Writes the decimal string.
    pub fn serialize<S: Serializer>(amount: &Msat, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&amount.0)
    }

    /// Reads the decimal string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Msat, D::Error> {
        parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("not an amount in msat as a decimal string"))
    }
}
