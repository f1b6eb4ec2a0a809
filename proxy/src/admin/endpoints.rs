//! Endpoints that are taken out of service by hand, and back.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::Desk;
use super::answer::{NAMES, Refusal, json_answer};
use super::command::no_arguments;
use super::scale::cluster_of;
use super::view::endpoint_json;
use crate::cluster::{ClusterState, EndpointReport};

/// Cluster and address.
type EndpointPath = Result<Path<(String, String)>, PathRejection>;

/// Gives an endpoint nothing new, while it is in its cluster; what is under way finishes.
pub(super) async fn drain(
    State(desk): State<Arc<Desk>>,
    path: EndpointPath,
    body: Body,
) -> Result<Response, Refusal> {
    no_arguments(body).await?;
    change(&desk, path, ClusterState::drain)
}

/// Gives it requests again.
pub(super) async fn undrain(
    State(desk): State<Arc<Desk>>,
    path: EndpointPath,
    body: Body,
) -> Result<Response, Refusal> {
    no_arguments(body).await?;
    change(&desk, path, ClusterState::undrain)
}

fn change(
    desk: &Desk,
    path: EndpointPath,
    act: fn(&ClusterState, SocketAddr) -> Option<EndpointReport>,
) -> Result<Response, Refusal> {
    let Path((name, address)) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let snapshot = desk.control.snapshot();
    let cluster = cluster_of(&snapshot, &name)?;
    let state = &cluster.state;
    let known = address.parse::<SocketAddr>().ok();
    let known = known.filter(|address| act(state, *address).is_some());
    let set = state.endpoints();
    match known.and_then(|address| set.at(address)) {
        Some(endpoint) => Ok(json_answer(StatusCode::OK, &endpoint_json(endpoint))),
        None => {
            let endpoints = set.endpoints.iter().take(NAMES);
            let names: Vec<&str> = endpoints.map(|endpoint| &*endpoint.label).collect();
            let message = format!("cluster `{name}` has no endpoint `{address}`");
            Err(Refusal::not_found(message).with("endpoints", json!(names)))
        }
    }
}
