//! Conversations of clients with a service, drawn from a seed.

use ldkjit_core::amount::Msat;
use ldkjit_core::lsps0::MAX_PAYLOAD;
use ldkjit_core::menu::{FeeTier, TrustModel};
use serde_json::{json, Value};

use super::asking::{Buy, Edit, Instant, Params, Promise, Say, Setting, Size, Step, FIELDS, TOKEN};
use super::draw::{escape, Draw, Style};

const AMOUNTS: [&str; 3] = [
    "min_fee_msat",
    "min_payment_size_msat",
    "max_payment_size_msat",
];
const INTEGERS: [&str; 3] = ["proportional", "min_lifetime", "max_client_to_self_delay"];

fn tiers(draw: &mut Draw) -> Vec<FeeTier> {
    let mut fee = draw.pick(&[0_u64, 1, 1_000, 2_000_000]);
    let mut ppm = draw.pick(&[0_u32, 1, 10_000, 10_000, 999_999, 1_000_000, 4_000_000_000]);
    let mut tiers = Vec::new();
    for _ in 0..=draw.below(3) {
        let least = draw.pick(&[0_u64, 1, 1_000, 1_000, 1_000_000]);
        let most = draw.pick(&[
            1_000_000_u64,
            4_000_000_000,
            4_000_000_000,
            u64::MAX - 1,
            u64::MAX,
        ]);
        tiers.push(FeeTier {
            min_fee_msat: Msat(fee),
            proportional_ppm: ppm,
            min_payment_msat: Msat(least),
            max_payment_msat: Msat(most),
            min_lifetime_blocks: draw.pick(&[0, 144, u32::MAX]),
            max_client_to_self_delay: draw.pick(&[0, 144, 2_016, u16::MAX]),
            valid_for_s: draw.pick(&[1_000, 3_600, 86_400]),
        });
        // J-12: dearer in one way, and cheaper in none.
        let dearer = draw.below(3);
        if dearer != 0 {
            fee += draw.pick(&[1, 5_000]);
        }
        if dearer != 1 {
            ppm = ppm.saturating_add(draw.pick(&[1, 500]));
        }
    }
    tiers
}

fn setting(draw: &mut Draw) -> Setting {
    let tiers = tiers(draw);
    let validity = u64::from(draw.pick(&tiers).valid_for_s) * 1_000;
    let near = [-1_001, -1_000, -2, -1, 0, 0, 1, 999, 1_000, 1_001];
    let age_ms = if draw.one_in(4) {
        validity.saturating_add_signed(draw.pick(&near))
    } else {
        0
    };
    Setting {
        age_ms,
        finer_ns: if draw.one_in(10) { 123_456 } else { 0 },
        tiers,
        denied: draw.one_in(40),
        inbound: Msat(if draw.one_in(15) { 5_000_000 } else { u64::MAX }),
        trust: draw.pick(&[TrustModel::LspTrustsClient, TrustModel::ClientTrustsLsp]),
        max_webhooks: 3,
    }
}

/// A request in order.
fn ask(draw: &mut Draw, n: usize, method: &str, params: Params) -> Say {
    let id = format!("{n}-{:016x}", draw.bits());
    let text = match draw.below(12) {
        0 => escape(&id),
        1 => Value::from(format!("{id}\"\\/\u{1}é€😀")).to_string(),
        2 => Value::from("i".repeat(1_024)).to_string(),
        3 => "\"again\"".to_owned(),
        4 => "\"\"".to_owned(),
        _ => Value::from(id).to_string(),
    };
    let style = Style::any(draw);
    let space = if style.spaced { " \t\r\n" } else { "" };
    Say {
        id: text,
        jsonrpc: "\"2.0\"".to_owned(),
        method: Value::from(method).to_string(),
        params,
        style,
        before: space.to_owned(),
        after: space.into(),
        ..Say::default()
    }
}

