//! Where the stock client understands otherwise than ours, says or asks something else, and why.

use ldkjit_core::lsps0::{parse_response, FromLsp};
use ldkjit_core::lsps2::MAX_CLTV_DELTA;
use ldkjit_core::menu::MAX_PROMISE;
use ldkjit_core::time::parse_datetime;
use serde_json::{json, Map, Value};

use super::clients::{Ours, Outcome, Understood};
use super::mend::{
    by_name, first, has_escaped_name, offer_by_name, offer_with_plain_amounts,
    offer_with_plain_instant, offer_without_unknown, without_the_rest,
};
use super::table::{lenient, seen, taken, Compared, Difference};

/// A message of an LSP and what both clients made of it.
pub struct Heard {
    /// As ours got it, or as it is after what was forbidden has been mended.
    pub payload: Vec<u8>,
    pub ours: Outcome,
    pub stock: Outcome,
    /// Ours as it was before.
    pub before: Ours,
    pub trusted: bool,
    /// The stock client had stopped to listen.
    pub deaf: bool,
    /// Since the last request its time was over, or the connection was cut.
    pub timed_out: bool,
    pub reconnected: bool,
}

impl Heard {
    fn message(&self) -> Option<Map<String, Value>> {
        match first(&self.payload)?.0 {
            Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    fn result(&self) -> Option<Value> {
        self.message()?.remove("result")
    }

    fn error(&self) -> Value {
        let error = self.message().and_then(|mut m| m.remove("error"));
        error.unwrap_or_default()
    }

    fn with_result(&self, result: Value) -> Option<Vec<u8>> {
        let mut message = self.message()?;
        message.insert("result".to_owned(), result);
        Some(Value::Object(message).to_string().into_bytes())
    }

    /// Ours did not go on and the stock client did.
    fn only_stock(&self) -> Option<&Understood> {
        self.stock
            .understood
            .as_ref()
            .filter(|_| self.ours.understood.is_none())
    }

    /// The other way round.
    fn only_ours(&self) -> Option<&Understood> {
        self.ours
            .understood
            .as_ref()
            .filter(|_| self.stock.understood.is_none())
    }

    /// Whether the message answers a request that still waits.
    fn is_awaited(&self) -> bool {
        match parse_response(&self.payload) {
            Ok(FromLsp::Response { id: Some(id), .. }) => self.before.awaits(&id),
            _ => false,
        }
    }
}

/// What of a message ours should not have taken.
pub fn took(heard: &Heard) -> Option<&'static str> {
    let result = heard.result().unwrap_or_default();
    let forbidden = match &heard.ours.understood {
        Some(Understood::Menu(menu)) => menu.iter().any(is_too_long),
        Some(Understood::Sold {
            cltv_delta,
            client_trusts_lsp,
            ..
        }) => {
            let scid = result["jit_channel_scid"].as_str();
            let strange = scid.is_none_or(|scid| !is_scid(scid));
            let trusts = *client_trusts_lsp && !heard.trusted;
            strange || trusts || *cltv_delta > u32::from(MAX_CLTV_DELTA)
        }
        _ => false,
    };
    if forbidden {
        return Some("an answer that must be refused");
    }
    taken(HEARD, heard, |heard, _| heard.ours.understood.is_none())
}

fn is_too_long(offer: &Value) -> bool {
    offer["promise"].to_string().len() - 2 > MAX_PROMISE
}

impl Compared for Heard {
    fn same(&self) -> bool {
        self.ours.understood == self.stock.understood
    }

