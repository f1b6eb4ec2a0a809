//! What is counted per listener and per process: rare enough for shared counters.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use super::cells::{OTHER, Tally, lock};

/// Why a downstream connection fails outside any request; exported at 0 from the start.
pub const CONNECTION_ERRORS: &[&str] = &[
    "accept",
    "bad_request",
    "client_left",
    "closed_early",
    "descriptors",
    "header_timeout",
    "io",
    "proxy_protocol",
    "tls_handshake",
    "tls_on_plain",
    "write_stall",
];

/// The connections of one listener, counted from any worker.
#[derive(Debug, Default)]
pub struct ListenerCells {
    connections: AtomicI64,
    errors: Mutex<Tally<&'static str>>,
}

impl ListenerCells {
    /// A connection was accepted; [`closed`](Self::closed) follows exactly once, on any worker.
    pub fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
    }

    /// A connection is gone.
    pub fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed); // a statistic: orders no other memory
    }

    /// A connection failed outside any request; `reason` is best one of [`CONNECTION_ERRORS`].
    pub fn failed(&self, reason: &'static str) {
        lock(&self.errors).add(reason, OTHER);
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> Vec<(&'static str, u64)> {
        lock(&self.errors).iter().collect()
    }
}
