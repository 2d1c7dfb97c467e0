//! ldkjit-node acts on what ldkjit-core decides: LDK, BDK and tokio around one store.

pub mod broadcast;
pub mod chain;
pub mod commit;
pub mod error;
pub mod fees;
pub mod journal;
pub mod keys;
pub mod log;
pub mod reserve;
pub mod store;
pub mod sync;
pub mod wallet;

#[cfg(test)]
mod testing;
