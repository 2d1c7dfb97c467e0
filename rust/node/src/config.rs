//! What a node is told at start, as JSON from Python; every value is checked here once more, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bitcoin::secp256k1::PublicKey;
use bitcoin::Network;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::NodeId;
use ldkjit_core::liquidity::Lending;
use ldkjit_core::menu::{FeeTier, TrustModel};
use ldkjit_core::policy::Hook;
use ldkjit_core::pool::Pool;
use ldkjit_core::quota::Quota;
use ldkjit_core::rules::{Hours, Limits, Rules};
use ldkjit_core::standing::Patience;
use ldkjit_core::webhooks;
use serde::Deserialize;

use crate::chain::bitcoind::BitcoindConfig;
use crate::door::PeerLimits;
use crate::error::NodeError;

/// Smaller coins of the pool would cost more than they are good for, sat.
const MIN_POOL_COIN_SAT: u64 = 10_000;

/// Where the store lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// `node.sqlite` in the data folder.
    #[default]
    Sqlite,
    /// Nothing survives: for tests and experiments.
    Memory,
    /// One that is given at the start: PostgreSQL, or the user's own.
    External,
}

/// The chain source.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ChainConfig {
    /// bitcoind over RPC.
    Bitcoind(BitcoindConfig),
}

/// An LSP this wallet may buy channels from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LspPeer {
    /// Its node id.
    pub node_id: NodeId,
    /// `host:port`.
    pub address: String,
    /// Sent in `get_info` (J-07).
    #[serde(default)]
    pub token: Option<String>,
    /// Accept `client_trusts_lsp`: the preimage is given before a funding transaction exists (J-03).
    #[serde(default)]
    pub trusted: bool,
    /// Confirmations the funding transaction needs before the preimage is released; 0 = seen in the mempool (J-04).
    #[serde(default)]
    pub confirmations: u32,
    /// How long the funding transaction is waited for before the payment is failed back, ms.
    #[serde(default = "default_verify_ms")]
    pub verify_timeout_ms: u64,
}

/// Limits and times of the service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLimits {
    /// How long parts are held for the missing ones, ms (J-48: at least 90 s).
    pub collect_ms: u64,
    /// How long a complete payment is held for a client that is offline, ms.
    pub wake_ms: u64,
    /// How long an open may take until `channel_ready`, ms.
    pub open_ms: u64,
    /// How long after `valid_until` an unpaid channel is kept, ms.
    pub grace_ms: u64,
    /// How long a client may hold a payment before that counts as an unpaid channel, ms.
    pub claim_ms: u64,
    /// HTLCs held for one client; more are failed.
    pub max_held_per_client: u32,
    /// HTLCs held in all.
    pub max_held: u32,
    /// The smallest HTLC forwarded, msat.
    pub htlc_minimum_msat: u64,
    /// Opens tried for one order.
    pub max_opens: u32,
    /// Charge the opening fee when an existing, paid channel carries the payment.
    pub charge_on_reuse: bool,
    /// Added to each channel: a share of the payment, ppm.
    pub extra_capacity_ppm: u32,
    /// Added to each channel: a fixed amount, sat.
    pub extra_capacity_sat: u64,
    /// No channel is smaller, sat.
    pub min_channel_sat: u64,
    /// No channel is larger, sat.
    pub max_channel_sat: u64,
    /// The forwarding fee of a paid channel: base, msat.
    pub forwarding_base_msat: u32,
    /// The forwarding fee of a paid channel: proportional, ppm.
    pub forwarding_ppm: u32,
    /// Orders one client may have open.
    pub max_orders_per_client: u32,
    /// Orders open in all.
    pub max_orders: u32,
    /// Sold and not yet paid for, for one client, msat.
    pub max_exposure_per_client_msat: u64,
    /// Sold and not yet paid for, in all, msat.
    pub max_exposure_msat: u64,
    /// Channels of one client that are open and unpaid; more are not sold.
    pub max_unclaimed_per_client: u32,
    /// Value of one client's channels whose funding is not in the chain, msat.
    pub max_unconfirmed_per_client_msat: u64,
    /// Value of all such channels, msat.
    pub max_unconfirmed_msat: u64,
    /// Requests of one peer that wait for an answer; more are refused with code 1.
    pub max_pending_requests: u32,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            collect_ms: 90_000,
            wake_ms: 120_000,
            open_ms: 60_000,
            grace_ms: 600_000,
            claim_ms: 1_800_000,
            max_held_per_client: 100,
            max_held: 1_000,
            htlc_minimum_msat: 1_000,
            max_opens: 3,
            charge_on_reuse: false,
            extra_capacity_ppm: 100_000,
            extra_capacity_sat: 10_000,
            min_channel_sat: 20_000,
            max_channel_sat: 100_000_000,
            forwarding_base_msat: 1_000,
            forwarding_ppm: 0,
            max_orders_per_client: 10,
            max_orders: 1_000,
            max_exposure_per_client_msat: 10_000_000_000,
            max_exposure_msat: 100_000_000_000,
            max_unclaimed_per_client: 3,
            max_unconfirmed_per_client_msat: 10_000_000_000,
            max_unconfirmed_msat: 100_000_000_000,
            max_pending_requests: 10,
        }
    }
}

