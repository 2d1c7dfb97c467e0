//! What is counted as it happens, in atomics, for whoever watches a node: since its start, read all at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::lsps0::RpcError;
use ldkjit_core::lsps2::{BUY, GET_INFO};
use ldkjit_core::reason::Reason;
use serde::Serialize;
use serde_json::{json, Value};

use crate::log::now_ms;
use crate::node::Node;

/// Upper bounds of commit times, microseconds.
const COMMIT_US: [u64; 11] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
];

#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each reason, and one for what has no reason of ours.
struct Reasons(Vec<Counter>);

impl Default for Reasons {
    fn default() -> Self {
        Self(
            Reason::ALL
                .iter()
                .map(|_| Counter::default())
                .chain([Counter::default()])
                .collect(),
        )
    }
}

impl Reasons {
    fn add(&self, reason: Option<Reason>) {
        let place = reason.and_then(|reason| Reason::ALL.iter().position(|r| *r == reason));
        if let Some(counter) = self.0.get(place.unwrap_or(Reason::ALL.len())) {
            counter.add(1);
        }
    }

    /// Those that happened, by name.
    fn samples(&self, what: &str, samples: &mut Vec<Value>) {
        let names = Reason::ALL
            .iter()
            .map(|reason| json!(reason))
            .chain([json!("other")]);
        for (name, counter) in names.zip(&self.0) {
            let n = counter.get();
            if n > 0 {
                samples.push(json!({"labels": {"what": what, "reason": name}, "value": n}));
            }
        }
    }
}

/// How long something took.
#[derive(Default)]
struct Times {
    buckets: [Counter; COMMIT_US.len()],
    count: Counter,
    sum_us: Counter,
}

/// The counters of a node.
#[derive(Default)]
pub struct Metrics {
    get_info: Counter,
    buy: Counter,
    sold: Counter,
    htlc: Counter,
    set: Counter,
    open: Counter,
    channel: Counter,
    claim: Counter,
    paid: Counter,
    owed: Counter,
    earned_msat: Counter,
    requests: Reasons,
    parts: Reasons,
    opens: Reasons,
    orders: Reasons,
    commit: Times,
}

impl Metrics {
    /// A client asks something.
    pub fn asked(&self, method: &str) {
        match method {
            GET_INFO => self.get_info.add(1),
            BUY => self.buy.add(1),
            _ => {}
        }
    }

    /// A client is refused something.
    pub fn refused(&self, why: &RpcError) {
        self.requests.add(why.reason);
    }

    /// Something is written into the ledger.
    pub fn booked(&self, entry: &LedgerEntry) {
        match entry {
            LedgerEntry::OrderSold { .. } => self.sold.add(1),
            LedgerEntry::PartAccepted { .. } => self.htlc.add(1),
            LedgerEntry::SetComplete { .. } => self.set.add(1),
            LedgerEntry::OpenRequested { .. } => self.open.add(1),
            LedgerEntry::ChannelOpened { .. } => self.channel.add(1),
            LedgerEntry::FeeEarned { amount, .. } => {
                self.claim.add(1);
                self.earned_msat.add(amount.0);
            }
            LedgerEntry::OrderPaid { .. } => self.paid.add(1),
            LedgerEntry::OrderOwed { .. } => self.owed.add(1),
            LedgerEntry::PartRefused { reason, .. } => self.parts.add(Some(*reason)),
            LedgerEntry::OpenEnded { reason, .. } => self.opens.add(Some(*reason)),
            LedgerEntry::OrderEnded { reason, .. } => self.orders.add(Some(*reason)),
            _ => {}
        }
    }

    /// A commit took this long.
    pub fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fits = COMMIT_US.iter().position(|most| us <= *most);
        if let Some(bucket) = fits.and_then(|at| self.commit.buckets.get(at)) {
            bucket.add(1);
        }
        self.commit.sum_us.add(us);
        self.commit.count.add(1);
    }

    fn families(&self) -> Vec<Family> {
        let stages = [
            ("get_info", &self.get_info),
            ("buy", &self.buy),
            ("sold", &self.sold),
            ("htlc", &self.htlc),
            ("set", &self.set),
            ("open", &self.open),
            ("channel", &self.channel),
            ("claim", &self.claim),
            ("paid", &self.paid),
            ("owed", &self.owed),
        ];
        let stages = stages.map(|(stage, n)| json!({"labels": {"stage": stage}, "value": n.get()}));
        let mut refused = Vec::new();
        self.requests.samples("request", &mut refused);
        self.parts.samples("part", &mut refused);
        self.opens.samples("open", &mut refused);
        self.orders.samples("order", &mut refused);
        let mut below = 0_u64;
        let buckets: Vec<_> = COMMIT_US
            .iter()
            .zip(&self.commit.buckets)
            .map(|(most, bucket)| {
                below = below.saturating_add(bucket.get());
                json!([seconds(*most), below])
            })
            .collect();
        let commit = json!({
            "labels": {},
            "buckets": buckets,
            "sum": seconds(self.commit.sum_us.get()),
            "value": self.commit.count.get(),
        });
        vec![
            Family {
                name: "ldkjit_jit_total",
                kind: "counter",
                help: "How many came to each stage of a sale: requests, sales, HTLCs held, complete sets, opens begun, \
                       channels, parts claimed, orders paid, orders owed.",
                samples: stages.to_vec(),
            },
            Family {
                name: "ldkjit_refused_total",
                kind: "counter",
                help: "Requests and parts refused, opens and orders ended without success, by reason.",
                samples: refused,
            },
            Family::one(
                "ldkjit_opening_fees_msat_total",
                "counter",
                "Opening fees earned, msat.",
                self.earned_msat.get(),
            ),
            Family {
                name: "ldkjit_commit_seconds",
                kind: "histogram",
                help: "How long the store took for one commit.",
                samples: vec![commit],
            },
        ]
    }
}

