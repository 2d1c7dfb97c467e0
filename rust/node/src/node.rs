//! The node: assembled from store, keys, chain and LDK; started, stopped, and what its parts share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Transaction, Txid};
use ldkjit_core::ids::{ChannelId, PaymentHash};
use ldkjit_core::ledger::LedgerEntry;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::BestBlock;
use lightning::events::PathFailure;
use lightning::sign::EntropySource;
use lightning::util::config::UserConfig;
use lightning::util::sweep::{OutputSpendStatus, TrackedSpendableOutput};
use serde_json::json;
use tokio::sync::{oneshot, watch, Notify};
use tokio::task::JoinSet;

use crate::alarms::Alarms;
use crate::audit::{self, Ask, Told, STORE_FILE};
use crate::backup::{self, Summary};
use crate::books::Put;
use crate::broadcast::Broadcaster;
use crate::chain::bitcoind::Bitcoind;
use crate::client::Client;
use crate::closings::Closings;
use crate::commit::{Boot, Committer};
use crate::config::{ChainConfig, Config, StoreKind};
use crate::convert::{self, spendable};
use crate::driver;
use crate::error::{NodeError, StoreError};
use crate::events::Events;
use crate::fees::{FeeConfig, Fees};
use crate::forced::Forced;
use crate::forwards::Forwards;
use crate::handover::HandOver;
use crate::identity::Identity;
use crate::inbound::{Fallen, Inbound};
use crate::journal::{Journal, LEDGER};
use crate::keys::{Keys, Seed, SEED_FILE};
use crate::ldk::{
    self, ChainMonitor, ChannelManager, Gossip, Graph, Parts, PeerManager, Scorer, Sweeper,
};
use crate::left::Left;
use crate::log::{now_ms, Log};
use crate::lsp::webhooks::Hooks;
use crate::lsp::Service;
use crate::lsps::Transport;
use crate::net::Net;
use crate::overdue::Overdue;
use crate::payments::Payments;
use crate::recovery::{self, Marker, Recovery};
use crate::reserve::Reserve;
use crate::store::lock::{lock_node, Only};
use crate::store::{MemoryStore, Store};
use crate::sync::lock;
use crate::timeline::Timeline;
use crate::unspent::{self, Checked};
use crate::wallet::{self, Wallet};

/// In the data folder of a node that has a store.
const STARTED_FILE: &str = "started";
/// HTLCs in flight that a forced close is reckoned to pay for, a channel.
const RESERVE_HTLCS: u16 = 2;
/// A new wallet follows reorganisations of its first blocks down to this depth.
const BIRTH_BLOCKS: u32 = 24;
/// How long tasks may take to end when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// The best block all listeners have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

/// What the channels could carry, and cost, and what there is for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Channels that coins are kept back for.
    pub anchors: usize,
    /// What they all could receive, msat.
    pub inbound_msat: u64,
    /// Coins that more of them could be opened with, sat.
    pub coins_sat: u64,
}

/// A running node.
pub struct Node {
    /// Itself, for tasks that are begun where only a reference is at hand.
    pub(crate) me: Weak<Node>,
    /// What it was told.
    pub config: Config,
    /// LDK's settings.
    pub user_config: UserConfig,
    /// Store, keys, wallet, fees, broadcaster, log.
    pub parts: Parts,
    /// The chain source.
    pub chain: Arc<Bitcoind>,
    /// LDK's channel manager.
    pub cm: Arc<ChannelManager>,
    /// LDK's chain monitor.
    pub monitors: Arc<ChainMonitor>,
    /// LDK's peer manager.
    pub pm: Arc<PeerManager>,
    /// The network graph.
    pub graph: Arc<Graph>,
    /// What payments have taught.
    pub scorer: Arc<RwLock<Scorer>>,
    /// The sweeper of closed channels.
    pub sweeper: Arc<Sweeper>,
    /// LSPS0 messages.
    pub transport: Arc<Transport>,
    /// Events for the application.
    pub events: Events,
    /// Payments.
    pub payments: Payments,
    /// The service, if this node is an LSP.
    pub lsp: Option<Service>,
    /// The wallet side of LSPS2.
    pub client: Client,
    /// Channels closed by agreement of late.
    pub closings: Arc<Closings>,
    /// Which forwards LDK has told of.
    pub forwards: Arc<Forwards>,
    /// Channels whose funding does not confirm.
    pub overdue: Overdue,
    /// HTLCs that cost more to claim than they are.
    pub left: Left,
    /// Closed channels whose commitment transaction LDK does not publish.
    pub forced: Forced,
    /// Tells what is on its way from monitors to the sweeper.
    pub hand_over: HandOver,
    /// Listening and dialling.
    pub net: Net,
    /// What an operator must look at.
    pub alarms: Alarms,
    /// Set if this node only brings home what it held.
    pub recovery: Option<Arc<Recovery>>,
    /// Where the time of payments goes.
    pub timeline: Arc<Timeline>,
    /// The best block.
    pub tip: watch::Sender<Tip>,
    /// The height of the last block that orders, promises and watches know of.
    pub acted_on: watch::Sender<u32>,
    /// Counts connects and disconnects.
    pub presence: watch::Sender<u64>,
    /// Wakes the driver.
    pub wake: Arc<Notify>,
    /// Wakes the task that handles the monitors' events.
    pub look_at_monitors: Notify,
    /// Asks for a look at the chain now.
    pub look_at_chain: Notify,
    capacity: Mutex<Option<(Instant, Capacity)>>,
    /// Opens whose callers wait.
    pub(crate) opens: Mutex<HashMap<u128, oneshot::Sender<Result<ChannelId, String>>>>,
    committer: Arc<Committer>,
    tasks: Mutex<Option<JoinSet<()>>>,
    stopping: tokio::sync::Mutex<()>,
    runtime: tokio::runtime::Handle,
    started_at_ms: u64,
}

