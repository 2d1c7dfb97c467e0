//! What is used up of each quota, as the store keeps it.

use std::collections::BTreeMap;

use ldkjit_core::menu::{Grant, Secret};
use ldkjit_core::quota::Used;
use ldkjit_core::time::Millis;

use crate::commit::read_kind;
use crate::error::NodeError;
use crate::journal::Journal;

const KIND: &str = "quota";

/// By the grant of the token, as tokens are nobody's business; that of no token is what all others share.
#[derive(Default)]
pub(super) struct Quotas(BTreeMap<String, Used>);

fn key(secret: &Secret, token: Option<&str>) -> String {
    Grant::of(secret, token).to_string()
}

impl Quotas {
    /// As the store left them.
    pub(super) fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        read_kind(live, KIND, "quota").map(Self)
    }

    /// What is used of a token's, or of everybody's without one.
    pub(super) fn of(&self, secret: &Secret, token: Option<&str>) -> Used {
        let used = self.0.get(&key(secret, token));
        used.copied().unwrap_or_default()
    }

    /// So much is used now.
    pub(super) fn set(
        &mut self,
        journal: &Journal,
        secret: &Secret,
        token: Option<&str>,
        used: Used,
    ) {
        let key = key(secret, token);
        if let Ok(bytes) = serde_json::to_vec(&used) {
            journal.put(KIND, key.clone(), bytes);
        }
        self.0.insert(key, used);
    }

    /// What is free again is not kept.
    pub(super) fn forget(&mut self, journal: &Journal, now: Millis) {
        self.0.retain(|key, used| {
            let kept = used.0 > now;
            if !kept {
                journal.delete(KIND, key.clone());
            }
            kept
        });
    }
}
