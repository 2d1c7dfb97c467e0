//! The JIT order, requirement by requirement.
#![allow(
    missing_docs,
    non_snake_case,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod order_support;

use std::collections::BTreeSet;

use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{OpenId, PartId, Scid};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::menu::TrustModel::{self, ClientTrustsLsp, LspTrustsClient};
use ldkjit_core::order::{
    ChannelTerms, ChannelView, Effect, Env, Input, OpenFailure, OpenPhase, Order, OrderLimits,
    PartStatus, State,
};
use ldkjit_core::reason::FailCode::{self, TemporaryChannelFailure, UnknownNextPeer};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::Millis;
use order_support::*;

const SIZE: u64 = 1_000_000;
const FEE: u64 = 10_000;
const RELEASE_BY: u32 = 1_100;

struct T {
    order: Order,
    now: u64,
    height: u32,
    connected: bool,
    channels: Vec<ChannelView>,
    limits: OrderLimits,
    held: u32,
    held_of_strangers: u32,
    held_in_all: u32,
    ledger: Vec<LedgerEntry>,
    opened: BTreeSet<OpenId>,
    /// Coins locked and given back before an open began.
    ahead: Vec<Effect>,
    scored: u32,
}

impl T {
    fn new(size: Option<u64>, trust: TrustModel) -> Self {
        Self::sold(Order::new(terms(size, trust)))
    }

    fn sold(order: Order) -> Self {
        T {
            order,
            now: SOLD_AT + 1_000,
            height: 1_000,
            connected: true,
            channels: vec![],
            limits: limits(),
            held: 0,
            held_of_strangers: 0,
            held_in_all: 0,
            ledger: vec![],
            opened: BTreeSet::new(),
            ahead: vec![],
            scored: 0,
        }
    }

    fn fixed() -> Self {
        Self::new(Some(SIZE), LspTrustsClient)
    }

    fn variable() -> Self {
        Self::new(None, LspTrustsClient)
    }

    fn offline(mut self) -> Self {
        self.connected = false;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut OrderLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    fn env<R>(&self, f: impl FnOnce(&Order, &Env) -> R) -> R {
        f(
            &self.order,
            &Env {
                now: Millis(self.now),
                height: self.height,
                connected: self.connected,
                channels: &self.channels,
                limits: &self.limits,
                held_for_client: self.held,
                held_of_strangers: self.held_of_strangers,
                held: self.held_in_all,
            },
        )
    }

    fn take(&mut self, (order, effects): (Order, Vec<Effect>)) -> Vec<Effect> {
        self.order = order;
        let mut rest = vec![];
        for effect in effects {
            match effect {
                Effect::Record(entry) => self.ledger.push(entry),
                Effect::Score => self.scored += 1,
                Effect::Lock { .. } => self.ahead.push(effect),
                Effect::Unlock { open } if !self.opened.contains(&open) => self.ahead.push(effect),
                other => {
                    if let Effect::Open { open, .. } = &other {
                        self.opened.insert(*open);
                    }
                    rest.push(other);
                }
            }
        }
        rest
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        let result = self.env(|order, env| order.step(&input, env));
        self.take(result)
    }

    fn resume(&mut self, held: &[u8]) -> Vec<Effect> {
        let held: BTreeSet<PartId> = held.iter().map(|n| part_id(*n)).collect();
        let result = self.env(|order, env| order.resume(&held, env));
        self.take(result)
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.give(Input::Tick)
    }

    fn at(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        self.tick()
    }

    fn after(&mut self, ms: u64) -> Vec<Effect> {
        self.at(self.now + ms)
    }

    fn part_of(&mut self, n: u8, payment: u8, declared: u64) -> Vec<Effect> {
        self.give(Input::Part {
            id: part_id(n),
            hash: hash(payment),
            inbound: Msat(declared),
            declared: Msat(declared),
            release_by: RELEASE_BY,
        })
    }

    fn part(&mut self, n: u8, declared: u64) -> Vec<Effect> {
        self.part_of(n, 1, declared)
    }

    fn connect(&mut self) -> Vec<Effect> {
        self.connected = true;
        self.give(Input::Connected)
    }

    fn disconnect(&mut self) -> Vec<Effect> {
        self.connected = false;
        self.give(Input::Disconnected)
    }

    /// The n-th attempt: its channel has id n and comes to `ChannelPending`.
    fn pending(&mut self, n: u8) -> Vec<Effect> {
        self.give(Input::ChannelPending {
            open: open_id(n.into()),
            channel: channel_id(n),
            funding: funding(n),
            fee_sat: 300,
        })
    }

    /// ... and to `ChannelReady`, with room for so much.
    fn ready(&mut self, n: u8, room: u64) -> Vec<Effect> {
        self.channels.push(ChannelView {
            open_id: Some(open_id(n.into())),
            unpaid: true,
            ..view(n, room)
        });
        self.give(Input::ChannelReady {
            open: open_id(n.into()),
            channel: channel_id(n),
        })
    }

    fn opened(&mut self, n: u8) -> Vec<Effect> {
        assert_eq!(self.pending(n), vec![]);
        self.ready(n, 10_000_000)
    }

    fn claim(&mut self, n: u8) -> Vec<Effect> {
        self.give(Input::PartClaimed { id: part_id(n) })
    }

    fn failed(&mut self, n: u8) -> Vec<Effect> {
        self.give(Input::PartFailed { id: part_id(n) })
    }

    fn closed(&mut self, n: u8) -> Vec<Effect> {
        self.channels.retain(|view| view.id != channel_id(n));
        self.give(Input::ChannelClosed {
            channel: channel_id(n),
        })
    }

    /// What funding transactions have cost so far.
    fn costs(&self) -> Vec<LedgerEntry> {
        let is_cost = |e: &&LedgerEntry| matches!(e, LedgerEntry::ChainCost { .. });
        self.ledger.iter().filter(is_cost).cloned().collect()
    }

    fn state(&self) -> State {
        self.order.state
    }

    fn status(&self, n: u8) -> PartStatus {
        self.order.parts[&part_id(n)].status
    }

    fn open(&self, attempt: u32, value_sat: u64) -> Effect {
        Effect::Open {
            open: open_id(attempt),
            value_sat,
            max_to_self_delay: 2_016,
        }
    }
}

fn fail(n: u8, code: FailCode, reason: Reason) -> Effect {
    Effect::Fail {
        part: part_id(n),
        code,
        reason,
    }
}

fn forward(n: u8, channel: u8, amount: u64, skim: u64) -> Effect {
    Effect::Forward {
        part: part_id(n),
        channel: channel_id(channel),
        amount: Msat(amount),
        skim: Msat(skim),
    }
}

fn is_open(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Open { .. }])
}

fn enable(channel: u8) -> Effect {
    Effect::EnableForwarding {
        channel: channel_id(channel),
    }
}

fn unlock(attempt: u32) -> Effect {
    Effect::Unlock {
        open: open_id(attempt),
    }
}

fn broadcast(attempt: u32) -> Effect {
    Effect::Broadcast {
        open: open_id(attempt),
    }
}

/// The ledger's row of what an attempt's funding transaction costs.
fn cost(n: u8) -> LedgerEntry {
    LedgerEntry::ChainCost {
        scid: SCID,
        open: open_id(n.into()),
        txid: funding(n).txid,
        fee_sat: 300,
    }
}

fn abandon(attempt: u32, channel: Option<u8>) -> Effect {
    Effect::AbandonOpen {
        open: open_id(attempt),
        channel: channel.map(channel_id),
    }
}

// Fixed amount.

#[test]
fn test_S_15_one_part_opens_and_is_forwarded_with_the_fee() {
    let mut t = T::fixed();
    let effects = t.part(1, SIZE);
    assert_eq!(effects, vec![t.open(1, 20_000)]);
    assert_eq!(t.state(), State::Opening);
    assert_eq!(t.order.coins(), Some(open_id(1)));
    assert_eq!(t.pending(1), vec![]);
    assert!(!t.order.owes());
    assert_eq!(t.ready(1, 10_000_000), vec![forward(1, 1, SIZE - FEE, FEE)]);
    assert_eq!(t.state(), State::Forwarding);
    assert!(t.order.owes());
    assert_eq!(t.claim(1), vec![enable(1)]);
    assert_eq!(t.state(), State::Paid);
    assert!(!t.order.owes() && !t.order.is_over());
    assert_eq!(t.order.earned, Msat(FEE));
    let o = &t.order.terms;
    let (scid, client) = (o.scid, o.client);
    assert_eq!(
        t.ledger,
        vec![
            LedgerEntry::PartAccepted {
                scid,
                part: part_id(1),
                payment_hash: hash(1),
                declared: Msat(SIZE)
            },
            LedgerEntry::SetComplete {
                scid,
                payment_hash: hash(1),
                parts: 1,
                sum: Msat(SIZE),
                fee: Msat(FEE)
            },
            LedgerEntry::OpenRequested {
                scid,
                client,
                open: open_id(1),
                value_sat: 20_000
            },
            cost(1),
            LedgerEntry::ChannelOpened {
                scid,
                client,
                open: open_id(1),
                channel: channel_id(1),
                funding: funding(1),
                value_sat: 20_000
            },
            LedgerEntry::FeeEarned {
                scid,
                client,
                channel: channel_id(1),
                payment_hash: hash(1),
                amount: Msat(FEE),
                reuse: false
            },
            LedgerEntry::OrderPaid {
                scid,
                client,
                channel: channel_id(1),
                fee: Msat(FEE),
                min_lifetime: 4_320
            },
        ]
    );
    assert_eq!(
        t.order.sold_entry(),
        LedgerEntry::OrderSold {
            scid,
            client,
            size: Some(Msat(SIZE)),
            fee: Some(Msat(FEE)),
            trust: LspTrustsClient,
            reserved_sat: 30_000,
            tier: Some(t.order.terms.params.tier()),
        }
    );
}

