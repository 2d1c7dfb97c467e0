//! ldkjit-core decides. No LDK node, no tokio, no Python, no clock: every rule about money is here, pure and tested.

pub mod amount;
pub mod audit;
pub mod claims;
pub mod clock;
pub mod fee;
pub mod funding;
pub mod ids;
pub mod ledger;
pub mod liquidity;
pub mod lsps0;
pub mod lsps2;
pub mod lsps5;
pub mod menu;
pub mod order;
pub mod policy;
pub mod pool;
pub mod quota;
pub mod reason;
pub mod rules;
pub mod seal;
pub mod sizing;
pub mod standing;
pub mod time;
pub mod webhooks;
