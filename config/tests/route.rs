//! The route table against a plain sort and scan.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{
    Action, HeaderEdits, HostPattern, Match, PathMatch, Position, Respond, Rewrite, Route,
    Timeouts, ValueMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use regex::Regex;

const HOSTS: &[&str] = &["a", "b.a", "c.b.a", "d.c.b.a", "x.a"];
const SUFFIXES: &[&str] = &[".a", ".b.a", ".c.b.a"];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/b/c",
    "/ab",
    "/b",
    "/b/b/b/b",
    "/a:v",
    "/a:v:w",
    "/a:v/b",
    "/a/b:v",
    "/a/b/:v",
    "/a/b/c:v:w",
    "/:v",
    "/a:/",
    "/b/b/b:",
    "/a:v/b:w",
    "/a/bbbbbbbbbbbbbbbb:v/w",
];
const PREFIXES: &[&str] = &["", "/a", "/a/b", "/a/b/c", "/b", "/b/b/b", "/a:v", "/a:v/b"];
const REGEXES: &[&str] = &["/a.*", "/[ab]/b", ".*b", "/"];
const METHODS: &[Method] = &[Method::GET, Method::POST, Method::PUT];
const KEYS: &[&str] = &["k", "l", "m"];
const MODELS: &[&str] = &["x", "y"];

fn anchored(regex: &str) -> Regex {
    Regex::new(&format!("^(?:{regex})$")).unwrap()
}

fn value_matches() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(&["1", "2"]).prop_map(|value| ValueMatch::Exact(value.into())),
        any::<bool>().prop_map(ValueMatch::Present),
        Just(ValueMatch::Not("1".into())),
        Just(ValueMatch::In(vec!["1".into(), "3".into()])),
        Just(ValueMatch::Regex(anchored("[12]"))),
    ]
}

fn conditions() -> impl Strategy<Value = Vec<(String, ValueMatch)>> {
    let some = subsequence(KEYS, 0..=2).prop_flat_map(|keys| {
        let count = keys.len();
        vec(value_matches(), count)
            .prop_map(move |values| keys.iter().map(|&key| key.to_owned()).zip(values).collect())
    });
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

fn matches() -> impl Strategy<Value = Match> {
    let host = prop_oneof![
        select(HOSTS).prop_map(|host| HostPattern::Exact(host.into())),
        select(SUFFIXES).prop_map(|suffix| HostPattern::Suffix(suffix.into())),
    ];
    let path = prop_oneof![
        2 => Just(None),
        3 => select(PATHS).prop_map(|path| Some(PathMatch::Exact(path.into()))),
        4 => select(PREFIXES).prop_map(|prefix| Some(PathMatch::Prefix(prefix.into()))),
        2 => select(REGEXES).prop_map(|regex| Some(PathMatch::Regex(anchored(regex)))),
    ];
    let methods = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(METHODS, 1..=2)];
    let model = prop_oneof![3 => Just(None), 1 => select(MODELS).prop_map(Some)];
    (
        vec(host, 0..3),
        path,
        methods,
        conditions(),
        conditions(),
        conditions(),
        model,
    )
        .prop_map(
            |(hosts, path, methods, headers, query, cookies, model)| Match {
                hosts,
                path,
                methods,
                headers: headers
                    .into_iter()
                    .map(|(key, value)| (key.parse().unwrap(), value))
                    .collect(),
                query,
                cookies,
                model: model.map(str::to_owned),
                position: None,
            },
        )
}

fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let priority = prop_oneof![4 => Just(0), 1 => -1..=1];
    let route = (vec(matches(), 0..3), priority)
        .prop_map(|(matches, priority)| Arc::new(route(matches, priority)));
    vec(route, 0..12)
}

fn route(matches: Vec<Match>, priority: i32) -> Route {
    Route {
        name: String::new(),
        listeners: Vec::new(),
        matches,
        priority,
        action: Action::Respond(Respond {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: String::new(),
        }),
        timeouts: Timeouts::default(),
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        body_max: None,
        access: None,
        auth: Default::default(),
        rate_limits: Vec::new(),
        cors: None,
        sticky: None,
        cutover: Default::default(),
        mirrors: Vec::new(),
        record: None,
        retry: None,
        replace: Vec::new(),
        wake: true,
        position: Position {
            file: "test".into(),
            line: 1,
            column: 1,
        },
    }
}

