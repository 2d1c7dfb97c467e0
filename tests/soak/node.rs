//! One node as a process of its own: JSON lines in, JSON lines out, so that the soak can kill it at any moment.
//!
//! The first line is `{"config", "trouble", "store"}`, trouble being what is to go wrong in this run, and store the command
//! that serves an external store, if the configuration asks for one; every other is
//! `{"id", "method", "params"}`. The end of the input stops the node.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod piped;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ldkjit_core::ids::OpenId;
use ldkjit_node::config::Config;
use ldkjit_node::crash::armed;
use ldkjit_node::error::NodeError;
use ldkjit_node::log::Log;
use ldkjit_node::lsp::Fault as Cheat;
use ldkjit_node::node::Node;
use ldkjit_node::store::{Fault, Store};
use ldkjit_node::{api, log::Record};
use lightning::events::bump_transaction::WalletSource;
use lightning::util::logger::Level;
use serde_json::{json, Value};
use tokio::sync::mpsc;

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more when the soak has ended.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn show(error: &NodeError) -> Value {
    json!({"code": error.code, "message": error.message})
}

fn write_log(record: Record) -> bool {
    let wanted = record.level == "ERROR" || std::env::var_os("SOAK_VERBOSE").is_some();
    if wanted || !record.target.starts_with("lightning::") {
        eprintln!(
            "{} {} {} {}",
            record.at_ms, record.level, record.target, record.message
        );
    }
    true
}

/// What is to go wrong: a moment at which the node dies, a store that fails, a wallet that is no help.
fn make_trouble(config: &mut Config, trouble: &Value) {
    if let Some(point) = trouble["arm"].as_str() {
        armed::arm(point, number(&trouble["nth"]));
    }
    let store = &trouble["store"];
    let after = u64::from(number(&store["nth"]));
    config.store_fault = store["fault"].as_str().map(|fault| {
        let fault = match fault {
            "fails" => Fault::Fails,
            "loses_answer" => Fault::LosesAnswer,
            "slow" => Fault::Slow(Duration::from_millis(number(&store["ms"]).into())),
            other => panic!("no fault {other}"),
        };
        (after, fault)
    });
    config.fault = trouble["wallet"].as_str().map(|fault| match fault {
        "ignores_offer" => Cheat::IgnoresOffer,
        "refuses" => Cheat::ClientRefuses,
        other => panic!("no fault {other}"),
    });
}

fn number(value: &Value) -> u32 {
    value.as_u64().map_or(1, |n| u32::try_from(n).unwrap())
}

async fn call(node: &Arc<Node>, method: &str, params: Value) -> Result<Value, NodeError> {
    match method {
        "arm" => {
            armed::arm(params["point"].as_str().unwrap(), number(&params["nth"]));
            Ok(json!({}))
        }
        "coins" => {
            let coins = node.parts.wallet.list_confirmed_utxos().await.unwrap();
            let shown = coins.iter().map(|coin| coin.outpoint);
            Ok(json!(shown
                .map(|o| json!({"txid": o.txid.to_string(), "vout": o.vout}))
                .collect::<Vec<_>>()))
        }
        // Opens whose coins are set aside, without those whose funding is in a block.
        "locked" => {
            let wallet = &node.parts.wallet;
            let unconfirmed = |open: &u128| {
                let tx = wallet.funding(*open);
                tx.is_none_or(|tx| wallet.confirmed_at(&tx.compute_txid()).is_none())
            };
            let opens = wallet.locked().into_iter().filter(unconfirmed);
            Ok(json!(opens
                .map(|open| OpenId(open).to_string())
                .collect::<Vec<_>>()))
        }
        _ => api::call(node, method, params).await,
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let first = lines.recv().await.expect("a configuration");
    let first: Value = serde_json::from_str(&first).unwrap();
    let mut config = Config::from_json(first["config"].clone()).unwrap();
    make_trouble(&mut config, &first["trouble"]);
    let level = match std::env::var_os("SOAK_VERBOSE") {
        Some(_) => Level::Debug,
        None => Level::Info,
    };
    let log = Arc::new(Log::new(level, Arc::new(write_log)));
    let command: Option<Vec<String>> = serde_json::from_value(first["store"].clone()).unwrap();
    let store = command.map(|c| Box::new(piped::PipedStore::start(&c)) as Box<dyn Store>);
    let node = match Node::start_on(config, store, log).await {
        Ok(node) => node,
        Err(error) => {
            say(&json!({"failed": show(&error)}));
            return;
        }
    };
    say(&json!({"started": node.status()}));
    let mut stopped = node.parts.journal.watch_stopped();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            // A store that fails stops the node: whoever runs it is told why.
            _ = stopped.wait_for(Option::is_some) => break,
        };
        let Some(line) = line else { break };
        let request: Value = serde_json::from_str(&line).unwrap();
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let method = request["method"].as_str().unwrap();
            let answer = match call(&node, method, request["params"].clone()).await {
                Ok(result) => json!({"id": request["id"], "result": result}),
                Err(error) => json!({"id": request["id"], "error": show(&error)}),
            };
            say(&answer);
        });
    }
    let why = node.parts.journal.stopped().map(NodeError::from);
    let ended = node.stop().await.err();
    say(&json!({"stopped": why.or(ended).as_ref().map(show)}));
}
