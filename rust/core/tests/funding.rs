//! When a wallet gives up its preimage, waits, or fails the payment back.
#![allow(missing_docs, non_snake_case)]

use ldkjit_core::funding::{judge, Seen, Verdict, Wait};
use ldkjit_core::reason::Reason;
use proptest::prelude::*;

const WAIT: Wait = Wait {
    confirmations: 0,
    elapsed_ms: 0,
    timeout_ms: 30_000,
    height: 100,
    deadline: Some(200),
};
const LATE: Verdict = Verdict::Refuse(Reason::FundingUnverified);

fn there(confirmations: u32) -> Seen {
    Seen::Output {
        script_fits: true,
        value_fits: true,
        confirmations,
    }
}

#[test]
fn test_J_04_every_output_must_be_there_with_its_script_and_value() {
    assert_eq!(judge(&[there(0)], &WAIT), Verdict::Claim);
    assert_eq!(judge(&[there(0), there(9)], &WAIT), Verdict::Claim);
    assert_eq!(judge(&[there(0), Seen::NotYet], &WAIT), Verdict::Wait);
    assert_eq!(judge(&[], &WAIT), Verdict::Wait);
    let wrong = |script_fits, value_fits| Seen::Output {
        script_fits,
        value_fits,
        confirmations: 9,
    };
    let refuse = |seen| judge(&[there(9), seen], &WAIT);
    let script = Verdict::Refuse(Reason::FundingWrongScript);
    assert_eq!(refuse(wrong(false, true)), script);
    assert_eq!(refuse(wrong(false, false)), script);
    let value = Verdict::Refuse(Reason::FundingWrongValue);
    assert_eq!(refuse(wrong(true, false)), value);
    assert_eq!(refuse(Seen::Unknown), LATE);
    let closed = Verdict::Refuse(Reason::ChannelClosed);
    assert_eq!(refuse(Seen::Closed), closed);
}

#[test]
fn test_J_04_the_wait_ends_at_its_exact_moment() {
    let missing = |elapsed_ms, height| {
        let wait = Wait {
            elapsed_ms,
            height,
            ..WAIT
        };
        judge(&[Seen::NotYet], &wait)
    };
    assert_eq!(missing(29_999, 197), Verdict::Wait);
    assert_eq!(missing(30_000, 100), LATE);
    assert_eq!(missing(0, 198), LATE, "two blocks before LDK fails it");
    // What is there is claimed, however late.
    let late = Wait {
        elapsed_ms: 60_000,
        height: 300,
        ..WAIT
    };
    assert_eq!(judge(&[there(0)], &late), Verdict::Claim);
    let open_ended = Wait {
        deadline: None,
        height: 300,
        ..WAIT
    };
    assert_eq!(judge(&[Seen::NotYet], &open_ended), Verdict::Wait);
}

#[test]
fn test_J_04_confirmations_are_waited_for_until_the_deadline() {
    let wait = Wait {
        confirmations: 3,
        elapsed_ms: u64::MAX,
        ..WAIT
    };
    assert_eq!(judge(&[there(3)], &wait), Verdict::Claim);
    assert_eq!(judge(&[there(2)], &wait), Verdict::Wait);
    assert_eq!(judge(&[Seen::NotYet], &wait), Verdict::Wait);
    let late = Wait {
        height: 198,
        ..wait
    };
    assert_eq!(judge(&[there(2)], &late), LATE);
}

proptest! {
    /// Nothing is claimed that is not wholly there.
    #[test]
    fn a_claim_needs_every_output(
        outputs in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..5, any::<bool>()), 0..5),
        confirmations in 0u32..4, elapsed_ms in 0u64..60_000, height in 90u32..210,
    ) {
        let seen: Vec<Seen> = outputs
            .iter()
            .map(|(script_fits, value_fits, confirmations, there)| match there {
                true => Seen::Output {
                    script_fits: *script_fits,
                    value_fits: *value_fits,
                    confirmations: *confirmations,
                },
                false => Seen::NotYet,
            })
            .collect();
        let wait = Wait { confirmations, elapsed_ms, height, ..WAIT };
        let good = !outputs.is_empty()
            && outputs.iter().all(|(s, v, c, t)| *s && *v && *t && *c >= confirmations);
        prop_assert_eq!(judge(&seen, &wait) == Verdict::Claim, good);
    }
}
