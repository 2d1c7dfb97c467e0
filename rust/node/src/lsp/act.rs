//! Carries out the effects of an order on LDK, the wallet and the ledger; what each brings is the next input.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, OpenId, PartId, Scid};
use ldkjit_core::lsps5::Notice;
use ldkjit_core::menu::TrustModel;
use ldkjit_core::order::{ChannelTerms, Effect, Input, OpenFailure};
use ldkjit_core::policy::Hook;
use ldkjit_core::reason::FailCode;
use ldkjit_core::time::Millis;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::InterceptId;
use lightning::util::config::UserConfig;

use super::{stamp, Service, State};
use crate::convert;
use crate::crash;
use crate::ldk;
use crate::log::now_ms;
use crate::node::Node;

/// More than exists: no channel can carry it, which is how a part is failed with `temporary_channel_failure`.
const IMPOSSIBLE_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;

impl Service {
    pub(super) fn act(
        &self,
        node: &Node,
        state: &mut State,
        scid: Scid,
        client: &PublicKey,
        effect: Effect,
    ) -> Option<Input> {
        let [before, after] = crash::around_effect(&effect);
        crash::point(before);
        let log = &node.parts.log;
        let follows = match effect {
            Effect::Fail { part, code, reason } => {
                log.info(
                    "lsp",
                    format_args!("order {scid}: part {part} failed: {}", reason.message()),
                );
                fail_part(node, state, client, part, code);
                Some(Input::PartGone { id: part })
            }
            Effect::Wake => {
                log.info(
                    "lsp",
                    format_args!("order {scid}: the client is offline, its payment is held"),
                );
                self.tell(node, client, Notice::PaymentIncoming);
                None
            }
            Effect::AskPolicy { open, value_sat } if self.asks(Hook::Channel).is_some() => {
                self.ask_to_open(node, scid, open, value_sat);
                None
            }
            // It was asked before a restart without the hook: the rules have no objection to what core decided.
            Effect::AskPolicy { open, value_sat } => Some(Input::PolicyAnswered {
                open,
                answer: Ok(ChannelTerms { value_sat }),
            }),
            Effect::Open {
                open,
                value_sat,
                max_to_self_delay,
            } => self.open_channel(node, state, client, open, value_sat, max_to_self_delay),
            Effect::Lock { open, value_sat } => self.lock_coins(node, open, value_sat),
            Effect::Score => {
                self.score(node, state, scid);
                None
            }
            Effect::AbandonOpen { open, channel } => {
                abandon(node, state, client, open, channel);
                None
            }
            Effect::Unlock { open } => {
                state.opening.remove(&open);
                give_back(node, open);
                None
            }
            Effect::Forward {
                part,
                channel,
                amount,
                skim: _,
            } => forward_part(node, state, scid, client, part, channel, amount),
            Effect::Broadcast { open } => {
                release_funding(node, state, scid, open);
                None
            }
            Effect::EnableForwarding { channel } => {
                let config = node.user_config.channel_config;
                let id = convert::ldk_channel(&channel);
                if let Err(e) = node.cm.update_channel_config(client, &[id], &config) {
                    log.warn(
                        "lsp",
                        format_args!("channel {channel}: forwarding fee not lowered: {e:?}"),
                    );
                }
                None
            }
            Effect::Close { channel, reason } => {
                self.tell(node, client, Notice::LiquidityManagementRequest);
                close(node, state, client, channel, reason.message());
                None
            }
            Effect::Record(entry) => {
                node.record(&entry);
                None
            }
        };
        crash::point(after);
        follows
    }

