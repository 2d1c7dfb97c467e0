//! Tells of channels whose funding transaction is in no block for long: LDK leaves them open, and their balance unsure.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bitcoin::OutPoint;
use ldkjit_core::ids::ChannelId;
use lightning::ln::channel_state::ChannelDetails;
use serde_json::json;

use crate::commit::read_kind;
use crate::convert;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::lsp::Service;
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "watch/unconfirmed";
/// Told after so many blocks, about a day, and again after as many more.
pub const OVERDUE_BLOCKS: u32 = 144;

/// Each channel without a confirmed funding transaction: the height since which that is known, and the next to tell at.
#[derive(Default)]
pub struct Overdue(Mutex<BTreeMap<ChannelId, (u32, u32)>>);

impl Overdue {
    /// As the store left it.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let known = read_kind(live, KIND, "unconfirmed channel")?;
        Ok(Self(Mutex::new(known)))
    }

    /// A new block: who is confirmed is forgotten, who is overdue is told. The caller holds the gate.
    pub fn on_block(&self, node: &Node) {
        let height = node.height();
        let mut known = lock(&self.0);
        let mut before = std::mem::take(&mut *known);
        for details in node.cm.list_channels() {
            // A funding transaction that is withheld is not late.
            let withheld = |lsp: &Service| lsp.withholds(details.user_channel_id);
            let waits = details.confirmations == Some(0);
            let Some(funding) = details.funding_txo.filter(|_| waits) else {
                continue;
            };
            if node.lsp.as_ref().is_some_and(withheld) {
                continue;
            }
            let channel = convert::channel(&details.channel_id);
            let heights = before.remove(&channel);
            let due = height.saturating_add(OVERDUE_BLOCKS);
            let (since, next) = match heights {
                None => (height, due),
                Some((since, next)) if height >= next => {
                    let funding = funding.into_bitcoin_outpoint();
                    tell(node, &details, &funding, height.saturating_sub(since));
                    (since, due)
                }
                Some(heights) => heights,
            };
            known.insert(channel, (since, next));
            if heights != Some((since, next)) {
                let value = json!([since, next]).to_string().into_bytes();
                node.parts.journal.put(KIND, channel.to_string(), value);
            }
        }
        for channel in before.keys() {
            node.parts.journal.delete(KIND, channel.to_string());
        }
    }
}

/// Tells of a channel whose funding is in none of so many blocks.
pub(crate) fn tell(node: &Node, channel: &ChannelDetails, funding: &OutPoint, blocks: u32) {
    let event = NodeEvent::FundingUnconfirmed {
        channel_id: convert::channel(&channel.channel_id),
        peer: convert::node_id(&channel.counterparty.node_id),
        funding: funding.to_string(),
        blocks,
    };
    node.parts.log.warn(
        "channel",
        format_args!("after {blocks} blocks none holds the funding {funding} of a channel"),
    );
    node.events.emit(&event);
}
