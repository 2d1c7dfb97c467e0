//! What is done to a data directory without a node: the ledger check, the report, its history, backup and restore.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ldkjit_node::audit::{check_dir, report_dir};
use ldkjit_node::error::NodeError;
use ldkjit_node::history::Rows;
use ldkjit_node::sync::lock;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

/// Whether there is a verdict, and it, or the error, as JSON.
pub fn ledger(data_dir: &Path) -> PyResult<(bool, String)> {
    Ok(told(runtime()?.block_on(check_dir(data_dir))))
}

/// Whether there is a report, and it, or the error, as JSON.
pub fn report(data_dir: &Path, ask: &str) -> PyResult<(bool, String)> {
    let ask = serde_json::from_str(ask).map_err(|e| NodeError::config(format!("parameters: {e}")));
    Ok(match ask {
        Ok(ask) => told(runtime()?.block_on(report_dir(data_dir, &ask))),
        Err(error) => told(Err::<(), _>(error)),
    })
}

fn runtime() -> PyResult<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| PyOSError::new_err(e.to_string()))
}

/// The rows of a history, read on a thread of their own and handed over in pages.
#[pyclass(frozen, module = "ldkjit._ldkjit")]
pub struct History(Mutex<Rows>);

#[pymethods]
impl History {
    /// Begins to read.
    #[new]
    fn new(data_dir: PathBuf, ask: &str) -> Self {
        let ask =
            serde_json::from_str(ask).map_err(|e| NodeError::config(format!("parameters: {e}")));
        Self(Mutex::new(Rows::of(&data_dir, ask)))
    }

    /// Whether it went well, and the next rows, or the error, as JSON; no rows at the end.
    fn page(&self, py: Python<'_>) -> (bool, String) {
        py.detach(|| told(lock(&self.0).page()))
    }
}

/// Whether it went well, and what came of it, or the error, as JSON.
pub fn told(outcome: Result<impl Serialize, NodeError>) -> (bool, String) {
    match outcome {
        Ok(answer) => (true, serde_json::to_string(&answer).unwrap_or_default()),
        Err(error) => (false, serde_json::to_string(&error).unwrap_or_default()),
    }
}
