//! The menu: tiers for sale, their order, and the promise that makes each offer verifiable without storing it.

use std::fmt;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{sha256, Hash as _, HashEngine as _, Hmac, HmacEngine};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Serialize};

use crate::amount::{wire_msat, Msat};
use crate::fee::opening_fee;
use crate::ids::NodeId;
use crate::ledger::SoldTier;
use crate::time::{wire_datetime, Millis};

/// No menu is longer, so that every answer fits one message (T-01).
pub const MAX_TIERS: usize = 64;
/// No promise is longer, in bytes (J-14, J-16).
pub const MAX_PROMISE: usize = 512;

/// Who carries the risk between open and confirmation (J-01, J-35).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustModel {
    /// The funding transaction is broadcast at once.
    #[default]
    LspTrustsClient,
    /// The funding transaction is withheld until the first preimage is known.
    ClientTrustsLsp,
}

/// One tier as the operator writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeTier {
    /// Least opening fee, msat.
    pub min_fee_msat: Msat,
    /// Opening fee as a share of the payment, ppm.
    pub proportional_ppm: u32,
    /// Smallest payment, msat.
    pub min_payment_msat: Msat,
    /// Largest payment, msat.
    pub max_payment_msat: Msat,
    /// How long the channel stays open at least, blocks after confirmation (J-11).
    pub min_lifetime_blocks: u32,
    /// Longest `to_self_delay` the client may ask for, blocks (J-59).
    pub max_client_to_self_delay: u16,
    /// How long an offer can be bought and paid, seconds (J-10).
    pub valid_for_s: u32,
}

/// `opening_fee_params`: exactly these eight fields, named as on the wire (J-09, J-18).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeParams {
    /// Least opening fee, msat.
    #[serde(with = "wire_msat")]
    pub min_fee_msat: Msat,
    /// Opening fee as a share of the payment, ppm.
    pub proportional: u32,
    /// The offer ends here; at this very instant it is over (B-9).
    #[serde(with = "wire_datetime")]
    pub valid_until: Millis,
    /// How long the channel stays open at least, blocks after confirmation (J-11).
    pub min_lifetime: u32,
    /// Longest `to_self_delay` the client may ask for, blocks (J-59).
    pub max_client_to_self_delay: u32,
    /// Smallest payment, msat.
    #[serde(with = "wire_msat")]
    pub min_payment_size_msat: Msat,
    /// Largest payment, msat.
    #[serde(with = "wire_msat")]
    pub max_payment_size_msat: Msat,
    /// The LSP's proof that it made this offer; opaque to the client (J-13…J-17).
    pub promise: String,
}

impl TrustModel {
    /// The flag of the `buy` response (J-35).
    #[must_use]
    pub fn client_trusts_lsp(self) -> bool {
        self == Self::ClientTrustsLsp
    }
}

impl FeeParams {
    /// Whether the offer can still be bought or paid: strictly before `valid_until` (J-25, B-9).
    #[must_use]
    pub fn is_valid_at(&self, now: Millis) -> bool {
        now < self.valid_until
    }

    /// The tier that the offer was made of, as the ledger names it.
    #[must_use]
    pub fn tier(&self) -> SoldTier {
        SoldTier {
            min_fee: self.min_fee_msat,
            proportional_ppm: self.proportional,
            min_payment: self.min_payment_size_msat,
            max_payment: self.max_payment_size_msat,
            min_lifetime: self.min_lifetime,
        }
    }

    /// The opening fee in msat for `size`; `None` on overflow (J-19, J-20).
    #[must_use]
    pub fn fee(&self, size: Msat) -> Option<Msat> {
        opening_fee(size, self.min_fee_msat, self.proportional)
    }
}

/// Why a list of tiers is no menu; `index` counts from 0 in the list as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MenuError {
    /// More than `MAX_TIERS` tiers.
    TooMany,
    /// The smallest payment is above the largest.
    EmptyRange {
        /// The tier.
        index: usize,
    },
    /// The offer would end as it is made.
    NoValidity {
        /// The tier.
        index: usize,
    },
    /// Neither the cheaper nor the dearer of another tier, or equal to it (J-12).
    Incomparable {
        /// One of the two tiers.
        index: usize,
        /// The other.
        other: usize,
    },
}

impl fmt::Display for MenuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {MAX_TIERS} tiers"),
            Self::EmptyRange { index } => {
                write!(
                    f,
                    "tier {index}: min_payment_msat is above max_payment_msat"
                )
            }
            Self::NoValidity { index } => write!(f, "tier {index}: valid_for_s is 0"),
            Self::Incomparable { index, other } => write!(
                f,
                "tiers {index} and {other}: one must cost more in min_fee_msat or \
                 proportional_ppm, and not less in either"
            ),
        }
    }
}

impl std::error::Error for MenuError {}

