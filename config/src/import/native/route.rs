//! Routes: conditions, action, edits.

use super::part::{map, part, push};
use super::{Access, Cors, Mirror, Pairs, Part, RateLimit, Replace, Retry, Sticky};
use crate::import::Leaf;
use crate::model::Position;
use crate::node::{Entry, Node, Value};

/// How a route stands to those of other routes that match the same request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The native rules, most specific first; routes that are equal by them in the order they were added. Gateway API
    /// and plain Ingress paths.
    #[default]
    Native,
    /// Within a host the route that was added first wins, whatever is more specific; hosts themselves go by the native
    /// rules. Istio. `priority` is set where the native rules would decide otherwise.
    FirstMatch,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it was written: what `explain` shows.
    pub at: Position,
    /// Its name; see [`Work::name`](crate::import::Work::name). A number is put behind it where it is taken.
    pub name: Leaf,
    /// Names of listeners; empty: all http listeners.
    pub listeners: Vec<Leaf>,
    /// Any of them; empty: every request.
    pub matches: Vec<Match>,
    /// How it stands to other routes; decides `priority`.
    pub order: Order,
    /// What is done.
    pub action: Action,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// The clocks.
    pub timeouts: Timeouts,
    /// Further attempts.
    pub retry: Option<Retry>,
    /// Edits of path and host.
    pub rewrite: Rewrite,
    /// Edits of the request's headers.
    pub request_headers: Edits,
    /// Edits of the response's headers.
    pub response_headers: Edits,
    /// Browser rules.
    pub cors: Option<Cors>,
    /// Who may send requests.
    pub access: Option<Access>,
    /// API keys are required when true.
    pub auth: Option<Auth>,
    /// How many requests.
    pub rate_limits: Vec<RateLimit>,
    /// What ties a client to a member.
    pub sticky: Option<Sticky>,
    /// Bounds and edits of bodies.
    pub body: Body,
    /// False: its requests start nothing.
    pub wake: Option<Leaf>,
}

impl Route {
    /// Makes a route that matches everything.
    pub fn new(at: &Position, name: Leaf, action: Action) -> Self {
        Self {
            at: at.clone(),
            name,
            listeners: Vec::new(),
            matches: Vec::new(),
            order: Order::Native,
            action,
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            rewrite: Rewrite::default(),
            request_headers: Edits::default(),
            response_headers: Edits::default(),
            cors: None,
            access: None,
            auth: None,
            rate_limits: Vec::new(),
            sticky: None,
            body: Body::default(),
            wake: None,
        }
    }

    /// Makes the node; `priority` 0 is left out.
    pub(in crate::import) fn node(&self, priority: i32) -> Node {
        let at = &self.at;
        let mut entries: Vec<Entry> = Vec::new();
        let mut put = |key: &str, value: Option<Node>| push(&mut entries, key, value);
        put("name", self.name.part(at));
        put("listeners", self.listeners.part(at));
        match self.matches.as_slice() {
            [one] => put("match", one.part(at)),
            _ => put("match", self.matches.part(at)),
        }
        let ranked = (priority != 0).then(|| Leaf::number(at, priority));
        put("priority", ranked.part(at));
        let (key, action) = self.action.node(at);
        put(key, Some(action));
        put("mirrors", self.mirrors.part(at));
        put("sticky", self.sticky.part(at));
        put("access", self.access.part(at));
        put("auth", self.auth.part(at));
        put("rate_limits", self.rate_limits.part(at));
        put("timeouts", self.timeouts.part(at));
        put("retry", self.retry.part(at));
        put("rewrite", self.rewrite.part(at));
        put("request_headers", self.request_headers.part(at));
        put("response_headers", self.response_headers.part(at));
        put("cors", self.cors.part(at));
        put("body", self.body.part(at));
        put("wake", self.wake.part(at));
        Node {
            position: at.clone(),
            value: Value::Map(entries),
        }
    }
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Forwards to a cluster.
    Cluster(Leaf),
    /// Forwards to one of several clusters.
    Split(Vec<Member>),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Answers with fixed content.
    Respond(Box<Respond>),
    /// Forwards to the cluster that has the model.
    ByModel(Leaf),
}

impl Action {
    fn node(&self, at: &Position) -> (&'static str, Node) {
        match self {
            Self::Cluster(name) => ("cluster", name.node()),
            Self::Split(members) => ("split", members.whole(at)),
            Self::Redirect(redirect) => ("redirect", redirect.whole(at)),
            Self::Respond(respond) => ("respond", respond.whole(at)),
            Self::ByModel(flag) => ("by_model", flag.node()),
        }
    }
}

