//! Menus, promises and the operator's rules.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use common::{node, offer, tier, NOW, SECRET};
use ldkjit_core::amount::Msat;
use ldkjit_core::menu::{
    is_ordered, sort_tiers, verify_promise, FeeParams, FeeTier, Grant, Menu, MenuError, Secret,
    TrustModel, MAX_PROMISE, MAX_TIERS,
};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::{Limits, Rules, RulesError};
use ldkjit_core::time::Millis;
use proptest::prelude::*;
use serde_json::{json, Value};

fn priced(min_fee: u64, ppm: u32) -> FeeTier {
    FeeTier {
        min_fee_msat: Msat(min_fee),
        proportional_ppm: ppm,
        ..tier()
    }
}

#[test]
fn test_J_09_an_offer_has_exactly_the_eight_fields() {
    let params = offer(None);
    let value = serde_json::to_value(&params).unwrap();
    assert_eq!(
        value,
        json!({
            "min_fee_msat": "2000", "proportional": 4000, "valid_until": "2026-11-18T12:06:40.123Z",
            "min_lifetime": 1008, "max_client_to_self_delay": 2016, "min_payment_size_msat": "10000",
            "max_payment_size_msat": "1000000000", "promise": params.promise,
        })
    );
    assert_eq!(
        params.valid_until,
        Millis(NOW.0 + 3_600_000),
        "J-10: the tier's validity from now"
    );
}

#[test]
fn test_J_12_menu_is_ordered_cheapest_first() {
    let tiers = [priced(3, 10), priced(1, 10), priced(2, 10), priced(3, 30)];
    let menu = Menu::build(&tiers, &node(2), None, &SECRET, NOW).unwrap().0;
    let prices: Vec<_> = menu
        .iter()
        .map(|p| (p.min_fee_msat.0, p.proportional))
        .collect();
    assert_eq!(prices, [(1, 10), (2, 10), (3, 10), (3, 30)]);
    assert!(is_ordered(menu.iter()));
    assert!(!is_ordered(menu.iter().rev()));
    assert!(!is_ordered([&menu[0], &menu[0]].into_iter()));
    assert!(is_ordered([].iter()));
}

#[test]
fn test_J_12_incomparable_or_equal_tiers_are_a_configuration_error() {
    let incomparable = |index, other| Err(MenuError::Incomparable { index, other });
    assert_eq!(
        sort_tiers(&[priced(1, 20), priced(2, 10)]),
        incomparable(0, 1)
    );
    assert_eq!(
        sort_tiers(&[priced(2, 10), priced(1, 20)]),
        incomparable(1, 0)
    );
    let later = FeeTier {
        valid_for_s: 7_200,
        ..tier()
    };
    assert_eq!(sort_tiers(&[tier(), later]), incomparable(0, 1));
    assert_eq!(sort_tiers(&[]), Ok(vec![]));
}

#[test]
fn a_tier_that_nobody_could_buy_is_a_configuration_error() {
    let point = FeeTier {
        max_payment_msat: Msat(10_000),
        ..tier()
    };
    assert!(sort_tiers(&[point]).is_ok(), "a range of one value");
    let empty = FeeTier {
        max_payment_msat: Msat(9_999),
        ..tier()
    };
    assert_eq!(
        sort_tiers(&[priced(1, 1), empty]),
        Err(MenuError::EmptyRange { index: 1 })
    );
    let over = FeeTier {
        valid_for_s: 0,
        ..tier()
    };
    assert_eq!(sort_tiers(&[over]), Err(MenuError::NoValidity { index: 0 }));
    let many: Vec<_> = (0..MAX_TIERS as u64).map(|n| priced(n, 0)).collect();
    assert!(sort_tiers(&many).is_ok());
    let more: Vec<_> = (0..=MAX_TIERS as u64).map(|n| priced(n, 0)).collect();
    assert_eq!(sort_tiers(&more), Err(MenuError::TooMany));
}

