//! What workers write: cells with one writer each, read by the scrape.
//!
//! A worker is the only writer of its cells, so an increment is a relaxed load and store, not a locked
//! instruction. Every type here that a worker holds fills its cache lines alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::family::{DURATION_BOUNDS, OVERHEAD_BOUNDS};

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, wrapping; only the worker that owns the cell may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        // One writer: nothing can come between the load and the store. A statistic: orders no other memory.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Returns the present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Most buckets that a histogram can have, the last one without a bound.
pub(super) const MAX_BUCKETS: usize = 20;

/// A distribution of durations with one writer.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: [Counter; MAX_BUCKETS],
    sum: AtomicU64, // bits of an f64, seconds
}

impl Histogram {
    /// Makes an empty one.
    ///
    /// * `bounds`: upper bounds in nanoseconds, ascending, at most 19
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(
            bounds.len() < MAX_BUCKETS,
            "the tables of bounds are shorter than MAX_BUCKETS"
        );
        Self {
            bounds,
            counts: Default::default(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts one duration; only the worker that owns the cell may call it.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|&bound| bound < nanos);
        self.counts[bucket].add(1);
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + duration.as_secs_f64();
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, total: &mut Distribution) {
        total.bounds = self.bounds;
        for (total, cell) in total.counts.iter_mut().zip(&self.counts) {
            *total += cell.value();
        }
        total.sum += f64::from_bits(self.sum.load(Ordering::Relaxed));
    }
}

/// The sum of histograms over workers.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    pub(super) bounds: &'static [u64],
    pub(super) counts: [u64; MAX_BUCKETS],
    pub(super) sum: f64,
}

impl Distribution {
    /// Returns the sum over histograms that share their bounds.
    pub fn of<'a>(cells: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut total = Self::default();
        cells.into_iter().for_each(|cell| cell.add_to(&mut total));
        total
    }

    /// Returns how many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Status codes with a cell of their own; the others share a small table.
pub(super) const COMMON_CODES: [u16; 24] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 413, 422,
    429, 500, 502, 503, 504,
];

const NOT_COMMON: u8 = u8::MAX;

/// Where the cell of code `100 + i` is.
const CODE_CELL: [u8; 500] = {
    let mut table = [NOT_COMMON; 500];
    let mut i = 0;
    while i < COMMON_CODES.len() {
        table[COMMON_CODES[i] as usize - 100] = i as u8;
        i += 1;
    }
    table
};

/// Entries of a [`Tally`] before further keys are counted together.
const TALLY_KEYS: usize = 48;

/// What is rare enough to be counted by key: a short list, bounded.
#[derive(Debug)]
pub(super) struct Tally<K>(Vec<(K, u64)>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq + Copy> Tally<K> {
    /// Adds one to `key`, or to `overflow` once there are too many keys.
    pub(super) fn add(&mut self, key: K, overflow: K) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == key) {
            *count += 1;
        } else if self.0.len() < TALLY_KEYS || key == overflow {
            self.0.push((key, 1));
        } else {
            self.add(overflow, overflow);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        self.0.iter().copied()
    }
}

/// The label value that stands for everything beyond a bound.
pub const OTHER: &str = "_other";

/// The code under which codes beyond the bound are counted; shown as [`OTHER`].
pub(super) const OTHER_CODE: u16 = 0;

#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) codes: Tally<u16>,
    pub(super) refused: Tally<(u16, &'static str)>,
    pub(super) aborted: Tally<&'static str>,
}

/// Takes a lock that only its worker and the scrape want; a panic elsewhere does not spoil counters.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The traffic of one route to one cluster, as one worker saw it. Only that worker
/// may call its methods; [`PerWorker::worker`](super::PerWorker::worker) hands them out.
#[derive(Debug)]
#[repr(align(128))]
pub struct TrafficCells {
    pub(super) in_flight: Counter,
    pub(super) request_bytes: Counter,
    pub(super) response_bytes: Counter,
    pub(super) answered: [Counter; COMMON_CODES.len()],
    pub(super) rare: Mutex<Rare>,
    timings: Arc<TimingCells>,
    cluster: Arc<ClusterCells>,
}

impl TrafficCells {
    pub(super) fn new(timings: Arc<TimingCells>, cluster: Arc<ClusterCells>) -> Self {
        Self {
            in_flight: Counter::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            answered: Default::default(),
            rare: Mutex::default(),
            timings,
            cluster,
        }
    }

    /// A request was admitted for the cluster, before any waiting.
    #[inline]
    pub fn arrived(&self) {
        self.cluster.arrivals.add(1);
    }

    /// A request is in flight; [`end`](Self::end) follows exactly once, on the same worker.
    #[inline]
    pub fn begin(&self) {
        self.in_flight.add(1);
    }

    /// The request of a [`begin`](Self::begin) is over.
    #[inline]
    pub fn end(&self) {
        self.in_flight.add(1u64.wrapping_neg());
    }

    /// The head of an upstream's answer, or of the route's own (a redirect, fixed content), was sent.
    #[inline]
    pub fn answered(&self, code: u16) {
        match CODE_CELL.get(usize::from(code).wrapping_sub(100)) {
            Some(&cell) if cell != NOT_COMMON => self.answered[usize::from(cell)].add(1),
            _ => self.answered_rarely(code),
        }
    }

    #[cold]
    fn answered_rarely(&self, code: u16) {
        lock(&self.rare).codes.add(code, OTHER_CODE);
    }

    /// The head of our own answer was sent because of `reason`.
    pub fn refused(&self, code: u16, reason: &'static str) {
        lock(&self.rare)
            .refused
            .add((code, reason), (OTHER_CODE, OTHER));
    }

    /// The request ended before its last response byte because of `reason`.
    pub fn aborted(&self, reason: &'static str) {
        lock(&self.rare).aborted.add(reason, OTHER);
    }

    /// A further attempt was started because of `reason`.
    pub fn retried(&self, reason: &'static str) {
        lock(&self.cluster.retries).add(reason, OTHER);
    }

    /// Head to last response byte.
    #[inline]
    pub fn observe_duration(&self, duration: Duration) {
        self.timings.duration.observe(duration);
    }

    /// Head to the upstream's response head.
    #[inline]
    pub fn observe_first_byte(&self, duration: Duration) {
        self.timings.first_byte.observe(duration);
    }

    /// What the proxy itself added before the first response byte.
    #[inline]
    pub fn observe_overhead(&self, duration: Duration) {
        self.timings.overhead.observe(duration);
    }

    /// Body bytes came from the client.
    #[inline]
    pub fn request_bytes(&self, bytes: u64) {
        self.request_bytes.add(bytes);
    }

    /// Body bytes went to the client.
    #[inline]
    pub fn response_bytes(&self, bytes: u64) {
        self.response_bytes.add(bytes);
    }
}

/// The distributions of one route and cluster, or of all routes beyond the bound to one cluster.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct TimingCells {
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) overhead: Histogram,
}

impl Default for TimingCells {
    fn default() -> Self {
        Self {
            duration: Histogram::new(DURATION_BOUNDS),
            first_byte: Histogram::new(DURATION_BOUNDS),
            overhead: Histogram::new(OVERHEAD_BOUNDS),
        }
    }
}

/// What is counted by cluster only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct ClusterCells {
    pub(super) arrivals: Counter,
    pub(super) retries: Mutex<Tally<&'static str>>,
}
