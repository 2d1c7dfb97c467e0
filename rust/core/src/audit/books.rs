//! The accounts together: each row goes where it belongs, and at the end all are closed.

use super::chain::ChainBook;
use super::channels::ChannelBook;
use super::orders::OrderBook;
use super::{bounds, Truth, Verdict};
use crate::ledger::LedgerEntry;

/// What a comparison finds: the row, and why it does not fit.
pub(super) type Finding = (Option<u64>, String);

#[derive(Default)]
pub(super) struct Books {
    chain: ChainBook,
    channels: ChannelBook,
    orders: OrderBook,
}

impl Books {
    /// Books one entry; `seq` is absent for one that is not written yet.
    pub(super) fn enter(&mut self, seq: Option<u64>, entry: &LedgerEntry) -> Result<(), String> {
        self.chain.enter(seq, entry)?;
        if let LedgerEntry::ChainUndone { txid, .. } = entry {
            self.channels.undo(txid);
        }
        self.channels.enter(seq, entry)?;
        self.orders.enter(seq, entry, &self.channels)
    }

    pub(super) fn compare(&self, truth: &Truth, verdict: &mut Verdict) -> Vec<Finding> {
        let mut findings = self.chain.compare(truth, verdict);
        let held = bounds(
            &truth.channels,
            &truth.own_payments,
            &truth.contested,
            !truth.closing.is_empty(),
        );
        findings.extend(self.orders.compare(&self.chain, verdict));
        findings.extend(self.channels.compare(truth, &held, &self.chain, verdict));
        findings
    }
}
