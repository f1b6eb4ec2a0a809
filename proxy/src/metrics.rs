//! Every metric, from the cells that workers write to the text that is scraped.
//!
//! [`family`] is the one table of names; [`Traffic`] is what a route holds per cluster, [`TrafficCells`] what a
//! worker writes; [`Metrics::render`] sums over workers. A feature with values of its own adds its rows to the
//! table and a [`source`](Metrics::add_source) that is asked at each scrape.

mod cells;
mod collect;
pub mod family;
mod listener;
mod names;
mod samples;
mod shelf;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub use cells::{Counter, Distribution, Histogram, OTHER, TrafficCells};
pub use family::{FAMILIES, Family, Kind, reference};
pub use listener::{CONNECTION_ERRORS, ListenerCells};
pub use samples::Samples;
pub use shelf::PerWorker;

use cells::lock;
use names::Names;
use samples::Exposition;

/// Routes with distributions of their own; further ones share those named [`OTHER`].
pub const MAX_TIMED_ROUTES: usize = 200;

/// Most endpoints that are exported.
pub const MAX_ENDPOINTS: usize = 1000;

/// The traffic of one route to one cluster: [`worker`](PerWorker::worker) gives a worker its cells.
pub type Traffic = PerWorker<TrafficCells>;

/// One endpoint at the time of a scrape.
#[derive(Clone, Debug)]
pub struct EndpointSample {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// Address and port.
    pub endpoint: Arc<str>,
    /// Requests in flight over all workers.
    pub in_flight: u64,
    /// Whether it may be chosen.
    pub healthy: bool,
    /// Times it was ejected.
    pub ejections: u64,
}

/// All metrics of a proxy; several proxies in one process do not meet.
pub struct Metrics {
    inner: Arc<Inner>,
    unrouted: Arc<Traffic>,
    exposition: Exposition,
}

/// Lists the endpoints of all clusters.
pub type EndpointSource = Arc<dyn Fn(&mut Vec<EndpointSample>) + Send + Sync>;

/// Adds the samples of a feature to a scrape.
pub type Source = Arc<dyn Fn(&mut Samples) + Send + Sync>;

struct Inner {
    workers: usize,
    names: Mutex<Names>,
    config: Mutex<ConfigState>,
    endpoints: Mutex<Option<EndpointSource>>,
    sources: Mutex<Vec<Source>>,
    panics: AtomicU64,
    access_log_dropped: Arc<AtomicU64>,
    replace_skipped: Arc<AtomicU64>,
}

#[derive(Default)]
struct ConfigState {
    generation: u64,
    hash: String,
    last_failed: bool,
    successes: u64,
    failures: u64,
}

impl Metrics {
    /// Makes the metrics of a proxy with `workers` workers, numbered from 0.
    pub fn new(workers: usize) -> Arc<Self> {
        let inner = Arc::new(Inner {
            workers,
            names: Mutex::default(),
            config: Mutex::default(),
            endpoints: Mutex::default(),
            sources: Mutex::default(),
            panics: AtomicU64::new(0),
            access_log_dropped: Arc::default(),
            replace_skipped: Arc::default(),
        });
        let scraped = Arc::clone(&inner);
        let exposition = Exposition::new(Arc::new(move |samples| scraped.collect(samples)));
        let unrouted = lock(&inner.names).traffic(workers, "", "");
        let metrics = Arc::new(Self {
            inner,
            unrouted,
            exposition,
        });
        metrics.sync([]);
        metrics
    }

    /// Returns the cells of a route and cluster, the same ones for the same names as long as anybody holds them
    /// or the configuration [names them](Self::sync). Takes a lock: for the building of snapshots.
    ///
    /// * `cluster`: empty for what happens before a cluster is chosen
    pub fn traffic(&self, route: &str, cluster: &str) -> Arc<Traffic> {
        lock(&self.inner.names).traffic(self.inner.workers, route, cluster)
    }

    /// Returns the cells for requests that matched no route.
    pub fn unrouted(&self) -> &Arc<Traffic> {
        &self.unrouted
    }

