//! Nodes over real TCP on a real bitcoind, one of them a cheat, or somebody else's code: one binary, as each takes long to link.

#![allow(
    missing_docs,
    non_snake_case,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod bitcoind_troubles;
mod boxed;
mod chain_source;
mod common;
mod differential;
mod dishonest_lsp;
mod dishonest_payer;
mod failure_codes;
mod floods;
mod forced_closes;
mod free_rider;
mod policy;
mod recovery;
mod reorganisations;
mod restarts;
mod secrets;
mod stock_flows;
mod stock_handlers;
mod strangers;
mod trust;
mod two_parts;
mod two_payers;
mod variable_amount;
mod webhooks;
