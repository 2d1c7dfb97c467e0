//! The operator's declarative policy: who is served, with which tiers, and up to which limits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::NodeId;
use crate::liquidity::{Books, Burden, Lending};
use crate::menu::{sort_tiers, FeeTier, Grant, MenuError, Secret, TrustModel};
use crate::order::Order;
use crate::quota::{Quota, Used};
use crate::reason::Reason;
use crate::standing::Patience;
use crate::time::Millis;

/// What the operator risks at most.
///
/// Exposure is what clients could make the LSP lose or lock: the value of channels whose fee is not yet
/// earned, and the payments of orders that are sold and not yet opened.
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
    /// Channels of one client that are open and whose payment did not pay for them (S-55).
    pub max_unclaimed_per_client: u32,
    /// Value of one client's channels whose funding transaction is not in the chain, msat.
    pub max_unconfirmed_per_client_msat: Msat,
    /// Value of all such channels, msat.
    pub max_unconfirmed_msat: Msat,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_orders_per_client: 10,
            max_orders: 1_000,
            max_exposure_per_client_msat: Msat(10_000_000_000),
            max_exposure_msat: Msat(100_000_000_000),
            max_unclaimed_per_client: 3,
            max_unconfirmed_per_client_msat: Msat(10_000_000_000),
            max_unconfirmed_msat: Msat(100_000_000_000),
        }
    }
}

impl Limits {
    /// Whether one order more, adding `amount` msat to the exposure, stays within the limits (J-02, J-34).
    ///
    /// A client without a token also stays within the strangers' share of each limit of the whole service.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn check(
        &self,
        lending: &Lending,
        books: &Books,
        client: &NodeId,
        has_token: bool,
        amount: Msat,
    ) -> Result<(), Reason> {
        let own = books.of(client);
        let amount = u128::from(amount.0);
        let within = |burden: u128, limit: Msat| {
            let sum = burden.saturating_add(amount);
            sum <= u128::from(limit.0)
        };
        let unconfirmed = |burden: &Burden| burden.unconfirmed_sat.saturating_mul(1_000);
        if own.owed >= self.max_unclaimed_per_client {
            return Err(Reason::ClientUnreliable);
        }
        if own.orders >= self.max_orders_per_client {
            return Err(Reason::TooManyOrdersOfClient);
        }
        if !within(own.exposure_msat, self.max_exposure_per_client_msat)
            || !within(unconfirmed(&own), self.max_unconfirmed_per_client_msat)
        {
            return Err(Reason::ExposureOfClient);
        }
        self.check_all(&books.total, amount, |limit| limit)?;
        if !has_token {
            self.check_all(&books.strangers, amount, |limit| {
                lending.strangers_share(limit)
            })
            .map_err(|_| Reason::StrangersShare)?;
        }
        Ok(())
    }

    /// The largest channel, sat, that the exposure limits leave for an order whose channel is only planned.
    #[must_use]
    pub fn room_sat(&self, lending: &Lending, books: &Books, order: &Order) -> u64 {
        let own = order.burden().exposure_msat;
        let left = |burden: Burden, exposure: u128, unconfirmed: u128| {
            // The channel takes the place of the payment that the order counts as now.
            let others = burden.exposure_msat.saturating_sub(own);
            let in_air = burden.unconfirmed_sat.saturating_mul(1_000);
            let left = exposure.saturating_sub(others);
            left.min(unconfirmed.saturating_sub(in_air))
        };
        let (all, in_air) = (
            u128::from(self.max_exposure_msat.0),
            u128::from(self.max_unconfirmed_msat.0),
        );
        let mut room = left(books.total, all, in_air).min(left(
            books.of(&order.terms.client),
            self.max_exposure_per_client_msat.0.into(),
            self.max_unconfirmed_per_client_msat.0.into(),
        ));
        if order.terms.is_stranger() {
            let share = |limit| lending.strangers_share(limit);
            room = room.min(left(books.strangers, share(all), share(in_air)));
        }
        u64::try_from(room / 1_000).unwrap_or(u64::MAX)
    }

    /// The limits of the whole service, or of a share of it.
    fn check_all(
        &self,
        burden: &Burden,
        amount: u128,
        share: impl Fn(u128) -> u128,
    ) -> Result<(), Reason> {
        let within = |sum: u128, limit: u128| sum <= share(limit);
        let orders = u128::from(burden.orders).saturating_add(1);
        let exposure = burden.exposure_msat.saturating_add(amount);
        let unconfirmed = burden
            .unconfirmed_sat
            .saturating_mul(1_000)
            .saturating_add(amount);
        if !within(orders, u128::from(self.max_orders)) {
            Err(Reason::TooManyOrders)
        } else if !within(exposure, u128::from(self.max_exposure_msat.0))
            || !within(unconfirmed, u128::from(self.max_unconfirmed_msat.0))
        {
            Err(Reason::Exposure)
        } else {
            Ok(())
        }
    }
}

