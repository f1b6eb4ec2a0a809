//! The table of clusters: what waits, which replicas there are, and how endpoints are.

use std::fmt::{Display, Write};

use serde_json::Value;

use super::{ROWS, Safe, rest};
use crate::admin::view::place;
use crate::admin::{describe, scale};
use crate::cluster::{EndpointReport, EndpointState};
use crate::snapshot::{ClusterView, Snapshot};

/// * `reports`: of the scaler, by cluster
pub(super) fn clusters(out: &mut String, snapshot: &Snapshot, reports: &Value) {
    let all = &snapshot.config.clusters;
    put!(
        out,
        "<h2 id=clusters>Clusters <small>{}</small></h2>",
        all.len()
    );
    out.push_str(
        "<div class=wide><table><thead><tr><th>Cluster<th>Endpoint<th class=n>Weight<th class=n>In flight\
         <th class=n>Waiting<th class=n>Connections<th>Source</thead>",
    );
    let mut left = ROWS;
    for cluster in all
        .iter()
        .filter_map(|cluster| snapshot.clusters.get(&cluster.name))
    {
        if left == 0 {
            break;
        }
        cluster_rows(out, cluster, reports, &mut left);
    }
    out.push_str("</table></div>");
    rest(out, all.len(), "api/clusters");
}

fn cluster_rows(out: &mut String, cluster: &ClusterView, reports: &Value, left: &mut usize) {
    let set = cluster.state.endpoints();
    let shown = set.endpoints.len().min(*left);
    *left = left.saturating_sub(shown.max(1));
    let (name, rows) = (Safe(&cluster.config.name), shown + 1);
    put!(
        out,
        "<tbody><tr id=\"c-{name}\"><th rowspan={rows} scope=rowgroup>{name}"
    );
    let kind = crate::server_kind::of(cluster.config.server).name;
    let protocol = describe::upstream_protocol(cluster.config.protocol);
    let tls = if cluster.config.tls.is_some() {
        ", TLS"
    } else {
        ""
    };
    put!(out, "<small>{kind}, {protocol}{tls}</small>");
    let count = set.endpoints.len();
    let sleeps = cluster.config.scale.as_ref().is_some_and(|s| s.min == 0);
    let class = if count == 0 && !sleeps {
        "bad"
    } else {
        "quiet"
    };
    put!(
        out,
        "<td class={class}>{count} endpoint{}",
        if count == 1 { "" } else { "s" }
    );
    if let Some(report) = scale::replicas(&cluster.config, reports) {
        replicas(out, &report);
    }
    put!(
        out,
        "<td class=n><td class=n><b>{}</b>",
        cluster.state.requests()
    );
    out.push_str("<td class=n>");
    if cluster.config.has_room() {
        put!(out, "<b>{}</b>", cluster.state.room().demand().waiting);
    }
    put!(out, "<td class=n><b>{}</b>", cluster.state.connections());
    put!(
        out,
        "<td rowspan={rows} class=quiet>{}",
        Safe(place(&cluster.config.position))
    );
    for endpoint in set.endpoints.iter().take(shown) {
        put!(out, "<tr><td><code>{}</code>", Safe(&endpoint.label));
        if endpoint.host.parse::<std::net::IpAddr>().is_err() {
            put!(out, " <small>{}</small>", Safe(&endpoint.host));
        }
        state(out, &endpoint.report());
        put!(
            out,
            "<td class=n>{}<td class=n>{}<td class=n>",
            endpoint.weight,
            endpoint.in_flight()
        );
        put!(out, "<td class=n>{}", endpoint.connections());
    }
    out.push_str("</tbody>");
}

/// What there is of a cluster that is scaled, and when it ends.
fn replicas(out: &mut String, report: &Value) {
    for (key, class) in [
        ("ready", "quiet"),
        ("starting", "warn"),
        ("stopping", "quiet"),
    ] {
        let count = report[key].as_u64().unwrap_or_default();
        if count > 0 {
            put!(out, " <span class={class}>{count} {key}</span>");
        }
    }
    let gpu = &report["gpu"];
    let indices = gpu["devices"].as_array().into_iter().flatten();
    for index in indices.filter_map(Value::as_u64) {
        put!(out, " <small>GPU {index}</small>");
    }
    if !gpu["waiting_for"].is_null() {
        let why = gpu["why"].as_str().unwrap_or_default();
        put!(
            out,
            " <span class=warn>waits for a GPU</span> <small>{}</small>",
            Safe(why)
        );
    }
    if let Some(seconds) = report["until"].as_f64() {
        put!(out, " <small>idle, stops in {}</small>", Countdown(seconds));
    }
    if let Some(pinned) = report["override"].as_u64() {
        put!(out, " <span class=warn>{pinned} by API</span>");
    }
    if report["failed_in_a_row"].as_u64().unwrap_or_default() > 0 {
        let why = report["last_failure"].as_str().unwrap_or_default();
        put!(
            out,
            " <span class=bad>start failed</span> <small>{}</small>",
            Safe(why)
        );
    }
}

