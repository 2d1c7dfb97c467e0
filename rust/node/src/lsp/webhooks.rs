//! LSPS5: registers clients' webhooks, and sends them signed notifications while they are away.
//!
//! `core::webhooks` says what goes where and when; here it is stored, signed and sent. Whoever wants a client to be told
//! something only leaves word: a task of its own sends it, so that no webhook holds up anything else.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::ids::NodeId;
use ldkjit_core::lsps0::{Request, RpcError};
use ldkjit_core::lsps5::{expiry_soon, signing_text, Call, Notice, SetWebhook};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::Rules;
use ldkjit_core::time::{format_datetime, Millis};
use ldkjit_core::webhooks::{Limits, Post, Standing, Webhooks};
use lightning::ln::channel_state::InboundHTLCStateDetails;
use lightning::sign::NodeSigner;
use serde_json::{json, Value};
use tokio::sync::Notify;

use crate::commit::read_kind;
use crate::config::WebhookConfig;
use crate::convert;
use crate::error::NodeError;
use crate::events::NodeEvent;
use crate::https::{Https, Letter};
use crate::log::{now_ms, Seldom};
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "webhook";
/// How long after an attempt without any answer the next one follows. An answer, whatever it says, is the last (W-19).
const RETRIES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// LDK closes a channel so many blocks after an HTLC that it offered ran out (`LATENCY_GRACE_PERIOD_BLOCKS`).
const GRACE_BLOCKS: u32 = 3;
/// LDK closes a channel so many blocks before an HTLC runs out that it has the preimage of (`CLTV_CLAIM_BUFFER`).
const CLAIM_BLOCKS: u32 = 36;

/// The webhooks of an LSP's clients.
pub struct Hooks {
    limits: Limits,
    https: Https,
    state: Mutex<Webhooks>,
    /// Clients for which something waits, and the bell that says so.
    due: Mutex<BTreeSet<NodeId>>,
    bell: Notify,
    /// What came of notifications, by one word each.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    seldom: Seldom,
}

impl Hooks {
    /// The webhooks as the store left them.
    ///
    /// # Errors
    /// `store_corrupt`, or `config` for certificates that cannot be read.
    pub fn load(
        config: &WebhookConfig,
        live: &[(String, String, Vec<u8>)],
    ) -> Result<Self, NodeError> {
        let mut state = Webhooks::default();
        let mut due = BTreeSet::new();
        let rows: Vec<_> = read_kind(live, KIND, "webhooks of")?;
        for (client, row) in rows {
            state.restore(client, row);
            due.insert(client);
        }
        Ok(Self {
            limits: config.limits(),
            https: Https::new(
                config.root_ca.as_deref(),
                config.allow_private,
                Duration::from_millis(config.timeout_ms),
                config.max_concurrent,
            )?,
            state: Mutex::new(state),
            due: Mutex::new(due),
            bell: Notify::new(),
            counts: Mutex::default(),
            seldom: Seldom::default(),
        })
    }

    /// Answers a request; `None` when the store failed, after which nothing is promised.
    pub(super) async fn answer(
        &self,
        node: &Node,
        peer: &PublicKey,
        rules: &Rules,
        request: &Request,
        payload: &[u8],
    ) -> Option<Result<Value, RpcError>> {
        let client = convert::node_id(peer);
        let call = match Call::parse(request, payload) {
            Ok(call) => call,
            Err(error) => return Some(Err(error)),
        };
        let outcome = match call {
            Call::Set(wanted) => self.set(node, peer, rules, &wanted),
            Call::List => Ok(json!(lock(&self.state).list(&self.limits, &client))),
            Call::Remove { app_name } => {
                let mut state = lock(&self.state);
                state.remove(&client, &app_name).map(|()| {
                    store(node, &state, &client);
                    json!({})
                })
            }
        };
        match outcome {
            Err(reason) => Some(Err(self.refusal(reason))),
            Ok(result) => {
                node.parts.journal.durable().await.ok()?;
                self.ring(client);
                Some(Ok(result))
            }
        }
    }