fn get_info(draw: &mut Draw, n: usize) -> Say {
    let params = match draw.below(12) {
        0 => Params::Absent,
        1 | 2 => Params::Json(json!({ "token": TOKEN })),
        3 => Params::Json(json!({ "token": null })),
        4 => Params::Json(json!({ "token": "stale" })),
        5 => Params::Json(json!({ "token": "" })),
        6 => Params::Json(json!({ "token": TOKEN, "more": 1, "Token": "x" })),
        7 => {
            let token = draw.pick(&[json!(5), json!(true), json!(["a"]), json!({})]);
            Params::Json(json!({ "token": token }))
        }
        8 => Params::Text(
            draw.pick(&[
                "null",
                "[]",
                "[\"gold\"]",
                "[null]",
                "[5]",
                "[\"gold\",1]",
                "5",
                "\"gold\"",
            ])
            .to_owned(),
        ),
        _ => Params::Json(json!({})),
    };
    ask(draw, n, "lsps2.get_info", params)
}

/// In order, so that a menu follows.
fn menu_first(draw: &mut Draw) -> Step {
    let params = draw.pick(&[json!({}), json!({}), json!({ "token": TOKEN })]);
    Step::Say(Box::new(ask(
        draw,
        0,
        "lsps2.get_info",
        Params::Json(params),
    )))
}

fn size(draw: &mut Draw) -> Size {
    let odd = [
        json!("0"),
        json!("18446744073709551615"),
        json!("18446744073709551616"),
        json!("18446744073708551616"),
        json!("18446744073708551615"),
        json!("+50000000"),
        json!("0050000000"),
        json!("00"),
        json!(" 50000000"),
        json!("50000000 "),
        json!(""),
        json!("-1"),
        json!("5e7"),
        json!("50000000.0"),
        json!("0x10"),
        json!("٥٠"),
        json!(50_000_000),
        json!(null),
        json!(true),
        json!(["50000000"]),
    ];
    match draw.below(12) {
        0 => Size::Absent,
        1 => Size::Json(draw.pick(&odd)),
        2 => Size::Near("min_fee_msat", draw.pick(&[-1, 0, 1, 2])),
        3 | 4 => Size::Near("min_payment_size_msat", draw.pick(&[-1, 0, 1])),
        5 | 6 => Size::Near("max_payment_size_msat", draw.pick(&[-1, 0, 1])),
        7 => Size::Json(draw.bits().to_string().into()),
        _ => Size::Json(draw.pick(&["400000000", "50000000", "999999"]).into()),
    }
}

fn an_edit(draw: &mut Draw) -> Edit {
    let any = draw.pick(&FIELDS);
    let nonsense = [
        json!(null),
        json!(""),
        json!("x"),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!("4294967296"),
        json!([]),
        json!({}),
        json!(true),
    ];
    let instants = [
        Instant::Digits(0),
        Instant::Digits(1),
        Instant::Digits(6),
        Instant::Digits(9),
        Instant::Digits(10),
        Instant::Offset("+00:00"),
        Instant::Offset("-00:00"),
        Instant::Offset("+0000"),
        Instant::Offset(""),
        Instant::HourAhead,
        Instant::LowerCase,
        Instant::Blank,
        Instant::Finer,
        Instant::Later(1),
        Instant::Later(-1),
        Instant::Later(1_000),
        Instant::Text("9999-12-31T23:59:59-01:00"),
        Instant::Text("1969-12-31T23:59:59Z"),
        Instant::Text("1970-01-01T00:00:00Z"),
        Instant::Text("2099-02-30T00:00:00Z"),
        Instant::Text("2099-01-01"),
        Instant::Text("tomorrow"),
    ];
    let promises = [
        Promise::Digit(0),
        Promise::Digit(31),
        Promise::Digit(40),
        Promise::Digit(63),
        Promise::Upper,
        Promise::Cut,
        Promise::Longer,
        Promise::Empty,
        Promise::TooLong,
    ];
    match draw.below(12) {
        0 => Edit::Shift(draw.pick(&AMOUNTS), draw.pick(&[1, -1, 1_000])),
        1 => Edit::Shift(draw.pick(&INTEGERS), draw.pick(&[1, -1])),
        2 | 3 => Edit::Before(draw.pick(&AMOUNTS), draw.pick(&["+", "0", "00", " ", "-"])),
        4 => Edit::Set(any, draw.pick(&nonsense)),
        5 => Edit::Drop(any),
        6 => Edit::More(draw.pick(&["more", "Promise", "", "a\nb"])),
        7 => Edit::Promise(draw.pick(&promises)),
        8 => Edit::List,
        _ => Edit::Instant(draw.pick(&instants)),
    }
}

