//! Ingresses: what annotations do besides choosing a location.

use std::sync::Arc;
use std::time::Duration;

use forebay_config::{AccessEntry, Bound, Cluster, Config, LimitKey, LimitSource, Route};

use crate::ingress_support::{ask, config, found, ingress, rule};
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

/// That Ingress, and a canary of the service `c`.
fn with_canary(notes: &[&str]) -> Config {
    let mut all = vec!["canary: \"true\""];
    all.extend(notes);
    config(&(annotated(&[]) + &ingress("canary", &all, &rule("h.com", &["/ P c"]))))
}

#[test]
fn a_canary_has_its_weight() {
    for (notes, wanted) in [
        (&["canary-weight: '20'"][..], "s*80+c*20 /"),
        (
            &["canary-weight: '20'", "canary-weight-total: '1000'"],
            "s*980+c*20 /",
        ),
        (
            &["canary-weight: '20'", "canary-weight-total: '50'"],
            "s*80+c*20 /",
        ),
        (&["canary-weight: '0'"], "s /"),
        (&["canary-weight: '100'"], "c /"),
        (&["canary-weight: '200'"], "c /"),
        (&[], "s /"),
    ] {
        assert_eq!(ask(&with_canary(notes), "h.com/", &[]), wanted, "{notes:?}");
    }
}

#[test]
fn a_canary_is_asked_for_by_header_then_by_cookie() {
    let both = [
        "canary-by-header: X-Canary",
        "canary-by-cookie: cc",
        "canary-weight: '50'",
    ];
    let config = with_canary(&both);
    let split = "s*50+c*50 /";
    for (headers, wanted) in [
        (&[][..], split),
        (&[("x-canary", "always")], "c /"),
        (&[("x-canary", "never")], "s /"),
        (&[("x-canary", "maybe")], split),
        (&[("cookie", "cc=always")], "c /"),
        (&[("cookie", "cc=never")], "s /"),
        (&[("cookie", "cc=1")], split),
        (&[("x-canary", "never"), ("cookie", "cc=always")], "s /"),
        (&[("x-canary", "always"), ("cookie", "cc=never")], "c /"),
        (&[("x-canary", "maybe"), ("cookie", "cc=never")], "s /"),
    ] {
        assert_eq!(ask(&config, "h.com/", headers), wanted, "{headers:?}");
    }
}

#[test]
fn a_canary_is_asked_for_by_a_value_or_a_pattern() {
    let header = "canary-by-header: X-Tier";
    let value = with_canary(&[header, "canary-by-header-value: gold"]);
    let pattern = with_canary(&[header, "canary-by-header-pattern: 'go+ld|^plat'"]);
    for (tier, by_value, by_pattern) in [
        ("gold", "c /", "c /"),
        ("goold", "s /", "c /"),
        ("my gold card", "s /", "c /"),
        ("platinum", "s /", "c /"),
        ("no platinum", "s /", "s /"),
        ("always", "s /", "s /"),
    ] {
        let headers = [("x-tier", tier)];
        assert_eq!(ask(&value, "h.com/", &headers), by_value, "{tier}");
        assert_eq!(ask(&pattern, "h.com/", &headers), by_pattern, "{tier}");
    }
}

#[test]
fn a_canary_keeps_its_place_among_expressions() {
    let note = "use-regex: \"true\"";
    let text = ingress(
        "i",
        &[note],
        &rule("h.com", &["/a/long.* I long", "/a I s"]),
    ) + &ingress(
        "c",
        &["canary: \"true\"", "canary-by-header: x-c"],
        &rule("h.com", &["/a I c"]),
    );
    let config = config(&text);
    let headers = [("x-c", "always")];
    assert_eq!(ask(&config, "h.com/a/long/x", &headers), "long /a/long/x");
    assert_eq!(ask(&config, "h.com/a/x", &headers), "c /a/x");
    assert_eq!(ask(&config, "h.com/a/x", &[]), "s /a/x");
}

