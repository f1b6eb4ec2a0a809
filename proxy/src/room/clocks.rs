//! How long a request may wait: two clocks, of which one counts at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Who waits while no replica exists looks no more often than this whether one does.
const LOOK: Duration = Duration::from_secs(1);

/// Whether replicas exist, and since when; changed by whoever watches the cluster.
#[derive(Debug)]
pub struct Replicas {
    born: Instant,
    /// Milliseconds from `born` to the last change, twice, and one more when some exist.
    word: AtomicU64,
}

impl Replicas {
    /// None, from now on.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            word: AtomicU64::new(0),
        }
    }

    /// Says whether any exist. Wakes nobody: those who wait look when their timer rings.
    pub fn set(&self, exist: bool) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let changed =
            |word: u64| (word & 1 != u64::from(exist)).then_some(millis << 1 | u64::from(exist));
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, changed); // nothing to do when nothing changed
    }

    /// True while some exist.
    pub fn exist(&self) -> bool {
        self.word.load(Ordering::Acquire) & 1 == 1
    }

    /// Whether any exist, and since when, to the millisecond.
    pub fn since(&self) -> (bool, Instant) {
        let word = self.word.load(Ordering::Acquire);
        (word & 1 == 1, self.born + Duration::from_millis(word >> 1))
    }
}

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// While replicas exist, counted from when it came or they appeared, whichever is later.
    pub saturated: Duration,
    /// While none exists, counted from when it came.
    pub empty: Duration,
}

/// What a waiting request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It waits, and asks again then.
    Wait(Instant),
    /// It waited too long while replicas exist.
    Saturated,
    /// It waited too long while none does.
    Empty,
}

impl Clocks {
    /// What one that waits `since` then does `now`. However often replicas come and go, it waits no longer than both
    /// clocks together.
    pub fn due(&self, since: Instant, now: Instant, replicas: &Replicas) -> Due {
        let (exist, changed) = replicas.since();
        let empty = since + self.empty;
        if !exist {
            if now >= empty {
                return Due::Empty;
            }
            return Due::Wait(empty.min(now + self.saturated.max(LOOK))); // replicas may appear just now
        }
        let end = (since.max(changed) + self.saturated).min(empty + self.saturated);
        if now >= end {
            return Due::Saturated;
        }
        Due::Wait(if empty > now { end.min(empty) } else { end })
    }
}
