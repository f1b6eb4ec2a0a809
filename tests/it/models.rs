//! Models by name: a request finds the cluster that serves its model, and is told that cluster's own name for it.

mod aliases;
mod bodies;
mod calls;
mod listing;
mod matching;
mod mirrors;
mod seen;
mod streams;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::support::client::Answer;
use crate::support::h2::{self, H2, collect, post, soon};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream};

/// A cluster: its name, an endpoint, and further keys.
type Cluster<'a> = (&'a str, SocketAddr, &'a str);

/// One route by model to these clusters.
fn by_model(clusters: &[Cluster<'_>]) -> String {
    routed("routes: [{name: models, by_model: true}]", clusters)
}

/// These routes to these clusters.
fn routed(routes: &str, clusters: &[Cluster<'_>]) -> String {
    let mut text = format!("{routes}\nclusters:\n");
    for (name, address, keys) in clusters {
        text.push_str(&format!(
            "- {{name: {name}, endpoints: ['{address}'], {keys}}}\n"
        ));
    }
    config(&text)
}

/// A request with a body of this type.
fn typed(path: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn chat(body: &str) -> String {
    typed("/v1/chat/completions", "application/json", body)
}

async fn ask(proxy: &Proxy, request: &str) -> Answer {
    Client::once(proxy.address(), request).await
}

/// The same over HTTP/2, in frames of this many bytes.
async fn ask_h2(
    proxy: &Proxy,
    path: &str,
    content_type: &str,
    body: &[u8],
    step: usize,
) -> h2::Answer {
    let h2 = H2::connect(proxy.address()).await;
    let request = post(path)
        .header("content-type", content_type)
        .body(())
        .unwrap();
    let (answer, mut send) = h2.begin(request, false).await;
    for piece in body.chunks(step) {
        send.send_data(Bytes::copy_from_slice(piece), false)
            .unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
    soon("an answer", collect(answer)).await.unwrap()
}

/// Bodies of what an endpoint got, in the order of its connections and requests; chunks taken apart.
fn bodies(upstream: &Upstream) -> Vec<String> {
    let mut bodies = Vec::new();
    for transcript in upstream.transcripts() {
        let mut rest = &transcript[..];
        while let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
            rest = &rest[end + 4..];
            let mut body = Vec::new();
            if head.contains("transfer-encoding: chunked") {
                loop {
                    let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
                    let size = std::str::from_utf8(&rest[..line]).unwrap();
                    let size = usize::from_str_radix(size, 16).unwrap();
                    body.extend_from_slice(&rest[line + 2..line + 2 + size]);
                    rest = &rest[line + 2 + size + 2..];
                    if size == 0 {
                        break;
                    }
                }
            } else if let Some(length) = head.split("content-length: ").nth(1) {
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                body.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
            }
            bodies.push(String::from_utf8_lossy(&body).into_owned());
        }
    }
    bodies
}