#[test]
fn test_J_48_J_49_J_50_J_51_S_16_S_77_incomplete_set_is_held_90_s_then_forgotten() {
    let mut t = T::fixed();
    assert_eq!(t.part(1, SIZE - 1), vec![]);
    assert_eq!(t.state(), State::Collecting);
    assert_eq!(t.after(89_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(1, TemporaryChannelFailure, Reason::SetTimeout)]
    );
    assert_eq!(t.state(), State::Sold);
    // Forgotten: one msat more does not complete it (J-50).
    assert_eq!(t.part(2, 1_000), vec![]);
    assert_eq!(t.state(), State::Collecting);
}

#[test]
fn test_J_50_part_at_the_timeout_starts_a_new_set() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.now += 90_000;
    assert_eq!(
        t.part(2, SIZE / 2),
        vec![fail(1, TemporaryChannelFailure, Reason::SetTimeout)]
    );
    assert_eq!(t.status(2), PartStatus::Held);
    assert!(is_open(&t.part(3, SIZE / 2)));
}

#[test]
fn test_S_17_two_parts_released_together() {
    let mut t = T::fixed();
    assert_eq!(t.part(1, SIZE / 2), vec![]);
    assert!(is_open(&t.part(2, SIZE / 2)));
    assert_eq!(
        t.opened(1),
        vec![
            forward(1, 1, SIZE / 2 - FEE, FEE),
            // No TLV on a part that was not reduced (J-72).
            forward(2, 1, SIZE / 2, 0)
        ]
    );
    assert_eq!(t.claim(2), vec![]);
    assert_eq!(t.state(), State::Forwarding);
    assert_eq!(t.claim(1), vec![enable(1)]);
    assert_eq!(t.state(), State::Paid);
}

#[test]
fn test_S_18_ten_parts_pay_the_fee_exactly() {
    let mut t = T::fixed();
    t.limits.htlc_minimum = Msat(95_000);
    for n in 1..10 {
        assert_eq!(t.part(n, SIZE / 10), vec![]);
    }
    assert!(is_open(&t.part(10, SIZE / 10)));
    t.pending(1);
    t.channels.push(ChannelView {
        open_id: Some(open_id(1)),
        htlc_minimum: Msat(95_000),
        ..view(1, 10_000_000)
    });
    let effects = t.give(Input::ChannelReady {
        open: open_id(1),
        channel: channel_id(1),
    });
    let skims: Vec<u64> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Forward { amount, skim, .. } => {
                assert_eq!(amount.0 + skim.0, SIZE / 10);
                skim.0
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(skims, [5_000, 5_000, 0, 0, 0, 0, 0, 0, 0, 0]);
    for n in 1..=10 {
        t.claim(n);
    }
    assert_eq!(t.state(), State::Paid);
    assert_eq!(t.order.earned, Msat(FEE));
}

#[test]
fn test_S_19_bad_second_part_fails_alone() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    assert_eq!(
        t.part(2, 999),
        vec![fail(2, UnknownNextPeer, Reason::PartTooSmall)]
    );
    assert!(is_open(&t.part(3, SIZE / 2)));
    let mut t = T::fixed();
    assert_eq!(t.part(1, 1_000), vec![]);
}

#[test]
fn test_S_20_replaced_or_replayed_part_counts_once() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    assert_eq!(t.part(1, SIZE / 2), vec![]);
    assert_eq!(t.state(), State::Collecting);
    t.give(Input::PartGone { id: part_id(1) });
    assert_eq!(t.state(), State::Sold);
    assert_eq!(t.part(2, SIZE / 2), vec![]);
    assert_eq!(t.state(), State::Collecting);
    assert!(is_open(&t.part(3, SIZE / 2)));
}

#[test]
fn a_part_whose_channel_is_closed_is_not_taken() {
    let mut t = T::fixed();
    t.connected = false;
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    assert_eq!(t.state(), State::Waking);
    let stranded = Input::PartStranded { id: part_id(1) };
    assert_eq!(
        t.give(stranded.clone()),
        vec![fail(1, TemporaryChannelFailure, Reason::PayerGone)]
    );
    assert_eq!(t.give(stranded), vec![], "once");
    assert_eq!(t.state(), State::Collecting);
    t.connected = true;
    assert_eq!(t.give(Input::Connected), vec![], "half a payment");
    // What is with the client already goes its way: LDK has given it.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.give(Input::PartStranded { id: part_id(1) }), vec![]);
}

#[test]
fn test_S_21_payment_hashes_make_separate_sets() {
    let mut t = T::fixed();
    assert_eq!(t.part_of(1, 1, SIZE / 2), vec![]);
    assert_eq!(t.part_of(2, 2, SIZE / 2), vec![]);
    assert!(is_open(&t.part_of(3, 2, SIZE / 2)));
    assert_eq!(t.order.paying, Some(hash(2)));
    // The other set keeps its own clock.
    assert_eq!(
        t.opened(1),
        vec![
            forward(2, 1, SIZE / 2 - FEE, FEE),
            forward(3, 1, SIZE / 2, 0)
        ]
    );
    assert_eq!(
        t.after(90_000),
        vec![fail(1, TemporaryChannelFailure, Reason::SetTimeout)]
    );
}

#[test]
fn test_T_24_S_22_expired_before_the_first_part_or_while_held() {
    let mut t = T::fixed();
    t.now = VALID_UNTIL - 1;
    assert_eq!(t.part(1, SIZE / 2), vec![]);
    t.now = VALID_UNTIL;
    assert_eq!(t.tick(), vec![fail(1, UnknownNextPeer, Reason::Expired)]);
    assert_eq!(t.state(), State::Expired);
    assert_eq!(
        t.part(2, SIZE),
        vec![fail(2, UnknownNextPeer, Reason::Expired)]
    );
    assert!(!t.order.is_over());
    t.give(Input::PartGone { id: part_id(1) });
    t.give(Input::PartGone { id: part_id(2) });
    assert!(t.order.is_over());
    let ends = |e: &&LedgerEntry| {
        matches!(
            e,
            LedgerEntry::OrderEnded {
                reason: Reason::Expired,
                ..
            }
        )
    };
    assert_eq!(t.ledger.iter().filter(ends).count(), 1);
}

#[test]
fn test_B_3_variable_amount_at_valid_until_fails_for_good() {
    let mut t = T::variable();
    t.now = VALID_UNTIL;
    assert_eq!(
        t.part(1, SIZE),
        vec![fail(1, UnknownNextPeer, Reason::Expired)]
    );
    assert!(t.ahead.is_empty());
}

#[test]
fn test_J_54_J_82_B_4_complete_just_before_valid_until_opens_and_at_it_does_not() {
    let mut t = T::fixed();
    t.now = VALID_UNTIL - 1;
    assert!(is_open(&t.part(1, SIZE)));
    // What was begun in time goes on (J-52 speaks of sets that are short).
    t.at(VALID_UNTIL + 5_000);
    assert_eq!(t.opened(1), vec![forward(1, 1, SIZE - FEE, FEE)]);

    let mut t = T::fixed();
    t.part(1, SIZE - 1_000);
    t.now = VALID_UNTIL;
    assert_eq!(
        t.part(2, 1_000),
        vec![
            fail(1, UnknownNextPeer, Reason::Expired),
            fail(2, UnknownNextPeer, Reason::Expired)
        ]
    );
}

#[test]
fn test_J_52_short_sets_end_at_valid_until_though_an_open_goes_on() {
    let mut t = T::fixed();
    t.now = VALID_UNTIL - 1;
    t.part(1, SIZE);
    t.part_of(2, 2, SIZE / 2);
    assert_eq!(
        t.at(VALID_UNTIL),
        vec![fail(2, UnknownNextPeer, Reason::Expired)]
    );
    // A late part of the payment being served is welcome still.
    assert_eq!(t.part(3, 1_000), vec![]);
    assert_eq!(
        t.opened(1),
        vec![forward(1, 1, SIZE - FEE, FEE), forward(3, 1, 1_000, 0)]
    );
}

#[test]
fn test_J_53_S_23_B_7_too_many_tiny_parts() {
    let mut t = T::fixed();
    t.limits.htlc_minimum = Msat(99_001);
    for n in 1..10 {
        assert_eq!(t.part(n, SIZE / 10), vec![]);
    }
    // Ten parts can give 9,990 of the 10,000 (B-7).
    let effects = t.part(10, SIZE / 10);
    let all: Vec<Effect> = (1..=10)
        .map(|n| fail(n, UnknownNextPeer, Reason::TooManyParts))
        .collect();
    assert_eq!(effects, all);
    assert_eq!(t.state(), State::Sold);
    let mut t = T::fixed();
    t.limits.htlc_minimum = Msat(99_000);
    for n in 1..10 {
        t.part(n, SIZE / 10);
    }
    assert!(is_open(&t.part(10, SIZE / 10)));
}

