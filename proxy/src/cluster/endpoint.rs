//! One server address and what is going on there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Candidate;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Counters that stay when the weight or name of an address changes.
#[derive(Default)]
struct Counters {
    in_flight: AtomicU32,
    connections: AtomicU32,
}

/// One server address of a cluster.
pub struct Endpoint {
    /// Unique in this process; keys the workers' pools.
    pub id: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// The address as text, for logs and labels.
    pub label: Arc<str>,
    /// The name it was found by, for SNI.
    pub host: Arc<str>,
    /// ≥ 1.
    pub weight: u32,
    counters: Arc<Counters>,
    cluster_connections: Arc<AtomicU32>,
    cluster_requests: Arc<AtomicU32>,
}

impl Endpoint {
    /// An endpoint at the candidate's address; `before` is the same address under another weight or name.
    pub(super) fn new(
        candidate: Candidate,
        before: Option<&Arc<Endpoint>>,
        cluster_connections: Arc<AtomicU32>,
        cluster_requests: Arc<AtomicU32>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address: candidate.address,
            label: candidate.address.to_string().into(),
            host: candidate.host,
            weight: candidate.weight,
            counters: before.map(|b| Arc::clone(&b.counters)).unwrap_or_default(),
            cluster_connections,
            cluster_requests,
        }
    }

    /// Requests in flight from this proxy, all workers.
    pub fn in_flight(&self) -> u32 {
        self.counters.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections from this proxy, all workers.
    pub fn connections(&self) -> u32 {
        self.counters.connections.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("weight", &self.weight)
            .finish()
    }
}

/// One request counted on one endpoint until its last byte; a cancelled request cannot leak it.
/// A statistic, not a permit.
#[must_use]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Counts one request on `endpoint`.
    pub fn begin(endpoint: Arc<Endpoint>) -> Self {
        // Statistics: they order no other memory.
        endpoint.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.cluster_requests.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The endpoint it is counted on.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.cluster_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open or opening connection, counted against the cluster's breaker.
#[must_use]
pub struct ConnectionCount(Arc<Endpoint>);

impl ConnectionCount {
    /// Counts one connection, unless the cluster already has `limit`.
    pub fn begin(endpoint: &Arc<Endpoint>, limit: Option<u32>) -> Option<Self> {
        let all = &endpoint.cluster_connections;
        if all.fetch_add(1, Ordering::Relaxed) >= limit.unwrap_or(u32::MAX) {
            all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        endpoint
            .counters
            .connections
            .fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(endpoint)))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.cluster_connections.fetch_sub(1, Ordering::Relaxed);
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
