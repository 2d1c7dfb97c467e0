//! A node that comes back from a backup or from its words alone: it brings home what it held, and does nothing else.
//!
//! Its channels have gone on since, or are not known at all. What it could publish of them may be revoked, and then the
//! peer takes everything: so no commitment transaction of its own goes out, and none of its channels is taken up again.
//! Peers that come with one are told that its state is lost, and close it. Their commitment transactions pay our side to
//! one of a thousand keys that the words make; those outputs, and what the monitors still know how to claim, are swept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Block, OutPoint, ScriptBuf, TxOut};
use ldkjit_core::ids::{ChannelId, NodeId};
use ldkjit_core::ledger::LedgerEntry;
use lightning::chain::channelmonitor::ANTI_REORG_DELAY;
use lightning::chain::transaction::{OutPoint as LdkOutpoint, TransactionData};
use lightning::chain::{BestBlock, Listen};
use lightning::ln::chan_utils::{get_countersigner_payment_script, ChannelTransactionParameters};
use lightning::ln::msgs::SocketAddress;
use lightning::routing::gossip::NodeId as GossipId;
use lightning::sign::{ChannelSigner, SpendableOutputDescriptor, StaticPaymentOutputDescriptor};
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::sweep::OutputSpendStatus;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chain::bitcoind::{Bitcoind, Wanted};
use crate::chain::ChainError;
use crate::commit::Boot;
use crate::config::Config;
use crate::convert;
use crate::error::NodeError;
use crate::forced::awaits_close;
use crate::keys::{Account, Keys};
use crate::ldk::{self, Graph};
use crate::log::Log;
use crate::net::{ADDRESSES, META};
use crate::node::{descriptor_sat, Node};
use crate::sync::lock;

const KIND: &str = "recovery";
const KEY: &str = "since";
/// Channels that peers came with and that are remembered.
const MAX_TOLD: usize = 10_000;
/// How long an address is given to answer.
const ASK: Duration = Duration::from_secs(5);
/// Addresses looked at ahead of the last one used: each channel takes two, and most of them are never paid to.
pub const LOOKAHEAD: u32 = 10_000;
/// Keys of channels that are tried until one pays to a script: a thousand scripts are each had after a thousand tries or so.
const MAX_TRIES: u64 = 50_000;

/// Methods that a node that recovers answers.
const ALLOWED: [&str; 26] = [
    "status",
    "wait_height",
    "new_address",
    "balances",
    "send_onchain",
    "fee_rates",
    "connect",
    "disconnect",
    "peers",
    "channels",
    "invoice",
    "payment",
    "wait_payment",
    "payments",
    "decode",
    "next_event",
    "ack_event",
    "orders",
    "client_orders",
    "ledger",
    "ledger_check",
    "report",
    "metrics",
    "timeline",
    "backup",
    "recovery",
];

/// Where a node that recovers comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A backup.
    Backup,
    /// Its words, and nothing else.
    Words,
    /// Its own store, which a peer has proven to be old.
    StaleStore,
    /// A store from which it has moved to another.
    Moved,
}

/// What a store says of itself if its node may only recover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Where it comes from.
    pub from: Origin,
    /// How old what it knows is, ms since 1970.
    pub since_ms: u64,
    /// The ledger says so.
    #[serde(default)]
    pub booked: bool,
}

impl Marker {
    /// Of a node that has not begun to recover.
    #[must_use]
    pub fn new(from: Origin, since_ms: u64) -> Self {
        Self {
            from,
            since_ms,
            booked: false,
        }
    }

    /// As the store keeps it: kind, key and value.
    #[must_use]
    pub fn put(&self) -> (String, String, Vec<u8>) {
        let value = serde_json::to_vec(self).unwrap_or_default();
        (KIND.into(), KEY.into(), value)
    }

    /// The store's, if it has one.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn find(live: &[(String, String, Vec<u8>)]) -> Result<Option<Self>, NodeError> {
        let found = live.iter().find(|(kind, _, _)| kind == KIND);
        found
            .map(|(_, _, value)| {
                serde_json::from_slice(value)
                    .map_err(|_| NodeError::new("store_corrupt", "the recovery's mark".to_owned()))
            })
            .transpose()
    }
}

