//! Edits of answers' bodies on their way: what is edited, what passes as it is, and that framing stays true.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use super::guarded;
use crate::support::h2::{H2, get as h2_get, soon, take};
use crate::support::proxy::config;
use crate::support::upstream::Peer;
use crate::support::{Client, PATIENCE, Proxy, Upstream, until};

const PAGE: &str = "<html><head><title>x</title></head><body>hello</body></html>";
const EDITED: &str =
    "<html><head><script></script><title>x</title></head><body>hello</body></html>";
/// [`PAGE`] by gzip.
const GZIPPED: &str = "1f8b0800000000000203b3c928c9cdb1b3c9484d4cb1b329c92cc949b5abb0d187306cf421c249f929957619a93939f936fa60365002a40b00597741633c000000";
const HEAD: &str = "body: {replace: [{find: '<head>', with: '<head><script></script>'}]}";

fn gzipped() -> Vec<u8> {
    let digits = GZIPPED.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn chunk(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:X}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Answers `GET /N` with the body in chunks: for 0 each of one byte, else one that ends after N bytes and the rest.
async fn in_chunks(fields: &'static str, body: Vec<u8>) -> Upstream {
    let body = Arc::new(body);
    Upstream::start(move |mut peer: Peer| {
        let body = Arc::clone(&body);
        async move {
            peer.stream.set_nodelay(true).unwrap();
            while let Some((head, _)) = peer.request().await {
                let at = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                let head =
                    format!("HTTP/1.1 200 OK\r\n{fields}\r\ntransfer-encoding: chunked\r\n\r\n");
                peer.write(head).await;
                let parts: Vec<&[u8]> = match at {
                    0 => body.chunks(1).collect(),
                    at => vec![&body[..at], &body[at..]],
                };
                for part in parts.iter().filter(|part| !part.is_empty()) {
                    peer.write(chunk(part)).await;
                    tokio::task::yield_now().await;
                }
                peer.write("0\r\n\r\n").await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_edited_wherever_its_chunks_end() {
    let upstream = in_chunks("content-type: text/html; charset=utf-8", PAGE.into()).await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    for at in 0..PAGE.len() {
        client
            .send(format!("GET /{at} HTTP/1.1\r\nhost: t\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.text(), EDITED, "{at}");
    }
    let h2 = H2::connect(proxy.address()).await;
    for at in [0, 8, 10, 12] {
        assert_eq!(h2.get(&format!("/{at}")).await.body, EDITED.as_bytes());
    }
    until("what the client got is counted", async || {
        let bytes = proxy.metric("forebay_response_bytes_total", &["route=\"r\""]);
        bytes == (EDITED.len() * (PAGE.len() + 4)) as f64
    })
    .await;
    let connections = upstream.transcripts().len();
    assert!(connections <= 3, "{connections}: they are used again");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_asked_for_as_it_is_and_decoded_when_it_is_not() {
    let fields = "content-type: text/html\r\ncontent-encoding: gzip\r\netag: \"1\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT";
    let upstream = in_chunks(fields, gzipped()).await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    for at in [
        0,
        1,
        9,
        10,
        20,
        40,
        gzipped().len() - 8,
        gzipped().len() - 1,
    ] {
        let request = format!(
            "GET /{at} HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip, br\r\nrange: bytes=0-3\r\n\r\n"
        );
        let answer = Client::once(proxy.address(), request).await;
        assert_eq!(answer.text(), EDITED, "{at}");
        for gone in ["content-encoding", "content-length", "last-modified"] {
            assert_eq!(answer.header(gone), None, "{}", answer.head);
        }
        assert_eq!(answer.header("etag"), Some("W/\"1\""));
    }
    let asked = upstream.text();
    assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");
    assert!(
        !asked.contains("gzip") && !asked.contains("range"),
        "{asked}"
    );
    assert_eq!(proxy.metric("forebay_replace_skipped_total", &[]), 0.0);
    proxy.stop().await;

    let mut broken = gzipped();
    broken.truncate(40);
    let upstream = in_chunks("content-type: text/html\r\ncontent-encoding: gzip", broken).await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /20 HTTP/1.1\r\nhost: t\r\n\r\n").await;
    client.try_answer().await.unwrap_err();
    assert_eq!(
        proxy.metric("forebay_aborted_total", &["reason=\"upstream_protocol\""]),
        1.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_passes_as_it_is_and_is_counted() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: br\r\netag: \"1\"\r\ncontent-length: 6\r\n\r\n";
            peer.write(head.to_owned() + "<head>").await;
        }
    })
    .await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    assert_eq!(proxy.metric("forebay_replace_skipped_total", &[]), 0.0);
    assert!(
        proxy
            .metrics()
            .contains("\nforebay_replace_skipped_total 0")
    );
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!(answer.text(), "<head>");
    for (field, value) in [
        ("content-encoding", "br"),
        ("content-length", "6"),
        ("etag", "\"1\""),
    ] {
        assert_eq!(answer.header(field), Some(value), "{}", answer.head);
    }
    assert_eq!(proxy.metric("forebay_replace_skipped_total", &[]), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_types_and_whole_answers_are_edited() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let status = if head.contains("/part") { 206 } else { 200 };
            let media_type = if head.contains("/json") {
                "application/json"
            } else {
                "text/html"
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: 6\r\n\r\n"
            );
            peer.write(head + "<head>").await;
        }
    })
    .await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    for (path, edited) in [("/", true), ("/json", false), ("/part", false)] {
        let answer = Client::get(proxy.address(), path).await;
        assert_eq!(answer.text() == "<head><script></script>", edited, "{path}");
        assert_eq!(answer.header("content-length").is_none(), edited, "{path}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_does_not_say_how_long_the_unedited_body_is() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let body = if head.starts_with("HEAD") { "" } else { PAGE };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
                PAGE.len()
            );
            peer.write(head + body).await;
        }
    })
    .await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let head = client.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), EDITED);
    let h2 = H2::connect(proxy.address()).await;
    let head = http::Request::head("http://test/").body(()).unwrap();
    let answer = h2.send(head).await.unwrap();
    assert_eq!((answer.status(), answer.field("content-length")), (200, ""));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_not_delayed() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let upstream = Upstream::start(move |mut peer: Peer| {
        let gate = Arc::clone(&wait);
        async move {
            while peer.request().await.is_some() {
                peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await;
                for nth in 0..3 {
                    let event = format!("data: secret {nth}\n\n");
                    peer.write(chunk(event.as_bytes())).await;
                    gate.acquire().await.unwrap().forget();
                }
                peer.write("0\r\n\r\n").await;
            }
        }
    })
    .await;
    let route = "body: {replace: [{find: secret, with: '***', types: [text/event-stream]}]}";
    let proxy = Proxy::start(&guarded(upstream.address, route, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    client.try_head().await.unwrap();
    for nth in 0..3 {
        let event = format!("data: *** {nth}\n\n");
        let got = client.bytes(chunk(event.as_bytes()).len()).await;
        assert_eq!(got, chunk(event.as_bytes()));
        gate.add_permits(1);
    }
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
    let h2 = H2::connect(proxy.address()).await;
    let (answer, _) = h2.begin(h2_get("/"), true).await;
    let mut body = soon("a head", answer).await.unwrap().into_body();
    for nth in 0..3 {
        let event = format!("data: *** {nth}\n\n");
        assert_eq!(take(&mut body, event.len()).await, event.as_bytes());
        gate.add_permits(1);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_follow_the_last_edited_byte() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            // Ends in what may be the beginning of a match, which is kept back until the end.
            peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
                .await;
            peer.write(chunk(b"<head> and <hea")).await;
            peer.write("0\r\nx-sum: 7\r\ncontent-digest: sha-256=:abc=:\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    let answer = H2::connect(proxy.address()).await.get("/").await;
    assert_eq!(answer.body, b"<head><script></script> and <hea");
    assert_eq!(answer.trailer("x-sum"), "7");
    assert_eq!(answer.trailer("content-digest"), "", "of another body");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_gets_an_edited_body_until_the_end_of_its_connection() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let length = PAGE.len() + if head.contains("/cut") { 9 } else { 0 };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n"
            );
            peer.write(head + PAGE).await;
            if length > PAGE.len() {
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&guarded(upstream.address, HEAD, "")).await;
    for keep in ["", "connection: keep-alive\r\n"] {
        let mut client = Client::connect(proxy.address()).await;
        client
            .send(format!("GET / HTTP/1.0\r\nhost: t\r\n{keep}\r\n"))
            .await;
        let (all, by_fin) = client.all().await;
        let text = String::from_utf8(all).unwrap();
        assert!(
            by_fin && text.ends_with(&format!("\r\n\r\n{EDITED}")),
            "{text}"
        );
        assert!(
            !text.contains("chunked") && !text.contains("content-length"),
            "{text}"
        );
    }
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /cut HTTP/1.0\r\nhost: t\r\n\r\n").await;
    let (_, by_fin) = client.all().await;
    assert!(!by_fin, "a cut answer does not look complete");
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /cut HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let got = client.try_answer().await.unwrap_err();
    assert!(EDITED.as_bytes().starts_with(&got), "{got:?}");
    let h2 = H2::connect(proxy.address()).await;
    h2.send(h2_get("/cut")).await.unwrap_err();
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_compared_with_what_the_primary_said() {
    let page = |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            let length = PAGE.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n"
            );
            peer.write(head + PAGE).await;
        }
    };
    let (primary, copy) = (Upstream::start(page).await, Upstream::start(page).await);
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, {HEAD}, mirrors: [{{cluster: b, compare: {{headers: [content-length]}}}}]}}]\n\
         clusters: [{{name: a, endpoints: ['{}']}}, {{name: b, endpoints: ['{}']}}]\n",
        primary.address, copy.address
    )))
    .await;
    assert_eq!(Client::get(proxy.address(), "/").await.text(), EDITED);
    until("they are compared", async || {
        proxy.metric("forebay_compare_total", &[]) == 1.0
    })
    .await;
    let equal = proxy.metric("forebay_compare_total", &["verdict=\"equal\""]);
    assert_eq!(equal, 1.0, "{}", proxy.metrics());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_a_large_edit_bit_by_bit_is_not_cut() {
    const FOUND: usize = 8 << 10;
    const EACH: usize = 4 << 10;
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            let body = "a".repeat(FOUND);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {FOUND}\r\n\r\n"
            );
            peer.write(head + &body).await;
        }
    })
    .await;
    let route = format!(
        "body: {{replace: [{{find: a, with: {}}}]}}",
        "b".repeat(EACH)
    );
    let text = guarded(upstream.address, &route, "").replace(
        "address: '127.0.0.1:0'}]",
        "address: '127.0.0.1:0', limits: {write_stall: 1s}}]",
    );
    let proxy = Proxy::start(&text).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.0\r\nhost: t\r\n\r\n").await;
    client.try_head().await.unwrap();
    let (mut got, mut block) = (0, vec![0u8; 256 << 10]);
    loop {
        let read = tokio::time::timeout(PATIENCE, client.stream.read(&mut block));
        match read.await.unwrap() {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) => panic!("cut after {got} bytes: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // slow, as is tested
    }
    assert!(got > FOUND * EACH - (8 << 10), "{got}");
    proxy.stop().await;
}
