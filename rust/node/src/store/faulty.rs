//! A store that fails on purpose, for tests.

use super::{Loaded, Op, Row, Store, StoreError};
use std::time::Duration;

/// How a commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Fails,
    /// Everything is written, but the answer is an error, like a connection lost after COMMIT.
    LosesAnswer,
    /// Only the first half is written: a store that breaks its promise.
    Torn,
}

/// Wraps another store.
pub struct FaultyStore<S> {
    inner: S,
    fault: Option<(u64, Fault)>,
    delay: Duration,
    commits: u64,
}

impl<S: Store> FaultyStore<S> {
    /// Behaves as `inner` until told otherwise.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            fault: None,
            delay: Duration::ZERO,
            commits: 0,
        }
    }

    /// Goes wrong at the `n`-th commit through this wrapper (from 1) and answers errors from then on.
    #[must_use]
    pub fn at(mut self, n: u64, fault: Fault) -> Self {
        self.fault = Some((n, fault));
        self
    }

    /// Every commit takes at least this long.
    #[must_use]
    pub fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        self.commits = self.commits.saturating_add(1);
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        match self.fault {
            Some((n, fault)) if self.commits == n => {
                match fault {
                    Fault::Fails => {}
                    Fault::LosesAnswer => self.inner.commit(seq, batch)?,
                    Fault::Torn => {
                        let half = batch.len().div_euclid(2);
                        self.inner
                            .commit(seq, batch.get(..half).unwrap_or_default())?;
                    }
                }
                Err(StoreError::Failed("as the test asked".into()))
            }
            Some((n, _)) if self.commits > n => Err(StoreError::Failed("as the test asked".into())),
            _ => self.inner.commit(seq, batch),
        }
    }

    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.read(kind, key)
    }

    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.inner.rows(kind, after, limit)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.inner.close()
    }
}
