//! The JIT order: what is known of one sold channel, and the three entrances `step`, `resume` and `find_forwarded`.
//!
//! `types` are its words; `apply` turns an input into facts; `settle` derives every decision from the facts, `serve`
//! moves the payment on, `route` finds its way and `coins` keeps coins for it; `resume` compares the facts with LDK's after a restart. Nothing
//! here reads a clock or touches LDK: the node carries out the effects.

mod apply;
mod coins;
mod resume;
mod route;
mod serve;
mod settle;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use types::{
    Ahead, ChannelTerms, ChannelView, Effect, Env, Input, Open, OpenFailure, OpenPhase,
    OrderLimits, Part, PartStatus, State, Terms,
};

use crate::amount::Msat;
use crate::fee::opening_fee;
use crate::ids::{ChannelId, OpenId, PartId, PaymentHash};
use crate::ledger::LedgerEntry;
use crate::liquidity::Burden;
use crate::menu::{FeeParams, TrustModel};
use crate::time::Millis;

/// One sold JIT channel. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What was sold.
    pub terms: Terms,
    /// Where it stands.
    pub state: State,
    /// Since when the present wait lasts: change of state or of payment, or restart of the node.
    pub since: Millis,
    /// The fee; for a variable amount that of the payment being served, `None` before the first.
    pub fee: Option<Msat>,
    /// What was earned of it.
    pub earned: Msat,
    /// The fee is wholly earned.
    pub paid: bool,
    /// The payment being served: complete, and not over.
    pub paying: Option<PaymentHash>,
    /// That payment goes through a channel that is paid for, without a fee.
    pub free: bool,
    /// Every part that is not over, and the latest that are.
    pub parts: BTreeMap<PartId, Part>,
    /// How many parts came.
    pub arrivals: u64,
    /// How many attempts to open were begun: numbers their ids.
    pub attempt: u32,
    /// How many of them failed through the client, the network or time.
    pub failures: u32,
    /// The present attempt, or the channel that came of it.
    pub open: Option<Open>,
    /// Channels of this order that have closed (true), or that we have ordered to be closed.
    pub closing: BTreeMap<ChannelId, bool>,
    /// The attempts whose funding transaction was given to the network and is in the ledger as a cost.
    pub booked: BTreeSet<OpenId>,
    /// Coins that were locked before the attempt they are for could begin.
    pub ahead: Option<Ahead>,
    /// The client was woken and has not connected since.
    pub woken: bool,
    /// It was told that the client left the channel unpaid.
    pub scored: bool,
    /// The end was written to the ledger.
    pub ended: bool,
}

