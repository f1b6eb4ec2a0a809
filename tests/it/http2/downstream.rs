//! Clients that speak HTTP/2 to endpoints that speak HTTP/1.1.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::h2::Reason;
use bytes::Bytes;
use http::Request;
use tokio::sync::Notify;

use super::shape;
use crate::support::h2::{self, H2, RawH2, block, fields, frame, get, kind, post, soon};
use crate::support::proxy::forward_to;
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond, until};

/// Answers each request with its target.
async fn echo_target(mut peer: Peer) {
    while let Some((head, _)) = peer.request().await {
        let target = head.split(' ').nth(1).unwrap().to_owned();
        if !peer.write(respond(200, &target)).await {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_share_a_cleartext_listener() {
    let upstream = Upstream::fixed("hello").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let answer = H2::connect(proxy.address()).await.get("/a/../b?x=1").await;
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"hello"[..]));
    let head = upstream.text();
    assert!(head.starts_with("GET /b?x=1 HTTP/1.1\r\n"), "{head}");
    for field in [
        "host: test\r\n",
        "x-forwarded-host: test\r\n",
        "x-forwarded-proto: http\r\n",
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert!(!head.to_lowercase().contains("\r\nconnection:"), "{head}");
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_streams_get_their_own_answers_over_one_connection() {
    let upstream = Upstream::start(echo_target).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let client = Arc::new(H2::connect(proxy.address()).await);
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = Arc::clone(&client);
        streams.spawn(async move {
            let path = format!("/stream/{number}");
            let answer = client.get(&path).await;
            assert_eq!((answer.status(), answer.body), (200, path.into_bytes()));
        });
    }
    soon("all answers", streams.join_all()).await;
    assert_eq!(
        proxy.metric("forebay_connections", &["listener=\"main\""]),
        1.0
    );
    until("the route is idle", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_not_the_host_is_refused() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let client = H2::connect(proxy.address()).await;
    let with_host = |host: &str| {
        Request::get("http://test/")
            .header("host", host)
            .body(())
            .unwrap()
    };
    let refused = client.send(with_host("other")).await.unwrap();
    assert_eq!((refused.status(), refused.reason()), (400, "bad_host"));
    assert_eq!(client.send(with_host("TEST")).await.unwrap().status(), 200);
    assert_eq!(client.get("/").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_refusals_leave_the_connection_open() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let client = H2::connect(proxy.address()).await;
    for (request, status, reason) in [
        (get("/%2F"), 400, "bad_path"),
        (get("/%00"), 400, "bad_path"),
        (
            Request::get("http://test:x/").body(()).unwrap(),
            400,
            "bad_host",
        ),
        (
            Request::builder()
                .method("TRACE")
                .uri("http://test/")
                .body(())
                .unwrap(),
            405,
            "method_not_allowed",
        ),
    ] {
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status(), answer.reason()), (status, reason));
    }
    assert_eq!(client.get("/").await.status(), 200);
    proxy.stop().await;
}

/// Waits for the end of a connection and says how long after `left` it came.
async fn delay_of_end(upstream: &Upstream, ended: &Notify, left: Instant) -> Duration {
    soon("the upstream sees the end", ended.notified()).await;
    assert_eq!(upstream.transcripts().len(), 1);
    left.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_resets_the_upstream_in_every_phase() {
    for begun in [false, true] {
        let ended = Arc::new(Notify::new());
        let tell = Arc::clone(&ended);
        let upstream = Upstream::start(move |mut peer| {
            let tell = Arc::clone(&tell);
            async move {
                peer.head().await.unwrap();
                if begun {
                    peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
                        .await;
                }
                peer.closed().await;
                tell.notify_one();
            }
        })
        .await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let client = H2::connect(proxy.address()).await;
        let (answer, mut request) = client.begin(get("/"), true).await;
        upstream.saw("GET /").await;
        let mut held = None;
        if begun {
            let mut body = soon("a head", answer).await.unwrap().into_body();
            assert_eq!(h2::take(&mut body, 3).await, b"abc");
            held = Some(body);
        }
        let left = Instant::now();
        request.send_reset(Reason::CANCEL);
        let delay = delay_of_end(&upstream, &ended, left).await;
        assert!(
            delay < Duration::from_millis(500),
            "{delay:?}, begun: {begun}"
        );
        drop(held);
        until("nothing is in flight", async || {
            proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
        })
        .await;
        until("it is counted", async || {
            proxy.metric("forebay_aborted_total", &["reason=\"client_closed\""])
                + proxy.metric("forebay_refused_total", &["reason=\"client_closed\""])
                == 1.0
        })
        .await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cuts_its_body_resets_the_stream_and_only_that() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
    ] {
        let upstream = Upstream::start(move |mut peer| async move {
            let head = peer.head().await.unwrap();
            if head.starts_with("GET /whole") {
                peer.write(respond(200, "whole")).await;
            } else {
                peer.write(cut).await;
            }
        })
        .await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let client = H2::connect(proxy.address()).await;
        let (answer, _) = client.begin(get("/"), true).await;
        let mut body = soon("a head", answer).await.unwrap().into_body();
        assert_eq!(
            h2::take(&mut body, 3).await,
            b"abc",
            "what came before the cut is not lost"
        );
        let error = soon("an end", h2::whole(body))
            .await
            .expect_err("a cut answer looks whole");
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
        assert_eq!(client.get("/whole").await.body, b"whole");
        assert_eq!(
            proxy.metric("forebay_aborted_total", &["reason=\"upstream_reset\""]),
            1.0
        );
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_header_fields_are_431_on_both_versions() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&shape("headers: 20", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    let with = |count: usize| {
        let request = Request::get("http://test/");
        (0..count)
            .fold(request, |request, n| request.header(format!("x-{n}"), "v"))
            .body(())
            .unwrap()
    };
    assert_eq!(client.send(with(20)).await.unwrap().status(), 200);
    let refused = client.send(with(21)).await.unwrap();
    assert_eq!(
        (refused.status(), refused.reason()),
        (431, "headers_too_large")
    );
    assert_eq!(client.get("/").await.status(), 200);
    // A cookie in crumbs is still many fields.
    let crumbs = (0..30).fold(Request::get("http://test/"), |r, n| {
        r.header("cookie", format!("c{n}=v"))
    });
    assert_eq!(
        client
            .send(crumbs.body(()).unwrap())
            .await
            .unwrap()
            .status(),
        431
    );
    let many: String = (0..21).map(|n| format!("x-{n}: v\r\n")).collect();
    let answer = Client::once(
        proxy.address(),
        format!("GET / HTTP/1.1\r\nhost: t\r\n{many}\r\n"),
    )
    .await;
    assert_eq!(answer.status, 431);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_many_bytes_is_refused_and_the_connection_lives() {
    let upstream = Upstream::fixed("ok").await;
    for (limit, fits, too_large) in [
        ("", 12 << 10, 20 << 10),
        ("header_bytes: 8KiB", 6 << 10, 10 << 10),
    ] {
        let proxy = Proxy::start(&shape(limit, "", upstream.address)).await;
        let client = H2::connect(proxy.address()).await;
        let with = |bytes: usize| {
            Request::get("http://test/")
                .header("x-big", "v".repeat(bytes))
                .body(())
                .unwrap()
        };
        assert_eq!(client.send(with(fits)).await.unwrap().status(), 200);
        assert_eq!(client.send(with(too_large)).await.unwrap().status(), 431);
        assert_eq!(client.get("/").await.status(), 200);
        // What is absurd costs the connection.
        let error = client
            .send(with(200 << 10))
            .await
            .expect_err("200 KiB of head");
        assert!(error.is_go_away() || error.is_io(), "{error:?}");
        assert_eq!(
            H2::connect(proxy.address()).await.get("/").await.status(),
            200
        );
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_wait_at_the_client_and_rude_ones_are_refused() {
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let upstream = Upstream::start(move |mut peer| {
        let gate = Arc::clone(&gate);
        async move {
            while peer.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.write(respond(200, "ok")).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&shape("h2_streams: 4", "", upstream.address)).await;
    let mut raw = RawH2::connect(proxy.address()).await;
    let settings = raw.until(kind::SETTINGS).await.unwrap();
    let most = settings
        .payload
        .chunks(6)
        .find(|s| s[..2] == [0, 3])
        .expect("MAX_CONCURRENT_STREAMS");
    assert_eq!(most[2..], [0, 0, 0, 4]);
    for stream in [1, 3, 5, 7, 9] {
        tokio::io::AsyncWriteExt::write_all(
            &mut raw.stream,
            &frame(kind::HEADERS, 5, stream, &block(&[])),
        )
        .await
        .unwrap();
    }
    let refused = raw.until(kind::RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, refused.code()), (9, 7), "REFUSED_STREAM");
    until("four wait upstream", async || {
        upstream.transcripts().len() == 4
    })
    .await;
    release.add_permits(4);
    for _ in 0..4 {
        assert_eq!(raw.until(kind::HEADERS).await.unwrap().flags & 4, 4);
    }
    assert_eq!(
        upstream.transcripts().len(),
        4,
        "the fifth never reached the upstream"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_http1_upstream_reach_the_client() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let answer = H2::connect(proxy.address()).await.get("/").await;
    assert_eq!(
        (&answer.body[..], answer.trailer("x-sum")),
        (&b"abc"[..], "42")
    );
    assert_eq!(answer.field("transfer-encoding"), "");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_its_trailers_reach_an_http1_upstream() {
    let upstream = Upstream::start(|mut peer| async move {
        for last in ["x-sum: 42\r\n\r\n", "xyz"] {
            while !peer.buffer.ends_with(last.as_bytes()) {
                assert!(peer.read().await, "{last:?} never came");
            }
            peer.write(respond(200, "ok")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let client = H2::connect(proxy.address()).await;
    let request = post("/up").header("trailer", "x-sum").body(()).unwrap();
    let (answer, mut body) = client.begin(request, false).await;
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    upstream.saw("abc").await; // streamed, not gathered
    body.send_trailers(fields(&[("x-sum", "42")])).unwrap();
    assert_eq!(
        soon("an answer", h2::collect(answer))
            .await
            .unwrap()
            .status(),
        200
    );
    let text = upstream.text();
    assert!(text.contains("transfer-encoding: chunked\r\n"), "{text}");
    assert!(
        text.ends_with("3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n"),
        "{text}"
    );
    // A declared length stays a length.
    let request = post("/length")
        .header("content-length", "3")
        .body(())
        .unwrap();
    let (answer, mut body) = client.begin(request, false).await;
    body.send_data(Bytes::from_static(b"xyz"), true).unwrap();
    assert_eq!(
        soon("an answer", h2::collect(answer))
            .await
            .unwrap()
            .status(),
        200
    );
    let text = upstream.text();
    let last = text.split("POST /length").nth(1).unwrap();
    assert!(
        last.contains("content-length: 3\r\n") && last.ends_with("\r\n\r\nxyz"),
        "{last}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_its_declared_length_never_completes_upstream() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    for (sent, end) in [(&b"abcdef"[..], true), (&b"a"[..], true)] {
        let client = H2::connect(proxy.address()).await;
        let request = post("/").header("content-length", "3").body(()).unwrap();
        let (answer, mut body) = client.begin(request, false).await;
        body.send_data(Bytes::from_static(sent), end).unwrap();
        let answer = soon("an end", h2::collect(answer)).await;
        assert!(
            answer.as_ref().map_or(true, |a| a.status() >= 400),
            "{answer:?}"
        );
    }
    assert!(!upstream.text().contains("abcdef"));
    proxy.stop().await;
}
