//! Every key of the file. The first line of a comment is what users read in the JSON Schema.

mod cluster;
mod policy;
mod scale;
mod traffic;

pub use self::cluster::*;
pub use self::policy::*;
pub use self::scale::*;
pub use self::traffic::*;

use http::Method;
use ipnet::IpNet;

use super::section::section;
use super::{
    BodyText, Bytes, CookieName, Dictionary, EditableHeader, FilePath, FormatShape, HeaderText,
    HostName, HostRule, List, ListenAddress, MatchHeader, ModelName, Name, OneOrMany, OrNone,
    PathText, Pattern, Period, PlainText, Priority, RedirectStatus, RewriteHost, RewritePath,
    Scheme, Share, TargetShape, Token, ValueShape, Whole, Yes,
};
use crate::model::{Cutover, EncodedSlash, ListenerProtocol};

/// A year in milliseconds: the longest clock.
const YEAR: u64 = 365 * 86_400_000;
/// An hour in milliseconds.
const HOUR: u64 = 3_600_000;
/// The largest weight.
const WEIGHT: u64 = 1_000_000;

/// A clock that can be switched off.
pub type Clock = OrNone<Period<1, YEAR>>;
/// The weight of a member or an endpoint.
pub type Weight<const MIN: u64> = Whole<MIN, WEIGHT>;

section! {
    /// A configuration of Forebay.
    FileKeys {
        /// The admin API and the probes.
        "admin" admin: AdminKeys,
        /// Worker threads; default: one per available core.
        "workers" workers: Whole<1, 1024>,
        /// How a stop proceeds.
        "drain" drain: DrainKeys,
        /// Resident memory above which load is shed; default: the cgroup's limit, if any.
        "max_memory" max_memory: Bytes<{ 16 << 20 }, { 1 << 50 }>,
        /// What entries of the lists have unless they say otherwise, field by field.
        "defaults" defaults: DefaultsKeys,
        /// Sockets that accept connections; default: one on 127.0.0.1:9900.
        "listeners" listeners: List<ListenerKeys>,
        /// What is done with which requests.
        "routes" routes: List<RouteKeys>,
        /// Groups of interchangeable endpoints.
        "clusters" clusters: List<ClusterKeys>,
        /// Lists of who is let in and who is not, for several routes.
        "access_lists" access_lists: List<AccessListKeys>,
        /// Limits that several routes share.
        "rate_limit_policies" rate_limit_policies: List<RateLimitPolicyKeys>,
        /// Who is known.
        "auth" auth: AuthKeys,
        /// The devices that local processes share, and no others; default: those that the driver reports.
        "gpus" gpus: List<GpuKeys>,
        /// One line per request; default: no access log.
        "access_log" access_log: AccessLogKeys,
    }
    later ["autoscaling", "fleet", "kubernetes", "tracing", "pipelines"]
}

section! {
    /// What entries of the lists have unless they say otherwise. Maps merge field by field, lists replace, `null` switches off.
    DefaultsKeys {
        /// For every route.
        "route" route: RouteKeys,
        /// For every cluster.
        "cluster" cluster: ClusterKeys,
        /// For every listener.
        "listener" listener: ListenerKeys,
    }
    later []
}

section! {
    /// The admin API and the probes.
    AdminKeys {
        /// API and dashboard, default 127.0.0.1:9901. Anywhere but on loopback `token` or `tls` with `client_ca` is required.
        "address" address: ListenAddress,
        /// Probes and metrics only, without a token; off by default.
        "probes" probes: ListenAddress,
        /// Bearer token that the API asks for.
        "token" token: Token,
        /// TLS of the API.
        "tls" tls: ServerTlsKeys,
        /// Names accepted in `Host` besides IP addresses and `localhost`.
        "hosts" hosts: List<HostName>,
    }
    later []
}

section! {
    /// How a stop proceeds.
    DrainKeys {
        /// How long answers still carry `Connection: close` before GOAWAY; default 5s in a pod, else 0s.
        "delay" delay: Period<0, HOUR>,
        /// How long in-flight work may take after `delay`; default 300s.
        "timeout" timeout: Period<0, YEAR>,
    }
    later []
}

section! {
    /// A socket that accepts connections.
    ListenerKeys {
        /// Unique name.
        [required] "name" name: Name,
        /// IP address and port; port 0 lets the kernel choose.
        [required] "address" address: ListenAddress,
        /// `http` (default), or `tcp`: bytes, pumped to the cluster or split of the one route that names this listener.
        "protocol" protocol: ListenerProtocol,
        /// TLS termination.
        "tls" tls: ServerTlsKeys,
        /// PROXY v1/v2 is required, and only taken from `trusted_proxies`; default false.
        "proxy_protocol" proxy_protocol: bool,
        /// Peers whose forwarding headers and request ids are believed, as address blocks; default none.
        "trusted_proxies" trusted_proxies: List<IpNet>,
        /// How paths are made canonical.
        "path" path: PathOptionKeys,
        /// Bounds and deadlines of its connections.
        "limits" limits: LimitKeys,
    }
    later []
}

