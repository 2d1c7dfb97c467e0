//! LSPS5: requests, URLs, notifications, and what a service does with webhooks.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;

use common::node;
use ldkjit_core::ids::NodeId;
use ldkjit_core::lsps0::{encode_request, parse_request, RpcError};
use ldkjit_core::lsps5::{
    check_window, expiry_soon, is_public, read_notification, read_result, set_params, signing_text,
    Call, Disbelief, Listed, Notice, Registered, SetWebhook, Url, MAX_BODY, PREFIX,
};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::{parse_datetime, Millis};
use ldkjit_core::webhooks::{
    Client, Limits, Post, Seen, Standing, Webhooks, CHANGES_PER_HOUR, MAX_SEEN,
};
use proptest::prelude::*;
use serde_json::{json, Value};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const START: Millis = Millis(1_700_000_000_000);
const LIMITS: Limits = Limits {
    max_webhooks: 3,
    max_clients: 5,
    max_strangers: 2,
    cooldown_ms: 60_000,
    retention_ms: 7 * DAY,
};
const WITH_CHANNEL: Standing = Standing {
    has_channel: true,
    has_order: false,
};
const WITH_ORDER: Standing = Standing {
    has_channel: false,
    has_order: true,
};
const STRANGER: Standing = Standing {
    has_channel: false,
    has_order: false,
};

// ---- requests ----

fn call(payload: &[u8]) -> Result<Call, RpcError> {
    Call::parse(&parse_request(payload).unwrap(), payload)
}

fn ask(method: &str, params: Value) -> Result<Call, RpcError> {
    call(&encode_request("i", method, &params))
}

fn set_code(app_name: &str, webhook: &str) -> Option<i64> {
    let params = json!({"app_name": app_name, "webhook": webhook});
    ask("lsps5.set_webhook", params).err().map(|e| e.code)
}

#[test]
fn requests_are_read() {
    let url = "https://www.example.org/push?l=1234567890abcdefghijklmnopqrstuv&c=best";
    let set = ask(
        "lsps5.set_webhook",
        json!({"app_name": "My LSPS-Compliant Lightning Client", "webhook": url}),
    );
    let Ok(Call::Set(set)) = set else {
        panic!("{set:?}")
    };
    assert_eq!(set.app_name, "My LSPS-Compliant Lightning Client");
    assert_eq!(set.webhook.as_str(), url);
    assert_eq!(ask("lsps5.list_webhooks", json!({})), Ok(Call::List));
    assert_eq!(
        ask("lsps5.remove_webhook", json!({"app_name": "x"})),
        Ok(Call::Remove {
            app_name: "x".to_owned()
        })
    );
}

#[test]
fn test_T_08_unknown_methods_and_parameters() {
    for method in [
        "lsps5.",
        "lsps5.get_info",
        "lsps5.Set_webhook",
        "lsps5.payment_incoming",
    ] {
        assert_eq!(ask(method, json!({})).unwrap_err().code, -32601);
    }
    let known = json!({"app_name": "a", "webhook": "https://a.b", "b": 1});
    let cases = [
        ("lsps5.set_webhook", known),
        ("lsps5.list_webhooks", json!({"b": 1})),
        ("lsps5.remove_webhook", json!({"app_name": "a", "b": 1})),
    ];
    for (method, params) in cases {
        let error = ask(method, params).unwrap_err();
        assert_eq!(error.code, -32602);
        assert_eq!(error.data, Some(json!({"unrecognized": ["b"]})));
    }
    for params in [
        json!({"app_name": "a"}),
        json!({"webhook": "https://a.b"}),
        json!({"app_name": 1, "webhook": "https://a.b"}),
        json!({"app_name": "a", "webhook": null}),
    ] {
        let error = ask("lsps5.set_webhook", params).unwrap_err();
        assert_eq!(error.code, -32602);
        assert_eq!(error.data, Some(json!({"unrecognized": []})));
    }
    let error = ask("lsps5.remove_webhook", json!({"app_name": ["a"]})).unwrap_err();
    assert_eq!(error.code, -32602);
}

#[test]
fn test_W_02_lengths() {
    let url = "https://example.org/";
    assert_eq!(set_code(&"a".repeat(64), url), None);
    assert_eq!(set_code(&"a".repeat(65), url), Some(500));
    assert_eq!(set_code(&"é".repeat(32), url), None);
    assert_eq!(set_code(&"é".repeat(33), url), Some(500));
    // A quote is written as two bytes.
    assert_eq!(set_code(&"\"".repeat(32), url), None);
    assert_eq!(set_code(&"\"".repeat(33), url), Some(500));
    let long = |n: usize| format!("{url}{}", "a".repeat(n - url.len()));
    assert_eq!(set_code("a", &long(1_024)), None);
    assert_eq!(set_code("a", &long(1_025)), Some(500));
    // The length comes before what else is wrong.
    assert_eq!(set_code("a", &"é".repeat(1_025)), Some(500));
    assert_eq!(set_code("a", &"é".repeat(1_024)), Some(501));
    assert_eq!(set_code("", url), None);
}

