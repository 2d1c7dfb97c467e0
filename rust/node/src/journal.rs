//! The ordered queue of everything that must be durable: what the node, and LDK, write to.
//!
//! Nothing here touches the store. The committer ([`crate::commit`]) takes the queue whole, in order.

use crate::books::Put;
use crate::error::StoreError;
use crate::log::now_ms;
use crate::metrics::Metrics;
use crate::store::{Loaded, Op, Row};
use crate::sync::{lock, read};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::seal::{seal, Link};
use lightning::io;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::{KVStore, ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Instant;
use tokio::sync::{oneshot, watch};

/// Cheap to clone; every clone appends to the same queue.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// What the journal and the committer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) wake: Condvar,
    pub(crate) gate: tokio::sync::Mutex<()>,
    pub(crate) change: RwLock<()>,
    stopped: watch::Sender<Option<StoreError>>,
    pub(crate) stats: Counters,
    pub(crate) metrics: Metrics,
}

/// The queue and who waits for it.
#[derive(Default)]
pub(crate) struct State {
    /// Appended and not yet taken, in order.
    pub(crate) queue: Vec<Op>,
    /// How many operations were ever appended.
    pub(crate) tail: u64,
    /// The place of the last operation that somebody may wait for: every one but lazy removals.
    pub(crate) heavy: u64,
    /// Everything up to here was taken by the committer (it may not be durable yet).
    pub(crate) taken: u64,
    /// Everything up to here is durable.
    pub(crate) committed: u64,
    /// The queue holds a write of LDK's: the next commit must carry the manager.
    pub(crate) ldk_written: bool,
    /// Since when the manager may want to be written.
    pub(crate) kicked: Option<Instant>,
    pub(crate) asks: VecDeque<Ask>,
    pub(crate) ending: Ending,
    stopped: Option<StoreError>,
    /// By place, rising.
    waiters: VecDeque<(u64, Waiter)>,
    last_row: BTreeMap<String, u64>,
    /// The digest of the ledger so far.
    link: Link,
    /// The keys alive under each of LDK's kinds, queued writes included: `list`, and quick "not found"s.
    ldk_keys: BTreeMap<String, BTreeSet<String>>,
    /// LDK's values as loaded, until [`Journal::booted`]: reading ten thousand monitors one by one from a
    /// remote store would take minutes.
    boot: HashMap<(String, String), Vec<u8>>,
}

type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// A question that only the holder of the store can answer.
pub(crate) enum Ask {
    Read {
        kind: String,
        key: String,
        answer: oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>,
    },
    Rows {
        kind: String,
        after: u64,
        limit: usize,
        /// Those of the next commit too.
        queued: bool,
        answer: oneshot::Sender<Result<Vec<Row>, StoreError>>,
    },
    Load {
        answer: oneshot::Sender<Result<Loaded, StoreError>>,
    },
}

/// Whether and how the committer is to end.
#[derive(Default)]
pub(crate) enum Ending {
    #[default]
    No,
    Shutdown(oneshot::Sender<Result<(), StoreError>>),
    Abandon,
}

/// Figures for metrics and benches.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) ops: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) manager_writes: AtomicU64,
    pub(crate) manager_bytes: AtomicU64,
    pub(crate) encode_ns: AtomicU64,
    pub(crate) commit_ns: AtomicU64,
}

/// What the committer has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CommitStats {
    /// Transactions.
    pub commits: u64,
    /// Operations in them.
    pub ops: u64,
    /// Bytes of values in them.
    pub bytes: u64,
    /// Transactions that carried the manager.
    pub manager_writes: u64,
    /// Bytes of managers encoded, of which those that changed are written.
    pub manager_bytes: u64,
    /// Time spent encoding the manager.
    pub encode_ns: u64,
    /// Time spent in the store.
    pub commit_ns: u64,
}

