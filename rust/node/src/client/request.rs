//! Requests to LSPs and their answers: one future per request id, bounded in time (T-10).

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::lsps0::{encode_request, parse_response, request_id, FromLsp, RpcError};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::error::NodeError;
use crate::node::Node;
use crate::sync::lock;

type Answer = Result<Value, RpcError>;

/// Requests that wait for an answer.
#[derive(Default)]
pub struct Requests {
    waiting: Mutex<HashMap<(PublicKey, String), oneshot::Sender<Answer>>>,
    /// LSPs that sent what is no LSPS0 message: nothing more is sent to them on this connection (T-05).
    silenced: Mutex<HashSet<PublicKey>>,
    /// Peers asked on their present connection.
    asked: Mutex<HashSet<PublicKey>>,
}

impl Requests {
    /// Whether this peer was asked anything on its present connection.
    #[must_use]
    pub fn asked(&self, peer: &PublicKey) -> bool {
        lock(&self.asked).contains(peer)
    }

    /// A message from an LSP.
    pub fn on_message(&self, node: &Node, peer: PublicKey, payload: &[u8]) {
        match parse_response(payload) {
            Ok(FromLsp::Response {
                id: Some(id),
                outcome,
            }) => {
                // An id we do not remember is ignored (T-09).
                let waiting = lock(&self.waiting).remove(&(peer, id));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(outcome);
                }
            }
            Ok(FromLsp::Response { id: None, outcome }) => {
                node.parts.log.warn(
                    "lsps0",
                    format_args!("{peer} could not read a message of ours: {outcome:?}"),
                );
            }
            // No notification is defined yet (T-09).
            Ok(FromLsp::Notification { .. }) => {}
            Err(_) => {
                node.parts.log.warn(
                    "lsps0",
                    format_args!(
                        "{peer} sent what is no LSPS0 message: not asked again until it reconnects"
                    ),
                );
                lock(&self.silenced).insert(peer);
            }
        }
    }

    /// A peer is gone: its answers will not come.
    pub fn on_disconnected(&self, peer: &PublicKey) {
        lock(&self.silenced).remove(peer);
        lock(&self.asked).remove(peer);
        lock(&self.waiting).retain(|(p, _), _| p != peer);
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// `lsp_unreachable` when no answer comes, `lsp_refused` with the LSP's code.
    pub async fn call(
        &self,
        node: &Node,
        peer: PublicKey,
        method: &str,
        params: &Value,
        timeout: Duration,
    ) -> Result<Value, NodeError> {
        if lock(&self.silenced).contains(&peer) {
            return Err(NodeError::lsp_unreachable(
                "the LSP sent what is no LSPS0 message; reconnect to try again",
            ));
        }
        let mut random = [0; 16];
        node.fill_random(&mut random);
        let id = request_id(random);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert((peer, id.clone()), sender);
        lock(&self.asked).insert(peer);
        node.transport
            .send(peer, encode_request(&id, method, params));
        let answer = tokio::time::timeout(timeout, answer).await;
        lock(&self.waiting).remove(&(peer, id));
        match answer {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(error))) => Err(NodeError::lsp_refused(
                error.effective_code(),
                error.message,
            )),
            Ok(Err(_)) => Err(NodeError::lsp_unreachable(format!(
                "the LSP disconnected before it answered {method}"
            ))),
            Err(_) => Err(NodeError::lsp_unreachable(format!(
                "the LSP did not answer {method} within {} ms",
                timeout.as_millis()
            ))),
        }
    }
}
