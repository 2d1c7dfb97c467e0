//! Coins for an order's channel: locked before the open can begin, and given back when nothing comes of it.

use super::route::Route;
use super::settle::TCF;
use super::{Ahead, Effect, Open, OpenPhase, Order, PartStatus, Run};
use crate::amount::Msat;
use crate::ids::OpenId;
use crate::menu::TrustModel;
use crate::reason::Reason;

impl Order {
    /// From its first part on a payment that needs a channel has its coins, so that nobody waits for parts, or for the
    /// client, in vain.
    pub(super) fn keep_coins(&mut self, run: &mut Run<'_>) {
        let wanted = self.coins_wanted(run);
        let open = wanted.map(|ahead| ahead.open);
        if self.ahead.map(|ahead| ahead.open) == open {
            return;
        }
        self.give_back_ahead(None, run);
        if let Some(Ahead { open, value_sat }) = wanted {
            self.ahead = wanted;
            run.emit(Effect::Lock { open, value_sat });
        }
    }

    /// What was locked ahead is given back, unless it is for this open, which has it from here on.
    pub(super) fn give_back_ahead(&mut self, taken_by: Option<OpenId>, run: &mut Run<'_>) {
        if let Some(ahead) = self.ahead.take().filter(|a| Some(a.open) != taken_by) {
            run.emit(Effect::Unlock { open: ahead.open });
        }
    }

    /// The open that what is held will need, if it needs one.
    fn coins_wanted(&self, run: &Run<'_>) -> Option<Ahead> {
        let env = run.env;
        let too_late = env.now >= self.terms.params.valid_until;
        if self.paid || self.state.is_end() || self.is_opening() || too_late {
            return None;
        }
        if let Some(open) = self.open.as_ref() {
            return open.is_plan().then_some(Ahead {
                open: open.id,
                value_sat: open.value_sat,
            });
        }
        let waiting = || self.waiting().first().map(|(hash, _)| *hash);
        let held = self.held_of(self.paying.or_else(waiting)?);
        let (_, first) = held.first()?;
        if !matches!(self.route(&held, run), Route::None(_)) {
            return None;
        }
        let amount = self.terms.size.unwrap_or(first.declared);
        let forward = amount.saturating_sub(self.fee.unwrap_or(Msat::ZERO));
        let attempt = self.attempt.checked_add(1)?;
        Some(Ahead {
            open: OpenId::new(self.terms.scid, self.terms.sold_at, attempt),
            value_sat: env.limits.sizing.channel_value(forward, held.len()).ok()?,
        })
    }

    /// There were no coins to lock: what waits for them goes back.
    pub(super) fn not_locked(&mut self, id: OpenId, run: &mut Run<'_>) {
        if self.ahead.is_none_or(|ahead| ahead.open != id) {
            return;
        }
        self.ahead = None;
        if self.open.as_ref().is_some_and(Open::is_plan) {
            self.end_open(Reason::NoCoins, run);
        }
        for (part, _) in self.all_held() {
            self.fail_part(part, TCF, Reason::NoCoins, run);
        }
    }

    /// A channel whose funding was withheld to the end never was: its coins are free once no claim can come any more.
    pub(super) fn free_coins(&mut self, run: &mut Run<'_>) {
        let withheld = self.terms.trust == TrustModel::ClientTrustsLsp;
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let spent = open.broadcast || open.seen;
        let channel = open.channel;
        let used = self.parts.values().any(|part| {
            matches!(part.status, PartStatus::Forwarding { channel: by, .. } if Some(by) == channel)
        });
        let closed = open.phase == OpenPhase::Closed;
        if closed && withheld && !spent && !used && !open.unlocked {
            open.unlocked = true;
            run.emit(Effect::Unlock { open: open.id });
        }
    }
}
