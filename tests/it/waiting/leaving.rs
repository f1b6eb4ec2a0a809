//! Clients that leave while they wait, and a proxy that does.

use std::time::{Duration, Instant};

use super::{ALL, Server, assert_served, get, held, is_empty, leading_to, nobody, post, waits};
use crate::support::{Client, Proxy, until};

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_gives_up_place_and_bytes_at_once() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect(proxy.address()).await;
        client.send(post(&format!("/{number}"), 4 << 10)).await;
        waits(&proxy, number + 1).await;
        clients.push(client);
    }
    until("all bodies are here", async || {
        held(&proxy) >= 20.0 * 4096.0
    })
    .await;
    let before = held(&proxy);
    let since = Instant::now();
    let mut index = 0;
    clients.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    waits(&proxy, 10).await;
    let took = since.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}"); // 10 ms on a machine of its own
    until("their bytes are given back", async || {
        held(&proxy) <= before / 2.0 + 1.0
    })
    .await;
    server.permits.add_permits(ALL);
    for (client, number) in clients.iter_mut().zip((1..20).step_by(2)) {
        assert_served(&client.answer().await, &format!("/{number}"));
    }
    first.await.unwrap();
    assert_eq!(server.seen.count(), 11);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_passed_on_when_its_request_is_gone() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    for _ in 0..40 {
        let first = get(proxy.address(), "/first");
        server.holds(1).await;
        let leaver = {
            let mut client = Client::connect(proxy.address()).await;
            client.send("GET /leaver HTTP/1.1\r\nhost: t\r\n\r\n").await;
            client
        };
        waits(&proxy, 1).await;
        let last = get(proxy.address(), "/last");
        waits(&proxy, 2).await;
        // Both at once: whether the slot is handed before or after, the last one gets it.
        let gone = tokio::spawn(async move { drop(leaver) });
        server.permits.add_permits(3);
        gone.await.unwrap();
        assert_served(&first.await.unwrap(), "/first");
        assert_served(&last.await.unwrap(), "/last");
        is_empty(&proxy).await;
        server.permits.forget_permits(ALL);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_on_waiting_while_the_proxy_drains() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let answers: Vec<_> = (0..10).map(|_| get(proxy.address(), "/x")).collect();
    server.holds(1).await;
    waits(&proxy, 9).await;
    let limit = Duration::from_secs(15);
    proxy.control().drain(Some(Duration::ZERO), Some(limit));
    tokio::time::sleep(super::MOMENT).await;
    waits(&proxy, 9).await;
    server.permits.add_permits(ALL);
    for answer in answers {
        assert_served(&answer.await.unwrap(), "/x");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_waits_when_the_drain_ends_is_told_so() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&leading_to(&[address], "queue: {}")).await;
    let answers: Vec<_> = (0..5).map(|_| get(proxy.address(), "/x")).collect();
    waits(&proxy, 5).await;
    let limit = Duration::from_millis(300);
    proxy.control().drain(Some(Duration::ZERO), Some(limit));
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (503, "draining"),
            "{answer:?}"
        );
    }
    proxy.stop().await;
}