#[test]
fn test_W_02_escapes_count_as_they_were_written() {
    let with = |name: &str| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"lsps5.set_webhook","params":{{"webhook":"https://a.b/","app_name": "{name}"}}}}"#
        );
        call(text.as_bytes()).map_err(|e| e.code)
    };
    let Ok(Call::Set(set)) = with(&r"\u0061".repeat(10)) else {
        panic!()
    };
    assert_eq!(set.app_name, "a".repeat(10));
    assert_eq!(with(&r"\u0061".repeat(11)), Err(500));
    assert_eq!(with(&format!("{}aaaa", r"\u0061".repeat(10))).err(), None);
    assert_eq!(with(&format!("{}aaaaa", r"\u0061".repeat(10))), Err(500));
    assert_eq!(with(&r"\/".repeat(32)).err(), None);
    assert_eq!(with(&r"\/".repeat(33)), Err(500));
}

#[test]
fn test_W_03_W_04_urls() {
    for good in [
        "https://www.example.org/push?l=1234567890abcopqrstuv&c=best",
        "https://example.org",
        "HTTPS://Example.ORG:8443/a;b=c?d=e+f,(g)!*'$-_.~:@&=#fragment",
        "https://192.0.2.1/admin",
        "https://[2001:db8::1]:8443/x",
        "https://xn--fsqu00a.xn--0zwm56d/%20%e4",
        "https://example_example.com/path",
        "https://example.com./",
        "https://example.com:/",
        "https://a?b",
    ] {
        assert_eq!(set_code("a", good), None, "{good}");
    }
    for bad in [
        "",
        "example.org/push",
        "://example.org",
        "https",
        "https:",
        "https:/example.org",
        "https:example.org",
        "https://",
        "https:///path",
        "https://:8080/",
        "https://?x",
        "https://a b.org/",
        "https://example.org/a b",
        "https://example.org/\u{0}",
        "https://example.org/\n",
        "https://example.org/é",
        "https://例子.测试/path",
        "https:\\\\example.org\\",
        "https://example.org/<script>",
        "https://example.org/%",
        "https://example.org/%2",
        "https://example.org/%zz",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://example.org:-1/",
        "https://example.org:+1/",
        "https://example.org:8080:1/",
        "https://user:password@example.org/",
        "https://example.org@evil.org/",
        "https://-a.org/",
        "https://a..org/",
        "https://.org/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://1.2.3.4.5/",
        "https://1.2.3.4./",
        "https://256.1.1.1/",
        "https://[::1/",
        "https://[::1]x/",
        "https://[fe80::1%25eth0]/",
        "https://::1/",
        "https://example.org/[x]",
        "1https://example.org/",
        "ht@ps://example.org/",
        " https://example.org/",
        "https ://example.org/",
    ] {
        assert_eq!(set_code("a", bad), Some(501), "{bad}");
    }
    let long = format!("https://{}.org/", "a".repeat(64));
    assert_eq!(set_code("a", &long), Some(501));
    for other in [
        "http://example.org/",
        "ftp://example.org/",
        "httpss://example.org/",
        "mailto:a@b.org",
        "file:///etc/passwd",
        "a123+-.://example.org",
        "unix:/run/x",
    ] {
        assert_eq!(set_code("a", other), Some(502), "{other}");
    }
}

#[test]
fn a_url_says_where_to_go() {
    let parts = |text: &str| {
        let url = Url::parse(text).unwrap();
        let target = url.target().to_owned();
        (url.host().to_owned(), url.port(), target, url.host_header())
    };
    let owned = |host: &str, port, target: &str, header: &str| {
        (host.to_owned(), port, target.to_owned(), header.to_owned())
    };
    assert_eq!(
        parts("HTTPS://Example.org"),
        owned("example.org", 443, "/", "example.org")
    );
    assert_eq!(
        parts("https://a.b:443/c?d#e"),
        owned("a.b", 443, "/c?d", "a.b")
    );
    assert_eq!(
        parts("https://a.b:8443?d/e#f?g"),
        owned("a.b", 8443, "/?d/e", "a.b:8443")
    );
    assert_eq!(
        parts("https://[2001:DB8::1]:8/x"),
        owned("2001:db8::1", 8, "/x", "[2001:db8::1]:8")
    );
}

