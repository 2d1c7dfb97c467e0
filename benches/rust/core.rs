//! What each decision about money costs: fees, promises, messages, sales, and the order's whole way.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../../rust/core/tests/common/mod.rs"]
mod common;
#[path = "../../rust/core/tests/order_support/mod.rs"]
mod order_support;

use std::collections::BTreeMap;
use std::hint::black_box;

use common::{books, node, offer, order, stock, tier, NOW, SECRET};
use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use ldkjit_core::amount::Msat;
use ldkjit_core::fee::{opening_fee, split_fee};
use ldkjit_core::ids::Scid;
use ldkjit_core::lsps0::{encode_request, encode_result, parse_request, parse_response};
use ldkjit_core::lsps2::{
    buy_params, choose_tier, decide_buy, decide_get_info, get_info_result, parse_menu, BuyRequest,
    BuyResponse, Call, GetInfoRequest, Offer, Seller, Wish, BUY, GET_INFO,
};
use ldkjit_core::menu::{verify_promise, Menu, TrustModel};
use ldkjit_core::order::{ChannelView, Effect, Env, Input, Order, State};
use ldkjit_core::rules::Rules;
use ldkjit_core::standing::Score;
use ldkjit_core::time::Millis;
use order_support::{channel_id, funding, hash, limits, open_id, part_id, terms, view, SOLD_AT};
use serde_json::json;

const SIZE: Msat = Msat(50_000_000);

fn fees(c: &mut Criterion) {
    let mut group = c.benchmark_group("fee");
    group.bench_function("opening_fee", |b| {
        b.iter(|| opening_fee(black_box(SIZE), Msat(2_000_000), 4_000));
    });
    let parts = [Msat(6_250_000); 8];
    group.bench_function("split_over_8_parts", |b| {
        b.iter(|| split_fee(black_box(&parts), Msat(2_000_000), Msat(1_000)));
    });
    group.finish();
}

fn promises(c: &mut Criterion) {
    let mut group = c.benchmark_group("promise");
    group.bench_function("menu_of_1", |b| {
        b.iter(|| Menu::build(black_box(&[tier()]), &node(2), None, &SECRET, NOW));
    });
    let params = offer(None);
    group.bench_function("verify", |b| {
        b.iter(|| verify_promise(&SECRET, black_box(&params), &node(2)).unwrap());
    });
    group.finish();
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("message");
    let menu = Menu(vec![offer(None)]);
    let result = get_info_result(&menu);
    let answer = encode_result("1", &result);
    let offers = parse_menu(&result).unwrap();
    let bought = buy_params(&offers[0], Some(SIZE));
    let buy = encode_request("1", BUY, &bought);
    group.bench_function("encode_get_info", |b| {
        b.iter(|| encode_request("1", GET_INFO, black_box(&json!({}))));
    });
    group.bench_function("encode_menu", |b| {
        b.iter(|| encode_result("1", &get_info_result(black_box(&menu))));
    });
    group.bench_function("decode_menu", |b| {
        b.iter(|| {
            let answer = parse_response(black_box(&answer)).unwrap();
            black_box(answer)
        });
    });
    group.bench_function("encode_buy", |b| {
        b.iter(|| encode_request("1", BUY, &buy_params(black_box(&offers[0]), Some(SIZE))));
    });
    group.bench_function("decode_buy", |b| {
        b.iter(|| Call::parse(&parse_request(black_box(&buy)).unwrap(), true).unwrap());
    });
    group.bench_function("encode_buy_answer", |b| {
        let response = BuyResponse {
            scid: Scid(7),
            cltv_delta: 144,
            trust: TrustModel::LspTrustsClient,
        };
        b.iter(|| encode_result("1", &black_box(&response).to_result()));
    });
    group.finish();
}

