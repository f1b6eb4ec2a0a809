//! What is left of an attempt: the request once more, and an answer that nobody gets.

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Arrived;
use super::head::Head;
use crate::flow::Flow;
use crate::upload::{Replay, RequestBody};

/// Of an answer that is not passed on, read so that its connection can serve again.
const DISCARD: u64 = 64 << 10;

/// What a request is made of once more.
pub(super) struct Spare {
    head: Head,
    body: Replay,
}

impl Spare {
    /// `None`: the body cannot be sent twice.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().replay()?;
        let head = Head::of(request);
        Some(Self { head, body })
    }

    /// True as long as it can be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// `None`: more of the body was sent than is kept.
    pub(super) fn request(self) -> Option<Box<Request<RequestBody>>> {
        let body = self.body.start()?;
        self.head.request(body).map(Box::new)
    }
}

/// Reads an answer that nobody gets, as far as that is cheaper than another connection.
pub(super) fn discard(arrived: Arrived, flow: &Flow) {
    let Arrived {
        response, lease, ..
    } = arrived;
    let mut body = response.into_body();
    if flow.sent().is_none() || http_body::Body::size_hint(&body).lower() > DISCARD {
        return; // dropped: the connection is reset
    }
    if http_body::Body::is_end_stream(&body) {
        lease.release(Instant::now());
        return;
    }
    tokio::task::spawn_local(async move {
        let limit = std::time::Duration::from_secs(1);
        if let Ok(true) = tokio::time::timeout(limit, read_out(&mut body)).await {
            lease.release(Instant::now());
        }
    });
}

/// True when the body is whole and short enough.
async fn read_out(body: &mut Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > DISCARD {
            return false;
        }
    }
    http_body::Body::is_end_stream(body)
}
