//! What a lookup costs among 10, 100 and 10 000 routes, and what it costs to compile the table.
//!
//! `cargo bench --bench routing` prints times. For instructions, run the built program with a number of routes and a
//! number of lookups under a counter, twice, and divide the difference:
//!
//! ```text
//! valgrind --tool=callgrind routing 10000 0
//! valgrind --tool=callgrind routing 10000 10000
//! valgrind --tool=callgrind routing 10000 10000 own-priorities
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_config::canonical::{canonical_host, canonical_path};
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{
    Action, HeaderEdits, HostPattern, Match, PathMatch, PathOptions, Position, Respond, Rewrite,
    Route, Timeouts,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    if let [count, lookups] = numbers[..] {
        let own_priorities = std::env::args().any(|argument| argument == "own-priorities");
        let table = RouteTable::new(&routes(count, own_priorities));
        lookup_all(&table, &requests(count), lookups);
        return;
    }
    for (count, own_priorities) in [(10, false), (100, false), (10_000, false), (10_000, true)] {
        let routes = routes(count, own_priorities);
        let started = Instant::now();
        let table = RouteTable::new(black_box(&routes));
        let compiled = started.elapsed();
        let per_lookup = time_lookup(&table, &requests(count));
        let note = if own_priorities {
            ", each of its own priority"
        } else {
            ""
        };
        println!(
            "{count:>6} routes{note}: compiled in {compiled:>9.2?}, {per_lookup:>4} ns a lookup"
        );
    }
}

/// A third each of exact paths on a host, prefixes on a wildcard host, prefixes on any host.
fn routes(count: usize, own_priorities: bool) -> Vec<Arc<Route>> {
    (0..count)
        .map(|i| {
            let (hosts, path) = match i % 3 {
                0 => (
                    vec![HostPattern::Exact(format!(
                        "{:05}.models.example.com",
                        i / 9
                    ))],
                    PathMatch::Exact(format!("/v1/models/{i:05}:predict")),
                ),
                1 => (
                    vec![HostPattern::Suffix(format!(".{:05}.example.com", i / 9))],
                    PathMatch::Prefix(format!("/v2/models/{i:05}")),
                ),
                _ => (Vec::new(), PathMatch::Prefix(format!("/v2/models/{i:05}"))),
            };
            let entry = Match {
                hosts,
                path: Some(path),
                methods: vec![Method::POST],
                ..Match::default()
            };
            let priority = if own_priorities { i as i32 } else { 0 };
            Arc::new(route(format!("route-{i}"), priority, entry))
        })
        .collect()
}

fn route(name: String, priority: i32, entry: Match) -> Route {
    Route {
        name,
        listeners: Vec::new(),
        matches: vec![entry],
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
            file: "bench".into(),
            line: 1,
            column: 1,
        },
    }
}

/// Host and path as a client sends them; each finds a route of its own.
fn requests(count: usize) -> Vec<(String, String)> {
    (0..count.min(1000))
        .map(|n| n * count / count.min(1000))
        .map(|i| match i % 3 {
            0 => (
                format!("{:05}.models.example.com:8080", i / 9),
                format!("/v1/models/{i:05}:predict"),
            ),
            1 => (
                format!("eu.{:05}.example.com", i / 9),
                format!("/v2/models/{i:05}/infer"),
            ),
            _ => (
                "proxy.example.net".to_owned(),
                format!("/v2/models/{i:05}/infer"),
            ),
        })
        .collect()
}

fn lookup_all(table: &RouteTable, requests: &[(String, String)], lookups: usize) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (host, path) in requests.iter().cycle().take(lookups) {
        let host = canonical_host(black_box(host)).expect("the host is good");
        let path =
            canonical_path(black_box(path), PathOptions::default()).expect("the path is good");
        let head = RequestHead {
            host: &host,
            path: &path,
            query: None,
            method: &Method::POST,
            headers: &headers,
            model: ModelName::Unknown,
        };
        let found = table.find(black_box(&head));
        assert!(
            matches!(found, Lookup::Found { .. }),
            "every request has a route"
        );
    }
}

fn time_lookup(table: &RouteTable, requests: &[(String, String)]) -> u128 {
    const LOOKUPS: usize = 100_000;
    let best = (0..10).map(|_| {
        let started = Instant::now();
        lookup_all(table, requests, LOOKUPS);
        started.elapsed()
    });
    best.min().unwrap_or(Duration::ZERO).as_nanos() / LOOKUPS as u128
}
