//! Who trusts whom, and how far: clients that leave channels unpaid, coins that wait for a client, promises that are broken.

use crate::common::{
    address, asks, assert_failed, buys_from, event, finish, id, jit_invoice, ledger, on_disk,
    order, order_state, outcome, pay, room, send, service, until, with, World, PATIENCE,
};
use ldkjit_core::ids::ChannelId;
use ldkjit_node::client::JitChoice;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

const SIZE: u64 = 50_000_000;

/// A channel is sold, and paid for.
async fn is_sold(lsp: &Node, payer: &Node, wallet: &Node) {
    let bought = jit_invoice(wallet, Some(SIZE)).await;
    let paid = pay(payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded);
    until("the order is paid", || order_state(lsp) == "paid").await;
}

/// Both ends see the funding so deep.
async fn both_count(lsp: &Node, wallet: &Node, confirmations: u32) {
    until("both count confirmations", || {
        with(lsp, wallet)[0].confirmations == Some(confirmations)
            && with(wallet, lsp)[0].confirmations == Some(confirmations)
    })
    .await;
}

/// A channel that nobody paid for is closed when its offer is over; its client is trusted less each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_02_S_55_a_client_that_never_pays_is_trusted_less_and_less() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut settings = service("lsp_trusts_client", json!({"grace_ms": 0}));
    settings["lsp"]["menu"][0]["valid_for_s"] = 12.into();
    settings["lsp"]["patience"] = json!({"unpaid_before_distrust": 1, "unpaid_before_refusal": 2});
    let lsp = world.node("lsp", settings, None).await;
    let payer = world.node("payer", json!({}), None).await;
    let trusting = buys_from(&lsp, json!({"trusted": true}));
    let refuses = Some(Fault::ClientRefuses);
    let wallet = world.node("wallet", trusting, refuses).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.in_step(&[&wallet]).await;
    let mut request = asks(Some(SIZE), JitChoice::Always);
    request.expiry_s = 8;

    for (scored, trust) in [(1, "lsp_trusts_client"), (2, "client_trusts_lsp")] {
        let bought = wallet.receive(request.clone()).await.unwrap();
        let sold = ledger(&lsp, "order_sold").await;
        assert_eq!(sold.last().unwrap()["trust"], trust);
        assert!(sold.last().unwrap()["reserved_sat"].as_u64().unwrap() > SIZE / 1_000);
        assert_failed(&pay(&payer, &bought.bolt11).await);
        until("the fee is owed", || order_state(&lsp) == "owed").await;
        assert_eq!(ledger(&lsp, "client_scored").await.len(), scored - 1);
        // Its time over, the channel goes, and the client has one more against it.
        until("the unpaid channel is closed", || {
            with(&lsp, &wallet).is_empty() && lsp.lsp.as_ref().unwrap().orders().is_empty()
        })
        .await;
        assert_eq!(ledger(&lsp, "client_scored").await.len(), scored);
        until("the wallet knows", || with(&wallet, &lsp).is_empty()).await;
    }
    let refused = wallet.receive(request.clone()).await.unwrap_err();
    assert_eq!(refused.code, "lsp_refused", "{refused}");
    assert_eq!(refused.details["lsp_code"], 1, "{:?}", refused.details);
    // Only the first of the two was ever published.
    assert_eq!(ledger(&lsp, "chain_cost").await.len(), 1);
    finish([&wallet, &payer, &lsp]).await;
}

/// LDK refuses to close a channel by agreement that its client, who is back, has not taken up again yet: it is asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unpaid_channel_is_closed_once_its_client_takes_it_up_again() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut settings = service("lsp_trusts_client", json!({"grace_ms": 0}));
    settings["lsp"]["menu"][0]["valid_for_s"] = 20.into();
    let lsp = world.node("lsp", settings, None).await;
    let buys = on_disk(buys_from(&lsp, json!({})));
    let refuses = Some(Fault::ClientRefuses);
    let [payer, wallet] = world.customers(&lsp, buys.clone(), refuses).await;
    let mut request = asks(Some(SIZE), JitChoice::Always);
    request.expiry_s = 15;
    let bought = wallet.receive(request).await.unwrap();
    assert_failed(&pay(&payer, &bought.bolt11).await);
    until("the fee is owed", || order_state(&lsp) == "owed").await;
    wallet.stop().await.unwrap();
    let wallet = world
        .node("wallet", buys, Some(Fault::TakesUpLate(25)))
        .await;
    until("the client is back", || lsp.is_connected(&id(&wallet))).await;

    until("its close is asked for", || {
        order(&lsp)["closing"] != json!({})
    })
    .await;
    let channels = with(&lsp, &wallet);
    assert_eq!(channels.len(), 1, "asked too early");
    assert!(!channels[0].is_usable);
    until("the channel is closed", || with(&lsp, &wallet).is_empty()).await;
    for node in [&lsp, &wallet] {
        let closed = event(node, "channel_closed").await;
        let why = closed["reason"].as_str().unwrap();
        assert!(why.contains("cooperatively"), "{why}");
    }
    finish([&wallet, &payer, &lsp]).await;
}

