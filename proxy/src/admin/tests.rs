//! The rules of the admin API, over its routers without a socket.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::testing::{Stage, get, post, send};

const PLAIN: &str = "\
admin: {address: '127.0.0.1:9901', hosts: [Admin.Example.com]}
listeners: [{name: main, address: '127.0.0.1:0'}]
routes:
- {name: r, match: {path: {prefix: /a}}, split: [{cluster: a, weight: 1}, {cluster: b, weight: 3}]}
- {name: ping, match: {path: {exact: /ping}, headers: {authorization: hunter2}}, respond: {body: pong}}
clusters:
- {name: a, endpoints: ['127.0.0.1:8001', '127.0.0.1:8002']}
- {name: b, discover: {dns: {name: nowhere.invalid, port: 80, refresh: 1h}}}
";
const TOKEN: &str = "admin: {address: '127.0.0.1:9901', token: a-long-enough-token-for-everyone}\n";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn only_names_that_are_ours_are_served() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    for host in [
        "127.0.0.1:9901",
        "[::1]:9901",
        "localhost",
        "LOCALHOST:1",
        "10.0.0.1",
        "admin.example.com:9901",
    ] {
        let answer = send(&api, Method::GET, "/livez", &[("host", host)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{host}");
    }
    for path in ["/livez", "/api/config", "/nothing"] {
        let answer = send(
            &api,
            Method::GET,
            path,
            &[("host", "rebound.example:9901")],
            "",
        )
        .await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (StatusCode::MISDIRECTED_REQUEST, "misdirected")
        );
    }
    for hosts in [
        &[("host", "")][..],
        &[("host", "a b")],
        &[("host", "127.0.0.1"), ("host", "127.0.0.1")],
    ] {
        let answer = send(&api, Method::GET, "/livez", hosts, "").await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (StatusCode::BAD_REQUEST, "bad_host"),
            "{hosts:?}"
        );
    }
    let answer = get(&api, "http://rebound.example/livez").await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn every_command_is_refused_across_sites_and_without_its_content_type() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    let commands = super::routes()
        .into_iter()
        .filter(|(_, method, _)| method == Method::POST);
    let mut seen = 0;
    for (path, ..) in commands {
        seen += 1;
        let strange = [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ];
        for header in strange {
            let answer = send(&api, Method::POST, path, &[JSON, header], "{}").await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (StatusCode::FORBIDDEN, "cross_site"),
                "{header:?}"
            );
        }
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            let answer = send(&api, Method::POST, path, headers, "{}").await;
            assert_eq!(
                answer.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{headers:?}"
            );
        }
    }
    assert!(seen >= 2 && !stage.control.is_draining());
    let own = [
        ("origin", "http://127.0.0.1:9901"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "Application/JSON; charset=utf-8"),
    ];
    let answer = send(&api, Method::POST, "/api/reload", &own, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn a_token_is_wanted_for_everything_but_health() {
    let stage = Stage::new(TOKEN).await;
    let api = stage.api();
    for (path, method, _) in super::routes() {
        let answer = send(
            &api,
            method,
            path,
            &[JSON, ("authorization", "Bearer wrong")],
            "{}",
        )
        .await;
        let open = ["/livez", "/readyz"].contains(&path);
        let expected = if open {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(answer.status, expected, "{path}");
        assert_eq!(answer.header("www-authenticate").is_empty(), open, "{path}");
    }
    assert_eq!(get(&api, "/nothing").await.status, StatusCode::UNAUTHORIZED);
    let bearer = ("authorization", "bearer a-long-enough-token-for-everyone");
    assert_eq!(
        send(&api, Method::GET, "/api/config", &[bearer], "")
            .await
            .status,
        StatusCode::OK
    );
    // x:a-long-enough-token-for-everyone
    let basic = (
        "authorization",
        "Basic eDphLWxvbmctZW5vdWdoLXRva2VuLWZvci1ldmVyeW9uZQ==",
    );
    assert_eq!(
        send(&api, Method::GET, "/ui/", &[basic], "").await.status,
        StatusCode::OK
    );
    let answer = send(&api, Method::POST, "/api/drain", &[basic, JSON], "{}").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (StatusCode::UNAUTHORIZED, "Bearer")
    );
    assert!(!stage.control.is_draining());
}

#[tokio::test]
async fn probes_serve_health_and_metrics_and_nothing_else() {
    let stage = Stage::new(TOKEN).await;
    let probes = stage.probes();
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = send(&probes, Method::GET, path, &[("host", "any.example")], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let open = ["/livez", "/readyz", "/metrics", "/wait-for-drain"];
    for (path, method, _) in super::routes() {
        if !open.contains(&path) {
            assert_eq!(
                send(&probes, method, path, &[JSON], "{}").await.status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }
    for path in open {
        assert_eq!(
            post(&probes, path, "{}").await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert!(!stage.control.is_draining());
}

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
async fn a_refused_reload_says_why_and_changes_nothing() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    std::fs::write(&stage.file, PLAIN.replace("respond", "responds")).unwrap();
    let answer = post(&api, "/api/reload", "").await;
    assert_eq!(
        (answer.status, &*answer.code()),
        (StatusCode::UNPROCESSABLE_ENTITY, "invalid_config")
    );
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["line"], &error["diagnostics"][0]["position"]["line"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(
        get(&api, "/api/config/status").await.json()["last_error"]["line"],
        5
    );
    assert!(
        get(&api, "/ui/")
            .await
            .text()
            .contains("The last reload was refused")
    );
    std::fs::remove_file(&stage.file).unwrap();
    assert_eq!(post(&api, "/api/reload", "{}").await.code(), "unreadable");
    std::fs::write(&stage.file, PLAIN).unwrap();
    let answer = post(&api, "/api/reload", "{}").await;
    assert_eq!(
        (answer.status, &answer.json()["generation"]),
        (StatusCode::OK, &json!(2))
    );
    assert_eq!(answer.json()["last_error"], Value::Null);
}

#[tokio::test]
async fn a_drain_is_begun_or_waited_for() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    for body in [r#"{"delay":"soon"}"#, r#"{"dealy":"0s"}"#, "[]", "{"] {
        assert_eq!(
            post(&api, "/api/drain", body).await.code(),
            "bad_request",
            "{body}"
        );
    }
    assert!(!stage.control.is_draining());
    let waiting = tokio::spawn({
        let probes = stage.probes();
        async move { get(&probes, "/wait-for-drain").await.status }
    });
    let answer = post(
        &api,
        "/api/drain?wait=true",
        r#"{"delay":"0s","timeout":"10s"}"#,
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["drained"]),
        (StatusCode::ACCEPTED, &json!(true))
    );
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    assert_eq!(post(&api, "/api/reload", "{}").await.code(), "draining");
}

#[tokio::test]
async fn weights_are_set_shown_and_removed() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    let path = "/api/routes/r/weights";
    let body = r#"{"weights": {"a": 9, "b": 1}, "for": "15m"}"#;
    let answer = post(&api, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let members = json!([{"cluster": "a", "configured": 1, "effective": 9},
                         {"cluster": "b", "configured": 3, "effective": 1}]);
    assert_eq!(answer.json()["members"], members);
    assert!(answer.json()["expires_at"].is_string());
    let routes = get(&api, "/api/routes").await.json();
    let member = &routes["routes"][0]["action"]["members"][0];
    let shares = [
        &member["weight"],
        &member["share"],
        &member["effective_weight"],
    ];
    assert_eq!(shares, [&json!(1), &json!(0.25), &json!(9)]);
    assert_eq!(member["effective_share"], 0.9);
    let status = get(&api, "/api/config/status").await.json();
    assert_eq!(status["overrides"][0]["weights"], json!({"a": 9, "b": 1}));
    assert_eq!(status["pending"], json!([]));
    let page = get(&api, "/ui/").await;
    assert!(
        page.text()
            .contains("The weights of <b>r</b> are set by API until")
    );
    let config = get(&api, "/api/config").await.json();
    assert_eq!(
        config["routes"][0]["split"][0]["weight"], 1,
        "that of the files"
    );
    for _ in 0..2 {
        let answer = send(&api, Method::DELETE, path, &[], "").await;
        assert_eq!(answer.json()["members"][0]["effective"], 1);
    }
    assert_eq!(
        get(&api, "/api/config/status").await.json()["overrides"],
        json!([])
    );
    let strange = [("origin", "http://evil.example")];
    let answer = send(&api, Method::DELETE, path, &strange, "").await;
    assert_eq!(answer.code(), "cross_site");
}

#[tokio::test]
async fn weights_that_mean_nothing_are_refused() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    for body in [
        "",
        "{}",
        r#"{"weights": {}}"#,
        r#"{"weights": 1}"#,
        r#"{"weights": {"a": 0, "b": 0}}"#,
        r#"{"weights": {"a": -1}}"#,
        r#"{"weights": {"a": 1000001}}"#,
        r#"{"weights": {"a": 1, "a": 2, "b": 3}}"#,
        r#"{"weights": {"c": 1}}"#,
        r#"{"weights": [1]}"#,
        r#"{"weights": [1, 2], "for": "soon"}"#,
        r#"{"weights": [1, 2], "for": "0s"}"#,
        r#"{"weights": [1, 2], "until": "5m"}"#,
    ] {
        let answer = post(&api, "/api/routes/r/weights", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.code(), "bad_request", "{body}");
    }
    let list = r#"{"weights": [1, 2]}"#;
    let answer = post(&api, "/api/routes/ping/weights", list).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = post(&api, "/api/routes/no%2Fne/weights", list).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"]["routes"], json!(["r", "ping"]));
    assert!(answer.text().contains("`no/ne`"));
    assert_eq!(stage.control.status().generation, 1);
}

#[tokio::test]
async fn endpoints_are_drained_by_hand() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    let answer = post(&api, "/api/clusters/a/endpoints/127.0.0.1%3A8001/drain", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let drained = answer.json();
    assert_eq!(
        (&drained["state"], &drained["draining"]),
        (&json!("draining"), &json!(true))
    );
    let shown = get(&api, "/api/clusters").await.json();
    let endpoints = &shown["clusters"][0]["endpoints"];
    assert_eq!(
        (&endpoints[0], &endpoints[1]["state"]),
        (&drained, &json!("healthy"))
    );
    assert!(get(&api, "/ui/").await.text().contains("draining"));
    let answer = post(
        &api,
        "/api/clusters/a/endpoints/127.0.0.1:8001/undrain",
        "{}",
    )
    .await;
    assert_eq!(answer.json()["state"], "healthy");
    for (path, key, names) in [
        (
            "/api/clusters/x/endpoints/127.0.0.1:8001/drain",
            "clusters",
            json!(["a", "b"]),
        ),
        (
            "/api/clusters/b/endpoints/127.0.0.1:8001/drain",
            "endpoints",
            json!([]),
        ),
        (
            "/api/clusters/a/endpoints/nothing/drain",
            "endpoints",
            json!(["127.0.0.1:8001", "127.0.0.1:8002"]),
        ),
    ] {
        let answer = post(&api, path, "{}").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json()["error"][key], names, "{path}");
    }
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
async fn too_large_a_body_is_refused() {
    let stage = Stage::new(PLAIN).await;
    let answer = post(&stage.api(), "/api/drain", &" ".repeat(70 << 10)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!stage.control.is_draining());
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
    let document: Value = serde_json::from_str(super::OPENAPI).unwrap();
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
    let served: BTreeSet<(String, String)> = super::routes()
        .into_iter()
        .map(|(path, method, _)| (path.to_owned(), method.to_string()))
        .collect();
    assert_eq!(described, served);
}
