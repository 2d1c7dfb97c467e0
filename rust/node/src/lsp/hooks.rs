//! The desk: where questions to the operator's hooks wait for their answers, each with its deadline, and are counted.
//!
//! Who carries them there and back is an [`Asker`]: the Python bridge, or a test. The desk never waits for it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ldkjit_core::lsps0::clean_text;
use ldkjit_core::policy::{Answer, AnswerError, Breaker, Fuse, Hook};
use ldkjit_core::time::Millis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use tokio::sync::oneshot;

use crate::config::{PolicyConfig, Runs};
use crate::log::{Log, Seldom};
use crate::sync::lock;

/// Unanswered questions that are remembered, to know a late answer.
const MAX_MISSED: usize = 4_096;

/// Carries questions to the hooks. Must not block.
pub trait Asker: fmt::Debug + Send + Sync {
    /// Puts a question; its answer comes to [`Desk::answer`] under the same id.
    fn ask(&self, id: u64, runs: Runs, question: String);
    /// Nobody waits for this answer any more.
    fn forget(&self, id: u64);
}

/// What a hook may come to instead of an answer, as the application says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    kind: FaultKind,
    #[serde(default)]
    text: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultKind {
    Raised,
    Nonsense,
    Closed,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Yes(Value),
    Refuse(Value),
    Fault(Fault),
}

/// Why there is no answer that can be used. What is done then is safe: an empty menu, a refusal, a payment failed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It did not come in time.
    Deadline(u64),
    /// The hook raised an error.
    Raised(String),
    /// The answer says something that cannot be.
    Nonsense(String),
    /// As many questions wait as may.
    QueueFull,
    /// The hook has not answered for a while and is left in peace.
    Broken,
    /// Nobody is there to answer.
    Closed,
}

impl Failure {
    /// Its name in the counters.
    fn name(&self) -> &'static str {
        match self {
            Self::Deadline(_) => "deadline",
            Self::Raised(_) => "raised",
            Self::Nonsense(_) => "nonsense",
            Self::QueueFull => "queue_full",
            Self::Broken => "broken",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(ms) => write!(f, "no answer within {ms} ms"),
            Self::Raised(text) => write!(f, "it raised {text}"),
            Self::Nonsense(text) => write!(f, "its answer cannot be used: {text}"),
            Self::QueueFull => f.write_str("too many questions wait"),
            Self::Broken => f.write_str("it has not answered of late"),
            Self::Closed => f.write_str("nobody is there to answer"),
        }
    }
}

/// One hook of this node.
#[derive(Default)]
struct Post {
    breaker: Breaker,
    counts: BTreeMap<&'static str, u64>,
    seldom: Arc<Seldom>,
}

impl Post {
    fn count(&mut self, what: &'static str) {
        let count = self.counts.entry(what).or_default();
        *count = count.saturating_add(1);
    }
}

#[derive(Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, (Hook, oneshot::Sender<String>)>,
    /// Questions that were given up, oldest first.
    missed: BTreeMap<u64, Hook>,
    posts: BTreeMap<Hook, Post>,
}

/// Where questions wait.
pub struct Desk {
    config: PolicyConfig,
    asker: Arc<dyn Asker>,
    started: Instant,
    state: Mutex<State>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("hooks", &self.config.hooks)
            .finish_non_exhaustive()
    }
}

/// A question's place at the desk, which goes with whoever waits for the answer.
struct Place<'a> {
    desk: &'a Desk,
    hook: Hook,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.desk.state);
        if state.waiting.remove(&self.id).is_none() {
            return;
        }
        state.missed.insert(self.id, self.hook);
        if state.missed.len() > MAX_MISSED {
            state.missed.pop_first();
        }
        drop(state);
        self.desk.asker.forget(self.id);
    }
}

impl Desk {
    /// A desk for the hooks that the settings name.
    #[must_use]
    pub fn new(config: PolicyConfig, asker: Arc<dyn Asker>) -> Self {
        Self {
            config,
            asker,
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Whether there is such a hook.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.config.hooks.contains_key(&hook)
    }

    /// The answer to a question, as JSON. One that nobody waits for any more is counted.
    pub fn answer(&self, id: u64, body: String) {
        let mut state = lock(&self.state);
        if let Some((_, waiting)) = state.waiting.remove(&id) {
            let _ = waiting.send(body);
        } else if let Some(hook) = state.missed.remove(&id) {
            state.posts.entry(hook).or_default().count("late");
        }
    }

    /// What became of the questions to each hook since the start.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
        let mut state = lock(&self.state);
        let hooks = self.config.hooks.keys();
        hooks
            .map(|hook| {
                let post = state.posts.entry(*hook).or_default();
                (hook.name(), post.counts.clone())
            })
            .collect()
    }