#[test]
fn test_S_24_overpaid_set_pays_the_fee_of_the_size_sold() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    assert!(is_open(&t.part(2, SIZE)));
    assert_eq!(
        t.opened(1),
        vec![forward(1, 1, SIZE / 2 - FEE, FEE), forward(2, 1, SIZE, 0)]
    );
    // Up to twice the size, as BOLT 4 has it.
    let mut t = T::fixed();
    assert!(is_open(&t.part(1, 2 * SIZE)));
    let mut t = T::fixed();
    t.part(1, 1_000);
    assert_eq!(
        t.part(2, 2 * SIZE - 999),
        vec![fail(2, UnknownNextPeer, Reason::PaymentTooLarge)]
    );
}

#[test]
fn test_J_80_sum_that_overflows_fails_the_part() {
    let mut t = T::new(Some(u64::MAX / 2 + 10), LspTrustsClient);
    t.order.fee = Some(Msat(FEE));
    t.part(1, u64::MAX / 2);
    assert_eq!(
        t.part(2, u64::MAX / 2 + 2),
        vec![fail(2, UnknownNextPeer, Reason::AmountOverflow)]
    );
}

#[test]
fn test_S_27_part_that_over_declares_fails_alone() {
    let mut t = T::fixed();
    let effects = t.give(Input::Part {
        id: part_id(1),
        hash: hash(1),
        inbound: Msat(SIZE - 1),
        declared: Msat(SIZE),
        release_by: RELEASE_BY,
    });
    assert_eq!(
        effects,
        vec![fail(1, UnknownNextPeer, Reason::OverDeclared)]
    );
    assert_eq!(t.state(), State::Sold);
    // More delivered than declared is the payer's routing fee.
    let effects = t.give(Input::Part {
        id: part_id(2),
        hash: hash(1),
        inbound: Msat(SIZE + 1),
        declared: Msat(SIZE),
        release_by: RELEASE_BY,
    });
    assert!(is_open(&effects));
}

#[test]
fn test_S_28_late_part_follows_or_fails() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.ready(1, SIZE);
    t.channels[0].outbound_limit = Msat(50_000);
    t.channels[0].outbound_capacity = Msat(50_000);
    assert_eq!(t.part(2, 50_000), vec![forward(2, 1, 50_000, 0)]);
    assert_eq!(
        t.part(3, 50_001),
        vec![fail(3, UnknownNextPeer, Reason::NoRoom)]
    );
    // While the client is away it waits, so long and no longer.
    t.channels[0].usable = false;
    t.disconnect();
    assert_eq!(t.part(4, 50_000), vec![Effect::Wake]);
    assert_eq!(t.after(59_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(4, TemporaryChannelFailure, Reason::ClientOffline)]
    );
}

#[test]
fn test_J_47_late_parts_share_what_room_there_is() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.part(2, 30_000);
    t.part(3, 30_000);
    t.pending(1);
    assert_eq!(
        t.ready(1, SIZE - FEE + 30_000),
        vec![
            forward(1, 1, SIZE - FEE, FEE),
            forward(2, 1, 30_000, 0),
            fail(3, UnknownNextPeer, Reason::NoRoom)
        ]
    );
}

// Variable amount.

#[test]
fn test_J_33_S_30_minimum_and_maximum_inclusive() {
    for (amount, opens) in [
        (49_999, false),
        (50_000, true),
        (100_000_000, true),
        (100_000_001, false),
    ] {
        let mut t = T::variable();
        let effects = t.part(1, amount);
        assert_eq!(is_open(&effects), opens, "{amount}");
        if !opens {
            let reason = if amount < SIZE {
                Reason::PaymentTooSmall
            } else {
                Reason::PaymentTooLarge
            };
            assert_eq!(effects, vec![fail(1, UnknownNextPeer, reason)]);
        }
    }
}

#[test]
fn test_J_56_S_31_fee_and_minimum_may_just_fit() {
    for (minimum, opens) in [(40_000, true), (40_001, false)] {
        let mut t = T::variable().with(|l| l.htlc_minimum = Msat(minimum));
        let effects = t.part(1, 50_000);
        assert_eq!(is_open(&effects), opens);
        if !opens {
            assert_eq!(
                effects,
                vec![fail(1, UnknownNextPeer, Reason::PaymentTooSmall)]
            );
            // S-31: the scid stays good for a correct one.
            assert!(is_open(&t.part(2, 60_000)));
        }
    }
}

#[test]
fn test_S_32_fee_overflow() {
    let mut terms = terms(None, LspTrustsClient);
    terms.params.max_payment_size_msat = Msat(u64::MAX);
    let mut t = T::sold(Order::new(terms));
    assert_eq!(
        t.part(1, u64::MAX / 9_000),
        vec![fail(1, UnknownNextPeer, Reason::FeeOverflow)]
    );
}

#[test]
fn test_J_55_fee_from_the_first_part_only() {
    let mut t = T::variable();
    t.part(1, 2_000_000);
    t.part(2, 3_000_000);
    assert_eq!(
        t.opened(1),
        vec![
            forward(1, 1, 1_980_000, 20_000),
            forward(2, 1, 3_000_000, 0)
        ]
    );
}

#[test]
fn test_J_55_first_part_lost_means_the_next_is_priced() {
    let mut t = T::variable();
    t.part(1, 2_000_000);
    t.part(2, 3_000_000);
    let effects = t.give(Input::PartGone { id: part_id(1) });
    assert_eq!(effects[..2], [abandon(1, None), unlock(1)]);
    assert!(is_open(&effects[2..]));
    t.pending(2);
    assert_eq!(
        t.ready(2, 10_000_000),
        vec![forward(2, 2, 2_970_000, 30_000)]
    );
}

#[test]
fn test_S_34_second_payment_waits_its_turn() {
    let mut t = T::variable();
    t.part_of(1, 1, SIZE);
    t.opened(1);
    assert_eq!(t.part_of(2, 2, 3 * SIZE), vec![]);
    // The first fails at the client: the fee is computed anew while nothing is earned.
    assert_eq!(t.failed(1), vec![forward(2, 1, 2_970_000, 30_000)]);
    assert_eq!(t.claim(2), vec![enable(1)]);

    // Once paid, the next one goes whole.
    let mut t = T::variable();
    t.part_of(1, 1, SIZE);
    t.opened(1);
    t.part_of(2, 2, 3 * SIZE);
    assert_eq!(t.claim(1), vec![forward(2, 1, 3 * SIZE, 0), enable(1)]);

    // And it waits no longer than a set may.
    let mut t = T::variable();
    t.part_of(1, 1, SIZE);
    t.opened(1);
    t.part_of(2, 2, 3 * SIZE);
    assert_eq!(t.after(89_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(2, TemporaryChannelFailure, Reason::OtherPaymentFirst)]
    );
}

// Opening.

#[test]
fn test_S_35_B_10_client_is_woken_and_paid_when_it_comes() {
    let mut t = T::fixed().offline();
    assert_eq!(t.part(1, SIZE), vec![Effect::Wake]);
    assert_eq!(t.state(), State::Waking);
    assert_eq!(t.after(30_000), vec![]);
    assert_eq!(t.order.coins(), Some(open_id(1)));
    assert!(is_open(&t.connect()));
    assert_eq!(t.opened(1), vec![forward(1, 1, SIZE - FEE, FEE)]);

    let mut t = T::fixed().offline();
    t.part(1, SIZE);
    assert_eq!(t.after(59_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(1, TemporaryChannelFailure, Reason::ClientOffline)]
    );
    assert_eq!(t.state(), State::Sold);
    // A new payment wakes it again.
    assert_eq!(t.part(2, SIZE), vec![Effect::Wake]);
}

#[test]
fn test_J_83_B_10_waiting_for_the_client_ends_at_valid_until() {
    let mut t = T::fixed().offline();
    t.now = VALID_UNTIL - 10;
    t.part(1, SIZE);
    assert_eq!(
        t.at(VALID_UNTIL),
        vec![fail(1, UnknownNextPeer, Reason::Expired)]
    );
    assert_eq!(t.connect(), vec![]);
}

#[test]
fn test_J_62_disconnect_before_funding_signed() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    assert_eq!(t.disconnect(), vec![]);
    let gone = Input::OpenFailed {
        open: open_id(1),
        why: OpenFailure::Disconnected,
    };
    assert_eq!(
        t.give(gone.clone()),
        vec![
            unlock(1),
            fail(1, TemporaryChannelFailure, Reason::ClientDisconnected)
        ]
    );
    assert_eq!(t.state(), State::Sold);
    assert_eq!(t.give(gone), vec![]);
    t.connect();
    let effects = t.part(2, SIZE);
    assert_eq!(effects, vec![t.open(2, 20_000)]);
}

#[test]
fn test_S_36_disconnect_after_funding_signed_waits_for_the_client() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    assert_eq!(t.disconnect(), vec![Effect::Wake]);
    assert_eq!(t.after(10_000), vec![]);
    assert_eq!(t.connect(), vec![]);
    assert_eq!(t.ready(1, 10_000_000), vec![forward(1, 1, SIZE - FEE, FEE)]);
}

#[test]
fn test_S_37_no_coins_then_coins() {
    let mut t = T::fixed().with(|l| l.max_opens = 1);
    for n in 1..4 {
        assert!(is_open(&t.part(n, SIZE)));
        assert_eq!(
            t.give(Input::OpenFailed {
                open: open_id(n.into()),
                why: OpenFailure::NoCoins
            }),
            vec![
                unlock(n.into()),
                fail(n, TemporaryChannelFailure, Reason::NoCoins)
            ]
        );
        // Our own want of coins does not use up the order.
        assert_eq!(t.state(), State::Sold);
    }
}

