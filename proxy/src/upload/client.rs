//! What comes from the client: bounded, its trailers cleaned, its mistakes told from its departure.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::clean_trailers;
use crate::error::{Cut, Reason};
use crate::flow::Flow;

/// The client's end of a request's body; by default one that is over.
#[derive(Default)]
pub struct Client {
    /// `None` once it has ended.
    incoming: Option<Incoming>,
    /// Bytes the route still allows.
    left: u64,
    /// Bytes that came.
    taken: u64,
    http2: bool,
    watch: Option<BodyWatch>,
}

/// Looks at the data of a body as it comes and says why it must not go on.
pub type BodyWatch = Box<dyn FnMut(&[u8]) -> Result<(), Reason>>;

impl Client {
    /// All of a body. `http2`: the client's protocol.
    pub fn new(incoming: Incoming, http2: bool) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        Self {
            incoming,
            left: u64::MAX,
            taken: 0,
            http2,
            watch: None,
        }
    }

    /// At most `max` bytes in all, whatever was declared.
    ///
    /// # Errors
    ///
    /// More came already.
    pub fn bound(&mut self, max: Option<u64>) -> Result<(), Reason> {
        let left = max.unwrap_or(u64::MAX).checked_sub(self.taken);
        self.left = left.ok_or(Reason::BodyTooLarge)?;
        Ok(())
    }

    /// Shows all further data to `watch`, in place of who watched before.
    pub fn watch(&mut self, watch: BodyWatch) {
        self.watch = Some(watch);
    }

    /// Nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.incoming.is_none()
    }

    /// No byte of data comes any more; trailers still may.
    pub fn is_spent(&self) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_none_or(|body| body.size_hint().exact() == Some(0))
    }

    /// Reads nothing more.
    pub fn end(&mut self) {
        self.incoming = None;
    }

    /// What is still to come.
    pub fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }

    /// The next frame. Moves the clocks of the request and records why it fails.
    pub fn poll(
        &mut self,
        flow: &Flow,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = incoming.is_end_stream();
        match polled {
            Poll::Pending => {
                flow.await_client(cx.waker());
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    if bytes > self.left {
                        return Poll::Ready(Some(Err(fail(flow, Reason::BodyTooLarge))));
                    }
                    self.left -= bytes;
                    self.taken += bytes;
                    flow.client_sent(bytes);
                    if let Some(Err(reason)) = self.watch.as_mut().map(|watch| watch(data)) {
                        return Poll::Ready(Some(Err(fail(flow, reason))));
                    }
                    if ended {
                        self.end();
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(fail(flow, client_fault(&error)))))
            }
            // hyper shows RST_STREAM(NO_ERROR) as a clean end.
            Poll::Ready(None) if self.http2 && !ended => {
                Poll::Ready(Some(Err(fail(flow, Reason::ClientClosed))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }
}

fn fail(flow: &Flow, reason: Reason) -> Cut {
    flow.fail(reason);
    Cut(reason)
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