#[test]
fn test_W_01_a_client_checks_as_an_lsp_would() {
    let url = "https://example.org/";
    assert_eq!(
        set_params("a", url),
        Ok(json!({"app_name": "a", "webhook": url}))
    );
    assert_eq!(
        set_params("a", "http://example.org/"),
        Err(Reason::NotHttps)
    );
    assert_eq!(
        set_params("a", "https://bücher.example/"),
        Err(Reason::BadUrl)
    );
    assert_eq!(
        set_params(&"a".repeat(65), url),
        Err(Reason::WebhookTooLong)
    );
}

#[test]
fn results_are_read_and_unknown_keys_ignored() {
    let told = json!({"num_webhooks": 2, "max_webhooks": 4, "no_change": false, "new": {}});
    let expected = Registered {
        num_webhooks: 2,
        max_webhooks: 4,
        no_change: false,
    };
    assert_eq!(read_result::<Registered>(told), Ok(expected));
    let listed = json!({"app_names": ["a", "b"], "max_webhooks": 42});
    assert_eq!(read_result::<Listed>(listed).unwrap().app_names, ["a", "b"]);
    for bad in [
        json!([2, 4, false]),
        json!(null),
        json!({"num_webhooks": -1}),
    ] {
        assert_eq!(read_result::<Registered>(bad), Err(Reason::BadResponse));
    }
}

#[test]
fn test_W_28_addresses_that_are_nobodys_business() {
    for private in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "fc00::1",
        "fe80::1",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.0.1",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}

// ---- notifications ----

const EVERY: [Notice; 5] = [
    Notice::WebhookRegistered,
    Notice::PaymentIncoming,
    Notice::ExpirySoon { timeout: 900_000 },
    Notice::LiquidityManagementRequest,
    Notice::OnionMessageIncoming,
];

#[test]
fn test_W_16_W_22_W_23_bodies() {
    let bodies = EVERY.map(Notice::body);
    assert_eq!(
        bodies,
        [
            r#"{"jsonrpc":"2.0","method":"lsps5.webhook_registered","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"lsps5.payment_incoming","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"lsps5.expiry_soon","params":{"timeout":900000}}"#,
            r#"{"jsonrpc":"2.0","method":"lsps5.liquidity_management_request","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"lsps5.onion_message_incoming","params":{}}"#,
        ]
    );
    for (notice, body) in EVERY.iter().zip(&bodies) {
        assert!(notice.method().starts_with(PREFIX));
        let read = read_notification(body, "2023-05-04T10:52:58.395Z").unwrap();
        assert_eq!(read.method, notice.method());
    }
}

#[test]
fn test_W_17_the_vector() {
    let text = signing_text(
        "2023-05-04T10:52:58.395Z",
        r#"{"jsonrpc":"2.0","method":"lsps5.goodbye","params":{}}"#,
    );
    // The specification's hex dump.
    let dump = "
        4c53 5053 353a 2044 4f20 4e4f 5420 5349 474e 2054 4849 5320 4d45 5353 4147 4520
        4d41 4e55 414c 4c59 3a20 4c53 503a 2041 7420 3230 3233 2d30 352d 3034 5431 303a
        3532 3a35 382e 3339 355a 2049 206e 6f74 6966 7920 7b22 6a73 6f6e 7270 6322 3a22
        322e 3022 2c22 6d65 7468 6f64 223a 226c 7370 7335 2e67 6f6f 6462 7965 222c 2270
        6172 616d 7322 3a7b 7d7d";
    let hex: String = text.bytes().map(|b| format!("{b:02x}")).collect();
    let expected: String = dump.split_whitespace().collect();
    assert_eq!(hex, expected);
}

#[test]
fn test_W_22_when_an_htlc_is_about_to_run_out() {
    let soon = |height, closing: &[u32]| expiry_soon(height, closing.iter().copied());
    assert_eq!(soon(100, &[]), None);
    assert_eq!(soon(100, &[125]), None);
    assert_eq!(soon(100, &[300, 124, 130]), Some(124));
    assert_eq!(soon(100, &[99]), Some(99), "overdue");
}

#[test]
fn test_W_25_what_is_no_notification() {
    let at = "2023-05-04T10:52:58.395Z";
    let read = |body: &str| read_notification(body, at).map(|n| n.method);
    let good = r#" { "params": {"new": [1]}, "method": "lsps9.new", "jsonrpc": "2.0" } "#;
    assert_eq!(read(good), Ok("lsps9.new".to_owned()));
    for bad in [
        "",
        "[]",
        "null",
        r#"{"jsonrpc":"2.0","method":"a","params":{}}{}"#,
        r#"{"jsonrpc":"2.0","method":"a"}"#,
        r#"{"jsonrpc":"2.0","method":"a","params":[]}"#,
        r#"{"jsonrpc":"2.0","method":1,"params":{}}"#,
        r#"{"jsonrpc":"1.0","method":"a","params":{}}"#,
        r#"{"method":"a","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"a","params":{},"id":"1"}"#,
        r#"{"jsonrpc":"2.0","params":{}}"#,
    ] {
        assert_eq!(read(bad), Err(Disbelief::Body), "{bad}");
    }
    let huge = format!(
        r#"{{"jsonrpc":"2.0","method":"{}","params":{{}}}}"#,
        "a".repeat(MAX_BODY)
    );
    assert_eq!(read(&huge), Err(Disbelief::Body));
    let body = Notice::PaymentIncoming.body();
    // LDK 0.2.7 writes the last form, and others no fraction (B-13).
    for (text, ms) in [
        (at, 395),
        ("2023-05-04T10:52:58Z", 0),
        ("2023-05-04T10:52:58.395123456+00:00", 395),
    ] {
        let base = parse_datetime("2023-05-04T10:52:58Z").unwrap();
        assert_eq!(
            read_notification(&body, text).unwrap().at,
            base.saturating_add(ms)
        );
    }
    for bad in ["", "now", "1683197578", "2023-05-04 10:52:58Z"] {
        assert_eq!(
            read_notification(&body, bad),
            Err(Disbelief::Timestamp),
            "{bad}"
        );
    }
}

#[test]
fn only_what_is_from_about_now_is_believed() {
    for (at, now, ok) in [
        (1_000, 1_000, true),
        (1_000, 1_600, true),
        (1_000, 1_601, false),
        (1_600, 1_000, true),
        (1_601, 1_000, false),
        (0, u64::MAX, false),
    ] {
        assert_eq!(check_window(Millis(at), Millis(now), 600).is_ok(), ok);
    }
}

#[test]
fn what_was_seen_is_remembered_as_long_as_it_could_be_believed() {
    let mut seen = Seen::default();
    assert!(seen.first_time([1; 32], Millis(100), Millis(0)));
    assert!(!seen.first_time([1; 32], Millis(100), Millis(100)));
    assert!(seen.first_time([2; 32], Millis(300), Millis(100)));
    assert!(seen.first_time([1; 32], Millis(300), Millis(101)));
    assert!(!seen.first_time([1; 32], Millis(300), Millis(102)));
    for n in 0..MAX_SEEN as u64 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        assert!(seen.first_time(digest, Millis(1_000), Millis(200)));
    }
    assert!(
        seen.first_time([2; 32], Millis(1_000), Millis(200)),
        "bounded"
    );
}

