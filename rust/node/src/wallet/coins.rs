//! Which coins may be spent, and which of them best are.

use super::{confirmed_at, State};
use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::HashSet;

/// bitcoind takes 25 unconfirmed transactions that hang together; some are left for children that raise a fee.
pub(super) const MAX_CLUSTER: usize = 20;
const COINBASE_MATURITY: u32 = 100;
/// The weight of a transaction with one P2WPKH input, a P2WSH output and P2WPKH change.
const ONE_INPUT_WEIGHT: u64 = 612;
/// Change below this is given to the fee (P2WPKH dust limit).
const DUST_SAT: u64 = 294;

/// How far a coin can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Confirmed,
    Change,
    Immature,
    Foreign,
}

/// A coin that may be spent.
pub(super) struct Free {
    pub(super) outpoint: OutPoint,
    pub(super) value_sat: u64,
    kind: Kind,
}

/// What may be spent now, and what may not.
pub(super) struct Coins {
    pub(super) free: Vec<Free>,
    pub(super) sum_sat: u64,
    pub(super) barred: Vec<OutPoint>,
}

impl Coins {
    /// Whether all of these may be spent.
    pub(super) fn hold(&self, coins: &[OutPoint]) -> bool {
        let is_free = |coin: &OutPoint| self.free.iter().any(|free| free.outpoint == *coin);
        coins.iter().all(is_free)
    }
}

impl State {
    /// Whether all of these may be spent, where what they hang on must be so deep.
    pub(super) fn are_free(&self, coins: &[OutPoint], depth: u32) -> bool {
        self.spendable(depth).hold(coins)
    }

    pub(super) fn kind(&self, coin: &LocalOutput, tip: u32) -> Kind {
        let Some(at) = coin.chain_position.confirmation_height_upper_bound() else {
            // Only this wallet pays to its change addresses, and only with transactions that it never replaces.
            return match coin.keychain {
                KeychainKind::Internal => Kind::Change,
                KeychainKind::External => Kind::Foreign,
            };
        };
        let coinbase = self
            .bdk
            .tx_graph()
            .get_tx(coin.outpoint.txid)
            .is_some_and(|tx| tx.is_coinbase());
        if coinbase && confirmations(at, tip) < COINBASE_MATURITY {
            return Kind::Immature;
        }
        Kind::Confirmed
    }

    /// Whether a coin may be spent, where all that it hangs on and that is not this wallet's must be so deep.
    pub(super) fn usable(&self, coin: &LocalOutput, kind: Kind, tip: u32, depth: u32) -> bool {
        let at = coin.chain_position.confirmation_height_upper_bound();
        let deep = at.is_some_and(|at| confirmations(at, tip) >= depth);
        match kind {
            Kind::Confirmed => deep || self.is_settled(coin.outpoint.txid, tip, depth),
            Kind::Change => {
                self.cluster(coin.outpoint.txid) < MAX_CLUSTER
                    && self.is_settled(coin.outpoint.txid, tip, depth)
            }
            Kind::Immature | Kind::Foreign => false,
        }
    }

    /// Whether no reorganisation shallower than this can take a transaction away for good: it is that deep, or wholly of
    /// this wallet's coins, which are sent again, and they are settled.
    fn is_settled(&self, txid: Txid, tip: u32, depth: u32) -> bool {
        let graph = self.bdk.tx_graph();
        let (mut seen, mut todo) = (HashSet::new(), vec![txid]);
        while let Some(txid) = todo.pop() {
            let at = confirmed_at(&self.bdk, &txid);
            let deep = at.is_some_and(|at| confirmations(at, tip) >= depth);
            if deep || !seen.insert(txid) {
                continue;
            }
            let Some(tx) = graph.get_tx(txid) else {
                return false;
            };
            let (own, others) = self.spent_by(&tx);
            if !others.is_empty() {
                return false;
            }
            todo.extend(own.iter().map(|at| at.txid));
        }
        true
    }

    /// What a transaction spends: of this wallet's, and of others.
    pub(super) fn spent_by(&self, tx: &Transaction) -> (Vec<OutPoint>, Vec<OutPoint>) {
        let spent = tx.input.iter().map(|input| input.previous_output);
        spent.partition(|at| {
            let coin = self.bdk.tx_graph().get_txout(*at);
            coin.is_some_and(|coin| self.bdk.is_mine(coin.script_pubkey.clone()))
        })
    }

    /// The number of unconfirmed transactions that hang together with this one, ancestors and descendants, and those
    /// to come that spend locked coins of theirs; counted no further than needed.
    fn cluster(&self, txid: Txid) -> usize {
        let graph = self.bdk.tx_graph();
        let (mut seen, mut todo) = (HashSet::new(), vec![txid]);
        let mut to_come = 0_usize;
        while let Some(txid) = todo.pop() {
            let known = seen.len().saturating_add(to_come);
            let Some(tx) = graph.get_tx(txid).filter(|_| known <= MAX_CLUSTER) else {
                continue;
            };
            if confirmed_at(&self.bdk, &txid).is_some() || !seen.insert(txid) {
                continue;
            }
            todo.extend(tx.input.iter().map(|input| input.previous_output.txid));
            for vout in (0_u32..).take(tx.output.len()) {
                let spends = graph.outspends(OutPoint { txid, vout });
                todo.extend(spends.iter().copied());
            }
            let waiting = self.locks.values().filter(|lock| {
                let mine = |coin: &&OutPoint| coin.txid == txid;
                let spent = |coin: &&OutPoint| !graph.outspends(**coin).is_empty();
                lock.inputs.iter().find(mine).is_some_and(|c| !spent(&c))
            });
            to_come = to_come.saturating_add(waiting.count());
        }
        seen.len().saturating_add(to_come)
    }

    /// What may be spent now: not spoken for, nor another's, nor too young, nor hanging on what is not `depth` deep.
    pub(super) fn spendable(&self, depth: u32) -> Coins {
        let spoken_for = self.spoken_for();
        let tip = self.bdk.latest_checkpoint().height();
        let mut coins = Coins {
            free: Vec::new(),
            sum_sat: 0,
            barred: Vec::new(),
        };
        for coin in self.bdk.unspent() {
            let kind = self.kind(coin, tip);
            let (outpoint, value_sat) = (coin.outpoint, coin.txout.value.to_sat());
            if !spoken_for.contains(&outpoint) && self.usable(coin, kind, tip, depth) {
                coins.sum_sat = coins.sum_sat.saturating_add(value_sat);
                coins.free.push(Free {
                    outpoint,
                    value_sat,
                    kind,
                });
            } else {
                coins.barred.push(outpoint);
            }
        }
        coins
    }
}

/// Of what is in the block at this height.
fn confirmations(at: u32, tip: u32) -> u32 {
    tip.saturating_sub(at).saturating_add(1)
}

/// The smallest coin that alone pays `value_sat` and the fee, with change worth having or none; confirmed ones first.
pub(super) fn least_for(free: &[Free], value_sat: u64, fee_rate: u32) -> Vec<OutPoint> {
    let fee = ONE_INPUT_WEIGHT
        .saturating_mul(u64::from(fee_rate))
        .div_ceil(1_000);
    let needed = value_sat.saturating_add(fee).saturating_add(DUST_SAT);
    free.iter()
        .filter(|coin| coin.value_sat >= needed)
        .min_by_key(|coin| (coin.kind, coin.value_sat))
        .map(|coin| coin.outpoint)
        .into_iter()
        .collect()
}
