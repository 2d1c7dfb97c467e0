//! Log records: bounded, escaped, handed on without waiting.

use lightning::util::logger::{Level, Logger, Record as LdkRecord};
use serde::Serialize;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::lock;

/// No message is longer. Peers choose parts of what is logged.
pub const MAX_MESSAGE: usize = 2048;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// `ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE` or `GOSSIP`.
    pub level: &'static str,
    /// The Rust module that speaks.
    pub target: String,
    /// One line, no control characters, at most [`MAX_MESSAGE`] bytes.
    pub message: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// Takes a record; answers `false` when its queue is full. Must not block.
pub type Sink = Arc<dyn Fn(Record) -> bool + Send + Sync>;

/// LDK's logger and ours.
pub struct Log {
    level: AtomicU8,
    dropped: AtomicU64,
    sink: Sink,
}

impl Log {
    /// Records of `level` and above go to `sink`.
    pub fn new(level: Level, sink: Sink) -> Self {
        Self {
            level: AtomicU8::new(rank(level)),
            dropped: AtomicU64::new(0),
            sink,
        }
    }

    /// A logger that says nothing, for tests and tools.
    pub fn silent() -> Arc<Self> {
        Arc::new(Self::new(Level::Error, Arc::new(|_| true)))
    }

    /// Changes the level from now on.
    pub fn set_level(&self, level: Level) {
        self.level.store(rank(level), Ordering::Relaxed);
    }

    /// How many records the sink refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether a record of this level would be written.
    pub fn enabled(&self, level: Level) -> bool {
        rank(level) >= self.level.load(Ordering::Relaxed)
    }

    /// Writes one record.
    pub fn write(&self, level: Level, target: &str, args: fmt::Arguments<'_>) {
        if !self.enabled(level) {
            return;
        }
        let mut message = Bounded(String::new());
        // The only error is our own "full", after which the text is complete as far as it goes.
        let _ = message.write_fmt(args);
        let record = Record {
            level: name(level),
            target: target.to_owned(),
            message: message.0,
            at_ms: now_ms(),
        };
        if !(self.sink)(record) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A defect, or the node stops.
    pub fn error(&self, target: &str, args: fmt::Arguments<'_>) {
        self.write(Level::Error, target, args);
    }

    /// The operator should know.
    pub fn warn(&self, target: &str, args: fmt::Arguments<'_>) {
        self.write(Level::Warn, target, args);
    }

    /// Something of interest happened.
    pub fn info(&self, target: &str, args: fmt::Arguments<'_>) {
        self.write(Level::Info, target, args);
    }

    /// For whoever looks for a fault.
    pub fn debug(&self, target: &str, args: fmt::Arguments<'_>) {
        self.write(Level::Debug, target, args);
    }
}

/// What strangers can cause as often as they like: said once in ten seconds, with how often it was left unsaid.
#[derive(Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(10);

    /// Writes a warning, or counts it.
    pub fn warn(&self, log: &Log, target: &str, args: fmt::Arguments<'_>) {
        let unsaid = {
            let mut state = lock(&self.0);
            if state.0.is_some_and(|said| said.elapsed() < Self::PAUSE) {
                state.1 = state.1.saturating_add(1);
                return;
            }
            state.0 = Some(Instant::now());
            std::mem::take(&mut state.1)
        };
        match unsaid {
            0 => log.warn(target, args),
            n => log.warn(target, format_args!("{args} ({n} like it before)")),
        }
    }
}

impl Logger for Log {
    fn log(&self, record: LdkRecord<'_>) {
        if !self.enabled(record.level) {
            return;
        }
        match (record.channel_id, record.peer_id) {
            (Some(channel), _) => self.write(
                record.level,
                record.module_path,
                format_args!("{} [channel {}]", record.args, channel),
            ),
            (None, Some(peer)) => self.write(
                record.level,
                record.module_path,
                format_args!("{} [peer {}]", record.args, peer),
            ),
            (None, None) => self.write(record.level, record.module_path, record.args),
        }
    }
}

/// The level named by a configuration.
pub fn parse_level(text: &str) -> Option<Level> {
    match text.to_ascii_lowercase().as_str() {
        "gossip" => Some(Level::Gossip),
        "trace" => Some(Level::Trace),
        "debug" => Some(Level::Debug),
        "info" => Some(Level::Info),
        "warn" | "warning" => Some(Level::Warn),
        "error" => Some(Level::Error),
        _ => None,
    }
}

/// Milliseconds since 1970; 0 if the clock stands before.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn rank(level: Level) -> u8 {
    match level {
        Level::Gossip => 0,
        Level::Trace => 1,
        Level::Debug => 2,
        Level::Info => 3,
        Level::Warn => 4,
        Level::Error => 5,
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Gossip => "GOSSIP",
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

/// Escapes and cuts while it is written to, so that a huge argument is never held whole.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let room = MAX_MESSAGE.saturating_sub(self.0.len());
            if unsafe_to_show(c) {
                // The longest escape is \u{10ffff}.
                if room < 13 {
                    return self.cut();
                }
                self.0.extend(c.escape_default());
            } else {
                if room < c.len_utf8().saturating_add(3) {
                    return self.cut();
                }
                self.0.push(c);
            }
        }
        Ok(())
    }
}

impl Bounded {
    fn cut(&mut self) -> fmt::Result {
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// Control characters, and the marks that reorder text on a terminal.
fn unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn capture(level: Level) -> (Log, Arc<Mutex<Vec<Record>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let sink: Sink = Arc::new(move |record| {
            let mut seen = into.lock().unwrap();
            let room = seen.len() < 3;
            if room {
                seen.push(record);
            }
            room
        });
        (Log::new(level, sink), seen)
    }

    #[test]
    fn filters_escapes_bounds_and_counts() {
        let (log, seen) = capture(Level::Info);
        log.debug("t", format_args!("unseen"));
        log.info("t", format_args!("a\nb\u{1b}[31m\u{202e}"));
        log.warn("t", format_args!("{}", "é".repeat(5000)));
        log.error("t", format_args!("{}", "\n".repeat(5000)));
        log.error("t", format_args!("dropped"));
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].message, "a\\nb\\u{1b}[31m\\u{202e}");
        for record in seen.iter() {
            assert!(
                record.message.len() <= MAX_MESSAGE,
                "{}",
                record.message.len()
            );
            assert!(!record.message.chars().any(char::is_control));
        }
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn what_strangers_cause_is_said_once_and_counted() {
        let (log, seen) = capture(Level::Info);
        let seldom = Seldom::default();
        for n in 0..5 {
            seldom.warn(&log, "t", format_args!("{n}"));
        }
        let long_ago = Instant::now().checked_sub(Seldom::PAUSE);
        lock(&seldom.0).0 = long_ago;
        seldom.warn(&log, "t", format_args!("5"));
        let seen = seen.lock().unwrap();
        let said: Vec<_> = seen.iter().map(|r| r.message.as_str()).collect();
        assert_eq!(said, ["0", "5 (4 like it before)"]);
    }

    #[test]
    fn levels_are_parsed() {
        assert_eq!(parse_level("Warning"), Some(Level::Warn));
        assert_eq!(parse_level("loud"), None);
    }
}
