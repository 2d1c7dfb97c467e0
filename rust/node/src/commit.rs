//! The one thread that owns the store: takes the queue and the manager together, commits, then wakes.

use crate::books::Put;
use crate::chunks::Chunks;
use crate::crash;
use crate::error::{NodeError, StoreError};
use crate::journal::{Ask, Counters, Ending, Journal, Shared, State, LDK, LEDGER};
use crate::log::Log;
use crate::store::{Loaded, Op, Row, Store};
use crate::sync::{lock, wait, wait_for, write};
use ldkjit_core::seal::link_of;
use serde::de::DeserializeOwned;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a manager that asks to be written, or what may be lost, waits for other work to travel with it.
const COMPANY: Duration = Duration::from_millis(10);

/// LDK's channel manager, as the committer sees it.
pub trait Snapshot: Send + Sync {
    /// Whether it changed since the last call; LDK's `get_and_clear_needs_persistence`.
    fn take_needs(&self) -> bool;
    /// Appends its encoding.
    ///
    /// # Errors
    /// If it cannot be used any more.
    fn write(&self, buf: &mut Vec<u8>) -> Result<(), Box<Broken>>;
}

/// A manager that cannot be used any more.
pub struct Broken {
    /// Why the node stops.
    pub why: StoreError,
    /// The only thing that is still written.
    pub mark: Option<Put>,
}

/// What the store held at the start, without LDK's own keys: LDK reads those through the [`Journal`].
#[derive(Debug, Default)]
pub struct Boot {
    /// `(kind, key, value)`.
    pub live: Vec<(String, String, Vec<u8>)>,
    /// Whether nothing was ever committed.
    pub new: bool,
}

impl Boot {
    /// LDK's own keys, and the rest.
    pub(crate) fn split(
        live: Vec<(String, String, Vec<u8>)>,
        new: bool,
    ) -> (Vec<(String, String, Vec<u8>)>, Self) {
        let (ldk, live) = live
            .into_iter()
            .partition(|(kind, _, _)| kind.starts_with(LDK));
        (ldk, Self { live, new })
    }

    /// Takes out everything of one kind, by key.
    pub fn take(&mut self, kind: &str) -> Vec<(String, Vec<u8>)> {
        let (taken, rest) = std::mem::take(&mut self.live)
            .into_iter()
            .partition(|(k, _, _)| k == kind);
        self.live = rest;
        let mut taken: Vec<_> = Vec::into_iter(taken)
            .map(|(_, key, value): (String, String, Vec<u8>)| (key, value))
            .collect();
        taken.sort();
        taken
    }
}

/// What the store held of one kind, by key. `what` names a row that cannot be read.
///
/// # Errors
/// `store_corrupt`.
pub fn read_kind<K: FromStr, V: DeserializeOwned, C: FromIterator<(K, V)>>(
    live: &[(String, String, Vec<u8>)],
    kind: &str,
    what: &str,
) -> Result<C, NodeError> {
    let rows = live.iter().filter(|(k, _, _)| k == kind);
    rows.map(|(_, key, value)| {
        let read = key.parse().ok().zip(serde_json::from_slice(value).ok());
        read.ok_or_else(|| NodeError::new("store_corrupt", format!("{what} {key} cannot be read")))
    })
    .collect()
}

/// The handle of the committer's thread. Dropped without [`Committer::shutdown`], it stops where it stands,
/// like a crash.
pub struct Committer {
    shared: Arc<Shared>,
    snapshot: Arc<SnapshotSlot>,
    thread: JoinHandle<()>,
}

/// How long dropping a committer waits for its thread.
const DROP_WAIT: Duration = Duration::from_secs(2);

type SnapshotSlot = Mutex<Option<Arc<dyn Snapshot>>>;

