//! What operators see of it: the log, the routes, and a reload that moves a model.

use std::fmt::Write as _;

use super::*;
use crate::support::until;

fn text(clusters: &[Cluster<'_>], log: &std::path::Path) -> String {
    let routes = "routes: [{name: r, by_model: true}, {name: s, match: {path: {prefix: /s}, model: m}, cluster: a}]";
    let mut text = routed(routes, clusters);
    writeln!(
        text,
        "access_log: {{path: '{}', format: json}}",
        log.display()
    )
    .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_the_client_called_the_model() {
    let upstream = Upstream::fixed("ok").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let clusters = [("a", upstream.address, "server: vllm, models: [real, m]")];
    let proxy = Proxy::start(&text(&clusters, &path)).await;
    let to = |path: &str, model: &str| {
        typed(
            path,
            "application/json",
            &format!("{{\"model\":\"{model}\"}}"),
        )
    };
    assert_eq!(ask(&proxy, &to("/v1/x", "m")).await.text(), "ok");
    assert_eq!(ask(&proxy, &to("/v1/x", "nobody's")).await.status, 404);
    assert_eq!(ask(&proxy, &to("/s", "m")).await.text(), "ok");
    let lines = async || std::fs::read_to_string(&path).unwrap_or_default();
    until("three lines", async || lines().await.lines().count() == 3).await;
    let lines: Vec<serde_json::Value> = lines()
        .await
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let named = |model: &str, route: &str| {
        lines
            .iter()
            .filter(|l| l["model"] == *model && l["route"] == *route)
            .count()
    };
    assert_eq!(
        (named("m", "r"), named("nobody's", "r"), named("m", "s")),
        (1, 1, 1),
        "{lines:?}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_a_model_to_another_cluster() {
    let (a, b) = (Upstream::fixed("a").await, Upstream::fixed("b").await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forebay.yaml");
    let with = |one: &str, other: &str| by_model(&[("a", a.address, one), ("b", b.address, other)]);
    std::fs::write(
        &file,
        with("server: vllm, models: [m]", "server: vllm, models: [n]"),
    )
    .unwrap();
    let proxy = Proxy::start_on(&file).await;
    let m = chat(r#"{"model":"m"}"#);
    assert_eq!(ask(&proxy, &m).await.text(), "a");
    std::fs::write(
        &file,
        with("server: vllm, models: [o]", "server: vllm, models: [n, m]"),
    )
    .unwrap();
    until("it has moved", async || ask(&proxy, &m).await.text() == "b").await;
    assert_eq!(bodies(&b).last().unwrap(), r#"{"model":"n"}"#);
    let moved = proxy.metric(
        "forebay_requests_total",
        &["route=\"models\"", "cluster=\"b\""],
    );
    assert!(moved >= 1.0);
    proxy.stop().await;
}
