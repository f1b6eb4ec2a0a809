//! Keys of who serves: endpoints, how they are found, chosen and checked.

use super::{HOUR, QueueKeys, ScaleKeys, Weight, YEAR};
use crate::model::{ServerKind, UpstreamProtocol};
use crate::schema::section::section;
use crate::schema::{
    BalanceShape, CheckKind, CheckPath, CookieName, Dictionary, EditableHeader, EndpointShape,
    FilePath, HostName, HostPort, List, ModelName, Name, OrNone, Period, PlainText, ServiceName,
    Statuses, Whole,
};

/// A port to connect to.
pub type Port = Whole<1, 65_535>;

section! {
    /// Interchangeable endpoints.
    ClusterKeys {
        /// Unique name.
        [required] "name" name: Name,
        /// What the endpoints speak; default `generic`.
        "server" server: ServerKind,
        /// Names of what they serve; the first is what upstream is told, the others are aliases.
        "models" models: List<ModelName>,
        /// Ports of the endpoints by what they speak; all of them share one `concurrency`.
        "ports" ports: PortKeys,
        /// Fixed endpoints: `host:port`, or a map.
        "endpoints" endpoints: List<EndpointShape>,
        /// Endpoints that are found at run time.
        "discover" discover: DiscoverKeys,
        /// Only endpoints that have all of these labels serve.
        "subset" subset: Dictionary<String, PlainText>,
        /// HTTP version towards the endpoints: `http1`, `http2`, or `auto` (default): HTTP/2 for gRPC.
        "protocol" protocol: UpstreamProtocol,
        /// TLS towards the endpoints; `{}` trusts the system's roots.
        "tls" tls: ClientTlsKeys,
        /// How an endpoint is chosen: `least_requests` (default), `round_robin`, `random`, or a hash.
        "balance" balance: BalanceShape,
        /// TCP and TLS together; default 5s.
        "connect_timeout" connect_timeout: Period<1, HOUR>,
        /// Idle connections to the endpoints.
        "keepalive" keepalive: KeepaliveKeys,
        /// Bounds over all endpoints.
        "breaker" breaker: BreakerKeys,
        /// Active checks; default: endpoints count as healthy.
        "health" health: HealthKeys,
        /// Endpoints whose answers fail get no requests for a while; default: never. `{}` has all defaults.
        "outlier" outlier: OutlierKeys,
        /// Requests in flight per endpoint, exact within this proxy; more wait. Default: no bound.
        "concurrency" concurrency: Whole<1, 1_000_000>,
        /// Bounds of the waiting room.
        "queue" queue: QueueKeys,
        /// Who starts and stops replicas, and by what demand; default: nobody here.
        "scale" scale: ScaleKeys,
    }
    later []
}

section! {
    /// A fixed endpoint.
    EndpointKeys {
        /// Host and port; without the port, `ports.http` or the usual one of such servers. All addresses of a name are used.
        [required] "address" address: HostPort,
        /// Its share, relative to the others; default 1.
        "weight" weight: Weight<1>,
        /// Labels for `subset`.
        "labels" labels: Dictionary<String, PlainText>,
    }
    later []
}

section! {
    /// Ports of the endpoints by what they speak.
    PortKeys {
        /// HTTP, where an endpoint is written without a port; default: the usual one of such servers.
        "http" http: Port,
        /// gRPC; default: the endpoint's own, or the usual one of such servers where no endpoint is written with a port.
        "grpc" grpc: Port,
        /// Metrics; default: the usual one of such servers where the endpoint has their usual HTTP port, else its own.
        "metrics" metrics: Port,
    }
    later []
}

section! {
    /// Where endpoints are found.
    DiscoverKeys {
        /// All addresses of a name.
        "dns" dns: DnsKeys,
    }
    later ["kubernetes"]
}