impl Committer {
    /// Loads the store and starts the thread.
    pub fn start(
        mut store: Box<dyn Store>,
        log: Arc<Log>,
    ) -> Result<(Self, Journal, Boot), StoreError> {
        let Loaded {
            seq,
            mut live,
            last_row,
        } = store.load()?;
        let chunks = Chunks::take(&mut live)?;
        let (ldk, boot) = Boot::split(live, seq == 0);
        let last = last_row.get(LEDGER).copied().unwrap_or(0);
        let row = store.rows(LEDGER, last.saturating_sub(1), 1)?;
        let link = row.first().map(|row| link_of(&row.value));
        let shared = Shared::new(last_row, link.flatten().unwrap_or_default(), ldk);
        let snapshot = Arc::new(SnapshotSlot::default());
        let worker = Worker {
            store,
            seq,
            shared: shared.clone(),
            snapshot: snapshot.clone(),
            buffer: Vec::new(),
            chunks,
            log: log.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("ldkjit-commit".into())
            .spawn(move || worker.run())
            .map_err(|error| StoreError::Failed(format!("no thread for the committer: {error}")))?;
        let journal = Journal::new(shared.clone());
        Ok((
            Self {
                shared,
                snapshot,
                thread,
            },
            journal,
            boot,
        ))
    }

    /// From now on commits carry the manager. To be called before LDK writes its first monitor: a monitor
    /// that is durable before the manager that knows it costs its channel.
    pub fn attach(&self, snapshot: Arc<dyn Snapshot>) {
        *lock(&self.snapshot) = Some(snapshot);
    }

    /// Lets go of the manager, so that it can be dropped.
    pub fn detach(&self) {
        *lock(&self.snapshot) = None;
    }

    /// Commits what is queued and the manager, closes the store and ends the thread. The gate must be free.
    /// A second call answers [`StoreError::Closed`], or why the thread stopped before.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if matches!(state.ending, Ending::No) {
                state.ending = Ending::Shutdown(done);
            } else {
                drop(done);
            }
        }
        self.shared.wake.notify_one();
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(Journal::new(self.shared.clone())
                .stopped()
                .unwrap_or(StoreError::Closed)),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if matches!(state.ending, Ending::No) {
            state.ending = Ending::Abandon;
        }
        drop(state);
        self.shared.wake.notify_one();
        // The store is free when this returns, so that a node can be started again at once. Bounded, since
        // the thread may wait for the gate of somebody who is being dropped himself.
        let until = Instant::now().checked_add(DROP_WAIT);
        while !self.thread.is_finished() && until.is_some_and(|until| Instant::now() < until) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Worker {
    store: Box<dyn Store>,
    seq: u64,
    shared: Arc<Shared>,
    snapshot: Arc<SnapshotSlot>,
    buffer: Vec<u8>,
    chunks: Chunks,
    log: Arc<Log>,
}

enum Next {
    Answer(Vec<Ask>),
    Commit,
    Shutdown(Done),
    Abandon,
}

impl Worker {
    fn run(mut self) {
        let shared = self.shared.clone();
        // A store written by a user, or a defect in an encoder, may panic: then nobody may be left waiting.
        let end = catch_unwind(AssertUnwindSafe(|| self.work()));
        let done = match end {
            Ok(Ok(done)) => {
                shared.stop(StoreError::Closed);
                done.map(|done| (done, Ok(())))
            }
            Ok(Err((why, done))) => {
                self.log
                    .error("ldkjit::commit", format_args!("the node stops: {why}"));
                shared.stop(why.clone());
                done.map(|done| (done, Err(why)))
            }
            Err(_) => {
                self.log.error(
                    "ldkjit::commit",
                    format_args!("the node stops: the store or the manager panicked"),
                );
                shared.stop(StoreError::Failed(
                    "the store or the manager panicked".into(),
                ));
                None
            }
        };
        lock(&self.snapshot).take();
        // The store's lock is released before anybody is told that it is.
        drop(self);
        // Whoever asked for a shutdown in the meantime learns that it is over.
        let late = std::mem::replace(&mut shared.state().ending, Ending::Abandon);
        drop(late);
        if let Some((done, result)) = done {
            let _ = done.send(result);
        }
    }

