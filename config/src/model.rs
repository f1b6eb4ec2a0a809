//! The configuration as it is legal: every value checked by its type, every name resolved.
//!
//! Nothing past this point checks a weight or a name again.

mod cluster;
mod health;
mod mirror;
mod policy;
mod scale;
mod server_kind;
mod traffic;

pub use self::cluster::*;
pub use self::health::*;
pub use self::mirror::*;
pub use self::policy::*;
pub use self::scale::*;
pub use self::traffic::*;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Position {
    /// The file as it was named on the command line or found in a directory.
    pub file: Arc<str>,
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
}

/// Everything the operator said, in file order.
#[derive(Clone, Debug)]
pub struct Config {
    /// The admin API and the probes.
    pub admin: Admin,
    /// Worker threads; `None`: one per available core.
    pub workers: Option<NonZeroU32>,
    /// How a stop proceeds.
    pub drain: Drain,
    /// Bytes of resident memory above which load is shed; `None`: the cgroup's limit, if any.
    pub max_memory: Option<u64>,
    /// At least one; names unique.
    pub listeners: Vec<Arc<Listener>>,
    /// Names unique. File order is the last tie-break of matching.
    pub routes: Vec<Arc<Route>>,
    /// Names unique.
    pub clusters: Vec<Arc<Cluster>>,
    /// Names unique. Access lists are not here: they are merged into the routes that name them.
    pub rate_limit_policies: Vec<Arc<RateLimitPolicy>>,
    /// Who is known.
    pub auth: Auth,
    /// The devices that local processes share, indices unique; empty: those that the driver reports.
    pub gpus: Vec<Gpu>,
    /// `None`: no access log.
    pub access_log: Option<AccessLog>,
}

/// `admin:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// API and dashboard, default `127.0.0.1:9901`. Not loopback: `token` or `tls` with a client CA is set.
    pub address: SocketAddr,
    /// Probes and metrics only, off by default.
    pub probes: Option<SocketAddr>,
    /// Bearer token that the API asks for.
    pub token: Option<Secret>,
    /// TLS for `address`.
    pub tls: Option<ServerTls>,
    /// Names accepted in `Host` besides IP literals and `localhost`, lower case.
    pub hosts: Vec<String>,
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `drain:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long answers still carry `Connection: close` before GOAWAY; `None`: 5 s in a pod, else 0 s.
    pub delay: Option<Duration>,
    /// How long in-flight work may take after `delay`; default 300 s.
    pub timeout: Duration,
}

/// One entry of `listeners:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique.
    pub name: String,
    /// Where it listens; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// TLS termination.
    pub tls: Option<ServerTls>,
    /// PROXY v1/v2 is required, and only taken from `trusted_proxies`.
    pub proxy_protocol: bool,
    /// Peers whose forwarding headers and request ids are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How paths are canonicalised.
    pub path: PathOptions,
    /// Bounds and deadlines of its connections.
    pub limits: Limits,
    /// Where it was written.
    pub position: Position,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// Bytes, pumped to the cluster or split of the one route that names this listener.
    Tcp,
}

/// TLS of a listener. Paths are absolute or relative to the working directory: already joined to the file's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// At least one; chosen by SNI, the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// PEM bundle; clients must show a certificate signed by it.
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `path:` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathOptions {
    /// What `%2F` and `%5C` do.
    pub encoded_slash: EncodedSlash,
    /// `//` becomes `/`; default true.
    pub merge_slashes: bool,
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            encoded_slash: EncodedSlash::Reject,
            merge_slashes: true,
        }
    }
}

/// What an escaped slash or backslash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400 `bad_path`.
    Reject,
    /// An opaque byte of its segment, never decoded.
    Keep,
}

/// `limits:` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; default 10 000.
    pub connections: u32,
    /// Header fields of a request; default 100.
    pub headers: u32,
    /// Bytes of a request head; default 64 KiB.
    pub header_bytes: u32,
    /// From the first byte of a connection or request to the end of the head; default 10 s.
    pub header_timeout: Duration,
    /// Quiet keep-alive connection; default 1 h, `None` never.
    pub idle: Option<Duration>,
    /// A reader who takes less than 16 KiB, or than all that is pending, in this period is cut; default 30 s.
    pub write_stall: Option<Duration>,
    /// Concurrent HTTP/2 streams of a connection; default 128.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            headers: 100,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            idle: Some(Duration::from_secs(3600)),
            write_stall: Some(Duration::from_secs(30)),
            h2_streams: 128,
        }
    }
}

/// One entry of `routes:`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique.
    pub name: String,
    /// Names of the listeners it is on; empty: every http listener. A tcp listener must be named.
    pub listeners: Vec<String>,
    /// Any of them may match; empty: everything matches.
    pub matches: Vec<Match>,
    /// Higher wins before everything else.
    pub priority: i32,
    /// What is done with a request.
    pub action: Action,
    /// The clocks.
    pub timeouts: Timeouts,
    /// Edits of path and host before forwarding.
    pub rewrite: Rewrite,
    /// Edits of the request's headers.
    pub request_headers: HeaderEdits,
    /// Edits of the response's headers.
    pub response_headers: HeaderEdits,
    /// Largest request body in bytes; `None`: no bound.
    pub body_max: Option<u64>,
    /// Who may send requests; `None`: everybody.
    pub access: Option<Access>,
    /// What API keys are for.
    pub auth: RouteAuth,
    /// All of them must admit a request, in this order.
    pub rate_limits: Vec<RateLimit>,
    /// What sites of other origins may do; `None`: the proxy says nothing about it.
    pub cors: Option<Cors>,
    /// What ties a client to a member of the split; `None`: every request is rolled anew.
    pub sticky: Option<Sticky>,
    /// When new weights of the split hold.
    pub cutover: Cutover,
    /// Names unique.
    pub mirrors: Vec<Mirror>,
    /// What is written down of requests and answers.
    pub record: Option<Recording>,
    /// Which requests are tried again; `None`: only those of which nothing was written.
    pub retry: Option<Retry>,
    /// Edits of the answer's body, the first of those that match at a place counts.
    pub replace: Vec<Replace>,
    /// Its requests start replicas; false: at zero they are answered 503. Default true.
    pub wake: bool,
    /// Where it was written.
    pub position: Position,
}

