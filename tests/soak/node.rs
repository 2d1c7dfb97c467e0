//! One node as a process of its own: JSON lines in, JSON lines out, so that the soak can kill it at any moment.
//!
//! The first line is the configuration; every other is `{"id", "method", "params"}`. The end of the input stops the node.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write;
use std::sync::Arc;

use ldkjit_core::ids::OpenId;
use ldkjit_node::config::Config;
use ldkjit_node::crash::armed;
use ldkjit_node::error::NodeError;
use ldkjit_node::log::Log;
use ldkjit_node::node::Node;
use ldkjit_node::{api, log::Record};
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

async fn call(node: &Arc<Node>, method: &str, params: Value) -> Result<Value, NodeError> {
    match method {
        "arm" => {
            let nth = params["nth"].as_u64().unwrap();
            armed::arm(
                params["point"].as_str().unwrap(),
                u32::try_from(nth).unwrap(),
            );
            Ok(json!({}))
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
    let config = Config::from_json(serde_json::from_str(&first).unwrap()).unwrap();
    let level = match std::env::var_os("SOAK_VERBOSE") {
        Some(_) => Level::Debug,
        None => Level::Info,
    };
    let log = Arc::new(Log::new(level, Arc::new(write_log)));
    let node = match Node::start(config, log).await {
        Ok(node) => node,
        Err(error) => {
            say(&json!({"failed": show(&error)}));
            return;
        }
    };
    say(&json!({"started": node.status()}));
    while let Some(line) = lines.recv().await {
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
    let stopped = node.stop().await;
    say(&json!({"stopped": stopped.err().map(|error| show(&error))}));
}
