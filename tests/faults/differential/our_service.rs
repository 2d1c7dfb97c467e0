//! Our service without its node: its decisions put together as the node does.

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
use ldkjit_core::time::Millis;
use ldkjit_core::webhooks::{self, Webhooks};
use ldkjit_node::convert;
use serde_json::{json, Value};

use super::asking::{Setting, TOKEN};
use super::services::Outcome;

pub const SECRET: Secret = Secret([9; 32]);
pub const CLTV_DELTA: u16 = 144;
const COINS: Coins = Coins {
    coins_sat: 1_000_000_000_000,
    overhead_sat: 500,
    chain_fee_sat: 0,
    sizing: Sizing {
        sat_per_kw: 1_000,
        provision_ppm: 0,
        provision_sat: 0,
        min_sat: 20_000,
        max_sat: 10_000_000,
    },
    inbound: Msat(u64::MAX),
};

pub fn scid(sold: u64) -> Scid {
    Scid((100 << 40) | (sold << 16) | 1)
}

/// Our service without its node: what `lsp/messages.rs` and `lsp/webhooks.rs` do, in the same order.
#[derive(Clone)]
pub struct Ours {
    pub rules: Arc<Rules>,
    pub coins: Coins,
    hooks: webhooks::Limits,
    pub asked_at: Millis,
    now: Millis,
    pub clients: [PublicKey; 2],
    pub books: Books,
    webhooks: Webhooks,
    /// LSPS5 is offered.
    has_webhooks: bool,
    pub sold: u64,
}

fn rules(setting: &Setting, clients: &[PublicKey; 2]) -> Rules {
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
    pub fn book(
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
            unknown_token: false,
            reserved_sat: 0,
        }));
        response
    }
}
