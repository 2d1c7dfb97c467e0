//! Generated histories of one order against a model of LDK, its payer, its client and the chain.
#![allow(
    missing_docs,
    non_snake_case,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod fuzz_corpus;
mod order_support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ldkjit_core::amount::Msat;
use ldkjit_core::fee::opening_fee;
use ldkjit_core::ids::{ChannelId, OpenId, PartId, PaymentHash};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::liquidity::Books;
use ldkjit_core::menu::TrustModel;
use ldkjit_core::order::{
    ChannelTerms, ChannelView, Effect, Env, Input, OpenFailure, Order, OrderLimits, Part,
    PartStatus, State,
};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::Millis;
use order_support::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// A part: hash, share of the size in tenths, over-declared by.
    Part(u8, u64, u64),
    Connect,
    Disconnect,
    /// Time goes on by so many ms.
    Wait(u64),
    /// To just before, on, or just after the next boundary of a kind.
    Boundary(u8, u64),
    Blocks(u32),
    Policy(u8),
    /// The open in progress takes its next step, or fails.
    OpenGoesOn,
    OpenFails(OpenFailure),
    Claim(u8),
    FailPart(u8),
    /// LDK lets a held part go by itself.
    LetGo(u8),
    /// The channel that a held part came over is closed.
    Strand(u8),
    /// LDK will refuse the next forward.
    Refuse,
    /// The coins of the wallet come to an end, or come back.
    Coins,
    /// The client closes the order's channel.
    Close,
    CloseOther,
    /// An event of LDK's queue is delivered.
    Deliver,
    /// An old input comes again.
    Replay(u8),
    Funding(u8),
    ClaimedOver,
    Commit,
    /// At the next input: state saved, effects lost.
    LoseEffects,
    /// Everything goes back to the last commit.
    RollBack,
    /// A clean restart.
    Restart,
}

#[derive(Clone, Debug)]
struct Held {
    hash: PaymentHash,
    inbound: u64,
    declared: u64,
    arrived: u64,
    release_by: u32,
}

#[derive(Clone, Debug)]
struct Flight {
    part: Held,
    channel: ChannelId,
    amount: u64,
    skim: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Pending,
    Ready,
    Closed,
}

#[derive(Clone, Debug)]
struct Channel {
    open: Option<OpenId>,
    phase: Phase,
    room: u64,
    minimum: u64,
    unpaid: bool,
}

#[derive(Clone, Debug)]
struct World {
    order: Order,
    limits: OrderLimits,
    now: u64,
    height: u32,
    connected: bool,
    held: BTreeMap<PartId, Held>,
    gone: BTreeSet<PartId>,
    flights: BTreeMap<PartId, Flight>,
    channels: BTreeMap<ChannelId, Channel>,
    requested: BTreeMap<OpenId, u64>,
    asked: BTreeSet<OpenId>,
    opened: BTreeSet<OpenId>,
    abandoned: BTreeSet<OpenId>,
    lost_opens: BTreeSet<OpenId>,
    locked: BTreeSet<OpenId>,
    unlocked: BTreeSet<OpenId>,
    spent: BTreeSet<OpenId>,
    confirmed: BTreeSet<OpenId>,
    claimed_over: BTreeSet<ChannelId>,
    closes: BTreeSet<ChannelId>,
    enabled: BTreeSet<ChannelId>,
    events: VecDeque<Input>,
    past: Vec<Input>,
    ledger: Vec<LedgerEntry>,
    skim_claimed: u64,
    parts: u8,
    refuse: bool,
    lose: bool,
    /// The wallet has no coins.
    dry: bool,
    scored: bool,
    books: Books,
    /// Work of the current restart: effects of `resume` may repeat earlier ones.
    resuming: bool,
    stats: Stats,
}

#[derive(Clone, Debug, Default)]
struct Stats {
    paid: bool,
    owed: bool,
    waking: bool,
    opened: u32,
    ahead: u32,
    forwarded: u32,
}

impl World {
    fn new(order: Order, limits: OrderLimits) -> Self {
        let mut books = Books::default();
        books.add(&order);
        World {
            books,
            order,
            limits,
            now: SOLD_AT,
            height: 1_000,
            connected: true,
            held: BTreeMap::new(),
            gone: BTreeSet::new(),
            flights: BTreeMap::new(),
            channels: BTreeMap::new(),
            requested: BTreeMap::new(),
            asked: BTreeSet::new(),
            opened: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            lost_opens: BTreeSet::new(),
            locked: BTreeSet::new(),
            unlocked: BTreeSet::new(),
            spent: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            claimed_over: BTreeSet::new(),
            closes: BTreeSet::new(),
            enabled: BTreeSet::new(),
            events: VecDeque::new(),
            past: Vec::new(),
            ledger: Vec::new(),
            skim_claimed: 0,
            parts: 0,
            refuse: false,
            lose: false,
            dry: false,
            scored: false,
            resuming: false,
            stats: Stats::default(),
        }
    }

