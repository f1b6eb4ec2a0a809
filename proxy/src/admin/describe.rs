//! The configuration as JSON, in the form it is written in, so that it can be loaded again. Secrets are not in it.

mod policy;
mod route;
mod scale;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_config::{
    AccessLog, Admin, Balance, ClientTls, Cluster, Config, Discover, EncodedSlash, EndpointConfig,
    HashKey, Limits, Listener, ListenerProtocol, LogFormat, LogTarget, Ports, ServerTls,
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
        "gpus": (!config.gpus.is_empty()).then(|| scale::gpus(&config.gpus)),
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
        "server": crate::server_kind::of(cluster.server).name,
        "models": (!cluster.models.is_empty()).then_some(&cluster.models),
        "ports": ports(cluster.ports),
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
        "concurrency": cluster.concurrency,
        "queue": cluster.queue.as_ref().map(scale::queue),
        "scale": cluster.scale.as_ref().map(scale::scale),
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

fn ports(ports: Ports) -> Value {
    tidy(json!({ "http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics }))
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
mod tests;
