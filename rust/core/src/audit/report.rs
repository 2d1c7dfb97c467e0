//! What a ledger adds up to: revenue, cost and capital of the whole history, and of each day, client or tier of it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelId, NodeId, OpenId, Scid};
use crate::ledger::{ChainPart, LedgerEntry, SoldTier};
use crate::time::{format_datetime, Millis};

const DAY_MS: u64 = 86_400_000;

/// What the lines of a report are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Days of UTC.
    Day,
    /// Clients who bought channels.
    Client,
    /// Tiers that were sold.
    Tier,
}

/// Which report is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Question {
    /// What the lines are; without it there is only the total.
    pub by: Option<By>,
    /// Rows from this instant on.
    pub since_ms: Millis,
    /// Rows before this instant. No later than the present, or capital is bound in the future.
    pub until_ms: Millis,
    /// Only what concerns this client.
    pub client: Option<NodeId>,
}

/// What rows add up to. A transaction that will not be after all counts less than nothing when that is known, so that a
/// day that is over does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Channels sold.
    pub sold: u64,
    /// Of those sold, now or before, paid for.
    pub paid: u64,
    /// Opening fees earned, msat.
    pub opening_fees_msat: u64,
    /// Routing fees earned, msat.
    pub routing_fees_msat: u64,
    /// Opening fees paid to LSPs, msat.
    pub opening_paid_msat: u64,
    /// Routing fees paid, msat.
    pub routing_paid_msat: u64,
    /// Chain fees paid, sat.
    pub chain_fees_sat: i64,
    /// What closed channels did not bring back, msat: fees, rounding and what was too small for an output.
    pub closing_cost_msat: i64,
}

impl Sums {
    /// What one row adds, without those that only other rows explain.
    fn of(entry: &LedgerEntry) -> Self {
        let mut sums = Self::default();
        match entry {
            LedgerEntry::OrderSold { .. } => sums.sold = 1,
            LedgerEntry::OrderPaid { .. } => sums.paid = 1,
            LedgerEntry::FeeEarned { amount, .. } => sums.opening_fees_msat = amount.0,
            LedgerEntry::Forwarded {
                received: Some(received),
                sent: Some(sent),
                skim,
                ..
            } => {
                let fee = received.checked_sub(*sent);
                let fee = fee.and_then(|fee| fee.checked_sub(*skim));
                sums.routing_fees_msat = fee.unwrap_or_default().0;
            }
            LedgerEntry::PathPaid { fee, .. } => sums.routing_paid_msat = fee.0,
            LedgerEntry::HtlcClaimed { skimmed, .. } => sums.opening_paid_msat = skimmed.0,
            _ => {}
        }
        sums
    }

    fn add(&mut self, more: &Self) {
        let add = |to: &mut u64, n: u64| *to = to.saturating_add(n);
        add(&mut self.sold, more.sold);
        add(&mut self.paid, more.paid);
        add(&mut self.opening_fees_msat, more.opening_fees_msat);
        add(&mut self.routing_fees_msat, more.routing_fees_msat);
        add(&mut self.opening_paid_msat, more.opening_paid_msat);
        add(&mut self.routing_paid_msat, more.routing_paid_msat);
        let add = |to: &mut i64, n: i64| *to = to.saturating_add(n);
        add(&mut self.chain_fees_sat, more.chain_fees_sat);
        add(&mut self.closing_cost_msat, more.closing_cost_msat);
    }

    /// What was earned less what was paid, msat.
    #[must_use]
    pub fn net_msat(&self) -> i64 {
        let earned =
            i128::from(self.opening_fees_msat).saturating_add(self.routing_fees_msat.into());
        let paid = i128::from(self.opening_paid_msat)
            .saturating_add(self.routing_paid_msat.into())
            .saturating_add(i128::from(self.chain_fees_sat).saturating_mul(1_000))
            .saturating_add(self.closing_cost_msat.into());
        let net = earned.saturating_sub(paid);
        i64::try_from(net).unwrap_or(if net < 0 { i64::MIN } else { i64::MAX })
    }
}

/// One line, or the total. Of its names only that of the report's kind of line is there, and none for what belongs to
/// no sale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The day, `YYYY-MM-DD`.
    pub day: Option<String>,
    /// The client.
    pub client: Option<NodeId>,
    /// The tier.
    pub tier: Option<SoldTier>,
    /// What it adds up to.
    #[serde(flatten)]
    pub sums: Sums,
    /// What was earned less what was paid, msat.
    pub net_msat: i64,
    /// The value of channels that this node funded, times the days for which they were open, sat·days, rounded down.
    pub capital_sat_days: u64,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked.
    #[serde(flatten)]
    pub question: Question,
    /// Its lines, in the order of their names.
    pub lines: Vec<Line>,
    /// All of them together.
    pub total: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Day(u64),
    Client(Option<NodeId>),
    Tier(Option<SoldTier>),
}

