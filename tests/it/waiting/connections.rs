//! Open connections: an endpoint with a limit never has more of them than slots, whoever holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::{ALL, get, is_empty, leading_to, waits, with_route};
use crate::support::{Client, Proxy, Upstream, respond, until};

/// An endpoint that counts its open connections.
struct Counting {
    upstream: Upstream,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl Counting {
    async fn start(permits: usize) -> Self {
        let (open, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let permits = Arc::new(Semaphore::new(permits));
        let all = (Arc::clone(&open), Arc::clone(&most), Arc::clone(&permits));
        let upstream = Upstream::start(move |mut peer| {
            let (open, most, permits) = all.clone();
            let now = open.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            async move {
                while let Some((head, _)) = peer.request().await {
                    if !head.contains("kube-probe") {
                        permits.acquire().await.unwrap().forget();
                    }
                    if !peer.write(respond(200, "ok")).await {
                        break;
                    }
                }
                open.fetch_sub(1, Ordering::SeqCst); // and then it closes
            }
        })
        .await;
        Self {
            upstream,
            open,
            most,
            permits,
        }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

const REQUEST: &str = "GET /x HTTP/1.1\r\nhost: t\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_one_worker_makes_room_for_another_one_s() {
    let server = Counting::start(ALL).await;
    let keys = "concurrency: 1, keepalive: {idle: 30s}";
    let proxy = Proxy::start(&leading_to(&[server.upstream.address], keys)).await;
    // One client per worker.
    let mut clients = [
        Client::connect(proxy.address()).await,
        Client::connect(proxy.address()).await,
    ];
    for _ in 0..20 {
        for client in &mut clients {
            client.send(REQUEST).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    assert_eq!((server.most(), server.open()), (1, 1));
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_endpoint_has_as_many_connections_as_slots() {
    for slots in [1, 3] {
        let server = Counting::start(ALL).await;
        let keys = format!("concurrency: {slots}, keepalive: {{idle: 30s}}");
        let proxy = Proxy::start(&leading_to(&[server.upstream.address], &keys)).await;
        let at = proxy.address();
        let clients: Vec<_> = (0..12)
            .map(|_| {
                tokio::spawn(async move {
                    let mut client = Client::connect(at).await;
                    for _ in 0..40 {
                        client.send(REQUEST).await;
                        assert_eq!(client.answer().await.status, 200);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        assert!(server.most() <= slots, "{} > {slots}", server.most());
        let reused = server.upstream.transcripts();
        assert!(reused.len() < 12 * 40, "none was used twice");
        is_empty(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_serves_is_never_closed_for_another_one() {
    let server = Counting::start(0).await;
    let keys = "concurrency: 2, keepalive: {idle: 30s}";
    let proxy = Proxy::start(&leading_to(&[server.upstream.address], keys)).await;
    let answers: Vec<_> = (0..10).map(|_| get(proxy.address(), "/x")).collect();
    until("both slots are used", async || server.open() == 2).await;
    waits(&proxy, 8).await;
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(server.most(), 2);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_a_busy_server_waits_for_no_connection() {
    let server = Counting::start(0).await;
    // Only where replicas are started is a probe no request.
    let keys = "concurrency: 1, keepalive: {idle: 30s}, scale: {observe: {}}";
    let proxy = Proxy::start(&leading_to(&[server.upstream.address], keys)).await;
    let busy = get(proxy.address(), "/x");
    until("it is busy", async || server.open() == 1).await;
    let probe = "GET /x HTTP/1.1\r\nhost: t\r\nuser-agent: kube-probe/1.30\r\n\r\n";
    assert_eq!(Client::once(proxy.address(), probe).await.status, 200);
    until("its connection is closed", async || server.open() == 1).await;
    server.permits.add_permits(1);
    assert_eq!(busy.await.unwrap().status, 200);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_while_it_has_none_yet_holds_up_nobody() {
    let server = Counting::start(ALL).await;
    let keys = "concurrency: 1, keepalive: {idle: 30s}";
    let proxy = Proxy::start(&leading_to(&[server.upstream.address], keys)).await;
    for _ in 0..50 {
        let mut here = Client::connect(proxy.address()).await;
        let mut there = Client::connect(proxy.address()).await;
        here.send(REQUEST).await;
        assert_eq!(here.answer().await.status, 200);
        there.send(REQUEST).await;
        drop(there);
        here.send(REQUEST).await;
        assert_eq!(here.answer().await.status, 200);
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_close_its_side_holds_up_nobody() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(200, "ok")).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let keys = "concurrency: 1, keepalive: {idle: 30s}";
    let proxy = Proxy::start(&with_route(&[upstream.address], "", keys)).await;
    let mut clients = [
        Client::connect(proxy.address()).await,
        Client::connect(proxy.address()).await,
    ];
    for client in &mut clients {
        client.send(REQUEST).await;
        assert_eq!(client.answer().await.status, 200);
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}
