//! Active checks.

use std::sync::atomic::Ordering::SeqCst;

use super::{Server, healthy, tally};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, until};

const CHECK: &str =
    "health: {kind: http, path: /ready, interval: 100ms, timeout: 1s, unhealthy: 2, healthy: 2}";

fn checked(one: &Server, two: &Server) -> String {
    config(&format!(
        "routes: [{{name: r, cluster: a}}]\n\
         clusters: [{{name: a, {CHECK}, balance: round_robin, endpoints: ['{}', '{}']}}]\n",
        one.address(),
        two.address()
    ))
}

async fn shows(proxy: &Proxy, server: &Server, wanted: f64) {
    until("its health is known", async || {
        healthy(proxy, server) == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_checks_fail_gets_nothing_until_they_pass() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let proxy = Proxy::start(&checked(&one, &two)).await;
    shows(&proxy, &one, 1.0).await;
    shows(&proxy, &two, 1.0).await;
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [5, 5]);
    one.ready.store(500, SeqCst);
    shows(&proxy, &one, 0.0).await;
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [0, 10]);
    two.ready.store(404, SeqCst);
    shows(&proxy, &two, 0.0).await;
    assert_eq!(tally(&proxy, 10, &["one", "two", "none"]).await, [0, 0, 10]);
    one.ready.store(200, SeqCst);
    shows(&proxy, &one, 1.0).await;
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [10, 0]);
    let refused = proxy.metric("forebay_refused_total", &["reason=\"no_endpoint\""]);
    assert_eq!(refused, 10.0);
    assert_eq!(proxy.metric("forebay_endpoint_ejections_total", &[]), 0.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_found_without_a_request() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let proxy = Proxy::start(&checked(&one, &two)).await;
    shows(&proxy, &two, 1.0).await;
    let address = two.address();
    drop(two); // connections that are open stay, nobody accepts any more
    until("it is found", async || {
        let endpoint = format!("endpoint=\"{address}\"");
        proxy.metric("forebay_endpoint_healthy", &[&endpoint]) == 0.0
    })
    .await;
    assert_eq!(tally(&proxy, 10, &["one"]).await, [10]);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_listener_and_copies_respect_them_as_well() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let text = checked(&one, &two);
    let tcp = "address: '127.0.0.1:0', protocol: tcp}]";
    let text = text.replace("cluster: a}", "cluster: a, listeners: [main]}");
    let proxy = Proxy::start(&text.replace("address: '127.0.0.1:0'}]", tcp)).await;
    shows(&proxy, &one, 1.0).await; // its first check is over
    one.ready.store(500, SeqCst);
    shows(&proxy, &one, 0.0).await;
    shows(&proxy, &two, 1.0).await;
    for _ in 0..10 {
        assert_eq!(Client::get(proxy.address(), "/").await.text(), "two");
    }
    two.ready.store(500, SeqCst);
    shows(&proxy, &two, 0.0).await;
    let mut client = Client::connect(proxy.address()).await;
    let (all, _) = client.all().await;
    assert!(all.is_empty(), "{all:?}");
    let labels = ["reason=\"no_endpoint\""];
    assert_eq!(proxy.metric("forebay_refused_total", &labels), 1.0);
    proxy.stop().await;

    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let copy = Server::start("copy").await;
    copy.ready.store(500, SeqCst);
    let text = checked(&one, &two);
    let text = text.replace("cluster: a}", "cluster: a, mirrors: [{cluster: b}]}");
    let copies = format!(
        "clusters: [{{name: b, {CHECK}, endpoints: ['{}']}}, ",
        copy.address()
    );
    let proxy = Proxy::start(&text.replace("clusters: [", &copies)).await;
    let labels = ["cluster=\"b\""];
    until("the copy's health is known", async || {
        copy.upstream.text().matches("GET /ready").count() > 3
            && proxy.metric("forebay_endpoint_healthy", &labels) == 0.0
    })
    .await;
    assert_eq!(Client::get(proxy.address(), "/copied").await.status, 200);
    until("the copy is dropped", async || {
        proxy.metric("forebay_mirror_requests_total", &["result=\"dropped\""]) == 1.0
            || proxy.metric("forebay_mirror_requests_total", &["result=\"error\""]) == 1.0
    })
    .await;
    assert!(!copy.upstream.text().contains("/copied"));
    proxy.stop().await;
}
