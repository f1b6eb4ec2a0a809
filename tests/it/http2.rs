//! HTTP/2 on either side: frames by the `h2` crate, or by hand.

mod abuse;
mod downstream;
mod grpc;
mod upstream;

use std::net::SocketAddr;

/// A configuration with one listener with these limits, one route and a cluster with these settings.
fn shape(limits: &str, cluster: &str, endpoint: SocketAddr) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', limits: {{{limits}}}}}]\n\
         routes:\n- {{name: r, cluster: a}}\n\
         - {{name: empty, match: {{path: {{exact: /empty}}}}, respond: {{status: 204}}}}\n\
         clusters: [{{name: a, endpoints: ['{endpoint}'], {cluster}}}]\n"
    )
}
