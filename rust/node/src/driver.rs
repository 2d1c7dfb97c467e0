//! The loops: LDK's events and forwards, the chain, LSPS messages, timers.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, Transaction};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::events::{Event, ReplayEvent};
use lightning_block_sync::init::synchronize_listeners;
use lightning_block_sync::poll::{ChainPoller, ChainTip, ValidatedBlockHeader};
use lightning_block_sync::{SpvClient, UnboundedCache};

use ldkjit_core::clock::{self, Skew};
use ldkjit_core::lsps0::{side_of, Side};
use ldkjit_core::time::Millis;

use crate::alarms::Alarm;
use crate::chain::bitcoind::Bitcoind;
use crate::chain::headers::Headers;
use crate::chain::ChainError;
use crate::client::watch;
use crate::config::ChainConfig;
use crate::crash;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::forced;
use crate::handler;
use crate::ldk::{self, ChannelManager, Monitor, Parts, Sweeper};
use crate::left;
use crate::log::now_ms;
use crate::lsp::{webhooks, Service};
use crate::lsps::{Inbox, Incoming};
use crate::node::{Node, Tip};

const PEER_TICK: Duration = Duration::from_secs(10);
const CHANNEL_TICK: Duration = Duration::from_secs(60);
const REBROADCAST: Duration = Duration::from_secs(30);
const ANNOUNCE: Duration = Duration::from_secs(60);
const KEEP_GRAPH: Duration = Duration::from_secs(3_600);
const FEES: Duration = Duration::from_secs(60);

/// Brings wallet, monitors, manager and sweeper to one tip before anything is forwarded.
///
/// # Errors
/// `chain` when blocks cannot be had.
pub async fn catch_up(
    parts: &Parts,
    chain: &Arc<Bitcoind>,
    network: Network,
    monitors: &mut Vec<(BlockHash, Monitor)>,
    manager: (BlockHash, &Arc<ChannelManager>),
    sweeper: (BlockHash, &Arc<Sweeper>),
) -> Result<ValidatedBlockHeader, NodeError> {
    let watched: Vec<_> = monitors
        .drain(..)
        .map(|(hash, monitor)| {
            let listener = (
                monitor,
                parts.broadcaster.clone(),
                parts.fees.clone(),
                parts.log.clone(),
            );
            (hash, listener)
        })
        .collect();
    let mut groups: BTreeMap<BlockHash, Group<'_>> = BTreeMap::new();
    for (hash, listener) in &watched {
        groups.entry(*hash).or_default().0.push(listener);
    }
    let mut listeners: Vec<(BlockHash, &(dyn Listen + Send + Sync))> = vec![
        (parts.wallet.best_block().block_hash, &*parts.wallet),
        (manager.0, &**manager.1),
        (sweeper.0, &**sweeper.1),
    ];
    for (hash, group) in &groups {
        listeners.push((*hash, group));
    }
    let mut cache = UnboundedCache::new();
    let source = Headers::of(chain.as_ref());
    let tip = synchronize_listeners(&source, network, &mut cache, listeners)
        .await
        .map_err(|e| match e.into_inner().downcast::<ChainError>() {
            Ok(error) => NodeError::from(*error),
            Err(e) => NodeError::chain("behind", format!("blocks since the last stop: {e}")),
        })?;
    monitors.extend(
        watched
            .into_iter()
            .map(|(hash, (monitor, _, _, _))| (hash, monitor)),
    );
    Ok(tip)
}

/// Monitors that know the same last block: the way from there is looked for once.
#[derive(Default)]
struct Group<'a>(Vec<&'a (dyn Listen + Send + Sync)>);

impl Listen for Group<'_> {
    fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        for each in &self.0 {
            each.filtered_block_connected(header, txdata, height);
        }
    }

    fn block_connected(&self, block: &Block, height: u32) {
        for each in &self.0 {
            each.block_connected(block, height);
        }
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        for each in &self.0 {
            each.blocks_disconnected(fork_point);
        }
    }
}

/// Every block goes to all that follow the chain.
struct Listeners(Arc<Node>);

impl Listeners {
    /// Coins first, since a channel may spend them.
    fn connect(&self, tell: impl Fn(&dyn Listen)) {
        let node = &self.0;
        tell(&*node.parts.wallet);
        tell(&*node.cm);
        node.hand_over.during(|| tell(&*node.monitors));
        tell(&*node.sweeper);
        if let Some(recovery) = &node.recovery {
            tell(&**recovery);
        }
    }

