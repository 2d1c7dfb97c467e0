//! Either end of either channel closes by force while a JIT payment is on its way: at each state of its HTLC the chain
//! pays everybody what is theirs, to the satoshi.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut};
use ldkjit_core::ids::{ChannelId, PaymentHash};
use ldkjit_node::forced::{awaits_close, passed_over};
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::{PayRequest, PaymentStatus};
use serde_json::{json, Value};

use crate::common::chain::{Blocks, ANCHOR};
use crate::common::{
    assert_failed, buys_from, coins_sat, count, event, events, finish, id, jit_invoice, ledger,
    on_disk, order_state, outcome, pay, room, send, service, until, with, World,
};

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
const PAYER_SAT: u64 = 1_000_000;

/// How far the payment is when the channel closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Htlc {
    /// The LSP holds it for a wallet that is away.
    Held,
    /// The wallet has it, and looks for the funding in a block before it claims.
    Forwarded,
    /// The wallet has claimed; the LSP has not heard of it.
    Claimed,
    /// The LSP has the preimage; the payer is away.
    Settling,
}

/// Who closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closer {
    Payer,
    LspUpstream,
    LspDownstream,
    Wallet,
}

impl Closer {
    fn upstream(self) -> bool {
        matches!(self, Self::Payer | Self::LspUpstream)
    }
}

struct Stage {
    world: World,
    lsp: Arc<Node>,
    payer: Arc<Node>,
    wallet: Arc<Node>,
    hash: PaymentHash,
    /// All coins of the three before, and the height.
    coins: u64,
    height: u32,
}

impl Stage {
    async fn set(htlc: Htlc) -> Option<Self> {
        let world = World::start().await?;
        let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
        let payer = world.node("payer", json!({}), None).await;
        let careful = matches!(htlc, Htlc::Forwarded | Htlc::Settling);
        let fault = (htlc == Htlc::Claimed).then_some(Fault::HangsUpAtClaim);
        let more = json!({"confirmations": u32::from(careful)});
        let wallet = world.wallet(&lsp, more, fault).await;
        // The wallet needs coins only to claim on a commitment transaction of its own.
        world.fund(&[&lsp, &payer, &wallet]).await;
        world.channel(&payer, &lsp, PAYER_SAT).await;
        world.mine(6, &[&lsp, &payer, &wallet]).await;
        let (coins, height) = (total(&[&lsp, &payer, &wallet]), lsp.height());

        let bought = jit_invoice(&wallet, Some(SIZE)).await;
        if htlc == Htlc::Held {
            wallet.stop().await.unwrap();
            until("the wallet is away", || !lsp.is_connected(&id(&wallet))).await;
        }
        let request = PayRequest {
            bolt11: bought.bolt11,
            amount_msat: None,
            max_fee_msat: None,
            retry_s: 0,
        };
        let hash = payer.pay(request).await.unwrap().id;
        let stage = Self {
            world,
            lsp,
            payer,
            wallet,
            hash,
            coins,
            height,
        };
        stage.wait(htlc).await;
        Some(stage)
    }

    async fn wait(&self, htlc: Htlc) {
        let (lsp, payer, wallet) = (&self.lsp, &self.payer, &self.wallet);
        let has_it = || {
            let channels = with(wallet, lsp);
            channels.iter().any(|c| !c.pending_inbound_htlcs.is_empty())
                && wallet
                    .timeline
                    .of(&self.hash)
                    .iter()
                    .any(|s| s.stage == "claimable")
        };
        match htlc {
            Htlc::Held => until("it is held", || order_state(lsp) == "waking").await,
            Htlc::Forwarded => until("the wallet has it", has_it).await,
            Htlc::Claimed => {
                event(wallet, "payment_received").await;
                until("the wallet is away", || !lsp.is_connected(&id(wallet))).await;
                assert_eq!(order_state(lsp), "forwarding");
            }
            Htlc::Settling => {
                until("the wallet has it", has_it).await;
                payer.hang_up(&id(lsp));
                until("the payer is away", || !lsp.is_connected(&id(payer))).await;
                let funding = with(lsp, wallet)[0].funding_txo.unwrap().txid.to_string();
                self.world.in_mempool(&funding).await;
                self.world.mine(1, &[lsp, payer, wallet]).await;
                event(wallet, "payment_received").await;
                until("the order is paid", || order_state(lsp) == "paid").await;
            }
        }
        if htlc != Htlc::Held {
            let funding = with(lsp, wallet)[0]
                .funding_txo
                .unwrap()
                .into_bitcoin_outpoint();
            let known = self.world.chain.tx_out(&funding, true).await.unwrap();
            assert!(known.is_some(), "its funding is published");
        }
    }
}

