//! Fee rates: fetched in the background, asked for at any time, and never invented where money is spent.

use crate::chain::{ChainError, ChainSource};
use crate::error::NodeError;
use crate::log::now_ms;
use crate::sync::lock;
use lightning::chain::chaininterface::{
    ConfirmationTarget, FeeEstimator, FEERATE_FLOOR_SATS_PER_KW,
};
use serde::Serialize;
use std::sync::Mutex;

/// Satoshis per 1000 weight by urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Within a week.
    pub background: u32,
    /// Within a few hours.
    pub normal: u32,
    /// Within the next blocks.
    pub high: u32,
    /// What the mempool takes at all.
    pub minimum: u32,
}

/// How estimates are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeeConfig {
    /// Older estimates are not [`Fees::fresh`].
    pub stale_ms: u64,
    /// No rate is higher, whatever the source says: 250,000 is 1,000 sat per virtual byte.
    pub ceiling: u32,
    /// Used where the source cannot estimate. For regtest only.
    pub fallback: Option<u32>,
}

impl Default for FeeConfig {
    fn default() -> Self {
        Self {
            stale_ms: 3_600_000,
            ceiling: 250_000,
            fallback: None,
        }
    }
}

/// What LDK is told while nothing is known. It cannot be told nothing, so these err on the side that neither
/// closes a channel nor leaves a claim behind; no payment or opening starts without [`Fees::fresh`].
const UNKNOWN: Rates = Rates {
    background: 1_000,
    normal: 2_500,
    high: 7_500,
    minimum: FEERATE_FLOOR_SATS_PER_KW,
};
/// The highest rate accepted from a peer while nothing is known.
const UNKNOWN_MAXIMUM: u32 = 50_000;

/// The node's fee estimator.
pub struct Fees {
    config: FeeConfig,
    known: Mutex<Option<(Rates, u64)>>,
}

impl Fees {
    /// Knows nothing until [`Fees::refresh`].
    pub fn new(config: FeeConfig) -> Self {
        Self {
            config,
            known: Mutex::new(None),
        }
    }

    /// Asks the source. On an error the last estimates stay, until they are stale.
    pub async fn refresh(&self, source: &dyn ChainSource) -> Result<Rates, ChainError> {
        // A hundredth above: sizes are guessed before signing, and a guess may be a byte short.
        let minimum = source.minimum_fee().await?;
        let minimum = self.clamp(minimum.saturating_add(minimum.div_ceil(100)));
        let mut rates = [minimum; 3];
        for (rate, blocks) in rates.iter_mut().zip([1_008, 18, 2]) {
            match source.estimate_fee(blocks).await?.or(self.config.fallback) {
                Some(estimate) => *rate = self.clamp(estimate).max(minimum),
                None => {
                    return Err(ChainError::Refused {
                        code: 0,
                        message: "it has no fee estimate yet".into(),
                    })
                }
            }
        }
        let [background, normal, high] = rates;
        // Estimates for longer waits are sometimes the higher ones.
        let normal = normal.max(background);
        let rates = Rates {
            background,
            normal,
            high: high.max(normal),
            minimum,
        };
        *lock(&self.known) = Some((rates, now_ms()));
        Ok(rates)
    }

    /// Rates that may be spent by; an error when there are none or they are old.
    pub fn fresh(&self) -> Result<Rates, NodeError> {
        match *lock(&self.known) {
            Some((rates, at)) if now_ms().saturating_sub(at) <= self.config.stale_ms => Ok(rates),
            Some(_) => Err(NodeError::chain(
                "unreachable",
                "the last fee estimate is too old",
            )),
            None => Err(NodeError::chain(
                "unreachable",
                "there is no fee estimate yet",
            )),
        }
    }