#[allow(clippy::cast_precision_loss)] // of microseconds, after 285 years
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Samples of one name.
#[derive(Serialize)]
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<Value>,
}

impl Family {
    fn one(
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        value: impl Serialize,
    ) -> Self {
        Self {
            name,
            kind,
            help,
            samples: vec![json!({"labels": {}, "value": value})],
        }
    }
}

impl Node {
    /// All there is to be scraped.
    #[must_use]
    pub fn metrics(&self) -> Value {
        let mut families = self.parts.journal.metrics().families();
        let (held, since) = self.lsp.as_ref().map(|lsp| lsp.held()).unwrap_or_default();
        let age_ms = since.map_or(0, |since| now_ms().saturating_sub(since.0));
        let alarms = self.alarms.on().into_keys();
        let turned = self.net.door.turned().into_iter();
        let asked = self.lsp.as_ref().map(|lsp| lsp.policy_counts());
        let asked = asked.unwrap_or_default().into_iter();
        families.extend([
            Family::one(
                "ldkjit_htlcs_held",
                "gauge",
                "HTLCs held for clients.",
                held,
            ),
            Family::one(
                "ldkjit_htlc_held_oldest_seconds",
                "gauge",
                "For how long the oldest of them has been held.",
                seconds(age_ms.saturating_mul(1_000)),
            ),
            Family::one(
                "ldkjit_block_height",
                "gauge",
                "Height of the best block known.",
                self.height(),
            ),
            Family::one(
                "ldkjit_channels",
                "gauge",
                "Channels that are not closed.",
                self.cm.list_channels().len(),
            ),
            Family::one(
                "ldkjit_log_dropped_total",
                "counter",
                "Log records that the application was too slow for.",
                self.parts.log.dropped(),
            ),
            Family {
                name: "ldkjit_hook_total",
                kind: "counter",
                help: "What became of the questions to each of the operator's hooks.",
                samples: asked
                    .flat_map(|(hook, counts)| {
                        counts.into_iter().map(move |(outcome, n)| {
                            json!({"labels": {"hook": hook, "outcome": outcome}, "value": n})
                        })
                    })
                    .collect(),
            },
            Family {
                name: "ldkjit_alarm",
                kind: "gauge",
                help: "1 for each alarm that is on.",
                samples: alarms
                    .map(|alarm| json!({"labels": {"alarm": alarm}, "value": 1}))
                    .collect(),
            },
            Family {
                name: "ldkjit_turned_away_total",
                kind: "counter",
                help: "Connections refused or ended, by reason.",
                samples: turned
                    .map(|(why, n)| json!({"labels": {"reason": why}, "value": n}))
                    .collect(),
            },
        ]);
        json!(families)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn of(metrics: &Metrics, name: &str) -> Vec<Value> {
        let found = metrics.families().into_iter().find(|f| f.name == name);
        found.unwrap().samples
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let metrics = Metrics::default();
        for reason in [
            Reason::ClientDenied,
            Reason::ClientDenied,
            Reason::UnknownToken,
        ] {
            metrics.refused(&RpcError::refusal(reason, None));
        }
        metrics.refused(&RpcError::refusal(
            Reason::PolicyRefused,
            Some("we are closed"),
        ));
        let told = of(&metrics, "ldkjit_refused_total");
        let said: Vec<_> = told
            .iter()
            .map(|s| {
                (
                    s["labels"]["reason"].as_str().unwrap(),
                    s["value"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                ("unknown_token", 1),
                ("client_denied", 2),
                ("policy_refused", 1)
            ]
        );
        assert!(told.iter().all(|s| s["labels"]["what"] == "request"));
    }

    #[test]
    fn commit_times_are_in_buckets_that_add_up() {
        let metrics = Metrics::default();
        for us in [400, 500, 501, 30_000, 2_000_000] {
            metrics.committed(Duration::from_micros(us));
        }
        let told = &of(&metrics, "ldkjit_commit_seconds")[0];
        let counts: Vec<_> = told["buckets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b[1].as_u64().unwrap())
            .collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
        assert_eq!(told["value"], 5);
        assert!((told["sum"].as_f64().unwrap() - 2.031_401).abs() < 1e-9);
    }
}
