//! How findings read, and what is refused: one table, a line of configuration and the line it is answered with.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use forebay_config::diagnostic::{Diagnostic, render_all};
use forebay_config::load::{SourceFile, load};

/// Returns everything that is reported about a text.
fn findings(text: &str) -> Vec<Diagnostic> {
    findings_of(&[shipped::source("a.yaml", text)])
}

fn findings_of(files: &[SourceFile]) -> Vec<Diagnostic> {
    match load(files, &|name| {
        (name == "SET").then(|| "secret value".to_owned())
    }) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.0,
    }
}

const REST: &str = "\nclusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n";

/// Asserts that a text is answered with these findings, as `line:column code message`.
#[track_caller]
fn answers(text: &str, expected: &[&str]) {
    let found: Vec<String> = findings(text)
        .iter()
        .map(|one| {
            format!(
                "{}:{} {} {}",
                one.position.line,
                one.position.column,
                one.code.as_str(),
                one.message
            )
        })
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_report_shows_place_line_caret_and_help() {
    let text = "routes:\n- name: resnet\n  split:\n  - {cluster: a, wieght: 20}\n  - {cluster: b, weight: lots}\n";
    let files = [shipped::source("a.yaml", text)];
    assert_eq!(
        render_all(&findings_of(&files), &files),
        "\
a.yaml:4:18: error[E010]: routes[0] (resnet).split[0]: unknown key `wieght`
  |
4 |   - {cluster: a, wieght: 20}
  |                  ^^^^^^
  = help: did you mean `weight`?

a.yaml:5:26: error[E012]: routes[0] (resnet).split[1].weight: expected a whole number, found the string `lots`
  |
5 |   - {cluster: b, weight: lots}
  |                          ^^^^
  = help: write the digits alone, without quotes and unit"
    );
}

#[test]
fn findings_are_json_with_stable_fields() {
    let json = serde_json::to_string(&findings("workers: 0\n")).unwrap();
    assert_eq!(
        json,
        r#"[{"severity":"error","code":"E014","message":"workers: 0 is out of range: 1 to 1024","position":{"file":"a.yaml","line":1,"column":10}}]"#
    );
}

#[test]
fn what_is_not_built_is_not_unknown() {
    answers(
        &format!("routes: [{{name: r, cluster: c, pipeline: [], pipline: []}}]{REST}tracing: {{}}"),
        &[
            "1:32 E011 routes[0] (r): `pipeline` is not built yet: this version of forebay does not have the feature",
            "1:46 E010 routes[0] (r): unknown key `pipline`",
            "3:1 E011 `tracing` is not built yet: this version of forebay does not have the feature",
        ],
    );
    answers(
        "routes: [{name: r, cluster: c}]\nclusters: [{name: c, endpoints: ['a:1'], discover: {kubernetes: {}}, scale: {observe: {}, gpu_pods: {}}}]",
        &[
            "2:53 E011 clusters[0] (c).discover: `kubernetes` is not built yet: this version of forebay does not have the feature",
            "2:91 E011 clusters[0] (c).scale: `gpu_pods` is not built yet: this version of forebay does not have the feature",
        ],
    );
}

#[test]
fn kubernetes_objects_that_are_not_translated() {
    answers(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
        &[
            "2:7 E040 lost: AuthorizationPolicy default/a: this kind is not translated; use `access` of a route",
        ],
    );
}

#[test]
fn all_problems_come_at_once() {
    let text = "workers: many\nlisteners:\n- {name: l, address: ':80', protcol: http}\nroutes:\n- {name: r, cluster: x}\n- {name: r}\n\
                clusters:\n- {name: c, endpoints: ['http://a:1'], connect_timeout: 5}\n";
    let lines: Vec<u32> = findings(text).iter().map(|one| one.position.line).collect();
    assert_eq!(lines, [1, 3, 3, 5, 6, 6, 8, 8]);
}

#[test]
fn names_and_references() {
    answers(
        &format!(
            "routes:\n- {{name: r, cluster: d}}\n- {{name: r, cluster: c, listeners: [defualt]}}{REST}"
        ),
        &[
            "2:22 E021 routes[0] (r): unknown cluster `d`",
            "3:3 E020 routes: the name `r` is taken",
            "3:37 E021 routes[1] (r).listeners: unknown listener `defualt`",
        ],
    );
    assert_eq!(findings("routes: [{name: r, cluster: model-one}]\nclusters: [{name: model-on, endpoints: ['a:1']}]")[0].help.as_deref(), Some("did you mean `model-on`?"));
}

#[test]
fn a_route_has_exactly_one_action() {
    let all = "routes[0] (r): a route has exactly one of `cluster`, `split`, `by_model`, `redirect` and `respond`, this one has";
    answers("routes: [{name: r}]", &[&format!("1:10 E022 {all} none")]);
    answers(
        &format!("routes: [{{name: r, cluster: c, respond: {{}}}}]{REST}"),
        &[&format!("1:41 E022 {all} `cluster` and `respond`")],
    );
    answers(
        &format!("routes: [{{name: r, split: [{{cluster: c, weight: 0}}]}}]{REST}"),
        &["1:27 E023 routes[0] (r).split: all weights are 0, so no request would be forwarded"],
    );
    answers(
        "routes: [{name: r, redirect: {status: 301}}]",
        &["1:30 E015 routes[0] (r).redirect: redirects to the request's own address"],
    );
}

#[test]
fn tcp_listeners() {
    let listeners = "listeners: [{name: t, address: '127.0.0.1:0', protocol: tcp}]\n";
    answers(
        listeners,
        &["1:13 E024 listeners[0] (t): a tcp listener needs one route that names it"],
    );
    answers(
        &format!(
            "{listeners}routes:\n- {{name: a, listeners: [t], cluster: c, match: {{}}}}\n- {{name: b, listeners: [t], cluster: c}}{REST}"
        ),
        &[
            "3:48 E024 routes[0] (a): the tcp listener `t` has no requests that `match` could look at",
            "4:25 E024 routes[1] (b): the tcp listener `t` has the route `a` already",
        ],
    );
}

#[test]
fn sockets() {
    answers(
        "admin: {probes: '0.0.0.0:9901'}\nlisteners:\n- {name: a, address: '127.0.0.1:80'}\n- {name: b, address: '0.0.0.0:80'}\n- {name: c, address: '[::1]:80'}\n",
        &[
            "1:17 E025 admin.probes: 0.0.0.0:9901 is taken by admin.address",
            "4:22 E025 listeners[1] (b).address: 0.0.0.0:80 is taken by listeners[0] (a)",
        ],
    );
    answers(
        "admin: {address: '0.0.0.0:9901'}",
        &[
            "1:18 E026 admin.address: the admin API is not on loopback and has neither `token` nor `tls` with `client_ca`",
        ],
    );
    answers("admin: {address: '0.0.0.0:9901', token: x}", &[]);
    answers(
        "listeners: [{name: a, address: '0.0.0.0:80', proxy_protocol: true}]",
        &[
            "1:62 E015 listeners[0] (a).proxy_protocol: `proxy_protocol` needs `trusted_proxies`: nobody is believed otherwise",
        ],
    );
}

#[test]
fn tls_pairs() {
    answers(
        "listeners: [{name: a, address: '0.0.0.0:80', tls: {certificate: a.crt}}]",
        &["1:65 E028 listeners[0] (a).tls: `certificate` needs `key` beside it"],
    );
    answers(
        "listeners: [{name: a, address: '0.0.0.0:80', tls: {client_ca: a.crt}}]",
        &[
            "1:51 E015 listeners[0] (a).tls: a listener with TLS needs `certificate` and `key`, or `certificates`",
        ],
    );
    answers(
        "clusters: [{name: a, endpoints: ['a:1'], tls: {key: a.key}}]",
        &["1:53 E028 clusters[0] (a).tls: `key` needs `certificate` beside it"],
    );
}

#[test]
fn endpoints() {
    answers(
        "routes: [{name: r, cluster: a}]\nclusters: [{name: a, endpoints: ['h:1', {address: 'H:1'}, 'http://h:2', 8080, '::1']}]",
        &[
            "2:51 E027 clusters[0] (a).endpoints[1]: this endpoint is in the list twice",
            "2:59 E013 clusters[0] (a).endpoints[2]: the string `http://h:2` is not an endpoint",
            "2:73 E013 clusters[0] (a).endpoints[3]: the number `8080` is not an endpoint",
            "2:79 E013 clusters[0] (a).endpoints[4]: the string `::1` is not an endpoint",
        ],
    );
    answers(
        "routes: [{name: r, cluster: a}]\nclusters: [{name: a, endpoints: ['h:1', H, '[::1]', {address: 10.0.0.1}]}]",
        &[
            "2:41 E027 clusters[0] (a).endpoints[1]: this endpoint has no port, and `generic` servers have no usual one",
            "2:44 E027 clusters[0] (a).endpoints[2]: this endpoint has no port, and `generic` servers have no usual one",
            "2:63 E027 clusters[0] (a).endpoints[3]: this endpoint has no port, and `generic` servers have no usual one",
        ],
    );
    answers(
        "clusters: [{name: a}]",
        &["1:12 E027 clusters[0] (a): a cluster needs `endpoints` or `discover`"],
    );
}

#[test]
fn conditions() {
    let route = |conditions: &str| {
        format!("routes: [{{name: r, cluster: c, match: {{{conditions}}}}}]{REST}")
    };
    for (conditions, code) in [
        ("hosts: [a.com:80]", "E013"),
        ("hosts: ['a.*.com']", "E013"),
        ("hosts: ['*']", "E013"),
        ("hosts: [A_b.Example.com., '*.x.y', '[::1]', 10.0.0.1]", ""),
        ("hosts: []", "E013"),
        ("path: {prefix: v1}", "E018"),
        ("path: {prefix: /a//b}", "E018"),
        ("path: {exact: /a/../b}", "E018"),
        ("path: {exact: /a?b=c}", "E018"),
        ("path: {exact: '/a#b'}", "E018"),
        ("path: {exact: /a%zz}", "E018"),
        ("path: {prefix: /a, exact: /b}", "E016"),
        ("path: {}", "E016"),
        ("path: {regex: '('}", "E017"),
        ("path: {regex: 'a)|(b'}", "E017"),
        ("methods: [get]", "E013"),
        ("methods: [CONNECT]", "E013"),
        ("headers: {host: a}", "E019"),
        ("headers: {'a b': c}", "E013"),
        ("headers: {a: true}", "E012"),
        (
            "headers: {a: 1, b: x, c: {regex: .}, d: {present: false}, e: {not: 3}, f: {in: [1, b]}}",
            "",
        ),
        ("headers: {a: {regex: x, not: y}}", "E016"),
        ("headers: {a: {in: []}}", "E013"),
        ("headers: {a: b, A: c}", "E002"),
        ("cookies: {'a=b': c}", "E013"),
        ("query: {'any key': 2}", ""),
    ] {
        let codes: Vec<&str> = findings(&route(conditions))
            .iter()
            .map(|one| one.code.as_str())
            .collect();
        assert_eq!(codes.join(" "), code, "{conditions}");
    }
}

#[test]
fn edits_and_rewrites() {
    let route = |edits: &str| format!("routes: [{{name: r, cluster: c, {edits}}}]{REST}");
    for (edits, code) in [
        ("request_headers: {set: {Connection: close}}", "E019"),
        ("request_headers: {remove: [host]}", "E019"),
        ("response_headers: {add: {x-forebay-reason: x}}", "E019"),
        ("response_headers: {add: {content-length: 1}}", "E019"),
        ("response_headers: {set: {x-a: \"b\\n\"}}", "E013"),
        ("rewrite: {prefix: /}", "E029"),
        ("match: {path: {prefix: /a}}, rewrite: {prefix: /b/}", ""),
        (
            "match: [{path: {prefix: /a}}, {path: {exact: /b}}], rewrite: {prefix: /}",
            "E029",
        ),
        ("rewrite: {path: /a, regex: {find: a, with: b}}", "E016"),
        ("rewrite: {regex: {find: '(a)', with: '/$1/$$'}}", ""),
        ("rewrite: {regex: {find: '(a)', with: '/$2'}}", "E029"),
        ("rewrite: {host: 'a b'}", "E013"),
        ("rewrite: {host: 'a:8080'}", ""),
        ("body: {max: 1MiB}", ""),
        ("body: {max: 1mib}", "E013"),
        ("body: {replace: []}", ""),
        ("timeouts: {total: 0s}", "E014"),
        ("timeouts: {total: 5}", "E013"),
        ("timeouts: {total: none, idle: null}", ""),
    ] {
        let codes: Vec<&str> = findings(&route(edits))
            .iter()
            .map(|one| one.code.as_str())
            .collect();
        assert_eq!(codes.join(" "), code, "{edits}");
    }
}

#[test]
fn several_files_become_one() {
    let file = |name: &str, text: &str| shipped::source(name, text);
    let files = [
        file("a.yaml", "workers: 2\nroutes: [{name: a, cluster: c}]\n"),
        file(
            "b.json",
            "{\"workers\": 3, \"routes\": [{\"name\": \"a\", \"cluster\": \"c\"}]}",
        ),
        file(
            "c.yaml",
            "clusters: [{name: c, endpoints: ['a:1']}]\nroutes:\n",
        ),
        file("d.yaml", ""),
    ];
    let found: Vec<String> = findings_of(&files)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "b.json:1:2: error[E004]: the key `workers` is set in a.yaml as well",
            "b.json:1:27: error[E020]: routes: the name `a` is taken",
        ]
    );
}

