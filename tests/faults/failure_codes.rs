//! Which failure the payer sees: one that may pass, or one that will not (J-52, J-62).

use std::sync::Arc;

use crate::common::{
    assert_failed, hop, id, invoice_over, jit_invoice, ledger, order_state, pay, room, until, with,
    World,
};
use ldkjit_core::ids::PaymentHash;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::json;

const SIZE: u64 = 100_000_000;
const TEMPORARY: &str = "path_failed_temporarily";
const PERMANENT: &str = "path_failed_permanently";

fn stages(payer: &Node, hash: &PaymentHash) -> Vec<&'static str> {
    let stages = payer.timeline.of(hash);
    stages
        .iter()
        .map(|s| s.stage)
        .filter(|s| s.starts_with("path_failed"))
        .collect()
}

async fn gone(lsp: &Node, wallet: &Arc<Node>) {
    wallet.stop().await.unwrap();
    until("the LSP sees the wallet go", || {
        !lsp.is_connected(&id(wallet))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_away_and_an_order_that_is_none() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"wake_ms": 500});
    let lsp = world.lsp("lsp_trusts_client", limits, None).await;
    let payer = world.node("payer", json!({}), None).await;
    let wallet = world.wallet(&lsp, json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.in_step(&[&lsp, &payer, &wallet]).await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &payer).unwrap());
    let bought = jit_invoice(&wallet, Some(SIZE)).await;

    // A scid that was never sold: unknown_next_peer, and the order there is knows nothing of it.
    let stray = hop(id(&lsp), lsp.cm.get_intercept_scid());
    let stray = invoice_over(&wallet, SIZE, None, vec![stray]);
    let failed = pay(&payer, &stray).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [PERMANENT]);
    assert_eq!(order_state(&lsp), "sold");
    assert!(ledger(&lsp, "part_refused").await.is_empty());

    // A client that does not come back in time: temporary_channel_failure.
    gone(&lsp, &wallet).await;
    let failed = pay(&payer, &bought.bolt11).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [TEMPORARY]);
    assert_eq!(order_state(&lsp), "sold", "it can be paid still");
    let refused = ledger(&lsp, "part_refused").await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], "client_offline");
    assert!(with(&lsp, &wallet).is_empty());

    // A second try is held and fails likewise: nothing was left behind by the first.
    let failed = pay(&payer, &bought.bolt11).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [TEMPORARY]);
    assert_eq!(ledger(&lsp, "part_refused").await.len(), 2);
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &payer).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &payer).unwrap(), before.1);
    payer.stop().await.unwrap();
    lsp.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_too_large_for_the_channel_that_is_there() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let payer = world.node("payer", json!({}), None).await;
    let wallet = world.wallet(&lsp, json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.in_step(&[&lsp, &payer, &wallet]).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    until("the order is paid", || order_state(&lsp) == "paid").await;
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &wallet).is_some()
    })
    .await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &wallet).unwrap());

    // The jit scid is an alias now. What the channel cannot carry may fit later; the impossible forward that says so
    // goes over the client's own channel and leaves no trace there.
    let jit = hop(id(&lsp), bought.jit_scid.unwrap().0);
    let large = before.1 .0 + 1;
    let invoice = invoice_over(&wallet, large, None, vec![jit.clone()]);
    let failed = pay(&payer, &invoice).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [TEMPORARY]);
    assert_eq!(wallet.timeline.of(&failed.payment_hash), []);
    until("no HTLC is left", || room(&payer, &lsp).is_some()).await;
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &wallet).unwrap(), before.1);
    assert_eq!(order_state(&lsp), "paid");

    // A small one passes, whole: the impossible forward's event was not taken for the failure of a real one.
    let small = 5_000_000;
    let invoice = invoice_over(&wallet, small, None, vec![jit]);
    let paid = pay(&payer, &invoice).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &wallet).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap().0, before.0 .0 - small);
    assert_eq!(room(&lsp, &wallet).unwrap().0, before.1 .0 - small);
    for node in [&wallet, &payer, &lsp] {
        node.stop().await.unwrap();
    }
}
