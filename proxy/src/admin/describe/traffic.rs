//! What happens to a request besides its way, and who counts as able to serve it, as JSON.

use std::time::Duration;

use forebay_config::pointer::Pointer;
use forebay_config::{
    Compare, Health, HealthKind, Mirror, Outlier, Recording, Replace, Retry, RetryMethods, Route,
};
use http::{HeaderName, Method, Uri};
use serde_json::{Map, Value, json};

use super::route::header_edits;
use super::{clock, duration, percent, size, tidy};

/// Returns the keys of a route that say what is done with its requests and answers, as far as they are set.
pub(super) fn traffic(route: &Route) -> Map<String, Value> {
    let mut fields = Map::new();
    if !route.mirrors.is_empty() {
        fields.insert("mirrors".into(), route.mirrors.iter().map(mirror).collect());
    }
    if let Some(wanted) = &route.record {
        fields.insert("record".into(), record(wanted));
    }
    if let Some(wanted) = &route.retry {
        fields.insert("retry".into(), retry(wanted));
    }
    fields
}

/// Returns `body.replace` of a route; `null` when there is none.
pub(super) fn replacements(all: &[Replace]) -> Value {
    if all.is_empty() {
        return Value::Null;
    }
    let one = |edit: &Replace| {
        json!({
            "find": edit.find,
            "with": edit.with,
            "types": edit.types,
            "once": edit.once,
            "ignore_case": edit.ignore_case,
        })
    };
    all.iter().map(one).collect()
}

fn mirror(mirror: &Mirror) -> Value {
    tidy(json!({
        "name": mirror.name,
        "cluster": mirror.cluster,
        "sample": percent(mirror.sample),
        "max_in_flight": mirror.max_in_flight,
        "max_lag": size(mirror.max_lag),
        "max_bytes": size(mirror.max_bytes),
        "timeout": clock(mirror.timeout),
        "demand": mirror.demand,
        "request_headers": header_edits(&mirror.request_headers),
        "compare": mirror.compare.as_ref().map(compare),
    }))
}

fn compare(compare: &Compare) -> Value {
    let headers = compare.headers.iter().map(HeaderName::as_str);
    tidy(json!({
        "sample": percent(compare.sample),
        "noise": compare.noise,
        "headers": headers.collect::<Vec<_>>(),
        "ignore": pointers(&compare.ignore),
        "tolerance": { "abs": compare.tolerance.abs, "rel": compare.tolerance.rel },
        "array_order": compare.array_order,
        "max_body": size(compare.max_body),
    }))
}

fn record(record: &Recording) -> Value {
    tidy(json!({
        "path": record.path,
        "max_file": record.path.as_ref().map(|_| size(record.max_file)),
        "keep": record.path.as_ref().map(|_| record.keep),
        "url": record.url.as_ref().map(url),
        "sample": percent(record.sample),
        "max_body": size(record.max_body),
        "redact": pointers(&record.redact),
    }))
}

/// A URL, which names no user, without its query.
pub(super) fn url(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let place = url.authority().map_or("", |authority| authority.as_str());
    let query = url.query().map_or("", |_| "?redacted");
    format!("{scheme}://{place}{}{query}", url.path())
}

fn pointers(all: &[Pointer]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn retry(retry: &Retry) -> Value {
    let when = &retry.when;
    let words = [
        ("connect", when.connect),
        ("refused", when.refused),
        ("reset", when.reset),
    ];
    let words = words.into_iter().filter(|(_, wanted)| *wanted);
    let words = words.map(|(word, _)| json!(word));
    let statuses = when.statuses.iter().map(|status| json!(status.as_u16()));
    json!({
        "attempts": retry.attempts,
        "when": words.chain(statuses).collect::<Vec<_>>(),
        "methods": match &retry.methods {
            RetryMethods::Idempotent => json!("idempotent"),
            RetryMethods::All => json!("all"),
            RetryMethods::Only(methods) => methods.iter().map(Method::as_str).collect(),
        },
        "budget": percent(retry.budget),
        "max_body": size(retry.max_body),
        "per_try": clock(retry.per_try),
    })
}

/// Returns `health:` of a cluster.
pub(super) fn health(health: &Health) -> Value {
    let mut fields = tidy(json!({
        "port": health.port,
        "interval": duration(health.interval),
        "timeout": duration(health.timeout),
        "unhealthy": health.unhealthy,
        "healthy": health.healthy,
    }));
    match &health.kind {
        HealthKind::Server => {} // as it is when nothing is written
        HealthKind::Http { path, status } => {
            let status = status.iter().map(|status| status.as_u16());
            fields["kind"] = json!("http");
            fields["path"] = json!(path);
            fields["status"] = status.collect();
        }
        HealthKind::Tcp => fields["kind"] = json!("tcp"),
        HealthKind::Grpc { service } => {
            fields["kind"] = json!("grpc");
            if !service.is_empty() {
                fields["service"] = json!(service);
            }
        }
    }
    fields
}

/// Returns `outlier:` of a cluster.
pub(super) fn outlier(outlier: &Outlier) -> Value {
    let time = |time: Duration| json!(duration(time));
    json!({
        "consecutive_5xx": outlier.consecutive_5xx,
        "base": time(outlier.base),
        "max": time(outlier.max),
        "keep_at_least": outlier.keep_at_least,
        "slow_start": time(outlier.slow_start),
    })
}
