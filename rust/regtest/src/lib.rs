//! A regtest in this process: blocks, scripts, a mempool and a miner, behind the calls of bitcoind that a node and its tests
//! make, on loopback.
//!
//! For demos and tests, never for money: it has no peers, forgets everything when it stops, and leaves out what
//! `rules.rs` and `mempool.rs` say.

mod chain;
mod mempool;
mod miner;
mod purse;
mod rpc;
mod rules;
mod server;

pub use server::{Regtest, StartError};
