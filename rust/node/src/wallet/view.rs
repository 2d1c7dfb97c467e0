//! BDK's wallet, and what it finds only by going through all transactions, kept until one may have changed.

use bdk_wallet::chain::CanonicalizationParams;
use bdk_wallet::{LocalOutput, Wallet as Bdk};
use bitcoin::Txid;
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