    /// Asks a hook. Whatever goes wrong is logged with the hook's name, and counted.
    ///
    /// # Errors
    /// Why there is no answer that can be used.
    pub(super) async fn ask<Yes: DeserializeOwned>(
        &self,
        log: &Log,
        hook: Hook,
        question: &impl Serialize,
        check: impl FnOnce(&Yes) -> Result<(), AnswerError>,
    ) -> Result<Answer<Yes>, Failure> {
        let told = match self.put(hook, question).await {
            Ok(body) => read(&body, check),
            Err(failure) => Err(failure),
        };
        let (seldom, opened) = {
            let mut state = lock(&self.state);
            let post = state.posts.entry(hook).or_default();
            post.count("asked");
            post.count(match &told {
                Ok(Answer::Yes(_)) => "answered",
                Ok(Answer::Refuse(_)) => "refused",
                Err(failure) => failure.name(),
            });
            let opened = match &told {
                Err(Failure::Deadline(_) | Failure::Closed) => {
                    post.breaker.missed(self.now(), self.config.fuse())
                }
                // It was not asked.
                Err(Failure::QueueFull | Failure::Broken) => false,
                _ => {
                    post.breaker.answered();
                    false
                }
            };
            (post.seldom.clone(), opened)
        };
        let name = hook.name();
        match &told {
            // What it costs when it is in the way is said once, what each request comes to is seldom news.
            Err(failure) if opened => log.error(
                "policy",
                format_args!(
                    "hook {name}: {failure}, as for {} before it: not asked for {} ms",
                    self.config.breaker_after.saturating_sub(1),
                    self.config.breaker_ms
                ),
            ),
            Err(failure) => seldom.warn(log, "policy", format_args!("hook {name}: {failure}")),
            Ok(_) => {}
        }
        told
    }

    async fn put(&self, hook: Hook, question: &impl Serialize) -> Result<String, Failure> {
        let runs = *self.config.hooks.get(&hook).ok_or(Failure::Closed)?;
        let deadline_ms = self.config.deadline_ms(hook);
        let text = json!({"hook": hook, "deadline_ms": deadline_ms, "ask": question}).to_string();
        let (place, answer) = {
            let mut state = lock(&self.state);
            // Each has its own: a flood of menus must not cost a payment that is here already.
            let waiting = state.waiting.values().filter(|(of, _)| *of == hook);
            if waiting.count() >= self.config.max_waiting {
                return Err(Failure::QueueFull);
            }
            let now = self.now();
            if !state.posts.entry(hook).or_default().breaker.admits(now) {
                return Err(Failure::Broken);
            }
            state.last_id = state.last_id.saturating_add(1);
            let id = state.last_id;
            let (sender, answer) = oneshot::channel();
            state.waiting.insert(id, (hook, sender));
            let place = Place {
                desk: self,
                hook,
                id,
            };
            (place, answer)
        };
        self.asker.ask(place.id, runs, text);
        match tokio::time::timeout(Duration::from_millis(deadline_ms), answer).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(Failure::Closed),
            Err(_) => Err(Failure::Deadline(deadline_ms)),
        }
    }

    /// Time that no change of the clock moves.
    fn now(&self) -> Millis {
        let passed = self.started.elapsed().as_millis();
        Millis(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl PolicyConfig {
    fn deadline_ms(&self, hook: Hook) -> u64 {
        match hook {
            Hook::Menu => self.menu_ms,
            Hook::Sell => self.sell_ms,
            Hook::Channel => self.channel_ms,
        }
    }

    fn fuse(&self) -> Fuse {
        Fuse {
            after: self.breaker_after,
            pause_ms: self.breaker_ms,
        }
    }
}

fn read<Yes: DeserializeOwned>(
    body: &str,
    check: impl FnOnce(&Yes) -> Result<(), AnswerError>,
) -> Result<Answer<Yes>, Failure> {
    let nonsense = |e: &dyn fmt::Display| Failure::Nonsense(clean_text(&e.to_string()));
    match serde_json::from_str(body).map_err(|e| nonsense(&e))? {
        Told::Yes(yes) => {
            let yes = serde_json::from_value(yes).map_err(|e| nonsense(&e))?;
            check(&yes).map_err(|e| nonsense(&e))?;
            Ok(Answer::Yes(yes))
        }
        Told::Refuse(refusal) => {
            let refusal = serde_json::from_value(refusal).map_err(|e| nonsense(&e))?;
            Ok(Answer::Refuse(refusal))
        }
        Told::Fault(Fault { kind, text }) => Err(match kind {
            FaultKind::Raised => Failure::Raised(clean_text(&text)),
            FaultKind::Nonsense => Failure::Nonsense(clean_text(&text)),
            FaultKind::Closed => Failure::Closed,
        }),
    }
}
