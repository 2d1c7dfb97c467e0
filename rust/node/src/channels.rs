//! Ordinary channels: opening and funding, closing, and how a channel is shown.

use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::ScriptBuf;
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Scid};
use ldkjit_core::ledger::LedgerEntry;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::ln::channel_state::ChannelDetails;
use lightning::util::errors::APIError;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::convert;
use crate::error::NodeError;
use crate::lsp::order_of;
use crate::node::Node;
use crate::sync::lock;
use crate::wallet::ANY_DEPTH;

/// The smallest channel we open, sat.
const MIN_CHANNEL_SAT: u64 = 20_000;
/// How often a cooperative close is tried, and the pause between.
const CLOSE_TRIES: u32 = 40;
const CLOSE_PAUSE: Duration = Duration::from_millis(50);

/// A channel as the API shows it. Amounts in msat unless named sat.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelInfo {
    /// Its id.
    pub channel_id: ChannelId,
    /// LDK's `user_channel_id`, 32 hex digits.
    pub user_channel_id: String,
    /// The other side.
    pub peer: NodeId,
    /// `txid:index` of the funding output.
    pub funding: Option<String>,
    /// Its value.
    pub capacity_sat: u64,
    /// What we could send.
    pub outbound_msat: u64,
    /// What we could receive.
    pub inbound_msat: u64,
    /// The largest single payment we could send now.
    pub outbound_limit_msat: u64,
    /// Ready, and the peer is connected.
    pub usable: bool,
    /// Both sent `channel_ready`.
    pub ready: bool,
    /// Public.
    pub announced: bool,
    /// Confirmations of the funding transaction.
    pub confirmations: u32,
    /// Confirmations needed; 0 for a JIT channel.
    pub confirmations_required: Option<u32>,
    /// Once confirmed, `BxTxO`.
    pub short_channel_id: Option<Scid>,
    /// What invoices name.
    pub inbound_scid_alias: Option<Scid>,
    /// The order whose fee this channel still owes (service side).
    pub unpaid_order: Option<Scid>,
    /// We opened it.
    pub is_outbound: bool,
    /// HTLCs in flight, both ways.
    pub pending_htlcs: usize,
    /// Our forwarding fee, base.
    pub forwarding_fee_base_msat: u32,
}

/// What `open_channel` is asked.
pub struct OpenRequest {
    /// The peer, connected.
    pub peer: PublicKey,
    /// Its value, sat.
    pub capacity_sat: u64,
    /// Given to the peer, msat.
    pub push_msat: u64,
    /// Make it public.
    pub announce: bool,
    /// How long the peer may take.
    pub timeout: Duration,
}

impl Node {
    /// How a channel is shown.
    #[must_use]
    pub fn channel_info(&self, c: &ChannelDetails) -> ChannelInfo {
        let open = OpenId(c.user_channel_id);
        ChannelInfo {
            channel_id: convert::channel(&c.channel_id),
            user_channel_id: open.to_string(),
            peer: convert::node_id(&c.counterparty.node_id),
            funding: c.funding_txo.map(|txo| convert::outpoint(&txo).to_string()),
            capacity_sat: c.channel_value_satoshis,
            outbound_msat: c.outbound_capacity_msat,
            inbound_msat: c.inbound_capacity_msat,
            outbound_limit_msat: c.next_outbound_htlc_limit_msat,
            usable: c.is_usable,
            ready: c.is_channel_ready,
            announced: c.is_announced,
            confirmations: c.confirmations.unwrap_or(0),
            confirmations_required: c.confirmations_required,
            short_channel_id: c.short_channel_id.map(Scid),
            inbound_scid_alias: c.inbound_scid_alias.map(Scid),
            unpaid_order: self.lsp.as_ref().and_then(|lsp| lsp.unpaid(open)),
            is_outbound: c.is_outbound,
            pending_htlcs: c
                .pending_inbound_htlcs
                .len()
                .saturating_add(c.pending_outbound_htlcs.len()),
            forwarding_fee_base_msat: c.config.map_or(0, |config| config.forwarding_fee_base_msat),
        }
    }

