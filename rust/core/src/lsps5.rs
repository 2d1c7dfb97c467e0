//! LSPS5 (bLIP-55): requests about webhooks, the notifications sent to them, and what both sides check of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};

use crate::lsps0::{json_size, only_known, Request, RpcError};
use crate::reason::Reason;
use crate::time::{parse_datetime, Millis};

/// Method name.
pub const SET_WEBHOOK: &str = "lsps5.set_webhook";
/// Method name.
pub const LIST_WEBHOOKS: &str = "lsps5.list_webhooks";
/// Method name.
pub const REMOVE_WEBHOOK: &str = "lsps5.remove_webhook";
/// What every method and notification of LSPS5 begins with (W-23).
pub const PREFIX: &str = "lsps5.";
/// The number of this protocol in `list_protocols`.
pub const PROTOCOL: u16 = 5;
/// The longest `app_name`, bytes as it is written in JSON (W-02).
pub const MAX_APP_NAME: usize = 64;
/// The longest `webhook`, characters (W-02).
pub const MAX_URL: usize = 1_024;
/// The longest notification that is looked at, bytes.
pub const MAX_BODY: usize = 65_536;
/// Header of a notification (W-18).
pub const TIMESTAMP_HEADER: &str = "x-lsps5-timestamp";
/// Header of a notification (W-18).
pub const SIGNATURE_HEADER: &str = "x-lsps5-signature";
/// An HTLC is about to run out from this many blocks before it does (W-22).
pub const EXPIRY_SOON_BLOCKS: u32 = 24;

// ---- messages ----

/// A request of LSPS5, read and checked for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `lsps5.set_webhook`.
    Set(SetWebhook),
    /// `lsps5.list_webhooks`.
    List,
    /// `lsps5.remove_webhook`.
    Remove {
        /// The webhook's name.
        app_name: String,
    },
}

/// `lsps5.set_webhook` parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetWebhook {
    /// The webhook's name.
    pub app_name: String,
    /// Where to.
    pub webhook: Url,
}

impl Call {
    /// Reads a request; `payload` is the message that it came in, for lengths that count as they were written (W-02).
    ///
    /// # Errors
    /// The error to answer: form (−32602), then length (500), then the URL (501, 502).
    pub fn parse(request: &Request, payload: &[u8]) -> Result<Self, RpcError> {
        let text = |name: &str| match request.params.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(RpcError::bad_params(&[])),
        };
        match request.method.as_str() {
            SET_WEBHOOK => {
                only_known(&request.params, &["app_name", "webhook"])?;
                let (app_name, webhook) = (text("app_name")?, text("webhook")?);
                let name_size = written_app_name(payload)
                    .unwrap_or(0)
                    .max(json_size(&app_name));
                if name_size > MAX_APP_NAME || webhook.chars().count() > MAX_URL {
                    return Err(RpcError::refusal(Reason::WebhookTooLong, None));
                }
                let webhook =
                    Url::parse(&webhook).map_err(|reason| RpcError::refusal(reason, None))?;
                Ok(Self::Set(SetWebhook { app_name, webhook }))
            }
            LIST_WEBHOOKS => only_known(&request.params, &[]).map(|()| Self::List),
            REMOVE_WEBHOOK => {
                only_known(&request.params, &["app_name"])?;
                Ok(Self::Remove {
                    app_name: text("app_name")?,
                })
            }
            _ => Err(RpcError::refusal(Reason::UnknownMethod, None)),
        }
    }
}

/// The size of `app_name` as its sender wrote it, escapes and all, without its quotes (W-02).
fn written_app_name(payload: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        app_name: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_slice(payload).ok()?;
    message.params.app_name.get().len().checked_sub(2)
}

/// What `set_webhook` gives (W-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Webhooks of this client, this one included.
    pub num_webhooks: u32,
    /// Webhooks that a client may have.
    pub max_webhooks: u32,
    /// This name had this URL already.
    pub no_change: bool,
}

