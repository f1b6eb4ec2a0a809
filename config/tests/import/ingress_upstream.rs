//! Ingresses: how services are spoken to, and where clients are sent.

use std::sync::Arc;
use std::time::Duration;

use forebay_config::{Balance, Cluster, Config, HashKey, Route, Sticky};

use crate::ingress_support::{ask, ask_at, config, found, ingress, loaded, rule};
use crate::support::{findings, translated};

fn route(config: &Config, target: &str) -> Arc<Route> {
    found(config, 0, target, &[]).unwrap().0
}

fn cluster<'c>(config: &'c Config, name: &str) -> &'c Cluster {
    config.clusters.iter().find(|one| one.name == name).unwrap()
}

/// The Ingress of `h.com` with the service `s`, and these annotations.
fn annotated(notes: &[&str]) -> String {
    ingress("i", notes, &rule("h.com", &["/ P s"]))
}

#[test]
fn clients_are_tied_to_endpoints() {
    let notes = [
        "affinity: cookie",
        "session-cookie-name: r",
        "session-cookie-max-age: '60'",
    ];
    let config = config(&annotated(&notes));
    let sticky = Sticky::Cookie {
        name: "r".to_owned(),
        ttl: Some(Duration::from_secs(60)),
    };
    assert_eq!(route(&config, "h.com/").sticky, Some(sticky));
    let balance = |config: &Config| cluster(config, "ml/s:80").balance.clone();
    assert_eq!(
        balance(&config),
        Balance::Hash(HashKey::Cookie("r".to_owned()))
    );
    for (by, key) in [
        (
            "$http_x_user",
            Some(HashKey::Header("x-user".parse().unwrap())),
        ),
        ("${cookie_user}", Some(HashKey::Cookie("user".to_owned()))),
        ("$remote_addr", Some(HashKey::ClientIp)),
        ("$request_uri", None),
        ("$http_x_user$host", None),
        ("$http_host", None),
    ] {
        let text = annotated(&[&format!("upstream-hash-by: '{by}'")]);
        let wanted = key.clone().map_or(Balance::LeastRequests, Balance::Hash);
        assert_eq!(balance(&loaded(&text).config), wanted, "{by}");
        let lost = findings(&translated(&text))
            .iter()
            .any(|one| one.contains(" lost "));
        assert_eq!(lost, key.is_none(), "{by}");
    }
}

#[test]
fn services_are_spoken_to_as_annotations_say() {
    for (notes, tls, name, protocol) in [
        (&["backend-protocol: HTTPS"][..], true, None, "Auto"),
        (&["backend-protocol: grpc"], false, None, "Http2"),
        (
            &["backend-protocol: GRPCS", "proxy-ssl-name: a.b"],
            true,
            Some("a.b"),
            "Http2",
        ),
        (&["backend-protocol: HTTP"], false, None, "Auto"),
    ] {
        let config = config(&annotated(notes));
        let cluster = cluster(&config, "ml/s:80");
        assert_eq!(cluster.tls.is_some(), tls, "{notes:?}");
        let own = cluster
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref());
        assert_eq!(
            (own, format!("{:?}", cluster.protocol)),
            (name, protocol.to_owned())
        );
    }
    let config = loaded(&annotated(&["backend-protocol: FCGI"])).config;
    assert_eq!(ask(&config, "h.com/", &[]), "503");
}

#[test]
fn the_oldest_ingress_says_how_a_service_is_spoken_to() {
    let one =
        |name: &str, host: &str, notes: &[&str]| ingress(name, notes, &rule(host, &["/ P s"]));
    let text = one("a", "z.com", &["proxy-connect-timeout: '7'"])
        + &one(
            "b",
            "a.com",
            &["proxy-connect-timeout: '9'", "backend-protocol: HTTPS"],
        )
        + &one("c", "b.com", &[]);
    let config = config(&text);
    let cluster = cluster(&config, "ml/s:80");
    assert_eq!(cluster.connect_timeout, Duration::from_secs(7));
    assert!(cluster.tls.is_some());
    let lost = findings(&translated(&text));
    assert_eq!(
        lost[0],
        "23:56 lost metadata.annotations.nginx.ingress.kubernetes.io/proxy-connect-timeout: another document says otherwise of the same service"
    );
}

