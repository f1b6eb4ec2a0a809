//! Rates and requests at once: what is admitted, what a refusal says, and that nothing leaks.

use std::time::Duration;

use http::Request;
use tokio::task::JoinSet;

use super::{behind_a_proxy, get, guarded};
use crate::support::h2::{H2, get as h2_get, post, soon};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, until};

fn limited(proxy: &Proxy, limit: &str) -> f64 {
    let limit = format!("limit=\"{limit}\"");
    proxy.metric("forebay_rate_limited_total", &["route=\"r\"", &limit])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_passes_and_a_refusal_says_when_to_come_back() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "rate_limits: [{rate: 10/m, burst: 3}]";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    assert_eq!(limited(&proxy, "rate-1"), 0.0, "exported from the start");
    for _ in 0..3 {
        assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    }
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.reason()), (429, "rate_limited"));
    let after: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&after), "{answer:?}");
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, Some("\"rate-1\";q=10;w=60"));
    let limit = format!("\"rate-1\";r=0;t={after}");
    assert_eq!(answer.header("ratelimit"), Some(limit.as_str()));
    assert_eq!(limited(&proxy, "rate-1"), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_caller_is_told_in_its_own_words() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "rate_limits: [{rate: 1/h, burst: 1, per: {header: x-tenant}, missing: refuse}]";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    let client = H2::connect(proxy.address()).await;
    let call = post("/s/m").header("content-type", "application/grpc");
    let answer = client.send(call.body(()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("grpc-status"), "8");
    assert_eq!(answer.reason(), "rate_limited");
    assert_eq!(answer.field("retry-after"), "1");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_tenants_have_their_own_share() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "rate_limits: [{rate: 1/h, burst: 2, per: client_ip}, \
        {name: tenants, rate: 1/h, burst: 100, per: {header: x-tenant}, overrides: {small: {rate: 1/h, burst: 1}}, missing: skip}]";
    let proxy = Proxy::start(&behind_a_proxy(upstream.address, keys)).await;
    let ask = async |ip: &str, tenant: &str| {
        let lines = format!("x-forwarded-for: {ip}\r\nx-tenant: {tenant}\r\n");
        get(proxy.address(), "/", &lines).await.status
    };
    assert_eq!(ask("192.0.2.1", "big").await, 200);
    assert_eq!(ask("192.0.2.1", "big").await, 200);
    assert_eq!(ask("192.0.2.1", "big").await, 429);
    assert_eq!(ask("192.0.2.2", "big").await, 200);
    assert_eq!(ask("2001:db8::1", "small").await, 200);
    assert_eq!(ask("2001:db8::2", "small").await, 429);
    assert_eq!(
        ask("2001:db8::3", "big").await,
        200,
        "the refused was not charged"
    );
    assert_eq!(
        ask("2001:db8::4", "big").await,
        429,
        "one /64 is one client"
    );
    assert_eq!(
        (limited(&proxy, "rate-1"), limited(&proxy, "tenants")),
        (2.0, 1.0)
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_name_a_policy_share_its_buckets() {
    let upstream = Upstream::fixed("ok").await;
    let text = config(&format!(
        "rate_limit_policies: [{{name: all, rate: 1/h, burst: 3}}]\nroutes:\n\
         - {{name: r, match: {{path: {{prefix: /a}}}}, cluster: a, rate_limits: [{{policy: all}}]}}\n\
         - {{name: s, match: {{path: {{prefix: /b}}}}, cluster: a, rate_limits: [{{policy: all, dry_run: true}}]}}\n\
         clusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    ));
    let proxy = Proxy::start(&text).await;
    let mut statuses = Vec::new();
    for path in ["/a", "/b", "/a", "/a", "/b"] {
        statuses.push(Client::get(proxy.address(), path).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 200], "a dry run serves");
    assert_eq!(
        proxy.metric("forebay_rate_limited_total", &["route=\"s\""]),
        1.0
    );
    proxy.stop().await;
}

/// Begins an answer and never ends it.
async fn endless() -> Upstream {
    Upstream::start(|mut peer| async move {
        if peer.request().await.is_some()
            && peer
                .write("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
                .await
        {
            peer.closed().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_held_until_the_clients_last_byte() {
    let upstream = endless().await;
    let keys = "rate_limits: [{concurrent: 2}]";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    let get = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut streaming = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(proxy.address()).await;
        client.send(get).await;
        assert!(client.try_head().await.unwrap().contains(" 200 "));
        streaming.push(client);
    }
    let answer = Client::once(proxy.address(), get).await;
    assert_eq!(
        (answer.status, answer.reason()),
        (429, "concurrency_limited")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let policy = answer.header("ratelimit-policy");
    assert_eq!(
        policy,
        Some("\"concurrent-1\";q=2;qu=\"concurrent-requests\"")
    );
    streaming.pop();
    until("a place is free", async || {
        let mut client = Client::connect(proxy.address()).await;
        client.send(get).await;
        client.try_head().await.unwrap().contains(" 200 ")
    })
    .await;
    drop(streaming);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_aborted_streams_leak_no_place() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let answer = if head.contains("GET /whole") {
                "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"
            } else {
                "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\npart"
            };
            if !peer.write(answer).await {
                break;
            }
        }
    })
    .await;
    let keys = "rate_limits: [{concurrent: 4096}]";
    let text = guarded(upstream.address, keys, "").replace(
        "name: a, endpoints",
        "name: a, breaker: {connections: none}, endpoints",
    );
    let proxy = Proxy::start(&text).await;
    let mut all = JoinSet::new();
    for _ in 0..4 {
        let address = proxy.address();
        all.spawn(async move {
            let client = H2::connect(address).await;
            for _ in 0..2500 {
                let (answer, mut stream) = client.begin(h2_get("/part"), true).await;
                let answer = soon("a head", answer).await;
                assert!(answer.is_ok_and(|answer| answer.status() == 200));
                stream.send_reset(::h2::Reason::CANCEL);
            }
        });
    }
    soon("all are aborted", async {
        while all.join_next().await.is_some_and(|r| r.is_ok()) {}
    })
    .await;
    assert!(all.is_empty());
    until("every request is over", async || {
        proxy.metric("forebay_requests_in_flight", &["route=\"r\""]) == 0.0
    })
    .await;
    let seen = proxy.metric("forebay_aborted_total", &["route=\"r\""]);
    assert!(seen > 9000.0, "{seen}");
    let ledger = &proxy.control().snapshot().ledger;
    assert_eq!(ledger.in_progress("r", "concurrent-1"), Some(0));
    assert_eq!(Client::get(proxy.address(), "/whole").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_says_it_is_too_large_is_not_charged() {
    let upstream = Upstream::fixed("ok").await;
    let keys = "body: {max: 1KiB}, rate_limits: [{rate: 1/h, burst: 1}]";
    let proxy = Proxy::start(&guarded(upstream.address, keys, "")).await;
    let large = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2000\r\n\r\n";
    assert_eq!(
        Client::once(proxy.address(), large).await.reason(),
        "body_too_large"
    );
    let request = Request::get("http://test/").body(()).unwrap();
    let answer = H2::connect(proxy.address())
        .await
        .send(request)
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    tokio::time::timeout(Duration::from_secs(20), proxy.stop())
        .await
        .unwrap();
}
