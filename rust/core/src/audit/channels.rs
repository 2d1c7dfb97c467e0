//! The accounts of channels: what our side of each holds while it is open, and what comes back of it once it is closed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::balance::Bounds;
use super::books::Finding;
use super::chain::ChainBook;
use super::{Truth, Verdict};
use crate::amount::Msat;
use crate::ids::{ChannelId, Outpoint};
use crate::ledger::{ChainPart, LedgerEntry, Purpose};

/// An output smaller than this may be left out of a transaction, sat: the largest limit in use.
const DUST_SAT: i128 = 546;
/// Both anchors of a commitment transaction, sat; the funder pays for them.
const ANCHORS_SAT: i128 = 660;
/// One of them, sat.
const ANCHOR_SAT: i128 = 330;

/// An open channel in the verdict, msat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelLine {
    /// The channel.
    pub channel: ChannelId,
    /// Our side by the rows.
    pub rows_msat: i64,
    /// Our side by LDK, at least.
    pub low_msat: i64,
    /// Our side by LDK, at most.
    pub high_msat: i64,
}

#[derive(Default)]
pub(super) struct ChannelBook {
    accounts: BTreeMap<ChannelId, Account>,
    /// Payments of our own over channels that were closed, msat: which, LDK does not say.
    unplaced: i128,
    /// The transactions that took something out of closed channels.
    takers: BTreeMap<String, (Purpose, Vec<ChainPart>)>,
}

pub(super) struct Account {
    funded: Option<u64>,
    last: Option<u64>,
    by_us: bool,
    pub(super) value_sat: u64,
    pub(super) funding: Outpoint,
    /// Unknown for a channel that was gone before it could be looked at.
    balance: Option<i128>,
    ended: Option<End>,
    returned_sat: i128,
    /// The transaction that closed it, and its fee.
    spent: Option<(String, u64)>,
    by_agreement: bool,
    /// HTLCs whose amount only the chain tells, or a channel that may have gone on after its last row.
    unsure: bool,
}

struct End {
    seq: Option<u64>,
    /// By the rows, then.
    rows: Option<i128>,
    ldk: Option<Msat>,
}

impl ChannelBook {
    pub(super) fn get(&self, channel: &ChannelId) -> Option<&Account> {
        self.accounts.get(channel)
    }

