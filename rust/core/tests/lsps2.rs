//! `get_info` and `buy`: messages of both sides, and every decision about them.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;

use common::{books, node, offer, order, stock, tier, NOW, SECRET};
use ldkjit_core::amount::Msat;
use ldkjit_core::fee::opening_fee;
use ldkjit_core::ids::Scid;
use ldkjit_core::liquidity::{Books, Lending, Stock};
use ldkjit_core::lsps0::{encode_result, parse_request, Request, RpcError, MAX_ID, MAX_PAYLOAD};
use ldkjit_core::lsps2::{
    buy_params, check_buy_response, choose_tier, claim_check, decide_buy, decide_get_info,
    get_info_result, may_be_paid_again, parse_menu, protocols_result, Arrived, Bought, BuyRequest,
    BuyResponse, Call, GetInfoRequest, Offer, Sale, Seller, Wish, BUY, GET_INFO, MAX_CLTV_DELTA,
};
use ldkjit_core::menu::{FeeParams, FeeTier, Grant, Menu, Secret, TrustModel, MAX_TIERS};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::{Limits, Rules};
use ldkjit_core::standing::Score;
use ldkjit_core::time::Millis;
use proptest::prelude::*;
use serde_json::{json, Value};

fn request(method: &str, params: Value) -> Request {
    Request {
        id: "i".to_owned(),
        method: method.to_owned(),
        params: params.as_object().unwrap().clone(),
    }
}

fn call(method: &str, params: Value) -> Result<Call, RpcError> {
    Call::parse(&request(method, params), true)
}

/// The unrecognised names of a −32602.
fn unrecognized(outcome: Result<Call, RpcError>) -> Vec<String> {
    let error = outcome.unwrap_err();
    assert_eq!(error.code, -32602);
    serde_json::from_value(error.data.unwrap()["unrecognized"].clone()).unwrap()
}

#[test]
fn test_T_08_S_03_S_04_methods() {
    assert_eq!(
        call("lsps0.list_protocols", json!({})),
        Ok(Call::ListProtocols)
    );
    for method in ["lsps2.get_versions", "lsps1.get_info", "lsps2.Buy", ""] {
        assert_eq!(
            call(method, json!({})).unwrap_err().code,
            -32601,
            "{method}"
        );
    }
    for method in [GET_INFO, BUY] {
        let error = Call::parse(&request(method, json!({"x": 1})), false).unwrap_err();
        assert_eq!((error.code, error.data), (-32601, None));
    }
    assert!(Call::parse(&request("lsps0.list_protocols", json!({})), false).is_ok());
    assert_eq!(protocols_result(true, false), json!({"protocols": [2]}));
    assert_eq!(protocols_result(true, true), json!({"protocols": [2, 5]}));
    assert_eq!(protocols_result(false, true), json!({"protocols": []}));
}

#[test]
fn test_T_08_unknown_parameters_are_named() {
    assert_eq!(
        unrecognized(call("lsps0.list_protocols", json!({"a": 1}))),
        ["a"]
    );
    assert_eq!(
        unrecognized(call(GET_INFO, json!({"token": "t", "b": 1, "a": 1}))),
        ["a", "b"]
    );
    assert_eq!(
        unrecognized(call(
            BUY,
            json!({"opening_fee_params": offer(None), "version": 1})
        )),
        ["version"]
    );
    let mut params = json!(offer(None));
    params["extra"] = json!(1);
    assert_eq!(
        unrecognized(call(BUY, json!({"opening_fee_params": params}))),
        ["opening_fee_params.extra"]
    );
}

