//! The flags of one endpoint, and a count of all their changes in its cluster: who has found all endpoints well needs
//! to look again only when that count has moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::EndpointSet;

/// Counts changes of the flags of a cluster's endpoints. Alone in its cache lines: every request reads it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Changes(AtomicU64);

/// A set of bits of which every change is counted, after it is made.
#[derive(Debug, Default)]
pub(super) struct Flags {
    bits: AtomicU32,
    changes: Arc<Changes>,
}

impl Flags {
    /// No bit is set.
    pub(super) fn new(changes: Arc<Changes>) -> Self {
        Self {
            bits: AtomicU32::new(0),
            changes,
        }
    }

    pub(super) fn load(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    /// True when any was not set.
    pub(super) fn set(&self, bits: u32) -> bool {
        let before = self.bits.fetch_or(bits, Ordering::AcqRel);
        self.count(before & bits != bits)
    }

    /// True when any was set.
    pub(super) fn clear(&self, bits: u32) -> bool {
        let before = self.bits.fetch_and(!bits, Ordering::AcqRel);
        self.count(before & bits != 0)
    }

    /// Sets `on` and clears `off` at once, if `may` says so of the bits before; false: it did not.
    pub(super) fn change(&self, on: u32, off: u32, may: impl Fn(u32) -> bool) -> bool {
        let to = |before| may(before).then_some(before & !off | on);
        let changed = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, to);
        self.count(changed.is_ok_and(|before| before & !off | on != before));
        changed.is_ok()
    }

    fn count(&self, changed: bool) -> bool {
        if changed {
            // Whoever reads the new count sees the new bits.
            self.changes.0.fetch_add(1, Ordering::Release);
        }
        changed
    }
}

/// Remembers at which count of changes all endpoints of a set were well.
#[derive(Debug, Default)]
pub(super) struct Wellness {
    /// 0: at none so far; else twice one more than the count, and one more where checks must have passed.
    seen: AtomicU64,
}

impl Wellness {
    /// True while every endpoint in `set`, which this belongs to, has exactly the flags `well`.
    ///
    /// * `changes`: those of all endpoints in `set`
    /// * `well`: by what the cluster's configuration says of checks, `checked`
    pub(super) fn holds(
        &self,
        set: &EndpointSet,
        changes: &Changes,
        well: u32,
        checked: bool,
    ) -> bool {
        // Read before the flags: a change that they do not show yet moves the count on afterwards.
        let count = changes.0.load(Ordering::Acquire);
        let now = ((count + 1) << 1) | u64::from(checked);
        if self.seen.load(Ordering::Relaxed) == now {
            return true;
        }
        let all_well = set.endpoints.iter().all(|e| e.vitals().flags() == well);
        if all_well {
            self.seen.store(now, Ordering::Relaxed);
        }
        all_well
    }
}