/// Whether a retention is one that LSPS5 allows (W-10), ms: seven days.
const MIN_RETENTION_MS: u64 = 7 * 86_400_000;

/// LSPS5: clients register webhooks, which are called while they are away.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Webhooks of one client.
    pub max_webhooks: u32,
    /// Clients with webhooks.
    pub max_clients: u32,
    /// Of them, clients that have no channel.
    pub max_strangers: u32,
    /// The same notification is not sent again to a client that stays away within this time, ms.
    pub cooldown_ms: u64,
    /// Webhooks of clients without channels are kept for this time, ms; at least seven days.
    pub retention_ms: u64,
    /// How long one call may take in all, ms.
    pub timeout_ms: u64,
    /// Calls at once.
    pub max_concurrent: u32,
    /// Call addresses of private networks and of this machine too.
    pub allow_private: bool,
    /// A file of PEM certificates that are trusted besides the web's.
    pub root_ca: Option<PathBuf>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            max_webhooks: 10,
            max_clients: 10_000,
            max_strangers: 1_000,
            cooldown_ms: 60_000,
            retention_ms: 30 * 86_400_000,
            timeout_ms: 10_000,
            max_concurrent: 16,
            allow_private: false,
            root_ca: None,
        }
    }
}

impl WebhookConfig {
    /// As core counts them.
    #[must_use]
    pub fn limits(&self) -> webhooks::Limits {
        webhooks::Limits {
            max_webhooks: self.max_webhooks,
            max_clients: self.max_clients,
            max_strangers: self.max_strangers,
            cooldown_ms: self.cooldown_ms,
            retention_ms: self.retention_ms,
        }
    }

    fn check(&self) -> Result<(), NodeError> {
        let within = |name: &str, value, low, high| within("webhooks", name, value, low, high);
        within("max_webhooks", self.max_webhooks.into(), 1, 100)?;
        within("max_clients", self.max_clients.into(), 1, 1_000_000)?;
        within("max_strangers", self.max_strangers.into(), 0, 1_000_000)?;
        within("cooldown_ms", self.cooldown_ms, 1_000, 3_600_000)?;
        within(
            "retention_ms",
            self.retention_ms,
            MIN_RETENTION_MS,
            u64::MAX,
        )?;
        within("timeout_ms", self.timeout_ms, 100, 60_000)?;
        within("max_concurrent", self.max_concurrent.into(), 1, 256)
    }
}

/// Where a hook of the application runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// On its event loop.
    Loop,
    /// On a thread of its own.
    Thread,
}

/// The operator's hooks, and how long they are waited for.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Those that there are.
    pub hooks: BTreeMap<Hook, Runs>,
    /// How long a menu is waited for, ms.
    pub menu_ms: u64,
    /// How long a sale is waited for, ms.
    pub sell_ms: u64,
    /// How long an open is waited for, ms.
    pub channel_ms: u64,
    /// Questions that may wait at once, of each hook.
    pub max_waiting: usize,
    /// So many unanswered questions in a row, and a hook is left in peace.
    pub breaker_after: u32,
    /// For so long, ms.
    pub breaker_ms: u64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            hooks: BTreeMap::new(),
            menu_ms: 2_000,
            sell_ms: 2_000,
            channel_ms: 5_000,
            max_waiting: 1_000,
            breaker_after: 10,
            breaker_ms: 5_000,
        }
    }
}

impl PolicyConfig {
    fn check(&self) -> Result<(), NodeError> {
        for (name, value) in [
            ("menu_ms", self.menu_ms),
            ("sell_ms", self.sell_ms),
            ("channel_ms", self.channel_ms),
            ("breaker_ms", self.breaker_ms),
        ] {
            within("policy", name, value, 1, 60_000)?;
        }
        let waiting = u64::try_from(self.max_waiting).unwrap_or(u64::MAX);
        within("policy", "max_waiting", waiting, 1, 100_000)?;
        within(
            "policy",
            "breaker_after",
            self.breaker_after.into(),
            1,
            1_000_000,
        )
    }
}

fn within(of: &str, name: &str, value: u64, low: u64, high: u64) -> Result<(), NodeError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let why = format!("lsp.{of}.{name}: {low} to {high}");
    Err(NodeError::config(why))
}

