//! Who waits and reads events hears of it: when a heartbeat is due, and what the early head says.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use forebay_config::ServerKind;
use forebay_config::peek::{Peek, Progress};
use forebay_config::pointer::Pointer;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::time::{Instant, Sleep};

use super::pulse::{Early, Pulse};
use crate::exchange::Exchange;
use crate::headers::{self, X_REQUEST_ID};
use crate::sending::Sending;
use crate::upload::{RequestBody, Upload};
use crate::worker::Stage;

/// Bytes of a body that are looked at.
const PEEK: usize = 64 << 10;

/// What is known of whether a client reads events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Yes,
    No,
    /// What came of the body does not say so yet.
    Perhaps,
}

/// A request that waits and may get heartbeats.
pub struct Vigil {
    pulse: Rc<Pulse>,
    period: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    reads: Reads,
}

impl Vigil {
    /// `None`: the request gets no heartbeats, or has got them since it waited before.
    ///
    /// * `since`: when it began to wait
    pub fn keep(
        sending: &Sending<'_>,
        request: &Request<RequestBody>,
        exchange: &Exchange,
        since: Instant,
    ) -> Option<Self> {
        let pulse = exchange.pulse.as_ref()?;
        let queue = sending.member.cluster.config.queue.as_ref()?;
        let period = queue.heartbeat?;
        if sending.upgrade || exchange.flow().is_early() {
            return None;
        }
        let reads = match accepts_events(request.headers()) {
            true => Reads::Yes,
            false if request.method() != Method::POST => return None,
            false if reads_lines(sending.member.cluster.config.server, request) => return None,
            false => Reads::Perhaps,
        };
        Some(Self {
            pulse: Rc::clone(pulse),
            period,
            since,
            timer: None,
            reads,
        })
    }

    /// Begins the answer when a heartbeat is due.
    pub fn poll(
        &mut self,
        sending: &Sending<'_>,
        request: &mut Request<RequestBody>,
        upload: Option<&Upload>,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) {
        if self.reads == Reads::No {
            return;
        }
        let first = self.since + self.period;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
        while timer.as_mut().poll(cx).is_ready() {
            if self.reads == Reads::Perhaps {
                self.reads = upload.map_or(Reads::No, in_body);
            }
            if self.reads == Reads::Yes {
                self.reads = Reads::No; // nothing is left to do here
                self.pulse.begin(Early {
                    head: head(sending, request, exchange),
                    comment: comment(&sending.member.cluster.config.name),
                    period: self.period,
                });
            }
            if self.reads == Reads::No {
                return;
            }
            timer.as_mut().reset(Instant::now() + self.period);
        }
    }
}

/// The early head; from now on the request counts as answered by it.
fn head(
    sending: &Sending<'_>,
    request: &mut Request<RequestBody>,
    exchange: &mut Exchange,
) -> Response<()> {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(id) = request.headers().get(&X_REQUEST_ID) {
        fields.insert(&X_REQUEST_ID, id.clone());
    }
    headers::edit(fields, sending.response_headers);
    headers::edit(fields, &sending.member.response_headers);
    let events = HeaderValue::from_static("text/event-stream");
    fields.insert(CONTENT_TYPE, events); // whatever an operator sets: that is what follows
    sending.dressing.put_on_early(fields);
    if !sending.connection.http2 && sending.connection.stage() >= Stage::Announcing {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(log) = &mut exchange.log {
        log.answer(response.headers());
    }
    // The head that names a coding is gone.
    let plain = HeaderValue::from_static("identity");
    request.headers_mut().insert(ACCEPT_ENCODING, plain);
    exchange.answered(response.status().as_u16());
    exchange.flow().begin_early();
    response
}

fn comment(cluster: &str) -> Bytes {
    let name: String = cluster.chars().filter(|c| !c.is_control()).collect();
    Bytes::from(format!(": waiting for {name}\n\n"))
}

/// True when `Accept` names events, not with a weight of 0.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut ranges = texts.flat_map(|text| text.split(','));
    ranges.any(|range| weighs(range, "text/event-stream"))
}

/// True when `"stream": true` asks for JSON line by line: in Ollama's own API, and when `Accept` says so.
fn reads_lines<B>(server: ServerKind, request: &Request<B>) -> bool {
    let own = matches!(server, ServerKind::Ollama | ServerKind::Generic)
        && ["/api/chat", "/api/generate"].contains(&request.uri().path());
    let values = request.headers().get_all(ACCEPT).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    own || texts.any(|text| {
        let mut ranges = text.split(',');
        ranges.any(|range| weighs(range, "application/x-ndjson"))
    })
}

/// True when a media range of `Accept` is this type and wanted.
pub(super) fn weighs(range: &str, media_type: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let named = parts
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case(media_type));
    let unwanted = |part: &str| {
        let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
        weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0_f32))
    };
    named && !parts.any(unwanted)
}

/// Whether what came of a body says `"stream": true`.
fn in_body(upload: &Upload) -> Reads {
    let Some(place) = Pointer::parse("/stream") else {
        return Reads::No;
    };
    let mut peek = Peek::new(std::slice::from_ref(&place));
    let (mut left, mut progress) = (PEEK, Progress::More);
    upload.look(|data| {
        let data = &data[..data.len().min(left)];
        left -= data.len();
        if progress == Progress::More {
            progress = peek.feed(data);
        }
    });
    let found = peek.finish();
    match found.get(&place) {
        Some("true") => Reads::Yes,
        None if progress == Progress::More && left > 0 => Reads::Perhaps,
        _ => Reads::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_who_names_them() {
        for (accept, reads) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.5", true),
            ("text/event-stream; q=0", false),
            ("text/event-stream;q=0.000, */*", false),
            ("text/event-streams", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(accept);
            let headers = HeaderMap::from_iter([(ACCEPT, value)]);
            assert_eq!(accepts_events(&headers), reads, "{accept}");
        }
        assert!(!accepts_events(&HeaderMap::new()));
    }

    #[test]
    fn who_reads_lines_gets_no_events() {
        let request = |path: &str, accept: &'static str| {
            let request = Request::post(path).header(ACCEPT, accept);
            request.body(()).unwrap()
        };
        let chat = request("/api/chat", "application/json");
        assert!(reads_lines(ServerKind::Ollama, &chat));
        assert!(reads_lines(ServerKind::Generic, &chat));
        assert!(!reads_lines(ServerKind::Vllm, &chat));
        let openai = request("/v1/chat/completions", "application/json");
        assert!(!reads_lines(ServerKind::Ollama, &openai));
        let lines = request("/x", "application/json, Application/X-NDJSON");
        assert!(reads_lines(ServerKind::Vllm, &lines));
    }

    #[test]
    fn a_comment_is_one_line_whatever_the_name() {
        assert_eq!(comment("a\n\ndata: x"), ": waiting for adata: x\n\n");
    }
}
