//! The operator's declarative policy: who is served, with which tiers, and up to which limits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::NodeId;
use crate::menu::{sort_tiers, FeeTier, Grant, MenuError, Secret};
use crate::reason::Reason;

/// What the operator risks at most.
///
/// Exposure is what clients could make the LSP lose or lock: the value of channels whose fee is not yet
/// earned, and what was reserved for orders that are sold and not yet opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open orders of one client.
    pub max_orders_per_client: u32,
    /// Open orders in all.
    pub max_orders: u32,
    /// Exposure to one client, msat.
    pub max_exposure_per_client_msat: Msat,
    /// Exposure in all, msat.
    pub max_exposure_msat: Msat,
    /// Channels of one client that were opened and whose payment it then failed (S-55).
    pub max_unclaimed_per_client: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_orders_per_client: 10,
            max_orders: 1_000,
            max_exposure_per_client_msat: Msat(10_000_000_000),
            max_exposure_msat: Msat(100_000_000_000),
            max_unclaimed_per_client: 3,
        }
    }
}

/// The present state that limits are held against; all counts are before the sale in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Open orders of this client.
    pub client_orders: u32,
    /// Open orders in all.
    pub orders: u32,
    /// Exposure to this client, msat.
    pub client: Msat,
    /// Exposure in all, msat.
    pub total: Msat,
    /// Channels opened for this client whose payment it failed.
    pub client_unclaimed: u32,
}

impl Limits {
    /// Whether one order more, adding `amount` msat to the exposure, stays within the limits (J-02, J-34).
    pub fn check(&self, present: &Exposure, amount: Msat) -> Result<(), Reason> {
        let within = |sum: Msat, limit: Msat| sum.checked_add(amount).is_some_and(|s| s <= limit);
        if present.client_unclaimed >= self.max_unclaimed_per_client {
            Err(Reason::ClientUnreliable)
        } else if present.client_orders >= self.max_orders_per_client {
            Err(Reason::TooManyOrdersOfClient)
        } else if present.orders >= self.max_orders {
            Err(Reason::TooManyOrders)
        } else if !within(present.client, self.max_exposure_per_client_msat) {
            Err(Reason::ExposureOfClient)
        } else if !within(present.total, self.max_exposure_msat) {
            Err(Reason::Exposure)
        } else {
            Ok(())
        }
    }
}

/// The whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Tiers for clients without a token.
    pub menu: Vec<FeeTier>,
    /// Tiers by token (J-07); a token that is removed here takes its unpaid offers with it.
    pub token_menus: BTreeMap<String, Vec<FeeTier>>,
    /// If present, nobody else is served.
    pub allow: Option<BTreeSet<NodeId>>,
    /// Never served, even if allowed.
    pub deny: BTreeSet<NodeId>,
    /// The limits.
    pub limits: Limits,
}

/// A menu of the configuration that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The token whose menu it is; `None` for the menu without a token.
    pub token: Option<String>,
    /// What is wrong with it.
    pub error: MenuError,
}

impl std::fmt::Display for RulesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.token {
            None => write!(f, "menu: {}", self.error),
            Some(token) => write!(f, "menu of token {token:?}: {}", self.error),
        }
    }
}

impl std::error::Error for RulesError {}

impl Rules {
    /// Checks every menu, so that building one never fails later (J-12).
    pub fn validate(&self) -> Result<(), RulesError> {
        let named = self
            .token_menus
            .iter()
            .map(|(token, tiers)| (Some(token), tiers));
        for (token, tiers) in std::iter::once((None, &self.menu)).chain(named) {
            sort_tiers(tiers).map_err(|error| RulesError {
                token: token.cloned(),
                error,
            })?;
        }
        Ok(())
    }

    /// Whether this client is served at all (J-34).
    pub fn admit(&self, client: &NodeId) -> Result<(), Reason> {
        let allowed = self.allow.as_ref().is_none_or(|list| list.contains(client));
        if allowed && !self.deny.contains(client) {
            Ok(())
        } else {
            Err(Reason::ClientDenied)
        }
    }

    /// The tiers for a token, or for none (J-07).
    pub fn tiers(&self, token: Option<&str>) -> Result<&[FeeTier], Reason> {
        match token {
            None => Ok(&self.menu),
            Some(token) => self
                .token_menus
                .get(token)
                .map(Vec::as_slice)
                .ok_or(Reason::UnknownToken),
        }
    }

    /// Which token stands behind each grant that a promise can carry; to be made once per configuration.
    #[must_use]
    pub fn grants(&self, secret: &Secret) -> BTreeMap<Grant, String> {
        self.token_menus
            .keys()
            .map(|token| (Grant::of(secret, Some(token)), token.clone()))
            .collect()
    }
}