impl Node {
    /// As [`Node::start_on`], with a store of this crate's.
    ///
    /// # Errors
    /// As there.
    pub async fn start(config: Config, log: Arc<Log>) -> Result<Arc<Self>, NodeError> {
        Self::start_on(config, None, log).await
    }

    /// Starts a node on the current tokio runtime; it is in step with the chain and listens when this returns.
    ///
    /// # Errors
    /// `config`, `chain`, `store`, `store_locked`, `store_copy`, `store_corrupt`, `store_version`, `store_network`,
    /// `store_other_node`, `recovery_needed`.
    pub async fn start_on(
        mut config: Config,
        external: Option<Box<dyn Store>>,
        log: Arc<Log>,
    ) -> Result<Arc<Self>, NodeError> {
        let runtime = tokio::runtime::Handle::current();
        let hooked = config.lsp.as_ref().map(|lsp| !lsp.policy.hooks.is_empty());
        if hooked == Some(true) && config.desk.is_none() {
            return Err(NodeError::config("lsp.policy.hooks: nobody carries them"));
        }
        let (store, seed) = open_store(&config, external, &log)?;
        let identity = Identity::new(config.network, seed.node_id()?.to_string());
        let committing = log.clone();
        // Not on a thread that others need: a store may be far away.
        let (committer, journal, boot) =
            tokio::task::spawn_blocking(move || Committer::start(store, committing))
                .await
                .map_err(|e| NodeError::internal(format!("the store: {e}")))??;
        let committer = Arc::new(committer);
        let checked = identity
            .check(&boot.live)
            .map_err(NodeError::from)
            .and_then(|put| {
                has_its_store(&config, &boot)?;
                Ok((put, recovery::decide(&config, &boot, now_ms())?))
            });
        let (identity, marker) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let _ = committer.shutdown().await;
                return Err(error);
            }
        };
        if marker.is_some() {
            // It sells nothing, and keeps no promise but to pay itself.
            config.lsp = None;
        }
        let user_config = ldk::user_config(&config);
        let started = Self::assemble(
            config,
            user_config,
            log,
            runtime,
            committer.clone(),
            journal,
            boot,
            &seed,
            identity,
            marker,
        );
        // Boxed: the future of an assembly is large.
        match Box::pin(started).await {
            Ok(node) => {
                node.mark_started().await;
                Ok(node)
            }
            Err(error) => {
                // The store's lock is free again when the caller is told.
                let _ = committer.shutdown().await;
                Err(error)
            }
        }
    }

    /// Notes in the folder that its node has a store, once that is so.
    async fn mark_started(&self) {
        let mark = self.config.data_dir.join(STARTED_FILE);
        if self.config.store == StoreKind::Memory || mark.exists() {
            return;
        }
        if self.parts.journal.durable().await.is_ok() {
            if let Err(error) = std::fs::write(mark, b"") {
                self.parts.log.warn(
                    "node",
                    format_args!("that this folder's node was started cannot be noted: {error}"),
                );
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn assemble(
        config: Config,
        user_config: UserConfig,
        log: Arc<Log>,
        runtime: tokio::runtime::Handle,
        committer: Arc<Committer>,
        journal: Journal,
        mut boot: Boot,
        seed: &Seed,
        identity: Option<Put>,
        marker: Option<Marker>,
    ) -> Result<Arc<Self>, NodeError> {
        let journal = Arc::new(journal);
        if let Some(marker) = &marker {
            // Before anything else is written: whatever comes of this start, the next one recovers too.
            let (kind, key, value) = marker.put();
            journal.put(kind, key, value);
        }
        let ChainConfig::Bitcoind(access) = &config.chain;
        let chain = Arc::new(Bitcoind::new(access, config.network)?);
        chain.check().await?;
        if config.lsps.iter().any(|lsp| lsp.confirmations == 0) && !chain.relays().await? {
            return Err(NodeError::chain(
                "behind",
                "this bitcoind relays no transactions (blocksonly): an LSP's funding cannot be seen before it confirms; ask for confirmations",
            ));
        }
        let fees = Arc::new(Fees::new(FeeConfig {
            fallback: config.fee_fallback_sat_per_kw,
            ..FeeConfig::default()
        }));
        // Without an estimate the node runs, and opens and sends nothing until there is one.
        if let Err(e) = fees.refresh(&*chain).await {
            log.warn("fees", format_args!("{e}"));
        }
        if marker.is_some() {
            let own = seed.node_id()?;
            if let Some(address) = recovery::answers_elsewhere(own, &boot.live, &log).await {
                return Err(StoreError::CopyAt { address }.into());
            }
        }
        let best = chain.best_block().await?;
        let born = if !Wallet::is_new(&boot) {
            None
        } else if marker.is_some() {
            log.info(
                "recovery",
                format_args!("looking for coins; this may take minutes"),
            );
            let first = recovery::first_coin(&chain, &seed.account(config.network)?).await?;
            match first.and_then(|height| height.checked_sub(1)) {
                Some(height) => Some(BestBlock::new(chain.block_hash(height).await?, height)),
                None => Some(best),
            }
        } else {
            // Words that were given may have coins from before: those are looked for from the first block on.
            config.mnemonic.is_none().then_some(best)
        };
        let birthday = match born {
            Some(block) => chain.last_blocks(block, BIRTH_BLOCKS).await?,
            None => Vec::new(),
        };
        let lookahead = match &marker {
            Some(_) => recovery::LOOKAHEAD,
            None => wallet::LOOKAHEAD,
        };
        if let Some((kind, key, value)) = identity {
            // With the first that is written of a node, and not before: until then the store is new.
            journal.put(kind, key, value);
        }
        let wallet = Wallet::open(
            seed,
            config.network,
            &birthday,
            lookahead,
            (*journal).clone(),
            &mut boot,
            log.clone(),
        )?;
        let wallet = Arc::new(wallet);
        let keys = Arc::new(Keys::new(seed, wallet.clone())?);
        let spender = wallet.clone();
        let closings = Closings::load(journal.clone(), &boot.live, marker.is_some())?;
        let closings = Arc::new(closings);
        let forwards = Forwards::load(journal.clone(), closings.clone(), &boot.live)?;
        let forwards = Arc::new(forwards);
        let broadcaster = Arc::new(Broadcaster::new(
            Arc::new(move |tx| spender.broadcasted(tx)),
            closings.clone(),
            log.clone(),
        ));
        let parts = Parts {
            journal: journal.clone(),
            keys: keys.clone(),
            fees,
            broadcaster,
            wallet,
            log: log.clone(),
        };

        let persister = ldk::monitor_persister(&parts, runtime.clone());
        let mut monitors = persister
            .read_all_channel_monitors_with_updates()
            .await
            .map_err(|e| NodeError::new("store_corrupt", format!("channel monitors: {e}")))?;
        let chain_monitor = ldk::chain_monitor(&parts, persister);
        let (graph, scorer) = ldk::read_graph(&parts, config.network).await?;
        let router = ldk::router(&parts, &graph, &scorer);
        let best_block = best;
        let stored = ldk::read_manager(
            &parts,
            &chain_monitor,
            &router,
            user_config.clone(),
            &monitors,
        )
        .await?;
        let (manager_block, manager) = stored.unwrap_or_else(|| {
            let manager = ldk::new_manager(
                &parts,
                &chain_monitor,
                &router,
                user_config.clone(),
                config.network,
                best_block,
            );
            (best.block_hash, manager)
        });
        let cm = Arc::new(manager);
        let (sweeper_block, sweeper) = ldk::read_sweeper(&parts, best_block).await?;
        let sweeper = Arc::new(sweeper);
        let tip = driver::catch_up(
            &parts,
            &chain,
            config.network,
            &mut monitors,
            (manager_block, &cm),
            (sweeper_block.block_hash, &sweeper),
        )
        .await?;
        for (_, monitor) in monitors {
            let id = monitor.channel_id();
            let is_first = monitor.get_latest_update_id() == 0;
            chain_monitor
                .load_existing_monitor(id, monitor)
                .map_err(|()| {
                    NodeError::new(
                        "store_corrupt",
                        format!("channel monitor {id} is there twice"),
                    )
                })?;
            // LDK 0.2.7 takes up a channel that stopped with updates in flight, and not one that awaited its first
            // monitor: it would never be ready, nor its funding published. Told of one that waits for nothing it does nothing.
            if is_first {
                let _ = chain_monitor.channel_monitor_updated(id, 0);
            }
        }

        let wake = Arc::new(Notify::new());
        let (transport, inbox) = Transport::new(config.lsp.is_some(), wake.clone());
        let gossip = Arc::new(Gossip::new(graph.clone(), None, log.clone()));
        let recovery = marker.map(|marker| Arc::new(Recovery::new(marker, &keys)));
        if let Some(recovery) = &recovery {
            recovery.scan(&chain).await?;
        }
        let fallen = Arc::new(Fallen::default());
        let channels = match recovery.clone() {
            None => {
                let monitors = chain_monitor.clone();
                Inbound::new(
                    cm.clone(),
                    monitors,
                    fallen.clone(),
                    journal.clone(),
                    parts.broadcaster.clone(),
                    forwards.clone(),
                    wake.clone(),
                )
            }
            Some(recovery) => Inbound::recovering(
                cm.clone(),
                Arc::new(move |channel, peer| recovery.note_told(channel, convert::node_id(&peer))),
            ),
        };
        #[cfg(feature = "faults")]
        let channels = channels.with_fault(config.fault);
        let pm = ldk::peer_manager(&parts, channels, &gossip, &transport);
        let lsp = config
            .lsp
            .clone()
            .map(|lsp| {
                let secret = keys.derived_secret("lsps2/promise");
                Service::load(lsp, config.desk.clone(), secret, &boot.live)
            })
            .transpose()?;
        let client = Client::load(config.lsps.clone(), &boot.live)?;
        let overdue = Overdue::load(&boot.live)?;
        let net = Net::load(&boot.live, config.peer_limits);
        for peer in &config.peers {
            let (id, address) = crate::config::parse_peer(peer)?;
            net.keep(id, address);
        }
        for lsp in &config.lsps {
            if let Some(id) = convert::public_key(&lsp.node_id) {
                net.keep(id, lsp.address.clone());
            }
        }
        committer.attach(Arc::new(ldk::ManagerSnapshot {
            manager: cm.clone(),
            fallen,
        }));
        journal.booted();

        let node = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            events: Events::new(journal.clone()),
            payments: Payments::load(journal.clone(), &boot.live),
            alarms: Alarms::default(),
            timeline: Arc::default(),
            tip: watch::channel(Tip {
                height: tip.height,
                hash: tip.to_best_block().block_hash,
            })
            .0,
            acted_on: watch::Sender::new(tip.height),
            presence: watch::channel(0).0,
            look_at_monitors: Notify::new(),
            look_at_chain: Notify::new(),
            capacity: Mutex::default(),
            opens: Mutex::default(),
            tasks: Mutex::new(Some(JoinSet::new())),
            stopping: tokio::sync::Mutex::default(),
            started_at_ms: now_ms(),
            monitors: chain_monitor,
            config,
            user_config,
            parts,
            chain,
            cm,
            pm,
            graph,
            scorer,
            sweeper,
            transport,
            lsp,
            client,
            closings,
            forwards,
            overdue,
            left: Left::default(),
            forced: Forced::default(),
            hand_over: HandOver::default(),
            net,
            recovery,
            wake,
            committer,
            runtime,
        });
        {
            let _gate = node.parts.journal.gate().await;
            if let Some(lsp) = &node.lsp {
                lsp.resume(&node);
            }
            node.reconcile_locks();
            match &node.recovery {
                None => Client::accept_fees_again(&node),
                Some(recovery) => recovery.begin(&node),
            }
        }
        // What the last stop left undone, and what the blocks since then have done, is dealt with before anybody asks.
        driver::settle(&node).await;
        node.publish_again();
        if node.recovery.is_none() {
            node.publish_fundings();
        }
        if let Err(e) = node.listen().await {
            let _ = node.stop().await;
            return Err(e);
        }
        driver::spawn_all(&node, tip, inbox);
        Client::resume(&node);
        node.stop_when_unsaved();
        log.info(
            "node",
            format_args!(
                "{} started at height {}",
                node.cm.get_our_node_id(),
                tip.height
            ),
        );
        Ok(node)
    }

    /// What cannot be saved must not be done: a store error stops the node.
    fn stop_when_unsaved(self: &Arc<Self>) {
        let mut stopped = self.parts.journal.watch_stopped();
        let node = Arc::downgrade(self);
        // Not one of the node's own tasks, which end when it stops.
        self.runtime.spawn(async move {
            let failed = match stopped.wait_for(Option::is_some).await {
                Ok(error) => match &*error {
                    Some(StoreError::Closed) | None => return,
                    Some(error) => Some(error.to_string()),
                },
                Err(_) => return,
            };
            if let (Some(node), Some(error)) = (node.upgrade(), failed) {
                node.parts.log.error(
                    "node",
                    format_args!("stopping, nothing can be saved: {error}"),
                );
                let _ = node.stop().await;
            }
        });
    }

    /// Writes this node into a new file, as it is in one commit.
    ///
    /// # Errors
    /// As [`backup::backup`]; `config` for a store that is no file.
    pub async fn backup(&self, to: std::path::PathBuf) -> Result<Summary, NodeError> {
        match self.config.store {
            StoreKind::Sqlite => {}
            StoreKind::Memory => return Err(NodeError::config("a store in memory has no backup")),
            StoreKind::External => {
                return Err(NodeError::config(
                    "only a SQLite store is backed up from here: back up the database, or stop the node and move it to \
                     SQLite with `ldkjit store copy`",
                ))
            }
        }
        self.parts.journal.durable().await?;
        let folder = self.config.data_dir.clone();
        tokio::task::spawn_blocking(move || backup::backup(&folder, &to))
            .await
            .map_err(|e| NodeError::internal(format!("the backup failed: {e}")))?
    }

    /// Stops: peers disconnected, everything durable, the store closed. Once.
    ///
    /// # Errors
    /// When the last commit fails.
    pub async fn stop(&self) -> Result<(), NodeError> {
        // Whoever else stops it has done so when this returns.
        let _turn = self.stopping.lock().await;
        let Some(mut tasks) = lock(&self.tasks).take() else {
            return Ok(());
        };
        tasks.abort_all();
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
            self.parts
                .log
                .warn("node", format_args!("some tasks did not end in time"));
        }
        // Only now: that we hang up is no client's doing and ends no open, and a peer that dials again at once is not
        // let in to talk to a node that saves nothing any more.
        self.pm.disconnect_all_peers();
        self.pm.process_events();
        lock(&self.opens).clear();
        ldk::write_graph(&self.parts.journal, &self.graph, &self.scorer);
        let closed = self.committer.shutdown().await;
        self.committer.detach();
        self.parts.log.info("node", format_args!("stopped"));
        Ok(closed?)
    }

    /// Runs a task that ends with the node.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = lock(&self.tasks).as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(task, &self.runtime);
        }
    }

    /// Height of the best block.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.tip.borrow().height
    }

    /// Channels, inbound liquidity and coins, as they were at most this long ago: counting looks at every channel and coin.
    pub fn capacity(&self, max_age: Duration) -> Capacity {
        let mut known = lock(&self.capacity);
        if let Some((_, capacity)) = known.filter(|(at, _)| at.elapsed() < max_age) {
            return capacity;
        }
        let mut capacity = self.channels_at_hand();
        if let Some(lsp) = &self.config.lsp {
            let depth = lsp.lending.coin_confirmations;
            capacity.coins_sat = self.parts.wallet.fundable_sat(depth);
        }
        *known = Some((Instant::now(), capacity));
        capacity
    }

    /// What channels say of it: coins are not looked for.
    fn channels_at_hand(&self) -> Capacity {
        let mut capacity = Capacity::default();
        for channel in self.cm.list_channels() {
            // Channels with a configured LSP need no reserve: a new wallet has no coins, and the LSP closes before it must.
            let peer = convert::node_id(&channel.counterparty.node_id);
            if self.client.lsp(&peer).is_none() {
                capacity.anchors = capacity.anchors.saturating_add(1);
            }
            if channel.is_channel_ready {
                capacity.inbound_msat = capacity
                    .inbound_msat
                    .saturating_add(channel.inbound_capacity_msat);
            }
        }
        capacity
    }

    /// A block has come: what was known of coins and channels is old, however young.
    pub(crate) fn forget_capacity(&self) {
        *lock(&self.capacity) = None;
    }

    /// What a forced close of an anchor channel may cost at present.
    pub fn reserve(&self) -> Reserve {
        let rate = self
            .parts
            .fees
            .get_est_sat_per_1000_weight(ConfirmationTarget::UrgentOnChainSweep);
        Reserve::new(rate, RESERVE_HTLCS)
    }

    /// Keeps back what closing the anchor channels there are, and `more`, may cost.
    pub fn set_reserve(&self, more: usize) {
        let anchors = self.channels_at_hand().anchors.saturating_add(more);
        let reserve = self.reserve().required_sat(anchors);
        self.parts.wallet.set_reserve(reserve);
    }

    /// Coins that belong to no open any more are given back: LDK does not report every open that a stop ended.
    fn reconcile_locks(&self) {
        let channels = self.cm.list_channels();
        for open in self.parts.wallet.locked() {
            let live = channels.iter().any(|c| c.user_channel_id == open)
                || self.lsp.as_ref().is_some_and(|lsp| lsp.holds_coins(open));
            if !live && self.parts.wallet.funding(open).is_none() {
                self.parts.wallet.unlock(open);
            }
        }
    }

    /// What was published and is in no block is sent again: a bitcoind forgets it in a crash, a full mempool drops it,
    /// and a reorganisation may have met either.
    pub(crate) fn publish_again(&self) {
        // What a peer has forgotten and cannot close any more is not to come to be.
        let unwanted: HashSet<_> = match &self.recovery {
            None => HashSet::new(),
            Some(_) => self.funding_txids(),
        };
        let closed = self.closings.all().into_iter().filter(|tx| {
            let txid = tx.compute_txid();
            self.parts.wallet.confirmed_at(&txid).is_none()
        });
        for tx in self.parts.wallet.unconfirmed().into_iter().chain(closed) {
            if !unwanted.contains(&tx.compute_txid()) {
                drop(self.parts.broadcaster.broadcast(vec![tx]));
            }
        }
    }

    /// The funding transactions of all channels that are watched.
    fn funding_txids(&self) -> HashSet<Txid> {
        let monitors = self.monitors.list_monitors().into_iter();
        monitors
            .filter_map(|id| Some(self.monitors.get_monitor(id).ok()?.get_funding_txo().txid))
            .collect()
    }

    /// After a restart, the funding transactions too that no mempool ever took. LDK lists only channels that both have
    /// signed then, and leaves it at its first attempt to publish.
    fn publish_fundings(&self) {
        for channel in self.cm.list_channels() {
            let open = channel.user_channel_id;
            let withheld = self.lsp.as_ref().is_some_and(|lsp| lsp.withholds(open));
            let funding = self.parts.wallet.funding(open).filter(|tx| {
                let used = channel.funding_txo.map(|txo| txo.txid) == Some(tx.compute_txid());
                used && !withheld && channel.confirmations == Some(0)
            });
            if let Some(tx) = funding {
                drop(self.parts.broadcaster.broadcast(vec![tx]));
            }
        }
    }

    /// Forgets transactions that can never be, and gives the coins in them back. A funding is kept while its channel or
    /// its order lives.
    pub(crate) fn forget_hopeless(&self) {
        let hopeless = self.parts.broadcaster.hopeless();
        if hopeless.is_empty() {
            return;
        }
        let gone: HashSet<Txid> = hopeless.iter().map(Transaction::compute_txid).collect();
        let channels = self.cm.list_channels();
        for tx in hopeless {
            let txid = tx.compute_txid();
            let open = self.parts.wallet.funded_by(&txid);
            let order = |open| self.lsp.as_ref().is_some_and(|lsp| lsp.holds_coins(open));
            let live = open.is_some_and(order)
                || channels
                    .iter()
                    .any(|c| c.funding_txo.is_some_and(|at| at.txid == txid));
            if !live && self.parts.wallet.forget(&tx, &gone) {
                self.parts.broadcaster.give_up(&txid);
                if let Some(open) = open {
                    self.parts.wallet.unlock(open);
                }
            }
        }
    }

    /// Gives back the coins of a funding transaction that LDK will never use.
    pub(crate) fn discard_funding(&self, txid: Txid) {
        if let Some(open) = self.parts.wallet.funded_by(&txid) {
            self.parts.wallet.unlock(open);
        }
    }

    /// A random number.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A random pause around this one; from the shortest to the longest are so many thousandths of it, 1 to 2,000.
    pub(crate) fn spread(&self, pause: Duration, thousandths: u32) -> Duration {
        let share = self.random_u64().checked_rem(u64::from(thousandths));
        let share = u32::try_from(share.unwrap_or(0)).unwrap_or(0);
        let shortest = 1_000_u32.saturating_sub(thousandths / 2);
        let thousandth = pause.checked_div(1_000).unwrap_or_default();
        thousandth.saturating_mul(shortest.saturating_add(share))
    }

    /// Fills up to 32 bytes with randomness.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        let random = self.parts.keys.get_secure_random_bytes();
        bytes
            .iter_mut()
            .zip(random)
            .for_each(|(to, from)| *to = from);
    }

    /// Adds a row to the ledger.
    pub fn record(&self, entry: &LedgerEntry) {
        self.parts.journal.book(std::slice::from_ref(entry));
    }

    /// The ledger past `after`, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ledger(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, NodeError> {
        let rows = self.parts.journal.rows(LEDGER, after, limit).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut value: serde_json::Value = serde_json::from_slice(&row.value).ok()?;
                let object = value.as_object_mut()?;
                object.remove("link");
                object.insert("seq".into(), json!(row.seq));
                Some(value)
            })
            .collect())
    }

    /// Holds the ledger against what wallet and LDK have in the latest commit, and these against the chain.
    ///
    /// # Errors
    /// When the store or the seed cannot be read.
    pub async fn ledger_check(&self) -> Result<Checked, NodeError> {
        let (kind, network) = (self.config.store, self.config.network);
        let folder = self.config.data_dir.clone();
        let journal = self.parts.journal.clone();
        let verdict = self
            .over_the_books(move || async move {
                match kind {
                    StoreKind::Sqlite => audit::check_dir(&folder).await,
                    // There is no file to read beside the committer: it is asked.
                    StoreKind::Memory | StoreKind::External => {
                        audit::check_journal(&journal, network, &Seed::read(&folder)?).await
                    }
                }
            })
            .await?;
        Ok(unspent::checked(self, verdict).await)
    }

    /// Does the same, and says what the rows add up to.
    ///
    /// # Errors
    /// When the store or the seed cannot be read; `config` if no time is asked for.
    pub async fn report(&self, ask: Ask) -> Result<Told, NodeError> {
        let (kind, network) = (self.config.store, self.config.network);
        let folder = self.config.data_dir.clone();
        let journal = self.parts.journal.clone();
        self.over_the_books(move || async move {
            match kind {
                StoreKind::Sqlite => audit::report_dir(&folder, &ask).await,
                StoreKind::Memory | StoreKind::External => {
                    audit::report_journal(&journal, network, &Seed::read(&folder)?, &ask).await
                }
            }
        })
        .await
    }

    /// A long history takes a while to read: not on a thread that others need.
    async fn over_the_books<T, F, W>(&self, work: F) -> Result<T, NodeError>
    where
        T: Send + 'static,
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<T, NodeError>>,
    {
        self.parts.journal.durable().await?;
        let runtime = self.runtime.clone();
        tokio::task::spawn_blocking(move || runtime.block_on(work()))
            .await
            .map_err(|e| NodeError::internal(format!("the check failed: {e}")))?
    }

    pub(crate) fn score(&self, update: impl FnOnce(&mut Scorer, Duration)) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        if let Ok(mut scorer) = self.scorer.write() {
            update(&mut scorer, now);
        }
    }

    pub(crate) fn note_path_failure(&self, hash: PaymentHash, failure: &PathFailure) {
        use lightning::routing::gossip::NetworkUpdate;
        let stage = match failure {
            PathFailure::OnPath {
                network_update: Some(NetworkUpdate::ChannelFailure { is_permanent, .. }),
            } => {
                if *is_permanent {
                    "path_failed_permanently"
                } else {
                    "path_failed_temporarily"
                }
            }
            _ => "path_failed",
        };
        self.timeline.stamp(hash, stage);
    }

    /// Waits until the node has acted on a block of this height.
    ///
    /// # Errors
    /// `timeout`.
    pub async fn wait_height(&self, height: u32, timeout: Duration) -> Result<(), NodeError> {
        let mut acted_on = self.acted_on.subscribe();
        let reached = async {
            loop {
                if *acted_on.borrow_and_update() >= height {
                    return;
                }
                self.look_at_chain.notify_one();
                tokio::select! {
                    changed = acted_on.changed() => if changed.is_err() { return },
                    // The chain source itself may not have the block yet.
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        tokio::time::timeout(timeout, reached).await.map_err(|_| {
            NodeError::timeout(format!("height {height} not reached, at {}", self.height()))
        })
    }

    /// What the node says of itself.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        let tip = *self.tip.borrow();
        json!({
            "node_id": self.cm.get_our_node_id().to_string(),
            "network": self.config.network.to_string(),
            "height": tip.height,
            "block_hash": tip.hash.to_string(),
            "listening": *lock(&self.net.listening),
            "turned_away": self.net.door.turned(),
            "alias": self.config.alias,
            "started_at_ms": self.started_at_ms,
            "alarms": self.alarms.on(),
            "webhooks": self.webhook_counts(),
            "policy": self.lsp.as_ref().map(Service::policy_counts).unwrap_or_default(),
        })
    }

    /// What became of webhooks; empty if there are none.
    fn webhook_counts(&self) -> BTreeMap<&'static str, u64> {
        let hooks = self.lsp.as_ref().and_then(|lsp| lsp.webhooks.as_ref());
        hooks.map(Hooks::counts).unwrap_or_default()
    }

    /// On-chain and channel balances; without what is on its way to the sweeper, for which [`HandOver::quiet`] waits.
    #[must_use]
    pub fn balances(&self) -> serde_json::Value {
        self.set_reserve(0);
        let chain = self.parts.wallet.balances();
        let channels = self.cm.list_channels();
        let sum = |f: &dyn Fn(&lightning::ln::channel_state::ChannelDetails) -> u64| {
            channels.iter().fold(0_u64, |s, c| s.saturating_add(f(c)))
        };
        let claimable = self.monitors.get_claimable_balances(&[]);
        let claimable_sat = claimable.iter().fold(0_u64, |s, b| {
            s.saturating_add(b.claimable_amount_satoshis())
        });
        let claimable_sat = claimable_sat.saturating_sub(self.forced.counted_twice());
        json!({
            "onchain": chain,
            "lightning": {
                "outbound_msat": sum(&|c| c.outbound_capacity_msat),
                "inbound_msat": sum(&|c| c.inbound_capacity_msat),
                "claimable_msat": claimable_sat.saturating_mul(1_000),
                "left_on_chain_sat": self.left.of(&claimable),
                "depends_on_lsp_msat": sum(&|c| {
                    if !c.is_outbound && c.confirmations.unwrap_or(0) == 0 && c.is_channel_ready {
                        c.outbound_capacity_msat
                    } else {
                        0
                    }
                }),
            },
            "pending_sweep_sat": self.pending_sweep_sat(),
        })
    }

    /// What closed channels left that is not in the wallet yet, sat.
    pub(crate) fn pending_sweep_sat(&self) -> u64 {
        self.sweeper
            .tracked_spendable_outputs()
            .iter()
            .filter(|o| !self.is_swept(o) && !self.parts.keys.has_lost(&o.descriptor))
            .fold(0, |s, o| s.saturating_add(descriptor_sat(&o.descriptor)))
    }

    /// Whether the wallet counts what became of an output; LDK remembers it for another four weeks. Which sweep it was is
    /// not asked: after a reorganisation LDK has made another one, and mempools keep the first.
    fn is_swept(&self, output: &TrackedSpendableOutput) -> bool {
        matches!(
            output.status,
            OutputSpendStatus::PendingThresholdConfirmations { .. }
        ) || self
            .parts
            .wallet
            .knows_spender(&spendable(&output.descriptor))
    }

    pub(crate) fn on_presence(self: &Arc<Self>, peer: &PublicKey, connected: bool) {
        self.presence.send_modify(|n| *n = n.wrapping_add(1));
        if !connected {
            self.client.requests.on_disconnected(peer);
        }
        if let Some(lsp) = &self.lsp {
            lsp.on_presence(self, peer, connected);
        }
    }
}

