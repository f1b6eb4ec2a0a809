//! How long starts take here, learned from those that were seen.

use std::collections::VecDeque;
use std::time::Duration;

/// So many starts are remembered.
const REMEMBERED: usize = 20;

/// What `Retry-After` may say, seconds.
const HINT: std::ops::RangeInclusive<u64> = 1..=60;

/// The last starts that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    last: VecDeque<Duration>,
    count: u64,
    total: Duration,
}

impl Starts {
    /// A start took this long.
    pub fn learn(&mut self, took: Duration) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(took);
        self.count += 1;
        self.total = self.total.saturating_add(took);
    }

    /// The latest one.
    pub fn latest(&self) -> Option<Duration> {
        self.last.back().copied()
    }

    /// How many were seen, and how long they took together.
    pub fn totals(&self) -> (u64, Duration) {
        (self.count, self.total)
    }

    /// What this part of the last 20 starts did not exceed; `None`: there was none.
    ///
    /// * `part`: 0 … 1, such as 0.95
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    /// What 95 of 100 starts do not exceed, by the last 20; `None`: there was none.
    pub fn p95(&self) -> Option<Duration> {
        self.quantile(0.95)
    }
}

/// What `Retry-After` says when something can be expected after `wait`: 1 … 60 s.
pub fn hint(wait: Duration) -> u64 {
    let up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    up.clamp(*HINT.start(), *HINT.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_twenty_starts_count() {
        let mut starts = Starts::default();
        assert_eq!((starts.p95(), starts.latest()), (None, None));
        starts.learn(Duration::from_secs(900));
        assert_eq!(starts.p95(), Some(Duration::from_secs(900)));
        (1..=20).for_each(|second| starts.learn(Duration::from_secs(second)));
        assert_eq!(starts.p95(), Some(Duration::from_secs(19)));
        assert_eq!(starts.quantile(0.5), Some(Duration::from_secs(10)));
        assert_eq!(starts.latest(), Some(Duration::from_secs(20)));
        assert_eq!(starts.totals(), (21, Duration::from_secs(900 + 210)));
    }

    #[test]
    fn hints_are_whole_seconds_in_bounds() {
        let of = |millis| hint(Duration::from_millis(millis));
        assert_eq!([of(0), of(1001), of(7000), of(600_000)], [1, 2, 7, 60]);
    }
}
