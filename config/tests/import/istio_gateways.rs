//! Listeners of Gateways, and which rules are on which of them.

use forebay_config::ListenerProtocol;

use crate::istio_support::{ask_at, config, service_of, to, translation};
use crate::support::{findings, loaded};

const SERVERS: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: ml}\nspec:\n  servers:\n";

/// A Gateway `ml/web` with these servers.
fn gateway(servers: &str) -> String {
    format!("{SERVERS}{servers}---\n")
}

/// A VirtualService on these gateways.
fn bound(gateways: &str, hosts: &str, rules: &str) -> String {
    let text = service_of(hosts, rules);
    text.replace("  http:", &format!("  gateways: {gateways}\n  http:"))
}

const PLAIN: &str =
    "  - {port: {number: 80, protocol: HTTP}, hosts: ['*.example.com', a.example.org]}\n";
const CLOSED: &str = "  - {port: {number: 443, protocol: HTTPS}, hosts: ['ml/*'], tls: {mode: SIMPLE, credentialName: web-tls}}\n";

#[test]
fn servers_become_listeners_and_rules_are_on_those_of_their_gateways() {
    let rules = format!(
        "  - match: [{{uri: {{prefix: /closed}}, scheme: {{exact: https}}}}]\n    {}\n  - match: [{{port: 80}}]\n    {}\n  - {}\n",
        to("closed"),
        to("plain"),
        to("rest")
    );
    let text = gateway(&format!("{PLAIN}{CLOSED}")) + &bound("[web]", "['*.example.com']", &rules);
    assert_eq!(findings(&translation(&text)), [""; 0]);
    let config = config(&text);
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|one| format!("{} {} {}", one.name, one.address, one.tls.is_some()))
        .collect();
    assert_eq!(
        listeners,
        ["http-80 0.0.0.0:80 false", "https-443 0.0.0.0:443 true"]
    );
    for (listener, target, wanted) in [
        ("http-80", "a.example.com/closed", "ml/plain:80 /closed"),
        ("https-443", "a.example.com/closed", "ml/closed:80 /closed"),
        ("https-443", "a.example.com/x", "ml/rest:80 /x"),
        ("http-80", "a.example.org/x", "404"),
        ("https-443", "a.example.org/x", "404"),
        ("other", "a.example.com/x", "404"),
    ] {
        assert_eq!(
            ask_at(&config, Some(listener), "GET", target, &[]),
            wanted,
            "{listener} {target}"
        );
    }
}

#[test]
fn hosts_are_those_that_service_and_server_have_in_common() {
    let rules = format!("  - {}\n", to("x"));
    for (server, hosts, target, found) in [
        ("'*'", "[a.b]", "a.b/", true),
        ("a.b", "['*']", "a.b/", true),
        ("a.b", "['*']", "c.b/", false),
        ("'*.b'", "['*.a.b']", "x.a.b/", true),
        ("'*.b'", "['*.a.b']", "x.b/", false),
        ("'*.a.b'", "['*.b']", "x.a.b/", true),
        ("'*.a.b'", "['*.b']", "x.b/", false),
        ("'ml/*'", "[a.b]", "a.b/", true),
        ("'./*'", "[a.b]", "a.b/", true),
        ("'*/*'", "[a.b]", "a.b/", true),
        ("'other/*'", "[a.b]", "a.b/", false),
        ("c.d", "[a.b]", "a.b/", false),
    ] {
        let servers = format!("  - {{port: {{number: 80, protocol: HTTP}}, hosts: [{server}]}}\n");
        let text = gateway(&servers) + &bound("[ml/web]", hosts, &rules);
        let config = config(
            &(text + "---\nroutes: [{name: own, match: {hosts: [own.example]}, respond: {}}]\n"),
        );
        let answer = ask_at(&config, Some("http-80"), "GET", target, &[]);
        assert_eq!(answer != "404", found, "{server} {hosts} {target}");
    }
}

