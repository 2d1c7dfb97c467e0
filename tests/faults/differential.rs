//! Thousands of conversations with the stock handlers of lightning-liquidity and with ours, in process, both ways: the same
//! answers, but for the differences in the tables, and each of those must occur.

mod answering;
mod asking;
mod clients;
mod clients_differ;
pub mod draw;
mod drawn;
mod mend;
mod on_the_wire;
mod our_service;
mod services;
mod services_differ;
mod stock_service;
mod table;
mod with_clients;
mod with_services;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use serde_json::json;

use self::clients_differ::{ASKED, HEARD, SAID};
use self::services_differ::TABLE;
use self::table::{Tally, Unknown};
use crate::common::World;

/// The seed of the first conversation, if none is named.
const FIRST: u64 = 20_261_126;
/// Of each of both kinds.
const CONVERSATIONS: u64 = 10_000;
/// So many unknown differences are told, at most.
const SHOWN: usize = 5;

/// The seed of the first conversation; the others follow. `LDKJIT_SEED` names another.
fn seeds() -> std::ops::Range<u64> {
    let seed = std::env::var("LDKJIT_SEED").ok();
    let seed = seed.map_or(FIRST, |seed| seed.parse().unwrap());
    println!("LDKJIT_SEED={seed} repeats this");
    seed..seed + CONVERSATIONS
}

fn key(n: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[n; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

/// What is told of a conversation with something unknown in it, when all that can be left out is left out.
fn smallest<S: Clone>(mut steps: Vec<S>, run: impl Fn(&[S]) -> Result<(), Unknown>) -> String {
    for at in (0..steps.len()).rev() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        if run(&fewer).is_err() {
            steps = fewer;
        }
    }
    run(&steps)
        .err()
        .map(|unknown| unknown.0)
        .unwrap_or_default()
}

/// Holds every conversation of a run, and tells the first few that end in something unknown.
fn run<S: Clone>(
    conversation: impl Fn(u64) -> (String, Vec<S>),
    talk: impl Fn(u64, &[S]) -> (Tally, Result<(), Unknown>),
) -> Tally {
    let mut tally = Tally::default();
    let mut unknown = Vec::new();
    for seed in seeds() {
        let (setting, steps) = conversation(seed);
        let (part, outcome) = talk(seed, &steps);
        tally.add(&part);
        if outcome.is_err() {
            let told = smallest(steps, |steps| talk(seed, steps).1);
            unknown.push(format!("conversation {seed} {setting}\n{told}"));
        }
        if unknown.len() == SHOWN {
            break;
        }
    }
    assert!(
        unknown.is_empty(),
        "nothing explains the last difference of each:\n{}",
        unknown.join("\n")
    );
    tally
}

#[test]
fn every_known_difference_is_documented() {
    let page = include_str!("../../docs/reliability.md");
    let rows = TABLE.iter().map(|d| d.row());
    let of_client = HEARD.iter().chain(SAID).map(|d| d.row());
    let asked = ASKED.iter().map(|d| d.row());
    for row in rows.chain(of_client).chain(asked) {
        assert!(page.lines().any(|line| line == row), "missing:\n{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_and_ours_answer_alike() {
    let Some(world) = World::start().await else {
        return;
    };
    let node = world.node("stock", json!({"listen": []}), None).await;
    let tally = run(
        |seed| {
            let (setting, steps) = drawn::conversation(seed);
            (format!("{setting:?}"), steps)
        },
        |seed, steps| with_services::talk(&node, &drawn::conversation(seed).0, steps),
    );
    tally.print("Clients to a service", TABLE);
    tally.assert_none_is_stale(TABLE);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_and_ours_understand_alike() {
    let Some(world) = World::start().await else {
        return;
    };
    let node = world.node("stock", json!({"listen": []}), None).await;
    let tally = run(
        |seed| {
            let (trusted, turns) = answering::conversation(seed);
            (format!("trusted: {trusted}"), turns)
        },
        |seed, turns| with_clients::talk(&node, answering::conversation(seed).0, turns),
    );
    tally.print("What a client understands", HEARD);
    tally.print("What it says to that", SAID);
    tally.print("What it asks", ASKED);
    tally.assert_none_is_stale(HEARD);
    tally.assert_none_is_stale(SAID);
    tally.assert_none_is_stale(ASKED);
    node.stop().await.unwrap();
}
