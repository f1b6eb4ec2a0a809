//! What DestinationRules and ServiceEntries make of clusters.

use std::sync::Arc;

use forebay_config::import::{Options, to_yaml, translate};
use forebay_config::{Balance, Cluster, Config, HashKey, UpstreamProtocol};

use crate::istio_support::{ask, config, service, translation};
use crate::support::{findings, loaded, parsed};

const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: ml}\nspec:\n\
    \x20 hosts: [m.internal]\n  resolution: STATIC\n  ports: [{number: 80, name: a}, {number: 81, name: b}]\n\
    \x20 endpoints: [{address: 10.0.0.1, labels: {version: v1}}, {address: 10.0.0.2, labels: {version: v2}}, {address: 10.0.0.3, labels: {version: v2}}, {address: 10.0.0.4, labels: {version: v2}}]\n---\n";

/// A DestinationRule for `m.internal`.
fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d, namespace: ml}}\nspec:\n  host: m.internal\n{spec}\n---\n"
    )
}

/// Requests to both ports of `m.internal`, and to its subset `v1` when it is there.
fn routes(subset: bool) -> String {
    let route = |path: &str, port: u16, more: &str| {
        format!(
            "  - match: [{{uri: {{exact: {path}}}}}]\n    route: [{{destination: {{host: m.internal, port: {{number: {port}}}{more}}}}}]\n"
        )
    };
    let mut rules = route("/a", 80, "") + &route("/b", 81, "");
    if subset {
        rules += &route("/c", 80, ", subset: v1");
        rules += &route("/d", 81, ", subset: v1");
    }
    service(&rules)
}

fn cluster(config: &Config, name: &str) -> Arc<Cluster> {
    let mut clusters = config.clusters.iter();
    let found = clusters.find(|one| one.name == name);
    Arc::clone(found.unwrap_or_else(|| panic!("{name}: {:#?}", config.clusters)))
}

#[test]
fn subsets_are_endpoints_with_labels() {
    let text =
        ENTRY.to_owned() + &rule("  subsets: [{name: v1, labels: {version: v1}}]") + &routes(true);
    assert_eq!(findings(&translation(&text)), [""; 0]);
    let config = config(&text);
    assert_eq!(ask(&config, "GET", "/c", &[]), "m.internal:80/v1 /c");
    let subset = cluster(&config, "m.internal:80/v1");
    assert_eq!(subset.subset["version"], "v1");
    assert_eq!(subset.endpoints.len(), 4);
    assert!(cluster(&config, "m.internal:80").subset.is_empty());
}

#[test]
fn addresses_of_a_name_have_no_labels_and_a_pin_needs_none() {
    let rules = "  - route: [{destination: {host: a, port: {number: 80}, subset: v1}}]\n";
    let text = rule("  subsets: [{name: v1, labels: {version: v1}}]").replace("m.internal", "a")
        + &service(rules);
    let all = findings(&translation(&text));
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(
        all[0].starts_with("6:32 lost spec.subsets[0].labels: addresses of a name have no labels"),
        "{all:#?}"
    );
    assert!(cluster(&config(&text), "ml/a:80/v1").subset.is_empty());
    let pinned = Options {
        pins: vec!["a.ml/v1:80=127.0.0.1:9000".parse().unwrap()],
        ..Options::default()
    };
    let translation = translate(&parsed(&text), &pinned);
    assert_eq!(findings(&translation), [""; 0]);
    let printed = to_yaml(&translation.root);
    assert!(
        printed.contains("address: 127.0.0.1:9000") && !printed.contains("subset:"),
        "{printed}"
    );
}

