//! Closes that both agreed to: their transactions are kept, and no commitment transaction goes out in their stead.
//!
//! LDK 0.2.7 forgets over a restart that a channel was closed by agreement, unless the chain has shown it: it publishes
//! its commitment transaction, and pays more for it than the closing transaction does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{OutPoint, Transaction, Txid};
use lightning::ln::types::ChannelId;
use serde::{Deserialize, Serialize};

use crate::commit::read_kind;
use crate::error::NodeError;
use crate::journal::Journal;
use crate::sync::lock;

const KIND: &str = "close/agreed";
/// For so long a restart may find a close that the chain has not shown to LDK.
const KEEP_BLOCKS: u32 = 1_008;
/// BOLT 3: the upper byte of a commitment transaction's locktime.
const COMMITMENT: u32 = 0x20;

#[derive(Clone, Serialize, Deserialize)]
struct Closing {
    tx: String,
    /// The first height at which it was known.
    since: Option<u32>,
}

/// The closing transactions of late, by the funding output that each spends.
pub struct Closings {
    journal: Arc<Journal>,
    known: Mutex<BTreeMap<OutPoint, Closing>>,
    /// No commitment transaction goes out at all: those of this node may be revoked.
    recovering: bool,
}

impl Closings {
    /// As the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(
        journal: Arc<Journal>,
        live: &[(String, String, Vec<u8>)],
        recovering: bool,
    ) -> Result<Self, NodeError> {
        let known = read_kind(live, KIND, "closing transaction")?;
        Ok(Self {
            journal,
            known: Mutex::new(known),
            recovering,
        })
    }

    /// Whether these may be published; a closing transaction among them is kept first. LDK calls from inside the change
    /// that ends the channel, so that both are in one commit.
    pub fn allow(&self, txs: &[&Transaction]) -> bool {
        for tx in txs {
            let Some((funding, agreed)) = spends_channel(tx) else {
                continue;
            };
            let mut known = lock(&self.known);
            if self.recovering && !agreed {
                return false;
            }
            match known.contains_key(&funding) {
                true if !agreed => return false,
                false if agreed => {
                    let closing = Closing {
                        tx: serialize_hex(tx),
                        since: None,
                    };
                    self.put(&funding, &closing);
                    known.insert(funding, closing);
                }
                _ => {}
            }
        }
        true
    }

    /// Whether the channel of this funding output was closed by agreement.
    pub fn agreed(&self, funding: &OutPoint) -> bool {
        lock(&self.known).contains_key(funding)
    }

    /// The transaction by which this channel was closed.
    pub fn of_channel(&self, channel: &ChannelId) -> Option<Txid> {
        let known = lock(&self.known);
        let (_, closing) = known.iter().find(|(funding, _)| {
            let index = u16::try_from(funding.vout).unwrap_or(u16::MAX);
            ChannelId::v1_from_funding_txid(funding.txid.as_ref(), index) == *channel
        })?;
        let tx: Transaction = deserialize_hex(&closing.tx).ok()?;
        Some(tx.compute_txid())
    }

    /// What was closed of late.
    pub fn all(&self) -> Vec<Transaction> {
        let known = lock(&self.known);
        let txs = known.values().map(|closing| deserialize_hex(&closing.tx));
        txs.filter_map(Result::ok).collect()
    }

    /// Forgets what is long over.
    pub fn on_block(&self, height: u32) {
        lock(&self.known).retain(|funding, closing| {
            let Some(since) = closing.since else {
                closing.since = Some(height);
                self.put(funding, closing);
                return true;
            };
            let keep = height.saturating_sub(since) <= KEEP_BLOCKS;
            if !keep {
                self.journal.delete(KIND, funding.to_string());
            }
            keep
        });
    }

    fn put(&self, funding: &OutPoint, closing: &Closing) {
        if let Ok(value) = serde_json::to_vec(closing) {
            self.journal.put(KIND, funding.to_string(), value);
        }
    }
}

