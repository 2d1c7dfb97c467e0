//! ldkjit-py translates. Calls come in by name and JSON, answers leave by a queue and a pipe: no thread of ours ever
//! touches the interpreter, so nothing of ours can hold up its exit.

mod bridge;
mod check;

use pyo3::prelude::*;

/// The extension module. Nothing in it is stable: `ldkjit` is the public face.
#[pymodule(gil_used = false)]
mod _ldkjit {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::bridge::Native;

    /// Checks the ledger in a data directory, whether its node runs or not: the verdict, or an error, as JSON.
    #[pyfunction]
    fn ledger_check(py: Python<'_>, data_dir: std::path::PathBuf) -> PyResult<(bool, String)> {
        py.detach(|| crate::check::ledger(&data_dir))
    }

    /// Writes the node in a data directory, running or not, into one new file.
    #[pyfunction]
    fn backup(
        py: Python<'_>,
        data_dir: std::path::PathBuf,
        file: std::path::PathBuf,
    ) -> (bool, String) {
        py.detach(|| crate::check::told(ldkjit_node::backup::backup(&data_dir, &file)))
    }

    /// Makes a node of a backup, in a new or empty folder.
    #[pyfunction]
    fn restore(
        py: Python<'_>,
        file: std::path::PathBuf,
        data_dir: std::path::PathBuf,
    ) -> (bool, String) {
        py.detach(|| crate::check::told(ldkjit_node::backup::restore(&file, &data_dir)))
    }

    /// The version of the extension.
    #[pyfunction]
    fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
