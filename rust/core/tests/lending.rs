//! What may still be sold: limits, shares, reservations, the trust that is left, and the coin pool.
#![allow(
    missing_docs,
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

mod common;

use common::{books, node, offer, order, stock, NOW};
use ldkjit_core::amount::Msat;
use ldkjit_core::liquidity::{Books, Lending, Stock};
use ldkjit_core::menu::TrustModel::{ClientTrustsLsp, LspTrustsClient};
use ldkjit_core::pool::{Pool, Spent, Split};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::Limits;
use ldkjit_core::standing::{Patience, Score, Standing};
use ldkjit_core::time::Millis;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits {
        max_orders_per_client: 2,
        max_orders: 6,
        max_exposure_per_client_msat: Msat(500),
        max_exposure_msat: Msat(1_000),
        max_unclaimed_per_client: 3,
        max_unconfirmed_per_client_msat: Msat(u64::MAX),
        max_unconfirmed_msat: Msat(u64::MAX),
    }
}

fn check(limits: &Limits, books: &Books, token: bool, amount: u64) -> Result<(), Reason> {
    limits.check(&Lending::default(), books, &node(2), token, Msat(amount))
}

#[test]
fn test_S_10_every_limit_has_its_reason() {
    let of = |sizes: &[(u8, u64)]| {
        let sold: Vec<_> = sizes
            .iter()
            .map(|(client, size)| order(*client, *size, Some("vip"), 0))
            .collect();
        books(&sold)
    };
    let token = |sizes: &[(u8, u64)], amount| check(&limits(), &of(sizes), true, amount);
    assert_eq!(token(&[(2, 400)], 100), Ok(()), "met exactly");
    assert_eq!(token(&[(2, 400)], 101), Err(Reason::ExposureOfClient));
    assert_eq!(
        token(&[(2, 1), (2, 1)], 1),
        Err(Reason::TooManyOrdersOfClient)
    );
    assert_eq!(token(&[(3, 900)], 100), Ok(()));
    assert_eq!(token(&[(3, 900)], 101), Err(Reason::Exposure));
    let six: Vec<(u8, u64)> = (3..9).map(|client| (client, 1)).collect();
    assert_eq!(token(&six, 1), Err(Reason::TooManyOrders));
    assert_eq!(token(&six[1..], 1), Ok(()));
    let mut owing = Books::default();
    owing.total.orders = 1;
    assert_eq!(check(&limits(), &owing, true, 1), Ok(()));
    assert_eq!(
        check(
            &Limits {
                max_unclaimed_per_client: 0,
                ..limits()
            },
            &owing,
            true,
            1
        ),
        Err(Reason::ClientUnreliable),
        "S-55"
    );
    for reason in [
        Reason::ExposureOfClient,
        Reason::TooManyOrdersOfClient,
        Reason::Exposure,
        Reason::TooManyOrders,
        Reason::ClientUnreliable,
        Reason::StrangersShare,
        Reason::CoinsPromised,
    ] {
        assert_eq!(reason.wire_code(), Some(1));
    }
    assert_eq!(
        Limits::default().check(
            &Lending::default(),
            &Books::default(),
            &node(2),
            true,
            Msat(10_000_000_000)
        ),
        Ok(())
    );
}

#[test]
fn unconfirmed_values_have_limits_of_their_own() {
    let mut books = Books::default();
    books.total.unconfirmed_sat = 9;
    let limits = Limits {
        max_unconfirmed_msat: Msat(10_000),
        ..limits()
    };
    assert_eq!(check(&limits, &books, true, 500), Ok(()));
    books.total.unconfirmed_sat = 10;
    assert_eq!(check(&limits, &books, true, 1), Err(Reason::Exposure));
    let limits = Limits {
        max_unconfirmed_per_client_msat: Msat(1),
        ..limits
    };
    assert_eq!(
        check(&limits, &Books::default(), true, 2),
        Err(Reason::ExposureOfClient)
    );
}

#[test]
fn strangers_may_have_one_of_few_things_unless_they_may_have_nothing() {
    let count = |strangers_ppm, limit| {
        let lending = Lending {
            strangers_ppm,
            ..Lending::default()
        };
        lending.strangers_count(limit)
    };
    assert_eq!(
        [0, 1, 2, 3, 1_000].map(|n| count(500_000, n)),
        [0, 1, 1, 1, 500]
    );
    assert_eq!([1, 1_000].map(|n| count(0, n)), [0, 0]);
    assert_eq!(count(2_000_000, u32::MAX), u32::MAX);
}