/// The channel that a commitment transaction ends, if it is one.
pub fn ended_by_force(tx: &Transaction) -> Option<OutPoint> {
    let (funding, agreed) = spends_channel(tx)?;
    (!agreed).then_some(funding)
}

/// The funding output that a transaction spends by the signatures of both, if it spends one, and whether they agreed to
/// close by it: its witness is that of BOLT 3, nothing, two signatures and the script of two keys.
fn spends_channel(tx: &Transaction) -> Option<(OutPoint, bool)> {
    let [input] = tx.input.as_slice() else {
        return None;
    };
    let script = input.witness.last()?;
    let both = input.witness.len() == 4
        && script.len() == 71
        && script.starts_with(&[0x52, 33])
        && script.ends_with(&[0x52, 0xae]);
    let agreed = tx.lock_time.to_consensus_u32() >> 24 != COMMITMENT;
    both.then_some((input.previous_output, agreed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::commit::Committer;
    use crate::log::Log;
    use crate::store::MemoryStore;
    use bitcoin::hashes::Hash;
    use bitcoin::{absolute, transaction, Amount, ScriptBuf, TxIn, TxOut, Witness};

    fn spend(channel: u8, lock_time: u32, keys: u8) -> Transaction {
        let mut script = vec![0x52];
        for _ in 0..keys {
            script.push(33);
            script.extend([2; 33]);
        }
        script.extend([0x52, 0xae]);
        let mut witness = Witness::new();
        for item in [vec![], vec![1; 71], vec![2; 72], script] {
            witness.push(item);
        }
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::from_consensus(lock_time),
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array([channel; 32]), 0),
                witness,
                ..TxIn::default()
            }],
            output: vec![TxOut {
                value: Amount::from_sat(1_000),
                script_pubkey: ScriptBuf::new(),
            }],
        }
    }

    #[test]
    fn what_was_agreed_is_not_forced_afterwards() {
        let store = MemoryStore::new();
        let (committer, journal, boot) =
            Committer::start(Box::new(store.clone()), Log::silent()).unwrap();
        let closings = Closings::load(Arc::new(journal), &boot.live, false).unwrap();
        let (agreed, forced) = (spend(1, 0, 2), spend(1, COMMITMENT << 24 | 7, 2));
        let other = spend(2, COMMITMENT << 24, 2);
        assert!(closings.allow(&[&forced]), "not closed yet");
        assert!(closings.allow(&[&agreed]));
        assert!(closings.allow(&[&agreed]), "as often as it takes");
        assert!(!closings.allow(&[&forced]));
        assert!(
            !closings.allow(&[&forced, &spend(3, 0, 1)]),
            "nor with its child"
        );
        assert!(closings.allow(&[&other]));
        assert!(closings.allow(&[&spend(4, 0, 1)]), "of no channel");
        closings.on_block(100);
        finish(committer);

        let (_committer, journal, boot) = Committer::start(Box::new(store), Log::silent()).unwrap();
        let closings = Closings::load(Arc::new(journal), &boot.live, false).unwrap();
        assert_eq!(closings.all(), [agreed]);
        closings.on_block(100 + KEEP_BLOCKS);
        assert!(!closings.allow(&[&forced]));
        closings.on_block(101 + KEEP_BLOCKS);
        assert!(closings.allow(&[&forced]));
        assert!(closings.all().is_empty());
    }

    #[test]
    fn a_node_that_recovers_publishes_no_commitment_transaction() {
        let (_committer, journal, boot) =
            Committer::start(Box::new(MemoryStore::new()), Log::silent()).unwrap();
        let closings = Closings::load(Arc::new(journal), &boot.live, true).unwrap();
        let forced = spend(1, COMMITMENT << 24 | 7, 2);
        assert!(!closings.allow(&[&forced]));
        assert!(!closings.allow(&[&spend(3, 0, 1), &forced]));
        assert!(
            closings.allow(&[&spend(1, 0, 2)]),
            "both agreed to this one"
        );
        assert!(closings.allow(&[&spend(4, 0, 1)]), "of no channel");
    }

    fn finish(committer: Committer) {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(committer.shutdown())
            .unwrap();
    }
}
