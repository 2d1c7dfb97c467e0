//! The operator's hooks at a real node: what they decide, and what happens when they do not answer, or too late, or twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::common::raw::Raw;
use crate::common::{
    address, buys_from, count, finish, id, jit_invoice, menu, on_disk, order, order_state, outcome,
    pay, send, until, with, World, PATIENCE,
};
use ldkjit_core::lsps2::{BUY, GET_INFO};
use ldkjit_node::config::Runs;
use ldkjit_node::lsp::hooks::{Asker, Desk};
use ldkjit_node::node::Node;
use ldkjit_node::payments::PaymentStatus;
use serde_json::{json, Value};

const SIZE: u64 = 100_000_000;

/// Answers at once, or never.
type Mind = dyn Fn(&str, &Value) -> Option<Value> + Send + Sync;

/// An application whose hooks do what the test says.
struct Application {
    mind: Mutex<Arc<Mind>>,
    desk: Mutex<Option<Arc<Desk>>>,
    /// Questions not answered yet.
    open: Mutex<Vec<(u64, Value)>>,
    asked: AtomicU64,
    forgotten: AtomicU64,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Application")
    }
}

impl Asker for Application {
    fn ask(&self, id: u64, _: Runs, question: String) {
        let question: Value = serde_json::from_str(&question).unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mind = self.mind.lock().unwrap().clone();
        match mind(question["hook"].as_str().unwrap(), &question["ask"]) {
            Some(answer) => self.answer(id, &answer),
            None => self.open.lock().unwrap().push((id, question)),
        }
    }

    fn forget(&self, _: u64) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

impl Application {
    fn new(mind: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            mind: Mutex::new(Arc::new(mind)),
            desk: Mutex::default(),
            open: Mutex::default(),
            asked: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        })
    }

    fn minds(&self, mind: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) {
        *self.mind.lock().unwrap() = Arc::new(mind);
    }

    fn answer(&self, id: u64, answer: &Value) {
        let desk = self.desk.lock().unwrap().clone();
        desk.unwrap().answer(id, answer.to_string());
    }

    fn waiting(&self) -> usize {
        self.open.lock().unwrap().len()
    }

    fn answer_all(&self, answer: &Value) {
        for (id, _) in std::mem::take(&mut *self.open.lock().unwrap()) {
            self.answer(id, answer);
        }
    }

    /// An LSP that asks this application.
    async fn lsp(self: &Arc<Self>, world: &World, settings: Value) -> Arc<Node> {
        let application = Arc::clone(self);
        let change = move |config: &mut ldkjit_node::config::Config| {
            let policy = config.lsp.as_ref().unwrap().policy.clone();
            let desk = Arc::new(Desk::new(policy, application.clone()));
            *application.desk.lock().unwrap() = Some(desk.clone());
            config.desk = Some(desk);
        };
        world.changed("lsp", settings, change).await
    }
}

fn service(hooks: &[&str], policy: Value, limits: Value) -> Value {
    let mut policy = policy;
    let hooks = hooks
        .iter()
        .map(|hook| (hook.to_string(), Value::from("loop")));
    policy["hooks"] = Value::Object(hooks.collect());
    json!({"lsp": {"menu": menu(), "policy": policy, "limits": limits}})
}

/// A payer whose channel lets this LSP receive, and coins for both.
async fn stocked(world: &World, lsp: &Arc<Node>) -> Arc<Node> {
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[lsp, &payer]).await;
    world.channel(&payer, lsp, 1_000_000).await;
    payer
}

fn yes() -> Option<Value> {
    Some(json!({"yes": {}}))
}

fn counts(lsp: &Node, hook: &str, what: &str) -> u64 {
    lsp.status()["policy"][hook][what].as_u64().unwrap_or(0)
}

fn buys(offer: &Value) -> Value {
    json!({"opening_fee_params": offer, "payment_size_msat": SIZE.to_string()})
}

