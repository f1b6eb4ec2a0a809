//! One `match` entry, compiled: what it asks of a request besides being found by host and path.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method};

use super::{ModelName, RequestHead};
use crate::model::{HostPattern, Match, PathMatch, ValueMatch};

/// One entry of a route's `match` list.
#[derive(Clone, Debug)]
pub struct CompiledMatch {
    route: u32,
    entry: u32,
    priority: i32,
    counts: (u32, u32), // headers and cookies, query keys
    has_model: bool,
    hosts: Box<[HostPattern]>,
    path: Option<PathMatch>,
    methods: Box<[Method]>,
    conditions: Box<[Condition]>,
}

/// A condition on one value of the request.
#[derive(Clone, Debug)]
pub enum Condition {
    /// On a field; several lines of it are one value, joined by a comma as Envoy does (`cookie`: by `; `).
    Header(HeaderName, ValueMatch),
    /// On a cookie, the first of that name in all `Cookie` fields, without surrounding quotes.
    Cookie(String, ValueMatch),
    /// On a query key, its first value, percent-decoded, `+` read as a space.
    Query(String, ValueMatch),
    /// On the name of the model; equal as a whole, in the same case.
    Model(String),
}

/// The first condition that a request fails.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    /// None of these.
    Host(&'a [HostPattern]),
    /// Not this.
    Path(&'a PathMatch),
    /// None of these.
    Method(&'a [Method]),
    /// Not this.
    Condition(&'a Condition),
}

impl CompiledMatch {
    pub(crate) fn new(route: usize, entry: usize, priority: i32, written: &Match) -> Self {
        let small = |index: usize| {
            u32::try_from(index).expect("a configuration has fewer than 2^32 matches")
        };
        let headers = written
            .headers
            .iter()
            .map(|(name, value)| Condition::Header(name.clone(), value.clone()));
        let cookies = written
            .cookies
            .iter()
            .map(|(name, value)| Condition::Cookie(name.clone(), value.clone()));
        let query = written
            .query
            .iter()
            .map(|(key, value)| Condition::Query(key.clone(), value.clone()));
        let model = written.model.clone().map(Condition::Model);
        Self {
            route: small(route),
            entry: small(entry),
            priority,
            counts: (
                small(written.headers.len() + written.cookies.len()),
                small(written.query.len()),
            ),
            has_model: model.is_some(),
            hosts: written.hosts.as_slice().into(),
            path: written.path.clone(),
            methods: written.methods.as_slice().into(),
            conditions: headers.chain(cookies).chain(query).chain(model).collect(),
        }
    }

    /// Index of the route among those the table was made of.
    pub fn route(&self) -> usize {
        self.route as usize
    }

    /// Index of the entry in the route's `match` list; 0 for a route without one.
    pub fn entry(&self) -> usize {
        self.entry as usize
    }

    /// The path condition, `None` for any path.
    pub fn path(&self) -> Option<&PathMatch> {
        self.path.as_ref()
    }

    /// The methods asked for, empty for any. `GET` does not stand for `HEAD`, as in Envoy and Gateway API.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Bytes of `path`, which this entry matched, that its condition stands for: a prefix's own length, all of it for an
    /// exact path or a regex, 0 without a condition.
    pub fn matched_len(&self, path: &str) -> usize {
        match &self.path {
            None => 0,
            Some(PathMatch::Prefix(prefix)) => prefix.len(),
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => path.len(),
        }
    }

    /// The route's priority.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Orders the entries of one host and path: smaller is better.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let (headers, query) = self.counts;
        (
            Reverse(self.priority),
            self.methods.is_empty(),
            Reverse(headers),
            Reverse(query),
            !self.has_model,
            self.route,
            self.entry,
        )
    }

    /// True when the entry holds only if the request names its model, and nobody has looked which it names.
    #[inline]
    pub(super) fn is_unsure(&self, request: &RequestHead<'_>) -> bool {
        self.has_model && request.model == ModelName::Unknown
    }

    /// True when all holds that the table's maps have not established already.
    #[inline]
    pub(super) fn holds(&self, request: &RequestHead<'_>) -> bool {
        self.method_holds(request) && self.holds_besides_method(request)
    }

    /// True when the method is what fails, and nothing else does.
    pub(super) fn misses_only_method(&self, request: &RequestHead<'_>) -> bool {
        !self.method_holds(request) && self.holds_besides_method(request)
    }

    fn holds_besides_method(&self, request: &RequestHead<'_>) -> bool {
        let regex_holds = match &self.path {
            Some(PathMatch::Regex(regex)) => regex.is_match(request.path),
            _ => true,
        };
        regex_holds
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(request))
    }

    fn method_holds(&self, request: &RequestHead<'_>) -> bool {
        self.methods.is_empty() || self.methods.contains(request.method)
    }

    /// The first condition that `request` fails, in the order host, path, method, headers, cookies, query,
    /// model.
    pub fn first_failure(&self, request: &RequestHead<'_>) -> Option<Failure<'_>> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host_holds(host, request.host)) {
            return Some(Failure::Host(&self.hosts));
        }
        if let Some(path) = self
            .path
            .as_ref()
            .filter(|path| !path_holds(path, request.path))
        {
            return Some(Failure::Path(path));
        }
        if !self.method_holds(request) {
            return Some(Failure::Method(&self.methods));
        }
        self.conditions
            .iter()
            .find(|condition| !condition.holds(request))
            .map(Failure::Condition)
    }
}

