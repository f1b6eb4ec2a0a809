//! Who may send what and how much of it: access, API keys, limits, CORS, sticky splits.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{Position, ValueMatch};
use crate::pointer::Pointer;
use crate::units::Rate;

/// `access:` of a route, with the named list merged in: the list's entries first, then the route's own. Deny wins.
#[derive(Clone, Debug)]
pub struct Access {
    /// Name of the list that was merged in, for what is shown.
    pub list: Option<String>,
    /// Any of them refuses the request.
    pub deny: Vec<AccessEntry>,
    /// Any of them lets the request in, and nothing else does; empty: nobody. `None`: all that is not denied comes in.
    pub allow: Option<Vec<AccessEntry>>,
    /// Refusals are only counted and logged; default false.
    pub dry_run: bool,
    /// Where `access` was written.
    pub position: Position,
}

/// What an access list can hold.
#[derive(Clone, Debug)]
pub enum AccessEntry {
    /// Clients in this block. An IPv4 block written as mapped IPv6 is held as IPv4; host bits are zero.
    Net(IpNet),
    /// Requests for which all of these hold; at least one.
    Headers(Vec<(HeaderName, ValueMatch)>),
    /// One address or block per line, `#` starts a comment. Joined to the directory of the configuration.
    File(PathBuf),
}

/// `auth:` at the top level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Known API keys; `None`: no request has an identity.
    pub api_keys: Option<ApiKeys>,
}

/// `auth.api_keys:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeys {
    /// Lines `NAME sha256:HEX`, the hash of the key; joined to the directory of the configuration.
    pub file: PathBuf,
    /// Where it was written.
    pub position: Position,
}

/// `auth:` of a route. Default: nothing is required, a known key is still removed and gives the identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteAuth {
    /// A request without a known key is answered 401; then [`Auth::api_keys`] is set. Default false.
    pub required: bool,
    /// The key is forwarded upstream; default false.
    pub keep_key: bool,
}

/// One entry of `rate_limit_policies:`. All routes that name it share its buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitPolicy {
    /// Unique.
    pub name: String,
    /// The limit.
    pub rule: LimitRule,
    /// Every limit that names it only counts and logs; default false.
    pub dry_run: bool,
    /// Where it was written.
    pub position: Position,
}

/// One entry of `rate_limits:` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Unique within its route; by default the kind (`rate`, `concurrent` or `policy`), `-`, and its number among the
    /// limits of that kind in this route, from 1.
    pub name: String,
    /// Whose buckets, and how many requests.
    pub source: LimitSource,
    /// Refusals are only counted and logged; the policy's own `dry_run` is included. Default false.
    pub dry_run: bool,
    /// Where it was written.
    pub position: Position,
}

impl RateLimit {
    /// Returns the limit itself, which a named policy holds for several routes.
    pub fn rule(&self) -> &LimitRule {
        match &self.source {
            LimitSource::Own(rule) => rule,
            LimitSource::Policy(policy) => &policy.rule,
        }
    }
}

/// Where the buckets of a limit are.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitSource {
    /// The route's own, known by route and name.
    Own(LimitRule),
    /// Those of a policy, known by its name.
    Policy(Arc<RateLimitPolicy>),
}

/// How many requests of which kind.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRule {
    /// How many.
    pub bound: Bound,
    /// What has a bucket of its own.
    pub per: LimitKey,
    /// What happens to a request that has no key; matters for `Identity`, `Header` and `Cookie` only.
    pub missing: MissingKey,
}

/// The number of a limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// Requests per time, by GCRA.
    Rate(PerKey<Quota>),
    /// Requests at once, from admission to the client's last byte.
    Concurrent(PerKey<NonZeroU32>),
}

/// A value that some keys have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerKey<T> {
    /// For every key that is not listed.
    pub general: T,
    /// For these keys; always empty for [`LimitKey::Route`]. A key of `ClientIp` is the address as `Display` writes it,
    /// IPv6 as the first address of its /64, IPv4 mapped into IPv6 as IPv4.
    pub overrides: BTreeMap<String, T>,
}

impl<T> PerKey<T> {
    /// Returns the value of a key.
    pub fn of(&self, key: &str) -> &T {
        self.overrides.get(key).unwrap_or(&self.general)
    }
}

/// A rate and how far it may be exceeded at once. A full bucket takes at most one year to fill, so that
/// `burst × rate.interval()` never overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How often in the long run; at most 10 000 000 per second.
    pub rate: Rate,
    /// How many at once; at most 10 000 000. Default: the requests of one second, rounded up. Of an override: the
    /// limit's own burst in proportion, where that is written.
    pub burst: NonZeroU32,
}

/// What has a bucket of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// Nothing: one bucket for all requests of the route, or of all routes that name the policy.
    #[default]
    Route,
    /// The client's address; IPv6 by /64.
    ClientIp,
    /// The name that the API key has; [`Auth::api_keys`] is set.
    Identity,
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// A field of the JSON body, within its first 64 KiB: a string, number or boolean.
    Json(Pointer),
}

/// What happens to a request without the key of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// All of them share one bucket.
    #[default]
    Shared,
    /// It is refused.
    Refuse,
    /// The limit does not hold for it.
    Skip,
}

/// `cors:` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Sites that may read answers; not empty. `Any` with `credentials` is every site, named by its origin since `*` does
    /// not hold then; loading warns about it.
    pub origins: AnyOf<Origin>,
    /// Methods besides those that need no permission; default GET and POST.
    pub methods: AnyOf<Method>,
    /// Request headers; default any.
    pub headers: AnyOf<HeaderName>,
    /// Response headers that the site may read; default none. `*` among names is sent as it is.
    pub expose: AnyOf<HeaderName>,
    /// Requests may carry cookies and client certificates; default false.
    pub credentials: bool,
    /// How long browsers may keep the answer to a preflight; whole seconds, default 5 min.
    pub max_age: Duration,
}

/// A list, or everything: `["*"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyOf<T> {
    /// Everything.
    Any,
    /// These.
    Only(Vec<T>),
}

/// A site, as browsers write it: lower case, without the default port of its scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `https://app.example.com:8443`, or `null`.
    Exact(String),
    /// `https://*.example.com`: any number of labels in front, at least one.
    Suffix {
        /// With its slashes: `https://`.
        scheme: String,
        /// From the dot on, with the port if one is written: `.example.com`.
        suffix: String,
    },
}

impl Origin {
    /// True when the value of an `Origin` header is this site.
    pub fn is(&self, origin: &str) -> bool {
        match self {
            Self::Exact(site) => site == origin,
            Self::Suffix { scheme, suffix } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(suffix.as_str()))
                .is_some_and(|front| !front.is_empty() && !front.contains(['/', ':', '@'])),
        }
    }
}

/// `sticky:` of a route: requests with the same key go to the same member of the split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Value of a request header; without it, random.
    Header(HeaderName),
    /// A random value in a cookie that the proxy issues.
    Cookie {
        /// Name of the cookie.
        name: String,
        /// `Max-Age`, whole seconds, at least 1; `None`: until the browser is closed.
        ttl: Option<Duration>,
    },
    /// The client's address.
    ClientIp,
    /// A field of the JSON body, within its first 64 KiB: a string, number or boolean; without it, random.
    Json(Pointer),
}
