//! A bitcoind that is behind, has deleted blocks, dies or asks for more than a commitment transaction pays.

use bitcoin::{
    absolute, transaction, Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxOut, Witness,
};
use ldkjit_core::ids::ChannelId;
use ldkjit_node::chain::bitcoind::Bitcoind;
use ldkjit_node::chain::{ChainFuture, ChainSource, SendOutcome};
use ldkjit_node::log::now_ms;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

use crate::common::bitcoind::Running;
use crate::common::chain::ANCHOR;
use crate::common::{
    alarm, coins_sat, events, finish, jit_invoice, nobody, on_disk, outcome, send, until, with,
    World,
};

const SIZE: u64 = 100_000_000;

/// The blocks of a bitcoind after the first, as hex.
async fn raw_blocks(chain: &Bitcoind) -> Vec<String> {
    let mut blocks = Vec::new();
    for height in 1..=chain.best_block().await.unwrap().height {
        let hash = chain.block_hash(height).await.unwrap().to_string();
        let block = chain.call("getblock", json!([hash, 0])).await.unwrap();
        blocks.push(block.as_str().unwrap().to_owned());
    }
    blocks
}

async fn refused(world: &World, more: Value) -> (String, Value) {
    let error = world.begin("node", more, |_| ()).await.err().unwrap();
    (error.code.to_owned(), error.details["why"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_still_downloads_the_chain_or_serves_another() {
    let (Some(world), Some((_other, far))) = (World::start().await, Running::start(&[]).await)
    else {
        return;
    };
    let mined = json!([10, nobody().to_string()]);
    far.call("generatetoaddress", mined).await.unwrap();
    let blocks = raw_blocks(&far).await;
    for block in &blocks {
        let header = json!([&block[..160]]);
        world.chain.call("submitheader", header).await.unwrap();
    }
    let behind = ("chain".to_owned(), json!("behind"));
    assert_eq!(refused(&world, json!({})).await, behind);
    // The same folder, once it is there.
    for block in &blocks {
        let block = json!([block]);
        world.chain.call("submitblock", block).await.unwrap();
    }
    let wrong = ("chain".to_owned(), json!("wrong_network"));
    let signet = json!({"network": "signet", "fee_fallback_sat_per_kw": null});
    assert_eq!(refused(&world, signet).await, wrong);
    let node = world.node("node", json!({}), None).await;
    assert_eq!(node.height(), 10);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_deleted_the_blocks_a_node_slept_through() {
    let Some(world) = World::with(&["-prune=1", "-fastprune=1"]).await else {
        return;
    };
    let node = world.node("node", on_disk(json!({})), None).await;
    world.mine(10, &[&node]).await;
    node.stop().await.unwrap();
    world.mine(1_200, &[]).await;
    let pruned = world.chain.call("pruneblockchain", json!([800])).await;
    assert!(pruned.unwrap().as_u64().unwrap() > 10);
    let why = ("chain".to_owned(), json!("pruned"));
    assert_eq!(refused(&world, on_disk(json!({}))).await, why);
    // A new node needs none of them.
    let new = world.node("new", json!({}), None).await;
    assert_eq!(new.height(), 1_210);
    new.stop().await.unwrap();
}

/// As one does that is out of disk. What it cannot say is waited for; what it forgot is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_under_a_payment_and_comes_back() {
    let Some(mut world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let chain = world.chain.clone();
    world.running.dies(&chain).await;
    for node in [&lsp, &payer, &wallet] {
        alarm(node, "chain", true).await;
    }

    let hash = send(&payer, &bought.bolt11, None).await;
    until("the wallet has it", || {
        wallet
            .timeline
            .of(&hash)
            .iter()
            .any(|s| s.stage == "claimable")
    })
    .await;
    assert_eq!(
        payer.payments.pending(&hash).unwrap().status,
        PaymentStatus::Pending
    );
    world.running.back(&chain, &[]).await;
    for node in [&lsp, &payer, &wallet] {
        alarm(node, "chain", false).await;
    }
    let paid = outcome(&payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    let funding = with(&wallet, &lsp)[0].funding_txo.unwrap().txid.to_string();
    world.in_mempool(&funding).await;
    world.mine(1, &[&lsp, &payer, &wallet]).await;
    until("it is confirmed", || {
        with(&wallet, &lsp)[0].confirmations == Some(1)
    })
    .await;
    for node in [&lsp, &payer, &wallet] {
        assert_eq!(events(node, "alarm").await.len(), 2, "each is told once");
    }
    finish([&wallet, &payer, &lsp]).await;
}

/// No block may be more than two hours ahead of the network's time: if one is, our clock is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_blocks_are_ahead_of_our_clock() {
    let Some(world) = World::start().await else {
        return;
    };
    let node = world.node("node", json!({}), None).await;
    let ahead = async |seconds: u64| {
        let now = json!([now_ms() / 1_000 + seconds]);
        world.chain.call("setmocktime", now).await.unwrap();
        world.mine(1, &[&node]).await;
    };
    // bitcoind judges by the median of eleven: one that is ahead of its own clock would let nothing follow.
    world.mine(20, &[&node]).await;
    ahead(7_100).await;
    assert!(events(&node, "alarm").await.is_empty(), "it may be so");
    ahead(7_300).await;
    alarm(&node, "clock", true).await;
    ahead(7_400).await;
    assert_eq!(events(&node, "alarm").await.len(), 1, "told once");
    ahead(0).await;
    alarm(&node, "clock", false).await;
    node.stop().await.unwrap();
}

/// A source of fees that knows one rate.
struct Steady;

impl ChainSource for Steady {
    fn estimate_fee(&self, _: u16) -> ChainFuture<'_, Option<u32>> {
        Box::pin(async { Ok(Some(1_000)) })
    }
    fn minimum_fee(&self) -> ChainFuture<'_, u32> {
        Box::pin(async { Ok(253) })
    }
    fn send<'a>(&'a self, _: &'a Transaction) -> ChainFuture<'a, SendOutcome> {
        unreachable!()
    }
    fn send_package<'a>(&'a self, _: &'a [Transaction]) -> ChainFuture<'a, SendOutcome> {
        unreachable!()
    }
    fn unconfirmed_spender<'a>(&'a self, _: &'a OutPoint) -> ChainFuture<'a, Option<Transaction>> {
        unreachable!()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_no_estimate_of_fees() {
    let Some(world) = World::start().await else {
        return;
    };
    let node = world
        .node("node", json!({"fee_fallback_sat_per_kw": null}), None)
        .await;
    assert_eq!(node.parts.fees.fresh().unwrap_err().code, "chain");
    alarm(&node, "fees", true).await;
    node.parts.fees.refresh(&Steady).await.unwrap();
    alarm(&node, "fees", false).await;
    node.stop().await.unwrap();
}

/// What anybody may spend.
fn open_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// More large transactions than this mempool holds, at eight satoshi a byte and more: the least of them have left it.
async fn crowd_out(world: &World, coins: u32) {
    let tip = world.chain.best_block().await.unwrap().height;
    for (n, height) in (1..=tip).take(coins as usize).enumerate() {
        let hash = world.chain.block_hash(height).await.unwrap();
        let coin = world.chain.block(&hash).await.unwrap().txdata.remove(0);
        let fee = 95_000 * (8 + n as u64);
        let crumb = TxOut {
            value: Amount::from_sat(400),
            script_pubkey: nobody().script_pubkey(),
        };
        let mut output = vec![crumb; 2_200];
        output[0].value = coin.output[0].value - Amount::from_sat(fee + 2_199 * 400);
        let mut witness = Witness::new();
        witness.push(open_script().as_bytes());
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(coin.compute_txid(), 0),
                sequence: Sequence::MAX,
                witness,
                ..TxIn::default()
            }],
            output,
        };
        let sent = world.chain.send(&tx).await.unwrap();
        assert_eq!(sent, SendOutcome::Accepted, "{n}");
    }
}

/// Fees rose after the last commitment transaction was signed: alone it is refused, with its child it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_a_commitment_transaction_only_with_its_child() {
    let Some(world) = World::with(&["-maxmempool=5"]).await else {
        return;
    };
    const COINS: u32 = 70;
    let anybody = Address::p2wsh(&open_script(), Network::Regtest).to_string();
    let mined = json!([COINS, anybody]);
    world.chain.call("generatetoaddress", mined).await.unwrap();
    let ann = world.node("ann", json!({}), None).await;
    let bob = world.node("bob", json!({}), None).await;
    world.fund(&[&ann, &bob]).await;
    let (before, height) = (coins_sat(&ann), ann.height());
    world.channel(&ann, &bob, 1_000_000).await;
    world.mine(6, &[&ann, &bob]).await;
    crowd_out(&world, COINS).await;
    for node in [&ann, &bob] {
        node.parts.fees.refresh(&*node.chain).await.unwrap();
    }
    let floor = world.chain.minimum_fee().await.unwrap();
    let paid = with(&ann, &bob)[0].feerate_sat_per_1000_weight.unwrap();
    assert!(paid < floor, "{paid} {floor}");

    let channel = with(&ann, &bob).remove(0);
    let funding = channel.funding_txo.unwrap().into_bitcoin_outpoint();
    let order = ChannelId(channel.channel_id.0);
    ann.close_channel(&order, true, None).await.unwrap();
    world.comes_to_be_spent(funding).await;
    world.mine_home(&[&ann, &bob]).await;

    let blocks = world.blocks().await;
    let commitment = blocks.spender(funding).unwrap();
    let rate = blocks.fee(commitment) * 1_000 / commitment.weight().to_wu();
    assert!(rate < u64::from(floor), "{rate} {floor}");
    let left = blocks.unspent(commitment);
    let is_anchor = |o: &OutPoint| commitment.output[o.vout as usize].value.to_sat() == ANCHOR;
    assert!(left.iter().all(is_anchor));
    let theirs = |tx: &&&Transaction| tx.output.len() < 1_000;
    let txs = blocks.after(height);
    let fees: u64 = txs.iter().filter(theirs).map(|tx| blocks.fee(tx)).sum();
    world
        .have(&[&ann], before - fees - ANCHOR * left.len() as u64)
        .await;
    finish([&ann, &bob]).await;
}
