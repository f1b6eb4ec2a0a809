//! Where connections come in, and what routes do before anything is forwarded.

mod actions;
mod discovery;
mod peers;
mod sharing;

use std::net::SocketAddr;

use crate::support::Upstream;

/// A configuration with one listener of these settings and everything else as given.
fn with(listener: &str, rest: &str) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', {listener}}}]\n{rest}"
    )
}

/// One route to one cluster of this endpoint.
fn forward(endpoint: SocketAddr) -> String {
    format!(
        "routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}']}}]\n"
    )
}

/// The head, of a request without a body, in which the upstream got this mark.
fn head_with(upstream: &Upstream, mark: &str) -> String {
    let text = upstream.text();
    let head = text
        .split_inclusive("\r\n\r\n")
        .find(|head| head.contains(mark));
    head.unwrap_or_else(|| panic!("no {mark:?} in {text}"))
        .to_owned()
}
