//! Clusters and listeners.

use super::part::{map, part};
use super::{Key, Pairs, Part};
use crate::import::{Asked, Leaf};
use crate::model::Position;
use crate::node::Node;

part! {
    /// Interchangeable endpoints.
    Cluster {
        /// Unique name, as [`Work::cluster`](crate::import::Work::cluster) gives it.
        name: Option<Leaf> = "name",
        /// Server kind.
        server: Option<Leaf> = "server",
        /// Models, the first is what upstream is told.
        models: Vec<Leaf> = "models",
        /// Fixed endpoints.
        endpoints: Vec<Endpoint> = "endpoints",
        /// Where endpoints are found.
        discover: Option<Discover> = "discover",
        /// Only endpoints with all of these labels.
        subset: Pairs<Leaf> = "subset",
        /// `http1`, `http2` or `auto`.
        protocol: Option<Leaf> = "protocol",
        /// TLS towards the endpoints.
        tls: Option<ClientTls> = "tls",
        /// How an endpoint is chosen.
        balance: Option<Balance> = "balance",
        /// TCP and TLS together.
        connect_timeout: Option<Leaf> = "connect_timeout",
        /// Idle connections.
        keepalive: Keepalive = "keepalive",
        /// Bounds over all endpoints.
        breaker: Breaker = "breaker",
        /// Active checks.
        health: Option<Health> = "health",
        /// Endpoints that fail get no requests for a while.
        outlier: Option<Outlier> = "outlier",
        /// Requests in flight per endpoint.
        concurrency: Option<Leaf> = "concurrency",
        /// Bounds of the waiting room.
        queue: Queue = "queue",
        /// Who starts and stops replicas.
        scale: Option<Scale> = "scale",
    }
}

part! {
    /// A fixed endpoint.
    Endpoint {
        /// `host:port`.
        address: Option<Leaf> = "address",
        /// Its share, 1 … 1 000 000.
        weight: Option<Leaf> = "weight",
        /// Labels for `subset`.
        labels: Pairs<Leaf> = "labels",
    }
}

/// Where endpoints are found.
#[derive(Clone, Debug, PartialEq)]
pub enum Discover {
    /// All addresses of a name.
    Dns {
        /// The name.
        name: Leaf,
        /// The port of every address.
        port: Leaf,
    },
    /// A Service, as `namespace/name:port`.
    Kubernetes(Leaf),
}

impl Part for Discover {
    fn part(&self, at: &Position) -> Option<Node> {
        Some(match self {
            Self::Dns { name, port } => {
                let dns = map(
                    name.at(),
                    [("name", Some(name.node())), ("port", Some(port.node()))],
                );
                map(at, [("dns", Some(dns))])
            }
            Self::Kubernetes(name) => map(at, [("kubernetes", Some(name.node()))]),
        })
    }
}

