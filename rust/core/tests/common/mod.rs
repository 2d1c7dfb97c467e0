//! What several test files share: keys, a tier, and its offer.
#![allow(dead_code, clippy::unwrap_used)]

use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{NodeId, Scid};
use ldkjit_core::liquidity::{Books, Stock};
use ldkjit_core::menu::{FeeParams, FeeTier, Menu, Secret, TrustModel};
use ldkjit_core::order::{Order, Terms};
use ldkjit_core::sizing::Sizing;
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

/// Coins in sat, with channels of exactly what is forwarded and the reserve, and no end of inbound liquidity.
pub fn stock(coins_sat: u64) -> Stock {
    Stock {
        coins_sat,
        overhead_sat: 0,
        chain_fee_sat: 0,
        sizing: Sizing {
            sat_per_kw: 0,
            provision_ppm: 0,
            provision_sat: 0,
            min_sat: 0,
            max_sat: u64::MAX,
        },
        inbound: Msat(u64::MAX),
    }
}

/// An order of `client` as it is just after its sale.
pub fn order(client: u8, size_msat: u64, token: Option<&str>, reserved_sat: u64) -> Order {
    Order::new(Terms {
        scid: Scid(7),
        client: node(client),
        size: Some(Msat(size_msat)),
        params: offer(token),
        trust: TrustModel::LspTrustsClient,
        cltv_delta: 144,
        sold_at: NOW,
        token: token.map(str::to_owned),
        unknown_token: false,
        reserved_sat,
    })
}

/// The books of these orders.
pub fn books(orders: &[Order]) -> Books {
    let mut books = Books::default();
    orders.iter().for_each(|order| books.add(order));
    books
}