#[test]
fn test_S_38_policy_is_asked_and_answers() {
    let mut t = T::fixed().with(|l| l.ask_policy = true);
    let ask = |n| Effect::AskPolicy {
        open: open_id(n),
        value_sat: 20_000,
    };
    assert_eq!(t.part(1, SIZE), vec![ask(1)]);
    assert_eq!(t.order.coins(), Some(open_id(1)));
    let granted = Input::PolicyAnswered {
        open: open_id(1),
        answer: Ok(ChannelTerms { value_sat: 50_000 }),
    };
    let effects = t.give(granted.clone());
    assert_eq!(effects, vec![t.open(1, 50_000)]);
    assert_eq!(t.give(granted), vec![]);

    for (reason, code) in [
        (Reason::PolicyRefused, UnknownNextPeer),
        (Reason::NoLiquidity, TemporaryChannelFailure),
        (Reason::PolicyFailed, TemporaryChannelFailure),
    ] {
        let mut t = T::fixed().with(|l| l.ask_policy = true);
        t.part(1, SIZE);
        let refused = Input::PolicyAnswered {
            open: open_id(1),
            answer: Err(reason),
        };
        assert_eq!(t.give(refused), vec![fail(1, code, reason)]);
        assert_eq!(t.state(), State::Sold);
        assert_eq!(t.part(2, SIZE), vec![ask(2)]);
    }
}

#[test]
fn test_S_38_policy_asks_too_little_too_late_or_never_answers() {
    let asking = || {
        let mut t = T::fixed().with(|l| l.ask_policy = true);
        t.part(1, SIZE);
        t
    };
    let granted = Input::PolicyAnswered {
        open: open_id(1),
        answer: Ok(ChannelTerms { value_sat: 1 }),
    };
    // Never less than the payment needs.
    let mut t = asking();
    let effects = t.give(granted.clone());
    assert_eq!(effects, vec![t.open(1, 20_000)]);
    // The client left meanwhile: opened when it is back.
    let mut t = asking();
    t.disconnect();
    assert_eq!(t.give(granted.clone()), vec![]);
    assert!(is_open(&t.connect()));
    // No answer.
    let mut t = asking();
    assert_eq!(t.after(29_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(1, TemporaryChannelFailure, Reason::OpenTimeout)]
    );
    assert_eq!(t.give(granted.clone()), vec![]);
    // An answer at valid_until.
    let mut t = T::fixed().with(|l| l.ask_policy = true);
    t.now = VALID_UNTIL - 1;
    t.part(1, SIZE);
    t.now = VALID_UNTIL;
    assert_eq!(
        t.give(granted),
        vec![fail(1, UnknownNextPeer, Reason::Expired)]
    );
}

#[test]
fn test_J_61_S_40_client_refuses_the_channel() {
    let mut t = T::fixed();
    for n in 1..=3 {
        assert!(is_open(&t.part(n, SIZE)));
        assert_eq!(
            t.give(Input::OpenFailed {
                open: open_id(n.into()),
                why: OpenFailure::ClientError
            }),
            vec![
                unlock(n.into()),
                fail(n, UnknownNextPeer, Reason::ClientRefusedChannel)
            ]
        );
    }
    assert_eq!(t.state(), State::Failed(Reason::TooManyOpens));
    assert_eq!(
        t.part(4, SIZE),
        vec![fail(4, UnknownNextPeer, Reason::UnknownScid)]
    );
}

#[test]
fn test_S_48_a_client_without_the_features_is_refused() {
    let mut t = T::fixed();
    assert!(is_open(&t.part(1, SIZE)));
    assert_eq!(
        t.give(Input::OpenFailed {
            open: open_id(1),
            why: OpenFailure::ClientUnable
        }),
        vec![unlock(1), fail(1, UnknownNextPeer, Reason::ClientUnable)]
    );
}

#[test]
fn test_J_64_S_39_our_own_failure_is_followed_by_another_open() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    let ours = |n| Input::OpenFailed {
        open: open_id(n),
        why: OpenFailure::Other,
    };
    let effects = t.give(ours(1));
    assert_eq!(effects, vec![unlock(1), t.open(2, 20_000)]);
    t.give(ours(2));
    assert_eq!(
        t.give(ours(3)),
        vec![unlock(3), fail(1, UnknownNextPeer, Reason::TooManyOpens)]
    );
    // Not after valid_until.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.now = VALID_UNTIL;
    assert_eq!(
        t.give(ours(1)),
        vec![unlock(1), fail(1, UnknownNextPeer, Reason::Expired)]
    );
}

#[test]
fn test_S_41_unknown_open_changes_nothing_but_its_channel_is_closed() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    let before = t.order.clone();
    let why = OpenFailure::Other;
    assert_eq!(
        t.give(Input::OpenFailed {
            open: open_id(7),
            why
        }),
        vec![]
    );
    assert_eq!(t.order, before);
    let close = Effect::Close {
        channel: channel_id(7),
        reason: Reason::OpenFailed,
    };
    assert_eq!(t.pending(7), vec![close]);
    assert_eq!(t.pending(7), vec![]);
    assert_eq!(t.ready(7, SIZE), vec![]);
    assert_eq!(t.closed(7), vec![]);
    assert_eq!(t.pending(7), vec![]);
    assert_eq!(t.state(), State::Opening);
}

#[test]
fn test_S_42_open_that_takes_too_long() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    assert_eq!(t.after(29_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![
            abandon(1, None),
            unlock(1),
            fail(1, TemporaryChannelFailure, Reason::OpenTimeout)
        ]
    );
    assert_eq!(t.state(), State::Sold);
    assert_eq!(t.order.failures, 1);
    for (trust, coins) in [
        (LspTrustsClient, vec![]),
        (ClientTrustsLsp, vec![unlock(1)]),
    ] {
        let mut t = T::new(Some(SIZE), trust);
        t.part(1, SIZE);
        t.pending(1);
        let mut expected = vec![abandon(1, Some(1))];
        expected.extend(coins);
        expected.push(fail(1, TemporaryChannelFailure, Reason::OpenTimeout));
        assert_eq!(t.after(30_000), expected);
        // Ready after all: it is being closed.
        assert_eq!(t.ready(1, SIZE), vec![]);
        assert_eq!(t.state(), State::Sold);
        t.at(VALID_UNTIL);
        t.give(Input::PartGone { id: part_id(1) });
        assert!(!t.order.is_over());
        t.closed(1);
        assert!(t.order.is_over());
    }
}

#[test]
fn test_S_42_channel_closed_before_it_is_ready() {
    for (trust, coins) in [
        (LspTrustsClient, vec![]),
        (ClientTrustsLsp, vec![unlock(1)]),
    ] {
        let mut t = T::new(Some(SIZE), trust);
        t.part(1, SIZE);
        t.pending(1);
        let mut expected = coins;
        expected.push(fail(1, TemporaryChannelFailure, Reason::ChannelClosed));
        assert_eq!(t.closed(1), expected);
        assert_eq!(t.order.failures, 1);
        // Replays of its past do not bring it back.
        assert_eq!(t.pending(1), vec![]);
        assert_eq!(t.closed(1), vec![]);
        assert!(is_open(&t.part(2, SIZE)));
    }
}

#[test]
fn test_J_46_set_that_falls_apart_while_opening() {
    // Before anything was signed the open is abandoned.
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    assert_eq!(
        t.give(Input::PartGone { id: part_id(1) }),
        vec![abandon(1, None), unlock(1)]
    );
    assert_eq!(t.state(), State::Collecting);
    assert_eq!(t.order.failures, 0);
    let effects = t.part(3, SIZE / 2);
    assert_eq!(effects, vec![t.open(2, 20_000)]);
    // After it, the channel is kept for the next payment.
    t.pending(2);
    t.give(Input::PartGone { id: part_id(2) });
    assert_eq!(t.state(), State::Opening);
    assert_eq!(t.ready(2, 10_000_000), vec![]);
    assert_eq!(t.state(), State::Collecting);
    assert_eq!(
        t.part(4, SIZE / 2),
        vec![
            forward(3, 2, SIZE / 2 - FEE, FEE),
            forward(4, 2, SIZE / 2, 0)
        ]
    );
}

#[test]
fn test_B_8_real_minimum_is_higher_than_assumed() {
    let mut t = T::variable();
    t.part(1, 50_000);
    t.pending(1);
    t.channels.push(ChannelView {
        open_id: Some(open_id(1)),
        htlc_minimum: Msat(40_001),
        ..view(1, 10_000_000)
    });
    let ready = Input::ChannelReady {
        open: open_id(1),
        channel: channel_id(1),
    };
    assert_eq!(
        t.give(ready),
        vec![fail(1, UnknownNextPeer, Reason::PaymentTooSmall)]
    );
    assert_eq!(t.state(), State::Owed);
    assert!(t.order.owes());
    let owed = |e: &&LedgerEntry| matches!(e, LedgerEntry::OrderOwed { .. });
    assert_eq!(t.ledger.iter().filter(owed).count(), 1);
}

#[test]
fn test_S_47_channel_without_room_fails_the_payment() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    assert_eq!(
        t.ready(1, SIZE - FEE - 1),
        vec![fail(1, TemporaryChannelFailure, Reason::NoRoom)]
    );
    assert_eq!(t.state(), State::Owed);
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    assert_eq!(t.ready(1, SIZE - FEE), vec![forward(1, 1, SIZE - FEE, FEE)]);
}

