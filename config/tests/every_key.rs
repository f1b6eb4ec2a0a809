//! One configuration with every key there is: it loads, it fits the schema, and each value arrives in the model.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use std::sync::Arc;
use std::time::Duration;

use forebay_config::load::load;
use forebay_config::pointer::Pointer;
use forebay_config::schema::json_schema;
use forebay_config::{
    AccessEntry, Action, AnyOf, Balance, Bound, Compare, Config, Cutover, Discover, Driver,
    EncodedSlash, Gpu, GpuMemory, GpuShare, HashKey, Health, HealthKind, LimitKey, LimitSource,
    ListenerProtocol, LogFormat, LogTarget, MissingKey, Origin, Outlier, PathMatch, PathRewrite,
    Ports, Process, Queue, RateLimit, Replace, Retry, RetryMethods, RetryWhen, RouteAuth, Scale,
    ServerKind, Sticky, Targets, Tolerance, UpstreamProtocol,
};
use http::{Method, StatusCode};
use serde_json::Value;

const EVERYTHING: &str = r#"
admin:
  address: 127.0.0.1:9801
  probes: 0.0.0.0:9802
  token: ${env:TOKEN}
  hosts: [forebay.internal]
  tls: {certificate: admin.crt, key: admin.key, client_ca: admin-ca.crt}
workers: 3
drain: {delay: 1s, timeout: 2m}
max_memory: 1GiB
defaults:
  route: {body: {max: 1MiB}}
  cluster: {connect_timeout: 7s}
  listener: {limits: {headers: 50}}
access_log: {path: access.log, format: "%REQ(:PATH)% %START_TIME(%Y-%m)% %%\n", sample: 12.5%, slow: none}
access_lists:
- {name: office, allow: [10.0.0.0/8], deny: ["::ffff:10.9.0.0/112"]}
rate_limit_policies:
- {name: tenants, rate: 1000/s, burst: 2000, per: {header: X-Tenant}, scope: local, missing: skip, dry_run: true}
- {name: slots, concurrent: 3, per: {cookie: sid}, overrides: {vip: 9}}
- {name: users, concurrent: 2, per: {json: /user/na~1me}}
auth: {api_keys: {file: keys.txt}}
gpus: [{memory: 24GiB}, {index: 3, memory: 8GiB, cores: 90}]
listeners:
- name: web
  address: "[::1]:0"
  protocol: http
  tls: {certificates: [{certificate: a.crt, key: a.key}, {certificate: b.crt, key: b.key}]}
  proxy_protocol: true
  trusted_proxies: [10.1.2.3/8, "fd00::1"]
  path: {encoded_slash: keep, merge_slashes: false}
  limits: {connections: 10, header_bytes: 8KiB, header_timeout: 1s, idle: none, write_stall: null, h2_streams: 9}
