//! The two services: our decisions put together as the node does, and the stock handlers with an application around them
//! that has the same menu and rules.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{NodeId, Scid};
use ldkjit_core::liquidity::{Books, Lending, Stock as Coins};
use ldkjit_core::lsps0::{encode_result, parse_request, side_of, Request, RpcError, Side};
use ldkjit_core::lsps2::{
    decide_buy, decide_get_info, get_info_result, protocols_result, BuyRequest, BuyResponse, Call,
    GetInfoRequest, Seller,
};
use ldkjit_core::lsps5;
use ldkjit_core::menu::{FeeParams, Secret, TrustModel};
use ldkjit_core::order::{Order, Terms};
use ldkjit_core::reason::Reason;
use ldkjit_core::rules::{Limits, Rules};
use ldkjit_core::sizing::Sizing;
use ldkjit_core::time::{parse_datetime, Millis};
use ldkjit_core::webhooks::{self, Webhooks};
use ldkjit_node::convert;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps2::event::LSPS2ServiceEvent;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;
use lightning_liquidity::lsps5::event::LSPS5ServiceEvent;
use serde_json::{json, Value};

use super::asking::{Setting, TOKEN};
use crate::common::stock::Liquidity;

const SECRET: Secret = Secret([9; 32]);
const CLTV_DELTA: u16 = 144;
const COINS: Coins = Coins {
    coins_sat: 1_000_000_000_000,
    overhead_sat: 500,
    sizing: Sizing {
        sat_per_kw: 1_000,
        provision_ppm: 0,
        provision_sat: 0,
        min_sat: 20_000,
        max_sat: 10_000_000,
    },
    inbound: Msat(u64::MAX),
};

/// What is sent to a webhook: its name, where to, and which method.
pub type Post = (String, String, String);

/// An answer, as far as the two can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub id: Value,
    /// The result, or the error's code and data.
    pub body: Result<Value, (i64, Option<Value>)>,
}

/// What came of one message.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub answers: Vec<Answer>,
    pub posts: Vec<Post>,
    /// The connection is cut.
    pub hung_up: bool,
    /// The application was asked.
    pub asked: bool,
    /// Why the application would have refused, had it a way to say so.
    pub refused: Option<Reason>,
    /// The menu in it, as the client gets it.
    pub menu: Option<Vec<Value>>,
}

impl Outcome {
    pub fn same(&self, other: &Self) -> bool {
        (&self.answers, &self.posts, self.hung_up) == (&other.answers, &other.posts, other.hung_up)
    }

    pub fn code(&self) -> Option<i64> {
        match self.answers.as_slice() {
            [Answer {
                body: Err((code, _)),
                ..
            }] => Some(*code),
            _ => None,
        }
    }

    pub fn result(&self) -> Option<&Value> {
        match self.answers.as_slice() {
            [Answer {
                body: Ok(result), ..
            }] => Some(result),
            _ => None,
        }
    }

    pub fn silent(&self) -> bool {
        self.answers.is_empty() && !self.hung_up
    }

    /// −32700 to nobody.
    pub fn not_understood(&self) -> bool {
        self.code() == Some(-32_700) && self.answers[0].id.is_null()
    }

    /// Whether a sale or a webhook came of it.
    pub fn changed(&self) -> bool {
        self.result().is_some_and(|result| {
            result.get("jit_channel_scid").is_some()
                || result["no_change"] == false
                || *result == json!({})
        })
    }

