//! gRPC as frames: what a client library checks before it trusts an answer.

use std::sync::Arc;

use ::h2::Reason;
use ::h2::server::SendResponse;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::Notify;

use super::shape;
use crate::support::h2::{self, H2, H2Upstream, fields, post, soon};
use crate::support::proxy::config;
use crate::support::{Proxy, Upstream, respond};

/// A gRPC message: uncompressed, four bytes of length.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

/// A call of this method.
fn call(path: &str) -> Request<()> {
    post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

fn begin(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    respond.send_response(head, false).unwrap()
}

fn finish(mut stream: SendStream<Bytes>, status: &'static str) {
    stream
        .send_trailers(fields(&[("grpc-status", status), ("grpc-message", "done")]))
        .unwrap();
}

/// Echoes each block as it comes, then says OK.
async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut stream = begin(&mut respond);
    while let Some(Ok(block)) = body.data().await {
        body.flow_control().release_capacity(block.len()).unwrap();
        stream.send_data(block, false).unwrap();
    }
    finish(stream, "0");
}

async fn echoing() -> H2Upstream {
    H2Upstream::start(|request, respond| echo(request.into_body(), respond)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_goes_over_http2_and_ends_with_its_status() {
    let upstream = echoing().await;
    let proxy = Proxy::start(&shape("", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut body) = client
        .begin(call("/inference.GRPCInferenceService/ModelInfer"), false)
        .await;
    body.send_data(message("tensor"), true).unwrap();
    let answer = soon("an answer", h2::collect(answer)).await.unwrap();
    assert_eq!(
        (answer.status(), answer.field("content-type")),
        (200, "application/grpc")
    );
    assert_eq!(answer.body, message("tensor"));
    assert_eq!(
        (
            answer.trailer("grpc-status"),
            answer.trailer("grpc-message")
        ),
        ("0", "done")
    );
    assert_eq!(answer.field("grpc-status"), "", "the status comes last");
    let head = upstream.heads.lock().unwrap()[0].clone();
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(
        head.uri.path(),
        "/inference.GRPCInferenceService/ModelInfer"
    );
    assert_eq!(head.uri.authority().unwrap(), "test");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bidirectional_stream_is_a_conversation() {
    let upstream = echoing().await;
    let proxy = Proxy::start(&shape("", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut request) = client.begin(call("/s.S/Chat"), false).await;
    let mut answer = soon("a head before any message", answer)
        .await
        .unwrap()
        .into_body();
    for number in 0..20 {
        let said = message(&format!("message {number}"));
        request.send_data(said.clone(), false).unwrap();
        assert_eq!(h2::take(&mut answer, said.len()).await, said);
    }
    assert!(!answer.is_end_stream());
    request.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = soon("an end", h2::whole(answer)).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass_both_ways_at_once() {
    let upstream = echoing().await;
    let proxy = Proxy::start(&shape("", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut request) = client.begin(call("/s.S/Large"), false).await;
    let said = message(&"x".repeat(3 << 20));
    request.send_data(said.clone(), true).unwrap();
    let answer = soon("an answer", h2::collect(answer)).await.unwrap();
    assert!(answer.body == said, "{} bytes", answer.body.len());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_refusals_are_one_header_block_with_a_status() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = refused.local_addr().unwrap();
    drop(refused);
    let proxy = Proxy::start(&config(&format!(
        "routes:\n- {{name: dead, match: {{path: {{prefix: /dead.S}}}}, cluster: dead}}\n\
         - {{name: small, match: {{path: {{prefix: /small.S}}}}, cluster: dead, body: {{max: 3}}}}\n\
         - {{name: get, match: {{path: {{prefix: /get.S}}, methods: [GET]}}, cluster: dead}}\n\
         clusters: [{{name: dead, endpoints: ['{dead}']}}]\n"
    )))
    .await;
    let client = H2::connect(proxy.address()).await;
    for (request, status, reason) in [
        (call("/none.S/M"), "12", "no_route"),
        (call("/get.S/M"), "12", "method_not_allowed"),
        (call("/dead.S/M"), "14", "connect_failed"),
        (call("/%2F"), "13", "bad_path"),
    ] {
        let (answer, _) = client.begin(request, true).await;
        let (head, body) = soon("an answer", answer).await.unwrap().into_parts();
        assert!(body.is_end_stream(), "{reason} is not trailers-only");
        assert_eq!(
            (head.status.as_u16(), &head.headers["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        assert_eq!(
            (
                &head.headers["grpc-status"],
                &head.headers["x-forebay-reason"]
            ),
            (&status.parse().unwrap(), &reason.parse().unwrap())
        );
        assert!(!head.headers["grpc-message"].is_empty());
    }
    let request = post("/small.S/M")
        .header("content-type", "application/grpc+proto")
        .header("content-length", "8")
        .body(())
        .unwrap();
    let (answer, mut body) = client.begin(request, false).await;
    let _ = body.send_data(message("abc"), true); // refused by its declared length, perhaps before this
    let answer = soon("an answer", h2::collect(answer)).await.unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.field("grpc-status"),
            answer.reason()
        ),
        (200, "8", "body_too_large")
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_status_never_came_is_reset_and_never_ok() {
    let arrived = Arc::new(Notify::new());
    let gate = Arc::clone(&arrived);
    let upstream = H2Upstream::start(move |request, mut respond| {
        let gate = Arc::clone(&gate);
        async move {
            let mut stream = begin(&mut respond);
            stream.send_data(message("part"), false).unwrap();
            gate.notified().await; // a reset drops what has not left yet
            match request.uri().path() {
                "/s.S/Reset" => stream.send_reset(Reason::INTERNAL_ERROR),
                "/s.S/NoError" => stream.send_reset(Reason::NO_ERROR),
                _ => drop(stream), // h2 resets what is dropped unfinished
            }
        }
    })
    .await;
    let proxy = Proxy::start(&shape("", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    for path in ["/s.S/Reset", "/s.S/NoError", "/s.S/Dropped"] {
        let (answer, _) = client.begin(call(path), true).await;
        let mut body = soon("a head", answer).await.unwrap().into_body();
        assert_eq!(h2::take(&mut body, 9).await, message("part"));
        arrived.notify_one();
        let end = soon("an end", h2::whole(body)).await;
        assert!(
            end.as_ref().is_err_and(::h2::Error::is_reset),
            "{path}: {end:?}"
        );
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_s_own_refusal_passes_as_it_is() {
    let upstream = H2Upstream::start(|_, mut respond| async move {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .header("grpc-message", "no such model")
            .body(())
            .unwrap();
        respond.send_response(head, true).unwrap();
    })
    .await;
    let proxy = Proxy::start(&shape("", "", upstream.address)).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, _) = client.begin(call("/s.S/M"), true).await;
    let (head, body) = soon("an answer", answer).await.unwrap().into_parts();
    assert!(body.is_end_stream());
    assert_eq!(head.headers["grpc-status"], "5");
    assert_eq!(head.headers["grpc-message"], "no such model");
    assert!(!head.headers.contains_key("x-forebay-reason"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_plain_requests_reach_one_cluster_each_in_its_version() {
    // A port that speaks both, as model servers with a multiplexer do.
    let calls = echoing().await;
    let plain = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(200, "plain")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(&format!(
        "routes:\n- {{name: grpc, match: {{path: {{prefix: /s.S}}}}, cluster: g}}\n- {{name: r, cluster: p}}\n\
         clusters:\n- {{name: g, endpoints: ['{}']}}\n- {{name: p, endpoints: ['{}']}}\n",
        calls.address, plain.address
    )))
    .await;
    let client = H2::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.body, b"plain");
    let (answer, mut body) = client.begin(call("/s.S/M"), false).await;
    body.send_data(message("m"), true).unwrap();
    assert_eq!(
        soon("an answer", h2::collect(answer))
            .await
            .unwrap()
            .trailer("grpc-status"),
        "0"
    );
    proxy.stop().await;
}