    fn mend(&mut self, payload: Vec<u8>) {
        self.ours = self.before.clone().hear(&payload);
        self.payload = payload;
    }
}

// ---- what is understood ----

fn with_version(heard: &Heard) -> Option<Vec<u8>> {
    let mut message = heard.message()?;
    let before = message.insert("jsonrpc".to_owned(), "2.0".into());
    (before != Some("2.0".into())).then(|| Value::Object(message).to_string().into_bytes())
}

fn with_result_by_name(heard: &Heard) -> Option<Vec<u8>> {
    let list = heard.result()?.as_array()?.clone();
    let names: &[&str] = match list.first()? {
        Value::Array(_) => &["opening_fee_params_menu"],
        _ => &[
            "jit_channel_scid",
            "lsp_cltv_expiry_delta",
            "client_trusts_lsp",
        ],
    };
    heard.with_result(Value::Object(by_name(names, &list)?))
}

fn with_entries(heard: &Heard, mend: fn(&Value) -> Option<Value>) -> Option<Vec<u8>> {
    let mut result = heard.result()?;
    let mut mended = false;
    for offer in result.get_mut("opening_fee_params_menu")?.as_array_mut()? {
        if let Some(better) = mend(offer) {
            *offer = better;
            mended = true;
        }
    }
    mended.then(|| heard.with_result(result)).flatten()
}

fn is_deaf(heard: &Heard) -> bool {
    heard.deaf && heard.only_ours().is_some() && heard.stock.said.is_empty()
}

fn is_late(heard: &Heard) -> bool {
    heard.timed_out && heard.only_stock().is_some() && !heard.is_awaited()
}

fn is_of_another_connection(heard: &Heard) -> bool {
    heard.reconnected && heard.only_stock().is_some() && !heard.is_awaited()
}

fn has_escapes(heard: &Heard) -> bool {
    let escaped = has_escaped_name(&heard.payload);
    heard.only_ours().is_some() && escaped && !heard.stock.said.is_empty()
}

fn has_result_and_error(heard: &Heard) -> bool {
    let message = heard.message().unwrap_or_default();
    let both = message.contains_key("result") && message.contains_key("error");
    both && matches!(heard.only_stock(), Some(Understood::Refused(_)))
}

fn has_long_promise(heard: &Heard) -> bool {
    matches!(heard.only_stock(), Some(Understood::Menu(menu)) if menu.iter().any(is_too_long))
}

/// Three numbers of 24, 24 and 16 bits and nothing else.
fn is_scid(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('x').collect();
    let most = [0xff_ffff, 0xff_ffff, 0xffff_u64];
    let fits = |(text, most): (&&str, u64)| {
        let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits && text.parse().is_ok_and(|n: u64| n <= most)
    };
    numbers.len() == 3 && numbers.iter().zip(most).all(fits)
}

fn has_strange_scid(heard: &Heard) -> bool {
    let result = heard.result().unwrap_or_default();
    let scid = result["jit_channel_scid"].as_str();
    let sold = matches!(heard.only_stock(), Some(Understood::Sold { .. }));
    sold && scid.is_some_and(|scid| !is_scid(scid))
}

fn has_long_delta(heard: &Heard) -> bool {
    let most = u32::from(MAX_CLTV_DELTA);
    let sold = heard.only_stock();
    matches!(sold, Some(Understood::Sold { cltv_delta, .. }) if *cltv_delta > most)
}

/// It wants to be trusted: ours goes on only with an LSP that is, and tells.
fn wants_trust(heard: &Heard) -> bool {
    let flag = heard.result().unwrap_or_default()["client_trusts_lsp"] == true;
    let told = match (&heard.ours.understood, &heard.stock.understood) {
        (None, Some(Understood::Sold { .. })) => !heard.trusted,
        (
            Some(Understood::Sold {
                scid,
                cltv_delta,
                client_trusts_lsp: true,
            }),
            Some(stock),
        ) => {
            *stock
                == Understood::Sold {
                    scid: *scid,
                    cltv_delta: *cltv_delta,
                    client_trusts_lsp: false,
                }
        }
        _ => false,
    };
    flag && told
}

fn has_data(heard: &Heard) -> bool {
    let data = heard.error()["data"].clone();
    let refused = matches!(heard.only_ours(), Some(Understood::Refused(_)));
    refused && !data.is_null() && !data.is_string() && !heard.stock.said.is_empty()
}

fn has_large_code(heard: &Heard) -> bool {
    let code = heard.error()["code"].as_i64().unwrap_or_default();
    let refused = heard.only_ours() == Some(&Understood::Refused(code));
    refused && i32::try_from(code).is_err()
}

fn has_no_message(heard: &Heard) -> bool {
    let refused = matches!(heard.only_ours(), Some(Understood::Refused(_)));
    refused && !heard.error()["message"].is_string() && !heard.stock.said.is_empty()
}

fn is_servers_own_code(heard: &Heard) -> bool {
    let internal = heard.ours.understood == Some(Understood::Refused(-32_603));
    let own = -32_099..=-32_000;
    let stock = &heard.stock.understood;
    internal && matches!(stock, Some(Understood::Refused(code)) if own.contains(code))
}

#[rustfmt::skip]
pub const HEARD: &[Difference<Heard>] = &[
    seen("deaf", "D-10", "after a message that it cannot parse it ignores the LSP until that reconnects", is_deaf),
    seen("late", "T-10", "it has no timeout and forgets no request", is_late),
    seen("after a reconnect", "S-12", "it waits on; ours has told the application that the LSP is gone", is_of_another_connection),
    seen("escaped names", "T-02", "it cannot read an escape in the name of a member", has_escapes),
    lenient("something after the object", "T-02", "it reads the first object and no further", |h| without_the_rest(&h.payload)),
    lenient("jsonrpc", "T-16", "it never looks at the version", with_version),
    seen("result and error", "T-05", "it takes the error; ours takes neither for an answer", has_result_and_error),
    lenient("result by position", "J-35", "it takes a list of values for the object", with_result_by_name),
    lenient("offer by position", "J-09", "it takes a list of eight values for the object", |h| with_entries(h, offer_by_name)),
    lenient("unknown field of an offer", "J-18", "it ignores them; the menu must be refused", |h| with_entries(h, offer_without_unknown)),
    lenient("plus or zeros in an offer", "T-14", "it takes them before an amount", |h| with_entries(h, offer_with_plain_amounts)),
    lenient("sloppy date-time", "T-14", "it takes lower case, a blank for the T, and more than nine digits", |h| with_entries(h, offer_with_plain_instant)),
    seen("after the year 9999", "T-14", "it reads an instant that cannot be written with four digits", is_beyond_9999),
    seen("long promise", "J-16", "it takes a promise of more than 512 bytes", has_long_promise),
    seen("strange scid", "J-35", "it takes signs, any number of digits or parts, and numbers out of range", has_strange_scid),
    seen("wants trust", "B-17", "it drops client_trusts_lsp; ours needs the LSP to be configured as trusted", wants_trust),
    seen("long delta", "J-35", "it takes a delta that no payer could pay; ours takes up to 1,008", has_long_delta),
    seen("error with data", "T-08", "it cannot parse data that is no string (hazard 2)", has_data),
    seen("large code", "T-09", "it cannot parse a code of more than 32 bits", has_large_code),
    seen("no message", "T-09", "it cannot parse an error without a message", has_no_message),
    seen("server's own code", "T-09", "ours takes -32000 to -32099 for -32603", is_servers_own_code),
];

fn is_beyond_9999(heard: &Heard) -> bool {
    let beyond = |offer: &Value| offer["valid_until"].is_null();
    matches!(heard.only_stock(), Some(Understood::Menu(menu)) if menu.iter().any(beyond))
}

// ---- what is said to the LSP ----

fn parse_error(heard: &Heard) -> bool {
    let one = matches!(&heard.stock.said[..], [said]
        if said["id"].is_null() && said["error"]["code"] == -32_700);
    one && heard.ours.said.is_empty()
}

fn answers_bad_format(heard: &Heard) -> bool {
    parse_error(heard) && parse_response(&heard.payload).is_err()
}

fn answers_what_is_to_be_ignored(heard: &Heard) -> bool {
    let is_response = parse_response(&heard.payload).is_ok();
    parse_error(heard) && is_response && !heard.is_awaited()
}

fn answers_an_answer(heard: &Heard) -> bool {
    parse_error(heard) && heard.is_awaited()
}

#[rustfmt::skip]
pub const SAID: &[Difference<Heard>] = &[
    seen("answers bad format", "T-05", "it answers -32700 to what it should ignore", answers_bad_format),
    seen("answers the unknown", "T-09", "it answers -32700 to notifications and to ids that it does not remember", answers_what_is_to_be_ignored),
    seen("answers an answer", "T-06", "it answers -32700 to a response to its own request", answers_an_answer),
];

// ---- what is asked ----

/// A request of both clients.
pub struct Asked {
    /// Absent if ours asks nothing more on this connection.
    pub ours: Option<Value>,
    pub stock: Option<Value>,
    pub silenced: bool,
}

/// A request without its id, absent members left out.
pub fn plain_request(request: Option<Value>) -> Option<Value> {
    let mut request = request?;
    let fields = request.as_object_mut()?;
    let id = fields.remove("id")?;
    assert!(id.as_str().is_some_and(|id| id.len() == 32));
    let params = fields.get_mut("params")?.as_object_mut()?;
    params.retain(|_, value| !value.is_null());
    Some(request)
}

impl Compared for Asked {
    fn same(&self) -> bool {
        self.ours == self.stock
    }

    fn mend(&mut self, _: Vec<u8>) {}
}

fn is_silenced(asked: &Asked) -> bool {
    asked.silenced && asked.ours.is_none() && asked.stock.is_some()
}

/// The same but for how the date-time is written.
fn is_respelled(asked: &Asked) -> bool {
    let plain = |request: &Option<Value>| {
        let mut request = request.clone()?;
        let until = &mut request["params"]["opening_fee_params"]["valid_until"];
        *until = json!(parse_datetime(until.as_str()?)?);
        Some(request)
    };
    let ours = plain(&asked.ours);
    ours.is_some() && ours == plain(&asked.stock)
}

#[rustfmt::skip]
pub const ASKED: &[Difference<Asked>] = &[
    seen("asks no more", "T-05", "after bad format ours sends the LSP nothing more on this connection", is_silenced),
    seen("respelled", "J-23", "it writes the date-time of the offer anew", is_respelled),
];
