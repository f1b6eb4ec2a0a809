//! Our own answers, in the shape that the caller's protocol expects.

use bytes::Bytes;
use forebay_config::rewrite::{RequestOrigin, location};
use forebay_config::{Action, Route, ServerKind};
use http::header::{
    ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::canonical::Target;
use crate::connection::Connection;
use crate::error::Reason;
use crate::headers::{Survey, X_FOREBAY_REASON};
use crate::outgoing::is_grpc;
use crate::server_kind::{self, Errors};
use crate::snapshot::ClusterView;

/// Why a request is refused, and what goes with it.
#[derive(Debug)]
pub struct Refusal {
    /// The reason and with it the status.
    pub reason: Reason,
    /// Fields of the answer; they win over those that the reason brings.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// A body of its own, whatever the caller's protocol; its type is among the fields.
    pub page: Option<Bytes>,
    /// What the caller is told in place of the reason's own words, in the shape that its protocol expects.
    pub message: Option<String>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            fields: Vec::new(),
            page: None,
            message: None,
        }
    }
}

impl Refusal {
    /// A refusal with words of its own.
    pub fn saying(reason: Reason, message: String) -> Self {
        Self {
            message: Some(message),
            ..Self::from(reason)
        }
    }

    /// 405 with the methods that would do.
    pub fn method_not_allowed(allow: &[Method]) -> Self {
        let list = allow
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let allow = HeaderValue::from_str(&list).ok();
        Self {
            reason: Reason::MethodNotAllowed,
            fields: allow.map(|list| (ALLOW, list)).into_iter().collect(),
            page: None,
            message: None,
        }
    }
}

/// How errors look to this caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"error":"…"}`: Open Inference Protocol and TensorFlow Serving.
    Inference,
    /// Trailers-only `grpc-status`.
    Grpc,
    /// For browsers.
    Html,
}

/// What must be remembered of a request to refuse it politely.
#[derive(Clone, Copy, Debug)]
pub struct Manners(Shape);

impl Manners {
    /// Reads the caller's protocol from its request.
    pub fn of<B>(request: &Request<B>, survey: &Survey) -> Self {
        let headers = request.headers();
        let path = request.uri().path();
        let wants_html = || {
            let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
            accept.is_some_and(|accept| accept.contains("text/html"))
        };
        Self(if survey.content_type && is_grpc(headers) {
            Shape::Grpc
        } else if is_inference(path) {
            Shape::Inference
        } else if wants_html() {
            Shape::Html
        } else {
            Shape::OpenAi
        })
    }
}

impl Manners {
    /// What is known once the request has a cluster: some servers' clients expect their own shape on every path.
    #[must_use]
    pub fn for_server(self, kind: Option<ServerKind>) -> Self {
        let in_words = kind.is_some_and(|kind| server_kind::of(kind).errors == Errors::Text);
        match self.0 {
            Shape::OpenAi if in_words => Self(Shape::Inference),
            _ => self,
        }
    }
}

/// Open Inference Protocol v2, and TensorFlow Serving's or KServe v1's `/v1/models/NAME…:verb`.
fn is_inference(path: &str) -> bool {
    path == "/v2"
        || path.starts_with("/v2/")
        || path
            .strip_prefix("/v1/models/")
            .is_some_and(|rest| rest.contains(':'))
}

/// The answer to a refused request.
pub fn refusal(refusal: &Refusal, manners: &Manners) -> Response<Bytes> {
    let reason = refusal.reason;
    let mut response = Response::new(Bytes::new());
    let content_type = match manners.0 {
        Shape::Grpc => "application/grpc",
        Shape::Html => "text/html; charset=utf-8",
        Shape::OpenAi | Shape::Inference => "application/json",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(&X_FOREBAY_REASON, HeaderValue::from_static(reason.label()));
    if let Some(after) = reason.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().clamp(1, 60)));
    }
    for (name, value) in &refusal.fields {
        headers.insert(name, value.clone());
    }
    if manners.0 == Shape::Grpc {
        headers.insert(
            "grpc-status",
            HeaderValue::from(u16::from(reason.grpc_status())),
        );
        let message = match &refusal.message {
            None => HeaderValue::from_static(reason.message()),
            Some(message) => grpc_message(message),
        };
        headers.insert("grpc-message", message);
        return response;
    }
    *response.status_mut() = reason.status();
    *response.body_mut() = match &refusal.page {
        Some(page) => page.clone(),
        None => {
            let message = refusal.message.as_deref().unwrap_or(reason.message());
            body(reason, message, manners.0)
        }
    };
    response
}

