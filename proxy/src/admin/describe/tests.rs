//! What is shown of a configuration can be loaded again, and no secret is in it.

use super::*;
use forebay_config::load::{SourceFile, load};

fn loaded(name: &str, text: &str) -> Config {
    let source = SourceFile {
        name: name.into(),
        directory: "/etc/forebay".into(),
        text: text.to_owned(),
    };
    let environment =
        |name: &str| Some(if name.contains("PORT") { "8080" } else { "x" }.to_owned());
    load(&[source], &environment).unwrap().config
}

#[test]
fn what_is_shown_of_every_example_can_be_loaded_again_and_says_the_same() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let shown = config(&loaded("a.yaml", &std::fs::read_to_string(&path).unwrap()));
            let again = config(&loaded("a.json", &shown.to_string()));
            assert_eq!(shown, again, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 5);
}

#[test]
fn rare_values_survive_too() {
    let shown = config(&loaded("a.yaml", RARE));
    assert_eq!(shown, config(&loaded("a.json", &shown.to_string())));
    assert_eq!(shown["access_log"]["sample"], "12.345%");
    assert_eq!(shown["routes"][0]["timeouts"]["first_byte"], "1500ms");
    assert_eq!(shown["clusters"][0]["tls"], json!({}));
    assert_eq!(
        shown["clusters"][0]["endpoints"][0]["address"],
        "[::1]:8080"
    );
}

#[test]
fn who_may_send_what_is_shown_as_it_is_written() {
    let shown = config(&loaded("a.yaml", POLICY));
    assert_eq!(shown, config(&loaded("a.json", &shown.to_string())));
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let keys = json!({ "api_keys": { "file": "/etc/forebay/keys.txt" } });
    assert_eq!(shown["auth"], keys);
    let policy = json!({
        "name": "tenants", "rate": "6000/m", "burst": 200, "per": { "header": "x-api-key" },
        "overrides": {
            "[redacted] 1": { "rate": "0.5/s", "burst": 1 },
            "[redacted] 2": { "rate": "10/m", "burst": 5 },
        },
        "missing": "refuse", "dry_run": false,
    });
    assert_eq!(shown["rate_limit_policies"], json!([policy]));
    let route = &shown["routes"][0];
    let access = json!({
        "deny": ["198.51.100.0/24", { "header": { "user-agent": { "regex": "curl.*" } } }],
        "allow": [
            { "file": "/etc/forebay/vpn.txt" },
            { "header": { "x-api-key": REDACTED, "x-team": { "in": ["ml"] } } },
        ],
        "dry_run": true,
    });
    assert_eq!(route["access"], access);
    assert_eq!(
        route["auth"],
        json!({ "required": true, "keep_key": false })
    );
    let limits = json!([
        { "name": "policy-1", "policy": "tenants", "dry_run": true },
        {
            "name": "streams", "concurrent": 16, "per": { "cookie": "sid" },
            "overrides": { "[redacted] 1": 64 }, "missing": "skip", "dry_run": false,
        },
        {
            "name": "rate-1", "rate": "3/d", "burst": 1, "per": "identity",
            "overrides": { "acme": { "rate": "9/d", "burst": 1 } },
            "missing": "shared", "dry_run": false,
        },
    ]);
    assert_eq!(route["rate_limits"], limits);
    let cors = json!({
        "origins": ["https://app.example.com", "https://*.example.com:8443"],
        "methods": ["GET", "POST"], "headers": ["*"], "expose": ["retry-after"],
        "credentials": true, "max_age": "1h",
    });
    assert_eq!(route["cors"], cors);
    let sticky = json!({ "cookie": { "name": "canary", "ttl": "none" } });
    assert_eq!(route["sticky"], sticky);
}

#[test]
fn what_is_done_with_requests_is_shown_as_it_is_written() {
    let shown = config(&loaded("a.yaml", TRAFFIC));
    assert_eq!(shown, config(&loaded("a.json", &shown.to_string())));
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let route = &shown["routes"][0];
    assert_eq!(route["cutover"], "ready");
    let mirror = &route["mirrors"][0];
    assert_eq!(mirror["sample"], "12.34%");
    assert_eq!(mirror["compare"]["noise"], "d");
    assert_eq!(mirror["compare"]["ignore"], json!(["/a~1b/*"]));
    assert_eq!(mirror["compare"]["tolerance"]["rel"], 1e-4);
    assert_eq!(route["record"]["url"], "http://127.0.0.1:1/in?redacted");
    assert_eq!(
        route["retry"]["when"],
        json!(["connect", "refused", "reset", 503])
    );
    assert_eq!(route["body"]["replace"][0]["find"], "<head>");
    assert_eq!(shown["clusters"][0]["health"]["status"], json!([200, 204]));
    assert_eq!(shown["clusters"][0]["outlier"]["base"], "1m");
    let grpc = json!({
        "kind": "grpc", "service": "ml", "port": 9, "interval": "5s", "timeout": "2s",
        "unhealthy": 3, "healthy": 1,
    });
    assert_eq!(shown["clusters"][1]["health"], grpc);
}

