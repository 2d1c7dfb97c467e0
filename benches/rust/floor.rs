//! The floor: LDK's own work for a JIT payment and for a forward, three nodes in this thread, without network, storage,
//! wallet or chain. Prints a JSON budget: microseconds by node and, for the LSP, by what LDK is called for.
//!
//! Not a criterion benchmark: what counts is not the time of one call but where the time of a payment goes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
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
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, CommitmentUpdate, Init, MessageSendEvent,
};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::{
    InFlightHtlcs, Path, PaymentParameters, Route, RouteHop, RouteParameters, Router,
};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner};
use lightning::types::features::ChannelFeatures;
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use serde_json::{json, Value};

/// Payments measured of each kind, after some that are not.
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
const JIT_MSAT: u64 = 50_000_000;
const SKIM_MSAT: u64 = 1_000_000;
const FORWARD_MSAT: u64 = 700_000;
const FORWARDING_FEE_MSAT: u64 = 1_000;
const PAYER_CHANNEL_SAT: u64 = 100_000_000;
const CLIENT_CHANNEL_SAT: u64 = 200_000;
const LSP_CLTV: u32 = 144;
const FINAL_CLTV: u32 = 60;

/// All that LDK wants of the outside, and does not get.
struct Nothing;

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

type Monitors = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<Nothing>,
    Arc<KeysManager>,
>;
type Manager = ChannelManager<
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
struct Spent(BTreeMap<&'static str, Duration>);

impl Spent {
    fn total(&self) -> Duration {
        self.0.values().sum()
    }
}

struct Node {
    manager: Manager,
    id: PublicKey,
    spent: RefCell<Spent>,
}

impl Node {
    fn new(seed: u8, turn: u32, config: UserConfig) -> Self {
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
            monitors,
            nothing.clone(),
            nothing.clone(),
            Arc::new(NullMessageRouter {}),
            nothing,
            keys.clone(),
            keys.clone(),
            keys,
            config,
            ChainParameters {
                network: Network::Regtest,
                best_block: BestBlock::from_network(Network::Regtest),
            },
            1_800_000_000,
        );
        Self {
            id: manager.get_our_node_id(),
            manager,
            spent: RefCell::default(),
        }
    }

    fn time<T>(&self, what: &'static str, call: impl FnOnce(&Manager) -> T) -> T {
        let began = Instant::now();
        let result = call(&self.manager);
        *self.spent.borrow_mut().0.entry(what).or_default() += began.elapsed();
        result
    }

    fn hear(&self, from: PublicKey, message: MessageSendEvent) {
        match message {
            MessageSendEvent::SendOpenChannel { msg, .. } => {
                self.time("open_channel", |m| m.handle_open_channel(from, &msg));
            }
            MessageSendEvent::SendAcceptChannel { msg, .. } => {
                self.time("accept_channel", |m| m.handle_accept_channel(from, &msg));
            }
            MessageSendEvent::SendFundingCreated { msg, .. } => {
                self.time("funding_created", |m| m.handle_funding_created(from, &msg));
            }
            MessageSendEvent::SendFundingSigned { msg, .. } => {
                self.time("funding_signed", |m| m.handle_funding_signed(from, &msg));
            }
            MessageSendEvent::SendChannelReady { msg, .. } => {
                self.time("channel_ready", |m| m.handle_channel_ready(from, &msg));
            }
            MessageSendEvent::SendChannelUpdate { msg, .. } => {
                self.time("channel_update", |m| m.handle_channel_update(from, &msg));
            }
            MessageSendEvent::SendRevokeAndACK { msg, .. } => {
                self.time("revoke_and_ack", |m| m.handle_revoke_and_ack(from, &msg));
            }
            MessageSendEvent::UpdateHTLCs { updates, .. } => self.update(from, updates),
            other => panic!("{other:?}"),
        }
    }

    fn update(&self, from: PublicKey, updates: CommitmentUpdate) {
        for msg in updates.update_add_htlcs {
            self.time("update_add_htlc", |m| m.handle_update_add_htlc(from, &msg));
        }
        for msg in updates.update_fulfill_htlcs {
            self.time("update_fulfill_htlc", |m| {
                m.handle_update_fulfill_htlc(from, msg)
            });
        }
        assert!(updates.update_fail_htlcs.is_empty(), "a payment failed");
        for msg in updates.commitment_signed {
            self.time("commitment_signed", |m| {
                m.handle_commitment_signed(from, &msg)
            });
        }
    }

    fn connect(&self, to: &Self) {
        for (node, peer, inbound) in [(self, to, false), (to, self, true)] {
            let init = Init {
                features: peer.manager.init_features(),
                networks: None,
                remote_network_address: None,
            };
            node.manager
                .peer_connected(peer.id, &init, inbound)
                .unwrap();
        }
    }
}

