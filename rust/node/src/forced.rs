//! Brings home what a channel closed by force holds, when a reorganisation made LDK lose sight of its commitment transaction.
//!
//! LDK 0.2.7 drops its claim on a funding output when the chain goes back below the height at which it made it, although
//! the output is still there, and makes it anew only for a commitment transaction that confirms: it is published again.
//!
//! It passes over a commitment transaction of its own that is in a block again, if it has settled an HTLC by it before: that
//! takes six blocks, and to settle the close takes as many as our output is delayed. What that output holds is handed over.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bitcoin::OutPoint;
use lightning::chain::channelmonitor::Balance;
use lightning::ln::types::ChannelId;
use lightning::sign::SpendableOutputDescriptor;

use crate::convert;
use crate::ldk::Monitor;
use crate::node::{descriptor_sat, Node};
use crate::sync::lock;
use crate::wallet::Wallet;

const TARGET: &str = "ldkjit::forced";

/// What LDK has lost sight of, as of the last block.
#[derive(Default)]
pub struct Forced {
    /// Closed channels whose money waits for a commitment transaction that LDK does not publish. One look is not enough to
    /// act: a channel that is being closed, perhaps by agreement, is gone from LDK's channels a moment before its
    /// transaction is known.
    forgotten: Mutex<HashSet<ChannelId>>,
    /// What LDK still counts of those whose commitment transaction it passed over, sat.
    passed_over: Mutex<HashMap<ChannelId, u64>>,
}

impl Forced {
    /// Of what LDK says that closed channels hold, what the sweeper or the wallet has, sat.
    pub fn counted_twice(&self) -> u64 {
        let passed_over = lock(&self.passed_over);
        passed_over
            .values()
            .fold(0, |sum, sat| sum.saturating_add(*sat))
    }
}

/// What a commitment transaction that its monitor passed over pays this node.
pub struct PassedOver {
    /// All of it, sat: LDK goes on to count it.
    pub sat: u64,
    /// Of it, what no block has the spend of.
    pub unspent: Vec<SpendableOutputDescriptor>,
}

/// Whether this is what a channel pays once a commitment transaction has spent its funding.
pub fn awaits_close(balance: &Balance) -> bool {
    matches!(balance, Balance::ClaimableOnChannelClose { .. })
}

/// What a commitment transaction that its monitor passed over pays this node, once it may be spent.
pub fn passed_over(wallet: &Wallet, monitor: &Monitor) -> Option<PassedOver> {
    let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
    let (closing, height) = wallet.spender_in_block(&funding)?;
    // Six blocks deep or more, so that its monitor has seen it.
    let mut outputs = monitor.get_spendable_outputs(&closing, height);
    let counted = monitor.get_claimable_balances().iter().any(awaits_close);
    if outputs.is_empty() || !counted {
        return None;
    }
    let sat = outputs
        .iter()
        .fold(0, |sum: u64, o| sum.saturating_add(descriptor_sat(o)));
    // Four weeks after it has spent one the sweeper has forgotten it, and would try it again with all others.
    outputs.retain(|o| wallet.spender_in_block(&convert::spendable(o)).is_none());
    Some(PassedOver {
        sat,
        unspent: outputs,
    })
}

/// Gives the sweeper what monitors passed over. It takes each once.
pub async fn hand_over(node: &Node) {
    let mut now = HashMap::new();
    for id in node.monitors.list_monitors() {
        let found = match node.monitors.get_monitor(id) {
            Ok(monitor) => passed_over(&node.parts.wallet, &monitor),
            Err(()) => None,
        };
        let Some(PassedOver { sat, unspent }) = found else {
            continue;
        };
        let outputs = node.not_found_before(unspent);
        let tracked = node
            .sweeper
            .track_spendable_outputs(outputs, Some(id), true, None);
        if tracked.await.is_ok() {
            now.insert(id, sat);
        }
    }
    let before = std::mem::replace(&mut *lock(&node.forced.passed_over), now.clone());
    for id in now.keys().filter(|id| !before.contains_key(*id)) {
        node.parts.log.warn(
            TARGET,
            format_args!("channel {id}: its monitor passed over its commitment transaction, which is swept all the same"),
        );
    }
}

/// After a block: what is unspent in chain and mempool, and was so a block ago, is spent.
pub async fn look(node: Arc<Node>) {
    // A node that recovers must not: its commitment transactions may be revoked.
    if node.recovery.is_some() {
        return;
    }
    let forgotten = forgotten(&node);
    let now = forgotten.iter().map(|(id, _)| *id).collect();
    let before = std::mem::replace(&mut *lock(&node.forced.forgotten), now);
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
            let idle = !monitor.has_pending_claims() && !node.closings.agreed(&funding);
            (idle && balances.iter().any(awaits_close)).then_some((id, funding))
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
