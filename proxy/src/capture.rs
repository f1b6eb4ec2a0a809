//! What is kept of a request and its answers beyond passing them on, for comparing and recording: bounded copies, made
//! on a worker, looked at elsewhere.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

/// A body as far as it was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// Bytes it had in all, as far as it came.
    pub length: u64,
    /// It came to its end.
    pub whole: bool,
}

impl Kept {
    /// Adds what came next, up to `most` bytes in all.
    pub fn push(&mut self, data: &[u8], most: u64) {
        self.length += data.len() as u64;
        let room = most.saturating_sub(self.bytes.len() as u64);
        let take = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        self.bytes.extend_from_slice(&data[..take]);
    }

    /// True when every byte of a whole body is here.
    pub fn is_complete(&self) -> bool {
        self.whole && self.bytes.len() as u64 == self.length
    }
}

/// A request as its client sent it, canonical.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// `x-request-id`.
    pub id: String,
    /// The route's name.
    pub route: Arc<str>,
    /// As sent.
    pub method: Method,
    /// Host as the client wrote it.
    pub authority: String,
    /// Canonical path, and the query as it was sent.
    pub target: String,
    /// As sent to the endpoint.
    pub headers: HeaderMap,
    /// What came of its body.
    pub body: Kept,
}

/// An answer as an endpoint gave it.
#[derive(Clone, Debug)]
pub struct SeenAnswer {
    /// The status line's.
    pub status: StatusCode,
    /// As the endpoint sent them.
    pub headers: HeaderMap,
    /// What came of its body.
    pub body: Kept,
    /// HTTP/2 and chunked trailers.
    pub trailers: Option<HeaderMap>,
    /// From the request's start to the answer's last byte.
    pub seconds: f64,
}

/// What came of a request or one of its copies.
#[derive(Clone, Debug)]
pub enum Seen {
    /// An answer, whole or cut.
    Answer(Box<SeenAnswer>),
    /// None: the reason, such as `connect_failed` or `timeout`.
    Nothing(&'static str),
}
