//! What an LSP may say to a client: conversations drawn from a seed, and their bytes.

use serde_json::{json, Map, Value};

use super::asking::FIELDS;
use super::draw::{escape, Draw, Style};

/// What happens next.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The application asks for the menu.
    AskMenu(Option<String>),
    /// The application buys this entry of the last menu.
    AskSale(usize, Option<u64>),
    /// The LSP says something.
    Hear(Box<Hear>),
    /// The time for an answer is over.
    Timeout,
    Reconnect,
}

/// Which id an answer has.
#[derive(Clone, Debug)]
pub enum Id {
    /// That of the last request.
    Last,
    /// The same, every character an escape.
    LastEscaped,
    /// That of the first.
    First,
    Text(&'static str),
    Absent,
}

/// A message of an LSP. A member whose text is empty is left out.
#[derive(Clone, Debug)]
pub struct Hear {
    pub id: Id,
    pub jsonrpc: &'static str,
    pub result: Option<Value>,
    /// An `error`, as JSON.
    pub error: String,
    pub more: Vec<(&'static str, &'static str)>,
    pub style: Style,
    pub after: &'static str,
    pub cut: usize,
}

impl Hear {
    /// The message to who sent requests with these ids.
    pub fn bytes(&self, ids: &[String]) -> Vec<u8> {
        let none = String::new();
        let id = match self.id {
            Id::Last => Value::from(ids.last().unwrap_or(&none).as_str()).to_string(),
            Id::LastEscaped => escape(ids.last().unwrap_or(&none)),
            Id::First => Value::from(ids.first().unwrap_or(&none).as_str()).to_string(),
            Id::Text(text) => text.to_owned(),
            Id::Absent => String::new(),
        };
        let result = self.result.as_ref();
        let mut members = vec![
            ("\"jsonrpc\"".to_owned(), self.jsonrpc.to_owned()),
            ("\"id\"".to_owned(), id),
            (
                "\"result\"".to_owned(),
                result.map(|r| self.style.value(r)).unwrap_or_default(),
            ),
            ("\"error\"".to_owned(), self.error.clone()),
        ];
        let more = self.more.iter();
        members.extend(more.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        members.retain(|(_, text)| !text.is_empty());
        let mut text = self.style.object(members);
        let mut bytes = std::mem::take(&mut text).into_bytes();
        let end = bytes.len() - self.cut.min(bytes.len());
        bytes.truncate(end);
        // The stock handlers are given text here: half a character would not reach them.
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.push_str(self.after);
        text.into_bytes()
    }
}

fn plain(draw: &mut Draw) -> Hear {
    Hear {
        id: Id::Last,
        jsonrpc: "\"2.0\"",
        result: None,
        error: String::new(),
        more: Vec::new(),
        style: Style::any(draw),
        after: "",
        cut: 0,
    }
}

fn offer(draw: &mut Draw) -> Map<String, Value> {
    let amounts = [0, 1, 1_000, 2_000_000, 4_000_000_000, u64::MAX];
    let numbers = [0, 1, 144, 10_000, u32::MAX];
    let instants = [
        "2099-01-01T00:00:00.000Z",
        "2099-01-01T00:00:00Z",
        "2099-01-01T00:00:00.123456789Z",
        "2099-01-01T00:00:00.500+00:00",
        "2099-01-01T01:00:00.5+01:00",
        "2001-01-01T00:00:00.000Z",
    ];
    let promises = [
        "abcdef0123456789".to_owned(),
        String::new(),
        "p".repeat(512),
        "\"\\\u{1}é".to_owned(),
    ];
    let offer = json!({
        "min_fee_msat": draw.pick(&amounts).to_string(),
        "proportional": draw.pick(&numbers),
        "valid_until": draw.pick(&instants),
        "min_lifetime": draw.pick(&numbers),
        "max_client_to_self_delay": draw.pick(&numbers),
        "min_payment_size_msat": draw.pick(&amounts).to_string(),
        "max_payment_size_msat": draw.pick(&amounts).to_string(),
        "promise": draw.pick(&promises),
    });
    offer.as_object().unwrap().clone()
}

/// Something wrong with one entry of a menu.
fn spoil(draw: &mut Draw, mut offer: Map<String, Value>) -> Value {
    let name = draw.pick(&FIELDS).to_owned();
    let nonsense = [
        json!(null),
        json!(""),
        json!("x"),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!([]),
        json!({}),
        json!(true),
        json!("5"),
        json!(5),
    ];
    let instants = [
        "2099-01-01t00:00:00.000z",
        "2099-01-01 00:00:00.000Z",
        "2099-01-01T00:00:00.0000000000Z",
        "9999-12-31T23:59:59-01:00",
        "1969-12-31T23:59:59Z",
        "2099-02-30T00:00:00Z",
        "2099-01-01T00:00:00",
        "soon",
    ];
    match draw.below(9) {
        0 => drop(offer.remove(&name)),
        1 => drop(offer.insert("more".to_owned(), json!({ "a": 1 }))),
        2 => drop(offer.insert("promise".to_owned(), "p".repeat(513).into())),
        // 300 characters, 600 as they are written.
        3 => drop(offer.insert("promise".to_owned(), "\"".repeat(300).into())),
        4 => {
            let amount = draw.pick(&["+5", "005", " 5", "5 ", "-5", "5.0", "18446744073709551616"]);
            offer.insert("min_fee_msat".to_owned(), amount.into());
        }
        5 => drop(offer.insert("valid_until".to_owned(), draw.pick(&instants).into())),
        6 => {
            return FIELDS
                .iter()
                .filter_map(|n| offer.get(*n).cloned())
                .collect()
        }
        _ => drop(offer.insert(name, draw.pick(&nonsense))),
    }
    Value::Object(offer)
}

fn menu(draw: &mut Draw, spoilt: bool) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    for _ in 0..draw.below(4) + usize::from(spoilt) {
        entries.push(Value::Object(offer(draw)));
    }
    if spoilt {
        let at = draw.below(entries.len());
        let entry = entries[at].as_object().unwrap().clone();
        entries[at] = spoil(draw, entry);
    }
    let mut result = json!({ "opening_fee_params_menu": entries });
    if draw.one_in(6) {
        result["more"] = json!({ "nested": [1, null] });
    }
    match draw.below(if spoilt { 12 } else { 100 }) {
        0 => json!([result["opening_fee_params_menu"]]),
        1 => draw.pick(&[
            json!({}),
            json!(null),
            json!({ "opening_fee_params_menu": null }),
            json!({ "opening_fee_params_menu": {} }),
            json!(5),
        ]),
        _ => result,
    }
}

fn sale(draw: &mut Draw, spoilt: bool) -> Value {
    let scids = [
        "1x2x3",
        "0x0x0",
        "16777215x16777215x65535",
        "29451x4815x1",
        "01x002x3",
    ];
    let strange = [
        json!("1x2"),
        json!("1x2x3x4"),
        json!("16777216x0x0"),
        json!("0x16777216x0"),
        json!("0x0x65536"),
        json!("+1x2x3"),
        json!("000000001x2x3"),
        json!("1X2X3"),
        json!("1:2:3"),
        json!("1x2x-3"),
        json!(" 1x2x3"),
        json!(""),
        json!(5),
        json!(null),
    ];
    let mut result = json!({
        "jit_channel_scid": draw.pick(&scids),
        "lsp_cltv_expiry_delta": draw.pick(&[0, 1, 144, 1_008]),
    });
    match draw.below(4) {
        0 => result["client_trusts_lsp"] = json!(true),
        1 => result["client_trusts_lsp"] = json!(false),
        _ => {}
    }
    if draw.one_in(6) {
        result["more"] = json!({ "nested": [1, null] });
    }
    if spoilt {
        match draw.below(6) {
            0 | 1 => result["jit_channel_scid"] = draw.pick(&strange),
            2 => {
                let deltas = [
                    json!(1_009),
                    json!(65_536),
                    json!(4_294_967_296_u64),
                    json!(-1),
                    json!("144"),
                    json!(null),
                    json!(1.5),
                ];
                result["lsp_cltv_expiry_delta"] = draw.pick(&deltas);
            }
            3 => {
                let flags = [json!(null), json!("true"), json!(1)];
                result["client_trusts_lsp"] = draw.pick(&flags);
            }
            4 => {
                let fields = result.as_object_mut().unwrap();
                let names = ["jit_channel_scid", "lsp_cltv_expiry_delta"];
                fields.remove(draw.pick(&names));
            }
            _ => {
                let list = [
                    &result["jit_channel_scid"],
                    &result["lsp_cltv_expiry_delta"],
                ];
                return json!([list[0], list[1], draw.one_in(2)]);
            }
        }
    }
    result
}

fn error(draw: &mut Draw) -> String {
    let code = draw.pick(&[
        json!(1),
        json!(200),
        json!(201),
        json!(202),
        json!(203),
        json!(-32_602),
        json!(-32_603),
        json!(-32_050),
        json!(-32_700),
        json!(999),
        json!(2_147_483_648_u64),
        json!("1"),
        json!(1.5),
        json!(null),
    ]);
    let mut error = json!({ "code": code, "message": draw.pick(&["no", "", "a\n<b>\u{0}"]) });
    match draw.below(12) {
        0 => drop(error.as_object_mut().unwrap().remove("message")),
        1 => error["message"] = json!(5),
        2 => drop(error.as_object_mut().unwrap().remove("code")),
        _ => {}
    }
    let data = [
        json!(null),
        json!("text"),
        json!({ "unrecognized": [] }),
        json!({ "message": "no" }),
        json!([1]),
        json!(5),
        json!(true),
    ];
    if draw.one_in(2) {
        error["data"] = draw.pick(&data);
    }
    if draw.one_in(8) {
        error["more"] = json!(1);
    }
    draw.pick(&[
        error.to_string(),
        error.to_string(),
        error.to_string(),
        "5".to_owned(),
    ])
}

/// An answer to a request for a menu, or for a sale.
fn answer(draw: &mut Draw, to_menu: bool) -> Hear {
    let mut hear = plain(draw);
    match draw.below(10) {
        0..=2 => hear.error = error(draw),
        n => {
            let spoilt = n > 5;
            hear.result = Some(if to_menu {
                menu(draw, spoilt)
            } else {
                sale(draw, spoilt)
            });
        }
    }
    hear
}

/// Something wrong with the message itself.
fn distort(draw: &mut Draw, hear: &mut Hear) {
    match draw.below(9) {
        0 => {
            let ids = [
                Id::Text("5"),
                Id::Text("null"),
                Id::Text("true"),
                Id::Text("{}"),
                Id::Text("\"nobody's\""),
                Id::First,
                Id::Absent,
            ];
            hear.id = draw.pick(&ids);
        }
        1 => hear.id = Id::LastEscaped,
        2 => hear.jsonrpc = draw.pick(&["", "\"1.0\"", "2.0", "null"]),
        3 => {
            let member = draw.pick(&[
                ("\"more\"", "[1]"),
                ("\"mo\\u0072e\"", "1"),
                ("\"error\"", "null"),
                ("\"error\"", "{\"code\":203,\"message\":\"no\"}"),
                ("\"result\"", "null"),
                ("\"method\"", "\"lsps2.get_info\""),
                ("\"method\"", "\"lsps9.nothing\""),
            ]);
            // Not one that there is already.
            let twice = match member.0 {
                "\"error\"" => !hear.error.is_empty(),
                "\"result\"" => hear.result.is_some(),
                _ => false,
            };
            if !twice {
                hear.more.push(member);
            }
        }
        4 => hear.after = draw.pick(&["{}", " x", "\0", "]"]),
        5 => hear.after = draw.pick(&[" \r\n\t", "\n"]),
        6 => hear.cut = 1 + draw.below(30),
        7 => {
            hear.id = Id::Absent;
            hear.result = None;
            hear.error = String::new();
            hear.more = draw.pick(&[
                vec![("\"method\"", "\"lsps2.hello\""), ("\"params\"", "{}")],
                vec![("\"method\"", "\"lsps2.get_info\""), ("\"params\"", "{}")],
                vec![("\"method\"", "\"lsps2.hello\""), ("\"params\"", "[]")],
                vec![("\"method\"", "\"lsps2.hello\"")],
                vec![],
            ]);
        }
        _ => {
            hear.id = Id::Text("null");
            hear.result = None;
            let errors = [
                "{\"code\":-32700,\"message\":\"parse error\"}",
                "{\"code\":-32603,\"message\":\"internal error\"}",
            ];
            hear.error = draw.pick(&errors).to_owned();
        }
    }
}

fn good_menu(draw: &mut Draw) -> Hear {
    let mut hear = plain(draw);
    hear.result = Some(menu(draw, false));
    hear
}

/// Whether the LSP is configured as trusted, and what happens.
pub fn conversation(seed: u64) -> (bool, Vec<Turn>) {
    let mut draw = Draw::new(seed);
    let draw = &mut draw;
    let trusted = draw.one_in(2);
    let hear = |hear| Turn::Hear(Box::new(hear));
    let mut turns = Vec::new();
    for _ in 0..=draw.below(2) {
        let token = [None, Some("gold".to_owned()), Some("\"é\u{1}".to_owned())];
        turns.push(Turn::AskMenu(draw.pick(&token)));
        let to_menu = draw.one_in(2);
        if !to_menu {
            turns.push(hear(good_menu(draw)));
            let size = draw.pick(&[None, Some(1), Some(400_000_000), Some(u64::MAX)]);
            turns.push(Turn::AskSale(draw.below(3), size));
        }
        for _ in 0..=draw.below(3) {
            let mut said = answer(draw, to_menu);
            if draw.one_in(3) {
                distort(draw, &mut said);
            }
            if draw.one_in(25) {
                turns.push(Turn::Timeout);
            }
            turns.push(hear(said));
            if draw.one_in(12) {
                turns.push(Turn::Reconnect);
            }
        }
    }
    (trusted, turns)
}
