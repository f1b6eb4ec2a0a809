//! The series that exist: found by name at each build of a snapshot, bounded over any number of configurations.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::cells::{ClusterCells, OTHER, TimingCells, TrafficCells};
use super::shelf::Shelf;
use super::{ListenerCells, MAX_TIMED_ROUTES, PerWorker, Traffic};

/// Sets of distributions by route and cluster before further ones are kept by cluster only.
const MAX_TIMED_PAIRS: usize = 800;

/// Sets of distributions before further clusters share one.
const MAX_TIMED: usize = 1000;

pub(super) type PairKey = (Box<str>, Box<str>);

#[derive(Default)]
pub(super) struct Names {
    pub(super) pairs: Shelf<PairKey, Traffic>,
    pub(super) timings: Shelf<PairKey, PerWorker<TimingCells>>,
    pub(super) clusters: Shelf<Box<str>, PerWorker<ClusterCells>>,
    pub(super) listeners: Shelf<Box<str>, ListenerCells>,
    timed_routes: HashSet<Box<str>>,
}

impl Names {
    pub(super) fn traffic(&mut self, workers: usize, route: &str, cluster: &str) -> Arc<Traffic> {
        let key = (Box::from(route), Box::from(cluster));
        if let Some(known) = self.pairs.find(&key) {
            return Arc::clone(known);
        }
        let timings = self.timings(workers, route, cluster);
        let by_cluster = Arc::clone(self.clusters.find_or_insert(cluster.into(), || {
            PerWorker::new(workers, "", cluster, |_| Default::default())
        }));
        let made = || {
            PerWorker::new(workers, route, cluster, |worker| {
                TrafficCells::new(
                    Arc::clone(timings.worker(worker)),
                    Arc::clone(by_cluster.worker(worker)),
                )
            })
        };
        Arc::clone(self.pairs.find_or_insert(key, made))
    }

    /// The distributions of a new pair: its own, or shared ones when there are too many. Decided once, so that
    /// no series ever shrinks.
    fn timings(
        &mut self,
        workers: usize,
        route: &str,
        cluster: &str,
    ) -> Arc<PerWorker<TimingCells>> {
        let mut key: PairKey = (route.into(), cluster.into());
        if let Some(known) = self.timings.find(&key) {
            return Arc::clone(known);
        }
        let timed_route =
            self.timed_routes.len() < MAX_TIMED_ROUTES || self.timed_routes.contains(&key.0);
        if self.timings.len() >= MAX_TIMED_PAIRS || !timed_route {
            key.0 = OTHER.into();
        }
        if self.timings.len() >= MAX_TIMED && self.timings.find(&key).is_none() {
            key.1 = OTHER.into();
        }
        if !key.0.is_empty() && &*key.0 != OTHER {
            self.timed_routes.insert(key.0.clone());
        }
        let (route, cluster) = key.clone();
        let made = || PerWorker::new(workers, &route, &cluster, |_| TimingCells::default());
        Arc::clone(self.timings.find_or_insert(key, made))
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.pairs.sweep_cells(now);
        self.timings.sweep_cells(now);
        self.clusters.sweep_cells(now);
        self.listeners
            .sweep(now, |listener| Arc::strong_count(listener) > 1);
        let timed = self.timings.keys().map(|(route, _)| route);
        self.timed_routes = timed
            .filter(|route| !route.is_empty() && &***route != OTHER)
            .cloned()
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metrics;
    use super::super::cells::lock;
    use super::super::shelf::{KEEP, MAX_IDLE};
    use super::super::tests::{assert_has, text};
    use super::*;

    #[test]
    fn series_survive_reloads_by_name() {
        let metrics = Metrics::new(1);
        metrics.sync([("r", "c")]);
        metrics.traffic("r", "c").worker(0).answered(200);
        metrics.sync([("r", "c"), ("s", "c")]);
        metrics.traffic("r", "c").worker(0).answered(200);
        assert_has(
            &text(&metrics),
            r#"forebay_requests_total{route="r",cluster="c",code="200",reason=""} 2"#,
        );
    }

    #[test]
    fn series_that_left_the_configuration_go_once_nobody_holds_them() {
        let metrics = Metrics::new(1);
        let start = Instant::now();
        metrics.sync_at([("old", "c")], start);
        let stream = Arc::clone(metrics.traffic("old", "c").worker(0)); // a response that outlives its route
        metrics.sync_at([("new", "c")], start);
        metrics.sync_at([("new", "c")], start + KEEP * 2);
        stream.answered(200);
        assert!(text(&metrics).contains(r#"route="old""#));
        drop(stream);
        metrics.sync_at([("new", "c")], start + KEEP * 3);
        assert!(text(&metrics).contains(r#"route="old""#)); // its last value can still be scraped
        metrics.sync_at([("new", "c")], start + KEEP * 4);
        metrics.sync_at([("new", "c")], start + KEEP * 5); // its distributions follow it
        let text = text(&metrics);
        assert!(!text.contains(r#"route="old""#));
        assert!(text.contains(r#"forebay_arrivals_total{cluster="c"}"#));
    }

    #[test]
    fn thousands_of_reloads_with_changing_names_do_not_leak() {
        let metrics = Metrics::new(1);
        let now = Instant::now();
        for generation in 0..2500 {
            let (route, cluster) = (format!("r{generation}"), format!("c{generation}"));
            metrics.sync_at([(&*route, &*cluster)], now);
            metrics.listener(&route);
        }
        let names = lock(&metrics.inner.names);
        for len in [
            names.pairs.len(),
            names.timings.len(),
            names.clusters.len(),
            names.listeners.len(),
        ] {
            assert!(len <= 2 * MAX_IDLE + 2, "{len}");
        }
        assert!(names.timed_routes.len() <= MAX_TIMED_ROUTES + 1);
    }

    #[test]
    fn routes_beyond_the_bound_share_their_distributions() {
        let metrics = Metrics::new(1);
        let routes: Vec<String> = (0..5000).map(|number| format!("route-{number}")).collect();
        let clusters: Vec<String> = (0..50).map(|number| format!("cluster-{number}")).collect();
        metrics.sync(
            routes
                .iter()
                .enumerate()
                .map(|(i, route)| (&**route, &*clusters[i % 50])),
        );
        metrics
            .traffic("route-4999", "cluster-49")
            .worker(0)
            .observe_duration(Duration::from_millis(3));
        metrics
            .traffic("route-4949", "cluster-49")
            .worker(0)
            .observe_duration(Duration::from_millis(3));
        let started = Instant::now();
        let text = text(&metrics);
        let took = started.elapsed();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 100_000, "{series}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_has(
            &text,
            r#"forebay_request_duration_seconds_count{route="_other",cluster="cluster-49"} 2"#,
        );
        let own = r#"forebay_request_duration_seconds_count{route="route-"#;
        assert_eq!(
            text.lines().filter(|line| line.starts_with(own)).count(),
            MAX_TIMED_ROUTES
        );
    }

    #[test]
    fn clusters_beyond_the_bound_share_their_distributions() {
        let metrics = Metrics::new(1);
        let names: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
        metrics.sync(names.iter().map(|name| (&**name, &**name)));
        let text = text(&metrics);
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 100_000, "{series}");
        assert!(
            text.contains(r#"forebay_overhead_seconds_count{route="_other",cluster="_other"}"#)
        );
    }
}
