//! Documents that are wrong: a finding with its place, and never more requests than were meant.

use crate::gateway_api::{GATEWAY, ask, config, hosted, made, route};
use crate::support::findings;

const BACKEND: &str = "backendRefs: [{name: a, port: 80}]";

#[test]
fn a_condition_that_cannot_be_read_drops_its_match() {
    for (one, note) in [
        (
            "{path: {value: a}}",
            "lost spec.rules[0].matches[0].path.value",
        ),
        ("{path: {value: '/a//b'}}", "`//` is merged"),
        ("{path: {value: '/a/../b'}}", "are resolved in requests"),
        ("{path: {value: '/a?b'}}", "path.value"),
        (
            "{path: {value: 5}}",
            "expected a string, found the number `5`",
        ),
        (
            "{path: {type: RegularExpression, value: '('}}",
            "is not a regular expression",
        ),
        (
            "{path: {type: Odd, value: /}}",
            "path.type: this type is not known",
        ),
        ("{path: [x]}", "path: expected a map, found a list"),
        ("{method: get}", "is not a method that can be routed"),
        ("{method: CONNECT}", "method: "),
        ("{method: 5}", "expected a string"),
        ("{headers: {a: b}}", "headers: expected a list"),
        ("{headers: [5]}", "headers[0]: expected a map"),
        (
            "{headers: [{name: a}]}",
            "a condition needs `name` and `value`",
        ),
        ("{headers: [{name: a, value: 5}]}", "headers[0]"),
        (
            "{headers: [{name: 'a b', value: c}]}",
            "is not the name of a header",
        ),
        (
            "{headers: [{name: host, value: c}]}",
            "cannot be matched as a header",
        ),
        (
            "{headers: [{name: a, value: '(', type: RegularExpression}]}",
            "is not a regular expression",
        ),
        (
            "{headers: [{name: a, value: b, type: Odd}]}",
            "type: this type is not known",
        ),
        (
            "{queryParams: [{name: a, value: b, type: Odd}]}",
            "type: this type is not known",
        ),
        ("{queryParams: 5}", "queryParams: expected a list"),
        ("5", "matches[0]: expected a map"),
    ] {
        let text = GATEWAY.to_owned() + &route("r", &format!("[{{matches: [{one}], {BACKEND}}}]"));
        let found = findings(&made(&text)).join("\n");
        assert!(found.contains(note), "{one}\n{found}");
        assert!(
            found.contains("backendRefs: no match of the rule is left"),
            "{one}\n{found}"
        );
        assert_eq!(ask("h", "/").of(&config(&text)), "404", "{one}");
        let beside = GATEWAY.to_owned()
            + &route(
                "r",
                &format!("[{{matches: [{one}, {{path: {{value: /ok}}}}], {BACKEND}}}]"),
            );
        assert_eq!(
            ask("h", "/ok").of(&config(&beside)),
            "ml/r/0: ml/a:80",
            "{one}"
        );
        assert_eq!(ask("h", "/").of(&config(&beside)), "404", "{one}");
    }
}

#[test]
fn findings_have_the_place_of_the_value() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{name: g}]\n  odd: 1\n\
                \x20 rules:\n  - matches:\n    - path:\n        value: a\n    timeouts: {request: soon}\n    sessionPersistence: {type: Cookie}\n\
                \x20   backendRefs:\n    - {name: a, port: 80, weight: -1}\n  - retry: {attempts: 50, backoff: 1s, codes: [200, 503]}\n    backendRefs: [{name: a, port: 80, weight: many}]\n";
    assert_eq!(
        findings(&made(text)),
        [
            "5:16 approximated spec.parentRefs[0]: no document describes a Gateway: the route is on every HTTP listener",
            "6:3 lost spec.odd: not translated",
            "10:16 lost spec.rules[0].matches[0].path.value: `a` is not a path: the path does not start with a slash",
            "11:15 lost spec.rules[0].timeouts: no match of the rule is left",
            "12:5 lost spec.rules[0].sessionPersistence: use `sticky` of a route, `balance: {hash: …}` of a cluster",
            "14:7 lost spec.rules[0].backendRefs: no match of the rule is left",
            "15:23 approximated spec.rules[1].retry.attempts: at most 10",
            "15:27 lost spec.rules[1].retry.backoff: there is no pause between attempts",
            "15:47 lost spec.rules[1].retry.codes: only statuses from 400 to 599 can be tried again",
            "16:47 lost spec.rules[1].backendRefs[0].weight: expected a whole number from 0 to 1000000, found the string `many`",
        ]
    );
}

