//! What a rule of a VirtualService does with its requests.

use forebay_config::{Action, AnyOf, Config, RetryMethods, Route};

use crate::istio_support::{ask, ask_at, config, service, to, translation};
use crate::support::findings;

/// The only route of rules without losses.
fn route(rules: &str) -> (Config, Vec<String>) {
    let text = service(rules);
    let all = findings(&translation(&text));
    (config(&text), all)
}

fn only(config: &Config) -> &Route {
    assert_eq!(config.routes.len(), 1, "{:#?}", config.routes);
    &config.routes[0]
}

#[test]
fn rewrites_replace_what_matched() {
    for (condition, rewrite, target, wanted) in [
        ("[{uri: {prefix: /v1/}}]", "{uri: /}", "/v1/x", "/x"),
        ("[{uri: {prefix: /v1}}]", "{uri: /v2}", "/v1x/y?z", "/v2x/y"),
        ("[{uri: {prefix: /v1}}]", "{uri: /}", "/v1/x", "/x"),
        ("[{uri: {prefix: /a.b}}]", "{uri: /$1}", "/a.b/c", "/$1/c"),
        (
            "[{uri: {prefix: /V}, ignoreUriCase: true}]",
            "{uri: /w}",
            "/vx",
            "/wx",
        ),
        ("[{uri: {exact: /a/b}}]", "{uri: /c}", "/a/b", "/c"),
        ("[{uri: {regex: '/a.*'}}]", "{uri: /c}", "/abc/d", "/c"),
        ("[{uri: {prefix: /}}]", "{uri: /c}", "/x", "/cx"),
        ("[{uri: {prefix: /}}]", "{uri: /c/}", "/x", "/c/x"),
        (
            "[{uri: {prefix: /a}}]",
            "{uri: /b, authority: 'm.internal:8080'}",
            "/a",
            "/b as m.internal:8080",
        ),
        (
            "[{uri: {prefix: /a}}]",
            "{uriRegexRewrite: {match: '/(a)/(b)', rewrite: '/\\2\\\\$/\\1x'}}",
            "/a/b/a/b",
            "/b%5C$/ax/b%5C$/ax",
        ),
        (
            "[{uri: {prefix: /a}}]",
            "{uriRegexRewrite: {match: '^/a', rewrite: '/b'}}",
            "/a/a",
            "/b/a",
        ),
    ] {
        let rules = format!(
            "  - match: {condition}\n    rewrite: {rewrite}\n    {}\n",
            to("x")
        );
        let (config, all) = route(&rules);
        assert_eq!(all, [""; 0], "{rules}");
        if wanted.contains("%5C") {
            continue; // A backslash is refused when the request comes.
        }
        assert_eq!(
            ask(&config, "GET", target, &[]),
            format!("ml/x:80 {wanted}"),
            "{rules}"
        );
    }
}

#[test]
fn each_condition_has_its_own_rewrite() {
    let rules = format!(
        "  - match: [{{uri: {{prefix: /a/}}}}, {{uri: {{exact: /b}}}}, {{headers: {{x: {{exact: 'y'}}}}}}]\n    rewrite: {{uri: /c/}}\n    {}\n",
        to("x")
    );
    let (config, _) = route(&rules);
    for (target, headers, wanted) in [
        ("/a/d", &[][..], "/c/d"),
        ("/b", &[], "/c/"),
        ("/e", &[("x", "y")], "/c/e"),
    ] {
        assert_eq!(
            ask(&config, "GET", target, headers),
            format!("ml/x:80 {wanted}")
        );
    }
}

#[test]
fn redirects_lead_where_they_led() {
    for (redirect, target, wanted) in [
        (
            "{scheme: https}",
            "h.example/a?b=c",
            "301 https://h.example/a?b=c",
        ),
        (
            "{uri: /new, redirectCode: 302}",
            "h.example/a",
            "302 http://h.example:8080/new",
        ),
        (
            "{authority: 'o.example:81', scheme: http}",
            "h.example/a",
            "301 http://o.example:81/a",
        ),
        (
            "{authority: o.example, port: 82, redirectCode: 308}",
            "h.example/a",
            "308 http://o.example:82/a",
        ),
        (
            "{scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}",
            "h.example/a",
            "301 https://h.example/a",
        ),
    ] {
        let (config, all) = route(&format!("  - redirect: {redirect}\n"));
        assert_eq!(all, [""; 0], "{redirect}");
        assert_eq!(
            ask_at(&config, None, "GET", target, &[]),
            wanted,
            "{redirect}"
        );
    }
}

