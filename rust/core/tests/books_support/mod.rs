//! A small node that keeps books, for the tests of what is made of them: what it does, what it holds, what it wrote.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_wrap
)]

use std::collections::BTreeMap;

use ldkjit_core::amount::Msat;
use ldkjit_core::audit::{ChannelView, Truth};
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::ledger::{ChainPart, LedgerEntry, Purpose, SoldTier};
use ldkjit_core::menu::TrustModel;
use ldkjit_core::seal::{seal, Link};
use ldkjit_core::time::Millis;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::common;

/// When the first row is about to be written.
pub const BEGIN_MS: u64 = 1_795_000_000_000;
const RESERVE: u64 = 1_000;
const ANCHORS: u64 = 660;

/// What the node may do; where it cannot, it does nothing.
#[derive(Clone, Debug)]
pub enum Op {
    Receive {
        sat: u64,
    },
    Send {
        sat: u64,
    },
    Open {
        value_sat: u64,
        push_msat: u64,
        by_us: bool,
    },
    Pay {
        by: Index,
        msat: u64,
    },
    Claim {
        by: Index,
        msat: u64,
    },
    Forward {
        by: Index,
        to: Index,
        msat: u64,
        fee: u64,
    },
    Sell {
        from: Index,
        msat: u64,
        skim: u64,
        parts: u8,
    },
    Agree {
        which: Index,
    },
    Force {
        which: Index,
    },
    Sweep {
        which: Index,
    },
    Undo,
    Refuse,
}

pub fn op() -> impl Strategy<Value = Op> {
    let at = any::<Index>;
    let msat = || 1_u64..3_000_000;
    prop_oneof![
        2 => (10_000_u64..9_000_000).prop_map(|sat| Op::Receive { sat }),
        1 => (1_000_u64..50_000).prop_map(|sat| Op::Send { sat }),
        3 => (20_000_u64..90_000, 0_u64..9_000_000, any::<bool>())
            .prop_map(|(value_sat, push_msat, by_us)| Op::Open { value_sat, push_msat, by_us }),
        3 => (at(), msat()).prop_map(|(by, msat)| Op::Pay { by, msat }),
        3 => (at(), msat()).prop_map(|(by, msat)| Op::Claim { by, msat }),
        3 => (at(), at(), msat(), 0_u64..1_000)
            .prop_map(|(by, to, msat, fee)| Op::Forward { by, to, msat, fee }),
        3 => (at(), 100_000_u64..3_000_000, 1_u64..50_000, 1_u8..3)
            .prop_map(|(from, msat, skim, parts)| Op::Sell { from, msat, skim, parts }),
        1 => at().prop_map(|which| Op::Agree { which }),
        1 => at().prop_map(|which| Op::Force { which }),
        1 => at().prop_map(|which| Op::Sweep { which }),
        1 => Just(Op::Undo),
        1 => Just(Op::Refuse),
    ]
}

pub struct Chan {
    pub id: ChannelId,
    pub value_sat: u64,
    pub ours: u64,
    pub by_us: bool,
}

/// The node: what it holds, and what it wrote.
#[derive(Default)]
pub struct Model {
    pub rows: Vec<LedgerEntry>,
    wallet: BTreeMap<String, i64>,
    pub open: Vec<Chan>,
    /// Closed by force: what is there to be swept, sat.
    closing: BTreeMap<ChannelId, u64>,
    /// The last transaction, if nothing depends on it.
    last: Option<String>,
    next: u64,
    orders: u64,
}

