//! `match.model`: looked for only where it decides.

use super::*;
use crate::support::until;

const ROUTES: &str = "routes:
- {name: llama, match: {path: {prefix: /v1}, model: llama}, cluster: a}
- {name: get, match: {path: {prefix: /v1}, methods: [GET]}, cluster: b}
- {name: rest, match: {path: {prefix: /v1}}, cluster: c}
- {name: plain, match: {path: {prefix: /plain}}, cluster: c}
- {name: triton, match: {path: {prefix: /v2}, model: 'm 1', methods: [POST]}, cluster: d}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_the_requests_for_its_model() {
    let (a, b, c, d) = (
        Upstream::fixed("a").await,
        Upstream::fixed("b").await,
        Upstream::fixed("c").await,
        Upstream::fixed("d").await,
    );
    let clusters = [
        ("a", a.address, "server: vllm"),
        ("b", b.address, "server: vllm"),
        ("c", c.address, "server: vllm"),
        ("d", d.address, "server: triton"),
    ];
    let proxy = Proxy::start(&routed(ROUTES, &clusters)).await;
    let late = format!(r#"{{"x":"{}","model":"llama"}}"#, "x".repeat(70_000));
    for (request, want) in [
        (chat(r#"{"model":"llama"}"#), "a"),
        (chat(r#"{"model":"other"}"#), "c"),
        (chat("no json"), "c"),
        (chat(""), "c"),
        (chat(&late), "c"),
        ("GET /v1/x HTTP/1.1\r\nhost: t\r\n\r\n".into(), "b"),
        (
            typed("/v2/models/m%201/infer", "application/json", "{}"),
            "d",
        ),
        (
            typed("/v2/models/m/infer", "application/json", "{}"),
            "no_route",
        ),
        (
            "GET /v2/models/m%201 HTTP/1.1\r\nhost: t\r\n\r\n".into(),
            "method_not_allowed",
        ),
        (
            "GET /v2/models/m HTTP/1.1\r\nhost: t\r\n\r\n".into(),
            "no_route",
        ),
    ] {
        let answer = ask(&proxy, &request).await;
        let got = if answer.status == 200 {
            answer.text()
        } else {
            answer.reason().to_owned()
        };
        assert_eq!(got, want, "{request:.100}");
    }
    assert!(bodies(&c).contains(&late));
    for (model, want) in [("llama", "a"), ("other", "c")] {
        let body = format!(r#"{{"a":[],"model":"{model}"}}"#);
        let answer = ask_h2(
            &proxy,
            "/v1/completions",
            "application/json",
            body.as_bytes(),
            1,
        )
        .await;
        assert_eq!(String::from_utf8_lossy(&answer.body), want);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_body_that_does_not_decide() {
    let c = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.write(crate::support::respond(200, "c")).await;
        peer.closed().await;
    })
    .await;
    let clusters = ["a", "b", "c", "d"].map(|name| (name, c.address, "server: vllm"));
    let proxy = Proxy::start(&routed(ROUTES, &clusters)).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST /plain HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{")
        .await;
    assert_eq!(client.answer().await.text(), "c");
    let mut undecided = Client::connect(proxy.address()).await;
    undecided
        .send("POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{\"model\": \"l")
        .await;
    undecided.send("lama\", ").await; // the rest never comes
    assert_eq!(
        undecided.answer().await.text(),
        "c",
        "a name is certain as soon as it is read"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_run_and_leavers_are_noticed_while_a_name_is_awaited() {
    let upstream = Upstream::fixed("a").await;
    let routes = "routes: [{name: r, match: {model: m}, timeouts: {request_body: 200ms}, cluster: a}, {name: s, by_model: true, timeouts: {request_body: 200ms}, match: {path: {prefix: /s}}}]";
    let proxy = Proxy::start(&routed(
        routes,
        &[("a", upstream.address, "server: vllm, models: [m]")],
    ))
    .await;
    for path in ["/r", "/s"] {
        let mut slow = Client::connect(proxy.address()).await;
        slow.send(format!(
            "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{{"
        ))
        .await;
        let answer = slow.answer().await;
        assert_eq!((answer.status, answer.reason()), (408, "request_timeout"));
    }
    let mut leaver = Client::connect(proxy.address()).await;
    leaver
        .send("POST /s HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let head = leaver.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    drop(leaver);
    until("the connection is gone", async || {
        proxy.metric("forebay_connections", &[]) == 0.0
    })
    .await;
    assert!(upstream.text().is_empty());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_answered_though_they_name_no_model() {
    let upstream = Upstream::fixed("a").await;
    let routes = "routes:
- {name: r, match: {path: {prefix: /v1}, methods: [POST], model: m}, cluster: a, cors: {origins: ['http://one']}}
- {name: s, match: {path: {prefix: /s}}, by_model: true, cors: {origins: ['http://two']}}
- {name: t, match: {path: {prefix: /v2}, model: m}, cluster: b, cors: {origins: ['http://three']}}
- {name: u, match: {path: {prefix: /v2}, model: n}, cluster: b, cors: {origins: ['http://four']}}
";
    let clusters = [
        ("a", upstream.address, "server: vllm, models: [m]"),
        ("b", upstream.address, "server: triton"),
    ];
    let proxy = Proxy::start(&routed(routes, &clusters)).await;
    for (path, site) in [
        ("/v1/chat", "http://one"),
        ("/s/v1/chat", "http://two"),
        ("/v2/models/m/infer", "http://three"),
        ("/v2/models/n/infer", "http://four"),
    ] {
        let preflight = format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: t\r\norigin: {site}\r\naccess-control-request-method: POST\r\n\r\n"
        );
        let answer = ask(&proxy, &preflight).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (204, Some(site)),
            "{path}"
        );
    }
    let post = chat(r#"{"model":"x"}"#)
        .replace("/v1", "/s/v1")
        .replace("host: t", "host: t\r\norigin: http://two");
    let answer = ask(&proxy, &post).await;
    assert_eq!(
        (
            answer.reason(),
            answer.header("access-control-allow-origin")
        ),
        ("unknown_model", Some("http://two"))
    );
    assert!(upstream.text().is_empty());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_bounded_by_the_route_it_takes_and_by_no_other() {
    let (a, b) = (Upstream::fixed("a").await, Upstream::fixed("b").await);
    let routes = "routes:
- {name: small, match: {path: {prefix: /v1}, model: small}, cluster: a, body: {max: 1KiB}}
- {name: large, match: {path: {prefix: /v1}, model: large}, cluster: b, body: {max: 1MiB}}
- {name: all, match: {path: {prefix: /all}}, by_model: true, rewrite: {prefix: /}, body: {max: 1KiB}}
";
    let clusters = [
        ("a", a.address, "server: vllm, models: [small]"),
        ("b", b.address, "server: vllm, models: [large]"),
    ];
    let proxy = Proxy::start(&routed(routes, &clusters)).await;
    let body = |model: &str| format!(r#"{{"model":"{model}","x":"{}"}}"#, "x".repeat(100_000));
    let chunked = |body: &str| {
        let length = body.len();
        format!(
            "POST /v1/x HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        )
    };
    for request in [chat(&body("large")), chunked(&body("large"))] {
        assert_eq!(ask(&proxy, &request).await.text(), "b");
    }
    for request in [
        chat(&body("small")),
        chunked(&body("small")),
        typed("/all/v1/completions", "application/json", &body("large")),
    ] {
        let answer = ask(&proxy, &request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (413, "body_too_large"),
            "{request:.80}"
        );
    }
    assert!(a.text().is_empty());
    proxy.stop().await;
}
