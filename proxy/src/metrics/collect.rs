//! One scrape: the sums over workers, family by family.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::cells::{COMMON_CODES, Distribution, OTHER, OTHER_CODE, lock};
use super::family as f;
use super::{CONNECTION_ERRORS, ConfigState, Inner, MAX_ENDPOINTS, Names, Samples, Traffic};

/// The result of a reload, exported at 0 from the start.
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

/// The reason that every pair starts `aborted_total` with.
const FIRST_ABORT: &str = "client_closed";

/// The reason that every cluster starts `retries_total` with.
const FIRST_RETRY: &str = "connect";

impl Inner {
    pub(super) fn collect(&self, samples: &mut Samples) {
        lock(&self.names).collect(samples);
        lock(&self.config).collect(samples);
        self.collect_endpoints(samples);
        samples.add(
            &f::ACCESS_LOG_DROPPED,
            &[],
            self.access_log_dropped.load(Ordering::Relaxed) as f64,
        );
        let skipped = self.replace_skipped.load(Ordering::Relaxed) as f64;
        samples.add(&f::REPLACE_SKIPPED, &[], skipped);
        samples.add(&f::PANICS, &[], self.panics.load(Ordering::Relaxed) as f64);
        samples.add(&f::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        let sources = lock(&self.sources).clone();
        sources.iter().for_each(|source| source(samples));
    }

    fn collect_endpoints(&self, samples: &mut Samples) {
        let source = lock(&self.endpoints).clone(); // asked without our lock, whatever it locks itself
        let mut endpoints = Vec::new();
        if let Some(source) = source {
            source(&mut endpoints);
        }
        for sample in endpoints.iter().take(MAX_ENDPOINTS) {
            let labels = [&*sample.cluster, &*sample.endpoint];
            samples.add(&f::ENDPOINT_IN_FLIGHT, &labels, sample.in_flight as f64);
            samples.add(
                &f::ENDPOINT_HEALTHY,
                &labels,
                f64::from(u8::from(sample.healthy)),
            );
            samples.add(&f::ENDPOINT_EJECTIONS, &labels, sample.ejections as f64);
        }
    }
}

impl ConfigState {
    fn collect(&self, samples: &mut Samples) {
        samples.add(&f::CONFIG_RELOADS, &[SUCCESS], self.successes as f64);
        samples.add(&f::CONFIG_RELOADS, &[FAILURE], self.failures as f64);
        samples.add(&f::CONFIG_GENERATION, &[], self.generation as f64);
        let succeeded = self.generation > 0 && !self.last_failed;
        samples.add(
            &f::CONFIG_LAST_RELOAD_SUCCESS,
            &[],
            f64::from(u8::from(succeeded)),
        );
        if self.generation > 0 {
            samples.add(&f::CONFIG_INFO, &[&self.hash], 1.0);
        }
    }
}

impl Names {
    fn collect(&self, samples: &mut Samples) {
        for (traffic, configured) in self.pairs.iter() {
            collect_traffic(samples, traffic, configured);
        }
        for (timings, _) in self.timings.iter() {
            let labels = [&*timings.route, &*timings.cluster];
            let cells = || timings.cells.iter();
            for (family, sum) in [
                (
                    &f::REQUEST_DURATION,
                    Distribution::of(cells().map(|cell| &cell.duration)),
                ),
                (
                    &f::FIRST_BYTE,
                    Distribution::of(cells().map(|cell| &cell.first_byte)),
                ),
                (
                    &f::OVERHEAD,
                    Distribution::of(cells().map(|cell| &cell.overhead)),
                ),
            ] {
                samples.add_distribution(family, &labels, &sum);
            }
        }
        for (cluster, _) in self
            .clusters
            .iter()
            .filter(|(cluster, _)| !cluster.cluster.is_empty())
        {
            let arrivals: u64 = cluster.cells.iter().map(|cell| cell.arrivals.value()).sum();
            samples.add(&f::ARRIVALS, &[&cluster.cluster], arrivals as f64);
            let mut retries = BTreeMap::from([(FIRST_RETRY, 0)]);
            for cell in &cluster.cells {
                lock(&cell.retries)
                    .iter()
                    .for_each(|(reason, count)| *retries.entry(reason).or_default() += count);
            }
            for (reason, count) in retries {
                samples.add(&f::RETRIES, &[&cluster.cluster, reason], count as f64);
            }
        }
        for (name, listener) in self.listeners.entries() {
            samples.add(&f::CONNECTIONS, &[name], listener.connections() as f64);
            let mut errors: BTreeMap<&str, u64> = CONNECTION_ERRORS
                .iter()
                .map(|&reason| (reason, 0))
                .collect();
            listener
                .errors()
                .into_iter()
                .for_each(|(reason, count)| *errors.entry(reason).or_default() += count);
            for (reason, count) in errors {
                samples.add(&f::CONNECTION_ERRORS, &[name, reason], count as f64);
            }
        }
    }
}

/// What the cells of a pair hold together.
#[derive(Default)]
struct Sum {
    in_flight: u64,
    request_bytes: u64,
    response_bytes: u64,
    requests: BTreeMap<(u16, &'static str), u64>,
    refused: BTreeMap<&'static str, u64>,
    aborted: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn of(traffic: &Traffic) -> Self {
        let mut sum = Self::default();
        for cell in &traffic.cells {
            sum.in_flight = sum.in_flight.wrapping_add(cell.in_flight.value());
            sum.request_bytes += cell.request_bytes.value();
            sum.response_bytes += cell.response_bytes.value();
            for (&code, count) in COMMON_CODES.iter().zip(&cell.answered) {
                if count.value() > 0 {
                    *sum.requests.entry((code, "")).or_default() += count.value();
                }
            }
            let rare = lock(&cell.rare);
            for (code, count) in rare.codes.iter() {
                *sum.requests.entry((code, "")).or_default() += count;
            }
            for ((code, reason), count) in rare.refused.iter() {
                *sum.requests.entry((code, reason)).or_default() += count;
                *sum.refused.entry(reason).or_default() += count;
            }
            for (reason, count) in rare.aborted.iter() {
                *sum.aborted.entry(reason).or_default() += count;
            }
        }
        sum
    }

    fn is_zero(&self) -> bool {
        let numbers = [self.in_flight, self.request_bytes, self.response_bytes];
        numbers == [0; 3] && self.requests.is_empty() && self.aborted.is_empty()
    }
}

impl Traffic {
    /// Returns how many answers' heads were sent, over all workers and codes, our own refusals included.
    pub fn answers(&self) -> u64 {
        Sum::of(self).requests.values().sum()
    }
}

fn collect_traffic(samples: &mut Samples, traffic: &Traffic, configured: bool) {
    let (route, cluster) = (&*traffic.route, &*traffic.cluster);
    let mut sum = Sum::of(traffic);
    if !configured && sum.is_zero() {
        return;
    }
    if configured {
        if route.is_empty() {
            sum.requests.entry((404, "no_route")).or_default();
            sum.refused.entry("no_route").or_default();
        } else {
            sum.requests.entry((200, "")).or_default();
        }
        sum.aborted.entry(FIRST_ABORT).or_default();
    }
    for ((code, reason), count) in sum.requests {
        let code = if code == OTHER_CODE {
            OTHER.to_owned()
        } else {
            code.to_string()
        };
        samples.add(&f::REQUESTS, &[route, cluster, &code, reason], count as f64);
    }
    for (reason, count) in sum.refused {
        samples.add(&f::REFUSED, &[route, cluster, reason], count as f64);
    }
    for (reason, count) in sum.aborted {
        samples.add(&f::ABORTED, &[route, cluster, reason], count as f64);
    }
    samples.add(
        &f::IN_FLIGHT,
        &[route, cluster],
        sum.in_flight.cast_signed() as f64,
    );
    samples.add(
        &f::REQUEST_BYTES,
        &[route, cluster],
        sum.request_bytes as f64,
    );
    samples.add(
        &f::RESPONSE_BYTES,
        &[route, cluster],
        sum.response_bytes as f64,
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metrics;
    use super::super::tests::{assert_has, busy, text};

    #[test]
    fn workers_are_summed() {
        let metrics = busy();
        let traffic = metrics.traffic("r", "c");
        for index in 0..2 {
            let cells = traffic.worker(index);
            cells.arrived();
            cells.begin();
            cells.answered(200);
            cells.answered(418);
            cells.answered(999);
            cells.refused(429, "queue_full");
            cells.refused(200, "queue_full");
            cells.aborted("idle_timeout");
            cells.retried("503");
            cells.request_bytes(10);
            cells.response_bytes(1 << 40);
        }
        traffic.worker(0).end();
        let text = text(&metrics);
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="200",reason=""} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="418",reason=""} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="999",reason=""} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="429",reason="queue_full"} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="200",reason="queue_full"} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_refused_total{route="r",cluster="c",reason="queue_full"} 4"#,
        );
        assert_has(
            &text,
            r#"forebay_aborted_total{route="r",cluster="c",reason="idle_timeout"} 2"#,
        );
        assert_has(
            &text,
            r#"forebay_retries_total{cluster="c",reason="503"} 2"#,
        );
        assert_has(&text, r#"forebay_arrivals_total{cluster="c"} 2"#);
        assert_has(
            &text,
            r#"forebay_requests_in_flight{route="r",cluster="c"} 1"#,
        );
        assert_has(
            &text,
            r#"forebay_request_bytes_total{route="r",cluster="c"} 20"#,
        );
        assert_has(
            &text,
            r#"forebay_response_bytes_total{route="r",cluster="c"} 2199023255552"#,
        );
    }

    #[test]
    fn durations_fall_into_cumulative_buckets() {
        let metrics = busy();
        let traffic = metrics.traffic("r", "c");
        traffic.worker(0).observe_duration(Duration::from_millis(1));
        traffic
            .worker(1)
            .observe_duration(Duration::from_nanos(1_000_001));
        traffic
            .worker(1)
            .observe_duration(Duration::from_secs(1000));
        traffic
            .worker(1)
            .observe_overhead(Duration::from_micros(80));
        let text = text(&metrics);
        let bucket = |le: &str, count: u32| {
            format!(
                r#"forebay_request_duration_seconds_bucket{{route="r",cluster="c",le="{le}"}} {count}"#
            )
        };
        assert_has(&text, &bucket("0.001", 1));
        assert_has(&text, &bucket("0.0025", 2));
        assert_has(&text, &bucket("600", 2));
        assert_has(&text, &bucket("+Inf", 3));
        assert_has(
            &text,
            r#"forebay_request_duration_seconds_count{route="r",cluster="c"} 3"#,
        );
        assert_has(
            &text,
            r#"forebay_overhead_seconds_bucket{route="r",cluster="c",le="0.0001"} 1"#,
        );
        assert_has(
            &text,
            r#"forebay_overhead_seconds_sum{route="r",cluster="c"} 0.00008"#,
        );
    }

    #[test]
    fn what_the_configuration_implies_starts_at_zero() {
        let metrics = Metrics::new(1);
        metrics.sync([("r", "c"), ("ping", "")]);
        metrics.listener("public");
        let text = text(&metrics);
        assert_has(
            &text,
            r#"forebay_requests_total{route="r",cluster="c",code="200",reason=""} 0"#,
        );
        assert_has(
            &text,
            r#"forebay_requests_total{route="ping",cluster="",code="200",reason=""} 0"#,
        );
        assert_has(
            &text,
            r#"forebay_refused_total{route="",cluster="",reason="no_route"} 0"#,
        );
        assert_has(
            &text,
            r#"forebay_aborted_total{route="r",cluster="c",reason="client_closed"} 0"#,
        );
        assert_has(&text, r#"forebay_arrivals_total{cluster="c"} 0"#);
        assert_has(&text, r#"forebay_connections{listener="public"} 0"#);
        assert_has(
            &text,
            r#"forebay_connection_errors_total{listener="public",reason="tls_handshake"} 0"#,
        );
        assert_has(&text, "forebay_config_last_reload_success 0");
        assert!(!text.contains(r#"cluster="",code="200",reason="queue"#));
    }

    #[test]
    fn label_values_are_bounded_whatever_upstreams_answer() {
        let metrics = Metrics::new(1);
        metrics.sync([("r", "c")]);
        let traffic = metrics.traffic("r", "c");
        (100..1000).for_each(|code| traffic.worker(0).answered(code));
        let text = text(&metrics);
        let codes = text
            .lines()
            .filter(|line| line.starts_with(r#"forebay_requests_total{route="r""#))
            .count();
        assert!(codes < 80, "{codes}");
        assert!(text.contains(r#"code="_other",reason=""}"#));
    }
}
