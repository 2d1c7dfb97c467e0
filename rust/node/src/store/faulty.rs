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
    /// It takes this long, and so does every later one.
    Slow(Duration),
}

/// Wraps another store.
pub struct FaultyStore<S> {
    inner: S,
    fault: Option<(u64, Fault)>,
    commits: u64,
}

impl<S: Store> FaultyStore<S> {
    /// Behaves as `inner` until told otherwise.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            fault: None,
            commits: 0,
        }
    }

    /// Goes wrong at the `n`-th commit through this wrapper (from 1), and unless it is only slow answers errors from then on.
    #[must_use]
    pub fn at(mut self, n: u64, fault: Fault) -> Self {
        self.fault = Some((n, fault));
        self
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load_all()
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        self.commits = self.commits.saturating_add(1);
        let failed = || StoreError::Failed("as the test asked".into());
        match self.fault.filter(|(n, _)| self.commits >= *n) {
            None => self.inner.commit(seq, batch),
            Some((_, Fault::Slow(delay))) => {
                std::thread::sleep(delay);
                self.inner.commit(seq, batch)
            }
            Some((n, fault)) => {
                if self.commits == n {
                    let written = match fault {
                        Fault::LosesAnswer => batch.len(),
                        Fault::Torn => batch.len().div_euclid(2),
                        Fault::Fails | Fault::Slow(_) => return Err(failed()),
                    };
                    self.inner
                        .commit(seq, batch.get(..written).unwrap_or_default())?;
                }
                Err(failed())
            }
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
