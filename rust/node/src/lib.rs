//! ldkjit-node
