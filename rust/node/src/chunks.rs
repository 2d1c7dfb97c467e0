//! The channel manager as the store has it: cut by its content, so that a commit writes what changed and not all of it.
//!
//! LDK gives its encoding as a whole, in which a channel that grows by a byte moves all that follow. Cuts that depend on the
//! bytes beside them move along, and what lies between two of them stays as it was.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use fastcdc::v2020::FastCDC;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
};

use crate::error::StoreError;
use crate::journal::ldk_kind;
use crate::store::Op;

/// A chunk, by its number in hexadecimal digits.
const CHUNK: &str = "manager/chunk";
/// The numbers of all chunks in order, four bytes each.
const INDEX: &str = "manager/index";
const KEY: &str = "manager";
/// Bytes of a chunk. Small ones make a long list, which is written each time, large ones more of what did not change.
const MIN: usize = 2 * 1024;
const USUAL: usize = 8 * 1024;
const MAX: usize = 32 * 1024;

/// What the store has of the manager.
#[derive(Default)]
pub struct Chunks {
    encoded: Vec<u8>,
    parts: Vec<Part>,
    /// An older release wrote it as a whole.
    whole: bool,
}

struct Part {
    id: u32,
    bytes: Range<usize>,
    hash: u64,
}

/// A piece of a new encoding.
struct Piece {
    /// The number under which the store has it already.
    stored: Option<u32>,
    bytes: Range<usize>,
    hash: u64,
}

impl Chunks {
    /// Takes the manager out of what a store held, and puts it back in one piece, under LDK's name for it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a chunk is missing, or another manager is there in one piece.
    pub fn take(live: &mut Vec<(String, String, Vec<u8>)>) -> Result<Self, StoreError> {
        let (kind, key) = whole();
        let of_old = |(k, y, _): &(String, String, Vec<u8>)| *k == kind && *y == key;
        let mut taken = Self {
            whole: live.iter().any(of_old),
            ..Self::default()
        };
        let (mut chunks, mut index) = (HashMap::new(), None);
        for (kind, key, value) in std::mem::take(live) {
            match kind.as_str() {
                CHUNK => drop(chunks.insert(key, value)),
                INDEX => index = Some(value),
                _ => live.push((kind, key, value)),
            }
        }
        let Some(index) = index else {
            return Ok(taken);
        };
        if taken.whole {
            return Err(StoreError::Corrupt("there are two managers".into()));
        }
        for id in index.chunks(4) {
            let id = id.try_into().map(u32::from_be_bytes).ok();
            let chunk = id.and_then(|id| Some((id, chunks.get(&name(id))?)));
            let chunk = chunk.filter(|(_, chunk)| !chunk.is_empty());
            let (id, chunk) = chunk
                .ok_or_else(|| StoreError::Corrupt("a part of the manager is missing".into()))?;
            taken.append(id, chunk);
        }
        live.push((kind, key, taken.encoded.clone()));
        Ok(taken)
    }

    fn append(&mut self, id: u32, chunk: &[u8]) {
        let start = self.encoded.len();
        self.encoded.extend_from_slice(chunk);
        self.parts.push(Part {
            id,
            bytes: start..self.encoded.len(),
            hash: hash(chunk),
        });
    }

