//! The small model server that `forebay demo` puts behind the proxy.
//!
//! It classifies irises with a trained model of a few dozen numbers (`model.rs` says how it was trained and how well it
//! does), so that everything the demo shows, splits, versions, streams and errors, comes from a server that really
//! predicts, without a download. It speaks KServe v1 and the Open Inference Protocol v2. [`config`] and [`banner`] are
//! the configuration and the text of the demo.

mod model;
mod rows;
mod tour;
mod v1;
mod v2;

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use model::Version;
pub use tour::{banner, config};

/// Names the version that answered, on every response.
const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");

/// Largest request body, in bytes.
const BODY_MAX: usize = 1 << 20;

/// Serves one version of the model on `listener` until `shutdown` completes and what is in flight has been answered.
///
/// * `load`: how long it claims to load, from now on; until then every answer is 503, as of servers with larger models
///
/// # Errors
///
/// Fails when the listener can no longer be used.
pub async fn serve(
    listener: TcpListener,
    version: Version,
    load: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true); // a hint: without it answers are only later
    });
    let loaded = Instant::now() + load;
    let router = router(version).layer(from_fn(move |request: Request, next: Next| async move {
        if Instant::now() < loaded {
            let message = format!("version {} is loading", version.as_str());
            return Failure(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
        }
        next.run(request).await
    }));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

/// The server's routes; every answer names `version` in `x-model-version`, every error is `{"error": "…"}`.
pub fn router(version: Version) -> Router {
    Router::new()
        .route("/v1/models", get(v1::list))
        .route("/v1/models/iris", get(v1::status))
        .route("/v1/models/iris:predict", post(v1::predict))
        .route("/v1/models/iris:stream", get(v1::stream))
        .route("/v2", get(v2::server))
        .route("/v2/health/live", get(v2::live))
        .route("/v2/health/ready", get(v2::ready))
        .route("/v2/models/iris", get(v2::metadata))
        .route("/v2/models/iris/ready", get(v2::model_ready))
        .route("/v2/models/iris/infer", post(v2::infer))
        .fallback(nothing_here)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(map_response(move |response| {
            name_version(version, response)
        }))
        .with_state(version)
}

async fn name_version(version: Version, mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(MODEL_VERSION, HeaderValue::from_static(version.as_str()));
    response
}

async fn nothing_here(uri: Uri) -> Failure {
    Failure(
        StatusCode::NOT_FOUND,
        format!("nothing at {}; the one model here is iris", uri.path()),
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
    )
}

/// A JSON answer, ended by a line feed for the eyes of who calls it from a shell.
struct Answer(Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], format!("{}\n", self.0)).into_response()
    }
}

/// An answer that is not a prediction: its status and a sentence for the caller.
struct Failure(StatusCode, String);

impl Failure {
    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Answer(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

/// Reads a JSON body; whatever its content type, as the model servers this stands in for do.
fn json<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Failure(status, format!("the body is larger than {BODY_MAX} bytes"))
        }
        status => Failure(status, rejection.body_text()),
    })?;
    serde_json::from_slice(&body).map_err(|error| Failure::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;

    /// Sends one request to a router of its own and reads the whole answer.
    pub(super) async fn ask(version: Version, request: Request<Body>) -> (Response<()>, Bytes) {
        let answer = router(version).oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        (
            Response::from_parts(head, ()),
            body.collect().await.unwrap().to_bytes(),
        )
    }

    pub(super) async fn get(path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (head, body) = ask(Version::V1, request).await;
        (head.status(), serde_json::from_slice(&body).unwrap())
    }

    pub(super) async fn post(version: Version, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::post(path)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (head, body) = ask(version, request).await;
        (head.status(), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_answer_names_its_version() {
        for path in ["/v1/models", "/v2/models/iris", "/nowhere"] {
            for version in [Version::V1, Version::V2] {
                let (head, _) = ask(version, Request::get(path).body(Body::empty()).unwrap()).await;
                assert_eq!(head.headers()[MODEL_VERSION], version.as_str(), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_path_is_a_404_in_json() {
        for path in ["/", "/v1/models/rose", "/v2/models/rose/infer"] {
            let error = format!("nothing at {path}; the one model here is iris");
            assert_eq!(
                get(path).await,
                (StatusCode::NOT_FOUND, json!({ "error": error }))
            );
        }
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_405_that_allows_the_right_one() {
        for (method, path, allowed) in [
            ("GET", "/v1/models/iris:predict", "POST"),
            ("POST", "/v2/models/iris", "GET,HEAD"),
            ("DELETE", "/v2/models/iris/infer", "POST"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())
                .unwrap();
            let (head, body) = ask(Version::V1, request).await;
            assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(head.headers()[header::ALLOW], allowed);
            let said: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                said,
                json!({ "error": format!("{path} does not take {method}") })
            );
        }
    }

    #[tokio::test]
    async fn a_large_body_is_a_413() {
        let body = " ".repeat(BODY_MAX + 1);
        for path in ["/v1/models/iris:predict", "/v2/models/iris/infer"] {
            let (status, said) = post(Version::V1, path, &body).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(
                said,
                json!({ "error": "the body is larger than 1048576 bytes" })
            );
        }
    }

    async fn is_ready(address: std::net::SocketAddr) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_is_not_ready_while_it_loads() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let load = Duration::from_millis(200);
        tokio::spawn(serve(listener, Version::V1, load, std::future::pending()));
        let answer = is_ready(address).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("version v1 is loading"), "{answer}");
        while !is_ready(address).await.starts_with("HTTP/1.1 200 ") {}
    }

    #[tokio::test]
    async fn it_serves_a_socket_until_it_is_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let server = tokio::spawn(serve(listener, Version::V2, Duration::ZERO, shutdown));

        let answer = is_ready(address).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-model-version: v2\r\n"), "{answer}");

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