section! {
    /// All addresses of a name.
    DnsKeys {
        /// The name.
        [required] "name" name: HostName,
        /// The port of every address.
        [required] "port" port: Whole<1, 65_535>,
        /// The name is asked again at the latest after this time; default 5s.
        "refresh" refresh: Period<100, HOUR>,
    }
    later []
}

section! {
    /// TLS towards endpoints. Relative paths are relative to this file.
    ClientTlsKeys {
        /// Name in SNI and in the certificate; default: the endpoint's host.
        "server_name" server_name: HostName,
        /// PEM bundle of trusted roots; default: the system's.
        "ca" ca: FilePath,
        /// Client certificate chain in PEM, together with `key`.
        "certificate" certificate: FilePath,
        /// Client key in PEM.
        "key" key: FilePath,
    }
    later []
}

section! {
    /// How an endpoint is chosen.
    BalanceKeys {
        /// Requests with the same key go to the same endpoint; without the key: least requests.
        "hash" hash: HashKeys,
    }
    later ["prefix", "signals"]
}

section! {
    /// The key of a hash: exactly one of the three.
    HashKeys {
        /// Value of a request header.
        "header" header: EditableHeader,
        /// Value of a cookie.
        "cookie" cookie: CookieName,
        /// The client's address.
        "client_ip" client_ip: bool,
    }
    later []
}

section! {
    /// Idle connections to endpoints.
    KeepaliveKeys {
        /// An idle connection is closed after this; default 3s.
        "idle" idle: Period<1, HOUR>,
        /// Idle connections per endpoint and worker; default 64.
        "max_idle" max_idle: Whole<0, 65_536>,
    }
    later []
}

section! {
    /// Bounds over all endpoints of a cluster; each can be `none`.
    BreakerKeys {
        /// Open connections; default 1024.
        "connections" connections: OrNone<Whole<1, 1_000_000>>,
        /// Requests in flight; default none.
        "requests" requests: OrNone<Whole<1, 1_000_000>>,
    }
    later []
}

section! {
    /// Active checks: an endpoint that fails them gets no requests.
    HealthKeys {
        /// `http`: a GET; `tcp`: a connection can be made; `grpc`: the standard health service answers SERVING. Default:
        /// what `server` stands for when no other key says what is asked, else `http`.
        "kind" kind: CheckKind,
        /// What is asked, with its query; `http` only; default `/`.
        "path" path: CheckPath,
        /// The port asked instead of the endpoint's own.
        "port" port: Whole<1, 65_535>,
        /// Statuses of a healthy endpoint, as in `[200, 400-499]`; `http` only; default 200.
        "status" status: List<Statuses<200, 599>>,
        /// From one check of an endpoint to the next; default 5s.
        "interval" interval: Period<10, HOUR>,
        /// How long one check may take; default 2s.
        "timeout" timeout: Period<1, HOUR>,
        /// Failures in a row after which an endpoint gets no requests; default 3.
        "unhealthy" unhealthy: Whole<1, 1000>,
        /// Successes in a row after which it gets them again; default 1.
        "healthy" healthy: Whole<1, 1000>,
        /// The service asked about; `grpc` only; default: the whole server.
        "service" service: ServiceName,
    }
    later []
}

section! {
    /// Endpoints whose answers fail get no requests for a while.
    OutlierKeys {
        /// Failures in a row: statuses 5xx other than 503 with `Retry-After`, and no answer at all; default 5.
        "consecutive_5xx" consecutive_5xx: Whole<1, 1_000_000>,
        /// How long the first time; each further one in a row lasts as much longer; default 30s.
        "base" base: Period<1, YEAR>,
        /// The longest time; default 300s.
        "max" max: Period<1, YEAR>,
        /// So many endpoints of the cluster are left whatever they answer; default 1.
        "keep_at_least" keep_at_least: Whole<0, 1_000_000>,
        /// An endpoint that is new or back gets its full share after this long; default 0s.
        "slow_start" slow_start: Period<0, YEAR>,
    }
    later []
}
