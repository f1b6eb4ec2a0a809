//! A client that leaves frees everything, in every phase of its request.

use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

use tokio::sync::Notify;

use crate::support::proxy::forward_to;
use crate::support::upstream::Peer;
use crate::support::{Client, PATIENCE, Proxy, Upstream, respond, until};

/// How the client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Fin,
    Reset,
}

impl Leave {
    fn run(self, client: Client) {
        if matches!(self, Self::Reset) {
            client.stream.set_zero_linger().unwrap();
        }
        drop(client);
    }
}

/// An endpoint whose script ends when its connection does.
struct Watched {
    upstream: Upstream,
    gone: Arc<Notify>,
}

impl Watched {
    async fn start<F, S>(script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let gone = Arc::new(Notify::new());
        let told = Arc::clone(&gone);
        let upstream = Upstream::start(move |peer| {
            let (ended, told) = (script(peer), Arc::clone(&told));
            async move {
                ended.await;
                told.notify_one();
            }
        })
        .await;
        Self { upstream, gone }
    }

    async fn gone(&self) {
        tokio::time::timeout(PATIENCE, self.gone.notified())
            .await
            .expect("the endpoint's connection ends");
    }
}

async fn freed(proxy: &Proxy, aborted: f64) {
    until("all gauges return and the abort is counted", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
            && proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
            && proxy.metric("forebay_aborted_total", &["reason=\"client_closed\""]) == aborted
    })
    .await;
    until("the connection is gone", async || {
        proxy.metric("forebay_connections", &["listener=\"main\""]) == 0.0
    })
    .await;
}

async fn in_flight(proxy: &Proxy) {
    until("the request is in flight", async || {
        proxy.metric("forebay_requests_in_flight", &["route=\"r\""]) == 1.0
            && proxy.metric("forebay_endpoint_in_flight", &[]) == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_waiting_for_the_head() {
    let watched = Watched::start(|mut peer| async move {
        peer.closed().await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[watched.upstream.address])).await;
    let requests = [
        "GET / HTTP/1.1\r\nhost: t\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            .to_owned(),
        // Pipelined: hyper does not read while the first is unanswered.
        "GET / HTTP/1.1\r\nhost: t\r\n\r\n".repeat(2),
    ];
    let mut count = 0.0;
    for request in requests {
        for leave in [Leave::Fin, Leave::Reset] {
            let mut client = Client::connect(proxy.address()).await;
            client.send(&request).await;
            in_flight(&proxy).await;
            leave.run(client);
            watched.gone().await;
            count += 1.0;
            freed(&proxy, count).await;
        }
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_upload() {
    let watched = Watched::start(|mut peer| async move {
        peer.closed().await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[watched.upstream.address])).await;
    let mut count = 0.0;
    for framing in ["content-length: 1000000", "transfer-encoding: chunked"] {
        for leave in [Leave::Fin, Leave::Reset] {
            let mut client = Client::connect(proxy.address()).await;
            client
                .send(format!(
                    "POST / HTTP/1.1\r\nhost: t\r\n{framing}\r\n\r\n4\r\nabcd\r\n"
                ))
                .await;
            until("the first bytes arrived", async || {
                watched
                    .upstream
                    .transcripts()
                    .last()
                    .is_some_and(|t| t.ends_with(b"abcd\r\n"))
            })
            .await;
            leave.run(client);
            watched.gone().await;
            count += 1.0;
            freed(&proxy, count).await;
            let text = watched.upstream.text();
            assert!(
                !text.contains("\r\n0\r\n\r\n"),
                "an aborted upload looked complete"
            );
        }
    }
    proxy.stop().await;
}

/// The endpoint does not read: bytes pile up on our side of a client that resets.
#[tokio::test(flavor = "multi_thread")]
async fn during_an_upload_that_nobody_reads() {
    let leave = Arc::new(Notify::new());
    let left = Arc::clone(&leave);
    let watched = Watched::start(move |mut peer| {
        let left = Arc::clone(&left);
        async move {
            peer.head().await;
            left.notified().await;
            peer.closed().await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[watched.upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 100000000\r\n\r\n")
        .await;
    let block = vec![b'x'; 64 << 10];
    let pause = std::time::Duration::from_millis(300);
    while let Ok(true) = tokio::time::timeout(pause, client.try_send(&block)).await {}
    in_flight(&proxy).await;
    Leave::Reset.run(client);
    freed(&proxy, 1.0).await;
    leave.notify_one();
    watched.gone().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_answer() {
    let heads = [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\n\r\n1\r\na\r\n",
    ];
    for busy in [false, true] {
        for head in heads {
            let watched = Watched::start(move |mut peer| async move {
                peer.request().await;
                peer.write(head).await;
                if busy {
                    let block = format!("4000\r\n{}\r\n", "x".repeat(16 << 10));
                    while peer.write(&block).await {}
                }
                peer.closed().await;
            })
            .await;
            let proxy = Proxy::start(&forward_to(&[watched.upstream.address])).await;
            let mut count = 0.0;
            for leave in [Leave::Fin, Leave::Reset] {
                let mut client = Client::connect(proxy.address()).await;
                client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
                assert!(
                    client
                        .try_head()
                        .await
                        .unwrap()
                        .starts_with("HTTP/1.1 200 ")
                );
                client.bytes(1).await;
                leave.run(client);
                watched.gone().await;
                count += 1.0;
                freed(&proxy, count).await;
            }
            proxy.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_tunnel() {
    let watched = Watched::start(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi")
            .await;
        peer.closed().await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[watched.upstream.address])).await;
    for leave in [Leave::Fin, Leave::Reset] {
        let mut client = Client::connect(proxy.address()).await;
        client
            .send("GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await;
        assert!(
            client
                .try_head()
                .await
                .unwrap()
                .starts_with("HTTP/1.1 101 ")
        );
        assert_eq!(client.bytes(2).await, b"hi");
        in_flight(&proxy).await;
        leave.run(client);
        watched.gone().await;
        until("all gauges return", async || {
            proxy.metric("forebay_requests_in_flight", &[]) == 0.0
                && proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
        })
        .await;
    }
    proxy.stop().await;
}

/// A client that leaves after its whole answer aborted nothing.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_after_the_answer_is_no_abort() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() && peer.write(respond(200, "ok")).await {}
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    for leave in [Leave::Fin, Leave::Reset] {
        let mut client = Client::connect(proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "ok");
        leave.run(client);
    }
    freed(&proxy, 0.0).await;
    assert_eq!(
        upstream.transcripts().len().min(2),
        upstream.transcripts().len()
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_reads_does_not_keep_what_the_client_left_behind() {
    let upstream = Upstream::start(|peer| async move {
        let _held = peer;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST /up HTTP/1.1\r\nhost: t\r\ncontent-length: 67108864\r\n\r\n")
        .await;
    // Both sides' buffers fill up: from then on nothing moves.
    let block = vec![b'x'; 1 << 16];
    let still = Duration::from_millis(300);
    while let Ok(Ok(())) = tokio::time::timeout(still, client.stream.write_all(&block)).await {}
    let cluster = Arc::clone(&proxy.control().snapshot().clusters["a"].state);
    assert_eq!(cluster.connections(), 1);
    Leave::Reset.run(client); // a FIN would wait behind the bytes that nobody takes
    until("the connection is closed", async || {
        cluster.connections() == 0
    })
    .await;
    assert_eq!(cluster.requests(), 0);
    proxy.stop().await;
}