// ---- the service's state ----

fn url(n: u64) -> Url {
    Url::parse(&format!("https://example.org/{n}")).unwrap()
}

fn hook(name: &str, n: u64) -> SetWebhook {
    SetWebhook {
        app_name: name.to_owned(),
        webhook: url(n),
    }
}

fn after(ms: u64) -> Millis {
    START.saturating_add(ms)
}

/// Everything that waits for a client, in order, by webhook.
fn drain(webhooks: &mut Webhooks, id: &NodeId) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for name in webhooks.take_idle(id) {
        while let Some(post) = webhooks.next(id, &name) {
            all.push((name.clone(), post.notice.method()));
            webhooks.done(&post);
        }
    }
    all
}

fn one(name: &str, notice: Notice) -> (String, &'static str) {
    (name.to_owned(), notice.method())
}

/// A client with these webhooks, all announced.
fn having(names: &[&str]) -> (Webhooks, NodeId) {
    let (mut webhooks, id) = (Webhooks::default(), node(1));
    for name in names {
        let set = webhooks.set(&LIMITS, &id, &hook(name, 1), WITH_CHANNEL, START);
        assert!(!set.unwrap().no_change);
    }
    assert_eq!(drain(&mut webhooks, &id).len(), names.len());
    (webhooks, id)
}

