//! Backends: weights, references, and those that are invalid.

use std::collections::BTreeMap;

use forebay_config::model::Action;
use forebay_config::split::Split;

use crate::gateway_api::{GATEWAY, ask, config, made, route};
use crate::support::findings;

/// A configuration with one rule that has these backends, a flow list.
fn backends(list: &str) -> String {
    GATEWAY.to_owned() + &route("r", &format!("[{{backendRefs: {list}}}]"))
}

fn grant(namespace: &str, from: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
         spec: {{from: [{from}], to: [{to}]}}\n"
    )
}

const ROUTES: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: ml}";

#[test]
fn weights_are_shares() {
    for (list, want) in [
        (
            "[{name: a, port: 80, weight: 70}, {name: b, port: 80, weight: 30}, {name: c, port: 80, weight: 0}]",
            "ml/a:80=70 ml/b:80=30 ml/c:80=0",
        ),
        (
            "[{name: a, port: 80}, {name: b, port: 80}]",
            "ml/a:80=1 ml/b:80=1",
        ),
        (
            "[{name: a, port: 80}, {name: b, port: 80, weight: 1000000}]",
            "ml/a:80=1 ml/b:80=1000000",
        ),
        ("[{name: a, port: 80, weight: 5}]", "ml/a:80"),
        ("[{name: a, port: 80, weight: 0}]", "500"),
        (
            "[{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 0}]",
            "500",
        ),
        ("[]", "500"),
    ] {
        let config = config(&backends(list));
        assert_eq!(
            ask("h", "/").of(&config),
            format!("ml/r/0: {want}"),
            "{list}"
        );
    }
}

/// 70/30/0 as the conformance tests of the specification have it, over all rolls of the dice.
#[test]
fn shares_are_as_large_as_weights() {
    let list = "[{name: a, port: 80, weight: 70}, {name: b, port: 80, weight: 30}, {name: c, port: 80, weight: 0}]";
    let config = config(&backends(list));
    let Action::Forward(members) = &config.routes[0].action else {
        panic!("{:?}", config.routes)
    };
    let split = Split::new(members.iter().map(|one| (one.cluster.as_str(), one.weight))).unwrap();
    let mut served: BTreeMap<&str, u32> = BTreeMap::new();
    for roll in
        (0..100_000_u64).map(|step| u32::try_from(((2 * step + 1) << 31) / 100_000).unwrap())
    {
        *served.entry(split.pick(roll)).or_default() += 1;
    }
    assert_eq!(
        served,
        BTreeMap::from([("ml/a:80", 70_000), ("ml/b:80", 30_000)])
    );
}

#[test]
fn weights_whose_sum_is_too_large_answer_500() {
    let many = ["{name: a, port: 80, weight: 1000000}"; 4295].join(", ");
    let text = backends(&format!("[{many}]"));
    assert_eq!(ask("h", "/").of(&config(&text)), "ml/r/0: 500");
    let found = findings(&made(&text));
    assert!(
        found[0].contains("the sum of the weights is too large"),
        "{found:?}"
    );
}

#[test]
fn a_rule_without_backends_and_a_route_without_rules_answer_500() {
    let config_of = |rules: &str| config(&(GATEWAY.to_owned() + &route("r", rules)));
    assert_eq!(ask("h", "/").of(&config_of("[{}]")), "ml/r/0: 500");
    let none = (GATEWAY.to_owned() + &route("r", "[]")).replace(", rules: []", "");
    assert_eq!(ask("h", "/").of(&config(&none)), "ml/r/0: 500");
}

