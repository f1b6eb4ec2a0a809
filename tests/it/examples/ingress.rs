//! `ingress-nginx.yaml`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Example, Served, request, typed};
use crate::support::client::Answer;
use crate::support::{Client, Upstream};

const PATH: &str = "/v1/models/resnet";
const HOST: &str = "host: models.example.com\r\n";

/// A page for browsers, an echo for WebSockets.
async fn jupyter() -> Upstream {
    Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            if head.to_ascii_lowercase().contains("upgrade: websocket") {
                let switch = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                peer.write(switch).await;
                while peer.read().await {
                    let bytes = std::mem::take(&mut peer.buffer);
                    peer.write(bytes).await;
                }
                return;
            }
            let media = match head.starts_with("GET /script.js") {
                true => "text/javascript",
                false => "text/html; charset=utf-8",
            };
            let body = "<html><HEAD><title>x</title></HEAD><!-- <head> --></html>";
            peer.write(typed(media, body)).await;
        }
    })
    .await
}

/// Answers as nginx does, with its name in `server`.
async fn model(name: &'static str) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            if head.contains("/slow") {
                peer.closed().await;
                return;
            }
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\nserver: tf\r\ncontent-length: {length}\r\n\r\n");
            peer.write(format!("{head}{name}")).await;
        }
    })
    .await
}

async fn serve(seconds: &str) -> (Served, [Upstream; 4]) {
    let upstreams = [
        model("v1").await,
        model("v2").await,
        model("console").await,
        jupyter().await,
    ];
    let served = Example::named("ingress-nginx.yaml")
        .with("10.0.1.1:8501", upstreams[0].address)
        .with("10.0.2.1:8501", upstreams[1].address)
        .with("10.0.3.1:8080", upstreams[2].address)
        .with("10.0.4.1:8888", upstreams[3].address)
        .with("300s", seconds)
        .serve()
        .await;
    (served, upstreams)
}

async fn preflight(served: &Served, host: &str, origin: &str, path: &str) -> Answer {
    let lines = format!(
        "host: {host}\r\norigin: {origin}\r\naccess-control-request-method: PATCH\r\n\
         access-control-request-headers: authorization\r\n"
    );
    request(served.at(), "OPTIONS", path, &lines, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_weights_headers_and_the_bound_of_bodies_are_those_of_the_annotations() {
    let (served, upstreams) = serve("300s").await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for turn in 0..300 {
        let host = ["models.example.com", "a.b.models.example.com"][turn % 2];
        let lines = format!("host: {host}\r\nx-internal: secret\r\n");
        let answer = served.get(&format!("{PATH}:predict"), &lines).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(answer.header("server"), None);
        *seen.entry(answer.text()).or_insert(0) += 1;
    }
    assert!((30..90).contains(&seen["v2"]), "{seen:?}");
    let text = upstreams[0].text();
    assert!(text.contains("x-team: ml\r\n") && !text.contains("x-internal"));
    assert_eq!(served.get(PATH, "host: example.com\r\n").await.status, 404);

    for (length, status) in [(50 << 20, 0), ((50 << 20) + 1, 413)] {
        let mut client = Client::connect(served.at()).await;
        let head = format!("POST {PATH} HTTP/1.1\r\n{HOST}content-length: {length}\r\n\r\n");
        client.send(head).await;
        if status == 413 {
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
        } else {
            let announced = format!("content-length: {length}");
            crate::support::until("the upload has begun", async || {
                upstreams.iter().any(|u| u.text().contains(&announced))
            })
            .await;
        }
    }
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_may_call_as_the_annotations_say() {
    let (served, _upstreams) = serve("300s").await;
    let any = preflight(&served, "models.example.com", "https://any.example", PATH).await;
    assert!(matches!(any.status, 200 | 204), "{any:?}");
    assert_eq!(any.header("access-control-allow-origin"), Some("*"));
    let methods = any.header("access-control-allow-methods").unwrap();
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    assert_eq!(any.header("access-control-max-age"), Some("1728000"));
    let lines = format!("{HOST}origin: https://any.example\r\n");
    let answer = served.get(PATH, &lines).await;
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("*, x-customresponseheader")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);

    let console = "console.example.com";
    let known = "https://a.preview.example.com";
    let ours = preflight(&served, console, known, "/api/x").await;
    assert_eq!(ours.header("access-control-allow-origin"), Some(known));
    assert_eq!(
        ours.header("access-control-allow-credentials"),
        Some("true")
    );
    let other = preflight(&served, console, "https://any.example", "/api/x").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_put_into_pages_once_and_websockets_pass() {
    let (served, upstreams) = serve("300s").await;
    let host = "host: notebooks.example.com\r\naccept-encoding: gzip\r\n";
    let page = served.get("/", host).await;
    assert_eq!(
        page.text(),
        "<html><head><script src=\"/banner.js\"></script><title>x</title></HEAD><!-- <head> --></html>"
    );
    upstreams[3].saw("accept-encoding: identity").await;
    let script = served.get("/script.js", host).await;
    assert!(!script.text().contains("banner"), "not of this media type");

    let mut client = Client::connect(served.at()).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nhost: notebooks.example.com\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let head = client.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.send("<head>").await;
    assert_eq!(client.bytes(6).await, b"<head>");
    drop(client);
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeouts_are_clocks() {
    let (served, _upstreams) = serve("300ms").await;
    let began = Instant::now();
    let answer = served.get(&format!("{PATH}/slow"), HOST).await;
    assert_eq!(
        (answer.status, answer.reason()),
        (504, "first_byte_timeout")
    );
    assert!(began.elapsed() >= Duration::from_millis(300));
    served.proxy.stop().await;
}
