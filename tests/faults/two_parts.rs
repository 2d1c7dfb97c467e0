//! Client trusts LSP, paid in two parts: the funding transaction comes, confirms, and every amount is right (D-1).

use crate::common::{
    event, events, finish, jit_invoice, ledger, menu, order_state, pay, room, until, with, World,
};
use ldkjit_core::menu::TrustModel;
use ldkjit_node::payments::PaymentStatus;
use serde_json::json;

/// More than one of the payer's channels carries.
const SIZE: u64 = 900_000_000;
/// What one of them holds: no part is larger.
const CHANNEL_SAT: u64 = 600_000;

/// At this price, ppm of the payment, the fee is taken from one part, or from both.
async fn is_funded(ppm: u64, from_both: bool) {
    let fee = SIZE * ppm / 1_000_000;
    let Some(world) = World::start().await else {
        return;
    };
    let mut menu = menu();
    menu[0]["proportional_ppm"] = ppm.into();
    let service = json!({"lsp": {"menu": menu, "trust": "client_trusts_lsp"}});
    let lsp = world.node("lsp", service, None).await;
    let payer = world.node("payer", json!({}), None).await;
    let wallet = world.wallet(&lsp, json!({"trusted": true}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, CHANNEL_SAT).await;
    world.channel(&payer, &lsp, CHANNEL_SAT).await;
    world.in_step(&[&lsp, &payer, &wallet]).await;
    let before = room(&payer, &lsp).unwrap();

    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    assert_eq!(bought.trust, Some(TrustModel::ClientTrustsLsp));
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - fee);
    assert_eq!(received["opening_fee_msat"], fee);

    // Published, and not before a preimage was known.
    let funding = with(&wallet, &lsp)[0].funding_txo.unwrap();
    world.in_mempool(&funding.txid.to_string()).await;
    let stages = lsp.timeline.of(&bought.payment_hash);
    let place = |name: &str| stages.iter().position(|s| s.stage == name);
    assert!(place("part_claimed").is_some(), "{stages:?}");
    assert!(
        place("part_claimed") < place("funding_broadcast"),
        "{stages:?}"
    );

    // Both parts are claimed, and what each event names of the fee makes up the whole (D-1).
    event(&lsp, "payment_forwarded").await;
    event(&lsp, "payment_forwarded").await;
    until("the order is paid", || order_state(&lsp) == "paid").await;
    assert_eq!(ledger(&lsp, "part_accepted").await.len(), 2);
    let forwarded = events(&lsp, "payment_forwarded").await;
    assert_eq!(forwarded.len(), 2);
    let bearing = forwarded.iter().filter(|f| f["opening_fee_msat"] != 0);
    assert_eq!(bearing.count(), if from_both { 2 } else { 1 });
    let sum = |field: &str| -> u64 { forwarded.iter().map(|f| f[field].as_u64().unwrap()).sum() };
    assert_eq!(sum("amount_msat"), SIZE - fee);
    assert_eq!(sum("opening_fee_msat"), fee);
    assert_eq!(sum("fee_msat"), 0);
    let earned = ledger(&lsp, "fee_earned").await;
    let earned: u64 = earned.iter().map(|e| e["amount"].as_u64().unwrap()).sum();
    assert_eq!(earned, fee);
    assert_eq!(ledger(&lsp, "order_paid").await.len(), 1);

    world.mine(6, &[&lsp, &payer, &wallet]).await;
    until("both ends count the confirmations", || {
        with(&wallet, &lsp)[0].confirmations == Some(6)
            && with(&lsp, &wallet)[0].confirmations == Some(6)
    })
    .await;
    let expected = with(&wallet, &lsp)[0].get_funding_output().unwrap();
    let found = world
        .chain
        .tx_out(&funding.into_bitcoin_outpoint(), false)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.output, found.confirmations), (expected, 6));

    until("no HTLC is left", || {
        room(&payer, &lsp).is_some()
            && room(&lsp, &payer).is_some()
            && room(&wallet, &lsp).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap().0, before.0 - SIZE);
    let channel = &with(&wallet, &lsp)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, SIZE - fee - reserve);
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_43_J_76_one_part_bears_the_fee() {
    is_funded(10_000, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_71_J_76_S_51_both_parts_bear_the_fee() {
    // More than the larger part, whatever the payer makes of it.
    const { assert!(SIZE * 7 / 10 > CHANNEL_SAT * 1_000) };
    is_funded(700_000, true).await;
}
