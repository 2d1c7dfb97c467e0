//! The operator's hooks: what they are asked, what they may answer, and what is decided about an answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::{NodeId, Scid};
use crate::liquidity::{Books, Burden, Stock};
use crate::lsps2::Sale;
use crate::menu::{sort_tiers, FeeTier, MenuError, TrustModel};
use crate::order::{ChannelTerms, Order};
use crate::reason::Reason;
use crate::rules::Rules;
use crate::standing::Score;
use crate::time::Millis;

/// No token that only a hook knows is longer, bytes: it is stored as long as offers made under it live.
pub const MAX_TOKEN: usize = 256;
/// No offer of a hook lives longer, seconds: a week. Until it ends it is a price that the service must honour.
pub const MAX_VALID_FOR_S: u32 = 604_800;
/// Nobody asks for a lower `to_self_delay`, nor for a higher one, blocks (J-59).
const SELF_DELAY: std::ops::RangeInclusive<u16> = 144..=2_016;
/// No channel is sold for longer, blocks.
const MAX_LIFETIME: u32 = 1_000_000;
/// The whole of something, ppm.
const WHOLE_PPM: u32 = 1_000_000;
/// More than exists, msat.
const MAX_PAYMENT: Msat = Msat(21_000_000 * 100_000_000 * 1_000);

/// A point at which the operator may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// What is offered to a client.
    Menu,
    /// Whether an offer is sold to it.
    Sell,
    /// Whether its channel is opened, and how large.
    Channel,
}

impl Hook {
    /// Its name, as the operator writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Menu => "menu",
            Self::Sell => "sell",
            Self::Channel => "channel",
        }
    }
}

/// Who asks, and what was had with it before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The client.
    pub node_id: NodeId,
    /// The token that it brought, or that its offer stands on.
    pub token: Option<String>,
    /// Its orders whose fee is not earned.
    pub orders: u32,
    /// Its channels that are open and paid for.
    pub paid_channels: u32,
    /// Its channels that are open and whose payment did not pay for them.
    pub unpaid_channels: u32,
    /// Channels that it left unpaid for good, those that are forgiven taken off.
    pub left_unpaid: u32,
    /// What it could make the service lose or lock, msat.
    pub exposure_msat: u64,
}

impl Who {
    /// What the books say of a client.
    #[must_use]
    pub fn new(
        node_id: NodeId,
        token: Option<String>,
        own: &Burden,
        paid_channels: u32,
        score: Score,
    ) -> Self {
        Self {
            node_id,
            token,
            orders: own.orders,
            paid_channels,
            unpaid_channels: own.owed,
            left_unpaid: score.unpaid,
            exposure_msat: narrow(own.exposure_msat),
        }
    }
}

/// The service and the chain at the moment of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// When it is.
    pub at_ms: Millis,
    /// The best block.
    pub height: u32,
    /// What a funding transaction pays, sat per 1000 weight; 0 while there is no estimate.
    pub fee_rate_sat_per_kw: u32,
    /// What the funding transaction of one channel costs, sat.
    pub open_cost_sat: u64,
    /// Coins that could fund channels, sat.
    pub coins_sat: u64,
    /// Of them, promised to orders, sat.
    pub promised_sat: u64,
    /// What all channels together could receive, msat.
    pub inbound_msat: u64,
    /// Orders whose fee is not earned.
    pub orders: u32,
    /// What all of them could make the service lose or lock, msat.
    pub exposure_msat: u64,
}

impl Present {
    /// What the books and the stock say.
    #[must_use]
    pub fn new(now: Millis, height: u32, rate: u32, books: &Books, stock: &Stock) -> Self {
        Self {
            at_ms: now,
            height,
            fee_rate_sat_per_kw: rate,
            open_cost_sat: stock.chain_fee_sat,
            coins_sat: stock.coins_sat,
            promised_sat: narrow(books.total.reserved_sat),
            inbound_msat: stock.inbound.0,
            orders: books.total.orders,
            exposure_msat: narrow(books.total.exposure_msat),
        }
    }
}

fn narrow(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}

