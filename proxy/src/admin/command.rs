//! What changes a running proxy: reload and drain.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use forebay_config::units::{DURATION_FORM, duration};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::answer::{Refusal, json_answer};
use super::{Desk, health};
use crate::control::ReloadError;
use crate::load::LoadError;

/// Largest body of a command, in bytes.
const BODY_MAX: usize = 64 << 10;
/// How long the body of a command may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A command without arguments.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// Reads the configuration again; answers when every worker serves by it, or why nothing changed.
pub(super) async fn reload(State(desk): State<Arc<Desk>>, body: Body) -> Result<Response, Refusal> {
    no_arguments(body).await?;
    let Ok(place) = Arc::clone(&desk.reloads).try_acquire_owned() else {
        return Err(Refusal::overloaded("too many reloads wait for their turn"));
    };
    // On its own task: a caller who hangs up must not stop a reload half way.
    let control = Arc::clone(&desk.control);
    let reloading = tokio::spawn(async move {
        let _place = place;
        control.reload().await
    });
    match reloading.await {
        Ok(Ok(status)) => Ok(json_answer(StatusCode::OK, &json!(status))),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => {
            tracing::error!(%error, "a reload failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Refusal::new(
                status,
                "internal",
                "the reload failed; the log says more",
            ))
        }
    }
}

fn refused(error: &ReloadError) -> Refusal {
    let invalid = StatusCode::UNPROCESSABLE_ENTITY;
    let (status, code) = match error {
        ReloadError::Load(LoadError::Invalid { .. }) => (invalid, "invalid_config"),
        ReloadError::Load(LoadError::Read(_)) => (invalid, "unreadable"),
        ReloadError::Build(_) => (invalid, "unusable_file"),
        ReloadError::Bind { .. } => (invalid, "bind_failed"),
        ReloadError::Log(_) => (invalid, "access_log_failed"),
        ReloadError::Empty => (invalid, "invalid_config"),
        ReloadError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let position = error.position();
    Refusal::new(status, code, error.summary())
        .with("file", position.map(|position| &position.file))
        .with("line", position.map(|position| position.line))
        .with("column", position.map(|position| position.column))
        .with(
            "diagnostics",
            error
                .diagnostics()
                .map(|d| d.0.as_slice())
                .unwrap_or_default(),
        )
}

/// Reads the body of a command that takes no arguments.
pub(super) async fn no_arguments(body: Body) -> Result<(), Refusal> {
    let NoArguments {} = arguments(body).await?;
    Ok(())
}

/// Body of a drain.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainArguments {
    delay: Option<String>,
    timeout: Option<String>,
}

/// `?wait=true`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    #[serde(default)]
    wait: bool,
}

/// Begins to stop the proxy; answers at once, or with `wait` when it has ended.
pub(super) async fn drain(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<DrainQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let wanted: DrainArguments = arguments(body).await?;
    let delay = clock("delay", wanted.delay)?;
    let timeout = clock("timeout", wanted.timeout)?;
    desk.control.drain(delay, timeout);
    if query.wait {
        health::drained(&desk).await?;
    }
    Ok(json_answer(
        StatusCode::ACCEPTED,
        &json!({ "draining": true, "drained": query.wait }),
    ))
}

/// Reads a duration of the body.
pub(super) fn clock(key: &str, text: Option<String>) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    match duration(&text) {
        Some(duration) => Ok(Some(duration)),
        None => Err(Refusal::bad_request(format!(
            "`{key}` is no duration: {DURATION_FORM}"
        ))),
    }
}

/// Reads the body of a command; an empty one stands for no arguments.
pub(super) async fn arguments<T: DeserializeOwned + Default>(body: Body) -> Result<T, Refusal> {
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_MAX)).await;
    let Ok(read) = read else {
        let message = "the body did not arrive in time";
        return Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            message,
        ));
    };
    let Ok(bytes) = read else {
        let message = "the body is larger than 64 KiB, or was cut";
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            message,
        ));
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad_request(format!("the body is not understood: {error}")))
}
