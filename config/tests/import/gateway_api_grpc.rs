//! Routes for gRPC.

use forebay_config::model::Action;

use crate::gateway_api::{Ask, GATEWAY, ask, config, hosted, made, named, route};
use crate::support::findings;

/// A GRPCRoute `ml/NAME`.
fn grpc(name: &str, hosts: &str, rules: &str) -> String {
    hosted(name, hosts, rules).replace("kind: HTTPRoute", "kind: GRPCRoute")
}

/// A call.
fn call(path: &str) -> Ask {
    ask("h", path)
        .method("POST")
        .header("content-type", "application/grpc+proto")
}

/// A configuration of one route with these matches, each with a backend of its own.
fn matches(matches: &[(&str, &str)]) -> String {
    let rules = matches
        .iter()
        .map(|(one, to)| format!("{{matches: [{one}], backendRefs: [{{name: {to}, port: 80}}]}}"));
    let rules: Vec<String> = rules.collect();
    GATEWAY.to_owned() + &grpc("g", "", &format!("[{}]", rules.join(", ")))
}

#[test]
fn services_and_methods_match() {
    for (one, path, matches_it) in [
        ("{method: {service: a.B, method: C}}", "/a.B/C", true),
        ("{method: {service: a.B, method: C}}", "/a.B/D", false),
        ("{method: {service: a.B, method: C}}", "/a.b/C", false),
        ("{method: {service: a.B}}", "/a.B/D", true),
        ("{method: {service: a.B}}", "/a.BB/D", false),
        ("{method: {method: C}}", "/x.Y/C", true),
        ("{method: {method: C}}", "/x.Y/D", false),
        ("{method: {method: C}}", "/x/y/C", false),
        (
            "{method: {type: RegularExpression, service: 'a[.](B|C)', method: 'D.*'}}",
            "/a.C/Dx",
            true,
        ),
        (
            "{method: {type: RegularExpression, service: 'a[.](B|C)', method: 'D.*'}}",
            "/a.D/Dx",
            false,
        ),
        (
            "{method: {type: RegularExpression, service: 'a|b'}}",
            "/b/Any",
            true,
        ),
        (
            "{method: {type: RegularExpression, service: 'a|b'}}",
            "/ab/Any",
            false,
        ),
        (
            "{method: {type: Exact, service: '', method: C}}",
            "/any.One/C",
            true,
        ),
        ("{}", "/a/b", true),
        ("{method: {}}", "/a/b", true),
    ] {
        let answer = call(path).of(&config(&matches(&[(one, "s")])));
        let want = if matches_it { "ml/g/0: ml/s:80" } else { "404" };
        assert_eq!(answer, want, "{one} {path}");
    }
}

#[test]
fn only_grpc_is_matched() {
    let config = config(&matches(&[("{}", "s")]));
    let plain = ask("h", "/a/b").method("POST");
    for (content, found) in [
        ("application/grpc", true),
        ("application/grpc+json", true),
        ("application/grpc;x=y", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let answer = plain.clone().header("content-type", content).of(&config);
        assert_eq!(answer != "404", found, "{content}");
    }
    assert_eq!(plain.of(&config), "404");
}

/// Longest service, longest method, most headers, whatever the order of rules.
#[test]
fn the_more_specific_call_wins() {
    let ladder = [
        ("{}", "all"),
        ("{headers: [{name: a, value: '1'}]}", "header"),
        ("{method: {method: C}}", "method"),
        ("{method: {service: a.B}}", "service"),
        (
            "{method: {service: a.B}, headers: [{name: a, value: '1'}]}",
            "service-header",
        ),
        ("{method: {service: a.B, method: C}}", "both"),
        (
            "{method: {service: a.B, method: C}, headers: [{name: a, value: '1'}]}",
            "both-header",
        ),
    ];
    for turned in [false, true] {
        for top in 1..=ladder.len() {
            let mut some = ladder[..top].to_vec();
            if turned {
                some.reverse();
            }
            let answer = call("/a.B/C").header("a", "1").of(&config(&matches(&some)));
            assert!(
                answer.ends_with(&format!(": ml/{}:80", ladder[top - 1].1)),
                "{answer}"
            );
        }
    }
}

#[test]
fn weights_filters_and_grants() {
    let rules = "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}], \
                 backendRefs: [{name: a, port: 80, weight: 9}, {name: b, port: 80, weight: 1}]}]";
    let loaded = config(&(GATEWAY.to_owned() + &grpc("g", "", rules)));
    assert_eq!(call("/a/b").of(&loaded), "ml/g/0: ml/a:80=9 ml/b:80=1");
    assert_eq!(named(&loaded, "ml/g/0").request_headers.set[0].1, "b");
    let foreign = "[{backendRefs: [{name: a, port: 80, namespace: other}]}]";
    let refused = config(&(GATEWAY.to_owned() + &grpc("g", "", foreign)));
    let Action::Respond(respond) = &named(&refused, "ml/g/0").action else {
        panic!("{:?}", refused.routes)
    };
    let headers: Vec<(&str, &str)> = respond
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(respond.status, 200);
    assert_eq!(
        headers,
        [("content-type", "application/grpc"), ("grpc-status", "14")]
    );
}

/// Of routes of both kinds with a common host on one listener the older one is accepted.
#[test]
fn one_host_has_routes_of_one_kind() {
    let rules = "[{backendRefs: [{name: a, port: 80}]}]";
    for (http, rpc, both) in [
        ("x.com", "y.com", true),
        ("x.com", "x.com", false),
        ("'*.com'", "x.com", false),
        ("x.com", "'*.com'", false),
        ("", "x.com", false),
        ("'*.a.com'", "'*.b.com'", true),
    ] {
        let text = GATEWAY.to_owned() + &hosted("a", http, rules) + &grpc("b", rpc, rules);
        let found = findings(&made(&text)).join("\n");
        assert_eq!(
            !found.contains("belong to HTTPRoute ml/a"),
            both,
            "{http} {rpc} {found}"
        );
        assert_eq!(config(&text).routes.len(), if both { 2 } else { 1 });
    }
    let older = grpc("b", "x.com", rules).replace(
        "{name: b,",
        "{name: b, creationTimestamp: \"2020-01-01T00:00:00Z\",",
    );
    let text = GATEWAY.to_owned() + &route("a", rules) + &older;
    let found = findings(&made(&text)).join("\n");
    assert!(found.contains("belong to GRPCRoute ml/b"), "{found}");
}

#[test]
fn calls_that_cannot_be_matched_drop_their_match() {
    for one in [
        "{method: {service: a/b, method: C}}",
        "{method: {type: RegularExpression, service: '('}}",
        "{method: {type: Odd, service: a}}",
        "{method: {service: [a]}}",
        "{method: {service: 'a b?'}}",
        "{method: 5}",
        "{headers: [{name: a}]}",
        "{headers: 5}",
        "5",
    ] {
        let text = matches(&[(one, "s")]);
        let found = findings(&made(&text)).join("\n");
        assert!(
            found.contains("rules[0].matches[0]") && found.contains("no match of the rule is left"),
            "{one}\n{found}"
        );
        assert_eq!(call("/a/C").of(&config(&text)), "404", "{one}");
    }
}
