//! What of core is measured: fees, promises, messages, sales, and an order's whole way, each a closure to be called.

#[path = "../../rust/core/tests/common/mod.rs"]
mod common;
#[path = "../../rust/core/tests/order_support/mod.rs"]
mod order_support;

use std::collections::BTreeMap;
use std::hint::black_box;

use ldkjit_core::amount::Msat;
use ldkjit_core::fee::{opening_fee, split_fee};
use ldkjit_core::ids::Scid;
use ldkjit_core::lsps0::{encode_request, encode_result, parse_request, parse_response};
use ldkjit_core::lsps2::{
    buy_params, choose_tier, decide_buy, decide_get_info, get_info_result, parse_menu, BuyRequest,
    BuyResponse, Call, GetInfoRequest, Seller, Wish, BUY, GET_INFO,
};
use ldkjit_core::menu::{verify_promise, Menu, TrustModel};
use ldkjit_core::order::{ChannelView, Effect, Env, Input, Order, State};
use ldkjit_core::rules::Rules;
use ldkjit_core::standing::Score;
use ldkjit_core::time::Millis;
use serde_json::json;

use common::{books, node, offer, order, stock, tier, NOW, SECRET};
use order_support::{channel_id, funding, hash, limits, open_id, part_id, terms, view, SOLD_AT};

const SIZE: Msat = Msat(50_000_000);

/// One thing to measure.
pub struct Case {
    /// Of what it is.
    pub group: &'static str,
    /// Within its group.
    pub name: &'static str,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
    /// Things that are done each time.
    pub elements: u64,
}

impl Case {
    fn new<T>(
        group: &'static str,
        name: &'static str,
        mut run: impl FnMut() -> T + 'static,
    ) -> Self {
        let run = Box::new(move || {
            black_box(run());
        });
        Self {
            group,
            name,
            run,
            elements: 1,
        }
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut all = fees();
    all.extend(promises());
    all.extend(messages());
    all.extend(sales());
    all.extend(orders());
    all
}

fn fees() -> Vec<Case> {
    let parts = [Msat(6_250_000); 8];
    vec![
        Case::new("fee", "opening_fee", || {
            opening_fee(black_box(SIZE), Msat(2_000_000), 4_000)
        }),
        Case::new("fee", "split_over_8_parts", move || {
            split_fee(black_box(&parts), Msat(2_000_000), Msat(1_000))
        }),
    ]
}

fn promises() -> Vec<Case> {
    let params = offer(None);
    vec![
        Case::new("promise", "menu_of_1", || {
            Menu::build(black_box(&[tier()]), &node(2), None, &SECRET, NOW)
        }),
        Case::new("promise", "verify", move || {
            verify_promise(&SECRET, black_box(&params), &node(2)).unwrap()
        }),
    ]
}

fn messages() -> Vec<Case> {
    let menu = Menu(vec![offer(None)]);
    let result = get_info_result(&menu);
    let answer = encode_result("1", &result);
    let offers = parse_menu(&result).unwrap();
    let buy = encode_request("1", BUY, &buy_params(&offers[0], Some(SIZE)));
    let response = BuyResponse {
        scid: Scid(7),
        cltv_delta: 144,
        trust: TrustModel::LspTrustsClient,
    };
    vec![
        Case::new("message", "encode_get_info", || {
            encode_request("1", GET_INFO, black_box(&json!({})))
        }),
        Case::new("message", "encode_menu", move || {
            encode_result("1", &get_info_result(black_box(&menu)))
        }),
        Case::new("message", "decode_menu", move || {
            parse_response(black_box(&answer)).unwrap()
        }),
        Case::new("message", "encode_buy", move || {
            encode_request("1", BUY, &buy_params(black_box(&offers[0]), Some(SIZE)))
        }),
        Case::new("message", "decode_buy", move || {
            Call::parse(&parse_request(black_box(&buy)).unwrap(), true).unwrap()
        }),
        Case::new("message", "encode_buy_answer", move || {
            encode_result("1", &black_box(&response).to_result())
        }),
    ]
}

fn sales() -> Vec<Case> {
    let rules = Rules {
        menu: vec![tier()],
        ..Rules::default()
    };
    let coins = stock(100_000_000);
    let sold: Vec<Order> = (0..100).map(|n| order(n, SIZE.0, None, 60_000)).collect();
    let books = books(&sold);
    let params = Menu::build(&[tier()], &node(200), None, &SECRET, NOW)
        .unwrap()
        .0
        .remove(0);
    let buy = BuyRequest {
        params,
        size: Some(SIZE),
    };
    let offers = parse_menu(&get_info_result(&Menu(vec![offer(None)]))).unwrap();
    let wish = Wish {
        size: Some(SIZE),
        max_fee: None,
        to_self_delay: 144,
        needed_until: NOW,
    };
    let (rules_too, coins_too, books_too) = (rules.clone(), coins, books.clone());
    vec![
        Case::new("sale", "decide_get_info", move || {
            let ask = GetInfoRequest { token: None };
            let client = node(200);
            let ask = black_box(&ask);
            decide_get_info(
                &rules_too, &coins_too, &books_too, ask, &client, &SECRET, NOW,
            )
        }),
        Case::new("sale", "decide_buy", move || {
            let seller = Seller {
                rules: &rules,
                secret: &SECRET,
                grants: &BTreeMap::new(),
                books: &books,
                stock: &coins,
                scores: (Score::default(), Score::default()),
            };
            decide_buy(&seller, black_box(&buy), &node(200), NOW).unwrap()
        }),
        Case::new("sale", "choose_tier", move || {
            black_box(choose_tier(black_box(&offers), &wish).unwrap());
        }),
    ]
}

/// A JIT order from the first part to its fee, over one part.
#[derive(Clone)]
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
                held_of_strangers: 0,
                held: 0,
            };
            let (next, more) = order.step(input, &env);
            order = next;
            effects.extend(more);
        }
        (order, effects)
    }
}

fn orders() -> Vec<Case> {
    let sold = Order::new(terms(Some(1_000_000), TrustModel::LspTrustsClient));
    let life = Life::new();
    let (paid, effects) = life.live(&sold);
    assert_eq!(paid.state, State::Paid, "{effects:?}");
    let first = Life {
        inputs: vec![life.inputs[0].clone()],
        channels: Default::default(),
    };
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
    let inputs = life.inputs.len().try_into().unwrap();
    let sold_too = sold.clone();
    let mut whole = Case::new("order", "life_in_inputs", move || {
        life.live(black_box(&sold))
    });
    whole.elements = inputs;
    vec![
        whole,
        Case::new("order", "intercept_to_open", move || {
            first.live(black_box(&sold_too))
        }),
        Case::new("order", "intercept_to_forward_when_paid", move || {
            second.live(black_box(&paid))
        }),
    ]
}
