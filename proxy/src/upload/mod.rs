//! A request's body on its way to an endpoint: passed on as it comes, or [shared](Upload) by what else wants it.

mod client;
mod held;
mod shared;
mod tee;
mod tether;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::error::Cut;
use crate::flow::Flow;

pub use client::{BodyWatch, Client};
pub use shared::{Ahead, Keep, Replay, Upload};
pub use tee::{TeeEnd, TeeReader, TeeWriter, Watch, tee};
pub use tether::{Hitch, Tether};

/// The largest body that a request to a cluster with a waiting room can be sent with once more after an endpoint said
/// that it did not take it on, bytes; as far as the room's own bound allows. It is held until the answer's head comes.
pub const RETURNS: u64 = 1 << 20;

/// A request's body on its way to an endpoint; small, since hyper hands requests over by value many times.
pub struct RequestBody(Option<Box<Outgoing>>); // none: nothing at all

struct Outgoing {
    kind: Kind,
    flow: Rc<Flow>,
    /// Only in a stream of HTTP/2.
    knot: Option<tether::Knot>,
}

enum Kind {
    /// As it comes.
    Direct(Client),
    /// Kept for another attempt, copied or looked at on its way.
    Shared(shared::Reader),
    /// A copy of another request's.
    Copy(TeeReader),
}

impl RequestBody {
    /// The body as it comes.
    pub fn direct(client: Client, flow: Rc<Flow>) -> Self {
        let kind = (!client.is_over()).then_some(Kind::Direct(client));
        Self::of(kind, flow)
    }

    fn of(kind: Option<Kind>, flow: Rc<Flow>) -> Self {
        Self(kind.map(|kind| {
            Box::new(Outgoing {
                kind,
                flow,
                knot: None,
            })
        }))
    }

    /// The first attempt's view of a body that others want as well.
    pub fn shared(upload: &Rc<Upload>, flow: Rc<Flow>) -> Self {
        let kind = (!upload.is_empty()).then(|| Kind::Shared(upload.read()));
        Self::of(kind, flow)
    }

    /// A copy of another request's body; `None`: that has none.
    pub fn copy(reader: Option<TeeReader>, flow: Rc<Flow>) -> Self {
        Self::of(reader.map(Kind::Copy), flow)
    }

    /// Ties what will send it over an HTTP/2 connection; `None`: there is nothing to send.
    pub fn tie(&mut self, hitch: &Hitch) -> Option<Tether> {
        let outgoing = self.0.as_mut()?;
        let tether = Tether::default();
        outgoing.knot = Some(tether::Knot::new(hitch, &tether));
        Some(tether)
    }

    /// Lets the body be read before it is sent; `None`: there is nothing to read.
    pub fn share(&mut self) -> Option<Rc<Upload>> {
        let outgoing = self.0.as_mut()?;
        if let Kind::Direct(client) = &mut outgoing.kind {
            let client = std::mem::take(client);
            let upload = Upload::new(client, Ahead::default(), None, None);
            outgoing.kind = Kind::Shared(upload.read());
        }
        self.upload().map(Rc::clone)
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What the same body can be sent from once more, if it can.
    pub fn replay(&self) -> Option<Replay> {
        let Some(outgoing) = &self.0 else {
            return Some(Replay::empty());
        };
        match &outgoing.kind {
            Kind::Shared(reader) => reader.replay(Rc::clone(&outgoing.flow)),
            Kind::Direct(_) | Kind::Copy(_) => None,
        }
    }

    /// The upload behind a shared body.
    pub fn upload(&self) -> Option<&Rc<Upload>> {
        match &self.0.as_ref()?.kind {
            Kind::Shared(reader) => Some(reader.upload()),
            Kind::Direct(_) | Kind::Copy(_) => None,
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(outgoing) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let Outgoing { kind, flow, knot } = &mut **outgoing;
        if let Some(knot) = knot {
            knot.polled();
        }
        match kind {
            Kind::Direct(client) => {
                if let (false, Some(reason)) = (client.is_over(), flow.body_refused()) {
                    client.end();
                    return Poll::Ready(Some(Err(Cut(reason))));
                }
                let over = client.is_over();
                let polled = client.poll(flow, cx);
                if !over && !matches!(polled, Poll::Ready(Some(Err(_)))) && client.is_spent() {
                    flow.request_sent();
                }
                polled
            }
            Kind::Shared(reader) => {
                if let (false, Some(reason)) = (reader.is_over(), flow.body_refused()) {
                    reader.give_up();
                    return Poll::Ready(Some(Err(Cut(reason))));
                }
                reader.poll(flow, cx)
            }
            Kind::Copy(reader) => {
                let polled = reader.poll(cx);
                if reader.is_spent() {
                    flow.request_sent();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(outgoing) = &self.0 else { return true };
        match &outgoing.kind {
            Kind::Direct(client) => client.is_over(),
            Kind::Shared(reader) => reader.is_over(),
            Kind::Copy(reader) => reader.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(outgoing) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        match &outgoing.kind {
            Kind::Direct(client) => client.size_hint(),
            Kind::Shared(reader) => reader.size_hint(),
            Kind::Copy(reader) => reader.size_hint(),
        }
    }
}
