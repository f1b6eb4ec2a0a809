//! Configuration that changes while it serves.

mod files;
mod listening;
mod swap;

use std::net::SocketAddr;
use std::path::Path;

/// Replaces a file whole: the watcher, which looks on, must not see half of it.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// What every file of these tests begins with; one listener.
const TOP: &str = "admin: {address: '127.0.0.1:0'}\nworkers: 2\ndrain: {delay: 0s, timeout: 5s}\n";

/// A file whose every answer is this text.
fn saying(text: &str) -> String {
    format!(
        "{TOP}listeners: [{{name: main, address: '127.0.0.1:0'}}]\n\
         routes: [{{name: r, respond: {{body: '{text}'}}}}]\nclusters: []\n"
    )
}

/// A file with one route to one cluster of this endpoint, and more listeners.
fn leading_to(endpoint: SocketAddr, listeners: &str) -> String {
    format!(
        "{TOP}listeners:\n- {{name: main, address: '127.0.0.1:0'}}\n{listeners}\
         routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}']}}]\n"
    )
}
