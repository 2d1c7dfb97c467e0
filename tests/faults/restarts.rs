//! A node that stops in the middle of a JIT payment and starts anew on its store: nothing is lost, and nothing done twice.

use std::sync::Arc;

use crate::common::{
    address, asks, assert_books, buys_from, coins_sat, count, event, events, finish, id,
    jit_invoice, ledger, on_disk, order, order_state, outcome, pay, receive, room, send, service,
    until, with, World, PATIENCE,
};
use ldkjit_core::ids::ChannelId;
use ldkjit_core::menu::TrustModel;
use ldkjit_node::client::{InvoiceRecord, JitChoice};
use ldkjit_node::config::Config;
use ldkjit_node::error::StoreError;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use ldkjit_node::store::Fault as StoreFault;
use serde_json::{json, Value};

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
/// Paid over the channel once it is there.
const SMALL: u64 = 1_000_000;
/// The forwarding fee of a channel that is paid for.
const BASE: u64 = 1_000;

/// Three nodes, and what it takes to start two of them again.
struct Stage {
    world: World,
    lsp: Arc<Node>,
    payer: Arc<Node>,
    wallet: Arc<Node>,
    service: Value,
    buyer: Value,
    /// The LSP's coins before anything was sold, sat.
    coins: u64,
    /// What the payer could send, msat.
    room: u64,
}

impl Stage {
    async fn set(
        trust: &str,
        channels_sat: &[u64],
        of_lsp: Option<Fault>,
        of_wallet: Option<Fault>,
    ) -> Option<Self> {
        let world = World::start().await?;
        let service = on_disk(service(trust, json!({"forwarding_base_msat": BASE})));
        let lsp = world.node("lsp", service.clone(), of_lsp).await;
        let payer = world.node("payer", json!({}), None).await;
        let trusted = trust == "client_trusts_lsp";
        let buyer = on_disk(buys_from(&lsp, json!({"trusted": trusted})));
        let wallet = world.node("wallet", buyer.clone(), of_wallet).await;
        world.fund(&[&lsp, &payer]).await;
        for capacity_sat in channels_sat {
            world.channel(&payer, &lsp, *capacity_sat).await;
        }
        world.in_step(&[&lsp, &payer, &wallet]).await;
        // Over the LSP's restarts too.
        let address = address(&lsp);
        let dialled = payer.dial_and_keep(id(&lsp), &address, PATIENCE).await;
        dialled.unwrap();
        Some(Self {
            coins: coins_sat(&lsp),
            room: room(&payer, &lsp).unwrap().0,
            world,
            lsp,
            payer,
            wallet,
            service,
            buyer,
        })
    }

    /// The LSP again, and the payer with it.
    async fn restart_lsp(&mut self) {
        self.lsp = self.world.restarted(&self.lsp, self.service.clone()).await;
        until("the payer is back", || {
            self.lsp.is_connected(&id(&self.payer))
        })
        .await;
    }

    async fn restart_wallet(&mut self) {
        self.wallet = self.world.restarted(&self.wallet, self.buyer.clone()).await;
    }

    /// The funding transaction of the only channel sold, as the wallet knows it.
    fn funding(&self) -> String {
        let channels = with(&self.wallet, &self.lsp);
        assert_eq!(channels.len(), 1, "{channels:?}");
        channels[0].funding_txo.unwrap().txid.to_string()
    }

    /// The wallet was paid once, of this amount and fee, and everybody has what that leaves.
    async fn assert_paid_once(&self, size: u64, fee: u64) {
        let received = events(&self.wallet, "payment_received").await;
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(received[0]["amount_msat"], size - fee);
        assert_eq!(received[0]["opening_fee_msat"], fee);
        assert_books(&self.lsp, &self.wallet, self.coins, fee).await;
        until("no HTLC is left", || {
            room(&self.payer, &self.lsp).is_some() && room(&self.wallet, &self.lsp).is_some()
        })
        .await;
        assert_eq!(room(&self.payer, &self.lsp).unwrap().0, self.room - size);
        let channel = with(&self.wallet, &self.lsp).remove(0);
        let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
        assert_eq!(channel.outbound_capacity_msat, size - fee - reserve);
    }

