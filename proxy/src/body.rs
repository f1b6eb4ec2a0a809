//! Bodies on their way through: counted, bounded, cut honestly, never buffered.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::{Cut, Reason};
use crate::exchange::Exchange;
use crate::flow::Flow;
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

fn clean_trailers(trailers: &mut HeaderMap) {
    let bad: Vec<_> = trailers
        .keys()
        .filter(|name| is_forbidden_trailer(name.as_str()))
        .cloned()
        .collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// A request's body on its way to an endpoint.
pub struct RequestBody {
    incoming: Option<Incoming>,
    flow: Rc<Flow>,
    /// Bytes the route still allows.
    left: u64,
    http2: bool,
}

impl RequestBody {
    /// The body as it comes; at most `max` bytes, whatever was declared. `http2`: the client's protocol.
    pub fn new(incoming: Incoming, flow: Rc<Flow>, max: Option<u64>, http2: bool) -> Self {
        let incoming = (!http_body::Body::is_end_stream(&incoming)).then_some(incoming);
        Self {
            incoming,
            flow,
            left: max.unwrap_or(u64::MAX),
            http2,
        }
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// The same body once more; `None` when there is anything to send.
    pub fn again(&self) -> Option<Self> {
        self.is_empty().then(|| Self {
            incoming: None,
            flow: Rc::clone(&self.flow),
            left: self.left,
            http2: self.http2,
        })
    }

    fn end(&mut self) {
        self.incoming = None;
        self.flow.request_sent();
    }

    fn fail(&mut self, reason: Reason) -> Cut {
        self.flow.fail(reason);
        Cut(reason)
    }
}

/// Whether a client's broken body is its mistake or its departure.
fn client_fault(error: &hyper::Error) -> Reason {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                    Reason::BadRequest
                }
                _ => Reason::ClientClosed,
            };
        }
        source = cause.source();
    }
    Reason::ClientClosed
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.incoming.is_some()
            && let Some(reason) = self.flow.body_refused()
        {
            self.incoming = None;
            return Poll::Ready(Some(Err(Cut(reason))));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = http_body::Body::is_end_stream(incoming);
        let last = http_body::Body::size_hint(incoming).exact() == Some(0);
        match polled {
            Poll::Pending => {
                self.flow.await_client(cx.waker());
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    if bytes > self.left {
                        return Poll::Ready(Some(Err(self.fail(Reason::BodyTooLarge))));
                    }
                    self.left -= bytes;
                    self.flow.client_sent(bytes);
                    if ended {
                        self.end();
                    } else if last {
                        self.flow.request_sent(); // by its length; trailers may still come
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = client_fault(&error);
                Poll::Ready(Some(Err(self.fail(reason))))
            }
            // hyper shows RST_STREAM(NO_ERROR) as a clean end.
            Poll::Ready(None) if self.http2 && !ended => {
                Poll::Ready(Some(Err(self.fail(Reason::ClientClosed))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
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
    ///
    /// * `bodiless`: to HEAD, or with a status that has no body, whatever the endpoint sends
    /// * `small`: to an HTTP/2 client, whose stream would hold a whole block beyond its window
    pub fn upstream(
        incoming: Incoming,
        lease: Lease,
        exchange: Exchange,
        bodiless: bool,
        small: bool,
    ) -> Self {
        if bodiless || http_body::Body::is_end_stream(&incoming) {
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
                small,
                rest: Bytes::new(),
            }),
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
    fn poll_frame(
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
                    flow.offered(data.len() as u64);
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
            Poll::Ready(_) => {
                self.failed = Some(Reason::UpstreamReset);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// The next part of a block; the last one may end the answer.
    fn hand_over(&mut self, part: Bytes, flow: &Flow) -> Frame<Bytes> {
        flow.offered(part.len() as u64);
        if self.rest.is_empty() && http_body::Body::is_end_stream(&self.incoming) {
            self.finish(flow);
        }
        Frame::data(part)
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
        let mut hint = http_body::Body::size_hint(&self.incoming);
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }

    fn is_finished(&self) -> bool {
        self.lease.is_none()
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
                let polled = upstream.poll_frame(exchange.flow(), cx);
                (polled, upstream.is_finished())
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
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(upstream) => upstream.size_hint(),
        }
    }
}
