//! Ids, amounts and instants: text, JSON and bounds.
#![allow(non_snake_case, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use ldkjit_core::amount::{wire_msat, Msat};
use ldkjit_core::clock::{against_blocks, against_itself, is_without_blocks, Skew};
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::time::{format_datetime, parse_datetime, wire_datetime, Millis};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wire {
    #[serde(with = "wire_msat")]
    amount: Msat,
    #[serde(with = "wire_datetime")]
    at: Millis,
}

#[test]
fn test_T_20_node_id_reads_both_cases_and_writes_lower() {
    let id: NodeId = KEY.to_uppercase().parse().unwrap();
    assert_eq!(id.to_string(), KEY);
    assert_eq!(id, KEY.parse().unwrap());
    assert_eq!(format!("{id:?}"), format!("NodeId({KEY})"));
    assert!(id.is_on_curve());
    assert!(!NodeId([2; 33].map(|b: u8| b.wrapping_sub(2))).is_on_curve());
    for bad in [
        "",
        "02",
        &KEY[1..],
        &format!("{KEY}00"),
        &KEY.replace('9', "g"),
    ] {
        let err = bad.parse::<NodeId>().unwrap_err();
        assert_eq!(err.to_string(), "not a valid node id");
    }
    assert!("ab".repeat(31).parse::<PaymentHash>().is_err());
}

#[test]
fn ids_are_json_strings_and_keys() {
    let part = PartId([0xab; 32]);
    let map = BTreeMap::from([(part, ChannelId([1; 32]))]);
    let text = serde_json::to_string(&map).unwrap();
    assert_eq!(
        text,
        format!("{{\"{}\":\"{}\"}}", "ab".repeat(32), "01".repeat(32))
    );
    assert_eq!(
        serde_json::from_str::<BTreeMap<PartId, ChannelId>>(&text).unwrap(),
        map
    );
    assert!(serde_json::from_str::<PartId>("\"xy\"").is_err());
    assert!(serde_json::from_str::<Scid>("5").is_err());
}

#[test]
fn test_T_14_scid_is_BxTxO() {
    let scid: Scid = "29451x4815x1".parse().unwrap();
    assert_eq!(scid, Scid(29_451 << 40 | 4_815 << 16 | 1));
    assert_eq!(scid.block(), 29_451);
    assert_eq!(scid.to_string(), "29451x4815x1");
    assert_eq!(format!("{scid:?}"), "Scid(29451x4815x1)");
    assert_eq!("16777215x16777215x65535".parse(), Ok(Scid(u64::MAX)));
    for bad in [
        "",
        "1",
        "1x2",
        "1x2x",
        "x2x3",
        "1x2x3x",
        "1x2x3x4",
        "+1x2x3",
        "1x-2x3",
        "1 x2x3",
        "1X2X3",
        "16777216x0x0",
        "0x16777216x0",
        "0x0x65536",
        "000000001x0x0",
        "99999999999999999999x0x0",
    ] {
        assert!(bad.parse::<Scid>().is_err(), "{bad}");
    }
}

#[test]
fn test_T_23_B_16_outpoint_is_txid_colon_index() {
    let txid = "4A5E1E4BAAB89F3A32518A88C31BC87F618F76673E2CC77AB2127B7AFDEDA33B";
    let outpoint: Outpoint = format!("{txid}:7").parse().unwrap();
    assert_eq!(outpoint.to_string(), format!("{}:7", txid.to_lowercase()));
    let json = serde_json::to_string(&outpoint).unwrap();
    assert_eq!(serde_json::from_str::<Outpoint>(&json).unwrap(), outpoint);
    for bad in [
        "",
        "7",
        ":7",
        txid,
        &format!("{txid}:"),
        &format!("{txid}:+7"),
        &format!("{txid}:4294967296"),
        &format!("{txid}:7:8"),
        &format!("00{txid}:7"),
    ] {
        assert!(bad.parse::<Outpoint>().is_err(), "{bad}");
    }
}

#[test]
fn open_id_is_scid_sale_and_attempt() {
    let id = OpenId::new(Scid(u64::MAX - 5), Millis(0x123_4567_89ab_cdef), 3);
    assert_eq!((id.scid(), id.attempt()), (Scid(u64::MAX - 5), 3));
    assert_eq!(id.to_string(), "fffffffffffffffa6789abcdef000003");
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(OpenId(u128::MAX).attempt(), (1 << 24) - 1);
    // The same scid sold again.
    let again = OpenId::new(Scid(u64::MAX - 5), Millis(0x123_4567_89ab_cdf0), 3);
    assert_ne!(again, id);
    assert!(format!("{id:?}").contains("attempt 3"));
    assert!("fffffffffffffffa000000000000000".parse::<OpenId>().is_err());
}

