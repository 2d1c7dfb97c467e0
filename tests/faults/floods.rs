//! Floods: requests, sales, connects and garbage without end, while somebody honest is served, and nothing of it stays.

use std::sync::Arc;
use std::time::Instant;

use crate::common::raw::Raw;
use crate::common::{
    address, asks, buys_from, event, finish, id, jit_invoice, menu, on_disk, order_state, pay,
    service, until, with, World, PATIENCE,
};
use ldkjit_core::lsps0::{MAX_PAYLOAD, MESSAGE_TYPE};
use ldkjit_core::lsps2::{BUY, GET_INFO};
use ldkjit_node::client::JitChoice;
use ldkjit_node::config::Config;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use ldkjit_node::store::Fault as StoreFault;
use serde_json::{json, Value};
use tokio::task::JoinSet;

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
const TOKEN: &str = "known";

/// An LSP with this menu for all, the same for those with a token, and room for many strangers.
async fn lsp(world: &World, limits: Value, connects_per_second: u32) -> Arc<Node> {
    let settings = json!({
        "lsp": {"menu": menu(), "token_menus": {TOKEN: menu()}, "limits": limits},
        "peer_limits": {
            "max_strangers": 1_000,
            "max_handshakes": 1_000,
            "max_connects_per_second": connects_per_second,
        },
    });
    world.node("lsp", settings, None).await
}

/// The first offer of the menu, as it came.
async fn offer(peer: &mut Raw) -> Value {
    let menu = peer.ask(GET_INFO, &json!({})).await;
    menu["result"]["opening_fee_params_menu"][0].clone()
}

fn buys(offer: &Value) -> Value {
    json!({"opening_fee_params": offer, "payment_size_msat": SIZE.to_string()})
}

/// Sends and reads as fast as it can, so many at once, and comes back when it is thrown out.
async fn ask_without_end(mut peer: Raw, method: &'static str) {
    loop {
        if !peer.is_connected() && !peer.connect().await {
            tokio::task::yield_now().await;
            continue;
        }
        let params = match method {
            BUY => buys(&offer(&mut peer).await),
            _ => json!({}),
        };
        for _ in 0..12 {
            peer.request(method, &params);
        }
        for _ in 0..12 {
            if peer.answer_if_any().await.is_none() {
                break;
            }
        }
    }
}

async fn come_and_go(peer: Raw) {
    loop {
        peer.connect().await;
        peer.hang_up();
    }
}