#[test]
fn json_is_json() {
    assert_eq!(
        findings_of(&[shipped::source("a.json", "{workers: 2}")])[0]
            .code
            .as_str(),
        "E001"
    );
    assert_eq!(
        findings_of(&[shipped::source(
            "a.json",
            "{\n\t\"workers\":\t2,\n\t\"routes\": []\n}"
        )]),
        []
    );
}

#[test]
fn the_value_of_a_variable_is_never_shown() {
    let text = "routes: [{name: r, cluster: \"${env:SET}\"}]\nadmin: {token: \"${env:SET}\"}\nworkers: \"${env:SET}\"\n";
    let files = [shipped::source("a.yaml", text)];
    let shown = render_all(&findings_of(&files), &files);
    assert!(
        shown.contains("workers") && shown.contains("routes") && shown.contains("token"),
        "{shown}"
    );
    assert!(!shown.contains("secret value"), "{shown}");
}

#[test]
fn odd_but_legal() {
    answers(
        &format!(
            "routes:\n- {{name: a, cluster: c, match: {{path: {{prefix: /x}}}}}}\n- {{name: b, cluster: c, match: {{path: {{prefix: /x/}}}}}}\n- {{name: d, cluster: c, priority: 1}}{REST}"
        ),
        &[
            "2:3 W002 routes[0] (a): no request reaches this route, `d` always wins",
            "3:3 W002 routes[1] (b): no request reaches this route, `d` always wins",
        ],
    );
    answers(
        "routes:\n- {name: a, respond: {}, match: {path: {prefix: /x}}}\n- {name: b, respond: {}, match: {path: {prefix: /x/}}}\n",
        &["3:3 W002 routes[1] (b): no request reaches this route, `a` always wins"],
    );
    answers(
        REST,
        &["2:12 W001 clusters[0] (c): no route names this cluster"],
    );
    answers(
        "routes: [{name: r, cluster: c}]\nclusters: [{name: c, endpoints: ['a:1'], subset: {v: 1}}]",
        &["2:50 W004 clusters[0] (c).subset: no endpoint has these labels, so none serves"],
    );
}

