//! The menu: tiers for sale, their order, and the promise that makes each offer verifiable without storing it.

use serde::{Deserialize, Serialize};

use crate::amount::{wire_msat, Msat};
use crate::time::{wire_datetime, Millis};

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
