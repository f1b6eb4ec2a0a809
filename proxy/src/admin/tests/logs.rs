//! The lines of processes; here none runs, the tests print for it.

use axum::Router;
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::PLAIN;
use crate::admin::testing::{Stage, get};
use crate::driver::log::Log;

const PROCESS: &str = "- {name: p, scale: {process: {command: 'no-such-program ${PORT}'}}}\n";

async fn stage() -> (Stage, Log) {
    let stage = Stage::new(&format!("{PLAIN}{PROCESS}")).await;
    let log = stage.control.scaling.log("p").unwrap();
    (stage, log)
}

async fn follow(api: &Router, query: &str, headers: &[(&str, &str)]) -> BodyDataStream {
    let mut request = Request::get(format!("/api/logs/p{query}")).header("host", "127.0.0.1");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let answer = api.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.into_body().into_data_stream()
}

async fn text(stream: &mut BodyDataStream) -> Option<String> {
    let frame = stream.next().await?.unwrap();
    Some(String::from_utf8(frame.to_vec()).unwrap())
}

/// The number and the object of the next event.
async fn event(stream: &mut BodyDataStream) -> (u64, Value) {
    let event = text(stream).await.unwrap();
    let (id, data) = event.trim_end().split_once('\n').unwrap();
    let id = id.strip_prefix("id: ").unwrap().parse().unwrap();
    let data = data.strip_prefix("data: ").unwrap();
    (id, serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn lines_are_followed_as_they_come() {
    let (stage, log) = stage().await;
    let api = stage.api();
    log.push(1, "before\u{1}\"quoted\"");
    let mut all = follow(&api, "", &[]).await;
    let mut new = follow(&api, "?tail=0", &[]).await;
    log.push(2, "after");
    let (id, data) = event(&mut all).await;
    assert_eq!((id, &data["line"]), (0, &json!("before\u{1}\"quoted\"")));
    assert!(data["at"].as_str().unwrap().ends_with('Z'), "{data}");
    for stream in [&mut all, &mut new] {
        let (id, data) = event(stream).await;
        assert_eq!(
            (id, &data["line"], &data["replica"]),
            (1, &json!("after"), &json!(2))
        );
    }
    let mut again = follow(&api, "?since=0", &[("last-event-id", "0")]).await;
    assert_eq!(event(&mut again).await.0, 1);
    stage.control.end();
    for stream in [&mut all, &mut new, &mut again] {
        assert_eq!(text(stream).await, None);
    }
}

#[tokio::test]
async fn what_is_kept_is_also_given_as_plain_text() {
    let (stage, log) = stage().await;
    (0..150).for_each(|n| log.push(1, &n.to_string()));
    let api = stage.api();
    for (query, count, last) in [
        ("?follow=false", 100, "149\n"),
        ("?follow=false&tail=2", 2, "148\n149\n"),
        ("?follow=false&since=149", 1, "149\n"),
        ("?follow=false&since=0", 150, "149\n"),
        ("?follow=false&since=150", 0, ""),
    ] {
        let answer = get(&api, &format!("/api/logs/p{query}")).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.text().lines().count(), count, "{query}");
        assert!(answer.text().ends_with(last), "{query}");
    }
    for query in ["?follow=perhaps", "?tail=-1", "?sinse=1"] {
        let answer = get(&api, &format!("/api/logs/p{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    for (cluster, more) in [("none", true), ("a", false)] {
        let answer = get(&api, &format!("/api/logs/{cluster}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{cluster}");
        assert_eq!(answer.json()["error"].get("clusters").is_some(), more);
    }
}

#[tokio::test]
async fn only_so_many_follow_at_once() {
    let (stage, log) = stage().await;
    let api = stage.api();
    let mut all = Vec::new();
    for _ in 0..crate::admin::FOLLOWERS {
        all.push(follow(&api, "", &[]).await);
    }
    let answer = get(&api, "/api/logs/p").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.code(), "overloaded");
    let text = get(&api, "/api/logs/p?follow=false").await;
    assert_eq!(text.status, StatusCode::OK);
    all.pop();
    log.push(1, "x");
    assert_eq!(event(&mut follow(&api, "", &[]).await).await.0, 0);
}

#[tokio::test]
async fn a_quiet_process_is_heard_of_and_one_that_is_gone_ends_the_stream() {
    let (stage, _log) = stage().await;
    let api = stage.api();
    let mut stream = follow(&api, "", &[]).await;
    tokio::time::pause();
    assert_eq!(text(&mut stream).await.unwrap().trim(), ":");
    tokio::time::resume();
    std::fs::write(&stage.file, PLAIN).unwrap();
    stage.control.reload().await.unwrap();
    tokio::time::pause();
    assert_eq!(text(&mut stream).await, None);
}
