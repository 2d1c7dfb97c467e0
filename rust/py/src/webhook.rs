//! Notifications that came to a webhook, checked without a node.

use std::sync::Mutex;

use ldkjit_node::verify::{verify, Received, Seen};
use pyo3::prelude::*;

use crate::check::told;

/// Notifications seen of late.
#[pyclass(frozen, module = "ldkjit._ldkjit", name = "Seen")]
#[derive(Default)]
pub struct SeenOnes(Mutex<Seen>);

#[pymethods]
impl SeenOnes {
    #[new]
    fn new() -> Self {
        Self::default()
    }
}

/// Whether it is an LSP's; what it says or the error, as JSON.
pub fn check(
    received: &Received<'_>,
    window_ms: u64,
    now_ms: u64,
    seen: Option<&SeenOnes>,
) -> (bool, String) {
    told(verify(
        received,
        window_ms,
        now_ms,
        seen.map(|seen| &seen.0),
    ))
}
