//! The only file that names LDK's generics: types, settings, and how its objects are read from the store.

use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network};
use lightning::chain::chainmonitor::{self, AsyncPersister};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BestBlock, Filter};
use lightning::events::bump_transaction;
use lightning::ln::channelmanager::{self, ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{
    self, ErroringMessageHandler, IgnoringMessageHandler, MessageHandler,
};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::gossip::{self, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{EntropySource, InMemorySigner, KeysManager, NodeSigner};
use lightning::util::config::{ChannelConfig, UserConfig};
use lightning::util::native_async::FutureSpawner;
use lightning::util::persist::{
    KVStore, MonitorUpdatingPersisterAsync, CHANNEL_MANAGER_PERSISTENCE_KEY,
    CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
    NETWORK_GRAPH_PERSISTENCE_KEY, NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
    NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
    SCORER_PERSISTENCE_KEY, SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
    SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning::util::sweep;
use lightning_net_tokio::SocketDescriptor;
use tokio::net::TcpStream;

use crate::broadcast::Broadcaster;
use crate::commit::{Broken, Snapshot};
use crate::config::Config;
use crate::error::{NodeError, StoreError};
use crate::fees::Fees;
use crate::inbound::{Fallen, Inbound};
use crate::journal::Journal;
use crate::keys::Keys;
use crate::log::{now_ms, Log};
use crate::lsps::Transport;
use crate::recovery::{Marker, Origin};
use crate::wallet::Wallet;

/// Monitor updates kept as single rows before the whole monitor is written again.
const MAX_PENDING_UPDATES: u64 = 100;

/// Runs LDK's persistence futures on the node's runtime.
#[derive(Clone)]
pub struct Spawner(pub tokio::runtime::Handle);

impl FutureSpawner for Spawner {
    fn spawn<T: Future<Output = ()> + Send + 'static>(&self, future: T) {
        self.0.spawn(future);
    }
}

/// LDK's chain filter; we hand over whole blocks, so none is installed.
pub type NoFilter = Arc<dyn Filter + Send + Sync>;
/// LDK's gossip check against the chain; not used.
pub type NoUtxos = Arc<dyn UtxoLookup + Send + Sync>;

type AsyncMonitorPersister = AsyncPersister<
    Arc<Journal>,
    Spawner,
    Arc<Log>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Broadcaster>,
    Arc<Fees>,
>;
/// Reads and writes channel monitors through the journal.
pub type MonitorPersister = MonitorUpdatingPersisterAsync<
    Arc<Journal>,
    Spawner,
    Arc<Log>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Broadcaster>,
    Arc<Fees>,
>;
/// One channel's watcher.
pub type Monitor = ChannelMonitor<InMemorySigner>;
/// Watches the chain for all channels.
pub type ChainMonitor = chainmonitor::ChainMonitor<
    InMemorySigner,
    NoFilter,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Log>,
    AsyncMonitorPersister,
    Arc<Keys>,
>;
/// The public network as gossip tells it.
pub type Graph = gossip::NetworkGraph<Arc<Log>>;
/// What is learnt from payments.
pub type Scorer = ProbabilisticScorer<Arc<Graph>, Arc<Log>>;
/// Finds routes.
pub type Router = DefaultRouter<
    Arc<Graph>,
    Arc<Log>,
    Arc<Keys>,
    Arc<RwLock<Scorer>>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
/// Gossip between peers.
pub type Gossip = P2PGossipSync<Arc<Graph>, NoUtxos, Arc<Log>>;
/// LDK's channel manager.
pub type ChannelManager = channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Broadcaster>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Fees>,
    Arc<Router>,
    Arc<NullMessageRouter>,
    Arc<Log>,
>;
/// LDK's peer manager.
pub type PeerManager = peer_handler::PeerManager<
    SocketDescriptor,
    Arc<Inbound>,
    Arc<Gossip>,
    Arc<IgnoringMessageHandler>,
    Arc<Log>,
    Arc<Transport>,
    Arc<Keys>,
    Arc<IgnoringMessageHandler>,
>;
/// Sweeps what closed channels leave.
pub type Sweeper = sweep::OutputSweeper<
    Arc<Broadcaster>,
    Arc<Wallet>,
    Arc<Fees>,
    NoFilter,
    Arc<Journal>,
    Arc<Log>,
    Arc<Keys>,
>;
/// Pays the fees of anchor channels that close.
pub type Bumper = bump_transaction::BumpTransactionEventHandler<
    Arc<Broadcaster>,
    Arc<bump_transaction::Wallet<Arc<Wallet>, Arc<Log>>>,
    Arc<Keys>,
    Arc<Log>,
>;

/// What every LDK object is made of.
#[derive(Clone)]
pub struct Parts {
    /// The journal.
    pub journal: Arc<Journal>,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Fee estimates.
    pub fees: Arc<Fees>,
    /// Broadcaster.
    pub broadcaster: Arc<Broadcaster>,
    /// The on-chain wallet.
    pub wallet: Arc<Wallet>,
    /// Log.
    pub log: Arc<Log>,
}

/// The manager as the committer sees it.
pub struct ManagerSnapshot {
    /// The manager.
    pub manager: Arc<ChannelManager>,
    /// Whether it may be used.
    pub fallen: Arc<Fallen>,
}

impl Snapshot for ManagerSnapshot {
    fn take_needs(&self) -> bool {
        self.fallen.has() || self.manager.get_and_clear_needs_persistence()
    }

    fn write(&self, buf: &mut Vec<u8>) -> Result<(), Box<Broken>> {
        // Writing to memory has no error. Locks that were held in a panic make it panic too.
        let write = AssertUnwindSafe(|| drop(Writeable::write(&*self.manager, buf)));
        if catch_unwind(write).is_ok() {
            return Ok(());
        }
        let reason = self.fallen.reason();
        self.fallen.close();
        Err(Box::new(match reason {
            Some(peer) => Broken {
                why: StoreError::Stale {
                    peer: peer.to_string(),
                },
                mark: Some(Marker::new(Origin::StaleStore, now_ms()).put()),
            },
            None => Broken {
                why: StoreError::Failed("the channel manager panicked".into()),
                mark: None,
            },
        }))
    }
}

/// LDK's settings for this node.
#[must_use]
pub fn user_config(config: &Config) -> UserConfig {
    let mut user = UserConfig::default();
    let handshake = &mut user.channel_handshake_config;
    handshake.minimum_depth = config.channel_confirmations;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    #[cfg(feature = "faults")]
    if config.fault == Some(crate::lsp::Fault::NoAnchors) {
        handshake.negotiate_anchors_zero_fee_htlc_tx = false;
    }
    // LDK's default of 10 % would refuse the payment a JIT channel is opened for.
    handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    handshake.our_max_accepted_htlcs = 483;
    handshake.announce_for_forwarding = false;
    user.channel_handshake_limits.max_funding_satoshis = u64::MAX;
    user.channel_handshake_limits
        .force_announced_channel_preference = false;
    user.manually_accept_inbound_channels = true;
    if let Some(lsp) = &config.lsp {
        user.accept_intercept_htlcs = true;
        user.accept_forwards_to_priv_channels = true;
        user.channel_config.forwarding_fee_base_msat = lsp.limits.forwarding_base_msat;
        user.channel_config.forwarding_fee_proportional_millionths = lsp.limits.forwarding_ppm;
    }
    user
}

/// Settings under which any channel of this node can be read.
#[must_use]
pub fn any_user_config() -> UserConfig {
    let mut user = UserConfig::default();
    user.channel_handshake_config
        .negotiate_anchors_zero_fee_htlc_tx = true;
    user
}

/// The settings of a JIT channel while its fee is owed: nothing but intercepted payments can use it.
#[must_use]
pub fn unpaid_channel_config(user: &UserConfig) -> ChannelConfig {
    ChannelConfig {
        forwarding_fee_base_msat: u32::MAX,
        ..user.channel_config
    }
}

/// The persister of channel monitors.
#[must_use]
pub fn monitor_persister(parts: &Parts, runtime: tokio::runtime::Handle) -> MonitorPersister {
    MonitorUpdatingPersisterAsync::new(
        parts.journal.clone(),
        Spawner(runtime),
        parts.log.clone(),
        MAX_PENDING_UPDATES,
        parts.keys.clone(),
        parts.keys.clone(),
        parts.broadcaster.clone(),
        parts.fees.clone(),
    )
}

/// The chain monitor, still without channels.
#[must_use]
pub fn chain_monitor(parts: &Parts, persister: MonitorPersister) -> Arc<ChainMonitor> {
    Arc::new(ChainMonitor::new_async_beta(
        None,
        parts.broadcaster.clone(),
        parts.log.clone(),
        parts.fees.clone(),
        persister,
        parts.keys.clone(),
        parts.keys.get_peer_storage_key(),
    ))
}

async fn read_key(
    journal: &Arc<Journal>,
    primary: &str,
    secondary: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, NodeError> {
    match KVStore::read(&**journal, primary, secondary, key).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == lightning::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(NodeError::internal(format!("store: {e}"))),
    }
}

fn corrupt(what: &str, error: impl std::fmt::Debug) -> NodeError {
    NodeError::new(
        "store_corrupt",
        format!("the stored {what} cannot be read: {error:?}"),
    )
}

/// The graph and the scorer, from the store or new; what cannot be read is learnt again.
///
/// # Errors
/// When the store fails.
pub async fn read_graph(
    parts: &Parts,
    network: Network,
) -> Result<(Arc<Graph>, Arc<RwLock<Scorer>>), NodeError> {
    let stored = read_key(
        &parts.journal,
        NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_KEY,
    )
    .await?;
    let graph = stored
        .and_then(|bytes| Graph::read(&mut bytes.as_slice(), parts.log.clone()).ok())
        .unwrap_or_else(|| Graph::new(network, parts.log.clone()));
    let graph = Arc::new(graph);
    let stored = read_key(
        &parts.journal,
        SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
        SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
        SCORER_PERSISTENCE_KEY,
    )
    .await?;
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = stored.and_then(|bytes| {
        let args = (decay, graph.clone(), parts.log.clone());
        Scorer::read(&mut bytes.as_slice(), args).ok()
    });
    let scorer = match scorer {
        Some(scorer) => Arc::new(RwLock::new(scorer)),
        None => new_scorer(parts, &graph),
    };
    Ok((graph, scorer))
}

/// A scorer that has learnt nothing.
#[must_use]
pub fn new_scorer(parts: &Parts, graph: &Arc<Graph>) -> Arc<RwLock<Scorer>> {
    let decay = ProbabilisticScoringDecayParameters::default();
    Arc::new(RwLock::new(Scorer::new(
        decay,
        graph.clone(),
        parts.log.clone(),
    )))
}

/// Queues the graph and the scorer for the next commit; losing them costs only time.
pub fn write_graph(journal: &Arc<Journal>, graph: &Graph, scorer: &RwLock<Scorer>) {
    drop(KVStore::write(
        &**journal,
        NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_KEY,
        graph.encode(),
    ));
    if let Ok(scorer) = scorer.read() {
        drop(KVStore::write(
            &**journal,
            SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
            SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
            SCORER_PERSISTENCE_KEY,
            scorer.encode(),
        ));
    }
}

/// A router on the graph.
#[must_use]
pub fn router(parts: &Parts, graph: &Arc<Graph>, scorer: &Arc<RwLock<Scorer>>) -> Arc<Router> {
    Arc::new(DefaultRouter::new(
        graph.clone(),
        parts.log.clone(),
        parts.keys.clone(),
        scorer.clone(),
        ProbabilisticScoringFeeParameters::default(),
    ))
}

/// The channel manager from the store, with the block it was saved at; `None` if there is none yet.
///
/// # Errors
/// `store_corrupt` when it cannot be read.
pub async fn read_manager(
    parts: &Parts,
    chain_monitor: &Arc<ChainMonitor>,
    router: &Arc<Router>,
    user: UserConfig,
    monitors: &[(BlockHash, Monitor)],
) -> Result<Option<(BlockHash, ChannelManager)>, NodeError> {
    let stored = read_key(
        &parts.journal,
        CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
        CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
        CHANNEL_MANAGER_PERSISTENCE_KEY,
    )
    .await?;
    let Some(bytes) = stored else {
        if monitors.is_empty() {
            return Ok(None);
        }
        return Err(corrupt("state", "channels without a channel manager"));
    };
    let args = ChannelManagerReadArgs::new(
        parts.keys.clone(),
        parts.keys.clone(),
        parts.keys.clone(),
        parts.fees.clone(),
        chain_monitor.clone(),
        parts.broadcaster.clone(),
        router.clone(),
        Arc::new(NullMessageRouter {}),
        parts.log.clone(),
        user,
        monitors.iter().map(|(_, monitor)| monitor).collect(),
    );
    <(BlockHash, ChannelManager)>::read(&mut bytes.as_slice(), args)
        .map(Some)
        .map_err(|e| corrupt("channel manager", e))
}

/// A channel manager that has seen nothing yet.
#[must_use]
pub fn new_manager(
    parts: &Parts,
    chain_monitor: &Arc<ChainMonitor>,
    router: &Arc<Router>,
    user: UserConfig,
    network: Network,
    best_block: BestBlock,
) -> ChannelManager {
    ChannelManager::new(
        parts.fees.clone(),
        chain_monitor.clone(),
        parts.broadcaster.clone(),
        router.clone(),
        Arc::new(NullMessageRouter {}),
        parts.log.clone(),
        parts.keys.clone(),
        parts.keys.clone(),
        parts.keys.clone(),
        user,
        ChainParameters {
            network,
            best_block,
        },
        now_seconds(),
    )
}

/// The sweeper, from the store or new.
///
/// # Errors
/// `store_corrupt` when it cannot be read.
pub async fn read_sweeper(
    parts: &Parts,
    best_block: BestBlock,
) -> Result<(BestBlock, Sweeper), NodeError> {
    let stored = read_key(
        &parts.journal,
        OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE,
        OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
        OUTPUT_SWEEPER_PERSISTENCE_KEY,
    )
    .await?;
    let Some(bytes) = stored else {
        let sweeper = Sweeper::new(
            best_block,
            parts.broadcaster.clone(),
            parts.fees.clone(),
            None,
            parts.keys.clone(),
            parts.wallet.clone(),
            parts.journal.clone(),
            parts.log.clone(),
        );
        return Ok((best_block, sweeper));
    };
    let args = (
        parts.broadcaster.clone(),
        parts.fees.clone(),
        None,
        parts.keys.clone(),
        parts.wallet.clone(),
        parts.journal.clone(),
        parts.log.clone(),
    );
    <(BestBlock, Sweeper)>::read(&mut bytes.as_slice(), args).map_err(|e| corrupt("sweeper", e))
}

/// The handler that bumps anchor channels' closes.
#[must_use]
pub fn bumper(parts: &Parts) -> Bumper {
    let source = bump_transaction::Wallet::new(parts.wallet.clone(), parts.log.clone());
    Bumper::new(
        parts.broadcaster.clone(),
        Arc::new(source),
        parts.keys.clone(),
        parts.log.clone(),
    )
}

/// The peer manager.
#[must_use]
pub fn peer_manager(
    parts: &Parts,
    channels: Inbound,
    gossip: &Arc<Gossip>,
    transport: &Arc<Transport>,
) -> Arc<PeerManager> {
    let handlers = MessageHandler {
        chan_handler: Arc::new(channels),
        route_handler: gossip.clone(),
        onion_message_handler: Arc::new(IgnoringMessageHandler {}),
        custom_message_handler: transport.clone(),
        send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
    };
    Arc::new(PeerManager::new(
        handlers,
        now_seconds(),
        &parts.keys.get_secure_random_bytes(),
        parts.log.clone(),
        parts.keys.clone(),
    ))
}

/// Whether the node with this id answers at an address: only it can finish the handshake.
pub async fn answers(node_id: PublicKey, address: &str, within: Duration, log: Arc<Log>) -> bool {
    let mut secret = [0; 32];
    if getrandom::fill(&mut secret).is_err() {
        return false;
    }
    // A stranger's keys, for this one question.
    let keys = KeysManager::new(&secret, 0, 0, true);
    let random = keys.get_secure_random_bytes();
    let handlers = MessageHandler {
        chan_handler: Arc::new(ErroringMessageHandler::new()),
        route_handler: Arc::new(IgnoringMessageHandler {}),
        onion_message_handler: Arc::new(IgnoringMessageHandler {}),
        custom_message_handler: Arc::new(IgnoringMessageHandler {}),
        send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
    };
    let asker = Arc::new(peer_handler::PeerManager::new(
        handlers,
        now_seconds(),
        &random,
        log,
        Arc::new(keys),
    ));
    let ask = async {
        let stream = TcpStream::connect(address).await.ok()?.into_std().ok()?;
        let connection = lightning_net_tokio::setup_outbound(asker.clone(), node_id, stream);
        let mut connection = std::pin::pin!(connection);
        loop {
            if asker.peer_by_node_id(&node_id).is_some() {
                return Some(());
            }
            tokio::select! {
                () = &mut connection => return None,
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    };
    let answered = matches!(tokio::time::timeout(within, ask).await, Ok(Some(())));
    asker.disconnect_all_peers();
    answered
}

fn now_seconds() -> u32 {
    u32::try_from(now_ms() / 1_000).unwrap_or(u32::MAX)
}
