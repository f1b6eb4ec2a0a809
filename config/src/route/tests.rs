//! One test per step of the precedence.

mod conditions;
mod models;

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use regex::Regex;

use super::*;
use crate::model::{
    Action, HeaderEdits, PathMatch, Position, Respond, Rewrite, Timeouts, ValueMatch,
};

fn route(priority: i32, matches: Vec<Match>) -> Arc<Route> {
    Arc::new(Route {
        name: String::new(),
        listeners: Vec::new(),
        matches,
        priority,
        action: Action::Respond(Respond {
            status: http::StatusCode::OK,
            headers: Vec::new(),
            body: String::new(),
        }),
        timeouts: Timeouts {
            total: Some(Duration::ZERO),
            ..Timeouts::default()
        },
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

fn anchored(regex: &str) -> Regex {
    Regex::new(&format!("^(?:{regex})$")).unwrap()
}

/// Reads `host path key=value …`, where `-` leaves host or path out, `~` starts a regex, a `*` ends a prefix, and keys
/// are `m:` methods (comma), `h:`, `q:`, `c:` and `model:`.
fn matching(text: &str) -> Match {
    let mut words = text.split_whitespace();
    let hosts = match words.next().unwrap() {
        "-" => Vec::new(),
        hosts => hosts.split(',').map(host_pattern).collect(),
    };
    let path = match words.next().unwrap() {
        "-" => None,
        path => Some(match (path.strip_prefix('~'), path.strip_suffix("/*")) {
            (Some(regex), _) => PathMatch::Regex(anchored(regex)),
            (_, Some(prefix)) => PathMatch::Prefix(prefix.into()),
            _ => PathMatch::Exact(path.into()),
        }),
    };
    let mut written = Match {
        hosts,
        path,
        ..Match::default()
    };
    for word in words {
        let (kind, rest) = word.split_once(':').unwrap();
        let (key, value) = rest.split_once('=').unwrap_or((rest, "!present"));
        match kind {
            "m" => {
                written.methods = rest
                    .split(',')
                    .map(|method| method.parse().unwrap())
                    .collect()
            }
            "h" => written
                .headers
                .push((key.parse().unwrap(), value_match(value))),
            "q" => written.query.push((key.into(), value_match(value))),
            "c" => written.cookies.push((key.into(), value_match(value))),
            "model" => written.model = Some(rest.into()),
            _ => panic!("{word}"),
        }
    }
    written
}

fn host_pattern(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None => HostPattern::Exact(text.into()),
    }
}

fn value_match(text: &str) -> ValueMatch {
    match (text, text.split_at_checked(1)) {
        ("!present", _) => ValueMatch::Present(true),
        ("!absent", _) => ValueMatch::Present(false),
        (_, Some(("!", not))) => ValueMatch::Not(not.into()),
        (_, Some(("~", regex))) => ValueMatch::Regex(anchored(regex)),
        (_, Some(("[", list))) => ValueMatch::In(list.split(',').map(Into::into).collect()),
        _ => ValueMatch::Exact(text.into()),
    }
}

fn table(routes: &[&str]) -> RouteTable {
    let routes: Vec<_> = routes
        .iter()
        .map(|text| route(0, vec![matching(text)]))
        .collect();
    RouteTable::new(&routes)
}

/// `METHOD host path[?query]` and header lines.
fn answer(table: &RouteTable, request: &str, lines: &[(&str, &str)]) -> Result<usize, Vec<Method>> {
    let words: Vec<_> = request.split_whitespace().collect();
    let (path, query) = match words[2].split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (words[2], None),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value);
    }
    let method = words[0].parse().unwrap();
    let head = RequestHead {
        host: words[1],
        path,
        query,
        method: &method,
        headers: &headers,
        model: ModelName::Unknown,
    };
    match table.find(&head) {
        Lookup::Found { route, matched } => {
            assert_eq!(matched.route(), route);
            assert!(matched.first_failure(&head).is_none());
            Ok(route)
        }
        Lookup::MethodNotAllowed { allow } => Err(allow),
        Lookup::NotFound => Err(Vec::new()),
        Lookup::NeedsModel { .. } => panic!("no route asks for a model"),
    }
}

