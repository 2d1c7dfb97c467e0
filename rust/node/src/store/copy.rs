//! Moves a node from one store to another, so that at no moment both can be started.

use super::{Loaded, Op, Store, StoreError};
use crate::error::NodeError;
use crate::identity::Identity;
use crate::log::now_ms;
use crate::recovery::{Marker, Origin};
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes of values in one batch, or one value.
const BATCH: usize = 4_000_000;
/// Rows read at a time.
const PAGE: usize = 1_000;

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Whose it is.
    pub node_id: String,
    /// Its network.
    pub network: String,
    /// Values that are live or archived.
    pub values: usize,
    /// Rows of its histories.
    pub rows: u64,
}

/// Copies all of `from` into the new store `to`; afterwards only `to` can be started.
///
/// Until the last commit `to` says that it is half a store, and before that commit `from` says that it has moved. Ended in
/// between, neither starts, and the same call finishes.
///
/// # Errors
/// `config` if `from` is no node's, or was left already, or `to` is not new; what the stores answer.
pub fn copy(from: &mut dyn Store, to: &mut dyn Store) -> Result<Moved, NodeError> {
    let source = from.load_all()?;
    let identity = Identity::find(&source.live)?.ok_or_else(|| {
        NodeError::config("the first store is no node's, or was not started by this release")
    })?;
    if identity.unfinished.is_some() {
        return Err(NodeError::config(
            "the first store is itself the end of a copy that was not finished",
        ));
    }
    let moved = moved_by(&source)?;
    let target = to.load_all()?;
    let finish = match (&moved, Identity::find(&target.live)?) {
        // It ended between the mark and the last commit: what was copied is whole.
        (
            Some(name),
            Some(Identity {
                unfinished: Some(half),
                ..
            }),
        ) if *name == half => true,
        (Some(_), _) => {
            return Err(NodeError::config(
                "the node of the first store has moved to another one",
            ));
        }
        (None, _) if target == Loaded::default() => false,
        (None, _) => {
            return Err(NodeError::config(
                "the second store is not new: nothing is written over it",
            ))
        }
    };
    let mut writer = Writer {
        to,
        seq: target.seq,
        batch: Vec::new(),
        bytes: 0,
    };
    if !finish {
        let name = format!("{}-{}", now_ms(), std::process::id());
        let half = Identity {
            unfinished: Some(name.clone()),
            ..identity.clone()
        };
        writer.push(put(half.put()))?;
        write_all(from, &source, &mut writer, &identity)?;
        writer.flush()?;
        compare(from, &source, writer.to)?;
        let (kind, key, _) = Marker::new(Origin::Moved, now_ms()).put();
        let value = serde_json::to_vec(&Moving {
            marker: Marker::new(Origin::Moved, now_ms()),
            copy: name,
        })
        .map_err(|e| NodeError::internal(e.to_string()))?;
        let next = source.seq.saturating_add(1);
        from.commit(next, &[put((kind, key, value))])?;
    }
    writer.push(put(identity.put()))?;
    writer.flush()?;
    Ok(Moved {
        node_id: identity.node_id,
        network: identity.network.to_string(),
        values: source.live.len(),
        rows: source.last_row.values().sum(),
    })
}

/// The mark of a store that was left, with the name of the copy.
#[derive(Serialize, serde::Deserialize)]
struct Moving {
    #[serde(flatten)]
    marker: Marker,
    copy: String,
}

/// The name of the copy by which a store was left.
fn moved_by(source: &Loaded) -> Result<Option<String>, NodeError> {
    let marker = Marker::find(&source.live)?;
    if marker.map(|marker| marker.from) != Some(Origin::Moved) {
        return Ok(None);
    }
    let (kind, key, _) = Marker::new(Origin::Moved, 0).put();
    let value = source.live.iter().find(|(k, y, _)| *k == kind && *y == key);
    let moving: Option<Moving> = value.and_then(|(_, _, v)| serde_json::from_slice(v).ok());
    // A node that recovers here has written its own mark over the copy's.
    moving.map(|moving| Some(moving.copy)).ok_or_else(|| {
        NodeError::config(
            "the node of the first store has moved to another one, and recovers here what it held",
        )
    })
}

fn put((kind, key, value): (String, String, Vec<u8>)) -> Op {
    Op::Put { kind, key, value }
}

struct Writer<'a> {
    to: &'a mut dyn Store,
    seq: u64,
    batch: Vec<Op>,
    bytes: usize,
}

