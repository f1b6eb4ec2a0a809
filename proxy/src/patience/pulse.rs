//! Where the part of a request that waits tells that its client should hear something.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};

use crate::snapshot::WorkerSnapshot;

/// An answer that begins before there is one.
#[derive(Debug)]
pub struct Early {
    /// Its head.
    pub head: Response<()>,
    /// What is sent at once and in each period.
    pub comment: Bytes,
    /// How often.
    pub period: Duration,
}

/// Shared by the future of a request and whoever polls that.
#[derive(Default)]
pub struct Pulse(Cell<Option<Box<Early>>>);

impl Pulse {
    /// `None`: no cluster has heartbeats, or the answer cannot be begun early.
    pub fn of<B>(snapshot: &WorkerSnapshot, request: &Request<B>) -> Option<Rc<Self>> {
        let possible = snapshot.has_heartbeats
            && request.version() > Version::HTTP_10
            && request.method() != Method::HEAD;
        possible.then(Rc::default)
    }

    /// The answer begins now.
    pub fn begin(&self, early: Early) {
        self.0.set(Some(Box::new(early)));
    }

    /// What began since the last call.
    pub fn take(&self) -> Option<Box<Early>> {
        self.0.take()
    }
}