#[test]
fn strangers_share_every_limit() {
    let of = |clients: std::ops::Range<u8>, size| {
        let sold: Vec<_> = clients.map(|c| order(c, size, None, 0)).collect();
        books(&sold)
    };
    // Half of six orders.
    assert_eq!(check(&limits(), &of(3..5, 1), false, 1), Ok(()));
    assert_eq!(
        check(&limits(), &of(3..6, 1), false, 1),
        Err(Reason::StrangersShare)
    );
    assert_eq!(check(&limits(), &of(3..6, 1), true, 1), Ok(()));
    // Half of 1,000 msat.
    assert_eq!(check(&limits(), &of(3..4, 400), false, 100), Ok(()));
    assert_eq!(
        check(&limits(), &of(3..4, 400), false, 101),
        Err(Reason::StrangersShare)
    );
    assert_eq!(check(&limits(), &of(3..4, 400), true, 101), Ok(()));
}

#[test]
fn a_reservation_ends_with_the_order_or_its_lock() {
    let mut sold = order(2, 20_000, None, 5_000);
    assert_eq!(sold.burden().reserved_sat, 5_000);
    assert_eq!(sold.burden().exposure_msat, 20_000);
    sold.ahead = Some(ldkjit_core::order::Ahead {
        open: ldkjit_core::ids::OpenId(1),
        value_sat: 1,
    });
    assert_eq!(sold.burden().reserved_sat, 0, "locked");
    sold.ahead = None;
    sold.state = ldkjit_core::order::State::Expired;
    assert_eq!(sold.burden().reserved_sat, 0, "expired");
    sold.state = ldkjit_core::order::State::Paid;
    sold.paid = true;
    assert_eq!(sold.burden(), Default::default());
}

#[test]
fn overcommitment_is_the_operators_choice() {
    let books = books(&[order(3, 1, Some("vip"), 600)]);
    let promise = |ppm, needed| {
        let lending = Lending {
            overcommit_ppm: ppm,
            ..Lending::default()
        };
        stock(1_000).promise(&lending, &books, true, needed)
    };
    assert_eq!(promise(1_000_000, 400), Ok(()));
    assert_eq!(promise(1_000_000, 401), Err(Reason::CoinsPromised));
    assert_eq!(promise(1_500_000, 900), Ok(()));
    assert_eq!(promise(1_500_000, 901), Err(Reason::CoinsPromised));
    assert_eq!(promise(500_000, 1), Err(Reason::CoinsPromised));
}

#[test]
fn a_channel_takes_more_coins_than_its_value() {
    let stock = Stock {
        overhead_sat: 777,
        chain_fee_sat: 0,
        ..stock(0)
    };
    let plain = common::stock(0).needed_sat(&offer(None), Some(Msat(20_000)));
    let with = stock.needed_sat(&offer(None), Some(Msat(20_000)));
    assert_eq!(with.unwrap(), plain.unwrap() + 777);
}

