//! What each decision about money costs, in instructions: `benches/instructions.py` runs this under valgrind, which
//! counts what happens within `measured`, and writes a file whenever that returns.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod cases;

/// Enough that what the first calls allocate does not count much.
const TIMES: u32 = 100;

#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        run();
    }
}

fn main() {
    for mut case in cases::cases() {
        (case.run)();
        measured(&mut *case.run);
        println!("{}/{} {TIMES}", case.group, case.name);
    }
}
