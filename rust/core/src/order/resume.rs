//! After a restart: what the stored order says is compared with what LDK still has, and made good.

use std::collections::BTreeSet;

use super::{Effect, OpenPhase, Order, PartStatus, Run};
use crate::ids::PartId;
use crate::reason::Reason;

impl Order {
    /// What a restart may have lost is asked of LDK and made good.
    pub(super) fn catch_up(&mut self, held: &BTreeSet<PartId>, run: &mut Run<'_>) {
        let env = run.env;
        self.since = env.now;
        self.woken = false;
        let ids: Vec<PartId> = self.parts.keys().copied().collect();
        for id in ids {
            let is_held = held.contains(&id);
            match self.parts.get(&id).map(|part| part.status) {
                Some(PartStatus::Forwarding { .. }) if is_held => self.part_held(id),
                Some(PartStatus::Failing { code, reason }) if is_held => run.emit(Effect::Fail {
                    part: id,
                    code,
                    reason,
                }),
                Some(PartStatus::Held | PartStatus::Failing { .. }) if !is_held => {
                    self.part_ended(id, false, run);
                }
                _ => {}
            }
        }
        if let Some(ahead) = self.ahead {
            run.emit(Effect::Lock {
                open: ahead.open,
                value_sat: ahead.value_sat,
            });
        }
        self.catch_up_open(run);
        let current = self.open.as_ref().map(|open| open.id);
        for view in env.channels {
            let ours = view
                .open_id
                .is_some_and(|id| id.scid() == self.terms.scid && Some(id) != current);
            if ours || self.closing.contains_key(&view.id) {
                self.closing.insert(view.id, false);
                run.emit(Effect::Close {
                    channel: view.id,
                    reason: if ours {
                        Reason::OpenFailed
                    } else {
                        Reason::FeeUnpaid
                    },
                });
            }
        }
    }

    fn catch_up_open(&mut self, run: &mut Run<'_>) {
        let env = run.env;
        let Some(open) = self.open.as_mut() else {
            return;
        };
        open.started = env.now;
        open.broadcast_at = None;
        open.enabled = false;
        let (id, value_sat, channel) = (open.id, open.value_sat, open.channel);
        let exists = env.channels.iter().any(|view| view.open_id == Some(id));
        match (open.phase, channel) {
            (OpenPhase::Asking, _) => run.emit(Effect::AskPolicy {
                open: id,
                value_sat,
            }),
            // LDK forgets a channel whose funding was not signed; the payment is held still, so it is opened anew.
            (OpenPhase::Requested, _) if !exists => self.end_open(Reason::OpenFailed, run),
            (OpenPhase::Pending | OpenPhase::Ready, Some(channel)) if !exists => {
                self.channel_closed(channel, run);
            }
            _ => {}
        }
    }
}
