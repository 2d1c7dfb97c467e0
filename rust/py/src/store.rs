//! A store in Python: its thread takes one request at a time and leaves the answer.
//!
//! Neither side waits inside the other. The committer's thread, which never touches the interpreter, waits for the answer on
//! a condition of ours; the store's thread waits in Python, on a descriptor that has one byte for each request. So there is
//! no lock that both could want, the interpreter ends with either of them waiting, and Ctrl-C, which Python gives to its
//! main thread alone, interrupts no commit. In a forked child neither thread exists, and nothing waits for them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use ldkjit_node::error::NodeError;
use ldkjit_node::store::{self, Loaded, Op, Row, SqliteStore, Store, StoreError};
use ldkjit_node::sync::{lock, wait};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

enum Request {
    Load {
        all: bool,
    },
    Commit {
        seq: u64,
        batch: Vec<Op>,
    },
    Read {
        kind: String,
        key: String,
    },
    Rows {
        kind: String,
        after: u64,
        limit: usize,
    },
    Close,
}

enum Reply {
    Loaded(Loaded),
    Value(Option<Vec<u8>>),
    Rows(Vec<Row>),
    Done,
}

#[derive(Default)]
struct Slot {
    request: Option<Request>,
    reply: Option<Result<Reply, StoreError>>,
    closed: bool,
}

struct Shared {
    slot: Mutex<Slot>,
    answered: Condvar,
    signal: UnixStream,
}

impl Shared {
    /// A store is asked by one thread at a time.
    fn ask(&self, request: Request) -> Result<Reply, StoreError> {
        let mut slot = lock(&self.slot);
        slot.request = Some(request);
        slot.reply = None;
        self.ring();
        loop {
            if let Some(reply) = slot.reply.take() {
                return reply;
            }
            if slot.closed {
                return Err(StoreError::Closed);
            }
            slot = wait(&self.answered, slot);
        }
    }

    fn ring(&self) {
        // A pipe that is full wakes the reader as well.
        let _ = (&self.signal).write(&[1]);
    }

    fn close(&self) {
        let mut slot = lock(&self.slot);
        if !slot.closed {
            slot.closed = true;
            self.ring();
            self.answered.notify_all();
        }
    }
}

/// Where the node and a store in Python meet.
#[pyclass(frozen, module = "ldkjit._ldkjit")]
pub struct StoreDoor {
    shared: Arc<Shared>,
    readable: UnixStream,
}

impl StoreDoor {
    /// The node's side; the door closes with it.
    pub fn store(&self) -> Box<dyn Store> {
        Box::new(PythonStore {
            shared: self.shared.clone(),
        })
    }

    fn answer(&self, reply: Result<Reply, StoreError>) {
        lock(&self.shared.slot).reply = Some(reply);
        self.shared.answered.notify_all();
    }
}

#[pymethods]
impl StoreDoor {
    #[new]
    fn new() -> PyResult<Self> {
        let os = |e: std::io::Error| PyOSError::new_err(e.to_string());
        let (readable, signal) = UnixStream::pair().map_err(os)?;
        signal.set_nonblocking(true).map_err(os)?;
        Ok(Self {
            shared: Arc::new(Shared {
                slot: Mutex::default(),
                answered: Condvar::new(),
                signal,
            }),
            readable,
        })
    }

    /// One byte can be read there for each `take`.
    fn fileno(&self) -> i32 {
        self.readable.as_raw_fd()
    }

