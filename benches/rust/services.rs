//! The stock LSPS2 handlers of lightning-liquidity beside our engine, in process, on the same conversation: `get_info`, `buy`.
//!
//! Both are driven as the differential test drives them, which reads every answer: that cost is in both figures.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../../tests/faults/differential/asking.rs"]
mod asking;
#[path = "../../tests/faults/common/mod.rs"]
mod common;
#[path = "../../tests/faults/differential/draw.rs"]
mod draw;
#[path = "../../tests/faults/differential/our_service.rs"]
mod our_service;
#[path = "../../tests/faults/differential/services.rs"]
mod services;
#[path = "../../tests/faults/differential/stock_service.rs"]
mod stock_service;

use asking::Setting;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use common::World;
use criterion::{BatchSize, Criterion};
use ldkjit_core::amount::Msat;
use ldkjit_core::lsps0::encode_request;
use ldkjit_core::lsps2::{BUY, GET_INFO};
use ldkjit_core::menu::{FeeTier, TrustModel};
use ldkjit_core::time::Millis;
use ldkjit_node::log::now_ms;
use ldkjit_node::node::Node;
use our_service::Ours;
use serde_json::json;
use services::Outcome;
use stock_service::Stock;

fn key(n: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[n; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

fn setting() -> Setting {
    Setting {
        age_ms: 0,
        finer_ns: 0,
        tiers: vec![FeeTier {
            min_fee_msat: Msat(2_000_000),
            proportional_ppm: 4_000,
            min_payment_msat: Msat(1_000),
            max_payment_msat: Msat(1_000_000_000),
            min_lifetime_blocks: 1_008,
            max_client_to_self_delay: 2_016,
            valid_for_s: 3_600,
        }],
        denied: false,
        inbound: Msat(u64::MAX),
        trust: TrustModel::LspTrustsClient,
        max_webhooks: 1,
    }
}

fn buys(outcome: &Outcome) -> Vec<u8> {
    let offer = &outcome.menu.as_ref().unwrap()[0];
    let params = json!({"opening_fee_params": offer, "payment_size_msat": "50000000"});
    encode_request("2", BUY, &params)
}

fn compare(c: &mut Criterion, node: &Node) {
    let setting = setting();
    let new = || Ours::new(&setting, [key(1), key(2)], Millis(now_ms())).without_webhooks();
    // A fresh one each time: the stock handlers keep count of what they do not forget.
    let stock = || Stock::new(common::stock::liquidity(node, true), &setting, &new());
    let asks = encode_request("1", GET_INFO, &json!({}));
    let mut group = c.benchmark_group("get_info_and_buy");
    group.bench_function("ours", |b| {
        let talk = |mut service: Ours| {
            let menu = service.hear(0, &asks);
            let sold = service.hear(0, &buys(&menu));
            assert!(sold.changed());
        };
        b.iter_batched(new, talk, BatchSize::SmallInput);
    });
    group.bench_function("stock", |b| {
        let talk = |mut service: Stock| {
            let menu = service.hear(&[(0, asks.clone())]).remove(0);
            let sold = service.hear(&[(0, buys(&menu))]).remove(0);
            assert!(sold.changed());
            service
        };
        b.iter_batched(stock, talk, BatchSize::SmallInput);
    });
    group.finish();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let Some(world) = runtime.block_on(World::start()) else {
        return;
    };
    let node = runtime.block_on(world.node("stock", json!({"listen": []}), None));
    let mut criterion = Criterion::default().configure_from_args();
    compare(&mut criterion, &node);
    criterion.final_summary();
    runtime.block_on(node.stop()).unwrap();
}