/// The service an LSP offers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LspConfig {
    /// What is for sale to those without a token.
    #[serde(default)]
    pub menu: Vec<FeeTier>,
    /// What is for sale with a token.
    #[serde(default)]
    pub token_menus: BTreeMap<String, Vec<FeeTier>>,
    /// Other menus for those without a token, by the hour.
    #[serde(default)]
    pub hours: Vec<Hours>,
    /// So much of a funding transaction's cost is added to every least fee, ppm.
    #[serde(default)]
    pub chain_cost_ppm: u32,
    /// How many channels may be bought with a token.
    #[serde(default)]
    pub token_quotas: BTreeMap<String, Quota>,
    /// How many by all without one together.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// Only these clients are served; absent: all.
    #[serde(default)]
    pub allow: Option<BTreeSet<NodeId>>,
    /// These clients are not served.
    #[serde(default)]
    pub deny: BTreeSet<NodeId>,
    /// Who trusts whom until the funding transaction confirms.
    #[serde(default = "default_trust")]
    pub trust: TrustModel,
    /// Limits and times.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// How far coins are promised.
    #[serde(default)]
    pub lending: Lending,
    /// How many unpaid channels are borne.
    #[serde(default)]
    pub patience: Patience,
    /// Coins kept ready for channels.
    #[serde(default)]
    pub pool: Pool,
    /// Call clients' webhooks (LSPS5); absent: not offered.
    #[serde(default)]
    pub webhooks: Option<WebhookConfig>,
    /// The operator's hooks.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// `lsp_cltv_expiry_delta`, blocks; at least 48.
    #[serde(default = "default_cltv_delta")]
    pub cltv_expiry_delta: u16,
}

/// All a node is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// bitcoin, testnet, signet or regtest.
    pub network: Network,
    /// Bitcoin's main network is meant: without this it is refused.
    #[serde(default)]
    pub mainnet: bool,
    /// Folder of seed, lock and store.
    pub data_dir: PathBuf,
    /// Kind of store.
    #[serde(default)]
    pub store: StoreKind,
    /// BIP 39 words to start from; only for a new data folder, or equal to its seed.
    #[serde(default)]
    pub mnemonic: Option<String>,
    /// Bring home what a restored store or the words held, and do nothing else.
    #[serde(default)]
    pub recover: bool,
    /// Addresses to listen on, `host:port`; port 0 = any free one.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Addresses to announce; only for a node with public channels.
    #[serde(default)]
    pub announce: Vec<String>,
    /// Name in the node announcement, at most 32 bytes.
    #[serde(default)]
    pub alias: String,
    /// Chain source.
    pub chain: ChainConfig,
    /// LSPs this wallet may buy from.
    #[serde(default)]
    pub lsps: Vec<LspPeer>,
    /// The service this node offers, if it does.
    #[serde(default)]
    pub lsp: Option<LspConfig>,
    /// Accept ordinary channels from anybody.
    #[serde(default)]
    pub accept_channels: bool,
    /// Confirmations an ordinary channel needs.
    #[serde(default = "default_depth")]
    pub channel_confirmations: u32,
    /// Peers to stay connected to, `node_id@host:port`.
    #[serde(default)]
    pub peers: Vec<String>,
    /// What peers that dial us and have no business here may use up.
    #[serde(default)]
    pub peer_limits: PeerLimits,
    /// How long forwards wait for company, ms: privacy against latency.
    #[serde(default)]
    pub forward_delay_ms: u64,
    /// Fee rate where the chain source has no estimate: regtest only, sat per 1000 weight.
    #[serde(default)]
    pub fee_fallback_sat_per_kw: Option<u32>,
    /// error, warn, info, debug or trace.
    #[serde(default = "default_level")]
    pub log_level: String,
    /// Where the operator's hooks are asked; needed if the service has any.
    #[serde(skip)]
    pub desk: Option<std::sync::Arc<crate::lsp::hooks::Desk>>,
    /// A way to cheat, for tests of the other side.
    #[cfg(feature = "faults")]
    #[serde(skip)]
    pub fault: Option<crate::lsp::Fault>,
    /// The store goes wrong at this commit (from 1).
    #[cfg(feature = "faults")]
    #[serde(skip)]
    pub store_fault: Option<(u64, crate::store::Fault)>,
    /// The LSPS2 of somebody else, instead of ours.
    #[cfg(feature = "faults")]
    #[serde(skip)]
    pub foreign: Option<std::sync::Arc<dyn crate::lsps::Foreign>>,
}

fn default_verify_ms() -> u64 {
    20_000
}
fn default_trust() -> TrustModel {
    TrustModel::LspTrustsClient
}
fn default_cltv_delta() -> u16 {
    144
}
fn default_depth() -> u32 {
    3
}
fn default_level() -> String {
    "info".into()
}

