//! Which requests a rule of a VirtualService is for.

use crate::istio_support::{ask, ask_at, config, service, service_of, to, translation};
use crate::support::findings;

type Request<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)]);

/// Checks which requests meet these conditions, and that nothing of them is lost.
fn check(condition: &str, wanted: &[Request<'_>], unwanted: &[Request<'_>]) {
    let text = service(&format!("  - match: [{condition}]\n    {}\n", to("hit")));
    let all = findings(&translation(&text));
    assert!(
        all.iter().all(|one| !one.contains("lost")),
        "{condition}: {all:#?}"
    );
    let config = config(&text);
    for (requests, found) in [(wanted, true), (unwanted, false)] {
        for (method, target, headers) in requests {
            let answer = ask(&config, method, target, headers);
            assert_eq!(
                answer.starts_with("ml/hit:80 "),
                found,
                "{condition}: {method} {target} {headers:?}: {answer}"
            );
        }
    }
}

#[test]
fn paths() {
    check(
        "{uri: {exact: /a/b}}",
        &[("GET", "/a/b", &[]), ("GET", "/a/b?c", &[])],
        &[
            ("GET", "/a/b/", &[]),
            ("GET", "/a/B", &[]),
            ("GET", "/a", &[]),
        ],
    );
    check(
        "{uri: {exact: /a/b.c}, ignoreUriCase: true}",
        &[("GET", "/A/b.C", &[])],
        &[("GET", "/a/bxc", &[]), ("GET", "/a/b.c/d", &[])],
    );
    check(
        "{uri: {prefix: /v1}}",
        &[
            ("GET", "/v1", &[]),
            ("GET", "/v1x", &[]),
            ("GET", "/v1/x/y:z", &[]),
        ],
        &[
            ("GET", "/", &[]),
            ("GET", "/V1", &[]),
            ("GET", "/x/v1", &[]),
        ],
    );
    check(
        "{uri: {prefix: /v1/}}",
        &[("GET", "/v1/", &[]), ("GET", "/v1/x", &[])],
        &[
            ("GET", "/v1", &[]),
            ("GET", "/v1:x", &[]),
            ("GET", "/v1x", &[]),
        ],
    );
    check(
        "{uri: {prefix: /V1.x}, ignoreUriCase: true}",
        &[("GET", "/v1.x", &[]), ("GET", "/V1.Xy", &[])],
        &[("GET", "/v1ax", &[])],
    );
    check(
        "{uri: {prefix: /}}",
        &[("GET", "/", &[]), ("GET", "/x", &[])],
        &[],
    );
    check(
        "{uri: {prefix: /.well}}",
        &[("GET", "/.well-known/x", &[])],
        &[("GET", "/well", &[])],
    );
    check(
        "{uri: {prefix: /a/..}}",
        &[("GET", "/a/..b", &[])],
        &[("GET", "/", &[])],
    );
    check("{uri: {prefix: /%7Eme}}", &[("GET", "/~me", &[])], &[]);
    check(
        "{uri: {regex: '/v[12]/.*'}}",
        &[("GET", "/v1/", &[]), ("GET", "/v2/x?y", &[])],
        &[("GET", "/v1", &[]), ("GET", "/x/v1/", &[])],
    );
    check(
        "{uri: {regex: '/A'}, ignoreUriCase: true}",
        &[("GET", "/A", &[])],
        &[("GET", "/a", &[])],
    );
}

#[test]
fn methods() {
    check(
        "{method: {exact: POST}}",
        &[("POST", "/", &[])],
        &[("GET", "/", &[])],
    );
    check(
        "{method: {regex: 'GET|P.*'}}",
        &[("GET", "/", &[]), ("PUT", "/", &[]), ("PATCH", "/", &[])],
        &[("DELETE", "/", &[])],
    );
    check(
        "{method: {prefix: PO}}",
        &[("POST", "/", &[])],
        &[("PUT", "/", &[])],
    );
}