#[test]
fn what_leads_nowhere_is_answered_503_and_lost() {
    for (action, finding) in [
        (
            "redirect: {redirectCode: 302}",
            "7:15 lost spec.http[0].redirect: it leads to the request's own address",
        ),
        (
            "redirect: {uri: '/a?b'}",
            "7:15 lost spec.http[0].redirect: `/a?b` is not a path: ",
        ),
        (
            "redirect: {scheme: ftp}",
            "7:15 lost spec.http[0].redirect: `scheme` is `http` or `https`",
        ),
        (
            "redirect: {uri: /a, redirectCode: 305}",
            "7:15 lost spec.http[0].redirect: `redirectCode` is one of",
        ),
        (
            "redirect: [5]",
            "7:15 lost spec.http[0].redirect: expected a map, found a list",
        ),
        (
            "directResponse: {status: 99}",
            "7:30 lost spec.http[0].directResponse.status: expected a whole number from 200 to 599",
        ),
        (
            "delegate: {name: a, namespace: b}",
            "7:5 lost spec.http[0].delegate: its requests are answered 503",
        ),
        ("route: []", ""),
        (
            "route: {destination: {host: a}}",
            "7:12 lost spec.http[0].route: expected a list, found a map",
        ),
        (
            "route: [{weight: 1}]",
            "7:13 lost spec.http[0].route[0]: `destination` is missing",
        ),
        (
            "route: [{destination: {port: {number: 80}}}]",
            "7:27 lost spec.http[0].route[0].destination: `host` is missing",
        ),
        (
            "route: [{destination: {host: a}}]",
            "7:27 lost spec.http[0].route[0].destination: the number of the port is unknown",
        ),
        (
            "route: [{destination: {host: a, port: {number: 70000}}}]",
            "7:27 lost spec.http[0].route[0].destination: `port` has no number",
        ),
        (
            "route: [{destination: {host: api.example.com, port: {number: 80}}}]",
            "7:27 lost spec.http[0].route[0].destination: no document describes `api.example.com`",
        ),
        (
            "route: [{destination: {host: a b, port: {number: 80}}}]",
            "7:27 lost spec.http[0].route[0].destination: the string `a b.ml.svc.cluster.local` is not a host",
        ),
        (
            "route: [{destination: {host: a, port: {number: 80}, subset: v 9}}]",
            "7:27 lost spec.http[0].route[0].destination: the string `a.ml.svc.cluster.local:65535/v 9` is not a name",
        ),
        (
            "route: [{destination: {host: a, port: {number: 80}, subset: v9}}]",
            "7:27 lost spec.http[0].route[0].destination: no DestinationRule of `a.ml.svc.cluster.local` describes the subset `v9`",
        ),
        (
            "route: [{destination: {host: a, port: {number: 80}}}, {destination: {host: b, port: {number: 80}}, weight: 0}]",
            "7:12 lost spec.http[0].route: all weights are 0",
        ),
    ] {
        let (config, all) = route(&format!("  - {action}\n"));
        assert_eq!(ask(&config, "GET", "/", &[]), "503", "{action}");
        if !finding.is_empty() {
            assert!(all[0].starts_with(finding), "{action}: {all:#?}");
        }
    }
}

#[test]
fn a_rule_that_does_nothing_is_dropped() {
    let (config, all) = route(&format!("  - timeout: 5s\n  - {}\n", to("x")));
    assert_eq!(
        all,
        ["7:5 lost spec.http[0]: it has neither `route`, `redirect` nor `directResponse`"]
    );
    assert_eq!(ask(&config, "GET", "/", &[]), "ml/x:80 /");
}

#[test]
fn weights_without_a_number_are_0() {
    let (config, all) = route(
        "  - route:\n    - {destination: {host: a, port: {number: 80}}, weight: 3}\n    - {destination: {host: b, port: {number: 80}}}\n    - {destination: {host: c.d.example, port: {number: 80}}, weight: 9}\n",
    );
    assert_eq!(ask(&config, "GET", "/", &[]), "ml/a:80*3 ml/b:80*0 /");
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(
        all[0].starts_with("10:21 lost spec.http[0].route[2].destination: no document describes")
    );
}