/// Whether this start is a recovery, and of what; `None` for an ordinary one.
///
/// # Errors
/// `recovery_needed` if the store may not be started otherwise, `config` if there is nothing to recover.
pub fn decide(config: &Config, boot: &Boot, now_ms: u64) -> Result<Option<Marker>, NodeError> {
    match (Marker::find(&boot.live)?, config.recover) {
        (Some(marker), true) => Ok(Some(marker)),
        (None, false) => Ok(None),
        (Some(marker), false) => {
            let message = match marker.from {
                Origin::Backup => "this node was restored from a backup",
                Origin::Words => "this node was made of its words",
                Origin::StaleStore => "a peer has proven that this node's store is old",
                Origin::Moved => "this node has moved to another store",
            };
            let way = match marker.from {
                Origin::Moved => {
                    "start it on that one; if the copy was interrupted, begin it again. Only if the other store is lost for \
                     good, start this one with recover"
                }
                _ => "its channels may have gone on without it. Start it with recover",
            };
            Err(NodeError::new("recovery_needed", format!("{message}: {way}")))
        }
        (None, true) if boot.new && config.mnemonic.is_some() => Ok(Some(Marker::new(Origin::Words, now_ms))),
        (None, true) if boot.new => Err(NodeError::config(
            "recover: the data folder is empty; give the words, or restore a backup into it first",
        )),
        (None, true) => Err(NodeError::config(
            "recover: this is a node's own store, with nothing to recover, and its channels would be closed; if it was set \
             back, make a backup of it and restore that",
        )),
    }
}

/// Where a node with this id answers, of the addresses that it had.
pub async fn answers_elsewhere(
    own: PublicKey,
    live: &[(String, String, Vec<u8>)],
    log: &Arc<Log>,
) -> Option<String> {
    let addresses = live
        .iter()
        .find(|(kind, key, _)| kind == META && key == ADDRESSES)
        .and_then(|(_, _, value)| serde_json::from_slice::<Vec<String>>(value).ok());
    for address in addresses.unwrap_or_default() {
        if ldk::answers(own, &address, ASK, log.clone()).await {
            return Some(address);
        }
    }
    None
}

/// What recovers.
pub struct Recovery {
    marker: Marker,
    /// To where a peer's commitment transaction may pay our side.
    scripts: HashSet<ScriptBuf>,
    /// Such outputs, until the sweeper has them, with their heights.
    found: Mutex<BTreeMap<OutPoint, (TxOut, u32)>>,
    /// Channels that a peer came with, and was told to close.
    told: Mutex<BTreeMap<ChannelId, NodeId>>,
}

/// A channel of a node that recovers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostChannel {
    /// The channel.
    pub channel_id: ChannelId,
    /// The other side, if it is known.
    pub peer: Option<NodeId>,
    /// Whether it is connected.
    pub connected: bool,
    /// The funding output; absent for a channel that only the peer knows.
    pub funding: Option<String>,
    /// How far it is.
    pub state: LostState,
    /// Our side as last known, or what is still to come of it, sat; absent for a channel that only the peer knows.
    pub ours_sat: Option<u64>,
}

/// How far a channel of a node that recovers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LostState {
    /// The peer must close it and was not told yet.
    Open,
    /// The peer was told, and its transaction is in no block yet.
    Told,
    /// It is closed, and something of it is still to come.
    Closing,
    /// It is closed, and all that can come of it has.
    Closed,
}

