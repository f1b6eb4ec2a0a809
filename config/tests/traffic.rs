//! Mirrors, records, retries, edits of bodies, checks and ejection: what is refused, what is odd, and how it reads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use forebay_config::diagnostic::{Diagnostic, Severity};
use forebay_config::load::load;
use forebay_config::schema::json_schema;
use forebay_config::{Config, Cutover};

fn loaded(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    load(&[shipped::source("a.yaml", text)], &|_| None)
        .map(|loaded| (loaded.config, loaded.warnings))
        .map_err(|problems| problems.0)
}

fn findings(text: &str) -> Vec<Diagnostic> {
    match loaded(text) {
        Ok((_, findings)) | Err(findings) => findings,
    }
}

/// A file with these keys in its one route.
fn route(keys: &str) -> String {
    format!("routes:\n- {{name: r, cluster: c, {keys}}}\n{CLUSTERS}")
}

/// A file with these keys in its one cluster.
fn cluster(keys: &str) -> String {
    format!(
        "routes: [{{name: r, cluster: c}}]\nclusters:\n- {{name: c, endpoints: ['10.0.0.1:1', '10.0.0.2:1'], {keys}}}\n"
    )
}

const CLUSTERS: &str =
    "clusters: [{name: c, endpoints: ['127.0.0.1:1']}, {name: d, endpoints: ['127.0.0.1:2']}]\n";

/// Asserts which codes a file is answered with, and that the schema accepts what loads. The cluster that no route
/// names does not count.
#[track_caller]
fn codes(text: &str, expected: &str) {
    let found = findings(text);
    let codes: Vec<&str> = found.iter().map(|one| one.code.as_str()).collect();
    let codes = codes.join(" ").replace("W001", "");
    assert_eq!(codes.trim(), expected, "{text}\n{found:#?}");
    if found.iter().all(|one| one.severity == Severity::Warning) {
        assert!(fits_the_schema(text), "the schema refuses {text}");
    }
}

fn fits_the_schema(text: &str) -> bool {
    static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> =
        std::sync::LazyLock::new(|| jsonschema::validator_for(&json_schema()).unwrap());
    let instance: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    VALIDATOR.is_valid(&instance)
}

/// Asserts that one of the findings reads like this, as `line:column code message`, and helps like that.
#[track_caller]
fn says(text: &str, message: &str, help: &str) {
    let found = findings(text);
    let shown = |one: &Diagnostic| {
        let (line, column) = (one.position.line, one.position.column);
        format!("{line}:{column} {} {}", one.code.as_str(), one.message)
    };
    let one = found.iter().find(|one| shown(one) == message);
    let one = one.unwrap_or_else(|| {
        let all: Vec<String> = found.iter().map(shown).collect();
        panic!("{text}\n{all:#?}")
    });
    assert_eq!(one.help.as_deref().unwrap_or_default(), help, "{text}");
}