    /// Returns the cells of a listener, by name as [`traffic`](Self::traffic).
    pub fn listener(&self, name: &str) -> Arc<ListenerCells> {
        let mut names = lock(&self.inner.names);
        Arc::clone(
            names
                .listeners
                .find_or_insert(name.into(), ListenerCells::default),
        )
    }

    /// Tells which routes and clusters belong together in the configuration that is served from now on: their
    /// series are exported from 0, and the series of all others are dropped some minutes after nobody holds them.
    ///
    /// * `pairs`: route and cluster of each split member; the cluster is empty for a route that answers itself
    pub fn sync<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.sync_at(pairs, Instant::now());
    }

    fn sync_at<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>, now: Instant) {
        let mut names = lock(&self.inner.names);
        names.pairs.forget_configured();
        for (route, cluster) in pairs.into_iter().chain([("", "")]) {
            names.traffic(self.inner.workers, route, cluster);
            names.pairs.set_configured(&(route.into(), cluster.into()));
        }
        names.sweep(now);
    }

    /// The first configuration, or a reload, is served by all workers.
    ///
    /// * `generation`: from 1
    /// * `hash`: of the configuration, short and printable
    pub fn config_applied(&self, generation: u64, hash: &str) {
        let mut config = lock(&self.inner.config);
        if config.generation > 0 {
            config.successes += 1;
        }
        config.generation = generation;
        hash.clone_into(&mut config.hash);
        config.last_failed = false;
    }

    /// The same configuration is served under a new number, such as with other weights.
    ///
    /// * `generation`: from 1
    pub fn republished(&self, generation: u64) {
        lock(&self.inner.config).generation = generation;
    }

    /// A reload was rejected.
    pub fn config_rejected(&self) {
        let mut config = lock(&self.inner.config);
        config.failures += 1;
        config.last_failed = true;
    }

    /// A panic was caught while a request was served.
    pub fn panicked(&self) {
        self.inner.panics.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
    }

    /// Returns the counter of lost access log lines, for the log to count in.
    pub fn access_log_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.access_log_dropped)
    }

    /// Returns the counter of answers whose body could not be edited, for routes to count in.
    pub fn replace_skipped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.replace_skipped)
    }

    /// Names who lists the endpoints at each scrape, instead of who did before. Of more than [`MAX_ENDPOINTS`]
    /// the first are exported.
    pub fn set_endpoints(&self, source: EndpointSource) {
        *lock(&self.inner.endpoints) = Some(source);
    }

    /// Adds somebody who is asked for further samples at each scrape, for as long as the metrics live. The
    /// families are rows of the table, and no two sources give the same labels.
    pub fn add_source(&self, source: Source) {
        lock(&self.inner.sources).push(source);
    }

    /// Returns all metrics in the text format 0.0.4. Takes up to some 100 ms with very many routes:
    /// not for a worker's thread.
    pub fn render(&self) -> Vec<u8> {
        lock(&self.inner.names).sweep(Instant::now());
        self.exposition.render()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    pub(super) fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    #[track_caller]
    pub(super) fn assert_has(text: &str, line: &str) {
        let name = line.split(['{', ' ']).next().unwrap();
        let similar: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(
            text.lines().any(|known| known == line),
            "no `{line}` among {similar:#?}"
        );
    }

    /// One of everything, so that no family is empty.
    pub(super) fn busy() -> Arc<Metrics> {
        let metrics = Metrics::new(2);
        metrics.sync([("r", "c")]);
        metrics.listener("public").opened();
        metrics.config_applied(1, "abc");
        metrics.set_endpoints(Arc::new(|out| {
            let endpoint = |number| Arc::from(format!("10.0.0.1:{number}"));
            out.extend((0..1500).map(|number| EndpointSample {
                cluster: Arc::from("c"),
                endpoint: endpoint(number),
                in_flight: 3,
                healthy: true,
                ejections: 0,
            }));
        }));
        metrics.add_source(Arc::new(|samples| {
            samples.add(&family::RATE_LIMITED, &["r", "rate-1"], 1.0);
            samples.add(&family::ACCESS_DENIED, &["r"], 1.0);
            for (family, labels) in [
                (&family::MIRROR_REQUESTS, &["r", "m", "ok"][..]),
                (&family::MIRROR_FAILURES, &["r", "m", "error", "status"]),
                (&family::MIRROR_IN_FLIGHT, &["r", "m"]),
                (&family::MIRROR_HELD, &["r", "m"]),
                (&family::COMPARE, &["r", "m", "equal"]),
                (&family::RECORD, &["r", "written"]),
                (&family::WAITING, &["c"]),
                (&family::WAITING_BYTES, &["c"]),
                (&family::DEMAND, &["c", "in_flight"]),
                (&family::SIGNAL_STALE, &["c", "queue", "missing"]),
                (&family::DESIRED_REPLICAS, &["c"]),
                (&family::REPLICAS, &["c", "ready"]),
                (&family::CLUSTER_INFO, &["c", "", "process", ""]),
            ] {
                samples.add(family, labels, 1.0);
            }
            let waits = Histogram::new(family::DURATION_BOUNDS);
            let waits = Distribution::of([&waits]);
            samples.add_distribution(&family::QUEUE_WAIT, &["c"], &waits);
            samples.add_distribution(&family::START_SECONDS, &["c", "total"], &waits);
        }));
        metrics
    }

    #[test]
    fn reloads_are_told() {
        let metrics = Metrics::new(1);
        metrics.config_applied(1, "one");
        metrics.config_rejected();
        assert_has(&text(&metrics), "forebay_config_last_reload_success 0");
        metrics.config_applied(2, "two");
        metrics.panicked();
        metrics.access_log_dropped().fetch_add(7, Ordering::Relaxed);
        let text = text(&metrics);
        assert_has(&text, r#"forebay_config_reloads_total{result="success"} 1"#);
        assert_has(&text, r#"forebay_config_reloads_total{result="failure"} 1"#);
        assert_has(&text, "forebay_config_generation 2");
        assert_has(&text, "forebay_config_last_reload_success 1");
        assert_has(&text, r#"forebay_config_info{hash="two"} 1"#);
        assert_has(&text, "forebay_panics_total 1");
        assert_has(&text, "forebay_access_log_dropped_total 7");
        assert!(!text.contains(r#"hash="one""#));
    }

    #[test]
    fn each_exported_family_is_in_the_table_and_back() {
        let text = text(&busy());
        let exported: BTreeSet<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        let ours = FAMILIES
            .iter()
            .map(|family| (family.name, family.kind.as_str()));
        let table: BTreeSet<(&str, &str)> = ours
            .chain(family::PROCESS_FAMILIES.iter().copied())
            .collect();
        assert_eq!(exported, table);
        let reference = reference();
        assert!(
            table
                .iter()
                .all(|(name, kind)| reference.contains(&format!("| `{name}` | {kind} |")))
        );
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("forebay_endpoint_healthy{"))
                .count(),
            MAX_ENDPOINTS
        );
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let Ok(mut tool) = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            eprintln!("promtool is not installed: not checked");
            return;
        };
        tool.stdin
            .take()
            .unwrap()
            .write_all(&busy().render())
            .unwrap();
        let output = tool.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }

    #[test]
    fn a_feature_adds_samples_of_its_own() {
        let metrics = Metrics::new(1);
        let own = Histogram::new(family::OVERHEAD_BOUNDS);
        own.observe(Duration::from_millis(2));
        metrics.add_source(Arc::new(move |samples| {
            samples.add(&family::RETRIES, &["x", "y"], 4.0);
            samples.add_distribution(&family::OVERHEAD, &["x", "y"], &Distribution::of([&own]));
        }));
        let text = text(&metrics);
        assert_has(&text, r#"forebay_retries_total{cluster="x",reason="y"} 4"#);
        assert_has(
            &text,
            r#"forebay_overhead_seconds_bucket{route="x",cluster="y",le="0.0025"} 1"#,
        );
    }
}