/// A payment for a client that is away has its coins, also when the LSP stops meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_35_coins_wait_with_the_payment_for_a_sleeping_client() {
    let Some(world) = World::start().await else {
        return;
    };
    let settings = on_disk(service("lsp_trusts_client", json!({"wake_ms": 600_000})));
    let lsp = world.node("lsp", settings.clone(), None).await;
    let payer = world.node("payer", json!({}), None).await;
    let buys = on_disk(buys_from(&lsp, json!({})));
    let wallet = world.node("wallet", buys.clone(), None).await;
    world.fund(&[&lsp, &payer]).await;
    let at = address(&lsp);
    let kept = payer.dial_and_keep(id(&lsp), &at, PATIENCE);
    kept.await.unwrap();
    world.channel(&payer, &lsp, 1_000_000).await;
    world.in_step(&[&wallet]).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    let locked = |node: &ldkjit_node::node::Node| node.parts.wallet.balances().locked_sat;
    assert_eq!(locked(&lsp), 0, "only promised so far");

    let hash = send(&payer, &bought.bolt11, None).await;
    until("the payment waits", || order_state(&lsp) == "waking").await;
    let coins = locked(&lsp);
    assert!(coins > SIZE / 1_000);
    let lsp = world.restarted(&lsp, settings).await;
    assert_eq!(order_state(&lsp), "waking");
    assert_eq!(locked(&lsp), coins);

    let wallet = world.node("wallet", buys, None).await;
    assert_eq!(
        outcome(&payer, &hash).await.status,
        PaymentStatus::Succeeded
    );
    until("the order is paid", || order_state(&lsp) == "paid").await;
    assert_eq!(ledger(&lsp, "channel_opened").await.len(), 1);
    assert_eq!(lsp.parts.wallet.locked().len(), 1);
    finish([&wallet, &payer, &lsp]).await;
}

/// A lifetime that was sold is only broken with a reason, and both sides write it down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_11_a_promise_is_broken_on_the_record() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    is_sold(&lsp, &payer, &wallet).await;
    world.mine(2, &[&lsp, &payer, &wallet]).await;
    both_count(&lsp, &wallet, 2).await;
    let channel = ChannelId(with(&lsp, &wallet)[0].channel_id.0);
    for force in [false, true] {
        let refused = lsp.close_channel(&channel, force, None).await.unwrap_err();
        assert_eq!(refused.code, "config");
        assert!(refused.message.contains("144 blocks"), "{refused}");
    }
    assert!(ledger(&lsp, "promise_broken").await.is_empty());

    let why = Some("moving\u{7} house");
    lsp.close_channel(&channel, false, why).await.unwrap();
    let broken = ledger(&lsp, "promise_broken").await.remove(0);
    assert_eq!(
        (&broken["age"], &broken["min_lifetime"]),
        (&json!(2), &json!(144))
    );
    let said = broken["why"].as_str().unwrap();
    assert!(
        said.starts_with("moving") && !said.contains('\u{7}'),
        "{said}"
    );
    let told = event(&wallet, "lsp_broke_promise").await;
    assert_eq!(told["lsp"], id(&lsp).to_string());
    assert_eq!(
        (&told["age_blocks"], &told["min_lifetime_blocks"]),
        (&json!(2), &json!(144))
    );
    assert_eq!(ledger(&wallet, "lsp_broke_promise").await.len(), 1);
    finish([&wallet, &payer, &lsp]).await;
}