#[test]
fn copies_go_to_services_and_to_other_hosts() {
    for (target, name, tls) in [
        (
            "http://shadow.ml.svc.cluster.local$request_uri",
            "ml/shadow:80",
            false,
        ),
        ("http://shadow:8080/$request_uri", "ml/shadow:8080", false),
        (
            "https://test.example.com/$request_uri",
            "test.example.com:443",
            true,
        ),
    ] {
        let config = config(&annotated(&[&format!("mirror-target: {target}")]));
        let route = route(&config, "h.com/");
        assert_eq!(route.mirrors[0].cluster, name);
        assert_eq!(cluster(&config, name).tls.is_some(), tls);
    }
    for target in [
        "http://x.example.com/fixed",
        "x.example.com",
        "ftp://a.b$request_uri",
        "http://a.b:x$request_uri",
    ] {
        let text = annotated(&[&format!("mirror-target: {target}")]);
        assert!(route(&loaded(&text).config, "h.com/").mirrors.is_empty());
        assert!(
            findings(&translated(&text))[0].contains(" lost "),
            "{target}"
        );
    }
}

#[test]
fn redirects_keep_or_replace_the_path() {
    for (notes, wanted) in [
        (
            &["permanent-redirect: https://n.com"][..],
            "301 https://n.com/",
        ),
        (
            &["permanent-redirect: https://n.com/a"],
            "301 https://n.com/a",
        ),
        (
            &[
                "permanent-redirect: https://n.com$request_uri",
                "permanent-redirect-code: '308'",
            ],
            "308 https://n.com/x/y?q=1",
        ),
        (
            &["temporal-redirect: http://n.com:81/a"],
            "302 http://n.com:81/a",
        ),
        (
            &["temporal-redirect: /a", "permanent-redirect: /b"],
            "302 http://h.com/a",
        ),
        (
            &[
                "permanent-redirect: /a",
                "whitelist-source-range: 10.0.0.0/8",
            ],
            "301 http://h.com/a",
        ),
    ] {
        let config = config(&annotated(notes));
        let target = if wanted.contains('?') {
            "h.com/x/y?q=1"
        } else {
            "h.com/x/y"
        };
        assert_eq!(ask(&config, target, &[]), wanted, "{notes:?}");
    }
    let config = loaded(&annotated(&["permanent-redirect: 'https://$arg_to/'"])).config;
    assert_eq!(ask(&config, "h.com/", &[]), "503");
}

#[test]
fn a_certificate_makes_listeners_and_a_redirect() {
    let tls = "  tls: [{hosts: [h.com], secretName: front-tls}]\n";
    let spec = |host: &str| tls.to_owned() + &rule(host, &["/ P s"]);
    let text = ingress("a", &["app-root: /ui"], &spec("h.com"))
        + &ingress("b", &[], &rule("plain.com", &["/ P p"]));
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
    for (port, target, wanted) in [
        (80, "h.com/x?y=1", "308 https://h.com/x?y=1"),
        (80, "h.com/", "302 http://h.com/ui"),
        (443, "h.com/x", "s /x"),
        (443, "h.com/", "302 https://h.com/ui"),
        (80, "plain.com/x", "p /x"),
        (443, "plain.com/x", "p /x"),
    ] {
        assert_eq!(
            ask_at(&config, port, target, &[]),
            wanted,
            "{port} {target}"
        );
    }
    let off = self::config(&ingress("a", &["ssl-redirect: \"false\""], &spec("h.com")));
    assert_eq!(ask_at(&off, 80, "h.com/x", &[]), "s /x");
    assert_eq!(ask_at(&off, 443, "h.com/x", &[]), "s /x");
    let mixed = ingress("a", &["ssl-redirect: \"false\""], &spec("h.com"))
        + &ingress("b", &[], &rule("h.com", &["/in P in"]));
    let mixed = self::config(&mixed);
    assert_eq!(ask_at(&mixed, 80, "h.com/x", &[]), "s /x");
    assert_eq!(
        ask_at(&mixed, 80, "h.com/in/x", &[]),
        "308 https://h.com/in/x"
    );
    assert_eq!(ask_at(&mixed, 443, "h.com/in/x", &[]), "in /in/x");
}
