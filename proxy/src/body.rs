//! Answers' bodies on their way through: counted, cut honestly, never buffered.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::{Cut, Reason};
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::patience::{Beats, Parting};
use crate::replace;
use crate::upstream::Lease;

/// Fields that frame, route or authenticate a message and so have no place in trailers (RFC 9110 §6.5.1).
fn is_forbidden_trailer(name: &str) -> bool {
    matches!(
        name,
        "transfer-encoding"
            | "content-length"
            | "host"
            | "authorization"
            | "proxy-authorization"
            | "cookie"
            | "set-cookie"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "cache-control"
            | "expect"
            | "max-forwards"
            | "range"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-forebay-")
}

/// Removes fields that have no place in trailers.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let bad: Vec<_> = trailers
        .keys()
        .filter(|name| is_forbidden_trailer(name.as_str()))
        .cloned()
        .collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// A response's body on its way to a client.
pub struct Body {
    kind: Kind,
    /// Ends with the last byte; dropped before, the exchange was aborted.
    exchange: Option<Exchange>,
}

enum Kind {
    Own(Option<Bytes>),
    Upstream(UpstreamBody),
    /// Begun before there was an answer, which has an exchange of its own.
    Beats(Box<Beats>),
    /// Of an answer that began early and ends without one.
    Parting(Box<Parting>),
}

/// Bytes handed to an HTTP/2 client's stream at once.
const SMALL: usize = 16 << 10;

fn is_large(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(|data| data.len() > SMALL)
}

struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    http2: bool,
    failed: Option<Reason>,
    /// Hand over at most [`SMALL`] bytes at once.
    small: bool,
    /// What is left of a block that was larger.
    rest: Bytes,
    /// Edits of the body.
    edit: Option<Box<Edit>>,
}

/// How an endpoint's answer goes to a client.
#[derive(Default)]
pub struct Manner {
    /// To HEAD, or with a status that has no body, whatever the endpoint sends.
    pub bodiless: bool,
    /// To an HTTP/2 client, whose stream would hold a whole block beyond its window.
    pub small: bool,
    /// Edits of the body.
    pub edit: Option<Box<replace::Stream>>,
}

/// Edits of a body under way.
struct Edit {
    stream: Box<replace::Stream>,
    /// The endpoint's part is over; its trailers, if it had any.
    ended: Option<Option<Frame<Bytes>>>,
    /// Nothing more is kept back.
    finished: bool,
}

impl Edit {
    /// The next part of the edited body that is ready.
    fn step(&mut self) -> Result<Option<Bytes>, Cut> {
        if self.finished {
            return Ok(None);
        }
        let broken = |_| Cut(Reason::UpstreamProtocol);
        let part = match (&self.ended, self.stream.pending()) {
            (Some(_), _) => {
                let part = self.stream.finish().map_err(broken)?;
                self.finished = !self.stream.pending();
                part
            }
            (None, true) => self.stream.feed(Bytes::new()).map_err(broken)?,
            (None, false) => return Ok(None),
        };
        Ok(Some(part))
    }
}

impl Body {
    /// An answer of our own.
    pub fn own(bytes: Bytes, exchange: Exchange) -> Self {
        if bytes.is_empty() {
            exchange.finish();
            return Self {
                kind: Kind::Own(None),
                exchange: None,
            };
        }
        Self {
            kind: Kind::Own(Some(bytes)),
            exchange: Some(exchange),
        }
    }

    /// An endpoint's answer; `lease` is the connection it comes from.
    pub fn upstream(incoming: Incoming, lease: Lease, exchange: Exchange, manner: Manner) -> Self {
        if manner.bodiless || http_body::Body::is_end_stream(&incoming) {
            if exchange.flow().sent().is_some() {
                lease.release(exchange.flow().last());
            }
            exchange.finish();
            return Self {
                kind: Kind::Own(None),
                exchange: None,
            };
        }
        let http2 = lease.is_http2();
        Self {
            kind: Kind::Upstream(UpstreamBody {
                incoming,
                lease: Some(lease),
                http2,
                failed: None,
                small: manner.small,
                rest: Bytes::new(),
                edit: manner.edit.map(|stream| {
                    Box::new(Edit {
                        stream,
                        ended: None,
                        finished: false,
                    })
                }),
            }),
            exchange: Some(exchange),
        }
    }

    /// An answer that begins before there is one.
    pub fn beats(beats: Beats) -> Self {
        Self {
            kind: Kind::Beats(Box::new(beats)),
            exchange: None,
        }
    }

    /// The end of an answer that began early and did not become one.
    pub fn parting(parting: Parting, exchange: Exchange) -> Self {
        Self {
            kind: Kind::Parting(Box::new(parting)),
            exchange: Some(exchange),
        }
    }

    /// No body at all: the answer to a tunnel's request, counted by the tunnel.
    pub fn none() -> Self {
        Self {
            kind: Kind::Own(None),
            exchange: None,
        }
    }
}

