//! Requests that come before their server does: each one is served once, in order, by a server that is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{ALL, Seen, Server, assert_served, get, is_empty, leading_to, nobody, post, waits};
use crate::support::client::Answer;
use crate::support::{Client, Proxy, Upstream, respond, until};

/// A server that says 503 to its first two checks and to everything that comes before it is ready.
struct Loading {
    seen: Arc<Seen>,
    /// What came too early.
    early: Arc<AtomicUsize>,
    ready: Arc<std::sync::Mutex<Option<Instant>>>,
    first: Arc<std::sync::Mutex<Option<Instant>>>,
    _upstream: Upstream,
}

impl Loading {
    fn on(listener: tokio::net::TcpListener) -> Self {
        let (seen, early) = (Arc::<Seen>::default(), Arc::<AtomicUsize>::default());
        type Moment = Arc<std::sync::Mutex<Option<Instant>>>;
        let (ready, first) = (Moment::default(), Moment::default());
        let checks = Arc::<AtomicUsize>::default();
        let all = (
            Arc::clone(&seen),
            Arc::clone(&early),
            Arc::clone(&ready),
            Arc::clone(&first),
        );
        let upstream = Upstream::on(listener, move |mut peer| {
            let (seen, early, ready, first) = all.clone();
            let checks = Arc::clone(&checks);
            async move {
                let loading = || respond(503, "{\"error\":{\"message\":\"Loading model\"}}");
                while let Some((head, body)) = peer.request().await {
                    let path = head.split(' ').nth(1).unwrap();
                    if path == "/health" {
                        let is_ready = checks.fetch_add(1, Ordering::SeqCst) >= 2;
                        if is_ready {
                            ready.lock().unwrap().get_or_insert_with(Instant::now);
                            peer.write(respond(200, "{}")).await;
                        } else {
                            peer.write(loading()).await;
                        }
                        continue;
                    }
                    if ready.lock().unwrap().is_none() {
                        early.fetch_add(1, Ordering::SeqCst);
                        peer.write(loading()).await;
                        continue;
                    }
                    first.lock().unwrap().get_or_insert_with(Instant::now);
                    let inside = seen.begin(path);
                    if !body
                        .iter()
                        .eq(path.as_bytes().iter().cycle().take(body.len()))
                    {
                        seen.wrong.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::task::yield_now().await;
                    drop(inside);
                    peer.write(respond(200, path)).await;
                }
            }
        });
        Self {
            seen,
            early,
            ready,
            first,
            _upstream: upstream,
        }
    }
}

const BODY: usize = 10 << 10;

fn send(proxy: &Proxy, number: usize) -> JoinHandle<Answer> {
    let at = proxy.address();
    let request = post(&format!("/{number}"), BODY);
    tokio::spawn(async move { Client::once(at, request).await })
}

async fn each_is_served_once(answers: Vec<JoinHandle<Answer>>, server: &Loading) {
    let count = answers.len();
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_served(&answer, &format!("/{number}"));
        let waited = answer.header("x-forebay-cold-start").expect("it waited");
        assert!(waited.parse::<u64>().unwrap() < 20_000, "{waited}");
    }
    assert_eq!(server.early.load(Ordering::SeqCst), 0);
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    let mut paths = server.seen.paths();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!((paths.len(), server.seen.count()), (count, count));
    let (ready, first) = (*server.ready.lock().unwrap(), *server.first.lock().unwrap());
    let gap = first.unwrap().saturating_duration_since(ready.unwrap());
    assert!(gap < Duration::from_millis(500), "{gap:?}"); // 50 ms on a machine of its own
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_wait_for_a_server_that_loads_and_keep_their_order() {
    let (socket, address) = nobody();
    let keys = "server: llama.cpp, concurrency: 1, queue: {}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    let mut answers = Vec::new();
    for number in 0..200 {
        answers.push(send(&proxy, number));
        waits(&proxy, number + 1).await;
    }
    let server = Loading::on(socket.listen(1024).unwrap());
    each_is_served_once(answers, &server).await;
    let arrived: Vec<String> = (0..200).map(|number| format!("/{number}")).collect();
    assert_eq!(server.seen.paths(), arrived);
    assert_eq!(server.seen.most(), 1);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wait_for_a_server_that_loads() {
    let (socket, address) = nobody();
    let keys = "server: llama.cpp, queue: {}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    let answers: Vec<_> = (0..1000).map(|number| send(&proxy, number)).collect();
    waits(&proxy, 1000).await;
    let server = Loading::on(socket.listen(1024).unwrap());
    each_is_served_once(answers, &server).await;
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_endpoint_without_a_limit_gets_no_burst() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&leading_to(&[address], "queue: {}")).await;
    let answers: Vec<_> = (0..100).map(|_| get(proxy.address(), "/x")).collect();
    waits(&proxy, 100).await;
    let server = Server::on(socket.listen(1024).unwrap(), 0);
    server.holds(8).await;
    tokio::time::sleep(super::MOMENT).await;
    assert_eq!(server.seen.count(), 8);
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_no_check_delays_no_other() {
    // Takes connections and says nothing, as a server does that loads before it reads.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dead, dead_at) = nobody();
    let (socket, address) = nobody();
    let keys = "server: llama.cpp, concurrency: 1, queue: {}, health: {kind: http, path: /health, \
                interval: 60s, timeout: 5s}";
    let endpoints = [silent.local_addr().unwrap(), dead_at, address];
    let proxy = Proxy::start(&leading_to(&endpoints, keys)).await;
    let answer = send(&proxy, 0);
    waits(&proxy, 1).await;
    let server = Loading::on(socket.listen(64).unwrap());
    let since = Instant::now();
    assert_served(&answer.await.unwrap(), "/0");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(server.early.load(Ordering::SeqCst), 0);
    drop((silent, dead));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_unasked_serves_without_waiting_again() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&leading_to(&[address], "queue: {empty: 200ms}")).await;
    let late = get(proxy.address(), "/late").await.unwrap();
    assert_eq!((late.status, late.reason()), (503, "no_endpoint"));
    let server = Server::on(socket.listen(64).unwrap(), ALL);
    let up = || proxy.metric("forebay_endpoint_healthy", &["cluster=\"a\""]) == 1.0;
    until("the endpoint is up again", async || up()).await;
    let answer = get(proxy.address(), "/x").await.unwrap();
    assert_served(&answer, "/x");
    assert_eq!(answer.header("x-forebay-cold-start"), None);
    assert_eq!(server.seen.count(), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_found_loading_is_waited_for() {
    for health in ["", ", health: {kind: http, path: /health, interval: 1s}"] {
        let (socket, address) = nobody();
        let server = Loading::on(socket.listen(64).unwrap());
        let keys = format!("server: llama.cpp, queue: {{}}{health}");
        let proxy = Proxy::start(&leading_to(&[address], &keys)).await;
        assert_served(&send(&proxy, 0).await.unwrap(), "/0");
        assert_eq!(server.early.load(Ordering::SeqCst), 0);
        is_empty(&proxy).await;
        proxy.stop().await;
    }
}
