//! The chain's side of the ledger: which transaction changed what the wallet holds, and what it is for.

use std::collections::{HashMap, HashSet};

use bdk_wallet::{ChangeSet, Wallet as Bdk};
use bitcoin::{OutPoint, Script, Transaction, Txid};
use ldkjit_core::ids::{ChannelId, OpenId};
use ldkjit_core::ledger::{ChainPart, LedgerEntry, Purpose};
use serde::{Deserialize, Serialize};

use crate::commit::Boot;
use crate::error::NodeError;

const FUNDINGS: &str = "books/funding";
const CONTESTED: &str = "books/contested";

/// A value to be stored: kind, key, value.
pub type Put = (String, String, Vec<u8>);

/// What the wallet's transactions are told apart by. Changed together with the wallet, and stored with it.
#[derive(Default)]
pub struct Books {
    /// The funding outputs of all channels there were.
    fundings: HashMap<OutPoint, Funding>,
    channels: HashSet<ChannelId>,
    /// Transactions with outputs that belong to closed channels.
    contested: HashMap<Txid, Contested>,
    /// The wallet's transactions that are booked, and for how much, sat.
    live: HashMap<Txid, i64>,
    puts: Vec<Put>,
    rows: Vec<LedgerEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Funding {
    channel: ChannelId,
    value_sat: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contested {
    channel: ChannelId,
    /// Spends a funding output; else it spends an output of such a transaction.
    closes: bool,
    /// The outputs' values, sat; absent for what already is the wallet's.
    outputs: Vec<Option<u64>>,
}

impl Books {
    /// As the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(boot: &mut Boot) -> Result<Self, NodeError> {
        let corrupt = || NodeError::new("store_corrupt", "the books cannot be read".to_owned());
        let mut books = Self::default();
        for (key, value) in boot.take(FUNDINGS) {
            let at = key.parse().map_err(|_| corrupt())?;
            let funding: Funding = serde_json::from_slice(&value).map_err(|_| corrupt())?;
            books.channels.insert(funding.channel);
            books.fundings.insert(at, funding);
        }
        for (key, value) in boot.take(CONTESTED) {
            let txid = key.parse().map_err(|_| corrupt())?;
            let contested = serde_json::from_slice(&value).map_err(|_| corrupt())?;
            books.contested.insert(txid, contested);
        }
        Ok(books)
    }

    /// What the wallet holds as it is loaded is booked: rows and wallet are always written together.
    pub fn open(&mut self, bdk: &Bdk) {
        self.live = transactions(bdk);
    }

    /// From now on what spends this channel's funding output is known.
    pub fn track(&mut self, at: OutPoint, channel: ChannelId, value_sat: u64) {
        let funding = Funding { channel, value_sat };
        self.put(FUNDINGS, at.to_string(), &funding);
        self.channels.insert(channel);
        self.fundings.insert(at, funding);
    }

    /// Whether a channel was ever tracked.
    #[must_use]
    pub fn knows(&self, channel: &ChannelId) -> bool {
        self.channels.contains(channel)
    }

    /// Looks at a transaction before the wallet does; `ours` if this node sent it.
    pub fn watch(&mut self, bdk: &Bdk, tx: &Transaction, ours: bool) {
        let closes = tx
            .input
            .iter()
            .find_map(|input| self.fundings.get(&input.previous_output).cloned());
        let channel = match &closes {
            Some(funding) => funding.channel,
            None => {
                let spent = tx.input.iter().find_map(|input| {
                    let of = self.contested.get(&input.previous_output.txid)?;
                    let sat = output(of, input.previous_output)?;
                    (of.closes && sat > 0).then_some(of.channel)
                });
                // What the peer does with its own outputs is its own affair.
                match spent {
                    Some(channel) if ours || touches(bdk, tx) => channel,
                    _ => return,
                }
            }
        };
        let txid = tx.compute_txid();
        if self.contested.contains_key(&txid) {
            return;
        }
        let outputs = tx
            .output
            .iter()
            .map(|o| (!is_mine(bdk, &o.script_pubkey)).then_some(o.value.to_sat()))
            .collect();
        let contested = Contested {
            channel,
            closes: closes.is_some(),
            outputs,
        };
        if let Some(funding) = closes {
            self.rows.push(LedgerEntry::ChannelSpent {
                channel,
                txid: txid.to_string(),
                fee_sat: funding.value_sat.saturating_sub(sum_out(tx)),
            });
        }
        self.put(CONTESTED, txid.to_string(), &contested);
        self.contested.insert(txid, contested);
    }

    /// Whether a transaction that was looked at closes a channel.
    pub fn closes(&self, tx: &Transaction) -> bool {
        let known = self.contested.get(&tx.compute_txid());
        known.is_some_and(|contested| contested.closes)
    }

    /// Books what the wallet has learnt. `open_of` knows the funding transactions of opens.
    pub fn changed(
        &mut self,
        bdk: &Bdk,
        changes: &ChangeSet,
        open_of: &dyn Fn(&Transaction) -> Option<OpenId>,
    ) {
        let graph = &changes.tx_graph;
        // A new transaction that takes nobody's coins stands. Only if there is a conflict, or blocks were replaced,
        // all have to be looked at.
        let known = |txid: &Txid| self.live.contains_key(txid);
        let simple = graph.txs.iter().all(|tx| {
            bdk.tx_graph().direct_conflicts(tx).next().is_none()
                && tx.input.iter().all(|input| {
                    let parent = input.previous_output.txid;
                    bdk.tx_graph().get_tx(parent).is_none()
                        || known(&parent)
                        || graph.txs.iter().any(|tx| tx.compute_txid() == parent)
                })
        });
        let new: HashSet<Txid> = graph.txs.iter().map(|tx| tx.compute_txid()).collect();
        let seen = graph.anchors.iter().map(|(_, txid)| txid);
        let revived = seen
            .chain(graph.last_seen.keys())
            .any(|txid| !known(txid) && !new.contains(txid));
        let replaced = changes.local_chain.blocks.values().any(Option::is_none)
            || changes.local_chain.blocks.len() > 1;
        if simple && !revived && !replaced && graph.last_evicted.is_empty() {
            for tx in &graph.txs {
                self.book(bdk, tx, open_of);
            }
            return;
        }
        let now = transactions(bdk);
        let gone: Vec<(Txid, i64)> = self
            .live
            .iter()
            .filter(|(txid, delta)| now.get(*txid) != Some(*delta))
            .map(|(txid, delta)| (*txid, *delta))
            .collect();
        for (txid, delta_sat) in gone {
            self.live.remove(&txid);
            self.rows.push(LedgerEntry::ChainUndone {
                txid: txid.to_string(),
                delta_sat,
            });
        }
        for txid in now.keys() {
            if let Some(tx) = bdk.tx_graph().get_tx(*txid) {
                self.book(bdk, &tx, open_of);
            }
        }
    }

    /// Books one transaction, unless it is booked or none of the wallet's.
    fn book(
        &mut self,
        bdk: &Bdk,
        tx: &Transaction,
        open_of: &dyn Fn(&Transaction) -> Option<OpenId>,
    ) {
        let txid = tx.compute_txid();
        if self.live.contains_key(&txid) || !touches(bdk, tx) {
            return;
        }
        let delta_sat = delta(bdk, tx);
        self.live.insert(txid, delta_sat);
        let closes = self.contested.get(&txid).filter(|c| c.closes);
        if let Some(closes) = closes {
            self.rows.push(LedgerEntry::Chain {
                txid: txid.to_string(),
                delta_sat,
                paid_sat: 0,
                fee_sat: None,
                purpose: Purpose::Close,
                open: None,
                parts: part(closes.channel, u64::try_from(delta_sat).unwrap_or(0)),
            });
            return;
        }
        let mut own = 0_u64;
        let mut parts: Vec<ChainPart> = Vec::new();
        let mut foreign = false;
        for input in &tx.input {
            let at = input.previous_output;
            let contested = self.contested.get(&at.txid);
            if let Some(coin) = bdk
                .tx_graph()
                .get_txout(at)
                .filter(|coin| is_mine(bdk, &coin.script_pubkey))
            {
                own = own.saturating_add(coin.value.to_sat());
            } else if let Some((of, sat)) = contested.and_then(|of| Some((of, output(of, at)?))) {
                match parts.iter_mut().find(|p| p.channel == of.channel) {
                    Some(known) => known.sat = known.sat.saturating_add(sat),
                    None => parts.extend(part(of.channel, sat)),
                }
            } else {
                foreign = true;
            }
        }
        let taken = parts.iter().fold(0_u64, |s, p| s.saturating_add(p.sat));
        // What an HTLC transaction leaves to be swept belongs to the channel still.
        let mut left = 0_u64;
        if let Some(of) = self.contested.get(&txid) {
            left = of
                .outputs
                .iter()
                .flatten()
                .fold(0, |s, sat| s.saturating_add(*sat));
            if let Some(known) = parts.iter_mut().find(|p| p.channel == of.channel) {
                known.sat = known.sat.saturating_sub(left);
            }
            parts.retain(|p| p.sat > 0);
        }
        let mine = tx
            .output
            .iter()
            .filter(|o| is_mine(bdk, &o.script_pubkey))
            .fold(0_u64, |s, o| s.saturating_add(o.value.to_sat()));
        let out = sum_out(tx);
        let fee_sat = own
            .saturating_add(taken)
            .checked_sub(out)
            .filter(|_| !foreign);
        let paid_sat = match fee_sat {
            Some(_) => out.saturating_sub(mine).saturating_sub(left),
            None => 0,
        };
        let open = (own > 0).then(|| open_of(tx)).flatten();
        let purpose = match (taken > 0, own > 0) {
            (true, true) => Purpose::Bump,
            (true, false) => Purpose::Claim,
            (false, false) => Purpose::Received,
            (false, true) if open.is_some() => Purpose::Funding,
            (false, true) if paid_sat == 0 && fee_sat.is_some() => Purpose::Split,
            (false, true) => Purpose::Sent,
        };
        self.rows.push(LedgerEntry::Chain {
            txid: txid.to_string(),
            delta_sat,
            paid_sat,
            fee_sat,
            purpose,
            open: open.filter(|_| purpose == Purpose::Funding),
            parts,
        });
    }

    fn put<T: Serialize>(&mut self, kind: &str, key: String, value: &T) {
        // Plain structures of numbers and text: writing them has no error.
        let value = serde_json::to_vec(value).unwrap_or_default();
        self.puts.push((kind.to_owned(), key, value));
    }

    /// Takes what is to be written.
    pub fn take(&mut self) -> (Vec<Put>, Vec<LedgerEntry>) {
        (
            std::mem::take(&mut self.puts),
            std::mem::take(&mut self.rows),
        )
    }
}

/// The wallet's transactions that stand, and what each changes, sat.
#[must_use]
pub fn transactions(bdk: &Bdk) -> HashMap<Txid, i64> {
    bdk.transactions()
        .map(|tx| (tx.tx_node.txid, delta(bdk, &tx.tx_node.tx)))
        .collect()
}

fn delta(bdk: &Bdk, tx: &Transaction) -> i64 {
    let (sent, received) = bdk.sent_and_received(tx);
    let signed = |amount: bitcoin::Amount| i64::try_from(amount.to_sat()).unwrap_or(i64::MAX);
    signed(received).saturating_sub(signed(sent))
}

fn touches(bdk: &Bdk, tx: &Transaction) -> bool {
    let coin = |at| bdk.tx_graph().get_txout(at);
    let mine = |script: &Script| is_mine(bdk, script);
    tx.output.iter().any(|o| mine(&o.script_pubkey))
        || tx
            .input
            .iter()
            .any(|i| coin(i.previous_output).is_some_and(|o| mine(&o.script_pubkey)))
}

fn is_mine(bdk: &Bdk, script: &Script) -> bool {
    bdk.derivation_of_spk(script.to_owned()).is_some()
}

fn output(of: &Contested, at: OutPoint) -> Option<u64> {
    let index = usize::try_from(at.vout).ok()?;
    of.outputs.get(index).copied().flatten()
}

fn part(channel: ChannelId, sat: u64) -> Vec<ChainPart> {
    vec![ChainPart { channel, sat }]
}

fn sum_out(tx: &Transaction) -> u64 {
    tx.output
        .iter()
        .fold(0_u64, |sum, o| sum.saturating_add(o.value.to_sat()))
}
