//! An ldk-node that is driven from outside: requests as JSON on stdin, one a line; answers and events on stdout.
//!
//! A process rather than a Python extension, because a test must be able to kill it at any instant and start it again on
//! the same folder, because what it costs is then its own (a benchmark compares processes, each with its CPU time), and
//! because ldk-node's calls block, and would otherwise do so inside of Python.
//!
//! Whoever holds stdin holds the node: at its end the node stops, so that it never outlives the Python that started it.

mod answers;
mod calls;

use std::io::{self, BufRead, Write};
use std::process::exit;
use std::sync::{Arc, OnceLock};
use std::thread;

use ldk_node::{Node, NodeError};
use serde::Deserialize;
use serde_json::{json, Value};

use calls::{Call, Failure, Start};

/// A line on stdin.
#[derive(Deserialize)]
struct Request {
    id: u64,
    method: String,
    #[serde(default)]
    params: Value,
}

fn main() {
    let node = Arc::new(OnceLock::new());
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                say(&json!({"id": null, "error": Failure::bad_request(error)}));
                continue;
            }
        };
        let node = node.clone();
        // A call may wait for an LSP for seconds; others must not wait for that.
        thread::spawn(move || answer(&node, request));
    }
    if let Some(node) = node.get() {
        let _ = node.stop();
    }
}

fn answer(node: &OnceLock<Arc<Node>>, request: Request) {
    let Request { id, method, params } = request;
    let stops = method == "stop";
    let call = serde_json::from_value(json!({"method": method, "params": params}));
    let done = match call.map_err(Failure::bad_request) {
        Ok(Call::Start(config)) => start(node, *config),
        Ok(call) => node
            .get()
            .ok_or_else(Failure::not_started)
            .and_then(|node| call.run(node)),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(value) => {
            say(&json!({"id": id, "result": value}));
            if stops {
                exit(0);
            }
        }
        Err(failure) => say(&json!({"id": id, "error": failure})),
    }
}

fn start(node: &OnceLock<Arc<Node>>, config: Start) -> Result<Value, Failure> {
    let made = Arc::new(config.build()?);
    if node.set(made.clone()).is_err() {
        return Err(NodeError::AlreadyRunning.into());
    }
    made.start()?;
    let id = made.node_id().to_string();
    thread::spawn(move || loop {
        let event = made.wait_next_event();
        say(&json!({"event": answers::event(&event)}));
        // Said once more after a crash in between.
        if made.event_handled().is_err() {
            break;
        }
    });
    Ok(json!(id))
}

/// One line. Nobody listens any more when it fails, and then stdin ends too.
fn say(what: &Value) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{what}").and_then(|()| out.flush());
}
