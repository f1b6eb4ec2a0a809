//! One scrape in the making, and the only place that knows the `prometheus` crate.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, TextEncoder, proto};

use super::Source;
use super::cells::Distribution;
use super::family::{FAMILIES, Family, Kind};

/// The samples of one scrape.
#[derive(Default)]
pub struct Samples {
    families: BTreeMap<&'static str, (&'static Family, Vec<proto::Metric>)>,
}

impl Samples {
    /// Adds one value of a counter or gauge.
    ///
    /// * `family`: a row of the table that is no histogram
    /// * `labels`: one value per label of the family, in its order
    pub fn add(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let mut metric = labelled(family, labels);
        match family.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Histogram(_) => {
                debug_assert!(false, "{} is a histogram", family.name);
                return;
            }
        }
        self.push(family, metric);
    }

    /// Adds one distribution.
    ///
    /// * `family`: a row of the table that is a histogram
    /// * `labels`: one value per label of the family, in its order
    pub fn add_distribution(
        &mut self,
        family: &'static Family,
        labels: &[&str],
        value: &Distribution,
    ) {
        let Kind::Histogram(bounds) = family.kind else {
            debug_assert!(false, "{} is no histogram", family.name);
            return;
        };
        debug_assert!(
            value.count() == 0 || value.bounds == bounds,
            "{} has other buckets",
            family.name
        );
        let mut cumulative = 0;
        let buckets = bounds.iter().zip(&value.counts).map(|(&bound, &count)| {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e9);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(value.count());
        histogram.set_sample_sum(value.sum);
        let mut metric = labelled(family, labels);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: &'static Family, metric: proto::Metric) {
        self.families
            .entry(family.name)
            .or_insert_with(|| (family, Vec::new()))
            .1
            .push(metric);
    }

    fn into_families(self) -> Vec<proto::MetricFamily> {
        let families = self.families.into_values().map(|(family, metrics)| {
            let mut out = proto::MetricFamily::default();
            out.set_name(family.name.to_owned());
            out.set_help(family.help.to_owned());
            out.set_field_type(match family.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
                Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
            });
            out.set_metric(metrics);
            out
        });
        families.collect()
    }
}

fn labelled(family: &Family, labels: &[&str]) -> proto::Metric {
    debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
    let pairs = family.labels.iter().zip(labels).map(|(&name, &value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}

/// The registry: the process's own families and one source for all of ours.
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new(source: Source) -> Self {
        let descs = FAMILIES.iter().map(|family| {
            let labels = family
                .labels
                .iter()
                .map(|&label| label.to_owned())
                .collect();
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                labels,
                Default::default(),
            )
            .expect("the table holds legal names")
        });
        let registry = Registry::new();
        let ours = Bridge {
            descs: descs.collect(),
            source,
        };
        registry
            .register(Box::new(ours))
            .expect("the table names each family once");
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry
            .register(Box::new(process))
            .expect("our prefix is not process_");
        Self(registry)
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.0.gather(), &mut text)
            .expect("gather leaves out empty families and a String takes all text");
        text.into_bytes()
    }
}

struct Bridge {
    descs: Vec<Desc>,
    source: Source,
}

impl Collector for Bridge {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples::default();
        (self.source)(&mut samples);
        samples.into_families()
    }
}
