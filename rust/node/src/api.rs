//! The node's methods by name, JSON in and out: the whole of what the bridge can call.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::ids::{ChannelId, NodeId, PaymentHash};
use ldkjit_core::lsps5::Notice;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{json, Value};

use crate::chain::SendOutcome;
use crate::channels::OpenRequest;
use crate::config::parse_peer;
use crate::error::NodeError;
use crate::handover::PATIENCE;
use crate::node::Node;
use crate::payments::{parse_invoice, PayRequest};

const MAX_LIMIT: usize = 1_000;
/// No wait is longer, ms: a day.
const MAX_WAIT_MS: u64 = 86_400_000;

fn read<T: DeserializeOwned>(params: Value) -> Result<T, NodeError> {
    serde_json::from_value(params).map_err(|e| NodeError::config(format!("parameters: {e}")))
}

fn show<T: serde::Serialize>(value: T) -> Result<Value, NodeError> {
    serde_json::to_value(value).map_err(|e| NodeError::internal(e.to_string()))
}

fn wait(ms: u64) -> Duration {
    Duration::from_millis(ms.min(MAX_WAIT_MS))
}

fn key(text: &str) -> Result<PublicKey, NodeError> {
    text.parse()
        .map_err(|_| NodeError::config("node_id: 66 hex digits of a point on the curve"))
}

