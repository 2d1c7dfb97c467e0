//! What a store must do: five methods over ordered batches.

mod copy;
mod faulty;
pub(crate) mod lock;
mod memory;
mod sqlite;

#[cfg(test)]
mod conformance;

pub use crate::error::StoreError;
pub use copy::{copy, Moved};
pub use faulty::{Fault, FaultyStore};
pub use memory::MemoryStore;
pub(crate) use sqlite::Mark;
pub use sqlite::SqliteStore;

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The version of what is stored. A store written by a later release is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// Kinds with this prefix are kept out of [`Loaded`]: nobody needs them to start.
pub const ARCHIVE: &str = "archive/";

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value of `(kind, key)`.
    Put {
        /// What sort of thing it is.
        kind: String,
        /// Which one.
        key: String,
        /// Its whole value.
        value: Vec<u8>,
    },
    /// Removes `(kind, key)`, if it is there.
    Delete {
        /// What sort of thing it is.
        kind: String,
        /// Which one.
        key: String,
    },
    /// Appends to the history of `kind`. Rows are never changed.
    Row {
        /// Which history.
        kind: Cow<'static, str>,
        /// One more than the last of this kind; the first is 1.
        seq: u64,
        /// By what it may be found.
        key: String,
        /// Its content.
        value: Vec<u8>,
    },
}

/// One row of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place, from 1, without gaps.
    pub seq: u64,
    /// By what it may be found.
    pub key: String,
    /// Its content.
    pub value: Vec<u8>,
}

/// What a node needs to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The number of the last commit; 0 for a new store.
    pub seq: u64,
    /// `(kind, key, value)` of everything put and not deleted, without kinds that start with `archive/`.
    pub live: Vec<(String, String, Vec<u8>)>,
    /// The last row's number, by kind of history.
    pub last_row: BTreeMap<String, u64>,
}

/// A place where batches are kept. Used by one thread at a time.
pub trait Store: Send {
    /// Everything live. Called before anything else, and again by whoever wants to see all of a commit.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// As [`Store::load`], with the kinds that start with `archive/`: for moving to another store.
    fn load_all(&mut self) -> Result<Loaded, StoreError>;

    /// Writes the batch, all or nothing, durable on return. `seq` is the last commit's number plus one;
    /// anything else is refused with [`StoreError::Sequence`].
    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError>;

    /// The value put under `(kind, key)`, or else the newest history row of `kind` with this key.
    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` rows of the history `kind` with numbers above `after`, in order.
    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Lets go of everything. Later calls answer [`StoreError::Closed`]; closing again is fine.
    fn close(&mut self) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        (**self).load()
    }
    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        (**self).load_all()
    }
    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        (**self).commit(seq, batch)
    }
    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).read(kind, key)
    }
    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        (**self).rows(kind, after, limit)
    }
    fn close(&mut self) -> Result<(), StoreError> {
        (**self).close()
    }
}

/// Checks that `got` follows `last`.
pub(crate) fn follows(last: u64, got: u64) -> Result<(), StoreError> {
    match last.checked_add(1) {
        Some(expected) if expected == got => Ok(()),
        Some(expected) => Err(StoreError::Sequence { expected, got }),
        None => Err(StoreError::Failed("the sequence is exhausted".into())),
    }
}

/// Checks the numbers of a batch's rows and answers what the last ones will be.
pub(crate) fn rows_follow<'a>(
    last_row: &BTreeMap<String, u64>,
    batch: &'a [Op],
) -> Result<BTreeMap<&'a str, u64>, StoreError> {
    let mut next = BTreeMap::new();
    for op in batch {
        if let Op::Row { kind, seq, .. } = op {
            let last = next
                .get(&**kind)
                .or_else(|| last_row.get(&**kind))
                .copied()
                .unwrap_or(0);
            follows(last, *seq)?;
            next.insert(&**kind, *seq);
        }
    }
    Ok(next)
}