    fn clamp(&self, rate: u32) -> u32 {
        rate.clamp(
            FEERATE_FLOOR_SATS_PER_KW,
            self.config.ceiling.max(FEERATE_FLOOR_SATS_PER_KW),
        )
    }
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let fresh = self.fresh().ok();
        let last = lock(&self.known).map(|(rates, _)| rates);
        let rates = fresh.or(last).unwrap_or(UNKNOWN);
        let rate = match target {
            // What a peer may at most ask for: generous, since too low a limit closes channels.
            ConfirmationTarget::MaximumFeeEstimate => {
                let limit = rates
                    .high
                    .saturating_mul(3)
                    .max(rates.high.saturating_add(5_000));
                if fresh.is_some() {
                    limit
                } else {
                    limit.max(UNKNOWN_MAXIMUM)
                }
            }
            ConfirmationTarget::UrgentOnChainSweep => rates.high,
            // Anchors bump later; asking a peer for more closes channels.
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee => FEERATE_FLOOR_SATS_PER_KW,
            ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => {
                rates.minimum.saturating_sub(250)
            }
            ConfirmationTarget::AnchorChannelFee => rates.background,
            ConfirmationTarget::NonAnchorChannelFee | ConfirmationTarget::OutputSpendingFee => {
                rates.normal
            }
            // Who did not fund the channel pays nothing, and takes what mempools take: no agreement means a close by force.
            ConfirmationTarget::ChannelCloseMinimum => rates.minimum,
        };
        self.clamp(rate)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::{ChainFuture, SendOutcome};
    use bitcoin::{OutPoint, Transaction};

    struct Source(Option<[u32; 3]>, u32);
    impl ChainSource for Source {
        fn estimate_fee(&self, blocks: u16) -> ChainFuture<'_, Option<u32>> {
            let rate = self.0.map(|[slow, normal, high]| match blocks {
                2 => high,
                18 => normal,
                _ => slow,
            });
            Box::pin(async move { Ok(rate) })
        }
        fn minimum_fee(&self) -> ChainFuture<'_, u32> {
            let minimum = self.1;
            Box::pin(async move { Ok(minimum) })
        }
        fn send<'a>(&'a self, _: &'a Transaction) -> ChainFuture<'a, SendOutcome> {
            Box::pin(async { Ok(SendOutcome::Accepted) })
        }
        fn send_package<'a>(&'a self, _: &'a [Transaction]) -> ChainFuture<'a, SendOutcome> {
            Box::pin(async { Ok(SendOutcome::Accepted) })
        }
        fn unconfirmed_spender<'a>(
            &'a self,
            _: &'a OutPoint,
        ) -> ChainFuture<'a, Option<Transaction>> {
            Box::pin(async { Ok(None) })
        }
    }

    #[tokio::test]
    async fn fails_closed_and_clamps() {
        let fees = Fees::new(FeeConfig::default());
        assert_eq!(fees.fresh().unwrap_err().code, "chain");
        assert!(fees.refresh(&Source(None, 0)).await.is_err());
        assert!(fees.fresh().is_err());
        let rates = fees
            .refresh(&Source(Some([100, 9_000_000, 50]), 300))
            .await
            .unwrap();
        assert_eq!(
            rates,
            Rates {
                background: 303,
                normal: 250_000,
                high: 250_000,
                minimum: 303
            }
        );
        assert_eq!(fees.fresh().unwrap(), rates);
    }

    #[tokio::test]
    async fn old_estimates_are_refused_but_ldk_is_answered() {
        let fees = Fees::new(FeeConfig {
            stale_ms: 0,
            ..FeeConfig::default()
        });
        fees.refresh(&Source(Some([400, 800, 1_600]), 0))
            .await
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(fees.fresh().is_err());
        let ask = |target| fees.get_est_sat_per_1000_weight(target);
        assert_eq!(ask(ConfirmationTarget::UrgentOnChainSweep), 1_600);
        assert_eq!(ask(ConfirmationTarget::MaximumFeeEstimate), UNKNOWN_MAXIMUM);
        assert_eq!(
            ask(ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee),
            253
        );
    }

    #[tokio::test]
    async fn regtest_falls_back() {
        let fees = Fees::new(FeeConfig {
            fallback: Some(500),
            ..FeeConfig::default()
        });
        let rates = fees.refresh(&Source(None, 250)).await.unwrap();
        assert_eq!(
            (rates.background, rates.high, rates.minimum),
            (500, 500, 253)
        );
    }
}