    /// Monitors before the manager, which closes the channels whose funding is gone: told afterwards that the chain is
    /// below the height at which they began to, monitors would forget what they are to publish for that.
    fn disconnect(&self, tell: impl Fn(&dyn Listen)) {
        let node = &self.0;
        tell(&*node.parts.wallet);
        node.hand_over.during(|| tell(&*node.monitors));
        tell(&*node.cm);
        tell(&*node.sweeper);
        if let Some(recovery) = &node.recovery {
            tell(&**recovery);
        }
    }
}

impl Listen for Listeners {
    fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        self.connect(|each| each.filtered_block_connected(header, txdata, height));
    }

    fn block_connected(&self, block: &Block, height: u32) {
        self.connect(|each| each.block_connected(block, height));
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        self.disconnect(|each| each.blocks_disconnected(fork_point));
    }
}

/// Starts every loop of a node.
pub fn spawn_all(node: &Arc<Node>, tip: ValidatedBlockHeader, inbox: Inbox) {
    node.spawn(drive(Arc::clone(node)));
    let (broadcaster, chain) = (node.parts.broadcaster.clone(), node.chain.clone());
    node.spawn(async move { broadcaster.run(&*chain).await });
    node.spawn(follow_chain(Arc::clone(node), tip));
    node.spawn(watch_monitors(Arc::clone(node)));
    node.spawn(read_messages(Arc::clone(node), inbox));
    node.spawn(Arc::clone(node).stay_connected());
    node.spawn(tick(Arc::clone(node)));
    node.spawn(keep_fees(Arc::clone(node)));
    node.spawn(webhooks::run(Arc::clone(node)));
}

/// LDK's events, forwards and messages.
async fn drive(node: Arc<Node>) {
    let delay = Duration::from_millis(node.config.forward_delay_ms);
    loop {
        // Taken before the work, so that nothing that happens during it is missed.
        let news = node.cm.get_event_or_persistence_needed_future();
        let persisted = node.monitors.get_update_future();
        {
            let _gate = node.parts.journal.gate().await;
            handle_events(&node).await;
            if delay.is_zero() && node.cm.needs_pending_htlc_processing() {
                forward(&node);
                handle_events(&node).await;
            }
        }
        node.pm.process_events();
        node.parts.journal.kick();
        if !delay.is_zero() && node.cm.needs_pending_htlc_processing() {
            // Between half and one and a half of it: irregular, as LDK asks for privacy.
            tokio::time::sleep(node.spread(delay, 1_000)).await;
            let _gate = node.parts.journal.gate().await;
            forward(&node);
            continue;
        }
        let mut news = pin!(news);
        let mut persisted = pin!(persisted);
        tokio::select! {
            () = &mut news => {}
            () = &mut persisted => {}
            () = node.wake.notified() => {}
        }
    }
}

fn forward(node: &Node) {
    if let Some(lsp) = &node.lsp {
        lsp.on_forwards();
    }
    node.cm.process_pending_htlc_forwards();
}

/// Handles what is pending at the start.
pub async fn settle(node: &Arc<Node>) {
    let _gate = node.parts.journal.gate().await;
    handle_events(node).await;
}

async fn handle_events(node: &Arc<Node>) {
    node.cm
        .process_pending_events_async(|event: Event| {
            handler::handle(node, event);
            async { Ok::<(), ReplayEvent>(()) }
        })
        .await;
}

/// Follows the best chain; what depends on height is looked at after each block.
async fn follow_chain(node: Arc<Node>, tip: ValidatedBlockHeader) {
    let ChainConfig::Bitcoind(access) = &node.config.chain;
    let pause = Duration::from_millis(access.poll_ms.max(10));
    let listeners = Arc::new(Listeners(Arc::clone(&node)));
    let mut cache = UnboundedCache::new();
    let poller = ChainPoller::new(node.chain.clone(), node.config.network);
    let mut times = vec![tip.header.time];
    let mut client = SpvClient::new(tip, poller, &mut cache, listeners);
    // Blocks that came while the node was away have changed things too.
    node.spawn(watch::look(Arc::clone(&node)));
    let mut last_came = Millis(now_ms());
    loop {
        let trouble = match client.poll_best_tip().await {
            Ok((ChainTip::Better(header), true)) => {
                last_came = Millis(now_ms());
                let before = node.tip.send_replace(Tip {
                    height: header.height,
                    hash: header.to_best_block().block_hash,
                });
                times.push(header.header.time);
                let surplus = times.len().saturating_sub(clock::MEDIAN_OF);
                times.drain(..surplus);
                judge_clock(&node, clock::against_blocks(last_came, &times));
                // Several blocks at once may have taken the place of others.
                if header.header.prev_blockhash != before.hash {
                    node.publish_again();
                }
                on_block(&node).await;
                None
            }
            Ok((ChainTip::Better(_), false)) => {
                // Some of them may have been.
                node.look_at_monitors.notify_one();
                Some("a new tip is announced, but its blocks cannot be had".to_owned())
            }
            // On a regtest blocks come when somebody wants them.
            Ok(_) if node.config.network == Network::Regtest => None,
            Ok(_) => clock::is_without_blocks(last_came, Millis(now_ms()))
                .then(|| "no block for two hours: bitcoind may lag".to_owned()),
            Err(e) => Some(format!("not followed: {}", e.into_inner())),
        };
        match trouble {
            None => node.clear(Alarm::Chain),
            Some(what) => node.raise(Alarm::Chain, what),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.look_at_chain.notified() => {}
        }
    }
}