#[test]
fn test_W_05_W_06_W_08_insert_or_replace() {
    let (mut webhooks, id) = (Webhooks::default(), node(1));
    let mut set = |name: &str, n| {
        let set = webhooks.set(&LIMITS, &id, &hook(name, n), WITH_CHANNEL, START);
        set.map(|r| (r.num_webhooks, r.max_webhooks, r.no_change))
    };
    assert_eq!(set("a", 1), Ok((1, 3, false)));
    assert_eq!(set("a", 1), Ok((1, 3, true)));
    assert_eq!(set("a", 2), Ok((1, 3, false)));
    assert_eq!(set("b", 2), Ok((2, 3, false)));
    assert_eq!(set("c", 2), Ok((3, 3, false)));
    assert_eq!(set("d", 2), Err(Reason::TooManyWebhooks));
    // At the limit a known name is replaced, or confirmed.
    assert_eq!(set("b", 3), Ok((3, 3, false)));
    assert_eq!(set("b", 3), Ok((3, 3, true)));
    assert_eq!(webhooks.list(&LIMITS, &id).app_names, ["a", "b", "c"]);
    assert_eq!(webhooks.count(), 3);
    assert_eq!(webhooks.list(&LIMITS, &node(2)).app_names, [""; 0]);
}

#[test]
fn test_W_12_W_13_B_14_list_and_remove() {
    let (mut webhooks, id) = having(&["a", "b"]);
    assert_eq!(webhooks.remove(&id, "c"), Err(Reason::UnknownWebhook));
    assert_eq!(webhooks.remove(&node(2), "a"), Err(Reason::UnknownWebhook));
    assert_eq!(Reason::UnknownWebhook.wire_code(), Some(1010));
    assert_eq!(webhooks.remove(&id, "a"), Ok(()));
    assert_eq!(webhooks.remove(&id, "a"), Err(Reason::UnknownWebhook));
    let listed = webhooks.list(&LIMITS, &id);
    assert_eq!(
        json!(listed),
        json!({"app_names": ["b"], "max_webhooks": 3})
    );
    assert_eq!(webhooks.remove(&id, "b"), Ok(()));
    assert!(webhooks.row(&id).is_none() && !webhooks.has(&id));
    assert!(!webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, START));
}

#[test]
fn test_W_09_W_11_every_webhook_is_told_and_each_is_announced_first() {
    let (mut webhooks, id) = having(&["a", "b"]);
    webhooks
        .set(&LIMITS, &id, &hook("c", 1), WITH_CHANNEL, START)
        .unwrap();
    assert!(webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, START));
    assert_eq!(
        drain(&mut webhooks, &id),
        [
            one("a", Notice::PaymentIncoming),
            one("b", Notice::PaymentIncoming),
            one("c", Notice::WebhookRegistered),
            one("c", Notice::PaymentIncoming),
        ]
    );
    // A changed one is announced anew, alone; one that is not changed is not.
    webhooks
        .set(&LIMITS, &id, &hook("b", 2), WITH_CHANNEL, START)
        .unwrap();
    webhooks
        .set(&LIMITS, &id, &hook("a", 1), WITH_CHANNEL, START)
        .unwrap();
    assert_eq!(
        drain(&mut webhooks, &id),
        [one("b", Notice::WebhookRegistered)]
    );
}

#[test]
fn test_W_11_an_announcement_survives_a_restart_until_it_is_sent() {
    let (mut webhooks, id) = having(&["a"]);
    webhooks
        .set(&LIMITS, &id, &hook("b", 1), WITH_CHANNEL, START)
        .unwrap();
    let row = serde_json::to_vec(webhooks.row(&id).unwrap()).unwrap();
    let client: Client = serde_json::from_slice(&row).unwrap();
    let mut webhooks = Webhooks::default();
    webhooks.restore(id, client);
    webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, START);
    assert_eq!(
        drain(&mut webhooks, &id),
        [
            one("a", Notice::PaymentIncoming),
            one("b", Notice::WebhookRegistered),
            one("b", Notice::PaymentIncoming),
        ]
    );
    let again = webhooks.set(&LIMITS, &id, &hook("b", 1), WITH_CHANNEL, START);
    assert!(
        again.unwrap().no_change,
        "the webhooks themselves are kept (W-07)"
    );
}

#[test]
fn test_W_24_B_18_cooldown() {
    let (mut webhooks, id) = having(&["a"]);
    let mut told = |notice, ms| webhooks.notify(&LIMITS, &id, notice, after(ms));
    assert!(told(Notice::PaymentIncoming, 0));
    assert!(!told(Notice::PaymentIncoming, 59_999));
    // By method, whatever its parameters.
    assert!(told(Notice::ExpirySoon { timeout: 5 }, 10));
    assert!(!told(Notice::ExpirySoon { timeout: 6 }, 20));
    assert!(told(Notice::PaymentIncoming, 60_000));
    assert!(!told(Notice::PaymentIncoming, 60_001));
    webhooks.went_offline(&id);
    assert!(webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, after(60_002)));
    // Registration has none.
    for n in 2..8 {
        webhooks
            .set(&LIMITS, &id, &hook("a", n), WITH_CHANNEL, START)
            .unwrap();
        assert_eq!(
            drain(&mut webhooks, &id),
            [one("a", Notice::WebhookRegistered)]
        );
    }
    // A clock that was set back by a year silences nobody.
    assert!(webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, Millis(1)));
}

