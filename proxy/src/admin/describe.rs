//! The configuration as JSON, in the form it is written in, so that it can be loaded again. Secrets are not in it.

mod policy;
mod route;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_config::{
    AccessLog, Admin, Balance, ClientTls, Cluster, Config, Discover, EncodedSlash, EndpointConfig,
    HashKey, Limits, Listener, ListenerProtocol, LogFormat, LogTarget, ServerKind, ServerTls,
    UpstreamProtocol,
};
use serde_json::{Value, json};

pub(super) use policy::{policy, rule as limit_rule};
use route::route;
pub(super) use route::{host, matches, unanchored};

/// What stands for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Returns the whole configuration, defaults included.
pub(super) fn config(config: &Config) -> Value {
    let list = |items: Vec<Value>| Value::Array(items);
    let policies = config.rate_limit_policies.iter();
    let policies = policies.map(|p| policy::rate_limit_policy(p));
    let policies = policies.collect::<Vec<_>>();
    tidy(json!({
        "admin": admin(&config.admin),
        "workers": config.workers,
        "drain": tidy(json!({
            "delay": config.drain.delay.map(duration),
            "timeout": duration(config.drain.timeout),
        })),
        "max_memory": config.max_memory.map(size),
        "listeners": list(config.listeners.iter().map(|l| listener(l)).collect()),
        "routes": list(config.routes.iter().map(|r| route(r)).collect()),
        "clusters": list(config.clusters.iter().map(|c| cluster(c)).collect()),
        "rate_limit_policies": (!policies.is_empty()).then_some(policies),
        "auth": policy::auth(&config.auth),
        "access_log": config.access_log.as_ref().map(access_log),
    }))
}

/// Drops what is not set, so that the result can be loaded again.
fn tidy(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        });
    }
    value
}

fn admin(admin: &Admin) -> Value {
    tidy(json!({
        "address": admin.address.to_string(),
        "probes": admin.probes.map(|address| address.to_string()),
        "token": admin.token.as_ref().map(|_| REDACTED),
        "tls": admin.tls.as_ref().map(server_tls),
        "hosts": admin.hosts,
    }))
}

fn server_tls(tls: &ServerTls) -> Value {
    let pairs = tls
        .certificates
        .iter()
        .map(|pair| json!({ "certificate": pair.certificate, "key": pair.key }));
    tidy(json!({ "certificates": pairs.collect::<Vec<_>>(), "client_ca": tls.client_ca }))
}

fn listener(listener: &Listener) -> Value {
    let nets = listener.trusted_proxies.iter().map(ToString::to_string);
    tidy(json!({
        "name": listener.name,
        "address": listener.address.to_string(),
        "protocol": listener_protocol(listener.protocol),
        "tls": listener.tls.as_ref().map(server_tls),
        "proxy_protocol": listener.proxy_protocol,
        "trusted_proxies": nets.collect::<Vec<_>>(),
        "path": {
            "encoded_slash": match listener.path.encoded_slash {
                EncodedSlash::Reject => "reject",
                EncodedSlash::Keep => "keep",
            },
            "merge_slashes": listener.path.merge_slashes,
        },
        "limits": limits(&listener.limits),
    }))
}

/// Returns the word of the configuration file.
pub(super) fn listener_protocol(protocol: ListenerProtocol) -> &'static str {
    match protocol {
        ListenerProtocol::Http => "http",
        ListenerProtocol::Tcp => "tcp",
    }
}

fn limits(limits: &Limits) -> Value {
    json!({
        "connections": limits.connections,
        "headers": limits.headers,
        "header_bytes": size(limits.header_bytes.into()),
        "header_timeout": duration(limits.header_timeout),
        "idle": clock(limits.idle),
        "write_stall": clock(limits.write_stall),
        "h2_streams": limits.h2_streams,
    })
}

fn cluster(cluster: &Cluster) -> Value {
    let mut fields = json!({
        "name": cluster.name,
        "server": server_kind(cluster.server),
        "discover": cluster.discover.as_ref().map(discover),
        "subset": labels(&cluster.subset),
        "protocol": upstream_protocol(cluster.protocol),
        "balance": balance(&cluster.balance),
        "connect_timeout": duration(cluster.connect_timeout),
        "keepalive": {
            "idle": duration(cluster.keepalive.idle),
            "max_idle": cluster.keepalive.max_idle,
        },
        "breaker": {
            "connections": or_none(cluster.breaker.connections),
            "requests": or_none(cluster.breaker.requests),
        },
        "health": cluster.health.as_ref().map(traffic::health),
        "outlier": cluster.outlier.as_ref().map(traffic::outlier),
    });
    if !cluster.endpoints.is_empty() {
        fields["endpoints"] = cluster.endpoints.iter().map(endpoint).collect();
    }
    let mut fields = tidy(fields);
    if let Some(tls) = &cluster.tls {
        fields["tls"] = client_tls(tls); // `{}` means something
    }
    fields
}

