//! The chain source, the wallet and the broadcaster against a real bitcoind: `BITCOIND_EXE` names it.
//!
//! Without that variable the test says that it did nothing, and fails in CI.

use crate::common::bitcoind::Running;
use bitcoin::hashes::Hash;
use bitcoin::{Network, ScriptBuf, WScriptHash};
use ldkjit_node::broadcast::Broadcaster;
use ldkjit_node::chain::bitcoind::{Bitcoind, BitcoindConfig};
use ldkjit_node::chain::{ChainError, ChainSource, SendOutcome};
use ldkjit_node::closings::Closings;
use ldkjit_node::commit::Committer;
use ldkjit_node::fees::{FeeConfig, Fees};
use ldkjit_node::keys::Seed;
use ldkjit_node::log::Log;
use ldkjit_node::store::MemoryStore;
use ldkjit_node::wallet::{Wallet, LOOKAHEAD};
use lightning_block_sync::init::synchronize_listeners;
use lightning_block_sync::poll::ChainPoller;
use lightning_block_sync::SpvClient;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

fn script(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([n; 32]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_bitcoind() {
    let Some((running, node)) = Running::start(&[]).await else {
        return;
    };

    // What is wrong is named.
    let wrong = BitcoindConfig {
        password: "x".into(),
        ..running.config.clone()
    };
    assert_eq!(
        Bitcoind::new(&wrong, Network::Regtest)
            .unwrap()
            .check()
            .await,
        Err(ChainError::Auth)
    );
    let other = Bitcoind::new(&running.config, Network::Signet)
        .unwrap()
        .check()
        .await;
    assert!(
        matches!(other, Err(ChainError::WrongNetwork { .. })),
        "{other:?}"
    );
    assert!(node.relays().await.unwrap());
    assert!(matches!(
        node.block_hash(999).await,
        Err(ChainError::Refused { code: -8, .. })
    ));

    // The wallet follows.
    let log = Log::silent();
    let (committer, journal, mut boot) =
        Committer::start(Box::new(MemoryStore::new()), log.clone()).unwrap();
    let seed = Seed::generate().unwrap();
    let wallet = Wallet::open(
        &seed,
        Network::Regtest,
        &[],
        LOOKAHEAD,
        journal.clone(),
        &mut boot,
        log.clone(),
    )
    .unwrap();
    let wallet = Arc::new(wallet);
    let address = wallet.new_address().unwrap().to_string();
    node.call("generatetoaddress", json!([103, address]))
        .await
        .unwrap();
    let mut cache = HashMap::new();
    let start = vec![(wallet.best_block().block_hash, &*wallet)];
    let tip = synchronize_listeners(node.clone(), Network::Regtest, &mut cache, start)
        .await
        .unwrap();
    assert_eq!(wallet.best_block().height, 103);
    let balances = wallet.balances();
    assert_eq!(balances.confirmed_sat, 4 * 5_000_000_000);
    assert_eq!(balances.immature_sat, 99 * 5_000_000_000);
    let poller = ChainPoller::new(node.clone(), Network::Regtest);
    let mut client = SpvClient::new(tip, poller, &mut cache, &*wallet);

    // Fees: no estimate on an empty chain, the fallback on regtest.
    let fees = Fees::new(FeeConfig::default());
    assert!(fees.refresh(&*node).await.is_err());
    let fees = Fees::new(FeeConfig {
        fallback: Some(1_000),
        ..FeeConfig::default()
    });
    assert_eq!(fees.refresh(&*node).await.unwrap().normal, 1_000);

    // A funding transaction is taken: signatures, fee and all.
    let seen = wallet.clone();
    let closings = Closings::load(Arc::new(journal), &boot.live, false).unwrap();
    let caster = Arc::new(Broadcaster::new(
        Arc::new(move |tx| seen.broadcasted(tx)),
        Arc::new(closings),
        log.clone(),
    ));
    let (c, n) = (caster.clone(), node.clone());
    let sender = tokio::spawn(async move { c.run(&*n).await });
    let funding = wallet.fund(7, &script(1), 100_000, 1_000).unwrap();
    let vout = funding
        .output
        .iter()
        .position(|output| output.script_pubkey == script(1))
        .unwrap();
    let outpoint = bitcoin::OutPoint {
        txid: funding.compute_txid(),
        vout: u32::try_from(vout).unwrap(),
    };
    assert_eq!(node.tx_out(&outpoint, true).await.unwrap(), None);
    assert_eq!(
        caster.broadcast(vec![funding.clone()]).await,
        Some(SendOutcome::Accepted)
    );
    let found = node.tx_out(&outpoint, true).await.unwrap().unwrap();
    assert_eq!(
        (found.output.value.to_sat(), found.confirmations),
        (100_000, 0)
    );
    assert_eq!(found.output.script_pubkey, script(1));
    assert_eq!(node.tx_out(&outpoint, false).await.unwrap(), None);
    let spent = funding.input[0].previous_output;
    assert_eq!(
        node.spenders(&[spent, outpoint]).await.unwrap(),
        vec![Some(funding.compute_txid()), None]
    );

    // Sent again: still there. A double spend is told apart.
    assert_eq!(node.send(&funding).await.unwrap(), SendOutcome::Accepted);
    wallet.unlock(7);
    let send = wallet
        .send(&script(2), Some(4 * 5_000_000_000 - 200_000), 1_000)
        .unwrap();
    assert_eq!(node.send(&send).await.unwrap(), SendOutcome::Accepted);
    let mut double = funding.clone();
    double.output[vout].value -= bitcoin::Amount::from_sat(1);
    let outcome = node.send(&double).await.unwrap();
    assert!(
        !matches!(outcome, SendOutcome::Accepted | SendOutcome::Confirmed),
        "{outcome:?}"
    );
    // A package of what is known already.
    let package = node
        .send_package(&[funding.clone(), send.clone()])
        .await
        .unwrap();
    assert_eq!(package, SendOutcome::Accepted);

    // Confirmed, then reorganised away, then confirmed again.
    let mined = node
        .call("generatetoaddress", json!([1, address]))
        .await
        .unwrap();
    client.poll_best_tip().await.unwrap();
    assert_eq!(wallet.confirmed_at(&funding.compute_txid()), Some(104));
    assert_eq!(node.send(&funding).await.unwrap(), SendOutcome::Confirmed);
    node.call("invalidateblock", json!([mined[0]]))
        .await
        .unwrap();
    node.call("generateblock", json!([address, []]))
        .await
        .unwrap();
    node.call("generateblock", json!([address, []]))
        .await
        .unwrap();
    client.poll_best_tip().await.unwrap();
    assert_eq!(wallet.best_block().height, 105);
    assert_eq!(wallet.confirmed_at(&funding.compute_txid()), None);
    node.call("generatetoaddress", json!([1, address]))
        .await
        .unwrap();
    client.poll_best_tip().await.unwrap();
    assert_eq!(wallet.confirmed_at(&funding.compute_txid()), Some(106));
    assert_eq!(wallet.confirmed_at(&send.compute_txid()), Some(106));
    assert_eq!(node.best_block().await.unwrap(), wallet.best_block());

    // Everything goes out.
    let all = wallet.send(&script(3), None, 500).unwrap();
    assert_eq!(node.send(&all).await.unwrap(), SendOutcome::Accepted);
    sender.abort();
    committer.shutdown().await.unwrap();
}
