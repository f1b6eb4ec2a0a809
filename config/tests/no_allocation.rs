//! What happens to every request does not allocate.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use allocation_counter::measure;
use forebay_config::canonical::{canonical_host, canonical_path};
use forebay_config::rewrite::rewritten_path;
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{
    Action, HeaderEdits, HostPattern, Match, PathMatch, PathOptions, PathRewrite, Position,
    Respond, Rewrite, Route, Timeouts, ValueMatch,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

fn route(entry: Match) -> Arc<Route> {
    Arc::new(Route {
        name: String::new(),
        listeners: Vec::new(),
        matches: vec![entry],
        priority: 0,
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
    })
}

#[test]
fn an_ordinary_request_is_routed_without_an_allocation() {
    let mut routes: Vec<_> = (0..100)
        .map(|i| {
            route(Match {
                hosts: vec![HostPattern::Suffix(".models.example".into())],
                path: Some(PathMatch::Prefix(format!("/v1/models/{i}"))),
                ..Match::default()
            })
        })
        .collect();
    routes.push(route(Match {
        path: Some(PathMatch::Prefix("/v1/models/7".into())),
        methods: vec![Method::POST],
        headers: vec![(
            "x-tenant".parse().unwrap(),
            ValueMatch::Exact("acme".into()),
        )],
        cookies: vec![("canary".into(), ValueMatch::Present(true))],
        query: vec![("version".into(), ValueMatch::In(vec!["2".into()]))],
        ..Match::default()
    }));
    let table = RouteTable::new(&routes);
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("acme"));
    headers.insert("cookie", HeaderValue::from_static("a=b; canary=1"));
    let rewrite = PathRewrite::Prefix("/".into());
    for (host, want) in [("a.b.models.example:8080", 7), ("elsewhere.example", 100)] {
        let mut found = None;
        let counted = measure(|| {
            let host = canonical_host(host).unwrap();
            let path = canonical_path("/v1/models/7/infer", PathOptions::default()).unwrap();
            let query = Some("x=%20y&version=2");
            let head = RequestHead {
                host: &host,
                path: &path,
                query,
                method: &Method::POST,
                headers: &headers,
                model: ModelName::Unknown,
            };
            if let Lookup::Found { route, matched } = table.find(&head) {
                let rewritten =
                    rewritten_path(&rewrite, matched, &path, PathOptions::default()).unwrap();
                found = Some((route, rewritten.len()));
            }
        });
        assert_eq!(found, Some((want, "/infer".len())));
        assert_eq!(counted.count_total, 0, "{host}");
    }
}
