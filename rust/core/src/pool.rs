//! The coin pool: how many coins are kept ready, so that many channels can be opened at once.

use serde::{Deserialize, Serialize};

/// The weight of a transaction that has neither inputs nor outputs (BIP 141).
const OVERHEAD_WEIGHT: u64 = 42;
/// The weight of an input that spends a P2WPKH coin.
const INPUT_WEIGHT: u64 = 272;
/// The weight of a P2WPKH output.
const OUTPUT_WEIGHT: u64 = 124;
/// No split makes more coins at once, so that it stays far below what is relayed.
const MOST_OUTPUTS: u64 = 200;
/// A day, ms.
const DAY_MS: u64 = 86_400_000;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Coins to keep ready; 0 switches the pool off.
    pub coins: u32,
    /// The size of each, sat.
    pub coin_sat: u64,
    /// No split is made while the fee rate is above this, sat per 1000 weight.
    pub max_sat_per_kw: u32,
    /// What splits may cost in a day, sat.
    pub max_fee_sat_per_day: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            coins: 0,
            coin_sat: 200_000,
            max_sat_per_kw: 2_500,
            max_fee_sat_per_day: 20_000,
        }
    }
}

/// What splits have cost of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// When the day began, ms since 1970.
    pub since_ms: u64,
    /// Spent since, sat.
    pub fee_sat: u64,
}

impl Spent {
    /// As it is now: a day that is over counts no more.
    #[must_use]
    pub fn at(self, now_ms: u64) -> Self {
        if now_ms.saturating_sub(self.since_ms) >= DAY_MS {
            Self {
                since_ms: now_ms,
                fee_sat: 0,
            }
        } else {
            self
        }
    }

    /// With one split more.
    #[must_use]
    pub fn plus(self, fee_sat: u64, now_ms: u64) -> Self {
        let spent = self.at(now_ms);
        Self {
            fee_sat: spent.fee_sat.saturating_add(fee_sat),
            ..spent
        }
    }
}

/// A split to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// So many coins of the pool's size.
    pub outputs: u32,
    /// So many of the largest coins go in, the others stay as they are.
    pub inputs: u32,
    /// It may cost no more, sat.
    pub max_fee_sat: u64,
}

impl Pool {
    /// Whether to split now, and how: once fewer than half of the coins are there, with as few inputs as will do, and
    /// no more than fees allow.
    ///
    /// `coins` are the values in sat of all that could be spent; `keep_sat` of them is the anchor reserve.
    #[must_use]
    pub fn split(
        &self,
        coins: &[u64],
        keep_sat: u64,
        sat_per_kw: u32,
        spent: Spent,
    ) -> Option<Split> {
        let ready = coins.iter().filter(|sat| **sat >= self.coin_sat).count();
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        if sat_per_kw > self.max_sat_per_kw || ready.saturating_mul(2) >= self.coins {
            return None;
        }
        let missing = u64::from(self.coins.saturating_sub(ready)).min(MOST_OUTPUTS);
        let budget = self.max_fee_sat_per_day.saturating_sub(spent.fee_sat);
        let mut largest = coins.to_vec();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let sum = |coins: &[u64]| {
            coins
                .iter()
                .fold(0_u64, |sum, sat| sum.saturating_add(*sat))
        };
        let lendable = sum(&largest).saturating_sub(keep_sat);
        let (mut taken, mut best) = (0_u64, None);
        for (inputs, sat) in (1_u64..).zip(largest.iter().take_while(|sat| **sat >= self.coin_sat))
        {
            taken = taken.saturating_add(*sat);
            let fits = |outputs: &u64| {
                let fee = fee_sat(inputs, outputs.saturating_add(1), sat_per_kw);
                let value = outputs.saturating_mul(self.coin_sat).saturating_add(fee);
                fee <= budget && value <= taken.min(lendable)
            };
            // Each input was a coin of the pool itself: those that take its place make it no larger.
            let most = missing.saturating_add(inputs);
            let Some(outputs) = (inputs.saturating_add(1)..=most).rev().find(fits) else {
                continue;
            };
            let gain = outputs.saturating_sub(inputs);
            if best.is_none_or(|(_, _, most)| gain > most) {
                best = Some((inputs, outputs, gain));
            }
            if gain == missing {
                break;
            }
        }
        let (inputs, outputs, _) = best?;
        Some(Split {
            outputs: u32::try_from(outputs).ok()?,
            inputs: u32::try_from(inputs).ok()?,
            max_fee_sat: budget,
        })
    }
}

/// What a transaction of P2WPKH inputs and outputs costs, sat.
fn fee_sat(inputs: u64, outputs: u64, sat_per_kw: u32) -> u64 {
    INPUT_WEIGHT
        .saturating_mul(inputs)
        .saturating_add(OUTPUT_WEIGHT.saturating_mul(outputs))
        .saturating_add(OVERHEAD_WEIGHT)
        .saturating_mul(u64::from(sat_per_kw))
        .div_ceil(1_000)
}
