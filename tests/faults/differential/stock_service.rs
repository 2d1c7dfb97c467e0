//! The stock handlers of a service, and an application around them that has the menu and rules of ours.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::NodeId;
use ldkjit_core::lsps2::{decide_get_info, GetInfoRequest};
use ldkjit_core::menu::FeeParams;
use ldkjit_core::reason::Reason;
use ldkjit_node::convert;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps2::event::LSPS2ServiceEvent;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;
use lightning_liquidity::lsps5::event::LSPS5ServiceEvent;
use serde_json::Value;

use super::asking::Setting;
use super::our_service::{scid, Ours, CLTV_DELTA, SECRET};
use super::services::Outcome;
use crate::common::stock::Liquidity;

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
