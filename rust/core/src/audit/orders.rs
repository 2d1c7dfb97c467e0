//! The accounts of sales: what an order earns, from parts that came, and that each fee is earned once.

use std::collections::BTreeMap;

use super::books::Finding;
use super::chain::ChainBook;
use super::channels::ChannelBook;
use crate::amount::Msat;
use crate::ids::{ChannelId, OpenId, PartId, PaymentHash, Scid};
use crate::ledger::LedgerEntry;

#[derive(Default)]
pub(super) struct OrderBook {
    orders: BTreeMap<Scid, Sale>,
    /// Opening fees that forwards kept and no order has earned yet: the amount and the row.
    kept: Vec<(Msat, Option<u64>)>,
    /// Forwards of which LDK did not say how much was an opening fee.
    late: u64,
    /// Chain fees booked for orders.
    costs: BTreeMap<OpenId, Cost>,
}

struct Cost {
    seq: Option<u64>,
    txid: String,
    fee_sat: u64,
}

/// A channel of an order.
struct Opened {
    seq: Option<u64>,
    open: OpenId,
    txid: String,
}

#[derive(Default)]
struct Sale {
    /// The price, once it is known.
    fee: Option<Msat>,
    earned: Msat,
    /// The row that earned it.
    earned_at: Option<u64>,
    opened: BTreeMap<ChannelId, Opened>,
    parts: BTreeMap<PartId, (PaymentHash, Msat)>,
    complete: bool,
    paid: bool,
    ended: bool,
}