section! {
    /// TLS of a listener: `certificate` and `key`, or `certificates`. Relative paths are relative to this file.
    ServerTlsKeys {
        /// Certificate chain in PEM, leaf first.
        "certificate" certificate: FilePath,
        /// Private key in PEM.
        "key" key: FilePath,
        /// Several certificates, chosen by SNI; the first is the default.
        "certificates" certificates: List<CertificateKeys>,
        /// PEM bundle; clients must show a certificate signed by it.
        "client_ca" client_ca: FilePath,
    }
    later []
}

section! {
    /// A certificate chain and its key.
    CertificateKeys {
        /// Certificate chain in PEM, leaf first.
        [required] "certificate" certificate: FilePath,
        /// Private key in PEM.
        [required] "key" key: FilePath,
    }
    later []
}

section! {
    /// How paths are made canonical.
    PathOptionKeys {
        /// What `%2F` and `%5C` do: `reject` answers 400, `keep` makes them an opaque part of their segment; default `reject`.
        "encoded_slash" encoded_slash: EncodedSlash,
        /// `//` becomes `/`; default true.
        "merge_slashes" merge_slashes: bool,
    }
    later []
}

section! {
    /// Bounds and deadlines of the connections of a listener.
    LimitKeys {
        /// Open connections; default 10000.
        "connections" connections: Whole<1, 1_000_000>,
        /// Header fields of a request; default 100.
        "headers" headers: Whole<1, 10_000>,
        /// Size of a request's head; default 64KiB.
        "header_bytes" header_bytes: Bytes<{ 8 << 10 }, { 16 << 20 }>,
        /// From the first byte of a connection or request to the end of the head; default 10s.
        "header_timeout" header_timeout: Period<1, HOUR>,
        /// How long a keep-alive connection may be quiet; default 1h.
        "idle" idle: Clock,
        /// A reader who takes less than 16 KiB, or than all that is pending, in this period is cut; default 30s.
        "write_stall" write_stall: Clock,
        /// Concurrent HTTP/2 streams of a connection; default 128.
        "h2_streams" h2_streams: Whole<1, 65_536>,
    }
    later []
}

section! {
    /// What is done with which requests. Has exactly one of `cluster`, `split`, `by_model`, `redirect` and `respond`.
    RouteKeys {
        /// Unique name.
        [required] "name" name: Name,
        /// Names of the listeners it is on; default: every http listener. A tcp listener must be named.
        "listeners" listeners: List<Name>,
        /// One condition, or a list of which any may hold; left out, everything matches.
        "match" matches: OneOrMany<MatchKeys>,
        /// Higher wins before everything else; default 0.
        "priority" priority: Priority,
        /// Forwards to this cluster.
        "cluster" cluster: Name,
        /// Forwards to one of several clusters, by weight.
        "split" split: List<MemberKeys>,
        /// `true`: forwards to the cluster whose `models` name the model that the request asks for.
        "by_model" by_model: Yes,
        /// Answers with a redirect.
        "redirect" redirect: RedirectKeys,
        /// Answers with fixed content.
        "respond" respond: RespondKeys,
        /// When changed weights hold: `at_once` (default), or `ready`: a member gets a larger share only once its cluster has a ready endpoint.
        "cutover" cutover: Cutover,
        /// Where copies of requests go.
        "mirrors" mirrors: List<MirrorKeys>,
        /// What is written down of requests and answers.
        "record" record: RecordKeys,
        /// The clocks.
        "timeouts" timeouts: TimeoutKeys,
        /// Edits of path and host before forwarding.
        "rewrite" rewrite: RewriteKeys,
        /// Edits of the request's headers.
        "request_headers" request_headers: HeaderEditKeys,
        /// Edits of the response's headers.
        "response_headers" response_headers: HeaderEditKeys,
        /// Which requests are tried again; default: only those of which nothing was written.
        "retry" retry: RetryKeys,
        /// Bounds of the request's body, edits of the answer's.
        "body" body: BodyKeys,
        /// Who may send requests; default: everybody.
        "access" access: AccessKeys,
        /// What API keys are for.
        "auth" auth: RouteAuthKeys,
        /// How many requests; all of these limits must admit one.
        "rate_limits" rate_limits: List<RateLimitKeys>,
        /// What sites of other origins may do in a browser; default: the proxy says nothing about it.
        "cors" cors: CorsKeys,
        /// What ties a client to a member of the split; default: every request is rolled anew.
        "sticky" sticky: StickyKeys,
        /// Its requests start replicas; false: at zero they are answered 503. Default true.
        "wake" wake: bool,
    }
    later ["pipeline"]
}