#[test]
fn a_port_replaces_the_policy_and_a_subset_its_parts() {
    let spec = "  trafficPolicy:\n    loadBalancer: {simple: RANDOM}\n    connectionPool: {tcp: {maxConnections: 5}}\n\
        \x20   portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}, {port: {number: 99}, tls: {mode: SIMPLE}}]\n\
        \x20 subsets:\n  - name: v1\n    trafficPolicy:\n      loadBalancer: {consistentHash: {httpHeaderName: X-User}}\n\
        \x20     portLevelSettings: [{port: {number: 81}, connectionPool: {tcp: {maxConnections: 9}}}]\n  - {name: idle, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
    let text = ENTRY.to_owned() + &rule(spec) + &routes(true);
    assert_eq!(
        findings(&translation(&text)),
        [
            "18:84 approximated spec.trafficPolicy.portLevelSettings[1]: without effect: no route goes to this port",
            "24:5 approximated spec.subsets[1]: without effect: no route goes to it",
        ]
    );
    let config = config(&text);
    for (name, balance, connections) in [
        ("m.internal:80", Balance::Random, Some(5)),
        ("m.internal:81", Balance::RoundRobin, Some(1024)),
        (
            "m.internal:80/v1",
            Balance::Hash(HashKey::Header("x-user".parse().unwrap())),
            Some(5),
        ),
        ("m.internal:81/v1", Balance::LeastRequests, Some(9)),
    ] {
        let one = cluster(&config, name);
        assert_eq!(
            (&one.balance, one.breaker.connections),
            (&balance, connections),
            "{name}"
        );
    }
}

#[test]
fn connections_and_outliers() {
    let spec = "  trafficPolicy:\n    connectionPool: {tcp: {maxConnections: 2000000, connectTimeout: 10ms}, http: {http2MaxRequests: 7, maxRequestsPerConnection: 1, idleTimeout: 2h, h2UpgradePolicy: UPGRADE}}\n\
        \x20   outlierDetection: {consecutive5xxErrors: 0, baseEjectionTime: 10m, maxEjectionPercent: 50}\n    loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 20s}}";
    let one = cluster(
        &config(&(ENTRY.to_owned() + &rule(spec) + &routes(false))),
        "m.internal:80",
    );
    assert_eq!(
        (one.breaker.connections, one.breaker.requests),
        (None, Some(7))
    );
    assert_eq!(
        (
            one.connect_timeout.as_millis(),
            one.keepalive.idle.as_secs(),
            one.keepalive.max_idle
        ),
        (10, 3600, 0)
    );
    assert_eq!(one.protocol, UpstreamProtocol::Http2);
    let outlier = one.outlier.as_ref().unwrap();
    assert_eq!(
        (
            outlier.consecutive_5xx.get(),
            outlier.base.as_secs(),
            outlier.max.as_secs()
        ),
        (1_000_000, 600, 600)
    );
    assert_eq!(
        (outlier.keep_at_least, outlier.slow_start.as_secs()),
        (2, 20)
    );
    for (percent, kept) in [(100, 0), (1, 3), (30, 3), (75, 1)] {
        let spec =
            format!("  trafficPolicy: {{outlierDetection: {{maxEjectionPercent: {percent}}}}}");
        let one = cluster(
            &config(&(ENTRY.to_owned() + &rule(&spec) + &routes(false))),
            "m.internal:80",
        );
        assert_eq!(
            one.outlier.as_ref().unwrap().keep_at_least,
            kept,
            "{percent}"
        );
    }
}

