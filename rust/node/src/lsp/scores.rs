//! The scores of clients that left channels unpaid, as the store keeps them.

use std::collections::BTreeMap;

use ldkjit_core::ids::NodeId;
use ldkjit_core::standing::{Patience, Score};
use ldkjit_core::time::Millis;

use crate::error::NodeError;
use crate::journal::Journal;

const KIND: &str = "score";
/// The key of what all clients without a token share.
const STRANGERS: &str = "strangers";

/// Every score that is not forgiven yet.
#[derive(Default)]
pub(super) struct Scores {
    clients: BTreeMap<NodeId, Score>,
    strangers: Score,
}

impl Scores {
    /// The scores as the store left them.
    pub(super) fn load(live: &[(String, String, Vec<u8>)]) -> Result<Self, NodeError> {
        let mut scores = Self::default();
        for (_, key, value) in live.iter().filter(|(kind, _, _)| kind == KIND) {
            let corrupt = || NodeError::new("store_corrupt", format!("score {key} cannot be read"));
            let score = serde_json::from_slice(value).map_err(|_| corrupt())?;
            if key == STRANGERS {
                scores.strangers = score;
            } else {
                let client = key.parse().map_err(|_| corrupt())?;
                scores.clients.insert(client, score);
            }
        }
        Ok(scores)
    }

    /// The client's, and that of all strangers.
    pub(super) fn of(&self, client: &NodeId) -> (Score, Score) {
        let own = self.clients.get(client).copied().unwrap_or_default();
        (own, self.strangers)
    }

    /// One more for this client.
    pub(super) fn add(
        &mut self,
        journal: &Journal,
        patience: &Patience,
        client: NodeId,
        has_token: bool,
        now: Millis,
    ) {
        let (own, strangers) = self.of(&client);
        let own = own.with_one_more(now, patience.forgive_ms);
        self.clients.insert(client, own);
        put(journal, &client.to_string(), &own);
        if !has_token {
            self.strangers = strangers.with_one_more(now, patience.strangers_forgive_ms);
            put(journal, STRANGERS, &self.strangers);
        }
    }

    /// What is wholly forgiven is not kept.
    pub(super) fn forget(&mut self, journal: &Journal, patience: &Patience, now: Millis) {
        self.clients.retain(|client, score| {
            let kept = score.at(now, patience.forgive_ms).unpaid > 0;
            if !kept {
                journal.delete(KIND, client.to_string());
            }
            kept
        });
    }
}

fn put(journal: &Journal, key: &str, score: &Score) {
    if let Ok(bytes) = serde_json::to_vec(score) {
        journal.put(KIND, key, bytes);
    }
}
