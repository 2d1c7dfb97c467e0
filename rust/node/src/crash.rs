//! Named moments at which a test ends the process, as kill -9 would: before, inside and after whatever must survive.

use ldkjit_core::order::Effect;
use lightning::events::Event;

/// Passes, unless a test has armed this moment.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(feature = "faults")]
    armed::pass(name);
    #[cfg(not(feature = "faults"))]
    let _ = name;
}

/// Before and after an event of LDK is handled.
#[must_use]
pub fn around_event(event: &Event) -> [&'static str; 2] {
    match event {
        Event::HTLCIntercepted { .. } => ["intercepted:before", "intercepted:after"],
        Event::OpenChannelRequest { .. } => ["open_request:before", "open_request:after"],
        Event::FundingGenerationReady { .. } => ["funding_needed:before", "funding_needed:after"],
        Event::ChannelPending { .. } => ["channel_pending:before", "channel_pending:after"],
        Event::ChannelReady { .. } => ["channel_ready:before", "channel_ready:after"],
        Event::ChannelClosed { .. } => ["channel_closed:before", "channel_closed:after"],
        Event::PaymentForwarded { .. } => ["forwarded:before", "forwarded:after"],
        Event::PaymentClaimable { .. } => ["claimable:before", "claimable:after"],
        Event::PaymentClaimed { .. } => ["claimed:before", "claimed:after"],
        Event::PaymentSent { .. } => ["sent:before", "sent:after"],
        Event::SpendableOutputs { .. } => ["spendable:before", "spendable:after"],
        _ => ["other_event:before", "other_event:after"],
    }
}

/// Before and after an effect of an order is carried out.
#[must_use]
pub fn around_effect(effect: &Effect) -> [&'static str; 2] {
    match effect {
        Effect::Fail { .. } => ["fail:before", "fail:after"],
        Effect::Lock { .. } => ["lock:before", "lock:after"],
        Effect::Open { .. } => ["open:before", "open:after"],
        Effect::AbandonOpen { .. } => ["abandon:before", "abandon:after"],
        Effect::Unlock { .. } => ["unlock:before", "unlock:after"],
        Effect::Forward { .. } => ["forward:before", "forward:after"],
        Effect::Broadcast { .. } => ["release:before", "release:after"],
        Effect::EnableForwarding { .. } => ["enable:before", "enable:after"],
        Effect::Close { .. } => ["close:before", "close:after"],
        Effect::Wake | Effect::AskPolicy { .. } | Effect::Score | Effect::Record(_) => {
            ["other_effect:before", "other_effect:after"]
        }
    }
}

/// What a test sets.
#[cfg(feature = "faults")]
pub mod armed {
    use std::io::Write;
    use std::sync::Mutex;

    use crate::sync::lock;

    static ARMED: Mutex<Option<(String, u32)>> = Mutex::new(None);

    /// Ends the process when the moment of this name comes for the `nth` time from now (from 1).
    pub fn arm(name: &str, nth: u32) {
        *lock(&ARMED) = Some((name.to_owned(), nth));
    }

    pub(super) fn pass(name: &'static str) {
        let mut armed = lock(&ARMED);
        if let Some((wanted, left)) = armed.as_mut().filter(|(wanted, _)| wanted == name) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{{\"died_at\":\"{wanted}\"}}");
                let _ = out.flush();
                std::process::abort();
            }
        }
    }
}
