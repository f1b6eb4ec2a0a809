//! What filters do.

use std::time::Duration;

use forebay_config::model::{AnyOf, Origin, RetryMethods};
use http::Method;

use crate::gateway_api::{GATEWAY, ask, config, made, named, route};
use crate::support::findings;

/// A configuration with one rule.
fn one(rule: &str) -> String {
    GATEWAY.to_owned() + &route("r", &format!("[{rule}]"))
}

/// The table of ReplacePrefixMatch in the specification.
#[test]
fn a_prefix_is_replaced_by_whole_segments() {
    for (path, prefix, replacement, want) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
    ] {
        let rule = format!(
            "{{matches: [{{path: {{value: {prefix}}}}}], backendRefs: [{{name: a, port: 80}}], filters: \
             [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{replacement}'}}}}}}]}}"
        );
        let answer = ask("h", path).of(&config(&one(&rule)));
        let want = format!("ml/r/0: ml/a:80 {want}");
        assert_eq!(answer, want, "{path} {prefix} {replacement}");
    }
}

#[test]
fn the_whole_path_and_the_host_are_replaced() {
    let rule = "{backendRefs: [{name: a, port: 80}], filters: [{type: URLRewrite, urlRewrite: \
                {hostname: b.example, path: {type: ReplaceFullPath, replaceFullPath: /x}}}]}";
    let config = config(&one(rule));
    assert_eq!(ask("h", "/a/b").of(&config), "ml/r/0: ml/a:80 /x");
    let host = named(&config, "ml/r/0").rewrite.host.clone();
    assert_eq!(host.unwrap(), "b.example");
}

/// Ports of redirects: the redirect's own, else the default of its scheme, else that of the listener; the default
/// port of the scheme is left out.
#[test]
fn redirects_have_the_ports_of_the_specification() {
    let gateway = GATEWAY.replace(
        "listeners: [",
        "listeners: [{name: odd, port: 8080, protocol: HTTP}, \
         {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: web-tls}]}}, \
         {name: odd-tls, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: web-tls}]}}, ",
    );
    for (listener, keys, want) in [
        ("http-80", "hostname: b", "302 http://b/p?q=1"),
        ("http-8080", "hostname: b", "302 http://b:8080/p?q=1"),
        ("https-443", "hostname: b", "302 https://b/p?q=1"),
        ("https-8443", "hostname: b", "302 https://b:8443/p?q=1"),
        ("http-80", "scheme: https", "302 https://h/p?q=1"),
        ("http-8080", "scheme: https", "302 https://h/p?q=1"),
        ("https-443", "scheme: http", "302 http://h/p?q=1"),
        ("https-8443", "scheme: http", "302 http://h/p?q=1"),
        ("http-80", "port: 8080", "302 http://h:8080/p?q=1"),
        ("http-80", "port: 80", "302 http://h/p?q=1"),
        ("https-443", "port: 443", "302 https://h/p?q=1"),
        ("https-443", "port: 80", "302 https://h:80/p?q=1"),
        (
            "http-8080",
            "scheme: https, port: 443",
            "302 https://h/p?q=1",
        ),
        (
            "http-8080",
            "scheme: https, port: 8443",
            "302 https://h:8443/p?q=1",
        ),
        (
            "http-8080",
            "scheme: http, hostname: b, statusCode: 301",
            "301 http://b/p?q=1",
        ),
        (
            "http-80",
            "hostname: b, statusCode: 303",
            "303 http://b/p?q=1",
        ),
        (
            "http-80",
            "hostname: b, statusCode: 307",
            "307 http://b/p?q=1",
        ),
        (
            "http-80",
            "path: {type: ReplaceFullPath, replaceFullPath: /n}, statusCode: 308",
            "308 http://h/n?q=1",
        ),
        (
            "http-80",
            "path: {type: ReplaceFullPath}, hostname: b",
            "302 http://b/?q=1",
        ),
    ] {
        let rule =
            format!("[{{filters: [{{type: RequestRedirect, requestRedirect: {{{keys}}}}}]}}]");
        let config = config(&(gateway.clone() + &route("r", &rule)));
        let answer = ask("h", "/p?q=1").on(listener).of(&config);
        assert_eq!(answer, format!("ml/r/0: {want}"), "{listener} {keys}");
    }
}

