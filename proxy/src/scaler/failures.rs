//! What failed starts mean for the next one.

use std::time::Duration;

use super::step::Sample;

/// How long after the first failed start the next one waits; doubles with each.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// After so many in a row whoever waits is told.
const HOPELESS: u32 = 3;

/// The failed starts since the last one that succeeded.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// As the driver counts, which may forget them when nothing is wanted.
    told: u32,
    in_a_row: u32,
    until: Option<Duration>,
    /// Nothing is tried until somebody asks again.
    resting: bool,
    arrivals: u64,
}

impl Failures {
    /// Takes in what the driver counts and whether somebody asks.
    ///
    pub(super) fn observe(&mut self, sample: &Sample, now: Duration) {
        let told = sample.failed_in_a_row;
        if told == 0 && sample.ready > 0 {
            *self = Self::default();
            return;
        }
        if told > self.told {
            self.in_a_row = self.in_a_row.saturating_add(told - self.told);
            self.until = Some(now + backoff(self.in_a_row));
            self.resting = self.in_a_row >= HOPELESS;
        }
        self.told = told;
        if self.is_backing_off(now) {
            self.arrivals = sample.arrivals; // they are answered at once
        } else if sample.waiting > 0 || sample.arrivals > self.arrivals {
            self.resting = false;
        }
    }

    /// Forgets them; those that the driver still counts are not new.
    pub(super) fn forgive(&mut self) {
        *self = Self {
            told: self.told,
            ..Self::default()
        };
    }

    /// True while nothing may be started.
    pub(super) fn is_backing_off(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When something may be started again; `None`: now.
    pub(super) fn over(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|&until| now < until)
    }

    /// True when requests have no reason to wait.
    pub(super) fn are_hopeless(&self, now: Duration) -> bool {
        self.in_a_row >= HOPELESS && self.is_backing_off(now)
    }

    /// True after 3 failures in a row while nobody has asked since the back-off ended.
    pub(super) fn are_resting(&self) -> bool {
        self.resting
    }
}

fn backoff(in_a_row: u32) -> Duration {
    let doubled = 1u32
        .checked_shl(in_a_row.saturating_sub(1))
        .unwrap_or(u32::MAX);
    BACKOFF.saturating_mul(doubled.max(1)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_a_minute() {
        let of = |in_a_row| backoff(in_a_row).as_secs();
        assert_eq!([1, 2, 3, 6, 7].map(of), [1, 2, 4, 32, 60]);
        assert_eq!([33, u32::MAX].map(of), [60, 60]);
    }

    fn seen(failed_in_a_row: u32, arrivals: u64, waiting: u32) -> Sample {
        Sample {
            failed_in_a_row,
            arrivals,
            waiting,
            ..Sample::default()
        }
    }

    #[test]
    fn three_failures_rest_until_somebody_asks() {
        let at = Duration::from_secs;
        let mut failures = Failures::default();
        failures.observe(&seen(2, 5, 1), at(10));
        assert!(failures.is_backing_off(at(11)) && !failures.are_hopeless(at(11)));
        assert_eq!(failures.over(at(11)), Some(at(12)));
        failures.observe(&seen(3, 5, 1), at(12));
        assert!(failures.are_hopeless(at(15)) && failures.are_resting());
        failures.observe(&seen(3, 7, 0), at(15));
        failures.observe(&seen(3, 7, 0), at(17));
        assert!(!failures.are_hopeless(at(17)) && failures.are_resting());
        failures.observe(&seen(3, 8, 1), at(18));
        assert!(!failures.are_resting() && failures.over(at(18)).is_none());
        failures.observe(&seen(4, 8, 1), at(19));
        assert!(failures.are_hopeless(at(26)) && failures.are_resting());
        let ready = Sample {
            ready: 1,
            ..seen(0, 8, 0)
        };
        failures.observe(&ready, at(20));
        assert!(!failures.are_hopeless(at(20)) && !failures.are_resting());
    }

    #[test]
    fn a_driver_that_forgets_failures_is_not_believed() {
        let at = Duration::from_secs;
        let mut failures = Failures::default();
        for round in 0..3 {
            failures.observe(&seen(1, 1, 1), at(10 * round));
            failures.observe(&seen(0, 1, 1), at(10 * round));
        }
        assert!(failures.are_hopeless(at(23)));
        assert_eq!(failures.over(at(23)), Some(at(24)));
        failures.observe(&seen(1, 1, 1), at(30));
        failures.forgive();
        failures.observe(&seen(1, 1, 1), at(30));
        assert!(!failures.is_backing_off(at(30)) && !failures.are_resting());
    }
}