#[test]
fn test_S_47_channel_larger_than_allowed_is_not_opened() {
    let mut t = T::fixed().with(|l| {
        l.sizing.min_sat = 0;
        l.sizing.max_sat = 1_000;
    });
    assert_eq!(
        t.part(1, SIZE),
        vec![fail(1, UnknownNextPeer, Reason::ChannelTooLarge)]
    );
    assert_eq!(t.state(), State::Sold);
}

#[test]
fn test_J_57_value_covers_what_is_forwarded() {
    let mut t = T::fixed().with(|l| l.sizing.min_sat = 0);
    let value = t.limits.sizing.channel_value(Msat(SIZE - FEE), 2).unwrap();
    t.part(1, SIZE / 2);
    let effects = t.part(2, SIZE / 2);
    assert_eq!(effects, vec![t.open(1, value)]);
}

#[test]
fn test_J_68_channel_not_usable_at_the_moment_it_is_ready() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.after(20_000);
    t.connected = false;
    assert_eq!(t.ready(1, 10_000_000), vec![Effect::Wake]);
    assert_eq!(t.state(), State::Forwarding);
    t.channels[0].usable = false;
    t.connected = true;
    assert_eq!(t.give(Input::Connected), vec![]);
    assert_eq!(t.after(59_999), vec![]);
    t.channels[0].usable = true;
    assert_eq!(t.tick(), vec![forward(1, 1, SIZE - FEE, FEE)]);

    // Not for ever.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.after(20_000);
    t.connected = false;
    t.ready(1, 10_000_000);
    assert_eq!(t.after(59_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(1, TemporaryChannelFailure, Reason::ClientOffline)]
    );
    assert_eq!(t.state(), State::Owed);
}

#[test]
fn test_S_70_existing_channel_is_used_without_a_fee() {
    let mut t = T::fixed();
    t.channels.push(view(9, SIZE));
    assert_eq!(t.part(1, SIZE), vec![forward(1, 9, SIZE, 0)]);
    assert_eq!(t.claim(1), vec![]);
    assert_eq!(t.state(), State::Sold);
    assert!(!t.order.paid && !t.order.owes());
    // Nothing was owed, so the next payment that does not fit buys the channel.
    assert!(is_open(&t.part_of(2, 2, SIZE + 1)));
}

#[test]
fn test_S_70_existing_channel_with_a_fee_where_the_operator_wants_it() {
    let mut t = T::fixed().with(|l| l.charge_on_reuse = true);
    t.channels.push(view(9, SIZE));
    assert_eq!(t.part(1, SIZE), vec![forward(1, 9, SIZE - FEE, FEE)]);
    assert_eq!(t.claim(1), vec![]);
    assert_eq!(t.state(), State::Paid);
    let reuse = |e: &LedgerEntry| matches!(e, LedgerEntry::FeeEarned { reuse: true, .. });
    assert!(t.ledger.iter().any(reuse));
    // It is an alias as long as it is valid or a channel lives.
    assert_eq!(t.at(VALID_UNTIL), vec![]);
    assert_eq!(t.part(2, 1_000), vec![forward(2, 9, 1_000, 0)]);
    t.claim(2);
    t.closed(9);
    assert_eq!(t.state(), State::Closed);
    assert!(t.order.is_over());
}

#[test]
fn test_S_70_channels_that_do_not_serve() {
    // Another order's, unpaid; too small for one part; too small for the sum.
    let unpaid = ChannelView {
        unpaid: true,
        ..view(9, 10 * SIZE)
    };
    let limit = ChannelView {
        outbound_capacity: Msat(10 * SIZE),
        ..view(9, SIZE - 1)
    };
    for channel in [unpaid, limit, view(9, SIZE - 1)] {
        let mut t = T::fixed();
        t.channels.push(channel);
        assert!(is_open(&t.part(1, SIZE)));
    }
    let mut t = T::fixed();
    t.channels.push(ChannelView {
        outbound_capacity: Msat(SIZE - 1),
        ..view(9, SIZE)
    });
    t.part(1, SIZE / 2);
    assert!(is_open(&t.part(2, SIZE / 2)));
}

#[test]
fn test_S_70_channel_about_to_be_usable_is_waited_for() {
    let mut t = T::fixed();
    t.channels.push(ChannelView {
        usable: false,
        ..view(9, SIZE)
    });
    assert_eq!(t.part(1, SIZE), vec![]);
    assert_eq!(t.state(), State::Waking);
    t.channels[0].usable = true;
    assert_eq!(t.after(1_000), vec![forward(1, 9, SIZE, 0)]);
}

#[test]
fn test_S_70_part_that_left_by_another_channel_is_found() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    t.opened(1);
    let find = |channel, amount: Option<u64>, skim: Option<u64>| {
        let (amount, skim) = (amount.map(Msat), skim.map(Msat));
        t.order
            .find_forwarded(&channel_id(channel), amount, skim, false)
    };
    let half = SIZE / 2;
    assert_eq!(find(1, Some(half - FEE), Some(FEE)), Some(part_id(1)));
    assert_eq!(find(1, Some(half), Some(0)), Some(part_id(2)));
    assert_eq!(find(1, Some(half), None), Some(part_id(2)));
    assert_eq!(find(9, Some(half), Some(0)), Some(part_id(2)));
    assert_eq!(find(1, Some(half - 1), Some(0)), None);
    assert_eq!(find(1, Some(half), Some(1)), None);
    assert_eq!(find(1, None, None), Some(part_id(1)));
    assert_eq!(find(9, None, None), None);
}

/// One payer and the client together: the part without the fee is claimed, the one with it is failed.
#[test]
fn a_claim_that_names_no_skim_earns_no_more_than_it_must() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.part(2, SIZE - FEE);
    let find = |t: &T| {
        t.order
            .find_forwarded(&channel_id(1), Some(Msat(SIZE - FEE)), None, false)
    };
    assert_eq!(find(&t), Some(part_id(2)));
    t.claim(2);
    assert_eq!(t.order.earned, Msat(0));
    assert_eq!(find(&t), Some(part_id(1)));
}

#[test]
fn a_part_that_is_taken_on_the_chain_pays_its_fee() {
    let mut t = T::fixed();
    t.part(1, SIZE + 384);
    t.opened(1);
    let find = |t: &T, channel, amount, on_chain| {
        t.order
            .find_forwarded(&channel_id(channel), Some(Msat(amount)), None, on_chain)
    };
    t.give(Input::ChannelClosed {
        channel: channel_id(1),
    });
    assert_eq!(t.state(), State::Closed);
    let scored = |t: &T| {
        let is = |e: &LedgerEntry| matches!(e, LedgerEntry::ClientScored { .. });
        t.ledger.iter().any(is)
    };
    assert!(!scored(&t), "it may be paid yet");
    assert_eq!(find(&t, 1, SIZE - FEE, false), None, "not by the channel");
    assert_eq!(find(&t, 1, SIZE - FEE, true), Some(part_id(1)));
    assert_eq!(
        find(&t, 9, SIZE - FEE, true),
        Some(part_id(1)),
        "by another"
    );
    t.claim(1);
    assert_eq!(t.order.earned, Msat(FEE));
    assert!(t.order.paid && t.order.is_over() && !scored(&t));
}

// Trust models.

#[test]
fn test_S_49_lsp_trusts_client_never_broadcasts_itself() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.claim(1), vec![enable(1)]);
    t.height += 1;
    assert_eq!(t.tick(), vec![]);
}

#[test]
fn test_S_50_client_trusts_lsp_broadcasts_after_the_claim_until_confirmed() {
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    t.height += 1;
    assert_eq!(t.tick(), vec![]);
    assert_eq!(t.claim(1), vec![enable(1), broadcast(1)]);
    assert_eq!(t.claim(1), vec![]);
    assert_eq!(t.tick(), vec![]);
    t.height += 1;
    assert_eq!(t.tick(), vec![broadcast(1)]);
    t.give(Input::FundingSeen);
    t.height += 1;
    assert_eq!(t.tick(), vec![broadcast(1)]);
    assert_eq!(t.resume(&[]), vec![enable(1), broadcast(1)]);
    t.give(Input::FundingConfirmed { depth: 1 });
    t.height += 1;
    assert_eq!(t.tick(), vec![]);
    assert_eq!(t.resume(&[]), vec![enable(1)]);
    // Reorged out: again.
    t.height += 1;
    assert_eq!(t.give(Input::FundingReorged), vec![broadcast(1)]);
}

#[test]
fn a_funding_transaction_costs_something_once_it_is_published() {
    // LSP trusts client: LDK publishes it with the client's signature, not before.
    let mut t = T::fixed();
    t.part(1, SIZE);
    assert_eq!(t.costs(), []);
    t.opened(1);
    t.pending(1);
    assert_eq!(t.costs(), [cost(1)]);
    t.resume(&[]);
    assert_eq!(t.costs(), [cost(1)]);
    // A client that is lost before it signs costs nothing, the attempt after it does.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.give(Input::OpenFailed {
        open: open_id(1),
        why: OpenFailure::Disconnected,
    });
    assert_eq!(t.costs(), []);
    t.part(2, SIZE);
    t.opened(2);
    assert_eq!(t.costs(), [cost(2)]);
    // A channel that comes of an attempt given up is closed, and has cost something all the same.
    t.pending(1);
    t.pending(1);
    assert_eq!(t.costs(), [cost(2), cost(1)]);
    // Client trusts LSP: with the first preimage, once, however often it is sent.
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.costs(), []);
    assert_eq!(t.claim(1), vec![enable(1), broadcast(1)]);
    assert_eq!(t.costs(), [cost(1)]);
    t.height += 1;
    assert_eq!(t.tick(), vec![broadcast(1)]);
    assert_eq!(t.resume(&[]), vec![enable(1), broadcast(1)]);
    assert_eq!(t.costs(), [cost(1)]);
    // Withheld to the end: nothing was spent.
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    t.closed(1);
    assert_eq!(t.failed(1), vec![unlock(1)]);
    assert_eq!(t.costs(), []);
}

