#![no_main]

// The model is the oracle: the file of its tests, whole.
#[path = "../../core/tests/order_model.rs"]
#[allow(dead_code)]
mod order_model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| order_model::of_bytes(data));
