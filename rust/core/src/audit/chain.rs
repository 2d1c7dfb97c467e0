//! The chain account: the wallet's transactions, each for as long as it stands.

use std::collections::BTreeMap;

use super::books::Finding;
use super::{Truth, Verdict};
use crate::ledger::{LedgerEntry, Purpose};

#[derive(Default)]
pub(super) struct ChainBook {
    live: BTreeMap<String, Tx>,
}

struct Tx {
    seq: Option<u64>,
    delta_sat: i64,
    fee_sat: Option<u64>,
    paid_sat: u64,
}

impl ChainBook {
    pub(super) fn enter(&mut self, seq: Option<u64>, entry: &LedgerEntry) -> Result<(), String> {
        match entry {
            LedgerEntry::Chain {
                txid,
                delta_sat,
                paid_sat,
                fee_sat,
                purpose,
                open,
                parts,
            } => {
                if self.live.contains_key(txid) {
                    return Err(format!("transaction {txid} is booked twice"));
                }
                let tx = Tx {
                    seq,
                    delta_sat: *delta_sat,
                    fee_sat: *fee_sat,
                    paid_sat: *paid_sat,
                };
                self.live.insert(txid.clone(), tx);
                let taken = parts
                    .iter()
                    .fold(0_i128, |sum, part| sum.saturating_add(part.sat.into()));
                let owed = |fee: u64| i128::from(*paid_sat).saturating_add(fee.into());
                let adds_up = fee_sat
                    .is_none_or(|fee| i128::from(*delta_sat) == taken.saturating_sub(owed(fee)));
                if !adds_up {
                    return Err(format!(
                        "transaction {txid}: {delta_sat} sat is not what it takes, less what it pays and its fee"
                    ));
                }
                if (*purpose == Purpose::Funding) != open.is_some() {
                    return Err(format!(
                        "transaction {txid} funds a channel and names no open, or the reverse"
                    ));
                }
                if *purpose == Purpose::Received && *delta_sat < 0 {
                    return Err(format!("transaction {txid} brings {delta_sat} sat"));
                }
                Ok(())
            }
            LedgerEntry::ChainUndone { txid, delta_sat } => match self.live.remove(txid) {
                None => Err(format!("transaction {txid} is undone and was not booked")),
                Some(tx) if tx.delta_sat != *delta_sat => Err(format!(
                    "transaction {txid} is undone for {delta_sat} sat and was booked for {}",
                    tx.delta_sat
                )),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether a transaction stands, and its fee.
    pub(super) fn fee_of(&self, txid: &str) -> Option<Option<u64>> {
        self.live.get(txid).map(|tx| tx.fee_sat)
    }

    /// What a transaction that stands pays to others, sat.
    pub(super) fn paid(&self, txid: &str) -> Option<u64> {
        self.live.get(txid).map(|tx| tx.paid_sat)
    }

    pub(super) fn compare(&self, truth: &Truth, verdict: &mut Verdict) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut sum = 0_i64;
        for (txid, tx) in &self.live {
            sum = sum.saturating_add(tx.delta_sat);
            match truth.transactions.get(txid) {
                None => findings.push((tx.seq, format!("the wallet has no transaction {txid}"))),
                Some(delta) if *delta != tx.delta_sat => findings.push((
                    tx.seq,
                    format!(
                        "transaction {txid} is booked for {} sat, in the wallet it is {delta}",
                        tx.delta_sat
                    ),
                )),
                Some(_) => {}
            }
        }
        for txid in truth.transactions.keys() {
            if !self.live.contains_key(txid) {
                findings.push((None, format!("the wallet's transaction {txid} has no row")));
            }
        }
        verdict.chain_sat = sum;
        verdict.wallet_sat = truth.wallet_sat;
        if findings.is_empty() && i64::try_from(truth.wallet_sat) != Ok(sum) {
            findings.push((
                None,
                format!(
                    "the wallet holds {} sat, by the rows {sum}",
                    truth.wallet_sat
                ),
            ));
        }
        findings
    }
}