#[test]
fn a_server_that_redirects_serves_nothing_else() {
    let servers = "  - {port: {number: 80, protocol: HTTP}, hosts: ['*.example.com'], tls: {httpsRedirect: true}}\n";
    let text = gateway(&format!("{servers}{CLOSED}"))
        + &bound("[web]", "['*']", &format!("  - {}\n", to("x")));
    let config = config(&text);
    for (listener, target, wanted) in [
        (
            "http-80",
            "a.example.com/x?y=1",
            "301 https://a.example.com/x?y=1",
        ),
        ("http-80", "a.example.org/x", "404"),
        ("https-443", "a.example.com/x", "ml/x:80 /x"),
    ] {
        assert_eq!(
            ask_at(&config, Some(listener), "GET", target, &[]),
            wanted,
            "{listener} {target}"
        );
    }
}

#[test]
fn nothing_listens_without_what_protects_it() {
    for (tls, finding) in [
        (
            "{mode: SIMPLE, credentialName: none}",
            "lost! spec.servers[1].tls.credentialName: no certificate was given for the Secret `ml/none`, and nothing listens without",
        ),
        (
            "{mode: MUTUAL, credentialName: web-tls}",
            "lost! spec.servers[1].tls.mode: certificates of clients: use `tls: {client_ca: …}` of a native listener",
        ),
        (
            "{mode: ISTIO_MUTUAL}",
            "lost! spec.servers[1].tls.mode: certificates of clients: use `tls: {client_ca: …}` of a native listener",
        ),
        (
            "{mode: SIMPLE, serverCertificate: /etc/a.crt, privateKey: /etc/a.key}",
            "lost! spec.servers[1].tls.serverCertificate: documents name no files; use `credentialName`",
        ),
        (
            "{mode: PASSTHROUGH}",
            "lost spec.servers[1].tls.mode: connections with TLS are not told apart by their server name",
        ),
        (
            "{credentialName: web-tls, cipherSuites: [A]}",
            "lost! spec.servers[1].tls.cipherSuites: only strong ones are spoken, and none can be chosen",
        ),
        (
            "{credentialName: web-tls, minProtocolVersion: TLSV1_3}",
            "lost! spec.servers[1].tls.minProtocolVersion: TLS 1.2 is always spoken",
        ),
    ] {
        let servers = format!(
            "{PLAIN}  - {{port: {{number: 443, protocol: HTTPS}}, hosts: ['*'], tls: {tls}}}\n"
        );
        let text = gateway(&servers) + &bound("[web]", "['*']", &format!("  - {}\n", to("x")));
        let translation = translation(&text);
        let all = findings(&translation);
        assert!(
            all.iter().any(|one| one.ends_with(finding)),
            "{tls}: {all:#?}"
        );
        let listens = translation
            .root
            .get("listeners")
            .is_some_and(|list| format!("{list:?}").contains("443"));
        assert_eq!(
            listens,
            tls.contains("cipher") || tls.contains("TLSV1_3"),
            "{tls}"
        );
        let refused = loaded(&[("a.yaml", &text)]).is_err();
        assert_eq!(refused, finding.contains("lost!"), "{tls}");
    }
}

#[test]
fn gateways_that_are_not_described_take_nothing_when_others_are() {
    let rules = format!("  - {}\n", to("x"));
    for (gateways, finding) in [
        (
            "[other]",
            "lost spec.gateways: no document describes ml/other",
        ),
        (
            "[mesh]",
            "lost spec.http: no Gateway of the documents is meant, so that no listener takes its requests",
        ),
        (
            "[]",
            "lost spec.http: no Gateway of the documents is meant, so that no listener takes its requests",
        ),
        (
            "5",
            "lost spec.gateways: expected a list, found the number `5`",
        ),
    ] {
        let text = gateway(PLAIN) + &bound(gateways, "['*']", &rules);
        let translation = translation(&text);
        let all = findings(&translation);
        assert!(
            all.iter().any(|one| one.ends_with(finding)),
            "{gateways}: {all:#?}"
        );
        assert!(translation.root.get("routes").is_none(), "{gateways}");
    }
    let text = gateway(PLAIN) + &bound("[web, other/gone, mesh]", "['*']", &rules);
    let config = config(&text);
    assert_eq!(
        ask_at(&config, Some("http-80"), "GET", "a.example.com/", &[]),
        "ml/x:80 /"
    );
    assert_eq!(
        findings(&translation(&text)),
        ["13:13 lost spec.gateways: no document describes other/gone"]
    );
}

