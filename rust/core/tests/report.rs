//! What a report adds up to, held against sums made here otherwise, over histories of a small node.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_wrap
)]

mod books_support;
mod common;

use std::collections::{BTreeMap, BTreeSet};

use books_support::{live, op, written, Model, BEGIN_MS};
use ldkjit_core::amount::Msat;
use ldkjit_core::audit::{Audit, By, Line, Question, Report, Sums, Truth, Verdict};
use ldkjit_core::ids::{ChannelId, OpenId, Outpoint, Scid};
use ldkjit_core::ledger::{ChainPart, LedgerEntry, Purpose};
use ldkjit_core::menu::TrustModel;
use ldkjit_core::time::Millis;
use proptest::prelude::*;
use proptest::sample::Index;

const DAY_MS: u64 = 86_400_000;
const ALL: Question = Question {
    by: None,
    since_ms: Millis(0),
    until_ms: Millis(BEGIN_MS + 1_000 * DAY_MS),
    client: None,
};

fn report(rows: &[(u64, Vec<u8>)], truth: &Truth, question: Question) -> (Verdict, Report) {
    let mut audit = Audit::asking(question);
    for (seq, bytes) in rows {
        audit.row(*seq, bytes);
    }
    audit.finish_report(truth)
}

fn added<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Sums {
    let mut all = Sums::default();
    for Line { sums, .. } in lines {
        all.sold += sums.sold;
        all.paid += sums.paid;
        all.opening_fees_msat += sums.opening_fees_msat;
        all.routing_fees_msat += sums.routing_fees_msat;
        all.opening_paid_msat += sums.opening_paid_msat;
        all.routing_paid_msat += sums.routing_paid_msat;
        all.chain_fees_sat += sums.chain_fees_sat;
        all.closing_cost_msat += sums.closing_cost_msat;
    }
    all
}

/// The value that this node bound in channels between two instants, sat·ms, channel by channel.
fn capital(rows: &[LedgerEntry], step_ms: u64, since: u64, until: u64) -> u128 {
    let at = |place: usize| (BEGIN_MS + (place as u64 + 1) * step_ms).clamp(since, until);
    let mut sum = 0;
    for (place, row) in rows.iter().enumerate() {
        let LedgerEntry::ChannelFunded {
            channel,
            value_sat,
            by_us: true,
            ..
        } = row
        else {
            continue;
        };
        let ends = |row: &LedgerEntry| matches!(row, LedgerEntry::ChannelEnded { channel: c, .. } if c == channel);
        let end = rows.iter().position(ends).map_or(until, at);
        sum += u128::from(*value_sat) * u128::from(end - at(place));
    }
    sum
}

fn days(capital: u128) -> u64 {
    u64::try_from(capital / u128::from(DAY_MS)).unwrap()
}

