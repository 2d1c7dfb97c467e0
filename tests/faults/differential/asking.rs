//! What clients may say to a service, and its bytes.

use ldkjit_core::amount::Msat;
use ldkjit_core::menu::{FeeTier, TrustModel};
use ldkjit_core::time::{format_datetime, parse_datetime, Millis};
use serde_json::{json, Map, Value};

use super::draw::Style;

/// What both services are given alike.
#[derive(Clone, Debug)]
pub struct Setting {
    /// From the menu to everything after it, ms.
    pub age_ms: u64,
    /// How far the stock service's date-times are beyond their millisecond, ns.
    pub finer_ns: u32,
    pub tiers: Vec<FeeTier>,
    /// The clients are on the operator's list of those that are not served.
    pub denied: bool,
    /// What all channels together could receive.
    pub inbound: Msat,
    pub trust: TrustModel,
    pub max_webhooks: u32,
}

/// The token that opens the same menu as none.
pub const TOKEN: &str = "gold";

#[derive(Clone, Debug)]
pub enum Step {
    Say(Box<Say>),
    /// These very bytes.
    Raw(Vec<u8>),
    /// The first client hangs up and comes back.
    Reconnect,
}

/// A request, or what was to be one. A member whose text is empty is left out.
#[derive(Clone, Debug, Default)]
pub struct Say {
    /// Which of two clients; the offers are always the first's.
    pub who: usize,
    pub id: String,
    pub jsonrpc: String,
    pub method: String,
    pub params: Params,
    /// More members.
    pub more: Vec<(String, String)>,
    pub style: Style,
    pub before: String,
    pub after: Vec<u8>,
    /// Bytes missing at the end.
    pub cut: usize,
    /// Filled up with blanks to this size.
    pub size: usize,
    /// The next one is sent before this one is answered.
    pub hasty: bool,
}

#[derive(Clone, Debug, Default)]
pub enum Params {
    #[default]
    Absent,
    Text(String),
    Json(Value),
    Buy(Buy),
}

/// `buy` parameters, made of whatever the service has offered.
#[derive(Clone, Debug)]
pub struct Buy {
    pub entry: usize,
    pub edits: Vec<Edit>,
    pub size: Size,
    pub more: Vec<String>,
    /// By position.
    pub list: bool,
}