#[test]
fn of_a_canary_only_its_own_annotations_count() {
    let notes = [
        "canary: \"true\"",
        "canary-weight: '10'",
        "auth-url: http://auth",
        "proxy-body-size: 1m",
        "weird-auth: x",
    ];
    let text = annotated(&[]) + &ingress("canary", &notes, &rule("h.com", &["/ P c", "/x P c"]));
    let findings = findings(&translated(&text));
    assert_eq!(
        findings,
        [
            "23:43 approximated metadata.annotations.nginx.ingress.kubernetes.io/auth-url: the Ingress that is not a canary decides",
            "24:50 approximated metadata.annotations.nginx.ingress.kubernetes.io/proxy-body-size: the Ingress that is not a canary decides",
            "25:45 approximated metadata.annotations.nginx.ingress.kubernetes.io/weird-auth: the Ingress that is not a canary decides",
            "33:9 lost spec.rules[0].http.paths[1]: no Ingress without `canary` has the same host and path",
        ]
    );
}

#[test]
fn limits_count_clients_and_let_nginx_bursts_through() {
    let notes = [
        "limit-rps: '10'",
        "limit-rpm: '60'",
        "limit-connections: '4'",
    ];
    let config = config(&annotated(&notes));
    let limits = &route(&config, "h.com/").rate_limits;
    let shown: Vec<String> = limits
        .iter()
        .map(|limit| {
            assert_eq!(limit.rule().per, LimitKey::ClientIp);
            match &limit.rule().bound {
                Bound::Rate(quota) => {
                    let quota = quota.general;
                    format!(
                        "{} {:.1} {}",
                        limit.name,
                        quota.rate.per_second(),
                        quota.burst
                    )
                }
                Bound::Concurrent(most) => format!("{} {}", limit.name, most.general),
            }
        })
        .collect();
    assert_eq!(
        shown,
        [
            "limit-connections 4",
            "limit-rpm 1.0 301",
            "limit-rps 10.0 51"
        ]
    );
    let config = self::config(&annotated(&[
        "limit-rps: '0'",
        "limit-burst-multiplier: '2'",
    ]));
    assert!(route(&config, "h.com/").rate_limits.is_empty());
}

#[test]
fn all_paths_of_an_ingress_share_its_limits() {
    let notes = ["limit-rps: '1'"];
    let text = ingress("i", &notes, &rule("h.com", &["/a P a", "/b P b"]))
        + &ingress("j", &notes, &rule("j.com", &["/ P c"]))
        + &ingress(
            "c",
            &["canary: \"true\"", "canary-by-header: x-c"],
            &rule("h.com", &["/a P d"]),
        );
    let config = config(&text);
    let policy = |target: &str, headers: &[(&str, &str)]| {
        let route = found(&config, 0, target, headers).unwrap().0;
        match &route.rate_limits[0].source {
            LimitSource::Policy(policy) => policy.name.clone(),
            LimitSource::Own(_) => "its own".to_owned(),
        }
    };
    assert_eq!(policy("h.com/a", &[]), "ml/i/limit-rps");
    assert_eq!(policy("h.com/a", &[("x-c", "always")]), "ml/i/limit-rps");
    assert_eq!(policy("h.com/b", &[]), "ml/i/limit-rps");
    assert_eq!(policy("j.com/", &[]), "ml/j/limit-rps");
}

