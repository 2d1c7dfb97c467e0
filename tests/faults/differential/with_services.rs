//! One conversation of clients with both services, message by message.

use std::fmt::Write as _;

use ldkjit_core::time::Millis;
use ldkjit_node::log::now_ms;
use ldkjit_node::node::Node;
use serde_json::Value;

use super::asking::{Setting, Step};
use super::key;
use super::our_service::Ours;
use super::services::Outcome;
use super::services_differ::{took, Case, TABLE};
use super::stock_service::Stock;
use super::table::{explain, shown, Tally, Unknown};
use crate::common::stock;

/// One conversation with both services, from nothing.
struct Talk {
    ours: Ours,
    stock: Stock,
    now: Millis,
    finer: bool,
    /// The offers that each made to the first client.
    our_menu: Vec<Value>,
    stock_menu: Vec<Value>,
    changes: u32,
    told: String,
    tally: Tally,
}

impl Talk {
    fn new(node: &Node, setting: &Setting, now: Millis) -> Self {
        let ours = Ours::new(setting, [key(1), key(2)], now);
        let liquidity = stock::with_webhooks(node, setting.max_webhooks);
        Self {
            stock: Stock::new(liquidity, setting, &ours),
            ours,
            now,
            finer: setting.finer_ns > 0,
            our_menu: Vec::new(),
            stock_menu: Vec::new(),
            changes: 0,
            told: String::new(),
            tally: Tally::default(),
        }
    }

    /// Messages of which only the last waits for its answer. False if one side sold or registered something and the other
    /// did not: from there on they have nothing more to be compared by.
    fn flight(&mut self, steps: &[Step], names: &mut Vec<&'static str>) -> Result<bool, Unknown> {
        let messages: Vec<(usize, Vec<u8>)> = steps
            .iter()
            .map(|step| (step.who(), step.bytes(&self.stock_menu)))
            .collect();
        let (deaf, sold) = (self.stock.deaf, self.stock.sold);
        let mut gone = self.stock.gone;
        let our_menu = self.our_menu.clone();
        let mut deaf_now = deaf;
        let outcomes = self.stock.hear(&messages);
        let ids: Vec<String> = messages.iter().map(|(_, payload)| id(payload)).collect();
        let clients: Vec<usize> = messages.iter().map(|(who, _)| *who).collect();
        let asked: Vec<bool> = outcomes.iter().map(|outcome| outcome.asked).collect();
        let is_twin = |a: usize, b: usize| (clients[a], &ids[a]) == (clients[b], &ids[b]);
        let flight = steps.iter().zip(messages).zip(outcomes);
        for (at, ((step, (who, to_stock)), stock)) in flight.enumerate() {
            let payload = step.bytes(&our_menu);
            let before = self.ours.clone();
            let ours = self.ours.hear(who, &payload);
            let others = 0..steps.len();
            let twin = others
                .into_iter()
                .any(|b| b != at && asked[b] && is_twin(at, b));
            // Of twins the last takes the others' places.
            let waits = |&a: &usize| {
                clients[a] == who && asked[a] && !(a + 1..at).any(|b| asked[b] && is_twin(a, b))
            };
            let load = sold[who] + (0..at).filter(waits).count();
            let mut case = Case {
                payload,
                ours,
                to_stock,
                stock,
                before,
                who,
                now: self.now,
                deaf: deaf_now[who],
                gone: gone[who],
                load,
                sold: sold[who],
                twin,
                finer: self.finer,
                changes: self.changes,
            };
            deaf_now[who] |= case.stock.not_understood();
            gone[who] |= case.stock.hung_up;
            self.tell(&case);
            // Who has a menu of one service only has nothing to buy of both.
            if let (0, Some(ours), Some(stock)) = (who, &case.ours.menu, &case.stock.menu) {
                if ours.len() == stock.len() {
                    self.our_menu.clone_from(ours);
                    self.stock_menu.clone_from(stock);
                }
            }
            self.changes += u32::try_from(case.ours.posts.len()).unwrap();
            let together = case.ours.changed() == case.stock.changed();
            self.tally.messages += 1;
            if let Some(what) = took(&case) {
                let told = std::mem::take(&mut self.told);
                return Err(Unknown(format!("{told}\nours has taken: {what}\n")));
            }
            if case.ours.same(&case.stock) {
                self.tally.same += 1;
            } else if let Some(found) = explain(TABLE, &mut case) {
                names.extend(&found);
            } else {
                return Err(Unknown(std::mem::take(&mut self.told)));
            }
            if !together {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn tell(&mut self, case: &Case) {
        let outcome = |o: &Outcome| format!("{:?}", (&o.answers, &o.posts, o.hung_up, o.refused));
        let _ = write!(
            self.told,
            "\nclient {} says\n  {}\n(to the stock service)\n  {}\nours answers\n  {}\nthe stock service\n  {}\n",
            case.who,
            shown(&case.payload),
            shown(&case.to_stock),
            outcome(&case.ours),
            outcome(&case.stock),
        );
    }
}

fn id(payload: &[u8]) -> String {
    let message: Option<Value> = serde_json::from_slice(payload).ok();
    message.map(|m| m["id"].to_string()).unwrap_or_default()
}

/// All of a conversation, in a second of the clock that does not end before it does.
pub fn talk(node: &Node, setting: &Setting, steps: &[Step]) -> (Tally, Result<(), Unknown>) {
    loop {
        let now = Millis(now_ms());
        let mut talk = Talk::new(node, setting, now);
        let mut names = Vec::new();
        let mut outcome = Ok(());
        let mut rest = steps;
        while let Some(step) = rest.first() {
            if matches!(step, Step::Reconnect) {
                talk.stock.reconnect(0);
                rest = &rest[1..];
                continue;
            }
            let hasty = rest.iter().take_while(|step| step.hasty()).count();
            let (flight, later) = rest.split_at((hasty + 1).min(rest.len()));
            rest = later;
            match talk.flight(flight, &mut names) {
                Ok(true) => {}
                Ok(false) => break,
                Err(unknown) => {
                    outcome = Err(unknown);
                    break;
                }
            }
        }
        if now_ms() / 1_000 == now.0 / 1_000 {
            talk.tally.count(&names);
            return (talk.tally, outcome);
        }
    }
}