    fn work(&mut self) -> Result<Option<Done>, Stop> {
        loop {
            match self.next() {
                Next::Answer(asks) => {
                    for ask in asks {
                        self.answer(ask).map_err(|why| (why, None))?;
                    }
                }
                Next::Commit => self.commit(false).map_err(|why| (why, None))?,
                Next::Shutdown(done) => {
                    let ended = self.commit(true).and_then(|()| self.store.close());
                    return match ended {
                        Ok(()) => Ok(Some(done)),
                        Err(why) => Err((why, Some(done))),
                    };
                }
                Next::Abandon => return Ok(None),
            }
        }
    }

    /// Waits for something to do.
    fn next(&self) -> Next {
        let mut state = self.shared.state();
        loop {
            match std::mem::take(&mut state.ending) {
                Ending::No => {}
                Ending::Shutdown(done) => {
                    state.ending = Ending::Abandon;
                    return Next::Shutdown(done);
                }
                Ending::Abandon => {
                    state.ending = Ending::Abandon;
                    return Next::Abandon;
                }
            }
            if !state.asks.is_empty() {
                return Next::Answer(state.asks.drain(..).collect());
            }
            // A queue of nothing but lazy removals waits for company.
            if state.heavy > state.taken {
                return Next::Commit;
            }
            state = match state.kicked {
                None => wait(&self.shared.wake, state),
                Some(since) => match COMPANY.checked_sub(since.elapsed()) {
                    Some(left) if !left.is_zero() => wait_for(&self.shared.wake, state, left),
                    _ => return Next::Commit,
                },
            };
        }
    }

    /// Takes {queue, manager} at one moment and writes them in one transaction.
    fn commit(&mut self, last: bool) -> Result<(), StoreError> {
        let gate = self.shared.gate.blocking_lock();
        // Messages do not wait for each other here, nor does a flood of them keep the committer out.
        let change = write(&self.shared.change);
        let snapshot = lock(&self.snapshot).clone();
        // Each step before the next: a change after `take_needs` asks again; every queued write of LDK's was
        // recorded in the manager before it was queued, so a manager encoded after the queue is taken knows it.
        let needs = snapshot
            .as_ref()
            .is_some_and(|manager| manager.take_needs());
        let (mut batch, taken, ldk_written) = {
            let mut state = self.shared.state();
            state.kicked = None;
            state.taken = state.tail;
            if last {
                state.refuse();
            }
            (
                std::mem::take(&mut state.queue),
                state.tail,
                std::mem::take(&mut state.ldk_written),
            )
        };
        let stats = &self.shared.stats;
        let mut encoded = None;
        if let Some(manager) = snapshot.filter(|_| needs || ldk_written || last) {
            let start = Instant::now();
            let mut value = std::mem::take(&mut self.buffer);
            value.clear();
            if let Err(broken) = manager.write(&mut value) {
                // What was queued with it is not to be trusted either.
                if let Some((kind, key, value)) = broken.mark {
                    let seq = self.seq.saturating_add(1);
                    self.store.commit(seq, &[Op::Put { kind, key, value }])?;
                }
                return Err(broken.why);
            }
            add(&stats.encode_ns, start.elapsed().as_nanos());
            add(&stats.manager_writes, 1u32);
            add(
                &stats.manager_bytes,
                u64::try_from(value.len()).unwrap_or(u64::MAX),
            );
            encoded = Some(value);
        }
        drop(change);
        drop(gate);
        if let Some(encoded) = encoded {
            let (ops, free) = self.chunks.change_to(encoded);
            batch.extend(ops);
            self.buffer = free;
        }
        if batch.is_empty() {
            return Ok(());
        }
        let seq = self
            .seq
            .checked_add(1)
            .ok_or_else(|| StoreError::Failed("the sequence is exhausted".into()))?;
        let start = Instant::now();
        crash::point("commit:before");
        self.store.commit(seq, &batch)?;
        crash::point("commit:after");
        let took = start.elapsed();
        add(&stats.commit_ns, took.as_nanos());
        self.shared.metrics.committed(took);
        self.seq = seq;
        count(stats, &batch);
        self.shared.committed(taken);
        crash::point("commit:told");
        Ok(())
    }

