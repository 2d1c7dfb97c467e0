//! What an LSP promised: that it leaves a channel open for the lifetime it sold. One that does not is remembered.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ldkjit_core::ids::{ChannelId, NodeId};
use ldkjit_core::ledger::LedgerEntry;
use lightning::events::ClosureReason;
use serde::{Deserialize, Serialize};

use super::ClientOrder;
use crate::commit::read_kind;
use crate::convert;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "promise";

/// One channel whose lifetime was paid for (J-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Promise {
    lsp: NodeId,
    min_lifetime: u32,
    /// The height of its first confirmation, once it has one.
    confirmed_at: Option<u32>,
}

impl Promise {
    fn age(&self, height: u32) -> u32 {
        self.confirmed_at
            .map_or(0, |at| height.saturating_sub(at).saturating_add(1))
    }
}

/// Every promise that is not fulfilled yet.
#[derive(Default)]
pub struct Promises(Mutex<BTreeMap<ChannelId, Promise>>);

impl Promises {
    /// The promises as the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let promises = read_kind(live, KIND, "promise")?;
        Ok(Self(Mutex::new(promises)))
    }

    /// The order is being paid: its channels are to live.
    pub(super) fn add(&self, node: &Node, order: &ClientOrder, channels: &[ChannelId]) {
        for channel in channels {
            let promise = Promise {
                lsp: order.lsp,
                min_lifetime: order.params.min_lifetime,
                confirmed_at: None,
            };
            self.keep(node, *channel, promise);
        }
    }

    fn keep(&self, node: &Node, channel: ChannelId, promise: Promise) {
        if let Ok(bytes) = serde_json::to_vec(&promise) {
            node.parts.journal.put(KIND, channel.to_string(), bytes);
            lock(&self.0).insert(channel, promise);
        }
    }

    fn drop(&self, node: &Node, channel: &ChannelId) -> Option<Promise> {
        let promise = lock(&self.0).remove(channel)?;
        node.parts.journal.delete(KIND, channel.to_string());
        Some(promise)
    }

    /// Channels confirm, and promises are fulfilled.
    pub(super) fn on_block(&self, node: &Node) {
        let open = lock(&self.0).clone();
        if open.is_empty() {
            return;
        }
        let height = node.height();
        let confirmations: BTreeMap<ChannelId, u32> = node
            .cm
            .list_channels()
            .iter()
            .map(|c| {
                (
                    convert::channel(&c.channel_id),
                    c.confirmations.unwrap_or(0),
                )
            })
            .collect();
        for (channel, mut promise) in open {
            let Some(depth) = confirmations.get(&channel) else {
                continue;
            };
            let confirmed_at =
                (*depth > 0).then(|| height.saturating_add(1).saturating_sub(*depth));
            if *depth >= promise.min_lifetime {
                self.drop(node, &channel);
            } else if promise.confirmed_at != confirmed_at {
                promise.confirmed_at = confirmed_at;
                self.keep(node, channel, promise);
            }
        }
    }

    /// A channel closed: if its LSP did it, and too early, that is written down.
    pub fn on_channel_closed(&self, node: &Node, channel: ChannelId, reason: &ClosureReason) {
        let Some(promise) = self.drop(node, &channel) else {
            return;
        };
        let by_lsp = matches!(
            reason,
            ClosureReason::CounterpartyForceClosed { .. }
                | ClosureReason::CounterpartyInitiatedCooperativeClosure
                | ClosureReason::CounterpartyCoopClosedUnfundedChannel
                | ClosureReason::CommitmentTxConfirmed
        );
        let age = promise.age(node.height());
        let (lsp, min_lifetime) = (promise.lsp, promise.min_lifetime);
        if !by_lsp || age >= min_lifetime {
            return;
        }
        node.parts.log.warn(
            "client",
            format_args!(
                "{lsp} closed channel {channel} after {age} of the {min_lifetime} blocks it sold"
            ),
        );
        node.record(&LedgerEntry::LspBrokePromise {
            lsp,
            channel,
            age,
            min_lifetime,
        });
        node.events.emit(&NodeEvent::LspBrokePromise {
            lsp,
            channel_id: channel,
            age_blocks: age,
            min_lifetime_blocks: min_lifetime,
        });
    }
}