    fn set(
        &self,
        node: &Node,
        peer: &PublicKey,
        rules: &Rules,
        wanted: &SetWebhook,
    ) -> Result<Value, Reason> {
        let client = convert::node_id(peer);
        rules.admit(&client)?;
        let standing = Standing {
            has_channel: !node.cm.list_channels_with_counterparty(peer).is_empty(),
            has_order: node.lsp.as_ref().is_some_and(|l| l.has_orders(&client)),
        };
        let mut state = lock(&self.state);
        let now = Millis(now_ms());
        let registered = state.set(&self.limits, &client, wanted, standing, now)?;
        if !registered.no_change {
            store(node, &state, &client);
            let name = &wanted.app_name;
            let log = &node.parts.log;
            log.info("lsps5", format_args!("{client} set webhook {name:?}"));
        }
        Ok(json!(registered))
    }

    fn refusal(&self, reason: Reason) -> RpcError {
        let error = RpcError::refusal(reason, None);
        if reason != Reason::TooManyWebhooks {
            return error;
        }
        RpcError {
            data: Some(json!({ "max_webhooks": self.limits.max_webhooks })),
            ..error
        }
    }

    /// Something that a client is to know, if it is away and has a webhook. False if it is told nothing.
    pub fn notify(&self, node: &Node, peer: &PublicKey, notice: Notice) -> bool {
        let client = convert::node_id(peer);
        if node.is_connected(peer) {
            return false;
        }
        let now = Millis(now_ms());
        let told = lock(&self.state).notify(&self.limits, &client, notice, now);
        if told {
            self.ring(client);
        }
        told
    }

    fn ring(&self, client: NodeId) {
        lock(&self.due).insert(client);
        self.bell.notify_one();
    }

    /// A client came or went.
    pub(super) fn on_presence(&self, client: &NodeId, connected: bool) {
        let mut state = lock(&self.state);
        if connected {
            state.came_online(client);
        } else {
            state.went_offline(client);
        }
    }