    /// Fails only where a commit does: a question that cannot be answered stops nobody but who asked.
    fn answer(&mut self, ask: Ask) -> Result<(), StoreError> {
        match ask {
            Ask::Read { kind, key, answer } => {
                let queued = queued(&self.shared.state(), &kind, &key);
                let found = match queued {
                    Queued::Value(value) => Ok(Some(value)),
                    Queued::Nothing => self.store.read(&kind, &key),
                    Queued::Other => {
                        // Whether a put or a row shows through is for the store to say, once it has them.
                        self.commit(false)?;
                        self.shared
                            .state()
                            .asks
                            .push_back(Ask::Read { kind, key, answer });
                        return Ok(());
                    }
                };
                let _ = answer.send(found);
            }
            Ask::Rows {
                kind,
                after,
                limit,
                queued,
                answer,
            } => {
                let found = self.store.rows(&kind, after, limit).map(|mut rows| {
                    if !queued {
                        return rows;
                    }
                    let state = self.shared.state();
                    rows.extend(state.queue.iter().filter_map(|op| match op {
                        Op::Row {
                            kind: k,
                            seq,
                            key,
                            value,
                        } if *k == kind && *seq > after => Some(Row {
                            seq: *seq,
                            key: key.clone(),
                            value: value.clone(),
                        }),
                        _ => None,
                    }));
                    rows.truncate(limit);
                    rows
                });
                let _ = answer.send(found);
            }
            Ask::Load { answer } => drop(answer.send(self.store.load())),
        }
        Ok(())
    }
}

/// Who waits for the end.
type Done = oneshot::Sender<Result<(), StoreError>>;
/// Why the thread ends early, and who waits for the end.
type Stop = (StoreError, Option<Done>);

enum Queued {
    Value(Vec<u8>),
    Other,
    Nothing,
}

/// What the queue says last about a key.
fn queued(state: &State, kind: &str, key: &str) -> Queued {
    for op in state.queue.iter().rev() {
        match op {
            Op::Put {
                kind: k,
                key: y,
                value,
            } if k == kind && y == key => return Queued::Value(value.clone()),
            Op::Delete { kind: k, key: y } if k == kind && y == key => return Queued::Other,
            Op::Row {
                kind: k, key: y, ..
            } if *k == kind && y == key => return Queued::Other,
            _ => {}
        }
    }
    Queued::Nothing
}

fn add(counter: &AtomicU64, n: impl TryInto<u64>) {
    counter.fetch_add(n.try_into().unwrap_or(0), Ordering::Relaxed);
}

