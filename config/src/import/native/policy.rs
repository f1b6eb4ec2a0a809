//! Policies of routes: who may send how much, copies, further attempts, browser rules.

use super::part::{map, part};
use super::{Edits, Pairs, Part, ValueRule};
use crate::import::Leaf;
use crate::model::Position;
use crate::node::Node;

part! {
    /// A copy of requests.
    Mirror {
        /// Unique in its route; default: the cluster's name.
        name: Option<Leaf> = "name",
        /// Name of a cluster.
        cluster: Option<Leaf> = "cluster",
        /// Share of requests, as in `12.5%`; default all.
        sample: Option<Leaf> = "sample",
        /// From the start of a copy to the last byte of its answer.
        timeout: Option<Leaf> = "timeout",
        /// Copies wake their cluster.
        demand: Option<Leaf> = "demand",
        /// Edits of the copy's headers.
        request_headers: Edits = "request_headers",
    }
}

part! {
    /// Which requests are tried again.
    Retry {
        /// Attempts after the first.
        attempts: Option<Leaf> = "attempts",
        /// `connect`, `refused`, `reset`, statuses.
        when: Option<Vec<Leaf>> = "when",
        /// Whose requests may be done twice.
        methods: Option<Methods> = "methods",
        /// How long one attempt may take.
        per_try: Option<Leaf> = "per_try",
        /// Kept of a body to be sent again.
        max_body: Option<Leaf> = "max_body",
        /// Share of the requests in flight that may be retries.
        budget: Option<Leaf> = "budget",
    }
}

/// Whose requests may be done twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Methods {
    /// `idempotent` or `all`.
    Word(Leaf),
    /// These methods.
    Only(Vec<Leaf>),
}

impl Part for Methods {
    fn part(&self, at: &Position) -> Option<Node> {
        match self {
            Self::Word(word) => word.part(at),
            Self::Only(methods) => Some(methods.whole(at)),
        }
    }
}

part! {
    /// What sites of other origins may do in a browser.
    Cors {
        /// Sites, or `*`.
        origins: Option<Vec<Leaf>> = "origins",
        /// Methods.
        methods: Option<Vec<Leaf>> = "methods",
        /// Request headers, or `*`.
        headers: Option<Vec<Leaf>> = "headers",
        /// Response headers that the site may read.
        expose: Option<Vec<Leaf>> = "expose",
        /// With cookies.
        credentials: Option<Leaf> = "credentials",
        /// How long browsers keep the answer to a preflight.
        max_age: Option<Leaf> = "max_age",
    }
}

part! {
    /// Who may send requests. `Some` of an empty `allow` lets nobody in.
    Access {
        /// Refused, first.
        deny: Option<Vec<AccessRule>> = "deny",
        /// Let in; then nobody else is.
        allow: Option<Vec<AccessRule>> = "allow",
    }
}

/// An entry of an access list.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessRule {
    /// An address or a block.
    Net(Leaf),
    /// Requests with all of these headers.
    Headers(Pairs<ValueRule>),
}

impl Part for AccessRule {
    fn part(&self, at: &Position) -> Option<Node> {
        match self {
            Self::Net(net) => net.part(at),
            Self::Headers(headers) => Some(map(at, [("header", headers.part(at))])),
        }
    }
}

part! {
    /// A limit whose buckets are those of all routes that name it: `rate` or `concurrent`.
    RateLimitPolicy {
        /// Unique name.
        name: Option<Leaf> = "name",
        /// Requests per time, as in `100/s`.
        rate: Option<Leaf> = "rate",
        /// How many may come at once.
        burst: Option<Leaf> = "burst",
        /// Requests at the same time.
        concurrent: Option<Leaf> = "concurrent",
        /// What has a bucket of its own; default: nothing.
        per: Option<Key> = "per",
    }
}

part! {
    /// A limit of a route: `rate`, `concurrent` or `policy`.
    RateLimit {
        /// Unique in its route.
        name: Option<Leaf> = "name",
        /// Name of a [`RateLimitPolicy`] in [`Output::limits`](crate::import::Output::limits).
        policy: Option<Leaf> = "policy",
        /// Requests per time, as in `100/s`.
        rate: Option<Leaf> = "rate",
        /// How many may come at once.
        burst: Option<Leaf> = "burst",
        /// Requests at the same time.
        concurrent: Option<Leaf> = "concurrent",
        /// What has a bucket of its own; default: the route.
        per: Option<Key> = "per",
        /// What a request without the key is: `shared`, `refuse` or `skip`.
        missing: Option<Leaf> = "missing",
    }
}

/// A property of a request: what has a bucket of its own, what a hash is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// `route`, `client_ip` or `identity`.
    Word(Leaf),
    /// The value of a header.
    Header(Leaf),
    /// The value of a cookie.
    Cookie(Leaf),
}

impl Part for Key {
    fn part(&self, at: &Position) -> Option<Node> {
        Some(match self {
            Self::Word(word) => word.node(),
            Self::Header(name) => map(at, [("header", Some(name.node()))]),
            Self::Cookie(name) => map(at, [("cookie", Some(name.node()))]),
        })
    }
}

/// What ties a client to a member of a split.
#[derive(Clone, Debug, PartialEq)]
pub enum Sticky {
    /// Value of a request header.
    Header(Leaf),
    /// A cookie that the proxy issues, and how long browsers keep it.
    Cookie(Leaf, Option<Leaf>),
    /// The client's address.
    ClientIp,
}

impl Part for Sticky {
    fn part(&self, at: &Position) -> Option<Node> {
        Some(match self {
            Self::Header(name) => map(at, [("header", Some(name.node()))]),
            Self::Cookie(name, ttl) => {
                let keys = [("name", Some(name.node())), ("ttl", ttl.part(at))];
                map(at, [("cookie", Some(map(name.at(), keys)))])
            }
            Self::ClientIp => map(at, [("client_ip", Some(Leaf::flag(at, true).node()))]),
        })
    }
}

part! {
    /// A text that is replaced in answers.
    Replace {
        /// What is looked for.
        find: Option<Leaf> = "find",
        /// What stands there instead.
        with: Option<Leaf> = "with",
        /// Media types it is done in.
        types: Option<Vec<Leaf>> = "types",
        /// Only the first time.
        once: Option<Leaf> = "once",
        /// ASCII letters match in either case.
        ignore_case: Option<Leaf> = "ignore_case",
    }
}