- {name: raw, address: "127.0.0.1:0", protocol: tcp}
routes:
- name: everything
  listeners: [web]
  match:
  - hosts: [A.Example.com, "*.B.example.com"]
    path: {prefix: /%7euser/a%2fb/}
    methods: [GET, PURGE]
    headers: {X-A: b, x-b: {regex: "p|q"}, x-c: {present: false}, x-d: {not: 1.10}, x-e: {in: [2, r]}}
    query: {v: 2}
    cookies: {c: always}
  - path: {prefix: /}
  priority: -5
  split:
  - cluster: one
    weight: 0
    request_headers: {set: {x-a: 1}, add: {x-b: true}, remove: [X-C]}
    response_headers: {remove: [server]}
  - {cluster: two, weight: 1000000}
  cutover: at_once
  timeouts: {first_byte: 1s, idle: 2s, request_body: 3s, total: 4s, tunnel: 5s}
  rewrite: {prefix: /new, host: "up.internal:81"}
  request_headers: {set: {x-team: ml}}
  response_headers: {add: {x-served-by: forebay}}
  access:
    list: office
    deny: [192.0.2.7, {header: {user-agent: {regex: "curl.*"}, x-a: b}}]
    allow: [{file: allow.txt}]
    dry_run: true
  auth: {required: true, keep_key: true}
  rate_limits:
  - {rate: 100/s, burst: 200, per: client_ip, overrides: {"2001:db8::7": 50/s, 192.0.2.1: {rate: 6000/m, burst: 7}}}
  - {rate: 90/m, per: identity, overrides: {acme: 1000/s}, missing: refuse}
  - {policy: tenants}
  - {name: one-by-one, concurrent: 1, per: route, dry_run: true}
  - {policy: slots}
  - {policy: users}
  cors:
    origins: ["https://App.example.com:443", "https://*.example.com:8443", "null"]
    methods: ["*"]
    headers: [X-A]
    expose: "*"
    credentials: true
    max_age: 1500ms
  sticky: {cookie: {name: fb, ttl: 1h}}
  body:
    replace:
    - {find: "<head>", with: "<head><script>", types: [Text/HTML, text/*], once: true, ignore_case: true}
    - {find: a, with: ""}
  mirrors:
  - cluster: three
    name: shadow
    sample: 12.34%
    max_in_flight: 7
    max_lag: 2MiB
    max_bytes: 3MiB
    timeout: none
    demand: true
    request_headers: {set: {x-copy: 1}}
    compare:
      sample: 0.5
      noise: four
      headers: [Content-Type]
      ignore: [/id, /choices/*/logprobs]
      tolerance: {abs: 1e-6, rel: 0.0001}
      array_order: false
      max_body: 4MiB
  - {cluster: four, compare: {}}
  - {cluster: seven, demand: true}
  record: {path: pairs.jsonl, url: "http://compare:81/ingest", sample: 1%, max_body: 5MiB, redact: [/prompt, ""], max_file: 6MiB, keep: 8}
  wake: false
  retry: {attempts: 3, when: [reset, 502, 503-504, 503], methods: [GET, PUT], budget: 10%, max_body: 7MiB, per_try: 1s}
- name: sticks
  match: {path: {exact: /sticks}}
  split: [{cluster: one}, {cluster: two}]
  sticky: {header: X-User-Id}
  cors: {origins: ["*"]}
  cutover: ready
  mirrors: [{cluster: three}]
  record: {url: https://compare}
  retry: {}
- {name: fields, match: {path: {exact: /fields}, methods: [POST]}, split: [{cluster: one}, {cluster: two}], sticky: {json: /user}}
- {name: exact, match: {path: {exact: /old}}, redirect: {scheme: https, host: H.example, port: 8443, path: /new, status: 308}}
- {name: pattern, match: {path: {regex: "/r/[0-9]+"}}, rewrite: {regex: {find: "^/r/([0-9]+)", with: "/s/$1"}}, cluster: one, body: {max: none}}
- {name: whole, match: {path: {exact: /w}}, rewrite: {path: /x}, cluster: one}
- {name: ping, match: {path: {exact: /ping}}, respond: {status: 204, headers: {x-a: b}, body: ok}}
- {name: bytes, listeners: [raw], cluster: three}
- {name: scaled, match: {path: {exact: /n}}, wake: true, split: [{cluster: five}, {cluster: six}, {cluster: seven}, {cluster: eight}]}
- {name: named, match: {path: {prefix: /v1}, model: m}, by_model: true}
clusters:
- name: one
  server: llama.cpp
  models: [m, 3.10, "org/A b:7"]
  ports: {http: 81, grpc: 82, metrics: 83}
  endpoints: ["10.0.0.1:1", {address: "[FD00::1]:2", weight: 3, labels: {version: 1.10}}, "[FD00::2]"]
  subset: {version: 1.10}
  protocol: http2
  tls: {server_name: m.example.com, ca: ca.crt, certificate: c.crt, key: /abs/c.key}
  balance: {hash: {header: x-user}}
  connect_timeout: 250ms
  keepalive: {idle: 4s, max_idle: 5}
  breaker: {connections: none, requests: 6}
  health: {kind: http, path: "/v2/ready?x", port: 8000, status: [200, 400-402, 400], interval: 6s, timeout: 3s, unhealthy: 4, healthy: 5}
  outlier: {consecutive_5xx: 6, base: 7s, max: 8s, keep_at_least: 0, slow_start: 9s}
- {name: two, discover: {dns: {name: two.internal, port: 80, refresh: 9s}}, balance: {hash: {cookie: fb}}, tls: {}, health: {kind: grpc, service: models.v1}}
- {name: three, endpoints: ["h:1"], balance: {hash: {client_ip: true}}, health: {kind: tcp}, outlier: {}}
- {name: four, endpoints: ["h:2"], health: {}}
- name: five
  server: sglang
  concurrency: 9
  queue: {max_requests: 8, max_bytes: 7MiB, saturated: 6s, empty: 50s, heartbeat: 5s, waiting_page: true}
  scale:
    min: 2
    max: 3
    target: {in_flight: 4.5, rate: 120/m, queue: 5, kv_cache: 80%}
    stable_window: 30s
    panic_window: 5s
    panic_threshold: 1.5
    max_down_rate: 4
    idle: none
    start_timeout: 40s
    preload: false
    gpu: {memory: 25%, cores: 10}
    min_residency: 0s
    process:
      command: bin/serve --port=${PORT} --name 'a b' # a comment
      env: {CUDA_VISIBLE_DEVICES: 1, TOKEN: "${env:TOKEN}", URL: "http://h:${PORT}"}
      directory: run
      stop: [end, --pid, "${PID}"]
      stop_timeout: 3s
- name: six
  scale:
    preload: true
    pin: true
    gpu: {memory: 8GiB}
    process:
      command:
      - serve
      - ${env:TOKEN}
      - 8000
      address: "[::1]:8000"
- {name: seven, endpoints: ["h:7"], queue: {}, scale: {webhook: {url: "https://scaler/wanted?x"}}}
- {name: eight, endpoints: ["h:8"], scale: {target: {}, observe: {}}}
"#;

fn everything() -> Config {
    let mut file = shipped::source("conf/all.yaml", EVERYTHING);
    file.directory = "conf".into();
    let env = |name: &str| (name == "TOKEN").then(|| "t0ken".to_owned());
    let loaded = load(&[file], &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings.len(), 0, "{:?}", loaded.warnings);
    loaded.config
}

#[test]
fn it_fits_the_schema_and_leaves_no_key_out() {
    fn keys(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                fields.values().for_each(|value| keys(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let schema = json_schema();
    let instance: Value = serde_saphyr::from_str(EVERYTHING).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> = validator
        .iter_errors(&instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let mut found = Vec::new();
    keys(&schema, &mut found);
    for key in found {
        assert!(
            EVERYTHING.contains(&format!("{key}:")),
            "no example of `{key}`"
        );
    }
}

#[test]
fn process_listeners_and_log_arrive() {
    let config = everything();
    assert_eq!(config.workers.map(u32::from), Some(3));
    assert_eq!(
        (config.drain.delay, config.drain.timeout),
        (Some(Duration::from_secs(1)), Duration::from_secs(120))
    );
    assert_eq!(config.max_memory, Some(1 << 30));
    assert_eq!(config.admin.token.as_ref().unwrap().0, "t0ken");
    assert_eq!(
        config
            .admin
            .tls
            .as_ref()
            .unwrap()
            .client_ca
            .as_ref()
            .unwrap()
            .to_str(),
        Some("conf/admin-ca.crt")
    );
    let log = config.access_log.as_ref().unwrap();
    assert_eq!(log.target, LogTarget::File("conf/access.log".into()));
    assert!(matches!(&log.format, LogFormat::Envoy(format) if format.ends_with("%%\n")));
    assert_eq!((log.sample, log.slow), (125_000, None));

    let [web, raw] = &config.listeners[..] else {
        panic!()
    };
    assert_eq!(raw.protocol, ListenerProtocol::Tcp);
    assert_eq!(web.tls.as_ref().unwrap().certificates.len(), 2);
    let nets: Vec<String> = web
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(nets, ["10.0.0.0/8", "fd00::1/128"]);
    assert_eq!(
        (web.path.encoded_slash, web.path.merge_slashes),
        (EncodedSlash::Keep, false)
    );
    assert_eq!(
        (
            web.limits.headers,
            web.limits.header_bytes,
            web.limits.h2_streams
        ),
        (50, 8192, 9)
    );
    assert_eq!((web.limits.idle, web.limits.write_stall), (None, None));
}

#[test]
fn routes_arrive() {
    let config = everything();
    let route = &config.routes[0];
    assert_eq!((route.priority, route.body_max), (-5, Some(1 << 20)));
    assert_eq!(
        format!("{:?}", route.matches[0].hosts),
        r#"[Exact("a.example.com"), Suffix(".b.example.com")]"#
    );
    assert!(
        matches!(&route.matches[0].path, Some(PathMatch::Prefix(path)) if path == "/~user/a%2Fb")
    );
    assert!(matches!(&route.matches[1].path, Some(PathMatch::Prefix(path)) if path.is_empty()));
    let headers: Vec<String> = route.matches[0]
        .headers
        .iter()
        .map(|(_, value)| format!("{value:?}"))
        .collect();
    assert_eq!(
        headers,
        [
            r#"Exact("b")"#,
            r#"Regex(Regex("^(?:p|q)$"))"#,
            "Present(false)",
            r#"Not("1.10")"#,
            r#"In(["2", "r"])"#
        ]
    );
    let Action::Forward(members) = &route.action else {
        panic!()
    };
    assert_eq!(
        members
            .iter()
            .map(|member| member.weight)
            .collect::<Vec<_>>(),
        [0, 1_000_000]
    );
    assert_eq!(members[0].request_headers.remove[0], "x-c");
    assert!(matches!(&route.rewrite.path, Some(PathRewrite::Prefix(path)) if path == "/new"));
    assert_eq!(route.rewrite.host.as_ref().unwrap(), "up.internal:81");
    assert_eq!(route.timeouts.total, Some(Duration::from_secs(4)));
    let Action::Redirect(redirect) = &config.routes[3].action else {
        panic!()
    };
    assert_eq!(
        (
            redirect.host.as_deref(),
            redirect.port,
            redirect.status.as_u16()
        ),
        (Some("h.example"), Some(8443), 308)
    );
    assert!(
        matches!(&config.routes[4].matches[0].path, Some(PathMatch::Regex(regex)) if !regex.is_match("/x/r/1"))
    );
    assert_eq!(config.routes[4].body_max, None);
    let Action::Respond(respond) = &config.routes[6].action else {
        panic!()
    };
    assert_eq!(
        (respond.status.as_u16(), respond.body.as_str()),
        (204, "ok")
    );
}

#[test]
fn access_and_keys_arrive() {
    let config = everything();
    let keys = config.auth.api_keys.as_ref().unwrap();
    assert_eq!(keys.file.to_str(), Some("conf/keys.txt"));
    let route = &config.routes[0];
    assert!(route.auth.required && route.auth.keep_key);
    assert_eq!(config.routes[1].auth, RouteAuth::default());
    let access = route.access.as_ref().unwrap();
    let shown = |entries: &[AccessEntry]| {
        let shown = entries.iter().map(|entry| match entry {
            AccessEntry::Net(net) => net.to_string(),
            AccessEntry::Headers(headers) => format!("{headers:?}"),
            AccessEntry::File(file) => format!("{file:?}"),
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&access.deny),
        [
            "10.9.0.0/16",
            "192.0.2.7/32",
            r#"[("user-agent", Regex(Regex("^(?:curl.*)$"))), ("x-a", Exact("b"))]"#
        ]
    );
    assert_eq!(
        shown(access.allow.as_ref().unwrap()),
        ["10.0.0.0/8", r#""conf/allow.txt""#]
    );
    assert_eq!(
        (access.list.as_deref(), access.dry_run),
        (Some("office"), true)
    );
}

#[test]
fn limits_arrive() {
    let config = everything();
    let limits = &config.routes[0].rate_limits;
    let names: Vec<(&str, bool)> = limits
        .iter()
        .map(|limit| (&*limit.name, limit.dry_run))
        .collect();
    assert_eq!(
        names,
        [
            ("rate-1", false),
            ("rate-2", false),
            ("policy-1", true),
            ("one-by-one", true),
            ("policy-2", false),
            ("policy-3", false)
        ]
    );
    let quota = |limit: &RateLimit, key: &str| match &limit.rule().bound {
        Bound::Rate(rates) => {
            let quota = rates.of(key);
            (quota.rate.per_second(), quota.burst.get())
        }
        Bound::Concurrent(places) => (0.0, places.of(key).get()),
    };
    assert_eq!(quota(&limits[0], "192.0.2.9"), (100.0, 200));
    assert_eq!(quota(&limits[0], "192.0.2.1"), (100.0, 7));
    assert_eq!(quota(&limits[0], "2001:db8::"), (50.0, 100));
    assert_eq!(quota(&limits[1], "globex"), (1.5, 2));
    assert_eq!(quota(&limits[1], "acme"), (1000.0, 1000));
    assert_eq!(limits[1].rule().missing, MissingKey::Refuse);
    assert_eq!(limits[1].rule().per, LimitKey::Identity);
    assert_eq!(quota(&limits[3], ""), (0.0, 1));
    assert_eq!(quota(&limits[4], "vip"), (0.0, 9));
    assert_eq!(limits[4].rule().per, LimitKey::Cookie("sid".to_owned()));
    assert!(
        matches!(&limits[2].source, LimitSource::Policy(policy) if Arc::ptr_eq(policy, &config.rate_limit_policies[0]))
    );
    let json = LimitKey::Json(Pointer::parse("/user/na~1me").unwrap());
    assert_eq!(limits[5].rule().per, json);
    assert!(matches!(&limits[2].rule().per, LimitKey::Header(name) if name == "x-tenant"));
}

#[test]
fn cors_and_sticky_arrive() {
    let config = everything();
    let [first, second] = &config.routes[..2] else {
        panic!()
    };
    let cors = first.cors.as_ref().unwrap();
    let AnyOf::Only(origins) = &cors.origins else {
        panic!()
    };
    assert_eq!(
        origins[0],
        Origin::Exact("https://app.example.com".to_owned())
    );
    assert!(origins[1].is("https://a.example.com:8443") && origins[2].is("null"));
    assert_eq!((&cors.methods, &cors.expose), (&AnyOf::Any, &AnyOf::Any));
    assert!(matches!(&cors.headers, AnyOf::Only(names) if names[0] == "x-a"));
    assert_eq!((cors.credentials, cors.max_age.as_secs()), (true, 2));
    let plain = second.cors.as_ref().unwrap();
    assert_eq!((&plain.origins, &plain.headers), (&AnyOf::Any, &AnyOf::Any));
    assert!(matches!(&plain.methods, AnyOf::Only(methods) if methods.len() == 2));
    assert_eq!((plain.credentials, plain.max_age.as_secs()), (false, 300));
    assert_eq!(
        first.sticky,
        Some(Sticky::Cookie {
            name: "fb".to_owned(),
            ttl: Some(Duration::from_secs(3600))
        })
    );
    assert!(matches!(&second.sticky, Some(Sticky::Header(name)) if name == "x-user-id"));
    let field = Sticky::Json(Pointer::parse("/user").unwrap());
    assert_eq!(config.routes[2].sticky, Some(field));
}

#[test]
fn clusters_arrive() {
    let config = everything();
    let [one, two, three, ..] = &config.clusters[..] else {
        panic!()
    };
    assert_eq!(
        (one.server, one.protocol),
        (ServerKind::LlamaCpp, UpstreamProtocol::Http2)
    );
    assert_eq!(
        (
            one.endpoints[1].host.as_str(),
            one.endpoints[1].port,
            one.endpoints[1].weight
        ),
        ("fd00::1", 2, 3)
    );
    assert_eq!(one.endpoints[1].labels["version"], "1.10");
    assert_eq!(
        (one.endpoints[2].host.as_str(), one.endpoints[2].port),
        ("fd00::2", 81)
    );
    let ports = Ports {
        http: Some(81),
        grpc: Some(82),
        metrics: Some(83),
    };
    assert_eq!((one.ports, two.ports), (ports, Ports::default()));
    assert_eq!(one.models, ["m", "3.10", "org/A b:7"]);
    assert!(two.models.is_empty());
    assert_eq!(
        one.tls.as_ref().unwrap().key.as_ref().unwrap().to_str(),
        Some("/abs/c.key")
    );
    assert_eq!(
        (one.breaker.connections, one.breaker.requests),
        (None, Some(6))
    );
    assert_eq!(
        (one.connect_timeout, two.connect_timeout),
        (Duration::from_millis(250), Duration::from_secs(7))
    );
    assert!(matches!(&one.balance, Balance::Hash(HashKey::Header(name)) if name == "x-user"));
    assert!(
        matches!(&two.discover, Some(Discover::Dns { port: 80, refresh, .. }) if refresh.as_secs() == 9)
    );
    assert_eq!(two.tls, Some(forebay_config::ClientTls::default()));
    assert_eq!(three.balance, Balance::Hash(HashKey::ClientIp));
}

#[test]
fn models_and_devices_arrive() {
    let config = everything();
    let named = config.routes.last().unwrap();
    assert!(matches!(named.action, Action::ByModel));
    assert_eq!(named.matches[0].model.as_deref(), Some("m"));
    assert_eq!(config.routes[1].matches[0].model, None);
    let device = |index, memory, cores| Gpu {
        index,
        memory,
        cores,
    };
    assert_eq!(
        config.gpus,
        [device(0, 24 << 30, 100), device(3, 8 << 30, 90)]
    );
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pointers(texts: &[&str]) -> Vec<Pointer> {
    texts
        .iter()
        .map(|text| Pointer::parse(text).unwrap())
        .collect()
}

#[test]
fn copies_arrive() {
    let config = everything();
    let [shadow, plain, _] = &config.routes[0].mirrors[..] else {
        panic!()
    };
    assert_eq!((&*shadow.name, &*shadow.cluster), ("shadow", "three"));
    assert_eq!((shadow.sample, shadow.max_in_flight), (123_400, 7));
    assert_eq!((shadow.max_lag, shadow.max_bytes), (2 << 20, 3 << 20));
    assert_eq!((shadow.timeout, shadow.demand), (None, true));
    assert_eq!(shadow.request_headers.set[0].0, "x-copy");
    let compare = Compare {
        sample: 500_000,
        noise: Some("four".to_owned()),
        headers: vec![http::header::CONTENT_TYPE],
        ignore: pointers(&["/id", "/choices/*/logprobs"]),
        tolerance: Tolerance {
            abs: 1e-6,
            rel: 1e-4,
        },
        array_order: false,
        max_body: 4 << 20,
    };
    assert_eq!(shadow.compare, Some(compare));
    assert_eq!((&*plain.name, plain.sample), ("four", 1_000_000));
    assert_eq!(
        (plain.max_in_flight, plain.max_lag, plain.max_bytes),
        (256, 1 << 20, 64 << 20)
    );
    assert_eq!((plain.timeout, plain.demand), (Some(seconds(30)), false));
    let compare = plain.compare.as_ref().unwrap();
    assert_eq!((compare.sample, &compare.noise), (1_000_000, &None));
    assert_eq!(compare.tolerance, Tolerance::default());
    assert!(compare.array_order && compare.headers.is_empty() && compare.ignore.is_empty());
    assert_eq!(compare.max_body, 1 << 20);

    let record = config.routes[0].record.as_ref().unwrap();
    assert_eq!(
        record.path.as_ref().unwrap().to_str(),
        Some("conf/pairs.jsonl")
    );
    assert_eq!(
        record.url.as_ref().unwrap().to_string(),
        "http://compare:81/ingest"
    );
    assert_eq!((record.sample, record.max_body), (10_000, 5 << 20));
    assert_eq!(record.redact, pointers(&["/prompt", ""]));
    assert_eq!((record.max_file, record.keep), (6 << 20, 8));
    let record = config.routes[1].record.as_ref().unwrap();
    assert_eq!(
        (&record.path, record.sample, record.max_body),
        (&None, 1_000_000, 1 << 20)
    );
    assert_eq!((record.max_file, record.keep), (100 << 20, 5));
    assert_eq!(record.url.as_ref().unwrap().host(), Some("compare"));
}

#[test]
fn further_attempts_and_edits_of_bodies_arrive() {
    let config = everything();
    let status = |numbers: &[u16]| -> Vec<_> {
        let numbers = numbers
            .iter()
            .map(|number| StatusCode::from_u16(*number).unwrap());
        numbers.collect()
    };
    let retry = Retry {
        attempts: 3,
        when: RetryWhen {
            connect: false,
            refused: false,
            reset: true,
            statuses: status(&[502, 503, 504]),
        },
        methods: RetryMethods::Only(vec![Method::GET, Method::PUT]),
        budget: 100_000,
        max_body: 7 << 20,
        per_try: Some(seconds(1)),
    };
    assert_eq!(config.routes[0].retry, Some(retry));
    let plain = Retry {
        attempts: 2,
        when: RetryWhen::default(),
        methods: RetryMethods::Idempotent,
        budget: 200_000,
        max_body: 1 << 20,
        per_try: None,
    };
    assert_eq!(config.routes[1].retry, Some(plain));
    assert_eq!(config.routes[2].retry, None);
    let cutovers = config.routes[..2].iter().map(|route| route.cutover);
    assert_eq!(
        cutovers.collect::<Vec<_>>(),
        [Cutover::AtOnce, Cutover::Ready]
    );
    let replace = |find: &str, with: &str, types: &[&str], flags| Replace {
        find: find.to_owned(),
        with: with.to_owned(),
        types: types.iter().map(|&kind| kind.to_owned()).collect(),
        once: flags,
        ignore_case: flags,
    };
    assert_eq!(
        config.routes[0].replace,
        [
            replace("<head>", "<head><script>", &["text/html", "text/*"], true),
            replace("a", "", &["text/html"], false),
        ]
    );
    assert_eq!(config.routes[0].body_max, Some(1 << 20));
}

#[test]
fn checks_and_ejection_arrive() {
    let config = everything();
    let [one, two, three, four, ..] = &config.clusters[..] else {
        panic!()
    };
    let health = one.health.as_ref().unwrap();
    let HealthKind::Http { path, status } = &health.kind else {
        panic!()
    };
    let status: Vec<u16> = status.iter().map(StatusCode::as_u16).collect();
    assert_eq!(
        (&**path, &status[..]),
        ("/v2/ready?x", &[200, 400, 401, 402][..])
    );
    assert_eq!(health.port, Some(8000));
    assert_eq!((health.interval, health.timeout), (seconds(6), seconds(3)));
    assert_eq!((health.unhealthy.get(), health.healthy.get()), (4, 5));
    let outlier = one.outlier.as_ref().unwrap();
    assert_eq!(
        (outlier.consecutive_5xx.get(), outlier.keep_at_least),
        (6, 0)
    );
    assert_eq!(
        [outlier.base, outlier.max, outlier.slow_start],
        [seconds(7), seconds(8), seconds(9)]
    );
    let service = "models.v1".to_owned();
    assert_eq!(
        two.health.as_ref().unwrap().kind,
        HealthKind::Grpc { service }
    );
    assert_eq!(two.outlier, None);
    assert_eq!(three.health.as_ref().unwrap().kind, HealthKind::Tcp);
    assert_eq!(three.outlier, Some(Outlier::default()));
    let plain = Health {
        kind: HealthKind::Http {
            path: "/".to_owned(),
            status: vec![StatusCode::OK],
        },
        port: None,
        interval: seconds(5),
        timeout: seconds(2),
        unhealthy: 3.try_into().unwrap(),
        healthy: 1.try_into().unwrap(),
    };
    assert_eq!(four.health, Some(plain));
}

#[test]
fn rooms_and_replicas_arrive() {
    let config = everything();
    let wakes = [0, 1, 8].map(|index: usize| config.routes[index].wake);
    assert_eq!(wakes, [false, true, true]);
    let [one, _, _, _, five, six, seven, eight] = &config.clusters[..] else {
        panic!()
    };
    assert_eq!(
        (one.concurrency, &one.queue, &one.scale),
        (None, &None, &None)
    );
    assert_eq!(five.concurrency.map(u32::from), Some(9));
    let queue = Queue {
        max_requests: 8,
        max_bytes: 7 << 20,
        saturated: seconds(6),
        empty: seconds(50),
        heartbeat: Some(seconds(5)),
        waiting_page: true,
    };
    assert_eq!((&five.queue, &six.queue), (&Some(queue), &None));
    assert_eq!(seven.queue, Some(Queue::default()));
    let words =
        |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let env = [
        ("CUDA_VISIBLE_DEVICES", "1"),
        ("TOKEN", "t0ken"),
        ("URL", "http://h:${PORT}"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let process = Process {
        command: words(&["bin/serve", "--port=${PORT}", "--name", "a b"]),
        env: env.into(),
        directory: "conf/run".into(),
        stop: Some(words(&["end", "--pid", "${PID}"])),
        stop_timeout: seconds(3),
        address: None,
    };
    let [scaled, plain, told, observed] =
        [five, six, seven, eight].map(|cluster| cluster.scale.as_ref().unwrap());
    let rate = scaled.target.rate.unwrap();
    assert_eq!(rate.per_second(), 2.0);
    let whole = Scale {
        min: 2,
        max: 3,
        target: Targets {
            in_flight: Some(4.5),
            rate: Some(rate),
            queue: Some(5.0),
            kv_cache: Some(0.8),
        },
        stable_window: seconds(30),
        panic_window: seconds(5),
        panic_threshold: 1.5,
        max_down_rate: 4.0,
        idle: None,
        start_timeout: seconds(40),
        preload: false,
        pin: false,
        min_residency: seconds(0),
        gpu: Some(GpuShare {
            memory: GpuMemory::Share(250_000),
            cores: 10,
        }),
        driver: Driver::Process(process),
        position: scaled.position.clone(),
    };
    assert_eq!(*scaled, whole);
    let process = Process {
        command: words(&["serve", "t0ken", "8000"]),
        env: [].into(),
        directory: "conf".into(),
        stop: None,
        stop_timeout: seconds(10),
        address: Some("[::1]:8000".parse().unwrap()),
    };
    let whole = Scale {
        min: 0,
        max: 1,
        target: Targets::default(),
        stable_window: seconds(60),
        panic_window: seconds(6),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: Some(seconds(300)),
        start_timeout: seconds(600),
        preload: true,
        pin: true,
        min_residency: seconds(60),
        gpu: Some(GpuShare {
            memory: GpuMemory::Bytes(8 << 30),
            cores: 0,
        }),
        driver: Driver::Process(process),
        position: plain.position.clone(),
    };
    assert_eq!(*plain, whole);
    assert!(matches!(&told.driver, Driver::Webhook { url } if *url == "https://scaler/wanted?x"));
    assert_eq!(observed.driver, Driver::Observe);
}

#[test]
fn comments_cost_nothing() {
    let text = EVERYTHING.replace('\n', &format!("\n{}", "  # a comment\n\n".repeat(200)));
    let file = shipped::source("a.yaml", &text);
    load(&[file], &|_| Some("x".to_owned())).unwrap_or_else(|problems| panic!("{problems}"));
}