/// A close that does not come about breaks nothing; a node that sells no more keeps what it sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_11_a_promise_outlives_the_shop() {
    let Some(world) = World::start().await else {
        return;
    };
    let shop = on_disk(service("lsp_trusts_client", json!({})));
    let lsp = world.node("lsp", shop.clone(), None).await;
    let buyer = buys_from(&lsp, json!({}));
    let [payer, wallet] = world.customers(&lsp, buyer, None).await;
    is_sold(&lsp, &payer, &wallet).await;
    until("no HTLC is left", || room(&lsp, &wallet).is_some()).await;
    let channel = ChannelId(with(&lsp, &wallet)[0].channel_id.0);
    wallet.stop().await.unwrap();
    until("it is gone", || !lsp.is_connected(&id(&wallet))).await;
    let why = Some("moving house");
    let refused = lsp.close_channel(&channel, false, why).await.unwrap_err();
    assert_eq!(refused.code, "peer");
    assert!(ledger(&lsp, "promise_broken").await.is_empty());

    let mut bare = shop;
    bare["lsp"] = Value::Null;
    let lsp = world.restarted(&lsp, bare).await;
    for force in [false, true] {
        let refused = lsp.close_channel(&channel, force, None).await.unwrap_err();
        assert_eq!(refused.code, "config");
        assert!(refused.message.contains("was sold"), "{refused}");
    }
    lsp.close_channel(&channel, true, why).await.unwrap();
    finish([&payer, &lsp]).await;
}

/// What was sold is over with its last block, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_11_a_promise_is_kept_to_the_block() {
    let Some(world) = World::start().await else {
        return;
    };
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    is_sold(&lsp, &payer, &wallet).await;
    let funding = with(&lsp, &wallet)[0].funding_txo.unwrap().txid;
    world.in_mempool(&funding.to_string()).await;
    let channel = ChannelId(with(&lsp, &wallet)[0].channel_id.0);
    world.mine(143, &[&lsp, &payer, &wallet]).await;
    both_count(&lsp, &wallet, 143).await;
    for force in [false, true] {
        let refused = lsp.close_channel(&channel, force, None).await.unwrap_err();
        assert_eq!(refused.code, "config");
        assert!(refused.message.contains("143 are over"), "{refused}");
    }
    world.mine(1, &[&lsp, &payer, &wallet]).await;
    both_count(&lsp, &wallet, 144).await;
    lsp.close_channel(&channel, false, None).await.unwrap();
    for node in [&lsp, &wallet] {
        let closed = event(node, "channel_closed").await;
        let why = closed["reason"].as_str().unwrap();
        assert!(why.contains("cooperatively"), "{why}");
    }
    assert!(ledger(&lsp, "promise_broken").await.is_empty());
    assert!(ledger(&wallet, "lsp_broke_promise").await.is_empty());
    finish([&wallet, &payer, &lsp]).await;
}

/// An LSP without coins offers nothing, and says so with the right code to whoever buys all the same; one whose pool is
/// filled opens channels from coins of its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_pool_and_a_full_one() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut settings = service("lsp_trusts_client", json!({}));
    settings["lsp"]["pool"] = json!({"coins": 20, "coin_sat": 300_000});
    let lsp = world.node("lsp", settings, None).await;
    let payer = world.node("payer", json!({}), None).await;
    let wallet = world.wallet(&lsp, json!({}), None).await;
    world.fund(&[&payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.in_step(&[&wallet]).await;
    let request = asks(Some(SIZE), JitChoice::Always);
    let dry = wallet.receive(request.clone()).await.unwrap_err();
    assert_eq!(dry.code, "lsp_refused", "{dry}");
    assert_eq!(dry.details["lsp_code"], 0, "an empty menu: {dry}");

    world.fund(&[&lsp]).await;
    until("the pool is filled", || {
        lsp.parts.wallet.balances().unconfirmed_sat > 20 * 300_000
    })
    .await;
    for tx in lsp.parts.wallet.unconfirmed() {
        world.in_mempool(&tx.compute_txid().to_string()).await;
    }
    world.mine(1, &[&lsp, &payer, &wallet]).await;
    let coins = lsp.parts.wallet.balances().confirmed_sat;
    let paid_for = 2 * 5_000_000_000 - coins;
    assert!((1..100_000).contains(&paid_for), "{coins} sat");
    let bought = wallet.receive(request).await.unwrap();
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded);
    // One coin of the pool is in the channel and its change.
    let open = lsp.parts.wallet.locked()[0];
    let funding = lsp.parts.wallet.funding(open).unwrap();
    let kept: u64 = funding.output.iter().map(|o| o.value.to_sat()).sum();
    let fee = lsp.parts.wallet.funding_fee(open).unwrap();
    assert_eq!((funding.input.len(), kept + fee), (1, 300_000));
    finish([&wallet, &payer, &lsp]).await;
}
