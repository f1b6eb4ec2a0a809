//! Who serves: checks, answers that fail, operators, and that all of it outlives a reload.

mod checks;
mod drains;
mod ejections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use crate::support::upstream::{Peer, Upstream};
use crate::support::{Client, Proxy, respond};

/// An endpoint whose checks and answers a test can change.
struct Server {
    upstream: Upstream,
    /// Of `GET /ready`.
    ready: Arc<AtomicU16>,
    /// Of everything else; 0: the connection is closed instead.
    status: Arc<AtomicU16>,
}

impl Server {
    /// All well. Answers carry its name; with status 503 they carry `Retry-After`, with 504 nothing more.
    async fn start(name: &'static str) -> Self {
        let ready = Arc::new(AtomicU16::new(200));
        let status = Arc::new(AtomicU16::new(200));
        let (checked, asked) = (Arc::clone(&ready), Arc::clone(&status));
        let upstream = Upstream::start(move |mut peer: Peer| {
            let (checked, asked) = (Arc::clone(&checked), Arc::clone(&asked));
            async move {
                while let Some((head, _)) = peer.request().await {
                    if head.starts_with("GET /ready ") {
                        peer.write(respond(checked.load(SeqCst), "")).await;
                        continue;
                    }
                    let length = name.len();
                    match asked.load(SeqCst) {
                        0 => return,
                        503 => {
                            let head = "HTTP/1.1 503 X\r\nretry-after: 1\r\ncontent-length";
                            peer.write(format!("{head}: {length}\r\n\r\n{name}")).await
                        }
                        status => peer.write(respond(status, name)).await,
                    };
                }
            }
        })
        .await;
        Self {
            upstream,
            ready,
            status,
        }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }
}

/// `endpoint_healthy` of an endpoint.
fn healthy(proxy: &Proxy, server: &Server) -> f64 {
    let endpoint = format!("endpoint=\"{}\"", server.address());
    proxy.metric("forebay_endpoint_healthy", &["cluster=\"a\"", &endpoint])
}

/// `endpoint_ejections_total` of an endpoint.
fn ejections(proxy: &Proxy, server: &Server) -> f64 {
    let endpoint = format!("endpoint=\"{}\"", server.address());
    proxy.metric(
        "forebay_endpoint_ejections_total",
        &["cluster=\"a\"", &endpoint],
    )
}

/// Asks so often and returns how many answers had each of these texts, `none` for `no_endpoint`.
async fn tally(proxy: &Proxy, requests: usize, texts: &[&str]) -> Vec<usize> {
    let mut counts = vec![0; texts.len()];
    for _ in 0..requests {
        let answer = Client::get(proxy.address(), "/").await;
        let text = match answer.reason() {
            "no_endpoint" => {
                assert_eq!(answer.status, 503);
                "none".to_owned()
            }
            _ => answer.text(),
        };
        let at = texts.iter().position(|known| *known == text);
        counts[at.unwrap_or_else(|| panic!("{answer:?}"))] += 1;
    }
    counts
}
