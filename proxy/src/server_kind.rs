//! What each model server speaks, as one table of data, [`SERVERS`].
//!
//! Sources are the servers' own documents: liveness, readiness and metrics as they ship. The ports are those of
//! [`ServerKind::ports`]. Where a server has no readiness of its own, a connection counts.
//!
//! The table for people is in `server_kind/README.md`; a test compares the two.

mod gauges;
mod model;
mod reference;
mod table;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::time::Duration;

use forebay_config::{Cluster, Health, HealthKind, ServerKind, UpstreamProtocol};
use http::StatusCode;

pub use gauges::{Gauges, MOST_ALIASES, Series, Signal};
pub use model::{ModelReady, Question, Reads};
pub use reference::reference;
pub use table::{SERVERS, of};

/// One model server: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whose row it is.
    pub kind: ServerKind,
    /// As in the configuration.
    pub name: &'static str,
    /// Path that says the process lives; `None`: it has none.
    pub live: Option<&'static str>,
    /// Path that answers 200 once requests can be served; `None`: it accepts connections no earlier than that.
    pub ready: Option<&'static str>,
    /// What says that one model can be served; `None`: only the server as a whole can be asked.
    pub model: Option<ModelReady>,
    /// How long an answer to `ready` or `model` may take.
    pub patience: Duration,
    /// Path of its metrics page; `None`: it has none.
    pub metrics: Option<&'static str>,
    /// What it has to be started with so that there are metrics; `None`: nothing.
    pub flag: Option<&'static str>,
    /// The series of its metrics page that say how busy it is.
    pub gauges: Gauges,
    /// What its clients expect of an error.
    pub errors: Errors,
    /// How it sends an answer bit by bit.
    pub streaming: Streaming,
}

/// The body of an error in a server's own protocol, and so of ours in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// `{"error": {"message", "type", "param", "code"}}`.
    Object,
    /// `{"error": "…"}`.
    Text,
}

/// How a server sends an answer bit by bit over HTTP/1.1; gRPC streams are another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// It does not.
    None,
    /// `text/event-stream`.
    Events,
    /// `application/x-ndjson`: one JSON object per line.
    Lines,
    /// Chunks without a frame of their own, as the model's code writes them.
    Chunks,
}

/// How a cluster's endpoints say that they are ready: by its `health`, else as its servers do. What an endpoint of a
/// cluster with `models` is asked instead, [`question`] says. Never [`HealthKind::Server`].
pub fn readiness(cluster: &Cluster) -> Health {
    let server = of(cluster.server);
    let kind = || match server.ready {
        None => HealthKind::Tcp,
        Some(path) => HealthKind::Http {
            path: path.to_owned(),
            status: vec![StatusCode::OK],
        },
    };
    match &cluster.health {
        Some(health) if health.kind != HealthKind::Server => health.clone(),
        Some(health) => Health {
            kind: kind(),
            timeout: health.timeout.max(server.patience),
            ..health.clone()
        },
        None => Health {
            kind: kind(),
            port: None,
            interval: Duration::from_secs(1),
            timeout: server.patience,
            unhealthy: NonZeroU32::MIN,
            healthy: NonZeroU32::MIN,
        },
    }
}

/// What says whether an endpoint can serve the first of the cluster's `models`. `None`: the cluster has no models, its
/// `health` says what is asked instead, or its servers cannot be asked at that port, such as the one for gRPC.
///
/// * `port`: where the endpoint listens
pub fn question(cluster: &Cluster, port: u16) -> Option<Question> {
    let only_grpc = cluster.protocol == UpstreamProtocol::Http2;
    let health = cluster.health.as_ref();
    let is_other = health.is_some_and(|health| health.kind != HealthKind::Server);
    if is_other || only_grpc || cluster.server.ports().grpc == Some(port) {
        return None;
    }
    let model = cluster.models.first()?;
    of(cluster.server).model?.question(cluster, model, port)
}

/// True when the servers of a cluster tell that they are ready by more than taking connections.
pub fn says_ready(cluster: &Cluster) -> bool {
    let server = of(cluster.server);
    server.ready.is_some() || (server.model.is_some() && !cluster.models.is_empty())
}

/// Where an endpoint's metrics page is: as written, else the kind's own port beside the kind's HTTP port, else the
/// endpoint's own.
///
/// * `port`: where the endpoint listens
pub fn metrics_port(cluster: &Cluster, port: u16) -> u16 {
    let usual = cluster.server.ports();
    let beside = usual.metrics.filter(|_| usual.http == Some(port));
    cluster.ports.metrics.or(beside).unwrap_or(port)
}

/// True when a request asks only whether the server is there: it is no demand.
///
/// * `path`: canonical
/// * `agent`: `user-agent`, if the request has one
pub fn is_probe(kind: ServerKind, path: &str, agent: Option<&str>) -> bool {
    /// Who asks for its health from outside.
    const AGENTS: [&str; 4] = [
        "kube-probe/",
        "Prometheus/",
        "ELB-HealthChecker/",
        "GoogleHC/",
    ];
    let server = of(kind);
    let asked = |at: Option<&str>| at == Some(path) && path != "/";
    asked(server.live)
        || asked(server.ready)
        || server.model.is_some_and(|model| model.is_probe(path))
        || agent.is_some_and(|agent| AGENTS.iter().any(|known| agent.starts_with(known)))
}
