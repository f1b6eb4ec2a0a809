//! How long the starts of a cluster's replicas took, for the metrics.

use std::sync::PoisonError;
use std::time::Duration;

use super::ClusterState;
use crate::metrics::{Distribution, Histogram, Samples, family};

/// A part of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// Waiting for a device with enough left on it.
    Place,
    /// From the spawn of the process until it is ready.
    Process,
    /// From when a replica was wanted until it is ready.
    Total,
}

impl StartPhase {
    const ALL: [Self; 3] = [Self::Place, Self::Process, Self::Total];

    /// Value of the `phase` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Process => "process",
            Self::Total => "total",
        }
    }
}

/// One distribution per phase.
pub(super) struct Times([Histogram; 3]);

impl Default for Times {
    fn default() -> Self {
        Self([(); 3].map(|()| Histogram::new(family::DURATION_BOUNDS)))
    }
}

impl ClusterState {
    /// A phase of a start that succeeded took so long.
    pub fn started(&self, phase: StartPhase, took: Duration) {
        let times = self.roots.starts.lock();
        let times = times.unwrap_or_else(PoisonError::into_inner);
        times.0[phase as usize].observe(took);
    }

    /// Adds to a scrape how long starts took.
    pub fn collect_starts(&self, samples: &mut Samples) {
        let times = self.roots.starts.lock();
        let times = times.unwrap_or_else(PoisonError::into_inner);
        for (phase, times) in StartPhase::ALL.iter().zip(&times.0) {
            let labels = [self.name(), phase.label()];
            let times = Distribution::of([times]);
            samples.add_distribution(&family::START_SECONDS, &labels, &times);
        }
    }
}
