//! Buckets of the generic cell rate algorithm by key: bounded in number, alive over reloads.
//!
//! A bucket is one time, the moment at which it will be full again, beside the depth it was written with. Whoever
//! finds another depth than its own scales what is used in proportion, so a changed limit needs no conversion and two
//! generations may share buckets. All times are ticks since one moment of the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use forebay_config::units::Rate;

/// Most keys of one limit.
pub const MAX_KEYS: usize = 100_000;

const SHARDS: usize = 16;
/// 1/64 ns: fine enough for a million requests a second within 0.002 %, and nine years fit.
const TICKS_PER_NANO: u64 = 64;
/// Time between two searches for full buckets in one shard.
const SWEEP_GAP: u64 = 20_000_000 * TICKS_PER_NANO;

/// A key, hashed under a secret of the process.
pub type KeyHash = u128;

/// Hashes a key. What is not equal is not equal here either, as far as anybody outside can tell.
pub fn hash_key(key: &[u8]) -> KeyHash {
    static SECRET: OnceLock<u64> = OnceLock::new();
    xxhash_rust::xxh3::xxh3_128_with_seed(key, *SECRET.get_or_init(|| fastrand::u64(..)))
}

/// Ticks since the process's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u64);

impl Ticks {
    /// Reads a time of the one clock that all buckets share.
    pub fn at(now: Instant) -> Self {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        Self::of(now.saturating_duration_since(*EPOCH.get_or_init(Instant::now)))
    }

    fn of(duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(nanos.saturating_mul(TICKS_PER_NANO))
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}

/// How fast a bucket refills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Ticks that one request costs.
    interval: u64,
    /// Ticks that a whole bucket is worth.
    depth: u64,
    since: u64,
}

impl Pace {
    /// * `burst`: requests that a full bucket admits at once; 0 counts as 1
    /// * `since`: when it came into force: until then buckets refilled at the pace they were written with
    pub fn new(rate: Rate, burst: u64, since: Ticks) -> Self {
        let period = u128::from(Ticks::of(rate.period).0) * 1000;
        let interval = period.div_ceil(u128::from(rate.thousandths.max(1)));
        let interval = u64::try_from(interval)
            .unwrap_or(u64::MAX)
            .clamp(1, u64::MAX / 8);
        let depth = interval.saturating_mul(burst.max(1)).min(u64::MAX / 4);
        Self {
            interval,
            depth,
            since: since.0,
        }
    }
}

/// What a bucket says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took its share.
    Admitted,
    /// Not before this time has passed.
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: u64,
    depth: u64,
}

impl Bucket {
    fn take(&mut self, pace: Pace, Ticks(now): Ticks) -> Verdict {
        let used = self.used(pace, now).saturating_add(pace.interval);
        if used > pace.depth {
            return Verdict::Wait(duration(used - pace.depth));
        }
        *self = Self {
            full_at: now.saturating_add(used),
            depth: pace.depth,
        };
        Verdict::Admitted
    }

    fn give_back(&mut self, pace: Pace, Ticks(now): Ticks) {
        let used = self.used(pace, now).saturating_sub(pace.interval);
        *self = Self {
            full_at: now.saturating_add(used),
            depth: pace.depth,
        };
    }

    /// What is missing for the bucket to be full, in ticks of `pace`.
    fn used(&self, pace: Pace, now: u64) -> u64 {
        if self.depth == pace.depth || self.depth == 0 {
            return self.full_at.saturating_sub(now);
        }
        // Written before the pace changed it is converted as of then; by another generation since, as of now.
        let before = self.full_at.saturating_sub(self.depth) <= pace.since;
        let moment = if before { pace.since.min(now) } else { now };
        let used = u128::from(self.full_at.saturating_sub(moment));
        let scaled = (used * u128::from(pace.depth)).div_ceil(u128::from(self.depth));
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
        moment.saturating_add(scaled).saturating_sub(now)
    }
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<KeyHash, Bucket, RandomState>,
    swept: u64,
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    shards: [Mutex<Shard>; SHARDS],
    /// For keys that find no room: one bucket for all of them.
    overflow: Mutex<Bucket>,
    room: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::with_room(MAX_KEYS)
    }
}