fn buy(draw: &mut Draw, n: usize) -> Say {
    let edits = match draw.below(5) {
        0 | 1 => Vec::new(),
        2 | 3 => vec![an_edit(draw)],
        _ => vec![an_edit(draw), an_edit(draw)],
    };
    let more = match draw.below(15) {
        0 => vec!["more".to_owned()],
        1 => vec!["token".to_owned(), "a\u{202e}b".to_owned()],
        _ => Vec::new(),
    };
    let buy = Buy {
        entry: draw.below(3),
        edits,
        size: size(draw),
        more,
        list: draw.one_in(25),
    };
    let mut say = ask(draw, n, "lsps2.buy", Params::Buy(buy));
    // An offer made to another client.
    say.who = usize::from(draw.one_in(20));
    say
}

/// What has nothing wrong with it, unless the menu itself forbids it.
fn plain_buy(draw: &mut Draw, n: usize) -> Say {
    let buy = Buy {
        entry: draw.below(3),
        edits: Vec::new(),
        size: draw.pick(&[Size::Absent, Size::Near("min_payment_size_msat", 900_000)]),
        more: Vec::new(),
        list: false,
    };
    ask(draw, n, "lsps2.buy", Params::Buy(buy))
}

fn list_protocols(draw: &mut Draw, n: usize) -> Say {
    let params = match draw.below(6) {
        0 => Params::Absent,
        1 => Params::Json(json!({ "more": [] })),
        2 => Params::Text(draw.pick(&["[]", "null", "7", "\"x\""]).to_owned()),
        _ => Params::Json(json!({})),
    };
    ask(draw, n, "lsps0.list_protocols", params)
}

const RAW: [&str; 24] = [
    "",
    " \n",
    "[]",
    "{}",
    "null",
    "5",
    "\"x\"",
    "{",
    "}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps0.list_protocols\",\"params\":{},}",
    "[{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps0.list_protocols\",\"params\":{}}]",
    "{'jsonrpc':'2.0','id':'a','method':'lsps0.list_protocols'}",
    "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps0.list_protocols\"}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"lsps0.list_protocols\",\"params\":{}}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"lsps9.nothing\",\"params\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":1,\"message\":\"no\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"no\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"no\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"id\":\"b\",\"method\":\"lsps0.list_protocols\",\"params\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"id\":null,\"method\":\"lsps0.list_protocols\",\"params\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps2.get_info\",\"params\":{\"token\":\"stale\",\"token\":\"gold\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps2.get_info\",\"params\":{\"token\":\"\\ud800\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lsps2.get_info\",\"params\":{},\"more\":1e400}",
];