/// A wallet that reckons with fees far above what the LSP would pay agrees to a close all the same, whoever asks for it: it
/// pays none of them, and a close by force would cost both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fees_that_are_reckoned_otherwise_are_no_reason_to_close_by_force() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, PAYER_SAT).await;
    for asks in ["wallet", "lsp"] {
        let mut settings = buys_from(&lsp, json!({}));
        settings["fee_fallback_sat_per_kw"] = 20_000.into();
        let wallet = world.node(&format!("{asks}-asks"), settings, None).await;
        let bought = jit_invoice(&wallet, Some(SIZE)).await;
        let paid = pay(&payer, &bought.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        let channel = with(&wallet, &lsp).remove(0);
        let funding = channel.funding_txo.unwrap().into_bitcoin_outpoint();
        world.in_mempool(&funding.txid.to_string()).await;
        world.mine(6, &[&lsp, &wallet]).await;
        let closing = ChannelId(channel.channel_id.0);
        let (by, why) = match asks {
            "lsp" => (&lsp, Some("a test")),
            _ => (&wallet, None),
        };
        by.close_channel(&closing, false, why).await.unwrap();
        for node in [&lsp, &wallet] {
            let closed = event(node, "channel_closed").await;
            let reason = closed["reason"].as_str().unwrap();
            assert!(reason.contains("cooperatively"), "{reason}");
        }
        world.comes_to_be_spent(funding).await;
        world.mine_home(&[&lsp, &wallet]).await;
        finish([&wallet]).await;
    }
    finish([&payer, &lsp]).await;
}

/// A payer that closed by force while the LSP, which would publish its own commitment transaction, was away. The LSP had
/// held its payment for a wallet that is away too.
struct Alone {
    world: World,
    lsp: Arc<Node>,
    service: Value,
    payer: Arc<Node>,
    hash: PaymentHash,
    /// When the HTLC expires.
    expiry: u32,
    funding: OutPoint,
}

impl Alone {
    async fn set(amount_msat: u64, payer: Value) -> Option<Self> {
        let world = World::start().await?;
        let mut service = on_disk(service("lsp_trusts_client", json!({})));
        service["lsp"]["menu"][0]["min_fee_msat"] = 0.into();
        let lsp = world.node("lsp", service.clone(), None).await;
        let payer = world.node("payer", on_disk(payer), None).await;
        let wallet = world.wallet(&lsp, json!({}), None).await;
        world.fund(&[&lsp, &payer]).await;
        world.channel(&payer, &lsp, PAYER_SAT).await;
        world.mine(6, &[&lsp, &payer, &wallet]).await;
        let bought = jit_invoice(&wallet, Some(amount_msat)).await;
        wallet.stop().await.unwrap();
        until("the wallet is away", || !lsp.is_connected(&id(&wallet))).await;
        let hash = send(&payer, &bought.bolt11, None).await;
        until("it is held", || order_state(&lsp) == "waking").await;
        lsp.stop().await.unwrap();

        let channel = with(&payer, &lsp).remove(0);
        let closing = ChannelId(channel.channel_id.0);
        payer.close_channel(&closing, true, None).await.unwrap();
        let funding = channel.funding_txo.unwrap().into_bitcoin_outpoint();
        world.comes_to_be_spent(funding).await;
        Some(Self {
            world,
            lsp,
            service,
            payer,
            hash,
            expiry: channel.pending_outbound_htlcs[0].cltv_expiry,
            funding,
        })
    }

    async fn finish(self) {
        let lsp = self.world.restarted(&self.lsp, self.service).await;
        self.world.in_step(&[&lsp]).await;
        finish([&self.payer, &lsp]).await;
    }
}

