//! Blocks that go, transactions that are forgotten, and an LSP that spends its funding twice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, Transaction, TxOut};
use ldkjit_core::ids::ChannelId;
use ldkjit_node::chain::SendOutcome;
use ldkjit_node::node::Node;
use ldkjit_node::overdue::OVERDUE_BLOCKS;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

use crate::common::chain::ANCHOR;
use crate::common::{
    address, buys_from, coins_sat, event, events, finish, id, jit_invoice, on_disk, order, pay,
    room, service, until, with, World, PATIENCE,
};

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
const PAYER_SAT: u64 = 1_000_000;

/// A channel that was bought and paid for, its funding in the mempool.
struct Sold {
    world: World,
    lsp: Arc<Node>,
    payer: Arc<Node>,
    wallet: Arc<Node>,
    service: Value,
    buyer: Value,
    funding: OutPoint,
    /// The LSP's coins before, sat, and the height.
    coins: u64,
    height: u32,
}

impl Sold {
    async fn set() -> Option<Self> {
        let world = World::start().await?;
        let service = on_disk(service("lsp_trusts_client", json!({})));
        let lsp = world.node("lsp", service.clone(), None).await;
        let payer = world.node("payer", json!({}), None).await;
        let buyer = on_disk(buys_from(&lsp, json!({})));
        let wallet = world.node("wallet", buyer.clone(), None).await;
        world.fund(&[&lsp, &payer]).await;
        world.channel(&payer, &lsp, PAYER_SAT).await;
        world.mine(6, &[&lsp, &payer, &wallet]).await;
        let dialled = payer
            .dial_and_keep(id(&lsp), &address(&lsp), PATIENCE)
            .await;
        dialled.unwrap();
        let (coins, height) = (coins_sat(&lsp), lsp.height());
        let bought = jit_invoice(&wallet, Some(SIZE)).await;
        let paid = pay(&payer, &bought.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        event(&wallet, "payment_received").await;
        until("no HTLC is left", || {
            room(&wallet, &lsp).is_some() && room(&payer, &lsp).is_some()
        })
        .await;
        let funding = with(&wallet, &lsp)[0].funding_txo.unwrap();
        Some(Self {
            world,
            lsp,
            payer,
            wallet,
            service,
            buyer,
            funding: funding.into_bitcoin_outpoint(),
            coins,
            height,
        })
    }

    fn all(&self) -> [&Arc<Node>; 3] {
        [&self.lsp, &self.payer, &self.wallet]
    }

    fn funding_txid(&self) -> String {
        self.funding.txid.to_string()
    }

    async fn in_mempool(&self) -> bool {
        self.world.mempool().await.contains(&self.funding_txid())
    }

    async fn restart_lsp(&mut self) {
        self.lsp = self.world.restarted(&self.lsp, self.service.clone()).await;
    }

    /// Keeps the wallet's folder as it is, and goes on.
    async fn keep_wallet(&mut self) {
        self.wallet.stop().await.unwrap();
        let folder = &self.wallet.config.data_dir;
        copy(folder, &folder.with_extension("before"));
        self.start_wallet().await;
        until("both can use it", || {
            with(&self.wallet, &self.lsp)[0].is_usable && with(&self.lsp, &self.wallet)[0].is_usable
        })
        .await;
    }

    /// The wallet loses what came since.
    async fn set_wallet_back(&mut self) {
        self.wallet.stop().await.unwrap();
        let folder = &self.wallet.config.data_dir;
        std::fs::remove_dir_all(folder).unwrap();
        copy(&folder.with_extension("before"), folder);
        self.start_wallet().await;
    }

    /// The channel is ten blocks deep, and the wallet closes it by force while the LSP, which would publish its own
    /// commitment transaction, is away.
    async fn wallet_closes_alone(&self) -> ChannelId {
        self.world.mine(10, &self.all()).await;
        let channel = ChannelId(with(&self.wallet, &self.lsp)[0].channel_id.0);
        self.lsp.stop().await.unwrap();
        self.wallet
            .close_channel(&channel, true, None)
            .await
            .unwrap();
        channel
    }

    /// Another spend of the coins of the funding, back to the LSP.
    fn theft(&self) -> Transaction {
        let purse = &self.lsp.parts.wallet;
        let open = with(&self.lsp, &self.wallet)[0].user_channel_id;
        let funding = purse.funding(open).unwrap();
        let home = funding.output.iter().find(|o| !o.script_pubkey.is_p2wsh());
        let home = home.unwrap().script_pubkey.clone();
        let place = usize::try_from(self.funding.vout).unwrap();
        let value = Amount::from_sat(SIZE / 1_000);
        let (theft, _) = purse.replace_output(&funding, place, home, value).unwrap();
        assert_ne!(theft.compute_txid(), funding.compute_txid());
        theft
    }

    /// Blocks with nothing in them.
    async fn empty_blocks(&self, count: u32, nodes: &[&Arc<Node>]) {
        for _ in 0..count {
            self.world.mine_exactly(&[]).await;
        }
        self.world.in_step(nodes).await;
    }

    async fn start_wallet(&mut self) {
        self.wallet = self.world.node("wallet", self.buyer.clone(), None).await;
    }

    /// All is home: the wallet has what it was paid less what its sweep cost, the LSP the rest, to the satoshi.
    async fn is_paid_out(&self) {
        let (lsp, wallet) = (&self.lsp, &self.wallet);
        let blocks = self.world.blocks().await;
        let commitment = blocks.spender(self.funding).unwrap();
        let net = (SIZE - FEE) / 1_000;
        let to_wallet = commitment
            .output
            .iter()
            .filter(|o| o.value == Amount::from_sat(net));
        assert_eq!(to_wallet.count(), 1, "{commitment:?}");
        let txs = blocks.after(self.height);
        let fees: u64 = txs.iter().map(|tx| blocks.fee(tx)).sum();
        let left = blocks.unspent(commitment);
        assert!(left
            .iter()
            .all(|o| commitment.output[o.vout as usize].value.to_sat() == ANCHOR));
        let left = ANCHOR * left.len() as u64;
        self.world
            .have(&[lsp, wallet], self.coins - fees - left)
            .await;
        // The wallet paid for nothing but the sweep of what was its own.
        let swept = |tx: &&Transaction| {
            tx.input.iter().any(|input| {
                let from = input.previous_output;
                from.txid == commitment.compute_txid()
                    && commitment.output[from.vout as usize].value.to_sat() == net
            })
        };
        let sweep = txs.iter().copied().find(swept).unwrap();
        assert_eq!(sweep.input.len(), 1);
        assert_eq!(coins_sat(wallet), net - blocks.fee(sweep));
        assert_eq!(lsp.parts.wallet.locked(), [] as [u128; 0]);
    }

    async fn stop(self) {
        finish([&self.wallet, &self.payer, &self.lsp]).await;
    }
}

/// LDK closes the channel at both ends as the block goes, even if the next one has the funding again. The wallet gets
/// what it was paid, the LSP the rest, to the satoshi, and the channel with the payer stays.
async fn goes_and_all_is_paid_out(depth: u32, with_all: bool) {
    let Some(sold) = Sold::set().await else {
        return;
    };
    let (lsp, wallet) = (&sold.lsp, &sold.wallet);
    sold.world.mine(depth, &sold.all()).await;
    until("both count the confirmations", || {
        with(wallet, lsp)[0].confirmations == Some(depth)
            && with(lsp, wallet)[0].confirmations == Some(depth)
    })
    .await;

    sold.world.reorganise(depth, with_all, &sold.all()).await;
    for node in [lsp, wallet] {
        let closed = event(node, "channel_closed").await;
        let why = closed["reason"].as_str().unwrap();
        assert!(
            why.contains("Funding transaction was un-confirmed"),
            "{why}"
        );
    }
    assert!(lsp.lsp.as_ref().unwrap().orders().is_empty(), "it is over");
    assert_eq!(with(lsp, &sold.payer).len(), 1);
    sold.world.mine_home(&[lsp, wallet]).await;
    sold.is_paid_out().await;
    // What both had with others goes on.
    until("the channel with the payer is usable", || {
        with(lsp, &sold.payer)[0].is_usable
    })
    .await;
    sold.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jit_funding_leaves_the_chain_by_one_block() {
    goes_and_all_is_paid_out(1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jit_funding_leaves_the_chain_by_six_blocks() {
    goes_and_all_is_paid_out(6, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jit_funding_moves_from_one_block_to_another() {
    goes_and_all_is_paid_out(1, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reorganisation_above_the_funding_costs_no_channel() {
    let Some(sold) = Sold::set().await else {
        return;
    };
    let (lsp, wallet) = (&sold.lsp, &sold.wallet);
    sold.world.mine(7, &sold.all()).await;
    sold.world.reorganise(6, false, &sold.all()).await;
    until("both count the confirmations", || {
        with(wallet, lsp)[0].confirmations == Some(8)
            && with(lsp, wallet)[0].confirmations == Some(8)
    })
    .await;
    assert!(events(lsp, "channel_closed").await.is_empty());
    assert!(events(wallet, "channel_closed").await.is_empty());
    sold.stop().await;
}

/// The wallet's sweep is six blocks deep, and in none of those that take their place. Gives what it spends, and its fee.
async fn a_sweep_is_gone() -> Option<(Sold, OutPoint, u64)> {
    let mut sold = Sold::set().await?;
    // The wallet, which would publish its own commitment transaction, is away.
    sold.world.mine(10, &sold.all()).await;
    let channel = ChannelId(with(&sold.lsp, &sold.wallet)[0].channel_id.0);
    sold.wallet.stop().await.unwrap();
    let why = Some("a test");
    sold.lsp.close_channel(&channel, true, why).await.unwrap();
    sold.world.comes_to_be_spent(sold.funding).await;
    sold.world.mine(6, &[&sold.lsp, &sold.payer]).await;
    sold.start_wallet().await;
    let net = (SIZE - FEE) / 1_000;
    let ours = {
        let blocks = sold.world.blocks().await;
        let commitment = blocks.spender(sold.funding).unwrap();
        let is_ours = |o: &TxOut| o.value == Amount::from_sat(net);
        let vout = commitment.output.iter().position(is_ours).unwrap();
        OutPoint::new(commitment.compute_txid(), vout as u32)
    };
    let sweep = sold.world.comes_to_be_spent(ours).await;
    sold.world.mine(6, &sold.all()).await;
    let fee = {
        let blocks = sold.world.blocks().await;
        let confirmed = blocks.spender(ours).unwrap();
        assert_eq!(confirmed.compute_txid(), sweep);
        blocks.fee(confirmed)
    };
    assert_eq!(counted(&sold.wallet), (net - fee, 0));
    assert!(sold.wallet.ledger_check().await.unwrap().verdict.ok);

    sold.world.reorganise(6, false, &sold.all()).await;
    assert!(sold.world.blocks().await.spender(ours).is_none());
    Some((sold, ours, fee))
}

/// A wallet's coins in blocks, and what is on its way to it, sat.
fn counted(wallet: &Node) -> (u64, u64) {
    let balances = wallet.balances();
    let sat = |value: &Value| value.as_u64().unwrap();
    let confirmed = &balances["onchain"]["confirmed_sat"];
    (sat(confirmed), sat(&balances["pending_sweep_sat"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_left_the_chain_is_counted_once() {
    let Some((sold, _, fee)) = a_sweep_is_gone().await else {
        return;
    };
    let net = (SIZE - FEE) / 1_000;
    until("it is counted once", || {
        match (coins_sat(&sold.wallet), counted(&sold.wallet)) {
            (0, (0, pending)) => pending == net,
            (coins, (0, 0)) => coins == net - fee,
            _ => false,
        }
    })
    .await;
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    sold.stop().await;
}

/// It comes home all the same, whether the mempool still has it or the node must send it again.
async fn a_sweep_comes_back(forgotten: bool) {
    let Some((mut sold, ours, _)) = a_sweep_is_gone().await else {
        return;
    };
    if forgotten {
        forget(&mut sold).await;
        sold.empty_blocks(1, &sold.all()).await;
    }
    sold.world.comes_to_be_spent(ours).await;
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    sold.is_paid_out().await;
    sold.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_leaves_the_chain_by_six_blocks() {
    a_sweep_comes_back(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_leaves_the_chain_and_the_mempool() {
    a_sweep_comes_back(true).await;
}

/// Before it is in a block: a bitcoind that crashed knows nothing of it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_the_mempool_forgot_is_sent_again() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    assert!(sold.in_mempool().await);
    forget(&mut sold).await;
    assert!(!sold.in_mempool().await);
    // The next block is when everything is looked at again.
    sold.world.mine(1, &sold.all()).await;
    sold.world.in_mempool(&sold.funding_txid()).await;

    // By a new run of the LSP too, at once.
    forget(&mut sold).await;
    assert!(!sold.in_mempool().await);
    sold.restart_lsp().await;
    sold.world.in_mempool(&sold.funding_txid()).await;

    sold.world.mine(6, &sold.all()).await;
    until("it is confirmed", || {
        with(&sold.wallet, &sold.lsp)[0].confirmations == Some(6)
            && order(&sold.lsp)["open"]["depth"] == 6
    })
    .await;
    assert_eq!(
        sold.wallet.balances()["lightning"]["depends_on_lsp_msat"],
        0
    );
    sold.stop().await;
}

/// LDK takes the blocks that it closed a channel in for those that made the channel, and forgets what it published; a
/// bitcoind that crashed then knows nothing of it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_close_that_chain_and_mempool_forgot_is_sent_again() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    sold.wallet_closes_alone().await;
    event(&sold.wallet, "channel_closed").await;
    let ours = spender(&sold).await;
    sold.world.in_mempool(&ours).await;
    sold.world.mine(1, &[&sold.wallet]).await;
    sold.world.reorganise(2, false, &[&sold.wallet]).await;
    forget(&mut sold).await;
    assert_eq!(sold.world.mempool().await, [] as [String; 0]);
    sold.world.mine(2, &[&sold.wallet]).await;
    sold.world.in_mempool(&ours).await;

    sold.restart_lsp().await;
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    assert!(coins_sat(&sold.wallet) > (SIZE - FEE) / 1_000 - 10_000);
    sold.stop().await;
}

/// The same when it is the reorganisation that closes the channel, and the LSP starts anew: the wallet never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_by_reorganisation_survives_a_restart() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    sold.world.mine(2, &sold.all()).await;
    sold.wallet.stop().await.unwrap();
    sold.world
        .reorganise(2, false, &[&sold.lsp, &sold.payer])
        .await;
    event(&sold.lsp, "channel_closed").await;
    sold.lsp.stop().await.unwrap();
    forget(&mut sold).await;
    sold.restart_lsp().await;
    sold.world.mine_home(&[&sold.lsp]).await;
    let blocks = sold.world.blocks().await;
    assert!(blocks.spender(sold.funding).is_some());
    finish([&sold.payer, &sold.lsp]).await;
}

/// The transaction that spends the channel and waits for its block.
async fn spender(sold: &Sold) -> String {
    let txid = sold.world.comes_to_be_spent(sold.funding).await;
    txid.to_string()
}

/// A bitcoind that crashes and comes back with its blocks alone.
async fn forget(sold: &mut Sold) {
    let chain = sold.world.chain.clone();
    let running = &mut sold.world.running;
    running.dies(&chain).await;
    running.back(&chain, &["-persistmempool=0"]).await;
}

/// Both agreed to close, and the chain does not know yet: a restart neither forces the close nor forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_an_agreed_close_and_its_confirmation() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    sold.world.mine(1, &sold.all()).await;
    let channel = ChannelId(with(&sold.wallet, &sold.lsp)[0].channel_id.0);
    sold.wallet
        .close_channel(&channel, false, None)
        .await
        .unwrap();
    event(&sold.lsp, "channel_closed").await;
    event(&sold.wallet, "channel_closed").await;
    let closing = sold.world.comes_to_be_spent(sold.funding).await;

    sold.restart_lsp().await;
    sold.empty_blocks(1, &sold.all()).await;
    let now = sold.world.unconfirmed_spender(sold.funding).await;
    assert_eq!(now, Some(closing));
    // Even where nothing else stands in its way.
    let chain = sold.world.chain.clone();
    sold.wallet.stop().await.unwrap();
    sold.lsp.stop().await.unwrap();
    sold.world.running.dies(&chain).await;
    sold.world
        .running
        .back(&chain, &["-persistmempool=0"])
        .await;
    sold.restart_lsp().await;
    sold.world.in_mempool(&closing.to_string()).await;
    sold.world.mine(6, &[&sold.lsp, &sold.payer]).await;
    let blocks = sold.world.blocks().await;
    let closed = blocks.spender(sold.funding).unwrap();
    assert_eq!(closed.compute_txid(), closing);
    let net = Amount::from_sat((SIZE - FEE) / 1_000);
    assert!(closed.output.iter().any(|o| o.value == net), "{closed:?}");
    sold.lsp.stop().await.unwrap();
    sold.payer.stop().await.unwrap();
}

/// Both agreed to close, and one of them lost power before that was durable: it has the channel again, the other has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreed_close_that_one_side_has_lost() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    sold.world.mine(1, &sold.all()).await;
    let channel = ChannelId(with(&sold.wallet, &sold.lsp)[0].channel_id.0);
    sold.keep_wallet().await;
    sold.wallet
        .close_channel(&channel, false, None)
        .await
        .unwrap();
    event(&sold.lsp, "channel_closed").await;
    let closing = spender(&sold).await;
    sold.set_wallet_back().await;
    // It is lost, and the LSP knows no such channel.
    let why = event(&sold.wallet, "channel_closed").await;
    let why = why["reason"].as_str().unwrap();
    assert!(why.contains("channel_reestablish"), "{why}");
    until("what would force it is given up", || {
        let pending = sold.wallet.parts.broadcaster.pending();
        let mut sent = pending.iter().map(|(txid, _)| txid.to_string());
        sold.wallet.closings.agreed(&sold.funding) && sent.all(|txid| txid == closing)
    })
    .await;
    assert_eq!(spender(&sold).await, closing);
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    let blocks = sold.world.blocks().await;
    let closed = blocks.spender(sold.funding).unwrap();
    assert_eq!(closed.compute_txid().to_string(), closing);
    sold.world.have(&[&sold.wallet], (SIZE - FEE) / 1_000).await;
    sold.stop().await;
}

/// The same where no mempool takes the closing transaction for now: who has lost the close hears nothing before one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreed_close_that_one_side_has_lost_and_no_mempool_has() {
    a_lost_close(false).await;
}

/// The same where the mempool had it and has forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreed_close_that_one_side_has_lost_and_then_the_mempool() {
    a_lost_close(true).await;
}

async fn a_lost_close(taken_first: bool) {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    sold.world.mine(1, &sold.all()).await;
    let channel = ChannelId(with(&sold.wallet, &sold.lsp)[0].channel_id.0);
    sold.keep_wallet().await;
    let chain = sold.world.chain.clone();
    let dear = ["-persistmempool=0", "-minrelaytxfee=0.01"];
    if !taken_first {
        sold.world.running.dies(&chain).await;
        sold.world.running.back(&chain, &dear).await;
    }
    sold.wallet
        .close_channel(&channel, false, None)
        .await
        .unwrap();
    event(&sold.lsp, "channel_closed").await;
    if taken_first {
        let taken = spender(&sold).await;
        until("the LSP knows that it was taken", || {
            let pending = sold.lsp.parts.broadcaster.pending();
            let accepted = Some(SendOutcome::Accepted);
            let mut closings = pending.iter().filter(|(txid, _)| txid.to_string() == taken);
            closings.any(|(_, last)| *last == accepted)
        })
        .await;
        sold.world.running.dies(&chain).await;
        sold.world.running.back(&chain, &dear).await;
    }
    sold.set_wallet_back().await;
    let lsp = id(&sold.lsp);
    until("the wallet is back", || sold.wallet.is_connected(&lsp)).await;
    sold.world.running.dies(&chain).await;
    let cheap = ["-minrelaytxfee=0.00001"];
    sold.world.running.back(&chain, &cheap).await;
    sold.world.mine(1, &sold.all()).await;
    let closing = spender(&sold).await;
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    let blocks = sold.world.blocks().await;
    let closed = blocks.spender(sold.funding).unwrap();
    assert_eq!(closed.compute_txid().to_string(), closing);
    assert_ne!(closed.lock_time.to_consensus_u32() >> 24, 0x20, "by force");
    let why = event(&sold.wallet, "channel_closed").await;
    let why = why["reason"].as_str().unwrap();
    assert!(!why.contains("channel_reestablish"), "{why}");
    sold.world.have(&[&sold.wallet], (SIZE - FEE) / 1_000).await;
    sold.stop().await;
}

/// Six blocks go that had the wallet's commitment transaction, and others come with the LSP's: what was to be swept of the
/// first is no more, and what else there is comes home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_is_gone_keeps_no_other_back() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    // Each of them alone, so that there are two.
    let channel = sold.wallet_closes_alone().await;
    let (theirs_id, theirs) = in_full(&sold).await;
    sold.wallet.stop().await.unwrap();
    forget(&mut sold).await;
    sold.restart_lsp().await;
    let why = Some("a test");
    sold.lsp.close_channel(&channel, true, why).await.unwrap();
    let (ours_id, ours) = in_full(&sold).await;
    assert_ne!(theirs_id, ours_id);

    sold.world.mine_exactly(&[theirs]).await;
    sold.empty_blocks(5, &[&sold.lsp]).await;
    let swept = async {
        let vouts = 0..4_u32;
        let all: Vec<_> = vouts
            .map(|vout| OutPoint::new(theirs_id.parse().unwrap(), vout))
            .collect();
        loop {
            let spenders = sold.world.chain.spenders(&all).await.unwrap_or_default();
            if spenders.iter().any(Option::is_some) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.unwrap();

    sold.world.undo(6).await;
    sold.world.mine_exactly(&[ours]).await;
    sold.empty_blocks(6, &[&sold.lsp]).await;
    assert_eq!(sold.lsp.balances()["pending_sweep_sat"], 0, "it is no more");
    sold.start_wallet().await;
    sold.world.mine_home(&[&sold.lsp, &sold.wallet]).await;
    let blocks = sold.world.blocks().await;
    let commitment = blocks.spender(sold.funding).unwrap();
    assert_eq!(commitment.compute_txid().to_string(), ours_id);
    let left = blocks.unspent(commitment);
    assert!(left
        .iter()
        .all(|o| commitment.output[o.vout as usize].value.to_sat() == ANCHOR));
    let fees: u64 = blocks
        .after(sold.height)
        .iter()
        .map(|tx| blocks.fee(tx))
        .sum();
    let home = sold.coins - fees - ANCHOR * left.len() as u64;
    sold.world.have(&[&sold.lsp, &sold.wallet], home).await;
    sold.stop().await;
}

/// The transaction that spends the channel: its id, and all of it.
async fn in_full(sold: &Sold) -> (String, String) {
    let txid = spender(sold).await;
    let raw = sold.world.raw(&txid.parse().unwrap()).await;
    (txid, raw.as_str().unwrap().to_owned())
}

/// A node's folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Blocks come, and none has it: told once a day, and the channel stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_does_not_confirm_is_told() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    let channel = with(&sold.lsp, &sold.wallet)[0].channel_id.to_string();
    // Counted from the first block without it.
    for blocks in [1, OVERDUE_BLOCKS - 1] {
        sold.empty_blocks(blocks, &sold.all()).await;
    }
    let quiet = "funding_unconfirmed";
    assert!(events(&sold.lsp, quiet).await.is_empty());
    assert!(events(&sold.wallet, quiet).await.is_empty());
    // A restart forgets nothing of it.
    sold.restart_lsp().await;
    sold.empty_blocks(1, &sold.all()).await;
    for node in [&sold.lsp, &sold.wallet] {
        let told = event(node, quiet).await;
        assert_eq!(told["channel_id"], channel);
        assert_eq!(told["funding"], sold.funding.to_string());
        assert_eq!(told["blocks"], OVERDUE_BLOCKS);
    }
    assert!(sold.in_mempool().await);
    sold.world.mine(1, &sold.all()).await;
    sold.empty_blocks(OVERDUE_BLOCKS + 1, &sold.all()).await;
    assert_eq!(events(&sold.lsp, quiet).await.len(), 1);
    assert_eq!(events(&sold.wallet, quiet).await.len(), 1);
    sold.stop().await;
}

/// The wallet saw the funding and gave up the preimage; then a miner takes another spend of the same coins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_spends_its_funding_twice() {
    let Some(sold) = Sold::set().await else {
        return;
    };
    let (lsp, wallet) = (&sold.lsp, &sold.wallet);
    let reserve = with(wallet, lsp)[0].unspendable_punishment_reserve.unwrap() * 1_000;
    let depends = || wallet.balances()["lightning"]["depends_on_lsp_msat"].clone();
    assert_eq!(depends(), SIZE - FEE - reserve);

    let theft = sold.theft();
    sold.world.mine_exactly(&[serialize_hex(&theft)]).await;
    sold.world.in_step(&sold.all()).await;

    let told = event(wallet, "funding_conflict").await;
    assert_eq!(told["funding"], sold.funding.to_string());
    assert_eq!(told["conflicting_txid"], theft.compute_txid().to_string());
    // It is not the wallet's, and is not shown as if it were.
    assert_eq!(depends(), SIZE - FEE - reserve);
    let onchain = &wallet.balances()["onchain"];
    assert_eq!(onchain["confirmed_sat"], 0);
    sold.stop().await;
}

/// The same while the wallet is away, and with blocks on top: it is told when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_spends_its_funding_twice_while_the_wallet_is_away() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    let theft = sold.theft();
    sold.wallet.stop().await.unwrap();
    sold.world.mine_exactly(&[serialize_hex(&theft)]).await;
    sold.empty_blocks(3, &[&sold.lsp, &sold.payer]).await;
    sold.start_wallet().await;
    let told = event(&sold.wallet, "funding_conflict").await;
    assert_eq!(told["funding"], sold.funding.to_string());
    assert_eq!(told["conflicting_txid"], theft.compute_txid().to_string());
    sold.stop().await;
}

/// No mempool has it any more, no block, and nothing else spends its coins: told after three blocks, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_is_nowhere_is_told() {
    let Some(mut sold) = Sold::set().await else {
        return;
    };
    // It would send it again.
    sold.lsp.stop().await.unwrap();
    forget(&mut sold).await;
    let rest = [&sold.payer, &sold.wallet];
    let since = sold.wallet.height();
    sold.empty_blocks(2, &rest).await;
    assert!(events(&sold.wallet, "funding_unconfirmed").await.is_empty());
    sold.empty_blocks(1, &rest).await;
    let told = event(&sold.wallet, "funding_unconfirmed").await;
    assert_eq!(told["funding"], sold.funding.to_string());
    assert_eq!(told["blocks"], sold.wallet.height() - since);
    sold.wallet.stop().await.unwrap();
    sold.start_wallet().await;
    sold.empty_blocks(2, &[&sold.payer, &sold.wallet]).await;
    assert_eq!(events(&sold.wallet, "funding_unconfirmed").await.len(), 1);
    finish([&sold.wallet, &sold.payer]).await;
}

/// The payment whose coin a sale was funded with leaves the chain for another one: the funding can never be, and is
/// forgotten once its channel is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_whose_coin_was_spent_twice_is_forgotten() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut careless = service("lsp_trusts_client", json!({}));
    careless["lsp"]["lending"] = json!({"coin_confirmations": 1});
    let lsp = world.node("lsp", careless, None).await;
    let buyer = buys_from(&lsp, json!({}));
    let [payer, wallet] = world.customers(&lsp, buyer, None).await;
    let all = [&lsp, &payer, &wallet];
    world.mine(6, &all).await;
    let coins = coins_sat(&lsp);
    let purse = &payer.parts.wallet;
    let address = lsp.parts.wallet.new_address().unwrap();
    let value = Amount::from_sat(300_000);
    let deposit = purse
        .send(&address.script_pubkey(), Some(value.to_sat()), 1_000)
        .unwrap();
    let place = deposit.output.iter().position(|o| o.value == value);
    let home = purse.new_address().unwrap().script_pubkey();
    let (theft, _) = purse
        .replace_output(&deposit, place.unwrap(), home, value)
        .unwrap();
    world.mine_exactly(&[serialize_hex(&deposit)]).await;
    world.in_step(&all).await;
    assert_eq!(coins_sat(&lsp), coins + value.to_sat());

    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    event(&wallet, "payment_received").await;
    let sold = with(&lsp, &wallet).remove(0);
    let funding = lsp.parts.wallet.funding(sold.user_channel_id).unwrap();
    assert_eq!(funding.input.len(), 1);
    assert_eq!(
        funding.input[0].previous_output.txid,
        deposit.compute_txid()
    );
    world.in_mempool(&funding.compute_txid().to_string()).await;

    world.undo(1).await;
    world.mine_exactly(&[serialize_hex(&theft)]).await;
    world.mine_exactly(&[]).await;
    world.in_step(&all).await;
    let conflict = |node: &Node| {
        let pending = node.parts.broadcaster.pending();
        let outcome = pending
            .iter()
            .find(|(txid, _)| *txid == funding.compute_txid());
        outcome.is_some_and(|(_, last)| matches!(last, Some(SendOutcome::Conflict(_))))
    };
    until("the funding is refused", || conflict(&lsp)).await;
    // As long as the channel lives, so does its funding: a miner may take the deposit after all.
    world.mine(14, &all).await;
    assert_eq!(lsp.parts.wallet.locked().len(), 1);

    let channel = ChannelId(sold.channel_id.0);
    wallet.close_channel(&channel, true, None).await.unwrap();
    event(&lsp, "channel_closed").await;
    world.mine(1, &all).await;
    until("its coins are free", || {
        lsp.parts.wallet.locked().is_empty()
    })
    .await;
    // One more was set aside for the fee of the channel's close, which cannot be either.
    let locked = || lsp.parts.wallet.balances().locked_sat;
    for _ in 0..40 {
        if locked() == 0 {
            break;
        }
        world.mine(1, &all).await;
    }
    assert_eq!((locked(), coins_sat(&lsp)), (0, coins));
    assert_eq!(lsp.parts.wallet.balances().confirmed_sat, coins);
    world.mine(2, &all).await;
    assert_eq!(locked(), 0, "LDK tries again, and no coin is taken for it");
    finish(all).await;
}
