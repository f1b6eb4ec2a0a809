//! Which rule takes a request: conditions and their precedence.

use crate::gateway_api::{GATEWAY, ask, config, hosted, route};

/// A rule with these matches, a flow list, and a backend.
fn rule(matches: &str, backend: &str) -> String {
    format!("{{matches: {matches}, backendRefs: [{{name: {backend}, port: 80}}]}}")
}

/// Rules of one route.
fn rules(rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> = rules.iter().map(|(one, to)| rule(one, to)).collect();
    format!("[{}]", rules.join(", "))
}

#[test]
fn paths_match_as_the_specification_says() {
    for (kind, value, path, matches) in [
        ("Exact", "/abc", "/abc", true),
        ("Exact", "/abc", "/abc/", false),
        ("Exact", "/abc", "/Abc", false),
        ("Exact", "/abc", "/abcd", false),
        ("Exact", "/abc/", "/abc/", true),
        ("Exact", "/abc/", "/abc", false),
        ("PathPrefix", "/abc", "/abc", true),
        ("PathPrefix", "/abc", "/abc/", true),
        ("PathPrefix", "/abc", "/abc/def", true),
        ("PathPrefix", "/abc", "/abcd", false),
        ("PathPrefix", "/abc", "/ABC", false),
        ("PathPrefix", "/abc/", "/abc", true),
        ("PathPrefix", "/abc/", "/abc/def", true),
        ("PathPrefix", "/abc/", "/abcd", false),
        ("PathPrefix", "/", "/anything", true),
        ("RegularExpression", "/a(b|c)", "/ab", true),
        ("RegularExpression", "/a(b|c)", "/abx", false),
        ("RegularExpression", "/a(b|c)", "/x/ab", false),
    ] {
        let matches_text = format!("[{{path: {{type: {kind}, value: \"{value}\"}}}}]");
        let text = GATEWAY.to_owned() + &route("r", &rules(&[(&matches_text, "a")]));
        let want = if matches { "ml/r/0: ml/a:80" } else { "404" };
        let answer = ask("h", path).of(&config(&text));
        assert_eq!(answer, want, "{kind} {value} {path}");
    }
}

#[test]
fn without_matches_a_rule_takes_everything() {
    for matches in [
        "",
        "matches: [], ",
        "matches: [{}], ",
        "matches: [{path: {}}], ",
    ] {
        let rules = format!("[{{{matches}backendRefs: [{{name: a, port: 80}}]}}]");
        let config = config(&(GATEWAY.to_owned() + &route("r", &rules)));
        assert_eq!(ask("h", "/x").of(&config), "ml/r/0: ml/a:80", "{matches}");
    }
}

#[test]
fn conditions_on_headers_and_queries_hold_together() {
    let matches = "[{headers: [{name: X-A, value: one}, {name: x-b, type: RegularExpression, value: '[0-9]+'}, {name: x-a, value: two}], \
                   queryParams: [{name: q, value: 'a b'}, {name: r, type: RegularExpression, value: 'x.*'}, {name: q, value: other}]}, {method: DELETE}]";
    let config = config(&(GATEWAY.to_owned() + &route("r", &rules(&[(matches, "a")]))));
    let whole = ask("h", "/?q=a%20b&q=c&r=xyz")
        .header("x-a", "one")
        .header("x-b", "12");
    assert_eq!(whole.of(&config), "ml/r/0: ml/a:80");
    for miss in [
        ask("h", "/?q=a%20b&r=xyz")
            .header("x-a", "one")
            .header("x-b", "1x"),
        ask("h", "/?q=a%20b&r=xyz")
            .header("x-a", "two")
            .header("x-b", "1"),
        ask("h", "/?q=c&r=xyz")
            .header("x-a", "one")
            .header("x-b", "1"),
        ask("h", "/?q=a%20b&r=yz")
            .header("x-a", "one")
            .header("x-b", "1"),
        ask("h", "/?q=a%20b")
            .header("x-a", "one")
            .header("x-b", "1"),
    ] {
        assert_eq!(miss.of(&config), "405", "{miss:?}");
    }
    let deleted = ask("h", "/any").method("DELETE");
    assert_eq!(deleted.of(&config), "ml/r/0: ml/a:80");
}

#[test]
fn an_expression_matches_the_whole_value() {
    for (expression, matched) in [
        ("gold", true),
        ("^gold", true),
        ("gol.$", true),
        ("^go", false),
        ("ld$", false),
        ("g|gold", true),
    ] {
        let one =
            format!("[{{headers: [{{name: t, type: RegularExpression, value: '{expression}'}}]}}]");
        let config = config(&(GATEWAY.to_owned() + &route("r", &rules(&[(&one, "a")]))));
        let answer = ask("h", "/").header("t", "gold").of(&config);
        assert_eq!(answer != "404", matched, "{expression}");
    }
}

