//! What every test here needs: a chain, nodes with coins and channels on it, and waiting for what they report.

#![allow(dead_code)]

pub mod bitcoind;
pub mod chain;
pub mod raw;
pub mod stock;
pub mod web;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network, ScriptBuf};
use ldkjit_core::ids::PaymentHash;
use ldkjit_node::chain::bitcoind::Bitcoind;
use ldkjit_node::channels::OpenRequest;
use ldkjit_node::client::{InvoiceRecord, JitChoice, ReceiveRequest};
use ldkjit_node::config::Config;
use ldkjit_node::error::NodeError;
use ldkjit_node::log::Log;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::{PayRequest, Payment, PaymentStatus};
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::router::{RouteHint, RouteHintHop};
use lightning::sign::{NodeSigner, Recipient};
use lightning::util::logger::Level;
use lightning_invoice::{Bolt11Invoice, InvoiceBuilder, RoutingFees};
use serde_json::{json, Value};

/// The longest any single step may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The name under which the tests read events.
const READER: &str = "test";

/// The channel sold in the tests costs 1 %, at least 2,000 sat.
pub fn menu() -> Value {
    json!([{
        "min_fee_msat": 2_000_000,
        "proportional_ppm": 10_000,
        "min_payment_msat": 1_000,
        "max_payment_msat": 4_000_000_000_u64,
        "min_lifetime_blocks": 144,
        "max_client_to_self_delay": 2016,
        "valid_for_s": 3600,
    }])
}

/// One chain and the nodes on it.
pub struct World {
    pub running: bitcoind::Running,
    pub chain: Arc<Bitcoind>,
}

impl World {
    /// `None` where there is no bitcoind.
    pub async fn start() -> Option<Self> {
        Self::with(&[]).await
    }

    /// With these flags for bitcoind.
    pub async fn with(flags: &[&str]) -> Option<Self> {
        let (running, chain) = bitcoind::Running::start(flags).await?;
        Some(Self { running, chain })
    }

    /// A node of this name, `more` laid over its settings.
    pub async fn node(&self, name: &str, more: Value, fault: Option<Fault>) -> Arc<Node> {
        self.changed(name, more, |config| config.fault = fault)
            .await
    }

    /// A node whose settings are also changed in ways that no settings file can say.
    pub async fn changed(
        &self,
        name: &str,
        more: Value,
        change: impl FnOnce(&mut Config),
    ) -> Arc<Node> {
        self.begin(name, more, change).await.unwrap()
    }

    /// A node that may not start.
    pub async fn begin(
        &self,
        name: &str,
        more: Value,
        change: impl FnOnce(&mut Config),
    ) -> Result<Arc<Node>, NodeError> {
        let config = self.settings(name, more, change);
        // Shown when the test fails, or with --nocapture.
        let prefix = name.to_owned();
        let log = Arc::new(Log::new(
            Level::Info,
            Arc::new(move |record| {
                if !record.target.starts_with("lightning::") || record.level != "INFO" {
                    eprintln!("{prefix}: {} {}", record.target, record.message);
                }
                true
            }),
        ));
        Node::start(config, log).await
    }

    /// What a node of this name is started with.
    pub fn settings(&self, name: &str, more: Value, change: impl FnOnce(&mut Config)) -> Config {
        let bitcoind = &self.running.config;
        let mut settings = json!({
            "network": "regtest",
            "data_dir": self.running.folder.join(name),
            "store": "memory",
            "alias": name,
            "listen": ["127.0.0.1:0"],
            "chain": {
                "kind": "bitcoind",
                "url": bitcoind.url,
                "user": bitcoind.user,
                "password": bitcoind.password,
                "poll_ms": bitcoind.poll_ms,
            },
            "accept_channels": true,
            "channel_confirmations": 1,
            "fee_fallback_sat_per_kw": 1_000,
        });
        let map = settings.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        let mut config = Config::from_json(settings).unwrap();
        change(&mut config);
        config
    }

    /// An LSP that sells, and cheats as `fault` says.
    pub async fn lsp(&self, trust: &str, limits: Value, fault: Option<Fault>) -> Arc<Node> {
        self.node("lsp", service(trust, limits), fault).await
    }

    /// The same node again, stopped and started on its store and at its address.
    pub async fn restarted(&self, node: &Arc<Node>, mut more: Value) -> Arc<Node> {
        node.stop().await.unwrap();
        let listening = node.net.listening.lock().unwrap().clone();
        more["listen"] = listening.into();
        self.node(&node.config.alias, more, None).await
    }

    /// A wallet that may buy from this LSP.
    pub async fn wallet(&self, lsp: &Node, more: Value, fault: Option<Fault>) -> Arc<Node> {
        self.node("wallet", buys_from(lsp, more), fault).await
    }