fn hash(text: &str) -> Result<PaymentHash, NodeError> {
    text.parse()
        .map_err(|_| NodeError::config("a payment hash is 64 hex digits"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Height {
    height: u32,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    address: String,
    #[serde(default)]
    amount_sat: Option<u64>,
    #[serde(default)]
    fee_rate_sat_per_kw: Option<u32>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connect {
    peer: String,
    #[serde(default)]
    keep: bool,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeIdOnly {
    node_id: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    peer: String,
    capacity_sat: u64,
    #[serde(default)]
    push_msat: u64,
    #[serde(default)]
    announce: bool,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    channel_id: ChannelId,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    break_promise: Option<String>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHash {
    payment_hash: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ById {
    id: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitPayment {
    id: String,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pay {
    bolt11: String,
    #[serde(default)]
    amount_msat: Option<u64>,
    #[serde(default)]
    max_fee_msat: Option<u64>,
    #[serde(default = "ten")]
    retry_s: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keysend {
    node_id: String,
    amount_msat: u64,
    #[serde(default)]
    max_fee_msat: Option<u64>,
    #[serde(default = "ten")]
    retry_s: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "hundred")]
    limit: usize,
    #[serde(default)]
    pending: bool,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decode {
    bolt11: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    path: std::path::PathBuf,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetWebhook {
    lsp: NodeId,
    app_name: String,
    webhook: String,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListWebhooks {
    lsp: NodeId,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveWebhook {
    lsp: NodeId,
    app_name: String,
    timeout_ms: u64,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyClient {
    node_id: String,
    notice: Told,
}
/// What an operator may have a client told.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    PaymentIncoming,
    LiquidityManagementRequest,
    OnionMessageIncoming,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consumer {
    consumer: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    consumer: String,
    seq: u64,
}

fn ten() -> u64 {
    10
}
fn hundred() -> usize {
    100
}

/// Calls a method of a started node.
///
/// # Errors
/// Whatever the method's error is; `not_found` for a method that does not exist.
pub async fn call(node: &Arc<Node>, method: &str, params: Value) -> Result<Value, NodeError> {
    if let Some(error) = node.parts.journal.stopped() {
        return Err(error.into());
    }
    if let Some(recovery) = &node.recovery {
        recovery.allows(method)?;
    }
    match method {
        "status" => read(params).map(|Nothing {}| node.status()),
        "wait_height" => {
            let p: Height = read(params)?;
            node.wait_height(p.height, wait(p.timeout_ms)).await?;
            Ok(node.status())
        }
        "new_address" => {
            let Nothing {} = read(params)?;
            let address = node.parts.wallet.new_address()?;
            node.parts.journal.durable().await?;
            Ok(json!({ "address": address.to_string() }))
        }
        "balances" => {
            let Nothing {} = read(params)?;
            Ok(node.hand_over.quiet(PATIENCE, || node.balances()).await)
        }
        "send_onchain" => {
            let p: Send = read(params)?;
            let rate = match p.fee_rate_sat_per_kw {
                Some(rate) => rate,
                None => node.parts.fees.fresh()?.normal,
            };
            let to = node.parts.wallet.parse_address(&p.address)?;
            node.set_reserve(0);
            let tx = node
                .parts
                .wallet
                .send(&to.script_pubkey(), p.amount_sat, rate)?;
            node.parts.journal.durable().await?;
            let txid = tx.compute_txid();
            match node.parts.broadcaster.broadcast(vec![tx]).await {
                Some(SendOutcome::Conflict(why) | SendOutcome::Rejected(why)) => Err(
                    NodeError::chain("lying", format!("{txid} was refused: {why}")),
                ),
                _ => Ok(json!({ "txid": txid.to_string() })),
            }
        }
        "fee_rates" => {
            let Nothing {} = read(params)?;
            show(node.parts.fees.fresh()?)
        }
        "connect" => {
            let p: Connect = read(params)?;
            let (peer, address) = parse_peer(&p.peer)?;
            let timeout = Duration::from_secs(10);
            if p.keep {
                node.dial_and_keep(peer, &address, timeout).await?;
            } else {
                node.dial(peer, &address, timeout).await?;
            }
            Ok(json!({}))
        }
        "disconnect" => {
            let p: NodeIdOnly = read(params)?;
            node.hang_up(&key(&p.node_id)?);
            Ok(json!({}))
        }
        "peers" => read(params).and_then(|Nothing {}| show(node.peers())),
        "open_channel" => {
            let p: Open = read(params)?;
            let request = OpenRequest {
                peer: key(p.peer.split('@').next().unwrap_or_default())?,
                capacity_sat: p.capacity_sat,
                push_msat: p.push_msat,
                announce: p.announce,
                timeout: wait(p.timeout_ms),
            };
            if p.peer.contains('@') {
                let (peer, address) = parse_peer(&p.peer)?;
                node.dial_and_keep(peer, &address, request.timeout).await?;
            }
            show(node.open_channel(request).await?)
        }
        "close_channel" => {
            let p: Close = read(params)?;
            node.close_channel(&p.channel_id, p.force, p.break_promise.as_deref())
                .await?;
            Ok(json!({}))
        }
        "channels" => read(params).and_then(|Nothing {}| show(node.channels())),
        "receive" => show(node.receive(read(params)?).await?),
        "invoice" => {
            let p: ByHash = read(params)?;
            show(node.invoice(&hash(&p.payment_hash)?).await?)
        }
        "pay" => {
            let p: Pay = read(params)?;
            let request = PayRequest {
                bolt11: p.bolt11,
                amount_msat: p.amount_msat,
                max_fee_msat: p.max_fee_msat,
                retry_s: p.retry_s,
            };
            show(node.pay(request).await?)
        }
        "keysend" => {
            let p: Keysend = read(params)?;
            let to = key(&p.node_id)?;
            show(
                node.keysend(to, p.amount_msat, p.max_fee_msat, p.retry_s)
                    .await?,
            )
        }
        "payment" => {
            let p: ById = read(params)?;
            let id = hash(&p.id)?;
            let payment = node.payments.get(&id).await?;
            show(payment.ok_or_else(|| NodeError::not_found(format!("no payment {id}")))?)
        }
        "wait_payment" => {
            let p: WaitPayment = read(params)?;
            show(
                node.payments
                    .wait(&hash(&p.id)?, wait(p.timeout_ms))
                    .await?,
            )
        }
        "payments" => {
            let p: Page = read(params)?;
            if p.pending {
                return Ok(json!({ "items": node.payments.all_pending(), "next": null }));
            }
            let items = node
                .payments
                .finished(p.after, p.limit.min(MAX_LIMIT))
                .await?;
            let next = items.last().map(|(seq, _)| *seq);
            let items: Vec<_> = items.into_iter().map(|(_, payment)| payment).collect();
            Ok(json!({ "items": items, "next": next }))
        }
        "decode" => {
            let p: Decode = read(params)?;
            let invoice = parse_invoice(&p.bolt11, node.config.network)?;
            Ok(json!({
                "payment_hash": invoice.payment_hash().to_string(),
                "payee": invoice.get_payee_pub_key().to_string(),
                "amount_msat": invoice.amount_milli_satoshis(),
                "description": invoice.description().to_string(),
                "expires_at_ms": invoice
                    .expires_at()
                    .map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
                "min_final_cltv_expiry_delta": invoice.min_final_cltv_expiry_delta(),
                "mpp": invoice.features().is_some_and(|f| f.supports_basic_mpp()),
                "hints": invoice
                    .route_hints()
                    .iter()
                    .map(|hint| {
                        hint.0
                            .iter()
                            .map(|hop| {
                                json!({
                                    "node_id": hop.src_node_id.to_string(),
                                    "short_channel_id":
                                        ldkjit_core::ids::Scid(hop.short_channel_id).to_string(),
                                    "base_msat": hop.fees.base_msat,
                                    "proportional_ppm": hop.fees.proportional_millionths,
                                    "cltv_expiry_delta": hop.cltv_expiry_delta,
                                })
                            })
                            .collect::<Vec<_>>()
                    })
                    .collect::<Vec<_>>(),
            }))
        }
        "next_event" => {
            let p: Consumer = read(params)?;
            node.events.next(&p.consumer).await
        }
        "ack_event" => {
            let p: Ack = read(params)?;
            node.events.ack(&p.consumer, p.seq).await?;
            Ok(json!({}))
        }
        "orders" => {
            let Nothing {} = read(params)?;
            Ok(json!(node
                .lsp
                .as_ref()
                .map(|lsp| lsp.orders())
                .unwrap_or_default()))
        }
        "set_webhook" => {
            let p: SetWebhook = read(params)?;
            let timeout = wait(p.timeout_ms);
            show(
                node.set_webhook(&p.lsp, &p.app_name, &p.webhook, timeout)
                    .await?,
            )
        }
        "list_webhooks" => {
            let p: ListWebhooks = read(params)?;
            show(node.list_webhooks(&p.lsp, wait(p.timeout_ms)).await?)
        }
        "remove_webhook" => {
            let p: RemoveWebhook = read(params)?;
            node.remove_webhook(&p.lsp, &p.app_name, wait(p.timeout_ms))
                .await?;
            Ok(json!({}))
        }
        "notify_client" => {
            let p: NotifyClient = read(params)?;
            let client = key(&p.node_id)?;
            let notice = match p.notice {
                Told::PaymentIncoming => Notice::PaymentIncoming,
                Told::LiquidityManagementRequest => Notice::LiquidityManagementRequest,
                Told::OnionMessageIncoming => Notice::OnionMessageIncoming,
            };
            let lsp = node.lsp.as_ref();
            let told = lsp.is_some_and(|lsp| lsp.tell(node, &client, notice));
            Ok(json!({ "told": told }))
        }
        "client_orders" => {
            let Nothing {} = read(params)?;
            let mut orders = show(node.client.orders())?;
            // A preimage that is not released yet is nobody's business.
            for order in orders.as_array_mut().into_iter().flatten() {
                if let Some(status) = order.get_mut("status").and_then(Value::as_object_mut) {
                    status.remove("preimage");
                }
            }
            Ok(orders)
        }
        "ledger" => {
            let p: Page = read(params)?;
            let items = node.ledger(p.after, p.limit.min(MAX_LIMIT)).await?;
            let next = items.last().and_then(|item| item.get("seq").cloned());
            Ok(json!({ "items": items, "next": next }))
        }
        "ledger_check" => {
            let Nothing {} = read(params)?;
            show(node.ledger_check().await?)
        }
        "metrics" => read(params).map(|Nothing {}| node.metrics()),
        "report" => show(node.report(read(params)?).await?),
        "backup" => {
            let p: Backup = read(params)?;
            show(node.backup(p.path).await?)
        }
        "recovery" => read(params).and_then(|Nothing {}| node.recovery_status()),
        "timeline" => {
            let p: ByHash = read(params)?;
            show(node.timeline.of(&hash(&p.payment_hash)?))
        }
        _ => Err(NodeError::not_found(format!("no method {method:?}"))),
    }
}