#[test]
fn headers() {
    check(
        "{headers: {X-A: {exact: b}}}",
        &[("GET", "/", &[("x-a", "b")])],
        &[
            ("GET", "/", &[]),
            ("GET", "/", &[("x-a", "B")]),
            ("GET", "/", &[("x-a", "b"), ("x-a", "c")]),
        ],
    );
    check(
        "{headers: {x-a: {prefix: b.}}}",
        &[
            ("GET", "/", &[("x-a", "b.c")]),
            ("GET", "/", &[("x-a", "b.")]),
        ],
        &[
            ("GET", "/", &[("x-a", "bc")]),
            ("GET", "/", &[("x-a", "ab.")]),
        ],
    );
    for regex in ["[0-9]+", "^[0-9]+$", "^[0-9]+", "[0-9]+$"] {
        check(
            &format!("{{headers: {{x-a: {{regex: '{regex}'}}}}}}"),
            &[("GET", "/", &[("x-a", "12")])],
            &[
                ("GET", "/", &[("x-a", "12x")]),
                ("GET", "/", &[("x-a", "x12")]),
                ("GET", "/", &[]),
            ],
        );
    }
    check(
        "{headers: {cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}}}",
        &[("GET", "/", &[("cookie", "a=b;user=jason;c=d")])],
        &[("GET", "/", &[("cookie", "user=joe")])],
    );
    check(
        "{headers: {x-a: {}}}",
        &[("GET", "/", &[("x-a", "")])],
        &[("GET", "/", &[])],
    );
    check(
        "{withoutHeaders: {x-a: {exact: b}}}",
        &[("GET", "/", &[]), ("GET", "/", &[("x-a", "c")])],
        &[("GET", "/", &[("x-a", "b")])],
    );
    for any in ["{}", "{regex: .*}", "{prefix: ''}"] {
        check(
            &format!("{{withoutHeaders: {{x-a: {any}}}}}"),
            &[("GET", "/", &[])],
            &[("GET", "/", &[("x-a", "b")])],
        );
    }
}

#[test]
fn query_parameters() {
    check(
        "{queryParams: {a: {exact: '1'}, b: {exact: ''}, c: {regex: '\\d+$'}, d: {}}}",
        &[
            ("GET", "/?a=1&b&c=22&d=x", &[]),
            ("GET", "/?d&c=2&b=&a=1", &[]),
        ],
        &[
            ("GET", "/?a=1&b&c=a22&d", &[]),
            ("GET", "/?a=1&b=1&c=2&d", &[]),
            ("GET", "/", &[]),
        ],
    );
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = format!(
        "  - match: [{{uri: {{prefix: /a}}}}]\n    {}\n  - match: [{{uri: {{exact: /a/b}}}}, {{uri: {{prefix: /b}}}}]\n    {}\n  \
         - match: [{{headers: {{x: {{exact: 'y'}}}}, method: {{exact: GET}}}}]\n    {}\n  - {}\n  - match: [{{uri: {{exact: /c}}}}]\n    {}\n",
        to("first"),
        to("second"),
        to("third"),
        to("last"),
        to("never")
    );
    let text = service(&rules);
    let config = config(&text);
    for (target, headers, wanted) in [
        ("/a/b", &[][..], "first"),
        ("/b", &[], "second"),
        ("/a", &[("x", "y")], "first"),
        ("/b/c", &[("x", "y")], "second"),
        ("/c", &[("x", "y")], "third"),
        ("/c", &[], "last"),
    ] {
        let answer = ask(&config, "GET", target, headers);
        assert_eq!(answer, format!("ml/{wanted}:80 {target}"));
    }
    assert_eq!(
        findings(&translation(&text)),
        ["14:5 approximated spec.http[4]: never reached, as there: a rule before takes everything"]
    );
}

