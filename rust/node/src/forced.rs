//! Publishes the commitment transaction of a channel closed by force again, when a reorganisation made LDK forget it.
//!
//! LDK 0.2.7 drops its claim on a funding output when the chain goes back below the height at which it made it, although
//! the output is still there, and makes it anew only for a commitment transaction that confirms.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bitcoin::OutPoint;
use lightning::chain::channelmonitor::Balance;
use lightning::ln::types::ChannelId;

use crate::node::Node;
use crate::sync::lock;

const TARGET: &str = "ldkjit::forced";

/// Closed channels whose money waits for a commitment transaction that LDK does not publish, as of the last block.
///
/// One look is not enough to act: a channel that is being closed, perhaps by agreement, is gone from LDK's channels a
/// moment before its transaction is known.
#[derive(Default)]
pub struct Forced(Mutex<HashSet<ChannelId>>);

/// After a block: what is unspent in chain and mempool, and was so a block ago, is spent.
pub async fn look(node: Arc<Node>) {
    // A node that recovers must not: its commitment transactions may be revoked.
    if node.recovery.is_some() {
        return;
    }
    let forgotten = forgotten(&node);
    let now = forgotten.iter().map(|(id, _)| *id).collect();
    let before = std::mem::replace(&mut *lock(&node.forced.0), now);
    for (id, funding) in forgotten.iter().filter(|(id, _)| before.contains(id)) {
        // Or it is spent by a transaction that waits for its block, or not there itself, or not to be known now.
        if let Ok(Some(_)) = node.chain.tx_out(funding, true).await {
            publish(&node, *id);
        }
    }
}

fn forgotten(node: &Node) -> Vec<(ChannelId, OutPoint)> {
    let channels = node.cm.list_channels();
    let open: HashSet<_> = channels.iter().map(|c| c.channel_id).collect();
    let closed = node.monitors.list_monitors().into_iter();
    let closed = closed.filter(|id| !open.contains(id));
    closed
        .filter_map(|id| {
            let monitor = node.monitors.get_monitor(id).ok()?;
            let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
            let balances = monitor.get_claimable_balances();
            let unspent = |b: &Balance| matches!(b, Balance::ClaimableOnChannelClose { .. });
            let idle = !monitor.has_pending_claims() && !node.closings.agreed(&funding);
            (idle && balances.iter().any(unspent)).then_some((id, funding))
        })
        .collect()
}

fn publish(node: &Node, id: ChannelId) {
    let Ok(monitor) = node.monitors.get_monitor(id) else {
        return;
    };
    let parts = &node.parts;
    parts.log.warn(
        TARGET,
        format_args!("channel {id} is closed and its funding output unspent: its commitment transaction is sent again"),
    );
    monitor.broadcast_latest_holder_commitment_txn(&parts.broadcaster, &parts.fees, &parts.log);
    drop(monitor);
    node.look_at_monitors.notify_one();
}
