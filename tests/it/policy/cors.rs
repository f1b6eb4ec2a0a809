//! What browsers are told: preflights before access and limits, and fields on every answer, our own errors too.

use super::guarded;
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, client};

fn preflight(path: &str, origin: &str, method: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: test\r\norigin: {origin}\r\naccess-control-request-method: {method}\r\n\
         access-control-request-headers: content-type, authorization\r\n\r\n"
    )
}

fn origin(answer: &client::Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_before_access_and_limits() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "match: {methods: [POST]}, access: {allow: []}, rate_limits: [{rate: 1/h, burst: 1}], \
        cors: {origins: ['https://app.example'], methods: [POST], credentials: true, max_age: 5m}";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    for _ in 0..3 {
        let asked = preflight("/", "https://app.example", "POST");
        let answer = Client::once(proxy.address(), asked).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(origin(&answer), Some("https://app.example"));
        for (name, value) in [
            ("access-control-allow-methods", "POST"),
            (
                "access-control-allow-headers",
                "content-type, authorization",
            ),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "300"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
    }
    let stranger = preflight("/", "https://evil.example", "POST");
    let answer = Client::once(proxy.address(), stranger).await;
    assert_eq!((answer.status, origin(&answer)), (204, None));
    let other = preflight("/", "https://app.example", "DELETE");
    assert_eq!(Client::once(proxy.address(), other).await.status, 405);
    let plain = "OPTIONS / HTTP/1.1\r\nhost: test\r\n\r\n";
    assert_eq!(Client::once(proxy.address(), plain).await.status, 405);
    assert_eq!(upstream.text(), "");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_our_own_errors_name_the_origin() {
    let upstream = Upstream::start(|mut peer| async move {
        let answer = "HTTP/1.1 200 X\r\naccess-control-allow-origin: https://wrong\r\nvary: accept\r\ncontent-length: 2\r\n\r\nok";
        while peer.request().await.is_some() && peer.write(answer).await {}
    })
    .await;
    let keys = "rate_limits: [{rate: 1/h, burst: 1}], cors: {origins: ['*'], credentials: true, expose: [x-a]}";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    let asked = "GET / HTTP/1.1\r\nhost: test\r\norigin: https://app.example\r\n\r\n";
    for status in [200, 429] {
        let answer = Client::once(proxy.address(), asked).await;
        assert_eq!(answer.status, status);
        assert_eq!(origin(&answer), Some("https://app.example"));
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            Some("true")
        );
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-a"));
        assert!(
            answer.head.to_lowercase().contains("vary: origin"),
            "{}",
            answer.head
        );
        assert!(!answer.head.contains("https://wrong"));
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cors_a_preflight_belongs_to_the_endpoint() {
    let upstream = Upstream::fixed("ok").await;
    let text = config(&format!(
        "routes:\n- {{name: r, match: {{path: {{exact: /a}}, methods: [POST]}}, cluster: a}}\n\
         - {{name: own, match: {{path: {{exact: /b}}, methods: [OPTIONS]}}, respond: {{body: mine}}}}\n\
         clusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    ));
    let proxy = Proxy::start(&text).await;
    let answer = Client::once(proxy.address(), preflight("/a", "https://x", "POST")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    upstream.saw("OPTIONS /a ").await;
    let answer = Client::once(proxy.address(), preflight("/b", "https://x", "POST")).await;
    assert_eq!(answer.text(), "mine");
    proxy.stop().await;
}
