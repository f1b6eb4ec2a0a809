//! Every metric name, kind, help text, label and bucket. Nothing else may name a metric.

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of durations; the upper bounds of its buckets in nanoseconds, ascending.
    Histogram(&'static [u64]),
}

/// One family of series: a row of the table.
#[derive(Debug)]
pub struct Family {
    /// Full name, prefix included.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Bounds of durations that a model may need, nanoseconds: 1 ms … 600 s.
pub const DURATION_BOUNDS: &[u64] = &[
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    2_500 * MILLI,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    600 * SECOND,
];

/// Bounds of time spent by the proxy itself, nanoseconds: 100 µs … 1 s.
pub const OVERHEAD_BOUNDS: &[u64] = &[
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
];

macro_rules! families {
    ($($id:ident = $kind:expr, $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Family =
                Family { name: concat!("forebay_", $name), kind: $kind, help: $help, labels: &[$($label),*] };
        )*

        /// Every family of our own, in the order of the documentation.
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    REQUESTS = Kind::Counter, "requests_total" ["route", "cluster", "code", "reason"]
        "Requests whose response head was sent, by status code; reason is empty when the upstream answered.";
    ABORTED = Kind::Counter, "aborted_total" ["route", "cluster", "reason"]
        "Requests that ended before their last response byte, by what ended them.";
    REQUEST_DURATION = Kind::Histogram(DURATION_BOUNDS), "request_duration_seconds" ["route", "cluster"]
        "Time from the end of the request head to the last response byte.";
    FIRST_BYTE = Kind::Histogram(DURATION_BOUNDS), "first_byte_seconds" ["route", "cluster"]
        "Time from the end of the request head to the response head from the upstream, waiting included.";
    OVERHEAD = Kind::Histogram(OVERHEAD_BOUNDS), "overhead_seconds" ["route", "cluster"]
        "Time that the proxy itself added before the first response byte, without waiting for a slot or the upstream.";
    ARRIVALS = Kind::Counter, "arrivals_total" ["cluster"]
        "Requests admitted for a cluster, counted before any waiting; no mirrors and no retries.";
    IN_FLIGHT = Kind::Gauge, "requests_in_flight" ["route", "cluster"]
        "Requests between their head and their last response byte.";
    REQUEST_BYTES = Kind::Counter, "request_bytes_total" ["route", "cluster"]
        "Body bytes received from clients.";
    RESPONSE_BYTES = Kind::Counter, "response_bytes_total" ["route", "cluster"]
        "Body bytes sent to clients.";
    REFUSED = Kind::Counter, "refused_total" ["route", "cluster", "reason"]
        "Requests answered by the proxy itself instead of an upstream, by why.";
    RATE_LIMITED = Kind::Counter, "rate_limited_total" ["route", "limit"]
        "Requests over a limit of their route; those of a dry run were served all the same.";
    ACCESS_DENIED = Kind::Counter, "access_denied_total" ["route"]
        "Requests that the route's access list refuses; those of a dry run were served all the same.";
    MIRROR_REQUESTS = Kind::Counter, "mirror_requests_total" ["route", "mirror", "result"]
        "Copies of requests, by what came of them: ok, error, timeout or dropped.";
    MIRROR_FAILURES = Kind::Counter, "mirror_failures_total" ["route", "mirror", "result", "reason"]
        "Copies of requests that were not answered well, by why.";
    MIRROR_IN_FLIGHT = Kind::Gauge, "mirror_in_flight" ["route", "mirror"]
        "Copies of requests under way.";
    MIRROR_HELD = Kind::Gauge, "mirror_held_bytes" ["route", "mirror"]
        "Bytes held for copies that are behind their primary, and of answers that will be compared.";
    COMPARE = Kind::Counter, "compare_total" ["route", "mirror", "verdict"]
        "Answers of copies held against those of the primary, by what was found.";
    RECORD = Kind::Counter, "record_total" ["route", "result"]
        "Requests and answers written to the file, posted, or dropped because that was too slow or failed.";
    RETRIES = Kind::Counter, "retries_total" ["cluster", "reason"]
        "Further attempts of a request, by what made them necessary.";
    WAITING = Kind::Gauge, "waiting" ["cluster"]
        "Requests in the waiting room of a cluster.";
    WAITING_BYTES = Kind::Gauge, "waiting_bytes" ["cluster"]
        "Bytes of request bodies that are held for those who wait for a cluster, or who wait again when it turns them away.";
    QUEUE_WAIT = Kind::Histogram(DURATION_BOUNDS), "queue_wait_seconds" ["cluster"]
        "Time that requests which waited spent in the waiting room, those included that got no endpoint.";
    DEMAND = Kind::Gauge, "demand" ["cluster", "signal"]
        "What requests want of a cluster with scale: in_flight, waiting, rate per second; and what its servers tell when it is a target, summed over replicas: queue, kv_cache.";
    SIGNAL_STALE = Kind::Gauge, "signal_stale" ["cluster", "signal", "reason"]
        "1 when the servers of a cluster do not tell a signal that is a target, and why; else 0, with an empty reason.";
    DESIRED_REPLICAS = Kind::Gauge, "desired_replicas" ["cluster"]
        "Replicas that the scaler wants.";
    REPLICAS = Kind::Gauge, "replicas" ["cluster", "state"]
        "Replicas of a cluster with scale, by state: starting, ready or stopping.";
    START_SECONDS = Kind::Histogram(DURATION_BOUNDS), "start_seconds" ["cluster", "phase"]
        "Time that replicas took to start: place, waiting for a device; process, from its spawn until it is ready; total, from when it was wanted until it is ready.";
    CLUSTER_INFO = Kind::Gauge, "cluster_info" ["cluster", "namespace", "kind", "name"]
        "Always 1; the labels say what brings the replicas of a cluster with scale: process, webhook or observe, or an object of Kubernetes.";
    ENDPOINT_IN_FLIGHT = Kind::Gauge, "endpoint_in_flight" ["cluster", "endpoint"]
        "Requests in flight on an endpoint; at most 1000 endpoints are exported.";
    ENDPOINT_HEALTHY = Kind::Gauge, "endpoint_healthy" ["cluster", "endpoint"]
        "1 when an endpoint may be chosen, else 0; at most 1000 endpoints are exported.";
    ENDPOINT_EJECTIONS = Kind::Counter, "endpoint_ejections_total" ["cluster", "endpoint"]
        "Times an endpoint was ejected because its answers failed; at most 1000 endpoints are exported.";
    CONNECTIONS = Kind::Gauge, "connections" ["listener"]
        "Open downstream connections.";
    CONNECTION_ERRORS = Kind::Counter, "connection_errors_total" ["listener", "reason"]
        "Downstream connections that failed outside any request, by why.";
    CONFIG_RELOADS = Kind::Counter, "config_reloads_total" ["result"]
        "Reloads of the configuration; result is success or failure.";
    CONFIG_GENERATION = Kind::Gauge, "config_generation" []
        "Number of the configuration that is served, counting from 1.";
    CONFIG_LAST_RELOAD_SUCCESS = Kind::Gauge, "config_last_reload_success" []
        "1 when the last attempt to load the configuration succeeded, else 0.";
    CONFIG_INFO = Kind::Gauge, "config_info" ["hash"]
        "Always 1; the label is the hash of the configuration that is served.";
    ACCESS_LOG_DROPPED = Kind::Counter, "access_log_dropped_total" []
        "Access log lines lost because the log could not be written fast enough or at all.";
    REPLACE_SKIPPED = Kind::Counter, "replace_skipped_total" []
        "Answers whose body was not edited because of an encoding that is not read.";
    PANICS = Kind::Counter, "panics_total" []
        "Panics caught while a request was served.";
    BUILD_INFO = Kind::Gauge, "build_info" ["version"]
        "Always 1; the label is the version of the proxy.";
}

/// Families about the process, named by convention and so without our prefix.
pub const PROCESS_FAMILIES: &[(&str, &str)] = &[
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];

impl Kind {
    /// The name of the kind in the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Returns the reference of all families as a Markdown table; the documentation is made from it.
pub fn reference() -> String {
    let mut out = String::from("| family | kind | labels | meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let kind = family.kind.as_str();
        out.push_str(&format!(
            "| `{}` | {kind} | {} | {} |\n",
            family.name,
            labels.join(" "),
            family.help
        ));
    }
    for (name, kind) in PROCESS_FAMILIES {
        out.push_str(&format!(
            "| `{name}` | {kind} | | As in every Prometheus client. |\n"
        ));
    }
    out
}
