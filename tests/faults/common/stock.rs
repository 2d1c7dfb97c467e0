//! The stock LSPS2 handlers of lightning-liquidity, over a node of ours.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use ldkjit_node::broadcast::Broadcaster;
use ldkjit_node::keys::Keys;
use ldkjit_node::ldk::{ChannelManager, NoFilter};
use ldkjit_node::node::Node;
use lightning::io;
use lightning::util::persist::KVStoreSync;
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps2::client::LSPS2ClientConfig;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;
use lightning_liquidity::lsps2::service::LSPS2ServiceConfig;
use lightning_liquidity::lsps5::service::LSPS5ServiceConfig;
use lightning_liquidity::utils::time::DefaultTimeProvider;
use lightning_liquidity::{LiquidityClientConfig, LiquidityManagerSync, LiquidityServiceConfig};

/// What the stock handlers write.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<[String; 3], Vec<u8>>>);

fn place(primary: &str, secondary: &str, key: &str) -> [String; 3] {
    [primary, secondary, key].map(str::to_owned)
}

impl KVStoreSync for Memory {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        let rows = self.0.lock().unwrap();
        let found = rows.get(&place(primary, secondary, key)).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such key"))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), io::Error> {
        let place = place(primary, secondary, key);
        self.0.lock().unwrap().insert(place, value);
        Ok(())
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _: bool) -> Result<(), io::Error> {
        self.0
            .lock()
            .unwrap()
            .remove(&place(primary, secondary, key));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let rows = self.0.lock().unwrap();
        let here = rows
            .keys()
            .filter(|[p, s, _]| p == primary && s == secondary);
        Ok(here.map(|[_, _, key]| key.clone()).collect())
    }
}

/// A stock handler.
pub type Liquidity = LiquidityManagerSync<
    Arc<Keys>,
    Arc<Keys>,
    Arc<ChannelManager>,
    NoFilter,
    Arc<Memory>,
    Arc<DefaultTimeProvider>,
    Arc<Broadcaster>,
>;

/// A stock handler that sells, or one that buys, under this node's identity.
pub fn liquidity(node: &Node, service: bool) -> Arc<Liquidity> {
    handlers(node, service, None)
}

/// A stock handler that sells, and keeps so many webhooks for each client.
pub fn with_webhooks(node: &Node, max_webhooks: u32) -> Arc<Liquidity> {
    let config = LSPS5ServiceConfig {
        max_webhooks_per_client: max_webhooks,
    };
    handlers(node, true, Some(config))
}

fn handlers(node: &Node, service: bool, webhooks: Option<LSPS5ServiceConfig>) -> Arc<Liquidity> {
    let keys = node.parts.keys.clone();
    let service_config = service.then_some(LiquidityServiceConfig {
        lsps2_service_config: Some(LSPS2ServiceConfig {
            promise_secret: [7; 32],
        }),
        lsps5_service_config: webhooks,
        advertise_service: true,
    });
    let client_config = (!service).then(|| LiquidityClientConfig {
        lsps1_client_config: None,
        lsps2_client_config: Some(LSPS2ClientConfig::default()),
        lsps5_client_config: None,
    });
    let liquidity = Liquidity::new_with_custom_time_provider(
        keys.clone(),
        keys.clone(),
        node.cm.clone(),
        None,
        None,
        Arc::new(Memory::default()),
        node.parts.broadcaster.clone(),
        service_config,
        client_config,
        Arc::new(DefaultTimeProvider),
    );
    Arc::new(liquidity.unwrap())
}

/// The one offer of a stock service: as ours in the tests, 1 %, at least 2,000 sat.
pub fn offer() -> LSPS2RawOpeningFeeParams {
    LSPS2RawOpeningFeeParams {
        min_fee_msat: 2_000_000,
        proportional: 10_000,
        valid_until: LSPSDateTime::from_str("2099-01-01T00:00:00Z").unwrap(),
        min_lifetime: 144,
        max_client_to_self_delay: 2016,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: 4_000_000_000,
    }
}