section! {
    /// A condition: everything named in it must hold.
    MatchKeys {
        /// Any of these hosts; `*.example.com` spans any number of labels.
        "hosts" hosts: List<HostRule>,
        /// One condition on the path.
        "path" path: PathMatchKeys,
        /// Any of these methods.
        "methods" methods: List<Method>,
        /// All of these headers.
        "headers" headers: Dictionary<MatchHeader, ValueShape>,
        /// All of these query keys; the first value of a key counts, percent-decoded.
        "query" query: Dictionary<String, ValueShape>,
        /// All of these cookies.
        "cookies" cookies: Dictionary<CookieName, ValueShape>,
        /// The name of the model, in the URL or in the first 64 KiB of the body.
        "model" model: ModelName,
    }
    later []
}

section! {
    /// A condition on the path: exactly one of the three.
    PathMatchKeys {
        /// The whole path.
        "exact" exact: PathText,
        /// Whole segments at the start of the path; a custom verb such as `:predict` may be behind the last of them.
        "prefix" prefix: PathText,
        /// A regular expression that matches the whole path.
        "regex" regex: Pattern,
    }
    later []
}

section! {
    /// A condition on one value: exactly one of the four.
    ValueKeys {
        /// A regular expression that matches the whole value.
        "regex" regex: Pattern,
        /// There, or not there.
        "present" present: bool,
        /// Not equal; an absent value matches.
        "not" not: PlainText,
        /// One of these.
        "in" any: List<PlainText>,
    }
    later []
}

section! {
    /// A member of a split.
    MemberKeys {
        /// Name of a cluster.
        [required] "cluster" cluster: Name,
        /// Its share, relative to the sum of all; 0 takes no new request; default 1.
        "weight" weight: Weight<0>,
        /// Edits of the request's headers, after the route's.
        "request_headers" request_headers: HeaderEditKeys,
        /// Edits of the response's headers, after the route's.
        "response_headers" response_headers: HeaderEditKeys,
    }
    later []
}

section! {
    /// A redirect; what is left out is kept from the request.
    RedirectKeys {
        /// Scheme of the location.
        "scheme" scheme: Scheme,
        /// Host of the location.
        "host" host: HostName,
        /// Port of the location.
        "port" port: Whole<1, 65_535>,
        /// Whole path of the location; the query is kept.
        "path" path: PathText,
        /// 301, 302, 303, 307 or 308; default 302.
        "status" status: RedirectStatus,
    }
    later []
}

section! {
    /// An answer with fixed content.
    RespondKeys {
        /// 200 to 599; default 200.
        "status" status: Whole<200, 599>,
        /// Headers of the answer.
        "headers" headers: Dictionary<EditableHeader, HeaderText>,
        /// Body of the answer; default empty.
        "body" body: BodyText,
    }
    later []
}

section! {
    /// The clocks of a route; each can be `none`.
    TimeoutKeys {
        /// Per attempt, from the last request byte handed upstream to the head of the response; default 300s.
        "first_byte" first_byte: Clock,
        /// No byte in either direction after dispatch; default 300s.
        "idle" idle: Clock,
        /// Longest gap between the client's bytes while they are awaited; default 300s.
        "request_body" request_body: Clock,
        /// From the head to the last byte, waiting included; default none.
        "total" total: Clock,
        /// How long an upgraded or TCP connection may be quiet; default 1h.
        "tunnel" tunnel: Clock,
    }
    later []
}

section! {
    /// Edits of path and host before forwarding; at most one of `prefix`, `path` and `regex`.
    RewriteKeys {
        /// The matched prefix becomes this; a custom verb stays behind it.
        "prefix" prefix: RewritePath,
        /// The whole path becomes this; the query is kept.
        "path" path: RewritePath,
        /// Matches of an expression in the path are replaced.
        "regex" regex: ReplaceKeys,
        /// What `Host` becomes.
        "host" host: RewriteHost,
    }
    later []
}

section! {
    /// A replacement of every match of an expression.
    ReplaceKeys {
        /// What is looked for.
        [required] "find" find: Pattern,
        /// What replaces it; `$1` and `${name}` stand for groups.
        [required] "with" with: PlainText,
    }
    later []
}

section! {
    /// Edits of headers, in this order: remove, set, add.
    HeaderEditKeys {
        /// Replaces all values of a header.
        "set" set: Dictionary<EditableHeader, HeaderText>,
        /// Appends a value to a header.
        "add" add: Dictionary<EditableHeader, HeaderText>,
        /// Removes all values of a header.
        "remove" remove: List<EditableHeader>,
    }
    later []
}

section! {
    /// One line per request.
    AccessLogKeys {
        /// `stdout` (default), `stderr` or a file.
        "path" path: TargetShape,
        /// `json` (default), or an Envoy format string.
        "format" format: FormatShape,
        /// Share of requests that are logged; errors and slow ones always are; default 100%.
        "sample" sample: Share,
        /// Requests at least this long are always logged; default 1s.
        "slow" slow: OrNone<Period<0, YEAR>>,
    }
    later []
}
