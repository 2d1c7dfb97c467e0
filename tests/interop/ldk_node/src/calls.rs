//! What can be asked of the node: parameters, and the call of ldk-node that each is.

use std::fmt::Display;
use std::str::FromStr;

use ldk_node::bitcoin::hex::FromHex;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::bitcoin::Network;
use ldk_node::config::{AnchorChannelsConfig, Config};
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::liquidity::LSPS2ServiceConfig;
use ldk_node::logger::LogLevel;
use ldk_node::{BuildError, Builder, Node, NodeError, UserChannelId};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::answers;

/// Why a call was refused: ldk-node's own name for it, and its words.
#[derive(Serialize)]
pub struct Failure {
    kind: String,
    message: String,
}

impl Failure {
    pub fn new(kind: &str, message: impl Display) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.to_string(),
        }
    }

    pub fn bad_request(error: serde_json::Error) -> Self {
        Self::new("BadRequest", error)
    }

    pub fn not_started() -> Self {
        Self::new("NotRunning", "the first call is start")
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::new(&format!("{error:?}"), error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::new(&format!("{error:?}"), error)
    }
}

/// A value that is written as text.
pub struct Text<T>(pub T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Not every error type of LDK can be shown.
        let read = T::from_str(&text);
        read.map(Text)
            .map_err(|_| de::Error::custom(format_args!("{text:?} is none")))
    }
}

/// 32 bytes in hexadecimal.
pub struct Hash(pub [u8; 32]);

impl FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        <[u8; 32]>::from_hex(text).map(Self).map_err(|_| ())
    }
}

/// The LSP that a wallet buys from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lsp {
    node_id: Text<PublicKey>,
    address: Text<SocketAddress>,
    token: Option<String>,
}

/// All that `LSPS2ServiceConfig` has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    require_token: Option<String>,
    advertise_service: bool,
    channel_opening_fee_ppm: u32,
    channel_over_provisioning_ppm: u32,
    min_channel_opening_fee_msat: u64,
    min_channel_lifetime: u32,
    max_client_to_self_delay: u32,
    min_payment_size_msat: u64,
    max_payment_size_msat: u64,
    client_trusts_lsp: bool,
}

impl From<Service> for LSPS2ServiceConfig {
    fn from(service: Service) -> Self {
        Self {
            require_token: service.require_token,
            advertise_service: service.advertise_service,
            channel_opening_fee_ppm: service.channel_opening_fee_ppm,
            channel_over_provisioning_ppm: service.channel_over_provisioning_ppm,
            min_channel_opening_fee_msat: service.min_channel_opening_fee_msat,
            min_channel_lifetime: service.min_channel_lifetime,
            max_client_to_self_delay: service.max_client_to_self_delay,
            min_payment_size_msat: service.min_payment_size_msat,
            max_payment_size_msat: service.max_payment_size_msat,
            client_trusts_lsp: service.client_trusts_lsp,
        }
    }
}

/// Where ldk-node keeps its state.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// Its default.
    Sqlite,
    /// One file a key.
    Filesystem,
}

/// A node on regtest: plain, a wallet with an LSP, an LSP, or both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Seed, store and log; the same folder is the same node.
    folder: String,
    store: Store,
    rpc_host: String,
    rpc_port: u16,
    rpc_user: String,
    rpc_password: String,
    listen: Vec<Text<SocketAddress>>,
    /// With a name the node can announce its channels.
    alias: Option<String>,
    lsp: Option<Lsp>,
    service: Option<Service>,
    /// Peers for whose channels no coins are kept: a new wallet has none.
    no_reserve: Vec<Text<PublicKey>>,
    log_level: String,
}