#[test]
fn test_S_51_client_trusts_lsp_part_of_the_fee_claimed() {
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.limits.htlc_minimum = Msat(495_000);
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    t.pending(1);
    t.channels.push(ChannelView {
        open_id: Some(open_id(1)),
        htlc_minimum: Msat(495_000),
        ..view(1, 10_000_000)
    });
    t.give(Input::ChannelReady {
        open: open_id(1),
        channel: channel_id(1),
    });
    assert_eq!(t.claim(1), vec![broadcast(1)]);
    assert_eq!(t.failed(2), vec![]);
    assert_eq!(t.state(), State::Owed);
    assert_eq!(t.order.earned, Msat(5_000));
    // The rest is taken from the next payment.
    assert_eq!(
        t.part_of(3, 2, SIZE),
        vec![forward(3, 1, SIZE - 5_000, 5_000)]
    );
    assert_eq!(t.claim(3), vec![enable(1)]);
}

#[test]
fn test_S_52_closed_before_any_claim_is_never_broadcast() {
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    // A claim could still come: the coins stay locked.
    assert_eq!(t.closed(1), vec![]);
    assert_eq!(t.state(), State::Closed);
    assert_eq!(t.order.coins(), Some(open_id(1)));
    assert_eq!(t.failed(1), vec![unlock(1)]);
    assert_eq!(t.order.coins(), None);
    assert!(t.order.is_over());
    assert_eq!(t.tick(), vec![]);

    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    t.closed(1);
    assert_eq!(t.claim(1), vec![broadcast(1)]);
    assert!(!t.order.is_over());
    t.give(Input::FundingConfirmed { depth: 1 });
    assert!(t.order.is_over());
}

#[test]
fn test_S_53_failed_payment_leaves_the_fee_owed() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.failed(1), vec![]);
    assert_eq!(t.state(), State::Owed);
    assert_eq!(t.order.earned, Msat::ZERO);
    // A full set again, also after valid_until; the same hash is a new payment.
    t.at(VALID_UNTIL + 1);
    assert_eq!(t.part(2, SIZE / 2), vec![]);
    assert_eq!(t.state(), State::Collecting);
    assert_eq!(
        t.part(3, SIZE / 2),
        vec![
            forward(2, 1, SIZE / 2 - FEE, FEE),
            forward(3, 1, SIZE / 2, 0)
        ]
    );
    t.claim(2);
    assert_eq!(t.state(), State::Paid);
}

#[test]
fn test_S_53_unpaid_channel_is_closed_after_the_grace() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    // Not under a payment on its way.
    assert_eq!(t.at(VALID_UNTIL + 600_000), vec![]);
    let close = Effect::Close {
        channel: channel_id(1),
        reason: Reason::FeeUnpaid,
    };
    assert_eq!(t.failed(1), vec![close.clone()]);
    assert_eq!(t.tick(), vec![]);
    assert_eq!(
        t.part(2, SIZE),
        vec![fail(2, UnknownNextPeer, Reason::FeeUnpaid)]
    );
    assert_eq!(t.resume(&[]), vec![close]);
    assert_eq!(t.closed(1), vec![]);
    assert_eq!(t.state(), State::Closed);
    assert!(t.order.is_over());
    let by_us = |e: &LedgerEntry| {
        matches!(
            e,
            LedgerEntry::ChannelClosed {
                reason: Reason::FeeUnpaid,
                ..
            } | LedgerEntry::OrderEnded {
                reason: Reason::FeeUnpaid,
                ..
            }
        )
    };
    assert_eq!(t.ledger.iter().filter(|e| by_us(e)).count(), 2);

    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.failed(1);
    assert_eq!(t.at(VALID_UNTIL + 599_999), vec![]);
    assert_eq!(t.after(1).len(), 1);
}

#[test]
fn test_S_70_foreign_claim_over_the_withheld_channel_publishes_it() {
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.opened(1);
    let over = |n| Input::ClaimedOver {
        channel: channel_id(n),
    };
    assert_eq!(t.give(over(2)), vec![]);
    assert_eq!(t.give(over(1)), vec![broadcast(1)]);
    assert!(!t.order.paid);
}

// Races and expiry.

#[test]
fn test_S_56_too_close_to_expiry_at_arrival() {
    let mut t = T::fixed();
    t.height = RELEASE_BY;
    assert_eq!(
        t.part(1, SIZE),
        vec![fail(1, TemporaryChannelFailure, Reason::ReleaseHeight)]
    );
    t.height = RELEASE_BY - 1;
    assert!(is_open(&t.part(2, SIZE)));
}

#[test]
fn test_J_81_S_57_B_10_release_height_while_held_opening_and_waiting() {
    let gone = fail(1, TemporaryChannelFailure, Reason::ReleaseHeight);
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.height = RELEASE_BY - 1;
    assert_eq!(t.tick(), vec![]);
    t.height = RELEASE_BY;
    assert_eq!(t.tick(), vec![gone.clone()]);

    let mut t = T::fixed();
    t.part(1, SIZE);
    t.height = RELEASE_BY;
    assert_eq!(t.tick(), vec![gone.clone(), abandon(1, None), unlock(1)]);

    let mut t = T::fixed().offline();
    t.part(1, SIZE);
    t.height = RELEASE_BY;
    assert_eq!(t.tick(), vec![gone]);
    assert_eq!(t.connect(), vec![]);
}

#[test]
fn test_S_60_forwarded_part_is_never_forwarded_again() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.part(1, SIZE), vec![]);
    assert_eq!(t.ready(1, SIZE), vec![]);
    assert_eq!(t.give(Input::PartGone { id: part_id(1) }), vec![]);
    t.claim(1);
    assert_eq!(t.part(1, SIZE), vec![]);
    assert_eq!(t.failed(1), vec![]);
    assert_eq!(t.status(1), PartStatus::Claimed);
}

#[test]
fn test_S_62_refused_forward_is_tried_again_at_the_next_tick() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.give(Input::PartHeld { id: part_id(1) }), vec![]);
    assert_eq!(t.tick(), vec![forward(1, 1, SIZE - FEE, FEE)]);
    // One of two: only its own share is due.
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    t.opened(1);
    t.give(Input::PartHeld { id: part_id(1) });
    assert_eq!(t.tick(), vec![forward(1, 1, SIZE / 2 - FEE, FEE)]);
    t.give(Input::PartHeld { id: part_id(2) });
    assert_eq!(t.tick(), vec![forward(2, 1, SIZE / 2, 0)]);
}

// Restart.

#[test]
fn test_S_64_restart_between_open_and_forward() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.ready(1, 10_000_000);
    // The forward was lost: LDK holds the part still.
    t.now += 3_000_000;
    t.connected = false;
    t.channels[0].usable = false;
    assert_eq!(t.resume(&[1]), vec![Effect::Wake]);
    t.connected = true;
    t.channels[0].usable = true;
    assert_eq!(
        t.give(Input::Connected),
        vec![forward(1, 1, SIZE - FEE, FEE)]
    );
    // It was not lost: nothing is done again.
    t.connected = false;
    assert_eq!(t.resume(&[]), vec![]);
    assert_eq!(t.claim(1), vec![enable(1)]);
}

#[test]
fn test_S_65_restart_while_opening() {
    // LDK forgot the channel: its coins are freed, and it is opened anew when the client comes.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.connected = false;
    assert_eq!(t.resume(&[1]), vec![unlock(1), Effect::Wake]);
    assert_eq!(t.order.failures, 0);
    let effects = t.connect();
    assert_eq!(effects, vec![t.open(2, 20_000)]);
    // LDK knows the channel: it goes on, with a fresh clock.
    t.pending(2);
    t.now += 1_000_000;
    t.channels.push(ChannelView {
        usable: false,
        open_id: Some(open_id(2)),
        ..view(2, 10_000_000)
    });
    assert_eq!(t.resume(&[1]), vec![]);
    t.channels.clear();
    assert_eq!(t.ready(2, 10_000_000), vec![forward(1, 2, SIZE - FEE, FEE)]);
    // The part went while we were down, and so did the channel.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    assert_eq!(t.resume(&[]), vec![]);
    assert_eq!(t.state(), State::Sold);
    assert_eq!(t.status(1), PartStatus::Failed);
    assert_eq!(t.order.open, None);
}

#[test]
fn test_S_65_restart_finds_a_channel_nobody_waits_for() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.after(30_000);
    t.channels.push(ChannelView {
        open_id: Some(open_id(1)),
        ..view(1, 10_000_000)
    });
    let close = Effect::Close {
        channel: channel_id(1),
        reason: Reason::OpenFailed,
    };
    assert_eq!(t.resume(&[]), vec![close]);
    // It is never used.
    assert!(is_open(&t.part(2, SIZE)));
}

#[test]
fn test_S_65_restart_repeats_what_may_be_lost() {
    let mut t = T::fixed().offline();
    t.part(1, SIZE);
    assert_eq!(t.resume(&[1]), vec![Effect::Wake]);
    let mut t = T::fixed().with(|l| l.ask_policy = true);
    let asked = t.part(1, SIZE);
    assert_eq!(t.resume(&[1]), asked);
    let mut t = T::fixed();
    let failed = t.part(1, 999);
    assert_eq!(t.resume(&[1]), failed);
    assert_eq!(t.resume(&[]), vec![]);
    assert_eq!(t.status(1), PartStatus::Failed);
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.channels.clear();
    t.resume(&[]);
    assert_eq!(t.state(), State::Closed);
}