    /// Every channel.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.cm
            .list_channels()
            .iter()
            .map(|c| self.channel_info(c))
            .collect()
    }

    fn find_channel(&self, id: &ChannelId) -> Result<ChannelDetails, NodeError> {
        self.cm
            .list_channels()
            .into_iter()
            .find(|c| c.channel_id.0 == id.0)
            .ok_or_else(|| NodeError::not_found(format!("no channel {id}")))
    }

    /// Opens an ordinary channel; returns once its funding transaction is signed by both.
    ///
    /// # Errors
    /// `amount`, `insufficient_funds`, `peer`, `timeout`.
    pub async fn open_channel(&self, request: OpenRequest) -> Result<ChannelInfo, NodeError> {
        if request.capacity_sat < MIN_CHANNEL_SAT {
            return Err(NodeError::amount(format!(
                "capacity_sat: at least {MIN_CHANNEL_SAT}"
            )));
        }
        let capacity_msat = request.capacity_sat.saturating_mul(1_000);
        if request.push_msat >= capacity_msat {
            return Err(NodeError::amount("push_msat: below the capacity"));
        }
        if !self.is_connected(&request.peer) {
            return Err(NodeError::peer("the peer is not connected").retryable());
        }
        let rate = self.parts.fees.fresh()?.normal;
        let id = u128::from(self.random_u64());
        let (sender, opened) = oneshot::channel();
        {
            let _gate = self.parts.journal.gate().await;
            self.set_reserve(1);
            self.parts
                .wallet
                .select_and_lock(id, request.capacity_sat, rate, ANY_DEPTH)?;
            let mut config = self.user_config.clone();
            config.channel_handshake_config.announce_for_forwarding = request.announce;
            config.channel_handshake_config.negotiate_scid_privacy = !request.announce;
            lock(&self.opens).insert(id, sender);
            let created = self.cm.create_channel(
                request.peer,
                request.capacity_sat,
                request.push_msat,
                id,
                None,
                Some(config),
            );
            if let Err(e) = created {
                lock(&self.opens).remove(&id);
                self.parts.wallet.unlock(id);
                return Err(NodeError::peer(format!("the channel was not begun: {e:?}")));
            }
        }
        self.wake.notify_one();
        let outcome = tokio::time::timeout(request.timeout, opened).await;
        lock(&self.opens).remove(&id);
        let channel = match outcome {
            Ok(Ok(Ok(channel))) => channel,
            Ok(Ok(Err(why))) => {
                return Err(NodeError::peer(format!(
                    "the channel was not opened: {why}"
                )))
            }
            Ok(Err(_)) => return Err(NodeError::stopped("the node is stopping")),
            Err(_) => {
                self.abandon_open(id);
                return Err(NodeError::timeout(format!(
                    "the peer did not agree to the channel within {} ms",
                    request.timeout.as_millis()
                )));
            }
        };
        self.parts.journal.durable().await?;
        Ok(self.channel_info(&self.find_channel(&channel)?))
    }

    fn abandon_open(&self, id: u128) {
        let found = self
            .cm
            .list_channels()
            .into_iter()
            .find(|c| c.user_channel_id == id && c.funding_txo.is_none());
        if let Some(channel) = found {
            let _ = self.cm.force_close_broadcasting_latest_txn(
                &channel.channel_id,
                &channel.counterparty.node_id,
                "timed out".to_string(),
            );
        }
    }

    /// LDK asks for the funding transaction of an ordinary channel.
    pub(crate) fn fund_channel(
        &self,
        temporary: lightning::ln::types::ChannelId,
        peer: PublicKey,
        value_sat: u64,
        script: ScriptBuf,
        id: u128,
    ) {
        let funded = self
            .parts
            .wallet
            .fund_locked(id, &script, value_sat)
            .and_then(|tx| {
                self.cm
                    .funding_transaction_generated(temporary, peer, tx)
                    .map_err(|e| NodeError::internal(format!("{e:?}")))
            });
        if let Err(e) = funded {
            self.parts
                .log
                .error("channel", format_args!("not funded: {e}"));
            self.parts.wallet.unlock(id);
            let _ = self.cm.force_close_broadcasting_latest_txn(
                &temporary,
                &peer,
                "funding failed".to_string(),
            );
            self.opened(id, Err(e.to_string()));
        }
    }

    /// Tells who waits for an open how it went.
    pub(crate) fn opened(&self, id: u128, outcome: Result<ChannelId, String>) {
        if let Some(waiting) = lock(&self.opens).remove(&id) {
            let _ = waiting.send(outcome);
        }
    }

    /// Asks a peer to agree to a close. Who funded the channel pays for it, and offers enough to be in a block some day.
    pub(crate) fn ask_to_close(
        &self,
        id: &lightning::ln::types::ChannelId,
        peer: &PublicKey,
    ) -> Result<(), APIError> {
        let channels = self.cm.list_channels_with_counterparty(peer);
        let pays = channels
            .iter()
            .any(|c| c.channel_id == *id && c.is_outbound);
        let target = ConfirmationTarget::AnchorChannelFee;
        let rate = pays.then(|| self.parts.fees.get_est_sat_per_1000_weight(target));
        self.cm
            .close_channel_with_feerate_and_script(id, peer, rate, None)
    }

    /// Begins a cooperative close; LDK refuses one while a monitor update is being written, which is over soon.
    async fn agree_to_close(
        &self,
        id: &lightning::ln::types::ChannelId,
        peer: &PublicKey,
        broken: Option<&LedgerEntry>,
    ) -> Result<(), NodeError> {
        let mut tries = CLOSE_TRIES;
        loop {
            if !self.is_connected(peer) {
                return Err(NodeError::peer(
                    "the peer is not connected and cannot agree; force closes without it",
                )
                .retryable());
            }
            tries = tries.saturating_sub(1);
            let gate = self.parts.journal.gate().await;
            let agreed = self.ask_to_close(id, peer);
            if agreed.is_ok() {
                broken.into_iter().for_each(|row| self.record(row));
            }
            drop(gate);
            match agreed {
                Ok(()) => return Ok(()),
                Err(APIError::ChannelUnavailable { .. }) if tries > 0 => {
                    self.parts.journal.durable().await?;
                    tokio::time::sleep(CLOSE_PAUSE).await;
                }
                Err(e) => return Err(NodeError::peer(format!("not closed: {e:?}")).retryable()),
            }
        }
    }

    /// Closes a channel: with the peer's agreement, or by force. A lifetime that was sold is only broken with a reason,
    /// which the ledger keeps.
    ///
    /// # Errors
    /// `not_found`, `peer`, `config` while its lifetime is still owed (J-11).
    pub async fn close_channel(
        &self,
        id: &ChannelId,
        force: bool,
        break_promise: Option<&str>,
    ) -> Result<(), NodeError> {
        let channel = self.find_channel(id)?;
        let broken = match &self.lsp {
            Some(lsp) => lsp.may_close(self, &channel, break_promise)?,
            // Only the service knows for how long.
            None if order_of(OpenId(channel.user_channel_id)).is_some()
                && break_promise.is_none() =>
            {
                return Err(NodeError::config(
                    "this channel was sold: start the node with lsp, which knows for how long; \
                     break_promise closes it all the same",
                ))
            }
            None => None,
        };
        let peer = channel.counterparty.node_id;
        if force {
            let why = "closed by the operator".to_string();
            let _gate = self.parts.journal.gate().await;
            self.cm
                .force_close_broadcasting_latest_txn(&channel.channel_id, &peer, why)
                .map_err(|e| NodeError::peer(format!("not closed: {e:?}")))?;
            broken.iter().for_each(|row| self.record(row));
        } else {
            self.agree_to_close(&channel.channel_id, &peer, broken.as_ref())
                .await?;
        }
        self.wake.notify_one();
        Ok(self.parts.journal.durable().await?)
    }
}
