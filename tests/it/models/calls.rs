//! gRPC: the name is in the first message.

use http::Response;

use super::*;
use crate::support::h2::{H2Upstream, whole};

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// Sends back what it got.
async fn echo() -> H2Upstream {
    H2Upstream::start(|request, mut respond| async move {
        let (body, _) = whole(request.into_body()).await.unwrap();
        let head = Response::builder().header("content-type", "application/grpc");
        let mut send = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        send.send_data(body.into(), false).unwrap();
        let trailers = crate::support::h2::fields(&[("grpc-status", "0")]);
        send.send_trailers(trailers).unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_finds_its_cluster_and_is_told_its_name() {
    let (a, b) = (echo().await, echo().await);
    let text = by_model(&[
        (
            "a",
            a.address,
            "server: triton, models: ['a-longer-name', m]",
        ),
        (
            "b",
            b.address,
            "server: tensorflow-serving, models: ['a-longer-spec', n]",
        ),
    ]);
    let proxy = Proxy::start(&text).await;
    let tail = field(5, &[7; 100]);
    let infer = |name: &str| framed(&[field(1, name.as_bytes()), tail.clone()].concat());
    let predict = |name: &str| {
        let spec = [field(1, name.as_bytes()), field(3, b"serving_default")].concat();
        framed(&[field(1, &spec), tail.clone()].concat())
    };
    let (triton, tensorflow) = (
        "/inference.GRPCInferenceService/ModelInfer",
        "/tensorflow.serving.PredictionService/Predict",
    );
    for step in [1, 1000] {
        for (path, sent, want) in [
            (triton, infer("m"), infer("a-longer-name")),
            (triton, infer("a-longer-name"), infer("a-longer-name")),
            (tensorflow, predict("n"), predict("a-longer-spec")),
        ] {
            let answer = ask_h2(&proxy, path, "application/grpc", &sent, step).await;
            assert_eq!(
                (answer.status(), answer.trailer("grpc-status")),
                (200, "0"),
                "{answer:?}"
            );
            assert_eq!(answer.body, want);
        }
    }
    assert_eq!(
        (a.heads.lock().unwrap().len(), b.heads.lock().unwrap().len()),
        (4, 2)
    );
    let stream = "/inference.GRPCInferenceService/ModelStreamInfer";
    let twice = |one: &str, other: &str| [infer(one), infer(other)].concat();
    let same = ask_h2(
        &proxy,
        stream,
        "application/grpc",
        &twice("a-longer-name", "a-longer-name"),
        1000,
    )
    .await;
    assert_eq!(same.trailer("grpc-status"), "0");
    let alias = ask_h2(&proxy, stream, "application/grpc", &twice("m", "m"), 1000).await;
    assert_eq!(
        (alias.field("grpc-status"), alias.reason()),
        ("5", "unknown_model")
    );
    assert!(alias.field("grpc-message").contains("`a-longer-name`"));
    let other = ask_h2(
        &proxy,
        stream,
        "application/grpc",
        &twice("a-longer-name", "n"),
        1000,
    )
    .await;
    assert_eq!(other.reason(), "bad_request");
    proxy.stop().await;
}
