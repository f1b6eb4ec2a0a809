//! Which route a request takes: a table compiled when the configuration loads, and `find`.
//!
//! A route with several matches, or a match with several hosts, compiles into several rules, and the precedence is
//! over rules: `priority`, exact host, longest wildcard host, no host; exact path, longest prefix, regex, no path;
//! has a method; most headers and cookies; most query keys; has a model; file order. Host and path are the shape of the table, hash
//! maps walked from the most to the least specific; priority and the rest are the order of short lists in them. So a
//! lookup costs the same among ten routes and among ten thousand, whatever their priorities.

mod bucket;
mod condition;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderMap, Method};

use crate::model::{HostPattern, Match, Route};
use bucket::{Bucket, BucketBuilder};
pub use condition::{CompiledMatch, Condition, Failure, cookie};

/// What matching looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Canonical, see [`canonical_host`](crate::canonical::canonical_host).
    pub host: &'a str,
    /// Canonical, see [`canonical_path`](crate::canonical::canonical_path).
    pub path: &'a str,
    /// As it was sent, without the question mark.
    pub query: Option<&'a str>,
    /// A CORS preflight brings the method it asks for.
    pub method: &'a Method,
    /// All fields of the request.
    pub headers: &'a HeaderMap,
    /// Finding it may cost a look at the body: say so only when [`Lookup::NeedsModel`] asks.
    pub model: ModelName<'a>,
}

/// The name of the model that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelName<'a> {
    /// Nobody looked: a condition on it may hold.
    Unknown,
    /// It names none, or none that can be found: no condition on it holds.
    None,
    /// It names this one, unescaped.
    Named(&'a str),
}

/// The answer of [`RouteTable::find`].
#[derive(Clone, Debug)]
pub enum Lookup<'a> {
    /// The best rule that holds.
    Found {
        /// Index into the routes the table was made of.
        route: usize,
        /// The entry of the route's `match` that held.
        matched: &'a CompiledMatch,
    },
    /// This rule holds if the request names its model. Only for [`ModelName::Unknown`], and only when no better rule
    /// without a model holds.
    NeedsModel {
        /// Index into the routes the table was made of.
        route: usize,
        /// The entry of the route's `match` that may hold.
        matched: &'a CompiledMatch,
    },
    /// No rule holds, but at least one misses nothing but the method.
    MethodNotAllowed {
        /// The methods of those rules, each once, the best rule's first.
        allow: Vec<Method>,
    },
    /// No rule holds.
    NotFound,
}

/// The routes of one listener, compiled.
#[derive(Clone, Debug)]
pub struct RouteTable {
    matches: Box<[CompiledMatch]>,
    exact: HashMap<Box<str>, Bucket, RandomState>,
    suffixes: HashMap<Box<str>, Bucket, RandomState>, // keys start with a dot
    any: Bucket,
    top_priority: i32,
}