impl Buckets {
    fn with_room(keys: usize) -> Self {
        Self {
            shards: Default::default(),
            overflow: Mutex::default(),
            room: keys / SHARDS,
        }
    }

    /// Takes one request's share out of a key's bucket.
    pub fn take(&self, key: KeyHash, pace: Pace, now: Ticks) -> Verdict {
        let mut shard = lock(self.shard(key));
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            return bucket.take(pace, now);
        }
        if shard.buckets.len() >= self.room && !shard.sweep(now.0, self.room) {
            drop(shard);
            return lock(&self.overflow).take(pace, now);
        }
        shard.buckets.entry(key).or_default().take(pace, now)
    }

    /// Returns what [`take`](Self::take) took, since something else refused the request.
    pub fn give_back(&self, key: KeyHash, pace: Pace, now: Ticks) {
        if let Some(bucket) = lock(self.shard(key)).buckets.get_mut(&key) {
            bucket.give_back(pace, now);
        }
    }

    /// Keys that have a bucket now.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).buckets.len())
            .sum()
    }

    /// True when no key has a bucket.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: KeyHash) -> &Mutex<Shard> {
        &self.shards[(key >> 124) as usize % SHARDS]
    }
}

impl Shard {
    /// Forgets buckets that are full, which a new one would be as well; `true`: there is room now.
    fn sweep(&mut self, now: u64, room: usize) -> bool {
        if now >= self.swept.saturating_add(SWEEP_GAP) {
            self.swept = now;
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        self.buckets.len() < room
    }
}

/// Locks; a panic of another holder leaves a bucket as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn per_second(requests: u64) -> Rate {
        Rate {
            thousandths: requests * 1000,
            period: Duration::from_secs(1),
        }
    }

    fn pace(rate: u64, burst: u64) -> Pace {
        Pace::new(per_second(rate), burst, Ticks(0))
    }

    fn at(millis: u64) -> Ticks {
        Ticks::of(Duration::from_millis(1_000_000 + millis))
    }

    fn admitted(buckets: &Buckets, key: KeyHash, pace: Pace, now: Ticks) -> usize {
        (0..10_000)
            .take_while(|_| buckets.take(key, pace, now) == Verdict::Admitted)
            .count()
    }

    #[test]
    fn a_bucket_admits_its_burst_and_then_its_rate() {
        let (buckets, pace) = (Buckets::default(), pace(10, 20));
        assert_eq!(admitted(&buckets, 1, pace, at(0)), 20);
        assert_eq!(
            buckets.take(1, pace, at(0)),
            Verdict::Wait(Duration::from_millis(100))
        );
        assert_eq!(admitted(&buckets, 1, pace, at(99)), 0);
        assert_eq!(admitted(&buckets, 1, pace, at(500)), 5);
        assert_eq!(admitted(&buckets, 2, pace, at(500)), 20);
        assert_eq!(admitted(&buckets, 1, pace, at(100_000)), 20);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (buckets, pace) = (Buckets::default(), pace(1, 1));
        assert_eq!(buckets.take(7, pace, at(0)), Verdict::Admitted);
        buckets.give_back(7, pace, at(0));
        assert_eq!(buckets.take(7, pace, at(0)), Verdict::Admitted);
        buckets.give_back(7, pace, at(0));
        buckets.give_back(7, pace, at(0));
        assert_eq!(admitted(&buckets, 7, pace, at(0)), 1);
    }

    #[test]
    fn a_changed_limit_carries_over_in_proportion() {
        let buckets = Buckets::default();
        let small = pace(10, 10);
        let large = pace(100, 200);
        for _ in 0..5 {
            assert_eq!(buckets.take(1, small, at(0)), Verdict::Admitted);
        }
        assert_eq!(admitted(&buckets, 1, large, at(0)), 100);
        assert_eq!(admitted(&buckets, 1, small, at(0)), 0);
    }

    #[test]
    fn after_a_change_a_bucket_refills_at_the_new_pace() {
        let buckets = Buckets::default();
        let fast = pace(1000, 1000);
        assert_eq!(admitted(&buckets, 1, fast, at(0)), 1000);
        let slow = Pace::new(per_second(1), 1000, at(0));
        assert_eq!(admitted(&buckets, 1, slow, at(5_000)), 5);
        assert_eq!(admitted(&buckets, 1, slow, at(7_000)), 2);
    }

    #[test]
    fn a_hundred_changes_admit_nobody_more() {
        let buckets = Buckets::default();
        let mut count = 0;
        for millis in 0..10_000 {
            let round = millis / 100;
            let burst = if round % 2 == 0 { 100 } else { 50 };
            let pace = Pace::new(per_second(100), burst, at(round * 100));
            count += admitted(&buckets, 1, pace, at(millis));
        }
        assert!((1000..=1111).contains(&count), "{count}");
    }

    #[test]
    fn keys_are_bounded_and_eviction_never_refills() {
        let buckets = Buckets::with_room(160);
        let slow = Pace::new(
            Rate {
                thousandths: 1000,
                period: Duration::from_secs(3600),
            },
            1,
            at(0),
        );
        let keys: Vec<KeyHash> = (0..1000u32).map(|n| hash_key(&n.to_be_bytes())).collect();
        let first: usize = keys
            .iter()
            .filter(|&&key| buckets.take(key, slow, at(0)) == Verdict::Admitted)
            .count();
        assert!(buckets.len() <= 160);
        assert!(
            first <= 161,
            "those with a bucket, and one of all others: {first}"
        );
        for &key in &keys {
            assert_ne!(buckets.take(key, slow, at(1000)), Verdict::Admitted);
        }
        let again = keys
            .iter()
            .filter(|&&key| buckets.take(key, slow, at(3_700_000)) == Verdict::Admitted)
            .count();
        assert!(
            again > 100 && buckets.len() <= 160,
            "full ones make room: {again}"
        );
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_divide_by_zero() {
        let huge = Rate {
            thousandths: u64::MAX,
            period: Duration::from_secs(1),
        };
        let tiny = Rate {
            thousandths: 1,
            period: Duration::from_secs(86_400),
        };
        for rate in [huge, tiny] {
            for burst in [0, 1, u64::MAX] {
                let buckets = Buckets::default();
                assert_eq!(
                    buckets.take(1, Pace::new(rate, burst, at(0)), at(0)),
                    Verdict::Admitted
                );
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 1u64..2000,
            burst in 1u64..100,
            steps in vec(0u64..50, 1..400),
        ) {
            let (buckets, pace) = (Buckets::default(), pace(rate, burst));
            let (mut now, mut admitted) = (0, 0u64);
            for step in steps {
                now += step;
                admitted += u64::from(buckets.take(3, pace, at(now)) == Verdict::Admitted);
                prop_assert!(admitted <= burst + rate * now / 1000 + 1);
            }
        }

        #[test]
        fn who_waits_as_told_is_admitted(rate in 1u64..5000, burst in 1u64..20) {
            let (buckets, pace) = (Buckets::default(), pace(rate, burst));
            let start = Duration::from_secs(5);
            loop {
                match buckets.take(3, pace, Ticks::of(start)) {
                    Verdict::Admitted => {}
                    Verdict::Wait(time) => {
                        prop_assert_eq!(buckets.take(3, pace, Ticks::of(start + time)), Verdict::Admitted);
                        break;
                    }
                }
            }
        }
    }
}
