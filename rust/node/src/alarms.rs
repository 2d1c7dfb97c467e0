//! Alarms: what an operator must look at, told once when it begins and once when it is over.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::events::NodeEvent;
use crate::node::Node;
use crate::sync::lock;

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// This machine's clock is wrong, or was set: offers and payments expire by it.
    Clock,
    /// The chain source does not answer, its blocks cannot be had, or none came for long.
    Chain,
    /// There is no fresh estimate of fees: nothing is opened or sent.
    Fees,
    /// An order could not be served for want of coins.
    Coins,
}

/// The alarms that are on, and what they said.
#[derive(Default)]
pub struct Alarms(Mutex<BTreeMap<Alarm, String>>);

impl Alarms {
    /// Those that are on.
    #[must_use]
    pub fn on(&self) -> BTreeMap<Alarm, String> {
        lock(&self.0).clone()
    }
}

impl Node {
    /// Something needs looking at.
    pub fn raise(&self, alarm: Alarm, message: String) {
        if lock(&self.alarms.0)
            .insert(alarm, message.clone())
            .is_none()
        {
            let log = &self.parts.log;
            log.error("alarm", format_args!("{alarm:?}: {message}"));
            let on = true;
            self.events.emit(&NodeEvent::Alarm { alarm, on, message });
        }
    }

    /// It is well again.
    pub fn clear(&self, alarm: Alarm) {
        if let Some(message) = lock(&self.alarms.0).remove(&alarm) {
            let log = &self.parts.log;
            log.info("alarm", format_args!("{alarm:?} is over: {message}"));
            let on = false;
            self.events.emit(&NodeEvent::Alarm { alarm, on, message });
        }
    }
}
