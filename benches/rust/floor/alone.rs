//! LDK and nothing else: nodes without storage, wallet, chain or route finding, and what answers their events.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, Transaction, TxIn, TxOut, Txid, Witness};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter};
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{
    ChainParameters, ChannelManager, InterceptId, PaymentId, RecipientOnionFields,
};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::{
    InFlightHtlcs, Path, PaymentParameters, Route, RouteHop, RouteParameters, Router,
};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;

const JIT_MSAT: u64 = 50_000_000;
const SKIM_MSAT: u64 = 1_000_000;
const FORWARD_MSAT: u64 = 700_000;
const FORWARDING_FEE_MSAT: u64 = 1_000;
/// Of the payer, for all that is under way at once.
const PAYER_CHANNELS: usize = 4;
const PAYER_CHANNEL_SAT: u64 = 100_000_000;
const CLIENT_CHANNEL_SAT: u64 = 400_000;
const LSP_CLTV: u32 = 144;
const FINAL_CLTV: u32 = 60;

/// All that LDK wants of the outside, and does not get.
pub struct Nothing;

impl BroadcasterInterface for Nothing {
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
}

impl FeeEstimator for Nothing {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

impl Logger for Nothing {
    fn log(&self, _: Record) {}
}

impl Persist<InMemorySigner> for Nothing {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

impl Router for Nothing {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("routes are given")
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

pub type Monitors = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<KeysManager>,
>;
pub type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Nothing>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<NullMessageRouter>,
    Arc<Nothing>,
>;

/// Where time went: by call.
#[derive(Clone, Default)]
pub struct Spent(pub BTreeMap<&'static str, Duration>);

impl Spent {
    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }
}

/// A channel manager, and what is needed to run it.
pub struct Node {
    pub manager: Arc<Manager>,
    pub monitors: Arc<Monitors>,
    pub keys: Arc<KeysManager>,
    pub id: PublicKey,
    pub spent: Mutex<Spent>,
}

impl Node {
    pub fn new(seed: u8, turn: u32, config: UserConfig) -> Self {
        let mut bytes = [seed; 32];
        bytes[..4].copy_from_slice(&turn.to_be_bytes());
        let keys = Arc::new(KeysManager::new(&bytes, 1, turn, true));
        let nothing = Arc::new(Nothing);
        let monitors = Arc::new(ChainMonitor::new(
            None,
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            nothing.clone(),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let manager = ChannelManager::new(
            nothing.clone(),
            monitors.clone(),
            nothing.clone(),
            nothing.clone(),
            Arc::new(NullMessageRouter {}),
            nothing,
            keys.clone(),
            keys.clone(),
            keys.clone(),
            config,
            ChainParameters {
                network: Network::Regtest,
                best_block: BestBlock::from_network(Network::Regtest),
            },
            1_800_000_000,
        );
        Self {
            id: manager.get_our_node_id(),
            manager: Arc::new(manager),
            monitors,
            keys,
            spent: Mutex::default(),
        }
    }

    pub fn time<T>(&self, what: &'static str, call: impl FnOnce(&Manager) -> T) -> T {
        let began = Instant::now();
        let result = call(&self.manager);
        *self.spent.lock().unwrap().0.entry(what).or_default() += began.elapsed();
        result
    }
}

/// What LDK has to tell.
pub fn events_of(manager: &Manager) -> Vec<Event> {
    let events = Mutex::new(Vec::new());
    manager.process_pending_events(&|event: Event| -> Result<(), ReplayEvent> {
        events.lock().unwrap().push(event);
        Ok(())
    });
    events.into_inner().unwrap()
}

/// Payments that are under way, and the channels that they buy.
pub struct Trade {
    lsp: PublicKey,
    /// Those whose payment buys a channel, by the scid that it is bought with.
    buyers: Mutex<HashMap<u64, PublicKey>>,
    /// Payments that wait for a channel, by client.
    held: Mutex<HashMap<PublicKey, (InterceptId, u64)>>,
    arrived: Sender<PaymentHash>,
    fundings: AtomicU64,
}

impl Trade {
    /// And where to hear of payments that have arrived.
    pub fn new(lsp: &Node) -> (Self, Receiver<PaymentHash>) {
        let (arrived, arrivals) = mpsc::channel();
        let trade = Self {
            lsp: lsp.id,
            buyers: Mutex::default(),
            held: Mutex::default(),
            arrived,
            fundings: AtomicU64::default(),
        };
        (trade, arrivals)
    }

    /// Asks for the payer's channels.
    pub fn stock(payer: &Node, lsp: &Node) {
        for _ in 0..PAYER_CHANNELS {
            let manager = &payer.manager;
            let opened = manager.create_channel(lsp.id, PAYER_CHANNEL_SAT, 0, 1, None, None);
            opened.unwrap();
        }
    }

    /// Whether the payer can use all of them.
    pub fn is_stocked(payer: &Node) -> bool {
        payer.manager.list_usable_channels().len() == PAYER_CHANNELS
    }

    /// Does what an application does with LDK's events.
    pub fn answer(&self, node: &Node, event: Event) {
        match event {
            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                ..
            } => node.time("accept_inbound_channel", |m| {
                m.accept_inbound_channel_from_trusted_peer_0conf(
                    &temporary_channel_id,
                    &counterparty_node_id,
                    1,
                    None,
                )
                .unwrap();
            }),
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let number = self.fundings.fetch_add(1, Ordering::Relaxed);
                let mut txid = [1; 32];
                txid[..8].copy_from_slice(&number.to_be_bytes());
                let transaction = Transaction {
                    version: Version::TWO,
                    lock_time: LockTime::ZERO,
                    input: vec![TxIn {
                        previous_output: OutPoint::new(Txid::from_byte_array(txid), 0),
                        witness: Witness::from_slice(&[[1]]),
                        ..TxIn::default()
                    }],
                    output: vec![TxOut {
                        value: Amount::from_sat(channel_value_satoshis),
                        script_pubkey: output_script,
                    }],
                };
                node.time("funding_transaction_generated", |m| {
                    m.funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        transaction,
                    )
                    .unwrap();
                });
            }
            Event::HTLCIntercepted {
                intercept_id,
                requested_next_hop_scid,
                expected_outbound_amount_msat,
                ..
            } => {
                let buyer = self.buyers.lock().unwrap().remove(&requested_next_hop_scid);
                let buyer = buyer.unwrap();
                let held = (intercept_id, expected_outbound_amount_msat - SKIM_MSAT);
                self.held.lock().unwrap().insert(buyer, held);
                node.time("create_channel", |m| {
                    m.create_channel(buyer, CLIENT_CHANNEL_SAT, 0, 1, None, None)
                        .unwrap();
                });
            }
            Event::ChannelReady {
                channel_id,
                counterparty_node_id,
                ..
            } if node.id == self.lsp => {
                let held = self.held.lock().unwrap().remove(&counterparty_node_id);
                let Some((id, amount)) = held else {
                    return; // the payer's
                };
                node.time("forward_intercepted_htlc", |m| {
                    m.forward_intercepted_htlc(id, &channel_id, counterparty_node_id, amount)
                        .unwrap();
                });
            }
            Event::PaymentClaimable { purpose, .. } => {
                node.time("claim_funds", |m| {
                    m.claim_funds(purpose.preimage().unwrap())
                });
            }
            Event::PaymentClaimed { payment_hash, .. } => self.arrived.send(payment_hash).unwrap(),
            Event::HTLCHandlingFailed {
                failure_type,
                failure_reason,
                ..
            } => panic!("{failure_type:?}: {failure_reason:?}"),
            Event::PaymentPathFailed { failure, .. } => panic!("{failure:?}"),
            Event::PaymentFailed { reason, .. } => panic!("{reason:?}"),
            _ => {}
        }
    }

