//! The LSP's webhooks as a state machine: who has which, what is to be sent to each, in which order and how often.
//!
//! Nothing here knows of connections or clocks: every call says who is here and what time it is. What has changed in a way
//! that must survive is told by `true`; the caller stores the client's row then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::lsps5::{Listed, Notice, Registered, SetWebhook, Url};
use crate::reason::Reason;
use crate::time::Millis;

/// A client's registrations in an hour: each sends a request to an address of its choice.
pub const CHANGES_PER_HOUR: u32 = 30;
const HOUR_MS: u64 = 3_600_000;

/// How many webhooks there may be, and how they are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Webhooks of one client (W-06).
    pub max_webhooks: u32,
    /// Clients with webhooks.
    pub max_clients: u32,
    /// Of them, clients without a channel, as long as one has no order either.
    pub max_strangers: u32,
    /// The same notification is not sent again to a client that stays away within this time, ms (W-24).
    pub cooldown_ms: u64,
    /// Webhooks of a client without channels are kept for this time, ms; at least seven days (W-10).
    pub retention_ms: u64,
}

/// What a client is to us when it registers a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It has a channel.
    pub has_channel: bool,
    /// It has an order that is not over.
    pub has_order: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hook {
    url: String,
    /// `webhook_registered` was sent, or is given up (W-11).
    announced: bool,
    /// What waits to be sent, in this order.
    #[serde(skip)]
    line: VecDeque<Notice>,
}

/// All there is of one client; its serialised form is a row of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    hooks: BTreeMap<String, Hook>,
    /// Since when it has no channel, ms since 1970; absent while it has one.
    unused_since: Option<Millis>,
    /// When each method was last sent. Not stored: a restart cuts the connections, after which all may be sent again.
    #[serde(skip)]
    sent: BTreeMap<&'static str, Millis>,
    /// Registrations in the hour that began then.
    #[serde(skip)]
    changes: (Millis, u32),
    /// Webhooks at which somebody is.
    #[serde(skip)]
    busy: BTreeSet<String>,
}

/// Something to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Whose webhook.
    pub client: NodeId,
    /// Its name.
    pub app_name: String,
    /// Where to.
    pub url: Url,
    /// What.
    pub notice: Notice,
}

/// Whether it is too early to say once more what was said then (W-24).
fn is_recent(limits: &Limits, at: Millis, now: Millis) -> bool {
    // A clock that was set back must not silence anybody for long.
    now.0.abs_diff(at.0) < limits.cooldown_ms
}

/// Every client's webhooks.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    clients: BTreeMap<NodeId, Client>,
    last_stamp: Millis,
}

impl Client {
    /// Nothing that must be remembered.
    fn is_empty(&self, limits: &Limits, now: Millis) -> bool {
        // Who has just removed its webhooks is still counted, or removing would be a way around the limits; and so would it be
        // for who was called lately.
        self.hooks.is_empty()
            && self.busy.is_empty()
            && now.since(self.changes.0) >= HOUR_MS
            && !self.sent.values().any(|at| is_recent(limits, *at, now))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.hooks.len()).unwrap_or(u32::MAX)
    }
}

impl Webhooks {
    /// A client as it was stored. What was not announced then is announced now.
    pub fn restore(&mut self, id: NodeId, mut client: Client) {
        for hook in client.hooks.values_mut().filter(|hook| !hook.announced) {
            hook.line.push_back(Notice::WebhookRegistered);
        }
        self.clients.insert(id, client);
    }

    /// What is to be stored of a client; absent if nothing is.
    #[must_use]
    pub fn row(&self, id: &NodeId) -> Option<&Client> {
        self.clients.get(id).filter(|c| !c.hooks.is_empty())
    }

