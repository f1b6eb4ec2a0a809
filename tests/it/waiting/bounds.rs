//! How many wait, how long, with how many bytes; and what those are told who do not get that far.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{
    ALL, Server, assert_served, get, held, is_empty, leading_to, nobody, post, waits, with_route,
};
use crate::support::client::Answer;
use crate::support::{Client, Proxy, Upstream, respond, until};

fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(
        (answer.status, answer.reason()),
        (status, reason),
        "{answer:?}"
    );
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_is_429_while_a_replica_is_busy() {
    let server = Server::start(0).await;
    let keys = "concurrency: 1, queue: {max_requests: 2}";
    let proxy = Proxy::start(&leading_to(&[server.address()], keys)).await;
    let answers: Vec<_> = (0..3).map(|_| get(proxy.address(), "/x")).collect();
    server.holds(1).await;
    waits(&proxy, 2).await;
    assert_refused(
        &get(proxy.address(), "/y").await.unwrap(),
        429,
        "queue_full",
    );
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    assert_served(&get(proxy.address(), "/z").await.unwrap(), "/z");
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_is_503_while_no_replica_exists() {
    let (socket, address) = nobody();
    let keys = "queue: {max_requests: 2}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    let mut answers = Vec::new();
    for number in 1..=2 {
        answers.push(get(proxy.address(), "/x"));
        waits(&proxy, number).await;
    }
    assert_refused(
        &get(proxy.address(), "/y").await.unwrap(),
        503,
        "no_endpoint",
    );
    let _server = Server::on(socket.listen(64).unwrap(), ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_a_busy_replica_is_told_429() {
    let server = Server::start(0).await;
    let keys = "concurrency: 1, queue: {saturated: 200ms, empty: 30s}";
    let proxy = Proxy::start(&leading_to(&[server.address()], keys)).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let late = get(proxy.address(), "/late").await.unwrap();
    assert_refused(&late, 429, "queue_timeout");
    server.permits.add_permits(1);
    assert_served(&first.await.unwrap(), "/first");
    assert_eq!(server.seen.count(), 1);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_a_replica_is_told_503() {
    let (_socket, address) = nobody();
    let keys = "queue: {saturated: 30s, empty: 200ms}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    let late = get(proxy.address(), "/late").await.unwrap();
    assert_refused(&late, 503, "no_endpoint");
    is_empty(&proxy).await;
    proxy.stop().await;
}

/// Is told what is wanted; brings nothing.
async fn operator() -> Upstream {
    Upstream::fixed("{}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_a_driver_is_told_so() {
    let ((_socket, address), operator) = (nobody(), operator().await);
    let keys = format!(
        "queue: {{empty: 300ms}}, scale: {{webhook: {{url: 'http://{}/'}}}}",
        operator.address
    );
    let proxy = Proxy::start(&leading_to(&[address], &keys)).await;
    let late = get(proxy.address(), "/late").await.unwrap();
    assert_refused(&late, 503, "start_timeout");
    assert!(
        operator.text().contains("\"desired\":1"),
        "{}",
        operator.text()
    );
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_wakes_nobody_is_asleep_at_zero_and_serves_when_warm() {
    let ((socket, address), operator) = (nobody(), operator().await);
    let keys = format!(
        "queue: {{empty: 30s}}, scale: {{idle: 1s, target: {{rate: 1/s}}, webhook: {{url: 'http://{}/'}}}}",
        operator.address
    );
    let proxy = Proxy::start(&with_route(&[address], ", wake: false", &keys)).await;
    // The first one tries the endpoint, which nobody knows yet.
    let first = get(proxy.address(), "/x").await.unwrap();
    assert_refused(&first, 503, "asleep");
    let wanted = || proxy.metric("forebay_desired_replicas", &["cluster=\"a\""]);
    until("nothing is wanted", async || wanted() == 0.0).await;
    let told = operator.transcripts().len();
    for _ in 0..5 {
        let asleep = get(proxy.address(), "/x").await.unwrap();
        assert_refused(&asleep, 503, "asleep");
    }
    // Longer than a tick of the scaler, which must not want anything.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(wanted(), 0.0);
    let since = operator.transcripts().split_off(told).concat();
    let since = String::from_utf8_lossy(&since).into_owned();
    assert!(!since.contains("\"desired\":1"), "{since}");
    let _server = Server::on(socket.listen(64).unwrap(), ALL);
    let up = || proxy.metric("forebay_endpoint_healthy", &["cluster=\"a\""]) == 1.0;
    until("the endpoint is up", async || up()).await;
    assert_served(&get(proxy.address(), "/y").await.unwrap(), "/y");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_time_of_a_request_contains_its_waiting() {
    let server = Server::start(0).await;
    let route = ", timeouts: {total: 300ms}";
    let proxy = Proxy::start(&with_route(&[server.address()], route, "concurrency: 1")).await;
    let mut first = Client::connect(proxy.address()).await;
    first.send("GET /stream HTTP/1.1\r\nhost: t\r\n\r\n").await;
    server.holds(1).await;
    let late = get(proxy.address(), "/late").await.unwrap();
    assert_eq!((late.status, late.reason()), (504, "total_timeout"));
    drop(first);
    server.permits.add_permits(1);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_late_with_what_nobody_reads() {
    let server = Server::start(0).await;
    let route = ", timeouts: {request_body: 300ms}";
    let keys = "concurrency: 1, queue: {max_bytes: 20KiB}";
    let proxy = Proxy::start(&with_route(&[server.address()], route, keys)).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let mut client = Client::connect(proxy.address()).await;
    // It pauses, so that somebody reads and waits for more of it; then more comes than may be held.
    let request = post("/big", 256 << 10);
    client.send(&request[..200]).await;
    waits(&proxy, 1).await;
    client.send(&request[200..]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.permits.add_permits(2);
    assert_served(&client.answer().await, "/big");
    first.await.unwrap();
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_broken_ends_the_waiting() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&with_route(
        &[server.address()],
        ", body: {max: 1KiB}",
        "concurrency: 1",
    ))
    .await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST /x HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    waits(&proxy, 1).await;
    client
        .send(format!("1000\r\n{}\r\n", "x".repeat(0x1000)))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
    server.permits.add_permits(1);
    first.await.unwrap();
    is_empty(&proxy).await;
    proxy.stop().await;
}

const BIG: usize = 8 << 20;

/// Uploads much; returns the answer's head.
async fn upload(proxy: &Proxy, path: String, written: Arc<AtomicUsize>) -> String {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    for piece in post(&path, BIG).chunks(16 << 10) {
        stream.write_all(piece).await.unwrap();
        written.fetch_add(piece.len(), Ordering::SeqCst);
    }
    let mut head = vec![0; 1 << 10];
    let read = stream.read(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_held_of_bodies_than_the_room_allows() {
    const MOST: f64 = 128.0 * 1024.0;
    /// What one read of a connection may bring beyond it, for each of two workers.
    const OVER: f64 = 2.0 * 420.0 * 1024.0;
    let server = Server::start(0).await;
    let keys = "concurrency: 1, queue: {max_bytes: 128KiB}";
    let proxy = Arc::new(Proxy::start(&leading_to(&[server.address()], keys)).await);
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let written = Arc::<AtomicUsize>::default();
    let uploads: Vec<_> = (0..6)
        .map(|number| {
            let (proxy, written) = (Arc::clone(&proxy), Arc::clone(&written));
            tokio::spawn(async move { upload(&proxy, format!("/{number}"), written).await })
        })
        .collect();
    waits(&proxy, 6).await;
    let (mut before, mut still) = (0, 0);
    until("the clients are not read from any more", async || {
        let now = written.load(Ordering::SeqCst);
        still = if now == before { still + 1 } else { 0 };
        before = now;
        assert!(held(&proxy) <= MOST + OVER, "{}", held(&proxy));
        still > 40
    })
    .await;
    assert!(before < 6 * BIG, "{before}");
    assert!(held(&proxy) > 0.0);
    server.permits.add_permits(ALL);
    for upload in uploads {
        let head = upload.await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    first.await.unwrap();
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    assert_eq!(server.seen.count(), 7);
    is_empty(&proxy).await;
    Arc::into_inner(proxy).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_before_it_sends_is_told_to_while_it_waits() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST /x HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    waits(&proxy, 1).await;
    let interim = client.try_head().await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    client.send("/x/x").await;
    server.permits.add_permits(2);
    assert_served(&client.answer().await, "/x");
    first.await.unwrap();
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_waits_like_any_other() {
    let server = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let answer = respond(200, "body");
            let end = if head.starts_with("HEAD") {
                answer.len() - 4
            } else {
                answer.len()
            };
            tokio::time::sleep(Duration::from_millis(20)).await; // its work
            peer.write(&answer[..end]).await;
        }
    })
    .await;
    let proxy = Proxy::start(&leading_to(&[server.address], "concurrency: 1")).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(proxy.address()).await;
        client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        let head = client.try_head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}