impl Recovery {
    /// With the keys of this node.
    #[must_use]
    pub fn new(marker: Marker, keys: &Keys) -> Self {
        let scripts = keys
            .manager()
            .possible_v2_counterparty_closed_balance_spks(&Secp256k1::new());
        Self {
            marker,
            scripts: scripts.into_iter().collect(),
            found: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Whether a call may be answered.
    ///
    /// # Errors
    /// `recovering`.
    pub fn allows(&self, method: &str) -> Result<(), NodeError> {
        if ALLOWED.contains(&method) {
            return Ok(());
        }
        Err(NodeError::new(
            "recovering",
            format!(
                "{method}: this node only recovers what it held; start a new one for new business"
            ),
        ))
    }

    /// At each start, before anybody is met: no coin is set aside any more, and whoever has a channel is dialled.
    pub fn begin(&self, node: &Node) {
        for open in node.parts.wallet.locked() {
            node.parts.wallet.unlock(open);
        }
        if !self.marker.booked {
            let marker = Marker {
                booked: true,
                ..self.marker.clone()
            };
            let since_ms = marker.since_ms;
            let row = LedgerEntry::Recovered { since_ms };
            node.parts.journal.book_with(vec![marker.put()], &[row]);
        }
        for id in node.monitors.list_monitors() {
            let monitor = node.monitors.get_monitor(id);
            if let Ok(peer) = monitor.map(|monitor| monitor.get_counterparty_node_id()) {
                if let Some(address) = announced(&node.graph, &peer) {
                    node.net.keep_new(peer, address);
                }
            }
        }
    }

    /// A peer came with a channel and was told to close it.
    pub fn note_told(&self, channel: ChannelId, peer: NodeId) {
        let mut told = lock(&self.told);
        // Anybody may name channels that never were.
        if told.len() < MAX_TOLD || told.contains_key(&channel) {
            told.insert(channel, peer);
        }
    }

    /// Looks for what peers have paid to our keys since ever.
    ///
    /// # Errors
    /// When the chain source fails.
    pub async fn scan(&self, chain: &Bitcoind) -> Result<(), ChainError> {
        let wanted: Vec<_> = self.scripts.iter().cloned().map(Wanted::Script).collect();
        for found in chain.scan(&wanted).await? {
            lock(&self.found).insert(found.outpoint, (found.output, found.height));
        }
        Ok(())
    }

    /// Gives the sweeper what is deep enough and unspent, and what it does not have yet.
    pub(crate) async fn hand_over(&self, node: &Node) {
        let deep = |height: u32| {
            node.height().saturating_sub(height) >= ANTI_REORG_DELAY.saturating_sub(1)
        };
        let due: Vec<(OutPoint, TxOut)> = lock(&self.found)
            .iter()
            .filter(|(_, (_, height))| deep(*height))
            .map(|(at, (output, _))| (*at, output.clone()))
            .collect();
        let tracked = tracked(node);
        let mut wanted = Vec::new();
        for (at, output) in due {
            if !tracked.contains(&at) {
                match node.chain.tx_out(&at, false).await {
                    Ok(Some(unspent)) if unspent.confirmations >= ANTI_REORG_DELAY => {
                        wanted.push((at, output));
                    }
                    // Spent, or reorganised: if it comes back, its block is looked at.
                    Ok(_) => {}
                    Err(_) => continue,
                }
            }
            lock(&self.found).remove(&at);
        }
        if wanted.is_empty() {
            return;
        }
        let sum = wanted
            .iter()
            .map(|(_, output)| output.value)
            .sum::<bitcoin::Amount>();
        let (outputs, lost) = static_payments(&node.parts.keys, wanted);
        let log = &node.parts.log;
        log.info(
            "recovery",
            format_args!(
                "{} outputs of closed channels are swept: {sum}",
                outputs.len()
            ),
        );
        for at in lost {
            log.error("recovery", format_args!("no key was found for {at}"));
        }
        if node
            .sweeper
            .track_spendable_outputs(outputs, None, true, None)
            .await
            .is_err()
        {
            log.error("recovery", format_args!("the sweeper takes nothing"));
        }
    }

    /// What is known of each channel.
    fn channels(&self, node: &Node) -> Vec<LostChannel> {
        let told = lock(&self.told).clone();
        let connected =
            |peer: &NodeId| convert::public_key(peer).is_some_and(|key| node.is_connected(&key));
        let mut channels = Vec::new();
        for id in node.monitors.list_monitors() {
            let Ok(monitor) = node.monitors.get_monitor(id) else {
                continue;
            };
            let channel_id = convert::channel(&id);
            let balances = monitor.get_claimable_balances();
            let open = balances.iter().any(awaits_close);
            let ours = balances.iter().fold(0_u64, |sum, balance| {
                sum.saturating_add(balance.claimable_amount_satoshis())
            });
            let peer = convert::node_id(&monitor.get_counterparty_node_id());
            channels.push(LostChannel {
                channel_id,
                peer: Some(peer),
                connected: connected(&peer),
                funding: Some(
                    monitor
                        .get_funding_txo()
                        .into_bitcoin_outpoint()
                        .to_string(),
                ),
                state: match (open, balances.is_empty()) {
                    (true, _) if told.contains_key(&channel_id) => LostState::Told,
                    (true, _) => LostState::Open,
                    (false, false) => LostState::Closing,
                    (false, true) => LostState::Closed,
                },
                ours_sat: Some(ours),
            });
        }
        let known: HashSet<_> = channels.iter().map(|c| c.channel_id).collect();
        for (channel_id, peer) in told {
            if !known.contains(&channel_id) {
                channels.push(LostChannel {
                    channel_id,
                    peer: Some(peer),
                    connected: connected(&peer),
                    funding: None,
                    state: LostState::Told,
                    ours_sat: None,
                });
            }
        }
        channels
    }
}

impl Listen for Recovery {
    fn filtered_block_connected(&self, _: &Header, txdata: &TransactionData<'_>, height: u32) {
        for (_, tx) in txdata {
            for (vout, output) in (0_u32..).zip(&tx.output) {
                if self.scripts.contains(&output.script_pubkey) {
                    let at = OutPoint::new(tx.compute_txid(), vout);
                    lock(&self.found).insert(at, (output.clone(), height));
                }
            }
        }
    }

    fn block_connected(&self, block: &Block, height: u32) {
        let txdata: Vec<_> = block.txdata.iter().enumerate().collect();
        self.filtered_block_connected(&block.header, &txdata, height);
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        lock(&self.found).retain(|_, (_, height)| *height <= fork_point.height);
    }
}

impl Node {
    /// What recovers, if this node does nothing else.
    ///
    /// # Errors
    /// `not_found` for any other node.
    pub fn recovery_status(&self) -> Result<serde_json::Value, NodeError> {
        let recovery = self
            .recovery
            .as_ref()
            .ok_or_else(|| NodeError::not_found("this node does not recover"))?;
        let before = self.hand_over.seen();
        let channels = recovery.channels(self);
        let tracked = self.sweeper.tracked_spendable_outputs().into_iter();
        let unconfirmed = tracked.filter(|o| {
            !matches!(
                o.status,
                OutputSpendStatus::PendingThresholdConfirmations { .. }
            ) && !self.parts.keys.has_lost(&o.descriptor)
        });
        let found = lock(&recovery.found).clone();
        let coming = unconfirmed
            .map(|o| descriptor_sat(&o.descriptor))
            .chain(found.into_values().map(|(output, _)| output.value.to_sat()))
            .fold(0, u64::saturating_add);
        let closed = channels.iter().all(|c| c.state == LostState::Closed);
        let quiet = self.hand_over.is_done() && self.hand_over.seen() == before;
        let settled = quiet && coming == 0 && closed;
        Ok(json!({
            "from": recovery.marker.from,
            "since_ms": recovery.marker.since_ms,
            "channels": channels,
            "coming_sat": coming,
            "settled": settled,
        }))
    }

    /// Of what a monitor hands over, that which nobody has yet.
    pub(crate) fn not_found_before(
        &self,
        outputs: Vec<SpendableOutputDescriptor>,
    ) -> Vec<SpendableOutputDescriptor> {
        if self.recovery.is_none() {
            return outputs;
        }
        let tracked = tracked(self);
        let new = outputs
            .into_iter()
            .filter(|output| !tracked.contains(&convert::spendable(output)));
        new.collect()
    }
}

/// Where gossip has a peer.
fn announced(graph: &Graph, peer: &PublicKey) -> Option<String> {
    let graph = graph.read_only();
    let node = graph.node(&GossipId::from_pubkey(peer))?;
    let addresses = node.announcement_info.as_ref()?.addresses();
    let tcp = addresses.iter().find(|address| {
        matches!(
            address,
            SocketAddress::TcpIpV4 { .. }
                | SocketAddress::TcpIpV6 { .. }
                | SocketAddress::Hostname { .. }
        )
    });
    tcp.map(SocketAddress::to_string)
}

fn tracked(node: &Node) -> HashSet<OutPoint> {
    let outputs = node.sweeper.tracked_spendable_outputs();
    outputs
        .iter()
        .map(|o| convert::spendable(&o.descriptor))
        .collect()
}

/// The lowest block that has coins of an account, of those that a scan finds.
///
/// # Errors
/// When the chain source fails.
pub async fn first_coin(chain: &Bitcoind, account: &Account) -> Result<Option<u32>, ChainError> {
    let range = |descriptor: &String| Wanted::Range {
        descriptor: descriptor.clone(),
        count: LOOKAHEAD,
    };
    let wanted = [range(&account.external), range(&account.internal)];
    let found = chain.scan(&wanted).await?;
    Ok(found.into_iter().map(|coin| coin.height).min())
}

/// These outputs with the keys that they pay to, and those for which none is found.
fn static_payments(
    keys: &Keys,
    outputs: Vec<(OutPoint, TxOut)>,
) -> (Vec<SpendableOutputDescriptor>, Vec<OutPoint>) {
    let mut wanted: HashMap<ScriptBuf, Vec<(OutPoint, TxOut)>> = HashMap::new();
    for (at, output) in outputs {
        let same = wanted.entry(output.script_pubkey.clone()).or_default();
        same.push((at, output));
    }
    let mut anchors = ChannelTypeFeatures::only_static_remote_key();
    let plain = anchors.clone();
    anchors.set_anchors_zero_fee_htlc_tx_required();
    let secp = Secp256k1::<All>::new();
    let mut found = Vec::new();
    // Any channel's keys do, if their payment key is the one: there are a thousand payment keys for all channels.
    for n in 0..MAX_TRIES {
        if wanted.is_empty() {
            break;
        }
        let mut channel_keys_id = [0; 32];
        channel_keys_id
            .iter_mut()
            .zip(n.to_be_bytes())
            .for_each(|(to, from)| *to = from);
        let pubkeys = keys
            .manager()
            .derive_channel_keys(&channel_keys_id)
            .pubkeys(&secp);
        for features in [&anchors, &plain] {
            let script = get_countersigner_payment_script(features, &pubkeys.payment_point);
            for (at, output) in wanted.remove(&script).into_iter().flatten() {
                let Ok(index) = u16::try_from(at.vout) else {
                    continue;
                };
                let value = output.value.to_sat();
                found.push(SpendableOutputDescriptor::StaticPaymentOutput(
                    StaticPaymentOutputDescriptor {
                        outpoint: LdkOutpoint {
                            txid: at.txid,
                            index,
                        },
                        output,
                        channel_keys_id,
                        channel_value_satoshis: value,
                        channel_transaction_parameters: Some(ChannelTransactionParameters {
                            holder_pubkeys: pubkeys.clone(),
                            holder_selected_contest_delay: 0,
                            is_outbound_from_holder: false,
                            counterparty_parameters: None,
                            funding_outpoint: None,
                            splice_parent_funding_txid: None,
                            channel_type_features: (*features).clone(),
                            channel_value_satoshis: value,
                        }),
                    },
                ));
            }
        }
    }
    let lost = wanted.into_values().flatten().map(|(at, _)| at);
    (found, lost.collect())
}

/// Told by the channel handler of a peer that came with a channel.
pub type Told = Arc<dyn Fn(ChannelId, PublicKey) + Send + Sync>;
