//! From facts to decisions: run after every input, and once more changes nothing.

use super::{fee_of, Effect, Open, OpenPhase, Order, Part, PartStatus, Run, State};
use crate::ids::{PartId, PaymentHash};
use crate::ledger::LedgerEntry;
use crate::reason::{FailCode, Reason};
use crate::time::Millis;

/// So many parts that are over are remembered, to know them again.
const REMEMBERED: usize = 64;

impl Order {
    /// Decides all that can be decided now.
    pub(super) fn settle(&mut self, run: &mut Run<'_>) {
        self.let_go(run);
        self.expire_open(run);
        self.expire_waits(run);
        self.review_payment();
        self.end_if_due(run);
        self.expire_sets(run);
        // Each turn but the last ends one payment, so this ends.
        while self.choose_payment(run) && self.serve(run) {}
        self.send_aliased(run);
        self.keep_coins(run);
        self.wake(run);
        self.enable(run);
        self.publish(run);
        self.free_coins(run);
        self.score(run);
        self.write_end(run);
        self.forget();
        self.name_state(run);
    }

    /// Parts whose expiry allows no more holding (S-57).
    fn let_go(&mut self, run: &mut Run<'_>) {
        for (id, part) in self.all_held() {
            if run.env.height >= part.release_by {
                self.fail_part(id, TCF, Reason::ReleaseHeight, run);
            }
        }
    }

    /// An attempt that takes too long, or whose payment fell apart before it cost anything.
    fn expire_open(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        let whole = self.is_payment_whole();
        let Some(open) = self.open.as_ref() else {
            return;
        };
        let over = matches!(open.phase, OpenPhase::Ready | OpenPhase::Closed);
        let late = env.now.since(open.started) >= env.limits.open_ms;
        let moot = !whole && open.phase != OpenPhase::Pending;
        if over || !(late || moot) {
            return;
        }
        let (id, channel) = (open.id, open.channel);
        let reason = if late {
            Reason::OpenTimeout
        } else {
            Reason::PartGone
        };
        if !open.is_plan() {
            if late {
                self.failures = self.failures.saturating_add(1);
            }
            if let Some(channel) = channel {
                self.closing.insert(channel, false);
            }
            run.emit(Effect::AbandonOpen { open: id, channel });
        }
        self.end_open(reason, run);
        if late {
            self.fail_payment(TCF, reason, run);
        }
    }

    /// Complete payments, and parts that follow one, wait so long for the client and its channel.
    fn expire_waits(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        let patience = env.limits.wake_ms;
        // An open has its own bound.
        if self.is_under_way() {
            return;
        }
        for (id, part) in self.all_held() {
            let served = self.paying == Some(part.hash);
            let whole_payment = served && !self.is_out(part.hash);
            let from = if whole_payment {
                self.since
            } else {
                self.since.max(part.arrived)
            };
            if (served || self.paid) && env.now.since(from) >= patience {
                let reason = if env.connected {
                    Reason::NoRoom
                } else {
                    Reason::ClientOffline
                };
                self.fail_part(id, TCF, reason, run);
            }
        }
    }

    /// The payment being served is over when none of its parts is out and what is held is no complete set.
    pub(super) fn review_payment(&mut self) {
        if let Some(hash) = self.paying {
            if !self.is_out(hash) && !self.is_payment_whole() {
                self.paying = None;
                self.free = false;
            }
        }
    }

    /// The ends, and what they mean for the parts still held.
    fn end_if_due(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        let until = self.terms.params.valid_until;
        let own = self.live_channel();
        let lapsed = env.now >= until;
        let closed = self
            .open
            .as_ref()
            .is_some_and(|open| open.phase == OpenPhase::Closed);
        if !self.state.is_end() {
            let reusable = env.channels.iter().any(|view| !view.unpaid);
            if closed || self.paid && own.is_none() && lapsed && !reusable {
                self.state = State::Closed;
            } else if !self.paid && own.is_none() && !self.is_opening() {
                if lapsed {
                    self.state = State::Expired;
                } else if self.failures >= env.limits.max_opens {
                    self.state = State::Failed(Reason::TooManyOpens);
                }
            }
        }
        let reason = match self.state {
            State::Closed => Reason::ChannelClosed,
            State::Failed(reason) => reason,
            State::Expired => Reason::Expired,
            _ => return self.close_unpaid(run),
        };
        if self.open.as_ref().is_some_and(Open::is_plan) {
            self.end_open(reason, run);
        }
        for (id, _) in self.all_held() {
            self.fail_part(id, FailCode::UnknownNextPeer, reason, run);
        }
        self.review_payment();
    }

