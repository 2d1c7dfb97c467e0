//! One node behind a queue and a pipe, its runtime started with it and ended with it.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldkjit_node::api;
use ldkjit_node::config::Config;
use ldkjit_node::error::NodeError;
use ldkjit_node::log::{parse_level, Log, Record};
use ldkjit_node::node::Node;
use ldkjit_node::sync::lock;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use serde_json::{json, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

/// What a drained item is.
const RESULT: u8 = 0;
const ERROR: u8 = 1;
const LOG: u8 = 2;
/// Log records that may wait for the interpreter; more are dropped and counted.
const MAX_RECORDS: usize = 10_000;
/// Of those, how many one drain hands over: the event loop has other things to do in between.
const RECORDS: usize = 256;
/// How long closing waits for the node, then for its threads.
const CLOSE: Duration = Duration::from_secs(4);
const THREADS: Duration = Duration::from_secs(1);

/// Methods that change nothing and may be ended at any point.
const WAITS: [&str; 3] = ["wait_height", "wait_payment", "next_event"];

type Item = (u8, u64, String);

/// What Rust leaves for Python to fetch.
struct Outbox {
    items: Mutex<VecDeque<Item>>,
    records: Mutex<VecDeque<String>>,
    signal: Mutex<UnixStream>,
    /// A byte lies in the pipe: one wake-up serves all items.
    signalled: AtomicBool,
}

impl Outbox {
    fn push(&self, item: Item) {
        lock(&self.items).push_back(item);
        self.wake();
    }

    fn push_record(&self, record: &Record) -> bool {
        let body = serde_json::to_string(record).unwrap_or_default();
        {
            let mut records = lock(&self.records);
            if records.len() >= MAX_RECORDS {
                return false;
            }
            records.push_back(body);
        }
        self.wake();
        true
    }

    /// Everything that waits, but of log records only some: then it is to be asked again.
    fn take(&self) -> Vec<Item> {
        let mut taken: Vec<Item> = lock(&self.items).drain(..).collect();
        let mut records = lock(&self.records);
        let some = records.len().min(RECORDS);
        taken.extend(records.drain(..some).map(|body| (LOG, 0, body)));
        let more = !records.is_empty();
        drop(records);
        if more {
            self.wake();
        }
        taken
    }

    fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // A full pipe is a pipe that is readable: nothing is lost.
            let _ = lock(&self.signal).write(&[1]);
        }
    }
}

#[derive(Default)]
enum Phase {
    #[default]
    New,
    Starting,
    Running(Arc<Node>),
    Stopped,
}

struct Shared {
    outbox: Outbox,
    phase: Mutex<Phase>,
    /// Calls without an answer yet; a handle for those that only wait.
    calls: Mutex<HashMap<u64, Option<AbortHandle>>>,
}

impl Shared {
    fn answer(&self, id: u64, outcome: Result<Value, NodeError>) {
        lock(&self.calls).remove(&id);
        let item = match outcome {
            Ok(value) => (RESULT, id, value.to_string()),
            Err(error) => {
                let body = serde_json::to_string(&error).unwrap_or_default();
                (ERROR, id, body)
            }
        };
        self.outbox.push(item);
    }

    fn node(&self) -> Result<Arc<Node>, NodeError> {
        match &*lock(&self.phase) {
            Phase::Running(node) => Ok(Arc::clone(node)),
            Phase::New => Err(NodeError::stopped("the node is not started")),
            Phase::Starting => Err(NodeError::stopped("the node is still starting")),
            Phase::Stopped => Err(NodeError::stopped("the node is stopped")),
        }
    }

    async fn run(self: &Arc<Self>, method: &str, params: Value) -> Result<Value, NodeError> {
        match method {
            "start" => self.start(params).await,
            "stop" => {
                let node = self.node()?;
                *lock(&self.phase) = Phase::Stopped;
                node.stop().await.map(|()| json!({}))
            }
            _ => api::call(&self.node()?, method, params).await,
        }
    }

    async fn start(self: &Arc<Self>, params: Value) -> Result<Value, NodeError> {
        {
            let mut phase = lock(&self.phase);
            if !matches!(*phase, Phase::New) {
                return Err(NodeError::stopped("a node is started once"));
            }
            *phase = Phase::Starting;
        }
        let started = async {
            let config = Config::from_json(params)?;
            let level = parse_level(&config.log_level)
                .ok_or_else(|| NodeError::config("log_level: error, warn, info, debug or trace"))?;
            let weak = Arc::downgrade(self);
            let sink = Arc::new(move |record: Record| {
                weak.upgrade()
                    .is_some_and(|shared| shared.outbox.push_record(&record))
            });
            Node::start(config, Arc::new(Log::new(level, sink))).await
        }
        .await;
        match started {
            Ok(node) => {
                let status = node.status();
                *lock(&self.phase) = Phase::Running(node);
                Ok(status)
            }
            Err(error) => {
                *lock(&self.phase) = Phase::Stopped;
                Err(error)
            }
        }
    }
}