#[test]
fn lists_of_addresses_let_in_and_keep_out() {
    let nets = |entries: &[AccessEntry]| -> Vec<String> {
        let entries = entries.iter();
        entries
            .map(|entry| match entry {
                AccessEntry::Net(net) => net.to_string(),
                other => format!("{other:?}"),
            })
            .collect()
    };
    let notes = [
        "whitelist-source-range: '10.0.0.0/8,192.0.2.7'",
        "denylist-source-range: 10.1.0.0/16",
    ];
    let config = config(&annotated(&notes));
    let route = route(&config, "h.com/");
    let access = route.access.as_ref().unwrap();
    assert_eq!(
        nets(access.allow.as_deref().unwrap()),
        ["10.0.0.0/8", "192.0.2.7/32"]
    );
    assert_eq!(nets(&access.deny), ["10.1.0.0/16"]);
    let empty = self::config(&annotated(&["whitelist-source-range: ''"]));
    assert!(self::route(&empty, "h.com/").access.is_none());
}

#[test]
fn clocks_and_bodies_have_the_units_of_nginx() {
    let notes = [
        "proxy-connect-timeout: '3'",
        "proxy-read-timeout: '3600'",
        "proxy-send-timeout: 7200s",
        "proxy-body-size: '0'",
    ];
    let config = config(&annotated(&notes));
    let one = route(&config, "h.com/");
    let clocks = [
        one.timeouts.first_byte,
        one.timeouts.idle,
        one.timeouts.tunnel,
    ];
    assert_eq!(
        clocks,
        [3600, 7200, 7200].map(|seconds| Some(Duration::from_secs(seconds)))
    );
    assert_eq!(one.body_max, None);
    assert_eq!(
        cluster(&config, "ml/s:80").connect_timeout,
        Duration::from_secs(3)
    );
    for (size, bytes) in [
        ("8m", 8 << 20),
        ("1G", 1 << 30),
        ("100k", 100 << 10),
        ("1000", 1000),
    ] {
        let config = self::config(&annotated(&[&format!("proxy-body-size: '{size}'")]));
        assert_eq!(route(&config, "h.com/").body_max, Some(bytes), "{size}");
    }
}

#[test]
fn snippets_edit_headers_and_bodies() {
    let snippet = "configuration-snippet: |\n      more_set_headers \"X-A: b: c\" 'X-Gone:';\n      \
                   add_header X-B d always;\n      proxy_set_header Host models.internal;\n      \
                   proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_set_header X-C \"e f\";\n      \
                   sub_filter a b;\n      sub_filter_once off;\n      sub_filter_types text/css *;";
    let text = annotated(&[snippet]);
    assert!(findings(&translated(&text)).is_empty());
    let config = config(&text);
    let route = route(&config, "h.com/");
    let shown = format!("{:?} {:?}", route.request_headers, route.response_headers);
    for part in ["x-a", "b: c", "x-gone", "x-b", "x-c", "e f"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(route.rewrite.host.as_ref().unwrap(), "models.internal");
    let replace = &route.replace[0];
    assert_eq!(replace.types, ["text/css", "*/*"]);
    assert!(!replace.once && replace.ignore_case);
    for (statement, wanted) in [
        ("return 404;", "404"),
        ("return 200 ok;", "200"),
        (
            "return 301 https://n.com$request_uri;",
            "301 https://n.com/",
        ),
        ("return https://n.com/a;", "302 https://n.com/a"),
    ] {
        let note = format!("configuration-snippet: '{statement}'");
        assert_eq!(
            ask(&self::config(&annotated(&[&note])), "h.com/", &[]),
            wanted
        );
    }
}

#[test]
fn browsers_are_allowed_what_nginx_allows() {
    let notes = [
        "enable-cors: \"true\"",
        "cors-allow-origin: 'https://a.com, https://*.b.com'",
        "cors-max-age: '60'",
    ];
    let config = config(&annotated(&notes));
    let route = route(&config, "h.com/");
    let cors = route.cors.as_ref().unwrap();
    assert!(cors.credentials);
    assert_eq!(cors.max_age, Duration::from_secs(60));
    assert!(format!("{:?}", cors.methods).contains("PATCH"));
    let off = self::config(&annotated(&["cors-allow-origin: '*'"]));
    assert!(self::route(&off, "h.com/").cors.is_none());
}