    fn open_channel(
        &self,
        node: &Node,
        state: &mut State,
        client: &PublicKey,
        open: OpenId,
        value_sat: u64,
        max_to_self_delay: u16,
    ) -> Option<Input> {
        let failed = |why| Some(Input::OpenFailed { open, why });
        let log = &node.parts.log;
        if lacks_features(node, client) {
            log.warn(
                "lsp",
                format_args!(
                    "{client} offers no scid aliases or no anchors: no channel for it (S-48)"
                ),
            );
            return failed(OpenFailure::ClientUnable);
        }
        if let Err(why) = self.choose_coins(node, open, value_sat) {
            return failed(why);
        }
        let mut config: UserConfig = node.user_config.clone();
        config.channel_handshake_config.announce_for_forwarding = false;
        config.channel_handshake_config.negotiate_scid_privacy = true;
        // J-59: what the client asks of us, not we of it.
        config.channel_handshake_limits.their_to_self_delay = max_to_self_delay;
        config.channel_config = ldk::unpaid_channel_config(&node.user_config);
        match node
            .cm
            .create_channel(*client, value_sat, 0, open.0, None, Some(config))
        {
            Ok(temporary) => {
                state.opening.insert(open, temporary);
                stamp(node, state, open, "open_channel");
                node.wake.notify_one();
                None
            }
            Err(e) => {
                log.warn("lsp", format_args!("channel for {client} not begun: {e:?}"));
                failed(if node.is_connected(client) {
                    OpenFailure::Other
                } else {
                    OpenFailure::Disconnected
                })
            }
        }
    }

    /// The client left this order's channel unpaid, or holds its payment too long.
    fn score(&self, node: &Node, state: &mut State, scid: Scid) {
        let Some(terms) = state.orders.get(&scid).map(|order| &order.terms) else {
            return;
        };
        let (client, has_token) = (terms.client, !terms.is_stranger());
        let (journal, patience) = (&node.parts.journal, &self.config.patience);
        let now = Millis(now_ms());
        state.scores.add(journal, patience, client, has_token, now);
        let (own, strangers) = state.scores.of(&client);
        node.parts.log.warn(
            "lsp",
            format_args!(
                "order {scid}: {client} left a channel unpaid: {} of its own, {} of all strangers",
                own.unpaid, strangers.unpaid
            ),
        );
    }
}

/// Whether a client that is connected does not offer what LDK would then leave out of the channel's type (J-58).
fn lacks_features(node: &Node, client: &PublicKey) -> bool {
    let peer = node.pm.peer_by_node_id(client);
    peer.is_some_and(|peer| {
        let offered = peer.init_features;
        !offered.supports_scid_privacy() || !offered.supports_anchors_zero_fee_htlc_tx()
    })
}

/// Whether a channel has come down to a type without them: LDK offers ever lesser types to a client that refuses.
pub(super) fn is_lesser(channel: &ChannelDetails) -> bool {
    !channel.channel_type.as_ref().is_some_and(|kind| {
        kind.supports_scid_privacy() && kind.supports_anchors_zero_fee_htlc_tx()
    })
}

/// Unlocks an open's coins, unless its funding transaction went out while the open was given up: then they are spent.
fn give_back(node: &Node, open: OpenId) {
    let wallet = &node.parts.wallet;
    let published = wallet.funding(open.0).is_some_and(|tx| {
        let txid = tx.compute_txid();
        wallet.confirmed_at(&txid).is_some()
            || node
                .parts
                .broadcaster
                .pending()
                .iter()
                .any(|(t, _)| *t == txid)
    });
    if !published {
        wallet.unlock(open.0);
    }
}

fn fail_part(node: &Node, state: &mut State, client: &PublicKey, part: PartId, code: FailCode) {
    let id = InterceptId(part.0);
    if code == FailCode::TemporaryChannelFailure {
        // LDK can only say unknown_next_peer for an intercept; an amount that no channel carries says the other.
        let usable = node
            .cm
            .list_channels_with_counterparty(client)
            .into_iter()
            .find(|c| c.is_usable)
            .or_else(|| {
                let payer = state.payers.front()?;
                let channels = node.cm.list_channels_with_counterparty(payer);
                channels.into_iter().find(|c| c.is_usable)
            });
        if let Some(channel) = usable {
            let peer = channel.counterparty.node_id;
            let done =
                node.cm
                    .forward_intercepted_htlc(id, &channel.channel_id, peer, IMPOSSIBLE_MSAT);
            if done.is_ok() {
                let expected = state
                    .impossible
                    .entry(ChannelId(channel.channel_id.0))
                    .or_insert(0);
                *expected = expected.saturating_add(1);
                node.wake.notify_one();
                return;
            }
        }
    }
    // An error means that LDK no longer holds it: it is failed already.
    let _ = node.cm.fail_intercepted_htlc(id);
}

