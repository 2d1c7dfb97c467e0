//! ldkjit-py translates. Calls come in by name and JSON, answers leave by a queue and a pipe: no thread of ours ever
//! touches the interpreter, so nothing of ours can hold up its exit.

mod bridge;
mod check;
mod regtest;
mod store;
mod webhook;

use pyo3::prelude::*;

/// The extension module. Nothing in it is stable: `ldkjit` is the public face.
#[pymodule(gil_used = false)]
mod _ldkjit {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::bridge::Native;
    #[pymodule_export]
    use crate::regtest::RunningRegtest;
    #[pymodule_export]
    use crate::store::StoreDoor;
    #[pymodule_export]
    use crate::webhook::SeenOnes;

    /// Checks the ledger in a data directory, whether its node runs or not: the verdict, or an error, as JSON.
    #[pyfunction]
    fn ledger_check(py: Python<'_>, data_dir: std::path::PathBuf) -> PyResult<(bool, String)> {
        py.detach(|| crate::check::ledger(&data_dir))
    }

    #[pymodule_export]
    use crate::check::History;

    /// What the ledger in a data directory adds up to: the report, or an error, as JSON.
    #[pyfunction]
    fn report(py: Python<'_>, data_dir: std::path::PathBuf, ask: &str) -> PyResult<(bool, String)> {
        py.detach(|| crate::check::report(&data_dir, ask))
    }

    /// The SQL that makes the views.
    #[pyfunction]
    fn views() -> &'static str {
        ldkjit_node::history::VIEWS
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

    /// Moves a node, which must not run, from one store to another.
    #[pyfunction]
    fn copy_store(
        py: Python<'_>,
        source: crate::store::Place<'_>,
        target: crate::store::Place<'_>,
    ) -> (bool, String) {
        let (source, target) = (source.settle(), target.settle());
        py.detach(|| crate::check::told(crate::store::copy(source, target)))
    }

    /// Checks a notification that came to a webhook: whether it is this LSP's; what it says or the error, as JSON.
    #[pyfunction]
    #[allow(clippy::too_many_arguments)]
    fn verify_webhook(
        py: Python<'_>,
        body: &[u8],
        timestamp: &str,
        signature: &str,
        lsp: &str,
        recipient: &str,
        window_ms: u64,
        now_ms: u64,
        seen: Option<&SeenOnes>,
    ) -> (bool, String) {
        let received = ldkjit_node::verify::Received {
            body,
            timestamp,
            signature,
            lsp,
            recipient,
        };
        py.detach(|| crate::webhook::check(&received, window_ms, now_ms, seen))
    }

    /// The opening fee of a payment, msat (J-19); none on overflow.
    #[pyfunction]
    fn opening_fee(size_msat: u64, min_fee_msat: u64, proportional_ppm: u32) -> Option<u64> {
        use ldkjit_core::amount::Msat;
        let (size, least) = (Msat(size_msat), Msat(min_fee_msat));
        ldkjit_core::fee::opening_fee(size, least, proportional_ppm).map(|fee| fee.0)
    }

    /// Reads what a person pastes or scans: whether it can be paid; what it is or the error, as JSON.
    #[pyfunction]
    fn parse(text: &str) -> (bool, String) {
        crate::check::told(ldkjit_node::parse::parse(text))
    }

    /// The version of the extension.
    #[pyfunction]
    fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