    fn ctl(&self) -> bool {
        self.order.terms.trust == TrustModel::ClientTrustsLsp
    }

    fn views(&self) -> Vec<ChannelView> {
        self.channels
            .iter()
            .filter(|(_, c)| c.phase != Phase::Closed)
            .map(|(id, c)| ChannelView {
                id: *id,
                open_id: c.open,
                usable: self.connected && c.phase == Phase::Ready,
                outbound_limit: Msat(c.room),
                outbound_capacity: Msat(c.room),
                htlc_minimum: Msat(c.minimum),
                unpaid: c.unpaid || c.open.is_some() && !self.order.paid,
            })
            .collect()
    }

    fn with_env<T>(&self, f: impl FnOnce(&Env) -> T) -> T {
        let channels = self.views();
        f(&Env {
            now: Millis(self.now),
            height: self.height,
            connected: self.connected,
            channels: &channels,
            limits: &self.limits,
            held_for_client: 0,
            held_of_strangers: 0,
            held: 0,
        })
    }

    /// One input, its effects, the answers to them, and all checks.
    fn give(&mut self, input: Input) {
        let before = self.order.clone();
        let (order, effects) = self.with_env(|env| before.step(&input, env));
        let again = self.with_env(|env| order.step(&Input::Tick, env));
        if !matches!(input, Input::PartHeld { .. }) {
            assert_eq!(
                again,
                (order.clone(), vec![]),
                "settling twice, after {input:?}"
            );
        }
        if !matches!(
            input,
            Input::PartHeld { .. }
                | Input::NotLocked { .. }
                | Input::FundingConfirmed { .. }
                | Input::FundingReorged
        ) {
            self.past.push(input.clone());
        }
        self.take(order, effects);
        if matches!(input, Input::Tick) {
            self.check_deadlines();
        }
    }

