//! How long to wait before a server that failed is started again.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A server that was ready for so long has shown that it works.
const PROVEN: Duration = Duration::from_secs(60);

/// The pauses of one cluster: 1 s, doubled by each failure up to 60 s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// A start or a running server failed after it was ready for `ready`, zero if it never was.
    pub(super) fn failed(&mut self, ready: Duration, now: Instant) {
        if ready >= PROVEN {
            self.failures = 0;
        }
        let pause = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }

    /// The command is another one: what failed says nothing about it.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns when the next start is allowed; `None`: now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute_and_start_over_after_a_minute_of_service() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.failed(Duration::ZERO, now);
            assert_eq!(backoff.until(now), Some(now + Duration::from_secs(seconds)));
        }
        backoff.failed(Duration::from_secs(59), now);
        assert_eq!(backoff.until(now), Some(now + LONGEST));
        backoff.failed(PROVEN, now);
        assert_eq!(backoff.until(now), Some(now + FIRST));
        assert_eq!(backoff.until(now + FIRST), None);
        backoff.reset();
        assert_eq!(backoff.until(now), None);
    }
}
