//! Moves a payment on: which one is served, what it pays, and how it goes out.

use super::route::{Hop, Route};
use super::settle::TCF;
use super::{fee_of, Effect, Open, OpenPhase, Order, Part, PartStatus, Run};
use crate::amount::Msat;
use crate::fee::split_fee;
use crate::ids::{ChannelId, OpenId, PartId, PaymentHash};
use crate::ledger::LedgerEntry;
use crate::reason::{FailCode, Reason};

impl Order {
    /// Takes up the first complete payment if none is being served; false if there is none.
    pub(super) fn choose_payment(&mut self, run: &mut Run<'_>) -> bool {
        if self.paid || self.state.is_end() {
            return false;
        }
        if self.paying.is_some() {
            return true;
        }
        while let Some((hash, set)) = self.next_complete() {
            match self.price(&set, run) {
                Ok(sum) => {
                    self.paying = Some(hash);
                    self.free = false;
                    self.since = run.env.now;
                    run.record(LedgerEntry::SetComplete {
                        scid: self.terms.scid,
                        payment_hash: hash,
                        parts: u32::try_from(set.len()).unwrap_or(u32::MAX),
                        sum,
                        fee: self.due(),
                    });
                    return true;
                }
                // The set cannot bear its fee (J-53, J-55, J-56).
                Err(reason) => {
                    for (id, _) in set {
                        self.fail_part(id, FailCode::UnknownNextPeer, reason, run);
                    }
                }
            }
        }
        false
    }

    /// The complete payment whose first part came first.
    fn next_complete(&self) -> Option<(PaymentHash, Vec<(PartId, Part)>)> {
        self.waiting()
            .into_iter()
            .find_map(|(hash, _)| Some((hash, self.complete_set(hash)?)))
    }

    /// The fee of a complete set is settled and can be taken from it; gives the set's sum.
    fn price(&mut self, set: &[(PartId, Part)], run: &Run<'_>) -> Result<Msat, Reason> {
        let declared: Vec<Msat> = set.iter().map(|(_, part)| part.declared).collect();
        let sum = Msat::checked_sum(declared.iter().copied()).ok_or(Reason::AmountOverflow)?;
        if self.terms.size.is_none() {
            self.fee = fee_of(&self.terms.params, sum);
        }
        self.fee.ok_or(Reason::FeeOverflow)?;
        match split_fee(&declared, self.due(), run.env.limits.htlc_minimum) {
            Some(_) => Ok(sum),
            None => Err(self.too_small()),
        }
    }

    /// Parts that cannot bear their fee.
    fn too_small(&self) -> Reason {
        match self.terms.size {
            Some(_) => Reason::TooManyParts,
            None => Reason::PaymentTooSmall,
        }
    }

    /// Moves the payment being served on as far as it goes; true if it came to its end here.
    pub(super) fn serve(&mut self, run: &mut Run<'_>) -> bool {
        let Some(hash) = self.paying else {
            return false;
        };
        if !self.is_out(hash) {
            // Decided anew each time: a part may have come back from a channel that took no fee.
            self.free = false;
            let Some(set) = self.complete_set(hash).filter(|_| !self.is_opening()) else {
                return false;
            };
            match self.route(&set, run) {
                Route::Go {
                    channel,
                    hops,
                    free,
                } => {
                    self.free = free;
                    // An existing channel has room by now: no need to ask any more.
                    self.open = self.open.take().filter(|open| !open.is_plan());
                    send(self, channel, hops, run);
                }
                Route::Wait => return false,
                Route::None(reason) if self.live_channel().is_some() => {
                    let (code, reason) = match reason {
                        Reason::TooManyParts => (FailCode::UnknownNextPeer, self.too_small()),
                        reason => (TCF, reason),
                    };
                    return self.give_up(hash, code, reason, run);
                }
                Route::None(_) => return self.open_for(hash, &set, run),
            }
        }
        // Parts of a payment that is on its way follow it, or do not belong to it (S-28).
        for (id, part) in self.held_of(hash) {
            match self.route(&[(id, part)], run) {
                Route::Go { channel, hops, .. } => send(self, channel, hops, run),
                Route::Wait => {}
                Route::None(reason) => {
                    self.fail_part(id, FailCode::UnknownNextPeer, reason, run);
                }
            }
        }
        false
    }