    fn take(&mut self, order: Order, effects: Vec<Effect>) {
        let json = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order);
        self.check_release(&order, &effects);
        self.books.remove(&self.order);
        self.books.add(&order);
        self.order = order;
        match self.order.state {
            State::Paid => self.stats.paid = true,
            State::Owed => self.stats.owed = true,
            State::Waking => self.stats.waking = true,
            _ => {}
        }
        for effect in &effects {
            if let Effect::Record(entry) = effect {
                self.ledger.push(entry.clone());
            }
        }
        if self.lose {
            self.lose = false;
            for effect in &effects {
                if let Effect::Open { open, .. } = effect {
                    self.lost_opens.insert(*open);
                    self.unlocked.remove(open);
                }
            }
            self.restart();
            return;
        }
        let mut answers = Vec::new();
        for effect in effects {
            self.carry_out(effect, &mut answers);
        }
        self.check();
        for answer in answers {
            self.give(answer);
        }
    }

    /// A restart: connections and unsigned opens are lost, everything else is as it was.
    fn restart(&mut self) {
        self.connected = false;
        self.requested.clear();
        self.refuse = false;
        let order = self.order.clone();
        // The node gives back coins that no order claims; spent ones are not there to be given back.
        let kept = order.coins();
        self.locked.retain(|id| Some(*id) == kept);
        let held = self.held.keys().copied().collect();
        self.enabled.clear();
        self.closes.clear();
        self.asked.clear();
        self.resuming = true;
        let (order, effects) = self.with_env(|env| order.resume(&held, env));
        self.take(order, effects);
        self.resuming = false;
        self.check();
    }

    fn carry_out(&mut self, effect: Effect, answers: &mut Vec<Input>) {
        let terms = self.order.terms.clone();
        match effect {
            Effect::Fail { part, .. } => {
                if !self.gone.contains(&part) {
                    assert!(self.held.remove(&part).is_some(), "failed twice {part}");
                }
                answers.push(Input::PartGone { id: part });
            }
            Effect::Wake => {
                assert!(!self.connected);
                assert!(!self.held.is_empty() || !self.gone.is_empty());
            }
            Effect::AskPolicy { open, .. } => {
                assert!(self.limits.ask_policy);
                assert!(self.connected || self.resuming);
                assert!(self.asked.insert(open), "asked twice");
            }
            Effect::Open {
                open,
                value_sat,
                max_to_self_delay,
            } => {
                assert!(self.opened.insert(open), "opened twice");
                assert!(self.connected, "opened while disconnected");
                assert!(self.now < VALID_UNTIL, "opened too late");
                assert_eq!(max_to_self_delay, 2_016);
                assert!(self.requested.is_empty());
                let own = |c: &Channel| c.open.is_some() && c.phase == Phase::Ready;
                assert!(
                    !self.channels.iter().any(|(id, c)| own(c)
                        && !self.closes.contains(id)
                        && !self
                            .events
                            .iter()
                            .any(|e| matches!(e, Input::ChannelReady { .. }))),
                    "second channel"
                );
                let hash = self.order.paying.expect("open without a payment");
                // A part that LDK let go counts until the order is told.
                let counts = |p: &&Part| p.hash == hash && p.status == PartStatus::Held;
                let parts = self.order.parts.values().filter(counts);
                let declared: u64 = parts.map(|p| p.declared.0).sum();
                let needed = terms.size.map_or(1, |s| s.0);
                assert!(declared >= needed, "opened for an incomplete set");
                assert!(value_sat * 1_000 > needed - needed.min(self.order.fee.unwrap().0));
                self.stats.opened += 1;
                self.unlocked.remove(&open);
                self.stats.ahead += u32::from(!self.locked.insert(open));
                self.requested.insert(open, value_sat);
            }
            Effect::Lock { open, value_sat } => {
                assert!(value_sat > 0);
                let others = self.locked.iter().filter(|id| **id != open);
                let spent = |id: &OpenId| self.channels.values().any(|c| c.open == Some(*id));
                assert!(others.copied().all(|id| spent(&id)), "locked twice");
                assert!(!self.opened.contains(&open), "locked after the open");
                self.unlocked.remove(&open);
                if self.dry && !self.locked.contains(&open) {
                    answers.push(Input::NotLocked { open });
                } else {
                    let new = self.locked.insert(open);
                    assert!(new || self.resuming, "locked again");
                }
            }
            Effect::Score => {
                assert!(!self.order.paid);
                assert!(!self.channels.is_empty() || !self.spent.is_empty());
                assert!(!std::mem::replace(&mut self.scored, true), "scored twice");
            }
            Effect::AbandonOpen { open, channel } => {
                assert!(self.abandoned.insert(open), "abandoned twice");
                self.requested.remove(&open);
                if let Some(channel) = channel {
                    self.closes.insert(channel);
                }
                let ids: Vec<ChannelId> = self
                    .channels
                    .iter()
                    .filter(|(_, c)| c.open == Some(open))
                    .map(|(id, _)| *id)
                    .collect();
                for id in ids {
                    self.close(id);
                }
            }
            Effect::Unlock { open } => {
                let was_locked = self.locked.remove(&open);
                let lost = self.lost_opens.contains(&open);
                assert!(was_locked || lost || self.resuming, "not locked");
                assert!(self.unlocked.insert(open), "unlocked twice");
                let ctl_spent = self.ctl() && self.spent.contains(&open);
                assert!(!ctl_spent, "unlocked spent coins");
                let own = self.channels.iter().find(|(_, c)| c.open == Some(open));
                if let Some((id, _)) = own.filter(|_| self.ctl()) {
                    assert!(!self.flights.values().any(|f| f.channel == *id));
                }
            }
            Effect::Forward {
                part,
                channel,
                amount,
                skim,
            } => {
                if self.gone.contains(&part) {
                    answers.push(Input::PartFailed { id: part });
                    return;
                }
                if std::mem::take(&mut self.refuse) {
                    assert!(self.held.contains_key(&part));
                    answers.push(Input::PartHeld { id: part });
                    return;
                }
                let held = self.held.remove(&part).expect("forwarded twice");
                assert!(self.height < held.release_by);
                assert_eq!(amount.0 + skim.0, held.declared);
                assert!(held.declared <= held.inbound);
                assert!(self.connected);
                let c = self.channels.get_mut(&channel).unwrap();
                assert_eq!(c.phase, Phase::Ready);
                assert!(!c.unpaid, "another order's unpaid channel");
                assert!(amount.0 >= c.minimum);
                assert!(amount.0 <= c.room);
                c.room -= amount.0;
                if c.open.is_none() && !self.limits.charge_on_reuse {
                    assert_eq!(skim, Msat::ZERO);
                }
                self.stats.forwarded += 1;
                self.flights.insert(
                    part,
                    Flight {
                        part: held,
                        channel,
                        amount: amount.0,
                        skim: skim.0,
                    },
                );
            }
            Effect::Broadcast { open } => {
                assert!(self.ctl(), "broadcast where LDK does it");
                let (id, _) = self
                    .channels
                    .iter()
                    .find(|(_, c)| c.open == Some(open))
                    .unwrap();
                assert!(self.claimed_over.contains(id), "broadcast before a claim");
                assert!(
                    !self.unlocked.contains(&open),
                    "broadcast of unlocked coins"
                );
                self.spent.insert(open);
            }
            Effect::EnableForwarding { channel } => {
                assert!(self.order.paid);
                assert!(self.skim_claimed >= self.order.fee.unwrap().0);
                assert!(self.enabled.insert(channel), "enabled twice");
            }
            Effect::Close { channel, .. } => {
                assert!(self.closes.insert(channel), "closed twice");
                assert!(!self.flights.values().any(|f| f.channel == channel));
                self.close(channel);
            }
            Effect::Record(_) => {}
        }
    }

    fn close(&mut self, id: ChannelId) {
        let c = self.channels.get_mut(&id).unwrap();
        if c.phase != Phase::Closed {
            c.phase = Phase::Closed;
            self.events.push_back(Input::ChannelClosed { channel: id });
        }
    }

    /// What leaves for a payment in one step is complete and bears the whole fee, or none.
    fn check_release(&self, order: &Order, effects: &[Effect]) {
        let mut sets: BTreeMap<PaymentHash, (u64, u64, ChannelId)> = BTreeMap::new();
        for effect in effects {
            if let Effect::Forward {
                part,
                channel,
                amount,
                skim,
            } = effect
            {
                let p = &order.parts[part];
                let sum = sets.entry(p.hash).or_insert((0, 0, *channel));
                sum.0 += amount.0 + skim.0;
                sum.1 += skim.0;
            }
        }
        if order.paid {
            assert!(sets.values().all(|s| s.1 == 0), "skimmed after paid");
            return;
        }
        for (hash, (sum, skim, channel)) in sets {
            assert_eq!(order.paying, Some(hash), "another payment went out");
            let out =
                |p: &Part| p.hash == hash && matches!(p.status, PartStatus::Forwarding { .. });
            if self.order.parts.values().any(out) {
                continue;
            }
            let size = order.terms.size.map_or(1, |s| s.0);
            assert!(sum >= size, "incomplete set released");
            let own = self.channels[&channel].open.is_some();
            if own || self.limits.charge_on_reuse {
                let fee = opening_fee(
                    order.terms.size.unwrap_or(Msat(sum)),
                    Msat(10_000),
                    order.terms.params.proportional,
                )
                .unwrap();
                if order.terms.size.is_some() {
                    assert_eq!(skim, fee.0 - order.earned.0, "not the fee of the size sold");
                } else {
                    let first = order
                        .parts
                        .values()
                        .filter(|p| {
                            p.hash == hash && matches!(p.status, PartStatus::Forwarding { .. })
                        })
                        .min_by_key(|p| p.seq)
                        .unwrap();
                    let fee = opening_fee(first.declared, Msat(10_000), 10_000).unwrap();
                    assert_eq!(skim, fee.0, "not the fee of the first part");
                }
            }
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let in_flight: u64 = self.flights.values().map(|f| f.skim).sum();
        if let Some(fee) = self.order.fee {
            assert!(self.skim_claimed + in_flight <= fee.0, "too much taken");
        }
        assert!(self.order.earned.0 <= self.skim_claimed);
        let mut books = Books::default();
        books.add(&self.order);
        assert_eq!(books, self.books, "the books are what the orders weigh");
        let burden = books.total;
        let at_work = self.order.coins().is_some();
        assert!(
            burden.reserved_sat == 0 || !at_work,
            "promised and locked at once"
        );
        let earned: u64 = self
            .ledger
            .iter()
            .map(|entry| match entry {
                LedgerEntry::FeeEarned { amount, .. } => amount.0,
                _ => 0,
            })
            .sum();
        assert_eq!(earned, self.order.earned.0, "ledger");
        let count = |f: fn(&LedgerEntry) -> bool| self.ledger.iter().filter(|e| f(e)).count();
        assert!(count(|e| matches!(e, LedgerEntry::OrderPaid { .. })) <= 1);
        assert!(count(|e| matches!(e, LedgerEntry::OrderEnded { .. })) <= 1);
        let mut accepted = BTreeSet::new();
        let mut refused = BTreeSet::new();
        let mut charged = BTreeSet::new();
        for entry in &self.ledger {
            match entry {
                LedgerEntry::PartAccepted { part, .. } => assert!(accepted.insert(*part)),
                LedgerEntry::PartRefused { part, .. } => assert!(refused.insert(*part)),
                LedgerEntry::ChainCost { open, .. } => assert!(charged.insert(*open)),
                _ => {}
            }
        }
        assert!(self
            .order
            .parts
            .keys()
            .all(|id| accepted.contains(id) || refused.contains(id)));
        // What is published costs something, once; what is not costs nothing.
        assert!(charged.is_subset(&self.spent), "cost of what is unsent");
        // Whatever the order believes held or out, LDK knows.
        for (id, part) in &self.order.parts {
            match part.status {
                PartStatus::Held => {
                    assert!(self.held.contains_key(id) || self.gone.contains(id))
                }
                PartStatus::Claimed | PartStatus::Failed => {
                    assert!(!self.held.contains_key(id))
                }
                _ => {}
            }
        }
        if self.order.is_over() {
            assert!(self.held.is_empty() && self.flights.is_empty());
        }
        assert_eq!(
            self.order.owes(),
            !self.order.paid
                && self
                    .order
                    .open
                    .as_ref()
                    .is_some_and(|o| o.phase == ldkjit_core::order::OpenPhase::Ready)
        );
    }

    /// What a `Tick` leaves may wait on.
    fn check_deadlines(&self) {
        let order = &self.order;
        let own = order
            .open
            .as_ref()
            .is_some_and(|o| o.phase == ldkjit_core::order::OpenPhase::Ready);
        let busy = order.open.is_some() && !own;
        let mut first: BTreeMap<PaymentHash, u64> = BTreeMap::new();
        for (id, part) in &order.parts {
            if part.status != PartStatus::Held || self.gone.contains(id) {
                continue;
            }
            let held = &self.held[id];
            assert!(self.height < held.release_by, "held past its height");
            let at = first.entry(part.hash).or_insert(held.arrived);
            *at = (*at).min(held.arrived);
        }
        for (hash, at) in first {
            let served = order.paying == Some(hash);
            assert!(!order.state.is_end(), "held after the end");
            if order.paid {
                let from = at.max(order.since.0);
                assert!(
                    busy || self.now < from + self.limits.wake_ms,
                    "alias held too long"
                );
            } else if served {
                let bound = self.limits.wake_ms.max(self.limits.open_ms);
                let began = order.open.as_ref().map_or(0, |o| o.started.0);
                let from = at.max(order.since.0).max(began);
                assert!(self.now < from + bound, "payment held too long");
            } else {
                assert!(self.now < at + self.limits.collect_ms, "set held too long");
                assert!(self.now < VALID_UNTIL || own, "held past valid_until");
            }
        }
    }

    fn nth_flight(&self, n: u8) -> Option<PartId> {
        let count = self.flights.len();
        (count > 0).then(|| *self.flights.keys().nth(usize::from(n) % count).unwrap())
    }

    fn end_flight(&mut self, id: PartId, claimed: bool) {
        let flight = self.flights.remove(&id).unwrap();
        if claimed {
            self.skim_claimed += flight.skim;
            self.claimed_over.insert(flight.channel);
            self.events.push_back(Input::PartClaimed { id });
        } else {
            let c = self.channels.get_mut(&flight.channel).unwrap();
            c.room += flight.amount;
            self.events.push_back(Input::PartFailed { id });
        }
    }

    fn deliver(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else {
            return false;
        };
        if let Input::PartGone { id } = &event {
            self.gone.remove(id);
        }
        self.give(event);
        true
    }

    fn fail_requested(&mut self, why: OpenFailure) {
        for (open, _) in std::mem::take(&mut self.requested) {
            self.events.push_back(Input::OpenFailed { open, why });
        }
    }

    fn boundary(&self, kind: u8) -> u64 {
        let part = self.held.values().map(|p| p.arrived).min();
        let open = self.order.open.as_ref().map(|o| o.started.0);
        let l = &self.limits;
        match kind {
            0 => part.map(|at| at + l.collect_ms),
            1 => Some(self.order.since.0 + l.wake_ms),
            2 => open.map(|at| at + l.open_ms),
            3 => part.map(|at| at + l.wake_ms),
            4 => Some(VALID_UNTIL),
            _ => Some(VALID_UNTIL + l.grace_ms),
        }
        .unwrap_or(self.now)
    }

    fn act(&mut self, act: &Act, committed: &mut Box<World>) {
        match act {
            Act::Part(n, tenths, over) => {
                if self.parts > 50 {
                    return;
                }
                self.parts += 1;
                let size = self.order.terms.size.map_or(1_000_000, |s| s.0);
                let inbound = size * tenths / 10;
                let held = Held {
                    hash: hash(*n),
                    inbound,
                    declared: inbound + over,
                    arrived: self.now,
                    release_by: self.height + 3 + u32::from(self.parts % 7) * 10,
                };
                let id = part_id(self.parts);
                let input = Input::Part {
                    id,
                    hash: held.hash,
                    inbound: Msat(held.inbound),
                    declared: Msat(held.declared),
                    release_by: held.release_by,
                };
                self.held.insert(id, held);
                let crashes = self.lose;
                let before = self.order.clone();
                let tick = self.with_env(|env| before.step(&Input::Tick, env));
                self.give(input);
                if *over > 0 && !crashes {
                    assert!(!self.held.contains_key(&id));
                    // Nothing else came of it than of a tick (which may find that there are no coins).
                    if !self.dry {
                        assert_eq!(tick.0.paying, self.order.paying);
                        assert_eq!(tick.0.open, self.order.open);
                    }
                }
            }
            Act::Connect => {
                self.connected = true;
                self.give(Input::Connected);
            }
            Act::Disconnect => {
                self.connected = false;
                self.fail_requested(OpenFailure::Disconnected);
                self.give(Input::Disconnected);
            }
            Act::Wait(ms) => {
                self.now += ms;
                self.give(Input::Tick);
            }
            Act::Boundary(kind, offset) => {
                self.now = self.now.max(self.boundary(*kind) + offset - 1);
                self.give(Input::Tick);
            }
            Act::Blocks(n) => {
                self.height += n;
                self.give(Input::Tick);
            }
            Act::Policy(n) => {
                if let Some(open) = self.asked.pop_first() {
                    let value_sat = u64::from(*n) * 100;
                    let answer = match n % 4 {
                        0 => Err(Reason::PolicyRefused),
                        1 => Err(Reason::NoLiquidity),
                        _ => Ok(ChannelTerms { value_sat }),
                    };
                    self.give(Input::PolicyAnswered { open, answer });
                }
            }
            Act::OpenGoesOn => self.open_goes_on(),
            Act::OpenFails(why) => self.fail_requested(*why),
            Act::Claim(n) => {
                if let Some(id) = self.nth_flight(*n) {
                    self.end_flight(id, true);
                }
            }
            Act::FailPart(n) => {
                if let Some(id) = self.nth_flight(*n) {
                    self.end_flight(id, false);
                }
            }
            Act::LetGo(n) => {
                let count = self.held.len();
                if count > 0 {
                    let id = *self.held.keys().nth(usize::from(*n) % count).unwrap();
                    self.held.remove(&id);
                    self.gone.insert(id);
                    self.events.push_back(Input::PartGone { id });
                }
            }
            Act::Strand(n) => {
                let count = self.held.len();
                if count > 0 {
                    let id = *self.held.keys().nth(usize::from(*n) % count).unwrap();
                    self.give(Input::PartStranded { id });
                }
            }
            Act::Refuse => self.refuse = true,
            Act::Coins => self.dry = !self.dry,
            Act::Close => {
                let own = self
                    .channels
                    .iter()
                    .find(|(_, c)| c.open.is_some() && c.phase != Phase::Closed);
                if let Some(id) = own.map(|(id, _)| *id) {
                    self.close(id);
                }
            }
            Act::CloseOther => {
                if let Some(id) = self
                    .channels
                    .iter()
                    .find(|(_, c)| c.open.is_none())
                    .map(|(id, _)| *id)
                {
                    self.close(id);
                }
            }
            Act::Deliver => {
                self.deliver();
            }
            Act::Replay(n) => {
                if !self.past.is_empty() {
                    let input = self.past[usize::from(*n) * 7 % self.past.len()].clone();
                    let order = self.order.clone();
                    let replay = self.with_env(|env| order.step(&input, env));
                    let tick = self.with_env(|env| order.step(&Input::Tick, env));
                    // Seeing the funding again is a fact, not a repetition.
                    if !matches!(input, Input::FundingSeen | Input::ClaimedOver { .. }) {
                        assert_eq!(replay, tick, "replayed {input:?}");
                    }
                }
            }
            Act::Funding(n) => {
                let Some(open) = self.order.open.as_ref().map(|o| o.id) else {
                    return;
                };
                let spent = self.spent.contains(&open);
                match n % 3 {
                    0 if spent => self.give(Input::FundingSeen),
                    1 if spent => {
                        self.confirmed.insert(open);
                        self.give(Input::FundingConfirmed { depth: 1 });
                    }
                    2 if self.confirmed.remove(&open) => self.give(Input::FundingReorged),
                    _ => {}
                }
            }
            Act::ClaimedOver => {
                let own = self
                    .channels
                    .iter()
                    .find(|(_, c)| c.open.is_some() && c.phase == Phase::Ready);
                if let Some(id) = own.map(|(id, _)| *id) {
                    if self.order.open.as_ref().and_then(|o| o.channel) == Some(id) {
                        self.claimed_over.insert(id);
                        self.give(Input::ClaimedOver { channel: id });
                    }
                }
            }
            Act::Commit => **committed = self.clone(),
            Act::LoseEffects => self.lose = true,
            Act::RollBack => {
                let mut back = (**committed).clone();
                // The clock and the chain do not go back.
                back.now = self.now;
                back.height = self.height;
                back.lose = false;
                *self = back;
                self.restart();
            }
            Act::Restart => self.restart(),
        }
        // A committed world must not hold a reference to a lost one.
        if self.lose {
            committed.lose = false;
        }
    }

    fn open_goes_on(&mut self) {
        if let Some((open, value)) = self.requested.pop_first() {
            let channel = channel_id(100 + u8::try_from(open.attempt()).unwrap());
            self.channels.insert(
                channel,
                Channel {
                    open: Some(open),
                    phase: Phase::Pending,
                    room: (value - value / 100) * 1_000,
                    // Now and then more than was reckoned with (B-8).
                    minimum: if value % 5 == 0 { 20_000 } else { 1_000 },
                    unpaid: false,
                },
            );
            if !self.ctl() {
                self.spent.insert(open);
            }
            self.events.push_back(Input::ChannelPending {
                open,
                channel,
                funding: funding(u8::try_from(open.attempt()).unwrap()),
                fee_sat: 300,
            });
            return;
        }
        if !self.connected {
            return;
        }
        let pending = self
            .channels
            .iter_mut()
            .find(|(_, c)| c.phase == Phase::Pending);
        if let Some((id, c)) = pending {
            c.phase = Phase::Ready;
            self.events.push_back(Input::ChannelReady {
                open: c.open.unwrap(),
                channel: *id,
            });
        }
    }

    /// Time goes on until everything must have ended.
    fn run_out(&mut self) {
        self.lose = false;
        for _ in 0..80 {
            while self.deliver() {}
            self.now += 60_000;
            self.height += 2;
            // Nobody can hold an HTLC longer than its expiry.
            let late: Vec<PartId> = self
                .flights
                .iter()
                .filter(|(_, f)| self.height > f.part.release_by + 40)
                .map(|(id, _)| *id)
                .collect();
            for id in late {
                self.end_flight(id, false);
            }
            if let Some(open) = self.order.open.as_ref().map(|o| o.id) {
                if self.spent.contains(&open) {
                    self.give(Input::FundingConfirmed { depth: 1 });
                }
            }
            // At every block, with no event left to handle, the node asks LDK which HTLCs remain.
            while self.deliver() {}
            for (id, part) in self.order.parts.clone() {
                match part.status {
                    PartStatus::Held | PartStatus::Failing { .. }
                        if !self.held.contains_key(&id) =>
                    {
                        self.give(Input::PartGone { id });
                    }
                    PartStatus::Forwarding { .. } if !self.flights.contains_key(&id) => {
                        self.give(Input::PartFailed { id });
                    }
                    _ => {}
                }
            }
            self.give(Input::Tick);
        }
        assert!(self.held.is_empty(), "held for ever: {:?}", self.held);
        assert!(self.flights.is_empty());
        for open in &self.locked {
            let channel = self.channels.values().any(|c| c.open == Some(*open));
            assert!(channel, "locked for ever");
            let withheld = self.ctl() && !self.spent.contains(open);
            let live = self
                .channels
                .values()
                .any(|c| c.open == Some(*open) && c.phase != Phase::Closed);
            assert!(
                !withheld || live,
                "withheld coins of a closed channel locked"
            );
        }
        for open in &self.spent {
            let cost =
                |e: &LedgerEntry| matches!(e, LedgerEntry::ChainCost { open: o, .. } if o == open);
            assert!(self.ledger.iter().any(cost), "published and not booked");
        }
        for channel in &self.claimed_over {
            let open = self.channels[channel].open;
            if let Some(open) = open.filter(|_| self.ctl()) {
                assert!(self.spent.contains(&open), "claimed and never published");
            }
        }
        let state = self.order.state;
        if state == State::Paid {
            // Alive as long as a channel is: close them all.
            let open: Vec<ChannelId> = self
                .channels
                .iter()
                .filter(|(_, c)| c.phase != Phase::Closed)
                .map(|(id, _)| *id)
                .collect();
            assert!(!open.is_empty(), "paid for ever");
            for id in open {
                self.close(id);
            }
            while self.deliver() {}
            self.give(Input::Tick);
        }
        assert!(self.order.is_over(), "not over: {:?}", self.order);
        // An order that is over answers any part.
        self.act(&Act::Part(9, 10, 0), &mut Box::new(self.clone()));
        assert!(self.held.is_empty());
    }
}

