//! Tells when the sweeper has all that monitors gave up: for a moment an output is with neither, and counts nowhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Whoever counts money waits no longer than this; a store that takes more is about to fail.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Counts what monitors see, and how far the sweeper has what came of it.
pub struct HandOver {
    /// Odd while monitors look at a block: how much of it they have seen is not known then.
    seen: AtomicU64,
    done: watch::Sender<Option<u64>>,
}

impl Default for HandOver {
    fn default() -> Self {
        Self {
            seen: AtomicU64::new(0),
            done: watch::Sender::new(None),
        }
    }
}

impl HandOver {
    /// Monitors look at a block.
    pub fn during<T>(&self, look: impl FnOnce() -> T) -> T {
        self.seen.fetch_add(1, Ordering::SeqCst);
        let result = look();
        self.seen.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// What monitors have seen; to be taken before they are asked what they give up.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// All that they gave up until they had seen that much is with the sweeper.
    pub fn done(&self, seen: u64) {
        self.done.send_replace(Some(seen));
    }

    /// Whether nothing is on its way.
    pub fn is_done(&self) -> bool {
        let seen = self.seen();
        seen.is_multiple_of(2) && *self.done.borrow() == Some(seen)
    }

    /// What `count` finds while nothing is on its way; what it finds all the same if that takes too long.
    pub async fn quiet<T>(&self, patience: Duration, count: impl Fn() -> T) -> T {
        let mut done = self.done.subscribe();
        let in_time = tokio::time::timeout(patience, async {
            loop {
                let seen = self.seen();
                if self.is_done() {
                    let counted = count();
                    if self.seen() == seen {
                        return Some(counted);
                    }
                }
                done.changed().await.ok()?;
            }
        });
        match in_time.await {
            Ok(Some(counted)) => counted,
            Ok(None) | Err(_) => count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_is_waited_for() {
        let (over, place) = (HandOver::default(), std::sync::Mutex::new("monitor"));
        let put = |at| *crate::sync::lock(&place) = at;
        let look = |patience| over.quiet(patience, || *crate::sync::lock(&place));
        assert!(!over.is_done());
        over.done(over.seen());
        assert_eq!(look(PATIENCE).await, "monitor");

        over.during(|| put("nowhere"));
        assert!(!over.is_done());
        let sweep = async {
            let seen = over.seen();
            tokio::time::sleep(Duration::from_millis(1)).await;
            put("sweeper");
            over.done(seen);
        };
        assert_eq!(tokio::join!(look(PATIENCE), sweep).0, "sweeper");

        over.during(|| {
            over.done(over.seen());
            assert!(!over.is_done(), "half of a block");
        });
        let little = Duration::from_millis(1);
        assert_eq!(
            look(little).await,
            "sweeper",
            "nobody moves it: told as it is"
        );
    }
}