    /// Fails the held parts of the payment being served and turns to the next.
    fn give_up(
        &mut self,
        hash: PaymentHash,
        code: FailCode,
        reason: Reason,
        run: &mut Run<'_>,
    ) -> bool {
        self.fail_held(hash, code, reason, run);
        self.review_payment();
        true
    }

    /// Begins an attempt to open, or goes on with one that was granted (J-54: only before `valid_until`, only for a
    /// complete set, only to a connected client). True if the payment cannot be served at all.
    fn open_for(&mut self, hash: PaymentHash, set: &[(PartId, Part)], run: &mut Run<'_>) -> bool {
        let env = run.env;
        if !env.connected || env.now >= self.terms.params.valid_until {
            return false;
        }
        if let Some(open) = self.open.as_mut() {
            if open.phase == OpenPhase::Granted {
                open.phase = OpenPhase::Requested;
                let (id, value_sat) = (open.id, open.value_sat);
                self.request_open(id, value_sat, run);
            }
            return false;
        }
        let forward = Msat::checked_sum(set.iter().map(|(_, part)| part.declared))
            .and_then(|sum| sum.checked_sub(self.due()));
        let value = forward
            .ok_or(Reason::AmountOverflow)
            .and_then(|forward| env.limits.sizing.channel_value(forward, set.len()));
        let (Ok(value_sat), Some(attempt)) = (value, self.attempt.checked_add(1)) else {
            let reason = value.err().unwrap_or(Reason::TooManyOpens);
            return self.give_up(hash, FailCode::UnknownNextPeer, reason, run);
        };
        let id = OpenId::new(self.terms.scid, self.terms.sold_at, attempt);
        self.attempt = attempt;
        self.open = Some(Open {
            id,
            channel: None,
            funding: None,
            value_sat,
            phase: if env.limits.ask_policy {
                OpenPhase::Asking
            } else {
                OpenPhase::Requested
            },
            started: env.now,
            broadcast: false,
            broadcast_at: None,
            seen: false,
            depth: 0,
            reorged: false,
            enabled: false,
            unlocked: false,
            fee_sat: 0,
        });
        if env.limits.ask_policy {
            run.emit(Effect::AskPolicy {
                open: id,
                value_sat,
            });
        } else {
            self.request_open(id, value_sat, run);
        }
        false
    }

    fn request_open(&mut self, open: OpenId, value_sat: u64, run: &mut Run<'_>) {
        self.give_back_ahead(Some(open), run);
        run.record(LedgerEntry::OpenRequested {
            scid: self.terms.scid,
            client: self.terms.client,
            open,
            value_sat,
        });
        let delay = self.terms.params.max_client_to_self_delay;
        run.emit(Effect::Open {
            open,
            value_sat,
            max_to_self_delay: u16::try_from(delay).unwrap_or(u16::MAX),
        });
    }

    /// Once paid, each part goes by itself wherever there is room (J-78, S-68).
    pub(super) fn send_aliased(&mut self, run: &mut Run<'_>) {
        if !self.paid || self.state.is_end() {
            return;
        }
        for (id, part) in self.all_held() {
            match self.route(&[(id, part)], run) {
                Route::Go { channel, hops, .. } => send(self, channel, hops, run),
                Route::Wait => {}
                Route::None(reason) => self.fail_part(id, TCF, reason, run),
            }
        }
    }
}

/// Sends parts on their way.
fn send(order: &mut Order, channel: ChannelId, hops: Vec<Hop>, run: &mut Run<'_>) {
    for hop in hops {
        let Some(part) = order.parts.get_mut(&hop.id) else {
            continue;
        };
        part.status = PartStatus::Forwarding {
            channel,
            amount: hop.amount,
            skim: hop.skim,
        };
        let used = run.used.entry(channel).or_default();
        *used = used.checked_add(hop.amount).unwrap_or(*used);
        run.emit(Effect::Forward {
            part: hop.id,
            channel,
            amount: hop.amount,
            skim: hop.skim,
        });
    }
}
