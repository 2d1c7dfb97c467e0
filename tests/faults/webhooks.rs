//! Webhooks over real TLS: clients that are called back from sleep, and web servers that do what they should not.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::raw::Raw;
use crate::common::web::{Answer, Call, Web, OK};
use crate::common::{
    asks, assert_books, buys_from, coins_sat, event, events, finish, id, jit_invoice, on_disk,
    order_state, outcome, pay, send, service, until, with, World, PATIENCE,
};
use ldkjit_core::ids::NodeId;
use ldkjit_node::client::JitChoice;
use ldkjit_node::convert;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

const SIZE: u64 = 50_000_000;
const REGISTERED: &str = "lsps5.webhook_registered";
const INCOMING: &str = "lsps5.payment_incoming";
/// For several turns of the cooldown, which is a second here.
const A_WHILE: Duration = Duration::from_millis(2_500);

/// An LSP that calls webhooks on this machine, `more` laid over its webhooks' settings.
fn calling(ca: &Path, more: Value) -> Value {
    let mut settings = service("lsp_trusts_client", json!({"wake_ms": 600_000}));
    let mut webhooks = json!({"allow_private": true, "root_ca": ca, "cooldown_ms": 1_000});
    let map = webhooks.as_object_mut().unwrap();
    map.extend(more.as_object().unwrap().clone());
    settings["lsp"]["webhooks"] = webhooks;
    settings
}

async fn lsp(world: &World, web: &Web, more: Value) -> Arc<Node> {
    world.node("lsp", calling(&web.ca, more), None).await
}

fn count(lsp: &Node, what: &str) -> u64 {
    lsp.status()["webhooks"][what].as_u64().unwrap_or(0)
}

fn node_id(node: &Node) -> NodeId {
    convert::node_id(&id(node))
}

async fn set(peer: &mut Raw, name: &str, url: &str) -> Value {
    let params = json!({"app_name": name, "webhook": url});
    peer.ask("lsps5.set_webhook", &params).await
}

async fn listed(peer: &mut Raw) -> Value {
    let answer = peer.ask("lsps5.list_webhooks", &json!({})).await;
    answer["result"]["app_names"].clone()
}

/// A peer of this LSP that is connected.
async fn peer(n: u32, lsp: &Node) -> Raw {
    let peer = Raw::new(n, lsp, "127.0.0.1");
    assert!(peer.connect().await);
    peer
}

async fn registers(wallet: &Node, lsp: &Node, name: &str, url: &str) {
    let lsp = node_id(lsp);
    let set = wallet.set_webhook(&lsp, name, url, PATIENCE).await;
    assert!(!set.unwrap().no_change);
}

fn is_genuine(call: &Call, lsp: &Node) {
    assert!(call.line.starts_with("POST /"), "{call:?}");
    assert_eq!(call.headers["content-type"], "application/json");
    let told = call.verified_by(lsp).unwrap();
    assert_eq!(told["method"].as_str(), Some(call.method().as_str()));
    // As the specification writes it.
    let timestamp = &call.headers["x-lsps5-timestamp"];
    assert!(
        timestamp.len() == 24 && timestamp.ends_with('Z'),
        "{timestamp}"
    );
}

