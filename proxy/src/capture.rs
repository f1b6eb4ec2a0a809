//! What is kept of a request and its answers beyond passing them on, for comparing and recording: bounded copies, made
//! on a worker, looked at elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Bytes that may be held for all who share it, over all workers.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    most: AtomicU64,
}

impl Budget {
    /// A budget of `most` bytes.
    pub fn new(most: u64) -> Self {
        Self {
            held: AtomicU64::new(0),
            most: AtomicU64::new(most),
        }
    }

    /// Changes the bound; what is held stays held.
    pub fn set(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes `bytes`; false: there are not so many.
    pub fn take(&self, bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let more = |held: u64| held.checked_add(bytes).filter(|&held| held <= most);
        // Never beyond the bound, not even for the moment of a refusal: that would refuse others as well.
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Takes `bytes` that are there already.
    pub fn force(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A body that is being kept, within a budget; what it took is given back when it is dropped or done.
#[derive(Debug)]
pub struct Capture {
    kept: Kept,
    most: u64,
    budget: Arc<Budget>,
}

impl Capture {
    /// Keeps at most `most` bytes of a body.
    pub fn new(most: u64, budget: Arc<Budget>) -> Self {
        Self {
            kept: Kept::default(),
            most,
            budget,
        }
    }

    /// Adds what came next, as far as bound and budget allow.
    pub fn push(&mut self, data: &[u8]) {
        let before = self.kept.bytes.len() as u64;
        let fits = self.kept.length == before; // a gap would make other bytes of it
        let wanted = (self.most - before.min(self.most)).min(data.len() as u64);
        if fits && wanted > 0 && self.budget.take(wanted) {
            self.kept.push(data, self.most);
        } else {
            self.kept.length += data.len() as u64;
        }
    }

    /// Bytes came to their end.
    pub fn end(&mut self) {
        self.kept.whole = true;
    }

    /// What was kept so far.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// What was kept.
    pub fn take(&mut self) -> Kept {
        self.budget.give_back(self.kept.bytes.len() as u64);
        std::mem::take(&mut self.kept)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.take();
    }
}

/// A request as it went to its endpoint.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// `x-request-id`.
    pub id: String,
    /// The route's name.
    pub route: Arc<str>,
    /// As sent.
    pub method: Method,
    /// `Host` or `:authority`.
    pub authority: String,
    /// Path and query.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_keeps_what_bound_and_budget_allow_and_gives_it_back() {
        let budget = Arc::new(Budget::new(10));
        let mut first = Capture::new(8, Arc::clone(&budget));
        first.push(b"abcdef");
        first.push(b"ghijkl");
        assert_eq!(first.kept().bytes, b"abcdefgh");
        assert_eq!(first.kept().length, 12);
        let mut second = Capture::new(8, Arc::clone(&budget));
        second.push(b"ab");
        second.push(b"cd"); // the budget is spent
        second.push(b"e");
        second.end();
        assert_eq!(second.kept().bytes, b"ab");
        assert!(!second.kept().is_complete());
        assert_eq!(first.take().length, 12);
        drop((first, second));
        assert_eq!(budget.held(), 0);
    }
}