impl Start {
    pub fn build(self) -> Result<Node, Failure> {
        let config = Config {
            storage_dir_path: self.folder,
            network: Network::Regtest,
            anchor_channels_config: Some(AnchorChannelsConfig {
                trusted_peers_no_reserve: self.no_reserve.into_iter().map(|each| each.0).collect(),
                ..AnchorChannelsConfig::default()
            }),
            ..Config::default()
        };
        let mut builder = Builder::from_config(config);
        builder.set_chain_source_bitcoind_rpc(
            self.rpc_host,
            self.rpc_port,
            self.rpc_user,
            self.rpc_password,
        );
        builder.set_listening_addresses(self.listen.into_iter().map(|each| each.0).collect())?;
        if let Some(alias) = self.alias {
            builder.set_node_alias(alias)?;
        }
        if let Some(lsp) = self.lsp {
            builder.set_liquidity_source_lsps2(lsp.node_id.0, lsp.address.0, lsp.token);
        }
        if let Some(service) = self.service {
            builder.set_liquidity_provider_lsps2(service.into());
        }
        builder.set_filesystem_logger(None, Some(log_level(&self.log_level)?));
        Ok(match self.store {
            Store::Sqlite => builder.build()?,
            Store::Filesystem => builder.build_with_fs_store()?,
        })
    }
}

fn log_level(name: &str) -> Result<LogLevel, Failure> {
    match name {
        "gossip" => Ok(LogLevel::Gossip),
        "trace" => Ok(LogLevel::Trace),
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" => Ok(LogLevel::Warn),
        "error" => Ok(LogLevel::Error),
        _ => Err(Failure::new("BadRequest", "log_level")),
    }
}

