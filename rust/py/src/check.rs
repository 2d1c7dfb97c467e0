//! What is done to a data directory without a node: the ledger check, backup and restore.

use std::path::Path;

use ldkjit_node::audit::check_dir;
use ldkjit_node::error::NodeError;
use pyo3::exceptions::PyOSError;
use pyo3::PyResult;
use serde::Serialize;

/// Whether there is a verdict, and it, or the error, as JSON.
pub fn ledger(data_dir: &Path) -> PyResult<(bool, String)> {
    let os = |e: std::io::Error| PyOSError::new_err(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(os)?;
    Ok(told(runtime.block_on(check_dir(data_dir))))
}

/// Whether it went well, and what came of it, or the error, as JSON.
pub fn told(outcome: Result<impl Serialize, NodeError>) -> (bool, String) {
    match outcome {
        Ok(answer) => (true, serde_json::to_string(&answer).unwrap_or_default()),
        Err(error) => (false, serde_json::to_string(&error).unwrap_or_default()),
    }
}
