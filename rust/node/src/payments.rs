//! Payments in and out: their records, sending, and waiting for the end of one.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::PublicKey;
use ldkjit_core::ids::PaymentHash;
use lightning::events::PaymentFailureReason;
use lightning::ln::channelmanager::{
    Bolt11PaymentError, PaymentId, RecipientOnionFields, Retry, RetryableSendFailure,
};
use lightning::routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig};
use lightning::sign::EntropySource;
use lightning::types::payment::PaymentPreimage;
use lightning_invoice::{Bolt11Invoice, Currency};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::journal::Journal;
use crate::log::now_ms;
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "payment";
/// Claims that are in the history, by LDK's own id of them, so that a replay after a restart is known for one: the same
/// hash may be paid, and claimed, twice.
pub(crate) const RECEIVED: &str = "received";
/// How many of them are remembered.
const REMEMBERED: usize = 50_000;

/// In or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To us.
    In,
    /// From us.
    Out,
}

/// How it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentKind {
    /// By an invoice.
    Bolt11,
    /// Spontaneous.
    Keysend,
}

/// Where it stands. Pending is neither success nor failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentStatus {
    /// Under way.
    Pending,
    /// Arrived.
    Succeeded,
    /// Will not arrive.
    Failed,
}

/// A payment's record. Amounts in msat, times in ms since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The payment hash in hex.
    pub id: PaymentHash,
    /// The same.
    pub payment_hash: PaymentHash,
    /// In or out.
    pub direction: Direction,
    /// Invoice or spontaneous.
    pub kind: PaymentKind,
    /// Where it stands.
    pub status: PaymentStatus,
    /// What the receiver gets; for a payment in, after the opening fee.
    pub amount_msat: u64,
    /// Routing fee paid, once it succeeded.
    pub fee_msat: Option<u64>,
    /// Opening fee taken by an LSP from a payment in.
    pub opening_fee_msat: u64,
    /// Proof of payment, once known.
    pub preimage: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Begun.
    pub created_at_ms: u64,
    /// Ended.
    pub finished_at_ms: Option<u64>,
    /// The invoice's description.
    pub description: Option<String>,
}

/// All payments: the pending in memory and store, the finished in the store's history.
pub struct Payments {
    journal: Arc<Journal>,
    pending: Mutex<BTreeMap<PaymentHash, Payment>>,
    received: Mutex<Received>,
    finished: Notify,
}

/// The latest claims, oldest first by the sequence number of their payments' rows.
#[derive(Default)]
struct Received {
    claims: BTreeSet<PaymentHash>,
    order: BTreeMap<u64, PaymentHash>,
}