fn act() -> impl Strategy<Value = Act> {
    let failure = prop_oneof![
        Just(OpenFailure::ClientError),
        Just(OpenFailure::Disconnected),
        Just(OpenFailure::ClientUnable),
        Just(OpenFailure::NoCoins),
        Just(OpenFailure::Other),
    ];
    prop_oneof![
        12 => (0u8..3, prop_oneof![Just(10u64), Just(5), Just(3), Just(1), Just(0), Just(15), Just(21)], prop_oneof![9 => Just(0u64), 1 => Just(1)])
            .prop_map(|(n, tenths, over)| Act::Part(n, tenths, over)),
        6 => Just(Act::Connect),
        2 => Just(Act::Disconnect),
        6 => (0u64..20_000).prop_map(Act::Wait),
        4 => (0u8..4, 0u64..3).prop_map(|(kind, offset)| Act::Boundary(kind, offset)),
        1 => (4u8..6, 0u64..3).prop_map(|(kind, offset)| Act::Boundary(kind, offset)),
        3 => prop_oneof![Just(1u32), 1u32..12].prop_map(Act::Blocks),
        6 => any::<u8>().prop_map(Act::Policy),
        26 => Just(Act::OpenGoesOn),
        1 => failure.prop_map(Act::OpenFails),
        14 => any::<u8>().prop_map(Act::Claim),
        3 => any::<u8>().prop_map(Act::FailPart),
        1 => any::<u8>().prop_map(Act::LetGo),
        1 => any::<u8>().prop_map(Act::Strand),
        1 => Just(Act::Refuse),
        1 => Just(Act::Coins),
        1 => Just(Act::Close),
        1 => Just(Act::CloseOther),
        40 => Just(Act::Deliver),
        3 => any::<u8>().prop_map(Act::Replay),
        3 => any::<u8>().prop_map(Act::Funding),
        1 => Just(Act::ClaimedOver),
        2 => Just(Act::Commit),
        2 => Just(Act::LoseEffects),
        1 => Just(Act::RollBack),
        1 => Just(Act::Restart),
    ]
}

