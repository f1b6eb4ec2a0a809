//! A component: predictor, transformer or explainer.

use super::server::Server;
use crate::import::native::{Cluster, Observe, Scale, Target, Timeouts};
use crate::import::{Fields, Leaf};

/// Most replicas where nothing bounds them.
const UNBOUNDED: i64 = 10_000;
/// The longest time a native file can say, in seconds: a year.
const YEAR: i64 = 365 * 86_400;

/// Who runs pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Knative, which scales by requests and splits canaries.
    Knative,
    /// A Deployment.
    Standard,
}

/// What a component says of its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    concurrency: Option<Leaf>,
    scale: Option<Scale>,
    /// The clock of its requests.
    pub(super) timeouts: Timeouts,
}

impl Limits {
    /// Reads them.
    pub(super) fn read(
        component: &Fields<'_>,
        annotations: Option<&Fields<'_>>,
        mode: Mode,
    ) -> Self {
        let concurrency = component.whole("containerConcurrency", 0..=1_000_000);
        let total = component.whole("timeout", 0..=YEAR);
        let total = total.filter(|leaf| leaf.whole() != Some(0));
        Self {
            concurrency: concurrency.filter(|leaf| leaf.whole() != Some(0)),
            scale: scale(component, annotations, mode),
            timeouts: Timeouts {
                total: total.map(|leaf| leaf.with(format!("{leaf}s"))),
                ..Timeouts::default()
            },
        }
    }

    /// Gives them to a cluster.
    pub(super) fn apply(&self, cluster: &mut Cluster, server: Server, component: &Fields<'_>) {
        let leaf = |text: &str| Some(Leaf::text(component.at(), text));
        if server.kind != "generic" {
            cluster.server = leaf(server.kind);
        }
        if server.grpc {
            cluster.protocol = leaf("http2");
        }
        cluster.concurrency.clone_from(&self.concurrency);
        cluster.scale.clone_from(&self.scale);
    }
}

/// Reads how many replicas there should be. Who starts them stays as it is: it is only published.
fn scale(component: &Fields<'_>, annotations: Option<&Fields<'_>>, mode: Mode) -> Option<Scale> {
    let at = component.at();
    let min = component.whole("minReplicas", 0..=UNBOUNDED);
    let max = component.whole("maxReplicas", 0..=UNBOUNDED);
    let target = target(component, annotations, mode);
    if min.is_none() && max.is_none() && target.is_none() {
        return None;
    }
    let least = min.as_ref().and_then(Leaf::whole).unwrap_or(1);
    let usual = match mode {
        Mode::Knative => UNBOUNDED,
        Mode::Standard => least.max(1),
    };
    let written = max.as_ref().and_then(Leaf::whole).filter(|max| *max > 0);
    let mut most = written.unwrap_or(usual);
    if most < least {
        component.lost("maxReplicas", format!("less than `minReplicas`, {least}"));
        most = least;
    }
    let max_at = max.as_ref().map_or(at, Leaf::at);
    Some(Scale {
        at: Some(at.clone()),
        min: Some(min.unwrap_or_else(|| Leaf::number(at, least))),
        max: Some(Leaf::number(max_at, most)),
        target: target.unwrap_or_default(),
        observe: Some(Observe),
        ..Scale::default()
    })
}

/// Reads what one replica is meant to carry.
fn target(component: &Fields<'_>, annotations: Option<&Fields<'_>>, mode: Mode) -> Option<Target> {
    const TARGET: &str = "autoscaling.knative.dev/target";
    const METRIC: &str = "autoscaling.knative.dev/metric";
    let own = component.has("scaleTarget") || component.has("scaleMetric");
    let (fields, target_key, metric_key) = match annotations {
        Some(annotations) if !own => (annotations, TARGET, METRIC),
        _ => (component, "scaleTarget", "scaleMetric"),
    };
    let metric = fields.text(metric_key);
    let number = fields.whole(target_key, 1..=1_000_000_000);
    let usual = match mode {
        Mode::Knative => "concurrency",
        Mode::Standard => "cpu",
    };
    match metric.as_ref().map_or(usual, Leaf::as_str) {
        "concurrency" => number.map(|number| Target {
            in_flight: Some(number),
            ..Target::default()
        }),
        "rps" => number.map(|number| Target {
            rate: Some(number.with(format!("{number}/s"))),
            ..Target::default()
        }),
        _ => {
            let note =
                "replicas are wanted by requests here: write `target` of `scale`, or keep the HPA";
            fields.lost(target_key, note);
            fields.lost(metric_key, note);
            None
        }
    }
}
