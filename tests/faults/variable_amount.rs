//! The payer chooses the amount, and with it the fee: one above the wallet's limit is given back, the next may be taken
//! (J-74, S-33).

use crate::common::{
    asks, assert_failed, coins_sat, count, event, events, finish, ledger, order_state, outcome,
    room, send, until, with, World,
};
use ldkjit_node::client::{JitChoice, ReceiveRequest, Status};
use ldkjit_node::payments::{Payment, PaymentStatus};
use serde_json::json;

/// The most that the wallet lets an LSP take.
const LIMIT: u64 = 2_000_000;
/// The largest payment whose fee, 1 %, is within it: one msat more costs one msat more.
const DEAREST: u64 = 200_000_000;

async fn pay(payer: &ldkjit_node::node::Node, bolt11: &str, amount_msat: u64) -> Payment {
    let hash = send(payer, bolt11, Some(amount_msat)).await;
    outcome(payer, &hash).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_33_a_fee_one_msat_above_the_wallets_limit() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &payer).unwrap());
    let coins = coins_sat(&lsp);
    let request = ReceiveRequest {
        max_opening_fee_msat: Some(LIMIT),
        ..asks(None, JitChoice::Always)
    };
    let bought = wallet.receive(request).await.unwrap();
    assert_eq!((bought.amount_msat, bought.opening_fee_msat), (None, None));
    let hash = bought.payment_hash;

    let failed = pay(&payer, &bought.bolt11, DEAREST + 1).await;
    assert_failed(&failed);
    assert_eq!(failed.failure.as_deref(), Some("recipient_rejected"));
    let refused = event(&wallet, "jit_refused").await;
    assert_eq!(refused["reason"], "fee_above_limit");
    assert_eq!(refused["payment_hash"], hash.to_string());
    until("the fee is owed", || order_state(&lsp) == "owed").await;
    let stages = lsp.timeline.of(&hash);
    assert!(stages.iter().any(|s| s.stage == "forwarded"), "{stages:?}");

    // The LSP opened, forwarded, and earned nothing; nobody has more or less than before.
    assert!(events(&lsp, "payment_forwarded").await.is_empty());
    assert!(events(&wallet, "payment_received").await.is_empty());
    let nothing = ["fee_earned", "order_paid", "forwarded"];
    assert_eq!(count(&lsp, nothing).await, [0; 3]);
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some()
            && room(&lsp, &payer).is_some()
            && room(&wallet, &lsp).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &payer).unwrap(), before.1);
    assert_eq!(with(&wallet, &lsp)[0].outbound_capacity_msat, 0);
    assert_eq!(wallet.balances()["lightning"]["outbound_msat"], 0);

    // Neither end has given up the order: a payment whose fee is the limit itself is taken, over the channel that is there.
    assert_eq!(wallet.client.order(&hash).unwrap().status, Status::Open);
    let paid = pay(&payer, &bought.bolt11, DEAREST).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], DEAREST - LIMIT);
    assert_eq!(received["opening_fee_msat"], LIMIT);
    assert_eq!(wallet.client.order(&hash), None);
    until("the order is paid", || order_state(&lsp) == "paid").await;
    let earned = ledger(&lsp, "fee_earned").await;
    assert_eq!(earned.len(), 1, "{earned:?}");
    assert_eq!(earned[0]["amount"], LIMIT);
    let kinds = [
        "part_accepted",
        "part_refused",
        "set_complete",
        "open_requested",
        "channel_opened",
        "chain_cost",
        "order_owed",
        "order_paid",
    ];
    assert_eq!(count(&lsp, kinds).await, [2, 0, 2, 1, 1, 1, 1, 1]);
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&wallet, &lsp).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap().0, before.0 .0 - DEAREST);
    let channel = with(&wallet, &lsp).remove(0);
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, DEAREST - LIMIT - reserve);
    let cost = ledger(&lsp, "chain_cost").await.remove(0);
    let spent = channel.channel_value_satoshis + cost["fee_sat"].as_u64().unwrap();
    assert_eq!(coins_sat(&lsp), coins - spent);
    finish([&wallet, &payer, &lsp]).await;
}