part! {
    /// TLS towards endpoints, by the system's roots. Files of certificates cannot be named here.
    ClientTls {
        /// Name in SNI and in the certificate.
        server_name: Option<Leaf> = "server_name",
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Balance {
    /// `least_requests`, `round_robin` or `random`.
    Word(Leaf),
    /// By a hash; `Key::Word` is the client's address.
    Hash(Key),
}

impl Part for Balance {
    fn part(&self, at: &Position) -> Option<Node> {
        let key = match self {
            Self::Word(word) => return word.part(at),
            Self::Hash(Key::Word(word)) => {
                let flag = Leaf::flag(word.at(), true);
                map(word.at(), [("client_ip", Some(flag.node()))])
            }
            Self::Hash(key) => key.whole(at),
        };
        Some(map(at, [("hash", Some(key))]))
    }
}

part! {
    /// Idle connections.
    Keepalive {
        /// Closed after this.
        idle: Option<Leaf> = "idle",
        /// Per endpoint and worker.
        max_idle: Option<Leaf> = "max_idle",
    }
}

part! {
    /// Bounds over all endpoints.
    Breaker {
        /// Open connections.
        connections: Option<Leaf> = "connections",
        /// Requests in flight.
        requests: Option<Leaf> = "requests",
    }
}

part! {
    /// Active checks.
    Health {
        /// `http`, `tcp` or `grpc`.
        kind: Option<Leaf> = "kind",
        /// What is asked.
        path: Option<Leaf> = "path",
        /// Port instead of the endpoint's own.
        port: Option<Leaf> = "port",
        /// From one check to the next.
        interval: Option<Leaf> = "interval",
        /// How long one may take.
        timeout: Option<Leaf> = "timeout",
        /// Failures in a row.
        unhealthy: Option<Leaf> = "unhealthy",
        /// Successes in a row.
        healthy: Option<Leaf> = "healthy",
    }
}

part! {
    /// Endpoints whose answers fail get no requests for a while.
    Outlier {
        /// Failures in a row.
        consecutive_5xx: Option<Leaf> = "consecutive_5xx",
        /// How long the first time.
        base: Option<Leaf> = "base",
        /// The longest time.
        max: Option<Leaf> = "max",
        /// Endpoints that are left whatever they answer.
        keep_at_least: Option<Leaf> = "keep_at_least",
        /// Full share after this long.
        slow_start: Option<Leaf> = "slow_start",
    }
}

part! {
    /// Bounds of the waiting room.
    Queue {
        /// Requests that wait at once.
        max_requests: Option<Leaf> = "max_requests",
        /// How long a request waits while replicas exist.
        saturated: Option<Leaf> = "saturated",
        /// How long while none does.
        empty: Option<Leaf> = "empty",
        /// How often a client that reads events gets a comment while it waits.
        heartbeat: Option<Leaf> = "heartbeat",
    }
}

part! {
    /// How many replicas there should be.
    Scale {
        /// Replicas without demand.
        min: Option<Leaf> = "min",
        /// Most replicas.
        max: Option<Leaf> = "max",
        /// What one replica carries.
        target: Target = "target",
        /// Without demand for so long there are `min`.
        idle: Option<Leaf> = "idle",
        /// A replica that is not ready after this has failed.
        start_timeout: Option<Leaf> = "start_timeout",
        /// One replica is started at once.
        preload: Option<Leaf> = "preload",
        /// Never evicted.
        pin: Option<Leaf> = "pin",
        /// Not evicted sooner than this.
        min_residency: Option<Leaf> = "min_residency",
        /// What one replica takes of one device.
        gpu: GpuShare = "gpu",
        /// Only published.
        observe: Option<Observe> = "observe",
        /// Local processes.
        process: Option<Process> = "process",
    }
}

part! {
    /// What one replica takes of one device.
    GpuShare {
        /// A size, or a percentage of the device's memory.
        memory: Option<Leaf> = "memory",
        /// Hundredths of its computing units.
        cores: Option<Leaf> = "cores",
    }
}

/// A device that local processes share. It only exists where processes may be named.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    index: Leaf,
    memory: Leaf,
}

impl Gpu {
    /// Makes a device; `_` proves that the user asked for processes.
    pub fn new(_: Asked, index: Leaf, memory: Leaf) -> Self {
        Self { index, memory }
    }
}

impl Part for Gpu {
    fn part(&self, _: &Position) -> Option<Node> {
        let keys = [
            ("index", Some(self.index.node())),
            ("memory", Some(self.memory.node())),
        ];
        Some(map(self.index.at(), keys))
    }
}

part! {
    /// What one replica is meant to carry.
    Target {
        /// Requests in flight or waiting.
        in_flight: Option<Leaf> = "in_flight",
        /// Requests per time.
        rate: Option<Leaf> = "rate",
    }
}

/// Replicas that nobody here starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe;

impl Part for Observe {
    fn part(&self, at: &Position) -> Option<Node> {
        Some(map(at, []))
    }
}

/// A local process. Only a format that the user named on the command line can make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Process(ProcessKeys);

part! {
    /// Keys of a local process.
    ProcessKeys {
        /// Program and arguments; `${PORT}` becomes the port.
        command: Option<Leaf> = "command",
        /// Added to the environment.
        env: Pairs<Leaf> = "env",
        /// A command that ends it.
        stop: Option<Leaf> = "stop",
        /// After this long it is killed.
        stop_timeout: Option<Leaf> = "stop_timeout",
        /// Where it listens.
        address: Option<Leaf> = "address",
    }
}

impl Process {
    /// Makes a process; `_` proves that the user asked for it.
    pub fn new(_: Asked, keys: ProcessKeys) -> Self {
        Self(keys)
    }
}

impl Part for Process {
    fn part(&self, at: &Position) -> Option<Node> {
        self.0.part(at)
    }
}

part! {
    /// A socket that accepts connections.
    Listener {
        /// Unique name.
        name: Option<Leaf> = "name",
        /// IP address and port.
        address: Option<Leaf> = "address",
        /// `http` or `tcp`.
        protocol: Option<Leaf> = "protocol",
        /// Certificates that the operator gave for Secrets; see [`Options::certificates`](crate::import::Options).
        tls: Option<ServerTls> = "tls",
    }
}

/// TLS of a listener, with files that the operator named, never the document.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls(Vec<(Position, String, String)>);

impl ServerTls {
    /// Makes TLS of certificates found by [`Work::certificate`](crate::import::Work::certificate).
    pub fn new(certificates: Vec<crate::import::Certificate>) -> Self {
        let parts = certificates.into_iter();
        Self(parts.map(crate::import::Certificate::parts).collect())
    }
}

impl Part for ServerTls {
    fn part(&self, at: &Position) -> Option<Node> {
        let certificates = self.0.iter().map(|(at, certificate, key)| {
            let leaf = |text: &String| Some(Leaf::text(at, text.as_str()).node());
            map(at, [("certificate", leaf(certificate)), ("key", leaf(key))])
        });
        let list = Node {
            position: at.clone(),
            value: crate::node::Value::List(certificates.collect()),
        };
        Some(map(at, [("certificates", Some(list))]))
    }
}
