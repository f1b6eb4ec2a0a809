//! `kind: grpc`: `grpc.health.v1.Health/Check`.
//!
//! Source: github.com/grpc/grpc, doc/health-checking.md and src/proto/grpc/health/v1/health.proto.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::dial::{Driver, Target};
use super::http::{text, uri};
use super::{MAX_BODY, USER_AGENT};

const PATH: &str = "/grpc.health.v1.Health/Check";

/// Asks for the service's health.
///
/// # Errors
///
/// It does not serve, is not known, or cannot tell.
pub(super) async fn check(target: &Target, service: &str) -> Result<(), String> {
    let (mut sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(target.open().await?)
        .await
        .map_err(|e| text(&e))?;
    let _driver = Driver::spawn(connection);
    let request = Request::post(uri(target, PATH)?)
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(question(service)))
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    status(answer.headers())?; // trailers-only
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| format!("the answer was cut: {}", text(&*e)))?;
    match body.trailers() {
        Some(trailers) if trailers.contains_key("grpc-status") => status(trailers)?,
        _ => return Err("an answer without grpc-status".to_owned()),
    }
    match serving(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("serving status {other}")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

fn status(headers: &HeaderMap) -> Result<(), String> {
    match headers.get("grpc-status").map(|value| value.as_bytes()) {
        None | Some(b"0") => Ok(()),
        Some(b"12") => Err("the endpoint has no grpc.health.v1.Health (UNIMPLEMENTED)".to_owned()),
        Some(b"5") => Err("the service is not known there (NOT_FOUND)".to_owned()),
        Some(other) => Err(format!("grpc-status {}", String::from_utf8_lossy(other))),
    }
}

/// `HealthCheckRequest{service = 1}` as one uncompressed gRPC message.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

/// `HealthCheckResponse{status = 1}`; `None`: it is something else.
fn serving(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let [flag, length @ ..] = *head;
    if flag != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let mut rest = message;
    let mut found = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => found = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn an_answer_is_read_past_what_is_not_known() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        let unknown = [0, 0, 0, 0, 7, 0x12, 1, 9, 0x18, 5, 8, 2];
        assert_eq!(serving(&unknown), Some(2));
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 3, 8, 1]] {
            assert_eq!(serving(bad), None);
        }
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x12, 9]), None);
        assert_eq!(serving(&[0, 0, 0, 0, 1, 0x80]), None);
    }
}
