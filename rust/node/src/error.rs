//! One error shape for everything that crosses the node's boundary, and the store's own error.
//!
//! The codes are fixed in `docs/design/0002-interfaces.md`: Python turns each into a class.

use serde::Serialize;
use serde_json::{json, Value};
use std::fmt;

/// What a caller of the node learns when something cannot be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeError {
    /// Stable, machine-readable; one Python class each.
    pub code: &'static str,
    /// For people. May be shown, never parsed.
    pub message: String,
    /// Whether the same call may succeed later without anything being changed.
    pub retryable: bool,
    /// Fields of the Python class, an object.
    pub details: Value,
}

impl NodeError {
    /// An error that a later, equal call would meet again.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: false,
            details: json!({}),
        }
    }

    /// Adds the fields of the Python class.
    #[must_use]
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Marks that trying again may help.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The configuration cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new("config", message)
    }

    /// An amount is out of range.
    pub fn amount(message: impl Into<String>) -> Self {
        Self::new("amount", message)
    }

    /// A Bitcoin address is malformed or of another network.
    pub fn address(message: impl Into<String>) -> Self {
        Self::new("address", message)
    }

    /// An invoice cannot be used; `why` is `expired`, `already_paid`, `wrong_network` or `malformed`.
    pub fn invoice(why: &'static str, message: impl Into<String>) -> Self {
        Self::new("invoice", message).with(json!({ "why": why }))
    }

    /// Too few coins on chain.
    pub fn insufficient_funds(needed_msat: u64, available_msat: u64) -> Self {
        Self::new(
            "insufficient_funds",
            format!("{needed_msat} msat are needed, {available_msat} msat are available"),
        )
        .with(json!({ "needed_msat": needed_msat, "available_msat": available_msat }))
        .retryable()
    }

    /// The channels cannot receive this much, and no channel may be bought.
    pub fn inbound_capacity(needed_msat: u64, available_msat: u64) -> Self {
        Self::new(
            "inbound_capacity",
            format!("{needed_msat} msat cannot be received, {available_msat} msat can"),
        )
        .with(json!({ "needed_msat": needed_msat, "available_msat": available_msat }))
        .retryable()
    }

    /// The chain source failed; `why` is `unreachable`, `auth`, `wrong_network`, `lying`, `behind` or `pruned`.
    pub fn chain(why: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new("chain", message).with(json!({ "why": why }));
        match why {
            "unreachable" | "behind" => error.retryable(),
            _ => error,
        }
    }

    /// A peer could not be reached or broke the connection.
    pub fn peer(message: impl Into<String>) -> Self {
        Self::new("peer", message).retryable()
    }

    /// The LSP could not be reached.
    pub fn lsp_unreachable(message: impl Into<String>) -> Self {
        Self::new("lsp_unreachable", message).retryable()
    }

    /// The LSP answered with an error of its own, or (code 0) with what we cannot use. The LSP's words are for who asks for
    /// them; the message has ours (T-11).
    pub fn lsp_refused(lsp_code: i64, lsp_message: impl Into<String>) -> Self {
        let words = lsp_message.into();
        let ours = match lsp_code {
            0 => &*words,
            1 => "it rejects this client, or has too little at present",
            200 => "it does not know the token, or no longer",
            201 => "its offer is invalid or over",
            202 => "the payment is too small for it",
            203 => "the payment is too large for it, or for what it can receive",
            500..=502 => "it does not accept the webhook",
            503 => "it keeps no more webhooks of this client",
            1010 => "it knows no webhook of this name",
            -32_601 => "it does not know the request",
            -32_602 => "it does not accept the request's parameters",
            _ => "it has an error of its own",
        };
        Self::new(
            "lsp_refused",
            format!("the LSP refused ({lsp_code}): {ours}"),
        )
        .with(json!({ "lsp_code": lsp_code, "lsp_message": words }))
    }

    /// The LSP asks for more than the caller allows.
    pub fn lsp_fee(quoted_msat: u64, max_msat: u64) -> Self {
        Self::new(
            "lsp_fee",
            format!("the opening fee is {quoted_msat} msat, at most {max_msat} msat are allowed"),
        )
        .with(json!({ "quoted_msat": quoted_msat, "max_msat": max_msat }))
    }

    /// The LSP asks for trust that its configuration does not grant.
    pub fn lsp_trust(message: impl Into<String>) -> Self {
        Self::new("lsp_trust", message)
    }

    /// No LSP is configured that could serve this.
    pub fn no_lsp(message: impl Into<String>) -> Self {
        Self::new("no_lsp", message)
    }

    /// A payment cannot be sent or was failed.
    pub fn payment(message: impl Into<String>) -> Self {
        Self::new("payment", message)
    }

    /// A text is nothing that can be paid; `why` is as `parse.rs` has it.
    pub fn parse(why: &'static str, message: impl Into<String>) -> Self {
        Self::new("parse", message).with(json!({ "why": why }))
    }

    /// What came to a webhook is not to be believed; `why` is `body`, `timestamp`, `signature`, `stale` or `replay`.
    pub fn webhook(why: &'static str, message: impl Into<String>) -> Self {
        Self::new("webhook", message).with(json!({ "why": why }))
    }

    /// The time allowed by the caller is over.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new("timeout", message).retryable()
    }

    /// No such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new("not_found", message)
    }

    /// The node is stopped, or was never started.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self::new("stopped", message)
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("internal", message)
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for NodeError {}