/// What a line holds while rows come in; capital in sat·ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    sums: Sums,
    capital: i128,
}

/// The sale that something belongs to, by its place in the list of all.
type Sale = Option<usize>;

/// A channel that this node funded.
struct Bound {
    sale: Sale,
    value_sat: u64,
    ended: Option<Millis>,
}

/// Adds up rows as they come.
#[derive(Default)]
pub(super) struct Tally {
    question: Question,
    /// Of all rows, whatever is asked.
    pub(super) whole: Sums,
    total: Account,
    lines: BTreeMap<Name, Account>,
    /// By day: how much more capital is bound from its first moment on, sat.
    risen: BTreeMap<u64, i128>,
    sales: Vec<(NodeId, Option<SoldTier>)>,
    orders: HashMap<Scid, usize>,
    channels: HashMap<ChannelId, Bound>,
    /// What transactions cost, and for which sale.
    fees: HashMap<String, Vec<(Sale, i64)>>,
    last: Millis,
}

impl Tally {
    pub(super) fn asking(question: Question) -> Self {
        Self {
            question,
            ..Self::default()
        }
    }

    /// Takes in a row; one that is not written yet happens now.
    pub(super) fn enter(&mut self, at: Option<Millis>, entry: &LedgerEntry) {
        let at = at.unwrap_or(self.last);
        self.last = at;
        match entry {
            LedgerEntry::OrderSold {
                scid, client, tier, ..
            } => {
                self.orders.insert(*scid, self.sales.len());
                self.sales.push((*client, *tier));
            }
            LedgerEntry::ChannelFunded {
                channel,
                open,
                value_sat,
                by_us: true,
                ..
            } => {
                let bound = Bound {
                    sale: self.of_open(*open),
                    value_sat: *value_sat,
                    ended: None,
                };
                self.bind(at, bound.sale, bound.value_sat.into());
                self.channels.insert(*channel, bound);
            }
            LedgerEntry::ChannelEnded { channel, .. } => {
                let Some(bound) = self.channels.get_mut(channel) else {
                    return;
                };
                if bound.ended.replace(at).is_none() {
                    let (sale, value_sat) = (bound.sale, i128::from(bound.value_sat));
                    self.bind(at, sale, value_sat.saturating_neg());
                }
            }
            LedgerEntry::Chain {
                txid,
                fee_sat: Some(fee_sat),
                open,
                parts,
                ..
            } => {
                let fee = i64::try_from(*fee_sat).unwrap_or(i64::MAX);
                let shares = match open {
                    Some(open) => vec![(self.of_open(*open), fee)],
                    None => self.shares(fee, parts),
                };
                for (sale, fee) in &shares {
                    self.chain_fee(at, *sale, *fee);
                }
                self.fees.insert(txid.clone(), shares);
            }
            LedgerEntry::ChainUndone { txid, .. } => {
                for (sale, fee) in self.fees.remove(txid).unwrap_or_default() {
                    self.chain_fee(at, sale, fee.saturating_neg());
                }
            }
            _ => {}
        }
        let sale = match entry {
            LedgerEntry::OrderSold { scid, .. }
            | LedgerEntry::OrderPaid { scid, .. }
            | LedgerEntry::FeeEarned { scid, .. } => self.orders.get(scid).copied(),
            LedgerEntry::Forwarded { from, to, .. } => self
                .of_channel(to.as_ref())
                .or(self.of_channel(from.as_ref())),
            _ => None,
        };
        self.post(at, sale, &Sums::of(entry));
    }

    /// A channel that is closed did not bring back all it held.
    pub(super) fn closed(&mut self, channel: &ChannelId, cost_msat: i64) {
        let bound = self.channels.get(channel);
        let at = bound.and_then(|bound| bound.ended).unwrap_or(self.last);
        let sale = bound.and_then(|bound| bound.sale);
        let sums = Sums {
            closing_cost_msat: cost_msat,
            ..Sums::default()
        };
        self.post(at, sale, &sums);
    }

    fn chain_fee(&mut self, at: Millis, sale: Sale, fee_sat: i64) {
        let sums = Sums {
            chain_fees_sat: fee_sat,
            ..Sums::default()
        };
        self.post(at, sale, &sums);
    }

    fn of_open(&self, open: OpenId) -> Sale {
        self.orders.get(&open.scid()).copied()
    }

    fn of_channel(&self, channel: Option<&ChannelId>) -> Sale {
        self.channels.get(channel?)?.sale
    }