    /// What makes the store have this encoding; and a buffer that is free again.
    pub fn change_to(&mut self, encoded: Vec<u8>) -> (Vec<Op>, Vec<u8>) {
        let pieces = self.cut(&encoded);
        let kept: BTreeSet<u32> = pieces.iter().filter_map(|piece| piece.stored).collect();
        // A number that is free is used again: there are never more of them than there were chunks at once.
        let ids: BTreeSet<u32> = self.parts.iter().map(|part| part.id).collect();
        let mut free: Vec<u32> = ids.difference(&kept).copied().collect();
        let mut next = (0..=u32::MAX).filter(|id| !ids.contains(id));
        let (mut ops, mut index, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for Piece {
            stored,
            bytes,
            hash,
        } in pieces
        {
            let id = stored.unwrap_or_else(|| {
                let id = free.pop().or_else(|| next.next()).unwrap_or(u32::MAX);
                ops.push(Op::Put {
                    kind: CHUNK.into(),
                    key: name(id),
                    value: encoded.get(bytes.clone()).unwrap_or_default().to_vec(),
                });
                id
            });
            index.extend(id.to_be_bytes());
            parts.push(Part { id, bytes, hash });
        }
        ops.extend(free.into_iter().map(|id| Op::Delete {
            kind: CHUNK.into(),
            key: name(id),
        }));
        ops.push(Op::Put {
            kind: INDEX.into(),
            key: KEY.into(),
            value: index,
        });
        if std::mem::take(&mut self.whole) {
            let (kind, key) = whole();
            ops.push(Op::Delete { kind, key });
        }
        self.parts = parts;
        (ops, std::mem::replace(&mut self.encoded, encoded))
    }

    /// The pieces of an encoding, in order.
    fn cut(&self, encoded: &[u8]) -> Vec<Piece> {
        let cutter = FastCDC::new(encoded, MIN, USUAL, MAX);
        let mut known: Option<HashMap<u64, usize>> = None;
        let (mut pieces, mut at, mut follows) = (Vec::new(), 0, 0_usize);
        while let Some(rest) = encoded.get(at..).filter(|rest| !rest.is_empty()) {
            // Most of it is as it was: no cut is looked for where the next chunk follows. The last one ends where the
            // encoding ended, which is no cut.
            let next = self.parts.get(follows).filter(|part| {
                let ends = part.bytes.len() == rest.len() || part.bytes.end < self.encoded.len();
                ends && rest.starts_with(self.of(part))
            });
            let (stored, end, hash) = if let Some(part) = next {
                let end = at.saturating_add(part.bytes.len());
                (Some(part.id), end, part.hash)
            } else {
                let (_, end) = cutter.cut(at, rest.len());
                let piece = encoded.get(at..end).unwrap_or_default();
                let hash = hash(piece);
                let place = known.get_or_insert_with(|| self.by_hash()).get(&hash);
                let part = place.and_then(|place| Some((*place, self.parts.get(*place)?)));
                let part = part.filter(|(_, part)| self.of(part) == piece);
                follows = part.map_or(follows, |(place, _)| place);
                (part.map(|(_, part)| part.id), end, hash)
            };
            if stored.is_some() {
                follows = follows.saturating_add(1);
            }
            pieces.push(Piece {
                stored,
                bytes: at..end,
                hash,
            });
            at = end;
        }
        pieces
    }

    fn of(&self, part: &Part) -> &[u8] {
        self.encoded.get(part.bytes.clone()).unwrap_or_default()
    }

    /// The place of each chunk; two may share a hash, of which one is found.
    fn by_hash(&self) -> HashMap<u64, usize> {
        let parts = self.parts.iter().enumerate();
        parts.map(|(place, part)| (part.hash, place)).collect()
    }
}

/// Kind and key of a manager in one piece.
fn whole() -> (String, String) {
    let kind = ldk_kind(
        CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
        CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
    );
    (kind, CHANNEL_MANAGER_PERSISTENCE_KEY.into())
}

fn name(id: u32) -> String {
    format!("{id:08x}")
}

fn hash(chunk: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    chunk.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A store, and what is known of the manager in it.
    #[derive(Default)]
    struct Kept {
        store: BTreeMap<(String, String), Vec<u8>>,
        chunks: Chunks,
    }

    impl Kept {
        /// The bytes that were written, and how often.
        fn write(&mut self, encoded: &[u8]) -> (usize, usize) {
            let (ops, _) = self.chunks.change_to(encoded.to_vec());
            let (mut bytes, count) = (0, ops.len());
            for op in ops {
                match op {
                    Op::Put { kind, key, value } => {
                        bytes += value.len();
                        self.store.insert((kind, key), value);
                    }
                    Op::Delete { kind, key } => drop(self.store.remove(&(kind, key))),
                    Op::Row { .. } => unreachable!("the manager has no history"),
                }
            }
            (bytes, count)
        }

        /// As at a start.
        fn load(&mut self) -> Option<Vec<u8>> {
            let live = self.store.iter();
            let mut live = live
                .map(|((kind, key), value)| (kind.clone(), key.clone(), value.clone()))
                .collect();
            self.chunks = Chunks::take(&mut live).unwrap();
            assert!(live.len() <= 1, "{live:?}");
            live.pop().map(|(kind, key, value)| {
                assert_eq!((kind, key), whole());
                value
            })
        }

        /// Nothing is kept that is not used, and numbers are not used up.
        fn is_tidy(&self) -> bool {
            let index = &self.store[&(INDEX.to_owned(), KEY.to_owned())];
            let used: BTreeSet<_> = index.chunks(4).collect();
            self.store.len() == used.len() + 1
        }
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let words = (0..len as u64).map(|n| hash(&[seed.to_be_bytes(), n.to_be_bytes()].concat()));
        words.map(|word| word as u8).collect()
    }

    /// Some place, what goes there, and what comes instead.
    fn edits() -> impl Strategy<Value = Vec<(usize, usize, usize, u64)>> {
        vec(
            (
                0..300_000_usize,
                0..5_000_usize,
                0..5_000_usize,
                any::<u64>(),
            ),
            1..20,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_what_is_read(
            first in 0..300_000_usize, edits in edits(), restarts in any::<u32>(),
        ) {
            let (mut kept, mut encoded) = (Kept::default(), noise(1, first));
            kept.write(&encoded);
            for (n, (at, gone, new, seed)) in edits.into_iter().enumerate() {
                let at = at.min(encoded.len());
                let gone = at..(at + gone).min(encoded.len());
                // What is there already comes twice sometimes.
                let new = if seed % 4 == 0 { encoded[gone.clone()].repeat(2) } else { noise(seed, new) };
                encoded.splice(gone, new);
                kept.write(&encoded);
                prop_assert!(kept.is_tidy());
                let most = encoded.len() / MIN + 300_000 / MIN + 20;
                prop_assert!(kept.chunks.parts.iter().all(|part| (part.id as usize) < most));
                let [parts @ .., last] = &kept.chunks.parts[..] else {
                    prop_assert!(encoded.is_empty());
                    continue;
                };
                prop_assert!(parts.iter().all(|part| (MIN..=MAX).contains(&part.bytes.len())));
                prop_assert!((1..=MAX).contains(&last.bytes.len()));
                if restarts >> (n % 32) & 1 == 1 {
                    prop_assert_eq!(kept.load().unwrap(), &encoded[..]);
                }
            }
            prop_assert_eq!(kept.load().unwrap(), encoded);
        }
    }

    #[test]
    fn a_small_change_writes_little_of_a_large_manager() {
        let (mut kept, mut encoded) = (Kept::default(), noise(1, 4_000_000));
        kept.write(&encoded);
        for n in 0..20_usize {
            // One channel grows, another one changes, and something at the end.
            encoded.splice(n * 100_000..n * 100_000, noise(n as u64, 40));
            encoded[3_000_000 + n] ^= 1;
            let end = encoded.len() - 1;
            encoded[end] ^= 1;
            let (bytes, count) = kept.write(&encoded);
            assert!(bytes < 150_000, "{bytes} bytes");
            assert!(count < 12, "{count} changes");
        }
        assert_eq!(kept.load().unwrap(), encoded);
    }

    #[test]
    fn a_manager_in_one_piece_is_taken_over() {
        let mut kept = Kept::default();
        let old = noise(1, 50_000);
        kept.store.insert(whole(), old.clone());
        assert_eq!(kept.load().unwrap(), old);
        kept.write(&old);
        assert!(!kept.store.contains_key(&whole()));
        assert_eq!(kept.load().unwrap(), old);

        kept.store.insert(whole(), old);
        let live = kept.store.into_iter();
        let mut live = live
            .map(|((kind, key), value)| (kind, key, value))
            .collect();
        assert!(matches!(
            Chunks::take(&mut live),
            Err(StoreError::Corrupt(_))
        ));
    }

    #[test]
    fn a_store_without_a_manager_has_none_and_one_without_a_chunk_is_refused() {
        let mut kept = Kept::default();
        assert_eq!(kept.load(), None);
        kept.write(&noise(1, 100_000));
        let chunk = (CHUNK.to_owned(), name(3));
        for value in [Some(Vec::new()), None] {
            match value {
                Some(empty) => drop(kept.store.insert(chunk.clone(), empty)),
                None => drop(kept.store.remove(&chunk)),
            }
            let live = kept.store.clone().into_iter();
            let mut live = live
                .map(|((kind, key), value)| (kind, key, value))
                .collect();
            let taken = Chunks::take(&mut live);
            assert!(matches!(taken, Err(StoreError::Corrupt(_))));
        }
    }
}
