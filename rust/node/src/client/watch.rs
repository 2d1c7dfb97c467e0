//! Watches the funding of zero-conf channels until it is buried: a conflicting spend, or one that never appears, is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitcoin::{Block, OutPoint, Transaction, Txid};
use ldkjit_core::ids::ChannelId;
use serde::{Deserialize, Serialize};

use crate::commit::read_kind;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "watch/funding";
/// Confirmations after which a funding transaction is no longer watched.
const BURIED: u32 = 6;
/// Blocks after which a funding transaction that nobody has seen is warned of.
const OVERDUE: u32 = 3;

/// One funding transaction that the balance depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watch {
    channel: ChannelId,
    funding: OutPoint,
    /// What it spends, once it was seen.
    inputs: Vec<OutPoint>,
    /// The height at which the preimage was released.
    since: u32,
    /// Whether it was warned of since the start.
    #[serde(skip)]
    warned: bool,
}

/// Every funding transaction that is watched.
#[derive(Default)]
pub struct Watches(Mutex<BTreeMap<ChannelId, Watch>>);

impl Watches {
    /// The watches as the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let watches: Vec<(String, Watch)> = read_kind(live, KIND, "watch")?;
        let by_channel = watches.into_iter().map(|(_, watch)| (watch.channel, watch));
        Ok(Self(Mutex::new(by_channel.collect())))
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
                warned: false,
            },
        );
    }

    fn keep(&self, node: &Node, watch: Watch) {
        if let Ok(bytes) = serde_json::to_vec(&watch) {
            node.parts
                .journal
                .put(KIND, watch.channel.to_string(), bytes);
            lock(&self.0).insert(watch.channel, watch);
        }
    }

    fn drop(&self, node: &Node, channel: &ChannelId) {
        lock(&self.0).remove(channel);
        node.parts.journal.delete(KIND, channel.to_string());
    }

    /// Once is enough: there is a look with every block.
    fn note_warned(&self, channel: &ChannelId) {
        if let Some(watch) = lock(&self.0).get_mut(channel) {
            watch.warned = true;
        }
    }

    fn all(&self) -> Vec<Watch> {
        lock(&self.0).values().cloned().collect()
    }
}

/// Looks at every watched funding transaction: after a claim, and after each block.
pub async fn look(node: Arc<Node>) {
    let watches = node.client.watches.all();
    if watches.is_empty() {
        return;
    }
    let tip = *node.tip.borrow();
    let block = node.chain.block(&tip.hash).await.ok();
    for watch in watches {
        if let Err(e) = look_at(&node, watch, block.as_ref()).await {
            node.parts
                .log
                .debug("client", format_args!("funding not looked at: {e}"));
        }
    }
}

async fn look_at(node: &Node, mut watch: Watch, block: Option<&Block>) -> Result<(), NodeError> {
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
    let open = node
        .cm
        .list_channels()
        .iter()
        .any(|c| c.channel_id.0 == watch.channel.0);
    if !open {
        node.client.watches.drop(node, &watch.channel);
        return Ok(());
    }
    let spent = |tx: &Transaction| {
        tx.input
            .iter()
            .any(|i| watch.inputs.contains(&i.previous_output))
    };
    let in_block = block.and_then(|block| {
        let txs = block.txdata.iter().filter(|tx| spent(tx));
        txs.map(Transaction::compute_txid).find(|id| *id != txid)
    });
    let in_mempool = node.chain.spenders(&watch.inputs).await?;
    let conflict: Option<Txid> = in_block.or(in_mempool.into_iter().flatten().find(|t| *t != txid));
    if let Some(conflict) = conflict {
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
    } else if !watch.warned && node.height().saturating_sub(watch.since) >= OVERDUE {
        node.client.watches.note_warned(&watch.channel);
        node.parts.log.warn(
            "client",
            format_args!(
                "the funding {txid} of channel {} has not been seen since height {}",
                watch.channel, watch.since
            ),
        );
    }
    Ok(())
}
