#![no_main]

#[path = "../src/wallet.rs"]
mod wallet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wallet::wallet(data));
