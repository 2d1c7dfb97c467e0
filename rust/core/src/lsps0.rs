//! LSPS0: the JSON-RPC envelope of type-37913 messages, both ways, and `lsps0.list_protocols`.

use serde_json::{json, Map, Value};

use crate::reason::Reason;

/// BOLT 8 message type that carries LSPS (T-01).
pub const MESSAGE_TYPE: u16 = 37913;
/// The largest payload of one message, bytes (T-01).
pub const MAX_PAYLOAD: usize = 65_533;
/// The longest request id we answer, bytes: an answer repeats it and must still fit.
pub const MAX_ID: usize = 1_024;
/// The method that lists the protocols served (T-13).
pub const LIST_PROTOCOLS: &str = "lsps0.list_protocols";

/// The size of a text as a JSON string with no needless escape, without its quotes, bytes.
pub(crate) fn json_size(text: &str) -> usize {
    Value::from(text).to_string().len().saturating_sub(2)
}

/// The longest text of a peer that is kept, characters.
const MAX_TEXT: usize = 256;
/// How many bytes of unrecognised parameters' names an error repeats: with the longest id it still fits a message.
const MAX_UNRECOGNIZED: usize = 58_000;

/// A request as it came: the method is not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be repeated in the answer.
    pub id: String,
    /// Method name.
    pub method: String,
    /// By-name parameters; empty if there were none.
    pub params: Map<String, Value>,
}

/// The `error` object of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// JSON-RPC or LSPS code (T-15, T-16).
    pub code: i64,
    /// For people. One that came from a peer is filtered and bounded (T-11).
    pub message: String,
    /// Any JSON: the specifications ask for objects, LDK 0.2.7 writes strings.
    pub data: Option<Value>,
    /// Why we refuse; not on the wire, so `None` in one that came from a peer.
    pub reason: Option<Reason>,
}

/// An error and the request it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The request's id; `None` (`null` on the wire) if it had none that can be read.
    pub id: Option<String>,
    /// What is wrong.
    pub error: RpcError,
}

impl RpcError {
    /// The error for a refusal, in the reason's own words or in `text`, the operator's.
    ///
    /// There is no `data`: an LDK 0.2.7 client that meets an object there goes deaf until it reconnects.
    /// A reason that has no wire code is answered as an internal error.
    #[must_use]
    pub fn refusal(reason: Reason, text: Option<&str>) -> Self {
        Self {
            code: i64::from(reason.wire_code().unwrap_or(-32603)),
            message: clean_text(text.unwrap_or(reason.message())),
            data: None,
            reason: Some(reason),
        }
    }

    /// The same error with `data: {"message": …}`, as J-34 words it; for clients that are known not to be LDK 0.2.7.
    #[must_use]
    pub fn with_data_message(self) -> Self {
        Self {
            data: Some(json!({ "message": self.message })),
            ..self
        }
    }

    /// −32602, naming the parameters that are not known; none if a value is at fault (T-08, B-12). The names are as they
    /// came: they go back to whoever sent them, and nowhere else.
    #[must_use]
    pub fn bad_params(unrecognized: &[String]) -> Self {
        let mut room = MAX_UNRECOGNIZED;
        let names: Vec<&String> = unrecognized
            .iter()
            .filter(|name| {
                // With its quotes and comma.
                let size = json_size(name).checked_add(3);
                let left = size.and_then(|size| room.checked_sub(size));
                room = left.unwrap_or(room);
                left.is_some()
            })
            .collect();
        Self {
            data: Some(json!({ "unrecognized": names })),
            ..Self::refusal(Reason::BadParams, None)
        }
    }

    /// The code to act on: the range that JSON-RPC reserves for servers reads as −32603 (T-09).
    #[must_use]
    pub fn effective_code(&self) -> i64 {
        if (-32_099..=-32_000).contains(&self.code) {
            -32_603
        } else {
            self.code
        }
    }

    /// This error as the answer to request `id`.
    #[must_use]
    pub fn answering(self, id: &str) -> ErrorResponse {
        ErrorResponse {
            id: Some(id.to_owned()),
            error: self,
        }
    }
}

impl ErrorResponse {
    /// The payload to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut error = json!({ "code": self.error.code, "message": self.error.message });
        if let (Some(fields), Some(data)) = (error.as_object_mut(), &self.error.data) {
            fields.insert("data".to_owned(), data.clone());
        }
        bytes(&json!({ "jsonrpc": "2.0", "id": self.id, "error": error }))
    }
}