/// A wallet that sleeps is paid: the LSP holds the payment, calls, the wallet comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_14_W_15_W_18_W_27_S_35_S_75_a_sleeping_wallet_is_called_and_paid() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let lsp = lsp(&world, &web, json!({})).await;
    let buys = on_disk(buys_from(&lsp, json!({})));
    let [payer, wallet] = world.customers(&lsp, buys.clone(), None).await;
    let coins = coins_sat(&lsp);
    let seller = node_id(&lsp);
    for (name, path) in [("phone", "/push?token=1"), ("tablet", "/push?token=2")] {
        registers(&wallet, &lsp, name, &web.url(path)).await;
    }
    let listed = wallet.list_webhooks(&seller, PATIENCE).await.unwrap();
    assert_eq!(listed.app_names, ["phone", "tablet"]);
    until("both are announced", || web.count(REGISTERED) == 2).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;

    // While it is here nobody is called.
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    assert_eq!(web.count(INCOMING), 0);
    let hash = send(&payer, &bought.bolt11, None).await;
    until("both are called", || web.count(INCOMING) == 2).await;
    assert_eq!(order_state(&lsp), "waking");
    for call in web.calls() {
        is_genuine(&call, &lsp);
    }
    let called = event(&lsp, "webhook_called").await;
    assert_eq!(called["client"], node_id(&wallet).to_string());
    assert_eq!(
        (&called["method"], &called["delivered"]),
        (&INCOMING.into(), &true.into())
    );

    let wallet = world.node("wallet", buys.clone(), None).await;
    let paid = outcome(&payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    until("the order is paid", || order_state(&lsp) == "paid").await;
    assert_books(&lsp, &wallet, coins, 2_000_000).await;
    let so_far = web.calls().len();

    // It is here now: nothing is said, by its webhooks or by the operator.
    tokio::time::sleep(A_WHILE).await;
    let note =
        json!({"node_id": id(&wallet).to_string(), "notice": "liquidity_management_request"});
    let told = ldkjit_node::api::call(&lsp, "notify_client", note.clone()).await;
    assert_eq!(told.unwrap(), json!({"told": false}));
    assert_eq!(web.calls().len(), so_far);
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    let told = ldkjit_node::api::call(&lsp, "notify_client", note).await;
    assert_eq!(told.unwrap(), json!({"told": true}));
    let call = web.call(so_far).await;
    assert_eq!(call.method(), "lsps5.liquidity_management_request");
    is_genuine(&call, &lsp);
    finish([&payer, &lsp]).await;
}

/// A payment to the scid of a channel there is: LDK fails it, and the wallet is called for the next attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_14_S_75_a_payment_over_a_channel_that_is_missed() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let lsp = lsp(&world, &web, json!({})).await;
    let buys = on_disk(buys_from(&lsp, json!({})));
    let [payer, wallet] = world.customers(&lsp, buys.clone(), None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    assert_eq!(
        pay(&payer, &bought.bolt11).await.status,
        PaymentStatus::Succeeded
    );
    registers(&wallet, &lsp, "phone", &web.url("/")).await;
    web.call(0).await;
    let later = wallet
        .receive(asks(Some(1_000_000), JitChoice::Never))
        .await
        .unwrap();
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    assert_eq!(
        pay(&payer, &later.bolt11).await.status,
        PaymentStatus::Failed
    );
    let call = web.call(1).await;
    assert_eq!(call.method(), INCOMING);
    is_genuine(&call, &lsp);
    finish([&payer, &lsp]).await;
}

/// Once in a cooldown, again after it, and at once when the client has been here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_24_B_18_a_client_that_stays_away_is_called_again_after_the_cooldown() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let lsp = lsp(&world, &web, json!({"cooldown_ms": 4_000})).await;
    let buys = on_disk(buys_from(&lsp, json!({})));
    let [payer, wallet] = world.customers(&lsp, buys.clone(), None).await;
    registers(&wallet, &lsp, "phone", &web.url("/")).await;
    let bought = [
        jit_invoice(&wallet, Some(SIZE)).await,
        jit_invoice(&wallet, Some(SIZE)).await,
    ];
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    let mut hashes = Vec::new();
    for each in &bought {
        hashes.push(send(&payer, &each.bolt11, None).await);
    }
    let waiting = || {
        let orders = lsp.lsp.as_ref().unwrap().orders();
        orders.iter().filter(|o| o["state"] == "waking").count()
    };
    until("both payments wait", || waiting() == 2).await;
    // Two payments, one call; and another when the time is over.
    let [first, second] = [web.call(1).await, web.call(2).await];
    assert_eq!([first.method(), second.method()], [INCOMING, INCOMING]);
    let apart = second.at_ms - first.at_ms;
    assert!((3_900..10_000).contains(&apart), "{apart}");

    let wallet = world.node("wallet", buys, None).await;
    for hash in &hashes {
        assert_eq!(outcome(&payer, hash).await.status, PaymentStatus::Succeeded);
    }
    let so_far = web.calls().len();
    // It was here: the next payment is said at once. The coins of the first two channels are there again.
    until("both orders are paid", || {
        let orders = lsp.lsp.as_ref().unwrap().orders();
        orders.iter().all(|o| o["state"] == "paid")
    })
    .await;
    until("both channels are published", || {
        lsp.parts.wallet.unconfirmed().len() == 2
    })
    .await;
    world.mine(1, &[&lsp, &payer, &wallet]).await;
    let third = jit_invoice(&wallet, Some(SIZE)).await;
    wallet.stop().await.unwrap();
    until("the LSP knows", || !lsp.is_connected(&id(&wallet))).await;
    let sent = Instant::now();
    send(&payer, &third.bolt11, None).await;
    assert_eq!(web.call(so_far).await.method(), INCOMING);
    assert!(sent.elapsed() < Duration::from_secs(4));
    payer.stop().await.unwrap();
    lsp.stop().await.unwrap();
}

