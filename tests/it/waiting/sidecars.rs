//! Endpoints behind a sidecar of their own, which turns requests away: those wait again instead of their clients.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{
    ALL, Server, assert_served, get, held, is_empty, leading_to, nobody, post, waits, with_route,
};
use crate::support::{Client, Proxy, Upstream, respond, until};

const FULL: &str = "HTTP/1.1 429 X\r\nx-forebay-reason: queue_full\r\nretry-after: 1\r\n\
                    content-length: 4\r\n\r\nfull";
const DRAINING: &str = "HTTP/1.1 503 X\r\nx-forebay-reason: draining\r\nretry-after: 5\r\n\
                        content-length: 5\r\n\r\ndrain";

/// What came to a [`Sidecar`].
#[derive(Default)]
struct Seen {
    /// Path and moment of each request.
    came: Mutex<Vec<(String, Instant)>>,
    /// Requests whose body was not their path over and over.
    wrong: AtomicUsize,
}

/// Turns the first requests away, then answers with the path.
struct Sidecar {
    upstream: Upstream,
    seen: Arc<Seen>,
}

impl Sidecar {
    async fn start(first: usize, refusal: &'static str) -> Self {
        let seen: Arc<Seen> = Arc::default();
        let all = Arc::clone(&seen);
        let upstream = Upstream::start(move |mut peer| {
            let seen = Arc::clone(&all);
            async move {
                while let Some((head, body)) = peer.request().await {
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    let whole = path.as_bytes().iter().cycle().take(body.len());
                    if !body.iter().eq(whole) {
                        seen.wrong.fetch_add(1, Ordering::SeqCst);
                    }
                    let nth = {
                        let mut came = seen.came.lock().unwrap();
                        came.push((path.clone(), Instant::now()));
                        came.len()
                    };
                    let answer = match nth <= first {
                        true => refusal.as_bytes().to_vec(),
                        false => respond(200, &path),
                    };
                    if !peer.write(answer).await {
                        break;
                    }
                }
            }
        })
        .await;
        Self { upstream, seen }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    fn paths(&self) -> Vec<String> {
        let came = self.seen.came.lock().unwrap();
        came.iter().map(|(path, _)| path.clone()).collect()
    }

    fn count(&self) -> usize {
        self.seen.came.lock().unwrap().len()
    }
}

fn retries(proxy: &Proxy, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    proxy.metric("forebay_retries_total", &["cluster=\"a\"", &reason])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_away_waits_at_the_head_and_is_served_with_its_body() {
    for (refusal, reason) in [(FULL, "queue_full"), (DRAINING, "draining")] {
        let sidecar = Sidecar::start(3, refusal).await;
        let proxy = Proxy::start(&leading_to(&[sidecar.address()], "concurrency: 1")).await;
        let at = proxy.address();
        let first = tokio::spawn(Client::once(at, post("/0", 100_000)));
        until("the first one came", async || sidecar.count() > 0).await;
        let others: Vec<_> = (1..5)
            .map(|n| tokio::spawn(Client::once(at, post(&format!("/{n}"), 10_000))))
            .collect();
        let answer = first.await.unwrap();
        assert_served(&answer, "/0");
        assert!(answer.header("x-forebay-cold-start").is_some());
        for (number, answer) in (1..5).zip(others) {
            assert_served(&answer.await.unwrap(), &format!("/{number}"));
        }
        assert_eq!(sidecar.paths()[..4], ["/0", "/0", "/0", "/0"]);
        assert_eq!(sidecar.count(), 3 + 5);
        assert_eq!(sidecar.seen.wrong.load(Ordering::SeqCst), 0);
        assert_eq!(retries(&proxy, reason), 3.0);
        let waited = proxy.metric("forebay_queue_wait_seconds_count", &["cluster=\"a\""]);
        assert!(waited <= 5.0, "{waited}: each request once");
        is_empty(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_given_a_moment_between_two_attempts() {
    let sidecar = Sidecar::start(4, FULL).await;
    let proxy = Proxy::start(&leading_to(&[sidecar.address()], "concurrency: 4")).await;
    assert_served(&get(proxy.address(), "/x").await.unwrap(), "/x");
    let came = sidecar.seen.came.lock().unwrap().clone();
    assert_eq!(came.len(), 5);
    for (pair, least) in came.windows(2).zip([50, 100, 200, 400]) {
        let gap = pair[1].1 - pair[0].1;
        assert!(gap >= Duration::from_millis(least - 5), "{gap:?} < {least}");
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_endpoint_turns_away_another_serves_at_once() {
    let (away, server) = (
        Sidecar::start(ALL, DRAINING).await,
        Server::start(ALL).await,
    );
    let endpoints = [away.address(), server.address()];
    let proxy = Proxy::start(&leading_to(&endpoints, "concurrency: 1")).await;
    for number in 0..30 {
        let path = format!("/{number}");
        assert_served(&get(proxy.address(), &path).await.unwrap(), &path);
    }
    assert_eq!(server.seen.count(), 30);
    assert!(away.count() < 30, "it is not asked for each of them");
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_without_a_limit_of_slots_takes_them_back_as_well() {
    let sidecar = Sidecar::start(10, FULL).await;
    let proxy = Proxy::start(&leading_to(&[sidecar.address()], "queue: {}")).await;
    let answers: Vec<_> = (0..20).map(|_| get(proxy.address(), "/x")).collect();
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    assert_eq!(sidecar.count(), 30);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_again_is_told_what_the_sidecar_said() {
    let big = (1 << 20) + 1;
    for (keys, length) in [
        ("concurrency: 1", big),
        ("concurrency: 1, queue: {max_bytes: 1KiB}", 4 << 10),
        ("", 10),
    ] {
        let sidecar = Sidecar::start(ALL, FULL).await;
        let proxy = Proxy::start(&leading_to(&[sidecar.address()], keys)).await;
        let answer = Client::once(proxy.address(), post("/x", length)).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (429, "full"),
            "{keys}"
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(sidecar.count(), 1);
        assert_eq!(retries(&proxy, "queue_full"), 0.0);
        is_empty(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_refusals_are_answers() {
    for said in ["x-forebay-reason: rate_limited\r\n", ""] {
        let refusal: &'static str =
            format!("HTTP/1.1 429 X\r\n{said}content-length: 2\r\n\r\nno").leak();
        let sidecar = Sidecar::start(ALL, refusal).await;
        let proxy = Proxy::start(&leading_to(&[sidecar.address()], "concurrency: 1")).await;
        let answer = Client::get(proxy.address(), "/x").await;
        assert_eq!((answer.status, answer.text().as_str()), (429, "no"));
        assert_eq!(sidecar.count(), 1);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_the_room_bound_how_long_it_is_asked() {
    let sidecar = Sidecar::start(ALL, FULL).await;
    let keys = "concurrency: 1, queue: {saturated: 400ms, empty: 30s}";
    let proxy = Proxy::start(&leading_to(&[sidecar.address()], keys)).await;
    let answer = Client::once(proxy.address(), post("/x", 1000)).await;
    assert_eq!((answer.status, answer.reason()), (429, "queue_timeout"));
    assert!((2..10).contains(&sidecar.count()), "{}", sidecar.count());
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_meanwhile_gives_everything_back() {
    let sidecar = Sidecar::start(ALL, FULL).await;
    let proxy = Proxy::start(&leading_to(&[sidecar.address()], "concurrency: 1")).await;
    for _ in 0..10 {
        let mut client = Client::connect(proxy.address()).await;
        let before = sidecar.count();
        client.send(post("/x", 5000)).await;
        until("it came", async || sidecar.count() > before).await;
        drop(client);
        waits(&proxy, 0).await;
        is_empty(&proxy).await;
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_charged_until_its_answer_begins() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(post("/x", 5000)).await;
    server.holds(1).await;
    until("it is held", async || held(&proxy) >= 5000.0).await;
    server.permits.add_permits(1);
    assert_served(&client.answer().await, "/x");
    until("it is not held any more", async || held(&proxy) == 0.0).await;
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_of_the_route_are_not_used_up() {
    let sidecar = Sidecar::start(5, DRAINING).await;
    let route = ", retry: {attempts: 1, when: [503], methods: all}";
    let proxy = Proxy::start(&with_route(&[sidecar.address()], route, "concurrency: 2")).await;
    let answer = Client::once(proxy.address(), post("/x", 100)).await;
    assert_served(&answer, "/x");
    assert_eq!(retries(&proxy, "503"), 0.0);
    assert_eq!(retries(&proxy, "draining"), 5.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_real_sidecar_nobody_is_refused() {
    let server = Server::start(ALL).await;
    let inner = "concurrency: 1, queue: {max_requests: 1}";
    let inner = Proxy::start(&leading_to(&[server.address()], inner)).await;
    let outer = Proxy::start(&leading_to(&[inner.address()], "concurrency: 6")).await;
    let at = outer.address();
    let answers: Vec<_> = (0..60)
        .map(|n| tokio::spawn(Client::once(at, post(&format!("/{n}"), 2000))))
        .collect();
    for (number, answer) in answers.into_iter().enumerate() {
        assert_served(&answer.await.unwrap(), &format!("/{number}"));
    }
    assert_eq!((server.seen.count(), server.seen.most()), (60, 1));
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    is_empty(&outer).await;
    is_empty(&inner).await;
    outer.stop().await;
    inner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_drains_away_is_waited_for() {
    let (socket, address) = nobody();
    let server = Server::start(ALL).await;
    let sidecar = Sidecar::start(ALL, DRAINING).await;
    let endpoints = [sidecar.address(), address];
    let proxy = Proxy::start(&leading_to(&endpoints, "concurrency: 1")).await;
    let answer = get(proxy.address(), "/x");
    until("it is turned away", async || sidecar.count() > 1).await;
    let _second = Server::on(socket.listen(64).unwrap(), ALL);
    assert_served(&answer.await.unwrap(), "/x");
    drop(server);
    is_empty(&proxy).await;
    proxy.stop().await;
}
