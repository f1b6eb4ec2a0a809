//! What limits and access lists ask for, and what came of it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use forebay_config::{Bound, LimitRule, LimitSource, Route};
use serde_json::{Map, Value, json};

use super::Desk;
use super::answer::Refusal;
use super::describe;
use crate::filter::limit::Tally;
use crate::snapshot::Snapshot;

/// Every limit of every route, every policy, every access list.
pub(super) async fn limits(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    desk.turns
        .json(move || {
            let routes = &snapshot.config.routes;
            let limits = routes.iter().flat_map(|route| of_route(route, &snapshot));
            let access = routes.iter().filter_map(|route| access(route, &snapshot));
            json!({
                "generation": snapshot.generation,
                "limits": limits.collect::<Vec<_>>(),
                "policies": policies(&snapshot),
                "access": access.collect::<Vec<_>>(),
            })
        })
        .await
}

fn of_route(route: &Route, snapshot: &Snapshot) -> Vec<Value> {
    let limit = |limit: &forebay_config::RateLimit| {
        let mut fields = rule(limit.rule());
        fields.insert("route".into(), json!(route.name));
        fields.insert("name".into(), json!(limit.name));
        fields.insert("dry_run".into(), json!(limit.dry_run));
        let policy = match &limit.source {
            LimitSource::Own(_) => None,
            LimitSource::Policy(policy) => Some(&policy.name),
        };
        fields.insert("policy".into(), json!(policy));
        tally(&mut fields, snapshot.ledger.tally(&route.name, limit));
        Value::Object(fields)
    };
    route.rate_limits.iter().map(limit).collect()
}

/// A policy that no route names has counted nothing.
fn policies(snapshot: &Snapshot) -> Vec<Value> {
    let config = &snapshot.config;
    let policy = |policy: &Arc<forebay_config::RateLimitPolicy>| {
        let names = |route: &&Arc<Route>| {
            let mut limits = route.rate_limits.iter();
            limits.any(|limit| match &limit.source {
                LimitSource::Own(_) => false,
                LimitSource::Policy(named) => named.name == policy.name,
            })
        };
        let routes = config.routes.iter().filter(names);
        let routes: Vec<&str> = routes.map(|route| route.name.as_str()).collect();
        let mut fields = rule(&policy.rule);
        fields.insert("name".into(), json!(policy.name));
        fields.insert("dry_run".into(), json!(policy.dry_run));
        fields.insert("routes".into(), json!(routes));
        let counted = config.routes.iter().flat_map(|route| {
            let limits = route.rate_limits.iter();
            limits.map(move |limit| (route, limit))
        });
        let of_this = counted.filter(|(_, limit)| match &limit.source {
            LimitSource::Own(_) => false,
            LimitSource::Policy(named) => named.name == policy.name,
        });
        // Buckets are the policy's, refusals are counted for each limit that names it.
        let all = of_this.fold(Tally::default(), |all, (route, limit)| {
            let one = snapshot.ledger.tally(&route.name, limit);
            Tally {
                refused: all.refused + one.refused,
                ..one
            }
        });
        tally(&mut fields, all);
        Value::Object(fields)
    };
    config.rate_limit_policies.iter().map(policy).collect()
}

/// As in the configuration, but keys with a value of their own are only counted.
fn rule(rule: &LimitRule) -> Map<String, Value> {
    let mut fields = describe::limit_rule(rule);
    let (kind, overrides) = match &rule.bound {
        Bound::Rate(bound) => ("rate", bound.overrides.len()),
        Bound::Concurrent(bound) => ("concurrent", bound.overrides.len()),
    };
    fields.insert("kind".into(), json!(kind));
    fields.insert("overrides".into(), json!(overrides));
    fields
}

fn tally(fields: &mut Map<String, Value>, tally: Tally) {
    fields.insert("keys".into(), json!(tally.keys));
    fields.insert("refused".into(), json!(tally.refused));
    if fields["kind"] == "concurrent" {
        fields.insert("in_progress".into(), json!(tally.in_progress));
    }
}

fn access(route: &Route, snapshot: &Snapshot) -> Option<Value> {
    let access = route.access.as_ref()?;
    Some(json!({
        "route": route.name,
        "list": access.list,
        "deny": access.deny.len(),
        "allow": access.allow.as_ref().map(Vec::len),
        "dry_run": access.dry_run,
        "denied": snapshot.ledger.denied(&route.name),
    }))
}