impl Payments {
    /// The payments that were pending when the store was last closed.
    #[must_use]
    pub fn load(journal: Arc<Journal>, live: &[(String, String, Vec<u8>)]) -> Self {
        let pending = live
            .iter()
            .filter(|(kind, _, _)| kind == KIND)
            .filter_map(|(_, _, value)| serde_json::from_slice::<Payment>(value).ok())
            .map(|payment| (payment.id, payment))
            .collect();
        let mut received = Received::default();
        for (_, key, value) in live.iter().filter(|(kind, _, _)| kind == RECEIVED) {
            let seq = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok());
            if let (Ok(hash), Some(seq)) = (key.parse(), seq) {
                received.claims.insert(hash);
                received.order.insert(seq, hash);
            }
        }
        Self {
            journal,
            pending: Mutex::new(pending),
            received: Mutex::new(received),
            finished: Notify::new(),
        }
    }

    /// Whether a claim, by its own id, is in the history.
    pub(crate) fn was_received(&self, claim: &PaymentHash) -> bool {
        lock(&self.received).claims.contains(claim)
    }

    fn remember(&self, claim: PaymentHash, seq: u64) {
        let mut received = lock(&self.received);
        received.claims.insert(claim);
        received.order.insert(seq, claim);
        self.journal
            .put(RECEIVED, claim.to_string(), seq.to_string().into_bytes());
        while received.order.len() > REMEMBERED {
            if let Some((_, oldest)) = received.order.pop_first() {
                received.claims.remove(&oldest);
                self.journal.delete(RECEIVED, oldest.to_string());
            }
        }
    }

    fn begin(&self, payment: &Payment) {
        lock(&self.pending).insert(payment.id, payment.clone());
        self.journal
            .put(KIND, payment.id.to_string(), encode(payment));
    }

    fn forget(&self, id: &PaymentHash) {
        lock(&self.pending).remove(id);
        self.journal.delete(KIND, id.to_string());
    }

    /// Ends a payment: out of the live state, into the history, in one commit. Answers its row there.
    pub fn finish(&self, payment: &Payment) -> u64 {
        self.forget(&payment.id);
        let seq = self
            .journal
            .row(KIND, payment.id.to_string(), encode(payment));
        self.finished.notify_waiters();
        seq
    }

    /// The pending payment of this hash.
    #[must_use]
    pub fn pending(&self, id: &PaymentHash) -> Option<Payment> {
        lock(&self.pending).get(id).cloned()
    }

    /// Every pending payment.
    #[must_use]
    pub fn all_pending(&self) -> Vec<Payment> {
        lock(&self.pending).values().cloned().collect()
    }

    /// A payment, pending or finished.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, id: &PaymentHash) -> Result<Option<Payment>, NodeError> {
        if let Some(payment) = self.pending(id) {
            return Ok(Some(payment));
        }
        let stored = self.journal.read(KIND, &id.to_string()).await?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Waits for a payment's end; its record is durable when this returns.
    ///
    /// # Errors
    /// `timeout`, or when the store fails.
    pub async fn wait(&self, id: &PaymentHash, timeout: Duration) -> Result<Payment, NodeError> {
        let wait = async {
            loop {
                let finished = self.finished.notified();
                tokio::pin!(finished);
                finished.as_mut().enable();
                match self.get(id).await? {
                    Some(payment) if payment.status != PaymentStatus::Pending => {
                        return Ok(payment)
                    }
                    _ => finished.await,
                }
            }
        };
        tokio::time::timeout(timeout, wait)
            .await
            .unwrap_or_else(|_| {
                Err(NodeError::timeout(format!(
                    "payment {id} has not ended within {} ms",
                    timeout.as_millis()
                )))
            })
    }

    /// Finished payments past `after`, oldest first, with their sequence numbers.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finished(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Payment)>, NodeError> {
        let rows = self.journal.rows(KIND, after, limit).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.seq, serde_json::from_slice(&row.value).ok()?)))
            .collect())
    }
}

fn encode(payment: &Payment) -> Vec<u8> {
    serde_json::to_vec(payment).unwrap_or_default()
}

/// Reads an invoice and refuses one of another network.
///
/// # Errors
/// `invoice` with why `malformed` or `wrong_network`.
pub fn parse_invoice(text: &str, network: bitcoin::Network) -> Result<Bolt11Invoice, NodeError> {
    let text = text.trim();
    let text = text
        .strip_prefix("lightning:")
        .or_else(|| text.strip_prefix("LIGHTNING:"))
        .unwrap_or(text);
    let invoice = Bolt11Invoice::from_str(text)
        .map_err(|e| NodeError::invoice("malformed", format!("not a BOLT 11 invoice: {e}")))?;
    if invoice.currency() != Currency::from(network) {
        let theirs = network_name(&invoice.currency());
        return Err(NodeError::invoice(
            "wrong_network",
            format!("the invoice is of {theirs}, this node runs on {network}"),
        ));
    }
    Ok(invoice)
}

/// The network of an invoice, as people and configurations call it.
pub(crate) fn network_name(currency: &Currency) -> &'static str {
    match currency {
        Currency::Bitcoin => "bitcoin",
        Currency::BitcoinTestnet => "testnet",
        Currency::Regtest => "regtest",
        Currency::Simnet => "simnet",
        Currency::Signet => "signet",
    }
}

/// What the payer of an invoice asked of us.
pub struct PayRequest {
    /// The invoice.
    pub bolt11: String,
    /// For an invoice without an amount, msat.
    pub amount_msat: Option<u64>,
    /// The most that routing may cost, msat; by default 1 % + 50 sat.
    pub max_fee_msat: Option<u64>,
    /// How long other routes are tried, s.
    pub retry_s: u64,
}

