//! ldkjit-node acts on what ldkjit-core decides: LDK, BDK and tokio around one store.

pub mod commit;
pub mod error;
pub mod journal;
pub mod log;
pub mod store;
pub mod sync;

#[cfg(test)]
mod testing;
