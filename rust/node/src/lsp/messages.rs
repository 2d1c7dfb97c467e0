//! Answers LSPS0, LSPS2 and LSPS5 requests; a sale is durable before its answer leaves.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::ids::{NodeId, Scid};
use ldkjit_core::lsps0::{encode_result, parse_request, Request, RpcError};
use ldkjit_core::lsps2::{
    decide_buy, get_info_result, protocols_result, BuyRequest, BuyResponse, Call, Sale, Seller,
};
use ldkjit_core::lsps5;
use ldkjit_core::order::{Order, Terms};
use ldkjit_core::quota::Used;
use ldkjit_core::reason::Reason;
use ldkjit_core::time::Millis;
use serde_json::Value;

use super::policy::refused;
use super::{Service, State, KIND};
use crate::convert;
use crate::crash;
use crate::events::NodeEvent;
use crate::log::now_ms;
use crate::node::Node;
use crate::sync::lock;

/// Scids of LDK that are looked at before one that was sold before will do.
const SCID_TRIES: u32 = 20;
/// How old the count of channels and coins may be for an answer that binds nobody.
pub(super) const A_SECOND: Duration = Duration::from_secs(1);
/// How old it may be for a refusal on its account.
const A_MOMENT: Duration = Duration::from_millis(100);

