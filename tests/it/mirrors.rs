//! Copies of requests: they arrive whole, are counted, and never change what the primary's client sees.

mod compare;
mod copies;
mod hostile;
mod http2;
mod record;
mod rooms;
mod sampling;
mod uploads;

use std::net::SocketAddr;

use crate::support::proxy::config;
use crate::support::{Client, Proxy, until};

/// A route `r` to the primary's cluster `a`, with a copy to cluster `b`; `options`: more keys of the mirror, each after
/// a comma.
fn mirrored(primary: SocketAddr, mirror: SocketAddr, options: &str) -> String {
    shape(primary, mirror, options, "", "")
}

/// [`mirrored`], with more keys of the route and of cluster `b`, each after a comma.
fn shape(
    primary: SocketAddr,
    mirror: SocketAddr,
    options: &str,
    route: &str,
    cluster: &str,
) -> String {
    config(&format!(
        "routes: [{{name: r, cluster: a, mirrors: [{{cluster: b{options}}}]{route}}}]\n\
         clusters:\n- {{name: a, endpoints: ['{primary}']}}\n- {{name: b, endpoints: ['{mirror}']{cluster}}}\n"
    ))
}

/// Copies with this result.
fn copies(proxy: &Proxy, result: &str) -> f64 {
    let result = format!("result=\"{result}\"");
    proxy.metric("forebay_mirror_requests_total", &[&result])
}

/// Copies that were dropped for this reason.
fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    proxy.metric(
        "forebay_mirror_failures_total",
        &["result=\"dropped\"", &reason],
    )
}

/// Waits until every one of `count` copies is over, and checks that each is counted once and nothing is left of it.
async fn all_over(proxy: &Proxy, count: f64) {
    let total = || proxy.metric("forebay_mirror_requests_total", &[]);
    let in_flight = || proxy.metric("forebay_mirror_in_flight", &[]);
    until(&format!("{count} copies are over"), async || {
        total() >= count && in_flight() == 0.0
    })
    .await;
    assert_eq!(total(), count, "{}", proxy.metrics());
    let failures = proxy.metric("forebay_mirror_failures_total", &[]);
    assert_eq!(copies(proxy, "ok") + failures, count);
    assert_eq!(proxy.metric("forebay_mirror_held_bytes", &[]), 0.0);
}

/// A POST with a length.
fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends `each` requests on each of ten connections; every one is answered by the primary.
async fn burst(proxy: &Proxy, each: usize, request: &str) {
    let address = proxy.address();
    let clients = (0..10).map(|_| {
        let request = request.to_owned();
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..each {
                client.send(&request).await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "primary"));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}
