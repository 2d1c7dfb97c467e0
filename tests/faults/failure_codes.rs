//! Which failure the payer sees: one that may pass, or one that will not (J-52, J-62).

use std::sync::Arc;

use crate::common::{
    address, alarm, asks, assert_failed, coins_sat, count, event, events, finish, hop, id,
    invoice_over, jit_invoice, ledger, order, order_state, outcome, pay, room, send, until, with,
    World, PATIENCE,
};
use ldkjit_core::ids::PaymentHash;
use ldkjit_node::chain::SendOutcome;
use ldkjit_node::client::JitChoice;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
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

/// LDK would open a channel of another type instead (J-58, S-48).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_48_a_client_without_anchors_gets_no_channel() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, Some(Fault::NoAnchors)).await;
    let coins = coins_sat(&lsp);
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let failed = pay(&payer, &bought.bolt11).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [PERMANENT]);
    let refused = ledger(&lsp, "part_refused").await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], "client_unable");
    assert!(with(&lsp, &wallet).is_empty());
    assert_eq!(lsp.parts.wallet.locked(), [] as [u128; 0]);
    assert_eq!(coins_sat(&lsp), coins);
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_25_S_35_a_client_that_is_away_and_an_order_that_is_none() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"wake_ms": 500});
    let [lsp, payer, wallet] = world.sale(limits, None, None).await;
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
    finish([&payer, &lsp]).await;
}

/// However patient the LSP is, a block comes after which the payer's HTLC could not be forwarded any more (S-57).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_57_a_client_that_is_away_until_the_last_block() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"wake_ms": 100_000_000});
    let [lsp, payer, wallet] = world.sale(limits, None, None).await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &payer).unwrap());
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    gone(&lsp, &wallet).await;
    let hash = send(&payer, &bought.bolt11, None).await;
    until("it is held", || order_state(&lsp) == "waking").await;

    // The wallet refuses what has 40 blocks left there; LDK itself would let go at 39.
    let delta = u32::from(lsp.config.lsp.as_ref().unwrap().cltv_expiry_delta);
    let expiry = with(&payer, &lsp)[0].pending_outbound_htlcs[0].cltv_expiry;
    let last = expiry - delta - 41;
    world.mine(last - 1 - lsp.height(), &[&lsp, &payer]).await;
    assert_eq!(order_state(&lsp), "waking");
    assert!(ledger(&lsp, "part_refused").await.is_empty());
    let pending = payer.payments.pending(&hash).unwrap().status;
    assert_eq!(pending, PaymentStatus::Pending);
    assert_eq!(stages(&payer, &hash), [""; 0]);

    world.mine(1, &[&lsp, &payer]).await;
    assert_failed(&outcome(&payer, &hash).await);
    assert_eq!(stages(&payer, &hash), [TEMPORARY]);
    let refused = ledger(&lsp, "part_refused").await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], "release_height");
    assert_eq!(order_state(&lsp), "sold", "it can be paid still");
    assert_eq!(lsp.parts.wallet.locked(), [] as [u128; 0]);
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &payer).is_some()
    })
    .await;
    assert!(with(&payer, &lsp)[0].is_usable, "the channel stays");
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &payer).unwrap(), before.1);
    finish([&payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_too_large_for_the_channel_that_is_there() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
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
    finish([&wallet, &payer, &lsp]).await;
}

/// Sends coins and waits until bitcoind has taken the transaction.
async fn send_coins(from: &Node, to: &Node, sat: Option<u64>) {
    let script = to.parts.wallet.new_address().unwrap().script_pubkey();
    let tx = from.parts.wallet.send(&script, sat, 1_000).unwrap();
    from.parts.journal.durable().await.unwrap();
    let sent = from.parts.broadcaster.broadcast(vec![tx]).await;
    assert_eq!(sent, Some(SendOutcome::Accepted));
}

/// An attempt to open failed for this reason: the payer may try again, and nothing of it is left behind.
async fn assert_nothing_left(lsp: &Node, wallet: &Node, reason: &str) {
    assert_eq!(order_state(lsp), "sold");
    assert_eq!(order(lsp)["open"], serde_json::Value::Null);
    assert_eq!(order(lsp)["paying"], serde_json::Value::Null);
    let refused = ledger(lsp, "part_refused").await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], reason);
    let ended = ledger(lsp, "open_ended").await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["reason"], reason);
    let none = ["channel_opened", "chain_cost", "fee_earned", "order_ended"];
    assert_eq!(count(lsp, none).await, [0; 4]);
    until("no channel is left", || with(lsp, wallet).is_empty()).await;
    assert_eq!(lsp.parts.wallet.locked(), [] as [u128; 0]);
}