#[test]
fn mirrors() {
    for (mirrors, code) in [
        ("[]", ""),
        ("null", ""),
        ("[{cluster: d}]", ""),
        ("[{cluster: d, compare: {}}]", ""),
        ("[{cluster: d, compare: null, timeout: none}]", ""),
        ("{cluster: d}", "E012"),
        ("[{}]", "E015"),
        ("[{name: a}]", "E015"),
        ("[{cluster: e}]", "E021"),
        ("[{cluster: d}, {cluster: d}]", "E020"),
        ("[{cluster: d}, {cluster: d, name: e}]", ""),
        ("[{cluster: d, clutser: d}]", "E010"),
        (
            "[{cluster: d, sample: 100%}, {cluster: d, name: e, sample: 0}]",
            "",
        ),
        ("[{cluster: d, sample: 0.01%}]", ""),
        ("[{cluster: d, sample: 0.0001}]", ""),
        ("[{cluster: d, sample: 0.010 %}]", ""),
        ("[{cluster: d, sample: 101%}]", "E013"),
        ("[{cluster: d, sample: -1%}]", "E013"),
        ("[{cluster: d, sample: 5}]", "E013"),
        ("[{cluster: d, sample: 0.005%}]", "E014"),
        ("[{cluster: d, sample: 0.00005}]", "E014"),
        ("[{cluster: d, max_in_flight: 0}]", "E014"),
        ("[{cluster: d, max_lag: 0}]", "E014"),
        ("[{cluster: d, max_bytes: 1mib}]", "E013"),
        ("[{cluster: d, timeout: 0s}]", "E014"),
        ("[{cluster: d, demand: 1}]", "E012"),
        ("[{cluster: d, request_headers: {set: {host: x}}}]", "E019"),
        ("[{cluster: c}]", "W010"),
        ("[{cluster: c, sample: 0%}]", ""),
    ] {
        codes(&route(&format!("mirrors: {mirrors}")), code);
    }
    says(
        &route("mirrors: [{cluster: dd}]"),
        "2:45 E021 routes[0] (r).mirrors[0] (dd).cluster: unknown cluster `dd`",
        "did you mean `d`?",
    );
    says(
        &route("mirrors: [{cluster: d}, {cluster: d}]"),
        "2:49 E020 routes[0] (r).mirrors[1] (d): the name `d` is taken",
        "the first one is at a.yaml:2; give this one a `name` of its own",
    );
    says(
        &route("mirrors: [{cluster: d, sample: 101%}]"),
        "2:56 E013 routes[0] (r).mirrors[0].sample: the string `101%` is not a ratio from 0 to 100%",
        "a ratio looks like `70%` or `0.7`",
    );
    says(
        &route("mirrors: [{cluster: d, sample: 0.125%, name: m}]"),
        "2:56 E014 routes[0] (r).mirrors[0] (m).sample: the string `0.125%` is finer than the steps of 0.01%",
        "`0.13%`?",
    );
    says(
        &route("mirrors: [{cluster: c}]"),
        "2:35 W010 routes[0] (r).mirrors[0] (c): `c` gets these requests already, so that the mirror doubles its load",
        "mirror to a cluster that the route does not forward to",
    );
    let split = |weights: &str| {
        format!("routes: [{{name: r, split: [{weights}], mirrors: [{{cluster: d}}]}}]\n{CLUSTERS}")
    };
    codes(
        &split("{cluster: c, weight: 9}, {cluster: d, weight: 1}"),
        "W010",
    );
    codes(
        &split("{cluster: c, weight: 9}, {cluster: d, weight: 0}"),
        "",
    );
}

#[test]
fn comparisons() {
    let three = format!(
        "{}, {{name: e, endpoints: ['a:1']}}]\n",
        CLUSTERS.trim().trim_end_matches(']')
    );
    let file = |compare: &str| {
        route(&format!("mirrors: [{{cluster: d, compare: {compare}}}]")).replace(CLUSTERS, &three)
    };
    for (compare, code) in [
        ("{noise: e}", ""),
        ("{noise: c}", ""),
        ("{noise: d}", "W011"),
        ("{noise: f}", "E021"),
        ("{sample: 0.001%}", "E014"),
        ("{headers: [Content-Type, x-a]}", ""),
        ("{headers: ['a b']}", "E013"),
        ("{ignore: [/id, '', /a~1b/~0/*]}", ""),
        ("{ignore: [id]}", "E013"),
        ("{ignore: [/a~]}", "E013"),
        ("{ignore: [/a /b]}", "E013"),
        ("{ignore: [/a b/c]}", ""),
        ("{ignore: /id}", "E012"),
        ("{tolerance: {}}", ""),
        ("{tolerance: {abs: 0, rel: 1e-4}}", ""),
        ("{tolerance: {abs: 0.5, rel: 1.5e+2}}", ""),
        ("{tolerance: {abs: -0.5}}", "E013"),
        ("{tolerance: {rel: .nan}}", "E012"),
        ("{tolerance: {rel: .inf}}", "E012"),
        ("{tolerance: {rel: 1e999}}", "E012"),
        ("{tolerance: {rel: 1%}}", "E012"),
        ("{tolerance: {rel: nan}}", "E012"),
        ("{tolerance: {rel: '1'}}", "E012"),
        ("{tolerance: 1e-4}", "E012"),
        ("{array_order: sorted}", "E012"),
        ("{max_body: 0}", ""),
        ("{max_body: 2GiB}", "E014"),
        ("true", "E012"),
    ] {
        codes(&file(compare), code);
    }
    says(
        &file("{noise: d}"),
        "2:65 W011 routes[0] (r).mirrors[0] (d).compare.noise: the mirror's own cluster, so that all its differences count as noise",
        "name a cluster that serves what the primary serves",
    );
    says(
        &file("{noise: ee}"),
        "2:65 E021 routes[0] (r).mirrors[0] (d).compare.noise: unknown cluster `ee`",
        "did you mean `e`?",
    );
    says(
        &file("{ignore: [$.choices.0.id]}"),
        "2:67 E013 routes[0] (r).mirrors[0].compare.ignore[0]: the string `$.choices.0.id` is not a JSON pointer",
        "JSON pointers begin with `/`: `/choices/0/id`?",
    );
    says(
        &file("{tolerance: {abs: -1}}"),
        "2:75 E013 routes[0] (r).mirrors[0].compare.tolerance.abs: the number `-1` is not a number from 0 up",
        "as in `0.001` or `1e-6`",
    );
}

