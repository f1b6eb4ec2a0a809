//! Who can serve: the endpoints of a cluster, their live counters, and the choice among them.
//!
//! [`ClusterState`] is keyed by the cluster's name and outlives generations of the configuration;
//! an [`Endpoint`] is keyed by its address and outlives changes of the set it is in.

mod balance;
mod endpoint;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
pub struct ClusterState {
    name: String,
    set: ArcSwap<EndpointSet>,
    /// Open connections to all endpoints by all workers.
    connections: Arc<AtomicU32>,
    /// Requests in flight on all endpoints by all workers.
    requests: Arc<AtomicU32>,
    /// Round robin position, shared so that few requests over many workers still alternate.
    turn: AtomicU32,
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
            name: name.to_owned(),
            set: ArcSwap::from_pointee(EndpointSet {
                endpoints: Vec::new(),
                ring: None,
            }),
            connections: Arc::default(),
            requests: Arc::default(),
            turn: AtomicU32::new(0),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The endpoints that serve now.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Replaces the set; endpoints whose address stays keep their counters and connections.
    /// When an address is named twice the first one counts.
    pub fn update(&self, candidates: Vec<Candidate>, balance: &config::Balance) {
        let old = self.set.load();
        let known: HashMap<SocketAddr, &Arc<Endpoint>> =
            old.endpoints.iter().map(|e| (e.address, e)).collect();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(candidates.len());
        let mut sorted = candidates;
        sorted.sort_by_key(|c| c.address);
        sorted.dedup_by_key(|c| c.address);
        for candidate in sorted {
            let kept = known
                .get(&candidate.address)
                .filter(|e| e.weight == candidate.weight && e.host == candidate.host);
            endpoints.push(match kept {
                Some(endpoint) => Arc::clone(endpoint),
                None => {
                    let before = known.get(&candidate.address).copied();
                    let (connections, requests) =
                        (Arc::clone(&self.connections), Arc::clone(&self.requests));
                    Arc::new(Endpoint::new(candidate, before, connections, requests))
                }
            });
        }
        let ring = matches!(balance, config::Balance::Hash(_)).then(|| Ring::new(&endpoints));
        self.set.store(Arc::new(EndpointSet { endpoints, ring }));
    }

    /// Open connections to all endpoints.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests in flight on all endpoints.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The next round robin position.
    fn next_turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}
