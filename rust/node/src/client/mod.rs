//! The wallet side of LSPS2 and LSPS5: orders bought, the channel accepted for one, the claim, and webhooks.

mod buy;
mod claim;
mod promise;
mod request;
pub mod watch;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, NodeId, PaymentHash, Scid};
use ldkjit_core::menu::{FeeParams, TrustModel};
use ldkjit_core::reason::Reason;
use lightning::ln::msgs::ChannelParameters;
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::config::{
    ChannelConfigOverrides, ChannelConfigUpdate, ChannelHandshakeConfigUpdate,
};
use serde::{Deserialize, Serialize};

use crate::commit::read_kind;
use crate::config::LspPeer;
use crate::convert;
use crate::error::NodeError;
use crate::log::now_ms;
use crate::node::Node;
use crate::sync::lock;

pub use buy::{InvoiceRecord, JitChoice, Path, ReceiveRequest};
pub use request::Requests;

const KIND: &str = "client_order";
/// How long past its expiry an unpaid order is kept: a payment may be under way.
const KEEP_MS: u64 = 3_600_000;

/// How far a bought order has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Status {
    /// Waiting for its payment.
    Open,
    /// The payment is here; what it depends on is being checked.
    Claiming {
        /// What arrived, msat.
        received: Msat,
        /// What the LSP took, msat.
        skimmed: Msat,
        /// LDK fails the payment at this height.
        deadline: Option<u32>,
        /// The channels it came over.
        channels: Vec<ChannelId>,
        /// Released by the claim and not before, hex.
        preimage: String,
    },
    /// The preimage is released.
    Claimed,
    /// The payment was failed back.
    Refused {
        /// Why.
        reason: Reason,
    },
}

/// A JIT channel bought for one invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientOrder {
    /// The invoice's payment hash.
    pub payment_hash: PaymentHash,
    /// The seller.
    pub lsp: NodeId,
    /// The jit scid.
    pub scid: Scid,
    /// The offer taken.
    pub params: FeeParams,
    /// The invoice's amount, msat; absent for a variable amount.
    pub size: Option<Msat>,
    /// The most that may be taken, msat; absent for the offer's fee.
    pub max_fee: Option<Msat>,
    /// Who trusts whom.
    pub trust: TrustModel,
    /// When the invoice expires, ms since 1970.
    pub expires_at_ms: u64,
    /// How far it has come.
    pub status: Status,
    /// The channel accepted for it, by our `user_channel_id`; one at a time.
    pub opening: Option<u64>,
    /// That channel's id, once it has one.
    pub channel: Option<ChannelId>,
}

/// The wallet's orders and its requests to LSPs.
pub struct Client {
    lsps: Vec<LspPeer>,
    orders: Mutex<BTreeMap<PaymentHash, ClientOrder>>,
    /// Requests that wait for an answer.
    pub requests: Requests,
    /// Funding transactions the balance depends on.
    pub watches: watch::Watches,
    /// Lifetimes that were paid for.
    pub promises: promise::Promises,
}