#[test]
fn hosts_go_by_their_own_order_and_do_not_fall_through() {
    let one = service_of("['*.example.com']", &format!("  - {}\n", to("wide")));
    let two = service_of(
        "[a.example.com]",
        &format!(
            "  - match: [{{uri: {{prefix: /x}}}}]\n    {}\n",
            to("narrow")
        ),
    )
    .replace("name: v,", "name: w,");
    let three =
        service_of("['*']", &format!("  - {}\n", to("any"))).replace("name: v,", "name: u,");
    let config = config(&format!("{one}---\n{two}---\n{three}"));
    for (target, wanted) in [
        ("a.example.com/x", "ml/narrow:80 /x"),
        ("a.example.com/y", "404"),
        ("b.example.com/x", "ml/wide:80 /x"),
        ("c.b.example.com/x", "ml/wide:80 /x"),
        ("example.com/x", "ml/any:80 /x"),
    ] {
        assert_eq!(
            ask_at(&config, None, "GET", target, &[]),
            wanted,
            "{target}"
        );
    }
}

#[test]
fn a_short_host_has_all_spellings_of_the_service() {
    let config = config(&service_of(
        "[Reviews]",
        &format!("  - {}\n", to("reviews")),
    ));
    for host in [
        "reviews",
        "reviews.ml",
        "reviews.ml.svc",
        "reviews.ml.svc.cluster.local",
    ] {
        let answer = ask_at(&config, None, "GET", &format!("{host}/x"), &[]);
        assert_eq!(answer, "ml/reviews:80 /x", "{host}");
    }
    assert_eq!(ask_at(&config, None, "GET", "reviews.other/x", &[]), "404");
}

#[test]
fn services_of_one_host_are_merged_with_what_takes_everything_last() {
    let one = service(&format!("  - {}\n", to("rest")));
    let two = service(&format!(
        "  - match: [{{uri: {{prefix: /x}}}}]\n    {}\n",
        to("x")
    ));
    let two = two.replace("name: v,", "name: w,");
    let config = config(&format!("{one}---\n{two}"));
    assert_eq!(ask(&config, "GET", "/x", &[]), "ml/x:80 /x");
    assert_eq!(ask(&config, "GET", "/y", &[]), "ml/rest:80 /y");
}

#[test]
fn the_oldest_service_comes_first() {
    let dated = |name: &str, date: &str| {
        let text = service(&format!(
            "  - match: [{{uri: {{prefix: /x}}}}]\n    {}\n",
            to(name)
        ));
        let metadata = format!("name: {name}, creationTimestamp: '{date}',");
        text.replace("name: v,", &metadata)
    };
    let (young, old) = (
        dated("a", "2026-02-01T00:00:00Z"),
        dated("b", "2026-01-01T00:00:00Z"),
    );
    let config = config(&format!("{young}---\n{old}"));
    assert_eq!(ask(&config, "GET", "/x", &[]), "ml/b:80 /x");
}

#[test]
fn an_authority_singles_out_a_host_and_the_rest_goes_on() {
    let rules = format!(
        "  - match: [{{authority: {{exact: a.example.com}}, uri: {{prefix: /x}}}}]\n    {}\n  - match: [{{authority: {{exact: b.example.com}}}}]\n    {}\n  - {}\n",
        to("a"),
        to("b"),
        to("rest")
    );
    for hosts in ["['*.example.com']", "['*']"] {
        let config = config(&service_of(hosts, &rules));
        for (target, wanted) in [
            ("a.example.com/x", "ml/a:80 /x"),
            ("a.example.com/y", "ml/rest:80 /y"),
            ("b.example.com/y", "ml/b:80 /y"),
            ("c.example.com/y", "ml/rest:80 /y"),
        ] {
            assert_eq!(
                ask_at(&config, None, "GET", target, &[]),
                wanted,
                "{hosts} {target}"
            );
        }
    }
    let elsewhere = translation(&service(&rules));
    assert_eq!(
        findings(&elsewhere)[0],
        "7:13 lost spec.http[0].match[0]: requests to `a.example.com` do not come here"
    );
}

