//! How an answer ends that began early and did not become one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::error::{self, Cut, Reason};
use crate::flow::Flow;
use crate::upstream::Lease;

/// Bytes of an endpoint's error that are read for what it says.
const MOST_READ: usize = 64 << 10;
/// Characters of an endpoint's words that are passed on.
const MOST_SAID: usize = 1000;

/// True when an endpoint's answer can follow an early head: `200`, events, and no content coding that the head could
/// not name.
pub fn are_events<B>(response: &Response<B>) -> bool {
    let plain = |headers: &HeaderMap| {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    };
    let headers = response.headers();
    response.status() == StatusCode::OK
        && media_type(headers).eq_ignore_ascii_case("text/event-stream")
        && plain(headers)
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

/// One event in the shape of OpenAI's errors, then a cut. `code` is our reason, or the endpoint's status, whose own
/// message is passed on when it is JSON. An answer `200` that is no stream of events is an error as well
/// (`upstream_protocol`): a client that reads events has no use for it.
pub struct Parting {
    reason: Reason,
    stage: Stage,
}

enum Stage {
    /// An endpoint says what is wrong.
    Reads(Box<Words>),
    Says(Bytes),
    /// The event is on its way.
    Said,
    Cut,
}

struct Words {
    status: StatusCode,
    incoming: Incoming,
    lease: Option<Lease>,
    read: Vec<u8>,
}

impl Parting {
    /// We refuse.
    pub fn refusal(reason: Reason) -> Self {
        let error = json!({"message": reason.message(), "type": reason.kind(), "param": null, "code": reason.label()});
        Self {
            reason,
            stage: Stage::Says(event(&error)),
        }
    }

    /// An endpoint answers with something else than events.
    pub fn upstream(response: Response<Incoming>, lease: Lease) -> Self {
        let reason = Reason::UpstreamProtocol;
        let status = response.status();
        if status == StatusCode::OK {
            return Self {
                reason,
                stage: Stage::Says(event(&no_events(&response))),
            };
        }
        let media_type = media_type(response.headers());
        let is_json =
            media_type.eq_ignore_ascii_case("application/json") || media_type.ends_with("+json");
        let tells = is_json && !response.headers().contains_key(CONTENT_ENCODING);
        let stage = match tells {
            true => Stage::Reads(Box::new(Words {
                status,
                incoming: response.into_body(),
                lease: Some(lease),
                read: Vec::new(),
            })),
            false => Stage::Says(event(&said(status, &[]))),
        };
        Self { reason, stage }
    }

    /// What comes next for the client.
    pub(crate) fn poll_frame(
        &mut self,
        flow: &Flow,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        flow.asked();
        if let Stage::Reads(words) = &mut self.stage {
            let event = std::task::ready!(words.poll(flow, cx));
            self.reason = flow.failure().unwrap_or(self.reason);
            self.stage = Stage::Says(event);
        }
        match std::mem::replace(&mut self.stage, Stage::Cut) {
            Stage::Says(event) => {
                self.stage = Stage::Said;
                flow.part();
                flow.said(event.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            Stage::Said => {
                cx.waker().wake_by_ref(); // hyper first sends what it already has
                Poll::Pending
            }
            Stage::Cut | Stage::Reads(_) => {
                flow.fail(self.reason);
                Poll::Ready(Some(Err(Cut(self.reason))))
            }
        }
    }
}

impl Words {
    /// Reads on; resolves to the event once nothing more is wanted.
    fn poll(&mut self, flow: &Flow, cx: &mut Context<'_>) -> Poll<Bytes> {
        while flow.failure().is_none() && self.read.len() < MOST_READ {
            let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
            let Some(Ok(frame)) = frame else {
                break;
            };
            flow.touch();
            if let Some(data) = frame.data_ref() {
                let room = MOST_READ - self.read.len();
                self.read.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        if let Some(lease) = self.lease.take()
            && self.incoming.is_end_stream()
            && flow.sent().is_some()
        {
            lease.release(flow.last());
        }
        Poll::Ready(event(&said(self.status, &self.read)))
    }
}

fn event(error: &Value) -> Bytes {
    Bytes::from(format!("data: {}\n\n", json!({ "error": error })))
}

fn no_events<B>(response: &Response<B>) -> Value {
    let reason = Reason::UpstreamProtocol;
    let what = match response.headers().get(CONTENT_ENCODING) {
        Some(_) => "events in a content coding".to_owned(),
        None => format!("`{}`", clipped(media_type(response.headers()))),
    };
    let message = format!("the upstream answered with {what} where events were to follow");
    json!({"message": message, "type": reason.kind(), "param": null, "code": reason.label()})
}

/// What an endpoint says in an answer that is no success, as far as it is JSON in one of the usual shapes.
fn said(status: StatusCode, body: &[u8]) -> Value {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &document["error"];
    let text = |value: &Value| Some(clipped(value.as_str()?)).filter(|text| !text.is_empty());
    let message = text(&error["message"])
        .or_else(|| text(error))
        .or_else(|| text(&document["message"]))
        .or_else(|| text(&document["detail"]))
        .unwrap_or_else(|| format!("the upstream answered {status}"));
    let kind = text(&error["type"]).unwrap_or_else(|| error::kind_of(status.as_u16()).to_owned());
    let param = text(&error["param"]);
    json!({"message": message, "type": kind, "param": param, "code": status.as_str()})
}

fn clipped(text: &str) -> String {
    text.chars().take(MOST_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&str, &str)]) -> Response<()> {
        let mut builder = Response::builder().status(status);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn only_events_follow_an_early_head() {
        let events = ("content-type", "Text/Event-Stream; charset=utf-8");
        assert!(are_events(&answer(200, &[events])));
        assert!(are_events(&answer(
            200,
            &[events, ("content-encoding", "identity")]
        )));
        assert!(!are_events(&answer(
            200,
            &[events, ("content-encoding", "gzip")]
        )));
        assert!(!are_events(&answer(
            200,
            &[("content-type", "application/json")]
        )));
        assert!(!are_events(&answer(200, &[])));
        assert!(!are_events(&answer(500, &[events])));
    }

    #[test]
    fn what_an_endpoint_says_is_passed_on_whatever_its_shape() {
        for (body, message) in [
            (r#"{"error":{"message":"no","type":"t","code":1}}"#, "no"),
            (r#"{"error":"no"}"#, "no"),
            (r#"{"message":"no"}"#, "no"),
            (r#"{"detail":"no"}"#, "no"),
            (
                r#"{"detail":[1]}"#,
                "the upstream answered 500 Internal Server Error",
            ),
            (
                r#"{"error":{"message":""}}"#,
                "the upstream answered 500 Internal Server Error",
            ),
            (
                r#"{"error":{"mess"#,
                "the upstream answered 500 Internal Server Error",
            ),
            ("", "the upstream answered 500 Internal Server Error"),
        ] {
            let error = said(StatusCode::INTERNAL_SERVER_ERROR, body.as_bytes());
            assert_eq!(error["message"], message, "{body}");
            assert_eq!(error["code"], "500");
            assert!(error["type"].is_string() && error["param"].is_null());
        }
        let long = json!({"error": "ä".repeat(2 * MOST_SAID)}).to_string();
        let error = said(StatusCode::BAD_REQUEST, long.as_bytes());
        assert_eq!(
            error["message"].as_str().unwrap().chars().count(),
            MOST_SAID
        );
        assert_eq!(error["type"], "invalid_request_error");
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let error = said(StatusCode::BAD_REQUEST, br#"{"error":"two\nlines\r"}"#);
        let event = event(&error);
        let text = std::str::from_utf8(&event).unwrap();
        assert!(text.starts_with("data: {\"error\":") && text.ends_with("}}\n\n"));
        assert!(!text.trim_end().contains(['\n', '\r']), "{text:?}");
    }
}
