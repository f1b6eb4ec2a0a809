//! What is known about the health of one address, by checks, by answers and by hand.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use forebay_config as config;
use tokio::time::Instant;

use super::flags::{Changes, Flags};

/// The last checks passed.
const PASSED: u32 = 1;
/// The last checks failed. Neither this nor `PASSED`: no check has come yet.
const FAILED: u32 = 1 << 1;
/// Its answers failed; half-open once `ejected_until` is over.
const EJECTED: u32 = 1 << 2;
/// Somebody asked that it gets nothing new.
const DRAINED: u32 = 1 << 3;
/// It said that it is busy, until `busy_until`.
const BUSY: u32 = 1 << 4;
/// It is new or back since `slow_since`.
const SLOW: u32 = 1 << 5;
/// The one request that may try a half-open endpoint is under way.
const PROBING: u32 = 1 << 6;

/// Nothing took a connection there, and no probe has passed since; only in clusters with a waiting room.
const DOWN: u32 = 1 << 7;
/// It is not in the newest set any more.
const GONE: u32 = 1 << 8;
/// It said that it did not take a request on, and gets nothing of its room for a moment.
const PAUSED: u32 = 1 << 9;
/// A connection to it broke under a request, and no probe has passed since: it may be ending.
const SUSPECT: u32 = 1 << 10;

/// The full share of an endpoint; shares are in thousandths of its weight.
pub(super) const FULL: u64 = 1000;
/// The share at the beginning of a slow start.
const FIRST_SHARE: u64 = 100;

/// Milliseconds on a clock that never goes back; only differences mean anything.
pub(super) fn now() -> u64 {
    /// Keeps moments before the epoch, such as those of another test's clock, above zero.
    const BEFORE: Duration = Duration::from_secs(1 << 30);
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let epoch = *EPOCH.get_or_init(|| now);
    let since = BEFORE + now.saturating_duration_since(epoch);
    millis(since.saturating_sub(epoch.saturating_duration_since(now)))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 1)
}

/// True of the flags of an endpoint that can serve whoever waits.
fn serves(flags: u32, checked: bool) -> bool {
    let well = flags & (DRAINED | EJECTED | DOWN | GONE | FAILED) == 0;
    well && (!checked || flags & PASSED != 0)
}

/// What the configuration of a cluster makes of its endpoints' vitals.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// There are active checks.
    pub(super) checked: bool,
    /// Endpoints whose answers fail are ejected.
    pub(super) ejects: bool,
    /// Milliseconds.
    pub(super) slow_start: u64,
}

impl Policy {
    pub(super) fn of(cluster: &config::Cluster) -> Self {
        let outlier = cluster.outlier.as_ref();
        Self {
            checked: cluster.health.is_some(),
            ejects: outlier.is_some(),
            slow_start: outlier.map_or(0, |o| millis(o.slow_start)),
        }
    }

    /// The flags of an endpoint with nothing wrong.
    pub(super) fn all_well(self) -> u32 {
        if self.checked { PASSED } else { 0 }
    }
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Among those with the lowest rank.
    Usable {
        /// 0: well, 1: busy, 2: not checked yet, 3: not checked yet and busy.
        rank: u8,
        /// `FIRST_SHARE` … `FULL`.
        share: u64,
    },
    /// By one request at a time.
    HalfOpen {
        /// Only when nothing else can serve.
        busy: bool,
    },
    /// Not at all.
    Out,
}

/// The state that operators see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It gets requests.
    Healthy,
    /// No check has come yet: it gets requests when no healthy endpoint can serve.
    Unknown,
    /// Its checks fail.
    Unhealthy,
    /// Its answers failed; for a while it gets nothing.
    Ejected,
    /// The while is over: one request at a time may try it.
    HalfOpen,
    /// Somebody asked that it gets nothing new.
    Draining,
}

/// Kept with the counters of an address: weights, reloads and generations do not touch it.
#[derive(Default)]
pub(super) struct Vitals {
    flags: Flags,
    /// Failed answers in a row.
    pub(super) failures: AtomicU32,
    /// Ejections without a good answer in between.
    in_a_row: AtomicU32,
    ejections: AtomicU64,
    ejected_until: AtomicU64,
    busy_until: AtomicU64,
    slow_since: AtomicU64,
    /// Pauses without a request taken on in between.
    pauses: AtomicU32,
    check_error: Mutex<Option<Arc<str>>>,
}