/// A conjunction of conditions. Empty lists and `None` match everything.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Any of them.
    pub hosts: Vec<HostPattern>,
    /// One path condition.
    pub path: Option<PathMatch>,
    /// Any of them.
    pub methods: Vec<Method>,
    /// All of them.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// All of them; the first value of a key counts, percent-decoded.
    pub query: Vec<(String, ValueMatch)>,
    /// All of them.
    pub cookies: Vec<(String, ValueMatch)>,
    /// The name of a model, in the URL or the body as the server kinds of the route's clusters have it.
    pub model: Option<String>,
    /// Where it was written.
    pub position: Option<Position>,
}

/// A host, canonical: lower case, no port, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `a.example.com` or an IP literal (IPv6 in brackets).
    Exact(String),
    /// `*.example.com`, held as `.example.com`: any number of labels in front, at least one.
    Suffix(String),
}

/// A condition on the canonical path.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments; a custom verb, `:` and what follows it up to the end of the path, may be behind the last of them:
    /// `/v1/models/m` matches itself, `/v1/models/m/versions/1` and `/v1/models/m:predict`, but neither `/v1/models/m2`
    /// nor `/v1/models/m:a/b`. Held without a trailing slash except for `/` itself, which is held as the empty string.
    Prefix(String),
    /// Matches the whole path; compiled anchored.
    Regex(Regex),
}

/// A condition on one value.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// Equal.
    Exact(String),
    /// The whole value, unless the expression was written with an anchor of its own: `^curl` is a prefix.
    Regex(Regex),
    /// There, or not there.
    Present(bool),
    /// Not equal; an absent value matches.
    Not(String),
    /// One of them.
    In(Vec<String>),
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Forwards to one member by weight; at least one member, the sum of weights > 0 and ≤ `u32::MAX`.
    /// `cluster: NAME` is a split of one.
    Forward(Vec<Member>),
    /// Forwards to the cluster whose `models` name what the request asks for. At least one cluster has `models`, and no
    /// name is in two of them.
    ByModel,
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers with fixed content.
    Respond(Respond),
}

/// One member of a split.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name of a cluster of this configuration.
    pub cluster: String,
    /// 0 … 1 000 000; 0 takes no new request.
    pub weight: u32,
    /// Applied after the route's.
    pub request_headers: HeaderEdits,
    /// Applied after the route's.
    pub response_headers: HeaderEdits,
}

/// `redirect:`. What is `None` is kept from the request.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host of the location.
    pub host: Option<String>,
    /// Port of the location; the scheme's own port is left out.
    pub port: Option<u16>,
    /// Whole path; the query is kept.
    pub path: Option<String>,
    /// 301, 302, 303, 307 or 308; default 302.
    pub status: StatusCode,
}

/// `respond:`.
#[derive(Clone, Debug)]
pub struct Respond {
    /// 200 … 599; default 200.
    pub status: StatusCode,
    /// Sent as they are.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Default empty.
    pub body: String,
}

/// The clocks of a route; `None`: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Per attempt, from the last request byte handed upstream to the response head; default 300 s.
    pub first_byte: Option<Duration>,
    /// No byte in either direction after dispatch; default 300 s.
    pub idle: Option<Duration>,
    /// Longest gap between client bytes while we are ready to read; default 300 s.
    pub request_body: Option<Duration>,
    /// Head to last byte, waiting included; default none.
    pub total: Option<Duration>,
    /// Quiet upgraded or TCP connection; default 1 h.
    pub tunnel: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let five_minutes = Some(Duration::from_secs(300));
        Self {
            first_byte: five_minutes,
            idle: five_minutes,
            request_body: five_minutes,
            total: None,
            tunnel: Some(Duration::from_secs(3600)),
        }
    }
}

/// `rewrite:`.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// How the path changes.
    pub path: Option<PathRewrite>,
    /// What `Host` becomes.
    pub host: Option<HeaderValue>,
}

/// How a path changes. The query is kept.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// The matched prefix becomes this; whole segments, as Gateway API's ReplacePrefixMatch. A custom verb stays behind it.
    Prefix(String),
    /// The whole path becomes this.
    Path(String),
    /// Every match of the expression in the path is replaced; `$1` names groups.
    Regex {
        /// What is looked for.
        find: Regex,
        /// What replaces it.
        with: String,
    },
}

/// Edits of a header map, applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces all values of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appends a value.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes all values of the name.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// `access_log:`.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub target: LogTarget,
    /// How a line looks.
    pub format: LogFormat,
    /// Share of requests, in millionths; errors and slow ones are always kept. Default 1 000 000.
    pub sample: u32,
    /// Requests at least this long are always kept; `None`: duration does not matter. Default 1 s.
    pub slow: Option<Duration>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended; reopened on SIGHUP.
    File(PathBuf),
}

/// How a line looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Envoy's format string, checked when loaded.
    Envoy(String),
}
