//! TLS on either side, with certificates made for the test.

mod handshake;
mod rotation;
mod upstream;

use std::net::SocketAddr;

/// A configuration whose one listener has this `tls:` and whose cluster leads here.
fn serving(tls: &str, endpoint: SocketAddr) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', tls: {{{tls}}}}}]\n\
         routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}']}}]\n"
    )
}

/// A configuration with a cleartext listener and a cluster with these settings.
fn calling(cluster: &str, endpoint: SocketAddr) -> String {
    crate::support::proxy::config(&format!(
        "routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}'], {cluster}}}]\n"
    ))
}