impl Writer<'_> {
    fn push(&mut self, op: Op) -> Result<(), StoreError> {
        if let Op::Put { value, .. } | Op::Row { value, .. } = &op {
            self.bytes = self.bytes.saturating_add(value.len()).saturating_add(100);
        }
        self.batch.push(op);
        if self.bytes >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.seq = self.seq.saturating_add(1);
        self.to.commit(self.seq, &self.batch)?;
        self.batch.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn write_all(
    from: &mut dyn Store,
    source: &Loaded,
    writer: &mut Writer<'_>,
    identity: &Identity,
) -> Result<(), StoreError> {
    let (kind, key, _) = identity.put();
    for (k, y, value) in &source.live {
        if *k != kind || *y != key {
            writer.push(put((k.clone(), y.clone(), value.clone())))?;
        }
    }
    for (kind, last) in &source.last_row {
        let mut after = 0;
        while after < *last {
            let page = from.rows(kind, after, PAGE)?;
            let Some(end) = page.last().map(|row| row.seq) else {
                return Err(StoreError::Corrupt(format!(
                    "row {} of {kind} is missing",
                    after.saturating_add(1)
                )));
            };
            for row in page {
                writer.push(Op::Row {
                    kind: kind.clone().into(),
                    seq: row.seq,
                    key: row.key,
                    value: row.value,
                })?;
            }
            after = end;
        }
    }
    Ok(())
}

/// Checks that `to` has all that `from` has, but for what it says of itself.
fn compare(from: &mut dyn Store, source: &Loaded, to: &mut dyn Store) -> Result<(), StoreError> {
    let differs = |what: &str| StoreError::Failed(format!("the second store lost {what}"));
    let target = to.load_all()?;
    let mine = |loaded: &Loaded| -> BTreeMap<(String, String), Vec<u8>> {
        let each = loaded.live.iter().cloned();
        each.map(|(kind, key, value)| ((kind, key), value))
            .collect()
    };
    let (mut had, mut has) = (mine(source), mine(&target));
    let (kind, key, _) = Identity::new(bitcoin::Network::Regtest, String::new()).put();
    let own = (kind, key);
    had.remove(&own);
    has.remove(&own);
    if had != has {
        return Err(differs("values"));
    }
    if source.last_row != target.last_row {
        return Err(differs("rows"));
    }
    for (kind, last) in &source.last_row {
        let mut after = 0;
        while after < *last {
            let page = from.rows(kind, after, PAGE)?;
            if page != to.rows(kind, after, PAGE)? {
                return Err(differs("a row"));
            }
            after = page.last().map_or(*last, |row| row.seq);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{Fault, FaultyStore, MemoryStore};
    use bitcoin::Network;

    fn node() -> MemoryStore {
        let mut store = MemoryStore::new();
        let text = |text: &str| text.to_owned();
        let identity = Identity::new(Network::Regtest, text("02"));
        let mut batch = vec![
            put(identity.put()),
            put((text("archive/payment"), text("p"), vec![1])),
            put((text("order"), text("1"), vec![2; 5_000_000])),
        ];
        for seq in 1..=2_500 {
            batch.push(Op::Row {
                kind: "ledger".into(),
                seq,
                key: seq.to_string(),
                value: vec![3],
            });
        }
        store.commit(1, &batch).unwrap();
        store
    }

    fn starts(store: &MemoryStore) -> bool {
        let live = store.clone().load().unwrap().live;
        let ours = Identity::new(Network::Regtest, "02".into());
        ours.check(&live) == Ok(None) && Marker::find(&live) == Ok(None)
    }

    fn all(store: &MemoryStore) -> (Loaded, Vec<crate::store::Row>) {
        let mut store = store.clone();
        let mut all = store.load_all().unwrap();
        (all.seq, all.live) = (0, {
            all.live.sort();
            all.live
        });
        (all, store.rows("ledger", 0, usize::MAX).unwrap())
    }

    #[test]
    fn all_of_it_moves_and_only_the_new_one_starts() {
        let (from, to) = (node(), MemoryStore::new());
        let before = all(&from);
        let moved = copy(&mut from.clone(), &mut to.clone()).unwrap();
        assert_eq!((moved.values, moved.rows), (3, 2_500));
        assert_eq!(all(&to), before);
        assert!(starts(&to) && !starts(&from));
        // Neither over it nor out of the old one again.
        assert!(copy(&mut from.clone(), &mut to.clone()).is_err());
        assert!(copy(&mut from.clone(), &mut MemoryStore::new()).is_err());
        assert!(copy(&mut node(), &mut to.clone()).is_err());
        assert!(copy(&mut MemoryStore::new(), &mut MemoryStore::new()).is_err());
        assert_eq!(all(&to), before);
        // And back, into a third.
        let third = MemoryStore::new();
        copy(&mut to.clone(), &mut third.clone()).unwrap();
        assert_eq!(all(&third), before);
    }

    /// Whatever fails, and however: never do both start, and none is lost.
    #[test]
    fn a_copy_that_fails_leaves_one_at_most() {
        for fault in [Fault::Fails, Fault::LosesAnswer] {
            for nth in 1..12 {
                for source_fails in [false, true] {
                    let (from, to) = (node(), MemoryStore::new());
                    let before = all(&from);
                    let (mut out, mut into) =
                        (FaultyStore::new(from.clone()), FaultyStore::new(to.clone()));
                    if source_fails {
                        out = out.at(nth, fault);
                    } else {
                        into = into.at(nth, fault);
                    }
                    let ended = copy(&mut out, &mut into);
                    assert!(!(starts(&from) && starts(&to)));
                    if ended.is_ok() {
                        assert!(starts(&to));
                        continue;
                    }
                    if starts(&to) || starts(&from) {
                        continue;
                    }
                    // Between the two: the same call finishes.
                    copy(&mut from.clone(), &mut to.clone()).unwrap();
                    assert!(starts(&to) && !starts(&from));
                    assert_eq!(all(&to), before);
                }
            }
        }
    }
}