/// The devices that local processes share: what is taken of each, and by whom.
///
/// * `report`: an object each
pub(super) fn devices(out: &mut String, report: &Value) {
    let devices = report.as_array().map(Vec::as_slice).unwrap_or_default();
    if devices.is_empty() {
        return;
    }
    let number = |device: &Value, key: &str| device[key].as_u64().unwrap_or_default();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    out.push_str("<p class=quiet id=gpus>");
    for device in devices {
        put!(
            out,
            "GPU {}: {:.1} of {:.1} GiB",
            number(device, "index"),
            gib(number(device, "memory_used")),
            gib(number(device, "memory"))
        );
        let cores = number(device, "cores_used");
        if cores > 0 {
            put!(
                out,
                ", {cores} of {} hundredths of its cores",
                number(device, "cores")
            );
        }
        let clusters = device["clusters"].as_array().into_iter().flatten();
        for (place, name) in clusters.filter_map(Value::as_str).enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            put!(out, "{before}{}", Safe(name));
        }
        out.push_str("<br>");
    }
    out.push_str("</p>");
}

/// Seconds as `4:12` or `1:00:09`.
struct Countdown(f64);

impl Display for Countdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = self.0.ceil() as u64;
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        match hours {
            0 => write!(f, "{minutes}:{seconds:02}"),
            _ => write!(f, "{hours}:{minutes:02}:{seconds:02}"),
        }
    }
}

/// What keeps an endpoint from getting requests, if anything does.
fn state(out: &mut String, report: &EndpointReport) {
    let (word, class) = match report.state {
        EndpointState::Healthy if report.busy => ("busy", "quiet"),
        EndpointState::Healthy => return,
        EndpointState::Unknown => ("not checked yet", "quiet"),
        EndpointState::Unhealthy => ("unhealthy", "bad"),
        EndpointState::Ejected => ("ejected", "bad"),
        EndpointState::HalfOpen => ("half open", "quiet"),
        EndpointState::Draining => ("draining", "quiet"),
    };
    put!(out, " <span class={class}>{word}</span>");
    if let Some(error) = &report.check_error {
        put!(out, " <small>{}</small>", Safe(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replicas_read_well_and_failures_are_safe() {
        let mut out = String::new();
        let report = json!({"ready": 1, "starting": 2, "stopping": 0, "until": 3609.2, "override": 3,
                            "failed_in_a_row": 1, "last_failure": "<script>"});
        replicas(&mut out, &report);
        assert_eq!(
            out,
            " <span class=quiet>1 ready</span> <span class=warn>2 starting</span> \
             <small>idle, stops in 1:00:10</small> <span class=warn>3 by API</span> \
             <span class=bad>start failed</span> <small>&lt;script&gt;</small>"
        );
        let mut out = String::new();
        let why = "no <device> has room";
        let report =
            json!({"placing": 1, "gpu": {"devices": [0, 1], "waiting_for": "gpu", "why": why}});
        replicas(&mut out, &report);
        assert_eq!(
            out,
            " <small>GPU 0</small> <small>GPU 1</small> <span class=warn>waits for a GPU</span> \
             <small>no &lt;device&gt; has room</small>"
        );
        assert_eq!(Countdown(59.5).to_string(), "1:00");
    }

    #[test]
    fn devices_tell_what_is_taken_and_by_whom() {
        let mut out = String::new();
        devices(&mut out, &json!([]));
        assert_eq!(out, "");
        let device = |index, used: u64, cores, clusters: &[&str]| {
            json!({"index": index, "memory": 24_u64 << 30, "memory_used": used << 29, "cores": 100,
                   "cores_used": cores, "clusters": clusters})
        };
        devices(
            &mut out,
            &json!([device(0, 17, 50, &["a", "<b>"]), device(1, 0, 0, &[])]),
        );
        assert_eq!(
            out,
            "<p class=quiet id=gpus>GPU 0: 8.5 of 24.0 GiB, 50 of 100 hundredths of its cores: a, &lt;b&gt;<br>\
             GPU 1: 0.0 of 24.0 GiB<br></p>"
        );
    }
}
