//! One conversation of an LSP with both clients, message by message.

use std::fmt::Write as _;

use ldkjit_core::lsps0::parse_response;
use ldkjit_node::node::Node;

use super::answering::{Hear, Turn};
use super::clients::{Ours, Stock, Understood};
use super::clients_differ::{plain_request, took, Asked, Heard, ASKED, HEARD, SAID};
use super::key;
use super::mend::first;
use super::table::{explain, shown, Tally, Unknown};
use crate::common::stock;

struct Talk {
    ours: Ours,
    stock: Stock,
    trusted: bool,
    /// They have the same offers to choose from.
    same_menu: bool,
    /// What they wait for is no longer the same.
    parted: bool,
    timed_out: bool,
    reconnected: bool,
    told: String,
    tally: Tally,
}

impl Talk {
    /// Both ask, or neither can. False if only one does: what follows cannot be compared.
    fn ask(&mut self, turn: &Turn) -> Result<bool, Unknown> {
        let silenced = self.ours.silenced;
        let (ours, stock) = match turn {
            Turn::AskMenu(token) => (
                self.ours.ask_menu(token.clone()),
                self.stock.ask_menu(token.clone()),
            ),
            Turn::AskSale(at, size) => {
                let entries = self.ours.menu.len();
                if entries == 0 || !self.same_menu {
                    return Ok(true);
                }
                let at = at % entries;
                (
                    self.ours.ask_sale(at, *size),
                    self.stock.ask_sale(at, *size),
                )
            }
            _ => return Ok(true),
        };
        self.timed_out = false;
        self.reconnected = false;
        let mut asked = Asked {
            ours: plain_request(ours),
            stock: plain_request(stock),
            silenced,
        };
        let _ = write!(
            self.told,
            "\nours asks\n  {:?}\nthe stock client\n  {:?}\n",
            asked.ours, asked.stock
        );
        self.tally.messages += 1;
        if asked.ours == asked.stock {
            self.tally.same += 1;
        } else {
            let found = explain(ASKED, &mut asked);
            self.tally.count(&found.ok_or_else(|| self.unknown())?);
        }
        Ok(asked.ours.is_some())
    }

    /// Both hear. False if they go on from different states.
    fn hear(&mut self, said: &Hear) -> Result<bool, Unknown> {
        let payload = said.bytes(&self.ours.ids);
        let to_stock = said.bytes(&self.stock.ids);
        let deaf = self.stock.deaf;
        let before = self.ours.clone();
        let ours = self.ours.hear(&payload);
        let mut heard = Heard {
            stock: self.stock.hear(&to_stock),
            payload,
            ours,
            before,
            trusted: self.trusted,
            deaf,
            timed_out: self.timed_out,
            reconnected: self.reconnected,
        };
        let _ = write!(
            self.told,
            "\nthe LSP says\n  {}\nours understands\n  {:?}\nthe stock client\n  {:?}\n",
            shown(&heard.payload),
            heard.ours,
            heard.stock
        );
        self.tally.messages += 1;
        // Where ours sees no answer, the stock client may have seen one and wait for no other.
        let is_request = first(&heard.payload).is_some_and(|(m, _)| m.get("method").is_some());
        let bad_format = parse_response(&heard.payload).is_err() && !is_request;
        if bad_format && !self.stock.deaf {
            self.parted = true;
        }
        let together = heard.ours.understood == heard.stock.understood || self.stock.deaf;
        let is_menu = |u: &Option<Understood>| matches!(u, Some(Understood::Menu(_)));
        let (ours, stock) = (&heard.ours.understood, &heard.stock.understood);
        if is_menu(ours) || is_menu(stock) {
            self.same_menu = ours == stock;
        }
        if let Some(what) = took(&heard) {
            let _ = write!(self.told, "\nours has taken: {what}\n");
            return Err(self.unknown());
        }
        if heard.ours == heard.stock {
            self.tally.same += 1;
            return Ok(!self.parted);
        }
        if heard.ours.said != heard.stock.said {
            let found = explain(SAID, &mut heard);
            self.tally.count(&found.ok_or_else(|| self.unknown())?);
        }
        if heard.ours.understood != heard.stock.understood {
            let found = explain(HEARD, &mut heard);
            self.tally.count(&found.ok_or_else(|| self.unknown())?);
        }
        Ok(together && !self.parted)
    }

    fn unknown(&self) -> Unknown {
        Unknown(self.told.clone())
    }

    fn turn(&mut self, turn: &Turn) -> Result<bool, Unknown> {
        match turn {
            Turn::AskMenu(_) | Turn::AskSale(..) => self.ask(turn),
            Turn::Hear(said) => self.hear(said),
            Turn::Timeout => {
                self.ours.time_out();
                self.timed_out = true;
                Ok(true)
            }
            Turn::Reconnect => {
                self.ours.reconnect();
                self.stock.reconnect();
                self.reconnected = true;
                Ok(true)
            }
        }
    }
}

/// All of a conversation.
pub fn talk(node: &Node, trusted: bool, turns: &[Turn]) -> (Tally, Result<(), Unknown>) {
    let mut talk = Talk {
        ours: Ours::new(trusted),
        stock: Stock::new(stock::liquidity(node, false), key(3)),
        trusted,
        same_menu: false,
        parted: false,
        timed_out: false,
        reconnected: false,
        told: String::new(),
        tally: Tally::default(),
    };
    for turn in turns {
        match talk.turn(turn) {
            Ok(true) => {}
            Ok(false) => break,
            Err(unknown) => return (talk.tally, Err(unknown)),
        }
    }
    (talk.tally, Ok(()))
}