#[test]
fn test_S_66_only_the_latest_parts_are_remembered() {
    let mut t = T::fixed();
    for n in 0..200 {
        t.part(n, 999);
        t.give(Input::PartGone { id: part_id(n) });
    }
    assert_eq!(t.order.parts.len(), 64);
    assert!(t.order.parts.contains_key(&part_id(199)));
    assert!(!t.order.parts.contains_key(&part_id(135)));
}

// After the open.

fn paid() -> T {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.claim(1);
    t.channels[0].unpaid = false;
    t
}

#[test]
fn test_S_68_paid_order_forwards_unskimmed_while_its_channel_lives() {
    let mut t = paid();
    assert_eq!(t.part_of(2, 2, 5_000), vec![forward(2, 1, 5_000, 0)]);
    t.at(VALID_UNTIL + 10_000_000);
    assert_eq!(t.state(), State::Paid);
    assert_eq!(t.part_of(3, 3, 5_000), vec![forward(3, 1, 5_000, 0)]);
    assert_eq!(
        t.part_of(4, 4, 10_000_001),
        vec![fail(4, TemporaryChannelFailure, Reason::NoRoom)]
    );
    // Offline: woken, held, sent.
    t.channels[0].usable = false;
    t.disconnect();
    assert_eq!(t.part_of(5, 5, 5_000), vec![Effect::Wake]);
    assert_eq!(t.part_of(6, 6, 5_000), vec![]);
    t.after(30_000);
    t.channels[0].usable = true;
    assert_eq!(
        t.connect(),
        vec![forward(5, 1, 5_000, 0), forward(6, 1, 5_000, 0)]
    );
    t.channels[0].usable = false;
    t.disconnect();
    assert_eq!(t.part_of(7, 7, 5_000), vec![Effect::Wake]);
    assert_eq!(t.after(59_999), vec![]);
    assert_eq!(
        t.after(1),
        vec![fail(7, TemporaryChannelFailure, Reason::ClientOffline)]
    );
}

#[test]
fn test_J_78_two_parts_at_once_share_the_room() {
    let mut t = paid();
    t.channels[0].usable = false;
    t.disconnect();
    t.part_of(2, 2, 6_000_000);
    t.part_of(3, 3, 6_000_000);
    t.part_of(4, 4, 4_000_000);
    t.channels[0].usable = true;
    assert_eq!(
        t.connect(),
        vec![
            forward(2, 1, 6_000_000, 0),
            fail(3, TemporaryChannelFailure, Reason::NoRoom),
            forward(4, 1, 4_000_000, 0)
        ]
    );
}

#[test]
fn test_S_66_paid_order_ends_with_its_channel() {
    let mut t = paid();
    t.channels[0].usable = false;
    t.disconnect();
    t.part_of(2, 2, 5_000);
    assert_eq!(
        t.closed(1),
        vec![fail(2, UnknownNextPeer, Reason::ChannelClosed)]
    );
    assert_eq!(t.state(), State::Closed);
    t.give(Input::PartGone { id: part_id(2) });
    assert!(t.order.is_over());
    let ended = |e: &LedgerEntry| matches!(e, LedgerEntry::OrderEnded { .. });
    assert!(!t.ledger.iter().any(ended));
    assert_eq!(
        t.part_of(3, 3, 5_000),
        vec![fail(3, UnknownNextPeer, Reason::UnknownScid)]
    );
}

#[test]
fn test_S_72_reorged_funding_stops_forwards() {
    let mut t = paid();
    t.give(Input::FundingConfirmed { depth: 3 });
    t.give(Input::FundingReorged);
    assert_eq!(t.part_of(2, 2, 5_000), vec![]);
    assert_eq!(t.status(2), PartStatus::Held);
    assert_eq!(
        t.give(Input::FundingConfirmed { depth: 1 }),
        vec![forward(2, 1, 5_000, 0)]
    );
    assert_eq!(t.order.open.as_ref().unwrap().phase, OpenPhase::Ready);
}

#[test]
fn test_S_29_ten_thousand_steps_in_a_second() {
    let mut t = paid();
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        t.tick();
    }
    assert!(begin.elapsed().as_millis() < 1_000);
}

#[test]
fn test_S_38_room_found_while_the_policy_thinks() {
    let mut t = T::fixed().with(|l| l.ask_policy = true);
    t.part(1, SIZE);
    t.channels.push(view(9, SIZE));
    assert_eq!(t.tick(), vec![forward(1, 9, SIZE, 0)]);
    assert_eq!(t.order.open, None);
    let answer = Ok(ChannelTerms { value_sat: 1 });
    let open = open_id(1);
    assert_eq!(t.give(Input::PolicyAnswered { open, answer }), vec![]);
}

#[test]
fn test_S_65_part_that_came_back_from_a_free_channel_pays_for_a_new_one() {
    let mut t = T::fixed();
    t.channels.push(view(9, SIZE));
    t.part(1, SIZE);
    t.give(Input::PartHeld { id: part_id(1) });
    assert!(is_open(&t.closed(9)));
    assert_eq!(t.opened(1), vec![forward(1, 1, SIZE - FEE, FEE)]);
}

#[test]
fn test_S_65_restart_before_channel_pending_was_told() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.channels.push(ChannelView {
        open_id: Some(open_id(1)),
        usable: false,
        ..view(1, 10_000_000)
    });
    assert_eq!(t.resume(&[1]), vec![]);
    assert_eq!(t.state(), State::Opening);
    t.pending(1);
    t.channels.clear();
    assert_eq!(t.ready(1, 10_000_000), vec![forward(1, 1, SIZE - FEE, FEE)]);
}

#[test]
fn test_J_72_part_that_was_not_reduced_earns_nothing() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.part(2, SIZE / 2);
    t.opened(1);
    t.claim(1);
    t.claim(2);
    let earned = |e: &&LedgerEntry| matches!(e, LedgerEntry::FeeEarned { .. });
    assert_eq!(t.ledger.iter().filter(earned).count(), 1);
}

#[test]
fn test_S_70_the_channel_named_comes_before_the_oldest_part() {
    let mut t = paid();
    t.channels.push(view(9, SIZE));
    t.channels[0].outbound_limit = Msat(4_000);
    t.part_of(2, 2, 5_000);
    t.channels[0].outbound_limit = Msat(5_000);
    t.part_of(3, 3, 5_000);
    let find = |n| {
        t.order
            .find_forwarded(&channel_id(n), Some(Msat(5_000)), None, false)
    };
    assert_eq!(find(9), Some(part_id(2)));
    assert_eq!(find(1), Some(part_id(3)));
}

#[test]
fn test_J_52_another_payment_at_valid_until_is_not_even_held() {
    let mut t = T::fixed();
    t.now = VALID_UNTIL - 1;
    t.part(1, SIZE);
    t.now = VALID_UNTIL;
    assert_eq!(
        t.part_of(2, 2, SIZE),
        vec![fail(2, UnknownNextPeer, Reason::Expired)]
    );
    let of_the_other = |e: &&LedgerEntry| matches!(e, LedgerEntry::PartAccepted { payment_hash, .. } if *payment_hash == hash(2));
    assert_eq!(t.ledger.iter().filter(of_the_other).count(), 0);
}

#[test]
fn test_S_65_channel_pending_told_twice_is_one_open() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    assert_eq!(t.pending(1), vec![]);
    let opened = |e: &&LedgerEntry| matches!(e, LedgerEntry::ChannelOpened { .. });
    assert_eq!(t.ledger.iter().filter(opened).count(), 1);
    assert_eq!(t.order.open.as_ref().unwrap().phase, OpenPhase::Ready);
}

#[test]
fn test_S_51_coins_of_a_funding_that_was_seen_are_spent_whoever_published_it() {
    let mut t = T::new(Some(SIZE), ClientTrustsLsp);
    t.part(1, SIZE);
    t.pending(1);
    assert_eq!(t.give(Input::FundingConfirmed { depth: 1 }), vec![]);
    assert_eq!(
        t.closed(1),
        vec![fail(1, TemporaryChannelFailure, Reason::ChannelClosed)]
    );
}

#[test]
fn test_S_70_paid_channel_of_another_order_serves_and_a_stray_of_this_one_does_not() {
    let mut t = T::fixed();
    let other = OpenId::new(Scid(SCID.0 + 1), Millis(SOLD_AT), 1);
    t.channels.push(ChannelView {
        open_id: Some(open_id(7)),
        ..view(8, 10 * SIZE)
    });
    t.channels.push(ChannelView {
        open_id: Some(other),
        ..view(9, SIZE)
    });
    assert_eq!(t.part(1, SIZE), vec![forward(1, 9, SIZE, 0)]);
}

#[test]
fn test_S_47_the_reason_is_that_of_the_orders_own_channel() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.channels.push(ChannelView {
        htlc_minimum: Msat(10 * SIZE),
        ..view(9, 10 * SIZE)
    });
    assert_eq!(
        t.ready(1, SIZE - FEE - 1),
        vec![fail(1, TemporaryChannelFailure, Reason::NoRoom)]
    );
}