async fn offers(peer: &mut Raw, token: Option<&str>) -> Vec<Value> {
    let params = token.map_or(json!({}), |token| json!({"token": token}));
    let menu = peer.ask(GET_INFO, &params).await;
    let offers = menu["result"]["opening_fee_params_menu"].as_array();
    offers.unwrap_or_else(|| panic!("{menu}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_decide_on_menu_sale_and_channel() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|hook, ask| match hook {
        "menu" => {
            assert_eq!(
                ask["menu"].as_array().unwrap().len(),
                1,
                "what the rules offer"
            );
            let mut tier = ask["menu"][0].clone();
            tier["min_fee_msat"] = 3_000_000.into();
            Some(json!({"yes": {"tiers": [tier]}}))
        }
        "sell" => {
            assert_eq!(ask["size_msat"], SIZE);
            assert_eq!(ask["fee_msat"], 3_000_000);
            assert_eq!(ask["client"]["orders"], 0);
            yes()
        }
        _ => {
            assert_eq!(ask["held_msat"], SIZE);
            assert_eq!(ask["client"]["orders"], 1);
            assert!(ask["needed_sat"].as_u64().unwrap() < 300_000);
            assert!(ask["state"]["coins_sat"].as_u64().unwrap() > 0);
            Some(json!({"yes": {"value_sat": 300_000}}))
        }
    });
    let settings = service(&["menu", "sell", "channel"], json!({}), json!({}));
    let lsp = application.lsp(&world, settings).await;
    let [payer, wallet] = world
        .customers(&lsp, buys_from(&lsp, json!({})), None)
        .await;
    let invoice = jit_invoice(&wallet, Some(SIZE)).await;
    let paid = pay(&payer, &invoice.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    until("the fee is earned", || order_state(&lsp) == "paid").await;
    assert_eq!(order(&lsp)["earned"], 3_000_000);
    let channels = with(&lsp, &wallet);
    assert_eq!(channels[0].channel_value_satoshis, 300_000);
    for hook in ["menu", "sell", "channel"] {
        assert_eq!(
            (counts(&lsp, hook, "asked"), counts(&lsp, hook, "answered")),
            (1, 1)
        );
    }
    finish([&lsp, &payer, &wallet]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_the_hook_knows_is_good_after_a_restart() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|hook, ask| match hook {
        "menu" if ask["client"]["token"] == "secret" => {
            assert!(ask["menu"].as_array().unwrap().is_empty());
            Some(json!({"yes": {"tiers": menu()}}))
        }
        "menu" => Some(json!({"refuse": {"reason": "unknown_token"}})),
        _ => {
            assert_eq!(ask["client"]["token"], "secret");
            yes()
        }
    });
    let settings = on_disk(service(&["menu", "sell"], json!({}), json!({})));
    let lsp = application.lsp(&world, settings.clone()).await;
    let payer = stocked(&world, &lsp).await;
    let mut peer = Raw::new(1, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    let refused = peer.ask(GET_INFO, &json!({"token": "guessed"})).await;
    assert_eq!(refused["error"]["code"], 200, "{refused}");
    let long = peer.ask(GET_INFO, &json!({"token": "x".repeat(300)})).await;
    assert_eq!(long["error"]["code"], 200, "{long}");
    let offer = offers(&mut peer, Some("secret")).await.remove(0);
    let sold = peer.ask(BUY, &buys(&offer)).await;
    assert!(sold["result"]["jit_channel_scid"].is_string(), "{sold}");

    lsp.stop().await.unwrap();
    let mut settings = settings;
    settings["listen"] = json!([address(&lsp)]);
    let lsp = application.lsp(&world, settings).await;
    peer.connect_again().await;
    let sold = peer.ask(BUY, &buys(&offer)).await;
    assert!(sold["result"]["jit_channel_scid"].is_string(), "{sold}");
    assert_eq!(lsp.lsp.as_ref().unwrap().orders().len(), 2);
    finish([&lsp, &payer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_silent_costs_a_safe_answer_and_is_left_in_peace() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|_, _| None);
    let policy = json!({"menu_ms": 100, "sell_ms": 100, "breaker_after": 3, "breaker_ms": 1_500});
    let settings = service(&["menu", "sell"], policy, json!({}));
    let lsp = application.lsp(&world, settings).await;
    let payer = stocked(&world, &lsp).await;
    let mut peer = Raw::new(1, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    for _ in 0..3 {
        assert_eq!(offers(&mut peer, None).await, Vec::<Value>::new());
    }
    let fast = Instant::now();
    for _ in 0..10 {
        assert!(offers(&mut peer, None).await.is_empty());
    }
    assert!(fast.elapsed().as_millis() < 1_000);
    assert_eq!(counts(&lsp, "menu", "deadline"), 3);
    assert_eq!(counts(&lsp, "menu", "broken"), 10);
    // What comes now comes too late, once.
    let tiers = json!({"yes": {"tiers": menu()}});
    let late = application.open.lock().unwrap().clone();
    application.answer_all(&tiers);
    late.iter()
        .for_each(|(id, _)| application.answer(*id, &tiers));
    assert_eq!(counts(&lsp, "menu", "late"), 3);
    assert_eq!(application.forgotten.load(Ordering::SeqCst), 3);

    // Tried again after its pause, and trusted again at once.
    application.minds(move |hook, _| match hook {
        "menu" => Some(tiers.clone()),
        _ => None,
    });
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let offer = loop {
        if let Some(offer) = offers(&mut peer, None).await.pop() {
            break offer;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let refused = peer.ask(BUY, &buys(&offer)).await;
    assert_eq!(refused["error"]["code"], 1, "{refused}");
    assert_eq!(
        refused["error"]["message"],
        "refused: no answer from the operator's rules"
    );
    // Nonsense and errors are refusals too.
    for (answer, what) in [
        (json!({"yes": {"trust": "nobody"}}), "nonsense"),
        (json!({"no": 1}), "nonsense"),
        (json!({"fault": {"kind": "raised", "text": "E"}}), "raised"),
        (json!({"fault": {"kind": "closed"}}), "closed"),
    ] {
        let before = counts(&lsp, "sell", what);
        application.minds(move |_, _| Some(answer.clone()));
        let refused = peer.ask(BUY, &buys(&offer)).await;
        assert_eq!(refused["error"]["code"], 1, "{refused}");
        assert_eq!(counts(&lsp, "sell", what), before + 1);
    }
    application.minds(|_, _| Some(json!({"refuse": {"message": "not \u{202e}you"}})));
    let refused = peer.ask(BUY, &buys(&offer)).await;
    assert_eq!(refused["error"]["message"], "not ?you");
    assert_eq!(counts(&lsp, "sell", "refused"), 1);
    application.minds(|_, _| yes());
    let sold = peer.ask(BUY, &buys(&offer)).await;
    assert!(sold["result"]["jit_channel_scid"].is_string(), "{sold}");
    assert_eq!(count(&lsp, ["order_sold"]).await, [1]);
    finish([&lsp, &payer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_however_many_sales_a_hook_grants_at_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|_, _| None);
    let limits = json!({"max_orders_per_client": 2});
    let lsp = application
        .lsp(&world, service(&["sell"], json!({}), limits))
        .await;
    let payer = stocked(&world, &lsp).await;
    let mut peer = Raw::new(1, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    let offer = offers(&mut peer, None).await.remove(0);
    for _ in 0..6 {
        peer.request(BUY, &buys(&offer));
    }
    until("all are asked about", || application.waiting() == 6).await;
    application.answer_all(&json!({"yes": {}}));
    let mut sold = 0;
    for _ in 0..6 {
        let answer = peer.answer().await;
        if answer["result"].is_object() {
            sold += 1;
        } else {
            assert_eq!(
                answer["error"]["message"],
                "too many open orders for this client"
            );
        }
    }
    assert_eq!(sold, 2);
    assert_eq!(count(&lsp, ["order_sold"]).await, [2]);
    finish([&lsp, &payer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_questions_wait_than_may() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|_, _| None);
    let policy = json!({"max_waiting": 4, "sell_ms": 60_000});
    let lsp = application
        .lsp(&world, service(&["sell"], policy, json!({})))
        .await;
    let payer = stocked(&world, &lsp).await;
    let mut peer = Raw::new(1, &lsp, "127.0.0.1");
    assert!(peer.connect().await);
    let offer = offers(&mut peer, None).await.remove(0);
    for _ in 0..7 {
        peer.request(BUY, &buys(&offer));
    }
    for _ in 0..3 {
        assert_eq!(peer.answer().await["error"]["code"], 1);
    }
    until("the others wait", || application.waiting() == 4).await;
    assert_eq!(counts(&lsp, "sell", "queue_full"), 3);
    application.answer_all(&json!({"yes": {}}));
    for _ in 0..4 {
        assert!(peer.answer().await["result"].is_object());
    }
    // A stop with questions open takes no time.
    peer.request(BUY, &buys(&offer));
    until("it is asked about", || application.waiting() == 1).await;
    let stop = Instant::now();
    finish([&lsp, &payer]).await;
    assert!(stop.elapsed().as_secs() < 10);
    assert_eq!(application.forgotten.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_refused_fails_its_payment_and_the_next_one_is_asked_anew() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|_, _| Some(json!({"refuse": {"reason": "maintenance"}})));
    let lsp = application
        .lsp(
            &world,
            service(&["channel"], json!({"channel_ms": 300}), json!({})),
        )
        .await;
    let [payer, wallet] = world
        .customers(&lsp, buys_from(&lsp, json!({})), None)
        .await;
    let invoice = jit_invoice(&wallet, Some(SIZE)).await;
    let failed = pay(&payer, &invoice.bolt11).await;
    assert_eq!(failed.status, PaymentStatus::Failed);
    until("it is for sale again", || order_state(&lsp) == "sold").await;
    assert!(with(&lsp, &wallet).is_empty());

    application.minds(|_, _| None);
    let failed = pay(&payer, &invoice.bolt11).await;
    assert_eq!(failed.status, PaymentStatus::Failed);
    assert_eq!(counts(&lsp, "channel", "deadline"), 1);
    application.minds(|_, _| Some(json!({"yes": {"value_sat": "much"}})));
    let failed = pay(&payer, &invoice.bolt11).await;
    assert_eq!(failed.status, PaymentStatus::Failed);
    assert_eq!(counts(&lsp, "channel", "nonsense"), 1);
    until("it is for sale again", || order_state(&lsp) == "sold").await;
    assert_eq!(order(&lsp)["failures"], 0, "refusals are no failed opens");

    application.minds(|_, _| yes());
    let paid = pay(&payer, &invoice.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    finish([&lsp, &payer, &wallet]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_a_restart_lost_is_asked_again() {
    let Some(world) = World::start().await else {
        return;
    };
    let application = Application::new(|_, _| None);
    let settings = on_disk(service(
        &["channel"],
        json!({"channel_ms": 50_000}),
        json!({}),
    ));
    let lsp = application.lsp(&world, settings.clone()).await;
    let [payer, wallet] = world
        .customers(&lsp, buys_from(&lsp, json!({})), None)
        .await;
    let dialled = payer
        .dial_and_keep(id(&lsp), &address(&lsp), PATIENCE)
        .await;
    dialled.unwrap();
    let invoice = jit_invoice(&wallet, Some(SIZE)).await;
    let hash = send(&payer, &invoice.bolt11, None).await;
    until("it is asked about", || application.waiting() == 1).await;
    assert_eq!(order(&lsp)["open"]["phase"], "asking");
    lsp.stop().await.unwrap();
    application.open.lock().unwrap().clear();

    let mut settings = settings;
    settings["listen"] = json!([address(&lsp)]);
    let lsp = application.lsp(&world, settings).await;
    until("it is asked again", || application.waiting() == 1).await;
    application.answer_all(&json!({"yes": {}}));
    let paid = outcome(&payer, &hash).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(application.asked.load(Ordering::SeqCst), 2);
    until("the fee is earned", || order_state(&lsp) == "paid").await;
    finish([&lsp, &payer, &wallet]).await;
}
