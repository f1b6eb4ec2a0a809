//! Where routes are attached: parents, sections, ports, hostnames, namespaces, kinds.

use std::fmt::Write;

use forebay_config::diagnostic::Code;
use forebay_config::load::load;

use crate::gateway_api::{GATEWAY, ask, config, hosted, made, route};
use crate::support::{file, findings, loaded};

const BACKEND: &str = "[{backendRefs: [{name: a, port: 80}]}]";

/// A Gateway `ml/edge` with these listeners, a flow list.
fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: ml}}\n\
         spec: {{gatewayClassName: x, listeners: {listeners}}}\n"
    )
}

/// A route `ml/r` with these parents.
fn child(parents: &str) -> String {
    route("r", BACKEND).replace("[{name: edge}]", parents)
}

#[test]
fn routes_are_on_the_listeners_that_they_name() {
    let two = gateway(
        "[{name: one, port: 80, protocol: HTTP}, {name: two, port: 81, protocol: HTTP}, {name: three, port: 82, protocol: HTTP}]",
    );
    for (parents, ports) in [
        ("[{name: edge}]", "80 81 82"),
        ("[{name: edge, sectionName: two}]", "81"),
        ("[{name: edge, port: 82}]", "82"),
        ("[{name: edge, sectionName: one, port: 80}]", "80"),
        ("[{name: edge, sectionName: one, port: 81}]", ""),
        ("[{name: edge, sectionName: none}]", ""),
        (
            "[{name: edge, sectionName: one}, {name: edge, sectionName: three}]",
            "80 82",
        ),
        ("[{name: edge, namespace: ml}]", "80 81 82"),
        ("[{name: edge, namespace: other}]", ""),
        ("[{name: other}]", ""),
        ("[{name: edge, kind: Service, group: ''}]", ""),
        ("[{name: edge, port: 0}]", ""),
        ("[{name: edge, sectionName: 5}]", ""),
        ("[{name: edge, namespace: 5}]", ""),
        ("[{name: edge, kind: [Gateway]}]", ""),
        ("[{namespace: ml}]", ""),
        ("5", ""),
        ("[]", ""),
    ] {
        let config = config(&(two.clone() + &child(parents)));
        let answers = [80, 81, 82].into_iter().filter(|port| {
            let answer = ask("h", "/").on(&format!("http-{port}")).of(&config);
            assert!(["404", "ml/r/0: ml/a:80"].contains(&&*answer), "{answer}");
            answer != "404"
        });
        let found: Vec<String> = answers.map(|port| port.to_string()).collect();
        assert_eq!(found.join(" "), ports, "{parents}");
    }
}

/// Hostnames of a listener and of a route, and the hosts that the route then gets.
#[test]
fn hostnames_intersect_as_the_specification_says() {
    for (listener, own, hosts) in [
        (
            "",
            "",
            "h.example.com test.example.com foo.test.example.com example.com",
        ),
        ("test.example.com", "", "test.example.com"),
        ("test.example.com", "test.example.com", "test.example.com"),
        ("test.example.com", "'*.example.com'", "test.example.com"),
        ("test.example.com", "h.example.com", ""),
        ("test.example.com", "'*.org'", ""),
        (
            "*.example.com",
            "",
            "h.example.com test.example.com foo.test.example.com",
        ),
        (
            "*.example.com",
            "'*.example.com'",
            "h.example.com test.example.com foo.test.example.com",
        ),
        ("*.example.com", "test.example.com", "test.example.com"),
        (
            "*.example.com",
            "foo.test.example.com",
            "foo.test.example.com",
        ),
        (
            "*.example.com",
            "'*.test.example.com'",
            "foo.test.example.com",
        ),
        ("*.example.com", "example.com", ""),
        (
            "*.example.com",
            "test.example.com, test.example.net",
            "test.example.com",
        ),
        (
            "*.example.com",
            "'*.com'",
            "h.example.com test.example.com foo.test.example.com",
        ),
        ("*.Example.com", "TEST.example.com", "test.example.com"),
        (
            "",
            "example.com, '*.test.example.com'",
            "foo.test.example.com example.com",
        ),
    ] {
        let text = gateway(&format!(
            "[{{name: l, port: 80, protocol: HTTP, hostname: '{listener}'}}]"
        ));
        let config = config(&(text + &hosted("r", own, BACKEND)));
        let all = [
            "h.example.com",
            "test.example.com",
            "foo.test.example.com",
            "example.com",
            "test.example.net",
        ];
        let found = all
            .into_iter()
            .filter(|host| ask(host, "/").of(&config) != "404");
        let found: Vec<&str> = found
            .filter(|host| !listener.is_empty() || !own.is_empty() || *host != "test.example.net")
            .collect();
        assert_eq!(found.join(" "), hosts, "{listener} {own}");
    }
}

