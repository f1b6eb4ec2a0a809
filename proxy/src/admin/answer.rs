//! What the admin API says: JSON, errors in one shape, and large answers that cannot pile up in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for its turn to be rendered.
const TURN: Duration = Duration::from_secs(5);
/// Names that an answer about an unknown one lists at most.
pub(super) const NAMES: usize = 100;
/// Bytes handed to the connection at once.
const CHUNK: usize = 64 << 10;

/// Why a request of the admin API is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    more: Map<String, Value>,
    challenge: Option<&'static str>,
}

impl Refusal {
    /// * `code`: lower case with underscores; programs compare it
    /// * `message`: for people
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            more: Map::new(),
            challenge: None,
        }
    }

    /// Adds a field to the error object.
    pub(super) fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.more.insert(key.to_owned(), json!(value));
        self
    }

    /// Says how to authenticate.
    pub(super) fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn overloaded(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            400..=499 => "invalid_request_error",
            503 => "unavailable_error",
            _ => "server_error",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "message": self.message, "type": self.kind(), "code": self.code });
        if let Value::Object(fields) = &mut error {
            fields.extend(self.more.clone());
        }
        let mut response = json_answer(self.status, &json!({ "error": error }));
        if let Some(challenge) = self.challenge {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// A small JSON answer.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

/// A short line of text.
pub(super) fn line(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The turns of answers whose size depends on the configuration: only so many exist at once, however slowly they are
/// read.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Renders an answer off the runtime; its turn ends when nearly all of it is written.
    pub(super) async fn render(
        &self,
        content_type: &'static str,
        work: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> Result<Response, Refusal> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.0).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refusal::overloaded(
                "too many large answers are being read; try again",
            ));
        };
        let rest = match tokio::task::spawn_blocking(work).await {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%error, "an answer of the admin API could not be made");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Err(Refusal::new(
                    status,
                    "internal",
                    "the answer could not be made",
                ));
            }
        };
        let body = Body::new(Portions { rest, _turn: turn });
        Ok(([(CONTENT_TYPE, content_type)], body).into_response())
    }

    /// Renders JSON.
    pub(super) async fn json(
        &self,
        work: impl FnOnce() -> Value + Send + 'static,
    ) -> Result<Response, Refusal> {
        let text = move || {
            let mut text = work().to_string().into_bytes();
            text.push(b'\n');
            text
        };
        self.render("application/json", text).await
    }
}

/// A body handed over piece by piece, so that the connection asks for more only when the reader takes it.
struct Portions {
    rest: Bytes,
    _turn: OwnedSemaphorePermit,
}

impl http_body::Body for Portions {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.rest.len().min(CHUNK);
        if length == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
