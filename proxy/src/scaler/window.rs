//! Averages over the last seconds, in buckets of one second.

use std::collections::VecDeque;
use std::time::Duration;

/// Averages cover at least so much, so that a single request is no rate of thousands.
const SHORTEST: f64 = 1.0;

/// A value over time. Times count from any one moment and never go back.
///
/// As with Knative a value that was nothing for as long as anything is remembered starts anew: the average of a burst
/// after silence is that of the burst, not of the silence.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Value × seconds in each second; the last is that of `until`.
    seconds: VecDeque<f64>,
    /// Most buckets.
    keep: usize,
    /// Where averages begin at the earliest.
    since: Duration,
    /// Everything before is known.
    until: Duration,
}

impl Window {
    /// Remembers `keep` seconds, at least one. Before `now` there was nothing.
    pub(super) fn new(keep: usize, now: Duration) -> Self {
        Self {
            seconds: VecDeque::from([0.0]),
            keep: keep.max(1),
            since: now,
            until: now,
        }
    }

    /// Remembers so many seconds from now on.
    pub(super) fn keep(&mut self, keep: usize) {
        self.keep = keep.max(1);
        self.trim();
    }

    /// The value was this since the last call, until `now`.
    pub(super) fn hold(&mut self, value: f64, now: Duration) {
        if value > 0.0 && self.seconds.iter().all(|&sum| sum == 0.0) {
            self.since = self.until;
        }
        // What is trimmed anyway is not filled in first.
        let oldest = now.saturating_sub(Duration::from_secs(self.keep as u64));
        let mut from = self.until;
        if from < oldest {
            self.seconds.clear();
            self.seconds.push_back(0.0);
            from = Duration::from_secs(oldest.as_secs());
        }
        while from < now {
            let next = Duration::from_secs(from.as_secs() + 1);
            let to = next.min(now);
            if let Some(sum) = self.seconds.back_mut() {
                *sum += value * (to - from).as_secs_f64();
            }
            if to == next {
                self.seconds.push_back(0.0);
                self.trim();
            }
            from = to;
        }
        self.until = self.until.max(now);
    }

    /// The average over the last `window`, which is rounded up to seconds; over less while less is known, but no less
    /// than a second.
    pub(super) fn average(&self, window: Duration) -> f64 {
        let count = (window.as_secs_f64().ceil() as usize).clamp(1, self.seconds.len());
        let sum: f64 = self.seconds.iter().rev().take(count).sum();
        let first = (self.until.as_secs() + 1).saturating_sub(count as u64);
        let begin = Duration::from_secs(first).max(self.since);
        sum / self.until.saturating_sub(begin).as_secs_f64().max(SHORTEST)
    }

    /// True when so little is known that an average says nothing yet.
    pub(super) fn is_young(&self) -> bool {
        self.until.saturating_sub(self.since).as_secs_f64() < SHORTEST
    }

    /// The averages of the whole seconds within the last `window`, oldest first.
    pub(super) fn whole_seconds(&self, window: Duration) -> Vec<f64> {
        let last = self.until.as_secs(); // not whole yet
        let begin = self
            .until
            .saturating_sub(window)
            .max(self.since)
            .as_secs_f64()
            .ceil() as u64;
        let count = usize::try_from(last.saturating_sub(begin)).unwrap_or(0);
        let known = self.seconds.len() - 1;
        let skipped = known - count.min(known);
        let whole = self.seconds.iter().take(known).skip(skipped);
        whole.copied().collect()
    }

    fn trim(&mut self) {
        while self.seconds.len() > self.keep + 1 {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn averages_weigh_by_time() {
        let mut window = Window::new(60, at(100.0));
        window.hold(4.0, at(101.0));
        window.hold(0.0, at(102.5));
        window.hold(2.0, at(104.0));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(window.average(at(60.0)), 7.0 / 4.0);
        window.hold(2.0, at(104.5));
        close(window.average(at(2.0)), 2.0);
        close(window.average(at(3.0)), (1.0 + 2.0 + 1.0) / 2.5);
        assert_eq!(window.whole_seconds(at(60.0)), [4.0, 0.0, 1.0, 2.0]);
        assert_eq!(window.whole_seconds(at(2.0)), [2.0]);
    }

    #[test]
    fn a_burst_after_silence_is_not_watered_down() {
        let mut window = Window::new(60, at(0.0));
        window.hold(0.0, at(1000.0));
        window.hold(10.0, at(1002.0));
        assert!((window.average(at(60.0)) - 10.0).abs() < 1e-9);
        window.hold(0.0, at(1004.0));
        assert!((window.average(at(60.0)) - 5.0).abs() < 1e-9);
        window.hold(0.0, at(1_000_000.0));
        assert_eq!(window.average(at(60.0)), 0.0);
        window.hold(3.0, at(1_000_000.25));
        assert!(window.is_young());
        assert!((window.average(at(60.0)) - 0.75).abs() < 1e-9);
        assert_eq!(window.whole_seconds(at(60.0)), [] as [f64; 0]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut window = Window::new(6, at(0.0));
        for second in 1..1000 {
            window.hold(1.0, at(f64::from(second)));
            assert!(window.seconds.len() <= 7);
        }
        window.hold(1.0, at(1e6));
        assert!((window.average(at(6.0)) - 1.0).abs() < 1e-9);
        window.keep(2);
        assert_eq!(window.seconds.len(), 3);
        assert!((window.average(at(60.0)) - 1.0).abs() < 1e-9);
    }
}
