//! What a commit costs: each store beside the others, and the committer with managers of 100, 1,000 and 10,000 channels.
//!
//! The manager here is bytes of the size that a real one has, a part of which changes with each commit: what LDK needs to
//! encode it is not in these figures.

#![allow(missing_docs, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bitcoin::Network;
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use ldkjit_node::commit::{Broken, Committer, Snapshot};
use ldkjit_node::log::Log;
use ldkjit_node::store::{MemoryStore, Op, SqliteStore, Store};
use lightning::util::logger::Level;

/// Of a channel in a serialised manager, measured with LDK 0.2.7.
const BYTES_PER_CHANNEL: usize = 3_400;
/// Channels whose state changes between two commits under load.
const CHANGED: usize = 10;

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ldkjit-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What one forwarded payment writes: two monitor updates of half a kilobyte, an order, a row.
fn batch(seq: u64) -> Vec<Op> {
    let put = |kind: &str, key: String, size: usize| Op::Put {
        kind: kind.into(),
        key,
        value: vec![u8::try_from(seq % 256).unwrap(); size],
    };
    vec![
        put("ldk/monitor_updates/a", seq.to_string(), 500),
        put("ldk/monitor_updates/b", seq.to_string(), 500),
        put("order", "1".into(), 1_000),
        Op::Row {
            kind: "ledger".into(),
            seq,
            key: String::new(),
            value: vec![7; 200],
        },
    ]
}

fn stores(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(1));
    let folder = Folder::new("store");
    let sqlite = SqliteStore::open(&folder.0.join("node.sqlite"), Network::Regtest).unwrap();
    let both: [(&str, Box<dyn Store>); 2] = [
        ("sqlite", Box::new(sqlite)),
        ("memory", Box::new(MemoryStore::default())),
    ];
    for (name, mut store) in both {
        store.load().unwrap();
        let mut seq = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                seq += 1;
                store.commit(seq, &batch(seq)).unwrap();
            });
        });
        store.close().unwrap();
    }
    group.finish();
}

/// Bytes of the size of a manager: those of some channels change each time.
struct Manager {
    channels: usize,
    turn: AtomicU64,
}

impl Snapshot for Manager {
    fn take_needs(&self) -> bool {
        true
    }

    fn write(&self, buf: &mut Vec<u8>) -> Result<(), Box<Broken>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for channel in 0..self.channels {
            let changes = channel % (self.channels / CHANGED).max(1) == 0;
            let mut state = (channel as u64) << 32 | if changes { turn } else { 0 };
            for _ in 0..BYTES_PER_CHANNEL / 8 {
                // Any bytes that do not repeat: xorshift.
                state = (state | 1) ^ (state << 13);
                state ^= state >> 7;
                state ^= state << 17;
                buf.extend_from_slice(&state.to_le_bytes());
            }
        }
        Ok(())
    }
}

fn commits(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("commit");
    for channels in [100, 1_000, 10_000] {
        let folder = Folder::new(&format!("commit-{channels}"));
        let store = SqliteStore::open(&folder.0.join("node.sqlite"), Network::Regtest).unwrap();
        let log = Arc::new(Log::new(Level::Error, Arc::new(|_| true)));
        let (committer, journal, _) = Committer::start(Box::new(store), log).unwrap();
        committer.attach(Arc::new(Manager {
            channels,
            turn: AtomicU64::new(0),
        }));
        let mut n = 0_u64;
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("channels", channels), |b| {
            b.iter(|| {
                n += 1;
                journal.put("order", "1", n.to_le_bytes().to_vec());
                journal.kick();
                runtime.block_on(journal.durable()).unwrap();
            });
        });
        runtime.block_on(committer.shutdown()).unwrap();
    }
    group.finish();
}

criterion_group!(benches, stores, commits);
criterion_main!(benches);
