//! The ledger check against histories of a small node: whole ones pass, and any row lost, doubled or altered is found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_wrap
)]

mod books_support;
mod common;

use std::collections::{BTreeMap, BTreeSet};

use books_support::{live, op, view, Chan};
use ldkjit_core::amount::Msat;
use ldkjit_core::audit::{Audit, ChannelView, HtlcState, HtlcView, Truth, Verdict};
use ldkjit_core::ids::{ChannelId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::ledger::{ChainPart, LedgerEntry, Purpose};
use ldkjit_core::menu::TrustModel;
use ldkjit_core::reason::Reason;
use ldkjit_core::seal::{seal, unseal, Link};
use proptest::prelude::*;
use proptest::sample::Index;

fn written(rows: &[LedgerEntry]) -> Vec<(u64, Vec<u8>)> {
    books_support::written(rows, 1)
}

fn check(rows: &[(u64, Vec<u8>)], truth: &Truth) -> Verdict {
    let mut audit = Audit::default();
    for (seq, bytes) in rows {
        audit.row(*seq, bytes);
    }
    audit.finish(truth)
}

/// Adds to every amount in an entry that moves money, one at a time.
fn altered(entry: &LedgerEntry, truth: &Truth) -> Vec<LedgerEntry> {
    // Of a closed channel the chain tells only what came back, and a limit for the fee.
    let more = if on_closed(entry, truth) {
        2_000_000
    } else {
        1
    };
    // And before all of it came back, no more than a limit for that.
    let waits = |channel: &Option<ChannelId>| {
        channel.is_some_and(|channel| truth.closing.contains_key(&channel))
    };
    if channels_of(entry).iter().any(waits) {
        return Vec::new();
    }
    let fields = [
        "delta_sat",
        "balance",
        "amount",
        "received",
        "sent",
        "skim",
        "earned",
        "declared",
        "sum",
        "value_sat",
        "fee_sat",
    ];
    let value = serde_json::to_value(entry).unwrap();
    let kind = value["kind"].as_str().unwrap();
    fields
        .iter()
        .filter(|field| {
            let told = value.get(**field).is_some_and(serde_json::Value::is_number);
            // Words of LDK and bounds of fees: nothing is added up from them.
            told && !(more > 1 && **field == "value_sat")
                && !matches!(
                    (kind, **field),
                    (
                        "channel_ended" | "open_requested" | "order_sold" | "channel_spent",
                        _
                    )
                )
        })
        .map(|field| {
            let mut other = value.clone();
            let sign = if *field == "declared" { -1 } else { 1 };
            other[*field] = (other[*field].as_i64().unwrap() + sign * more).into();
            serde_json::from_value(other).unwrap()
        })
        .collect()
}

/// The channels that a row moves something on.
fn channels_of(entry: &LedgerEntry) -> Vec<Option<ChannelId>> {
    match entry {
        LedgerEntry::Forwarded { from, to, .. } => vec![*from, *to],
        LedgerEntry::PathPaid { channel, .. } => vec![*channel],
        LedgerEntry::HtlcClaimed { channel, .. } | LedgerEntry::ChannelFunded { channel, .. } => {
            vec![Some(*channel)]
        }
        _ => vec![],
    }
}

fn on_closed(entry: &LedgerEntry, truth: &Truth) -> bool {
    let open = |id: &ChannelId| truth.channels.iter().any(|view| view.channel == *id);
    channels_of(entry).iter().flatten().any(|id| !open(id))
}

/// Rows of which each counts.
fn moves(entry: &LedgerEntry, truth: &Truth) -> bool {
    match entry {
        LedgerEntry::Refused { .. } | LedgerEntry::ChannelSpent { .. } => false,
        LedgerEntry::ChannelFunded { .. } => true,
        other => !on_closed(other, truth),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_whole_history_adds_up(ops in prop::collection::vec(op(), 0..40)) {
        let model = live(&ops);
        let verdict = check(&written(&model.rows), &model.truth());
        prop_assert!(verdict.ok, "{:?} {:#?}", verdict.bad, model.rows);
        prop_assert_eq!(verdict.rows, model.rows.len() as u64);
        prop_assert_eq!(verdict.bounded, 0);
        let held: u64 = model.open.iter().map(|c| c.ours).sum();
        prop_assert_eq!(verdict.channels_msat, held as i64);
    }

    /// A file that was damaged: the row is named, or the first one after a gap.
    #[test]
    fn damage_is_found_where_it_is(
        ops in prop::collection::vec(op(), 1..30),
        at in any::<Index>(),
        byte in any::<Index>(),
    ) {
        let model = live(&ops);
        let (rows, truth) = (written(&model.rows), model.truth());
        let at = at.index(rows.len());
        let seq = rows[at].0;

        let mut dropped = rows.clone();
        dropped.remove(at);
        let verdict = check(&dropped, &truth);
        if at + 1 < rows.len() {
            prop_assert_eq!(verdict.bad.unwrap().seq, Some(seq + 1));
            // And if what follows is numbered anew.
            for row in dropped.iter_mut().skip(at) {
                row.0 -= 1;
            }
            prop_assert_eq!(check(&dropped, &truth).bad.unwrap().seq, Some(seq));
        }

        let mut doubled = rows.clone();
        doubled.insert(at, rows[at].clone());
        prop_assert_eq!(check(&doubled, &truth).bad.unwrap().seq, Some(seq));
        for row in doubled.iter_mut().skip(at + 1) {
            row.0 += 1;
        }
        prop_assert_eq!(check(&doubled, &truth).bad.unwrap().seq, Some(seq + 1));

        let mut changed = rows.clone();
        let byte = byte.index(changed[at].1.len());
        changed[at].1[byte] ^= 1;
        prop_assert_eq!(check(&changed, &truth).bad.unwrap().seq, Some(seq));
    }

    /// A node that writes the wrong thing: it is found, wherever it is.
    #[test]
    fn what_was_never_right_is_found(
        ops in prop::collection::vec(op(), 1..30),
        at in any::<Index>(),
        which in any::<Index>(),
    ) {
        let model = live(&ops);
        let truth = model.truth();
        let at = at.index(model.rows.len());
        let row = &model.rows[at];
        if moves(row, &truth) {
            let mut dropped = model.rows.clone();
            dropped.remove(at);
            prop_assert!(!check(&written(&dropped), &truth).ok, "without {row:?}");
            // A set may come to be complete again.
            if !matches!(row, LedgerEntry::SetComplete { .. }) {
                let mut doubled = model.rows.clone();
                doubled.insert(at, row.clone());
                prop_assert!(!check(&written(&doubled), &truth).ok, "twice {row:?}");
            }
        }
        let others = altered(row, &truth);
        if !others.is_empty() {
            let mut changed = model.rows.clone();
            changed[at] = others[which.index(others.len())].clone();
            let verdict = check(&written(&changed), &truth);
            prop_assert!(!verdict.ok, "{:?} for {row:?}", changed[at]);
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written(seq in any::<u64>(), at in any::<u64>(), words in ".*") {
        let entry = LedgerEntry::ChannelEnded {
            channel: ChannelId([7; 32]),
            balance: None,
            reason: words,
        };
        let (bytes, link) = seal(Link::default(), seq, at, &entry);
        let (row, read, follows) = unseal(Link::default(), seq, &bytes).unwrap();
        prop_assert_eq!((row.entry, row.at_ms, read, follows), (entry, at, link, true));
        prop_assert_eq!(ldkjit_core::seal::link_of(&bytes), Some(link));
        prop_assert!(!unseal(link, seq, &bytes).unwrap().2);
        prop_assert!(!unseal(Link::default(), seq ^ 1, &bytes).unwrap().2);
    }
}

/// One channel of 100,000 sat of which 40,000 sat are ours, with these HTLCs.
fn with_htlcs(htlcs: &[(bool, u64, u8, HtlcState)]) -> ChannelView {
    let sum = |inbound| {
        htlcs
            .iter()
            .filter(|h| h.0 == inbound)
            .map(|h| h.1)
            .sum::<u64>()
    };
    ChannelView {
        channel: ChannelId([1; 32]),
        value_msat: 100_000_000,
        outbound_msat: 40_000_000 - 1_660_000 - sum(false),
        inbound_msat: 60_000_000 - 1_000_000 - sum(true),
        kept_msat: 1_660_000,
        their_kept_msat: 1_000_000,
        htlcs: htlcs
            .iter()
            .map(|(inbound, amount_msat, hash, state)| HtlcView {
                inbound: *inbound,
                amount_msat: *amount_msat,
                hash: PaymentHash([*hash; 32]),
                state: *state,
            })
            .collect(),
    }
}

fn rows_must_say(
    htlcs: &[(bool, u64, u8, HtlcState)],
    own: &[u8],
    contested: &[u8],
) -> (i128, i128) {
    let own: BTreeSet<_> = own.iter().map(|h| PaymentHash([*h; 32])).collect();
    let contested: Vec<_> = contested.iter().map(|h| PaymentHash([*h; 32])).collect();
    let view = with_htlcs(htlcs);
    let bounds = ldkjit_core::audit::bounds(
        std::slice::from_ref(&view),
        &own,
        &contested,
        !contested.is_empty(),
    );
    let found = bounds[&view.channel];
    (found.low - 40_000_000, found.high - 40_000_000)
}

#[test]
fn htlcs_in_flight_count_from_the_moment_their_row_is_written() {
    use HtlcState::{Failed, Fulfilled, Open};
    assert_eq!(rows_must_say(&[], &[], &[]), (0, 0));
    // To us: written when claimed.
    assert_eq!(rows_must_say(&[(true, 7, 1, Open)], &[], &[]), (0, 0));
    assert_eq!(rows_must_say(&[(true, 7, 1, Fulfilled)], &[], &[]), (7, 7));
    assert_eq!(rows_must_say(&[(true, 7, 1, Failed)], &[], &[]), (0, 0));
    // Our own payment: written when it is gone.
    assert_eq!(rows_must_say(&[(false, 7, 1, Open)], &[1], &[]), (0, 0));
    assert_eq!(
        rows_must_say(&[(false, 7, 1, Fulfilled)], &[1], &[]),
        (0, 0)
    );
    // A forward: open while its incoming side is.
    let both = |state| [(true, 9, 1, state), (false, 7, 1, Open)];
    assert_eq!(rows_must_say(&both(Open), &[], &[]), (0, 0));
    assert_eq!(rows_must_say(&both(Fulfilled), &[], &[]), (2, 2));
    assert_eq!(
        rows_must_say(&[(false, 7, 1, Fulfilled)], &[], &[]),
        (-7, -7)
    );
    assert_eq!(rows_must_say(&[(false, 7, 1, Failed)], &[], &[]), (0, 0));
    // Its incoming side is on the chain, or may be, unseen.
    assert_eq!(rows_must_say(&[(false, 7, 1, Open)], &[], &[1]), (0, 0));
    assert_eq!(rows_must_say(&[(false, 7, 1, Open)], &[], &[2]), (-7, 0));
    // Two came, one left: which of them is open cannot be told.
    let three = [(true, 9, 1, Open), (true, 9, 1, Open), (false, 7, 1, Open)];
    assert_eq!(rows_must_say(&three, &[], &[]), (-7, 0));
}

#[test]
fn a_channel_below_its_reserve_is_known_from_the_other_side() {
    let low = Chan {
        id: ChannelId([1; 32]),
        value_sat: 50_000,
        ours: 1_234,
        by_us: true,
    };
    let bounds = view(&low).settled();
    assert_eq!((bounds.low, bounds.high), (1_234, 1_234));
    let neither = ChannelView {
        outbound_msat: 0,
        inbound_msat: 0,
        value_msat: 2_000_000,
        ..view(&low)
    };
    let bounds = neither.settled();
    assert!(bounds.low <= bounds.high && bounds.high <= 2_000_000);
}

fn found(rows: &[LedgerEntry]) -> Option<u64> {
    check(&written(rows), &Truth::default())
        .bad
        .and_then(|bad| bad.seq)
}

#[test]
fn contradictions_inside_are_named() {
    let channel = ChannelId([1; 32]);
    let (scid, client, payment_hash) = (Scid(5), common::node(2), PaymentHash([3; 32]));
    let fee = |amount| LedgerEntry::FeeEarned {
        scid,
        client,
        channel,
        payment_hash,
        amount: Msat(amount),
        reuse: false,
    };
    let sold = LedgerEntry::OrderSold {
        scid,
        client,
        size: None,
        fee: None,
        trust: TrustModel::LspTrustsClient,
        reserved_sat: 0,
        tier: None,
    };
    let part = LedgerEntry::PartAccepted {
        scid,
        part: PartId([1; 32]),
        payment_hash,
        declared: Msat(50),
    };
    let complete = LedgerEntry::SetComplete {
        scid,
        payment_hash,
        parts: 2,
        sum: Msat(100),
        fee: Msat(1),
    };
    let paid = LedgerEntry::OrderPaid {
        scid,
        client,
        channel,
        fee: Msat(1),
        min_lifetime: 1,
    };
    let ended = LedgerEntry::OrderEnded {
        scid,
        client,
        earned: Msat(1),
        reason: Reason::Expired,
    };
    let closed = LedgerEntry::ChannelClosed {
        scid,
        client,
        channel,
        reason: Reason::ChannelClosed,
    };
    // A fee nobody kept, an order of nobody, parts that did not come, a price not earned, a channel never opened.
    let all: [&[LedgerEntry]; 8] = [
        &[sold.clone(), part.clone(), fee(1)],
        &[fee(1)],
        &[sold.clone(), part.clone(), complete],
        &[sold.clone(), part.clone(), paid],
        &[sold.clone(), ended],
        &[sold.clone(), closed],
        &[LedgerEntry::ChannelEnded {
            channel,
            balance: None,
            reason: String::new(),
        }],
        &[LedgerEntry::HtlcClaimed {
            payment_hash,
            channel,
            amount: Msat(1),
            skimmed: Msat(0),
        }],
    ];
    for rows in all {
        assert_eq!(found(rows), Some(rows.len() as u64), "{rows:?}");
    }
    assert_eq!(found(&[sold, part]), None);
}

/// A channel that closed with 40,000 sat of ours by the rows and brought back `sat`, with a row saying that the node came
/// back from a backup, or not, before its close.
fn closed_after(recovered: bool, sat: u64) -> Verdict {
    let channel = ChannelId([1; 32]);
    let funding = Outpoint {
        txid: "ff".repeat(32),
        vout: 0,
    };
    let mut rows = vec![LedgerEntry::ChannelFunded {
        channel,
        peer: common::node(2),
        open: OpenId(1),
        funding,
        value_sat: 100_000,
        balance: Some(Msat(40_000_000)),
        by_us: false,
    }];
    if recovered {
        rows.push(LedgerEntry::Recovered { since_ms: 1 });
    }
    rows.push(LedgerEntry::ChannelEnded {
        channel,
        balance: Some(Msat(40_000_000)),
        reason: String::new(),
    });
    rows.push(LedgerEntry::ChannelSpent {
        channel,
        txid: "c".into(),
        fee_sat: 500,
    });
    rows.push(LedgerEntry::Chain {
        txid: "s".into(),
        delta_sat: i64::try_from(sat).unwrap(),
        paid_sat: 0,
        fee_sat: Some(0),
        purpose: Purpose::Claim,
        open: None,
        parts: vec![ChainPart { channel, sat }],
    });
    let delta = i64::try_from(sat).unwrap();
    let truth = Truth {
        transactions: BTreeMap::from([("s".into(), delta)]),
        wallet_sat: sat,
        ..Truth::default()
    };
    check(&written(&rows), &truth)
}

#[test]
fn a_channel_that_went_on_without_its_node_is_not_held_against_its_rows() {
    let whole = closed_after(false, 40_000);
    assert!(whole.ok, "{whole:?}");
    for sat in [10_000, 70_000] {
        assert!(!closed_after(false, sat).ok, "{sat}");
        assert!(closed_after(true, sat).ok, "{sat}");
    }
    // More than there was is wrong even so.
    assert!(!closed_after(true, 100_001).ok);
}
