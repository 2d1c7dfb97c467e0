//! The floor: what LDK alone takes for a JIT payment and for a forward, without storage, wallet, chain or route finding. In one
//! thread without a network (`inline.rs`), by what LDK is called for; and over TCP, as rates (`tcp.rs`). Prints JSON; with names as arguments,
//! of what `tcp.rs` calls so.
//!
//! Not a criterion benchmark: what counts is not the time of one call but where the time of a payment goes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod alone;
mod inline;
mod tcp;

use serde_json::json;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // Cargo adds an option of its own.
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with("--"))
        .collect();
    let told = if names.is_empty() {
        let [jit, forward] = inline::measure();
        json!({"jit": jit, "forward": forward, "tcp": tcp::measure(|_| true)})
    } else {
        json!({"tcp": tcp::measure(|name| names.iter().any(|n| n == name))})
    };
    println!("{told}");
}
