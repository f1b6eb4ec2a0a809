//! Copies to and from HTTP/2, and of gRPC streams while they are open.

use std::sync::{Arc, Mutex};

use ::h2::RecvStream;
use ::h2::server::SendResponse;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::{all_over, copies, dropped, mirrored, shape};
use crate::support::h2::{self, H2, H2Upstream, fields, post, soon};
use crate::support::{Proxy, Upstream, respond, until};

const HTTP2: &str = ", protocol: http2";

/// A gRPC message: uncompressed, four bytes of length.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

/// A call of this method.
fn call(path: &str) -> Request<()> {
    let call = post(path).header("content-type", "application/grpc");
    call.header("te", "trailers").body(()).unwrap()
}

/// Echoes each block as it comes, then says OK.
async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    while let Some(Ok(block)) = body.data().await {
        body.flow_control().release_capacity(block.len()).unwrap();
        if stream.send_data(block, false).is_err() {
            return;
        }
    }
    let _ = stream.send_trailers(fields(&[("grpc-status", "0")]));
}

async fn echoing() -> H2Upstream {
    H2Upstream::start(|request, respond| echo(request.into_body(), respond)).await
}

/// What came of a call so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<(Vec<u8>, Option<HeaderMap>)>>);

impl Heard {
    fn bytes(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    fn trailers(&self) -> Option<HeaderMap> {
        self.0.lock().unwrap().1.clone()
    }

    /// Listens to the end and answers then.
    async fn listen(self, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
        while let Some(Ok(block)) = body.data().await {
            body.flow_control().release_capacity(block.len()).unwrap();
            self.0.lock().unwrap().0.extend_from_slice(&block);
        }
        self.0.lock().unwrap().1 = body.trailers().await.ok().flatten();
        let head = Response::builder()
            .header("grpc-status", "0")
            .body(())
            .unwrap();
        let _ = respond.send_response(head, true);
    }
}

/// An endpoint that listens.
async fn listening() -> (H2Upstream, Heard) {
    let heard = Heard::default();
    let all = heard.clone();
    let upstream = H2Upstream::start(move |request: Request<RecvStream>, respond| {
        all.clone().listen(request.into_body(), respond)
    })
    .await;
    (upstream, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_gets_every_message_while_the_stream_is_open_and_the_trailers_at_its_end() {
    let primary = echoing().await;
    let (mirror, heard) = listening().await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut request) = client.begin(call("/s.S/Chat"), false).await;
    let mut answer = soon("a head", answer).await.unwrap().into_body();
    let mut sent = 0;
    for number in 0..20 {
        let said = message(&format!("message {number}"));
        request.send_data(said.clone(), false).unwrap();
        assert_eq!(h2::take(&mut answer, said.len()).await, said);
        sent += said.len();
        until("the copy has the message", async || heard.bytes() == sent).await;
    }
    assert_eq!(proxy.metric("forebay_mirror_in_flight", &[]), 1.0);
    request
        .send_trailers(fields(&[("x-checksum", "abc")]))
        .unwrap();
    let (_, trailers) = soon("an end", h2::whole(answer)).await.unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0);
    assert_eq!(heard.trailers().unwrap()["x-checksum"], "abc");
    let head = mirror.heads.lock().unwrap()[0].clone();
    assert_eq!(
        (&head.headers["te"], head.uri.path()),
        (&"trailers".parse().unwrap(), "/s.S/Chat")
    );
    assert_eq!(head.headers["x-forebay-mirror"], "b");
    assert_eq!(head.uri.authority().unwrap(), "test");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_is_copied_and_its_answer_counted() {
    let primary = echoing().await;
    let mirror = echoing().await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let client = H2::connect(proxy.address()).await;
    for _ in 0..50 {
        let (answer, mut body) = client.begin(call("/s.S/Unary"), false).await;
        body.send_data(message("tensor"), true).unwrap();
        let answer = soon("an answer", h2::collect(answer)).await.unwrap();
        assert_eq!(
            (answer.body, answer.trailers.unwrap()["grpc-status"].clone()),
            (message("tensor").to_vec(), "0".parse().unwrap())
        );
    }
    all_over(&proxy, 50.0).await;
    assert_eq!(copies(&proxy, "ok"), 50.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_answers_in_lockstep_although_its_mirror_never_reads() {
    let primary = echoing().await;
    for answers in [false, true] {
        let mirror = H2Upstream::start(
            move |request: Request<RecvStream>, mut respond| async move {
                let stream = answers.then(|| {
                    let head = Response::builder().body(()).unwrap();
                    respond.send_response(head, false).unwrap()
                });
                std::future::pending::<()>().await;
                drop((request, stream));
            },
        )
        .await;
        let options = ", max_lag: 256KiB";
        let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
        let client = H2::connect(proxy.address()).await;
        let (answer, mut request) = client.begin(call("/s.S/Chat"), false).await;
        let mut answer = soon("a head", answer).await.unwrap().into_body();
        let said = message(&"x".repeat(16 << 10));
        for _ in 0..100 {
            request.send_data(said.clone(), false).unwrap();
            assert_eq!(h2::take(&mut answer, said.len()).await, said);
            assert!(proxy.metric("forebay_mirror_held_bytes", &[]) <= 300_000.0);
        }
        all_over(&proxy, 1.0).await;
        assert_eq!(dropped(&proxy, "lag"), 1.0);
        request.send_data(Bytes::new(), true).unwrap();
        let (_, trailers) = soon("an end", h2::whole(answer)).await.unwrap();
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_all_requests_together_hold_no_more_than_they_may() {
    const MOST: f64 = 262_144.0;
    let primary = Upstream::fixed("primary").await;
    // Reads nothing beyond the windows of HTTP/2, and never answers.
    let mirror = H2Upstream::start(|request: Request<RecvStream>, respond| async move {
        std::future::pending::<()>().await;
        drop((request, respond));
    })
    .await;
    let options = ", max_bytes: 256KiB, timeout: 2s";
    let text = shape(primary.address, mirror.address, options, "", HTTP2);
    let proxy = Proxy::start(&text).await;
    let address = proxy.address();
    let client = || async move {
        let mut client = crate::support::Client::connect(address).await;
        for _ in 0..4 {
            client.send(super::post("/", &"x".repeat(50_000))).await;
            assert_eq!(client.answer().await.text(), "primary");
        }
    };
    let clients: Vec<_> = (0..16).map(|_| tokio::spawn(client())).collect();
    let mut highest: f64 = 0.0;
    until("the clients are done", async || {
        let held = proxy.metric("forebay_mirror_held_bytes", &[]);
        assert!(held <= MOST, "{held}");
        highest = highest.max(held);
        clients.iter().all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for client in clients {
        client.await.unwrap();
    }
    assert!(highest > 50_000.0, "{highest}");
    assert!(dropped(&proxy, "bytes") > 0.0);
    all_over(&proxy, 64.0).await;
    assert_eq!(copies(&proxy, "timeout") + dropped(&proxy, "bytes"), 64.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_crosses_versions_both_ways() {
    let old = Upstream::start(|mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            peer.write(respond(200, &String::from_utf8(body).unwrap()))
                .await;
        }
    })
    .await;
    let (new, heard) = listening().await;
    let primary_new = echoing().await;
    for (primary, mirror, to_new) in [
        (old.address, new.address, true),
        (primary_new.address, old.address, false),
    ] {
        let cluster = if to_new { HTTP2 } else { "" };
        let mut text = shape(primary, mirror, "", "", cluster);
        if !to_new {
            text = text.replace("{name: a, ", "{name: a, protocol: http2, ");
        }
        let proxy = Proxy::start(&text).await;
        let client = H2::connect(proxy.address()).await;
        let request = post("/x?y=1")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let (answer, mut body) = client.begin(request, false).await;
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let answer = soon("an answer", h2::collect(answer)).await.unwrap();
        assert_eq!((answer.status(), answer.body), (200, b"hello".to_vec()));
        all_over(&proxy, 1.0).await;
        assert_eq!(copies(&proxy, "ok"), 1.0, "{}", proxy.metrics());
        proxy.stop().await;
    }
    assert_eq!(heard.0.lock().unwrap().0, b"hello");
    let copied = old.text();
    assert!(copied.contains("POST /x?y=1 HTTP/1.1\r\n"), "{copied}");
    assert!(copied.contains("host: test\r\n"), "{copied}");
    assert!(copied.ends_with("\r\n\r\nhello"), "{copied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_whole_once_its_length_is_there_though_its_end_was_not_said() {
    let echo = |mut peer: crate::support::upstream::Peer| async move {
        while let Some((_, body)) = peer.request().await {
            peer.write(respond(200, &String::from_utf8(body).unwrap()))
                .await;
        }
    };
    let primary = Upstream::start(echo).await;
    let mirror = Upstream::start(echo).await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let client = H2::connect(proxy.address()).await;
    let request = post("/").header("content-length", "5").body(()).unwrap();
    let (answer, mut body) = client.begin(request, false).await;
    body.send_data(Bytes::from_static(b"hello"), false).unwrap(); // the end of the stream comes later, or never
    let answer = soon("an answer", h2::collect(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.body), (200, b"hello".to_vec()));
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0, "{}", proxy.metrics());
    assert!(mirror.text().ends_with("hello"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_that_resets_its_stream_cancels_the_copy() {
    let primary = echoing().await;
    let (mirror, heard) = listening().await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut request) = client.begin(call("/s.S/Chat"), false).await;
    let answer = soon("a head", answer).await.unwrap();
    request.send_data(message("m"), false).unwrap();
    until("the copy has the message", async || heard.bytes() == 6).await;
    request.send_reset(::h2::Reason::CANCEL);
    drop(answer);
    all_over(&proxy, 1.0).await;
    let lost = dropped(&proxy, "cancelled") + dropped(&proxy, "source");
    assert_eq!(lost, 1.0);
    assert!(heard.trailers().is_none());
    proxy.stop().await;
}
