//! Where the stock service answers otherwise than ours, and why.

use std::collections::BTreeMap;
use std::str::FromStr;

use ldkjit_core::amount::wire_msat;
use ldkjit_core::fee::opening_fee;
use ldkjit_core::lsps0::{MAX_ID, MAX_PAYLOAD};
use ldkjit_core::lsps2::{BUY, GET_INFO};
use ldkjit_core::lsps5::{LIST_WEBHOOKS, MAX_APP_NAME, MAX_URL, REMOVE_WEBHOOK, SET_WEBHOOK};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::{parse_datetime, Millis};
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};

use super::asking::FIELDS;
use super::mend::{
    by_name, canonical, first, has_escaped_name, offer_by_name, offer_with_plain_amounts,
    offer_with_plain_instant, offer_without_unknown, without_the_rest,
};
use super::our_service::Ours;
use super::services::Outcome;
use super::table::{lenient, seen, taken, Compared, Difference};

/// One message and what both made of it.
pub struct Case {
    /// As our service got it, or as it is after what was forbidden has been mended.
    pub payload: Vec<u8>,
    pub ours: Outcome,
    /// As the stock service got it: with its own promise.
    pub to_stock: Vec<u8>,
    pub stock: Outcome,
    /// Our service as it was before.
    pub before: Ours,
    pub who: usize,
    pub now: Millis,
    /// The stock service had stopped to listen to this client.
    pub deaf: bool,
    /// The client had hung up, or was hung up on.
    pub gone: bool,
    /// Its requests that wait for the application, and its sales that nobody has paid for.
    pub load: usize,
    pub sold: usize,
    /// A request with the same id waits already.
    pub twin: bool,
    /// The stock service's offers end between two milliseconds.
    pub finer: bool,
    /// Changes of webhooks before this one.
    pub changes: u32,
}

const MAX_LOAD: usize = 10;
const METHODS: [&str; 6] = [
    "lsps0.list_protocols",
    GET_INFO,
    BUY,
    SET_WEBHOOK,
    LIST_WEBHOOKS,
    REMOVE_WEBHOOK,
];

