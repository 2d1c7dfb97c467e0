//! The accounts together: each row goes where it belongs, and at the end all are closed.

use super::chain::ChainBook;
use super::channels::ChannelBook;
use super::orders::OrderBook;
use super::report::{Question, Report, Tally};
use super::{bounds, Truth, Verdict};
use crate::ledger::LedgerEntry;
use crate::time::Millis;

/// What a comparison finds: the row, and why it does not fit.
pub(super) type Finding = (Option<u64>, String);

#[derive(Default)]
pub(super) struct Books {
    chain: ChainBook,
    channels: ChannelBook,
    orders: OrderBook,
    tally: Tally,
}

impl Books {
    pub(super) fn asking(question: Question) -> Self {
        Self {
            tally: Tally::asking(question),
            ..Self::default()
        }
    }

    pub(super) fn report(self) -> Report {
        self.tally.finish()
    }

    /// Books one entry; number and time are absent for one that is not written yet.
    pub(super) fn enter(
        &mut self,
        row: Option<(u64, Millis)>,
        entry: &LedgerEntry,
    ) -> Result<(), String> {
        let seq = row.map(|(seq, _)| seq);
        self.tally.enter(row.map(|(_, at)| at), entry);
        self.chain.enter(seq, entry)?;
        if let LedgerEntry::ChainUndone { txid, .. } = entry {
            self.channels.undo(txid);
        }
        self.channels.enter(seq, entry)?;
        self.orders.enter(seq, entry, &self.channels)
    }

    pub(super) fn compare(&mut self, truth: &Truth, verdict: &mut Verdict) -> Vec<Finding> {
        let mut findings = self.chain.compare(truth, verdict);
        let held = bounds(
            &truth.channels,
            &truth.own_payments,
            &truth.contested,
            !truth.closing.is_empty(),
        );
        findings.extend(self.orders.compare(&self.chain));
        let (found, closed) = self.channels.compare(truth, &held, &self.chain, verdict);
        findings.extend(found);
        for (channel, cost_msat) in closed {
            self.tally.closed(&channel, cost_msat);
        }
        let sums = &self.tally.whole;
        verdict.opening_fees_msat = sums.opening_fees_msat;
        verdict.routing_fees_msat = sums.routing_fees_msat;
        verdict.routing_paid_msat = sums.routing_paid_msat;
        verdict.opening_paid_msat = sums.opening_paid_msat;
        verdict.chain_fees_sat = u64::try_from(sums.chain_fees_sat).unwrap_or(0);
        verdict.closing_cost_msat = sums.closing_cost_msat;
        findings
    }
}