#[test]
fn records() {
    for (record, code) in [
        ("{path: a.jsonl}", ""),
        ("{url: 'http://compare/ingest', path: /a}", ""),
        ("{url: 'https://[::1]:8443'}", ""),
        ("{}", "E015"),
        ("{sample: 1%}", "E015"),
        ("{path: ''}", "E013"),
        ("{url: ftp://a/b}", "E013"),
        ("{url: compare/ingest}", "E013"),
        ("{url: 'http://'}", "E013"),
        ("{url: 'http://user:secret@a/'}", "E013"),
        ("{path: a, sample: 0.001%}", "E014"),
        ("{path: a, redact: [/prompt, '', /messages/*/content]}", ""),
        ("{path: a, redact: [prompt]}", "E013"),
        ("{path: a, max_file: 1MiB, keep: 0}", ""),
        ("{path: a, max_file: 1}", "E014"),
        ("{path: a, keep: -1}", "E014"),
        ("{url: 'http://a', keep: 3}", "W005"),
        ("{url: 'http://a', max_file: 1MiB}", "W005"),
        ("a.jsonl", "E012"),
    ] {
        codes(&route(&format!("record: {record}")), code);
    }
    says(
        &route("record: {sample: 1%}"),
        "2:33 E015 routes[0] (r).record: a record needs `path`, `url` or both",
        "for example `path: pairs.jsonl`",
    );
    says(
        &route("record: {path: a, redact: [/prompt /user]}"),
        "2:52 E013 routes[0] (r).record.redact[0]: the string `/prompt /user` is not a JSON pointer",
        "two of them: `/prompt, /user`?",
    );
    for (url, help) in [
        ("compare:80", "the scheme is missing: `http://compare:80`?"),
        ("ftp://a", "only `http` and `https` are posted to"),
        (
            "http://u:secret@a",
            "leave user name and password out: they are not sent",
        ),
    ] {
        says(
            &route(&format!("record: {{url: '{url}'}}")),
            "2:39 E013 routes[0] (r).record.url: this is not an `http` or `https` URL",
            help,
        );
    }
}

