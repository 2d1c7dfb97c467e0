//! The opening fee, its split, the size of the channel that carries the rest, and what is worth claiming.
#![allow(non_snake_case, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use ldkjit_core::amount::Msat;
use ldkjit_core::claims::{are_worth_claiming, rate_to_claim_at};
use ldkjit_core::fee::{opening_fee, split_fee};
use ldkjit_core::reason::Reason;
use ldkjit_core::sizing::Sizing;
use proptest::prelude::*;

fn msats(amounts: &[u64]) -> Vec<Msat> {
    amounts.iter().copied().map(Msat).collect()
}

#[test]
fn an_htlc_is_worth_more_than_its_claim() {
    assert!(!are_worth_claiming(&[], 0));
    // (706 + 396) × 5 sat.
    assert!(!are_worth_claiming(&[5_510], 5_000));
    assert!(are_worth_claiming(&[5_511], 5_000));
    assert!(are_worth_claiming(&[2_514], 253));
    assert!(are_worth_claiming(&[u64::MAX, 1], u32::MAX));
}

#[test]
fn a_claim_is_made_at_the_rate_asked_for_or_at_todays_if_that_is_lower() {
    assert_eq!(rate_to_claim_at(&[5_511], 5_000, 250), Some(5_000));
    assert_eq!(rate_to_claim_at(&[5_510], 5_000, 250), Some(250));
    assert_eq!(rate_to_claim_at(&[5_510], 5_000, 5_000), None);
    // LDK asks for less than it would today.
    assert_eq!(rate_to_claim_at(&[5_510], 5_001, 9_000), None);
    assert_eq!(rate_to_claim_at(&[5_511], 5_000, 9_000), Some(5_000));
}

#[test]
fn test_J_19_fee_is_the_larger_of_minimum_and_share() {
    let fee = |size, min, ppm| opening_fee(Msat(size), Msat(min), ppm).unwrap().0;
    assert_eq!(fee(1_000_000, 500, 1_000), 1_000);
    assert_eq!(fee(1_000_000, 1_001, 1_000), 1_001);
    assert_eq!(fee(1, 0, 1), 1, "a share is rounded up");
    assert_eq!(fee(1_000_000, 0, 1), 1);
    assert_eq!(fee(1_000_001, 0, 1), 2);
    assert_eq!(fee(0, 0, 1_000), 0);
    assert_eq!(fee(5, 7, 0), 7);
}

#[test]
fn test_J_20_overflow_vectors() {
    let fee = |size: u128, ppm| opening_fee(Msat(u64::try_from(size).unwrap()), Msat(0), ppm);
    let top = 1u128 << 64;
    assert_eq!(fee(top - 999_999, 1), None);
    assert_eq!(fee(top - 1_000_000, 1), Some(Msat(18_446_744_073_709)));
    assert_eq!(fee(top - 1_000_000, 2), None);
    assert_eq!(fee(top - 1, 0), Some(Msat(0)));
    assert_eq!(fee(top - 1, u32::MAX), None);
}

#[test]
fn test_J_69_fee_is_split_greedily_in_order() {
    let split = |parts: &[u64], fee, min| split_fee(&msats(parts), Msat(fee), Msat(min));
    assert_eq!(split(&[1_000], 400, 300), Some(msats(&[400])));
    assert_eq!(
        split(&[500, 500, 500], 450, 100),
        Some(msats(&[400, 50, 0]))
    );
    assert_eq!(split(&[500, 500], 0, 100), Some(msats(&[0, 0])));
    assert_eq!(split(&[], 0, 1), Some(vec![]));
    assert_eq!(split(&[], 1, 1), None);
    assert_eq!(
        split(&[500], 400, 100),
        Some(msats(&[400])),
        "equality passes"
    );
    assert_eq!(split(&[500], 401, 100), None);
    assert_eq!(split(&[99, 500], 1, 100), None, "a part below the minimum");
    assert_eq!(split(&[5], 5, 0), None, "an HTLC of nothing cannot be sent");
    assert_eq!(split(&[5], 4, 0), Some(msats(&[4])));
}

#[test]
fn test_B_07_set_that_passes_the_texts_bound_and_still_fails() {
    assert_eq!(
        split_fee(&msats(&[334, 333, 333]), Msat(500), Msat(300)),
        None
    );
}

const SIZING: Sizing = Sizing {
    sat_per_kw: 1_000,
    provision_ppm: 0,
    provision_sat: 0,
    min_sat: 0,
    max_sat: u64::MAX,
};

#[test]
fn test_J_57_value_covers_reserve_commitment_and_anchors() {
    // One part: (1124 + 2 × 172) × 2000 / 1000 = 2936; with 660 for anchors and the 1000 reserve.
    assert_eq!(
        SIZING.channel_value(Msat(50_000_000), 1),
        Ok(50_000 + 2_936 + 660 + 1_000)
    );
    assert_eq!(
        SIZING.channel_value(Msat(50_000_001), 1),
        Ok(50_001 + 2_936 + 660 + 1_000)
    );
    assert_eq!(
        SIZING.channel_value(Msat(50_000_000), 3),
        Ok(50_000 + 3_624 + 660 + 1_000)
    );
    // Above 100,000 sat the reserve is a hundredth of the value: 1,003,596 × 100/99, rounded up.
    assert_eq!(SIZING.channel_value(Msat(1_000_000_000), 1), Ok(1_013_734));
    let odd_rate = Sizing {
        sat_per_kw: 253,
        ..SIZING
    };
    assert_eq!(
        odd_rate.channel_value(Msat(0), 0),
        Ok(656 + 660 + 1_000),
        "655.776 rounded up"
    );
}

