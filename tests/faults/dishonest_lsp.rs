//! An LSP that forwards without a funding transaction worth the name: the wallet gives the payment back and nothing else.

use crate::common::{
    assert_failed, event, events, finish, jit_invoice, ledger, order_state, pay, room, send, until,
    with, World,
};
use ldkjit_core::ids::ChannelId;
use ldkjit_node::lsp::Fault;
use serde_json::json;

const SIZE: u64 = 100_000_000;

/// The payment fails for this reason, the LSP earns nothing, and all have what they had before.
async fn is_refused(fault: Fault, reason: &str, verify_timeout_ms: u64) {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp("lsp_trusts_client", json!({}), Some(fault)).await;
    let payer = world.node("payer", json!({}), None).await;
    let patience = json!({"verify_timeout_ms": verify_timeout_ms});
    let wallet = world.wallet(&lsp, patience, None).await;
    world.fund(&[&lsp, &payer]).await;
    world.in_step(&[&wallet]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    let before = (room(&payer, &lsp), room(&lsp, &payer));
    assert!(before.0.is_some() && before.1.is_some());

    let invoice = jit_invoice(&wallet, Some(SIZE)).await;
    let payment = pay(&payer, &invoice.bolt11).await;

    assert_failed(&payment);
    assert_eq!(payment.failure.as_deref(), Some("recipient_rejected"));
    let refused = event(&wallet, "jit_refused").await;
    assert_eq!(refused["reason"], reason);
    assert_eq!(refused["payment_hash"], invoice.payment_hash.to_string());

    // The LSP did forward, over a channel that it said was ready; it got no preimage for it.
    until("the LSP knows of the refusal", || {
        order_state(&lsp) == "owed"
    })
    .await;
    let opened = with(&wallet, &lsp);
    assert_eq!(opened.len(), 1);
    assert!(opened[0].is_channel_ready);
    let stages = lsp.timeline.of(&invoice.payment_hash);
    assert!(stages.iter().any(|s| s.stage == "forwarded"), "{stages:?}");
    assert_eq!(
        events(&lsp, "payment_forwarded").await,
        [] as [serde_json::Value; 0]
    );
    for earned in ["fee_earned", "order_paid", "forwarded"] {
        assert!(ledger(&lsp, earned).await.is_empty(), "{earned}");
    }
    assert!(events(&wallet, "payment_received").await.is_empty());
    assert_eq!(wallet.client.order(&invoice.payment_hash), None);

    // To the msat what was there before, at both ends.
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&lsp, &payer).is_some()
    })
    .await;
    assert_eq!((room(&payer, &lsp), room(&lsp, &payer)), before);
    assert_eq!(opened[0].outbound_capacity_msat, 0);

    // On chain there is what the fault says: nothing, or an output that is not the channel's.
    let funding = opened[0].funding_txo.unwrap();
    let expected = opened[0].get_funding_output().unwrap();
    let found = world
        .chain
        .tx_out(&funding.into_bitcoin_outpoint(), true)
        .await
        .unwrap()
        .map(|unspent| unspent.output);
    match fault {
        Fault::NeverBroadcast => assert_eq!(found, None),
        Fault::WrongScript => {
            let found = found.unwrap();
            assert_eq!(found.value, expected.value);
            assert_ne!(found.script_pubkey, expected.script_pubkey);
        }
        _ => {
            let found = found.unwrap();
            assert_eq!(found.value.to_sat(), expected.value.to_sat() / 2);
            assert_eq!(found.script_pubkey, expected.script_pubkey);
        }
    }
    finish([&wallet, &payer]).await;
    // Its books say what it told LDK, not what it sent.
    lsp.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_transaction_that_is_never_sent() {
    is_refused(Fault::NeverBroadcast, "funding_unverified", 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_output_that_pays_somebody_else() {
    // Longer than the test waits: it is the wrong output that decides, not the clock.
    is_refused(Fault::WrongScript, "funding_wrong_script", 600_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_output_of_half_the_value() {
    is_refused(Fault::WrongValue, "funding_wrong_value", 600_000).await;
}

/// While the wallet looks for a funding that does not exist the LSP closes the channel: with it goes what there was to
/// look at, and not the preimage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_closed_before_its_funding_was_seen() {
    let Some(world) = World::start().await else {
        return;
    };
    let fault = Some(Fault::NeverBroadcast);
    let lsp = world.lsp("lsp_trusts_client", json!({}), fault).await;
    let payer = world.node("payer", json!({}), None).await;
    let patience = json!({"verify_timeout_ms": 600_000});
    let wallet = world.wallet(&lsp, patience, None).await;
    world.fund(&[&lsp, &payer]).await;
    world.in_step(&[&wallet]).await;
    world.channel(&payer, &lsp, 1_000_000).await;

    let invoice = jit_invoice(&wallet, Some(SIZE)).await;
    let hash = send(&payer, &invoice.bolt11, None).await;
    let has_it = || {
        let stages = wallet.timeline.of(&hash);
        stages.iter().any(|s| s.stage == "claimable")
    };
    until("the wallet has the payment", has_it).await;
    let channel = with(&lsp, &wallet).remove(0);
    let channel = ChannelId(channel.channel_id.0);
    lsp.close_channel(&channel, true, None).await.unwrap();

    let refused = event(&wallet, "jit_refused").await;
    assert_eq!(refused["reason"], "channel_closed");
    assert!(events(&wallet, "payment_received").await.is_empty());
    assert_eq!(wallet.balances()["lightning"]["claimable_msat"], 0);
    for earned in ["fee_earned", "order_paid"] {
        assert!(ledger(&lsp, earned).await.is_empty(), "{earned}");
    }
    assert!(world.mempool().await.is_empty());
    finish([&wallet, &payer, &lsp]).await;
}
