//! Configuration that changes while requests wait.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ALL, Server, assert_served, get, is_empty, leading_to, nobody, waiting, waits};
use crate::support::{Client, Proxy, until};

fn put(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

/// A proxy whose file the test rewrites.
struct Live {
    proxy: Proxy,
    dir: TempDir,
}

impl Live {
    async fn start(text: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("forebay.yaml");
        put(&file, text);
        let proxy = Proxy::start_on(&file).await;
        Self { proxy, dir }
    }

    async fn reload(&self, text: &str) {
        put(&self.dir.path().join("forebay.yaml"), text);
        self.proxy.control().reload().await.unwrap();
    }

    fn get(&self, path: &str) -> tokio::task::JoinHandle<crate::support::client::Answer> {
        get(self.proxy.address(), path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_lets_those_who_wait_through_at_once() {
    let server = Server::start(0).await;
    let at = [server.address()];
    let live = Live::start(&leading_to(&at, "concurrency: 1")).await;
    let answers: Vec<_> = (0..10).map(|_| live.get("/x")).collect();
    server.holds(1).await;
    waits(&live.proxy, 9).await;
    live.reload(&leading_to(&at, "concurrency: 4")).await;
    server.holds(4).await;
    waits(&live.proxy, 6).await;
    // Lowered: who is there stays, and nobody follows until it is below.
    live.reload(&leading_to(&at, "concurrency: 2, queue: {max_requests: 6}"))
        .await;
    let full = live.get("/y").await.unwrap();
    assert_eq!((full.status, full.reason()), (429, "queue_full"));
    server.permits.add_permits(2);
    server.holds(2).await;
    assert_eq!(waiting(&live.proxy), 6.0);
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    assert_eq!(server.seen.most(), 4);
    is_empty(&live.proxy).await;
    live.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_began_without_a_limit_holds_no_place_of_who_comes_after_there_is_one() {
    let server = Server::start(0).await;
    let at = [server.address()];
    let live = Live::start(&leading_to(&at, "connect_timeout: 1s")).await;
    let streams = [live.get("/stream/1"), live.get("/stream/2")];
    server.holds(2).await;
    live.reload(&leading_to(&at, "connect_timeout: 1s, concurrency: 1"))
        .await;
    let next = live.get("/x");
    server.holds(3).await;
    let last = live.get("/x");
    waits(&live.proxy, 1).await;
    server.permits.add_permits(ALL);
    for answer in [next, last] {
        assert_served(&answer.await.unwrap(), "/x");
    }
    for stream in streams {
        assert_eq!(stream.await.unwrap().text(), "firstlast");
    }
    is_empty(&live.proxy).await;
    live.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_room_those_who_wait_are_served() {
    let server = Server::start(0).await;
    let at = [server.address()];
    let live = Live::start(&leading_to(&at, "concurrency: 1")).await;
    let answers: Vec<_> = (0..30).map(|_| live.get("/x")).collect();
    server.holds(1).await;
    waits(&live.proxy, 29).await;
    live.reload(&leading_to(&at, "connect_timeout: 5s")).await;
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    assert_served(&live.get("/y").await.unwrap(), "/y");
    is_empty_without_metrics(&live.proxy).await;
    live.proxy.stop().await;
}

/// A cluster without a room has no metrics of one.
async fn is_empty_without_metrics(proxy: &Proxy) {
    until("the room is empty", async || {
        let snapshot = proxy.control().snapshot();
        let demand = snapshot.clusters["a"].state.room().demand();
        (demand.in_flight, demand.waiting) == (0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_room_nobody_waits_for_a_dead_endpoint_and_it_is_not_given_up() {
    let (socket, address) = nobody();
    let live = Live::start(&leading_to(&[address], "queue: {}")).await;
    let answers: Vec<_> = (0..5).map(|_| live.get("/x")).collect();
    waits(&live.proxy, 5).await;
    live.reload(&leading_to(&[address], "connect_timeout: 5s"))
        .await;
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    let _server = Server::on(socket.listen(64).unwrap(), ALL);
    assert_served(&live.get("/y").await.unwrap(), "/y");
    live.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_where_the_new_configuration_says() {
    let (_socket, dead) = nobody();
    let server = Server::start(ALL).await;
    let live = Live::start(&leading_to(&[dead], "concurrency: 2, queue: {}")).await;
    let answers: Vec<_> = (0..20).map(|_| live.get("/x")).collect();
    waits(&live.proxy, 20).await;
    live.reload(&leading_to(
        &[server.address()],
        "concurrency: 2, queue: {}",
    ))
    .await;
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    is_empty(&live.proxy).await;
    live.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_cluster_that_went_are_served_all_the_same() {
    let (socket, address) = nobody();
    let live = Live::start(&leading_to(&[address], "queue: {}")).await;
    let answers: Vec<_> = (0..5).map(|_| live.get("/x")).collect();
    waits(&live.proxy, 5).await;
    let gone = "routes: [{name: r, respond: {body: gone}}]\nclusters: []\n";
    live.reload(&crate::support::proxy::config(gone)).await;
    assert_eq!(live.get("/y").await.unwrap().text(), "gone");
    let _server = Server::on(socket.listen(64).unwrap(), ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    live.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_lose_nobody_who_waits_or_listens() {
    const STREAMS: usize = 200;
    const WAITING: usize = 200;
    let server = Server::start(0).await;
    let at = [server.address()];
    let text = |number: usize| {
        let keys = format!(
            "concurrency: {STREAMS}, queue: {{max_requests: {}}}, connect_timeout: {}s",
            WAITING + number,
            5 + number
        );
        leading_to(&at, &keys)
    };
    let live = Live::start(&text(0)).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut client = Client::connect(live.proxy.address()).await;
        client.send("GET /stream HTTP/1.1\r\nhost: t\r\n\r\n").await;
        streams.push(client);
    }
    server.holds(STREAMS).await;
    let answers: Vec<_> = (0..WAITING).map(|_| live.get("/x")).collect();
    waits(&live.proxy, WAITING).await;
    let since = Instant::now();
    for number in 1..=50 {
        live.reload(&text(number)).await;
        let left = (Duration::from_millis(100) * number as u32).saturating_sub(since.elapsed());
        tokio::time::sleep(left / 2).await; // spread, as reloads are
    }
    assert_eq!(waiting(&live.proxy), WAITING as f64);
    server.permits.add_permits(ALL);
    for stream in &mut streams {
        assert_eq!(stream.answer().await.text(), "firstlast");
    }
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    assert!(server.seen.most() <= STREAMS, "{}", server.seen.most());
    is_empty(&live.proxy).await;
    live.proxy.stop().await;
}