/// What was answered is kept, and announced though the LSP and the web server were down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_05_W_07_W_08_W_11_webhooks_survive_restarts() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let settings = on_disk(calling(&web.ca, json!({"max_webhooks": 2})));
    let lsp = world.node("lsp", settings.clone(), None).await;
    let mut client = peer(1, &lsp).await;
    let expected = |n: u64, no_change: bool| json!({"num_webhooks": n, "max_webhooks": 2, "no_change": no_change});
    assert_eq!(
        set(&mut client, "up", &web.url("/up")).await["result"],
        expected(1, false)
    );
    assert_eq!(web.call(0).await.method(), REGISTERED);
    // Nobody listens there yet.
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let down = format!("https://localhost:{port}/down");
    assert_eq!(
        set(&mut client, "down", &down).await["result"],
        expected(2, false)
    );
    let refused = set(&mut client, "third", &web.url("/third")).await;
    assert_eq!(refused["error"]["code"], 503);
    assert_eq!(refused["error"]["data"], json!({"max_webhooks": 2}));

    let lsp = world.restarted(&lsp, settings.clone()).await;
    client.connect_again().await;
    assert_eq!(listed(&mut client).await, json!(["down", "up"]));
    assert_eq!(
        set(&mut client, "up", &web.url("/up")).await["result"],
        expected(2, true)
    );
    let late = Web::answering(&world.running.folder, port, |_| Answer::Text(OK.into())).await;
    let call = late.call(0).await;
    assert_eq!((call.path(), &*call.method()), ("/down", REGISTERED));
    is_genuine(&call, &lsp);

    // Announced once and for all, and never what is removed.
    let removed = client
        .ask("lsps5.remove_webhook", &json!({"app_name": "up"}))
        .await;
    assert_eq!(removed["result"], json!({}));
    until("it is done", || count(&lsp, "delivered") == 1).await;
    let lsp = world.restarted(&lsp, settings).await;
    client.connect_again().await;
    assert_eq!(listed(&mut client).await, json!(["down"]));
    let again = client
        .ask("lsps5.remove_webhook", &json!({"app_name": "up"}))
        .await;
    assert_eq!(again["error"]["code"], 1010);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((web.calls().len(), late.calls().len()), (1, 1));
    lsp.stop().await.unwrap();
}

/// One client's share, that of strangers, and who is not served at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_have_limits() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let denied = Raw::new(9, &*world.node("other", json!({}), None).await, "127.0.0.1");
    let mut settings = calling(&web.ca, json!({"max_strangers": 2}));
    settings["lsp"]["deny"] = json!([denied.id.to_string()]);
    let lsp = world.node("lsp", settings, None).await;
    let mut peers = Vec::new();
    for n in [1, 2, 3, 9] {
        peers.push(peer(n, &lsp).await);
    }
    let mut codes = Vec::new();
    for each in &mut peers {
        codes.push(set(each, "a", &web.url("/")).await["error"]["code"].clone());
    }
    assert_eq!(codes, [json!(null), json!(null), json!(1), json!(1)]);
    assert_eq!(count(&lsp, "registered"), 2);
    // An order makes it a client.
    let menu = peers[2].ask("lsps2.get_info", &json!({})).await;
    assert!(menu["result"].is_object(), "and it was not cut off: {menu}");
    lsp.stop().await.unwrap();
}