/// A message that is broken in one place, or in none.
fn broken(draw: &mut Draw, n: usize) -> Step {
    let mut say = match draw.below(4) {
        0 => list_protocols(draw, n),
        1 => plain_buy(draw, n),
        2 => webhook(draw, n),
        _ => get_info(draw, n),
    };
    let method = say.method.clone();
    match draw.below(14) {
        0 => {
            let ids = ["", "7", "null", "1.5", "true", "[]", "{}", "\"\\ud800\""];
            say.id = draw.pick(&ids).to_owned();
        }
        1 => say.id = Value::from("i".repeat(draw.pick(&[1_025, 5_000]))).to_string(),
        2 => {
            let versions = ["", "2.0", "\"1.0\"", "null", "\"2\""];
            say.jsonrpc = draw.pick(&versions).to_owned();
        }
        3 => {
            let methods = [
                "",
                "5",
                "null",
                "\"\"",
                "\"lsps2.nothing\"",
                "\"lsps2.GET_INFO\"",
                "\"lsps0.list_protocols \"",
                "\"lsps5.nothing\"",
                "\"get_info\"",
                "\"evil\\u0000\\u202e<b>\"",
            ];
            say.method = draw.pick(&methods).to_owned();
        }
        4 => {
            let methods = ["\"lsps1.get_info\"", "\"lsps1.create_order\""];
            say.method = draw.pick(&methods).to_owned();
            say.params = Params::Json(json!({}));
        }
        5 => say.method = escape(&method.replace('"', "")),
        6 => {
            let (name, text) = draw.pick(&[
                ("\"more\"", "{\"a\":[1,2]}"),
                ("\"result\"", "5"),
                ("\"error\"", "5"),
                ("\"error\"", "{\"code\":1,\"message\":\"no\"}"),
                ("\"mo\\u0072e\"", "1"),
                ("\"\"", "null"),
                ("\"method\"", "\"lsps0.list_protocols\""),
            ]);
            say.more.push((name.to_owned(), text.to_owned()));
        }
        7 => say.after = draw.pick(&["{}", "\0", " x", "]", "\n{\"a\":"]).into(),
        8 => {
            say.after = draw
                .pick(&[&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80"])
                .to_vec()
        }
        9 => say.cut = 1 + draw.below(40),
        10 => {
            let nested = format!("{}1{}", "[".repeat(150), "]".repeat(150));
            say.params = Params::Text(format!("{{\"token\":{nested}}}"));
        }
        11 => {
            say.after.clear();
            say.size = MAX_PAYLOAD + draw.below(2);
        }
        12 => return Step::Raw(draw.pick(&RAW).into()),
        _ => {}
    }
    Step::Say(Box::new(say))
}

fn url(draw: &mut Draw) -> String {
    let urls = [
        "https://host.example/hook",
        "https://host.example:8443/a/b?c=d&e=%20",
        "HTTPS://Host.Example/x",
        "https://host.example",
        "https://192.0.2.1/x#y",
        "https://host_name.example./",
        "https://host.example:/x",
        // RFC 1738 and RFC 2732 know more characters than the stock service.
        "https://host.example/a~b+c",
        "https://host.example/(x)!*',;$",
        "https://[2001:db8::1]:443/x",
        // The stock service knows more hosts than there are.
        "https://user:password@host.example/",
        "https://host.example/%zz",
        "https://host.example:0/",
        "https://-a.example/",
        "https://a..example/",
        "https://127.1/x",
        "https://host.example:1:2/",
        // None of either.
        "http://host.example/",
        "ftp://host.example/x",
        "http://ho st/",
        "not a url",
        "https:/host.example",
        "https://",
        "https://:443/",
        "https://host.example:99999/",
        "https://hö.example/",
        "mailto:a@b",
        "",
    ];
    match draw.below(14) {
        0 => format!("https://host.example/{}", "a".repeat(1_003)),
        1 => format!("https://host.example/{}", "a".repeat(1_004)),
        n if n < 9 => draw.pick(&urls[..4]).to_owned(),
        _ => draw.pick(&urls).to_owned(),
    }
}

fn app_name(draw: &mut Draw) -> String {
    match draw.below(12) {
        0 => "n".repeat(64),
        1 => "n".repeat(65),
        2 => "\"".repeat(40),
        3 => "\u{1}".repeat(11),
        4 => "é".repeat(32),
        5 => "é".repeat(33),
        6 => String::new(),
        _ => draw.pick(&["a", "b", "c", "d", "an app"]).to_owned(),
    }
}

fn webhook(draw: &mut Draw, n: usize) -> Say {
    let name = app_name(draw);
    match draw.below(8) {
        0 => {
            let params = draw.pick(&[json!({}), json!({}), json!({ "more": 1 }), json!([])]);
            ask(draw, n, "lsps5.list_webhooks", Params::Json(params))
        }
        1 | 2 => {
            let params = match draw.below(6) {
                0 => json!({ "app_name": name, "more": 1 }),
                1 => json!([name]),
                2 => json!({ "app_name": 5 }),
                _ => json!({ "app_name": name }),
            };
            ask(draw, n, "lsps5.remove_webhook", Params::Json(params))
        }
        _ => {
            let url = url(draw);
            let params = match draw.below(12) {
                0 => json!({ "app_name": name, "webhook": url, "more": 1 }),
                1 => json!([name, url]),
                2 => json!({ "app_name": name }),
                3 => json!({ "app_name": null, "webhook": url }),
                _ => json!({ "app_name": name, "webhook": url }),
            };
            ask(draw, n, "lsps5.set_webhook", Params::Json(params))
        }
    }
}

/// A request about webhooks with nothing wrong in it.
fn plain_webhook(draw: &mut Draw, n: usize) -> Say {
    let name = draw.pick(&["a", "b", "c", "d", "e"]);
    match draw.below(6) {
        0 => ask(draw, n, "lsps5.list_webhooks", Params::Json(json!({}))),
        1 => {
            let params = json!({ "app_name": name });
            ask(draw, n, "lsps5.remove_webhook", Params::Json(params))
        }
        _ => {
            let url = draw.pick(&["https://host.example/1", "https://host.example/2"]);
            let params = json!({ "app_name": name, "webhook": url });
            ask(draw, n, "lsps5.set_webhook", Params::Json(params))
        }
    }
}

/// A conversation, and what is to be known before it.
pub fn conversation(seed: u64) -> (Setting, Vec<Step>) {
    let mut draw = Draw::new(seed);
    let draw = &mut draw;
    let mut setting = setting(draw);
    let say = |say| Step::Say(Box::new(say));
    let mut steps = vec![menu_first(draw)];
    match draw.below(100) {
        // Sales.
        0..=54 => {
            for n in 1..=1 + draw.below(6) {
                steps.push(say(match draw.below(12) {
                    0 => list_protocols(draw, n),
                    1 => get_info(draw, n),
                    _ => buy(draw, n),
                }));
                // Or a stock service that heard nonsense hears no more.
                if draw.one_in(2) {
                    steps.push(Step::Reconnect);
                }
            }
        }
        // What is no request, and whether anybody listens afterwards.
        55..=74 => {
            if draw.one_in(3) {
                steps.clear();
            }
            for n in 1..=1 + draw.below(3) {
                steps.push(broken(draw, n));
                if draw.one_in(3) {
                    steps.push(Step::Reconnect);
                }
                if draw.one_in(2) {
                    steps.push(say(list_protocols(draw, n + 10)));
                }
            }
        }
        // Webhooks, mostly after a sale.
        75..=89 => {
            if !draw.one_in(8) {
                steps.push(say(plain_buy(draw, 1)));
            }
            let good = draw.one_in(3);
            for n in 2..=2 + draw.below(9) {
                steps.push(say(if good {
                    plain_webhook(draw, n)
                } else {
                    webhook(draw, n)
                }));
                if draw.one_in(2) {
                    steps.push(Step::Reconnect);
                }
            }
        }
        // Many at once, some under one id.
        90..=94 => {
            for n in 1..=2 + draw.below(13) {
                let mut next = match draw.below(3) {
                    0 => plain_buy(draw, n),
                    _ => get_info(draw, n),
                };
                next.hasty = true;
                steps.push(say(next));
            }
            steps.push(say(list_protocols(draw, 99)));
        }
        // Sales up to the limit.
        95..=98 => {
            setting.age_ms = 0;
            for n in 1..=12 {
                steps.push(say(plain_buy(draw, n)));
                if n > 8 && draw.one_in(4) {
                    steps.push(say(get_info(draw, n)));
                }
            }
        }
        // One webhook here and there and here again.
        _ => {
            steps.push(say(plain_buy(draw, 1)));
            for n in 2..40 {
                let url = format!("https://host.example/{}", n % 2);
                let params = json!({ "app_name": "a", "webhook": url });
                steps.push(say(ask(draw, n, "lsps5.set_webhook", Params::Json(params))));
            }
        }
    }
    (setting, steps)
}
