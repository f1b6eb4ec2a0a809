//! Connections to endpoints: kept per worker, opened within a deadline, given back when an answer is whole.

mod berth;
mod connect;
mod pool;
mod pools;

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::cluster::{ConnectionCount, InFlight};
use crate::error::Reason;
use crate::io::Wire;
use crate::upload::RequestBody;

pub use connect::{ConnectError, Connector, ConnectorTls, is_out_of_sockets};
pub use pool::Pool;
pub use pools::Pools;

/// What is left of a connection after a 101: the socket and what was read past the answer.
/// It counts as open as long as the second part lives.
pub type Switched = (
    hyper::client::conn::http1::Parts<hyper_util::rt::TokioIo<crate::io::Io>>,
    ConnectionCount,
);

/// A connection checked out for one request, and the request's place in the endpoint's counters.
/// Dropped before [`Lease::release`], the connection (HTTP/1.1) or the stream (HTTP/2) is reset.
pub struct Lease {
    /// `None` once it is given back.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    in_flight: Option<InFlight>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(Connection::Http1(h1)) => h1.wire.abort(),
            Some(Connection::Http2(h2)) => h2.abort(),
            None => {}
        }
    }
}

/// A connection that can take a request.
pub enum Connection {
    /// One request at a time.
    Http1(pool::Http1),
    /// A place among the streams of a connection.
    Http2(pool::Stream),
}

/// An attempt without an answer, as [`Lease::send`] tells of it.
pub enum Unanswered {
    /// The lease had no connection any more.
    Unsent(Box<Request<RequestBody>>),
    /// The connection failed.
    Failed(Box<TrySendError<Request<RequestBody>>>),
}

/// Why an attempt brought no response head.
pub struct AttemptError {
    /// What to tell the client, unless the request itself failed.
    pub reason: Reason,
    /// The request, when not a byte of it was written.
    pub request: Option<Box<Request<RequestBody>>>,
    /// The endpoint says that it did nothing with the request, so that it may be sent again (RFC 9113 §8.7).
    pub refused: bool,
    /// The connection broke, for whatever was on it.
    pub cut: bool,
}

impl Lease {
    /// Takes a connection to the pool's endpoint.
    ///
    /// * `in_flight`: counted since before the connection was made, so that an endpoint that hangs looks busy
    pub fn new(connection: Connection, pool: Rc<Pool>, in_flight: InFlight) -> Self {
        if let Connection::Http1(h1) = &connection {
            h1.wire.forget_interim();
        }
        Self {
            connection: Some(connection),
            pool,
            in_flight: Some(in_flight),
        }
    }

    /// True when the connection speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.connection, Some(Connection::Http2(_)))
    }

    /// Gives the request to the connection at once; what it returns waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// The connection failed; [`explain`](Self::explain) says how.
    pub fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unanswered>> + use<> {
        enum Way<H1, H2> {
            Http1(H1),
            Http2(H2),
            Gone(Box<Request<RequestBody>>),
        }
        let way = match &mut self.connection {
            Some(Connection::Http1(h1)) => Way::Http1(h1.sender.try_send_request(request)),
            Some(Connection::Http2(h2)) => {
                h2.tie(request.body_mut());
                Way::Http2(h2.sender.try_send_request(request))
            }
            None => Way::Gone(Box::new(request)),
        };
        async move {
            let sent = match way {
                Way::Http1(sent) => sent.await,
                Way::Http2(sent) => sent.await,
                Way::Gone(request) => return Err(Unanswered::Unsent(request)),
            };
            sent.map_err(|failed| Unanswered::Failed(Box::new(failed)))
        }
    }

    /// Says what an attempt that failed means; the request comes back when nothing of it was written.
    #[cold]
    pub fn explain(&self, failed: Unanswered) -> AttemptError {
        let mut failed = match failed {
            Unanswered::Failed(failed) => failed,
            Unanswered::Unsent(request) => {
                return AttemptError {
                    reason: Reason::UpstreamReset,
                    request: Some(request),
                    refused: false,
                    cut: false,
                };
            }
        };
        AttemptError {
            request: failed.take_message().map(Box::new),
            reason: reason_of(failed.error(), self.wire()),
            refused: is_refused(failed.error()),
            cut: is_cut(failed.error()),
        }
    }

    /// The answer ended with this error.
    #[cold]
    pub fn broke(&self, error: &hyper::Error) {
        if let (true, Some(in_flight)) = (is_cut(error), &self.in_flight) {
            in_flight.endpoint().suspect();
        }
    }

    /// Asks for the socket itself once the endpoint has switched protocols; HTTP/1.1 only.
    pub fn on_switch(&mut self) -> Option<tokio::sync::oneshot::Receiver<Switched>> {
        match &self.connection {
            Some(Connection::Http1(h1)) => Some(h1.on_switch()),
            _ => None,
        }
    }

    fn wire(&self) -> Option<&Wire> {
        match &self.connection {
            Some(Connection::Http1(h1)) => Some(&h1.wire),
            _ => None,
        }
    }

    /// True when the request holds a permit of a waiting room.
    pub fn has_slot(&self) -> bool {
        self.in_flight.as_ref().is_some_and(InFlight::has_slot)
    }

    /// The response head came.
    pub fn head_came(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.head_came();
        }
    }

    /// The answer is whole since `now`: the connection may serve the next request.
    pub fn release(mut self, now: tokio::time::Instant) {
        if let Some(Connection::Http1(h1)) = self.connection.take() {
            self.pool.give_back(h1, now);
        }
    }

    /// Ends the request's place in the counters but keeps nothing else: the socket lives on in a tunnel.
    pub fn into_in_flight(mut self) -> Option<InFlight> {
        self.connection = None;
        self.in_flight.take()
    }
}

/// True for REFUSED_STREAM, and for a stream beyond the last one that a GOAWAY names.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    cause.is_some_and(|e| {
        let refused = e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM);
        e.is_remote() && (refused || e.is_go_away())
    })
}

/// True when the connection itself ended, by a reset or too early; not one stream of it, nor for what it carried.
fn is_cut(error: &hyper::Error) -> bool {
    use std::io::ErrorKind;
    let ends = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        )
    };
    let cause = std::error::Error::source(error);
    let cause = cause.is_some_and(|cause| match cause.downcast_ref::<h2::Error>() {
        Some(error) => error.is_io(),
        None => cause.downcast_ref().is_some_and(ends),
    });
    error.is_incomplete_message() || cause
}

fn reason_of(error: &hyper::Error, wire: Option<&Wire>) -> Reason {
    if error.is_parse() || error.is_parse_too_large() || wire.is_some_and(Wire::too_many_interim) {
        Reason::UpstreamProtocol
    } else {
        Reason::UpstreamReset
    }
}