/// Addresses that only this machine can reach are not called, whatever name they go by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_28_private_addresses_are_refused() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let lsp = lsp(&world, &web, json!({"allow_private": false})).await;
    let mut client = peer(1, &lsp).await;
    let port = web.port;
    let hosts = [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "LOCALHOST",
    ];
    for (n, host) in (1..).zip(hosts) {
        let url = format!("https://{host}:{port}/");
        assert_eq!(set(&mut client, host, &url).await["error"], json!(null));
        until("it is refused", || count(&lsp, "private_address") == n).await;
    }
    assert_eq!(web.connections.load(Ordering::SeqCst), 0);
    // Strangers fill no history.
    assert!(events(&lsp, "webhook_called").await.is_empty());
    lsp.stop().await.unwrap();
}

/// Whatever a server answers is its last word, and only 200 is success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_19_W_20_answers_that_are_no_success() {
    let Some(world) = World::start().await else {
        return;
    };
    let folder = &world.running.folder;
    let web = Web::answering(folder, 0, |call| match call.path() {
        "/redirect" => Answer::Text(
            "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".into(),
        ),
        "/permanent" => Answer::Text(
            "HTTP/1.1 308 x\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n".into(),
        ),
        "/gone" => Answer::Text("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".into()),
        "/no-content" => Answer::Text("HTTP/1.1 204 No Content\r\n\r\n".into()),
        "/garbage" => Answer::Text("SSH-2.0-OpenSSH\r\n".into()),
        "/nothing" => Answer::Text(String::new()),
        "/headers" => Answer::Flood("x-more: and more\r\n".into()),
        "/endless-head" => Answer::Flood("HTTP/1.1 200 OK".into()),
        "/body" => Answer::Text(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10_000_000))),
        "/close" => Answer::Text("HTTP/1.0 200 OK\r\n\r\n".into()),
        _ => Answer::Text(OK.into()),
    })
    .await;
    let lsp = lsp(&world, &web, json!({"timeout_ms": 5_000})).await;
    let mut client = peer(1, &lsp).await;
    let outcomes = [
        ("/redirect", "status"),
        ("/permanent", "status"),
        ("/gone", "status"),
        ("/no-content", "status"),
        ("/garbage", "http"),
        ("/nothing", "http"),
        ("/headers", "http"),
        ("/endless-head", "http"),
        ("/body", "delivered"),
        ("/close", "delivered"),
        ("/fine", "delivered"),
    ];
    for (path, outcome) in outcomes {
        let before = count(&lsp, outcome);
        assert_eq!(
            set(&mut client, "a", &web.url(path)).await["error"],
            json!(null)
        );
        until(path, || count(&lsp, outcome) == before + 1).await;
    }
    // Each was asked once, and nobody went elsewhere.
    let told = web.told();
    let expected: Vec<_> = outcomes
        .map(|(path, _)| (path.to_owned(), REGISTERED.to_owned()))
        .into();
    assert_eq!(told, expected);
    lsp.stop().await.unwrap();
}

/// A server that is not who it says it is hears nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_28_no_tls_no_notification() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let mut settings = calling(&web.ca, json!({}));
    settings["lsp"]["webhooks"]["root_ca"] = Value::Null;
    let lsp = world.node("lsp", settings, None).await;
    let mut client = peer(1, &lsp).await;
    set(&mut client, "unknown authority", &web.url("/")).await;
    until("it is refused", || count(&lsp, "tls") == 1).await;
    // What speaks no TLS at all: the LSP's own Lightning port.
    let listening = crate::common::address(&lsp);
    set(&mut client, "no TLS", &format!("https://{listening}/")).await;
    until("it is refused", || {
        ["tls", "timeout"]
            .iter()
            .map(|w| count(&lsp, w))
            .sum::<u64>()
            == 2
    })
    .await;
    assert!(web.calls().is_empty());
    lsp.stop().await.unwrap();

    // The right authority, and another name.
    let lsp = world.node("named", calling(&web.ca, json!({})), None).await;
    let mut client = peer(1, &lsp).await;
    let url = format!("https://127.0.0.1:{}/", web.port);
    set(&mut client, "another name", &url).await;
    until("it is refused", || count(&lsp, "tls") == 1).await;
    assert!(web.calls().is_empty());
    lsp.stop().await.unwrap();
    for bad in ["no such file", "web.key"] {
        let settings = calling(&world.running.folder.join(bad), json!({}));
        let refused = world.begin("bad", settings, |_| ()).await;
        let error = refused.err().expect("started");
        assert_eq!(error.code, "config", "{error}");
        assert!(error.message.contains("root_ca"), "{error}");
    }
}

