//! Berths: the HTTP/1.1 connections to one address, of which a cluster with `concurrency` has no more than slots.
//!
//! A server with a thread per connection blocks whoever has no thread: an idle connection of one worker must not stand
//! in the way of another worker's request. Who has a slot and no connection takes a berth. When none is free, one of
//! them is idle or about to be, for each connection in use belongs to another slot; its holder closes it. What is in
//! use without a slot, since there was no limit when it was opened, takes no berth: it may last for hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Endpoint;
use super::endpoint::Counters;

/// The berths of one address, over all workers.
///
/// Who frees one first counts it as free and then looks whether anybody wants it; who wants one first says so and then
/// looks whether one is free. All in one order, so one of them sees the other.
#[derive(Debug, Default)]
pub(super) struct Berths {
    taken: AtomicU32,
    wanted: AtomicU32,
    freed: Notify,
}

/// The right to one open HTTP/1.1 connection; held from before it is opened until it is closed.
#[must_use]
pub struct Berth {
    counters: Arc<Counters>,
    bounded: bool,
}

impl Berth {
    /// True when there is a bound: others may wait for the end of the connection.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        if self.bounded {
            let berths = &self.counters.berths;
            berths.taken.fetch_sub(1, Ordering::SeqCst);
            berths.tell();
        }
    }
}

impl Berths {
    fn tell(&self) {
        if self.wanted.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// Somebody who waits for a berth: while there is one, connections that become idle are closed.
#[must_use]
pub struct Wanting<'a>(&'a Berths);

impl Wanting<'_> {
    /// Resolves when a berth may be free; enabled before one looks for one, it misses none.
    pub fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::SeqCst);
        self.0.tell(); // it may have been told of more than it took
    }
}

impl Endpoint {
    /// Takes a berth, if fewer than `limit` are taken; `None`: there is no limit, and nothing is counted.
    pub fn berth(&self, limit: Option<u32>) -> Option<Berth> {
        let counters = self.counters();
        if let Some(most) = limit {
            let more = |taken: u32| (taken < most).then_some(taken + 1);
            let taken = &counters.berths.taken;
            let took = taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
            took.ok()?;
        }
        Some(Berth {
            counters: Arc::clone(counters),
            bounded: limit.is_some(),
        })
    }

    /// Begins to wait for a berth.
    pub fn want_berth(&self) -> Wanting<'_> {
        let berths = &self.counters().berths;
        berths.wanted.fetch_add(1, Ordering::SeqCst);
        Wanting(berths)
    }

    /// True when a connection that nobody uses is to be closed.
    pub fn is_crowded(&self, limit: u32) -> bool {
        let berths = &self.counters().berths;
        berths.wanted.load(Ordering::SeqCst) > 0 || berths.taken.load(Ordering::Relaxed) > limit
    }

    /// True of one address, under whatever weight or name.
    pub fn shares_berths(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.counters(), other.counters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn a_berth_that_is_freed_goes_to_who_wants_one() {
        let endpoint = Endpoint::unlisted(([127, 0, 0, 1], 1).into());
        let first = endpoint.berth(Some(2)).unwrap();
        let second = endpoint.berth(Some(2)).unwrap();
        assert!(first.is_bounded() && endpoint.berth(Some(2)).is_none());
        assert!(!endpoint.is_crowded(2) && endpoint.is_crowded(1));
        let (one, other) = (endpoint.want_berth(), endpoint.want_berth());
        assert!(endpoint.is_crowded(2));
        let (mut here, mut there) = (Box::pin(one.freed()), Box::pin(other.freed()));
        assert!(!here.as_mut().enable() && !there.as_mut().enable());
        drop(first);
        here.await;
        drop((one, second)); // it took nothing: the other one is told
        there.await;
        let third = endpoint.berth(Some(2)).unwrap();
        drop((other, third));
        assert!(!endpoint.is_crowded(2));
    }

    #[tokio::test]
    async fn one_who_looks_after_it_was_freed_is_not_kept() {
        let endpoint = Endpoint::unlisted(([127, 0, 0, 1], 1).into());
        let only = endpoint.berth(Some(1)).unwrap();
        let wanting = endpoint.want_berth();
        drop(only);
        let mut freed = Box::pin(wanting.freed());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(freed.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn what_was_taken_without_a_limit_counts_for_none() {
        let endpoint = Endpoint::unlisted(([127, 0, 0, 1], 1).into());
        let many: Vec<_> = (0..100).filter_map(|_| endpoint.berth(None)).collect();
        assert_eq!(many.len(), 100);
        assert!(!many[0].is_bounded());
        let only = endpoint.berth(Some(1)).unwrap();
        drop(many);
        assert!(endpoint.berth(Some(1)).is_none());
        drop(only);
        assert!(endpoint.berth(Some(1)).is_some());
    }
}