#[test]
fn tls_is_begun_as_asked_and_what_protects_is_never_lost_in_silence() {
    for (tls, name, finding) in [
        ("{mode: SIMPLE}", Some("m.internal"), ""),
        ("{mode: SIMPLE, sni: s.example}", Some("s.example"), ""),
        (
            "{mode: SIMPLE, sni: s.example, subjectAltNames: [S.example, t.example]}",
            Some("s.example"),
            "",
        ),
        (
            "{mode: SIMPLE, subjectAltNames: [t.example]}",
            Some("t.example"),
            "approximated spec.trafficPolicy.tls.subjectAltNames: the name is told the server as well",
        ),
        (
            "{mode: SIMPLE, sni: s.example, subjectAltNames: [t.example]}",
            Some("s.example"),
            "lost! spec.trafficPolicy.tls.subjectAltNames: the certificate is verified for the name that the server is told",
        ),
        (
            "{mode: SIMPLE, subjectAltNames: ['spiffe://a/b']}",
            Some("m.internal"),
            "lost! spec.trafficPolicy.tls.subjectAltNames: the certificate is verified for the name that the server is told",
        ),
        (
            "{mode: SIMPLE, caCertificates: /etc/ca.pem}",
            Some("m.internal"),
            "lost! spec.trafficPolicy.tls.caCertificates: documents name no files; use `tls: {ca: …}` of a native cluster",
        ),
        (
            "{mode: SIMPLE, credentialName: ca}",
            Some("m.internal"),
            "lost! spec.trafficPolicy.tls.credentialName: documents name no files; use `tls` of a native cluster",
        ),
        (
            "{mode: SIMPLE, insecureSkipVerify: true}",
            Some("m.internal"),
            "lost spec.trafficPolicy.tls.insecureSkipVerify: certificates are always verified",
        ),
        (
            "{mode: MUTUAL}",
            Some("m.internal"),
            "lost! spec.trafficPolicy.tls.mode: no certificate is shown; use `tls: {certificate: …, key: …}` of a native cluster",
        ),
        (
            "{mode: ISTIO_MUTUAL}",
            None,
            "lost! spec.trafficPolicy.tls.mode: the certificates of a mesh are not used",
        ),
        (
            "{mode: [5]}",
            None,
            "lost! spec.trafficPolicy.tls.mode: expected a string, found a list",
        ),
        (
            "{mode: ODD}",
            None,
            "lost! spec.trafficPolicy.tls.mode: the mode is not known",
        ),
        ("{mode: DISABLE}", None, ""),
    ] {
        let text =
            ENTRY.to_owned() + &rule(&format!("  trafficPolicy: {{tls: {tls}}}")) + &routes(false);
        let all = findings(&translation(&text));
        let said = all.iter().any(|one| one.ends_with(finding));
        assert!(
            said || finding.is_empty() && all.is_empty(),
            "{tls}: {all:#?}"
        );
        let refused = loaded(&[("a.yaml", &text)]);
        assert_eq!(refused.is_err(), finding.starts_with("lost!"), "{tls}");
        let printed = to_yaml(&translation(&text).root);
        let names: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("server_name: "))
            .collect();
        assert_eq!(
            names,
            vec![name; if name.is_some() { 2 } else { 0 }]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
            "{tls}"
        );
    }
}

#[test]
fn services_outside_that_speak_tls_are_talked_to_in_tls() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: ml}\nspec:\n\
        \x20 hosts: [api.example.com]\n  resolution: DNS\n  location: MESH_EXTERNAL\n  ports: [{number: 443, name: https, protocol: HTTPS}]\n---\n";
    let rules = "  - route: [{destination: {host: api.example.com, port: {number: 443}}}]\n    rewrite: {authority: api.example.com}\n";
    let text = entry.to_owned() + &service(rules);
    assert_eq!(
        findings(&translation(&text)),
        ["8:48 approximated spec.ports[0].protocol: TLS is begun here, with the name of the host"]
    );
    let name = |text: &str| {
        let one = cluster(&config(text), "api.example.com:443");
        one.tls.as_ref().and_then(|tls| tls.server_name.clone())
    };
    assert_eq!(name(&text).as_deref(), Some("api.example.com"));
    let plain =
        rule("  trafficPolicy: {tls: {mode: DISABLE}}").replace("m.internal", "api.example.com");
    assert_eq!(name(&(plain + &text)), None);
    // A native route gets the same.
    let native = format!("{entry}routes: [{{name: r, cluster: 'api.example.com:443'}}]\n");
    assert_eq!(name(&native).as_deref(), Some("api.example.com"));
    // Who tunnels connections has begun TLS already.
    let tcp = service(
        "  - match: [{port: 443}]\n    route: [{destination: {host: api.example.com, port: {number: 443}}}]\n",
    );
    assert_eq!(
        name(&(entry.to_owned() + &tcp.replace("  http:", "  tcp:"))),
        None
    );
}

#[test]
fn the_rule_of_the_longest_name_counts() {
    let wide = rule("  trafficPolicy: {loadBalancer: {simple: RANDOM}}")
        .replace("host: m.internal", "host: '*.internal'");
    let wider = rule("  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}")
        .replace("host: m.internal", "host: '*'")
        .replace("name: d", "name: w");
    let text = ENTRY.to_owned() + &wider + &wide + &routes(false);
    assert_eq!(
        cluster(&config(&text), "m.internal:80").balance,
        Balance::Random
    );
    assert_eq!(
        findings(&translation(&text)),
        ["14:3 approximated spec: without effect: no route goes to `*`"]
    );
}

