//! What each decision about money costs, in time.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod cases;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};

fn all(c: &mut Criterion) {
    for mut case in cases::cases() {
        let mut group = c.benchmark_group(case.group);
        group.throughput(Throughput::Elements(case.elements));
        group.bench_function(case.name, |b| b.iter(&mut case.run));
        group.finish();
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
