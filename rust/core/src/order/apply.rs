//! From an input to facts: what was learned is noted, and what only concerns one part or one attempt is answered.

use super::{
    ChannelTerms, Effect, Input, Open, OpenFailure, OpenPhase, Order, Part, PartStatus, Run,
};
use crate::amount::Msat;
use crate::ids::{ChannelId, OpenId, Outpoint, PartId, PaymentHash};
use crate::ledger::LedgerEntry;
use crate::menu::TrustModel;
use crate::reason::{FailCode, Reason};

impl Order {
    /// Notes an input; one that is already known, or speaks of something long over, changes nothing.
    pub(super) fn apply(&mut self, input: &Input, run: &mut Run<'_>) {
        match input {
            Input::Part {
                id,
                hash,
                inbound,
                declared,
                release_by,
            } => self.part_arrived(
                *id,
                Part {
                    hash: *hash,
                    inbound: *inbound,
                    declared: *declared,
                    arrived: run.env.now,
                    seq: self.arrivals,
                    release_by: *release_by,
                    status: PartStatus::Held,
                },
                run,
            ),
            Input::PolicyAnswered { open, answer } => self.policy_answered(*open, *answer, run),
            Input::ChannelPending {
                open,
                channel,
                funding,
                fee_sat,
            } => self.channel_pending(*open, *channel, funding, *fee_sat, run),
            Input::ChannelReady { open, channel } => self.channel_ready(*open, *channel, run),
            Input::OpenFailed { open, why } => self.open_failed(*open, *why, run),
            Input::NotLocked { open } => self.not_locked(*open, run),
            Input::PartClaimed { id } => self.part_claimed(*id, run),
            Input::PartFailed { id } => self.part_ended(*id, true, run),
            Input::PartGone { id } => self.part_ended(*id, false, run),
            Input::PartStranded { id } => {
                let code = FailCode::TemporaryChannelFailure;
                self.fail_part(*id, code, Reason::PayerGone, run);
            }
            Input::PartHeld { id } => self.part_held(*id),
            Input::ClaimedOver { channel } => {
                if let Some(open) = self.open.as_mut() {
                    open.broadcast |= open.channel == Some(*channel);
                }
            }
            Input::FundingSeen => {
                if let Some(open) = self.open.as_mut() {
                    open.seen = true;
                }
            }
            Input::FundingConfirmed { depth } => {
                if let Some(open) = self.open.as_mut() {
                    open.seen = true;
                    open.depth = *depth;
                    open.reorged &= *depth == 0;
                }
            }
            Input::FundingReorged => {
                if let Some(open) = self.open.as_mut() {
                    open.depth = 0;
                    open.reorged = true;
                }
            }
            Input::ChannelClosed { channel } => self.channel_closed(*channel, run),
            Input::Connected | Input::Disconnected | Input::Tick => {}
        }
    }

    /// A part is taken in, or failed alone; the order is untouched by one that is wrong in itself (S-27, S-31).
    fn part_arrived(&mut self, id: PartId, part: Part, run: &mut Run<'_>) {
        if self.parts.contains_key(&id) {
            return;
        }
        let refusal = self.refusal(&part, run);
        self.parts.insert(id, part);
        self.arrivals = self.arrivals.saturating_add(1);
        match refusal {
            Some((code, reason)) => self.fail_part(id, code, reason, run),
            None => run.record(LedgerEntry::PartAccepted {
                scid: self.terms.scid,
                part: id,
                payment_hash: part.hash,
                declared: part.declared,
            }),
        }
    }