    /// The channel is confirmed at both ends, carries an ordinary payment, and its coins need no lock any more.
    async fn assert_confirmed(&self, confirmations: u32) {
        let (lsp, wallet) = (&self.lsp, &self.wallet);
        until("both ends count the confirmations", || {
            with(wallet, lsp)[0].confirmations == Some(confirmations)
                && with(lsp, wallet)[0].confirmations == Some(confirmations)
        })
        .await;
        assert_eq!(wallet.balances()["lightning"]["depends_on_lsp_msat"], 0);
        until("the LSP follows", || {
            order(lsp)["open"]["depth"] == confirmations
        })
        .await;
        assert!(self.world.mempool().await.is_empty());
        let told = || {
            let terms = with(wallet, lsp)[0].counterparty.forwarding_info.clone();
            terms.is_some_and(|t| u64::from(t.fee_base_msat) == BASE)
        };
        until("the wallet knows the LSP's terms", told).await;
        let usable = |from: &Node, to: &Node| with(from, to).iter().all(|c| c.is_usable);
        until("the channels can be used", || {
            usable(&self.payer, lsp) && usable(lsp, wallet) && usable(wallet, lsp)
        })
        .await;
        let before = (room(&self.payer, lsp).unwrap(), room(wallet, lsp).unwrap());
        let invoice = receive(wallet, Some(SMALL), JitChoice::Never).await;
        let paid = pay(&self.payer, &invoice.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        assert_eq!(paid.fee_msat, Some(BASE));
        until("no HTLC is left", || {
            room(&self.payer, lsp).is_some() && room(wallet, lsp).is_some()
        })
        .await;
        let after = (room(&self.payer, lsp).unwrap(), room(wallet, lsp).unwrap());
        assert_eq!(after.0 .0, before.0 .0 - SMALL - BASE);
        assert_eq!(after.1 .0, before.1 .0 + SMALL);
        assert_eq!(with(lsp, wallet).len(), 1, "no second channel");
        assert_eq!(ledger(lsp, "chain_cost").await.len(), 1);
    }

    async fn stop(self) {
        finish([&self.wallet, &self.payer, &self.lsp]).await;
    }
}

/// A channel that was bought and paid for; its funding may or may not be published.
async fn paid(stage: &Stage) -> InvoiceRecord {
    let bought = bought(stage).await;
    let paid = pay(&stage.payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    event(&stage.wallet, "payment_received").await;
    until("the order is paid", || order_state(&stage.lsp) == "paid").await;
    bought
}

async fn bought(stage: &Stage) -> InvoiceRecord {
    let bought = jit_invoice(&stage.wallet, Some(SIZE)).await;
    assert_eq!(bought.trust, Some(TrustModel::ClientTrustsLsp));
    bought
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_stops_with_the_preimage_and_the_funding_unpublished() {
    let fault = Some(Fault::DiesBeforeBroadcast);
    let Some(mut stage) = Stage::set("client_trusts_lsp", &[1_000_000], fault, None).await else {
        return;
    };
    let bought = paid(&stage).await;
    let funding = stage.funding();
    assert!(stage.world.mempool().await.is_empty());

    // The preimage is out and nothing else would publish it (D-1): the new run does.
    stage.restart_lsp().await;
    stage.world.in_mempool(&funding).await;
    assert_eq!(stage.world.mempool().await, [stage.funding()]);
    let stages = stage.lsp.timeline.of(&bought.payment_hash);
    assert!(
        stages.iter().any(|s| s.stage == "funding_broadcast"),
        "{stages:?}"
    );
    stage.assert_paid_once(SIZE, FEE).await;
    assert_eq!(count(&stage.lsp, ["open_requested"]).await, [1]);

    // It confirms while the LSP is away once more.
    stage.lsp.stop().await.unwrap();
    let others = [&stage.payer, &stage.wallet];
    stage.world.mine(1, &others).await;
    stage.restart_lsp().await;
    let all = [&stage.lsp, &stage.payer, &stage.wallet];
    stage.world.mine(5, &all).await;
    stage.assert_confirmed(6).await;
    assert_eq!(count(&stage.lsp, ["open_requested"]).await, [1]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_and_a_wallet_that_stop_with_the_claim_on_its_way() {
    let fault = Some(Fault::HangsUpAtClaim);
    let Some(mut stage) = Stage::set("client_trusts_lsp", &[1_000_000], None, fault).await else {
        return;
    };
    let bought = bought(&stage).await;
    let hash = send(&stage.payer, &bought.bolt11, None).await;

    // The wallet has claimed, and its LSP has not heard of it.
    event(&stage.wallet, "payment_received").await;
    until("the LSP sees the wallet go", || {
        !stage.lsp.is_connected(&id(&stage.wallet))
    })
    .await;
    assert_eq!(order_state(&stage.lsp), "forwarding");
    assert_eq!(
        stage.payer.payments.pending(&hash).unwrap().status,
        PaymentStatus::Pending
    );
    let early = ["chain_cost", "fee_earned", "order_paid"];
    assert_eq!(count(&stage.lsp, early).await, [0; 3]);
    assert!(stage.world.mempool().await.is_empty());
    let funding = stage.funding();

    // With both started anew the claim arrives, and with it all that follows.
    stage.restart_lsp().await;
    assert_eq!(order_state(&stage.lsp), "forwarding");
    stage.restart_wallet().await;
    let paid = outcome(&stage.payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    until("the order is paid", || order_state(&stage.lsp) == "paid").await;
    stage.world.in_mempool(&funding).await;
    stage.assert_paid_once(SIZE, FEE).await;
    assert_eq!(count(&stage.lsp, ["open_requested"]).await, [1]);
    let all = [&stage.lsp, &stage.payer, &stage.wallet];
    stage.world.mine(6, &all).await;
    stage.assert_confirmed(6).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_stops_before_its_channel_confirms() {
    let Some(mut stage) = Stage::set("client_trusts_lsp", &[1_000_000], None, None).await else {
        return;
    };
    paid(&stage).await;
    let funding = stage.funding();
    stage.world.in_mempool(&funding).await;
    stage.assert_paid_once(SIZE, FEE).await;
    let depends = |wallet: &Node| wallet.balances()["lightning"]["depends_on_lsp_msat"].clone();
    let reserve = with(&stage.wallet, &stage.lsp)[0].unspendable_punishment_reserve;
    let net = SIZE - FEE - reserve.unwrap() * 1_000;
    assert_eq!(depends(&stage.wallet), net);

    // The new run still knows that its balance is the LSP's word, and confirms by itself what it was away for.
    stage.restart_wallet().await;
    assert_eq!(depends(&stage.wallet), net);
    stage.assert_paid_once(SIZE, FEE).await;
    stage.wallet.stop().await.unwrap();
    let others = [&stage.lsp, &stage.payer];
    stage.world.mine(1, &others).await;
    stage.restart_wallet().await;
    assert_eq!(depends(&stage.wallet), 0);
    let all = [&stage.lsp, &stage.payer, &stage.wallet];
    stage.world.mine(5, &all).await;
    stage.assert_confirmed(6).await;
    assert!(events(&stage.wallet, "funding_conflict").await.is_empty());
    stage.stop().await;
}

/// More than one of the payer's channels carries.
const LARGE: u64 = 900_000_000;
const LARGE_FEE: u64 = 9_000_000;
const CHANNELS: [u64; 2] = [600_000; 2];

fn held(lsp: &Node) -> usize {
    let order = order(lsp);
    let parts = order["parts"].as_object().unwrap();
    parts.values().filter(|p| p["status"] == "held").count()
}

/// Both parts are held in this state while the LSP is stopped, and are paid out by the run after.
async fn are_held(state: &str, of_wallet: Option<Fault>, opens: usize) {
    let set = Stage::set("lsp_trusts_client", &CHANNELS, None, of_wallet).await;
    let Some(mut stage) = set else {
        return;
    };
    let bought = jit_invoice(&stage.wallet, Some(LARGE)).await;
    assert_eq!(bought.trust, Some(TrustModel::LspTrustsClient));
    let away = of_wallet.is_none();
    if away {
        stage.wallet.stop().await.unwrap();
        until("the LSP sees the wallet go", || {
            !stage.lsp.is_connected(&id(&stage.wallet))
        })
        .await;
    }
    let hash = send(&stage.payer, &bought.bolt11, None).await;
    until("both parts are held", || {
        held(&stage.lsp) == 2 && order_state(&stage.lsp) == state
    })
    .await;
    if !away {
        until("the wallet has the offer", || {
            let stages = stage.wallet.timeline.of(&hash);
            stages.iter().any(|s| s.stage == "offer_dropped")
        })
        .await;
        assert_eq!(stage.lsp.parts.wallet.locked().len(), 1);
    }
    assert!(stage.world.mempool().await.is_empty());

    stage.restart_lsp().await;
    if away {
        // Nothing was given up at the start, and nothing is opened before there is somebody to open it to.
        assert_eq!(
            (held(&stage.lsp), order_state(&stage.lsp).as_str()),
            (2, state)
        );
        assert_eq!(stage.lsp.parts.wallet.locked().len(), 1, "ready for it");
        stage.restart_wallet().await;
    }
    let paid = outcome(&stage.payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    event(&stage.wallet, "payment_received").await;
    until("the order is paid", || order_state(&stage.lsp) == "paid").await;
    stage.assert_paid_once(LARGE, LARGE_FEE).await;

    // An open that LDK has forgotten is over, its coins went to the next one.
    let kinds = ["part_accepted", "open_requested", "open_ended"];
    assert_eq!(count(&stage.lsp, kinds).await, [2, opens, opens - 1]);
    let channel = with(&stage.lsp, &stage.wallet).remove(0);
    assert_eq!(stage.lsp.parts.wallet.locked(), [channel.user_channel_id]);
    assert_eq!(stage.world.mempool().await, [stage.funding()]);
    let all = [&stage.lsp, &stage.payer, &stage.wallet];
    stage.world.mine(6, &all).await;
    stage.assert_confirmed(6).await;
    stage.world.mine(1, &all).await;
    assert_eq!(stage.lsp.parts.wallet.locked(), [] as [u128; 0]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_61_S_65_an_lsp_that_stops_during_the_open() {
    are_held("opening", Some(Fault::IgnoresOffer), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_61_S_65_an_lsp_that_stops_while_the_client_is_away() {
    are_held("waking", None, 1).await;
}

/// A peer that dials again at once is not left with a connection to a node that has stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dials_while_the_node_stops() {
    let Some(world) = World::start().await else {
        return;
    };
    let settings = on_disk(json!({}));
    let mut node = world.node("node", settings.clone(), None).await;
    let peer = world.node("peer", json!({"listen": []}), None).await;
    for _ in 0..10 {
        let (dialler, there, at) = (Arc::clone(&peer), id(&node), address(&node));
        peer.dial(there, &at, PATIENCE).await.unwrap();
        let dialling = tokio::spawn(async move {
            loop {
                let _ = dialler.dial(there, &at, PATIENCE).await;
                tokio::task::yield_now().await;
            }
        });
        node.stop().await.unwrap();
        until("the peer sees the node go", || !peer.is_connected(&there)).await;
        assert!(!node.is_connected(&id(&peer)));
        dialling.abort();
        node = world.restarted(&node, settings.clone()).await;
    }
    finish([&node, &peer]).await;
}

/// LDK 0.2.7 forgets over a restart that a channel may bring payments with the LSP's fee taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_restarts_before_its_channel_is_paid_for() {
    let fault = Some(Fault::ClientRefuses);
    let Some(mut stage) = Stage::set("lsp_trusts_client", &CHANNELS, None, fault).await else {
        return;
    };
    let bought = jit_invoice(&stage.wallet, Some(LARGE)).await;
    let failed = pay(&stage.payer, &bought.bolt11).await;
    assert_eq!(failed.status, PaymentStatus::Failed, "{failed:?}");
    until("the fee is owed", || order_state(&stage.lsp) == "owed").await;
    stage.restart_wallet().await;
    let paid = pay(&stage.payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    let received = event(&stage.wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], LARGE - LARGE_FEE);
    until("the order is paid", || order_state(&stage.lsp) == "paid").await;
    let earned = ledger(&stage.lsp, "fee_earned").await;
    let sum = |entry: &Value| entry["amount"].as_u64().unwrap();
    assert_eq!(earned.iter().map(sum).sum::<u64>(), LARGE_FEE, "{earned:?}");
    stage.stop().await;
}

/// An LSP, and a payer who has enough for the first payments of many wallets.
async fn for_many(world: &World) -> [Arc<Node>; 2] {
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 5_000_000).await;
    world.in_step(&[&lsp, &payer]).await;
    [lsp, payer]
}

/// LDK would sign for the funding transaction first: the LSP then pays for a channel that the wallet knows nothing of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_cannot_store_its_channel_has_not_signed_for_it() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer] = for_many(&world).await;
    let mut ended = Vec::new();
    // Its first commits are its start, the next few the order, the channel and the payment.
    for nth in 3..12 {
        let name = format!("wallet{nth}");
        let settings = on_disk(buys_from(&lsp, json!({})));
        let fails = |config: &mut Config| config.store_fault = Some((nth, StoreFault::Fails));
        let Ok(wallet) = world.begin(&name, settings.clone(), fails).await else {
            continue;
        };
        let asked = asks(Some(SIZE), JitChoice::Always);
        let Ok(bought) = wallet.receive(asked).await else {
            continue;
        };
        let hash = send(&payer, &bought.bolt11, None).await;
        let paid = || {
            let client = id(&wallet).to_string();
            let orders = lsp.lsp.as_ref().unwrap().orders();
            let mut of_wallet = orders.iter().filter(|o| o["terms"]["client"] == *client);
            of_wallet.any(|o| o["state"] == "paid")
        };
        until("the wallet ends or is paid", || {
            !lsp.is_connected(&id(&wallet)) || paid()
        })
        .await;
        if !paid() {
            ended.push(nth);
        }
        let _ = wallet.stop().await;
        let wallet = world.node(&name, settings, None).await;
        outcome(&payer, &hash).await;
        until("both know the same channels", || {
            let (here, there) = (with(&lsp, &wallet), with(&wallet, &lsp));
            here.len() == there.len() && here.iter().chain(&there).all(|c| c.is_usable)
        })
        .await;
        wallet.stop().await.unwrap();
    }
    assert!(!ended.is_empty(), "the store fails in time");
    for closed in events(&lsp, "channel_closed").await {
        let why = closed["reason"].as_str().unwrap();
        assert!(!why.contains("channel_reestablish"), "{why}: {ended:?}");
    }
    finish([&payer, &lsp]).await;
}

/// The LSP may have the channel no more, and the wallet takes it up again: it is closed as was agreed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_cannot_store_its_close_closes_as_agreed() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer] = for_many(&world).await;
    let mut ended = Vec::new();
    // Its first commits are its start, the next few the close: how many may differ from run to run.
    for nth in 1..40 {
        let name = format!("wallet{nth}");
        let settings = on_disk(buys_from(&lsp, json!({})));
        let wallet = world.node(&name, settings.clone(), None).await;
        let bought = jit_invoice(&wallet, Some(SIZE)).await;
        let paid = pay(&payer, &bought.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded);
        let details = with(&wallet, &lsp).remove(0);
        let channel = ChannelId(details.channel_id.0);
        let funding = details.funding_txo.unwrap().into_bitcoin_outpoint();
        wallet.stop().await.unwrap();

        let mut outlived = false;
        let fails = |config: &mut Config| config.store_fault = Some((nth, StoreFault::Fails));
        if let Ok(wallet) = world.begin(&name, settings.clone(), fails).await {
            until("the wallet is there or ends", || {
                let channels = with(&wallet, &lsp);
                wallet.parts.journal.stopped().is_some() || channels.iter().all(|c| c.is_usable)
            })
            .await;
            let _ = wallet.close_channel(&channel, false, None).await;
            until("the wallet ends or has closed", || {
                wallet.parts.journal.stopped().is_some()
                    || with(&wallet, &lsp).is_empty() && with(&lsp, &wallet).is_empty()
            })
            .await;
            // What says that it is closed may be in its last commit.
            let _ = wallet.stop().await;
            outlived = matches!(wallet.parts.journal.stopped(), Some(StoreError::Closed));
            if !outlived {
                ended.push(nth);
            }
        }
        let wallet = world.node(&name, settings, None).await;
        // It hears of a close that it has lost by a block, and where it has not even begun to close, it is asked once more.
        let closing = async {
            loop {
                world.mine(1, &[&lsp, &wallet]).await;
                let blocks = world.blocks().await;
                if let Some(closing) = blocks.spender(funding) {
                    break closing.clone();
                }
                let _ = wallet.close_channel(&channel, false, None).await;
            }
        };
        let closing = tokio::time::timeout(PATIENCE, closing).await.unwrap();
        // BOLT 3: that of a commitment transaction has 0x20 as its highest byte.
        let by_force = closing.lock_time.to_consensus_u32() >> 24 == 0x20;
        assert!(!by_force, "{nth}: {closing:?}");
        until("both have closed", || {
            with(&lsp, &wallet).is_empty() && with(&wallet, &lsp).is_empty()
        })
        .await;
        finish([&wallet]).await;
        if outlived && !ended.is_empty() {
            break;
        }
    }
    assert!(!ended.is_empty(), "the store fails in time");
    for closed in events(&lsp, "channel_closed").await {
        let why = closed["reason"].as_str().unwrap();
        assert!(why.contains("cooperatively"), "{why}: {ended:?}");
    }
    finish([&payer, &lsp]).await;
}

/// A payee's channel is behind: it gave the preimage, and was gone before its commitment transaction was without the HTLC.
/// The payer's channel is over by the time the payee is back and repeats it, which LDK takes for another forward.
async fn repeated(by_force: bool) {
    let Some(world) = World::start().await else {
        return;
    };
    let deaf = Some(Fault::DeafAfterPreimage);
    let settings = on_disk(service("lsp_trusts_client", json!({})));
    let lsp = world.node("lsp", settings.clone(), deaf).await;
    let payer = world.node("payer", json!({}), None).await;
    let kept = on_disk(json!({}));
    let payee = world.node("payee", kept.clone(), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.channel(&lsp, &payee, 1_000_000).await;
    world.in_step(&[&payer, &payee]).await;
    let asked = receive(&payee, Some(SIZE), JitChoice::Never).await;
    let hash = send(&payer, &asked.bolt11, None).await;
    let told = event(&lsp, "payment_forwarded").await;
    payee.stop().await.unwrap();
    let paid = outcome(&payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded);
    until("the payer's channel is quiet", || {
        room(&lsp, &payer).is_some()
    })
    .await;
    assert_eq!(room(&lsp, &payee), None, "the payee's is not");
    let channel = ChannelId(with(&payer, &lsp)[0].channel_id.0);
    payer.close_channel(&channel, by_force, None).await.unwrap();
    event(&lsp, "channel_closed").await;

    // Who knows it must know it after a start too.
    let lsp = world.restarted(&lsp, settings).await;
    let payee = world.node("payee", kept, None).await;
    payee
        .dial(id(&lsp), &address(&lsp), PATIENCE)
        .await
        .unwrap();
    until("the payee's channel is quiet too", || {
        room(&lsp, &payee).is_some() && room(&payee, &lsp).is_some()
    })
    .await;
    lsp.parts.journal.durable().await.unwrap();
    let booked = ledger(&lsp, "forwarded").await;
    assert_eq!(booked.len(), 1, "{booked:?}");
    assert_eq!(booked[0]["sent"], SIZE);
    assert_eq!(events(&lsp, "payment_forwarded").await, [told]);
    finish([&lsp, &payer, &payee]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preimage_that_is_repeated_after_an_agreed_close_is_booked_once() {
    repeated(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preimage_that_is_repeated_after_a_close_by_force_is_booked_once() {
    repeated(true).await;
}
