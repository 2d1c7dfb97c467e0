//! What LDK, the clock and the wire report to the orders.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction};
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::lsps0::clean_text;
use ldkjit_core::lsps5::Notice;
use ldkjit_core::menu::TrustModel;
use ldkjit_core::order::{Input, OpenFailure, OpenPhase, PartStatus, State as OrderState};
use ldkjit_core::reason::Reason;
use lightning::chain::channelmonitor::Balance;
use lightning::events::ClosureReason;
use lightning::ln::channel_state::ChannelShutdownState;
use lightning::ln::channelmanager::InterceptId;
use std::collections::{BTreeMap, BTreeSet};

use super::act::{close, is_lesser};
use super::{order_of, stamp, Service, State};
use crate::convert;
use crate::log::now_ms;
use crate::node::Node;
use crate::sync::lock;
use ldkjit_core::order::Env;
use ldkjit_core::time::Millis;

/// LDK lets a held part go 39 blocks before its outgoing expiry, a client refuses it at 40: one block earlier is the last chance.
const RELEASE_MARGIN: u32 = 41;
/// Peers searched first for an intercepted part.
const PAYERS: usize = 16;
/// Confirmations after which a funding transaction is no longer followed.
const BURIED: u32 = 6;

impl Service {
    /// After a restart: what LDK still holds is compared with the orders.
    pub fn resume(&self, node: &Node) {
        let mut state = lock(&self.state);
        let limits = self.limits(node);
        for scid in state.orders.keys().copied().collect::<Vec<_>>() {
            let Some(order) = state.orders.get(&scid) else {
                continue;
            };
            let Some(client) = convert::public_key(&order.terms.client) else {
                continue;
            };
            let held: BTreeSet<PartId> = order
                .parts
                .keys()
                .filter(|id| {
                    node.cm
                        .intercepted_htlc_inbound_amount_msat(InterceptId(id.0))
                        .is_some()
                })
                .copied()
                .collect();
            let channels = Self::views(node, &state, &client);
            let env = Env {
                now: Millis(now_ms()),
                height: node.height(),
                connected: false,
                channels: &channels,
                limits: &limits,
                held_for_client: state.books.of(&order.terms.client).held,
                held_of_strangers: state.books.strangers.held,
                held: state.books.total.held,
            };
            let Some(order) = state.orders.get(&scid) else {
                continue;
            };
            let (next, effects) = order.resume(&held, &env);
            self.keep(node, &mut state, next);
            let follow: Vec<Input> = effects
                .into_iter()
                .filter_map(|effect| self.act(node, &mut state, scid, &client, effect))
                .collect();
            for input in follow {
                self.apply(node, &mut state, scid, input);
            }
            self.archive_if_over(node, &mut state, scid);
        }
    }

    /// An HTLC for one of our scids.
    pub fn on_intercepted(
        &self,
        node: &Node,
        id: InterceptId,
        scid: u64,
        hash: PaymentHash,
        inbound_msat: u64,
        declared_msat: u64,
    ) {
        node.timeline.stamp(hash, "intercepted");
        let scid = Scid(scid);
        let mut state = lock(&self.state);
        if !state.orders.contains_key(&scid) {
            #[cfg(feature = "faults")]
            if let Some(super::Fault::ForwardLess(less)) = node.config.fault {
                return super::forward_less(node, id, declared_msat, less);
            }
            node.parts.log.info(
                "lsp",
                format_args!("payment {hash} to {scid}, which was never sold: failed"),
            );
            let _ = node.cm.fail_intercepted_htlc(id);
            return;
        }
        let expiry = inbound_expiry(node, &mut state, hash, inbound_msat);
        let delta = u32::from(self.config.cltv_expiry_delta);
        let release_by = expiry
            .map(|e| e.saturating_sub(delta).saturating_sub(RELEASE_MARGIN))
            .unwrap_or(0);
        self.apply(
            node,
            &mut state,
            scid,
            Input::Part {
                id: PartId(id.0),
                hash,
                inbound: Msat(inbound_msat),
                declared: Msat(declared_msat),
                release_by,
            },
        );
    }