    /// Starts a payment to a client that buys a channel with it.
    pub fn buy(&self, payer: &Node, lsp: &Node, client: &Node) -> PaymentHash {
        let mut buyers = self.buyers.lock().unwrap();
        let mut scid = lsp.manager.get_intercept_scid();
        while buyers.contains_key(&scid) {
            scid = lsp.manager.get_intercept_scid();
        }
        buyers.insert(scid, client.id);
        drop(buyers);
        self.send(payer, lsp, client, (scid, JIT_MSAT))
    }

    /// Starts a payment to a client over its channel.
    pub fn forward(&self, payer: &Node, lsp: &Node, client: &Node) -> PaymentHash {
        let channels = client.manager.list_usable_channels();
        let alias = channels[0].inbound_scid_alias.unwrap();
        self.send(payer, lsp, client, (alias, FORWARD_MSAT))
    }

    fn send(
        &self,
        payer: &Node,
        lsp: &Node,
        client: &Node,
        (scid, amount): (u64, u64),
    ) -> PaymentHash {
        let (hash, secret) = client
            .time("create_inbound_payment", |m| {
                m.create_inbound_payment(Some(amount - SKIM_MSAT.min(amount / 2)), 3_600, None)
            })
            .unwrap();
        let channels = payer.manager.list_usable_channels();
        // One takes so many at once, and no more.
        let first = channels
            .iter()
            .max_by_key(|channel| channel.next_outbound_htlc_limit_msat)
            .unwrap();
        let hop = |node: &Node, scid, fee_msat, cltv_expiry_delta| RouteHop {
            pubkey: node.id,
            node_features: node.manager.node_features(),
            short_channel_id: scid,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta,
            maybe_announced_channel: false,
        };
        let hops = vec![
            hop(
                lsp,
                first.get_outbound_payment_scid().unwrap(),
                FORWARDING_FEE_MSAT,
                LSP_CLTV,
            ),
            hop(client, scid, amount, FINAL_CLTV),
        ];
        let to = PaymentParameters::from_node_id(client.id, FINAL_CLTV);
        let route = Route {
            paths: vec![Path {
                hops,
                blinded_tail: None,
            }],
            route_params: Some(RouteParameters::from_payment_params_and_value(to, amount)),
        };
        let onion = RecipientOnionFields::secret_only(secret);
        payer.time("send_payment", |m| {
            m.send_payment_with_route(route, hash, onion, PaymentId(hash.0))
                .unwrap();
        });
        hash
    }
}

pub fn settings() -> UserConfig {
    let mut config = UserConfig {
        manually_accept_inbound_channels: true,
        accept_intercept_htlcs: true,
        accept_forwards_to_priv_channels: true,
        ..UserConfig::default()
    };
    let handshake = &mut config.channel_handshake_config;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    handshake.announce_for_forwarding = false;
    handshake.our_max_accepted_htlcs = 100;
    config.channel_handshake_limits.max_funding_satoshis = u64::MAX;
    config.channel_config.accept_underpaying_htlcs = true;
    config.channel_config.forwarding_fee_base_msat = u32::try_from(FORWARDING_FEE_MSAT).unwrap();
    config
}