/// A request belongs to the listener with the most specific hostname, and to no other.
#[test]
fn listeners_are_isolated() {
    let text = gateway(
        "[{name: all, port: 80, protocol: HTTP}, {name: wide, port: 80, protocol: HTTP, hostname: '*.com'}, \
         {name: narrow, port: 80, protocol: HTTP, hostname: '*.a.com'}, {name: exact, port: 80, protocol: HTTP, hostname: x.a.com}]",
    );
    let on = |name: &str, path: &str, hosts: &str| {
        let rules = format!(
            "[{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {name}, port: 80}}]}}]"
        );
        hosted(name, hosts, &rules).replace(
            "{name: edge}",
            &format!("{{name: edge, sectionName: {name}}}"),
        )
    };
    let text = text
        + &on("all", "/", "")
        + &on("wide", "/w", "")
        + &on("narrow", "/n", "")
        + &on("exact", "/e", "");
    let config = config(&text);
    for (host, path, want) in [
        ("b.org", "/w", "ml/all/0: ml/all:80"),
        ("b.com", "/w", "ml/wide/0: ml/wide:80"),
        ("b.com", "/n", "ml/edge/1/no-match: 404"),
        ("b.a.com", "/n", "ml/narrow/0: ml/narrow:80"),
        ("b.a.com", "/w", "ml/edge/2/no-match: 404"),
        ("x.a.com", "/e", "ml/exact/0: ml/exact:80"),
        ("x.a.com", "/n", "ml/edge/3/no-match: 404"),
        ("y.x.a.com", "/n", "ml/narrow/0: ml/narrow:80"),
    ] {
        assert_eq!(ask(host, path).of(&config), want, "{host} {path}");
    }
    let hidden = gateway(
        "[{name: wide, port: 80, protocol: HTTP}, {name: exact, port: 80, protocol: HTTP, hostname: x.a.com}]",
    ) + &on("wide", "/", "x.a.com");
    let found = findings(&made(&hidden));
    assert!(
        found[0].contains("another listener has a more specific hostname"),
        "{found:?}"
    );
}

#[test]
fn one_route_on_several_listeners_of_a_port_has_all_of_their_hosts() {
    let text = gateway(
        "[{name: all, port: 80, protocol: HTTP}, {name: exact, port: 80, protocol: HTTP, hostname: x.com}]",
    );
    let config = config(&(text + &child("[{name: edge}]")));
    for host in ["x.com", "y.com"] {
        assert_eq!(ask(host, "/").of(&config), "ml/r/0: ml/a:80", "{host}");
    }
}

