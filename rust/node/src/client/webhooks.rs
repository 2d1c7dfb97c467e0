//! The wallet side of LSPS5: asks an LSP to keep, list and forget webhooks.

use std::time::Duration;

use ldkjit_core::ids::NodeId;
use ldkjit_core::lsps5::{
    read_result, set_params, Listed, Registered, LIST_WEBHOOKS, REMOVE_WEBHOOK, SET_WEBHOOK,
};
use serde_json::{json, Value};

use super::buy::bad_answer;
use crate::error::NodeError;
use crate::node::Node;

impl Node {
    /// Has an LSP call this URL, an https one, when there is something for us while we are away (W-01).
    ///
    /// # Errors
    /// `config` for a name or URL that no LSP may take, `no_lsp`, `lsp_unreachable`, `lsp_refused`.
    pub async fn set_webhook(
        &self,
        lsp: &NodeId,
        app_name: &str,
        webhook: &str,
        timeout: Duration,
    ) -> Result<Registered, NodeError> {
        let params = set_params(app_name, webhook)
            .map_err(|reason| NodeError::config(format!("webhook: {reason}")))?;
        let result = self.ask_lsp(lsp, SET_WEBHOOK, &params, timeout).await?;
        read_result(result).map_err(bad_answer)
    }

    /// The names of our webhooks at an LSP.
    ///
    /// # Errors
    /// `no_lsp`, `lsp_unreachable`, `lsp_refused`.
    pub async fn list_webhooks(
        &self,
        lsp: &NodeId,
        timeout: Duration,
    ) -> Result<Listed, NodeError> {
        let result = self
            .ask_lsp(lsp, LIST_WEBHOOKS, &json!({}), timeout)
            .await?;
        read_result(result).map_err(bad_answer)
    }

    /// Has an LSP forget a webhook. What the answer holds is not specified (B-14).
    ///
    /// # Errors
    /// `no_lsp`, `lsp_unreachable`, `lsp_refused`, with code 1010 if there is none of this name.
    pub async fn remove_webhook(
        &self,
        lsp: &NodeId,
        app_name: &str,
        timeout: Duration,
    ) -> Result<(), NodeError> {
        let params = json!({ "app_name": app_name });
        self.ask_lsp(lsp, REMOVE_WEBHOOK, &params, timeout).await?;
        Ok(())
    }

    async fn ask_lsp(
        &self,
        lsp: &NodeId,
        method: &str,
        params: &Value,
        timeout: Duration,
    ) -> Result<Value, NodeError> {
        let known = self.client.lsp(lsp);
        let known = known.ok_or_else(|| NodeError::no_lsp("no such LSP is configured"))?;
        let key = self.reach(known, timeout).await?;
        let requests = &self.client.requests;
        requests.call(self, key, method, params, timeout).await
    }
}