impl Order {
    /// A channel just sold.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let fee = terms.size.and_then(|size| fee_of(&terms.params, size));
        Self {
            state: State::Sold,
            since: terms.sold_at,
            fee,
            earned: Msat::ZERO,
            paid: false,
            paying: None,
            free: false,
            parts: BTreeMap::new(),
            arrivals: 0,
            attempt: 0,
            failures: 0,
            open: None,
            closing: BTreeMap::new(),
            booked: BTreeSet::new(),
            ahead: None,
            woken: false,
            scored: false,
            ended: false,
            terms,
        }
    }

    /// The ledger row of the sale, written with the new order.
    #[must_use]
    pub fn sold_entry(&self) -> LedgerEntry {
        LedgerEntry::OrderSold {
            scid: self.terms.scid,
            client: self.terms.client,
            size: self.terms.size,
            fee: self.fee,
            trust: self.terms.trust,
            reserved_sat: self.terms.reserved_sat,
            tier: Some(self.terms.params.tier()),
        }
    }

    /// What follows from an input: the order as it is then, and what is to be done.
    #[must_use]
    pub fn step(&self, input: &Input, env: &Env<'_>) -> (Self, Vec<Effect>) {
        let mut order = self.clone();
        let mut run = Run::new(env);
        // A part that comes when a set's time is over starts a new one (J-50).
        if matches!(input, Input::Part { .. }) {
            order.settle(&mut run);
        }
        order.apply(input, &mut run);
        // A refused forward is not tried again in the same breath.
        if !matches!(input, Input::PartHeld { .. }) {
            order.settle(&mut run);
        }
        (order, run.effects)
    }

    /// After a restart: what must be done again, given which parts LDK still holds.
    #[must_use]
    pub fn resume(&self, held: &BTreeSet<PartId>, env: &Env<'_>) -> (Self, Vec<Effect>) {
        let mut order = self.clone();
        let mut run = Run::new(env);
        order.catch_up(held, &mut run);
        order.settle(&mut run);
        (order, run.effects)
    }

    /// Which forwarded part an event of LDK speaks of; `channel` is the one it left by.
    ///
    /// A claim names amount and skim: an exact match on that channel comes first, then one that LDK sent by another
    /// channel of the client (S-70). `on_chain` it is counted in satoshis. Where no skim is named, the part that keeps least
    /// is meant rather: nothing is taken for earned that may not be. A failure names neither: the oldest on the channel. The
    /// node gives the exact part where it can tell.
    #[must_use]
    pub fn find_forwarded(
        &self,
        channel: &ChannelId,
        amount: Option<Msat>,
        skim: Option<Msat>,
        on_chain: bool,
    ) -> Option<PartId> {
        self.parts
            .iter()
            .filter_map(|(id, part)| match part.status {
                PartStatus::Forwarding {
                    channel: sent_by,
                    amount: sent,
                    skim: kept,
                } => {
                    let here = sent_by == *channel;
                    let exact = amount.is_none_or(|a| a == sent) && skim.is_none_or(|s| s == kept);
                    let in_sat =
                        on_chain && skim.is_none() && amount == Msat::from_sat(sent.sat_floor());
                    let fits = exact && (here || amount.is_some()) || in_sat;
                    let keeps = (amount.is_some() && skim.is_none()).then_some(kept);
                    fits.then_some((!exact, !here, keeps, part.seq, *id))
                }
                _ => None,
            })
            .min()
            .map(|(_, _, _, _, id)| id)
    }

    /// Nothing can come of it any more: it may be archived.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let parts_over = self
            .parts
            .values()
            .all(|part| matches!(part.status, PartStatus::Claimed | PartStatus::Failed));
        self.state.is_end()
            && parts_over
            && self.live_channel().is_none()
            && !self.must_publish()
            && self.closing.values().all(|closed| *closed)
    }

    /// A channel of it is open and its fee is not yet earned.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.live_channel().is_some() && !self.paid
    }

    /// The attempt whose coins must stay locked; at start the node unlocks those of all others.
    #[must_use]
    pub fn coins(&self) -> Option<OpenId> {
        self.open
            .as_ref()
            .filter(|open| !open.is_plan() && !open.unlocked)
            .map(|open| open.id)
            .or(self.ahead.map(|ahead| ahead.open))
    }

    /// What this order binds, until it is over.
    #[must_use]
    pub fn burden(&self) -> Burden {
        let held = self
            .parts
            .values()
            .filter(|part| part.status == PartStatus::Held)
            .count();
        let channel = self.open.as_ref().filter(|open| !open.is_plan());
        let unconfirmed = channel.filter(|open| {
            let in_air = [OpenPhase::Requested, OpenPhase::Pending, OpenPhase::Ready];
            in_air.contains(&open.phase) && open.depth == 0
        });
        let counts = !self.paid;
        let msat = |open: &Open| u128::from(open.value_sat).saturating_mul(1_000);
        let exposure = channel.map_or_else(
            || {
                let least = self.terms.params.min_payment_size_msat;
                let payment = u128::from(self.terms.size.unwrap_or(least).0);
                // A hook's grant is kept while the client is away.
                let granted = self.open.as_ref();
                let granted = granted.filter(|open| open.phase == OpenPhase::Granted);
                payment.max(granted.map_or(0, msat))
            },
            msat,
        );
        let promised = counts && !self.state.is_end() && self.coins().is_none();
        Burden {
            orders: u32::from(counts),
            exposure_msat: if counts { exposure } else { 0 },
            reserved_sat: if promised {
                u128::from(self.terms.reserved_sat)
            } else {
                0
            },
            unconfirmed_sat: unconfirmed.map_or(0, |open| u128::from(open.value_sat)),
            held: u32::try_from(held).unwrap_or(u32::MAX),
            owed: u32::from(counts && self.state == State::Owed),
        }
    }

    /// Whether the funding transaction of this attempt may not be published: the client has not shown a preimage for it.
    #[must_use]
    pub fn withholds(&self, attempt: OpenId) -> bool {
        let released = |open: &Open| open.id == attempt && open.broadcast;
        self.terms.trust == TrustModel::ClientTrustsLsp && !self.open.as_ref().is_some_and(released)
    }

    /// The order's own channel, once ready and until it closes.
    fn live_channel(&self) -> Option<ChannelId> {
        self.open
            .as_ref()
            .filter(|open| open.phase == OpenPhase::Ready)
            .and_then(|open| open.channel)
    }

    /// Coins are at work for an open that is neither done nor over.
    fn is_opening(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| matches!(open.phase, OpenPhase::Requested | OpenPhase::Pending))
    }

    /// An attempt to open is neither done nor over.
    fn is_under_way(&self) -> bool {
        self.is_opening() || self.open.as_ref().is_some_and(Open::is_plan)
    }

    /// The funding transaction is owed to the client and not in the chain.
    fn must_publish(&self) -> bool {
        self.terms.trust == TrustModel::ClientTrustsLsp
            && self
                .open
                .as_ref()
                .is_some_and(|open| open.broadcast && open.depth == 0)
    }
}

/// The opening fee for a payment of `size`.
fn fee_of(params: &FeeParams, size: Msat) -> Option<Msat> {
    opening_fee(size, params.min_fee_msat, params.proportional)
}

/// One step under way: what it sees, and what it has decided.
struct Run<'a> {
    env: &'a Env<'a>,
    effects: Vec<Effect>,
    /// What this step sends by each channel already.
    used: BTreeMap<ChannelId, Msat>,
}

impl<'a> Run<'a> {
    fn new(env: &'a Env<'a>) -> Self {
        Self {
            env,
            effects: Vec::new(),
            used: BTreeMap::new(),
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn record(&mut self, entry: LedgerEntry) {
        self.emit(Effect::Record(entry));
    }
}
