//! Watches the funding of zero-conf channels until it is buried: a conflicting spend, or one that never appears, is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitcoin::{OutPoint, Transaction, Txid};
use ldkjit_core::ids::ChannelId;
use serde::{Deserialize, Serialize};

use crate::chain::ChainError;
use crate::commit::read_kind;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::node::Node;
use crate::overdue;
use crate::sync::lock;

const KIND: &str = "watch/funding";
/// Confirmations after which a funding transaction is no longer watched.
const BURIED: u32 = 6;
/// Blocks after which a funding transaction that is in no block and no mempool is told of.
const OVERDUE: u32 = 3;
/// A week of blocks: nobody looks for a conflict in more of them.
const MOST_BLOCKS: u32 = 1_008;

/// One funding transaction that the balance depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watch {
    channel: ChannelId,
    funding: OutPoint,
    /// What it spends, once it was seen.
    inputs: Vec<OutPoint>,
    /// The height at which the preimage was released.
    since: u32,
    /// Whether it was told of.
    #[serde(default)]
    told: bool,
    /// The height up to which blocks were looked through for a conflict.
    #[serde(default)]
    searched: u32,
}

/// Every funding transaction that is watched.
#[derive(Default)]
pub struct Watches {
    by_channel: Mutex<BTreeMap<ChannelId, Watch>>,
    /// One look at a time: each may take long, and ends with what it keeps.
    turn: tokio::sync::Mutex<()>,
}

impl Watches {
    /// The watches as the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let watches: Vec<(String, Watch)> = read_kind(live, KIND, "watch")?;
        let by_channel = watches.into_iter().map(|(_, watch)| (watch.channel, watch));
        Ok(Self {
            by_channel: Mutex::new(by_channel.collect()),
            ..Self::default()
        })
    }

    /// From now on the balance depends on this funding transaction.
    pub fn add(&self, node: &Node, channel: ChannelId, funding: OutPoint) {
        self.keep(
            node,
            Watch {
                channel,
                funding,
                inputs: Vec::new(),
                since: node.height(),
                told: false,
                searched: 0,
            },
        );
    }

    fn keep(&self, node: &Node, watch: Watch) {
        if let Ok(bytes) = serde_json::to_vec(&watch) {
            node.parts
                .journal
                .put(KIND, watch.channel.to_string(), bytes);
            lock(&self.by_channel).insert(watch.channel, watch);
        }
    }

    fn drop(&self, node: &Node, channel: &ChannelId) {
        lock(&self.by_channel).remove(channel);
        node.parts.journal.delete(KIND, channel.to_string());
    }

    fn all(&self) -> Vec<Watch> {
        lock(&self.by_channel).values().cloned().collect()
    }
}

/// Looks at every watched funding transaction: at the start, after a claim, and after each block.
pub async fn look(node: Arc<Node>) {
    let _turn = node.client.watches.turn.lock().await;
    for watch in node.client.watches.all() {
        if let Err(e) = look_at(&node, watch).await {
            node.parts
                .log
                .debug("client", format_args!("funding not looked at: {e}"));
        }
    }
}

async fn look_at(node: &Node, mut watch: Watch) -> Result<(), NodeError> {
    let txid = watch.funding.txid;
    if let Some(found) = node.chain.tx_out(&watch.funding, true).await? {
        if found.confirmations >= BURIED {
            node.client.watches.drop(node, &watch.channel);
        } else if watch.inputs.is_empty() && found.confirmations == 0 {
            if let Some(tx) = node.chain.unconfirmed(&txid).await? {
                watch.inputs = tx.input.iter().map(|i| i.previous_output).collect();
                node.client.watches.keep(node, watch);
            }
        }
        return Ok(());
    }
    // Not there: spent by the channel's own close, replaced, or never published.
    let channels = node.cm.list_channels();
    let Some(open) = channels.iter().find(|c| c.channel_id.0 == watch.channel.0) else {
        node.client.watches.drop(node, &watch.channel);
        return Ok(());
    };
    // A block has it: what spends it is a commitment transaction, which LDK is about to tell of.
    if open.confirmations.is_some_and(|depth| depth > 0) {
        return Ok(());
    }
    if let Some(conflict) = conflict_of(node, &mut watch).await? {
        node.parts.log.error(
            "client",
            format_args!(
                "the funding of channel {} is double-spent by {conflict}",
                watch.channel
            ),
        );
        node.events.emit(&NodeEvent::FundingConflict {
            channel_id: watch.channel,
            funding: watch.funding.to_string(),
            conflicting_txid: conflict.to_string(),
        });
        node.client.watches.drop(node, &watch.channel);
        return Ok(());
    }
    let blocks = node.height().saturating_sub(watch.since);
    // Once: there is a look with every block.
    if !watch.told && blocks >= OVERDUE {
        overdue::tell(node, open, &watch.funding, blocks);
        watch.told = true;
        node.client.watches.keep(node, watch);
    }
    Ok(())
}

/// Another transaction that spends what the funding spends, in the mempool or in a block: any since the preimage was
/// released, as this node may have been away.
async fn conflict_of(node: &Node, watch: &mut Watch) -> Result<Option<Txid>, NodeError> {
    let txid = watch.funding.txid;
    let in_mempool = node.chain.spenders(&watch.inputs).await?;
    if let Some(conflict) = in_mempool.into_iter().flatten().find(|id| *id != txid) {
        return Ok(Some(conflict));
    }
    let mut is_spent = false;
    for input in &watch.inputs {
        is_spent = is_spent || node.chain.tx_out(input, false).await?.is_none();
    }
    if !is_spent {
        return Ok(None);
    }
    let spends = |tx: &Transaction| {
        let mut inputs = tx.input.iter().map(|i| i.previous_output);
        inputs.any(|input| watch.inputs.contains(&input)) && tx.compute_txid() != txid
    };
    let tip = node.height();
    // Others may have taken the place of the last blocks that were looked through.
    let first = watch.since.max(watch.searched).saturating_sub(BURIED);
    for height in first.max(tip.saturating_sub(MOST_BLOCKS))..=tip {
        let hash = node.chain.block_hash(height).await?;
        let block = match node.chain.block(&hash).await {
            Err(ChainError::Pruned) => continue,
            block => block?,
        };
        let conflict = block.txdata.iter().find(|tx| spends(tx));
        if let Some(conflict) = conflict.map(Transaction::compute_txid) {
            return Ok(Some(conflict));
        }
    }
    watch.searched = tip;
    node.client.watches.keep(node, watch.clone());
    Ok(None)
}