/// A payment's HTLC is worth less than its claim: it is left on the chain, and claimed when fees have fallen. LDK itself
/// asks for no less than it once did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_htlc_that_is_not_worth_its_claim_waits_for_lower_fees() {
    let small = 3_000_000;
    let at = |rate: u32| on_disk(json!({"fee_fallback_sat_per_kw": rate}));
    let Some(mut alone) = Alone::set(small, at(5_000)).await else {
        return;
    };
    let (payer, hash) = (&alone.payer, alone.hash);
    let blocks = alone.expiry + 1 - payer.height();
    alone.world.mine(blocks, &[payer]).await;
    let left = |payer: &Node| payer.balances()["lightning"]["left_on_chain_sat"].clone();
    let expected = json!({ hash.to_string(): small / 1_000 });
    until("it is left", || left(payer) == expected).await;
    // LDK tries higher rates meanwhile.
    alone.world.mine(40, &[payer]).await;
    let pending = payer.payments.pending(&hash).unwrap().status;
    assert_eq!(pending, PaymentStatus::Pending);
    assert_eq!(left(payer), expected);

    alone.payer = alone.world.restarted(payer, at(500)).await;
    let payer = &alone.payer;
    alone.world.mine(1, &[payer]).await;
    let htlc = {
        let blocks = alone.world.blocks().await;
        let commitment = blocks.spender(alone.funding).unwrap();
        let is_it = |o: &TxOut| o.value.to_sat() == small / 1_000;
        let vout = commitment.output.iter().position(is_it).unwrap();
        OutPoint::new(commitment.compute_txid(), vout as u32)
    };
    alone.world.comes_to_be_spent(htlc).await;
    alone.world.mine(6, &[payer]).await;
    assert_failed(&outcome(payer, &hash).await);
    until("nothing is left", || left(payer) == json!({})).await;
    alone.world.mine_home(&[payer]).await;
    alone.finish().await;
}

/// An HTLC that is too small for the payer's commitment transaction is settled by it at six blocks. Then those blocks go,
/// and the next one has the transaction again: LDK passes over it, and its money comes home all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commitment_transaction_that_moves_after_six_blocks_comes_home() {
    let Some(mut alone) = Alone::set(100_000, json!({})).await else {
        return;
    };
    let payer = &alone.payer;
    alone.world.mine(6, &[payer]).await;
    assert_failed(&outcome(payer, &alone.hash).await);
    alone.world.reorganise(6, true, &[payer]).await;
    let counted = |payer: &Node| {
        let balances = payer.balances();
        let sat = |value: &Value| value.as_u64().unwrap();
        let closing = sat(&balances["lightning"]["claimable_msat"]) / 1_000;
        closing + sat(&balances["pending_sweep_sat"]) + coins_sat(payer)
    };
    let before = counted(payer);
    // As many as the payer's output is delayed, less those that it has.
    alone.world.mine(136, &[payer]).await;
    assert_eq!(payer.balances()["pending_sweep_sat"], 0, "not yet");
    assert_eq!(counted(payer), before);
    assert!(payer.ledger_check().await.unwrap().verdict.ok);
    alone.world.mine(1, &[payer]).await;

    let ours = {
        let blocks = alone.world.blocks().await;
        let commitment = blocks.spender(alone.funding).unwrap();
        let largest = (0u32..)
            .zip(&commitment.output)
            .max_by_key(|(_, o)| o.value);
        OutPoint::new(commitment.compute_txid(), largest.unwrap().0)
    };
    alone.world.comes_to_be_spent(ours).await;
    assert!(payer.ledger_check().await.unwrap().verdict.ok);
    alone.payer = alone.world.restarted(payer, on_disk(json!({}))).await;
    let payer = &alone.payer;
    alone.world.mine(7, &[payer]).await;
    let fee = {
        let blocks = alone.world.blocks().await;
        blocks.fee(blocks.spender(ours).unwrap())
    };
    until("it is home", || counted(payer) == before - fee).await;
    let balances = payer.balances();
    assert_eq!(balances["lightning"]["claimable_msat"], 0);
    assert_eq!(balances["pending_sweep_sat"], 0);
    let by_ldk = payer.monitors.get_claimable_balances(&[]);
    assert!(
        by_ldk.iter().any(awaits_close),
        "LDK has seen it: {by_ldk:?}"
    );
    let tracked = payer.sweeper.tracked_spendable_outputs();
    assert_eq!(tracked.len(), 1, "{tracked:?}");
    // The sweeper forgets it some day, and is not given it again.
    let id = payer.monitors.list_monitors().remove(0);
    let found = passed_over(
        &payer.parts.wallet,
        &payer.monitors.get_monitor(id).unwrap(),
    )
    .unwrap();
    assert_eq!(found.unspent, []);
    assert_eq!(payer.parts.wallet.unconfirmed(), []);
    alone.finish().await;
}

