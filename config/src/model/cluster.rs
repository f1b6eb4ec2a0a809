//! Clusters: who can serve, how they are found, chosen and spoken to.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::{Health, Outlier, Position, Queue, Scale};

/// One entry of `clusters:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Unique.
    pub name: String,
    /// What its servers speak.
    pub server: ServerKind,
    /// Names of what it serves, unique; the first is what upstream is told, the others are aliases. May be empty.
    pub models: Vec<String>,
    /// Ports of its servers by what they speak.
    pub ports: Ports,
    /// Static endpoints; may be empty only with `discover`.
    pub endpoints: Vec<EndpointConfig>,
    /// Endpoints found at run time.
    pub discover: Option<Discover>,
    /// Only endpoints whose labels contain all of these serve.
    pub subset: BTreeMap<String, String>,
    /// HTTP version towards the endpoints.
    pub protocol: UpstreamProtocol,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTls>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// TCP and TLS together; default 5 s.
    pub connect_timeout: Duration,
    /// Idle connections.
    pub keepalive: Keepalive,
    /// Bounds over all endpoints and workers.
    pub breaker: Breaker,
    /// Active checks; `None`: endpoints count as healthy.
    pub health: Option<Health>,
    /// Ejection of endpoints whose answers fail; `None`: never.
    pub outlier: Option<Outlier>,
    /// Requests in flight per endpoint, exact within this proxy; `None`: no bound.
    pub concurrency: Option<NonZeroU32>,
    /// Bounds of the waiting room; `None`: not written.
    pub queue: Option<Queue>,
    /// Who starts and stops replicas; `None`: nobody here.
    pub scale: Option<Scale>,
    /// Where it was written.
    pub position: Position,
}

impl Cluster {
    /// True when requests wait for an endpoint instead of being refused at once.
    pub fn has_room(&self) -> bool {
        self.concurrency.is_some() || self.queue.is_some() || self.scale.is_some()
    }
}

/// `ports:` of a cluster. All of a server's ports share its slots and its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// HTTP, for endpoints that are written without a port; `None`: the server kind's own.
    pub http: Option<u16>,
    /// gRPC; `None`: the endpoint's own port. The server kind's own where all endpoints are written without a port.
    pub grpc: Option<u16>,
    /// Metrics; `None`: the server kind's own where the endpoint has the kind's HTTP port, else the endpoint's own port.
    pub metrics: Option<u16>,
}

/// What model server a cluster's endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names are those of the products")]
pub enum ServerKind {
    #[default]
    Generic,
    TensorflowServing,
    Torchserve,
    Onnxruntime,
    Triton,
    KserveV1,
    KserveV2,
    Vllm,
    Sglang,
    Tgi,
    LlamaCpp,
    Ollama,
    Bentoml,
}

/// A static endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Name or IP literal (IPv6 without brackets).
    pub host: String,
    /// 1 … 65535.
    pub port: u16,
    /// 1 … 1 000 000; default 1.
    pub weight: u32,
    /// For `subset`.
    pub labels: BTreeMap<String, String>,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discover {
    /// All addresses of a name.
    Dns {
        /// The name asked.
        name: String,
        /// The port of every address.
        port: u16,
        /// Asked again at the latest after this time, sooner when the record's TTL is shorter; default 5 s.
        refresh: Duration,
    },
}

/// HTTP version towards endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/2 for gRPC, else HTTP/1.1.
    #[default]
    Auto,
    /// Always HTTP/1.1.
    Http1,
    /// Always HTTP/2, with prior knowledge or ALPN.
    Http2,
}

/// TLS towards endpoints. The default is the system's roots and the endpoint's own name.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct ClientTls {
    /// Name in SNI and in the certificate; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// PEM bundle of trusted roots; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate chain, PEM; set together with `key`.
    pub certificate: Option<PathBuf>,
    /// Client key, PEM.
    pub key: Option<PathBuf>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// Fewest requests in flight per weight.
    #[default]
    LeastRequests,
    /// In turn, by weight.
    RoundRobin,
    /// Uniform, by weight.
    Random,
    /// Consistent hash of a key with bounded load; without the key: least requests.
    Hash(HashKey),
}

/// What a consistent hash looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// Value of a request header.
    Header(HeaderName),
    /// Value of a cookie.
    Cookie(String),
    /// The client's address.
    ClientIp,
}

/// `keepalive:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// An idle connection is closed after this; default 3 s.
    pub idle: Duration,
    /// Idle connections per endpoint and worker; default 64.
    pub max_idle: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3),
            max_idle: 64,
        }
    }
}

/// `breaker:`. `None`: no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Open connections; default 1024.
    pub connections: Option<u32>,
    /// Requests in flight; default none.
    pub requests: Option<u32>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            connections: Some(1024),
            requests: None,
        }
    }
}