/// The wallet buys a channel and is paid over it; how long both took, ms.
async fn is_served(payer: &Node, wallet: &Node) -> (u128, u128) {
    let start = Instant::now();
    // Its connection may be one of those that were too many in a second: it dials again.
    let bought = loop {
        match wallet.receive(asks(Some(SIZE), JitChoice::Always)).await {
            Ok(bought) => break bought,
            Err(e) => assert!(e.retryable && start.elapsed() < PATIENCE, "{e}"),
        }
    };
    let bought_ms = start.elapsed().as_millis();
    let paid = pay(payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    let received = event(wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - FEE);
    assert_eq!(received["opening_fee_msat"], FEE);
    (bought_ms, start.elapsed().as_millis() - bought_ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_ask_without_end_and_a_client_is_served() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = lsp(
        &world,
        json!({"max_orders": 10_000, "max_orders_per_client": 2}),
        500,
    )
    .await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    let known = || buys_from(&lsp, json!({"token": TOKEN}));
    let early = world.node("early", known(), None).await;
    let calm = is_served(&payer, &early).await;

    let mut flood = JoinSet::new();
    for n in 0..500 {
        let peer = Raw::new(n, &lsp, "127.0.0.1");
        match n % 5 {
            0 | 1 => flood.spawn(ask_without_end(peer, GET_INFO)),
            2 | 3 => flood.spawn(ask_without_end(peer, BUY)),
            _ => flood.spawn(come_and_go(peer)),
        };
    }
    until("the flood is there", || lsp.pm.list_peers().len() > 300).await;
    let late = world.node("late", known(), None).await;
    let flooded = is_served(&payer, &late).await;
    eprintln!("bought, paid after (ms): {calm:?} in calm, {flooded:?} in the flood");
    flood.shutdown().await;
    finish([&early, &late, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_T_24_S_10_S_11_refusals_and_disconnects_leave_nothing_behind() {
    let Some(world) = World::start().await else {
        return;
    };
    // One request at a time: a single one that stayed counted would be seen.
    // Strangers have half of what the limit allows.
    let limits = json!({"max_exposure_msat": 2 * SIZE, "max_pending_requests": 1});
    let lsp = lsp(&world, limits, 100_000).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    let mut peers: Vec<Raw> = (0..20).map(|n| Raw::new(n, &lsp, "127.0.0.1")).collect();
    for peer in &peers {
        assert!(peer.connect().await);
    }
    // The one sale that the limit allows.
    let wallet = world.node("wallet", buys_from(&lsp, json!({})), None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;

    // Two thousand refused.
    let mut refused = 0;
    for peer in &mut peers {
        let params = buys(&offer(peer).await);
        for _ in 0..100 {
            let answer = peer.ask(BUY, &params).await;
            assert_eq!(answer["error"]["code"], 1, "{answer}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2_000);

    // A thousand hang up with a request under way.
    for round in 0..50 {
        for peer in &mut peers {
            if !peer.is_connected() {
                peer.connect_again().await;
            }
            let method = if round % 2 == 0 { GET_INFO } else { BUY };
            peer.request(method, &json!({}));
            peer.hang_up();
        }
    }

    // All are answered as before, and what was sold is paid.
    for peer in &mut peers {
        peer.forget_answers();
        peer.connect_again().await;
        until("it is back", || lsp.is_connected(&peer.id)).await;
        let params = buys(&offer(peer).await);
        let answer = peer.ask(BUY, &params).await;
        let text = answer["error"]["message"].as_str().unwrap();
        assert_eq!(text, "limit for clients without a token reached, try later");
    }
    assert_eq!(lsp.lsp.as_ref().unwrap().orders().len(), 1);
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    until("the order is paid", || order_state(&lsp) == "paid").await;
    finish([&wallet, &payer, &lsp]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = lsp(&world, json!({}), 100).await;
    world.fund(&[&lsp]).await;
    let mut peer = Raw::new(0, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    let text = |text: &str| text.as_bytes().to_vec();
    let no_requests = [
        vec![],
        vec![0xff; 100],
        text("{"),
        text("null"),
        text("[]"),
        text("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"lsps2.get_info\"}"),
        vec![b'['; MAX_PAYLOAD],
        vec![b' '; MAX_PAYLOAD],
    ];
    for payload in no_requests {
        peer.send(MESSAGE_TYPE, payload);
        let answer = peer.answer().await;
        let code = answer["error"]["code"].as_i64().unwrap();
        assert!([-32700, -32600].contains(&code), "{answer}");
        assert_eq!(answer["id"], Value::Null);
    }
    // What nobody knows and need not know is passed over, onion messages too.
    for odd in [37_915, 65_535, 513] {
        peer.send(odd, vec![3; 1_500]);
        if !peer.is_connected() {
            peer.connect_again().await;
        }
    }
    let mut peer = Raw::new(1, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    assert!(offer(&mut peer).await.is_object());
    // What must be known and is not ends the connection, and nothing else.
    peer.send(37_914, vec![3; 10]);
    peer.is_hung_up_on().await;
    peer.connect_again().await;
    assert!(offer(&mut peer).await.is_object());
    // A message for a channel that is none.
    peer.send(132, vec![9; 32 + 64 + 2]);
    let mut peer = Raw::new(2, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    assert!(offer(&mut peer).await.is_object());
    assert!(lsp.lsp.as_ref().unwrap().orders().is_empty());
    lsp.stop().await.unwrap();
}

/// Buys on and on, four at once, until it is hung up on: what it was sold.
async fn buy_to_the_end(mut peer: Raw, wanted: Value) -> Vec<String> {
    let mut sold = Vec::new();
    for _ in 1..4 {
        peer.request(BUY, &wanted);
    }
    loop {
        peer.request(BUY, &wanted);
        let Some(answer) = peer.answer_if_any().await else {
            return sold;
        };
        let scid = &answer["result"]["jit_channel_scid"];
        let scid = scid.as_str().unwrap_or_else(|| panic!("{answer}"));
        sold.push(scid.to_owned());
    }
}

/// A node that can store nothing any more says nothing: it neither sells nor refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_while_many_buy() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({
        "max_orders_per_client": 10_000,
        "max_orders": 10_000,
        "max_exposure_per_client_msat": 1_000_000_000_000_u64,
        "max_exposure_msat": 1_000_000_000_000_u64,
    });
    let mut settings = on_disk(service("lsp_trusts_client", limits));
    let lsp = world.node("lsp", settings.clone(), None).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 5_000_000).await;
    let at = address(&lsp);
    payer.dial_and_keep(id(&lsp), &at, PATIENCE).await.unwrap();
    settings["listen"] = json!([at]);
    lsp.stop().await.unwrap();
    let mut sold = Vec::new();
    // Its first commits are its start. Each time others are in the middle of what.
    for nth in 11..16 {
        let fails = |config: &mut Config| config.store_fault = Some((nth, StoreFault::Fails));
        let lsp = world.changed("lsp", settings.clone(), fails).await;
        until("the payer is back", || {
            with(&lsp, &payer).iter().any(|c| c.is_usable)
        })
        .await;
        let mut peers = Vec::new();
        for n in 0..16 {
            let mut peer = Raw::new(n, &lsp, "127.0.0.1");
            assert!(peer.connect().await);
            let wanted = buys(&offer(&mut peer).await);
            peers.push(buy_to_the_end(peer, wanted));
        }
        let peers: JoinSet<_> = peers.into_iter().collect();
        sold.extend(peers.join_all().await.into_iter().flatten());
        let _ = lsp.stop().await;
        let counted = lsp.metrics();
        let mut families = counted.as_array().unwrap().iter();
        let refused = families.find(|family| family["name"] == "ldkjit_refused_total");
        assert_eq!(refused.unwrap()["samples"], json!([]));
    }
    assert!(!sold.is_empty(), "the store fails later");
    let lsp = world.node("lsp", settings, None).await;
    let kept = lsp.lsp.as_ref().unwrap().orders();
    for scid in &sold {
        assert!(kept.iter().any(|order| order["scid"] == **scid), "{scid}");
    }
    finish([&payer, &lsp]).await;
}
