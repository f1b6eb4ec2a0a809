//! The configuration as JSON, in the form it is written in, so that it can be loaded again. Secrets are not in it.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_config::{
    AccessLog, Action, Admin, Balance, ClientTls, Cluster, Config, Discover, EncodedSlash,
    EndpointConfig, HashKey, HeaderEdits, HostPattern, Limits, Listener, ListenerProtocol,
    LogFormat, LogTarget, Match, Member, PathMatch, PathRewrite, Redirect, Respond, Rewrite, Route,
    ServerKind, ServerTls, Timeouts, UpstreamProtocol, ValueMatch,
};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

/// What stands for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Parts of the names of headers, cookies and query keys whose values are secrets.
const SECRET_NAMES: &[&str] = &[
    "auth",
    "cookie",
    "credential",
    "key",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Returns the whole configuration, defaults included.
pub(super) fn config(config: &Config) -> Value {
    let list = |items: Vec<Value>| Value::Array(items);
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

fn route(route: &Route) -> Value {
    let mut fields = json!({
        "name": route.name,
        "match": matches(&route.matches),
        "priority": route.priority,
        "timeouts": timeouts(&route.timeouts),
        "rewrite": rewrite(&route.rewrite),
        "request_headers": header_edits(&route.request_headers),
        "response_headers": header_edits(&route.response_headers),
        "body": route.body_max.map(|max| json!({ "max": size(max) })),
    });
    if !route.listeners.is_empty() {
        fields["listeners"] = json!(route.listeners);
    }
    if route.matches.is_empty() {
        fields["match"] = Value::Null;
    }
    match &route.action {
        Action::Forward(members) => fields["split"] = members.iter().map(member).collect(),
        Action::Redirect(to) => fields["redirect"] = redirect(to),
        Action::Respond(fixed) => fields["respond"] = respond(fixed),
    }
    tidy(fields)
}

fn member(member: &Member) -> Value {
    tidy(json!({
        "cluster": member.cluster,
        "weight": member.weight,
        "request_headers": header_edits(&member.request_headers),
        "response_headers": header_edits(&member.response_headers),
    }))
}

/// Returns the conditions of a route as a list; empty: everything matches.
pub(super) fn matches(matches: &[Match]) -> Value {
    matches.iter().map(condition).collect()
}

fn condition(condition: &Match) -> Value {
    let hosts = condition.hosts.iter().map(host).collect::<Vec<_>>();
    let methods = condition.methods.iter().map(http::Method::as_str);
    let headers = condition.headers.iter().map(|(n, v)| (n.as_str(), v));
    let mut fields = json!({
        "path": condition.path.as_ref().map(path),
        "headers": values(headers),
        "query": values(condition.query.iter().map(|(n, v)| (n.as_str(), v))),
        "cookies": cookies(&condition.cookies),
    });
    if !hosts.is_empty() {
        fields["hosts"] = json!(hosts);
    }
    if !condition.methods.is_empty() {
        fields["methods"] = json!(methods.collect::<Vec<_>>());
    }
    tidy(fields)
}

/// Returns a host as it is written.
pub(super) fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    }
}

fn path(path: &PathMatch) -> Value {
    match path {
        PathMatch::Exact(path) => json!({ "exact": path }),
        PathMatch::Prefix(prefix) if prefix.is_empty() => json!({ "prefix": "/" }),
        PathMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        PathMatch::Regex(regex) => json!({ "regex": unanchored(regex.as_str()) }),
    }
}

/// Returns an expression as it was written.
pub(super) fn unanchored(text: &str) -> &str {
    let inner = text.strip_prefix("^(?:").and_then(|t| t.strip_suffix(")$"));
    inner.unwrap_or(text)
}

fn values<'a>(conditions: impl Iterator<Item = (&'a str, &'a ValueMatch)>) -> Value {
    let named = conditions.map(|(name, value)| (name.to_owned(), value_match(name, value)));
    Value::Object(named.collect())
}

/// A session is whatever cookie a server chooses for it: no value of a cookie is shown.
fn cookies(conditions: &[(String, ValueMatch)]) -> Value {
    let named = conditions
        .iter()
        .map(|(name, value)| (name.clone(), value_match("cookie", value)));
    Value::Object(named.collect())
}