#[test]
fn test_J_07_get_info_requests() {
    let read = |params| {
        call(GET_INFO, params).map(|c| match c {
            Call::GetInfo(request) => request.token,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(read(json!({})), Ok(None));
    assert_eq!(read(json!({"token": null})), Ok(None), "as LDK writes it");
    assert_eq!(read(json!({"token": ""})), Ok(Some(String::new())));
    assert_eq!(read(json!({"token": "ü"})), Ok(Some("ü".to_owned())));
    for bad in [json!(1), json!(["t"]), json!({}), json!(false)] {
        assert_eq!(unrecognized(call(GET_INFO, json!({"token": bad}))), [""; 0]);
    }
    for token in [None, Some("t".to_owned())] {
        let request = GetInfoRequest { token };
        assert_eq!(
            call(GET_INFO, request.to_params()),
            Ok(Call::GetInfo(request))
        );
    }
    assert_eq!(
        GetInfoRequest::default().to_params(),
        json!({}),
        "absent, not null"
    );
}

#[test]
fn test_J_09_buy_requests_are_read_strictly() {
    let good = json!(offer(None));
    let parse = |params: Value| BuyRequest::parse(params.as_object().unwrap());
    let read = parse(json!({"opening_fee_params": good, "payment_size_msat": "42"})).unwrap();
    assert_eq!(
        read,
        BuyRequest {
            params: offer(None),
            size: Some(Msat(42))
        }
    );
    for size in [
        json!({"opening_fee_params": good}),
        json!({"opening_fee_params": good, "payment_size_msat": null}),
    ] {
        assert_eq!(parse(size).unwrap().size, None);
    }
    let faults = |params: Value| {
        let error = parse(params).unwrap_err();
        assert_eq!(
            (error.code, error.data),
            (-32602, Some(json!({"unrecognized": []}))),
            "B-12"
        );
    };
    faults(json!({}));
    faults(json!({"payment_size_msat": "42"}));
    faults(json!({"opening_fee_params": null}));
    faults(
        json!({"opening_fee_params": ["2000", 4000, "2026-11-18T12:06:40.123Z", 1, 1, "1", "2", "x"]}),
    );
    for size in [
        json!(42),
        json!("042"),
        json!("-1"),
        json!("1.0"),
        json!(""),
        json!("18446744073709551616"),
    ] {
        faults(json!({"opening_fee_params": good, "payment_size_msat": size}));
    }
    for (field, values) in [
        ("min_fee_msat", [json!(2000), json!("0x1"), json!(null)]),
        (
            "proportional",
            [json!("4000"), json!(1.5), json!(4_294_967_296_u64)],
        ),
        (
            "valid_until",
            [json!(0), json!("tomorrow"), json!("2026-11-18")],
        ),
        ("min_lifetime", [json!("1"), json!(-1), json!([])]),
        (
            "max_client_to_self_delay",
            [json!("1"), json!(-1), json!(true)],
        ),
        ("min_payment_size_msat", [json!(1), json!(" 1"), json!({})]),
        (
            "max_payment_size_msat",
            [json!(1), json!("1 "), json!("+1")],
        ),
        ("promise", [json!(1), json!(null), json!(["x"])]),
    ] {
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().remove(field);
        faults(json!({"opening_fee_params": missing}));
        for value in values {
            let mut bad = good.clone();
            bad[field] = value;
            faults(json!({"opening_fee_params": bad}));
        }
    }
}

#[test]
fn test_J_35_buy_responses() {
    let response = BuyResponse {
        scid: Scid(1 << 40 | 2 << 16 | 3),
        cltv_delta: 144,
        trust: TrustModel::ClientTrustsLsp,
    };
    let result = response.to_result();
    assert_eq!(
        result,
        json!({"jit_channel_scid": "1x2x3", "lsp_cltv_expiry_delta": 144, "client_trusts_lsp": true})
    );
    assert_eq!(BuyResponse::parse(&result), Ok(response));
    let trusting = BuyResponse {
        trust: TrustModel::LspTrustsClient,
        ..response
    };
    assert_eq!(trusting.to_result()["client_trusts_lsp"], false);
    for bad in [
        json!({}),
        json!([]),
        json!(null),
        json!({"jit_channel_scid": "1x2x3"}),
        json!({"lsp_cltv_expiry_delta": 144}),
        json!({"jit_channel_scid": 5, "lsp_cltv_expiry_delta": 144}),
        json!({"jit_channel_scid": "1x2", "lsp_cltv_expiry_delta": 144}),
        json!({"jit_channel_scid": "1x2x3", "lsp_cltv_expiry_delta": "144"}),
        json!({"jit_channel_scid": "1x2x3", "lsp_cltv_expiry_delta": 65_536}),
        json!({"jit_channel_scid": "1x2x3", "lsp_cltv_expiry_delta": -1}),
    ] {
        assert_eq!(BuyResponse::parse(&bad), Err(Reason::BadResponse), "{bad}");
    }
}

#[test]
fn test_J_85_three_cases_of_client_trusts_lsp() {
    let parse = |trust: Option<Value>| {
        let mut result =
            json!({"jit_channel_scid": "1x2x3", "lsp_cltv_expiry_delta": 144, "more": {}});
        if let Some(trust) = trust {
            result["client_trusts_lsp"] = trust;
        }
        BuyResponse::parse(&result).map(|r| r.trust)
    };
    assert_eq!(parse(None), Ok(TrustModel::LspTrustsClient));
    assert_eq!(parse(Some(json!(false))), Ok(TrustModel::LspTrustsClient));
    assert_eq!(parse(Some(json!(true))), Ok(TrustModel::ClientTrustsLsp));
    for bad in [json!("true"), json!(1), json!(0), json!(null), json!([])] {
        assert_eq!(parse(Some(bad)), Err(Reason::BadResponse));
    }
}

#[test]
fn test_J_03_B_17_trust_only_where_configured() {
    let response = |trust, cltv_delta| BuyResponse {
        scid: Scid(1),
        cltv_delta,
        trust,
    };
    let (lsp, client) = (TrustModel::LspTrustsClient, TrustModel::ClientTrustsLsp);
    assert_eq!(check_buy_response(&response(lsp, 144), false), Ok(()));
    assert_eq!(check_buy_response(&response(lsp, 144), true), Ok(()));
    assert_eq!(check_buy_response(&response(client, 144), true), Ok(()));
    assert_eq!(
        check_buy_response(&response(client, 144), false),
        Err(Reason::TrustRefused)
    );
    assert_eq!(
        check_buy_response(&response(lsp, MAX_CLTV_DELTA), false),
        Ok(())
    );
    assert_eq!(
        check_buy_response(&response(lsp, MAX_CLTV_DELTA + 1), false),
        Err(Reason::BadResponse)
    );
}

#[test]
fn test_J_16_promise_of_512_passes_and_513_aborts() {
    let menu = |promise: String| {
        let params = FeeParams {
            promise,
            ..offer(None)
        };
        parse_menu(&json!({"opening_fee_params_menu": [params], "other": 1}))
    };
    assert_eq!(menu("x".repeat(512)).unwrap().len(), 1);
    assert_eq!(menu("x".repeat(513)), Err(Reason::BadResponse));
    // As it is encoded.
    assert_eq!(menu("\"".repeat(256)).unwrap().len(), 1);
    assert_eq!(menu("\"".repeat(257)), Err(Reason::BadResponse));
    assert_eq!(menu("é".repeat(256)).unwrap().len(), 1);
    assert_eq!(
        menu("é".repeat(257)),
        Err(Reason::BadResponse),
        "bytes count, not characters"
    );
}

#[test]
fn test_J_18_an_unrecognised_field_aborts() {
    let good = json!(offer(None));
    let mut odd = good.clone();
    odd["discount"] = json!("5");
    assert!(parse_menu(&json!({"opening_fee_params_menu": [good]})).is_ok());
    for menu in [
        json!([good, odd]),
        json!([odd]),
        json!([[]]),
        json!([1]),
        json!({}),
        json!(null),
        json!([[
            "2000",
            4000,
            "2026-11-18T12:06:40.123Z",
            1,
            1,
            "1",
            "2",
            "x"
        ]]),
    ] {
        assert_eq!(
            parse_menu(&json!({"opening_fee_params_menu": menu})),
            Err(Reason::BadResponse),
            "{menu}"
        );
    }
    assert_eq!(parse_menu(&json!({})), Err(Reason::BadResponse));
    assert_eq!(
        parse_menu(&json!({"opening_fee_params_menu": []})),
        Ok(vec![]),
        "J-08"
    );
}

#[test]
fn test_J_17_J_23_the_entry_is_returned_verbatim() {
    let mut entry = json!(offer(None));
    entry["valid_until"] = json!("2035-05-20T08:30:45.120000000+00:00");
    entry["promise"] = json!(" {\"not\": ours} \u{7f}");
    let offers = parse_menu(&json!({"opening_fee_params_menu": [entry]})).unwrap();
    assert_eq!(
        buy_params(&offers[0], None),
        json!({"opening_fee_params": entry}),
        "J-26"
    );
    assert_eq!(
        buy_params(&offers[0], Some(Msat(7))),
        json!({"opening_fee_params": entry, "payment_size_msat": "7"}),
        "J-27"
    );
    let sent = buy_params(&offers[0], Some(Msat(7)));
    assert!(
        matches!(call(BUY, sent), Ok(Call::Buy(b)) if b.size == Some(Msat(7)) && b.params == offers[0].params)
    );
}

struct Shop {
    rules: Rules,
    books: Books,
    stock: Stock,
    scores: (Score, Score),
    grants: BTreeMap<Grant, String>,
}

impl Shop {
    fn new() -> Self {
        let rules = Rules {
            menu: vec![tier()],
            token_menus: [("vip".to_owned(), vec![tier()])].into(),
            ..Rules::default()
        };
        let grants = rules.grants(&SECRET);
        Self {
            rules,
            books: Books::default(),
            stock: stock(u64::MAX),
            scores: Default::default(),
            grants,
        }
    }

    fn buy_at(&self, params: &FeeParams, size: Option<u64>, now: Millis) -> Result<Sale, Reason> {
        let seller = Seller {
            rules: &self.rules,
            secret: &SECRET,
            grants: &self.grants,
            books: &self.books,
            stock: &self.stock,
            scores: self.scores,
        };
        let request = BuyRequest {
            params: params.clone(),
            size: size.map(Msat),
        };
        decide_buy(&seller, &request, &node(2), now)
    }

    fn buy(&self, params: &FeeParams, size: impl Into<Option<u64>>) -> Result<Sale, Reason> {
        self.buy_at(params, size.into(), NOW)
    }

    /// The offer of a tier to `node(2)`.
    fn offer(tier: FeeTier) -> FeeParams {
        Menu::build(&[tier], &node(2), None, &SECRET, NOW)
            .unwrap()
            .0
            .remove(0)
    }
}

fn code(outcome: Result<Sale, Reason>) -> Option<i32> {
    outcome.err().map(|reason| reason.wire_code().unwrap())
}

#[test]
fn a_sale_says_what_was_agreed() {
    let shop = Shop::new();
    let sale = shop.buy(&offer(Some("vip")), 1_000_000).unwrap();
    let expected = Sale {
        params: offer(Some("vip")),
        size: Some(Msat(1_000_000)),
        fee: Some(Msat(4_000)),
        token: Some("vip".to_owned()),
        unknown_token: false,
        trust: TrustModel::LspTrustsClient,
        // 996 sat forwarded, 660 for the anchors, and the smallest reserve there is.
        reserved_sat: 996 + 660 + 1_000,
    };
    assert_eq!(sale, expected);
    let variable = shop.buy(&offer(None), None).unwrap();
    assert_eq!(
        (variable.size, variable.fee, variable.token),
        (None, None, None)
    );
    assert_eq!(
        variable.reserved_sat,
        8 + 660 + 1_000,
        "the smallest payment of the offer"
    );
}

#[test]
fn test_J_24_S_07_a_broken_promise_is_201() {
    let shop = Shop::new();
    let cheaper = FeeParams {
        min_fee_msat: Msat(1),
        ..offer(None)
    };
    assert_eq!(shop.buy(&cheaper, 20_000), Err(Reason::BadPromise));
    assert_eq!(Reason::BadPromise.wire_code(), Some(201));
    let others = Menu::build(&[tier()], &node(3), None, &SECRET, NOW)
        .unwrap()
        .0
        .remove(0);
    assert_eq!(
        shop.buy(&others, 20_000),
        Err(Reason::BadPromise),
        "made to another client"
    );
    let foreign = Menu::build(&[tier()], &node(2), None, &Secret([8; 32]), NOW)
        .unwrap()
        .0
        .remove(0);
    assert_eq!(shop.buy(&foreign, 20_000), Err(Reason::BadPromise));
}

#[test]
fn test_B_05_a_withdrawn_token_takes_its_offers_with_it() {
    let mut shop = Shop::new();
    assert!(shop.buy(&offer(Some("vip")), 20_000).is_ok());
    assert_eq!(
        shop.buy(&offer(Some("gone")), 20_000),
        Err(Reason::BadPromise)
    );
    shop.grants.clear();
    assert_eq!(
        shop.buy(&offer(Some("vip")), 20_000),
        Err(Reason::BadPromise)
    );
    assert!(shop.buy(&offer(None), 20_000).is_ok());
}

#[test]
fn test_J_25_B_09_expiry_is_exact_to_the_millisecond() {
    let shop = Shop::new();
    let until = offer(None).valid_until.0;
    assert!(shop
        .buy_at(&offer(None), Some(20_000), Millis(until - 1))
        .is_ok());
    for now in [until, until + 1] {
        let refused = shop.buy_at(&offer(None), Some(20_000), Millis(now));
        assert_eq!(refused, Err(Reason::OfferExpired));
        assert_eq!(code(refused), Some(201));
    }
}

#[test]
fn test_S_74_an_old_offer_is_honoured_after_the_menu_has_changed() {
    let mut shop = Shop::new();
    shop.rules.menu = vec![FeeTier {
        min_fee_msat: Msat(99_999),
        ..tier()
    }];
    assert_eq!(
        shop.buy(&offer(None), 20_000).unwrap().fee,
        Some(Msat(2_000))
    );
}

#[test]
fn test_J_29_B_02_S_08_size_boundaries() {
    let shop = Shop::new();
    let size = |size| code(shop.buy(&offer(None), size));
    assert_eq!(size(9_999), Some(202));
    assert_eq!(size(10_000), None);
    assert_eq!(size(10_001), None);
    assert_eq!(size(999_999_999), None);
    assert_eq!(size(1_000_000_000), None);
    assert_eq!(size(1_000_000_001), Some(203));
    assert_eq!(shop.buy(&offer(None), 9_999), Err(Reason::BelowMinimum));
    assert_eq!(
        shop.buy(&offer(None), 1_000_000_001),
        Err(Reason::AboveMaximum)
    );
}

#[test]
fn test_J_30_overflow_is_203() {
    let shop = Shop {
        rules: Rules {
            limits: Limits {
                max_exposure_msat: Msat(u64::MAX),
                max_exposure_per_client_msat: Msat(u64::MAX),
                max_unconfirmed_per_client_msat: Msat(u64::MAX),
                max_unconfirmed_msat: Msat(u64::MAX),
                ..Limits::default()
            },
            lending: Lending {
                strangers_ppm: 1_000_000,
                ..Lending::default()
            },
            ..Rules::default()
        },
        ..Shop::new()
    };
    let wide = |ppm| {
        Shop::offer(FeeTier {
            proportional_ppm: ppm,
            max_payment_msat: Msat(u64::MAX),
            ..tier()
        })
    };
    assert_eq!(
        shop.buy(&wide(1), u64::MAX - 999_998),
        Err(Reason::FeeOverflow)
    );
    let sale = shop.buy(&wide(1), u64::MAX - 999_999).unwrap();
    assert_eq!(sale.fee, Some(Msat(18_446_744_073_709)));
    assert_eq!(
        shop.buy(&wide(2), u64::MAX - 999_999),
        Err(Reason::FeeOverflow)
    );
    assert_eq!(code(shop.buy(&wide(2), u64::MAX - 999_999)), Some(203));
}

#[test]
fn test_J_31_S_08_fee_must_be_below_the_size() {
    let shop = Shop::new();
    let fee = |min_fee| {
        let params = Shop::offer(FeeTier {
            min_fee_msat: Msat(min_fee),
            ..tier()
        });
        code(shop.buy(&params, 20_000))
    };
    assert_eq!(fee(19_999), None);
    assert_eq!(fee(20_000), Some(202));
    assert_eq!(fee(20_001), Some(202));
}

#[test]
fn test_J_32_short_of_inbound_is_203() {
    let shop = |inbound| Shop {
        stock: Stock {
            inbound: Msat(inbound),
            ..stock(u64::MAX)
        },
        ..Shop::new()
    };
    assert!(shop(20_000).buy(&offer(None), 20_000).is_ok());
    assert_eq!(
        shop(19_999).buy(&offer(None), 20_000),
        Err(Reason::NoLiquidity)
    );
    assert_eq!(code(shop(19_999).buy(&offer(None), 20_000)), Some(203));
    assert!(shop(10_000).buy(&offer(None), None).is_ok());
    assert_eq!(
        shop(9_999).buy(&offer(None), None),
        Err(Reason::NoLiquidity)
    );
}

#[test]
fn test_J_34_short_of_coins_is_1() {
    // 20,000 msat: 18 sat forwarded, 1,660 for anchors and reserve.
    let shop = |coins, token: &str| {
        let shop = Shop {
            stock: stock(coins),
            ..Shop::new()
        };
        shop.buy(&offer(Some(token).filter(|t| !t.is_empty())), 20_000)
    };
    assert!(shop(1_678, "vip").is_ok());
    assert_eq!(shop(1_677, "vip"), Err(Reason::CoinsPromised));
    assert_eq!(code(shop(1_677, "vip")), Some(1));
    // Without a token only half of the coins are there for it.
    assert!(shop(3_356, "").is_ok());
    assert_eq!(shop(3_355, ""), Err(Reason::StrangersShare));
    assert_eq!(code(shop(3_355, "")), Some(1));
    let too_large = Shop {
        stock: Stock {
            sizing: ldkjit_core::sizing::Sizing {
                max_sat: 1_677,
                ..stock(0).sizing
            },
            ..stock(u64::MAX)
        },
        ..Shop::new()
    };
    assert_eq!(
        too_large.buy(&offer(None), 20_000),
        Err(Reason::AboveMaximum)
    );
}

#[test]
fn test_S_55_the_ladder_of_trust() {
    let shop = |unpaid| Shop {
        scores: (Score { unpaid, since: NOW }, Score::default()),
        ..Shop::new()
    };
    let trust = |unpaid| shop(unpaid).buy(&offer(None), 20_000).map(|s| s.trust);
    assert_eq!(trust(1), Ok(TrustModel::LspTrustsClient));
    assert_eq!(trust(2), Ok(TrustModel::ClientTrustsLsp));
    assert_eq!(trust(3), Ok(TrustModel::ClientTrustsLsp));
    assert_eq!(trust(4), Err(Reason::ClientUnreliable));
    assert_eq!(code(shop(4).buy(&offer(None), 20_000)), Some(1));
}

#[test]
fn test_J_84_precedence_of_refusals() {
    // Everything is wrong at first; each step mends the fault that was reported.
    let mut shop = Shop {
        stock: Stock {
            inbound: Msat(0),
            ..stock(0)
        },
        ..Shop::new()
    };
    shop.rules.deny = [node(2)].into();
    shop.scores.0 = Score {
        unpaid: 9,
        since: NOW,
    };
    shop.books.total.orders = u32::MAX;
    let dear = FeeTier {
        min_fee_msat: Msat(50_000),
        max_payment_msat: Msat(u64::MAX),
        ..tier()
    };
    let params = Shop::offer(dear);
    let broken = FeeParams {
        promise: "x".repeat(96),
        ..params.clone()
    };
    let late = params.valid_until;
    assert_eq!(shop.buy_at(&broken, Some(1), late), Err(Reason::BadPromise));
    assert_eq!(
        shop.buy_at(&params, Some(1), late),
        Err(Reason::OfferExpired)
    );
    assert_eq!(shop.buy(&params, 1), Err(Reason::BelowMinimum));
    assert_eq!(shop.buy(&params, u64::MAX), Err(Reason::FeeOverflow));
    assert_eq!(shop.buy(&params, 20_000), Err(Reason::FeeExceedsPayment));
    assert_eq!(shop.buy(&params, 60_000), Err(Reason::ClientDenied));
    shop.rules.deny.clear();
    assert_eq!(shop.buy(&params, 60_000), Err(Reason::ClientUnreliable));
    shop.scores.0.unpaid = 0;
    assert_eq!(shop.buy(&params, 60_000), Err(Reason::TooManyOrders));
    shop.books.total.orders = 0;
    assert_eq!(shop.buy(&params, 60_000), Err(Reason::CoinsPromised));
    shop.stock.coins_sat = u64::MAX;
    assert_eq!(shop.buy(&params, 60_000), Err(Reason::NoLiquidity));
    shop.stock.inbound = Msat(60_000);
    assert!(shop.buy(&params, 60_000).is_ok());
    assert_eq!(shop.rules.limits, Limits::default());
}

#[test]
fn test_J_02_exposure_counts_what_is_reserved() {
    let mut shop = Shop::new();
    shop.rules.limits.max_exposure_per_client_msat = Msat(100_000);
    shop.books = books(&[order(2, 80_000, None, 0), order(3, 90_000, None, 0)]);
    assert!(shop.buy(&offer(None), 20_000).is_ok());
    assert_eq!(
        shop.buy(&offer(None), 20_001),
        Err(Reason::ExposureOfClient)
    );
    assert!(shop.buy(&offer(None), None).is_ok());
}

#[test]
fn test_S_06_get_info() {
    let shop = Shop::new();
    let ask = |rules: &Rules, token: Option<&str>| {
        let request = GetInfoRequest {
            token: token.map(str::to_owned),
        };
        let coins = stock(u64::MAX);
        let books = Books::default();
        decide_get_info(rules, &coins, &books, &request, &node(2), &SECRET, NOW)
    };
    let menu = ask(&shop.rules, None).unwrap();
    assert_eq!(menu.0, [offer(None)]);
    assert_eq!(
        get_info_result(&menu),
        json!({"opening_fee_params_menu": [offer(None)]})
    );
    assert_eq!(
        ask(&shop.rules, Some("vip")).unwrap().0,
        [offer(Some("vip"))]
    );
    assert_eq!(ask(&shop.rules, Some("bad")), Err(Reason::UnknownToken));
    assert_eq!(Reason::UnknownToken.wire_code(), Some(200));
    let empty = ask(&Rules::default(), None).unwrap();
    assert_eq!(
        get_info_result(&empty),
        json!({"opening_fee_params_menu": []}),
        "J-08"
    );
    let denied = Rules {
        deny: [node(2)].into(),
        ..shop.rules.clone()
    };
    assert_eq!(ask(&denied, Some("bad")), Err(Reason::ClientDenied));
    let broken = Rules {
        menu: vec![tier(), tier()],
        ..Rules::default()
    };
    assert_eq!(ask(&broken, None), Err(Reason::Internal));
}

#[test]
fn a_dry_pool_is_an_empty_menu() {
    let dear = FeeTier {
        min_fee_msat: Msat(3_000),
        min_payment_msat: Msat(1_000_000),
        ..tier()
    };
    let rules = Rules {
        menu: vec![tier(), dear],
        token_menus: [("vip".to_owned(), vec![tier(), dear])].into(),
        ..Rules::default()
    };
    let offers = |coins, reserved, token: Option<&str>| {
        let books = books(&[order(3, 1, None, reserved)]);
        let request = GetInfoRequest {
            token: token.map(str::to_owned),
        };
        let stock = stock(coins);
        let menu = decide_get_info(&rules, &stock, &books, &request, &node(2), &SECRET, NOW);
        menu.unwrap().0.len()
    };
    // The smallest payments: 8 and 996 sat forwarded (4 and 3 sat fee), 1,660 beside.
    assert_eq!(offers(2_656, 0, Some("vip")), 2);
    assert_eq!(offers(2_655, 0, Some("vip")), 1);
    assert_eq!(offers(1_668, 0, Some("vip")), 1);
    assert_eq!(offers(1_667, 0, Some("vip")), 0);
    assert_eq!(offers(1_668, 1, Some("vip")), 0, "promised to somebody");
    assert_eq!(offers(3_336, 0, None), 1);
    assert_eq!(offers(3_335, 0, None), 0, "half of it is not for strangers");
}

#[test]
fn test_T_01_the_longest_menu_fits_a_message() {
    let tiers: Vec<FeeTier> = (0..MAX_TIERS as u64)
        .map(|n| FeeTier {
            min_fee_msat: Msat(u64::MAX - n),
            proportional_ppm: u32::MAX,
            min_payment_msat: Msat(u64::MAX),
            max_payment_msat: Msat(u64::MAX),
            min_lifetime_blocks: u32::MAX,
            max_client_to_self_delay: u16::MAX,
            valid_for_s: 1,
        })
        .collect();
    let menu = Menu::build(&tiers, &node(2), None, &SECRET, NOW).unwrap();
    assert!(encode_result(&"\u{1}".repeat(MAX_ID), &get_info_result(&menu)).len() <= MAX_PAYLOAD);
}

fn offers(tiers: &[FeeTier]) -> Vec<Offer> {
    tiers
        .iter()
        .map(|tier| {
            let params = Shop::offer(*tier);
            let raw = json!(params);
            Offer { params, raw }
        })
        .collect()
}

const WISH: Wish = Wish {
    size: Some(Msat(100_000)),
    max_fee: None,
    to_self_delay: 144,
    needed_until: NOW,
};

#[test]
fn test_S_76_the_cheapest_eligible_row_in_either_order() {
    let flat = FeeTier {
        min_fee_msat: Msat(900),
        proportional_ppm: 0,
        ..tier()
    };
    let share = FeeTier {
        min_fee_msat: Msat(1),
        proportional_ppm: 10_000,
        ..tier()
    };
    for offers in [offers(&[flat, share]), offers(&[share, flat])] {
        let fee = |size| {
            let (offer, fee) = choose_tier(
                &offers,
                &Wish {
                    size: Some(Msat(size)),
                    ..WISH
                },
            )
            .unwrap();
            assert_eq!(fee, offer.params.fee(Msat(size)));
            fee.unwrap().0
        };
        assert_eq!(fee(100_000), 900);
        assert_eq!(fee(50_000), 500);
        let (offer, fee) = choose_tier(&offers, &Wish { size: None, ..WISH }).unwrap();
        assert_eq!((offer.params.min_fee_msat, fee), (Msat(1), None));
    }
    let twice = offers(&[
        flat,
        FeeTier {
            min_lifetime_blocks: 9,
            ..flat
        },
    ]);
    let (first, _) = choose_tier(&twice, &WISH).unwrap();
    assert_eq!(first.params.min_lifetime, 1_008, "of equals the first");
}

#[test]
fn test_J_28_only_rows_that_take_the_size() {
    let offers = offers(&[tier()]);
    let take = |size| {
        choose_tier(
            &offers,
            &Wish {
                size: Some(Msat(size)),
                ..WISH
            },
        )
        .map(|_| ())
    };
    assert_eq!(take(9_999), Err(Reason::NoTier));
    assert_eq!(take(10_000), Ok(()));
    assert_eq!(take(1_000_000_000), Ok(()));
    assert_eq!(take(1_000_000_001), Err(Reason::NoTier));
    assert_eq!(
        choose_tier(&[], &WISH).map(|_| ()),
        Err(Reason::NoTier),
        "J-08"
    );
}

#[test]
fn test_J_31_client_takes_no_row_whose_fee_is_the_whole_payment() {
    let with = |min_fee| {
        offers(&[FeeTier {
            min_fee_msat: Msat(min_fee),
            ..tier()
        }])
    };
    assert!(choose_tier(&with(99_999), &WISH).is_ok());
    assert_eq!(
        choose_tier(&with(100_000), &WISH).map(|_| ()),
        Err(Reason::NoTier)
    );
}

#[test]
fn test_J_22_overflow_is_reported_only_if_nothing_else_serves() {
    let big = FeeTier {
        max_payment_msat: Msat(u64::MAX),
        ..tier()
    };
    let flat = FeeTier {
        proportional_ppm: 0,
        ..big
    };
    let wish = Wish {
        size: Some(Msat(u64::MAX)),
        ..WISH
    };
    assert_eq!(
        choose_tier(&offers(&[big]), &wish).map(|_| ()),
        Err(Reason::FeeOverflow)
    );
    for both in [offers(&[big, flat]), offers(&[flat, big])] {
        let (_, fee) = choose_tier(&both, &wish).unwrap();
        assert_eq!(fee, Some(Msat(2_000)));
    }
    let gone = Wish {
        needed_until: Millis(u64::MAX),
        ..wish
    };
    assert_eq!(
        choose_tier(&offers(&[big]), &gone).map(|_| ()),
        Err(Reason::NoTier)
    );
}

#[test]
fn test_S_33_the_fee_limit_is_inclusive() {
    let offers = offers(&[tier()]);
    let limit = |size, max: u64| {
        choose_tier(
            &offers,
            &Wish {
                size,
                max_fee: Some(Msat(max)),
                ..WISH
            },
        )
        .map(|_| ())
    };
    assert_eq!(limit(Some(Msat(1_000_000)), 4_000), Ok(()));
    assert_eq!(
        limit(Some(Msat(1_000_000)), 3_999),
        Err(Reason::FeeAboveLimit)
    );
    assert_eq!(limit(None, 2_000), Ok(()));
    assert_eq!(limit(None, 1_999), Err(Reason::FeeAboveLimit));
}

#[test]
fn test_J_37_J_59_rows_must_outlive_the_invoice_and_allow_our_delay() {
    let offers = offers(&[tier()]);
    let until = offers[0].params.valid_until.0;
    let needed = |ms| {
        choose_tier(
            &offers,
            &Wish {
                needed_until: Millis(ms),
                ..WISH
            },
        )
        .is_ok()
    };
    assert!(needed(until - 1));
    assert!(!needed(until));
    let delay = |blocks| {
        choose_tier(
            &offers,
            &Wish {
                to_self_delay: blocks,
                ..WISH
            },
        )
        .is_ok()
    };
    assert!(delay(2_016));
    assert!(!delay(2_017));
}

fn bought(size: Option<u64>, max_fee: Option<u64>) -> Bought {
    Bought {
        params: offer(None),
        size: size.map(Msat),
        max_fee: max_fee.map(Msat),
    }
}

fn arrived(received: u64, skimmed: u64) -> Arrived {
    Arrived {
        received: Msat(received),
        skimmed: Msat(skimmed),
        by_lsp: true,
    }
}

#[test]
fn test_J_73_J_74_fixed_amount_claims() {
    let order = bought(Some(1_000_000), None);
    let claim = |received, skimmed| claim_check(Some(&order), &arrived(received, skimmed));
    assert_eq!(claim(996_000, 4_000), Ok(Msat(1_000_000)));
    assert_eq!(
        claim(1_000_000, 0),
        Ok(Msat(1_000_000)),
        "less than the fee is welcome"
    );
    assert_eq!(claim(995_999, 4_001), Err(Reason::SkimTooHigh));
    assert_eq!(claim(995_999, 4_000), Err(Reason::Underpaid));
    assert_eq!(claim(1_996_000, 4_000), Ok(Msat(2_000_000)));
    assert_eq!(
        claim(1_995_999, 4_001),
        Err(Reason::SkimTooHigh),
        "S-24: the fee is that of the size agreed"
    );
}

#[test]
fn test_J_74_variable_amount_claims() {
    let order = bought(None, None);
    let claim = |received, skimmed| claim_check(Some(&order), &arrived(received, skimmed));
    assert_eq!(claim(996_000, 4_000), Ok(Msat(1_000_000)));
    assert_eq!(claim(995_999, 4_001), Err(Reason::SkimTooHigh));
    assert_eq!(
        claim(1_992_000, 8_000),
        Ok(Msat(2_000_000)),
        "the fee is that of the gross amount"
    );
    assert_eq!(claim(u64::MAX - 1, 1), Err(Reason::FeeOverflow));
    assert_eq!(claim(u64::MAX, 1), Err(Reason::AmountOverflow));
}

#[test]
fn test_S_33_the_clients_own_limit_at_the_claim() {
    let claim = |size, max, received, skimmed| {
        claim_check(Some(&bought(size, Some(max))), &arrived(received, skimmed))
    };
    for size in [None, Some(1_000_000)] {
        assert!(claim(size, 4_000, 996_000, 4_000).is_ok());
        assert_eq!(
            claim(size, 3_999, 996_000, 4_000),
            Err(Reason::FeeAboveLimit)
        );
        assert!(claim(size, 0, 1_000_000, 0).is_ok());
    }
}

#[test]
fn only_a_payment_that_is_too_dear_leaves_the_order_open() {
    for reason in Reason::ALL {
        let again = *reason == Reason::FeeAboveLimit;
        assert_eq!(may_be_paid_again(*reason), again, "{reason:?}");
    }
}

#[test]
fn test_J_75_S_69_nothing_may_be_skimmed_without_an_order() {
    assert_eq!(claim_check(None, &arrived(5, 0)), Ok(Msat(5)));
    assert_eq!(
        claim_check(
            None,
            &Arrived {
                by_lsp: false,
                ..arrived(5, 0)
            }
        ),
        Ok(Msat(5))
    );
    assert_eq!(claim_check(None, &arrived(5, 1)), Err(Reason::SkimTooHigh));
}

#[test]
fn a_jit_payment_over_another_peers_channel_is_refused() {
    let stray = Arrived {
        by_lsp: false,
        ..arrived(1_000_000, 0)
    };
    assert_eq!(
        claim_check(Some(&bought(Some(1_000_000), None)), &stray),
        Err(Reason::WrongChannel)
    );
}

proptest! {
    #[test]
    fn test_S_01_arbitrary_params_never_panic(bytes: Vec<u8>, text: String, number: i64) {
        for value in [json!({"token": text}), json!({"opening_fee_params": text, "payment_size_msat": number}),
            json!({"opening_fee_params": {"promise": text, "min_fee_msat": number}})] {
            let _ = (call(GET_INFO, value.clone()), call(BUY, value.clone()), parse_menu(&value), BuyResponse::parse(&value));
        }
        if let Ok(request) = parse_request(&bytes) {
            let _ = Call::parse(&request, true);
        }
    }

    #[test]
    fn test_J_35_buy_responses_round_trip(scid: u64, cltv_delta: u16, trusting: bool) {
        let trust = if trusting { TrustModel::ClientTrustsLsp } else { TrustModel::LspTrustsClient };
        let response = BuyResponse { scid: Scid(scid), cltv_delta, trust };
        prop_assert_eq!(BuyResponse::parse(&response.to_result()), Ok(response));
    }

    #[test]
    fn test_J_23_what_the_client_returns_the_service_sells(
        size in 10_000u64..1_000_000_000, min_fee in 0u64..20_000, ppm in 0u32..100_000,
    ) {
        let shop = Shop::new();
        let tier = FeeTier { min_fee_msat: Msat(min_fee), proportional_ppm: ppm, ..tier() };
        let menu = Menu(vec![Shop::offer(tier)]);
        let offers = parse_menu(&get_info_result(&menu)).unwrap();
        let chosen = choose_tier(&offers, &Wish { size: Some(Msat(size)), ..WISH });
        let fee = opening_fee(Msat(size), Msat(min_fee), ppm).unwrap();
        match chosen {
            Err(reason) => {
                prop_assert_eq!(reason, Reason::NoTier);
                prop_assert!(fee.0 >= size);
            }
            Ok((offer, quoted)) => {
                prop_assert_eq!(quoted, Some(fee));
                let Ok(Call::Buy(request)) = call(BUY, buy_params(offer, Some(Msat(size)))) else { panic!() };
                let sale = shop.buy(&request.params, request.size.map(|s| s.0)).unwrap();
                prop_assert_eq!(sale.fee, quoted);
                let paid = arrived(size - fee.0, fee.0);
                let order = Bought { params: offer.params.clone(), size: Some(Msat(size)), max_fee: Some(fee) };
                prop_assert_eq!(claim_check(Some(&order), &paid), Ok(Msat(size)));
            }
        }
    }

    #[test]
    fn test_J_74_a_claim_never_costs_more_than_the_fee(
        size in prop::option::of(0u64..2_000_000), received in 0u64..2_000_000, skimmed in 0u64..20_000,
        max_fee in prop::option::of(0u64..20_000),
    ) {
        let order = bought(size, max_fee);
        if let Ok(gross) = claim_check(Some(&order), &arrived(received, skimmed)) {
            prop_assert_eq!(gross.0, received + skimmed);
            prop_assert!(gross.0 >= size.unwrap_or(0));
            prop_assert!(skimmed <= order.params.fee(Msat(size.unwrap_or(gross.0))).unwrap().0);
            prop_assert!(max_fee.is_none_or(|max| skimmed <= max));
        }
    }
}