#[test]
fn retries() {
    for (retry, code) in [
        ("{}", ""),
        ("{attempts: 0}", ""),
        ("{attempts: 11}", "E014"),
        ("{when: [connect, refused, reset, 502, 503-504, 400]}", ""),
        ("{when: ['500-599']}", ""),
        ("{when: []}", "E013"),
        ("{when: [timeout]}", "E013"),
        ("{when: [conect]}", "E013"),
        ("{when: [5xx]}", "E013"),
        ("{when: [200]}", "E014"),
        ("{when: [600]}", "E014"),
        ("{when: [399-500]}", "E014"),
        ("{when: [504-502]}", "E013"),
        ("{when: 502}", "E012"),
        ("{methods: idempotent, when: [502]}", ""),
        ("{methods: all}", ""),
        ("{methods: all, when: [502]}", "W013"),
        ("{methods: all, when: [reset]}", "W013"),
        ("{methods: all, when: [reset], attempts: 0}", ""),
        ("{methods: [GET, POST], when: [502]}", "W013"),
        ("{methods: [GET, PUT], when: [502]}", ""),
        ("{methods: [get]}", "E013"),
        ("{methods: POST}", "E012"),
        ("{methods: safe}", "E013"),
        ("{budget: 120%}", "E013"),
        ("{budget: 0.001%}", ""),
        ("{max_body: 0}", ""),
        ("{per_try: 0s}", "E014"),
        ("{per_try: none}", ""),
        ("{per_try: 10s}, timeouts: {total: 30s}", ""),
        ("{per_try: 10001ms}, timeouts: {total: 30s}", "W012"),
        (
            "{per_try: 20s, attempts: 1}, timeouts: {total: 30s}",
            "W012",
        ),
        ("{per_try: 99s, attempts: 0}, timeouts: {total: 30s}", ""),
        ("{per_try: 99s}", ""),
    ] {
        codes(&route(&format!("retry: {retry}")), code);
    }
    says(
        &route("retry: {when: [conect]}"),
        "2:40 E013 routes[0] (r).retry.when[0]: the string `conect` is not a reason to try again",
        "did you mean `connect`?",
    );
    says(
        &route("retry: {when: [timeout]}"),
        "2:40 E013 routes[0] (r).retry.when[0]: the string `timeout` is not a reason to try again",
        "one of `connect`, `refused`, `reset`, `502`",
    );
    says(
        &route("retry: {when: [5xx]}"),
        "2:40 E013 routes[0] (r).retry.when[0]: the string `5xx` is not a status",
        "a range: `500-599`?",
    );
    says(
        &route("retry: {methods: POST}"),
        "2:42 E012 routes[0] (r).retry.methods: expected `idempotent`, `all` or a list of methods, found the string `POST`",
        "a list: `[POST]`?",
    );
    says(
        &route("retry: {methods: [GET, POST], when: [502]}"),
        "2:42 W013 routes[0] (r).retry.methods: an endpoint may have begun what is tried again, so that a request may be done twice, POST included",
        "`idempotent` tries again what may be done twice, and what has an `Idempotency-Key`",
    );
    says(
        &route("retry: {per_try: 15s}, timeouts: {total: 30s}"),
        "2:42 W012 routes[0] (r).retry.per_try: 3 attempts of 15s take longer than `timeouts.total`, 30s",
        "shorten `per_try`, lower `attempts`, or raise `total`",
    );
}

#[test]
fn edits_of_bodies() {
    let long = format!("[{{find: {}, with: a}}]", "x".repeat(4097));
    let longest = format!("[{{find: {}, with: a}}]", "x".repeat(4096));
    for (replace, code) in [
        ("[]", ""),
        (&*longest, ""),
        (&*long, "E014"),
        ("[{find: '', with: a}]", "E014"),
        ("[{find: a}]", "E015"),
        ("[{with: a}]", "E015"),
        ("[{find: a, with: ''}]", ""),
        ("[{find: 1, with: 2, once: true, ignore_case: true}]", ""),
        ("[{find: a, with: bab}]", ""),
        (
            "[{find: a, with: b, types: [text/*, '*/*', Application/JSON]}]",
            "",
        ),
        ("[{find: a, with: b, types: []}]", "E013"),
        ("[{find: a, with: b, types: [html]}]", "E013"),
        ("[{find: a, with: b, types: ['*']}]", "E013"),
        ("[{find: a, with: b, types: ['*/html']}]", "E013"),
        (
            "[{find: a, with: b, types: ['text/html; charset=utf-8']}]",
            "E013",
        ),
        ("[{find: a, with: b, types: text/html}]", "E012"),
        ("[{find: a, with: b}, {find: a, with: c}]", "W005"),
        ("[{find: a, with: b}, {find: ab, with: c}]", "W005"),
        ("[{find: ab, with: b}, {find: a, with: c}]", ""),
        ("[{find: b, with: b}, {find: ab, with: c}]", ""),
        ("[{find: a, with: b, once: true}, {find: a, with: c}]", ""),
        ("[{find: a, with: b}, {find: A, with: c}]", ""),
        (
            "[{find: a, with: b, ignore_case: true}, {find: A, with: c}]",
            "W005",
        ),
        (
            "[{find: a, with: b}, {find: a, with: c, ignore_case: true}]",
            "",
        ),
        (
            "[{find: a, with: b}, {find: a, with: c, types: ['text/*']}]",
            "",
        ),
        (
            "[{find: a, with: b, types: ['text/*']}, {find: a, with: c}]",
            "W005",
        ),
    ] {
        codes(&route(&format!("body: {{replace: {replace}}}")), code);
    }
    says(
        &route("body: {replace: [{find: a, with: b}, {find: ab, with: c}]}"),
        "2:62 W005 routes[0] (r).body.replace[1]: never fits, because an earlier entry always fits where it would",
        "it is at a.yaml:2",
    );
    says(
        &route("body: {replace: [{find: a, with: b, types: ['text/html; charset=utf-8']}]}"),
        "2:69 E013 routes[0] (r).body.replace[0].types[0]: the string `text/html; charset=utf-8` is not a media type",
        "leave the parameters out: `text/html`?",
    );
    says(
        &route("body: {replace: [{find: '', with: b}]}"),
        "2:49 E014 routes[0] (r).body.replace[0].find: 0 bytes is out of range: 1 to 4096",
        "",
    );
}