fn sales(c: &mut Criterion) {
    let mut group = c.benchmark_group("sale");
    let rules = Rules {
        menu: vec![tier()],
        ..Rules::default()
    };
    let coins = stock(100_000_000);
    let sold: Vec<Order> = (0..100).map(|n| order(n, SIZE.0, None, 60_000)).collect();
    let books = books(&sold);
    let ask = GetInfoRequest { token: None };
    group.bench_function("decide_get_info", |b| {
        b.iter(|| {
            decide_get_info(
                &rules,
                &coins,
                &books,
                black_box(&ask),
                &node(200),
                &SECRET,
                NOW,
            )
        });
    });
    let params = Menu::build(&[tier()], &node(200), None, &SECRET, NOW)
        .unwrap()
        .0
        .remove(0);
    let seller = Seller {
        rules: &rules,
        secret: &SECRET,
        grants: &BTreeMap::new(),
        books: &books,
        stock: &coins,
        scores: (Score::default(), Score::default()),
    };
    let buy = BuyRequest {
        params,
        size: Some(SIZE),
    };
    decide_buy(&seller, &buy, &node(200), NOW).unwrap();
    group.bench_function("decide_buy", |b| {
        b.iter(|| decide_buy(&seller, black_box(&buy), &node(200), NOW));
    });
    let offers = parse_menu(&get_info_result(&Menu(vec![offer(None)]))).unwrap();
    let wish = Wish {
        size: Some(SIZE),
        max_fee: None,
        to_self_delay: 144,
        needed_until: NOW,
    };
    group.bench_function("choose_tier", |b| {
        b.iter(|| choose_tier(black_box::<&[Offer]>(&offers), &wish));
    });
    group.finish();
}

/// A JIT order from the first part to its fee, over one part.
struct Life {
    inputs: Vec<(Input, usize)>,
    channels: [Vec<ChannelView>; 2],
}

impl Life {
    fn new() -> Self {
        let mut channel = view(1, 10_000_000);
        channel.open_id = Some(open_id(1));
        channel.unpaid = true;
        let (open, id) = (open_id(1), part_id(1));
        let part = Input::Part {
            id,
            hash: hash(1),
            inbound: Msat(1_000_000),
            declared: Msat(1_000_000),
            release_by: 1_100,
        };
        let pending = Input::ChannelPending {
            open,
            channel: channel_id(1),
            funding: funding(1),
            fee_sat: 300,
        };
        let ready = Input::ChannelReady {
            open,
            channel: channel_id(1),
        };
        Self {
            inputs: vec![
                (part, 0),
                (pending, 0),
                (ready, 1),
                (Input::FundingSeen, 1),
                (Input::PartClaimed { id }, 1),
                (Input::FundingConfirmed { depth: 1 }, 1),
                (Input::Tick, 1),
            ],
            channels: [vec![], vec![channel]],
        }
    }

    fn live(&self, sold: &Order) -> (Order, Vec<Effect>) {
        let limits = limits();
        let mut order = sold.clone();
        let mut effects = Vec::new();
        for (input, channels) in &self.inputs {
            let env = Env {
                now: Millis(SOLD_AT + 1_000),
                height: 1_000,
                connected: true,
                channels: self.channels.get(*channels).unwrap(),
                limits: &limits,
                held_for_client: 0,
                held: 0,
            };
            let (next, more) = order.step(input, &env);
            order = next;
            effects.extend(more);
        }
        (order, effects)
    }
}

fn orders(c: &mut Criterion) {
    let sold = Order::new(terms(Some(1_000_000), TrustModel::LspTrustsClient));
    let life = Life::new();
    let (paid, effects) = life.live(&sold);
    assert_eq!(paid.state, State::Paid, "{effects:?}");
    let mut group = c.benchmark_group("order");
    group.throughput(Throughput::Elements(life.inputs.len().try_into().unwrap()));
    group.bench_function("life_in_inputs", |b| b.iter(|| life.live(black_box(&sold))));
    group.throughput(Throughput::Elements(1));
    let first = Life {
        inputs: vec![life.inputs[0].clone()],
        channels: Default::default(),
    };
    group.bench_function("intercept_to_open", |b| {
        b.iter(|| first.live(black_box(&sold)))
    });
    group.bench_function("intercept_to_forward_when_paid", |b| {
        let second = Life {
            inputs: vec![(
                Input::Part {
                    id: part_id(2),
                    hash: hash(2),
                    inbound: Msat(700_000),
                    declared: Msat(700_000),
                    release_by: 1_100,
                },
                1,
            )],
            channels: life.channels.clone(),
        };
        let (_, effects) = second.live(&paid);
        assert!(
            effects.iter().any(|e| matches!(e, Effect::Forward { .. })),
            "{effects:?}"
        );
        b.iter(|| second.live(black_box(&paid)));
    });
    group.finish();
}

criterion_group!(benches, fees, promises, messages, sales, orders);
criterion_main!(benches);
