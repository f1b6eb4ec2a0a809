//! Connections over workers, connections over the cap, and connections that are only bytes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{forward, with};
use crate::support::h2::soon;
use crate::support::{Client, Proxy, Upstream, respond, until};

const GET: &str = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn few_connections_are_spread_evenly_over_the_workers() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&with("", &forward(upstream.address))).await;
    let loads = || -> Vec<usize> {
        proxy
            .control()
            .shared()
            .loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .collect()
    };
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(proxy.address()).await;
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
        clients.push(client);
    }
    assert_eq!(loads(), [4, 4]);
    assert_eq!(
        proxy.metric("forebay_connections", &["listener=\"main\""]),
        8.0
    );
    for client in &mut clients {
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    drop(clients);
    until("all are closed", async || loads() == [0, 0]).await;
    assert_eq!(
        proxy.metric("forebay_connections", &["listener=\"main\""]),
        0.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_newcomers_wait_until_somebody_leaves() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&with(
        "limits: {connections: 3}",
        &forward(upstream.address),
    ))
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address()).await;
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
        open.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(proxy.address()).await;
        client.send(GET).await;
        waiting.push(client);
    }
    let early =
        tokio::time::timeout(Duration::from_millis(300), waiting[0].stream.readable()).await;
    assert!(early.is_err(), "served beyond the cap");
    assert_eq!(upstream.text().matches("GET / ").count(), 3);
    assert_eq!(
        proxy.metric("forebay_connections", &["listener=\"main\""]),
        3.0
    );
    open[0].send(GET).await;
    assert_eq!(open[0].answer().await.status, 200, "who is in is served");
    drop(open);
    let mut served = tokio::task::JoinSet::new();
    for mut client in waiting {
        served.spawn(async move { client.answer().await.status });
    }
    let all = soon("everybody's turn", served.join_all()).await;
    assert_eq!(all, [200; 6]);
    until("all are closed", async || {
        proxy.metric("forebay_connections", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_serve_their_own_routes() {
    let text = "admin: {address: '127.0.0.1:0'}\nworkers: 2\ndrain: {delay: 0s, timeout: 5s}\n\
        listeners:\n- {name: inside, address: '127.0.0.1:0'}\n- {name: outside, address: '[::1]:0'}\n\
        routes:\n- {name: both, match: {path: {prefix: /both}}, respond: {body: both}}\n\
        - {name: in, listeners: [inside], respond: {body: inside}}\n\
        - {name: out, listeners: [outside], match: {path: {exact: /out}}, respond: {body: outside}}\nclusters: []\n";
    let proxy = Proxy::start(text).await;
    let (inside, outside) = (proxy.listener("inside"), proxy.listener("outside"));
    for (at, path, status, body) in [
        (inside, "/both/x", 200, "both"),
        (outside, "/both/x", 200, "both"),
        (inside, "/out", 200, "inside"),
        (outside, "/out", 200, "outside"),
    ] {
        let answer = Client::get(at, path).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, body),
            "{at} {path}"
        );
    }
    assert_eq!(Client::get(outside, "/in").await.reason(), "no_route");
    proxy.stop().await;
}

/// A configuration of a tcp listener with one route of this action.
fn tcp(action: &str, clusters: &str) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', protocol: tcp}}]\n\
         routes: [{{name: r, listeners: [main], {action}}}]\nclusters: [{clusters}]\n"
    )
}

/// Sends bytes, ends its side, and returns all that comes back.
async fn exchange(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon("the other side's end", socket.read_to_end(&mut got))
        .await
        .unwrap();
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_listener_pumps_bytes_and_half_closes() {
    // Answers only after the client's FIN: what half close is for.
    let upstream = Upstream::start(|mut peer| async move {
        while peer.read().await {}
        let mut said = std::mem::take(&mut peer.buffer);
        said.reverse();
        peer.write(&said).await;
    })
    .await;
    let proxy = Proxy::start(&tcp(
        "cluster: a",
        &format!("{{name: a, endpoints: ['{}']}}", upstream.address),
    ))
    .await;
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut wanted = bytes.clone();
    wanted.reverse();
    assert!(exchange(&proxy, &bytes).await == wanted);
    assert_eq!(
        exchange(&proxy, b"\x16\x03\x01 anything").await,
        b"gnihtyna \x01\x03\x16"
    );
    until("its counts return", async || {
        proxy.metric("forebay_connections", &[]) == 0.0
            && proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    assert_eq!(
        proxy.metric("forebay_request_bytes_total", &["route=\"r\""]),
        1_000_012.0
    );
    assert_eq!(
        proxy.metric("forebay_response_bytes_total", &["route=\"r\""]),
        1_000_012.0
    );
    proxy.stop().await;
}

/// Says its name and closes.
async fn naming(name: &'static str) -> Upstream {
    Upstream::start(move |mut peer| async move {
        peer.write(name).await;
        while peer.read().await {}
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_listener_splits_connections_and_passes_dead_endpoints() {
    let (a, b, never) = (naming("a").await, naming("b").await, naming("never").await);
    let proxy = Proxy::start(&tcp(
        "split: [{cluster: a, weight: 1}, {cluster: b, weight: 1}, {cluster: never, weight: 0}]",
        &format!(
            "{{name: a, endpoints: ['{}', '127.0.0.1:1']}}, {{name: b, endpoints: ['{}']}}, {{name: never, endpoints: ['{}']}}",
            a.address, b.address, never.address
        ),
    ))
    .await;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..60 {
        let name = String::from_utf8(exchange(&proxy, b"").await).unwrap();
        *counts.entry(name).or_insert(0) += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a", "b"], "{counts:?}");
    assert_eq!(counts.values().sum::<i32>(), 60);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_connection_that_nobody_takes_is_closed_and_one_that_is_quiet_too() {
    let dead = Proxy::start(&tcp("cluster: a", "{name: a, endpoints: ['127.0.0.1:1']}")).await;
    assert_eq!(exchange(&dead, b"").await, b"");
    until("it is counted", async || {
        dead.metric("forebay_refused_total", &["route=\"r\""]) == 1.0
    })
    .await;
    dead.stop().await;
    let upstream = naming("hello").await;
    let cluster = format!("{{name: a, endpoints: ['{}']}}", upstream.address);
    let proxy = Proxy::start(&tcp("cluster: a, timeouts: {tunnel: 300ms}", &cluster)).await;
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.bytes(5).await, b"hello");
    client.closed().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_s_limits_are_enforced_by_hyper_and_counted() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(200, "ok")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&with(
        "limits: {header_bytes: 8KiB}",
        &forward(upstream.address),
    ))
    .await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: t\r\nx-large: {}\r\n\r\n",
        "v".repeat(10 << 10)
    );
    let mut client = Client::connect(proxy.address()).await;
    client.send(large).await;
    assert_eq!(client.answer().await.status, 431);
    client.closed().await;
    until("it is counted", async || {
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"head_too_large\""],
        ) == 1.0
    })
    .await;
    assert_eq!(upstream.transcripts().len(), 0);
    proxy.stop().await;
}