    /// A client came or went.
    pub fn on_presence(&self, node: &Node, peer: &PublicKey, connected: bool) {
        let client = convert::node_id(peer);
        // Before the orders look: one that waits again has its client called again.
        if let Some(hooks) = &self.webhooks {
            hooks.on_presence(&client, connected);
        }
        let mut state = lock(&self.state);
        for scid in state.of_client(&client) {
            let input = if connected {
                Input::Connected
            } else {
                Input::Disconnected
            };
            self.apply(node, &mut state, scid, input);
            if !connected {
                self.lost_before_funding(node, &mut state, scid, peer);
            }
        }
    }

    /// An open that has no funding transaction yet ends with the connection (J-62); LDK itself would take it up again.
    fn lost_before_funding(&self, node: &Node, state: &mut State, scid: Scid, client: &PublicKey) {
        let open = state.orders.get(&scid).and_then(|o| o.open.as_ref());
        let Some(open) = open.filter(|o| o.phase == OpenPhase::Requested) else {
            return;
        };
        let open = open.id;
        let channel = node
            .cm
            .list_channels_with_counterparty(client)
            .into_iter()
            .find(|c| c.user_channel_id == open.0);
        // With a funding transaction LDK reports what became of it.
        if channel.as_ref().is_some_and(|c| c.funding_txo.is_some()) {
            return;
        }
        if let Some(channel) = channel {
            let why = "the client disconnected".to_string();
            let _ = node
                .cm
                .force_close_broadcasting_latest_txn(&channel.channel_id, client, why);
        }
        let why = OpenFailure::Disconnected;
        self.apply(node, state, scid, Input::OpenFailed { open, why });
    }

    /// LDK refuses to close a channel by agreement that is not taken up again yet, though its client is connected: it is asked
    /// again once it is, or the client is gone.
    fn close_again(&self, node: &Node, state: &State) {
        for order in state.orders.values() {
            let open = order.closing.iter().filter(|(_, closed)| !**closed);
            let open: Vec<ChannelId> = open.map(|(channel, _)| *channel).collect();
            if open.is_empty() {
                continue;
            }
            let Some(client) = convert::public_key(&order.terms.client) else {
                continue;
            };
            for channel in node.cm.list_channels_with_counterparty(&client) {
                let id = ChannelId(channel.channel_id.0);
                let begun = !matches!(
                    channel.channel_shutdown_state,
                    None | Some(ChannelShutdownState::NotShuttingDown)
                );
                let ready = channel.is_usable || !node.is_connected(&client);
                if open.contains(&id) && ready && !begun {
                    close(node, state, &client, id, Reason::FeeUnpaid.message());
                }
            }
        }
    }

    /// A second went by: only orders that wait for something are asked.
    pub fn on_second(&self, node: &Node) {
        let now = Millis(now_ms());
        let mut state = lock(&self.state);
        if let Some(row) = state.refused.due(now) {
            node.record(&row);
        }
        self.close_again(node, &state);
        let due: Vec<Scid> = state
            .orders
            .values()
            .filter(|o| match o.state {
                OrderState::Sold => !o.terms.params.is_valid_at(now),
                OrderState::Paid => o.parts.values().any(|p| p.status == PartStatus::Held),
                _ => true,
            })
            .map(|o| o.terms.scid)
            .collect();
        for scid in due {
            self.apply(node, &mut state, scid, Input::Tick);
            // Whoever still sleeps is called again, though not more often than the cooldown lets it (W-24).
            let order = state.orders.get(&scid);
            if let Some(order) = order.filter(|o| o.state == OrderState::Waking) {
                if let Some(client) = convert::public_key(&order.terms.client) {
                    self.tell(node, &client, Notice::PaymentIncoming);
                }
            }
        }
    }

