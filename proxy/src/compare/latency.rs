//! Latencies, summed up in a fixed size.

use serde_json::{Value, json};

/// The lower bound of the first bucket, seconds; what is below is in it as well.
const LEAST: f64 = 1e-4;
/// Buckets per doubling: a quantile is at most 4.5 % off.
const PER_DOUBLING: f64 = 8.0;
/// Up to 1677 seconds; what is above is in the last one.
const BUCKETS: usize = 24 * PER_DOUBLING as usize;

/// How many there were, their sum and a histogram with buckets that grow evenly.
#[derive(Debug)]
pub(super) struct Latency {
    count: u64,
    sum: f64,
    least: f64,
    most: f64,
    buckets: [u64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            least: f64::INFINITY,
            most: 0.0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Latency {
    /// Adds one, in seconds; what is not a number or negative counts as 0.
    pub(super) fn add(&mut self, seconds: f64) {
        let seconds = seconds.clamp(0.0, 1e9);
        let seconds = if seconds.is_nan() { 0.0 } else { seconds };
        self.count += 1;
        self.sum += seconds;
        self.least = self.least.min(seconds);
        self.most = self.most.max(seconds);
        // A cast from a negative float is 0.
        let bucket = ((seconds / LEAST).log2() * PER_DOUBLING) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Seconds. `None`: there were none.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The latency that `share` of all are at or below, seconds. `None`: there were none.
    fn quantile(&self, share: f64) -> Option<f64> {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        let middle = LEAST * ((bucket as f64 + 0.5) / PER_DOUBLING).exp2();
        Some(middle.clamp(self.least, self.most))
    }

    /// Mean, median and 99th percentile, seconds; `null`: there were none.
    pub(super) fn describe(&self) -> Value {
        json!({"mean": self.mean(), "p50": self.quantile(0.5), "p99": self.quantile(0.99)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near() {
        let mut latency = Latency::default();
        assert_eq!(
            latency.describe(),
            json!({"mean": null, "p50": null, "p99": null})
        );
        for millis in 1..=1000 {
            latency.add(f64::from(millis) / 1000.0);
        }
        let near = |is: Option<f64>, want: f64| (is.unwrap() / want - 1.0).abs() < 0.05;
        assert!(near(latency.mean(), 0.5005));
        assert!(near(latency.quantile(0.5), 0.5) && near(latency.quantile(0.99), 0.99));
        assert_eq!(latency.quantile(1.0), Some(1.0));
    }

    #[test]
    fn one_is_exact_and_extremes_have_a_place() {
        for seconds in [0.0, 1e-9, 0.25, 1e5] {
            let mut latency = Latency::default();
            latency.add(seconds);
            assert_eq!(
                latency.describe(),
                json!({"mean": seconds, "p50": seconds, "p99": seconds})
            );
        }
        let mut latency = Latency::default();
        for seconds in [f64::NAN, -1.0, f64::INFINITY] {
            latency.add(seconds);
        }
        assert!(latency.quantile(0.5).unwrap() < 2.0 * LEAST);
    }
}
