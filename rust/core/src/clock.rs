//! Whether this machine's clock can be right: judged by the blocks, and by its own steps.

use crate::time::Millis;

/// So far ahead of the network's time a block's own may be (consensus).
const BLOCK_AHEAD_MS: u64 = 7_200_000;
/// A median of block times is in the past, but for so much on chains whose blocks are made at will.
const MEDIAN_AHEAD_MS: u64 = 600_000;
/// Blocks whose median time is judged (BIP 113).
pub const MEDIAN_OF: usize = 11;
/// Without a block for so long something is wrong: it happens by chance once in three years.
const NO_BLOCK_MS: u64 = 7_200_000;
/// A clock that goes another way than time does, by this much, was set.
const JUMP_MS: u64 = 10_000;

/// What is wrong with a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// It is behind the blocks by at least so much, ms.
    Behind(u64),
    /// It was set forward (or stood still) by so much, ms.
    Forward(u64),
    /// It was set back by so much, ms.
    Back(u64),
}

/// Whether `now` is behind what the times of the latest blocks allow, in s since 1970, the newest last.
#[must_use]
pub fn against_blocks(now: Millis, block_times: &[u32]) -> Option<Skew> {
    let ms = |time: u32| u64::from(time).saturating_mul(1_000);
    let newest = block_times.last().map(|time| (ms(*time), BLOCK_AHEAD_MS));
    let from = block_times.len().checked_sub(MEDIAN_OF);
    let median = from.and_then(|from| {
        let mut sorted = block_times.get(from..)?.to_vec();
        sorted.sort_unstable();
        let middle = sorted.get(MEDIAN_OF.div_euclid(2))?;
        Some((ms(*middle), MEDIAN_AHEAD_MS))
    });
    newest
        .into_iter()
        .chain(median)
        .filter(|(time, ahead)| *time > now.0.saturating_add(*ahead))
        .map(|(time, _)| Skew::Behind(time.saturating_sub(now.0)))
        .max_by_key(|skew| match skew {
            Skew::Behind(ms) | Skew::Forward(ms) | Skew::Back(ms) => *ms,
        })
}

/// Whether blocks should have come since the last one did: the chain source lags, or the network does.
#[must_use]
pub fn is_without_blocks(last_came: Millis, now: Millis) -> bool {
    now.since(last_came) >= NO_BLOCK_MS
}

/// Whether the clock was set between two looks that lie `elapsed_ms` apart.
#[must_use]
pub fn against_itself(before: Millis, now: Millis, elapsed_ms: u64) -> Option<Skew> {
    let expected = before.saturating_add(elapsed_ms);
    let (forward, back) = (now.since(expected), expected.since(now));
    if forward >= JUMP_MS {
        Some(Skew::Forward(forward))
    } else if back >= JUMP_MS {
        Some(Skew::Back(back))
    } else {
        None
    }
}
