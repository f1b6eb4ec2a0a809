//! What is known of a mirror while the process lives: copies under way, bytes held, outcomes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::observation::Whose;
use super::reach::Reach;
use crate::capture::Budget;
use crate::compare::Tally;
use crate::upload::TeeEnd;

/// Reason of a copy that ended because its request did, or the process.
pub(super) const CANCELLED: &str = "cancelled";

/// What came of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered, with any status but 5xx.
    Ok,
    /// Answered with 5xx, or not at all: the reason.
    Error(&'static str),
    /// Not whole within its time.
    Timeout,
    /// Not sent, or cut by us: the reason.
    Dropped(&'static str),
}

impl Outcome {
    /// Every `result` of the metrics.
    pub const RESULTS: [&'static str; 4] = ["ok", "error", "timeout", "dropped"];

    /// Its `result`.
    pub fn result(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error(_) => "error",
            Self::Timeout => "timeout",
            Self::Dropped(_) => "dropped",
        }
    }

    /// Its reason; empty for `ok`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::Timeout => "timeout",
            Self::Error(reason) | Self::Dropped(reason) => reason,
        }
    }
}

impl From<TeeEnd> for Outcome {
    fn from(end: TeeEnd) -> Self {
        Self::Dropped(match end {
            TeeEnd::Lag => "lag",
            TeeEnd::Bytes => "bytes",
            TeeEnd::Source => "source",
            TeeEnd::Unwanted => CANCELLED,
        })
    }
}

/// The live state of one mirror, known by its route and name.
#[derive(Debug)]
pub struct MirrorState {
    in_flight: AtomicU32,
    /// Bytes of bodies and answers held for its copies.
    pub budget: Arc<Budget>,
    ok: AtomicU64,
    others: Mutex<BTreeMap<Outcome, u64>>,
    /// What comparing found.
    pub tally: Arc<Tally>,
    reach: Reach,
    twin: Reach,
}

impl MirrorState {
    /// A mirror of which nothing is known.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            budget: Arc::new(Budget::new(max_bytes)),
            ok: AtomicU64::new(0),
            others: Mutex::default(),
            tally: Arc::default(),
            reach: Reach::default(),
            twin: Reach::default(),
        }
    }

    /// Copies under way, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a copy as under way, unless there are `most` already.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<UnderWay> {
        let more = |under_way: u32| (under_way < most).then_some(under_way + 1);
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(UnderWay(Arc::clone(self)))
    }

    /// Whether the mirror, or its noise twin, can be reached.
    pub(super) fn reach(&self, whose: &Whose) -> &Reach {
        match whose {
            Whose::Mirror(..) => &self.reach,
            Whose::Noise(..) => &self.twin,
        }
    }

    /// Counts what came of a copy.
    pub fn count(&self, outcome: Outcome) {
        if outcome == Outcome::Ok {
            self.ok.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
            return;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        *others.entry(outcome).or_default() += 1;
    }

    /// Copies that were answered.
    pub fn ok(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    /// What came of all other copies.
    pub fn others(&self) -> BTreeMap<Outcome, u64> {
        self.others
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One copy under way.
#[must_use]
pub struct UnderWay(Arc<MirrorState>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
