//! Where each microsecond of a payment went on this node: stages with wall-clock stamps, kept in memory for the latest payments.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use ldkjit_core::ids::PaymentHash;
use serde::Serialize;

use crate::sync::lock;

/// Payments remembered; the oldest is forgotten.
const CAPACITY: usize = 1_024;

/// One stage of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// What happened.
    pub stage: &'static str,
    /// When, microseconds since 1970.
    pub at_us: u64,
}

#[derive(Default)]
struct State {
    stages: HashMap<PaymentHash, Vec<Stage>>,
    order: VecDeque<PaymentHash>,
}

/// The latest payments' stages.
#[derive(Default)]
pub struct Timeline(Mutex<State>);

impl Timeline {
    /// Records a stage, the first time only.
    pub fn stamp(&self, hash: PaymentHash, stage: &'static str) {
        let at_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        let mut state = lock(&self.0);
        if !state.stages.contains_key(&hash) {
            if state.order.len() >= CAPACITY {
                if let Some(oldest) = state.order.pop_front() {
                    state.stages.remove(&oldest);
                }
            }
            state.order.push_back(hash);
        }
        let stages = state.stages.entry(hash).or_default();
        if stages.len() < 64 && stages.iter().all(|s| s.stage != stage) {
            stages.push(Stage { stage, at_us });
        }
    }

    /// The stages of a payment, in the order they happened.
    #[must_use]
    pub fn of(&self, hash: &PaymentHash) -> Vec<Stage> {
        lock(&self.0).stages.get(hash).cloned().unwrap_or_default()
    }
}
