//! Endpoints whose answers fail.

use std::sync::atomic::Ordering::SeqCst;

use super::{Server, ejections, healthy, tally};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, until};

fn ejecting(servers: &[&Server], outlier: &str, route: &str) -> String {
    let list: Vec<_> = servers
        .iter()
        .map(|s| format!("'{}'", s.address()))
        .collect();
    config(&format!(
        "routes: [{{name: r, cluster: a{route}}}]\n\
         clusters: [{{name: a, balance: round_robin, outlier: {{{outlier}}}, endpoints: [{}]}}]\n",
        list.join(", ")
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_for_a_while_and_the_last_one_never() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let outlier = "consecutive_5xx: 3, base: 300ms, keep_at_least: 1";
    let proxy = Proxy::start(&ejecting(&[&one, &two], outlier, "")).await;
    one.status.store(500, SeqCst);
    assert_eq!(tally(&proxy, 6, &["one", "two"]).await, [3, 3]);
    assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (1.0, 0.0));
    two.status.store(500, SeqCst);
    let before = one.upstream.text().len();
    let [ones, twos] = tally(&proxy, 10, &["one", "two"]).await[..] else {
        unreachable!("two were counted")
    };
    assert!(ones <= 1 && twos >= 9, "{ones} {twos}"); // the while may be over by now
    assert_eq!(ejections(&proxy, &two), 0.0, "it is the last one");
    assert!(ones > 0 || one.upstream.text().len() == before);
    two.status.store(200, SeqCst);
    one.status.store(200, SeqCst);
    until("it is back", async || {
        tally(&proxy, 2, &["one", "two"]).await;
        healthy(&proxy, &one) == 1.0
    })
    .await;
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [5, 5]);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_count_and_clients_do_not_notice_with_retries() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    one.status.store(0, SeqCst);
    let outlier = "consecutive_5xx: 2, base: 60s";
    let retry = ", retry: {attempts: 1, when: [reset]}";
    let proxy = Proxy::start(&ejecting(&[&one, &two], outlier, retry)).await;
    assert_eq!(tally(&proxy, 20, &["two"]).await, [20]);
    assert_eq!(ejections(&proxy, &one), 1.0);
    assert_eq!(one.upstream.transcripts().len(), 2);
    let retries = proxy.metric("forebay_retries_total", &["reason=\"upstream_reset\""]);
    assert_eq!(retries, 2.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_says_busy_is_never_ejected() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    one.status.store(503, SeqCst);
    let outlier = "consecutive_5xx: 1, base: 60s, keep_at_least: 0";
    let proxy = Proxy::start(&ejecting(&[&one, &two], outlier, "")).await;
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [1, 9]);
    assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (0.0, 1.0));
    two.status.store(503, SeqCst);
    let counts = tally(&proxy, 20, &["one", "two"]).await;
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}: both are asked");
    assert_eq!(proxy.metric("forebay_endpoint_ejections_total", &[]), 0.0);
    one.status.store(200, SeqCst);
    until("it is asked again", async || {
        Client::get(proxy.address(), "/").await.status == 200
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_is_held_against_nobody() {
    let one = Server::start("one").await;
    let outlier = "consecutive_5xx: 1, base: 60s, keep_at_least: 0";
    let route = ", body: {max: 10B}, timeouts: {request_body: 100ms}";
    let proxy = Proxy::start(&ejecting(&[&one], outlier, route)).await;
    let chunked = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    let large = format!("{chunked}5\r\nhello\r\n14\r\nhellohellohellohello\r\n0\r\n\r\n");
    assert_eq!(Client::once(proxy.address(), large).await.status, 413);
    let slow = format!("{chunked}5\r\nhello\r\n");
    assert_eq!(Client::once(proxy.address(), slow).await.status, 408);
    let broken = format!("{chunked}5\r\nhello\r\nno number\r\n");
    assert_eq!(Client::once(proxy.address(), broken).await.status, 400);
    let mut leaving = Client::connect(proxy.address()).await;
    leaving.send(format!("{chunked}5\r\nhullo\r\n")).await;
    one.upstream.saw("hullo").await;
    drop(leaving);
    until("all is over", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
    })
    .await;
    assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (0.0, 1.0));
    assert_eq!(tally(&proxy, 3, &["one"]).await, [3]);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_its_upload_ejects_nobody_whichever_clock_ends_it() {
    let one = Server::start("one").await;
    let outlier = "consecutive_5xx: 1, base: 60s, keep_at_least: 0";
    let stalled = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf";
    for (clocks, status, reason) in [
        ("idle: 150ms, request_body: 150ms", 408, "request_timeout"),
        ("idle: 150ms", 504, "idle_timeout"),
    ] {
        let route = format!(", timeouts: {{{clocks}}}");
        let proxy = Proxy::start(&ejecting(&[&one], outlier, &route)).await;
        let answer = Client::once(proxy.address(), stalled).await;
        assert_eq!((answer.status, answer.reason()), (status, reason));
        assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (0.0, 1.0));
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ejections_outlive_a_reload() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forebay.yaml");
    let text = ejecting(&[&one, &two], "consecutive_5xx: 1, base: 60s", "");
    std::fs::write(&path, &text).unwrap();
    let proxy = Proxy::start_on(&path).await;
    one.status.store(500, SeqCst);
    tally(&proxy, 2, &["one", "two"]).await;
    assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (1.0, 0.0));
    one.status.store(200, SeqCst);
    let three = Server::start("three").await;
    let more = ejecting(
        &[&one, &two, &three],
        "consecutive_5xx: 1, base: 50s",
        ", rewrite: {host: x}",
    );
    let beside = directory.path().join("new");
    std::fs::write(&beside, more).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    proxy.control().reload().await.unwrap();
    assert_eq!(
        proxy.control().snapshot().clusters["a"]
            .state
            .endpoints()
            .endpoints
            .len(),
        3
    );
    assert_eq!(tally(&proxy, 10, &["two", "three"]).await, [5, 5]);
    assert_eq!((ejections(&proxy, &one), healthy(&proxy, &one)), (1.0, 0.0));
    proxy.stop().await;
}
