//! What the tests of the order share: terms, limits, ids, channels.
#![allow(dead_code)]

use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::menu::{FeeParams, TrustModel};
use ldkjit_core::order::{ChannelView, OrderLimits, Terms};
use ldkjit_core::sizing::Sizing;
use ldkjit_core::time::Millis;

pub const SOLD_AT: u64 = 1_800_000_000_000;
pub const VALID_UNTIL: u64 = SOLD_AT + 3_600_000;
pub const SCID: Scid = Scid(0x0012_3400_0056_0007);

pub fn part_id(n: u8) -> PartId {
    PartId([n; 32])
}

pub fn hash(n: u8) -> PaymentHash {
    PaymentHash([n; 32])
}

pub fn channel_id(n: u8) -> ChannelId {
    ChannelId([n; 32])
}

pub fn open_id(attempt: u32) -> OpenId {
    OpenId::new(SCID, Millis(SOLD_AT), attempt)
}

pub fn funding(n: u8) -> Outpoint {
    Outpoint {
        txid: format!("{n:02x}").repeat(32),
        vout: 0,
    }
}

/// Fee: 1 % of the payment, at least 10,000 msat.
pub fn terms(size: Option<u64>, trust: TrustModel) -> Terms {
    Terms {
        scid: SCID,
        client: NodeId([2; 33]),
        size: size.map(Msat),
        params: FeeParams {
            min_fee_msat: Msat(10_000),
            proportional: 10_000,
            valid_until: Millis(VALID_UNTIL),
            min_lifetime: 4_320,
            max_client_to_self_delay: 2_016,
            min_payment_size_msat: Msat(50_000),
            max_payment_size_msat: Msat(100_000_000),
            promise: "promise".into(),
        },
        trust,
        cltv_delta: 144,
        sold_at: Millis(SOLD_AT),
        token: None,
        unknown_token: false,
        reserved_sat: 30_000,
    }
}

pub fn limits() -> OrderLimits {
    OrderLimits {
        collect_ms: 90_000,
        wake_ms: 60_000,
        open_ms: 30_000,
        grace_ms: 600_000,
        claim_ms: 900_000,
        max_held_per_client: 100,
        max_held: 1_000,
        max_held_of_strangers: 500,
        htlc_minimum: Msat(1_000),
        max_opens: 3,
        charge_on_reuse: false,
        ask_policy: false,
        sizing: Sizing {
            sat_per_kw: 1_000,
            provision_ppm: 0,
            provision_sat: 0,
            min_sat: 20_000,
            max_sat: 10_000_000,
        },
    }
}

pub fn view(n: u8, capacity: u64) -> ChannelView {
    ChannelView {
        id: channel_id(n),
        open_id: None,
        usable: true,
        outbound_limit: Msat(capacity),
        outbound_capacity: Msat(capacity),
        htlc_minimum: Msat(1_000),
        unpaid: false,
    }
}
