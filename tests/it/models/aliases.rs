//! An alias is replaced by the name that upstream knows, exactly where it is written.

use super::*;
use crate::support::respond;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn json_bodies_change_in_nothing_but_the_name() {
    let upstream = Upstream::fixed("ok").await;
    for (server, route) in [
        ("vllm", "routes: [{name: r, by_model: true}]"),
        ("generic", "routes: [{name: r, cluster: a}]"),
        (
            "ollama",
            "routes: [{name: r, cluster: a, retry: {when: [reset], methods: all, max_body: 1MiB}}]",
        ),
    ] {
        let keys = format!("server: {server}, models: ['real \"name\"', alias, 'other:tag']");
        let proxy = Proxy::start(&routed(route, &[("a", upstream.address, &keys)])).await;
        let filler = "z".repeat(200_000);
        for (body, want) in [
            (
                r#"{"model":"alias"}"#.to_owned(),
                r#"{"model":"real \"name\""}"#.to_owned(),
            ),
            (
                r#" {"a":{"model":"alias"}, "mod\u0065l" : "ali\u0061s" ,"é": [1.50, 2e0]}  "#
                    .to_owned(),
                r#" {"a":{"model":"alias"}, "mod\u0065l" : "real \"name\"" ,"é": [1.50, 2e0]}  "#
                    .to_owned(),
            ),
            (
                r#"{"model":"real \"name\"","x":1}"#.to_owned(),
                r#"{"model":"real \"name\"","x":1}"#.to_owned(),
            ),
            (
                format!(r#"{{"model":"other:tag","prompt":"{filler}"}}"#),
                format!(r#"{{"model":"real \"name\"","prompt":"{filler}"}}"#),
            ),
        ] {
            let before = bodies(&upstream).len();
            assert_eq!(ask(&proxy, &chat(&body)).await.text(), "ok", "{server}");
            let sizes = body.as_bytes().chunks(7.max(body.len() / 50));
            let chunks: Vec<u8> = sizes
                .flat_map(|piece| {
                    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
                })
                .collect();
            let head =
                "POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunked = [head.as_bytes(), &chunks, b"0\r\n\r\n"].concat();
            assert_eq!(Client::once(proxy.address(), chunked).await.text(), "ok");
            let answer = ask_h2(
                &proxy,
                "/v1/completions",
                "application/json",
                body.as_bytes(),
                900,
            )
            .await;
            assert_eq!(answer.body, b"ok");
            let seen = bodies(&upstream);
            assert_eq!(seen.len(), before + 3);
            let mut seen: Vec<_> = seen.into_iter().filter(|seen| *seen == want).collect();
            seen.dedup();
            assert_eq!(seen, std::slice::from_ref(&want), "{server} {body:.80}");
            assert!(
                bodies(&upstream)
                    .iter()
                    .filter(|seen| **seen == want)
                    .count()
                    >= 3
            );
        }
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_change_in_nothing_but_the_name() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "server: vllm, models: [whisper-large, w]";
    let proxy = Proxy::start(&by_model(&[("a", upstream.address, keys)])).await;
    let form = |model: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"w\"\r\n\r\n{}\r\n--b--\r\n",
            "w\r\n".repeat(40_000)
        )
    };
    let request = typed(
        "/v1/audio/transcriptions",
        "multipart/form-data; boundary=b",
        &form("w"),
    );
    assert_eq!(ask(&proxy, &request).await.text(), "ok");
    assert_eq!(bodies(&upstream), [form("whisper-large")]);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_queries_change_in_nothing_but_the_name() {
    let upstream = Upstream::fixed("ok").await;
    for (server, target, want) in [
        (
            "triton",
            "/v2/models/al%69as/versions/1/infer?x=alias",
            "/v2/models/real%20m/versions/1/infer?x=alias",
        ),
        (
            "tensorflow-serving",
            "/v1/models/alias/labels/s:predict",
            "/v1/models/real%20m/labels/s:predict",
        ),
        (
            "tensorflow-serving",
            "/v1/models/real%20m:predict",
            "/v1/models/real%20m:predict",
        ),
        (
            "torchserve",
            "/predictions/alias/2.0",
            "/predictions/real%20m/2.0",
        ),
        (
            "generic",
            "/v2/models/alias/infer",
            "/v2/models/real%20m/infer",
        ),
        (
            "vllm",
            "/v1/realtime?a=b&model=alias&c",
            "/v1/realtime?a=b&model=real%20m&c",
        ),
        ("vllm", "/v2/models/alias?x", "/v2/models/alias?x"),
    ] {
        let keys = format!("server: {server}, models: ['real m', alias]");
        let route =
            "routes: [{name: r, match: {path: {prefix: /in}}, cluster: a, rewrite: {prefix: /}}]";
        let proxy = Proxy::start(&routed(route, &[("a", upstream.address, &keys)])).await;
        let request = format!("GET /in{target} HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(ask(&proxy, &request).await.text(), "ok");
        upstream.saw(&format!("GET {want} HTTP/1.1\r\n")).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_of_a_split_is_told_its_own_name() {
    let (one, two) = (Upstream::fixed("1").await, Upstream::fixed("2").await);
    let clusters = [
        ("one", one.address, "server: vllm, models: [v1, m]"),
        (
            "two",
            two.address,
            "server: vllm, models: ['a-much-longer-v2', m]",
        ),
    ];
    let routes =
        "routes: [{name: r, split: [{cluster: one, weight: 1}, {cluster: two, weight: 1}]}]";
    let proxy = Proxy::start(&routed(routes, &clusters)).await;
    for _ in 0..40 {
        ask(&proxy, &chat(r#"{"model":"m","n":1}"#)).await;
    }
    let (first, second) = (bodies(&one), bodies(&two));
    assert!(first.len() > 5 && second.len() > 5 && first.len() + second.len() == 40);
    assert!(
        first.iter().all(|body| body == r#"{"model":"v1","n":1}"#),
        "{first:?}"
    );
    assert!(
        second
            .iter()
            .all(|body| body == r#"{"model":"a-much-longer-v2","n":1}"#),
        "{second:?}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_and_a_room_get_the_same_name() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let upstream = Upstream::start(move |mut peer| {
        let tries = Arc::clone(&counted);
        async move {
            while let Some((head, body)) = peer.request().await {
                if head.starts_with("GET") {
                    peer.write(respond(200, "")).await; // a probe
                } else if tries.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                    peer.write(respond(503, "again")).await;
                } else {
                    peer.write(respond(200, &String::from_utf8_lossy(&body)))
                        .await;
                }
            }
        }
    })
    .await;
    let routes = "routes: [{name: r, by_model: true, retry: {attempts: 2, when: [503], methods: all, max_body: 1MiB}}]";
    for room in ["", ", concurrency: 4, queue: {max_requests: 10}"] {
        let keys = format!("server: vllm, models: [real, m]{room}");
        let proxy = Proxy::start(&routed(routes, &[("a", upstream.address, &keys)])).await;
        let body = format!(r#"{{"model":"m","p":"{}"}}"#, "x".repeat(90_000));
        let answer = ask(&proxy, &chat(&body)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), body.replace(r#""m","#, r#""real","#));
        proxy.stop().await;
    }
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}