/// A request.
#[derive(Deserialize)]
#[serde(
    tag = "method",
    content = "params",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Call {
    Start(Box<Start>),
    Stop,
    Status,
    Sync,
    NewAddress,
    Balances,
    Peers,
    Channels,
    Connect(Connect),
    Disconnect(Peer),
    OpenChannel(OpenChannel),
    CloseChannel(CloseChannel),
    Receive(Receive),
    ReceiveJit(ReceiveJit),
    Pay(Pay),
    PaySpontaneously(PaySpontaneously),
    Claim(Claim),
    Refuse(Refuse),
    Payment(Refuse),
    Payments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    node_id: Text<PublicKey>,
    address: Text<SocketAddress>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    node_id: Text<PublicKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenChannel {
    node_id: Text<PublicKey>,
    address: Text<SocketAddress>,
    capacity_sat: u64,
    push_msat: u64,
    announced: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseChannel {
    node_id: Text<PublicKey>,
    user_channel_id: Text<u128>,
    force: bool,
}

/// An ordinary invoice; without an amount the payer chooses it, with a hash the caller claims.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    amount_msat: Option<u64>,
    expiry_s: u32,
    payment_hash: Option<Text<Hash>>,
}

/// The same over a channel that the LSP opens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveJit {
    amount_msat: Option<u64>,
    expiry_s: u32,
    /// Of a fixed amount, msat; of one that the payer chooses, millionths.
    max_fee: Option<u64>,
    payment_hash: Option<Text<Hash>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pay {
    bolt11: Text<Bolt11Invoice>,
    amount_msat: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaySpontaneously {
    node_id: Text<PublicKey>,
    amount_msat: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    payment_hash: Text<Hash>,
    preimage: Text<Hash>,
    claimable_msat: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    payment_hash: Text<Hash>,
}

impl Call {
    pub fn run(self, node: &Node) -> Result<Value, Failure> {
        let done = Ok(Value::Null);
        match self {
            Self::Start(_) => Err(NodeError::AlreadyRunning.into()),
            Self::Stop => {
                node.stop()?;
                done
            }
            Self::Status => Ok(answers::status(&node.status(), &node.node_id())),
            Self::Sync => {
                node.sync_wallets()?;
                done
            }
            Self::NewAddress => {
                let address = node.onchain_payment().new_address()?;
                Ok(json!(address.to_string()))
            }
            Self::Balances => Ok(answers::balances(&node.list_balances())),
            Self::Peers => Ok(node.list_peers().iter().map(answers::peer).collect()),
            Self::Channels => Ok(node.list_channels().iter().map(answers::channel).collect()),
            Self::Connect(to) => {
                node.connect(to.node_id.0, to.address.0, true)?;
                done
            }
            Self::Disconnect(from) => {
                node.disconnect(from.node_id.0)?;
                done
            }
            Self::OpenChannel(open) => open.run(node),
            Self::CloseChannel(close) => {
                let id = UserChannelId(close.user_channel_id.0);
                if close.force {
                    let why = Some("asked to".to_owned());
                    node.force_close_channel(&id, close.node_id.0, why)?;
                } else {
                    node.close_channel(&id, close.node_id.0)?;
                }
                done
            }
            Self::Receive(receive) => receive.run(node),
            Self::ReceiveJit(receive) => receive.run(node),
            Self::Pay(pay) => {
                let payments = node.bolt11_payment();
                let id = match pay.amount_msat {
                    Some(amount) => payments.send_using_amount(&pay.bolt11.0, amount, None)?,
                    None => payments.send(&pay.bolt11.0, None)?,
                };
                Ok(json!(id.to_string()))
            }
            Self::PaySpontaneously(pay) => {
                let payments = node.spontaneous_payment();
                let id = payments.send(pay.amount_msat, pay.node_id.0, None)?;
                Ok(json!(id.to_string()))
            }
            Self::Claim(claim) => {
                node.bolt11_payment().claim_for_hash(
                    PaymentHash(claim.payment_hash.0 .0),
                    claim.claimable_msat,
                    PaymentPreimage(claim.preimage.0 .0),
                )?;
                done
            }
            Self::Refuse(refuse) => {
                let hash = PaymentHash(refuse.payment_hash.0 .0);
                node.bolt11_payment().fail_for_hash(hash)?;
                done
            }
            Self::Payment(of) => {
                let payment = node.payment(&PaymentId(of.payment_hash.0 .0));
                Ok(payment.as_ref().map_or(Value::Null, answers::payment))
            }
            Self::Payments => Ok(node.list_payments().iter().map(answers::payment).collect()),
        }
    }
}

impl OpenChannel {
    fn run(self, node: &Node) -> Result<Value, Failure> {
        let (peer, at) = (self.node_id.0, self.address.0);
        let push = Some(self.push_msat).filter(|push| *push > 0);
        let id = if self.announced {
            node.open_announced_channel(peer, at, self.capacity_sat, push, None)?
        } else {
            node.open_channel(peer, at, self.capacity_sat, push, None)?
        };
        Ok(json!(id.0.to_string()))
    }
}

impl Receive {
    fn run(self, node: &Node) -> Result<Value, Failure> {
        let payments = node.bolt11_payment();
        let (text, expiry) = (description()?, self.expiry_s);
        let hash = self.payment_hash.map(|hash| PaymentHash(hash.0 .0));
        let invoice = match (self.amount_msat, hash) {
            (Some(amount), None) => payments.receive(amount, &text, expiry)?,
            (Some(amount), Some(hash)) => payments.receive_for_hash(amount, &text, expiry, hash)?,
            (None, None) => payments.receive_variable_amount(&text, expiry)?,
            (None, Some(hash)) => payments.receive_variable_amount_for_hash(&text, expiry, hash)?,
        };
        Ok(json!(invoice.to_string()))
    }
}

impl ReceiveJit {
    fn run(self, node: &Node) -> Result<Value, Failure> {
        let payments = node.bolt11_payment();
        let (text, expiry, max) = (description()?, self.expiry_s, self.max_fee);
        let hash = self.payment_hash.map(|hash| PaymentHash(hash.0 .0));
        let invoice = match (self.amount_msat, hash) {
            (Some(amount), None) => payments.receive_via_jit_channel(amount, &text, expiry, max)?,
            (Some(amount), Some(hash)) => {
                payments.receive_via_jit_channel_for_hash(amount, &text, expiry, max, hash)?
            }
            (None, None) => payments.receive_variable_amount_via_jit_channel(&text, expiry, max)?,
            (None, Some(hash)) => payments
                .receive_variable_amount_via_jit_channel_for_hash(&text, expiry, max, hash)?,
        };
        Ok(json!(invoice.to_string()))
    }
}

fn description() -> Result<Bolt11InvoiceDescription, Failure> {
    Description::new("ldk-node".to_owned())
        .map(Bolt11InvoiceDescription::Direct)
        .map_err(|error| Failure::new("BadRequest", error))
}
