//! The whole way, once.

use crate::support::proxy::{config, forward_to};
use crate::support::{Client, Proxy, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_endpoint_and_its_answer_comes_back() {
    let upstream = Upstream::fixed("hello").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let answer = Client::get(proxy.address(), "/a/../b?x=1").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let head = upstream.text();
    assert!(head.starts_with("GET /b?x=1 HTTP/1.1\r\n"), "{head}");
    for field in [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-request-id: ",
        "traceparent: 00-",
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert_eq!(
        proxy.metric("forebay_requests_total", &["route=\"r\"", "code=\"200\""]),
        1.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_reuses_both_connections() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..50 {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(upstream.transcripts().len(), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_answers_say_why() {
    let proxy = Proxy::start(&config(
        "routes:\n- {name: a, match: {path: {prefix: /a}, methods: [POST]}, cluster: c}\n\
         clusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n",
    ))
    .await;
    let at = proxy.address();
    let cases = [
        ("GET /nowhere HTTP/1.1\r\nhost: t\r\n\r\n", 404, "no_route"),
        (
            "GET /a HTTP/1.1\r\nhost: t\r\n\r\n",
            405,
            "method_not_allowed",
        ),
        ("GET /%2F HTTP/1.1\r\nhost: t\r\n\r\n", 400, "bad_path"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
        (
            "POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n",
            502,
            "connect_failed",
        ),
    ];
    for (request, status, reason) in cases {
        let answer = Client::once(at, request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (status, reason),
            "{request:?}"
        );
    }
    proxy.stop().await;
}
