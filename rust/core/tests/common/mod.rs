//! What several test files share: keys, a tier, and its offer.
#![allow(dead_code, clippy::unwrap_used)]

use ldkjit_core::amount::Msat;
use ldkjit_core::ids::NodeId;
use ldkjit_core::menu::{FeeParams, FeeTier, Menu, Secret};
use ldkjit_core::time::Millis;

pub const SECRET: Secret = Secret([7; 32]);
pub const NOW: Millis = Millis(1_795_000_000_123);

pub fn node(byte: u8) -> NodeId {
    NodeId([byte; 33])
}

pub fn tier() -> FeeTier {
    FeeTier {
        min_fee_msat: Msat(2_000),
        proportional_ppm: 4_000,
        min_payment_msat: Msat(10_000),
        max_payment_msat: Msat(1_000_000_000),
        min_lifetime_blocks: 1_008,
        max_client_to_self_delay: 2_016,
        valid_for_s: 3_600,
    }
}

/// The offer of `tier()` to `node(2)` at `NOW`, under the grant of `token`.
pub fn offer(token: Option<&str>) -> FeeParams {
    Menu::build(&[tier()], &node(2), token, &SECRET, NOW)
        .unwrap()
        .0
        .remove(0)
}
