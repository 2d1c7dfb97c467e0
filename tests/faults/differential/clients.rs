//! The two clients: our decisions put together as the node does, and the stock handler.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::lsps0::{encode_request, parse_response, request_id, FromLsp};
use ldkjit_core::lsps2::{
    buy_params, check_buy_response, parse_menu, BuyResponse, GetInfoRequest, Offer, BUY, GET_INFO,
};
use ldkjit_core::time::parse_datetime;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use serde_json::{json, Value};

use crate::common::stock::Liquidity;

/// What a client made of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Understood {
    /// Entries as JSON, date-times as milliseconds.
    Menu(Vec<Value>),
    Sold {
        scid: u64,
        cltv_delta: u32,
        client_trusts_lsp: bool,
    },
    Refused(i64),
}

/// What came of a message: what the application heard, and what went back to the LSP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub understood: Option<Understood>,
    pub said: Vec<Value>,
}

/// What an open request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Menu,
    Sale,
}

fn entry(mut offer: Value) -> Value {
    let until = offer["valid_until"].as_str().and_then(parse_datetime);
    offer["valid_until"] = json!(until);
    offer
}

// ---- ours ----

/// Our client without its node: what `client/request.rs` and `client/buy.rs` do.
#[derive(Clone)]
pub struct Ours {
    trusted: bool,
    waiting: BTreeMap<String, Wanted>,
    /// The LSP is asked nothing more on this connection (T-05).
    pub silenced: bool,
    pub menu: Vec<Offer>,
    pub ids: Vec<String>,
}

impl Ours {
    pub fn new(trusted: bool) -> Self {
        Self {
            trusted,
            waiting: BTreeMap::new(),
            silenced: false,
            menu: Vec::new(),
            ids: Vec::new(),
        }
    }

    fn call(&mut self, wanted: Wanted, method: &str, params: &Value) -> Option<Value> {
        if self.silenced {
            return None;
        }
        let n = u8::try_from(self.ids.len()).unwrap();
        let id = request_id([n; 16]);
        self.ids.push(id.clone());
        self.waiting.insert(id.clone(), wanted);
        serde_json::from_slice(&encode_request(&id, method, params)).ok()
    }

    pub fn ask_menu(&mut self, token: Option<String>) -> Option<Value> {
        let params = GetInfoRequest { token }.to_params();
        self.call(Wanted::Menu, GET_INFO, &params)
    }

    pub fn ask_sale(&mut self, at: usize, size: Option<u64>) -> Option<Value> {
        let params = buy_params(&self.menu[at], size.map(Msat));
        self.call(Wanted::Sale, BUY, &params)
    }

    pub fn awaits(&self, id: &str) -> bool {
        self.waiting.contains_key(id)
    }

    /// The time is over for all that was asked.
    pub fn time_out(&mut self) {
        self.waiting.clear();
    }

    pub fn reconnect(&mut self) {
        self.silenced = false;
        self.waiting.clear();
    }

    pub fn hear(&mut self, payload: &[u8]) -> Outcome {
        let understood = match parse_response(payload) {
            Ok(FromLsp::Response {
                id: Some(id),
                outcome,
            }) => match (self.waiting.remove(&id), outcome) {
                (None, _) => None,
                (Some(_), Err(error)) => Some(Understood::Refused(error.effective_code())),
                (Some(Wanted::Menu), Ok(result)) => self.read_menu(&result),
                (Some(Wanted::Sale), Ok(result)) => self.read_sale(&result),
            },
            Ok(_) => None,
            Err(_) => {
                self.silenced = true;
                None
            }
        };
        Outcome {
            understood,
            said: Vec::new(),
        }
    }

    fn read_menu(&mut self, result: &Value) -> Option<Understood> {
        self.menu = parse_menu(result).ok()?;
        let params = self.menu.iter().map(|offer| json!(offer.params));
        Some(Understood::Menu(params.map(entry).collect()))
    }

    fn read_sale(&self, result: &Value) -> Option<Understood> {
        let bought = BuyResponse::parse(result).ok()?;
        check_buy_response(&bought, self.trusted).ok()?;
        Some(Understood::Sold {
            scid: bought.scid.0,
            cltv_delta: u32::from(bought.cltv_delta),
            client_trusts_lsp: bought.trust.client_trusts_lsp(),
        })
    }
}

// ---- stock ----

/// The stock handler.
pub struct Stock {
    liquidity: Arc<Liquidity>,
    lsp: PublicKey,
    pub menu: Vec<LSPS2OpeningFeeParams>,
    pub ids: Vec<String>,
    /// It answered something with −32700, and listens no more.
    pub deaf: bool,
}

impl Stock {
    pub fn new(liquidity: Arc<Liquidity>, lsp: PublicKey) -> Self {
        Self {
            liquidity,
            lsp,
            menu: Vec::new(),
            ids: Vec::new(),
            deaf: false,
        }
    }

    fn sent(&self) -> Vec<Value> {
        let messages = self.liquidity.get_and_clear_pending_msg();
        let payloads = messages.iter().map(|(_, message)| &message.payload);
        payloads.map(|p| serde_json::from_str(p).unwrap()).collect()
    }

    fn request(&mut self, id: String) -> Option<Value> {
        self.ids.push(id);
        self.sent().pop()
    }

    pub fn ask_menu(&mut self, token: Option<String>) -> Option<Value> {
        let client = self.liquidity.lsps2_client_handler().unwrap();
        let id = client.request_opening_params(self.lsp, token).0;
        self.request(id)
    }

    pub fn ask_sale(&mut self, at: usize, size: Option<u64>) -> Option<Value> {
        let client = self.liquidity.lsps2_client_handler().unwrap();
        let offer = self.menu[at].clone();
        let id = client.select_opening_params(self.lsp, size, offer);
        self.request(id.unwrap().0)
    }

    pub fn reconnect(&mut self) {
        self.liquidity.peer_disconnected(self.lsp);
        self.deaf = false;
    }

    pub fn hear(&mut self, payload: &[u8]) -> Outcome {
        let payload = String::from_utf8(payload.to_vec()).unwrap();
        let message = RawLSPSMessage { payload };
        drop(self.liquidity.handle_custom_message(message, self.lsp));
        let understood = self.liquidity.next_event().map(|event| match event {
            LiquidityEvent::LSPS2Client(LSPS2ClientEvent::OpeningParametersReady {
                opening_fee_params_menu,
                ..
            }) => {
                self.menu = opening_fee_params_menu;
                let entries = self.menu.iter().map(|offer| json!(offer));
                Understood::Menu(entries.map(entry).collect())
            }
            LiquidityEvent::LSPS2Client(LSPS2ClientEvent::InvoiceParametersReady {
                intercept_scid,
                cltv_expiry_delta,
                ..
            }) => Understood::Sold {
                scid: intercept_scid,
                cltv_delta: cltv_expiry_delta,
                // It does not tell: whoever listens must take the LSP at its usual word.
                client_trusts_lsp: false,
            },
            LiquidityEvent::LSPS2Client(
                LSPS2ClientEvent::GetInfoFailed { error, .. }
                | LSPS2ClientEvent::BuyRequestFailed { error, .. },
            ) => Understood::Refused(i64::from(error.code)),
            other => panic!("{other:?}"),
        });
        assert!(self.liquidity.next_event().is_none());
        let said = self.sent();
        self.deaf |= !said.is_empty();
        Outcome { understood, said }
    }
}