pub(crate) fn descriptor_sat(descriptor: &lightning::sign::SpendableOutputDescriptor) -> u64 {
    use lightning::sign::SpendableOutputDescriptor as D;
    match descriptor {
        D::StaticOutput { output, .. } => output.value.to_sat(),
        D::DelayedPaymentOutput(d) => d.output.value.to_sat(),
        D::StaticPaymentOutput(d) => d.output.value.to_sat(),
    }
}

/// An empty store under the keys of a node that has had one would begin a second node, blind to the channels of the first.
fn has_its_store(config: &Config, boot: &Boot) -> Result<(), NodeError> {
    let had = [STARTED_FILE, STORE_FILE].map(|name| config.data_dir.join(name).exists());
    let expected = match config.store {
        StoreKind::Memory => false,
        StoreKind::Sqlite => had[0],
        StoreKind::External => had.contains(&true),
    };
    if boot.new && expected && !config.recover {
        return Err(NodeError::config(format!(
            "store: it is empty, and the node of {} has had another one: start it on that one, or copy that one here first",
            config.data_dir.display()
        )));
    }
    Ok(())
}

fn open_store(
    config: &Config,
    external: Option<Box<dyn Store>>,
    log: &Arc<Log>,
) -> Result<(Box<dyn Store>, Seed), NodeError> {
    // Before a seed is made that nobody wants.
    if config.recover && config.mnemonic.is_none() && !config.data_dir.join(SEED_FILE).exists() {
        return Err(NodeError::config(
            "recover: the data folder has no node; give the words, or restore a backup into it first",
        ));
    }
    std::fs::create_dir_all(&config.data_dir).map_err(|e| {
        NodeError::config(format!(
            "data_dir: {} cannot be made: {e}",
            config.data_dir.display()
        ))
    })?;
    let mut store: Box<dyn Store> = match config.store {
        StoreKind::External => {
            external.ok_or_else(|| NodeError::config("store: none was given at the start"))?
        }
        StoreKind::Memory => Box::new(MemoryStore::new()),
        StoreKind::Sqlite => Box::new(crate::store::SqliteStore::open(
            &config.data_dir.join(STORE_FILE),
            config.network,
        )?),
    };
    #[cfg(feature = "faults")]
    if let Some((nth, fault)) = config.store_fault {
        store = Box::new(crate::store::FaultyStore::new(store).at(nth, fault));
    }
    // After the store, whose lock keeps a second process out.
    let seed = Seed::load_or_create(&config.data_dir, config.mnemonic.as_deref(), log)?;
    match lock_node(&seed.node_id()?.to_string()) {
        Ok(_lock) => store = Box::new(Only { store, _lock }),
        Err(copy @ StoreError::Copy { .. }) => return Err(copy.into()),
        Err(error) => log.warn(
            "node",
            format_args!("a second copy of this node would not be noticed: {error}"),
        ),
    }
    Ok((store, seed))
}
