//! The check of the ledger: whether its rows follow from each other and add up to what the wallet and LDK hold.

mod balance;
mod books;
mod chain;
mod channels;
mod orders;
mod report;

pub use balance::{bounds, Bounds, ChannelView, HtlcState, HtlcView};
pub use channels::ChannelLine;
pub use report::{By, Line, Question, Report, Sums};

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ids::{ChannelId, PaymentHash};
use crate::ledger::LedgerEntry;
use crate::seal::{unseal, Link};
use crate::time::Millis;
use books::Books;

/// What is to be found: the state of wallet and LDK in the same commit as the rows.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The wallet's transactions, and what each changed, sat.
    pub transactions: BTreeMap<String, i64>,
    /// The sum of the wallet's coins, sat.
    pub wallet_sat: u64,
    /// Channels that are open.
    pub channels: Vec<ChannelView>,
    /// Payments of ours that LDK still knows.
    pub own_payments: BTreeSet<PaymentHash>,
    /// Payments that closed channels may still settle on chain, once for each HTLC.
    pub contested: Vec<PaymentHash>,
    /// What may still come out of closed channels at most, sat.
    pub closing: BTreeMap<ChannelId, u64>,
    /// What LDK has yet to tell, as the rows that will be written of it.
    pub untold: Vec<LedgerEntry>,
}

/// The first row that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// Its number; absent if it is a row that is missing.
    pub seq: Option<u64>,
    /// Why.
    pub why: String,
}

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Everything adds up.
    pub ok: bool,
    /// How many rows there are.
    pub rows: u64,
    /// The first that does not fit.
    pub bad: Option<Bad>,
    /// What the wallet holds by the rows, sat.
    pub chain_sat: i64,
    /// What it does hold, sat.
    pub wallet_sat: u64,
    /// What our side of all open channels holds by the rows, msat.
    pub channels_msat: i64,
    /// Of that, in channels whose funding transaction the wallet has not sent: the same coins are in the wallet still.
    pub withheld_msat: i64,
    /// What closed channels still owe the wallet by the rows, msat, chain fees included.
    pub closing_msat: i64,
    /// Channels compared to the millisatoshi.
    pub exact: u64,
    /// Channels with HTLCs in such a state that they were compared within a bound.
    pub bounded: u64,
    /// Every open channel.
    pub channels: Vec<ChannelLine>,
    /// Opening fees earned, msat.
    pub opening_fees_msat: u64,
    /// Routing fees earned, msat.
    pub routing_fees_msat: u64,
    /// Routing fees paid, msat.
    pub routing_paid_msat: u64,
    /// Opening fees paid to LSPs, msat.
    pub opening_paid_msat: u64,
    /// Chain fees paid, sat.
    pub chain_fees_sat: u64,
    /// What closed channels did not bring back, msat: fees, rounding and what was too small for an output.
    pub closing_cost_msat: i64,
}

/// Takes in a history row by row.
#[derive(Default)]
pub struct Audit {
    link: Link,
    rows: u64,
    bad: Option<Bad>,
    books: Books,
}

impl Audit {
    /// One that answers with a report too.
    #[must_use]
    pub fn asking(question: Question) -> Self {
        Self {
            books: Books::asking(question),
            ..Self::default()
        }
    }

    /// Takes in the next row.
    pub fn row(&mut self, seq: u64, bytes: &[u8]) {
        let due = self.rows.saturating_add(1);
        if seq != due {
            self.blame(Some(seq), format!("row {due} should be here"));
        }
        self.rows = seq;
        match unseal(self.link, seq, bytes) {
            Err(why) => self.blame(Some(seq), format!("it cannot be read: {why}")),
            Ok((row, link, follows)) => {
                if !follows {
                    let why = "it, or the row before it, is not as it was written";
                    self.blame(Some(seq), why.into());
                }
                self.link = link;
                if let Err(why) = self.books.enter(Some((seq, Millis(row.at_ms))), &row.entry) {
                    self.blame(Some(seq), why);
                }
            }
        }
    }

    fn blame(&mut self, seq: Option<u64>, why: String) {
        self.bad.get_or_insert(Bad { seq, why });
    }

    /// Holds the rows against the truth.
    #[must_use]
    pub fn finish(self, truth: &Truth) -> Verdict {
        self.finish_report(truth).0
    }

    /// Holds the rows against the truth, and says what they add up to.
    #[must_use]
    pub fn finish_report(mut self, truth: &Truth) -> (Verdict, Report) {
        for entry in &truth.untold {
            if let Err(why) = self.books.enter(None, entry) {
                self.blame(None, format!("{why} (LDK has yet to tell of it)"));
            }
        }
        let mut verdict = Verdict {
            rows: self.rows,
            ..Verdict::default()
        };
        // A row that contradicts those before it explains what does not add up after it. A row that is missing has no
        // number: one that has is the better answer.
        let mut findings = self.books.compare(truth, &mut verdict);
        findings.sort_by_key(|(seq, _)| (seq.is_none(), *seq));
        if let Some((seq, why)) = findings.into_iter().next() {
            self.blame(seq, why);
        }
        verdict.ok = self.bad.is_none();
        verdict.bad = self.bad;
        (verdict, self.books.report())
    }
}