/// What these nodes own in coins and in channels that they funded, sat.
fn total(nodes: &[&Arc<Node>]) -> u64 {
    let coins: u64 = nodes.iter().map(|node| coins_sat(node)).sum();
    let channels = nodes.iter().flat_map(|node| node.cm.list_channels());
    let funded = channels.filter(|c| c.is_outbound);
    coins + funded.map(|c| c.channel_value_satoshis).sum::<u64>()
}

/// What of a commitment transaction a node has taken, sat, without anchors.
fn share(blocks: &Blocks, commitment: &Transaction, node: &Node) -> u64 {
    let txid = commitment.compute_txid();
    let mut sum = 0;
    for (vout, output) in commitment.output.iter().enumerate() {
        let value = output.value.to_sat();
        let output = OutPoint::new(txid, vout as u32);
        let is_spent = blocks.spender(output).is_some();
        if value != ANCHOR && is_spent && node.parts.wallet.knows_spender(&output) {
            sum += value;
        }
    }
    sum
}

async fn is_resolved(htlc: Htlc, closer: Closer) {
    let Some(stage) = Stage::set(htlc).await else {
        return;
    };
    let (lsp, payer, wallet) = (&stage.lsp, &stage.payer, &stage.wallet);
    let (by, at, peer) = match closer {
        Closer::Payer => (payer, payer, lsp),
        Closer::LspUpstream => (lsp, payer, lsp),
        Closer::LspDownstream => (lsp, lsp, wallet),
        Closer::Wallet => (wallet, lsp, wallet),
    };
    let channel = with(at, peer).remove(0);
    let value = channel.channel_value_satoshis;
    let funding = channel.funding_txo.unwrap().into_bitcoin_outpoint();
    let order = ChannelId(channel.channel_id.0);
    by.close_channel(&order, true, None).await.unwrap();
    if htlc == Htlc::Held {
        // To take it on the chain may cost more than its fee earns, and the channel besides.
        event(lsp, "channel_closed").await;
        until("it is given up", || {
            order_state(lsp) == "sold" && lsp.parts.wallet.locked().is_empty()
        })
        .await;
        let refused = ledger(lsp, "part_refused").await;
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0]["reason"], "payer_gone");
    }

    let living: Vec<&Arc<Node>> = match htlc {
        Htlc::Held => vec![lsp, payer],
        _ => vec![lsp, payer, wallet],
    };
    // A wallet that was not told of the close goes on for now; one that hung up has no reason to come back.
    if htlc == Htlc::Forwarded && !closer.upstream() {
        until("both know", || {
            with(wallet, lsp).is_empty() && with(lsp, wallet).is_empty()
        })
        .await;
    }
    stage.world.mine_home(&living).await;
    let paid = outcome(payer, &stage.hash).await;
    // What was forwarded and not claimed when its channel closed is not claimed any more: the wallet would take the
    // chain's word for a payment while its funding may still be another's.
    let succeeds = match htlc {
        Htlc::Held => false,
        Htlc::Forwarded => closer.upstream(),
        Htlc::Claimed | Htlc::Settling => true,
    };
    let expected = if succeeds {
        PaymentStatus::Succeeded
    } else {
        PaymentStatus::Failed
    };
    assert_eq!(paid.status, expected, "{paid:?}");
    let received = match htlc {
        Htlc::Held => Vec::new(),
        _ => events(wallet, "payment_received").await,
    };
    assert_eq!(received.len(), usize::from(succeeds), "{received:?}");

    until("no HTLC is left", || {
        living.iter().all(|node| room(node, lsp).is_some()) && room(lsp, payer).is_some()
    })
    .await;
    let blocks = stage.world.blocks().await;
    let commitment = blocks.spender(funding).unwrap();
    let fee = blocks.fee(commitment);
    let of = |node: &Node| share(&blocks, commitment, node);
    let (gross, net) = if succeeds {
        (SIZE / 1_000, (SIZE - FEE) / 1_000)
    } else {
        (0, 0)
    };
    if closer.upstream() {
        assert_eq!(of(lsp), gross);
        assert_eq!(of(payer), value - gross - fee - 2 * ANCHOR);
    } else {
        assert_eq!(of(wallet), net);
        assert_eq!(of(lsp), value - net - fee - 2 * ANCHOR);
    }
    let left = blocks.unspent(commitment);
    let is_anchor = |o: &OutPoint| commitment.output[o.vout as usize].value.to_sat() == ANCHOR;
    assert!(left.iter().all(is_anchor), "{left:?}");
    let fees: u64 = blocks
        .after(stage.height)
        .iter()
        .map(|tx| blocks.fee(tx))
        .sum();
    let left = ANCHOR * left.len() as u64;
    until("nothing else is gone", || {
        let all = total(&[lsp, payer, wallet]);
        // The wallet's own channel is the LSP's money until it closes.
        all == stage.coins - fees - left
    })
    .await;
    assert_eq!(lsp.parts.wallet.locked(), [] as [u128; 0]);
    let opened = u64::from(htlc != Htlc::Held);
    let opens = count(lsp, ["channel_opened", "order_paid"]).await;
    assert_eq!(opens, [opened as usize, usize::from(succeeds)]);
    finish(living).await;
}

