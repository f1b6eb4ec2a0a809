//! The examples of everything but policy.

use std::collections::BTreeSet;

use super::{Example, request};
use crate::support::h2::{H2, H2Upstream};
use crate::support::{Client, Upstream, until};

/// Answers an upgrade, then says back what it gets.
async fn echo() -> Upstream {
    Upstream::start(|mut peer| async move {
        peer.head().await;
        let switch = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        peer.write(switch).await;
        while peer.read().await {
            let bytes = std::mem::take(&mut peer.buffer);
            peer.write(bytes).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn four_lines_are_a_proxy() {
    let model = Upstream::fixed("model").await;
    let served = Example::named("minimal.yaml")
        .with("127.0.0.1:8080", model.address)
        .serve()
        .await;
    assert_eq!(served.get("/v1/models", "").await.text(), "model");
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_passes_everything_to_its_server_up_to_a_size() {
    let server = Upstream::fixed("server").await;
    let served = Example::named("sidecar.yaml")
        .with("0.0.0.0:${env:PORT:-8012}", "127.0.0.1:0")
        .with("127.0.0.1:${env:SERVER_PORT:-8080}", server.address)
        .with("delay: 5s", "delay: 0s")
        .serve()
        .await;
    assert_eq!(
        served.post("/predictions/m", "", "{}").await.text(),
        "server"
    );
    let mut client = Client::connect(served.at()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 67108865\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.reason(), "body_too_large");
    let probes = served.proxy.control().probes.unwrap();
    assert_eq!(Client::get(probes, "/readyz").await.status, 200);
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_has_its_servers_behind_one_port() {
    let (llama, ollama) = (
        Upstream::fixed("llama").await,
        Upstream::fixed("ollama").await,
    );
    let whisper = Upstream::fixed("whisper").await;
    let served = Example::named("local.yaml")
        .with("127.0.0.1:8080", llama.address)
        .with("127.0.0.1:11434", ollama.address)
        .with("127.0.0.1:8081", whisper.address)
        .serve()
        .await;
    assert_eq!(
        served.post("/v1/chat/completions", "", "{}").await.text(),
        "llama"
    );
    assert_eq!(
        served.post("/v1/embeddings", "", "{}").await.text(),
        "ollama"
    );
    assert_eq!(served.get("/whisper/inference", "").await.text(), "whisper");
    whisper.saw("GET /inference HTTP/1.1").await;
    let file = served.directory.path().join("access.log");
    until("requests are logged in this format", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.contains("POST /v1/embeddings 200 ")
    })
    .await;
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_teams_apart_by_host_path_and_header() {
    let (old, new) = (Upstream::fixed("v1").await, Upstream::fixed("v2").await);
    let (old2, new2) = (Upstream::fixed("v1").await, Upstream::fixed("v2").await);
    let llm = Upstream::fixed("llm").await;
    let discovered = "discover: {dns: {name: vllm.ml.svc.cluster.local, port: 8000}}";
    let served = Example::named("gateway.yaml")
        .with("10.0.1.10:8501", old.address)
        .with("10.0.1.11:8501", old2.address)
        .with("10.0.2.10:8501", new.address)
        .with("10.0.2.11:8501", new2.address)
        .with(discovered, format!("endpoints: ['{}']", llm.address))
        .with("delay: 5s", "delay: 0s")
        .serve()
        .await;
    let vision = "host: vision.example.com\r\n";
    let path = "/v1/models/resnet:predict";
    let mut old = 0;
    for _ in 0..100 {
        old += u32::from(served.post(path, vision, "{}").await.text() == "v1");
        let beta = format!("{vision}x-beta: yes\r\n");
        assert_eq!(served.post(path, &beta, "{}").await.text(), "v2");
    }
    assert!((70..=100).contains(&old), "{old}");
    for host in ["chat.example.com", "eu.chat.example.com"] {
        let lines = format!("host: {host}\r\n");
        assert_eq!(served.get("/v1/models", &lines).await.text(), "llm");
        let refused = request(served.at(), "PUT", "/v1/models", &lines, "{}").await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("GET, POST"))
        );
    }
    assert_eq!(served.get("/v1/models", "").await.reason(), "no_route");
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_fixed_answers_and_rewrites_do_what_they_say() {
    let models = Upstream::fixed("models").await;
    let served = Example::named("redirects.yaml")
        .with("10.0.0.1:8501", models.address)
        .serve()
        .await;
    let moved = served
        .post("/v1/a?b=c", "host: models.example.com\r\n", "{}")
        .await;
    let to = Some("https://models.example.com/v1/a?b=c");
    assert_eq!((moved.status, moved.header("location")), (308, to));
    let moved = served.get("/docs", "").await;
    let to = Some("https://docs.example.com/models");
    assert_eq!((moved.status, moved.header("location")), (302, to));
    assert_eq!(served.get("/ping", "").await.text(), "ok");
    assert_eq!(served.get("/v0/x", "").await.status, 410);
    served.get("/api/models?x=1", "").await;
    models
        .saw("GET /models?x=1 HTTP/1.1\r\nhost: models.internal\r\n")
        .await;
    served.post("/models/resnet/2:predict", "", "{}").await;
    models
        .saw("POST /v1/models/resnet/versions/2:predict HTTP/1.1")
        .await;
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_with_its_endpoint() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::fixed(name).await);
    }
    let written = [
        "10.0.0.1:8000",
        "10.0.0.2:8000",
        "10.0.0.3:8000",
        "10.0.1.1:8000",
        "10.0.1.2:8000",
        "10.0.2.1:8000",
        "10.0.2.2:8000",
    ];
    let example = written.iter().zip(&upstreams);
    let example = example.fold(
        Example::named("hash.yaml"),
        |example, (written, upstream)| example.with(written, upstream.address),
    );
    let served = example.serve().await;
    let mut used = BTreeSet::new();
    for user in 0..30 {
        for (path, lines) in [
            ("/v1/chat", format!("x-user-id: user-{user}\r\n")),
            ("/sessions", format!("cookie: session={user}\r\n")),
            ("/", String::new()),
        ] {
            let first = served.get(path, &lines).await.text();
            assert_eq!(served.get(path, &lines).await.text(), first);
            used.insert(first);
        }
    }
    assert_eq!(used.len(), 6, "{used:?}: this machine is one client");
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_tunnel() {
    let (one, two) = (echo().await, echo().await);
    let served = Example::named("websocket.yaml")
        .with("10.0.0.1:8000", one.address)
        .with("10.0.0.2:8000", two.address)
        .serve()
        .await;
    let mut client = Client::connect(served.at()).await;
    client
        .send(
            "GET /v1/realtime HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let head = client.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.send("hello").await;
    assert_eq!(client.bytes(5).await, b"hello");
    drop(client);
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_pumped_to_the_cluster_of_their_port() {
    let talk = |name: &'static str| {
        Upstream::start(move |mut peer| async move {
            peer.read().await;
            peer.write(name).await;
        })
    };
    let redis = talk("+PONG\r\n").await;
    let (a, b) = (talk("stream").await, talk("stream").await);
    let served = Example::named("tcp.yaml")
        .with("127.0.0.1:6380", "127.0.0.1:0")
        .with("0.0.0.0:7000", "127.0.0.1:0")
        .with("127.0.0.1:6379", redis.address)
        .with("10.0.0.1:7000", a.address)
        .with("10.0.0.2:7000", b.address)
        .serve()
        .await;
    for (listener, answer) in [("redis", "+PONG\r\n"), ("stream", "stream")] {
        let mut client = Client::connect(served.proxy.listener(listener)).await;
        client.send("PING\r\n").await;
        assert_eq!(client.all().await, (answer.as_bytes().to_vec(), true));
    }
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_its_trailers() {
    let start = || {
        H2Upstream::start(|_, mut respond| async move {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\0"), false)
                .unwrap();
            let trailers = crate::support::h2::fields(&[("grpc-status", "0")]);
            body.send_trailers(trailers).unwrap();
        })
    };
    let (one, two) = (start().await, start().await);
    let served = Example::named("grpc.yaml")
        .with("10.0.0.1:8001", one.address)
        .with("10.0.0.2:8001", two.address)
        .serve()
        .await;
    let client = H2::connect(served.at()).await;
    for path in [
        "/inference.GRPCInferenceService/ServerLive",
        "/grpc.health.v1.Health/Check",
    ] {
        let call = crate::support::h2::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let answer = client.send(call.body(()).unwrap()).await.unwrap();
        assert_eq!((answer.status(), answer.trailer("grpc-status")), (200, "0"));
    }
    drop(client);
    served.proxy.stop().await;
}