    /// A channel that nobody paid for is closed once its time is over, but not under a payment on its way.
    fn close_unpaid(&mut self, run: &mut Run<'_>) {
        let Some(channel) = self.live_channel().filter(|_| !self.paid) else {
            return;
        };
        let last = self
            .terms
            .params
            .valid_until
            .saturating_add(run.env.limits.grace_ms);
        if run.env.now < last || self.is_any_out() {
            return;
        }
        for (id, _) in self.all_held() {
            self.fail_part(id, FailCode::UnknownNextPeer, Reason::FeeUnpaid, run);
        }
        self.review_payment();
        if let std::collections::btree_map::Entry::Vacant(entry) = self.closing.entry(channel) {
            entry.insert(false);
            let reason = Reason::FeeUnpaid;
            run.emit(Effect::Close { channel, reason });
        }
    }

    /// Sets that are not served: 90 s from the first part (J-49), and `valid_until` where nothing is open yet (J-52).
    fn expire_sets(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        if self.paid {
            return;
        }
        let lapsed = env.now >= self.terms.params.valid_until && self.live_channel().is_none();
        for (hash, first) in self.waiting() {
            if lapsed {
                self.fail_held(hash, FailCode::UnknownNextPeer, Reason::Expired, run);
            } else if env.now.since(first) >= env.limits.collect_ms {
                let reason = if self.complete_set(hash).is_some() {
                    Reason::OtherPaymentFirst
                } else {
                    Reason::SetTimeout
                };
                self.fail_held(hash, TCF, reason, run);
            }
        }
    }

    /// One wake for each absence in which something waits.
    fn wake(&mut self, run: &mut Run<'_>) {
        // An open that is not signed ends with the connection: there is nothing to come back to.
        let doomed = self
            .open
            .as_ref()
            .is_some_and(|open| open.phase == OpenPhase::Requested);
        let served = (self.paying.is_some() || self.paid) && !doomed;
        let waits = served && !self.all_held().is_empty();
        if run.env.connected || !waits {
            self.woken = false;
        } else if !self.woken {
            self.woken = true;
            run.emit(Effect::Wake);
        }
    }

    /// A channel that is paid for may carry anything.
    fn enable(&mut self, run: &mut Run<'_>) {
        if let (Some(channel), Some(open)) = (
            self.live_channel().filter(|_| self.paid),
            self.open.as_mut(),
        ) {
            if !open.enabled {
                open.enabled = true;
                run.emit(Effect::EnableForwarding { channel });
            }
        }
    }

    /// Client trusts LSP: with a preimage known, the funding transaction is published at every height until it is
    /// in the chain (S-51, D-1).
    fn publish(&mut self, run: &mut Run<'_>) {
        if !self.must_publish() {
            return;
        }
        let Some(open) = self.open.as_mut() else {
            return;
        };
        if open.broadcast_at.is_none_or(|at| run.env.height > at) {
            open.broadcast_at = Some(run.env.height);
            run.emit(Effect::Broadcast { open: open.id });
        }
        let (id, fee_sat) = (open.id, open.fee_sat);
        if let Some(funding) = open.funding.clone() {
            self.book_cost(id, &funding.txid, fee_sat, run);
        }
    }

    /// A channel that is unpaid when its offer ends, or at its own end, counts against the client; so does a payment
    /// that it neither takes nor fails. A single failed payment does not: anybody can cause one (J-02, S-55).
    fn score(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        let opened = !self.booked.is_empty()
            || self
                .open
                .as_ref()
                .is_some_and(|open| open.channel.is_some());
        // What is still out when its channel has closed may be taken on the chain.
        let over = match self.state.is_end() {
            true => !self.is_any_out(),
            false => env.now >= self.terms.params.valid_until,
        };
        let held_too_long = self.state == State::Forwarding
            && self.paying.is_some_and(|hash| self.is_out(hash))
            && env.now.since(self.since) >= env.limits.claim_ms;
        if self.scored || self.paid || !opened || !(over || held_too_long) {
            return;
        }
        self.scored = true;
        run.record(LedgerEntry::ClientScored {
            scid: self.terms.scid,
            client: self.terms.client,
        });
        run.emit(Effect::Score);
    }