    /// An LSP that trusts its clients, a payer with a channel of 1,000,000 sat to it, and a wallet that may buy from it.
    pub async fn sale(
        &self,
        limits: Value,
        of_lsp: Option<Fault>,
        of_wallet: Option<Fault>,
    ) -> [Arc<Node>; 3] {
        let lsp = self.lsp("lsp_trusts_client", limits, of_lsp).await;
        let wallet = buys_from(&lsp, json!({}));
        let [payer, wallet] = self.customers(&lsp, wallet, of_wallet).await;
        [lsp, payer, wallet]
    }

    /// A payer with a channel of 1,000,000 sat to this LSP, and a wallet with these settings.
    pub async fn customers(
        &self,
        lsp: &Arc<Node>,
        wallet: Value,
        of_wallet: Option<Fault>,
    ) -> [Arc<Node>; 2] {
        let payer = self.node("payer", json!({}), None).await;
        let wallet = self.node("wallet", wallet, of_wallet).await;
        self.fund(&[lsp, &payer]).await;
        self.channel(&payer, lsp, 1_000_000).await;
        self.in_step(&[lsp, &payer, &wallet]).await;
        [payer, wallet]
    }

    /// Mines, and waits until these nodes have seen it.
    pub async fn mine(&self, blocks: u32, nodes: &[&Arc<Node>]) {
        self.mine_to(&nobody().to_string(), blocks).await;
        self.in_step(nodes).await;
    }

    async fn mine_to(&self, address: &str, blocks: u32) {
        let order = json!([blocks, address]);
        self.chain.call("generatetoaddress", order).await.unwrap();
    }

    /// Waits until these nodes are at the tip.
    pub async fn in_step(&self, nodes: &[&Arc<Node>]) {
        let height = self.chain.best_block().await.unwrap().height;
        for node in nodes {
            node.wait_height(height, PATIENCE).await.unwrap();
        }
    }

    /// Gives each of these nodes two mature coins of 50 bitcoin.
    pub async fn fund(&self, nodes: &[&Arc<Node>]) {
        for node in nodes {
            let address = node.parts.wallet.new_address().unwrap();
            self.mine_to(&address.to_string(), 2).await;
        }
        self.mine(101, nodes).await;
    }

    /// A private, confirmed channel that both ends can use.
    pub async fn channel(&self, from: &Arc<Node>, to: &Arc<Node>, capacity_sat: u64) {
        from.dial(id(to), &address(to), PATIENCE).await.unwrap();
        let before = with(from, to).len();
        let request = OpenRequest {
            peer: id(to),
            capacity_sat,
            push_msat: 0,
            announce: false,
            timeout: PATIENCE,
        };
        let opened = from.open_channel(request).await.unwrap();
        let txid = opened
            .funding
            .unwrap()
            .split(':')
            .next()
            .unwrap()
            .to_owned();
        self.in_mempool(&txid).await;
        self.mine(1, &[from, to]).await;
        let usable = |node: &Arc<Node>, peer: &Arc<Node>| {
            with(node, peer).iter().filter(|c| c.is_usable).count() == before + 1
        };
        until("the channel can be used", || {
            usable(from, to) && usable(to, from)
        })
        .await;
    }