/// Which tiers are offered to this client?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MenuQuestion {
    /// Who asks.
    pub client: Who,
    /// What the rules would offer; nothing if they do not know the token.
    pub menu: Vec<FeeTier>,
    /// How things stand.
    pub state: Present,
}

/// Is this offer sold?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SellQuestion {
    /// Who asks.
    pub client: Who,
    /// The payment agreed, msat; absent for a variable amount.
    pub size_msat: Option<Msat>,
    /// The fee agreed, msat; absent for a variable amount.
    pub fee_msat: Option<Msat>,
    /// Least opening fee of the offer, msat.
    pub min_fee_msat: Msat,
    /// Its share of the payment, ppm.
    pub proportional_ppm: u32,
    /// Its smallest payment, msat.
    pub min_payment_msat: Msat,
    /// Its largest payment, msat.
    pub max_payment_msat: Msat,
    /// How long the channel stays open at least, blocks after confirmation.
    pub min_lifetime_blocks: u32,
    /// When the offer ends.
    pub valid_until_ms: Millis,
    /// Who would trust whom.
    pub trust: TrustModel,
    /// Coins that the sale would promise, sat.
    pub reserved_sat: u64,
    /// How things stand.
    pub state: Present,
}

impl SellQuestion {
    /// About a sale that the rules have no objection to.
    #[must_use]
    pub fn new(sale: &Sale, client: Who, state: Present) -> Self {
        let params = &sale.params;
        Self {
            client,
            size_msat: sale.size,
            fee_msat: sale.fee,
            min_fee_msat: params.min_fee_msat,
            proportional_ppm: params.proportional,
            min_payment_msat: params.min_payment_size_msat,
            max_payment_msat: params.max_payment_size_msat,
            min_lifetime_blocks: params.min_lifetime,
            valid_until_ms: params.valid_until,
            trust: sale.trust,
            reserved_sat: sale.reserved_sat,
            state,
        }
    }
}

/// Is the channel opened now that the payment is here?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelQuestion {
    /// Whose channel it is.
    pub client: Who,
    /// The order.
    pub scid: Scid,
    /// The payment agreed, msat; absent for a variable amount.
    pub size_msat: Option<Msat>,
    /// What the payment in hand brings, msat.
    pub held_msat: u64,
    /// The value that it needs, sat.
    pub needed_sat: u64,
    /// Attempts to open before this one.
    pub failures: u32,
    /// Who trusts whom.
    pub trust: TrustModel,
    /// How things stand.
    pub state: Present,
}

impl ChannelQuestion {
    /// About the open that an order asks for.
    #[must_use]
    pub fn new(order: &Order, needed_sat: u64, client: Who, state: Present) -> Self {
        let held = order.parts.values();
        let held = held.filter(|part| Some(part.hash) == order.paying);
        Self {
            client,
            scid: order.terms.scid,
            size_msat: order.terms.size,
            held_msat: held.fold(0, |sum, part| sum.saturating_add(part.declared.0)),
            needed_sat,
            failures: order.failures,
            trust: order.terms.trust,
            state,
        }
    }
}

/// Why a hook says no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// For this client, for good.
    #[default]
    Refused,
    /// To everybody, for the moment.
    Maintenance,
    /// The token opens nothing: only to a menu (J-07).
    UnknownToken,
}

/// A hook's no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Why.
    #[serde(default)]
    pub reason: Objection,
    /// What the client is told; empty for the usual words.
    #[serde(default)]
    pub message: String,
}

impl Refusal {
    /// As the rest of the service knows it.
    #[must_use]
    pub fn reason(&self, hook: Hook) -> Reason {
        match (self.reason, hook) {
            (Objection::Maintenance, _) => Reason::Maintenance,
            (Objection::UnknownToken, Hook::Menu) => Reason::UnknownToken,
            _ => Reason::PolicyRefused,
        }
    }

    /// The operator's own words, if there are any.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        (!self.message.is_empty()).then_some(self.message.as_str())
    }
}

/// A hook's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<Yes> {
    /// Yes, on these terms.
    Yes(Yes),
    /// No.
    Refuse(Refusal),
}

/// The tiers of a menu; none: nothing is for sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MenuYes {
    /// In any order.
    pub tiers: Vec<FeeTier>,
}

