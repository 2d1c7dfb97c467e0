//! A store that forgets when its last handle is dropped, for tests and throw-away nodes.

use super::{follows, rows_follow, Loaded, Op, Row, Store, StoreError, ARCHIVE};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Clones share their content, so that a test can "crash" one node and start another on it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Content {
    seq: u64,
    live: BTreeMap<(String, String), Vec<u8>>,
    history: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    last_row: BTreeMap<String, u64>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&self) -> Result<std::sync::MutexGuard<'_, Content>, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        Ok(lock(&self.content))
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let mut all = self.load_all()?;
        all.live.retain(|(kind, _, _)| !kind.starts_with(ARCHIVE));
        Ok(all)
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        let content = self.open()?;
        let live = content
            .live
            .iter()
            .map(|((kind, key), value)| (kind.clone(), key.clone(), value.clone()))
            .collect();
        Ok(Loaded {
            seq: content.seq,
            live,
            last_row: content.last_row.clone(),
        })
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        let mut content = self.open()?;
        follows(content.seq, seq)?;
        let next = rows_follow(&content.last_row, batch)?;
        for op in batch {
            match op {
                Op::Put { kind, key, value } => {
                    content
                        .live
                        .insert((kind.clone(), key.clone()), value.clone());
                }
                Op::Delete { kind, key } => {
                    content.live.remove(&(kind.clone(), key.clone()));
                }
                Op::Row {
                    kind, key, value, ..
                } => {
                    content
                        .history
                        .entry(kind.clone().into_owned())
                        .or_default()
                        .push((key.clone(), value.clone()));
                }
            }
        }
        content
            .last_row
            .extend(next.into_iter().map(|(kind, seq)| (kind.to_owned(), seq)));
        content.seq = seq;
        Ok(())
    }

    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let content = self.open()?;
        if let Some(value) = content.live.get(&(kind.to_owned(), key.to_owned())) {
            return Ok(Some(value.clone()));
        }
        let rows = content.history.get(kind);
        Ok(rows
            .and_then(|rows| rows.iter().rev().find(|(k, _)| k == key))
            .map(|(_, value)| value.clone()))
    }

    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let content = self.open()?;
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        let rows = content
            .history
            .get(kind)
            .map(Vec::as_slice)
            .unwrap_or_default();
        Ok((1u64..)
            .zip(rows)
            .skip(skip)
            .take(limit)
            .map(|(seq, (key, value))| Row {
                seq,
                key: key.clone(),
                value: value.clone(),
            })
            .collect())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.closed = true;
        Ok(())
    }
}