/// The order of the specification: exact path, longest prefix, method, most headers, most query parameters.
#[test]
fn the_more_specific_match_wins_whatever_the_order_of_rules() {
    let ladder = [
        ("[{path: {value: /}}]", "all"),
        (
            "[{path: {value: /}, queryParams: [{name: q, value: '1'}]}]",
            "query",
        ),
        (
            "[{path: {value: /}, headers: [{name: a, value: '1'}]}]",
            "header",
        ),
        (
            "[{path: {value: /}, headers: [{name: a, value: '1'}, {name: b, value: '1'}]}]",
            "headers",
        ),
        ("[{path: {value: /}, method: GET}]", "method"),
        ("[{path: {value: /a}}]", "short"),
        ("[{path: {value: /a/b}}]", "long"),
        (
            "[{path: {value: /a/b}, queryParams: [{name: q, value: '1'}]}]",
            "long-query",
        ),
        (
            "[{path: {value: /a/b}, headers: [{name: a, value: '1'}]}]",
            "long-header",
        ),
        ("[{path: {value: /a/b}, method: GET}]", "long-method"),
        ("[{path: {type: Exact, value: /a/b}}]", "exact"),
        (
            "[{path: {type: Exact, value: /a/b}, method: GET}]",
            "exact-method",
        ),
    ];
    let request = ask("h", "/a/b?q=1").header("a", "1").header("b", "1");
    for turned in [false, true] {
        for top in 1..=ladder.len() {
            let mut some = ladder[..top].to_vec();
            if turned {
                some.reverse();
            }
            let text = GATEWAY.to_owned() + &route("r", &rules(&some));
            let answer = request.of(&config(&text));
            let want = format!(": ml/{}:80", ladder[top - 1].1);
            assert!(answer.ends_with(&want), "{answer} {want}");
        }
    }
}

#[test]
fn an_expression_comes_before_everything_and_behind_prefixes() {
    let some = rules(&[
        ("[{path: {value: /}}]", "all"),
        (
            "[{path: {type: RegularExpression, value: '/a/.*'}}]",
            "regex",
        ),
        ("[{path: {value: /a/b}}]", "prefix"),
    ]);
    let config = config(&(GATEWAY.to_owned() + &route("r", &some)));
    assert_eq!(ask("h", "/a/c").of(&config), "ml/r/1: ml/regex:80");
    assert_eq!(ask("h", "/a/b/c").of(&config), "ml/r/2: ml/prefix:80");
    assert_eq!(ask("h", "/b").of(&config), "ml/r/0: ml/all:80");
}

#[test]
fn of_equal_rules_the_first_of_a_route_wins() {
    let some = rules(&[
        ("[{path: {value: /x}}]", "a"),
        ("[{path: {value: /x}}]", "b"),
    ]);
    let config = config(&(GATEWAY.to_owned() + &route("r", &some)));
    assert_eq!(ask("h", "/x").of(&config), "ml/r/0: ml/a:80");
}

#[test]
fn of_equal_rules_the_older_route_wins_then_the_name() {
    let aged = |name: &str, time: &str| {
        let text = route(name, &rules(&[("[{path: {value: /x}}]", name)]));
        let metadata = format!("name: {name}, creationTimestamp: {time},");
        text.replace(&format!("name: {name},"), &metadata)
    };
    let (old, new) = ("\"2025-01-01T00:00:00Z\"", "\"2026-01-01T00:00:00Z\"");
    for (times, winner) in [
        ([("a", new), ("b", old), ("c", new)], "b"),
        ([("b", old), ("c", old), ("a", old)], "a"),
        ([("c", old), ("b", "null"), ("a", "null")], "c"),
        ([("c", "null"), ("b", "null"), ("a", "null")], "a"),
    ] {
        let documents: String = times.iter().map(|(name, time)| aged(name, time)).collect();
        let config = config(&(GATEWAY.to_owned() + &documents));
        let want = format!("ml/{winner}/0: ml/{winner}:80");
        assert_eq!(ask("h", "/x").of(&config), want, "{times:?}");
    }
}

#[test]
fn hosts_come_before_all_other_conditions() {
    let get = "[{path: {type: Exact, value: /x}, method: GET}]";
    let text = GATEWAY.to_owned()
        + &hosted("any", "", &rules(&[(get, "any")]))
        + &hosted("wide", "'*.com'", &rules(&[(get, "wide")]))
        + &hosted("narrow", "'*.b.com'", &rules(&[(get, "narrow")]))
        + &hosted(
            "exact",
            "a.b.com",
            &rules(&[("[{path: {value: /}}]", "exact")]),
        );
    let config = config(&text);
    for (host, want) in [
        ("a.b.com", "exact"),
        ("c.b.com", "narrow"),
        ("d.c.b.com", "narrow"),
        ("b.com", "wide"),
        ("com", "any"),
        ("x.org", "any"),
    ] {
        let answer = ask(host, "/x").of(&config);
        assert_eq!(answer, format!("ml/{want}/0: ml/{want}:80"), "{host}");
    }
}