    /// What is asked: its name and its arguments; None when nobody will ask any more.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        // Not one lock over Python code, which may run anything.
        let request = lock(&self.shared.slot).request.take();
        let tuple = match request {
            None => return Ok(None),
            Some(Request::Load { all }) => ("load", all).into_pyobject(py)?,
            Some(Request::Read { kind, key }) => ("read", kind, key).into_pyobject(py)?,
            Some(Request::Rows { kind, after, limit }) => {
                ("rows", kind, after, limit).into_pyobject(py)?
            }
            Some(Request::Close) => ("close",).into_pyobject(py)?,
            Some(Request::Commit { seq, batch }) => {
                let ops = PyList::empty(py);
                for op in &batch {
                    ops.append(match op {
                        Op::Put { kind, key, value } => {
                            ("put", kind, key, PyBytes::new(py, value)).into_pyobject(py)?
                        }
                        Op::Delete { kind, key } => ("delete", kind, key).into_pyobject(py)?,
                        Op::Row {
                            kind,
                            seq,
                            key,
                            value,
                        } => {
                            ("row", &**kind, seq, key, PyBytes::new(py, value)).into_pyobject(py)?
                        }
                    })?;
                }
                ("commit", seq, ops).into_pyobject(py)?
            }
        };
        Ok(Some(tuple))
    }

    /// The answer to `load`: the last commit's number, (kind, key, value) of all that is live, the last rows' numbers.
    fn loaded(
        &self,
        seq: u64,
        live: Vec<(String, String, Bound<'_, PyBytes>)>,
        last_row: BTreeMap<String, u64>,
    ) {
        let live = live
            .into_iter()
            .map(|(kind, key, value)| (kind, key, value.as_bytes().to_vec()))
            .collect();
        self.answer(Ok(Reply::Loaded(Loaded {
            seq,
            live,
            last_row,
        })));
    }

    /// The answer to `read`.
    #[pyo3(signature = (value))]
    fn value(&self, value: Option<Bound<'_, PyBytes>>) {
        let value = value.map(|value| value.as_bytes().to_vec());
        self.answer(Ok(Reply::Value(value)));
    }

    /// The answer to `rows`: (seq, key, value).
    fn rows(&self, rows: Vec<(u64, String, Bound<'_, PyBytes>)>) {
        let rows = rows
            .into_iter()
            .map(|(seq, key, value)| Row {
                seq,
                key,
                value: value.as_bytes().to_vec(),
            })
            .collect();
        self.answer(Ok(Reply::Rows(rows)));
    }

    /// The answer to `commit` and `close`.
    fn done(&self) {
        self.answer(Ok(Reply::Done));
    }

    /// The answer to anything: an error's code, text and numbers.
    fn failed(&self, code: &str, why: String, found: Option<u32>, known: Option<u32>) {
        self.answer(Err(match (code, found, known) {
            ("store_locked", ..) => StoreError::Locked { pid: None },
            ("store_fenced", ..) => StoreError::Fenced(why),
            ("store_corrupt", ..) => StoreError::Corrupt(why),
            ("store_version", Some(found), Some(known)) => StoreError::Version { found, known },
            _ => StoreError::Failed(why),
        }));
    }

    /// Nobody asks any more, and whoever waits for an answer has an error.
    pub fn close(&self) {
        self.shared.close();
    }
}

/// The node's side of a [`StoreDoor`].
struct PythonStore {
    shared: Arc<Shared>,
}

fn lies(what: &str) -> StoreError {
    StoreError::Corrupt(format!("it answered {what}"))
}

impl PythonStore {
    fn load_with(&self, all: bool) -> Result<Loaded, StoreError> {
        match self.shared.ask(Request::Load { all })? {
            Reply::Loaded(loaded) => Ok(loaded),
            _ => Err(lies("something else than was asked")),
        }
    }

    fn do_it(&self, request: Request) -> Result<(), StoreError> {
        match self.shared.ask(request)? {
            Reply::Done => Ok(()),
            _ => Err(lies("something else than was asked")),
        }
    }
}

impl Store for PythonStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.load_with(false)
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        self.load_with(true)
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.do_it(Request::Commit { seq, batch })
    }

    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        match self.shared.ask(Request::Read { kind, key })? {
            Reply::Value(value) => Ok(value),
            _ => Err(lies("something else than was asked")),
        }
    }

    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let request = Request::Rows {
            kind: kind.to_owned(),
            after,
            limit,
        };
        let rows = match self.shared.ask(request)? {
            Reply::Rows(rows) => rows,
            _ => return Err(lies("something else than was asked")),
        };
        let expected = (after.saturating_add(1)..).take(rows.len());
        if rows.len() > limit || !rows.iter().map(|row| row.seq).eq(expected) {
            return Err(lies("rows with gaps, or others than were asked for"));
        }
        Ok(rows)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.do_it(Request::Close)
    }
}

impl Drop for PythonStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A store to copy from or to: a SQLite file, or a door.
#[derive(FromPyObject)]
pub enum Place<'py> {
    /// A store in Python.
    Door(PyRef<'py, StoreDoor>),
    /// The file of a SQLite store.
    File(PathBuf),
}

impl Place<'_> {
    /// Where it is, without anything of Python.
    pub fn settle(self) -> Settled {
        match self {
            Self::Door(door) => Settled::Store(door.store()),
            Self::File(path) => Settled::File(path),
        }
    }
}

/// A [`Place`] that another thread may use.
pub enum Settled {
    /// A store in Python.
    Store(Box<dyn Store>),
    /// The file of a SQLite store.
    File(PathBuf),
}

/// Moves a node from one store to another.
pub fn copy(from: Settled, to: Settled) -> Result<store::Moved, NodeError> {
    let network = |store: &mut dyn Store| -> Result<Cow<'static, str>, NodeError> {
        let live = store.load()?.live;
        let found = ldkjit_node::identity::Identity::find(&live)?;
        found
            .map(|identity| identity.network.to_string().into())
            .ok_or_else(|| NodeError::config("the first store is no node's"))
    };
    let mut source: Box<dyn Store> = match from {
        Settled::Store(store) => store,
        Settled::File(path) => {
            let (_, network) = SqliteStore::reader(&path)?;
            Box::new(SqliteStore::open(&path, network)?)
        }
    };
    let mut target: Box<dyn Store> = match to {
        Settled::Store(store) => store,
        Settled::File(path) => {
            let network = network(&mut *source)?
                .parse()
                .map_err(|_| NodeError::internal("a network that is none"))?;
            Box::new(SqliteStore::open(&path, network)?)
        }
    };
    let moved = store::copy(&mut *source, &mut *target);
    let closed = target.close().and(source.close());
    let moved = moved?;
    closed?;
    Ok(moved)
}
