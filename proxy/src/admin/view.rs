//! What a running proxy shows of itself, as JSON. Readers see the running snapshot only.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use forebay_config::{Action, ListenerProtocol, Member, Position, Route};
use http::StatusCode;
use serde_json::{Value, json};

use super::Desk;
use super::answer::{Refusal, json_answer};
use super::describe;
use crate::metrics::Metrics;
use crate::snapshot::{ClusterView, Snapshot};

/// The configuration that serves, without secrets.
pub(super) async fn config(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    desk.turns
        .json(move || describe::config(&snapshot.config))
        .await
}

/// Generation, sources, warnings and the last error.
pub(super) async fn status(State(desk): State<Arc<Desk>>) -> Response {
    json_answer(StatusCode::OK, &json!(desk.control.status()))
}

/// Every route and how its split came out.
pub(super) async fn routes(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    let metrics = Arc::clone(desk.control.metrics());
    desk.turns
        .json(move || {
            let routes = snapshot.config.routes.iter().map(|route| {
                let shares = shares(route, &metrics);
                route_json(route, &snapshot, &shares)
            });
            json!({ "generation": snapshot.generation, "routes": routes.collect::<Vec<_>>() })
        })
        .await
}

/// Every cluster and what its endpoints do.
pub(super) async fn clusters(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    desk.turns
        .json(move || {
            let configured = snapshot.config.clusters.iter();
            let clusters = configured
                .filter_map(|c| snapshot.clusters.get(&c.name))
                .map(|c| cluster_json(c));
            json!({ "generation": snapshot.generation, "clusters": clusters.collect::<Vec<_>>() })
        })
        .await
}

/// A member of a split: what it should get and what it got.
pub(super) struct Share<'a> {
    /// Name and weight.
    pub(super) member: &'a Member,
    /// 0 … 1, by weight.
    pub(super) wanted: f64,
    /// Answers since the process started, or since the route first named the cluster.
    pub(super) requests: u64,
    /// 0 … 1 of the members' answers; `None` before the first.
    pub(super) observed: Option<f64>,
}

/// Returns the members of a route's split; empty when it forwards nothing.
pub(super) fn shares<'a>(route: &'a Route, metrics: &Metrics) -> Vec<Share<'a>> {
    let Action::Forward(members) = &route.action else {
        return Vec::new();
    };
    let weights: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    let counts: Vec<u64> = members
        .iter()
        .map(|member| metrics.traffic(&route.name, &member.cluster).answers())
        .collect();
    let all: u64 = counts.iter().sum();
    let share = |(member, requests): (&'a Member, u64)| Share {
        member,
        wanted: f64::from(member.weight) / weights,
        requests,
        observed: (all > 0).then(|| requests as f64 / all as f64),
    };
    members.iter().zip(counts).map(share).collect()
}

/// Returns the names of the listeners that a route is on.
pub(super) fn listeners_of<'a>(route: &'a Route, snapshot: &'a Snapshot) -> Vec<&'a str> {
    if !route.listeners.is_empty() {
        return route.listeners.iter().map(String::as_str).collect();
    }
    let listeners = snapshot.config.listeners.iter();
    let http = listeners.filter(|listener| listener.protocol == ListenerProtocol::Http);
    http.map(|listener| listener.name.as_str()).collect()
}

fn route_json(route: &Route, snapshot: &Snapshot, shares: &[Share<'_>]) -> Value {
    let action = match &route.action {
        Action::Forward(_) => json!({
            "type": "forward",
            "members": shares.iter().map(|share| json!({
                "cluster": share.member.cluster,
                "weight": share.member.weight,
                "share": share.wanted,
                "requests": share.requests,
                "observed_share": share.observed,
            })).collect::<Vec<_>>(),
        }),
        Action::Redirect(redirect) => json!({
            "type": "redirect",
            "status": redirect.status.as_u16(),
            "scheme": redirect.scheme,
            "host": redirect.host,
            "port": redirect.port,
            "path": redirect.path,
        }),
        Action::Respond(respond) => json!({ "type": "respond", "status": respond.status.as_u16() }),
    };
    let mut fields = json!({
        "name": route.name,
        "listeners": listeners_of(route, snapshot),
        "matches": describe::matches(&route.matches),
        "priority": route.priority,
        "action": action,
        "source": place(&route.position),
    });
    for (key, value) in describe::policy(route) {
        fields[key] = value;
    }
    fields
}

fn cluster_json(cluster: &ClusterView) -> Value {
    let set = cluster.state.endpoints();
    let endpoints = set.endpoints.iter().map(|endpoint| {
        json!({
            "address": endpoint.label,
            "host": endpoint.host,
            "weight": endpoint.weight,
            "in_flight": endpoint.in_flight(),
            "connections": endpoint.connections(),
            "healthy": true,
        })
    });
    json!({
        "name": cluster.config.name,
        "server": describe::server_kind(cluster.config.server),
        "protocol": describe::upstream_protocol(cluster.config.protocol),
        "balance": describe::balance(&cluster.config.balance),
        "tls": cluster.config.tls.is_some(),
        "in_flight": cluster.state.requests(),
        "connections": cluster.state.connections(),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "source": place(&cluster.config.position),
    })
}

/// Returns `file:line`.
pub(super) fn place(position: &Position) -> String {
    format!("{}:{}", position.file, position.line)
}