/// Splits `node_id@host:port`: the id up to the first `@`, the port after the last `:` (T-22).
///
/// # Errors
/// `config` when a part is missing or malformed.
pub fn parse_peer(text: &str) -> Result<(PublicKey, String), NodeError> {
    let (id, address) = text
        .split_once('@')
        .ok_or_else(|| NodeError::config("a peer is written node_id@host:port"))?;
    let key = id
        .parse::<PublicKey>()
        .map_err(|_| NodeError::config("the node id must be 66 hex digits and on the curve"))?;
    check_address(address)?;
    Ok((key, address.to_string()))
}

fn check_address(address: &str) -> Result<(), NodeError> {
    let bad = || NodeError::config("an address is written host:port, port 0 to 65535");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    // No name is longer, and nothing else belongs in one: it is stored, shown and logged.
    let is_name = (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_graphic());
    if !is_name || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    Ok(())
}

impl LspConfig {
    /// Prices, clients and limits as core's rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            menu: self.menu.clone(),
            token_menus: self.token_menus.clone(),
            hours: self.hours.clone(),
            chain_cost_ppm: self.chain_cost_ppm,
            token_quotas: self.token_quotas.clone(),
            quota: self.quota,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            limits: Limits {
                max_orders_per_client: self.limits.max_orders_per_client,
                max_orders: self.limits.max_orders,
                max_exposure_per_client_msat: Msat(self.limits.max_exposure_per_client_msat),
                max_exposure_msat: Msat(self.limits.max_exposure_msat),
                max_unclaimed_per_client: self.limits.max_unclaimed_per_client,
                max_unconfirmed_per_client_msat: Msat(self.limits.max_unconfirmed_per_client_msat),
                max_unconfirmed_msat: Msat(self.limits.max_unconfirmed_msat),
            },
            lending: self.lending,
            patience: self.patience,
            trust: self.trust,
        }
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// `config`, naming the field and what it accepts.
    pub fn from_json(value: serde_json::Value) -> Result<Self, NodeError> {
        let config: Self = serde_json::from_value(value)
            .map_err(|e| NodeError::config(format!("configuration: {e}")))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), NodeError> {
        if self.network == Network::Bitcoin && !self.mainnet {
            return Err(NodeError::config(
                "network: bitcoin moves real money; set mainnet to true if that is meant",
            ));
        }
        if self.alias.len() > 32 {
            return Err(NodeError::config("alias: at most 32 bytes"));
        }
        for address in self.listen.iter().chain(&self.announce) {
            check_address(address)?;
        }
        for peer in &self.peers {
            parse_peer(peer)?;
        }
        for lsp in &self.lsps {
            check_address(&lsp.address)?;
            if !lsp.node_id.is_on_curve() {
                return Err(NodeError::config("lsps: node_id is not on the curve"));
            }
        }
        if self.fee_fallback_sat_per_kw.is_some() && self.network != Network::Regtest {
            return Err(NodeError::config(
                "fee_fallback_sat_per_kw: only on regtest",
            ));
        }
        if self.channel_confirmations == 0 || self.channel_confirmations > 144 {
            return Err(NodeError::config("channel_confirmations: 1 to 144"));
        }
        if let Some(lsp) = &self.lsp {
            if lsp.cltv_expiry_delta < 48 {
                return Err(NodeError::config("lsp.cltv_expiry_delta: at least 48"));
            }
            if lsp.limits.collect_ms < 90_000 {
                return Err(NodeError::config(
                    "lsp.limits.collect_ms: at least 90000 (J-48)",
                ));
            }
            if lsp.pool.coins > 0 && lsp.pool.coin_sat < MIN_POOL_COIN_SAT {
                return Err(NodeError::config(format!(
                    "lsp.pool.coin_sat: at least {MIN_POOL_COIN_SAT}"
                )));
            }
            if let Some(webhooks) = &lsp.webhooks {
                webhooks.check()?;
            }
            lsp.policy.check()?;
            let is_day = |h: &Hours| h.from < 24 && h.until < 24 && h.from != h.until;
            if !lsp.hours.iter().all(is_day) {
                return Err(NodeError::config(
                    "lsp.hours: from and until 0 to 23, and not the same",
                ));
            }
            let has_channel = lsp.policy.hooks.contains_key(&Hook::Channel);
            if has_channel && lsp.policy.channel_ms >= lsp.limits.open_ms {
                return Err(NodeError::config(
                    "lsp.policy.channel_ms: less than limits.open_ms",
                ));
            }
            lsp.rules()
                .validate()
                .map_err(|e| NodeError::config(format!("lsp: {e}")))?;
        }
        Ok(())
    }
}