/// The order that failed once is paid by a second attempt, and only that is in the books.
async fn assert_paid_at_second(
    lsp: &Node,
    payer: &Node,
    wallet: &Node,
    bolt11: &str,
    before: ((u64, u64), u64),
) {
    let ((payer_msat, _), coins) = before;
    let paid = pay(payer, bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(0));
    let received = event(wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - FEE);
    assert_eq!(received["opening_fee_msat"], FEE);
    until("the order is paid", || order_state(lsp) == "paid").await;
    let kinds = [
        "open_requested",
        "open_ended",
        "channel_opened",
        "chain_cost",
        "order_paid",
    ];
    assert_eq!(count(lsp, kinds).await, [2, 1, 1, 1, 1]);
    let earned = ledger(lsp, "fee_earned").await;
    assert_eq!(earned.len(), 1, "{earned:?}");
    assert_eq!(earned[0]["amount"], FEE);
    let channels = with(lsp, wallet);
    assert_eq!(channels.len(), 1);
    assert_eq!(lsp.parts.wallet.locked(), [channels[0].user_channel_id]);
    let cost = ledger(lsp, "chain_cost").await.remove(0);
    let spent = channels[0].channel_value_satoshis + cost["fee_sat"].as_u64().unwrap();
    until("its wallet has seen the funding", || {
        coins_sat(lsp) == coins - spent
    })
    .await;
    until("no HTLC is left", || {
        room(payer, lsp).is_some() && room(wallet, lsp).is_some()
    })
    .await;
    assert_eq!(room(payer, lsp).unwrap().0, payer_msat - SIZE);
    let channel = &with(wallet, lsp)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, SIZE - FEE - reserve);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_37_an_lsp_without_coins() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &payer).unwrap());
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let ask = |method: &'static str, params: Value| {
        let (wallet, lsp) = (Arc::clone(&wallet), id(&lsp));
        async move {
            let requests = &wallet.client.requests;
            requests.call(&wallet, lsp, method, &params, PATIENCE).await
        }
    };
    let menu = ask("lsps2.get_info", json!({})).await.unwrap();
    let offer = menu["opening_fee_params_menu"][0].clone();

    // Its coins leave between the sale and the payment (S-37): the payer may try again later.
    send_coins(&lsp, &payer, None).await;
    let failed = pay(&payer, &bought.bolt11).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [TEMPORARY]);
    assert_nothing_left(&lsp, &wallet, "no_coins").await;
    alarm(&lsp, "coins", true).await;
    assert_eq!(order(&lsp)["failures"], 0, "it is not the client's fault");
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &payer).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &payer).unwrap(), before.1);

    // Nothing is sold that could not be served: the menu is empty, and an offer from before is refused (J-34).
    let menu = ask("lsps2.get_info", json!({})).await.unwrap();
    assert_eq!(menu, json!({"opening_fee_params_menu": []}));
    let size = SIZE.to_string();
    let buy = json!({"opening_fee_params": offer, "payment_size_msat": size});
    let refused = ask("lsps2.buy", buy).await.unwrap_err();
    assert_eq!(refused.details["lsp_code"], 1, "{refused}");
    let refused = wallet
        .receive(asks(Some(SIZE), JitChoice::Always))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "lsp_refused");
    assert!(refused.message.contains("nothing for sale"), "{refused}");

    // With coins again, the same order serves the same invoice.
    send_coins(&payer, &lsp, Some(1_000_000)).await;
    // As deep as coins of others must be.
    world.mine(6, &[&lsp, &payer, &wallet]).await;
    let before = (before.0, coins_sat(&lsp));
    assert_eq!(events(&lsp, "alarm").await.len(), 1, "it lasts");
    assert_paid_at_second(&lsp, &payer, &wallet, &bought.bolt11, before).await;
    alarm(&lsp, "coins", false).await;
    finish([&wallet, &payer, &lsp]).await;
}

/// The connection to the client ends during the open, before it has signed (J-62).
async fn is_lost(of_lsp: Option<Fault>, of_wallet: Option<Fault>) {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), of_lsp, of_wallet).await;
    let before = (room(&payer, &lsp).unwrap(), room(&lsp, &payer).unwrap());
    let coins = coins_sat(&lsp);
    let bought = jit_invoice(&wallet, Some(SIZE)).await;

    let failed = pay(&payer, &bought.bolt11).await;
    assert_failed(&failed);
    assert_eq!(stages(&payer, &failed.payment_hash), [TEMPORARY]);
    assert_nothing_left(&lsp, &wallet, "client_disconnected").await;
    assert_eq!(order(&lsp)["failures"], 1);
    assert_eq!(coins_sat(&lsp), coins);
    assert!(world.mempool().await.is_empty());
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &payer).is_some()
    })
    .await;
    assert_eq!(room(&payer, &lsp).unwrap(), before.0);
    assert_eq!(room(&lsp, &payer).unwrap(), before.1);

    // Back to waiting for a payment: the next one is served.
    wallet
        .dial(id(&lsp), &address(&lsp), PATIENCE)
        .await
        .unwrap();
    let before = (before.0, coins);
    assert_paid_at_second(&lsp, &payer, &wallet, &bought.bolt11, before).await;
    let funding = with(&lsp, &wallet)[0].funding_txo.unwrap();
    assert_eq!(world.mempool().await, [funding.txid.to_string()]);
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_62_S_36_S_61_a_client_that_hangs_up_at_the_offer() {
    is_lost(None, Some(Fault::HangsUpAtOffer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_62_a_client_that_hangs_up_between_funding_created_and_funding_signed() {
    is_lost(None, Some(Fault::HangsUpAtFunding)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_62_S_36_a_client_that_is_lost_between_accept_channel_and_funding_created() {
    is_lost(Some(Fault::LosesClient), None).await;
}
