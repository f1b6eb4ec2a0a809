//! Endpoints that an operator takes out.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Server, healthy, tally};
use crate::support::proxy::config;
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_endpoint_gets_nothing_until_it_is_back() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a}}]\n\
         clusters: [{{name: a, balance: round_robin, endpoints: ['{}', '{}']}}]\n",
        one.address(),
        two.address()
    )))
    .await;
    let snapshot = proxy.control().snapshot();
    let state = &snapshot.clusters["a"].state;
    assert!(state.drain("127.0.0.1:1".parse().unwrap()).is_none());
    for _ in 0..2 {
        state.drain(one.address()).unwrap();
        assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [0, 10]);
        assert_eq!(healthy(&proxy, &one), 0.0);
    }
    state.drain(two.address()).unwrap();
    assert_eq!(tally(&proxy, 3, &["none"]).await, [3]);
    for server in [&one, &two] {
        state.undrain(server.address()).unwrap();
    }
    assert_eq!(tally(&proxy, 10, &["one", "two"]).await, [5, 5]);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_on_a_drained_endpoint_finishes() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let one = Upstream::start(move |mut peer: Peer| {
        let gate = Arc::clone(&wait);
        async move {
            while let Some((head, _)) = peer.request().await {
                gate.acquire().await.unwrap().forget();
                if head.contains("/stream") {
                    peer.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nbegi")
                        .await;
                    gate.acquire().await.unwrap().forget();
                    peer.write("nend").await;
                } else {
                    peer.write(respond(200, "one")).await;
                }
            }
        }
    })
    .await;
    let proxy = Proxy::start(&crate::support::proxy::forward_to(&[one.address])).await;
    let mut waiting = Client::connect(proxy.address()).await;
    let mut streaming = Client::connect(proxy.address()).await;
    streaming
        .send("GET /stream HTTP/1.1\r\nhost: t\r\n\r\n")
        .await;
    one.saw("GET /stream").await;
    gate.add_permits(1);
    streaming.try_head().await.unwrap();
    waiting.send("GET /wait HTTP/1.1\r\nhost: t\r\n\r\n").await;
    one.saw("GET /wait").await;
    let snapshot = proxy.control().snapshot();
    let state = &snapshot.clusters["a"].state;
    let report = state.drain(one.address).unwrap();
    assert_eq!(report.in_flight, 2);
    let refused = Client::get(proxy.address(), "/").await;
    assert_eq!((refused.status, refused.reason()), (503, "no_endpoint"));
    gate.add_permits(2);
    assert_eq!(streaming.bytes(8).await, b"beginend");
    assert_eq!(waiting.answer().await.text(), "one");
    until("it is idle", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    let next = waiting.send("GET /again HTTP/1.1\r\nhost: t\r\n\r\n");
    next.await;
    assert_eq!(waiting.answer().await.reason(), "no_endpoint");
    state.undrain(one.address).unwrap();
    gate.add_permits(1);
    waiting.send("GET /again HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(waiting.answer().await.text(), "one");
    proxy.stop().await;
}