impl Node {
    /// Starts paying an invoice; the payment is durable and pending when this returns.
    ///
    /// # Errors
    /// `invoice` (malformed, wrong_network, expired, already_paid), `amount`, `insufficient_funds`, `payment`.
    pub async fn pay(&self, request: PayRequest) -> Result<Payment, NodeError> {
        let invoice = parse_invoice(&request.bolt11, self.config.network)?;
        let hash = PaymentHash(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()));
        if invoice.is_expired() {
            return Err(NodeError::invoice("expired", "the invoice has expired"));
        }
        if invoice.get_payee_pub_key() == self.cm.get_our_node_id() {
            return Err(NodeError::invoice("own", "the invoice is our own"));
        }
        let amount = match (invoice.amount_milli_satoshis(), request.amount_msat) {
            (Some(amount), None) => amount,
            (Some(_), Some(_)) => {
                return Err(NodeError::amount("the invoice already says its amount"))
            }
            (None, Some(0)) => return Err(NodeError::amount("the amount must be above 0")),
            (None, Some(amount)) => amount,
            (None, None) => {
                return Err(NodeError::amount(
                    "the invoice has no amount: amount_msat is needed",
                ))
            }
        };
        self.refuse_second(&hash).await?;
        self.check_outbound(amount)?;
        let payment = self.new_payment(hash, PaymentKind::Bolt11, amount, {
            let text = invoice.description().to_string();
            Some(text.chars().take(640).collect())
        });
        let fees = request.max_fee_msat.unwrap_or_else(|| default_fee(amount));
        let params = RouteParametersConfig::default().with_max_total_routing_fee_msat(fees);
        let only_amountless = invoice.amount_milli_satoshis().is_none().then_some(amount);
        let retry = Retry::Timeout(Duration::from_secs(request.retry_s));
        self.send(&payment, || {
            self.cm
                .pay_for_bolt11_invoice(&invoice, PaymentId(hash.0), only_amountless, params, retry)
                .map_err(|e| match e {
                    Bolt11PaymentError::InvalidAmount => {
                        NodeError::amount("the amount does not fit the invoice")
                    }
                    Bolt11PaymentError::SendingFailed(e) => self.send_error(&e),
                })
        })
        .await
    }

    /// Starts a spontaneous payment.
    ///
    /// # Errors
    /// `amount`, `insufficient_funds`, `payment`.
    pub async fn keysend(
        &self,
        to: PublicKey,
        amount: u64,
        max_fee_msat: Option<u64>,
        retry_s: u64,
    ) -> Result<Payment, NodeError> {
        if amount == 0 {
            return Err(NodeError::amount("the amount must be above 0"));
        }
        self.check_outbound(amount)?;
        let preimage = PaymentPreimage(self.parts.keys.get_secure_random_bytes());
        let ldk_hash: lightning::types::payment::PaymentHash = preimage.into();
        let payment = self.new_payment(PaymentHash(ldk_hash.0), PaymentKind::Keysend, amount, None);
        let mut params = RouteParameters::from_payment_params_and_value(
            PaymentParameters::for_keysend(to, 42, false),
            amount,
        );
        params.max_total_routing_fee_msat =
            Some(max_fee_msat.unwrap_or_else(|| default_fee(amount)));
        self.send(&payment, || {
            self.cm
                .send_spontaneous_payment(
                    Some(preimage),
                    RecipientOnionFields::spontaneous_empty(),
                    PaymentId(ldk_hash.0),
                    params,
                    Retry::Timeout(Duration::from_secs(retry_s)),
                )
                .map(|_| ())
                .map_err(|e| self.send_error(&e))
        })
        .await
    }

    fn new_payment(
        &self,
        id: PaymentHash,
        kind: PaymentKind,
        amount_msat: u64,
        description: Option<String>,
    ) -> Payment {
        Payment {
            id,
            payment_hash: id,
            direction: Direction::Out,
            kind,
            status: PaymentStatus::Pending,
            amount_msat,
            fee_msat: None,
            opening_fee_msat: 0,
            preimage: None,
            failure: None,
            created_at_ms: now_ms(),
            finished_at_ms: None,
            description,
        }
    }

    /// Record first, then LDK, both in one commit.
    async fn send(
        &self,
        payment: &Payment,
        start: impl FnOnce() -> Result<(), NodeError>,
    ) -> Result<Payment, NodeError> {
        {
            let _gate = self.parts.journal.gate().await;
            if self.payments.pending(&payment.id).is_some() {
                return Err(already_paid("is under way"));
            }
            self.timeline.stamp(payment.id, "send");
            self.payments.begin(payment);
            if let Err(error) = start() {
                self.payments.forget(&payment.id);
                return Err(error);
            }
        }
        self.wake.notify_one();
        self.parts.journal.durable().await?;
        Ok(payment.clone())
    }

    async fn refuse_second(&self, hash: &PaymentHash) -> Result<(), NodeError> {
        match self.payments.get(hash).await? {
            Some(p) if p.status == PaymentStatus::Succeeded => Err(already_paid("is paid already")),
            Some(p) if p.status == PaymentStatus::Pending => Err(already_paid("is under way")),
            _ => Ok(()),
        }
    }

    fn check_outbound(&self, amount: u64) -> Result<(), NodeError> {
        let available: u64 = self
            .cm
            .list_usable_channels()
            .iter()
            .fold(0, |sum, c| sum.saturating_add(c.outbound_capacity_msat));
        if available < amount {
            return Err(NodeError::insufficient_funds(amount, available));
        }
        Ok(())
    }

    fn send_error(&self, error: &RetryableSendFailure) -> NodeError {
        match error {
            RetryableSendFailure::DuplicatePayment => already_paid("is under way"),
            RetryableSendFailure::PaymentExpired => {
                NodeError::invoice("expired", "the invoice has expired")
            }
            RetryableSendFailure::RouteNotFound => {
                NodeError::payment("no route to the receiver can carry this amount").retryable()
            }
            other => NodeError::payment(format!("the payment could not be sent: {other:?}")),
        }
    }

    pub(crate) fn on_payment_sent(
        &self,
        hash: PaymentHash,
        preimage: [u8; 32],
        fee_msat: Option<u64>,
    ) {
        self.timeline.stamp(hash, "sent");
        let Some(mut payment) = self.payments.pending(&hash) else {
            return;
        };
        payment.status = PaymentStatus::Succeeded;
        payment.preimage = Some(preimage.to_lower_hex_string());
        payment.fee_msat = fee_msat;
        payment.finished_at_ms = Some(now_ms());
        self.events.emit(&NodeEvent::PaymentSent {
            payment_hash: hash,
            amount_msat: payment.amount_msat,
            fee_msat: fee_msat.unwrap_or(0),
            preimage: preimage.to_lower_hex_string(),
        });
        self.payments.finish(&payment);
    }

    pub(crate) fn on_payment_failed(
        &self,
        hash: PaymentHash,
        reason: Option<PaymentFailureReason>,
    ) {
        let Some(mut payment) = self.payments.pending(&hash) else {
            return;
        };
        let reason = failure_name(reason).to_string();
        payment.status = PaymentStatus::Failed;
        payment.failure = Some(reason.clone());
        payment.finished_at_ms = Some(now_ms());
        self.events.emit(&NodeEvent::PaymentFailed {
            payment_hash: hash,
            reason,
        });
        self.payments.finish(&payment);
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_payment_claimed(
        &self,
        claim: PaymentHash,
        hash: PaymentHash,
        kind: PaymentKind,
        amount_msat: u64,
        skimmed_msat: u64,
        preimage: Option<[u8; 32]>,
        description: Option<String>,
    ) {
        if self.payments.was_received(&claim) {
            return;
        }
        self.timeline.stamp(hash, "claimed");
        let now = now_ms();
        self.events.emit(&NodeEvent::PaymentReceived {
            payment_hash: hash,
            amount_msat,
            opening_fee_msat: skimmed_msat,
        });
        let seq = self.payments.finish(&Payment {
            id: hash,
            payment_hash: hash,
            direction: Direction::In,
            kind,
            status: PaymentStatus::Succeeded,
            amount_msat,
            fee_msat: None,
            opening_fee_msat: skimmed_msat,
            preimage: preimage.map(|p| p.to_lower_hex_string()),
            failure: None,
            created_at_ms: now,
            finished_at_ms: Some(now),
            description,
        });
        self.payments.remember(claim, seq);
    }
}

fn already_paid(what: &str) -> NodeError {
    NodeError::invoice("already_paid", format!("this payment hash {what}"))
}

/// 1 % and 50 sat.
fn default_fee(amount: u64) -> u64 {
    (amount / 100).saturating_add(50_000)
}

fn failure_name(reason: Option<PaymentFailureReason>) -> &'static str {
    match reason {
        Some(PaymentFailureReason::RecipientRejected) => "recipient_rejected",
        Some(PaymentFailureReason::UserAbandoned) => "abandoned",
        Some(PaymentFailureReason::RetriesExhausted) => "retries_exhausted",
        Some(PaymentFailureReason::PaymentExpired) => "expired",
        Some(PaymentFailureReason::RouteNotFound) => "route_not_found",
        Some(PaymentFailureReason::UnexpectedError) => "unexpected_error",
        Some(PaymentFailureReason::UnknownRequiredFeatures) => "unknown_required_features",
        _ => "unknown",
    }
}