    pub(super) fn enter(&mut self, seq: Option<u64>, entry: &LedgerEntry) -> Result<(), String> {
        match entry {
            LedgerEntry::ChannelFunded {
                channel,
                funding,
                value_sat,
                balance,
                by_us,
                ..
            } => {
                if self.accounts.contains_key(channel) {
                    return Err(format!("channel {channel} is funded twice"));
                }
                let balance = balance.map(|balance| i128::from(balance.0));
                if balance.is_some_and(|b| b > i128::from(*value_sat).saturating_mul(1_000)) {
                    return Err(format!("channel {channel} holds more than its value"));
                }
                let account = Account {
                    funded: seq,
                    last: seq,
                    by_us: *by_us,
                    value_sat: *value_sat,
                    funding: funding.clone(),
                    balance,
                    ended: None,
                    returned_sat: 0,
                    spent: None,
                    by_agreement: false,
                    unsure: false,
                };
                self.accounts.insert(*channel, account);
                Ok(())
            }
            LedgerEntry::PathPaid {
                channel,
                amount,
                fee,
                ..
            } => {
                if fee >= amount {
                    return Err(format!("a fee of {} msat in {} msat", fee.0, amount.0));
                }
                match channel {
                    Some(channel) => {
                        self.change(seq, channel, i128::from(amount.0).saturating_neg())
                    }
                    None => {
                        self.unplaced = self.unplaced.saturating_add(amount.0.into());
                        Ok(())
                    }
                }
            }
            LedgerEntry::HtlcClaimed {
                channel, amount, ..
            } => self.change(seq, channel, amount.0.into()),
            LedgerEntry::Forwarded {
                from,
                to,
                received,
                sent,
                skim,
                ..
            } => self.forwarded(seq, (*from, *received), (*to, *sent), *skim),
            LedgerEntry::ChannelEnded {
                channel, balance, ..
            } => {
                let account = self.account(channel)?;
                if account.ended.is_some() {
                    return Err(format!("channel {channel} is closed twice"));
                }
                account.ended = Some(End {
                    seq,
                    rows: account.balance,
                    ldk: *balance,
                });
                account.last = seq.or(account.last);
                Ok(())
            }
            LedgerEntry::ChannelSpent {
                channel,
                txid,
                fee_sat,
            } => {
                let account = self.account(channel)?;
                if *fee_sat > account.value_sat {
                    return Err(format!("channel {channel}: a fee above its value"));
                }
                account.spent = Some((txid.clone(), *fee_sat));
                account.last = seq.or(account.last);
                Ok(())
            }
            LedgerEntry::Chain {
                txid,
                purpose,
                parts,
                ..
            } => self.taken(seq, txid, *purpose, parts),
            LedgerEntry::Recovered { .. } => {
                let open = self.accounts.values_mut().filter(|a| a.ended.is_none());
                open.for_each(|account| account.unsure = true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn account(&mut self, channel: &ChannelId) -> Result<&mut Account, String> {
        self.accounts
            .get_mut(channel)
            .ok_or_else(|| format!("channel {channel} was never funded"))
    }

    fn change(
        &mut self,
        seq: Option<u64>,
        channel: &ChannelId,
        amount: i128,
    ) -> Result<(), String> {
        let account = self.account(channel)?;
        account.last = seq.or(account.last);
        account.balance = account.balance.map(|b| b.saturating_add(amount));
        match account.balance {
            Some(balance) if balance < 0 => {
                Err(format!("channel {channel} would hold {balance} msat"))
            }
            _ => Ok(()),
        }
    }

    fn forwarded(
        &mut self,
        seq: Option<u64>,
        (from, received): (Option<ChannelId>, Option<Msat>),
        (to, sent): (Option<ChannelId>, Option<Msat>),
        skim: Msat,
    ) -> Result<(), String> {
        if let (Some(received), Some(sent)) = (received, sent) {
            let earned = received
                .checked_sub(sent)
                .and_then(|earned| earned.checked_sub(skim));
            if earned.is_none() {
                let (r, s) = (received.0, sent.0);
                return Err(format!(
                    "{r} msat came, {s} went on and {} stayed as an opening fee",
                    skim.0
                ));
            }
        }
        for (channel, amount, sign) in [(from, received, 1), (to, sent, -1)] {
            match (channel, amount) {
                (Some(channel), Some(amount)) => {
                    self.change(seq, &channel, i128::from(amount.0).saturating_mul(sign))?;
                }
                (Some(channel), None) => self.account(&channel)?.unsure = true,
                (None, _) => return Err("a forward without its channels".into()),
            }
        }
        Ok(())
    }

    fn taken(
        &mut self,
        seq: Option<u64>,
        txid: &str,
        purpose: Purpose,
        parts: &[ChainPart],
    ) -> Result<(), String> {
        for part in parts {
            let account = self.account(&part.channel)?;
            account.returned_sat = account.returned_sat.saturating_add(part.sat.into());
            account.by_agreement |= purpose == Purpose::Close;
            account.last = seq.or(account.last);
            if account.returned_sat > i128::from(account.value_sat) {
                return Err(format!(
                    "channel {} gave back more than its value",
                    part.channel
                ));
            }
        }
        if !parts.is_empty() {
            self.takers
                .insert(txid.to_owned(), (purpose, parts.to_vec()));
        }
        Ok(())
    }

    /// A transaction was undone: what it took is in its channels again.
    pub(super) fn undo(&mut self, txid: &str) {
        let Some((purpose, parts)) = self.takers.remove(txid) else {
            return;
        };
        for part in parts {
            if let Some(account) = self.accounts.get_mut(&part.channel) {
                account.returned_sat = account.returned_sat.saturating_sub(part.sat.into());
                account.by_agreement &= purpose != Purpose::Close;
            }
        }
    }

    /// What does not fit, and what closed channels cost, msat.
    pub(super) fn compare(
        &self,
        truth: &Truth,
        held: &BTreeMap<ChannelId, Bounds>,
        chain: &ChainBook,
        verdict: &mut Verdict,
    ) -> (Vec<Finding>, Vec<(ChannelId, i64)>) {
        let mut findings = Vec::new();
        let mut closed = Vec::new();
        for view in &truth.channels {
            let account = self.accounts.get(&view.channel);
            let value = account.map(|a| msat(a.value_sat.into()));
            if value.is_some_and(|value| value != i128::from(view.value_msat)) {
                let why = format!("channel {} is worth {} msat", view.channel, view.value_msat);
                findings.push((account.and_then(|a| a.funded), why));
            }
        }
        for (channel, bounds) in held {
            match self.accounts.get(channel) {
                Some(account) if account.ended.is_none() => {
                    findings.extend(compare_open(channel, account, bounds, verdict));
                }
                Some(account) => {
                    let seq = account.ended.as_ref().and_then(|end| end.seq);
                    findings.push((seq, format!("LDK has channel {channel} open")));
                }
                None => findings.push((None, format!("channel {channel} has no row"))),
            }
        }
        for (channel, account) in &self.accounts {
            let paid = chain.paid(&account.funding.txid);
            let published = !account.by_us || paid.is_some();
            if account.by_us && paid.is_some_and(|paid| paid < account.value_sat) {
                let why = format!("the funding of channel {channel} pays less than its value");
                findings.push((account.funded, why));
            }
            let balance = i64::try_from(account.balance.unwrap_or(0)).unwrap_or(i64::MAX);
            match &account.ended {
                None => {
                    verdict.channels_msat = verdict.channels_msat.saturating_add(balance);
                    if !published {
                        verdict.withheld_msat = verdict.withheld_msat.saturating_add(balance);
                    }
                    if !held.contains_key(channel) {
                        findings.push((
                            account.funded,
                            format!(
                                "LDK knows no channel {channel}, and no row says that it closed"
                            ),
                        ));
                    }
                }
                Some(end) => {
                    let outcome = self.compare_ended(account, end, truth.closing.get(channel));
                    if let Err(why) = outcome {
                        findings.push((account.last, format!("channel {channel}: {why}")));
                    }
                    let left = account.left();
                    if truth.closing.contains_key(channel) && published {
                        verdict.closing_msat = verdict.closing_msat.saturating_add(left);
                    } else if account.spent.is_some() {
                        closed.push((*channel, left));
                    }
                }
            }
        }
        (findings, closed)
    }

    /// A closed channel: what did not come back must be fees, rounding, or too small for an output.
    fn compare_ended(
        &self,
        account: &Account,
        end: &End,
        outstanding: Option<&u64>,
    ) -> Result<(), String> {
        if account.by_agreement && !account.unsure {
            // No HTLC is in flight when both agree to close.
            let ldk = end.ldk.map(|b| i128::from(b.0));
            if let (Some(rows), Some(ldk)) = (end.rows, ldk) {
                if !(ldk..=ldk.saturating_add(self.unplaced)).contains(&rows) {
                    return Err(format!(
                        "it closed with {ldk} msat, by the rows with {rows}"
                    ));
                }
            }
        }
        let Some(balance) = account.balance else {
            return Ok(());
        };
        let Some((txid, fee_sat)) = &account.spent else {
            // Its funding was never on the chain, or nobody closed it there yet.
            return Ok(());
        };
        let cost = balance.saturating_sub(msat(account.returned_sat));
        let fee = i128::from(*fee_sat);
        let (least, most) = match (account.by_agreement, account.by_us) {
            (true, true) => (
                msat(fee.saturating_sub(DUST_SAT)),
                msat(fee.saturating_add(1)),
            ),
            (true, false) => (0, 1_000),
            // Rounding, and HTLCs too small for an output, are part of the transaction's fee.
            (false, true) => (0, msat(fee.saturating_add(ANCHORS_SAT))),
            (false, false) => (msat(ANCHOR_SAT).saturating_neg(), msat(fee)),
        };
        // It may be one of those that a payment of ours left by unseen.
        let most = most.saturating_add(self.unplaced);
        // What may still come is known as a limit, and some of it may have come already.
        let (cost, least) = match outstanding {
            Some(sat) => (cost.saturating_sub(msat((*sat).into())), i128::MIN),
            None => (cost, least),
        };
        // Too small for an output of its own: all of it went to the fee.
        let none = account.returned_sat == 0 && outstanding.is_none();
        let crumbs = none && balance < msat(DUST_SAT.saturating_add(fee));
        if account.unsure || crumbs || (least..=most).contains(&cost) {
            return Ok(());
        }
        Err(format!(
            "{balance} msat closed, {} sat came back: {txid} with its fee of {fee_sat} sat does not explain the rest",
            account.returned_sat
        ))
    }
}

impl Account {
    /// What has not come back, msat.
    fn left(&self) -> i64 {
        let left = self
            .balance
            .unwrap_or(0)
            .saturating_sub(msat(self.returned_sat));
        i64::try_from(left).unwrap_or(i64::MAX)
    }
}

fn compare_open(
    channel: &ChannelId,
    account: &Account,
    bounds: &Bounds,
    verdict: &mut Verdict,
) -> Option<Finding> {
    let short = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    let rows = account.balance.unwrap_or(0);
    verdict.channels.push(ChannelLine {
        channel: *channel,
        rows_msat: short(rows),
        low_msat: short(bounds.low),
        high_msat: short(bounds.high),
    });
    let count = if bounds.low == bounds.high {
        &mut verdict.exact
    } else {
        &mut verdict.bounded
    };
    *count = count.saturating_add(1);
    let fits = account.balance.is_some() && (bounds.low..=bounds.high).contains(&rows);
    let held = if bounds.low == bounds.high {
        bounds.low.to_string()
    } else {
        format!("{} to {}", bounds.low, bounds.high)
    };
    (!fits).then(|| {
        let why = format!("channel {channel} holds {held} msat, by the rows up to this one {rows}");
        (account.last, why)
    })
}

fn msat(sat: i128) -> i128 {
    sat.saturating_mul(1_000)
}