#[test]
fn test_J_13_promise_verifies_for_what_was_offered() {
    assert_eq!(
        verify_promise(&SECRET, &offer(None), &node(2)),
        Some(Grant::NONE)
    );
    let grant = Grant::of(&SECRET, Some("vip"));
    assert_eq!(
        verify_promise(&SECRET, &offer(Some("vip")), &node(2)),
        Some(grant)
    );
    assert_ne!(grant, Grant::NONE);
    assert_ne!(grant, Grant::of(&SECRET, Some("vip2")));
    assert_ne!(grant, Grant::of(&Secret([8; 32]), Some("vip")));
    assert_ne!(Grant::of(&SECRET, Some("")), Grant::NONE);
}

#[test]
fn test_J_14_J_15_promise_is_short_printable_ascii_without_the_token() {
    let params = offer(Some("vip"));
    assert!(params.promise.len() <= MAX_PROMISE);
    assert!(params.promise.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(!params.promise.contains("766970"), "the token in hex");
}

#[test]
fn test_S_07_a_change_of_any_field_client_secret_or_grant_breaks_the_promise() {
    for token in [None, Some("vip")] {
        let good = offer(token);
        let broken: Vec<FeeParams> = vec![
            FeeParams {
                min_fee_msat: Msat(1_999),
                ..good.clone()
            },
            FeeParams {
                proportional: 3_999,
                ..good.clone()
            },
            FeeParams {
                valid_until: Millis(good.valid_until.0 + 1),
                ..good.clone()
            },
            FeeParams {
                min_lifetime: 1_009,
                ..good.clone()
            },
            FeeParams {
                max_client_to_self_delay: 2_017,
                ..good.clone()
            },
            FeeParams {
                min_payment_size_msat: Msat(9_999),
                ..good.clone()
            },
            FeeParams {
                max_payment_size_msat: Msat(1_000_000_001),
                ..good.clone()
            },
            FeeParams {
                promise: String::new(),
                ..good.clone()
            },
            FeeParams {
                promise: good.promise[..95].to_owned(),
                ..good.clone()
            },
            FeeParams {
                promise: format!("{}0", good.promise),
                ..good.clone()
            },
            FeeParams {
                promise: good.promise.to_uppercase(),
                ..good.clone()
            },
            FeeParams {
                promise: format!("{}{}", "0".repeat(31), "é".repeat(33)),
                ..good.clone()
            },
            FeeParams {
                promise: "g".repeat(96),
                ..good.clone()
            },
        ];
        for params in broken {
            assert_eq!(
                verify_promise(&SECRET, &params, &node(2)),
                None,
                "{params:?}"
            );
        }
        assert_eq!(verify_promise(&SECRET, &good, &node(3)), None);
        assert_eq!(verify_promise(&Secret([8; 32]), &good, &node(2)), None);
    }
}

#[test]
fn test_B_05_grant_of_another_token_cannot_be_put_on_a_promise() {
    let (plain, vip, other) = (offer(None), offer(Some("vip")), offer(Some("other")));
    for (head, tail) in [(&vip, &plain), (&plain, &vip), (&other, &vip)] {
        let promise = format!("{}{}", &head.promise[..32], &tail.promise[32..]);
        let params = FeeParams {
            promise,
            ..plain.clone()
        };
        assert_eq!(verify_promise(&SECRET, &params, &node(2)), None);
    }
}

#[test]
fn test_B_06_reserialised_valid_until_still_verifies() {
    let now = Millis(1_795_000_000_000);
    let params = Menu::build(&[tier()], &node(2), None, &SECRET, now)
        .unwrap()
        .0
        .remove(0);
    let value = serde_json::to_value(&params).unwrap();
    assert_eq!(value["valid_until"], "2026-11-18T12:06:40.000Z");
    for spelling in [
        "2026-11-18T12:06:40Z",
        "2026-11-18T12:06:40.000Z",
        "2026-11-18T12:06:40.000000000Z",
        "2026-11-18T12:06:40+00:00",
        "2026-11-18T12:06:40.000000000+00:00",
        "2026-11-18T13:06:40.000+01:00",
    ] {
        let mut respelt = value.clone();
        respelt["valid_until"] = json!(spelling);
        let respelt: FeeParams = serde_json::from_value(respelt).unwrap();
        assert!(
            verify_promise(&SECRET, &respelt, &node(2)).is_some(),
            "{spelling}"
        );
    }
}

#[test]
fn the_secret_does_not_show() {
    assert_eq!(format!("{SECRET:?}"), "Secret(…)");
}

#[test]
fn trust_model_is_snake_case() {
    assert_eq!(json!(TrustModel::LspTrustsClient), "lsp_trusts_client");
    assert_eq!(json!(TrustModel::ClientTrustsLsp), "client_trusts_lsp");
    assert_eq!(TrustModel::default(), TrustModel::LspTrustsClient, "J-01");
    assert!(TrustModel::ClientTrustsLsp.client_trusts_lsp());
    assert!(!TrustModel::LspTrustsClient.client_trusts_lsp());
}

fn rules() -> Rules {
    Rules {
        menu: vec![tier()],
        token_menus: [("vip".to_owned(), vec![priced(1, 1)])].into(),
        ..Rules::default()
    }
}

#[test]
fn test_J_07_tiers_by_token() {
    let rules = rules();
    assert_eq!(rules.tiers(None), Ok(&[tier()][..]));
    assert_eq!(rules.tiers(Some("vip")), Ok(&[priced(1, 1)][..]));
    assert_eq!(rules.tiers(Some("VIP")), Err(Reason::UnknownToken));
    assert_eq!(rules.tiers(Some("")), Err(Reason::UnknownToken));
    let grants = rules.grants(&SECRET);
    assert_eq!(grants.len(), 1);
    assert_eq!(grants[&Grant::of(&SECRET, Some("vip"))], "vip");
}

#[test]
fn test_J_34_allow_and_deny() {
    let mut rules = rules();
    assert_eq!(rules.admit(&node(1)), Ok(()));
    rules.allow = Some([node(1), node(2)].into());
    rules.deny = [node(2)].into();
    assert_eq!(rules.admit(&node(1)), Ok(()));
    assert_eq!(
        rules.admit(&node(2)),
        Err(Reason::ClientDenied),
        "deny wins"
    );
    assert_eq!(rules.admit(&node(3)), Err(Reason::ClientDenied));
    rules.allow = Some([].into());
    assert_eq!(rules.admit(&node(1)), Err(Reason::ClientDenied));
    rules.allow = None;
    assert_eq!(rules.admit(&node(2)), Err(Reason::ClientDenied));
}

#[test]
fn rules_are_validated_with_the_name_of_the_menu() {
    assert_eq!(rules().validate(), Ok(()));
    let mut bad = rules();
    bad.menu = vec![tier(), tier()];
    let error = MenuError::Incomparable { index: 0, other: 1 };
    assert_eq!(bad.validate(), Err(RulesError { token: None, error }));
    assert!(bad
        .validate()
        .unwrap_err()
        .to_string()
        .starts_with("menu: tiers 0 and 1"));
    let mut bad = rules();
    bad.token_menus.insert("x".to_owned(), vec![tier(), tier()]);
    let err = bad.validate().unwrap_err();
    assert_eq!(
        err,
        RulesError {
            token: Some("x".to_owned()),
            error
        }
    );
    assert!(err.to_string().contains("\"x\""));
    for (error, word) in [
        (MenuError::TooMany, "more than 64"),
        (
            MenuError::EmptyRange { index: 3 },
            "tier 3: min_payment_msat",
        ),
        (MenuError::NoValidity { index: 4 }, "tier 4: valid_for_s"),
    ] {
        assert!(error.to_string().contains(word));
    }
}

#[test]
fn rules_are_read_from_configuration_and_refuse_unknown_keys() {
    let rules: Rules = serde_json::from_value(json!({
        "menu": [{"min_fee_msat": 1, "proportional_ppm": 2, "min_payment_msat": 3, "max_payment_msat": 4,
                  "min_lifetime_blocks": 5, "max_client_to_self_delay": 6, "valid_for_s": 7}],
        "limits": {"max_orders": 5},
        "deny": ["02".repeat(33)],
    }))
    .unwrap();
    assert_eq!(
        rules.limits,
        Limits {
            max_orders: 5,
            ..Limits::default()
        }
    );
    assert_eq!(rules.admit(&node(2)), Err(Reason::ClientDenied));
    assert_eq!(rules.menu[0].max_client_to_self_delay, 6);
    for bad in [
        json!({"menus": []}),
        json!({"limits": {"max_order": 1}}),
        json!({"menu": [{"min_fee_msat": 1}]}),
    ] {
        assert!(serde_json::from_value::<Rules>(bad).is_err());
    }
}

#[test]
fn reasons_are_distinct_ascii_and_fit_the_wire() {
    let mut names = std::collections::BTreeSet::new();
    for reason in Reason::ALL {
        let message = reason.message();
        assert!(message.is_ascii() && message.len() < 80 && !message.is_empty());
        assert_eq!(reason.to_string(), message);
        let Value::String(name) = json!(reason) else {
            panic!()
        };
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        assert_eq!(
            serde_json::from_value::<Reason>(json!(name)).unwrap(),
            *reason
        );
        assert!(names.insert(name));
        if let Some(code) = reason.wire_code() {
            assert!(
                matches!(code, 1 | 200..=203 | 500..=503 | 1010 | -32_603..=-32_600 | -32_700),
                "T-15"
            );
        }
    }
    assert_eq!(names.len(), Reason::ALL.len());
}

fn tiers() -> impl Strategy<Value = Vec<FeeTier>> {
    prop::collection::vec(
        (0u64..4, 0u32..4).prop_map(|(fee, ppm)| priced(fee, ppm)),
        0..6,
    )
}

proptest! {
    #[test]
    fn test_J_12_every_menu_built_keeps_the_order(tiers in tiers()) {
        let fine = tiers.iter().enumerate().all(|(i, a)| tiers.iter().skip(i + 1).all(|b| {
            let (a, b) = ((a.min_fee_msat, a.proportional_ppm), (b.min_fee_msat, b.proportional_ppm));
            a != b && ((a.0 <= b.0 && a.1 <= b.1) || (a.0 >= b.0 && a.1 >= b.1))
        }));
        match Menu::build(&tiers, &node(2), None, &SECRET, NOW) {
            Ok(menu) => {
                prop_assert!(fine);
                prop_assert_eq!(menu.0.len(), tiers.len());
                prop_assert!(is_ordered(menu.0.iter()));
            }
            Err(_) => prop_assert!(!fine),
        }
    }

    #[test]
    fn test_J_13_no_forged_promise_verifies(promise in "[0-9a-f]{96}", text: String) {
        for promise in [promise, text] {
            let params = FeeParams { promise, ..offer(None) };
            prop_assert_eq!(verify_promise(&SECRET, &params, &node(2)), None);
        }
    }

    #[test]
    fn test_J_09_offers_round_trip(
        min_fee: u64, ppm: u32, min: u64, max: u64, lifetime: u32, delay: u16, valid: u32, token: Option<String>,
    ) {
        let tier = FeeTier {
            min_fee_msat: Msat(min_fee), proportional_ppm: ppm,
            min_payment_msat: Msat(min.min(max)), max_payment_msat: Msat(min.max(max)),
            min_lifetime_blocks: lifetime, max_client_to_self_delay: delay, valid_for_s: valid.max(1),
        };
        let menu = Menu::build(&[tier], &node(2), token.as_deref(), &SECRET, NOW).unwrap();
        let text = serde_json::to_string(&menu.0[0]).unwrap();
        let read: FeeParams = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &menu.0[0]);
        prop_assert_eq!(verify_promise(&SECRET, &read, &node(2)), Some(Grant::of(&SECRET, token.as_deref())));
        let text = serde_json::to_string(&tier).unwrap();
        prop_assert_eq!(serde_json::from_str::<FeeTier>(&text).unwrap(), tier);
    }
}