#[test]
fn checks() {
    for (health, code) in [
        ("{}", ""),
        ("null", ""),
        ("{path: '/ready?a=b', status: [200, '204', 300-399]}", ""),
        ("{path: ready}", "E018"),
        ("{path: 'http://a/ready'}", "E018"),
        ("{path: '/a b'}", "E018"),
        ("{path: '/a#b'}", "E018"),
        ("{status: []}", "E013"),
        ("{status: 200}", "E012"),
        ("{status: [199]}", "E014"),
        ("{status: [600]}", "E014"),
        ("{status: [20]}", "E013"),
        ("{status: [2xx]}", "E013"),
        ("{status: [ok]}", "E013"),
        ("{kind: tcp}", ""),
        ("{kind: tcp, path: /}", "E016"),
        ("{kind: tcp, status: [200]}", "E016"),
        ("{kind: tcp, service: a}", "E016"),
        ("{kind: grpc, service: a.B}", ""),
        ("{kind: grpc, service: ''}", ""),
        ("{kind: grpc, service: 'a b'}", "E013"),
        ("{kind: grpc, path: /}", "E016"),
        ("{service: a}", "E016"),
        ("{kind: http, service: a}", "E016"),
        ("{kind: https}", "E013"),
        ("{port: 0}", "E014"),
        ("{port: 8000}", ""),
        ("{interval: 1ms}", "E014"),
        ("{interval: 1s, timeout: 3s}", ""),
        ("{timeout: 0s}", "E014"),
        ("{timeout: 2}", "E013"),
        ("{unhealthy: 0}", "E014"),
        ("{healthy: 0}", "E014"),
        ("http", "E012"),
    ] {
        codes(&cluster(&format!("health: {health}")), code);
    }
    says(
        &cluster("health: {kind: tcp, path: /}"),
        "3:80 E016 clusters[0] (c).health: `path` belongs to `kind: http`, and this is `kind: tcp`",
        "remove `path`, or write `path: null` if it is a default",
    );
    says(
        &cluster("health: {service: a}"),
        "3:72 E016 clusters[0] (c).health: `service` belongs to `kind: grpc`, and this is `kind: http`",
        "remove `service`, or write `service: null` if it is a default",
    );
    says(
        &cluster("health: {status: [99]}"),
        "3:72 E013 clusters[0] (c).health.status[0]: the number `99` is not a status",
        "a status from 200 to 599, or a range such as `200-299`",
    );
    says(
        &cluster("health: {path: 'http://a/'}"),
        "3:69 E018 clusters[0] (c).health.path: `http://a/` is not a path",
        "leave scheme and host out: each endpoint is asked",
    );
}

#[test]
fn ejection() {
    for (outlier, code) in [
        ("{}", ""),
        ("null", ""),
        ("{consecutive_5xx: 0}", "E014"),
        ("{base: 400s}", ""),
        ("{base: 400s, max: 300s}", "E014"),
        ("{max: 10s}", "E014"),
        ("{max: 30s}", ""),
        ("{keep_at_least: 0}", ""),
        ("{keep_at_least: 2}", "W005"),
        ("{slow_start: 0s}", ""),
        ("{slow_start: 5}", "E013"),
        ("true", "E012"),
    ] {
        codes(&cluster(&format!("outlier: {outlier}")), code);
    }
    assert_eq!(
        loaded(&cluster("outlier: {base: 400s}"))
            .unwrap()
            .0
            .clusters[0]
            .outlier
            .as_ref()
            .unwrap()
            .max
            .as_secs(),
        400
    );
    says(
        &cluster("outlier: {max: 10s}"),
        "3:69 E014 clusters[0] (c).outlier.max: 10s is shorter than `base`, 30s",
        "raise `max`, or write `base: 10s` or less",
    );
    says(
        &cluster("outlier: {keep_at_least: 5}"),
        "3:79 W005 clusters[0] (c).outlier: nothing is ever ejected, because `keep_at_least`, 5, leaves all 2 endpoints",
        "add endpoints, lower `keep_at_least`, or remove `outlier`",
    );
    let file = |keys: &str| {
        format!(
            "routes: [{{name: r, cluster: c}}]\nclusters: [{{name: c, outlier: {{}}, {keys}}}]\n"
        )
    };
    says(
        &file("endpoints: ['127.0.0.1:1']"),
        "2:31 W005 clusters[0] (c).outlier: nothing is ever ejected, because `keep_at_least`, 1, leaves the only endpoint",
        "add endpoints, lower `keep_at_least`, or remove `outlier`",
    );
    codes(&file("endpoints: ['name:1']"), "");
    codes(
        &file("endpoints: ['127.0.0.1:1'], discover: {dns: {name: a, port: 1}}"),
        "",
    );
    codes(
        &file(
            "endpoints: [{address: '127.0.0.1:1', labels: {v: 1}}, '127.0.0.1:2'], subset: {v: 1}",
        ),
        "W005",
    );
}

