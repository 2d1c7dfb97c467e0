//! What the chain holds, and another one instead: every satoshi of a close is found in blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Transaction, Txid};
use ldkjit_node::node::Node;
use serde_json::{json, Value};

use super::{coins_sat, somebody_else, until, World, PATIENCE};

/// The value of an anchor output, sat.
pub const ANCHOR: u64 = 330;

/// Every transaction of the best chain, with its height.
pub struct Blocks(BTreeMap<Txid, (u32, Transaction)>);

impl Blocks {
    /// What a transaction pays to the miner, sat.
    pub fn fee(&self, tx: &Transaction) -> u64 {
        let spent = tx.input.iter().map(|input| {
            let from = input.previous_output;
            self.0[&from.txid].1.output[from.vout as usize]
                .value
                .to_sat()
        });
        let paid = tx.output.iter().map(|output| output.value.to_sat());
        spent.sum::<u64>() - paid.sum::<u64>()
    }

    /// All transactions after this height that are no miner's.
    pub fn after(&self, height: u32) -> Vec<&Transaction> {
        let later = self.0.values().filter(|(at, _)| *at > height);
        later
            .map(|(_, tx)| tx)
            .filter(|tx| !tx.is_coinbase())
            .collect()
    }

    /// The transaction that spends an output.
    pub fn spender(&self, spent: OutPoint) -> Option<&Transaction> {
        let all = self.0.values().map(|(_, tx)| tx);
        all.into_iter()
            .find(|tx| tx.input.iter().any(|input| input.previous_output == spent))
    }

    /// The outputs of a transaction that nobody has spent.
    pub fn unspent(&self, tx: &Transaction) -> Vec<OutPoint> {
        let txid = tx.compute_txid();
        let outputs = (0..tx.output.len()).map(|vout| OutPoint::new(txid, vout as u32));
        outputs.filter(|o| self.spender(*o).is_none()).collect()
    }
}

impl World {
    /// All there is.
    pub async fn blocks(&self) -> Blocks {
        let mut all = BTreeMap::new();
        for height in 0..=self.chain.best_block().await.unwrap().height {
            let hash = self.chain.block_hash(height).await.unwrap();
            for tx in self.chain.block(&hash).await.unwrap().txdata {
                all.insert(tx.compute_txid(), (height, tx));
            }
        }
        Blocks(all)
    }

    /// The last blocks go, and nothing takes their place yet.
    pub async fn undo(&self, depth: u32) {
        let tip = self.chain.best_block().await.unwrap().height;
        let first = self.chain.block_hash(tip - depth + 1).await.unwrap();
        let gone = json!([first.to_string()]);
        self.chain.call("invalidateblock", gone).await.unwrap();
    }

    /// The last blocks go, and one more than they were take their place: with what is unconfirmed in them, or empty.
    pub async fn reorganise(&self, depth: u32, with_all: bool, nodes: &[&Arc<Node>]) {
        self.undo(depth).await;
        for _ in 0..=depth {
            if with_all {
                self.mine_to(&somebody_else().to_string(), 1).await;
            } else {
                self.mine_exactly(&[]).await;
            }
        }
        self.in_step(nodes).await;
    }

    /// One block of these transactions and no others, given by id or in full.
    pub async fn mine_exactly(&self, txs: &[String]) {
        let order = json!([somebody_else().to_string(), txs]);
        self.chain.call("generateblock", order).await.unwrap();
    }

    /// Mines until nothing of these nodes is on its way from a closed channel, and all they sent is in a block.
    pub async fn mine_home(&self, nodes: &[&Arc<Node>]) {
        let home = |node: &&Arc<Node>| {
            let open = node.cm.list_channels();
            let open: Vec<_> = open.iter().collect();
            let closed = node.monitors.get_claimable_balances(&open);
            node.balances()["pending_sweep_sat"] == 0
                && closed.is_empty()
                && node.parts.wallet.unconfirmed().is_empty()
        };
        let mut quiet = 0;
        // An HTLC may take 144 blocks at each of two nodes and, to hide who is paid, up to 432 more.
        for _ in 0..1_500 {
            self.mine(1, nodes).await;
            // An output is nowhere while it passes from a monitor to the sweeper.
            until("it is handed over", || {
                nodes.iter().all(|node| node.hand_over.is_done())
            })
            .await;
            quiet = if nodes.iter().all(home) { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        for node in nodes {
            let open = node.cm.list_channels();
            let closed = node
                .monitors
                .get_claimable_balances(&open.iter().collect::<Vec<_>>());
            let unconfirmed = node.parts.wallet.unconfirmed();
            let sweeps = &node.balances()["pending_sweep_sat"];
            let alias = &node.config.alias;
            eprintln!("{alias}: {sweeps} sat to be swept, {closed:?}, {unconfirmed:#?}");
        }
        panic!("never home");
    }

    /// These nodes' coins, once this is what they have.
    pub async fn have(&self, nodes: &[&Arc<Node>], sat: u64) {
        until("their coins", || {
            nodes.iter().map(|node| coins_sat(node)).sum::<u64>() == sat
        })
        .await;
    }

    /// The unconfirmed transaction that spends an output.
    pub async fn unconfirmed_spender(&self, spent: OutPoint) -> Option<Txid> {
        self.chain.spenders(&[spent]).await.unwrap().remove(0)
    }

    /// The same, once there is one.
    pub async fn comes_to_be_spent(&self, spent: OutPoint) -> Txid {
        let found = async {
            loop {
                if let Some(txid) = self.unconfirmed_spender(spent).await {
                    return txid;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("nothing spends {spent}"))
    }

    /// A transaction in full.
    pub async fn raw(&self, txid: &Txid) -> Value {
        let order = json!([txid.to_string()]);
        self.chain.call("getrawtransaction", order).await.unwrap()
    }
}