    /// Webhooks of clients that have left are forgotten in time; clients are told of HTLCs that are about to run out.
    pub(super) fn on_block(&self, node: &Node) {
        let channels = node.cm.list_channels();
        let having: HashSet<NodeId> = channels
            .iter()
            .map(|c| convert::node_id(&c.counterparty.node_id))
            .collect();
        {
            let mut state = lock(&self.state);
            let now = Millis(now_ms());
            for client in state.review(&self.limits, |id| having.contains(id), now) {
                store(node, &state, &client);
                if !state.has(&client) {
                    let log = &node.parts.log;
                    log.info("lsps5", format_args!("webhooks of {client} are forgotten"));
                }
            }
        }
        let height = node.height();
        let mut closing: BTreeMap<PublicKey, Vec<u32>> = BTreeMap::new();
        for channel in &channels {
            let peer = channel.counterparty.node_id;
            let outbound = channel
                .pending_outbound_htlcs
                .iter()
                .filter(|htlc| !htlc.is_dust)
                .map(|htlc| htlc.cltv_expiry.saturating_add(GRACE_BLOCKS));
            // With the preimage, which the client has yet to take from us.
            let fulfilled = Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFulfill);
            let inbound = channel
                .pending_inbound_htlcs
                .iter()
                .filter(|htlc| !htlc.is_dust && htlc.state == fulfilled)
                .map(|htlc| htlc.cltv_expiry.saturating_sub(CLAIM_BLOCKS));
            closing
                .entry(peer)
                .or_default()
                .extend(outbound.chain(inbound));
        }
        for (peer, heights) in closing {
            if let Some(timeout) = expiry_soon(height, heights.into_iter()) {
                self.notify(node, &peer, Notice::ExpirySoon { timeout });
            }
        }
    }

    /// How many webhooks there are, and what came of notifications since the start.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = lock(&self.counts).clone();
        let registered = lock(&self.state).count();
        counts.insert("registered", u64::try_from(registered).unwrap_or(u64::MAX));
        counts
    }

    fn count(&self, what: &'static str) {
        let mut counts = lock(&self.counts);
        let n = counts.entry(what).or_insert(0);
        *n = n.saturating_add(1);
    }

    /// Sends one notification, unless it has become idle meanwhile.
    async fn send(&self, node: &Node, post: &Post) {
        let pauses = std::iter::once(Duration::ZERO).chain(RETRIES);
        let mut outcome = None;
        for pause in pauses {
            tokio::time::sleep(pause).await;
            let Some(turn) = self.https.turn().await else {
                return;
            };
            let Some(letter) = self.write(node, post) else {
                self.count("idle");
                return;
            };
            let (timestamp, signature, body) = letter;
            let letter = Letter {
                url: &post.url,
                timestamp: &timestamp,
                signature: &signature,
                body,
            };
            let sent = self.https.post(&turn, letter).await;
            let again = sent.as_ref().is_err_and(|e| e.may_pass());
            outcome = Some(sent);
            if !again {
                break;
            }
        }
        let (word, detail) = match outcome {
            Some(Ok(200)) => ("delivered", String::new()),
            Some(Ok(status)) => ("status", format!("status {status}")),
            Some(Err(error)) => (error.word(), error.to_string()),
            None => return,
        };
        self.count(word);
        let delivered = word == "delivered";
        let (client, name) = (&post.client, &post.app_name);
        let method = post.notice.method();
        if delivered {
            let log = &node.parts.log;
            log.info("lsps5", format_args!("{client} {name:?}: {method} sent"));
        } else {
            // Not with the URL, which may have a secret of the client's.
            self.seldom.warn(
                &node.parts.log,
                "lsps5",
                format_args!("{client} {name:?}: {method} not delivered: {detail}"),
            );
        }
        // Strangers register as they like: what they cause fills no store.
        if post.notice != Notice::WebhookRegistered {
            node.events.emit(&NodeEvent::WebhookCalled {
                client: *client,
                app_name: name.clone(),
                method: method.to_owned(),
                delivered,
                detail: ldkjit_core::lsps0::clean_text(&detail),
            });
        }
    }

    /// Timestamp, signature and body of a notification; `None` if there is no need of it any more.
    fn write(&self, node: &Node, post: &Post) -> Option<(String, String, String)> {
        let peer = convert::public_key(&post.client)?;
        if post.notice != Notice::WebhookRegistered && node.is_connected(&peer) {
            return None;
        }
        let at = {
            let mut state = lock(&self.state);
            if !state.is_wanted(post) {
                return None;
            }
            state.stamp(Millis(now_ms()))
        };
        let (timestamp, body) = (format_datetime(at), post.notice.body());
        let text = signing_text(&timestamp, &body);
        let signature = node.parts.keys.sign_message(text.as_bytes()).ok()?;
        Some((timestamp, signature, body))
    }
}

fn store(node: &Node, state: &Webhooks, client: &NodeId) {
    let journal = &node.parts.journal;
    match state.row(client).map(serde_json::to_vec) {
        Some(Ok(row)) => journal.put(KIND, client.to_string(), row),
        Some(Err(e)) => {
            let log = &node.parts.log;
            log.error("lsps5", format_args!("webhooks of {client}: {e}"));
        }
        None => journal.delete(KIND, client.to_string()),
    }
}

fn of(node: &Node) -> Option<&Hooks> {
    node.lsp.as_ref()?.webhooks.as_ref()
}

/// Sends what waits, each webhook in its own time.
pub async fn run(node: Arc<Node>) {
    let Some(hooks) = of(&node) else {
        return;
    };
    loop {
        let due = std::mem::take(&mut *lock(&hooks.due));
        for client in due {
            let idle = lock(&hooks.state).take_idle(&client);
            for app_name in idle {
                node.spawn(serve(Arc::clone(&node), client, app_name));
            }
        }
        hooks.bell.notified().await;
    }
}

/// Sends all that waits for one webhook, in order (W-11).
async fn serve(node: Arc<Node>, client: NodeId, app_name: String) {
    let Some(hooks) = of(&node) else {
        return;
    };
    loop {
        let next = lock(&hooks.state).next(&client, &app_name);
        let Some(post) = next else {
            return;
        };
        // Nobody hears of a webhook that is not stored yet (W-07).
        if node.parts.journal.durable().await.is_err() {
            return;
        }
        hooks.send(&node, &post).await;
        let mut state = lock(&hooks.state);
        if state.done(&post) {
            store(&node, &state, &client);
        }
    }
}