#[test]
fn what_is_not_forwarded_is_not_copied_or_tried_again() {
    const KEYS: [&str; 5] = [
        "cutover: ready",
        "mirrors: [{cluster: d}]",
        "record: {path: a}",
        "retry: {}",
        "body: {replace: [{find: a, with: b}]}",
    ];
    for keys in KEYS {
        codes(
            &format!("routes: [{{name: r, respond: {{}}, {keys}}}]\n{CLUSTERS}"),
            "W005",
        );
        let tcp = "listeners: [{name: t, address: '127.0.0.1:0', protocol: tcp}]\n";
        let split = "split: [{cluster: c}, {cluster: d}]";
        codes(
            &format!("{tcp}routes: [{{name: r, listeners: [t], {split}, {keys}}}]\n{CLUSTERS}")
                .replace(
                    "mirrors: [{cluster: d}]",
                    "mirrors: [{cluster: d, sample: 0%}]",
                ),
            "E024",
        );
    }
    for keys in [
        "cutover: at_once",
        "mirrors: []",
        "body: {replace: []}",
        "retry: null",
    ] {
        codes(
            &format!("routes: [{{name: r, redirect: {{host: a}}, {keys}}}]\n{CLUSTERS}"),
            "",
        );
    }
    says(
        "routes: [{name: r, respond: {}, body: {replace: [{find: a, with: b}]}}]",
        "1:49 W005 routes[0] (r).body.replace: has no effect, because the route forwards nothing",
        "",
    );
    codes(&route("cutover: later"), "E013");
    codes(&route("cutover: ready"), "W005");
    says(
        &route("cutover: ready"),
        "2:34 W005 routes[0] (r).cutover: has no effect, because there is only one member",
        "weights are those of a `split`",
    );
}

#[test]
fn keys_in_bodies_that_there_are_none_of() {
    let file = |methods: &str, keys: &str| {
        format!(
            "routes:\n- {{name: r, match: {{methods: [{methods}]}}, split: [{{cluster: c}}, {{cluster: d}}], {keys}}}\n{CLUSTERS}"
        )
    };
    let sticky = "sticky: {json: /user}";
    let limit = "rate_limits: [{rate: 1/s, per: {json: /user}}]";
    for keys in [sticky, limit] {
        codes(&file("GET", keys), "W005");
        codes(&file("GET, HEAD", keys), "W005");
        codes(&file("GET, POST", keys), "");
    }
    says(
        &file("GET", sticky),
        "2:90 W005 routes[0] (r).sticky: has no effect, because this route's requests, GET and HEAD, have no body",
        "add `POST` to the methods of `match`, or use a header",
    );
    codes(&route(limit), "");
    says(
        &route("rate_limits: [{rate: 1/s, per: {json: $.user}}]"),
        "2:63 E013 routes[0] (r).rate_limits[0].per.json: the string `$.user` is not a JSON pointer",
        "JSON pointers begin with `/`: `/user`?",
    );
    says(
        &file("POST", "sticky: {json: ''}"),
        "2:91 E013 routes[0] (r).sticky.json: the string `` is not a field of a JSON body",
        "a JSON pointer such as `/user` or `/user/id`",
    );
}