/// The payload of a request.
#[must_use]
pub fn encode_request(id: &str, method: &str, params: &Value) -> Vec<u8> {
    bytes(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

/// The payload of a response that is no error.
#[must_use]
pub fn encode_result(id: &str, result: &Value) -> Vec<u8> {
    bytes(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

fn bytes(message: &Value) -> Vec<u8> {
    message.to_string().into_bytes()
}

/// A request id from 128 random bits, which the caller draws from the system's generator (T-10).
#[must_use]
pub fn request_id(random: [u8; 16]) -> String {
    use bitcoin::hex::DisplayHex;
    random.to_lower_hex_string()
}

/// The one JSON object that a payload must be (T-02).
fn object(payload: &[u8]) -> Option<Map<String, Value>> {
    if payload.len() > MAX_PAYLOAD {
        return None;
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// Which side of this node a payload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The service: `parse_request`, and always an answer.
    Service,
    /// The client: `parse_response`, and never an answer.
    Client,
    /// Neither: to be forgotten.
    Nobody,
}

/// Sorts a payload of a peer that may be client, LSP or both; `asked` says whether we sent it a request on this connection.
///
/// What carries an `error` is never answered: two services would answer each other's errors for ever.
#[must_use]
pub fn side_of(payload: &[u8], asked: bool) -> Side {
    let fields = object(payload).unwrap_or_default();
    let has = |name| fields.contains_key(name);
    if has("method") && has("id") {
        Side::Service
    } else if asked {
        Side::Client
    } else if has("error") && !has("method") {
        Side::Nobody
    } else {
        Side::Service
    }
}

/// Reads what a client sent. The error is the answer to give, after which the message is forgotten.
///
/// Whatever is not a request is −32700 with id `null` (T-04), a JSON-RPC version other than 2.0 −32600
/// (T-16), parameters that are not by name −32602 (T-03).
pub fn parse_request(payload: &[u8]) -> Result<Request, ErrorResponse> {
    let refuse = |id: Option<String>, error| ErrorResponse { id, error };
    let bad_format = || refuse(None, RpcError::refusal(Reason::BadFormat, None));
    let mut fields = object(payload).ok_or_else(bad_format)?;
    let id = match fields.remove("id") {
        Some(Value::String(id)) if id.len() <= MAX_ID => Some(id),
        _ => None,
    };
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        let error = RpcError::refusal(Reason::BadVersion, None);
        return Err(refuse(id, error));
    }
    let (Some(id), Some(Value::String(method))) = (id, fields.remove("method")) else {
        return Err(bad_format());
    };
    match fields.remove("params") {
        Some(Value::Object(params)) => Ok(Request { id, method, params }),
        None => Ok(Request {
            id,
            method,
            params: Map::new(),
        }),
        Some(_) => Err(RpcError::bad_params(&[]).answering(&id)),
    }
}

/// What an LSP sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromLsp {
    /// The answer to a request; one whose id is not remembered is to be ignored (T-09).
    Response {
        /// The request's id; `None` if the LSP could not read it.
        id: Option<String>,
        /// Result or error.
        outcome: Result<Value, RpcError>,
    },
    /// A notification; one that is not known is to be ignored (T-09).
    Notification {
        /// Method name.
        method: String,
        /// By-name parameters.
        params: Map<String, Value>,
    },
}

/// A payload that is neither response nor notification: ignore it, and send that LSP no more until reconnected (T-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFormat;

/// Reads what an LSP sent.
pub fn parse_response(payload: &[u8]) -> Result<FromLsp, BadFormat> {
    let mut fields = object(payload).ok_or(BadFormat)?;
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(BadFormat);
    }
    let id = fields.remove("id");
    if let Some(method) = fields.remove("method") {
        return match (method, id, fields.remove("params")) {
            (Value::String(method), None, Some(Value::Object(params))) => {
                Ok(FromLsp::Notification { method, params })
            }
            (Value::String(method), None, None) => Ok(FromLsp::Notification {
                method,
                params: Map::new(),
            }),
            _ => Err(BadFormat),
        };
    }
    let id = match id {
        Some(Value::String(id)) => Some(id),
        // JSON-RPC allows it, and none of ours is one: it answers somebody else's request.
        Some(Value::Number(id)) => Some(id.to_string()),
        Some(Value::Null) => None,
        _ => return Err(BadFormat),
    };
    let outcome = match (fields.remove("result"), fields.remove("error")) {
        (Some(result), None) => Ok(result),
        (None, Some(Value::Object(error))) => Err(read_error(error).ok_or(BadFormat)?),
        _ => return Err(BadFormat),
    };
    Ok(FromLsp::Response { id, outcome })
}

fn read_error(mut fields: Map<String, Value>) -> Option<RpcError> {
    Some(RpcError {
        code: fields.get("code")?.as_i64()?,
        message: fields
            .get("message")
            .and_then(Value::as_str)
            .map(clean_text)
            .unwrap_or_default(),
        data: fields.remove("data").filter(|data| !data.is_null()),
        reason: None,
    })
}

/// A peer's or an operator's text made fit for logs and screens: one line without markup, control or direction characters,
/// at most 256 characters (T-11).
#[must_use]
pub fn clean_text(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .map(|c| if is_harmless(c) { c } else { '?' })
        .collect()
}

/// Not a control, line-breaking, invisible, text-direction or markup character.
fn is_harmless(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '<' | '>' | '\u{ad}' | '\u{61c}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'))
}

/// The names in `params` that are not in `known`, as the −32602 to answer (T-08).
pub fn only_known(params: &Map<String, Value>, known: &[&str]) -> Result<(), RpcError> {
    let unknown: Vec<String> = params
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .cloned()
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(RpcError::bad_params(&unknown))
    }
}

/// The result of `list_protocols`: the numbers served, ascending and without 0, which is understood (T-13).
#[must_use]
pub fn list_protocols_result(served: &[u16]) -> Value {
    let mut numbers: Vec<u16> = served.iter().copied().filter(|n| *n != 0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    json!({ "protocols": numbers })
}

/// The numbers in a `list_protocols` result; `None` if it is not one.
#[must_use]
pub fn read_list_protocols(result: &Value) -> Option<Vec<u16>> {
    result
        .get("protocols")?
        .as_array()?
        .iter()
        .map(|n| n.as_u64().and_then(|n| u16::try_from(n).ok()))
        .collect()
}
