//! Who may send what, how much of it, and to which member of a split.

mod access;
mod auth;
mod cors;
mod json;
mod limits;
mod reloads;
mod replace;
mod sticky;

use std::net::SocketAddr;
use std::path::Path;

use crate::support::proxy::config;
use crate::support::{Client, client};

/// A configuration with one route with these keys to one cluster of this endpoint; `more`: top-level keys.
fn guarded(endpoint: SocketAddr, route: &str, more: &str) -> String {
    config(&format!(
        "{more}\nroutes: [{{name: r, cluster: a, {route}}}]\nclusters: [{{name: a, endpoints: ['{endpoint}']}}]\n"
    ))
}

/// As [`guarded`], with a listener that believes forwarding fields from this machine.
fn behind_a_proxy(endpoint: SocketAddr, route: &str) -> String {
    guarded(endpoint, route, "").replace(
        "address: '127.0.0.1:0'}]",
        "address: '127.0.0.1:0', trusted_proxies: [127.0.0.1/32]}]",
    )
}

/// Replaces a file whole: the watcher must not see half of it.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// GET with these header lines.
async fn get(address: SocketAddr, path: &str, lines: &str) -> client::Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{lines}\r\n");
    Client::once(address, request).await
}