#[test]
fn connections_of_a_port_go_where_the_first_rule_says() {
    let servers = "  - {port: {number: 5000, protocol: TCP}, hosts: ['*']}\n";
    let rules = "  - match: [{port: 5000}]\n    route: [{destination: {host: a, port: {number: 9}}}]\n  - route: [{destination: {host: b, port: {number: 9}}}]\n";
    let text = gateway(servers) + &bound("[web]", "['*']", rules).replace("  http:", "  tcp:");
    assert_eq!(
        findings(&translation(&text)),
        ["17:5 lost spec.tcp[1]: the port 5000 has a route already; it is for no port"]
    );
    let config = config(&text);
    assert_eq!(config.listeners[0].protocol, ListenerProtocol::Tcp);
    assert_eq!(config.routes[0].listeners, ["tcp-5000"]);
}

#[test]
fn servers_that_cannot_be_served_are_lost() {
    for (server, note) in [
        ("{hosts: ['*']}", "`port` is missing"),
        (
            "{port: {number: 0, protocol: HTTP}, hosts: ['*']}",
            "`port.number` is missing",
        ),
        (
            "{port: {number: 1, protocol: UDP}, hosts: ['*']}",
            "the protocol `UDP` is not served",
        ),
        (
            "{port: {number: 1, protocol: HTTP}, hosts: []}",
            "there is no host that requests can have",
        ),
        (
            "{port: {number: 1, protocol: HTTPS}, hosts: ['*']}",
            "HTTPS needs `tls`",
        ),
        (
            "{port: {number: 80, protocol: TCP}, hosts: ['*']}",
            "`http-80` has the port 80 already",
        ),
    ] {
        let all = findings(&translation(&gateway(&format!("{PLAIN}  - {server}\n"))));
        assert!(
            all.iter().any(|one| one.ends_with(note)),
            "{server}: {all:#?}"
        );
    }
}

#[test]
fn a_host_is_closed_on_all_listeners_that_its_rules_are_on() {
    let servers = "  - {port: {number: 80, protocol: HTTP}, hosts: ['*']}\n  - {port: {number: 81, protocol: HTTP}, hosts: ['*']}\n";
    let rules = format!(
        "  - match: [{{uri: {{exact: /x}}}}]\n    {}\n  - match: [{{port: 80}}]\n    {}\n  - match: [{{uri: {{exact: /y}}}}]\n    {}\n",
        to("x"),
        to("plain"),
        to("y")
    );
    let wide =
        bound("[web]", "['*']", &format!("  - {}\n", to("wide"))).replace("name: v,", "name: w,");
    let text = gateway(servers) + &bound("[web]", "[a.example.com]", &rules) + "---\n" + &wide;
    let config = config(&text);
    for (listener, target, wanted) in [
        ("http-80", "a.example.com/x", "ml/x:80 /x"),
        ("http-80", "a.example.com/y", "ml/plain:80 /y"),
        ("http-81", "a.example.com/y", "ml/y:80 /y"),
        ("http-81", "a.example.com/z", "404"),
        ("http-81", "b.example.com/z", "ml/wide:80 /z"),
    ] {
        assert_eq!(
            ask_at(&config, Some(listener), "GET", target, &[]),
            wanted,
            "{listener} {target}"
        );
    }
}

#[test]
fn a_redirect_to_a_host_has_the_port_of_its_scheme() {
    let text = gateway(&format!("{PLAIN}{CLOSED}"))
        + &bound(
            "[web]",
            "['*.example.com']",
            "  - redirect: {authority: o.example}\n",
        );
    let config = config(&text);
    for (listener, wanted) in [
        ("http-80", "301 http://o.example/x"),
        ("https-443", "301 https://o.example/x"),
    ] {
        assert_eq!(
            ask_at(&config, Some(listener), "GET", "a.example.com/x", &[]),
            wanted
        );
    }
}
