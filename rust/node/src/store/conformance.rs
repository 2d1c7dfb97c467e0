//! What every store must show, run against each.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::testing::TempDir;
use bitcoin::Network;

fn put(kind: &str, key: &str, value: &[u8]) -> Op {
    Op::Put {
        kind: kind.into(),
        key: key.into(),
        value: value.into(),
    }
}
fn del(kind: &str, key: &str) -> Op {
    Op::Delete {
        kind: kind.into(),
        key: key.into(),
    }
}
fn row(kind: &'static str, seq: u64, key: &str, value: &[u8]) -> Op {
    Op::Row {
        kind: kind.into(),
        seq,
        key: key.into(),
        value: value.into(),
    }
}
fn live(store: &mut dyn Store) -> Vec<(String, String, Vec<u8>)> {
    let mut live = store.load().unwrap().live;
    live.sort();
    live
}

/// `reopen` gives a new handle on the same content, as after a crash.
fn conforms(reopen: &mut dyn FnMut(Option<Box<dyn Store>>) -> Box<dyn Store>) {
    let mut s = reopen(None);
    assert_eq!(s.load().unwrap(), Loaded::default());

    // A batch is applied in order; later operations on a key win.
    s.commit(
        1,
        &[
            put("a", "x", b"1"),
            put("a", "x", b"2"),
            put("a", "y", b""),
            del("a", "nothing"),
        ],
    )
    .unwrap();
    s.commit(
        2,
        &[
            put("b", "x", b"3"),
            del("a", "y"),
            put("archive/p", "z", b"old"),
        ],
    )
    .unwrap();
    assert_eq!(s.read("a", "x").unwrap(), Some(b"2".to_vec()));
    assert_eq!(s.read("a", "y").unwrap(), None);
    assert_eq!(s.read("archive/p", "z").unwrap(), Some(b"old".to_vec()));

    // Deleted, then put again in the same batch.
    s.commit(3, &[del("b", "x"), put("b", "x", b"4")]).unwrap();

    // Gaps and repeats are refused and change nothing.
    for wrong in [0, 3, 5] {
        let refused = s.commit(wrong, &[put("a", "x", b"wrong")]);
        assert_eq!(
            refused,
            Err(StoreError::Sequence {
                expected: 4,
                got: wrong
            })
        );
    }
    assert!(s
        .commit(4, &[put("a", "x", b"wrong"), row("event", 2, "", b"")])
        .is_err());
    assert_eq!(s.read("a", "x").unwrap(), Some(b"2".to_vec()));

    // History.
    s.commit(
        4,
        &[
            row("event", 1, "k", b"e1"),
            row("payment", 1, "p", b"p1"),
            row("event", 2, "k", b"e2"),
        ],
    )
    .unwrap();
    s.commit(
        5,
        &[row("event", 3, "l", b"e3"), put("event", "live", b"now")],
    )
    .unwrap();
    let seqs = |rows: Vec<Row>| {
        rows.into_iter()
            .map(|r| (r.seq, r.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        seqs(s.rows("event", 1, 10).unwrap()),
        vec![(2, b"e2".to_vec()), (3, b"e3".to_vec())]
    );
    assert_eq!(
        seqs(s.rows("event", 0, 1).unwrap()),
        vec![(1, b"e1".to_vec())]
    );
    assert_eq!(s.rows("event", 3, 10).unwrap(), vec![]);
    assert_eq!(s.rows("event", u64::MAX, 10).unwrap(), vec![]);
    assert_eq!(s.rows("none", 0, 10).unwrap(), vec![]);
    assert_eq!(s.read("event", "k").unwrap(), Some(b"e2".to_vec()));
    assert_eq!(s.read("event", "live").unwrap(), Some(b"now".to_vec()));

    // After a crash: all of it, and the archive stays away.
    let mut s = reopen(Some(s));
    let loaded = s.load().unwrap();
    assert_eq!(loaded.seq, 5);
    assert_eq!(
        loaded.last_row,
        [("event".to_owned(), 3), ("payment".to_owned(), 1)].into()
    );
    let expected = [("a", "x", "2"), ("b", "x", "4"), ("event", "live", "now")];
    let expected: Vec<_> = expected
        .iter()
        .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), c.as_bytes().to_vec()))
        .collect();
    assert_eq!(live(&mut *s), expected);
    let all = s.load_all().unwrap();
    let archived = ("archive/p".to_owned(), "z".to_owned(), b"old".to_vec());
    assert!(all.live.len() == 4 && all.live.contains(&archived));
    assert_eq!(s.read("archive/p", "z").unwrap(), Some(b"old".to_vec()));

    // Large values, odd keys, an empty batch.
    let big = vec![0xa5; 3_000_000];
    s.commit(6, &[put("a'\"%_", "\u{1f980}/\n", &big)]).unwrap();
    s.commit(7, &[]).unwrap();
    assert_eq!(s.read("a'\"%_", "\u{1f980}/\n").unwrap(), Some(big));

    s.close().unwrap();
    s.close().unwrap();
    assert_eq!(s.commit(8, &[]), Err(StoreError::Closed));
    assert_eq!(s.read("a", "x"), Err(StoreError::Closed));
    let mut s = reopen(Some(s));
    assert_eq!(s.load().unwrap().seq, 7);
}

#[test]
fn memory() {
    let shared = MemoryStore::new();
    conforms(&mut |old| {
        drop(old);
        Box::new(shared.clone())
    });
}

#[test]
fn sqlite() {
    let dir = TempDir::new();
    conforms(&mut |old| {
        drop(old);
        Box::new(SqliteStore::open(&dir.path().join("s.sqlite"), Network::Regtest).unwrap())
    });
}

#[test]
fn faulty_without_a_fault() {
    let shared = MemoryStore::new();
    conforms(&mut |old| {
        drop(old);
        Box::new(FaultyStore::new(shared.clone()))
    });
}

#[test]
fn faults_happen_when_asked() {
    for (fault, kept) in [(Fault::Fails, 0), (Fault::LosesAnswer, 2), (Fault::Torn, 1)] {
        let shared = MemoryStore::new();
        let mut s = FaultyStore::new(shared.clone()).at(2, fault);
        s.commit(1, &[]).unwrap();
        assert!(s
            .commit(2, &[put("a", "1", b""), put("a", "2", b"")])
            .is_err());
        assert!(s.commit(3, &[]).is_err());
        assert_eq!(shared.clone().load().unwrap().live.len(), kept);
    }
}