#[test]
fn nothing_at_all_is_a_configuration() {
    for text in ["", "# nothing\n", "---\n", "{}", "routes:\n"] {
        let loaded = load(&[shipped::source("a.yaml", text)], &|_| None).unwrap();
        assert_eq!(
            loaded.config.listeners[0].address.to_string(),
            "127.0.0.1:9900",
            "{text}"
        );
    }
    assert!(load(&[], &|_| None).is_ok());
}

#[test]
fn ten_thousand_routes_load() {
    let mut text = String::from("routes:\n");
    for n in 0..10_000 {
        text += &format!(
            "- name: r{n}\n  match: {{hosts: [h{n}.example.com], path: {{prefix: /v1/models/m{n}}}, headers: {{x-a: b}}}}\n  split: [{{cluster: c{n}, weight: 90}}, {{cluster: c{n}, weight: 10}}]\n  timeouts: {{total: 5s}}\n"
        );
    }
    text += "clusters:\n";
    for n in 0..10_000 {
        text += &format!("- {{name: c{n}, endpoints: ['10.0.0.1:80', '10.0.0.2:80']}}\n");
    }
    let started = std::time::Instant::now();
    let loaded = load(&[shipped::source("a.yaml", &text)], &|_| None)
        .unwrap_or_else(|problems| panic!("{}", problems.0[0]));
    println!(
        "10 000 routes and clusters, {} KiB, loaded in {:?}",
        text.len() >> 10,
        started.elapsed()
    );
    assert_eq!(loaded.config.routes.len(), 10_000);
    assert_eq!(loaded.warnings, []);
}