    /// Adds or replaces a webhook (W-05, W-06, W-08). The answer may leave once the client's row is stored (W-07).
    ///
    /// # Errors
    /// Why not.
    pub fn set(
        &mut self,
        limits: &Limits,
        id: &NodeId,
        wanted: &SetWebhook,
        standing: Standing,
        now: Millis,
    ) -> Result<Registered, Reason> {
        let known = self.clients.get(id);
        let hook = known.and_then(|client| client.hooks.get(&wanted.app_name));
        let count = known.map_or(0, Client::count);
        let answer = |num_webhooks, no_change| Registered {
            num_webhooks,
            max_webhooks: limits.max_webhooks,
            no_change,
        };
        if hook.is_some_and(|hook| hook.url == wanted.webhook.as_str()) {
            return Ok(answer(count, true));
        }
        if hook.is_none() && count >= limits.max_webhooks {
            return Err(Reason::TooManyWebhooks);
        }
        let (since, changes) = known.map_or((now, 0), |client| client.changes);
        let (since, changes) = if now.since(since) >= HOUR_MS {
            (now, 0)
        } else {
            (since, changes)
        };
        if changes >= CHANGES_PER_HOUR {
            return Err(Reason::WebhookChanges);
        }
        if known.is_none() {
            self.check_room(limits, standing)?;
        }
        let client = self.clients.entry(*id).or_default();
        client.changes = (since, changes.saturating_add(1));
        client.unused_since = (!standing.has_channel).then_some(now);
        let hook = Hook {
            url: wanted.webhook.as_str().to_owned(),
            announced: false,
            // What was meant for another address is not sent to this one.
            line: VecDeque::from([Notice::WebhookRegistered]),
        };
        client.hooks.insert(wanted.app_name.clone(), hook);
        Ok(answer(client.count(), false))
    }