/// Servers that never answer hold up neither each other's calls, nor payments, nor the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_28_a_hanging_server_holds_up_nobody() {
    let Some(world) = World::start().await else {
        return;
    };
    let folder = &world.running.folder;
    let web = Web::answering(folder, 0, |call| match call.path() {
        "/hangs" => Answer::Silence,
        _ => Answer::Text(OK.into()),
    })
    .await;
    let more = json!({"timeout_ms": 500, "max_concurrent": 2, "max_webhooks": 20});
    let lsp = lsp(&world, &web, more).await;
    let mut client = peer(1, &lsp).await;
    for n in 0..6 {
        let name = format!("hangs {n}");
        assert_eq!(
            set(&mut client, &name, &web.url("/hangs")).await["error"],
            json!(null)
        );
    }
    // Requests are answered meanwhile, and a good webhook has its turn.
    let asked = Instant::now();
    assert_eq!(
        set(&mut client, "fine", &web.url("/fine")).await["error"],
        json!(null)
    );
    assert!(asked.elapsed() < Duration::from_millis(500));
    until("the good one is told", || {
        web.told().iter().any(|(path, _)| path == "/fine")
    })
    .await;
    let at_once = web.connections.load(Ordering::SeqCst);
    assert!(at_once <= 9, "{at_once}");
    // While some are under way.
    for n in 0..2 {
        set(&mut client, &format!("more {n}"), &web.url("/hangs")).await;
    }
    let stopping = Instant::now();
    lsp.stop().await.unwrap();
    assert!(
        stopping.elapsed() < Duration::from_secs(2),
        "{:?}",
        stopping.elapsed()
    );
}

/// An HTLC on its way to a wallet that is gone: it is told before the channel has to be closed, and at which height.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_W_22_expiry_soon() {
    let Some(world) = World::start().await else {
        return;
    };
    let web = Web::start(&world.running.folder).await;
    let lsp = lsp(&world, &web, json!({})).await;
    let buys = buys_from(&lsp, json!({}));
    let fault = Some(Fault::HangsUpAtClaim);
    let [payer, wallet] = world.customers(&lsp, buys, fault).await;
    registers(&wallet, &lsp, "phone", &web.url("/")).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    send(&payer, &bought.bolt11, None).await;
    until("the wallet has gone", || {
        !lsp.is_connected(&id(&wallet)) && order_state(&lsp) == "forwarding"
    })
    .await;
    wallet.stop().await.unwrap();
    let expiry = with(&lsp, &wallet)[0].pending_outbound_htlcs[0].cltv_expiry;
    let soon = "lsps5.expiry_soon";
    let early = expiry + 3 - 25;
    let height = lsp.height();
    world.mine(early - height, &[&lsp, &payer]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(web.count(soon), 0);
    world.mine(1, &[&lsp, &payer]).await;
    until("it is told", || web.count(soon) == 1).await;
    let calls = web.calls();
    let call = calls.iter().find(|c| c.method() == soon).unwrap();
    let told = call.verified_by(&lsp).unwrap();
    assert_eq!(told["params"], json!({"timeout": expiry + 3}));
    // LDK closes at that height and not before.
    world.mine(23, &[&lsp, &payer]).await;
    assert_eq!(with(&lsp, &wallet).len(), 1);
    world.mine(1, &[&lsp, &payer]).await;
    until("the channel is closed", || with(&lsp, &wallet).is_empty()).await;
    payer.stop().await.unwrap();
    lsp.stop().await.unwrap();
}