/// Checks tiers and returns them in the order of J-12, cheapest first.
pub fn sort_tiers(tiers: &[FeeTier]) -> Result<Vec<FeeTier>, MenuError> {
    if tiers.len() > MAX_TIERS {
        return Err(MenuError::TooMany);
    }
    let mut sorted: Vec<(usize, &FeeTier)> = tiers.iter().enumerate().collect();
    for (index, tier) in &sorted {
        if tier.min_payment_msat > tier.max_payment_msat {
            return Err(MenuError::EmptyRange { index: *index });
        }
        if tier.valid_for_s == 0 {
            return Err(MenuError::NoValidity { index: *index });
        }
    }
    sorted.sort_by_key(|(_, tier)| (tier.min_fee_msat, tier.proportional_ppm));
    for ((index, cheap), (other, dear)) in sorted.iter().zip(sorted.iter().skip(1)) {
        if !costs_more(
            (cheap.min_fee_msat, cheap.proportional_ppm),
            (dear.min_fee_msat, dear.proportional_ppm),
        ) {
            return Err(MenuError::Incomparable {
                index: *index,
                other: *other,
            });
        }
    }
    Ok(sorted.into_iter().map(|(_, tier)| *tier).collect())
}

/// J-12 for two neighbours, each (`min_fee_msat`, `proportional`).
fn costs_more(cheap: (Msat, u32), dear: (Msat, u32)) -> bool {
    dear.0 >= cheap.0 && dear.1 >= cheap.1 && dear != cheap
}

/// Whether a menu that was received keeps the order of J-12; a client reports one that does not, and goes on.
pub fn is_ordered<'a, I>(menu: I) -> bool
where
    I: Iterator<Item = &'a FeeParams> + Clone,
{
    let rest = menu.clone().skip(1);
    menu.zip(rest).all(|(cheap, dear)| {
        costs_more(
            (cheap.min_fee_msat, cheap.proportional),
            (dear.min_fee_msat, dear.proportional),
        )
    })
}

/// The offers made to one client at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu(pub Vec<FeeParams>);

impl Menu {
    /// Makes an offer of each tier, in the order of J-12, promised to `client` under the grant of `token`.
    pub fn build(
        tiers: &[FeeTier],
        client: &NodeId,
        token: Option<&str>,
        secret: &Secret,
        now: Millis,
    ) -> Result<Self, MenuError> {
        let grant = Grant::of(secret, token);
        let offers = sort_tiers(tiers)?.into_iter().map(|tier| {
            let mut params = FeeParams {
                min_fee_msat: tier.min_fee_msat,
                proportional: tier.proportional_ppm,
                valid_until: now.saturating_add(u64::from(tier.valid_for_s).saturating_mul(1_000)),
                min_lifetime: tier.min_lifetime_blocks,
                max_client_to_self_delay: u32::from(tier.max_client_to_self_delay),
                min_payment_size_msat: tier.min_payment_msat,
                max_payment_size_msat: tier.max_payment_msat,
                promise: String::new(),
            };
            params.promise = promise(secret, &params, client, grant);
            params
        });
        Ok(Self(offers.collect()))
    }
}

/// The key of all promises; whoever has it can sell in this LSP's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a token gives right to: the token's keyed hash, so that a promise shows which token it stands on but not the token (B-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant(pub [u8; 16]);

impl Grant {
    /// The grant of those who bring no token.
    pub const NONE: Self = Self([0; 16]);

    /// The grant of `token`.
    #[must_use]
    pub fn of(secret: &Secret, token: Option<&str>) -> Self {
        let Some(token) = token else {
            return Self::NONE;
        };
        let mac = mac(secret, &[b"ldkjit/lsps2/grant/1", token.as_bytes()]);
        let mut grant = [0; 16];
        grant.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        Self(grant)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hex())
    }
}

fn mac(secret: &Secret, fields: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(&secret.0);
    for field in fields {
        engine.input(field);
    }
    Hmac::from_engine(engine).to_byte_array()
}

/// The promise for `params` (whatever promise they carry), made to `client` under `grant`: grant and MAC in hex (J-13…J-15).
///
/// The MAC covers the values, not their spelling, because clients re-serialise `valid_until` (B-6). Each
/// field has a fixed width, so no two sets of values share an encoding.
fn promise(secret: &Secret, params: &FeeParams, client: &NodeId, grant: Grant) -> String {
    let mac = mac(
        secret,
        &[
            b"ldkjit/lsps2/promise/1",
            &client.0,
            &grant.0,
            &params.min_fee_msat.0.to_be_bytes(),
            &params.proportional.to_be_bytes(),
            &params.valid_until.0.to_be_bytes(),
            &params.min_lifetime.to_be_bytes(),
            &params.max_client_to_self_delay.to_be_bytes(),
            &params.min_payment_size_msat.0.to_be_bytes(),
            &params.max_payment_size_msat.0.to_be_bytes(),
        ],
    );
    format!("{}{}", grant.0.as_hex(), mac.as_hex())
}

/// The grant under which these very parameters were promised to this client; `None` if they were not (J-24).
#[must_use]
pub fn verify_promise(secret: &Secret, params: &FeeParams, client: &NodeId) -> Option<Grant> {
    let claimed = params.promise.get(..32)?;
    let grant = Grant(<[u8; 16]>::from_hex(claimed).ok()?);
    let expected = promise(secret, params, client, grant);
    // The comparison in constant time wants equal lengths; the length is no secret.
    (expected.len() == params.promise.len()
        && fixed_time_eq(expected.as_bytes(), params.promise.as_bytes()))
    .then_some(grant)
}