#[test]
fn defaults_reach_every_route_and_cluster() {
    let text = format!(
        "defaults:\n  route:\n    cutover: ready\n    mirrors: [{{cluster: d}}]\n    record: {{path: a, sample: 1%}}\n\
         \x20   retry: {{attempts: 1, when: [502]}}\n    body: {{max: 1MiB, replace: [{{find: a, with: b}}]}}\n\
         \x20 cluster:\n    health: {{path: /a, interval: 9s}}\n    outlier: {{base: 1s}}\n\
         routes:\n- {{name: a, cluster: c}}\n\
         - {{name: b, match: {{path: {{exact: /b}}}}, cluster: c, cutover: null, mirrors: null, record: {{url: 'http://a', sample: 2%}}, retry: {{when: [reset], attempts: null}}, body: {{replace: null}}}}\n{}",
        CLUSTERS.replace(
            "name: d,",
            "name: d, health: {kind: tcp, path: null}, outlier: null,"
        )
    );
    let (config, _) = loaded(&text).unwrap();
    let [a, b] = &config.routes[..] else { panic!() };
    assert_eq!((a.cutover, b.cutover), (Cutover::Ready, Cutover::AtOnce));
    assert_eq!((a.mirrors.len(), b.mirrors.len()), (1, 0));
    let [a_record, b_record] = [a, b].map(|route| route.record.as_ref().unwrap());
    assert_eq!((a_record.sample, b_record.sample), (10_000, 20_000));
    assert!(a_record.url.is_none() && b_record.url.is_some() && b_record.path.is_some());
    let [a_retry, b_retry] = [a, b].map(|route| route.retry.as_ref().unwrap());
    assert_eq!((a_retry.attempts, b_retry.attempts), (1, 2));
    assert!(!a_retry.when.reset && b_retry.when.reset && b_retry.when.statuses.is_empty());
    assert_eq!((a.replace.len(), b.replace.len()), (1, 0));
    assert_eq!((a.body_max, b.body_max), (Some(1 << 20), Some(1 << 20)));
    let [c, d] = &config.clusters[..] else {
        panic!()
    };
    for cluster in [c, d] {
        assert_eq!(cluster.health.as_ref().unwrap().interval.as_secs(), 9);
    }
    assert_eq!(c.outlier.as_ref().unwrap().base.as_secs(), 1);
    assert_eq!(d.outlier, None);
    let sticky = format!(
        "defaults: {{route: {{sticky: {{header: x}}}}}}\nroutes: [{{name: r, split: [{{cluster: c}}, {{cluster: d}}], sticky: {{json: /user}}}}]\n{CLUSTERS}"
    );
    codes(&sticky, "");
}

#[test]
fn a_cluster_that_only_mirrors_name_is_used() {
    let found = findings(&route("mirrors: [{cluster: d}]"));
    assert_eq!(found, []);
}

#[test]
fn the_schema_refuses_what_can_be_seen_without_the_rest() {
    for keys in [
        "mirrors: {cluster: d}",
        "mirrors: [{cluster: d, sample: 101%}]",
        "mirrors: [{cluster: d, sample: 0.005%}]",
        "mirrors: [{cluster: d, max_in_flight: 0}]",
        "mirrors: [{cluster: d, compare: {ignore: [id]}}]",
        "mirrors: [{cluster: d, compare: {tolerance: {abs: -1}}}]",
        "record: {url: ftp://a}",
        "record: {path: a, redact: [/a~2]}",
        "retry: {when: [sometimes]}",
        "retry: {when: [600]}",
        "retry: {methods: safe}",
        "retry: {methods: [get]}",
        "body: {replace: [{find: '', with: a}]}",
        "body: {replace: [{find: a, with: b, types: [html]}]}",
        "cutover: later",
        "sticky: {json: user}",
        "sticky: {json: ''}",
    ] {
        assert!(!fits_the_schema(&route(keys)), "{keys}");
        assert!(loaded(&route(keys)).is_err(), "{keys}");
    }
    for keys in [
        "health: {kind: https}",
        "health: {path: ready}",
        "health: {status: [600]}",
        "health: {status: [2xx]}",
        "health: {unhealthy: 0}",
        "outlier: {consecutive_5xx: 0}",
        "outlier: true",
    ] {
        assert!(!fits_the_schema(&cluster(keys)), "{keys}");
        assert!(loaded(&cluster(keys)).is_err(), "{keys}");
    }
}