    /// Why a part cannot be taken in at all.
    fn refusal(&self, part: &Part, run: &Run<'_>) -> Option<(FailCode, Reason)> {
        let env = run.env;
        if part.declared > part.inbound {
            return unp(Reason::OverDeclared);
        }
        if self.state.is_end() {
            let late = env.now >= self.terms.params.valid_until;
            return unp(if late {
                Reason::Expired
            } else {
                Reason::UnknownScid
            });
        }
        if part.declared < env.limits.htlc_minimum.max(Msat(1)) {
            return unp(Reason::PartTooSmall);
        }
        if env.height >= part.release_by {
            return Some((FailCode::TemporaryChannelFailure, Reason::ReleaseHeight));
        }
        let limits = env.limits;
        let strangers_full = env.held_of_strangers >= limits.max_held_of_strangers;
        if env.held_for_client >= limits.max_held_per_client
            || env.held >= limits.max_held
            || (strangers_full && self.terms.is_stranger())
        {
            return Some((FailCode::TemporaryChannelFailure, Reason::TooManyHeld));
        }
        if self.paid {
            return None;
        }
        let served = self.is_opening() && self.paying == Some(part.hash);
        let timely = env.now < self.terms.params.valid_until;
        if !timely && self.live_channel().is_none() && !served {
            return unp(Reason::Expired);
        }
        match self.terms.size {
            // Twice the size is as far as BOLT 4 lets a payer go; the fee sold covers no more.
            Some(size) => {
                let of_payment = self.parts.values().filter(|other| {
                    let alive = matches!(
                        other.status,
                        PartStatus::Held | PartStatus::Forwarding { .. }
                    );
                    other.hash == part.hash && alive
                });
                let sum = Msat::checked_sum(of_payment.map(|other| other.declared))
                    .and_then(|sum| sum.checked_add(part.declared));
                match sum {
                    None => unp(Reason::AmountOverflow),
                    Some(sum) if size.checked_mul(2).is_some_and(|most| sum > most) => {
                        unp(Reason::PaymentTooLarge)
                    }
                    Some(_) => None,
                }
            }
            None if part.declared < self.terms.params.min_payment_size_msat => {
                unp(Reason::PaymentTooSmall)
            }
            None if part.declared > self.terms.params.max_payment_size_msat => {
                unp(Reason::PaymentTooLarge)
            }
            None => None,
        }
    }

    fn policy_answered(
        &mut self,
        id: OpenId,
        answer: Result<ChannelTerms, Reason>,
        run: &mut Run<'_>,
    ) {
        let Some(open) = self
            .open
            .as_mut()
            .filter(|open| open.id == id && open.phase == OpenPhase::Asking)
        else {
            return;
        };
        match answer {
            Ok(terms) => {
                open.value_sat = open.value_sat.max(terms.value_sat);
                open.phase = OpenPhase::Granted;
            }
            Err(reason) => {
                let code = match reason {
                    Reason::NoLiquidity
                    | Reason::NoCoins
                    | Reason::Exposure
                    | Reason::Maintenance
                    | Reason::PolicyFailed
                    | Reason::Internal => FailCode::TemporaryChannelFailure,
                    _ => FailCode::UnknownNextPeer,
                };
                self.end_open(reason, run);
                self.fail_payment(code, reason, run);
            }
        }
    }

    fn channel_pending(
        &mut self,
        id: OpenId,
        channel: ChannelId,
        funding: &Outpoint,
        fee_sat: u64,
        run: &mut Run<'_>,
    ) {
        // LSP trusts client: LDK publishes the funding transaction as soon as the client has signed.
        if self.terms.trust == TrustModel::LspTrustsClient {
            self.book_cost(id, &funding.txid, fee_sat, run);
        }
        let Some(open) = self.open.as_mut().filter(|open| open.id == id) else {
            return self.close_stray(channel, run);
        };
        if open.funding.is_some() || open.phase == OpenPhase::Closed {
            return;
        }
        if open.phase != OpenPhase::Ready {
            open.phase = OpenPhase::Pending;
        }
        open.channel = Some(channel);
        open.funding = Some(funding.clone());
        open.fee_sat = fee_sat;
        run.record(LedgerEntry::ChannelOpened {
            scid: self.terms.scid,
            client: self.terms.client,
            open: id,
            channel,
            funding: funding.clone(),
            value_sat: open.value_sat,
        });
    }

