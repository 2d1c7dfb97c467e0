//! One node behind a queue and a pipe, its runtime started with it and ended with it.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ldkjit_node::api;
use ldkjit_node::config::{Config, Runs};
use ldkjit_node::error::NodeError;
use ldkjit_node::log::{parse_level, Log, Record};
use ldkjit_node::lsp::hooks::{Asker, Desk};
use ldkjit_node::node::Node;
use ldkjit_node::store::Store;
use ldkjit_node::sync::lock;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use serde_json::{json, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::store::StoreDoor;

/// What a drained item is.
const RESULT: u8 = 0;
const ERROR: u8 = 1;
const LOG: u8 = 2;
/// A question to a hook, and that nobody waits for its answer any more.
const QUESTION: u8 = 3;
const FORGET: u8 = 4;
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

/// What Rust leaves for Python to fetch: for the event loop, or for the thread of hooks that are no coroutines.
struct Outbox {
    items: Mutex<VecDeque<Item>>,
    records: Mutex<VecDeque<String>>,
    signal: Mutex<UnixStream>,
    /// A byte lies in the pipe: one wake-up serves all items.
    signalled: AtomicBool,
}

impl Outbox {
    /// An outbox, and the end that is readable when there is something in it.
    fn new() -> std::io::Result<(Self, UnixStream)> {
        let (readable, signal) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        let outbox = Self {
            items: Mutex::default(),
            records: Mutex::default(),
            signal: Mutex::new(signal),
            signalled: AtomicBool::new(false),
        };
        Ok((outbox, readable))
    }

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

    /// Whether a question was still waiting here, which is not asked any more.
    fn take_back(&self, id: u64) -> bool {
        let mut items = lock(&self.items);
        let before = items.len();
        items.retain(|(kind, asked, _)| (*kind, *asked) != (QUESTION, id));
        items.len() < before
    }

    fn take_next(&self) -> Option<Item> {
        // Cleared before the item is taken: a later item wakes again.
        self.signalled.store(false, Ordering::Release);
        lock(&self.items).pop_front()
    }

    /// Everything that waits, but of log records only some: then it is to be asked again.
    fn drain(&self, readable: &Mutex<UnixStream>) -> Vec<Item> {
        let mut scratch = [0; 64];
        let mut readable = lock(readable);
        while matches!(readable.read(&mut scratch), Ok(n) if n > 0) {}
        // Cleared before the items are taken: a later item wakes again.
        self.signalled.store(false, Ordering::Release);
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
    /// For the thread that hooks run on which are no coroutines.
    to_thread: Outbox,
    /// Where questions to hooks wait, once the node is being started.
    desk: Mutex<Option<Arc<Desk>>>,
    phase: Mutex<Phase>,
    /// Calls without an answer yet; a handle for those that only wait.
    calls: Mutex<HashMap<u64, Option<AbortHandle>>>,
    /// A store in Python, until the start takes it.
    store: Mutex<Option<Box<dyn Store>>>,
}

/// Brings questions to the hooks.
struct Hooks(Weak<Shared>);

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Asker for Hooks {
    fn ask(&self, id: u64, runs: Runs, question: String) {
        if let Some(shared) = self.0.upgrade() {
            let outbox = match runs {
                Runs::Loop => &shared.outbox,
                Runs::Thread => &shared.to_thread,
            };
            outbox.push((QUESTION, id, question));
        }
    }

    fn forget(&self, id: u64) {
        if let Some(shared) = self.0.upgrade() {
            let waits = shared.outbox.take_back(id) || shared.to_thread.take_back(id);
            if !waits {
                // The loop ends its task, or gives the thread a successor.
                shared.outbox.push((FORGET, id, String::new()));
            }
        }
    }
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
            let mut config = Config::from_json(params)?;
            if let Some(lsp) = &config.lsp {
                let hooks = Arc::new(Hooks(Arc::downgrade(self)));
                let desk = Arc::new(Desk::new(lsp.policy.clone(), hooks));
                *lock(&self.desk) = Some(desk.clone());
                config.desk = Some(desk);
            }
            let level = parse_level(&config.log_level)
                .ok_or_else(|| NodeError::config("log_level: error, warn, info, debug or trace"))?;
            let weak = Arc::downgrade(self);
            let sink = Arc::new(move |record: Record| {
                weak.upgrade()
                    .is_some_and(|shared| shared.outbox.push_record(&record))
            });
            let store = lock(&self.store).take();
            Node::start_on(config, store, Arc::new(Log::new(level, sink))).await
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
    thread_readable: UnixStream,
    runtime: Mutex<Option<Runtime>>,
    pid: u32,
}

#[pymethods]
impl Native {
    #[new]
    fn new() -> PyResult<Self> {
        let os = |e: std::io::Error| PyOSError::new_err(e.to_string());
        let (outbox, readable) = Outbox::new().map_err(os)?;
        let (to_thread, thread_readable) = Outbox::new().map_err(os)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ldkjit")
            .enable_all()
            .build()
            .map_err(os)?;
        Ok(Self {
            fd: readable.as_raw_fd(),
            readable: Mutex::new(readable),
            thread_readable,
            shared: Arc::new(Shared {
                outbox,
                to_thread,
                desk: Mutex::default(),
                phase: Mutex::default(),
                calls: Mutex::default(),
                store: Mutex::default(),
            }),
            runtime: Mutex::new(Some(runtime)),
            pid: std::process::id(),
        })
    }

    /// Keeps everything in a store in Python; before the start, for a configuration that says so.
    fn use_store(&self, door: &StoreDoor) {
        *lock(&self.shared.store) = Some(door.store());
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

    /// Everything that waits for the event loop: (kind, id, JSON), kind 0 a result, 1 an error, 2 a log record, 3 a
    /// question to a hook, 4 that its answer is not waited for any more.
    fn drain(&self) -> PyResult<Vec<Item>> {
        self.check_process()?;
        Ok(self.shared.outbox.drain(&self.readable))
    }

    /// Readable when `question` has something, and at the end. Whoever waits for it reads it empty.
    fn question_fileno(&self) -> i32 {
        self.thread_readable.as_raw_fd()
    }

    /// The next question for the thread of the hooks. One at a time: a thread that hangs takes no other along.
    fn question(&self) -> PyResult<Option<(u64, String)>> {
        self.check_process()?;
        let next = self.shared.to_thread.take_next();
        Ok(next.map(|(_, id, text)| (id, text)))
    }

    /// The answer of a hook, as JSON. May come from any thread, and too late.
    fn answer(&self, id: u64, body: String) -> PyResult<()> {
        self.check_process()?;
        if let Some(desk) = &*lock(&self.shared.desk) {
            desk.answer(id, body);
        }
        Ok(())
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
        // One that no start took: its thread ends.
        drop(lock(&self.shared.store).take());
        runtime.shutdown_timeout(THREADS);
        // A start that was under way may have ended after that look: its node goes with its runtime.
        *lock(&self.shared.phase) = Phase::Stopped;
        lock(&self.shared.calls).clear();
        // The thread of the hooks reads the end of its pipe.
        let _ = lock(&self.shared.to_thread.signal).shutdown(Shutdown::Both);
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