fn history() -> impl Strategy<Value = (Model, u64)> {
    let ops = prop::collection::vec(op(), 0..40);
    (ops, 1..DAY_MS).prop_map(|(ops, step_ms)| (live(&ops), step_ms))
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?}", self.rows)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_total_is_the_checks((model, step_ms) in history()) {
        let (verdict, told) = report(&written(&model.rows, step_ms), &model.truth(), ALL);
        prop_assert!(verdict.ok, "{:?}", verdict.bad);
        let sums = told.total.sums;
        prop_assert_eq!(sums.opening_fees_msat, verdict.opening_fees_msat);
        prop_assert_eq!(sums.routing_fees_msat, verdict.routing_fees_msat);
        prop_assert_eq!(sums.opening_paid_msat, verdict.opening_paid_msat);
        prop_assert_eq!(sums.routing_paid_msat, verdict.routing_paid_msat);
        prop_assert_eq!(u64::try_from(sums.chain_fees_sat).unwrap(), verdict.chain_fees_sat);
        prop_assert_eq!(sums.closing_cost_msat, verdict.closing_cost_msat);
        prop_assert!(told.lines.is_empty());
        // And the check's without being asked for a report.
        let mut audit = Audit::default();
        written(&model.rows, step_ms).iter().for_each(|(seq, bytes)| audit.row(*seq, bytes));
        prop_assert_eq!(audit.finish(&model.truth()), verdict);
    }

    /// Everything the node has was received, less what it sent and pushed, and what the report says.
    #[test]
    fn what_is_held_is_what_came_and_the_net((model, step_ms) in history()) {
        let (verdict, told) = report(&written(&model.rows, step_ms), &model.truth(), ALL);
        let mut expected: i64 = told.total.net_msat;
        for row in &model.rows {
            expected += match row {
                LedgerEntry::Chain { purpose: Purpose::Received, delta_sat, .. } => delta_sat * 1_000,
                LedgerEntry::Chain { purpose: Purpose::Sent, paid_sat, .. } => -(*paid_sat as i64) * 1_000,
                LedgerEntry::ChainUndone { txid, .. } => {
                    let was = model.rows.iter().find(|r| matches!(r, LedgerEntry::Chain { txid: t, .. } if t == txid));
                    match was.unwrap() {
                        LedgerEntry::Chain { purpose: Purpose::Received, delta_sat, .. } => -delta_sat * 1_000,
                        _ => 0,
                    }
                }
                // What the other side brought, or was given.
                LedgerEntry::ChannelFunded { balance, by_us: false, .. } => balance.unwrap().0 as i64,
                LedgerEntry::ChannelFunded { balance, value_sat, by_us: true, .. } =>
                    balance.unwrap().0 as i64 - *value_sat as i64 * 1_000,
                LedgerEntry::PathPaid { amount, fee, .. } => -((amount.0 - fee.0) as i64),
                LedgerEntry::HtlcClaimed { amount, skimmed, .. } => (amount.0 + skimmed.0) as i64,
                _ => 0,
            };
        }
        // Forwards moved what they moved: less came out than went in by what stayed.
        let held = verdict.chain_sat * 1_000 + verdict.channels_msat + verdict.closing_msat;
        prop_assert_eq!(held, expected);
    }

    #[test]
    fn lines_add_up_to_the_total((model, step_ms) in history()) {
        let rows = written(&model.rows, step_ms);
        for by in [By::Day, By::Client, By::Tier] {
            let question = Question { by: Some(by), ..ALL };
            let (_, told) = report(&rows, &model.truth(), question);
            prop_assert_eq!(added(&told.lines), told.total.sums, "{:?}", by);
            let capital: u64 = told.lines.iter().map(|line| line.capital_sat_days).sum();
            prop_assert!(capital <= told.total.capital_sat_days);
            prop_assert!(told.total.capital_sat_days <= capital + told.lines.len() as u64);
            let names: BTreeSet<_> = told
                .lines
                .iter()
                .map(|line| format!("{:?}{:?}{:?}", line.day, line.client, line.tier))
                .collect();
            prop_assert_eq!(names.len(), told.lines.len());
        }
    }

    #[test]
    fn capital_is_value_times_time(
        (model, step_ms) in history(),
        since in 0..40 * DAY_MS,
        length in 1..40 * DAY_MS,
    ) {
        let (since, until) = (BEGIN_MS + since, BEGIN_MS + since + length);
        let question = Question {
            by: Some(By::Day),
            since_ms: Millis(since),
            until_ms: Millis(until),
            client: None,
        };
        let (_, told) = report(&written(&model.rows, step_ms), &model.truth(), question);
        let bound = |since, until| days(capital(&model.rows, step_ms, since, until));
        prop_assert_eq!(told.total.capital_sat_days, bound(since, until));
        let found: BTreeMap<_, _> = told
            .lines
            .iter()
            .map(|line| (line.day.clone().unwrap(), line.capital_sat_days))
            .collect();
        for day in since / DAY_MS..=until / DAY_MS {
            let (begin, end) = (day * DAY_MS, (day + 1) * DAY_MS);
            let expected = bound(begin.max(since), end.min(until));
            let name = ldkjit_core::time::format_datetime(Millis(begin));
            let line = found.get(&name[..10]).copied().unwrap_or(0);
            prop_assert_eq!(line, expected, "{}", name);
        }
    }

    /// What is asked for in two parts is what is asked for at once.
    #[test]
    fn time_can_be_cut_anywhere((model, step_ms) in history(), cut in any::<Index>()) {
        let rows = written(&model.rows, step_ms);
        let cut = Millis(BEGIN_MS + cut.index((rows.len() + 2) * usize::try_from(step_ms).unwrap()) as u64);
        let ask = |question| report(&rows, &model.truth(), question).1.total;
        let halves = [
            ask(Question { until_ms: cut, ..ALL }),
            ask(Question { since_ms: cut, ..ALL }),
        ];
        let whole = ask(ALL);
        prop_assert_eq!(added(&halves), whole.sums);
        prop_assert_eq!(halves[0].net_msat + halves[1].net_msat, whole.net_msat);
        let capital = halves[0].capital_sat_days + halves[1].capital_sat_days;
        prop_assert!((capital..=capital + 1).contains(&whole.capital_sat_days));
    }

    /// A client's report is its line in the report of all.
    #[test]
    fn a_client_alone_is_its_line((model, step_ms) in history()) {
        let rows = written(&model.rows, step_ms);
        let ask = |question| report(&rows, &model.truth(), question).1;
        for line in ask(Question { by: Some(By::Client), ..ALL }).lines {
            if line.client.is_some() {
                let alone = ask(Question { client: line.client, ..ALL }).total;
                prop_assert_eq!(alone, Line { client: None, ..line });
            }
        }
    }

    /// A day that is over stays as it is, but for what channels that closed in it may yet bring back.
    #[test]
    fn a_day_that_is_over_does_not_change((model, step_ms) in history(), cut in any::<Index>()) {
        let rows = written(&model.rows, step_ms);
        let cut = cut.index(rows.len());
        let now = Millis(BEGIN_MS + cut as u64 * step_ms);
        let question = Question { by: Some(By::Day), ..ALL };
        let (_, before) = report(&rows[..cut], &model.truth(), Question { until_ms: now, ..question });
        let (_, after) = report(&rows, &model.truth(), question);
        let today = ldkjit_core::time::format_datetime(now);
        let over = |told: Report| -> Vec<Line> {
            let lines = told.lines.into_iter().map(|mut line| {
                line.sums.closing_cost_msat = 0;
                line.net_msat = 0;
                line
            });
            lines.filter(|line| line.day.as_deref() < Some(&today[..10])).collect()
        };
        let empty = |line: &Line| line.sums == Sums::default() && line.capital_sat_days == 0;
        let mut expected = over(after);
        expected.retain(|line| !empty(line));
        let mut found = over(before);
        found.retain(|line| !empty(line));
        prop_assert_eq!(found, expected);
    }
}