impl Model {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn id(&mut self) -> [u8; 32] {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.number().to_be_bytes());
        id
    }

    fn coins(&self) -> i64 {
        self.wallet.values().sum()
    }

    fn chain(
        &mut self,
        delta_sat: i64,
        paid_sat: u64,
        fee_sat: Option<u64>,
        purpose: Purpose,
        open: Option<OpenId>,
        parts: Vec<ChainPart>,
    ) -> String {
        let txid = format!("{:064x}", self.number());
        self.wallet.insert(txid.clone(), delta_sat);
        self.last = None;
        self.rows.push(LedgerEntry::Chain {
            txid: txid.clone(),
            delta_sat,
            paid_sat,
            fee_sat,
            purpose,
            open,
            parts,
        });
        txid
    }

    fn spend(&mut self, sat: u64, purpose: Purpose, open: Option<OpenId>) -> Option<(String, u64)> {
        let fee = 100 + self.next;
        if self.coins() < (sat + fee) as i64 {
            return None;
        }
        let delta = -((sat + fee) as i64);
        Some((
            self.chain(delta, sat, Some(fee), purpose, open, vec![]),
            fee,
        ))
    }

    fn fund(
        &mut self,
        value_sat: u64,
        push: u64,
        by_us: bool,
        order: Option<Scid>,
    ) -> Option<(Chan, OpenId, Outpoint, u64)> {
        let open = match order {
            Some(scid) => OpenId::new(scid, Millis(0), 1),
            None => OpenId(u128::from(self.number())),
        };
        let (txid, fee) = if by_us {
            self.spend(value_sat, Purpose::Funding, Some(open))?
        } else {
            (format!("{:064x}", self.number()), 0)
        };
        let chan = Chan {
            id: ChannelId(self.id()),
            value_sat,
            ours: if by_us {
                value_sat * 1_000 - push
            } else {
                push
            },
            by_us,
        };
        let funding = Outpoint { txid, vout: 1 };
        self.rows.push(LedgerEntry::ChannelFunded {
            channel: chan.id,
            peer: common::node(2),
            open,
            funding: funding.clone(),
            value_sat,
            balance: Some(Msat(chan.ours)),
            by_us,
        });
        Some((chan, open, funding, fee))
    }

    fn pick(&self, at: &Index) -> Option<usize> {
        (!self.open.is_empty()).then(|| at.index(self.open.len()))
    }

    fn end(&mut self, chan: &Chan) {
        self.rows.push(LedgerEntry::ChannelEnded {
            channel: chan.id,
            balance: Some(Msat(chan.ours)),
            reason: "a test".into(),
        });
    }

    #[allow(clippy::too_many_lines)]
    pub fn act(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::Receive { sat } => {
                let txid = self.chain(*sat as i64, 0, None, Purpose::Received, None, vec![]);
                self.last = Some(txid);
            }
            Op::Send { sat } => drop(self.spend(*sat, Purpose::Sent, None)?),
            Op::Open {
                value_sat,
                push_msat,
                by_us,
            } => {
                let (chan, ..) = self.fund(*value_sat, *push_msat, *by_us, None)?;
                self.open.push(chan);
            }
            Op::Pay { by, msat } => {
                let at = self.pick(by)?;
                let hash = PaymentHash(self.id());
                let chan = &mut self.open[at];
                chan.ours = chan.ours.checked_sub(*msat)?;
                self.rows.push(LedgerEntry::PathPaid {
                    payment_hash: hash,
                    channel: Some(chan.id),
                    amount: Msat(*msat),
                    fee: Msat(msat / 100),
                });
            }
            Op::Claim { by, msat } => {
                let at = self.pick(by)?;
                let hash = PaymentHash(self.id());
                let chan = &mut self.open[at];
                if chan.ours + msat > chan.value_sat * 1_000 {
                    return None;
                }
                chan.ours += msat;
                self.rows.push(LedgerEntry::HtlcClaimed {
                    payment_hash: hash,
                    channel: chan.id,
                    amount: Msat(*msat),
                    skimmed: Msat(msat / 50),
                });
            }
            Op::Forward { by, to, msat, fee } => {
                let (by, to) = (self.pick(by)?, self.pick(to)?);
                self.forward(by, to, msat + fee, *msat, 0)?;
            }
            Op::Sell {
                from,
                msat,
                skim,
                parts,
            } => self.sell(from, *msat, *skim, u64::from(*parts))?,
            Op::Agree { which } => {
                let at = self.pick(which)?;
                let chan = self.open.remove(at);
                self.end(&chan);
                let txid = format!("{:064x}", self.number());
                let fee = if chan.by_us { 300 } else { 0 };
                let out = (chan.ours / 1_000).saturating_sub(fee);
                self.rows.push(LedgerEntry::ChannelSpent {
                    channel: chan.id,
                    txid: txid.clone(),
                    fee_sat: 300 + u64::from(!chan.ours.is_multiple_of(1_000)),
                });
                if out > 0 {
                    let parts = vec![ChainPart {
                        channel: chan.id,
                        sat: out,
                    }];
                    self.chain(out as i64, 0, None, Purpose::Close, None, parts);
                }
            }
            Op::Force { which } => {
                let at = self.pick(which)?;
                let chan = self.open.remove(at);
                self.end(&chan);
                let txid = format!("{:064x}", self.number());
                let cost = if chan.by_us { 500 + ANCHORS } else { 0 };
                let out = (chan.ours / 1_000).saturating_sub(cost);
                self.rows.push(LedgerEntry::ChannelSpent {
                    channel: chan.id,
                    txid,
                    // Both sides are rounded down.
                    fee_sat: 500 + u64::from(!chan.ours.is_multiple_of(1_000)),
                });
                if out > 600 {
                    self.closing.insert(chan.id, out);
                }
            }
            Op::Sweep { which } => {
                let ids: Vec<_> = self.closing.keys().copied().collect();
                if ids.is_empty() {
                    return None;
                }
                let channel = ids[which.index(ids.len())];
                let sat = self.closing.remove(&channel)?;
                let parts = vec![ChainPart { channel, sat }];
                let fee = 150;
                let delta = (sat - fee) as i64;
                self.chain(delta, 0, Some(fee), Purpose::Claim, None, parts);
            }
            Op::Undo => {
                let txid = self.last.take()?;
                let delta_sat = self.wallet[&txid];
                if self.coins() < delta_sat {
                    return None;
                }
                self.wallet.remove(&txid);
                self.rows.push(LedgerEntry::ChainUndone { txid, delta_sat });
            }
            Op::Refuse => self.rows.push(LedgerEntry::Refused {
                counts: BTreeMap::from([("client not served".to_owned(), 3)]),
            }),
        }
        Some(())
    }

    fn forward(&mut self, by: usize, to: usize, came: u64, went: u64, skim: u64) -> Option<()> {
        let room = self.open[by].value_sat * 1_000 - self.open[by].ours;
        if by == to || self.open[to].ours < went || room < came {
            return None;
        }
        self.open[by].ours += came;
        self.open[to].ours -= went;
        self.rows.push(LedgerEntry::Forwarded {
            from: Some(self.open[by].id),
            to: Some(self.open[to].id),
            received: Some(Msat(came)),
            sent: Some(Msat(went)),
            skim: Msat(skim),
            late: false,
        });
        Some(())
    }

    /// A channel is sold, opened and paid for by the first payment through it.
    fn sell(&mut self, from: &Index, msat: u64, skim: u64, parts: u64) -> Option<()> {
        let by = self.pick(from)?;
        let room = self.open[by].value_sat * 1_000 - self.open[by].ours;
        let value_sat = msat / 1_000 + 20_000;
        if room < msat * parts || self.coins() < 1_000_000 {
            return None;
        }
        self.orders += 1;
        let scid = Scid(self.orders);
        let client = client_of(self.orders);
        let hash = PaymentHash(self.id());
        self.rows.push(LedgerEntry::OrderSold {
            scid,
            client,
            size: Some(Msat(msat * parts)),
            fee: Some(Msat(skim * parts)),
            trust: TrustModel::LspTrustsClient,
            reserved_sat: 0,
            tier: Some(tier_of(self.orders)),
        });
        for _ in 0..parts {
            let part = PartId(self.id());
            self.rows.push(LedgerEntry::PartAccepted {
                scid,
                part,
                payment_hash: hash,
                declared: Msat(msat),
            });
        }
        self.rows.push(LedgerEntry::SetComplete {
            scid,
            payment_hash: hash,
            parts: u32::try_from(parts).unwrap(),
            sum: Msat(msat * parts),
            fee: Msat(skim * parts),
        });
        let (chan, open, funding, fee_sat) = self.fund(value_sat * parts, 0, true, Some(scid))?;
        let channel = chan.id;
        self.open.push(chan);
        self.rows.push(LedgerEntry::ChannelOpened {
            scid,
            client,
            open,
            channel,
            funding: funding.clone(),
            value_sat: value_sat * parts,
        });
        self.rows.push(LedgerEntry::ChainCost {
            scid,
            open,
            txid: funding.txid,
            fee_sat,
        });
        let to = self.open.len() - 1;
        for _ in 0..parts {
            self.forward(by, to, msat, msat - skim, skim)?;
            self.rows.push(LedgerEntry::FeeEarned {
                scid,
                client,
                channel,
                payment_hash: hash,
                amount: Msat(skim),
                reuse: false,
            });
        }
        self.rows.push(LedgerEntry::OrderPaid {
            scid,
            client,
            channel,
            fee: Msat(skim * parts),
            min_lifetime: 144,
        });
        Some(())
    }

    pub fn truth(&self) -> Truth {
        Truth {
            transactions: self.wallet.clone(),
            wallet_sat: u64::try_from(self.coins()).unwrap(),
            channels: self.open.iter().map(view).collect(),
            closing: self.closing.clone(),
            ..Truth::default()
        }
    }
}