    /// Whether one client more can be taken in: node ids cost nothing.
    fn check_room(&self, limits: &Limits, standing: Standing) -> Result<(), Reason> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let strangers = || {
            let strangers = self.clients.values().filter(|c| c.unused_since.is_some());
            count(strangers.count())
        };
        let is_stranger = !standing.has_channel && !standing.has_order;
        if count(self.clients.len()) >= limits.max_clients
            || (is_stranger && strangers() >= limits.max_strangers)
        {
            return Err(Reason::WebhookClients);
        }
        Ok(())
    }

    /// The names of a client's webhooks (W-12).
    #[must_use]
    pub fn list(&self, limits: &Limits, id: &NodeId) -> Listed {
        let names = self.clients.get(id).map(|c| c.hooks.keys().cloned());
        Listed {
            app_names: names.into_iter().flatten().collect(),
            max_webhooks: limits.max_webhooks,
        }
    }

    /// Removes a webhook; what waits for it is forgotten.
    ///
    /// # Errors
    /// There is none of this name (W-13).
    pub fn remove(&mut self, id: &NodeId, app_name: &str) -> Result<(), Reason> {
        let client = self.clients.get_mut(id);
        let removed = client.and_then(|client| client.hooks.remove(app_name));
        removed.map(drop).ok_or(Reason::UnknownWebhook)
    }

    /// Whether a client has a webhook.
    #[must_use]
    pub fn has(&self, id: &NodeId) -> bool {
        self.row(id).is_some()
    }

    /// Every client that has a webhook.
    pub fn clients(&self) -> impl Iterator<Item = &NodeId> {
        let having = self.clients.iter().filter(|(_, c)| !c.hooks.is_empty());
        having.map(|(id, _)| id)
    }

    /// How many webhooks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let each = self.clients.values().map(|client| client.hooks.len());
        each.fold(0, usize::saturating_add)
    }

    /// Something for a client that is not connected to know, over each of its webhooks (W-09, W-14). False if it has none,
    /// or was told so lately (W-24).
    pub fn notify(&mut self, limits: &Limits, id: &NodeId, notice: Notice, now: Millis) -> bool {
        let Some(client) = self.clients.get_mut(id).filter(|c| !c.hooks.is_empty()) else {
            return false;
        };
        let method = notice.method();
        let last = client.sent.get(method);
        if last.is_some_and(|at| is_recent(limits, *at, now)) {
            return false;
        }
        client.sent.insert(method, now);
        for hook in client.hooks.values_mut() {
            // One of a kind: the newest says all.
            hook.line.retain(|waiting| waiting.method() != method);
            hook.line.push_back(notice);
        }
        true
    }

    /// A client has come: what it was to be told it will see for itself.
    pub fn came_online(&mut self, id: &NodeId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        for hook in client.hooks.values_mut() {
            hook.line.retain(|n| *n == Notice::WebhookRegistered);
        }
    }

    /// A client that was here has gone: it may be told anything again (W-24).
    pub fn went_offline(&mut self, id: &NodeId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.sent.clear();
        }
    }

    /// Webhooks with something to send and nobody at it, who is at it from now on: each is to be asked for with
    /// [`Webhooks::next`] until there is no more.
    pub fn take_idle(&mut self, id: &NodeId) -> Vec<String> {
        let Some(client) = self.clients.get_mut(id) else {
            return Vec::new();
        };
        let idle: Vec<String> = client
            .hooks
            .iter()
            .filter(|(name, hook)| !hook.line.is_empty() && !client.busy.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        client.busy.extend(idle.iter().cloned());
        idle
    }

    /// The next thing to send to a webhook; `None` when there is no more, after which nobody is at it.
    pub fn next(&mut self, id: &NodeId, app_name: &str) -> Option<Post> {
        let client = self.clients.get_mut(id)?;
        let next = client.hooks.get_mut(app_name).and_then(|hook| {
            // A stored URL that could be read once can always be.
            let url = Url::parse(&hook.url).ok()?;
            Some((url, hook.line.pop_front()?))
        });
        if next.is_none() {
            client.busy.remove(app_name);
        }
        let (url, notice) = next?;
        Some(Post {
            client: *id,
            app_name: app_name.to_owned(),
            url,
            notice,
        })
    }

    /// Whether what is being sent is still wanted: not if the webhook was removed or replaced meanwhile.
    #[must_use]
    pub fn is_wanted(&self, post: &Post) -> bool {
        let client = self.clients.get(&post.client);
        let hook = client.and_then(|client| client.hooks.get(&post.app_name));
        hook.is_some_and(|hook| hook.url == post.url.as_str())
    }

    /// Something was sent, or given up: true if the client's row has changed by it.
    pub fn done(&mut self, post: &Post) -> bool {
        if post.notice != Notice::WebhookRegistered || !self.is_wanted(post) {
            return false;
        }
        let client = self.clients.get_mut(&post.client);
        let hook = client.and_then(|client| client.hooks.get_mut(&post.app_name));
        hook.is_some_and(|hook| !std::mem::replace(&mut hook.announced, true))
    }

    /// A time later than any before, for a signature: two notifications with one text would have one signature, and whoever
    /// guards against replays would drop the second.
    pub fn stamp(&mut self, now: Millis) -> Millis {
        self.last_stamp = now.max(self.last_stamp.saturating_add(1));
        self.last_stamp
    }

    /// Who has no channel any more, and who had none for too long (W-10): the clients whose rows have changed.
    pub fn review(
        &mut self,
        limits: &Limits,
        has_channel: impl Fn(&NodeId) -> bool,
        now: Millis,
    ) -> Vec<NodeId> {
        let mut changed = Vec::new();
        self.clients.retain(|id, client| {
            if has_channel(id) {
                if client.unused_since.take().is_some() && !client.hooks.is_empty() {
                    changed.push(*id);
                }
                return !client.is_empty(limits, now);
            }
            match client.unused_since {
                None => {
                    client.unused_since = Some(now);
                    if !client.hooks.is_empty() {
                        changed.push(*id);
                    }
                }
                Some(since) if now.since(since) >= limits.retention_ms => {
                    if !client.hooks.is_empty() {
                        changed.push(*id);
                    }
                    client.hooks.clear();
                }
                Some(_) => {}
            }
            !client.is_empty(limits, now)
        });
        changed
    }
}

/// Notifications seen of late, so that none is believed twice; for whoever receives them.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    until: BTreeMap<[u8; 32], Millis>,
    order: VecDeque<[u8; 32]>,
}

/// Notifications that are remembered; with more the oldest are forgotten. Only what the LSP has signed is.
pub const MAX_SEEN: usize = 100_000;

impl Seen {
    /// Remembers a notification by a digest of whatever tells it apart; false if it was there. `until` is when it would be
    /// too old to be believed anyway.
    pub fn first_time(&mut self, digest: [u8; 32], until: Millis, now: Millis) -> bool {
        while let Some(oldest) = self.order.front() {
            let over = self.until.get(oldest).is_none_or(|until| *until < now);
            if !over && self.order.len() < MAX_SEEN {
                break;
            }
            self.until.remove(oldest);
            self.order.pop_front();
        }
        if self.until.contains_key(&digest) {
            return false;
        }
        self.until.insert(digest, until);
        self.order.push_back(digest);
        true
    }
}