impl RouteTable {
    /// Compiles the routes of one listener, in file order.
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let everything = [Match::default()];
        let mut matches = Vec::with_capacity(routes.len());
        let mut builder = Builder::default();
        for (index, route) in routes.iter().enumerate() {
            let entries = if route.matches.is_empty() {
                &everything[..]
            } else {
                &route.matches
            };
            for (entry, written) in entries.iter().enumerate() {
                builder.add(matches.len(), written);
                matches.push(CompiledMatch::new(index, entry, route.priority, written));
            }
        }
        builder.build(matches.into())
    }

    /// Finds the route of a request. Allocates only to answer [`Lookup::MethodNotAllowed`], for an escaped query value
    /// and for a repeated header field that a rule asks for.
    pub fn find(&self, request: &RequestHead<'_>) -> Lookup<'_> {
        let mut best: Option<&CompiledMatch> = None;
        // Lists come from the most to the least specific, so only a higher priority beats what was found before.
        let _ = self.lists(request, |list| {
            for candidate in list.iter().map(|&id| &self.matches[id as usize]) {
                if best.is_some_and(|best| best.priority() >= candidate.priority()) {
                    break;
                }
                if candidate.holds(request) {
                    best = Some(candidate);
                    break;
                }
            }
            match best {
                Some(best) if best.priority() == self.top_priority => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        match best {
            Some(matched) => found(matched, request),
            None => self.refuse(request),
        }
    }

    /// The rare second walk: would another method have found something?
    fn refuse(&self, request: &RequestHead<'_>) -> Lookup<'_> {
        let mut missed: Vec<&CompiledMatch> = Vec::new();
        let _ = self.lists(request, |list| {
            let candidates = list.iter().map(|&id| &self.matches[id as usize]);
            missed.extend(candidates.filter(|candidate| candidate.misses_only_method(request)));
            ControlFlow::Continue(())
        });
        if let Some(unsure) = missed.iter().find(|missed| missed.is_unsure(request)) {
            return found(unsure, request);
        }
        missed.sort_by_key(|candidate| Reverse(candidate.priority())); // stable
        let mut allow: Vec<Method> = Vec::new();
        for method in missed.into_iter().flat_map(CompiledMatch::methods) {
            if !allow.contains(method) {
                allow.push(method.clone());
            }
        }
        if allow.is_empty() {
            Lookup::NotFound
        } else {
            Lookup::MethodNotAllowed { allow }
        }
    }

    /// Visits the lists of rules whose host and exact or prefix path hold, the most specific first. A list holds its
    /// rules best first; its regexes and conditions are not tested yet.
    fn lists(
        &self,
        request: &RequestHead<'_>,
        mut visit: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(bucket) = self.exact.get(request.host) {
            bucket.lists(request.path, &mut visit)?;
        }
        if !self.suffixes.is_empty() {
            // From the left, so the longest suffix comes first; a label must remain in front of it.
            for (dot, _) in request.host.match_indices('.').filter(|&(dot, _)| dot > 0) {
                if let Some(bucket) = self.suffixes.get(&request.host[dot..]) {
                    bucket.lists(request.path, &mut visit)?;
                }
            }
        }
        self.any.lists(request.path, &mut visit)
    }

    /// Every `match` entry of the table with the first condition that `request` fails, `None` for those that hold; in
    /// file order. For explaining a choice, not for making one. While the model is [`ModelName::Unknown`] no condition
    /// on it fails.
    pub fn failures<'t>(
        &'t self,
        request: &RequestHead<'_>,
    ) -> impl Iterator<Item = (&'t CompiledMatch, Option<Failure<'t>>)> {
        self.matches
            .iter()
            .map(move |candidate| (candidate, candidate.first_failure(request)))
    }
}

fn found<'t>(matched: &'t CompiledMatch, request: &RequestHead<'_>) -> Lookup<'t> {
    let route = matched.route();
    match matched.is_unsure(request) {
        true => Lookup::NeedsModel { route, matched },
        false => Lookup::Found { route, matched },
    }
}

#[derive(Default)]
struct Builder<'a> {
    exact: HashMap<&'a str, BucketBuilder<'a>, RandomState>,
    suffixes: HashMap<&'a str, BucketBuilder<'a>, RandomState>,
    any: BucketBuilder<'a>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, id: usize, written: &'a Match) {
        let id = u32::try_from(id).expect("a configuration has fewer than 2^32 matches");
        let path = written.path.as_ref();
        if written.hosts.is_empty() {
            self.any.add(id, path);
        }
        for host in &written.hosts {
            match host {
                HostPattern::Exact(host) => self.exact.entry(host).or_default().add(id, path),
                HostPattern::Suffix(host) => self.suffixes.entry(host).or_default().add(id, path),
            }
        }
    }

    fn build(self, matches: Box<[CompiledMatch]>) -> RouteTable {
        let buckets = |map: HashMap<&str, BucketBuilder<'_>, RandomState>| {
            map.into_iter()
                .map(|(host, bucket)| (Box::from(host), bucket.build(&matches)))
                .collect()
        };
        RouteTable {
            exact: buckets(self.exact),
            suffixes: buckets(self.suffixes),
            any: self.any.build(&matches),
            top_priority: matches
                .iter()
                .map(CompiledMatch::priority)
                .max()
                .unwrap_or_default(),
            matches,
        }
    }
}

#[cfg(test)]
mod tests;