impl Vitals {
    /// Of an address that nothing is known about yet, in a cluster whose flags change so.
    pub(super) fn new(changes: Arc<Changes>) -> Self {
        Self {
            flags: Flags::new(changes),
            ..Self::default()
        }
    }

    /// To compare with [`Policy::all_well`].
    pub(super) fn flags(&self) -> u32 {
        self.flags.load()
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.load() & flag != 0
    }

    /// Whether it may be chosen at `now`.
    pub(super) fn standing(&self, policy: Policy, now: u64) -> Standing {
        let flags = self.flags.load();
        if flags & (DRAINED | DOWN | SUSPECT) != 0 || policy.checked && flags & FAILED != 0 {
            return Standing::Out;
        }
        let unknown = policy.checked && flags & PASSED == 0;
        let busy = flags & BUSY != 0 && self.still_busy(now);
        if policy.ejects && flags & EJECTED != 0 {
            let waits = now < self.ejected_until.load(Ordering::Acquire);
            return match waits || unknown || flags & PROBING != 0 {
                true => Standing::Out,
                false => Standing::HalfOpen { busy },
            };
        }
        let share = match flags & SLOW {
            0 => FULL,
            _ => self.share(policy.slow_start, now),
        };
        let rank = u8::from(unknown) * 2 + u8::from(busy);
        Standing::Usable { rank, share }
    }

    fn still_busy(&self, now: u64) -> bool {
        if now < self.busy_until.load(Ordering::Acquire) {
            return true;
        }
        self.flags.clear(BUSY);
        if now < self.busy_until.load(Ordering::Acquire) {
            self.flags.set(BUSY); // said again meanwhile
        }
        false
    }

    fn share(&self, slow_start: u64, now: u64) -> u64 {
        let gone = now.saturating_sub(self.slow_since.load(Ordering::Acquire));
        if gone >= slow_start {
            self.flags.clear(SLOW);
            return FULL;
        }
        FIRST_SHARE + (FULL - FIRST_SHARE) * gone / slow_start
    }

    /// Begins a slow start, if the cluster has one.
    pub(super) fn begin_slow(&self, now: u64) {
        self.slow_since.store(now, Ordering::Release);
        self.flags.set(SLOW);
    }

    /// Takes the place of the one request that may try a half-open endpoint.
    pub(super) fn take_probe(&self) -> bool {
        let may = |flags| flags & (EJECTED | PROBING) == EJECTED;
        self.flags.change(PROBING, 0, may)
    }

    pub(super) fn free_probe(&self) {
        self.flags.clear(PROBING);
    }

    /// Marks it busy until then; an earlier word that reaches further stays.
    pub(super) fn mark_busy(&self, until: u64) {
        self.busy_until.fetch_max(until, Ordering::AcqRel);
        self.flags.set(BUSY);
    }