#[test]
fn rules_that_cannot_hold_are_lost() {
    for (spec, finding) in [
        (
            "  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}",
            "lost spec.trafficPolicy.loadBalancer.simple: least requests are chosen",
        ),
        (
            "  trafficPolicy: {loadBalancer: {consistentHash: {httpQueryParameterName: a}}}",
            "lost spec.trafficPolicy.loadBalancer.consistentHash: it names neither a header, a cookie nor the client's address",
        ),
        (
            "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: host}}}",
            "lost spec.trafficPolicy.loadBalancer.consistentHash: the header `host` cannot be edited",
        ),
        (
            "  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {ttl: 0s}}}}",
            "lost spec.trafficPolicy.loadBalancer.consistentHash: `httpCookie.name` is missing",
        ),
        (
            "  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 5}}}",
            "lost spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection: connections are used for any number of requests, unless it is 1",
        ),
        (
            "  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}",
            "lost spec.trafficPolicy.connectionPool.tcp.connectTimeout: it is from 1 ms to 1 h",
        ),
        (
            "  trafficPolicy: {outlierDetection: {baseEjectionTime: 0s}}",
            "lost spec.trafficPolicy.outlierDetection.baseEjectionTime: it is at least 1 ms",
        ),
        (
            "  trafficPolicy: {speling: 1}",
            "lost spec.trafficPolicy.speling: not translated",
        ),
        (
            "  trafficPolicy: []",
            "lost spec.trafficPolicy: expected a map, found a list",
        ),
        (
            "  trafficPolicy: {portLevelSettings: [{port: 5, tls: {mode: SIMPLE}}]}",
            "lost spec.trafficPolicy.portLevelSettings[0]: `port.number` is missing",
        ),
        (
            "  subsets: [{labels: {a: b}}]",
            "lost spec.subsets[0]: `name` is missing",
        ),
        (
            "  subsets: [{name: a}, {name: a}]",
            "lost! spec.subsets[1].name: there is a subset of this name already",
        ),
        (
            "  workloadSelector: {matchLabels: {a: b}}",
            "lost! spec.workloadSelector: there are no workloads to choose from, so that the whole rule does not hold",
        ),
    ] {
        let text = ENTRY.to_owned() + &rule(spec) + &routes(false);
        let all = findings(&translation(&text));
        assert!(
            all.iter().any(|one| one.ends_with(finding)),
            "{spec}: {all:#?}"
        );
    }
    let twice = rule("  trafficPolicy: {tls: {mode: SIMPLE}}")
        + &rule("  trafficPolicy: {tls: {mode: DISABLE}}").replace("name: d", "name: e");
    let all = findings(&translation(&(ENTRY.to_owned() + &twice + &routes(false))));
    assert_eq!(
        all,
        ["22:18 lost! spec.trafficPolicy: another rule of this host has one"]
    );
}

#[test]
fn other_kinds_of_a_mesh_are_findings() {
    for (api, kind, secure) in [
        ("security.istio.io/v1", "AuthorizationPolicy", true),
        ("security.istio.io/v1", "RequestAuthentication", true),
        ("security.istio.io/v1", "PeerAuthentication", true),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", false),
        ("networking.istio.io/v1", "Sidecar", false),
        ("networking.istio.io/v1", "WorkloadEntry", false),
        ("telemetry.istio.io/v1", "Telemetry", false),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", true),
    ] {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n");
        let all = findings(&translation(&text));
        assert_eq!(all.len(), 1, "{all:#?}");
        let level = if secure {
            "2:7 lost! : "
        } else {
            "2:7 lost : "
        };
        assert!(all[0].starts_with(level), "{kind}: {all:#?}");
        let native = ("b.yaml", "routes: [{name: r, respond: {}}]");
        assert_eq!(
            loaded(&[("a.yaml", &text), native]).is_err(),
            secure,
            "{kind}"
        );
    }
}