/// What `list_webhooks` gives (W-12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The names of this client's webhooks.
    pub app_names: Vec<String>,
    /// Webhooks that a client may have.
    pub max_webhooks: u32,
}

/// Reads a result of an LSP; unknown keys are ignored (T-09).
pub fn read_result<T: for<'a> Deserialize<'a>>(result: Value) -> Result<T, Reason> {
    // Serde would take an array for the struct.
    if !result.is_object() {
        return Err(Reason::BadResponse);
    }
    serde_json::from_value(result).map_err(|_| Reason::BadResponse)
}

/// The parameters of `set_webhook`, checked as an LSP would (W-01, W-02).
///
/// # Errors
/// What the LSP would answer.
pub fn set_params(app_name: &str, webhook: &str) -> Result<Value, Reason> {
    if json_size(app_name) > MAX_APP_NAME || webhook.chars().count() > MAX_URL {
        return Err(Reason::WebhookTooLong);
    }
    Url::parse(webhook)?;
    Ok(json!({ "app_name": app_name, "webhook": webhook }))
}

// ---- where to ----

/// A webhook: an https URL as RFC 1738 has it, IPv6 literals of RFC 2732 too (W-01).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
    target: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// `BadUrl` (501, W-03) or, for another scheme than https, `NotHttps` (502, W-04).
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let (scheme, rest) = text.split_once(':').ok_or(Reason::BadUrl)?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !is_scheme || !has_only_url_characters(text) {
            return Err(Reason::BadUrl);
        }
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(Reason::NotHttps);
        }
        let rest = rest.strip_prefix("//").ok_or(Reason::BadUrl)?;
        let (authority, rest) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at_checked(end).ok_or(Reason::BadUrl)?,
            None => (rest, ""),
        };
        let (host, port) = read_authority(authority).ok_or(Reason::BadUrl)?;
        // A fragment is the reader's own: it is not sent.
        let path = rest.split('#').next().unwrap_or_default();
        if path.contains(['[', ']']) {
            return Err(Reason::BadUrl);
        }
        let target = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
            target,
        })
    }

    /// As the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 if none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as a request line has them.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The `Host` header: a port only where it is not 443, an IPv6 address in brackets.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            HTTPS_PORT => host,
            port => format!("{host}:{port}"),
        }
    }
}

const HTTPS_PORT: u16 = 443;
/// DNS names are no longer, bytes.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// Printable ASCII but for what RFC 1738 calls unsafe (a tilde is safe by now), each `%` with two hex digits.
fn has_only_url_characters(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let allowed = match byte {
            b'%' => {
                let mut digit = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                digit() && digit()
            }
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic(),
        };
        if !allowed {
            return false;
        }
    }
    true
}

/// Host and port. User and password are no part of an http URL in RFC 1738, and would end up in logs.
fn read_authority(authority: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (literal, port) = rest.split_once(']')?;
        literal.parse::<Ipv6Addr>().ok()?;
        let port = match port {
            "" => "",
            port => port.strip_prefix(':')?,
        };
        (literal, port)
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        if !is_host(host) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        "" => HTTPS_PORT,
        port if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
        _ => return None,
    };
    (port != 0).then(|| (host.to_ascii_lowercase(), port))
}

/// A name, or an IPv4 address in its one usual form: resolvers also read `127.1` and `0x7f000001` as addresses.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let looks_like_number = last.starts_with(|c: char| c.is_ascii_digit());
    name.len() <= MAX_HOST
        && name.split('.').all(is_label)
        && (!looks_like_number || host.parse::<Ipv4Addr>().is_ok())
}

/// Whether an address can be somebody's on the public internet: a webhook is chosen by a stranger, and must not reach what
/// only this machine or its neighbours can (W-28).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

/// Only what is routed at all (2000::/3), without documentation and without the ranges that hold an IPv4 address.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let special =
        (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x2002 || a & 0xfff0 == 0x3ff0;
    a & 0xe000 == 0x2000 && !special
}

// ---- what is said ----

