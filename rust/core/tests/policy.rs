//! Hooks: what an answer may say, what is made of it, and when a hook is left in peace.
#![allow(
    missing_docs,
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use common::{books, node, offer, order, stock, tier, NOW, SECRET};
use ldkjit_core::amount::Msat;
use ldkjit_core::liquidity::Lending;
use ldkjit_core::lsps2::{offer_tiers, Sale};
use ldkjit_core::menu::TrustModel::{ClientTrustsLsp, LspTrustsClient};
use ldkjit_core::menu::{sort_tiers, verify_promise, FeeTier, Grant, TrustModel};
use ldkjit_core::policy::{
    Answer, AnswerError, Breaker, ChannelYes, Fuse, Hook, MenuYes, Objection, Refusal, SellYes,
    Who, MAX_VALID_FOR_S,
};
use ldkjit_core::quota::{Quota, Used};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::{Hours, Limits, Rules};
use ldkjit_core::standing::Score;
use ldkjit_core::time::Millis;
use proptest::prelude::*;

#[test]
fn an_answer_is_read_strictly() {
    let read = |text: &str| serde_json::from_str::<Answer<SellYes>>(text);
    assert_eq!(
        read(r#"{"yes": {}}"#).unwrap(),
        Answer::Yes(SellYes { trust: None })
    );
    assert_eq!(
        read(r#"{"refuse": {}}"#).unwrap(),
        Answer::Refuse(Refusal::default())
    );
    for strange in [
        r"{}",
        r"true",
        r#"{"yes": {"fee": 1}}"#,
        r#"{"yes": {"trust": "nobody"}}"#,
        r#"{"refuse": {"reason": "whim"}}"#,
        r#"{"yes": {}, "refuse": {}}"#,
    ] {
        assert!(read(strange).is_err(), "{strange}");
    }
}

#[test]
fn a_refusal_has_its_reason() {
    let of = |reason, hook| {
        let message = String::new();
        Refusal { reason, message }.reason(hook)
    };
    use Objection::{Maintenance, Refused, UnknownToken};
    assert_eq!(of(Refused, Hook::Sell), Reason::PolicyRefused);
    assert_eq!(of(Maintenance, Hook::Channel), Reason::Maintenance);
    assert_eq!(of(UnknownToken, Hook::Menu), Reason::UnknownToken);
    assert_eq!(of(UnknownToken, Hook::Sell), Reason::PolicyRefused);
    let said = Refusal {
        message: "not today".into(),
        ..Refusal::default()
    };
    assert_eq!(said.words(), Some("not today"));
    assert_eq!(Refusal::default().words(), None);
}

#[test]
fn tiers_out_of_range_are_no_menu() {
    let check = |change: fn(&mut FeeTier)| {
        let mut changed = tier();
        change(&mut changed);
        MenuYes {
            tiers: vec![changed],
        }
        .check()
    };
    assert_eq!(check(|_| {}), Ok(()));
    let field = |change| match check(change) {
        Err(AnswerError::Tier { index: 0, field }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(|t| t.min_payment_msat = Msat(0)), "min_payment_msat");
    assert_eq!(
        field(|t| t.proportional_ppm = 1_000_001),
        "proportional_ppm"
    );
    assert_eq!(field(|t| t.min_fee_msat = Msat(u64::MAX)), "min_fee_msat");
    let delay = "max_client_to_self_delay";
    assert_eq!(field(|t| t.max_client_to_self_delay = 143), delay);
    assert_eq!(field(|t| t.max_client_to_self_delay = 2_017), delay);
    assert_eq!(
        field(|t| t.valid_for_s = MAX_VALID_FOR_S + 1),
        "valid_for_s"
    );
    assert_eq!(
        field(|t| t.min_lifetime_blocks = 1_000_001),
        "min_lifetime_blocks"
    );
    assert!(matches!(
        check(|t| t.valid_for_s = 0),
        Err(AnswerError::Menu(_))
    ));
    let twice = MenuYes {
        tiers: vec![tier(), tier()],
    };
    assert!(matches!(twice.check(), Err(AnswerError::Menu(_))));
}

fn sale(trust: TrustModel) -> Sale {
    Sale {
        params: offer(None),
        size: Some(Msat(100_000)),
        fee: Some(Msat(2_000)),
        token: None,
        unknown_token: false,
        trust,
        reserved_sat: 0,
    }
}

#[test]
fn the_stricter_of_rules_and_hook_decides_on_trust() {
    for (rules, hook, both) in [
        (LspTrustsClient, None, LspTrustsClient),
        (LspTrustsClient, Some(ClientTrustsLsp), ClientTrustsLsp),
        (ClientTrustsLsp, Some(LspTrustsClient), ClientTrustsLsp),
        (ClientTrustsLsp, None, ClientTrustsLsp),
    ] {
        let agreed = SellYes { trust: hook }.agree(sale(rules));
        assert_eq!(agreed, sale(both));
    }
}

#[test]
fn a_client_is_shown_as_the_books_have_it() {
    let orders = [order(2, 500, Some("vip"), 7), order(3, 100, None, 0)];
    let own = books(&orders).of(&node(2));
    let score = Score {
        unpaid: 2,
        since: NOW,
    };
    let who = Who::new(node(2), Some("vip".into()), &own, 4, score);
    assert_eq!((who.orders, who.exposure_msat), (1, 500));
    assert_eq!((who.paid_channels, who.left_unpaid), (4, 2));
}

#[test]
fn a_menu_has_its_hours() {
    let night = Hours {
        from: 22,
        until: 6,
        menu: vec![FeeTier {
            min_fee_msat: Msat(1),
            ..tier()
        }],
    };
    let noon = Hours {
        from: 12,
        until: 13,
        menu: vec![],
    };
    let rules = Rules {
        menu: vec![tier()],
        token_menus: [("vip".to_owned(), vec![tier()])].into(),
        hours: vec![night.clone(), noon],
        ..Rules::default()
    };
    assert_eq!(rules.validate(), Ok(()));
    let at = |hour: u64| Millis((20_000 * 24 + hour) * 3_600_000 + 1);
    for hour in 0..24 {
        let offered = rules.offered(None, at(hour), 0).unwrap();
        let expected = match hour {
            0..=5 | 22 | 23 => night.menu.clone(),
            12 => vec![],
            _ => vec![tier()],
        };
        assert_eq!(offered, expected, "{hour}");
        assert_eq!(rules.offered(Some("vip"), at(hour), 0), Ok(vec![tier()]));
    }
    assert_eq!(
        rules.offered(Some("guess"), at(0), 0),
        Err(Reason::UnknownToken)
    );
    let broken = Rules {
        hours: vec![Hours {
            menu: vec![tier(), tier()],
            ..night
        }],
        ..Rules::default()
    };
    assert!(broken.validate().is_err());
}

fn any_tier() -> impl Strategy<Value = FeeTier> {
    (
        0..=u64::MAX,
        0..=2_000_000_u32,
        0..=10_000_000_u64,
        0..=u64::MAX,
        0..=2_000_000_u32,
        0..=3_000_u16,
        0..=1_000_000_u32,
    )
        .prop_map(|(fee, ppm, min, max, lifetime, delay, valid)| FeeTier {
            min_fee_msat: Msat(fee),
            proportional_ppm: ppm,
            min_payment_msat: Msat(min),
            max_payment_msat: Msat(max),
            min_lifetime_blocks: lifetime,
            max_client_to_self_delay: delay,
            valid_for_s: valid,
        })
}

/// Mostly menus, so that the properties of good ones are seen too.
fn some_tiers() -> impl Strategy<Value = Vec<FeeTier>> {
    let good = prop::collection::vec(0..1_000_u64, 0..8).prop_map(|steps| {
        let mut fee = 0;
        let tiers = steps.into_iter().map(|step| {
            fee += step + 1;
            FeeTier {
                min_fee_msat: Msat(fee),
                ..tier()
            }
        });
        tiers.collect()
    });
    prop_oneof![good, prop::collection::vec(any_tier(), 0..4)]
}

proptest! {
    #[test]
    fn the_chains_cost_is_added_to_every_tier_and_changes_no_order(
        tiers in some_tiers(), fee_sat in 0..10_000_000_u64, ppm in 0..=100_000_000_u32,
    ) {
        let rules = Rules { menu: tiers, chain_cost_ppm: ppm, ..Rules::default() };
        if rules.validate().is_ok() {
            if let Ok(offered) = rules.offered(None, NOW, fee_sat) {
                prop_assert!(sort_tiers(&offered).is_ok());
                let cost = (u128::from(fee_sat) * 1_000 * u128::from(ppm)).div_ceil(1_000_000);
                for (tier, offer) in rules.menu.iter().zip(&offered) {
                    let more = offer.min_fee_msat.0 - tier.min_fee_msat.0;
                    prop_assert_eq!(u128::from(more), cost);
                    prop_assert_eq!(FeeTier { min_fee_msat: tier.min_fee_msat, ..*offer }, *tier);
                }
            }
        }
    }

    #[test]
    fn checked_tiers_become_offers_that_verify(tiers in some_tiers(), token in prop::option::of("[a-z]{1,9}")) {
        let yes = MenuYes { tiers };
        if yes.check().is_ok() {
            let rules = Rules::default();
            let none = books(&[]);
            let token = token.as_deref();
            let menu = offer_tiers(
                &rules, &yes.tiers, &stock(u64::MAX), &none, token, &node(2), &SECRET, NOW,
            ).unwrap();
            prop_assert!(menu.0.len() <= yes.tiers.len());
            for params in &menu.0 {
                let grant = verify_promise(&SECRET, params, &node(2));
                prop_assert_eq!(grant, Some(Grant::of(&SECRET, token)));
                prop_assert_eq!(verify_promise(&SECRET, params, &node(3)), None);
                let lives = params.valid_until.since(NOW);
                prop_assert!(lives > 0 && lives <= u64::from(MAX_VALID_FOR_S) * 1_000);
            }
        }
    }

    #[test]
    fn what_is_granted_carries_the_payment_and_stays_within_the_limits(
        wanted in prop::option::of(0..2_000_000_u64),
        needed in 1..1_000_000_u64,
        max_sat in 0..2_000_000_u64,
        coins_sat in 0..2_000_000_u64,
        reserved_sat in 0..1_000_000_u64,
        own_msat in 1..1_000_000_000_u64,
        others_msat in 0..1_000_000_000_u64,
        all in 0..3_000_000_000_u64,
        each in 0..3_000_000_000_u64,
        token in any::<bool>(),
    ) {
        let token = token.then_some("vip");
        let rules = Rules {
            limits: Limits {
                max_exposure_msat: Msat(all),
                max_exposure_per_client_msat: Msat(each),
                ..Limits::default()
            },
            lending: Lending::default(),
            ..Rules::default()
        };
        let own = order(2, own_msat, token, 0);
        let books = books(&[own.clone(), order(3, others_msat, token, reserved_sat)]);
        let mut stock = stock(coins_sat);
        stock.sizing.max_sat = max_sat;
        let yes = ChannelYes { value_sat: wanted };
        let granted = yes.grant(&rules, &books, &stock, &own, needed).value_sat;
        prop_assert!(granted >= needed);
        prop_assert!(granted <= needed.max(wanted.unwrap_or(needed)));
        if granted > needed {
            prop_assert!(granted <= max_sat);
            prop_assert!(granted - needed <= coins_sat.saturating_sub(reserved_sat));
            let exposure = u128::from(granted) * 1_000;
            prop_assert!(exposure <= u128::from(each));
            prop_assert!(exposure + u128::from(others_msat) <= u128::from(all));
            if token.is_none() {
                let share = rules.lending.strangers_share(all.into());
                prop_assert!(exposure + u128::from(others_msat) <= share);
            }
        }
    }

    #[test]
    fn a_hook_that_misses_is_left_in_peace_and_tried_again(
        steps in prop::collection::vec((0..3_u8, 0..2_000_u64), 0..200),
        after in 1..6_u32,
    ) {
        let fuse = Fuse { after, pause_ms: 1_000 };
        let mut breaker = Breaker::default();
        let mut now = Millis(0);
        let (mut in_a_row, mut open_until, mut asked) = (0, None::<Millis>, 0_u32);
        for (step, ms) in steps {
            now = now.saturating_add(ms);
            match step {
                0 => {
                    let admitted = breaker.admits(now);
                    match open_until {
                        None => prop_assert!(admitted),
                        Some(until) if now < until => prop_assert!(!admitted),
                        Some(_) => prop_assert_eq!(admitted, asked == 0),
                    }
                    if admitted && open_until.is_some() {
                        asked += 1;
                    }
                }
                1 => {
                    breaker.answered();
                    (in_a_row, open_until, asked) = (0, None, 0);
                }
                _ => {
                    in_a_row += 1;
                    let began = breaker.missed(now, fuse);
                    prop_assert_eq!(began, in_a_row == after);
                    asked = 0;
                    if in_a_row >= after {
                        open_until = Some(now.saturating_add(1_000));
                    }
                }
            }
            prop_assert_eq!(breaker.is_open(), open_until.is_some());
        }
    }
}

#[test]
fn a_quota_is_had_at_once_and_again_at_its_pace() {
    let quota = Quota {
        sales: 3,
        per_ms: 3_000,
    };
    let mut used = Used::default();
    for _ in 0..3 {
        used = quota.take(used, NOW).unwrap();
    }
    assert_eq!(quota.take(used, NOW), Err(Reason::QuotaUsed));
    let later = |ms| NOW.saturating_add(ms);
    assert_eq!(quota.take(used, later(999)), Err(Reason::QuotaUsed));
    used = quota.take(used, later(1_000)).unwrap();
    assert_eq!(quota.take(used, later(1_999)), Err(Reason::QuotaUsed));
    assert!(quota.take(used, later(2_000)).is_ok());
    let nothing = Quota { sales: 0, ..quota };
    assert_eq!(nothing.take(Used::default(), NOW), Err(Reason::QuotaUsed));
}

proptest! {
    #[test]
    fn no_more_is_sold_than_a_quota_allows(
        sales in 1..20_u32,
        per_ms in 1..100_000_u64,
        pauses in prop::collection::vec(0..20_000_u64, 1..100),
    ) {
        let quota = Quota { sales, per_ms };
        let (mut used, mut now, mut sold) = (Used::default(), NOW, 0_u64);
        for pause in pauses {
            now = now.saturating_add(pause);
            if let Ok(after) = quota.take(used, now) {
                prop_assert!(after > used);
                (used, sold) = (after, sold + 1);
            }
            let step = per_ms.div_ceil(u64::from(sales));
            prop_assert!(sold <= u64::from(sales) + now.since(NOW) / step);
        }
    }
}
