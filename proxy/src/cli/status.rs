//! `forebay status`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{AdminArgs, Client, ClientError};
use super::{print, print_json, table};

/// Flags of `forebay status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Which proxy is asked.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prints what a running proxy serves.
pub async fn run(args: StatusArgs) -> ExitCode {
    match ask(&args).await {
        Ok((status, _)) if args.json => print_json(&status),
        Ok((status, clusters)) => print(&render(&status, &clusters)),
        Err(error) => error.report(),
    }
}

async fn ask(args: &StatusArgs) -> Result<(Value, Value), ClientError> {
    let client = Client::new(&args.admin)?;
    let status = client.get("/api/config/status").await?;
    let clusters = if args.json {
        Value::Null
    } else {
        client.get("/api/clusters").await?
    };
    Ok((status, clusters))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn render(status: &Value, clusters: &Value) -> String {
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let mut rows = vec![
        vec!["generation".to_owned(), text(&status["generation"])],
        vec!["hash".to_owned(), text(&status["hash"])],
        vec!["applied".to_owned(), text(&status["applied_at"])],
    ];
    rows.extend(
        list("sources")
            .iter()
            .map(|source| vec!["source".to_owned(), text(source)]),
    );
    rows.extend(
        list("warnings")
            .iter()
            .map(|warning| vec!["warning".to_owned(), text(warning)]),
    );
    rows.extend(
        list("overrides")
            .iter()
            .map(|change| vec!["override".to_owned(), weights(change)]),
    );
    rows.extend(list("pending").iter().map(|wait| {
        let clusters = wait["waiting_for"].as_array().into_iter().flatten();
        let clusters: Vec<String> = clusters.map(text).collect();
        let route = text(&wait["route"]);
        let line = format!("{route}: new weights wait for {}", clusters.join(", "));
        vec!["pending".to_owned(), line]
    }));
    if let Value::Object(error) = &status["last_error"] {
        let place = ["file", "line", "column"]
            .iter()
            .filter_map(|key| error.get(*key));
        let place: Vec<String> = place.filter(|value| !value.is_null()).map(text).collect();
        let message = error.get("message").map(text).unwrap_or_default();
        let at = error.get("at").map(text).unwrap_or_default();
        let place = place.join(":");
        let colon = if place.is_empty() { "" } else { ": " };
        rows.push(vec![
            "refused".to_owned(),
            format!("{place}{colon}{message} ({at})"),
        ]);
    }
    let mut out = table::table(&[], &rows);
    let clusters = clusters["clusters"].as_array().cloned().unwrap_or_default();
    if !clusters.is_empty() {
        out.push('\n');
        out.push_str(&cluster_table(&clusters));
    }
    out
}

/// What waits and which replicas there are has columns only where some cluster has them.
fn cluster_table(clusters: &[Value]) -> String {
    let any = |key: &str| clusters.iter().any(|cluster| !cluster[key].is_null());
    let (rooms, scaled) = (any("waiting"), any("scale"));
    let mut head = vec!["CLUSTER", "ENDPOINTS", "IN FLIGHT", "CONNECTIONS"];
    head.extend(rooms.then_some("WAITING"));
    head.extend(scaled.then_some("REPLICAS"));
    let shown = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        value => text(value),
    };
    let row = |cluster: &Value| {
        let endpoints = cluster["endpoints"].as_array().map_or(0, Vec::len);
        let mut row = vec![
            text(&cluster["name"]),
            endpoints.to_string(),
            text(&cluster["in_flight"]),
            text(&cluster["connections"]),
        ];
        row.extend(rooms.then(|| shown(&cluster["waiting"])));
        row.extend(scaled.then(|| replicas(&cluster["scale"])));
        row
    };
    let rows: Vec<Vec<String>> = clusters.iter().map(row).collect();
    table::table(&head, &rows)
}

/// Replicas by what they do, and what is going to change that.
fn replicas(scale: &Value) -> String {
    if scale.is_null() {
        return "-".to_owned();
    }
    let count = |key: &str| scale[key].as_u64().unwrap_or_default();
    let mut parts = vec![format!("{} ready", count("ready"))];
    for state in ["starting", "stopping"] {
        if count(state) > 0 {
            parts.push(format!("{} {state}", count(state)));
        }
    }
    if let Some(seconds) = scale["until"].as_f64() {
        parts.push(format!("idle, stops in {seconds:.0}s"));
    }
    if let Some(pinned) = scale["override"].as_u64() {
        parts.push(format!("{pinned} wanted by API"));
    }
    if count("failed_in_a_row") > 0 {
        let why = scale["last_failure"].as_str().unwrap_or("no reason known");
        parts.push(format!("start failed: {why}"));
    }
    parts.join(", ")
}

/// Weights of a route that were set by API.
fn weights(change: &Value) -> String {
    let members = match &change["weights"] {
        Value::Object(named) => named.iter().map(|(n, w)| format!("{n} {w}")).collect(),
        Value::Array(list) => list.iter().map(Value::to_string).collect(),
        _ => Vec::new(),
    };
    let route = change["route"].as_str().unwrap_or_default();
    let end = match change["expires_at"].as_str() {
        Some(end) => format!(" until {end}"),
        None => String::new(),
    };
    format!("{route}: {}{end}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_reads_well() {
        let status = json!({
            "generation": 3, "hash": "abc", "applied_at": "2026-01-01T00:00:00Z", "sources": ["a.yaml"],
            "warnings": ["`workers` changed"],
            "overrides": [{"route": "r", "weights": {"a": 90, "b": 10}, "configured": {"a": 1, "b": 1}, "expires_at": "soon"}],
            "pending": [{"route": "r", "waiting_for": ["b"]}],
            "last_error": {"message": "unknown key", "file": "a.yaml", "line": 3, "column": null, "at": "then"},
        });
        let clusters = json!({"clusters": [{"name": "c", "endpoints": [{}], "in_flight": 1, "connections": 2}]});
        assert_eq!(
            render(&status, &clusters),
            "generation  3\nhash        abc\napplied     2026-01-01T00:00:00Z\nsource      a.yaml\n\
             warning     `workers` changed\noverride    r: a 90, b 10 until soon\n\
             pending     r: new weights wait for b\nrefused     a.yaml:3: unknown key (then)\n\n\
             CLUSTER  ENDPOINTS  IN FLIGHT  CONNECTIONS\nc        1          1          2\n"
        );
    }

    #[test]
    fn what_waits_and_what_runs_is_told_where_there_is_any() {
        let scale =
            json!({"ready": 1, "starting": 1, "stopping": 0, "until": 29.7, "override": null});
        let failed = json!({"ready": 0, "starting": 0, "override": 2, "failed_in_a_row": 3, "last_failure": "exit status 1"});
        let cluster = |name: &str, more: Value| {
            let mut cluster =
                json!({"name": name, "endpoints": [], "in_flight": 0, "connections": 0});
            let fields = more.as_object().cloned().unwrap();
            cluster.as_object_mut().unwrap().extend(fields);
            cluster
        };
        let clusters = [
            cluster("a", json!({"waiting": 2, "scale": scale})),
            cluster("b", json!({"waiting": 0, "scale": failed})),
            cluster("c", json!({})),
        ];
        assert_eq!(
            cluster_table(&clusters),
            "CLUSTER  ENDPOINTS  IN FLIGHT  CONNECTIONS  WAITING  REPLICAS\n\
             a        0          0          0            2        1 ready, 1 starting, idle, stops in 30s\n\
             b        0          0          0            0        0 ready, 2 wanted by API, start failed: exit status 1\n\
             c        0          0          0            -        -\n"
        );
    }
}
