//! The service side: LSPS2 sales, and the orders driven by what LDK reports. Decides nothing; `ldkjit-core` does.

mod act;
mod coins;
mod grants;
pub mod hooks;
mod messages;
mod observe;
mod policy;
mod quotas;
mod scores;
pub mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
#[cfg(feature = "faults")]
use bitcoin::Transaction;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, PartId, Scid};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::liquidity::Books;
use ldkjit_core::lsps0::RpcError;
use ldkjit_core::menu::Secret;
use ldkjit_core::order::{
    ChannelView, Env, Input, Order, OrderLimits, PartStatus, State as OrderState,
};
use ldkjit_core::policy::Hook;
use ldkjit_core::rules::Rules;
use ldkjit_core::sizing::Sizing;
use ldkjit_core::time::Millis;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::ln::channel_state::ChannelShutdownState;

use crate::commit::read_kind;
use crate::config::LspConfig;
use crate::convert;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::log::{now_ms, Seldom};
use crate::node::Node;
use crate::sync::lock;
use grants::Grants;
use hooks::Desk;
use quotas::Quotas;
use scores::Scores;
use webhooks::Hooks;

const KIND: &str = "order";

/// A way for this node to cheat, to test that the others notice.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards, but never publishes the funding transaction.
    NeverBroadcast,
    /// Publishes a funding output that pays somebody else.
    WrongScript,
    /// Publishes a funding output of another value.
    WrongValue,
    /// Between payer and LSP: passes on this much less than the onion says, msat, for every scid that it never sold.
    ForwardLess(u64),
    /// As a wallet: fails a JIT payment that it could claim, the first time.
    ClientRefuses,
    /// As a wallet: does not answer the first offer of a channel.
    IgnoresOffer,
    /// As a wallet: hangs up at the first offer of a channel, and does not dial again by itself.
    HangsUpAtOffer,
    /// As a wallet: knows no anchors.
    NoAnchors,
    /// As a wallet: hangs up instead of signing the first funding transaction.
    HangsUpAtFunding,
    /// As a wallet: hangs up before it claims a JIT payment, and does not dial again by itself.
    HangsUpAtClaim,
    /// As a wallet: is connected for this long, seconds since its start, before it takes its channels up again.
    TakesUpLate(u64),
    /// Between payer and payee: hears nothing more from the first peer that gives it a preimage, until that is gone.
    DeafAfterPreimage,
    /// As an LSP: loses the client, who has accepted, as it is about to fund the channel, at the first attempt.
    LosesClient,
    /// As an LSP: closes by force the channel that it has just given a part to.
    ClosesAtForward,
    /// As an LSP: a preimage demands that the funding transaction is published, and the node dies before it is.
    DiesBeforeBroadcast,
}

/// The service.
pub struct Service {
    config: LspConfig,
    rules: Rules,
    secret: Secret,
    state: Mutex<State>,
    /// The operator's hooks, if there are any.
    desk: Option<Arc<Desk>>,
    /// LSPS5, if it is offered.
    pub(crate) webhooks: Option<Hooks>,
    seldom: Seldom,
}

/// What the service remembers; the store has all of it that must survive.
#[derive(Default)]
pub(crate) struct State {
    orders: BTreeMap<Scid, Order>,
    by_client: BTreeMap<NodeId, BTreeSet<Scid>>,
    /// What all orders weigh.
    books: Books,
    grants: Grants,
    quotas: Quotas,
    scores: Scores,
    /// Opens without a funding transaction yet, and LDK's name for the channel until it has one.
    opening: HashMap<OpenId, lightning::ln::types::ChannelId>,
    /// `HTLCHandlingFailed` events to expect for parts that we failed by an impossible forward.
    impossible: HashMap<ChannelId, u32>,
    /// Parts given to a channel that LDK has not tried to put there yet.
    given: HashSet<PartId>,
    /// Peers that intercepted parts came from, latest first.
    payers: VecDeque<PublicKey>,
    /// Requests under way, by peer.
    requests: HashMap<PublicKey, u32>,
    refused: Refused,
}

/// Refusals that are not in the ledger yet: one row a minute has them all, so that nobody fills the disk by asking.
#[derive(Default)]
struct Refused {
    counts: BTreeMap<String, u64>,
    since: Millis,
}