impl Service {
    /// Answers one message in a task of its own, unless the peer has too many under way.
    pub fn on_message(node: &Arc<Node>, peer: PublicKey, payload: Vec<u8>) {
        let Some(service) = &node.lsp else {
            return;
        };
        let request = match parse_request(&payload) {
            Ok(request) => request,
            Err(response) => {
                service.seldom.warn(
                    &node.parts.log,
                    "lsps0",
                    format_args!("bad message from {peer}: {}", response.error.message),
                );
                service.refuse(node, &response.error);
                node.transport.send(peer, response.encode());
                return;
            }
        };
        node.parts.journal.metrics().asked(&request.method);
        {
            let mut state = lock(&service.state);
            let under_way = state.requests.entry(peer).or_insert(0);
            if *under_way >= service.config.limits.max_pending_requests {
                let error = refused(Reason::TooManyRequests);
                drop(state);
                service.refuse(node, &error);
                service.seldom.warn(
                    &node.parts.log,
                    "lsps0",
                    format_args!("request of {peer} refused: {}", error.message),
                );
                node.transport
                    .send(peer, error.answering(&request.id).encode());
                return;
            }
            *under_way = under_way.saturating_add(1);
        }
        let node_for_task = Arc::clone(node);
        node.spawn(async move {
            let node = node_for_task;
            let Some(service) = &node.lsp else {
                return;
            };
            let answer = service.answer(&node, &peer, &request, &payload).await;
            crash::point(match request.method.as_str() {
                ldkjit_core::lsps2::GET_INFO => "get_info:before",
                ldkjit_core::lsps2::BUY => "buy:before",
                _ => "other_request:before",
            });
            {
                let mut state = lock(&service.state);
                if let Some(n) = state.requests.get_mut(&peer) {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        state.requests.remove(&peer);
                    }
                }
            }
            match answer {
                Some(Ok(result)) => node
                    .transport
                    .send(peer, encode_result(&request.id, &result)),
                Some(Err(error)) => {
                    service.refuse(&node, &error);
                    node.parts.log.info(
                        "lsps2",
                        format_args!(
                            "{} of {peer} refused: {} ({})",
                            ldkjit_core::lsps0::clean_text(&request.method),
                            error.message,
                            error.code
                        ),
                    );
                    node.transport
                        .send(peer, error.answering(&request.id).encode());
                }
                // The store failed: what is not durable is not promised, and the node is stopping.
                None => {}
            }
        });
    }

    fn refuse(&self, node: &Node, why: &RpcError) {
        node.parts.journal.metrics().refused(why);
        lock(&self.state).refused.add(why);
    }

    async fn answer(
        &self,
        node: &Arc<Node>,
        peer: &PublicKey,
        request: &Request,
        payload: &[u8],
    ) -> Option<Result<Value, RpcError>> {
        if let Some(hooks) = &self.webhooks {
            if request.method.starts_with(lsps5::PREFIX) {
                let rules = &self.rules;
                return hooks.answer(node, peer, rules, request, payload).await;
            }
        }
        let client = convert::node_id(peer);
        match Call::parse(request, true) {
            Err(error) => Some(Err(error)),
            Ok(Call::ListProtocols) => Some(Ok(protocols_result(true, self.webhooks.is_some()))),
            Ok(Call::GetInfo(ask)) => {
                let menu = self.menu(node, &client, &ask).await?;
                Some(menu.map(|menu| get_info_result(&menu)))
            }
            Ok(Call::Buy(buy)) => {
                // Looked at first without the gate and without the store: a refusal costs neither.
                let look = |max_age| self.decide(node, &lock(&self.state), &client, &buy, max_age);
                let wanted = match look(A_SECOND) {
                    // What was short may have come meanwhile.
                    Err(Reason::NoLiquidity | Reason::CoinsPromised | Reason::StrangersShare) => {
                        look(A_MOMENT)
                    }
                    decided => decided,
                };
                let sold = match wanted {
                    Ok(sale) => self.sell(node, &client, &buy, &sale).await,
                    Err(reason) => Err(refused(reason)),
                };
                match sold {
                    // A node whose store failed is about to end: it does not refuse, it is silent.
                    Err(error)
                        if error == refused(Reason::Internal)
                            && node.parts.journal.durable().await.is_err() =>
                    {
                        None
                    }
                    Err(error) => Some(Err(error)),
                    Ok(response) => {
                        let durable = node.parts.journal.durable().await;
                        durable.is_ok().then(|| Ok(response.to_result()))
                    }
                }
            }
        }
    }

    /// A scid for the next sale: never sold before, as payers may still hold invoices that name it. A regtest of a
    /// few blocks has only 2,500; there one whose order is over is sold again.
    async fn new_scid(&self, node: &Node) -> Result<Scid, Reason> {
        let mut used = None;
        for _ in 0..SCID_TRIES {
            let scid = Scid(node.cm.get_intercept_scid());
            if lock(&self.state).orders.contains_key(&scid) {
                continue;
            }
            match node.parts.journal.read(KIND, scid.to_string()).await {
                Ok(None) => return Ok(scid),
                Ok(Some(_)) => used = Some(scid),
                Err(_) => return Err(Reason::Internal),
            }
        }
        used.ok_or(Reason::TooManyOrders)
    }

    /// What may be sold, as things stood at most this long ago.
    fn decide(
        &self,
        node: &Node,
        state: &State,
        client: &NodeId,
        buy: &BuyRequest,
        max_age: Duration,
    ) -> Result<Sale, Reason> {
        let seller = Seller {
            rules: &self.rules,
            secret: &self.secret,
            grants: state.grants.tokens(),
            books: &state.books,
            stock: &self.stock(node, max_age),
            scores: state.scores.of(client),
        };
        let now = Millis(now_ms());
        let sale = decide_buy(&seller, buy, client, now)?;
        self.take_quota(state, &sale, now)?;
        Ok(sale)
    }

    /// What a sale leaves used of the quota that it falls under, and whose that is; nothing if there is none.
    fn take_quota<'a>(
        &self,
        state: &State,
        sale: &'a Sale,
        now: Millis,
    ) -> Result<Option<(Option<&'a str>, Used)>, Reason> {
        let token = self.rules.quota_of(sale.token.as_deref());
        let used = state.quotas.of(&self.secret, token);
        let taken = self.rules.take_quota(token, used, now)?;
        Ok(taken.map(|used| (token, used)))
    }

    /// Sells, under the gate: the order, its ledger row and its event are one commit. What was decided before the
    /// operator's hook was asked is decided again after its answer, since other sales went on meanwhile.
    async fn sell(
        &self,
        node: &Node,
        client: &NodeId,
        buy: &BuyRequest,
        wanted: &Sale,
    ) -> Result<BuyResponse, RpcError> {
        let terms = self.ask_to_sell(node, client, wanted).await?;
        loop {
            let scid = self.new_scid(node).await.map_err(refused)?;
            let _gate = node.parts.journal.gate().await;
            let mut state = lock(&self.state);
            // Another sale may have drawn the same one meanwhile.
            if !state.orders.contains_key(&scid) {
                let sale = self
                    .decide(node, &state, client, buy, Duration::ZERO)
                    .map_err(refused)?;
                return Ok(self.book(node, &mut state, client, scid, terms.agree(sale)));
            }
        }
    }

    fn book(
        &self,
        node: &Node,
        state: &mut State,
        client: &NodeId,
        scid: Scid,
        sale: Sale,
    ) -> BuyResponse {
        let response = BuyResponse {
            scid,
            cltv_delta: self.config.cltv_expiry_delta,
            trust: sale.trust,
        };
        if let Ok(Some((token, used))) = self.take_quota(state, &sale, Millis(now_ms())) {
            let journal = &node.parts.journal;
            state.quotas.set(journal, &self.secret, token, used);
        }
        let order = Order::new(Terms {
            scid,
            client: *client,
            size: sale.size,
            params: sale.params,
            trust: sale.trust,
            cltv_delta: self.config.cltv_expiry_delta,
            sold_at: Millis(now_ms()),
            token: sale.token,
            unknown_token: sale.unknown_token,
            reserved_sat: sale.reserved_sat,
        });
        node.record(&order.sold_entry());
        node.events.emit(&NodeEvent::OrderSold {
            scid,
            client: *client,
            size_msat: sale.size.map(|s| s.0),
        });
        self.keep(node, state, order);
        response
    }
}
