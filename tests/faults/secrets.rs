//! What a log may never show, whatever its level: the words of a node, and the keys that they make.

use std::sync::{Arc, Mutex};

use bip39::Mnemonic;
use bitcoin::hex::DisplayHex;
use ldkjit_node::api::call;
use ldkjit_node::keys::Seed;
use ldkjit_node::log::{Log, Record};
use ldkjit_node::payments::PaymentStatus;
use lightning::util::logger::Level;
use serde_json::{json, Value};

use crate::common::{buys_from, event, finish, jit_invoice, on_disk, pay, room, until, World};

/// Eight words and more that are rare in prose, so that no two of them meet by chance, and others by which nodes of other runs differ.
fn words() -> String {
    let mut entropy = [0x7f; 16];
    entropy[12..].copy_from_slice(&std::process::id().to_be_bytes());
    Mnemonic::from_entropy(&entropy).unwrap().to_string()
}

/// What gives a node away: two of its words as they follow each other, or the beginning of a secret as bytes are written.
struct Secrets {
    pairs: Vec<[String; 2]>,
    bytes: Vec<String>,
}

impl Secrets {
    fn of(words: &str) -> Self {
        let mnemonic = Mnemonic::parse(words).unwrap();
        let secrets = [
            mnemonic.to_entropy(),
            mnemonic.to_seed("").to_vec(),
            Seed::parse(words).unwrap().ldk_seed().unwrap().to_vec(),
        ];
        let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        let pairs = words.windows(2).map(|w| [w[0].clone(), w[1].clone()]);
        let begins = secrets.iter().map(|secret| &secret[..8]);
        let bytes = begins.flat_map(|begin| {
            let list = format!("{begin:?}");
            [
                begin.to_lower_hex_string(),
                list.trim_matches(['[', ']']).to_owned(),
            ]
        });
        Self {
            pairs: pairs.collect(),
            bytes: bytes.collect(),
        }
    }

    fn are_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let words: Vec<_> = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty())
            .collect();
        self.pairs
            .iter()
            .any(|pair| words.windows(2).any(|two| two == pair))
            || self.bytes.iter().any(|bytes| text.contains(bytes))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_word_of_a_node_is_logged() {
    let given = words();
    let secrets = Secrets::of(&given);
    // It would be seen.
    for told in [
        "the words: Legal, winner",
        "{\"thank\":\"year\"}",
        "x7f7f7f7f7f7f7f7fx",
    ] {
        assert!(secrets.are_in(told), "{told}");
    }
    let Some(world) = World::start().await else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::<Record>::new()));
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    // Given by its settings, and found in its folder.
    let mut buyer = on_disk(buys_from(&lsp, json!({})));
    for words in [json!(given), Value::Null] {
        buyer["mnemonic"] = words;
        let into = seen.clone();
        let log = Log::new(
            Level::Gossip,
            Arc::new(move |record| {
                into.lock().unwrap().push(record);
                true
            }),
        );
        let config = world.settings("wallet", buyer.clone(), |_| ());
        let wallet = ldkjit_node::node::Node::start(config, Arc::new(log));
        let wallet = wallet.await.unwrap();
        world.in_step(&[&wallet]).await;
        let bought = jit_invoice(&wallet, Some(100_000_000)).await;
        let paid = pay(&payer, &bought.bolt11).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        event(&wallet, "payment_received").await;
        until("no HTLC is left", || room(&wallet, &lsp).is_some()).await;
        let to = world
            .running
            .folder
            .join(format!("backup {}", buyer["mnemonic"].is_null()));
        call(&wallet, "backup", json!({ "path": to }))
            .await
            .unwrap();
        finish([&wallet]).await;
    }
    finish([&payer, &lsp]).await;

    let seen = seen.lock().unwrap();
    for level in ["TRACE", "DEBUG", "INFO"] {
        assert!(seen.iter().any(|record| record.level == level), "{level}");
    }
    for record in seen.iter() {
        assert!(!secrets.are_in(&record.message), "{record:?}");
    }
}
