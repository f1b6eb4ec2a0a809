//! Who can serve: the endpoints of a cluster, their live counters, and the choice among them.
//!
//! What a [`ClusterState`] counts is keyed by the cluster's name and outlives generations of the configuration; its
//! endpoints are those of one generation. An [`Endpoint`] is keyed by its address and outlives changes of the set it
//! is in.

mod balance;
mod endpoint;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use forebay_config as config;

pub use balance::{Choice, Ring};
pub use endpoint::{ConnectionCount, Endpoint, InFlight};

/// The endpoints that serve now, in a stable order.
pub struct EndpointSet {
    /// Sorted by address.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Only for clusters balanced by a hash.
    pub ring: Option<Ring>,
}

/// What a cluster is made of while the process lives, whatever the configuration says of it.
struct Roots {
    name: String,
    /// Open connections to all endpoints by all workers.
    connections: Arc<AtomicU32>,
    /// Requests in flight on all endpoints by all workers.
    requests: Arc<AtomicU32>,
    /// Round robin position, shared so that few requests over many workers still alternate.
    turn: AtomicU32,
    /// Every endpoint that anybody still holds, so that an address has one set of counters.
    known: Mutex<HashMap<SocketAddr, Weak<Endpoint>>>,
}

/// A cluster's endpoints as one generation of the configuration sees them. What counts is shared by all generations.
pub struct ClusterState {
    roots: Arc<Roots>,
    set: ArcSwap<EndpointSet>,
}

/// An endpoint as configuration or discovery names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name it was found by, for SNI.
    pub host: Arc<str>,
    /// ≥ 1.
    pub weight: u32,
}

impl ClusterState {
    /// A cluster without endpoints.
    pub fn new(name: &str) -> Self {
        Self {
            roots: Arc::new(Roots {
                name: name.to_owned(),
                connections: Arc::default(),
                requests: Arc::default(),
                turn: AtomicU32::new(0),
                known: Mutex::default(),
            }),
            set: ArcSwap::from_pointee(EndpointSet {
                endpoints: Vec::new(),
                ring: None,
            }),
        }
    }

    /// The same cluster for the next generation, with the endpoints of this one until it is updated.
    pub fn next_generation(&self) -> Self {
        Self {
            roots: Arc::clone(&self.roots),
            set: ArcSwap::new(self.set.load_full()),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.roots.name
    }

    /// The endpoints that serve now.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Replaces the set; endpoints whose address stays keep their counters and connections.
    /// When an address is named twice the first one counts.
    pub fn update(&self, candidates: Vec<Candidate>, balance: &config::Balance) {
        let mut known = self
            .roots
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, endpoint| endpoint.strong_count() > 0);
        let mut sorted = candidates;
        sorted.sort_by_key(|c| c.address);
        sorted.dedup_by_key(|c| c.address);
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(sorted.len());
        for candidate in sorted {
            let address = candidate.address;
            let before = known.get(&address).and_then(Weak::upgrade);
            let same = |e: &Arc<Endpoint>| e.weight == candidate.weight && e.host == candidate.host;
            let endpoint = match before {
                Some(endpoint) if same(&endpoint) => endpoint,
                before => Arc::new(Endpoint::new(
                    candidate,
                    before.as_ref(),
                    Arc::clone(&self.roots.connections),
                    Arc::clone(&self.roots.requests),
                )),
            };
            known.insert(address, Arc::downgrade(&endpoint));
            endpoints.push(endpoint);
        }
        let ring = matches!(balance, config::Balance::Hash(_)).then(|| Ring::new(&endpoints));
        self.set.store(Arc::new(EndpointSet { endpoints, ring }));
    }

    /// Open connections to all endpoints.
    pub fn connections(&self) -> u32 {
        self.roots.connections.load(Ordering::Relaxed)
    }

    /// Requests in flight on all endpoints.
    pub fn requests(&self) -> u32 {
        self.roots.requests.load(Ordering::Relaxed)
    }

    /// The next round robin position.
    fn next_turn(&self) -> u32 {
        self.roots.turn.fetch_add(1, Ordering::Relaxed)
    }
}
