//! Which token stands behind each promise: those of the rules, and those that only a menu hook knows, which are kept as
//! long as offers made under them live.

use std::collections::{BTreeMap, BTreeSet};

use ldkjit_core::menu::{Grant, Secret};
use ldkjit_core::rules::Rules;
use ldkjit_core::time::Millis;
use serde::{Deserialize, Serialize};

use crate::commit::read_kind;
use crate::error::NodeError;
use crate::journal::Journal;

const KIND: &str = "grant";
/// So many tokens of a hook are kept; then those whose offers end first are forgotten, and their holders ask anew.
const MAX_GIVEN: usize = 10_000;
/// Kept so much longer than the last offer, that not every menu is a write, ms.
const SLACK_MS: u64 = 3_600_000;

#[derive(Serialize, Deserialize)]
struct Given {
    token: String,
    until: Millis,
}

/// Every grant that is good.
#[derive(Default)]
pub(super) struct Grants {
    tokens: BTreeMap<Grant, String>,
    /// Those of the rules, which stay.
    ruled: BTreeSet<Grant>,
    /// When those that a hook has given are over.
    given: BTreeMap<Grant, Millis>,
}

impl Grants {
    /// Those of the rules and, while there is a hook for menus, those that it gave before.
    pub(super) fn load(
        rules: &Rules,
        secret: &Secret,
        hooked: bool,
        live: &[(String, String, Vec<u8>)],
    ) -> Result<Self, NodeError> {
        let tokens = rules.grants(secret);
        let mut grants = Self {
            ruled: tokens.keys().copied().collect(),
            tokens,
            given: BTreeMap::new(),
        };
        let stored: Vec<(String, Given)> = read_kind(live, KIND, "token")?;
        for (_, Given { token, until }) in stored {
            let grant = Grant::of(secret, Some(&token));
            grants.given.insert(grant, until);
            if hooked {
                grants.tokens.entry(grant).or_insert(token);
            }
        }
        Ok(grants)
    }

    /// The token behind each grant.
    pub(super) fn tokens(&self) -> &BTreeMap<Grant, String> {
        &self.tokens
    }

    /// Keeps a token of a hook until the offers made under it have ended. True if it is written, perhaps not durably yet.
    pub(super) fn add(
        &mut self,
        journal: &Journal,
        grant: Grant,
        token: &str,
        needed: Millis,
    ) -> bool {
        match self.given.get(&grant) {
            Some(until) if *until >= needed => return true,
            Some(_) => {}
            // The rules know it.
            None if self.ruled.contains(&grant) => return false,
            None if self.given.len() >= MAX_GIVEN => {
                let first = self.given.iter().min_by_key(|(_, until)| **until);
                if let Some(first) = first.map(|(grant, _)| *grant) {
                    self.remove(journal, first);
                }
            }
            None => {}
        }
        let given = Given {
            token: token.to_owned(),
            until: needed.saturating_add(SLACK_MS),
        };
        let Ok(bytes) = serde_json::to_vec(&given) else {
            return false;
        };
        self.given.insert(grant, given.until);
        self.tokens.insert(grant, given.token);
        journal.put(KIND, grant.to_string(), bytes);
        true
    }

    /// Those whose offers have all ended are not kept.
    pub(super) fn forget(&mut self, journal: &Journal, now: Millis) {
        let over = self.given.iter().filter(|(_, until)| **until <= now);
        let over: Vec<Grant> = over.map(|(grant, _)| *grant).collect();
        for grant in over {
            self.remove(journal, grant);
        }
    }

    fn remove(&mut self, journal: &Journal, grant: Grant) {
        self.given.remove(&grant);
        if !self.ruled.contains(&grant) {
            self.tokens.remove(&grant);
        }
        journal.delete(KIND, grant.to_string());
    }
}
