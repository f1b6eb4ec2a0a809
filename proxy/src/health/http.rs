//! `kind: http`: a GET whose status tells.

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::dial::{Driver, Target};
use super::{MAX_BODY, USER_AGENT};
use crate::server_kind::{Question, Reads};

/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 64 << 10;

/// Asks for `path` and wants one of these statuses.
///
/// # Errors
///
/// There is no whole answer, or another status.
pub(super) async fn check(
    target: &Target,
    path: &str,
    status: &[StatusCode],
) -> Result<(), String> {
    let (answer, _driver) = match target.http2 {
        true => ask_http2(target, path).await?,
        false => ask_http1(target, path).await?,
    };
    let found = answer.status();
    if !status.contains(&found) {
        return Err(format!("status {}", found.as_u16()));
    }
    drain(answer.into_body()).await
}

/// Asks for a model and reads what the answer says of it.
///
/// # Errors
///
/// There is no whole answer, or the model is not ready.
pub(super) async fn ask(target: &Target, question: &Question) -> Result<(), String> {
    let (answer, _driver) = ask_http1(target, &question.path).await?;
    let found = answer.status();
    if found != StatusCode::OK {
        return Err(format!("status {}", found.as_u16()));
    }
    if question.reads == Reads::Status {
        return drain(answer.into_body()).await;
    }
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| format!("the answer is too long or was cut: {error}"))?;
    match question.reads.fault(&body.to_bytes()) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

async fn ask_http1(target: &Target, path: &str) -> Result<(Response<Incoming>, Driver), String> {
    let (mut sender, connection) = conn::http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .handshake(target.open().await?)
        .await
        .map_err(|e| text(&e))?;
    let driver = Driver::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    Ok((answer, driver))
}

async fn ask_http2(target: &Target, path: &str) -> Result<(Response<Incoming>, Driver), String> {
    let (mut sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(target.open().await?)
        .await
        .map_err(|e| text(&e))?;
    let driver = Driver::spawn(connection);
    let uri = uri(target, path)?;
    let request = Request::get(uri)
        .version(Version::HTTP_2)
        .header(header::USER_AGENT, USER_AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    Ok((answer, driver))
}

/// An absolute URI, as HTTP/2 wants it.
pub(super) fn uri(target: &Target, path: &str) -> Result<Uri, String> {
    Uri::builder()
        .scheme(target.scheme())
        .authority(target.authority())
        .path_and_query(path)
        .build()
        .map_err(|e| text(&e))
}

/// Reads the answer to its end, so that the endpoint sees no reset, but no more of it than anybody needs.
async fn drain(mut body: Incoming) -> Result<(), String> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the answer was cut: {}", text(&e)))?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MAX_BODY {
            break;
        }
    }
    Ok(())
}

/// An error and the innermost of its causes, which says most.
pub(super) fn text(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let (outer, inner) = (error.to_string(), last.to_string());
    match outer == inner {
        true => outer,
        false => format!("{outer}: {inner}"),
    }
}
