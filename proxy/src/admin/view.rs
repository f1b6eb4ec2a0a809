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
use super::scale;
use crate::cluster::{Endpoint, EndpointState};
use crate::metrics::Metrics;
use crate::snapshot::{ClusterView, RouteView, Snapshot};

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
            let routes = snapshot.routes.iter().zip(&snapshot.config.routes);
            let routes = routes.map(|(view, route)| {
                let shares = shares(view, route, &metrics);
                route_json(route, &snapshot, &shares)
            });
            json!({ "generation": snapshot.generation, "routes": routes.collect::<Vec<_>>() })
        })
        .await
}

/// Every mirror and recording, what came of them, and what comparing found.
pub(super) async fn mirrors(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    desk.turns
        .json(move || {
            let mut report = snapshot.mirrors.report();
            report["generation"] = json!(snapshot.generation);
            report
        })
        .await
}

/// Every cluster and what its endpoints do.
pub(super) async fn clusters(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let snapshot = desk.control.snapshot();
    let scaling = Arc::clone(&desk.control.scaling);
    desk.turns
        .json(move || {
            let reports = scaling.report();
            let configured = snapshot.config.clusters.iter();
            let clusters = configured
                .filter_map(|c| snapshot.clusters.get(&c.name))
                .map(|c| cluster_json(c, &reports));
            let clusters = clusters.collect::<Vec<_>>();
            json!({ "generation": snapshot.generation, "clusters": clusters, "gpus": scaling.gpus() })
        })
        .await
}

/// A member of a split: what it should get and what it got.
pub(super) struct Share<'a> {
    /// Its cluster and the weight by which it serves.
    pub(super) member: &'a Member,
    /// 0 … 1, by the weights that serve.
    pub(super) wanted: f64,
    /// Weight in the files; 0 when it is only there until others are ready.
    pub(super) configured: u32,
    /// 0 … 1, by the weights of the files.
    pub(super) configured_share: f64,
    /// Answers since the process started, or since the route first named the cluster.
    pub(super) requests: u64,
    /// 0 … 1 of the members' answers; `None` before the first.
    pub(super) observed: Option<f64>,
}

/// Returns the members that a route serves by; empty when it forwards nothing.
///
/// * `route`: as configured
pub(super) fn shares<'a>(view: &'a RouteView, route: &Route, metrics: &Metrics) -> Vec<Share<'a>> {
    let (Action::Forward(members), Action::Forward(configured)) =
        (&view.config.action, &route.action)
    else {
        return Vec::new();
    };
    let sum = |members: &[Member]| -> f64 { members.iter().map(|m| f64::from(m.weight)).sum() };
    let (weights, configured_weights) = (sum(members), sum(configured));
    let counts: Vec<u64> = members
        .iter()
        .map(|member| metrics.traffic(&route.name, &member.cluster).answers())
        .collect();
    let all: u64 = counts.iter().sum();
    let share = |(index, (member, requests)): (usize, (&'a Member, u64))| {
        let configured = configured.get(index).map_or(0, |member| member.weight);
        Share {
            member,
            wanted: f64::from(member.weight) / weights,
            configured,
            configured_share: f64::from(configured) / configured_weights,
            requests,
            observed: (all > 0).then(|| requests as f64 / all as f64),
        }
    };
    let each = members.iter().zip(counts).enumerate();
    each.map(share).collect()
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
                "weight": share.configured,
                "share": share.configured_share,
                "effective_weight": share.member.weight,
                "effective_share": share.wanted,
                "requests": share.requests,
                "observed_share": share.observed,
            })).collect::<Vec<_>>(),
        }),
        Action::ByModel => json!({ "type": "by_model" }),
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

/// * `reports`: of the scaler, by cluster
fn cluster_json(cluster: &ClusterView, reports: &Value) -> Value {
    let set = cluster.state.endpoints();
    let endpoints = set.endpoints.iter().map(|e| endpoint_json(e));
    let mut fields = json!({
        "name": cluster.config.name,
        "server": crate::server_kind::of(cluster.config.server).name,
        "protocol": describe::upstream_protocol(cluster.config.protocol),
        "balance": describe::balance(&cluster.config.balance),
        "tls": cluster.config.tls.is_some(),
        "ready": cluster.state.has_ready_endpoint(),
        "in_flight": cluster.state.requests(),
        "connections": cluster.state.connections(),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "source": place(&cluster.config.position),
    });
    for (key, value) in scale::room_json(cluster, reports) {
        fields[key] = value;
    }
    fields
}

/// Returns an endpoint and how it is.
pub(super) fn endpoint_json(endpoint: &Endpoint) -> Value {
    let report = endpoint.report();
    json!({
        "address": endpoint.label,
        "host": endpoint.host,
        "weight": endpoint.weight,
        "in_flight": report.in_flight,
        "connections": endpoint.connections(),
        "healthy": endpoint.is_healthy(),
        "state": report.state,
        "draining": report.state == EndpointState::Draining,
        "busy": report.busy,
        "ejections": report.ejections,
        "ejected_for": report.ejected_for,
        "check_error": report.check_error,
    })
}

/// Returns `file:line`.
pub(super) fn place(position: &Position) -> String {
    format!("{}:{}", position.file, position.line)
}