    pub fn add(&mut self, bytes: &[u8]) {
        let mut answer: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(answer["jsonrpc"], "2.0");
        let fields = answer.as_object_mut().unwrap();
        let id = fields.remove("id").unwrap();
        let body = match (fields.remove("result"), fields.remove("error")) {
            (Some(mut result), None) => {
                self.menu = result
                    .get("opening_fee_params_menu")
                    .and_then(Value::as_array)
                    .cloned();
                normalise(&mut result);
                Ok(result)
            }
            (None, Some(error)) => {
                assert!(error["message"].is_string());
                let data = error.get("data").filter(|data| !data.is_null());
                Err((error["code"].as_i64().unwrap(), data.cloned()))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(fields.len(), 1, "{fields:?}");
        self.answers.push(Answer { id, body });
    }
}

/// Takes away what no two services have alike, and what may be in any order or form.
fn normalise(result: &mut Value) {
    if let Some(menu) = result.get_mut("opening_fee_params_menu") {
        for offer in menu.as_array_mut().unwrap() {
            let promise = offer["promise"].as_str().unwrap();
            assert!(promise.len() <= 512 && promise.bytes().all(|b| b.is_ascii_graphic()));
            offer["promise"] = json!("…");
            let until = parse_datetime(offer["valid_until"].as_str().unwrap()).unwrap();
            offer["valid_until"] = json!(until);
        }
    }
    if let Some(names) = result.get_mut("app_names") {
        // The specification asks for no order (W-12).
        let mut list: Vec<String> = serde_json::from_value(names.clone()).unwrap();
        list.sort();
        *names = json!(list);
    }
}

fn scid(sold: u64) -> Scid {
    Scid((100 << 40) | (sold << 16) | 1)
}

// ---- ours ----

/// Our service without its node: what `lsp/messages.rs` and `lsp/webhooks.rs` do, in the same order.
#[derive(Clone)]
pub struct Ours {
    rules: Arc<Rules>,
    coins: Coins,
    hooks: webhooks::Limits,
    asked_at: Millis,
    now: Millis,
    clients: [PublicKey; 2],
    books: Books,
    webhooks: Webhooks,
    /// LSPS5 is offered.
    has_webhooks: bool,
    sold: u64,
}

pub fn rules(setting: &Setting, clients: &[PublicKey; 2]) -> Rules {
    let ids = clients.iter().map(convert::node_id);
    let most = Msat(u64::MAX);
    Rules {
        menu: setting.tiers.clone(),
        token_menus: [(TOKEN.to_owned(), setting.tiers.clone())].into(),
        deny: ids.filter(|_| setting.denied).collect(),
        limits: Limits {
            max_exposure_per_client_msat: most,
            max_exposure_msat: most,
            max_unconfirmed_per_client_msat: most,
            max_unconfirmed_msat: most,
            ..Limits::default()
        },
        // Tokens and strangers alike: the stock service cannot tell them apart at a sale (B-5).
        lending: Lending {
            strangers_ppm: 1_000_000,
            ..Lending::default()
        },
        trust: setting.trust,
        ..Rules::default()
    }
}

impl Ours {
    pub fn new(setting: &Setting, clients: [PublicKey; 2], now: Millis) -> Self {
        let rules = rules(setting, &clients);
        rules.validate().unwrap();
        Self {
            rules: Arc::new(rules),
            coins: Coins {
                inbound: setting.inbound,
                ..COINS
            },
            hooks: webhooks::Limits {
                max_webhooks: setting.max_webhooks,
                max_clients: 100,
                max_strangers: 100,
                cooldown_ms: 60_000,
                retention_ms: 7 * 86_400_000,
            },
            asked_at: Millis(now.0.saturating_sub(setting.age_ms)),
            now,
            clients,
            books: Books::default(),
            webhooks: Webhooks::default(),
            has_webhooks: true,
            sold: 0,
        }
    }

    pub fn without_webhooks(self) -> Self {
        Self {
            has_webhooks: false,
            ..self
        }
    }

    pub fn hear(&mut self, who: usize, payload: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        if side_of(payload, false) != Side::Service {
            return outcome;
        }
        let bytes = match parse_request(payload) {
            Err(response) => response.encode(),
            Ok(request) => match self.answer(who, &request, payload) {
                Ok(result) => encode_result(&request.id, &result),
                Err(error) => error.answering(&request.id).encode(),
            },
        };
        outcome.add(&bytes);
        let client = convert::node_id(&self.clients[who]);
        for name in self.webhooks.take_idle(&client) {
            while let Some(post) = self.webhooks.next(&client, &name) {
                self.webhooks.done(&post);
                let url = post.url.as_str().to_owned();
                let method = post.notice.method().to_owned();
                outcome.posts.push((post.app_name, url, method));
            }
        }
        outcome
    }

    fn answer(&mut self, who: usize, request: &Request, payload: &[u8]) -> Result<Value, RpcError> {
        let refuse = |reason| RpcError::refusal(reason, None);
        let client = convert::node_id(&self.clients[who]);
        if self.has_webhooks && request.method.starts_with(lsps5::PREFIX) {
            let call = lsps5::Call::parse(request, payload)?;
            return self.webhook(&client, &call).map_err(|reason| {
                let data = json!({ "max_webhooks": self.hooks.max_webhooks });
                RpcError {
                    data: (reason == Reason::TooManyWebhooks).then_some(data),
                    ..refuse(reason)
                }
            });
        }
        match Call::parse(request, true)? {
            Call::ListProtocols => Ok(protocols_result(true, self.has_webhooks)),
            Call::GetInfo(ask) => self.menu(&ask, &client).map_err(refuse),
            Call::Buy(buy) => self.sell(&buy, &client).map_err(refuse),
        }
    }

    fn webhook(&mut self, client: &NodeId, call: &lsps5::Call) -> Result<Value, Reason> {
        match call {
            lsps5::Call::Set(wanted) => {
                self.rules.admit(client)?;
                let standing = webhooks::Standing {
                    has_channel: false,
                    has_order: self.books.of(client).orders > 0,
                };
                let now = self.now;
                let set = self
                    .webhooks
                    .set(&self.hooks, client, wanted, standing, now);
                set.map(|registered| json!(registered))
            }
            lsps5::Call::List => Ok(json!(self.webhooks.list(&self.hooks, client))),
            lsps5::Call::Remove { app_name } => {
                let removed = self.webhooks.remove(client, app_name);
                removed.map(|()| json!({}))
            }
        }
    }

    fn menu(&self, ask: &GetInfoRequest, client: &NodeId) -> Result<Value, Reason> {
        let (rules, coins, at) = (&self.rules, &self.coins, self.asked_at);
        decide_get_info(rules, coins, &self.books, ask, client, &SECRET, at)
            .map(|menu| get_info_result(&menu))
    }

    fn sell(&mut self, buy: &BuyRequest, client: &NodeId) -> Result<Value, Reason> {
        let seller = Seller {
            rules: &self.rules,
            secret: &SECRET,
            grants: &self.rules.grants(&SECRET),
            books: &self.books,
            stock: &self.coins,
            scores: Default::default(),
        };
        let sale = decide_buy(&seller, buy, client, self.now)?;
        let response = self.book(client, sale.params, sale.size, sale.trust, sale.token);
        Ok(response.to_result())
    }

    /// No coins are reserved: there are enough for every conversation.
    fn book(
        &mut self,
        client: &NodeId,
        params: FeeParams,
        size: Option<Msat>,
        trust: TrustModel,
        token: Option<String>,
    ) -> BuyResponse {
        self.sold += 1;
        let response = BuyResponse {
            scid: scid(self.sold),
            cltv_delta: CLTV_DELTA,
            trust,
        };
        self.books.add(&Order::new(Terms {
            scid: response.scid,
            client: *client,
            size,
            params,
            trust,
            cltv_delta: CLTV_DELTA,
            sold_at: self.now,
            token,
            reserved_sat: 0,
        }));
        response
    }
}

// ---- stock ----

/// The stock handlers, and the application that answers their events.
pub struct Stock {
    liquidity: Arc<Liquidity>,
    /// The application's rules are ours: only what the handlers make of them is looked at.
    rules: Ours,
    finer_ns: u32,
    pub sold: [usize; 2],
    /// Listens no more to this client, though it is connected.
    pub deaf: [bool; 2],
    /// Is no longer connected to it.
    pub gone: [bool; 2],
}

/// One message and to whom its event is owed.
struct Waiting {
    id: Value,
    who: usize,
    at: usize,
}

impl Stock {
    pub fn new(liquidity: Arc<Liquidity>, setting: &Setting, ours: &Ours) -> Self {
        Self {
            liquidity,
            rules: ours.clone(),
            finer_ns: setting.finer_ns,
            sold: [0; 2],
            deaf: [false; 2],
            gone: [false; 2],
        }
    }

    pub fn reconnect(&mut self, who: usize) {
        self.liquidity.peer_disconnected(self.rules.clients[who]);
        self.deaf[who] = false;
        self.gone[who] = false;
    }

    /// Messages that come so quickly that the application sees none before the last.
    pub fn hear(&mut self, messages: &[(usize, Vec<u8>)]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::default(); messages.len()];
        let mut waiting = Vec::new();
        for (at, (who, payload)) in messages.iter().enumerate() {
            if self.gone[*who] {
                continue;
            }
            let mut bytes: &[u8] = payload;
            let read = self.liquidity.read(37_913, &mut bytes);
            let Ok(Some(message)) = read else {
                // LDK hangs up on whoever sends what it cannot read.
                outcomes[at].hung_up = true;
                self.gone[*who] = true;
                continue;
            };
            let sender = self.rules.clients[*who];
            drop(self.liquidity.handle_custom_message(message, sender));
            self.collect(&mut outcomes[at]);
            self.deaf[*who] |= outcomes[at].not_understood();
            if outcomes[at].silent() {
                let value: Option<Value> = serde_json::Deserializer::from_slice(payload)
                    .into_iter()
                    .next()
                    .and_then(Result::ok);
                let id = value.map(|v| v["id"].clone()).unwrap_or_default();
                waiting.push(Waiting { id, who: *who, at });
            }
        }
        while let Some(event) = self.liquidity.next_event() {
            self.on_event(event, &mut waiting, &mut outcomes);
        }
        outcomes
    }

    fn collect(&self, outcome: &mut Outcome) {
        for (_, message) in self.liquidity.get_and_clear_pending_msg() {
            outcome.add(message.payload.as_bytes());
        }
    }

    fn on_event(
        &mut self,
        event: LiquidityEvent,
        waiting: &mut Vec<Waiting>,
        outcomes: &mut [Outcome],
    ) {
        let mut take = |id: &str, client: &PublicKey| {
            let who = self.rules.clients.iter().position(|c| c == client).unwrap();
            let is_its = |w: &Waiting| w.who == who && w.id == id;
            let asked = waiting.iter().position(is_its);
            let at = waiting.remove(asked.unwrap()).at;
            outcomes[at].asked = true;
            (who, at)
        };
        let service = self.liquidity.lsps2_service_handler().unwrap();
        match event {
            LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::GetInfo {
                request_id,
                counterparty_node_id,
                token,
            }) => {
                let (_, at) = take(&request_id.0, &counterparty_node_id);
                let client = convert::node_id(&counterparty_node_id);
                let given = match self.menu(&client, token) {
                    Ok(menu) => service.opening_fee_params_generated(
                        &counterparty_node_id,
                        request_id,
                        menu,
                    ),
                    Err(Reason::UnknownToken) => {
                        service.invalid_token_provided(&counterparty_node_id, request_id)
                    }
                    // It can refuse a token and nothing else: an empty menu says as much as it can.
                    Err(reason) => {
                        outcomes[at].refused = Some(reason);
                        service.opening_fee_params_generated(
                            &counterparty_node_id,
                            request_id,
                            Vec::new(),
                        )
                    }
                };
                drop(given);
                self.collect(&mut outcomes[at]);
            }
            LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::BuyRequest {
                request_id,
                counterparty_node_id,
                opening_fee_params,
                payment_size_msat,
            }) => {
                let (who, at) = take(&request_id.0, &counterparty_node_id);
                let client = convert::node_id(&counterparty_node_id);
                let offer = serde_json::to_value(&opening_fee_params).unwrap();
                let offer: FeeParams = serde_json::from_value(offer).unwrap();
                match self.policy(&client, &offer, payment_size_msat.map(Msat)) {
                    // No way to say so.
                    Err(reason) => outcomes[at].refused = Some(reason),
                    Ok(()) => {
                        let trust = self.rules.rules.trust;
                        let given = service.invoice_parameters_generated(
                            &counterparty_node_id,
                            request_id,
                            scid(self.rules.sold + 1).0,
                            u32::from(CLTV_DELTA),
                            trust.client_trusts_lsp(),
                            u128::from(self.rules.sold),
                        );
                        // Not for a twin that was answered before.
                        if given.is_ok() {
                            let size = payment_size_msat.map(Msat);
                            self.rules.book(&client, offer, size, trust, None);
                            self.sold[who] += 1;
                        }
                    }
                }
                self.collect(&mut outcomes[at]);
            }
            LiquidityEvent::LSPS5Service(LSPS5ServiceEvent::SendWebhookNotification {
                app_name,
                url,
                notification,
                ..
            }) => {
                let body = serde_json::to_value(&notification).unwrap();
                let method = body["method"].as_str().unwrap().to_owned();
                // Requests about webhooks are not sent in haste: it belongs to the only one there is.
                let post = (app_name.to_string(), url.to_string(), method);
                outcomes.last_mut().unwrap().posts.push(post);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The offers that our rules make, last first.
    fn menu(
        &self,
        client: &NodeId,
        token: Option<String>,
    ) -> Result<Vec<LSPS2RawOpeningFeeParams>, Reason> {
        let ask = GetInfoRequest { token };
        let r = &self.rules;
        let menu = decide_get_info(
            &r.rules, &r.coins, &r.books, &ask, client, &SECRET, r.asked_at,
        )?;
        Ok(menu.0.iter().rev().map(|offer| self.raw(offer)).collect())
    }

    fn raw(&self, offer: &FeeParams) -> LSPS2RawOpeningFeeParams {
        let finer = std::time::Duration::from_nanos(u64::from(self.finer_ns));
        let until = std::time::Duration::from_millis(offer.valid_until.0) + finer;
        LSPS2RawOpeningFeeParams {
            min_fee_msat: offer.min_fee_msat.0,
            proportional: offer.proportional,
            valid_until: LSPSDateTime::new_from_duration_since_epoch(until),
            min_lifetime: offer.min_lifetime,
            max_client_to_self_delay: offer.max_client_to_self_delay,
            min_payment_size_msat: offer.min_payment_size_msat.0,
            max_payment_size_msat: offer.max_payment_size_msat.0,
        }
    }

    /// The operator's part of a sale, after the promise and the fee.
    fn policy(&self, client: &NodeId, offer: &FeeParams, size: Option<Msat>) -> Result<(), Reason> {
        let r = &self.rules;
        let amount = size.unwrap_or(offer.min_payment_size_msat);
        r.rules.admit(client)?;
        let limits = &r.rules.limits;
        limits.check(&r.rules.lending, &r.books, client, false, amount)?;
        r.coins.needed_sat(offer, size)?;
        if amount > r.coins.inbound {
            return Err(Reason::NoLiquidity);
        }
        Ok(())
    }
}
