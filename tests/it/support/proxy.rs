//! The proxy under test, in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use forebay::control::{Control, Source};
use forebay::server::{Options, Server, StartError};

use super::PATIENCE;

/// A running proxy.
pub struct Proxy {
    server: Server,
    addresses: Vec<(String, SocketAddr)>,
}

impl Proxy {
    /// Starts on a configuration given as text. `admin.address` and listeners should use port 0.
    pub async fn start(config: &str) -> Self {
        Self::try_start(Source::Text(Arc::from(config)))
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Starts on a file or directory, which is watched.
    pub async fn start_on(path: &Path) -> Self {
        Self::try_start(Source::Paths(vec![path.to_owned()]))
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Starts, or says why not.
    pub async fn try_start(source: Source) -> Result<Self, StartError> {
        let server = Server::start(Options {
            source,
            resolve: Vec::new(),
            admin_port_may_move: false,
        })
        .await?;
        let addresses = server.control().addresses().await;
        Ok(Self { server, addresses })
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0].1
    }

    /// A listener by name.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.addresses
            .iter()
            .find(|(n, _)| n == name)
            .unwrap_or_else(|| panic!("no listener {name}"))
            .1
    }

    /// What acts on it.
    pub fn control(&self) -> &Arc<Control> {
        self.server.control()
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        String::from_utf8(self.control().metrics().render()).unwrap()
    }

    /// The sum of all series of a family whose labels contain all of `labels`, each like `route="r"`.
    pub fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let page = self.metrics();
        let matches = |line: &&str| {
            line.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        page.lines()
            .filter(matches)
            .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Drains and waits until every thread has ended.
    pub async fn stop(self) {
        self.control().drain(
            Some(std::time::Duration::ZERO),
            Some(std::time::Duration::from_secs(5)),
        );
        tokio::time::timeout(PATIENCE, self.server.ended())
            .await
            .expect("the drain ends");
    }
}

/// A configuration with one listener on port 0, an admin API on port 0, and the given rest.
pub fn config(rest: &str) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0'}}]\n{rest}"
    )
}

/// [`config`] with one route that forwards everything to one cluster of these endpoints.
pub fn forward_to(endpoints: &[SocketAddr]) -> String {
    let list = endpoints
        .iter()
        .map(|e| format!("'{e}'"))
        .collect::<Vec<_>>()
        .join(", ");
    config(&format!(
        "routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: [{list}]}}]\n"
    ))
}
