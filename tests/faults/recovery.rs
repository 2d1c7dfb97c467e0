//! A node that comes back from a backup, from its words, or from an old copy of its store: all that is its own comes home,
//! nothing that may be revoked is published, and it never runs beside itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::OutPoint;
use ldkjit_core::ids::ChannelId;
use ldkjit_node::api::call;
use ldkjit_node::backup::restore;
use ldkjit_node::client::JitChoice;
use ldkjit_node::error::{NodeError, StoreError};
use ldkjit_node::log::Log;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use ldkjit_node::recovery::answers_elsewhere;
use serde_json::{json, Value};

use crate::common::{
    address, buys_from, coins_sat, finish, id, jit_invoice, ledger, on_disk, pay, receive, room,
    service, until, with, World,
};

/// Paid for the channel, then over it.
const FIRST: u64 = 100_000_000;
const LATER: u64 = 10_000_000;

struct Stage {
    world: World,
    lsp: Arc<Node>,
    payer: Arc<Node>,
    wallet: Arc<Node>,
    buyer: Value,
    funding: OutPoint,
}

impl Stage {
    /// A wallet with coins of its own and a channel that was paid for, all in blocks.
    async fn set() -> Option<Self> {
        let world = World::start().await?;
        let selling = on_disk(service("lsp_trusts_client", json!({})));
        let lsp = world.node("lsp", selling, None).await;
        let payer = world.node("payer", json!({}), None).await;
        let buyer = on_disk(buys_from(&lsp, json!({})));
        let wallet = world.node("wallet", buyer.clone(), None).await;
        world.fund(&[&lsp, &payer, &wallet]).await;
        world.channel(&payer, &lsp, 1_000_000).await;
        world.in_step(&[&lsp, &payer, &wallet]).await;
        let invoice = jit_invoice(&wallet, Some(FIRST)).await;
        let paid = pay(&payer, &invoice.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        let funding = with(&wallet, &lsp)[0].funding_txo.unwrap();
        world.in_mempool(&funding.txid.to_string()).await;
        world.mine(6, &[&lsp, &payer, &wallet]).await;
        let told = || {
            with(&wallet, &lsp)[0]
                .counterparty
                .forwarding_info
                .is_some()
        };
        until("the wallet knows the LSP's terms", told).await;
        Some(Self {
            world,
            lsp,
            payer,
            wallet,
            buyer,
            funding: funding.into_bitcoin_outpoint(),
        })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.world.running.folder.join(name)
    }

    /// Another payment over the channel: what was known before is revoked.
    async fn go_on(&self) {
        let invoice = receive(&self.wallet, Some(LATER), JitChoice::Never).await;
        let paid = pay(&self.payer, &invoice.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        until("no HTLC is left", || {
            room(&self.wallet, &self.lsp).is_some()
        })
        .await;
    }

    /// Our side of the channel, sat.
    fn ours(&self) -> u64 {
        let channel = with(&self.wallet, &self.lsp).remove(0);
        let reserve = channel.unspendable_punishment_reserve.unwrap();
        channel.outbound_capacity_msat / 1_000 + reserve
    }

    async fn start(&self, name: &str, more: Value) -> Result<Arc<Node>, NodeError> {
        let mut settings = self.buyer.clone();
        let map = settings.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        self.world.begin(name, settings, |_| {}).await
    }

    /// The channel is closed by the LSP and nobody else, and all that was the wallet's is among its coins.
    async fn comes_home(&self, node: &Arc<Node>, before: u64, ours: u64, known: bool) {
        let lsp = &self.lsp;
        until("the LSP has closed it", || with(lsp, node).is_empty()).await;
        let told = || {
            let status = node.recovery_status().unwrap();
            status["channels"][0]["state"] == "told" || status["channels"][0]["state"] == "closing"
        };
        until("it is known to close", told).await;
        let closing = self.world.comes_to_be_spent(self.funding).await;
        // Only what is deep enough is swept.
        self.world.mine(6, &[lsp, node]).await;
        self.is_swept(node, before, ours).await;
        let blocks = self.world.blocks().await;
        let spender = blocks.spender(self.funding).unwrap();
        assert_eq!(spender.compute_txid(), closing);
        let status = node.recovery_status().unwrap();
        assert_eq!(status["settled"], known, "{status}");
        assert_eq!(ledger(node, "recovered").await.len(), 1);
    }

    /// Payments, and then the wallet is stopped: its coins, its side of the channel, sat, and its words.
    async fn goes_on_and_stops(&self) -> (u64, u64, String) {
        self.go_on().await;
        let (before, ours) = (coins_sat(&self.wallet), self.ours());
        self.wallet.stop().await.unwrap();
        let words = std::fs::read_to_string(self.folder("wallet").join("seed")).unwrap();
        (before, ours, words)
    }

    /// The output to us of the closed channel goes to the wallet, less what the sweep costs.
    async fn is_swept(&self, node: &Arc<Node>, before: u64, ours: u64) {
        let sweeps = || node.balances()["pending_sweep_sat"] == ours || coins_sat(node) > before;
        until("its output is being swept", sweeps).await;
        self.world.mine_home(&[node]).await;
        let blocks = self.world.blocks().await;
        let closing = blocks.spender(self.funding).unwrap().compute_txid();
        let sweep = blocks
            .after(0)
            .into_iter()
            .find(|tx| {
                let mut inputs = tx.input.iter().map(|i| i.previous_output);
                inputs.any(|o| o.txid == closing && node.parts.wallet.knows_spender(&o))
            })
            .unwrap();
        assert_eq!(coins_sat(node), before + ours - blocks.fee(sweep));
        let status = node.recovery_status().unwrap();
        assert_eq!(status["coming_sat"], 0, "{status}");
    }
}

fn code<T>(result: Result<T, NodeError>) -> &'static str {
    result.err().map_or("no error", |error| error.code)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_brings_home_what_the_channel_holds_by_now() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    // Taken of a running node.
    let file = stage.folder("backup");
    let path = json!({ "path": file });
    let taken = call(&stage.wallet, "backup", path.clone()).await.unwrap();
    assert_eq!(taken["channels"], 1);
    assert_eq!(code(call(&stage.wallet, "backup", path).await), "config");
    stage.go_on().await;
    let (before, ours) = (coins_sat(&stage.wallet), stage.ours());

    // Not beside the node itself.
    let new = stage.folder("restored");
    assert_eq!(code(restore(&file, &new)), "store_copy");
    assert!(!new.exists());
    stage.wallet.stop().await.unwrap();
    let restored = restore(&file, &new).unwrap();
    assert_eq!(restored.node_id, id(&stage.wallet).to_string());
    assert_eq!(code(restore(&file, &new)), "config");

    // Not as the node that it was, nor beside it.
    let more = json!({});
    let refused = stage.start("restored", more.clone()).await;
    assert_eq!(code(refused), "recovery_needed");
    let again = stage.start("wallet", more).await.unwrap();
    let recover = json!({ "recover": true });
    let refused = stage.start("restored", recover.clone()).await;
    assert_eq!(code(refused), "store_copy");
    again.stop().await.unwrap();
    // A node's own store is not recovered by mistake.
    let refused = stage.start("wallet", recover.clone()).await;
    assert_eq!(code(refused), "config");
    assert_eq!(with(&stage.lsp, &again).len(), 1, "nothing is closed yet");

    let node = stage.start("restored", recover.clone()).await.unwrap();
    let asks = json!({"amount_msat": 1_000, "description": "", "expiry_s": 60,
                      "max_opening_fee_msat": null, "jit": "never", "lsp": null, "timeout_ms": 1_000});
    assert_eq!(code(call(&node, "receive", asks).await), "recovering");
    stage.comes_home(&node, before, ours, true).await;
    // It stays what it is, and its coins can go.
    node.stop().await.unwrap();
    let node = stage.start("restored", recover).await.unwrap();
    let to = stage.lsp.parts.wallet.new_address().unwrap().to_string();
    let all = json!({ "address": to, "amount_sat": null });
    call(&node, "send_onchain", all).await.unwrap();
    stage.world.mine(1, &[&node, &stage.lsp]).await;
    until("all is sent", || coins_sat(&node) == 0).await;
    finish([&stage.lsp, &stage.payer, &node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_alone_bring_home_coins_and_channels() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let (before, ours, words) = stage.goes_on_and_stops().await;
    let nothing = stage.start("empty", json!({ "recover": true })).await;
    assert_eq!(code(nothing), "config");
    let recover = json!({ "recover": true, "mnemonic": words.trim() });
    let node = stage.start("by words", recover.clone()).await.unwrap();
    assert_eq!(id(&node), id(&stage.wallet));
    assert_eq!(coins_sat(&node), before, "coins are found at once");
    stage.comes_home(&node, before, ours, false).await;
    // What came while it was away is found too.
    node.stop().await.unwrap();
    let refused = stage.start("by words", json!({})).await;
    assert_eq!(code(refused), "recovery_needed");
    let node = stage.start("by words", recover).await.unwrap();
    let status = node.recovery_status().unwrap();
    assert_eq!(status["from"], "words");
    finish([&stage.lsp, &stage.payer, &node]).await;
}

/// Nobody tells of the channel any more, and no block that comes has it: the coins of all time are looked through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_alone_find_a_channel_that_was_closed_long_ago() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let (before, ours, words) = stage.goes_on_and_stops().await;
    let channel = ChannelId(with(&stage.lsp, &stage.wallet)[0].channel_id.0);
    let why = Some("it never comes back");
    stage.lsp.close_channel(&channel, true, why).await.unwrap();
    stage.world.comes_to_be_spent(stage.funding).await;
    stage.world.mine(20, &[&stage.lsp]).await;

    let recover = json!({ "recover": true, "mnemonic": words.trim() });
    let node = stage.start("by words", recover).await.unwrap();
    assert_eq!(coins_sat(&node), before, "only what was its own before");
    stage.is_swept(&node, before, ours).await;
    let status = node.recovery_status().unwrap();
    assert_eq!(status["channels"], json!([]));
    assert_eq!(status["settled"], true, "{status}");
    finish([&stage.lsp, &stage.payer, &node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_store_stops_before_it_publishes_anything() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    stage.wallet.stop().await.unwrap();
    copy(&stage.folder("wallet"), &stage.folder("old"));
    let wallet = stage.start("wallet", json!({})).await.unwrap();
    let stage = Stage { wallet, ..stage };
    until("it is back", || {
        with(&stage.wallet, &stage.lsp).iter().all(|c| c.is_usable)
    })
    .await;
    stage.go_on().await;
    stage.go_on().await;
    let (before, ours) = (coins_sat(&stage.wallet), stage.ours());
    stage.wallet.stop().await.unwrap();

    // The LSP may prove it before all of the old one has started.
    match stage.start("old", json!({})).await {
        Err(error) => assert_eq!(error.code, "store_stale"),
        Ok(old) => {
            let peer = id(&stage.lsp).to_string();
            until("the LSP has proven it", || {
                old.parts.journal.stopped() == Some(StoreError::Stale { peer: peer.clone() })
            })
            .await;
            assert_eq!(code(call(&old, "channels", json!({})).await), "store_stale");
            // It stops by itself too; who comes first hears why nothing could be saved.
            if let Err(error) = old.stop().await {
                assert_eq!(error.code, "store_stale");
            }
        }
    }
    let refused = stage.start("old", json!({})).await;
    assert_eq!(code(refused), "recovery_needed");
    let node = stage
        .start("old", json!({ "recover": true }))
        .await
        .unwrap();
    stage.comes_home(&node, before, ours, true).await;
    finish([&stage.lsp, &stage.payer, &node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_runs_elsewhere_is_found_at_its_addresses() {
    let Some(world) = World::start().await else {
        return;
    };
    let node = world.node("node", json!({}), None).await;
    let other = world.node("other", json!({}), None).await;
    let log = Log::silent();
    let live = |address: &str| {
        let value = serde_json::to_vec(&[address]).unwrap();
        vec![("meta".to_owned(), "addresses".to_owned(), value)]
    };
    let at = address(&node);
    let found = answers_elsewhere(id(&node), &live(&at), &log).await;
    assert_eq!(found, Some(at.clone()));
    // Somebody else at the address is not it, nor is nobody.
    let found = answers_elsewhere(id(&node), &live(&address(&other)), &log).await;
    assert_eq!(found, None);
    node.stop().await.unwrap();
    let found = answers_elsewhere(id(&node), &live(&at), &log).await;
    assert_eq!(found, None);
    finish([&other]).await;
}