impl Refused {
    fn add(&mut self, why: &RpcError) {
        // Our own words, one for each reason; an operator's own are bounded in number here.
        if self.counts.len() < MAX_REFUSALS || self.counts.contains_key(&why.message) {
            let count = self.counts.entry(why.message.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn due(&mut self, now: Millis) -> Option<LedgerEntry> {
        if now.since(self.since) < REFUSED_EVERY_MS {
            return None;
        }
        self.since = now;
        let counts = std::mem::take(&mut self.counts);
        (!counts.is_empty()).then_some(LedgerEntry::Refused { counts })
    }
}

const MAX_REFUSALS: usize = 100;
const REFUSED_EVERY_MS: u64 = 60_000;

impl State {
    fn insert(&mut self, order: Order) {
        self.books.add(&order);
        self.by_client
            .entry(order.terms.client)
            .or_default()
            .insert(order.terms.scid);
        if let Some(before) = self.orders.insert(order.terms.scid, order) {
            self.books.remove(&before);
        }
    }

    fn remove(&mut self, scid: Scid) {
        if let Some(order) = self.orders.remove(&scid) {
            self.books.remove(&order);
            if let Some(scids) = self.by_client.get_mut(&order.terms.client) {
                scids.remove(&scid);
                if scids.is_empty() {
                    self.by_client.remove(&order.terms.client);
                }
            }
        }
    }

    /// Whether a failure over this channel is one of a part that we failed there.
    fn was_impossible(&mut self, channel: ChannelId) -> bool {
        let Some(expected) = self.impossible.get_mut(&channel) else {
            return false;
        };
        *expected = expected.saturating_sub(1);
        if *expected == 0 {
            self.impossible.remove(&channel);
        }
        true
    }

    /// Whether there is one over a channel that has closed since.
    fn was_impossible_for_closed(&mut self, node: &Node) -> bool {
        if self.impossible.is_empty() {
            return false;
        }
        let channels = node.cm.list_channels();
        let open: HashSet<_> = channels.iter().map(|c| ChannelId(c.channel_id.0)).collect();
        let closed = self.impossible.keys().find(|c| !open.contains(*c)).copied();
        closed.is_some_and(|channel| self.was_impossible(channel))
    }

    fn of_client(&self, client: &NodeId) -> Vec<Scid> {
        self.by_client
            .get(client)
            .map(|scids| scids.iter().copied().collect())
            .unwrap_or_default()
    }
}

/// The order an open belongs to.
pub(crate) fn order_of(open: OpenId) -> Option<Scid> {
    let scid = u64::try_from(open.0 >> 64).ok()?;
    (scid != 0).then_some(Scid(scid))
}

/// Stamps a stage of an open on the payment that it is for.
pub(crate) fn stamp(node: &Node, state: &State, open: OpenId, stage: &'static str) {
    let order = order_of(open).and_then(|scid| state.orders.get(&scid));
    if let Some(hash) = order.and_then(|o| o.paying) {
        node.timeline.stamp(hash, stage);
    }
}

impl Service {
    /// The service as the store left it.
    ///
    /// # Errors
    /// `store_corrupt` when an order cannot be read: nothing may be guessed about money.
    pub fn load(
        config: LspConfig,
        desk: Option<Arc<Desk>>,
        secret: [u8; 32],
        live: &[(String, String, Vec<u8>)],
    ) -> Result<Self, NodeError> {
        let mut state = State::default();
        let orders: Vec<(String, Order)> = read_kind(live, KIND, "order")?;
        for (_, order) in orders {
            state.insert(order);
        }
        state.scores = Scores::load(live)?;
        state.quotas = Quotas::load(live)?;
        let webhooks = config.webhooks.as_ref();
        let webhooks = webhooks.map(|w| Hooks::load(w, live)).transpose()?;
        let secret = Secret(secret);
        let rules = config.rules();
        let hooked = desk.as_ref().is_some_and(|desk| desk.has(Hook::Menu));
        state.grants = Grants::load(&rules, &secret, hooked, live)?;
        Ok(Self {
            rules,
            secret,
            config,
            state: Mutex::new(state),
            desk,
            webhooks,
            seldom: Seldom::default(),
        })
    }

    fn limits(&self, node: &Node) -> OrderLimits {
        let l = &self.config.limits;
        OrderLimits {
            collect_ms: l.collect_ms,
            wake_ms: l.wake_ms,
            open_ms: l.open_ms,
            grace_ms: l.grace_ms,
            claim_ms: l.claim_ms,
            max_held_per_client: l.max_held_per_client,
            max_held: l.max_held,
            max_held_of_strangers: self.rules.lending.strangers_count(l.max_held),
            htlc_minimum: Msat(l.htlc_minimum_msat),
            max_opens: l.max_opens,
            charge_on_reuse: l.charge_on_reuse,
            ask_policy: self.asks(Hook::Channel).is_some(),
            sizing: self.sizing(node),
        }
    }

    fn sizing(&self, node: &Node) -> Sizing {
        let l = &self.config.limits;
        Sizing {
            sat_per_kw: node
                .parts
                .fees
                .get_est_sat_per_1000_weight(ConfirmationTarget::AnchorChannelFee),
            provision_ppm: l.extra_capacity_ppm,
            provision_sat: l.extra_capacity_sat,
            min_sat: l.min_channel_sat,
            max_sat: l.max_channel_sat,
        }
    }

    fn views(node: &Node, state: &State, client: &PublicKey) -> Vec<ChannelView> {
        node.cm
            .list_channels_with_counterparty(client)
            .into_iter()
            .filter(|c| c.funding_txo.is_some())
            .map(|c| {
                let open_id = OpenId(c.user_channel_id);
                let order = order_of(open_id).and_then(|scid| state.orders.get(&scid));
                let closing = matches!(
                    c.channel_shutdown_state,
                    Some(s) if s != ChannelShutdownState::NotShuttingDown
                );
                let room = |msat| Msat(if closing { 0 } else { msat });
                ChannelView {
                    id: ChannelId(c.channel_id.0),
                    open_id: order_of(open_id).map(|_| open_id),
                    usable: c.is_usable && !closing,
                    outbound_limit: room(c.next_outbound_htlc_limit_msat),
                    outbound_capacity: room(c.outbound_capacity_msat),
                    htlc_minimum: Msat(c.next_outbound_htlc_minimum_msat.max(1)),
                    unpaid: order.is_some_and(|order| !order.paid),
                }
            })
            .collect()
    }

    /// Gives an order an input, stores what came of it, and carries out the effects, and what follows from those.
    ///
    /// The caller holds the gate, so that order, ledger and LDK's state change in one commit.
    fn apply(&self, node: &Node, state: &mut State, scid: Scid, input: Input) {
        let limits = self.limits(node);
        let mut inputs = VecDeque::from([input]);
        // Every follow-up answers one effect, so this ends; the bound is for the day it does not.
        let mut steps = 0_u32;
        while let Some(input) = inputs.pop_front() {
            steps = steps.saturating_add(1);
            if steps > 10_000 {
                node.parts.log.error(
                    "lsp",
                    format_args!("order {scid}: too many steps, stopped at {input:?}"),
                );
                return;
            }
            let Some(order) = state.orders.get(&scid) else {
                return;
            };
            let Some(client) = convert::public_key(&order.terms.client) else {
                return;
            };
            let channels = Self::views(node, state, &client);
            let env = Env {
                now: Millis(now_ms()),
                height: node.height(),
                connected: node.is_connected(&client),
                channels: &channels,
                limits: &limits,
                held_for_client: state.books.of(&order.terms.client).held,
                held_of_strangers: state.books.strangers.held,
                held: state.books.total.held,
            };
            let Some(order) = state.orders.get(&scid) else {
                return;
            };
            let (next, effects) = order.step(&input, &env);
            self.keep(node, state, next);
            for effect in effects {
                inputs.extend(self.act(node, state, scid, &client, effect));
            }
        }
        self.archive_if_over(node, state, scid);
    }

    /// Stores an order if it changed.
    fn keep(&self, node: &Node, state: &mut State, next: Order) {
        let scid = next.terms.scid;
        let before = state.orders.get(&scid);
        if before == Some(&next) {
            return;
        }
        if before.map(|o| o.state) != Some(next.state) {
            node.parts.log.info(
                "lsp",
                format_args!("order {scid} of {}: {:?}", next.terms.client, next.state),
            );
            if before.is_some() {
                node.events.emit(&NodeEvent::OrderChanged {
                    scid,
                    state: state_name(next.state),
                });
            }
        }
        match serde_json::to_vec(&next) {
            Ok(bytes) => node.parts.journal.put(KIND, scid.to_string(), bytes),
            Err(e) => node
                .parts
                .log
                .error("lsp", format_args!("order {scid} cannot be written: {e}")),
        }
        state.insert(next);
    }

    fn archive_if_over(&self, node: &Node, state: &mut State, scid: Scid) {
        let Some(order) = state.orders.get(&scid).filter(|o| o.is_over()) else {
            return;
        };
        if let Ok(bytes) = serde_json::to_vec(order) {
            node.parts.journal.row(KIND, scid.to_string(), bytes);
        }
        node.parts.journal.delete(KIND, scid.to_string());
        if let Some(open) = order.open.as_ref().map(|o| o.id) {
            state.opening.remove(&open);
        }
        state.remove(scid);
    }

    /// How many HTLCs are held, and since when the oldest is.
    #[must_use]
    pub fn held(&self) -> (u32, Option<Millis>) {
        let state = lock(&self.state);
        let parts = state.orders.values().flat_map(|order| order.parts.values());
        let held = parts.filter(|part| part.status == PartStatus::Held);
        (state.books.total.held, held.map(|part| part.arrived).min())
    }

    /// Whether this client has an order that is not over.
    pub(crate) fn has_orders(&self, client: &NodeId) -> bool {
        lock(&self.state).by_client.contains_key(client)
    }

    /// What became of the questions to each of the operator's hooks.
    #[must_use]
    pub fn policy_counts(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
        self.desk
            .as_ref()
            .map(|desk| desk.counts())
            .unwrap_or_default()
    }

    /// Every order that is not over, as JSON.
    #[must_use]
    pub fn orders(&self) -> Vec<serde_json::Value> {
        lock(&self.state)
            .orders
            .values()
            .map(|order| {
                let mut value = serde_json::to_value(order).unwrap_or_default();
                if let Some(map) = value.as_object_mut() {
                    map.insert("state".into(), state_name(order.state).into());
                    map.insert("scid".into(), order.terms.scid.to_string().into());
                }
                value
            })
            .collect()
    }
}

/// The state's name; what failed carries its reason.
fn state_name(state: OrderState) -> String {
    match state {
        OrderState::Failed(reason) => format!("failed:{reason:?}").to_lowercase(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Cheats a client: only in builds for tests.
#[cfg(feature = "faults")]
fn act_fault(
    node: &Node,
    temporary: lightning::ln::types::ChannelId,
    client: PublicKey,
    tx: &Transaction,
    fault: Fault,
) -> Result<(), NodeError> {
    use bitcoin::{Amount, ScriptBuf};
    let failed = |e| NodeError::internal(format!("{e:?}"));
    if fault == Fault::NeverBroadcast {
        return node
            .cm
            .funding_transaction_generated_manual_broadcast(temporary, client, tx.clone())
            .map_err(failed);
    }
    // The output that looks like the channel's is replaced by one that is not; the wallet signs again.
    let (index, output) = tx
        .output
        .iter()
        .enumerate()
        .find(|(_, o)| o.script_pubkey.is_p2wsh())
        .ok_or_else(|| NodeError::internal("no funding output"))?;
    let (script, value) = match fault {
        Fault::WrongScript => (
            ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_raw_hash(
                bitcoin::hashes::Hash::all_zeros(),
            )),
            output.value,
        ),
        _ => (
            output.script_pubkey.clone(),
            Amount::from_sat(output.value.to_sat() / 2),
        ),
    };
    let (wrong, wrong_index) = node.parts.wallet.replace_output(tx, index, script, value)?;
    let outpoint = lightning::chain::transaction::OutPoint {
        txid: wrong.compute_txid(),
        index: wrong_index,
    };
    drop(node.parts.broadcaster.broadcast(vec![wrong]));
    node.cm
        .unsafe_manual_funding_transaction_generated(temporary, client, outpoint)
        .map_err(failed)
}

/// Passes a payment on over the channel that this node opened itself, and keeps some of it.
#[cfg(feature = "faults")]
fn forward_less(
    node: &Node,
    id: lightning::ln::channelmanager::InterceptId,
    declared_msat: u64,
    less_msat: u64,
) {
    let usable = node.cm.list_usable_channels();
    if let Some(onward) = usable.iter().find(|c| c.is_outbound) {
        let _ = node.cm.forward_intercepted_htlc(
            id,
            &onward.channel_id,
            onward.counterparty.node_id,
            declared_msat.saturating_sub(less_msat),
        );
        node.wake.notify_one();
    }
}
