//! A snapshot as one worker sees it.

use std::rc::Rc;
use std::sync::Arc;

use super::{ClusterView, Snapshot};
use crate::metrics::{Traffic, TrafficCells};

/// Metric cells of one member of a route, as one worker touches them: the count of holders is the worker's own.
pub struct OwnTraffic {
    traffic: Arc<Traffic>,
    worker: usize,
}

impl OwnTraffic {
    /// The worker's cells.
    pub fn cells(&self) -> &TrafficCells {
        self.traffic.worker(self.worker)
    }
}

/// One worker's view of a snapshot: the counters it touches per request are its own.
pub struct WorkerSnapshot {
    /// The shared part.
    pub shared: Arc<Snapshot>,
    /// Some cluster has heartbeats.
    pub has_heartbeats: bool,
    traffic: Vec<Rc<OwnTraffic>>,
}

impl WorkerSnapshot {
    /// The view of `shared` for the worker with this index.
    pub fn new(shared: Arc<Snapshot>, worker: usize) -> Rc<Self> {
        let traffic = shared
            .traffic
            .iter()
            .map(|t| {
                let traffic = Arc::clone(t);
                Rc::new(OwnTraffic { traffic, worker })
            })
            .collect();
        let beats = |view: &Arc<ClusterView>| {
            let queue = view.config.queue.as_ref();
            queue.is_some_and(|queue| queue.heartbeat.is_some())
        };
        let has_heartbeats = shared.clusters.values().any(beats);
        Rc::new(Self {
            shared,
            has_heartbeats,
            traffic,
        })
    }

    /// Metric cells by index.
    pub fn traffic(&self, cell: usize) -> &Rc<OwnTraffic> {
        &self.traffic[cell]
    }
}
