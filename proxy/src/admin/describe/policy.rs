//! Who may send what and how much of it, as JSON. The keys of limits are not shown where they are secrets.

use std::path::Path;

use forebay_config::units::Rate;
use forebay_config::{
    Access, AccessEntry, AnyOf, Auth, Bound, Cors, LimitKey, LimitRule, LimitSource, MissingKey,
    Origin, PerKey, Quota, RateLimit, RateLimitPolicy, Route, RouteAuth, Sticky,
};
use http::{HeaderName, Method};
use serde_json::{Map, Value, json};

use super::route::values;
use super::{clock, duration};
use crate::secret::{REDACTED, is_secret};

/// Returns `auth:` of the top level; `null` when nobody is known.
pub(super) fn auth(auth: &Auth) -> Value {
    match &auth.api_keys {
        Some(keys) => json!({ "api_keys": { "file": file(&keys.file) } }),
        None => Value::Null,
    }
}

/// Returns one entry of `rate_limit_policies:`.
pub(super) fn rate_limit_policy(policy: &RateLimitPolicy) -> Value {
    let mut fields = rule(&policy.rule);
    fields.insert("name".into(), json!(policy.name));
    fields.insert("dry_run".into(), json!(policy.dry_run));
    Value::Object(fields)
}

/// Returns the keys of a route that say who may send what, as far as they are set.
pub(in crate::admin) fn policy(route: &Route) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(rules) = &route.access {
        fields.insert("access".into(), access(rules));
    }
    if route.auth != RouteAuth::default() {
        let RouteAuth { required, keep_key } = route.auth;
        let shown = json!({ "required": required, "keep_key": keep_key });
        fields.insert("auth".into(), shown);
    }
    if !route.rate_limits.is_empty() {
        let limits = route.rate_limits.iter().map(rate_limit);
        fields.insert("rate_limits".into(), limits.collect());
    }
    if let Some(rules) = &route.cors {
        fields.insert("cors".into(), cors(rules));
    }
    if let Some(by) = &route.sticky {
        fields.insert("sticky".into(), sticky(by));
    }
    fields
}

/// The named list is among the entries, so that its name is not shown.
fn access(access: &Access) -> Value {
    let mut fields = json!({ "dry_run": access.dry_run });
    if !access.deny.is_empty() {
        fields["deny"] = access.deny.iter().map(access_entry).collect();
    }
    if let Some(allow) = &access.allow {
        fields["allow"] = allow.iter().map(access_entry).collect(); // `[]` means something
    }
    fields
}

fn access_entry(entry: &AccessEntry) -> Value {
    match entry {
        AccessEntry::Net(net) => json!(net.to_string()),
        AccessEntry::Headers(all) => {
            json!({ "header": values(all.iter().map(|(n, v)| (n.as_str(), v))) })
        }
        AccessEntry::File(path) => json!({ "file": file(path) }),
    }
}

fn file(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn rate_limit(limit: &RateLimit) -> Value {
    let mut fields = match &limit.source {
        LimitSource::Own(own) => rule(own),
        LimitSource::Policy(policy) => Map::from_iter([("policy".to_owned(), json!(policy.name))]),
    };
    fields.insert("name".into(), json!(limit.name));
    fields.insert("dry_run".into(), json!(limit.dry_run));
    Value::Object(fields)
}

/// Returns what a limit asks for, as it is written.
pub(in crate::admin) fn rule(rule: &LimitRule) -> Map<String, Value> {
    let mut fields = Map::new();
    let overrides = match &rule.bound {
        Bound::Rate(bound) => {
            let Quota { rate, burst } = bound.general;
            fields.insert("rate".into(), json!(rate_text(rate)));
            fields.insert("burst".into(), json!(burst));
            overrides(
                bound,
                &rule.per,
                |quota| json!({ "rate": rate_text(quota.rate), "burst": quota.burst }),
            )
        }
        Bound::Concurrent(bound) => {
            fields.insert("concurrent".into(), json!(bound.general));
            overrides(bound, &rule.per, |places| json!(places))
        }
    };
    if !overrides.is_empty() {
        fields.insert("overrides".into(), Value::Object(overrides));
    }
    fields.insert("per".into(), limit_key(&rule.per));
    if !matches!(rule.per, LimitKey::Route | LimitKey::ClientIp) {
        let missing = match rule.missing {
            MissingKey::Shared => "shared",
            MissingKey::Refuse => "refuse",
            MissingKey::Skip => "skip",
        };
        fields.insert("missing".into(), json!(missing));
    }
    fields
}

/// The keys are values of the header or cookie: those of secrets are only counted.
fn overrides<T>(
    bound: &PerKey<T>,
    per: &LimitKey,
    value: impl Fn(&T) -> Value,
) -> Map<String, Value> {
    let secret = match per {
        LimitKey::Header(name) => is_secret(name.as_str()),
        LimitKey::Cookie(_) => true,
        LimitKey::Route | LimitKey::ClientIp | LimitKey::Identity | LimitKey::Json(_) => false,
    };
    let PerKey { overrides, .. } = bound;
    let shown = overrides.iter().enumerate().map(|(index, (key, own))| {
        let key = if secret {
            format!("{REDACTED} {}", index + 1)
        } else {
            key.clone()
        };
        (key, value(own))
    });
    shown.collect()
}

fn limit_key(per: &LimitKey) -> Value {
    match per {
        LimitKey::Route => json!("route"),
        LimitKey::ClientIp => json!("client_ip"),
        LimitKey::Identity => json!("identity"),
        LimitKey::Header(name) => json!({ "header": name.as_str() }),
        LimitKey::Cookie(name) => json!({ "cookie": name }),
        LimitKey::Json(pointer) => json!({ "json": pointer.to_string() }),
    }
}

/// Returns a rate as it is written.
/// Returns a rate as it is written.
pub(super) fn rate_text(rate: Rate) -> String {
    let unit = match rate.period.as_secs() {
        1 => "s",
        60 => "m",
        3600 => "h",
        _ => "d",
    };
    let number = format!("{}.{:03}", rate.thousandths / 1000, rate.thousandths % 1000);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number}/{unit}")
}

fn cors(cors: &Cors) -> Value {
    json!({
        "origins": any_of(&cors.origins, origin),
        "methods": any_of(&cors.methods, Method::to_string),
        "headers": any_of(&cors.headers, HeaderName::to_string),
        "expose": any_of(&cors.expose, HeaderName::to_string),
        "credentials": cors.credentials,
        "max_age": duration(cors.max_age),
    })
}

fn any_of<T>(any: &AnyOf<T>, word: impl Fn(&T) -> String) -> Value {
    match any {
        AnyOf::Any => json!(["*"]),
        AnyOf::Only(items) => items.iter().map(word).collect(),
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Exact(site) => site.clone(),
        Origin::Suffix { scheme, suffix } => format!("{scheme}*{suffix}"),
    }
}

fn sticky(sticky: &Sticky) -> Value {
    match sticky {
        Sticky::Header(name) => json!({ "header": name.as_str() }),
        Sticky::Cookie { name, ttl } => json!({ "cookie": { "name": name, "ttl": clock(*ttl) } }),
        Sticky::ClientIp => json!({ "client_ip": true }),
        Sticky::Json(pointer) => json!({ "json": pointer.to_string() }),
    }
}