/// A menu for some hours of the day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The first hour, UTC, 0 to 23.
    pub from: u8,
    /// The hour at which it ends, UTC, 0 to 23; before `from`, it ends on the next day.
    pub until: u8,
    /// The tiers for clients without a token.
    pub menu: Vec<FeeTier>,
}

impl Hours {
    /// Whether this instant lies in them.
    #[must_use]
    pub fn contain(&self, now: Millis) -> bool {
        let hour = now.0 / 3_600_000 % 24;
        let (from, until) = (u64::from(self.from), u64::from(self.until));
        if from <= until {
            (from..until).contains(&hour)
        } else {
            hour >= from || hour < until
        }
    }
}

/// The whole of something, ppm.
const WHOLE: u64 = 1_000_000;

/// The whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Tiers for clients without a token.
    pub menu: Vec<FeeTier>,
    /// Tiers by token (J-07); a token that is removed here takes its unpaid offers with it.
    pub token_menus: BTreeMap<String, Vec<FeeTier>>,
    /// Other tiers for clients without a token, by the hour; the first that fits counts.
    pub hours: Vec<Hours>,
    /// So much of what a funding transaction costs at present is added to the least fee of every tier, ppm.
    pub chain_cost_ppm: u32,
    /// How many channels may be bought with a token.
    pub token_quotas: BTreeMap<String, Quota>,
    /// How many by all without one together.
    pub quota: Option<Quota>,
    /// If present, nobody else is served.
    pub allow: Option<BTreeSet<NodeId>>,
    /// Never served, even if allowed.
    pub deny: BTreeSet<NodeId>,
    /// The limits.
    pub limits: Limits,
    /// How far coins are promised.
    pub lending: Lending,
    /// How many unpaid channels are borne.
    pub patience: Patience,
    /// Who trusts whom, as long as a client is trusted.
    pub trust: TrustModel,
}

/// A menu of the configuration that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The token whose menu it is; `None` for a menu without a token.
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
        let hours = self.hours.iter().map(|hours| (None, &hours.menu));
        for (token, tiers) in std::iter::once((None, &self.menu))
            .chain(hours)
            .chain(named)
        {
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

    /// What is offered now: the tiers for a token, or for none and this hour, each with its share of the chain's cost.
    /// All are raised by the same sum, so that they stay in their order (J-12).
    pub fn offered(
        &self,
        token: Option<&str>,
        now: Millis,
        chain_fee_sat: u64,
    ) -> Result<Vec<FeeTier>, Reason> {
        let hours = || self.hours.iter().find(|hours| hours.contain(now));
        let tiers = match token.is_none().then(hours).flatten() {
            Some(hours) => hours.menu.as_slice(),
            None => self.tiers(token)?,
        };
        let cost = chain_fee_sat
            .saturating_mul(1_000)
            .checked_mul(u64::from(self.chain_cost_ppm))
            .map(|share| Msat(share.div_ceil(WHOLE)));
        // A cost that cannot be computed is one that nobody pays.
        let raised = tiers.iter().map(|tier| {
            let min_fee_msat = tier.min_fee_msat.checked_add(cost?)?;
            Some(FeeTier {
                min_fee_msat,
                ..*tier
            })
        });
        raised.collect::<Option<_>>().ok_or(Reason::FeeOverflow)
    }

    /// Whether the rules name this token. One that they do not name may be of a hook, or of anybody.
    #[must_use]
    pub fn knows(&self, token: &str) -> bool {
        self.token_menus.contains_key(token)
    }

    /// The token whose quota a sale falls under; `None` is that of all others together.
    #[must_use]
    pub fn quota_of<'a>(&self, token: Option<&'a str>) -> Option<&'a str> {
        token.filter(|token| self.knows(token))
    }

    /// What is used up of the quota that a sale falls under; nothing if there is none.
    ///
    /// # Errors
    /// `QuotaUsed`.
    pub fn take_quota(
        &self,
        token: Option<&str>,
        used: Used,
        now: Millis,
    ) -> Result<Option<Used>, Reason> {
        let quota = match self.quota_of(token) {
            Some(token) => self.token_quotas.get(token),
            None => self.quota.as_ref(),
        };
        quota.map(|quota| quota.take(used, now)).transpose()
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
