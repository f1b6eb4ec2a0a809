//! Endpoints that are dead, hang, cut, lie or talk too much: the client is always told, and nobody else is hurt.

mod answers;
mod truncated;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::proxy::{config, forward_to};
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond};

/// An address where connections hang: its queue is full and nobody accepts. Lives as long as what is returned.
pub async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queue.push(stream.unwrap());
        assert!(queue.len() < 100, "the queue never fills");
    }
    (address, listener, queue)
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Answers each connection's first request with these bytes and closes; `reset`: by RST.
async fn once(bytes: Vec<u8>, reset: bool) -> Upstream {
    Upstream::start(move |mut peer| {
        let bytes = bytes.clone();
        async move {
            if peer.request().await.is_some() {
                peer.write(&bytes).await;
                end(peer, reset);
            }
        }
    })
    .await
}

fn end(peer: Peer, reset: bool) {
    if reset {
        peer.stream.set_zero_linger().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_and_one_that_hangs_are_told_apart() {
    let (hole, _listener, _queue) = black_hole().await;
    let dead = nowhere().await;
    let proxy = Proxy::start(&config(&format!(
        "routes:\n- {{name: dead, match: {{path: {{prefix: /dead}}}}, cluster: dead}}\n- {{name: hole, cluster: hole}}\n\
         clusters:\n- {{name: dead, endpoints: ['{dead}']}}\n\
         - {{name: hole, endpoints: ['{hole}'], connect_timeout: 200ms}}\n"
    )))
    .await;
    for method in ["GET", "POST"] {
        let answer = Client::once(
            proxy.address(),
            format!("{method} /dead HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi"),
        )
        .await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    }
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.reason()), (504, "connect_timeout"));
    let failed = [
        "route=\"dead\"",
        "code=\"502\"",
        "reason=\"connect_failed\"",
    ];
    assert_eq!(proxy.metric("forebay_requests_total", &failed), 2.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritten_request_goes_to_another_endpoint_exactly_once() {
    let upstream = Upstream::fixed("ok").await;
    let (dead, alive) = (nowhere().await, upstream.address);
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a}}]\n\
         clusters: [{{name: a, balance: round_robin, endpoints: ['{dead}', '{alive}']}}]\n"
    )))
    .await;
    for n in 0..20 {
        let request = format!("POST /p{n}/ HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody");
        assert_eq!(Client::once(proxy.address(), request).await.status, 200);
    }
    let text = upstream.text();
    (0..20).for_each(|n| assert_eq!(text.matches(&format!("POST /p{n}/ ")).count(), 1));
    assert!(
        proxy.metric("forebay_retries_total", &["reason=\"connect_failed\""]) >= 5.0,
        "{}",
        proxy.metrics()
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_or_reset_before_the_head_is_502() {
    for reset in [false, true] {
        for bytes in [
            "",
            "H",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r",
        ] {
            let upstream = once(bytes.into(), reset).await;
            let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
            let post = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi";
            let answer = Client::once(proxy.address(), post).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, "upstream_reset"),
                "{bytes:?} reset: {reset}"
            );
            assert_eq!(
                upstream.text().matches("POST / ").count(),
                1,
                "never sent twice"
            );
            proxy.stop().await;
        }
    }
}

/// The endpoint closes each connection right after its answer, without saying so.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_close_silently_are_not_reused() {
    let upstream = once(respond(200, "ok"), false).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    for n in 0..50 {
        let (method, body) = if n % 2 == 0 {
            ("GET", "")
        } else {
            ("POST", "body")
        };
        let length = body.len();
        let request = format!(
            "{method} /n{n}/ HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{n}");
        // The FIN is on its way: an idle pause makes it arrive, none makes the race.
        if n % 3 == 0 {
            crate::support::until("the endpoint closed", async || {
                upstream.transcripts().len() == n + 1
            })
            .await;
        }
    }
    let text = upstream.text();
    (0..50).for_each(|n| assert_eq!(text.matches(&format!(" /n{n}/ ")).count(), 1));
    proxy.stop().await;
}

/// The endpoint dies when the second request of a connection has arrived: it may have acted on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_was_written_is_never_repeated() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request().await.is_some() && peer.write(respond(200, "first")).await {
            peer.request().await;
            end(peer, true);
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    let post =
        |n: usize| format!("POST /n{n}/ HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody");
    let mut failed = 0;
    for n in 0..20 {
        client.send(post(n)).await;
        let answer = client.answer().await;
        if answer.status != 200 {
            assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
            failed += 1;
        }
    }
    assert_eq!(failed, 10);
    let text = upstream.text();
    (0..20).for_each(|n| assert_eq!(text.matches(&format!("POST /n{n}/ ")).count(), 1));
    proxy.stop().await;
}

/// 413 while the client is still sending: it reads the whole answer, whatever it has not sent yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_in_the_middle_of_its_upload() {
    let body = "x".repeat(40_000);
    let answer = respond(413, &body);
    for close in [false, true] {
        let answer = answer.clone();
        let upstream = Upstream::start(move |mut peer| {
            let answer = answer.clone();
            async move {
                if peer.head().await.is_some() && peer.read().await {
                    peer.write(&answer).await;
                    if !close {
                        peer.closed().await;
                    }
                }
            }
        })
        .await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let client = Client::connect(proxy.address()).await;
        let (read, mut write) = client.stream.into_split();
        let uploading = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let head = format!(
                "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
                64 << 20
            );
            let mut sent = write.write_all(head.as_bytes()).await;
            let block = vec![b'u'; 16 << 10];
            for _ in 0..1000 {
                if sent.is_err() {
                    break;
                }
                sent = write.write_all(&block).await;
            }
        });
        let raw = read_to_end(read).await;
        let text = String::from_utf8_lossy(&raw);
        assert!(
            text.starts_with("HTTP/1.1 413 "),
            "close: {close}: {text:.200}"
        );
        assert_eq!(
            text.split_once("\r\n\r\n").unwrap().1,
            body,
            "close: {close}"
        );
        uploading.await.unwrap();
        proxy.stop().await;
    }
}

async fn read_to_end(mut read: tokio::net::tcp::OwnedReadHalf) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let mut all = Vec::new();
    let reading = async {
        let mut block = [0u8; 16 << 10];
        while let Ok(n @ 1..) = read.read(&mut block).await {
            all.extend_from_slice(&block[..n]);
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, reading)
        .await
        .expect("the connection ends");
    all
}
