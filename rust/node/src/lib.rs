//! ldkjit-node

pub mod error;
pub mod log;
pub mod sync;