#[test]
fn where_requests_wait_and_who_serves_them_is_shown_as_it_is_written() {
    let shown = config(&loaded("a.yaml", SCALE));
    assert_eq!(shown, config(&loaded("a.json", &shown.to_string())));
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let cluster = &shown["clusters"][0];
    assert_eq!(cluster["concurrency"], 4);
    let queue = json!({ "max_requests": 9, "max_bytes": "1MiB", "saturated": "1m", "empty": "10m",
            "heartbeat": "none", "waiting_page": false });
    assert_eq!(cluster["queue"], queue);
    let scale = json!({
        "min": 0, "max": 4, "target": { "in_flight": 2.5, "rate": "50/s" }, "stable_window": "1m",
        "panic_window": "6s", "panic_threshold": 2.0, "max_down_rate": 2.0, "idle": "none",
        "start_timeout": "10m", "preload": true,
        "process": {
            "command": ["serve", "--api-key", REDACTED, "--on", "${PORT}"],
            "env": { "A": REDACTED, "PORT": "${PORT}" }, "directory": "/etc/forebay/models",
            "stop": ["end", "${PID}"], "stop_timeout": "10s",
        },
    });
    assert_eq!(cluster["scale"], scale);
    let process = &shown["clusters"][1]["scale"]["process"];
    assert_eq!(process["address"], "127.0.0.1:9");
    let webhook = json!({ "url": "http://127.0.0.1:1/scale?redacted" });
    assert_eq!(shown["clusters"][2]["scale"]["webhook"], webhook);
    assert_eq!(shown["clusters"][3]["scale"]["observe"], json!({}));
    assert_eq!(shown["clusters"][3]["queue"], Value::Null);
    assert_eq!(shown["routes"][0]["wake"], false);
}

#[test]
fn secrets_are_not_shown() {
    let text = config(&loaded("a.yaml", RARE)).to_string();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains(REDACTED));
}

const RARE: &str = r#"
admin: {address: "127.0.0.1:9901", token: hunter2-hunter2-hunter2, hosts: [admin.example.com]}
max_memory: 1GiB
routes:
- name: a
  match:
  - {hosts: ["*.example.com"], path: {regex: "/a|/b"}, headers: {authorization: hunter2, x-b: {regex: "x|y"}}}
  - {path: {prefix: /}, query: {api_key: {in: [hunter2]}, v: "2"}, cookies: {sid: {regex: hunter2}}, methods: [GET]}
  cluster: c
  timeouts: {first_byte: 1500ms, idle: none}
  body: {max: 1000}
  rewrite: {regex: {find: "a(.)", with: "$1"}, host: other:80}
  request_headers: {set: {authorization: Bearer hunter2, x-team: ml}, remove: [x-a]}
clusters:
- {name: c, endpoints: [{address: "[::1]:8080", weight: 3, labels: {v: "1"}}], tls: {}, balance: {hash: {client_ip: true}}, breaker: {connections: none}}
access_log: {path: stderr, format: "%PROTOCOL%", sample: 12.345%, slow: none}
"#;

#[test]
fn models_ports_and_devices_are_shown_as_they_are_written() {
    let shown = config(&loaded("a.yaml", MODELS));
    assert_eq!(shown, config(&loaded("a.json", &shown.to_string())));
    let gpus = json!([
        { "index": 0, "memory": "24GiB", "cores": 100 },
        { "index": 3, "memory": "1536MiB", "cores": 50 },
    ]);
    assert_eq!(shown["gpus"], gpus);
    let [route, cluster, pinned] = [
        &shown["routes"][0],
        &shown["clusters"][0],
        &shown["clusters"][1],
    ];
    assert_eq!(route["by_model"], true);
    assert_eq!(route["match"][0]["model"], "qwen3:8b");
    assert_eq!(cluster["models"], json!(["qwen3:8b", "3.10"]));
    assert_eq!(cluster["queue"]["heartbeat"], "1500ms");
    assert_eq!(cluster["queue"]["waiting_page"], true);
    let scale = &cluster["scale"];
    let target = json!({ "queue": 2.5, "kv_cache": "80.0001%" });
    assert_eq!(scale["target"], target);
    assert_eq!(scale["gpu"], json!({ "memory": "33.3333%", "cores": 20 }));
    assert_eq!(
        (&scale["pin"], &scale["min_residency"]),
        (&json!(false), &json!("0s"))
    );
    let scale = &pinned["scale"];
    assert_eq!(scale["gpu"], json!({ "memory": "8GiB", "cores": 0 }));
    assert_eq!(
        (&scale["pin"], &scale["min_residency"]),
        (&json!(true), &Value::Null)
    );
    let spread = &shown["clusters"][2];
    let ports = json!({ "http": 81, "grpc": 82, "metrics": 83 });
    assert_eq!(spread["ports"], ports);
    assert_eq!(spread["endpoints"][0]["address"], "[fd00::1]:81");
    assert_eq!(shown["clusters"][3]["endpoints"][0]["address"], "h:11434");
    assert_eq!(shown["clusters"][3]["ports"], Value::Null);
}