#[test]
fn test_W_24_who_loses_its_webhooks_and_sets_others_is_not_called_sooner() {
    let (mut webhooks, id) = (Webhooks::default(), node(2));
    let set = |webhooks: &mut Webhooks, now| {
        let set = webhooks.set(&LIMITS, &id, &hook("a", 0), STRANGER, now);
        set.map(drop).unwrap();
    };
    set(&mut webhooks, START);
    let end = after(LIMITS.retention_ms);
    assert!(webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, end));
    assert_eq!(webhooks.review(&LIMITS, |_| false, end), [id]);
    set(&mut webhooks, end);
    assert!(!webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, end));
    let later = after(LIMITS.retention_ms + LIMITS.cooldown_ms);
    assert!(webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, later));
}

#[test]
fn who_comes_is_not_called_any_more() {
    let (mut webhooks, id) = having(&["a"]);
    webhooks
        .set(&LIMITS, &id, &hook("b", 1), WITH_CHANNEL, START)
        .unwrap();
    webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, START);
    webhooks.came_online(&id);
    assert_eq!(
        drain(&mut webhooks, &id),
        [one("b", Notice::WebhookRegistered)]
    );
}

#[test]
fn what_was_removed_or_replaced_is_not_sent() {
    let (mut webhooks, id) = having(&["a"]);
    webhooks.notify(&LIMITS, &id, Notice::PaymentIncoming, START);
    let [name] = webhooks.take_idle(&id).try_into().unwrap();
    let post = webhooks.next(&id, &name).unwrap();
    assert!(webhooks.is_wanted(&post));
    assert!(webhooks.take_idle(&id).is_empty(), "somebody is at it");
    webhooks.remove(&id, "a").unwrap();
    assert!(!webhooks.is_wanted(&post));
    // The same name again, while that one is still being sent: whoever is at it goes on with the new one.
    webhooks
        .set(&LIMITS, &id, &hook("a", 2), WITH_CHANNEL, START)
        .unwrap();
    assert!(!webhooks.is_wanted(&post));
    assert!(webhooks.take_idle(&id).is_empty());
    let next = webhooks.next(&id, &name).unwrap();
    assert_eq!(
        (next.notice, &next.url),
        (Notice::WebhookRegistered, &url(2))
    );
    assert!(webhooks.done(&next) && !webhooks.done(&next));
    assert_eq!(webhooks.next(&id, &name), None);
    webhooks.notify(&LIMITS, &id, Notice::OnionMessageIncoming, START);
    assert_eq!(webhooks.take_idle(&id), ["a"]);
}

#[test]
fn test_W_10_retention() {
    let (mut webhooks, id) = having(&["a"]);
    let none = |_: &NodeId| false;
    let all = |_: &NodeId| true;
    // With a channel for ever.
    assert_eq!(webhooks.review(&LIMITS, all, after(100 * DAY)), []);
    assert_eq!(webhooks.review(&LIMITS, none, after(100 * DAY)), [id]);
    assert_eq!(webhooks.review(&LIMITS, none, after(107 * DAY - 1)), []);
    assert!(webhooks.has(&id));
    // A new channel within that time, and the count begins anew.
    assert_eq!(webhooks.review(&LIMITS, all, after(107 * DAY - 1)), [id]);
    assert_eq!(webhooks.review(&LIMITS, none, after(200 * DAY)), [id]);
    let row = json!(webhooks.row(&id).unwrap());
    let mut restored = Webhooks::default();
    restored.restore(id, serde_json::from_value(row).unwrap());
    for mut webhooks in [webhooks, restored] {
        assert_eq!(webhooks.review(&LIMITS, none, after(207 * DAY - 1)), []);
        assert_eq!(webhooks.review(&LIMITS, none, after(207 * DAY)), [id]);
        assert!(webhooks.row(&id).is_none());
    }
    // Without a channel from the beginning: since the last change.
    let mut webhooks = Webhooks::default();
    webhooks
        .set(&LIMITS, &id, &hook("a", 1), STRANGER, START)
        .unwrap();
    webhooks
        .set(&LIMITS, &id, &hook("a", 2), STRANGER, after(DAY))
        .unwrap();
    assert_eq!(webhooks.review(&LIMITS, none, after(8 * DAY - 1)), []);
    assert_eq!(webhooks.review(&LIMITS, none, after(8 * DAY)), [id]);
}