#[test]
fn a_condition_that_cannot_be_expressed_drops_its_match() {
    for (condition, note) in [
        (
            "{uri: {exact: /a//b}}",
            "`/a//b` is not a path: `//` is merged in requests",
        ),
        (
            "{uri: {regex: '(a'}}",
            "`(a` is not a regular expression: unclosed group",
        ),
        ("{uri: {suffix: a}}", "`uri`: `suffix` is no way to compare"),
        ("{uri: {exact: 5}}", "`uri`: `exact` is not a string"),
        ("{uri: /a}", "`uri` has a value that is not legal"),
        (
            "{uri: {}}",
            "`uri` has neither `exact`, `prefix` nor `regex`",
        ),
        ("{uri: {prefix: a}}", "no path begins with `a`"),
        (
            "{method: {exact: get}}",
            "`get` is not a method that can be routed",
        ),
        ("{method: {regex: X}}", "no method is like this"),
        ("{scheme: {exact: ftp}}", "no request has this scheme"),
        (
            "{scheme: {exact: https}}",
            "no document describes a Gateway, so that ports and schemes of listeners are not known",
        ),
        (
            "{port: 80}",
            "no document describes a Gateway, so that ports and schemes of listeners are not known",
        ),
        ("{port: x}", "`port` has a value that is not legal"),
        (
            "{authority: {regex: '.*'}}",
            "`authority` is matched by whole names; use `hosts`",
        ),
        (
            "{authority: {exact: 'h.example:80'}}",
            "`authority`: the string `h.example:80` is not a host",
        ),
        (
            "{headers: {':path': {exact: a}}}",
            "`headers`: `:path` is not the name of a header",
        ),
        (
            "{headers: {host: {exact: a}}}",
            "`headers`: `host` cannot be matched as a header",
        ),
        (
            "{headers: {x: a}}",
            "`headers` has a value that is not legal",
        ),
        ("{headers: [x]}", "`headers` has a value that is not legal"),
        (
            "{headers: {x: {regex: '['}}}",
            "`headers.x`: `[` is not a regular expression: unclosed character class",
        ),
        (
            "{headers: {x: {exact: a}}, withoutHeaders: {X: {exact: b}}}",
            "`withoutHeaders.X`: there is a condition on it already",
        ),
        (
            "{withoutHeaders: {x: {prefix: a}}}",
            "`withoutHeaders.x`: a value that must not match can only be compared with `exact`, or be absent",
        ),
        (
            "{sourceLabels: {app: a}}",
            "`sourceLabels`: who calls is not known by labels",
        ),
        (
            "{sourceNamespace: a}",
            "`sourceNamespace`: who calls is not known by labels",
        ),
        (
            "{clientIp: 10.0.0.1}",
            "the condition `clientIp` is not known",
        ),
        (
            "{ignoreUriCase: 1}",
            "`ignoreUriCase` has a value that is not legal",
        ),
    ] {
        let text = service(&format!(
            "  - match:\n    - {condition}\n    - {{uri: {{exact: /kept}}}}\n    {}\n",
            to("hit")
        ));
        let all = findings(&translation(&text));
        assert_eq!(all.len(), 1, "{condition}: {all:#?}");
        assert!(
            all[0].starts_with("8:7 lost spec.http[0].match[0]: "),
            "{}",
            all[0]
        );
        assert!(all[0].contains(note), "{condition}: {}", all[0]);
        let config = config(&text);
        assert_eq!(ask(&config, "GET", "/kept", &[]), "ml/hit:80 /kept");
        assert_eq!(ask(&config, "GET", "/", &[]), "404");
    }
}

#[test]
fn a_rule_without_any_condition_left_is_dropped() {
    for matches in ["[{uri: {regex: '('}}]", "[]", "[5]", "{uri: {exact: /a}}"] {
        let text = service(&format!(
            "  - match: {matches}\n    {}\n    timeout: 1s\n  - match: [{{uri: {{exact: /kept}}}}]\n    {}\n",
            to("hit"),
            to("kept")
        ));
        let all = findings(&translation(&text));
        assert!(
            all.iter().all(|one| one.contains(" lost ")),
            "{matches}: {all:#?}"
        );
        assert!(
            all.iter().any(|one| one.contains("spec.http[0].timeout")),
            "{all:#?}"
        );
        assert_eq!(ask(&config(&text), "GET", "/", &[]), "404", "{matches}");
    }
}