/// A request whose keys are at most once in each place.
#[derive(Clone, Debug)]
struct Request {
    host: &'static str,
    path: &'static str,
    method: Method,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
    cookies: Vec<(&'static str, &'static str)>,
    model: Option<&'static str>,
}

fn requests() -> impl Strategy<Value = Request> {
    let pairs = || {
        (subsequence(KEYS, 0..=3), vec(select(&["1", "2", "3"]), 3))
            .prop_map(|(keys, values)| keys.into_iter().zip(values).collect::<Vec<_>>())
    };
    (
        select(HOSTS),
        select(PATHS),
        select(METHODS),
        pairs(),
        pairs(),
        pairs(),
        prop_oneof![Just(None), select(&["x", "y", "z"]).prop_map(Some)],
    )
        .prop_map(
            |(host, path, method, headers, query, cookies, model)| Request {
                host,
                path,
                method,
                headers,
                query,
                cookies,
                model,
            },
        )
}

fn value_holds(condition: &ValueMatch, value: Option<&str>) -> bool {
    match condition {
        ValueMatch::Exact(wanted) => value == Some(wanted),
        ValueMatch::Regex(regex) => value.is_some_and(|value| regex.is_match(value)),
        ValueMatch::Present(present) => value.is_some() == *present,
        ValueMatch::Not(unwanted) => value != Some(unwanted),
        ValueMatch::In(wanted) => {
            value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
        }
    }
}

/// Tries every place where a slash or a verb could be cut off.
fn prefix_holds(prefix: &str, path: &str) -> bool {
    let (_, last) = path.rsplit_once('/').unwrap();
    let verbs = last
        .match_indices(':')
        .map(|(at, _)| path.len() - last.len() + at);
    let slashes = path.match_indices('/').map(|(at, _)| at);
    verbs
        .chain(slashes)
        .chain([path.len()])
        .any(|end| &path[..end] == prefix)
}