/// A node as Python sees it.
#[pyclass(frozen, module = "ldkjit._ldkjit")]
pub struct Native {
    shared: Arc<Shared>,
    readable: Mutex<UnixStream>,
    fd: i32,
    runtime: Mutex<Option<Runtime>>,
    pid: u32,
}

#[pymethods]
impl Native {
    #[new]
    fn new() -> PyResult<Self> {
        let os = |e: std::io::Error| PyOSError::new_err(e.to_string());
        let (readable, signal) = UnixStream::pair().map_err(os)?;
        readable.set_nonblocking(true).map_err(os)?;
        signal.set_nonblocking(true).map_err(os)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ldkjit")
            .enable_all()
            .build()
            .map_err(os)?;
        Ok(Self {
            fd: readable.as_raw_fd(),
            readable: Mutex::new(readable),
            shared: Arc::new(Shared {
                outbox: Outbox {
                    items: Mutex::default(),
                    records: Mutex::default(),
                    signal: Mutex::new(signal),
                    signalled: AtomicBool::new(false),
                },
                phase: Mutex::default(),
                calls: Mutex::default(),
            }),
            runtime: Mutex::new(Some(runtime)),
            pid: std::process::id(),
        })
    }

    /// Readable when `drain` has something.
    fn fileno(&self) -> i32 {
        self.fd
    }

    /// Starts a call; its answer comes by `drain` under the same id. Never blocks.
    fn call(&self, id: u64, method: String, params: &str) -> PyResult<()> {
        self.check_process()?;
        let params: Value = serde_json::from_str(params)
            .map_err(|e| PyRuntimeError::new_err(format!("parameters are no JSON: {e}")))?;
        let runtime = lock(&self.runtime);
        let Some(runtime) = runtime.as_ref() else {
            let closed = NodeError::stopped("the node is closed");
            self.shared.answer(id, Err(closed));
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let only_waits = WAITS.contains(&method.as_str());
        // The lock is held over the spawn, so that an answer cannot come before its call is known.
        let mut calls = lock(&self.shared.calls);
        let task = runtime.spawn(async move {
            let outcome = shared.run(&method, params).await;
            shared.answer(id, outcome);
        });
        calls.insert(id, only_waits.then(|| task.abort_handle()));
        Ok(())
    }

    /// Forgets a call's answer. What only waits ends; what moves money goes on and is found by its id later.
    fn cancel(&self, id: u64) -> PyResult<()> {
        self.check_process()?;
        if let Some(Some(wait)) = lock(&self.shared.calls).remove(&id) {
            wait.abort();
        }
        Ok(())
    }

    /// Everything that waits: (kind, id, JSON), kind 0 a result, 1 an error, 2 a log record.
    fn drain(&self) -> PyResult<Vec<Item>> {
        self.check_process()?;
        let mut scratch = [0; 64];
        let mut readable = lock(&self.readable);
        while matches!(readable.read(&mut scratch), Ok(n) if n > 0) {}
        // Cleared before the items are taken: a later item wakes again.
        self.shared.outbox.signalled.store(false, Ordering::Release);
        Ok(self.shared.outbox.take())
    }

    /// Stops the node if it runs and ends every thread, within a bounded time. May be called again.
    fn close(&self, py: Python<'_>) {
        // In a forked child the threads do not exist: there is nothing to end.
        if self.pid != std::process::id() {
            std::mem::forget(lock(&self.runtime).take());
            return;
        }
        py.detach(|| self.shut());
    }
}

impl Native {
    fn check_process(&self) -> PyResult<()> {
        if self.pid == std::process::id() {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err(
                "this node belongs to the process that was forked",
            ))
        }
    }

    fn shut(&self) {
        let Some(runtime) = lock(&self.runtime).take() else {
            return;
        };
        let phase = std::mem::replace(&mut *lock(&self.shared.phase), Phase::Stopped);
        if let Phase::Running(node) = phase {
            let _ = runtime.block_on(async { tokio::time::timeout(CLOSE, node.stop()).await });
        }
        runtime.shutdown_timeout(THREADS);
        // A start that was under way may have ended after that look: its node goes with its runtime.
        *lock(&self.shared.phase) = Phase::Stopped;
        lock(&self.shared.calls).clear();
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.shut();
        } else {
            std::mem::forget(lock(&self.runtime).take());
        }
    }
}