fn count(stats: &Counters, batch: &[Op]) {
    let bytes = batch.iter().fold(0usize, |sum, op| match op {
        Op::Put { value, .. } | Op::Row { value, .. } => sum.saturating_add(value.len()),
        Op::Delete { .. } => sum,
    });
    add(&stats.commits, 1u32);
    add(&stats.ops, batch.len());
    add(&stats.bytes, bytes);
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use crate::store::{Fault, FaultyStore, MemoryStore, SqliteStore};
    use crate::testing::TempDir;
    use bitcoin::Network;
    use lightning::util::persist::KVStore;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::sync::atomic::AtomicBool;

    fn start(store: impl Store + 'static) -> (Committer, Journal, Boot) {
        Committer::start(Box::new(store), Log::silent()).unwrap()
    }

    /// Waits on this thread; nothing here needs a runtime.
    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(async {
                tokio::time::timeout(Duration::from_secs(20), future)
                    .await
                    .unwrap_or_else(|_| panic!("stuck"))
            })
    }

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        now(async {
            tokio::time::timeout(Duration::from_millis(60), future)
                .await
                .ok()
        })
    }

    /// A manager whose encoding is a counter; remembers what was in the queue's store at each encoding.
    #[derive(Default)]
    struct FakeManager {
        needs: AtomicBool,
        state: AtomicU64,
    }
    impl Snapshot for FakeManager {
        fn take_needs(&self) -> bool {
            self.needs.swap(false, Ordering::SeqCst)
        }
        fn write(&self, buf: &mut Vec<u8>) -> Result<(), Box<Broken>> {
            buf.extend(self.state.load(Ordering::SeqCst).to_be_bytes());
            Ok(())
        }
    }
    fn manager_in(store: &MemoryStore) -> Option<u64> {
        manager_of(store.clone().load().unwrap().live)
    }
    fn manager_of(mut live: Vec<(String, String, Vec<u8>)>) -> Option<u64> {
        Chunks::take(&mut live).unwrap();
        let found = live.into_iter().find(|(kind, _, _)| kind == "ldk//");
        found.map(|(_, _, bytes)| u64::from_be_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn order_is_kept_under_eight_threads() {
        let store = MemoryStore::new();
        let (committer, journal, _) = start(store.clone());
        std::thread::scope(|scope| {
            for t in 0..8 {
                let journal = journal.clone();
                scope.spawn(move || {
                    for i in 0..200u32 {
                        journal.put("last", format!("t{t}"), i.to_be_bytes().to_vec());
                        journal.row("event", format!("t{t}"), i.to_be_bytes().to_vec());
                    }
                });
            }
        });
        now(committer.shutdown()).unwrap();
        let mut store = store;
        let rows = store.rows("event", 0, usize::MAX).unwrap();
        assert_eq!(rows.len(), 1600);
        for t in 0..8 {
            let key = format!("t{t}");
            assert_eq!(
                store.read("last", &key).unwrap(),
                Some(199u32.to_be_bytes().to_vec())
            );
            let mine: Vec<u32> = rows
                .iter()
                .filter(|row| row.key == key)
                .map(|row| u32::from_be_bytes(row.value.clone().try_into().unwrap()))
                .collect();
            assert_eq!(mine, (0..200).collect::<Vec<_>>());
        }
        assert!(journal.stats().commits < 1600);
    }

    #[test]
    fn futures_resolve_only_after_the_commit() {
        let store = MemoryStore::new();
        let (_committer, journal, _) =
            start(FaultyStore::new(store.clone()).at(1, Fault::Slow(Duration::from_millis(150))));
        let write = KVStore::write(&journal, "monitors", "", "m", vec![1]);
        let durable = {
            journal.put("a", "b", vec![2]);
            journal.durable()
        };
        assert!(ready(durable).is_none());
        now(write).unwrap();
        assert_eq!(
            store.clone().read("ldk/monitors/", "m").unwrap(),
            Some(vec![1])
        );
        journal.put("a", "c", vec![3]);
        now(journal.durable()).unwrap();
        assert_eq!(store.clone().read("a", "c").unwrap(), Some(vec![3]));
        // Nothing new: nothing to wait for.
        assert_eq!(ready(journal.durable()), Some(Ok(())));
    }

    #[test]
    fn lazy_removals_neither_delay_nor_overtake() {
        let store = MemoryStore::new();
        let (committer, journal, _) = start(store.clone());
        now(KVStore::write(
            &journal,
            "monitor_updates",
            "c",
            "1",
            vec![1],
        ))
        .unwrap();
        let before = journal.stats().commits;
        assert!(now(KVStore::remove(&journal, "monitor_updates", "c", "1", true)).is_ok());
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(journal.stats().commits, before, "waits for company");
        assert_eq!(
            ready(journal.durable()),
            Some(Ok(())),
            "nobody waits for it"
        );
        assert_eq!(
            now(KVStore::list(&journal, "monitor_updates", "c")).unwrap(),
            Vec::<String>::new()
        );
        assert!(now(KVStore::read(&journal, "monitor_updates", "c", "1")).is_err());
        // Put again: the removal came first and must not win.
        now(KVStore::write(
            &journal,
            "monitor_updates",
            "c",
            "1",
            vec![2],
        ))
        .unwrap();
        assert_eq!(
            store.clone().read("ldk/monitor_updates/c", "1").unwrap(),
            Some(vec![2])
        );
        // A removal that is alone at the end is written by the shutdown.
        assert!(now(KVStore::remove(&journal, "monitor_updates", "c", "1", true)).is_ok());
        now(committer.shutdown()).unwrap();
        assert_eq!(
            store.clone().read("ldk/monitor_updates/c", "1").unwrap(),
            None
        );
        assert_eq!(journal.stopped(), Some(StoreError::Closed));
        assert_eq!(now(committer.shutdown()), Err(StoreError::Closed));
    }

    #[test]
    fn a_store_error_stops_everything() {
        for fault in [Fault::Fails, Fault::LosesAnswer, Fault::Torn] {
            let store = MemoryStore::new();
            let (committer, journal, _) = start(FaultyStore::new(store.clone()).at(2, fault));
            let mut watch = journal.watch_stopped();
            now(KVStore::write(&journal, "monitors", "", "a", vec![1])).unwrap();
            assert!(now(KVStore::write(&journal, "monitors", "", "b", vec![1])).is_err());
            now(watch.changed()).unwrap();
            assert!(matches!(journal.stopped(), Some(StoreError::Failed(_))));
            // Nothing is acknowledged any more.
            assert!(now(KVStore::write(&journal, "monitors", "", "c", vec![1])).is_err());
            assert!(now(KVStore::remove(&journal, "monitors", "", "c", true)).is_err());
            journal.put("a", "b", vec![]);
            assert!(now(journal.durable()).is_err());
            assert!(now(journal.read("a", "b")).is_err());
            assert!(matches!(
                now(committer.shutdown()),
                Err(StoreError::Failed(_))
            ));
        }
    }

    struct Panics;
    impl Store for Panics {
        fn load(&mut self) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }
        fn load_all(&mut self) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }
        fn commit(&mut self, _: u64, _: &[Op]) -> Result<(), StoreError> {
            panic!("a user's store")
        }
        fn read(&mut self, _: &str, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
        fn rows(&mut self, _: &str, _: u64, _: usize) -> Result<Vec<Row>, StoreError> {
            Ok(vec![])
        }
        fn close(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_store_that_fails_at_the_very_end_is_why_nothing_is_written() {
        let store = FaultyStore::new(MemoryStore::new()).at(1, Fault::Fails);
        let (committer, journal, _) = start(store);
        journal.put_soon("a", "b", vec![]).unwrap();
        let failed = now(committer.shutdown()).unwrap_err();
        assert!(matches!(failed, StoreError::Failed(_)));
        assert_eq!(journal.stopped(), Some(failed));
    }

    #[test]
    fn a_panicking_store_leaves_nobody_waiting() {
        let (committer, journal, _) = start(Panics);
        journal.put("a", "b", vec![]);
        assert!(matches!(now(journal.durable()), Err(StoreError::Failed(_))));
        assert!(now(committer.shutdown()).is_err());
    }

    #[test]
    fn the_manager_travels_with_ldks_writes_and_alone_after_a_moment() {
        let store = MemoryStore::new();
        let (committer, journal, _) = start(store.clone());
        let manager = Arc::new(FakeManager::default());
        committer.attach(manager.clone());
        // A row alone does not carry a manager that did not change.
        journal.row("event", "", vec![]);
        now(journal.durable()).unwrap();
        assert_eq!(manager_in(&store), None);
        // LDK's write always does.
        manager.state.store(1, Ordering::SeqCst);
        now(KVStore::write(&journal, "monitors", "", "a", vec![])).unwrap();
        assert_eq!(manager_in(&store), Some(1));
        // Alone, soon.
        manager.state.store(2, Ordering::SeqCst);
        manager.needs.store(true, Ordering::SeqCst);
        journal.kick();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(manager_in(&store), Some(1));
        std::thread::sleep(COMPANY * 6);
        assert_eq!(manager_in(&store), Some(2));
        // A kick for nothing writes nothing.
        let commits = journal.stats().commits;
        journal.kick();
        std::thread::sleep(COMPANY * 6);
        assert_eq!(journal.stats().commits, commits);
        manager.state.store(3, Ordering::SeqCst);
        now(committer.shutdown()).unwrap();
        assert_eq!(manager_in(&store), Some(3));
    }

    #[test]
    fn what_may_be_lost_travels_with_others_or_alone_after_a_moment() {
        let store = MemoryStore::new();
        let (committer, journal, _) = start(store.clone());
        let has = |key: &str| {
            let live = store.clone().load().unwrap().live;
            live.iter().any(|(_, k, _)| k == key)
        };
        let no_commit = now(journal.gate());
        journal.put_soon("cursor", "a", vec![]).unwrap();
        now(journal.durable()).unwrap();
        assert!(!has("a"), "nobody waits for it");
        journal.put("order", "b", vec![]);
        drop(no_commit);
        now(journal.durable()).unwrap();
        assert!(has("a") && has("b"));
        assert_eq!(journal.stats().commits, 1);
        journal.put_soon("cursor", "c", vec![]).unwrap();
        assert!(now(journal.read("cursor", "c")).unwrap().is_some());
        std::thread::sleep(COMPANY * 6);
        assert!(has("c"));
        journal.put_soon("cursor", "d", vec![]).unwrap();
        now(committer.shutdown()).unwrap();
        assert!(has("d"));
        assert!(journal.put_soon("cursor", "e", vec![]).is_err());
    }

    /// Rows and the manager change together, as this way of holding commits off has it, while others write.
    fn are_coupled(hold: impl Fn(&Journal, &dyn Fn())) {
        let store = MemoryStore::new();
        let (committer, journal, _) = start(store.clone());
        let manager = Arc::new(FakeManager::default());
        committer.attach(manager.clone());
        let noise = journal.clone();
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let other = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let _ = now(KVStore::write(&noise, "monitors", "", "noise", vec![]));
            }
        });
        for n in 1..=100u64 {
            hold(&journal, &|| {
                journal.row("event", "", vec![]);
                std::thread::yield_now();
                manager.state.store(n, Ordering::SeqCst);
                manager.needs.store(true, Ordering::SeqCst);
            });
            // At every commit the manager's count is the number of rows. A look between two commits:
            let last = store.clone().load().unwrap();
            let rows = last.last_row.get("event").copied().unwrap_or(0);
            assert_eq!(rows, manager_of(last.live).unwrap_or(0));
        }
        over.store(true, Ordering::SeqCst);
        other.join().unwrap();
    }

    #[test]
    fn the_gate_couples_rows_with_the_manager() {
        are_coupled(|journal, change| {
            let _gate = now(journal.gate());
            change();
        });
    }

    #[test]
    fn a_change_outside_the_gate_is_in_one_commit() {
        are_coupled(|journal, change| {
            let _change = journal.change();
            change();
        });
    }

    #[test]
    fn reads_see_what_is_queued() {
        let store = MemoryStore::new();
        let (_committer, journal, _) =
            start(FaultyStore::new(store).at(1, Fault::Slow(Duration::from_millis(20))));
        journal.put("payment", "h", b"pending".to_vec());
        assert_eq!(
            now(journal.read("payment", "h")).unwrap(),
            Some(b"pending".to_vec())
        );
        journal.row("payment", "h", b"done".to_vec());
        journal.delete("payment", "h");
        assert_eq!(
            now(journal.read("payment", "h")).unwrap(),
            Some(b"done".to_vec())
        );
        journal.delete("payment", "x");
        assert_eq!(now(journal.read("payment", "x")).unwrap(), None);
        for _ in 0..5 {
            journal.row("event", "", vec![]);
        }
        let rows = now(journal.rows("event", 2, 2)).unwrap();
        assert_eq!(rows.iter().map(|r| r.seq).collect::<Vec<_>>(), vec![3, 4]);
        assert_eq!(journal.last_row("event"), 5);
    }

    #[test]
    fn ldk_reads_its_keys_after_a_restart() {
        let dir = TempDir::new();
        let open = || SqliteStore::open(&dir.path().join("s.sqlite"), Network::Regtest).unwrap();
        let (committer, journal, boot) = start(open());
        assert!(boot.new);
        now(KVStore::write(&journal, "monitors", "", "m", vec![1])).unwrap();
        now(KVStore::write(
            &journal,
            "archived_monitors",
            "",
            "old",
            vec![2],
        ))
        .unwrap();
        journal.put("order", "1", vec![3]);
        journal.row("event", "", vec![]);
        now(committer.shutdown()).unwrap();

        let (committer, journal, mut boot) = start(open());
        assert!(!boot.new);
        assert_eq!(boot.take("order"), vec![("1".to_owned(), vec![3])]);
        assert!(boot.live.is_empty());
        for booted in [false, true] {
            assert_eq!(
                now(KVStore::list(&journal, "monitors", "")).unwrap(),
                vec!["m".to_owned()]
            );
            assert_eq!(
                now(KVStore::read(&journal, "monitors", "", "m")).unwrap(),
                vec![1]
            );
            assert_eq!(
                now(KVStore::read(&journal, "archived_monitors", "", "old")).unwrap(),
                vec![2]
            );
            let missing = now(KVStore::read(&journal, "monitor_updates", "m", "1")).unwrap_err();
            assert_eq!(missing.kind(), lightning::io::ErrorKind::NotFound);
            if !booted {
                journal.booted();
            }
        }
        assert_eq!(journal.row("event", "", vec![]), 2);
        drop(committer);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Lazy(u8),
        Row(u8),
        Await,
        Crash,
        Shutdown,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..4, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
            1 => (0u8..4).prop_map(Step::Delete),
            2 => (0u8..4).prop_map(Step::Lazy),
            2 => any::<u8>().prop_map(Step::Row),
            2 => Just(Step::Await),
            1 => Just(Step::Crash),
            1 => Just(Step::Shutdown),
        ];
        proptest::collection::vec(step, 1..40)
    }

    type Model = (BTreeMap<String, Vec<u8>>, Vec<u8>);

    fn content(store: &MemoryStore) -> Model {
        let mut store = store.clone();
        let live = store
            .load()
            .unwrap()
            .live
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect();
        let rows = store
            .rows("event", 0, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|row| row.value[0])
            .collect();
        (live, rows)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        /// After a crash the store holds a prefix of what was appended, never less than what was acknowledged.
        #[test]
        fn what_is_stored_is_a_prefix(steps in steps()) {
            let store = MemoryStore::new();
            let (mut committer, mut journal, _) = start(store.clone());
            let mut history: Vec<Model> = vec![Model::default()];
            let mut acknowledged = 0;
            for step in steps {
                let mut model = history.last().cloned().unwrap();
                match step {
                    Step::Put(k, v) => {
                        drop(KVStore::write(&journal, "p", "s", &k.to_string(), vec![v]));
                        model.0.insert(k.to_string(), vec![v]);
                        history.push(model);
                    }
                    Step::Delete(k) => {
                        drop(KVStore::remove(&journal, "p", "s", &k.to_string(), false));
                        model.0.remove(&k.to_string());
                        history.push(model);
                    }
                    Step::Lazy(k) => {
                        drop(KVStore::remove(&journal, "p", "s", &k.to_string(), true));
                        model.0.remove(&k.to_string());
                        history.push(model);
                    }
                    Step::Row(v) => {
                        let seq = journal.row("event", "", vec![v]);
                        model.1.push(v);
                        prop_assert_eq!(seq as usize, model.1.len());
                        history.push(model);
                    }
                    Step::Await => {
                        // A lazy removal at the end of the queue is not awaited.
                        journal.put("p", "mark", vec![]);
                        model.0.insert("mark".into(), vec![]);
                        history.push(model);
                        now(journal.durable()).unwrap();
                        acknowledged = history.len() - 1;
                    }
                    Step::Crash | Step::Shutdown => {
                        if matches!(step, Step::Shutdown) {
                            now(committer.shutdown()).unwrap();
                            acknowledged = history.len() - 1;
                        } else {
                            let mut stopped = journal.watch_stopped();
                            drop(committer);
                            now(stopped.wait_for(Option::is_some)).unwrap();
                        }
                        let found = content(&store);
                        let at = history.iter().rposition(|model| *model == found);
                        prop_assert!(at.is_some_and(|at| at >= acknowledged), "{:?} in {:?}", found, history);
                        history = vec![found];
                        acknowledged = 0;
                        (committer, journal, _) = start(store.clone());
                    }
                }
            }
            now(committer.shutdown()).unwrap();
            prop_assert_eq!(&content(&store), history.last().unwrap());
        }
    }
}