fn forward_part(
    node: &Node,
    state: &mut State,
    scid: Scid,
    client: &PublicKey,
    part: PartId,
    channel: ChannelId,
    amount: Msat,
) -> Option<Input> {
    let known = state.orders.get(&scid)?.parts.get(&part)?;
    // The one place where an amount goes to LDK, which would forward more than it received.
    if amount > known.inbound.min(known.declared) {
        node.parts.log.error(
            "lsp",
            format_args!("order {scid}: part {part} would forward more than it brought, failed"),
        );
        let _ = node.cm.fail_intercepted_htlc(InterceptId(part.0));
        return Some(Input::PartFailed { id: part });
    }
    let hash = known.hash;
    let forwarded = node.cm.forward_intercepted_htlc(
        InterceptId(part.0),
        &convert::ldk_channel(&channel),
        *client,
        amount.0,
    );
    match forwarded {
        Ok(()) => {
            state.given.insert(part);
            node.timeline.stamp(hash, "forwarded");
            #[cfg(feature = "faults")]
            if node.config.fault == Some(super::Fault::ClosesAtForward) {
                let _ = node.cm.force_close_broadcasting_latest_txn(
                    &convert::ldk_channel(&channel),
                    client,
                    "the forward's channel".into(),
                );
            }
            node.wake.notify_one();
            None
        }
        Err(e) => {
            node.parts.log.warn(
                "lsp",
                format_args!("order {scid}: part {part} not forwarded: {e:?}"),
            );
            let held = node
                .cm
                .intercepted_htlc_inbound_amount_msat(InterceptId(part.0))
                .is_some();
            Some(if held {
                Input::PartHeld { id: part }
            } else {
                Input::PartFailed { id: part }
            })
        }
    }
}

/// Publishes a withheld funding transaction once the state that demands it is durable.
fn release_funding(node: &Node, state: &State, scid: Scid, open: OpenId) {
    let Some(tx) = node.parts.wallet.funding(open.0) else {
        node.parts.log.error(
            "lsp",
            format_args!("open {open}: no funding transaction to publish"),
        );
        return;
    };
    #[cfg(feature = "faults")]
    if node.config.fault == Some(super::Fault::DiesBeforeBroadcast) {
        return;
    }
    let order = state.orders.get(&scid);
    let paid_by = order.and_then(|o| o.paying.or_else(|| o.parts.values().next().map(|p| p.hash)));
    let durable = node.parts.journal.durable();
    let broadcaster = Arc::clone(&node.parts.broadcaster);
    let timeline = Arc::clone(&node.timeline);
    node.spawn(async move {
        if durable.await.is_ok() {
            if let Some(hash) = paid_by {
                timeline.stamp(hash, "funding_broadcast");
            }
            let _ = broadcaster.broadcast(vec![tx]).await;
        }
    });
}

fn abandon(
    node: &Node,
    state: &mut State,
    client: &PublicKey,
    open: OpenId,
    channel: Option<ChannelId>,
) {
    let id = channel
        .map(|c| convert::ldk_channel(&c))
        .or_else(|| state.opening.remove(&open));
    if let Some(id) = id {
        let why = "the channel did not become ready in time".to_string();
        let _ = node
            .cm
            .force_close_broadcasting_latest_txn(&id, client, why);
    }
}

pub(super) fn close(node: &Node, state: &State, client: &PublicKey, channel: ChannelId, why: &str) {
    let id = convert::ldk_channel(&channel);
    let withheld = state.orders.values().any(|o| {
        o.terms.trust == TrustModel::ClientTrustsLsp
            && o.open
                .as_ref()
                .is_some_and(|open| open.channel == Some(channel) && !open.broadcast)
    });
    // Nothing is on chain for a withheld channel, and an offline client cannot agree to a close.
    let closed = if withheld || !node.is_connected(client) {
        node.cm
            .force_close_broadcasting_latest_txn(&id, client, why.to_string())
    } else {
        node.ask_to_close(&id, client)
    };
    if let Err(e) = closed {
        node.parts
            .log
            .warn("lsp", format_args!("channel {channel} not closed: {e:?}"));
    }
}