part! {
    /// A conjunction of conditions. A condition that cannot be expressed must drop the match, never just itself: the
    /// rest would match more requests than was meant.
    Match {
        /// Any of these, lower case; `*.a.b` spans any number of labels. Empty: any host.
        hosts: Vec<Leaf> = "hosts",
        /// On the path.
        path: Option<PathRule> = "path",
        /// Any of these.
        methods: Vec<Leaf> = "methods",
        /// All of these; names in lower case.
        headers: Pairs<ValueRule> = "headers",
        /// All of these.
        query: Pairs<ValueRule> = "query",
        /// All of these.
        cookies: Pairs<ValueRule> = "cookies",
        /// The model asked for.
        model: Option<Leaf> = "model",
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRule {
    /// The whole path.
    Exact(Leaf),
    /// Whole segments at its start.
    Prefix(Leaf),
    /// A regular expression that matches the whole path.
    Regex(Leaf),
}

impl Part for PathRule {
    fn part(&self, _: &Position) -> Option<Node> {
        let (key, leaf) = match self {
            Self::Exact(leaf) => ("exact", leaf),
            Self::Prefix(leaf) => ("prefix", leaf),
            Self::Regex(leaf) => ("regex", leaf),
        };
        Some(map(leaf.at(), [(key, Some(leaf.node()))]))
    }
}

/// A condition on one value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueRule {
    /// Equal.
    Equals(Leaf),
    /// A regular expression that matches the whole value.
    Regex(Leaf),
    /// There, or not there.
    Present(Leaf),
    /// Not equal; an absent value matches.
    Not(Leaf),
    /// One of these.
    In(Vec<Leaf>),
}

impl Part for ValueRule {
    fn part(&self, at: &Position) -> Option<Node> {
        let (key, leaf) = match self {
            Self::Equals(leaf) => return Some(leaf.with(leaf.as_str()).node()),
            Self::In(leaves) => return Some(map(at, [("in", Some(leaves.whole(at)))])),
            Self::Regex(leaf) => ("regex", leaf),
            Self::Present(leaf) => ("present", leaf),
            Self::Not(leaf) => ("not", leaf),
        };
        Some(map(leaf.at(), [(key, Some(leaf.node()))]))
    }
}

part! {
    /// A member of a split.
    Member {
        /// Name of a cluster.
        cluster: Option<Leaf> = "cluster",
        /// Its share, 0 … 1 000 000; default 1.
        weight: Option<Leaf> = "weight",
        /// Edits of the request's headers, after the route's.
        request_headers: Edits = "request_headers",
        /// Edits of the response's headers, after the route's.
        response_headers: Edits = "response_headers",
    }
}

part! {
    /// A redirect; what is left out is kept from the request.
    Redirect {
        /// `http` or `https`.
        scheme: Option<Leaf> = "scheme",
        /// Host of the location.
        host: Option<Leaf> = "host",
        /// Port of the location.
        port: Option<Leaf> = "port",
        /// Whole path of the location.
        path: Option<Leaf> = "path",
        /// 301, 302, 303, 307 or 308; default 302.
        status: Option<Leaf> = "status",
    }
}

part! {
    /// An answer with fixed content.
    Respond {
        /// 200 … 599; default 200.
        status: Option<Leaf> = "status",
        /// Headers of the answer.
        headers: Pairs<Leaf> = "headers",
        /// Body of the answer.
        body: Option<Leaf> = "body",
    }
}

part! {
    /// The clocks of a route, as in `300s`; `none` switches one off. See [`Leaf`] and
    /// [`duration`](crate::import::duration).
    Timeouts {
        /// Per attempt, to the head of the response.
        first_byte: Option<Leaf> = "first_byte",
        /// No byte in either direction.
        idle: Option<Leaf> = "idle",
        /// Longest gap between the client's bytes.
        request_body: Option<Leaf> = "request_body",
        /// From the head to the last byte.
        total: Option<Leaf> = "total",
        /// How long an upgraded or TCP connection may be quiet.
        tunnel: Option<Leaf> = "tunnel",
    }
}

part! {
    /// Edits of path and host; at most one of `prefix`, `path` and `regex`.
    Rewrite {
        /// The matched prefix becomes this.
        prefix: Option<Leaf> = "prefix",
        /// The whole path becomes this.
        path: Option<Leaf> = "path",
        /// Matches of an expression are replaced.
        regex: Option<RegexRewrite> = "regex",
        /// What `Host` becomes.
        host: Option<Leaf> = "host",
    }
}

part! {
    /// A replacement of every match of an expression.
    RegexRewrite {
        /// What is looked for.
        find: Option<Leaf> = "find",
        /// What replaces it; `$1` and `${name}` stand for groups.
        with: Option<Leaf> = "with",
    }
}

part! {
    /// Edits of headers, in this order: remove, set, add.
    Edits {
        /// Replaces all values of a header.
        set: Pairs<Leaf> = "set",
        /// Appends a value to a header.
        add: Pairs<Leaf> = "add",
        /// Removes all values of a header.
        remove: Vec<Leaf> = "remove",
    }
}

part! {
    /// Bounds of the request's body, edits of the answer's.
    Body {
        /// Largest request body, as in `64MiB`.
        max: Option<Leaf> = "max",
        /// Texts that are replaced in answers.
        replace: Vec<Replace> = "replace",
    }
}

part! {
    /// What API keys are for.
    Auth {
        /// 401 without a known key.
        required: Option<Leaf> = "required",
        /// The key is forwarded.
        keep_key: Option<Leaf> = "keep_key",
    }
}