fn value_match(name: &str, value: &ValueMatch) -> Value {
    let shown = |text: &str| if is_secret(name) { REDACTED.to_owned() } else { text.to_owned() };
    match value {
        ValueMatch::Exact(text) => json!(shown(text)),
        ValueMatch::Regex(_) if is_secret(name) => json!({ "regex": r"\[redacted\]" }),
        ValueMatch::Regex(regex) => json!({ "regex": unanchored(regex.as_str()) }),
        ValueMatch::Present(present) => json!({ "present": present }),
        ValueMatch::Not(text) => json!({ "not": shown(text) }),
        ValueMatch::In(texts) => json!({ "in": texts.iter().map(|t| shown(t)).collect::<Vec<_>>() }),
    }
}

fn redirect(redirect: &Redirect) -> Value {
    tidy(json!({
        "scheme": redirect.scheme,
        "host": redirect.host,
        "port": redirect.port,
        "path": redirect.path,
        "status": redirect.status.as_u16(),
    }))
}

fn respond(respond: &Respond) -> Value {
    tidy(json!({
        "status": respond.status.as_u16(),
        "headers": header_map(&respond.headers),
        "body": respond.body,
    }))
}

fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "first_byte": clock(timeouts.first_byte),
        "idle": clock(timeouts.idle),
        "request_body": clock(timeouts.request_body),
        "total": clock(timeouts.total),
        "tunnel": clock(timeouts.tunnel),
    })
}

fn rewrite(rewrite: &Rewrite) -> Value {
    let mut fields = Map::new();
    match &rewrite.path {
        None => {}
        Some(PathRewrite::Prefix(prefix)) => {
            fields.insert("prefix".into(), json!(if prefix.is_empty() { "/" } else { prefix }));
        }
        Some(PathRewrite::Path(path)) => {
            fields.insert("path".into(), json!(path));
        }
        Some(PathRewrite::Regex { find, with }) => {
            fields.insert("regex".into(), json!({ "find": find.as_str(), "with": with }));
        }
    }
    if let Some(host) = &rewrite.host {
        fields.insert("host".into(), json!(text(host)));
    }
    Value::Object(fields)
}

fn header_edits(edits: &HeaderEdits) -> Value {
    let mut fields = Map::new();
    if !edits.set.is_empty() {
        fields.insert("set".into(), header_map(&edits.set));
    }
    if !edits.add.is_empty() {
        fields.insert("add".into(), header_map(&edits.add));
    }
    if !edits.remove.is_empty() {
        let names = edits.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>();
        fields.insert("remove".into(), json!(names));
    }
    Value::Object(fields)
}

fn header_map(headers: &[(HeaderName, HeaderValue)]) -> Value {
    let shown = headers.iter().map(|(name, value)| {
        let value = if is_secret(name.as_str()) { REDACTED.to_owned() } else { text(value) };
        (name.to_string(), json!(value))
    });
    Value::Object(shown.collect())
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
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
    let EndpointConfig { host, port, weight, .. } = endpoint;
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    tidy(json!({ "address": address, "weight": weight, "labels": labels(&endpoint.labels) }))
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    json!(labels)
}

fn discover(discover: &Discover) -> Value {
    match discover {
        Discover::Dns { name, port, refresh } => {
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
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")];
    match units.into_iter().find(|(length, _)| micros > 0 && micros % length == 0) {
        Some((length, unit)) => format!("{}{unit}", micros / length),
        None => "0s".to_owned(),
    }
}

/// Returns a number of bytes with the largest unit that needs no fraction.
fn size(bytes: u64) -> Value {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(length, _)| bytes > 0 && bytes.is_multiple_of(*length)) {
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
        let source = SourceFile { name: name.into(), directory: ".".into(), text: text.to_owned() };
        load(&[source], &|_| Some("x".to_owned())).unwrap().config
    }

    #[test]
    fn what_is_shown_of_every_example_can_be_loaded_again_and_says_the_same() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
        let mut seen = 0;
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
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
        assert_eq!(shown["clusters"][0]["endpoints"][0]["address"], "[::1]:8080");
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
}