    /// Who bears the fee of a transaction that takes from closed channels: each by what it gives, the last what is left.
    fn shares(&self, fee: i64, parts: &[ChainPart]) -> Vec<(Sale, i64)> {
        let sat = |part: &ChainPart| i128::from(part.sat);
        let all = parts
            .iter()
            .fold(0, |sum: i128, p| sum.saturating_add(sat(p)));
        let mut left = fee;
        let mut shares: Vec<(Sale, i64)> = Vec::new();
        for part in parts {
            let share = i128::from(fee).saturating_mul(sat(part)).checked_div(all);
            let share = share.and_then(|s| i64::try_from(s).ok()).unwrap_or(0);
            left = left.saturating_sub(share);
            shares.push((self.of_channel(Some(&part.channel)), share));
        }
        match shares.last_mut() {
            Some((_, share)) => *share = share.saturating_add(left),
            None => shares.push((None, fee)),
        }
        shares
    }

    fn post(&mut self, at: Millis, sale: Sale, sums: &Sums) {
        if *sums == Sums::default() {
            return;
        }
        self.whole.add(sums);
        let asked = self.question;
        if at < asked.since_ms || at >= asked.until_ms || !self.is_asked(sale) {
            return;
        }
        self.total.sums.add(sums);
        if let Some(name) = self.name(at, sale) {
            self.lines.entry(name).or_default().sums.add(sums);
        }
    }

    /// From now on this much more capital is bound, or less: until the end of what is asked, as far as is known.
    fn bind(&mut self, at: Millis, sale: Sale, sat: i128) {
        let asked = self.question;
        if !self.is_asked(sale) || at >= asked.until_ms {
            return;
        }
        let at = at.max(asked.since_ms);
        let until_end = sat.saturating_mul(asked.until_ms.since(at).into());
        self.total.capital = self.total.capital.saturating_add(until_end);
        let Some(name) = self.name(at, sale) else {
            return;
        };
        let line = self.lines.entry(name).or_default();
        let Name::Day(day) = name else {
            line.capital = line.capital.saturating_add(until_end);
            return;
        };
        let next = day.saturating_add(1);
        let end = Millis(next.saturating_mul(DAY_MS)).min(asked.until_ms);
        let today = sat.saturating_mul(end.since(at).into());
        line.capital = line.capital.saturating_add(today);
        let risen = self.risen.entry(next).or_default();
        *risen = risen.saturating_add(sat);
    }

    fn is_asked(&self, sale: Sale) -> bool {
        let client = self.question.client;
        client.is_none() || client == sale.and_then(|at| self.sales.get(at)).map(|s| s.0)
    }

    fn name(&self, at: Millis, sale: Sale) -> Option<Name> {
        let sale = sale.and_then(|at| self.sales.get(at));
        Some(match self.question.by? {
            By::Day => Name::Day(day_of(at)),
            By::Client => Name::Client(sale.map(|s| s.0)),
            By::Tier => Name::Tier(sale.and_then(|s| s.1)),
        })
    }

    pub(super) fn finish(mut self) -> Report {
        self.spread();
        let lines = self
            .lines
            .iter()
            .filter(|(_, account)| **account != Account::default());
        Report {
            question: self.question,
            lines: lines
                .map(|(name, account)| line(Some(*name), account))
                .collect(),
            total: line(None, &self.total),
        }
    }

    /// Gives each day what was bound from its first moment on.
    fn spread(&mut self) {
        let until = self.question.until_ms;
        let mut bound: i128 = 0;
        let mut risen = std::mem::take(&mut self.risen).into_iter().peekable();
        let Some((first, _)) = risen.peek().copied() else {
            return;
        };
        for day in first..=day_of(until) {
            while let Some((_, sat)) = risen.next_if(|(at, _)| *at <= day) {
                bound = bound.saturating_add(sat);
            }
            let begin = Millis(day.saturating_mul(DAY_MS));
            let length = until.since(begin).min(DAY_MS);
            if bound != 0 && length != 0 {
                let line = self.lines.entry(Name::Day(day)).or_default();
                let whole = bound.saturating_mul(length.into());
                line.capital = line.capital.saturating_add(whole);
            }
        }
    }
}

fn day_of(at: Millis) -> u64 {
    at.0.checked_div(DAY_MS).unwrap_or(0)
}

fn line(name: Option<Name>, account: &Account) -> Line {
    let mut line = Line {
        sums: account.sums,
        net_msat: account.sums.net_msat(),
        capital_sat_days: account
            .capital
            .checked_div(DAY_MS.into())
            .and_then(|days| u64::try_from(days).ok())
            .unwrap_or(0),
        ..Line::default()
    };
    match name {
        Some(Name::Day(day)) => {
            let text = format_datetime(Millis(day.saturating_mul(DAY_MS)));
            line.day = text.split('T').next().map(str::to_owned);
        }
        Some(Name::Client(client)) => line.client = client,
        Some(Name::Tier(tier)) => line.tier = tier,
        None => {}
    }
    line
}
