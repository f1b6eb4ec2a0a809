//! A request's body on its way to an endpoint: passed on as it comes, or [shared](Upload) by what else wants it.

mod client;
mod shared;
mod tee;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::error::Cut;
use crate::flow::Flow;

pub use client::Client;
pub use shared::{Ahead, Replay, Upload};
pub use tee::{TeeEnd, TeeReader, TeeWriter, Watch, tee};

/// A request's body on its way to an endpoint.
pub struct RequestBody {
    kind: Kind,
    flow: Rc<Flow>,
}

enum Kind {
    /// As it comes.
    Direct(Client),
    /// Kept for another attempt, copied or looked at on its way.
    Shared(shared::Reader),
    /// A copy of another request's.
    Copy(TeeReader),
    /// Nothing at all.
    Empty,
}

impl RequestBody {
    /// The body as it comes.
    pub fn direct(client: Client, flow: Rc<Flow>) -> Self {
        let kind = if client.is_over() {
            Kind::Empty
        } else {
            Kind::Direct(client)
        };
        Self { kind, flow }
    }

    /// The first attempt's view of a body that others want as well.
    pub fn shared(upload: &Rc<Upload>, flow: Rc<Flow>) -> Self {
        let kind = if upload.is_empty() {
            Kind::Empty
        } else {
            Kind::Shared(upload.read())
        };
        Self { kind, flow }
    }

    /// A copy of another request's body; `None`: that has none.
    pub fn copy(reader: Option<TeeReader>, flow: Rc<Flow>) -> Self {
        let kind = reader.map_or(Kind::Empty, Kind::Copy);
        Self { kind, flow }
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// What the same body can be sent from once more, if it can.
    pub fn replay(&self) -> Option<Replay> {
        match &self.kind {
            Kind::Empty => Some(Replay::empty(Rc::clone(&self.flow))),
            Kind::Shared(reader) => reader.replay(Rc::clone(&self.flow)),
            Kind::Direct(_) | Kind::Copy(_) => None,
        }
    }

    /// The upload behind a shared body.
    pub fn upload(&self) -> Option<&Rc<Upload>> {
        match &self.kind {
            Kind::Shared(reader) => Some(reader.upload()),
            _ => None,
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
        let Self { kind, flow } = &mut *self;
        match kind {
            Kind::Empty => Poll::Ready(None),
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
        match &self.kind {
            Kind::Empty => true,
            Kind::Direct(client) => client.is_over(),
            Kind::Shared(reader) => reader.is_over(),
            Kind::Copy(reader) => reader.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Direct(client) => client.size_hint(),
            Kind::Shared(reader) => reader.size_hint(),
            Kind::Copy(reader) => reader.size_hint(),
        }
    }
}
