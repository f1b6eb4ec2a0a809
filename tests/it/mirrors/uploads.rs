//! Bodies on their way to two places: whole, framed anew, bounded.

use std::hash::Hasher as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{all_over, copies, dropped, mirrored, post, shape};
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond};

const MIB: usize = 1 << 20;

/// What a large upload repeats: of a length that fits no buffer.
fn block() -> Vec<u8> {
    (0..1_000_003u32)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect()
}

/// The first `length` bytes of blocks without end, by a hash.
fn hash(length: usize) -> u64 {
    let block = block();
    let mut hasher = std::hash::DefaultHasher::new();
    let mut left = length;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        hasher.write(part);
        left -= part.len();
    }
    hasher.finish()
}

/// Answers with the hash of a body of which it keeps nothing.
async fn hashing(mut peer: Peer) {
    while let Some(head) = peer.head().await {
        let mut left: usize = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
            .unwrap();
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&peer.buffer);
        left -= peer.buffer.len();
        peer.buffer.clear();
        let mut block = vec![0u8; 256 << 10];
        while left > 0 {
            let Ok(read @ 1..) = peer.stream.read(&mut block).await else {
                return;
            };
            hasher.write(&block[..read]);
            left -= read;
        }
        peer.write(respond(200, &format!("{:x}", hasher.finish())))
            .await;
    }
}