    /// What a client is to know, if it is away and has webhooks.
    pub(crate) fn tell(&self, node: &Node, client: &PublicKey, notice: Notice) -> bool {
        let hooks = self.webhooks.as_ref();
        hooks.is_some_and(|hooks| hooks.notify(node, client, notice))
    }

    /// A payment over a channel did not find its client, who may be there for the next attempt: LDK 0.2.7 holds nothing
    /// that does not ask for a jit scid.
    pub fn on_missed(&self, node: &Node, client: &PublicKey) {
        self.tell(node, client, Notice::PaymentIncoming);
    }

    /// A new block: LDK may have let parts go, funding may have confirmed, heights count.
    pub fn on_block(&self, node: &Node) {
        let mut state = lock(&self.state);
        for scid in state.orders.keys().copied().collect::<Vec<_>>() {
            self.check_held(node, &mut state, scid);
            self.check_funding(node, &mut state, scid);
            self.apply(node, &mut state, scid, Input::Tick);
        }
        let now = Millis(now_ms());
        let (journal, patience) = (&node.parts.journal, &self.config.patience);
        state.scores.forget(journal, patience, now);
        state.grants.forget(journal, now);
        state.quotas.forget(journal, now);
        drop(state);
        if let Some(hooks) = &self.webhooks {
            hooks.on_block(node);
        }
    }

    /// LDK gave up an HTLC to this scid, without saying which: one that waits for us under a jit scid, or one that we gave to a
    /// channel which closed before LDK had put it there, and which LDK calls by its alias.
    pub fn on_invalid_forward(&self, node: &Node, scid: u64) {
        let mut state = lock(&self.state);
        if state.orders.contains_key(&Scid(scid)) {
            return self.check_held(node, &mut state, Scid(scid));
        }
        if state.was_impossible_for_closed(node) {
            return;
        }
        let scids: Vec<Scid> = state.orders.keys().copied().collect();
        let missing = missing(node, &state, &scids);
        // What was in the channel when it closed has its end on the chain.
        let mut of_closed: BTreeMap<ChannelId, Htlcs> = BTreeMap::new();
        let lost = missing
            .into_iter()
            .filter(|part| !part.is_open)
            .find(|part| {
                let htlcs = of_closed.entry(part.channel);
                let htlcs = htlcs.or_insert_with(|| on_chain(node, &part.channel));
                !take(htlcs, (part.hash, part.amount.sat_floor()))
            });
        if let Some(Missing { scid, id, .. }) = lost {
            self.apply(node, &mut state, scid, Input::PartFailed { id });
        }
    }

    /// LDK is about to forward what it was given.
    pub fn on_forwards(&self) {
        lock(&self.state).given.clear();
    }

    fn check_held(&self, node: &Node, state: &mut State, scid: Scid) {
        let Some(order) = state.orders.get(&scid) else {
            return;
        };
        let gone: Vec<PartId> = order
            .parts
            .iter()
            .filter(|(_, part)| {
                matches!(part.status, PartStatus::Held | PartStatus::Failing { .. })
            })
            .map(|(id, _)| *id)
            .filter(|id| {
                node.cm
                    .intercepted_htlc_inbound_amount_msat(InterceptId(id.0))
                    .is_none()
            })
            .collect();
        for id in gone {
            self.apply(node, state, scid, Input::PartGone { id });
        }
    }

    fn check_funding(&self, node: &Node, state: &mut State, scid: Scid) {
        let Some(order) = state.orders.get(&scid) else {
            return;
        };
        let Some(open) = order.open.as_ref().filter(|open| open.depth < BURIED) else {
            return;
        };
        let Some(txid) = open.funding.as_ref().and_then(|f| f.txid.parse().ok()) else {
            return;
        };
        let known = open.depth;
        // The wallet paid for it and follows it, also after the channel is closed.
        let depth = node.parts.wallet.confirmed_at(&txid).map_or(0, |height| {
            node.height().saturating_sub(height).saturating_add(1)
        });
        if depth > known {
            self.apply(node, state, scid, Input::FundingConfirmed { depth });
        } else if depth == 0 && known > 0 {
            self.apply(node, state, scid, Input::FundingReorged);
        }
    }

