//! Asks the operator's hooks and acts on what core makes of their answers.

use std::sync::Arc;
use std::time::Duration;

use ldkjit_core::ids::{NodeId, OpenId, Scid};
use ldkjit_core::liquidity::Stock;
use ldkjit_core::lsps0::RpcError;
use ldkjit_core::lsps2::{decide_get_info, offer_tiers, GetInfoRequest, Sale};
use ldkjit_core::menu::{Grant, Menu};
use ldkjit_core::order::{Input, OpenPhase};
use ldkjit_core::policy::{
    Answer, ChannelQuestion, ChannelYes, Hook, MenuQuestion, MenuYes, Present, SellQuestion,
    SellYes, Who, MAX_TOKEN,
};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::Millis;

use super::hooks::Desk;
use super::messages::A_SECOND;
use super::{Service, State};
use crate::log::now_ms;
use crate::node::Node;
use crate::sync::lock;

/// A refusal without words of the operator's.
pub(super) fn refused(reason: Reason) -> RpcError {
    RpcError::refusal(reason, None)
}

impl Service {
    /// The desk, if this hook is the operator's own.
    pub(super) fn asks(&self, hook: Hook) -> Option<&Desk> {
        self.desk.as_deref().filter(|desk| desk.has(hook))
    }

    fn who(&self, state: &State, client: &NodeId, token: Option<&str>) -> Who {
        let paid = state.of_client(client);
        let paid = paid.iter().filter(|scid| {
            let order = state.orders.get(scid);
            order.is_some_and(|order| order.paid && order.open.is_some())
        });
        let (score, _) = state.scores.of(client);
        Who::new(
            *client,
            token.map(str::to_owned),
            &state.books.of(client),
            u32::try_from(paid.count()).unwrap_or(u32::MAX),
            score.at(Millis(now_ms()), self.config.patience.forgive_ms),
        )
    }

    fn present(&self, node: &Node, state: &State, stock: &Stock) -> Present {
        let rate = node.parts.fees.fresh().map_or(0, |rates| rates.normal);
        Present::new(Millis(now_ms()), node.height(), rate, &state.books, stock)
    }

    /// The menu for a client: the rules', or the hook's. `None` if the store failed.
    pub(super) async fn menu(
        &self,
        node: &Node,
        client: &NodeId,
        ask: &GetInfoRequest,
    ) -> Option<Result<Menu, RpcError>> {
        let token = ask.token.as_deref();
        let (rules, secret) = (&self.rules, &self.secret);
        let stock = self.stock(node, A_SECOND);
        let now = Millis(now_ms());
        let Some(desk) = self.asks(Hook::Menu) else {
            let books = &lock(&self.state).books;
            let menu = decide_get_info(rules, &stock, books, ask, client, secret, now);
            return Some(menu.map_err(refused));
        };
        if let Err(reason) = rules.admit(client) {
            return Some(Err(refused(reason)));
        }
        if token.is_some_and(|token| token.len() > MAX_TOKEN) {
            return Some(Err(refused(Reason::UnknownToken)));
        }
        let question = {
            let state = lock(&self.state);
            MenuQuestion {
                client: self.who(&state, client, token),
                menu: rules
                    .offered(token, now, stock.chain_fee_sat)
                    .unwrap_or_default(),
                state: self.present(node, &state, &stock),
            }
        };
        let asked = desk.ask(&node.parts.log, Hook::Menu, &question, MenuYes::check);
        let tiers = match asked.await {
            Ok(Answer::Yes(MenuYes { tiers })) => tiers,
            Ok(Answer::Refuse(no)) => {
                let reason = no.reason(Hook::Menu);
                return Some(Err(RpcError::refusal(reason, no.words())));
            }
            // Nothing is for sale while nobody says what for (J-08).
            Err(_) => Vec::new(),
        };
        let now = Millis(now_ms());
        let menu = {
            let books = &lock(&self.state).books;
            offer_tiers(rules, &tiers, &stock, books, token, client, secret, now)
        };
        let menu = match menu {
            Ok(menu) => menu,
            Err(reason) => return Some(Err(refused(reason))),
        };
        let last = menu.0.iter().map(|params| params.valid_until).max();
        if let (Some(token), Some(until)) = (token, last) {
            let kept = self.grant(node, token, until);
            // The promises must verify after a crash too.
            if kept && node.parts.journal.durable().await.is_err() {
                return None;
            }
        }
        Some(Ok(menu))
    }

