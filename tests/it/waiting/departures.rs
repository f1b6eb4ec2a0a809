//! Clients that leave, in every phase of a request, over both protocols: what they had is free, and the next one has it.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};

use super::{ALL, Server, assert_served, get, held, is_empty, leading_to, nobody, post, waits};
use crate::support::h2::{H2, post as post_h2};
use crate::support::{Client, Proxy, Upstream, until};

/// A client in the middle of a request.
enum Caller {
    One(Client),
    /// A stream; its connection stays.
    Two(H2, ResponseFuture, SendStream<Bytes>),
}

const BOTH: [bool; 2] = [false, true];
const LENGTH: usize = 6 << 10;

impl Caller {
    /// Sends the first `sent` of `LENGTH` bytes of a body.
    async fn uploads(at: SocketAddr, http2: bool, path: &str, sent: usize) -> Self {
        let request = post(path, LENGTH);
        let head = request.len() - LENGTH;
        if !http2 {
            let mut client = Client::connect(at).await;
            client.send(&request[..head + sent]).await;
            return Self::One(client);
        }
        let client = H2::connect(at).await;
        let begun = post_h2(path).header("content-length", LENGTH).body(());
        let (answer, mut body) = client.begin(begun.unwrap(), false).await;
        let data = Bytes::copy_from_slice(&request[head..head + sent]);
        body.send_data(data, sent == LENGTH).unwrap();
        Self::Two(client, answer, body)
    }

    /// Reads the head and the first bytes of an answer.
    async fn hears_something(&mut self) {
        match self {
            Self::One(client) => {
                client.try_head().await.expect("an answer");
                client.bytes(5).await;
            }
            Self::Two(_, answer, _) => {
                let mut body = answer.await.unwrap().into_body();
                crate::support::h2::take(&mut body, 5).await;
            }
        }
    }

    /// Goes away; returns the connection that stays.
    fn leaves(self) -> Option<H2> {
        match self {
            Self::One(client) => {
                drop(client);
                None
            }
            Self::Two(client, answer, mut body) => {
                body.send_reset(Reason::CANCEL);
                drop(answer);
                Some(client)
            }
        }
    }
}

/// Nothing is left of anybody, on the connection's side of things either.
async fn is_forgotten(proxy: &Proxy) {
    is_empty(proxy).await;
    let in_flight = || proxy.metric("forebay_requests_in_flight", &["cluster=\"a\""]);
    until("no request is in flight", async || in_flight() == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_runs() {
    for http2 in BOTH {
        let (_socket, address) = nobody();
        let proxy = Proxy::start(&leading_to(&[address], "queue: {}")).await;
        let caller = Caller::uploads(proxy.address(), http2, "/x", LENGTH).await;
        waits(&proxy, 1).await;
        until("it is held", async || held(&proxy) >= LENGTH as f64).await;
        let _connection = caller.leaves();
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_body_is_still_coming() {
    for http2 in BOTH {
        let (_socket, address) = nobody();
        let proxy = Proxy::start(&leading_to(&[address], "queue: {}")).await;
        let caller = Caller::uploads(proxy.address(), http2, "/x", LENGTH / 2).await;
        until("half of it is held", async || {
            held(&proxy) >= (LENGTH / 2) as f64
        })
        .await;
        let _connection = caller.leaves();
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_reads_its_body() {
    for http2 in BOTH {
        let (_socket, address) = nobody();
        // Less than what is reserved for one read: nothing is ever held.
        let proxy = Proxy::start(&leading_to(&[address], "queue: {max_bytes: 1KiB}")).await;
        // A FIN behind bytes that nobody reads is not seen over HTTP/1.1: it leaves before it sends any.
        let sent = if http2 { LENGTH } else { 0 };
        let caller = Caller::uploads(proxy.address(), http2, "/x", sent).await;
        waits(&proxy, 1).await;
        let _connection = caller.leaves();
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_replica_is_being_started() {
    for http2 in BOTH {
        let ((socket, address), operator) = (nobody(), Upstream::fixed("{}").await);
        let keys = format!(
            "queue: {{}}, scale: {{webhook: {{url: 'http://{}/'}}}}",
            operator.address
        );
        let proxy = Proxy::start(&leading_to(&[address], &keys)).await;
        let caller = Caller::uploads(proxy.address(), http2, "/x", LENGTH).await;
        waits(&proxy, 1).await;
        operator.saw("\"desired\":1").await;
        let _connection = caller.leaves();
        is_forgotten(&proxy).await;
        let demand = || proxy.metric("forebay_demand", &["signal=\"waiting\""]);
        until("it is no demand any more", async || demand() == 0.0).await;
        // What was started serves whoever comes next.
        let server = Server::on(socket.listen(64).unwrap(), ALL);
        assert_served(&get(proxy.address(), "/next").await.unwrap(), "/next");
        assert_eq!(server.seen.paths(), ["/next"]);
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_busy_replica() {
    for http2 in BOTH {
        let server = Server::start(0).await;
        let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
        let first = get(proxy.address(), "/first");
        server.holds(1).await;
        let caller = Caller::uploads(proxy.address(), http2, "/leaves", LENGTH).await;
        waits(&proxy, 1).await;
        let last = get(proxy.address(), "/last");
        waits(&proxy, 2).await;
        let _connection = caller.leaves();
        waits(&proxy, 1).await;
        server.permits.add_permits(2);
        assert_served(&first.await.unwrap(), "/first");
        assert_served(&last.await.unwrap(), "/last");
        assert_eq!(server.seen.paths(), ["/first", "/last"]);
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

/// The server at work is left by its client, and the one that waits has the slot.
async fn the_next_one_has_the_slot(path: &str) {
    for http2 in BOTH {
        let server = Server::start(0).await;
        let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
        let mut caller = Caller::uploads(proxy.address(), http2, path, LENGTH).await;
        server.holds(1).await;
        if path == "/stream" {
            caller.hears_something().await;
        }
        let next = get(proxy.address(), "/next");
        waits(&proxy, 1).await;
        let _connection = caller.leaves();
        // Nobody has given the server leave to answer: the slot was free before.
        waits(&proxy, 0).await;
        until("the next one is there", async || server.seen.count() == 2).await;
        server.permits.add_permits(ALL);
        assert_served(&next.await.unwrap(), "/next");
        is_forgotten(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_answer_begins() {
    the_next_one_has_the_slot("/x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_its_answer() {
    the_next_one_has_the_slot("/stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_streams_of_a_connection_at_once() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 2")).await;
    let client = H2::connect(proxy.address()).await;
    let mut streams = Vec::new();
    for number in 0..50 {
        let request = post_h2(&format!("/{number}")).body(()).unwrap();
        let (answer, mut body) = client.begin(request, false).await;
        body.send_data(Bytes::from(format!("/{number}")), true)
            .unwrap();
        streams.push((answer, body));
    }
    server.holds(2).await;
    waits(&proxy, 48).await;
    client.connection.abort();
    drop((streams, client));
    is_forgotten(&proxy).await;
    server.permits.add_permits(ALL);
    assert_served(&get(proxy.address(), "/next").await.unwrap(), "/next");
    proxy.stop().await;
}