/// Whatever the file order, `better` wins over `worse` for a request that both match.
fn wins(better: &str, worse: &str, request: &str, lines: &[(&str, &str)]) {
    assert_eq!(
        answer(&table(&[worse]), request, lines),
        Ok(0),
        "{worse} does not match {request}"
    );
    assert_eq!(
        answer(&table(&[better, worse]), request, lines),
        Ok(0),
        "{better} over {worse}"
    );
    assert_eq!(
        answer(&table(&[worse, better]), request, lines),
        Ok(1),
        "{better} over {worse}"
    );
}

#[test]
fn the_precedence_step_by_step() {
    let lines = [("x-a", "1"), ("x-b", "2"), ("cookie", "c=3")];
    let request = "GET a.b.c /x/y?p=1&q=2";
    for (better, worse) in [
        ("a.b.c -", "*.b.c /x/y m:GET h:x-a h:x-b q:p"),
        ("*.b.c -", "*.c /x/y m:GET h:x-a"),
        ("*.c -", "- /x/y m:GET h:x-a"),
        ("- /x/y", "- /x/* m:GET h:x-a h:x-b q:p"),
        ("- /x/y/*", "- /x/* m:GET h:x-a"),
        ("- /x/*", "- /* m:GET h:x-a"),
        ("- /*", "- ~/x/y m:GET h:x-a"),
        ("- ~/x/.*", "- - m:GET h:x-a"),
        ("- /x/y m:GET", "- /x/y h:x-a h:x-b c:c q:p"),
        (
            "- /x/y m:GET h:x-a h:x-b",
            "- /x/y m:GET,POST h:x-a q:p q:q",
        ),
        ("- /x/y h:x-a c:c", "- /x/y h:x-a q:p"),
        ("- /x/y h:x-a q:p q:q", "- /x/y c:c q:p"),
    ] {
        wins(better, worse, request, &lines);
    }
}

#[test]
fn priority_comes_before_everything() {
    let low = || route(-1, vec![matching("a.b /x m:GET h:x-a")]);
    let high = || route(7, vec![matching("- -")]);
    let default = || route(0, vec![matching("- /x")]);
    let lines = [("x-a", "1")];
    let find = |routes: &[Arc<Route>]| answer(&RouteTable::new(routes), "GET a.b /x", &lines);
    assert_eq!(find(&[low(), default(), high()]), Ok(2));
    assert_eq!(find(&[high(), low(), default()]), Ok(0));
    assert_eq!(find(&[low(), default()]), Ok(1));
}