/// Why a store cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Another process (or another node of this one) has the store open.
    Locked {
        /// The holder, if it could be read from the lock file.
        pid: Option<u32>,
    },
    /// Another copy of this node runs, on a store of its own.
    Copy {
        /// Its process, if known.
        pid: Option<u32>,
    },
    /// Another copy of this node runs elsewhere.
    CopyAt {
        /// Where it answers.
        address: String,
    },
    /// A peer has proven that its channel has gone on since this store was written.
    Stale {
        /// The peer.
        peer: String,
    },
    /// What is stored cannot be read as what it should be.
    Corrupt(String),
    /// Written by a later release.
    Version {
        /// The version found.
        found: u32,
        /// The latest version known here.
        known: u32,
    },
    /// The store belongs to another network.
    Network {
        /// The network found.
        found: String,
        /// The network wanted.
        wanted: String,
    },
    /// The store belongs to another node.
    Other {
        /// The node found.
        found: String,
        /// The node wanted.
        wanted: String,
    },
    /// A commit that does not follow the last one: another writer, or a defect.
    Sequence {
        /// The only number that would have been taken.
        expected: u64,
        /// The number given.
        got: u64,
    },
    /// Another process took the store over: this one writes no more.
    Fenced(String),
    /// The disk, the database or the user's store failed.
    Failed(String),
    /// The store was closed before this could be done.
    Closed,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { pid: Some(pid) } => write!(f, "the store is in use by process {pid}"),
            Self::Locked { pid: None } => write!(f, "the store is in use by another process"),
            Self::Copy { pid: Some(pid) } => {
                write!(f, "another copy of this node runs as process {pid}")
            }
            Self::Copy { pid: None } => write!(f, "another copy of this node runs"),
            Self::CopyAt { address } => write!(
                f,
                "this node runs already: it answers at {address}. Two of one node lose each other's money"
            ),
            Self::Stale { peer } => write!(
                f,
                "this store is older than its channels: {peer} has proven it. Nothing is published from now on; start with recover"
            ),
            Self::Corrupt(why) => write!(f, "the store is corrupt: {why}"),
            Self::Version { found, known } => {
                write!(
                    f,
                    "the store has version {found}, this release knows versions up to {known}"
                )
            }
            Self::Network { found, wanted } => {
                write!(f, "the store is of network {found}, not {wanted}")
            }
            Self::Other { found, wanted } => {
                write!(f, "the store is of node {found}, not {wanted}")
            }
            Self::Sequence { expected, got } => write!(f, "commit {got} where {expected} was due"),
            Self::Fenced(why) => write!(f, "the store was taken over by another process: {why}"),
            Self::Failed(why) => write!(f, "the store failed: {why}"),
            Self::Closed => write!(f, "the store is closed"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Locked { pid } => Self::new("store_locked", message)
                .with(json!({ "pid": pid }))
                .retryable(),
            StoreError::Copy { pid } => Self::new("store_copy", message)
                .with(json!({ "pid": pid }))
                .retryable(),
            StoreError::CopyAt { address } => Self::new("store_copy", message)
                .with(json!({ "address": address }))
                .retryable(),
            StoreError::Stale { peer } => {
                Self::new("store_stale", message).with(json!({ "peer": peer }))
            }
            StoreError::Corrupt(_) => Self::new("store_corrupt", message),
            StoreError::Version { found, known } => {
                Self::new("store_version", message).with(json!({ "found": found, "known": known }))
            }
            StoreError::Network { found, wanted } => Self::new("store_network", message)
                .with(json!({ "found": found, "wanted": wanted })),
            StoreError::Other { found, wanted } => Self::new("store_other_node", message)
                .with(json!({ "found": found, "wanted": wanted })),
            StoreError::Fenced(_) => Self::new("store_fenced", message),
            StoreError::Sequence { .. } | StoreError::Failed(_) => Self::new("store", message),
            StoreError::Closed => Self::stopped(message),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn serialises_as_the_bridge_expects() {
        let error = NodeError::insufficient_funds(5, 3);
        let value = serde_json::to_value(&error).unwrap();
        assert_eq!(value["code"], "insufficient_funds");
        assert_eq!(value["retryable"], true);
        assert_eq!(value["details"]["needed_msat"], 5);
        assert!(value["message"].as_str().unwrap().contains("5 msat"));
    }

    #[test]
    fn store_errors_keep_their_fields() {
        let error = NodeError::from(StoreError::Locked { pid: Some(7) });
        assert_eq!(
            (error.code, &error.details["pid"]),
            ("store_locked", &json!(7))
        );
        let error = NodeError::from(StoreError::Version { found: 9, known: 1 });
        assert_eq!(error.code, "store_version");
        assert_eq!(
            NodeError::from(StoreError::Corrupt("x".into())).code,
            "store_corrupt"
        );
    }
}