/// A notification (W-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notice {
    /// This webhook is registered.
    WebhookRegistered,
    /// A payment waits, or has just been missed.
    PaymentIncoming,
    /// An HTLC is about to run out.
    ExpirySoon {
        /// The height at which the channel would have to be closed.
        timeout: u32,
    },
    /// Liquidity is to be taken back.
    LiquidityManagementRequest,
    /// Onion messages wait.
    OnionMessageIncoming,
}

impl Notice {
    /// The method's name.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::WebhookRegistered => "lsps5.webhook_registered",
            Self::PaymentIncoming => "lsps5.payment_incoming",
            Self::ExpirySoon { .. } => "lsps5.expiry_soon",
            Self::LiquidityManagementRequest => "lsps5.liquidity_management_request",
            Self::OnionMessageIncoming => "lsps5.onion_message_incoming",
        }
    }

    /// The exact body of the request, keys in the order of the specification's example: whoever writes it anew before
    /// verifying will write the same (W-16).
    #[must_use]
    pub fn body(self) -> String {
        let params = match self {
            Self::ExpirySoon { timeout } => format!(r#"{{"timeout":{timeout}}}"#),
            _ => "{}".to_owned(),
        };
        let method = self.method();
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
    }
}

/// The text that is signed, by the LSP with its node key (W-17, T-25).
#[must_use]
pub fn signing_text(timestamp: &str, body: &str) -> String {
    format!("LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY: LSP: At {timestamp} I notify {body}")
}

// ---- what is believed ----

/// Why a notification is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disbelief {
    /// The body is no notification object.
    Body,
    /// The timestamp is no date-time.
    Timestamp,
    /// It was not signed by this LSP, or was altered.
    Signature,
    /// It is older, or newer, than the window allows.
    Stale,
    /// It was seen before.
    Replay,
}

impl Disbelief {
    /// One stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Timestamp => "timestamp",
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::Replay => "replay",
        }
    }

    /// For people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Body => "the body is no JSON-RPC notification",
            Self::Timestamp => "the timestamp is no date-time",
            Self::Signature => "the signature is not this LSP's for this body and timestamp",
            Self::Stale => "the timestamp is outside the window",
            Self::Replay => "this notification was seen before",
        }
    }
}

/// A notification as it came, of any method and with any parameters (W-25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Method name; one that is not known is to be ignored.
    pub method: String,
    /// Parameters; those not known are to be ignored.
    pub params: Map<String, Value>,
    /// When the LSP made it.
    pub at: Millis,
}

/// Reads what came to a webhook. Its signature is not looked at.
///
/// # Errors
/// `Body`, `Timestamp`.
pub fn read_notification(body: &str, timestamp: &str) -> Result<Notification, Disbelief> {
    if body.len() > MAX_BODY {
        return Err(Disbelief::Body);
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(body) else {
        return Err(Disbelief::Body);
    };
    let version = fields.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let (Some(Value::String(method)), Some(Value::Object(params))) =
        (fields.remove("method"), fields.remove("params"))
    else {
        return Err(Disbelief::Body);
    };
    if !version || fields.contains_key("id") {
        return Err(Disbelief::Body);
    }
    let at = parse_datetime(timestamp).ok_or(Disbelief::Timestamp)?;
    Ok(Notification { method, params, at })
}

/// Whether a notification is from about now.
///
/// # Errors
/// `Stale`.
pub fn check_window(at: Millis, now: Millis, window_ms: u64) -> Result<(), Disbelief> {
    if at.0.abs_diff(now.0) <= window_ms {
        Ok(())
    } else {
        Err(Disbelief::Stale)
    }
}

/// The height to warn a client of that is away (W-22): the lowest at which a channel would have to be closed, if that is
/// within 24 blocks.
#[must_use]
pub fn expiry_soon(height: u32, closing: impl Iterator<Item = u32>) -> Option<u32> {
    closing
        .min()
        .filter(|at| at.saturating_sub(height) <= EXPIRY_SOON_BLOCKS)
}