fn endpoint(endpoint: &EndpointConfig) -> Value {
    let EndpointConfig {
        host, port, weight, ..
    } = endpoint;
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    tidy(json!({ "address": address, "weight": weight, "labels": labels(&endpoint.labels) }))
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    json!(labels)
}

fn discover(discover: &Discover) -> Value {
    match discover {
        Discover::Dns {
            name,
            port,
            refresh,
        } => {
            json!({ "dns": { "name": name, "port": port, "refresh": duration(*refresh) } })
        }
    }
}

fn client_tls(tls: &ClientTls) -> Value {
    tidy(json!({
        "server_name": tls.server_name,
        "ca": tls.ca,
        "certificate": tls.certificate,
        "key": tls.key,
    }))
}

/// Returns the word of the configuration file.
pub(super) fn server_kind(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Generic => "generic",
        ServerKind::TensorflowServing => "tensorflow-serving",
        ServerKind::Torchserve => "torchserve",
        ServerKind::Onnxruntime => "onnxruntime",
        ServerKind::Triton => "triton",
        ServerKind::KserveV1 => "kserve-v1",
        ServerKind::KserveV2 => "kserve-v2",
        ServerKind::Vllm => "vllm",
        ServerKind::Sglang => "sglang",
        ServerKind::Tgi => "tgi",
        ServerKind::LlamaCpp => "llama.cpp",
        ServerKind::Ollama => "ollama",
        ServerKind::Bentoml => "bentoml",
    }
}

/// Returns the word of the configuration file.
pub(super) fn upstream_protocol(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Auto => "auto",
        UpstreamProtocol::Http1 => "http1",
        UpstreamProtocol::Http2 => "http2",
    }
}

/// Returns `balance:` as it is written.
pub(super) fn balance(balance: &Balance) -> Value {
    match balance {
        Balance::LeastRequests => json!("least_requests"),
        Balance::RoundRobin => json!("round_robin"),
        Balance::Random => json!("random"),
        Balance::Hash(HashKey::Header(name)) => json!({ "hash": { "header": name.as_str() } }),
        Balance::Hash(HashKey::Cookie(name)) => json!({ "hash": { "cookie": name } }),
        Balance::Hash(HashKey::ClientIp) => json!({ "hash": { "client_ip": true } }),
    }
}

fn access_log(log: &AccessLog) -> Value {
    json!({
        "path": match &log.target {
            LogTarget::Stdout => json!("stdout"),
            LogTarget::Stderr => json!("stderr"),
            LogTarget::File(path) => json!(path),
        },
        "format": match &log.format {
            LogFormat::Json => "json",
            LogFormat::Envoy(format) => format,
        },
        "sample": percent(log.sample),
        "slow": clock(log.slow),
    })
}

fn or_none(bound: Option<u32>) -> Value {
    bound.map_or_else(|| json!("none"), |bound| json!(bound))
}

fn clock(clock: Option<Duration>) -> String {
    clock.map_or_else(|| "none".to_owned(), duration)
}

/// Returns a duration with the largest unit that needs no fraction; below a microsecond nothing is told.
pub(super) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
        (1, "us"),
    ];
    match units
        .into_iter()
        .find(|(length, _)| micros > 0 && micros.is_multiple_of(*length))
    {
        Some((length, unit)) => format!("{}{unit}", micros / length),
        None => "0s".to_owned(),
    }
}

/// Returns a number of bytes with the largest unit that needs no fraction.
fn size(bytes: u64) -> Value {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units
        .into_iter()
        .find(|(length, _)| bytes > 0 && bytes.is_multiple_of(*length))
    {
        Some((length, unit)) => json!(format!("{}{unit}", bytes / length)),
        None => json!(bytes),
    }
}

/// * `millionths`: 0 … 1 000 000
fn percent(millionths: u32) -> String {
    format!("{}%", f64::from(millionths) / 10_000.0)
}

#[cfg(test)]
mod tests {
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
}
