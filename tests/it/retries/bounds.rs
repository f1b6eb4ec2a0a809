//! What ends it: the time of an attempt, of the request, the client, and the budget of the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{always, retries, retrying, seen};
use crate::support::upstream::{Peer, Upstream};
use crate::support::{Client, Proxy, respond, until};

/// An endpoint that reads and says nothing.
async fn silent() -> Upstream {
    Upstream::start(|mut peer| async move { while peer.read().await {} }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_tried_elsewhere() {
    let (slow, good) = (silent().await, Upstream::fixed("good").await);
    let route = "retry: {attempts: 1, when: [504], per_try: 100ms}";
    let addresses = [slow.address, good.address];
    let proxy = Proxy::start(&retrying(&addresses, route, "")).await;
    until("the silent one is asked", async || {
        assert_eq!(Client::get(proxy.address(), "/").await.text(), "good");
        !slow.text().is_empty()
    })
    .await;
    assert!(retries(&proxy, "per_try") > 0.0);
    proxy.stop().await;

    for (attempts, when, made) in [(2, "504", 3), (2, "503", 1), (0, "504", 1)] {
        let slow = silent().await;
        let route = format!("retry: {{attempts: {attempts}, when: [{when}], per_try: 100ms}}");
        let proxy = Proxy::start(&retrying(&[slow.address], &route, "")).await;
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (504, "first_byte_timeout")
        );
        assert_eq!(slow.transcripts().len(), made, "{route}");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_slowly_does_not_spend_the_time_of_the_attempt() {
    let (good, count) = always(200, "good").await;
    let route = "retry: {attempts: 1, when: [504], methods: all, per_try: 150ms}";
    let cluster = "outlier: {consecutive_5xx: 1, keep_at_least: 0},";
    let proxy = Proxy::start(&retrying(&[good.address], route, cluster)).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n")
        .await;
    for byte in ["h", "e", "l", "l", "o"] {
        tokio::time::sleep(Duration::from_millis(100)).await; // what is tested
        client.send(byte).await;
    }
    assert_eq!(client.answer().await.text(), "good");
    assert_eq!(seen(&count), 1);
    assert_eq!(retries(&proxy, "per_try"), 0.0);
    proxy.stop().await;

    let slow = silent().await;
    let route = "retry: {attempts: 0, per_try: 150ms}";
    let proxy = Proxy::start(&retrying(&[slow.address], route, "")).await;
    let post = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello";
    let answer = Client::once(proxy.address(), post).await;
    assert_eq!(
        (answer.status, answer.reason()),
        (504, "first_byte_timeout")
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_a_first_byte_begins_anew_with_each_attempt() {
    // Each attempt is answered after 300 ms, all of them after more than 500 ms.
    let (late, count) = {
        let count: Arc<AtomicUsize> = Arc::default();
        let seen = Arc::clone(&count);
        let upstream = Upstream::start(move |mut peer: Peer| {
            let seen = Arc::clone(&seen);
            async move {
                while peer.request().await.is_some() {
                    let nth = seen.fetch_add(1, SeqCst) + 1;
                    tokio::time::sleep(Duration::from_millis(300)).await; // what is tested
                    peer.write(respond(if nth < 3 { 503 } else { 200 }, "late"))
                        .await;
                }
            }
        })
        .await;
        (upstream, count)
    };
    let route = "timeouts: {first_byte: 500ms}, retry: {attempts: 2, when: [503]}";
    let proxy = Proxy::start(&retrying(&[late.address], route, "")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(seen(&count), 3);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_request_ends_it_even_between_two_attempts() {
    let (bad, count) = always(503, "bad").await;
    let route = "timeouts: {total: 150ms}, retry: {attempts: 10, when: [503]}";
    let proxy = Proxy::start(&retrying(&[bad.address], route, "")).await;
    let mut ended = 0;
    for _ in 0..4 {
        let began = Instant::now();
        let answer = Client::get(proxy.address(), "/").await;
        let took = began.elapsed();
        let made = seen(&count);
        if answer.reason() == "total_timeout" {
            ended += 1;
            assert_eq!(answer.status, 504);
            let soon = Duration::from_millis(149)..Duration::from_millis(600);
            assert!(soon.contains(&took), "{took:?}");
        }
        // A pause may be as short as nothing, but eleven attempts in 150 ms are next to impossible.
        tokio::time::sleep(Duration::from_millis(200)).await; // longer than what would be left of a pause
        assert_eq!(seen(&count), made, "nothing is sent any more");
    }
    assert!(ended > 0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_it() {
    let (bad, count) = always(503, "bad").await;
    let route = "retry: {attempts: 10, when: [503]}";
    let proxy = Proxy::start(&retrying(&[bad.address], route, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    until("it is being retried", async || seen(&count) >= 4).await;
    drop(client);
    until("it is over", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
    })
    .await;
    let made = seen(&count);
    assert!(made < 11, "it went through all its attempts first");
    tokio::time::sleep(Duration::from_millis(300)).await; // longer than a pause
    assert_eq!(seen(&count), made);
    assert_eq!(
        proxy.metric("forebay_aborted_total", &["reason=\"client_closed\""]),
        1.0
    );
    proxy.stop().await;
}

/// Sends `requests` GETs at once to an endpoint that answers 503 to all of them together and then, together again, to
/// those that were sent again. Returns how many requests it got.
async fn storm(requests: usize, budget: &str) -> usize {
    let count: Arc<AtomicUsize> = Arc::default();
    let gate = Arc::new(Semaphore::new(0));
    let (seen, wait) = (Arc::clone(&count), Arc::clone(&gate));
    let bad = Upstream::start(move |mut peer: Peer| {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&wait));
        async move {
            while peer.request().await.is_some() {
                let first = seen.fetch_add(1, SeqCst) < requests;
                gate.acquire().await.unwrap().forget();
                if !first {
                    // Retries overlap: until the last of the first answers is out nobody is told.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                peer.write(respond(503, "bad")).await;
            }
        }
    })
    .await;
    let route = format!("retry: {{attempts: 1, when: [503], budget: {budget}}}");
    let proxy = Proxy::start(&retrying(&[bad.address], &route, "")).await;
    let address: SocketAddr = proxy.address();
    let mut clients = JoinSet::new();
    for _ in 0..requests {
        clients.spawn(async move { Client::get(address, "/").await.status });
    }
    until("all are there", async || count.load(SeqCst) == requests).await;
    gate.add_permits(requests * 20);
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 503);
    }
    let made = count.load(SeqCst);
    assert_eq!(retries(&proxy, "503"), (made - requests) as f64);
    proxy.stop().await;
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_stay_within_their_budget() {
    let made = storm(100, "20%").await;
    assert!((103..=120).contains(&made), "{made} for 100");
    let made = storm(100, "0%").await;
    assert!(
        (101..=103).contains(&made),
        "{made} for 100: three are always possible"
    );
    let made = storm(3, "20%").await;
    assert_eq!(made, 6, "three are always possible");
}