const MODELS: &str = r#"
gpus: [{memory: 24GiB}, {index: 3, memory: 1.5GiB, cores: 50}]
routes: [{name: a, match: {model: "qwen3:8b"}, by_model: true}, {name: b, match: {path: {exact: /b}}, cluster: e}]
clusters:
- name: c
  server: vllm
  models: ["qwen3:8b", 3.10]
  queue: {heartbeat: 1500ms, waiting_page: true}
  scale:
    target: {queue: 2.5, kv_cache: 80.0001%}
    gpu: {memory: 33.3333%, cores: 20}
    min_residency: 0s
    process: {command: "serve ${PORT}"}
- {name: d, models: [x], scale: {pin: true, gpu: {memory: 8GiB}, process: {command: "serve ${PORT}"}}}
- {name: e, ports: {http: 81, grpc: 82, metrics: 83}, endpoints: ["[FD00::1]"]}
- {name: f, server: ollama, models: [y], endpoints: [h]}
"#;

const SCALE: &str = r#"
routes: [{name: a, cluster: c, wake: false}]
clusters:
- name: c
  concurrency: 4
  queue: {max_requests: 9, max_bytes: 1MiB}
  scale:
    max: 4
    target: {in_flight: 2.5, rate: 50/s}
    idle: none
    preload: true
    process:
      command: serve --api-key hunter2 --on ${PORT}
      env: {A: hunter2, PORT: "${PORT}"}
      directory: models
      stop: "end ${PID}"
- {name: d, scale: {process: {command: [x], address: "127.0.0.1:9"}}}
- {name: e, endpoints: ["127.0.0.1:1"], scale: {webhook: {url: "http://127.0.0.1:1/scale?token=hunter2"}}}
- {name: f, endpoints: ["127.0.0.1:2"], scale: {min: 1, observe: {}}}
"#;

const TRAFFIC: &str = r#"
routes:
- name: a
  split: [{cluster: c, weight: 1}, {cluster: d, weight: 1}]
  cutover: ready
  mirrors:
  - {name: m, cluster: e, sample: 12.34%, timeout: none, request_headers: {set: {x-token: hunter2}},
     compare: {noise: d, headers: [content-type], ignore: ["/a~1b/*"], tolerance: {rel: 1e-4}, array_order: false}}
  record: {path: pairs.jsonl, keep: 2, url: "http://127.0.0.1:1/in?key=hunter2", redact: [/prompt]}
  retry: {when: [connect, refused, reset, 503], methods: [POST], budget: 5%, per_try: 30s}
  body: {replace: [{find: "<head>", with: "<head>x", types: ["text/*"], once: true}]}
clusters:
- name: c
  endpoints: ["127.0.0.1:1", "127.0.0.1:4"]
  health: {path: /up, status: [200, 204]}
  outlier: {base: 60s, slow_start: 5s}
- {name: d, endpoints: ["127.0.0.1:2"], health: {kind: grpc, service: ml, port: 9}}
- {name: e, endpoints: ["127.0.0.1:3"], health: {kind: tcp}}
"#;

const POLICY: &str = r#"
auth: {api_keys: {file: keys.txt}}
access_lists:
- {name: abusers, deny: [198.51.100.0/24, {header: {user-agent: {regex: "curl.*"}}}]}
rate_limit_policies:
- name: tenants
  rate: 6000/m
  burst: 200
  per: {header: x-api-key}
  overrides: {hunter2-a: 0.5/s, hunter2-b: {rate: 10/m, burst: 5}}
  missing: refuse
routes:
- name: a
  access: {list: abusers, allow: [{file: vpn.txt}, {header: {x-api-key: hunter2, x-team: {in: [ml]}}}], dry_run: true}
  auth: {required: true}
  rate_limits:
  - {policy: tenants, dry_run: true}
  - {name: streams, concurrent: 16, per: {cookie: sid}, overrides: {hunter2: 64}, missing: skip}
  - {rate: 3/d, per: identity, overrides: {acme: 9/d}}
  cors:
    origins: ["https://app.example.com", "https://*.example.com:8443"]
    expose: [retry-after]
    credentials: true
    max_age: 1h
  split: [{cluster: c, weight: 9}, {cluster: d, weight: 1}]
  sticky: {cookie: canary}
clusters:
- {name: c, endpoints: ["127.0.0.1:1"]}
- {name: d, endpoints: ["127.0.0.1:2"]}
"#;
