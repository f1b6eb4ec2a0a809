//! Rooms and replicas: what is shown of them, and how many an operator wants.

use http::StatusCode;
use serde_json::{Value, json};

use super::PLAIN;
use crate::admin::testing::{Stage, get, post};

/// `a` and `b` are without; nothing here ever starts a process.
const SCALED: &str = "\
- {name: p, concurrency: 2, queue: {max_requests: 7, max_bytes: 1MiB}, scale: {max: 3, process: {command: 'no-such-program ${PORT}'}}}
- {name: o, endpoints: ['127.0.0.1:8003'], scale: {max: 2, observe: {}}}
- {name: w, discover: {dns: {name: nowhere.invalid, port: 80, refresh: 1h}}, scale: {min: 1, max: 2, observe: {}}}
- {name: q, endpoints: ['127.0.0.1:8004'], concurrency: 1}
";

async fn scaled() -> Stage {
    Stage::new(&format!("{PLAIN}{SCALED}")).await
}

async fn cluster(stage: &Stage, name: &str) -> Value {
    let shown = get(&stage.api(), "/api/clusters").await.json();
    let mut all = shown["clusters"].as_array().unwrap().iter();
    all.find(|cluster| cluster["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn clusters_tell_of_their_room_and_their_replicas_if_they_have_any() {
    let stage = scaled().await;
    let p = cluster(&stage, "p").await;
    let room = ["waiting", "waiting_bytes", "oldest_wait", "concurrency"];
    assert_eq!(
        room.map(|key| p[key].clone()),
        [json!(0), json!(0), Value::Null, json!(2)]
    );
    let queue = json!({"max_requests": 7, "max_bytes": 1 << 20, "saturated": 60.0, "empty": 600.0});
    assert_eq!(p["queue"], queue);
    let scale = &p["scale"];
    let counts = ["min", "max", "desired", "ready", "starting", "stopping"];
    let counts = counts.map(|key| scale[key].as_u64().unwrap());
    assert_eq!(counts, [0, 3, 0, 0, 0, 0]);
    assert_eq!(scale["driver"], "process");
    for key in ["until", "idle_for", "override", "last_failure", "start_p95"] {
        assert!(scale.get(key).is_some_and(Value::is_null), "{key}");
    }
    let q = cluster(&stage, "q").await;
    assert_eq!((&q["concurrency"], q.get("scale")), (&json!(1), None));
    assert_eq!(q["queue"]["max_requests"], 1000);
    assert_eq!(cluster(&stage, "a").await.get("waiting"), None);
}

#[tokio::test]
async fn an_operator_wants_replicas_and_leaves_it_to_demand_again() {
    let stage = scaled().await;
    let api = stage.api();
    let path = "/api/clusters/o/scale";
    let answer = post(&api, path, r#"{"replicas": 2}"#).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let report = answer.json();
    assert_eq!(
        (&report["cluster"], &report["override"]),
        (&json!("o"), &json!(2))
    );
    assert_eq!((&report["desired"], &report["max"]), (&json!(2), &json!(2)));
    let shown = cluster(&stage, "o").await;
    assert_eq!(shown["scale"]["override"], 2);
    let page = get(&api, "/ui/").await;
    assert!(page.text().contains("2 by API"), "{}", page.text());
    for (path, body) in [
        ("/api/clusters/p/scale", r#"{"replicas": 0}"#),
        (path, r#"{"replicas": 0}"#),
    ] {
        let answer = post(&api, path, body).await.json();
        assert_eq!(
            (&answer["override"], &answer["desired"]),
            (&json!(0), &json!(0))
        );
    }
    let answer = post(&api, path, r#"{"replicas": null}"#).await;
    assert_eq!(answer.json()["override"], Value::Null);
}

#[tokio::test]
async fn wishes_that_mean_nothing_are_refused() {
    let stage = scaled().await;
    let api = stage.api();
    for (cluster, body) in [
        ("o", ""),
        ("o", "{}"),
        ("o", r#"{"replicas": 3}"#),
        ("o", r#"{"replicas": -1}"#),
        ("o", r#"{"replicas": 1.5}"#),
        ("o", r#"{"replicas": "1"}"#),
        ("o", r#"{"replicas": 1, "for": "5m"}"#),
        ("q", r#"{"replicas": 1}"#),
    ] {
        let answer = post(&api, &format!("/api/clusters/{cluster}/scale"), body).await;
        let got = (answer.status, answer.code());
        let wanted = (StatusCode::BAD_REQUEST, "bad_request".to_owned());
        assert_eq!(got, wanted, "{cluster} {body}");
    }
    let answer = post(&api, "/api/clusters/no%2Fne/scale", r#"{"replicas": 1}"#).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let names = json!(["a", "b", "p", "o", "w", "q"]);
    assert_eq!(answer.json()["error"]["clusters"], names);
    stage.control.drain(Some(std::time::Duration::ZERO), None);
    let answer = post(&api, "/api/clusters/o/scale", r#"{"replicas": 1}"#).await;
    assert_eq!(answer.code(), "draining");
    assert_eq!(cluster(&stage, "o").await["scale"]["override"], Value::Null);
}

#[tokio::test]
async fn a_cluster_that_may_sleep_is_ready_and_one_that_may_not_is_not() {
    let stage = scaled().await;
    let api = stage.api();
    let p = get(&api, "/readyz?cluster=p").await;
    assert_eq!(p.status, StatusCode::OK);
    let w = get(&api, "/readyz?cluster=w").await;
    assert_eq!(w.status, StatusCode::SERVICE_UNAVAILABLE);
}