/// Sends `length` bytes of blocks and returns what the primary says to them.
async fn upload(proxy: &Proxy, length: usize) -> String {
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    let block = block();
    let mut left = length;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        client.send(part).await;
        left -= part.len();
    }
    client.answer().await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_arrive_twice() {
    const LENGTH: usize = 100_000_000;
    let primary = Upstream::start(hashing).await;
    let mirror = Upstream::start(hashing).await;
    let compare = ", max_lag: 256MiB, max_bytes: 512MiB, timeout: none, compare: {}";
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, compare)).await;
    assert_eq!(upload(&proxy, LENGTH).await, format!("{:x}", hash(LENGTH)));
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0);
    crate::support::until("the hashes are compared", async || {
        proxy.metric("forebay_compare_total", &["verdict=\"equal\""]) == 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_reads_too_slowly_is_cut_while_the_upload_goes_on() {
    let primary = Upstream::start(hashing).await;
    let mirror = Upstream::start(|mut peer| async move {
        let mut block = [0u8; 1 << 10];
        for _ in 0..10 {
            if peer.stream.read_exact(&mut block).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    })
    .await;
    let options = ", timeout: none";
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
    // More than the buffers of two sockets take.
    let length = 48 * MIB;
    assert_eq!(upload(&proxy, length).await, format!("{:x}", hash(length)));
    all_over(&proxy, 1.0).await;
    assert_eq!(dropped(&proxy, "lag"), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_framed_like_its_primary_s_request() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::fixed("mirror").await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    for (number, (raw, framing, body)) in [
        ("GET /{p} HTTP/1.1\r\nhost: t\r\n\r\n", "", ""),
        ("GET /{p} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n", "", ""),
        ("GET /{p} HTTP/1.0\r\nhost: t\r\n\r\n", "", ""),
        ("GET /{p} HTTP/1.0\r\n\r\n", "", ""),
        ("DELETE /{p} HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nok", "content-length: 2", "ok"),
        ("POST /{p} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n", "content-length: 0", ""),
        ("POST /{p} HTTP/1.0\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody", "content-length: 4", "body"),
        (
            "POST /{p} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        (
            "POST /{p} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
            "0\r\n\r\n",
        ),
        (
            "POST /{p} HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\nbody",
            "content-length: 4",
            "body",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(proxy.address()).await;
        client.send(raw.replace("{p}", &format!("case-{number}."))).await;
        let answer = client.final_answer().await.unwrap();
        assert_eq!(answer.text(), "primary", "{raw}");
        all_over(&proxy, number as f64 + 1.0).await;
        assert_eq!(copies(&proxy, "ok"), number as f64 + 1.0, "{raw}");
        let text = |upstream: &Upstream| {
            let text = upstream.text();
            let at = text.find(&format!("/case-{number}. ")).unwrap();
            text[at..].to_owned()
        };
        for got in [text(&primary), text(&mirror)] {
            let (head, rest) = got.split_once("\r\n\r\n").unwrap();
            let count = head.matches("content-length:").count() + head.matches("transfer-encoding:").count();
            assert_eq!(count, usize::from(!framing.is_empty()), "{raw}: {got}");
            assert!(head.contains(framing) && head.contains("\r\nhost: "), "{raw}: {got}");
            assert!(rest.starts_with(body), "{raw}: {got}");
        }
    }
    assert!(!mirror.text().contains("expect:"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_trailers_are_copied() {
    let script = |mut peer: Peer| async move {
        peer.head().await;
        while !peer.buffer.ends_with(b"x-sum: 1\r\n\r\n") {
            if !peer.read().await {
                return;
            }
        }
        peer.write(respond(200, "primary")).await;
        peer.closed().await;
    };
    let primary = Upstream::start(script).await;
    let mirror = Upstream::start(script).await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let request = "PUT / HTTP/1.1\r\nhost: t\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\n\
                   transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = Client::once(proxy.address(), request).await;
    assert_eq!(answer.text(), "primary");
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0);
    for got in [primary.text(), mirror.text()] {
        assert!(
            got.ends_with("\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"),
            "{got}"
        );
        assert!(got.contains("\r\nte: trailers\r\n"), "{got}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_end_the_copy_as_well() {
    let primary = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 X\r\ncontent-length: 7\r\n\r\n")
                .await;
        }
    })
    .await;
    let proxy = Proxy::start(&mirrored(primary.address, primary.address, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..20 {
        client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let head = client.try_head().await.unwrap();
        assert!(head.contains("content-length: 7\r\n"), "{head}");
    }
    all_over(&proxy, 20.0).await;
    assert_eq!(copies(&proxy, "ok"), 20.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_attempts_of_the_primary_add_nothing_to_its_copies() {
    let primary = Upstream::start(|mut peer| async move {
        while let Some((head, body)) = peer.request().await {
            // The first attempt gets an error, the second an echo.
            let again = head.contains("x-again");
            let status = if again { 200 } else { 503 };
            peer.write(respond(status, &String::from_utf8(body).unwrap()))
                .await;
        }
    })
    .await;
    let second = Upstream::start(|mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            peer.write(respond(200, &String::from_utf8(body).unwrap()))
                .await;
        }
    })
    .await;
    let mirror = Upstream::start(|mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            peer.write(respond(200, &String::from_utf8(body).unwrap()))
                .await;
        }
    })
    .await;
    let route = ", retry: {attempts: 3, when: [connect, reset, 503], methods: [POST], max_body: 1MiB, budget: 100%}";
    let text = shape(primary.address, mirror.address, ", compare: {}", route, "");
    let text = text.replace(
        &format!("{{name: a, endpoints: ['{}']}}", primary.address),
        &format!(
            "{{name: a, balance: round_robin, endpoints: ['{}', '{}']}}",
            primary.address, second.address
        ),
    );
    let proxy = Proxy::start(&text).await;
    let body = "0123456789".repeat(10_000);
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..20 {
        client.send(post("/", &body)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    }
    assert!(proxy.metric("forebay_retries_total", &[]) > 0.0);
    all_over(&proxy, 20.0).await;
    crate::support::until("all pairs are compared", async || {
        proxy.metric("forebay_compare_total", &["verdict=\"equal\""]) == 20.0
    })
    .await;
    assert_eq!(mirror.text().matches("POST / ").count(), 20);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_looked_at_is_copied_whole() {
    let primary = Upstream::start(hashing).await;
    let mirror = Upstream::start(hashing).await;
    let route = ", sticky: {json: /user}";
    let options = ", max_lag: 64MiB, compare: {}";
    let text = shape(primary.address, mirror.address, options, route, "");
    let proxy = Proxy::start(&text).await;
    for length in [1, 100, 70_000, MIB] {
        assert_eq!(upload(&proxy, length).await, format!("{:x}", hash(length)));
    }
    all_over(&proxy, 4.0).await;
    crate::support::until("all pairs are equal", async || {
        proxy.metric("forebay_compare_total", &["verdict=\"equal\""]) == 4.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_may_answer_before_it_has_the_upload() {
    let primary = Upstream::start(hashing).await;
    let mirror = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 429 X\r\ncontent-length: 2\r\n\r\nno")
            .await;
        let _ = peer.stream.shutdown().await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let length = 16 * MIB;
    assert_eq!(upload(&proxy, length).await, format!("{:x}", hash(length)));
    all_over(&proxy, 1.0).await;
    proxy.stop().await;
}
