//! What there is, told from the configuration, and how those are refused who ask for something else.

use serde_json::Value;

use super::*;

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_are_listed_without_asking_or_waking_anybody() {
    let upstream = Upstream::fixed("upstream").await;
    let text = routed(
        "routes: [{name: r, match: {path: {prefix: /llm}}, rewrite: {prefix: /}, by_model: true, response_headers: {set: {x-a: b}}}]",
        &[
            (
                "a",
                upstream.address,
                "server: vllm, models: [llama, 'org/llama:8b']",
            ),
            (
                "b",
                upstream.address,
                "server: ollama, models: ['qwen3:8b']",
            ),
            (
                "c",
                upstream.address,
                "server: tensorflow-serving, models: [resnet]",
            ),
            ("d", upstream.address, "server: vllm"),
        ],
    );
    let proxy = Proxy::start(&text).await;
    let list = Client::get(proxy.address(), "/llm/v1/models").await;
    assert_eq!(
        (list.status, list.header("content-type")),
        (200, Some("application/json"))
    );
    let list = json(&list);
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["llama", "org/llama:8b", "qwen3:8b", "resnet"]);
    assert_eq!(list["data"][1]["object"], "model");
    assert!(list["data"][1]["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(list["data"][1]["owned_by"].is_string());
    for path in [
        "/llm/v1/models/org/llama:8b",
        "/llm/v1/models/org/llama%3A8b",
    ] {
        assert_eq!(
            json(&Client::get(proxy.address(), path).await)["id"],
            "org/llama:8b"
        );
    }
    let tags = json(&Client::get(proxy.address(), "/llm/api/tags").await);
    assert_eq!(tags["models"][0]["name"], "qwen3:8b");
    assert_eq!(tags["models"].as_array().unwrap().len(), 1);
    let head = "HEAD /llm/v1/models HTTP/1.1\r\nhost: t\r\n\r\n";
    let mut client = Client::connect(proxy.address()).await;
    client.send(head).await;
    let head = client.try_head().await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && !head.contains("content-length: 0"),
        "{head}"
    );
    let h2 = H2::connect(proxy.address()).await;
    assert_eq!(h2.get("/llm/v1/models/llama").await.status(), 200);
    assert!(upstream.text().is_empty());
    assert_eq!(proxy.metric("forebay_arrivals_total", &[]), 0.0);
    assert_eq!(
        proxy.metric("forebay_requests_total", &["route=\"r\"", "code=\"200\""]),
        6.0
    );
    let unknown = Client::get(proxy.address(), "/llm/v1/models/nobody").await;
    assert_eq!((unknown.status, unknown.reason()), (404, "unknown_model"));
    // There it is the server's own question for the state of its model.
    assert_eq!(
        Client::get(proxy.address(), "/llm/v1/models/resnet")
            .await
            .text(),
        "upstream"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_and_limits_of_the_route_hold() {
    let upstream = Upstream::fixed("ok").await;
    let route = |keys: &str| {
        routed(
            &format!("routes: [{{name: r, by_model: true, {keys}}}]"),
            &[("a", upstream.address, "server: vllm, models: [m]")],
        )
    };
    let denied = Proxy::start(&route("access: {deny: ['127.0.0.0/8']}")).await;
    assert_eq!(
        Client::get(denied.address(), "/v1/models").await.reason(),
        "denied"
    );
    assert_eq!(
        ask(&denied, &chat(r#"{"model":"x"}"#)).await.reason(),
        "denied"
    );
    denied.stop().await;
    let limited = Proxy::start(&route(
        "rate_limits: [{rate: 1/h, burst: 1, per: {json: /user}}]",
    ))
    .await;
    let body = r#"{"model":"m","user":"ann"}"#;
    assert_eq!(ask(&limited, &chat(body)).await.text(), "ok");
    assert_eq!(ask(&limited, &chat(body)).await.reason(), "rate_limited");
    assert_eq!(
        ask(&limited, &chat(r#"{"user":"bob","model":"m"}"#))
            .await
            .text(),
        "ok"
    );
    limited.stop().await;
    assert_eq!(
        bodies(&upstream),
        [body.to_owned(), r#"{"user":"bob","model":"m"}"#.to_owned()]
    );
    let small = Proxy::start(&route("body: {max: 100B}")).await;
    let long = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(200));
    assert_eq!(ask(&small, &chat(&long)).await.reason(), "body_too_large");
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    assert_eq!(ask(&small, &chunked).await.reason(), "body_too_large");
    small.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_the_shape_of_its_protocol() {
    let upstream = Upstream::fixed("ok").await;
    let text = by_model(&[
        ("a", upstream.address, "server: triton, models: [m]"),
        (
            "b",
            upstream.address,
            "server: tensorflow-serving, models: [n]",
        ),
        ("c", upstream.address, "server: vllm, models: [o]"),
    ]);
    let proxy = Proxy::start(&text).await;
    for path in ["/v2/models/x/infer", "/v1/models/x:predict"] {
        let answer = ask(&proxy, &typed(path, "application/json", "{}")).await;
        assert_eq!((answer.status, answer.reason()), (404, "unknown_model"));
        let message = json(&answer)["error"].as_str().unwrap().to_owned();
        assert!(message.contains("`x`; there are: m, n, o"), "{message}");
    }
    let chat = ask(&proxy, &chat(r#"{"model":"<x>"}"#)).await;
    assert!(
        json(&chat)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`<x>`")
    );
    let page = ask(
        &proxy,
        "GET /v1/models/%3Cx%3E HTTP/1.1\r\nhost: t\r\naccept: text/html\r\n\r\n",
    )
    .await;
    assert!(
        page.text().contains("&lt;x&gt;") && !page.text().contains("<x>"),
        "{}",
        page.text()
    );
    let grpc = ask_h2(
        &proxy,
        "/inference.GRPCInferenceService/ModelInfer",
        "application/grpc",
        b"\0\0\0\0\x03\x0a\x01x",
        99,
    )
    .await;
    assert_eq!(
        (grpc.status(), grpc.field("grpc-status"), grpc.reason()),
        (200, "5", "unknown_model")
    );
    assert!(
        grpc.field("grpc-message")
            .contains("`x`; there are: m, n, o")
    );
    proxy.stop().await;
}