fn host_holds(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => host == exact,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
    }
}

fn path_holds(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(ends_a_segment),
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

/// True when `rest` may follow a prefix: nothing, further segments, or a custom verb such as `:predict`.
fn ends_a_segment(rest: &str) -> bool {
    match rest.as_bytes() {
        [] | [b'/', ..] => true,
        [b':', verb @ ..] => !verb.contains(&b'/'),
        _ => false,
    }
}

impl Condition {
    /// True when the request meets it, or may: while the model is unknown, a condition on it does.
    pub fn holds(&self, request: &RequestHead<'_>) -> bool {
        match self {
            Self::Header(name, condition) => match header(request.headers, name) {
                Some(value) => holds(condition, Some(&value)),
                None => holds(condition, None),
            },
            Self::Cookie(name, condition) => holds(condition, cookie(request.headers, name)),
            Self::Query(key, condition) => match query(request.query, key) {
                Some(value) => holds(condition, Some(&value)),
                None => holds(condition, None),
            },
            Self::Model(wanted) => match request.model {
                ModelName::Unknown => true,
                ModelName::None => false,
                ModelName::Named(name) => name == wanted,
            },
        }
    }
}

fn holds(condition: &ValueMatch, value: Option<&[u8]>) -> bool {
    match (condition, value) {
        (ValueMatch::Present(present), _) => value.is_some() == *present,
        (ValueMatch::Not(unwanted), _) => value != Some(unwanted.as_bytes()),
        (_, None) => false,
        (ValueMatch::Exact(wanted), Some(value)) => value == wanted.as_bytes(),
        (ValueMatch::In(wanted), Some(value)) => {
            wanted.iter().any(|wanted| value == wanted.as_bytes())
        }
        (ValueMatch::Regex(regex), Some(value)) => {
            std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let mut joined = Cow::Borrowed(first);
    for line in lines {
        let separator: &[u8] = if name == COOKIE { b"; " } else { b"," };
        joined.to_mut().extend_from_slice(separator);
        joined.to_mut().extend_from_slice(line.as_bytes());
    }
    Some(joined)
}

/// Returns the first cookie of that name, without the quotes around it: what matching, limits and stickiness go by.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs
        .filter_map(|pair| split_at(pair.trim_ascii(), b'='))
        .find(|(key, _)| *key == name.as_bytes())
        .map(|(_, value)| match value {
            [b'"', inner @ .., b'"'] => inner,
            _ => value,
        })
}

fn query<'a>(query: Option<&'a str>, key: &str) -> Option<Cow<'a, [u8]>> {
    query?
        .as_bytes()
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .find_map(|pair| {
            let (name, value) = split_at(pair, b'=').unwrap_or((pair, b""));
            decoded(name).eq(key.bytes()).then(|| {
                match value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
                    true => Cow::Owned(decoded(value).collect()),
                    false => Cow::Borrowed(value),
                }
            })
        })
}

fn split_at(pair: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|&byte| byte == separator)?;
    Some((&pair[..at], &pair[at + 1..]))
}

/// Form decoding; what is not an escape stays as it is.
fn decoded(raw: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        let escape = || Some((digit(tail.first()?)? << 4 | digit(tail.get(1)?)?) as u8);
        Some(match byte {
            b'+' => b' ',
            b'%' => escape().inspect(|_| rest = &tail[2..]).unwrap_or(byte),
            _ => byte,
        })
    })
}