/// A channel that closes between our forward and LDK's takes the part along; LDK names it by the channel's alias alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_whose_channel_closes_before_it_is_there_has_failed() {
    let Some(world) = World::start().await else {
        return;
    };
    let fault = Some(Fault::ClosesAtForward);
    let [lsp, payer, wallet] = world.sale(json!({}), fault, None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    assert_failed(&pay(&payer, &bought.bolt11).await);
    until("nothing is bound any more", || {
        lsp.lsp.as_ref().unwrap().orders().is_empty()
    })
    .await;
    let rows = count(&lsp, ["channel_opened", "client_scored", "order_paid"]).await;
    assert_eq!(rows, [1, 1, 0]);
    finish([&wallet, &payer, &lsp]).await;
}

macro_rules! closes {
    ($($name:ident: $htlc:ident, $closer:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            is_resolved(Htlc::$htlc, Closer::$closer).await;
        }
    )*};
}

closes! {
    held_and_the_payer_closes: Held, Payer;
    held_and_the_lsp_closes: Held, LspUpstream;
    forwarded_and_the_payer_closes: Forwarded, Payer;
    forwarded_and_the_lsp_closes_upstream: Forwarded, LspUpstream;
    forwarded_and_the_lsp_closes_downstream: Forwarded, LspDownstream;
    forwarded_and_the_wallet_closes: Forwarded, Wallet;
    claimed_and_the_lsp_closes_downstream: Claimed, LspDownstream;
    claimed_and_the_wallet_closes: Claimed, Wallet;
    settling_and_the_payer_closes: Settling, Payer;
    settling_and_the_lsp_closes_upstream: Settling, LspUpstream;
}

/// A wallet has no coin to pay more with than its commitment transaction pays itself, and that must do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_without_coins_closes_when_fees_have_risen() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let payer = world.node("payer", json!({}), None).await;
    let mut settings = on_disk(buys_from(&lsp, json!({})));
    let wallet = world.node("wallet", settings.clone(), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, PAYER_SAT).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded);
    until("no HTLC is left", || room(&wallet, &lsp).is_some()).await;
    world.mine(6, &[&lsp, &payer, &wallet]).await;
    let channel = with(&wallet, &lsp).remove(0);
    let funding = channel.funding_txo.unwrap().into_bitcoin_outpoint();
    assert_eq!(coins_sat(&wallet), 0);

    finish([&lsp]).await;
    wallet.stop().await.unwrap();
    let high = 5 * channel.feerate_sat_per_1000_weight.unwrap();
    settings["fee_fallback_sat_per_kw"] = high.into();
    let wallet = world.node("wallet", settings, None).await;
    let channel = ChannelId(channel.channel_id.0);
    wallet.close_channel(&channel, true, None).await.unwrap();
    world.comes_to_be_spent(funding).await;
    assert_eq!(world.mempool().await.len(), 1, "without a child");
    world.mine_home(&[&wallet]).await;
    assert!(coins_sat(&wallet) > 0);
    finish([&payer, &wallet]).await;
}
