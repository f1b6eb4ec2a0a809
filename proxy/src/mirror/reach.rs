//! Whether a mirror is worth a connection: one that cannot be reached costs a socket for every copy.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Copies in a row that reached nobody, after which only few are tried.
const FEW: u32 = 3;
/// How often one is tried then.
const EVERY: Duration = Duration::from_millis(100);

/// What the last copies found at the other end.
#[derive(Debug)]
pub(super) struct Reach {
    born: Instant,
    /// Copies in a row that opened a connection for nothing.
    failures: AtomicU32,
    /// When the next one may be tried, in ms since `born`.
    next: AtomicU64,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            failures: AtomicU32::new(0),
            next: AtomicU64::new(0),
        }
    }
}

impl Reach {
    /// True when a copy may be sent at `now`. While nobody is reached that is one in 100 ms, over all workers.
    pub(super) fn admits(&self, now: Instant) -> bool {
        if self.failures.load(Ordering::Relaxed) < FEW {
            return true;
        }
        let next = self.next.load(Ordering::Relaxed);
        let now = millis(now.saturating_duration_since(self.born));
        now >= next && {
            let (orders, nothing) = (Ordering::Relaxed, Ordering::Relaxed); // one number, no other memory
            let later = now + millis(EVERY);
            self.next
                .compare_exchange(next, later, orders, nothing)
                .is_ok()
        }
    }

    /// A copy was answered.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A copy ended at `now` without an answer on a connection that was opened for it, or without a connection.
    pub(super) fn failed(&self, now: Instant) {
        let more = |failures: u32| Some(failures.saturating_add(1));
        let _ = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let later = now.saturating_duration_since(self.born) + EVERY;
        self.next.fetch_max(millis(later), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_three_failures_in_a_row_one_copy_in_100_ms_is_tried() {
        let reach = Reach::default();
        let start = Instant::now();
        for _ in 0..FEW {
            assert!(reach.admits(start));
            reach.failed(start);
        }
        let tried = |from: u64, to: u64| {
            let moments = (from..to).map(|ms| start + Duration::from_millis(ms));
            moments.filter(|&now| reach.admits(now)).count()
        };
        assert_eq!(tried(0, 100), 0);
        assert_eq!(tried(102, 1002), 9);
        reach.answered();
        assert_eq!(tried(1002, 1012), 10);
    }

    #[test]
    fn failures_between_answers_do_not_count() {
        let reach = Reach::default();
        let now = Instant::now();
        for _ in 0..10 {
            reach.failed(now);
            reach.failed(now);
            assert!(reach.admits(now));
            reach.answered();
        }
    }
}