#[test]
fn amounts_are_checked_at_every_step() {
    assert_eq!(
        Msat::from_sat(18_446_744_073_709_551),
        Some(Msat(18_446_744_073_709_551_000))
    );
    assert_eq!(Msat::from_sat(18_446_744_073_709_552), None);
    assert_eq!(
        (
            Msat(2_999).sat_floor(),
            Msat(1_999).sat_ceil(),
            Msat(2_000).sat_ceil()
        ),
        (2, 2, 2)
    );
    assert_eq!(Msat(u64::MAX).checked_add(Msat(1)), None);
    assert_eq!(
        Msat(u64::MAX - 1).checked_add(Msat(1)),
        Some(Msat(u64::MAX))
    );
    assert_eq!(Msat(1).checked_sub(Msat(2)), None);
    assert_eq!(Msat(3).checked_sub(Msat(2)), Some(Msat(1)));
    assert_eq!(Msat(1 << 63).checked_mul(2), None);
    assert_eq!(Msat(3).checked_mul(2), Some(Msat(6)));
    assert_eq!(Msat(1).saturating_sub(Msat(2)), Msat::ZERO);
    assert_eq!(Msat(5).saturating_sub(Msat(2)), Msat(3));
    assert_eq!(
        Msat::checked_sum([Msat(1), Msat(2), Msat(3)]),
        Some(Msat(6))
    );
    assert_eq!(Msat::checked_sum([Msat(u64::MAX), Msat(1)]), None);
    assert_eq!(Msat(5).to_string(), "5 msat");
}

#[test]
fn test_T_14_msat_is_an_integer_in_the_store_and_a_string_on_the_wire() {
    assert_eq!(serde_json::to_string(&Msat(5)).unwrap(), "5");
    for bad in ["5.0", "\"5\"", "-1", "18446744073709551616", "true", "null"] {
        assert!(serde_json::from_str::<Msat>(bad).is_err(), "{bad}");
    }
    assert_eq!(wire_msat::parse("0"), Some(Msat(0)));
    assert_eq!(
        wire_msat::parse("18446744073709551615"),
        Some(Msat(u64::MAX))
    );
    for bad in [
        "",
        "00",
        "01",
        "+1",
        "-1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "0x1",
        "١",
        "18446744073709551616",
    ] {
        assert_eq!(wire_msat::parse(bad), None, "{bad}");
    }
    let wire = Wire {
        amount: Msat(u64::MAX),
        at: Millis(1),
    };
    let text = serde_json::to_string(&wire).unwrap();
    assert_eq!(
        text,
        r#"{"amount":"18446744073709551615","at":"1970-01-01T00:00:00.001Z"}"#
    );
    assert_eq!(serde_json::from_str::<Wire>(&text).unwrap(), wire);
    assert!(serde_json::from_str::<Wire>(&text.replace("\"18446744073709551615\"", "5")).is_err());
    assert!(serde_json::from_str::<Wire>(&text.replace("01-01T", "13-01T")).is_err());
}

#[test]
fn test_B_13_datetimes_with_any_fraction_and_offset_are_read() {
    let whole = Millis(1_684_571_445_000);
    for text in [
        "2023-05-20T08:30:45Z",
        "2023-05-20T08:30:45.0Z",
        "2023-05-20T08:30:45.000Z",
        "2023-05-20T08:30:45.000000000Z",
        "2023-05-20T08:30:45+00:00",
        "2023-05-20T08:30:45.000000000+00:00",
        "2023-05-20T10:00:45+01:30",
        "2023-05-20T07:30:45.0-01:00",
    ] {
        assert_eq!(parse_datetime(text), Some(whole), "{text}");
    }
    assert_eq!(
        parse_datetime("2023-05-20T08:30:45.123456789Z"),
        Some(Millis(1_684_571_445_123))
    );
    assert_eq!(parse_datetime("1970-01-01T00:00:00Z"), Some(Millis(0)));
    let last = Millis(253_402_300_799_999);
    assert_eq!(parse_datetime("9999-12-31T23:59:59.999Z"), Some(last));
    for bad in [
        "",
        "2023-05-20",
        "2023-05-20 08:30:45Z",
        "2023-05-20t08:30:45Z",
        "2023-05-20T08:30:45z",
        "2023-05-20T08:30:45",
        "2023-05-20T08:30:45.Z",
        "2023-05-20T08:30:45.0000000000Z",
        "2023-02-30T08:30:45Z",
        "1969-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59-00:01",
        "2023-05-20T08:30:45.0Z ",
        "12023-05-20T08:30:45Z",
    ] {
        assert_eq!(parse_datetime(bad), None, "{bad}");
    }
}

