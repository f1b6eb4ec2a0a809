//! A route as JSON: conditions, action, clocks and edits.

use forebay_config::{
    Action, Cutover, HeaderEdits, HostPattern, Match, Member, PathMatch, PathRewrite, Redirect,
    Respond, Rewrite, Route, Timeouts, ValueMatch,
};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::policy::policy;
use super::traffic::{replacements, traffic};
use super::{clock, size, tidy};
use crate::secret::{REDACTED, is_secret};

/// Returns one entry of `routes:`.
pub(super) fn route(route: &Route) -> Value {
    let mut fields = json!({
        "name": route.name,
        "match": matches(&route.matches),
        "priority": route.priority,
        "timeouts": timeouts(&route.timeouts),
        "rewrite": rewrite(&route.rewrite),
        "request_headers": header_edits(&route.request_headers),
        "response_headers": header_edits(&route.response_headers),
        "body": tidy(json!({
            "max": route.body_max.map(size),
            "replace": replacements(&route.replace),
        })),
    });
    if !route.listeners.is_empty() {
        fields["listeners"] = json!(route.listeners);
    }
    if route.matches.is_empty() {
        fields["match"] = Value::Null;
    }
    if route.cutover == Cutover::Ready {
        fields["cutover"] = json!("ready");
    }
    if !route.wake {
        fields["wake"] = json!(false);
    }
    for (key, value) in policy(route).into_iter().chain(traffic(route)) {
        fields[key] = value;
    }
    match &route.action {
        Action::Forward(members) => fields["split"] = members.iter().map(member).collect(),
        Action::ByModel => fields["by_model"] = json!(true),
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
pub(in crate::admin) fn matches(matches: &[Match]) -> Value {
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
        "model": condition.model,
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
pub(in crate::admin) fn host(host: &HostPattern) -> String {
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
pub(in crate::admin) fn unanchored(text: &str) -> &str {
    let inner = text.strip_prefix("^(?:").and_then(|t| t.strip_suffix(")$"));
    inner.unwrap_or(text)
}

/// Returns conditions by name; those of secrets without their values.
pub(super) fn values<'a>(conditions: impl Iterator<Item = (&'a str, &'a ValueMatch)>) -> Value {
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
    let shown = |text: &str| {
        if is_secret(name) {
            REDACTED.to_owned()
        } else {
            text.to_owned()
        }
    };
    match value {
        ValueMatch::Exact(text) => json!(shown(text)),
        ValueMatch::Regex(_) if is_secret(name) => json!({ "regex": r"\[redacted\]" }),
        ValueMatch::Regex(regex) => json!({ "regex": unanchored(regex.as_str()) }),
        ValueMatch::Present(present) => json!({ "present": present }),
        ValueMatch::Not(text) => json!({ "not": shown(text) }),
        ValueMatch::In(texts) => {
            json!({ "in": texts.iter().map(|t| shown(t)).collect::<Vec<_>>() })
        }
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
            fields.insert(
                "prefix".into(),
                json!(if prefix.is_empty() { "/" } else { prefix }),
            );
        }
        Some(PathRewrite::Path(path)) => {
            fields.insert("path".into(), json!(path));
        }
        Some(PathRewrite::Regex { find, with }) => {
            fields.insert(
                "regex".into(),
                json!({ "find": find.as_str(), "with": with }),
            );
        }
    }
    if let Some(host) = &rewrite.host {
        fields.insert("host".into(), json!(text(host)));
    }
    Value::Object(fields)
}

pub(super) fn header_edits(edits: &HeaderEdits) -> Value {
    let mut fields = Map::new();
    if !edits.set.is_empty() {
        fields.insert("set".into(), header_map(&edits.set));
    }
    if !edits.add.is_empty() {
        fields.insert("add".into(), header_map(&edits.add));
    }
    if !edits.remove.is_empty() {
        let names = edits
            .remove
            .iter()
            .map(HeaderName::as_str)
            .collect::<Vec<_>>();
        fields.insert("remove".into(), json!(names));
    }
    Value::Object(fields)
}

fn header_map(headers: &[(HeaderName, HeaderValue)]) -> Value {
    let shown = headers.iter().map(|(name, value)| {
        let value = if is_secret(name.as_str()) {
            REDACTED.to_owned()
        } else {
            text(value)
        };
        (name.to_string(), json!(value))
    });
    Value::Object(shown.collect())
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