    pub(super) fn is_busy(&self, now: u64) -> bool {
        self.has(BUSY) && now < self.busy_until.load(Ordering::Acquire)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Acquire)
    }

    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Ejects it, for longer when it was ejected before without a good answer since. Returns for how long, in ms.
    pub(super) fn eject(&self, outlier: &config::Outlier, now: u64) -> u64 {
        let times = self.in_a_row.load(Ordering::Relaxed).saturating_add(1);
        let time = millis(outlier.base)
            .saturating_mul(times.into())
            .min(millis(outlier.max));
        self.in_a_row.store(times, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.ejected_until
            .store(now.saturating_add(time), Ordering::Release);
        self.flags.set(EJECTED);
        time
    }

    /// A request was answered well. Of one that is ejected it says nothing: it was sent before.
    pub(super) fn answered_well(&self) {
        let failed = self.failures.load(Ordering::Relaxed) != 0;
        if (failed || self.in_a_row.load(Ordering::Relaxed) != 0) && !self.is_ejected() {
            self.failures.store(0, Ordering::Relaxed);
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Ends an ejection, with a slow start. `proven`: by a good answer. False when there was none.
    pub(super) fn readmit(&self, proven: bool, now: u64) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        if proven {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        let was = self.is_ejected();
        if was {
            self.begin_slow(now);
            self.flags.clear(EJECTED);
        }
        was
    }

    /// Nothing of what answers told counts any more: the cluster does not eject.
    pub(super) fn forget_ejection(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        self.flags.clear(EJECTED)
    }

    /// What the checks say so far: `None` before the first one.
    pub(super) fn check(&self) -> Option<bool> {
        match self.flags.load() & (PASSED | FAILED) {
            0 => None,
            flags => Some(flags & FAILED == 0),
        }
    }

    /// Enters what the checks say: back from unhealthy, or new among others, it begins slowly. True when it changed.
    pub(super) fn set_check(&self, passed: bool, now: u64) -> bool {
        let before = self.check();
        if before == Some(passed) {
            return false;
        }
        if passed && (before == Some(false) || self.has(SLOW)) {
            self.begin_slow(now);
        }
        let (on, off) = if passed {
            (PASSED, FAILED)
        } else {
            (FAILED, PASSED)
        };
        self.flags.change(on, off, |_| true);
        true
    }

    /// There are no checks any more.
    pub(super) fn forget_checks(&self) -> bool {
        self.set_check_error(None);
        self.flags.clear(PASSED | FAILED)
    }

    pub(super) fn check_error(&self) -> Option<Arc<str>> {
        self.check_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_check_error(&self, error: Option<&str>) {
        *self
            .check_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error.map(Into::into);
    }

    /// True when that is new.
    pub(super) fn set_drained(&self, drained: bool) -> bool {
        if drained {
            self.flags.set(DRAINED)
        } else {
            self.flags.clear(DRAINED)
        }
    }

    /// Neither drained, nor unhealthy, nor ejected.
    pub(super) fn is_usable(&self, checked: bool) -> bool {
        !self.has(EJECTED) && self.could_serve(checked)
    }

    /// Neither drained nor unhealthy.
    pub(super) fn could_serve(&self, checked: bool) -> bool {
        !(self.has(DRAINED | DOWN) || checked && self.has(FAILED))
    }

    /// It may be given to a request that waits.
    pub(super) fn may_serve(&self, checked: bool) -> bool {
        let flags = self.flags.load();
        flags & (PAUSED | SUSPECT) == 0 && serves(flags, checked)
    }

    /// The same, or it may be in a moment.
    pub(super) fn is_there(&self, checked: bool) -> bool {
        serves(self.flags.load(), checked)
    }

    /// Begins a pause; the how many-th in a row. `None`: it is paused already.
    pub(super) fn begin_pause(&self) -> Option<u32> {
        let began = self.flags.set(PAUSED);
        began.then(|| {
            self.pauses
                .fetch_add(1, Ordering::Relaxed)
                .saturating_add(1)
        })
    }

    pub(super) fn end_pause(&self) {
        self.flags.clear(PAUSED);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.has(PAUSED)
    }

    /// The next pause is the first one in a row.
    pub(super) fn forget_pauses(&self) {
        if self.pauses.load(Ordering::Relaxed) != 0 {
            self.pauses.store(0, Ordering::Relaxed);
        }
    }

    /// True when that is new.
    pub(super) fn set_down(&self, down: bool) -> bool {
        if down {
            self.flags.set(DOWN)
        } else {
            self.flags.clear(DOWN)
        }
    }

    /// True when that is new.
    pub(super) fn set_suspect(&self, suspect: bool) -> bool {
        match suspect {
            true => self.flags.set(SUSPECT),
            false => self.flags.clear(SUSPECT),
        }
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.has(SUSPECT)
    }

    /// Ejected, and its time is over.
    pub(super) fn is_half_open(&self, now: u64) -> bool {
        self.is_ejected() && now >= self.ejected_until()
    }

    pub(super) fn is_down(&self) -> bool {
        self.has(DOWN)
    }

    /// Whether the newest set has it.
    pub(super) fn set_gone(&self, gone: bool) {
        if gone {
            self.flags.set(GONE);
        } else {
            self.flags.clear(GONE);
        }
    }

    /// The state that operators see at `now`.
    pub(super) fn state(&self, checked: bool, now: u64) -> EndpointState {
        let flags = self.flags.load();
        if flags & DRAINED != 0 {
            EndpointState::Draining
        } else if checked && flags & FAILED != 0 || flags & (DOWN | SUSPECT) != 0 {
            EndpointState::Unhealthy
        } else if flags & EJECTED != 0 && now < self.ejected_until() {
            EndpointState::Ejected
        } else if flags & EJECTED != 0 {
            EndpointState::HalfOpen
        } else if checked && flags & PASSED == 0 {
            EndpointState::Unknown
        } else {
            EndpointState::Healthy
        }
    }
}
