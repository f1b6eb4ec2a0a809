//! What a running proxy shows of itself.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::PLAIN;
use crate::admin::testing::{Stage, get, send};
use crate::admin::{OPENAPI, routes};

#[tokio::test]
async fn readiness_can_ask_for_a_cluster() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    assert_eq!(get(&api, "/readyz?cluster=a").await.status, StatusCode::OK);
    assert_eq!(
        get(&api, "/readyz?cluster=b").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        get(&api, "/readyz?cluster=none").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&api, "/readyz?cluser=a").await.status,
        StatusCode::BAD_REQUEST
    );
    stage.control.drain(Some(std::time::Duration::ZERO), None);
    let answer = get(&api, "/readyz").await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    );
    assert_eq!(get(&api, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_api_shows_the_running_snapshot_without_secrets() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    let config = get(&api, "/api/config").await;
    assert!(!config.text().contains("hunter2"));
    assert_eq!(config.json()["routes"][0]["split"][1]["weight"], 3);
    let status = get(&api, "/api/config/status").await.json();
    assert_eq!(
        (&status["generation"], &status["last_error"]),
        (&json!(1), &Value::Null)
    );
    stage
        .control
        .metrics()
        .traffic("r", "a")
        .worker(0)
        .answered(200);
    let routes = get(&api, "/api/routes").await;
    assert!(!routes.text().contains("hunter2"));
    let route = &routes.json()["routes"][0];
    let member = json!({"cluster": "a", "weight": 1, "share": 0.25, "effective_weight": 1, "effective_share": 0.25,
               "requests": 1, "observed_share": 1.0});
    assert_eq!(route["action"]["members"][0], member);
    assert_eq!(route["listeners"], json!(["main"]));
    assert!(
        route["source"]
            .as_str()
            .unwrap()
            .ends_with("forebay.yaml:4")
    );
    let clusters = get(&api, "/api/clusters").await.json();
    let endpoint = json!({"address": "127.0.0.1:8001", "host": "127.0.0.1", "weight": 1, "in_flight": 0,
                          "connections": 0, "healthy": true, "state": "healthy", "draining": false, "busy": false,
                          "ejections": 0, "ejected_for": 0.0, "check_error": null});
    assert_eq!(clusters["clusters"][0]["endpoints"][0], endpoint);
    assert_eq!(clusters["clusters"][1]["endpoints"], json!([]));
    let metrics = get(&api, "/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(metrics.text().contains("forebay_config_generation 1"));
}

#[tokio::test]
async fn limits_tell_what_they_counted() {
    let stage = Stage::new(
        "\
rate_limit_policies: [{name: tenants, rate: 100/s, burst: 200, per: {header: x-tenant}, overrides: {acme: 1000/s}}]
routes:
- name: r
  access: {deny: [10.0.0.0/8], dry_run: true}
  rate_limits: [{rate: 1/h, burst: 1, per: client_ip}, {policy: tenants}, {concurrent: 4, per: route}]
  split: [{cluster: a, weight: 1}]
clusters:
- {name: a, endpoints: ['127.0.0.1:8001']}
",
    )
    .await;
    let snapshot = stage.control.snapshot();
    let filters = snapshot.routes[0].filters.as_ref().unwrap();
    let headers = http::HeaderMap::new();
    let client = "10.0.0.1".parse().unwrap();
    filters.enter(client, &headers).unwrap();
    let found = Default::default();
    let asked = crate::filter::Asked {
        headers: &headers,
        client,
        identity: None,
        fields: &found,
        now: crate::filter::bucket::Ticks::at(std::time::Instant::now()),
    };
    let _held = filters.admit(&asked).unwrap();
    assert!(filters.admit(&asked).is_err());
    let answer = get(&stage.api(), "/api/limits").await.json();
    let limits = &answer["limits"];
    assert_eq!(
        limits[0],
        json!({"route": "r", "name": "rate-1", "policy": null, "kind": "rate", "rate": "1/h", "burst": 1,
               "per": "client_ip", "dry_run": false, "overrides": 0, "keys": 1, "refused": 1})
    );
    assert_eq!(
        (&limits[1]["policy"], &limits[1]["keys"]),
        (&json!("tenants"), &json!(1))
    );
    assert_eq!(
        (&limits[2]["kind"], &limits[2]["in_progress"]),
        (&json!("concurrent"), &json!(1))
    );
    let policy = &answer["policies"][0];
    assert_eq!(
        (&policy["name"], &policy["overrides"]),
        (&json!("tenants"), &json!(1))
    );
    assert_eq!(
        (&policy["routes"], &policy["keys"]),
        (&json!(["r"]), &json!(1))
    );
    let access = json!([{"route": "r", "list": null, "deny": 1, "allow": null, "dry_run": true, "denied": 1}]);
    assert_eq!(answer["access"], access);
}

#[tokio::test]
async fn wrong_methods_and_addresses_are_told_as_json() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    for path in ["/nothing", "/api", "/api/taps", "/api/routes/"] {
        assert_eq!(get(&api, path).await.code(), "not_found", "{path}");
    }
    let answer = get(&api, "/api/reload").await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
    let answer = send(&api, Method::DELETE, "/api/config", &[], "").await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD")
    );
    assert_eq!(answer.code(), "method_not_allowed");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn the_dashboard_is_small_strict_and_safe() {
    let stage = Stage::new(&PLAIN.replace("exact: /ping", "exact: '/<script>'")).await;
    let api = stage.api();
    let page = get(&api, "/ui/").await;
    assert!(
        page.text().contains("/&lt;script&gt;") || !page.text().contains("<script>"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("hunter2"));
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let assets = ["/ui/style.css", "/ui/refresh.js"];
    let mut size = page.body.len();
    for path in assets {
        let asset = get(&api, path).await;
        assert_eq!(asset.status, StatusCode::OK);
        size += asset.body.len();
    }
    assert!(size < 50_000, "{size}");
    for path in ["/", "/ui"] {
        let answer = get(&api, path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (StatusCode::PERMANENT_REDIRECT, "/ui/")
        );
    }
}

#[test]
fn each_route_is_in_the_openapi_file_and_back() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .keys()
                .map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = routes()
        .into_iter()
        .map(|(path, method, _)| (path.to_owned(), method.to_string()))
        .collect();
    assert_eq!(described, served);
}
