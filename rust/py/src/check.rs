//! The ledger check without a node.

use std::path::Path;

use ldkjit_node::audit::check_dir;
use pyo3::exceptions::PyOSError;
use pyo3::PyResult;

/// Whether there is a verdict, and it, or the error, as JSON.
pub fn ledger(data_dir: &Path) -> PyResult<(bool, String)> {
    let os = |e: std::io::Error| PyOSError::new_err(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(os)?;
    Ok(match runtime.block_on(check_dir(data_dir)) {
        Ok(verdict) => (true, serde_json::to_string(&verdict).unwrap_or_default()),
        Err(error) => (false, serde_json::to_string(&error).unwrap_or_default()),
    })
}
