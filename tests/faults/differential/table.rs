//! Known differences: each a predicate with the requirement it is about, counted as it explains something.

use std::collections::BTreeMap;

/// What a difference looks like, for cases of type `C`.
pub enum Kind<C> {
    /// The two outcomes are exactly what this difference makes of the message.
    Seen(fn(&C) -> bool),
    /// The stock side takes what the specification forbids for this message, which is the same without it; ours must make
    /// of that what the stock side made of the first. `None` if there is nothing of it in the message.
    Lenient(fn(&C) -> Option<Vec<u8>>),
}

/// A difference that is known and has its reason.
pub struct Difference<C: 'static> {
    pub name: &'static str,
    /// In `conformance.md`, or D-… for a defect of the stock handlers.
    pub id: &'static str,
    pub why: &'static str,
    pub kind: Kind<C>,
}

impl<C> Difference<C> {
    /// Its line in `docs/reliability.md`.
    pub fn row(&self) -> String {
        format!("| {} | {} | {} |", self.id, self.name, self.why)
    }
}

/// A case that both sides have had.
pub trait Compared {
    fn same(&self) -> bool;
    /// What ours makes of this message, as it was before the other.
    fn mend(&mut self, payload: Vec<u8>);
}

/// Something forbidden in this message that ours has not refused as it must, `is_refused` being how. The stock side takes
/// it: that both do would be no difference.
pub fn taken<C>(
    table: &[Difference<C>],
    case: &C,
    is_refused: fn(&C, &str) -> bool,
) -> Option<&'static str> {
    let forbidden = table.iter().filter(|difference| match difference.kind {
        Kind::Seen(_) => false,
        Kind::Lenient(without) => without(case).is_some(),
    });
    let mut names = forbidden.map(|difference| difference.name);
    names.find(|name| !is_refused(case, name))
}

/// The names of those that explain the difference of this case; `None` if none does.
pub fn explain<C: Compared>(table: &[Difference<C>], case: &mut C) -> Option<Vec<&'static str>> {
    let mut used = Vec::new();
    for difference in table {
        match difference.kind {
            Kind::Seen(holds) => {
                if holds(case) {
                    used.push(difference.name);
                    return Some(used);
                }
            }
            Kind::Lenient(without) => {
                let Some(mended) = without(case) else {
                    continue;
                };
                case.mend(mended);
                used.push(difference.name);
                if case.same() {
                    return Some(used);
                }
            }
        }
    }
    None
}

pub const fn seen<C>(
    name: &'static str,
    id: &'static str,
    why: &'static str,
    holds: fn(&C) -> bool,
) -> Difference<C> {
    let kind = Kind::Seen(holds);
    Difference {
        name,
        id,
        why,
        kind,
    }
}

pub const fn lenient<C>(
    name: &'static str,
    id: &'static str,
    why: &'static str,
    without: fn(&C) -> Option<Vec<u8>>,
) -> Difference<C> {
    let kind = Kind::Lenient(without);
    Difference {
        name,
        id,
        why,
        kind,
    }
}

/// How often each explained something.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
    pub conversations: u64,
    pub messages: u64,
    pub same: u64,
}

impl Tally {
    pub fn count(&mut self, names: &[&'static str]) {
        for name in names {
            *self.counts.entry(name).or_default() += 1;
        }
    }

    /// Counts a conversation in.
    pub fn add(&mut self, other: &Self) {
        self.conversations += 1;
        self.messages += other.messages;
        self.same += other.same;
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// A difference that explained nothing is an excuse that has outlived its reason.
    pub fn assert_none_is_stale<C>(&self, table: &[Difference<C>]) {
        let names = table.iter().map(|d| d.name);
        let stale: Vec<&str> = names.filter(|n| !self.counts.contains_key(n)).collect();
        assert!(stale.is_empty(), "no longer so: {stale:?}");
    }

    pub fn print<C>(&self, title: &str, table: &[Difference<C>]) {
        println!(
            "{title}: {} conversations, {} messages, {} of them with the same outcome",
            self.conversations, self.messages, self.same
        );
        for d in table {
            let count = self.counts.get(d.name).copied().unwrap_or_default();
            println!("{count:>7}  {:<5}  {:<28}  {}", d.id, d.name, d.why);
        }
    }
}

/// A difference that nothing explains, and all that led to it.
pub struct Unknown(pub String);

/// The beginning of a payload, for people.
pub fn shown(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().take(1_500).collect()
}