impl UpstreamBody {
    /// What comes next for the client.
    fn poll_frame(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.edit.is_none() {
            return self.poll_seen(exchange, cx);
        }
        exchange.flow().asked(); // a client that takes one part after another of a block is no slow one
        loop {
            let Some(edit) = &mut self.edit else {
                return Poll::Ready(None);
            };
            match edit.step() {
                Err(cut) => {
                    exchange.flow().fail(cut.0);
                    return Poll::Ready(Some(Err(cut)));
                }
                Ok(Some(part)) if !part.is_empty() => {
                    exchange.flow().offered(part.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            if let Some(trailers) = &mut edit.ended {
                return Poll::Ready(trailers.take().map(Ok));
            }
            let frame = match self.poll_seen(exchange, cx) {
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
                other => return other,
            };
            let over = self.lease.is_none();
            let Some(edit) = &mut self.edit else { continue };
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    let Ok(part) = edit.stream.feed(data) else {
                        exchange.flow().fail(Reason::UpstreamProtocol);
                        return Poll::Ready(Some(Err(Cut(Reason::UpstreamProtocol))));
                    };
                    if over {
                        edit.ended = Some(None);
                    }
                    if !part.is_empty() {
                        exchange.flow().offered(part.len() as u64);
                        return Poll::Ready(Some(Ok(Frame::data(part))));
                    }
                }
                Some(Err(mut trailers)) => {
                    if let Some(trailers) = trailers.trailers_mut() {
                        replace::edit_response_headers(trailers); // digests of what the client does not get
                    }
                    edit.ended = Some(Some(trailers));
                }
                None => edit.ended = Some(None),
            }
        }
    }

    /// What comes next from the endpoint; those who compare or write it down are told.
    fn poll_seen(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = self.poll_upstream(exchange.flow(), cx);
        if let (Some(watch), Poll::Ready(Some(Ok(frame)))) = (&exchange.watch, &polled) {
            if let Some(data) = frame.data_ref() {
                watch.data(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                watch.trailers(trailers);
            }
        }
        polled
    }

    fn poll_upstream(
        &mut self,
        flow: &Flow,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        flow.asked();
        if let Some(reason) = flow.failure() {
            return Poll::Ready(Some(Err(Cut(reason))));
        }
        if let Some(reason) = self.failed {
            flow.fail(reason);
            return Poll::Ready(Some(Err(Cut(reason))));
        }
        if !self.rest.is_empty() {
            let part = self.rest.split_to(self.rest.len().min(SMALL));
            return Poll::Ready(Some(Ok(self.hand_over(part, flow))));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let ended = http_body::Body::is_end_stream(&self.incoming);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) if self.small && is_large(&frame) => {
                let Ok(mut block) = frame.into_data() else {
                    return Poll::Ready(None);
                };
                let part = block.split_to(SMALL);
                self.rest = block;
                Poll::Ready(Some(Ok(self.hand_over(part, flow))))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                let last = if let Some(data) = frame.data_ref() {
                    self.pass(data.len(), flow);
                    ended
                } else {
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                    flow.touch();
                    true
                };
                if last {
                    self.finish(flow);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) if ended || !self.http2 => {
                flow.touch();
                self.finish(flow);
                Poll::Ready(None)
            }
            // An error, or RST_STREAM(NO_ERROR) that hyper shows as a clean end. Said one poll later:
            // hyper first sends what it already has.
            Poll::Ready(ended) => {
                if let (Some(Err(error)), Some(lease)) = (&ended, &self.lease) {
                    lease.broke(error);
                }
                self.failed = Some(Reason::UpstreamReset);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// The next part of a block; the last one may end the answer.
    fn hand_over(&mut self, part: Bytes, flow: &Flow) -> Frame<Bytes> {
        self.pass(part.len(), flow);
        if self.rest.is_empty() && http_body::Body::is_end_stream(&self.incoming) {
            self.finish(flow);
        }
        Frame::data(part)
    }

    /// Bytes came; the client gets them as they are or, edited, some of them later.
    fn pass(&self, bytes: usize, flow: &Flow) {
        if self.edit.is_none() {
            flow.offered(bytes as u64);
        } else {
            flow.touch();
        }
    }

    fn finish(&mut self, flow: &Flow) {
        // An answer before the end of its request leaves a connection that nobody can use.
        if let Some(lease) = self.lease.take()
            && flow.sent().is_some()
        {
            lease.release(flow.last());
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.edit.is_some() {
            return SizeHint::new();
        }
        let mut hint = http_body::Body::size_hint(&self.incoming);
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }

    fn is_finished(&self) -> bool {
        let edited = self.edit.as_ref();
        self.lease.is_none()
            && edited.is_none_or(|edit| edit.finished && matches!(edit.ended, Some(None)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        let (polled, finished) = match &mut this.kind {
            Kind::Own(bytes) => {
                let bytes = bytes.take();
                if let (Some(bytes), Some(exchange)) = (&bytes, &this.exchange) {
                    exchange.flow().offered(bytes.len() as u64);
                }
                (Poll::Ready(bytes.map(|b| Ok(Frame::data(b)))), true)
            }
            Kind::Upstream(upstream) => {
                let Some(exchange) = &this.exchange else {
                    return Poll::Ready(None);
                };
                let polled = upstream.poll_frame(exchange, cx);
                (polled, upstream.is_finished())
            }
            Kind::Beats(beats) => return beats.poll_frame(cx),
            Kind::Parting(parting) => {
                let Some(exchange) = &this.exchange else {
                    return Poll::Ready(None);
                };
                return parting.poll_frame(exchange.flow(), cx); // cut, never finished
            }
        };
        if finished && let Some(exchange) = this.exchange.take() {
            exchange.finish();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Upstream(upstream) => upstream.is_finished(),
            Kind::Beats(beats) => beats.is_end_stream(),
            Kind::Parting(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(upstream) => upstream.size_hint(),
            Kind::Beats(beats) => beats.size_hint(),
            Kind::Parting(_) => SizeHint::new(),
        }
    }
}
