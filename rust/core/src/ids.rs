//! Identifiers: what they are called on the wire and in the store, and how they are read and written as text.

use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Millis;

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError(&'static str);

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}", self.0)
    }
}

impl std::error::Error for ParseIdError {}

/// Serde as text, through `Display` and `FromStr`, so that ids can also be keys of JSON objects.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }
    };
}

macro_rules! hex_id {
    ($name:ident, $len:literal, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                <[u8; $len]>::from_hex(text)
                    .map(Self)
                    .map_err(|_| ParseIdError($what))
            }
        }

        serde_as_text!($name);
    };
}

hex_id!(
    NodeId,
    33,
    "node id",
    "A node's compressed public key: 66 hex digits, either case read, lower case written (T-20)."
);
hex_id!(
    PaymentHash,
    32,
    "payment hash",
    "SHA-256 of a payment's preimage: 64 hex digits."
);
hex_id!(
    PartId,
    32,
    "part id",
    "One intercepted HTLC (LDK's InterceptId): 64 hex digits."
);
hex_id!(
    ChannelId,
    32,
    "channel id",
    "A channel (BOLT 2 `channel_id`): 64 hex digits."
);

impl NodeId {
    /// Whether the key is a point on the curve (T-20); reading text does not check it, configuration must.
    #[must_use]
    pub fn is_on_curve(&self) -> bool {
        bitcoin::secp256k1::PublicKey::from_slice(&self.0).is_ok()
    }
}

/// A short channel id; text and serde are `BxTxO` (T-14).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scid(pub u64);

impl Scid {
    /// Block height part, 24 bits.
    #[must_use]
    pub fn block(&self) -> u32 {
        u32::try_from(self.0 >> 40).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Scid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}x{}x{}",
            self.block(),
            (self.0 >> 16) & 0xff_ffff,
            self.0 & 0xffff
        )
    }
}

impl fmt::Debug for Scid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scid({self})")
    }
}

/// A decimal number of at most 8 digits, without a sign.
fn short_number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl FromStr for Scid {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut numbers = text.split('x').map(short_number);
        let mut next = || numbers.next().flatten();
        match (next(), next(), next(), numbers.next()) {
            (Some(block), Some(index), Some(output), None)
                if block <= 0xff_ffff && index <= 0xff_ffff && output <= 0xffff =>
            {
                Ok(Self(block << 40 | index << 16 | output))
            }
            _ => Err(ParseIdError("short channel id")),
        }
    }
}

serde_as_text!(Scid);

/// One attempt to open an order's channel: LDK's `user_channel_id`, the scid above, the attempt below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenId(pub u128);

impl OpenId {
    /// The id of attempt number `attempt` (up to 2²⁴ − 1) for the order that sold `scid` at this time.
    ///
    /// The time is in it since a young chain has few scids to sell: one may come again once its order is over,
    /// and coins or a funding transaction of the first must not be taken for the second's.
    #[must_use]
    pub fn new(scid: Scid, sold_at: Millis, attempt: u32) -> Self {
        let sale = u128::from(sold_at.0 & Self::SALE) << Self::ATTEMPT_BITS;
        let attempt = u128::from(attempt & Self::ATTEMPT);
        Self(u128::from(scid.0) << 64 | sale | attempt)
    }

    const ATTEMPT_BITS: u32 = 24;
    const ATTEMPT: u32 = (1 << Self::ATTEMPT_BITS) - 1;
    /// 40 bits of milliseconds come round after 34 years.
    const SALE: u64 = (1 << (64 - Self::ATTEMPT_BITS)) - 1;

    /// The order's scid.
    #[must_use]
    pub fn scid(&self) -> Scid {
        Scid(u64::try_from(self.0 >> 64).unwrap_or(u64::MAX))
    }

    /// The number of the attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.0 & u128::from(Self::ATTEMPT)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for OpenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_be_bytes().as_hex())
    }
}

impl fmt::Debug for OpenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenId({} attempt {})", self.scid(), self.attempt())
    }
}

impl FromStr for OpenId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        <[u8; 16]>::from_hex(text)
            .map(|bytes| Self(u128::from_be_bytes(bytes)))
            .map_err(|_| ParseIdError("open id"))
    }
}

serde_as_text!(OpenId);

/// A transaction output; text and serde are `txid:index`, the txid as block explorers show it (T-23).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Outpoint {
    /// Transaction id, 64 lower-case hex digits.
    pub txid: String,
    /// Output index.
    pub vout: u32,
}

impl fmt::Display for Outpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.vout)
    }
}

impl FromStr for Outpoint {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let err = ParseIdError("outpoint");
        let (txid, vout) = text.split_once(':').ok_or(err)?;
        let txid = <[u8; 32]>::from_hex(txid).map_err(|_| err)?;
        if vout.is_empty() || !vout.bytes().all(|b| b.is_ascii_digit()) {
            return Err(err);
        }
        Ok(Self {
            txid: txid.to_lower_hex_string(),
            vout: vout.parse().map_err(|_| err)?,
        })
    }
}

serde_as_text!(Outpoint);
