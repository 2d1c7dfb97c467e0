//! Whose a store is, said in the store itself: one of another node, network or release is refused, wherever it lies.

use bitcoin::Network;
use serde::{Deserialize, Serialize};

use crate::books::Put;
use crate::error::StoreError;
use crate::net::META;
use crate::store::SCHEMA_VERSION;

const KEY: &str = "identity";

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of what is stored in it.
    pub version: u32,
    /// Its network.
    pub network: Network,
    /// Its node.
    pub node_id: String,
    /// A copy into it is under way, and this is its name: it is half a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
}

impl Identity {
    /// What this release writes.
    #[must_use]
    pub fn new(network: Network, node_id: String) -> Self {
        Self {
            version: SCHEMA_VERSION,
            network,
            node_id,
            unfinished: None,
        }
    }

    /// The store's, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Version`].
    pub fn find(live: &[(String, String, Vec<u8>)]) -> Result<Option<Self>, StoreError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let found = live
            .iter()
            .find(|(kind, key, _)| kind == META && key == KEY);
        let Some((_, _, value)) = found else {
            return Ok(None);
        };
        let corrupt = || StoreError::Corrupt("what it says of itself cannot be read".into());
        // Before the rest, which a later release may have changed.
        let Version { version: found } = serde_json::from_slice(value).map_err(|_| corrupt())?;
        if found > SCHEMA_VERSION {
            let known = SCHEMA_VERSION;
            return Err(StoreError::Version { found, known });
        }
        serde_json::from_slice(value)
            .map(Some)
            .map_err(|_| corrupt())
    }

    /// As the store keeps it: kind, key and value.
    #[must_use]
    pub fn put(&self) -> Put {
        let value = serde_json::to_vec(self).unwrap_or_default();
        (META.into(), KEY.into(), value)
    }

    /// Checks that a store is this node's; what is still to be put into one that does not say so.
    ///
    /// # Errors
    /// [`StoreError::Network`], [`StoreError::Other`], [`StoreError::Corrupt`], [`StoreError::Version`].
    pub fn check(&self, live: &[(String, String, Vec<u8>)]) -> Result<Option<Put>, StoreError> {
        let Some(found) = Self::find(live)? else {
            return Ok(Some(self.put()));
        };
        if found.unfinished.is_some() {
            return Err(StoreError::Corrupt(
                "a copy into it was not finished: run it again".into(),
            ));
        }
        if found.network != self.network {
            return Err(StoreError::Network {
                found: found.network.to_string(),
                wanted: self.network.to_string(),
            });
        }
        if found.node_id != self.node_id {
            return Err(StoreError::Other {
                found: found.node_id,
                wanted: self.node_id.clone(),
            });
        }
        Ok((found.version < self.version).then(|| self.put()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn live(put: Put) -> Vec<(String, String, Vec<u8>)> {
        vec![put]
    }

    #[test]
    fn a_store_is_of_one_node_network_and_release() {
        let ours = Identity::new(Network::Regtest, "02".into());
        assert_eq!(ours.check(&[]), Ok(Some(ours.put())));
        assert_eq!(ours.check(&live(ours.put())), Ok(None));
        let refused = |other: Identity| ours.check(&live(other.put())).unwrap_err();
        assert!(matches!(
            refused(Identity::new(Network::Signet, "02".into())),
            StoreError::Network { .. }
        ));
        assert!(matches!(
            refused(Identity::new(Network::Regtest, "03".into())),
            StoreError::Other { .. }
        ));
        let unfinished = Some("copy".into());
        assert!(matches!(
            refused(Identity {
                unfinished,
                ..ours.clone()
            }),
            StoreError::Corrupt(_)
        ));
        // A later release may say other things.
        let later = br#"{"version": 99, "planet": 3}"#.to_vec();
        let found = ours.check(&[(META.into(), KEY.into(), later)]);
        assert_eq!(
            found,
            Err(StoreError::Version {
                found: 99,
                known: SCHEMA_VERSION
            })
        );
        let rubbish = ours.check(&[(META.into(), KEY.into(), b"{".to_vec())]);
        assert!(matches!(rubbish, Err(StoreError::Corrupt(_))));
    }
}