    /// Waits until bitcoind knows an unconfirmed transaction.
    pub async fn in_mempool(&self, txid: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.mempool().await.iter().any(|t| t == txid) {
            assert!(tokio::time::Instant::now() < deadline, "{txid} not sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The ids of all unconfirmed transactions.
    pub async fn mempool(&self) -> Vec<String> {
        let ids = self.chain.call("getrawmempool", json!([])).await.unwrap();
        serde_json::from_value(ids).unwrap()
    }
}

/// Who mines.
pub fn nobody() -> Address {
    anyones("nobody")
}

/// Who mines the blocks that take the place of others: no block comes twice.
pub fn somebody_else() -> Address {
    anyones("somebody else")
}

fn anyones(name: &str) -> Address {
    let script = ScriptBuf::new_p2wsh(&sha256::Hash::hash(name.as_bytes()).into());
    Address::from_script(&script, Network::Regtest).unwrap()
}

/// The settings of an LSP.
pub fn service(trust: &str, limits: Value) -> Value {
    json!({"lsp": {"menu": menu(), "trust": trust, "limits": limits}})
}

/// The settings of a wallet that may buy from this LSP, `more` laid over what it knows of it.
pub fn buys_from(lsp: &Node, more: Value) -> Value {
    let mut seller = json!({"node_id": id(lsp).to_string(), "address": address(lsp)});
    let map = seller.as_object_mut().unwrap();
    map.extend(more.as_object().unwrap().clone());
    json!({"lsps": [seller], "listen": [], "accept_channels": false})
}

/// These settings, kept on disk: what a restart needs.
pub fn on_disk(mut settings: Value) -> Value {
    settings["store"] = "sqlite".into();
    settings
}

/// All coins of a node's own on the chain, locked or not, sat.
pub fn coins_sat(node: &Node) -> u64 {
    let b = node.parts.wallet.balances();
    b.confirmed_sat + b.unconfirmed_sat + b.untrusted_sat + b.immature_sat
}

/// The node's id.
pub fn id(node: &Node) -> PublicKey {
    node.cm.get_our_node_id()
}

/// Where it listens.
pub fn address(node: &Node) -> String {
    node.net.listening.lock().unwrap().first().unwrap().clone()
}

/// Its channels with a peer.
pub fn with(node: &Node, peer: &Node) -> Vec<ChannelDetails> {
    node.cm.list_channels_with_counterparty(&id(peer))
}

/// What a node could send to and receive from a peer, msat, and that no HTLC is on its way between them.
pub fn room(node: &Node, peer: &Node) -> Option<(u64, u64)> {
    let channels = with(node, peer);
    let quiet = channels
        .iter()
        .all(|c| c.pending_inbound_htlcs.is_empty() && c.pending_outbound_htlcs.is_empty());
    quiet.then(|| {
        let sum = |f: fn(&ChannelDetails) -> u64| channels.iter().map(f).sum();
        (
            sum(|c| c.outbound_capacity_msat),
            sum(|c| c.inbound_capacity_msat),
        )
    })
}

/// Waits for what no event tells, such as an HTLC that has wholly left both ends.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next event of this kind; those before it are passed over.
pub async fn event(node: &Node, kind: &str) -> Value {
    event_within(PATIENCE, node, kind).await
}

/// The next alarm is this one, on or over, and the status says the same. Fees are only looked at once a minute.
pub async fn alarm(node: &Node, alarm: &str, on: bool) {
    let told = event_within(PATIENCE * 2, node, "alarm").await;
    assert_eq!((&told["alarm"], &told["on"]), (&json!(alarm), &json!(on)));
    let mut said = json!({});
    if on {
        said[alarm] = told["message"].clone();
    }
    assert_eq!(node.status()["alarms"], said);
}

async fn event_within(patience: Duration, node: &Node, kind: &str) -> Value {
    let search = async {
        loop {
            let next = node.events.next(READER).await.unwrap();
            node.events
                .ack(READER, next["seq"].as_u64().unwrap())
                .await
                .unwrap();
            if next["event"]["type"] == kind {
                return next["event"].clone();
            }
        }
    };
    let found = tokio::time::timeout(patience, search).await;
    found.unwrap_or_else(|_| panic!("no event {kind}"))
}

/// Every event of this kind so far.
pub async fn events(node: &Node, kind: &str) -> Vec<Value> {
    node.parts.journal.durable().await.unwrap();
    let rows = node.parts.journal.rows("event", 0, 10_000).await.unwrap();
    rows.iter()
        .map(|row| serde_json::from_slice::<Value>(&row.value).unwrap())
        .filter(|event| event["type"] == kind)
        .collect()
}

/// Every ledger entry of this kind so far.
pub async fn ledger(node: &Node, kind: &str) -> Vec<Value> {
    node.parts.journal.durable().await.unwrap();
    let rows = node.ledger(0, 10_000).await.unwrap();
    rows.iter()
        .map(|row| row["entry"].clone())
        .filter(|entry| entry["kind"] == kind)
        .collect()
}

/// Every row of these nodes' ledgers follows from the others, and all add up to what wallet and LDK hold; then they stop.
pub async fn finish<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) {
    for node in nodes {
        let checked = node.ledger_check().await.unwrap();
        assert!(checked.verdict.ok, "{}: {checked:#?}", node.config.alias);
        node.stop().await.unwrap();
    }
}

/// The LSP's only order.
pub fn order(lsp: &Node) -> Value {
    let mut orders = lsp.lsp.as_ref().unwrap().orders();
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.remove(0)
}

/// Its state.
pub fn order_state(lsp: &Node) -> String {
    order(lsp)["state"].as_str().unwrap().to_owned()
}

/// How often each of these is in the ledger.
pub async fn count<const N: usize>(lsp: &Node, kinds: [&str; N]) -> [usize; N] {
    let mut counts = [0; N];
    for (count, kind) in counts.iter_mut().zip(kinds) {
        *count = ledger(lsp, kind).await.len();
    }
    counts
}

/// A sale that went well is in the books once, to the msat and the satoshi: one channel, its cost, its price.
pub async fn assert_books(lsp: &Node, wallet: &Node, coins_before_sat: u64, fee_msat: u64) {
    let once = [
        "order_sold",
        "set_complete",
        "channel_opened",
        "chain_cost",
        "order_paid",
    ];
    assert_eq!(count(lsp, once).await, [1; 5]);
    let never = [
        "part_refused",
        "order_owed",
        "order_ended",
        "channel_closed",
    ];
    assert_eq!(count(lsp, never).await, [0; 4]);
    // Nothing but the opening fee stays.
    for row in ledger(lsp, "forwarded").await {
        let [came, went, skim] = ["received", "sent", "skim"].map(|f| row[f].as_u64().unwrap());
        assert_eq!(came - went, skim, "{row}");
    }
    let earned = ledger(lsp, "fee_earned").await;
    let sum = |entry: &Value| entry["amount"].as_u64().unwrap();
    assert_eq!(earned.iter().map(sum).sum::<u64>(), fee_msat, "{earned:?}");
    let cost = ledger(lsp, "chain_cost").await.remove(0);
    let channels = with(lsp, wallet);
    assert_eq!(channels.len(), 1, "{channels:?}");
    let funding = channels[0].funding_txo.unwrap();
    assert_eq!(cost["txid"], funding.txid.to_string());
    let spent = channels[0].channel_value_satoshis + cost["fee_sat"].as_u64().unwrap();
    until("its wallet has seen the funding", || {
        coins_sat(lsp) == coins_before_sat - spent
    })
    .await;
}

/// An invoice that an LSP opens a channel for.
pub async fn jit_invoice(wallet: &Node, amount_msat: Option<u64>) -> InvoiceRecord {
    receive(wallet, amount_msat, JitChoice::Always).await
}

/// What a wallet asks for an invoice with.
pub fn asks(amount_msat: Option<u64>, jit: JitChoice) -> ReceiveRequest {
    ReceiveRequest {
        amount_msat,
        description: "a test".into(),
        expiry_s: 3_000,
        max_opening_fee_msat: None,
        jit,
        lsp: None,
        timeout_ms: 10_000,
    }
}

/// An invoice.
pub async fn receive(wallet: &Node, amount_msat: Option<u64>, jit: JitChoice) -> InvoiceRecord {
    wallet.receive(asks(amount_msat, jit)).await.unwrap()
}

/// Begins to pay, without a second try on another route.
pub async fn send(payer: &Node, bolt11: &str, amount_msat: Option<u64>) -> PaymentHash {
    let request = PayRequest {
        bolt11: bolt11.to_owned(),
        amount_msat,
        max_fee_msat: None,
        retry_s: 0,
    };
    payer.pay(request).await.unwrap().id
}

/// Pays, and gives the record of how it ended.
pub async fn pay(payer: &Node, bolt11: &str) -> Payment {
    let hash = send(payer, bolt11, None).await;
    outcome(payer, &hash).await
}

/// How a payment ended.
pub async fn outcome(payer: &Node, hash: &PaymentHash) -> Payment {
    payer.payments.wait(hash, PATIENCE).await.unwrap()
}

/// A payment that failed and for which nothing was given.
pub fn assert_failed(payment: &Payment) {
    assert_eq!(payment.status, PaymentStatus::Failed, "{payment:?}");
    assert_eq!(payment.preimage, None);
    assert_eq!(payment.fee_msat, None);
}

/// A hop without fees.
pub fn hop(from: PublicKey, scid: u64) -> RouteHintHop {
    RouteHintHop {
        src_node_id: from,
        short_channel_id: scid,
        fees: RoutingFees {
            base_msat: 0,
            proportional_millionths: 0,
        },
        cltv_expiry_delta: 144,
        htlc_minimum_msat: None,
        htlc_maximum_msat: None,
    }
}

/// An invoice of `node` over these hops: for a payment of its own, or for the one that `like` asks for; without an
/// amount the payer chooses.
pub fn invoice_over(
    node: &Node,
    amount_msat: impl Into<Option<u64>>,
    like: Option<&str>,
    hops: Vec<RouteHintHop>,
) -> String {
    let amount_msat = amount_msat.into();
    let (hash, secret) = match like {
        Some(text) => {
            let known: Bolt11Invoice = text.parse().unwrap();
            (*known.payment_hash(), *known.payment_secret())
        }
        None => {
            let (hash, secret) = node
                .cm
                .create_inbound_payment(amount_msat, 3_600, None)
                .unwrap();
            (sha256::Hash::from_byte_array(hash.0), secret)
        }
    };
    let draft = InvoiceBuilder::new(Network::Regtest.into())
        .description("made by the test".into())
        .current_timestamp()
        .payee_pub_key(id(node))
        .payment_hash(hash)
        .payment_secret(secret)
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(3_000))
        .private_route(RouteHint(hops));
    let draft = match amount_msat {
        Some(amount_msat) => draft.amount_milli_satoshis(amount_msat),
        None => draft,
    };
    let raw = draft.build_raw().unwrap();
    let signature = node.parts.keys.sign_invoice(&raw, Recipient::Node);
    let signed = raw.sign(|_| signature).unwrap();
    Bolt11Invoice::from_signed(signed).unwrap().to_string()
}
