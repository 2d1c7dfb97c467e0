//! How a ledger row is written down: each carries a digest of itself and of all before it, so that a row that was lost,
//! doubled or altered is known by its number.

use bitcoin::hashes::{sha256, Hash, HashEngine};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::Deserialize;
use serde_json::json;

use crate::ledger::LedgerEntry;

const LINK: &str = ",\"link\":\"";
/// Two hex digits a byte, the quote and the brace after them.
const TAIL: usize = 18;

/// The digest of a history up to a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link([u8; 8]);

/// A row as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Row {
    /// When, ms since 1970.
    pub at_ms: u64,
    /// What.
    pub entry: LedgerEntry,
}

/// Writes the row of this number after a history that ends in `before`.
#[must_use]
pub fn seal(before: Link, seq: u64, at_ms: u64, entry: &LedgerEntry) -> (Vec<u8>, Link) {
    let body = json!({"at_ms": at_ms, "entry": entry}).to_string();
    let link = digest(before, seq, &body);
    let open = body.strip_suffix('}').unwrap_or(&body);
    let text = format!("{open}{LINK}{}\"}}", link.0.as_hex());
    (text.into_bytes(), link)
}

/// Reads a row, and says whether it follows from a history that ends in `before`.
///
/// # Errors
/// If it is no row at all.
pub fn unseal(before: Link, seq: u64, bytes: &[u8]) -> Result<(Row, Link, bool), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let link = link_of(bytes).ok_or("it has no digest")?;
    let end = text.len().saturating_sub(TAIL.saturating_add(LINK.len()));
    let body = format!("{}}}", text.get(..end).unwrap_or_default());
    let row = serde_json::from_str(&body).map_err(|e| e.to_string())?;
    Ok((row, link, digest(before, seq, &body) == link))
}

/// The digest that a row carries.
#[must_use]
pub fn link_of(bytes: &[u8]) -> Option<Link> {
    let text = std::str::from_utf8(bytes).ok()?;
    let hex = text.get(text.len().checked_sub(TAIL)?..)?;
    text.get(..text.len().checked_sub(TAIL)?)?
        .strip_suffix(LINK)?;
    let hex = hex.strip_suffix("\"}")?;
    <[u8; 8]>::from_hex(hex).ok().map(Link)
}

fn digest(before: Link, seq: u64, body: &str) -> Link {
    let mut engine = sha256::Hash::engine();
    engine.input(&before.0);
    engine.input(&seq.to_be_bytes());
    engine.input(body.as_bytes());
    let whole = sha256::Hash::from_engine(engine).to_byte_array();
    let mut link = [0; 8];
    link.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    Link(link)
}