#[derive(Clone, Debug)]
pub enum Edit {
    /// Another number, whether it is written as one or as a string.
    Shift(&'static str, i64),
    /// The same number as a string, with this before it.
    Before(&'static str, &'static str),
    Set(&'static str, Value),
    Drop(&'static str),
    More(&'static str),
    Instant(Instant),
    Promise(Promise),
    /// The offer as a list of its values.
    List,
}

/// `valid_until` written in another way, or another one.
#[derive(Clone, Copy, Debug)]
pub enum Instant {
    Digits(usize),
    Offset(&'static str),
    HourAhead,
    LowerCase,
    Blank,
    /// A microsecond later.
    Finer,
    Later(i64),
    Text(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub enum Promise {
    Digit(usize),
    Upper,
    Cut,
    Longer,
    Empty,
    TooLong,
}

#[derive(Clone, Debug)]
pub enum Size {
    Absent,
    Json(Value),
    /// This far from one of the offer's amounts.
    Near(&'static str, i64),
}

/// The fields of an offer, as the stock service writes them.
pub const FIELDS: [&str; 8] = [
    "min_fee_msat",
    "proportional",
    "valid_until",
    "min_lifetime",
    "max_client_to_self_delay",
    "min_payment_size_msat",
    "max_payment_size_msat",
    "promise",
];
/// An offer of nobody's, for who was given none.
fn forged() -> Value {
    json!({
        "min_fee_msat": "2000",
        "proportional": 4_000,
        "valid_until": "2099-01-01T00:00:00.000Z",
        "min_lifetime": 144,
        "max_client_to_self_delay": 2_016,
        "min_payment_size_msat": "10000",
        "max_payment_size_msat": "1000000000",
        "promise": "00",
    })
}

fn number(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(n) => n.to_string().parse().ok(),
        _ => None,
    }
}

fn instant(text: &str, how: Instant) -> String {
    let at = parse_datetime(text).unwrap_or(Millis(0));
    let plain = format_datetime(at);
    let (second, ms) = (&plain[..19], &plain[20..23]);
    match how {
        Instant::Digits(0) => format!("{second}Z"),
        Instant::Digits(n) => format!("{second}.{}Z", &format!("{ms}{}", "0".repeat(n))[..n]),
        Instant::Offset(offset) => format!("{second}.{ms}{offset}"),
        Instant::HourAhead => {
            let ahead = format_datetime(at.saturating_add(3_600_000));
            format!("{}+01:00", &ahead[..23])
        }
        Instant::LowerCase => plain.to_lowercase(),
        Instant::Blank => plain.replace('T', " "),
        Instant::Finer => format!("{second}.{ms}001Z"),
        Instant::Later(by) => format_datetime(Millis(at.0.saturating_add_signed(by))),
        Instant::Text(text) => text.to_owned(),
    }
}

fn edit(offer: &mut Map<String, Value>, edit: &Edit) {
    // An earlier edit may have taken the field away.
    let field = match edit {
        Edit::Shift(name, _) | Edit::Before(name, _) => name,
        Edit::Instant(_) => "valid_until",
        Edit::Promise(_) => "promise",
        _ => FIELDS[0],
    };
    let makes_new = matches!(edit, Edit::Set(..) | Edit::More(_));
    if !makes_new && !offer.contains_key(field) {
        return;
    }
    match edit {
        Edit::Shift(name, by) => {
            let value = &mut offer[*name];
            let other = number(value).unwrap_or(0) + i128::from(*by);
            *value = match value {
                Value::String(_) => other.to_string().into(),
                _ => i64::try_from(other).unwrap().into(),
            };
        }
        Edit::Before(name, before) => {
            let text = offer[*name].as_str().unwrap_or("1").to_owned();
            offer.insert((*name).to_owned(), format!("{before}{text}").into());
        }
        Edit::Set(name, value) => drop(offer.insert((*name).to_owned(), value.clone())),
        Edit::Drop(name) => drop(offer.remove(*name)),
        Edit::More(name) => drop(offer.insert((*name).to_owned(), 1.into())),
        Edit::Instant(how) => {
            let text = instant(offer["valid_until"].as_str().unwrap_or_default(), *how);
            offer.insert("valid_until".to_owned(), text.into());
        }
        Edit::Promise(how) => {
            let mut text = offer["promise"].as_str().unwrap_or_default().to_owned();
            match how {
                Promise::Digit(at) => {
                    let at = at % text.len().max(1);
                    if let Some(digit) = text.get(at..=at) {
                        let other = if digit == "0" { "1" } else { "0" };
                        text.replace_range(at..=at, other);
                    }
                }
                Promise::Upper => text = format!("{}A", text.to_uppercase()),
                Promise::Cut => drop(text.pop()),
                Promise::Longer => text.push('0'),
                Promise::Empty => text.clear(),
                Promise::TooLong => text = "p".repeat(513),
            }
            offer.insert("promise".to_owned(), text.into());
        }
        Edit::List => {}
    }
}

impl Buy {
    fn value(&self, menu: &[Value]) -> Value {
        let offer = match menu.len() {
            0 => forged(),
            n => menu[self.entry % n].clone(),
        };
        let size = match &self.size {
            Size::Absent => None,
            Size::Json(value) => Some(value.clone()),
            Size::Near(name, by) => {
                let size = number(&offer[*name]).unwrap_or(0) + i128::from(*by);
                Some(size.to_string().into())
            }
        };
        let mut fields = offer.as_object().unwrap().clone();
        for change in &self.edits {
            edit(&mut fields, change);
        }
        let as_list = self.edits.iter().any(|e| matches!(e, Edit::List));
        let offer = if as_list {
            FIELDS
                .iter()
                .filter_map(|name| fields.get(*name).cloned())
                .collect()
        } else {
            Value::Object(fields)
        };
        if self.list {
            return match size {
                None => json!([offer]),
                Some(size) => json!([offer, size]),
            };
        }
        let mut params = json!({ "opening_fee_params": offer });
        if let Some(size) = size {
            params["payment_size_msat"] = size;
        }
        for name in &self.more {
            params[name] = json!({ "more": [1, null] });
        }
        params
    }
}

impl Step {
    pub fn who(&self) -> usize {
        match self {
            Self::Say(say) => say.who,
            _ => 0,
        }
    }

    pub fn hasty(&self) -> bool {
        matches!(self, Self::Say(say) if say.hasty)
    }

    /// The message to the service that offered `menu`.
    pub fn bytes(&self, menu: &[Value]) -> Vec<u8> {
        match self {
            Self::Say(say) => say.bytes(menu),
            Self::Raw(bytes) => bytes.clone(),
            Self::Reconnect => Vec::new(),
        }
    }
}

impl Say {
    fn bytes(&self, menu: &[Value]) -> Vec<u8> {
        let params = match &self.params {
            Params::Absent => String::new(),
            Params::Text(text) => text.clone(),
            Params::Json(value) => self.style.value(value),
            Params::Buy(buy) => self.style.value(&buy.value(menu)),
        };
        let own = [
            ("jsonrpc", self.jsonrpc.clone()),
            ("id", self.id.clone()),
            ("method", self.method.clone()),
            ("params", params),
        ];
        let mut members: Vec<(String, String)> = own
            .into_iter()
            .map(|(name, text)| (format!("\"{name}\""), text))
            .collect();
        members.extend(self.more.iter().cloned());
        members.retain(|(_, text)| !text.is_empty());
        let mut bytes = self.before.clone().into_bytes();
        bytes.extend(self.style.object(members).into_bytes());
        bytes.truncate(bytes.len() - self.cut.min(bytes.len()));
        let rest = self.size.saturating_sub(bytes.len());
        bytes.extend(std::iter::repeat_n(b' ', rest));
        bytes.extend(&self.after);
        bytes
    }
}