#[test]
fn listeners_take_routes_of_the_namespaces_they_allow() {
    let namespaces = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {tier: gold, env: prod}}\n\
                      ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: bare}\n";
    let allow = |keys: &str| {
        gateway(&format!(
            "[{{name: l, port: 80, protocol: HTTP, allowedRoutes: {{{keys}}}}}]"
        )) + namespaces
    };
    let of = |namespace: &str| {
        child("[{name: edge, namespace: ml}]").replace(
            "namespace: ml}\nspec",
            &format!("namespace: {namespace}}}\nspec"),
        )
    };
    let selector = |text: &str| format!("namespaces: {{from: Selector, selector: {{{text}}}}}");
    for (keys, allowed) in [
        (String::new(), "ml"),
        ("namespaces: {}".to_owned(), "ml"),
        ("namespaces: {from: Same}".to_owned(), "ml"),
        ("namespaces: {from: All}".to_owned(), "ml team bare ghost"),
        ("namespaces: {from: None}".to_owned(), ""),
        ("namespaces: {from: Odd}".to_owned(), ""),
        (selector("matchLabels: {tier: gold}"), "team"),
        (selector("matchLabels: {tier: gold, env: test}"), ""),
        (
            selector("matchExpressions: [{key: tier, operator: Exists}]"),
            "team",
        ),
        (
            selector("matchExpressions: [{key: env, operator: In, values: [prod, test]}]"),
            "team",
        ),
        (
            selector("matchExpressions: [{key: tier, operator: Odd}]"),
            "",
        ),
        (
            selector("matchLabels: {kubernetes.io/metadata.name: ghost}"),
            "ghost",
        ),
        (
            selector("matchExpressions: [{key: tier, operator: DoesNotExist}]"),
            "bare",
        ),
        (
            selector("matchExpressions: [{key: env, operator: NotIn, values: [prod]}]"),
            "bare",
        ),
        (
            selector("matchExpressions: [{key: env, operator: NotIn, values: [{}]}]"),
            "",
        ),
        (selector("matchExpressions: 5"), ""),
        (selector("matchLabels: 5"), ""),
        (selector("matchLabels: {tier: [gold]}"), ""),
        (selector(""), "ml team bare ghost"),
        (
            "kinds: [{kind: HTTPRoute}], namespaces: {from: Same}".to_owned(),
            "ml",
        ),
        (
            "kinds: [{kind: GRPCRoute}, {group: x.io, kind: HTTPRoute}]".to_owned(),
            "",
        ),
    ] {
        let all = ["ml", "team", "bare", "ghost"];
        let found = all.into_iter().filter(|namespace| {
            let config = config(&(allow(&keys) + &of(namespace)));
            ask("h", "/").of(&config) != "404"
        });
        let found: Vec<&str> = found.collect();
        assert_eq!(found.join(" "), allowed, "{keys}");
    }
    let unknown = allow(&selector("matchLabels: {tier: gold}")) + &of("ghost");
    let found = findings(&made(&unknown));
    assert!(
        found[0].contains("no document describes the Namespace `ghost`"),
        "{found:?}"
    );
}

#[test]
fn without_any_gateway_a_route_is_on_every_listener() {
    let text = hosted("r", "x.com", BACKEND);
    let config = config(&text);
    assert_eq!(ask("x.com", "/").of(&config), "ml/r/0: ml/a:80");
    assert_eq!(ask("y.com", "/").of(&config), "404");
    assert_eq!(
        findings(&made(&text)),
        [
            "5:21 approximated spec.parentRefs[0]: no document describes a Gateway: the route is on every HTTP listener"
        ]
    );
}

#[test]
fn certificates_are_files_that_the_operator_gave() {
    let tls = |tls: &str| {
        gateway(&format!("[{{name: l, port: 443, protocol: HTTPS{tls}}}]"))
            + &child("[{name: edge}]")
    };
    let given = tls(", tls: {certificateRefs: [{name: web-tls}]}");
    let loaded = config(&given);
    assert!(loaded.listeners[0].tls.is_some());
    assert_eq!(ask("h", "/").on("https-443").of(&loaded), "ml/r/0: ml/a:80");
    for (keys, note) in [
        ("", "lost! spec.listeners[0].protocol: without `tls`"),
        (", tls: {}", "without `certificateRefs`"),
        (
            ", tls: {certificateRefs: [{name: unknown}]}",
            "name: no files are given for the Secret `ml/unknown`",
        ),
        (
            ", tls: {certificateRefs: [{name: wildcard, namespace: other}]}",
            "no ReferenceGrant lets this Gateway use Secrets of `other`",
        ),
        (
            ", tls: {certificateRefs: [{name: web-tls, kind: ConfigMap}]}",
            "lost! spec.listeners[0].tls.certificateRefs[0].kind",
        ),
        (
            ", tls: {mode: Passthrough, certificateRefs: [{name: web-tls}]}",
            "lost! spec.listeners[0].tls.mode",
        ),
        (
            ", tls: {options: {a/min: '1.3'}, certificateRefs: [{name: web-tls}]}",
            "lost! spec.listeners[0].tls.options",
        ),
        (
            ", tls: {frontendValidation: {caCertificateRefs: []}, certificateRefs: [{name: web-tls}]}",
            "lost! spec.listeners[0].tls.frontendValidation",
        ),
    ] {
        let text = tls(keys);
        let translation = made(&text);
        let found = findings(&translation).join("\n");
        assert!(
            found.contains(note) && found.contains("lost!"),
            "{keys}\n{found}"
        );
        let refused = load(&[file("a.yaml", &text)], &|_| None).unwrap_err();
        assert!(
            refused.0.iter().any(|one| one.code == Code::Unprotected),
            "{refused}"
        );
    }
}