/// Payer, LSP and client of one payment.
struct Three<'a> {
    payer: &'a Node,
    lsp: &'a Node,
    client: &'a Node,
    held: RefCell<Option<(InterceptId, u64)>>,
    paid: RefCell<bool>,
    fundings: RefCell<u64>,
}

impl<'a> Three<'a> {
    fn new(payer: &'a Node, lsp: &'a Node, client: &'a Node, turn: u64) -> Self {
        Self {
            payer,
            lsp,
            client,
            held: RefCell::default(),
            paid: RefCell::default(),
            fundings: RefCell::new(turn << 8),
        }
    }

    fn nodes(&self) -> [&'a Node; 3] {
        [self.payer, self.lsp, self.client]
    }

    /// Carries messages and answers events until nothing is left to do.
    fn run(&self) {
        loop {
            let mut quiet = true;
            for node in self.nodes() {
                if node.manager.needs_pending_htlc_processing() {
                    node.time("process_pending_htlc_forwards", |m| {
                        m.process_pending_htlc_forwards();
                    });
                    quiet = false;
                }
                let events = RefCell::new(Vec::new());
                node.time("process_pending_events", |m| {
                    m.process_pending_events(&|event: Event| -> Result<(), ReplayEvent> {
                        events.borrow_mut().push(event);
                        Ok(())
                    });
                });
                for event in events.into_inner() {
                    self.answer(node, event);
                    quiet = false;
                }
                let messages = node.time("get_and_clear_pending_msg_events", |m| {
                    m.get_and_clear_pending_msg_events()
                });
                for message in messages {
                    quiet = false;
                    let to = addressee(&message);
                    if let Some(peer) = self.nodes().into_iter().find(|peer| Some(peer.id) == to) {
                        peer.hear(node.id, message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn answer(&self, node: &Node, event: Event) {
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
                let mut fundings = self.fundings.borrow_mut();
                *fundings += 1;
                let mut txid = [1; 32];
                txid[..8].copy_from_slice(&fundings.to_be_bytes());
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
                expected_outbound_amount_msat,
                ..
            } => {
                let held = (intercept_id, expected_outbound_amount_msat - SKIM_MSAT);
                *self.held.borrow_mut() = Some(held);
                node.time("create_channel", |m| {
                    m.create_channel(self.client.id, CLIENT_CHANNEL_SAT, 0, 1, None, None)
                        .unwrap();
                });
            }
            Event::ChannelReady {
                channel_id,
                counterparty_node_id,
                ..
            } if node.id == self.lsp.id && counterparty_node_id == self.client.id => {
                let (id, amount) = self.held.borrow_mut().take().unwrap();
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
            Event::PaymentSent { .. } => *self.paid.borrow_mut() = true,
            Event::PaymentFailed { reason, .. } => panic!("{reason:?}"),
            _ => {}
        }
    }

    /// Pays the client over this channel of the LSP's.
    fn pay(&self, scid: u64, amount: u64) {
        let (hash, secret) = self
            .client
            .time("create_inbound_payment", |m| {
                m.create_inbound_payment(Some(amount - SKIM_MSAT.min(amount / 2)), 3_600, None)
            })
            .unwrap();
        let first = self.payer.manager.list_usable_channels().remove(0);
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
                self.lsp,
                first.get_outbound_payment_scid().unwrap(),
                FORWARDING_FEE_MSAT,
                LSP_CLTV,
            ),
            hop(self.client, scid, amount, FINAL_CLTV),
        ];
        let to = PaymentParameters::from_node_id(self.client.id, FINAL_CLTV);
        let route = Route {
            paths: vec![Path {
                hops,
                blinded_tail: None,
            }],
            route_params: Some(RouteParameters::from_payment_params_and_value(to, amount)),
        };
        let onion = RecipientOnionFields::secret_only(secret);
        self.payer.time("send_payment", |m| {
            m.send_payment_with_route(route, hash, onion, PaymentId(hash.0))
                .unwrap();
        });
        self.run();
        assert!(self.paid.take(), "it was not paid");
    }
}

fn addressee(message: &MessageSendEvent) -> Option<PublicKey> {
    match message {
        MessageSendEvent::SendOpenChannel { node_id, .. }
        | MessageSendEvent::SendAcceptChannel { node_id, .. }
        | MessageSendEvent::SendFundingCreated { node_id, .. }
        | MessageSendEvent::SendFundingSigned { node_id, .. }
        | MessageSendEvent::SendChannelReady { node_id, .. }
        | MessageSendEvent::SendChannelUpdate { node_id, .. }
        | MessageSendEvent::SendRevokeAndACK { node_id, .. }
        | MessageSendEvent::UpdateHTLCs { node_id, .. } => Some(*node_id),
        MessageSendEvent::BroadcastChannelUpdate { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn settings() -> UserConfig {
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
    config.channel_handshake_limits.max_funding_satoshis = u64::MAX;
    config.channel_config.accept_underpaying_htlcs = true;
    config.channel_config.forwarding_fee_base_msat = u32::try_from(FORWARDING_FEE_MSAT).unwrap();
    config
}

/// What each of the three spent on the payments measured.
type Budget = Vec<[Spent; 3]>;

fn measured(three: &Three, turn: usize, budget: &mut Budget, payment: impl FnOnce()) {
    for node in three.nodes() {
        node.spent.take();
    }
    payment();
    if turn >= WARM_UP {
        budget.push(three.nodes().map(|node| node.spent.take()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn shown(budget: &Budget) -> Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let of = |side: usize| median(budget.iter().map(|b| us(b[side].total())).collect());
    let whole = budget.iter().map(|b| us(b.iter().map(Spent::total).sum()));
    let mut calls = BTreeMap::new();
    for name in budget.iter().flat_map(|b| b[1].0.keys()) {
        let each = budget
            .iter()
            .map(|b| us(b[1].0.get(name).copied().unwrap_or_default()));
        calls.insert(*name, median(each.collect()));
    }
    json!({
        "payments": budget.len(),
        "total_us": median(whole.collect()),
        "payer_us": of(0),
        "lsp_us": of(1),
        "client_us": of(2),
        "lsp_calls_us": calls,
    })
}

fn main() {
    let payer = Node::new(1, 0, settings());
    let lsp = Node::new(2, 0, settings());
    let nobody = Node::new(3, 0, settings());
    payer.connect(&lsp);
    let setup = Three::new(&payer, &lsp, &nobody, 0);
    let opened = payer
        .manager
        .create_channel(lsp.id, PAYER_CHANNEL_SAT, 0, 1, None, None);
    opened.unwrap();
    setup.run();
    let (mut jit, mut forward) = (Budget::new(), Budget::new());
    for turn in 0..WARM_UP + ROUNDS {
        let number = u32::try_from(turn).unwrap() + 1;
        let client = Node::new(3, number, settings());
        lsp.connect(&client);
        let three = Three::new(&payer, &lsp, &client, number.into());
        three.run();
        let scid = lsp.manager.get_intercept_scid();
        measured(&three, turn, &mut jit, || three.pay(scid, JIT_MSAT));
        let alias = client.manager.list_usable_channels()[0]
            .inbound_scid_alias
            .unwrap();
        measured(&three, turn, &mut forward, || {
            three.pay(alias, FORWARD_MSAT)
        });
        lsp.manager.peer_disconnected(client.id);
    }
    println!(
        "{}",
        json!({"jit": shown(&jit), "forward": shown(&forward)})
    );
}