#[test]
fn hostnames_that_cannot_be_read_are_not_every_host() {
    for hosts in ["'a b'", "'*'", "'a.*.com'", "{a: b}"] {
        let text = GATEWAY.to_owned() + &hosted("r", hosts, &format!("[{{{BACKEND}}}]"));
        let found = findings(&made(&text)).join("\n");
        assert!(found.contains("spec.hostnames"), "{hosts}\n{found}");
        assert_eq!(ask("h", "/").of(&config(&text)), "404", "{hosts}");
    }
    let text = (GATEWAY.to_owned() + &hosted("r", "x", &format!("[{{{BACKEND}}}]")))
        .replace("hostnames: [x]", "hostnames: x");
    assert_eq!(ask("h", "/").of(&config(&text)), "404");
    let text = text.replace("hostnames: x", "hostnames: []");
    assert_eq!(ask("h", "/").of(&config(&text)), "ml/r/0: ml/a:80");
}

#[test]
fn edits_that_cannot_be_done_are_lost_alone() {
    let filter = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: a}, {name: ok, value: b}, {name: x, value: \"a\\nb\"}, {name: y}], \
                  add: 5, remove: [connection, 'a b', gone]}}";
    let text = GATEWAY.to_owned() + &route("r", &format!("[{{filters: [{filter}], {BACKEND}}}]"));
    let found = findings(&made(&text)).join("\n");
    for note in [
        "set[0].name: the header `host` cannot be edited",
        "set[2].value",
        "set[3]: a header needs",
        "add: expected a list",
        "remove: ",
    ] {
        assert!(found.contains(note), "{note}\n{found}");
    }
    let loaded = config(&text);
    let edits = &loaded.routes[0].request_headers;
    assert_eq!((edits.set.len(), edits.remove.len()), (1, 1));
}

#[test]
fn a_copy_that_cannot_be_sent_is_lost_alone() {
    for (keys, note) in [
        ("", "`backendRef` is missing"),
        ("backendRef: {name: m}", "a Service needs a `port`"),
        (
            "backendRef: {name: m, port: 80}, percent: 101",
            "from 0 to 100",
        ),
        (
            "backendRef: {name: m, port: 80}, percent: 5, fraction: {numerator: 1}",
            "exclude each other",
        ),
        (
            "backendRef: {name: m, port: 80}, fraction: {numerator: 2, denominator: 1}",
            "more than everything",
        ),
        (
            "backendRef: {name: m, port: 80}, fraction: {denominator: 1}",
            "`numerator` is missing",
        ),
        (
            "backendRef: {name: m, port: 80}, fraction: {numerator: 1, denominator: 0}",
            "from 1 to",
        ),
    ] {
        let filter = format!("{{type: RequestMirror, requestMirror: {{{keys}}}}}");
        let text =
            GATEWAY.to_owned() + &route("r", &format!("[{{filters: [{filter}], {BACKEND}}}]"));
        let found = findings(&made(&text)).join("\n");
        assert!(found.contains(note), "{keys}\n{found}");
        let loaded = config(&text);
        assert!(loaded.routes[0].mirrors.is_empty(), "{keys}");
        assert_eq!(ask("h", "/").of(&loaded), "ml/r/0: ml/a:80", "{keys}");
    }
}

#[test]
fn nothing_at_all_becomes_nothing() {
    for kind in [
        "GatewayClass",
        "Gateway",
        "HTTPRoute",
        "GRPCRoute",
        "ReferenceGrant",
    ] {
        for rest in [
            "",
            "spec: {}\n",
            "spec: 5\n",
            "spec: null\n",
            "spec: {rules: 5, listeners: 5, from: 5, to: 5, parentRefs: 5}\n",
        ] {
            let text = format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n{rest}"
            );
            assert!(config(&text).routes.is_empty(), "{kind} {rest}");
        }
    }
}