    /// A funding transaction was given to the network: its fee is spent, once.
    pub(super) fn book_cost(&mut self, open: OpenId, txid: &str, fee_sat: u64, run: &mut Run<'_>) {
        if self.booked.insert(open) {
            run.record(LedgerEntry::ChainCost {
                scid: self.terms.scid,
                open,
                txid: txid.to_owned(),
                fee_sat,
            });
        }
    }

    fn channel_ready(&mut self, id: OpenId, channel: ChannelId, run: &mut Run<'_>) {
        let Some(open) = self.open.as_mut().filter(|open| open.id == id) else {
            return self.close_stray(channel, run);
        };
        if matches!(open.phase, OpenPhase::Ready | OpenPhase::Closed) {
            return;
        }
        open.phase = OpenPhase::Ready;
        open.channel = Some(channel);
        // The payment may wait as long again for the channel to become usable.
        self.since = run.env.now;
    }

    /// A channel of an attempt that was given up came to be all the same.
    fn close_stray(&mut self, channel: ChannelId, run: &mut Run<'_>) {
        if self.closing.contains_key(&channel) {
            return;
        }
        self.closing.insert(channel, false);
        run.emit(Effect::Close {
            channel,
            reason: Reason::OpenFailed,
        });
    }

    fn open_failed(&mut self, id: OpenId, why: OpenFailure, run: &mut Run<'_>) {
        let alive = |open: &&Open| {
            open.id == id && !matches!(open.phase, OpenPhase::Ready | OpenPhase::Closed)
        };
        if self.open.as_ref().filter(alive).is_none() {
            return;
        }
        let (reason, code) = match why {
            OpenFailure::ClientError => (
                Reason::ClientRefusedChannel,
                Some(FailCode::UnknownNextPeer),
            ),
            OpenFailure::Disconnected => (
                Reason::ClientDisconnected,
                Some(FailCode::TemporaryChannelFailure),
            ),
            OpenFailure::ClientUnable => (Reason::ClientUnable, Some(FailCode::UnknownNextPeer)),
            OpenFailure::NoCoins => (Reason::NoCoins, Some(FailCode::TemporaryChannelFailure)),
            OpenFailure::Other => (Reason::OpenFailed, None),
        };
        if why != OpenFailure::NoCoins {
            self.failures = self.failures.saturating_add(1);
        }
        self.end_open(reason, run);
        if let Some(code) = code {
            self.fail_payment(code, reason, run);
        }
    }

    /// The attempt is over without a channel that could be used; its coins are free unless they are spent.
    pub(super) fn end_open(&mut self, reason: Reason, run: &mut Run<'_>) {
        let Some(open) = self.open.take() else {
            return;
        };
        // A payment that stays begins a new wait.
        self.since = run.env.now;
        if open.is_plan() {
            return;
        }
        let withheld = self.terms.trust == TrustModel::ClientTrustsLsp;
        let spent = !withheld || open.broadcast || open.seen;
        // LSP trusts client: LDK broadcasts the funding transaction once the client has signed.
        if open.phase == OpenPhase::Requested || !spent {
            run.emit(Effect::Unlock { open: open.id });
        }
        run.record(LedgerEntry::OpenEnded {
            scid: self.terms.scid,
            client: self.terms.client,
            open: open.id,
            reason,
        });
    }