#[test]
fn headers_are_edited_by_rule_and_by_backend() {
    let edits = |name: &str| {
        format!(
            "[{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-{name}, value: s}}, {{name: x-{name}, value: t}}], \
             add: [{{name: y, value: {name}}}], remove: [Z-{name}]}}}}, \
             {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: r, value: {name}}}]}}}}]"
        )
    };
    let rule = format!(
        "{{filters: {}, backendRefs: [{{name: a, port: 80, filters: {}}}, {{name: b, port: 80}}]}}",
        edits("rule"),
        edits("a")
    );
    let config = config(&one(&rule));
    let route = named(&config, "ml/r/0");
    let forebay_config::model::Action::Forward(members) = &route.action else {
        panic!("{:?}", route.action)
    };
    for (edits, name) in [
        (&route.request_headers, "rule"),
        (&members[0].request_headers, "a"),
    ] {
        let set: Vec<(&str, &str)> = edits
            .set
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(set, [(format!("x-{name}").as_str(), "s")]);
        assert_eq!(edits.add[0].1, name);
        assert_eq!(edits.remove[0].as_str(), format!("z-{name}"));
    }
    assert_eq!(route.response_headers.set[0].1, "rule");
    assert_eq!(members[0].response_headers.set[0].1, "a");
    assert!(members[1].request_headers.is_empty() && members[1].response_headers.is_empty());
}

#[test]
fn copies_have_their_percent_or_fraction() {
    for (keys, sample, note) in [
        ("", 1_000_000, ""),
        ("percent: 0", 0, ""),
        ("percent: 1", 10_000, ""),
        ("percent: 42", 420_000, ""),
        ("percent: 100", 1_000_000, ""),
        ("fraction: {numerator: 50}", 500_000, ""),
        ("fraction: {numerator: 1, denominator: 1000}", 1_000, ""),
        ("fraction: {numerator: 1, denominator: 10000}", 100, ""),
        (
            "fraction: {numerator: 1, denominator: 3}",
            333_300,
            "steps of 0.01%",
        ),
        (
            "fraction: {numerator: 2, denominator: 3}",
            666_700,
            "steps of 0.01%",
        ),
        ("fraction: {numerator: 0, denominator: 7}", 0, ""),
        ("fraction: {numerator: 7, denominator: 7}", 1_000_000, ""),
    ] {
        let separator = if keys.is_empty() { "" } else { ", " };
        let rule = format!(
            "{{backendRefs: [{{name: a, port: 80}}], filters: [{{type: RequestMirror, requestMirror: \
             {{backendRef: {{name: m, port: 80}}{separator}{keys}}}}}]}}"
        );
        let text = one(&rule);
        let found = findings(&made(&text)).join("\n");
        assert_eq!(found.is_empty(), note.is_empty(), "{keys} {found}");
        assert!(found.contains(note), "{keys} {found}");
        let config = config(&text);
        let mirrors = &named(&config, "ml/r/0").mirrors;
        assert_eq!(mirrors[0].sample, sample, "{keys}");
        assert_eq!((&*mirrors[0].name, mirrors.len()), ("ml/m:80", 1));
    }
}

#[test]
fn a_service_may_get_two_copies() {
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}}}";
    let rule = format!(
        "{{backendRefs: [{{name: a, port: 80}}], filters: [{mirror}, {mirror}, {mirror}]}}"
    );
    let config = config(&one(&rule));
    let mirrors = named(&config, "ml/r/0").mirrors.iter();
    let names: Vec<&str> = mirrors.map(|mirror| &*mirror.name).collect();
    assert_eq!(names, ["ml/m:80", "ml/m:80-2", "ml/m:80-3"]);
}

#[test]
fn cors_has_the_defaults_of_the_specification() {
    let cors = |keys: &str| {
        let rule = format!(
            "{{backendRefs: [{{name: a, port: 80}}], filters: [{{type: CORS, cors: {{{keys}}}}}]}}"
        );
        let config = config(&one(&rule));
        named(&config, "ml/r/0").cors.clone()
    };
    let bare = cors("allowOrigins: ['https://*.a.com', 'http://b.com:8080']").unwrap();
    assert_eq!(bare.max_age, Duration::from_secs(5));
    assert_eq!(
        bare.methods,
        AnyOf::Only(vec![Method::GET, Method::HEAD, Method::POST])
    );
    assert_eq!(
        (bare.headers, bare.expose),
        (AnyOf::Only(Vec::new()), AnyOf::Only(Vec::new()))
    );
    assert!(!bare.credentials);
    let AnyOf::Only(origins) = bare.origins else {
        panic!("{:?}", bare.origins)
    };
    assert!(
        origins
            .iter()
            .any(|one: &Origin| one.is("https://x.y.a.com"))
    );
    assert!(!origins.iter().any(|one: &Origin| one.is("https://a.com")));
    let open = cors("allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*'], allowCredentials: true, maxAge: 600").unwrap();
    assert_eq!((open.origins, open.methods), (AnyOf::Any, AnyOf::Any));
    assert_eq!((open.headers, open.credentials), (AnyOf::Any, true));
    assert_eq!(open.max_age, Duration::from_secs(600));
    assert_eq!(cors(""), None);
}

