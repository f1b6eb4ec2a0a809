//! Which requests are copied, what a copy may differ in, and what a reload keeps.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay::control::Source;
use tempfile::TempDir;

use super::{all_over, burst, copies, dropped, mirrored, post, shape};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, until};

/// Request ids that an endpoint got.
fn ids(upstream: &Upstream) -> BTreeSet<String> {
    let text = upstream.text();
    let lines = text.lines();
    let ids = lines.filter_map(|line| line.strip_prefix("x-request-id: "));
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_requests_is_copied_and_all_mirrors_get_the_same() {
    let primary = Upstream::fixed("primary").await;
    let (first, second) = (Upstream::fixed("b").await, Upstream::fixed("c").await);
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, mirrors: [{{cluster: b, sample: 30%}}, {{cluster: c, sample: 30%}}]}}]\n\
         clusters:\n- {{name: a, endpoints: ['{}']}}\n- {{name: b, endpoints: ['{}']}}\n- {{name: c, endpoints: ['{}']}}\n",
        primary.address, first.address, second.address
    )))
    .await;
    burst(&proxy, 200, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    until("both mirrors are done", async || {
        let total = copies(&proxy, "ok");
        proxy.metric("forebay_mirror_in_flight", &[]) == 0.0
            && total == 2.0 * ids(&first).len() as f64
    })
    .await;
    let copied = ids(&first);
    assert_eq!(copied, ids(&second));
    assert!(copied.is_subset(&ids(&primary)));
    assert_eq!(ids(&primary).len(), 2000);
    let sigma = (2000.0_f64 * 0.3 * 0.7).sqrt();
    let off = (copied.len() as f64 - 600.0).abs();
    assert!(off <= 4.0 * sigma, "{} of 2000", copied.len());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_has_steps_of_a_hundredth_of_a_percent() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::fixed("mirror").await;
    let text = mirrored(primary.address, mirror.address, ", sample: 0.01%");
    let proxy = Proxy::start(&text).await;
    burst(&proxy, 1, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(proxy.metrics().contains("forebay_mirror_requests_total{"));
    proxy.stop().await;
    let text = mirrored(primary.address, mirror.address, ", sample: 0.001%");
    let refused = Proxy::try_start(Source::Text(Arc::from(text.as_str()))).await;
    assert!(refused.is_err());
    let text = mirrored(primary.address, mirror.address, ", sample: 0%");
    let proxy = Proxy::start(&text).await;
    burst(&proxy, 10, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    all_over(&proxy, 0.0).await;
    assert_eq!(mirror.text(), "");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_copy_alone_are_edited_and_nobody_else_names_a_mirror() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::fixed("mirror").await;
    let options = ", name: shadow, request_headers: {set: {x-shadow: '1', x-team: copies}, remove: [authorization]}";
    let route = ", request_headers: {set: {x-team: ml}}";
    let proxy = Proxy::start(&shape(primary.address, mirror.address, options, route, "")).await;
    let answer = Client::once(
        proxy.address(),
        "GET / HTTP/1.1\r\nhost: t\r\nauthorization: Bearer x\r\nx-forebay-mirror: forged\r\nx-keep: me\r\n\r\n",
    )
    .await;
    assert_eq!(answer.text(), "primary");
    assert!(answer.header("x-forebay-mirror").is_none());
    all_over(&proxy, 1.0).await;
    let (sent, copied) = (primary.text(), mirror.text());
    assert!(
        !sent.contains("x-forebay-mirror") && !sent.contains("x-shadow"),
        "{sent}"
    );
    assert!(
        sent.contains("authorization: Bearer x\r\n") && sent.contains("x-team: ml\r\n"),
        "{sent}"
    );
    assert!(
        copied.contains("x-forebay-mirror: shadow\r\n") && copied.contains("x-shadow: 1\r\n"),
        "{copied}"
    );
    assert!(
        !copied.contains("authorization") && !copied.contains("forged"),
        "{copied}"
    );
    assert!(
        copied.contains("x-team: copies\r\n") && !copied.contains("x-team: ml"),
        "{copied}"
    );
    assert!(copied.contains("x-keep: me\r\n"), "{copied}");
    assert_eq!(copied.matches("x-forwarded-for").count(), 1, "{copied}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_at_zero_loses_its_copies_and_nothing_else() {
    let primary = Upstream::fixed("primary").await;
    let text = mirrored(primary.address, primary.address, "");
    let empty = format!("{{name: b, endpoints: ['{}']}}", primary.address);
    let nowhere = "{name: b, discover: {dns: {name: nowhere.invalid, port: 80}}}";
    let proxy = Proxy::start(&text.replace(&empty, nowhere)).await;
    burst(&proxy, 5, &post("/", "{}")).await;
    all_over(&proxy, 50.0).await;
    assert_eq!(dropped(&proxy, "no_endpoint"), 50.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_of_a_mirror_s_cluster_holds_for_copies() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::start(|mut peer| async move { while peer.read().await {} }).await;
    let options = ", timeout: 500ms";
    let cluster = ", breaker: {requests: 1}";
    let text = shape(primary.address, mirror.address, options, "", cluster);
    let proxy = Proxy::start(&text).await;
    let mut client = Client::connect(proxy.address()).await; // one worker: its copies begin one after the other
    for _ in 0..5 {
        client.send(post("/", "{}")).await;
        assert_eq!(client.answer().await.text(), "primary");
    }
    all_over(&proxy, 5.0).await;
    assert_eq!(
        copies(&proxy, "timeout") + dropped(&proxy, "breaker_open"),
        5.0
    );
    assert!(dropped(&proxy, "breaker_open") > 0.0, "{}", proxy.metrics());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_not_copied() {
    let primary = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
            .await;
        peer.closed().await;
    })
    .await;
    let mirror = Upstream::fixed("mirror").await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("GET /ws HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let head = client.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.bytes(5).await, b"hello");
    assert_eq!(dropped(&proxy, "upgrade"), 1.0);
    assert_eq!(mirror.text(), "");
    drop(client);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_a_mirror_outlive_reloads_and_end_with_it() {
    let primary = Upstream::fixed("primary").await;
    let (first, second) = (Upstream::fixed("b").await, Upstream::fixed("c").await);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("forebay.yaml");
    std::fs::write(&path, mirrored(primary.address, first.address, "")).unwrap();
    let proxy = Proxy::start_on(&path).await;
    burst(&proxy, 2, &post("/", "{}")).await;
    all_over(&proxy, 20.0).await;
    // Another endpoint and other bounds: still the same mirror.
    let text = mirrored(
        primary.address,
        second.address,
        ", max_bytes: 1MiB, sample: 100%",
    );
    std::fs::write(&path, text).unwrap();
    proxy.control().reload().await.unwrap();
    burst(&proxy, 2, &post("/", "{}")).await;
    all_over(&proxy, 40.0).await;
    assert_eq!((ids(&first).len(), ids(&second).len()), (20, 20));
    // Another name: another mirror.
    let text = mirrored(primary.address, second.address, ", name: new");
    std::fs::write(&path, text).unwrap();
    proxy.control().reload().await.unwrap();
    assert!(!proxy.metrics().contains("mirror=\"b\""));
    all_over(&proxy, 0.0).await;
    let text = crate::support::proxy::forward_to(&[primary.address]);
    std::fs::write(&path, text).unwrap();
    proxy.control().reload().await.unwrap();
    assert!(!proxy.metrics().contains("forebay_mirror_"));
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
    proxy.stop().await;
}
