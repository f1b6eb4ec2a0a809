//! Probes, metrics, and the wait for the end of a drain.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::Desk;
use super::answer::{Refusal, line};

/// The process runs.
pub(super) async fn live() -> Response {
    line(StatusCode::OK, "ok\n")
}

/// `?cluster=NAME`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadyQuery {
    cluster: Option<String>,
}

/// Configuration loaded, listeners bound, not draining. Upstreams matter only when a cluster is asked about.
pub(super) async fn ready(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<ReadyQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    if !desk.control.is_ready() {
        return Ok(line(StatusCode::SERVICE_UNAVAILABLE, "draining\n"));
    }
    if let Some(name) = query.cluster {
        let snapshot = desk.control.snapshot();
        let Some(cluster) = snapshot.clusters.get(&name) else {
            return Err(Refusal::not_found(
                "the running configuration has no such cluster",
            ));
        };
        let scale = cluster.config.scale.as_ref();
        let sleeps = scale.is_some_and(|scale| scale.min == 0); // a request would wake it
        if !sleeps && !cluster.state.has_ready_endpoint() {
            return Ok(line(StatusCode::SERVICE_UNAVAILABLE, "no endpoint\n"));
        }
    }
    Ok(line(StatusCode::OK, "ok\n"))
}

/// Prometheus text.
pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let metrics = Arc::clone(desk.control.metrics());
    desk.turns
        .render("text/plain; version=0.0.4; charset=utf-8", move || {
            metrics.render()
        })
        .await
}

/// Answers when a drain has ended; starts none.
pub(super) async fn wait_for_drain(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    drained(&desk).await?;
    Ok(line(StatusCode::OK, "drained\n"))
}

/// Waits for the end of a drain, unless too many already do.
pub(super) async fn drained(desk: &Desk) -> Result<(), Refusal> {
    let Ok(_place) = desk.waiting.try_acquire() else {
        return Err(Refusal::overloaded(
            "too many requests wait for the end of a drain",
        ));
    };
    desk.control.drained().await;
    Ok(())
}
