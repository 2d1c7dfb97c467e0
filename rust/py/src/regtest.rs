//! The regtest of this process, for Python.

use std::sync::Mutex;

use ldkjit_node::sync::lock;
use ldkjit_regtest::Regtest;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// A regtest that answers as a bitcoind does, on a port of 127.0.0.1, until it is stopped or forgotten.
#[pyclass(frozen, module = "ldkjit._ldkjit", name = "Regtest")]
pub struct RunningRegtest {
    #[pyo3(get)]
    port: u16,
    running: Mutex<Option<Regtest>>,
}

#[pymethods]
impl RunningRegtest {
    #[new]
    fn new(user: &str, password: &str) -> PyResult<Self> {
        let running =
            Regtest::start(user, password).map_err(|e| PyOSError::new_err(e.to_string()))?;
        Ok(Self {
            port: running.port,
            running: Mutex::new(Some(running)),
        })
    }

    /// Ends it; may be called again.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            let running = lock(&self.running).take();
            drop(running);
        });
    }
}