    /// LDK asks for the funding transaction of an open. False if the open is not an order's.
    pub fn on_funding_needed(
        &self,
        node: &Node,
        temporary: lightning::ln::types::ChannelId,
        client: PublicKey,
        value_sat: u64,
        script: ScriptBuf,
        open: u128,
    ) -> bool {
        let open = OpenId(open);
        let Some(scid) = order_of(open) else {
            return false;
        };
        let mut state = lock(&self.state);
        let Some(order) = state.orders.get(&scid) else {
            return false;
        };
        let trust = order.terms.trust;
        stamp(node, &state, open, "funding_needed");
        #[cfg(feature = "faults")]
        if node.config.fault == Some(super::Fault::LosesClient) && open.attempt() == 1 {
            node.pm.disconnect_by_node_id(client);
        }
        // LDK would give the funding to nobody, and not learn of a disconnect that lies behind it.
        let connected = node.is_connected(&client);
        let lesser = node.cm.list_channels_with_counterparty(&client);
        let lesser = lesser
            .iter()
            .any(|c| c.user_channel_id == open.0 && is_lesser(c));
        let funded = if lesser {
            // LDK offers ever lesser types to whoever refuses, until one is accepted.
            Err(crate::error::NodeError::peer(
                "the client took only a channel without scid alias or anchors",
            ))
        } else if connected {
            let wallet = &node.parts.wallet;
            wallet
                .fund_locked(open.0, &script, value_sat)
                .and_then(|tx| {
                    self.give_funding(node, &mut state, temporary, client, open, trust, tx)
                })
        } else {
            Err(crate::error::NodeError::peer("the client is gone"))
        };
        if let Err(e) = funded {
            node.parts
                .log
                .error("lsp", format_args!("order {scid}: channel not funded: {e}"));
            let why = "funding failed".to_string();
            let _ = node
                .cm
                .force_close_broadcasting_latest_txn(&temporary, &client, why);
            let why = if lesser {
                OpenFailure::ClientUnable
            } else if connected {
                OpenFailure::Other
            } else {
                OpenFailure::Disconnected
            };
            self.apply(node, &mut state, scid, Input::OpenFailed { open, why });
        }
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn give_funding(
        &self,
        node: &Node,
        state: &mut State,
        temporary: lightning::ln::types::ChannelId,
        client: PublicKey,
        open: OpenId,
        trust: TrustModel,
        tx: Transaction,
    ) -> Result<(), crate::error::NodeError> {
        let failed = |e| crate::error::NodeError::internal(format!("{e:?}"));
        #[cfg(feature = "faults")]
        if let Some(
            fault @ (super::Fault::NeverBroadcast
            | super::Fault::WrongScript
            | super::Fault::WrongValue),
        ) = node.config.fault
        {
            return super::act_fault(node, temporary, client, &tx, fault);
        }
        state.opening.remove(&open);
        match trust {
            TrustModel::LspTrustsClient => node
                .cm
                .funding_transaction_generated(temporary, client, tx)
                .map_err(failed),
            // The wallet keeps it until a preimage is known.
            TrustModel::ClientTrustsLsp => node
                .cm
                .funding_transaction_generated_manual_broadcast(temporary, client, tx)
                .map_err(failed),
        }
    }

    /// Both have signed. False if the channel is not an order's.
    pub fn on_channel_pending(
        &self,
        node: &Node,
        open: u128,
        channel: ChannelId,
        funding: Outpoint,
    ) -> bool {
        let open = OpenId(open);
        let fee_sat = node.parts.wallet.funding_fee(open.0);
        self.with_open(node, open, "channel_pending", |_| Input::ChannelPending {
            open,
            channel,
            funding,
            fee_sat: fee_sat.unwrap_or(0),
        })
    }

    /// Both have sent `channel_ready`. False if the channel is not an order's.
    pub fn on_channel_ready(&self, node: &Node, open: u128, channel: ChannelId) -> bool {
        let open = OpenId(open);
        self.with_open(node, open, "channel_ready", |_| Input::ChannelReady {
            open,
            channel,
        })
    }

    /// A channel, or the attempt to open one, ended. False if it is not an order's.
    pub fn on_channel_closed(
        &self,
        node: &Node,
        open: u128,
        channel: ChannelId,
        reason: &ClosureReason,
    ) -> bool {
        let open = OpenId(open);
        self.with_open(node, open, "channel_closed", |order| {
            let unfunded = order.open.as_ref().is_some_and(|o| {
                o.id == open
                    && matches!(
                        o.phase,
                        OpenPhase::Asking | OpenPhase::Granted | OpenPhase::Requested
                    )
            });
            if !unfunded {
                return Input::ChannelClosed { channel };
            }
            let why = match reason {
                ClosureReason::CounterpartyForceClosed { .. } => OpenFailure::ClientError,
                ClosureReason::DisconnectedPeer => OpenFailure::Disconnected,
                _ => OpenFailure::Other,
            };
            Input::OpenFailed { open, why }
        })
    }

    /// Any channel closed. What came over it and is held still is in no channel any more.
    pub fn on_any_channel_closed(&self, node: &Node) {
        let mut state = lock(&self.state);
        let held: Vec<_> = state
            .orders
            .iter()
            .flat_map(|(scid, order)| order.parts.iter().map(|(id, part)| (*scid, *id, *part)))
            .filter(|(_, _, part)| part.status == PartStatus::Held)
            .collect();
        if held.is_empty() {
            return;
        }
        let inbound: BTreeSet<(PaymentHash, u64)> = node
            .cm
            .list_channels()
            .into_iter()
            .flat_map(|c| c.pending_inbound_htlcs)
            .map(|htlc| (PaymentHash(htlc.payment_hash.0), htlc.amount_msat))
            .collect();
        for (scid, id, part) in held {
            if !inbound.contains(&(part.hash, part.inbound.0)) {
                self.apply(node, &mut state, scid, Input::PartStranded { id });
            }
        }
    }

    fn with_open(
        &self,
        node: &Node,
        open: OpenId,
        stage: &'static str,
        input: impl FnOnce(&ldkjit_core::order::Order) -> Input,
    ) -> bool {
        let Some(scid) = order_of(open) else {
            return false;
        };
        let mut state = lock(&self.state);
        let Some(order) = state.orders.get(&scid) else {
            return false;
        };
        let input = input(order);
        stamp(node, &state, open, stage);
        self.apply(node, &mut state, scid, input);
        true
    }

    /// A forwarded HTLC was claimed downstream. True if it was a part of an order.
    pub fn on_forwarded(
        &self,
        node: &Node,
        client: &PublicKey,
        channel: ChannelId,
        amount_msat: Option<u64>,
        skim_msat: Option<u64>,
        on_chain: bool,
    ) -> bool {
        let client = convert::node_id(client);
        let mut state = lock(&self.state);
        let scids = state.of_client(&client);
        let found = scids.iter().find_map(|scid| {
            let order = state.orders.get(scid)?;
            let id = order.find_forwarded(
                &channel,
                amount_msat.map(Msat),
                skim_msat.map(Msat),
                on_chain,
            )?;
            Some((*scid, id))
        });
        if let Some((scid, id)) = found {
            let part = state.orders.get(&scid).and_then(|o| o.parts.get(&id));
            if let Some(hash) = part.map(|part| part.hash) {
                node.timeline.stamp(hash, "part_claimed");
            }
            self.apply(node, &mut state, scid, Input::PartClaimed { id });
        }
        // LDK may send a part over another channel than ours (D-2): what is known there must be published too.
        let owner = scids.into_iter().find(|scid| {
            let open = state.orders.get(scid).and_then(|o| o.open.as_ref());
            open.is_some_and(|open| open.channel == Some(channel))
        });
        if let Some(owner) = owner.filter(|owner| found.map(|(scid, _)| scid) != Some(*owner)) {
            self.apply(node, &mut state, owner, Input::ClaimedOver { channel });
        }
        found.is_some()
    }

    /// A forwarded HTLC failed downstream; LDK says only over which channel.
    pub fn on_forward_failed(&self, node: &Node, client: &PublicKey, channel: ChannelId) {
        let mut state = lock(&self.state);
        if state.was_impossible(channel) {
            return;
        }
        let scids = state.of_client(&convert::node_id(client));
        let missing = missing(node, &state, &scids);
        // One given to the channel that the event names is the likelier.
        let found = missing
            .into_iter()
            .min_by_key(|part| part.channel != channel);
        if let Some(Missing { scid, id, .. }) = found {
            self.apply(node, &mut state, scid, Input::PartFailed { id });
        }
    }
}

/// A part that was given to a channel, and is in none that is open.
struct Missing {
    scid: Scid,
    id: PartId,
    hash: PaymentHash,
    amount: Msat,
    /// The channel it was given to, and whether that is still open.
    channel: ChannelId,
    is_open: bool,
}

/// The parts of these orders that LDK has tried to forward and that are in no open channel any more.
fn missing(node: &Node, state: &State, scids: &[Scid]) -> Vec<Missing> {
    let mut of_clients: BTreeMap<NodeId, (BTreeSet<ChannelId>, Htlcs)> = BTreeMap::new();
    let mut missing = Vec::new();
    for order in scids.iter().filter_map(|scid| state.orders.get(scid)) {
        let (scid, client) = (order.terms.scid, order.terms.client);
        for (&id, part) in &order.parts {
            let PartStatus::Forwarding {
                channel, amount, ..
            } = part.status
            else {
                continue;
            };
            if state.given.contains(&id) {
                continue;
            }
            let (open, pending) = of_clients
                .entry(client)
                .or_insert_with(|| in_channels(node, &client));
            if !take(pending, (part.hash, amount.0)) {
                missing.push(Missing {
                    scid,
                    id,
                    hash: part.hash,
                    amount,
                    channel,
                    is_open: open.contains(&channel),
                });
            }
        }
    }
    missing
}

/// How many HTLCs there are of a payment and an amount.
type Htlcs = BTreeMap<(PaymentHash, u64), u32>;

/// A client's channels, and what is on its way to it there, amounts in msat.
fn in_channels(node: &Node, client: &NodeId) -> (BTreeSet<ChannelId>, Htlcs) {
    let channels = convert::public_key(client)
        .map(|client| node.cm.list_channels_with_counterparty(&client))
        .unwrap_or_default();
    let open = channels.iter().map(|c| ChannelId(c.channel_id.0)).collect();
    let htlcs = channels.into_iter().flat_map(|c| c.pending_outbound_htlcs);
    let keys = htlcs.map(|htlc| (PaymentHash(htlc.payment_hash.0), htlc.amount_msat));
    (open, count(keys))
}

/// What is on its way on the chain, out of a closed channel, amounts in sat.
fn on_chain(node: &Node, channel: &ChannelId) -> Htlcs {
    let monitor = node.monitors.get_monitor(convert::ldk_channel(channel));
    let balances = monitor.map(|monitor| monitor.get_claimable_balances());
    let waiting = |balance| match balance {
        Balance::MaybeTimeoutClaimableHTLC {
            amount_satoshis,
            payment_hash,
            ..
        } => Some((PaymentHash(payment_hash.0), amount_satoshis)),
        _ => None,
    };
    count(balances.into_iter().flatten().filter_map(waiting))
}

fn count(keys: impl Iterator<Item = (PaymentHash, u64)>) -> Htlcs {
    let mut counts = Htlcs::new();
    for key in keys {
        let count = counts.entry(key).or_insert(0);
        *count = count.saturating_add(1);
    }
    counts
}

/// Takes one of these, if there is one.
fn take(htlcs: &mut Htlcs, key: (PaymentHash, u64)) -> bool {
    htlcs.get_mut(&key).is_some_and(|count| {
        let some = *count > 0;
        *count = count.saturating_sub(1);
        some
    })
}

/// The lowest expiry among the incoming HTLCs of this payment; LDK's event does not carry it.
fn inbound_expiry(
    node: &Node,
    state: &mut State,
    hash: PaymentHash,
    inbound_msat: u64,
) -> Option<u32> {
    let search = |channels: Vec<lightning::ln::channel_state::ChannelDetails>| {
        channels
            .into_iter()
            .flat_map(|c| {
                let peer = c.counterparty.node_id;
                c.pending_inbound_htlcs.into_iter().map(move |h| (peer, h))
            })
            .filter(|(_, h)| h.payment_hash.0 == hash.0 && h.amount_msat == inbound_msat)
            .min_by_key(|(_, h)| h.cltv_expiry)
            .map(|(peer, h)| (peer, h.cltv_expiry))
    };
    let (peer, expiry) = state
        .payers
        .iter()
        .find_map(|peer| search(node.cm.list_channels_with_counterparty(peer)))
        .or_else(|| search(node.cm.list_channels()))?;
    if state.payers.front() != Some(&peer) {
        state.payers.retain(|p| *p != peer);
        state.payers.push_front(peer);
        state.payers.truncate(PAYERS);
    }
    Some(expiry)
}

impl Service {
    /// The order whose fee the channel of this open still owes.
    #[must_use]
    pub fn unpaid(&self, open: OpenId) -> Option<Scid> {
        let scid = order_of(open)?;
        lock(&self.state)
            .orders
            .get(&scid)
            .filter(|order| order.owes())
            .map(|_| scid)
    }