impl Shared {
    pub(crate) fn new(
        last_row: BTreeMap<String, u64>,
        link: Link,
        ldk: Vec<(String, String, Vec<u8>)>,
    ) -> Arc<Self> {
        let mut state = State {
            last_row,
            link,
            ..State::default()
        };
        for (kind, key, value) in ldk {
            state
                .ldk_keys
                .entry(kind.clone())
                .or_default()
                .insert(key.clone());
            state.boot.insert((kind, key), value);
        }
        Arc::new(Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            gate: tokio::sync::Mutex::new(()),
            change: RwLock::new(()),
            stopped: watch::Sender::new(None),
            stats: Counters::default(),
            metrics: Metrics::default(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Everything up to `place` is durable.
    pub(crate) fn committed(&self, place: u64) {
        let mut state = self.state();
        state.committed = place;
        while state.waiters.front().is_some_and(|(at, _)| *at <= place) {
            if let Some((_, waiter)) = state.waiters.pop_front() {
                let _ = waiter.send(Ok(()));
            }
        }
    }

    /// Nothing will be written any more. The first reason stays, but for the refusals of an orderly end that fails.
    pub(crate) fn stop(&self, after: StoreError) {
        let mut state = self.state();
        let first = state.stopped.take();
        let why = first.filter(|first| *first != StoreError::Closed);
        let why = why.unwrap_or(after);
        state.stopped = Some(why.clone());
        state.queue = Vec::new();
        for (_, waiter) in state.waiters.drain(..) {
            let _ = waiter.send(Err(why.clone()));
        }
        for ask in state.asks.drain(..) {
            match ask {
                Ask::Read { answer, .. } => drop(answer.send(Err(why.clone()))),
                Ask::Rows { answer, .. } => drop(answer.send(Err(why.clone()))),
                Ask::Load { answer } => drop(answer.send(Err(why.clone()))),
            }
        }
        drop(state);
        self.stopped.send_if_modified(|seen| {
            let first = seen.is_none();
            seen.get_or_insert(why);
            first
        });
    }
}

impl State {
    /// Refuses everything that is appended from now on, without ending what is queued.
    pub(crate) fn refuse(&mut self) {
        self.stopped.get_or_insert(StoreError::Closed);
    }

    fn append(&mut self, op: Op, lazy: bool) -> u64 {
        self.queue.push(op);
        self.tail = self.tail.saturating_add(1);
        if !lazy {
            self.heavy = self.tail;
        }
        self.tail
    }

    fn wait_for(&mut self, place: u64) -> oneshot::Receiver<Result<(), StoreError>> {
        let (waiter, answer) = oneshot::channel();
        if let Some(why) = &self.stopped {
            let _ = waiter.send(Err(why.clone()));
        } else if place <= self.committed {
            let _ = waiter.send(Ok(()));
        } else {
            self.waiters.push_back((place, waiter));
        }
        answer
    }
}

impl Journal {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A journal that has what a store held and writes nowhere: whatever is appended is refused, as after a stop.
    pub(crate) fn nowhere(ldk: Vec<(String, String, Vec<u8>)>) -> Self {
        let shared = Shared::new(BTreeMap::new(), Link::default(), ldk);
        shared.stop(StoreError::Closed);
        Self { shared }
    }

    /// The answer to an LDK write: all that was appended so far, durable.
    fn committed(&self, mut state: MutexGuard<'_, State>) -> AsyncResult<'static, (), io::Error> {
        let place = state.tail;
        let answer = state.wait_for(place);
        drop(state);
        self.shared.wake.notify_one();
        Box::pin(async move {
            answer
                .await
                .unwrap_or(Err(StoreError::Closed))
                .map_err(to_io)
        })
    }

    fn append(&self, op: Op) {
        let mut state = self.shared.state();
        // What cannot be written is not kept: whoever needs it durable learns so from `durable`.
        if state.stopped.is_none() {
            state.append(op, false);
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Sets the value of `(kind, key)`.
    pub fn put(&self, kind: impl Into<String>, key: impl Into<String>, value: Vec<u8>) {
        self.append(Op::Put {
            kind: kind.into(),
            key: key.into(),
            value,
        });
    }

    /// As [`Journal::put`], for what may be lost in a crash: it is written with whatever is next, or alone after a moment.
    ///
    /// # Errors
    /// When nothing is written any more.
    pub fn put_soon(
        &self,
        kind: impl Into<String>,
        key: impl Into<String>,
        value: Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut state = self.shared.state();
        if let Some(why) = &state.stopped {
            return Err(why.clone());
        }
        let (kind, key) = (kind.into(), key.into());
        state.append(Op::Put { kind, key, value }, true);
        drop(state);
        self.kick();
        Ok(())
    }

    /// Removes `(kind, key)`.
    pub fn delete(&self, kind: impl Into<String>, key: impl Into<String>) {
        self.append(Op::Delete {
            kind: kind.into(),
            key: key.into(),
        });
    }

    /// Appends to the history `kind` and answers the row's number.
    pub fn row(&self, kind: &'static str, key: impl Into<String>, value: Vec<u8>) -> u64 {
        self.row_with(kind, key, |_| value)
    }

    /// As [`Journal::row`], for a value that contains its own number.
    pub fn row_with(
        &self,
        kind: &'static str,
        key: impl Into<String>,
        value: impl FnOnce(u64) -> Vec<u8>,
    ) -> u64 {
        let mut state = self.shared.state();
        // Number and place are given under one lock, so that rows are queued in the order of their numbers.
        let last = state.last_row.entry(kind.to_owned()).or_insert(0);
        *last = last.saturating_add(1);
        let seq = *last;
        if state.stopped.is_none() {
            let value = value(seq);
            state.append(
                Op::Row {
                    kind: kind.into(),
                    seq,
                    key: key.into(),
                    value,
                },
                false,
            );
            drop(state);
            self.shared.wake.notify_one();
        }
        seq
    }

    /// Adds rows to the ledger.
    pub fn book(&self, entries: &[LedgerEntry]) {
        self.book_with(Vec::new(), entries);
    }

    /// Sets values and adds the ledger rows that say what they mean, in one commit.
    pub fn book_with(&self, puts: Vec<Put>, entries: &[LedgerEntry]) {
        let mut state = self.shared.state();
        if state.stopped.is_some() || puts.is_empty() && entries.is_empty() {
            return;
        }
        for (kind, key, value) in puts {
            state.append(Op::Put { kind, key, value }, false);
        }
        for entry in entries {
            self.shared.metrics.booked(entry);
            let last = state.last_row.entry(LEDGER.to_owned()).or_insert(0);
            *last = last.saturating_add(1);
            let seq = *last;
            let (value, link) = seal(state.link, seq, now_ms(), entry);
            state.link = link;
            let row = Op::Row {
                kind: LEDGER.into(),
                seq,
                key: String::new(),
                value,
            };
            state.append(row, false);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// What is counted of this node.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The number of the last row of `kind`, queued ones included; 0 if there is none.
    pub fn last_row(&self, kind: &str) -> u64 {
        self.shared.state().last_row.get(kind).copied().unwrap_or(0)
    }

    /// Resolves when everything appended before this call is committed. The place in the queue is taken
    /// now, not when the future is first polled.
    pub fn durable(&self) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let mut state = self.shared.state();
        let place = state.heavy;
        let answer = state.wait_for(place);
        async move { answer.await.unwrap_or(Err(StoreError::Closed)) }
    }

    /// Where the queue ends now.
    pub fn place(&self) -> u64 {
        self.shared.state().heavy
    }

    /// Whether all before this place is durable.
    pub fn has(&self, place: u64) -> bool {
        let state = self.shared.state();
        state.stopped.is_none() && place <= state.committed
    }

    /// Tells the committer that the manager may want to be written.
    pub fn kick(&self) {
        let mut state = self.shared.state();
        if state.kicked.is_none() {
            state.kicked = Some(Instant::now());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// The value under `(kind, key)`, or else the newest history row with this key; queued writes are seen.
    /// Never awaited by a holder of the [`Journal::gate`].
    pub fn read(
        &self,
        kind: impl Into<String>,
        key: impl Into<String>,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send + 'static {
        let (answer, future) = oneshot::channel();
        self.ask(Ask::Read {
            kind: kind.into(),
            key: key.into(),
            answer,
        });
        async move { future.await.unwrap_or(Err(StoreError::Closed)) }
    }

    /// Up to `limit` rows of the history `kind` after number `after`; queued rows are seen.
    /// Never awaited by a holder of the [`Journal::gate`].
    pub fn rows(
        &self,
        kind: impl Into<String>,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send + 'static {
        self.ask_rows(kind.into(), after, limit, true)
    }

    /// As [`Journal::rows`], of rows that are durable.
    pub fn durable_rows(
        &self,
        kind: impl Into<String>,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send + 'static {
        self.ask_rows(kind.into(), after, limit, false)
    }

    fn ask_rows(
        &self,
        kind: String,
        after: u64,
        limit: usize,
        queued: bool,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send + 'static {
        let (answer, future) = oneshot::channel();
        self.ask(Ask::Rows {
            kind,
            after,
            limit,
            queued,
            answer,
        });
        async move { future.await.unwrap_or(Err(StoreError::Closed)) }
    }

    /// Everything live as of the last commit, without what is queued. No commit is made while it is read.
    /// Never awaited by a holder of the [`Journal::gate`].
    pub fn load(&self) -> impl Future<Output = Result<Loaded, StoreError>> + Send + 'static {
        let (answer, future) = oneshot::channel();
        self.ask(Ask::Load { answer });
        async move { future.await.unwrap_or(Err(StoreError::Closed)) }
    }

    fn ask(&self, ask: Ask) {
        let mut state = self.shared.state();
        // Dropping the question answers it.
        if state.stopped.is_none() {
            state.asks.push_back(ask);
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Held by the driver while LDK's events are handled, and by whoever couples rows with a change of
    /// LDK's state: the committer takes it while it takes {queue, manager}. Nobody who holds it may await
    /// [`Journal::durable`], [`Journal::read`] or [`Journal::rows`], nor an LDK write.
    pub async fn gate(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.gate.lock().await
    }

    /// Held while peers' messages change LDK's state, which they do outside the gate: the committer takes it too, so that
    /// the manager and what it has queued are in one commit. Nobody who holds it may take it again, or wait for the gate.
    pub fn change(&self) -> RwLockReadGuard<'_, ()> {
        read(&self.shared.change)
    }

    /// Why nothing is written any more: a store error, or [`StoreError::Closed`] after an orderly end.
    pub fn stopped(&self) -> Option<StoreError> {
        self.shared.stopped.borrow().clone()
    }

    /// Sees [`Journal::stopped`] change, once.
    pub fn watch_stopped(&self) -> watch::Receiver<Option<StoreError>> {
        self.shared.stopped.subscribe()
    }

    /// LDK has read all it needs to start: forget the loaded values.
    pub fn booted(&self) {
        self.shared.state().boot = HashMap::new();
    }

    /// What was committed so far.
    pub fn stats(&self) -> CommitStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let s = &self.shared.stats;
        CommitStats {
            commits: get(&s.commits),
            ops: get(&s.ops),
            bytes: get(&s.bytes),
            manager_writes: get(&s.manager_writes),
            manager_bytes: get(&s.manager_bytes),
            encode_ns: get(&s.encode_ns),
            commit_ns: get(&s.commit_ns),
        }
    }
}

/// The history that is the ledger.
pub const LEDGER: &str = "ledger";

/// Under which kind LDK's key is kept. Archived monitors are never needed to start.
pub(crate) fn ldk_kind(primary: &str, secondary: &str) -> String {
    if primary == ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE {
        format!("archive/ldk/{primary}/{secondary}")
    } else {
        format!("{LDK}{primary}/{secondary}")
    }
}

/// The prefix of LDK's kinds.
pub(crate) const LDK: &str = "ldk/";

fn to_io(error: StoreError) -> io::Error {
    io::Error::new(io::ErrorKind::Other, error.to_string())
}

fn absent() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such key")
}

impl KVStore for Journal {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> AsyncResult<'static, Vec<u8>, io::Error> {
        let kind = ldk_kind(primary, secondary);
        if kind.starts_with(LDK) {
            let state = self.shared.state();
            if !state
                .ldk_keys
                .get(&kind)
                .is_some_and(|keys| keys.contains(key))
            {
                return Box::pin(async { Err(absent()) });
            }
            if let Some(value) = state.boot.get(&(kind.clone(), key.to_owned())).cloned() {
                return Box::pin(async move { Ok(value) });
            }
        }
        let value = Journal::read(self, kind, key);
        Box::pin(async move { value.await.map_err(to_io)?.ok_or_else(absent) })
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> AsyncResult<'static, (), io::Error> {
        let kind = ldk_kind(primary, secondary);
        let mut state = self.shared.state();
        if state.stopped.is_none() {
            state.ldk_written = true;
            state
                .ldk_keys
                .entry(kind.clone())
                .or_default()
                .insert(key.to_owned());
            if !state.boot.is_empty() {
                state.boot.remove(&(kind.clone(), key.to_owned()));
            }
            state.append(
                Op::Put {
                    kind,
                    key: key.to_owned(),
                    value,
                },
                false,
            );
        }
        self.committed(state)
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> AsyncResult<'static, (), io::Error> {
        let kind = ldk_kind(primary, secondary);
        let mut state = self.shared.state();
        if state.stopped.is_none() {
            if let Some(keys) = state.ldk_keys.get_mut(&kind) {
                keys.remove(key);
                if keys.is_empty() {
                    state.ldk_keys.remove(&kind);
                }
            }
            if !state.boot.is_empty() {
                state.boot.remove(&(kind.clone(), key.to_owned()));
            }
            state.append(
                Op::Delete {
                    kind,
                    key: key.to_owned(),
                },
                lazy,
            );
        }
        if lazy {
            // LDK reports a consolidated monitor only after it has awaited a hundred of these one by one.
            return match state.stopped.clone() {
                None => Box::pin(async { Ok(()) }),
                Some(why) => Box::pin(async move { Err(to_io(why)) }),
            };
        }
        state.ldk_written = true;
        self.committed(state)
    }

    fn list(&self, primary: &str, secondary: &str) -> AsyncResult<'static, Vec<String>, io::Error> {
        let state = self.shared.state();
        let keys = state.ldk_keys.get(&ldk_kind(primary, secondary));
        let keys: Vec<String> = keys
            .map(|keys| keys.iter().cloned().collect())
            .unwrap_or_default();
        Box::pin(async move { Ok(keys) })
    }
}
