//! From bytes on the wire to a route: nothing panics, canonical forms are stable, and a found route really holds.
#![no_main]

use std::sync::{Arc, LazyLock};

use forebay_config::canonical::{canonical_host, canonical_path};
use forebay_config::rewrite::rewritten_path;
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{
    Action, EncodedSlash, HeaderEdits, HostPattern, Match, PathMatch, PathOptions, PathRewrite,
    Position, Respond, Rewrite, Route, Timeouts, ValueMatch,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use regex::Regex;

/// What a client controls.
#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    post: bool,
    cookies: [&'a [u8]; 2],
    keep_slashes: bool,
    merge_slashes: bool,
}

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| RouteTable::new(&routes()));

fuzz_target!(|input: Input<'_>| {
    let encoded_slash = if input.keep_slashes {
        EncodedSlash::Keep
    } else {
        EncodedSlash::Reject
    };
    let options = PathOptions {
        encoded_slash,
        merge_slashes: input.merge_slashes,
    };
    let (Ok(host), Ok(path)) = (
        canonical_host(input.host),
        canonical_path(input.path, options),
    ) else {
        return;
    };
    assert_eq!(canonical_host(&host).as_ref(), Ok(&host));
    assert_eq!(canonical_path(&path, options).as_ref(), Ok(&path));
    assert!(
        path.split('/')
            .all(|segment| segment != "." && segment != "..")
    );

    let mut headers = HeaderMap::new();
    for cookie in input.cookies {
        if let Ok(value) = HeaderValue::from_bytes(cookie) {
            headers.append("cookie", value);
        }
    }
    let method = if input.post {
        Method::POST
    } else {
        Method::GET
    };
    let head = RequestHead {
        host: &host,
        path: &path,
        query: input.query,
        method: &method,
        headers: &headers,
        model: ModelName::Unknown,
    };
    match TABLE.find(&head) {
        Lookup::Found { matched, .. } => {
            assert!(matched.first_failure(&head).is_none());
            for rewrite in rewrites() {
                if let Ok(rewritten) = rewritten_path(&rewrite, matched, &path, options) {
                    assert_eq!(canonical_path(&rewritten, options).as_ref(), Ok(&rewritten));
                }
            }
        }
        Lookup::NeedsModel { .. } => unreachable!("no route asks for a model"),
        Lookup::MethodNotAllowed { allow } => assert!(!allow.contains(&method)),
        Lookup::NotFound => assert!(TABLE.failures(&head).all(|(_, failure)| failure.is_some())),
    }
});

fn rewrites() -> [PathRewrite; 3] {
    static DIGITS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("([0-9])(.)").expect("the regex is good"));
    [
        PathRewrite::Prefix("/".into()),
        PathRewrite::Prefix("/x/y/".into()),
        PathRewrite::Regex {
            find: DIGITS.clone(),
            with: "$2./$1".into(),
        },
    ]
}

fn routes() -> Vec<Arc<Route>> {
    let regex = |text: &str| Regex::new(&format!("^(?:{text})$")).expect("the regex is good");
    let suffix = |text: &str| vec![HostPattern::Suffix(text.into())];
    let prefix = |text: &str| Some(PathMatch::Prefix(text.into()));
    let matches = [
        Match {
            hosts: suffix(".a"),
            path: prefix("/a/b"),
            ..Match::default()
        },
        Match {
            hosts: suffix(".b.a"),
            path: prefix("/a"),
            methods: vec![Method::POST],
            ..Match::default()
        },
        Match {
            hosts: vec![HostPattern::Exact("[::1]".into())],
            ..Match::default()
        },
        Match {
            path: Some(PathMatch::Exact("/a".into())),
            methods: vec![Method::POST],
            ..Match::default()
        },
        Match {
            path: Some(PathMatch::Regex(regex("/[a-z]+/.*"))),
            ..Match::default()
        },
        Match {
            path: prefix("/a:b"),
            ..Match::default()
        },
        Match {
            path: prefix("/q"),
            query: vec![("a b".into(), ValueMatch::Regex(regex(".+")))],
            ..Match::default()
        },
        Match {
            path: prefix("/c"),
            cookies: vec![("a".into(), ValueMatch::Not("b".into()))],
            ..Match::default()
        },
    ];
    matches
        .into_iter()
        .enumerate()
        .map(|(priority, entry)| Arc::new(route(priority as i32 % 2, entry)))
        .collect()
}

fn route(priority: i32, entry: Match) -> Route {
    Route {
        name: String::new(),
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
            file: "fuzz".into(),
            line: 1,
            column: 1,
        },
    }
}
