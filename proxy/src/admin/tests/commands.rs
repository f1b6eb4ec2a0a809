//! What changes a running proxy.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::PLAIN;
use crate::admin::testing::{Stage, get, post, send};

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
async fn too_large_a_body_is_refused() {
    let stage = Stage::new(PLAIN).await;
    let answer = post(&stage.api(), "/api/drain", &" ".repeat(70 << 10)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!stage.control.is_draining());
}