/// One transaction claims what two clients' channels left, and is undone.
#[test]
fn a_fee_for_several_is_shared_and_taken_back() {
    let channel = |n: u8| ChannelId([n; 32]);
    let mut rows = Vec::new();
    for n in [1_u8, 2] {
        rows.push(LedgerEntry::OrderSold {
            scid: Scid(n.into()),
            client: common::node(n),
            size: None,
            fee: None,
            trust: TrustModel::LspTrustsClient,
            reserved_sat: 0,
            tier: None,
        });
        rows.push(LedgerEntry::ChannelFunded {
            channel: channel(n),
            peer: common::node(n),
            open: OpenId::new(Scid(n.into()), Millis(0), 1),
            funding: Outpoint {
                txid: format!("{n:064x}"),
                vout: 0,
            },
            value_sat: 100_000,
            balance: Some(Msat(100_000_000)),
            by_us: true,
        });
    }
    let part = |n: u8, sat| ChainPart {
        channel: channel(n),
        sat,
    };
    rows.push(LedgerEntry::Chain {
        txid: "c".into(),
        delta_sat: 899,
        paid_sat: 0,
        fee_sat: Some(101),
        purpose: Purpose::Claim,
        open: None,
        parts: vec![part(1, 250), part(2, 750)],
    });
    let fees = |rows: &[LedgerEntry]| -> Vec<i64> {
        let question = Question {
            by: Some(By::Client),
            ..ALL
        };
        let (_, told) = report(&written(rows, 1), &Truth::default(), question);
        let fees = told.lines.iter().map(|line| line.sums.chain_fees_sat);
        fees.collect()
    };
    assert_eq!(fees(&rows), [25, 76]);
    rows.push(LedgerEntry::ChainUndone {
        txid: "c".into(),
        delta_sat: 899,
    });
    assert_eq!(fees(&rows), [0, 0]);
}