#[test]
fn strangers_have_a_share() {
    let mut webhooks = Webhooks::default();
    let mut set = |n: u8, standing| {
        let set = webhooks.set(&LIMITS, &node(n), &hook("a", 1), standing, START);
        set.err()
    };
    assert_eq!(set(1, STRANGER), None);
    assert_eq!(set(2, STRANGER), None);
    assert_eq!(set(3, STRANGER), Some(Reason::WebhookClients));
    // Who buys is taken in, and so is who is here already.
    assert_eq!(set(3, WITH_ORDER), None);
    assert_eq!(set(1, STRANGER), None);
    assert_eq!(set(4, WITH_CHANNEL), None);
    assert_eq!(set(5, WITH_CHANNEL), None);
    assert_eq!(set(6, WITH_CHANNEL), Some(Reason::WebhookClients));
}

#[test]
fn nobody_makes_us_knock_at_many_doors() {
    let (mut webhooks, id) = (Webhooks::default(), node(1));
    for n in 0..u64::from(CHANGES_PER_HOUR) {
        webhooks
            .set(&LIMITS, &id, &hook("a", n), STRANGER, START)
            .unwrap();
        webhooks.remove(&id, "a").unwrap();
    }
    let set = |webhooks: &mut Webhooks, n: u8, at| {
        webhooks
            .set(&LIMITS, &node(n), &hook("a", 1), STRANGER, at)
            .err()
    };
    assert_eq!(
        set(&mut webhooks, 1, after(HOUR - 1)),
        Some(Reason::WebhookChanges)
    );
    assert_eq!(webhooks.review(&LIMITS, |_| false, after(HOUR - 1)), []);
    // Removing makes no room for the next node id before that hour is over.
    assert_eq!(set(&mut webhooks, 2, after(1)), None);
    assert_eq!(
        set(&mut webhooks, 3, after(2)),
        Some(Reason::WebhookClients)
    );
    webhooks.review(&LIMITS, |_| false, after(HOUR));
    assert_eq!(set(&mut webhooks, 3, after(HOUR)), None);
    assert_eq!(set(&mut webhooks, 3, after(HOUR)), None);
}

#[test]
fn no_two_notifications_have_one_timestamp() {
    let mut webhooks = Webhooks::default();
    let stamps = [5, 5, 5, 100, 3].map(|ms| webhooks.stamp(Millis(ms)).0);
    assert_eq!(stamps, [5, 6, 7, 100, 101]);
}

// ---- whatever happens ----

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u64, bool),
    Remove(u8, u8),
    Notify(u8, usize),
    Online(u8),
    Offline(u8),
    Take(u8),
    Send(usize),
    Finish(usize),
    Review(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, name) = (0u8..4, 0u8..5);
    prop_oneof![
        4 => (client.clone(), name.clone(), 0u64..3, any::<bool>())
            .prop_map(|(c, n, u, s)| Step::Set(c, n, u, s)),
        1 => (client.clone(), name).prop_map(|(c, n)| Step::Remove(c, n)),
        3 => (client.clone(), 1usize..5).prop_map(|(c, n)| Step::Notify(c, n)),
        1 => client.clone().prop_map(Step::Online),
        1 => client.clone().prop_map(Step::Offline),
        4 => client.prop_map(Step::Take),
        4 => (0usize..8).prop_map(Step::Send),
        4 => (0usize..8).prop_map(Step::Finish),
        1 => any::<bool>().prop_map(Step::Review),
        2 => prop_oneof![0u64..100_000, Just(HOUR), Just(8 * DAY)].prop_map(Step::Wait),
    ]
}