fn world() -> impl Strategy<Value = World> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![
            4 => Just(None),
            1 => (0u64..3_000_000).prop_map(|room| Some((room, false))),
            1 => (0u64..3_000_000).prop_map(|room| Some((room, true))),
        ],
        1u32..5,
        prop_oneof![Just(10_000u32), Just(300_000)],
    )
        .prop_map(world_of)
}

/// Whether the size is fixed, the client trusts, the policy is asked, reuse is charged; another channel's room and whether
/// it is unpaid; attempts to open; the fee, ppm.
type Kind = (bool, bool, bool, bool, Option<(u64, bool)>, u32, u32);

fn world_of((fixed, ctl, ask, charge, other, max_opens, ppm): Kind) -> World {
    let trust = if ctl {
        TrustModel::ClientTrustsLsp
    } else {
        TrustModel::LspTrustsClient
    };
    let mut terms = terms(fixed.then_some(1_000_000), trust);
    if fixed {
        terms.params.proportional = ppm;
    }
    let mut limits = limits();
    limits.ask_policy = ask;
    limits.charge_on_reuse = charge;
    limits.max_opens = max_opens;
    limits.sizing.min_sat = 500;
    let mut world = World::new(Order::new(terms), limits);
    if let Some((room, unpaid)) = other {
        world.channels.insert(
            channel_id(99),
            Channel {
                open: None,
                phase: Phase::Ready,
                room,
                minimum: 1_000,
                unpaid,
            },
        );
    }
    world
}

