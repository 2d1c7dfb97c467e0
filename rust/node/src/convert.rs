//! Between LDK's identifiers and core's.

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::ids::{ChannelId, NodeId, Outpoint};
use lightning::sign::SpendableOutputDescriptor;

/// A node id as a key; `None` if it is not on the curve.
#[must_use]
pub fn public_key(id: &NodeId) -> Option<PublicKey> {
    PublicKey::from_slice(&id.0).ok()
}

/// A key as a node id.
#[must_use]
pub fn node_id(key: &PublicKey) -> NodeId {
    NodeId(key.serialize())
}

/// A channel id for LDK.
#[must_use]
pub fn ldk_channel(id: &ChannelId) -> lightning::ln::types::ChannelId {
    lightning::ln::types::ChannelId(id.0)
}

/// A channel id from LDK.
#[must_use]
pub fn channel(id: &lightning::ln::types::ChannelId) -> ChannelId {
    ChannelId(id.0)
}

/// An outpoint from LDK.
#[must_use]
pub fn outpoint(txo: &lightning::chain::transaction::OutPoint) -> Outpoint {
    Outpoint {
        txid: txo.txid.to_string(),
        vout: u32::from(txo.index),
    }
}

/// Where an output of a closed channel is.
#[must_use]
pub fn spendable(output: &SpendableOutputDescriptor) -> bitcoin::OutPoint {
    output.spendable_outpoint().into_bitcoin_outpoint()
}

/// An outpoint for bitcoin; `None` if its transaction id is not one.
#[must_use]
pub fn bitcoin_outpoint(at: &Outpoint) -> Option<bitcoin::OutPoint> {
    Some(bitcoin::OutPoint {
        txid: at.txid.parse().ok()?,
        vout: at.vout,
    })
}
