//! Bodies pass as they come, both ways, whole, and only as fast as the slower side takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::support::proxy::{config, forward_to};
use crate::support::{Client, PATIENCE, Proxy, Upstream, respond, until};

/// Bytes that no other place of the same body repeats.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(length.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    for framed in [true, false] {
        let (send, receive) = mpsc::channel::<String>(1);
        let receive = Arc::new(tokio::sync::Mutex::new(receive));
        let upstream = Upstream::start(move |mut peer| {
            let receive = Arc::clone(&receive);
            async move {
                peer.request().await;
                let coding = if framed {
                    "transfer-encoding: chunked\r\n"
                } else {
                    ""
                };
                peer.write(format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{coding}\r\n"
                ))
                .await;
                while let Some(event) = receive.lock().await.recv().await {
                    let bytes = if framed {
                        format!("{:x}\r\n{event}\r\n", event.len())
                    } else {
                        event
                    };
                    peer.write(bytes).await;
                }
                if framed {
                    peer.write("0\r\n\r\n").await;
                }
            }
        })
        .await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let mut client = Client::connect(proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let head = client.try_head().await.unwrap();
        assert!(
            head.contains("content-type: text/event-stream\r\n"),
            "the head comes before any event: {head}"
        );
        for n in 0..50 {
            let event = format!("data: {{\"token\": {n}}}\n\n");
            send.send(event.clone()).await.unwrap();
            let chunk = format!("{:X}\r\n{event}\r\n", event.len());
            let got = String::from_utf8(client.bytes(chunk.len()).await).unwrap();
            assert!(
                got.eq_ignore_ascii_case(&chunk),
                "event {n} as one chunk: {got:?}"
            );
        }
        drop(send);
        assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_flows_back_while_the_upload_goes_on() {
    let upstream = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let mut echoed = 0;
        loop {
            let chunk: Vec<u8> = peer.buffer.drain(..).collect();
            echoed += chunk.len();
            if !peer.write(&chunk).await
                || chunk.ends_with(b"0\r\n\r\n")
                || (!peer.read().await && echoed > 0)
            {
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert!(
        client
            .try_head()
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 "),
        "the head comes before the body"
    );
    for n in 10..60 {
        let chunk = format!("7\r\nping {n}\r\n");
        client.send(&chunk).await;
        assert_eq!(client.bytes(chunk.len()).await, chunk.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_mebibytes_arrive_byte_for_byte_both_ways() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let length = head.split("content-length: ").nth(1);
            let length: Option<usize> =
                length.map(|l| l.split("\r\n").next().unwrap().parse().unwrap());
            while match length {
                Some(length) => peer.buffer.len() < length,
                None => !peer.buffer.ends_with(b"\r\n0\r\n\r\n"),
            } {
                if !peer.read().await {
                    return;
                }
            }
            let body = std::mem::take(&mut peer.buffer);
            let framing = match length {
                Some(length) => format!("content-length: {length}"),
                None => "transfer-encoding: chunked".to_owned(),
            };
            peer.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))
                .await;
            peer.write(body).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let body = pattern(10 << 20);
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(format!(
            "POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    client.send(&body).await;
    assert!(client.answer().await.body == body, "the bytes differ");
    client
        .send("POST /chunked HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for chunk in body.chunks(50_000) {
        client.send(format!("{:x}\r\n", chunk.len())).await;
        client.send(chunk).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.answer().await.body == body, "the bytes differ");
    assert_eq!(
        proxy.metric("forebay_request_bytes_total", &["route=\"r\""]),
        (20 << 20) as f64
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways_without_those_that_frame_or_authenticate() {
    let upstream = Upstream::start(|mut peer| async move {
        peer.head().await;
        while !peer.buffer.ends_with(b"\r\n\r\n") && peer.read().await {}
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-down\r\n\r\n";
        let trailers =
            "x-down: two\r\ncontent-length: 7\r\nset-cookie: evil=1\r\nx-forebay-evil: 1\r\n";
        peer.write(format!("{head}2\r\nok\r\n0\r\n{trailers}\r\n"))
            .await;
        peer.closed().await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    let head = "POST / HTTP/1.1\r\nhost: t\r\nte: trailers\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n";
    let trailers = "x-up: one\r\nhost: evil\r\ncontent-length: 9\r\nauthorization: evil\r\nx-forwarded-for: evil\r\n";
    client
        .send(format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n"))
        .await;
    let head = client.try_head().await.unwrap().to_ascii_lowercase();
    assert!(head.contains("trailer: x-down\r\n"), "{head}");
    let end = "2\r\nok\r\n0\r\nx-down: two\r\n\r\n";
    assert_eq!(
        String::from_utf8(client.bytes(end.len()).await).unwrap(),
        end
    );
    let text = upstream.text();
    assert!(
        text.ends_with("2\r\nhi\r\n0\r\nx-up: one\r\n\r\n"),
        "{text}"
    );
    assert!(!text.contains("evil"), "{text}");
    proxy.stop().await;
}

/// Bytes between an endpoint and a client that does not read are bounded by sockets and buffers, not by the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_endpoint() {
    const BODY: usize = 256 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let upstream = Upstream::start(move |mut peer| {
        let count = Arc::clone(&count);
        async move {
            peer.request().await;
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n"))
                .await;
            let block = vec![b'x'; 64 << 10];
            while count.load(Ordering::Relaxed) < BODY && peer.write(&block).await {
                count.fetch_add(block.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    client.try_head().await.unwrap();
    stands_still(&written).await;
    let stuck = written.load(Ordering::Relaxed);
    assert!(stuck < 32 << 20, "{stuck} bytes went ahead of the reader");
    let mut read = 0;
    let mut block = vec![0u8; 256 << 10];
    while read < 2 * stuck {
        read += tokio::time::timeout(PATIENCE, client.stream.read(&mut block))
            .await
            .unwrap()
            .unwrap();
    }
    assert!(
        written.load(Ordering::Relaxed) > stuck,
        "the endpoint goes on once the client reads"
    );
    drop(client);
    proxy.stop().await;
}

async fn stands_still(count: &AtomicUsize) {
    let mut last = usize::MAX;
    until("no byte moves any more", async || {
        let now = count.load(Ordering::Relaxed);
        let still = now == last;
        last = now;
        tokio::time::sleep(Duration::from_millis(200)).await; // how long "still" is
        still && now > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_read_stops_the_client() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    const BODY: usize = 64 << 20;
    let upstream = Upstream::start(move |mut peer| {
        let waits = Arc::clone(&waits);
        async move {
            peer.head().await;
            waits.notified().await;
            let mut block = vec![0u8; 256 << 10];
            let mut got = peer.buffer.len();
            while got < BODY {
                match peer.stream.read(&mut block).await {
                    Ok(n @ 1..) => got += n,
                    _ => return,
                }
            }
            peer.write(respond(200, &got.to_string())).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let client = Client::connect(proxy.address()).await;
    let (mut read, mut write) = client.stream.into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        write
            .write_all(
                format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {BODY}\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let block = vec![b'x'; 64 << 10];
        while count.load(Ordering::Relaxed) < BODY {
            write.write_all(&block).await.unwrap();
            count.fetch_add(block.len(), Ordering::Relaxed);
        }
        write
    });
    stands_still(&sent).await;
    let stuck = sent.load(Ordering::Relaxed);
    assert!(stuck < 32 << 20, "{stuck} bytes went ahead of the reader");
    go.notify_one();
    let mut answer = vec![0u8; 1024];
    let n = tokio::time::timeout(PATIENCE, read.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(String::from_utf8_lossy(&answer[..n]).ends_with(&BODY.to_string()));
    drop(sending.await.unwrap());
    proxy.stop().await;
}

/// An endpoint that agrees to any upgrade and echoes until the end, with a first word of its own.
async fn echo_tunnel() -> Upstream {
    Upstream::start(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        assert!(head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n"), "{head}");
        peer.write("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nfirst|")
            .await;
        loop {
            let bytes: Vec<u8> = peer.buffer.drain(..).collect();
            if !peer.write(&bytes).await {
                return;
            }
            if !peer.read().await {
                break;
            }
        }
        peer.write("|bye").await;
    })
    .await
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: t\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_tunnel_with_half_closes() {
    let upstream = echo_tunnel().await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    for early in ["", "early"] {
        let mut client = Client::connect(proxy.address()).await;
        client.send(format!("{UPGRADE}{early}")).await;
        let head = client.try_head().await.unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"),
            "{head}"
        );
        assert!(head.contains("sec-websocket-accept: a\r\n"), "{head}");
        let first = format!("first|{early}");
        assert_eq!(
            String::from_utf8(client.bytes(first.len()).await).unwrap(),
            first
        );
        for n in 10..40 {
            client.send(format!("ping {n}")).await;
            assert_eq!(client.bytes(7).await, format!("ping {n}").as_bytes());
        }
        let large = pattern(3 << 20);
        let (sent, back) = {
            let (mut read, mut write) = client.stream.split();
            let mut back = vec![0u8; large.len()];
            let sent = async {
                write.write_all(&large).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let (sent, got) = tokio::join!(sent, read.read_exact(&mut back));
            got.unwrap();
            (sent, back)
        };
        let () = sent;
        assert!(back == large, "the bytes differ");
        assert_eq!(
            client.bytes(4).await,
            b"|bye",
            "the endpoint may speak after the client's FIN"
        );
        assert!(client.closed().await, "by FIN");
    }
    until("tunnels are over", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
            && proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    assert_eq!(
        proxy.metric("forebay_requests_total", &["code=\"101\""]),
        2.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_answered_otherwise_is_no_tunnel() {
    let upstream = Upstream::fixed("plain").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(UPGRADE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
    assert_eq!(answer.header("upgrade"), None);
    client
        .try_send("GET /next HTTP/1.1\r\nhost: t\r\n\r\n")
        .await;
    match client.try_answer().await {
        Ok(next) => assert_eq!(
            (
                next.status,
                upstream.text().matches("x-forwarded-for").count()
            ),
            (200, 2)
        ),
        Err(rest) => assert!(
            rest.is_empty() && !upstream.text().contains("/next"),
            "{rest:?}"
        ),
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_limit_is_413_by_length_and_by_chunks() {
    let upstream = Upstream::fixed("ok").await;
    let at = upstream.address;
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, body: {{max: 10}}}}]\nclusters: [{{name: a, endpoints: ['{at}']}}]\n"
    )))
    .await;
    let post = |framing: &str, body: &str| {
        format!(
            "POST /{} HTTP/1.1\r\nhost: t\r\n{framing}\r\n\r\n{body}",
            body.len()
        )
    };
    let chunked = "transfer-encoding: chunked";
    for request in [
        post("content-length: 10", "0123456789"),
        post(chunked, "a\r\n0123456789\r\n0\r\n\r\n"),
    ] {
        assert_eq!(Client::once(proxy.address(), request).await.status, 200);
    }
    let before = upstream.text();
    for length in ["11", "1000000000000"] {
        let mut client = Client::connect(proxy.address()).await;
        client
            .send(post(
                &format!("content-length: {length}\r\nexpect: 100-continue"),
                "",
            ))
            .await;
        let answer = client.answer().await; // no 100 came first
        assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
        client.closed().await;
    }
    assert_eq!(upstream.text(), before, "nothing was forwarded");
    for body in [
        "b\r\n01234567890\r\n0\r\n\r\n",
        "5\r\n01234\r\n5\r\n56789\r\n1\r\nx\r\n0\r\n\r\n",
        "5\r\n01234\r\n6\r\n567890\r\n",
    ] {
        let mut client = Client::connect(proxy.address()).await;
        client.send(post(chunked, body)).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (413, "body_too_large"),
            "{body:?}"
        );
        client.closed().await;
    }
    let after = upstream.text();
    assert_eq!(
        after.matches("\r\n0\r\n\r\n").count(),
        1,
        "an oversize body never looks complete: {after}"
    );
    proxy.stop().await;
}