impl OrderBook {
    pub(super) fn enter(
        &mut self,
        seq: Option<u64>,
        entry: &LedgerEntry,
        channels: &ChannelBook,
    ) -> Result<(), String> {
        match entry {
            LedgerEntry::OrderSold { scid, fee, .. } => {
                let sale = Sale {
                    fee: *fee,
                    ..Sale::default()
                };
                match self.orders.insert(*scid, sale) {
                    Some(sale) if !sale.paid && !sale.ended => {
                        Err(format!("{scid} is sold, and its order was not over"))
                    }
                    _ => Ok(()),
                }
            }
            LedgerEntry::PartAccepted {
                scid,
                part,
                payment_hash,
                declared,
            } => {
                let sale = self.sale(scid)?;
                let first = sale.parts.insert(*part, (*payment_hash, *declared));
                match first {
                    Some(_) => Err(format!("part {part} of order {scid} came twice")),
                    None => Ok(()),
                }
            }
            LedgerEntry::PartRefused { scid, .. }
            | LedgerEntry::OpenRequested { scid, .. }
            | LedgerEntry::OpenEnded { scid, .. } => self.sale(scid).map(drop),
            LedgerEntry::SetComplete {
                scid,
                payment_hash,
                parts,
                sum,
                fee,
            } => {
                let sale = self.sale(scid)?;
                sale.fee.get_or_insert(*fee);
                sale.complete(scid, payment_hash, *parts, *sum)
            }
            LedgerEntry::ChannelOpened {
                scid,
                open,
                channel,
                funding,
                value_sat,
                ..
            } => {
                let opened = Opened {
                    seq,
                    open: *open,
                    txid: funding.txid.clone(),
                };
                if self.sale(scid)?.opened.insert(*channel, opened).is_some() {
                    return Err(format!("channel {channel} of order {scid} is opened twice"));
                }
                match channels.get(channel) {
                    None => Err(format!(
                        "channel {channel} of order {scid} was never funded"
                    )),
                    Some(a) if a.funding != *funding || a.value_sat != *value_sat => Err(format!(
                        "channel {channel} was funded otherwise than order {scid} says"
                    )),
                    Some(_) => Ok(()),
                }
            }
            LedgerEntry::ChannelClosed { scid, channel, .. } => {
                self.sale(scid)?;
                match channels.get(channel) {
                    None => Err(format!(
                        "channel {channel} of order {scid} was never funded"
                    )),
                    Some(_) => Ok(()),
                }
            }
            LedgerEntry::ChainCost {
                scid,
                open,
                txid,
                fee_sat,
            } => {
                self.sale(scid)?;
                let cost = Cost {
                    seq,
                    txid: txid.clone(),
                    fee_sat: *fee_sat,
                };
                match self.costs.insert(*open, cost) {
                    Some(_) => Err(format!("the cost of open {open} is booked twice")),
                    None => Ok(()),
                }
            }
            LedgerEntry::FeeEarned {
                scid,
                payment_hash,
                amount,
                channel,
                reuse,
                ..
            } => {
                let sale = self.sale(scid)?;
                if !reuse && !sale.opened.contains_key(channel) {
                    return Err(format!(
                        "order {scid} earned on channel {channel}, which it never opened"
                    ));
                }
                sale.earned_at = seq;
                self.fee_earned(scid, payment_hash, *amount)
            }
            LedgerEntry::OrderPaid { scid, fee, .. } => {
                let sale = self.sale(scid)?;
                if sale.paid {
                    return Err(format!("order {scid} is paid twice"));
                }
                sale.paid = true;
                if !sale.complete {
                    return Err(format!(
                        "order {scid} is paid, and its parts never were complete"
                    ));
                }
                sale.expect(scid, *fee)
            }
            LedgerEntry::OrderOwed { scid, earned, .. } => self.sale(scid)?.expect(scid, *earned),
            LedgerEntry::OrderEnded { scid, earned, .. } => {
                let sale = self.sale(scid)?;
                if sale.ended || sale.paid {
                    return Err(format!("order {scid} ends unpaid, and was paid or over"));
                }
                sale.ended = true;
                sale.expect(scid, *earned)
            }
            LedgerEntry::Forwarded { skim, late, .. } => {
                if *late {
                    self.late = self.late.saturating_add(1);
                } else if *skim > Msat::ZERO {
                    self.kept.push((*skim, seq));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sale(&mut self, scid: &Scid) -> Result<&mut Sale, String> {
        self.orders
            .get_mut(scid)
            .ok_or_else(|| format!("order {scid} was never sold"))
    }

    fn fee_earned(&mut self, scid: &Scid, hash: &PaymentHash, amount: Msat) -> Result<(), String> {
        let sale = self.sale(scid)?;
        sale.earned = sale.earned.checked_add(amount).unwrap_or(sale.earned);
        let came = sale.parts.values().any(|(of, _)| of == hash);
        if !came {
            return Err(format!(
                "order {scid} earned from payment {hash}, of which no part came"
            ));
        }
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == amount) {
            self.kept.swap_remove(at);
            return Ok(());
        }
        self.late = self
            .late
            .checked_sub(1)
            .ok_or_else(|| format!("order {scid} earned {} msat that no forward kept", amount.0))?;
        Ok(())
    }

    pub(super) fn compare(&self, chain: &ChainBook) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for (skim, seq) in &self.kept {
            // What is not written yet has no order's row yet.
            if seq.is_some() {
                let why = format!("an opening fee of {} msat that no order earned", skim.0);
                findings.push((*seq, why));
            }
        }
        for (open, cost) in &self.costs {
            if let Some(fee) = chain.fee_of(&cost.txid) {
                if fee != Some(cost.fee_sat) {
                    let why = format!(
                        "open {open} is booked to cost {} sat, its funding transaction costs {fee:?}",
                        cost.fee_sat
                    );
                    findings.push((cost.seq, why));
                }
            }
        }
        for (scid, sale) in &self.orders {
            if !sale.paid
                && sale
                    .fee
                    .is_some_and(|fee| fee > Msat::ZERO && sale.earned >= fee)
            {
                let why = format!("order {scid} earned its price, and no row says that it is paid");
                findings.push((sale.earned_at, why));
            }
            for (channel, opened) in &sale.opened {
                let booked = self.costs.contains_key(&opened.open);
                if !booked && chain.fee_of(&opened.txid).is_some() {
                    let why = format!("channel {channel} is funded, and its cost is not booked");
                    findings.push((opened.seq, why));
                }
            }
        }
        findings
    }
}

impl Sale {
    fn complete(
        &mut self,
        scid: &Scid,
        hash: &PaymentHash,
        parts: u32,
        sum: Msat,
    ) -> Result<(), String> {
        self.complete = true;
        let came = self.parts.values().filter(|(of, _)| of == hash);
        let (count, total) = came.fold((0_u32, Msat::ZERO), |(count, total), (_, declared)| {
            let total = total.checked_add(*declared).unwrap_or(total);
            (count.saturating_add(1), total)
        });
        if count < parts || total < sum {
            return Err(format!(
                "order {scid}: {parts} parts of {} msat are complete, {count} of {} came",
                sum.0, total.0
            ));
        }
        Ok(())
    }

    fn expect(&self, scid: &Scid, earned: Msat) -> Result<(), String> {
        if self.earned == earned {
            return Ok(());
        }
        Err(format!(
            "order {scid}: {} msat earned, by its rows {}",
            earned.0, self.earned.0
        ))
    }
}
