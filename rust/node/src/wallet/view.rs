//! BDK's wallet, and what it finds only by going through all transactions, kept until one may have changed.

use bdk_wallet::chain::{CanonicalizationParams, ChainPosition};
use bdk_wallet::{LocalOutput, Wallet as Bdk};
use bitcoin::{OutPoint, Transaction, Txid};
use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Deref;

/// BDK's wallet, to be read; changed only through [`View::change`] and [`View::rest`].
pub(super) struct View {
    bdk: Bdk,
    unspent: OnceCell<Vec<LocalOutput>>,
    standing: OnceCell<HashSet<Txid>>,
}

impl Deref for View {
    type Target = Bdk;

    fn deref(&self) -> &Bdk {
        &self.bdk
    }
}

impl View {
    pub(super) fn new(bdk: Bdk) -> Self {
        Self {
            bdk,
            unspent: OnceCell::new(),
            standing: OnceCell::new(),
        }
    }

    /// For what may change transactions or blocks.
    pub(super) fn change(&mut self) -> &mut Bdk {
        self.unspent.take();
        self.standing.take();
        &mut self.bdk
    }

    /// Takes in a transaction that was sent. One that is new and conflicts with none, as each of this wallet's own, costs
    /// no walk: channels are opened under load.
    pub(super) fn sent(&mut self, tx: &Transaction, at: u64) {
        if !self.only_adds(tx) {
            self.change().apply_unconfirmed_txs([(tx.clone(), at)]);
            return;
        }
        self.bdk.apply_unconfirmed_txs([(tx.clone(), at)]);
        let txid = tx.compute_txid();
        let Some(node) = self.bdk.tx_graph().get_tx_node(txid) else {
            return; // nothing of this wallet's
        };
        let chain_position = ChainPosition::Unconfirmed {
            first_seen: node.first_seen,
            last_seen: node.last_seen,
        };
        if let Some(standing) = self.standing.get_mut() {
            standing.insert(txid);
        }
        let index = self.bdk.spk_index();
        if let Some(unspent) = self.unspent.get_mut() {
            let spent: HashSet<_> = tx.input.iter().map(|input| input.previous_output).collect();
            unspent.retain(|coin| !spent.contains(&coin.outpoint));
            for (vout, txout) in (0..).zip(&tx.output) {
                let place = index.index_of_spk(txout.script_pubkey.clone());
                if let Some(&(keychain, derivation_index)) = place {
                    unspent.push(LocalOutput {
                        outpoint: OutPoint { txid, vout },
                        txout: txout.clone(),
                        keychain,
                        is_spent: false,
                        derivation_index,
                        chain_position,
                    });
                }
            }
            unspent.sort_by_key(|coin| (coin.keychain, coin.derivation_index, coin.outpoint));
        }
    }

    /// Whether a transaction, once known, changes nothing about those that are: none, nor itself, spends what it spends;
    /// none spends it; and what it hangs on stands.
    fn only_adds(&self, tx: &Transaction) -> bool {
        let graph = self.bdk.tx_graph();
        let txid = tx.compute_txid();
        let mut outputs = (0..)
            .zip(&tx.output)
            .map(|(vout, _)| OutPoint { txid, vout });
        let mut inputs = tx.input.iter().map(|input| input.previous_output);
        let hangs_well = |at: OutPoint| graph.get_tx(at.txid).is_none() || self.stands(&at.txid);
        outputs.all(|at| graph.outspends(at).is_empty())
            && inputs.all(|at| graph.outspends(at).is_empty() && hangs_well(at))
    }

    /// For what changes neither: addresses, transactions to be, what is to be stored.
    pub(super) fn rest(&mut self) -> &mut Bdk {
        &mut self.bdk
    }

    /// The coins: each look costs BDK a walk through all transactions there ever were.
    pub(super) fn unspent(&self) -> &[LocalOutput] {
        self.unspent
            .get_or_init(|| self.bdk.list_unspent().collect())
    }

    /// Whether a transaction is in a block or, as far as is known, in a mempool, and none that conflicts with it is.
    pub(super) fn stands(&self, txid: &Txid) -> bool {
        let standing = self.standing.get_or_init(|| {
            let (graph, chain) = (self.bdk.tx_graph(), self.bdk.local_chain());
            let tip = chain.tip().block_id();
            let all = graph.list_canonical_txs(chain, tip, CanonicalizationParams::default());
            all.map(|tx| tx.tx_node.txid).collect()
        });
        standing.contains(txid)
    }
}