/// The clock is wrong, or right again.
fn judge_clock(node: &Node, skew: Option<Skew>) {
    let message = match skew {
        None => return node.clear(Alarm::Clock),
        Some(Skew::Behind(ms)) => format!("the clock is {ms} ms or more behind the blocks"),
        Some(Skew::Forward(ms)) => format!("the clock was set forward by {ms} ms"),
        Some(Skew::Back(ms)) => format!("the clock was set back by {ms} ms"),
    };
    node.raise(Alarm::Clock, message);
}

async fn on_block(node: &Arc<Node>) {
    node.forget_capacity();
    {
        let _gate = node.parts.journal.gate().await;
        if let Some(lsp) = &node.lsp {
            lsp.on_block(node);
        }
        node.client.on_block(node);
        node.overdue.on_block(node);
        node.closings.on_block(node.height());
        node.forget_hopeless();
    }
    node.acted_on.send_replace(node.height());
    for received in node.parts.wallet.take_received() {
        node.events.emit(&NodeEvent::OnchainReceived {
            outpoint: received.outpoint.to_string(),
            amount_sat: received.value_sat,
            height: received.height,
        });
    }
    node.look_at_monitors.notify_one();
    node.wake.notify_one();
    node.spawn(watch::look(Arc::clone(node)));
    node.spawn(forced::look(Arc::clone(node)));
    if let Some(lsp) = &node.lsp {
        lsp.fill_pool(node).await;
    }
    node.parts.broadcaster.new_block(node.height());
}

/// Spendable outputs and closes to be paid for. Waits for commits, and so never holds the gate.
async fn watch_monitors(node: Arc<Node>) {
    let bumper = ldk::bumper(&node.parts);
    let mut looked = None;
    loop {
        let seen = node.hand_over.seen();
        node.monitors
            .process_pending_events_async(|event: Event| {
                let (node, bumper) = (&node, &bumper);
                async move {
                    let [before, after] = crash::around_event(&event);
                    crash::point(before);
                    let handled = match event {
                        Event::SpendableOutputs {
                            outputs,
                            channel_id,
                        } => {
                            let outputs = node.not_found_before(outputs);
                            node.sweeper
                                .track_spendable_outputs(outputs, channel_id, true, None)
                                .await
                                .map_err(|()| ReplayEvent())
                        }
                        // Its commitment transaction would not go out: no coins are set aside for it.
                        Event::BumpTransaction(BumpTransactionEvent::ChannelClose {
                            commitment_tx,
                            ..
                        }) if node.recovery.is_some() || is_in_vain(node, &commitment_tx) => Ok(()),
                        Event::BumpTransaction(mut bump) => {
                            if !left::leaves(node, &mut bump) {
                                bumper.handle_event(&bump).await;
                            }
                            // LDK keeps a commitment transaction back that it has no coin to pay more for. A miner may
                            // take it for what it pays itself, and nothing else brings the money home.
                            if let BumpTransactionEvent::ChannelClose { commitment_tx, .. } = &bump
                            {
                                node.parts.broadcaster.at_least(commitment_tx);
                            }
                            Ok(())
                        }
                        _ => Ok(()),
                    };
                    crash::point(after);
                    handled
                }
            })
            .await;
        if let Some(recovery) = &node.recovery {
            recovery.hand_over(&node).await;
        }
        // Only a block brings any.
        if looked != Some(seen) {
            forced::hand_over(&node).await;
            looked = Some(seen);
        }
        node.hand_over.done(seen);
        let _ = node
            .sweeper
            .regenerate_and_broadcast_spend_if_necessary()
            .await;
        tokio::select! {
            () = node.look_at_monitors.notified() => {}
            () = tokio::time::sleep(PEER_TICK) => {}
        }
    }
}