#[test]
fn test_J_83_a_late_part_waits_no_longer_than_its_payment() {
    let mut t = T::fixed().offline();
    t.part(1, SIZE);
    t.now += 30_000;
    t.part(2, 1_000);
    t.now += 29_999;
    assert_eq!(t.tick(), vec![]);
    assert_eq!(
        t.after(1),
        vec![
            fail(1, TemporaryChannelFailure, Reason::ClientOffline),
            fail(2, TemporaryChannelFailure, Reason::ClientOffline)
        ]
    );
}

fn ended(t: &T) -> Vec<Reason> {
    let reason = |e: &LedgerEntry| match e {
        LedgerEntry::OrderEnded { reason, .. } => Some(*reason),
        _ => None,
    };
    t.ledger.iter().filter_map(reason).collect()
}

#[test]
fn test_S_66_the_ledger_says_why_an_order_ended() {
    let mut t = T::fixed().with(|l| l.max_opens = 1);
    t.part(1, SIZE);
    t.give(Input::OpenFailed {
        open: open_id(1),
        why: OpenFailure::ClientError,
    });
    t.give(Input::PartGone { id: part_id(1) });
    assert_eq!(ended(&t), vec![Reason::TooManyOpens]);

    // The client closed a channel that it had not paid for; we closed it.
    for ours in [false, true] {
        let mut t = T::fixed();
        t.part(1, SIZE);
        t.opened(1);
        t.failed(1);
        if ours {
            t.at(VALID_UNTIL + 600_000);
        }
        t.closed(1);
        t.at(VALID_UNTIL + 600_000);
        let why = if ours {
            Reason::FeeUnpaid
        } else {
            Reason::ChannelClosed
        };
        assert_eq!(ended(&t), vec![why], "{ours}");
    }
}

#[test]
fn test_S_70_a_payment_on_its_way_over_another_channel_is_being_forwarded() {
    let mut t = T::fixed();
    t.channels.push(view(9, SIZE));
    t.part(1, SIZE);
    assert_eq!(t.state(), State::Forwarding);
}

// Coins locked ahead.

fn lock(attempt: u32, value_sat: u64) -> Effect {
    Effect::Lock {
        open: open_id(attempt),
        value_sat,
    }
}

#[test]
fn coins_are_locked_at_the_first_part_and_used_by_the_open() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    assert_eq!(t.ahead, vec![lock(1, 20_000)]);
    assert_eq!(t.order.coins(), Some(open_id(1)));
    assert_eq!(t.order.burden().reserved_sat, 0);
    let effects = t.part(2, SIZE / 2);
    assert_eq!(effects, vec![t.open(1, 20_000)]);
    assert_eq!(t.ahead.len(), 1, "the open has them now");
    assert_eq!(t.order.ahead, None);
    assert_eq!(t.order.coins(), Some(open_id(1)));

    // A complete payment of one part needs no lock of its own.
    let mut t = T::fixed();
    t.part(1, SIZE);
    assert_eq!(t.ahead, vec![]);
}

#[test]
fn coins_are_given_back_with_the_last_part() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    assert_eq!(t.after(89_999), vec![]);
    assert_eq!(t.ahead.len(), 1);
    t.after(1);
    assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
    assert_eq!(t.order.coins(), None);
    assert_eq!(t.order.burden().reserved_sat, 30_000, "promised again");

    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.give(Input::PartGone { id: part_id(1) });
    assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
}

#[test]
fn no_coins_fail_the_first_part_at_once() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    let open = open_id(1);
    assert_eq!(
        t.give(Input::NotLocked { open }),
        vec![fail(1, TemporaryChannelFailure, Reason::NoCoins)]
    );
    assert_eq!(t.order.coins(), None);
    assert_eq!(t.order.failures, 0);
    assert_eq!(t.ahead.len(), 1, "nothing to give back");
    t.give(Input::PartGone { id: part_id(1) });
    assert_eq!(t.state(), State::Sold);

    // While the operator's rule is asked.
    let mut t = T::fixed().with(|l| l.ask_policy = true);
    t.part(1, SIZE);
    assert_eq!(t.ahead, vec![lock(1, 20_000)]);
    assert_eq!(
        t.give(Input::NotLocked { open }),
        vec![fail(1, TemporaryChannelFailure, Reason::NoCoins)]
    );
    assert_eq!((t.order.coins(), t.ahead.len()), (None, 1));
}

#[test]
fn coins_wait_with_the_payment_for_a_sleeping_client() {
    for size in [Some(SIZE), None] {
        let mut t = T::new(size, LspTrustsClient).offline();
        t.part(1, SIZE);
        assert_eq!(t.ahead, vec![lock(1, 20_000)]);
        t.after(60_000);
        assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
    }
    let mut t = T::fixed().offline();
    t.part(1, SIZE);
    assert!(is_open(&t.connect()));
    assert_eq!(t.ahead.len(), 1);
}

#[test]
fn no_coins_are_locked_where_none_are_needed() {
    // A channel that is there carries it.
    let mut t = T::fixed();
    t.channels.push(view(9, 2_000_000));
    t.part(1, SIZE / 2);
    assert_eq!(t.ahead, vec![]);
    // It comes while parts are collected.
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.channels.push(view(9, 2_000_000));
    t.tick();
    assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
    // Nothing is opened at or after `valid_until`.
    let mut t = T::fixed().offline();
    t.now = VALID_UNTIL - 1;
    t.part(1, SIZE / 2);
    assert_eq!(t.ahead.len(), 1);
    t.at(VALID_UNTIL);
    assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
}

#[test]
fn a_restart_locks_again_what_was_locked_ahead() {
    let mut t = T::fixed();
    t.part(1, SIZE / 2);
    t.ahead.clear();
    t.resume(&[1]);
    assert_eq!(t.ahead, vec![lock(1, 20_000)]);
    t.ahead.clear();
    t.resume(&[]);
    assert_eq!(t.ahead, vec![lock(1, 20_000), unlock(1)]);
}

// Trust.

#[test]
fn test_S_55_an_unpaid_channel_counts_once_and_only_when_its_offer_ends() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.failed(1);
    assert_eq!(t.state(), State::Owed);
    assert_eq!(t.order.burden().owed, 1);
    t.at(VALID_UNTIL - 1);
    assert_eq!(t.scored, 0, "a failed payment alone says nothing");
    t.at(VALID_UNTIL);
    assert_eq!(t.scored, 1);
    t.at(VALID_UNTIL + 600_000);
    t.closed(1);
    assert_eq!(t.scored, 1);
    let rows = t
        .ledger
        .iter()
        .filter(|e| matches!(e, LedgerEntry::ClientScored { .. }));
    assert_eq!(rows.count(), 1);
}

#[test]
fn test_S_55_a_client_that_closes_before_it_pays_counts() {
    for trust in [LspTrustsClient, ClientTrustsLsp] {
        let mut t = T::new(Some(SIZE), trust);
        t.part(1, SIZE);
        t.opened(1);
        t.failed(1);
        t.closed(1);
        assert_eq!(t.scored, 1);
    }
    // Published, and closed before it was ready.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.pending(1);
    t.closed(1);
    assert_eq!(t.scored, 0, "it may be opened once more");
    t.at(VALID_UNTIL);
    assert_eq!(t.scored, 1);
}

#[test]
fn test_S_55_what_cost_nothing_does_not_count() {
    // No payment ever came, the client refused the channel, or was away.
    let mut t = T::fixed();
    t.at(VALID_UNTIL);
    assert_eq!((t.state(), t.scored), (State::Expired, 0));
    let mut t = T::fixed();
    t.part(1, SIZE);
    let why = OpenFailure::ClientError;
    let open = open_id(1);
    t.give(Input::OpenFailed { open, why });
    t.at(VALID_UNTIL);
    assert_eq!((t.state(), t.scored), (State::Expired, 0));
    // One that paid never counts.
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.claim(1);
    t.at(VALID_UNTIL);
    t.closed(1);
    assert_eq!(t.scored, 0);
}

#[test]
fn test_S_55_a_payment_held_by_the_client_counts_at_its_time() {
    let mut t = T::fixed();
    t.part(1, SIZE);
    t.opened(1);
    t.after(899_999);
    assert_eq!(t.scored, 0);
    t.after(1);
    assert_eq!(t.scored, 1);
    assert_eq!(t.claim(1), vec![enable(1)], "it is taken all the same");
}

// Held HTLCs.

#[test]
fn a_part_above_the_number_held_is_refused_and_the_order_untouched() {
    let refusal = |t: &mut T| t.part(1, SIZE);
    let refused = vec![fail(1, TemporaryChannelFailure, Reason::TooManyHeld)];
    let mut t = T::fixed();
    t.held = 100;
    assert_eq!(refusal(&mut t), refused);
    assert_eq!(t.state(), State::Sold);
    let mut t = T::fixed();
    t.held_in_all = 1_000;
    assert_eq!(refusal(&mut t), refused);
    let mut t = T::fixed();
    t.held_of_strangers = 500;
    assert_eq!(refusal(&mut t), refused);
    let mut t = T::fixed();
    (t.held, t.held_of_strangers, t.held_in_all) = (99, 499, 999);
    assert!(is_open(&t.part(1, SIZE)));
    assert_eq!(t.order.burden().held, 1);
    // Who has a token stands beside them.
    let mut vip = terms(Some(SIZE), LspTrustsClient);
    vip.token = Some("vip".into());
    let mut t = T::sold(Order::new(vip));
    (t.held_of_strangers, t.held_in_all) = (500, 999);
    assert!(is_open(&t.part(1, SIZE)));
}
