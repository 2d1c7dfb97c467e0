//! How much must stay on chain to pay for closing anchor channels by force.

use bitcoin::FeeRate;
use lightning::events::bump_transaction::Utxo;
use lightning::util::anchor_channel_reserves::{
    get_reserve_per_channel, get_supportable_anchor_channels, AnchorChannelReserveContext,
};

/// LDK's estimate of what a forced close costs, times the channels that have to be paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    context: AnchorChannelReserveContext,
}

impl Reserve {
    /// For closes at up to `fee_rate` (satoshis per 1000 weight) with `htlcs` HTLCs in flight per channel.
    pub fn new(fee_rate: u32, htlcs: u16) -> Self {
        Self {
            context: AnchorChannelReserveContext {
                upper_bound_fee_rate: FeeRate::from_sat_per_kwu(u64::from(fee_rate)),
                expected_accepted_htlcs: htlcs,
                taproot_wallet: false,
            },
        }
    }

    /// Satoshis for one channel.
    pub fn per_channel_sat(&self) -> u64 {
        get_reserve_per_channel(&self.context).to_sat()
    }

    /// Satoshis for this many channels.
    pub fn required_sat(&self, channels: usize) -> u64 {
        self.per_channel_sat()
            .saturating_mul(u64::try_from(channels).unwrap_or(u64::MAX))
    }

    /// Whether these coins could close this many channels at once: each needs coins of its own.
    pub fn supports(&self, coins: &[Utxo], channels: usize) -> bool {
        get_supportable_anchor_channels(&self.context, coins)
            >= u64::try_from(channels).unwrap_or(u64::MAX)
    }
}

impl Default for Reserve {
    /// LDK's own bounds: 50 satoshis per virtual byte, 10 HTLCs.
    fn default() -> Self {
        Self {
            context: AnchorChannelReserveContext::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_channels_and_fees() {
        let cheap = Reserve::new(1_000, 1);
        assert_eq!(cheap.per_channel_sat(), 4_349);
        assert_eq!(cheap.required_sat(3), 13_047);
        assert_eq!(cheap.required_sat(0), 0);
        assert!(Reserve::default().per_channel_sat() > cheap.per_channel_sat());
        assert!(cheap.supports(&[], 0) && !cheap.supports(&[], 1));
    }
}
