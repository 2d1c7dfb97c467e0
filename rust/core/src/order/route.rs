//! Which way a payment can take: the parts of a set, the fee still due, and the channel that carries both.

use super::{ChannelView, Open, OpenPhase, Order, Part, PartStatus, Run};
use crate::amount::Msat;
use crate::fee::split_fee;
use crate::ids::{ChannelId, PartId, PaymentHash};
use crate::reason::Reason;

/// One part on its way out.
pub(super) struct Hop {
    pub(super) id: PartId,
    pub(super) amount: Msat,
    pub(super) skim: Msat,
}

/// What can be done with a payment now.
pub(super) enum Route {
    /// Send it, without a fee if `free`.
    Go {
        channel: ChannelId,
        hops: Vec<Hop>,
        free: bool,
    },
    /// It fits a channel that cannot take it at this moment.
    Wait,
    /// No channel can carry it.
    None(Reason),
}

impl Order {
    /// Held parts of one payment, in the order they came.
    pub(super) fn held_of(&self, hash: PaymentHash) -> Vec<(PartId, Part)> {
        let mut parts: Vec<(PartId, Part)> = self
            .parts
            .iter()
            .filter(|(_, part)| part.hash == hash && part.status == PartStatus::Held)
            .map(|(id, part)| (*id, *part))
            .collect();
        parts.sort_by_key(|(_, part)| part.seq);
        parts
    }

    /// The first held parts that make a complete payment: the size sold, or one part of a variable amount (J-46, J-47).
    pub(super) fn complete_set(&self, hash: PaymentHash) -> Option<Vec<(PartId, Part)>> {
        let target = self.terms.size.unwrap_or(Msat(1));
        let mut sum = Msat::ZERO;
        let mut set = Vec::new();
        for (id, part) in self.held_of(hash) {
            sum = sum.checked_add(part.declared)?;
            set.push((id, part));
            if sum >= target {
                return Some(set);
            }
        }
        None
    }

    /// A part of this payment is with the client.
    pub(super) fn is_out(&self, hash: PaymentHash) -> bool {
        self.parts
            .values()
            .any(|part| part.hash == hash && matches!(part.status, PartStatus::Forwarding { .. }))
    }

    /// A part of any payment is with the client.
    pub(super) fn is_any_out(&self) -> bool {
        let is_out = |part: &Part| matches!(part.status, PartStatus::Forwarding { .. });
        self.parts.values().any(is_out)
    }

    /// The fee that is neither earned nor on its way.
    pub(super) fn due(&self) -> Msat {
        if self.paid {
            return Msat::ZERO;
        }
        let on_its_way = self.parts.values().map(|part| match part.status {
            PartStatus::Forwarding { skim, .. } => skim,
            _ => Msat::ZERO,
        });
        let covered = Msat::checked_sum(on_its_way).and_then(|sum| sum.checked_add(self.earned));
        match (self.fee, covered) {
            (Some(fee), Some(covered)) => fee.saturating_sub(covered),
            _ => Msat::ZERO,
        }
    }

    /// Where `set` can go. A channel that is paid for takes no fee unless the operator wants one there too; one
    /// that another order still owes for is left alone, for that order's fee goes with its own size.
    pub(super) fn route(&self, set: &[(PartId, Part)], run: &Run<'_>) -> Route {
        let own = self.live_channel();
        let own_sound = self.open.as_ref().is_some_and(|open| !open.reorged);
        let is_own = |view: &&ChannelView| Some(view.id) == own;
        let channels = || {
            let open_to_us = |view: &&ChannelView| !self.closing.contains_key(&view.id);
            run.env.channels.iter().filter(open_to_us)
        };
        let own_view = channels().find(is_own);
        // A channel of this order that is not (or no longer) its own one is about to be closed.
        let ours =
            |view: &&ChannelView| view.open_id.is_some_and(|id| id.scid() == self.terms.scid);
        let others = channels().filter(|view| !ours(view) && !is_own(view) && !view.unpaid);
        let mut waits = own.is_some() && own_view.is_none();
        let mut why = Reason::NoRoom;
        for view in own_view.into_iter().filter(|_| own_sound).chain(others) {
            let is_own = is_own(&view);
            let free = self.free || !(is_own || run.env.limits.charge_on_reuse);
            let due = if free { Msat::ZERO } else { self.due() };
            let used = run.used.get(&view.id).copied().unwrap_or_default();
            match fit(set, due, view, used) {
                Ok(hops) if run.env.connected && view.usable => {
                    return Route::Go {
                        channel: view.id,
                        hops,
                        free,
                    };
                }
                Ok(_) => waits = true,
                Err(reason) if is_own => why = reason,
                Err(_) => {}
            }
        }
        if waits || !own_sound && own.is_some() {
            return Route::Wait;
        }
        Route::None(why)
    }
}

/// How `set` leaves by this channel with `due` taken from it, if it fits.
fn fit(
    set: &[(PartId, Part)],
    due: Msat,
    view: &ChannelView,
    used: Msat,
) -> Result<Vec<Hop>, Reason> {
    let declared: Vec<Msat> = set.iter().map(|(_, part)| part.declared).collect();
    let skims = split_fee(&declared, due, view.htlc_minimum).ok_or(Reason::TooManyParts)?;
    let mut total = used;
    let mut hops = Vec::with_capacity(set.len());
    for ((id, part), skim) in set.iter().zip(skims) {
        let amount = part
            .declared
            .checked_sub(skim)
            .ok_or(Reason::TooManyParts)?;
        total = total.checked_add(amount).ok_or(Reason::AmountOverflow)?;
        if amount > view.outbound_limit || total > view.outbound_capacity {
            return Err(Reason::NoRoom);
        }
        hops.push(Hop {
            id: *id,
            amount,
            skim,
        });
    }
    Ok(hops)
}

impl Open {
    /// Nothing was given to LDK yet.
    pub(super) fn is_plan(&self) -> bool {
        matches!(self.phase, OpenPhase::Asking | OpenPhase::Granted)
    }
}