/// Invalid alone: 500. Beside a valid one it keeps its share, with a cluster that nobody is in.
#[test]
fn an_invalid_backend_keeps_its_share() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: ml}\nspec: {ports: [{port: 80}]}\n";
    for (bad, note) in [
        (
            "{name: b, port: 80, kind: Bucket, group: x.io}",
            "a backend is a Service, not a Bucket",
        ),
        (
            "{name: b, port: 80, kind: Pod}",
            "a backend is a Service, not a Pod",
        ),
        (
            "{name: b, port: 80, namespace: other}",
            "no ReferenceGrant lets this HTTPRoute use Services of `other`",
        ),
        (
            "{name: b, port: 80}",
            "no document describes the Service `ml/b`",
        ),
        ("{name: a, port: 81}", "`ml/a` has no port 81"),
        ("{name: a}", "a Service needs a `port`"),
        ("{port: 80}", "`name` is missing"),
        (
            "{name: a, port: 80, namespace: 5}",
            "what it refers to cannot be read",
        ),
        ("{name: 'a b', port: 80}", "is not a host"),
        ("{name: a, port: http}", "a Service needs a `port`"),
    ] {
        let alone = backends(&format!("[{bad}]")) + service;
        let found = findings(&made(&alone)).join("\n");
        assert!(
            found.contains(note) && found.contains("its share is answered 500"),
            "{bad}\n{found}"
        );
        assert_eq!(ask("h", "/").of(&config(&alone)), "ml/r/0: 500", "{bad}");
        let weighted = bad.replacen('{', "{weight: 3, ", 1);
        let beside = backends(&format!("[{{name: a, port: 80}}, {weighted}]")) + service;
        let found = findings(&made(&beside)).join("\n");
        assert!(
            found.contains(note) && found.contains("503 `no_endpoint`"),
            "{bad}\n{found}"
        );
        let config_beside = config(&beside);
        assert_eq!(
            ask("h", "/").of(&config_beside),
            "ml/r/0: ml/a:80=1 invalid-backend=3",
            "{bad}"
        );
        let nobody = config_beside
            .clusters
            .iter()
            .find(|one| one.name == "invalid-backend")
            .unwrap();
        assert!(
            !nobody.subset.is_empty() && nobody.endpoints.iter().all(|one| one.labels.is_empty())
        );
        let idle = bad.replacen('{', "{weight: 0, ", 1);
        let config = config(&(backends(&format!("[{{name: a, port: 80}}, {idle}]")) + service));
        assert_eq!(ask("h", "/").of(&config), "ml/r/0: ml/a:80", "{bad}");
    }
}

#[test]
fn grants_let_routes_use_services_of_other_namespaces() {
    let all = "{group: '', kind: Service}";
    for (namespace, from, to, allowed) in [
        ("other", ROUTES, all, true),
        ("other", ROUTES, "{group: '', kind: Service, name: b}", true),
        (
            "other",
            ROUTES,
            "{group: '', kind: Service, name: c}",
            false,
        ),
        (
            "other",
            ROUTES,
            "{group: '', kind: Service, name: [b]}",
            false,
        ),
        ("other", ROUTES, "{group: '', kind: Secret}", false),
        ("ml", ROUTES, all, false),
        ("third", ROUTES, all, false),
        (
            "other",
            "{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: ml}",
            all,
            false,
        ),
        (
            "other",
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}",
            all,
            false,
        ),
        ("other", "{kind: HTTPRoute, namespace: ml}", all, false),
    ] {
        let text =
            backends("[{name: b, port: 80, namespace: other}]") + &grant(namespace, from, to);
        let want = if allowed {
            "ml/r/0: other/b:80"
        } else {
            "ml/r/0: 500"
        };
        assert_eq!(
            ask("h", "/").of(&config(&text)),
            want,
            "{namespace} {from} {to}"
        );
    }
}

#[test]
fn a_copy_needs_a_grant_as_well() {
    let filter =
        "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80, namespace: other}}}";
    let text = GATEWAY.to_owned()
        + &route(
            "r",
            &format!("[{{filters: [{filter}], backendRefs: [{{name: a, port: 80}}]}}]"),
        );
    let found = findings(&made(&text)).join("\n");
    assert!(found.contains("backendRef: no ReferenceGrant"), "{found}");
    assert!(config(&text).routes[0].mirrors.is_empty());
    let granted = text + &grant("other", ROUTES, "{group: '', kind: Service}");
    assert_eq!(config(&granted).routes[0].mirrors[0].cluster, "other/m:80");
}

#[test]
fn filters_of_one_backend_among_several() {
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: x}}";
    let list = format!("[{{name: a, port: 80, filters: [{rewrite}]}}, {{name: b, port: 80}}]");
    let text = backends(&list);
    assert_eq!(
        ask("h", "/").of(&config(&text)),
        "ml/r/0: invalid-backend=1 ml/b:80=1"
    );
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}}}";
    let list = format!("[{{name: a, port: 80, filters: [{mirror}]}}, {{name: b, port: 80}}]");
    let text = backends(&list);
    assert_eq!(
        ask("h", "/").of(&config(&text)),
        "ml/r/0: ml/a:80=1 ml/b:80=1"
    );
    let found = findings(&made(&text)).join("\n");
    assert!(
        found.contains("backendRefs[0].filters: mirrors and CORS"),
        "{found}"
    );
}
