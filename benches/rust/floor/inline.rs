//! All three in this thread: what each call of LDK takes, one payment at a time.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, CommitmentUpdate, Init, MessageSendEvent,
};
use lightning::types::payment::PaymentHash;
use serde_json::{json, Value};

use crate::alone::{events_of, settings, Node, Spent, Trade};
use crate::median;

/// Payments measured of each kind, after some that are not.
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

fn connect(from: &Node, to: &Node) {
    for (node, peer, inbound) in [(from, to, false), (to, from, true)] {
        let init = Init {
            features: peer.manager.init_features(),
            networks: None,
            remote_network_address: None,
        };
        node.manager
            .peer_connected(peer.id, &init, inbound)
            .unwrap();
    }
}

fn hear(node: &Node, from: PublicKey, message: MessageSendEvent) {
    match message {
        MessageSendEvent::SendOpenChannel { msg, .. } => {
            node.time("open_channel", |m| m.handle_open_channel(from, &msg));
        }
        MessageSendEvent::SendAcceptChannel { msg, .. } => {
            node.time("accept_channel", |m| m.handle_accept_channel(from, &msg));
        }
        MessageSendEvent::SendFundingCreated { msg, .. } => {
            node.time("funding_created", |m| m.handle_funding_created(from, &msg));
        }
        MessageSendEvent::SendFundingSigned { msg, .. } => {
            node.time("funding_signed", |m| m.handle_funding_signed(from, &msg));
        }
        MessageSendEvent::SendChannelReady { msg, .. } => {
            node.time("channel_ready", |m| m.handle_channel_ready(from, &msg));
        }
        MessageSendEvent::SendChannelUpdate { msg, .. } => {
            node.time("channel_update", |m| m.handle_channel_update(from, &msg));
        }
        MessageSendEvent::SendRevokeAndACK { msg, .. } => {
            node.time("revoke_and_ack", |m| m.handle_revoke_and_ack(from, &msg));
        }
        MessageSendEvent::UpdateHTLCs { updates, .. } => update(node, from, updates),
        other => panic!("{other:?}"),
    }
}

fn update(node: &Node, from: PublicKey, updates: CommitmentUpdate) {
    for msg in updates.update_add_htlcs {
        node.time("update_add_htlc", |m| m.handle_update_add_htlc(from, &msg));
    }
    for msg in updates.update_fulfill_htlcs {
        node.time("update_fulfill_htlc", |m| {
            m.handle_update_fulfill_htlc(from, msg)
        });
    }
    assert!(updates.update_fail_htlcs.is_empty(), "a payment failed");
    for msg in updates.commitment_signed {
        node.time("commitment_signed", |m| {
            m.handle_commitment_signed(from, &msg)
        });
    }
}

fn addressee(message: &MessageSendEvent) -> Option<PublicKey> {
    match message {
        MessageSendEvent::SendOpenChannel { node_id, .. }
        | MessageSendEvent::SendAcceptChannel { node_id, .. }
        | MessageSendEvent::SendFundingCreated { node_id, .. }
        | MessageSendEvent::SendFundingSigned { node_id, .. }
        | MessageSendEvent::SendChannelReady { node_id, .. }
        | MessageSendEvent::SendChannelUpdate { node_id, .. }
        | MessageSendEvent::SendRevokeAndACK { node_id, .. }
        | MessageSendEvent::UpdateHTLCs { node_id, .. } => Some(*node_id),
        MessageSendEvent::BroadcastChannelUpdate { .. } => None,
        other => panic!("{other:?}"),
    }
}

/// Payer, LSP and the client of some payments.
struct World<'a> {
    nodes: [&'a Node; 3],
    trade: &'a Trade,
    arrived: &'a Receiver<PaymentHash>,
}

impl World<'_> {
    /// Carries messages and answers events until nothing is left to do.
    fn run(&self) {
        loop {
            let mut quiet = true;
            for node in self.nodes {
                if node.manager.needs_pending_htlc_processing() {
                    node.time("process_pending_htlc_forwards", |m| {
                        m.process_pending_htlc_forwards();
                    });
                    quiet = false;
                }
                for event in node.time("process_pending_events", events_of) {
                    self.trade.answer(node, event);
                    quiet = false;
                }
                let messages = node.time("get_and_clear_pending_msg_events", |m| {
                    m.get_and_clear_pending_msg_events()
                });
                for message in messages {
                    quiet = false;
                    let to = addressee(&message);
                    if let Some(peer) = self.nodes.into_iter().find(|peer| Some(peer.id) == to) {
                        hear(peer, node.id, message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Carries one payment to its end, and answers what each node spent on it.
    fn pay(&self, start: impl FnOnce(&Trade) -> PaymentHash) -> [Spent; 3] {
        for node in self.nodes {
            std::mem::take(&mut *node.spent.lock().unwrap());
        }
        let hash = start(self.trade);
        self.run();
        assert_eq!(self.arrived.try_recv(), Ok(hash), "it was not paid");
        self.nodes
            .map(|node| std::mem::take(&mut *node.spent.lock().unwrap()))
    }
}

fn shown(budget: &[[Spent; 3]]) -> Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let of = |side: usize| median(budget.iter().map(|b| us(b[side].total())).collect());
    let whole = budget.iter().map(|b| us(b.iter().map(Spent::total).sum()));
    let mut calls = BTreeMap::new();
    for name in budget.iter().flat_map(|b| b[1].0.keys()) {
        let each = budget
            .iter()
            .map(|b| us(b[1].0.get(name).copied().unwrap_or_default()));
        calls.insert(*name, median(each.collect()));
    }
    json!({
        "payments": budget.len(),
        "total_us": median(whole.collect()),
        "payer_us": of(0),
        "lsp_us": of(1),
        "client_us": of(2),
        "lsp_calls_us": calls,
    })
}

/// What a JIT payment takes, and a forward.
pub fn measure() -> [Value; 2] {
    let [payer, lsp, nobody] = [1, 2, 3].map(|seed| Node::new(seed, 0, settings()));
    connect(&payer, &lsp);
    let (trade, arrived) = Trade::new(&lsp);
    Trade::stock(&payer, &lsp);
    World {
        nodes: [&payer, &lsp, &nobody],
        trade: &trade,
        arrived: &arrived,
    }
    .run();
    assert!(Trade::is_stocked(&payer));
    let (mut jit, mut forward) = (Vec::new(), Vec::new());
    for turn in 1..=WARM_UP + ROUNDS {
        let client = Node::new(3, u32::try_from(turn).unwrap(), settings());
        connect(&lsp, &client);
        let world = World {
            nodes: [&payer, &lsp, &client],
            trade: &trade,
            arrived: &arrived,
        };
        world.run();
        jit.push(world.pay(|trade| trade.buy(&payer, &lsp, &client)));
        forward.push(world.pay(|trade| trade.forward(&payer, &lsp, &client)));
        lsp.manager.peer_disconnected(client.id);
    }
    [jit, forward].map(|budget| shown(&budget[WARM_UP..]))
}