/// Five hundred new node ids buy as long as anything is sold to them; a client with a token is still served.
#[test]
fn five_hundred_strangers_leave_room_for_a_token() {
    let (lending, stock) = (Lending::default(), stock(10_000_000));
    let limits = Limits::default();
    let mut books = Books::default();
    let mut refused = 0;
    for id in 0..500_u32 {
        let mut client = node(9);
        client.0[1..5].copy_from_slice(&id.to_be_bytes());
        for _ in 0..20 {
            let size = Msat(50_000_000);
            let needed = stock.needed_sat(&offer(None), Some(size)).unwrap();
            let sold = limits
                .check(&lending, &books, &client, false, size)
                .and_then(|()| stock.promise(&lending, &books, false, needed));
            match sold {
                Ok(()) => {
                    let mut order = order(9, size.0, None, needed);
                    order.terms.client = client;
                    books.add(&order);
                }
                Err(reason) => {
                    assert!(matches!(
                        reason,
                        Reason::StrangersShare | Reason::TooManyOrdersOfClient
                    ));
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 9_000);
    assert!(books.strangers.reserved_sat <= 5_000_000);
    let size = Msat(4_900_000_000);
    let needed = stock.needed_sat(&offer(Some("vip")), Some(size)).unwrap();
    assert_eq!(limits.check(&lending, &books, &node(2), true, size), Ok(()));
    assert_eq!(stock.promise(&lending, &books, true, needed), Ok(()));
}

proptest! {
    /// Promises never come to more than the operator allows, and the strangers' never to more than their share.
    #[test]
    fn promises_stay_within_the_coins(
        coins in 0u64..1_000_000,
        overcommit_ppm in 0u32..3_000_000,
        strangers_ppm in 0u32..2_000_000,
        asks in prop::collection::vec((any::<bool>(), 0u64..200_000), 0..60),
    ) {
        let lending = Lending { overcommit_ppm, strangers_ppm, ..Lending::default() };
        let stock = stock(coins);
        let mut sold = Vec::new();
        for (has_token, needed) in asks {
            if stock.promise(&lending, &books(&sold), has_token, needed).is_ok() {
                sold.push(order(3, 1, has_token.then_some("vip"), needed));
            }
        }
        let all = u128::from(coins) * u128::from(overcommit_ppm) / 1_000_000;
        let sum = books(&sold);
        prop_assert!(sum.total.reserved_sat <= all);
        let share = all * u128::from(strangers_ppm.min(1_000_000)) / 1_000_000;
        prop_assert!(sum.strangers.reserved_sat <= share);
    }

    /// What is counted in and out again leaves nothing.
    #[test]
    fn books_are_a_sum(sold in prop::collection::vec((3u8..6, 1u64..1_000, any::<bool>(), 0u64..1_000), 0..20)) {
        let orders: Vec<_> = sold
            .iter()
            .map(|(client, size, token, reserved)| order(*client, *size, token.then_some("vip"), *reserved))
            .collect();
        let mut books = books(&orders);
        let exposure: u128 = sold.iter().map(|o| u128::from(o.1)).sum();
        prop_assert_eq!(books.total.exposure_msat, exposure);
        let of_three: u128 = sold.iter().filter(|o| o.0 == 3).map(|o| u128::from(o.3)).sum();
        prop_assert_eq!(books.of(&node(3)).reserved_sat, of_three);
        for order in &orders {
            books.remove(order);
        }
        prop_assert_eq!(books, Books::default());
    }
}

const PATIENCE: Patience = Patience {
    unpaid_before_distrust: 2,
    unpaid_before_refusal: 4,
    forgive_ms: 1_000,
    strangers_before_distrust: 3,
    strangers_forgive_ms: 100,
};

#[test]
fn scores_are_forgiven_one_by_one() {
    let score = Score {
        unpaid: 3,
        since: Millis(10_000),
    };
    let at = |ms| score.at(Millis(ms), 1_000);
    assert_eq!(at(10_999), score);
    assert_eq!(
        at(11_000),
        Score {
            unpaid: 2,
            since: Millis(11_000)
        }
    );
    assert_eq!(at(12_999).unpaid, 1);
    assert_eq!(at(12_999).since, Millis(12_000));
    assert_eq!(
        at(13_000),
        Score {
            unpaid: 0,
            since: Millis(13_000)
        }
    );
    assert_eq!(at(9_000), score, "a clock that went back forgives nothing");
    assert_eq!(
        score.at(Millis(u64::MAX), 0).unpaid,
        3,
        "nothing is forgiven"
    );
    let more = score.with_one_more(Millis(11_500), 1_000);
    assert_eq!(
        more,
        Score {
            unpaid: 3,
            since: Millis(11_000)
        }
    );
    let first = Score::default().with_one_more(Millis(5_000), 1_000);
    assert_eq!(
        first,
        Score {
            unpaid: 1,
            since: Millis(5_000)
        }
    );
}

#[test]
fn test_S_55_trust_ends_in_steps() {
    let standing = |unpaid, token| Standing {
        client: Score { unpaid, since: NOW },
        has_token: token,
        ..Standing::default()
    };
    let trust = |unpaid, token| PATIENCE.trust(LspTrustsClient, &standing(unpaid, token), NOW);
    for token in [false, true] {
        assert_eq!(trust(1, token), Ok(LspTrustsClient));
        assert_eq!(trust(2, token), Ok(ClientTrustsLsp));
        assert_eq!(trust(3, token), Ok(ClientTrustsLsp));
        assert_eq!(trust(4, token), Err(Reason::ClientUnreliable));
    }
    let later = NOW.saturating_add(2_999);
    let after = |unpaid, at| PATIENCE.trust(LspTrustsClient, &standing(unpaid, true), at);
    assert_eq!(after(4, later), Ok(ClientTrustsLsp));
    assert_eq!(after(4, NOW.saturating_add(3_000)), Ok(LspTrustsClient));
    assert_eq!(
        PATIENCE.trust(ClientTrustsLsp, &Standing::default(), NOW),
        Ok(ClientTrustsLsp)
    );
}

#[test]
fn strangers_share_one_budget() {
    let trust = |scored, owed, has_token| {
        let standing = Standing {
            strangers: Score {
                unpaid: scored,
                since: NOW,
            },
            strangers_owed: owed,
            has_token,
            ..Standing::default()
        };
        PATIENCE.trust(LspTrustsClient, &standing, NOW).unwrap()
    };
    assert_eq!(trust(2, 0, false), LspTrustsClient);
    assert_eq!(trust(1, 1, false), LspTrustsClient);
    assert_eq!(trust(3, 0, false), ClientTrustsLsp);
    assert_eq!(trust(1, 2, false), ClientTrustsLsp);
    assert_eq!(trust(9, 9, true), LspTrustsClient, "a token stands apart");
}

const POOL: Pool = Pool {
    coins: 10,
    coin_sat: 100_000,
    max_sat_per_kw: 1_000,
    max_fee_sat_per_day: 10_000,
};

#[test]
fn the_pool_is_filled_when_half_of_it_is_gone() {
    let split = |coins: &[u64]| POOL.split(coins, 0, 250, Spent::default());
    let one = split(&[5_000_000]).unwrap();
    assert_eq!(
        one,
        Split {
            outputs: 10,
            inputs: 1,
            max_fee_sat: 10_000
        }
    );
    assert_eq!(split(&[100_000; 5]), None, "half of it is there");
    assert_eq!(
        split(&[100_000, 100_000, 100_000, 5_000_000]).unwrap(),
        Split {
            outputs: 7,
            inputs: 1,
            max_fee_sat: 10_000
        }
    );
    assert_eq!(split(&[]), None);
    assert_eq!(split(&[99_999; 50]), None, "too small to be split");
    assert_eq!(
        Pool { coins: 0, ..POOL }.split(&[5_000_000], 0, 250, Spent::default()),
        None,
        "switched off"
    );
}

#[test]
fn the_pool_heeds_fees_and_the_reserve() {
    let coins = [5_000_000];
    let dear = |rate| POOL.split(&coins, 0, rate, Spent::default());
    assert!(dear(1_000).is_some());
    assert_eq!(dear(1_001), None);
    // One input and three outputs, change included: (42 + 272 + 3 × 124) × 1,000 / 1,000 sat.
    let spent = |fee_sat: u64| Spent {
        since_ms: 0,
        fee_sat,
    };
    let left = |sat: u64| POOL.split(&coins, 0, 1_000, spent(10_000 - sat));
    assert_eq!(left(686).unwrap().outputs, 2);
    assert_eq!(left(685), None);
    let kept = |sat: u64| POOL.split(&coins, sat, 250, Spent::default());
    assert_eq!(kept(4_000_000).unwrap().outputs, 9);
    assert_eq!(kept(4_900_000), None);
}

#[test]
fn a_day_of_splits_begins_with_the_first() {
    let day = 86_400_000;
    let spent = Spent::default().plus(5, 7 * day).plus(6, 8 * day - 1);
    assert_eq!(
        spent,
        Spent {
            since_ms: 7 * day,
            fee_sat: 11
        }
    );
    assert_eq!(spent.at(8 * day - 1), spent);
    assert_eq!(
        spent.plus(1, 8 * day),
        Spent {
            since_ms: 8 * day,
            fee_sat: 1
        }
    );
}

proptest! {
    /// A split is worth its fee: it leaves more coins than before, and costs and takes no more than it may.
    #[test]
    fn a_split_makes_more_coins(
        coins in prop::collection::vec(0u64..2_000_000, 0..20),
        keep in 0u64..1_000_000,
        rate in 0u32..1_200,
        fee_sat in 0u64..12_000,
    ) {
        let spent = Spent { since_ms: 0, fee_sat };
        if let Some(split) = POOL.split(&coins, keep, rate, spent) {
            prop_assert!(split.outputs > split.inputs);
            prop_assert!(rate <= 1_000 && split.max_fee_sat <= 10_000);
            let mut sorted = coins.clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let taken: u64 = sorted.iter().take(split.inputs as usize).sum();
            let all: u64 = coins.iter().sum();
            let value = u64::from(split.outputs) * 100_000;
            let weight = 42 + 272 * u64::from(split.inputs) + 124 * (u64::from(split.outputs) + 1);
            let fee = (weight * u64::from(rate)).div_ceil(1_000);
            prop_assert!(value + fee <= taken);
            prop_assert!(value + fee + keep <= all);
            prop_assert!(fee <= 10_000 - fee_sat.min(10_000));
            let ready = coins.iter().filter(|sat| **sat >= 100_000).count();
            prop_assert!(ready < 5);
            prop_assert!(ready + split.outputs as usize - split.inputs as usize <= 10);
        }
    }
}
