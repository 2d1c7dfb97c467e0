//! What is promised against what there is: the weight of all orders, and what may still be sold beside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::NodeId;
use crate::menu::FeeParams;
use crate::order::Order;
use crate::reason::Reason;
use crate::sizing::Sizing;

/// Parts of the first payment that are reckoned with before it comes.
const PARTS: usize = 8;
/// The whole of something, ppm.
const WHOLE: u128 = 1_000_000;

/// What one order binds, or many of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burden {
    /// Orders whose fee is not earned.
    pub orders: u32,
    /// What these could make the LSP lose or lock: the values of their channels, else of their payments, msat.
    pub exposure_msat: u128,
    /// Coins promised to them and not locked yet, sat.
    pub reserved_sat: u128,
    /// Values of channels whose funding transaction is not in the chain, sat.
    pub unconfirmed_sat: u128,
    /// HTLCs held.
    pub held: u32,
    /// Orders whose channel is open and whose payment did not pay for it.
    pub owed: u32,
}

impl Burden {
    fn plus(self, other: Self) -> Self {
        Self {
            orders: self.orders.saturating_add(other.orders),
            exposure_msat: self.exposure_msat.saturating_add(other.exposure_msat),
            reserved_sat: self.reserved_sat.saturating_add(other.reserved_sat),
            unconfirmed_sat: self.unconfirmed_sat.saturating_add(other.unconfirmed_sat),
            held: self.held.saturating_add(other.held),
            owed: self.owed.saturating_add(other.owed),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            orders: self.orders.saturating_sub(other.orders),
            exposure_msat: self.exposure_msat.saturating_sub(other.exposure_msat),
            reserved_sat: self.reserved_sat.saturating_sub(other.reserved_sat),
            unconfirmed_sat: self.unconfirmed_sat.saturating_sub(other.unconfirmed_sat),
            held: self.held.saturating_sub(other.held),
            owed: self.owed.saturating_sub(other.owed),
        }
    }
}

/// The burden of all orders, kept as they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Of all orders.
    pub total: Burden,
    /// Of those bought without a token that the rules name.
    pub strangers: Burden,
    clients: BTreeMap<NodeId, Burden>,
}

impl Books {
    /// Counts an order in.
    pub fn add(&mut self, order: &Order) {
        let burden = order.burden();
        self.total = self.total.plus(burden);
        if order.terms.is_stranger() {
            self.strangers = self.strangers.plus(burden);
        }
        let client = self.clients.entry(order.terms.client).or_default();
        *client = client.plus(burden);
    }

    /// Counts out an order that was counted in as it is.
    pub fn remove(&mut self, order: &Order) {
        let burden = order.burden();
        self.total = self.total.minus(burden);
        if order.terms.is_stranger() {
            self.strangers = self.strangers.minus(burden);
        }
        if let Some(client) = self.clients.get_mut(&order.terms.client) {
            *client = client.minus(burden);
            if *client == Burden::default() {
                self.clients.remove(&order.terms.client);
            }
        }
    }

    /// The burden of one client's orders.
    #[must_use]
    pub fn of(&self, client: &NodeId) -> Burden {
        self.clients.get(client).copied().unwrap_or_default()
    }
}

/// How far the operator goes with promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lending {
    /// So much of the coins may be promised, ppm; above 1,000,000 some promises cannot be kept if all are called in.
    pub overcommit_ppm: u32,
    /// Clients without a token may together have this share of coins and limits, ppm; node ids cost nothing.
    pub strangers_ppm: u32,
    /// Coins of transactions that are not wholly ours fund a channel only this deep in the chain: a client relies on its
    /// channel before it is confirmed, and a reorganisation that takes the coin takes the channel.
    pub coin_confirmations: u32,
}

impl Default for Lending {
    fn default() -> Self {
        Self {
            overcommit_ppm: 1_000_000,
            strangers_ppm: 500_000,
            coin_confirmations: 6,
        }
    }
}

impl Lending {
    /// The strangers' share of a limit.
    #[must_use]
    pub fn strangers_share(&self, limit: u128) -> u128 {
        share(limit, self.strangers_ppm.min(1_000_000))
    }

    /// Their share of a number of things: at least one, unless they have no share.
    #[must_use]
    pub fn strangers_count(&self, limit: u32) -> u32 {
        let share = u32::try_from(self.strangers_share(limit.into())).unwrap_or(u32::MAX);
        let least = u32::from(self.strangers_ppm > 0);
        share.max(least.min(limit))
    }
}

/// What the service has at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Coins that could fund channels now: neither locked nor part of the anchor reserve, sat.
    pub coins_sat: u64,
    /// What a channel takes beside its value: the fee of its funding and its share of the anchor reserve, sat.
    pub overhead_sat: u64,
    /// The fee of a funding transaction alone, sat.
    pub chain_fee_sat: u64,
    /// How large channels are made.
    pub sizing: Sizing,
    /// What all channels together could receive, msat.
    pub inbound: Msat,
}

impl Stock {
    /// Coins in sat that a sale of `size` binds until its channel is opened; a variable amount counts as the offer's
    /// smallest, for nobody knows the real one.
    ///
    /// # Errors
    /// `AboveMaximum` where no channel may be that large.
    pub fn needed_sat(&self, params: &FeeParams, size: Option<Msat>) -> Result<u64, Reason> {
        let amount = size.unwrap_or(params.min_payment_size_msat);
        let fee = params.fee(amount).ok_or(Reason::FeeOverflow)?;
        self.sizing
            .channel_value(amount.saturating_sub(fee), PARTS)
            .ok()
            .and_then(|value| value.checked_add(self.overhead_sat))
            .ok_or(Reason::AboveMaximum)
    }

    /// Coins in sat that are not promised to anybody else.
    fn unpromised_sat(&self, lending: &Lending, books: &Books, token: bool) -> (u128, Reason) {
        let all = share(u128::from(self.coins_sat), lending.overcommit_ppm);
        let free = all.saturating_sub(books.total.reserved_sat);
        let of_strangers = lending
            .strangers_share(all)
            .saturating_sub(books.strangers.reserved_sat);
        if token || free <= of_strangers {
            (free, Reason::CoinsPromised)
        } else {
            (of_strangers, Reason::StrangersShare)
        }
    }

    /// Whether coins for `needed_sat` may be promised to a client with or without a token (J-34).
    ///
    /// # Errors
    /// `CoinsPromised`, `StrangersShare`.
    pub fn promise(
        &self,
        lending: &Lending,
        books: &Books,
        token: bool,
        needed_sat: u64,
    ) -> Result<(), Reason> {
        let (unpromised, reason) = self.unpromised_sat(lending, books, token);
        if u128::from(needed_sat) <= unpromised {
            Ok(())
        } else {
            Err(reason)
        }
    }
}

/// This share of a sum, rounded down.
fn share(sum: u128, ppm: u32) -> u128 {
    sum.saturating_mul(u128::from(ppm))
        .checked_div(WHOLE)
        .unwrap_or(0)
}
