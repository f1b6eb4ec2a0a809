//! The configurations in `examples/`, run as they are shipped but for their addresses: each does what it says.

mod access;
mod api_keys;
mod basics;
mod blue_green;
mod canary;
mod concurrency;
mod cors;
mod ingress;
mod limits;
mod mirrors;
mod retries;
mod split;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Answer;
use crate::support::{Client, Proxy, Upstream, respond};

/// A shipped configuration whose addresses are not all replaced yet.
struct Example {
    name: &'static str,
    text: String,
}

/// A running example, with a copy of the directory it is in.
struct Served {
    proxy: Proxy,
    directory: TempDir,
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

impl Example {
    fn named(name: &'static str) -> Self {
        let text = std::fs::read_to_string(examples().join(name)).unwrap();
        Self { name, text }
    }

    /// Puts something else where `written` stands.
    fn with(mut self, written: &str, instead: impl Display) -> Self {
        assert!(self.text.contains(written), "{written} in {}", self.name);
        self.text = self.text.replace(written, &instead.to_string());
        self
    }

    /// Serves it on ports of the kernel's choice; this machine is the load balancer in front.
    async fn serve(self) -> Served {
        let text = self.text.replace("0.0.0.0:8080", "127.0.0.1:0").replace(
            "trusted_proxies: [10.0.0.0/8]",
            "trusted_proxies: [127.0.0.0/8]",
        );
        let left = text.lines().find(|line| line.contains("10.0."));
        assert_eq!(left, None, "an address of {} is not replaced", self.name);
        let text = in_a_test(text);
        let directory = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(examples()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let file = directory.path().join(self.name);
        std::fs::write(&file, text).unwrap();
        let proxy = Proxy::start_on(&file).await;
        Served { proxy, directory }
    }
}

/// Adds what the text does not say itself, with ports of the kernel's choice.
fn in_a_test(text: String) -> String {
    let mut text = text
        .replace("address: 127.0.0.1:9901", "address: 127.0.0.1:0")
        .replace("probes: 0.0.0.0:9902", "probes: 127.0.0.1:0")
        .replace("path: stdout", "path: access.log")
        .replace("path: stderr", "path: access.log");
    for (key, value) in [
        ("admin", "{address: '127.0.0.1:0'}"),
        ("workers", "2"),
        ("drain", "{delay: 0s, timeout: 5s}"),
        ("listeners", "[{name: main, address: '127.0.0.1:0'}]"),
    ] {
        if !text.contains(&format!("\n{key}:")) {
            text = format!("{text}\n{key}: {value}\n");
        }
    }
    text
}

impl Served {
    fn at(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// GET with these header lines.
    async fn get(&self, path: &str, lines: &str) -> Answer {
        request(self.at(), "GET", path, lines, "").await
    }

    /// POST of a JSON body with these header lines.
    async fn post(&self, path: &str, lines: &str, body: &str) -> Answer {
        request(self.at(), "POST", path, lines, body).await
    }

    /// Asks the admin API, as the `curl` lines do.
    async fn api(&self, method: &str, path: &str, body: &str) -> Value {
        let admin = self.proxy.control().admin;
        let answer = request(admin, method, path, "", body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        serde_json::from_str(&answer.text()).unwrap()
    }

    /// What `/api/clusters` says of one endpoint.
    async fn endpoint(&self, cluster: &str, address: SocketAddr) -> Value {
        let page = self.api("GET", "/api/clusters", "").await;
        let clusters = page["clusters"].as_array().unwrap();
        let named = clusters.iter().find(|c| c["name"] == cluster).unwrap();
        let mut endpoints = named["endpoints"].as_array().unwrap().iter();
        let at = endpoints.find(|e| e["address"] == address.to_string());
        at.unwrap_or_else(|| panic!("{address} in {named}")).clone()
    }
}

async fn request(at: SocketAddr, method: &str, path: &str, lines: &str, body: &str) -> Answer {
    let body = match method {
        "GET" | "DELETE" | "OPTIONS" => String::new(),
        _ => format!(
            "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    let end = if body.is_empty() { "\r\n" } else { "" };
    let host = if lines.contains("host: ") {
        ""
    } else {
        "host: 127.0.0.1\r\n"
    };
    let head = format!("{method} {path} HTTP/1.1\r\n{host}{lines}{body}{end}");
    Client::once(at, head).await
}

/// A whole answer with this media type.
fn typed(media: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers with its name, and never a request whose body has `hang` in it.
async fn or_hang(name: &'static str) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            if String::from_utf8_lossy(&body).contains("hang") {
                peer.closed().await;
                return;
            }
            peer.write(respond(200, name)).await;
        }
    })
    .await
}