impl Client {
    /// The orders as the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(lsps: Vec<LspPeer>, live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let orders: Vec<(String, ClientOrder)> = read_kind(live, KIND, "client order")?;
        let orders = orders
            .into_iter()
            .map(|(_, order)| (order.payment_hash, order));
        Ok(Self {
            lsps,
            orders: Mutex::new(orders.collect()),
            requests: Requests::default(),
            watches: watch::Watches::load(live)?,
            promises: promise::Promises::load(live)?,
        })
    }

    /// The configured LSP of this id.
    #[must_use]
    pub fn lsp(&self, id: &NodeId) -> Option<&LspPeer> {
        self.lsps.iter().find(|lsp| lsp.node_id == *id)
    }

    /// Every order that is not over.
    #[must_use]
    pub fn orders(&self) -> Vec<ClientOrder> {
        lock(&self.orders).values().cloned().collect()
    }

    /// The order of this payment.
    #[must_use]
    pub fn order(&self, hash: &PaymentHash) -> Option<ClientOrder> {
        lock(&self.orders).get(hash).cloned()
    }

    /// Stores an order; what is over goes into the history.
    fn keep(&self, node: &Node, order: ClientOrder, over: bool) {
        let Ok(bytes) = serde_json::to_vec(&order) else {
            return;
        };
        let key = order.payment_hash.to_string();
        if over {
            lock(&self.orders).remove(&order.payment_hash);
            node.parts.journal.delete(KIND, key.clone());
            node.parts.journal.row(KIND, key, bytes);
        } else {
            lock(&self.orders).insert(order.payment_hash, order);
            node.parts.journal.put(KIND, key, bytes);
        }
    }

    /// Somebody wants to open a channel to us.
    #[allow(clippy::too_many_arguments)]
    pub fn on_open_request(
        &self,
        node: &Node,
        temporary: lightning::ln::types::ChannelId,
        peer: PublicKey,
        funding_sat: u64,
        announced: bool,
        channel_type: &ChannelTypeFeatures,
        _params: &ChannelParameters,
    ) {
        let opening = node.random_u64();
        let is_lsp = self.lsp(&convert::node_id(&peer)).is_some();
        let order = is_lsp
            .then(|| self.order_to_serve(node, &peer, funding_sat))
            .flatten();
        let overrides = ChannelConfigOverrides {
            handshake_overrides: Some(ChannelHandshakeConfigUpdate {
                max_inbound_htlc_value_in_flight_percent_of_channel: Some(100),
                ..Default::default()
            }),
            update_overrides: Some(ChannelConfigUpdate {
                // LDK may hand us a JIT payment over any channel with the LSP; claim_check judges what was taken.
                accept_underpaying_htlcs: Some(is_lsp),
                ..Default::default()
            }),
        };
        let log = &node.parts.log;
        if let Some(mut order) = order {
            if announced {
                log.warn(
                    "client",
                    format_args!("{peer} offers a JIT channel that is public: refused (J-58)"),
                );
                refuse(node, temporary, peer, "a JIT channel must be private");
                return;
            }
            // The LSP's fault, but it costs nobody money: our invoices name the alias of its channel_ready.
            if !channel_type.supports_scid_privacy() {
                log.warn(
                    "client",
                    format_args!("{peer} opens a JIT channel without option_scid_alias (J-58)"),
                );
            }
            #[cfg(feature = "faults")]
            if offer_fault(node, peer, order.payment_hash) {
                return;
            }
            order.opening = Some(opening);
            order.channel = None;
            node.timeline.stamp(order.payment_hash, "open_request");
            self.keep(node, order, false);
            let accepted = node.cm.accept_inbound_channel_from_trusted_peer_0conf(
                &temporary,
                &peer,
                u128::from(opening),
                Some(overrides),
            );
            if let Err(e) = accepted {
                log.warn("client", format_args!("JIT channel of {peer}: {e:?}"));
            }
            node.wake.notify_one();
            return;
        }
        if !node.config.accept_channels {
            refuse(node, temporary, peer, "this node accepts no channels");
            return;
        }
        let accepted =
            node.cm
                .accept_inbound_channel(&temporary, &peer, u128::from(opening), Some(overrides));
        if let Err(e) = accepted {
            log.warn("channel", format_args!("channel of {peer} refused: {e:?}"));
        }
        node.wake.notify_one();
    }

    /// The order of this LSP that waits for a channel of this size and has none.
    fn order_to_serve(
        &self,
        node: &Node,
        peer: &PublicKey,
        funding_sat: u64,
    ) -> Option<ClientOrder> {
        let lsp = convert::node_id(peer);
        let capacity = Msat::from_sat(funding_sat)?;
        let live: Vec<u128> = node
            .cm
            .list_channels_with_counterparty(peer)
            .iter()
            .map(|c| c.user_channel_id)
            .collect();
        lock(&self.orders)
            .values()
            .filter(|o| o.lsp == lsp && o.status == Status::Open)
            .filter(|o| o.expires_at_ms.saturating_add(KEEP_MS) > now_ms())
            .filter(|o| o.opening.is_none_or(|id| !live.contains(&u128::from(id))))
            .find(|o| match o.size {
                None => true,
                Some(size) => o
                    .params
                    .fee(size)
                    .and_then(|fee| size.checked_sub(fee))
                    .is_some_and(|net| net <= capacity),
            })
            .cloned()
    }

    /// A channel accepted for an order has its funding.
    pub fn on_channel_pending(&self, node: &Node, user_channel_id: u128, channel: ChannelId) {
        let found = lock(&self.orders)
            .values()
            .find(|o| o.opening.map(u128::from) == Some(user_channel_id))
            .cloned();
        if let Some(mut order) = found {
            order.channel = Some(channel);
            self.keep(node, order, false);
        }
    }

    /// Orders nobody paid are forgotten.
    pub fn on_block(&self, node: &Node) {
        self.promises.on_block(node);
        let now = now_ms();
        let over: Vec<ClientOrder> = lock(&self.orders)
            .values()
            .filter(|o| o.status == Status::Open)
            .filter(|o| o.expires_at_ms.saturating_add(KEEP_MS) < now)
            .cloned()
            .collect();
        for order in over {
            self.keep(node, order, true);
        }
    }

    /// After a restart, before anything arrives: that an LSP's payments may come with its fee taken is in no store of
    /// LDK's 0.2.7, which would refuse them, some parts of a payment and not others.
    pub fn accept_fees_again(node: &Node) {
        let update = ChannelConfigUpdate {
            accept_underpaying_htlcs: Some(true),
            ..ChannelConfigUpdate::default()
        };
        for channel in node.cm.list_channels() {
            let peer = channel.counterparty.node_id;
            if node.client.lsp(&convert::node_id(&peer)).is_none() {
                continue;
            }
            let changed =
                node.cm
                    .update_partial_channel_config(&peer, &[channel.channel_id], &update);
            if let Err(e) = changed {
                node.parts.log.error(
                    "client",
                    format_args!("channel {}: cannot be paid over: {e:?}", channel.channel_id),
                );
            }
        }
    }

    /// Takes up after a restart what was being checked.
    pub fn resume(node: &Arc<Node>) {
        for order in node.client.orders() {
            if matches!(order.status, Status::Claiming { .. }) {
                claim::spawn(node, order.payment_hash);
            }
        }
    }
}

/// Only in builds for tests: whether the first offer of a channel for this payment is left unanswered.
#[cfg(feature = "faults")]
fn offer_fault(node: &Node, peer: PublicKey, hash: PaymentHash) -> bool {
    use crate::lsp::Fault;
    let first = node
        .timeline
        .of(&hash)
        .iter()
        .all(|s| s.stage != "offer_dropped");
    match node.config.fault {
        Some(Fault::IgnoresOffer) if first => {}
        Some(Fault::HangsUpAtOffer) if first => node.hang_up(&peer),
        _ => return false,
    }
    node.timeline.stamp(hash, "offer_dropped");
    true
}

fn refuse(node: &Node, temporary: lightning::ln::types::ChannelId, peer: PublicKey, why: &str) {
    let _ = node
        .cm
        .force_close_broadcasting_latest_txn(&temporary, &peer, why.to_string());
    node.wake.notify_one();
}