fn run(mut world: World, acts: &[Act]) -> Stats {
    let mut committed = Box::new(world.clone());
    for act in acts {
        world.act(act, &mut committed);
    }
    world.run_out();
    world.stats
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|n| n.parse().ok()).unwrap_or(4_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn test_S_67_every_history_keeps_the_rules(world in world(), acts in prop::collection::vec(act(), 0..80)) {
        run(world, &acts);
    }
}

/// The generator reaches what it is to test.
#[test]
fn histories_reach_every_state() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut paid, mut owed, mut waking, mut opened, mut ahead, mut forwarded) = (0, 0, 0, 0, 0, 0);
    for _ in 0..500 {
        let (world, acts) = (world(), prop::collection::vec(act(), 80))
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let stats = run(world, &acts);
        paid += u32::from(stats.paid);
        owed += u32::from(stats.owed);
        waking += u32::from(stats.waking);
        opened += u32::from(stats.opened > 1);
        ahead += u32::from(stats.ahead > 0);
        forwarded += u32::from(stats.forwarded > 1);
    }
    let reached = [paid, owed, waking, opened, ahead, forwarded];
    assert!(reached.iter().all(|n| *n > 20), "{reached:?}");
}

/// Two bytes of the fuzzer as an act: which one, and the rest of it.
fn act_of(which: u8, how: u8) -> Act {
    let pick = |of: &[u64]| of[usize::from(how / 3) % of.len()];
    match which % 24 {
        0 => Act::Part(how % 3, pick(&[10, 5, 3, 1, 0, 15, 21]), 0),
        1 => Act::Part(how % 3, 10, u64::from(how)),
        2 => Act::Connect,
        3 => Act::Disconnect,
        4 => Act::Wait(u64::from(how) * 80),
        5 => Act::Boundary(how % 4, pick(&[0, 1, 2])),
        6 => Act::Boundary(4 + how % 2, pick(&[0, 1, 2])),
        7 => Act::Blocks(u32::from(how % 12)),
        8 => Act::Policy(how),
        9 | 10 => Act::OpenGoesOn,
        11 => Act::OpenFails(match how % 4 {
            0 => OpenFailure::ClientError,
            1 => OpenFailure::Disconnected,
            2 => OpenFailure::NoCoins,
            _ => OpenFailure::Other,
        }),
        12 => Act::Claim(how),
        13 => Act::FailPart(how),
        14 if how < 128 => Act::LetGo(how),
        14 => Act::Strand(how),
        15 => Act::Refuse,
        16 if how < 128 => Act::Close,
        16 => Act::CloseOther,
        17 => Act::Replay(how),
        18 => Act::Funding(how),
        19 => Act::ClaimedOver,
        20 if how < 128 => Act::Commit,
        20 => Act::LoseEffects,
        21 if how < 128 => Act::RollBack,
        21 => Act::Restart,
        _ => Act::Deliver,
    }
}

/// The history that these bytes are, for the fuzzer of `rust/fuzz`.
pub fn of_bytes(data: &[u8]) {
    let Some((first, acts)) = data.split_at_checked(3) else {
        return;
    };
    let bit = |n: u8| first[0] >> n & 1 == 1;
    let room = u64::from(first[1]) * 12_000;
    let world = world_of((
        bit(0),
        bit(1),
        bit(2),
        bit(3),
        bit(4).then_some((room, bit(5))),
        1 + u32::from(first[2] % 4),
        if bit(6) { 300_000 } else { 10_000 },
    ));
    let acts: Vec<Act> = acts
        .chunks_exact(2)
        .take(120)
        .map(|act| act_of(act[0], act[1]))
        .collect();
    run(world, &acts);
}

#[test]
fn the_fuzzers_histories_keep_the_rules() {
    fuzz_corpus::each_and_mutated("order", of_bytes);
}
