//! ldkjit-py