#[test]
fn listeners_that_cannot_be_told_apart_do_not_count() {
    for (listeners, note) in [
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]",
            "another listener has its port and hostname",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, hostname: X.com}, {name: b, port: 80, protocol: HTTP, hostname: x.com}]",
            "another listener",
        ),
        (
            "[{name: a, port: 80, protocol: TCP}]",
            "only HTTP and HTTPS are translated",
        ),
        (
            "[{name: a, port: 80, protocol: TLS, tls: {mode: Passthrough}}]",
            "only HTTP and HTTPS are translated",
        ),
        ("[{name: a, protocol: HTTP}]", "a listener needs a `port`"),
        (
            "[{name: a, port: 70000, protocol: HTTP}]",
            "from 1 to 65535",
        ),
        (
            "[{port: 80, protocol: HTTP}]",
            "needs `name` and `protocol`",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, hostname: 'a b'}]",
            "a b",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, hostname: [a]}]",
            "hostname",
        ),
        ("[5]", "expected a map"),
        ("{}", "expected a list"),
    ] {
        let text = gateway(listeners) + &child("[{name: edge}]");
        let found = findings(&made(&text)).join("\n");
        assert!(found.contains(note), "{listeners}\n{found}");
        assert_eq!(ask("h", "/").of(&config(&text)), "404", "{listeners}");
    }
    let mixed = gateway(
        "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTPS, hostname: x.com, tls: {certificateRefs: [{name: web-tls}]}}]",
    );
    let found = findings(&made(&mixed));
    assert!(
        found[0].contains("port 80 speaks http already"),
        "{found:?}"
    );
}

#[test]
fn gateways_that_share_a_port_are_one() {
    let second = GATEWAY.replace("name: edge", "name: inner");
    let text = format!("{GATEWAY}---\n{second}") + &child("[{name: inner}]");
    let found = findings(&made(&text));
    assert_eq!(
        found,
        [
            "9:60 approximated spec.listeners[0].port: port and hostname are shared with `ml/edge/http`"
        ]
    );
    assert_eq!(ask("h", "/").of(&config(&text)), "ml/r/0: ml/a:80");
}

#[test]
fn ten_thousand_routes_are_found_by_their_hosts() {
    let mut text = GATEWAY.to_owned();
    for number in 0..10_000 {
        let rules = format!(
            "[{{matches: [{{path: {{value: /x}}}}], backendRefs: [{{name: s{number}, port: 80}}]}}]"
        );
        write!(
            text,
            "{}",
            hosted(
                &format!("r{number}"),
                &format!("h{number}.example.com"),
                &rules
            )
        )
        .unwrap();
    }
    let config = loaded(&[("a.yaml", &text)]).unwrap().config;
    assert_eq!(
        (config.routes.len(), config.clusters.len()),
        (10_000, 10_000)
    );
    for number in [0, 4_711, 9_999] {
        let answer = ask(&format!("h{number}.example.com"), "/x/y").of(&config);
        assert_eq!(answer, format!("ml/r{number}/0: ml/s{number}:80"));
    }
}