    fn part_claimed(&mut self, id: PartId, run: &mut Run<'_>) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let PartStatus::Forwarding { channel, skim, .. } = part.status else {
            return;
        };
        part.status = PartStatus::Claimed;
        let payment_hash = part.hash;
        let own = self.open.as_ref().and_then(|open| open.channel) == Some(channel);
        if let Some(open) = self.open.as_mut().filter(|_| own) {
            open.broadcast = true;
        }
        self.earned = self.earned.checked_add(skim).unwrap_or(self.earned);
        if skim > Msat::ZERO {
            run.record(LedgerEntry::FeeEarned {
                scid: self.terms.scid,
                client: self.terms.client,
                channel,
                payment_hash,
                amount: skim,
                reuse: !own,
            });
        }
        match self.fee {
            Some(fee) if !self.paid && !self.free && self.earned >= fee => {
                self.paid = true;
                self.paying = None;
                run.record(LedgerEntry::OrderPaid {
                    scid: self.terms.scid,
                    client: self.terms.client,
                    channel,
                    fee,
                    min_lifetime: self.terms.params.min_lifetime,
                });
            }
            _ => {}
        }
    }

    /// A part that will not come to anything any more. One that left us can only fail, not be gone.
    pub(super) fn part_ended(&mut self, id: PartId, failed: bool, run: &mut Run<'_>) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        match part.status {
            PartStatus::Forwarding { .. } if !failed => return,
            PartStatus::Claimed | PartStatus::Failed => return,
            PartStatus::Held => run.record(LedgerEntry::PartRefused {
                scid: self.terms.scid,
                part: id,
                payment_hash: part.hash,
                reason: Reason::PartGone,
            }),
            PartStatus::Forwarding { .. } | PartStatus::Failing { .. } => {}
        }
        part.status = PartStatus::Failed;
    }

    pub(super) fn part_held(&mut self, id: PartId) {
        if let Some(part) = self.parts.get_mut(&id) {
            if matches!(part.status, PartStatus::Forwarding { .. }) {
                part.status = PartStatus::Held;
            }
        }
    }

    pub(super) fn channel_closed(&mut self, channel: ChannelId, run: &mut Run<'_>) {
        let ordered = self.closing.get_mut(&channel).is_some_and(|closed| {
            *closed = true;
            true
        });
        let Some(open) = self
            .open
            .as_mut()
            .filter(|open| open.channel == Some(channel))
        else {
            return;
        };
        match open.phase {
            OpenPhase::Ready => {
                open.phase = OpenPhase::Closed;
                run.record(LedgerEntry::ChannelClosed {
                    scid: self.terms.scid,
                    client: self.terms.client,
                    channel,
                    reason: if ordered {
                        Reason::FeeUnpaid
                    } else {
                        Reason::ChannelClosed
                    },
                });
            }
            OpenPhase::Pending => {
                self.closing.insert(channel, true);
                self.failures = self.failures.saturating_add(1);
                self.end_open(Reason::ChannelClosed, run);
                let code = FailCode::TemporaryChannelFailure;
                self.fail_payment(code, Reason::ChannelClosed, run);
            }
            _ => {}
        }
    }

    /// Fails one held part.
    pub(super) fn fail_part(
        &mut self,
        id: PartId,
        code: FailCode,
        reason: Reason,
        run: &mut Run<'_>,
    ) {
        let Some(part) = self
            .parts
            .get_mut(&id)
            .filter(|part| part.status == PartStatus::Held)
        else {
            return;
        };
        part.status = PartStatus::Failing { code, reason };
        run.record(LedgerEntry::PartRefused {
            scid: self.terms.scid,
            part: id,
            payment_hash: part.hash,
            reason,
        });
        run.emit(Effect::Fail {
            part: id,
            code,
            reason,
        });
    }

    /// Fails all held parts of one payment.
    pub(super) fn fail_held(
        &mut self,
        hash: PaymentHash,
        code: FailCode,
        reason: Reason,
        run: &mut Run<'_>,
    ) {
        for (id, _) in self.held_of(hash) {
            self.fail_part(id, code, reason, run);
        }
    }

    /// Fails the held parts of the payment being served.
    pub(super) fn fail_payment(&mut self, code: FailCode, reason: Reason, run: &mut Run<'_>) {
        if let Some(hash) = self.paying {
            self.fail_held(hash, code, reason, run);
        }
    }
}

/// The payer need not try again.
fn unp(reason: Reason) -> Option<(FailCode, Reason)> {
    Some((FailCode::UnknownNextPeer, reason))
}
