//! Parts from two payers with one hash: an invoice that two people pay, together or each the whole of it.

use std::sync::Arc;

use crate::common::{
    event, events, id, jit_invoice, ledger, order_state, room, send, until, with, World,
};
use crate::dishonest_payer::{half, is_over, send_part};
use ldkjit_core::ids::PaymentHash;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use lightning_invoice::Bolt11Invoice;
use serde_json::json;

const SIZE: u64 = 100_000_000;
/// 1 % of it would be less.
const FEE: u64 = 2_000_000;

/// An LSP, a wallet, and two payers with a channel of 1,000,000 sat each.
async fn sale(world: &World) -> [Arc<Node>; 4] {
    let [lsp, one, wallet] = world.sale(json!({}), None, None).await;
    let two = world.node("two", json!({}), None).await;
    world.fund(&[&two]).await;
    world.channel(&two, &lsp, 1_000_000).await;
    world.in_step(&[&lsp, &one, &two, &wallet]).await;
    [lsp, one, two, wallet]
}

fn can_send(from: &Node, to: &Node) -> u64 {
    room(from, to).unwrap().0
}

async fn no_htlc_is_left(lsp: &Node, others: &[&Arc<Node>]) {
    until("no HTLC is left", || {
        others
            .iter()
            .all(|node| room(node, lsp).is_some() && room(lsp, node).is_some())
    })
    .await;
}

/// The fee is earned once, and the wallet has what the payers gave less that.
async fn assert_served_once(lsp: &Node, wallet: &Node) {
    until("the order is paid", || order_state(lsp) == "paid").await;
    assert_eq!(events(wallet, "payment_received").await.len(), 1);
    let earned = ledger(lsp, "fee_earned").await;
    let earned: u64 = earned.iter().map(|e| e["amount"].as_u64().unwrap()).sum();
    assert_eq!(earned, FEE);
    assert_eq!(ledger(lsp, "channel_opened").await.len(), 1);
    assert_eq!(with(lsp, wallet).len(), 1);
    let channel = &with(wallet, lsp)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, SIZE - FEE - reserve);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pays_half() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, one, two, wallet] = sale(&world).await;
    let before = (can_send(&one, &lsp), can_send(&two, &lsp));
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let invoice: Bolt11Invoice = bought.bolt11.parse().unwrap();
    for payer in [&one, &two] {
        let to_lsp = with(payer, &lsp)[0].get_outbound_payment_scid().unwrap();
        let way = |last| half(&[(id(&lsp), to_lsp), (id(&wallet), last)]);
        let nowhere = way(lsp.cm.get_intercept_scid());
        let jit = way(bought.jit_scid.unwrap().0);
        send_part(payer, 1, &invoice, jit, nowhere);
    }
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - FEE);
    until("both have the proof", || {
        is_over(&one, 1) && is_over(&two, 1)
    })
    .await;
    no_htlc_is_left(&lsp, &[&one, &two, &wallet]).await;
    assert_served_once(&lsp, &wallet).await;
    assert_eq!(can_send(&one, &lsp), before.0 - SIZE / 2);
    assert_eq!(can_send(&two, &lsp), before.1 - SIZE / 2);
    for node in [&wallet, &one, &two, &lsp] {
        node.stop().await.unwrap();
    }
}

/// How this payment ended.
async fn ended(payer: &Node, hash: &PaymentHash) -> PaymentStatus {
    crate::common::outcome(payer, hash).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pays_the_whole() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, one, two, wallet] = sale(&world).await;
    let before = can_send(&one, &lsp) + can_send(&two, &lsp);
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let hash = send(&one, &bought.bolt11, None).await;
    assert_eq!(send(&two, &bought.bolt11, None).await, hash);
    let ends = [ended(&one, &hash).await, ended(&two, &hash).await];
    let paid = ends.iter().filter(|e| **e == PaymentStatus::Succeeded);
    assert_eq!(paid.count(), 1, "{ends:?}");
    no_htlc_is_left(&lsp, &[&one, &two, &wallet]).await;
    assert_served_once(&lsp, &wallet).await;
    // One of them gave the whole, the other nothing.
    let after = can_send(&one, &lsp) + can_send(&two, &lsp);
    assert_eq!(after, before - SIZE);
    for node in [&wallet, &one, &two, &lsp] {
        node.stop().await.unwrap();
    }
}
