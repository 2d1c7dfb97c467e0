//! What the application is told: events written with the change they report, read at each consumer's own pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ldkjit_core::ids::{ChannelId, NodeId, PaymentHash, Scid};
use ldkjit_core::reason::Reason;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use tokio::sync::Notify;

use crate::alarms::Alarm;
use crate::error::NodeError;
use crate::journal::Journal;
use crate::log::now_ms;
use crate::sync::lock;

const KIND: &str = "event";
const CURSOR: &str = "cursor";

/// One thing that happened. Amounts in msat.
#[allow(missing_docs)] // the fields are the names used everywhere
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeEvent {
    /// A payment to us is ours.
    PaymentReceived {
        payment_hash: PaymentHash,
        amount_msat: u64,
        opening_fee_msat: u64,
    },
    /// A payment of ours arrived.
    PaymentSent {
        payment_hash: PaymentHash,
        amount_msat: u64,
        fee_msat: u64,
        preimage: String,
    },
    /// A payment of ours did not arrive, for good.
    PaymentFailed {
        payment_hash: PaymentHash,
        reason: String,
    },
    /// A payment went through us.
    PaymentForwarded {
        from_channel: Option<ChannelId>,
        to_channel: Option<ChannelId>,
        amount_msat: Option<u64>,
        fee_msat: u64,
        opening_fee_msat: u64,
    },
    /// A channel's funding transaction is signed.
    ChannelPending {
        channel_id: ChannelId,
        peer: NodeId,
        funding: String,
    },
    /// A channel can be used.
    ChannelReady { channel_id: ChannelId, peer: NodeId },
    /// A channel is closed.
    ChannelClosed {
        channel_id: ChannelId,
        peer: Option<NodeId>,
        reason: String,
    },
    /// This wallet failed a JIT payment back.
    JitRefused {
        payment_hash: PaymentHash,
        reason: Reason,
    },
    /// This LSP sold a channel.
    OrderSold {
        scid: Scid,
        client: NodeId,
        size_msat: Option<u64>,
    },
    /// An order of this LSP moved to another state.
    OrderChanged { scid: Scid, state: String },
    /// The inputs of an unconfirmed channel's funding were spent by another transaction.
    FundingConflict {
        channel_id: ChannelId,
        funding: String,
        conflicting_txid: String,
    },
    /// An LSP closed a channel before the lifetime that it sold was over.
    LspBrokePromise {
        lsp: NodeId,
        channel_id: ChannelId,
        age_blocks: u32,
        min_lifetime_blocks: u32,
    },
    /// Something needs looking at, or does no more.
    Alarm {
        alarm: Alarm,
        on: bool,
        message: String,
    },
    /// A webhook of a client was called (LSPS5).
    WebhookCalled {
        client: NodeId,
        app_name: String,
        method: String,
        delivered: bool,
        detail: String,
    },
    /// The funding transaction of a channel is in no block after so many.
    FundingUnconfirmed {
        channel_id: ChannelId,
        peer: NodeId,
        funding: String,
        blocks: u32,
    },
    /// A payment to an address of ours is in a block.
    OnchainReceived {
        outpoint: String,
        amount_sat: u64,
        height: u32,
    },
}

/// Writes and reads events.
pub struct Events {
    journal: Arc<Journal>,
    news: Notify,
    /// Of the consumers that asked since the start.
    cursors: Mutex<HashMap<String, u64>>,
}

impl Events {
    /// Events in this journal.
    #[must_use]
    pub fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal,
            news: Notify::new(),
            cursors: Mutex::default(),
        }
    }

    /// Appends an event to the commit under way.
    pub fn emit(&self, event: &NodeEvent) {
        let mut body = serde_json::to_value(event).unwrap_or_else(|_| json!({}));
        if let Value::Object(map) = &mut body {
            map.insert("at_ms".into(), json!(now_ms()));
        }
        self.journal
            .row(KIND, String::new(), body.to_string().into_bytes());
        self.news.notify_waiters();
    }

    /// The first event past the consumer's cursor, waited for. It is durable when this returns.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next(&self, consumer: &str) -> Result<Value, NodeError> {
        let cursor = self.cursor(consumer).await?;
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(event) = self.first_after(cursor).await? {
                return Ok(event);
            }
            // It may be on its way to the disk.
            self.journal.durable().await?;
            if let Some(event) = self.first_after(cursor).await? {
                return Ok(event);
            }
            news.await;
        }
    }

    async fn first_after(&self, cursor: u64) -> Result<Option<Value>, NodeError> {
        let rows = self.journal.durable_rows(KIND, cursor, 1).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let event: Value = serde_json::from_slice(&row.value)
            .map_err(|e| NodeError::new("store_corrupt", format!("event: {e}")))?;
        Ok(Some(json!({"seq": row.seq, "event": event})))
    }

    /// Moves a consumer's cursor: with the next commit, so that a crash before it has the event told again.
    ///
    /// # Errors
    /// When the store fails, or has.
    pub async fn ack(&self, consumer: &str, seq: u64) -> Result<(), NodeError> {
        self.cursor(consumer).await?; // it is known from here on
        let mut cursors = lock(&self.cursors);
        if cursors.get(consumer).is_none_or(|at| *at < seq) {
            let value = seq.to_string().into_bytes();
            self.journal.put_soon(CURSOR, consumer, value)?;
            cursors.insert(consumer.to_owned(), seq);
        }
        Ok(())
    }

    async fn cursor(&self, consumer: &str) -> Result<u64, NodeError> {
        check_consumer(consumer)?;
        if let Some(known) = lock(&self.cursors).get(consumer) {
            return Ok(*known);
        }
        let stored = self.journal.read(CURSOR, consumer).await?;
        let cursor = stored
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut cursors = lock(&self.cursors);
        Ok(*cursors.entry(consumer.to_owned()).or_insert(cursor))
    }
}

fn check_consumer(consumer: &str) -> Result<(), NodeError> {
    if consumer.is_empty() || consumer.len() > 64 {
        return Err(NodeError::config("consumer: 1 to 64 characters"));
    }
    Ok(())
}
