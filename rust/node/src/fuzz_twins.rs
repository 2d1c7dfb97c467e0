//! The fuzz target of `rust/fuzz` that needs the node, on the fuzzer's corpus and on changes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

#[path = "../../core/tests/fuzz_corpus/mod.rs"]
mod fuzz_corpus;
#[path = "../../fuzz/src/wallet.rs"]
mod wallet;

#[test]
fn what_a_wallet_is_given_to_read() {
    fuzz_corpus::each_and_mutated("wallet", wallet::wallet);
}