    /// Remembers which token stands behind the promises just made. True if that is for the store to keep.
    fn grant(&self, node: &Node, token: &str, until: Millis) -> bool {
        let grant = Grant::of(&self.secret, Some(token));
        let grants = &mut lock(&self.state).grants;
        grants.add(&node.parts.journal, grant, token, until)
    }

    /// Asks whether a sale that the rules have no objection to is made, and on which terms.
    pub(super) async fn ask_to_sell(
        &self,
        node: &Node,
        client: &NodeId,
        sale: &Sale,
    ) -> Result<SellYes, RpcError> {
        let Some(desk) = self.asks(Hook::Sell) else {
            return Ok(SellYes::default());
        };
        let question = {
            let stock = self.stock(node, A_SECOND);
            let state = lock(&self.state);
            let who = self.who(&state, client, sale.token.as_deref());
            SellQuestion::new(sale, who, self.present(node, &state, &stock))
        };
        let asked = desk.ask(&node.parts.log, Hook::Sell, &question, |_: &SellYes| Ok(()));
        match asked.await {
            Ok(Answer::Yes(yes)) => Ok(yes),
            Ok(Answer::Refuse(no)) => {
                let reason = no.reason(Hook::Sell);
                Err(RpcError::refusal(reason, no.words()))
            }
            Err(_) => Err(refused(Reason::PolicyFailed)),
        }
    }

    /// Has the hook asked about an open, in a task of its own: the order waits as long as its parts do.
    pub(super) fn ask_to_open(&self, node: &Node, scid: Scid, open: OpenId, needed_sat: u64) {
        let Some(node) = node.me.upgrade() else {
            return;
        };
        let task = Arc::clone(&node);
        node.spawn(async move {
            if let Some(service) = &task.lsp {
                service.asked_to_open(&task, scid, open, needed_sat).await;
            }
        });
    }

    async fn asked_to_open(&self, node: &Node, scid: Scid, open: OpenId, needed_sat: u64) {
        let Some(desk) = self.asks(Hook::Channel) else {
            return;
        };
        let question = {
            let stock = self.stock(node, A_SECOND);
            let state = lock(&self.state);
            let Some(order) = state.orders.get(&scid) else {
                return;
            };
            let asking = order.open.as_ref();
            if !asking.is_some_and(|o| o.id == open && o.phase == OpenPhase::Asking) {
                return;
            }
            let token = order.terms.token.as_deref();
            let who = self.who(&state, &order.terms.client, token);
            ChannelQuestion::new(order, needed_sat, who, self.present(node, &state, &stock))
        };
        let log = &node.parts.log;
        let told = desk
            .ask(log, Hook::Channel, &question, |_: &ChannelYes| Ok(()))
            .await;
        // The order, its ledger row and what LDK is told are one commit.
        let _gate = node.parts.journal.gate().await;
        let stock = self.stock(node, Duration::ZERO);
        let mut state = lock(&self.state);
        let Some(order) = state.orders.get(&scid) else {
            return;
        };
        let (rules, books) = (&self.rules, &state.books);
        let answer = match told {
            Ok(Answer::Yes(yes)) => Ok(yes.grant(rules, books, &stock, order, needed_sat)),
            Ok(Answer::Refuse(no)) => {
                if let Some(words) = no.words() {
                    log.info(
                        "policy",
                        format_args!(
                            "order {scid}: hook channel refused: {}",
                            ldkjit_core::lsps0::clean_text(words)
                        ),
                    );
                }
                Err(no.reason(Hook::Channel))
            }
            Err(_) => Err(Reason::PolicyFailed),
        };
        let input = Input::PolicyAnswered { open, answer };
        self.apply(node, &mut state, scid, input);
    }
}
