//! Peers that dial and have no business: more than LDK lets in, more than we let in, and those that never say who they are.

use std::sync::Arc;

use crate::common::raw::Raw;
use crate::common::{
    event, finish, id, jit_invoice, order_state, pay, service, until, with, World, PATIENCE,
};
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};
use tokio::io::AsyncReadExt;

const SIZE: u64 = 100_000_000;
/// LDK takes in 250.
const MANY: u32 = 400;

/// An LSP that takes in as many strangers as these limits say.
async fn lsp(world: &World, limits: Value) -> Arc<Node> {
    let mut settings = service("lsp_trusts_client", json!({}));
    settings["peer_limits"] = limits;
    world.node("lsp", settings, None).await
}

fn turned_away(lsp: &Node, why: &str) -> u64 {
    lsp.status()["turned_away"][why].as_u64().unwrap_or(0)
}

/// Peers that connect all at once, and whether each was taken in.
async fn all_at_once(peers: Vec<Raw>) -> Vec<(Raw, bool)> {
    let dialling: Vec<_> = peers
        .into_iter()
        .map(|peer| {
            tokio::spawn(async {
                let taken_in = peer.connect().await;
                (peer, taken_in)
            })
        })
        .collect();
    let mut dialled = Vec::new();
    for peer in dialling {
        dialled.push(peer.await.unwrap());
    }
    dialled
}

/// The wallet buys a channel and is paid over it.
async fn is_served(payer: &Node, wallet: &Node) {
    let bought = jit_invoice(wallet, Some(SIZE)).await;
    let paid = pay(payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    let received = event(wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - 2_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_250_fresh_peers_at_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"max_connects_per_second": 1_000, "max_handshakes": 500});
    let lsp = lsp(&world, limits).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;

    let fresh = (0..MANY).map(|n| Raw::new(n, &lsp, "127.0.0.1")).collect();
    let fresh = all_at_once(fresh).await;
    assert!(fresh.iter().all(|(_, taken_in)| *taken_in));
    until("all are connected", || {
        lsp.pm.list_peers().len() > MANY as usize
    })
    .await;

    // One more, and it is served.
    let wallet = world.wallet(&lsp, json!({}), None).await;
    is_served(&payer, &wallet).await;
    until("the order is paid", || order_state(&lsp) == "paid").await;
    assert!(fresh.iter().all(|(peer, _)| peer.is_connected()));
    assert_eq!(lsp.status()["turned_away"], json!({}));
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_stranger_goes_and_a_client_stays() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = lsp(&world, json!({"max_strangers": 3})).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    // Whom we have a channel with, and who has only bought, are no strangers.
    world.channel(&payer, &lsp, 1_000_000).await;
    let wallet = world.wallet(&lsp, json!({}), None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;

    let mut strangers = Vec::new();
    for n in 0..10 {
        let peer = Raw::new(n, &lsp, "127.0.0.1");
        assert!(peer.connect().await, "a newcomer is always let in");
        until("it is known", || lsp.is_connected(&peer.id)).await;
        strangers.push(peer);
        if let Some(gone) = (n as usize).checked_sub(3) {
            strangers[gone].is_hung_up_on().await;
        }
    }
    let here: Vec<bool> = strangers.iter().map(Raw::is_connected).collect();
    assert_eq!(here[..7], [false; 7]);
    assert_eq!(here[7..], [true; 3]);
    assert_eq!(turned_away(&lsp, "strangers"), 7);
    assert!(lsp.is_connected(&id(&payer)) && lsp.is_connected(&id(&wallet)));
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(with(&lsp, &wallet).len(), 1);
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_its_share() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"max_strangers_per_address": 5, "max_connects_per_second": 1_000});
    let lsp = lsp(&world, limits).await;
    let crowd = (0..20).map(|n| Raw::new(n, &lsp, "127.0.0.7")).collect();
    let crowd = all_at_once(crowd).await;
    assert_eq!(crowd.iter().filter(|(_, taken_in)| *taken_in).count(), 5);
    assert_eq!(turned_away(&lsp, "address"), 15);
    // Others are not touched by it, and one that leaves makes room.
    let other = Raw::new(100, &lsp, "127.0.0.8");
    assert!(other.connect().await);
    let (leaving, _) = crowd.iter().find(|(_, taken_in)| *taken_in).unwrap();
    leaving.hang_up();
    until("it has left", || !lsp.is_connected(&leaving.id)).await;
    let (next, _) = crowd.iter().find(|(_, taken_in)| !taken_in).unwrap();
    next.connect_again().await;
    lsp.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_never_say_who_they_are() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = lsp(&world, json!({"max_handshakes": 10, "handshake_ms": 1_000})).await;
    let dialler = Raw::new(0, &lsp, "127.0.0.1");
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(dialler.dial().await.unwrap());
    }
    // More of them than there is room for do not keep out one that speaks.
    let honest = Raw::new(1, &lsp, "127.0.0.1");
    assert!(honest.connect().await);
    for mut stream in silent {
        let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        assert!(read.expect("still open").is_err());
    }
    let (crowded, slow) = (turned_away(&lsp, "handshakes"), turned_away(&lsp, "slow"));
    assert_eq!(crowded + slow, 30);
    assert!(crowded >= 20, "{crowded}");
    assert!(honest.is_connected());
    lsp.stop().await.unwrap();
}
