//! The fuzz targets of `rust/fuzz` that need no node, on the fuzzer's corpus and on changes of it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod fuzz_corpus;
#[path = "../../fuzz/src/messages.rs"]
mod messages;

use fuzz_corpus::each_and_mutated;

#[test]
fn envelope() {
    each_and_mutated("envelope", messages::envelope);
}

#[test]
fn service() {
    each_and_mutated("service", messages::service);
}

#[test]
fn client() {
    each_and_mutated("client", messages::client);
}

#[test]
fn menu() {
    each_and_mutated("menu", messages::menu);
}
