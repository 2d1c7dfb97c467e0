//! ldkjit-node acts. LDK, BDK, tokio, one store: what `ldkjit-core` decides is carried out here.

// The fuzz targets name this crate from outside.
#[cfg(test)]
extern crate self as ldkjit_node;

pub mod accounts;
pub mod alarms;
pub mod api;
pub mod audit;
pub mod backup;
pub mod books;
pub mod broadcast;
pub mod chain;
pub mod channels;
pub mod chunks;
pub mod client;
pub mod closings;
pub mod commit;
pub mod config;
pub mod convert;
pub mod crash;
pub mod door;
pub mod driver;
pub mod error;
pub mod events;
pub mod fees;
mod files;
pub mod forced;
pub mod forwards;
#[cfg(test)]
mod fuzz_twins;
pub mod handler;
pub mod handover;
pub mod history;
pub mod https;
pub mod identity;
pub mod inbound;
pub mod journal;
pub mod keys;
pub mod ldk;
pub mod left;
pub mod log;
pub mod lsp;
pub mod lsps;
pub mod metrics;
pub mod net;
pub mod node;
pub mod overdue;
pub mod parse;
pub mod payments;
pub mod recovery;
pub mod reserve;
pub mod store;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod unspent;
pub mod verify;
pub mod wallet;