#[test]
fn provision_is_added_and_rounded_up() {
    let sizing = Sizing {
        provision_ppm: 100_000,
        provision_sat: 7,
        ..SIZING
    };
    let with = |sat: u64| SIZING.channel_value(Msat(sat * 1_000), 1);
    assert_eq!(sizing.channel_value(Msat(50_000_000), 1), with(55_007));
    assert_eq!(sizing.channel_value(Msat(50_001_000), 1), with(55_009));
    assert_eq!(sizing.channel_value(Msat(1), 1), with(1 + 1 + 7));
}

#[test]
fn limits_of_value_bind_the_provision_before_the_payment() {
    let needed = SIZING.channel_value(Msat(50_000_000), 1).unwrap();
    let sizing = |min_sat, max_sat| Sizing {
        provision_sat: 10_000,
        min_sat,
        max_sat,
        ..SIZING
    };
    let value = |sizing: Sizing| sizing.channel_value(Msat(50_000_000), 1);
    assert_eq!(value(sizing(100_000, 200_000)), Ok(100_000));
    assert_eq!(value(sizing(0, needed + 5)), Ok(needed + 5));
    assert_eq!(value(sizing(0, needed)), Ok(needed));
    assert_eq!(value(sizing(0, needed - 1)), Err(Reason::ChannelTooLarge));
    assert_eq!(
        value(sizing(300_000, 200_000)),
        Ok(200_000),
        "never above the maximum"
    );
    let boundless = Sizing {
        provision_sat: u64::MAX,
        max_sat: 500_000,
        ..SIZING
    };
    assert_eq!(value(boundless), Ok(500_000));
}

#[test]
fn test_J_80_sizing_overflow_is_refused() {
    assert_eq!(
        SIZING.channel_value(Msat(1), usize::MAX),
        Err(Reason::AmountOverflow)
    );
    let dear = Sizing {
        sat_per_kw: u32::MAX,
        ..SIZING
    };
    assert!(dear.channel_value(Msat(u64::MAX), 483).is_ok());
    assert_eq!(
        dear.channel_value(Msat(1), 1 << 40),
        Err(Reason::AmountOverflow)
    );
}

proptest! {
    #[test]
    fn more_value_or_a_lower_rate_is_never_worth_less(
        values in prop::collection::vec(0_u64..10_000_000, 1..20),
        at in any::<prop::sample::Index>(),
        more in 0_u64..1_000_000,
        rate in 253_u32..1_000_000,
        less in 0_u32..253,
    ) {
        if are_worth_claiming(&values, rate) {
            let mut richer = values.clone();
            *richer.get_mut(at.index(values.len())).unwrap() += more;
            prop_assert!(are_worth_claiming(&richer, rate));
            prop_assert!(are_worth_claiming(&values, rate - less));
            prop_assert!(values.iter().sum::<u64>() > u64::from(rate));
        }
    }

    #[test]
    fn test_J_19_fee_agrees_with_wide_arithmetic(size: u64, min: u64, ppm: u32) {
        let product = u128::from(size) * u128::from(ppm) + 999_999;
        let expected = (product <= u128::from(u64::MAX))
            .then(|| Msat(min.max(u64::try_from(product / 1_000_000).unwrap())));
        prop_assert_eq!(opening_fee(Msat(size), Msat(min), ppm), expected);
    }

    #[test]
    fn test_J_70_split_takes_exactly_the_fee_or_nothing(
        parts in prop::collection::vec(0u64..1_000, 0..12), fee in 0u64..4_000, min in 0u64..400,
    ) {
        let keep = min.max(1);
        let bearable = parts.iter().all(|p| *p >= keep)
            && parts.iter().map(|p| p - keep).sum::<u64>() >= fee;
        match split_fee(&msats(&parts), Msat(fee), Msat(min)) {
            None => prop_assert!(!bearable),
            Some(skims) => {
                prop_assert!(bearable);
                prop_assert_eq!(Msat::checked_sum(skims.iter().copied()), Some(Msat(fee)));
                prop_assert_eq!(skims.len(), parts.len());
                for (part, skim) in parts.iter().zip(skims) {
                    prop_assert!(part - skim.0 >= keep);
                }
            }
        }
    }

    #[test]
    fn test_S_47_funder_can_send_all_above_its_reserve(
        sat in 0u64..2_000_000_000, parts in 1usize..50, sat_per_kw in 253u32..100_000, provision_ppm in 0u32..3_000_000,
    ) {
        let sizing = Sizing { sat_per_kw, provision_ppm, ..SIZING };
        let value = sizing.channel_value(Msat(sat * 1_000), parts).unwrap();
        let reserve = (value / 100).max(1_000);
        let fee = (1_124 + 172 * (parts as u64 + 1)) * 2 * u64::from(sat_per_kw) / 1_000;
        prop_assert!(value >= sat + reserve + fee + 660);
    }

    #[test]
    fn sizing_never_panics(forward: u64, parts: usize, sat_per_kw: u32, provision_ppm: u32, provision_sat: u64, min_sat: u64, max_sat: u64) {
        let sizing = Sizing { sat_per_kw, provision_ppm, provision_sat, min_sat, max_sat };
        if let Ok(value) = sizing.channel_value(Msat(forward), parts) {
            prop_assert!(value <= max_sat && value >= forward / 1_000);
        }
    }
}
