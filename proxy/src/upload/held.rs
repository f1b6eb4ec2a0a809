//! What bodies cost a waiting room.

use std::sync::Arc;

use crate::capture::Budget;

/// Bytes held of a body that waits or may have to; given back when this is dropped.
pub(super) struct Held {
    budget: Arc<Budget>,
    taken: u64,
}

impl Held {
    /// What is reserved before anything is read.
    const STEP: u64 = 16 << 10;
    /// What a piece costs besides its bytes.
    const ENTRY: u64 = 256;

    /// Nothing yet.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            taken: 0,
        }
    }

    pub(super) fn reserve(&mut self) -> bool {
        let fits = self.budget.take(Self::STEP);
        self.taken += if fits { Self::STEP } else { 0 };
        fits
    }

    /// Takes what a piece that is here costs; false, and nothing is taken: there is not so much.
    pub(super) fn add(&mut self, bytes: u64) -> bool {
        let cost = bytes + Self::ENTRY;
        let fits = self.budget.take(cost);
        self.taken += if fits { cost } else { 0 };
        fits
    }

    pub(super) fn unreserve(&mut self) {
        self.taken -= Self::STEP;
        self.budget.give_back(Self::STEP);
    }

    /// The piece that was reserved for is here.
    pub(super) fn settle(&mut self, bytes: u64) {
        let cost = bytes + Self::ENTRY;
        self.budget.force(cost);
        self.taken += cost;
        self.unreserve();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}
