//! How long starts take, as the metrics tell it, and what starts.

use std::time::Duration;

use forebay_config as config;
use tokio::time::Instant;

use crate::cluster::{ClusterState, StartPhase};
use crate::metrics::{Samples, family};
use crate::scaler::Replicas;

/// Watches the replicas of one cluster.
#[derive(Debug, Default)]
pub(super) struct StartWatch {
    /// What the driver said last of its last start.
    last: Option<Duration>,
    ready: u32,
    /// Since when a replica that is wanted is missing.
    missing: Option<Instant>,
}

/// A start that succeeded.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    /// From spawn to ready; `None`: the driver spawns nothing.
    process: Option<Duration>,
    total: Duration,
}

impl StartWatch {
    /// Looks at the replicas, and tells the cluster of a start that is over.
    ///
    /// * `asked`: some are wanted
    pub(super) fn look(&mut self, asked: bool, replicas: &Replicas, state: &ClusterState) {
        let Some(start) = self.over(asked, replicas, Instant::now()) else {
            return;
        };
        if let Some(process) = start.process {
            state.started(StartPhase::Place, replicas.last_place.unwrap_or_default());
            state.started(StartPhase::Process, process);
        }
        state.started(StartPhase::Total, start.total);
    }

    fn over(&mut self, asked: bool, replicas: &Replicas, now: Instant) -> Option<Start> {
        let process = replicas
            .last_start
            .filter(|_| replicas.last_start != self.last);
        let more = replicas.ready > self.ready && self.missing.is_some();
        self.last = replicas.last_start;
        self.ready = replicas.ready;
        let waited = self.missing.map(|since| now - since);
        let is_missing = replicas.starting > 0 || asked && replicas.ready == 0;
        self.missing = is_missing.then(|| self.missing.unwrap_or(now));
        (process.is_some() || more).then(|| Start {
            process,
            total: waited.max(process).unwrap_or_default(),
        })
    }
}

/// Adds what brings a cluster's replicas to a scrape.
pub(super) fn collect_info(cluster: &config::Cluster, samples: &mut Samples) {
    let Some(scale) = &cluster.scale else { return };
    let kind = match &scale.driver {
        config::Driver::Process(_) => "process",
        config::Driver::Webhook { .. } => "webhook",
        config::Driver::Observe => "observe",
    };
    samples.add(&family::CLUSTER_INFO, &[&cluster.name, "", kind, ""], 1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn replicas(starting: u32, ready: u32, last_start: Option<Duration>) -> Replicas {
        Replicas {
            starting,
            ready,
            last_start,
            ..Replicas::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_is_told_once_with_the_time_before_it_was_spawned() {
        let (mut watch, begin) = (StartWatch::default(), Instant::now());
        let at = |seconds: u32| begin + seconds * SECOND;
        assert_eq!(watch.over(false, &replicas(0, 0, None), at(0)), None);
        assert_eq!(watch.over(true, &replicas(0, 0, None), at(1)), None);
        assert_eq!(watch.over(true, &replicas(1, 0, None), at(3)), None);
        let took = Some(2 * SECOND);
        let over = watch.over(true, &replicas(0, 1, took), at(5));
        let first = Start {
            process: took,
            total: 4 * SECOND,
        };
        assert_eq!(over, Some(first));
        assert_eq!(watch.over(true, &replicas(0, 1, took), at(6)), None);
        // A second one, of which nothing was seen before it was ready.
        let took = Some(3 * SECOND);
        let over = watch.over(true, &replicas(0, 2, took), at(9)).unwrap();
        assert_eq!((over.process, over.total), (took, 3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_starts_is_timed_from_when_it_was_wanted() {
        let (mut watch, begin) = (StartWatch::default(), Instant::now());
        assert_eq!(watch.over(true, &replicas(0, 0, None), begin), None);
        let over = watch.over(true, &replicas(0, 1, None), begin + 7 * SECOND);
        let start = Start {
            process: None,
            total: 7 * SECOND,
        };
        assert_eq!(over, Some(start));
        assert_eq!(
            watch.over(true, &replicas(0, 2, None), begin + 8 * SECOND),
            None
        );
    }
}
