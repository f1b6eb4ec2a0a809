//! The body of a request that is sent again: byte for byte, as far as it is kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;

use super::{retries, retrying};
use crate::support::h2::{H2, H2Upstream, collect, post, soon};
use crate::support::upstream::{Peer, Upstream};
use crate::support::{Client, Proxy, respond, until};

const ALL: &str = "retry: {attempts: 2, when: [reset, refused, 503], methods: all}";

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at * 31 + at / 257 + at / 65_537) as u8)
        .collect()
}

/// Takes chunks apart.
fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        raw = &raw[end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(&raw[..size]);
        raw = &raw[size + 2..];
    }
    body
}

/// Two endpoints, of which the one that is asked first fails its first request after it has read it whole.
async fn one_of_two_fails(reset: bool) -> [Upstream; 2] {
    let failed: Arc<AtomicBool> = Arc::default();
    let script = move |mut peer: Peer| {
        let failed = Arc::clone(&failed);
        async move {
            while peer.request().await.is_some() {
                if !failed.swap(true, SeqCst) {
                    if reset {
                        return;
                    }
                    peer.write(respond(503, "no")).await;
                } else {
                    peer.write(respond(200, "good")).await;
                }
            }
        }
    };
    [
        Upstream::start(script.clone()).await,
        Upstream::start(script).await,
    ]
}

