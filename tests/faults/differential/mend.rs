//! What the specifications forbid and the stock handlers take, made what it should have been.

use std::collections::BTreeMap;
use std::str::FromStr;

use ldkjit_core::time::{format_datetime, parse_datetime, Millis};
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::asking::FIELDS;

/// The first JSON value in a payload, and where it ends.
pub fn first(payload: &[u8]) -> Option<(Value, usize)> {
    let mut values = serde_json::Deserializer::from_slice(payload).into_iter();
    let first = values.next()?.ok()?;
    Some((first, values.byte_offset()))
}

/// An object without what comes after it.
pub fn without_the_rest(payload: &[u8]) -> Option<Vec<u8>> {
    let (value, end) = first(payload)?;
    let blank = payload[end..].iter().all(|b| b" \t\r\n".contains(b));
    (value.is_object() && !blank).then(|| payload[..end].to_vec())
}

/// A list of values as the object that has them under these names.
pub fn by_name(names: &[&str], list: &[Value]) -> Option<Map<String, Value>> {
    if list.len() > names.len() {
        return None;
    }
    let named = names.iter().zip(list);
    Some(named.map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
}

/// An amount without the plus or the zeros before it.
pub fn canonical(value: &Value) -> Option<Value> {
    let text = value.as_str()?;
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok()).flatten()?;
    (number.to_string() != text).then(|| number.to_string().into())
}

/// A date-time that was in lower case, had a blank, or more than nine digits.
pub fn plain_instant(text: &str) -> Option<String> {
    if parse_datetime(text).is_some() {
        return None;
    }
    let read = LSPSDateTime::from_str(text).ok()?;
    let at = Millis(u64::try_from(read.0.timestamp_millis()).ok()?);
    let plain = format_datetime(at);
    // Not one that lies beyond what can be written.
    (parse_datetime(&plain) == Some(at)).then_some(plain)
}

/// An offer that was a list of its values.
pub fn offer_by_name(offer: &Value) -> Option<Value> {
    match offer {
        Value::Array(list) if list.len() == FIELDS.len() => {
            by_name(&FIELDS, list).map(Value::Object)
        }
        _ => None,
    }
}

/// An offer without fields that it must not have.
pub fn offer_without_unknown(offer: &Value) -> Option<Value> {
    let mut fields = offer.as_object()?.clone();
    let before = fields.len();
    fields.retain(|name, _| FIELDS.contains(&name.as_str()));
    (fields.len() < before).then_some(Value::Object(fields))
}

/// An offer with its amounts as they should be written.
pub fn offer_with_plain_amounts(offer: &Value) -> Option<Value> {
    let mut fields = offer.as_object()?.clone();
    let mut mended = false;
    for name in FIELDS.iter().filter(|name| name.ends_with("_msat")) {
        if let Some(plain) = fields.get(*name).and_then(canonical) {
            fields.insert((*name).to_owned(), plain);
            mended = true;
        }
    }
    mended.then_some(Value::Object(fields))
}

/// An offer with its date-time as it should be written.
pub fn offer_with_plain_instant(offer: &Value) -> Option<Value> {
    let mut fields = offer.as_object()?.clone();
    let plain = plain_instant(fields.get("valid_until")?.as_str()?)?;
    fields.insert("valid_until".to_owned(), plain.into());
    Some(Value::Object(fields))
}

/// Whether the name of a member is written with an escape: such a name cannot be borrowed from the text.
pub fn has_escaped_name(payload: &[u8]) -> bool {
    let owned = serde_json::from_slice::<BTreeMap<String, &RawValue>>(payload);
    let borrowed = serde_json::from_slice::<BTreeMap<&str, &RawValue>>(payload);
    owned.is_ok() && borrowed.is_err()
}