/// Every rule that holds but perhaps for its method, best first: where it is, whether the method holds, the methods.
fn naive(routes: &[Arc<Route>], request: &Request) -> Vec<(usize, usize, bool, Vec<Method>)> {
    let value = |pairs: &[(&str, &'static str)], key: &str| {
        pairs
            .iter()
            .find(|(name, _)| *name == key)
            .map(|&(_, value)| value)
    };
    let mut rules = Vec::new();
    for (route_index, route) in routes.iter().enumerate() {
        let entries = if route.matches.is_empty() {
            vec![Match::default()]
        } else {
            route.matches.clone()
        };
        for (entry, m) in entries.iter().enumerate() {
            let mut hosts: Vec<_> = m.hosts.iter().map(Some).collect();
            if hosts.is_empty() {
                hosts.push(None);
            }
            for host in hosts {
                let host_rank = match host {
                    Some(HostPattern::Exact(exact)) if exact == request.host => 1000,
                    Some(HostPattern::Suffix(suffix))
                        if request.host.ends_with(suffix.as_str()) =>
                    {
                        suffix.len()
                    }
                    None => 0,
                    Some(_) => continue,
                };
                let path_rank = match &m.path {
                    Some(PathMatch::Exact(path)) if path == request.path => 1000,
                    Some(PathMatch::Prefix(p)) if prefix_holds(p, request.path) => 100 + p.len(),
                    Some(PathMatch::Regex(regex)) if regex.is_match(request.path) => 1,
                    None => 0,
                    Some(_) => continue,
                };
                let all = m
                    .headers
                    .iter()
                    .all(|(key, want)| value_holds(want, value(&request.headers, key.as_str())))
                    && m.query
                        .iter()
                        .all(|(key, want)| value_holds(want, value(&request.query, key)))
                    && m.cookies
                        .iter()
                        .all(|(key, want)| value_holds(want, value(&request.cookies, key)))
                    && (m.model.is_none() || m.model.as_deref() == request.model);
                if !all {
                    continue;
                }
                let order = (
                    -i64::from(route.priority),
                    -(host_rank as i64),
                    -(path_rank as i64),
                    m.methods.is_empty(),
                    -((m.headers.len() + m.cookies.len()) as i64),
                    -(m.query.len() as i64),
                    m.model.is_none(),
                    route_index,
                    entry,
                );
                let method_holds = m.methods.is_empty() || m.methods.contains(&request.method);
                rules.push((order, (route_index, entry, method_holds, m.methods.clone())));
            }
        }
    }
    rules.sort_by_key(|&(order, _)| order);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn check(routes: &[Arc<Route>], request: &Request) -> Result<(), TestCaseError> {
    let mut headers = HeaderMap::new();
    for &(key, value) in &request.headers {
        headers.append(
            HeaderName::from_static(key),
            HeaderValue::from_static(value),
        );
    }
    for (key, value) in &request.cookies {
        headers.append(
            http::header::COOKIE,
            format!("{key}={value}").parse().unwrap(),
        );
    }
    let query: Vec<_> = request
        .query
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let query = (!query.is_empty()).then(|| query.join("&"));
    let (host, path, method) = (request.host, request.path, &request.method);
    let head = RequestHead {
        host,
        path,
        query: query.as_deref(),
        method,
        headers: &headers,
        model: request.model.map_or(ModelName::None, ModelName::Named),
    };

    let rules = naive(routes, request);
    let table = RouteTable::new(routes);
    match table.find(&head) {
        Lookup::Found { route, matched } => {
            let want = rules.iter().find(|(_, _, method_holds, _)| *method_holds);
            prop_assert_eq!(
                want.map(|&(route, entry, ..)| (route, entry)),
                Some((route, matched.entry()))
            );
            prop_assert!(matched.first_failure(&head).is_none());
        }
        Lookup::MethodNotAllowed { allow } => {
            prop_assert!(rules.iter().all(|(_, _, method_holds, _)| !method_holds));
            let mut want = Vec::new();
            for method in rules.iter().flat_map(|(.., methods)| methods) {
                if !want.contains(method) {
                    want.push(method.clone());
                }
            }
            prop_assert!(!want.is_empty());
            prop_assert_eq!(allow, want);
        }
        Lookup::NotFound => prop_assert!(rules.is_empty()),
        Lookup::NeedsModel { .. } => prop_assert!(false, "the model is known"),
    }
    check_unknown(&table, &head)?;
    let holding = table
        .failures(&head)
        .filter(|(_, failure)| failure.is_none())
        .count();
    let mut want: Vec<_> = rules
        .iter()
        .filter(|(_, _, holds, _)| *holds)
        .map(|&(route, entry, ..)| (route, entry))
        .collect();
    want.sort_unstable();
    want.dedup();
    prop_assert_eq!(holding, want.len());
    Ok(())
}

/// What is found without the model is found with any, unless it is asked for.
fn check_unknown(table: &RouteTable, head: &RequestHead<'_>) -> Result<(), TestCaseError> {
    let unknown = RequestHead {
        model: ModelName::Unknown,
        ..*head
    };
    let place = |found: Lookup<'_>| match found {
        Lookup::Found { route, matched } => Ok((route, matched.entry())),
        Lookup::MethodNotAllowed { allow } => Err(allow),
        Lookup::NotFound | Lookup::NeedsModel { .. } => Err(Vec::new()),
    };
    let models = MODELS.iter().map(|&name| ModelName::Named(name));
    let known = models
        .chain([ModelName::None])
        .map(|model| RequestHead { model, ..unknown });
    match table.find(&unknown) {
        Lookup::NeedsModel { matched, .. } => {
            let differ: std::collections::HashSet<_> =
                known.map(|head| place(table.find(&head))).collect();
            prop_assert!(differ.len() > 1 || matched.first_failure(&unknown).is_some());
        }
        found => {
            let found = place(found);
            for head in known {
                prop_assert_eq!(&place(table.find(&head)), &found);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_sort_and_scan_finds(routes in routes(), requests in vec(requests(), 8)) {
        for request in &requests {
            check(&routes, request)?;
        }
    }
}