impl Case {
    fn message(&self) -> Option<Map<String, Value>> {
        match first(&self.payload)?.0 {
            Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    fn method(&self) -> Option<String> {
        Some(self.message()?.get("method")?.as_str()?.to_owned())
    }

    fn is(&self, method: &str) -> bool {
        self.method().as_deref() == Some(method)
    }

    fn param(&self, name: &str) -> Option<Value> {
        self.message()?.get("params")?.get(name).cloned()
    }

    fn text(&self, name: &str) -> String {
        let value = self.param(name).unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }

    fn offer(&self) -> Option<Map<String, Value>> {
        match self.param("opening_fee_params")? {
            Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    fn offered_amount(&self, name: &str) -> Option<u64> {
        Some(wire_msat::parse(self.offer()?.get(name)?.as_str()?)?.0)
    }

    /// The message with other parameters.
    fn with_params(&self, params: Value) -> Option<Vec<u8>> {
        let mut message = self.message()?;
        message.insert("params".to_owned(), params);
        Some(Value::Object(message).to_string().into_bytes())
    }

    /// −32602 for a value.
    fn bad_value(&self) -> bool {
        let none = json!({ "unrecognized": [] });
        matches!(&self.ours.answers[..], [a] if a.body == Err((-32_602, Some(none))))
    }

    /// Neither understood nor without an answer.
    fn stock_goes_on(&self) -> bool {
        self.stock.result().is_some()
            || matches!(self.stock.code(), Some(1 | 200..=299 | 503 | 1_003 | 1_010))
    }
}

/// What of a message ours should not have taken, or not so.
pub fn took(case: &Case) -> Option<&'static str> {
    let sold = case.is(BUY) && case.ours.result().is_some();
    let until = valid_until(&case.payload);
    if sold && until.is_none_or(|(ms, _)| ms <= case.now) {
        return Some("last second");
    }
    taken(TABLE, case, is_refused)
}

fn is_refused(case: &Case, name: &str) -> bool {
    let data = match &case.ours.answers[..] {
        [answer] => answer.body.as_ref().err(),
        _ => None,
    };
    match data {
        // The message is refused for more than this.
        Some((-32_700 | -32_600, None)) => true,
        Some((-32_602, Some(data))) => {
            let params = case.message().and_then(|mut m| m.remove("params"));
            let is_offer = name == "unknown field of an offer";
            let (inner, known, prefix) = if is_offer {
                (
                    case.param("opening_fee_params"),
                    &FIELDS[..],
                    "opening_fee_params.",
                )
            } else {
                (params, names(&case.method().unwrap_or_default()), "")
            };
            let fields = inner.and_then(|inner| inner.as_object().cloned());
            let fields = fields.unwrap_or_default().into_iter().map(|(name, _)| name);
            let unknown: Vec<String> = fields
                .filter(|name| !known.contains(&name.as_str()))
                .map(|name| format!("{prefix}{name}"))
                .collect();
            // Those of the request are named first, and those of the offer only if there are none.
            let first = is_offer && without_unknown_params(case).is_some();
            first || data["unrecognized"] == json!(unknown) || !name.starts_with("unknown")
        }
        _ => false,
    }
}

impl Compared for Case {
    fn same(&self) -> bool {
        self.ours.same(&self.stock)
    }

    fn mend(&mut self, payload: Vec<u8>) {
        self.ours = self.before.clone().hear(self.who, &payload);
        self.payload = payload;
    }
}

/// The names of parameters, in the order in which the stock service takes them from a list.
fn names(method: &str) -> &'static [&'static str] {
    match method {
        GET_INFO => &["token"],
        BUY => &["opening_fee_params", "payment_size_msat"],
        SET_WEBHOOK => &["app_name", "webhook"],
        REMOVE_WEBHOOK => &["app_name"],
        _ => &[],
    }
}

// ---- what is forbidden and taken ----

fn with_version(case: &Case) -> Option<Vec<u8>> {
    let mut message = case.message()?;
    let before = message.insert("jsonrpc".to_owned(), "2.0".into());
    (before != Some("2.0".into())).then(|| Value::Object(message).to_string().into_bytes())
}

fn with_params_by_name(case: &Case) -> Option<Vec<u8>> {
    let method = case.method()?;
    let params = case.message()?.remove("params")?;
    if case.stock.not_understood() {
        return None;
    }
    let named = match params {
        Value::Object(_) => return None,
        // The stock service never looks at them.
        _ if method == "lsps0.list_protocols" => Map::new(),
        Value::Array(list) => by_name(names(&method), &list)?,
        _ => return None,
    };
    case.with_params(Value::Object(named))
}

fn without_unknown_params(case: &Case) -> Option<Vec<u8>> {
    let method = case.method().filter(|m| METHODS.contains(&m.as_str()))?;
    let mut params = match case.message()?.remove("params")? {
        Value::Object(params) => params,
        _ => return None,
    };
    let before = params.len();
    params.retain(|name, _| names(&method).contains(&name.as_str()));
    (params.len() < before)
        .then(|| case.with_params(Value::Object(params)))
        .flatten()
}

fn with_offer(case: &Case, mend: fn(&Value) -> Option<Value>) -> Option<Vec<u8>> {
    let mut params = case.message()?.remove("params")?;
    let offer = params.get_mut("opening_fee_params")?;
    *offer = mend(offer)?;
    case.with_params(params)
}

fn with_plain_size(case: &Case) -> Option<Vec<u8>> {
    let mut params = case.message()?.remove("params")?;
    let size = params.get_mut("payment_size_msat")?;
    *size = canonical(size)?;
    case.with_params(params)
}

// ---- what is seen ----

fn is_not_utf8(case: &Case) -> bool {
    case.stock.hung_up && case.ours.not_understood() && std::str::from_utf8(&case.payload).is_err()
}

fn is_too_long(case: &Case) -> bool {
    case.ours.not_understood() && case.payload.len() > MAX_PAYLOAD
}

fn has_long_id(case: &Case) -> bool {
    let id = case.message().and_then(|mut m| m.remove("id"));
    let is_long = id
        .as_ref()
        .and_then(Value::as_str)
        .is_some_and(|id| id.len() > MAX_ID);
    let answers_it = case
        .stock
        .answers
        .iter()
        .all(|a| Some(&a.id) == id.as_ref());
    case.ours.not_understood() && is_long && answers_it
}

/// Escapes in the name of a member or of a method: the stock service reads neither.
fn has_escapes(case: &Case) -> bool {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(&case.payload).unwrap_or_default();
    let in_method = members
        .get("method")
        .is_some_and(|m| m.get().contains('\\'));
    let in_name = has_escaped_name(&case.payload);
    case.stock.not_understood() && !case.ours.not_understood() && (in_method || in_name)
}

fn is_unknown_method(case: &Case) -> bool {
    let known = case.method().is_some_and(|m| METHODS.contains(&m.as_str()));
    case.ours.code() == Some(-32_601) && !known && case.stock.not_understood()
}

fn is_lsps1(case: &Case) -> bool {
    case.is("lsps1.get_info") && case.ours.code() == Some(-32_601) && case.stock.silent()
}

fn has_bad_error(case: &Case) -> bool {
    let message = case.message().unwrap_or_default();
    let error = message.get("error");
    let bad = error.is_some_and(|e| !e["code"].is_i64() || !e["message"].is_string());
    bad && case.method().is_some() && case.stock.not_understood() && !case.ours.silent()
}

/// A value of the wrong type, or none where one must be. Parameters that are no object ours refuses before it looks at the
/// method.
fn has_bad_value(case: &Case) -> bool {
    let known = case.method().is_some_and(|m| METHODS.contains(&m.as_str()));
    let params = case.message().and_then(|mut m| m.remove("params"));
    let no_object = params.is_some_and(|params| !params.is_object());
    case.bad_value() && (known || no_object) && case.stock.not_understood()
}

fn is_an_error(case: &Case) -> bool {
    let message = case.message().unwrap_or_default();
    message.contains_key("error")
        && !message.contains_key("method")
        && case.ours.silent()
        && case.stock.not_understood()
}

/// The stock service looks at the size before the promise.
fn size_comes_first(case: &Case) -> bool {
    let size = wire_msat::parse(&case.text("payment_size_msat"));
    let least = case.offered_amount("min_payment_size_msat");
    let most = case.offered_amount("max_payment_size_msat");
    let least_fee = case
        .offered_amount("min_fee_msat")
        .map(ldkjit_core::amount::Msat);
    let ppm = case.offer().and_then(|o| o.get("proportional")?.as_u64());
    let ppm = ppm.and_then(|ppm| u32::try_from(ppm).ok());
    let (Some(size), Some(least), Some(most), Some(least_fee), Some(ppm)) =
        (size, least, most, least_fee, ppm)
    else {
        return false;
    };
    let expected = if size.0 < least {
        202
    } else if size.0 > most {
        203
    } else {
        match opening_fee(size, least_fee, ppm) {
            None => 203,
            Some(fee) if fee >= size => 202,
            Some(_) => return false,
        }
    };
    case.ours.code() == Some(201) && case.stock.code() == Some(expected)
}

fn valid_until(payload: &[u8]) -> Option<(Millis, LSPSDateTime)> {
    let message: Value = serde_json::from_slice(payload).ok()?;
    let params = &message["params"];
    let offer = params.get("opening_fee_params").unwrap_or(&params[0]);
    let text = offer
        .get("valid_until")
        .unwrap_or(&offer[2])
        .as_str()?
        .to_owned();
    let read = LSPSDateTime::from_str(&text).ok()?;
    Some((Millis(u64::try_from(read.0.timestamp_millis()).ok()?), read))
}

/// The offer has ended in this very second.
fn ends_in_this_second(case: &Case) -> bool {
    let until = valid_until(&case.payload).map(|(ms, _)| ms.0);
    let ended = until.is_some_and(|ms| ms <= case.now.0 && ms / 1_000 == case.now.0 / 1_000);
    // Sold, or refused for what is looked at later.
    let believed = case.stock.result().is_some()
        || case.stock.code() == Some(1)
        || case.stock.refused.is_some();
    case.ours.code() == Some(201) && ended && believed
}

/// The same millisecond, but not the same nanosecond: our promise is for the first, the stock one for the second.
fn is_same_millisecond(case: &Case) -> bool {
    let is_finer = |(ms, read): (Millis, LSPSDateTime)| {
        let whole = std::time::Duration::from_millis(ms.0);
        read != LSPSDateTime::new_from_duration_since_epoch(whole)
    };
    let promised = !matches!(case.ours.code(), Some(201 | -32_602));
    let finer = valid_until(&case.to_stock).is_some_and(is_finer);
    promised && case.stock.code() == Some(201) && (finer || case.finer)
}

/// An instant after the year 9999, which has no other form than one with an offset.
fn is_beyond_9999(case: &Case) -> bool {
    let text = case
        .offer()
        .and_then(|o| Some(o.get("valid_until")?.as_str()?.to_owned()));
    let beyond =
        text.is_some_and(|text| text.starts_with("9999-12-31") && parse_datetime(&text).is_none());
    case.bad_value() && beyond && matches!(case.stock.code(), Some(201..=203))
}

fn cannot_refuse(case: &Case) -> bool {
    let reason = case
        .stock
        .refused
        .and_then(Reason::wire_code)
        .map(i64::from);
    case.stock.silent() && reason.is_some() && case.ours.code() == reason
}

fn can_only_offer_nothing(case: &Case) -> bool {
    let empty = json!({ "opening_fee_params_menu": [] });
    let denied = case.stock.refused == Some(Reason::ClientDenied);
    denied && case.ours.code() == Some(1) && case.stock.result() == Some(&empty)
}

fn is_loaded(case: &Case) -> bool {
    let asks = case.is(GET_INFO) || case.is(BUY);
    asks && case.load >= MAX_LOAD && case.stock.code() == Some(1) && !case.ours.silent()
}

fn is_twin(case: &Case) -> bool {
    let once = case.ours.answers.len() == 1 && case.stock.silent();
    case.twin && once && case.stock.refused.is_none()
}

fn is_deaf(case: &Case) -> bool {
    case.deaf && case.stock.silent()
}

fn is_gone(case: &Case) -> bool {
    case.gone && case.stock.silent()
}

// ---- webhooks ----

fn wants_prior_activity(case: &Case) -> bool {
    let set = case.is(SET_WEBHOOK) && case.sold == 0;
    let ours = case.ours.result().is_some() || matches!(case.ours.code(), Some(1 | 503));
    set && case.stock.code() == Some(1_003) && ours
}

fn says_no_limit(case: &Case) -> bool {
    let body = |o: &Outcome| o.answers.first().map(|a| a.body.clone());
    let data = json!({ "max_webhooks": 3 });
    body(&case.ours) == Some(Err((503, Some(data)))) && body(&case.stock) == Some(Err((503, None)))
}

/// The size of a text as JSON, without quotes.
fn written(value: &RawValue) -> usize {
    let decoded: String = serde_json::from_str(value.get()).unwrap_or_default();
    let least = Value::from(decoded).to_string().len();
    value.get().len().max(least).saturating_sub(2)
}

/// The name is short enough only if its escapes are not counted.
fn has_long_escapes(case: &Case) -> bool {
    #[derive(serde::Deserialize)]
    struct Message {
        params: BTreeMap<String, Box<RawValue>>,
    }
    let message: Option<Message> = serde_json::from_slice(&case.payload).ok();
    let name = message.and_then(|mut m| m.params.remove("app_name"));
    let long = name.is_some_and(|name| written(&name) > MAX_APP_NAME);
    let short = case.text("app_name").len() <= MAX_APP_NAME;
    let taken = case.stock_goes_on();
    case.is(SET_WEBHOOK) && case.ours.code() == Some(500) && long && short && taken
}

/// What is too long, no URL or not https is a parse error to the stock service.
fn refuses_as_unreadable(case: &Case) -> bool {
    let url = case.text("webhook");
    let long = case.text("app_name").len() > MAX_APP_NAME || url.chars().count() > MAX_URL;
    let code = case.ours.code();
    let scheme = url.split(':').next().unwrap_or_default();
    let other = !scheme.eq_ignore_ascii_case("https");
    let fits = match code {
        Some(500) => true,
        Some(501) => !long,
        Some(502) => !long && other,
        _ => false,
    };
    case.is(SET_WEBHOOK) && fits && case.stock.not_understood()
}

/// Host and port of an https URL.
fn authority(url: &str) -> &str {
    let rest = url.get(8..).unwrap_or_default();
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// A password in it, no such host, no such port, or a percent sign that escapes nothing.
fn is_no_url(url: &str) -> bool {
    let authority = authority(url);
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let bad_label = |label: &str| label.is_empty() || label.starts_with('-');
    let numbers = host
        .split('.')
        .all(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let bad_host = host.split('.').any(bad_label) || numbers && host.split('.').count() != 4;
    let bad_percent = url.split('%').skip(1).any(|after| {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() != 2
    });
    authority.contains('@') || bad_host || bad_percent || port == "0" || port.contains(':')
}

fn takes_what_is_no_url(case: &Case) -> bool {
    let refused = case.is(SET_WEBHOOK) && case.ours.code() == Some(501);
    refused && is_no_url(&case.text("webhook")) && case.stock_goes_on()
}

fn refuses_what_is_a_url(case: &Case) -> bool {
    let url = case.text("webhook");
    let special = url.contains(['~', '+', '(', ')', '!', '*', '\'', ',', ';', '$', '[', ']']);
    let taken = case.ours.result().is_some() || matches!(case.ours.code(), Some(1 | 503));
    case.is(SET_WEBHOOK) && special && taken && case.stock.not_understood()
}

fn removes_no_long_name(case: &Case) -> bool {
    let long = case.text("app_name").len() > MAX_APP_NAME;
    let unknown = case.ours.code() == Some(1_010);
    case.is(REMOVE_WEBHOOK) && long && unknown && case.stock.not_understood()
}

fn changes_without_end(case: &Case) -> bool {
    let often = case.changes >= ldkjit_core::webhooks::CHANGES_PER_HOUR;
    let refused = case.ours.code() == Some(1) && case.ours.posts.is_empty();
    case.is(SET_WEBHOOK) && often && refused && case.stock.result().is_some()
}

/// In this order: what is nearest to the wire comes first.
#[rustfmt::skip]
pub const TABLE: &[Difference<Case>] = &[
    seen("deaf", "D-10", "after a message that it cannot parse it ignores the client until that reconnects", is_deaf),
    seen("hung up", "T-04", "and after one that is not UTF-8 there is no connection", is_gone),
    seen("not UTF-8", "T-04", "it cuts the connection instead of answering -32700", is_not_utf8),
    seen("longer than a message", "T-01", "it would read more than a message can carry; none can be sent", is_too_long),
    seen("long id", "T-01", "ours answers no id above 1,024 bytes, so that every answer fits a message", has_long_id),
    lenient("something after the object", "T-02", "it reads the first object and no further", |case| without_the_rest(&case.payload)),
    lenient("jsonrpc", "T-16", "it never looks at the version; ours answers -32600", with_version),
    seen("escaped names", "T-02", "it cannot read an escape in the name of a member or method", has_escapes),
    seen("unknown method", "T-08", "-32700 to nobody instead of -32601", is_unknown_method),
    seen("methods of LSPS1", "T-08", "no answer instead of -32601", is_lsps1),
    seen("an error in a request", "T-09", "it reads a member that no request has; ours ignores it", has_bad_error),
    seen("an error", "T-04", "ours answers no error, or two services would answer each other for ever", is_an_error),
    lenient("parameters by position", "T-03", "it takes a list, or anything where it expects nothing; ours answers -32602", with_params_by_name),
    lenient("unknown parameter", "T-08", "it ignores them; ours answers -32602 with their names", without_unknown_params),
    lenient("unknown field of an offer", "J-09", "it ignores them; ours answers -32602 with their names", |case| with_offer(case, offer_without_unknown)),
    lenient("offer by position", "J-09", "it takes a list of eight values for the object", |case| with_offer(case, offer_by_name)),
    lenient("plus or zeros in an offer", "T-14", "it takes them before an amount", |case| with_offer(case, offer_with_plain_amounts)),
    lenient("plus or zeros in a size", "T-14", "it takes them before an amount", with_plain_size),
    lenient("sloppy date-time", "T-14", "it takes lower case, a blank for the T, and more than nine digits", |case| with_offer(case, offer_with_plain_instant)),
    seen("bad value", "B-12", "-32700 to nobody instead of -32602", has_bad_value),
    seen("size before promise", "J-84", "202 and 203 come before 201 (hazard 11)", size_comes_first),
    seen("last second", "B-9", "it compares whole seconds, and the last one counts", ends_in_this_second),
    seen("same millisecond", "B-6", "its promise is for the text of the date-time, ours for the millisecond", is_same_millisecond),
    seen("after the year 9999", "T-14", "it reads an instant that cannot be written with four digits", is_beyond_9999),
    seen("twins", "D-5", "of two requests with one id at once it answers one, and its counter leaks", is_twin),
    seen("load", "D-11", "it counts requests and unpaid sales together, and refuses a menu for sales", is_loaded),
    seen("cannot refuse", "D-11", "its application has no way to refuse a sale: no answer", cannot_refuse),
    seen("nothing for the denied", "J-34", "its application can refuse a token only: an empty menu instead of 1", can_only_offer_nothing),
    seen("prior activity", "T-15", "1003, which no specification knows, to a client that has bought nothing", wants_prior_activity),
    seen("limit", "W-06", "503 without max_webhooks", says_no_limit),
    seen("written length", "W-02", "it does not count escapes as they are written", has_long_escapes),
    seen("unreadable webhook", "W-03", "-32700 to nobody instead of 500, 501 or 502", refuses_as_unreadable),
    seen("no URL", "W-03", "it takes passwords, hosts and ports that cannot be, and escapes that are none", takes_what_is_no_url),
    seen("all of RFC 1738", "W-01", "it knows only some of the characters that a URL may have", refuses_what_is_a_url),
    seen("long unknown name", "W-13", "-32700 to nobody instead of 1010", removes_no_long_name),
    seen("changes without end", "W-28", "ours takes 30 changes an hour from a client: each calls an address of its choice", changes_without_end),
];