    /// Whether an order still counts on the coins of an open.
    #[must_use]
    pub fn holds_coins(&self, open: u128) -> bool {
        let open = OpenId(open);
        let state = lock(&self.state);
        let order = order_of(open).and_then(|scid| state.orders.get(&scid));
        order.is_some_and(|order| order.coins() == Some(open))
    }

    /// Whether the funding transaction of an open may not be published yet.
    #[must_use]
    pub fn withholds(&self, open: u128) -> bool {
        let open = OpenId(open);
        let state = lock(&self.state);
        let order = order_of(open).and_then(|scid| state.orders.get(&scid));
        order_of(open).is_some() && order.is_none_or(|order| order.withholds(open))
    }

    /// Whether the operator may close a channel: not before the lifetime that was sold is over (J-11), unless a reason
    /// is given; then what is to be written down with the close.
    ///
    /// # Errors
    /// `config`, with the confirmations still owed.
    pub fn may_close(
        &self,
        node: &Node,
        channel: &lightning::ln::channel_state::ChannelDetails,
        break_promise: Option<&str>,
    ) -> Result<Option<LedgerEntry>, crate::error::NodeError> {
        let Some(scid) = order_of(OpenId(channel.user_channel_id)) else {
            return Ok(None);
        };
        let state = lock(&self.state);
        let Some(order) = state.orders.get(&scid).filter(|order| order.paid) else {
            return Ok(None);
        };
        let owed = order.terms.params.min_lifetime;
        let age = channel.confirmations.unwrap_or(0);
        if age >= owed {
            return Ok(None);
        }
        let log = &node.parts.log;
        let Some(why) = break_promise else {
            log.warn(
                "lsp",
                format_args!("order {scid}: close refused, {age} of {owed} blocks sold are over"),
            );
            return Err(crate::error::NodeError::config(format!(
                "this channel was sold for {owed} blocks after confirmation, {age} are over; \
                 break_promise closes it all the same and says why"
            )));
        };
        let why = clean_text(why);
        log.warn(
            "lsp",
            format_args!("order {scid}: to be closed after {age} of {owed} blocks sold: {why}"),
        );
        Ok(Some(LedgerEntry::PromiseBroken {
            scid,
            client: order.terms.client,
            channel: convert::channel(&channel.channel_id),
            age,
            min_lifetime: owed,
            why,
        }))
    }
}