#[test]
fn clocks_and_retries() {
    let seconds = |number| Some(Duration::from_secs(number));
    for (keys, total, first_byte, idle) in [
        ("request: 10s", seconds(10), seconds(300), seconds(300)),
        ("request: 10m", seconds(600), seconds(600), seconds(600)),
        ("request: 0s", None, None, None),
        (
            "request: 10s, backendRequest: 2s",
            seconds(10),
            seconds(2),
            seconds(300),
        ),
        ("backendRequest: 0s", None, None, seconds(300)),
        (
            "request: 1h30m, backendRequest: 1h",
            seconds(5400),
            seconds(3600),
            seconds(5400),
        ),
    ] {
        let config = config(&one(&format!(
            "{{backendRefs: [{{name: a, port: 80}}], timeouts: {{{keys}}}}}"
        )));
        let timeouts = &named(&config, "ml/r/0").timeouts;
        assert_eq!(
            (timeouts.total, timeouts.first_byte, timeouts.idle),
            (total, first_byte, idle),
            "{keys}"
        );
        assert_eq!(named(&config, "ml/r/0").retry, None);
    }
    let rule = "{backendRefs: [{name: a, port: 80}], timeouts: {backendRequest: 2s}, retry: {attempts: 3, codes: [500, 503]}}";
    let config = config(&one(rule));
    let retry = named(&config, "ml/r/0").retry.clone().unwrap();
    assert_eq!((retry.attempts, retry.per_try), (3, seconds(2)));
    assert_eq!(retry.methods, RetryMethods::All);
    let statuses: Vec<u16> = retry
        .when
        .statuses
        .iter()
        .map(http::StatusCode::as_u16)
        .collect();
    assert_eq!(statuses, [500, 503]);
    assert!(retry.when.connect && retry.when.refused && !retry.when.reset);
}

/// What cannot be filtered is not let through either.
#[test]
fn a_rule_with_a_filter_that_cannot_be_done_answers_500() {
    for (filter, note) in [
        (
            "{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}",
            "filters of other programs",
        ),
        (
            "{type: ExternalAuth, externalAuth: {protocol: GRPC}}",
            "lost! spec.rules[0].filters[0].externalAuth",
        ),
        ("{type: Odd}", "this type is not known"),
        ("{urlRewrite: {hostname: h}}", "`type` is missing"),
        ("5", "expected a map"),
        (
            "{type: URLRewrite, urlRewrite: {hostname: 'a b'}}",
            "urlRewrite.hostname",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}",
            "not every match",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: Odd}}}",
            "this type is not known",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: 'a//b'}}}",
            "is not a path",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {}}",
            "own address",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {scheme: ftp}}",
            "scheme",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {hostname: a, port: 0}}",
            "from 1 to 65535",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {hostname: a, statusCode: 304}}",
            "status of a redirect",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}",
            "keeps the rest",
        ),
    ] {
        let matched = "matches: [{path: {type: Exact, value: /x}}]";
        let rule = format!(
            "{{{matched}, filters: [{filter}], backendRefs: [{{name: a, port: 80}}]}}, {{}}"
        );
        let found = findings(&made(&one(&rule))).join("\n");
        assert!(found.contains(note), "{filter}\n{found}");
        let backend = format!(
            "{{{matched}, backendRefs: [{{name: a, port: 80, filters: [{filter}]}}]}}, {{}}"
        );
        let below = findings(&made(&one(&backend))).join("\n");
        assert!(
            below.contains("one of its filters cannot be done") || below.contains("own address"),
            "{filter}\n{below}"
        );
        for rule in [rule, backend] {
            if !found.contains("lost!") {
                assert_eq!(
                    ask("h", "/x").of(&config(&one(&rule))),
                    "ml/r/0: 500",
                    "{rule}"
                );
            }
        }
    }
}

/// What has no effect beside a redirect, or where nobody is there, is not passed over in silence.
#[test]
fn what_has_no_effect_is_found() {
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}}}";
    let answer = "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}";
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: b}}";
    let rule = format!(
        "{{filters: [{mirror}, {answer}, {redirect}], backendRefs: [{{name: a, port: 80}}]}}"
    );
    let found = findings(&made(&one(&rule))).join("\n");
    for note in [
        "filters[0]: nothing is forwarded, so nothing is copied",
        "filters[1]: the headers of a redirect are not edited",
        "backendRefs: the rule redirects",
    ] {
        assert!(found.contains(note), "{note}\n{found}");
    }
    let alone = format!("{{filters: [{mirror}, {answer}]}}");
    let found = findings(&made(&one(&alone))).join("\n");
    assert!(
        found.contains("filters[0]: nothing is forwarded"),
        "{found}"
    );
    let config = config(&one(&alone));
    assert_eq!(ask("h", "/").of(&config), "ml/r/0: 500");
    assert_eq!(named(&config, "ml/r/0").response_headers.remove.len(), 1);
}