/// Text as gRPC has it in a field: everything but printable ASCII, and the percent sign, is percent-encoded.
fn grpc_message(text: &str) -> HeaderValue {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.push(byte),
        }
    }
    HeaderValue::from_bytes(&out).unwrap_or(HeaderValue::from_static(""))
}

/// Text as HTML.
fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn body(reason: Reason, message: &str, shape: Shape) -> Bytes {
    let text = match shape {
        Shape::Grpc => String::new(),
        Shape::OpenAi => serde_json::json!({
            "error": {"message": message, "type": reason.kind(), "param": null, "code": reason.label()}
        })
        .to_string(),
        Shape::Inference => serde_json::json!({ "error": format!("{}: {message}", reason.label()) }).to_string(),
        Shape::Html => format!(
            "<!doctype html><meta charset=utf-8><title>{status}</title><h1>{status}</h1><p>{message} ({label})</p>\n",
            status = reason.status(),
            label = reason.label(),
            message = html(message),
        ),
    };
    Bytes::from(text)
}

/// True when a request for a cluster with `scale` asks only whether its servers are there: it is no demand.
///
/// * `path`: canonical
pub fn is_probe(cluster: &ClusterView, path: &str, request: &Request<()>) -> bool {
    if cluster.config.scale.is_none() || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    let agent = request.headers().get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    server_kind::is_probe(cluster.config.server, path, agent)
}

/// The answer to a probe of a cluster at zero: nothing is there, and that is as it should be. `None`: something is, or
/// should be.
pub fn for_a_sleeper(cluster: &ClusterView) -> Option<Response<Bytes>> {
    let scale = cluster.config.scale.as_ref()?;
    let state = &cluster.state;
    let sleeps = state.endpoints().endpoints.is_empty() && !state.outlook().start_failed;
    if scale.min > 0 || !sleeps {
        return None;
    }
    let mut response = Response::new(Bytes::new());
    let reason = HeaderValue::from_static(Reason::Asleep.label());
    response.headers_mut().insert(&X_FOREBAY_REASON, reason);
    Some(response)
}

/// The answer to `OPTIONS *`.
pub fn options_of_the_server() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The answer of a route that forwards nothing.
///
/// # Errors
///
/// When a redirect's location cannot be a header value.
pub fn by_route(
    route: &Route,
    connection: &Connection,
    target: &Target<'_>,
) -> Result<Response<Bytes>, Reason> {
    match &route.action {
        Action::Forward(_) | Action::ByModel => Err(Reason::Internal),
        Action::Redirect(redirect) => {
            let origin = RequestOrigin {
                scheme: if connection.tls.is_some() {
                    "https"
                } else {
                    "http"
                },
                host: &target.host,
                port: connection.local.port(),
            };
            let place = location(redirect, origin, &target.path, target.query);
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = redirect.status;
            let place = HeaderValue::from_str(&place).map_err(|_| Reason::BadPath)?;
            response.headers_mut().insert(LOCATION, place);
            Ok(response)
        }
        Action::Respond(fixed) => {
            let mut response = Response::new(Bytes::from(fixed.body.clone()));
            *response.status_mut() = fixed.status;
            for (name, value) in &fixed.headers {
                response.headers_mut().append(name, value.clone());
            }
            if fixed.status == StatusCode::NO_CONTENT {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            crate::headers::edit(response.headers_mut(), &route.response_headers);
            Ok(response)
        }
    }
}
