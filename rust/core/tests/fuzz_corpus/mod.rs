//! The fuzzer's corpus as inputs of tests: each as it is, and changed in a few places; and bytes by chance.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// One place of an input and what happens there.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::Index;
    prop_oneof![
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let len = bytes.len().max(1);
        match change {
            Change::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(at.index(len)) {
                    *byte ^= 1 << bit;
                }
            }
            Change::Cut(at) => bytes.truncate(at.index(len)),
            Change::Insert(at, more) => {
                let at = at.index(len).min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let piece = bytes.get(from.min(to)..from.max(to));
                let piece = piece.map(<[u8]>::to_vec).unwrap_or_default();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

/// Runs a fuzz target on its corpus, on changes of it, and on any bytes.
pub fn each_and_mutated(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty());
    inputs.sort();
    inputs.iter().for_each(|input| run(input));
    let any_bytes = prop::collection::vec(any::<u8>(), 0..400);
    let mutated = (
        prop::sample::select(inputs),
        prop::collection::vec(change(), 1..6),
    )
        .prop_map(|(input, changes)| changed(input, &changes));
    let config = ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&prop_oneof![1 => any_bytes, 4 => mutated], |input| {
            run(&input);
            Ok(())
        })
        .unwrap();
}