/// What a fair observer remembers.
#[derive(Default)]
struct Model {
    hooks: BTreeMap<(u8, u8), u64>,
    /// The URLs to which `webhook_registered` went since they were set.
    announced: BTreeMap<(u8, u8), bool>,
    last: BTreeMap<(u8, &'static str), u64>,
}

proptest! {
    #[test]
    fn test_W_05_W_09_W_11_W_24_in_any_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut webhooks = Webhooks::default();
        let mut model = Model::default();
        let mut now = 0;
        // Webhooks that somebody is at, and what each of them is sending.
        let mut at_work: Vec<((u8, u8), Option<Post>)> = Vec::new();
        for step in steps {
            match step {
                Step::Set(c, n, u, has_channel) => {
                    let name = n.to_string();
                    let standing = if has_channel { WITH_CHANNEL } else { STRANGER };
                    let count = model.hooks.keys().filter(|(of, _)| *of == c).count();
                    let set = webhooks.set(&LIMITS, &node(c), &hook(&name, u), standing, after(now));
                    match set {
                        Ok(set) => {
                            let before = model.hooks.insert((c, n), u);
                            prop_assert_eq!(set.no_change, before == Some(u));
                            if !set.no_change {
                                model.announced.insert((c, n), false);
                            }
                            let count = model.hooks.keys().filter(|(of, _)| *of == c).count();
                            prop_assert_eq!(set.num_webhooks as usize, count);
                            prop_assert!(set.num_webhooks <= LIMITS.max_webhooks);
                        }
                        Err(Reason::TooManyWebhooks) => {
                            prop_assert!(count >= 3 && !model.hooks.contains_key(&(c, n)));
                        }
                        Err(reason) => prop_assert!(
                            matches!(reason, Reason::WebhookChanges | Reason::WebhookClients)
                        ),
                    }
                }
                Step::Remove(c, n) => {
                    let removed = webhooks.remove(&node(c), &n.to_string());
                    prop_assert_eq!(removed.is_ok(), model.hooks.remove(&(c, n)).is_some());
                }
                Step::Notify(c, n) => {
                    let notice = EVERY[n];
                    if webhooks.notify(&LIMITS, &node(c), notice, after(now)) {
                        let last = model.last.insert((c, notice.method()), now);
                        prop_assert!(last.is_none_or(|at| now - at >= LIMITS.cooldown_ms));
                    }
                }
                Step::Online(c) => webhooks.came_online(&node(c)),
                Step::Offline(c) => {
                    webhooks.went_offline(&node(c));
                    model.last.retain(|(of, _), _| *of != c);
                }
                Step::Take(c) => {
                    for name in webhooks.take_idle(&node(c)) {
                        let key = (c, name.parse().unwrap());
                        prop_assert!(at_work.iter().all(|(at, _)| *at != key), "one at a time");
                        at_work.push((key, None));
                    }
                }
                Step::Send(n) if n < at_work.len() => {
                    let ((c, n), None) = at_work[n].clone() else { continue };
                    let place = at_work.iter().position(|(at, _)| *at == (c, n)).unwrap();
                    match webhooks.next(&node(c), &n.to_string()) {
                        None => drop(at_work.remove(place)),
                        Some(post) => {
                            prop_assert_eq!(&url(model.hooks[&(c, n)]), &post.url);
                            if post.notice == Notice::WebhookRegistered {
                                model.announced.insert((c, n), true);
                            }
                            prop_assert!(model.announced[&(c, n)], "announced first");
                            at_work[place].1 = Some(post);
                        }
                    }
                }
                Step::Finish(n) if n < at_work.len() => {
                    if let Some(post) = at_work[n].1.take() {
                        webhooks.done(&post);
                    }
                }
                Step::Send(_) | Step::Finish(_) => {}
                Step::Review(channels) => {
                    webhooks.review(&LIMITS, |_| channels, after(now));
                    for c in 0..4 {
                        if !webhooks.has(&node(c)) {
                            model.hooks.retain(|(of, _), _| *of != c);
                        }
                    }
                }
                Step::Wait(ms) => now += ms,
            }
            // What is told, and what is stored, is what was set.
            for c in 0..4 {
                let expected: Vec<String> = model
                    .hooks
                    .keys()
                    .filter(|(of, _)| *of == c)
                    .map(|(_, n)| n.to_string())
                    .collect();
                prop_assert_eq!(&webhooks.list(&LIMITS, &node(c)).app_names, &expected);
                if let Some(row) = webhooks.row(&node(c)) {
                    let client: Client = serde_json::from_value(json!(row)).unwrap();
                    let mut restored = Webhooks::default();
                    restored.restore(node(c), client);
                    prop_assert_eq!(restored.list(&LIMITS, &node(c)).app_names, expected);
                }
            }
        }
    }

    #[test]
    fn test_W_03_no_text_breaks_the_reader(text in ".*", tail in "[ -~]{0,40}") {
        for text in [text, format!("https://{tail}")] {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(url.as_str(), &text);
                prop_assert!(!url.host().is_empty() && url.port() != 0);
                prop_assert!(url.target().starts_with('/'));
                // Nothing of it can end a line of the request.
                for part in [url.target(), &url.host_header()] {
                    prop_assert!(part.bytes().all(|b| b.is_ascii_graphic()));
                }
            }
        }
    }
}
