//! What waits for a cluster, how many replicas it has, and how many an operator wants.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use forebay_config::{Cluster, Driver, Scale};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::Desk;
use super::answer::{NAMES, Refusal, json_answer};
use super::command::arguments;
use crate::snapshot::{ClusterView, Snapshot};

/// How long an answer waits until the scaler has taken in what was asked for.
const HEARD: Duration = Duration::from_secs(1);
/// The pause between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Body of a wish.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleArguments {
    /// `None`: not written; `Some(None)`: `null`.
    #[serde(default, deserialize_with = "written")]
    replicas: Option<Option<u32>>,
}

fn written<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Wants so many replicas whatever the demand is, or by demand again; answers with what is known of the replicas once
/// the scaler has heard it.
pub(super) async fn scale(
    State(desk): State<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, Refusal> {
    let Path(name) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let wanted: ScaleArguments = arguments(body).await?;
    let snapshot = desk.control.snapshot();
    let cluster = cluster_of(&snapshot, &name)?;
    let Some(scale) = &cluster.config.scale else {
        let message = format!("cluster `{name}` has no `scale`: nobody starts or stops it");
        return Err(Refusal::bad_request(message));
    };
    let Some(replicas) = wanted.replicas else {
        return Err(Refusal::bad_request(
            "`replicas` is a number, or null for as many as the demand asks for",
        ));
    };
    let max = scale.max;
    if replicas.is_some_and(|replicas| replicas > max) {
        let message = format!("`replicas` is 0 … {max}, the `max` of cluster `{name}`, or null");
        return Err(Refusal::bad_request(message));
    }
    if desk.control.is_draining() {
        let message = "the proxy drains";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Refusal::new(status, "draining", message));
    }
    if !desk.control.scaling.pin(&name, replicas) {
        let message = format!("cluster `{name}` is not scaled; the log says why");
        return Err(Refusal::not_found(message));
    }
    let report = heard(&desk, &name, replicas).await;
    let mut fields = scale_json(scale, &report);
    fields["cluster"] = json!(name);
    Ok(json_answer(StatusCode::OK, &fields))
}

/// Returns the report of a cluster when it says what was asked for, or for too long something else.
async fn heard(desk: &Desk, cluster: &str, replicas: Option<u32>) -> Value {
    let begun = Instant::now();
    loop {
        let mut report = desk.control.scaling.report();
        let report = report[cluster].take();
        if report["override"] == json!(replicas) || begun.elapsed() > HEARD {
            return report;
        }
        sleep(LOOK).await;
    }
}

/// Finds a cluster, or refuses with the names there are.
pub(super) fn cluster_of<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a Arc<ClusterView>, Refusal> {
    snapshot.clusters.get(name).ok_or_else(|| {
        let clusters = snapshot.config.clusters.iter().take(NAMES);
        let names: Vec<&str> = clusters.map(|cluster| cluster.name.as_str()).collect();
        let message = format!("there is no cluster `{name}`");
        Refusal::not_found(message).with("clusters", names)
    })
}

/// Returns what `/api/clusters` shows of the waiting room and the replicas; empty for a cluster that has neither.
///
/// * `reports`: of the scaler, by cluster
pub(super) fn room_json(cluster: &ClusterView, reports: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    let config = &cluster.config;
    if !config.has_room() {
        return fields;
    }
    let report = cluster.state.room().report();
    let queue = config.queue.clone().unwrap_or_default();
    let oldest = report.oldest.map(|wait| wait.as_secs_f64());
    fields.insert("waiting".into(), json!(report.demand.waiting));
    fields.insert("waiting_bytes".into(), json!(report.held));
    fields.insert("oldest_wait".into(), json!(oldest));
    fields.insert("concurrency".into(), json!(config.concurrency));
    let bounds = json!({
        "max_requests": queue.max_requests,
        "max_bytes": queue.max_bytes,
        "saturated": queue.saturated.as_secs_f64(),
        "empty": queue.empty.as_secs_f64(),
    });
    fields.insert("queue".into(), bounds);
    if let Some(shown) = replicas(config, reports) {
        fields.insert("scale".into(), shown);
    }
    fields
}

/// Returns what is known of the replicas of a cluster; `None`: nobody scales it.
///
/// * `reports`: of the scaler, by cluster
pub(super) fn replicas(cluster: &Cluster, reports: &Value) -> Option<Value> {
    let scale = cluster.scale.as_ref()?;
    let report = reports.get(&cluster.name)?;
    Some(scale_json(scale, report))
}

fn scale_json(scale: &Scale, report: &Value) -> Value {
    let mut fields = report.clone();
    fields["driver"] = json!(match scale.driver {
        Driver::Process(_) => "process",
        Driver::Webhook { .. } => "webhook",
        Driver::Observe => "observe",
    });
    fields["min"] = json!(scale.min);
    fields["max"] = json!(scale.max);
    fields["until"] = json!(until(scale, report));
    fields
}

/// Seconds until idleness ends what is beyond `min`; `None`: there is demand, or nothing will end.
fn until(scale: &Scale, report: &Value) -> Option<f64> {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let demand = &report["demand"];
    let kept = count(&report["desired"]) <= scale.min.into()
        || count(&demand["in_flight"]) + count(&demand["waiting"]) > 0
        || !report["override"].is_null()
        || scale.driver == Driver::Observe;
    let idle_for = report["idle_for"].as_f64().filter(|_| !kept)?;
    Some((scale.idle?.as_secs_f64() - idle_for).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_config::load::{SourceFile, load};

    fn scaled(keys: &str) -> Scale {
        let endpoints = match keys.contains("process") {
            true => "[]",
            false => "['127.0.0.1:1']",
        };
        let text = format!("clusters: [{{name: c, endpoints: {endpoints}, scale: {{{keys}}}}}]\n");
        let source = SourceFile {
            name: "a.yaml".into(),
            directory: "/etc/forebay".into(),
            text,
        };
        let config = load(&[source], &|_| None).unwrap().config;
        config.clusters[0].scale.clone().unwrap()
    }

    #[test]
    fn the_end_of_a_replica_is_told_only_when_idleness_will_end_it() {
        let idle = json!({"desired": 1, "idle_for": 20.0, "override": null, "demand": {"in_flight": 0, "waiting": 0}});
        let with = |key: &str, value: Value| {
            let mut report = idle.clone();
            report[key] = value;
            report
        };
        let process = "process: {command: 'x ${PORT}'}";
        let scale = scaled(&format!("idle: 30s, {process}"));
        assert_eq!(until(&scale, &idle), Some(10.0));
        assert_eq!(until(&scale, &with("idle_for", json!(31))), Some(0.0));
        for report in [
            with("desired", json!(0)),
            with("idle_for", Value::Null),
            with("override", json!(1)),
            with("demand", json!({"in_flight": 1, "waiting": 0})),
        ] {
            assert_eq!(until(&scale, &report), None, "{report}");
        }
        for keys in [
            format!("idle: none, {process}"),
            format!("min: 1, {process}"),
            "idle: 30s, observe: {}".to_owned(),
        ] {
            assert_eq!(until(&scaled(&keys), &idle), None, "{keys}");
        }
    }
}