#[test]
fn test_B_06_datetimes_are_written_with_three_digits() {
    assert_eq!(
        format_datetime(Millis(1_684_571_445_000)),
        "2023-05-20T08:30:45.000Z"
    );
    assert_eq!(
        format_datetime(Millis(1_684_571_445_007)),
        "2023-05-20T08:30:45.007Z"
    );
    assert_eq!(
        format_datetime(Millis(u64::MAX)),
        "9999-12-31T23:59:59.999Z"
    );
}

#[test]
fn instants_add_and_subtract_without_wrapping() {
    assert_eq!(Millis(5).saturating_add(7), Millis(12));
    assert_eq!(Millis(u64::MAX).saturating_add(1), Millis(u64::MAX));
    assert_eq!(Millis(5).since(Millis(3)), 2);
    assert_eq!(Millis(3).since(Millis(5)), 0);
}

proptest! {
    #[test]
    fn test_T_14_scid_round_trip(raw: u64) {
        prop_assert_eq!(Scid(raw).to_string().parse(), Ok(Scid(raw)));
    }

    #[test]
    fn open_id_round_trip(scid: u64, sold_at: u64, attempt in 0u32..1 << 24) {
        let id = OpenId::new(Scid(scid), Millis(sold_at), attempt);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!((id.scid(), id.attempt()), (Scid(scid), attempt));
    }

    #[test]
    fn test_T_14_datetime_round_trip(ms in 0u64..=253_402_300_799_999) {
        prop_assert_eq!(parse_datetime(&format_datetime(Millis(ms))), Some(Millis(ms)));
    }

    #[test]
    fn test_T_14_wire_msat_round_trip(amount: u64) {
        prop_assert_eq!(wire_msat::parse(&amount.to_string()), Some(Msat(amount)));
    }

    #[test]
    fn arbitrary_text_never_panics(text: String) {
        let _ = (parse_datetime(&text), wire_msat::parse(&text));
        let _ = (text.parse::<Scid>(), text.parse::<Outpoint>(), text.parse::<NodeId>(), text.parse::<OpenId>());
    }

    #[test]
    fn nearly_a_datetime_never_panics(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,11})?([zZ]|[+-][0-9]{2}:[0-9]{2})?") {
        if let Some(at) = parse_datetime(&text) {
            prop_assert_eq!(parse_datetime(&format_datetime(at)), Some(at));
        }
    }
}

#[test]
fn blocks_are_missed_after_two_hours_exactly() {
    let last = Millis(1_000);
    assert!(!is_without_blocks(last, Millis(7_200_999)));
    assert!(is_without_blocks(last, Millis(7_201_000)));
    // The clock was set back meanwhile.
    assert!(!is_without_blocks(last, Millis(0)));
}

#[test]
fn a_clock_behind_the_blocks_is_noticed() {
    let now = Millis(1_800_000_000_000);
    let at = |offset: i64| u32::try_from(1_800_000_000_i64 + offset).unwrap();
    assert_eq!(against_blocks(now, &[]), None);
    // One block may be two hours ahead and no more.
    assert_eq!(against_blocks(now, &[at(7_200)]), None);
    assert_eq!(
        against_blocks(now, &[at(7_201)]),
        Some(Skew::Behind(7_201_000))
    );
    // The sixth of eleven may be ten minutes ahead and no more.
    let eleven = |middle| {
        let mut times = vec![at(-9_000); 5];
        times.push(at(middle));
        times.extend([at(7_000); 5]);
        times.reverse();
        times
    };
    assert_eq!(against_blocks(now, &eleven(600)), None);
    assert_eq!(
        against_blocks(now, &eleven(601)),
        Some(Skew::Behind(601_000))
    );
    let ten = eleven(601).split_off(1);
    assert_eq!(against_blocks(now, &ten), None);
    let mut older = eleven(601);
    older.extend([at(-60); 11]);
    assert_eq!(against_blocks(now, &older), None, "the latest count");
    // A clock that is ahead cannot be told from blocks that are late.
    assert_eq!(against_blocks(now, &[at(-900_000)]), None);
}

#[test]
fn a_clock_that_is_set_is_noticed() {
    let look = |now: u64, elapsed| against_itself(Millis(100_000), Millis(now), elapsed);
    assert_eq!(look(101_000, 1_000), None);
    assert_eq!(look(110_999, 1_000), None);
    assert_eq!(look(111_000, 1_000), Some(Skew::Forward(10_000)));
    assert_eq!(look(91_001, 1_000), None);
    assert_eq!(look(91_000, 1_000), Some(Skew::Back(10_000)));
}