#[test]
fn headers_are_edited_at_every_level() {
    let (config, all) = route(
        "  - route:\n    - destination: {host: a, port: {number: 80}}\n      headers: {request: {set: {X-Own: a, x-both: member}, remove: [X-Gone]}}\n\
         \x20   headers: {request: {set: {x-both: rule, Host: b.internal}, add: {x-more: '50%%'}}, response: {remove: [server]}}\n",
    );
    assert_eq!(all, [""; 0]);
    let one = only(&config);
    let shown = |pairs: &[(http::HeaderName, http::HeaderValue)]| -> Vec<String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    };
    assert_eq!(
        shown(&one.request_headers.set),
        ["x-own: a", "x-both: member"]
    );
    assert_eq!(shown(&one.request_headers.add), ["x-more: 50%"]);
    assert_eq!(one.request_headers.remove, ["x-gone"]);
    assert_eq!(one.response_headers.remove, ["server"]);
    assert_eq!(ask(&config, "GET", "/", &[]), "ml/a:80 / as b.internal");
}

#[test]
fn headers_that_cannot_be_edited_are_lost() {
    let (config, all) = route(&format!(
        "  - headers: {{request: {{set: {{content-length: '5', x-ip: '%DOWNSTREAM_REMOTE_ADDRESS%', 'a b': c, x-ok: d}}, remove: [te]}}}}\n    {}\n",
        to("x")
    ));
    assert_eq!(
        all,
        [
            "7:47 lost spec.http[0].headers.request.set.content-length: the header `content-length` cannot be edited",
            "7:58 lost spec.http[0].headers.request.set.x-ip: variables in values are not filled in",
            "7:96 lost spec.http[0].headers.request.set.a b: `a b` is not the name of a header",
            "7:117 lost spec.http[0].headers.request.remove: the header `te` cannot be edited",
        ]
    );
    assert_eq!(only(&config).request_headers.set.len(), 1);
}

#[test]
fn clocks_and_retries() {
    let (config, _) = route(&format!(
        "  - timeout: 0s\n    retries: {{attempts: 50, perTryTimeout: 1.5s, retryOn: '5xx,reset,503'}}\n    {}\n",
        to("x")
    ));
    let one = only(&config);
    assert_eq!(one.timeouts.total, None);
    let retry = one.retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, retry.per_try.unwrap().as_millis()),
        (10, 1500)
    );
    assert_eq!(retry.methods, RetryMethods::All);
    assert!(retry.when.connect && retry.when.refused && retry.when.reset);
    assert_eq!(retry.when.statuses.len(), 100);
    let (config, all) = route(&format!(
        "  - retries: {{attempts: 2, retryOn: 'cancelled,unavailable'}}\n    {}\n",
        to("x")
    ));
    assert_eq!(only(&config).retry.as_ref().unwrap().attempts, 0);
    assert!(
        all[1].ends_with("retryOn: not tried again because of cancelled, unavailable"),
        "{all:#?}"
    );
    let (config, _) = route(&format!("  - retries: {{attempts: 0}}\n    {}\n", to("x")));
    let retry = only(&config).retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, &retry.methods),
        (0, &RetryMethods::Idempotent)
    );
}

#[test]
fn copies_are_a_share_of_the_requests() {
    let mirror = "mirror: {host: m, port: {number: 80}}";
    for (share, sample) in [
        ("", Some(1_000_000)),
        ("mirrorPercentage: {value: 12.5}", Some(125_000)),
        ("mirrorPercentage: {value: 0.01}", Some(100)),
        ("mirrorPercentage: {value: 0.001}", Some(100)),
        ("mirrorPercentage: {value: 1e1}", Some(100_000)),
        ("mirrorPercentage: {value: 33.33}", Some(333_300)),
        ("mirror_percent: 7", Some(70_000)),
        ("mirrorPercent: 0", None),
        ("mirrorPercentage: {value: 101}", None),
        ("mirrorPercentage: {value: x}", None),
        ("mirrorPercentage: 5", None),
    ] {
        let (config, all) = route(&format!(
            "  - {mirror}\n    {}\n    timeout: 20s\n    {share}\n",
            to("x")
        ));
        let found = only(&config).mirrors.first().map(|one| one.sample);
        assert_eq!(found, sample, "{share}: {all:#?}");
        let lost = all.iter().any(|one| one.contains(" lost "));
        assert_eq!(
            lost,
            sample.is_none() && !share.ends_with(": 0"),
            "{share}: {all:#?}"
        );
        if let Some(mirror) = only(&config).mirrors.first() {
            assert_eq!(mirror.timeout.unwrap().as_secs(), 20);
        }
    }
    let (config, _) = route(&format!(
        "  - mirrors: [{{destination: {{host: m, port: {{number: 80}}}}, percentage: {{value: 5}}}}, {{destination: {{host: m, port: {{number: 80}}}}}}]\n    {}\n",
        to("x")
    ));
    let names: Vec<(&str, u32)> = only(&config)
        .mirrors
        .iter()
        .map(|one| (&*one.name, one.sample))
        .collect();
    assert_eq!(names, [("ml/m:80", 50_000), ("ml/m:80-2", 1_000_000)]);
}