fn bodies_of(upstreams: &[Upstream; 2]) -> Vec<(String, Vec<u8>)> {
    let all = upstreams.iter().flat_map(Upstream::transcripts);
    all.map(|raw| {
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let body = match head.contains("transfer-encoding: chunked") {
            true => unchunked(&raw[end..]),
            false => raw[end..].to_vec(),
        };
        (head, body)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_reaches_the_next_endpoint_byte_for_byte() {
    let body = noise(700_000);
    for reset in [false, true] {
        for way in ["length", "chunks", "http2"] {
            let upstreams = one_of_two_fails(reset).await;
            let addresses = [upstreams[0].address, upstreams[1].address];
            let proxy = Proxy::start(&retrying(&addresses, ALL, "")).await;
            let status = match way {
                "http2" => {
                    let client = H2::connect(proxy.address()).await;
                    let (answer, mut send) = client.begin(post("/").body(()).unwrap(), false).await;
                    for block in body.chunks(60_000) {
                        send.send_data(Bytes::copy_from_slice(block), false)
                            .unwrap();
                    }
                    send.send_data(Bytes::new(), true).unwrap();
                    soon("an answer", collect(answer)).await.unwrap().status()
                }
                "chunks" => {
                    let mut client = Client::connect(proxy.address()).await;
                    client
                        .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
                        .await;
                    for block in body.chunks(9_973) {
                        client.send(format!("{:x}\r\n", block.len())).await;
                        client.send(block).await;
                        client.send("\r\n").await;
                    }
                    client.send("0\r\n\r\n").await;
                    client.answer().await.status
                }
                _ => {
                    let head = format!(
                        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let mut client = Client::connect(proxy.address()).await;
                    client.send(head).await;
                    client.send(&body).await;
                    client.answer().await.status
                }
            };
            assert_eq!(status, 200, "{way}, reset: {reset}");
            assert!(upstreams.iter().all(|u| u.transcripts().len() == 1));
            let got = bodies_of(&upstreams);
            assert_eq!(got[0].0.to_lowercase(), got[1].0.to_lowercase());
            for (head, got) in got {
                assert!(
                    got == body,
                    "{way}, reset: {reset}: {} of {head}",
                    got.len()
                );
            }
            proxy.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_byte_and_trailers_are_sent_again_too() {
    let upstreams = one_of_two_fails(false).await;
    let addresses = [upstreams[0].address, upstreams[1].address];
    let proxy = Proxy::start(&retrying(&addresses, ALL, "protocol: http1,")).await;
    let request = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(Client::once(proxy.address(), request).await.status, 200);
    assert!(upstreams.iter().all(|u| u.transcripts().len() == 1));
    proxy.stop().await;

    let failed: Arc<AtomicBool> = Arc::default();
    let flag = Arc::clone(&failed);
    let upstream = H2Upstream::start(move |request, mut respond| {
        let failed = Arc::clone(&flag);
        async move {
            let (body, trailers) = crate::support::h2::whole(request.into_body())
                .await
                .unwrap();
            let status = if failed.swap(true, SeqCst) { 200 } else { 503 };
            let sum = trailers.map_or(String::new(), |t| t["x-sum"].to_str().unwrap().to_owned());
            let answer = http::Response::builder()
                .status(status)
                .header("x-sum", sum);
            let mut send = respond
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            send.send_data(Bytes::from(body), true).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(&retrying(&[upstream.address], ALL, "protocol: http2,")).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut send) = client.begin(post("/").body(()).unwrap(), false).await;
    send.send_data("hello".into(), false).unwrap();
    send.send_trailers(crate::support::h2::fields(&[("x-sum", "532")]))
        .unwrap();
    let answer = soon("an answer", collect(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.field("x-sum")), (200, "532"));
    assert_eq!(answer.body, b"hello");
    assert_eq!(upstream.heads.lock().unwrap().len(), 2);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_kept_is_not_sent_again() {
    let route = "retry: {attempts: 2, when: [reset, 503], methods: all, max_body: 1KiB}";
    for (length, made) in [(1024, 2), (1025, 1)] {
        for chunked in [false, true] {
            let upstreams = one_of_two_fails(false).await;
            let addresses = [upstreams[0].address, upstreams[1].address];
            let proxy = Proxy::start(&retrying(&addresses, route, "")).await;
            let body = "x".repeat(length);
            let request = match chunked {
                false => {
                    format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{body}")
                }
                true => format!(
                    "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
                ),
            };
            let answer = Client::once(proxy.address(), request).await;
            let expected = if made == 2 {
                (200, "good")
            } else {
                (503, "no")
            };
            assert_eq!(
                (answer.status, answer.text().as_str()),
                expected,
                "{length}"
            );
            assert_eq!(answer.reason(), "");
            let got: usize = upstreams.iter().map(|u| u.transcripts().len()).sum();
            assert_eq!(got, made);
            assert_eq!(retries(&proxy, "503"), made as f64 - 1.0);
            proxy.stop().await;
        }
    }
}

/// Two endpoints: whoever is asked first answers 503, or closes, as soon as it has the first bytes of the body.
async fn early(bytes: usize, reset: bool) -> [Upstream; 2] {
    let failed: Arc<AtomicBool> = Arc::default();
    let script = move |mut peer: Peer| {
        let failed = Arc::clone(&failed);
        async move {
            if !failed.swap(true, SeqCst) {
                peer.head().await;
                while peer.buffer.len() < bytes {
                    peer.read().await;
                }
                if !reset {
                    peer.write(respond(503, "early")).await;
                    peer.closed().await;
                }
                return;
            }
            while peer.request().await.is_some() {
                peer.write(respond(200, "good")).await;
            }
        }
    };
    [
        Upstream::start(script.clone()).await,
        Upstream::start(script).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_still_coming_goes_on_to_the_next_endpoint() {
    let body = noise(300_000);
    for (reset, reason) in [(false, "503"), (true, "upstream_reset")] {
        let upstreams = early(5_000, reset).await;
        let addresses = [upstreams[0].address, upstreams[1].address];
        let proxy = Proxy::start(&retrying(&addresses, ALL, "")).await;
        let mut client = Client::connect(proxy.address()).await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head).await;
        client.send(&body[..10_000]).await;
        until("the first attempt failed", async || {
            retries(&proxy, reason) == 1.0
        })
        .await;
        client.send(&body[10_000..]).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        let got = bodies_of(&upstreams);
        assert_eq!(got.iter().filter(|(_, got)| *got == body).count(), 1);
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "good", "the client goes on");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_else_looks_at_a_body_gets_it_once_however_often_it_is_sent() {
    let body = format!("{{\"user\": \"ann\", \"p\": \"{}\"}}", "x".repeat(200_000));
    for reset in [false, true] {
        let upstreams = early(70_000, reset).await;
        let copy = Upstream::fixed("copy").await;
        let addresses = [upstreams[0].address, upstreams[1].address];
        let route = format!(
            "{ALL}, mirrors: [{{cluster: b}}], rate_limits: [{{rate: 1/h, burst: 1, per: {{json: /user}}}}]"
        );
        let text = retrying(&addresses, &route, "");
        let copies = format!("clusters: [{{name: b, endpoints: ['{}']}}, ", copy.address);
        let proxy = Proxy::start(&text.replace("clusters: [", &copies)).await;
        let mut client = Client::connect(proxy.address()).await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head).await;
        client.send(&body[..100_000]).await;
        until("the first attempt failed", async || {
            proxy.metric("forebay_retries_total", &["cluster=\"a\""]) == 1.0
        })
        .await;
        client.send(&body[100_000..]).await;
        assert_eq!(client.answer().await.text(), "good");
        let got = bodies_of(&upstreams);
        let whole = got.iter().filter(|(_, got)| got == body.as_bytes());
        assert_eq!(whole.count(), 1);
        until("the copy is answered", async || {
            proxy.metric("forebay_mirror_requests_total", &["result=\"ok\""]) == 1.0
        })
        .await;
        assert!(copy.text().ends_with(&format!("\r\n\r\n{body}")));
        assert_eq!(copy.text().matches("POST ").count(), 1);
        let again = Client::once(
            proxy.address(),
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 15\r\n\r\n{\"user\": \"ann\"}",
        )
        .await;
        assert_eq!(again.status, 429, "the key was seen before the attempts");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_to_an_upload_that_is_too_long_to_keep_is_passed_on() {
    let upstreams = early(5_000, false).await;
    let addresses = [upstreams[0].address, upstreams[1].address];
    let route = "retry: {attempts: 2, when: [reset, 503], methods: all, max_body: 4KiB}";
    let proxy = Proxy::start(&retrying(&addresses, route, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 300000\r\n\r\n")
        .await;
    client.send(noise(10_000)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "early"));
    assert_eq!(retries(&proxy, "503"), 0.0);
    let got: usize = upstreams.iter().map(|u| u.transcripts().len()).sum();
    assert_eq!(got, 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_an_early_answer_over_http2_is_given_up() {
    let failed: Arc<AtomicBool> = Arc::default();
    let ended: Arc<AtomicBool> = Arc::default();
    let (flag, end) = (Arc::clone(&failed), Arc::clone(&ended));
    let upstream = H2Upstream::start(move |request, mut respond| {
        let (failed, ended) = (Arc::clone(&flag), Arc::clone(&end));
        async move {
            let mut body = request.into_body();
            if !failed.swap(true, SeqCst) {
                crate::support::h2::take(&mut body, 5).await;
                let answer = http::Response::builder().status(503).body(()).unwrap();
                let mut send = respond.send_response(answer, false).unwrap();
                send.send_data("early".into(), true).unwrap();
                while let Some(Ok(block)) = body.data().await {
                    body.flow_control().release_capacity(block.len()).unwrap();
                }
                ended.store(true, SeqCst);
                return;
            }
            let (got, _) = crate::support::h2::whole(body).await.unwrap();
            let mut send = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            send.send_data(Bytes::from(got), true).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(&retrying(&[upstream.address], ALL, "protocol: http2,")).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhello")
        .await;
    until("the first attempt failed", async || {
        retries(&proxy, "503") == 1.0
    })
    .await;
    until("its stream is over", async || ended.load(SeqCst)).await;
    client.send("world").await;
    assert_eq!(client.answer().await.text(), "helloworld");
    proxy.stop().await;
}
