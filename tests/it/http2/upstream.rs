//! Endpoints that speak HTTP/2 to clients of either version.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::h2::Reason;
use ::h2::server::SendResponse;
use bytes::Bytes;
use http::Response;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::shape;
use crate::support::h2::{self, H2, H2Upstream, fields, get, post, soon};
use crate::support::{Client, Proxy, until};

const HTTP2: &str = "protocol: http2";

fn answer(respond: &mut SendResponse<Bytes>, body: impl Into<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

/// Answers each request with its body.
async fn echo() -> H2Upstream {
    H2Upstream::start(|request, mut respond| async move {
        let Ok((body, _)) = h2::whole(request.into_body()).await else {
            return;
        };
        answer(&mut respond, body);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http1_client_is_translated_for_it() {
    let upstream = echo().await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST /a%62c?q=1 HTTP/1.1\r\nhost: Test:80\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    let got = client.answer().await;
    assert_eq!((got.status, got.text().as_str()), (200, "hello"));
    client
        .send(
            "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.text(), "abc");
    let heads = upstream.heads.lock().unwrap().clone();
    let head = &heads[0];
    assert_eq!(head.uri.path_and_query().unwrap(), "/abc?q=1");
    assert_eq!(head.uri.authority().unwrap(), "Test:80");
    assert_eq!(head.uri.scheme_str(), Some("http"));
    for gone in ["connection", "x-hop", "host", "transfer-encoding"] {
        assert!(!head.headers.contains_key(gone), "{gone} in {head:?}");
    }
    assert_eq!(head.headers["content-length"], "5");
    assert_eq!(head.headers["x-forwarded-for"], "127.0.0.1");
    assert!(!heads[1].headers.contains_key("transfer-encoding"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_of_many_clients_share_few_connections() {
    let upstream = echo().await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    Client::get(proxy.address(), "/").await;
    let clients = (0..20).map(|_| {
        let at = proxy.address();
        tokio::spawn(async move {
            let mut client = Client::connect(at).await;
            for _ in 0..5 {
                client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
                assert_eq!(client.answer().await.status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        soon("a client", client).await.unwrap();
    }
    // One of each worker, and what was opened at once while there was none.
    assert!(upstream.connections() <= 22, "{}", upstream.connections());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_reach_an_http1_client_that_asks_for_them() {
    let upstream = H2Upstream::start(|_, mut respond| async move {
        let head = Response::builder()
            .header("trailer", "x-sum")
            .body(())
            .unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        stream.send_trailers(fields(&[("x-sum", "42")])).unwrap();
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("GET / HTTP/1.1\r\nhost: t\r\nte: trailers\r\nconnection: te\r\n\r\n")
        .await;
    let head = client.try_head().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let body = client
        .bytes("3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n".len())
        .await;
    assert_eq!(
        String::from_utf8(body).unwrap(),
        "3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    let upstream = H2Upstream::start(move |request, mut respond| {
        let tell = Arc::clone(&tell);
        async move {
            if request.uri().path() == "/empty-body" {
                return answer(&mut respond, "ok");
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
            let code = std::future::poll_fn(|cx| stream.poll_reset(cx))
                .await
                .unwrap();
            assert_eq!(code, Reason::CANCEL);
            tell.notify_one();
        }
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    client.try_head().await.unwrap();
    drop(client);
    soon("RST_STREAM upstream", ended.notified()).await;
    let other = H2::connect(proxy.address()).await;
    let (reply, mut request) = other.begin(get("/"), true).await;
    let mut body = soon("a head", reply).await.unwrap().into_body();
    h2::take(&mut body, 3).await;
    request.send_reset(Reason::CANCEL);
    soon("RST_STREAM upstream", ended.notified()).await;
    assert_eq!(other.get("/empty-body").await.body, b"ok");
    until("nothing is in flight", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_resets_a_stream_whose_window_is_closed() {
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    let upstream = H2Upstream::start(move |request, mut respond| {
        let tell = Arc::clone(&tell);
        async move {
            let unread = request.into_body(); // its window stays closed
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            std::future::poll_fn(|cx| stream.poll_reset(cx))
                .await
                .unwrap();
            tell.notify_one();
            drop(unread);
        }
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 200000\r\n\r\n")
        .await;
    client.send(vec![b'x'; 150_000]).await;
    client.try_head().await.unwrap();
    drop(client);
    soon("RST_STREAM upstream", ended.notified()).await;
    until("nothing is in flight", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_answer_is_never_a_whole_one() {
    // NO_ERROR after some of the body is a cut, too, though libraries show it as an end.
    for reason in [Reason::INTERNAL_ERROR, Reason::NO_ERROR, Reason::CANCEL] {
        let arrived = Arc::new(Notify::new());
        let gate = Arc::clone(&arrived);
        let upstream = H2Upstream::start(move |_, mut respond| {
            let gate = Arc::clone(&gate);
            async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
                gate.notified().await; // a reset drops what has not left yet
                stream.send_reset(reason);
            }
        })
        .await;
        let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
        let client = H2::connect(proxy.address()).await;
        let (reply, _) = client.begin(get("/"), true).await;
        let mut body = soon("a head", reply).await.unwrap().into_body();
        assert_eq!(h2::take(&mut body, 3).await, b"abc");
        arrived.notify_one();
        let end = soon("an end", h2::whole(body)).await;
        assert!(
            end.as_ref().is_err_and(::h2::Error::is_reset),
            "{reason:?}: {end:?}"
        );
        let mut client = Client::connect(proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        client.try_head().await.unwrap();
        assert_eq!(client.bytes(8).await, b"3\r\nabc\r\n");
        arrived.notify_one();
        client.closed().await;
        let rest = client.try_answer().await.expect_err("no other answer");
        assert!(rest.is_empty(), "{reason:?}: {rest:?}");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_before_the_head_is_502_and_a_refused_stream_is_tried_again() {
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let upstream = H2Upstream::start(move |request, mut respond| {
        let refuse = request.uri().path() == "/refused"
            && first.swap(false, std::sync::atomic::Ordering::Relaxed);
        async move {
            match request.uri().path() {
                "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
                _ if refuse => respond.send_reset(Reason::REFUSED_STREAM),
                _ => answer(&mut respond, "ok"),
            }
        }
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let answer = Client::get(proxy.address(), "/reset").await;
    assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    // REFUSED_STREAM says that nothing was done: what has no body is sent again.
    let answer = Client::get(proxy.address(), "/refused").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        proxy.metric("forebay_retries_total", &["cluster=\"a\""]),
        1.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_it_is_502() {
    let upstream = crate::support::Upstream::start(|mut peer| async move {
        peer.read().await;
        peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .await;
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(["upstream_protocol", "upstream_reset", "connect_failed"].contains(&answer.reason()));
    proxy.stop().await;
}

/// Says GOAWAY after each twenty requests, as servers with a maximal connection age do; counts its connections.
async fn retiring() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut connection = ::h2::server::handshake(socket).await.unwrap();
                let mut served = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    answer(&mut respond, "ok");
                    served += 1;
                    if served == 20 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_retires_its_connections_loses_no_request() {
    let (address, connections) = retiring().await;
    let proxy = Proxy::start(&shape("", HTTP2, address)).await;
    let mut client = Client::connect(proxy.address()).await;
    for number in 0..60 {
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi")
            .await;
        let got = client.answer().await;
        assert_eq!((got.status, got.reason()), (200, ""), "request {number}");
    }
    let client = Arc::new(H2::connect(proxy.address()).await);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let client = Arc::clone(&client);
        streams.spawn(async move {
            for _ in 0..50 {
                let (answer, mut body) = client.begin(post("/").body(()).unwrap(), false).await;
                body.send_data("hi".into(), true).unwrap();
                let answer = soon("an answer", h2::collect(answer)).await.unwrap();
                assert_eq!((answer.status(), answer.reason()), (200, ""));
                let answer = client.get("/").await;
                assert_eq!((answer.status(), answer.reason()), (200, ""));
            }
        });
    }
    soon("all answers", streams.join_all()).await;
    assert!(connections.load(Ordering::Relaxed) >= 10);
    until("nothing is in flight", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_pass_with_their_length() {
    let upstream = H2Upstream::start(|request, mut respond| async move {
        let status = if request.uri().path() == "/304" {
            304
        } else {
            200
        };
        let head = Response::builder()
            .status(status)
            .header("content-length", "5")
            .header("etag", "x");
        respond.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let proxy = Proxy::start(&shape("", HTTP2, upstream.address)).await;
    let mut client = Client::connect(proxy.address()).await;
    for request in ["HEAD /200", "GET /304", "HEAD /304"] {
        client
            .send(format!("{request} HTTP/1.1\r\nhost: t\r\n\r\n"))
            .await;
        let head = client.try_head().await.unwrap();
        assert!(
            head.contains(&format!("HTTP/1.1 {} ", &request[request.len() - 3..])),
            "{request}: {head}"
        );
        assert!(head.contains("etag: x"), "{request}: {head}");
    }
    let over_h2 = H2::connect(proxy.address()).await;
    let head = http::Request::head("http://test/200").body(()).unwrap();
    let answer = over_h2.send(head).await.unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.field("content-length"),
            answer.body.len()
        ),
        (200, "5", 0)
    );
    proxy.stop().await;
}