#[test]
fn sites_of_other_origins() {
    let (config, all) = route(&format!(
        "  - corsPolicy:\n      allowOrigins: [{{exact: 'https://a.example'}}, {{regex: '^https://.*\\.b\\.example$'}}, {{prefix: 'https://c'}}, {{regex: 'https://d[0-9].example'}}]\n\
         \x20     allowMethods: [PUT]\n      maxAge: 1m\n    {}\n",
        to("x")
    ));
    assert_eq!(
        all,
        [
            "8:89 lost spec.http[0].corsPolicy.allowOrigins[2]: sites are named, or all below a name are meant",
            "8:112 lost spec.http[0].corsPolicy.allowOrigins[3]: sites are named, or all below a name are meant",
        ]
    );
    let cors = only(&config).cors.as_ref().unwrap();
    let AnyOf::Only(origins) = &cors.origins else {
        panic!()
    };
    let allowed = |origin: &str| origins.iter().any(|one| one.is(origin));
    assert!(allowed("https://a.example") && allowed("https://x.b.example"));
    assert!(!allowed("https://b.example") && !allowed("https://c"));
    assert_eq!(cors.headers, AnyOf::Only(Vec::new()));
    assert_eq!(cors.methods, AnyOf::Only(vec![http::Method::PUT]));
    for any in ["{exact: '*'}", "{regex: '.*'}"] {
        let (config, all) = route(&format!(
            "  - corsPolicy: {{allowOrigins: [{any}]}}\n    {}\n",
            to("x")
        ));
        assert_eq!(all, [""; 0]);
        assert!(matches!(
            only(&config).cors.as_ref().unwrap().origins,
            AnyOf::Any
        ));
    }
    let (config, all) = route(&format!(
        "  - corsPolicy: {{allowOrigins: [{{prefix: x}}]}}\n    {}\n",
        to("x")
    ));
    assert!(
        only(&config).cors.is_none() && all[0].contains("no site is left"),
        "{all:#?}"
    );
}

#[test]
fn faults_are_lost_and_a_closed_way_protects_somebody() {
    for (fault, secure) in [
        ("{delay: {fixedDelay: 5s}}", false),
        ("{abort: {httpStatus: 500, percentage: {value: 1}}}", false),
        ("{abort: {httpStatus: 403, percentage: {value: 100}}}", true),
        ("{abort: {httpStatus: 403}}", true),
    ] {
        let (_, all) = {
            let text = service(&format!("  - fault: {fault}\n    {}\n", to("x")));
            ((), findings(&translation(&text)))
        };
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!(all[0].contains(" lost! "), secure, "{fault}: {all:#?}");
    }
}

#[test]
fn answers_of_the_proxy_have_the_headers_of_the_rule() {
    let (config, all) = route(
        "  - directResponse: {status: 418, body: {string: teapot}}\n    headers: {response: {set: {x-a: b}}}\n",
    );
    assert_eq!(all, [""; 0]);
    assert_eq!(ask(&config, "GET", "/", &[]), "418 teapot");
    assert!(matches!(only(&config).action, Action::Respond(_)));
    assert_eq!(only(&config).response_headers.set.len(), 1);
}

#[test]
fn a_long_clock_moves_those_that_are_shorter() {
    for (written, clocks) in [
        ("20s", (Some(300), Some(300), Some(20))),
        ("300s", (Some(300), Some(300), Some(300))),
        ("20m", (Some(1200), Some(1200), Some(1200))),
        ("0s", (None, None, None)),
    ] {
        let (config, all) = route(&format!("  - timeout: {written}\n    {}\n", to("x")));
        assert_eq!(all, [""; 0]);
        let timeouts = &only(&config).timeouts;
        let seconds = |clock: Option<std::time::Duration>| clock.map(|clock| clock.as_secs());
        let found = (
            seconds(timeouts.first_byte),
            seconds(timeouts.idle),
            seconds(timeouts.total),
        );
        assert_eq!(found, clocks, "{written}");
    }
}