/// Who buys by the order of this number: one of three.
fn client_of(order: u64) -> NodeId {
    common::node(3 + u8::try_from(order % 3).unwrap())
}

/// What it is sold by: one of two.
fn tier_of(order: u64) -> SoldTier {
    SoldTier {
        min_fee: Msat(1_000 * (order % 2 + 1)),
        proportional_ppm: 4_000,
        min_payment: Msat(1),
        max_payment: Msat(1_000_000_000),
        min_lifetime: 144,
    }
}

/// As LDK shows a channel without HTLCs.
pub fn view(chan: &Chan) -> ChannelView {
    let kept = |by: bool| (RESERVE + if by { ANCHORS } else { 0 }) * 1_000;
    let theirs = chan.value_sat * 1_000 - chan.ours;
    ChannelView {
        channel: chan.id,
        value_msat: chan.value_sat * 1_000,
        outbound_msat: chan.ours.saturating_sub(kept(chan.by_us)),
        inbound_msat: theirs.saturating_sub(kept(!chan.by_us)),
        kept_msat: kept(chan.by_us),
        their_kept_msat: kept(!chan.by_us),
        htlcs: vec![],
    }
}

pub fn live(ops: &[Op]) -> Model {
    let mut model = Model::default();
    model.act(&Op::Receive { sat: 20_000_000 });
    for op in ops {
        model.act(op);
    }
    model
}

/// The rows as they are written, `step_ms` apart.
pub fn written(rows: &[LedgerEntry], step_ms: u64) -> Vec<(u64, Vec<u8>)> {
    let mut link = Link::default();
    (1_u64..)
        .zip(rows)
        .map(|(seq, entry)| {
            let (bytes, next) = seal(link, seq, BEGIN_MS + seq * step_ms, entry);
            link = next;
            (seq, bytes)
        })
        .collect()
}