/// A sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellYes {
    /// Who trusts whom, if that is to be stricter than what the rules say.
    #[serde(default)]
    pub trust: Option<TrustModel>,
}

/// An open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelYes {
    /// The value wanted, sat; absent for what the payment needs.
    #[serde(default)]
    pub value_sat: Option<u64>,
}

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The tiers are no menu.
    Menu(MenuError),
    /// A tier is out of range; `index` counts from 0 as they were given.
    Tier {
        /// The tier.
        index: usize,
        /// Its field.
        field: &'static str,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Menu(error) => error.fmt(f),
            Self::Tier { index, field } => write!(f, "tier {index}: {field} is out of range"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl MenuYes {
    /// Whether offers may be made of these tiers.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), AnswerError> {
        sort_tiers(&self.tiers).map_err(AnswerError::Menu)?;
        for (index, tier) in self.tiers.iter().enumerate() {
            let within = [
                ("min_fee_msat", tier.min_fee_msat <= MAX_PAYMENT),
                ("proportional_ppm", tier.proportional_ppm <= WHOLE_PPM),
                ("min_payment_msat", tier.min_payment_msat > Msat::ZERO),
                ("max_payment_msat", tier.max_payment_msat <= MAX_PAYMENT),
                (
                    "min_lifetime_blocks",
                    tier.min_lifetime_blocks <= MAX_LIFETIME,
                ),
                (
                    "max_client_to_self_delay",
                    SELF_DELAY.contains(&tier.max_client_to_self_delay),
                ),
                ("valid_for_s", tier.valid_for_s <= MAX_VALID_FOR_S),
            ];
            if let Some((field, _)) = within.into_iter().find(|(_, holds)| !holds) {
                return Err(AnswerError::Tier { index, field });
            }
        }
        Ok(())
    }
}

impl SellYes {
    /// The sale on these terms: whoever demands more caution, the rules or the hook, has it.
    #[must_use]
    pub fn agree(self, sale: Sale) -> Sale {
        let strict = self.trust == Some(TrustModel::ClientTrustsLsp);
        Sale {
            trust: if strict {
                TrustModel::ClientTrustsLsp
            } else {
                sale.trust
            },
            ..sale
        }
    }
}

impl ChannelYes {
    /// What is granted: never less than the payment needs, and beyond that no more than the limits and the coins leave.
    #[must_use]
    pub fn grant(
        self,
        rules: &Rules,
        books: &Books,
        stock: &Stock,
        order: &Order,
        needed_sat: u64,
    ) -> ChannelTerms {
        let room = rules.limits.room_sat(&rules.lending, books, order);
        // Coins beyond what is needed, that are promised to nobody.
        let reserved = u64::try_from(books.total.reserved_sat).unwrap_or(u64::MAX);
        let coins = needed_sat.saturating_add(stock.coins_sat.saturating_sub(reserved));
        let most = room.min(coins).min(stock.sizing.max_sat);
        let value_sat = self.value_sat.unwrap_or(needed_sat).min(most);
        ChannelTerms {
            value_sat: value_sat.max(needed_sat),
        }
    }
}

/// When a hook that does not answer is left in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuse {
    /// So many unanswered questions in a row.
    pub after: u32,
    /// For so long, ms; then one question tries it.
    pub pause_ms: u64,
}

/// The circuit breaker of one hook: a hook that is stuck costs its callers a refusal, not the time until its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    missed: u32,
    until: Option<Millis>,
    trial: bool,
}

impl Breaker {
    /// Whether the hook is asked now. Every question that is comes to `answered` or `missed`.
    pub fn admits(&mut self, now: Millis) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until || self.trial => false,
            Some(_) => {
                self.trial = true;
                true
            }
        }
    }

    /// It answered, whatever it said.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// It did not. True if it is left in peace from now on.
    pub fn missed(&mut self, now: Millis, fuse: Fuse) -> bool {
        self.missed = self.missed.saturating_add(1);
        self.trial = false;
        if self.missed < fuse.after {
            return false;
        }
        let began = self.until.is_none();
        self.until = Some(now.saturating_add(fuse.pause_ms));
        began
    }

    /// Whether it is left in peace.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }
}
