//! One server address and what is going on there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::berths::{Berth, Berths};
use super::flags::Changes;
use super::vitals::{self, EndpointState, Vitals};
use super::{Candidate, Common};
use crate::room::{Seat, Seating, Slot};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What stays when the weight or name of an address changes.
pub(super) struct Counters {
    in_flight: AtomicU32,
    connections: AtomicU32,
    pub(super) vitals: Vitals,
    pub(super) seating: Seating,
    pub(super) berths: Berths,
}

impl Counters {
    fn new(changes: Arc<Changes>) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            vitals: Vitals::new(changes),
            seating: Seating::default(),
            berths: Berths::default(),
        }
    }
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
    common: Arc<Common>,
}

/// An endpoint as the admin API shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub endpoint: Arc<str>,
    /// Whether it gets requests.
    pub state: EndpointState,
    /// How often it was ejected since its address is known.
    pub ejections: u64,
    /// Seconds until one request may try it again; 0 unless it is ejected.
    pub ejected_for: f64,
    /// It said that it is busy: others are preferred.
    pub busy: bool,
    /// Requests in flight from this proxy.
    pub in_flight: u32,
    /// What the last active check found wrong; `None` when it passed.
    pub check_error: Option<Arc<str>>,
}

impl Endpoint {
    /// An endpoint at the candidate's address; `before` is the same address under another weight or name.
    pub(super) fn new(
        candidate: Candidate,
        before: Option<&Arc<Endpoint>>,
        common: Arc<Common>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address: candidate.address,
            label: candidate.address.to_string().into(),
            host: candidate.host,
            weight: candidate.weight,
            counters: match before {
                Some(before) => Arc::clone(&before.counters),
                None => Arc::new(Counters::new(Arc::clone(&common.changes))),
            },
            common,
        }
    }

    /// An address that is in no set, such as that of a server which starts.
    pub fn unlisted(address: SocketAddr) -> Self {
        let candidate = Candidate {
            address,
            host: address.ip().to_string().into(),
            weight: 1,
        };
        Self::new(candidate, None, Arc::default())
    }

    /// Requests in flight from this proxy, all workers.
    pub fn in_flight(&self) -> u32 {
        self.counters.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections from this proxy, all workers.
    pub fn connections(&self) -> u32 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    pub(super) fn vitals(&self) -> &Vitals {
        &self.counters.vitals
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Whether it gets requests.
    pub fn state(&self) -> EndpointState {
        self.vitals().state(self.common.is_checked(), vitals::now())
    }

    /// True while it is checked as it should be, not ejected and not drained; busy ones are healthy.
    pub fn is_healthy(&self) -> bool {
        self.state() == EndpointState::Healthy
    }

    /// How often it was ejected since its address is known.
    pub fn ejections(&self) -> u64 {
        self.vitals().ejections()
    }

    /// How it is now.
    pub fn report(&self) -> EndpointReport {
        let vitals = self.vitals();
        let now = vitals::now();
        let left = match vitals.is_ejected() {
            true => vitals.ejected_until().saturating_sub(now),
            false => 0,
        };
        EndpointReport {
            endpoint: Arc::clone(&self.label),
            state: vitals.state(self.common.is_checked(), now),
            ejections: vitals.ejections(),
            ejected_for: left as f64 / 1000.0,
            busy: vitals.is_busy(now),
            in_flight: self.in_flight(),
            check_error: vitals.check_error(),
        }
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
/// A statistic; in a cluster with a waiting room it holds the permit as well.
#[must_use]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    slot: Option<Slot<Arc<Endpoint>>>,
}

impl Seat for Arc<Endpoint> {
    fn seating(&self) -> &Seating {
        &self.counters.seating
    }

    fn may_serve(&self) -> bool {
        self.vitals().may_serve(self.common.is_checked())
    }
}

impl Endpoint {
    /// True while it could serve who waits, now or after a short pause.
    pub(super) fn is_there(&self) -> bool {
        self.vitals().is_there(self.common.is_checked())
    }
}

impl InFlight {
    /// Counts one request on `endpoint`.
    ///
    /// * `slot`: what it was let in with; it ends with the statistic
    pub fn begin(endpoint: Arc<Endpoint>, slot: Option<Slot<Arc<Endpoint>>>) -> Self {
        // Statistics: they order no other memory.
        endpoint.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.common.requests.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, slot }
    }

    /// The response head came.
    pub fn head_came(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.head_came();
        }
    }

    /// True when it holds a permit.
    pub fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// The endpoint it is counted on.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint
            .counters
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
        self.endpoint
            .common
            .requests
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open or opening connection, counted against the cluster's breaker.
#[must_use]
pub struct ConnectionCount {
    endpoint: Arc<Endpoint>,
    berth: Option<Berth>,
}

impl ConnectionCount {
    /// Counts one connection, unless the cluster already has `limit`.
    ///
    /// * `berth`: what it needs among those of its endpoint; `None`: nothing
    pub fn begin(
        endpoint: &Arc<Endpoint>,
        limit: Option<u32>,
        berth: Option<Berth>,
    ) -> Option<Self> {
        let all = &endpoint.common.connections;
        if all.fetch_add(1, Ordering::Relaxed) >= limit.unwrap_or(u32::MAX) {
            all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        endpoint
            .counters
            .connections
            .fetch_add(1, Ordering::Relaxed);
        Some(Self {
            endpoint: Arc::clone(endpoint),
            berth,
        })
    }

    /// True when others may wait for the end of the connection.
    pub fn is_bounded(&self) -> bool {
        self.berth.as_ref().is_some_and(Berth::is_bounded)
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        let Self { endpoint, .. } = self;
        endpoint.common.connections.fetch_sub(1, Ordering::Relaxed);
        endpoint
            .counters
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}
