//! What a client may still buy after channels that were opened for it and not paid for.

use serde::{Deserialize, Serialize};

use crate::menu::TrustModel;
use crate::reason::Reason;
use crate::time::Millis;

/// How often a client, or all strangers together, left a channel unpaid; time makes it less.
///
/// A single failed payment never counts, as anybody can cause one: only a channel that is still unpaid when its
/// offer ends, or that was closed before, or a payment that its client neither takes nor fails (J-02, S-55).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Channels left unpaid, those that are forgiven taken off.
    pub unpaid: u32,
    /// Since when the next one is being forgiven.
    pub since: Millis,
}

/// How much of it the operator bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patience {
    /// From so many on a client is only sold channels whose funding is withheld until it has paid.
    pub unpaid_before_distrust: u32,
    /// From so many on a client is sold nothing.
    pub unpaid_before_refusal: u32,
    /// One of them is forgiven after this time, ms.
    pub forgive_ms: u64,
    /// From so many on, all strangers together, those that are unpaid at the moment included, every client without a
    /// token is only sold channels whose funding is withheld.
    pub strangers_before_distrust: u32,
    /// One of the strangers' is forgiven after this time, ms.
    pub strangers_forgive_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            unpaid_before_distrust: 2,
            unpaid_before_refusal: 4,
            forgive_ms: 7 * 86_400_000,
            strangers_before_distrust: 20,
            strangers_forgive_ms: 3_600_000,
        }
    }
}

impl Score {
    /// The score as it is now, one forgiven for each `forgive_ms` gone by (0: none ever).
    #[must_use]
    pub fn at(self, now: Millis, forgive_ms: u64) -> Self {
        let forgiven = now.since(self.since).checked_div(forgive_ms).unwrap_or(0);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.unpaid {
            return Self {
                unpaid: 0,
                since: now,
            };
        }
        let passed = u64::from(forgiven).saturating_mul(forgive_ms);
        Self {
            unpaid: self.unpaid.saturating_sub(forgiven),
            since: self.since.saturating_add(passed),
        }
    }

    /// One more.
    #[must_use]
    pub fn with_one_more(self, now: Millis, forgive_ms: u64) -> Self {
        let score = self.at(now, forgive_ms);
        Self {
            unpaid: score.unpaid.saturating_add(1),
            ..score
        }
    }
}

/// Who asks, as far as trust goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The client's own score.
    pub client: Score,
    /// The score of all strangers.
    pub strangers: Score,
    /// Channels of strangers that are open and unpaid at the moment.
    pub strangers_owed: u32,
    /// The client brought a token.
    pub has_token: bool,
}

impl Patience {
    /// The trust model of the next sale, `usual` unless the client or all strangers have used up the operator's trust.
    ///
    /// # Errors
    /// `ClientUnreliable`.
    pub fn trust(
        &self,
        usual: TrustModel,
        standing: &Standing,
        now: Millis,
    ) -> Result<TrustModel, Reason> {
        let unpaid = standing.client.at(now, self.forgive_ms).unpaid;
        if unpaid >= self.unpaid_before_refusal {
            return Err(Reason::ClientUnreliable);
        }
        let of_strangers = standing
            .strangers
            .at(now, self.strangers_forgive_ms)
            .unpaid
            .saturating_add(standing.strangers_owed);
        let distrusted = unpaid >= self.unpaid_before_distrust
            || !standing.has_token && of_strangers >= self.strangers_before_distrust;
        Ok(if distrusted {
            TrustModel::ClientTrustsLsp
        } else {
            usual
        })
    }
}