    /// An order that ended unpaid says so once, when no part of it is on its way any more.
    fn write_end(&mut self, run: &mut Run<'_>) {
        if !self.state.is_end() || self.ended || self.is_any_out() {
            return;
        }
        self.ended = true;
        let own = self.open.as_ref().and_then(|open| open.channel);
        let by_us = own.is_some_and(|channel| self.closing.contains_key(&channel));
        if !self.paid {
            run.record(LedgerEntry::OrderEnded {
                scid: self.terms.scid,
                client: self.terms.client,
                earned: self.earned,
                reason: match self.state {
                    State::Failed(reason) => reason,
                    State::Expired => Reason::Expired,
                    _ if by_us => Reason::FeeUnpaid,
                    _ => Reason::ChannelClosed,
                },
            });
        }
    }

    /// Of the parts that are over, only the latest are kept.
    fn forget(&mut self) {
        let mut over: Vec<(u64, PartId)> = self
            .parts
            .iter()
            .filter(|(_, part)| matches!(part.status, PartStatus::Claimed | PartStatus::Failed))
            .map(|(id, part)| (part.seq, *id))
            .collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(REMEMBERED);
        for (_, id) in over.into_iter().take(surplus) {
            self.parts.remove(&id);
        }
    }

    /// The name of where the order stands, and the moment it came there.
    fn name_state(&mut self, run: &mut Run<'_>) {
        let own = self.live_channel();
        let served = self.paying;
        let state = match () {
            () if self.state.is_end() => self.state,
            () if self.paid => State::Paid,
            () if served.is_some_and(|hash| self.is_out(hash)) => State::Forwarding,
            () if self.is_under_way() => State::Opening,
            () if served.is_some() && own.is_some() => State::Forwarding,
            () if served.is_some() => State::Waking,
            () if !self.all_held().is_empty() => State::Collecting,
            () if own.is_some() => State::Owed,
            () => State::Sold,
        };
        if state == self.state {
            return;
        }
        if let (State::Owed, State::Opening | State::Forwarding, Some(channel)) =
            (state, self.state, own)
        {
            run.record(LedgerEntry::OrderOwed {
                scid: self.terms.scid,
                client: self.terms.client,
                channel,
                earned: self.earned,
            });
        }
        self.state = state;
        self.since = run.env.now;
    }

    /// The payment being served is held as a complete set, and the fee is that of its first part where it varies.
    fn is_payment_whole(&self) -> bool {
        let set = self.paying.and_then(|hash| self.complete_set(hash));
        set.and_then(|set| set.first().map(|(_, part)| part.declared))
            .is_some_and(|first| {
                self.terms.size.is_some() || self.fee == fee_of(&self.terms.params, first)
            })
    }

    /// Every held part, in the order they came.
    pub(super) fn all_held(&self) -> Vec<(PartId, Part)> {
        let mut parts: Vec<(PartId, Part)> = self
            .parts
            .iter()
            .filter(|(_, part)| part.status == PartStatus::Held)
            .map(|(id, part)| (*id, *part))
            .collect();
        parts.sort_by_key(|(_, part)| part.seq);
        parts
    }

    /// Payments with held parts that are not being served, by their first part, and when that came.
    pub(super) fn waiting(&self) -> Vec<(PaymentHash, Millis)> {
        let mut payments: Vec<(PaymentHash, Millis)> = Vec::new();
        for (_, part) in self.all_held() {
            let known = payments.iter().any(|(hash, _)| *hash == part.hash);
            if self.paying != Some(part.hash) && !known {
                payments.push((part.hash, part.arrived));
            }
        }
        payments
    }
}

/// `temporary_channel_failure`: trying later may work.
pub(super) const TCF: FailCode = FailCode::TemporaryChannelFailure;