#[test]
fn file_order_then_match_order_breaks_ties() {
    let same = || matching("- /x h:x-a=~.*");
    let routes = [route(0, vec![same(), same()]), route(0, vec![same()])];
    let table = RouteTable::new(&routes);
    let (method, mut headers) = (Method::GET, HeaderMap::new());
    headers.insert("x-a", HeaderValue::from_static("1"));
    let head = RequestHead {
        host: "h",
        path: "/x",
        query: None,
        method: &method,
        headers: &headers,
        model: ModelName::Unknown,
    };
    match table.find(&head) {
        Lookup::Found { route, matched } => assert_eq!((route, matched.entry()), (0, 0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn precedence_is_over_rules_not_routes() {
    // The second route's second entry is better than any entry of the first.
    let routes = [
        route(0, vec![matching("- /x/*"), matching("- /z")]),
        route(0, vec![matching("- /*"), matching("- /x/y")]),
    ];
    let table = RouteTable::new(&routes);
    assert_eq!(answer(&table, "GET h /x/y", &[]), Ok(1));
    assert_eq!(answer(&table, "GET h /x/z", &[]), Ok(0));
    assert_eq!(answer(&table, "GET h /z", &[]), Ok(0));
    assert_eq!(answer(&table, "GET h /q", &[]), Ok(1));
}

#[test]
fn a_better_host_that_fails_later_falls_back_to_a_wider_one() {
    let table = table(&["a.b.c /x", "*.b.c /x/*", "*.c - h:x-a", "- -"]);
    assert_eq!(answer(&table, "GET a.b.c /x", &[]), Ok(0));
    assert_eq!(answer(&table, "GET a.b.c /x/1", &[]), Ok(1));
    assert_eq!(answer(&table, "GET a.b.c /y", &[("x-a", "1")]), Ok(2));
    assert_eq!(answer(&table, "GET a.b.c /y", &[]), Ok(3));
}

#[test]
fn a_wildcard_spans_any_number_of_labels_but_at_least_one() {
    let table = table(&["*.a.b -"]);
    assert_eq!(answer(&table, "GET x.a.b /", &[]), Ok(0));
    assert_eq!(answer(&table, "GET x.y.z.a.b /", &[]), Ok(0));
    for host in ["a.b", ".a.b", "xa.b", "a.b.c"] {
        assert_eq!(
            answer(&table, &format!("GET {host} /"), &[]),
            Err(vec![]),
            "{host}"
        );
    }
}

#[test]
fn prefixes_are_whole_segments() {
    let table = table(&["- /foo/*", "- /foo/bar/*"]);
    for (path, want) in [
        ("/foo", Some(0)),
        ("/foo/", Some(0)),
        ("/foo/x/y", Some(0)),
        ("/foo/bar", Some(1)),
        ("/foo/bar/", Some(1)),
        ("/foo/bars", Some(0)),
        ("/foobar", None),
        ("/fo", None),
        ("/", None),
    ] {
        assert_eq!(
            answer(&table, &format!("GET h {path}"), &[]).ok(),
            want,
            "{path}"
        );
    }
}

#[test]
fn a_prefix_matches_the_custom_verbs_of_its_last_segment() {
    let table = table(&[
        "- /v1/models/resnet/*",
        "- /v1/models/resnet:predict/*",
        "- /v1/models/*",
        "- /v1/models/exact:go",
        "- /v1/models/exact/*",
    ]);
    for (path, want) in [
        ("/v1/models/resnet", 0),
        ("/v1/models/resnet/versions/2", 0),
        ("/v1/models/resnet/versions/2:predict", 0),
        ("/v1/models/resnet:explain", 0),
        ("/v1/models/resnet:", 0),
        ("/v1/models/resnet:a:b", 0),
        ("/v1/models/resnet:predict", 1),
        ("/v1/models/resnet:predict/x", 1),
        ("/v1/models/resnet:predict:x", 1),
        ("/v1/models/resnet:predicts", 0),
        ("/v1/models/resnet50", 2),
        ("/v1/models/resnet50:predict", 2),
        ("/v1/models/resnet%3Apredict", 2),
        ("/v1/models/resnet:a/b", 2),
        ("/v1/models/:predict", 2),
        ("/v1/models:list", 2),
        ("/v1/models/exact:go", 3),
        ("/v1/models/exact:goes", 4),
    ] {
        assert_eq!(
            answer(&table, &format!("GET h {path}"), &[]),
            Ok(want),
            "{path}"
        );
    }
    assert_eq!(answer(&table, "GET h /v1:go", &[]), Err(vec![]));
}

#[test]
fn only_the_method_missed() {
    let table = table(&[
        "- /x m:POST,PUT",
        "- /x m:PUT,DELETE",
        "- /x/* m:PATCH h:x-a",
        "a.b /x m:TRACE",
        "- /y m:POST",
    ]);
    assert_eq!(
        answer(&table, "GET h /x", &[]),
        Err(vec![Method::POST, Method::PUT, Method::DELETE])
    );
    assert_eq!(
        answer(&table, "GET h /x/1", &[("x-a", "1")]),
        Err(vec![Method::PATCH])
    );
    assert_eq!(answer(&table, "GET h /x/1", &[]), Err(vec![]));
    assert_eq!(answer(&table, "GET h /z", &[]), Err(vec![]));
    assert_eq!(answer(&table, "PUT h /x", &[]), Ok(0));
}

#[test]
fn get_does_not_stand_for_head() {
    assert_eq!(
        answer(&table(&["- /x m:GET"]), "HEAD h /x", &[]),
        Err(vec![Method::GET])
    );
}

/// The cases of Gateway API's HTTPRoute conformance tests on matching, by their names there.
#[test]
fn gateway_api_conformance() {
    let table = table(&[
        "- /* ",                       // 0 matching: prefix /
        "- /* h:version=two",          // 1
        "- /v2/*",                     // 2
        "- /v2/example/* h:version=1", // 3
        "- /match/exact",              // 4 exact path beats prefix
        "- /match/*",                  // 5
        "- /match/prefix/one/any/*",   // 6
        "- /match/exact/one",          // 7
        "- /path5 m:PATCH h:version=four",
        "- /path5 h:version=four",
        "- /path5 m:PATCH",
        "- /query q:animal=whale",
        "- /query q:animal=dolphin",
        "- /query q:animal=dolphin q:color=blue",
        "*.example.com /", // 14
        "very.specific.com /",
        "*.wildcard.io /s1/*",
        "*.specific.wildcard.io /s1/*",
    ]);
    let four = [("version", "four")];
    for (request, lines, want) in [
        ("GET h /", &[][..], 0),
        ("GET h /example", &[], 0),
        ("GET h /", &[("version", "one")], 0),
        ("GET h /", &[("version", "two")], 1),
        ("GET h /v2", &[], 2),
        ("GET h /v2example", &[], 0),
        ("GET h /v2/example", &[("version", "1")], 3),
        ("GET h /match/exact", &[], 4),
        ("GET h /match/exact/", &[], 5),
        ("GET h /match/exact/one", &[], 7),
        ("GET h /match/prefix/one/any", &[], 6),
        ("GET h /match/prefix/one", &[], 5),
        ("PATCH h /path5", &four, 8),
        ("GET h /path5", &four, 9),
        ("PATCH h /path5", &[], 10),
        ("GET h /query?animal=whale", &[], 11),
        ("GET h /query?animal=dolphin", &[], 12),
        ("GET h /query?animal=dolphin&color=blue", &[], 13),
        ("GET h /query?animal=dolphin&animal=whale", &[], 12),
        ("GET foo.bar.example.com /", &[], 14),
        ("GET example.com /", &[], 0),
        ("GET very.specific.com /", &[], 15),
        ("GET non.specific.com /", &[], 0),
        ("GET a.wildcard.io /s1", &[], 16),
        ("GET a.specific.wildcard.io /s1", &[], 17),
        ("GET specific.wildcard.io /s1", &[], 16),
        ("GET wildcard.io /s1", &[], 0),
    ] {
        assert_eq!(
            answer(&table, request, lines),
            Ok(want),
            "{request} {lines:?}"
        );
    }
}

#[test]
fn every_loser_names_its_first_failing_condition() {
    let table = table(&["a.b -", "- /x/*", "- - m:PUT", "- - h:x-a=1", "- -"]);
    let (method, headers) = (Method::GET, HeaderMap::new());
    let head = RequestHead {
        host: "h",
        path: "/",
        query: None,
        method: &method,
        headers: &headers,
        model: ModelName::Unknown,
    };
    let found: Vec<_> = table.failures(&head).map(|(_, failure)| failure).collect();
    assert!(matches!(
        found[..],
        [
            Some(Failure::Host(_)),
            Some(Failure::Path(_)),
            Some(Failure::Method(_)),
            Some(Failure::Condition(Condition::Header(..))),
            None
        ]
    ));
}

#[test]
fn a_route_without_matches_matches_everything() {
    let table = RouteTable::new(&[route(0, Vec::new())]);
    assert_eq!(answer(&table, "BREW h /any?x", &[]), Ok(0));
    assert_eq!(answer(&RouteTable::new(&[]), "GET h /", &[]), Err(vec![]));
}

#[test]
fn ten_thousand_routes_stay_apart() {
    let texts: Vec<_> = (0..10_000)
        .map(|i| {
            format!(
                "h{}.x /m/{i}{}",
                i % 100,
                if i % 2 == 0 { "" } else { "/*" }
            )
        })
        .collect();
    let table = table(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let seen: BTreeMap<_, _> = (0..10_000)
        .map(|i| {
            (
                i,
                answer(&table, &format!("GET h{}.x /m/{i}", i % 100), &[]),
            )
        })
        .collect();
    assert!(seen.iter().all(|(i, found)| *found == Ok(*i)));
}