/// Whether a commitment transaction spends a funding that can never be, or that is spent in a block. LDK goes on to try.
fn is_in_vain(node: &Node, commitment: &Transaction) -> bool {
    let wallet = &node.parts.wallet;
    let mut spent = commitment.input.iter().map(|i| i.previous_output);
    spent.any(|at| wallet.has_forgotten(&at.txid) || wallet.spender_in_block(&at).is_some())
}

/// LSPS messages, and who comes and goes.
async fn read_messages(node: Arc<Node>, mut inbox: Inbox) {
    while let Some(incoming) = inbox.next().await {
        #[cfg(feature = "faults")]
        let Some(incoming) = (match &node.config.foreign {
            Some(foreign) => foreign.wire(incoming),
            None => Some(incoming),
        }) else {
            continue;
        };
        match incoming {
            Incoming::Connected(peer) | Incoming::Disconnected(peer) => {
                let connected = matches!(incoming, Incoming::Connected(_));
                if connected {
                    node.meet(&peer);
                }
                let _gate = node.parts.journal.gate().await;
                node.on_presence(&peer, connected);
                node.wake.notify_one();
            }
            Incoming::Flooded(peer) => node.hung_up_on(&peer),
            Incoming::Message(peer, payload) => {
                let asked = node.client.requests.asked(&peer);
                let side = match &node.lsp {
                    Some(_) => side_of(&payload, asked),
                    // Whatever it is, there is no service that could answer it (T-05).
                    None => Side::Client,
                };
                match side {
                    Side::Service => Service::on_message(&node, peer, payload),
                    Side::Client => node.client.requests.on_message(&node, peer, &payload),
                    Side::Nobody => node
                        .parts
                        .log
                        .debug("lsps0", format_args!("{peer} sent something for nobody")),
                }
            }
        }
    }
}

/// LDK's own timers, and the second hand of the orders.
async fn tick(node: Arc<Node>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut peers = tokio::time::interval(PEER_TICK);
    let mut channels = tokio::time::interval(CHANNEL_TICK);
    let mut rebroadcast = tokio::time::interval(REBROADCAST);
    let mut announce = tokio::time::interval(ANNOUNCE);
    let mut graph = tokio::time::interval(KEEP_GRAPH);
    graph.reset();
    let mut last = (Millis(now_ms()), Instant::now());
    loop {
        tokio::select! {
            _ = second.tick() => {
                let now = (Millis(now_ms()), Instant::now());
                let elapsed = now.1.duration_since(last.1).as_millis();
                let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
                if let Some(skew) = clock::against_itself(last.0, now.0, elapsed) {
                    judge_clock(&node, Some(skew));
                }
                last = now;
                node.net.sweep();
                if let Some(lsp) = &node.lsp {
                    let _gate = node.parts.journal.gate().await;
                    lsp.on_second(&node);
                }
            }
            _ = peers.tick() => {
                node.pm.timer_tick_occurred();
                node.net.door.look_again(|peer| node.has_business(peer));
            }
            _ = channels.tick() => node.cm.timer_tick_occurred(),
            _ = rebroadcast.tick() => node.monitors.rebroadcast_pending_claims(),
            _ = announce.tick() => announce_node(&node),
            _ = graph.tick() => {
                node.graph.remove_stale_channels_and_tracking();
                ldk::write_graph(&node.parts.journal, &node.graph, &node.scorer);
            }
        }
    }
}

fn announce_node(node: &Node) {
    if !node.cm.list_channels().iter().any(|c| c.is_announced) {
        return;
    }
    let mut alias = [0; 32];
    alias
        .iter_mut()
        .zip(node.config.alias.as_bytes())
        .for_each(|(to, from)| *to = *from);
    let addresses = node
        .config
        .announce
        .iter()
        .filter_map(|a| a.parse().ok())
        .take(50)
        .collect();
    node.pm
        .broadcast_node_announcement([0; 3], alias, addresses);
}

async fn keep_fees(node: Arc<Node>) {
    let mut interval = tokio::time::interval(FEES);
    interval.reset(); // the start has asked
    loop {
        match node.parts.fees.fresh() {
            Ok(_) => node.clear(Alarm::Fees),
            Err(e) => node.raise(Alarm::Fees, e.to_string()),
        }
        interval.tick().await;
        if let Err(e) = node.parts.fees.refresh(&*node.chain).await {
            node.parts.log.warn("fees", format_args!("{e}"));
        }
    }
}
